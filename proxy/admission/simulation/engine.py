"""The event loop of a simulation: declared traffic against one policy, in simulated time.

An open source's job is a client of its own: it asks, is granted or waits, holds its slot, and is gone. A worker is a
client that does so again and again. What the simulation leaves out: dialling and the proxy's own time. A hold lasts as
long under every policy, unless the traffic declares a server that is slower at times, or when it is busy.

Owns: the heap of events, the moves of a job from place to place, the slots in use over time.
Does not know: how a policy decides, percentiles, wall time.
"""

import heapq
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

from proxy.admission.classes import ClientId
from proxy.admission.decisions import Decision, Grant, RefusalReason, Refuse
from proxy.admission.simulation.front_door import FrontDoor
from proxy.admission.simulation.policies import Policy, Ticking
from proxy.admission.simulation.population import BurstRun, Job, Place, SourceRun, Worker
from proxy.admission.simulation.server import Server
from proxy.admission.simulation.streams import burst_times, generator, open_arrivals, worker_draws
from proxy.admission.simulation.tally import ClassTally
from proxy.admission.simulation.traffic import NO_PAUSE, Burst, ClosedLoop, Source, Traffic

# A worker whose job failed for good takes up the next one after this pause: against a class that refuses at once it
# would otherwise do endless work in no time.
FAILED_JOB_PAUSE_SECONDS = 0.1
# A policy that asks to be woken again and again at one instant, and decides nothing, would stop the clock.
MOST_FRUITLESS_WAKEUPS = 1000

# Naming a member of an enum costs as much as a call in CPython 3.11, and these two are named for every job.
IN_SERVICE = Place.IN_SERVICE
OVER = Place.OVER

Happening = Callable[[float], None]
# What an operator does at a moment, and what the policy decides on it.
Order = Callable[[float], Sequence[Decision]]
# A job is over: the moment, and why it was given up, None where it was served.
JobIsOver = Callable[[Job, float, str | None], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one policy made of the traffic. `idle_slot_seconds` are those of slots nobody had while somebody waited."""

    classes: tuple[ClassTally, ...]
    bursts: tuple[BurstRun, ...]
    most_in_use: int
    slot_seconds: float
    idle_slot_seconds: float
    queued_seconds: float
    events: int


class Simulation:
    """One run of one policy. Make it, call `run` once."""

    def __init__(
        self,
        policy: Policy,
        traffic: Traffic,
        *,
        total: int,
        class_names: Collection[str],
        seed: int,
        unbounded_classes: Collection[str] = (),
        progress: Callable[[float], None] | None = None,
        front_door: FrontDoor | None = None,
        orders: Sequence[tuple[float, Order]] = (),
        job_is_over: JobIsOver | None = None,
    ) -> None:
        """`orders` are carried out at their seconds; `job_is_over` is told of every job."""
        self._policy = policy
        self._front_door = front_door
        self._traffic = traffic
        self._total = total
        self._seed = seed
        self._end = traffic.duration_seconds
        self._tallies = {name: ClassTally(name) for name in class_names}
        self._runs = [self._run_of(source, unbounded_classes) for source in traffic.sources]
        self._bursts: list[BurstRun] = []
        self._bursts_under_way = 0
        self._waiting: dict[ClientId, Job] = {}
        self._backing_off: set[Job] = set()
        self._events: list[tuple[float, int, Happening]] = []
        self._events_made = 0
        self._clients_made = 0
        self._now = 0.0
        self._in_use = 0
        self._most_in_use = 0
        self._idle_slot_seconds = 0.0
        self._queued_seconds = 0.0
        self._accounted_at = 0.0
        self._fruitless_wakeups = 0
        self._server = None if traffic.server.is_ideal else Server(traffic.server)
        self._on_server: dict[Job, float] = {}
        self._job_is_over = job_is_over
        self._schedule_declared(progress)
        for at, order in orders:
            self._schedule(at, partial(self._carry_out, order))
        if isinstance(policy, Ticking):
            self._schedule(policy.tick_seconds, partial(self._tick, policy))

    def run(self) -> Outcome:
        """Simulate to the end of the traffic."""
        runs, happen_until, start = self._runs, self._happen_until, self._start
        for at, number, hold in open_arrivals(self._traffic, self._seed):
            happen_until(at)
            start(Job(runs[number], self._new_client(), hold, at, self._bursts_under_way > 0, None), at)
        happen_until(self._end)
        self._close()
        return Outcome(
            classes=tuple(self._tallies.values()),
            bursts=tuple(self._bursts),
            most_in_use=self._most_in_use,
            slot_seconds=math.fsum(tally.slot_seconds for tally in self._tallies.values()),
            idle_slot_seconds=self._idle_slot_seconds,
            queued_seconds=self._queued_seconds,
            events=self._events_made,
        )

    # What the declaration says will happen.

    def _run_of(self, source: Source, unbounded_classes: Collection[str]) -> SourceRun:
        return SourceRun(
            source=source,
            tally=self._tallies[source.class_name],
            unbounded=source.class_name in unbounded_classes,
            free_clients=source.clients,
            flows=tuple((source.name, identity) for identity in range(source.identities)),
            draw_jitter=generator(self._seed, source.name, "retry").random,
        )

    def _schedule_declared(self, progress: Callable[[float], None] | None) -> None:
        for run in self._runs:
            match run.source.arrivals:
                case Burst() as burst:
                    for number, at in enumerate(burst_times(run.source, burst, self._end)):
                        self._schedule(at, partial(self._burst_begins, run, burst, number))
                case ClosedLoop() as loop if run.source.start_seconds < self._end:
                    self._schedule(run.source.start_seconds, partial(self._loop_begins, run, loop))
        if progress is not None:
            for percent in range(1, 101):
                self._schedule(self._end * percent / 100, progress)

    def _burst_begins(self, run: SourceRun, burst: Burst, number: int, now: float) -> None:
        burst_run = BurstRun(run.source, now, jobs_left=burst.workers * burst.jobs)
        self._bursts.append(burst_run)
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

    def _tick(self, policy: Ticking, now: float) -> None:
        self._apply(policy.tick(now), now)
        if now + policy.tick_seconds <= self._end:
            self._schedule(now + policy.tick_seconds, partial(self._tick, policy))

    def _carry_out(self, order: Order, now: float) -> None:
        self._apply(order(now), now)

    # The moves of a job.

    def _work(self, run: SourceRun, worker: Worker, now: float) -> None:
        # A burst that has begun does all its jobs; `stop` ends a loop.
        if worker.jobs_left and (worker.burst is not None or now < run.source.stop_seconds):
            worker.jobs_left -= 1
            self._start(Job(run, worker.client, worker.draw_hold(), now, self._bursts_under_way > 0, worker), now)

    def _start(self, job: Job, now: float) -> None:
        run = job.run
        run.tally.arrived += 1
        if run.free_clients > 0:
            run.free_clients -= 1
            self._ask(job, now)
        else:
            job.place = Place.IN_APPLICATION
            run.tally.in_application += 1
            run.in_application.append(job)
        if job.place is not IN_SERVICE and run.source.patience_seconds < math.inf:
            self._schedule(now + run.source.patience_seconds, partial(self._patience_ends, job))

    def _ask(self, job: Job, now: float) -> None:
        run = job.run
        run.tally.asked += not job.attempts
        run.tally.attempts += 1
        job.asked_at = now
        if self._front_door is not None and run.source.retry.reconnects:
            too_many = self._front_door.enter(job.client, run.source.class_name, run.flow(job.client), now)
            if too_many is not None:
                self._sent_away(job, RefusalReason.RATE, too_many.retry_after_ms, now)
                return
        if not run.unbounded and self._policy.try_grant(job.client, run.source.class_name, now):
            self._serve(job, now)
            return
        self._account(now)
        job.place = Place.WAITING
        run.tally.joined_queue(now)
        self._waiting[job.client] = job
        flow, unbounded = run.flow(job.client), run.unbounded
        self._apply(
            self._policy.request(job.client, run.source.class_name, flow=flow, now=now, unbounded=unbounded), now
        )

    def _apply(self, decisions: Sequence[Decision], now: float) -> None:
        for decision in decisions:
            match decision:
                case Grant():
                    self._serve(self._taken_from_queue(decision.client, now), now)
                case Refuse():
                    job = self._taken_from_queue(decision.client, now)
                    job.run.tally.seconds_in_vain += now - job.asked_at
                    self._sent_away(job, decision.reason, decision.retry_after_ms, now)

    def _taken_from_queue(self, client: ClientId, now: float) -> Job:
        self._account(now)
        job = self._waiting.pop(client)
        job.run.tally.left_queue(now)
        return job

    def _serve(self, job: Job, now: float) -> None:
        if self._waiting:
            self._account(now)
        self._in_use += 1
        if self._in_use > self._most_in_use:  # noqa: PLR1730 - for every job, and max() takes three times as long
            self._most_in_use = self._in_use
        job.place = IN_SERVICE
        tally, done_at = job.run.tally, now + job.hold
        tally.in_service += 1
        if tally.in_service > tally.most_in_service:  # noqa: PLR1730 - likewise
            tally.most_in_service = tally.in_service
        self._note_wait(job, now)
        if self._server is not None:
            self._on_server[job] = now
            self._server.begin(job.hold, partial(self._done_by_server, job), now)
            return
        tally.slot_seconds += job.hold if done_at <= self._end else self._end - now
        self._schedule(done_at, partial(self._served, job))

    def _done_by_server(self, job: Job, now: float) -> None:
        job.run.tally.slot_seconds += now - self._on_server.pop(job)
        self._served(job, now)

    def _served(self, job: Job, now: float) -> None:
        if self._waiting:
            self._account(now)
        self._in_use -= 1
        tally = job.run.tally
        tally.in_service -= 1
        tally.served += 1
        job.place = OVER
        if self._front_door is not None and job.run.source.retry.reconnects:
            self._front_door.served(job.client)
        if self._job_is_over is not None:
            self._job_is_over(job, now, None)
        decisions = self._policy.release(job.client, now)
        if decisions:
            self._apply(decisions, now)
        self._client_is_free(job, now, pause=0.0)

    def _sent_away(self, job: Job, reason: RefusalReason, retry_after_ms: int, now: float) -> None:
        run, tally, retry = job.run, job.run.tally, job.run.source.retry
        tally.refusals[reason.value] += 1
        job.attempts += 1
        late = 0.0
        if self._front_door is not None and retry.reconnects:
            waited, name = now - job.asked_at, run.source.class_name
            late = self._front_door.sent_away(job.client, name, run.flow(job.client), waited, now)
        if job.attempts < retry.attempts:
            job.place = Place.BACKING_OFF
            tally.backing_off += 1
            self._backing_off.add(job)
            drawn = run.draw_jitter() if retry.jitter else 0.0
            pause = retry.pause_seconds(job.attempts, drawn, retry_after_ms / 1000.0)
            self._schedule(now + late + pause, partial(self._asks_again, job))
        else:
            tally.refused += 1
            self._failed(job, now, reason.value)

    def _asks_again(self, job: Job, now: float) -> None:
        if job.place is Place.BACKING_OFF:
            self._backs_off_no_more(job)
            self._ask(job, now)

    def _backs_off_no_more(self, job: Job) -> None:
        job.run.tally.backing_off -= 1
        self._backing_off.remove(job)

    def _patience_ends(self, job: Job, now: float) -> None:
        tally = job.run.tally
        match job.place:
            case Place.WAITING:
                self._taken_from_queue(job.client, now)
                tally.seconds_in_vain += now - job.asked_at
                if self._front_door is not None:
                    self._front_door.left(job.client, job.run.source.class_name, job.run.flow(job.client), now)
                self._apply(self._policy.leave(job.client, now), now)
            case Place.BACKING_OFF:
                self._backs_off_no_more(job)
            case Place.IN_APPLICATION:
                tally.in_application -= 1
            case _:
                return
        had_a_client = job.place is not Place.IN_APPLICATION
        tally.left += 1
        self._failed(job, now, "patience", had_a_client)

    def _failed(self, job: Job, now: float, why: str, had_a_client: bool = True) -> None:
        job.place = OVER
        self._note_wait(job, now)
        if self._job_is_over is not None:
            self._job_is_over(job, now, why)
        if had_a_client:
            self._client_is_free(job, now, pause=FAILED_JOB_PAUSE_SECONDS)

    def _client_is_free(self, job: Job, now: float, pause: float) -> None:
        run, worker = job.run, job.worker
        run.free_clients += 1
        if worker is not None:
            self._note_burst_job(job, worker.burst, now)
            self._schedule(now + max(pause, worker.draw_think()), partial(self._work, run, worker))
        elif run.in_application:
            # As an event and not at once: where every job is refused, a long row of them would be one deep recursion.
            self._schedule(now, partial(self._application_sends, run))

    def _application_sends(self, run: SourceRun, now: float) -> None:
        while run.in_application and run.free_clients > 0:
            job = run.in_application.popleft()
            if job.place is Place.IN_APPLICATION:
                run.tally.in_application -= 1
                run.free_clients -= 1
                self._ask(job, now)

    # What is remembered.

    def _note_wait(self, job: Job, now: float) -> None:
        tally = job.run.tally
        samples = tally.waits_in_burst if job.in_burst else tally.waits_in_calm
        samples.add(now - job.arrived_at)

    def _note_burst_job(self, job: Job, burst: BurstRun | None, now: float) -> None:
        if burst is None:
            return
        burst.jobs_left -= 1
        if not burst.jobs_left:
            burst.drained_at = now
            self._bursts_under_way -= 1

    def _account(self, now: float) -> None:
        """Before the slots in use or the waiting clients change: add up the time since they last did."""
        if self._waiting:
            elapsed = now - self._accounted_at
            self._queued_seconds += elapsed
            self._idle_slot_seconds += elapsed * (self._total - self._in_use)
        self._accounted_at = now

    def _close(self) -> None:
        self._account(self._end)
        in_application = [job for run in self._runs for job in run.in_application if job.place is Place.IN_APPLICATION]
        for job in (*self._waiting.values(), *self._backing_off, *in_application):
            self._note_wait(job, self._end)
        for job, since in self._on_server.items():
            job.run.tally.slot_seconds += self._end - since
        for tally in self._tallies.values():
            tally.close(self._end)

    # Time.

    def _new_client(self) -> ClientId:
        self._clients_made += 1
        return ClientId(self._clients_made)

    def _schedule(self, at: float, happening: Happening) -> None:
        self._events_made += 1
        # The number keeps two events of one instant in the order in which they were made.
        heapq.heappush(self._events, (at, self._events_made, happening))

    def _happen_until(self, until: float) -> None:
        """Everything up to and including `until`: a slot given back at an instant serves who arrives at it."""
        events, server = self._events, self._server
        while True:
            next_at = events[0][0] if events else math.inf
            server_at = math.inf if server is None else server.next_at()
            if self._waiting and self._woken_before(min(next_at, server_at, until)):
                continue
            if server is not None and server_at <= next_at and server_at <= until:
                self._now = server_at
                done = server.take_due(server_at)
                if done is not None:
                    done(server_at)
                continue
            if next_at > until:
                return
            at, _, happening = heapq.heappop(events)
            self._now = at
            happening(at)

    def _woken_before(self, limit: float) -> bool:
        at = self._policy.next_wakeup_at()
        if at is None or at > limit:
            return False
        self._fruitless_wakeups = self._fruitless_wakeups + 1 if at <= self._now else 0
        assert self._fruitless_wakeups < MOST_FRUITLESS_WAKEUPS, f"the policy wants to be woken for ever at {at}"
        self._now = max(at, self._now)
        decisions = self._policy.advance(self._now)
        self._apply(decisions, self._now)
        return True
