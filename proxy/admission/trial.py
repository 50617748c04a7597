"""A class that only warns: what its numbers would have decided, while they decide nothing.

Owns: which of its numbers a class in `mode: warn` goes without, and the counts of what they would have done.
Does not know: who is told, slots of others.

Such a class goes by settings without bounds of its own (`in_force`), and for these the rule is the same as for any
class: the budget, the floors of others, what is held for them and the headroom stand, so it waits where those say so.
What bounds of its own would have done is worked out here, at the moment at which they would have decided:

* above its limit it would have queued, or been refused where it does not queue, or its queue would have been full; the
  slots it has above the limit stand for that queue,
* who has waited longer than the queue lets anybody wait would have been refused, and so would whoever connects too
  often, is one client too many, or is pinned above `pinned_limit`.

Orders of an operator are no numbers of the class: paused and rejecting are what they are in any mode.
"""

from dataclasses import dataclass, replace
from math import inf
from typing import Final

from proxy.admission.classes import ClassSettings, Mode
from proxy.admission.decisions import RefusalReason

_NO_BOUND: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Would:
    """What would have become of a client: refused for `reason`, or, where that is None, queued."""

    class_name: str
    reason: RefusalReason | None
    in_use: int
    limit: int


def in_force(settings: ClassSettings, total: int) -> ClassSettings:
    """The settings by which a class goes in a budget of `total` slots."""
    if settings.mode is Mode.ENFORCE:
        return settings
    return replace(
        settings,
        limit=max(settings.limit, total),
        queue_max=_NO_BOUND,
        queue_timeout_seconds=inf,
        refuse_hopeless=False,
        pinned_limit=None,
        max_clients=None,
        max_clients_per_identity=None,
        slow_start_seconds=0.0,
    )


class Trial:
    """Of one class that only warns. `settings` are those that were configured."""

    __slots__ = ("settings", "would_queue", "would_refuse")

    def __init__(self, settings: ClassSettings) -> None:
        self.settings = settings
        self.would_queue = 0
        self.would_refuse: dict[RefusalReason, int] = {}

    def granted(self, used: int, pinned: int, waited_seconds: float, unbounded: bool) -> Would | None:
        """A slot is given; `used` and `pinned` are the counts before it."""
        own = self.settings
        if waited_seconds >= own.queue_timeout_seconds:
            return self._refused(RefusalReason.QUEUE_TIMEOUT, used)
        if unbounded and pinned >= self._pinned_limit():
            return self._refused(RefusalReason.PINNED_LIMIT, used)
        if used < own.limit or waited_seconds > 0.0:
            return None
        if used - own.limit >= own.queue_max:
            return self._refused(self._reason_not_to_queue(used), used)
        self.would_queue += 1
        return Would(own.name, None, used, own.limit)

    def queued(self, used: int, waiting: int) -> Would | None:
        """A client waits, for the budget has no slot for it; `waiting` counts it. Its queue may have been too short."""
        own = self.settings
        if max(0, used - own.limit) + waiting <= own.queue_max:
            return None
        return self._refused(self._reason_not_to_queue(used), used)

    def pinned(self, used: int, pinned: int) -> Would | None:
        """A hold becomes unbounded; `pinned` is the count before it."""
        return self._refused(RefusalReason.PINNED_LIMIT, used) if pinned >= self._pinned_limit() else None

    def connected_too_often(self, used: int) -> Would:
        return self._refused(RefusalReason.RATE, used)

    def _pinned_limit(self) -> int:
        configured = self.settings.pinned_limit
        return self.settings.limit if configured is None else configured

    def _reason_not_to_queue(self, used: int) -> RefusalReason:
        does_not_queue = self.settings.queue_max == 0 and used >= self.settings.limit
        return RefusalReason.LIMIT if does_not_queue else RefusalReason.QUEUE_FULL

    def _refused(self, reason: RefusalReason, used: int) -> Would:
        self.would_refuse[reason] = self.would_refuse.get(reason, 0) + 1
        return Would(self.settings.name, reason, used, self.settings.limit)
