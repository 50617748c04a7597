"""Failed logins are answered late, and later each time; those that succeed are not.

Owns: how often a user failed from an address, how long the answer waits, and how many sockets may wait so at once.
Does not know: why a login failed, what is answered.

Only the answer to a failure waits: a worker with a wrong password that shares a user and an address with ten sound ones
does not slow them down. What waits is a socket and a timer, bounded in number; above that answers go out at once,
because memory is worth more than a guesser's time.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from proxy.session.settings import FailureSettings

_MAX_REMEMBERED: Final = 10_000  # users and addresses; names are chosen by clients

Origin = tuple[str, str | None]
"""The user a client said it is, and its address; None on a unix socket."""


class FailedLogins:
    """All failures of this process. `settings` may be replaced at any time."""

    def __init__(self, settings: FailureSettings, loop: asyncio.AbstractEventLoop) -> None:
        self.settings = settings
        self._loop = loop
        self._failures: OrderedDict[Origin, tuple[int, float]] = OrderedDict()  # how often, when last
        self._held: dict[object, tuple[asyncio.TimerHandle, Callable[[], None]]] = {}

    @property
    def held(self) -> int:
        """Answers that wait now."""
        return len(self._held)

    def note(self, origin: Origin, now: float) -> float:
        """A login has failed: the seconds its answer is to wait."""
        settings = self.settings
        times = self.recent(origin, now)
        self._failures[origin] = (times + 1, now)
        self._failures.move_to_end(origin)
        if len(self._failures) > _MAX_REMEMBERED:
            self._failures.popitem(last=False)
        # The exponent is bounded too: 2.0 ** 2000 is no number.
        return min(settings.max_delay_seconds, settings.delay_seconds * 2.0 ** min(times, 60))

    def recent(self, origin: Origin, now: float) -> int:
        """How often it has failed and is not forgiven yet."""
        times, last = self._failures.get(origin, (0, now))
        return 0 if now - last > self.settings.forget_after_seconds else times

    def hold(self, client: object, seconds: float, answer: Callable[[], None]) -> None:
        """Call `answer` after so long, or at once where too many wait already."""
        if seconds <= 0.0 or len(self._held) >= self.settings.max_held:
            answer()
            return
        self._held[client] = (self._loop.call_later(seconds, self._over, client), answer)

    def left(self, client: object) -> None:
        """The client has hung up: nobody is there to be answered."""
        timer, _ = self._held.pop(client, (None, None))
        if timer is not None:
            timer.cancel()

    def answer_all(self) -> None:
        """The process ends: nobody waits for nothing."""
        for client in list(self._held):
            self._held[client][0].cancel()
            self._over(client)

    def _over(self, client: object) -> None:
        _, answer = self._held.pop(client)
        answer()
