"""Adaptive limits in simulated traffic: what they do on a bad day, and that they do nothing on a good one."""

import itertools
import math
from collections.abc import Sequence
from random import Random

import pytest

from proxy.admission.adaptive import AdaptiveSettings, Direction
from proxy.admission.classes import BudgetSettings, ClassSettings, ClientId, with_internal_class
from proxy.admission.decisions import Decision
from proxy.admission.simulation.adaptive_policy import AdaptivePolicy, TimedStep
from proxy.admission.simulation.durations import Constant, Exponential, Lognormal
from proxy.admission.simulation.engine import Simulation
from proxy.admission.simulation.server import ServerModel, SlowTime
from proxy.admission.simulation.traffic import Burst, ClosedLoop, Poisson, Source, Traffic

WEB = ClassSettings("web", priority=1, reserved=20, lendable=10, limit=50, queue_max=500)
BULK = ClassSettings("bulk", priority=9, reserved=2, lendable=1, limit=40, queue_max=2000, queue_timeout_seconds=60)
BUDGET = with_internal_class(BudgetSettings(50, 3, frozenset({"web"}), (WEB, BULK)))
ADAPTIVE = AdaptiveSettings("web", frozenset({"web"}))

CUSTOMERS = Source("web", "web", Poisson(100), Lognormal(0.008, 0.06))
IMPORT = Source("import", "bulk", ClosedLoop(60), Exponential(0.3))

# Slow between these; the last ones to be served then were asked for before.
BEGINS, ENDS = 100.0, 160.0


class Timed(AdaptivePolicy):
    """Notes what each job took from the slot to its end: what the server made of it."""

    def __init__(self, adaptive: AdaptiveSettings = ADAPTIVE) -> None:
        super().__init__(BUDGET, adaptive)
        self.took: list[tuple[str, float, float]] = []

    def release(self, client: ClientId, now: float) -> Sequence[Decision]:
        class_name, since = self._granted[client]
        self.took.append((class_name, now, now - since))
        return super().release(client, now)

    def p99(self, begin: float, end: float, class_name: str = "web") -> float:
        times = sorted(took for name, at, took in self.took if name == class_name and begin <= at < end)
        return times[math.ceil(0.99 * len(times)) - 1]

    def served_per_second(self, begin: float, end: float, class_name: str = "bulk") -> float:
        return sum(name == class_name and begin <= at < end for name, at, _ in self.took) / (end - begin)

    def limit_at(self, at: float) -> int:
        before = [timed.step.limit for timed in self.steps if timed.at_seconds <= at]
        return before[-1] if before else BULK.limit


def simulated(traffic: Traffic, seed: int, adaptive: AdaptiveSettings = ADAPTIVE) -> Timed:
    policy = Timed(adaptive)
    Simulation(policy, traffic, total=BUDGET.total, class_names=[one.name for one in BUDGET.classes], seed=seed).run()
    return policy


def reversals(steps: Sequence[TimedStep]) -> int:
    directions = [timed.step.direction for timed in steps]
    return sum(one is not other for one, other in itertools.pairwise(directions))


def slow_minute(*sources: Source, parallel: float = 16) -> Traffic:
    return Traffic(300.0, sources, ServerModel(parallel, (SlowTime(BEGINS, ENDS, 5.0),)))


@pytest.fixture(scope="module", params=[1, 2, 3])
def slow(request) -> Timed:
    return simulated(slow_minute(CUSTOMERS, IMPORT), request.param)


def slowed_baseline(seed: int = 1) -> float:
    """p99 of customers on the slow server, with nobody else on it."""
    return simulated(slow_minute(CUSTOMERS), seed).p99(BEGINS + 5, ENDS)


def test_bulk_shrinks_within_five_seconds_of_a_slow_server(slow):
    assert slow.limit_at(BEGINS + 5) <= BULK.limit / 2
    assert all(timed.at_seconds > BEGINS for timed in slow.steps)


def test_customers_on_the_slow_server_wait_at_most_twice_as_long_as_if_they_were_alone(slow):
    assert slow.p99(BEGINS + 5, ENDS) <= 2 * slowed_baseline()


def test_without_adaptive_limits_they_wait_longer_than_that():
    observing = simulated(slow_minute(CUSTOMERS, IMPORT), 1, AdaptiveSettings("web", frozenset({"web"}), observes=True))
    assert observing.p99(BEGINS + 5, ENDS) > 2 * slowed_baseline()
    assert observing.steps


def test_bulk_has_its_limit_back_within_a_minute_and_its_rate(slow):
    assert slow.limit_at(ENDS + 60) == BULK.limit
    before, after = slow.served_per_second(40, BEGINS), slow.served_per_second(ENDS + 60, 300)
    assert after == pytest.approx(before, rel=0.15)


def test_there_are_at_most_three_reversals(slow):
    assert reversals(slow.steps) <= 3


def test_a_server_that_stays_slow_does_not_keep_bulk_down_for_ever():
    traffic = Traffic(900.0, (CUSTOMERS, IMPORT), ServerModel(16, (SlowTime(BEGINS, 900.0, 6.0),)))
    policy = simulated(traffic, 1)
    assert policy.limit_at(200) <= 2
    assert policy.limit_at(880) > 10


@pytest.mark.parametrize("seed", range(2))
def test_a_server_that_bulk_alone_makes_too_slow_is_probed_ever_more_rarely(seed):
    """Bulk comes on a quiet server, and is too much for it: no limit is right for long, and few steps are made."""
    late = Source("import", "bulk", ClosedLoop(60), Exponential(0.3), start_seconds=200.0)
    policy = simulated(Traffic(1200.0, (CUSTOMERS, late), ServerModel(6)), seed)
    assert policy.steps[0].at_seconds < 206
    half = [timed for timed in policy.steps if timed.at_seconds > 700]
    assert reversals(half) <= 6
    alone = simulated(Traffic(200.0, (CUSTOMERS,), ServerModel(6)), seed).p99(60, 200)
    assert policy.p99(700, 1200) < 5 * alone


# Days on which nothing is wrong


def test_a_burst_of_long_bulk_queries_that_customers_do_not_feel_is_no_reason():
    burst = Source("import", "bulk", Burst(60.0, workers=150, jobs=3, every_seconds=200.0), Lognormal(10.0, 60.0))
    assert simulated(Traffic(900.0, (CUSTOMERS, burst)), 1).steps == ()


def drawn_traffic(random: Random) -> Traffic:
    """Customers whose transactions are short or long and vary little or wildly, and some bulk work beside them."""
    median = 10 ** random.uniform(-3.3, -1)
    rate = min(10 ** random.uniform(-0.3, 0.9), 8 / (4 * median))
    web = Source("web", "web", Poisson(rate), Lognormal(median, median * 10 ** random.uniform(0.1, 1.8)))
    pages = Source("pages", "web", Poisson(rate / 20), Lognormal(median * 20, median * 100))
    workers = random.randint(1, 60)
    work = random.choice([ClosedLoop(workers, Exponential(4.0)), Burst(300.0, workers, 3, every_seconds=900.0)])
    bulk = Source("bulk", "bulk", work, random.choice([Exponential(3.0), Constant(0.5), Lognormal(5.0, 60.0)]))
    return Traffic(1200.0, (web, pages, bulk))


def test_eight_drawn_hours_of_health_hold_no_false_alarm():
    random = Random(24)
    alarms = [simulated(drawn_traffic(random), seed).steps for seed in range(24)]
    assert [len(steps) for steps in alarms] == [0] * 24


def test_the_same_traffic_on_a_server_that_becomes_slow_has_alarms():
    """The hours above could have had one: it comes wherever enough is asked to tell, and bulk is there to be cut."""
    random = Random(24)
    noticed = 0
    for seed in range(12):
        traffic = drawn_traffic(random)
        slow = ServerModel(slow_times=(SlowTime(400.0, 600.0, 6.0),))
        steps = simulated(Traffic(610.0, traffic.sources, slow), seed).steps
        noticed += any(timed.step.direction is Direction.CUT and 400 < timed.at_seconds < 600 for timed in steps)
    assert noticed >= 4
