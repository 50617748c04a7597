"""How long things took, from the buckets of a histogram: what is typical, and how much longer that is than before.

Owns: the arithmetic on bucket counts.
Does not know: what was timed, when, who counts.

A histogram says no more than which bucket a time fell into, and neighbours differ by a factor of two to two and a half.
So what is typical is known between two edges, and a comparison says as well how much longer it is at the very least.
"""

import math
import operator
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache

# Seconds. From below one loop turn (an immediate grant) to the longest wait a queue may be configured for.
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Edge(IntEnum):
    """Where in its bucket a time is taken to lie. The middle is the geometric one."""

    LOWER = 0
    MIDDLE = 1
    UPPER = 2


@lru_cache(maxsize=16)
def _logarithms(bounds: Sequence[float]) -> tuple[tuple[float, ...], ...]:
    """Of each edge of each bucket. The first reaches down to half its bound, the last up to twice its own."""
    lower = tuple(math.log(one) for one in (bounds[0] / 2, *bounds))
    upper = tuple(math.log(one) for one in (*bounds, bounds[-1] * 2))
    return lower, tuple((low + high) / 2 for low, high in zip(lower, upper, strict=True)), upper


class Distribution:
    """Times by bucket: `counts[i]` those up to `bounds[i]`, the last one all that are longer; `seconds` is their sum.

    Counts are not whole where older times weigh less.
    """

    __slots__ = ("bounds", "counts", "seconds")

    def __init__(self, counts: Sequence[float] = (), seconds: float = 0.0, bounds: tuple[float, ...] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = list(counts) or [0.0] * (len(bounds) + 1)
        self.seconds = seconds

    @property
    def count(self) -> float:
        return sum(self.counts)

    def since(self, earlier: "Distribution") -> "Distribution":
        """What was added since an earlier reading of the same histogram."""
        counts = list(map(operator.sub, self.counts, earlier.counts))
        return Distribution(counts, self.seconds - earlier.seconds, self.bounds)

    def add(self, other: "Distribution") -> None:
        self.counts = list(map(operator.add, self.counts, other.counts))
        self.seconds += other.seconds

    def fade(self, factor: float) -> None:
        """From now on what is in it weighs so much of what it did."""
        self.counts = [factor * one for one in self.counts]
        self.seconds *= factor

    def count_above(self, seconds: float) -> float:
        """Those that took longer for certain: whose whole bucket lies above."""
        return sum(self.counts[sum(bound < seconds for bound in self.bounds) + 1 :])

    def median(self) -> float:
        """Inside its bucket as if times were spread evenly there; 0 of nothing."""
        left = self.count / 2
        low = 0.0
        for count, high in zip(self.counts, (*self.bounds, 2 * self.bounds[-1]), strict=True):
            if count and left <= count:
                return low + (high - low) * left / count
            left -= count
            low = high
        return 0.0

    def mean(self) -> float:
        return self.seconds / count if (count := self.count) else 0.0

    def log_mean(self, edge: Edge = Edge.MIDDLE) -> float:
        """The mean of the logarithms: a few very long ones hardly count. Not to be asked of nothing."""
        logarithms = _logarithms(self.bounds)[edge]
        return math.fsum(map(operator.mul, self.counts, logarithms)) / self.count

    def typical(self) -> float:
        """The geometric mean in seconds; 0 of nothing."""
        return math.exp(self.log_mean()) if self.count else 0.0

    def log_spread(self) -> float:
        """The standard deviation of the logarithms."""
        mean, count = self.log_mean(), self.count
        pairs = zip(self.counts, _logarithms(self.bounds)[Edge.MIDDLE], strict=True)
        return math.sqrt(sum(times * (one - mean) ** 2 for times, one in pairs) / count)


def times_longer(these: Distribution, than: Distribution) -> float:
    """How many times as long as `than` these typically are; neither may be empty."""
    return math.exp(these.log_mean() - than.log_mean())


def certainly_longer(these: Distribution, than: Distribution, times: float) -> bool:
    """Whether that is no trick of the buckets: the mean says the same, or every time may lie anywhere in its bucket."""
    at_least = these.log_mean(Edge.LOWER) - than.log_mean(Edge.UPPER)
    return these.mean() > times * than.mean() or at_least > 0.0
