"""The noon import: a steady stream of web requests, and a burst of bulk workers in the middle of it.

Owns: when what is sent, the web application's pool, the workers' retries, the counting of server connections.
Does not know: what stands at the address it is pointed at.

The web load is an open loop: requests are due at drawn times (Poisson, seeded, the same for every target) and latency
counts from the time a request was due, so a stalled target cannot slow down the questions it is asked.
Everything is bounded: requests by the rate and the time, jobs by workers x jobs, the whole by `limit_seconds`.
"""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from proxy.demo.client import Connection, Login, QueryError
from proxy.demo.figures import BulkJob, ConnectionSample, Observations, WebRequest

SAMPLE_EVERY_SECONDS = 0.05
SAMPLE_SQL = """
SELECT count(*),
       count(*) FILTER (WHERE state = 'active' AND application_name = '{web}'),
       count(*) FILTER (WHERE state = 'active' AND application_name = '{bulk}')
  FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename <> '{superuser}'
"""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What is sent where. Seconds throughout.

    The web application opens up to `web_pool` connections when it needs them and replaces each after
    `web_connection_lifetime` (as pools do, only sooner: a run of ten seconds is to contain what an hour would).
    A worker keeps one connection for all its jobs; a job is tried `job_attempts` times, with growing pauses.
    """

    web: Login
    bulk: Login
    superuser: Login  # on the server itself, over a reserved connection
    web_rate: float = 300.0
    web_query_seconds: float = 0.002
    web_pool: int = 40
    web_connection_lifetime: float = 5.0
    web_patience: float = 30.0
    warmup_seconds: float = 2.0
    calm_seconds: float = 8.0
    bulk_workers: int = 150
    jobs_per_worker: int = 6
    job_seconds: float = 0.2
    job_attempts: int = 3
    after_seconds: float = 2.0
    limit_seconds: float = 60.0
    seed: int = 12

    @property
    def burst_at(self) -> float:
        return self.warmup_seconds + self.calm_seconds


@dataclass(slots=True)
class Progress:
    """Counts so far, for whoever watches."""

    at: float = 0.0
    web_sent: int = 0
    web_waiting: int = 0
    bulk_done: int = 0


class WebPool:
    """The connection pool of the web application: opened when needed, last in first out, at most `size`."""

    def __init__(self, login: Login, size: int, lifetime: float) -> None:
        self._login = login
        self._room = asyncio.Semaphore(size)
        self._idle: list[tuple[Connection, float]] = []
        self._lifetime = lifetime
        self._draw = random.Random(size)  # noqa: S311 - expiry times, not secrets

    async def run(self, sql: str) -> None:
        """Raises QueryError where no connection could be opened or the query failed."""
        async with self._room:
            connection, expires_at = await self._take()
            try:
                await connection.run(sql)
            except QueryError:
                if connection.closed:
                    raise
                self._idle.append((connection, expires_at))
                raise
            except BaseException:  # cancelled by the caller's patience: an answer may still be under way
                connection.close()
                raise
            self._idle.append((connection, expires_at))

    async def _take(self) -> tuple[Connection, float]:
        now = time.perf_counter()
        while self._idle:
            connection, expires_at = self._idle.pop()
            if not connection.closed and now < expires_at:
                return connection, expires_at
            connection.close()
        # Spread, or all connections of the warm-up would expire together.
        return await Connection.open(self._login), now + self._lifetime * self._draw.uniform(0.5, 1.5)

    def close(self) -> None:
        for connection, _ in self._idle:
            connection.close()


class LoadRun:
    """One run of a plan. `watch` is called with the observations so far, some times per second."""

    def __init__(self, plan: LoadPlan, watch: Callable[[Observations, Progress], None] | None = None) -> None:
        self._plan = plan
        self._watch = watch
        self._progress = Progress()
        self._draw = random.Random(plan.seed)  # noqa: S311 - arrival times, not secrets
        self._seen = Observations(calm_from=plan.warmup_seconds, burst_at=plan.burst_at)
        self._began = 0.0
        self._finish_at = plan.limit_seconds

    async def run(self) -> Observations:
        """Send the load; returns when all work is done, at the latest after `limit_seconds` and the web's patience."""
        sampling = await self._connect_sampler()
        pool = WebPool(self._plan.web, self._plan.web_pool, self._plan.web_connection_lifetime)
        self._began = time.perf_counter()
        sampler = asyncio.create_task(self._sample(sampling), name="sampler")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._burst(), name="burst")
                group.create_task(self._send_web(pool, group), name="web")
        finally:
            sampler.cancel()
            await asyncio.gather(sampler, return_exceptions=True)
            sampling.close()
            pool.close()
        return self._seen

    def _now(self) -> float:
        return time.perf_counter() - self._began

    # -- web

    async def _send_web(self, pool: WebPool, group: asyncio.TaskGroup) -> None:
        due_at = 0.0
        while due_at < self._finish_at:
            due_at += self._draw.expovariate(self._plan.web_rate)
            await asyncio.sleep(max(0.0, due_at - self._now()))
            self._seen.lateness.append(self._now() - due_at)
            self._progress.web_sent += 1
            group.create_task(self._request(pool, due_at))

    async def _request(self, pool: WebPool, due_at: float) -> None:
        self._progress.web_waiting += 1
        error: str | None = None
        try:
            async with asyncio.timeout(self._plan.web_patience):
                await pool.run(f"SELECT pg_sleep({self._plan.web_query_seconds})")
        except TimeoutError:
            error = "timeout"
        except QueryError as failure:
            error = failure.code
        self._progress.web_waiting -= 1
        self._seen.web.append(WebRequest(due_at, self._now() - due_at, error))

    # -- bulk

    async def _burst(self) -> None:
        await asyncio.sleep(self._plan.burst_at)
        self._seen.burst_at = self._now()
        workers = (self._work(random.Random(f"{self._plan.seed}/{n}")) for n in range(self._plan.bulk_workers))  # noqa: S311
        await asyncio.gather(*workers)
        self._seen.drained_at = self._now()
        self._finish_at = min(self._plan.limit_seconds, self._seen.drained_at + self._plan.after_seconds)

    async def _work(self, draw: random.Random) -> None:
        worker = _Worker(self._plan, draw, time_left=lambda: self._plan.limit_seconds - self._now())
        for _ in range(self._plan.jobs_per_worker):
            started_at = self._now()
            failed_attempts, error = await worker.do_job()
            self._seen.bulk.append(BulkJob(started_at, self._now(), failed_attempts, error))
            self._progress.bulk_done += 1
        worker.close()

    # -- the server's connections

    async def _connect_sampler(self) -> Connection:
        """Connects before anything else: under load even the reserved connections may be slow to come."""
        return await Connection.open(self._plan.superuser)

    async def _sample(self, connection: Connection) -> None:
        plan = self._plan
        names = {"web": plan.web.application_name, "bulk": plan.bulk.application_name, "superuser": plan.superuser.user}
        while True:
            (row,) = await connection.run(SAMPLE_SQL.format(**names))
            total, web, bulk = (int(value or 0) for value in row)
            self._progress.at = self._now()
            self._seen.samples.append(ConnectionSample(self._now(), total, web, bulk))
            if self._watch is not None:
                self._watch(self._seen, self._progress)
            await asyncio.sleep(SAMPLE_EVERY_SECONDS)


class _Worker:
    """A bulk worker: one connection, opened when first needed and again when it was lost."""

    def __init__(self, plan: LoadPlan, draw: random.Random, time_left: Callable[[], float]) -> None:
        self._plan = plan
        self._draw = draw
        self._time_left = time_left
        self._connection: Connection | None = None

    async def do_job(self) -> tuple[int, str | None]:
        """How many attempts failed, and the error of the last one where all did."""
        error: str | None = None
        for attempt in range(self._plan.job_attempts):
            error = await self._try()
            if error is None or self._time_left() <= 0:
                return attempt + (error is not None), error
            await asyncio.sleep(0.25 * 2**attempt * self._draw.uniform(0.5, 1.5))
        return self._plan.job_attempts, error

    async def _try(self) -> str | None:
        try:
            async with asyncio.timeout(max(0.0, self._time_left())):
                await self._run_job()
        except TimeoutError:
            self.close()  # an answer may still be under way
            return "timeout"
        except QueryError as failure:
            return failure.code
        return None

    async def _run_job(self) -> None:
        if self._connection is None or self._connection.closed:
            self._connection = await Connection.open(self._plan.bulk)
        await self._connection.run(f"SELECT pg_sleep({self._plan.job_seconds})")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
