"""What happened to one class in one simulation: plain counters and the waits, written by the engine.

Owns: the counts of one class and its longest queue; percentiles of waits.
Does not know: policies, sources, what a table looks like.
"""

import math
from array import array
from collections import Counter
from dataclasses import dataclass, field


class WaitSamples:
    """Waits in seconds. Most are exactly zero and only counted: millions of them cost nothing."""

    __slots__ = ("waits", "zeros")

    def __init__(self) -> None:
        self.zeros = 0
        self.waits = array("d")

    def add(self, seconds: float) -> None:
        if seconds > 0.0:
            self.waits.append(seconds)
        else:
            self.zeros += 1


@dataclass(frozen=True, slots=True)
class Waits:
    """A summary in seconds; percentiles by nearest rank, so each is a wait that somebody had."""

    count: int
    mean: float
    p50: float
    p95: float
    p99: float
    max: float


def summary(*samples: WaitSamples) -> Waits:
    """All the samples together. Of nothing at all every figure is 0."""
    zeros = sum(sample.zeros for sample in samples)
    waits = sorted(wait for sample in samples for wait in sample.waits)
    count = zeros + len(waits)

    def percentile(part: float) -> float:
        rank = math.ceil(part * count) - zeros
        return waits[rank - 1] if rank > 0 else 0.0

    mean = math.fsum(waits) / count if count else 0.0
    return Waits(count, mean, percentile(0.50), percentile(0.95), percentile(0.99), percentile(1.0))


@dataclass(eq=False, slots=True)
class ClassTally:
    """Counters of one class. A job is counted once in `arrived` and is in exactly one of the others at any time.

    `asked` jobs have made so many `attempts` to get a slot, connects that were refused included; `seconds_in_vain` were
    waited in the queue for a refusal, or until patience ended. `slot_seconds` are those inside the simulated time.
    Waits are kept apart for jobs that came while a burst was under way, because a percentile over a quiet hour hides a
    bad minute.
    """

    class_name: str
    arrived: int = 0
    asked: int = 0
    attempts: int = 0
    served: int = 0
    refused: int = 0
    left: int = 0
    in_service: int = 0
    waiting: int = 0
    in_application: int = 0
    backing_off: int = 0
    most_in_service: int = 0
    slot_seconds: float = 0.0
    seconds_in_vain: float = 0.0
    refusals: Counter[str] = field(default_factory=Counter)
    waits_in_burst: WaitSamples = field(default_factory=WaitSamples)
    waits_in_calm: WaitSamples = field(default_factory=WaitSamples)
    queued_since: float = 0.0
    longest_queue_seconds: float = 0.0

    def still_there(self) -> int:
        return self.in_service + self.waiting + self.in_application + self.backing_off

    def joined_queue(self, now: float) -> None:
        if not self.waiting:
            self.queued_since = now
        self.waiting += 1

    def left_queue(self, now: float) -> None:
        self.waiting -= 1
        if not self.waiting:
            self.longest_queue_seconds = max(self.longest_queue_seconds, now - self.queued_since)

    def close(self, now: float) -> None:
        """The simulated time is over: a queue that still stands is as long as it is now."""
        if self.waiting:
            self.longest_queue_seconds = max(self.longest_queue_seconds, now - self.queued_since)
