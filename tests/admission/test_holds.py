"""Which bound on a hold is reached, and when to look again."""

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.admission.classes import BudgetSettings, ClassSettings, ClientId
from proxy.admission.controller import Controller
from proxy.admission.holds import NO_BOUNDS, Bound, Conduct, HoldBounds, next_look_at, reached

SINCE = {
    Bound.IDLE_IN_TRANSACTION: "idle_in_transaction",
    Bound.BORROWED_IDLE_IN_TRANSACTION: "idle_in_transaction",
    Bound.TRANSACTION: "transaction",
    Bound.QUERY: "query",
    Bound.CLIENT_IDLE: "client_idle",
    Bound.SLOW_READER: "unread",
}

bounds_drawn = st.builds(HoldBounds, *[st.one_of(st.just(inf), st.integers(1, 50).map(float))] * len(Bound))
# As it occurs: an idle client does nothing else, and a transaction that is open idles or runs a query.
moments = st.integers(0, 100).map(float)
maybe = st.one_of(st.just(inf), moments)
conducts = st.one_of(
    st.just(Conduct()),
    st.builds(lambda at: Conduct(client_idle=at), moments),
    st.builds(lambda a, b, c: Conduct(transaction=a, idle_in_transaction=a + b, unread=c), moments, moments, maybe),
    st.builds(lambda a, b, c: Conduct(transaction=a, query=a + b, unread=c), moments, moments, maybe),
)


def test_without_bounds_nothing_is_ever_due() -> None:
    everything = Conduct(0.0, 0.0, 0.0, 0.0, 0.0)
    assert reached(NO_BOUNDS, everything, 1e9, is_wanted=True) is None
    assert next_look_at(NO_BOUNDS, Conduct(transaction=0.0, query=0.0), 5.0) == inf
    assert NO_BOUNDS.soonest == inf


@pytest.mark.parametrize("bound", Bound)
def test_each_bound_is_reached_at_its_time_and_not_before(bound: Bound) -> None:
    bounds = replace(NO_BOUNDS, **{bound.value: 10.0})
    conduct = replace(Conduct(), **{SINCE[bound]: 100.0})
    assert reached(bounds, conduct, 109.9, is_wanted=True) is None
    assert reached(bounds, conduct, 110.0, is_wanted=True) is bound
    assert next_look_at(bounds, conduct, 100.0) == 110.0


@pytest.mark.parametrize("bound", Bound)
def test_what_a_client_does_not_do_has_no_bound(bound: Bound) -> None:
    bounds = replace(NO_BOUNDS, **{bound.value: 10.0})
    others = {since: 0.0 for since in SINCE.values() if since != SINCE[bound]}
    assert reached(bounds, replace(Conduct(), **others), 1000.0, is_wanted=True) is None


def test_a_borrowed_slot_is_kept_while_nobody_wants_it() -> None:
    bounds = HoldBounds(borrowed_idle_in_transaction=5.0)
    conduct = Conduct(transaction=0.0, idle_in_transaction=0.0)
    assert reached(bounds, conduct, 1000.0) is None
    assert reached(bounds, conduct, 1000.0, is_wanted=True) is Bound.BORROWED_IDLE_IN_TRANSACTION


def test_what_ends_the_client_comes_before_what_ends_its_query() -> None:
    bounds = HoldBounds(transaction=10.0, query=10.0, slow_reader=10.0)
    assert reached(bounds, Conduct(transaction=0.0, query=0.0, unread=0.0), 10.0) is Bound.TRANSACTION
    assert reached(bounds, Conduct(transaction=5.0, query=0.0, unread=0.0), 10.0) is Bound.SLOW_READER
    assert reached(bounds, Conduct(transaction=5.0, query=0.0, unread=5.0), 10.0) is Bound.QUERY


@given(bounds_drawn, conducts, moments, moments)
def test_the_next_look_is_later_and_misses_nothing_that_comes_with_time(
    bounds: HoldBounds, conduct: Conduct, now: float, later: float
) -> None:
    at = next_look_at(bounds, conduct, now)
    assert at > now
    before = min(now + later, at - 0.5)
    if reached(bounds, conduct, now, is_wanted=True) is None and before >= now:
        assert reached(bounds, conduct, before, is_wanted=True) is None


@given(bounds_drawn, conducts, conducts, moments)
def test_the_next_look_misses_nothing_that_a_client_at_work_turns_to(
    bounds: HoldBounds, conduct: Conduct, other: Conduct, now: float
) -> None:
    """Whatever it begins after this look, without being seen to."""
    at = next_look_at(bounds, conduct, now)
    begun = {name: since for name in SINCE.values() if (since := getattr(other, name)) < inf and since >= now}
    if conduct.client_idle == inf and begun and now <= at - 0.5 < inf:
        assert reached(bounds, replace(Conduct(), **begun), at - 0.5, is_wanted=True) is None


def crowded() -> Controller:
    """Two slots: web has one reserved that is lent, and bulk uses both."""
    web = ClassSettings("web", priority=1, reserved=1, lendable=1, limit=2, lend_memory_seconds=1.0)
    bulk = ClassSettings("bulk", priority=9, reserved=1, lendable=0, limit=2)
    core = Controller(BudgetSettings(2, classes=(web, bulk)), now=0.0)
    for client in (1, 2):
        assert core.try_grant(ClientId(client), "bulk", 100.0)
    return core


def test_a_borrowed_slot_would_serve_who_waits_for_it_and_asking_changes_nothing() -> None:
    core = crowded()
    assert not core.would_serve(ClientId(1), 100.0)
    core.request(ClientId(3), "web", flow=3, now=100.0)
    before = core.snapshot(100.0)
    assert core.would_serve(ClientId(1), 100.0)
    assert core.snapshot(100.0) == before


def test_a_slot_of_its_own_reservation_is_not_borrowed() -> None:
    core = crowded()
    core.release(ClientId(1), 100.0)
    core.request(ClientId(3), "web", flow=3, now=100.0)
    core.request(ClientId(4), "web", flow=4, now=100.0)
    assert core.waiting == 1
    assert not core.would_serve(ClientId(2), 100.0)
    assert not core.would_serve(ClientId(3), 100.0)


def test_who_holds_no_slot_would_serve_nobody() -> None:
    core = crowded()
    core.request(ClientId(3), "web", flow=3, now=100.0)
    assert not core.would_serve(ClientId(3), 100.0)
