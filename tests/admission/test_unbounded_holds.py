"""Slots that may never come back: session mode, and clients that are pinned."""

import pytest

from proxy.admission.classes import ClassSettings, ClientId
from proxy.admission.controller import Controller
from proxy.admission.ledger import LedgerError
from tests.admission.crowd import ask, budget, flood, granted, look

WEB = ClassSettings("web", priority=1, reserved=3, lendable=3, limit=3)


def with_web(total: int, **of_bulk: int) -> Controller:
    """Web has 3 slots reserved, all of them lent to bulk if need be."""
    return Controller(budget(total, WEB, ClassSettings("bulk", limit=total, **of_bulk)), now=0.0)  # type: ignore[arg-type]


def test_a_session_never_stands_on_a_lent_slot() -> None:
    core = with_web(5)
    sessions = [granted(ask(core, client, "bulk", unbounded=True)) for client in (1, 2, 3)]
    assert sessions == [[1], [2], []]


def test_work_with_an_end_may_borrow_beside_sessions() -> None:
    core = with_web(5)
    ask(core, 1, "bulk", unbounded=True)
    ask(core, 2, "bulk", unbounded=True)
    assert len(flood(core, "bulk", 10, 5)) == 3


def test_sessions_are_bounded_by_the_pinned_limit() -> None:
    core = with_web(8, pinned_limit=1)
    assert granted(ask(core, 1, "bulk", unbounded=True)) == [1]
    assert granted(ask(core, 2, "bulk", unbounded=True)) == []
    assert granted(core.release(ClientId(1), 1.0)) == [2]


def test_without_a_pinned_limit_the_limit_bounds_sessions() -> None:
    core = Controller(budget(9, ClassSettings("bulk", limit=2)), now=0.0)
    assert [len(granted(ask(core, client, "bulk", unbounded=True))) for client in (1, 2, 3)] == [1, 1, 0]


def test_a_session_has_its_own_reservation_whatever_others_borrow() -> None:
    core = with_web(3)
    assert len(flood(core, "bulk", 10, 2)) == 2
    assert granted(ask(core, 1, "web", unbounded=True)) == [1]


def test_a_session_in_the_headroom_takes_nobodys_floor() -> None:
    """Judged beside full reservations alone it did: `a` sits in its own reservation there and uses no headroom, so that
    headroom seemed to be left, and the slot was that of `b`.
    """
    classes = (
        ClassSettings("a", reserved=1, lendable=1, limit=4),
        ClassSettings("b", reserved=1, lendable=0, limit=4),
        ClassSettings("c", limit=4),
        ClassSettings("outsider", limit=4),
    )
    core = Controller(budget(4, *classes, headroom=2, headroom_for=["a", "c"]), now=0.0)
    assert [granted(ask(core, *who)) for who in ((1, "outsider"), (2, "a"), (3, "c"))] == [[1], [2], [3]]
    assert granted(ask(core, 4, "c", unbounded=True)) == []
    assert granted(ask(core, 5, "b")) == [5]


class TestPins:
    def test_a_pin_within_what_nobody_reserved_is_allowed(self) -> None:
        core = with_web(5)
        ask(core, 1, "bulk")
        assert core.request_pin(ClientId(1), 1.0) is None
        assert look(core, "bulk").pinned == 1

    def test_a_pin_on_a_lent_slot_is_refused_and_the_slot_kept(self) -> None:
        core = with_web(3)
        ask(core, 1, "bulk")
        refusal = core.request_pin(ClientId(1), 1.0)
        assert refusal is not None
        assert refusal.reason.value == "pinned_limit"
        assert core.holds(ClientId(1))
        assert look(core, "bulk").pinned == 0

    def test_pins_are_bounded_by_the_pinned_limit(self) -> None:
        core = with_web(8, pinned_limit=1)
        flood(core, "bulk", 1, 2)
        assert core.request_pin(ClientId(1), 1.0) is None
        assert core.request_pin(ClientId(2), 1.0) is not None

    def test_asking_twice_counts_once(self) -> None:
        core = with_web(5)
        ask(core, 1, "bulk")
        core.request_pin(ClientId(1), 1.0)
        assert core.request_pin(ClientId(1), 2.0) is None
        core.note_pinned(ClientId(1), 3.0)
        assert look(core, "bulk").pinned == 1

    def test_a_pin_ends_with_its_slot(self) -> None:
        core = with_web(5)
        ask(core, 1, "bulk")
        core.request_pin(ClientId(1), 1.0)
        core.release(ClientId(1), 2.0)
        assert look(core, "bulk").pinned == 0

    def test_unpinning_lets_a_session_in_that_waits_for_the_pinned_limit(self) -> None:
        core = with_web(8, pinned_limit=1)
        ask(core, 1, "bulk")
        core.request_pin(ClientId(1), 0.0)
        ask(core, 2, "bulk", unbounded=True)
        assert granted(core.unpin(ClientId(1), 1.0)) == [2]
        assert core.holds(ClientId(1))

    def test_only_who_holds_a_slot_can_be_pinned(self) -> None:
        core = with_web(5)
        for command in (core.request_pin, core.note_pinned, core.unpin):
            with pytest.raises(LedgerError):
                command(ClientId(1), 0.0)


class TestDebts:
    def test_a_pin_seen_in_time_and_allowed_is_no_debt(self) -> None:
        core = with_web(5)
        ask(core, 1, "bulk")
        core.note_pinned(ClientId(1), 1.0)
        assert (look(core, "bulk").pinned, look(core, "bulk").pinned_debt) == (1, 0)

    def test_the_next_release_of_a_class_in_debt_serves_the_others_first(self) -> None:
        """Bulk has the better priority here; without the debt its own waiter would get the slot."""
        web = ClassSettings("web", priority=9, reserved=3, lendable=3, limit=3, lend_memory_seconds=0.0)
        bulk, cron = ClassSettings("bulk", priority=1, limit=3), ClassSettings("cron", priority=5, limit=3)
        core = Controller(budget(3, web, bulk, cron), now=0.0)
        flood(core, "bulk", 1, 4)
        flood(core, "cron", 10, 1)
        core.note_pinned(ClientId(1), 1.0)
        assert look(core, "bulk").pinned_debt == 1
        assert granted(core.release(ClientId(2), 2.0)) == [10]
        assert look(core, "bulk").pinned_debt == 0
        assert granted(core.release(ClientId(3), 3.0)) == [4]

    def test_a_class_in_debt_borrows_nothing(self) -> None:
        core = with_web(3)
        ask(core, 1, "bulk")
        core.note_pinned(ClientId(1), 1.0)
        assert granted(ask(core, 2, "bulk", 2.0)) == []
        assert not core.try_grant(ClientId(3), "bulk", 2.0)

    def test_a_class_in_debt_has_its_own_slots_all_the_same(self) -> None:
        bulk = ClassSettings("bulk", reserved=1, lendable=0, limit=3, pinned_limit=0)
        core = Controller(budget(4, WEB, bulk), now=0.0)
        flood(core, "bulk", 1, 2)
        core.note_pinned(ClientId(1), 1.0)
        core.release(ClientId(2), 2.0)
        core.release(ClientId(1), 3.0)
        assert granted(ask(core, 3, "bulk", 4.0)) == [3]

    def test_nothing_is_repaid_above_the_pinned_limit(self) -> None:
        core = with_web(8, pinned_limit=1)
        flood(core, "bulk", 1, 3)
        core.note_pinned(ClientId(1), 1.0)
        core.note_pinned(ClientId(2), 1.0)
        core.release(ClientId(3), 2.0)
        assert look(core, "bulk").pinned_debt == 1

    def test_a_debt_goes_with_its_pin(self) -> None:
        core = with_web(3)
        ask(core, 1, "bulk")
        core.note_pinned(ClientId(1), 1.0)
        core.unpin(ClientId(1), 2.0)
        assert granted(ask(core, 2, "bulk", 3.0)) == [2]
