"""A scenario in the simulator: the same traffic through the admission core alone, in seconds.

Owns: what the events of a scenario are there, and a record of the same shape as that of a real run.
Does not know: bounds, real runs.

A simulation has no connections: `connects` are 0, and clients that listen share one. A frozen server is one that needs
FROZEN times as long. Who holds on to a slot loses it at the bound of its class, as the session layer sees to it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from loadtests.scenarios.generator import SAMPLE_EVERY_SECONDS
from loadtests.scenarios.record import ClassState, JobOver, Record, Sample, StateSample
from loadtests.scenarios.scenario import Event, Scenario, Squatter, merged, part_of
from proxy.admission.classes import ClassState as SwitchState
from proxy.admission.controller import Controller
from proxy.admission.decisions import NOTHING, Decision
from proxy.admission.simulation.adaptive_policy import AdaptivePolicy
from proxy.admission.simulation.durations import Constant
from proxy.admission.simulation.engine import Order, Simulation
from proxy.admission.simulation.population import Job
from proxy.admission.simulation.server import ServerModel, SlowTime
from proxy.admission.simulation.traffic import Burst, Source, Traffic
from proxy.service.adaptive_settings import adaptive_settings
from proxy.service.budget import budget_settings
from proxy.service.config.parts import UpstreamPart

FROZEN: Final = 1e6
_STATES: Final = {
    "pause": SwitchState.PAUSED,
    "resume": SwitchState.RUNNING,
    "reject": SwitchState.REJECTING,
}


def run(scenario: Scenario, tell: Callable[[float], None]) -> Record:
    """`tell` is given the simulated second, again and again."""
    return _Run(scenario).run(tell)


class _Run:
    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        part = scenario.part
        self._total = _total(part, scenario)
        self._budget = budget_settings(part, self._total)
        adaptive = adaptive_settings(part)
        self._adaptive = None if adaptive is None else AdaptivePolicy(self._budget, adaptive)
        self._controller = Controller(self._budget, now=0.0) if self._adaptive is None else self._adaptive.controller
        self._record = Record()

    def run(self, tell: Callable[[float], None]) -> Record:
        traffic = self._traffic()
        moments = math.floor(traffic.duration_seconds / SAMPLE_EVERY_SECONDS)
        looks = [(number * SAMPLE_EVERY_SECONDS, self._look) for number in range(moments)]
        Simulation(
            self._controller if self._adaptive is None else self._adaptive,
            traffic,
            total=self._most(),
            class_names=[one.name for one in self._budget.classes],
            seed=self._scenario.declared.seed,
            progress=tell,
            orders=[*looks, *self._orders()],
            job_is_over=self._note,
        ).run()
        return self._record

    # -- what the traffic is ------------------------------------------------------------------------------------------

    def _traffic(self) -> Traffic:
        declared = self._scenario.traffic
        squatting = [
            self._squatting(number, one) for number, one in enumerate(self._scenario.squatters) if one.kind != "listen"
        ]
        slow = [
            SlowTime(one.at, one.at + one.lasts, FROZEN if one.do == "freeze" else one.times)
            for one in self._scenario.events
            if one.do in ("freeze", "slower")
        ]
        server = ServerModel(declared.server.parallel, (*declared.server.slow_times, *slow))
        return replace(declared, sources=(*declared.sources, *squatting), server=server)

    def _squatting(self, number: int, squatter: Squatter) -> Source:
        """Each holds one slot until its time is over, or as long as its class lets it."""
        class_name = self._scenario.class_of(squatter.application_name)
        holds = self._scenario.part.classes[class_name].holds
        bound = holds.slow_reader if squatter.kind == "stops_reading" else holds.idle_in_transaction
        lasts = squatter.lasts if bound is None else min(squatter.lasts, bound)
        return Source(f"squatter-{number}", class_name, Burst(squatter.at, squatter.clients, 1), Constant(lasts))

    # -- what happens when --------------------------------------------------------------------------------------------

    def _orders(self) -> list[tuple[float, Order]]:
        return [
            (one.at, partial(self._carry_out, one)) for one in self._scenario.events if one.do in (*_STATES, "reload")
        ]

    def _carry_out(self, event: Event, now: float) -> Sequence[Decision]:
        if event.do == "reload":
            part = self._changed(event)
            return self._controller.reconfigure(budget_settings(part, _total(part, self._scenario)), now)
        assert event.class_name is not None, "a switch names its class"
        return self._controller.set_state(event.class_name, _STATES[event.do], now)

    def _changed(self, event: Event) -> UpstreamPart:
        return part_of(merged(self._scenario.settings, event.change))

    def _most(self) -> int:
        """The largest budget of the run."""
        reloads = [one for one in self._scenario.events if one.do == "reload"]
        return max(self._total, *(_total(self._changed(one), self._scenario) for one in reloads), 0)

    # -- what is seen -------------------------------------------------------------------------------------------------

    def _look(self, now: float) -> Sequence[Decision]:
        snapshot = self._controller.snapshot(now)
        used = {one.name: one.used for one in snapshot.classes}
        states = {one.name: ClassState(one.used, one.limit, one.waiting) for one in snapshot.classes}
        self._record.samples.append(Sample(now, snapshot.in_use, used))
        self._record.states.append(StateSample(now, snapshot.total, snapshot.in_use, states))
        return NOTHING

    def _note(self, job: Job, now: float, why: str | None) -> None:
        source = job.run.source
        attempts = job.attempts + (why is None)
        self._record.jobs.append(JobOver(source.name, source.class_name, job.arrived_at, now, max(1, attempts), 0, why))


def _total(part: UpstreamPart, scenario: Scenario) -> int:
    """Asked from the server, it is what that gives."""
    return scenario.connections if part.budget.total == "auto" else part.budget.total
