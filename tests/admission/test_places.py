"""How many clients of a class may be logged in at once."""

from collections.abc import Sequence

import pytest

from proxy.admission.classes import ClassSettings, ClientId, Mode
from proxy.admission.decisions import Decision, Grant, RefusalReason, StillWaiting
from proxy.admission.ledger import DoubleRequest, UnknownClass
from proxy.admission.places import ClientPlaces
from proxy.admission.removal import Destination
from tests.admission.crowd import budget, granted, refused


def places(**of_class: object) -> ClientPlaces:
    """A class `job` with these numbers beside one without `max_clients`."""
    job = ClassSettings("job", limit=1, **of_class)  # type: ignore[arg-type]
    return ClientPlaces(budget(5, job, ClassSettings("web", limit=5)), now=0.0)


def _only_grant(decisions: Sequence[Decision]) -> Grant:
    [grant] = decisions
    assert isinstance(grant, Grant)
    return grant


def test_without_max_clients_everybody_has_a_place() -> None:
    everybody = places()
    assert all(granted(everybody.join(ClientId(client), "web", 0.0)) for client in range(1000))
    assert everybody.taken("web") == 1000


def test_max_clients_one_is_a_mutex() -> None:
    mutex = places(max_clients=1)
    assert list(mutex.join(ClientId(1), "job", 0.0)) == [Grant(ClientId(1), "job", 0.0, borrowed=False)]
    assert mutex.join(ClientId(2), "job", 1.0) == ()
    assert mutex.left(ClientId(1), 3.0) == [Grant(ClientId(2), "job", 2.0, borrowed=False)]


def test_the_short_way_takes_a_place_like_any_other() -> None:
    room = places(max_clients=1)
    assert room.try_join(ClientId(1), "job", None)
    assert (room.taken("job"), room.try_join(ClientId(2), "job", None)) == (1, False)
    assert room.join(ClientId(2), "job", 1.0) == ()
    assert room.left(ClientId(1), 3.0) == [Grant(ClientId(2), "job", 2.0, borrowed=False)]


def test_the_short_way_is_not_for_a_client_that_has_a_place() -> None:
    room = places()
    assert [room.try_join(ClientId(1), "job", None) for _ in range(2)] == [True, False]
    with pytest.raises(DoubleRequest):
        room.join(ClientId(1), "job", 0.0)


def test_where_a_class_only_warns_there_may_be_something_to_say() -> None:
    room = places(max_clients=1, mode=Mode.WARN)
    assert not room.try_join(ClientId(1), "job", None)
    assert [one.would_refuse for one in map(_only_grant, (room.join(ClientId(n), "job", 0.0) for n in (1, 2)))] == [
        None,
        RefusalReason.MAX_CLIENTS,
    ]


def test_places_are_given_in_order_of_arrival() -> None:
    room = places(max_clients=1)
    for client in (1, 2, 3):
        room.join(ClientId(client), "job", 0.0)
    assert granted(room.left(ClientId(1), 1.0)) == [2]
    assert granted(room.left(ClientId(2), 1.0)) == [3]


def test_flows_take_turns_where_the_caller_names_them() -> None:
    room = places(max_clients=1)
    for client, flow in ((1, "a"), (2, "a"), (3, "a"), (4, "b")):
        room.join(ClientId(client), "job", 0.0, flow=flow)
    assert granted(room.left(ClientId(1), 1.0)) == [2]
    assert granted(room.left(ClientId(2), 1.0)) == [4]


def test_without_a_queue_the_answer_is_max_clients() -> None:
    room = places(max_clients=1, queue_max=0)
    room.join(ClientId(1), "job", 0.0)
    [refusal] = room.join(ClientId(2), "job", 0.0)
    assert refused([refusal]) == [(2, "max_clients")]
    assert refusal.in_use == refusal.limit == 1  # type: ignore[union-attr]


def test_a_full_queue_refuses() -> None:
    room = places(max_clients=1, queue_max=1)
    for client in (1, 2):
        room.join(ClientId(client), "job", 0.0)
    assert refused(room.join(ClientId(3), "job", 0.0)) == [(3, "queue_full")]


def test_patience_ends() -> None:
    room = places(max_clients=1, queue_timeout_seconds=5.0)
    room.join(ClientId(1), "job", 0.0)
    room.join(ClientId(2), "job", 0.0)
    room.join(ClientId(3), "job", 0.0, timeout_seconds=2.0)
    assert room.next_wakeup_at() == 2.0
    assert refused(room.advance(2.0)) == [(3, "queue_timeout")]
    assert refused(room.advance(5.0)) == [(2, "queue_timeout")]
    assert room.next_wakeup_at() is None


def test_a_notice_comes_once() -> None:
    room = places(max_clients=1, queue_timeout_seconds=50.0, notify_after_seconds=5.0)
    room.join(ClientId(1), "job", 0.0)
    room.join(ClientId(2), "job", 0.0)
    assert room.advance(5.0) == [StillWaiting(ClientId(2), "job", 5.0, position=1)]
    assert room.advance(6.0) == []


def test_a_client_that_gives_up_leaves_the_queue() -> None:
    room = places(max_clients=1)
    for client in (1, 2, 3):
        room.join(ClientId(client), "job", 0.0)
    assert room.left(ClientId(2), 1.0) == ()
    assert granted(room.left(ClientId(1), 2.0)) == [3]


def test_a_stranger_that_leaves_is_ignored() -> None:
    assert places().left(ClientId(9), 0.0) == ()


def test_a_client_joins_once() -> None:
    room = places(max_clients=1)
    for client in (1, 2):
        room.join(ClientId(client), "job", 0.0)
        with pytest.raises(DoubleRequest):
            room.join(ClientId(client), "job", 0.0)


def test_an_unknown_class_is_named() -> None:
    with pytest.raises(UnknownClass, match='no class "cron"'):
        places().join(ClientId(1), "cron", 0.0)


def test_a_reload_admits_who_fits_now_and_takes_no_place_away() -> None:
    room = places(max_clients=2)
    for client in (1, 2, 3):
        room.join(ClientId(client), "job", 0.0)
    assert granted(room.reconfigure(budget(5, ClassSettings("job", limit=1, max_clients=3)), 1.0)) == [3]
    room.reconfigure(budget(5, ClassSettings("job", limit=1, max_clients=1)), 2.0)
    assert room.taken("job") == 3
    assert room.join(ClientId(4), "job", 2.0) == ()
    assert [granted(room.left(ClientId(client), 3.0)) for client in (1, 2, 3)] == [[], [], [4]]


def test_who_has_nowhere_to_go_from_a_removed_class_is_refused_or_stays_as_a_guest() -> None:
    room = places(max_clients=1)
    for client in (1, 2):
        room.join(ClientId(client), "job", 0.0)
    web_only = budget(5, ClassSettings("web", limit=5))
    assert refused(room.reconfigure(web_only, 1.0)) == [(2, "class_rejecting")]
    assert room.taken("job") == 1
    assert room.left(ClientId(1), 2.0) == []
    room.reconfigure(web_only, 3.0)
    with pytest.raises(UnknownClass):
        room.taken("job")


def test_guests_and_waiters_of_a_removed_class_go_to_another_with_their_time_of_arrival() -> None:
    """Nobody loses a place for it, so there may be too many for a while; of waiters as many as the queue takes."""
    web = ClassSettings("web", limit=5, max_clients=2, queue_max=3)
    room = ClientPlaces(budget(5, web, ClassSettings("job", limit=1, max_clients=1)), now=0.0)
    for client, name in ((1, "web"), (2, "web"), (3, "job")):
        assert granted(room.join(ClientId(client), name, 0.0)) == [client]
    for client, name in ((4, "job"), (5, "web"), (6, "job"), (7, "job")):
        assert room.join(ClientId(client), name, float(client)) == ()
    moves = {ClientId(client): Destination("web", client) for client in (3, 4, 6, 7)}
    assert refused(room.reconfigure(budget(5, web), 8.0, moves)) == [(7, "queue_full")]
    assert (room.taken("web"), room.waiting("web"), room.taken_by("web", 3)) == (3, 3, 1)
    with pytest.raises(UnknownClass):
        room.taken("job")
    assert [granted(room.left(ClientId(client), 9.0)) for client in (3, 2, 1, 4)] == [[], [4], [5], [6]]


def test_everybody_is_sent_away_at_shutdown() -> None:
    room = places(max_clients=1)
    for client in (1, 2, 3):
        room.join(ClientId(client), "job", 0.0)
    assert refused(room.refuse_all_waiting(RefusalReason.SHUTTING_DOWN, 1.0)) == [
        (2, "shutting_down"),
        (3, "shutting_down"),
    ]
