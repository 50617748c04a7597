"""Clients that are suddenly gone: the slot comes back, and nothing of theirs reaches the next client."""

import asyncio

import pytest

from proxy.session.client import Phase
from proxy.wire import messages
from proxy.wire.startup import encode_startup
from tests.session.fake_server import FakeServer, Session
from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy
from tests.support.servers import Postgres
from tests.support.wire_client import COPY_DONE, FLUSH, SYNC, WireClient, copy_data, parse, query, run

ONE_SLOT = {"budget": {"total": 2}, "classes": {"all": {"limit": 1, "queue": {"timeout": "20s"}, "pinned_limit": 1}}}
TWO_SLOTS = {"all": {"limit": 2, "queue": {"timeout": "20s"}}}
SLOW = "select pg_sleep(60)"


async def next_client_is_clean(proxy: Running, next_client: WireClient) -> None:
    """Another client gets the slot, sees only what is its own, in no transaction and with no state of others."""
    answer = await next_client.query("select 'marked', txid_current_if_assigned(), current_setting('work_mem')")
    assert (answer.kinds, answer.status) == ("TDCZ", "I")
    assert answer.rows == [("marked", None, "4MB")]
    assert await next_client.value("select count(*) from pg_locks where locktype = 'advisory'") == "0"


@pytest.mark.parametrize("polite", [False, True], ids=["reset", "half-closed"])
async def test_while_logging_in(run_proxy: RunProxy, polite: bool) -> None:
    proxy = await run_proxy(auth={"method": "scram"})
    startup = encode_startup({"user": "app", "database": "app"})
    for cut in (0, 1, 4, 10, len(startup)):
        client = await proxy.open()
        await client.send(startup[:cut])
        if polite:
            client.stop_sending()
            assert (await client.answer()).status == ""
        else:
            await client.abort()
    await eventually(lambda: proxy.desk.connected == 0)


async def test_while_waiting_in_the_queue(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE_SLOT)
    holder, other = await proxy.connect(), await proxy.connect()
    await holder.query("begin")
    leavers = [await proxy.connect() for _ in range(5)]
    for leaver in leavers:
        await leaver.send(query("create table never_made (n int)"))
    await eventually(lambda: proxy.waiting() == 5)
    await other.send(query("select to_regclass('never_made')"))
    await eventually(lambda: proxy.waiting() == 6)
    for leaver in leavers:
        await leaver.abort()
    await eventually(lambda: proxy.waiting() == 1)
    await holder.query("commit")
    assert (await other.answer()).value is None
    await next_client_is_clean(proxy, other)


async def test_while_waiting_with_more_sent_than_is_read(run_proxy: RunProxy) -> None:
    """A client that waits is read up to a bound; beyond it the kernel is asked whether it is still there."""
    proxy = await run_proxy(limits={"max_waiting_bytes": 1000}, **ONE_SLOT)
    holder, leaver = await proxy.connect(), await proxy.connect()
    await holder.query("begin")
    await leaver.send(query("select 1"), parse(f"select '{'x' * 5000}'"), SYNC)
    await eventually(lambda: proxy.waiting() == 1)
    await leaver.abort()
    await eventually(lambda: proxy.waiting() == 0, within_seconds=5)


async def test_while_its_connection_is_dialled(fake_server: FakeServer, run_proxy: RunProxy) -> None:
    dialled = asyncio.Event()

    async def slow(session: Session) -> None:
        if len(fake_server.of("app")) == 2:
            await dialled.wait()
        session.greet()

    fake_server.on_startup = slow
    proxy = await run_proxy(fake_server.url)
    holder, leaver = await proxy.connect(), await proxy.connect()
    await holder.query("begin")
    await leaver.send(query("insert"))
    await eventually(lambda: len(fake_server.of("app")) == 2)
    await leaver.abort()
    await eventually(lambda: proxy.controller.in_use == 1)
    dialled.set()
    await holder.query("commit")
    await eventually(lambda: len(list(proxy.registry.idle())) == 3)
    assert "insert" not in fake_server.queries()


async def test_while_its_first_connection_is_tried(fake_server: FakeServer, run_proxy: RunProxy) -> None:
    go_on = asyncio.Event()

    async def slow_set(session: Session, kind: str, payload: bytes) -> None:
        if b"lock_timeout" in payload:
            await go_on.wait()
        session.obey(kind, payload)

    fake_server.on_message = slow_set
    proxy = await run_proxy(fake_server.url)
    leaver = await proxy.open()
    await leaver.send(encode_startup({"user": "app", "database": "app", "lock_timeout": "7s"}))
    await eventually(lambda: any("lock_timeout" in sql for sql in fake_server.queries()))
    await leaver.abort()
    await eventually(lambda: not proxy.desk.clients)
    go_on.set()
    await proxy.until_free()
    other = await proxy.connect()
    assert (await other.query("select")).status == "I"
    assert "lock_timeout" not in " ".join(fake_server.of("app")[-1].queries) or len(fake_server.of("app")) == 1


@pytest.mark.parametrize("farewell", ["abort", "leave"])
async def test_in_an_open_transaction(run_proxy: RunProxy, farewell: str) -> None:
    proxy = await run_proxy(**ONE_SLOT)
    leaver, other = await proxy.connect(), await proxy.connect()
    await leaver.query("begin; set local work_mem = '1MB'; select pg_advisory_xact_lock(7); select txid_current()")
    pid = await leaver.value("select pg_backend_pid()")
    await getattr(leaver, farewell)()
    await next_client_is_clean(proxy, other)
    assert await other.value("select pg_backend_pid()") == pid, "a ROLLBACK is enough"


async def test_in_a_failed_transaction(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE_SLOT)
    leaver, other = await proxy.connect(), await proxy.connect()
    await leaver.query("begin; select 1/0")
    await leaver.abort()
    await next_client_is_clean(proxy, other)


async def test_while_its_query_runs(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE_SLOT)
    leaver, other = await proxy.connect(), await proxy.connect()
    await leaver.query("begin; select pg_advisory_lock(8)")
    await leaver.send(query(SLOW))
    await leaver.abort()
    await next_client_is_clean(proxy, other)


def running(postgres: Postgres, mark: str) -> int:
    """How many backends run a statement that carries `mark`."""
    activity = f"select count(*) from pg_stat_activity where state = 'active' and query like '%{mark}%'"
    return int(postgres.psql(f"{activity} and pid <> pg_backend_pid()"))


# What keeps a server busy, and how the client asks for it: the mark is a part of each text.
BUSY = {
    "query": lambda mark: [query(f"select pg_sleep(60), '{mark}'")],
    "extended": lambda mark: [run(f"select pg_sleep(60), '{mark}'"), SYNC],
    "behind a flush": lambda mark: [run(f"select pg_sleep(60), '{mark}'"), FLUSH],
    "copy out": lambda mark: [query(f"copy (select '{mark}', pg_sleep(.01) from generate_series(1, 9999)) to stdout")],
    "in a transaction": lambda mark: [query("begin"), query(f"select pg_sleep(60), '{mark}'")],
}


@pytest.mark.parametrize("farewell", ["abort", "stop_sending"])
@pytest.mark.parametrize("busy", list(BUSY))
async def test_what_a_vanished_client_had_running_ends_on_the_server(
    run_proxy: RunProxy, postgres: Postgres, busy: str, farewell: str
) -> None:
    proxy = await run_proxy(**ONE_SLOT)
    leaver, other = await proxy.connect(), await proxy.connect()
    mark = f"{busy} {farewell}"
    await leaver.send(*BUSY[busy](mark))
    await eventually(lambda: running(postgres, mark) == 1)
    result = getattr(leaver, farewell)()
    if result is not None:
        await result
    await eventually(lambda: running(postgres, mark) == 0, within_seconds=5)
    await proxy.until_free()
    await next_client_is_clean(proxy, other)


FINITE = {
    "query": lambda table, lock: [query(f"insert into {table} select 1 from pg_advisory_xact_lock({lock})")],
    "extended": lambda table, lock: [run(f"insert into {table} select 1 from pg_advisory_xact_lock({lock})"), SYNC],
    "copy out": lambda table, lock: [
        query(f"copy (insert into {table} select 1 from pg_advisory_xact_lock({lock}) returning n) to stdout")
    ],
}


@pytest.mark.parametrize("way", list(FINITE))
async def test_where_nothing_is_cancelled_it_runs_to_its_end_and_keeps_its_slot_so_long(
    run_proxy: RunProxy, postgres: Postgres, way: str
) -> None:
    proxy = await run_proxy(pool={"cancel_on_disconnect": False}, budget={"total": 3}, classes=TWO_SLOTS)
    holder, leaver, other = [await proxy.connect() for _ in range(3)]
    await holder.query("create table ran_on (n int)")
    await holder.query("begin; select pg_advisory_xact_lock(4711)")
    await leaver.send(*FINITE[way]("ran_on", 4711))
    await eventually(lambda: running(postgres, "insert into ran_on") == 1)
    await leaver.abort()
    await eventually(lambda: len(proxy.desk.clients) == 2)
    await other.send(query("select 'next'"))
    await eventually(lambda: proxy.waiting() == 1)
    assert (running(postgres, "insert into ran_on"), proxy.controller.in_use) == (1, 2)
    await holder.query("commit")
    assert (await other.answer()).value == "next"
    await eventually(lambda: postgres.psql("select count(*) from ran_on", database="app") == "1")
    assert proxy.measures.cancels_forwarded == 0
    await holder.query("drop table ran_on")


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
async def test_a_copy_without_its_client_ends_also_where_nothing_is_cancelled(
    run_proxy: RunProxy, extended: bool
) -> None:
    """The data it waits for will never come."""
    proxy = await run_proxy(pool={"cancel_on_disconnect": False}, **ONE_SLOT)
    leaver, other = await proxy.connect(), await proxy.connect()
    await other.query("create table left_in_copy (n int)")
    await leaver.send(run("copy left_in_copy from stdin") + SYNC if extended else query("copy left_in_copy from stdin"))
    await leaver.answer("G")
    await leaver.send(copy_data(b"1\n"))
    await leaver.abort()
    await next_client_is_clean(proxy, other)
    assert await other.value("select count(*) from left_in_copy") == "0"
    assert proxy.measures.cancels_forwarded == 0
    await other.query("drop table left_in_copy")


async def test_a_reload_changes_whether_it_is_cancelled(run_proxy: RunProxy, postgres: Postgres) -> None:
    proxy = await run_proxy(pool={"cancel_on_disconnect": False}, **ONE_SLOT)
    leaver = await proxy.connect()
    await leaver.send(query("select pg_sleep(60), 'reloaded'"))
    await eventually(lambda: running(postgres, "reloaded") == 1)
    proxy.reload(pool={"cancel_on_disconnect": True})
    await leaver.abort()
    await proxy.until_free()


async def test_while_its_query_runs_and_the_first_cancel_came_too_early(
    fake_server: FakeServer, run_proxy: RunProxy
) -> None:
    """A server forgets a cancel that overtakes the query, and reads Terminate only behind it: the slot was lost for as
    long as the query ran."""
    cancelled = asyncio.Event()

    async def count(_: int) -> None:
        if len(fake_server.cancels) == 2:
            cancelled.set()

    async def slow(session: Session, kind: str, payload: bytes) -> None:
        if payload == b"slow\0":
            await cancelled.wait()
        session.obey(kind, payload)

    fake_server.on_cancel, fake_server.on_message = count, slow
    proxy = await run_proxy(fake_server.url, **ONE_SLOT)
    leaver = await proxy.connect()
    await leaver.send(query("slow"))
    await eventually(lambda: "slow" in fake_server.queries())
    await leaver.abort()
    await proxy.until_free()
    assert len(fake_server.cancels) == 2


async def test_in_the_middle_of_a_result(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE_SLOT)
    leaver, other = await proxy.connect(), await proxy.connect()
    await leaver.send(query("select 'foreign', repeat('x', 1000) from generate_series(1, 200000)"))
    for _ in range(100):
        await leaver.reply()
    await leaver.abort()
    await next_client_is_clean(proxy, other)


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
async def test_in_the_middle_of_copying_in(run_proxy: RunProxy, extended: bool) -> None:
    proxy = await run_proxy(**ONE_SLOT)
    leaver, other = await proxy.connect(), await proxy.connect()
    await other.query("create table if not exists half_copied (n int)")
    copy = "copy half_copied from stdin"
    await leaver.send(run(copy) + SYNC if extended else query(copy))
    await leaver.answer("G")
    await leaver.send(copy_data(b"1\n"), copy_data(b"2\n")[:6])
    await leaver.abort()
    await next_client_is_clean(proxy, other)
    assert await other.value("select count(*) from half_copied") == "0"
    await other.query("drop table half_copied")


async def test_in_the_middle_of_copying_out(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE_SLOT)
    leaver, other = await proxy.connect(), await proxy.connect()
    await leaver.send(query("copy (select repeat('foreign', 100) from generate_series(1, 200000)) to stdout"))
    await leaver.answer("d")
    await leaver.abort()
    await next_client_is_clean(proxy, other)


async def test_in_the_middle_of_a_message(run_proxy: RunProxy) -> None:
    """The server has seen a part of it and would take whatever comes next for the rest."""
    proxy = await run_proxy(**ONE_SLOT)
    leaver, other = await proxy.connect(), await proxy.connect()
    await leaver.query("begin")
    long_bind = messages.message(messages.BIND, b"\0\0" + b"x" * 100_000)
    await leaver.send(parse("select $1::text"), long_bind[:50_000])
    await eventually(lambda: proxy.linked() == 1)
    await leaver.abort()
    await next_client_is_clean(proxy, other)


async def test_between_flush_and_sync(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE_SLOT)
    leaver, other = await proxy.connect(), await proxy.connect()
    await leaver.send(run("select 'foreign'"), messages.message(messages.FLUSH))
    await leaver.answer("C")
    await leaver.abort()
    await next_client_is_clean(proxy, other)


async def test_with_a_cancel_under_way(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE_SLOT)
    other = await proxy.connect()
    for _ in range(20):
        leaver = await proxy.connect()
        await leaver.send(query(SLOW))
        await eventually(lambda: Phase.LINKED in proxy.phases())
        cancel = asyncio.create_task(leaver.ask_to_cancel())
        await asyncio.sleep(0)
        await leaver.abort()
        await asyncio.gather(cancel, return_exceptions=True)
        await next_client_is_clean(proxy, other)


async def test_pinned(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE_SLOT)
    leaver, other = await proxy.connect(), await proxy.connect()
    await leaver.query("listen marked; select pg_advisory_lock(9); set work_mem = '1MB'")
    await leaver.query("create temp table leftover (n int)")
    await leaver.abort()
    await next_client_is_clean(proxy, other)
    assert await other.value("select to_regclass('pg_temp.leftover')") is None
    assert await other.value("select count(*) from pg_listening_channels()") == "0"


async def test_after_a_copy_had_failed_while_it_still_sent(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE_SLOT)
    leaver, other = await proxy.connect(), await proxy.connect()
    await other.query("create table if not exists failed_then_left (n int)")
    await leaver.send(query("copy failed_then_left from stdin"))
    await leaver.answer("G")
    await leaver.send(copy_data(b"no number\n" * 10_000), copy_data(b"x" * 1000)[:500])
    await leaver.answer()
    await leaver.abort()
    await next_client_is_clean(proxy, other)
    await other.query("drop table failed_then_left")


async def test_many_at_every_moment(run_proxy: RunProxy) -> None:
    """Clients that vanish at once, at moments that differ by a turn of the loop, beside clients that check theirs."""
    proxy = await run_proxy(budget={"total": 4}, classes={"all": {"limit": 3, "queue": {"timeout": "20s"}}})
    steady = [await proxy.connect() for _ in range(3)]
    work = [query("begin"), query("select pg_sleep(0.01), 'foreign'"), run("select 'foreign'"), SYNC, query("commit")]

    async def leaver(turns: int) -> None:
        client = await proxy.connect()
        await client.send(*work[: 1 + turns % len(work)])
        for _ in range(turns):
            await asyncio.sleep(0)
        await client.abort()

    async def check(client: WireClient, name: str) -> None:
        for n in range(60):
            answer = await client.query(f"select '{name}', {n}, txid_current_if_assigned()")
            assert (answer.rows, answer.status) == ([(name, str(n), None)], "I")

    checks = [check(client, f"steady {n}") for n, client in enumerate(steady)]
    await asyncio.gather(*checks, *(leaver(turns) for turns in range(60)))


async def test_nothing_is_sent_to_a_server_that_a_client_left_with_a_late_copy_done(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE_SLOT)
    client, other = await proxy.connect(), await proxy.connect()
    await client.send(copy_data(b"late")[:6])
    await other.query("select 1")
    await client.send(copy_data(b"late")[6:], COPY_DONE, query("select 'mine'"))
    assert (await client.answer()).value == "mine"
