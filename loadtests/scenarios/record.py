"""What one run of a scenario left behind, whoever ran it, and the figures that are reckoned from it.

Owns: the raw observations, the names of figures and their arithmetic.
Does not know: bounds, how a run is made, how a figure is shown.

Times are seconds since the start of the run.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

DROPPED: Final = ("08", "57P")  # the connection was lost, or ended by the other side
UNFINISHED: Final = "unfinished"


@dataclass(frozen=True, slots=True)
class JobOver:
    """One unit of work of a client, retries included. `error` is the SQLSTATE of the last try, None where it was done.

    `attempts` counts tries to get the work done, `connects` the logins among them.
    """

    source: str
    class_name: str
    arrived_at: float
    ended_at: float
    attempts: int
    connects: int
    error: str | None


@dataclass(frozen=True, slots=True)
class Sample:
    """Server connections at one moment: all of them, and those at work for each class."""

    at: float
    connections: int
    active: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ClassState:
    """What the proxy said of one class; PgBouncer says nothing of the kind."""

    used: int
    limit: int
    waiting: int


@dataclass(frozen=True, slots=True)
class StateSample:
    at: float
    total: int
    in_use: int
    classes: Mapping[str, ClassState]


@dataclass(slots=True)
class Record:
    """Everything seen in one run."""

    jobs: list[JobOver] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    states: list[StateSample] = field(default_factory=list)
    refusals_in_server_log: int | None = None  # None: there is no server


@dataclass(frozen=True, slots=True)
class Window:
    begins: float
    ends: float

    def __contains__(self, at: float) -> bool:
        return self.begins <= at < self.ends

    @property
    def seconds(self) -> float:
        return self.ends - self.begins


class NotSeen(LookupError):  # noqa: N818 - says what happened
    """The run holds nothing that the figure could be reckoned from; the text says what is missing."""


Figure = Callable[[Record, str, Window], float]


def percentile(values: Iterable[float], part: float) -> float:
    """By nearest rank: one of the values. Raises NotSeen where there is none."""
    ordered = sorted(values)
    if not ordered:
        raise NotSeen("no job was done in this window")
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def _latencies(record: Record, name: str, window: Window) -> list[float]:
    return [job.ended_at - job.arrived_at for job in _of(record, name, window) if job.error is None]


def _of(record: Record, name: str, window: Window) -> Sequence[JobOver]:
    """The jobs of a class, or of one source, that arrived in the window."""
    return [job for job in record.jobs if name in (job.class_name, job.source) and job.arrived_at in window]


def _p50(record: Record, name: str, window: Window) -> float:
    return percentile(_latencies(record, name, window), 0.50)


def _p99(record: Record, name: str, window: Window) -> float:
    return percentile(_latencies(record, name, window), 0.99)


def _worst(record: Record, name: str, window: Window) -> float:
    return percentile(_latencies(record, name, window), 1.0)


def _failed(record: Record, name: str, window: Window) -> float:
    return sum(job.error is not None for job in _of(record, name, window))


def _dropped(record: Record, name: str, window: Window) -> float:
    return sum(job.error is not None and job.error.startswith(DROPPED) for job in _of(record, name, window))


def _done(record: Record, name: str, window: Window) -> float:
    return sum(job.error is None for job in _of(record, name, window))


def _goodput(record: Record, name: str, window: Window) -> float:
    """Jobs that ended well in the window, per second of it."""
    ended = [job for job in record.jobs if name in (job.class_name, job.source) and job.ended_at in window]
    return sum(job.error is None for job in ended) / window.seconds


def _amplification(record: Record, name: str, window: Window) -> float:
    """Tries per job: 1 where nobody has to try again."""
    jobs = _of(record, name, window)
    if not jobs:
        raise NotSeen("no job arrived in this window")
    return sum(job.attempts for job in jobs) / len(jobs)


def _connects(record: Record, name: str, window: Window) -> float:
    """Logins per second."""
    return sum(job.connects for job in _of(record, name, window)) / window.seconds


def _drain(record: Record, name: str, window: Window) -> float:
    """From the beginning of the window until the last job that arrived in it was over."""
    jobs = _of(record, name, window)
    if not jobs:
        raise NotSeen("no job arrived in this window")
    return max(job.ended_at for job in jobs) - window.begins


def _active(record: Record, name: str, window: Window) -> list[int]:
    found = [sample.active.get(name, 0) for sample in record.samples if sample.at in window]
    if not found:
        raise NotSeen("the server's connections were not seen in this window")
    return found


def _active_mean(record: Record, name: str, window: Window) -> float:
    found = _active(record, name, window)
    return sum(found) / len(found)


def _active_most(record: Record, name: str, window: Window) -> float:
    return max(_active(record, name, window))


def _active_least(record: Record, name: str, window: Window) -> float:
    return min(_active(record, name, window))


def _connections_most(record: Record, name: str, window: Window) -> float:
    found = [sample.connections for sample in record.samples if sample.at in window]
    if not found:
        raise NotSeen("the server's connections were not seen in this window")
    return max(found)


def _states(record: Record, window: Window) -> list[StateSample]:
    found = [state for state in record.states if state.at in window]
    if not found:
        raise NotSeen("nothing here tells what its classes hold")
    return found


def _used_mean(record: Record, name: str, window: Window) -> float:
    found = [state.classes[name].used for state in _states(record, window)]
    return sum(found) / len(found)


def _used_most(record: Record, name: str, window: Window) -> float:
    return max(state.classes[name].used for state in _states(record, window))


def _limits(record: Record, name: str, window: Window) -> list[int]:
    return [state.classes[name].limit for state in _states(record, window)]


def _limit_least(record: Record, name: str, window: Window) -> float:
    return min(_limits(record, name, window))


def _limit_last(record: Record, name: str, window: Window) -> float:
    return _limits(record, name, window)[-1]


def _reversals(record: Record, name: str, window: Window) -> float:
    """How often the limit turned from falling to rising or back."""
    steps = [after - before for before, after in pairwise(_limits(record, name, window)) if after != before]
    return sum((one > 0) != (next_one > 0) for one, next_one in pairwise(steps))


def _rises_over_budget(record: Record, name: str, window: Window) -> float:
    """How often use rose while it was above the budget already."""
    return sum(
        after.in_use > before.in_use and after.in_use > after.total
        for before, after in pairwise(_states(record, window))
    )


def _server_refusals(record: Record, name: str, window: Window) -> float:
    if record.refusals_in_server_log is None:
        raise NotSeen("there is no server in a simulation")
    return record.refusals_in_server_log


# By the name that scenarios use; what needs no class has none in front of it.
FIGURES: Final[Mapping[str, Figure]] = {
    "p50": _p50,
    "p99": _p99,
    "worst": _worst,
    "failed": _failed,
    "dropped": _dropped,
    "done": _done,
    "goodput": _goodput,
    "amplification": _amplification,
    "connects": _connects,
    "drain": _drain,
    "active_mean": _active_mean,
    "active_most": _active_most,
    "active_least": _active_least,
    "connections_most": _connections_most,
    "used_mean": _used_mean,
    "used_most": _used_most,
    "limit_least": _limit_least,
    "limit_last": _limit_last,
    "reversals": _reversals,
    "rises_over_budget": _rises_over_budget,
    "server_refusals": _server_refusals,
}
IN_SECONDS: Final = frozenset({"p50", "p99", "worst", "drain"})
OF_THE_WHOLE: Final = frozenset({"connections_most", "rises_over_budget", "server_refusals"})
