"""A histogram of plain integers, read at scrape time.

Owns: bucket counts and the sum of what was observed.
Does not know: metric names, Prometheus, what is measured.
"""

from array import array
from bisect import bisect_left

from proxy.admission.distribution import SECONDS

__all__ = ["SECONDS", "Histogram"]


class Histogram:
    """Counts per bucket: `counts[i]` holds values <= `bounds[i]`, the last one all that are larger. Not cumulative."""

    __slots__ = ("_counts", "_lowest", "bounds", "sum")

    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        self.bounds = bounds
        self._lowest = bounds[0]
        self._counts = array("q", [0] * (len(bounds) + 1))
        self.sum = 0.0

    @property
    def counts(self) -> list[int]:
        return list(self._counts)

    @property
    def count(self) -> int:
        return sum(self._counts)

    def observe(self, value: float) -> None:
        bucket = 0 if value <= self._lowest else bisect_left(self.bounds, value)
        self._counts[bucket] += 1
        self.sum += value

    def observe_zeros(self, times: int) -> None:
        """The same as `observe(0.0)` so many times."""
        self._counts[0] += times

    def add(self, other: "Histogram") -> None:
        """Count what `other` has counted as well. The bounds are the same."""
        for bucket, count in enumerate(other.counts):
            self._counts[bucket] += count
        self.sum += other.sum

    def clear(self) -> None:
        for bucket in range(len(self._counts)):
            self._counts[bucket] = 0
        self.sum = 0.0
