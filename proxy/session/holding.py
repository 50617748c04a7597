"""Clients that hold a slot, or their connection, for longer than their class lets them.

Owns: the timer of each client whose class has bounds, what is done at a bound, the clients that are let be only as
long as nobody waits for their borrowed slots.
Does not know: which bound counts (`admission.holds`), how a cancel is carried, how a slot comes back.

A timer is set when a client begins something, for the earliest moment at which anything could be due, and is then left
alone however much the client does until then: only when it fires is it seen what the client does at that moment, and
since when. So a transaction costs a comparison, and a client that holds nothing is not looked at.
"""

import asyncio
from math import inf
from typing import TYPE_CHECKING, Final

from proxy.admission.classes import ClientId
from proxy.admission.holds import Bound, Conduct, HoldBounds, next_look_at, reached
from proxy.session import clock, refusals
from proxy.session.explained import Explained
from proxy.session.limited_log import LimitedLog
from proxy.wire.sql import PinReason

if TYPE_CHECKING:
    from proxy.session.client import ClientConnection
    from proxy.session.upstream import Upstream

_LOOP_RESOLUTION_SECONDS: Final = 0.001  # never woken before the time, and so never in vain
# A cancelled query is over in milliseconds where its server process looks for cancels at all.
_CANCEL_GRACE_SECONDS: Final = 10.0
# While somebody waits: who may have the slot changes with every release, and it is not worth a look at each.
_LOOK_AGAIN_SECONDS: Final = 0.5
_LOOKS_AT_A_READER: Final = 4  # within its bound


class HoldWatch:
    """Of one client whose class has bounds. `looks_at` is when its timer fires, infinity where none is set."""

    __slots__ = (
        "_cancelled_at",
        "_cancelled_query",
        "_client",
        "_holds",
        "_timer",
        "_unread_bytes",
        "_unread_since",
        "bounds",
        "looks_at",
        "soonest",
    )

    def __init__(self, client: "ClientConnection", holds: "Holds", bounds: HoldBounds) -> None:
        self.bounds = bounds
        self.soonest = bounds.soonest
        self.looks_at = inf
        self._client = client
        self._holds = holds
        self._timer: asyncio.TimerHandle | None = None
        self._cancelled_query = inf  # since when the query ran that was cancelled
        self._cancelled_at = inf
        self._unread_since = inf
        self._unread_bytes = 0

    def begins(self, now: float) -> None:
        """The client begins something: a unit of work, a result that it does not read, to be idle."""
        if now + self.soonest < self.looks_at:
            self._look_at(now + self.soonest, now)

    def clogged(self, now: float) -> None:
        """The client does not take what is written to it."""
        self._unread_since, self._unread_bytes = now, self._client.transport.get_write_buffer_size()
        self.begins(now)

    def drained(self) -> None:
        self._unread_since = inf

    def close(self) -> None:
        """The client is gone, or in a class with other bounds."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.looks_at = inf
        self._holds.forget(self)

    # -- a look -------------------------------------------------------------------------------------------------------

    def _look_at(self, at: float, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.looks_at = at
        self._timer = self._holds.loop.call_later(at - now + _LOOP_RESOLUTION_SECONDS, self._look)

    def _look(self) -> None:
        self._timer, self.looks_at = None, inf
        now = clock.now()
        conduct = self.conduct(now)
        bound = reached(self.bounds, conduct, now)
        if bound is Bound.QUERY and self._cancelled_query != conduct.query:
            self._cancel_query(conduct.query, now)
        elif bound is not None and (bound is not Bound.QUERY or self._cancelled_at + _CANCEL_GRACE_SECONDS <= now):
            self.end(bound, now)
            return
        if conduct.idle_in_transaction + self.bounds.borrowed_idle_in_transaction <= now:
            self._holds.may_go(self)
        self._set_next(conduct, now)

    def _set_next(self, conduct: Conduct, now: float) -> None:
        at = next_look_at(self.bounds, conduct, now)
        if conduct.unread < inf:
            at = min(at, now + self.bounds.slow_reader / _LOOKS_AT_A_READER)
        if self._cancelled_query == conduct.query < inf:
            at = min(at, max(now, self._cancelled_at + _CANCEL_GRACE_SECONDS))
        if at < inf:
            self._look_at(at, now)

    def conduct(self, now: float) -> Conduct:
        """What the client does now. A slow reader that has taken something since the last look begins anew."""
        client, link = self._client, self._client.link
        if link is None:
            return Conduct(client_idle=client.idle_since) if client.is_idle and not self._listens() else Conduct()
        server = link.server
        if link.is_quiet:
            return Conduct() if self._listens() else Conduct(client_idle=max(client.idle_since, client.granted_at))
        transaction = link.transaction_since or client.granted_at
        unread = self._unread(now)
        if link.is_idle_in_transaction:
            return Conduct(transaction=transaction, idle_in_transaction=server.idle_since, unread=unread)
        # Of several units that were sent at once each begins when the one before it is answered.
        query = max(link.unit_since or client.granted_at, server.idle_since)
        return Conduct(transaction=transaction, query=query, unread=unread)

    def _unread(self, now: float) -> float:
        if self._unread_since < inf:
            unread_bytes = self._client.transport.get_write_buffer_size()
            if unread_bytes < self._unread_bytes:
                self._unread_since = now
            self._unread_bytes = unread_bytes
        return self._unread_since

    def _listens(self) -> bool:
        """It waits for notifications, as it should."""
        client = self._client
        return (client.listening is not None and bool(client.listening.channels)) or PinReason.LISTEN in client.pins

    # -- at a bound ---------------------------------------------------------------------------------------------------

    def _cancel_query(self, since: float, now: float) -> None:
        """The statement fails, and the client goes on. Where it does not fail in time, the client is ended."""
        client, link = self._client, self._client.link
        assert link is not None, "a query runs over a link"
        self._cancelled_query, self._cancelled_at = since, now
        self._holds.note(client, Bound.QUERY, self.bounds.query, now)
        if not link.server.is_mid_message:
            Explained.put_before(link, refusals.hold_ended(client.class_name, Bound.QUERY, self.bounds.query, "ERROR"))
        link.cancel_requested()

    def end(self, bound: Bound, now: float) -> None:
        """The client is told, and closed; what it has running is cancelled, its transaction rolled back."""
        client, seconds = self._client, float(getattr(self.bounds, bound))
        if self._cancelled_query == inf or bound is not Bound.QUERY:
            self._holds.note(client, bound, seconds, now)
        can_be_told = client.link is None or not client.link.server.is_mid_message
        error = refusals.hold_ended(client.class_name, bound, seconds, "FATAL") if can_be_told else None
        client.end(error, cancels=True)

    # -- a borrowed slot ----------------------------------------------------------------------------------------------

    def is_idle_on_borrowed_time(self, now: float) -> bool:
        conduct = self.conduct(now)
        return reached(self.bounds, conduct, now, is_wanted=True) is Bound.BORROWED_IDLE_IN_TRANSACTION

    @property
    def client_id(self) -> ClientId:
        return self._client.id


class Holds:
    """Of one upstream: counts what was ended, and takes borrowed slots back for those who wait."""

    def __init__(self, upstream: "Upstream") -> None:
        self._desk, self._gate = upstream.desk, upstream.gate
        self.loop = self._desk.loop
        self._log = LimitedLog(self._desk.log)
        self._may_go: dict[HoldWatch, None] = {}  # idle in transaction for long, the longest first
        self._coming_back: HoldWatch | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._gate.after_queued = self._somebody_waits

    def watch_or_none(self, client: "ClientConnection", bounds: HoldBounds, had: HoldWatch | None) -> HoldWatch | None:
        """The watch over a client under the `bounds` of its class, `had` where those are the same."""
        if had is not None:
            if had.bounds == bounds:
                return had
            had.close()
        if bounds.soonest == inf:
            return None
        watch = HoldWatch(client, self, bounds)
        watch.begins(clock.now())
        return watch

    def note(self, client: "ClientConnection", bound: Bound, seconds: float, now: float) -> None:
        """A bound was reached, and something is ended for it."""
        self._desk.measures.holds_ended[client.class_name, client.application, bound.value] += 1
        kind = client.class_name, bound
        keys = client.identity.log_keys()
        self._log.warning("hold_ended", kind, now, class_name=client.class_name, bound=bound, after=seconds, **keys)

    # -- borrowed slots -----------------------------------------------------------------------------------------------

    def may_go(self, watch: HoldWatch) -> None:
        """Its client idles in a transaction for longer than a borrowed slot lets it, should somebody want that."""
        self._may_go[watch] = None
        if self._gate.waiting:
            self._look_soon(0.0)

    def forget(self, watch: HoldWatch) -> None:
        self._may_go.pop(watch, None)

    def slot_is_back(self, watch: HoldWatch) -> None:
        """The slot of a client that was sent away is free, and given to whoever was next."""
        if self._coming_back is watch:
            self._coming_back = None
            self._somebody_waits()

    def _somebody_waits(self) -> None:
        if self._may_go:
            self._look_soon(0.0)

    def _look_soon(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """One slot at a time: until it is back, nobody can say who is still waiting for another."""
        self._timer = None
        now, gate = clock.now(), self._gate
        for watch in list(self._may_go):
            if not watch.is_idle_on_borrowed_time(now):
                del self._may_go[watch]
            elif self._coming_back is None and gate.controller.would_serve(watch.client_id, now):
                self._coming_back = watch
                watch.end(Bound.BORROWED_IDLE_IN_TRANSACTION, now)
        if self._may_go and gate.waiting:
            self._look_soon(_LOOK_AGAIN_SECONDS)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
