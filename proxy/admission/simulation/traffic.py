"""Declared traffic: who asks for slots, when, for how long, and when they lose patience.

Owns: the declaration and what is wrong with it, in plain words.
Does not know: files, classification (a source arrives with its class decided), the policies it will meet.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass, field

from proxy.admission.simulation.durations import Constant, Duration
from proxy.admission.simulation.server import ServerModel

NO_PAUSE = Constant(0.0)


@dataclass(frozen=True, slots=True)
class Poisson:
    """Independent arrivals, as from many customers. Nobody waits for an answer before the next one asks."""

    per_second: float


@dataclass(frozen=True, slots=True)
class ConstantRate:
    """Evenly spaced arrivals."""

    per_second: float


@dataclass(frozen=True, slots=True)
class Burst:
    """`workers` begin at `at_seconds` (spread evenly over `over_seconds`); each does `jobs` one after the other.

    Where `every_seconds` is above 0 the burst comes again, whether or not the last one is drained.
    """

    at_seconds: float
    workers: int
    jobs: int
    over_seconds: float = 0.0
    every_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """`workers` that do one job after the other from start to stop, with a pause for thinking between two."""

    workers: int
    think: Duration = NO_PAUSE


Arrivals = Poisson | ConstantRate | Burst | ClosedLoop


@dataclass(frozen=True, slots=True)
class Retry:
    """What a client does after a refusal: try again, at most `attempts` times in all, waiting longer each time.

    `jitter` 0.5 takes off up to half of a pause, by chance. `listens`: it waits for as long as it is told, and that is
    more than its own pause says. `reconnects`: a refusal ends its connection, and to try again is to connect again.
    """

    after_seconds: float
    attempts: int
    factor: float = 2.0
    at_most_seconds: float = math.inf
    jitter: float = 0.0
    listens: bool = False
    reconnects: bool = False

    def pause_seconds(self, attempts_made: int, drawn: float = 0.0, told_seconds: float = 0.0) -> float:
        """`drawn` is from 0 to 1, `told_seconds` the retry_after of the refusal."""
        # The exponent is bounded: 2.0 ** 2000 is no number.
        longer = self.factor ** min(attempts_made - 1, 60)
        own = min(self.at_most_seconds, self.after_seconds * longer) * (1.0 - self.jitter * drawn)
        return float(max(own, told_seconds) if self.listens else own)


NO_RETRY = Retry(after_seconds=0.0, attempts=1)


@dataclass(frozen=True, slots=True)
class Source:
    """One kind of client.

    `clients` bounds the connections of a poisson or constant source: a job that finds all of them busy waits inside the
    application, and that wait counts. `identities` is how many identities they have, for fairness inside the class.
    `patience_seconds` counts from the job's arrival to the slot, retries included.
    """

    name: str
    class_name: str
    arrivals: Arrivals
    hold: Duration
    start_seconds: float = 0.0
    stop_seconds: float = math.inf
    clients: float = math.inf
    identities: int = 1
    patience_seconds: float = math.inf
    retry: Retry = NO_RETRY

    def workers(self) -> int:
        return self.arrivals.workers if isinstance(self.arrivals, Burst | ClosedLoop) else 0


@dataclass(frozen=True, slots=True)
class Traffic:
    """`duration_seconds` of traffic. What is unfinished at the end is reported as still there."""

    duration_seconds: float
    sources: tuple[Source, ...]
    server: ServerModel = field(default_factory=ServerModel)

    def validate(self, class_names: Collection[str]) -> list[str]:
        """What cannot be simulated, in plain words; empty where all is well."""
        problems = [] if 0 < self.duration_seconds < math.inf else ["duration must be above 0 and finite"]
        if not self.sources:
            problems.append("sources is empty: there is nothing to simulate")
        for source in self.sources:
            problems += [f"sources.{source.name}: {text}" for text in source_problems(source, class_names)]
        return problems + self.server.problems()


def source_problems(source: Source, class_names: Collection[str]) -> list[str]:
    known = ", ".join(class_names)
    checks = (
        (source.class_name in class_names, f'class "{source.class_name}" is not configured; classes are: {known}'),
        (source.start_seconds >= 0, f"start is {source.start_seconds} s, it cannot be negative"),
        (source.stop_seconds > source.start_seconds, "stop is not after start"),
        (source.clients >= 1, f"clients is {source.clients}, it must be at least 1"),
        (source.identities >= 1, f"identities is {source.identities}, it must be at least 1"),
        (source.patience_seconds > 0, f"patience is {source.patience_seconds} s, it must be above 0"),
        (
            not source.workers() or source.clients == math.inf,
            "clients is for poisson and constant; workers are clients",
        ),
    )
    problems = [text for holds, text in checks if not holds]
    return problems + hold_problems(source) + arrival_problems(source.arrivals) + retry_problems(source.retry)


def hold_problems(source: Source) -> list[str]:
    problems = [f"hold: {text}" for text in source.hold.problems()]
    if not problems and source.workers() and source.hold.mean_seconds() == 0:
        return ["hold: workers need one above 0, else they do endless work in no time"]
    return problems


def arrival_problems(arrivals: Arrivals) -> list[str]:
    match arrivals:
        case Poisson(rate) | ConstantRate(rate):
            return [] if 0 < rate < math.inf else [f"arrivals: {rate} per second, it must be above 0"]
        case Burst():
            return burst_problems(arrivals)
        case ClosedLoop(workers, think):
            few = [] if workers >= 1 else [f"arrivals: closed.workers is {workers}, it must be at least 1"]
            return few + [f"arrivals: closed.think: {text}" for text in think.problems()]


def burst_problems(burst: Burst) -> list[str]:
    checks = (
        (burst.workers >= 1, f"burst.workers is {burst.workers}, it must be at least 1"),
        (burst.jobs >= 1, f"burst.jobs is {burst.jobs}, it must be at least 1"),
        (burst.at_seconds >= 0, f"burst.at is {burst.at_seconds} s, it cannot be negative"),
        (burst.over_seconds >= 0, f"burst.over is {burst.over_seconds} s, it cannot be negative"),
        (burst.every_seconds >= 0, f"burst.every is {burst.every_seconds} s, it cannot be negative"),
    )
    return [f"arrivals: {text}" for holds, text in checks if not holds]


def retry_problems(retry: Retry) -> list[str]:
    checks = (
        (retry.attempts >= 1, f"attempts is {retry.attempts}, it must be at least 1"),
        (retry.attempts == 1 or retry.after_seconds > 0, f"after is {retry.after_seconds} s, it must be above 0"),
        (retry.factor >= 1, f"factor is {retry.factor}, it must be at least 1"),
        (0 <= retry.jitter <= 1, f"jitter is {retry.jitter}, it must be from 0 to 1"),
        (retry.at_most_seconds > 0, f"at_most is {retry.at_most_seconds} s, it must be above 0"),
    )
    return [f"retry: {text}" for holds, text in checks if not holds]
