"""When customers are said to feel an overload, and when not."""

from random import Random

import pytest

from proxy.admission.distribution import Distribution
from proxy.admission.overload import AdaptiveSettings, Cause, Load, Overload, Verdict
from proxy.admission.signals import ClassReading, Sample
from tests.admission.test_distribution import of

SETTINGS = AdaptiveSettings("web", frozenset({"web"}))
HOLD = 0.008


class Watch:
    """Looks every second at a web class whose holds vary as those of real transactions do."""

    def __init__(self, settings: AdaptiveSettings = SETTINGS, per_second: int = 100) -> None:
        self.overload = Overload(settings)
        self.per_second = per_second
        self.at = 0.0
        self._random = Random(1)

    def look(
        self,
        *,
        slower: float = 1.0,
        seconds: float = 1.0,
        holds: Distribution | None = None,
        server_refusals: int = 0,
        canary: tuple[float, ...] = (),
        lock_waits: int | None = None,
        held_back: bool = False,
        **web: object,
    ) -> Verdict:
        self.at += seconds
        drawn = (HOLD * slower * self._random.lognormvariate(0, 0.9) for _ in range(int(self.per_second * seconds)))
        reading = ClassReading("web", 1, 10, 40, **{"used": 5, "holds": holds or of(*drawn), **web})
        sample = Sample(self.at, seconds, (reading,), server_refusals, canary, lock_waits)
        return self.overload.look(sample, held_back=held_back)

    def for_seconds(self, seconds: int, **looks: object) -> Verdict:
        """The last verdict of so many looks."""
        verdicts = [self.look(**looks) for _ in range(seconds)]
        return verdicts[-1]

    def usual(self) -> float:
        return self.overload.hold_time.baseline.usual.typical()


@pytest.fixture
def watch() -> Watch:
    watch = Watch()
    watch.for_seconds(60)
    return watch


def seconds_until(watch: Watch, load: Load, within: int = 100, **looks: object) -> int:
    return next(second for second in range(1, within) if watch.look(**looks).load is load)


def test_a_server_five_times_slower_is_noticed_within_four_seconds(watch):
    assert seconds_until(watch, Load.OVERLOADED, slower=5.0) <= 4


def test_the_verdict_says_what_is_slow_and_what_is_usual(watch):
    verdict = watch.for_seconds(6, slower=5.0)
    assert verdict.cause is Cause.HOLD_TIME
    assert verdict.why.startswith("web holds a slot for ")
    assert verdict.slowdown == pytest.approx(5.0, rel=0.3)


@pytest.mark.parametrize(("per_second", "within"), [(100, 4), (20, 8), (5, 20)])
def test_the_fewer_transactions_the_longer_it_takes_to_be_sure(per_second, within):
    watch = Watch(per_second=per_second)
    watch.for_seconds(200)
    assert seconds_until(watch, Load.OVERLOADED, slower=5.0) <= within


def test_nothing_is_said_of_holds_before_it_is_known_what_is_usual():
    watch = Watch()
    watch.for_seconds(20)
    assert watch.for_seconds(5, slower=9.0).load is Load.CALM


def test_a_single_second_is_no_overload(watch):
    assert watch.look(slower=20.0).load is not Load.OVERLOADED
    assert watch.look().load is not Load.OVERLOADED


def test_a_slowdown_that_nobody_feels_is_none():
    watch = Watch()
    for _ in range(60):
        watch.look(holds=of(*[0.0004] * 100))
    assert watch.for_seconds(10, holds=of(*[0.002] * 100)).load is Load.CALM


def test_between_calm_and_overloaded_nothing_is_to_be_done(watch):
    assert watch.for_seconds(10, slower=1.7).load is Load.UNCLEAR


def test_the_baseline_is_frozen_while_overloaded(watch):
    watch.for_seconds(5, slower=5.0)
    usual = watch.usual()
    watch.for_seconds(100, slower=5.0)
    assert watch.usual() == usual


def test_the_baseline_is_frozen_in_the_band_while_somebody_is_held_back(watch):
    watch.for_seconds(10, slower=1.7, held_back=True)
    usual = watch.usual()
    watch.for_seconds(100, slower=1.7, held_back=True)
    assert watch.usual() == usual


def test_the_baseline_follows_what_slowly_becomes_usual(watch):
    watch.for_seconds(3600, slower=1.4)
    assert watch.usual() > 1.2 * HOLD


def test_an_overload_that_had_become_usual_is_forgotten_within_minutes_of_its_end(watch):
    watch.overload.relearn()
    watch.for_seconds(600, slower=5.0)
    watch.for_seconds(240)
    assert watch.usual() < 2 * HOLD


def test_a_night_without_traffic_makes_nothing_usual(watch):
    usual = watch.usual()
    watch.for_seconds(5000, holds=Distribution())
    assert watch.usual() == pytest.approx(usual, rel=0.1)


def test_a_calm_hour_in_which_nobody_looked_does_not_outweigh_the_seconds_after_it(watch):
    watch.look(seconds=3600.0, holds=of(*[HOLD] * 50000))
    assert seconds_until(watch, Load.OVERLOADED, slower=5.0) <= 4


def test_a_class_that_uses_its_whole_limit_and_gives_nothing_back_is_stalled(watch):
    stalled = {"holds": Distribution(), "used": 40, "waiting": 9}
    verdict = watch.for_seconds(8, **stalled)
    assert (verdict.load, verdict.cause) == (Load.OVERLOADED, Cause.HOLD_TIME)


# Waits


def test_customers_who_wait_below_their_limit_are_an_overload(watch):
    waits = of(*[0.0] * 80, *[0.4] * 20)
    verdict = watch.for_seconds(2, waits=waits)
    assert (verdict.load, verdict.cause) == (Load.OVERLOADED, Cause.QUEUE_WAIT)


def test_customers_who_wait_at_their_own_limit_are_none(watch):
    assert watch.for_seconds(5, used=40, waiting=5, oldest_wait_seconds=1.0).load is Load.CALM


def test_a_paused_class_waits_for_its_switch(watch):
    assert watch.for_seconds(5, running=False, oldest_wait_seconds=9.0).load is Load.CALM


def test_a_few_long_waits_among_many_are_none(watch):
    assert watch.for_seconds(5, waits=of(*[0.0] * 99, 0.4)).load is Load.CALM


def test_one_client_that_goes_on_waiting_is_an_overload(watch):
    assert watch.for_seconds(2, waiting=1, oldest_wait_seconds=0.5).cause is Cause.QUEUE_WAIT


# The server's own words


def test_a_server_that_refuses_connections_is_overloaded(watch):
    assert watch.for_seconds(2, server_refusals=1).cause is Cause.SERVER_REFUSALS


def test_one_refusal_is_none_and_keeps_limits_where_they_are(watch):
    assert watch.look(server_refusals=1).load is Load.UNCLEAR
    assert watch.for_seconds(3).load is Load.CALM


# The canary


def test_two_slow_canaries_in_a_row_are_an_overload(watch):
    for _ in range(10):
        watch.look(canary=(0.002,))
    assert watch.look(canary=(0.4,)).load is Load.UNCLEAR
    watch.look(canary=(0.4,))
    assert watch.look().cause is Cause.CANARY


def test_canaries_that_fail_are_an_overload_until_one_gets_its_answer(watch):
    watch.look(canary=(float("inf"),))
    watch.look(canary=(float("inf"),))
    assert watch.look().load is Load.OVERLOADED
    watch.look(canary=(0.002,))
    assert watch.look(canary=(0.002,)).load is Load.CALM


def test_a_canary_that_may_be_waited_for_is_not_slow_however_many_times_it_is(watch):
    for _ in range(10):
        watch.look(canary=(0.001,))
    assert watch.for_seconds(3, canary=(0.09,)).load is Load.CALM


# Locks


def test_lock_waits_are_a_signal_for_who_observes_only():
    for observes, load in ((True, Load.OVERLOADED), (False, Load.CALM)):
        watch = Watch(AdaptiveSettings("web", frozenset({"web"}), observes=observes))
        assert watch.for_seconds(3, lock_waits=4).load is load


def test_after_a_step_nothing_is_said_until_its_effect_can_be_seen(watch):
    watch.for_seconds(5, slower=5.0)
    watch.overload.ignore_until(watch.at + 10)
    assert watch.for_seconds(10, slower=5.0).load is Load.UNCLEAR
    assert watch.for_seconds(5, slower=5.0).load is Load.OVERLOADED
