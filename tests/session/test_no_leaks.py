"""What is taken is given back: slots, connections, memory, and an answer for whoever waits.

Each of these was once kept for good, or until somebody restarted the proxy.
"""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import TypeVar

import psycopg
import pytest

from proxy.demo.postgres import password_of
from proxy.session.authentication import Authentication
from proxy.session.client_login import ClientLoginProtocol
from proxy.wire import messages
from proxy.wire.login import ClientLogin
from proxy.wire.messages import message
from tests.session.fake_server import FakeServer, Session
from tests.support.debian import DebianPostgres
from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy
from tests.support.servers import EmbeddedPostgres, Postgres
from tests.support.wire_client import (
    FLUSH,
    SYNC,
    TERMINATE,
    WireClient,
    bind,
    close,
    copy_data,
    execute,
    function_call,
    parse,
    query,
    run,
)

T = TypeVar("T")


def slots(count: int, queue_timeout: str = "20s") -> dict[str, object]:
    of_class = {"limit": count, "queue": {"timeout": queue_timeout}, "pinned_limit": count}
    return {"budget": {"total": count + 1}, "classes": {"all": of_class}}


async def soon(awaitable: Awaitable[T]) -> T:
    """What once never came."""
    async with asyncio.timeout(3):
        return await awaitable


async def until_asleep(postgres: Postgres, marker: str) -> None:
    """The server is in the middle of the pg_sleep of the statement with `marker` in it."""
    sql = f"select count(*) from pg_stat_activity where wait_event = 'PgSleep' and query like '%{marker}%'"
    await eventually(lambda: asyncio.to_thread(lambda: postgres.psql(sql).strip() == "1"))


# -- logins -----------------------------------------------------------------------------------------------------------


async def test_nothing_of_a_login_outlives_it(run_proxy: RunProxy) -> None:
    """Every client kept all of its login, 2.5 kB of it; and those that had failed waited for the collector."""
    proxy = await run_proxy(auth={"method": "scram", "failures": {"delay": "1ms"}})
    gc.collect()
    gc.disable()
    try:
        async with await proxy.psycopg():
            with pytest.raises(psycopg.OperationalError):
                await psycopg.AsyncConnection.connect(proxy.url().replace(password_of("app"), "wrong"))
            assert [
                one for one in gc.get_objects() if isinstance(one, ClientLoginProtocol | Authentication | ClientLogin)
            ] == []
    finally:
        gc.enable()


# -- slots ------------------------------------------------------------------------------------------------------------


async def test_a_temporary_replication_slot_goes_with_its_client(
    run_proxy: RunProxy, make_postgres: Callable[..., EmbeddedPostgres]
) -> None:
    """DISCARD ALL does not drop it: the connection was given back with it, and it kept WAL for ever."""
    postgres = make_postgres(18, settings={"wal_level": "replica", "max_wal_senders": "2"})
    proxy = await run_proxy(postgres.url("app"), **slots(1))
    client, other = await proxy.connect("postgres"), await proxy.connect("postgres")
    answer = await client.query("select pg_create_physical_replication_slot('left_behind', true, true)")
    assert answer.codes == []
    await client.leave()
    await proxy.until_free()
    assert await other.value("select count(*) from pg_replication_slots") == "0"


@pytest.mark.parametrize("hangs_up", [True, False], ids=["hung-up", "open"])
async def test_a_copy_begun_with_the_farewell_gives_its_slot_back(run_proxy: RunProxy, hangs_up: bool) -> None:
    """The server waited for data and the proxy for the server's answer, with a slot and without a client."""
    proxy = await run_proxy(**slots(1))
    client, other = await proxy.connect(), await proxy.connect()
    await other.query("create table if not exists copy_and_farewell (n int)")
    await client.send(query("copy copy_and_farewell from stdin"), TERMINATE)
    if hangs_up:
        client.writer.close()
    await eventually(lambda: len(proxy.desk.clients) == 1)
    assert await soon(other.value("select count(*) from copy_and_farewell")) == "0"
    await other.query("drop table copy_and_farewell")


async def test_a_client_that_vanishes_in_a_message_gives_its_slot_back_over_tls(
    run_proxy: RunProxy, debian_postgres: DebianPostgres
) -> None:
    """TLS cannot be half-closed: the server waited for the rest of the message, the proxy for the server to leave."""
    proxy = await run_proxy(debian_postgres.url("app") + "?sslmode=require", pool={"gone_timeout": "1s"}, **slots(1))
    client, other = await proxy.connect(), await proxy.connect()
    await client.send(parse("select $1::text"), bind("x" * 100_000)[:50_000])
    await eventually(lambda: proxy.linked() == 1)
    await client.abort()
    assert await soon(other.value("select 1")) == "1"


async def test_a_failed_copy_of_the_extended_protocol_is_over_at_its_sync(run_proxy: RunProxy) -> None:
    """The Sync ahead of the data is ignored, the one behind the error is answered: the proxy took that for a lie."""
    proxy = await run_proxy(**slots(1))
    client, other = await proxy.connect(), await proxy.connect()
    await client.query("create table if not exists copy_failed (n int)")
    await client.send(run("copy copy_failed from stdin"), SYNC)
    await client.answer("G")
    await client.send(copy_data(b"not a number\n"))
    assert (await client.answer("E")).codes == ["22P02"]
    await client.send(SYNC)
    answer = await soon(client.answer())
    assert (answer.kinds, answer.status) == ("Z", "I")
    assert await soon(client.value("select 1")) == "1"
    assert await soon(other.value("select 2")) == "2"
    assert not proxy.measures.protocol_violations
    await client.query("drop table copy_failed")


@pytest.mark.parametrize("farewell", ["leave", "abort"])
@pytest.mark.parametrize("synced", [False, True], ids=["skipped", "synced behind it"])
@pytest.mark.parametrize("simple", [query("select 1"), function_call(1598)], ids=["Query", "FunctionCall"])
@pytest.mark.parametrize("mode", ["transaction", "session", "statement"])
async def test_a_query_that_the_server_skips_keeps_no_slot(
    run_proxy: RunProxy, farewell: str, synced: bool, simple: bytes, mode: str
) -> None:
    """After an error in the extended protocol a server skips a Query too and does not answer it: its answer was awaited
    for ever, also after a Terminate."""
    proxy = await run_proxy(classes={"all": {"limit": 4, "pool_mode": mode}})
    client = await proxy.connect()
    await client.send(parse("select nothing from nowhere"), simple)
    assert (await client.answer("E")).codes == ["42P01"]
    if synced:
        await client.send(SYNC)
        assert (await client.answer()).kinds == "Z", "as from a server: the Query was skipped"
        assert await client.value("select 'next'") == "next"
    await getattr(client, farewell)()
    await proxy.until_free()


async def test_work_behind_messages_that_may_fail_is_done_before_a_farewell(run_proxy: RunProxy) -> None:
    """Here they do not fail, and the server runs the Query that stands behind them."""
    proxy = await run_proxy()
    client, other = await proxy.connect(), await proxy.connect()
    await other.query("create table done_before (n int)")
    await client.send(close("S", "no such"), query("insert into done_before select 1 from pg_sleep(0.1)"), TERMINATE)

    async def done() -> bool:
        return await other.value("select count(*) from done_before") == "1"

    await eventually(done)
    await proxy.until_free()
    await other.query("drop table done_before")


async def test_a_long_query_behind_a_flush_ends_with_its_client(run_proxy: RunProxy, postgres: Postgres) -> None:
    """Without a Sync it was not taken for work, was not cancelled, and kept the slot until it had run to its end."""
    proxy = await run_proxy(**slots(1))
    client = await proxy.connect()
    await client.send(run("select pg_sleep(30), 'vanish_flush'"), FLUSH)
    await until_asleep(postgres, "vanish_flush")
    await client.abort()
    await eventually(lambda: proxy.controller.in_use == 0, within_seconds=4, but=proxy.leftovers)


ENDED = {
    "simple": query("select pg_sleep(0.05)"),
    "extended": run("select pg_sleep(0.05)") + SYNC,
    "named": parse("select pg_sleep(0.05)", "s") + bind(statement="s") + execute() + SYNC,
    "prepared only": parse("select 1", "s") + SYNC,
}


@pytest.mark.parametrize("comes", ["with it", "behind it", "after the answer"])
@pytest.mark.parametrize("unit", list(ENDED))
async def test_a_flush_behind_the_end_of_a_unit_keeps_nothing(run_proxy: RunProxy, unit: str, comes: str) -> None:
    """psycopg sends one behind the last Sync of a pipeline. The unit was taken for an open one, and its slot was kept
    until the client said something else."""
    proxy = await run_proxy(**slots(1))
    client = await proxy.connect()
    await client.send(ENDED[unit] + (FLUSH if comes == "with it" else b""))
    if comes == "behind it":
        await eventually(lambda: proxy.linked() == 1 or proxy.measures.of("all").hold.count > 0)
        await client.send(FLUSH)
    assert (await soon(client.answer())).status == "I"
    if comes == "after the answer":
        await client.send(FLUSH)
    await proxy.until_free()
    assert await soon(client.value("select 1")) == "1"


# -- cancels ----------------------------------------------------------------------------------------------------------


async def test_a_query_behind_a_flush_can_be_cancelled(run_proxy: RunProxy, postgres: Postgres) -> None:
    """A cancel was forwarded only while a ReadyForQuery was owed, which nobody had asked for yet."""
    proxy = await run_proxy(**slots(1))
    client = await proxy.connect()
    await client.send(run("select pg_sleep(30), 'cancel_flush'"), FLUSH)
    await until_asleep(postgres, "cancel_flush")
    await client.ask_to_cancel()
    assert (await soon(client.answer("E"))).codes == ["57014"]
    await client.send(SYNC)
    assert (await soon(client.answer())).status == "I"
    assert proxy.measures.cancels_forwarded == 1
    assert await client.value("select 1") == "1"


# -- hangs ------------------------------------------------------------------------------------------------------------


def _fatal() -> bytes:
    return messages.error_response(messages.ErrorFields("FATAL", "57P01", "terminating connection"))


async def test_a_connection_lost_at_the_end_of_its_login_leaves_nobody_waiting(
    fake_server: FakeServer, run_proxy: RunProxy
) -> None:
    """ReadyForQuery and FATAL in one piece: the dial had succeeded, its connection was gone, its client waited on."""
    told: list[Session] = []

    async def greet(session: Session) -> None:
        session.greet()
        if len(fake_server.of("app")) == 2 and not told:
            told.append(session)
            session.send(_fatal())
            session.writer.close()

    fake_server.on_startup = greet
    proxy = await run_proxy(fake_server.url, **slots(2))
    holder, client = await proxy.connect(), await proxy.connect()
    await holder.query("begin")
    await client.send(query("select 1"))
    answer = await soon(client.answer())
    assert told
    assert answer.replies, "an error or a result, and no silence"
    await eventually(lambda: proxy.controller.in_use == 1)
    await holder.query("rollback")
    assert (await soon(holder.query("select 1"))).status == "I"


async def test_a_connection_lost_at_the_end_of_a_unit_is_given_to_nobody(
    fake_server: FakeServer, run_proxy: RunProxy
) -> None:
    """ReadyForQuery and FATAL in one piece: whoever waited was handed the dying connection, and hung up on."""
    go = asyncio.Event()

    async def die(session: Session, kind: str, payload: bytes) -> None:
        if kind == "Q" and b"die" in payload:
            await go.wait()
            session.send(messages.command_complete("SELECT 0"), messages.ready_for_query(b"I"), _fatal())
            await session.writer.drain()
            session.writer.close()
        else:
            session.obey(kind, payload)

    fake_server.on_message = die
    proxy = await run_proxy(fake_server.url, **slots(1))
    client, other = await proxy.connect(), await proxy.connect()
    await client.send(query("die"))
    await eventually(lambda: proxy.linked() == 1)
    await other.send(query("select"))
    await eventually(lambda: proxy.waiting() == 1)
    go.set()
    assert (await soon(client.answer())).kinds.startswith("CZ")
    answer = await soon(other.answer())
    assert (answer.kinds, answer.status) == ("CZ", "I")


async def test_a_pool_gets_room_once_a_smaller_budget_is_reached(fake_server: FakeServer, run_proxy: RunProxy) -> None:
    """Who asked while the surplus was closing stayed in the line for room: nothing could be closed then."""
    proxy = await run_proxy(fake_server.url, budget={"total": 10}, classes={"all": {"limit": 9}})
    holders = [await proxy.connect("app") for _ in range(8)]
    for sql in ("begin", "commit"):
        for holder in holders:
            await holder.query(sql)
    fake_server.never_closes = True
    proxy.reload(budget={"total": 5}, classes={"all": {"limit": 4}})
    await eventually(lambda: proxy.registry.evicting)
    client = await proxy.open()
    login = asyncio.create_task(client.log_in("web", "app"))
    await eventually(lambda: proxy.registry.waiting_for_room)
    fake_server.never_closes = False
    fake_server._end.set()
    await soon(login)
    await eventually(lambda: proxy.registry.count <= 5)
    assert (await client.query("select")).status == "I"


MALFORMED = {
    "no-statement": message(messages.PARSE, b"a"),
    "empty": message(messages.PARSE, b""),
    "no-types": message(messages.PARSE, b"\0select 1"),
    "bind": message(messages.BIND, b""),
}


@pytest.mark.parametrize("malformed", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_message_in_the_queue_stops_no_clock(run_proxy: RunProxy, malformed: bytes) -> None:
    """What it raised kept the timer of all queues from being set: nobody behind it was ever refused."""
    proxy = await run_proxy(**slots(1, queue_timeout="300ms"))
    holder, evil, *waiters = [await proxy.connect() for _ in range(5)]
    await holder.query("begin")
    await evil.send(malformed)
    await evil.send(SYNC)
    for waiter in waiters:
        await waiter.send(query("select 1"))
    for waiter in waiters:
        answer = await soon(waiter.answer())
        assert (answer.codes, answer.status) == (["53300"], "I")
    answer = await soon(evil.answer())
    assert answer.codes
    await evil.abort()
    await holder.query("commit")
    assert await soon(holder.value("select 1")) == "1"


async def test_a_malformed_parse_behind_a_query_hinders_nobody(run_proxy: RunProxy) -> None:
    """It is looked at when the slot is granted, by the hand that has to serve the others as well."""
    proxy = await run_proxy(**slots(1))
    holder, evil, *waiters = [await proxy.connect() for _ in range(4)]
    await holder.query("begin")
    await evil.send(query("select 1"), message(messages.PARSE, b""))
    for waiter in waiters:
        await waiter.send(query("select 2"))
    await eventually(lambda: proxy.waiting() >= 2)
    assert (await soon(holder.query("commit"))).tags == ["COMMIT"]
    assert [(await soon(waiter.answer())).value for waiter in waiters] == ["2", "2"]
    await evil.abort()


async def test_a_pool_whose_first_login_fails_is_the_same_for_those_behind_it(
    fake_server: FakeServer, run_proxy: RunProxy
) -> None:
    """It was forgotten while another client waited to log in to it: that one's connection belonged to no known pool."""
    refuses = True

    async def greet(session: Session) -> None:
        if refuses and session.startup is not None and session.startup.user == "web":
            session.fail("3D000", "no such database", "FATAL")
            session.writer.close()
        else:
            session.greet()

    fake_server.on_startup = greet
    proxy = await run_proxy(fake_server.url, **slots(2))
    first, second, between = [await proxy.connect("app") for _ in range(3)]
    for holder in (first, second):
        await holder.query("begin")
    refused, served = await proxy.open(), await proxy.open()
    refused_login = asyncio.create_task(refused.log_in("web", "app"))
    await eventually(lambda: proxy.waiting() == 1)
    await between.send(query("begin"))
    await eventually(lambda: proxy.waiting() == 2)
    served_login = asyncio.create_task(served.log_in("web", "app"))
    await eventually(lambda: proxy.waiting() == 3)
    await first.query("commit")
    with pytest.raises(AssertionError, match="no such database"):
        await soon(refused_login)
    refuses = False
    await soon(between.answer())
    await between.query("commit")
    await soon(served_login)
    await second.query("commit")
    await proxy.until_free()
    assert all(server.pool in proxy.registry.pools.values() for server in proxy.registry.connections)
    assert set(proxy.registry.idle()) == proxy.registry.connections


# -- memory -----------------------------------------------------------------------------------------------------------


def unsent_bytes(proxy: Running) -> int:
    return max(client.transport.get_write_buffer_size() for client in proxy.desk.clients)


async def fill(proxy: Running, client: WireClient, answer_bytes: int) -> None:
    """Ask for 64 MB, one query at a time, and stop where the proxy does not serve the next within a moment."""
    holds = proxy.measures.of("all").hold
    asked = query(f"select repeat('x', {answer_bytes})")
    for _ in range((64 << 20) // answer_bytes):
        served = sum(holds.counts)
        await client.send(asked)
        try:
            await eventually(lambda served=served: sum(holds.counts) > served, within_seconds=0.5)
        except AssertionError:
            return


async def test_a_client_that_asks_on_and_does_not_read_is_held_up(run_proxy: RunProxy) -> None:
    """Between two units nothing held it up: every answer was added to what it did not take, up to all of memory."""
    proxy = await run_proxy(**slots(1))
    client = await proxy.connect()
    client.writer.transport.pause_reading()
    await fill(proxy, client, answer_bytes=1 << 20)
    held = unsent_bytes(proxy)
    client.writer.transport.resume_reading()
    assert held < 8 << 20
