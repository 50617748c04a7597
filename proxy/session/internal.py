"""What the proxy's own connections need: the pool of the upstream's user, and slots, of the class `internal` mostly.

Owns: how such a slot is asked for and given back.
Does not know: what it is used for.
"""

import asyncio
from typing import TYPE_CHECKING

from proxy.admission.classes import INTERNAL_CLASS, ClientId
from proxy.admission.decisions import Grant, Refuse, StillWaiting
from proxy.session import clock
from proxy.session.pool import Pool
from proxy.session.registry import Registry
from proxy.session.settings import UpstreamSettings
from proxy.wire.login import Credentials

if TYPE_CHECKING:
    from proxy.session.upstream import Upstream


def own_pool(registry: Registry, upstream: UpstreamSettings) -> Pool:
    """The pool of the proxy's own queries: the user of the upstream URL; it also tries while the server is down."""
    pool = registry.pool(upstream.database, upstream.user)
    if pool.credentials is None:
        pool.credentials = Credentials(password=upstream.password)
    pool.tries_while_down = True
    return pool


class NoInternalSlot(Exception):  # noqa: N818 - says what happened
    """No slot came within the queue's time; nothing is held."""


class InternalSlot:
    """A slot for the time of one query or login, of the class `internal` unless it is asked on behalf of another.

    Entering raises NoInternalSlot.
    """

    def __init__(self, upstream: "Upstream", class_name: str = INTERNAL_CLASS) -> None:
        self._class_name = class_name
        self._why_not = "the proxy has no slot for its own queries"
        self._gate = upstream.gate
        self.id: ClientId = upstream.desk.next_client_id()
        self._answer: asyncio.Future[bool] = upstream.desk.loop.create_future()

    async def __aenter__(self) -> None:
        self._gate.request(self, self._class_name, "internal")
        try:
            is_granted = await self._answer
        except asyncio.CancelledError:
            self._give_up()
            raise
        if not is_granted:
            raise NoInternalSlot(self._why_not)

    async def __aexit__(self, *_: object) -> None:
        self._gate.release(self.id, clock.now())

    def _give_up(self) -> None:
        """Cancelled while it waits, or in the same turn of the loop in which the grant came."""
        if self._answer.cancelled():
            self._gate.leave(self.id, self._class_name, 0.0)
        elif self._answer.result():
            self._gate.release(self.id, clock.now())

    def granted(self, grant: Grant) -> None:
        if self._answer.cancelled():  # a timeout of this very turn of the loop: whoever waited does not know yet
            self._gate.release(self.id, clock.now())
        else:
            self._answer.set_result(True)

    def refused(self, refusal: Refuse) -> None:
        if self._class_name != INTERNAL_CLASS:
            self._why_not = f'class "{self._class_name}" has no slot: {refusal.reason.value}'
        if not self._answer.cancelled():
            self._answer.set_result(False)

    def still_waiting(self, event: StillWaiting) -> None: ...

    def crashed(self) -> None:
        if not self._answer.done():
            self._gate.release(self.id, clock.now())
            self._answer.set_result(False)
