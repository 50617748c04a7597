"""Other settings while running: nobody loses a slot or a place, and promises are cut where they do not fit."""

from dataclasses import replace

import pytest

from proxy.admission.classes import ClassSettings, ClassState, ClientId
from proxy.admission.controller import Controller
from proxy.admission.ledger import UnknownClass
from proxy.admission.removal import Destination
from proxy.admission.reservations import Part, cut_to_fit
from tests.admission.crowd import ask, budget, flood, granted, look, refused


def test_a_smaller_total_takes_no_slot_away_and_grants_none_until_use_has_fallen(core: Controller) -> None:
    flood(core, "bulk", 100, 6)
    core.reconfigure(replace(core.settings, total=4), 1.0)
    assert core.in_use == 6
    assert granted(ask(core, 1, "web", 1.0)) == []
    assert [granted(core.release(ClientId(holder), 2.0)) for holder in (100, 101, 102)] == [[], [], [1]]


def test_who_waits_keeps_its_place_over_a_reload(core: Controller) -> None:
    flood(core, "bulk", 100, 9)
    core.reconfigure(replace(core.settings, total=11), 1.0)
    assert core.holds(ClientId(106))
    assert granted(core.release(ClientId(100), 2.0)) == [107]


def test_a_reload_to_the_same_settings_changes_nothing(core: Controller) -> None:
    flood(core, "bulk", 100, 9)
    before = core.snapshot(0.0)
    assert core.reconfigure(core.settings, 0.0) == []
    assert core.snapshot(0.0) == before


TWO_CLASSES = budget(
    1,
    ClassSettings("web", limit=1, queue_timeout_seconds=60.0),
    ClassSettings("old", limit=1, queue_timeout_seconds=7.0),
)
WEB_ALONE = replace(TWO_CLASSES, classes=TWO_CLASSES.classes[:1])


def to_web(*clients: int) -> dict[ClientId, Destination]:
    return {ClientId(client): Destination("web", client) for client in clients}


class TestRemovedClasses:
    def test_holders_drain_and_waiters_who_have_nowhere_to_go_are_refused(self, core: Controller) -> None:
        flood(core, "bulk", 100, 7)
        without_bulk = replace(core.settings, classes=core.settings.classes[:2])
        assert refused(core.reconfigure(without_bulk, 1.0)) == [(106, "class_rejecting")]
        assert (look(core, "bulk").used, look(core, "bulk").limit, look(core, "bulk").retired) == (6, 0, True)
        assert refused(ask(core, 1, "bulk", 2.0)) == [(1, "class_rejecting")]
        assert not core.try_grant(ClientId(1), "bulk", 2.0)

    def test_waiters_go_to_another_class_and_stand_there_by_their_time_of_arrival(self) -> None:
        """Of those of old 11 came between two of web, and 13 last."""
        core = Controller(TWO_CLASSES, now=0.0)
        ask(core, 1, "web")
        for at, (client, name) in enumerate([(10, "web"), (11, "old"), (12, "web"), (13, "old")], start=1):
            assert ask(core, client, name, float(at), flow=client) == []
        assert core.reconfigure(WEB_ALONE, 5.0, to_web(11, 13)) == []
        served = [1]
        while core.waiting:
            served += granted(core.release(ClientId(served[-1]), 6.0))
        assert served == [1, 10, 11, 12, 13]

    def test_who_waits_takes_its_patience_along(self) -> None:
        core = Controller(TWO_CLASSES, now=0.0)
        ask(core, 1, "web")
        ask(core, 11, "old", 1.0)
        core.reconfigure(WEB_ALONE, 3.0, to_web(11))
        assert refused(core.advance(7.9)) == []
        assert refused(core.advance(8.0)) == [(11, "queue_timeout")]

    def test_only_whom_the_queue_there_has_no_room_for_is_refused_the_latest_first(self) -> None:
        core = Controller(TWO_CLASSES, now=0.0)
        ask(core, 1, "web")
        ask(core, 10, "web", 5.0)
        for client in (11, 12, 13, 14):
            ask(core, client, "old", float(client - 10))
        short = replace(WEB_ALONE, classes=(replace(WEB_ALONE.classes[0], queue_max=3),))
        found = core.reconfigure(short, 6.0, to_web(11, 12, 13, 14))
        assert refused(found) == [(14, "queue_full"), (13, "queue_full")]
        assert {one.class_name for one in found} == {"web"}
        assert [core.waits(ClientId(client)) for client in (10, 11, 12)] == [True, True, True]

    def test_a_free_slot_there_is_theirs_at_once(self) -> None:
        core = Controller(TWO_CLASSES, now=0.0)
        core.set_state("old", ClassState.PAUSED, 0.0)
        ask(core, 11, "old", 1.0)
        assert granted(core.reconfigure(WEB_ALONE, 2.0, to_web(11))) == [11]
        assert (look(core, "web").used, core.in_use) == (1, 1)

    def test_what_it_holds_is_counted_until_it_is_given_back(self) -> None:
        core = Controller(TWO_CLASSES, now=0.0)
        ask(core, 1, "old")
        ask(core, 11, "old", 1.0)
        assert core.reconfigure(WEB_ALONE, 2.0, to_web(1, 11)) == []
        assert (look(core, "old").used, look(core, "web").waiting) == (1, 1)
        assert granted(core.release(ClientId(1), 3.0)) == [11]

    def test_a_class_that_rejects_refuses_them_too(self, core: Controller) -> None:
        flood(core, "bulk", 100, 7)
        core.set_state("web", ClassState.REJECTING, 0.0)
        without_bulk = replace(core.settings, classes=core.settings.classes[:2])
        (refusal,) = core.reconfigure(without_bulk, 1.0, {ClientId(106): Destination("web", 0)})
        assert (refusal.client, refusal.class_name) == (106, "web")

    def test_a_class_that_is_gone_too_is_no_way_out(self, core: Controller) -> None:
        flood(core, "bulk", 100, 7)
        without_bulk = replace(core.settings, classes=core.settings.classes[:2])
        moves = {ClientId(106): Destination("bulk", 0)}
        assert refused(core.reconfigure(without_bulk, 1.0, moves)) == [(106, "class_rejecting")]

    def test_it_is_forgotten_once_it_is_empty(self, core: Controller) -> None:
        ask(core, 100, "bulk")
        without_bulk = replace(core.settings, classes=core.settings.classes[:2])
        core.reconfigure(without_bulk, 1.0)
        core.release(ClientId(100), 2.0)
        assert [one.name for one in core.snapshot(2.0).classes] == ["admin", "web"]
        core.reconfigure(without_bulk, 3.0)
        with pytest.raises(UnknownClass):
            ask(core, 1, "bulk", 4.0)

    def test_it_may_come_back_while_it_drains(self, core: Controller) -> None:
        ask(core, 100, "bulk")
        with_bulk = core.settings
        core.reconfigure(replace(with_bulk, classes=with_bulk.classes[:2]), 1.0)
        core.reconfigure(with_bulk, 2.0)
        assert granted(ask(core, 101, "bulk", 3.0)) == [101]
        assert look(core, "bulk").used == 2


class TestAdaptiveLimits:
    def test_it_bounds_grants_and_reservation(self, core: Controller) -> None:
        core.set_adaptive_limit("web", 2, 0.0)
        assert flood(core, "web", 1, 4) == [1, 2]
        assert (look(core, "web").reserved, look(core, "web").adaptive_limit) == (2, 2)

    def test_lifting_it_serves_who_waits(self, core: Controller) -> None:
        core.set_adaptive_limit("web", 1, 0.0)
        flood(core, "web", 1, 3)
        assert granted(core.set_adaptive_limit("web", None, 1.0)) == [2, 3]


def test_a_class_stays_paused_over_a_reload(core: Controller) -> None:
    core.set_state("bulk", ClassState.PAUSED, 0.0)
    core.reconfigure(core.settings, 1.0)
    assert granted(ask(core, 1, "bulk", 2.0)) == []


class TestTheCut:
    CLASSES = (
        ClassSettings("low", priority=9, reserved=3, lendable=3, limit=9),
        ClassSettings("high", priority=0, reserved=4, lendable=2, limit=9),
    )

    def cut(self, total: int, **limits: int) -> tuple[Part, Part, int]:
        settings = budget(total, *self.CLASSES, headroom=2, headroom_for=["high"])
        parts = cut_to_fit(settings, {"low": 9, "high": 9} | limits)
        return parts.by_class["high"], parts.by_class["low"], parts.headroom

    def test_nothing_is_cut_where_all_fits(self) -> None:
        assert self.cut(9) == (Part(4, 2), Part(3, 0), 2)

    def test_headroom_goes_first_and_the_least_important_class_next(self) -> None:
        assert self.cut(8) == (Part(4, 2), Part(3, 0), 1)
        assert self.cut(5) == (Part(4, 2), Part(1, 0), 0)

    def test_inside_a_class_the_floor_is_cut_last(self) -> None:
        assert self.cut(3) == (Part(3, 2), Part(0, 0), 0)
        assert self.cut(1) == (Part(1, 1), Part(0, 0), 0)
        assert self.cut(0) == (Part(0, 0), Part(0, 0), 0)

    def test_nobody_keeps_more_than_it_may_use(self) -> None:
        assert self.cut(9, high=1) == (Part(1, 1), Part(3, 0), 2)
