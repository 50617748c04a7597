"""Cancel requests reach the client they name, and never another one."""

import asyncio

import pytest

from proxy.session.cancel import Canceller
from proxy.session.client import Phase
from proxy.session.server import ServerConnection
from proxy.wire.startup import encode_cancel_request
from tests.session.fake_server import FakeServer, Session
from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy
from tests.support.wire_client import WireClient, query

ONE_SLOT = {"classes": {"all": {"limit": 1, "queue": {"timeout": "20s"}}}}
FOREVER = "select pg_sleep(60)"


async def test_a_running_query_is_cancelled(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    await client.send(query(FOREVER))
    answer = await client.cancelled()
    assert (answer.codes, answer.status) == (["57014"], "I")
    assert await client.value("select 1") == "1"


async def test_a_query_in_a_transaction_is_cancelled_and_the_transaction_fails(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    await client.query("begin")
    await client.send(query(FOREVER))
    answer = await client.cancelled()
    assert (answer.codes, answer.status) == (["57014"], "E")
    assert (await client.query("rollback")).status == "I"


async def test_a_waiting_client_is_cancelled_and_leaves_the_queue(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE_SLOT)
    holder, client = await proxy.connect(), await proxy.connect()
    await holder.query("begin")
    await client.send(query("select 1"))
    await eventually(lambda: proxy.waiting() == 1)
    await client.ask_to_cancel()
    answer = await client.answer()
    assert (answer.codes, answer.status) == (["57014"], "I")
    assert proxy.waiting() == 0
    assert proxy.measures.cancels_of_waiting == 1
    await holder.query("commit")
    assert await client.value("select 2") == "2"


async def test_a_cancelled_wait_for_begin_leaves_a_failed_transaction(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE_SLOT)
    holder, client = await proxy.connect(), await proxy.connect()
    await holder.query("begin")
    await client.send(query("begin"))
    await eventually(lambda: proxy.waiting() == 1)
    await client.ask_to_cancel()
    answer = await client.answer()
    assert (answer.codes, answer.status) == (["57014"], "E")
    assert (await client.query("commit")).tags == ["ROLLBACK"]


async def test_a_cancel_while_dialling_ends_the_unit_and_not_the_dial(
    fake_server: FakeServer, run_proxy: RunProxy
) -> None:
    gate = asyncio.Event()

    async def slow(session: Session) -> None:
        if len(fake_server.of("app")) > 1:
            await gate.wait()
        session.greet()

    fake_server.on_startup = slow
    proxy = await run_proxy(fake_server.url)
    first, second = await proxy.connect(), await proxy.connect()
    await first.query("begin")
    await second.send(query("select"))
    await eventually(lambda: len(fake_server.of("app")) == 2)
    await second.ask_to_cancel()
    assert (await second.answer()).codes == ["57014"]
    gate.set()
    await first.query("commit")
    await eventually(lambda: len(list(proxy.registry.idle())) >= 2)
    assert fake_server.cancels == []


async def test_the_end_of_a_cancel_request_comes_after_its_signal(fake_server: FakeServer, run_proxy: RunProxy) -> None:
    """As from a server. Before, a cancel that came late hit the statement which the client sent next."""
    signalled, asked = asyncio.Event(), asyncio.Event()

    async def slow_signal(_: int) -> None:
        asked.set()
        await signalled.wait()

    async def slow(session: Session, kind: str, payload: bytes) -> None:
        if payload == b"slow\0":
            await asked.wait()
        session.obey(kind, payload)

    fake_server.on_cancel, fake_server.on_message = slow_signal, slow
    proxy = await run_proxy(fake_server.url)
    client = await proxy.connect()
    await client.send(query("slow"))
    await eventually(lambda: "slow" in fake_server.queries())
    asking = asyncio.create_task(client.ask_to_cancel())
    assert (await client.answer()).status == "I"
    assert not asking.done()
    signalled.set()
    await asking


async def test_an_idle_client_is_not_disturbed_by_a_cancel(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    await client.value("select 1")
    await client.ask_to_cancel()
    await client.ask_to_cancel()
    assert await client.value("select 2") == "2"
    assert proxy.measures.cancels_forwarded == 0


async def test_an_idle_transaction_is_not_disturbed_by_a_cancel(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    await client.query("begin")
    await client.ask_to_cancel()
    assert (await client.query("select 2")).status == "T"
    assert (await client.query("commit")).tags == ["COMMIT"]


@pytest.mark.parametrize("key", [b"nope", b"", b"longer than any key of this client"])
async def test_a_wrong_key_cancels_nothing(run_proxy: RunProxy, key: bytes) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    await client.send(query("select pg_sleep(0.3)"))
    if key:
        await client.ask_to_cancel(key=key)
    client.process_id ^= 1
    await client.ask_to_cancel()
    assert (await client.answer()).codes == []
    assert proxy.measures.cancels_forwarded == 0
    assert proxy.measures.cancels_unknown == 1 + bool(key)


async def test_a_key_is_of_no_use_once_its_client_has_left(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client, other = await proxy.connect(), await proxy.connect()
    await client.leave()
    await eventually(lambda: len(proxy.desk.clients) == 1)
    other.process_id, other.secret_key = client.process_id, client.secret_key
    await other.ask_to_cancel()
    assert proxy.measures.cancels_unknown == 1


async def test_protocol_3_2_has_a_longer_key(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    old, new = await proxy.connect(), await proxy.connect(minor=2)
    assert (len(old.secret_key), len(new.secret_key)) == (4, 32)
    await new.send(query(FOREVER))
    await new.ask_to_cancel(key=new.secret_key[:4])
    assert (await new.cancelled()).codes == ["57014"]
    assert proxy.measures.cancels_unknown == 1


async def test_a_connection_is_not_handed_out_while_a_cancel_is_under_way(
    fake_server: FakeServer, run_proxy: RunProxy
) -> None:
    """The query ends first, and the server has not closed the cancel connection: the signal may still come."""
    delivered, asked = asyncio.Event(), asyncio.Event()

    async def slow_cancel(_: int) -> None:
        asked.set()
        await delivered.wait()

    async def answer(session: Session, kind: str, payload: bytes) -> None:
        if payload == b"slow\0":
            await asked.wait()
        session.obey(kind, payload)

    fake_server.on_cancel, fake_server.on_message = slow_cancel, answer
    proxy = await run_proxy(fake_server.url, **ONE_SLOT)
    client, other = await proxy.connect(), await proxy.connect()
    await client.send(query("slow"))
    await eventually(lambda: proxy.linked() == 1)
    asking = asyncio.create_task(client.ask_to_cancel())  # answered when the cancel has been delivered
    assert (await client.answer()).status == "I"
    await other.send(query("next"))
    await eventually(lambda: proxy.waiting() == 1)
    assert "next" not in fake_server.queries()
    delivered.set()
    await asking
    assert (await other.answer()).status == "I"


async def test_a_connection_whose_cancel_was_not_delivered_serves_nobody_else(
    fake_server: FakeServer, run_proxy: RunProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal may come at any time; somebody who waits for a connection must get another one."""
    monkeypatch.setattr("proxy.session.cancel._CANCEL_TIMEOUT_SECONDS", 0.3)
    never, asked = asyncio.Event(), asyncio.Event()

    async def lost_cancel(_: int) -> None:
        asked.set()
        await never.wait()

    async def answer(session: Session, kind: str, payload: bytes) -> None:
        if payload == b"slow\0":
            await asked.wait()
        session.obey(kind, payload)

    fake_server.on_cancel, fake_server.on_message = lost_cancel, answer

    async def slow_dial(session: Session) -> None:
        if len(fake_server.of("app")) == 2:
            await asked.wait()
            await fake_server.sleep(0.6)
        session.greet()

    fake_server.on_startup = slow_dial
    proxy = await run_proxy(fake_server.url)
    client, other = await proxy.connect(), await proxy.connect()
    await client.send(query("slow"))
    await eventually(lambda: proxy.linked() == 1)
    await other.send(query("next"))
    await eventually(lambda: len(fake_server.of("app")) == 2)
    await client.ask_to_cancel()
    await client.answer()
    assert (await other.answer()).status == "I"
    sessions = [next(one for one in fake_server.of("app") if sql in one.queries) for sql in ("slow", "next")]
    assert sessions[0] is not sessions[1]


async def test_a_cancel_during_a_lone_check_does_not_hit_a_later_query(
    fake_server: FakeServer, run_proxy: RunProxy
) -> None:
    """A cancel that comes while the proxy still tries the connection is kept; it belongs to that unit alone."""
    checked, go_on = asyncio.Event(), asyncio.Event()

    async def answer(session: Session, kind: str, payload: bytes) -> None:
        if payload == b"\0" and not go_on.is_set():
            checked.set()
            await go_on.wait()
        session.obey(kind, payload)

    fake_server.on_message = answer
    go_on.set()
    proxy = await run_proxy(fake_server.url, pool={"check_after": "1ms"})
    client = await proxy.connect(application_name="mine")
    await client.query("first")
    await asyncio.sleep(0.01)  # the connection has to be idle for longer than check_after
    checked.clear()
    go_on.clear()
    await client.send(query("second"))
    await asyncio.wait_for(checked.wait(), 5)
    await client.ask_to_cancel()
    go_on.set()
    await client.answer()
    await proxy.until_free()
    assert proxy.measures.cancels_forwarded == 1
    other = await proxy.connect(application_name="other")
    await other.query("theirs")
    await client.query("third")  # the parameters are set again ahead of it
    assert proxy.measures.cancels_forwarded == 1, "the old cancel was kept for the third query"


async def until_linked(proxy: Running, client: WireClient) -> None:
    """Until the query of this client is with a server; given up where it was there and is over already."""
    (connection,) = (one for one in proxy.desk.clients if one.process_id == client.process_id)
    for _ in range(2000):
        if connection.phase is Phase.LINKED:
            return
        await asyncio.sleep(0)


async def _race(proxy: Running, rounds: int) -> list[str]:
    """Clients whose cancel comes as their query ends, among others who never cancel: what happened to the others."""
    stop = asyncio.Event()
    damage: list[str] = []

    async def innocent(client: WireClient) -> None:
        while not stop.is_set():
            answer = await client.query("select pg_sleep(0.002)")
            damage.extend(answer.codes)
            if not answer.status:
                return

    async def victim(client: WireClient, number: int) -> None:
        for turn in range(rounds):
            await client.send(query("select pg_sleep(0.002)"))
            await until_linked(proxy, client)
            await asyncio.sleep(0.0015 * ((number + turn) % 10) / 10)
            await asyncio.gather(client.ask_to_cancel(), client.answer())

    victims = [await proxy.connect() for _ in range(8)]
    innocents = [asyncio.create_task(innocent(await proxy.connect())) for _ in range(6)]
    await asyncio.gather(*(victim(client, number) for number, client in enumerate(victims)))
    stop.set()
    await asyncio.gather(*innocents)
    return damage


async def test_hundreds_of_cancels_that_race_with_the_end_of_their_query_hit_nobody_else(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(budget={"total": 4}, classes={"all": {"limit": 3, "queue": {"timeout": "20s"}}})
    assert await _race(proxy, rounds=100) == []
    assert proxy.measures.cancels_forwarded > 200


async def test_the_race_catches_a_canceller_that_does_not_wait(
    run_proxy: RunProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bug planted here is the one every pooler had: forward the cancel and hand the connection out."""

    def cancel_and_forget(self: Canceller, server: ServerConnection) -> None:
        self._measures.cancels_forwarded += 1
        request = encode_cancel_request(server.process_id, server.secret_key)

        async def carry() -> None:
            await self._send(request, server.route)

        self._tasks.spawn(carry(), name="planted")

    monkeypatch.setattr(Canceller, "cancel", cancel_and_forget)
    proxy = await run_proxy(budget={"total": 4}, classes={"all": {"limit": 3, "queue": {"timeout": "20s"}}})
    assert "57014" in await _race(proxy, rounds=60)
