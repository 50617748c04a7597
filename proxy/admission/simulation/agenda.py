"""What will happen in a simulation, in the order of time.

Owns: the heap of events, the order of two at one instant.
Does not know: what an event does, who else has a say in when something happens (a server, a policy).
"""

import heapq
import math
from collections.abc import Callable

Happening = Callable[[float], None]


class Agenda:
    """Events of one instant happen in the order in which they were made."""

    __slots__ = ("_events", "made")

    def __init__(self) -> None:
        self._events: list[tuple[float, int, Happening]] = []
        self.made = 0

    def add(self, at: float, happening: Happening) -> None:
        self.made += 1
        heapq.heappush(self._events, (at, self.made, happening))

    def next_at(self) -> float:
        """When the next event is; infinite where there is none."""
        return self._events[0][0] if self._events else math.inf

    def happen(self) -> None:
        """The next event, at its time."""
        at, _, happening = heapq.heappop(self._events)
        happening(at)
