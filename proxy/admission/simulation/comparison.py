"""The same traffic three times: the admission rule, one shared pool, static pools.

Owns: which policies are compared, and that they meet the same arrivals and the same holds.
Does not know: files, tables.
"""

from collections.abc import Callable, Collection, Iterator

from proxy.admission.adaptive import AdaptiveSettings
from proxy.admission.classes import BudgetSettings
from proxy.admission.controller import Controller
from proxy.admission.lateness import LatenessSettings
from proxy.admission.simulation.adaptive_policy import AdaptivePolicy
from proxy.admission.simulation.baselines import shared_pool, static_pools
from proxy.admission.simulation.engine import Simulation
from proxy.admission.simulation.front_door import FrontDoor
from proxy.admission.simulation.policies import Policy
from proxy.admission.simulation.report import PolicyReport, make_report
from proxy.admission.simulation.streams import generator
from proxy.admission.simulation.traffic import Traffic


def admission_rule(settings: BudgetSettings) -> Policy:
    return Controller(settings, now=0.0)


POLICIES: dict[str, Callable[[BudgetSettings], Policy]] = {
    "pgheadroom": admission_rule,
    "shared FIFO": shared_pool,
    "static pools": static_pools,
}

Progress = Callable[[str, float], None]


def compare(
    settings: BudgetSettings,
    traffic: Traffic,
    *,
    seed: int,
    unbounded_classes: Collection[str] = (),
    progress: Progress | None = None,
    policies: Collection[str] = tuple(POLICIES),
    adaptive: AdaptiveSettings | None = None,
    refusals: LatenessSettings | None = None,
) -> Iterator[PolicyReport]:
    """One report after the other, each when its simulation is done. `progress`: policy, simulated seconds.

    With `refusals` clients that reconnect meet the proxy's bound on connects, and its late answers.
    With `adaptive` the admission rule runs with adaptive limits, or observes what they would be.
    """
    for name in policies:
        policy = POLICIES[name](settings)
        if adaptive is not None and isinstance(policy, Controller):
            policy = AdaptivePolicy(settings, adaptive)
        is_ours = isinstance(policy, Controller | AdaptivePolicy)
        draw = generator(seed, "front door").random
        simulation = Simulation(
            policy,
            traffic,
            total=settings.total,
            class_names=[one.name for one in settings.classes],
            seed=seed,
            unbounded_classes=unbounded_classes,
            progress=None if progress is None else _progress_of(name, progress),
            front_door=FrontDoor(settings, refusals, draw) if is_ours and refusals is not None else None,
        )
        outcome = simulation.run()
        steps = policy.steps if isinstance(policy, AdaptivePolicy) else ()
        yield make_report(name, outcome, traffic, settings.total, steps)


def _progress_of(policy: str, progress: Progress) -> Callable[[float], None]:
    return lambda now: progress(policy, now)
