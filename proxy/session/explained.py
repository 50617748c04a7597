"""The server's "canceling statement due to user request", told in words that say who cancelled it and why.

Owns: finding that one error in what the server sends, after the proxy itself has cancelled a query.
Does not know: why it was cancelled. Any other error passes as it is, and so does success: the query may be over first.
"""

from typing import TYPE_CHECKING, Final

from proxy.session.holder import Writable
from proxy.wire import messages
from proxy.wire.framing import server_cursor
from proxy.wire.messages import ErrorFields

if TYPE_CHECKING:
    from proxy.session.linked import Link

_WANTED: Final = bytes((messages.ERROR_RESPONSE, messages.READY_FOR_QUERY))
_QUERY_CANCELED: Final = b"\0C57014\0"
_HEADER_BYTES: Final = 5


class Explained:
    """Stands between the server and the transport of its client until the unit that was cancelled is answered."""

    __slots__ = ("_cursor", "_error", "_is_over", "_link", "_transport")

    def __init__(self, link: "Link", error: ErrorFields) -> None:
        self._link = link
        self._transport: Writable = link.transport
        self._error = messages.error_response(error)
        self._cursor = server_cursor(_WANTED)
        self._is_over = False

    @classmethod
    def put_before(cls, link: "Link", error: ErrorFields) -> None:
        """The server is not in mid-message."""
        link.transport = cls(link, error)  # type: ignore[assignment] # the base class asks for no more than Writable

    def write(self, data: bytes) -> None:
        buffer, facts = self._cursor.feed(data)
        at = 0
        for kind, start, end in facts:
            if kind == messages.READY_FOR_QUERY:
                self._is_over = True
            elif not self._is_over and end >= 0 and _QUERY_CANCELED in buffer[start + _HEADER_BYTES - 1 : end]:
                self._transport.write(buffer[at:start] + self._error)
                at = end
        if at < len(buffer):
            self._transport.write(buffer[at:])
        if self._is_over and self._cursor.at_boundary:
            self._link.transport = self._transport  # type: ignore[assignment] # it was the client's

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()
