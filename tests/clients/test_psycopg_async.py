"""psycopg 3, asynchronous, through the proxy: many coroutines, each on its own connection, never on another's."""

import asyncio
from typing import Any

import psycopg
import pytest

from tests.clients.ways import Way, same_as_direct_async

Connection = psycopg.AsyncConnection[Any]


async def connect(way: Way, **options: Any) -> Connection:
    return await psycopg.AsyncConnection.connect(**way.libpq(**options))


async def test_concurrent_transactions_see_only_their_own_rows(way: Way) -> None:
    async def one(way: Way, number: int) -> list[Any]:
        async with await connect(way, prepare_threshold=2) as connection:
            rows = []
            for i in range(6):
                async with connection.transaction():
                    await connection.execute("SELECT set_config('app.number', %s, true)", (str(number),))
                    cursor = await connection.execute("SELECT current_setting('app.number'), %s::int", (i,))
                    rows.append(await cursor.fetchone())
            return rows

    async def work(way: Way) -> Any:
        return await asyncio.gather(*(one(way, number) for number in range(10)))

    assert await same_as_direct_async(way, work) == [[(str(n), i) for i in range(6)] for n in range(10)]


async def test_a_cancelled_coroutine_cancels_its_query_and_the_connection_lives_on(way: Way) -> None:
    async def work(way: Way) -> Any:
        async with await connect(way, autocommit=True) as connection:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await connection.execute("SELECT pg_sleep(30)")
            return await (await connection.execute("SELECT 'alive'")).fetchone()

    assert await same_as_direct_async(way, work) == ("alive",)


async def test_notifications_reach_an_idle_listener(way: Way) -> None:
    async def work(way: Way) -> Any:
        async with await connect(way, autocommit=True) as listener, await connect(way) as other:
            await listener.execute("LISTEN psycopg_async_news")

            async def listen() -> list[str]:
                return [n.payload async for n in listener.notifies(timeout=20, stop_after=1)]

            told = asyncio.ensure_future(listen())
            await asyncio.sleep(0)
            async with other.transaction():
                await other.execute("NOTIFY psycopg_async_news, 'committed'")
            return await told

    assert await same_as_direct_async(way, work) == ["committed"]


async def test_pipeline_copy_and_cursor_work_on_one_connection(way: Way) -> None:
    async def work(way: Way) -> Any:
        async with await connect(way) as connection:
            await connection.execute("CREATE TEMP TABLE psycopg_async (a int) ON COMMIT DROP")
            async with connection.pipeline():
                for i in range(100):
                    await connection.execute("INSERT INTO psycopg_async VALUES (%s)", (i,))
            async with connection.cursor().copy("COPY psycopg_async FROM STDIN") as copy_in:
                for i in range(100, 1000):
                    await copy_in.write_row((i,))
            async with connection.cursor("part") as cursor:
                await cursor.execute("SELECT a FROM psycopg_async ORDER BY a")
                rows = [row[0] async for row in cursor]
            async with connection.cursor().copy("COPY psycopg_async TO STDOUT") as copy_out:
                copied = [row[0] async for row in copy_out.rows()]
            return rows, len(copied)

    assert await same_as_direct_async(way, work) == (list(range(1000)), 1000)
