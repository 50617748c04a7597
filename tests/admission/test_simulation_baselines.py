"""The two pools people have today."""

import pytest

from proxy.admission.classes import BudgetSettings, ClassSettings, ClientId
from proxy.admission.decisions import Grant, RefusalReason
from proxy.admission.simulation.baselines import shared_pool, static_pools, static_slots

A, B, C, D = (ClientId(number) for number in range(1, 5))


def two_classes(total: int = 2, **both: int | float) -> BudgetSettings:
    settings = {"limit": total, "reserved": 1, "queue_timeout_seconds": 5.0, **both}
    return BudgetSettings(total, classes=(ClassSettings("web", **settings), ClassSettings("bulk", **settings)))


def test_a_shared_pool_serves_in_order_of_arrival_whoever_it_is():
    pool = shared_pool(two_classes(1))
    assert pool.try_grant(A, "bulk", 0.0)
    assert pool.request(B, "bulk", flow="b", now=0.0) == ()
    assert pool.request(C, "web", flow="c", now=1.0) == ()
    assert pool.release(A, 2.0) == (Grant(B, "bulk", waited_seconds=2.0, borrowed=False),)


def test_nobody_goes_ahead_of_who_waits():
    pool = shared_pool(two_classes(1))
    pool.try_grant(A, "bulk", 0.0)
    pool.request(B, "bulk", flow="b", now=0.0)
    assert not pool.try_grant(C, "web", 0.0)


def test_a_static_pool_never_lends():
    pools = static_pools(two_classes(2))
    assert pools.try_grant(A, "bulk", 0.0)
    assert not pools.try_grant(B, "bulk", 0.0)
    assert pools.try_grant(C, "web", 0.0)


def test_the_queue_of_a_class_is_bounded():
    pool = shared_pool(two_classes(1, queue_max=1))
    pool.try_grant(A, "bulk", 0.0)
    pool.request(B, "bulk", flow="b", now=0.0)
    (refusal,) = pool.request(C, "bulk", flow="c", now=0.0)
    assert (refusal.reason, refusal.waiting) == (RefusalReason.QUEUE_FULL, 1)


def test_the_queue_of_another_class_is_its_own():
    pool = shared_pool(two_classes(1, queue_max=1))
    pool.try_grant(A, "bulk", 0.0)
    pool.request(B, "bulk", flow="b", now=0.0)
    assert pool.request(C, "web", flow="c", now=0.0) == ()


def test_who_waits_too_long_is_refused_at_the_deadline():
    pool = shared_pool(two_classes(1))
    pool.try_grant(A, "bulk", 0.0)
    pool.request(B, "web", flow="b", now=1.0)
    assert pool.next_wakeup_at() == 6.0
    (refusal,) = pool.advance(6.0)
    assert (refusal.client, refusal.reason, refusal.waited_seconds) == (B, RefusalReason.QUEUE_TIMEOUT, 5.0)


def test_who_was_served_has_no_deadline_any_more():
    pool = shared_pool(two_classes(1))
    pool.try_grant(A, "bulk", 0.0)
    pool.request(B, "web", flow="b", now=1.0)
    pool.release(A, 2.0)
    assert pool.next_wakeup_at() is None


def test_the_deadline_of_a_former_wait_does_not_end_a_new_one():
    pool = shared_pool(two_classes(1))
    pool.try_grant(A, "bulk", 0.0)
    pool.request(B, "web", flow="b", now=0.0)
    pool.leave(B, 1.0)
    pool.request(B, "web", flow="b", now=2.0)
    assert pool.advance(5.0) == []
    assert pool.next_wakeup_at() == 7.0


def test_who_left_is_not_served():
    pool = shared_pool(two_classes(1))
    pool.try_grant(A, "bulk", 0.0)
    pool.request(B, "web", flow="b", now=0.0)
    pool.leave(B, 1.0)
    assert pool.release(A, 2.0) == ()


def test_leaving_without_waiting_is_ignored():
    pool = shared_pool(two_classes(1))
    pool.try_grant(A, "bulk", 0.0)
    assert (pool.leave(A, 1.0), pool.leave(D, 1.0)) == ((), ())


# How static pools are cut


def cut(
    total: int, headroom: int = 0, headroom_for: frozenset[str] = frozenset(), **classes: tuple[int, int]
) -> dict[str, int]:
    settings = tuple(ClassSettings(name, reserved=reserved, limit=limit) for name, (reserved, limit) in classes.items())
    return static_slots(BudgetSettings(total, headroom, headroom_for, settings))


def test_each_has_its_reservation_and_the_rest_goes_by_what_is_lacking_to_the_limit():
    assert cut(50, web=(30, 40), bulk=(0, 30)) == {"web": 35, "bulk": 15}


def test_the_headroom_goes_to_its_classes():
    assert cut(20, 4, frozenset({"web"}), web=(10, 14), bulk=(6, 16)) == {"web": 14, "bulk": 6}


def test_a_class_without_a_reservation_gets_one_slot_where_there_is_one():
    assert cut(10, web=(9, 9), bulk=(0, 5)) == {"web": 9, "bulk": 1}
    assert cut(9, web=(9, 9), bulk=(0, 5)) == {"web": 9, "bulk": 0}


def test_no_pool_is_larger_than_the_limit_of_its_class():
    assert cut(50, web=(5, 10), bulk=(2, 10)) == {"web": 10, "bulk": 10}


@pytest.mark.parametrize("total", range(1, 40))
def test_the_pools_are_never_more_than_the_budget(total):
    assert sum(cut(total, web=(min(total, 7), 20), mail=(0, 3), bulk=(0, 30)).values()) <= total
