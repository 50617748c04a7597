"""From what happened to what people ask: how long did each class wait, how much got done, what stood idle.

Owns: the figures of a report and how they follow from the tallies.
Does not know: how a simulation runs, tables, wall time.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from proxy.admission.adaptive import Cause, Direction
from proxy.admission.simulation.adaptive_policy import TimedStep
from proxy.admission.simulation.engine import Outcome
from proxy.admission.simulation.population import BurstRun
from proxy.admission.simulation.tally import ClassTally, Waits, summary
from proxy.admission.simulation.traffic import Burst, ClosedLoop, ConstantRate, Poisson, Source, Traffic


@dataclass(frozen=True, slots=True)
class ClassReport:
    """One class under one policy. `arrived` = `served` + `refused` + `left` + `still_there`.

    A wait is counted from the job's arrival to its slot, or to the moment it was refused for good, or left, or the
    time was over: a policy does not look better for sending people away. `refusals` counts every refusal by reason,
    also of jobs that tried again.
    `amplification`: attempts to get a slot per job that made any. `seconds_in_vain`: waited in the queue by all jobs
    together for nothing.
    `drain_seconds` is the longest drain of the class's bursts: infinite where one was not done at the end, None where
    there was none.
    """

    class_name: str
    arrived: int
    served: int
    refused: int
    left: int
    still_there: int
    refusals: Mapping[str, int]
    amplification: float
    seconds_in_vain: float
    wait: Waits
    wait_in_burst: Waits
    served_per_second: float
    mean_slots: float
    most_slots: int
    longest_queue_seconds: float
    drain_seconds: float | None


@dataclass(frozen=True, slots=True)
class BurstReport:
    """One burst. `ideal_drain_seconds`: its work spread over all slots that the other sources leave on average."""

    source_name: str
    began_at: float
    drain_seconds: float
    ideal_drain_seconds: float


@dataclass(frozen=True, slots=True)
class StepReport:
    """One step of an adaptive limit."""

    at_seconds: float
    class_name: str
    direction: Direction
    cause: Cause
    was: int
    limit: int
    why: str


@dataclass(frozen=True, slots=True)
class PolicyReport:
    """One policy. `idle_slots_while_waiting`: free slots, on average over the time in which anybody waited."""

    policy: str
    total: int
    utilisation: float
    most_in_use: int
    queued_seconds: float
    idle_slots_while_waiting: float
    events: int
    classes: tuple[ClassReport, ...]
    bursts: tuple[BurstReport, ...]
    steps: tuple[StepReport, ...] = ()


def make_report(
    policy: str, outcome: Outcome, traffic: Traffic, total: int, steps: Sequence[TimedStep] = ()
) -> PolicyReport:
    """Classes without traffic are left out."""
    return PolicyReport(
        policy=policy,
        total=total,
        utilisation=outcome.slot_seconds / (total * traffic.duration_seconds),
        most_in_use=outcome.most_in_use,
        queued_seconds=outcome.queued_seconds,
        idle_slots_while_waiting=outcome.idle_slot_seconds / outcome.queued_seconds if outcome.queued_seconds else 0.0,
        events=outcome.events,
        classes=tuple(_class_reports(outcome, traffic)),
        bursts=tuple(_burst_report(burst, traffic, total) for burst in outcome.bursts),
        steps=tuple(map(_step_report, steps)),
    )


def _step_report(timed: TimedStep) -> StepReport:
    step = timed.step
    return StepReport(timed.at_seconds, step.class_name, step.direction, step.cause, step.was, step.limit, step.why)


def _class_reports(outcome: Outcome, traffic: Traffic) -> Iterator[ClassReport]:
    named = {source.class_name for source in traffic.sources}
    for tally in outcome.classes:
        if tally.class_name in named:
            drains = [_drain_seconds(one) for one in outcome.bursts if one.source.class_name == tally.class_name]
            yield _class_report(tally, traffic.duration_seconds, max(drains, default=None))


def _class_report(tally: ClassTally, duration_seconds: float, drain_seconds: float | None) -> ClassReport:
    return ClassReport(
        class_name=tally.class_name,
        arrived=tally.arrived,
        served=tally.served,
        refused=tally.refused,
        left=tally.left,
        still_there=tally.still_there(),
        refusals=dict(tally.refusals),
        amplification=tally.attempts / tally.asked if tally.asked else 1.0,
        seconds_in_vain=tally.seconds_in_vain,
        wait=summary(tally.waits_in_burst, tally.waits_in_calm),
        wait_in_burst=summary(tally.waits_in_burst),
        served_per_second=tally.served / duration_seconds,
        mean_slots=tally.slot_seconds / duration_seconds,
        most_slots=tally.most_in_service,
        longest_queue_seconds=tally.longest_queue_seconds,
        drain_seconds=drain_seconds,
    )


def _drain_seconds(burst: BurstRun) -> float:
    return burst.drained_at - burst.began_at


def _burst_report(burst: BurstRun, traffic: Traffic, total: int) -> BurstReport:
    return BurstReport(
        source_name=burst.source.name,
        began_at=burst.began_at,
        drain_seconds=_drain_seconds(burst),
        ideal_drain_seconds=ideal_drain_seconds(burst.source, traffic, total),
    )


def ideal_drain_seconds(source: Source, traffic: Traffic, total: int) -> float:
    """How long its work takes if nobody else wants more than on average, and no slot ever stands idle."""
    burst = source.arrivals
    assert isinstance(burst, Burst), "only bursts drain"
    one_worker = burst.jobs * source.hold.mean_seconds()
    others = math.fsum(expected_slots(one) for one in traffic.sources if one is not source)
    spread = burst.workers * one_worker / (total - others) if others < total else math.inf
    return max(spread, burst.over_seconds + one_worker)


def expected_slots(source: Source) -> float:
    """Slots the source needs on average where it never waits. A burst needs none: it is over soon."""
    hold = source.hold.mean_seconds()
    match source.arrivals:
        case Poisson(rate) | ConstantRate(rate):
            return rate * hold
        case ClosedLoop(workers, think):
            return workers * hold / (hold + think.mean_seconds())
        case Burst():
            return 0.0
