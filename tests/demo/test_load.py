"""The load generator against a real server: small, and with known troubles."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from proxy.demo.client import Login
from proxy.demo.figures import reckon
from proxy.demo.load import LoadPlan
from proxy.demo.load_process import LoadFailed, Tell, run_load
from proxy.demo.postgres import DATABASE, SUPERUSER, EmbeddedPostgres, PostgresServer, free_port, password_of

MakePostgres = Callable[..., EmbeddedPostgres]


def small_plan(server: PostgresServer) -> LoadPlan:
    ordinary = Login(server.host, server.port, "app", password_of("app"), DATABASE, "web")
    return LoadPlan(
        web=ordinary,
        bulk=replace(ordinary, application_name="bulk"),
        superuser=Login(str(server.socket_directory), server.port, SUPERUSER, "", DATABASE, "sampler"),
        web_rate=100.0,
        web_pool=5,
        warmup_seconds=0.2,
        calm_seconds=0.5,
        bulk_workers=4,
        jobs_per_worker=2,
        job_seconds=0.1,
        after_seconds=0.2,
        web_patience=2.0,
        limit_seconds=10.0,
    )


def test_all_that_was_planned_is_sent_and_seen(make_postgres: MakePostgres) -> None:
    server = make_postgres()
    told: list[Tell] = []
    figures = reckon(run_load(small_plan(server), told.append))
    assert (figures.bulk_jobs, figures.bulk_failed, figures.web_errors) == (8, 0, 0)
    assert figures.drain_seconds >= 0.2
    assert figures.web_calm.count > 10
    assert figures.web_burst.p50 >= 0.002
    assert 5 <= figures.peak_connections <= 9
    assert told[-1].web_sent == pytest.approx(figures.web_requests, rel=0.5)


def test_the_same_seed_sends_at_the_same_times(make_postgres: MakePostgres) -> None:
    server = make_postgres()
    first, second = (sorted(request.intended_at for request in run_load(small_plan(server)).web)[:50] for _ in range(2))
    assert first == second


def test_workers_that_find_no_connection_retry_and_then_give_up(make_postgres: MakePostgres) -> None:
    server = make_postgres(
        max_connections=6, superuser_reserved_connections=3
    )  # 2 for ordinary roles beside the sampler
    plan = replace(small_plan(server), job_seconds=2.0, jobs_per_worker=1)
    figures = reckon(run_load(plan))
    assert figures.bulk_failed >= 2
    assert figures.errors["53300"] >= 2
    assert figures.bulk_failed_attempts >= 6
    assert server.refusals_in_log() >= 6


def test_latency_counts_from_the_intended_time_of_a_stalled_target(make_postgres: MakePostgres) -> None:
    server = make_postgres()
    plan = replace(small_plan(server), web_pool=1, web_query_seconds=0.05, bulk_workers=1)
    figures = reckon(run_load(plan))  # 100 requests a second through one connection that does 20
    assert figures.web_calm.p99 > 0.2


def test_the_web_gives_up_at_the_end_of_its_patience(make_postgres: MakePostgres) -> None:
    server = make_postgres()
    plan = replace(small_plan(server), web_pool=1, web_query_seconds=0.3, web_patience=0.1)
    figures = reckon(run_load(plan))
    assert figures.errors["timeout"] == figures.web_errors == figures.web_requests


def test_a_load_that_cannot_begin_says_why(make_postgres: MakePostgres) -> None:
    server = make_postgres()
    plan = small_plan(server)
    with pytest.raises(LoadFailed, match="ConnectionLost"):
        run_load(replace(plan, superuser=replace(plan.superuser, host="127.0.0.1", port=free_port())))


def test_the_observations_of_a_long_run_arrive_whole_where_python_does_not_buffer(
    make_postgres: MakePostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unbuffered, print() loses what does not fit into the pipe at once; it did so in containers only."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    server = make_postgres()
    plan = replace(small_plan(server), web_rate=2000.0, web_query_seconds=0.0, web_pool=2, web_patience=5.0)
    assert len(run_load(plan).web) > 1500
