"""The clients of a scenario, in a process of their own: declared traffic as real connections.

    python -m loadtests.scenarios.generator FILE WHERE OUT

FILE is the scenario, WHERE the JSON of a `Where`, OUT the file that receives the record. One line
is printed when the clock starts.

Owns: connections, application pools, retries, patience, the sampling of the server's connections.
Does not know: what stands at the address it is pointed at, bounds.

Open sources are open loops: jobs are due at drawn times, and latency counts from then. Everything is bounded: by the
traffic's duration and, behind it, by GRACE_SECONDS for bursts to be done.
"""

import asyncio
import json
import math
import random
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop

from loadtests.scenarios.record import UNFINISHED, JobOver, Sample
from loadtests.scenarios.scenario import Scenario, Squatter, load_file
from proxy.admission.simulation.durations import Draw
from proxy.admission.simulation.streams import burst_times, open_arrivals, worker_draws
from proxy.admission.simulation.traffic import NO_PAUSE, Burst, ClosedLoop, Source
from proxy.demo.client import Connection, Login, QueryError

GRACE_SECONDS = 30.0
DEFAULT_POOL = 40
SAMPLE_EVERY_SECONDS = 0.1
FAILED_JOB_PAUSE_SECONDS = 0.1
SAMPLE_SQL = """
SELECT application_name, count(*), count(*) FILTER (WHERE state = 'active')
  FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename <> '{superuser}' GROUP BY 1
"""


@dataclass(frozen=True, slots=True)
class Where:
    """The address under test; the database of each user; and the server itself, for whoever watches it."""

    host: str
    port: int
    passwords: Mapping[str, str]
    databases: Mapping[str, str]
    users: Mapping[str, str]  # by the scenario's user: the one to log in as
    server_socket: str
    server_port: int
    superuser: str
    server_database: str

    def login(self, user: str, application_name: str) -> Login:
        user = self.users.get(user, user)
        return Login(self.host, self.port, user, self.passwords[user], self.databases[user], application_name)


class Clock:
    def __init__(self) -> None:
        self._began = time.perf_counter()

    def now(self) -> float:
        return time.perf_counter() - self._began


@dataclass(slots=True)
class Tries:
    """What one job has cost so far."""

    attempts: int = 0
    connects: int = 0


class Connections:
    """The connections of one source: at most `most`, opened when needed, last in first out."""

    def __init__(self, login: Login, most: int) -> None:
        self._login = login
        self._room = asyncio.Semaphore(most)
        self._idle: list[Connection] = []

    @asynccontextmanager
    async def one(self, tries: Tries) -> AsyncIterator[Connection]:
        """A connection for one query. It is kept, unless it broke or its answer is still to come."""
        async with self._room:
            while self._idle and self._idle[-1].closed:
                self._idle.pop()
            if self._idle:
                connection = self._idle.pop()
            else:
                tries.connects += 1
                connection = await Connection.open(self._login)
            is_usable = False
            try:
                yield connection
                is_usable = True
            except QueryError:
                is_usable = not connection.closed
                raise
            finally:
                if is_usable:
                    self._idle.append(connection)
                else:
                    connection.close()

    def close(self) -> None:
        for connection in self._idle:
            connection.close()


class Load:
    """One run."""

    def __init__(self, scenario: Scenario, where: Where) -> None:
        self._scenario = scenario
        self._where = where
        self._seed = scenario.declared.seed
        self._end = scenario.traffic.duration_seconds
        self.jobs: list[JobOver] = []
        self.samples: list[Sample] = []
        self._clock = Clock()

    async def run(self) -> None:
        watching = await self._watch_server()
        print("began", flush=True)
        self._clock = Clock()
        sampler = asyncio.create_task(self._sample(watching), name="sampler")
        try:
            async with asyncio.timeout(self._end + GRACE_SECONDS), asyncio.TaskGroup() as group:
                group.create_task(self._open_loops(), name="open loops")
                for source in self._scenario.traffic.sources:
                    group.create_task(self._send(source), name=source.name)
                for number, squatter in enumerate(self._scenario.squatters):
                    group.create_task(self._squat(squatter), name=f"squatter {number}")
        except TimeoutError:
            pass  # unfinished jobs have told so themselves
        finally:
            sampler.cancel()
            await asyncio.gather(sampler, return_exceptions=True)
            watching.close()

    # -- sources ------------------------------------------------------------------------------------------------------

    async def _send(self, source: Source) -> None:
        client = self._scenario.clients[source.name]
        who = (client.user, client.application_name)
        match source.arrivals:
            case Burst() as burst:
                await self._bursts(source, burst, who)
            case ClosedLoop() as loop:
                await self._loop(source, loop, who)

    async def _open_loops(self) -> None:
        """The jobs of all open sources, at the times and with the holds that a simulation draws for them."""
        traffic = self._scenario.traffic
        pools = [self._pool_of(source) for source in traffic.sources]
        draw = random.Random(self._seed)
        try:
            async with asyncio.TaskGroup() as group:
                for at, number, hold in open_arrivals(traffic, self._seed):
                    await self._until(at)
                    group.create_task(self._job(traffic.sources[number], pools[number], hold, at, draw))
        finally:
            for pool in pools:
                pool.close()

    def _pool_of(self, source: Source) -> Connections:
        client = self._scenario.clients[source.name]
        most = DEFAULT_POOL if source.clients == math.inf else int(source.clients)
        return Connections(self._where.login(client.user, client.application_name), most)

    async def _bursts(self, source: Source, burst: Burst, who: tuple[str, str]) -> None:
        async with asyncio.TaskGroup() as group:
            for number, at in enumerate(burst_times(source, burst, self._end)):
                for index in range(burst.workers):
                    hold, think = worker_draws(self._seed, source, NO_PAUSE, number, index)
                    begins = at + burst.over_seconds * index / burst.workers
                    group.create_task(self._worker(source, who, begins, hold, think, burst.jobs, None))

    async def _loop(self, source: Source, loop: ClosedLoop, who: tuple[str, str]) -> None:
        async with asyncio.TaskGroup() as group:
            for index in range(loop.workers):
                hold, think = worker_draws(self._seed, source, loop.think, 0, index)
                begins, stop = source.start_seconds + think(), min(source.stop_seconds, self._end)
                group.create_task(self._worker(source, who, begins, hold, think, None, stop))

    async def _worker(
        self,
        source: Source,
        who: tuple[str, str],
        begins: float,
        hold: Draw,
        think: Draw,
        jobs: int | None,
        stop: float | None,
    ) -> None:
        """One connection, one job after the other: so many, or until a moment."""
        await self._until(begins)
        pool = Connections(self._where.login(*who), 1)
        draw = random.Random(f"{self._seed}/{source.name}/{begins}")
        try:
            while (jobs is None or jobs > 0) and (stop is None or self._clock.now() < stop):
                jobs = None if jobs is None else jobs - 1
                error = await self._job(source, pool, hold(), self._clock.now(), draw)
                await asyncio.sleep(max(think(), FAILED_JOB_PAUSE_SECONDS if error is not None else 0.0))
        finally:
            pool.close()

    async def _job(
        self, source: Source, pool: Connections, hold: float, arrived_at: float, draw: random.Random
    ) -> str | None:
        """One unit of work, until it is done or given up. Returns the SQLSTATE of the last try."""
        tries = Tries()
        error: str | None = UNFINISHED
        patience = None if source.patience_seconds == math.inf else source.patience_seconds
        try:
            async with asyncio.timeout(patience):
                error = await self._try_until_done(source, pool, hold, tries, draw)
        except TimeoutError:
            error = "timeout"
        finally:
            class_name, now = source.class_name, self._clock.now()
            self.jobs.append(JobOver(source.name, class_name, arrived_at, now, tries.attempts, tries.connects, error))
        return error

    @staticmethod
    async def _try_until_done(
        source: Source, pool: Connections, hold: float, tries: Tries, draw: random.Random
    ) -> str | None:
        while True:
            tries.attempts += 1
            try:
                async with pool.one(tries) as connection:
                    await connection.run(f"SELECT work({hold:.6f})")
            except QueryError as failure:
                if tries.attempts >= source.retry.attempts:
                    return failure.code
            else:
                return None
            await asyncio.sleep(source.retry.pause_seconds(tries.attempts) * draw.uniform(0.75, 1.25))

    async def _until(self, at: float) -> None:
        await asyncio.sleep(max(0.0, at - self._clock.now()))

    # -- those who hold on --------------------------------------------------------------------------------------------

    async def _squat(self, squatter: Squatter) -> None:
        await self._until(squatter.at)
        async with asyncio.TaskGroup() as group:
            for _ in range(squatter.clients):
                group.create_task(self._hold_on(squatter))

    async def _hold_on(self, squatter: Squatter) -> None:
        """It holds on until its time is over, or until it is sent away."""
        connection: Connection | None = None
        try:
            async with asyncio.timeout(squatter.lasts):
                connection = await Connection.open(self._where.login("bulk", squatter.application_name))
                if squatter.kind == "listen":
                    await connection.run("LISTEN scenario")
                elif squatter.kind == "idle_in_transaction":
                    await connection.run("BEGIN")
                    await connection.run("SELECT 1")
                else:
                    connection.stop_reading()
                    await connection.run("SELECT repeat('x', 1000) FROM generate_series(1, 1000000)")
                await asyncio.sleep(squatter.lasts)
        except (TimeoutError, QueryError):
            pass
        finally:
            if connection is not None:
                connection.close()

    # -- the server's connections -------------------------------------------------------------------------------------

    async def _watch_server(self) -> Connection:
        where = self._where
        return await Connection.open(
            Login(where.server_socket, where.server_port, where.superuser, "", where.server_database, "sampler")
        )

    async def _sample(self, connection: Connection) -> None:
        while True:
            rows = await connection.run(SAMPLE_SQL.format(superuser=self._where.superuser))
            active: dict[str, int] = {}
            for name, _, at_work in rows:
                class_name = self._scenario.class_of(name or "")
                active[class_name] = active.get(class_name, 0) + int(at_work or 0)
            self.samples.append(Sample(self._clock.now(), sum(int(row[1] or 0) for row in rows), active))
            await asyncio.sleep(SAMPLE_EVERY_SECONDS)


def main() -> None:
    file, where, out = sys.argv[1:4]
    load = Load(load_file(Path(file)), Where(**json.loads(where)))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(load.run())
    document = {"jobs": [asdict(job) for job in load.jobs], "samples": [asdict(sample) for sample in load.samples]}
    Path(out).write_text(json.dumps(document))


if __name__ == "__main__":
    main()
