"""Clients that sleep for hours, and connections that die meanwhile on either leg."""

import asyncio
import socket
import time
from typing import Any

import psycopg
import pytest

from proxy.demo.postgres import DATABASE, password_of
from proxy.session import clock
from tests.support.eventually import eventually
from tests.support.running import RunProxy
from tests.support.servers import Postgres
from tests.support.slow_link import SlowLink, slow_link

pytestmark = pytest.mark.once

AT_ONCE_SECONDS = 1.0
ONE_SLOT = {"budget": {"total": 2}, "classes": {"all": {"limit": 1, "queue": {"timeout": "20s"}}}}


def url(wire: SlowLink) -> str:
    host = f"[{wire.listen_host}]" if ":" in wire.listen_host else wire.listen_host
    return f"postgresql://app:{password_of('app')}@{host}:{wire.port}/{DATABASE}?sslmode=disable"


def keepalive_of(transport: asyncio.BaseTransport) -> tuple[bool, list[int]]:
    sock = transport.get_extra_info("socket")
    seconds = [
        sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
        for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
    ]
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)), seconds


async def test_both_legs_are_kept_alive(run_proxy: RunProxy) -> None:
    """Well below the five minutes after which the most forgetful NAT forgets a connection."""
    proxy = await run_proxy()
    client = await proxy.connect()
    await client.query("select 1")
    legs = [*(one.transport for one in proxy.desk.clients), *(one.transport for one in proxy.registry.connections)]
    assert len(legs) >= 2
    assert [keepalive_of(leg) for leg in legs] == [(True, [30, 10, 3])] * len(legs)


async def test_server_connections_that_are_cut_while_nobody_uses_them_are_not_missed(
    run_proxy: RunProxy, postgres: Postgres
) -> None:
    async with slow_link(postgres.host, postgres.port, round_trip_seconds=0) as wire:
        proxy = await run_proxy(url(wire), **ONE_SLOT)
        client = await proxy.connect(TimeZone="Asia/Tokyo")
        assert await client.value("select 1") == "1"
        for link in wire.links:
            link.cut()
        await eventually(lambda: not proxy.registry.connections)
        assert await client.value("show timezone") == "Asia/Tokyo"


async def test_server_connections_that_died_without_a_word_are_noticed_before_anything_is_sent_on_them(
    run_proxy: RunProxy, postgres: Postgres
) -> None:
    """What a NAT has forgotten is neither closed nor answered: the check before handing out finds out."""
    async with slow_link(postgres.host, postgres.port, round_trip_seconds=0) as wire:
        proxy = await run_proxy(
            url(wire), pool={"check_after": "1ms", "dial_timeout": "300ms", "gone_timeout": "200ms"}, **ONE_SLOT
        )
        client = await proxy.connect()
        before = await client.value("select pg_backend_pid()")
        idle = list(proxy.registry.connections)
        for link in wire.links:
            link.goes_silent()
        await eventually(lambda: all(clock.now() > one.idle_since + 0.001 for one in idle))
        begun = time.monotonic()
        assert await client.value("select pg_backend_pid()") != before
        assert time.monotonic() - begun < 0.3 + AT_ONCE_SECONDS
        for link in wire.links:
            link.cut()  # what the kernel does at last


async def ask_and_come_again(proxy_url: str, connection: psycopg.AsyncConnection[Any]) -> None:
    """The error comes at once, the driver knows the connection for lost, and a new one is served."""
    begun = time.monotonic()
    with pytest.raises((psycopg.OperationalError, psycopg.errors.IdleInTransactionSessionTimeout)):
        await connection.execute("select 1")
    assert connection.closed
    async with await psycopg.AsyncConnection.connect(proxy_url, autocommit=True) as again:
        assert await (await again.execute("select 2")).fetchone() == (2,)
    assert time.monotonic() - begun < AT_ONCE_SECONDS


async def test_a_client_that_comes_back_to_a_dead_socket_gets_an_error_at_once(run_proxy: RunProxy) -> None:
    """It was suspended for so long that keepalive has given it up, and it has not read that yet."""
    proxy = await run_proxy(**ONE_SLOT)
    connection = await proxy.psycopg()
    await connection.execute("select 1")
    for client in list(proxy.desk.clients):
        client.transport.abort()  # as the kernel does
    await eventually(lambda: not proxy.desk.clients)
    await ask_and_come_again(proxy.url(), connection)


async def test_a_client_suspended_in_a_transaction_loses_it_and_nobody_waits_for_it(run_proxy: RunProxy) -> None:
    one_slot = {**ONE_SLOT["classes"]["all"], "parameters": {"idle_in_transaction_session_timeout": "200ms"}}  # type: ignore[index]
    proxy = await run_proxy(budget={"total": 2}, classes={"all": one_slot})
    connection, other = await proxy.psycopg(), await proxy.connect()
    await connection.execute("begin")
    assert await other.value("select 1") == "1", "it has waited for the slot"
    await ask_and_come_again(proxy.url(), connection)


async def test_a_server_that_has_an_ipv6_address_only(run_proxy: RunProxy, postgres: Postgres) -> None:
    try:
        wire = await SlowLink(postgres.host, postgres.port, 0.0, listen_host="::1").start()
    except OSError:
        pytest.skip("this machine has no IPv6")
    try:
        proxy = await run_proxy(url(wire), listen={"host": "::1", "port": 0}, **ONE_SLOT)
        async with await psycopg.AsyncConnection.connect(proxy.url().replace("127.0.0.1", "[::1]")) as connection:
            assert await (await connection.execute("select 1")).fetchone() == (1,)
    finally:
        await wire.stop()
