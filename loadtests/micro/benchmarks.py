"""The single measurements: so much CPU for so many of something, so much memory for so many clients.

Owns: what drives the proxy (pgbench; for idle clients a loop of our own) and how often.
Does not know: which proxy it is, rounds, medians.
"""

import asyncio
import resource
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import uvloop

from loadtests.micro.process_cost import cpu_seconds, resident_bytes
from loadtests.micro.subjects import address, url
from proxy.demo.client import Connection, Login
from proxy.demo.postgres import DATABASE, PostgresServer
from proxy.demo.serving import ServedProcess

CLIENTS = 8
IDLE_CLIENTS = 8_000
DIALS_AT_ONCE = 64

SCRIPTS = {
    "thousand_rows.sql": "SELECT * FROM thousand_rows;\n",
    "only_login.sql": "\\set nothing 1\n",
}


@dataclass(frozen=True, slots=True)
class Benchmark:
    """`pgbench` arguments beside the address, and how many units one run is per client. CPU is counted per unit."""

    name: str
    arguments: tuple[str, ...]
    per_client: int
    prepared: bool = False


BENCHMARKS = (
    Benchmark("transaction, simple", ("-S", "-M", "simple"), 6000),
    Benchmark("transaction, extended", ("-S", "-M", "extended"), 6000),
    Benchmark("transaction, prepared", ("-S", "-M", "prepared"), 6000, prepared=True),
    Benchmark("result of 1,000 rows", ("-f", "thousand_rows.sql"), 500),
    Benchmark("login", ("-C", "-f", "only_login.sql"), 1000),
)


def prepare(server: PostgresServer, folder: Path) -> None:
    """Tables for pgbench -S, a table whose 1,000 rows make a result of about 120 kB, and the scripts."""
    for name, text in SCRIPTS.items():
        (folder / name).write_text(text)
    pgbench = server.installation.program("pgbench")
    subprocess.run([pgbench, "-i", "-q", server.url("app")], check=True, capture_output=True)
    server.psql(
        "CREATE TABLE thousand_rows AS SELECT n AS id, repeat(md5(n::text), 3) AS text FROM generate_series(1, 1000) n;"
        "GRANT SELECT ON thousand_rows TO app; VACUUM ANALYZE",
        database=DATABASE,
    )


def run_pgbench(server: PostgresServer, folder: Path, benchmark: Benchmark, where: str, per_client: int) -> None:
    """Raises RuntimeError where a client was aborted: its missing transactions would flatter the proxy."""
    command = [server.installation.program("pgbench"), "-n", "-c", str(CLIENTS), "-j", "1", "-t", str(per_client)]
    finished = subprocess.run(
        [*command, *benchmark.arguments, where], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    if finished.returncode != 0 or f"{CLIENTS * per_client}/{CLIENTS * per_client}" not in finished.stdout:
        raise RuntimeError(f"pgbench {' '.join(benchmark.arguments)}: {finished.stderr[-500:]}")


def cpu_microseconds(server: PostgresServer, folder: Path, benchmark: Benchmark, process: ServedProcess) -> float:
    """CPU of the proxy process per unit. A short run before opens the pool and warms what is to be warm."""
    run_pgbench(server, folder, benchmark, url(process), 50)
    before = cpu_seconds(process.pid)
    run_pgbench(server, folder, benchmark, url(process), benchmark.per_client)
    return (cpu_seconds(process.pid) - before) * 1e6 / (CLIENTS * benchmark.per_client)


def bytes_per_idle_client(
    process: ServedProcess, tls: ssl.SSLContext | None = None, clients: int = IDLE_CLIENTS
) -> float:
    """Growth of the resident memory with so many clients that have logged in, asked one thing, and stay."""
    allow_open_files(clients + 1000)
    host, port = address(process)
    login = Login(host, port, "app", "", DATABASE, "idle", tls)

    async def measure() -> float:
        first = await _open(login)
        before = resident_bytes(process.pid)
        room = asyncio.Semaphore(DIALS_AT_ONCE)

        async def open_one() -> Connection:
            async with room:
                return await _open(login)

        opened = await asyncio.gather(*(open_one() for _ in range(clients)))
        await asyncio.sleep(1.0)  # until what the logins left behind is freed
        grown = resident_bytes(process.pid) - before
        for client in (first, *opened):
            client.close()
        return grown / clients

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(measure())


async def _open(login: Login) -> Connection:
    connection = await Connection.open(login)
    await connection.run("SELECT 1")
    return connection


def allow_open_files(wanted: int) -> None:
    """Raise the limit of this process and of what it starts. Raises RuntimeError where that is forbidden."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise RuntimeError(f"{wanted} open files are needed and the hard limit is {hard} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
