"""The numbers that people and metrics see."""

import pytest

from proxy.admission.classes import ClassState, ClientId
from proxy.admission.controller import Controller
from tests.admission.crowd import ask, flood, look


def test_an_empty_budget(core: Controller) -> None:
    snapshot = core.snapshot(0.0)
    assert (snapshot.total, snapshot.headroom, snapshot.headroom_left, snapshot.in_use) == (10, 2, 2, 0)
    assert [one.name for one in snapshot.classes] == ["admin", "web", "bulk"]
    assert all(one.state is ClassState.RUNNING for one in snapshot.classes)


def test_borrowed_and_lent_are_two_views_of_the_same_slots(core: Controller) -> None:
    flood(core, "bulk", 100, 20)
    web, bulk = look(core, "web"), look(core, "bulk")
    assert (bulk.used, bulk.borrowed, bulk.lent) == (6, 6, 0)
    assert (web.used, web.borrowed, web.lent, web.held) == (0, 0, 3, 1)


def test_waiting_and_the_oldest_wait(core: Controller) -> None:
    flood(core, "bulk", 100, 6)
    ask(core, 200, "bulk", 1.0)
    ask(core, 201, "bulk", 2.0)
    bulk = look(core, "bulk", 5.0)
    assert (bulk.waiting, bulk.oldest_wait_seconds) == (2, 4.0)
    assert core.snapshot(5.0).waiting == core.waiting == 2


def test_headroom_left_falls_as_its_classes_take_it(core: Controller) -> None:
    flood(core, "web", 1, 5)
    assert core.snapshot(0.0).headroom_left == 1


def test_admissions_tell_queued_and_borrowed_apart(core: Controller) -> None:
    flood(core, "web", 1, 1)
    flood(core, "bulk", 100, 7)
    core.release(ClientId(100), 1.0)
    assert look(core, "web").admissions[(False, False)] == 1
    assert look(core, "bulk").admissions == {(False, False): 0, (False, True): 6, (True, False): 0, (True, True): 1}


def test_an_unknown_class_has_no_numbers(core: Controller) -> None:
    with pytest.raises(KeyError):
        core.snapshot(0.0).of_class("cron")
