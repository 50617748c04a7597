"""Clients that try again, in the simulator: what waiting in vain costs, and what a storm of retries comes to."""

import math

import pytest

from proxy.admission.classes import BudgetSettings, ClassSettings, ConnectSettings
from proxy.admission.lateness import LatenessSettings
from proxy.admission.simulation.comparison import compare
from proxy.admission.simulation.durations import Constant, Duration, Exponential, Lognormal
from proxy.admission.simulation.report import ClassReport
from proxy.admission.simulation.server import ServerModel, SlowTime
from proxy.admission.simulation.traffic import Burst, ClosedLoop, Poisson, Retry, Source, Traffic

AS_CONFIGURED = LatenessSettings(0.25, 1.0, 10.0, 1000, at_once=1, jitter=0.5)
IMMEDIATELY = Retry(0.001, 1_000_000, factor=1.0, reconnects=True)
KNEX = Retry(0.2, 1_000_000, factor=1.0, reconnects=True)
WITH_BACKOFF = Retry(0.1, 1_000_000, at_most_seconds=10.0, jitter=1.0, reconnects=True)


def bulk_of(
    traffic: Traffic, refusals: LatenessSettings | None = None, *, limit: int = 20, **of_class: object
) -> ClassReport:
    bulk = ClassSettings("bulk", limit=limit, **of_class)  # type: ignore[arg-type]
    settings = BudgetSettings(limit, classes=(bulk,))
    [report] = compare(settings, traffic, seed=1, policies=["pgheadroom"], refusals=refusals)
    return report.classes[0]


# Waiting in vain


def overloaded(hold: Duration, refuse_hopeless: bool, identities: int) -> ClassReport:
    """Three times what 20 slots can do, and a queue of 5 seconds."""
    rate = 3 * 20 / hold.mean_seconds()
    source = Source("jobs", "bulk", Poisson(rate), hold, identities=identities)
    return bulk_of(Traffic(60.0, (source,)), queue_max=5000, refuse_hopeless=refuse_hopeless)


@pytest.mark.parametrize("identities", [1, 20])
@pytest.mark.parametrize(
    "hold", [Constant(0.1), Exponential(0.1), Lognormal(0.05, 0.6)], ids=lambda one: type(one).__name__
)
def test_who_would_wait_in_vain_does_not_and_as_much_gets_done(hold: Duration, identities: int) -> None:
    """Over five minutes: 8 to 13 seconds in vain for a hundred before, and the same number of jobs."""
    before, after = overloaded(hold, False, identities), overloaded(hold, True, identities)
    assert after.served > 0.98 * before.served
    assert after.seconds_in_vain < 0.25 * before.seconds_in_vain
    assert after.wait.p50 < 0.1 < 4.9 < before.wait.p50


def test_nobody_is_hopeless_where_all_are_served_in_time() -> None:
    source = Source("import", "bulk", Burst(1.0, workers=150, jobs=6), Exponential(0.2))
    report = bulk_of(Traffic(60.0, (source,)), queue_timeout_seconds=30.0, refuse_hopeless=True)
    assert (report.served, report.refusals) == (900, {})


def test_a_frozen_server_makes_nobody_hopeless() -> None:
    """Frozen for ten seconds: whoever waits is served after it, and asks but once."""
    workers = Source("workers", "bulk", ClosedLoop(200, Exponential(1.0)), Exponential(0.05))
    frozen = ServerModel(slow_times=(SlowTime(10.0, 20.0, 1e9),))
    report = bulk_of(Traffic(60.0, (workers,), frozen), queue_timeout_seconds=20.0, refuse_hopeless=True)
    assert (report.amplification, report.refusals) == (1.0, {})


# Retry storms


def storm(retry: Retry, refusals: LatenessSettings | None, **of_class: object) -> ClassReport:
    """200 workers of one identity that wake together, on a class that serves a hundred a second and queues 20."""
    workers = Source("workers", "bulk", Burst(0.0, workers=200, jobs=20), Constant(0.1), retry=retry)
    return bulk_of(Traffic(60.0, (workers,)), refusals, limit=10, queue_max=20, **of_class)


@pytest.mark.parametrize("retry", [IMMEDIATELY, KNEX, WITH_BACKOFF], ids=["immediately", "knex", "backoff"])
def test_late_answers_bound_what_reaches_the_door(retry: Retry) -> None:
    """Each worker comes at most twice a second, whatever its loop says; the work is done as soon."""
    damped = storm(retry, AS_CONFIGURED)
    assert damped.served == 4000
    assert damped.drain_seconds is not None
    assert damped.drain_seconds < 1.1 * 40
    tries_per_second = damped.amplification * 4000 / damped.drain_seconds
    assert tries_per_second < 2 * 200 + 100


def test_without_them_an_immediate_loop_has_no_bound_but_its_own() -> None:
    loop = Retry(0.01, 1_000_000, factor=1.0, reconnects=True)
    assert storm(loop, None).amplification > 20 * storm(loop, AS_CONFIGURED).amplification


def test_a_bound_on_connects_keeps_them_from_the_queue() -> None:
    bounded = storm(IMMEDIATELY, AS_CONFIGURED, connects=ConnectSettings(identity_rate=50.0, identity_burst=30))
    assert bounded.refusals["rate"] > 0.5 * sum(bounded.refusals.values())
    assert bounded.served == 4000


def test_clients_that_listen_come_when_there_is_room() -> None:
    """retry_after_ms tells each of them another moment, as slots become free."""
    deaf, listening = (storm(Retry(0.2, 1_000_000, 1.0, listens=listens), None) for listens in (False, True))
    assert listening.served == deaf.served == 4000
    assert listening.amplification < 0.5 * deaf.amplification


# The policies of retrying


def test_a_jitter_takes_off_a_part_of_the_pause() -> None:
    retry = Retry(1.0, 9, jitter=0.5)
    assert [retry.pause_seconds(3, drawn) for drawn in (0.0, 0.5, 1.0)] == [4.0, 3.0, 2.0]


def test_who_listens_waits_for_the_longer_of_both() -> None:
    assert [Retry(1.0, 9, listens=True).pause_seconds(1, 0.0, told) for told in (0.2, 7.0)] == [1.0, 7.0]
    assert Retry(1.0, 9).pause_seconds(1, 0.0, 7.0) == 1.0


def test_a_thousand_attempts_are_no_number_too_large() -> None:
    assert Retry(0.1, 5000, at_most_seconds=30.0).pause_seconds(4000) == 30.0
    assert not math.isinf(Retry(0.1, 5000).pause_seconds(4000))


def test_the_same_seed_makes_the_same_storm() -> None:
    assert storm(WITH_BACKOFF, AS_CONFIGURED) == storm(WITH_BACKOFF, AS_CONFIGURED)
