"""The event loop of a simulation: declared traffic against one policy, in simulated time.

An open source's job is a client of its own: it asks, is granted or waits, holds its slot, and is gone. A worker is a
client that does so again and again. What the simulation leaves out: dialling and the proxy's own time. A hold lasts as
long under every policy, unless the traffic declares a server that is slower at times, or when it is busy.

Owns: the moves of a job from place to place.
Does not know: how a policy decides, how events are kept in order, percentiles, wall time.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

from proxy.admission.classes import ClientId
from proxy.admission.decisions import Decision, Grant, RefusalReason, Refuse
from proxy.admission.simulation.agenda import Agenda
from proxy.admission.simulation.front_door import FrontDoor
from proxy.admission.simulation.policies import Policy, Ticking
from proxy.admission.simulation.population import BurstRun, Job, Place, SourceRun
from proxy.admission.simulation.server import Server
from proxy.admission.simulation.slot_use import SlotUse
from proxy.admission.simulation.streams import open_arrivals
from proxy.admission.simulation.tally import ClassTally
from proxy.admission.simulation.traffic import Traffic
from proxy.admission.simulation.workload import Workload

# A worker whose job failed for good takes up the next one after this pause: against a class that refuses at once it
# would otherwise do endless work in no time.
FAILED_JOB_PAUSE_SECONDS = 0.1
# A policy that asks to be woken again and again at one instant, and decides nothing, would stop the clock.
MOST_FRUITLESS_WAKEUPS = 1000

# Naming a member of an enum costs as much as a call in CPython 3.11, and these two are named for every job.
IN_SERVICE = Place.IN_SERVICE
OVER = Place.OVER

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
        self._seed = seed
        self._end = traffic.duration_seconds
        self._tallies = {name: ClassTally(name) for name in class_names}
        self._waiting: dict[ClientId, Job] = {}
        self._backing_off: set[Job] = set()
        self._agenda = Agenda()
        self._schedule = self._agenda.add
        self._workload = Workload(traffic, seed, self._tallies, unbounded_classes, self._agenda, self._start)
        self._now = 0.0
        self._slots = SlotUse(total)
        self._fruitless_wakeups = 0
        self._server = None if traffic.server.is_ideal else Server(traffic.server)
        self._on_server: dict[Job, float] = {}
        self._job_is_over = job_is_over
        if progress is not None:
            for percent in range(1, 101):
                self._schedule(self._end * percent / 100, progress)
        for at, order in orders:
            self._schedule(at, partial(self._carry_out, order))
        if isinstance(policy, Ticking):
            self._schedule(policy.tick_seconds, partial(self._tick, policy))

    def run(self) -> Outcome:
        """Simulate to the end of the traffic."""
        arrival, happen_until, start = self._workload.arrival, self._happen_until, self._start
        for at, number, hold in open_arrivals(self._traffic, self._seed):
            happen_until(at)
            start(arrival(number, hold, at), at)
        happen_until(self._end)
        self._close()
        return Outcome(
            classes=tuple(self._tallies.values()),
            bursts=tuple(self._workload.bursts),
            most_in_use=self._slots.most_in_use,
            slot_seconds=math.fsum(tally.slot_seconds for tally in self._tallies.values()),
            idle_slot_seconds=self._slots.idle_seconds,
            queued_seconds=self._slots.queued_seconds,
            events=self._agenda.made,
        )

    # What happens beside the traffic.

    def _tick(self, policy: Ticking, now: float) -> None:
        self._apply(policy.tick(now), now)
        if now + policy.tick_seconds <= self._end:
            self._schedule(now + policy.tick_seconds, partial(self._tick, policy))

    def _carry_out(self, order: Order, now: float) -> None:
        self._apply(order(now), now)

    # The moves of a job.

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
        self._slots.account(now, bool(self._waiting))
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
        self._slots.account(now, bool(self._waiting))
        job = self._waiting.pop(client)
        job.run.tally.left_queue(now)
        return job

    def _serve(self, job: Job, now: float) -> None:
        if self._waiting:
            self._slots.account(now, True)
        self._slots.take()
        job.place = IN_SERVICE
        tally, done_at = job.run.tally, now + job.hold
        tally.in_service += 1
        if tally.in_service > tally.most_in_service:  # noqa: PLR1730 - for every job, and max() takes three times as long
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
            self._slots.account(now, True)
        self._slots.give_back()
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
            self._workload.worker_is_free(job, worker, now, pause)
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

    def _close(self) -> None:
        self._slots.account(self._end, bool(self._waiting))
        in_application = [
            job for run in self._workload.runs for job in run.in_application if job.place is Place.IN_APPLICATION
        ]
        for job in (*self._waiting.values(), *self._backing_off, *in_application):
            self._note_wait(job, self._end)
        for job, since in self._on_server.items():
            job.run.tally.slot_seconds += self._end - since
        for tally in self._tallies.values():
            tally.close(self._end)

    # Time.

    def _happen_until(self, until: float) -> None:
        """Everything up to and including `until`: a slot given back at an instant serves who arrives at it."""
        agenda, server = self._agenda, self._server
        while True:
            next_at = agenda.next_at()
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
            self._now = next_at
            agenda.happen()

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
