"""psycopg2: libpq's simple protocol only; prepared statements are SQL's own."""

import io
import select
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg2
import psycopg2.extensions
import psycopg2.pool

from tests.clients.python.program import NAMES, scenarios_of, serve

TABLE = "scenario_psycopg2"


def version(_: str) -> Any:
    return {"driver": psycopg2.__version__.split()[0]}


def connect(url: str, *, autocommit: bool = True) -> Any:
    connection = psycopg2.connect(url)
    connection.autocommit = autocommit
    return connection


def rows(connection: Any, query: str, *arguments: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(query, arguments or None)
        return cursor.fetchall() if cursor.description else []


def value(connection: Any, query: str, *arguments: Any) -> Any:
    return rows(connection, query, *arguments)[0][0]


def code_of(connection: Any, query: str) -> str | None:
    try:
        rows(connection, query)
    except psycopg2.Error as error:
        return error.pgcode
    return None


def connect_by_url(url: str) -> Any:
    connection = connect(url)
    found = rows(connection, "SELECT current_setting('application_name'), current_database(), current_user, 42")[0]
    connection.close()
    return dict(zip(("application_name", "database", "user", "answer"), found, strict=True))


def pool(url: str) -> Any:
    shared = psycopg2.pool.ThreadedConnectionPool(0, 5, url)
    free = threading.Semaphore(5)  # this pool raises where it is exhausted

    def double(i: int) -> int:
        with free:
            connection = shared.getconn()
            try:
                with connection:
                    return int(value(connection, "SELECT %s * 2", i))
            finally:
                shared.putconn(connection)

    with ThreadPoolExecutor(10) as executor:
        found = list(executor.map(double, range(40)))
    shared.closeall()
    return {"rows": found}


def crowd(url: str) -> Any:
    connections = [connect(url, autocommit=False) for _ in range(8)]

    def turns(client: int) -> list[int]:
        found = []
        for i in range(5):
            with connections[client] as connection:
                found.append(value(connection, "SELECT %s", 100 * client + i))
        return found

    with ThreadPoolExecutor(8) as executor:
        found = list(executor.map(turns, range(8)))
    for connection in connections:
        connection.close()
    return {"rows": found}


def prepared_statements(url: str) -> Any:
    one, other = connect(url), connect(url, autocommit=False)
    rows(one, "PREPARE same_name(int) AS SELECT $1 + 1")
    first = [value(one, "EXECUTE same_name(%s)", i) for i in range(8)]
    rows(other, "PREPARE same_name(text) AS SELECT 'x' || $1")
    second = [value(other, "EXECUTE same_name(%s)", str(i)) for i in range(8)]
    first += [value(one, "EXECUTE same_name(%s)", i) for i in range(8, 11)]
    other.commit()
    one.close()
    other.close()
    return {"one": first, "other": second}


def transactions(url: str) -> Any:
    connection = connect(url, autocommit=False)
    rows(connection, f"DROP TABLE IF EXISTS {TABLE}; CREATE TABLE {TABLE} (a int)")
    rows(connection, f"INSERT INTO {TABLE} VALUES (1)")
    connection.commit()
    rows(connection, f"INSERT INTO {TABLE} VALUES (2)")
    connection.rollback()
    rows(connection, f"INSERT INTO {TABLE} VALUES (3)")
    rows(connection, "SAVEPOINT here")
    rows(connection, f"INSERT INTO {TABLE} VALUES (4)")
    rows(connection, "ROLLBACK TO SAVEPOINT here")
    connection.commit()
    found = [row[0] for row in rows(connection, f"SELECT a FROM {TABLE} ORDER BY a")]
    rows(connection, f"DROP TABLE {TABLE}")
    connection.commit()
    connection.close()
    return {"rows": found}


def copy_in(url: str) -> Any:
    connection = connect(url)
    rows(connection, f"DROP TABLE IF EXISTS {TABLE}; CREATE TABLE {TABLE} (a int, b text)")
    with connection.cursor() as cursor:
        source = io.StringIO("".join(f"{i}\trow {i}\n" for i in range(1, 1001)))
        cursor.copy_expert(f"COPY {TABLE} FROM STDIN", source)
    found = rows(connection, f"SELECT count(*), sum(a) FROM {TABLE}")[0]
    rows(connection, f"DROP TABLE {TABLE}")
    connection.close()
    return {"count": found[0], "sum": found[1]}


def copy_out(url: str) -> Any:
    connection = connect(url)
    target = io.StringIO()
    with connection.cursor() as cursor:
        query = "COPY (SELECT g, 'row ' || g FROM generate_series(1, 1000) g) TO STDOUT CSV"
        cursor.copy_expert(query, target)
    connection.close()
    lines = target.getvalue().splitlines()
    return {"count": len(lines), "last": lines[-1]}


def listen(url: str) -> Any:
    listener, other = connect(url), connect(url)
    rows(listener, "LISTEN scenario_psycopg2")
    for payload in ("one", "two"):
        rows(other, f"NOTIFY scenario_psycopg2, '{payload}'")
    while len(listener.notifies) < 2 and select.select([listener], [], [], 3)[0]:
        listener.poll()
    found = [notify.payload for notify in listener.notifies]
    listener.close()
    other.close()
    return {"heard": found}


def cancel(url: str) -> Any:
    connection = connect(url)
    timer = threading.Timer(0.1, connection.cancel)
    timer.start()
    code = code_of(connection, "SELECT pg_sleep(30)")
    timer.join()
    after = value(connection, "SELECT 1")
    connection.close()
    return {"code": code, "after": after}


def errors(url: str) -> Any:
    connection = connect(url)
    rows(connection, f"DROP TABLE IF EXISTS {TABLE}; CREATE TABLE {TABLE} (a int PRIMARY KEY)")
    unique = code_of(connection, f"INSERT INTO {TABLE} VALUES (1), (1)")
    syntax = code_of(connection, "SELEC 1")
    rows(connection, f"DROP TABLE {TABLE}")
    connection.autocommit = False
    code_of(connection, "SELECT 1/0")
    aborted = code_of(connection, "SELECT 1")
    connection.rollback()
    after = value(connection, "SELECT 1")
    connection.close()
    return {"unique": unique, "syntax": syntax, "aborted": aborted, "after": after}


def refusal_while_full(url: str) -> Any:
    holder = connect(url, autocommit=False)
    value(holder, "SELECT 1")
    try:
        value(connect(url), "SELECT 1")
    except psycopg2.Error as error:
        return {"code": error.pgcode, "message": str(error), "type": type(error).__name__}
    finally:
        holder.rollback()
        holder.close()
    return {"code": None}


def recovery(url: str) -> Any:
    holder = connect(url, autocommit=False)
    value(holder, "SELECT 1")
    shared = psycopg2.pool.ThreadedConnectionPool(0, 1, url)

    def ask(i: int) -> Any:
        connection = shared.getconn()
        try:
            with connection:
                return value(connection, "SELECT %s", i)
        finally:
            shared.putconn(connection)

    refused = 0
    for _ in range(2):
        try:
            ask(0)
        except psycopg2.Error:
            refused += 1
    holder.rollback()
    holder.close()
    found = [ask(i) for i in range(5)]
    shared.closeall()
    return {"refused": refused == 2, "after": found}


refused_begin = recovery  # each statement there is the first of a transaction that the driver begins


if __name__ == "__main__":
    serve(scenarios_of(globals(), NAMES))
