"""Who is told no, when, and with which reason and numbers."""

from math import inf

import pytest

from proxy.admission.classes import ClassSettings, ClassState, ClientId
from proxy.admission.controller import Controller
from proxy.admission.decisions import RefusalReason, Refuse, StillWaiting
from tests.admission.crowd import ask, budget, clients, flood, granted, look, refused


def one_slot(**of_class: object) -> Controller:
    """One class with one slot, which client 1 holds."""
    core = Controller(budget(1, ClassSettings("bulk", limit=1, **of_class)), now=0.0)  # type: ignore[arg-type]
    ask(core, 1, "bulk")
    return core


def test_a_full_queue_refuses_at_once() -> None:
    core = one_slot(queue_max=2)
    flood(core, "bulk", 2, 2)
    assert refused(ask(core, 4, "bulk")) == [(4, "queue_full")]
    assert core.waiting == 2


def test_a_class_that_does_not_queue_refuses_with_its_limit() -> None:
    assert refused(ask(one_slot(queue_max=0), 2, "bulk")) == [(2, "limit")]


def test_a_class_that_does_not_queue_names_the_queue_where_others_took_the_slots() -> None:
    """Its limit would allow more: raising it would not help."""
    core = Controller(budget(1, ClassSettings("a", limit=1), ClassSettings("b", limit=1, queue_max=0)), now=0.0)
    ask(core, 1, "a")
    assert refused(ask(core, 2, "b")) == [(2, "queue_full")]


def test_the_patience_of_the_class_ends_in_queue_timeout() -> None:
    core = one_slot(queue_timeout_seconds=2.0)
    ask(core, 2, "bulk", 1.0)
    assert core.next_wakeup_at() == 3.0
    assert refused(core.advance(2.9)) == []
    assert refused(core.advance(3.0)) == [(2, "queue_timeout")]
    assert (core.waiting, core.next_wakeup_at()) == (0, None)


def test_the_patience_of_the_request_ends_in_queue_timeout_too() -> None:
    core = one_slot(queue_timeout_seconds=2.0)
    ask(core, 2, "bulk", 0.0, timeout_seconds=0.5)
    assert refused(core.advance(0.5)) == [(2, "queue_timeout")]


def test_a_request_cannot_be_more_patient_than_its_class() -> None:
    core = one_slot(queue_timeout_seconds=2.0)
    ask(core, 2, "bulk", 0.0, timeout_seconds=60.0)
    assert refused(core.advance(2.0)) == [(2, "queue_timeout")]


def test_patience_without_end_sets_no_timer() -> None:
    core = one_slot(queue_timeout_seconds=inf, notify_after_seconds=inf)
    ask(core, 2, "bulk")
    assert core.next_wakeup_at() is None


def test_a_refused_waiter_makes_room_for_whom_it_kept_waiting() -> None:
    """While it waited for its class's pinned limit, the whole reservation of the class was held."""
    owner = ClassSettings(
        "owner", reserved=2, lendable=2, limit=2, pinned_limit=1, queue_timeout_seconds=1.0, lend_memory_seconds=0.0
    )
    core = Controller(budget(2, owner, ClassSettings("bulk", limit=2)), now=0.0)
    ask(core, 1, "owner", unbounded=True)
    ask(core, 2, "owner", unbounded=True)
    ask(core, 10, "bulk")
    decisions = core.advance(1.0)
    assert (refused(decisions), granted(decisions)) == ([(2, "pinned_limit")], [10])


def test_a_notice_comes_once() -> None:
    core = one_slot(queue_timeout_seconds=30.0, notify_after_seconds=5.0)
    flood(core, "bulk", 2, 3)
    notices = core.advance(5.0)
    assert notices[2] == StillWaiting(ClientId(4), "bulk", waited_seconds=5.0, position=3)
    assert core.advance(6.0) == []
    assert core.next_wakeup_at() == 30.0


def test_no_notice_where_patience_ends_sooner() -> None:
    core = one_slot(queue_timeout_seconds=2.0, notify_after_seconds=5.0)
    ask(core, 2, "bulk")
    assert [type(one) for one in core.advance(10.0)] == [Refuse]


def test_who_may_be_served_is_not_refused_by_a_late_timer() -> None:
    """Decay freed the slot before the deadline; the timer came after both."""
    web = ClassSettings("web", reserved=1, lendable=1, limit=1, lend_memory_seconds=1.0)
    core = Controller(budget(1, web, ClassSettings("bulk", limit=1, queue_timeout_seconds=5.0)), now=0.0)
    ask(core, 1, "web")
    core.release(ClientId(1), 0.0)
    ask(core, 2, "bulk", 0.0)
    assert granted(core.advance(9.0)) == [2]


def test_a_refusal_carries_the_numbers_that_decide() -> None:
    core = one_slot(queue_max=1)
    ask(core, 2, "bulk")
    assert list(ask(core, 3, "bulk", 4.0)) == [
        Refuse(
            ClientId(3), "bulk", RefusalReason.QUEUE_FULL,
            waited_seconds=0.0, in_use=1, limit=1, waiting=1, retry_after_ms=1000,
        )
    ]  # fmt: skip
    assert look(core, "bulk").refusals == {RefusalReason.QUEUE_FULL: 1}


@pytest.mark.parametrize(
    ("releases_per_second", "waiting", "retry_after_ms"), [(100, 3, 50), (10, 4, 500), (1, 3, 4000), (1, 50, 5000)]
)
def test_asking_again_makes_sense_when_the_queue_has_been_served(
    releases_per_second: int, waiting: int, retry_after_ms: int
) -> None:
    core = one_slot(queue_max=waiting)
    for number in range(4 * releases_per_second):
        now = number / releases_per_second
        core.release(ClientId(number + 1), now)
        ask(core, number + 2, "bulk", now)
    flood(core, "bulk", 10_000, waiting, now=4.0)
    [refusal] = ask(core, 20_000, "bulk", 4.0)
    assert isinstance(refusal, Refuse)
    assert refusal.retry_after_ms == retry_after_ms


def test_everybody_is_sent_away_at_shutdown() -> None:
    core = one_slot()
    flood(core, "bulk", 2, 3)
    assert refused(core.refuse_all_waiting(RefusalReason.SHUTTING_DOWN, 1.0)) == [
        (client, "shutting_down") for client in clients(2, 3)
    ]
    assert core.in_use == 1


def test_one_class_is_sent_away_and_the_others_stay() -> None:
    core = Controller(budget(1, ClassSettings("a", limit=1), ClassSettings("b", limit=1)), now=0.0)
    ask(core, 1, "a")
    ask(core, 2, "a")
    ask(core, 3, "b")
    assert refused(core.refuse_all_waiting(RefusalReason.SERVER_UNAVAILABLE, 1.0, "a")) == [(2, "server_unavailable")]
    assert core.waits(ClientId(3))


class TestSwitches:
    def test_a_paused_class_lets_wait_and_resumes_where_it_was(self) -> None:
        core = one_slot()
        ask(core, 2, "bulk")
        core.set_state("bulk", ClassState.PAUSED, 1.0)
        assert core.release(ClientId(1), 2.0) == []
        ask(core, 3, "bulk", 3.0)
        assert granted(core.set_state("bulk", ClassState.RUNNING, 4.0)) == [2]

    def test_a_draining_class_grants_nothing_and_empties(self) -> None:
        core = one_slot()
        core.set_state("bulk", ClassState.DRAINING, 1.0)
        assert not core.try_grant(ClientId(2), "bulk", 2.0)
        core.release(ClientId(1), 3.0)
        assert look(core, "bulk").used == 0

    def test_a_rejecting_class_sends_its_waiters_away_and_whoever_comes(self) -> None:
        core = one_slot()
        ask(core, 2, "bulk")
        assert refused(core.set_state("bulk", ClassState.REJECTING, 1.0)) == [(2, "class_rejecting")]
        assert refused(ask(core, 3, "bulk", 2.0)) == [(3, "class_rejecting")]

    def test_a_paused_class_holds_its_floor_only(self, core: Controller) -> None:
        flood(core, "web", 1, 4)
        core.set_state("web", ClassState.PAUSED, 1.0)
        for client in clients(1, 4):
            core.release(client, 1.0)
        assert look(core, "web", 1.0).held == 1

    def test_the_switch_is_the_reason_when_patience_ends_in_a_paused_class(self) -> None:
        core = one_slot(queue_timeout_seconds=2.0)
        core.set_state("bulk", ClassState.PAUSED, 0.0)
        ask(core, 2, "bulk")
        assert refused(core.advance(2.0)) == [(2, "paused")]

    def test_the_switch_is_the_reason_where_a_paused_class_does_not_queue(self) -> None:
        core = one_slot(queue_max=0)
        core.set_state("bulk", ClassState.PAUSED, 0.0)
        assert refused(ask(core, 2, "bulk")) == [(2, "paused")]
