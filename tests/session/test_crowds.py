"""Many who come at once: thousands of runs with a connection each, jobs of the same second, a server that is full."""

import asyncio
import resource
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack

import psycopg
import pytest

from proxy.demo.postgres import EmbeddedPostgres
from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy
from tests.support.wire_client import WireClient

pytestmark = pytest.mark.once

RUNS = 2000
JOBS = 12
SLOTS = 4


@pytest.fixture
def many_sockets() -> Iterator[None]:
    """As many as this machine allows: each run has two here, its own and the proxy's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * RUNS + 200:
        pytest.skip(f"only {hard} open files are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * RUNS + 200), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_sockets")
async def test_thousands_of_runs_hold_a_connection_each_and_share_a_few(run_proxy: RunProxy) -> None:
    """They are suspended most of the time and use nothing then; those that wake together are all served."""
    proxy = await run_proxy(
        listen={"max_client_connections": RUNS},
        classes={
            "all": {
                "limit": SLOTS,
                "queue": {"timeout": "60s", "max": RUNS},
            }
        },
    )
    runs: list[WireClient] = []
    for _ in range(RUNS // 100):
        runs += await asyncio.gather(*(proxy.connect() for _ in range(100)))
    await proxy.until_free()
    assert (len(proxy.desk.clients), proxy.controller.in_use) == (RUNS, 0)
    for awake in (runs[:1], runs[::10], runs):
        answers = await asyncio.gather(*(run.value("select 1") for run in awake))
        assert answers == ["1"] * len(awake)
    assert proxy.registry.count <= SLOTS + 1


async def job(proxy: Running, running: list[int], number: int) -> int:
    """Two transactions over a connection of its own. Returns how many jobs ran at most beside it, itself included."""
    async with await psycopg.AsyncConnection.connect(proxy.url(), autocommit=True) as connection:
        running.append(number)
        seen = len(running)
        for _ in range(2):
            async with connection.transaction():
                await connection.execute("select pg_sleep(0.005)")
            seen = max(seen, len(running))
        running.remove(number)
    return seen


async def test_jobs_of_the_same_second_run_one_after_the_other_where_their_class_admits_one(
    run_proxy: RunProxy,
) -> None:
    proxy = await run_proxy(classes={"all": {"limit": 2, "max_clients": 1, "queue": {"timeout": "20s", "max": JOBS}}})
    running: list[int] = []
    assert await asyncio.gather(*(job(proxy, running, number) for number in range(JOBS))) == [1] * JOBS


async def test_without_it_they_run_side_by_side(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    running: list[int] = []
    assert max(await asyncio.gather(*(job(proxy, running, number) for number in range(JOBS)))) > 1


async def test_slots_that_others_took_are_waited_for_and_the_servers_refusal_is_never_shown(
    make_postgres: Callable[..., EmbeddedPostgres], run_proxy: RunProxy
) -> None:
    """Somebody connects past the proxy, until the server keeps what is left for superusers."""
    server = await asyncio.to_thread(make_postgres, 18, max_connections=8, superuser_reserved_connections=3)
    proxy = await run_proxy(server.url("app"), classes={"all": {"limit": 2, "queue": {"timeout": "20s"}}})
    client = await proxy.connect()
    async with AsyncExitStack() as strangers:
        holder = await proxy.connect()
        await holder.query("begin")
        free = 5 - proxy.registry.count
        for _ in range(free):
            await strangers.enter_async_context(await psycopg.AsyncConnection.connect(server.url("web")))
        waiting = asyncio.create_task(client.query("select 1"))
        await eventually(lambda: proxy.measures.dial_retries > 0, but=server.log_text)
        assert "remaining connection slots are reserved for roles with the SUPERUSER attribute" in server.log_text()
        assert not waiting.done()
    answer = await waiting
    assert (answer.errors, answer.rows) == ([], [("1",)])
    await holder.query("commit")
