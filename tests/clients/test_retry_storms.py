"""Real retry loops against a class that refuses, for a few seconds: how many connects reach the proxy, whether
customers notice, and whether everybody is served afterwards.

The class is in session mode, so each attempt is a connect; two clients hold its slots and leave after HOLD_SECONDS.
"""

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.request import urlopen

import psycopg
import pytest
from psycopg_pool import ConnectionPool
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from proxy.demo.postgres import EmbeddedPostgres
from proxy.demo.serving import ProxyProcess
from tests.clients.programs import HERE, NODE
from tests.support.not_here import NotHere, skip_or_fail
from tests.support.proxies import plain_config, users_file

pytestmark = [pytest.mark.drivers]

WORKERS = 20
HOLD_SECONDS = 4.0
RECOVERY_SECONDS = 15.0
# An identity that is refused again and again is told so after 0.5 to 1 s, and the loop adds what it likes.
CONNECTS_PER_SECOND = 2.0 * WORKERS
# Until the answers are as late as they get: a quarter, half, and a whole second.
FIRST_CONNECTS = 4 * WORKERS
CLASSES = {
    "web": {"match": [{"application_name": "web*"}], "priority": 1, "reserved": 4, "limit": 6},
    "storm": {"priority": 9, "reserved": 2, "limit": 2, "pool_mode": "session", "queue": {"max": 0}},
}


@contextmanager
def served(postgres: EmbeddedPostgres, **settings: Any) -> Iterator[ProxyProcess]:
    config = plain_config(postgres, default_class="storm", classes=CLASSES, budget={"total": 12}, **settings)
    with ProxyProcess(config, files={"users.txt": users_file()}) as proxy:
        yield proxy


@pytest.fixture
def proxy(embedded_postgres_18: EmbeddedPostgres) -> Iterator[ProxyProcess]:
    with served(embedded_postgres_18) as proxy:
        yield proxy


def url(proxy: ProxyProcess, name: str = "storm") -> str:
    return f"{proxy.url('app', 'app-secret', 'app')}?application_name={name}"


def status_of(proxy: ProxyProcess, class_name: str) -> dict[str, Any]:
    with urlopen(f"{proxy.http_url}/status") as answer:
        classes: list[dict[str, Any]] = json.load(answer)["classes"]
    return next(one for one in classes if one["name"] == class_name)


def connects(proxy: ProxyProcess) -> int:
    with urlopen(f"{proxy.http_url}/metrics") as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith('pgheadroom_class_connects_total{class="storm"}'):
                return int(float(line.rpartition(" ")[2]))
    raise AssertionError("no such metric")


class Customer(threading.Thread):
    """One connection of class web that asks every 20 ms. `waits` in seconds."""

    def __init__(self, proxy: ProxyProcess) -> None:
        super().__init__(daemon=True)
        self.waits: list[float] = []
        self._url = url(proxy, "web-1")
        self._is_over = threading.Event()

    def run(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._is_over.wait(0.02):
                began = time.monotonic()
                connection.execute("SELECT 1")
                self.waits.append(time.monotonic() - began)

    def stop(self) -> list[float]:
        self._is_over.set()
        self.join()
        return sorted(self.waits)


@dataclass
class Storm:
    """What came of one: connects while the class was full, seconds from then until all were served, waits of web."""

    connects: int
    recovery_seconds: float
    customer_waits: list[float]


def storm(proxy: ProxyProcess, rage: Callable[[str], None]) -> Storm:
    """`rage` returns when all of its workers were served. Raises what it raises."""
    holders = [psycopg.connect(url(proxy)) for _ in range(2)]
    before, customer = connects(proxy), Customer(proxy)
    customer.start()
    with ThreadPoolExecutor(1) as executor:
        raging = executor.submit(rage, url(proxy))
        time.sleep(HOLD_SECONDS)
        came = connects(proxy) - before
        for holder in holders:
            holder.close()
        freed_at = time.monotonic()
        raging.result(timeout=60)
    return Storm(came, time.monotonic() - freed_at, customer.stop())


def assert_harmless(found: Storm) -> None:
    assert found.connects <= FIRST_CONNECTS + CONNECTS_PER_SECOND * HOLD_SECONDS
    assert found.recovery_seconds < RECOVERY_SECONDS
    waits = found.customer_waits
    assert waits[len(waits) // 2] < 0.02, "customers wait for the storm"
    assert waits[int(0.99 * len(waits))] < 0.25, "customers wait for the storm"


def by_threads(work: Callable[[], None]) -> None:
    with ThreadPoolExecutor(WORKERS) as executor:
        for one in [executor.submit(work) for _ in range(WORKERS)]:
            one.result()


def naive_loops(storm_url: str) -> None:
    """Each worker connects again at once, whatever the error, until it is served."""
    gives_up_at = time.monotonic() + HOLD_SECONDS + RECOVERY_SECONDS

    def work() -> None:
        while time.monotonic() < gives_up_at:
            try:
                with psycopg.connect(storm_url) as connection:
                    connection.execute("SELECT 1")
                    return
            except psycopg.OperationalError:
                continue
        raise AssertionError("never served")

    by_threads(work)


def sqlalchemy_pool(storm_url: str) -> None:
    """A pool of five with an overflow of ten, and twenty workers whose code retries at once."""
    engine = create_engine(storm_url.replace("postgresql://", "postgresql+psycopg://"))
    gives_up_at = time.monotonic() + HOLD_SECONDS + RECOVERY_SECONDS

    def work() -> None:
        while time.monotonic() < gives_up_at:
            try:
                with engine.connect() as connection:
                    connection.execute(text("SELECT 1"))
                return
            except OperationalError:
                continue
        raise AssertionError("never served")

    try:
        by_threads(work)
    finally:
        engine.dispose()


def psycopg_pool(storm_url: str) -> None:
    """A pool that wants as many connections as there are workers, and tries again by itself."""
    with ConnectionPool(storm_url, min_size=2, max_size=WORKERS, open=False, timeout=30, reconnect_timeout=60) as pool:
        pool.open()

        def work() -> None:
            with pool.connection() as connection:
                connection.execute("SELECT 1")

        by_threads(work)


def knex_pool(storm_url: str) -> None:
    """Knex's pool (tarn) tries to make a connection every 200 ms."""
    command = ["node", "knex_storm.mjs", storm_url, str(WORKERS)]
    done = subprocess.run(command, cwd=HERE / "node", capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout)["served"] == WORKERS


def test_naive_loops(proxy: ProxyProcess) -> None:
    assert_harmless(storm(proxy, naive_loops))


def test_sqlalchemys_pool(proxy: ProxyProcess) -> None:
    assert_harmless(storm(proxy, sqlalchemy_pool))


def test_psycopgs_pool(proxy: ProxyProcess) -> None:
    assert_harmless(storm(proxy, psycopg_pool))


def test_knexs_pool(proxy: ProxyProcess) -> None:
    try:
        NODE.make_ready()
    except NotHere as missing:
        skip_or_fail("Knex", missing)
    assert_harmless(storm(proxy, knex_pool))


def test_without_late_answers_naive_loops_come_as_fast_as_they_can(embedded_postgres_18: EmbeddedPostgres) -> None:
    """What the others are worth: the same loops, answered at once."""
    with served(embedded_postgres_18, refusals={"delay": 0}) as proxy:
        found = storm(proxy, naive_loops)
    assert found.connects > FIRST_CONNECTS + CONNECTS_PER_SECOND * HOLD_SECONDS


def test_the_amplification_tells_of_it(proxy: ProxyProcess) -> None:
    storm(proxy, naive_loops)
    time_is_up = time.monotonic() + 10.0
    while (amplification := status_of(proxy, "storm")["retry_amplification"]) <= 2.0:
        assert time.monotonic() < time_is_up, f"still {amplification}"
        time.sleep(0.2)
