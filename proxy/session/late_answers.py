"""Answers that are told late: to logins that fail or are refused, later each time; those that succeed never wait.

Owns: which answers wait, and how many sockets may wait so at once.
Does not know: why a login failed, what is answered, how late (`admission.lateness` says so).

Only the answer to a failure waits: a worker with a wrong password that shares a user and an address with ten sound ones
does not slow them down. What waits is a socket and a timer, bounded in number; above that answers go out at once,
because memory is worth more than the time of a guesser, or of a client that reconnects in a loop.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Generic

from proxy.admission.draws import Draw
from proxy.admission.lateness import K, Lateness, LatenessSettings

# Below this a wait keeps no loop from spinning, and costs a timer.
_SHORTEST_WAIT_SECONDS: Final = 0.001


class LateAnswers(Generic[K]):
    """One kind of failure of this process: what is remembered of it, and the answers that wait."""

    def __init__(self, settings: LatenessSettings, loop: asyncio.AbstractEventLoop, draw: Draw) -> None:
        self.lateness: Lateness[K] = Lateness(settings, draw)
        self._loop = loop
        self._held: dict[object, tuple[asyncio.TimerHandle, Callable[[], None]]] = {}

    @property
    def held(self) -> int:
        """Answers that wait now."""
        return len(self._held)

    def hold(self, client: object, seconds: float, answer: Callable[[], None]) -> None:
        """Call `answer` after so long, or at once where too many wait already."""
        if seconds < _SHORTEST_WAIT_SECONDS or len(self._held) >= self.lateness.settings.max_held:
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
