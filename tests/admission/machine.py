"""The property machine: random operations over drawn configurations, checked at every step.

Two kinds of checks, so that neither is blind where the other is: every decision is compared with the naive reference,
and what the design says follows from the rule is asserted by itself, in words of counts.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from random import Random
from typing import Protocol, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.admission.classes import BudgetSettings, ClassSettings, ClassState, ClientId, Mode
from proxy.admission.controller import Controller
from proxy.admission.decisions import Decision, Grant, RefusalReason, Refuse
from proxy.admission.ledger import DoubleRelease, DoubleRequest
from proxy.admission.removal import Destination, Moves
from tests.admission.reference import Event, Granted, Noticed, Reference, ReferenceClass, Refused

# Moments are multiples of this, so that no drawn moment falls beside a moment of decay by rounding alone.
TICK = 1 / 64
JUST_BEFORE = 1e-6
T = TypeVar("T")

NAMES = ("web", "bulk", "admin", "cron")

# The commands of `traffic`, and how often each may come: drawn anew for each stretch of traffic.
TRAFFIC = {
    "one_asks": [6, 12],
    "one_releases": [4, 8, 12],
    "a_class_falls_silent": [0, 1, 2],
    "the_crowd_moves_on": [0, 1, 2],
    "one_leaves": [0, 1, 3],
    "one_is_pinned_or_unpinned": [0, 1, 2],
    "somebody_looks": [0, 1],
    "somebody_errs": [0, 1],
    "some_time_passes": [0, 2, 5],
    "next_wakeup_comes": [0, 0, 2],
    "the_budget_changes": [0, 0, 2],
    "a_class_stops_or_goes": [0, 0, 1],
    "a_class_is_gone_for_a_while": [0, 0, 1],
}


class Choose(Protocol):
    """One of several values: drawn by Hypothesis, which can simplify it, or by a seeded generator, which is fast."""

    def __call__(self, options: Sequence[T]) -> T: ...


def drawn_budget(choose: Choose) -> BudgetSettings:
    """Settings that hold: reservations and headroom fit into the total. Limits are mostly high, so slots are short."""
    total = choose([1, 2, 3, 4, 5, 6, 8])
    names = NAMES[: choose([1, 2, 3, 4, 4])]
    headroom_for = frozenset(name for name in names if choose([False, True]))
    headroom = choose(range(total // 2 + 1)) if headroom_for else 0
    left = total - headroom
    classes = []
    for name in names:
        limit = choose([1, 2, total, total, total + 2])
        reserved = choose(range(min(limit, left, 3) + 1))
        left -= reserved
        classes.append(drawn_class(choose, name, limit, reserved))
    return BudgetSettings(total, headroom, headroom_for, tuple(classes))


def drawn_class(choose: Choose, name: str, limit: int, reserved: int) -> ClassSettings:
    return ClassSettings(
        name,
        limit=limit,
        reserved=reserved,
        lendable=choose([reserved, *range(reserved + 1)]),
        priority=choose([0, 1, 1, 2]),
        weight=choose([0.5, 1.0, 1.0, 3.0]),
        queue_max=choose([0, 2, 50, 50]),
        queue_timeout_seconds=choose([1.0, 20.0, inf]),
        pinned_limit=choose([None, 0, 1, min(2, limit)]),
        lend_memory_seconds=choose([0.0, 0.5, 2.0, 2.0]),
        notify_after_seconds=choose([0.5, 5.0]),
        mode=choose([Mode.ENFORCE, Mode.ENFORCE, Mode.ENFORCE, Mode.WARN]),
    )


def seeded_budget(seed: int) -> BudgetSettings:
    return drawn_budget(Random(seed).choice)


@st.composite
def simple_budgets(draw: st.DrawFn) -> BudgetSettings:
    return drawn_budget(lambda options: draw(st.sampled_from(options)))


SEEDS = st.integers(0, 2**64)
BUDGETS = st.one_of(simple_budgets(), *[st.builds(seeded_budget, SEEDS)] * 3)


def as_events(decisions: Sequence[Decision]) -> list[Event]:
    events: list[Event] = []
    for decision in decisions:
        if isinstance(decision, Grant):
            events.append(Granted(decision.client, decision.class_name, decision.borrowed))
        elif isinstance(decision, Refuse):
            events.append(Refused(decision.client, decision.class_name, decision.reason))
        else:
            events.append(Noticed(decision.client, decision.class_name))
    return events


def in_comparable_order(events: Sequence[Event]) -> tuple[list[Event], list[str]]:
    """Grants in their order; refusals and notices of one moment in any."""
    grants = [event for event in events if isinstance(event, Granted)]
    return list(grants), sorted(repr(event) for event in events if not isinstance(event, Granted))


class AdmissionMachine(RuleBasedStateMachine):
    """Every command goes to the core and to the reference, and both must decide the same."""

    @initialize(settings=BUDGETS, seed=SEEDS, commands=st.sampled_from([0, 150, 150, 150]))
    def start(self, settings: BudgetSettings, seed: int, commands: int) -> None:
        assert settings.validate() == []
        self.now = 0.0
        self.core = Controller(settings, now=0.0)
        self.reference = Reference(settings, 0.0)
        self.reference.before_grant = self.check_grant
        self.clients = 0
        # Whether everybody was looked at when the last command came: nobody may wait for a free slot then.
        self.settled = True
        # Whether floors and headroom fit into the budget beside what is in use.
        self.promises_fit = True
        self.traffic(seed, commands)

    # Traffic: many commands in one step, since the interesting states are those of a crowded budget

    @rule(seed=SEEDS, commands=st.sampled_from([5, 20, 60]))
    def more_traffic(self, seed: int, commands: int) -> None:
        self.traffic(seed, commands)

    def traffic(self, seed: int, commands: int) -> None:
        random = Random(seed)
        self.the_crowd_moves_on(random)
        for name in self.reference.classes:
            self.some_ask(name, random.choice([0, 2, 5]))
        weights = {command: random.choice(weights) for command, weights in TRAFFIC.items()}
        for command in random.choices(list(weights), list(weights.values()), k=commands):
            getattr(self, command)(random)
            # The other invariants are looked at after every step, as after every command outside of traffic.
            self.nobody_waits_for_a_free_slot()
            self.floors_and_headroom_stand()

    def one_asks(self, random: Random) -> None:
        name = random.choice([name for name in self.crowd if name in self.reference.classes] or self.names())
        unbounded = random.random() < self.share_of_sessions
        self.ask(name, random.randrange(3), unbounded, None, at_once=random.random() < 0.7)

    def the_crowd_moves_on(self, random: Random) -> None:
        """Some classes fall silent while others flood: so it is that demand is remembered, and reservations lent."""
        names = self.names()
        self.crowd = random.sample(names, random.randint(1, len(names)))
        self.share_of_sessions = random.choice([0.0, 0.0, 0.1, 0.4])

    def a_class_falls_silent(self, random: Random) -> None:
        """The story behind lending: it used its slots, others take them bit by bit as it is forgotten, it returns."""
        silent, taking = (random.choice(self.names()) for _ in range(2))
        self.some_ask(silent, 3)
        for client in list(self.reference.classes[silent].holders):
            self.gives_back(client)
        self.some_ask(taking, 5)
        for _ in range(3):
            self.some_time_passes(random)
            self.some_ask(random.choice(self.names()), 1)
        self.next_wakeup_comes(random)
        self.some_ask(silent, 3)

    def some_ask(self, name: str, count: int) -> None:
        for flow in range(count):
            self.ask(name, flow, False, None, at_once=True)

    def one_is_pinned_or_unpinned(self, random: Random) -> None:
        if holders := self.holders():
            self.pin_or_unpin(random.choice(holders), random.choice(["ask", "note", "note", "unpin"]))

    def one_releases(self, random: Random) -> None:
        if holders := self.holders():
            self.give(self.core.release, self.reference.release, random.choice(holders))

    def one_leaves(self, random: Random) -> None:
        if waiters := self.waiters():
            self.give(self.core.leave, self.reference.leave, random.choice(waiters))

    def some_time_passes(self, random: Random) -> None:
        self.now += random.choice([1, 16, 64, 128]) * TICK

    def next_wakeup_comes(self, random: Random) -> None:
        at = self.core.next_wakeup_at()
        if at is not None and at < self.now + 30.0:
            self.now = max(self.now, at)
            self.advance()

    def the_budget_changes(self, random: Random) -> None:
        """Up by several at once too: the one kind of event after which many may be served, and order shows."""
        settings = self.core.settings
        self.promises_fit = False
        total = max(0, settings.total + random.choice([-4, -1, 1, 4]))
        self.give(self.core.reconfigure, self.reference.reconfigure, replace(settings, total=total))

    def a_class_stops_or_goes(self, random: Random) -> None:
        name = random.choice(self.names())
        state = ClassState.PAUSED if self.reference.classes[name].running else ClassState.RUNNING
        self.give(self.core.set_state, self.reference.set_state, name, state)

    # Asking

    @rule(
        data=st.data(),
        flow=st.integers(0, 2),
        unbounded=st.sampled_from([False, False, False, True]),
        timeout=st.sampled_from([None, None, 2.0]),
        at_once=st.booleans(),
    )
    def asks(self, data: st.DataObject, flow: int, unbounded: bool, timeout: float | None, at_once: bool) -> None:
        self.ask(self.a_class(data), flow, unbounded, timeout, at_once)

    @rule(data=st.data(), clients=st.integers(2, 6))
    def flood(self, data: st.DataObject, clients: int) -> None:
        self.some_ask(self.a_class(data), clients)

    def ask(self, name: str, flow: int, unbounded: bool, timeout: float | None, at_once: bool) -> None:
        self.clients += 1
        client = ClientId(self.clients)
        c = self.reference.classes[name]
        self.reference.at(self.now)
        owed = not unbounded and self.is_owed_a_slot_at_once(c)
        tried = at_once and not unbounded
        due_at = self.core.next_wakeup_at()
        overdue = due_at is not None and due_at <= self.now
        if tried and self.core.try_grant(client, name, self.now):
            assert self.reference.grant_at_once(client, name), "granted what the rule refuses, or ahead of somebody"
            # Whom a late timer has not served yet waits on for it, if it comes after this one.
            self.settled = not overdue
            return
        decisions = self.core.request(
            client, name, flow=flow, now=self.now, unbounded=unbounded, timeout_seconds=timeout
        )
        assert not owed or any(isinstance(one, Grant) and one.client == client for one in decisions), (
            "a class below its held part waits although no more is committed than there is"
        )
        self.compare(decisions, self.reference.request(client, name, flow, unbounded, timeout))
        self.settled = not c.retired and c.state is not ClassState.REJECTING
        only_this = len(decisions) == 1 and isinstance(decisions[0], Grant)
        assert not (tried and only_this) or overdue, "the rule allows it, and it was not granted at once"

    def is_owed_a_slot_at_once(self, c: ReferenceClass) -> bool:
        """Below its held part on arrival, while `committed` is within the budget."""
        if not c.running or c.u >= min(c.limit, c.r) or c.waiters:
            return False
        helds = self.reference.helds(self.now)
        return c.u < helds[c.name] and self.reference.committed(self.reference.uses(), helds) <= self.reference.total

    # Giving back

    @precondition(lambda self: self.core.in_use)
    @rule(data=st.data(), count=st.integers(1, 3))
    def release(self, data: st.DataObject, count: int) -> None:
        for _ in range(min(count, self.core.in_use)):
            client = data.draw(st.sampled_from(self.holders()))
            self.gives_back(client)

    def gives_back(self, client: ClientId) -> None:
        """Whether a slot that the class borrows would serve somebody is known before it is given back."""
        c = self.reference.holder(client)
        self.reference.at(self.now)
        would_serve, is_borrowed = self.core.would_serve(client, self.now), c.u > c.r
        is_simple = not (c.holders[client] or c.debt)  # else more changes than the number of slots
        decisions = self.core.release(client, self.now)
        serves = any(isinstance(one, Grant) for one in decisions)
        assert not would_serve or (serves and is_borrowed), "a borrowed slot was to serve somebody, and did not"
        assert would_serve or not (serves and is_borrowed and is_simple), "a borrowed slot served somebody unforeseen"
        self.compare(decisions, self.reference.release(client))

    @precondition(lambda self: self.core.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        client = data.draw(st.sampled_from(self.waiters()))
        self.give(self.core.leave, self.reference.leave, client)

    @rule(seed=SEEDS)
    def err(self, seed: int) -> None:
        self.somebody_errs(Random(seed))

    def somebody_errs(self, random: Random) -> None:
        """To give back what is not held, or to ask twice, is an error, and changes nothing."""
        stranger = ClientId(-1)
        assert self.core.leave(stranger, self.now) == ()
        with pytest.raises(DoubleRelease):
            self.core.release(stranger, self.now)
        if known := self.holders() + self.waiters():
            with pytest.raises(DoubleRequest):
                self.core.request(random.choice(known), random.choice(self.names()), flow=0, now=self.now)

    # Time

    @rule(ticks=st.sampled_from([1, 16, 64, 200, 1000]))
    def time_passes(self, ticks: int) -> None:
        """Late wake-ups too: commands may come when something has been due for long."""
        self.now += ticks * TICK

    @rule(ticks=st.sampled_from([1, 16, 64, 200, 1000]))
    def time_passes_with_wakeups(self, ticks: int) -> None:
        until = self.now + ticks * TICK
        while (at := self.core.next_wakeup_at()) is not None and at <= until:
            self.now = max(self.now, at)
            self.advance()
        self.now = until
        self.advance()

    @rule()
    def advance(self) -> None:
        self.give(self.core.advance, self.reference.advance)
        next_wakeup_at = self.core.next_wakeup_at()
        assert next_wakeup_at is None or next_wakeup_at > self.now, "a timer set for this would spin"

    @rule(ticks=st.integers(0, 500))
    def look(self, ticks: int) -> None:
        """Looking changes nothing, also when it is done for a later moment."""
        self.core.snapshot(self.now + ticks * TICK)
        self.core.next_wakeup_at()

    def somebody_looks(self, random: Random) -> None:
        self.look(random.choice([0, 64, 500]))

    # Unbounded holds

    @precondition(lambda self: self.core.in_use)
    @rule(data=st.data(), how=st.sampled_from(["ask", "note", "unpin"]))
    def pinning(self, data: st.DataObject, how: str) -> None:
        self.pin_or_unpin(data.draw(st.sampled_from(self.holders())), how)

    def pin_or_unpin(self, client: ClientId, how: str) -> None:
        if how == "unpin":
            was_pinned = self.reference.holder(client).holders[client]
            self.give(self.core.unpin, self.reference.unpin, client)
            self.settled = was_pinned
            return
        c = self.reference.holder(client)
        self.reference.at(self.now)
        before = c.holders[client]
        allowed = self.reference.pin(client, asked=how == "ask")
        self.settled = False
        if how == "note":
            self.core.note_pinned(client, self.now)
            return
        assert (self.core.request_pin(client, self.now) is None) is allowed
        if allowed and not before:
            self.check_unbounded(c, self.reference.uses())

    # Orders

    @rule(data=st.data(), state=st.sampled_from(list(ClassState)))
    def switch(self, data: st.DataObject, state: ClassState) -> None:
        self.give(self.core.set_state, self.reference.set_state, self.a_class(data), state)

    @rule()
    def resume_all(self) -> None:
        for name in list(self.reference.classes):
            self.give(self.core.set_state, self.reference.set_state, name, ClassState.RUNNING)

    @rule(data=st.data(), limit=st.sampled_from([None, None, 0, 1, 3]))
    def adapt(self, data: st.DataObject, limit: int | None) -> None:
        self.promises_fit = False
        self.give(self.core.set_adaptive_limit, self.reference.set_adaptive_limit, self.a_class(data), limit)

    @rule(data=st.data(), total=st.one_of(st.none(), st.integers(0, 10)))
    def reload(self, data: st.DataObject, total: int | None) -> None:
        """Other settings, or the same with another total that the promises may not fit into."""
        settings = data.draw(BUDGETS) if total is None else replace(self.core.settings, total=total)
        self.promises_fit = False
        self.reload_to(settings, Random(data.draw(SEEDS)))

    @rule(seed=SEEDS)
    def a_class_is_removed(self, seed: int) -> None:
        self.a_class_leaves(Random(seed))

    def a_class_leaves(self, random: Random) -> None:
        """Its waiters go to others, or have nowhere to go. Who waits there already may be younger or older."""
        settings = self.core.settings
        if len(settings.classes) == 1:
            return
        gone = random.choice(settings.classes).name
        left = tuple(one for one in settings.classes if one.name != gone)
        self.promises_fit = False
        self.reload_to(replace(settings, classes=left, headroom_for=settings.headroom_for - {gone}), random)

    def a_class_is_gone_for_a_while(self, random: Random) -> None:
        settings = self.core.settings
        self.a_class_leaves(random)
        self.some_time_passes(random)
        self.reload_to(settings, random)

    def reload_to(self, settings: BudgetSettings, random: Random) -> None:
        moves = self.moves(random, settings)
        self.reference.at(self.now)
        decisions = self.core.reconfigure(settings, self.now, moves)
        self.compare(decisions, self.reference.reconfigure(settings, moves))
        queued = {waiter.client: c.name for c in self.reference.all() for waiter in c.waiters}
        assert all(self.core.waits(client) for client in queued), "a waiter was lost on the way"
        assert self.core.waiting == len(queued), "somebody waits twice"

    def moves(self, random: Random, settings: BudgetSettings) -> Moves:
        """For most of those who wait, a class of the new settings; for some one that is not there either."""
        names = [*(one.name for one in settings.classes)] * 3 + ["nowhere"]
        waiters = [client for client in self.waiters() if random.random() < 0.9]
        return {client: Destination(random.choice(names), random.randrange(3)) for client in waiters}

    @rule(data=st.data(), everywhere=st.booleans())
    def refuse_all(self, data: st.DataObject, everywhere: bool) -> None:
        name = None if everywhere else self.a_class(data)
        classes = list(self.reference.all()) if name is None else [self.reference.classes[name]]
        self.reference.at(self.now)
        decisions = self.core.refuse_all_waiting(RefusalReason.SHUTTING_DOWN, self.now, name)
        self.compare(decisions, self.reference.refuse_all(classes, RefusalReason.SHUTTING_DOWN))

    # What must hold at every grant

    def check_grant(self, c: ReferenceClass, unbounded: bool) -> None:
        """The counts are still those before the grant."""
        reference = self.reference
        assert reference.in_use() + 1 <= reference.total, "a slot above the budget"
        after = reference.uses() | {c.name: c.u + 1}
        if unbounded:
            self.check_unbounded(c, after)
        self.check_outsider(c, after)
        self.check_owners_first(c)

    def check_outsider(self, c: ReferenceClass, after: dict[str, int]) -> None:
        """Beyond its floor an outsider leaves the headroom free, whatever its classes have used of it or not."""
        reference = self.reference
        if reference.takes_headroom(c) or c.u < c.floor:
            return
        outside = sum(max(after[one.name], one.floor) for one in reference.all() if not reference.takes_headroom(one))
        inside = sum(one.floor for one in reference.all() if reference.takes_headroom(one))
        assert outside + inside + reference.headroom <= reference.total, "an outsider took headroom"

    def check_owners_first(self, c: ReferenceClass) -> None:
        """A slot beyond the reservation is granted only while no class waits for slots of its own."""
        reference = self.reference
        excess = reference.headroom_used(reference.uses(), reference.floors())
        takes_headroom = reference.takes_headroom(c) and excess < reference.headroom
        if c.u < c.r or takes_headroom:
            return
        owners = [one for one in reference.all() if one.w and one.u < one.r and not self.waits_for_itself(one)]
        assert not owners, f"{c.name} takes a slot while {[one.name for one in owners]} wait for their own"

    def check_unbounded(self, c: ReferenceClass, after: dict[str, int]) -> None:
        """Beyond its own reservation an unbounded hold stands on what nobody has reserved, or on the headroom."""
        reference = self.reference
        excess = reference.headroom_used(after, {one.name: one.r for one in reference.all()} | {c.name: c.floor})
        takes_headroom = reference.takes_headroom(c) and excess <= reference.headroom
        if after[c.name] > c.r and not takes_headroom:
            spoken_for = sum(max(after[one.name], one.r) for one in reference.all())
            assert spoken_for <= reference.total, "an unbounded hold stands on a lent slot"

    @staticmethod
    def waits_for_itself(c: ReferenceClass) -> bool:
        """The next in turn asks for a hold without end, which is bounded by more than the slots of the class."""
        return c.head().unbounded

    # What must hold always

    @invariant()
    def nobody_waits_for_a_free_slot(self) -> None:
        """Neither now nor before the next wake-up."""
        if not self.settled:
            return
        now = self.reference.now
        assert not self.reference.eligible(now), "somebody waits for a slot that is free"
        wakeup_at = self.core.next_wakeup_at()
        just_before = now + 1000.0 if wakeup_at is None else wakeup_at - JUST_BEFORE
        if just_before > now:
            assert not self.reference.eligible(just_before), "somebody becomes eligible, and no wake-up is set for it"

    @invariant()
    def floors_and_headroom_stand(self) -> None:
        """Once the promises fit they fit for good: grants never break them, only a change of the numbers can."""
        reference = self.reference
        fit = reference.committed(reference.uses(), reference.floors()) <= reference.total
        assert fit or not self.promises_fit, "grants broke the floors or the headroom"
        self.promises_fit = fit

    @invariant()
    def nobody_below_a_floor_or_in_the_headroom_waits(self) -> None:
        reference = self.reference
        if not self.promises_fit:
            return
        headroom_left = reference.headroom - reference.headroom_used(reference.uses(), reference.floors())
        for c in reference.all():
            if not c.w or c.head().unbounded:
                continue
            assert c.u >= c.floor, f"{c.name} waits below its floor"
            assert c.debt or not (reference.takes_headroom(c) and headroom_left > 0), (
                f"{c.name} waits while headroom is left"
            )

    @invariant()
    def the_counts_agree(self) -> None:
        snapshot = self.core.snapshot(self.now)
        assert snapshot.in_use == sum(one.used for one in snapshot.classes) == self.reference.in_use()
        for one in snapshot.classes:
            c = self.reference.classes[one.name]
            assert (one.used, one.pinned, one.pinned_debt, one.waiting) == (c.u, c.pinned, c.debt, len(c.waiters))
            assert (one.reserved, one.floor, one.limit) == (c.r, c.floor, c.limit)
            assert one.held == self.reference.held(c, self.now)

    def teardown(self) -> None:
        """No waiter is lost: when everybody gives back, whoever may ever be served is, within its patience."""
        if not hasattr(self, "core"):
            return
        for name in list(self.reference.classes):
            self.give(self.core.set_adaptive_limit, self.reference.set_adaptive_limit, name, None)
            self.give(self.core.set_state, self.reference.set_state, name, ClassState.RUNNING)
        while holders := self.holders():
            for client in holders:
                self.gives_back(client)
        for c in self.reference.all():
            stuck = c.waiters and c.head().unbounded and not c.pinned_limit
            assert c.floor < 1 or not c.waiters or stuck, f"{c.name} has a floor and makes no progress"

    # Inside

    def give(
        self, command: Callable[..., Sequence[Decision]], expected: Callable[..., list[Event]], *arguments: object
    ) -> None:
        """The same command to the core and to the reference."""
        self.reference.at(self.now)
        decisions = command(*arguments, self.now)
        self.compare(decisions, expected(*arguments))

    def compare(self, decisions: Sequence[Decision], events: Sequence[Event]) -> None:
        assert in_comparable_order(as_events(decisions)) == in_comparable_order(events)
        for decision in decisions:
            assert decision.waited_seconds >= 0.0
            assert not isinstance(decision, Refuse) or 50 <= decision.retry_after_ms <= 30_000
        self.settled = True

    def a_class(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(self.names()))

    def names(self) -> list[str]:
        return list(self.reference.classes)

    def holders(self) -> list[ClientId]:
        return [client for c in self.reference.all() for client in c.holders]

    def waiters(self) -> list[ClientId]:
        return [waiter.client for c in self.reference.all() for waiter in c.waiters]
