"""The declared traffic as it unfolds: who begins a job, and when.

Owns: the state of every source, the bursts and the workers, the numbers of clients.
Does not know: what becomes of a job once it has begun, policies, slots.
"""

import math
from collections.abc import Callable, Collection, Mapping
from functools import partial

from proxy.admission.classes import ClientId
from proxy.admission.simulation.agenda import Agenda
from proxy.admission.simulation.population import BurstRun, Job, SourceRun, Worker
from proxy.admission.simulation.streams import burst_times, generator, worker_draws
from proxy.admission.simulation.tally import ClassTally
from proxy.admission.simulation.traffic import NO_PAUSE, Burst, ClosedLoop, Source, Traffic


class Workload:
    """`begin` is called with each job of a worker and its moment; jobs of open sources are asked for, one by one."""

    def __init__(
        self,
        traffic: Traffic,
        seed: int,
        tallies: Mapping[str, ClassTally],
        unbounded_classes: Collection[str],
        agenda: Agenda,
        begin: Callable[[Job, float], None],
    ) -> None:
        self._end = traffic.duration_seconds
        self._seed = seed
        self._schedule = agenda.add
        self._begin = begin
        self._bursts_under_way = 0
        self._clients_made = 0
        self.bursts: list[BurstRun] = []
        self.runs = [self._run_of(source, tallies, unbounded_classes) for source in traffic.sources]
        for run in self.runs:
            self._schedule_workers(run)

    def arrival(self, number: int, hold: float, at: float) -> Job:
        """A job of the open source of that number: a client of its own, and nothing after it."""
        return Job(self.runs[number], self._new_client(), hold, at, self._bursts_under_way > 0, None)

    def worker_is_free(self, job: Job, worker: Worker, now: float, pause: float) -> None:
        """The job is over; the worker takes up its next one when it has thought, and after `pause` at the earliest."""
        if worker.burst is not None:
            self._note_burst_job(worker.burst, now)
        self._schedule(now + max(pause, worker.draw_think()), partial(self._work, job.run, worker))

    def _run_of(
        self, source: Source, tallies: Mapping[str, ClassTally], unbounded_classes: Collection[str]
    ) -> SourceRun:
        return SourceRun(
            source=source,
            tally=tallies[source.class_name],
            unbounded=source.class_name in unbounded_classes,
            free_clients=source.clients,
            flows=tuple((source.name, identity) for identity in range(source.identities)),
            draw_jitter=generator(self._seed, source.name, "retry").random,
        )

    def _schedule_workers(self, run: SourceRun) -> None:
        match run.source.arrivals:
            case Burst() as burst:
                for number, at in enumerate(burst_times(run.source, burst, self._end)):
                    self._schedule(at, partial(self._burst_begins, run, burst, number))
            case ClosedLoop() as loop if run.source.start_seconds < self._end:
                self._schedule(run.source.start_seconds, partial(self._loop_begins, run, loop))

    def _burst_begins(self, run: SourceRun, burst: Burst, number: int, now: float) -> None:
        burst_run = BurstRun(run.source, now, jobs_left=burst.workers * burst.jobs)
        self.bursts.append(burst_run)
        self._bursts_under_way += 1
        for index in range(burst.workers):
            hold, think = worker_draws(self._seed, run.source, NO_PAUSE, number, index)
            worker = Worker(self._new_client(), hold, think, burst.jobs, burst_run)
            self._schedule(now + burst.over_seconds * index / burst.workers, partial(self._work, run, worker))

    def _loop_begins(self, run: SourceRun, loop: ClosedLoop, now: float) -> None:
        for index in range(loop.workers):
            hold, think = worker_draws(self._seed, run.source, loop.think, 0, index)
            worker = Worker(self._new_client(), hold, think, math.inf, None)
            self._schedule(now + think(), partial(self._work, run, worker))

    def _work(self, run: SourceRun, worker: Worker, now: float) -> None:
        # A burst that has begun does all its jobs; `stop` ends a loop.
        if worker.jobs_left and (worker.burst is not None or now < run.source.stop_seconds):
            worker.jobs_left -= 1
            self._begin(Job(run, worker.client, worker.draw_hold(), now, self._bursts_under_way > 0, worker), now)

    def _note_burst_job(self, burst: BurstRun, now: float) -> None:
        burst.jobs_left -= 1
        if not burst.jobs_left:
            burst.drained_at = now
            self._bursts_under_way -= 1

    def _new_client(self) -> ClientId:
        self._clients_made += 1
        return ClientId(self._clients_made)
