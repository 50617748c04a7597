"""Metrics of adaptive limits, of lock waits and of the canary; none of what is off.

Owns: their names, help texts and labels.
Does not know: how anything is counted.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from proxy.admission.overload import Load
from proxy.service.adaptive_state import OUTCOMES, AdaptiveState, CanaryState
from proxy.service.metric_shapes import PREFIX, cumulative
from proxy.service.view import ProcessView, configured_limit_of


def adaptive_metrics(view: ProcessView) -> Iterator[Metric]:
    states, lock_waits, canaries = view.adaptive(), view.lock_waits(), view.canary()
    if states:
        yield _overloaded(states)
        yield from _verdicts(states.values())
        yield _targets(view, states)
        yield _steps(states.values())
    if lock_waits:
        text = "Server processes that wait for a lock, as far as the user of upstream.url may see."
        family = GaugeMetricFamily(f"{PREFIX}lock_waits", text, labels=["upstream"])
        for upstream, count in lock_waits.items():
            family.add_metric([upstream], count)
        yield family
    if canaries:
        yield from _canaries(canaries.values())


def _overloaded(states: Mapping[str, AdaptiveState]) -> Metric:
    text = "1 while customers feel an overload."
    family = GaugeMetricFamily(f"{PREFIX}adaptive_overloaded", text, labels=["upstream"])
    for upstream, state in states.items():
        family.add_metric([upstream], float(state.verdict.load is Load.OVERLOADED))
    return family


def _verdicts(states: Collection[AdaptiveState]) -> Iterator[Metric]:
    text = "How many times as long as usual the reference class holds a slot."
    slowdown = GaugeMetricFamily(f"{PREFIX}adaptive_slowdown_ratio", text, labels=["class"])
    for state in states:
        if state.verdict.slowdown is not None:
            slowdown.add_metric([state.reference_class], state.verdict.slowdown)
    yield slowdown
    text = "How long the reference class usually holds a slot (geometric mean)."
    usual = GaugeMetricFamily(f"{PREFIX}adaptive_usual_hold_seconds", text, labels=["class"])
    for state in states:
        if state.usual_hold_seconds is not None:
            usual.add_metric([state.reference_class], state.usual_hold_seconds)
    yield usual


def _targets(view: ProcessView, states: Mapping[str, AdaptiveState]) -> Metric:
    text = "The limit that adaptive limits want; with observe it is not in force."
    family = GaugeMetricFamily(f"{PREFIX}class_adaptive_target_slots", text, labels=["class"])
    for reading in view.snapshot().classes:
        configured, state = configured_limit_of(reading), states.get(view.upstream_of_class(reading.name) or "")
        limits = {} if state is None else state.limits
        family.add_metric([reading.name], min(configured, limits.get(reading.name, configured)))
    return family


def _steps(states: Iterable[AdaptiveState]) -> Metric:
    text = "Changes of limits by adaptive limits; with observe those that would have been made."
    family = CounterMetricFamily(f"{PREFIX}class_adaptive_steps", text, labels=["class", "direction", "cause"])
    for state in states:
        for labels, count in state.steps.items():
            family.add_metric(list(labels), count)
    return family


def _canaries(canaries: Iterable[CanaryState]) -> Iterator[Metric]:
    text = "1 where the last canary got its answer."
    up = GaugeMetricFamily(f"{PREFIX}canary_up", text, labels=["class"])
    runs = CounterMetricFamily(f"{PREFIX}canary_runs", "Canaries by what became of them.", labels=["class", "outcome"])
    text = "Time a canary took, its wait for a slot included."
    seconds = HistogramMetricFamily(f"{PREFIX}canary_seconds", text, labels=["class"])
    for canary in {canary.class_name: canary for canary in canaries}.values():
        if canary.last is not None:
            up.add_metric([canary.class_name], float(canary.last.outcome == "answered"))
        for outcome in OUTCOMES:
            runs.add_metric([canary.class_name, outcome], canary.outcomes.get(outcome, 0))
        seconds.add_metric([canary.class_name], cumulative(canary.seconds), canary.seconds.sum)
    yield from (up, runs, seconds)
