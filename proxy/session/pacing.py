"""Logins take turns with the queries of those who are logged in already.

Owns: the queue of login steps, and how long the loop may spend on them before it looks at its sockets again.
Does not know: what a step does.

A login costs tens of queries. When 150 workers wake in the same millisecond, their logins as they come would keep the
loop busy for a tenth of a second, and every customer would wait for it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final

from proxy.session.urgency import UrgentQueue

TURN_SECONDS: Final = 0.0005  # of logins per turn of the loop: what a query may have to wait for behind them


@dataclass(frozen=True, slots=True)
class LoginStep:
    """`run` handles its own errors. `urgency` is that of the class the client says it belongs to, 0 before it did."""

    urgency: int
    run: Callable[[], None]


class LoginPacer:
    """Runs steps in the order they came, at most for TURN_SECONDS in one turn of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._steps: UrgentQueue[LoginStep] = UrgentQueue()
        self._has_turn = False

    def run(self, step: LoginStep) -> None:
        """`step` is run soon, and not before this returns: the most urgent first."""
        self._steps.append(step)
        if not self._has_turn:
            self._has_turn = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        steps = self._steps
        # Not the loop's clock: uvloop reads that once per turn.
        ends_at = monotonic() + TURN_SECONDS
        while steps:
            steps.popleft().run()
            if monotonic() >= ends_at:
                break
        self._has_turn = bool(steps)
        if steps:
            self._loop.call_soon(self._turn)
