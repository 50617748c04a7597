"""Adaptive limits in the running process: looks at the counters every second, delivers what follows, says what it did.

Owns: the timer (there is none while limits do not adapt), the log lines, the counts of steps.
Does not know: when a limit changes (`admission.adaptive`), how it is shown.
"""

import asyncio
import time
from collections import Counter, deque
from typing import Final

import structlog

from proxy.admission.adaptive import AdaptiveSettings, Event, Step
from proxy.admission.adaptive_run import LOOK_EVERY_SECONDS, AdaptiveRun
from proxy.admission.distribution import Distribution
from proxy.service.adaptive_state import AdaptiveState, TimedStep
from proxy.service.canary import Canary
from proxy.service.lock_probe import LockProbe
from proxy.session import clock
from proxy.session.measures import Measures
from proxy.session.registry import Registry
from proxy.session.upstream import Upstream

log = structlog.get_logger("pgheadroom.adaptive")

KEPT_STEPS: Final = 20


class RunningMeters:
    """The counters of the session layer, as the core reads them."""

    def __init__(self, measures: Measures, registry: Registry) -> None:
        self._measures = measures
        self._registry = registry

    def holds(self, class_name: str) -> Distribution:
        hold = self._measures.of(class_name).hold
        return Distribution(hold.counts, hold.sum, hold.bounds)

    def waits(self, class_name: str) -> Distribution:
        measures, waits = self._measures.of(class_name), Distribution()
        for histogram in (measures.wait_granted, measures.wait_refused, measures.wait_left):
            waits.add(Distribution(histogram.counts, histogram.sum, histogram.bounds))
        return waits

    def server_refusals(self) -> int:
        return self._registry.dials_refused


class AdaptiveLimits:
    """Those of one upstream."""

    def __init__(self, upstream: Upstream, canary: Canary, locks: LockProbe) -> None:
        self._gate = upstream.gate
        self._loop = upstream.desk.loop
        self._meters = RunningMeters(upstream.desk.measures, upstream.registry)
        self._canary = canary
        self._locks = locks
        self._run: AdaptiveRun | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._steps: Counter[tuple[str, str, str]] = Counter()
        self._last_steps: deque[TimedStep] = deque(maxlen=KEPT_STEPS)

    def adopt(self, settings: AdaptiveSettings | None) -> None:
        """Begin, go on, or end. Where anything is new, the limits are the configured ones until more is known."""
        if (None if self._run is None else self._run.settings) == settings:
            return
        self.close()
        if settings is not None:
            self._run = AdaptiveRun(self._gate.controller, settings, self._meters, clock.now())
            self._set_timer()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._run is not None:
            run, self._run = self._run, None
            self._gate.deliver(run.lift(clock.now()))

    def state(self) -> AdaptiveState | None:
        """None where limits do not adapt."""
        run = self._run
        if run is None:
            return None
        return AdaptiveState(
            mode=_mode(run.settings),
            reference_class=run.settings.reference_class,
            verdict=run.control.verdict,
            usual_hold_seconds=run.control.usual_hold_seconds,
            limits=dict(run.control.limits),
            steps=dict(self._steps),
            last_steps=tuple(self._last_steps),
        )

    def _set_timer(self) -> None:
        self._timer = self._loop.call_later(LOOK_EVERY_SECONDS, self._look)

    def _look(self) -> None:
        self._set_timer()
        run = self._run
        assert run is not None, "the timer ends with the run"
        canary, lock_waits = self._canary.take_results(), self._locks.lock_waits
        events, decisions = run.look(clock.now(), canary=canary, lock_waits=lock_waits)
        for event in events:
            self._note(event, _mode(run.settings))
        self._gate.deliver(decisions)

    def _note(self, event: Event, mode: str) -> None:
        if not isinstance(event, Step):
            log.warning("adaptive_relearns", class_name=event.class_name, usual_seconds=round(event.usual_seconds, 4))
            return
        self._steps[event.class_name, event.direction.value, event.cause.value] += 1
        self._last_steps.append(TimedStep(time.time(), event))
        log.warning(
            "adaptive_step",
            mode=mode,
            class_name=event.class_name,
            direction=event.direction.value,
            cause=event.cause.value,
            was=event.was,
            limit=event.limit,
            configured=event.configured,
            why=event.why,
        )


def _mode(settings: AdaptiveSettings) -> str:
    return "observe" if settings.observes else "on"
