"""pgbench with scripts of its own: many clients at once, statements prepared by name."""

import re
import subprocess
import tempfile
from typing import Any

from tests.clients.python.commands import Session, psql, run, version_of, write
from tests.clients.python.program import NAMES, scenarios_of, serve

TABLE = "scenario_pgbench"


def version(_: str) -> Any:
    return version_of("pgbench")


def bench(url: str, script: str, *options: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    with tempfile.TemporaryDirectory() as folder:
        return run("pgbench", "-n", "-f", write(folder, "script", script), *options, url, check=check)


def written_by(url: str, columns: str, script: str, *options: str) -> list[list[str]]:
    """The rows that a script wrote into its table, in their order. Each client counts `:i` from 0."""
    psql(url, f"DROP TABLE IF EXISTS {TABLE}; CREATE TABLE {TABLE} ({columns}, made serial);")
    done = bench(url, rf"\set i :i + 1{script}", "-D", "i=-1", *options)
    assert "aborted" not in done.stderr, done.stderr
    names = ", ".join(re.findall(r"(\w+) \w+", columns))
    rows = psql(url, f"SELECT {names} FROM {TABLE} ORDER BY made; DROP TABLE {TABLE};").stdout.splitlines()
    return [row.split("|") for row in rows]


def connect_by_url(url: str) -> Any:
    columns = "application_name text, base text, who text, answer int"
    query = "SELECT current_setting('application_name'), current_database(), current_user, 42"
    ((name, database, user, answer),) = written_by(url, columns, f"\nINSERT INTO {TABLE} {query};\n", "-t", "1")
    return {"application_name": name, "database": database, "user": user, "answer": int(answer)}


def crowd(url: str) -> Any:
    script = f"\nBEGIN;\nINSERT INTO {TABLE} VALUES (:client_id, 100 * :client_id + :i);\nSELECT 1;\nCOMMIT;\n"
    rows = written_by(url, "client int, a int", script, "-c", "8", "-j", "2", "-t", "5")
    return {"rows": [[int(a) for client, a in rows if int(client) == one] for one in range(8)]}


def prepared_statements(url: str) -> Any:
    """Two clients at once that give the same names to different statements."""
    script = rf"""
\if :client_id = 0
INSERT INTO {TABLE} VALUES ('one', :i::int + 1);
\else
BEGIN;
INSERT INTO {TABLE} VALUES ('other', 'x' || :i::int);
\sleep 2 ms
COMMIT;
\endif
"""
    rows = written_by(url, "client text, a text", script, "-M", "prepared", "-c", "2", "-t", "11")
    one = [int(a) for client, a in rows if client == "one"]
    return {"one": one, "other": [a for client, a in rows if client == "other"][:8]}


def transactions(url: str) -> Any:
    insert = f"INSERT INTO {TABLE} VALUES"
    script = f"""
BEGIN;
{insert} (1);
COMMIT;
BEGIN;
{insert} (2);
ROLLBACK;
BEGIN;
{insert} (3);
SAVEPOINT here;
{insert} (4);
ROLLBACK TO here;
COMMIT;
"""
    return {"rows": [int(a) for (a,) in written_by(url, "a int", script, "-t", "1")]}


def refused(url: str) -> "subprocess.CompletedProcess[str]":
    holder = Session(url)
    holder.ask("BEGIN; SELECT 1;")
    done = bench(url, "SELECT 1;\n", "-t", "1", check=False)
    holder.close()
    return done


def refusal_while_full(url: str) -> Any:
    done = refused(url)
    return {"code": None, "message": done.stderr, "type": f"exit code {done.returncode}"}


def recovery(url: str) -> Any:
    is_refused = refused(url).returncode != 0
    rows = written_by(url, "a int", f"\nINSERT INTO {TABLE} VALUES (:i);\n", "-t", "5")
    return {"refused": is_refused, "after": [int(a) for (a,) in rows]}


if __name__ == "__main__":
    serve(scenarios_of(globals(), NAMES))
