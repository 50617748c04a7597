"""What adaptive limits go by: the classes, their holds and waits, and what the server says, from one look to the next.

Owns: the shape of a sample, and the differences between two readings of counters that only grow.
Does not know: what a sample means, who counts, the clock.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from proxy.admission.distribution import Distribution
from proxy.admission.snapshot import ClassSnapshot, Snapshot


@dataclass(frozen=True, slots=True)
class ClassReading:
    """One class at one moment, and the holds and waits that ended since the last.

    `limit` is the configured one, `floor` what no cut goes below. `oldest_wait_seconds` is 0 where nobody waits.
    """

    name: str
    priority: int
    floor: int
    limit: int
    used: int = 0
    waiting: int = 0
    oldest_wait_seconds: float = 0.0
    running: bool = True
    holds: Distribution = field(default_factory=Distribution)
    waits: Distribution = field(default_factory=Distribution)


@dataclass(frozen=True, slots=True)
class Sample:
    """Everything at `at`, and what happened in the `seconds` before.

    `server_refusals`: dials that the server refused for want of connections, or did not finish in time. `canary`: what
    each canary took, infinite where it failed. `lock_waits`: server processes that wait for a lock, None: not asked.
    """

    at: float
    seconds: float
    classes: tuple[ClassReading, ...]
    server_refusals: int = 0
    canary: tuple[float, ...] = ()
    lock_waits: int | None = None

    def of_class(self, name: str) -> ClassReading | None:
        return next((one for one in self.classes if one.name == name), None)


class Meters(Protocol):
    """Counters that only grow, since the start."""

    def holds(self, class_name: str) -> Distribution: ...

    def waits(self, class_name: str) -> Distribution:
        """However they ended."""

    def server_refusals(self) -> int: ...


class Sampler:
    """Makes samples; each covers the time since the one before, however long that was."""

    def __init__(self, meters: Meters, class_names: Iterable[str], now: float) -> None:
        self._meters = meters
        self._at = now
        self._refusals = meters.server_refusals()
        names = tuple(class_names)
        self._holds = {name: meters.holds(name) for name in names}
        self._waits = {name: meters.waits(name) for name in names}

    def sample(
        self, snapshot: Snapshot, now: float, *, canary: Sequence[float] = (), lock_waits: int | None = None
    ) -> Sample:
        readings = tuple(self._reading(one) for one in snapshot.classes if not one.retired)
        refusals, self._refusals = self._refusals, self._meters.server_refusals()
        since, self._at = self._at, now
        return Sample(now, now - since, readings, self._refusals - refusals, tuple(canary), lock_waits)

    def _reading(self, one: ClassSnapshot) -> ClassReading:
        holds, waits = self._meters.holds(one.name), self._meters.waits(one.name)
        # A class that was not known before is read from now on: what it had counted by then is of no known age.
        holds_before, self._holds[one.name] = self._holds.get(one.name, holds), holds
        waits_before, self._waits[one.name] = self._waits.get(one.name, waits), waits
        return ClassReading(
            name=one.name,
            priority=one.settings.priority,
            floor=min(one.settings.limit, max(1, one.settings.reserved - one.settings.lendable)),
            limit=one.settings.limit,
            used=one.used,
            waiting=one.waiting,
            oldest_wait_seconds=one.oldest_wait_seconds,
            running=one.state == "running",
            holds=holds.since(holds_before),
            waits=waits.since(waits_before),
        )
