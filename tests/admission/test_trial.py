"""A class that only warns: it goes by the budget and by what is promised to others, and its own bounds are counted."""

from dataclasses import replace

import pytest

from proxy.admission.classes import BudgetSettings, ClassSettings, ClassState, ClientId, ConnectSettings, Mode
from proxy.admission.connect_rate import TooManyConnects
from proxy.admission.controller import Controller
from proxy.admission.decisions import Grant, RefusalReason, Refuse
from proxy.admission.places import ClientPlaces
from proxy.admission.trial import Would, in_force

WEB = ClassSettings("web", priority=1, reserved=3, lendable=1, limit=6, lend_memory_seconds=1.0)
BULK = ClassSettings(
    "bulk", priority=9, limit=2, queue_max=2, queue_timeout_seconds=5.0, pinned_limit=1, mode=Mode.WARN, max_clients=1
)


def core_of(bulk: ClassSettings = BULK, total: int = 8) -> Controller:
    return Controller(BudgetSettings(total, classes=(WEB, bulk)), now=0.0)


def take(core: Controller, name: str, *clients: int, now: float = 100.0) -> list[bool]:
    return [core.try_grant(ClientId(client), name, now) for client in clients]


def counts(core: Controller) -> tuple[int | None, dict[RefusalReason, int]]:
    reading = core.snapshot(100.0).of_class("bulk")
    return reading.would_queue, dict(reading.would_refuse)


def test_a_class_that_decides_counts_nothing_of_the_kind() -> None:
    core = core_of(replace(BULK, mode=Mode.ENFORCE))
    assert take(core, "bulk", 1, 2, 3) == [True, True, False]
    assert counts(core) == (None, {})
    assert not core.warned


def test_slots_above_the_limit_are_given_and_stand_for_the_queue() -> None:
    core = core_of()
    assert take(core, "bulk", 1, 2, 3, 4, 5, 6) == [True] * 6
    assert counts(core) == (2, {RefusalReason.QUEUE_FULL: 2})
    assert core.warned == {
        ClientId(3): Would("bulk", None, 2, 2),
        ClientId(4): Would("bulk", None, 3, 2),
        ClientId(5): Would("bulk", RefusalReason.QUEUE_FULL, 4, 2),
        ClientId(6): Would("bulk", RefusalReason.QUEUE_FULL, 5, 2),
    }


def test_a_class_that_does_not_queue_would_have_refused() -> None:
    core = core_of(replace(BULK, queue_max=0))
    take(core, "bulk", 1, 2, 3)
    assert counts(core) == (0, {RefusalReason.LIMIT: 1})


def test_what_others_are_promised_is_never_taken() -> None:
    """Two of the three of web are never lent, and the third comes back first."""
    core = core_of()
    assert take(core, "bulk", 1, 2, 3, 4, 5, 6, 7) == [True] * 6 + [False]
    assert core.request(ClientId(7), "bulk", flow=7, now=100.0) == []
    assert take(core, "web", 11, 12) == [True, True]
    assert core.request(ClientId(13), "web", flow=13, now=100.0) == []
    assert core.release(ClientId(1), 101.0) == [Grant(ClientId(13), "web", 1.0, False)]


def test_who_waits_for_the_budget_is_refused_by_no_bound_of_the_class() -> None:
    core = core_of()
    take(core, "bulk", *range(1, 7))
    for client in range(10, 20):
        assert core.request(ClientId(client), "bulk", flow=client, now=100.0) == []
    assert not [one for one in core.advance(10_000.0) if isinstance(one, Refuse)]
    assert core.waiting == 10
    (grant,) = core.release(ClientId(1), 10_000.0)
    assert isinstance(grant, Grant)
    _, refused = counts(core)
    assert refused == {RefusalReason.QUEUE_FULL: 12, RefusalReason.QUEUE_TIMEOUT: 1}


def test_a_pin_above_the_limit_is_let_be_unless_it_stands_on_what_is_reserved() -> None:
    core = core_of()
    take(core, "bulk", *range(1, 6))
    assert [core.request_pin(ClientId(client), 100.0) for client in (1, 2, 3)] == [None] * 3
    assert counts(core)[1][RefusalReason.PINNED_LIMIT] == 2
    take(core, "bulk", 6)
    answer = core.request_pin(ClientId(6), 100.0)
    assert answer is not None
    assert answer.reason is RefusalReason.PINNED_LIMIT


@pytest.mark.parametrize("state", [ClassState.PAUSED, ClassState.REJECTING])
def test_orders_are_orders(state: ClassState) -> None:
    core = core_of()
    core.set_state("bulk", state, 100.0)
    assert take(core, "bulk", 1) == [False]
    decisions = core.request(ClientId(1), "bulk", flow=1, now=100.0)
    assert [isinstance(one, Refuse) for one in decisions] == [True] * (state is ClassState.REJECTING)


def test_who_connects_too_often_is_let_in_and_counted() -> None:
    core = core_of(replace(BULK, connects=ConnectSettings(rate=1.0)))
    assert core.refuse_connect(ClientId(1), "bulk", TooManyConnects(False, 100)) is None
    assert counts(core)[1] == {RefusalReason.RATE: 1}
    assert core.refuse_connect(ClientId(2), "web", TooManyConnects(False, 100)) is not None


def test_one_client_too_many_has_a_place_and_is_told() -> None:
    places = ClientPlaces(BudgetSettings(8, classes=(WEB, BULK)), now=0.0)
    first, second = (places.join(ClientId(client), "bulk", 100.0)[0] for client in (1, 2))
    assert isinstance(first, Grant)
    assert isinstance(second, Grant)
    assert (first.would_refuse, second.would_refuse) == (None, RefusalReason.MAX_CLIENTS)
    assert places.would_have_been(ClientId(2), RefusalReason.MAX_CLIENTS) == Would(
        "bulk", RefusalReason.MAX_CLIENTS, 2, 1
    )


def test_one_client_too_many_of_an_identity_too() -> None:
    bulk = replace(BULK, max_clients=None, max_clients_per_identity=1)
    places = ClientPlaces(BudgetSettings(8, classes=(WEB, bulk)), now=0.0)
    grants = [places.join(ClientId(n), "bulk", 100.0, identity=who)[0] for n, who in enumerate(("a", "b", "a"))]
    assert [one.would_refuse for one in grants if isinstance(one, Grant)] == [None, None, RefusalReason.MAX_CLIENTS]


def test_a_reload_to_enforce_decides_and_takes_nothing_away() -> None:
    core = core_of()
    take(core, "bulk", *range(1, 7))
    core.reconfigure(BudgetSettings(8, classes=(WEB, replace(BULK, mode=Mode.ENFORCE))), 101.0)
    reading = core.snapshot(101.0).of_class("bulk")
    assert (reading.used, reading.limit, reading.would_queue) == (6, 2, None)
    assert take(core, "bulk", 7, now=101.0) == [False]


def test_a_reload_that_goes_on_warning_goes_on_counting() -> None:
    core = core_of()
    take(core, "bulk", 1, 2, 3)
    core.reconfigure(BudgetSettings(9, classes=(WEB, replace(BULK, limit=1))), 101.0)
    take(core, "bulk", 4, now=101.0)
    assert counts(core) == (1, {RefusalReason.QUEUE_FULL: 1})
    assert core.snapshot(101.0).of_class("bulk").limit == 9


def test_a_class_that_decides_goes_by_what_was_configured() -> None:
    assert in_force(WEB, 100) is WEB
