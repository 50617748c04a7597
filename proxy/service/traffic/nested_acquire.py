"""Who probably waits for itself: one connection holds a slot and does nothing, another of the same identity waits.

Owns: when that is suspected, how often each suspect is told, the count.
Does not know: the clock (`now` is an argument), how clients are found; it is asked only while somebody waits for long.

A job that opens a second connection inside its transaction waits for a slot that comes free when the job goes on, and
the job goes on when it has the slot. Only the queue's timeout ends that. It looks like this: the class is at its limit,
somebody has waited for a second and more, and a client of the same identity, which had its slot before, has been quiet
(everything it sent is answered) at two looks in a row.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from proxy.admission.classes import ClientId

SUSPECTED_AFTER_SECONDS: Final = 1.0
TOLD_AGAIN_AFTER_SECONDS: Final = 600.0
_REMEMBERED: Final = 1000  # identities; clients choose their names


class Identity(NamedTuple):
    """One connecting program: `address` None on a unix socket."""

    class_name: str
    user: str
    address: str | None
    application_name: str


class Holder(NamedTuple):
    """A client that holds a slot since `since` and has nothing under way."""

    client: ClientId
    identity: Identity
    since: float


class Waiting(NamedTuple):
    """A client in the queue of a class at its limit."""

    client: ClientId
    identity: Identity
    since: float


@dataclass(frozen=True, slots=True)
class Suspect:
    """An identity, now. `waited_seconds` is the longest of its waits."""

    identity: Identity
    holding: int
    waiting: int
    waited_seconds: float


@dataclass(frozen=True, slots=True)
class ToTell:
    """A suspect for the log; `times` is how many waits were suspected since it was told last."""

    suspect: Suspect
    times: int


class NestedAcquires:
    """One look after the other. `suspects` are those of the last look, `counts` all waits that were ever suspected."""

    def __init__(self) -> None:
        self.suspects: tuple[Suspect, ...] = ()
        self.counts: Counter[tuple[str, str]] = Counter()
        self._quiet: dict[ClientId, float] = {}  # at the last look: client and since when it holds
        self._counted: set[tuple[ClientId, float]] = set()
        self._told: dict[Identity, float] = {}
        self._untold: Counter[Identity] = Counter()

    def nobody_waits(self) -> None:
        """Nothing to look at: what was seen before says nothing of the next time."""
        self.suspects, self._quiet = (), {}
        self._counted.clear()

    def look(self, holders: Iterable[Holder], waiting: Collection[Waiting], now: float) -> list[ToTell]:
        """What is new for the log."""
        quiet = {one.client: one for one in holders}
        steady = [one for one in quiet.values() if self._quiet.get(one.client) == one.since]
        self._quiet = {one.client: one.since for one in quiet.values()}
        by_identity: dict[Identity, list[Holder]] = {}
        for one in steady:
            by_identity.setdefault(one.identity, []).append(one)
        self._note(by_identity, waiting, now)
        return [self._to_tell(one, now) for one in self.suspects if self._is_to_be_told(one.identity, now)]

    def _note(self, by_identity: dict[Identity, list[Holder]], waiting: Collection[Waiting], now: float) -> None:
        found: dict[Identity, list[Waiting]] = {}
        for one in waiting:
            held = by_identity.get(one.identity, ())
            if now - one.since >= SUSPECTED_AFTER_SECONDS and any(holder.since <= one.since for holder in held):
                found.setdefault(one.identity, []).append(one)
        waits = {(one.client, one.since): one.identity for ones in found.values() for one in ones}
        for wait in waits.keys() - self._counted:
            self.counts[waits[wait].class_name, waits[wait].application_name] += 1
            self._untold[waits[wait]] += 1
        self._counted = set(waits)
        self.suspects = tuple(
            Suspect(identity, len(by_identity[identity]), len(ones), now - min(one.since for one in ones))
            for identity, ones in found.items()
        )

    def _is_to_be_told(self, identity: Identity, now: float) -> bool:
        if not self._untold[identity]:
            return False
        told = self._told.get(identity)
        return told is None or now - told >= TOLD_AGAIN_AFTER_SECONDS

    def _to_tell(self, suspect: Suspect, now: float) -> ToTell:
        if len(self._told) >= _REMEMBERED:
            oldest = min(self._told, key=self._told.__getitem__)
            del self._told[oldest]
            self._untold.pop(oldest, None)
        self._told[suspect.identity] = now
        return ToTell(suspect, self._untold.pop(suspect.identity))
