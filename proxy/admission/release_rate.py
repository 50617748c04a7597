"""How often a class gives slots back, to tell refused clients when asking again makes sense.

Owns: two samples of a counter, and the turns told to refused clients.
Does not know: the counter itself; it is shown it when somebody is refused, so that releases cost nothing more.
"""

from proxy.admission.draws import Draw
from proxy.admission.retry_turns import RetryTurns

WINDOW_SECONDS = 5.0
# What the first may be told: the rate is an estimate, and an hour without a release is none.
LONGEST_FIRST_SECONDS = 5.0
# Nothing was released yet, so nothing is known: neither hammer nor give up.
UNKNOWN_SECONDS = 1.0
SECONDS_APART = 0.01  # while the rate is not known


class ReleaseRate:
    """Releases per second over the last one to two windows, or since the last refusal if that was longer ago."""

    __slots__ = ("_newer", "_older", "_turns")

    def __init__(self, now: float) -> None:
        self._older = (now, 0)
        self._newer = (now, 0)
        self._turns = RetryTurns(now)

    def per_second(self, released: int, now: float) -> float:
        """The rate at `now`, when the counter stands at `released`."""
        if now - self._newer[0] >= WINDOW_SECONDS:
            self._older, self._newer = self._newer, (now, released)
        since, count = self._older
        return (released - count) / (now - since) if now > since else 0.0

    def retry_after_ms(self, released: int, waiting: int, now: float, draw: Draw) -> int:
        """When the queue as it stands should have been served, and whoever was told to come before."""
        rate = self.per_second(released, now)
        if rate > 0.0:
            first, apart = min(LONGEST_FIRST_SECONDS, (waiting + 1) / rate), min(LONGEST_FIRST_SECONDS, 1.0 / rate)
        else:
            first, apart = (UNKNOWN_SECONDS if released == 0 else LONGEST_FIRST_SECONDS), SECONDS_APART
        return self._turns.take_ms(first, apart, now, draw)
