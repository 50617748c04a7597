"""Numbers that cannot hold, said in plain words."""

from typing import Any

import pytest

from proxy.admission.classes import BudgetSettings, ClassSettings, with_internal_class
from tests.admission.crowd import budget


def one_class(**numbers: Any) -> BudgetSettings:
    return budget(100, ClassSettings("web", **({"limit": 10} | numbers)))


def test_numbers_that_hold_have_no_problems(settings: BudgetSettings) -> None:
    assert settings.validate() == []
    assert one_class().validate() == []


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"reserved": 11}, "reserved is 11 but limit is 10"),
        ({"reserved": 2, "lendable": 3}, "lendable is 3 but reserved is 2"),
        ({"pinned_limit": 11}, "pinned_limit is 11 but limit is 10"),
        ({"limit": 0}, "limit is 0"),
        ({"weight": 0.0}, "weight is 0.0"),
        ({"max_clients": 0}, "max_clients is 0"),
        ({"queue_max": -1}, "queue.max is -1"),
        ({"queue_timeout_seconds": -1.0}, "queue.timeout is -1.0"),
        ({"priority": -1}, "priority is -1"),
        ({"lend_memory_seconds": -0.5}, "lend_memory is -0.5"),
    ],
)
def test_what_a_class_cannot_be(numbers: dict[str, Any], words: str) -> None:
    [problem] = one_class(**numbers).validate()
    assert problem.startswith('class "web": ')
    assert words in problem


def test_promises_above_the_total_are_added_up() -> None:
    web, admin = ClassSettings("web", reserved=80, limit=90), ClassSettings("admin", reserved=15, limit=15)
    [problem] = budget(100, web, admin, headroom=10, headroom_for=["web"]).validate()
    assert problem == (
        "reservations and headroom are 80 (web) + 15 (admin) + 10 (headroom) = 105, but budget.total is 100"
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (budget(0, ClassSettings("a", limit=1)), "budget.total is 0"),
        (budget(1), "there is no class"),
        (budget(1, ClassSettings("a", limit=1), ClassSettings("a", limit=1)), 'class "a" is defined 2 times'),
        (budget(1, ClassSettings("", limit=1)), "without a name"),
        (budget(1, ClassSettings("a", limit=1), headroom=1), "names nobody"),
        (budget(1, ClassSettings("a", limit=1), headroom=-1), "headroom.size is -1"),
        (budget(2, ClassSettings("a", limit=1), headroom=1, headroom_for=["b"]), 'names "b", and there is no such'),
        (budget(2, ClassSettings("internal", limit=1)), "need at least 1"),
    ],
)
def test_what_a_budget_cannot_be(settings: BudgetSettings, words: str) -> None:
    assert any(words in problem for problem in settings.validate())


def test_the_class_of_the_proxy_itself_is_added_once(settings: BudgetSettings) -> None:
    with_internal = with_internal_class(settings)
    assert with_internal.classes[0] == ClassSettings("internal", priority=0, reserved=1, lendable=0, limit=2)
    assert with_internal.classes[1:] == settings.classes
    assert with_internal_class(with_internal) is with_internal


def test_the_class_of_the_proxy_counts_in_the_budget() -> None:
    full = budget(10, ClassSettings("web", reserved=10, limit=10))
    assert full.validate() == []
    assert len(with_internal_class(full).validate()) == 1
