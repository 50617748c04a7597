"""Which order is in force: pure, with `at` as an argument."""

from dataclasses import replace

import pytest

from proxy.admission.classes import ClassState
from proxy.service.switchboard import Switch, Switchboard

PAUSE = Switch("bulk", ClassState.PAUSED, "anna", "storm", 100.0)
RESUME = replace(PAUSE, state=ClassState.RUNNING, by="ben", at=200.0)
FLAG = replace(PAUSE, state=ClassState.REJECTING, by="root", source="/flags/reject-bulk")


@pytest.fixture
def board() -> Switchboard:
    return Switchboard()


def test_the_last_order_counts(board):
    board.give(PAUSE)
    board.give(replace(PAUSE, state=ClassState.DRAINING))

    assert board.in_force("bulk").state is ClassState.DRAINING
    assert board.in_force("web") is None


def test_a_resume_takes_the_switch_away_and_is_remembered(board):
    board.give(PAUSE)
    board.give(RESUME)

    assert board.in_force("bulk") is None
    assert board.last["bulk"].by == "ben"


def test_an_order_ends_at_its_time_and_not_before(board):
    board.give(replace(PAUSE, until=160.0))
    board.give(replace(PAUSE, class_name="cron", until=130.0))

    assert board.next_end() == 130.0
    assert board.expire(129.9) == []
    assert [one.class_name for one in board.expire(130.0)] == ["cron"]
    assert (board.next_end(), board.in_force("cron")) == (160.0, None)
    assert len(board.expire(1000.0)) == 1
    assert board.next_end() is None


def test_a_flag_file_counts_before_a_switch_and_the_switch_is_there_when_it_is_gone(board):
    board.give(PAUSE)
    assert board.see_flags({"bulk": FLAG}, 110.0) == [FLAG]
    assert board.in_force("bulk") is FLAG

    (gone,) = board.see_flags({}, 120.0)

    assert (gone.state, gone.reason, gone.at) == (ClassState.RUNNING, "the file is gone", 120.0)
    assert board.in_force("bulk") is PAUSE


def test_a_flag_file_that_is_still_there_is_no_news(board):
    board.see_flags({"bulk": FLAG}, 110.0)

    assert board.see_flags({"bulk": replace(FLAG, at=300.0)}, 120.0) == []
    assert len(board.see_flags({"bulk": replace(FLAG, reason="written a moment later")}, 130.0)) == 1


def test_an_order_follows_its_class_to_a_new_name(board):
    board.give(PAUSE)
    board.give(replace(PAUSE, class_name="gone"))

    left = board.keep_classes({"batch", "web"}, {"bulk": "batch"})

    assert [one.class_name for one in left] == ["gone"]
    assert board.in_force("batch") == replace(PAUSE, class_name="batch")
    assert board.last["batch"].by == "anna"
