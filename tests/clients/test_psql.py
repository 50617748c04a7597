"""psql through the proxy: output, exit codes and interrupts are those of a direct connection, byte for byte."""

import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.clients.ways import PROGRAM_TIMEOUT_SECONDS, Way, same_as_direct
from tests.support.eventually import eventually_sync

SCRIPT = r"""
\set ON_ERROR_STOP on
\pset null '(null)'
DROP TABLE IF EXISTS psql_script;
CREATE TABLE psql_script (a int PRIMARY KEY, b text, c timestamptz DEFAULT '2024-01-01 12:00+00');
COMMENT ON TABLE psql_script IS 'made by a script';
INSERT INTO psql_script SELECT g, nullif(g % 3, 0)::text FROM generate_series(1, 9) g RETURNING a, b;
\d+ psql_script
\dt+ psql_scr*
BEGIN;
SAVEPOINT one;
INSERT INTO psql_script VALUES (100, E'tab\there');
ROLLBACK TO SAVEPOINT one;
COMMIT;
SELECT count(*) AS rows, min(c) AS first FROM psql_script \gset
\echo :rows :first
SELECT format('SELECT %s AS generated', a) FROM psql_script WHERE a < 4 ORDER BY a \gexec
SELECT a, b FROM psql_script \gdesc
SELECT a % 2 AS odd, b, count(*) FROM psql_script WHERE b IS NOT NULL GROUP BY 1, 2 \crosstabview
SET datestyle = 'German, DMY'; SET timezone = 'Asia/Tokyo';
SELECT * FROM psql_script ORDER BY a LIMIT 2 \gx
SELECT 1 AS one \; SELECT 2 AS two \; SELECT 3 AS three;
\encoding LATIN1
SELECT chr(233), length('aé');
\encoding UTF8
PREPARE find(int) AS SELECT b FROM psql_script WHERE a = $1;
EXECUTE find(4);
DEALLOCATE find;
DECLARE held CURSOR WITH HOLD FOR SELECT a FROM psql_script ORDER BY a;
FETCH 3 FROM held;
CLOSE held;
DO $$ BEGIN RAISE NOTICE 'from a block'; END $$;
EXPLAIN (COSTS OFF) SELECT * FROM psql_script WHERE a = 1;
VACUUM ANALYZE psql_script;
DROP TABLE psql_script;
"""

BIND = r"""
SELECT $1::int + $2::int AS sum \bind 40 2 \g
SELECT $1::text AS text \bind 'it''s' \g
SELECT 1/$1::int \bind 0 \g
SELECT $1::int AS again \bind 7 \g
"""

PIPELINE = r"""
SELECT $1::int + 1 AS next \parse plus_one
\startpipeline
\bind_named plus_one 1 \sendpipeline
\bind_named plus_one 2 \sendpipeline
\syncpipeline
SELECT 1/$1::int \bind 0 \sendpipeline
SELECT 'not reached' \bind \sendpipeline
\syncpipeline
SELECT 'behind it' \bind \sendpipeline
\endpipeline
\close_prepared plus_one
"""


def output(finished: "subprocess.CompletedProcess[str]") -> tuple[int, str, str]:
    return finished.returncode, finished.stdout, finished.stderr


def test_a_script_of_many_commands_prints_the_same(way: Way, tmp_path: Path) -> None:
    script = tmp_path / "script.sql"
    script.write_text(SCRIPT)

    def work(way: Way) -> Any:
        return output(way.psql("-a", "-f", str(script)))

    code, out, err = same_as_direct(way, work)
    assert code == 0
    assert "made by a script" in out
    assert "from a block" in err


def test_several_commands_run_one_after_the_other(way: Way) -> None:
    def work(way: Way) -> Any:
        return output(way.psql("-At", "-c", "SELECT 1; SELECT 2", "-c", "SHOW application_name", "-c", r"\echo three"))

    assert same_as_direct(way, work) == (0, f"1\n2\n{way.application_name}\nthree\n", "")


def test_conninfo_names_where_psql_is_connected(way: Way) -> None:
    told = way.psql("-c", r"\conninfo").stdout
    for word in (way.database, way.user, str(way.port)):
        assert word in told
    assert bool(re.search("SSL connection|SSL Connection +. true", told)) == (way.ca_path is not None)


@pytest.mark.parametrize(
    ("arguments", "stdin", "code"),
    [
        (("-c", "SELECT 1/0"), "", 1),
        (("-c", "SELEC 1"), "", 1),
        (("-v", "ON_ERROR_STOP=1", "-f", "-"), "SELECT 1;\nSELECT 1/0;\nSELECT 2;\n", 3),
        (("-f", "-"), "SELECT 1/0;\nSELECT 'goes on';\n", 0),
        (("-d", "there_is_no_such_database", "-c", "SELECT 1"), "", 2),
        (("-U", "nobody", "-c", "SELECT 1"), "", 2),
    ],
    ids=["error", "syntax", "stop", "go_on", "no_database", "no_user"],
)
def test_errors_have_the_same_words_and_exit_code(way: Way, arguments: tuple[str, ...], stdin: str, code: int) -> None:
    def work(way: Way) -> Any:
        found = output(way.psql(*arguments, stdin=stdin, check=False))
        return (*found[:2], found[2].replace(f"port {way.port}", "port"))

    assert same_as_direct(way, work)[0] == code


def test_a_script_in_a_single_transaction_leaves_nothing_of_it_behind_an_error(way: Way) -> None:
    lines = "CREATE TABLE psql_rolled_back (a int);\nSELECT 1/0;\n"
    failed = way.psql("-1", "-v", "ON_ERROR_STOP=1", "-f", "-", stdin=lines, check=False)
    left = way.psql("-Atc", "SELECT to_regclass('psql_rolled_back') IS NULL").stdout
    assert (failed.returncode, left) == (3, "t\n")


def test_files_are_copied_in_and_out(way: Way, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("".join(f'{i},"line ""{i}""\n more"\n' for i in range(5000)))

    def work(way: Way) -> Any:
        target = tmp_path / f"out-{way.port}.csv"
        commands = [
            "DROP TABLE IF EXISTS psql_copy; CREATE TABLE psql_copy (a int, b text)",
            rf"\copy psql_copy FROM '{source}' CSV",
            rf"\copy (SELECT * FROM psql_copy ORDER BY a) TO '{target}' CSV FORCE QUOTE b",
            r"\copy psql_copy FROM PROGRAM 'echo no number,x' CSV",
        ]
        copied = output(way.psql(*(part for command in commands for part in ("-c", command)), check=False))
        piped = way.psql("-c", "COPY psql_copy TO STDOUT", "-c", "DROP TABLE psql_copy").stdout
        return copied, target.read_text(), piped

    (code, out, err), text, piped = same_as_direct(way, work)
    assert (code, text) == (1, source.read_text())
    assert (out.count("COPY 5000"), piped.count("\n")) == (2, 5001)
    assert "invalid input syntax" in err


def test_large_results_come_in_parts_and_whole(way: Way) -> None:
    query = "SELECT g, repeat(md5(g::text), 8) FROM generate_series(1, 20000) g"

    def work(way: Way) -> Any:
        whole = way.psql("-Atc", query).stdout
        return whole, way.psql("-At", "-v", "FETCH_COUNT=333", "-c", query).stdout == whole

    whole, is_the_same = same_as_direct(way, work)
    assert (whole.count("\n"), is_the_same) == (20_000, True)


def test_a_savepoint_per_statement_keeps_a_transaction_alive(way: Way) -> None:
    lines = r"\set ON_ERROR_ROLLBACK on" + "\nBEGIN;\nSELECT 1;\nSELECT 1/0;\nSELECT 2;\nCOMMIT;\n"

    def work(way: Way) -> Any:
        return output(way.psql("-At", "-f", "-", stdin=lines))

    assert same_as_direct(way, work)[1] == "BEGIN\n1\n2\nCOMMIT\n"


def test_reconnecting_inside_psql(way: Way) -> None:
    lines = "\\c postgres\nSELECT current_database();\n\\c app\nSELECT current_database();\n"

    def work(way: Way) -> Any:
        return output(way.psql("-Atq", "-f", "-", stdin=lines))

    assert same_as_direct(way, work)[1] == "postgres\napp\n"


def test_parameters_are_bound_by_the_extended_protocol(way: Way) -> None:
    if way.version < 16:
        pytest.skip(r"psql has \bind from version 16 on")

    def work(way: Way) -> Any:
        return output(way.psql("-At", "-f", "-", stdin=BIND))

    code, out, err = same_as_direct(way, work)
    assert (code, out) == (0, "42\nit's\n7\n")
    assert "division by zero" in err


def test_a_pipeline_of_psql(way: Way) -> None:
    if way.version < 18:
        pytest.skip(r"psql has \startpipeline from version 18 on")

    def work(way: Way) -> Any:
        return output(way.psql("-At", "-f", "-", stdin=PIPELINE))

    code, out, err = same_as_direct(way, work)
    assert (code, out.split()) == (0, ["2", "3", "behind", "it"])
    assert "division by zero" in err


def test_ctrl_c_cancels_the_running_query(way: Way) -> None:
    def work(way: Way) -> Any:
        command = [way.installation.program("psql"), "-XAt", "-c", "SELECT pg_sleep(30), 'psql ctrl-c'"]
        pipe = subprocess.PIPE
        active = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'"
        running = f"{active} AND query LIKE '%psql ctrl-' || 'c%'"
        with subprocess.Popen(command, env=way.environment(), stdout=pipe, stderr=pipe, text=True) as psql:
            eventually_sync(lambda: way.psql("-Atc", running).stdout == "1\n", within_seconds=20)
            psql.send_signal(signal.SIGINT)
            out, err = psql.communicate(timeout=PROGRAM_TIMEOUT_SECONDS)
        eventually_sync(lambda: way.psql("-Atc", running).stdout == "0\n", within_seconds=20)
        return psql.returncode, out, err

    _, _, err = same_as_direct(way, work)
    assert "canceling statement due to user request" in err


def test_pg_isready_finds_the_proxy_ready(transaction_way: Way) -> None:
    assert "accepting connections" in transaction_way.run("pg_isready").stdout
