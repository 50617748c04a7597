"""What the proxy has sent of its own on one server connection, ahead of the client's messages.

Owns: where the answer to it ends, the error and the rows in that, the settings that it leaves.
Does not know: why it was sent, what follows it, who is linked.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from proxy.session.parameters import Settings
from proxy.wire import messages
from proxy.wire.framing import Fact
from proxy.wire.messages import ErrorFields

if TYPE_CHECKING:
    from proxy.session.server import ServerConnection


class Injected:
    """One at a time. `rows` are those of a question, None where none was asked; whoever asked takes them."""

    __slots__ = ("_error", "_want", "rows")

    def __init__(self) -> None:
        self.rows: list[list[str | None]] | None = None
        self._want: Settings | None = None
        self._error: ErrorFields | None = None

    def begins(self, want: Settings | None) -> None:
        """`want` are the settings that the connection has if all of it succeeds."""
        self._want = want

    def take_rows(self) -> list[list[str | None]]:
        rows, self.rows = self.rows or [], None
        return rows

    def take_error(self) -> ErrorFields | None:
        error, self._error = self._error, None
        return error

    def ends_at(self, server: "ServerConnection", buffer: bytes, facts: Sequence[Fact]) -> int:
        """Which of `facts` is the ReadyForQuery behind it, -1 while that has not come. Notes what stands before."""
        for index, (kind, start, end) in enumerate(facts):
            payload = buffer[start + 5 : end]
            if kind == messages.PARAMETER_STATUS:
                server.note_parameter(payload)
            elif kind == messages.ERROR_RESPONSE and self._error is None:
                self._error = messages.parse_error_fields(payload)
                server.note_own_error(buffer, start, end)
            elif kind == messages.NOTIFICATION_RESPONSE and server.client is not None:
                server.client.transport.write(buffer[start:end])  # to a pinned client: it comes at any time
            elif kind == messages.DATA_ROW and self.rows is not None:
                self.rows.append(messages.parse_text_row(payload))
            elif kind == messages.READY_FOR_QUERY:
                return index
        return -1

    def settle(self, server: "ServerConnection") -> None:
        """After success: reported parameters are what the server said, the others what was asked for."""
        want, self._want = self._want, None
        if want is None or self._error is not None:
            return
        table, told = server.pool.table, server.settings.values
        values = {}
        for name, asked in want.values.items():
            values[name] = told.get(name, asked) if table.is_reported(name) else asked
            table.accept(name, asked, values[name])
        server.settings = table.intern(values)
