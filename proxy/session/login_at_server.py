"""The login of one server connection.

Owns: what is answered to each message of the server's until it lets us in, and how that ended.
Does not know: how the connection was dialled, what it is used for.
"""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from proxy.session.encryption import server_certificate_der
from proxy.wire.errors import ProtocolViolation
from proxy.wire.login import LoginState
from proxy.wire.messages import ErrorFields
from proxy.wire.server_login import ServerLogin

if TYPE_CHECKING:
    from proxy.session.server import ServerConnection


class LoginAtServer:
    """`over` gets the error with which it ended, None for success."""

    def __init__(self, login: ServerLogin, loop: asyncio.AbstractEventLoop) -> None:
        self.over: asyncio.Future[ErrorFields | None] = loop.create_future()
        self._login = login

    @property
    def parameters(self) -> Mapping[str, str]:
        """As the server reported them."""
        return self._login.parameters

    def begin(self, transport: asyncio.Transport) -> None:
        is_local = not isinstance(transport.get_extra_info("peername"), tuple)
        self._login.runs_on(server_certificate_der(transport), is_local=is_local)
        transport.write(self._login.start())

    def received(self, server: "ServerConnection", kind: int, payload: bytes) -> None:
        login = self._login
        try:
            reply = login.receive(kind, payload)
        except ProtocolViolation as violation:
            self.ended(ErrorFields("FATAL", "08P01", str(violation)))
            server.pool.broke_protocol(server, violation)
            return
        if reply:
            server.transport.write(reply)
        if login.state is LoginState.DONE:
            server.logged_in(login.process_id, login.secret_key)
            self.ended(None)
        elif login.state is LoginState.FAILED:
            assert login.error is not None, "a failed login carries its error"
            server.terminate()
            self.ended(login.error)

    def ended(self, error: ErrorFields | None) -> None:
        if not self.over.done():
            self.over.set_result(error)
