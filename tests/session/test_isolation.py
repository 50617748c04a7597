"""Nothing of one client reaches another: no row, no statement, no setting, no lock.

Each of these once did, on a connection that was given back although it still belonged to somebody.
"""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from proxy.wire import messages
from proxy.wire.messages import ErrorFields
from tests.session.fake_server import FakeServer, Session
from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy
from tests.support.wire_client import (
    COPY_DONE,
    SYNC,
    TERMINATE,
    WireClient,
    bind,
    copy_data,
    describe,
    execute,
    parse,
    query,
    run,
)


def slots(count: int) -> dict[str, object]:
    """One more for the proxy's own queries: whoever is granted a slot gets the connection of the one before."""
    of_class = {"limit": count, "queue": {"timeout": "20s"}, "pinned_limit": count}
    return {"budget": {"total": count + 1}, "classes": {"all": of_class}}


async def all_is_read(bystander: WireClient) -> None:
    """The proxy has read what was sent before: it has answered a Sync, which needs no slot, that was sent later."""
    await bystander.send(SYNC)
    assert (await bystander.answer()).kinds == "Z"


async def only_its_own_rows_reach(victim: WireClient, proxy: Running, client: WireClient) -> None:
    """`client` has sent a batch of select 'foreign' without its Sync, and `victim` asks meanwhile."""
    await all_is_read(await proxy.connect())
    await victim.send(query("select 'mine'"))
    answering = asyncio.create_task(victim.answer())
    await eventually(lambda: proxy.waiting() == 1 or answering.done())
    await client.send(SYNC)
    answer = await client.answer()
    assert (answer.rows, answer.status) == ([("foreign",)], "I")
    answer = await answering
    assert (answer.kinds, answer.rows) == ("TDCZ", [("mine",)])


# -- a CopyDone that ends no COPY -------------------------------------------------------------------------------------


async def test_a_copy_done_outside_a_copy_ends_no_batch(run_proxy: RunProxy) -> None:
    """It was taken for the end of the unit: the next client got the rows of this one before its own."""
    proxy = await run_proxy(**slots(1))
    client, victim = await proxy.connect(), await proxy.connect()
    await client.send(run("select 'foreign'"), COPY_DONE)
    await only_its_own_rows_reach(victim, proxy, client)


async def test_a_copy_done_behind_a_bind_of_an_earlier_statement_ends_no_batch(run_proxy: RunProxy) -> None:
    """The same where nothing but Bind and Execute stands ahead of it."""
    proxy = await run_proxy(**slots(1))
    client, victim = await proxy.connect(), await proxy.connect()
    await client.send(parse("select 'foreign'"), SYNC)
    await client.answer()
    await client.send(bind(), execute(), COPY_DONE)
    await only_its_own_rows_reach(victim, proxy, client)


async def test_a_batch_behind_the_end_of_a_copy_keeps_the_connection_to_its_sync(run_proxy: RunProxy) -> None:
    """In one piece with CopyDone the batch behind it was overlooked, and answered to the next client."""
    proxy = await run_proxy(**slots(1))
    client, victim = await proxy.connect(), await proxy.connect()
    await client.query("create table if not exists copied_ahead (n int)")
    await client.send(query("copy copied_ahead from stdin"))
    await client.answer("G")
    await client.send(copy_data(b"1\n"), COPY_DONE, run("select 'foreign'"))
    assert (await client.answer()).tags == ["COPY 1"]
    await only_its_own_rows_reach(victim, proxy, client)
    await client.query("drop table copied_ahead")


# -- the unnamed statement --------------------------------------------------------------------------------------------


async def test_a_bind_that_waited_for_a_slot_runs_its_own_statement(run_proxy: RunProxy) -> None:
    """Bound ahead of its Sync while another client worked, it ran that client's unnamed statement."""
    proxy = await run_proxy(**slots(1))
    client, other = await proxy.connect(), await proxy.connect()
    await client.send(parse("select 'mine'"), describe("S"), SYNC)
    await client.answer()
    await other.query("begin")
    await client.send(bind(), execute())
    await eventually(lambda: proxy.waiting() == 1)
    await other.send(run("commit"), parse("select 'foreign'"), SYNC)
    assert (await other.answer()).status == "I"
    await eventually(lambda: proxy.waiting() == 0)
    await client.send(SYNC)
    answer = await client.answer()
    assert (answer.kinds, answer.rows) == ("2DCZ", [("mine",)])


@pytest.mark.parametrize("cut_at", [1, 4, 5, 20])
async def test_a_notice_cut_behind_an_answer_goes_whole_to_whom_it_was_begun(
    fake_server: FakeServer, run_proxy: RunProxy, cut_at: int
) -> None:
    """The connection was given back in the middle of it, and the next client read the rest."""
    notice = messages.notice_response(ErrorFields("NOTICE", "00000", "for the first client"))
    goes_on = asyncio.Event()

    async def answer(session: Session, kind: str, payload: bytes) -> None:
        if payload != b"first\0":
            session.obey(kind, payload)
            return
        done = messages.command_complete("SELECT 0") + messages.ready_for_query(b"I")
        session.send(done + notice[:cut_at])
        await goes_on.wait()
        session.send(notice[cut_at:])

    fake_server.on_message = answer
    proxy = await run_proxy(fake_server.url, budget={"total": 2}, classes={"all": {"limit": 1}})
    first, second = await proxy.connect(), await proxy.connect()
    assert (await first.query("first")).status == "I"
    await second.send(query("second"))
    await eventually(lambda: proxy.waiting() == 1)
    goes_on.set()
    assert (await second.answer()).tags == ["SECOND"]
    assert (await first.answer("N")).notices[0].message == "for the first client"


@pytest.mark.parametrize(
    "batch",
    [bind() + execute() + SYNC, bind(portal="p") + execute("p") + SYNC, describe("S") + bind() + execute() + SYNC],
    ids=["bind", "bind-to-a-portal", "describe"],
)
async def test_a_batch_cut_anywhere_runs_its_own_statement(run_proxy: RunProxy, batch: bytes) -> None:
    """Cut right behind its header, a Bind did not tell its statement yet, and the one of the client before ran."""
    proxy = await run_proxy(**slots(1))
    client, other, bystander = [await proxy.connect() for _ in range(3)]
    await client.send(parse("select 'mine' as mine"), SYNC)
    await client.answer()
    for cut in range(1, len(batch)):
        await other.send(parse("select 'foreign' as foreign"), SYNC)
        await other.answer()
        await client.send(batch[:cut])
        await all_is_read(bystander)
        await client.send(batch[cut:])
        answer = await client.answer()
        assert answer.rows == [("mine",)], f"cut at {cut}"
        assert all(b"mine" in columns for columns in answer.payloads("T")), f"cut at {cut}"


# -- settings ---------------------------------------------------------------------------------------------------------


async def _simple(client: WireClient) -> None:
    await client.query("reset all")


async def _in_two_units(client: WireClient) -> None:
    await client.send(parse("reset all"), SYNC)
    await client.answer()
    await client.send(bind(), execute(), SYNC)
    assert (await client.answer()).tags == ["RESET"]


async def _by_name(client: WireClient) -> None:
    await client.send(parse("reset all", "named"), bind(statement="named"), execute(), SYNC)
    assert (await client.answer()).tags == ["RESET"]
    await client.query("deallocate all")


async def _by_name_alone(client: WireClient) -> None:
    """Parsed in a unit of its own, so that the one that resets shows no SQL at all."""
    await client.send(parse("reset all", "named"), SYNC)
    await client.answer()
    await client.send(bind(statement="named"), execute(), SYNC)
    assert (await client.answer()).tags == ["RESET"]
    await client.query("deallocate all")


Reset = Callable[[WireClient], Awaitable[None]]
RESETS = [_simple, _in_two_units, _by_name, _by_name_alone]


@pytest.mark.parametrize("reset", RESETS, ids=[one.__name__.strip("_") for one in RESETS])
async def test_a_reset_takes_no_startup_parameter_from_the_next_client(run_proxy: RunProxy, reset: Reset) -> None:
    """Seen only where it was parsed: the connection lost its statement_timeout and went on as one that has it."""
    proxy = await run_proxy(**slots(1))
    client = await proxy.connect(statement_timeout="5000")
    assert await client.value("show statement_timeout") == "5s"
    await reset(client)
    await client.leave()
    await proxy.until_free()
    other = await proxy.connect(statement_timeout="5000")
    assert await other.value("show statement_timeout") == "5s"


@pytest.mark.parametrize("reset", RESETS, ids=[one.__name__.strip("_") for one in RESETS])
async def test_a_reset_brings_back_the_startup_parameter_of_its_client(run_proxy: RunProxy, reset: Reset) -> None:
    """As on a connection of one's own; what came back was the server's default."""
    proxy = await run_proxy(**slots(1))
    client = await proxy.connect(statement_timeout="5s")
    assert await client.value("show statement_timeout") == "5s"
    await reset(client)
    assert await client.value("show statement_timeout") == "5s"


async def test_a_reset_brings_back_a_reported_startup_parameter(run_proxy: RunProxy) -> None:
    """The server tells its own default; the client started with another value."""
    proxy = await run_proxy(**slots(1))
    client = await proxy.connect(TimeZone="Asia/Tokyo")
    await client.query("reset all")
    assert await client.value("show TimeZone") == "Asia/Tokyo"


async def test_a_reset_sent_with_the_farewell_takes_no_startup_parameter_from_anyone(run_proxy: RunProxy) -> None:
    """Nobody was left to restore for, so the connection went back as it was."""
    proxy = await run_proxy(**slots(1))
    client = await proxy.connect(statement_timeout="5000")
    assert await client.value("show statement_timeout") == "5s"
    await client.send(query("reset all"), TERMINATE)
    await client.answer("never")
    await proxy.until_free()
    other = await proxy.connect(statement_timeout="5000")
    assert await other.value("show statement_timeout") == "5s"


# -- pins -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pin", "clear"),
    [
        ("select pg_advisory_lock(42)", "select pg_advisory_unlock_all()"),
        ("listen parsed_only", "unlisten *"),
        ("set seed = 0.5", "reset all"),
        ("create temp table parsed_only (n int)", "discard temp"),
    ],
)
async def test_a_statement_that_is_only_parsed_clears_nothing(run_proxy: RunProxy, pin: str, clear: str) -> None:
    """The pin was lifted at the Parse: another client got the connection with the lock, and unlocking found nothing."""
    proxy = await run_proxy(**slots(2), pool={"listen_connections": 0})
    client, other = await proxy.connect(), await proxy.connect()
    await client.query(pin)
    pid = await client.value("select pg_backend_pid()")
    await client.send(parse(clear), describe("S"), SYNC)
    assert (await client.answer()).status == "I"
    assert proxy.controller.in_use == 1, "pinned as before"
    await other.query("begin")
    assert await other.value("select pg_backend_pid()") != pid
    assert await client.value("select pg_backend_pid()") == pid
    await other.query("rollback")


async def test_a_lock_is_released_by_the_statement_parsed_for_it_in_an_earlier_unit(run_proxy: RunProxy) -> None:
    """Bound on whatever connection was free, pg_advisory_unlock_all released nothing, and the lock stayed for good."""
    proxy = await run_proxy(**slots(2))
    client, other = await proxy.connect(), await proxy.connect()
    await client.query("select pg_advisory_lock(42)")
    await client.send(parse("select pg_advisory_unlock_all()"), describe("S"), SYNC)
    await client.answer()
    await other.query("begin")
    await client.send(bind(), execute(), SYNC)
    assert (await client.answer()).codes == []
    assert await other.value("select count(*) from pg_locks where locktype = 'advisory'") == "0"
    await other.query("commit")


async def test_what_a_named_statement_did_outlives_its_name(run_proxy: RunProxy) -> None:
    """DEALLOCATE ALL lifted the pin of the name, and with it that of the lock: others inherited the lock."""
    proxy = await run_proxy(**slots(2))
    client, other = await proxy.connect(), await proxy.connect()
    await client.send(parse("select pg_advisory_lock(7)", "s1"), bind(statement="s1"), execute(), SYNC)
    assert (await client.answer()).codes == []
    await client.query("deallocate all")
    assert proxy.controller.in_use == 1, "the lock is held"
    await client.leave()
    await proxy.until_free()
    assert await other.value("select count(*) from pg_locks where locktype = 'advisory'") == "0"
