"""Several hosts, one of them wanted: found at the start, left when it is not the wanted one any more."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from proxy.demo.postgres import EmbeddedPostgres, PostgresServer, password_of
from proxy.session.server_leg import ServerState
from tests.support import standby
from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy
from tests.support.servers import start_npm_postgres

QUICK = {"dial_timeout": "1s", "retry_min": "50ms", "retry_max": "200ms"}


def url(*servers: PostgresServer, **more: str) -> str:
    hosts = ",".join(f"{server.host}:{server.port}" for server in servers)
    keys = "&".join(f"{name}={value}" for name, value in more.items())
    return f"postgresql://app:{password_of('app')}@{hosts}/app?{keys}"


@pytest.fixture(params=[13, 18])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """A standby and a primary, told by what they report at the login (18), and only when asked (13)."""
    with ExitStack() as stack:
        first, second = (stack.enter_context(server_of(request.param)) for _ in range(2))
        standby.demote(first)
        yield first, second


def server_of(version: int) -> PostgresServer:
    if version == 18:
        return EmbeddedPostgres(18, settings=standby.SETTINGS)
    return start_npm_postgres(version, settings=standby.SETTINGS)


async def port_behind(proxy: Running) -> str | None:
    """The port of the server that a new client's query reaches."""
    client = await proxy.connect()
    answer = await client.query("SELECT current_setting('port')")
    await client.leave()
    return answer.value


def targets(proxy: Running) -> set[int]:
    """The ports that server connections lead to."""
    return {server.route.target.host.port for server in proxy.registry.connections if server.route is not None}


def settings(**upstream: Any) -> dict[str, Any]:
    return {"pool": QUICK, "upstream": upstream}


async def test_the_wanted_one_is_found_wherever_it_stands(
    run_proxy: RunProxy, pair: tuple[PostgresServer, PostgresServer]
) -> None:
    first, second = pair
    for wanted, port in {
        "any": first.port,
        "read-write": second.port,
        "primary": second.port,
        "read-only": first.port,
        "standby": first.port,
        "prefer-standby": first.port,
    }.items():
        proxy = await run_proxy(url(first, second, target_session_attrs=wanted))
        assert await port_behind(proxy) == str(port), wanted
        proxy = await run_proxy(url(second, first, target_session_attrs=wanted))
        assert await port_behind(proxy) == str(second.port if wanted == "any" else port), wanted


async def test_a_standby_is_preferred_and_not_demanded(
    run_proxy: RunProxy, pair: tuple[PostgresServer, PostgresServer]
) -> None:
    first, second = pair
    first.stop()
    proxy = await run_proxy(url(first, second, target_session_attrs="prefer-standby"))
    assert await port_behind(proxy) == str(second.port)


async def test_where_no_server_is_the_wanted_one_each_is_named_with_its_reason(
    run_proxy: RunProxy, pair: tuple[PostgresServer, PostgresServer]
) -> None:
    first, second = pair
    second.stop()
    proxy = await run_proxy(url(first, second, target_session_attrs="read-write"), pool=QUICK)
    client = await proxy.connect()
    (error,) = (await client.query("SELECT 1")).errors
    assert "target_session_attrs=read-write" in error.message
    assert "session is read-only" in (error.detail or "")
    assert f"port {second.port}: Connection refused" in (error.detail or "")
    second.start()
    await eventually(lambda: proxy.registry.connector.down is None)
    assert await port_behind(proxy) == str(second.port)


async def test_when_the_primary_dies_the_one_that_is_promoted_serves(
    run_proxy: RunProxy, pair: tuple[PostgresServer, PostgresServer]
) -> None:
    first, second = pair
    proxy = await run_proxy(url(first, second, target_session_attrs="read-write"), pool=QUICK)
    client = await proxy.connect()
    assert await client.value("SELECT current_setting('port')") == str(second.port)
    second.kill()
    standby.promote(first)

    async def is_served() -> bool:
        """Until the proxy has tried again, new clients are told that no server can be used."""
        try:
            return await port_behind(proxy) == str(first.port)
        except AssertionError:
            return False

    await eventually(is_served, within_seconds=20)
    client = await proxy.connect()
    assert (await client.query("CREATE TABLE IF NOT EXISTS failover_is_writable (n int)")).error is None
    assert targets(proxy) == {first.port}
    assert proxy.measures.upstream_moves == 1


async def test_idle_connections_to_a_primary_that_became_read_only_are_closed(
    run_proxy: RunProxy, pair: tuple[PostgresServer, PostgresServer]
) -> None:
    """Nobody asks for anything in the meantime: the proxy finds out by itself."""
    first, second = pair
    proxy = await run_proxy(
        url(first, second, target_session_attrs="read-write"), pool=QUICK, upstream={"check_hosts": "200ms"}
    )
    assert await port_behind(proxy) == str(second.port)
    second.psql("ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf()")
    await eventually(lambda: second.port not in targets(proxy), within_seconds=10)
    standby.promote(first)
    await eventually(lambda: proxy.registry.connector.down is None)
    assert await port_behind(proxy) == str(first.port)


async def test_a_client_that_is_told_of_a_read_only_server_has_it_looked_at_at_once(
    run_proxy: RunProxy, pair: tuple[PostgresServer, PostgresServer]
) -> None:
    first, second = pair
    proxy = await run_proxy(
        url(first, second, target_session_attrs="read-write"), pool=QUICK, upstream={"check_hosts": "1h"}
    )
    client = await proxy.connect()
    await client.query("CREATE TABLE IF NOT EXISTS failover_doubt (n int)")
    second.psql("ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf()")
    standby.promote(first)

    async def is_refused() -> bool:
        return "25006" in (await client.query("INSERT INTO failover_doubt VALUES (1)")).codes

    await eventually(is_refused)
    await eventually(lambda: second.port not in targets(proxy), within_seconds=10)
    assert await port_behind(proxy) == str(first.port)


async def test_a_primary_that_vanishes_without_a_word_is_left(
    run_proxy: RunProxy, pair: tuple[PostgresServer, PostgresServer]
) -> None:
    first, second = pair
    proxy = await run_proxy(
        url(first, second, target_session_attrs="read-write"), pool=QUICK, upstream={"check_hosts": "200ms"}
    )
    assert await port_behind(proxy) == str(second.port)
    standby.promote(first)
    second.freeze()
    try:
        await eventually(lambda: proxy.registry.connector.hosts.current is None, within_seconds=10)
        assert await port_behind(proxy) == str(first.port)
    finally:
        second.thaw()
    await eventually(lambda: targets(proxy) == {first.port})


async def test_what_is_at_work_on_the_server_that_is_left_may_finish(
    run_proxy: RunProxy, pair: tuple[PostgresServer, PostgresServer]
) -> None:
    first, second = pair
    proxy = await run_proxy(
        url(first, second, target_session_attrs="read-write"), pool=QUICK, upstream={"check_hosts": "200ms"}
    )
    client, other = await proxy.connect(), await proxy.connect()
    await client.query("BEGIN")
    await other.value("SELECT 1")
    second.psql("ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf()")
    standby.promote(first)
    await eventually(lambda: proxy.registry.connector.hosts.current is None, within_seconds=10)
    assert await client.value("SELECT current_setting('port')") == str(second.port)
    assert (await client.query("COMMIT")).error is None
    await eventually(lambda: second.port not in targets(proxy))
    assert await client.value("SELECT current_setting('port')") == str(first.port)


async def test_balanced_load_reaches_every_server_and_a_cancel_the_right_one(
    run_proxy: RunProxy, embedded_postgres_16: EmbeddedPostgres, embedded_postgres_18: EmbeddedPostgres
) -> None:
    servers = (embedded_postgres_16, embedded_postgres_18)
    proxy = await run_proxy(url(*servers, load_balance_hosts="random"), budget={"total": 13}, classes=TWELVE)
    clients = [await proxy.connect() for _ in range(12)]
    for client in clients:
        await client.query("BEGIN")
    assert targets(proxy) == {server.port for server in servers}
    for client in clients:
        sleeping = asyncio.create_task(client.query("SELECT pg_sleep(30)"))
        await eventually(lambda: proxy.linked() == 12)
        await asyncio.sleep(0.05)  # until the server sleeps too: a cancel ahead of the query would do nothing
        await client.ask_to_cancel()
        assert (await sleeping).codes == ["57014"]


TWELVE = {"all": {"limit": 12, "queue": {"timeout": "20s", "max": 10}}}


async def test_a_name_that_moves_takes_idle_connections_and_dials_with_it(
    run_proxy: RunProxy, make_postgres: Callable[..., EmbeddedPostgres]
) -> None:
    """As a provider fails over: the same name, another address."""
    old = make_postgres(18)
    new = EmbeddedPostgres(18)
    new.host, new.port = "127.0.0.2", old.port
    names = {"database.test": [old.host]}

    async def resolve(name: str, port: int) -> Sequence[str]:
        return names[name]

    with new:
        address = f"postgresql://app:{password_of('app')}@database.test:{old.port}/app"
        proxy = await run_proxy(address, pool=QUICK, upstream={"check_hosts": "200ms"}, resolve=resolve)
        client = await proxy.connect()
        assert await client.value("SELECT host(inet_server_addr())") == old.host
        names["database.test"] = [new.host]
        await eventually(lambda: not proxy.registry.connections)
        assert await client.value("SELECT host(inet_server_addr())") == new.host
        states = [server.state for server in proxy.registry.connections]
        assert ServerState.CLOSING not in states
