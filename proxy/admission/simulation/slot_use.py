"""Slots in use over simulated time, and those that nobody had while somebody waited.

Owns: the count of slots in use, the sums over time.
Does not know: who has them, who waits, classes.
"""


class SlotUse:
    """`account` before the slots in use or the waiting clients change: it adds up the time since they last did."""

    __slots__ = ("_accounted_at", "_total", "idle_seconds", "in_use", "most_in_use", "queued_seconds")

    def __init__(self, total: int) -> None:
        self._total = total
        self._accounted_at = 0.0
        self.in_use = 0
        self.most_in_use = 0
        self.queued_seconds = 0.0
        self.idle_seconds = 0.0

    def account(self, now: float, is_anyone_waiting: bool) -> None:
        if is_anyone_waiting:
            elapsed = now - self._accounted_at
            self.queued_seconds += elapsed
            self.idle_seconds += elapsed * (self._total - self.in_use)
        self._accounted_at = now

    def take(self) -> None:
        self.in_use += 1
        if self.in_use > self.most_in_use:  # noqa: PLR1730 - for every job, and max() takes three times as long
            self.most_in_use = self.in_use

    def give_back(self) -> None:
        self.in_use -= 1
