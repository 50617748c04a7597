"""The arithmetic of a recommended budget: stories, then what holds for drawn classes and demand."""

from dataclasses import replace
from random import Random

import pytest

from proxy.admission.classes import BudgetSettings, ClassSettings, with_internal_class
from proxy.service.traffic.observed import Demand
from proxy.service.traffic.recommendation import (
    Given,
    GivenBudget,
    Need,
    Numbers,
    Recommendation,
    Role,
    TooFewSlots,
    recommend,
    roles,
)

ADMIN = Given("admin", 0, False, False, True, reserved=3, lendable=0, limit=5)
WEB = Given("web", 1, True, False, True, reserved=40, lendable=20, limit=70)
BULK = Given("bulk", 9, True, False, True, reserved=2, lendable=1, limit=40, pinned_limit=4)
OTHER = Given("other", 9, True, True, False, reserved=2, lendable=1, limit=5)
GIVEN = GivenBudget(92, (ADMIN, WEB, BULK, OTHER), frozenset({"web", "admin"}))


def need(p50: int = 0, p95: int = 0, most: int = 0, limited: float = 0.0) -> Need:
    return Need(Demand(p50, p95, max(most, p95)), limited)


def of_class(found: Recommendation, name: str) -> Numbers:
    return next(one for one in found.classes if one.name == name)


def test_customers_get_p95_and_a_fifth_more_and_lend_what_half_of_the_time_is_free() -> None:
    web = of_class(recommend(GIVEN, {"web": need(12, 33, 41)}), "web")
    assert (web.reserved.value, web.reserved.sum) == (40, "p95 33 x 1.2 = 40")
    assert (web.lendable.value, web.lendable.sum) == (28, "reserved 40 - p50 12 = 28")
    assert (web.limit.value, web.limit.sum) == (70, "as configured; most seen 41")


def test_a_shell_in_an_incident_keeps_its_reservation_though_nobody_used_it() -> None:
    admin = of_class(recommend(GIVEN, {}), "admin")
    assert (admin.reserved.value, admin.lendable.value) == (3, 0)
    assert admin.reserved.sum == "kept as configured for sessions; no demand at p95"


def test_background_work_reserves_little_however_much_it_asks_for() -> None:
    bulk = of_class(recommend(GIVEN, {"web": need(5, 20), "bulk": need(200, 400)}), "bulk")
    assert (bulk.reserved.value, bulk.lendable.value) == (4, 3)
    assert bulk.reserved.sum == "p95 400 x 1.2 = 480, cut to 4 (a twentieth of the budget: it may wait)"
    assert bulk.limit.value <= of_class(recommend(GIVEN, {"web": need(5, 20)}), "web").limit.value


def test_headroom_is_what_demand_has_exceeded_the_reservations_by() -> None:
    found = recommend(GIVEN, {"web": need(12, 33, 46)})
    assert (found.headroom.value, found.headroom.sum) == (6, "web: most 46 - 40")
    assert recommend(GIVEN, {"web": need(12, 33, 80)}).headroom.value == 9
    assert recommend(replace(GIVEN, headroom_for=frozenset()), {"web": need(12, 33, 80)}).headroom.value == 0


def test_a_class_that_showed_its_limit_and_not_its_need_may_have_all_there_is() -> None:
    small = replace(GIVEN, classes=(ADMIN, replace(WEB, limit=20), BULK, OTHER))
    web = of_class(recommend(small, {"web": need(20, 20, 20, limited=0.4)}), "web")
    assert web.limit.value > 70
    assert web.limit.sum == "at its limit for 40% of the time while clients waited"


def test_customers_who_need_more_than_there_is_leave_one_slot_to_each_other_class() -> None:
    found = recommend(GIVEN, {"web": need(80, 300, 400)})
    assert [one.reserved.value >= 1 for one in found.classes] == [True] * 4
    assert (
        of_class(found, "web").reserved.sum == "p95 300 x 1.2 = 360, cut to 76 (2 slots are for the classes behind it)"
    )
    assert found.spare >= 1


def test_too_few_slots_are_told_with_how_many_would_do() -> None:
    with pytest.raises(TooFewSlots, match=r"4 slots are too few for 4 classes .* 5 would give each of them one"):
        recommend(replace(GIVEN, total=4), {})


def test_who_the_customers_are() -> None:
    found = roles(GIVEN.classes)
    assert list(found.values()) == [Role.SESSIONS_FIRST, Role.CUSTOMERS, Role.OTHERS, Role.OTHERS]
    assert roles((OTHER,)) == {"other": Role.CUSTOMERS}


# What holds for all


def drawn(random: Random) -> tuple[GivenBudget, dict[str, Need]]:
    names = ["a", "b", "c", "d", "e"][: random.choice([1, 2, 3, 4, 5])]
    default = random.choice(names)
    classes = tuple(drawn_class(random, name, default) for name in names)
    headroom_for = frozenset(name for name in names if random.random() < 0.3)
    total = random.choice([len(names) + 1, len(names) + 2, 10, 20, 50, 92, 300])
    listening = random.choice([0, 1, 4])
    given = GivenBudget(max(total, len(names) + 1), classes, headroom_for, listening)
    return given, {name: drawn_need(random) for name in names if random.random() < 0.9}


def drawn_class(random: Random, name: str, default: str) -> Given:
    limit = random.choice([1, 2, 5, 20, 60])
    reserved = random.choice([0, 1, limit // 2, limit])
    return Given(
        name,
        priority=random.choice([0, 1, 1, 5, 9]),
        is_shared=random.random() < 0.75,
        is_default=name == default,
        is_matched=random.random() < 0.8,
        reserved=reserved,
        lendable=random.choice([0, reserved // 2, reserved]),
        limit=limit,
        pinned_limit=random.choice([None, None, 0, limit]),
        max_clients=random.choice([None, None, 1, 4, 200]),
    )


def drawn_need(random: Random) -> Need:
    p50, p95, most = sorted(random.choice([0, 1, 2, 5, 17, 40, 90, 500]) for _ in range(3))
    return Need(Demand(p50, p95, most), random.choice([0.0, 0.0, 0.04, 0.3]))


def more(random: Random, one: Need) -> Need:
    """The same and more, at every quantile."""
    p50, p95, most = one.demand.p50, one.demand.p95, one.demand.most
    by = sorted(random.choice([0, 0, 1, 3, 50]) for _ in range(3))
    share = random.choice([one.limited_share, max(one.limited_share, 0.2)])
    return Need(Demand(p50 + by[0], p95 + by[1], most + by[2]), share)


def settings_of(found: Recommendation) -> BudgetSettings:
    classes = tuple(
        ClassSettings(
            one.name,
            limit=one.limit.value,
            reserved=one.reserved.value,
            lendable=one.lendable.value,
            pinned_limit=None if one.pinned_limit is None else one.pinned_limit.value,
        )
        for one in found.classes
    )
    return with_internal_class(
        BudgetSettings(found.total, found.headroom.value, frozenset(found.headroom_for), classes)
    )


CASES = 4000


def test_it_can_always_be_kept_and_every_class_makes_progress() -> None:
    for seed in range(CASES):
        given, needs = drawn(Random(seed))
        found = recommend(given, needs)
        assert settings_of(found).validate() == [], seed
        assert all(one.reserved.value - one.lendable.value >= 1 for one in found.classes), seed
        assert found.spare >= 0, seed


def test_more_demand_never_suggests_less() -> None:
    for seed in range(CASES):
        random = Random(seed)
        given, needs = drawn(random)
        name = random.choice(given.classes).name
        before = of_class(recommend(given, needs), name)
        after = of_class(recommend(given, {**needs, name: more(random, needs.get(name, need()))}), name)
        assert after.reserved.value >= before.reserved.value, seed
        assert after.limit.value >= before.limit.value, seed
        assert after.reserved.value - after.lendable.value >= before.reserved.value - before.lendable.value, seed


def test_customers_come_before_background_work() -> None:
    for seed in range(CASES):
        given, needs = drawn(Random(seed))
        found = recommend(given, needs)
        most = max(one.reserved.value for one in found.classes if one.role is Role.CUSTOMERS)
        assert all(one.reserved.value <= most for one in found.classes if one.role is Role.OTHERS), seed
