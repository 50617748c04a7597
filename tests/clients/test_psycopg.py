# ruff: noqa: PT012 - the block that fails is what is tested, and it is longer than a statement
"""psycopg 3, synchronous, through the proxy: what a program sees is what the server alone would have shown it."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from tests.clients.ways import Way, same_as_direct

Connection = psycopg.Connection[Any]


def connect(way: Way, **options: Any) -> Connection:
    return psycopg.connect(**way.libpq(**options))


@contextmanager
def table(connection: Connection, name: str, columns: str) -> Iterator[sql.Identifier]:
    """A table for this test; `connection` is in autocommit or the caller commits."""
    identifier = sql.Identifier(name)
    connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(identifier))
    connection.execute(sql.SQL("CREATE TABLE {} (" + columns + ")").format(identifier))
    connection.commit()
    try:
        yield identifier
    finally:
        connection.rollback()
        connection.execute(sql.SQL("DROP TABLE {}").format(identifier))
        connection.commit()


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
    ["a,b", '"', "\\"],
    datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=UTC),
    Jsonb({"a": [1, {"b": None}]}),
)


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_values_of_many_types_travel_unchanged_in_both_directions(way: Way, binary: bool) -> None:
    def work(way: Way) -> Any:
        placeholders = ", ".join(f"%{'b' if binary else 't'}::{kind}" for kind in KINDS)
        with connect(way) as connection:
            cursor = connection.cursor(binary=binary)
            row = cursor.execute(f"SELECT {placeholders}", VALUES).fetchone()
            return row, [(column.type_code, column.name) for column in cursor.description or ()]

    row, _ = same_as_direct(way, work)
    assert row[:-1] == VALUES[:-1]


KINDS = [
    "int",
    "bigint",
    "float8",
    "numeric",
    "text",
    "bytea",
    "text",
    "bool",
    "int[]",
    "text[]",
    "timestamptz",
    "jsonb",
]


def test_statements_prepared_by_the_driver_itself_keep_their_meaning(way: Way) -> None:
    """psycopg prepares what it has executed five times."""

    def work(way: Way) -> Any:
        with connect(way) as connection:
            rows = []
            for i in range(12):
                rows.append(connection.execute("SELECT %s::int * 2, %s::text", (i, f"row {i}")).fetchone())
                connection.commit()
            # One text, whether under the driver's name or one that other clients share.
            own = "statement LIKE 'SELECT $1::int * 2%'"
            count = f"SELECT count(DISTINCT statement) FROM pg_prepared_statements WHERE {own}"
            return rows, connection.execute(count).fetchone()

    rows, prepared = same_as_direct(way, work)
    assert rows == [(2 * i, f"row {i}") for i in range(12)]
    assert prepared == (1,)


def test_connections_that_give_the_same_name_to_different_statements_do_not_mix_them_up(way: Way) -> None:
    """Every psycopg connection calls its first prepared statement _pg3_0."""
    texts = ["SELECT %s::int + 1", "SELECT %s::text || 'x'", "SELECT ARRAY[%s::int, 7]", "SELECT NOT %s::bool"]
    arguments: list[Any] = [1, "a", 2, True]

    def work(way: Way) -> Any:
        connections = [connect(way, autocommit=True, prepare_threshold=0) for _ in texts]
        try:
            return [
                connection.execute(text, (argument,)).fetchone()
                for _ in range(4)
                for connection, text, argument in zip(connections, texts, arguments, strict=True)
            ]
        finally:
            for connection in connections:
                connection.close()

    assert same_as_direct(way, work) == [(2,), ("ax",), ([2, 7],), (False,)] * 4


def test_prepared_statements_are_dropped_when_the_driver_has_too_many(way: Way) -> None:
    def work(way: Way) -> Any:
        with connect(way, autocommit=True, prepare_threshold=0) as connection:
            connection.prepared_max = 2
            rows = [connection.execute(f"SELECT %s + {i % 5}", (i,)).fetchone() for i in range(15)]
            own = "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE '_pg3%'"
            names = connection.execute(own, prepare=False).fetchone()
            assert names is not None
            assert names[0] <= 2
            return rows

    assert same_as_direct(way, work) == [(i + i % 5,) for i in range(15)]


def test_a_changed_table_behind_a_prepared_statement_is_the_same_error(way: Way) -> None:
    def work(way: Way) -> Any:
        with connect(way) as connection, table(connection, "psycopg_changed", "a int") as name:
            query = sql.SQL("SELECT * FROM {}").format(name)
            for _ in range(7):
                connection.execute(query)
            connection.commit()
            with connect(way) as other:  # the driver forgets its statements where it sees an ALTER of its own
                other.execute(sql.SQL("ALTER TABLE {} ADD b text").format(name))
            with pytest.raises(psycopg.errors.FeatureNotSupported) as caught:
                connection.execute(query)
            return str(caught.value)

    assert "cached plan must not change result type" in same_as_direct(way, work)


def test_transactions_commit_roll_back_and_nest(way: Way) -> None:
    def work(way: Way) -> Any:
        with connect(way) as connection, table(connection, "psycopg_nest", "a int PRIMARY KEY") as name:
            insert = sql.SQL("INSERT INTO {} VALUES (%s)").format(name)
            with connection.transaction():
                connection.execute(insert, (1,))
                with pytest.raises(psycopg.errors.UniqueViolation), connection.transaction():
                    connection.execute(insert, (2,))
                    connection.execute(insert, (1,))
                with connection.transaction() as inner:
                    connection.execute(insert, (3,))
                    raise psycopg.Rollback(inner)
            with pytest.raises(ZeroDivisionError), connection.transaction():
                connection.execute(insert, (4,))
                raise ZeroDivisionError
            connection.execute(insert, (5,))
            connection.rollback()
            return connection.execute(sql.SQL("SELECT a FROM {} ORDER BY a").format(name)).fetchall()

    assert same_as_direct(way, work) == [(1,)]


def test_a_failed_transaction_stays_failed_until_it_is_rolled_back(way: Way) -> None:
    def work(way: Way) -> Any:
        seen: list[Any] = []
        with connect(way) as connection:
            for query in ("SELECT 1/0", "SELECT 1", "SELECT 2"):
                with pytest.raises(psycopg.Error) as caught:
                    connection.execute(query)
                seen.append((caught.value.sqlstate, str(caught.value), connection.info.transaction_status.name))
            connection.rollback()
            seen.append((connection.execute("SELECT 3").fetchone(), connection.info.transaction_status.name))
        return seen

    states = [entry[0] for entry in same_as_direct(way, work)]
    assert states == ["22012", "25P02", "25P02", (3,)]


def test_an_error_carries_every_field_the_server_gave_it(way: Way) -> None:
    fields = [
        "severity",
        "sqlstate",
        "message_primary",
        "message_detail",
        "schema_name",
        "table_name",
        "column_name",
        "constraint_name",
    ]

    def work(way: Way) -> Any:
        with connect(way) as connection, table(connection, "psycopg_fields", "a int CHECK (a > 0)") as name:
            with pytest.raises(psycopg.errors.CheckViolation) as caught:
                connection.execute(sql.SQL("INSERT INTO {} VALUES (-1)").format(name))
            diagnostic = caught.value.diag
            return {field: getattr(diagnostic, field) for field in fields}

    assert same_as_direct(way, work)["constraint_name"] == "psycopg_fields_a_check"


def test_server_side_cursors_fetch_in_parts_and_scroll(way: Way) -> None:
    def work(way: Way) -> Any:
        with connect(way) as connection:
            with connection.cursor("forward") as cursor:
                cursor.itersize = 100
                cursor.execute("SELECT g, md5(g::text) FROM generate_series(1, 1000) g")
                total = [row[0] for row in cursor]
            with connection.cursor("scrolling", scrollable=True) as cursor:
                cursor.execute("SELECT g FROM generate_series(1, 50) g")
                cursor.scroll(40)
                ahead = cursor.fetchmany(3)
                cursor.scroll(5, mode="absolute")
                back = cursor.fetchmany(2)
            connection.commit()
        return total, ahead, back

    assert same_as_direct(way, work) == (list(range(1, 1001)), [(41,), (42,), (43,)], [(6,), (7,)])


def test_a_cursor_with_hold_outlives_its_transaction(way: Way) -> None:
    def work(way: Way) -> Any:
        with connect(way) as connection:
            cursor = connection.cursor("held", withhold=True)
            cursor.execute("SELECT g FROM generate_series(1, 5) g")
            first = cursor.fetchmany(2)
            connection.commit()
            rest = cursor.fetchall()
            cursor.close()
            return first, rest

    assert same_as_direct(way, work) == ([(1,), (2,)], [(3,), (4,), (5,)])


def test_rows_are_streamed_one_by_one(way: Way) -> None:
    def work(way: Way) -> Any:
        with connect(way, row_factory=dict_row) as connection:
            stream = connection.cursor().stream("SELECT g, repeat('x', 100) AS pad FROM generate_series(1, 2000) g")
            return sum(row["g"] * len(row["pad"]) for row in stream)

    assert same_as_direct(way, work) == 2000 * 2001 // 2 * 100


def test_large_results_and_large_parameters_arrive_whole(way: Way) -> None:
    payload = bytes(range(256)) * 16_384  # 4 MiB

    def work(way: Way) -> Any:
        with connect(way) as connection:
            digest = hashlib.sha256()
            for row in connection.execute("SELECT g, repeat(g::text, 20) FROM generate_series(1, 40000) g"):
                digest.update(repr(row).encode())
            echoed = connection.execute("SELECT %b::bytea, length(%s)", (payload, "x" * 3_000_000)).fetchone()
            assert echoed is not None
            return digest.hexdigest(), hashlib.sha256(echoed[0]).hexdigest(), echoed[1]

    assert same_as_direct(way, work)[1:] == (hashlib.sha256(payload).hexdigest(), 3_000_000)


# -- COPY


@pytest.mark.parametrize("form", ["TEXT", "BINARY"])
def test_copy_in_and_out_carries_the_same_bytes(way: Way, form: str) -> None:
    rows = [(i, f"line {i}\twith\\odd 'characters'\n", None if i % 7 else "x" * 500) for i in range(3000)]

    def work(way: Way) -> Any:
        columns = "a int, b text, c text"
        with connect(way) as connection, table(connection, "psycopg_copy", columns) as name:
            with connection.cursor().copy(sql.SQL("COPY {} FROM STDIN (FORMAT " + form + ")").format(name)) as copy:
                copy.set_types(["int4", "text", "text"])
                for row in rows:
                    copy.write_row(row)
            connection.commit()
            digest = hashlib.sha256()
            with connection.cursor().copy(sql.SQL("COPY {} TO STDOUT (FORMAT " + form + ")").format(name)) as copy:
                for chunk in copy:
                    digest.update(chunk)
            return digest.hexdigest(), connection.execute(
                sql.SQL("SELECT * FROM {} ORDER BY a").format(name)
            ).fetchall()

    assert same_as_direct(way, work)[1] == rows


def test_a_copy_that_the_server_refuses_leaves_the_connection_usable(way: Way) -> None:
    def work(way: Way) -> Any:
        with connect(way, autocommit=True) as connection, table(connection, "psycopg_bad_copy", "a int UNIQUE") as name:
            into = sql.SQL("COPY {} FROM STDIN").format(name)
            with pytest.raises(psycopg.errors.UniqueViolation), connection.cursor().copy(into) as copy:
                for i in [*range(20_000), 5, *range(20_000, 40_000)]:
                    copy.write(f"{i}\n")
            with pytest.raises(psycopg.errors.InvalidTextRepresentation), connection.cursor().copy(into) as copy:
                copy.write("no number\n" + "1\n" * 50_000)
            return connection.execute(sql.SQL("SELECT count(*) FROM {}").format(name)).fetchone()

    assert same_as_direct(way, work) == (0,)


def test_a_copy_that_the_program_gives_up_leaves_nothing(way: Way) -> None:
    def work(way: Way) -> Any:
        with connect(way, autocommit=True) as connection, table(connection, "psycopg_left_copy", "a int") as name:
            into = sql.SQL("COPY {} FROM STDIN").format(name)
            with pytest.raises(KeyError), connection.cursor().copy(into) as copy:
                copy.write("1\n")
                raise KeyError
            out = "COPY (SELECT generate_series(1, 1000000)) TO STDOUT"
            with pytest.raises(KeyError), connection.cursor().copy(out) as copy:
                copy.read()
                raise KeyError
            return connection.execute(sql.SQL("SELECT count(*) FROM {}").format(name)).fetchone()

    assert same_as_direct(way, work) == (0,)


# -- pipelines


def test_a_pipeline_returns_its_results_in_order(way: Way) -> None:
    def work(way: Way) -> Any:
        with connect(way, autocommit=True) as connection, connection.pipeline() as pipeline:
            cursors = [connection.execute("SELECT %s::int, repeat('y', %s)", (i, i)) for i in range(50)]
            pipeline.sync()
            cursors += [connection.execute("SELECT %s::int, ''", (i,)) for i in range(50, 100)]
            return [cursor.fetchone() for cursor in cursors]

    assert [row[0] for row in same_as_direct(way, work)] == list(range(100))


def test_an_error_in_a_pipeline_aborts_it_up_to_the_next_sync_and_no_further(way: Way) -> None:
    def work(way: Way) -> Any:
        with connect(way, autocommit=True) as connection, table(connection, "psycopg_pipeline", "a int") as name:
            insert = sql.SQL("INSERT INTO {} VALUES (%s)").format(name)
            with pytest.raises(psycopg.errors.DivisionByZero), connection.pipeline() as pipeline:
                connection.execute(insert, (1,))
                pipeline.sync()
                connection.execute(insert, (2,))
                connection.execute("SELECT 1/%s", (0,))
                connection.execute(insert, (3,))
            with connection.pipeline():
                connection.execute(insert, (4,))
            return connection.execute(sql.SQL("SELECT a FROM {} ORDER BY a").format(name)).fetchall()

    assert same_as_direct(way, work) == [(1,), (4,)]


def test_executemany_returns_every_result(way: Way) -> None:
    def work(way: Way) -> Any:
        with connect(way) as connection, table(connection, "psycopg_many", "a int, b text") as name:
            cursor = connection.cursor()
            insert = sql.SQL("INSERT INTO {} VALUES (%s, %s) RETURNING a").format(name)
            cursor.executemany(insert, [(i, str(i)) for i in range(200)], returning=True)
            returned = [result.fetchone() for result in cursor.results()]
            connection.commit()
            return returned, connection.execute(sql.SQL("SELECT sum(a) FROM {}").format(name)).fetchone()

    returned, total = same_as_direct(way, work)
    assert (returned, total) == ([(i,) for i in range(200)], (19_900,))


# -- what the server says by itself


def test_notices_arrive_with_their_statement(way: Way) -> None:
    def work(way: Way) -> Any:
        notices: list[Any] = []
        with connect(way) as connection:
            connection.add_notice_handler(lambda d: notices.append((d.severity, d.sqlstate, d.message_primary)))
            connection.execute("DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two' USING ERRCODE = '01P99'; END $$")
            connection.execute("DROP TABLE IF EXISTS there_is_no_such_table")
        return notices

    assert [notice[2] for notice in same_as_direct(way, work)][:2] == ["one", "two"]


def test_a_listener_is_told_what_others_notify(way: Way) -> None:
    def work(way: Way) -> Any:
        with connect(way, autocommit=True) as listener, connect(way, autocommit=True) as other:
            listener.execute("LISTEN psycopg_news")
            other.execute("NOTIFY psycopg_news, 'first'")
            other.execute("SELECT pg_notify('psycopg_news', %s)", ("second ✓",))
            told = [n.payload for n in listener.notifies(timeout=20, stop_after=2)]
            listener.execute("UNLISTEN *")
            other.execute("NOTIFY psycopg_news, 'nobody hears this'")
            return told, list(listener.notifies(timeout=0.1)), listener.execute("SELECT 1").fetchone()

    assert same_as_direct(way, work) == (["first", "second ✓"], [], (1,))


# -- cancel


def test_cancel_stops_the_running_query_and_nothing_else(way: Way) -> None:
    def work(way: Way) -> Any:
        with connect(way, autocommit=True) as connection, connect(way, autocommit=True) as bystander:
            timer = threading.Timer(0.1, connection.cancel_safe)
            timer.start()
            with pytest.raises(psycopg.errors.QueryCanceled) as caught:
                connection.execute("SELECT pg_sleep(30)")
            timer.join()
            undisturbed = [bystander.execute("SELECT pg_sleep(0.01), %s", (i,)).fetchone() for i in range(10)]
            return str(caught.value), undisturbed, connection.execute("SELECT 'usable'").fetchone()

    assert same_as_direct(way, work)[0] == "canceling statement due to user request"


def test_cancel_of_an_idle_connection_hits_nobody(way: Way) -> None:
    def work(way: Way) -> Any:
        with connect(way, autocommit=True) as connection, connect(way, autocommit=True) as bystander:
            connection.execute("SELECT 1")
            connection.cancel_safe()
            return [c.execute("SELECT pg_sleep(0.05), 2").fetchone() for c in (bystander, connection)]

    assert same_as_direct(way, work) == [("", 2), ("", 2)]


# -- session state


def test_parameters_follow_their_connection_and_no_other(way: Way) -> None:
    names = ("TimeZone", "DateStyle", "work_mem")
    show = "SELECT " + ", ".join(f"current_setting('{name}')" for name in names) + ", '2024-02-29'::date"

    def work(way: Way) -> Any:
        with (
            connect(way, autocommit=True, options="-c TimeZone=Asia/Tokyo -c work_mem=7MB") as tokyo,
            connect(way, autocommit=True) as plain,
            connect(way, autocommit=True) as changing,
        ):
            changing.execute("SET DateStyle = 'German, DMY'")
            changing.execute("SET TIME ZONE 'America/Lima'")
            seen = []
            for _ in range(3):
                seen += [c.cursor(binary=False).execute(show).fetchone() for c in (tokyo, plain, changing)]
            changing.execute("RESET ALL")
            tokyo.execute("RESET TimeZone")
            seen += [c.execute(show).fetchone() for c in (tokyo, plain, changing)]
            return seen, [c.info.timezone.key for c in (tokyo, plain, changing)]  # type: ignore[attr-defined]

    seen, _ = same_as_direct(way, work)
    assert [row[0] for row in seen[:3]] == ["Asia/Tokyo", seen[1][0], "America/Lima"]


RESETS = ("RESET work_mem", "RESET TimeZone", "RESET ALL", "DISCARD ALL", "SET work_mem TO DEFAULT")


def test_a_reset_leads_back_to_where_the_connection_started(way: Way) -> None:
    """And the next client that starts with the same finds it. A RESET of what the server does not report went unseen
    once: the server connection passed on without the value, still held to be one that has it."""
    options = "-c TimeZone=Asia/Tokyo -c work_mem=7MB -c search_path=pg_catalog"

    def shown(connection: Connection) -> list[Any]:
        names = ("TimeZone", "work_mem", "search_path", "application_name")
        return [connection.execute(f"SHOW {name}").fetchone() for name in names]

    def work(way: Way) -> Any:
        seen = {}
        for reset in RESETS:
            with connect(way, autocommit=True, options=options) as connection:
                connection.execute("SET TimeZone = 'UTC'")
                connection.execute(reset)
                own = shown(connection)
            with connect(way, autocommit=True, options=options) as connection:
                seen[reset] = own, shown(connection), connection.info.parameter_status("TimeZone")
        return seen

    seen = same_as_direct(way, work)
    assert [own[1:3] for own, *_ in seen.values()] == [[("7MB",), ("pg_catalog",)]] * len(RESETS)


@pytest.mark.parametrize("ending", ["commit", "rollback"])
def test_a_reset_in_a_transaction_ends_with_it(way: Way, ending: str) -> None:
    def work(way: Way) -> Any:
        with connect(way, options="-c TimeZone=Asia/Tokyo") as connection:
            connection.execute("SET TimeZone = 'America/Lima'")
            connection.commit()
            connection.execute("RESET TimeZone")
            during = connection.execute("SHOW TimeZone").fetchone()
            getattr(connection, ending)()
            return during, connection.execute("SHOW TimeZone").fetchone(), connection.info.parameter_status("TimeZone")

    assert same_as_direct(way, work)[0] == ("Asia/Tokyo",)


def test_what_is_sent_before_a_reset_is_answered_does_not_end_the_connection(way: Way) -> None:
    """The proxy's own SET had to go ahead of everything else; it met what was under way already, and that was the end
    of the connection. Now it waits. What was under way meanwhile still runs under the server's own value."""

    def work(way: Way) -> Any:
        with connect(way, autocommit=True, options="-c TimeZone=Asia/Tokyo") as connection:
            connection.execute("SET TimeZone = 'UTC'")
            pipeline = connection.pgconn
            pipeline.enter_pipeline_mode()
            for batch in ([b"SELECT pg_sleep(0.1)", b"RESET TimeZone"], [b"SELECT 'more'"]):
                for query in batch:
                    pipeline.send_query_params(query, None)
                pipeline.pipeline_sync()
                pipeline.flush()
            values = results_of_pipeline(pipeline, syncs=2)
            pipeline.exit_pipeline_mode()
            return values, connection.execute("SHOW TimeZone").fetchone()

    assert same_as_direct(way, work) == ([b"", b"more"], ("Asia/Tokyo",))


def results_of_pipeline(connection: psycopg.pq.abc.PGconn, *, syncs: int) -> list[bytes | None]:
    """The first value of every result with rows, up to the answer to so many Syncs."""
    values = []
    while syncs:
        result = connection.get_result()
        assert connection.status == psycopg.pq.ConnStatus.OK, connection.error_message
        if result is not None and result.status == psycopg.pq.ExecStatus.TUPLES_OK:
            values.append(result.get_value(0, 0))
        elif result is not None and result.status == psycopg.pq.ExecStatus.PIPELINE_SYNC:
            syncs -= 1
    return values


def test_a_reset_gives_the_slot_back(transaction_way: Way) -> None:
    """RESET puts back what the client started with, and the proxy's own SET for that is the last thing to be answered.
    It once ended nothing: the idle client kept its slot until its next statement."""
    with connect(transaction_way, autocommit=True, options="-c TimeZone=Asia/Tokyo") as connection:
        connection.execute("RESET TimeZone")
        transaction_way.until_no_slot_is_used()
        assert connection.execute("SHOW TimeZone").fetchone() == ("Asia/Tokyo",)


def test_the_encoding_of_a_client_is_its_own(way: Way) -> None:
    def work(way: Way) -> Any:
        with connect(way, client_encoding="latin1") as latin, connect(way) as unicode:
            query = "SELECT 'é'::text, %s::text, octet_length(%s::text)"
            return [c.execute(query, ("ü", "ü")).fetchone() for c in (latin, unicode, latin)], latin.info.encoding

    assert same_as_direct(way, work) == ([("é", "ü", 2)] * 3, "iso8859-1")


def test_a_temporary_table_stays_with_its_connection(way: Way) -> None:
    def work(way: Way) -> Any:
        with connect(way, autocommit=True) as one, connect(way, autocommit=True) as two:
            for number, connection in enumerate((one, two)):
                connection.execute("CREATE TEMP TABLE psycopg_temp (a int)")
                connection.execute("INSERT INTO psycopg_temp VALUES (%s)", (number,))
            return [c.execute("SELECT a FROM psycopg_temp").fetchall() for c in (one, two)]

    assert same_as_direct(way, work) == [[(0,)], [(1,)]]


def test_a_session_lock_is_held_until_its_owner_leaves(way: Way) -> None:
    key = 7_654_321

    def work(way: Way) -> Any:
        with connect(way, autocommit=True) as other:
            with connect(way, autocommit=True) as owner:
                owner.execute("SELECT pg_advisory_lock(%s)", (key,))
                refused = other.execute("SELECT pg_try_advisory_lock(%s)", (key,)).fetchone()
            other.execute("SET lock_timeout = '20s'")
            other.execute("SELECT pg_advisory_lock(%s)", (key,))
            return refused, other.execute("SELECT pg_advisory_unlock(%s)", (key,)).fetchone()

    assert same_as_direct(way, work) == ((False,), (True,))


def test_the_driver_is_told_what_the_server_is(way: Way) -> None:
    parameters = [
        "server_version",
        "server_encoding",
        "client_encoding",
        "application_name",
        "is_superuser",
        "session_authorization",
        "DateStyle",
        "IntervalStyle",
        "TimeZone",
        "integer_datetimes",
        "standard_conforming_strings",
        "in_hot_standby",
    ]

    def work(way: Way) -> Any:
        with connect(way) as connection:
            told = {name: connection.info.parameter_status(name) for name in parameters}
            return told, connection.info.server_version, connection.info.dbname, connection.info.user

    told, *_ = same_as_direct(way, work)
    assert told["application_name"] == way.application_name


def test_a_pool_of_clients_wider_than_the_limit_takes_turns(transaction_way: Way) -> None:
    """Thirty connections share twelve slots; a dozen threads never meet an error."""
    connections = [connect(transaction_way, prepare_threshold=None) for _ in range(30)]
    results: list[list[Any]] = [[] for _ in connections]

    def use(index: int) -> None:
        for i in range(10):
            with connections[index].transaction():
                results[index].append(connections[index].execute("SELECT %s::int", (index * 100 + i,)).fetchone())

    threads = [threading.Thread(target=use, args=(index,)) for index in range(len(connections))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for connection in connections:
        connection.close()
    assert results == [[(index * 100 + i,) for i in range(10)] for index in range(len(connections))]
