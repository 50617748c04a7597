"""From observed demand to a budget: every number with the sum it comes from.

Owns: the division of the slots by what was seen.
Does not know: how it was seen (observed.py), the configuration file, how a budget is written (recommendation_yaml.py).

What is kept of the configuration: its classes, their order, priorities and patience, the total, and what an operator
has reserved for sessions (a shell in an incident is not seen in a normal hour). What is suggested anew:

* reserved: p95 of the demand and a fifth more, for customers (the most important classes that share their
  connections); for background work at most a twentieth of the budget or what is configured, since it may wait.
* lendable: what customers do not use half of the time; of background work all but one slot.
* limit: as configured, or more where demand was larger, and never more than can be given.
* headroom: what the demand of its classes has exceeded their reservations by, at most a tenth of the budget.

Reservations are given out in the order of importance, and everybody keeps at least one slot, so the sum always fits.
More demand of a class never makes its own numbers smaller, whatever the others need.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from proxy.service.traffic.observed import Demand

MARGIN: Final = 1.2  # above p95, for what a normal hour did not show
CENSORED: Final = 0.05  # a class that was so long at its limit with clients waiting has shown its limit, not its need
_INTERNAL: Final = 1


class Role(IntEnum):
    """What a class is to the budget; in this order they are served from it."""

    SESSIONS_FIRST = 0  # held for whole sessions, as important as customers or more: shells, migrations
    CUSTOMERS = 1
    OTHERS = 2


@dataclass(frozen=True, slots=True)
class Given:
    """One class as configured, in the order of the file. `is_shared`: not in session mode."""

    name: str
    priority: int
    is_shared: bool
    is_default: bool
    is_matched: bool
    reserved: int
    lendable: int
    limit: int
    pinned_limit: int | None = None
    max_clients: int | None = None


@dataclass(frozen=True, slots=True)
class GivenBudget:
    """`total` slots, and who may use the headroom; empty: there is none. `listening` slots stay unreserved."""

    total: int
    classes: tuple[Given, ...]
    headroom_for: frozenset[str] = frozenset()
    listening: int = 1


@dataclass(frozen=True, slots=True)
class Need:
    """What one class has asked for. `limited_share` of the time it was at its limit while clients waited."""

    demand: Demand
    limited_share: float = 0.0

    @property
    def slots(self) -> int:
        """p95 and a fifth more."""
        return -(-self.demand.p95 * 6 // 5)


@dataclass(frozen=True, slots=True)
class Number:
    """A suggested number and its sum in words."""

    value: int
    sum: str


@dataclass(frozen=True, slots=True)
class Numbers:
    """Of one class. `pinned_limit` is None where none was configured."""

    name: str
    role: Role
    reserved: Number
    lendable: Number
    limit: Number
    pinned_limit: Number | None


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Classes in the order of the file. `spare`: slots that nobody has reserved."""

    total: int
    headroom: Number
    headroom_for: frozenset[str]
    classes: tuple[Numbers, ...]
    spare: int


class TooFewSlots(ValueError):  # noqa: N818 - says what is
    """The sentence says how many would do."""


def recommend(given: GivenBudget, needs: Mapping[str, Need]) -> Recommendation:
    """Raises TooFewSlots where not every class can have one."""
    work = _Division(given, needs)
    reserved = work.reservations()
    headroom = work.headroom()
    lendable = {one.name: work.lendable(one, reserved[one.name].value) for one in given.classes}
    limits = work.limits(reserved, lendable, headroom.value)
    classes = tuple(
        Numbers(
            one.name,
            work.roles[one.name],
            reserved[one.name],
            lendable[one.name],
            limits[one.name],
            work.pinned_limit(one, limits[one.name].value, reserved, headroom.value),
        )
        for one in given.classes
    )
    spare = given.total - _INTERNAL - headroom.value - sum(one.reserved.value for one in classes)
    return Recommendation(given.total, headroom, given.headroom_for, classes, spare)


def roles(classes: Sequence[Given]) -> dict[str, Role]:
    """Customers are the most important classes that share their connections and match somebody."""
    candidates = [one for one in classes if one.is_shared and one.is_matched and not one.is_default]
    candidates = candidates or [one for one in classes if one.is_shared] or list(classes)
    first = min(one.priority for one in candidates)
    return {one.name: _role(one, first, one in candidates) for one in classes}


def _role(one: Given, first: int, is_candidate: bool) -> Role:
    if is_candidate and one.priority == first:
        return Role.CUSTOMERS
    return Role.SESSIONS_FIRST if not one.is_shared and one.priority <= first else Role.OTHERS


class _Division:
    def __init__(self, given: GivenBudget, needs: Mapping[str, Need]) -> None:
        self.given = given
        self.total = given.total
        self.roles = roles(given.classes)
        self.needs = {one.name: needs.get(one.name, Need(Demand())) for one in given.classes}
        self.in_order = sorted(given.classes, key=lambda one: (self.roles[one.name], one.priority))
        self.most_headroom, self.free = self._room()

    def _room(self) -> tuple[int, int]:
        """The most that headroom may be, and what can be reserved beside it."""
        least = _INTERNAL + len(self.given.classes)
        if self.total < least:
            classes = len(self.given.classes)
            raise TooFewSlots(
                f"{self.total} slots are too few for {classes} classes and the proxy's own connections: "
                f"{least} would give each of them one"
            )
        spare = self.total - least
        headroom = min(self.total // 10, spare) if self.given.headroom_for else 0
        return headroom, self.total - _INTERNAL - headroom - min(self.given.listening, spare - headroom)

    # -- reservations -------------------------------------------------------------------------------------------------

    def reservations(self) -> dict[str, Number]:
        found: dict[str, Number] = {}
        left, of_customers = self.free, 0
        for position, one in enumerate(self.in_order):
            later = len(self.in_order) - position - 1
            wanted = self._wanted(one)
            bounds = {"max_clients": one.max_clients, f"{later} slots are for the classes behind it": left - later}
            if self.roles[one.name] is Role.OTHERS:
                bounds["as many as customers have"] = of_customers
            found[one.name] = _bounded(wanted, bounds)
            left -= found[one.name].value
            if self.roles[one.name] is Role.CUSTOMERS:
                of_customers = max(of_customers, found[one.name].value)
        return found

    def _wanted(self, one: Given) -> Number:
        need = self.needs[one.name]
        slots, p95 = need.slots, need.demand.p95
        seen = f"p95 {p95} x {MARGIN:g} = {slots}" if p95 else "no demand at p95"
        of_others = self.roles[one.name] is Role.OTHERS
        if not one.is_shared and (of_others or max(one.reserved, 1) >= slots):
            return Number(max(one.reserved, 1), f"kept as configured for sessions; {seen}")
        if slots < 1:
            return Number(1, f"{seen}: one, so that it always makes progress")
        bounds: dict[str, int | None] = {}
        if of_others:
            twentieth = max(1, self.total // 20)
            what = "a twentieth of the budget" if twentieth > one.reserved else "as configured"
            bounds[f"{what}: it may wait"] = max(twentieth, one.reserved)
        if one.is_default and one.is_shared and len(self.given.classes) > 1:
            bounds["a quarter of the budget"] = max(1, self.total // 4)
        return _bounded(Number(slots, seen), bounds)

    def lendable(self, one: Given, reserved: int) -> Number:
        role, p50 = self.roles[one.name], self.needs[one.name].demand.p50
        if not one.is_shared:
            kept = min(one.lendable, reserved - 1)
            return Number(kept, "as configured: sessions are held for long")
        if role is Role.CUSTOMERS:
            floor = max(1, min(reserved, p50))
            half = f"p50 {p50}" if floor == p50 else str(floor)
            return Number(reserved - floor, f"reserved {reserved} - {half} = {reserved - floor}")
        return Number(reserved - 1, f"reserved {reserved} - 1 that it always has")

    # -- headroom and limits ------------------------------------------------------------------------------------------

    def headroom(self) -> Number:
        if not self.given.headroom_for:
            return Number(0, "none is configured: budget.headroom.for names nobody")
        above = [
            (one.name, need.demand.most, need.slots)
            for one in self.given.classes
            if one.name in self.given.headroom_for and (need := self.needs[one.name]).demand.most > need.slots
        ]
        terms = [f"{name}: most {most} - {slots}" for name, most, slots in above]
        wanted = Number(sum(most - slots for _, most, slots in above), " + ".join(terms))
        if wanted.value < 1:
            wanted = Number(1, "demand stayed within p95 and its margin; one to begin with")
        return _bounded(wanted, {"a tenth of the budget": self.most_headroom})

    def limits(
        self, reserved: Mapping[str, Number], lendable: Mapping[str, Number], headroom: int
    ) -> dict[str, Number]:
        found: dict[str, Number] = {}
        customers_limit = 0
        largest = 0  # reservation of the customers' class that the check compares with
        for one in self.in_order:
            # Sessions never use what is lent: what others have reserved is kept from them whole.
            kept = {n: reserved[n].value - (lendable[n].value if one.is_shared else 0) for n in reserved}
            reach = self._reach(one, kept, headroom)
            bounds: dict[str, int | None] = {
                "all that is not kept for others": reach,
                "max_clients": one.max_clients,
            }
            if self.roles[one.name] is Role.OTHERS:
                bounds["as much as customers have"] = customers_limit
            found[one.name] = _bounded(self._wanted_limit(one, reserved[one.name].value, reach), bounds)
            if self.roles[one.name] is Role.CUSTOMERS and reserved[one.name].value > largest:
                largest, customers_limit = reserved[one.name].value, found[one.name].value
        return found

    def _reach(self, one: Given, kept: Mapping[str, int], headroom: int) -> int:
        """The most it can ever hold: what others keep is not to be had, nor headroom that is not for this class."""
        others = sum(slots for name, slots in kept.items() if name != one.name)
        return self.total - _INTERNAL - others - (0 if one.name in self.given.headroom_for else headroom)

    def _wanted_limit(self, one: Given, reserved: int, reach: int) -> Number:
        need = self.needs[one.name]
        if self.roles[one.name] is Role.CUSTOMERS and need.limited_share > CENSORED:
            return Number(
                max(reach, reserved), f"at its limit for {need.limited_share:.0%} of the time while clients waited"
            )
        if need.slots > one.limit:
            return Number(max(need.slots, reserved), f"p95 {need.demand.p95} x {MARGIN:g} = {need.slots}")
        if reserved > one.limit:
            return Number(reserved, "as much as is reserved")
        return Number(one.limit, f"as configured; most seen {need.demand.most}")

    def pinned_limit(self, one: Given, limit: int, reserved: Mapping[str, Number], headroom: int) -> Number | None:
        if one.pinned_limit is None:
            return None
        reach = max(0, self._reach(one, {name: number.value for name, number in reserved.items()}, headroom))
        bounds: dict[str, int | None] = {"limit": limit, "all that nobody has reserved": reach}
        return _bounded(Number(one.pinned_limit, "as configured"), bounds)


def _bounded(wanted: Number, bounds: Mapping[str, int | None]) -> Number:
    """The number within its bounds, and which of them cut it."""
    value, words = wanted.value, wanted.sum
    for name, bound in bounds.items():
        if bound is not None and bound < value:
            value = bound
            words = f"{wanted.sum}, cut to {bound} ({name})"
    return Number(value, words)
