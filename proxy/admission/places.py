"""How many clients of a class may be logged in at once (`max_clients`), and how many of one identity
(`max_clients_per_identity`). With `max_clients` 1 a class is a mutex.

Owns: who has a place and who waits for one.
Does not know: slots. A client takes its place after it has logged in and keeps it, idle or not, until it is gone.

The decisions are those of slots: a Grant admits to a place. Order of arrival, no flows unless the caller names them.
"""

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import replace

from proxy.admission.classes import BudgetSettings, ClientId, renamed_classes
from proxy.admission.decisions import NOTHING, Decision, Grant, RefusalReason, Refuse, StillWaiting
from proxy.admission.draws import Draw, middle
from proxy.admission.ledger import DoubleRequest, UnknownClass
from proxy.admission.queues import Waiter
from proxy.admission.removal import NO_MOVES, Moves
from proxy.admission.rooms import Identity, Room
from proxy.admission.timers import WaitTimers
from proxy.admission.trial import Would

_REJECTED = RefusalReason.CLASS_REJECTING
# Whoever is refused for these would be refused with any number of places free.
_NOT_FOR_WANT_OF_ROOM = frozenset((RefusalReason.CLASS_REJECTING, RefusalReason.SHUTTING_DOWN, RefusalReason.PAUSED))


class ClientPlaces:
    """The places of all classes."""

    def __init__(self, settings: BudgetSettings, *, now: float, draw: Draw = middle) -> None:
        self._draw = draw
        self._rooms = {one.name: Room(one, now) for one in settings.classes}
        self._guests: dict[ClientId, Room] = {}
        self._waiters: dict[ClientId, Waiter] = {}
        self._identities: dict[ClientId, Hashable] = {}  # of guests and waiters
        self._timers = WaitTimers()

    def taken(self, class_name: str) -> int:
        return self._room(class_name).taken

    def waiting(self, class_name: str) -> int:
        return self._room(class_name).waiting

    def taken_by(self, class_name: str, identity: Hashable) -> int:
        one = self._room(class_name).identities.get(identity)
        return 0 if one is None else one.guests

    def try_join(self, client: ClientId, class_name: str, identity: Hashable) -> bool:
        """The usual login: a place, at once and without a remark. False: nothing has happened, and `join` decides."""
        room = self._room(class_name)
        one = room.identities.get(identity)
        if not room.is_open(one) or room.only_warns or client in self._guests or client in self._waiters:
            return False
        self._seat(client, room, identity)
        return True

    def join(
        self,
        client: ClientId,
        class_name: str,
        now: float,
        timeout_seconds: float | None = None,
        *,
        flow: Hashable = None,
        identity: Hashable = None,
    ) -> Sequence[Decision]:
        """Ask for a place: a Grant, a Refuse, or nothing, which means that the client waits.

        `identity` is who `max_clients_per_identity` counts it with. The client calls `left` when it is gone, whatever
        the answer was. Raises UnknownClass and DoubleRequest.
        """
        room = self._room(class_name)
        if client in self._guests or client in self._waiters:
            raise DoubleRequest(f"client {client} asked for a place while it has one or waits for one")
        one = room.identities.get(identity)
        if room.is_open(one):
            would_have_a_place = room.would_have_a_place(room.identity(identity))
            self._seat(client, room, identity)
            grant = Grant(client, room.settings.name, 0.0, borrowed=False)
            return [grant if would_have_a_place else replace(grant, would_refuse=RefusalReason.MAX_CLIENTS)]
        is_below_its_bound = one is None or room.may_have_one_more(one)
        if room.waiting >= room.settings.queue_max:
            reason = self._reason_not_to_queue(room)
            return [self._refusal(room, client, reason, 0.0, now, None if is_below_its_bound else one)]
        self._line_up(Waiter(client, class_name, flow, now, unbounded=True), room, timeout_seconds, identity)
        return NOTHING

    def left(self, client: ClientId, now: float) -> Sequence[Decision]:
        """The client is gone: its place, or its turn, goes to the next. Who has neither is ignored."""
        waiter = self._waiters.pop(client, None)
        if waiter is not None:
            self._room(waiter.class_name).remove_waiter(waiter, self._identities.pop(client))
            return NOTHING
        room = self._guests.pop(client, None)
        if room is None:
            return NOTHING
        room.remove_guest(self._identities.pop(client))
        return self._admit_waiting(room, now)

    def advance(self, now: float) -> Sequence[Decision]:
        """Deadlines and notices that are due."""
        decisions: list[Decision] = []
        while (waiter := self._timers.take_due_or_none(now)) is not None:
            decisions.append(self._alarm(waiter, now))
        return decisions

    def next_wakeup_at(self) -> float | None:
        return self._timers.earliest()

    def reconfigure(self, settings: BudgetSettings, now: float, moves: Moves = NO_MOVES) -> Sequence[Decision]:
        """Take over other limits. Nobody loses a place.

        A class that goes on under another name keeps its guests and its waiters. Those of a removed class go where
        `moves` sends them: guests also where there are too many of them then, waiters with their time of arrival and
        as many as may wait there. Who has nowhere to go stays as a guest and is refused as a waiter.
        """
        configured = {one.name: one for one in settings.classes}
        for old, new in renamed_classes(settings, self._rooms).items():
            room = self._rooms[new] = self._rooms.pop(old)
            for waiter in room.all_waiters():
                waiter.class_name = new
        for name, one in configured.items():
            room = self._rooms.setdefault(name, Room(one, now))
            bound = room.settings.max_clients_per_identity  # the one in force: a class that only warns has none
            room.adopt(one)
            if room.settings.max_clients_per_identity != bound:
                room.line_up_again(self._identities)
        moved, decisions = self._leave_rooms([one for one in self._rooms if one not in configured], moves, now)
        for name in configured:
            decisions += self._admit_waiting(self._rooms[name], now)
        for waiter in reversed(moved):
            room = self._rooms[waiter.class_name]
            if waiter.is_waiting and room.waiting > room.settings.queue_max:
                decisions.append(self._turn_away(waiter, room, self._reason_not_to_queue(room), now))
        self._forget_empty_rooms(configured.keys())
        return decisions

    def _leave_rooms(self, gone: Sequence[str], moves: Moves, now: float) -> tuple[list[Waiter], list[Decision]]:
        """Guests and waiters of these rooms go to others. Returns the waiters, the oldest first, and who is refused."""
        rooms = {name: self._rooms[name] for name in gone}
        for room in rooms.values():
            room.max_clients = 0
        leaving = [waiter for room in rooms.values() for waiter in room.all_waiters()]
        leaving.sort(key=Waiter.arrival)
        moved = [waiter for waiter in leaving if self._goes_somewhere(waiter.client, moves, rooms)]
        for waiter in moved:
            self._rooms[waiter.class_name].remove_waiter(waiter, self._identities[waiter.client])
            waiter.class_name, self._identities[waiter.client] = self._new_home(waiter.client, moves)
            self._rooms[waiter.class_name].add_waiter(waiter, self._identities[waiter.client])
        refused = [one for room in rooms.values() for one in self._refuse_waiting(room, _REJECTED, now)]
        if moves:
            self._guests_move(rooms, moves)
        for name in {waiter.class_name for waiter in moved}:
            self._rooms[name].line_up_again(self._identities)
        return moved, refused

    def _guests_move(self, gone: Mapping[str, Room], moves: Moves) -> None:
        for client, room in list(self._guests.items()):
            if gone.get(room.settings.name) is room and self._goes_somewhere(client, moves, gone):
                room.remove_guest(self._identities[client])
                class_name, self._identities[client] = self._new_home(client, moves)
                home = self._guests[client] = self._rooms[class_name]
                home.add_guest(home.identity(self._identities[client]))

    def _goes_somewhere(self, client: ClientId, moves: Moves, gone: Collection[str]) -> bool:
        return client in moves and moves[client].class_name in self._rooms and moves[client].class_name not in gone

    @staticmethod
    def _new_home(client: ClientId, moves: Moves) -> tuple[str, Hashable]:
        return moves[client].class_name, moves[client].flow

    @staticmethod
    def _reason_not_to_queue(room: Room) -> RefusalReason:
        return RefusalReason.MAX_CLIENTS if room.settings.queue_max == 0 else RefusalReason.QUEUE_FULL

    def refuse_all_waiting(self, reason: RefusalReason, now: float) -> Sequence[Decision]:
        return [refusal for room in self._rooms.values() for refusal in self._refuse_waiting(room, reason, now)]

    def would_have_been(self, client: ClientId, reason: RefusalReason) -> Would:
        """What a guest is told whose class only warns: the counts are those with it."""
        room = self._guests[client]
        return Would(room.settings.name, reason, room.taken, room.configured.max_clients or room.taken)

    # Inside

    def _room(self, class_name: str) -> Room:
        try:
            return self._rooms[class_name]
        except KeyError:
            raise UnknownClass(f'there is no class "{class_name}"') from None

    def _seat(self, client: ClientId, room: Room, identity: Hashable) -> None:
        room.add_guest(room.identity(identity))
        self._guests[client] = room
        self._identities[client] = identity

    def _grant(self, client: ClientId, room: Room, waited_seconds: float) -> Grant:
        self._guests[client] = room
        return Grant(client, room.settings.name, waited_seconds, borrowed=False)

    def _admit_waiting(self, room: Room, now: float) -> list[Decision]:
        decisions: list[Decision] = []
        while room.queue.waiters and room.has_a_place():
            waiter = room.admit_next(self._identities)
            del self._waiters[waiter.client]
            decisions.append(self._grant(waiter.client, room, now - waiter.since))
        return decisions

    def _line_up(self, waiter: Waiter, room: Room, timeout_seconds: float | None, identity: Hashable) -> None:
        waiter.wait_at_most(room.settings.queue_timeout_seconds, timeout_seconds)
        waiter.notify_after(room.settings.notify_after_seconds)
        self._waiters[waiter.client] = waiter
        self._identities[waiter.client] = identity
        room.add_waiter(waiter, identity)
        self._timers.watch(waiter, len(self._waiters))

    def _alarm(self, waiter: Waiter, now: float) -> Decision:
        room = self._room(waiter.class_name)
        if now >= waiter.deadline:
            return self._turn_away(waiter, room, RefusalReason.QUEUE_TIMEOUT, now)
        waiter.notify_at = None
        self._timers.watch(waiter, len(self._waiters))
        name = self._identities[waiter.client]
        return StillWaiting(waiter.client, waiter.class_name, now - waiter.since, room.position_of(waiter, name))

    def _refuse_waiting(self, room: Room, reason: RefusalReason, now: float) -> list[Decision]:
        return [self._turn_away(waiter, room, reason, now) for waiter in room.all_waiters()]

    def _turn_away(self, waiter: Waiter, room: Room, reason: RefusalReason, now: float) -> Refuse:
        name = self._identities[waiter.client]
        held_back_by = room.identities[name] if room.is_held_back(waiter, name) else None
        refusal = self._refusal(room, waiter.client, reason, now - waiter.since, now, held_back_by)
        del self._waiters[waiter.client], self._identities[waiter.client]
        room.remove_waiter(waiter, name)
        return refusal

    def _refusal(
        self,
        room: Room,
        client: ClientId,
        reason: RefusalReason,
        waited: float,
        now: float,
        held_back_by: Identity | None,
    ) -> Refuse:
        """The counts are those of the class, or of the identity where its bound is what stands in the way."""
        retry_after_ms = room.release_rate.retry_after_ms(room.released, room.waiting, now, self._draw)
        name = room.settings.name
        if held_back_by is None or reason in _NOT_FOR_WANT_OF_ROOM:
            limit = room.taken if room.max_clients is None else room.max_clients
            return Refuse(client, name, reason, waited, room.taken, limit, room.waiting, retry_after_ms)
        limit = room.settings.max_clients_per_identity or 0
        waiting = held_back_by.queued + len(held_back_by.held_back)
        return Refuse(
            client,
            name,
            RefusalReason.MAX_CLIENTS,
            waited,
            held_back_by.guests,
            limit,
            waiting,
            retry_after_ms,
            per_identity=True,
        )

    def _forget_empty_rooms(self, configured: Collection[str]) -> None:
        gone = [name for name, room in self._rooms.items() if name not in configured and not room.taken]
        for name in gone:
            del self._rooms[name]
