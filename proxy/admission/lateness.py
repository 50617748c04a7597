"""Whoever comes to nothing again and again is answered late, and later each time.

Owns: how often that happened to whom lately, and how long the next answer waits.
Does not know: what failed, what is answered, sockets (`session/late_answers`).

The keys are chosen by clients (users, addresses, names), so only the last MAX_REMEMBERED of them are remembered.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from heapq import nlargest
from typing import Final, Generic, TypeVar

from proxy.admission.draws import Draw

MAX_REMEMBERED: Final = 10_000

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class LatenessSettings:
    """The first `at_once` failures are answered at once, the next one `delay_seconds` late, each further one twice as
    late as the last, up to `max_delay_seconds`. `jitter` 0.5 takes off up to half of it, by chance. After
    `forget_after_seconds` without a failure it begins anew. `max_held` is how many answers may wait at one time."""

    delay_seconds: float = 0.2
    max_delay_seconds: float = 5.0
    forget_after_seconds: float = 60.0
    max_held: int = 1000
    at_once: int = 0
    jitter: float = 0.0


class Lateness(Generic[K]):
    """`settings` may be replaced at any time."""

    def __init__(self, settings: LatenessSettings, draw: Draw) -> None:
        self.settings = settings
        self._draw = draw
        self._failures: OrderedDict[K, tuple[int, float]] = OrderedDict()  # how often, when last

    def note(self, key: K, now: float) -> float:
        """It came to nothing once more: the seconds its answer is to wait."""
        settings = self.settings
        times = self.recent(key, now)
        self._failures[key] = (times + 1, now)
        self._failures.move_to_end(key)
        if len(self._failures) > MAX_REMEMBERED:
            self._failures.popitem(last=False)
        if times < settings.at_once:
            return 0.0
        # The exponent is bounded too: 2.0 ** 2000 is no number.
        doublings = min(times - settings.at_once, 60)
        seconds = min(settings.max_delay_seconds, settings.delay_seconds * 2.0**doublings)
        return seconds * (1.0 - settings.jitter * self._draw())

    def recent(self, key: K, now: float) -> int:
        """How often it came to nothing and is not forgotten yet."""
        times, last = self._failures.get(key, (0, now))
        return 0 if now - last > self.settings.forget_after_seconds else times

    def most_often(self, count: int, now: float) -> list[tuple[K, int]]:
        """Those to whom it happened most often lately."""
        recent = ((key, self.recent(key, now)) for key in self._failures)
        return nlargest(count, (one for one in recent if one[1]), key=lambda one: one[1])
