"""Cancel requests: which client a key names, and carrying one to the server without hitting the next client.

Owns: the keys given to clients, cancel connections to the server.
Does not know: what a client does when it is cancelled, slots (a cancel request needs none).
Source: PostgreSQL manual, "Canceling Requests in Progress" (protocol-flow).
"""

import asyncio
import hmac
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from proxy.session.connector import Connector
from proxy.session.measures import Measures
from proxy.session.routes import DialFailed, Route
from proxy.session.server import ServerConnection
from proxy.session.tasks import TaskGroup
from proxy.session.transports import as_stream
from proxy.wire.startup import CancelRequest, encode_cancel_request

if TYPE_CHECKING:
    from proxy.session.upstream import Upstream

log = structlog.get_logger()

# Above every process id of a server: a driver that drops notifications from "itself" must not drop those of others.
_FIRST_PROCESS_ID: Final = 1 << 22
KEY_BYTES: Final = {0: 4, 2: 32}  # by minor protocol version: 3.0 knows four bytes, 3.2 up to 256
_CANCEL_TIMEOUT_SECONDS: Final = 10.0


class Cancellable(Protocol):
    upstream: "Upstream"

    def cancel_requested(self) -> None: ...


class CancelKeys:
    """(process id, secret key) of every logged-in client. The process id is ours; it names no process."""

    def __init__(self) -> None:
        self._clients: dict[int, tuple[bytes, Cancellable]] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def issue(self, client: Cancellable, minor_version: int) -> tuple[int, bytes]:
        process_id = _draw_process_id()
        while process_id in self._clients:
            process_id = _draw_process_id()
        key = secrets.token_bytes(KEY_BYTES.get(minor_version, 4))
        self._clients[process_id] = (key, client)
        return process_id, key

    def withdraw(self, process_id: int) -> None:
        self._clients.pop(process_id, None)

    def find_or_none(self, request: CancelRequest) -> Cancellable | None:
        entry = self._clients.get(request.process_id)
        if entry is None or not hmac.compare_digest(entry[0], request.secret_key):
            return None
        return entry[1]


def _draw_process_id() -> int:
    return _FIRST_PROCESS_ID + 1 + secrets.randbelow((1 << 31) - _FIRST_PROCESS_ID - 1)


class _CancelConnection(asyncio.Protocol):
    """Sends one CancelRequest. The server closes its side after the signal was sent to the backend."""

    def __init__(self, request: bytes, closed: asyncio.Future[None]) -> None:
        self._request = request
        self._closed = closed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        as_stream(transport).write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closed.done():
            self._closed.set_result(None)


class Canceller:
    """Carries cancels to server connections."""

    def __init__(self, connector: Connector, measures: Measures, tasks: TaskGroup) -> None:
        self._connector = connector
        self._measures = measures
        self._tasks = tasks
        self._latest: asyncio.Task[None] | None = None

    def begun_by(self, ask: Callable[[], None]) -> asyncio.Task[None] | None:
        """Call `ask`, and return the carrying that it began, if it began one.

        A client is told that its request has been taken by the end of that connection, as by a server. If that came
        before the signal, the statement which it sends next could be hit.
        """
        self._latest = None
        ask()
        return self._latest

    def cancel(self, server: ServerConnection) -> None:
        """Cancel what runs on `server`. Whoever holds it is told `cancel_over` once no signal of ours can reach it.

        Until then the connection must not serve another client: without that wait nearly every cancel that comes as
        its query ends hits the next query instead.
        """
        server.cancels_under_way += 1
        self._measures.cancels_forwarded += 1
        self._latest = self._tasks.spawn(self._carry(server), name=f"cancel {server.process_id}")

    async def _carry(self, server: ServerConnection) -> None:
        arrived = False
        try:
            arrived = await self._send(encode_cancel_request(server.process_id, server.secret_key), server.route)
        finally:
            server.cancels_under_way -= 1
            if not arrived:
                server.retire_at = 0.0  # the signal may still come: nobody else may get this connection
            if server.client is not None:
                server.client.cancel_over()

    async def _send(self, request: bytes, route: Route | None) -> bool:
        """To the same address as the connection that it names: of several hosts the others would not know it."""
        assert route is not None, "a connection that serves clients was dialled along a route"
        closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(_CANCEL_TIMEOUT_SECONDS):
                await self._connector.open(lambda _: _CancelConnection(request, closed), route)
                await closed
        except (DialFailed, TimeoutError) as failure:
            log.warning("cancel_not_delivered", why=str(failure) or "timeout")
            return False
        return True
