"""What the modules that write metrics share.

Owns: the prefix of all names, and a histogram as Prometheus wants it.
Does not know: any metric.
"""

from proxy.session.histogram import Histogram

PREFIX = "pgheadroom_"


def cumulative(histogram: Histogram) -> list[tuple[str, float]]:
    """Buckets as Prometheus wants them: each holds all smaller ones, the last is +Inf."""
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip((*map(str, histogram.bounds), "+Inf"), histogram.counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets
