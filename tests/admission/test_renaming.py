"""A class that goes on under another name: nothing changes but the name."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings

from proxy.admission.classes import BudgetSettings, ClassSettings, ClassState, ClientId
from proxy.admission.controller import Controller
from proxy.admission.decisions import Decision
from proxy.admission.ledger import UnknownClass
from proxy.admission.places import ClientPlaces
from tests.admission.crowd import ask, budget, flood, granted, look, refused
from tests.admission.machine import BUDGETS, SEEDS


def renamed(settings: BudgetSettings, old: str, new: str) -> BudgetSettings:
    """The same settings with one class under another name, which says where it comes from."""
    classes = tuple(replace(one, name=new, renamed_from=old) if one.name == old else one for one in settings.classes)
    headroom_for = frozenset(new if name == old else name for name in settings.headroom_for)
    return replace(settings, classes=classes, headroom_for=headroom_for)


def test_holders_and_waiters_go_on_in_their_places(core: Controller) -> None:
    flood(core, "bulk", 100, 8)
    before = look(core, "bulk")
    assert core.reconfigure(renamed(core.settings, "bulk", "batch"), 1.0) == []
    after = look(core, "batch")
    assert (after.used, after.waiting, after.state) == (before.used, before.waiting, before.state)
    assert granted(core.release(ClientId(100), 2.0)) == [106]
    assert granted(core.release(ClientId(101), 2.0)) == [107]
    with pytest.raises(UnknownClass):
        ask(core, 1, "bulk", 3.0)


def test_a_waiter_of_a_renamed_class_can_leave_and_its_deadline_is_its_own(core: Controller) -> None:
    flood(core, "bulk", 100, 8)
    core.reconfigure(renamed(core.settings, "bulk", "batch"), 1.0)
    core.leave(ClientId(106), 2.0)
    (refusal,) = core.advance(1000.0)
    assert (refusal.client, refusal.class_name) == (107, "batch")


def test_the_same_settings_again_rename_nothing(core: Controller) -> None:
    flood(core, "bulk", 100, 3)
    after = renamed(core.settings, "bulk", "batch")
    core.reconfigure(after, 1.0)
    core.reconfigure(after, 2.0)
    assert look(core, "batch").used == 3


def test_a_pause_goes_with_the_class(core: Controller) -> None:
    core.set_state("bulk", ClassState.PAUSED, 0.0)
    core.reconfigure(renamed(core.settings, "bulk", "batch"), 1.0)
    assert look(core, "batch").state is ClassState.PAUSED


def test_a_name_that_is_configured_still_is_no_other_classs(core: Controller) -> None:
    flood(core, "bulk", 100, 3)
    more = ClassSettings("batch", limit=2, renamed_from="bulk")
    core.reconfigure(replace(core.settings, classes=(*core.settings.classes, more)), 1.0)
    assert (look(core, "bulk").used, look(core, "batch").used) == (3, 0)


def test_two_that_claim_one_name_the_first_has_it(core: Controller) -> None:
    flood(core, "bulk", 100, 3)
    first = renamed(core.settings, "bulk", "batch")
    second = ClassSettings("cron", limit=2, renamed_from="bulk")
    core.reconfigure(replace(first, classes=(*first.classes, second)), 1.0)
    assert (look(core, "batch").used, look(core, "cron").used) == (3, 0)


def test_places_go_on_under_the_new_name() -> None:
    before = budget(9, ClassSettings("mutex", limit=2, max_clients=1))
    places = ClientPlaces(before, now=0.0)
    assert granted(places.join(ClientId(1), "mutex", 0.0)) == [1]
    assert places.join(ClientId(2), "mutex", 0.0) == ()
    assert places.reconfigure(renamed(before, "mutex", "lock"), 1.0) == []
    assert (places.taken("lock"), places.waiting("lock")) == (1, 1)
    (grant,) = places.left(ClientId(1), 2.0)
    assert (grant.client, grant.class_name) == (2, "lock")
    assert refused(places.advance(1000.0)) == []


class Twins:
    """Two cores with the same history, but that classes of one are renamed again and again."""

    def __init__(self, settings: BudgetSettings) -> None:
        self.plain, self.other = Controller(settings, now=0.0), Controller(settings, now=0.0)
        self.names = {one.name: one.name for one in settings.classes}
        self.serial = 0

    def same(self, plain: Sequence[Decision], other: Sequence[Decision]) -> None:
        assert list(other) == [replace(one, class_name=self.names[one.class_name]) for one in plain]

    def rename(self, name: str, now: float) -> None:
        self.serial += 1
        old, new = self.names[name], f"renamed_{self.serial}"
        self.names[name] = new
        settings = renamed(self.other.settings, old, new)
        self.same(self.plain.reconfigure(self.plain.settings, now), self.other.reconfigure(settings, now))

    def states_are_the_same(self, now: float) -> None:
        plain, other = self.plain.snapshot(now), self.other.snapshot(now)
        named = [replace(one, name=self.names[one.name], settings=two.settings)
                 for one, two in zip(plain.classes, other.classes, strict=True)]  # fmt: skip
        assert replace(plain, classes=tuple(named)) == other
        assert self.plain.next_wakeup_at() == self.other.next_wakeup_at()


@given(BUDGETS, SEEDS)
@settings(max_examples=60, deadline=None)
def test_whatever_happens_a_renamed_class_decides_as_if_it_were_not(drawn: BudgetSettings, seed: int) -> None:
    twins, random, now, clients = Twins(drawn), Random(seed), 0.0, 0
    names = list(twins.names)
    for _ in range(120):
        now += random.choice([0.0, 0.0, 1 / 64, 0.25, 1.0])
        name, client = random.choice(names), ClientId(random.randint(1, max(1, clients)))
        match random.choice(["ask", "ask", "ask", "release", "release", "leave", "advance", "pin", "stop", "rename"]):
            case "ask":
                clients += 1
                new, flow, unbounded = ClientId(clients), random.randrange(3), random.random() < 0.1
                twins.same(
                    twins.plain.request(new, name, flow=flow, now=now, unbounded=unbounded),
                    twins.other.request(new, twins.names[name], flow=flow, now=now, unbounded=unbounded),
                )
            case "release" if twins.plain.holds(client):
                twins.same(twins.plain.release(client, now), twins.other.release(client, now))
            case "leave":
                twins.same(twins.plain.leave(client, now), twins.other.leave(client, now))
            case "advance":
                twins.same(twins.plain.advance(now), twins.other.advance(now))
            case "pin" if twins.plain.holds(client):
                twins.plain.note_pinned(client, now)
                twins.other.note_pinned(client, now)
            case "stop":
                state = random.choice(list(ClassState))
                twins.same(
                    twins.plain.set_state(name, state, now), twins.other.set_state(twins.names[name], state, now)
                )
            case "rename":
                twins.rename(name, now)
        twins.states_are_the_same(now)
