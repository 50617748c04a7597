"""When the next deadline or notice of a waiting client is due.

Owns: one heap, at most one live entry per waiter.
Does not know: clocks. The I/O side keeps a single timer for the earliest moment.

A waiter that leaves its queue leaves its entry behind; such entries are dropped when they surface, and all at once
when they outnumber the live ones.
"""

from heapq import heapify, heappop, heappush
from itertools import count
from math import inf

from proxy.admission.queues import Waiter

# Below this size sweeping costs more than it frees.
SMALLEST_HEAP_TO_SWEEP = 64


class WaitTimers:
    """Deadlines and notices of everybody who waits."""

    __slots__ = ("_heap", "_tie_breaker")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Waiter]] = []
        self._tie_breaker = count()

    def __len__(self) -> int:
        return len(self._heap)

    def watch(self, waiter: Waiter, waiting: int) -> None:
        """Set the next alarm of a waiter: its notice if it still has one, its deadline otherwise.

        `waiting` is how many clients are watched and wait; what the heap holds beyond twice that is swept.
        """
        at = waiter.deadline if waiter.notify_at is None else waiter.notify_at
        if at == inf:
            return  # waits for as long as it takes, and was told so if it was to be told
        heappush(self._heap, (at, next(self._tie_breaker), waiter))
        if len(self._heap) > SMALLEST_HEAP_TO_SWEEP and len(self._heap) > 2 * waiting:
            self._sweep()

    def earliest(self) -> float | None:
        """The next moment at which somebody is due, or None."""
        heap = self._heap
        while heap and not heap[0][2].is_waiting:
            heappop(heap)
        return heap[0][0] if heap else None

    def take_due_or_none(self, now: float) -> Waiter | None:
        """Remove and return one waiter whose alarm is due; it has to be watched again if it goes on waiting."""
        earliest = self.earliest()
        if earliest is None or earliest > now:
            return None
        return heappop(self._heap)[2]

    def _sweep(self) -> None:
        self._heap = [entry for entry in self._heap if entry[2].is_waiting]
        heapify(self._heap)
