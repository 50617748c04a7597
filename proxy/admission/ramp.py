"""A class begins slowly after a pause, and after an outage of the server: one slot more at a time, up to its limit.

Owns: how many slots it may use meanwhile, and when that is one more.
Does not know: why it stood still, who waits.

When a class goes on, everybody who waits would be granted at one moment: as many dials, and as many cold queries, as
its limit allows. What is reserved for it is a promise and not ramped, nor what it holds already; what it takes beyond
that grows evenly, from one slot at once to all of them when `seconds` have passed. So the most important classes, which
have reservations, are served first, and those who borrow come after them.
"""


class Ramp:
    """`limit` slots may be used now, and one more at `next_at`. There is a next step until it is over."""

    __slots__ = ("_began_at", "_seconds", "_steps", "_steps_left", "limit")

    def __init__(self, start: int, top: int, seconds: float, now: float) -> None:
        """From one above `start`, below `top`."""
        self.limit = start + 1
        self._steps = self._steps_left = top - self.limit
        self._seconds = seconds
        self._began_at = now

    @property
    def is_over(self) -> bool:
        return self._steps_left <= 0

    @property
    def next_at(self) -> float:
        return self._began_at + self._seconds * (self._steps - self._steps_left + 1) / self._steps

    def climb(self, now: float) -> None:
        while not self.is_over and now >= self.next_at:
            self._steps_left -= 1
            self.limit += 1
