"""One question of the proxy's own to a server connection that it has.

Owns: sending a query and collecting the rows.
Does not know: pools, how the connection was come by, why it is asked.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from proxy.session import clock
from proxy.session.holder import Holder
from proxy.session.server import ServerConnection
from proxy.session.statements import NO_UNNAMED
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


class Question(Holder):
    """One query. It is its own client: what the server sends ends here. `values` stand for $1, $2 ... in it."""

    def __init__(self, sql: str, values: Sequence[str] = ()) -> None:
        self.transport = self
        self._kind = messages.SYNC if values else messages.QUERY
        self._message = messages.parameterised_query(sql, values) if values else messages.query(sql)
        self._cursor = server_cursor(_WANTED)
        self._rows: list[Row] = []
        self._error: ErrorFields | None = None
        self._server: ServerConnection | None = None
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def ask(self, server: ServerConnection) -> list[Row]:
        """The rows as text. Raises OwnQueryFailed. The caller bounds the time and takes the connection back."""
        self._send(server)
        try:
            await self._over
        finally:
            if self._server is not None and server.is_clean:
                server.unlink(clock.now())
        return self._answer()

    def _send(self, server: ServerConnection) -> None:
        self._server = server
        server.link(self)
        server.send_one(self._message, self._kind)
        server.unnamed = NO_UNNAMED  # whose ever it was: a client must parse its own again

    def _answer(self) -> list[Row]:
        if self._error is not None:
            raise OwnQueryFailed(self._error)
        return self._rows

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
