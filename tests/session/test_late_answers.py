"""Which answers wait, and how many at once. How long is told in tests/admission/test_retry_turns.py."""

import asyncio
from collections.abc import Callable

import pytest

from proxy.admission.draws import middle
from proxy.admission.lateness import LatenessSettings
from proxy.session.late_answers import LateAnswers
from tests.support.eventually import eventually


@pytest.fixture
async def make() -> Callable[..., LateAnswers]:
    return lambda **changes: LateAnswers(LatenessSettings(**changes), asyncio.get_running_loop(), middle)


async def test_an_answer_waits_its_time_and_no_longer_than_the_process(make) -> None:
    answers, answered = make(), []
    answers.hold("soon", 0.01, lambda: answered.append("soon"))
    answers.hold("late", 60.0, lambda: answered.append("late"))
    answers.hold("gone", 60.0, lambda: answered.append("gone"))
    assert answers.held == 3
    await eventually(lambda: answered == ["soon"])
    answers.left("gone")
    answers.answer_all()
    assert (answered, answers.held) == (["soon", "late"], 0)


async def test_above_the_bound_and_without_a_delay_answers_go_out_at_once(make) -> None:
    answers, answered = make(max_held=1), []
    answers.hold("one", 0.0, lambda: answered.append("one"))
    answers.hold("two", 60.0, lambda: answered.append("two"))
    answers.hold("three", 60.0, lambda: answered.append("three"))
    assert (answered, answers.held) == (["one", "three"], 1)
    answers.answer_all()
