"""Who is granted a slot, who waits, who is refused: commands in, decisions out.

Owns: what happens at each event, and in which order.
Does not know: sockets, clocks, logs. `now` is in seconds, from any clock that does not run backwards.

The caller applies every decision it is given, in order, and calls `advance` at `next_wakeup_at`; nothing here runs by
itself. A client holds at most one slot: between a grant and `release` it may not ask again.

Each command first changes the ledger and then serves whoever may be served: as long as the rule allows somebody who
waits a slot, the first in turn gets it. So after every command nobody waits who could be granted at that moment.
"""

from collections.abc import Hashable, Sequence
from typing import Final

from proxy.admission import hope, rule
from proxy.admission.classes import INTERNAL_CLASS, BudgetSettings, ClassState, ClientId
from proxy.admission.connect_rate import TooManyConnects
from proxy.admission.decisions import NOTHING, Decision, Grant, RefusalReason, Refuse, StillWaiting
from proxy.admission.draws import Draw, middle
from proxy.admission.ledger import Account, Ledger
from proxy.admission.queues import Waiter
from proxy.admission.removal import NO_MOVES, Moves, send_on
from proxy.admission.snapshot import Snapshot, take_snapshot
from proxy.admission.timers import WaitTimers
from proxy.admission.trial import Would

_MOST_WARNED: Final = 10_000


class Controller:
    """The admission of one budget."""

    def __init__(self, settings: BudgetSettings, *, now: float, draw: Draw = middle) -> None:
        self._settings = settings
        self._draw = draw
        self._ledger = Ledger()
        self._ledger.adopt(settings, now)
        self._timers = WaitTimers()
        # What would have become of clients whose class only warns; whoever tells them takes them out.
        self.warned: dict[ClientId, Would] = {}
        self._ramping: list[Account] = []  # classes that begin slowly
        # The time of the last look at the waiting classes: decay is predicted from here.
        self._now = now

    # What is

    @property
    def settings(self) -> BudgetSettings:
        return self._settings

    @property
    def total(self) -> int:
        return self._ledger.total

    @property
    def in_use(self) -> int:
        return self._ledger.in_use

    @property
    def waiting(self) -> int:
        return len(self._ledger.waiters)

    def holds(self, client: ClientId) -> bool:
        return client in self._ledger.holders

    def waits(self, client: ClientId) -> bool:
        return client in self._ledger.waiters

    def has_class(self, class_name: str) -> bool:
        return class_name in self._ledger.accounts

    def state_of(self, class_name: str) -> ClassState:
        return self._ledger.account(class_name).state

    def held_unused(self, class_name: str, now: float) -> int:
        """Slots that are held for the class at this moment and that it does not use."""
        account = self._ledger.account(class_name)
        return max(0, rule.held_part(account, now) - account.used)

    def would_serve(self, client: ClientId, now: float) -> bool:
        """Whether somebody waits who would be granted a slot, had the class of this one's one less of those it borrows.

        That is the class it was granted in, whatever its client belongs to by now. Who holds none would serve nobody.
        """
        ledger = self._ledger
        account = ledger.holders.get(client)
        if account is None or not ledger.waiters or account.used <= account.reserved:
            return False
        ledger.suppose(account, -1)
        try:
            return self._next_to_serve(now) is not None
        finally:
            ledger.suppose(account, 1)

    def snapshot(self, now: float) -> Snapshot:
        return take_snapshot(self._ledger, now)

    # Asking for a slot

    def try_grant(self, client: ClientId, class_name: str, now: float) -> bool:
        """Grant a bounded hold at once if that is certain, or if the whole rule allows it; otherwise change nothing.

        False means: call `request`. Raises UnknownClass, and DoubleRequest where the client holds or waits already.
        """
        ledger = self._ledger
        account = ledger.account(class_name)
        if (
            account.queue.waiters  # a request goes ahead of nobody
            or account.used >= account.ceiling
            or not account.running
        ):
            return False
        if not rule.certainly_fits(account, ledger) and not self._allows_at_once(account, now):
            return False
        if client in ledger.waiters:
            ledger.expect_new(client)
        borrowed = account.used >= account.reserved
        if account.trial is not None:
            self._note(client, account.trial.granted(account.used, account.pinned, 0.0, False))
        ledger.take(client, account)
        account.count_admission(borrowed, False)
        return True

    def request(
        self,
        client: ClientId,
        class_name: str,
        *,
        flow: Hashable,
        now: float,
        unbounded: bool = False,
        timeout_seconds: float | None = None,
    ) -> Sequence[Decision]:
        """Ask for a slot: a Grant, a Refuse, or nothing, which means that the client waits.

        Decisions about others may come first. `timeout_seconds` is the patience of this request, where it is shorter
        than that of the class. Raises UnknownClass and DoubleRequest.
        """
        account = self._ledger.account(class_name)
        self._ledger.expect_new(client)
        if account.retired or account.state is ClassState.REJECTING:
            return [self._refusal(account, client, RefusalReason.CLASS_REJECTING, 0.0, now)]
        if account.settings.refuse_hopeless and account.queue.waiters:
            expected = hope.wait_in_vain_or_none(account, flow, timeout_seconds)
            if expected is not None:
                refusal = self._refusal(account, client, RefusalReason.DEADLINE, 0.0, now, expected)
                return [refusal, *self._serve_waiting(now)]
        waiter = Waiter(client, account.name, flow, now, unbounded)
        waiter.wait_at_most(account.settings.queue_timeout_seconds, timeout_seconds)
        waiter.notify_after(account.settings.notify_after_seconds)
        self._ledger.line_up(waiter, account)
        decisions = self._serve_waiting(now)
        if waiter.is_waiting and len(account.queue) > account.settings.queue_max:
            decisions += self._turn_away(waiter, account, self._reason_not_to_queue(account), now)
            # Its mere arrival had the whole reservation held for its class; that may have kept somebody from a slot.
            decisions += self._serve_waiting(now)
        elif waiter.is_waiting:
            self._timers.watch(waiter, len(self._ledger.waiters))
            if account.running:
                account.pace.began(now)
            if account.trial is not None and account.running:
                self._note(client, account.trial.queued(account.used, len(account.queue)))
        return decisions

    def refuse_connect(self, client: ClientId, class_name: str, too_many: TooManyConnects) -> Refuse | None:
        """The no to a client that connects too often: counted as any other, with the numbers of the moment.

        None: its class only warns.
        """
        account = self._ledger.account(class_name)
        if account.trial is not None:
            self._note(client, account.trial.connected_too_often(account.used))
            return None
        account.count_refusal(RefusalReason.RATE)
        waiting = len(account.queue)
        return Refuse(
            client, account.name, RefusalReason.RATE, 0.0, account.used, account.limit, waiting,
            too_many.retry_after_ms, too_many.per_identity,
        )  # fmt: skip

    # Giving back

    def release(self, client: ClientId, now: float) -> Sequence[Decision]:
        """Take back the slot of a client. Raises DoubleRelease where it holds none."""
        ledger = self._ledger
        account = ledger.give_back(client, now)
        if not ledger.waiters and not account.debt:
            return NOTHING
        decisions = self._serve_waiting(now)
        if account.debt and account.pinned <= account.pinned_limit():
            # The slot was offered to everybody else first: that is how a pin seen too late is paid for.
            account.debt -= 1
            decisions += self._serve_waiting(now)
        return decisions

    def leave(self, client: ClientId, now: float) -> Sequence[Decision]:
        """A queued client disappeared or was cancelled. Who does not wait is ignored."""
        waiter = self._ledger.waiters.get(client)
        if waiter is None:
            return NOTHING
        self._ledger.step_out(waiter, self._ledger.account(waiter.class_name), now)
        return self._serve_waiting(now)

    # Unbounded holds

    def request_pin(self, client: ClientId, now: float) -> Refuse | None:
        """May this client keep its slot until it says otherwise? To be asked before the cause of it is forwarded.

        None: it may, and is counted as pinned (again, if it was). Raises LedgerError where it holds no slot.
        """
        ledger = self._ledger
        account = ledger.holder(client)
        if client in ledger.pinned:
            return None
        if not rule.may_keep_its_slot_unbounded(account, rule.Look(ledger, now)):
            return self._refusal(account, client, RefusalReason.PINNED_LIMIT, 0.0, now)
        if account.trial is not None:
            self._note(client, account.trial.pinned(account.used, account.pinned))
        ledger.pin(client, account)
        return None

    def note_pinned(self, client: ClientId, now: float) -> None:
        """The client turned out to be pinned. Where that would have been refused, its class owes a slot.

        While a class owes, it borrows nothing; its next release goes to the others first and repays one slot, except
        that nothing is repaid while the class has more pins than its `pinned_limit`.
        """
        ledger = self._ledger
        account = ledger.holder(client)
        if client in ledger.pinned:
            return
        in_debt = not rule.may_keep_its_slot_unbounded(account, rule.Look(ledger, now))
        ledger.pin(client, account)
        account.debt += in_debt

    def unpin(self, client: ClientId, now: float) -> Sequence[Decision]:
        """The client cleared what pinned it. It goes on holding its slot, as a bounded hold."""
        account = self._ledger.holder(client)
        if client not in self._ledger.pinned:
            return NOTHING
        self._ledger.unpin(client, account)
        return self._serve_waiting(now)

    # Orders

    def set_state(self, class_name: str, state: ClassState, now: float) -> Sequence[Decision]:
        """Pause, drain, reject or resume a class. Holders keep their slots; only rejecting refuses who waits."""
        account = self._ledger.account(class_name)
        account.remember_demand(now)
        stood_still = not account.running
        account.switch(state)
        if account.running and stood_still:
            self._begin_slowly([account], now)
        if not account.running:
            account.pace.ended(now)
        elif account.queue.waiters:
            account.pace.began(now)
        if state is ClassState.REJECTING:
            return self.refuse_all_waiting(RefusalReason.CLASS_REJECTING, now, class_name)
        return self._serve_waiting(now)

    def server_is_back(self, now: float) -> Sequence[Decision]:
        """After an outage nobody is let at the server all at once. The proxy's own connections are few."""
        others = [account for account in self._ledger.all_accounts() if account.name != INTERNAL_CLASS]
        self._begin_slowly(others, now)
        return self._serve_waiting(now)

    def set_adaptive_limit(self, class_name: str, limit: int | None, now: float) -> Sequence[Decision]:
        """Bound a class below its configured limit, or lift that bound (None). Nobody loses a slot."""
        account = self._ledger.account(class_name)
        for one in self._ledger.all_accounts():
            one.remember_demand(now)
        account.adaptive_limit = limit
        account.settle_limit()
        self._ledger.share_out(self._settings)
        return self._serve_waiting(now)

    def reconfigure(self, settings: BudgetSettings, now: float, moves: Moves = NO_MOVES) -> Sequence[Decision]:
        """Take over other settings while running. Nobody loses a slot, and who waits keeps place and patience.

        A class that is no longer configured has no reservation and limit 0: its holders drain under its name, and it
        is forgotten at the first reload after it is empty. Its waiters go where `moves` sends them, with their time of
        arrival; whoever the queue there has no room for is refused, the latest first, and whoever has nowhere to go.
        A class whose `renamed_from` is the name of one that left goes on in its place: holders, waiters and counts.
        Promises that do not fit the new total are cut in priority order; use above it falls by releases alone.
        """
        self._settings = settings
        self._ledger.adopt(settings, now)
        moved, lost = send_on(self._ledger, moves, now)
        decisions: list[Decision] = []
        for waiter in lost:
            account = self._ledger.account(waiter.class_name)
            decisions += self._turn_away(waiter, account, RefusalReason.CLASS_REJECTING, now)
        self._ledger.forget_drained()
        decisions += self._serve_waiting(now)
        too_many = self._turn_away_too_many(moved, now)
        return decisions + too_many + self._serve_waiting(now) if too_many else decisions

    def _turn_away_too_many(self, moved: Sequence[Waiter], now: float) -> list[Decision]:
        """Of those who came from another class, the latest, where the queue is too short for them."""
        refusals: list[Decision] = []
        for waiter in reversed(moved):
            account = self._ledger.account(waiter.class_name)
            if waiter.is_waiting and len(account.queue) > account.settings.queue_max:
                refusals += self._turn_away(waiter, account, self._reason_not_to_queue(account), now)
        return refusals

    def refuse_all_waiting(
        self, reason: RefusalReason, now: float, class_name: str | None = None
    ) -> Sequence[Decision]:
        """Send away whoever waits, in one class or in all of them."""
        ledger = self._ledger
        accounts = ledger.all_accounts() if class_name is None else [ledger.account(class_name)]
        refusals = [refusal for account in accounts for refusal in self._refuse_waiting(account, reason, now)]
        return refusals + self._serve_waiting(now)

    # Time

    def advance(self, now: float) -> Sequence[Decision]:
        """Do what is due: grants that decay made possible, deadlines, notices."""
        # Granted before refused: whoever may be served now was waiting for that.
        decisions = self._serve_waiting(now)
        someone_left = False
        while (waiter := self._timers.take_due_or_none(now)) is not None:
            decisions.append(self._alarm(waiter, now))
            someone_left = someone_left or not waiter.is_waiting
        return decisions + self._serve_waiting(now) if someone_left else decisions

    def next_wakeup_at(self) -> float | None:
        """When `advance` has something to do next; None while nothing can come from time alone."""
        moments = [] if (due := self._timers.earliest()) is None else [due]
        if self._ledger.waiters and rule.budget_has_a_free_slot(self._ledger):
            moments += rule.moments_of_decay(self._ledger, self._now)
            moments += [one.ramp.next_at for one in self._ramping if one.ramp is not None and one.queue.waiters]
        return min(moments, default=None)

    # Inside

    def _note(self, client: ClientId, would: Would | None) -> None:
        if would is not None:
            if len(self.warned) >= _MOST_WARNED:
                self.warned.clear()  # nobody tells them
            self.warned[client] = would

    def _allows_at_once(self, account: Account, now: float) -> bool:
        """The whole rule for one who is at the door of a class in which nobody waits."""
        ledger = self._ledger
        if ledger.waiters and account.used >= account.reserved and self._decay_is_due(now):
            # Somebody before this one may have become eligible since the last look: `request` serves in order.
            return False
        return rule.may_take_a_slot(account, rule.Look(ledger, now, account), False)

    def _decay_is_due(self, now: float) -> bool:
        return min(rule.moments_of_decay(self._ledger, self._now), default=now + 1.0) <= now

    def _serve_waiting(self, now: float) -> list[Decision]:
        """Grant until the rule allows nobody who waits a slot: one event may free what several wait for."""
        self._now = now
        if self._ramping:
            self._climb(now)
        decisions: list[Decision] = []
        while (account := self._next_to_serve(now)) is not None:
            decisions.append(self._grant_next(account, now))
        return decisions

    def _begin_slowly(self, accounts: Sequence[Account], now: float) -> None:
        for account in accounts:
            account.begin_slowly(now)
        self._ramping = [one for one in self._ledger.all_accounts() if one.ramp is not None]

    def _climb(self, now: float) -> None:
        for account in self._ramping:
            account.climb(now)
        self._ramping = [one for one in self._ramping if one.ramp is not None]

    def _next_to_serve(self, now: float) -> Account | None:
        """The first class in turn that may take a slot. One that may not never blocks another."""
        ledger = self._ledger
        if not ledger.waiters or not rule.budget_has_a_free_slot(ledger):
            return None
        waiting = [
            account
            for account in ledger.all_accounts()
            if account.queue.waiters and rule.is_running(account) and rule.is_below_its_limit(account)
        ]
        if len(waiting) > 1:
            waiting.sort(key=rule.turn)
        look: rule.Look | None = None
        for account in waiting:
            unbounded = account.queue.next_in_turn().unbounded
            if rule.certainly_fits(account, ledger) and (not unbounded or rule.is_below_its_pinned_limit(account)):
                return account
            look = look or rule.Look(ledger, now)
            if rule.may_take_a_slot(account, look, unbounded):
                return account
        return None

    def _grant_next(self, account: Account, now: float) -> Grant:
        borrowed = account.used >= account.reserved
        used, pinned = account.used, account.pinned
        waiter = self._ledger.call_next(account)
        self._ledger.take(waiter.client, account)
        if waiter.unbounded:
            self._ledger.pin(waiter.client, account)
        waited_seconds = now - waiter.since
        if waited_seconds > 0.0:
            account.pace.served(now)
        if not account.queue.waiters:
            account.pace.ended(now)
        account.count_admission(borrowed, waited_seconds > 0.0)
        if account.trial is not None:
            self._note(waiter.client, account.trial.granted(used, pinned, waited_seconds, waiter.unbounded))
        return Grant(waiter.client, account.name, waited_seconds, borrowed)

    def _alarm(self, waiter: Waiter, now: float) -> Decision:
        account = self._ledger.account(waiter.class_name)
        if now >= waiter.deadline:
            return self._turn_away(waiter, account, self._reason_of_the_deadline(waiter, account), now)[0]
        waiter.notify_at = None
        self._timers.watch(waiter, len(self._ledger.waiters))
        position = account.queue.position_of(waiter)
        return StillWaiting(
            waiter.client, account.name, now - waiter.since, position, hope.expected_seconds(account, position, now)
        )

    def _refuse_waiting(self, account: Account, reason: RefusalReason, now: float) -> list[Decision]:
        waiters = list(account.queue.waiters.values())
        return [decision for waiter in waiters for decision in self._turn_away(waiter, account, reason, now)]

    def _turn_away(self, waiter: Waiter, account: Account, reason: RefusalReason, now: float) -> list[Decision]:
        self._ledger.step_out(waiter, account, now)
        return [self._refusal(account, waiter.client, reason, now - waiter.since, now)]

    def _refusal(
        self,
        account: Account,
        client: ClientId,
        reason: RefusalReason,
        waited: float,
        now: float,
        expected_wait_seconds: float | None = None,
    ) -> Refuse:
        account.count_refusal(reason)
        waiting = len(account.queue)
        retry_after_ms = account.release_rate.retry_after_ms(account.released, waiting, now, self._draw)
        return Refuse(
            client, account.name, reason, waited, account.used, account.limit, waiting, retry_after_ms,
            expected_wait_seconds=expected_wait_seconds,
        )  # fmt: skip

    @staticmethod
    def _reason_not_to_queue(account: Account) -> RefusalReason:
        if not account.running:
            return RefusalReason.PAUSED
        nobody_may_queue = account.settings.queue_max == 0
        if nobody_may_queue and account.used >= account.limit:
            return RefusalReason.LIMIT
        return RefusalReason.QUEUE_FULL

    @staticmethod
    def _reason_of_the_deadline(waiter: Waiter, account: Account) -> RefusalReason:
        """What decided: the switch or `pinned_limit` rather than the patience of the queue, if they hold it up."""
        if not account.running:
            return RefusalReason.PAUSED
        if waiter.unbounded and account.pinned >= account.pinned_limit():
            return RefusalReason.PINNED_LIMIT
        return RefusalReason.QUEUE_TIMEOUT
