"""A query of the proxy's own: what the server allows, whether a backend still lives.

Owns: sending one simple query on a pool's connection and collecting the rows.
Does not know: why it is asked. Whoever runs inside a budget takes a slot of the class `internal` first.
"""

import asyncio
from typing import Final

from proxy.session import clock
from proxy.session.parameters import Settings
from proxy.session.pool import Pool
from proxy.session.server import Holder, ServerConnection
from proxy.wire import messages
from proxy.wire.framing import server_cursor
from proxy.wire.messages import ErrorFields

Row = list[str | None]
_WANTED: Final = bytes((messages.DATA_ROW, messages.ERROR_RESPONSE, messages.READY_FOR_QUERY))


class OwnQueryFailed(Exception):  # noqa: N818 - says what happened
    """The server did not answer, or answered with an error; `fields` tells."""

    def __init__(self, fields: ErrorFields) -> None:
        super().__init__(fields.message)
        self.fields = fields


class OwnQuery(Holder):
    """One query on one pool. It is its own client: what the server sends ends here."""

    def __init__(self, pool: Pool, sql: str, *, timeout_seconds: float) -> None:
        self.settings: Settings | None = None
        self.transport = self
        self.urgency = 0
        self.class_name = "internal"
        self._pool = pool
        self._sql = sql
        self._timeout_seconds = timeout_seconds
        self._cursor = server_cursor(_WANTED)
        self._rows: list[Row] = []
        self._error: ErrorFields | None = None
        self._server: ServerConnection | None = None
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

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
        if self._error is not None:
            raise OwnQueryFailed(self._error)
        return self._rows

    def _give_back(self) -> None:
        server, self._server = self._server, None
        if server is None:
            self._pool.gave_up(self)
        elif server.is_clean:
            server.unlink(clock.now())
            self._pool.put_idle(server)
        else:
            self._pool.close(server)

    # -- what the pool brings -----------------------------------------------------------------------------------------

    def gives_up_at(self) -> float:
        return 0.0

    def server_ready(self, server: ServerConnection) -> None:
        self._server = server
        server.link(self)
        server.send_one(messages.query(self._sql), messages.QUERY)

    def server_failed(self, error: ErrorFields) -> None:
        self._error = error
        self._finish()

    # -- what the server sends ----------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        buffer, facts = self._cursor.feed(data)
        for kind, start, end in facts:
            payload = buffer[start + 5 : end]
            if kind == messages.DATA_ROW:
                self._rows.append(messages.parse_text_row(payload))
            elif kind == messages.ERROR_RESPONSE:
                self._error = messages.parse_error_fields(payload)

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def unit_may_be_over(self) -> None:
        self._finish()

    def server_lost(self, server: ServerConnection) -> None:
        self._server = None
        self._error = self._error or ErrorFields("FATAL", "08006", "the server went away")
        self._finish()

    def injected_done(self, server: ServerConnection, error: ErrorFields | None) -> None: ...

    def cancel_over(self) -> None: ...

    def copy_begins(self) -> None: ...

    def ready(self, failed: bool) -> None: ...

    def _finish(self) -> None:
        if not self._over.done():
            self._over.set_result(None)
