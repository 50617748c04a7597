"""How many connections one identity may have at once: stories first, then what holds over drawn traffic."""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from random import Random

import pytest

from proxy.admission.classes import ClassSettings, ClientId, Mode
from proxy.admission.decisions import Decision, Grant, RefusalReason, Refuse, StillWaiting
from proxy.admission.places import ClientPlaces
from proxy.admission.queues import Waiter
from proxy.admission.rooms import Identity, Room
from tests.admission.crowd import budget, granted, refused


def places(**of_class: object) -> ClientPlaces:
    job = ClassSettings("job", limit=1, **of_class)  # type: ignore[arg-type]
    return ClientPlaces(budget(5, job), now=0.0)


def join(room: ClientPlaces, client: int, identity: str, now: float = 0.0) -> list[Decision]:
    return list(room.join(ClientId(client), "job", now, identity=identity))


def test_an_identity_at_its_bound_waits_and_keeps_nobody_else_waiting() -> None:
    room = places(max_clients_per_identity=2)
    assert [granted(join(room, client, "greedy")) for client in (1, 2, 3)] == [[1], [2], []]
    assert granted(join(room, 4, "modest")) == [4]
    assert granted(room.left(ClientId(4), 1.0)) == []
    assert granted(room.left(ClientId(1), 2.0)) == [3]
    assert room.taken_by("job", "greedy") == 2


def test_who_is_held_back_joins_the_queue_when_one_of_its_own_has_left() -> None:
    """Both bounds at once: a place that becomes free goes to the queue, and not to whoever may not have it."""
    room = places(max_clients=2, max_clients_per_identity=1)
    for client, identity in ((1, "a"), (2, "b"), (3, "a"), (4, "a"), (5, "c")):
        join(room, client, identity)
    assert room.waiting("job") == 3
    assert granted(room.left(ClientId(2), 1.0)) == [5]
    assert granted(room.left(ClientId(1), 2.0)) == [3]
    assert granted(room.left(ClientId(3), 3.0)) == [4]


def test_the_refusal_is_max_clients_with_the_counts_of_the_identity() -> None:
    room = places(max_clients=10, max_clients_per_identity=1, queue_timeout_seconds=5.0)
    for client, identity in ((1, "a"), (2, "b"), (3, "a"), (4, "a")):
        join(room, client, identity)
    [first, second] = room.advance(5.0)
    assert isinstance(first, Refuse)
    assert isinstance(second, Refuse)
    assert (first.client, first.reason, first.per_identity) == (3, RefusalReason.MAX_CLIENTS, True)
    assert (first.in_use, first.limit, first.waiting, second.waiting) == (1, 1, 2, 1)
    assert room.waiting("job") == 0


def test_without_a_queue_it_is_refused_at_once() -> None:
    room = places(max_clients_per_identity=1, queue_max=0)
    join(room, 1, "a")
    [refusal] = join(room, 2, "a")
    assert isinstance(refusal, Refuse)
    assert (refusal.reason, refusal.per_identity) == (RefusalReason.MAX_CLIENTS, True)
    assert granted(join(room, 3, "b")) == [3]


def test_a_class_that_is_full_for_everybody_is_not_blamed_on_the_identity() -> None:
    room = places(max_clients=1, max_clients_per_identity=1, queue_max=1)
    for client, identity in ((1, "a"), (2, "b")):
        join(room, client, identity)
    [refusal] = join(room, 3, "c")
    assert isinstance(refusal, Refuse)
    assert (refusal.reason, refusal.per_identity, refusal.limit) == (RefusalReason.QUEUE_FULL, False, 1)


def test_who_is_held_back_gets_its_notice() -> None:
    room = places(max_clients_per_identity=1, notify_after_seconds=1.0, queue_timeout_seconds=9.0)
    for client in (1, 2, 3):
        join(room, client, "a")
    assert room.advance(1.0) == [
        StillWaiting(ClientId(2), "job", 1.0, position=1),
        StillWaiting(ClientId(3), "job", 1.0, position=2),
    ]


def test_a_reload_moves_who_waits_to_where_the_new_bound_puts_them() -> None:
    room = places(max_clients_per_identity=1)
    for client in (1, 2, 3):
        join(room, client, "a")
    more = budget(5, ClassSettings("job", limit=1, max_clients_per_identity=2))
    assert granted(room.reconfigure(more, 1.0)) == [2]
    without = budget(5, ClassSettings("job", limit=1))
    assert granted(room.reconfigure(without, 2.0)) == [3]
    one = budget(5, ClassSettings("job", limit=1, max_clients_per_identity=1))
    room.reconfigure(one, 3.0)
    assert join(room, 4, "a") == []
    assert [granted(room.left(ClientId(client), 4.0)) for client in (1, 2, 3)] == [[], [], [4]]


def test_the_held_back_are_sent_away_with_the_others() -> None:
    room = places(max_clients_per_identity=1)
    for client in (1, 2):
        join(room, client, "a")
    assert refused(room.refuse_all_waiting(RefusalReason.SHUTTING_DOWN, 1.0)) == [(2, "shutting_down")]


def test_identities_that_are_gone_are_forgotten() -> None:
    room = places(max_clients_per_identity=1)
    for client in range(200):
        join(room, client, f"run {client % 50}")
    for client in range(200):
        room.left(ClientId(client), 1.0)
    assert room._room("job").identities == {}


def test_who_is_held_back_goes_on_under_the_new_name_of_its_class() -> None:
    """It was left behind under the old one, and its deadline, or its leaving, met a class that is no more."""
    room = places(max_clients_per_identity=1, queue_timeout_seconds=5.0)
    for client in (1, 2, 3):
        join(room, client, "greedy")
    renamed = ClassSettings("task", limit=1, max_clients_per_identity=1, renamed_from="job")
    assert list(room.reconfigure(budget(5, renamed), 1.0)) == []
    assert list(room.left(ClientId(3), 2.0)) == []
    assert granted(room.left(ClientId(1), 3.0)) == [2]
    assert (room.taken("task"), room.waiting("task")) == (1, 0)


def test_who_is_held_back_comes_in_where_its_class_only_warns_from_now_on() -> None:
    """The number stays the same, and decides nothing any more."""
    room = places(max_clients_per_identity=1)
    for client in (1, 2, 3):
        join(room, client, "greedy")
    warns = ClassSettings("job", limit=1, max_clients_per_identity=1, mode=Mode.WARN)
    assert granted(room.reconfigure(budget(5, warns), 1.0)) == [2, 3]


# Over drawn traffic


class Traffic:
    """Random commands, with a count of its own of who has a place and who waits."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.name = "job"
        self.settings = self.drawn_settings()
        self.places = ClientPlaces(budget(5, self.settings), now=0.0)
        self.guests: dict[ClientId, Hashable] = {}
        self.waiters: dict[ClientId, Hashable] = {}  # in order of arrival
        self.now = 0.0
        self.clients = 0

    def drawn_settings(self) -> ClassSettings:
        """Of the same class, or of one that goes on in its place."""
        was, self.name = self.name, self.random.choice([self.name, self.name, "task", "work"])
        return ClassSettings(
            self.name,
            limit=1,
            renamed_from=None if was == self.name else was,
            mode=self.random.choice([Mode.ENFORCE, Mode.ENFORCE, Mode.ENFORCE, Mode.WARN]),
            max_clients=self.random.choice([None, 1, 2, 4]),
            max_clients_per_identity=self.random.choice([None, 1, 1, 2, 3]),
            queue_max=self.random.choice([0, 2, 50]),
            queue_timeout_seconds=self.random.choice([3.0, 20.0]),
        )

    def run(self, steps: int = 60) -> None:
        for _ in range(steps):
            self.now += self.random.choice([0.0, 0.5, 1.0])
            command = self.random.choice(
                [self.somebody_comes] * 6 + [self.somebody_goes] * 4 + [self.time, self.reload]
            )
            command()
            self.check()

    def somebody_comes(self) -> None:
        self.clients += 1
        client, identity = ClientId(self.clients), self.random.choice("abc")
        takes_short_way = self.random.random() < 0.5
        if takes_short_way and self.places.try_join(client, self.name, identity):
            assert identity not in self.waiters.values(), "it overtook one of its identity"
            self.guests[client] = identity
            assert self.has_room(identity, but_for=1), "admitted above a bound"
            return
        self.waiters[client] = identity
        decisions = self.places.join(client, self.name, self.now, identity=identity)
        warns = self.settings.mode is Mode.WARN  # and has to say so
        assert warns or not (takes_short_way and granted(decisions)), "it could have had its place by the short way"
        self.apply(decisions)

    def somebody_goes(self) -> None:
        if there := [*self.guests, *self.waiters]:
            client = self.random.choice(there)
            self.guests.pop(client, None)
            self.waiters.pop(client, None)
            self.apply(self.places.left(client, self.now))

    def time(self) -> None:
        self.apply(self.places.advance(self.now))

    def reload(self) -> None:
        self.settings = self.drawn_settings()
        self.apply(self.places.reconfigure(budget(5, self.settings), self.now))

    def apply(self, decisions: object) -> None:
        assert isinstance(decisions, list | tuple)
        for decision in decisions:
            if isinstance(decision, StillWaiting):
                continue
            identity = self.waiters.pop(decision.client)  # answered once: a second answer is a KeyError
            if isinstance(decision, Grant):
                older = [client for client, whose in self.waiters.items() if whose == identity]
                assert all(client > decision.client for client in older), "one overtook an older one of its identity"
                self.guests[decision.client] = identity
                assert self.has_room(identity, but_for=1), "admitted above a bound"

    def has_room(self, identity: Hashable, *, but_for: int = 0) -> bool:
        if self.settings.mode is Mode.WARN:
            return True
        of_class, of_identity = self.settings.max_clients, self.settings.max_clients_per_identity
        guests = Counter(self.guests.values())[identity] - but_for
        return (of_class is None or len(self.guests) - but_for < of_class) and (
            of_identity is None or guests < of_identity
        )

    def check(self) -> None:
        for client, identity in self.waiters.items():
            assert not self.has_room(identity), f"client {client} waits while there is a place it may have"
        assert self.places.taken(self.name) == len(self.guests)
        assert self.places.waiting(self.name) == len(self.waiters)
        for identity in "abc":
            assert self.places.taken_by(self.name, identity) == Counter(self.guests.values())[identity]


def much_traffic() -> None:
    for seed in range(400):
        Traffic(seed).run()


def test_bounds_hold_nobody_waits_in_vain_and_identities_keep_their_order() -> None:
    much_traffic()


def _any_number(_room: Room, _one: Identity) -> bool:
    return True


def _nobody_moves_up(_room: Room, _name: Hashable, _one: Identity) -> None:
    pass


def _counted_twice(room: Room, names: Mapping[ClientId, Hashable]) -> Waiter:
    waiter = _admit_next(room, names)
    room.identities[names[waiter.client]].queued += 1
    return waiter


def _blames_nobody(room: Room, name: Hashable) -> None:
    room.taken -= 1
    room._another_may_queue(name, room.identities[name])


_admit_next = Room.admit_next


@pytest.mark.parametrize(
    ("method", "bug"),
    [
        ("may_have_one_more", _any_number),
        ("is_open", _any_number),
        ("is_open", lambda _room, _one: False),
        ("_another_may_queue", _nobody_moves_up),
        ("admit_next", _counted_twice),
        ("remove_guest", _blames_nobody),
        ("line_up_again", lambda _room, _names: None),
    ],
)
def test_a_planted_bug_is_caught(monkeypatch: pytest.MonkeyPatch, method: str, bug: Callable[..., object]) -> None:
    monkeypatch.setattr(Room, method, bug)
    with pytest.raises((AssertionError, KeyError)):
        much_traffic()
