"""Bugs planted on purpose: each is a small function of the core gone wrong, and the property machine must find each.

A property test that cannot fail is worse than none. The runs are derandomized: a bug that is found today is found in
every run.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from proxy.admission import ledger as ledger_module
from proxy.admission import removal, rule
from proxy.admission.classes import BudgetSettings, ClassState, ClientId
from proxy.admission.controller import Controller
from proxy.admission.decisions import NOTHING, Decision
from proxy.admission.demand import DemandMemory
from proxy.admission.ledger import Account, Ledger
from proxy.admission.queues import ClassQueue, Waiter
from proxy.admission.reservations import Parts, cut_to_fit
from proxy.admission.rule import Commitment, Look
from proxy.admission.timers import WaitTimers
from tests.admission.machine import AdmissionMachine
from tests.support.compiled import IS_COMPILED

pytestmark = pytest.mark.skipif(IS_COMPILED, reason="bugs are planted in the sources: run with PGHEADROOM_PLAIN=1")

Plant = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Bug:
    story: str
    plant: Plant


BUGS: list[Bug] = []


def bug(story: str) -> Callable[[Plant], Plant]:
    def add(plant: Plant) -> Plant:
        BUGS.append(Bug(story, plant))
        return plant

    return add


def replaced(story: str, owner: object, name: str, wrong: Callable[..., Any]) -> None:
    """A bug that is one function replaced by another."""
    BUGS.append(Bug(story, lambda patch: patch.setattr(owner, name, wrong)))


# The conditions of a grant, each dropped

replaced("a class that does not run is granted slots", rule, "is_running", lambda account: True)
replaced("the limit of a class is not looked at", rule, "is_below_its_limit", lambda account: True)
replaced(
    "the limit of a class is off by one", rule, "is_below_its_limit", lambda account: account.used <= account.limit
)
replaced("the cap is not looked at", rule, "budget_has_a_free_slot", lambda ledger: True)
replaced("what is held is not looked at", rule, "fits_what_is_held", lambda account, look: True)
replaced("the floors are not looked at", rule, "fits_the_floors", lambda account, look: True)


@bug("the cap is checked nowhere")
def no_cap_at_all(patch: pytest.MonkeyPatch) -> None:
    def take(self: Ledger, client: ClientId, account: Account) -> None:
        self.holders[client] = account
        self.most_committed += account.used >= account.reserved
        account.used += 1
        self.in_use += 1

    patch.setattr(rule, "budget_has_a_free_slot", lambda ledger: True)
    patch.setattr(Ledger, "take", take)


replaced(
    "any slot is said to serve whoever waits", Controller, "would_serve", lambda self, client, now: bool(self.waiting)
)
replaced("a borrowed slot is said to serve nobody", Controller, "would_serve", lambda self, client, now: False)


# Parts and commitments

replaced("a floor is not kept", rule, "floor_part", lambda account: 0)
replaced("what is held is the floor only", rule, "held_part", lambda account, now: account.floor)
replaced("reservations are never lent", rule, "held_part", lambda account, now: account.reserved)
replaced(
    "a paused class goes on holding its reservation",
    rule,
    "held_part",
    lambda account, now: account.reserved if not account.running else HELD_PART(account, now),
)
replaced(
    "an owner whose lent slots are out does not get them back",
    rule,
    "fits",
    lambda account, part, spoken_for, ledger: spoken_for.slots + 1 <= ledger.total,
)
replaced(
    "any class is let in while more is committed than there is",
    rule,
    "fits",
    lambda account, part, spoken_for, ledger: spoken_for.slots != ledger.total,
)
replaced(
    "one at the door does not count as a waiter", Look, "held_part", lambda self, one: rule.held_part(one, self.now)
)

HELD_PART = rule.held_part
COMMITMENT = rule.commitment

# Headroom

replaced(
    "headroom is not kept free",
    rule,
    "commitment",
    lambda accounts, parts, headroom: COMMITMENT(accounts, parts, 0),
)
replaced(
    "headroom that is used is kept free a second time",
    rule,
    "commitment",
    lambda accounts, parts, headroom: Commitment(
        sum(max(one.used, part) for one, part in zip(accounts, parts, strict=True)) + headroom,
        COMMITMENT(accounts, parts, headroom).headroom_used,
    ),
)
replaced(
    "an outsider takes headroom",
    rule,
    "raises_commitment",
    lambda account, part, spoken_for, headroom: account.used >= part and spoken_for.headroom_used >= headroom,
)
replaced(
    "the classes of the headroom cannot take it",
    rule,
    "raises_commitment",
    lambda account, part, spoken_for, headroom: account.used >= part,
)
replaced(
    "headroom never ends",
    rule,
    "raises_commitment",
    lambda account, part, spoken_for, headroom: account.used >= part and not account.takes_headroom,
)

# Unbounded holds

replaced("an unbounded hold uses lent slots", rule, "fits_without_lent_slots", lambda account, look: True)
replaced("the pinned limit is not looked at", rule, "is_below_its_pinned_limit", lambda account: True)
replaced("every pin is allowed", rule, "may_keep_its_slot_unbounded", lambda account, look: True)
replaced(
    "a pin is judged as one slot more, and not as the slot that is held already",
    rule,
    "may_keep_its_slot_unbounded",
    lambda account, look: rule.is_below_its_pinned_limit(account) and rule.fits_without_lent_slots(account, look),
)


@bug("unpinning is forgotten in the count")
def unpinning_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ledger, "unpin", lambda self, client, account: self.pinned.remove(client))


@bug("a debt is never made")
def no_debt(patch: pytest.MonkeyPatch) -> None:
    def note_pinned(self: Controller, client: ClientId, now: float) -> None:
        if client not in self._ledger.pinned:
            self._ledger.pin(client, self._ledger.holder(client))

    patch.setattr(Controller, "note_pinned", note_pinned)


@bug("a debt is never repaid")
def debt_for_ever(patch: pytest.MonkeyPatch) -> None:
    def release(self: Controller, client: ClientId, now: float) -> Sequence[Decision]:
        self._ledger.give_back(client, now)
        return self._serve_waiting(now)

    patch.setattr(Controller, "release", release)


# The order

replaced("classes below their reservation do not come first", rule, "turn", lambda one: TURN(one)[1:])
replaced("priority is not looked at", rule, "turn", lambda one: (TURN(one)[0], *TURN(one)[2:]))
replaced(
    "the least important class comes first", rule, "turn", lambda one: (TURN(one)[0], -TURN(one)[1], *TURN(one)[2:])
)
replaced("weights are not looked at", rule, "turn", lambda one: (*TURN(one)[:2], one.used, TURN(one)[3]))
replaced("use is not looked at", rule, "turn", lambda one: (*TURN(one)[:2], TURN(one)[3]))
replaced("the youngest waiter decides between equals", rule, "turn", lambda one: (*TURN(one)[:3], -TURN(one)[3]))
replaced("classes are served in the order of the configuration", rule, "turn", lambda one: ())

TURN = rule.turn


@bug("the first class in turn blocks the others")
def first_in_turn_blocks(patch: pytest.MonkeyPatch) -> None:
    def next_to_serve(self: Controller, now: float) -> Account | None:
        waiting = sorted((one for one in self._ledger.all_accounts() if one.queue.waiters), key=rule.turn)
        for account in waiting[:1]:
            if rule.may_take_a_slot(account, Look(self._ledger, now), account.queue.next_in_turn().unbounded):
                return account
        return None

    patch.setattr(Controller, "_next_to_serve", next_to_serve)


@bug("flows do not take turns")
def flows_do_not_rotate(patch: pytest.MonkeyPatch) -> None:
    def take_next(self: ClassQueue) -> Waiter:
        waiter = self.next_in_turn()
        self.remove(waiter)
        return waiter

    patch.setattr(ClassQueue, "take_next", take_next)


@bug("the youngest of a class is served first")
def last_in_first_out(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ClassQueue, "next_in_turn", lambda self: next(reversed(self.waiters.values())))


@bug("a new request goes ahead of who waits in its class")
def ahead_of_the_queue(patch: pytest.MonkeyPatch) -> None:
    def try_grant(self: Controller, client: ClientId, class_name: str, now: float) -> bool:
        account = self._ledger.account(class_name)
        look = Look(self._ledger, now, asking=account)
        if account.retired or not rule.may_take_a_slot(account, look, unbounded=False):
            return False
        self._ledger.take(client, account)
        return True

    patch.setattr(Controller, "try_grant", try_grant)


# Short cuts

replaced(
    "the short cut forgets the slot that it grants",
    rule,
    "certainly_fits",
    lambda account, ledger: ledger.most_committed <= ledger.total,
)
replaced(
    "the short cut knows only the cap", rule, "certainly_fits", lambda account, ledger: ledger.in_use < ledger.total
)
replaced(
    "the short cut takes the reservation for the floor",
    rule,
    "certainly_fits",
    lambda account, ledger: account.used < account.reserved and ledger.in_use < ledger.total,
)

# Decay

replaced("demand is never forgotten", DemandMemory, "_remembered", lambda self, now: self._peak)
replaced("demand is not remembered", DemandMemory, "note", lambda self, demand, now: None)
replaced("no wake-up is set for decay", rule, "moments_of_decay", lambda ledger, now: [])
replaced("decay wakes too late", DemandMemory, "drops_at", lambda self, now: DROPS_AT(self, now) + 0.25)
replaced("decay wakes for what is past", DemandMemory, "drops_at", lambda self, now: now)

DROPS_AT = DemandMemory.drops_at


@bug("falling demand overwrites what is remembered")
def demand_overwritten(patch: pytest.MonkeyPatch) -> None:
    def note(self: DemandMemory, demand: int, now: float) -> None:
        self._peak, self._noted_at, self._level_until = demand, now, -inf

    patch.setattr(DemandMemory, "note", note)


@bug("looking at a later moment hides what becomes due before it")
def looking_leaves_a_trace(patch: pytest.MonkeyPatch) -> None:
    def level(self: DemandMemory, now: float) -> int:
        if now >= self._level_until:
            self._settle(now)
        return self._level

    patch.setattr(DemandMemory, "level", level)


# Holders and waiters


@bug("a slot can be released twice")
def double_release(patch: pytest.MonkeyPatch) -> None:
    def release(self: Controller, client: ClientId, now: float) -> Sequence[Decision]:
        return RELEASE(self, client, now) if self.holds(client) else NOTHING

    patch.setattr(Controller, "release", release)


@bug("a client that waits or holds may ask again")
def double_request(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ledger, "expect_new", lambda self, client: None)


RELEASE = Controller.release


@bug("a release serves nobody")
def release_serves_nobody(patch: pytest.MonkeyPatch) -> None:
    def release(self: Controller, client: ClientId, now: float) -> Sequence[Decision]:
        self._ledger.give_back(client, now)
        return NOTHING

    patch.setattr(Controller, "release", release)


@bug("one event serves one client at most")
def one_grant_per_event(patch: pytest.MonkeyPatch) -> None:
    def serve_waiting(self: Controller, now: float) -> list[Decision]:
        self._now = now
        account = self._next_to_serve(now)
        return [] if account is None else [self._grant_next(account, now)]

    patch.setattr(Controller, "_serve_waiting", serve_waiting)


@bug("who leaves the queue makes room for nobody")
def leaving_serves_nobody(patch: pytest.MonkeyPatch) -> None:
    def leave(self: Controller, client: ClientId, now: float) -> Sequence[Decision]:
        if (waiter := self._ledger.waiters.get(client)) is not None:
            self._ledger.step_out(waiter, self._ledger.account(waiter.class_name), now)
        return NOTHING

    patch.setattr(Controller, "leave", leave)


@bug("who left the queue is served all the same")
def the_gone_are_served(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Controller, "leave", lambda self, client, now: NOTHING)


@bug("a waiter is lost when its flow is served")
def lost_waiter(patch: pytest.MonkeyPatch) -> None:
    def take_next(self: ClassQueue) -> Waiter:
        waiter = self.next_in_turn()
        self.remove(waiter)
        self._flows.pop(waiter.flow, None)
        return waiter

    patch.setattr(ClassQueue, "take_next", take_next)


@bug("deadlines pass unnoticed")
def no_deadlines(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(WaitTimers, "take_due_or_none", lambda self, now: None)


@bug("a notice takes the deadline away")
def notice_instead_of_deadline(patch: pytest.MonkeyPatch) -> None:
    watched: set[Waiter] = set()

    def watch(self: WaitTimers, waiter: Waiter, waiting: int) -> None:
        if waiter not in watched:
            watched.add(waiter)
            WATCH(self, waiter, waiting)

    patch.setattr(WaitTimers, "watch", watch)


@bug("a queue is never full")
def queues_without_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ClassQueue, "__len__", lambda self: 0)


WATCH = WaitTimers.watch

# Orders


@bug("the least important class keeps its reservation first")
def cut_from_the_top(patch: pytest.MonkeyPatch) -> None:
    def cut(settings: BudgetSettings, limits: dict[str, int]) -> Parts:
        turned = [replace(one, priority=-one.priority) for one in settings.classes]
        return cut_to_fit(replace(settings, classes=tuple(turned)), limits)

    patch.setattr(ledger_module, "cut_to_fit", cut)


@bug("a shrunken budget cuts nothing")
def nothing_is_cut(patch: pytest.MonkeyPatch) -> None:
    def cut(settings: BudgetSettings, limits: dict[str, int]) -> Parts:
        return cut_to_fit(replace(settings, total=1000), limits)

    patch.setattr(ledger_module, "cut_to_fit", cut)


@bug("who comes from a removed class goes behind everybody")
def moved_to_the_end(patch: pytest.MonkeyPatch) -> None:
    def take_in(self: ClassQueue, others: Iterable[Waiter]) -> None:
        for waiter in list(others):
            self.add(waiter)

    patch.setattr(ClassQueue, "take_in", take_in)


@bug("who comes from a removed class stays a flow of it")
def old_flows(patch: pytest.MonkeyPatch) -> None:
    change_class = Ledger.change_class

    def change(self: Ledger, coming: Sequence[tuple[Waiter, object]], account: Account, now: float) -> None:
        change_class(self, [(waiter, ("old", waiter.flow)) for waiter, _ in coming], account, now)

    patch.setattr(Ledger, "change_class", change)


replaced(
    "a removed class brings as many as it likes into a queue",
    Controller,
    "_turn_away_too_many",
    lambda self, moved, now: [],
)


@bug("of those who come from a removed class the first are turned away")
def first_come_last_served(patch: pytest.MonkeyPatch) -> None:
    turn_away = Controller._turn_away_too_many

    def wrong(self: Controller, moved: Sequence[Waiter], now: float) -> list[Decision]:
        return turn_away(self, moved[::-1], now)

    patch.setattr(Controller, "_turn_away_too_many", wrong)


@bug("who comes from a removed class is refused as before")
def nobody_moves(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(removal, "_target_or_none", lambda ledger, destination: None)


@bug("a switch serves nobody")
def switch_serves_nobody(patch: pytest.MonkeyPatch) -> None:
    def set_state(self: Controller, class_name: str, state: ClassState, now: float) -> Sequence[Decision]:
        self._ledger.account(class_name).switch(state)
        return NOTHING

    patch.setattr(Controller, "set_state", set_state)


def is_found() -> bool:
    try:
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            AdmissionMachine,
            settings=settings(
                max_examples=3000,
                stateful_step_count=6,
                derandomize=True,
                database=None,
                deadline=None,
                report_multiple_bugs=False,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
    except (AssertionError, LookupError, StopIteration, pytest.fail.Exception):
        return True
    return False


@pytest.mark.parametrize("planted", BUGS, ids=lambda one: one.story.replace(" ", "_"))
def test_the_machine_finds(planted: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    planted.plant(monkeypatch)
    assert is_found(), f"the properties do not notice that {planted.story}"
