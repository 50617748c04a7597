"""How fast a class serves its queue, and so how long who stands in it has to wait.

Owns: the grants to waiting clients, counted over the time in which somebody waited.
Does not know: who waits, classes, whether anybody is refused for it.

Grants while nobody waits say how often the class is asked, not how fast it could serve: only time with a queue counts.
It is cut into windows of at least WINDOW_SECONDS and WINDOW_GRANTS; of each the longest time without a grant is left
out. `best_per_second` is the best of the last few whole windows, and so an answer that a stall does not change: a
server that froze for ten seconds has not become slow. `per_second` is the pace of the last window and what came after
it, a stall included.
What was seen before the queue stood empty for FORGET_SECONDS says nothing about another kind of work.
"""

from collections import deque
from typing import Final

WINDOW_SECONDS: Final = 1.0
WINDOW_GRANTS: Final = 10
KEPT_WINDOWS: Final = 6
FORGET_SECONDS: Final = 10.0


class QueuePace:
    """`now` never runs backwards. `began` and `ended` may be called when that is so already."""

    __slots__ = ("_began_at", "_ended_at", "_granted", "_granted_at", "_longest_gap", "_seconds", "_windows")

    def __init__(self) -> None:
        # Of each: grants, seconds of queueing, and how many of these were the longest time without a grant.
        self._windows: deque[tuple[int, float, float]] = deque(maxlen=KEPT_WINDOWS)
        self._granted = 0  # since the last window ended
        self._seconds = 0.0  # of queueing since then, up to `_began_at`
        self._granted_at = 0.0  # of these, when the last grant was
        self._longest_gap = 0.0
        self._began_at = -1.0  # below 0: nobody waits
        self._ended_at = 0.0

    def began(self, now: float) -> None:
        """Somebody waits now."""
        if self._began_at >= 0.0:
            return
        if now - self._ended_at > FORGET_SECONDS:
            self._windows.clear()
            self._begin_window()
        self._began_at = now

    def ended(self, now: float) -> None:
        """Nobody waits any more, or nobody may be served."""
        if self._began_at < 0.0:
            return
        self._seconds += now - self._began_at
        self._began_at, self._ended_at = -1.0, now

    def served(self, now: float) -> None:
        """One who waited was given its slot. Called before `ended` where it was the last."""
        seconds = self._waited_seconds(now)
        self._granted += 1
        self._longest_gap = max(self._longest_gap, seconds - self._granted_at)
        self._granted_at = seconds
        if self._granted >= WINDOW_GRANTS and seconds - self._longest_gap >= WINDOW_SECONDS:
            self._windows.append((self._granted, seconds, self._longest_gap))
            self._begin_window()
            self._began_at = now if self._began_at >= 0.0 else self._began_at

    def per_second(self, now: float) -> float | None:
        """The pace of late; None while too little was seen."""
        granted, seconds, _ = self._windows[-1] if self._windows else (0, 0.0, 0.0)
        granted += self._granted
        seconds += self._waited_seconds(now)
        return granted / seconds if granted >= WINDOW_GRANTS and seconds > 0.0 else None

    def best_per_second(self) -> float | None:
        """The best pace that was kept up for a window; None while none has ended."""
        return max(((granted - 1) / (seconds - gap) for granted, seconds, gap in self._windows), default=None)

    def _begin_window(self) -> None:
        self._granted = 0
        self._seconds = self._granted_at = self._longest_gap = 0.0

    def _waited_seconds(self, now: float) -> float:
        return self._seconds + (now - self._began_at if self._began_at >= 0.0 else 0.0)
