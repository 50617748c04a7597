"""psql: a person at a shell, and scripts."""

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.clients.python.commands import Session, codes_in, psql, version_of, write
from tests.clients.python.program import NAMES, scenarios_of, serve

TABLE = "scenario_psql"


def version(_: str) -> Any:
    return version_of("psql")


def connect_by_url(url: str) -> Any:
    query = "SELECT current_setting('application_name'), current_database(), current_user, 42"
    name, database, user, answer = psql(url, query + ";").stdout.strip().split("|")
    return {"application_name": name, "database": database, "user": user, "answer": int(answer)}


def crowd(url: str) -> Any:
    sessions = [Session(url) for _ in range(8)]
    for session in sessions:
        session.ask("SELECT 1;")

    def turns(client: int) -> list[int]:
        return [int(sessions[client].ask(f"BEGIN; SELECT {100 * client + i}; COMMIT;")[0]) for i in range(5)]

    with ThreadPoolExecutor(8) as executor:
        rows = list(executor.map(turns, range(8)))
    for session in sessions:
        session.close()
    return {"rows": rows}


def prepared_statements(url: str) -> Any:
    one, other = Session(url), Session(url)
    one.ask(r"SELECT $1::int + 1 \parse same_name")
    first = [int(one.ask(rf"\bind_named same_name {i} \g")[0]) for i in range(8)]
    other.ask("BEGIN;", r"SELECT 'x' || $1::text \parse same_name")
    second = [other.ask(rf"\bind_named same_name {i} \g")[0] for i in range(8)]
    first += [int(one.ask(rf"\bind_named same_name {i} \g")[0]) for i in range(8, 11)]
    other.ask("COMMIT;")
    one.close()
    other.close()
    return {"one": first, "other": second}


def transactions(url: str) -> Any:
    insert = f"INSERT INTO {TABLE} VALUES"
    lines = [
        f"DROP TABLE IF EXISTS {TABLE}; CREATE TABLE {TABLE} (a int);",
        f"BEGIN; {insert} (1); COMMIT;",
        f"BEGIN; {insert} (2); ROLLBACK;",
        f"BEGIN; {insert} (3); SAVEPOINT here; {insert} (4); ROLLBACK TO here; COMMIT;",
        f"SELECT a FROM {TABLE} ORDER BY a; DROP TABLE {TABLE};",
    ]
    return {"rows": [int(line) for line in psql(url, *lines).stdout.split()]}


def copy_in(url: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        source = write(folder, "rows", "".join(f"{i}\trow {i}\n" for i in range(1, 1001)))
        lines = [
            f"DROP TABLE IF EXISTS {TABLE}; CREATE TABLE {TABLE} (a int, b text);",
            rf"\copy {TABLE} FROM '{source}'",
            f"SELECT count(*), sum(a) FROM {TABLE}; DROP TABLE {TABLE};",
        ]
        count, total = psql(url, *lines).stdout.strip().split("|")
    return {"count": int(count), "sum": int(total)}


def copy_out(url: str) -> Any:
    query = "COPY (SELECT g, 'row ' || g FROM generate_series(1, 1000) g) TO STDOUT CSV;"
    lines = psql(url, query).stdout.splitlines()
    return {"count": len(lines), "last": lines[-1]}


def listen(url: str) -> Any:
    """psql looks for notifications after each command."""
    listener = Session(url)
    listener.ask("LISTEN scenario_psql;")
    psql(url, "NOTIFY scenario_psql, 'one'; NOTIFY scenario_psql, 'two';")
    heard: list[str] = []
    end = time.monotonic() + 3
    while len(heard) < 2 and time.monotonic() < end:
        told = listener.ask("SELECT 1;")
        heard += [line.split('payload "')[1].split('"')[0] for line in told if 'payload "' in line]
    listener.close()
    return {"heard": heard}


def cancel(url: str) -> Any:
    """Ctrl-C, after which a psql that runs a command ends."""
    session = Session(url)
    end = session.tell("SELECT pg_sleep(30);")
    session.interrupt_when_busy()
    printed = session.answer(end)
    session.close()
    return {"code": (codes_in("\n".join(printed)) or [None])[0], "after": int(psql(url, "SELECT 1;").stdout)}


def errors(url: str) -> Any:
    lines = [
        f"DROP TABLE IF EXISTS {TABLE}; CREATE TABLE {TABLE} (a int PRIMARY KEY);",
        f"INSERT INTO {TABLE} VALUES (1), (1);",
        "SELEC 1;",
        f"DROP TABLE {TABLE};",
        "BEGIN;",
        "SELECT 1/0;",
        "SELECT 1;",
        "ROLLBACK;",
        "SELECT 1;",
    ]
    done = psql(url, *lines)
    unique, syntax, _, aborted = codes_in(done.stderr)
    return {"unique": unique, "syntax": syntax, "aborted": aborted, "after": int(done.stdout)}


def refusal_while_full(url: str) -> Any:
    holder = Session(url)
    holder.ask("BEGIN; SELECT 1;")
    done = psql(url, "SELECT 1;", check=False)
    holder.close()
    return {"code": (codes_in(done.stderr) or [None])[0], "message": done.stderr, "type": "psql"}


def recovery(url: str) -> Any:
    """The psql that was refused goes on; in session mode it has ended, and another one is not refused."""
    holder = Session(url)
    holder.ask("BEGIN; SELECT 1;")
    session = Session(url)
    told = session.ask("SELECT 1;")
    holder.close()
    if session.has_ended():
        session = Session(url)
    found = [int(session.ask(f"SELECT {i};")[0]) for i in range(5)]
    session.close()
    return {"refused": any("FATAL" in line or "ERROR" in line for line in told), "after": found}


if __name__ == "__main__":
    serve(scenarios_of(globals(), NAMES))
