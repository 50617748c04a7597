"""What can be said of times of which only the bucket is known."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.admission.distribution import SECONDS, Distribution, Edge, certainly_longer, times_longer


def of(*seconds: float) -> Distribution:
    one = Distribution()
    for value in seconds:
        one.counts[sum(bound < value for bound in SECONDS)] += 1
        one.seconds += value
    return one


def drawn(median: float, sigma: float, count: int = 2000, seed: int = 1) -> Distribution:
    random = Random(seed)
    return of(*(median * math.exp(random.gauss(0, sigma)) for _ in range(count)))


def test_what_was_added_since_an_earlier_reading():
    now, then = of(0.002, 0.02, 0.02), of(0.02)
    since = now.since(then)
    assert (since.count, since.seconds, since.counts) == (2, pytest.approx(0.022), of(0.002, 0.02).counts)


def test_nothing_has_no_length():
    assert (of().median(), of().mean(), of().typical()) == (0.0, 0.0, 0.0)


@given(st.lists(st.floats(0.0001, 1000), min_size=1))
def test_the_median_lies_in_the_bucket_of_the_true_one(times):
    true = sorted(times)[(len(times) - 1) // 2]
    bucket = sum(bound < true for bound in SECONDS)
    low = SECONDS[bucket - 1] if bucket else 0.0
    high = SECONDS[bucket] if bucket < len(SECONDS) else 2 * SECONDS[-1]
    assert low <= of(*times).median() <= high


@given(st.lists(st.floats(0.0003, 500), min_size=1))
def test_what_is_typical_lies_between_the_edges(times):
    one = of(*times)
    true = sum(map(math.log, times)) / len(times)
    assert one.log_mean(Edge.LOWER) - 1e-9 <= true <= one.log_mean(Edge.UPPER) + 1e-9


def test_those_above_are_certainly_above():
    assert of(0.04, 0.06, 0.3, 400.0).count_above(0.1) == 2
    assert of(0.06).count_above(0.07) == 0  # its bucket ends at 0.1


def test_older_times_weigh_less():
    one = of(*[0.003] * 10)
    one.fade(0.1)
    one.add(of(*[0.3] * 3))
    assert one.median() > 0.25 / 2


@pytest.mark.parametrize("sigma", [0.3, 0.8, 1.6])
@pytest.mark.parametrize("times", [1.5, 3.0, 5.0])
def test_how_many_times_longer_is_told_well_enough(sigma, times):
    told = times_longer(drawn(0.008 * times, sigma), drawn(0.008, sigma, seed=2))
    assert times / 1.5 < told < times * 1.5


def test_a_step_over_the_edge_of_a_bucket_is_no_slowdown():
    # 2.45 and 2.55 ms fall into neighbouring buckets: their middles are more than twice apart, and the means are not.
    before, after = of(*[0.00245] * 500), of(*[0.00255] * 500)
    assert times_longer(after, before) > 2
    assert not certainly_longer(after, before, 2.0)


@pytest.mark.parametrize("usual", [0.0006, 0.00245, 0.0026, 0.0049, 0.0051])
def test_five_times_as_long_is_certain_wherever_in_its_bucket_it_lies(usual):
    before, after = of(*[usual] * 50), of(*[5 * usual] * 50)
    assert times_longer(after, before) > 2
    assert certainly_longer(after, before, 2.0)


def test_a_rare_very_long_one_makes_nothing_longer():
    before = of(*[0.01] * 300)
    assert times_longer(of(*[0.01] * 300, 200.0), before) < 1.1
