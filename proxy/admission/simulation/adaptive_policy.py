"""The admission rule with adaptive limits, as the proxy runs them.

Owns: counting holds and waits as the proxy does, and the steps that were made.
Does not know: the event loop, traffic.
"""

from bisect import bisect_left
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from proxy.admission.adaptive import AdaptiveSettings, Event, Step
from proxy.admission.adaptive_run import LOOK_EVERY_SECONDS, AdaptiveRun
from proxy.admission.classes import BudgetSettings, ClientId
from proxy.admission.controller import Controller
from proxy.admission.decisions import Decision, Grant, Refuse
from proxy.admission.distribution import SECONDS, Distribution


@dataclass(frozen=True, slots=True)
class TimedStep:
    """A step of the simulation, at a simulated second."""

    at_seconds: float
    step: Step


class SimulatedMeters:
    """Histograms as the proxy keeps them. No simulated server refuses a connection."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self._holds = {name: Distribution() for name in class_names}
        self._waits = {name: Distribution() for name in class_names}

    def holds(self, class_name: str) -> Distribution:
        return _copy(self._holds[class_name])

    def waits(self, class_name: str) -> Distribution:
        return _copy(self._waits[class_name])

    def server_refusals(self) -> int:
        return 0

    def held(self, class_name: str, seconds: float) -> None:
        _observe(self._holds[class_name], seconds)

    def waited(self, class_name: str, seconds: float) -> None:
        _observe(self._waits[class_name], seconds)


def _copy(one: Distribution) -> Distribution:
    return Distribution(one.counts, one.seconds)


def _observe(histogram: Distribution, seconds: float) -> None:
    histogram.counts[bisect_left(SECONDS, seconds)] += 1
    histogram.seconds += seconds


class AdaptivePolicy:
    """A policy for the simulation; it has to be woken every `tick_seconds` too."""

    tick_seconds = LOOK_EVERY_SECONDS

    def __init__(self, settings: BudgetSettings, adaptive: AdaptiveSettings) -> None:
        self.controller = Controller(settings, now=0.0)
        self.meters = SimulatedMeters([one.name for one in settings.classes])
        self.run = AdaptiveRun(self.controller, adaptive, self.meters, now=0.0)
        self.events: list[tuple[float, Event]] = []
        self._granted: dict[ClientId, tuple[str, float]] = {}
        self._asked: dict[ClientId, tuple[str, float]] = {}

    @property
    def steps(self) -> tuple[TimedStep, ...]:
        return tuple(TimedStep(at, event) for at, event in self.events if isinstance(event, Step))

    def tick(self, now: float) -> Sequence[Decision]:
        events, decisions = self.run.look(now)
        self.events += [(now, event) for event in events]
        return self._noted(decisions, now)

    def try_grant(self, client: ClientId, class_name: str, now: float) -> bool:
        if not self.controller.try_grant(client, class_name, now):
            return False
        self._granted[client] = class_name, now
        self.meters.waited(class_name, 0.0)
        return True

    def request(
        self, client: ClientId, class_name: str, *, flow: Hashable, now: float, unbounded: bool = False
    ) -> Sequence[Decision]:
        self._asked[client] = class_name, now
        return self._noted(self.controller.request(client, class_name, flow=flow, now=now, unbounded=unbounded), now)

    def release(self, client: ClientId, now: float) -> Sequence[Decision]:
        class_name, since = self._granted.pop(client)
        self.meters.held(class_name, now - since)
        return self._noted(self.controller.release(client, now), now)

    def leave(self, client: ClientId, now: float) -> Sequence[Decision]:
        asked = self._asked.pop(client, None)
        if asked is not None:
            self.meters.waited(asked[0], now - asked[1])
        return self._noted(self.controller.leave(client, now), now)

    def advance(self, now: float) -> Sequence[Decision]:
        return self._noted(self.controller.advance(now), now)

    def next_wakeup_at(self) -> float | None:
        return self.controller.next_wakeup_at()

    def _noted(self, decisions: Sequence[Decision], now: float) -> Sequence[Decision]:
        for decision in decisions:
            if isinstance(decision, Grant | Refuse):
                class_name, since = self._asked.pop(decision.client)
                self.meters.waited(class_name, now - since)
                if isinstance(decision, Grant):
                    self._granted[decision.client] = class_name, now
        return decisions
