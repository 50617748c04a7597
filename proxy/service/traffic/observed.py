"""What was observed, summed up: demand and hold times of each class and of each application in it.

Owns: these figures, from the hours of a record.
Does not know: who counted them, what budget follows (recommendation.py).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from proxy.service.traffic.distribution import Distribution, Times
from proxy.service.traffic.record import Hour, Series

# An hour of which less was seen has no busy hour's figure to give: a proxy that has just started.
_LEAST_OF_AN_HOUR: Final = 300.0


@dataclass(frozen=True, slots=True)
class Demand:
    """Slots in use and waiting clients that count: half of the time not more than `p50`, at most `most`.

    `busiest_hour_p95` is the largest p95 of any one hour; the current hour counts from five minutes on.
    """

    p50: int = 0
    p95: int = 0
    most: int = 0
    busiest_hour_p95: int = 0


@dataclass(frozen=True, slots=True)
class Holds:
    """How long slots were held without a break. `p95_seconds` is an upper bound; None beyond the longest known."""

    count: int = 0
    mean_seconds: float = 0.0
    p95_seconds: float | None = 0.0


@dataclass(frozen=True, slots=True)
class Observation:
    """Of a class, or of an application in it (`application` None: the whole class)."""

    class_name: str
    application: str | None
    demand: Demand
    holds: Holds
    mean_slots: float
    limited_share: float = 0.0  # of the time: at its limit with clients waiting, so that demand was larger than counted


@dataclass(frozen=True, slots=True)
class Observed:
    """`seconds` were seen between `since` and now; `hours` is how many different hours of the clock they are in."""

    seconds: float
    since_hour: int
    hours: int
    total: Demand
    upstreams: Mapping[str, Demand]  # of each where there are several
    classes: tuple[Observation, ...]
    applications: tuple[Observation, ...]  # of each class, the one with most slot-seconds first

    def of_class(self, name: str) -> Observation:
        """Nothing was seen of a class that has just been made."""
        found = (one for one in self.classes if one.class_name == name)
        return next(found, Observation(name, None, Demand(), Holds(), 0.0))


def observed(hours: Iterable[Hour]) -> Observed:
    """One pass; each hour may be forgotten behind it."""
    whole, busiest, count, first = Hour(0), _Busiest(), 0, 0
    for hour in hours:
        first = hour.index if not count else min(first, hour.index)
        count += 1
        _add(whole, hour)
        busiest.look_at(hour)
    classes = tuple(_of_class(name, series, whole.seconds, busiest) for name, series in whole.classes.items())
    applications = [_of_application(key, series, whole.seconds, busiest) for key, series in whole.applications.items()]
    applications.sort(key=lambda one: (one.class_name, -one.mean_slots, -one.holds.count, one.application or ""))
    total = _demand(whole.total, busiest.total)
    upstreams = {name: _demand(one, busiest.upstreams.get(name, 0)) for name, one in whole.upstreams.items()}
    return Observed(whole.seconds, first, count, total, upstreams, classes, tuple(applications))


def _demand(seen: Distribution, busiest_hour_p95: int) -> Demand:
    return Demand(seen.quantile(0.5), seen.quantile(0.95), seen.most(), busiest_hour_p95)


def _add(whole: Hour, hour: Hour) -> None:
    whole.seconds += hour.seconds
    whole.total.merge(hour.total)
    for upstream, total in hour.upstreams.items():
        whole.upstreams.setdefault(upstream, Distribution()).merge(total)
    for name, series in hour.classes.items():
        whole.classes.setdefault(name, Series()).merge(series)
    for key, series in hour.applications.items():
        whole.applications.setdefault(key, Series()).merge(series)


class _Busiest:
    """The largest p95 that any hour has shown."""

    def __init__(self) -> None:
        self.total = 0
        self.upstreams: dict[str, int] = {}
        self.by_key: dict[tuple[str, str | None], int] = {}

    def look_at(self, hour: Hour) -> None:
        if hour.seconds < _LEAST_OF_AN_HOUR:
            return
        self.total = max(self.total, hour.total.quantile(0.95))
        for upstream, total in hour.upstreams.items():
            self.upstreams[upstream] = max(self.upstreams.get(upstream, 0), total.quantile(0.95))
        for name, series in hour.classes.items():
            self._note((name, None), series.demand.quantile(0.95))
        for key, series in hour.applications.items():
            self._note(key, series.demand.quantile(0.95, hour.seconds))

    def _note(self, key: tuple[str, str | None], p95: int) -> None:
        self.by_key[key] = max(self.by_key.get(key, 0), p95)


def _of_class(name: str, series: Series, seconds: float, busiest: _Busiest) -> Observation:
    demand = series.demand
    figures = _demand(demand, busiest.by_key.get((name, None), 0))
    share = series.limited_seconds / demand.observed_seconds if demand.observed_seconds else 0.0
    return Observation(name, None, figures, _holds(series.holds), _per(series.slot_seconds, seconds), share)


def _of_application(key: tuple[str, str], series: Series, seconds: float, busiest: _Busiest) -> Observation:
    demand = series.demand
    figures = Demand(
        demand.quantile(0.5, seconds), demand.quantile(0.95, seconds), demand.most(), busiest.by_key.get(key, 0)
    )
    return Observation(*key, figures, _holds(series.holds), _per(series.slot_seconds, seconds))


def _holds(times: Times) -> Holds:
    p95 = times.quantile(0.95)
    return Holds(times.count, times.mean, None if math.isinf(p95) else p95)


def _per(slot_seconds: float, seconds: float) -> float:
    return slot_seconds / seconds if seconds else 0.0
