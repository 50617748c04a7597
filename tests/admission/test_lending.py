"""What a class needed lately is held for it, and forgotten bit by bit."""

from math import inf, log2

import pytest

from proxy.admission.classes import ClassSettings, ClientId
from proxy.admission.controller import Controller
from proxy.admission.demand import DemandMemory
from tests.admission.crowd import ask, budget, clients, flood, granted, look


def lending_budget() -> Controller:
    """4 slots, all reserved for web and all lendable; bulk has only what it borrows."""
    web = ClassSettings("web", priority=1, reserved=4, lendable=4, limit=4, lend_memory_seconds=10.0)
    bulk = ClassSettings("bulk", priority=9, limit=4, queue_timeout_seconds=inf, notify_after_seconds=inf)
    return Controller(budget(4, web, bulk), now=0.0)


def test_what_was_never_needed_is_lent_at_once() -> None:
    assert len(flood(lending_budget(), "bulk", 100, 4)) == 4


def test_what_was_needed_a_moment_ago_is_held() -> None:
    core = lending_budget()
    flood(core, "web", 1, 4)
    for client in clients(1, 4):
        core.release(client, 1.0)
    assert look(core, "web", 1.0).held == 4
    assert flood(core, "bulk", 100, 4, now=1.0) == []


def test_waiters_are_woken_when_demand_is_forgotten_slot_by_slot() -> None:
    core = lending_budget()
    flood(core, "web", 1, 4)
    for client in clients(1, 4):
        core.release(client, 0.0)
    flood(core, "bulk", 100, 4)
    served: list[tuple[float, int]] = []
    while (at := core.next_wakeup_at()) is not None:
        served += [(at, client) for client in granted(core.advance(at))]
    # D falls from 4 to 3.5, 2.5, 1.5 and 0.5 with a half-life of 10 s.
    moments = [10 * log2(4 / level) for level in (3.5, 2.5, 1.5, 0.5)]
    assert [client for _, client in served] == [100, 101, 102, 103]
    assert [at for at, _ in served] == pytest.approx(moments)


def test_an_owner_that_waits_is_held_its_whole_reservation() -> None:
    core = lending_budget()
    flood(core, "bulk", 100, 6)
    ask(core, 1, "web")
    assert look(core, "web").held == 4
    assert granted(core.release(ClientId(100), 1.0)) == [1]
    # Nobody of web waits any more, so what it needs is one slot, and bulk may have the others.
    assert granted(core.release(ClientId(101), 2.0)) == [104]


def test_without_waiters_decay_sets_no_timer() -> None:
    core = lending_budget()
    ask(core, 1, "web")
    core.release(ClientId(1), 0.0)
    assert core.next_wakeup_at() is None


def test_looking_for_a_later_moment_hides_no_wakeup() -> None:
    """A snapshot between the drop and the timer once swallowed the drop, and the waiter slept on."""
    core = lending_budget()
    ask(core, 1, "web")
    core.release(ClientId(1), 0.0)
    flood(core, "bulk", 100, 4)
    at = core.next_wakeup_at()
    assert at == 10.0
    core.snapshot(11.0)
    assert core.next_wakeup_at() == at
    assert granted(core.advance(11.0)) == [103]


def test_who_is_refused_for_want_of_a_queue_was_a_demand_all_the_same() -> None:
    """Its clients ask again; by then the slot has come back and is held for them."""
    web = ClassSettings("web", reserved=2, lendable=2, limit=2, queue_max=0)
    core = Controller(budget(2, web, ClassSettings("bulk", limit=2)), now=0.0)
    flood(core, "bulk", 100, 4)
    ask(core, 1, "web", 1.0)
    assert granted(core.release(ClientId(100), 1.5)) == []
    assert granted(ask(core, 2, "web", 2.0)) == [2]


class TestMemory:
    def test_half_a_slot_is_rounded_down(self) -> None:
        memory = DemandMemory(10.0)
        memory.note(1, now=0.0)
        assert (memory.level(9.99), memory.level(10.0)) == (1, 0)

    def test_falling_demand_does_not_overwrite_what_was_more(self) -> None:
        memory = DemandMemory(10.0)
        memory.note(8, now=0.0)
        memory.note(1, now=1.0)
        assert memory.level(10.0) == 4

    def test_lasting_demand_is_remembered_from_when_it_ends(self) -> None:
        memory = DemandMemory(10.0)
        memory.note(8, now=0.0)
        memory.note(4, now=20.0)
        assert memory.level(30.0) == 2

    def test_a_drop_is_never_announced_for_the_past(self) -> None:
        memory = DemandMemory(3.0)
        memory.note(40, now=1e6)
        at = 1e6
        for _ in range(40):
            drops_at = memory.drops_at(at)
            assert drops_at > at
            at = drops_at
        assert memory.drops_at(at) == inf

    def test_no_half_life_is_no_memory(self) -> None:
        memory = DemandMemory(0.0)
        memory.note(5, now=1.0)
        assert (memory.level(1.0), memory.drops_at(1.0)) == (0, inf)

    def test_another_half_life_counts_from_the_change(self) -> None:
        memory = DemandMemory(10.0)
        memory.note(8, now=0.0)
        memory.change_half_life(1.0, now=10.0)
        assert memory.level(11.0) == 2
