"""A query of the proxy's own: what the server allows, whether a backend still lives, what is stored of a user.

Owns: coming by a connection of a pool for it, giving it back, and that the query does not outlive its time.
Does not know: why it is asked. Whoever runs inside a budget takes a slot of the class `internal` first.
"""

import asyncio
from collections.abc import Sequence

from proxy.session import clock
from proxy.session.cancel import Canceller
from proxy.session.parameters import Settings
from proxy.session.pool import Pool
from proxy.session.question import OwnQueryFailed, Question, Row
from proxy.session.server import ServerConnection
from proxy.wire.messages import ErrorFields

__all__ = ["OwnQuery", "OwnQueryFailed", "Row"]


class OwnQuery(Question):
    """One query on one pool. With a `canceller` a query that is late is cancelled on the server, whose backend would
    otherwise go on with it and count against the budget."""

    def __init__(
        self,
        pool: Pool,
        sql: str,
        *,
        values: Sequence[str] = (),
        timeout_seconds: float,
        canceller: Canceller | None = None,
    ) -> None:
        super().__init__(sql, values)
        self._canceller = canceller
        self.settings: Settings | None = None
        self.urgency = 0
        self.class_name = "internal"
        self._pool = pool
        self._timeout_seconds = timeout_seconds
        self.process_id = 0  # as the login of the connection that was used named it

    async def run(self) -> list[Row]:
        """The rows as text. Raises OwnQueryFailed."""
        self._pool.want(self)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._over
        except TimeoutError:
            self._error = ErrorFields("FATAL", "08006", "the server did not answer in time")
        finally:
            self._give_back()
        return self._answer()

    def _give_back(self) -> None:
        server, self._server = self._server, None
        if server is None:
            self._pool.gave_up(self)
        elif server.is_clean and not server.is_cut():
            server.unlink(clock.now())
            self._pool.put_idle(server)
        else:
            if self._canceller is not None and server.is_open:
                self._canceller.cancel(server)
            self._pool.close(server)

    # -- what the pool brings -----------------------------------------------------------------------------------------

    def gives_up_at(self) -> float:
        return 0.0

    def server_ready(self, server: ServerConnection) -> None:
        self.process_id = server.process_id
        self._send(server)

    def server_failed(self, error: ErrorFields) -> None:
        self._error = error
        self._finish()
