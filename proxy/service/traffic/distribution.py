"""For how many seconds a number had which value: enough for its quantiles, its mean and its maximum.

Owns: the steps in which large values are kept, and the quantiles.
Does not know: what the number is.
"""

import math
from collections.abc import Mapping
from typing import Final

# Up to here each value is kept as it is; above, in steps of less than one per cent, rounded up.
_EXACT: Final = 256


def _step(value: int) -> int:
    if value <= _EXACT:
        return value
    width = 1 << (value.bit_length() - _EXACT.bit_length() + 1)
    return -(-value // width) * width


class Distribution:
    """Seconds by value. The number of different values is bounded whatever comes: a few hundred."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: Mapping[int, float] | None = None) -> None:
        self.seconds: dict[int, float] = dict(seconds or {})

    def add(self, value: int, seconds: float) -> None:
        value = _step(value)
        self.seconds[value] = self.seconds.get(value, 0.0) + seconds

    def merge(self, other: "Distribution") -> None:
        for value, seconds in other.seconds.items():
            self.add(value, seconds)

    @property
    def observed_seconds(self) -> float:
        return sum(self.seconds.values())

    def most(self) -> int:
        return max((value for value, seconds in self.seconds.items() if seconds > 0), default=0)

    def quantile(self, share: float, of_seconds: float | None = None) -> int:
        """The least value that was not exceeded for `share` of the time.

        `of_seconds` is the whole time where this one was only looked at while it was not 0.
        """
        observed = self.observed_seconds
        whole = max(observed, of_seconds or 0.0)
        below = whole - observed  # at 0
        # What adding up leaves over must not make the difference of a step.
        wanted = share * whole - 1e-9 * whole
        if whole <= 0 or below >= wanted > 0:
            return 0
        for value in sorted(self.seconds):
            below += self.seconds[value]
            if below >= wanted:
                return value
        return self.most()


class Times:
    """A histogram of lengths of time, as far as anything was counted: by the index of its bucket, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...], counts: Mapping[int, int] | None = None, total: float = 0.0) -> None:
        self.bounds = bounds
        self.counts: dict[int, int] = dict(counts or {})
        self.sum = total

    def add(self, counts: Mapping[int, int], total: float) -> None:
        for bucket, count in counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.sum += total

    @property
    def count(self) -> int:
        return sum(self.counts.values())

    @property
    def mean(self) -> float:
        return self.sum / self.count if self.count else 0.0

    def quantile(self, share: float) -> float:
        """The upper bound of the bucket in which the quantile lies; infinity above the last one, 0 without counts."""
        wanted, below = share * self.count, 0
        for bucket in sorted(self.counts):
            below += self.counts[bucket]
            if below >= wanted:
                return self.bounds[bucket] if bucket < len(self.bounds) else math.inf
        return 0.0
