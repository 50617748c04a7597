"""What the session layer counts: plain integers and histograms, read at scrape time.

Owns: the counters of one process.
Does not know: metric names, Prometheus, how a number came about. Slots and refusals are counted by the admission core.
"""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

from proxy.session.histogram import SECONDS, Histogram


@dataclass(slots=True)
class ClassMeasures:
    """One class: seconds waited by outcome, seconds a slot was held, seconds from request to end of a unit."""

    wait_granted: Histogram = field(default_factory=Histogram)
    wait_refused: Histogram = field(default_factory=Histogram)
    wait_left: Histogram = field(default_factory=Histogram)
    hold: Histogram = field(default_factory=Histogram)
    transaction: Histogram = field(default_factory=Histogram)

    def held(self, hold_seconds: float, transaction_seconds: float) -> None:
        """A slot was given back. Without a wait the two times are one, and one search finds both buckets."""
        hold, transaction = self.hold, self.transaction
        if hold_seconds != transaction_seconds:
            hold.observe(hold_seconds)
            transaction.observe(transaction_seconds)
            return
        bucket = bisect_left(SECONDS, hold_seconds)
        hold.counts[bucket] += 1
        hold.sum += hold_seconds
        transaction.counts[bucket] += 1
        transaction.sum += hold_seconds


@dataclass(slots=True)
class Measures:
    """Everything counted outside the admission core."""

    classes: dict[str, ClassMeasures] = field(default_factory=dict)
    protocol_violations: Counter[str] = field(default_factory=Counter)  # by side: client, server, startup
    login_failures: Counter[str] = field(default_factory=Counter)  # by SQLSTATE
    login_timeouts: int = 0
    logins: int = 0
    dials: int = 0
    dial_failures: int = 0
    dial_retries: int = 0  # the server said "too many connections" and was asked again
    servers_lost_linked: int = 0
    servers_lost_idle: int = 0
    cancels_forwarded: int = 0
    cancels_of_waiting: int = 0
    cancels_unknown: int = 0
    parameters_reapplied: int = 0
    parameters_failed: int = 0
    pins: Counter[tuple[str, str]] = field(default_factory=Counter)  # by (class, reason)
    refusals_outside_queue: Counter[tuple[str, str]] = field(default_factory=Counter)  # by (class, reason)
    crashes: int = 0

    def of(self, class_name: str) -> ClassMeasures:
        measures = self.classes.get(class_name)
        if measures is None:
            measures = self.classes[class_name] = ClassMeasures()
        return measures
