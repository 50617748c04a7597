"""asyncpg with its pool. It prepares everything by name and keeps what it prepared."""

import asyncio
import io
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from tests.clients.python.program import NAMES, scenarios_of, serve

TABLE = "scenario_asyncpg"
Connection = Any  # asyncpg carries no types


def version(_: str) -> Any:
    return {"driver": asyncpg.__version__}


async def code_of(connection: Connection, query: str) -> str | None:
    try:
        await connection.fetch(query)
    except asyncpg.PostgresError as error:
        return str(error.sqlstate)
    return None


async def connect_by_url(url: str) -> Any:
    connection = await asyncpg.connect(url)
    query = "SELECT current_setting('application_name'), current_database(), current_user, $1::int"
    found = await connection.fetchrow(query, 42)
    await connection.close()
    return dict(zip(("application_name", "database", "user", "answer"), found, strict=True))


async def pool(url: str) -> Any:
    async with asyncpg.create_pool(url, min_size=0, max_size=5) as shared:
        found = await asyncio.gather(*(shared.fetchval("SELECT $1::int * 2", i) for i in range(40)))
        return {"rows": found}


async def crowd(url: str) -> Any:
    async with asyncpg.create_pool(url, min_size=8, max_size=8) as shared:

        async def turns(client: int) -> Any:
            async with shared.acquire() as connection:
                found = []
                for i in range(5):
                    async with connection.transaction():
                        found.append(await connection.fetchval("SELECT $1::int", 100 * client + i))
                return found

        return {"rows": await asyncio.gather(*(turns(client) for client in range(8)))}


async def prepared_statements(url: str) -> Any:
    one, other = await asyncpg.connect(url), await asyncpg.connect(url)
    first = [await one.fetchval("SELECT $1::int + 1", i) for i in range(8)]
    async with other.transaction():
        statement = await other.prepare("SELECT 'x' || $1::text")
        second = [await statement.fetchval(str(i)) for i in range(8)]
        first += [await one.fetchval("SELECT $1::int + 1", i) for i in range(8, 11)]
    await one.close()
    await other.close()
    return {"one": first, "other": second}


async def transactions(url: str) -> Any:
    connection = await asyncpg.connect(url)
    await connection.execute(f"DROP TABLE IF EXISTS {TABLE}; CREATE TABLE {TABLE} (a int)")
    async with connection.transaction():
        await connection.execute(f"INSERT INTO {TABLE} VALUES (1)")
    undone = connection.transaction()
    await undone.start()
    await connection.execute(f"INSERT INTO {TABLE} VALUES (2)")
    await undone.rollback()
    async with connection.transaction(isolation="repeatable_read"):
        await connection.execute(f"INSERT INTO {TABLE} VALUES (3)")
        savepoint = connection.transaction()
        await savepoint.start()
        await connection.execute(f"INSERT INTO {TABLE} VALUES (4)")
        await savepoint.rollback()
    found = [row[0] for row in await connection.fetch(f"SELECT a FROM {TABLE} ORDER BY a")]
    await connection.execute(f"DROP TABLE {TABLE}")
    await connection.close()
    return {"rows": found}


async def copy_in(url: str) -> Any:
    connection = await asyncpg.connect(url)
    await connection.execute(f"DROP TABLE IF EXISTS {TABLE}; CREATE TABLE {TABLE} (a int, b text)")
    await connection.copy_records_to_table(TABLE, records=[(i, f"row {i}") for i in range(1, 1001)])
    found = await connection.fetchrow(f"SELECT count(*), sum(a) FROM {TABLE}")
    await connection.execute(f"DROP TABLE {TABLE}")
    await connection.close()
    return {"count": found[0], "sum": found[1]}


async def copy_out(url: str) -> Any:
    connection = await asyncpg.connect(url)
    target = io.BytesIO()
    query = "SELECT g, 'row ' || g FROM generate_series(1, 1000) g"
    await connection.copy_from_query(query, output=target, format="csv")
    await connection.close()
    lines = target.getvalue().decode().splitlines()
    return {"count": len(lines), "last": lines[-1]}


async def listen(url: str) -> Any:
    listener, other = await asyncpg.connect(url), await asyncpg.connect(url)
    heard: asyncio.Queue[str] = asyncio.Queue()
    await listener.add_listener("scenario_asyncpg", lambda *told: heard.put_nowait(told[3]))
    for payload in ("one", "two"):
        await other.execute("SELECT pg_notify('scenario_asyncpg', $1)", payload)
    found: list[str] = []
    try:
        async with asyncio.timeout(3):
            while len(found) < 2:
                found.append(await heard.get())
    except TimeoutError:
        pass
    await listener.close()
    await other.close()
    return {"heard": found}


async def cancel(url: str) -> Any:
    """asyncpg cancels what a timeout ends, and what its own caller no longer waits for."""
    connection = await asyncpg.connect(url)
    code = None
    try:
        await connection.execute("SELECT pg_sleep(30)", timeout=0.1)
    except TimeoutError:
        code = "57014"  # told by its own error, after the server has answered the cancel
    after = await connection.fetchval("SELECT 1")
    await connection.close()
    return {"code": code, "after": after}


async def errors(url: str) -> Any:
    connection = await asyncpg.connect(url)
    await connection.execute(f"DROP TABLE IF EXISTS {TABLE}; CREATE TABLE {TABLE} (a int PRIMARY KEY)")
    unique = await code_of(connection, f"INSERT INTO {TABLE} VALUES (1), (1)")
    syntax = await code_of(connection, "SELEC 1")
    await connection.execute(f"DROP TABLE {TABLE}")
    transaction = connection.transaction()
    await transaction.start()
    await code_of(connection, "SELECT 1/0")
    aborted = await code_of(connection, "SELECT 1")
    await transaction.rollback()
    after = await connection.fetchval("SELECT 1")
    await connection.close()
    return {"unique": unique, "syntax": syntax, "aborted": aborted, "after": after}


async def refusal_while_full(url: str) -> Any:
    holder = await asyncpg.connect(url)
    try:
        async with holder.transaction():
            await holder.fetchval("SELECT 1")
            async with asyncpg.create_pool(url, min_size=0, max_size=1) as shared:
                await shared.fetchval("SELECT 1")
    except asyncpg.TooManyConnectionsError as error:
        return {"code": error.sqlstate, "message": str(error), "type": type(error).__name__}
    finally:
        await holder.close()
    return {"code": None}


async def recovery(url: str) -> Any:
    return await after_refusals(url, lambda connection: connection.fetchval("SELECT 0"))


async def refused_begin(url: str) -> Any:
    async def begin(connection: Connection) -> None:
        async with connection.transaction():
            await connection.fetchval("SELECT 0")

    return await after_refusals(url, begin)


async def after_refusals(url: str, ask: Callable[[Connection], Awaitable[Any]]) -> Any:
    async with asyncpg.create_pool(url, min_size=0, max_size=1) as shared:
        holder = await asyncpg.connect(url)
        refused = 0
        async with holder.transaction():
            await holder.fetchval("SELECT 1")
            for _ in range(2):
                try:
                    async with shared.acquire() as connection:
                        await ask(connection)
                except (asyncpg.PostgresError, OSError):
                    refused += 1
        await holder.close()
        found = [await shared.fetchval("SELECT $1::int", i) for i in range(5)]
        return {"refused": refused == 2, "after": found}


if __name__ == "__main__":
    serve(scenarios_of(globals(), NAMES))
