"""PgBouncer between the proxy and the server: what is different then, and that the rest is not."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from loadtests.pgbouncer import PgBouncer, find_pgbouncer, users_with_passwords
from proxy.demo.postgres import DATABASE, EmbeddedPostgres, password_of
from proxy.service.findings import BudgetCannotHold
from proxy.session.quirks import is_full_pooler
from proxy.wire.messages import ErrorFields
from tests.support.eventually import eventually
from tests.support.running import RunProxy

pytestmark = pytest.mark.skipif(find_pgbouncer() is None, reason="no PgBouncer is installed")

POOL = 3
MODES = pytest.mark.parametrize("pool_mode", ["session", "transaction"])


@contextmanager
def bouncer(postgres: EmbeddedPostgres, pool_mode: str, **settings: str) -> Iterator[PgBouncer]:
    binary = find_pgbouncer()
    assert binary is not None
    settings = {"pool_mode": pool_mode, "default_pool_size": str(POOL), **settings}
    databases = {DATABASE: f"dbname={DATABASE}"}
    with PgBouncer(binary, postgres, databases=databases, users=users_with_passwords(), settings=settings) as running:
        yield running


def url(running: PgBouncer) -> str:
    return f"postgresql://app:{password_of('app')}@{running.host}:{running.port}/{DATABASE}"


def slots(count: int) -> dict[str, object]:
    """As many as the pooler has, one of them for the proxy's own questions."""
    return {
        "budget": {"total": count},
        "classes": {"all": {"limit": count - 1, "queue": {"timeout": "20s", "max": 100}, "pinned_limit": count - 1}},
    }


@MODES
async def test_many_clients_share_the_few_connections_of_the_pooler(
    run_proxy: RunProxy, embedded_postgres_18: EmbeddedPostgres, pool_mode: str
) -> None:
    with bouncer(embedded_postgres_18, pool_mode) as running:
        proxy = await run_proxy(url(running), **slots(POOL))
        clients = [await proxy.connect() for _ in range(20)]
        answers = await asyncio.gather(*(client.query("SELECT pg_sleep(0.02), 1") for client in clients))
        assert [answer.rows for answer in answers] == [[("", "1")]] * 20
        assert proxy.registry.count <= POOL


@MODES
async def test_settings_that_the_server_reports_follow_the_client(
    run_proxy: RunProxy, embedded_postgres_18: EmbeddedPostgres, pool_mode: str
) -> None:
    with bouncer(embedded_postgres_18, pool_mode) as running:
        proxy = await run_proxy(url(running), **slots(POOL))
        one, other = await proxy.connect(TimeZone="Asia/Tokyo"), await proxy.connect()
        await other.query("SET TimeZone = 'Europe/Rome'")
        for _ in range(5):
            assert await one.value("SHOW TimeZone") == "Asia/Tokyo"
            assert await other.value("SHOW TimeZone") == "Europe/Rome"


@MODES
async def test_a_cancel_reaches_the_query_through_both(
    run_proxy: RunProxy, embedded_postgres_18: EmbeddedPostgres, pool_mode: str
) -> None:
    with bouncer(embedded_postgres_18, pool_mode) as running:
        proxy = await run_proxy(url(running), **slots(POOL))
        client = await proxy.connect()
        sleeping = asyncio.create_task(client.query("SELECT pg_sleep(30)"))
        await eventually(lambda: proxy.linked() == 1)
        await asyncio.sleep(0.1)  # until the server sleeps too
        await client.ask_to_cancel()
        assert (await sleeping).codes == ["57014"]


async def test_the_limit_of_a_pooler_cannot_be_asked_and_has_to_be_written(
    run_proxy: RunProxy, embedded_postgres_18: EmbeddedPostgres
) -> None:
    told = r"a pooler answers at upstream\.url.*default_pool_size"
    with bouncer(embedded_postgres_18, "session") as running, pytest.raises(BudgetCannotHold, match=told):
        await run_proxy(url(running), budget={"total": "auto", "instances": 1, "keep_free": 3})


async def test_a_pooler_that_takes_no_more_clients_is_asked_again(
    run_proxy: RunProxy, embedded_postgres_18: EmbeddedPostgres
) -> None:
    """Others use the pooler too: its refusal never reaches a client that may still wait."""
    with bouncer(embedded_postgres_18, "session", max_client_conn="1") as running:
        proxy = await run_proxy(url(running), **slots(POOL))
        holder, waiter = await proxy.connect(), await proxy.connect()
        await holder.query("BEGIN")
        waiting = asyncio.create_task(waiter.query("SELECT 1"))
        await eventually(lambda: proxy.measures.dial_retries > 0)
        await holder.query("COMMIT")
        assert (await waiting).rows == [("1",)]


async def test_a_pooler_that_is_started_anew_is_found_again(
    run_proxy: RunProxy, embedded_postgres_18: EmbeddedPostgres
) -> None:
    with bouncer(embedded_postgres_18, "session") as running:
        proxy = await run_proxy(url(running), pool={"retry_min": "50ms", "retry_max": "200ms"}, **slots(POOL))
        client = await proxy.connect()
        assert await client.value("SELECT 1") == "1"
        running.stop()
        running.start()
        await eventually(lambda: not proxy.registry.connections)

        async def is_served() -> bool:
            return (await client.query("SELECT 1")).rows == [("1",)]

        await eventually(is_served, within_seconds=10)


@pytest.mark.parametrize(
    ("code", "message", "is_full"),
    [
        ("08P01", "no more connections allowed (max_client_conn)", True),
        ("XX000", "Max client connections reached", True),
        ("08P01", "query_wait_timeout", False),
        ("28P01", "too many connections of a sort that is not meant", False),
    ],
)
def test_full_poolers_are_known_by_their_words(code: str, message: str, is_full: bool) -> None:
    assert is_full_pooler(ErrorFields("FATAL", code, message)) is is_full
