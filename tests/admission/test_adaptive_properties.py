"""Adaptive limits over drawn hours: every rule holds, and a control with any one rule broken is caught."""

import math
from collections.abc import Callable

import pytest

from proxy.admission import adaptive, overload
from proxy.admission.adaptive import AdaptiveControl, Direction
from proxy.admission.signals import ClassReading, Sample
from tests.admission.adaptive_script import Script

SEEDS = range(40)


def complaints() -> list[str]:
    return [f"seed {seed}: {one}" for seed in SEEDS for one in Script(seed).run().complaints]


def test_every_rule_holds_in_drawn_hours():
    assert complaints() == []


def test_the_drawn_hours_hold_cuts_and_raises_of_every_cause_and_of_several_classes():
    steps = [step for seed in SEEDS for _, step in Script(seed).run().steps]
    assert {one.cause.value for one in steps} >= {"hold_time", "server_refusals", "queue_wait", "canary", "recovered"}
    assert {one.class_name for one in steps} >= {"bulk0", "bulk1", "bulk2"}
    assert sum(one.direction is Direction.RAISE for one in steps) > 50


def never_settles(self: AdaptiveControl, until: float) -> None:
    self._overload.ignore_until(-math.inf)
    for course in self._courses.values():
        course.wanted.clear()


def always_learns(self: overload.HoldTime, sample: Sample, *, is_frozen: bool) -> None:
    original_learn(self, sample, is_frozen=False)


def most_important_first(self: AdaptiveControl, sample: Sample) -> ClassReading | None:
    return min(above_floor(self, sample, important_than=1), key=lambda one: one.priority, default=None)


def anybody(self: AdaptiveControl, sample: Sample) -> ClassReading | None:
    return min(above_floor(self, sample, important_than=-1), key=lambda one: one.priority, default=None)


def above_floor(control: AdaptiveControl, sample: Sample, *, important_than: int) -> list[ClassReading]:
    return [
        one
        for one in sample.classes
        if one.priority > important_than and one.running and control._courses[one.name].takes(one) > one.floor
    ]


def first_cut_first(self: AdaptiveControl, sample: Sample) -> ClassReading | None:
    for name in self._cut_order:
        if self._courses[name].needs_more():
            return sample.of_class(name)
    return None


original_learn = overload.HoldTime.learn

BUGS: dict[str, tuple[object, str, Callable[..., object]]] = {
    "cuts below the floor": (adaptive, "cut_to", lambda floor, takes, left: math.floor((takes - 1) * left)),
    "raises above what is configured": (adaptive, "raised_to", lambda floor, limit, configured: limit + 5),
    "raises nothing": (adaptive, "raised_to", lambda floor, limit, configured: limit),
    "cuts again before the effect can be seen": (AdaptiveControl, "_settle", never_settles),
    "raises what nobody needs": (adaptive._Course, "needs_more", lambda self: True),
    "raises in the order of cutting": (AdaptiveControl, "_last_cut_that_needs_more", first_cut_first),
    "cuts the more important one": (AdaptiveControl, "_least_important_above_its_floor", most_important_first),
    "cuts customers": (AdaptiveControl, "_least_important_above_its_floor", anybody),
    "learns from the overload": (overload.HoldTime, "learn", always_learns),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_control_with_a_rule_broken_is_caught(bug, monkeypatch):
    where, name, broken = BUGS[bug]
    monkeypatch.setattr(where, name, broken)
    assert any(Script(seed).run().complaints for seed in SEEDS)
