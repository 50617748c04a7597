"""TLS on either leg, on both, and refused: what libpq and asyncpg make of it."""

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest

from proxy.demo.postgres import PostgresServer
from tests.clients.conftest import proxied
from tests.clients.ways import Way
from tests.support.npm_postgres import NpmPostgres


@pytest.fixture(scope="module")
def either(embedded_postgres_18: PostgresServer, certificates: Path) -> Iterator[Way]:
    """To a port where TLS is the client's choice, before a server without TLS."""
    with proxied(embedded_postgres_18, certificates=certificates, tls_mode="allow") as target:
        yield target.way("transaction-tls")


def is_encrypted_upstream(way: Way, **options: Any) -> bool:
    with psycopg.connect(**way.libpq(**options)) as connection:
        row = connection.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone()
        assert row is not None
        return bool(row[0])


@pytest.mark.parametrize("sslmode", ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"])
def test_a_port_that_allows_tls_takes_every_sslmode(either: Way, sslmode: str) -> None:
    with psycopg.connect(**either.libpq(sslmode=sslmode)) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        assert connection.pgconn.ssl_in_use == (sslmode not in ("disable", "allow"))


async def test_asyncpg_upgrades_to_tls_and_verifies(either: Way) -> None:
    context = ssl.create_default_context(cafile=str(either.ca_path))
    dsn = f"postgresql://127.0.0.1:{either.port}/app"
    connection = await asyncpg.connect(dsn, user="app", password=either.password, ssl=context)
    try:
        assert len(await connection.fetchval("SELECT repeat('x', 5000000)")) == 5_000_000
        assert await connection.fetchval("SELECT length($1::text)", "x" * 5_000_000) == 5_000_000
    finally:
        await connection.close()


def test_a_certificate_of_somebody_else_is_noticed_by_the_client(either: Way) -> None:
    with pytest.raises(psycopg.OperationalError, match="certificate"):
        psycopg.connect(**either.libpq(sslmode="verify-full", sslrootcert="system"))


def test_direct_tls_ends_in_an_error_and_not_in_silence(either: Way) -> None:
    """libpq 17 and later can begin with the handshake itself (sslnegotiation=direct); this port wants to be asked."""
    if psycopg.pq.version() < 170_000:
        pytest.skip("this libpq knows no sslnegotiation")
    with pytest.raises(psycopg.OperationalError) as caught:
        psycopg.connect(**either.libpq(sslmode="require", sslnegotiation="direct", connect_timeout=10))
    assert "timeout" not in str(caught.value)


def test_a_port_that_requires_tls_refuses_plaintext(embedded_postgres_16: PostgresServer, certificates: Path) -> None:
    with proxied(embedded_postgres_16, certificates=certificates, tls_mode="require") as target:
        way = target.way("transaction-tls")
        assert is_encrypted_upstream(way) is False
        with pytest.raises(psycopg.OperationalError, match="TLS"):
            psycopg.connect(**way.libpq(sslmode="disable"))


def test_a_client_certificate_is_demanded_and_accepted(
    embedded_postgres_16: PostgresServer, certificates: Path
) -> None:
    mine = {"sslcert": str(certificates / "server.crt"), "sslkey": str(certificates / "server.key")}
    with proxied(embedded_postgres_16, certificates=certificates, tls_mode="verify") as target:
        way = target.way("transaction-tls")
        assert is_encrypted_upstream(way, **mine) is False
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(**way.libpq(sslcert="/nonexistent", sslkey="/nonexistent"))


@pytest.mark.parametrize("version", [13, 17, 18])
@pytest.mark.parametrize("sslmode", ["prefer", "require", "verify-ca", "verify-full"])
def test_the_server_leg_is_encrypted_where_the_clients_is_not(
    npm_postgres: Callable[[int], NpmPostgres], version: int, sslmode: str
) -> None:
    postgres = npm_postgres(version)
    root = f"&sslrootcert={postgres.ca_path}" if sslmode.startswith("verify") else ""
    with proxied(postgres, upstream=f"sslmode={sslmode}{root}") as target:
        assert is_encrypted_upstream(target.way("transaction-tls"), sslmode="disable") is True
