"""What a load run measured, and what is reckoned from it.

Owns: the raw observations of one run and the figures of the table.
Does not know: how they were gathered, or how they are shown.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class WebRequest:
    """Times in seconds since the start of the run. `latency` counts from the intended time, whoever made it late."""

    intended_at: float
    latency: float
    error: str | None  # SQLSTATE, or "timeout"


@dataclass(frozen=True, slots=True)
class BulkJob:
    started_at: float
    ended_at: float
    failed_attempts: int
    error: str | None  # of the last attempt, where the job was given up


@dataclass(frozen=True, slots=True)
class ConnectionSample:
    """Server connections of ordinary roles as pg_stat_activity showed them; `active_*` are those running a query."""

    at: float
    total: int
    active_web: int
    active_bulk: int


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds, of the requests that succeeded; NaN where there was none."""

    count: int
    p50: float
    p99: float
    worst: float


@dataclass(slots=True)
class Observations:
    """Everything seen in one run. The calm window is [calm_from, burst_at), the burst [burst_at, drained_at)."""

    calm_from: float
    burst_at: float
    drained_at: float = math.nan
    web: list[WebRequest] = field(default_factory=list)
    bulk: list[BulkJob] = field(default_factory=list)
    samples: list[ConnectionSample] = field(default_factory=list)
    lateness: list[float] = field(default_factory=list)  # of the load generator itself


@dataclass(frozen=True, slots=True)
class Figures:
    """One row of the table."""

    web_calm: Latency
    web_burst: Latency
    web_requests: int
    web_errors: int
    drain_seconds: float
    bulk_jobs: int
    bulk_failed: int
    bulk_failed_attempts: int
    peak_connections: int
    generator_late_p99: float
    errors: dict[str, int]  # SQLSTATE -> how often, over web requests and jobs given up

    @property
    def p99_ratio(self) -> float:
        """How many times slower the slowest hundredth of web requests got under the burst."""
        return self.web_burst.p99 / self.web_calm.p99 if self.web_calm.p99 else math.nan


def reckon(seen: Observations) -> Figures:
    calm = [request for request in seen.web if seen.calm_from <= request.intended_at < seen.burst_at]
    burst = [request for request in seen.web if seen.burst_at <= request.intended_at < seen.drained_at]
    errors = Counter([request.error for request in seen.web] + [job.error for job in seen.bulk])
    return Figures(
        web_calm=latency_of(calm),
        web_burst=latency_of(burst),
        web_requests=len(seen.web),
        web_errors=sum(request.error is not None for request in seen.web),
        drain_seconds=seen.drained_at - seen.burst_at,
        bulk_jobs=len(seen.bulk),
        bulk_failed=sum(job.error is not None for job in seen.bulk),
        bulk_failed_attempts=sum(job.failed_attempts for job in seen.bulk),
        peak_connections=max((sample.total for sample in seen.samples), default=0),
        generator_late_p99=percentile(seen.lateness, 0.99),
        errors={code: times for code, times in errors.items() if code is not None},
    )


def latency_of(requests: Iterable[WebRequest]) -> Latency:
    taken = [request.latency for request in requests if request.error is None]
    return Latency(
        count=len(taken), p50=percentile(taken, 0.5), p99=percentile(taken, 0.99), worst=max(taken, default=math.nan)
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all values do not exceed (nearest rank); NaN of nothing."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
