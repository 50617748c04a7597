"""A histogram of plain integers, read at scrape time.

Owns: bucket counts and the sum of what was observed.
Does not know: metric names, Prometheus, what is measured.
"""

from bisect import bisect_left

# Seconds. From below one loop turn (an immediate grant) to the longest wait a queue may be configured for.
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Histogram:
    """Counts per bucket: `counts[i]` holds values <= `bounds[i]`, the last one all that are larger. Not cumulative."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        return sum(self.counts)
