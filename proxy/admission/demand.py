"""How much of its reservation a class needed lately.

Owns: one decaying number per class, D, and the moments at which its whole part drops.
Does not know: what a slot is, who waits. It is told the demand before the demand falls.

D halves every `half_life_seconds` and never stands below the demand of the moment, so only falling demand has to be
noted: while demand stands or rises, the caller's own count is the larger of the two.
"""

from math import ceil, exp2, inf, log2

# Far above the rounding of clocks that count from the start of a machine, far below what anybody waits for.
RESOLUTION_SECONDS = 1e-6


class DemandMemory:
    """Remembered demand of one class, settled lazily: nothing here runs by itself."""

    __slots__ = ("_half_life_seconds", "_level", "_level_since", "_level_until", "_noted_at", "_peak")

    def __init__(self, half_life_seconds: float) -> None:
        self._half_life_seconds = half_life_seconds
        self._peak = 0.0
        self._noted_at = 0.0
        # The level as last worked out, and the times between which it is that. Asking leaves no trace: an answer for
        # a later time must not hide a drop from whoever asks next for an earlier one.
        self._level = 0
        self._level_since = -inf
        self._level_until = inf

    def note(self, demand: int, now: float) -> None:
        """Remember the demand that held until `now` and is about to fall."""
        if demand >= self._peak or demand >= self._remembered(now):
            self._peak = demand
            self._noted_at = now
            self._level_until = -inf  # the level is settled by whoever asks next

    def level(self, now: float) -> int:
        """D rounded to slots, half a slot rounded down: ceil(D - 0.5)."""
        if not self._level_since <= now < self._level_until:
            self._settle(now)
        return self._level

    def drops_at(self, now: float) -> float:
        """When `level` falls next: later than `now` always, so that a timer set for it never spins."""
        if not self._level_since <= now < self._level_until:
            self._settle(now)
        return self._level_until

    def change_half_life(self, half_life_seconds: float, now: float) -> None:
        if half_life_seconds == self._half_life_seconds:
            return
        self._peak = self._remembered(now)
        self._noted_at = now
        self._half_life_seconds = half_life_seconds
        self._level_until = -inf

    def _remembered(self, now: float) -> float:
        if self._half_life_seconds <= 0.0:
            return 0.0
        return self._peak * exp2((self._noted_at - now) / self._half_life_seconds)

    def _settle(self, now: float) -> None:
        level = ceil(self._remembered(now) - 0.5)
        # Level and moment of dropping are computed in different ways: what rounding alone keeps up has dropped.
        while level > 0 and self._dropping_time(level) <= now + RESOLUTION_SECONDS:
            level -= 1
        self._level = max(0, level)
        self._level_since = now
        self._level_until = self._dropping_time(level) if level > 0 else inf

    def _dropping_time(self, level: int) -> float:
        """The moment at which D reaches level - 0.5."""
        return self._noted_at + self._half_life_seconds * log2(self._peak / (level - 0.5))
