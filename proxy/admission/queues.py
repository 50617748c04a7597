"""Who waits in a class, and who of them is next.

Owns: the order inside one class: round robin between flows, oldest first inside a flow.
Does not know: slots, whether anybody may be served, what a flow stands for.

Everything but walking over all waiters is O(1): ordered dicts, because deleting from the front of a plain dict leaves
holes that the next look at its front walks over.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterable

from proxy.admission.classes import ClientId


class Waiter:
    """One queued client. `is_waiting` turns False once, when it leaves the queue for whatever reason."""

    __slots__ = (
        "class_name",
        "client",
        "deadline",
        "departed_before",
        "flow",
        "is_waiting",
        "notify_at",
        "queued_ahead",
        "since",
        "unbounded",
    )

    def __init__(self, client: ClientId, class_name: str, flow: Hashable, since: float, unbounded: bool) -> None:
        self.client = client
        self.class_name = class_name
        self.flow = flow
        self.since = since
        self.unbounded = unbounded
        self.deadline = since
        self.notify_at: float | None = None
        self.is_waiting = False
        self.queued_ahead = 0
        self.departed_before = 0

    def wait_at_most(self, of_class_seconds: float, of_request_seconds: float | None) -> None:
        """Set the deadline: the patience of the class, or the request's own where that is shorter."""
        seconds = of_class_seconds if of_request_seconds is None else min(of_class_seconds, of_request_seconds)
        self.deadline = self.since + seconds

    def arrival(self) -> float:
        """By what waiters of several classes stand in order."""
        return self.since

    def notify_after(self, seconds: float) -> None:
        """Ask for one notice, unless the wait would be over by then."""
        notify_at = self.since + seconds
        self.notify_at = notify_at if notify_at < self.deadline else None


class ClassQueue:
    """The waiting clients of one class. `waiters` is in order of arrival and read-only for everybody else."""

    __slots__ = ("_departed", "_flows", "waiters")

    def __init__(self) -> None:
        self.waiters: OrderedDict[ClientId, Waiter] = OrderedDict()
        self._flows: OrderedDict[Hashable, OrderedDict[ClientId, Waiter]] = OrderedDict()
        self._departed = 0

    def __len__(self) -> int:
        return len(self.waiters)

    def add(self, waiter: Waiter) -> None:
        waiter.queued_ahead = len(self.waiters)
        waiter.departed_before = self._departed
        waiter.is_waiting = True
        self.waiters[waiter.client] = waiter
        flow = self._flows.get(waiter.flow)
        if flow is None:
            flow = self._flows[waiter.flow] = OrderedDict()
        flow[waiter.client] = waiter

    def next_in_turn(self) -> Waiter:
        """The oldest waiter of the flow whose turn it is. The queue must not be empty."""
        flow = next(iter(self._flows.values()))
        return next(iter(flow.values()))

    def take_next(self) -> Waiter:
        """Remove the next waiter; its flow goes behind the others."""
        waiter = self.next_in_turn()
        self.remove(waiter)
        if waiter.flow in self._flows:
            self._flows.move_to_end(waiter.flow)
        return waiter

    def remove(self, waiter: Waiter) -> None:
        """Remove a waiter wherever it stands; the turns of the flows stay as they are."""
        del self.waiters[waiter.client]
        flow = self._flows[waiter.flow]
        del flow[waiter.client]
        if not flow:
            del self._flows[waiter.flow]
        waiter.is_waiting = False
        self._departed += 1

    def take_in(self, others: Iterable[Waiter]) -> None:
        """Waiters of another queue stand here from now on, each by its time of arrival. The turns begin anew."""
        together = sorted([*self.waiters.values(), *others], key=Waiter.arrival)
        self.waiters.clear()
        self._flows.clear()
        for waiter in together:
            self.add(waiter)

    def turn_of_one_more(self, flow: Hashable) -> int:
        """How many are served up to and including one more waiter of this flow, if nobody else comes or leaves."""
        own = self._flows.get(flow)
        if own is None:
            return len(self._flows) + 1
        turn, rounds = len(own) + 1, len(own) + 1  # the flows in front of its own have had a turn more before it
        for other in self._flows.values():
            if other is own:
                rounds -= 1
            else:
                turn += min(len(other), rounds)
        return turn

    def oldest_since(self) -> float | None:
        """When the oldest waiter came, or None where nobody waits."""
        for waiter in self.waiters.values():
            return waiter.since
        return None

    def position_of(self, waiter: Waiter) -> int:
        """About how many have to be served until it is this one's turn, itself included.

        An estimate, because the exact number costs a walk: everybody who left is taken to have stood ahead.
        """
        ahead = waiter.queued_ahead - (self._departed - waiter.departed_before)
        return max(1, ahead + 1)
