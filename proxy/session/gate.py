"""The I/O side of admission: applies the core's decisions to those they name, and keeps its one timer.

Owns: who waits for which answer of the core, the timer of its next wake-up.
Does not know: the rule, what a client does with a slot.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Final, Protocol

from proxy.admission.classes import ClientId
from proxy.admission.controller import Controller
from proxy.admission.decisions import Decision, Grant, RefusalReason, Refuse, StillWaiting
from proxy.admission.places import ClientPlaces
from proxy.session import clock
from proxy.session.measures import Measures

_LOOP_RESOLUTION_SECONDS: Final = 0.001


class Applicant(Protocol):
    """Who asked, and is told."""

    id: ClientId

    def granted(self, grant: Grant) -> None: ...

    def refused(self, refusal: Refuse) -> None: ...

    def still_waiting(self, event: StillWaiting) -> None: ...

    def crashed(self) -> None:
        """One of these raised, which is a bug. It ends, and gives back what it holds."""


class Timed(Protocol):
    """A part of the core that decides with the time."""

    def advance(self, now: float) -> Sequence[Decision]: ...

    def next_wakeup_at(self) -> float | None: ...


class DecisionLoop:
    """Delivers decisions, one after the other also where delivering one causes more, and wakes the core in time."""

    def __init__(self, core: Timed, note: Callable[[Decision], None], loop: asyncio.AbstractEventLoop) -> None:
        self._core = core
        self._note = note
        self._loop = loop
        self.applicants: dict[ClientId, Applicant] = {}
        self._undelivered: deque[Decision] = deque()
        self._delivering = False
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = 0.0

    def deliver(self, decisions: Sequence[Decision]) -> None:
        self._undelivered.extend(decisions)
        if self._delivering:
            return  # a delivery below this call goes on with them: a chain of refusals must not become a deep stack
        self._delivering = True
        try:
            while self._undelivered:
                self._deliver_safely(self._undelivered.popleft())
        finally:
            self._delivering = False
        if self.applicants:
            self.set_timer()

    def _deliver_safely(self, decision: Decision) -> None:
        """What breaks for one applicant must not keep the others from their answers, nor the timer from being set.

        Nor may it keep a slot that was granted: the applicant ends, at once or with its connection.
        """
        applicant = self.applicants.get(decision.client)
        try:
            self._deliver_one(decision)
        except Exception as error:  # noqa: BLE001 (a bug: told to the loop as for any other callback)
            context = {"message": f"delivering {decision} failed", "exception": error}
            self._loop.call_exception_handler(context)
            if applicant is not None:
                self._loop.call_soon(applicant.crashed)

    def _deliver_one(self, decision: Decision) -> None:
        self._note(decision)
        if isinstance(decision, StillWaiting):
            waiting = self.applicants.get(decision.client)
            if waiting is not None:
                waiting.still_waiting(decision)
            return
        applicant = self.applicants.pop(decision.client)
        if isinstance(decision, Grant):
            applicant.granted(decision)
        else:
            applicant.refused(decision)

    def set_timer(self) -> None:
        wakeup_at = self._core.next_wakeup_at()
        if self._timer is not None:
            if wakeup_at is not None and self._wakes_at <= wakeup_at:
                return  # it fires early enough and looks again
            self._timer.cancel()
            self._timer = None
        if wakeup_at is not None:
            self._wakes_at = wakeup_at
            # The loop counts in whole milliseconds: never woken before the time, and so never in vain.
            self._timer = self._loop.call_later(wakeup_at - clock.now() + _LOOP_RESOLUTION_SECONDS, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.deliver(self._core.advance(clock.now()))

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Gate:
    """Slots: asks the controller, tells the applicants, counts waits."""

    def __init__(self, controller: Controller, measures: Measures, loop: asyncio.AbstractEventLoop) -> None:
        self.controller = controller
        self._measures = measures
        self._loop = loop
        self._decisions = DecisionLoop(controller, self._count, loop)
        self.after_release: Callable[[], None] | None = None  # somebody counts what is still held, as a drain does
        self.after_queued: Callable[[], None] | None = None  # somebody may have a slot to give up for whoever waits

    def request(self, applicant: Applicant, class_name: str, flow: Hashable, *, unbounded: bool = False) -> None:
        """`granted` or `refused` of the applicant is called, possibly before this returns."""
        self._decisions.applicants[applicant.id] = applicant
        now = clock.now()
        self._decisions.deliver(
            self.controller.request(applicant.id, class_name, flow=flow, now=now, unbounded=unbounded)
        )
        if self.after_queued is not None and applicant.id in self._decisions.applicants:
            self.after_queued()

    def try_grant(self, client: ClientId, class_name: str, now: float) -> bool:
        """The hot path: a slot at once, or nothing has happened and `request` is to be called."""
        return self.controller.try_grant(client, class_name, now)

    def release(self, client: ClientId, now: float) -> None:
        decisions = self.controller.release(client, now)
        if decisions or self._decisions.applicants:
            self._decisions.deliver(decisions)
        if self.after_release is not None:
            self.after_release()

    def leave(self, client: ClientId, class_name: str, waited_seconds: float) -> None:
        """A waiting client is gone or was cancelled: it leaves the queue at once."""
        if self._decisions.applicants.pop(client, None) is None:
            return
        self._measures.of(class_name).wait_left.observe(waited_seconds)
        self._decisions.deliver(self.controller.leave(client, clock.now()))

    def request_pin(self, client: ClientId) -> Refuse | None:
        return self.controller.request_pin(client, clock.now())

    def note_pinned(self, client: ClientId) -> None:
        """It is pinned already: seen only afterwards."""
        self.controller.note_pinned(client, clock.now())

    def unpin(self, client: ClientId) -> None:
        self._decisions.deliver(self.controller.unpin(client, clock.now()))

    def refuse_all_waiting(self, reason: RefusalReason) -> None:
        self._decisions.deliver(self.controller.refuse_all_waiting(reason, clock.now()))

    def deliver(self, decisions: Sequence[Decision]) -> None:
        """Apply decisions that an operator's order or a reload has caused."""
        self._decisions.deliver(decisions)

    @property
    def waiting(self) -> int:
        return len(self._decisions.applicants)

    def applicants(self) -> tuple[Applicant, ...]:
        """Who waits for a slot, at this moment."""
        return tuple(self._decisions.applicants.values())

    def close(self) -> None:
        self._decisions.close()

    def _count(self, decision: Decision) -> None:
        measures = self._measures.of(decision.class_name)
        if isinstance(decision, Grant):
            measures.wait_granted.observe(decision.waited_seconds)
        elif isinstance(decision, Refuse):
            measures.wait_refused.observe(decision.waited_seconds)


class Door:
    """Places for logged-in clients (`max_clients`, `max_clients_per_identity`): the core's other resource."""

    def __init__(self, places: ClientPlaces, loop: asyncio.AbstractEventLoop) -> None:
        self.places = places
        self._loop = loop
        self._decisions = DecisionLoop(places, lambda decision: None, loop)

    def try_join(self, client: ClientId, class_name: str, identity: Hashable) -> bool:
        """A place at once, or nothing has happened and `join` is to be called."""
        return self.places.try_join(client, class_name, identity)

    def join(self, applicant: Applicant, class_name: str, timeout_seconds: float, identity: Hashable) -> None:
        self._decisions.applicants[applicant.id] = applicant
        now = clock.now()
        self._decisions.deliver(self.places.join(applicant.id, class_name, now, timeout_seconds, identity=identity))

    def deliver(self, decisions: Sequence[Decision]) -> None:
        """Apply decisions that a reload has caused."""
        self._decisions.deliver(decisions)

    def left(self, client: ClientId) -> None:
        """A client that had a place, or waited for one, is gone."""
        self._decisions.applicants.pop(client, None)
        self._decisions.deliver(self.places.left(client, clock.now()))

    def close(self) -> None:
        self._decisions.close()
