"""The time that logins may take: one timer, and whoever began first is due first."""

import asyncio

from proxy.session.login_times import LoginTimes
from tests.support.eventually import eventually


class Login:
    def __init__(self) -> None:
        self.is_due = False

    def timed_out(self) -> None:
        self.is_due = True


class Broken(Login):
    def timed_out(self) -> None:
        super().timed_out()
        raise RuntimeError("nobody else's login ends with this one")


def times_of(seconds: float) -> LoginTimes:
    return LoginTimes(seconds, asyncio.get_running_loop())


async def test_each_login_is_due_after_its_time_and_none_that_is_over() -> None:
    times, first, over, last = times_of(0.05), Login(), Login(), Login()
    for login in (first, over):
        times.begin(login)
    times.over(over)
    await eventually(lambda: first.is_due)
    times.begin(last)
    await eventually(lambda: last.is_due)
    assert not over.is_due


async def test_one_that_goes_wrong_does_not_keep_the_others() -> None:
    raised: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
    times, broken, other = times_of(0.02), Broken(), Login()
    times.begin(broken)
    times.begin(other)
    await eventually(lambda: broken.is_due and other.is_due)
    assert len(raised) == 1


async def test_a_shorter_time_counts_for_who_is_under_way() -> None:
    times, login = times_of(600.0), Login()
    times.begin(login)
    times.adopt(0.02)
    await eventually(lambda: login.is_due)


async def test_a_longer_time_counts_for_who_is_under_way() -> None:
    times, early, late = times_of(0.05), Login(), Login()
    times.begin(early)
    times.adopt(600.0)
    times.adopt(0.1)
    times.begin(late)
    assert not early.is_due
    await eventually(lambda: early.is_due and late.is_due)
