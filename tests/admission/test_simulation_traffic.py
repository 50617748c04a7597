"""Declared traffic: what is drawn, and what is wrong with a declaration."""

import math
from itertools import islice
from random import Random
from statistics import mean, median

import pytest

from proxy.admission.simulation.durations import Constant, Exponential, Lognormal
from proxy.admission.simulation.report import expected_slots, ideal_drain_seconds
from proxy.admission.simulation.streams import burst_times, open_arrivals, worker_draws
from proxy.admission.simulation.tally import WaitSamples, summary
from proxy.admission.simulation.traffic import Burst, ClosedLoop, ConstantRate, Poisson, Retry, Source, Traffic

HOLD = Constant(0.5)


def drawn(duration: Exponential | Lognormal, count: int = 40_000) -> list[float]:
    draw = duration.drawn_from(Random(1))
    return sorted(draw() for _ in range(count))


def test_a_lognormal_has_the_median_and_the_p99_it_declares():
    values = drawn(Lognormal(0.010, 0.080))
    assert median(values) == pytest.approx(0.010, rel=0.03)
    assert values[int(len(values) * 0.99)] == pytest.approx(0.080, rel=0.08)


@pytest.mark.parametrize("duration", [Exponential(0.2), Lognormal(0.1, 0.4)])
def test_the_mean_of_many_draws_is_the_mean_of_the_distribution(duration):
    assert mean(drawn(duration)) == pytest.approx(duration.mean_seconds(), rel=0.03)


def test_poisson_arrivals_have_their_rate():
    traffic = Traffic(1000.0, (Source("web", "web", Poisson(20.0), HOLD),))
    assert len(list(open_arrivals(traffic, seed=1))) == pytest.approx(20_000, rel=0.03)


def test_arrivals_of_all_sources_come_in_order_of_time():
    web, mail = Source("web", "web", Poisson(20.0), HOLD), Source("mail", "web", ConstantRate(7.0), HOLD)
    times = [at for at, _, _ in open_arrivals(Traffic(30.0, (web, mail)), seed=1)]
    assert times == sorted(times)


def test_a_source_more_does_not_change_the_draws_of_the_others():
    web, mail = Source("web", "web", Poisson(20.0), Exponential(1.0)), Source("mail", "web", Poisson(7.0), HOLD)
    alone = list(open_arrivals(Traffic(30.0, (web,)), seed=1))
    together = [one for one in open_arrivals(Traffic(30.0, (web, mail)), seed=1) if one[1] == 0]
    assert alone == together


def test_each_worker_has_draws_of_its_own():
    source = Source("import", "bulk", Burst(0.0, 2, 3), Exponential(1.0))
    rows = [worker_draws(1, source, HOLD, burst, worker)[0]() for burst in (0, 1) for worker in (0, 1)]
    assert len(set(rows)) == 4


def test_evenly_spaced_arrivals_do_not_drift():
    source = Source("cron", "bulk", ConstantRate(3.0), HOLD, start_seconds=1.0)
    times = [at for at, _, _ in islice(open_arrivals(Traffic(1e9, (source,)), seed=1), 3000, 3001)]
    assert times == [1001.0]


def test_bursts_come_between_start_and_stop_only():
    burst = Burst(1.0, 1, 1, every_seconds=10.0)
    source = Source("import", "bulk", burst, HOLD, start_seconds=5.0, stop_seconds=31.0)
    assert burst_times(source, burst, 100.0) == [11.0, 21.0]


def test_a_burst_after_the_end_never_comes():
    burst = Burst(50.0, 1, 1, every_seconds=10.0)
    assert burst_times(Source("import", "bulk", burst, HOLD), burst, 30.0) == []


def test_backing_off_doubles_up_to_its_bound():
    retry = Retry(0.5, attempts=9, at_most_seconds=3.0)
    assert [retry.pause_seconds(made) for made in (1, 2, 3, 4, 5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


# Summaries


def test_percentiles_are_waits_that_somebody_had():
    samples = WaitSamples()
    for wait in range(100):
        samples.add(float(wait))
    told = summary(samples)
    assert (told.p50, told.p95, told.p99, told.max, told.mean) == (49.0, 94.0, 98.0, 99.0, 49.5)


def test_waits_of_nothing_count():
    samples = WaitSamples()
    for wait in [0.0] * 98 + [3.0, 4.0]:
        samples.add(wait)
    told = summary(samples)
    assert (told.count, told.p95, told.p99, told.max) == (100, 0.0, 3.0, 4.0)


def test_a_summary_of_nothing_is_zero():
    assert summary(WaitSamples()).max == 0.0


def test_what_a_source_needs_on_average():
    needs = [
        expected_slots(Source("one", "web", arrivals, HOLD))
        for arrivals in (Poisson(10.0), ClosedLoop(6, Constant(1.0)), Burst(0.0, 5, 5))
    ]
    assert needs == [5.0, 2.0, 0.0]


def test_the_ideal_drain_spreads_the_work_over_what_the_others_leave():
    web, burst = Source("web", "web", Poisson(20.0), HOLD), Source("import", "bulk", Burst(0.0, 100, 4), HOLD)
    assert ideal_drain_seconds(burst, Traffic(60.0, (web, burst)), total=50) == 100 * 4 * 0.5 / 40


def test_no_drain_is_shorter_than_the_work_of_one_worker():
    burst = Source("import", "bulk", Burst(0.0, 2, 10, over_seconds=1.0), HOLD)
    assert ideal_drain_seconds(burst, Traffic(60.0, (burst,)), total=50) == 6.0


# Mistakes


def test_a_declaration_that_holds_has_no_problems():
    assert Traffic(60.0, (Source("web", "web", Poisson(20.0), HOLD),)).validate(["web"]) == []


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (Source("a", "wbe", Poisson(1.0), HOLD), 'class "wbe" is not configured; classes are: web, bulk'),
        (Source("a", "web", Poisson(0.0), HOLD), "arrivals: 0.0 per second"),
        (Source("a", "web", Burst(0.0, 0, 1), HOLD), "burst.workers is 0"),
        (Source("a", "web", ClosedLoop(0), HOLD), "closed.workers is 0"),
        (Source("a", "web", ClosedLoop(1, Constant(-1.0)), HOLD), "think: constant is -1.0 s"),
        (Source("a", "web", ClosedLoop(1), Constant(0.0)), "endless work in no time"),
        (Source("a", "web", Poisson(1.0), Lognormal(0.0, 1.0)), "lognormal.median is 0.0 s"),
        (Source("a", "web", Poisson(1.0), Lognormal(2.0, 1.0)), "below its median"),
        (Source("a", "web", Poisson(1.0), Exponential(0.0)), "exponential.mean is 0.0 s"),
        (Source("a", "web", Poisson(1.0), HOLD, start_seconds=3.0, stop_seconds=2.0), "stop is not after start"),
        (Source("a", "web", Poisson(1.0), HOLD, clients=0), "clients is 0"),
        (Source("a", "web", ClosedLoop(1), HOLD, clients=4), "workers are clients"),
        (Source("a", "web", Poisson(1.0), HOLD, retry=Retry(0.0, 3)), "retry: after is 0.0 s"),
    ],
)
def test_what_cannot_be_simulated_is_said_in_words(source, words):
    (problem,) = Traffic(60.0, (source,)).validate(["web", "bulk"])
    assert problem.startswith("sources.a: ")
    assert words in problem


def test_traffic_without_an_end_is_refused():
    assert Traffic(math.inf, (Source("a", "web", Poisson(1.0), HOLD),)).validate(["web"])
