"""Waiting for what becomes true soon, without sleeping for a guessed time.

Owns: the deadline and the pace of asking.
Does not know: what is waited for.
"""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

PACE_SECONDS = 0.02


async def eventually(
    check: Callable[[], T | Awaitable[T]], *, within_seconds: float = 5.0, but: Callable[[], object] | None = None
) -> T:
    """Call `check` (plain or async) until it returns something true, and return that.

    An AssertionError raised by `check` counts as "not yet". At the deadline that assertion is raised, or one that names
    `check`'s last answer and, where given, what `but` returns (for example a log).
    """
    deadline = time.monotonic() + within_seconds
    while True:
        answer: object = None
        try:
            answer = check()
            if inspect.isawaitable(answer):
                answer = await answer
            if answer:
                return answer  # type: ignore[return-value]  # the awaited kind of T | Awaitable[T]
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() <= deadline, _never(answer, within_seconds, but)
        await asyncio.sleep(PACE_SECONDS)


def eventually_sync(
    check: Callable[[], T], *, within_seconds: float = 5.0, but: Callable[[], object] | None = None
) -> T:
    """The same for tests that are not async."""
    deadline = time.monotonic() + within_seconds
    while True:
        answer: object = None
        try:
            answer = check()
            if answer:
                return answer
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() <= deadline, _never(answer, within_seconds, but)
        time.sleep(PACE_SECONDS)


def _never(answer: object, within_seconds: float, but: Callable[[], object] | None) -> str:
    seen = f"; {but()}" if but is not None else ""
    return f"still {answer!r} after {within_seconds} s{seen}"
