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
_DRAWN_FOR_ID: Final = 4  # bytes
_CANCEL_TIMEOUT_SECONDS: Final = 10.0


class Cancellable(Protocol):
    """`process_id` and `secret_key` are what `CancelKeys.issue` has given it, 0 and nothing before."""

    upstream: "Upstream"
    process_id: int
    secret_key: bytes

    def cancel_requested(self) -> None: ...


class CancelKeys:
    """(process id, secret key) of every logged-in client. The process id is ours; it names no process."""

    def __init__(self) -> None:
        self._clients: dict[int, Cancellable] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def issue(self, client: Cancellable, minor_version: int) -> None:
        """A key for a client that has none yet."""
        count = KEY_BYTES.get(minor_version, 4)
        drawn = secrets.token_bytes(_DRAWN_FOR_ID + count)
        process_id = _process_id_of(drawn[count:])
        while process_id in self._clients:
            process_id = _process_id_of(secrets.token_bytes(_DRAWN_FOR_ID))
        client.process_id, client.secret_key = process_id, drawn[:count]
        self._clients[process_id] = client

    def withdraw(self, process_id: int) -> None:
        self._clients.pop(process_id, None)

    def find_or_none(self, request: CancelRequest) -> Cancellable | None:
        client = self._clients.get(request.process_id)
        if client is None or not hmac.compare_digest(client.secret_key, request.secret_key):
            return None
        return client


def _process_id_of(drawn: bytes) -> int:
    """Any of those there are; it is no secret, and need not be drawn more evenly than this."""
    return _FIRST_PROCESS_ID + 1 + int.from_bytes(drawn, "big") % ((1 << 31) - _FIRST_PROCESS_ID - 1)


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
