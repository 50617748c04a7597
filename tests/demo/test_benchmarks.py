"""The benchmarks measure what they say, shown on small runs against PgBouncer, and speak up where it is missing."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests import bad_day
from loadtests.micro.__main__ import table as micro_table
from loadtests.micro.benchmarks import (
    BENCHMARKS,
    allow_open_files,
    bytes_per_idle_client,
    cpu_microseconds,
    prepare,
    run_pgbench,
)
from loadtests.micro.process_cost import cpu_seconds, resident_bytes
from loadtests.micro.subjects import address, pgbouncer, start_pgheadroom, url
from loadtests.micro.tls import client_context, make_certificate
from loadtests.pgbouncer import find_pgbouncer
from proxy.demo.client import Connection, Login, QueryError
from proxy.demo.postgres import DATABASE, EmbeddedPostgres
from tests.support.compiled import IS_COMPILED

binary = find_pgbouncer()
IDLE_CLIENTS = 3000
needs_pgbouncer = pytest.mark.skipif(binary is None, reason="no pgbouncer binary in PATH, /usr/sbin or $PGBOUNCER")


def test_cpu_and_memory_are_those_of_the_process() -> None:
    before = cpu_seconds(os.getpid())
    sum(n * n for n in range(3_000_000))
    assert 0.02 < cpu_seconds(os.getpid()) - before < 30
    held = bytearray(32 << 20)
    assert resident_bytes(os.getpid()) > len(held)


@needs_pgbouncer
def test_every_micro_benchmark_runs_through_pgbouncer(tmp_path: Path) -> None:
    assert binary is not None
    with EmbeddedPostgres(18, auth="trust") as server:
        prepare(server, tmp_path)
        for benchmark in BENCHMARKS:
            with pgbouncer(binary).start(server, benchmark.prepared) as process:
                run_pgbench(server, tmp_path, benchmark, url(process), per_client=10)
                if benchmark is BENCHMARKS[0]:
                    assert 1 < cpu_microseconds(server, tmp_path, benchmark, process) < 1000


@needs_pgbouncer
def test_a_bad_day_in_small_through_pgbouncer() -> None:
    assert binary is not None
    outcome = bad_day.measure(
        "small",
        bad_day.pgbouncer_per_user(binary),
        warmup_seconds=0.2,
        calm_seconds=0.5,
        bulk_workers=30,
        jobs_per_worker=1,
        job_seconds=0.1,
        after_seconds=0.1,
    )
    assert outcome.figures.bulk_failed == outcome.figures.web_errors == outcome.refusals_in_server_log == 0
    assert outcome.figures.drain_seconds >= 0.2, "30 jobs of 0.1 s through 15 connections"
    assert "bulk drain, s" in bad_day.table([outcome])


def test_the_server_of_the_bad_day_gives_exactly_fifty_connections() -> None:
    """The connection that counts belongs to a superuser and takes an ordinary slot: one more is needed."""
    outcome = bad_day.measure(
        "flood",
        bad_day.direct,
        warmup_seconds=0.2,
        calm_seconds=0.3,
        jobs_per_worker=1,
        job_seconds=0.5,
        job_attempts=1,
    )
    assert outcome.figures.peak_connections == bad_day.SLOTS
    assert outcome.refusals_in_server_log > 0


def test_a_missing_pgbouncer_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bad_day, "find_pgbouncer", lambda: None)
    assert list(bad_day.targets()) == ["direct", "pgheadroom"]
    assert "No pgbouncer binary" in capsys.readouterr().err


def test_ratios_are_of_medians() -> None:
    results = {"login": {"PgBouncer": [10.0, 100.0, 20.0], "pgheadroom": [40.0, 30.0, 20.0]}}
    text = micro_table(results, ["PgBouncer", "pgheadroom"])
    assert "1.50x" in text
    assert "50,000" in text


@pytest.fixture
def many_sockets() -> Iterator[None]:
    """For this process and the one that it starts."""
    had = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        allow_open_files(IDLE_CLIENTS + 1000)
    except RuntimeError as error:
        pytest.skip(str(error))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, had)


@pytest.mark.alone
@pytest.mark.usefixtures("many_sockets")
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
def test_what_an_idle_client_costs(tmp_path: Path, encrypted: bool) -> None:
    """1.2 kB of it are the event loop's own. Once each client kept all of its login, and cost 4.6 kB."""
    most = (29_000 if encrypted else 1_900) + (0 if IS_COMPILED else 200)
    tls = make_certificate(tmp_path) if encrypted else None
    with EmbeddedPostgres(18, auth="trust") as server, start_pgheadroom(server, False, tls) as process:
        assert bytes_per_idle_client(process, client_context() if encrypted else None, IDLE_CLIENTS) < most


async def test_clients_of_a_benchmark_speak_tls(tmp_path: Path) -> None:
    with (
        EmbeddedPostgres(18, auth="trust") as server,
        start_pgheadroom(server, False, make_certificate(tmp_path)) as process,
    ):
        host, port = address(process)
        connection = await Connection.open(Login(host, port, "app", "", DATABASE, "idle", client_context()))
        assert await connection.run("SELECT 1") == [["1"]]
        connection.close()
        with pytest.raises(QueryError, match="TLS"):
            await Connection.open(Login(host, port, "app", "", DATABASE, "idle"))
