"""A server connection whose client has left: made fit for the next one, or ended.

Owns: the steps from "the client is gone" to "the slot is free".
Does not know: classes and queues; the caller releases the slot when told that it is over.

    nothing runs, no transaction     -> (DISCARD ALL where state may be dirty) -> idle
    transaction open, nothing runs   -> ROLLBACK -> (DISCARD ALL) -> idle
    a query runs, or mid-message     -> cancel, terminate, wait until gone
    the same after a farewell        -> let it finish, then as above; terminate, where it may never be answered

With `cancel_on_disconnect` off a query of a client that vanished is let finish too, and where that cannot be followed
(mid-message, copy data that will never come) the connection is only terminated, and counts until it is gone.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from proxy.session import clock
from proxy.session.cancel import Canceller
from proxy.session.holder import Holder
from proxy.session.pool import Pool
from proxy.session.server import IDLE_STATUS, ServerConnection
from proxy.wire.messages import ErrorFields

_CANCEL_AGAIN_SECONDS: Final = (0.25, 30.0)  # the first pause, and the longest


class Nowhere:
    """Takes the place of the transport of a client that has left."""

    def write(self, data: bytes) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


_NOWHERE: Final = Nowhere()


class Cleaning(Holder):
    """Holds the server connection in place of the client until it is clean or gone."""

    def __init__(self, server: ServerConnection, pool: Pool, canceller: Canceller, over: Callable[[], None]) -> None:
        self.transport = _NOWHERE
        self._server = server
        self._pool = pool
        self._canceller = canceller
        self._over = over
        self._must_discard = False
        self._cancels = True
        self._timer: asyncio.TimerHandle | None = None

    def begin(
        self,
        *,
        is_dirty: bool,
        is_mid_message: bool,
        work_goes_on: bool = False,
        must_cancel: bool = False,
        is_spoilt: bool = False,
        is_unanswerable: bool = False,
    ) -> None:
        """`over` is called once, when the connection is idle in its pool or gone.

        `must_cancel`: whatever `cancel_on_disconnect` says. `is_unanswerable`: the server may skip what is awaited, and
        never answer it.
        """
        server = self._server
        if server.is_full and server.client is not None:
            server.client.transport.resume_reading()
        server.client = self
        server.transport.resume_reading()
        if is_spoilt:
            server.retire_at = 0.0  # it keeps what DISCARD ALL does not end
        self._must_discard = is_dirty
        self._cancels = must_cancel or self._pool.registry.settings.cancel_on_disconnect
        if (
            server.copying_in
            or is_mid_message
            or server.replies.is_skipping
            or (server.awaiting and self._cancels and not work_goes_on)
        ):
            self._end()
        elif server.awaiting and is_unanswerable:
            self._cancels = self._cancels and not work_goes_on
            self._end()  # the server carries out what it takes, and then the Terminate
        elif server.awaiting:
            server.tells_ready = True
        else:
            self._begin_cleaning()

    def _begin_cleaning(self) -> None:
        self._cancels = True  # from here on only statements of ours run
        seconds = self._pool.registry.settings.gone_timeout_seconds
        self._timer = self._pool.registry.loop.call_later(seconds, self._end)
        self._next_step()

    def _next_step(self) -> None:
        server = self._server
        if server.last_status != IDLE_STATUS:
            server.transport.write(server.inject("ROLLBACK"))
        elif self._must_discard:
            self._must_discard = False
            server.statements.all_deallocated()
            server.transport.write(server.inject("DISCARD ALL", want=self._pool.table.neutral))
        elif server.is_cut():
            self._end()
        elif server.cancels_under_way == 0:
            self._give_back()

    def copy_begins(self) -> None:
        """The client left before it knew that its data are waited for: they will never come."""
        self._end()

    def cancel_over(self) -> None:
        """A cancel was under way when the client left; now the connection may be shared again."""
        if self._server.is_clean and self._server.cancels_under_way == 0:
            self._next_step()

    def injected_done(self, server: ServerConnection, error: ErrorFields | None) -> None:
        if server.awaiting:
            return  # SETs ahead of the client's last work: `ready` tells when that is answered too
        if error is None or not server.is_clean:
            self._next_step()
        else:
            self._end()

    def _give_back(self) -> None:
        self._stop_timer()
        self._server.unlink(clock.now())
        self._pool.put_idle(self._server)
        self._over()

    def _end(self) -> None:
        self._stop_timer()
        server = self._server
        server.on_gone = self._gone
        if self._cancels and server.process_id:  # also where nothing is awaited: what a Flush started may run for hours
            self._cancel_until_gone(_CANCEL_AGAIN_SECONDS[0])
        self._pool.close(server)

    def _cancel_until_gone(self, pause_seconds: float) -> None:
        """Again and again: a server forgets a cancel that overtakes its query, and reads Terminate only after it."""
        self._canceller.cancel(self._server)
        longer = min(2 * pause_seconds, _CANCEL_AGAIN_SECONDS[1])
        self._timer = self._pool.registry.loop.call_later(pause_seconds, self._cancel_until_gone, longer)

    def _gone(self) -> None:
        self._stop_timer()
        self._over()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def server_lost(self, server: ServerConnection) -> None:
        self._stop_timer()
        self._over()

    def unit_may_be_over(self) -> None:
        """Answers to what the client had sent: nobody waits for them. A query that the server skips gets none."""
        if self._server.replies.is_skipping:
            self._end()

    def ready(self, failed: bool) -> None:
        """An answer to what the client had sent ahead of its farewell."""
        if not self._server.awaiting:
            self._server.tells_ready = False
            self._begin_cleaning()
