"""The numbers of one moment, for metrics, SHOW tables and people.

Owns: the shapes, and how lent slots are told apart.
Does not know: how they are shown. Taking a snapshot changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from proxy.admission import hope, rule
from proxy.admission.classes import ClassSettings, ClassState
from proxy.admission.decisions import RefusalReason
from proxy.admission.ledger import Account, Ledger


@dataclass(frozen=True, slots=True)
class ClassSnapshot:
    """One class. `reserved`, `floor` and `limit` are those in force, `settings` those that were configured.

    `expected_wait_seconds`: of one who asks now, 0 where nobody waits, None where that is not known.
    `slow_start_limit`: what bounds it while it begins slowly, as it was last looked at.
    `borrowed`: slots in use over the reservation. `lent`: idle slots of the reservation that others use now.
    `admissions` is keyed by two independent questions: had to queue, and went over the reservation.
    """

    name: str
    settings: ClassSettings
    state: ClassState
    used: int
    reserved: int
    floor: int
    held: int
    limit: int
    adaptive_limit: int | None
    slow_start_limit: int | None
    borrowed: int
    lent: int
    pinned: int
    pinned_debt: int
    waiting: int
    oldest_wait_seconds: float
    expected_wait_seconds: float | None
    retired: bool
    admissions: Mapping[tuple[bool, bool], int]
    refusals: Mapping[RefusalReason, int]
    released: int
    trial_limit: int | None  # what a class that only warns would have for a limit; None where it decides
    would_queue: int | None  # None, too, where it decides
    would_refuse: Mapping[RefusalReason, int]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole budget. `headroom` is what fits into the total, `headroom_left` what its classes may still take.

    The classes are in the order of the configuration, those that were removed and still hold slots behind them.
    """

    total: int
    headroom: int
    headroom_left: int
    in_use: int
    waiting: int
    committed: int
    classes: tuple[ClassSnapshot, ...]

    def of_class(self, name: str) -> ClassSnapshot:
        """Raises KeyError where there is no such class."""
        for one in self.classes:
            if one.name == name:
                return one
        raise KeyError(name)


def take_snapshot(ledger: Ledger, now: float) -> Snapshot:
    look = rule.Look(ledger, now)
    lent = _lent_slots(look.accounts, ledger)
    held = look.held()
    return Snapshot(
        total=ledger.total,
        headroom=ledger.headroom,
        headroom_left=max(0, ledger.headroom - held.headroom_used),
        in_use=ledger.in_use,
        waiting=len(ledger.waiters),
        committed=held.slots,
        classes=tuple(_of_class(one, lent[one.name], now) for one in _in_order(look.accounts)),
    )


def _in_order(accounts: Sequence[Account]) -> list[Account]:
    shown = [one for one in accounts if one.used or not one.retired]
    return sorted(shown, key=lambda one: one.retired)


def _of_class(account: Account, lent: int, now: float) -> ClassSnapshot:
    oldest_since = account.queue.oldest_since()
    return ClassSnapshot(
        name=account.name,
        settings=account.settings,
        state=account.state,
        used=account.used,
        reserved=account.reserved,
        floor=account.floor,
        held=rule.held_part(account, now),
        limit=account.limit,
        adaptive_limit=account.adaptive_limit,
        slow_start_limit=None if account.ramp is None else account.ceiling,
        borrowed=max(0, account.used - account.reserved),
        lent=lent,
        pinned=account.pinned,
        pinned_debt=account.debt,
        waiting=len(account.queue),
        expected_wait_seconds=hope.expected_seconds_of_one_more(account, now),
        oldest_wait_seconds=0.0 if oldest_since is None else now - oldest_since,
        retired=account.retired,
        admissions={
            (False, False): account.own_at_once,
            (False, True): account.borrowed_at_once,
            (True, False): account.own_queued,
            (True, True): account.borrowed_queued,
        },
        refusals=dict(account.refusals),
        released=account.released,
        trial_limit=None if account.trial is None else account.trial.settings.limit,
        would_queue=None if account.trial is None else account.trial.would_queue,
        would_refuse={} if account.trial is None else dict(account.trial.would_refuse),
    )


def _lent_slots(accounts: Sequence[Account], ledger: Ledger) -> dict[str, int]:
    """Which class lends how many. A slot has no owner, so the least important lender is named first."""
    full = rule.commitment(accounts, [rule.full_part(one) for one in accounts], ledger.headroom)
    left = max(0, full.slots - ledger.total)
    lent = {}
    for account in sorted(accounts, key=lambda one: -one.priority):
        idle = max(0, account.reserved - max(account.used, account.floor))
        lent[account.name] = min(idle, left)
        left -= lent[account.name]
    return lent
