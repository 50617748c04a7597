"""Metrics of adaptive limits, of lock waits and of the canary; none of what is off.

Owns: their names, help texts and labels.
Does not know: how anything is counted.
"""

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from proxy.admission.overload import Load
from proxy.service.adaptive_state import OUTCOMES, AdaptiveState, CanaryState
from proxy.service.metric_shapes import PREFIX, cumulative
from proxy.service.view import ProcessView, configured_limit_of


def adaptive_metrics(view: ProcessView) -> Iterator[Metric]:
    state, lock_waits, canary = view.adaptive(), view.lock_waits(), view.canary()
    if state is not None:
        yield from _verdict(state)
        yield _targets(view, state)
        yield _steps(state)
    if lock_waits is not None:
        text = "Server processes that wait for a lock, as far as the user of upstream.url may see."
        yield GaugeMetricFamily(f"{PREFIX}lock_waits", text, value=lock_waits)
    if canary is not None:
        yield from _canary(canary)


def _verdict(state: AdaptiveState) -> Iterator[Metric]:
    overloaded = float(state.verdict.load is Load.OVERLOADED)
    yield GaugeMetricFamily(f"{PREFIX}adaptive_overloaded", "1 while customers feel an overload.", value=overloaded)
    text = "How many times as long as usual the reference class holds a slot."
    slowdown = GaugeMetricFamily(f"{PREFIX}adaptive_slowdown_ratio", text, labels=["class"])
    if state.verdict.slowdown is not None:
        slowdown.add_metric([state.reference_class], state.verdict.slowdown)
    yield slowdown
    text = "How long the reference class usually holds a slot (geometric mean)."
    usual = GaugeMetricFamily(f"{PREFIX}adaptive_usual_hold_seconds", text, labels=["class"])
    if state.usual_hold_seconds is not None:
        usual.add_metric([state.reference_class], state.usual_hold_seconds)
    yield usual


def _targets(view: ProcessView, state: AdaptiveState) -> Metric:
    text = "The limit that adaptive limits want; with observe it is not in force."
    family = GaugeMetricFamily(f"{PREFIX}class_adaptive_target_slots", text, labels=["class"])
    for reading in view.snapshot().classes:
        configured = configured_limit_of(reading)
        family.add_metric([reading.name], min(configured, state.limits.get(reading.name, configured)))
    return family


def _steps(state: AdaptiveState) -> Metric:
    text = "Changes of limits by adaptive limits; with observe those that would have been made."
    family = CounterMetricFamily(f"{PREFIX}class_adaptive_steps", text, labels=["class", "direction", "cause"])
    for labels, count in state.steps.items():
        family.add_metric(list(labels), count)
    return family


def _canary(canary: CanaryState) -> Iterator[Metric]:
    name, last = canary.class_name, canary.last
    up = GaugeMetricFamily(f"{PREFIX}canary_up", "1 where the last canary got its answer.", labels=["class"])
    if last is not None:
        up.add_metric([name], float(last.outcome == "answered"))
    yield up
    runs = CounterMetricFamily(f"{PREFIX}canary_runs", "Canaries by what became of them.", labels=["class", "outcome"])
    for outcome in OUTCOMES:
        runs.add_metric([name, outcome], canary.outcomes.get(outcome, 0))
    yield runs
    text = "Time a canary took, its wait for a slot included."
    seconds = HistogramMetricFamily(f"{PREFIX}canary_seconds", text, labels=["class"])
    seconds.add_metric([name], cumulative(canary.seconds), canary.seconds.sum)
    yield seconds
