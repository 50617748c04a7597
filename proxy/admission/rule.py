"""The admission rule: may this class take one more slot?

Owns: the arithmetic, and the order in which waiting classes are looked at. Nothing here changes a count.
Does not know: clients, queues beyond their front, what is done with the answer.

With, per class i, `used` slots, `reserved` = r, `floor` = r - lendable, `limit`; with `total` = T, and `headroom` = G
for the classes that have `takes_headroom`:

    held           = r while somebody waits who counts, else max(floor, min(r, remembered demand))
    headroom_left  = max(0, G - sum over the classes of the headroom of max(0, used - part))
    committed      = sum of max(used, part) + headroom_left
    fits           = one slot more leaves committed at or below T, or does not raise it

    a grant        = the class is running, below its limit, the budget is not used up,
                     and it fits with part = held and with part = floor

The part `held` protects what is needed now; the part `floor` protects what is never lent: without it an owner that
takes its lent slots back would eat the floors of others and the headroom. An unbounded hold never comes back by
itself, so it must fit beside the full reservations of all others as well. As well, and not instead: a class that sits
in its own reservation uses no headroom beside the full parts, but does beside the floors; what looks like headroom
there may be somebody's floor.

Each condition is a function of its own, so that a test can break one and see that it is missed.
"""

from collections.abc import Sequence

from proxy.admission.ledger import Account, Ledger

# The parts


def held_part(account: Account, now: float) -> int:
    """What is held for the class at this moment, whoever else asks."""
    if account.floor == account.reserved or not account.running:
        return account.floor
    if account.counts_its_waiters():
        return account.reserved
    remembered = max(account.used, account.memory.level(now))
    return max(account.floor, min(account.reserved, remembered))


def floor_part(account: Account) -> int:
    return account.floor


def full_part(account: Account) -> int:
    """What is held against those who may never give their slot back."""
    return account.reserved


# What is committed


class Commitment:
    """The slots spoken for under one choice of parts, and the headroom that its classes have used of it."""

    __slots__ = ("headroom_used", "slots")

    def __init__(self, slots: int, headroom_used: int) -> None:
        self.slots = slots
        self.headroom_used = headroom_used


def commitment(accounts: Sequence[Account], parts: Sequence[int], headroom: int) -> Commitment:
    """`parts` in the order of `accounts`."""
    slots = 0
    headroom_used = 0
    for index, account in enumerate(accounts):
        part = parts[index]
        used = account.used
        if used > part:
            slots += used
            if account.takes_headroom:
                headroom_used += used - part
        else:
            slots += part
    if headroom_used < headroom:
        slots += headroom - headroom_used
    return Commitment(slots, headroom_used)


def raises_commitment(account: Account, part: int, spoken_for: Commitment, headroom: int) -> bool:
    """Whether one slot more for the class raises `committed`: by one or not at all.

    It does not within the part, and not for a class of the headroom while headroom is left, since what it takes there
    was committed already.
    """
    if account.used < part:
        return False
    return not (account.takes_headroom and spoken_for.headroom_used < headroom)


def fits(account: Account, part: int, spoken_for: Commitment, ledger: Ledger) -> bool:
    if spoken_for.slots + 1 <= ledger.total:
        return True
    return not raises_commitment(account, part, spoken_for, ledger.headroom)


# The whole budget at one moment


class Look:
    """The commitments at one moment, each worked out once, when it is first needed, for every class that asks."""

    __slots__ = ("_floors", "_held", "accounts", "asking", "ledger", "now")

    def __init__(self, ledger: Ledger, now: float, asking: Account | None = None) -> None:
        self.ledger = ledger
        self.now = now
        self.asking = asking
        self.accounts = list(ledger.all_accounts())
        self._held: Commitment | None = None
        self._floors: Commitment | None = None

    def held(self) -> Commitment:
        if self._held is None:
            parts = [self.held_part(one) for one in self.accounts]
            self._held = commitment(self.accounts, parts, self.ledger.headroom)
        return self._held

    def floors(self) -> Commitment:
        if self._floors is None:
            parts = [floor_part(one) for one in self.accounts]
            self._floors = commitment(self.accounts, parts, self.ledger.headroom)
        return self._floors

    def held_part(self, account: Account) -> int:
        """`asking` has somebody at the door who is not in the queue yet and counts like a waiter."""
        return account.reserved if account is self.asking else held_part(account, self.now)

    def against_full_parts(self, account: Account, part: int) -> Commitment:
        """The commitment with the full reservations of all others, and this part of the class's own."""
        parts = [part if one is account else full_part(one) for one in self.accounts]
        return commitment(self.accounts, parts, self.ledger.headroom)


# The conditions of a grant


def is_running(account: Account) -> bool:
    return account.running


def is_below_its_limit(account: Account) -> bool:
    return account.used + 1 <= account.ceiling


def is_below_its_pinned_limit(account: Account) -> bool:
    return account.pinned + 1 <= account.pinned_limit()


def owes_a_slot(account: Account) -> bool:
    return account.debt > 0 and account.used >= account.reserved


def budget_has_a_free_slot(ledger: Ledger) -> bool:
    return ledger.in_use + 1 <= ledger.total


def fits_what_is_held(account: Account, look: Look) -> bool:
    return fits(account, look.held_part(account), look.held(), look.ledger)


def fits_the_floors(account: Account, look: Look) -> bool:
    return fits(account, floor_part(account), look.floors(), look.ledger)


def fits_without_lent_slots(account: Account, look: Look) -> bool:
    """Both conditions of fitting, with the full reservations of all others: for holds that may never end."""
    return all(
        fits(account, part, look.against_full_parts(account, part), look.ledger)
        for part in (look.held_part(account), floor_part(account))
    )


def may_take_a_slot(account: Account, look: Look, unbounded: bool) -> bool:
    """The rule. Until a pin seen too late is repaid its class borrows nothing either; its own slots stay its own."""
    return (
        is_running(account)
        and is_below_its_limit(account)
        and budget_has_a_free_slot(look.ledger)
        and (not unbounded or is_below_its_pinned_limit(account))
        and fits_what_is_held(account, look)
        and fits_the_floors(account, look)
        and (not (unbounded or owes_a_slot(account)) or fits_without_lent_slots(account, look))
    )


def may_keep_its_slot_unbounded(account: Account, look: Look) -> bool:
    """Whether a bounded hold of the class may become unbounded: judged as if its slot were asked for anew."""
    return is_below_its_pinned_limit(account) and all(
        _stands(account, part, look.against_full_parts(account, part), look.ledger)
        for part in (look.held_part(account), floor_part(account))
    )


def _stands(account: Account, part: int, spoken_for: Commitment, ledger: Ledger) -> bool:
    """`fits`, seen from after the grant: the slot is counted in `spoken_for` already."""
    if spoken_for.slots <= ledger.total or account.used <= part:
        return True
    return account.takes_headroom and spoken_for.headroom_used - 1 < ledger.headroom


# Short cuts


def certainly_fits(account: Account, ledger: Ledger) -> bool:
    """A sufficient condition for every form of fitting and for the free slot, without looking at other classes.

    Either the most that can be committed stays within the budget, or the class is below its floor, where a slot more
    raises nothing. Both hold at all times of a decaying memory. Not so for unbounded holds in debt or at a limit:
    those conditions are the caller's.
    """
    if account.used < account.reserved:
        return ledger.most_committed <= ledger.total or (account.used < account.floor and ledger.in_use < ledger.total)
    return ledger.most_committed + 1 <= ledger.total


# Time


def moments_of_decay(ledger: Ledger, now: float) -> list[float]:
    """When what is held for a class falls next, for those where it does: somebody may become eligible then.

    A class whose waiters count is held its reservation for, and one that does not run its floor: neither decays.
    """
    return [
        account.memory.drops_at(now)
        for account in ledger.all_accounts()
        if account.memory.level(now) > max(account.floor, account.used)
        and is_running(account)
        and not account.counts_its_waiters()
    ]


# The order


def turn(account: Account) -> tuple[bool, int, float, float]:
    """Smaller is served first: below the reservation, then priority, then use by weight, then the oldest waiter."""
    oldest_since = account.queue.oldest_since()
    assert oldest_since is not None, "only a class with a waiter has a turn"
    return (
        account.used >= account.reserved,
        account.priority,
        account.used / account.weight,
        oldest_since,
    )
