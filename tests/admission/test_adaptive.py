"""The steps of adaptive limits, one by one: whom they cut, by how much, when they give back."""

import pytest

from proxy.admission.adaptive import RELEARN_AFTER_SECONDS, AdaptiveControl, AdaptiveSettings, Cause, Direction, Step
from proxy.admission.adaptive_run import AWAKE_SECONDS, AdaptiveRun
from proxy.admission.classes import BudgetSettings, ClassSettings, ClassState, ClientId, with_internal_class
from proxy.admission.controller import Controller
from proxy.admission.signals import ClassReading, Sample
from proxy.admission.simulation.adaptive_policy import SimulatedMeters
from tests.admission.adaptive_script import times

SETTINGS = AdaptiveSettings("web", frozenset({"web"}))


class Seconds:
    """A control that looks every second at web, batch (priority 5) and bulk (priority 9)."""

    def __init__(self, settings: AdaptiveSettings = SETTINGS) -> None:
        self.control = AdaptiveControl(settings)
        self.at = 0.0
        self.limits = {"batch": 20, "bulk": 40}
        self.used = {"batch": 20, "bulk": 40}
        self.waiting = {"batch": 3, "bulk": 3}
        self.bulk_hold_seconds = 0.3
        self.web_hold_seconds = 0.008

    def look(self, *, refusals: int = 0) -> list[Step]:
        self.at += 1.0
        web = ClassReading("web", 1, 10, 40, used=5, holds=times(self.web_hold_seconds, 100))
        batch, bulk = (
            ClassReading(
                name,
                priority,
                floor,
                self.limits[name],
                used=min(self.used[name], self.control.limits.get(name, 99)),
                waiting=self.waiting[name],
                holds=times(self.bulk_hold_seconds, 10),
            )
            for name, priority, floor in (("batch", 5, 2), ("bulk", 9, 1))
        )
        return [
            one
            for one in self.control.look(Sample(self.at, 1.0, (web, batch, bulk), refusals))
            if isinstance(one, Step)
        ]

    def steps(self, seconds: int, *, refusals: int = 0) -> list[Step]:
        return [step for _ in range(seconds) for step in self.look(refusals=refusals)]

    def overload(self, seconds: int) -> list[Step]:
        return self.steps(seconds, refusals=2)


def cuts(steps: list[Step]) -> list[tuple[str, int, int]]:
    return [(one.class_name, one.was, one.limit) for one in steps if one.direction is Direction.CUT]


@pytest.fixture
def seconds() -> Seconds:
    seconds = Seconds()
    seconds.steps(60)
    return seconds


def test_while_all_is_well_nothing_changes(seconds):
    assert seconds.steps(200) == []


def test_the_least_important_class_is_halved_and_halved_again_down_to_its_floor(seconds):
    assert cuts(seconds.overload(15)) == [
        ("bulk", 40, 20),
        ("bulk", 20, 10),
        ("bulk", 10, 5),
        ("bulk", 5, 3),
        ("bulk", 3, 2),
        ("bulk", 2, 1),
        ("batch", 20, 11),
    ]


def test_a_step_says_why(seconds):
    (step,) = seconds.overload(2)
    assert (step.cause, step.configured) == (Cause.SERVER_REFUSALS, 40)
    assert "refused 4 connections" in step.why


def test_the_worse_it_is_the_deeper_the_cut():
    limits = {}
    for slower in (2.5, 30.0):
        seconds = Seconds()
        seconds.steps(60)
        seconds.web_hold_seconds = 0.008 * slower
        limits[slower] = seconds.steps(5)[0].limit
    assert 1 + 39 * 0.3 - 1 <= limits[30.0] <= 1 + 39 * 0.3 < limits[2.5] <= 1 + 39 * 0.7


def test_what_a_class_does_not_use_is_cut_with_it(seconds):
    seconds.used["bulk"] = 9
    seconds.steps(5)
    assert cuts(seconds.overload(2)) == [("bulk", 40, 5)]


def test_a_class_that_uses_no_more_than_its_floor_is_passed_over(seconds):
    seconds.used["bulk"] = 1
    seconds.steps(5)
    assert cuts(seconds.overload(2)) == [("batch", 20, 11)]


def test_there_is_one_cut_per_median_hold():
    seconds = Seconds()
    seconds.bulk_hold_seconds = 20.0
    seconds.steps(60)
    assert cuts(seconds.overload(15)) == [("bulk", 40, 20)]
    assert cuts(seconds.overload(15)) == [("bulk", 20, 10)]


def test_limits_come_back_in_the_reverse_order_of_the_cuts(seconds):
    seconds.overload(16)
    raised = [step.class_name for step in seconds.steps(120)]
    assert raised == ["batch"] * raised.count("batch") + ["bulk"] * raised.count("bulk")
    assert seconds.control.limits == {}


def test_what_is_given_back_comes_in_equal_steps(seconds):
    seconds.overload(2)
    assert [(step.was, step.limit) for step in seconds.steps(40)] == [(20, 25), (25, 30), (30, 35), (35, 40)]


def test_a_limit_that_nobody_needs_is_not_raised(seconds):
    seconds.overload(2)
    seconds.waiting["bulk"] = 0
    assert seconds.steps(100) == []
    seconds.waiting["bulk"] = 1
    assert seconds.steps(5)[0].direction is Direction.RAISE


def test_a_class_that_needs_nothing_does_not_keep_the_others_from_theirs(seconds):
    seconds.overload(16)
    seconds.waiting["batch"] = 0
    assert {step.class_name for step in seconds.steps(120)} == {"bulk"}
    assert list(seconds.control.limits) == ["batch"]


def test_each_raise_that_was_too_much_makes_the_next_ones_rarer(seconds):
    pauses = []
    for _ in range(4):
        assert [step.direction for step in seconds.overload(2)] == [Direction.CUT]
        began = seconds.at
        while not seconds.look():
            pass
        pauses.append(seconds.at - began)
    assert pauses[0] < pauses[1] < pauses[2] < pauses[3]
    assert pauses[3] > 20


def test_where_nothing_is_left_to_cut_what_is_becomes_usual_after_minutes(seconds):
    seconds.web_hold_seconds = 0.08
    seconds.steps(60)
    assert seconds.control.limits == {"bulk": 1, "batch": 2}
    seconds.steps(int(RELEARN_AFTER_SECONDS) + 120)
    assert seconds.control.limits == {}
    assert seconds.control.usual_hold_seconds == pytest.approx(0.08, rel=0.5)


def test_a_limit_lowered_by_a_reload_below_the_adaptive_one_is_the_operators(seconds):
    seconds.overload(2)
    seconds.limits["bulk"] = 15
    seconds.look()
    assert seconds.control.limits == {}


# On a controller


def budget() -> BudgetSettings:
    web = ClassSettings("web", priority=1, reserved=10, lendable=5, limit=30)
    return with_internal_class(BudgetSettings(40, 0, frozenset(), (web, ClassSettings("bulk", priority=9, limit=30))))


class RefusingServer(SimulatedMeters):
    def __init__(self) -> None:
        super().__init__(["web", "bulk", "internal"])
        self.refusals = 0

    def server_refusals(self) -> int:
        return self.refusals


class Running:
    """A controller with a full bulk class, and its adaptive limits."""

    def __init__(self, *, observes: bool) -> None:
        self.controller = Controller(budget(), now=0.0)
        self.meters = RefusingServer()
        self.run = AdaptiveRun(
            self.controller, AdaptiveSettings("web", frozenset({"web"}), observes=observes), self.meters, now=0.0
        )
        for client in range(40):
            self.controller.request(ClientId(client), "bulk", flow=client, now=0.0)
        self.at = 0.0

    def overload(self, seconds: int) -> list[object]:
        events: list[object] = []
        for _ in range(seconds):
            self.at += 1.0
            self.meters.refusals += 2
            events += self.run.look(self.at)[0]
        return events

    def limit(self) -> int:
        return self.controller.snapshot(self.at).of_class("bulk").limit


def test_on_the_controller_has_the_limits_that_the_control_wants():
    running = Running(observes=False)
    assert running.overload(3)
    assert running.limit() == running.run.control.limits["bulk"] < 30


def test_observing_changes_nothing_and_says_what_it_would_do():
    running = Running(observes=True)
    before = running.controller.snapshot(30.0)
    assert running.overload(30)
    assert running.run.control.limits["bulk"] == 1
    assert running.controller.snapshot(30.0) == before


def test_lifted_limits_serve_at_once_who_waited_for_them():
    running = Running(observes=False)
    running.overload(3)
    for client in range(20):
        running.controller.release(ClientId(client), running.at)
    assert running.controller.snapshot(running.at).of_class("bulk").waiting == 5
    assert len(running.run.lift(running.at)) == 5
    assert running.limit() == 30


def test_nobody_looks_closely_where_nobody_waits_or_borrows():
    running = Running(observes=False)
    for client in range(40):
        running.controller.leave(ClientId(client), 0.0)
    for client in range(30):
        running.controller.release(ClientId(client), 0.0)
    running.overload(int(AWAKE_SECONDS) + 1)
    reads = []
    running.meters.holds = reads.append
    running.overload(20)
    assert reads == []


def test_a_paused_class_is_neither_cut_nor_raised():
    running = Running(observes=False)
    running.controller.set_state("bulk", ClassState.PAUSED, 0.0)
    assert running.overload(10) == []
