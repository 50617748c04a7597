"""What people have today: one pool for everybody, or one pool each.

Both keep each class's own `queue.max` and `queue.timeout`, so that they differ from the admission rule in one thing
only: who gets the next free slot.

Owns: first come, first served, from one or more pools; how static pools are cut from reservations.
Does not know: priorities, borrowing, the event loop.
"""

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from proxy.admission.classes import BudgetSettings, ClientId
from proxy.admission.decisions import Decision, Grant, RefusalReason, Refuse


@dataclass(eq=False, slots=True)
class Waiter:
    """Somebody in a queue; `is_waiting` turns False when it leaves it, for whatever reason."""

    client: ClientId
    class_name: str
    since: float
    is_waiting: bool = True


@dataclass(eq=False, slots=True)
class Pool:
    """Slots and one queue in order of arrival. An OrderedDict: a plain dict gets slow at dropping its first."""

    slots: int
    in_use: int = 0
    queue: OrderedDict[ClientId, Waiter] = field(default_factory=OrderedDict)


class FifoPools:
    """A policy of first come, first served pools; each class uses one of them."""

    def __init__(self, settings: BudgetSettings, pool_of: Mapping[str, Pool]) -> None:
        self._settings = {one.name: one for one in settings.classes}
        self._pool_of = pool_of
        self._waiting = dict.fromkeys(self._settings, 0)
        self._class_of: dict[ClientId, str] = {}
        self._deadlines: list[tuple[float, int, Waiter]] = []
        self._tie_breaker = itertools.count()

    def try_grant(self, client: ClientId, class_name: str, now: float) -> bool:
        pool = self._pool_of[class_name]
        # Nobody is overtaken: who waits in a pool waits because all of its slots are in use.
        if pool.in_use >= pool.slots:
            return False
        self._take(pool, client, class_name)
        return True

    def request(
        self, client: ClientId, class_name: str, *, flow: Hashable, now: float, unbounded: bool = False
    ) -> Sequence[Decision]:
        if self.try_grant(client, class_name, now):
            return (Grant(client, class_name, waited_seconds=0.0, borrowed=False),)
        settings, waiter = self._settings[class_name], Waiter(client, class_name, now)
        if self._waiting[class_name] >= settings.queue_max:
            return (self._refusal(waiter, RefusalReason.QUEUE_FULL, now),)
        self._pool_of[class_name].queue[client] = waiter
        self._waiting[class_name] += 1
        self._class_of[client] = class_name
        heapq.heappush(self._deadlines, (now + settings.queue_timeout_seconds, next(self._tie_breaker), waiter))
        return ()

    def release(self, client: ClientId, now: float) -> Sequence[Decision]:
        pool = self._pool_of[self._class_of.pop(client)]
        pool.in_use -= 1
        if not pool.queue:
            return ()
        waiter = self._drop(pool, next(iter(pool.queue)))
        self._take(pool, waiter.client, waiter.class_name)
        return (Grant(waiter.client, waiter.class_name, waited_seconds=now - waiter.since, borrowed=False),)

    def leave(self, client: ClientId, now: float) -> Sequence[Decision]:
        class_name = self._class_of.get(client)
        if class_name is not None and client in self._pool_of[class_name].queue:
            self._drop(self._pool_of[class_name], client)
        return ()

    def advance(self, now: float) -> Sequence[Decision]:
        refusals: list[Decision] = []
        while (at := self.next_wakeup_at()) is not None and at <= now:
            waiter = heapq.heappop(self._deadlines)[2]
            self._drop(self._pool_of[waiter.class_name], waiter.client)
            refusals.append(self._refusal(waiter, RefusalReason.QUEUE_TIMEOUT, now))
        return refusals

    def next_wakeup_at(self) -> float | None:
        """The next deadline; those of clients that no longer wait are forgotten on the way."""
        deadlines = self._deadlines
        while deadlines and not deadlines[0][2].is_waiting:
            heapq.heappop(deadlines)
        return deadlines[0][0] if deadlines else None

    def _take(self, pool: Pool, client: ClientId, class_name: str) -> None:
        pool.in_use += 1
        assert pool.in_use <= pool.slots, f"{pool.in_use} of {pool.slots} slots in use"
        self._class_of[client] = class_name

    def _drop(self, pool: Pool, client: ClientId) -> Waiter:
        waiter = pool.queue.pop(client)
        waiter.is_waiting = False
        self._waiting[waiter.class_name] -= 1
        del self._class_of[client]
        return waiter

    def _refusal(self, waiter: Waiter, reason: RefusalReason, now: float) -> Refuse:
        pool = self._pool_of[waiter.class_name]
        return Refuse(
            client=waiter.client,
            class_name=waiter.class_name,
            reason=reason,
            waited_seconds=now - waiter.since,
            in_use=pool.in_use,
            limit=pool.slots,
            waiting=self._waiting[waiter.class_name],
            retry_after_ms=0,
        )


def shared_pool(settings: BudgetSettings) -> FifoPools:
    """One pool of the whole budget for all classes."""
    pool = Pool(settings.total)
    return FifoPools(settings, {one.name: pool for one in settings.classes})


def static_pools(settings: BudgetSettings) -> FifoPools:
    """A pool for each class, cut once and never lent."""
    return FifoPools(settings, {name: Pool(slots) for name, slots in static_slots(settings).items()})


def static_slots(settings: BudgetSettings) -> dict[str, int]:
    """How somebody who wants these reservations would cut the budget into pools.

    Each class has what is reserved for it, and one where nothing is. The headroom goes to its classes in proportion to
    their reservations, the rest in proportion to what each lacks to its limit. Slots above every limit stay unused.
    """
    slots = {one.name: one.reserved for one in settings.classes}
    limits = {one.name: one.limit for one in settings.classes}

    def hand_out(most: int, weights: dict[str, int]) -> None:
        _hand_out(min(most, settings.total - sum(slots.values())), weights, slots, limits)

    hand_out(len(slots), {name: 1 for name, count in slots.items() if not count})
    hand_out(
        settings.headroom, {one.name: one.reserved for one in settings.classes if one.name in settings.headroom_for}
    )
    hand_out(settings.total, {name: limits[name] - slots[name] for name in slots})
    return slots


def _hand_out(count: int, weights: Mapping[str, int], slots: dict[str, int], limits: Mapping[str, int]) -> None:
    """One by one to whoever is furthest below its share: the shares differ from the exact ones by less than a slot."""
    given = dict.fromkeys(weights, 0)
    for _ in range(count):
        open_to = [name for name, weight in weights.items() if weight and slots[name] < limits[name]]
        if not open_to:
            return
        name = min(open_to, key=lambda name: (given[name] + 1) / weights[name])
        given[name] += 1
        slots[name] += 1
