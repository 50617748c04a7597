"""When refused clients are told to come again, and how late those are answered who come again and again."""

from random import Random

import pytest

from proxy.admission import lateness
from proxy.admission.classes import ClassSettings, ClientId
from proxy.admission.controller import Controller
from proxy.admission.decisions import Refuse
from proxy.admission.draws import middle
from proxy.admission.lateness import Lateness, LatenessSettings
from proxy.admission.retry_turns import LONGEST_RETRY_MS, RetryTurns
from tests.admission.crowd import ask, budget


def told_together(count: int, *, releases_per_second: int = 50, seed: int | None = None) -> list[int]:
    """One class that gives back so many slots per second, and what so many clients are told at one moment."""
    settings = budget(1, ClassSettings("bulk", limit=1, queue_max=0))
    core = Controller(settings, now=0.0, draw=middle if seed is None else Random(seed).random)
    for number in range(4 * releases_per_second):
        ask(core, number, "bulk", number / releases_per_second)
        core.release(ClientId(number), (number + 1) / releases_per_second)
    ask(core, 100_000, "bulk", 4.0)
    decisions = [one for client in range(count) for one in ask(core, 200_000 + client, "bulk", 4.0)]
    return [one.retry_after_ms for one in decisions if isinstance(one, Refuse)]


def test_clients_that_are_refused_together_are_told_different_moments() -> None:
    assert told_together(5, releases_per_second=10) == [100, 200, 300, 400, 500]


def test_they_come_no_faster_than_slots_become_free() -> None:
    told = sorted(told_together(500, seed=1))
    assert len(set(told)) > 400
    busiest = max(sum(start <= one < start + 1000 for one in told) for start in range(0, 10_000, 250))
    assert busiest <= 1.4 * 50  # the jitter brings some together


def test_what_is_told_is_bounded_and_spread_there_too() -> None:
    told = told_together(5000, seed=1)
    assert max(told) <= LONGEST_RETRY_MS
    last = told[-1000:]
    assert min(last) >= LONGEST_RETRY_MS / 2
    assert len(set(last)) > 900


def test_the_same_draws_tell_the_same() -> None:
    assert told_together(50, seed=3) == told_together(50, seed=3)
    assert told_together(50, seed=3) != told_together(50, seed=4)


def test_after_a_quiet_time_the_turns_begin_anew() -> None:
    turns = RetryTurns(0.0)
    assert [turns.take_ms(0.1, 1.0, now, middle) for now in (0.0, 0.0, 0.0, 60.0)] == [1000, 2000, 3000, 100]


# How late


def late(**changes: object) -> Lateness:
    return Lateness(LatenessSettings(**{"delay_seconds": 1.0, "max_delay_seconds": 5.0, **changes}), middle)


def test_each_failure_waits_twice_as_long_up_to_a_bound() -> None:
    answers = late()
    assert [answers.note("app", float(now)) for now in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_the_first_may_be_told_at_once() -> None:
    answers = late(at_once=2)
    assert [answers.note("app", 0.0) for _ in range(4)] == [0.0, 0.0, 1.0, 2.0]


def test_the_jitter_only_shortens_so_that_the_bound_stands() -> None:
    random = Random(1)
    answers = Lateness(LatenessSettings(max_delay_seconds=1.0, jitter=0.5), random.random)
    seconds = [answers.note("app", 0.0) for _ in range(200)][10:]
    assert 0.5 <= min(seconds) < 0.55
    assert 0.95 < max(seconds) <= 1.0


def test_a_thousand_failures_are_no_number_too_large() -> None:
    answers = late()
    assert [answers.note("app", 0.0) for _ in range(3000)][-1] == 5.0


def test_after_a_while_without_one_it_begins_anew() -> None:
    answers = late(forget_after_seconds=60.0)
    answers.note("app", 0.0)
    assert (answers.recent("app", 60.0), answers.recent("app", 61.0)) == (1, 0)
    assert answers.note("app", 100.0) == 1.0


def test_the_names_that_clients_invent_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lateness, "MAX_REMEMBERED", 10)
    answers = late()
    for number in range(50):
        answers.note(number, 0.0)
    assert (answers.recent(39, 0.0), answers.recent(40, 0.0)) == (0, 1)


def test_those_who_come_most_often_are_named() -> None:
    answers = late(forget_after_seconds=10.0)
    for key, now in (("old", 0.0), ("old", 0.0), ("a", 11.0), ("b", 11.0), ("b", 12.0)):
        answers.note(key, now)
    assert answers.most_often(1, 12.0) == [("b", 2)]
    assert answers.most_often(5, 12.0) == [("b", 2), ("a", 1)]
