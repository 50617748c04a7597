"""How many clients of a class may be logged in at once (`max_clients`); with 1 a class is a mutex.

Owns: who has a place and who waits for one.
Does not know: slots. A client takes its place after it has logged in and keeps it, idle or not, until it is gone.

The decisions are those of slots: a Grant admits to a place. Order of arrival, no flows unless the caller names them.
"""

from collections.abc import Collection, Hashable, Sequence

from proxy.admission.classes import BudgetSettings, ClassSettings, ClientId
from proxy.admission.decisions import NOTHING, Decision, Grant, RefusalReason, Refuse, StillWaiting
from proxy.admission.ledger import DoubleRequest, UnknownClass
from proxy.admission.queues import ClassQueue, Waiter
from proxy.admission.release_rate import ReleaseRate
from proxy.admission.timers import WaitTimers


class _Room:
    """The places of one class. `max_clients` None is no limit; a removed class admits nobody."""

    __slots__ = ("max_clients", "queue", "release_rate", "released", "settings", "taken")

    def __init__(self, settings: ClassSettings, now: float) -> None:
        self.settings = settings
        self.max_clients = settings.max_clients
        self.taken = 0
        self.released = 0
        self.queue = ClassQueue()
        self.release_rate = ReleaseRate(now)

    def adopt(self, settings: ClassSettings) -> None:
        self.settings = settings
        self.max_clients = settings.max_clients

    def has_a_place(self) -> bool:
        return self.max_clients is None or self.taken < self.max_clients


class ClientPlaces:
    """The places of all classes."""

    def __init__(self, settings: BudgetSettings, *, now: float) -> None:
        self._rooms = {one.name: _Room(one, now) for one in settings.classes}
        self._guests: dict[ClientId, _Room] = {}
        self._waiters: dict[ClientId, Waiter] = {}
        self._timers = WaitTimers()

    def taken(self, class_name: str) -> int:
        return self._room(class_name).taken

    def waiting(self, class_name: str) -> int:
        return len(self._room(class_name).queue)

    def join(
        self,
        client: ClientId,
        class_name: str,
        now: float,
        timeout_seconds: float | None = None,
        *,
        flow: Hashable = None,
    ) -> Sequence[Decision]:
        """Ask for a place: a Grant, a Refuse, or nothing, which means that the client waits.

        The client calls `left` when it is gone, whatever the answer was. Raises UnknownClass and DoubleRequest.
        """
        room = self._room(class_name)
        if client in self._guests or client in self._waiters:
            raise DoubleRequest(f"client {client} asked for a place while it has one or waits for one")
        if room.has_a_place() and not room.queue.waiters:
            return [self._admit(client, room, 0.0)]
        if len(room.queue) >= room.settings.queue_max:
            nobody_may_queue = room.settings.queue_max == 0
            reason = RefusalReason.MAX_CLIENTS if nobody_may_queue else RefusalReason.QUEUE_FULL
            return [self._refusal(room, client, reason, 0.0, now)]
        self._line_up(Waiter(client, class_name, flow, now, unbounded=True), room, timeout_seconds)
        return NOTHING

    def left(self, client: ClientId, now: float) -> Sequence[Decision]:
        """The client is gone: its place, or its turn, goes to the next. Who has neither is ignored."""
        waiter = self._waiters.pop(client, None)
        if waiter is not None:
            self._room(waiter.class_name).queue.remove(waiter)
            return NOTHING
        room = self._guests.pop(client, None)
        if room is None:
            return NOTHING
        room.taken -= 1
        room.released += 1
        return self._admit_waiting(room, now)

    def advance(self, now: float) -> Sequence[Decision]:
        """Deadlines and notices that are due."""
        decisions: list[Decision] = []
        while (waiter := self._timers.take_due_or_none(now)) is not None:
            decisions.append(self._alarm(waiter, now))
        return decisions

    def next_wakeup_at(self) -> float | None:
        return self._timers.earliest()

    def reconfigure(self, settings: BudgetSettings, now: float) -> Sequence[Decision]:
        """Take over other limits. Nobody loses a place; the waiters of a removed class are refused."""
        configured = {one.name: one for one in settings.classes}
        decisions: list[Decision] = []
        for name, room in self._rooms.items():
            if name not in configured:
                room.max_clients = 0
                decisions += self._refuse_waiting(room, RefusalReason.CLASS_REJECTING, now)
        for name, one in configured.items():
            room = self._rooms.setdefault(name, _Room(one, now))
            room.adopt(one)
            decisions += self._admit_waiting(room, now)
        self._forget_empty_rooms(configured.keys())
        return decisions

    def refuse_all_waiting(self, reason: RefusalReason, now: float) -> Sequence[Decision]:
        return [refusal for room in self._rooms.values() for refusal in self._refuse_waiting(room, reason, now)]

    # Inside

    def _room(self, class_name: str) -> _Room:
        try:
            return self._rooms[class_name]
        except KeyError:
            raise UnknownClass(f'there is no class "{class_name}"') from None

    def _admit(self, client: ClientId, room: _Room, waited_seconds: float) -> Grant:
        self._guests[client] = room
        room.taken += 1
        return Grant(client, room.settings.name, waited_seconds, borrowed=False)

    def _admit_waiting(self, room: _Room, now: float) -> list[Decision]:
        decisions: list[Decision] = []
        while room.queue.waiters and room.has_a_place():
            waiter = room.queue.take_next()
            del self._waiters[waiter.client]
            decisions.append(self._admit(waiter.client, room, now - waiter.since))
        return decisions

    def _line_up(self, waiter: Waiter, room: _Room, timeout_seconds: float | None) -> None:
        waiter.wait_at_most(room.settings.queue_timeout_seconds, timeout_seconds)
        waiter.notify_after(room.settings.notify_after_seconds)
        self._waiters[waiter.client] = waiter
        room.queue.add(waiter)
        self._timers.watch(waiter, len(self._waiters))

    def _alarm(self, waiter: Waiter, now: float) -> Decision:
        room = self._room(waiter.class_name)
        if now >= waiter.deadline:
            return self._turn_away(waiter, room, waiter.deadline_reason, now)
        waiter.notify_at = None
        self._timers.watch(waiter, len(self._waiters))
        return StillWaiting(waiter.client, waiter.class_name, now - waiter.since, room.queue.position_of(waiter))

    def _refuse_waiting(self, room: _Room, reason: RefusalReason, now: float) -> list[Decision]:
        return [self._turn_away(waiter, room, reason, now) for waiter in list(room.queue.waiters.values())]

    def _turn_away(self, waiter: Waiter, room: _Room, reason: RefusalReason, now: float) -> Refuse:
        room.queue.remove(waiter)
        del self._waiters[waiter.client]
        return self._refusal(room, waiter.client, reason, now - waiter.since, now)

    def _refusal(self, room: _Room, client: ClientId, reason: RefusalReason, waited: float, now: float) -> Refuse:
        waiting = len(room.queue)
        limit = room.taken if room.max_clients is None else room.max_clients
        retry_after_ms = room.release_rate.retry_after_ms(room.released, waiting, now)
        return Refuse(client, room.settings.name, reason, waited, room.taken, limit, waiting, retry_after_ms)

    def _forget_empty_rooms(self, configured: Collection[str]) -> None:
        gone = [name for name, room in self._rooms.items() if name not in configured and not room.taken]
        for name in gone:
            del self._rooms[name]
