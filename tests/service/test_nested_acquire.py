"""Who probably waits for itself, from looks at who holds and who waits."""

from proxy.admission.classes import ClientId
from proxy.service.traffic.nested_acquire import (
    TOLD_AGAIN_AFTER_SECONDS,
    Holder,
    Identity,
    NestedAcquires,
    Suspect,
    ToTell,
    Waiting,
)

JOB = Identity("bulk", "app", "10.0.0.1", "import")
OTHER = JOB._replace(address="10.0.0.2")


def holder(client: int = 1, identity: Identity = JOB, since: float = 0.0) -> Holder:
    return Holder(ClientId(client), identity, since)


def waiting(client: int = 2, identity: Identity = JOB, since: float = 5.0) -> Waiting:
    return Waiting(ClientId(client), identity, since)


def test_a_quiet_holder_and_a_long_wait_of_the_same_identity_at_two_looks():
    nested = NestedAcquires()
    assert nested.look([holder()], [waiting()], 6.0) == []
    [told] = nested.look([holder()], [waiting()], 7.0)
    assert told == ToTell(Suspect(JOB, holding=1, waiting=1, waited_seconds=2.0), times=1)
    assert nested.suspects == (told.suspect,)


def test_a_holder_that_worked_in_between_is_none():
    """It gave its slot back and has another: whoever waits is served by that."""
    nested = NestedAcquires()
    nested.look([holder(since=0.0)], [waiting()], 6.0)
    assert nested.look([holder(since=6.5)], [waiting()], 7.0) == []
    nested.look([], [waiting()], 8.0)
    assert nested.look([holder(since=6.5)], [waiting()], 9.0) == []


def test_the_wait_has_to_be_long_behind_the_hold_and_of_the_same_identity():
    for one in (waiting(since=6.2), waiting(identity=OTHER), waiting(since=-1.0)):
        nested = NestedAcquires()
        nested.look([holder()], [one], 6.0)
        assert nested.look([holder()], [one], 7.0) == []
        assert nested.suspects == ()


def test_each_wait_counts_once_and_a_new_one_again():
    nested = NestedAcquires()
    for now in (6.0, 7.0, 8.0, 9.0):
        nested.look([holder()], [waiting(2), waiting(3)], now)
    assert nested.counts["bulk", "import"] == 2
    for now in (20.0, 21.0):
        nested.look([holder()], [waiting(2, since=15.0)], now)
    assert nested.counts["bulk", "import"] == 3


def test_an_identity_is_told_at_once_and_then_at_most_every_ten_minutes_with_its_count():
    nested = NestedAcquires()
    told = []
    for number in range(5):
        since = 5.0 + 10 * number
        for now in (since + 2, since + 3):
            told += nested.look([holder()], [waiting(since=since)], now)
    assert [one.times for one in told] == [1]
    for now in (TOLD_AGAIN_AFTER_SECONDS + 50, TOLD_AGAIN_AFTER_SECONDS + 51):
        told += nested.look([holder()], [waiting(since=90.0)], now)
    assert [one.times for one in told] == [1, 5]


def test_when_nobody_waits_nothing_is_remembered_of_who_was_quiet():
    nested = NestedAcquires()
    nested.look([holder()], [waiting()], 6.0)
    nested.nobody_waits()
    assert nested.look([holder()], [waiting()], 7.0) == []
    assert nested.suspects == ()


def test_names_that_clients_invent_do_not_fill_the_memory():
    nested = NestedAcquires()
    for number in range(1500):
        one = JOB._replace(address=str(number))
        for now in (6.0, 7.0):
            nested.look([holder(identity=one)], [waiting(identity=one)], now)
        nested.nobody_waits()
    assert len(nested._told) <= 1000
    assert len(nested._untold) <= 1000
