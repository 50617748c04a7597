"""The event loop of the simulator: nobody gets lost, the same seed gives the same hour, time never stops."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.admission.classes import BudgetSettings, ClassSettings, with_internal_class
from proxy.admission.decisions import Decision
from proxy.admission.simulation.baselines import FifoPools, shared_pool
from proxy.admission.simulation.comparison import POLICIES, compare
from proxy.admission.simulation.durations import Constant, Exponential, Lognormal
from proxy.admission.simulation.engine import FAILED_JOB_PAUSE_SECONDS, Outcome, Simulation
from proxy.admission.simulation.policies import Policy
from proxy.admission.simulation.report import ClassReport, PolicyReport, make_report
from proxy.admission.simulation.traffic import (
    Arrivals,
    Burst,
    ClosedLoop,
    ConstantRate,
    Poisson,
    Retry,
    Source,
    Traffic,
)


def budget(total: int = 50, **of_bulk: int | float) -> BudgetSettings:
    bulk = {"priority": 9, "reserved": 2, "lendable": 1, "limit": total, "queue_max": 2000, "queue_timeout_seconds": 60}
    web = ClassSettings("web", priority=1, reserved=total // 5, lendable=total // 8, limit=total, queue_max=500)
    return with_internal_class(
        BudgetSettings(total, 3, frozenset({"web"}), (web, ClassSettings("bulk", **{**bulk, **of_bulk})))
    )


NOON_IMPORT = Traffic(
    60.0,
    (
        Source("web", "web", Poisson(300), Lognormal(0.008, 0.06)),
        Source("import", "bulk", Burst(20.0, workers=150, jobs=6), Constant(0.2)),
    ),
)


def one_source(arrivals: Arrivals, *, duration: float = 10.0, **fields: object) -> Traffic:
    return Traffic(duration, (Source("jobs", "bulk", arrivals, **{"hold": Constant(1.0), **fields}),))


def outcome_of(policy: Policy, traffic: Traffic, budget_settings: BudgetSettings, seed: int = 1) -> Outcome:
    names = [one.name for one in budget_settings.classes]
    return Simulation(policy, traffic, total=budget_settings.total, class_names=names, seed=seed).run()


def report_of(traffic: Traffic, budget_settings: BudgetSettings, policy: str = "shared FIFO") -> PolicyReport:
    return next(compare(budget_settings, traffic, seed=1, policies=[policy]))


def bulk_of(traffic: Traffic, budget_settings: BudgetSettings, policy: str = "shared FIFO") -> ClassReport:
    return next(one for one in report_of(traffic, budget_settings, policy).classes if one.class_name == "bulk")


@pytest.fixture(scope="module")
def noon() -> dict[str, PolicyReport]:
    return {report.policy: report for report in compare(budget(), NOON_IMPORT, seed=12)}


def class_of(report: PolicyReport, name: str) -> ClassReport:
    return next(one for one in report.classes if one.class_name == name)


# The bad minute


def test_customers_do_not_feel_the_noon_import(noon):
    assert class_of(noon["pgheadroom"], "web").wait_in_burst.p99 < 0.001


def test_a_shared_pool_makes_customers_wait_behind_the_import(noon):
    assert class_of(noon["shared FIFO"], "web").wait.p99 > 100 * class_of(noon["pgheadroom"], "web").wait.p99 + 0.1


def test_the_import_is_done_nearly_as_soon_as_if_no_slot_ever_stood_idle(noon):
    (burst,) = noon["pgheadroom"].bursts
    assert burst.drain_seconds < 1.4 * burst.ideal_drain_seconds


def test_static_pools_take_far_longer_because_slots_of_customers_stand_idle(noon):
    assert (
        class_of(noon["static pools"], "bulk").drain_seconds > 1.5 * class_of(noon["pgheadroom"], "bulk").drain_seconds
    )
    assert noon["static pools"].idle_slots_while_waiting > 1.5 * noon["pgheadroom"].idle_slots_while_waiting


def test_nobody_is_refused_at_noon(noon):
    assert [one.refused + one.left for one in noon["pgheadroom"].classes] == [0, 0]


def test_every_policy_meets_the_same_arrivals_and_the_same_holds():
    traffic = Traffic(30.0, (*NOON_IMPORT.sources[:1], Source("b", "bulk", Burst(2.0, 150, 6), Exponential(0.2))))
    reports = list(compare(budget(), traffic, seed=3))
    work = [[(one.arrived, round(one.mean_slots, 2)) for one in report.classes] for report in reports]
    assert work[0] == work[1] == work[2]


# Nobody gets lost, nothing exceeds the budget

durations = st.one_of(
    st.builds(Constant, st.floats(0.01, 2)),
    st.builds(Exponential, st.floats(0.01, 2)),
    st.builds(Lognormal, st.floats(0.01, 0.2), st.floats(0.2, 2)),
)
arrivals = st.one_of(
    st.builds(Poisson, st.floats(0.5, 50)),
    st.builds(ConstantRate, st.floats(0.5, 50)),
    st.builds(
        Burst,
        st.floats(0, 8),
        workers=st.integers(1, 60),
        jobs=st.integers(1, 4),
        over_seconds=st.sampled_from([0.0, 1.0]),
        every_seconds=st.sampled_from([0.0, 3.0]),
    ),
    st.builds(ClosedLoop, workers=st.integers(1, 30), think=durations),
)


@st.composite
def sources(draw: st.DrawFn, name: str) -> Source:
    declared = draw(arrivals)
    is_open = isinstance(declared, Poisson | ConstantRate)
    return Source(
        name,
        draw(st.sampled_from(["web", "bulk"])),
        declared,
        draw(durations),
        start_seconds=draw(st.sampled_from([0.0, 2.5])),
        stop_seconds=draw(st.sampled_from([6.0, math.inf])),
        clients=draw(st.sampled_from([1, 5, math.inf])) if is_open else math.inf,
        identities=draw(st.integers(1, 3)),
        patience_seconds=draw(st.sampled_from([0.3, 2.0, math.inf])),
        retry=draw(st.sampled_from([Retry(0.0, 1), Retry(0.2, 3), Retry(0.1, 9, at_most_seconds=0.5)])),
    )


@settings(max_examples=60, deadline=None)
@given(
    sources=st.tuples(sources("a"), sources("b"), sources("c")),
    total=st.integers(16, 24),
    queue_max=st.sampled_from([0, 3, 2000]),
    queue_timeout_seconds=st.sampled_from([0.5, 60.0]),
    policy=st.sampled_from(list(POLICIES)),
)
def test_every_job_ends_in_exactly_one_place_and_the_total_holds(
    sources, total, queue_max, queue_timeout_seconds, policy
):
    drawn_budget = budget(total, queue_max=queue_max, queue_timeout_seconds=queue_timeout_seconds)
    report = report_of(Traffic(10.0, sources), drawn_budget, policy)
    for one in report.classes:
        assert one.arrived == one.served + one.refused + one.left + one.still_there
        assert one.wait.count == one.arrived
    assert report.most_in_use <= total
    assert report.utilisation <= 1.0


def test_the_same_seed_gives_the_same_report():
    first, again = (list(compare(budget(), NOON_IMPORT, seed=5)) for _ in range(2))
    assert first == again


def test_another_seed_gives_other_traffic():
    one, other = (next(compare(budget(), NOON_IMPORT, seed=seed)) for seed in (5, 6))
    assert class_of(one, "web").arrived != class_of(other, "web").arrived


def test_a_policy_that_grants_too_much_is_seen():
    """Planted: a pool that believes in more slots than there are."""
    traffic, real = one_source(Burst(0.0, workers=9, jobs=1)), budget(10)
    outcome = outcome_of(shared_pool(budget(20)), one_source(Burst(0.0, workers=30, jobs=1)), real)
    assert outcome.most_in_use == 20
    assert outcome_of(shared_pool(real), traffic, real).most_in_use == 9


def test_a_policy_that_wants_to_be_woken_for_ever_does_not_stop_the_clock():
    class Restless(FifoPools):
        """Planted: asks for the same moment again and again, and decides nothing."""

        def next_wakeup_at(self) -> float | None:
            return 0.0

        def advance(self, now: float) -> Sequence[Decision]:
            return ()

    restless = Restless(budget(), shared_pool(budget())._pool_of)
    with pytest.raises(AssertionError, match="woken for ever"):
        outcome_of(restless, one_source(Burst(0.0, workers=60, jobs=1)), budget())


# What clients do


def test_a_worker_does_one_job_after_the_other():
    bulk = bulk_of(one_source(Burst(1.0, workers=2, jobs=3)), budget())
    assert (bulk.served, bulk.most_slots, bulk.drain_seconds) == (6, 2, 3.0)


def test_a_burst_comes_again_where_it_says_so():
    report = report_of(one_source(Burst(1.0, workers=1, jobs=1, every_seconds=4.0)), budget())
    assert [burst.began_at for burst in report.bursts] == [1.0, 5.0, 9.0]


def test_the_workers_of_a_burst_may_come_one_by_one():
    bulk = bulk_of(one_source(Burst(0.0, workers=4, jobs=1, over_seconds=2.0), hold=Constant(0.75)), budget())
    assert (bulk.most_slots, bulk.drain_seconds) == (2, 2.25)


def test_a_burst_that_is_not_done_at_the_end_has_no_drain_time():
    bulk = bulk_of(one_source(Burst(5.0, workers=1, jobs=9)), budget())
    assert (bulk.drain_seconds, bulk.served, bulk.still_there) == (math.inf, 5, 1)


def test_a_loop_thinks_between_two_jobs():
    traffic = one_source(ClosedLoop(workers=1, think=Constant(1.0)), hold=Constant(0.25))
    assert bulk_of(traffic, budget()).arrived == 8


def test_a_source_stops_when_it_says_so():
    traffic = one_source(ConstantRate(2.0), start_seconds=1.0, stop_seconds=4.0)
    assert bulk_of(traffic, budget()).arrived == 6


def test_the_impatient_leave_the_queue():
    traffic = one_source(Burst(0.0, workers=10, jobs=1), patience_seconds=0.5)
    bulk = bulk_of(traffic, BudgetSettings(4, classes=(ClassSettings("bulk", limit=4),)))
    assert (bulk.served, bulk.left, bulk.wait.max) == (4, 6, 0.5)


def test_who_is_refused_tries_again_later_and_the_wait_counts_from_the_first_time():
    only = ClassSettings("bulk", limit=1, queue_max=0)
    traffic = one_source(Burst(0.0, workers=2, jobs=1), retry=Retry(after_seconds=0.4, attempts=3))
    bulk = bulk_of(traffic, BudgetSettings(1, classes=(only,)))
    assert (bulk.served, bulk.refused, bulk.refusals) == (2, 0, {"queue_full": 2})
    assert bulk.wait.max == pytest.approx(0.4 + 0.8)


def test_who_is_refused_too_often_gives_up():
    only = ClassSettings("bulk", limit=1, queue_max=0)
    traffic = one_source(Burst(0.0, workers=2, jobs=1), hold=Constant(9.0), retry=Retry(after_seconds=1.0, attempts=3))
    bulk = bulk_of(traffic, BudgetSettings(1, classes=(only,)))
    assert (bulk.served, bulk.refused, bulk.refusals) == (1, 1, {"queue_full": 3})


def test_a_worker_whose_job_failed_pauses_before_the_next():
    only = ClassSettings("bulk", limit=1, queue_max=0)
    traffic = one_source(Burst(0.0, workers=2, jobs=50), hold=Constant(100.0), duration=1.0)
    bulk = bulk_of(traffic, BudgetSettings(1, classes=(only,)))
    assert bulk.refused == pytest.approx(1.0 / FAILED_JOB_PAUSE_SECONDS, abs=1)


def test_jobs_wait_inside_the_application_while_its_connections_are_busy():
    traffic = one_source(ConstantRate(2.0), duration=4.0, clients=1)
    bulk = bulk_of(traffic, budget())
    assert (bulk.most_slots, bulk.served, bulk.wait.max) == (1, 4, 2.0)


def test_a_job_in_service_at_the_end_counts_for_the_time_it_had():
    report = report_of(one_source(Burst(8.0, workers=5, jobs=1), hold=Constant(100.0)), budget())
    assert report.utilisation == pytest.approx(5 * 2.0 / (50 * 10.0))


def test_slots_that_stand_idle_while_somebody_waits_are_counted():
    pools = BudgetSettings(10, classes=(ClassSettings("web", limit=5, reserved=5), ClassSettings("bulk", limit=5)))
    report = report_of(one_source(Burst(0.0, workers=6, jobs=1)), pools, "static pools")
    assert (report.idle_slots_while_waiting, report.queued_seconds) == (5.0, 1.0)


def test_sessions_never_hold_lent_slots():
    lent = BudgetSettings(
        10, classes=(ClassSettings("web", limit=10, reserved=8, lendable=8), ClassSettings("bulk", limit=9))
    )
    traffic = one_source(Burst(0.0, workers=9, jobs=1))
    (report,) = compare(lent, traffic, seed=1, unbounded_classes=["bulk"], policies=["pgheadroom"])
    assert class_of(report, "bulk").most_slots == 2


def test_progress_is_told_a_hundred_times():
    told: list[tuple[str, float]] = []
    traffic = one_source(ConstantRate(1.0), duration=50.0)
    list(compare(budget(), traffic, seed=1, policies=["pgheadroom"], progress=lambda *one: told.append(one)))
    assert told == [("pgheadroom", percent / 2) for percent in range(1, 101)]


def test_progress_changes_nothing():
    quiet, told = (next(compare(budget(), NOON_IMPORT, seed=5, progress=one)) for one in (None, lambda *_: None))
    assert quiet.classes == told.classes


def test_classes_without_traffic_are_not_reported():
    outcome = outcome_of(shared_pool(budget()), one_source(ConstantRate(1.0)), budget())
    report = make_report("one", outcome, one_source(ConstantRate(1.0)), 50)
    assert [one.class_name for one in report.classes] == ["bulk"]


def test_clients_are_never_confused_with_each_other():
    """A worker asks again with the same id right after it gave its slot back, while others wait."""
    pools = BudgetSettings(1, classes=(ClassSettings("bulk", limit=1, queue_timeout_seconds=100.0),))
    for policy in POLICIES:
        bulk = bulk_of(one_source(Burst(0.0, workers=3, jobs=3)), pools, policy)
        assert (bulk.served, bulk.drain_seconds) == (9, 9.0), policy


def test_waits_count_as_those_of_a_burst_only_until_it_is_drained():
    steady = Source("steady", "web", ConstantRate(1.0), Constant(0.1))
    import_job = Source("import", "bulk", Burst(2.5, workers=1, jobs=3), Constant(1.0))
    web = class_of(report_of(Traffic(10.0, (steady, import_job)), budget()), "web")
    assert (web.wait.count, web.wait_in_burst.count) == (10, 3)
