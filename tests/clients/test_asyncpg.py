# ruff: noqa: PT012 - the block that fails is what is tested, and it is longer than a statement
"""asyncpg through the proxy. It prepares everything by name, introspects types and speaks binary throughout."""

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from tests.clients.ways import Way, same_as_direct_async

Connection = Any  # asyncpg carries no types


@asynccontextmanager
async def connected(way: Way, **options: Any) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(**way.asyncpg(**options))
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def table(connection: Connection, name: str, columns: str) -> AsyncIterator[str]:
    await connection.execute(f"DROP TABLE IF EXISTS {name}; CREATE TABLE {name} ({columns})")
    try:
        yield name
    finally:
        await connection.execute(f"DROP TABLE {name}")


def plain(rows: Any) -> Any:
    """Records as tuples."""
    return [tuple(row) for row in rows]


VALUES = (
    42,
    -(2**62),
    1.5,
    Decimal("12345678901234567890.123456789"),
    "naïve ✓ 'quoted' \\ backslash",
    b"\x00\xff\\binary",
    None,
    True,
    [1, None, 3],
    datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=UTC),
    UUID("00112233-4455-6677-8899-aabbccddeeff"),
)
KINDS = ["int", "bigint", "float8", "numeric", "text", "bytea", "text", "bool", "int[]", "timestamptz", "uuid"]


async def test_values_of_many_types_travel_unchanged(way: Way) -> None:
    query = "SELECT " + ", ".join(f"${number}::{kind}" for number, kind in enumerate(KINDS, 1))

    async def work(way: Way) -> Any:
        async with connected(way) as connection:
            return tuple(await connection.fetchrow(query, *VALUES))

    assert await same_as_direct_async(way, work) == VALUES


async def test_fetch_in_every_shape(way: Way) -> None:
    async def work(way: Way) -> Any:
        async with connected(way) as connection:
            many = await connection.fetch("SELECT g, md5(g::text) FROM generate_series(1, $1) g", 5000)
            digest = hashlib.sha256(repr(plain(many)).encode()).hexdigest()
            status = await connection.execute("SELECT 1; SELECT 2")
            return digest, await connection.fetchval("SELECT $1::text", "x" * 2_000_000), status

    _, echoed, _ = await same_as_direct_async(way, work)
    assert echoed == "x" * 2_000_000


async def test_types_that_must_be_looked_up_in_the_catalog(way: Way) -> None:
    """Composite, enum and range types need asyncpg's introspection queries, which are long prepared statements."""

    async def work(way: Way) -> Any:
        async with connected(way) as connection:
            await connection.execute("DROP TYPE IF EXISTS asyncpg_mood, asyncpg_pair CASCADE")
            await connection.execute("CREATE TYPE asyncpg_mood AS ENUM ('low', 'high')")
            await connection.execute("CREATE TYPE asyncpg_pair AS (a int, m asyncpg_mood)")
            value = await connection.fetchval("SELECT ARRAY[(1, 'low'), (2, 'high')]::asyncpg_pair[]")
            moods = await connection.fetchval("SELECT $1::asyncpg_mood[]", ["high", "low"])
            await connection.execute("DROP TYPE asyncpg_mood, asyncpg_pair")
            return plain(value), moods

    assert await same_as_direct_async(way, work) == ([(1, "low"), (2, "high")], ["high", "low"])


async def test_prepared_statements_keep_their_meaning_across_connections(way: Way) -> None:
    """Every asyncpg connection names its statements __asyncpg_stmt_1__ and so on."""
    texts = ["SELECT $1::int + 1", "SELECT $1::int * 10", "SELECT ARRAY[$1::int]", "SELECT $1::int > 3"]

    async def work(way: Way) -> Any:
        connections = [await asyncpg.connect(**way.asyncpg()) for _ in texts]
        try:
            statements = [await c.prepare(text) for c, text in zip(connections, texts, strict=True)]
            return [[await s.fetchval(i) for s in statements] for i in range(5)]
        finally:
            await asyncio.gather(*(connection.close() for connection in connections))

    assert await same_as_direct_async(way, work) == [[i + 1, i * 10, [i], i > 3] for i in range(5)]


async def test_a_prepared_statement_knows_its_parameters_and_columns(way: Way) -> None:
    async def work(way: Way) -> Any:
        async with connected(way) as connection:
            statement = await connection.prepare("SELECT $1::int AS a, $2::text AS b")
            shape = [p.name for p in statement.get_parameters()], [a.name for a in statement.get_attributes()]
            rows = [tuple(await statement.fetchrow(i, str(i))) for i in range(3)]
            plan = await statement.explain(1, "x")
            return shape, rows, plan[0]["Plan"]["Node Type"]

    assert (await same_as_direct_async(way, work))[0] == (["int4", "text"], ["a", "b"])


async def test_without_a_statement_cache_nothing_stays_prepared(way: Way) -> None:
    """The setting people use with transaction pooling elsewhere works here too."""

    async def work(way: Way) -> Any:
        async with connected(way, statement_cache_size=0) as connection:
            rows = [await connection.fetchval("SELECT $1::int", i) for i in range(5)]
            return rows, await connection.fetchval(
                "SELECT count(*) FROM pg_prepared_statements WHERE name !~ '^(pgheadroom_.*)?$'"
            )

    assert (await same_as_direct_async(way, work))[0] == list(range(5))


async def test_executemany_is_one_transaction(way: Way) -> None:
    async def work(way: Way) -> Any:
        async with connected(way) as connection, table(connection, "asyncpg_many", "a int PRIMARY KEY, b text") as name:
            insert = f"INSERT INTO {name} VALUES ($1, $2)"
            await connection.executemany(insert, [(i, f"row {i}") for i in range(2000)])
            with pytest.raises(asyncpg.UniqueViolationError) as caught:
                await connection.executemany(insert, [(5000, "new"), (7, "there is one")])
            return caught.value.detail, tuple(await connection.fetchrow(f"SELECT count(*), sum(a) FROM {name}"))

    assert await same_as_direct_async(way, work) == ("Key (a)=(7) already exists.", (2000, 1_999_000))


async def test_transactions_nest_by_savepoints(way: Way) -> None:
    async def work(way: Way) -> Any:
        async with connected(way) as connection, table(connection, "asyncpg_nest", "a int PRIMARY KEY") as name:
            insert = f"INSERT INTO {name} VALUES ($1)"
            async with connection.transaction(isolation="serializable"):
                await connection.execute(insert, 1)
                with pytest.raises(asyncpg.UniqueViolationError):
                    async with connection.transaction():
                        await connection.execute(insert, 2)
                        await connection.execute(insert, 1)
                async with connection.transaction():
                    await connection.execute(insert, 3)
                level = await connection.fetchval("SHOW transaction_isolation")
            with pytest.raises(KeyError):
                async with connection.transaction():
                    await connection.execute(insert, 4)
                    raise KeyError
            return level, plain(await connection.fetch(f"SELECT a FROM {name} ORDER BY a"))

    assert await same_as_direct_async(way, work) == ("serializable", [(1,), (3,)])


async def test_a_cursor_fetches_in_parts(way: Way) -> None:
    async def work(way: Way) -> Any:
        async with connected(way) as connection, connection.transaction(readonly=True):
            query = "SELECT g FROM generate_series(1, 1000) g"
            rows = [row[0] async for row in connection.cursor(query, prefetch=33)]
            cursor = await connection.cursor(query)
            await cursor.forward(500)
            return rows, plain(await cursor.fetch(2))

    assert await same_as_direct_async(way, work) == (list(range(1, 1001)), [(501,), (502,)])


async def test_copy_in_and_out(way: Way) -> None:
    rows = [(i, None if i % 5 else f"text\t{i}\n", i / 4) for i in range(20_000)]

    async def work(way: Way) -> Any:
        columns = "a int, b text, c float8"
        async with connected(way) as connection, table(connection, "asyncpg_copy", columns) as name:
            tag = await connection.copy_records_to_table(name, records=rows)
            out = io.BytesIO()
            await connection.copy_from_query(f"SELECT * FROM {name} WHERE a % $1 = 0", 2, output=out, format="csv")
            back = await connection.copy_to_table(name, source=io.BytesIO(out.getvalue()), format="csv")
            total = tuple(await connection.fetchrow(f"SELECT count(*), count(b), sum(c) FROM {name}"))
            return tag, back, hashlib.sha256(out.getvalue()).hexdigest(), total

    tag, back, _, total = await same_as_direct_async(way, work)
    assert (tag, back, total[0]) == ("COPY 20000", "COPY 10000", 30_000)


async def test_a_copy_that_fails_half_way_leaves_the_connection_usable(way: Way) -> None:
    async def source() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b"1\n" * 10_000
        raise KeyError

    async def work(way: Way) -> Any:
        async with connected(way) as connection, table(connection, "asyncpg_bad_copy", "a int") as name:
            with pytest.raises(KeyError):
                await connection.copy_to_table(name, source=source())
            with pytest.raises(asyncpg.InvalidTextRepresentationError):
                await connection.copy_to_table(name, source=io.BytesIO(b"no number\n" + b"1\n" * 100_000))
            return await connection.fetchval(f"SELECT count(*) FROM {name}")

    assert await same_as_direct_async(way, work) == 0


async def test_a_listener_is_called_until_it_is_removed(way: Way) -> None:
    async def work(way: Way) -> Any:
        heard: asyncio.Queue[str] = asyncio.Queue()

        def listener(_: Any, __: int, channel: str, payload: str) -> None:
            heard.put_nowait(f"{channel}: {payload}")

        async with connected(way) as connection, connected(way) as other:
            await connection.add_listener("asyncpg_news", listener)
            await other.execute("SELECT pg_notify('asyncpg_news', 'one'), pg_notify('asyncpg_news', 'two')")
            told = [await asyncio.wait_for(heard.get(), 20) for _ in range(2)]
            await connection.remove_listener("asyncpg_news", listener)
            await other.execute("NOTIFY asyncpg_news, 'three'")
            return told, await connection.fetchval("SELECT 1"), heard.empty()

    assert await same_as_direct_async(way, work) == (["asyncpg_news: one", "asyncpg_news: two"], 1, True)


async def test_a_timeout_cancels_the_statement_on_the_server(way: Way) -> None:
    async def work(way: Way) -> Any:
        async with connected(way) as connection, connected(way) as watcher:
            pid = connection.get_server_pid()
            with pytest.raises(TimeoutError):
                await connection.fetch("SELECT pg_sleep(30), 'asyncpg timeout'", timeout=0.1)
            alive = await connection.fetchval("SELECT 'alive'")
            running = await watcher.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE $1 AND pid <> $2",
                "%'asyncpg timeout'%",
                pid,
            )
            return alive, running - 1  # the watcher's own parameter does not show; its query text does

    alive, _ = await same_as_direct_async(way, work)
    assert alive == "alive"


async def test_the_servers_own_statement_timeout_arrives_as_such(way: Way) -> None:
    async def work(way: Way) -> Any:
        async with connected(way, server_settings={"statement_timeout": "100"}) as connection:
            with pytest.raises(asyncpg.QueryCanceledError) as caught:
                await connection.fetch("SELECT pg_sleep(30)")
            async with connection.transaction():
                await connection.execute("SET LOCAL statement_timeout = 0")
                slow = await connection.fetchval("SELECT pg_sleep(0.2) IS NULL")
            return str(caught.value), slow, await connection.fetchval("SHOW statement_timeout")

    assert await same_as_direct_async(way, work) == (
        "canceling statement due to statement timeout",
        False,
        "100ms",
    )


async def test_a_pool_resets_its_connections_between_their_users(way: Way) -> None:
    async def work(way: Way) -> Any:
        async with asyncpg.create_pool(**way.asyncpg(min_size=1, max_size=1)) as pool:
            async with pool.acquire() as connection:
                await connection.execute("SET work_mem = '7MB'; SET TimeZone = 'Asia/Tokyo'")
                await connection.execute("LISTEN asyncpg_pool; SELECT pg_advisory_lock(8877)")
                during = await connection.fetchval("SHOW work_mem"), await connection.fetchval("SHOW TimeZone")
            async with pool.acquire() as connection:
                after = await connection.fetchval("SHOW work_mem"), await connection.fetchval("SHOW TimeZone")
                locks = await connection.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
                return during, after, locks, await connection.fetch("SELECT * FROM pg_listening_channels()")

    during, after, locks, channels = await same_as_direct_async(way, work)
    assert during == ("7MB", "Asia/Tokyo")
    assert (after[0], locks, channels) == ("4MB", 0, [])


async def test_a_pool_wider_than_the_class_takes_turns(transaction_way: Way) -> None:
    async with asyncpg.create_pool(**transaction_way.asyncpg(min_size=0, max_size=30, statement_cache_size=0)) as pool:

        async def use(number: int) -> int:
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute("SELECT pg_sleep(0.002)")
                value: int = await connection.fetchval("SELECT $1::int", number)
                return value

        assert await asyncio.gather(*(use(number) for number in range(200))) == list(range(200))


async def test_notices_reach_the_log_listener(way: Way) -> None:
    async def work(way: Way) -> Any:
        said: list[tuple[str, str]] = []
        async with connected(way) as connection:
            connection.add_log_listener(lambda _, message: said.append((message.severity, message.message)))
            await connection.execute("DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two'; END $$")
            await asyncio.sleep(0)  # listeners are called soon, not at once
        return said

    assert await same_as_direct_async(way, work) == [("NOTICE", "one"), ("WARNING", "two")]
