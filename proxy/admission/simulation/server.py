"""A simulated server: how fast what it does at the same time goes on.

Owns: the moments at which work is done, while the speed changes under it.
Does not know: slots, classes, what the work is.

Work is measured in the seconds that it takes alone on a healthy server. All work under way goes on equally fast: at
full speed up to `parallel` pieces of it, beyond that they share what the server can do, and while it is declared slower
everything takes as many times as long. So one clock, of work done by each piece, tells who is ready next.
"""

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass

Done = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class SlowTime:
    """From one moment to another everything takes `slower` times as long."""

    from_seconds: float
    to_seconds: float
    slower: float


@dataclass(frozen=True, slots=True)
class ServerModel:
    """What a traffic declares of the server. `parallel`: as much goes on at once without slowing each other down."""

    parallel: float = math.inf
    slow_times: tuple[SlowTime, ...] = ()

    @property
    def is_ideal(self) -> bool:
        return self.parallel == math.inf and not self.slow_times

    def problems(self) -> list[str]:
        problems = [] if self.parallel >= 1 else [f"server.parallel is {self.parallel}, it must be at least 1"]
        for one in self.slow_times:
            if one.from_seconds < 0 or one.to_seconds <= one.from_seconds:
                problems.append(f"server.slow: to ({one.to_seconds} s) is not after from ({one.from_seconds} s)")
            if not 0 < one.slower < math.inf:
                problems.append(f"server.slow: slower is {one.slower}, it must be above 0")
        return problems

    def slower_at(self, now: float) -> float:
        return math.prod(one.slower for one in self.slow_times if one.from_seconds <= now < one.to_seconds)

    def changes(self) -> list[float]:
        return sorted({at for one in self.slow_times for at in (one.from_seconds, one.to_seconds)})


class Server:
    """Work under way. The caller takes out what is done, in time, before anything else happens."""

    def __init__(self, model: ServerModel) -> None:
        self._model = model
        self._changes = model.changes()
        self._slower = 1.0
        self._now = 0.0
        self._done_each = 0.0  # what a piece would have done that is here since the start
        self._under_way: list[tuple[float, int, Done]] = []
        self._pieces = 0

    def begin(self, work_seconds: float, done: Done, now: float) -> None:
        self._go_on_to(now)
        self._pieces += 1
        heapq.heappush(self._under_way, (self._done_each + work_seconds, self._pieces, done))

    def next_at(self) -> float:
        """When the next piece is done, or the speed changes; `take_due` is to be called then."""
        change = self._changes[0] if self._changes else math.inf
        if not self._under_way:
            return change
        return min(change, self._now + max(0.0, self._under_way[0][0] - self._done_each) / self._speed())

    def take_due(self, now: float) -> Done | None:
        """The piece of work that is done at `next_at`, or None where only the speed has changed."""
        if self._changes and now >= self._changes[0]:
            self._go_on_to(now)
            self._slower = self._model.slower_at(self._changes.pop(0))
            return None
        finish, _, done = heapq.heappop(self._under_way)
        # Rounding must not leave a rest of work in what was just found to be done.
        self._now, self._done_each = now, finish
        return done

    def _go_on_to(self, now: float) -> None:
        self._done_each += (now - self._now) * self._speed()
        self._now = now

    def _speed(self) -> float:
        busy = len(self._under_way)
        shared = self._model.parallel / busy if busy > self._model.parallel else 1.0
        return shared / self._slower
