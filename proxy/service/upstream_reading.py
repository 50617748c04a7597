"""One upstream at one moment, and several of them as if they were one.

Owns: the shape of that reading, and how budgets add up.
Does not know: where the numbers come from, how they are shown.

A class belongs to one upstream, but `internal` exists in each, and one that a reload has moved is in two until its last
slot is given back. Together they are one class, so that a name is one row and one series everywhere.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from proxy.admission.snapshot import ClassSnapshot, Snapshot
from proxy.service.findings import Finding
from proxy.session.listen_hubs import ListenCounts

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class ServerConnectionCounts:
    """All server connections of an upstream. `closing` are those whose backend may still live: they count."""

    dialling: int = 0
    in_use: int = 0
    idle: int = 0
    closing: int = 0

    @property
    def total(self) -> int:
        return self.dialling + self.in_use + self.idle + self.closing


@dataclass(frozen=True, slots=True)
class UpstreamReading:
    """`not_ready` says why nobody can log in, and is empty while somebody can.

    What depends on facts of the server is None while it has not told them; `problems` are numbers of the budget that do
    not hold with it.
    """

    name: str
    budget: Snapshot
    servers: ServerConnectionCounts = field(default_factory=ServerConnectionCounts)
    listening: ListenCounts = field(default_factory=ListenCounts)
    not_ready: str = ""
    external_connections: int | None = None
    max_connections: int | None = None
    overcommitted_slots: int | None = None
    problems: tuple[Finding, ...] = ()


def readiness(readings: Sequence[UpstreamReading]) -> tuple[bool, str]:
    """Ready while one upstream is: a dead replica must not take the primary's customers away."""
    lost = [one for one in readings if one.not_ready]
    if not lost:
        return True, "ready"
    if len(readings) == 1:
        return False, lost[0].not_ready
    return len(lost) < len(readings), "; ".join(f"upstream {one.name}: {one.not_ready}" for one in lost)


def servers_together(readings: Iterable[UpstreamReading]) -> ServerConnectionCounts:
    counts = [one.servers for one in readings]
    return ServerConnectionCounts(
        sum(one.dialling for one in counts),
        sum(one.in_use for one in counts),
        sum(one.idle for one in counts),
        sum(one.closing for one in counts),
    )


def listening_together(readings: Iterable[UpstreamReading]) -> ListenCounts:
    counts = [one.listening for one in readings]
    return ListenCounts(
        sum(one.connections for one in counts),
        sum(one.channels for one in counts),
        sum(one.clients for one in counts),
    )


def sum_or_none(numbers: Iterable[int | None]) -> int | None:
    """None where one of them is not known: a sum without it would be too small."""
    known = list(numbers)
    return None if None in known else sum(number for number in known if number is not None)


def budgets_together(snapshots: Sequence[Snapshot]) -> Snapshot:
    """All slots as those of one budget."""
    if len(snapshots) == 1:
        return snapshots[0]
    by_name: dict[str, ClassSnapshot] = {}
    for one in (one for snapshot in snapshots for one in snapshot.classes):
        by_name[one.name] = _together(by_name[one.name], one) if one.name in by_name else one
    return Snapshot(
        total=sum(one.total for one in snapshots),
        headroom=sum(one.headroom for one in snapshots),
        headroom_left=sum(one.headroom_left for one in snapshots),
        in_use=sum(one.in_use for one in snapshots),
        waiting=sum(one.waiting for one in snapshots),
        committed=sum(one.committed for one in snapshots),
        classes=tuple(by_name.values()),
    )


def _together(a: ClassSnapshot, b: ClassSnapshot) -> ClassSnapshot:
    settled = a if b.retired else b  # what holds for a class that was moved is said where it is now
    return replace(
        settled,
        used=a.used + b.used,
        reserved=a.reserved + b.reserved,
        floor=a.floor + b.floor,
        held=a.held + b.held,
        limit=settled.limit if a.retired or b.retired else a.limit + b.limit,
        borrowed=a.borrowed + b.borrowed,
        lent=a.lent + b.lent,
        pinned=a.pinned + b.pinned,
        pinned_debt=a.pinned_debt + b.pinned_debt,
        waiting=a.waiting + b.waiting,
        oldest_wait_seconds=max(a.oldest_wait_seconds, b.oldest_wait_seconds),
        would_queue=None if settled.would_queue is None else (a.would_queue or 0) + (b.would_queue or 0),
        would_refuse=_added(a.would_refuse, b.would_refuse),
        admissions=_added(a.admissions, b.admissions),
        refusals=_added(a.refusals, b.refusals),
        released=a.released + b.released,
    )


def _added(a: Mapping[Key, int], b: Mapping[Key, int]) -> dict[Key, int]:
    return {key: a.get(key, 0) + b.get(key, 0) for key in (*a, *b)}
