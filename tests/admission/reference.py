"""The admission rule a second time, naively: every formula of the design as it is written there, from the counts alone.

Nothing is cached, nothing is incremental, and nothing of the core but the shapes of settings and decisions is used. The
property machine compares the core with this at every step.
"""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, replace
from math import ceil, inf

from proxy.admission.classes import BudgetSettings, ClassSettings, ClassState, ClientId, Mode
from proxy.admission.decisions import RefusalReason
from proxy.admission.removal import NO_MOVES, Moves

# Moments of decay are worked out in two ways; this is far above rounding and far below a step of drawn time.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Granted:
    client: ClientId
    class_name: str
    borrowed: bool


@dataclass(frozen=True)
class Refused:
    client: ClientId
    class_name: str
    reason: RefusalReason


@dataclass(frozen=True)
class Noticed:
    client: ClientId
    class_name: str


Event = Granted | Refused | Noticed


@dataclass
class Waiting:
    client: ClientId
    flow: Hashable
    since: float
    deadline: float
    notify_at: float | None
    unbounded: bool


@dataclass
class ReferenceClass:
    """One class: its settings, its holders (value: unbounded?), its waiters in order of arrival, its demand D."""

    settings: ClassSettings
    state: ClassState = ClassState.RUNNING
    adaptive: int | None = None
    retired: bool = False
    holders: dict[ClientId, bool] = field(default_factory=dict)
    waiters: list[Waiting] = field(default_factory=list)
    flows: list[Hashable] = field(default_factory=list)
    demand: float = 0.0
    debt: int = 0
    r: int = 0
    floor: int = 0

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def u(self) -> int:
        return len(self.holders)

    @property
    def pinned(self) -> int:
        return sum(self.holders.values())

    @property
    def limit(self) -> int:
        limit = 0 if self.retired else self.settings.limit
        return limit if self.adaptive is None else min(limit, self.adaptive)

    @property
    def pinned_limit(self) -> int:
        return self.limit if self.settings.pinned_limit is None else min(self.settings.pinned_limit, self.limit)

    @property
    def running(self) -> bool:
        return self.state is ClassState.RUNNING

    @property
    def w(self) -> int:
        return len(self.waiters) if self.running and self.u < self.limit else 0

    def head(self) -> Waiting:
        return next(waiter for waiter in self.waiters if waiter.flow == self.flows[0])

    def add(self, waiter: Waiting) -> None:
        self.waiters.append(waiter)
        if waiter.flow not in self.flows:
            self.flows.append(waiter.flow)

    def remove(self, waiter: Waiting) -> None:
        self.waiters.remove(waiter)
        if all(other.flow != waiter.flow for other in self.waiters):
            self.flows.remove(waiter.flow)

    def rotate(self, flow: Hashable) -> None:
        if flow in self.flows:
            self.flows.remove(flow)
            self.flows.append(flow)


def tell_nobody(c: ReferenceClass, unbounded: bool) -> None:
    """Nobody watches the grants."""


def without_bounds(one: ClassSettings, total: int) -> ClassSettings:
    """A class that only warns goes by the budget alone, and keeps whoever waits for as long as it takes."""
    if one.mode is Mode.ENFORCE:
        return one
    return replace(one, limit=max(one.limit, total), pinned_limit=None, queue_max=10**9, queue_timeout_seconds=inf)


class Reference:
    """The whole budget."""

    def __init__(self, settings: BudgetSettings, now: float) -> None:
        self.settings = settings
        self.now = now
        self.classes: dict[str, ReferenceClass] = {}
        self.headroom = 0
        # Told of every grant while the counts are still those before it.
        self.before_grant: Callable[[ReferenceClass, bool], None] = tell_nobody
        self.adopt(settings)

    # The formulas

    @property
    def total(self) -> int:
        return self.settings.total

    def in_use(self) -> int:
        return sum(c.u for c in self.all())

    def all(self) -> Iterable[ReferenceClass]:
        return self.classes.values()

    def takes_headroom(self, c: ReferenceClass) -> bool:
        return c.name in self.settings.headroom_for and not c.retired

    def decayed(self, c: ReferenceClass, at: float) -> float:
        half_life = c.settings.lend_memory_seconds
        if half_life <= 0:
            return 0.0
        return c.demand if at == self.now else c.demand * 0.5 ** ((at - self.now) / half_life)

    def remembered(self, c: ReferenceClass, at: float) -> float:
        return max(min(c.r, c.u + c.w), self.decayed(c, at))

    def held(self, c: ReferenceClass, at: float) -> int:
        if not c.running:
            return c.floor
        if c.w > 0:
            return c.r
        return max(c.floor, min(c.r, ceil(self.remembered(c, at) - 0.5 - TOLERANCE)))

    def helds(self, at: float) -> dict[str, int]:
        return {c.name: self.held(c, at) for c in self.all()}

    def floors(self) -> dict[str, int]:
        return {c.name: c.floor for c in self.all()}

    def uses(self) -> dict[str, int]:
        return {c.name: c.u for c in self.all()}

    def headroom_used(self, u: dict[str, int], h: dict[str, int]) -> int:
        return sum(max(0, u[c.name] - h[c.name]) for c in self.all() if self.takes_headroom(c))

    def committed(self, u: dict[str, int], h: dict[str, int]) -> int:
        headroom_left = max(0, self.headroom - self.headroom_used(u, h))
        return sum(max(u[name], h[name]) for name in u) + headroom_left

    def fits(self, c: ReferenceClass, u: dict[str, int], h: dict[str, int]) -> bool:
        after = self.committed(u | {c.name: u[c.name] + 1}, h)
        return after <= self.total or after <= self.committed(u, h)

    def both_fit(self, c: ReferenceClass, u: dict[str, int], at: float) -> bool:
        return self.fits(c, u, self.helds(at)) and self.fits(c, u, self.floors())

    def both_fit_beside_full_parts(self, c: ReferenceClass, u: dict[str, int], at: float) -> bool:
        full = {one.name: one.r for one in self.all()}
        return all(self.fits(c, u, full | {c.name: part}) for part in (self.held(c, at), c.floor))

    def may_be_granted(self, c: ReferenceClass, unbounded: bool, at: float) -> bool:
        return (
            c.running
            and c.u + 1 <= c.limit
            and self.in_use() + 1 <= self.total
            and (not unbounded or c.pinned + 1 <= c.pinned_limit)
            and self.both_fit(c, self.uses(), at)
            and (not (unbounded or (c.debt and c.u >= c.r)) or self.both_fit_beside_full_parts(c, self.uses(), at))
        )

    def may_be_pinned(self, c: ReferenceClass) -> bool:
        before = self.uses() | {c.name: c.u - 1}
        return c.pinned + 1 <= c.pinned_limit and self.both_fit_beside_full_parts(c, before, self.now)

    def eligible(self, at: float) -> list[ReferenceClass]:
        return [c for c in self.all() if c.waiters and self.may_be_granted(c, c.head().unbounded, at)]

    @staticmethod
    def turn(c: ReferenceClass) -> tuple[bool, int, float, float]:
        return (not c.u < c.r, c.settings.priority, c.u / c.settings.weight, min(w.since for w in c.waiters))

    # The events

    def at(self, now: float) -> None:
        """Time passes: D decays."""
        for c in self.all():
            c.demand = self.decayed(c, now)
        self.now = now
        self.note()

    def note(self) -> None:
        for c in self.all():
            c.demand = self.remembered(c, self.now)

    def serve(self) -> list[Event]:
        events: list[Event] = []
        self.note()
        while (c := self.first_in_turn()) is not None:
            events.append(self.grant(c))
        return events

    def first_in_turn(self) -> ReferenceClass | None:
        return min(self.eligible(self.now), key=self.turn, default=None)

    def grant(self, c: ReferenceClass) -> Granted:
        waiter = c.head()
        self.before_grant(c, waiter.unbounded)
        granted = Granted(waiter.client, c.name, borrowed=c.u + 1 > c.r)
        c.remove(waiter)
        c.rotate(waiter.flow)
        c.holders[waiter.client] = waiter.unbounded
        self.note()
        return granted

    def grant_at_once(self, client: ClientId, name: str) -> bool:
        """A grant at the door: allowed where this client would be served next, if it were in the queue."""
        c = self.classes[name]
        c.add(Waiting(client, 0, self.now, inf, None, unbounded=False))
        self.note()
        allowed = self.first_in_turn() is c and c.head().client == client
        if allowed:
            self.grant(c)
        return allowed

    def request(
        self, client: ClientId, name: str, flow: Hashable, unbounded: bool, timeout_seconds: float | None
    ) -> list[Event]:
        c = self.classes[name]
        if c.retired or c.state is ClassState.REJECTING:
            return [Refused(client, name, RefusalReason.CLASS_REJECTING)]
        patience = c.settings.queue_timeout_seconds
        if timeout_seconds is not None and timeout_seconds < patience:
            patience = timeout_seconds
        deadline, notify_at = self.now + patience, self.now + c.settings.notify_after_seconds
        notice = notify_at if notify_at < deadline else None
        waiter = Waiting(client, flow, self.now, deadline, notice, unbounded)
        c.add(waiter)
        events = self.serve()
        if waiter in c.waiters and len(c.waiters) > c.settings.queue_max:
            events.append(self.refuse(c, waiter, self.why_no_queue(c)))
            events += self.serve()
        return events

    def why_no_queue(self, c: ReferenceClass) -> RefusalReason:
        if not c.running:
            return RefusalReason.PAUSED
        return RefusalReason.LIMIT if c.settings.queue_max == 0 and c.u >= c.limit else RefusalReason.QUEUE_FULL

    @staticmethod
    def why_no_longer(c: ReferenceClass, waiter: Waiting) -> RefusalReason:
        if not c.running:
            return RefusalReason.PAUSED
        return (
            RefusalReason.PINNED_LIMIT
            if waiter.unbounded and c.pinned >= c.pinned_limit
            else RefusalReason.QUEUE_TIMEOUT
        )

    def why_too_late(self, c: ReferenceClass, waiter: Waiting) -> RefusalReason:
        if not c.running:
            return RefusalReason.PAUSED
        pinned_out = waiter.unbounded and c.pinned >= c.pinned_limit
        return RefusalReason.PINNED_LIMIT if pinned_out else RefusalReason.QUEUE_TIMEOUT

    def refuse(self, c: ReferenceClass, waiter: Waiting, reason: RefusalReason) -> Refused:
        self.note()
        c.remove(waiter)
        return Refused(waiter.client, c.name, reason)

    def holder(self, client: ClientId) -> ReferenceClass:
        return next(c for c in self.all() if client in c.holders)

    def release(self, client: ClientId) -> list[Event]:
        c = self.holder(client)
        del c.holders[client]
        c.debt = min(c.debt, c.pinned)
        events = self.serve()
        if c.debt and c.pinned <= c.pinned_limit:
            c.debt -= 1
            events += self.serve()
        return events

    def leave(self, client: ClientId) -> list[Event]:
        for c in self.all():
            for waiter in c.waiters:
                if waiter.client == client:
                    c.remove(waiter)
                    return self.serve()
        return []

    def advance(self) -> list[Event]:
        events = self.serve()
        for c in self.all():
            for waiter in list(c.waiters):
                if self.now >= waiter.deadline:
                    events.append(self.refuse(c, waiter, self.why_no_longer(c, waiter)))
                elif waiter.notify_at is not None and self.now >= waiter.notify_at:
                    waiter.notify_at = None
                    events.append(Noticed(waiter.client, c.name))
        return events + self.serve()

    def pin(self, client: ClientId, *, asked: bool) -> bool:
        """Returns whether it is allowed; an unasked pin happens anyway."""
        c = self.holder(client)
        allowed = c.holders[client] or self.may_be_pinned(c)
        if not allowed and not asked:
            c.debt += 1
        if allowed or not asked:
            c.holders[client] = True
        return allowed

    def unpin(self, client: ClientId) -> list[Event]:
        c = self.holder(client)
        if not c.holders[client]:
            return []
        c.holders[client] = False
        c.debt = min(c.debt, c.pinned)
        return self.serve()

    def set_state(self, name: str, state: ClassState) -> list[Event]:
        c = self.classes[name]
        c.state = state
        if state is ClassState.REJECTING:
            return self.refuse_all([c], RefusalReason.CLASS_REJECTING)
        return self.serve()

    def refuse_all(self, classes: Iterable[ReferenceClass], reason: RefusalReason) -> list[Event]:
        events: list[Event] = [self.refuse(c, waiter, reason) for c in classes for waiter in list(c.waiters)]
        return events + self.serve()

    def set_adaptive_limit(self, name: str, limit: int | None) -> list[Event]:
        self.classes[name].adaptive = limit
        self.cut()
        return self.serve()

    def reconfigure(self, settings: BudgetSettings, moves: Moves = NO_MOVES) -> list[Event]:
        self.adopt(settings)
        leaving = [(waiter, c) for c in self.all() if c.retired for waiter in c.waiters]
        events: list[Event] = []
        came: list[tuple[Waiting, ReferenceClass]] = []
        for waiter, c in sorted(leaving, key=lambda one: one[0].since):
            to = self.classes.get(moves[waiter.client].class_name) if waiter.client in moves else None
            if to is None or to.retired or to.state is ClassState.REJECTING:
                told_by = c if to is None or to.retired else to
                c.remove(waiter)
                events.append(Refused(waiter.client, told_by.name, RefusalReason.CLASS_REJECTING))
                continue
            c.remove(waiter)
            waiter.flow = moves[waiter.client].flow
            to.waiters.append(waiter)
            came.append((waiter, to))
        for to in {id(to): to for _, to in came}.values():
            to.waiters.sort(key=lambda one: one.since)
            to.flows = list(dict.fromkeys(one.flow for one in to.waiters))
        for name in [c.name for c in self.all() if c.retired and not c.holders]:
            del self.classes[name]
        events += self.serve()
        for waiter, to in reversed(came):
            if waiter in to.waiters and len(to.waiters) > to.settings.queue_max:
                events.append(self.refuse(to, waiter, self.why_no_queue(to)))
        return events + self.serve()

    def adopt(self, settings: BudgetSettings) -> None:
        self.settings = settings
        before = self.classes
        self.classes = {}
        for one in settings.classes:
            c = before.pop(one.name, None) or ReferenceClass(one)
            c.settings, c.retired = without_bounds(one, settings.total), False
            self.classes[one.name] = c
        for c in before.values():
            c.retired = True
            self.classes[c.name] = c
        self.cut()

    def cut(self) -> None:
        """Reservations within the limits, then the most important first until the total is spent, headroom last."""
        left = self.settings.total
        for c in sorted(self.all(), key=lambda c: c.settings.priority):
            promised = 0 if c.retired else c.settings.reserved
            c.r = min(promised, c.limit, left)
            c.floor = min(c.settings.reserved - c.settings.lendable, c.r)
            left -= c.r
        self.headroom = min(self.settings.headroom, left)
