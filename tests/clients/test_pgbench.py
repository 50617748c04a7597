"""pgbench through the proxy, in each of its protocols, with more clients than server connections."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.ways import Target, Way, assert_left_quiet

PROTOCOLS = ["simple", "extended", "prepared"]
CLIENTS, TRANSACTIONS = 4, 25
ACCOUNTS = 100_000

# As pgbench's pipelined scripts are written: several statements, one answer.
PIPELINED = r"""
\set aid random(1, 100000)
\startpipeline
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
SELECT bbalance FROM pgbench_branches WHERE bid = 1;
\endpipeline
"""


@pytest.fixture(scope="module")
def initialised(target: Target) -> Iterator[Target]:
    """A database of its own with pgbench's tables, filled through the proxy: data from the client by COPY (g), VACUUM
    outside of a transaction (v), keys (p)."""
    postgres = target.postgres
    postgres.psql("CREATE DATABASE pgbench OWNER app STRATEGY file_copy")
    target.way("transaction-pgbench").to("pgbench").run("pgbench", "-i", "-q", "-s", "1", "-I", "dtgvp")
    yield target
    assert_left_quiet(target.proxy)
    postgres.psql("DROP DATABASE pgbench WITH (FORCE)")


@pytest.fixture(params=["transaction", "session"])
def bench(initialised: Target, request: pytest.FixtureRequest) -> Iterator[Way]:
    yield initialised.way(f"{request.param}-pgbench").to("pgbench")
    assert_left_quiet(initialised.proxy)


def number(way: Way, query: str) -> int:
    return int(way.straight.psql("-Atc", query).stdout)


def run(way: Way, *options: str, clients: int = CLIENTS) -> Any:
    finished = way.run("pgbench", "-n", "-c", str(clients), "-t", str(TRANSACTIONS), *options)
    processed = re.search(r"actually processed: (\d+)/(\d+)", finished.stdout)
    assert processed is not None, finished.stdout
    assert processed.groups() == (str(clients * TRANSACTIONS),) * 2, finished.stdout
    assert "aborted" not in finished.stderr, finished.stderr
    return finished


def test_initialising_made_every_row(initialised: Target) -> None:
    way = initialised.way("transaction-pgbench").to("pgbench")
    assert number(way, "SELECT count(*) FROM pgbench_accounts") == ACCOUNTS


def test_initialising_on_the_server_works_too(bench: Way) -> None:
    bench.run("pgbench", "-i", "-q", "-s", "1", "-I", "dtGp")
    assert number(bench, "SELECT count(*) FROM pgbench_accounts") == ACCOUNTS


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_selecting(bench: Way, protocol: str) -> None:
    run(bench, "-S", "-M", protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_writing_loses_and_repeats_nothing(bench: Way, protocol: str) -> None:
    """Every transaction adds one row of history with what it added to an account."""
    total = "SELECT coalesce(sum(abalance), 0) FROM pgbench_accounts"
    bench.straight.psql("-c", "TRUNCATE pgbench_history")
    before = number(bench, total)
    run(bench, "-N", "-M", protocol)
    assert number(bench, "SELECT count(*) FROM pgbench_history") == CLIENTS * TRANSACTIONS
    assert number(bench, total) - before == number(bench, "SELECT sum(delta) FROM pgbench_history")


def test_contended_transactions_end_well(bench: Way) -> None:
    """The classic script: every client updates the one row of the branch and waits its turn in a transaction."""
    bench.straight.psql("-c", "TRUNCATE pgbench_history")
    before = number(bench, "SELECT sum(bbalance) FROM pgbench_branches")
    run(bench)
    after = number(bench, "SELECT sum(bbalance) FROM pgbench_branches")
    assert after - before == number(bench, "SELECT sum(delta) FROM pgbench_history")


@pytest.mark.parametrize("protocol", ["extended", "prepared"])
def test_pipelines(bench: Way, tmp_path: Path, protocol: str) -> None:
    script = tmp_path / "pipelined.sql"
    script.write_text(PIPELINED)
    run(bench, "-M", protocol, "-f", str(script))


def test_a_connection_per_transaction(bench: Way) -> None:
    run(bench, "-S", "-C", clients=2)


@pytest.mark.parametrize("protocol", ["simple", "extended"])
def test_more_clients_than_server_connections(initialised: Target, protocol: str) -> None:
    """Forty clients on the twelve slots of their class."""
    run(initialised.way("transaction-pgbench").to("pgbench"), "-S", "-M", protocol, clients=40)
    assert_left_quiet(initialised.proxy)
