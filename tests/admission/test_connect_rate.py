"""Who may connect how often, and which connects count."""

from collections.abc import Hashable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.admission import connect_rate
from proxy.admission.classes import BudgetSettings, ClassSettings, ClientId, ConnectSettings
from proxy.admission.connect_rate import Bucket, ConnectRate
from proxy.admission.controller import Controller
from proxy.admission.decisions import RefusalReason
from tests.admission.crowd import budget, look


def settings_of(connects: ConnectSettings, other: ConnectSettings | None = None) -> BudgetSettings:
    classes = [ClassSettings("bulk", limit=4, connects=connects)]
    classes.append(ClassSettings("web", limit=4, **({} if other is None else {"connects": other})))
    return budget(8, *classes)


def of_identity(rate: float, burst: int) -> ConnectSettings:
    return ConnectSettings(identity_rate=rate, identity_burst=burst)


def let_in(rate: ConnectRate, count: int, *, name: str = "bulk", identity: Hashable = "one", now: float = 0.0) -> int:
    """How many of so many connects at one moment are let in. All of them come to nothing."""
    found = 0
    for _ in range(count):
        if rate.connected(name, identity, now) is None:
            rate.came_to_nothing(name, identity, now)
            found += 1
    return found


def test_without_a_rate_nobody_is_refused_and_nothing_is_remembered() -> None:
    rate = ConnectRate(settings_of(ConnectSettings()))
    assert (let_in(rate, 5000), len(rate)) == (5000, 0)


def test_a_pool_may_open_at_once_and_then_as_many_as_the_rate_says() -> None:
    rate = ConnectRate(settings_of(of_identity(10.0, 100)))
    assert [let_in(rate, 150, now=now) for now in (0.0, 0.0, 1.0, 100.0)] == [100, 0, 10, 100]


def test_a_refused_connect_takes_nothing_so_that_a_storm_cannot_shut_everybody_out() -> None:
    rate = ConnectRate(settings_of(of_identity(8.0, 1)))
    assert [let_in(rate, 1000, now=now / 8) for now in range(5)] == [1, 1, 1, 1, 1]


def test_who_is_served_or_stays_takes_nothing() -> None:
    """A script that connects for each query is no storm, nor are thousands of runs that connect and sleep."""
    rate = ConnectRate(settings_of(ConnectSettings(0.001, 5, 0.001, 3)))
    assert [rate.connected("bulk", "script", 0.0) for _ in range(1000)] == [None] * 1000
    assert let_in(rate, 10, identity="script") == 3


def test_a_fleet_behind_one_address_comes_in_whole_and_comes_back_in_turns_with_the_defaults() -> None:
    """Of 2000 workers that start at once 500 wait, and the others die of the full queue and are started again."""
    rate = ConnectRate(settings_of(of_identity(100.0, 1000)))
    assert {rate.connected("bulk", "fleet", 0.0) for _ in range(2000)} == {None}
    for _ in range(1500):
        rate.came_to_nothing("bulk", "fleet", 0.0)
    told = [refusal for _ in range(1500) if (refusal := rate.connected("bulk", "fleet", 0.0)) is not None]
    assert len(told) == 1500
    assert max(one.retry_after_ms for one in told) == pytest.approx(15_000, rel=0.05)
    assert let_in(rate, 1500, identity="fleet", now=10.0) == 1000


def test_many_that_come_to_nothing_at_once_leave_no_debt() -> None:
    rate = ConnectRate(settings_of(of_identity(1.0, 3)))
    for _ in range(50):
        rate.came_to_nothing("bulk", "one", 0.0)
    assert [let_in(rate, 10, now=now) for now in (0.0, 1.0, 2.0)] == [0, 1, 1]


def test_identities_do_not_take_from_each_other_but_share_the_bucket_of_their_class() -> None:
    rate = ConnectRate(settings_of(ConnectSettings(1.0, 5, 1.0, 3), of_identity(1.0, 3)))
    assert [let_in(rate, 9, identity=name) for name in ("a", "b", "c")] == [3, 2, 0]
    assert let_in(rate, 9, name="web", identity="a") == 3


def test_who_is_refused_for_its_class_keeps_the_token_of_its_identity() -> None:
    rate = ConnectRate(settings_of(ConnectSettings(1.0, 1, 0.001, 2)))
    assert [let_in(rate, 9, identity=name) for name in ("other", "one")] == [1, 0]
    assert [let_in(rate, 1, now=now) for now in (1.0, 2.0, 3.0)] == [1, 1, 0]


def test_it_is_told_which_bucket_decides() -> None:
    rate = ConnectRate(settings_of(ConnectSettings(1.0, 2, 1.0, 1)))
    let_in(rate, 1, identity="a")
    by_identity = rate.connected("bulk", "a", 0.0)
    let_in(rate, 1, identity="b")
    by_class = rate.connected("bulk", "c", 0.0)
    assert [one.per_identity for one in (by_identity, by_class) if one is not None] == [True, False]


def test_refused_ones_are_told_to_come_one_after_the_other_as_tokens_come() -> None:
    rate = ConnectRate(settings_of(of_identity(2.0, 1)))
    let_in(rate, 1)
    told = [rate.connected("bulk", "one", 0.0) for _ in range(4)]
    assert [one.retry_after_ms for one in told if one is not None] == [500, 1000, 1500, 2000]


def test_the_names_that_clients_invent_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect_rate, "MAX_REMEMBERED", 10)
    rate = ConnectRate(settings_of(of_identity(0.001, 1)))
    for number in range(50):
        let_in(rate, 1, identity=number)
    assert len(rate) == 10
    assert (let_in(rate, 1, identity=49), let_in(rate, 1, identity=0)) == (0, 1)


def test_who_connects_often_is_not_forgotten_for_those_who_came_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect_rate, "MAX_REMEMBERED", 3)
    rate = ConnectRate(settings_of(of_identity(0.001, 1)))
    let_in(rate, 1, identity="storm")
    for number in range(20):
        assert let_in(rate, 1, identity="storm") == 0
        let_in(rate, 1, identity=number)


def test_a_reload_keeps_what_was_used_up_and_drops_removed_classes() -> None:
    rate = ConnectRate(settings_of(of_identity(0.001, 5)))
    let_in(rate, 5)
    rate.adopt(settings_of(of_identity(0.001, 9)))
    assert let_in(rate, 5) == 0
    rate.adopt(settings_of(of_identity(0.001, 9), of_identity(1.0, 1)))
    rate.adopt(budget(8, ClassSettings("web", limit=4)))
    assert rate.connected("bulk", "one", 0.0) is None


def test_the_refusal_is_counted_with_the_numbers_of_the_class() -> None:
    settings = settings_of(of_identity(1.0, 1))
    core, rate = Controller(settings, now=0.0), ConnectRate(settings)
    let_in(rate, 1)
    too_many = rate.connected("bulk", "one", 0.0)
    assert too_many is not None
    refusal = core.refuse_connect(ClientId(7), "bulk", too_many)
    assert (refusal.reason, refusal.limit, refusal.retry_after_ms) == (RefusalReason.RATE, 4, 1000)
    assert look(core, "bulk").refusals == {RefusalReason.RATE: 1}


# Properties


class Naive:
    """A bucket again, as a list: the moments at which connects came to nothing."""

    def __init__(self, rate: float, burst: int) -> None:
        self.rate, self.burst = rate, burst
        self.events: list[tuple[float, int]] = []

    def level(self, now: float) -> float:
        level, at = float(self.burst), 0.0
        for moment, change in self.events:
            level = max(0.0, min(self.burst, level + (moment - at) * self.rate) + change)
            at = moment
        return min(self.burst, level + (now - at) * self.rate)


def drawn_run(seed: int) -> None:
    """Connects by chance, most of them for nothing: let in exactly while the naive bucket has a token. Rates are powers
    of two and moments multiples of them, so that nothing is decided by rounding."""
    random = Random(seed)
    limits, burst = random.choice([0.25, 1.0, 4.0]), random.choice([1, 3, 10])
    rate = ConnectRate(settings_of(of_identity(limits, burst)))
    naive = {name: Naive(limits, burst) for name in ("a", "b")}
    now = 0.0
    for _ in range(120):
        now += random.choice([0.0, 0.0, 0.0, 0.125, 1.0, 8.0])
        name = random.choice(["a", "a", "b"])
        is_in = rate.connected("bulk", name, now) is None
        assert is_in == (naive[name].level(now) >= 1.0)
        if is_in and random.random() < 0.7:
            rate.came_to_nothing("bulk", name, now)
            naive[name].events.append((now, -1))


def many_drawn_runs() -> None:
    for seed in range(200):
        drawn_run(seed)


@given(st.integers(0, 2**64))
def test_connects_are_let_in_exactly_while_there_is_a_token(seed: int) -> None:
    drawn_run(seed)


WRONG_FILLS = {
    "a bucket never fills": lambda self, rate, burst, now: self.tokens,
    "a bucket has no bottom": lambda self, rate, burst, now: setattr(self, "tokens", burst),
    "a bucket has no size": lambda self, rate, burst, now: (
        setattr(self, "tokens", self.tokens + (now - self.at) * rate) or setattr(self, "at", now)
    ),
    "time that has filled it fills it again": lambda self, rate, burst, now: setattr(
        self, "tokens", min(burst, self.tokens + (now - self.at) * rate)
    ),
}


@pytest.mark.parametrize("story", WRONG_FILLS)
def test_planted_bugs_of_buckets_are_found(story: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bucket, "fill", WRONG_FILLS[story])
    with pytest.raises(AssertionError):
        many_drawn_runs()


@pytest.mark.parametrize("forgotten", ["everybody is let in", "nothing is taken"])
def test_planted_bugs_of_counting_are_found(forgotten: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if forgotten == "nothing is taken":
        monkeypatch.setattr(ConnectRate, "came_to_nothing", lambda self, name, identity, now: None)
    else:
        monkeypatch.setattr(ConnectRate, "connected", lambda self, name, identity, now: None)
    with pytest.raises(AssertionError):
        many_drawn_runs()
