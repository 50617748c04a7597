"""The load generator's own client, against real servers."""

import asyncio
from collections.abc import Callable

import pytest

from proxy.demo.client import Connection, ConnectionLost, Login, QueryError
from proxy.demo.postgres import DATABASE, EmbeddedPostgres, PostgresServer, free_port, password_of

MakePostgres = Callable[..., EmbeddedPostgres]


def login(server: PostgresServer, password: str | None = None) -> Login:
    secret = password_of("web") if password is None else password
    return Login(server.host, server.port, "web", secret, DATABASE, "client test")


async def test_it_logs_in_with_scram_and_reads_rows(postgres_versions: PostgresServer) -> None:
    connection = await Connection.open(login(postgres_versions))
    rows = await connection.run("SELECT current_user, NULL, n FROM generate_series(1, 2) n")
    assert rows == [["web", None, "1"], ["web", None, "2"]]
    assert await connection.run("SHOW application_name") == [["client test"]]
    connection.close()


@pytest.mark.parametrize("method", ["trust", "password", "md5"])
async def test_it_logs_in_with_the_older_methods(make_postgres: MakePostgres, method: str) -> None:
    server = make_postgres(auth=method, settings={"password_encryption": "md5"})
    connection = await Connection.open(login(server))
    assert await connection.run("SELECT 1") == [["1"]]
    connection.close()


async def test_a_wrong_password_is_the_servers_own_error(embedded_postgres_18: EmbeddedPostgres) -> None:
    with pytest.raises(QueryError, match="28P01: password authentication failed"):
        await Connection.open(login(embedded_postgres_18, password="wrong"))


async def test_after_an_error_the_connection_is_still_good(embedded_postgres_18: EmbeddedPostgres) -> None:
    connection = await Connection.open(login(embedded_postgres_18))
    with pytest.raises(QueryError, match="22012"):
        await connection.run("SELECT 1 / 0")
    assert await connection.run("SELECT 2") == [["2"]]
    connection.close()


async def test_large_results_arrive_whole(embedded_postgres_18: EmbeddedPostgres) -> None:
    connection = await Connection.open(login(embedded_postgres_18))
    rows = await connection.run("SELECT n, repeat('x', 1000) FROM generate_series(1, 3000) n")
    assert [row[0] for row in rows] == [str(n) for n in range(1, 3001)]
    connection.close()


async def test_a_server_that_goes_away_is_told(make_postgres: MakePostgres) -> None:
    server = make_postgres()
    connection = await Connection.open(login(server))
    query = asyncio.create_task(connection.run("SELECT pg_sleep(30)"))
    await asyncio.sleep(0)
    server.kill()
    with pytest.raises(ConnectionLost):
        await query
    with pytest.raises(ConnectionLost):
        await connection.run("SELECT 1")


async def test_nobody_at_the_address_is_a_lost_connection() -> None:
    with pytest.raises(ConnectionLost):
        await Connection.open(Login("127.0.0.1", free_port(), "web", "", DATABASE, "x"))
