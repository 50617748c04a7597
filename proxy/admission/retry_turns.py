"""When refused clients are told to ask again: one after the other, never together.

Owns: the last moment that somebody was told, and the bounds and the jitter of what is told.
Does not know: why they were refused, how fast whatever they want becomes free.

Clients that are refused together must not come back together: each is told a moment of its own, one turn later than the
one before. So the more are refused, the later they come.
"""

from proxy.admission.draws import Draw

SHORTEST_RETRY_MS = 50
LONGEST_RETRY_MS = 30_000
JITTER = 0.25  # of the answer, up or down: other instances count for themselves


class RetryTurns:
    """The turns told by one class, or for one bucket."""

    __slots__ = ("_taken_until",)

    def __init__(self, now: float) -> None:
        self._taken_until = now

    def take_ms(self, first_seconds: float, apart_seconds: float, now: float, draw: Draw) -> int:
        """The next moment that nobody was told yet, not before `first_seconds`; jittered, between 50 ms and 30 s."""
        at = max(now + first_seconds, self._taken_until + apart_seconds)
        if at < now + LONGEST_RETRY_MS / 1000.0:
            self._taken_until = at
            told = 1000.0 * (at - now) * (1.0 + JITTER * (2.0 * draw() - 1.0))
        else:  # where there are more of them than turns, they are spread over the later half
            told = LONGEST_RETRY_MS * (0.5 + 0.5 * draw())
        return max(SHORTEST_RETRY_MS, min(LONGEST_RETRY_MS, round(told)))
