"""The process at work: budget, drain, reload."""

import asyncio
from collections.abc import Callable

import psycopg
import pytest

from proxy.admission.classes import ClassState
from proxy.demo.postgres import EmbeddedPostgres
from proxy.session.routes import Route
from proxy.session.server import ServerConnection
from proxy.wire.startup import encode_startup
from tests.support.eventually import eventually
from tests.support.running import RunProxy
from tests.support.wire_client import WireClient, query

MakePostgres = Callable[..., EmbeddedPostgres]


async def test_the_budget_is_never_exceeded_and_the_server_never_refuses(
    make_postgres: MakePostgres, run_proxy: RunProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has exactly as many connections as the budget; a sampler counts, and so does every dial.

    Of the nine, three stay free for superusers and one is the sampler's.
    """
    server = await asyncio.to_thread(make_postgres, max_connections=9, superuser_reserved_connections=3)
    sampling = await psycopg.AsyncConnection.connect(server.superuser_url(), autocommit=True)
    proxy = await run_proxy(
        server.url("app"), budget={"total": 5}, classes={"all": {"limit": 4, "queue": {"max": 500}}}
    )
    counts: list[int] = []
    registry = proxy.registry
    open_one = registry.connector.open

    async def counted(make_protocol: Callable[[bool], ServerConnection], route: Route) -> ServerConnection:
        counts.append(registry.count)
        return await open_one(make_protocol, route)

    monkeypatch.setattr(registry.connector, "open", counted)
    users = [("app", "app"), ("bulk", "app"), ("web", "app"), ("app", "postgres"), ("web", "postgres")]
    stop = asyncio.Event()
    seen: list[int] = []

    async def sample() -> None:
        sql = "select count(*) from pg_stat_activity where usename in ('app', 'bulk', 'web')"
        while not stop.is_set():
            row = await (await sampling.execute(sql)).fetchone()
            assert row is not None
            seen.append(row[0])

    async def work(number: int) -> None:
        user, database = users[number % len(users)]
        client = await proxy.connect(user, database)
        for turn in range(8):
            if turn == 3 and number % 4 == 0:
                await client.send(query("select pg_sleep(30)"))
                await client.abort()
                return
            assert (await client.query("select pg_sleep(0.005)")).errors == []
        await client.leave()

    sampler = asyncio.create_task(sample())
    await asyncio.gather(*(work(number) for number in range(40)))
    await proxy.until_free()
    stop.set()
    await sampler
    await sampling.close()
    assert max(seen) <= 5
    assert max(counts) <= 5
    assert server.refusals_in_log() == 0, [line for line in server.log_text().splitlines() if "FATAL" in line]


async def test_a_drain_lets_work_finish_and_tells_everybody_else(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    idle, working = await proxy.connect(), await proxy.connect()
    await working.query("begin")
    late = await proxy.open()
    drain = asyncio.create_task(proxy.process.drain_and_stop())
    await eventually(lambda: proxy.desk.draining)
    assert proxy.process.view.ready() == (False, "shutting down")  # a balancer sends nobody any more
    await late.send(encode_startup({"user": "app", "database": "app"}))
    (new,) = (await late.answer("never")).errors
    assert (new.severity, new.code) == ("FATAL", "57P03")
    assert await working.value("select 'still served'") == "still served"
    await working.query("commit")
    for client in (idle, working):
        (error,) = (await client.answer("never")).errors
        assert (error.severity, error.code) == ("FATAL", "57P01")
        assert "terminating connection" not in error.message
    await drain
    assert proxy.registry.count == 0


async def test_a_reload_while_the_process_drains_is_taken_over_and_starts_nothing(run_proxy: RunProxy) -> None:
    """SIGHUP comes when it comes. Work goes on by the new file; what looks after a running process stays ended."""
    proxy = await run_proxy(classes={"all": {"limit": 1, "queue": {"timeout": "20s"}}})
    holder, waiter = await proxy.connect(), await proxy.connect()
    await holder.query("begin")
    await waiter.send(query("select 2"))
    await eventually(lambda: proxy.waiting() == 1)
    drain = asyncio.create_task(proxy.process.drain_and_stop())
    await eventually(lambda: proxy.desk.draining)
    watching = {"reload": {"watch": True}, "canary": {"interval": "1h", "class": "internal"}}
    changes = proxy.reload(classes={"all": {"limit": 2, "queue": {"timeout": "20s"}}}, **watching)
    assert "all.limit: 1 -> 2 (gains 1)" in changes
    assert (await waiter.answer()).value == "2", "the limit that is new serves it"
    assert proxy.process.config_watch._timer is None
    await holder.query("commit")
    await drain
    assert proxy.process.tasks.names() == []


async def test_a_drain_ends_at_its_timeout_with_work_undone(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(shutdown={"drain_timeout": "100ms"})
    client, waiting = await proxy.connect(), await proxy.connect()
    await client.query("begin")
    proxy.process.set_state("all", ClassState.PAUSED, by="test", reason="")
    await waiting.send(query("select 1"))
    await eventually(lambda: proxy.waiting() == 1)
    await proxy.process.drain_and_stop()
    assert (await client.answer("never")).codes == ["57P01"]
    assert (await waiting.answer("never")).codes == ["57P03", "57P01"]
    assert proxy.controller.in_use == 0


async def test_a_reload_under_load_loses_nobody_and_its_limits_hold_afterwards(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(budget={"total": 5}, classes={"all": {"limit": 4}})
    stop = asyncio.Event()
    clients = [await proxy.connect() for _ in range(12)]

    async def work(client: WireClient) -> int:
        done = 0
        while not stop.is_set():
            assert (await client.query("select pg_sleep(0.002)")).errors == []
            done += 1
        return done

    tasks = [asyncio.create_task(work(client)) for client in clients]
    for limit, total in [(1, 2), (4, 5), (2, 3)] * 3:
        served = proxy.measures.of("all").hold.count
        await eventually(lambda served=served: proxy.measures.of("all").hold.count > served + 20)
        changes = proxy.reload(budget={"total": total}, classes={"all": {"limit": limit}})
        assert any("limit" in change for change in changes)
        await eventually(lambda limit=limit: proxy.controller.in_use <= limit)
        await eventually(lambda total=total: proxy.registry.count <= total)
    stop.set()
    await asyncio.gather(*tasks)


async def test_a_reload_that_removes_a_class_moves_its_clients(run_proxy: RunProxy) -> None:
    classes = {"web": {"limit": 2, "match": [{"application_name": "web*"}]}, "all": {"limit": 2}}
    proxy = await run_proxy(classes=classes)
    client = await proxy.connect(application_name="web-1")
    await client.query("begin")
    (connection,) = proxy.desk.clients
    assert connection.class_name == "web"
    proxy.reload(classes={"all": {"limit": 2}})
    assert (await client.query("select 1")).status == "T"
    await client.query("commit")
    assert (await client.query("select 1")).errors == []
    assert connection.class_name == "all"
    assert proxy.controller.in_use == 0


async def test_a_new_application_name_counts_from_the_next_transaction(run_proxy: RunProxy) -> None:
    classes = {"web": {"limit": 2, "match": [{"application_name": "web*"}]}, "all": {"limit": 2}}
    proxy = await run_proxy(classes=classes)
    client = await proxy.connect()
    (connection,) = proxy.desk.clients
    await client.query("set application_name = 'web-2'")
    assert connection.class_name == "web"
    assert (await client.query("select 1")).errors == []
    await client.query("reset application_name")
    await proxy.until_free()
    assert connection.class_name == "all"


async def test_idle_clients_cost_no_server_connection(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    for _ in range(100):
        await proxy.connect()
    assert proxy.registry.count <= 2
    assert proxy.controller.in_use == 0
