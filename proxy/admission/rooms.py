"""The clients of one class that have a place or wait for one, and which of them may be admitted next.

Owns: the counts of guests and waiters, by identity too, and the lines they stand in.
Does not know: time, decisions.

Who waits stands in the queue of its class only while its identity may have one more: guests and queued clients of an
identity together never exceed `max_clients_per_identity`, so that whoever is next in the queue may always be admitted.
The others are held back, each identity in a line of its own, and join the queue when one of theirs has left. So no
identity blocks another, and every event costs the same however many wait.
"""

from collections.abc import Hashable, Mapping

from proxy.admission.classes import ClassSettings, ClientId
from proxy.admission.queues import ClassQueue, Waiter
from proxy.admission.release_rate import ReleaseRate
from proxy.admission.trial import in_force

_NOBODY = ClassQueue()  # stands for the line of an identity that has none held back; never added to


class Identity:
    """The clients of one identity in one class: with a place, in the queue, and held back from it."""

    __slots__ = ("guests", "held_back", "queued")

    def __init__(self) -> None:
        self.guests = 0
        self.queued = 0
        self.held_back = _NOBODY

    def is_forgotten(self) -> bool:
        return not (self.guests or self.queued or self.held_back.waiters)


class Room:
    """The places of one class. `max_clients` None is no limit; a removed class admits nobody."""

    __slots__ = (
        "configured",
        "identities",
        "max_clients",
        "queue",
        "release_rate",
        "released",
        "settings",
        "taken",
        "waiting",
    )

    def __init__(self, settings: ClassSettings, now: float) -> None:
        self.adopt(settings)
        self.taken = 0
        self.released = 0
        self.waiting = 0
        self.queue = ClassQueue()
        self.identities: dict[Hashable, Identity] = {}
        self.release_rate = ReleaseRate(now)

    def adopt(self, settings: ClassSettings) -> None:
        """A class that only warns has a place for everybody."""
        self.configured, self.settings = settings, in_force(settings, 0)
        self.max_clients = self.settings.max_clients

    def would_have_a_place(self, one: "Identity") -> bool:
        """By the bounds that were configured."""
        own = self.configured
        is_full = own.max_clients is not None and self.taken >= own.max_clients
        most = own.max_clients_per_identity
        return not is_full and (most is None or one.guests < most)

    @property
    def only_warns(self) -> bool:
        """There may be something to say of a guest."""
        return self.settings is not self.configured

    def is_open(self, one: "Identity | None") -> bool:
        """Whoever comes now gets a place at once. `one` is its identity, None where no other client has it."""
        return self.has_a_place() and not self.queue.waiters and (one is None or self.may_have_one_more(one))

    def has_a_place(self) -> bool:
        return self.max_clients is None or self.taken < self.max_clients

    def identity(self, name: Hashable) -> Identity:
        one = self.identities.get(name)
        if one is None:
            one = self.identities[name] = Identity()
        return one

    def may_have_one_more(self, one: Identity) -> bool:
        most = self.settings.max_clients_per_identity
        return most is None or one.guests + one.queued < most

    def add_guest(self, one: Identity) -> None:
        self.taken += 1
        one.guests += 1

    def remove_guest(self, name: Hashable) -> None:
        one = self.identities[name]
        self.taken -= 1
        self.released += 1
        one.guests -= 1
        self._another_may_queue(name, one)

    def add_waiter(self, waiter: Waiter, name: Hashable) -> None:
        one = self.identity(name)
        self.waiting += 1
        if self.may_have_one_more(one):
            one.queued += 1
            self.queue.add(waiter)
            return
        if one.held_back is _NOBODY:
            one.held_back = ClassQueue()
        one.held_back.add(waiter)

    def remove_waiter(self, waiter: Waiter, name: Hashable) -> None:
        """It waits no longer, whatever becomes of it."""
        one = self.identities[name]
        self.waiting -= 1
        if waiter.client in self.queue.waiters:
            self.queue.remove(waiter)
            one.queued -= 1
        else:
            one.held_back.remove(waiter)
        self._another_may_queue(name, one)

    def admit_next(self, names: Mapping[ClientId, Hashable]) -> Waiter:
        """The next of the queue gets a place; its identity has as many here as before, and nobody moves up for it."""
        waiter = self.queue.take_next()
        one = self.identities[names[waiter.client]]
        self.waiting -= 1
        one.queued -= 1
        self.add_guest(one)
        return waiter

    def _another_may_queue(self, name: Hashable, one: Identity) -> None:
        while one.held_back.waiters and self.may_have_one_more(one):
            waiter = one.held_back.take_next()
            one.queued += 1
            self.queue.add(waiter)
        if one.is_forgotten():
            del self.identities[name]

    def is_held_back(self, waiter: Waiter, name: Hashable) -> bool:
        return waiter.client in self.identities[name].held_back.waiters

    def position_of(self, waiter: Waiter, name: Hashable) -> int:
        """Its place in the line it stands in, about."""
        line = self.identities[name].held_back if self.is_held_back(waiter, name) else self.queue
        return line.position_of(waiter)

    def all_waiters(self) -> list[Waiter]:
        """In order of arrival."""
        waiters = list(self.queue.waiters.values())
        for one in self.identities.values():
            waiters += one.held_back.waiters.values()
        return sorted(waiters, key=lambda waiter: (waiter.since, waiter.client))

    def line_up_again(self, names: Mapping[ClientId, Hashable]) -> None:
        """Another bound for identities: who waits keeps its time and its order, and may now queue or may not."""
        waiters = self.all_waiters()
        for waiter in waiters:
            # Not by `remove_waiter`, which would let others move up meanwhile.
            one = self.identities[names[waiter.client]]
            (one.held_back if waiter.client in one.held_back.waiters else self.queue).remove(waiter)
            one.queued = 0
        self.waiting = 0
        for waiter in waiters:
            self.add_waiter(waiter, names[waiter.client])
