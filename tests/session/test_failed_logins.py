"""How late failed logins are answered."""

import asyncio
from collections.abc import Callable

import pytest

from proxy.session import failed_logins
from proxy.session.failed_logins import FailedLogins
from proxy.session.settings import FailureSettings
from tests.support.eventually import eventually

APP = ("app", "10.0.0.7")
WEB = ("web", "10.0.0.7")


@pytest.fixture
async def make() -> Callable[..., FailedLogins]:
    return lambda **changes: FailedLogins(FailureSettings(**changes), asyncio.get_running_loop())


async def test_each_failure_of_one_user_from_one_address_waits_twice_as_long_up_to_a_bound(make) -> None:
    failures = make(delay_seconds=1.0, max_delay_seconds=5.0)
    assert [failures.note(APP, float(now)) for now in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert failures.note(WEB, 5.0) == 1.0
    assert failures.note(("app", None), 5.0) == 1.0


async def test_a_thousand_failures_are_no_number_too_large(make) -> None:
    failures = make(delay_seconds=1.0, max_delay_seconds=5.0)
    assert [failures.note(APP, 0.0) for _ in range(3000)][-1] == 5.0


async def test_after_a_while_without_one_it_begins_anew(make) -> None:
    failures = make(delay_seconds=1.0, forget_after_seconds=60.0)
    failures.note(APP, 0.0)
    assert (failures.recent(APP, 60.0), failures.recent(APP, 61.0)) == (1, 0)
    assert failures.note(APP, 100.0) == 1.0


async def test_the_names_that_clients_invent_are_bounded(make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failed_logins, "_MAX_REMEMBERED", 10)
    failures = make()
    for number in range(50):
        failures.note((f"guest{number}", None), 0.0)
    assert failures.recent(("guest39", None), 0.0) == 0
    assert failures.recent(("guest40", None), 0.0) == 1


async def test_an_answer_waits_its_time_and_no_longer_than_the_process(make) -> None:
    failures, answered = make(), []
    failures.hold("soon", 0.01, lambda: answered.append("soon"))
    failures.hold("late", 60.0, lambda: answered.append("late"))
    failures.hold("gone", 60.0, lambda: answered.append("gone"))
    assert failures.held == 3
    await eventually(lambda: answered == ["soon"])
    failures.left("gone")
    failures.answer_all()
    assert (answered, failures.held) == (["soon", "late"], 0)


async def test_above_the_bound_and_without_a_delay_answers_go_out_at_once(make) -> None:
    failures, answered = make(max_held=1), []
    failures.hold("one", 0.0, lambda: answered.append("one"))
    failures.hold("two", 60.0, lambda: answered.append("two"))
    failures.hold("three", 60.0, lambda: answered.append("three"))
    assert (answered, failures.held) == (["one", "three"], 1)
    failures.answer_all()
