"""psycopg 3, asynchronous, with its pool and in pipelines."""

import asyncio
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool

from tests.clients.python.program import NAMES, scenarios_of, serve

TABLE = "scenario_psycopg_async"
Connection = psycopg.AsyncConnection[Any]


def version(_: str) -> Any:
    return {"driver": psycopg.__version__}


async def connect(url: str, *, autocommit: bool = True) -> Connection:
    return await psycopg.AsyncConnection.connect(url, autocommit=autocommit)


async def value(connection: Connection, query: str, *arguments: Any) -> Any:
    cursor = await connection.execute(query, arguments or None)  # type: ignore[call-overload]
    return (await cursor.fetchone())[0]


async def code_of(connection: Connection, query: str) -> str | None:
    try:
        await connection.execute(query)  # type: ignore[call-overload]
    except psycopg.Error as error:
        return error.sqlstate
    return None


async def connect_by_url(url: str) -> Any:
    async with await connect(url) as connection:
        query = "SELECT current_setting('application_name'), current_database(), current_user, 42"
        found = await (await connection.execute(query)).fetchone()
    return dict(zip(("application_name", "database", "user", "answer"), found or (), strict=True))


async def pool(url: str) -> Any:
    async with AsyncConnectionPool(url, min_size=0, max_size=5) as shared:

        async def double(i: int) -> Any:
            async with shared.connection() as connection:
                return await value(connection, "SELECT %s::int * 2", i)

        return {"rows": await asyncio.gather(*(double(i) for i in range(40)))}


async def crowd(url: str) -> Any:
    async with AsyncConnectionPool(url, min_size=8, max_size=8) as shared:
        await shared.wait()

        async def turns(client: int) -> Any:
            async with shared.connection() as connection:
                found = []
                for i in range(5):
                    async with connection.transaction():
                        for _ in range(2):
                            last = await value(connection, "SELECT %s::int", 100 * client + i)
                        found.append(last)
                return found

        return {"rows": await asyncio.gather(*(turns(client) for client in range(8)))}


async def prepared_statements(url: str) -> Any:
    async with await connect(url) as one, await connect(url, autocommit=False) as other:
        first = await piped(one, "SELECT %s::int + 1", [(i,) for i in range(8)])
        second = await piped(other, "SELECT 'x' || %s::text", [(str(i),) for i in range(8)])
        first += await piped(one, "SELECT %s::int + 1", [(i,) for i in range(8, 11)])
        await other.commit()
    return {"one": first, "other": second}


async def piped(connection: Connection, query: str, arguments: list[Any]) -> list[Any]:
    async with connection.pipeline():
        cursors = [await connection.execute(query, values) for values in arguments]  # type: ignore[call-overload]
        return [(await cursor.fetchone())[0] for cursor in cursors]


async def transactions(url: str) -> Any:
    async with await connect(url) as connection:
        await connection.execute(f"DROP TABLE IF EXISTS {TABLE}; CREATE TABLE {TABLE} (a int)")
        async with connection.transaction():
            await connection.execute(f"INSERT INTO {TABLE} VALUES (1)")
        async with connection.transaction(force_rollback=True):
            await connection.execute(f"INSERT INTO {TABLE} VALUES (2)")
        async with connection.transaction():
            await connection.execute(f"INSERT INTO {TABLE} VALUES (3)")
            async with connection.transaction(force_rollback=True):
                await connection.execute(f"INSERT INTO {TABLE} VALUES (4)")
        cursor = await connection.execute(f"SELECT a FROM {TABLE} ORDER BY a")
        found = [row[0] for row in await cursor.fetchall()]
        await connection.execute(f"DROP TABLE {TABLE}")
    return {"rows": found}


async def copy_in(url: str) -> Any:
    async with await connect(url) as connection:
        await connection.execute(f"DROP TABLE IF EXISTS {TABLE}; CREATE TABLE {TABLE} (a int, b text)")
        async with connection.cursor().copy(f"COPY {TABLE} FROM STDIN") as copy:
            for i in range(1, 1001):
                await copy.write_row((i, f"row {i}"))
        cursor = await connection.execute(f"SELECT count(*), sum(a) FROM {TABLE}")
        found = await cursor.fetchone() or ()
        await connection.execute(f"DROP TABLE {TABLE}")
    return {"count": found[0], "sum": found[1]}


async def copy_out(url: str) -> Any:
    query = "COPY (SELECT g, 'row ' || g FROM generate_series(1, 1000) g) TO STDOUT CSV"
    async with await connect(url) as connection, connection.cursor().copy(query) as copy:
        lines = b"".join([bytes(part) async for part in copy]).decode().splitlines()
    return {"count": len(lines), "last": lines[-1]}


async def listen(url: str) -> Any:
    async with await connect(url) as listener, await connect(url) as other:
        await listener.execute("LISTEN scenario_psycopg_async")
        for payload in ("one", "two"):
            await other.execute("SELECT pg_notify('scenario_psycopg_async', %s)", (payload,))
        return {"heard": [notify.payload async for notify in listener.notifies(timeout=3, stop_after=2)]}


async def cancel(url: str) -> Any:
    async with await connect(url) as connection:
        task = asyncio.ensure_future(code_of(connection, "SELECT pg_sleep(30)"))
        await asyncio.sleep(0.1)
        await connection.cancel_safe()
        return {"code": await task, "after": await value(connection, "SELECT 1")}


async def errors(url: str) -> Any:
    async with await connect(url) as connection:
        await connection.execute(f"DROP TABLE IF EXISTS {TABLE}; CREATE TABLE {TABLE} (a int PRIMARY KEY)")
        unique = await code_of(connection, f"INSERT INTO {TABLE} VALUES (1), (1)")
        syntax = await code_of(connection, "SELEC 1")
        await connection.execute(f"DROP TABLE {TABLE}")
        await connection.set_autocommit(False)
        await code_of(connection, "SELECT 1/0")
        aborted = await code_of(connection, "SELECT 1")
        await connection.rollback()
        after = await value(connection, "SELECT 1")
    return {"unique": unique, "syntax": syntax, "aborted": aborted, "after": after}


async def refusal_while_full(url: str) -> Any:
    async with await connect(url, autocommit=False) as holder:
        await value(holder, "SELECT 1")
        try:
            async with await connect(url) as connection:
                await value(connection, "SELECT 1")
        except psycopg.OperationalError as error:
            return {"code": error.sqlstate, "message": str(error), "type": type(error).__name__}
    return {"code": None}


async def recovery(url: str) -> Any:
    async with AsyncConnectionPool(url, min_size=0, max_size=1) as shared:

        async def ask(i: int) -> Any:
            async with shared.connection(timeout=10 if i >= 0 else 1) as connection:
                return await value(connection, "SELECT %s::int", i)

        refused = 0
        async with await connect(url, autocommit=False) as holder:
            await value(holder, "SELECT 1")
            for _ in range(2):
                try:
                    await ask(-1)
                except psycopg.OperationalError:
                    refused += 1
        return {"refused": refused == 2, "after": [await ask(i) for i in range(5)]}


refused_begin = recovery  # each statement there is the first of a transaction that the driver begins


if __name__ == "__main__":
    serve(scenarios_of(globals(), NAMES))
