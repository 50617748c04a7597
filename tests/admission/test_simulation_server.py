"""The simulated server: how long work takes beside other work, and while it is slower."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.admission.simulation.comparison import compare
from proxy.admission.simulation.durations import Constant, Exponential
from proxy.admission.simulation.server import Server, ServerModel, SlowTime
from proxy.admission.simulation.traffic import ClosedLoop, Poisson, Source, Traffic
from tests.admission.test_simulation import budget


def done_at(model: ServerModel, *work: tuple[float, float]) -> dict[int, float]:
    """When each piece is done: of (begins, work) pairs, by number."""
    server, done = Server(model), {}
    begins = sorted(enumerate(work), key=lambda one: one[1][0])
    while begins or len(done) < len(work):
        begin_at = begins[0][1][0] if begins else math.inf
        at = server.next_at()
        if at <= begin_at:
            finished = server.take_due(at)
            if finished is not None:
                finished(at)
            continue
        number, (begin, seconds) = begins.pop(0)
        server.begin(seconds, lambda now, number=number: done.__setitem__(number, now), begin)
    return done


def test_work_on_an_ideal_server_takes_as_long_as_declared():
    assert done_at(ServerModel(), (0.0, 2.0), (1.0, 5.0)) == pytest.approx({0: 2.0, 1: 6.0})


def test_more_than_goes_on_at_once_shares_it():
    assert done_at(ServerModel(parallel=2), *[(0.0, 1.0)] * 4) == pytest.approx(dict.fromkeys(range(4), 2.0))


def test_who_is_left_goes_on_faster():
    # Two share one place until the short one is done at 2; the other has 2 of its 3 seconds left then.
    assert done_at(ServerModel(parallel=1), (0.0, 1.0), (0.0, 3.0)) == pytest.approx({0: 2.0, 1: 4.0})


def test_what_is_under_way_when_it_gets_slower_is_slower_from_then_on():
    model = ServerModel(slow_times=(SlowTime(1.0, 6.0, 5.0),))
    assert done_at(model, (0.0, 2.0), (5.5, 1.0), (7.0, 1.0)) == pytest.approx({0: 6.0, 1: 6.9, 2: 8.0})


def test_slow_times_that_overlap_multiply():
    model = ServerModel(slow_times=(SlowTime(0.0, 100.0, 2.0), SlowTime(0.0, 100.0, 3.0)))
    assert done_at(model, (0.0, 1.0)) == pytest.approx({0: 6.0})


@given(
    st.lists(st.tuples(st.floats(0, 20), st.floats(0.01, 5)), min_size=1, max_size=20),
    st.sampled_from([1.0, 3.0, math.inf]),
)
def test_no_work_is_lost_and_none_is_done_too_early(work, parallel):
    done = done_at(ServerModel(parallel, (SlowTime(5.0, 10.0, 4.0),)), *work)
    assert len(done) == len(work)
    assert all(done[number] >= begin + seconds - 1e-6 for number, (begin, seconds) in enumerate(work))


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        (ServerModel(parallel=0), "server.parallel is 0, it must be at least 1"),
        (ServerModel(slow_times=(SlowTime(9.0, 9.0, 2.0),)), "server.slow: to (9.0 s) is not after from (9.0 s)"),
        (ServerModel(slow_times=(SlowTime(0.0, 9.0, 0.0),)), "server.slow: slower is 0.0, it must be above 0"),
    ],
)
def test_what_cannot_be_is_said(model, problem):
    traffic = Traffic(10.0, (Source("a", "bulk", Poisson(1.0), Constant(1.0)),), model)
    assert traffic.validate(["bulk"]) == [problem]


def test_the_slots_in_use_are_those_that_the_server_keeps_busy():
    # 10 places for work that would use 8 alone: at twice the time it uses 16, and the server does no more than before.
    sources = (Source("a", "bulk", ClosedLoop(16), Exponential(0.5)),)
    reports = {
        parallel: next(
            compare(budget(), Traffic(400.0, sources, ServerModel(parallel)), seed=1, policies=["pgheadroom"])
        )
        for parallel in (8.0, math.inf)
    }
    served = {parallel: report.classes[0].served_per_second for parallel, report in reports.items()}
    assert served[8.0] == pytest.approx(served[math.inf] / 2, rel=0.05)
    assert reports[8.0].classes[0].mean_slots == pytest.approx(16, rel=0.01)
