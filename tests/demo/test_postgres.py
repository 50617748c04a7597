"""The servers that the tests and the demo run on do what their names say."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
import psycopg
import pytest

from proxy.demo.installation import readable_copy
from proxy.demo.postgres import EmbeddedPostgres, PostgresServer
from tests.support.debian import DebianPostgres
from tests.support.eventually import eventually, eventually_sync
from tests.support.processes import runs
from tests.support.servers import ExternalPostgres, Postgres

MakePostgres = Callable[..., EmbeddedPostgres]


def test_ordinary_roles_get_exactly_the_connections_that_are_not_reserved(make_postgres: MakePostgres) -> None:
    server = make_postgres(max_connections=8, superuser_reserved_connections=3)
    connections = [psycopg.connect(server.url("web")) for _ in range(5)]
    with pytest.raises(psycopg.OperationalError, match="remaining connection slots are reserved"):
        psycopg.connect(server.url("web"))
    assert server.psql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'web'") == "5", "the superuser gets in"
    assert server.refusals_in_log() == 1
    for connection in connections:
        connection.close()


def test_passwords_are_checked_over_tcp(postgres_versions: PostgresServer) -> None:
    with psycopg.connect(postgres_versions.url("bulk")) as connection:
        assert connection.execute("SELECT current_user, current_database()").fetchone() == ("bulk", "app")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres_versions.url("bulk", password="wrong"))


def test_roles_may_create_tables(postgres: Postgres) -> None:
    with psycopg.connect(postgres.url("web")) as connection:
        connection.execute("CREATE TABLE may_create (n int)")
        connection.rollback()


async def test_asyncpg_gets_in(postgres: Postgres) -> None:
    connection = await asyncpg.connect(postgres.url("web"))
    assert await connection.fetchval("SELECT $1::int + 1", 41) == 42
    await connection.close()


def test_pgbench_of_the_same_installation_runs(postgres_versions: PostgresServer, tmp_path: Path) -> None:
    script = tmp_path / "one.sql"
    script.write_text("SELECT 1;\n")
    pgbench = postgres_versions.installation.program("pgbench")
    options = ["-n", "-t", "5", "-f", str(script), postgres_versions.url("web")]
    finished = subprocess.run([pgbench, *options], capture_output=True, text=True, check=True)
    assert "5/5" in finished.stdout


def test_tls_is_verified_against_the_made_authority(debian_postgres: DebianPostgres) -> None:
    url = debian_postgres.url("web").replace("127.0.0.1", "localhost")
    with psycopg.connect(url, sslmode="verify-full", sslrootcert=str(debian_postgres.ca_path)) as connection:
        assert connection.pgconn.ssl_in_use


async def test_a_killed_server_resets_its_clients_and_comes_back_on_the_same_port(make_postgres: MakePostgres) -> None:
    server = make_postgres()
    victim = await asyncpg.connect(server.url("web"))
    server.kill()
    await eventually(victim.is_closed)
    server.start()
    survivor = await asyncpg.connect(server.url("web"))
    assert await survivor.fetchval("SELECT 1") == 1
    await survivor.close()


async def test_a_frozen_server_is_silent_until_it_thaws(make_postgres: MakePostgres) -> None:
    server = make_postgres()
    connection = await asyncpg.connect(server.url("web"))
    server.freeze()
    query = asyncio.ensure_future(connection.fetchval("SELECT 1"))
    done, _ = await asyncio.wait([query], timeout=0.2)
    assert not done
    server.thaw()
    assert await query == 1
    await connection.close()


def test_restart_changes_settings(make_postgres: MakePostgres) -> None:
    server = make_postgres()
    server.restart(max_connections="17")
    assert server.psql("SHOW max_connections") == "17"


def test_closing_leaves_neither_process_nor_folder() -> None:
    with EmbeddedPostgres() as server:
        pid, root = server.pid, server.root
    assert not root.exists()
    assert not Path(f"/proc/{pid}").exists()


def test_a_killed_owner_leaves_neither_process_nor_folder() -> None:
    program = (
        "import time; from proxy.demo.postgres import EmbeddedPostgres\n"
        "with EmbeddedPostgres() as server: print(server.pid, server.root, flush=True); time.sleep(60)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    pid, root = owner.stdout.readline().split()
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    eventually_sync(lambda: not Path(root).exists() and not runs(int(pid)), within_seconds=10)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as somebody else")
def test_binaries_below_a_closed_home_are_copied_where_everybody_may_read_them(tmp_path: Path) -> None:
    program = tmp_path / "home" / "bin" / "postgres"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho postgres\n")
    program.chmod(0o700)
    copied = readable_copy(program.parent.parent) / "bin" / "postgres"
    assert subprocess.run([copied], user="nobody", capture_output=True, text=True, check=True).stdout == "postgres\n"


def test_a_server_is_quick_to_start(make_postgres: MakePostgres) -> None:
    make_postgres()  # the first one pays for initdb
    began = time.monotonic()
    make_postgres()
    assert time.monotonic() - began < 5


def test_a_server_run_by_somebody_else_gets_the_roles_that_tests_use(make_postgres: MakePostgres) -> None:
    somebody = make_postgres()
    somebody.psql("DROP DATABASE app")
    for _ in range(2):  # a second run finds them there
        external = ExternalPostgres(somebody.url("postgres", "postgres"))
        with psycopg.connect(external.url("bulk")) as connection:
            assert connection.execute("SELECT current_user, current_database()").fetchone() == ("bulk", "app")
    assert external.psql("SELECT 1, NULL, 'x'") == "1||x"
    assert external.version == somebody.version
