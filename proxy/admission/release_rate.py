"""How often a class gives slots back, to tell refused clients when asking again makes sense.

Owns: two samples of a counter.
Does not know: the counter itself; it is shown it when somebody is refused, so that releases cost nothing more.
"""

WINDOW_SECONDS = 5.0
SHORTEST_RETRY_MS = 50
LONGEST_RETRY_MS = 5000
# Nothing was released yet, so nothing is known: neither hammer nor give up.
UNKNOWN_RETRY_MS = 1000


class ReleaseRate:
    """Releases per second over the last one to two windows, or since the last refusal if that was longer ago."""

    __slots__ = ("_newer", "_older")

    def __init__(self, now: float) -> None:
        self._older = (now, 0)
        self._newer = (now, 0)

    def per_second(self, released: int, now: float) -> float:
        """The rate at `now`, when the counter stands at `released`."""
        if now - self._newer[0] >= WINDOW_SECONDS:
            self._older, self._newer = self._newer, (now, released)
        since, count = self._older
        return (released - count) / (now - since) if now > since else 0.0

    def retry_after_ms(self, released: int, waiting: int, now: float) -> int:
        """When the queue as it stands should have been served, between 50 ms and 5 s."""
        rate = self.per_second(released, now)
        if rate <= 0.0:
            return UNKNOWN_RETRY_MS if released == 0 else LONGEST_RETRY_MS
        return max(SHORTEST_RETRY_MS, min(LONGEST_RETRY_MS, round(1000.0 * (waiting + 1) / rate)))
