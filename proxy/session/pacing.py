"""Logins take turns with the queries of those who are logged in already.

Owns: the queue of login steps, and how long the loop may spend on them before it looks at its sockets again.
Does not know: what a step does.

A login costs tens of queries. When 150 workers wake in the same millisecond, their logins as they come would keep the
loop busy for a tenth of a second, and every customer would wait for it.
"""

import asyncio
from time import monotonic
from typing import Final, Protocol

from proxy.session.urgency import UrgentQueue

TURN_SECONDS: Final = 0.0005  # of logins per turn of the loop: what a query may have to wait for behind them


class Steps(Protocol):
    """A login that has something to do.

    `urgency` is that of the class which the client says it belongs to, 0 before it did.
    """

    urgency: int

    def next_step(self) -> None:
        """Handles its own errors."""


class LoginPacer:
    """Runs steps in the order of their turns, at most for TURN_SECONDS in one turn of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: UrgentQueue[Steps] = UrgentQueue()
        self._has_turn = False

    @property
    def has_others(self) -> bool:
        """Somebody else waits for a turn."""
        return len(self._waiting) > 0

    def queue(self, steps: Steps) -> None:
        """One `next_step` is run soon, and not before this returns: the most urgent first."""
        self._waiting.append(steps)
        if not self._has_turn:
            self._has_turn = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        waiting = self._waiting
        # Not the loop's clock: uvloop reads that once per turn.
        ends_at = monotonic() + TURN_SECONDS
        while waiting:
            waiting.popleft().next_step()
            if monotonic() >= ends_at:
                break
        self._has_turn = bool(waiting)
        if waiting:
            self._loop.call_soon(self._turn)
