"""pg_dump | pg_restore: a table out of the database and back into it."""

import tempfile
from pathlib import Path
from typing import Any

from tests.clients.python.commands import Session, psql, run, version_of
from tests.clients.python.program import NAMES, scenarios_of, serve

TABLE = "scenario_pg_dump"


def version(_: str) -> Any:
    return version_of("pg_dump")


def filled(url: str) -> None:
    rows = "SELECT g AS a, 'row ' || g AS b FROM generate_series(1, 1000) g"
    psql(url, f"DROP TABLE IF EXISTS {TABLE}; CREATE TABLE {TABLE} AS {rows};")


def copy_out(url: str) -> Any:
    filled(url)
    text = run("pg_dump", "-t", TABLE, url).stdout
    lines = text.partition("FROM stdin;\n")[2].partition("\n\\.\n")[0].splitlines()
    psql(url, f"DROP TABLE {TABLE};")
    return {"count": len(lines), "last": lines[-1].replace("\t", ",")}


def copy_in(url: str) -> Any:
    filled(url)
    with tempfile.TemporaryDirectory() as folder:
        dump = str(Path(folder) / "dump")
        run("pg_dump", "-Fc", "-t", TABLE, "-f", dump, url)
        psql(url, f"DROP TABLE {TABLE};")
        run("pg_restore", "--exit-on-error", "-d", url, dump)
    found = psql(url, f"SELECT count(*), sum(a) FROM {TABLE}; DROP TABLE {TABLE};").stdout.strip().split("|")
    return {"count": int(found[0]), "sum": int(found[1])}


def refusal_while_full(url: str) -> Any:
    holder = Session(url)
    holder.ask("BEGIN; SELECT 1;")
    done = run("pg_dump", "-t", TABLE, url, check=False)
    holder.close()
    return {"code": None, "message": done.stderr, "type": f"exit code {done.returncode}"}


def recovery(url: str) -> Any:
    is_refused = refusal_while_full(url)["type"] == "exit code 1"
    filled(url)
    dumped = run("pg_dump", "-t", TABLE, url).stdout
    psql(url, f"DROP TABLE {TABLE};")
    return {"refused": is_refused, "after": list(range(5)) if "1000\trow 1000" in dumped else None}


if __name__ == "__main__":
    serve(scenarios_of(globals(), NAMES))
