"""Bounds on how long a client may hold a slot or its connection: what it is told, and that the slot comes back."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import asyncpg
import psycopg
import pytest

from proxy.admission.holds import HoldBounds
from proxy.session import holding
from proxy.session.cancel import Canceller
from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy
from tests.support.wire_client import FLUSH, Answer, WireClient, query, run


def bounded(limit: int = 4, **holds: str) -> dict[str, Any]:
    return {"classes": {"all": {"limit": limit, "queue": {"timeout": "20s"}, "pinned_limit": limit, "holds": holds}}}


def ended(proxy: Running, bound: str, class_name: str = "all") -> int:
    counts = proxy.measures.holds_ended
    return sum(count for (name, _, found), count in counts.items() if (name, found) == (class_name, bound))


async def told_and_closed(client: WireClient, code: str, bound: str) -> Answer:
    """A FATAL that names the setting, and then the end."""
    answer = await client.answer()
    assert answer.error is not None
    assert (answer.error.severity, answer.error.code, answer.status) == ("FATAL", code, "")
    assert f"bound={bound} " in (answer.error.detail or "")
    assert (answer.error.hint or "").endswith(f"or raise classes.all.holds.{bound}")
    return answer


async def test_without_bounds_nobody_is_watched(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    await client.query("begin")
    assert [one.watch for one in proxy.desk.clients] == [None]


# -- idle in transaction ----------------------------------------------------------------------------------------------


async def test_a_client_that_idles_in_a_transaction_is_ended_as_by_the_server(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**bounded(limit=1, idle_in_transaction="200ms"))
    client, other = await proxy.connect(application_name="sleepy"), await proxy.connect()
    assert (await client.query("begin; create table holds_undone (n int)")).status == "T"
    began = time.monotonic()
    waiting = asyncio.create_task(other.value("select count(*) from pg_class where relname = 'holds_undone'"))
    await told_and_closed(client, "25P03", "idle_in_transaction")
    assert 0.19 <= time.monotonic() - began < 2.0
    assert await waiting == "0"  # it was rolled back before the slot went to the next
    assert proxy.measures.holds_ended == {("all", "sleepy", "idle_in_transaction"): 1}


async def test_a_failed_transaction_idles_too(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**bounded(idle_in_transaction="100ms"))
    client = await proxy.connect()
    await client.query("begin")
    assert (await client.query("select 1/0")).status == "E"
    await told_and_closed(client, "25P03", "idle_in_transaction")
    await proxy.until_free()


async def test_one_that_works_in_its_transaction_is_let_be(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**bounded(idle_in_transaction="300ms"))
    client = await proxy.connect()
    await client.query("begin")
    for _ in range(8):
        assert (await client.query("select pg_sleep(0.1)")).status == "T"
    assert (await client.query("select pg_sleep(0.5)")).status == "T"  # a query is not idle, however long it takes
    assert (await client.query("commit")).tags == ["COMMIT"]
    assert not proxy.measures.holds_ended


async def test_the_time_counts_from_the_last_answer(run_proxy: RunProxy) -> None:
    """Its timer was set at the first of many transactions, and finds this one young."""
    proxy = await run_proxy(**bounded(idle_in_transaction="300ms"))
    client = await proxy.connect()
    for _ in range(4):
        await client.query("select pg_sleep(0.05)")
    await client.query("begin")
    began = time.monotonic()
    await told_and_closed(client, "25P03", "idle_in_transaction")
    assert 0.29 <= time.monotonic() - began < 2.0


async def test_a_session_client_that_idles_in_a_transaction_leaves_a_clean_connection(run_proxy: RunProxy) -> None:
    of_class = {"limit": 1, "pool_mode": "session", "holds": {"idle_in_transaction": "150ms"}}
    proxy = await run_proxy(classes={"all": {**of_class, "queue": {"timeout": "20s"}}})
    client = await proxy.connect()
    await client.query("create temp table holds_temp (n int)")
    await client.query("begin")
    await told_and_closed(client, "25P03", "idle_in_transaction")
    await proxy.until_free()
    other = await proxy.connect()
    assert await other.value("select to_regclass('holds_temp')") is None
    await other.leave()


async def test_psycopg_knows_the_error(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**bounded(idle_in_transaction="150ms"))
    connection = await proxy.psycopg()
    await connection.execute("begin")
    await eventually(lambda: ended(proxy, "idle_in_transaction"))
    with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout, match="lets a client idle in a transaction"):
        await connection.execute("select 1")
    assert connection.closed
    await connection.close()


async def test_asyncpg_is_told(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**bounded(idle_in_transaction="150ms"))
    connection = await asyncpg.connect(proxy.url().partition("?")[0])
    transaction = connection.transaction()
    await transaction.start()
    await eventually(lambda: ended(proxy, "idle_in_transaction"))
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
        await connection.fetch("select 1")
    connection.terminate()


# -- a borrowed slot --------------------------------------------------------------------------------------------------

LENT = {
    "budget": {"total": 3, "keep_free": 0},
    "default_class": "bulk",
    "classes": {
        "web": {"match": [{"application_name": "web"}], "priority": 1, "limit": 2, "queue": {"timeout": "20s"}},
        "bulk": {"priority": 9, "limit": 2, "holds": {"borrowed_idle_in_transaction": "100ms"}},
    },
}


async def idle_in_transaction(proxy: Running, count: int) -> list[WireClient]:
    clients = [await proxy.connect() for _ in range(count)]
    for client in clients:
        assert (await client.query("begin")).status == "T"
    return clients


async def until_they_may_go(proxy: Running, count: int) -> None:
    await eventually(lambda: len(proxy.upstream.holds._may_go) == count)


async def test_a_borrowed_slot_is_taken_back_only_once_somebody_waits(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**LENT)
    first, second = await idle_in_transaction(proxy, 2)
    await until_they_may_go(proxy, 2)
    assert not proxy.measures.holds_ended
    web = await proxy.connect(application_name="web")
    assert await web.value("select 1") == "1"
    answer = await first.answer()
    assert answer.codes == ["25P03"]
    assert answer.error is not None
    assert "class=bulk bound=borrowed_idle_in_transaction after_ms=100" in (answer.error.detail or "")
    assert (await second.query("commit")).tags == ["COMMIT"]  # one was enough
    assert ended(proxy, "borrowed_idle_in_transaction", "bulk") == 1


async def test_who_waits_already_gets_the_slot_when_the_time_is_over(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**LENT)
    clients = await idle_in_transaction(proxy, 2)
    web = [await proxy.connect(application_name="web") for _ in range(2)]
    # Both hold on: each needs a slot of its own.
    await asyncio.gather(*(one.query("begin") for one in web))
    assert [(await client.answer()).codes for client in clients] == [["25P03"]] * 2
    assert ended(proxy, "borrowed_idle_in_transaction", "bulk") == 2
    assert [(await one.query("commit")).tags for one in web] == [["COMMIT"]] * 2


async def test_a_slot_that_nobody_who_waits_may_have_is_left_alone(run_proxy: RunProxy) -> None:
    """A class at its limit waits for itself."""
    classes = {
        "one": {"match": [{"application_name": "one"}], "limit": 1, "queue": {"timeout": "20s"}},
        "bulk": {"limit": 2, "holds": {"borrowed_idle_in_transaction": "100ms"}},
    }
    proxy = await run_proxy(budget={"total": 5}, default_class="bulk", classes=classes)
    (idle,) = await idle_in_transaction(proxy, 1)
    busy, waits = [await proxy.connect(application_name="one") for _ in range(2)]
    await busy.query("begin")
    waiting = asyncio.create_task(waits.value("select 1"))
    await eventually(proxy.waiting)
    await until_they_may_go(proxy, 1)
    await busy.query("select pg_sleep(0.3)")
    assert (await idle.query("commit")).tags == ["COMMIT"]
    await busy.query("commit")
    assert await waiting == "1"
    assert not proxy.measures.holds_ended


async def test_whose_slot_is_borrowed_is_told_by_the_class_it_was_granted_in(run_proxy: RunProxy) -> None:
    """A reload moved a client in its transaction to another class: it was ended for what that class had borrowed."""
    bulk = LENT["classes"]["bulk"]
    web = {"priority": 1, "reserved": 1, "limit": 2, "queue": {"timeout": "20s"}, "holds": bulk["holds"]}
    names: tuple[list[dict[str, str]], ...] = (
        [{"application_name": "web"}, {"application_name": "moving"}],
        [{"application_name": "web"}],
    )
    before, after = ({"web": {**web, "match": match}, "bulk": bulk} for match in names)
    proxy = await run_proxy(**{**LENT, "budget": {"total": 4, "keep_free": 0}, "classes": before})
    moving = await proxy.connect(application_name="moving")
    await moving.query("begin")
    await until_they_may_go(proxy, 1)  # it has idled for longest
    first, second = await idle_in_transaction(proxy, 2)
    proxy.reload(**{**LENT, "budget": {"total": 4, "keep_free": 0}, "classes": after})
    await until_they_may_go(proxy, 3)
    assert await (await proxy.connect(application_name="web")).value("select 1") == "1"
    assert (await first.answer()).codes == ["25P03"]
    for client in (moving, second):
        assert (await client.query("commit")).tags == ["COMMIT"]


async def test_one_that_goes_on_in_time_keeps_its_borrowed_slot(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**LENT)
    clients = await idle_in_transaction(proxy, 2)
    await until_they_may_go(proxy, 2)
    for client in clients:
        await client.send(query("select pg_sleep(0.3)"))
    web = await proxy.connect(application_name="web")
    waiting = asyncio.create_task(web.value("select 1"))
    for client in clients:
        assert (await client.answer()).status == "T"
        assert (await client.query("commit")).tags == ["COMMIT"]
    assert await waiting == "1"
    assert not proxy.measures.holds_ended


# -- query ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
async def test_a_query_that_takes_too_long_is_cancelled_and_its_client_goes_on(
    run_proxy: RunProxy, extended: bool
) -> None:
    proxy = await run_proxy(**bounded(limit=1, query="200ms"))
    client, other = await proxy.connect(), await proxy.connect()
    began = time.monotonic()
    long = asyncio.create_task((client.extended if extended else client.query)("select pg_sleep(30)"))
    await eventually(lambda: proxy.controller.in_use)
    assert await other.value("select 1") == "1"
    answer = await long
    assert 0.19 <= time.monotonic() - began < 5.0
    assert (answer.codes, answer.status) == (["57014"], "I")
    assert answer.error is not None
    assert answer.error.message == 'class "all" lets a client run one query for 0.2 s at most'
    assert "class=all bound=query after_ms=200" in (answer.error.detail or "")
    assert await client.value("select 2") == "2"
    assert ended(proxy, "query") == 1


async def test_the_statement_of_a_transaction_is_cancelled_and_the_transaction_has_failed(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**bounded(query="200ms"))
    client = await proxy.connect()
    for _ in range(3):
        await client.query("begin")
        await client.query("select pg_sleep(0.1)")
        answer = await client.query("select pg_sleep(30)")
        assert (answer.codes, answer.status) == (["57014"], "E")
        assert (await client.query("rollback")).tags == ["ROLLBACK"]
    assert ended(proxy, "query") == 3


async def test_a_cancel_of_the_users_own_keeps_the_words_of_the_server(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**bounded(query="200ms"))
    client = await proxy.connect()
    await client.query("begin")
    assert (await client.query("select pg_sleep(30)")).codes == ["57014"]
    await client.query("rollback")
    await client.send(query("select pg_sleep(30)"))
    answer = await client.cancelled()
    assert answer.error is not None
    assert answer.error.message == "canceling statement due to user request"


async def test_drivers_know_a_cancelled_query(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**bounded(query="200ms"))
    connection = await proxy.psycopg()
    with pytest.raises(psycopg.errors.QueryCanceled, match=r"classes\.all\.holds\.query"):
        await connection.execute("select pg_sleep(30)")
    await connection.close()
    other = await asyncpg.connect(proxy.url().partition("?")[0])
    with pytest.raises(asyncpg.QueryCanceledError) as caught:
        await other.fetch("select pg_sleep(30)")
    assert "bound=query" in caught.value.detail
    assert await other.fetchval("select 1") == 1
    await other.close()


async def test_each_unit_of_a_pipeline_has_the_time_for_itself(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**bounded(query="300ms"))
    client = await proxy.connect()
    await client.send(*[query("select pg_sleep(0.1)")] * 8)
    for _ in range(8):
        assert (await client.answer()).codes == []
    assert not proxy.measures.holds_ended


async def test_no_other_client_is_hit_by_a_cancel_that_comes_late(run_proxy: RunProxy) -> None:
    """Queries that are over at about the moment of their bound, on the one connection that others wait for."""
    proxy = await run_proxy(**bounded(limit=1, query="30ms"))
    slow, quick = await proxy.connect(), [await proxy.connect() for _ in range(3)]
    for n in range(60):
        await slow.send(query(f"select pg_sleep({0.026 + n % 10 / 1000})"))
        answers = await asyncio.gather(*(client.query("select 1") for client in quick))
        assert [answer.codes for answer in answers] == [[], [], []]
        assert (await slow.answer()).codes in ([], ["57014"])
    assert 0 < ended(proxy, "query") < 60


@pytest.mark.parametrize("transaction", [[], ["begin"]])
async def test_what_a_client_sends_next_is_not_hit_by_a_cancel_that_comes_late(
    run_proxy: RunProxy, monkeypatch: pytest.MonkeyPatch, transaction: list[str]
) -> None:
    """Its query was over just in time, and it cannot know that a cancel is still on its way."""
    may_go, send = asyncio.Event(), Canceller._send

    async def send_late(*arguments: Any) -> bool:
        await may_go.wait()
        return await send(*arguments)

    monkeypatch.setattr(Canceller, "_send", send_late)
    proxy = await run_proxy(**bounded(limit=1, query="200ms"))
    client = await proxy.connect()
    for sql in transaction:
        await client.query(sql)
    assert (await client.query("select pg_sleep(0.3)")).codes == []
    assert proxy.measures.cancels_forwarded == 1
    await client.send(query("select pg_sleep(0.1)"))
    await asyncio.sleep(0.05)
    may_go.set()
    assert (await client.answer()).codes == []
    assert await client.value("select 1") == "1"


async def test_one_that_sends_no_copy_data_cannot_be_cancelled_and_is_ended(
    run_proxy: RunProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "_CANCEL_GRACE_SECONDS", 0.2)
    proxy = await run_proxy(**bounded(query="100ms"))
    client = await proxy.connect()
    await client.query("create table if not exists holds_copied (n int)")
    await client.send(query("copy holds_copied from stdin"))
    assert (await client.answer("G")).kinds == "G"
    await told_and_closed(client, "57014", "query")
    await proxy.until_free()
    assert ended(proxy, "query") == 1


async def test_what_was_executed_and_never_synced_counts_as_a_query(
    run_proxy: RunProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "_CANCEL_GRACE_SECONDS", 0.2)
    proxy = await run_proxy(**bounded(query="100ms"))
    client = await proxy.connect()
    await client.send(run("select 1"), FLUSH)
    assert (await client.answer("C")).kinds == "12TDC"
    await told_and_closed(client, "57014", "query")
    await proxy.until_free()


# -- transaction ------------------------------------------------------------------------------------------------------


async def test_a_transaction_that_stays_open_too_long_ends_with_its_client(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**bounded(limit=1, transaction="300ms"))
    client, other = await proxy.connect(), await proxy.connect()
    answer = await client.query("begin")
    waiting = asyncio.create_task(other.value("select 1"))
    while answer.status == "T":
        answer = await client.query("select pg_sleep(0.05)")
    assert answer.codes == ["25P04"]
    assert await waiting == "1"
    assert await client.is_at_end()
    assert ended(proxy, "transaction") == 1


@pytest.mark.parametrize("cancels", [True, False])
async def test_what_such_a_transaction_runs_is_cancelled(run_proxy: RunProxy, cancels: bool) -> None:
    """Also where the work of clients that vanish is let finish."""
    proxy = await run_proxy(**bounded(limit=1, transaction="200ms"), pool={"cancel_on_disconnect": cancels})
    client, other = await proxy.connect(), await proxy.connect()
    await client.query("begin")
    await client.send(query("select pg_sleep(30)"))
    await told_and_closed(client, "25P04", "transaction")
    assert await other.value("select 1") == "1"


async def test_a_session_without_a_transaction_is_none(run_proxy: RunProxy) -> None:
    of_class = {"limit": 1, "pool_mode": "session", "holds": {"transaction": "300ms"}}
    proxy = await run_proxy(classes={"all": of_class})
    client = await proxy.connect()
    for _ in range(6):
        assert (await client.query("select pg_sleep(0.1)")).codes == []
    await client.query("begin")
    began = time.monotonic()
    await told_and_closed(client, "25P04", "transaction")
    assert time.monotonic() - began >= 0.29


# -- client idle ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool_mode", ["transaction", "session"])
async def test_an_idle_client_is_ended(run_proxy: RunProxy, pool_mode: str) -> None:
    proxy = await run_proxy(classes={"all": {"limit": 2, "pool_mode": pool_mode, "holds": {"client_idle": "300ms"}}})
    client = await proxy.connect()
    for _ in range(6):
        assert (await client.query("select pg_sleep(0.1)")).codes == []
    began = time.monotonic()
    await told_and_closed(client, "57P05", "client_idle")
    assert 0.29 <= time.monotonic() - began < 2.0
    await proxy.until_free()


async def test_one_that_never_said_anything_is_idle_too(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**bounded(client_idle="100ms"))
    await told_and_closed(await proxy.connect(), "57P05", "client_idle")


async def test_one_that_listens_or_waits_is_not_idle(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**bounded(limit=1, client_idle="200ms"))
    listener, busy, waits = [await proxy.connect() for _ in range(3)]
    await listener.query("listen holds_channel")
    await busy.send(query("select pg_sleep(0.6)"))
    await eventually(lambda: proxy.controller.in_use)
    assert (await waits.query("select pg_sleep(0.1)")).codes == []
    assert (await busy.answer()).codes == []
    assert (await listener.query("select 1")).codes == []
    await listener.query("unlisten *")
    await told_and_closed(listener, "57P05", "client_idle")


# -- slow readers -----------------------------------------------------------------------------------------------------

MUCH = "select repeat('x', 1000) from generate_series(1, 40000)"


async def test_a_client_that_reads_nothing_of_its_result_loses_its_slot(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**bounded(limit=1, slow_reader="300ms"))
    stuck, other = await proxy.connect(), await proxy.connect()
    stuck.writer.transport.pause_reading()
    await stuck.send(query(MUCH))
    await eventually(lambda: proxy.controller.in_use)
    assert await other.value("select 1") == "1"
    assert ended(proxy, "slow_reader") == 1


async def test_one_that_reads_slowly_is_let_be(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**bounded(slow_reader="400ms"))
    client = await proxy.connect()
    client.reader._limit = 1 << 16  # the stream reads no further ahead
    await client.send(query("select repeat('x', 1000) from generate_series(1, 30000)"))
    await client.answer("T")
    left, began = 30000 * 1011, time.monotonic()
    while left > 0:
        left -= len(await client.reader.readexactly(min(left, 1 << 20)))
        await asyncio.sleep(0.06)
    assert time.monotonic() - began > 1.2
    assert (await client.answer()).status == "I"
    assert not proxy.measures.holds_ended


def test_a_reader_begins_anew_with_every_byte_it_takes() -> None:
    unsent = [300_000]
    transport = SimpleNamespace(get_write_buffer_size=lambda: unsent[0])
    loop = SimpleNamespace(call_later=lambda *_: None)
    client: Any = SimpleNamespace(transport=transport)
    holds: Any = SimpleNamespace(loop=loop)
    watch = holding.HoldWatch(client, holds, HoldBounds(slow_reader=10.0))
    watch.clogged(100.0)
    assert watch._unread(102.0) == 100.0
    unsent[0] = 299_000
    assert watch._unread(104.0) == 104.0
    assert watch._unread(106.0) == 104.0
    watch.drained()
    assert watch._unread(108.0) == float("inf")


# -- settings ---------------------------------------------------------------------------------------------------------


async def test_a_reload_brings_bounds_to_those_who_are_here(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**bounded())
    client, other = await proxy.connect(), await proxy.connect()
    await client.query("begin")
    proxy.reload(**bounded(idle_in_transaction="100ms"))
    await told_and_closed(client, "25P03", "idle_in_transaction")
    proxy.reload(**bounded())
    await other.query("begin")
    await other.query("select pg_sleep(0.3)")
    assert (await other.query("commit")).tags == ["COMMIT"]


async def test_bounds_are_those_of_the_class_that_a_client_moves_to(run_proxy: RunProxy) -> None:
    strict = {"match": [{"application_name": "strict"}], "limit": 2, "holds": {"query": "100ms"}}
    proxy = await run_proxy(default_class="all", classes={"strict": strict, "all": {"limit": 2}})
    client = await proxy.connect()
    assert (await client.query("select pg_sleep(0.2)")).codes == []
    await client.query("set application_name to 'strict'")
    assert (await client.query("select pg_sleep(30)")).codes == ["57014"]
    await client.query("set application_name to 'other'")
    assert (await client.query("select pg_sleep(0.2)")).codes == []
