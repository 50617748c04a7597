"""psycopg 3 with its pool. It prepares by itself what it has executed five times."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool

from tests.clients.python.program import NAMES, scenarios_of, serve

TABLE = "scenario_psycopg"


def version(_: str) -> Any:
    return {"driver": psycopg.__version__}


def connect(url: str, *, autocommit: bool = True) -> psycopg.Connection[Any]:
    return psycopg.connect(url, autocommit=autocommit)


def value(connection: psycopg.Connection[Any], query: str, *arguments: Any) -> Any:
    row = connection.execute(query, arguments or None).fetchone()  # type: ignore[call-overload]
    return row[0]


def code_of(connection: psycopg.Connection[Any], query: str) -> str | None:
    try:
        connection.execute(query)  # type: ignore[call-overload]
    except psycopg.Error as error:
        return error.sqlstate
    return None


def connect_by_url(url: str) -> Any:
    with connect(url) as connection:
        query = "SELECT current_setting('application_name'), current_database(), current_user, 42"
        found = connection.execute(query).fetchone()
    return dict(zip(("application_name", "database", "user", "answer"), found or (), strict=True))


def pool(url: str) -> Any:
    with ConnectionPool(url, min_size=0, max_size=5) as shared, ThreadPoolExecutor(20) as executor:

        def double(i: int) -> Any:
            with shared.connection() as connection:
                return value(connection, "SELECT %s::int * 2", i)

        return {"rows": list(executor.map(double, range(40)))}


def crowd(url: str) -> Any:
    with ConnectionPool(url, min_size=8, max_size=8) as shared, ThreadPoolExecutor(8) as executor:
        shared.wait()

        def turns(client: int) -> Any:
            with shared.connection() as connection:
                found = []
                for i in range(5):
                    with connection.transaction():
                        for _ in range(2):
                            last = value(connection, "SELECT %s::int", 100 * client + i)
                        found.append(last)
                return found

        return {"rows": list(executor.map(turns, range(8)))}


def prepared_statements(url: str) -> Any:
    with connect(url) as one, connect(url, autocommit=False) as other:
        first = [value(one, "SELECT %s::int + 1", i) for i in range(8)]
        second = [value(other, "SELECT 'x' || %s::text", str(i)) for i in range(8)]
        first += [value(one, "SELECT %s::int + 1", i) for i in range(8, 11)]
        other.commit()
    return {"one": first, "other": second}


def transactions(url: str) -> Any:
    with connect(url) as connection:
        connection.execute(f"DROP TABLE IF EXISTS {TABLE}; CREATE TABLE {TABLE} (a int)")
        with connection.transaction():
            connection.execute(f"INSERT INTO {TABLE} VALUES (1)")
        with connection.transaction() as outer:
            connection.execute(f"INSERT INTO {TABLE} VALUES (2)")
            raise_out_of(outer)
        with connection.transaction():
            connection.execute(f"INSERT INTO {TABLE} VALUES (3)")
            with connection.transaction() as inner:
                connection.execute(f"INSERT INTO {TABLE} VALUES (4)")
                raise_out_of(inner)
        found = [row[0] for row in connection.execute(f"SELECT a FROM {TABLE} ORDER BY a")]
        connection.execute(f"DROP TABLE {TABLE}")
    return {"rows": found}


def raise_out_of(block: psycopg.Transaction) -> None:
    raise psycopg.Rollback(block)


def copy_in(url: str) -> Any:
    with connect(url) as connection:
        connection.execute(f"DROP TABLE IF EXISTS {TABLE}; CREATE TABLE {TABLE} (a int, b text)")
        with connection.cursor().copy(f"COPY {TABLE} FROM STDIN") as copy:
            for i in range(1, 1001):
                copy.write_row((i, f"row {i}"))
        found = connection.execute(f"SELECT count(*), sum(a) FROM {TABLE}").fetchone() or ()
        connection.execute(f"DROP TABLE {TABLE}")
    return {"count": found[0], "sum": found[1]}


def copy_out(url: str) -> Any:
    query = "COPY (SELECT g, 'row ' || g FROM generate_series(1, 1000) g) TO STDOUT CSV"
    with connect(url) as connection, connection.cursor().copy(query) as copy:
        lines = b"".join(copy).decode().splitlines()
    return {"count": len(lines), "last": lines[-1]}


def listen(url: str) -> Any:
    with connect(url) as listener, connect(url) as other:
        listener.execute("LISTEN scenario_psycopg")
        for payload in ("one", "two"):
            other.execute("SELECT pg_notify('scenario_psycopg', %s)", (payload,))
        return {"heard": [notify.payload for notify in listener.notifies(timeout=3, stop_after=2)]}


def cancel(url: str) -> Any:
    with connect(url) as connection:
        timer = threading.Timer(0.1, connection.cancel_safe)
        timer.start()
        code = code_of(connection, "SELECT pg_sleep(30)")
        timer.join()
        return {"code": code, "after": value(connection, "SELECT 1")}


def errors(url: str) -> Any:
    with connect(url) as connection:
        connection.execute(f"DROP TABLE IF EXISTS {TABLE}; CREATE TABLE {TABLE} (a int PRIMARY KEY)")
        unique = code_of(connection, f"INSERT INTO {TABLE} VALUES (1), (1)")
        syntax = code_of(connection, "SELEC 1")
        connection.execute(f"DROP TABLE {TABLE}")
        connection.autocommit = False
        code_of(connection, "SELECT 1/0")
        aborted = code_of(connection, "SELECT 1")
        connection.rollback()
        return {"unique": unique, "syntax": syntax, "aborted": aborted, "after": value(connection, "SELECT 1")}


def refusal_while_full(url: str) -> Any:
    with connect(url, autocommit=False) as holder:
        value(holder, "SELECT 1")
        try:
            with connect(url) as connection:
                value(connection, "SELECT 1")
        except psycopg.OperationalError as error:
            return {"code": error.sqlstate, "message": str(error), "type": type(error).__name__}
    return {"code": None}


def recovery(url: str) -> Any:
    """In session mode the pool keeps trying to connect, and the program is told by the pool's own timeout."""
    with ConnectionPool(url, min_size=0, max_size=1, timeout=1) as shared:

        def ask(i: int) -> Any:
            with shared.connection(timeout=10 if i >= 0 else 1) as connection:
                return value(connection, "SELECT %s::int", i)

        refused = 0
        with connect(url, autocommit=False) as holder:
            value(holder, "SELECT 1")
            for _ in range(2):
                try:
                    ask(-1)
                except psycopg.OperationalError:
                    refused += 1
        return {"refused": refused == 2, "after": [ask(i) for i in range(5)]}


refused_begin = recovery  # each statement there is the first of a transaction that the driver begins


if __name__ == "__main__":
    serve(scenarios_of(globals(), NAMES))
