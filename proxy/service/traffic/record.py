"""What was seen of the traffic, hour by hour, for as long as it is worth knowing.

Owns: the hours, what is counted in one, how an hour is written down, how many there are at most.
Does not know: who looks and when (watch.py), what follows from it (recommendation.py).

Demand is the slots in use and the waiting clients that count (whose class runs and is below its limit), as they were
whenever somebody looked. An hour that is over is kept as the bytes it would take in a file: a week of a busy proxy is
a few megabytes, whatever its clients call themselves.
"""

import json
import zlib
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from proxy.service.traffic.distribution import Distribution, Times
from proxy.session.histogram import SECONDS
from proxy.session.measures import OTHER

HOUR_SECONDS: Final = 3600
APPLICATIONS_PER_CLASS: Final = 50  # in one hour; the others are added up as OTHER
_FORMAT: Final = 1


class ClassReading(NamedTuple):
    """One class at one moment. `is_limited`: it is at its limit, and somebody waits."""

    used: int
    waiting_that_count: int
    is_limited: bool


class ApplicationReading(NamedTuple):
    used: int
    waiting_that_count: int


@dataclass(slots=True)
class Series:
    """One class or one application in one hour, or in several."""

    demand: Distribution = field(default_factory=Distribution)
    slot_seconds: float = 0.0
    limited_seconds: float = 0.0
    holds: Times = field(default_factory=lambda: Times(SECONDS))

    def merge(self, other: "Series") -> None:
        self.demand.merge(other.demand)
        self.slot_seconds += other.slot_seconds
        self.limited_seconds += other.limited_seconds
        self.holds.add(other.holds.counts, other.holds.sum)


@dataclass(slots=True)
class Hour:
    """`index` counts hours since 1970, UTC. Of the total only demand is kept, and of each upstream where there are
    several."""

    index: int
    seconds: float = 0.0
    total: Distribution = field(default_factory=Distribution)
    upstreams: dict[str, Distribution] = field(default_factory=dict)
    classes: dict[str, Series] = field(default_factory=dict)
    applications: dict[tuple[str, str], Series] = field(default_factory=dict)

    def observe(
        self,
        classes: Mapping[str, ClassReading],
        applications: Mapping[tuple[str, str], ApplicationReading],
        seconds: float,
        upstreams: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        """These were the numbers for `seconds`. Applications without any are left out.

        `upstreams` are several, each with the names of its classes.
        """
        self.seconds += seconds
        demand = {name: one.used + one.waiting_that_count for name, one in classes.items()}
        self.total.add(sum(demand.values()), seconds)
        for upstream, names in (upstreams or {}).items():
            self.upstreams.setdefault(upstream, Distribution()).add(sum(demand[name] for name in names), seconds)
        for name, reading in classes.items():
            series = self.classes.setdefault(name, Series())
            series.demand.add(demand[name], seconds)
            series.slot_seconds += reading.used * seconds
            series.limited_seconds += seconds if reading.is_limited else 0.0
        for key, one in self._folded(applications).items():
            series = self.applications.setdefault(key, Series())
            series.demand.add(one.used + one.waiting_that_count, seconds)
            series.slot_seconds += one.used * seconds

    def add_holds(self, class_name: str, application: str | None, counts: Mapping[int, int], total: float) -> None:
        """Holds that ended, of the class (application None) or of one application in it."""
        if application is None:
            series = self.classes.setdefault(class_name, Series())
        else:
            series = self.applications.setdefault(self._key(class_name, application), Series())
        series.holds.add(counts, total)

    def _folded(
        self, applications: Mapping[tuple[str, str], ApplicationReading]
    ) -> dict[tuple[str, str], ApplicationReading]:
        folded: dict[tuple[str, str], ApplicationReading] = {}
        for (class_name, name), reading in applications.items():
            key = self._key(class_name, name, new=len(folded))
            before = folded.get(key)
            if before is not None:
                reading = ApplicationReading(*map(sum, zip(before, reading, strict=True)))  # noqa: PLW2901
            folded[key] = reading
        return folded

    def _key(self, class_name: str, name: str, new: int = 0) -> tuple[str, str]:
        key = (class_name, name)
        if key in self.applications:
            return key
        known = sum(owner == class_name for owner, _ in self.applications)
        return key if known + new < APPLICATIONS_PER_CLASS else (class_name, OTHER)

    # Written down

    def to_bytes(self) -> bytes:
        document = {
            "hour": self.index,
            "seconds": round(self.seconds, 3),
            "total": _seconds_out(self.total),
            "upstreams": {name: _seconds_out(total) for name, total in self.upstreams.items()},
            "classes": {name: _series_out(series) for name, series in self.classes.items()},
            "applications": [[*key, _series_out(series)] for key, series in self.applications.items()],
        }
        return zlib.compress(json.dumps(document, separators=(",", ":")).encode())

    @classmethod
    def from_bytes(cls, data: bytes) -> "Hour":
        """Raises ValueError (also zlib.error, KeyError, TypeError) for what `to_bytes` did not write."""
        document = json.loads(zlib.decompress(data))
        return cls(
            int(document["hour"]),
            float(document["seconds"]),
            _seconds_in(document["total"]),
            {name: _seconds_in(total) for name, total in document.get("upstreams", {}).items()},  # not in older records
            {name: _series_in(series) for name, series in document["classes"].items()},
            {(one, name): _series_in(series) for one, name, series in document["applications"]},
        )


def _seconds_out(distribution: Distribution) -> dict[str, float]:
    return {str(value): round(seconds, 3) for value, seconds in distribution.seconds.items()}


def _seconds_in(document: Mapping[str, float]) -> Distribution:
    return Distribution({int(value): float(seconds) for value, seconds in document.items()})


# Any: JSON has no better type.
def _series_out(series: Series) -> dict[str, Any]:
    return {
        "demand": _seconds_out(series.demand),
        "slots": round(series.slot_seconds, 3),
        "limited": round(series.limited_seconds, 3),
        "holds": {str(bucket): count for bucket, count in series.holds.counts.items()},
        "held": round(series.holds.sum, 6),
    }


def _series_in(document: Mapping[str, Any]) -> Series:
    holds = {int(bucket): int(count) for bucket, count in document["holds"].items()}
    return Series(
        _seconds_in(document["demand"]),
        float(document["slots"]),
        float(document["limited"]),
        Times(SECONDS, holds, float(document["held"])),
    )


class UnreadableRecord(ValueError):  # noqa: N818 - says what is
    """The text is no record, or one of a later version; the sentence says which."""


class TrafficRecord:
    """The hours up to now, the current one included. Holds `keep_hours` at most, the oldest falls out."""

    def __init__(self, keep_hours: int) -> None:
        self.keep_hours = keep_hours
        self._closed: deque[tuple[int, bytes]] = deque()
        self._current: Hour | None = None

    def hour_at(self, at: float) -> Hour:
        """The hour of this moment (Unix seconds), to count in."""
        index = int(at // HOUR_SECONDS)
        if self._current is None or self._current.index != index:
            self._turn_to(index)
        assert self._current is not None, "just turned to"
        return self._current

    @property
    def current_index(self) -> int | None:
        return None if self._current is None else self._current.index

    def _turn_to(self, index: int) -> None:
        hours = dict(self._closed)
        if self._current is not None:
            hours[self._current.index] = self._current.to_bytes()
        # There already where the process was started again within the hour, or the clock was set back into it.
        before = hours.pop(index, None)
        self._current = Hour(index) if before is None else Hour.from_bytes(before)
        self._closed = deque(sorted(hours.items()))
        self.forget_old(index)

    def forget_old(self, index: int) -> None:
        while self._closed and self._closed[0][0] <= index - self.keep_hours:
            self._closed.popleft()

    def frozen(self) -> tuple[tuple[int, bytes], ...]:
        """All hours, as they are now: bytes that nobody changes, to be read elsewhere."""
        current = () if self._current is None else ((self._current.index, self._current.to_bytes()),)
        return (*self._closed, *current)

    def restore(self, hours: Iterable[tuple[int, bytes]]) -> None:
        """Hours of an earlier process. Those of the same hour as later ones are left out."""
        self._closed = deque(sorted(dict(hours).items()))


def hours_of(frozen: Iterable[tuple[int, bytes]], since_hour: int) -> Iterator[Hour]:
    for index, data in frozen:
        if index >= since_hour:
            yield Hour.from_bytes(data)


def to_text(frozen: Iterable[tuple[int, bytes]]) -> str:
    """One line that says what this is, then one for each hour."""
    lines = [json.dumps({"pgheadroom_traffic": _FORMAT})]
    lines += [f"{index} {b64encode(data).decode()}" for index, data in frozen]
    return "\n".join(lines) + "\n"


def from_text(text: str) -> list[tuple[int, bytes]]:
    """The hours of `to_text`; each was looked into. Raises UnreadableRecord."""
    first, *lines = text.splitlines() or [""]
    try:
        version = json.loads(first)["pgheadroom_traffic"]
    except (ValueError, KeyError, TypeError):
        raise UnreadableRecord("it is no record of traffic") from None
    if version != _FORMAT:
        raise UnreadableRecord(f"it was written by another version: format {version}, and this one reads {_FORMAT}")
    hours = []
    for number, line in enumerate(lines, start=2):
        try:
            index, _, encoded = line.partition(" ")
            data = b64decode(encoded, validate=True)
            if Hour.from_bytes(data).index != int(index):
                raise ValueError("two different hours")
        except (ValueError, KeyError, TypeError, AttributeError, zlib.error):
            raise UnreadableRecord(f"line {number} is damaged") from None
        hours.append((int(index), data))
    return hours
