"""The counts: who holds a slot, who waits, and how many of each a class has.

Owns: every number of slots in use; no other module of the core adds or subtracts one.
Does not know: who may be served next, deadlines, why.

The two things that must never happen are checked here in words and not by `assert`, which `python -O` removes: a slot
above the budget, and a slot given back twice.
"""

from collections.abc import Hashable, Sequence, ValuesView

from proxy.admission.classes import BudgetSettings, ClassSettings, ClassState, ClientId, Mode, renamed_classes
from proxy.admission.decisions import RefusalReason
from proxy.admission.demand import DemandMemory
from proxy.admission.queue_pace import QueuePace
from proxy.admission.queues import ClassQueue, Waiter
from proxy.admission.ramp import Ramp
from proxy.admission.release_rate import ReleaseRate
from proxy.admission.reservations import Part, cut_to_fit
from proxy.admission.trial import Trial, in_force


class LedgerError(AssertionError):
    """We are wrong: the caller and the ledger disagree about who holds or waits for what."""


class CapBroken(LedgerError):  # noqa: N818 - named for what happened
    """A slot was about to be granted above the budget."""


class DoubleRelease(LedgerError):  # noqa: N818 - named for what happened
    """A client gave back a slot that it does not hold."""


class DoubleRequest(LedgerError):  # noqa: N818 - named for what happened
    """A client asked for a slot while it holds one or waits for one."""


class UnknownClass(LookupError):  # noqa: N818 - named for what happened
    """No class of this name is configured; whoever reloads classifies its clients anew."""


class Account:
    """The numbers of one class. `limit` is what decides now: the configured and the adaptive limit, 0 when retired;
    while it begins slowly a grant must stay below `ceiling`, which else is the same.

    `reserved` and `floor` are what is left of the configured ones after the cut. `pinned` counts unbounded holds and
    is part of `used`; `debt` counts those of them that were seen too late to be refused. Grants since the start are
    counted in four: at once or after a wait (`queued`), of its own slots or `borrowed`.
    """

    __slots__ = (
        "adaptive_limit",
        "borrowed_at_once",
        "borrowed_queued",
        "ceiling",
        "debt",
        "floor",
        "limit",
        "memory",
        "name",
        "own_at_once",
        "own_queued",
        "pace",
        "pinned",
        "priority",
        "queue",
        "ramp",
        "refusals",
        "release_rate",
        "released",
        "reserved",
        "retired",
        "running",
        "settings",
        "state",
        "takes_headroom",
        "trial",
        "used",
        "weight",
    )

    def __init__(self, settings: ClassSettings, now: float) -> None:
        self.name = settings.name
        self.switch(ClassState.RUNNING)
        self.used = 0
        self.pinned = 0
        self.debt = 0
        self.reserved = 0
        self.floor = 0
        self.adaptive_limit: int | None = None
        self.ramp: Ramp | None = None
        self.takes_headroom = False
        self.trial: Trial | None = None  # of a class that only warns
        self.queue = ClassQueue()
        self.pace = QueuePace()
        self.memory = DemandMemory(settings.lend_memory_seconds)
        self.own_at_once = 0
        self.borrowed_at_once = 0
        self.own_queued = 0
        self.borrowed_queued = 0
        self.refusals: dict[RefusalReason, int] = {}
        self.released = 0
        self.release_rate = ReleaseRate(now)
        self.adopt(settings, now)

    def switch(self, state: ClassState) -> None:
        self.state = state
        # Asked many times per event, and in CPython 3.11 naming a member of an enum costs as much as a call.
        self.running = state is ClassState.RUNNING

    def adopt(self, settings: ClassSettings, now: float) -> None:
        """Take over settings, at the start and at a reload. The parts follow when the ledger shares them out."""
        self.settings = settings
        self.priority = settings.priority
        self.weight = settings.weight
        self.retired = False
        self.memory.change_half_life(settings.lend_memory_seconds, now)
        self.settle_limit()

    def try_out(self, configured: ClassSettings) -> None:
        """What would have been decided goes on being counted over a reload."""
        if configured.mode is Mode.ENFORCE:
            self.trial = None
        elif self.trial is None:
            self.trial = Trial(configured)
        else:
            self.trial.settings = configured

    def retire(self) -> None:
        """The class left the configuration: what it holds drains, and nothing is promised to it any more."""
        self.retired = True
        self.takes_headroom = False
        self.settle_limit()

    def settle_limit(self) -> None:
        limit = 0 if self.retired else self.settings.limit
        self.limit = limit if self.adaptive_limit is None else min(limit, self.adaptive_limit)
        self.ceiling = self.limit if self.ramp is None else min(self.limit, max(self.ramp.limit, self.reserved))

    def begin_slowly(self, now: float) -> None:
        """It has stood still, and everybody who waits must not be served at once."""
        start, seconds = max(self.used, self.reserved), self.settings.slow_start_seconds
        self.ramp = Ramp(start, self.limit, seconds, now) if seconds > 0.0 and start + 1 < self.limit else None
        self.settle_limit()

    def climb(self, now: float) -> None:
        """As far as its ramp goes by now."""
        if self.ramp is not None:
            self.ramp.climb(now)
            self.ramp = None if self.ramp.is_over else self.ramp
            self.settle_limit()

    def count_admission(self, borrowed: bool, queued: bool) -> None:
        if queued:
            if borrowed:
                self.borrowed_queued += 1
            else:
                self.own_queued += 1
        elif borrowed:
            self.borrowed_at_once += 1
        else:
            self.own_at_once += 1

    def count_refusal(self, reason: RefusalReason) -> None:
        self.refusals[reason] = self.refusals.get(reason, 0) + 1

    def pinned_limit(self) -> int:
        configured = self.settings.pinned_limit
        return self.limit if configured is None else min(configured, self.limit)

    def counts_its_waiters(self) -> bool:
        """Whether somebody waits whom this class could serve if there were a slot: only such demand is held for."""
        return self.running and self.used < self.limit and bool(self.queue.waiters)

    def demand(self) -> int:
        """What the class needs of its reservation at this moment."""
        waiting = len(self.queue.waiters) if self.counts_its_waiters() else 0
        return min(self.reserved, self.used + waiting)

    def remember_demand(self, now: float) -> None:
        """To be called before anything that may lower the demand."""
        self.memory.note(self.demand(), now)


class Ledger:
    """All accounts and the sums over them."""

    __slots__ = ("accounts", "headroom", "holders", "in_use", "most_committed", "pinned", "total", "waiters")

    def __init__(self) -> None:
        self.total = 0
        self.headroom = 0
        self.accounts: dict[str, Account] = {}
        self.holders: dict[ClientId, Account] = {}
        self.pinned: set[ClientId] = set()
        self.waiters: dict[ClientId, Waiter] = {}
        self.in_use = 0
        # sum(max(used, reserved)) + headroom: what is committed at the very most, whatever is lent at the moment.
        self.most_committed = 0

    def all_accounts(self) -> ValuesView[Account]:
        return self.accounts.values()

    def account(self, class_name: str) -> Account:
        try:
            return self.accounts[class_name]
        except KeyError:
            raise UnknownClass(f'there is no class "{class_name}"') from None

    # Slots.

    def take(self, client: ClientId, account: Account) -> None:
        """One more slot in use by the class. Raises CapBroken or DoubleRequest and then changes nothing."""
        if self.in_use >= self.total:
            raise CapBroken(f'class "{account.name}" was granted a slot with {self.in_use} of {self.total} in use')
        if client in self.holders:
            raise DoubleRequest(f"client {client} was granted a second slot")
        self.holders[client] = account
        if account.used >= account.reserved:
            self.most_committed += 1
        account.used += 1
        self.in_use += 1

    def give_back(self, client: ClientId, now: float) -> Account:
        """One slot less in use. Raises DoubleRelease where the client holds none."""
        account = self.holders.pop(client, None)
        if account is None:
            raise DoubleRelease(f"client {client} gave back a slot it does not hold")
        if account.used > account.reserved:
            # The demand stands at the whole reservation before and after: there is nothing to remember.
            self.most_committed -= 1
        else:
            account.remember_demand(now)
        account.used -= 1
        account.released += 1
        self.in_use -= 1
        if client in self.pinned:
            self.unpin(client, account)
        return account

    def suppose(self, account: Account, more: int) -> None:
        """As if the class had `more` of the slots over its reservation: to be asked about, and taken back at once."""
        account.used += more
        self.in_use += more
        self.most_committed += more

    # Unbounded holds.

    def holder(self, client: ClientId) -> Account:
        account = self.holders.get(client)
        if account is None:
            raise LedgerError(f"client {client} holds no slot that could be pinned or unpinned")
        return account

    def pin(self, client: ClientId, account: Account) -> None:
        self.pinned.add(client)
        account.pinned += 1

    def unpin(self, client: ClientId, account: Account) -> None:
        """The hold is bounded again; a debt never outlives the pins that made it."""
        self.pinned.remove(client)
        account.pinned -= 1
        account.debt = min(account.debt, account.pinned)

    # Waiting clients.

    def line_up(self, waiter: Waiter, account: Account) -> None:
        self.waiters[waiter.client] = waiter
        account.queue.add(waiter)

    def step_out(self, waiter: Waiter, account: Account, now: float) -> None:
        """The waiter leaves unserved."""
        account.remember_demand(now)
        account.queue.remove(waiter)
        del self.waiters[waiter.client]
        if not account.queue.waiters:
            account.pace.ended(now)

    def change_class(self, coming: Sequence[tuple[Waiter, Hashable]], account: Account, now: float) -> None:
        """Waiters of other classes, each with its flow there, wait in this one from now on."""
        account.remember_demand(now)
        for waiter, flow in coming:
            before = self.account(waiter.class_name)
            before.queue.remove(waiter)
            if not before.queue.waiters:
                before.pace.ended(now)
            waiter.class_name, waiter.flow = account.name, flow
        account.queue.take_in(waiter for waiter, _ in coming)
        if account.running:
            account.pace.began(now)

    def call_next(self, account: Account) -> Waiter:
        """The next waiter leaves to be served; `take` follows."""
        waiter = account.queue.take_next()
        del self.waiters[waiter.client]
        return waiter

    def expect_new(self, client: ClientId) -> None:
        if client in self.holders or client in self.waiters:
            raise DoubleRequest(f"client {client} asked for a slot while it holds one or waits for one")

    # The budget.

    def adopt(self, settings: BudgetSettings, now: float) -> None:
        """Take over the settings: accounts are made, changed and retired, and the reservations shared out anew."""
        for account in self.all_accounts():
            account.remember_demand(now)
        for old, new in renamed_classes(settings, self.accounts).items():
            self._rename(old, new)
        for one in settings.classes:
            decides = in_force(one, settings.total)
            if one.name in self.accounts:
                self.accounts[one.name].adopt(decides, now)
            else:
                self.accounts[one.name] = Account(decides, now)
            self.accounts[one.name].try_out(one)
            self.accounts[one.name].takes_headroom = one.name in settings.headroom_for
        names = [one.name for one in settings.classes]
        for account in self.all_accounts():
            if account.name not in names:
                account.retire()
        # In the order of the configuration: it decides between equals.
        retired = [name for name in self.accounts if name not in names]
        self.accounts = {name: self.accounts[name] for name in (*names, *retired)}
        self.total = settings.total
        self.share_out(settings)

    def _rename(self, old: str, new: str) -> None:
        """The account goes on under another name: what it counts, who holds, who waits and in which order."""
        account = self.accounts.pop(old)
        account.name = new
        for waiter in account.queue.waiters.values():
            waiter.class_name = new
        self.accounts[new] = account

    def share_out(self, settings: BudgetSettings) -> None:
        """Set what each class keeps of its reservation, and the headroom, from the limits as they are now."""
        limits = {account.name: account.limit for account in self.all_accounts()}
        parts = cut_to_fit(settings, limits)
        self.headroom = parts.headroom
        self.most_committed = parts.headroom
        for account in self.all_accounts():
            part = parts.by_class.get(account.name, Part(0, 0))
            account.reserved = part.reserved
            account.floor = part.floor
            account.settle_limit()  # a slow start never holds back what is reserved, from now on
            self.most_committed += max(account.used, part.reserved)

    def forget_drained(self) -> None:
        """Drop the retired classes that hold nothing any more."""
        for name in [one.name for one in self.all_accounts() if one.retired and not one.used and not one.queue.waiters]:
            del self.accounts[name]
