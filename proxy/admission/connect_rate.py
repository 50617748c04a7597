"""How often clients may connect for nothing: a token bucket per class, and one per identity in it.

Owns: the buckets, and which of the two says no.
Does not know: sockets, slots, how late a refusal is told (`lateness`).

What takes a token, of its class and of its identity, is a connect that came to nothing: a login that was refused, a
client that left before it was given a slot, as in a crash loop. Whoever was served, or is still connected, has taken
none: a script that connects for every query is never slowed down, and neither are thousands of runs that connect at
once and stay. Nobody is let in while a bucket is empty. A connect that is refused for that takes nothing, or nobody
would be let in for as long as the storm lasts.

Identities are chosen by clients, so only the last MAX_REMEMBERED of them are remembered; one that is forgotten begins
with a full bucket.
"""

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Final

from proxy.admission.classes import NO_CONNECT_RATE, BudgetSettings, ConnectSettings
from proxy.admission.draws import Draw, middle
from proxy.admission.retry_turns import RetryTurns

MAX_REMEMBERED: Final = 10_000

Key = tuple[str, Hashable]
"""The class and the identity in it."""


@dataclass(frozen=True, slots=True)
class TooManyConnects:
    """A refused connect: whether the bucket of its identity decides or that of its class, and when to come again."""

    per_identity: bool
    retry_after_ms: int


class Bucket:
    """Tokens of one class or identity as they were at `at`; it fills at `rate` up to `burst`."""

    __slots__ = ("at", "tokens", "turns")

    def __init__(self, burst: float, now: float) -> None:
        self.tokens = burst
        self.at = now
        self.turns = RetryTurns(now)

    def fill(self, rate: float, burst: float, now: float) -> float:
        """What is in it now."""
        self.tokens = min(burst, self.tokens + (now - self.at) * rate)
        self.at = now
        return self.tokens


class ConnectRate:
    """The buckets of all classes. A class nobody has configured has none."""

    def __init__(self, settings: BudgetSettings, *, draw: Draw = middle) -> None:
        self._draw = draw
        self._settings: Mapping[str, ConnectSettings] = {}
        self._classes: dict[str, Bucket] = {}
        self._identities: OrderedDict[Key, Bucket] = OrderedDict()
        self.adopt(settings)

    def __len__(self) -> int:
        return len(self._identities)

    def adopt(self, settings: BudgetSettings) -> None:
        """Other rates, from a reload. What is in the buckets stays, up to their new size."""
        self._settings = {one.name: one.connects for one in settings.classes}
        self._classes = {name: bucket for name, bucket in self._classes.items() if name in self._settings}

    def connected(self, class_name: str, identity: Hashable, now: float) -> TooManyConnects | None:
        """Somebody has logged in. None: it may come in; else it is refused, and did not come."""
        for per_identity, rate, bucket in self._buckets(class_name, identity, now):
            if bucket.tokens < 1.0:
                first, apart = (1.0 - bucket.tokens) / rate, 1.0 / rate
                return TooManyConnects(per_identity, bucket.turns.take_ms(first, apart, now, self._draw))
        return None

    def came_to_nothing(self, class_name: str, identity: Hashable, now: float) -> None:
        """Somebody who had come in was refused, or has left without having been served."""
        for _, _, bucket in self._buckets(class_name, identity, now):
            bucket.tokens = max(0.0, bucket.tokens - 1.0)

    def _buckets(self, class_name: str, identity: Hashable, now: float) -> list[tuple[bool, float, Bucket]]:
        """Those that bound this connect, filled: whether it is that of the identity, its rate, the bucket."""
        found: list[tuple[bool, float, Bucket]] = []
        settings = self._settings.get(class_name, NO_CONNECT_RATE)
        if settings.identity_rate is not None:
            bucket = self._of_identity((class_name, identity), settings.identity_burst, now)
            bucket.fill(settings.identity_rate, settings.identity_burst, now)
            found.append((True, settings.identity_rate, bucket))
        if settings.rate is not None:
            bucket = self._classes.setdefault(class_name, Bucket(settings.burst, now))
            bucket.fill(settings.rate, settings.burst, now)
            found.append((False, settings.rate, bucket))
        return found

    def _of_identity(self, key: Key, burst: float, now: float) -> Bucket:
        bucket = self._identities.get(key)
        if bucket is None:
            bucket = self._identities[key] = Bucket(burst, now)
            if len(self._identities) > MAX_REMEMBERED:
                self._identities.popitem(last=False)
        else:
            self._identities.move_to_end(key)
        return bucket
