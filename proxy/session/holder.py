"""Who holds a server connection, and what it is told.

Owns: these interfaces, between `server` and whoever is linked to one.
Does not know: either side.
"""

from typing import TYPE_CHECKING, Protocol

from proxy.wire.messages import ErrorFields

if TYPE_CHECKING:
    from proxy.session.server import ServerConnection


class Writable(Protocol):
    """The part of a transport that the relay uses on the leg it does not own."""

    def write(self, data: bytes) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Holder:
    """Whoever holds a server connection. A base class and no Protocol: the relay calls it for every answer."""

    __slots__ = ("transport",)

    transport: Writable

    def unit_may_be_over(self) -> None:
        """The server is idle outside a transaction and owes no answer."""
        raise NotImplementedError

    def server_lost(self, server: "ServerConnection") -> None:
        """The server closed its side while linked."""
        raise NotImplementedError

    def injected_done(self, server: "ServerConnection", error: ErrorFields | None) -> None:
        """What the proxy sent of its own is answered; after an error nothing of the client's has run."""
        raise NotImplementedError

    def copy_begins(self) -> None:
        """The server waits for copy data."""
        raise NotImplementedError

    def cancel_over(self) -> None:
        """A cancel that was under way to this connection can no longer reach it."""
        raise NotImplementedError

    def ready(self, failed: bool) -> None:
        """A ReadyForQuery of the client's own has passed, an ErrorResponse before it if `failed`."""
        raise NotImplementedError
