"""How long logins may take: those under way, and one timer for all of them.

Owns: when each began, and telling the one whose time is over.
Does not know: what a login is, what it is told.

Whoever began first is due first, for all have the same time: nothing has to be sorted, and a login costs an entry here
and not a timer of the loop.
"""

import asyncio
from typing import Final, Protocol

from proxy.session import clock

_LOOP_RESOLUTION_SECONDS: Final = 0.001  # never woken before the time


class Timed(Protocol):
    """A login under way."""

    def timed_out(self) -> None: ...


class LoginTimes:
    """`seconds` may change at any time, and counts for who is under way as well."""

    def __init__(self, seconds: float, loop: asyncio.AbstractEventLoop) -> None:
        self.seconds = seconds
        self._loop = loop
        self._began_at: dict[Timed, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, login: Timed) -> None:
        """`timed_out` of the login is called when its time is over, unless it is said to be over before."""
        self._began_at[login] = clock.now()
        if self._timer is None:
            self._look_in(self.seconds)

    def over(self, login: Timed) -> None:
        """One way or the other. The timer stays: the next login begins within its time on a busy day."""
        self._began_at.pop(login, None)

    def adopt(self, seconds: float) -> None:
        """From a reload."""
        self.seconds = seconds
        if self._timer is not None:
            self._timer.cancel()
            self._look()

    def _look_in(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds + _LOOP_RESOLUTION_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        now = clock.now()
        for login, began_at in self._began_at.items():
            if began_at + self.seconds > now:
                self._look_in(began_at + self.seconds - now)
                return
            self._loop.call_soon(self._is_due, login)  # whatever goes wrong with one, the others are looked at

    def _is_due(self, login: Timed) -> None:
        if self._began_at.pop(login, None) is not None:
            login.timed_out()
