"""SQLAlchemy on asyncpg. Its dialect prepares every statement by a name and keeps a cache of its own."""

import asyncio
from typing import Any

import sqlalchemy
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from tests.clients.python.program import NAMES, scenarios_of, serve

TABLE = "scenario_sqlalchemy_asyncpg"
ABOUT = "SELECT current_setting('application_name'), current_database(), current_user, 42"
NUMBER = text("SELECT CAST(:i AS int)")


def version(_: str) -> Any:
    return {"driver": sqlalchemy.__version__}


def engine_at(url: str, **options: Any) -> AsyncEngine:
    """The dialect hands the URL's query to asyncpg as arguments, where application_name is a server setting."""
    given = make_url(url)
    settings = {"application_name": given.query["application_name"]}
    plain = given.set(drivername="postgresql+asyncpg").difference_update_query(["application_name"])
    return create_async_engine(plain, connect_args={"server_settings": settings}, **options)


async def run(connection: AsyncConnection, query: str) -> None:
    await connection.execute(text(query))


async def code_of(connection: AsyncConnection, query: str) -> str | None:
    try:
        await run(connection, query)
    except DBAPIError as error:
        return getattr(error.orig, "sqlstate", None)
    return None


async def connect_by_url(url: str) -> Any:
    engine = engine_at(url)
    async with engine.connect() as connection:
        found = (await connection.execute(text(ABOUT))).one()
    await engine.dispose()
    return dict(zip(("application_name", "database", "user", "answer"), found, strict=True))


async def pool(url: str) -> Any:
    engine = engine_at(url, pool_size=5, max_overflow=0, pool_pre_ping=True)

    async def double(i: int) -> Any:
        async with engine.connect() as connection:
            return (await connection.execute(text("SELECT CAST(:i AS int) * 2"), {"i": i})).scalar_one()

    found = await asyncio.gather(*(double(i) for i in range(40)))
    await engine.dispose()
    return {"rows": found}


async def crowd(url: str) -> Any:
    engine = engine_at(url, pool_size=8, max_overflow=0)
    connections = [await engine.connect() for _ in range(8)]
    for connection in connections:
        await connection.rollback()

    async def turns(client: int) -> list[Any]:
        found = []
        for i in range(5):
            async with connections[client].begin():
                found.append((await connections[client].execute(NUMBER, {"i": 100 * client + i})).scalar_one())
        return found

    rows = await asyncio.gather(*(turns(client) for client in range(8)))
    for connection in connections:
        await connection.close()
    await engine.dispose()
    return {"rows": rows}


async def prepared_statements(url: str) -> Any:
    engine = engine_at(url)
    autocommitting = engine.execution_options(isolation_level="AUTOCOMMIT")
    plus, word = text("SELECT CAST(:i AS int) + 1"), text("SELECT 'x' || CAST(:i AS text)")
    async with autocommitting.connect() as one, engine.connect() as other:
        first = [(await one.execute(plus, {"i": i})).scalar_one() for i in range(8)]
        second = [(await other.execute(word, {"i": str(i)})).scalar_one() for i in range(8)]
        first += [(await one.execute(plus, {"i": i})).scalar_one() for i in range(8, 11)]
    await engine.dispose()
    return {"one": first, "other": second}


async def transactions(url: str) -> Any:
    engine = engine_at(url)
    async with engine.begin() as connection:
        await run(connection, f"DROP TABLE IF EXISTS {TABLE}")
        await run(connection, f"CREATE TABLE {TABLE} (a int)")
        await run(connection, f"INSERT INTO {TABLE} VALUES (1)")
    async with engine.connect() as connection:
        await run(connection, f"INSERT INTO {TABLE} VALUES (2)")
        await connection.rollback()
    async with engine.begin() as connection:
        await run(connection, f"INSERT INTO {TABLE} VALUES (3)")
        inner = await connection.begin_nested()
        await run(connection, f"INSERT INTO {TABLE} VALUES (4)")
        await inner.rollback()
    async with engine.begin() as connection:
        found = list((await connection.execute(text(f"SELECT a FROM {TABLE} ORDER BY a"))).scalars())
        await run(connection, f"DROP TABLE {TABLE}")
    await engine.dispose()
    return {"rows": found}


async def errors(url: str) -> Any:
    engine = engine_at(url)
    async with engine.begin() as connection:
        await run(connection, f"DROP TABLE IF EXISTS {TABLE}")
        await run(connection, f"CREATE TABLE {TABLE} (a int PRIMARY KEY)")
    async with engine.connect() as connection:
        unique = await code_of(connection, f"INSERT INTO {TABLE} VALUES (1), (1)")
        aborted = await code_of(connection, "SELECT 1")
        await connection.rollback()
        syntax = await code_of(connection, "SELEC 1")
        await connection.rollback()
        after = (await connection.execute(text("SELECT 1"))).scalar_one()
        await run(connection, f"DROP TABLE {TABLE}")
        await connection.commit()
    await engine.dispose()
    return {"unique": unique, "syntax": syntax, "aborted": aborted, "after": after}


def told(error: BaseException) -> dict[str, Any]:
    """A statement's error comes wrapped; what the driver says while connecting does not."""
    origin = getattr(error, "orig", error)
    return {"code": getattr(origin, "sqlstate", None), "message": str(error), "type": type(error).__name__}


async def refusal_while_full(url: str) -> Any:
    engine = engine_at(url)
    try:
        async with engine.connect() as holder:
            await run(holder, "SELECT 1")
            async with engine.connect() as connection:
                await run(connection, "SELECT 1")
    except Exception as error:
        return told(error)
    finally:
        await engine.dispose()
    return {"code": None}


async def recovery(url: str) -> Any:
    engine, others = engine_at(url, pool_size=1, max_overflow=0), engine_at(url)

    async def ask(i: int) -> Any:
        async with engine.connect() as connection:
            return (await connection.execute(NUMBER, {"i": i})).scalar_one()

    codes = []
    async with others.connect() as holder:
        await run(holder, "SELECT 1")
        for _ in range(2):
            try:
                await ask(0)
            except Exception as error:
                codes.append(told(error)["code"])
    await others.dispose()
    found = [await ask(i) for i in range(5)]
    await engine.dispose()
    return {"refused": len(codes) == 2, "after": found}


refused_begin = recovery  # each statement there is the first of a transaction that the driver begins


if __name__ == "__main__":
    serve(scenarios_of(globals(), NAMES))
