"""Adaptive limits at work on one controller: look, decide, carry out. The proxy and the simulation run this.

Owns: when there is nothing to look at, and that the controller's limits are those the control wants, or none.
Does not know: what wakes it, where canaries and lock waits come from, logs.
"""

import math
from collections.abc import Sequence
from typing import Final

from proxy.admission.adaptive import AdaptiveControl, AdaptiveSettings, Event
from proxy.admission.controller import Controller
from proxy.admission.decisions import NOTHING, Decision
from proxy.admission.signals import Meters, Sampler
from proxy.admission.snapshot import Snapshot

LOOK_EVERY_SECONDS: Final = 1.0
# Looked at closely for so long after the last class was above its reservation, or the last client waited.
AWAKE_SECONDS: Final = 10.0


class AdaptiveRun:
    """One controller under adaptive limits; where the settings say that it observes, nothing is ever carried out."""

    def __init__(self, controller: Controller, settings: AdaptiveSettings, meters: Meters, now: float) -> None:
        self.settings = settings
        self.control = AdaptiveControl(settings)
        self._controller = controller
        self._sampler = Sampler(meters, (one.name for one in controller.settings.classes), now)
        self._pressed_at = -math.inf

    def look(
        self, now: float, *, canary: Sequence[float] = (), lock_waits: int | None = None
    ) -> tuple[Sequence[Event], Sequence[Decision]]:
        """To be called every LOOK_EVERY_SECONDS: what the control says, and decisions to be delivered."""
        snapshot = self._controller.snapshot(now)
        if is_pressed(snapshot):
            self._pressed_at = now
        if now - self._pressed_at > AWAKE_SECONDS and not canary:
            return (), NOTHING
        events = self.control.look(self._sampler.sample(snapshot, now, canary=canary, lock_waits=lock_waits))
        return events, self._carry_out(snapshot, now)

    def lift(self, now: float) -> Sequence[Decision]:
        """Adaptive limits are over: every class has its configured limit again."""
        return self._set({}, self._controller.snapshot(now), now)

    def _carry_out(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        return NOTHING if self.settings.observes else self._set(dict(self.control.limits), snapshot, now)

    def _set(self, limits: dict[str, int], snapshot: Snapshot, now: float) -> Sequence[Decision]:
        decisions: list[Decision] = []
        for one in snapshot.classes:
            if one.adaptive_limit != limits.get(one.name):
                decisions += self._controller.set_adaptive_limit(one.name, limits.get(one.name), now)
        return decisions


def is_pressed(snapshot: Snapshot) -> bool:
    """Somebody waits, or has slots that are not reserved for it: only then is there a limit worth changing."""
    return snapshot.waiting > 0 or any(one.borrowed for one in snapshot.classes)
