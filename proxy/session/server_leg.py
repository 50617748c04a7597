"""The leg to the server: one socket, from the login until the server has closed its side.

Owns: where the connection is, who holds it, its login, back pressure from the server to whoever holds it, its end.
Does not know: what the server says once it has let us in (`server`), slots and classes, how it was dialled.

    LOGIN -> IDLE <-> LINKED -> CLOSING -> GONE      (any state -> GONE when the server closes its side)

"Gone" is what the server does, never what we do: a closed socket leaves a backend that still counts against
max_connections until it has noticed.
"""

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol

from proxy.session import clock
from proxy.session.holder import Holder
from proxy.session.login_at_server import LoginAtServer
from proxy.session.parameters import SettingsTable
from proxy.session.routes import Route
from proxy.session.statements import StatementTable
from proxy.session.transports import set_up
from proxy.wire import messages
from proxy.wire.errors import ProtocolViolation
from proxy.wire.messages import ErrorFields
from proxy.wire.server_login import ServerLogin

if TYPE_CHECKING:
    from proxy.session.server import ServerConnection


class ServerState(Enum):
    """Where a server connection is; the values are those of the metric `server_connections{state}`."""

    LOGIN = "dialling"
    IDLE = "idle"
    LINKED = "in_use"
    CLOSING = "closing"
    GONE = "gone"


class ServerOwner(Protocol):
    """What a server connection expects of its pool."""

    table: SettingsTable
    statements: StatementTable
    max_statements: int

    def gone(self, server: "ServerConnection") -> None: ...

    def unfit(self, server: "ServerConnection", why: str) -> None:
        """An idle connection must not be handed out any more."""

    def broke_protocol(self, server: "ServerConnection", violation: ProtocolViolation) -> None: ...

    def doubts_role(self) -> None:
        """The server refused to write: it may have become a standby."""


# Numbers inside, for they are compared at every message; `state` shows them by name.
_LOGIN: Final = 0
_IDLE: Final = 1
_LINKED: Final = 2
_CLOSING: Final = 3
_GONE: Final = 4
_STATES: Final = (
    ServerState.LOGIN,
    ServerState.IDLE,
    ServerState.LINKED,
    ServerState.CLOSING,
    ServerState.GONE,
)


class ServerLeg:
    """What `ServerConnection` is besides reading what the server says."""

    def __init__(self, pool: ServerOwner, login: ServerLogin, loop: asyncio.AbstractEventLoop) -> None:
        self.pool = pool
        self.loop = loop
        self.transport: asyncio.Transport
        self.login = LoginAtServer(login, loop)
        self.route: Route | None = None  # set by whoever dialled
        self.process_id = 0
        self.secret_key = b""
        self.client: Holder | None = None
        self.is_full = False  # more is unsent than may be: whoever holds it is not read
        self.cancels_under_way = 0
        self.idle_since = clock.now()  # while linked: when a unit was answered behind which more is to come
        self.retire_at = float("inf")
        self.on_gone: Callable[[], None] | None = None
        self._state = _LOGIN

    @property
    def state(self) -> ServerState:
        return _STATES[self._state]

    @property
    def is_open(self) -> bool:
        """The server has not closed its side yet."""
        return self._state != _GONE

    # -- the socket -------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = set_up(transport)
        self.login.begin(self.transport)

    def eof_received(self) -> None:
        """Returning None closes our side too; connection_lost follows."""

    def connection_lost(self, exc: Exception | None) -> None:
        client, self.client = self.client, None
        self._state = _GONE
        on_gone, self.on_gone = self.on_gone, None
        why = f"the server hung up during login{f' ({exc})' if exc else ''}"
        self.login.ended(ErrorFields("FATAL", "08006", why, None, None))
        self._tell_loss(client)
        if on_gone is not None:
            on_gone()

    def _tell_loss(self, client: Holder | None) -> None:
        """Whoever held it, and the pool."""
        raise NotImplementedError

    def pause_writing(self) -> None:
        self.is_full = True
        if self.client is not None:
            self.client.transport.pause_reading()

    def resume_writing(self) -> None:
        self.is_full = False
        if self.client is not None:
            self.client.transport.resume_reading()

    # -- linking ----------------------------------------------------------------------------------------------------

    def logged_in(self, process_id: int, secret_key: bytes) -> None:
        self.process_id = process_id
        self.secret_key = secret_key
        self._state = _IDLE

    def link(self, client: Holder) -> None:
        assert self.client is None, "linked twice"
        assert self._state == _IDLE, f"linked while {self.state}"
        self.client = client
        self._state = _LINKED
        if self.is_full:
            client.transport.pause_reading()

    def unlink(self, now: float) -> None:
        """Give the connection back: the caller has seen that `is_clean`."""
        assert self.client is not None, "unlinked twice"
        if self.is_full:
            # The server gave up what it had not read yet. It takes the rest in its own time; the client goes on now.
            self.client.transport.resume_reading()
        self.client = None
        self._state = _IDLE
        self.idle_since = now

    def terminate(self) -> None:
        """Ask the server to end this session. It is gone when its side is closed, not before.

        What it still sends is thrown away. The write side is closed too: the client may have left in the middle of a
        message, and the server would take a Terminate for the rest of it.
        """
        if self._state >= _CLOSING:
            return
        self.client = None
        self._state = _CLOSING
        transport = self.transport
        transport.set_protocol(_Closing(self))
        transport.resume_reading()
        transport.write(messages.terminate())
        if transport.can_write_eof():
            transport.write_eof()
        else:
            transport.close()  # under TLS only close_notify ends a message that will never be whole


class _Closing(asyncio.Protocol):
    """Reads a terminated connection to its end."""

    def __init__(self, server: ServerLeg) -> None:
        self._server = server

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connection_lost(exc)
