"""Dialling the server: TCP or unix socket, TLS, a bound on dials under way, and knowing when it is down.

Owns: how a transport to the server comes about, the backoff while the server is down.
Does not know: pools, slots, who asked.
Source: PostgreSQL manual, "SSL Session Encryption" (protocol-flow), "SSL Support" (libpq-ssl).
"""

import asyncio
import random
import ssl
from collections.abc import Callable
from typing import Protocol, TypeVar, cast

from proxy.session.settings import PoolSettings, SslMode, UpstreamSettings
from proxy.session.transports import Receiver, as_stream
from proxy.session.urgency import Turns
from proxy.wire.messages import ErrorFields
from proxy.wire.startup import encode_ssl_request


class Dialling(Receiver, Protocol):
    """What is to read a socket that is opened for it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...


P = TypeVar("P", bound=Dialling)


class DialFailed(Exception):  # noqa: N818 - says what happened
    """No usable server connection came of a dial.

    `fields` are the server's own error where it gave one. `is_outage` tells whether the server as a whole cannot be
    used (nobody can log in), as opposed to an answer to this user and database.
    """

    def __init__(self, fields: ErrorFields, *, is_outage: bool) -> None:
        super().__init__(fields.message)
        self.fields = fields
        self.is_outage = is_outage


class _SslNegotiation(asyncio.Protocol):
    """Waits for the one byte that answers an SSLRequest."""

    def __init__(self, answer: asyncio.Future[bytes]) -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = as_stream(transport)
        self._transport.write(encode_ssl_request())

    def data_received(self, data: bytes) -> None:
        if self._answer.done():
            return
        # More than one byte was not encrypted although it could have been: CVE-2021-23222.
        self._transport.pause_reading()
        self._answer.set_result(data if len(data) == 1 else b"?")

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._answer.done():
            self._answer.set_result(b"")


class Connector:
    """Makes transports to one upstream. `max_dials` dials, logins included, are under way at once."""

    def __init__(self, upstream: UpstreamSettings, pool: PoolSettings, loop: asyncio.AbstractEventLoop) -> None:
        self.upstream = upstream
        self.settings = pool
        self.loop = loop
        self.turns = Turns(pool.max_dials)
        self.down: ErrorFields | None = None  # the error of the last dial while nobody can log in
        self.is_down = asyncio.Event()
        self.seconds_until_retry = 0.0
        self._backoff_seconds = pool.retry_min_seconds

    # -- up and down ------------------------------------------------------------------------------------------------

    def went_down(self, error: ErrorFields) -> None:
        """Nobody can log in. Clients fail at once from now on; whoever watches tries again after a pause."""
        self.down = error
        self.seconds_until_retry = self._backoff_seconds * random.uniform(0.5, 1.0)  # noqa: S311 (jitter)
        self._backoff_seconds = min(self.settings.retry_max_seconds, self._backoff_seconds * 2)
        self.is_down.set()

    def answered(self) -> None:
        """The server lets somebody in, or says in so many words why not: it is there."""
        self.down = None
        self._backoff_seconds = self.settings.retry_min_seconds
        self.is_down.clear()

    # -- dialling ---------------------------------------------------------------------------------------------------

    async def open(self, make_protocol: Callable[[], P]) -> P:
        """Connect, negotiate TLS as sslmode says, and return the protocol that now reads the socket.

        Raises DialFailed. The caller bounds the time.
        """
        open_one = self._open_tls if self._wants_tls() else self._open_plain
        try:
            protocol = await open_one(cast("Callable[[], asyncio.Protocol]", make_protocol))
            return cast("P", protocol)
        except ssl.SSLError as error:
            raise self._outage(f"TLS with the server failed: {error.reason or error}", "check upstream.url") from error
        except OSError as error:
            raise self._outage(
                f"the server cannot be reached: {error.strerror or error}", "check upstream.url"
            ) from error

    def _outage(self, message: str, hint: str) -> DialFailed:
        place = f"{self.upstream.host} port {self.upstream.port}"
        return DialFailed(ErrorFields("FATAL", "08006", message, place, hint), is_outage=True)

    @property
    def is_encrypted(self) -> bool:
        """Whether every connection to the server is certain to be under TLS."""
        return self._wants_tls() and self.upstream.ssl_mode is not SslMode.PREFER

    def _wants_tls(self) -> bool:
        # As libpq: unix sockets are never encrypted, and "allow" tries in the clear first.
        is_unix = self.upstream.host.startswith("/")
        return not is_unix and self.upstream.ssl_mode not in (SslMode.DISABLE, SslMode.ALLOW)

    async def _open_plain(self, make_protocol: Callable[[], asyncio.Protocol]) -> asyncio.Protocol:
        host, port = self.upstream.host, self.upstream.port
        if host.startswith("/"):
            _, protocol = await self.loop.create_unix_connection(make_protocol, f"{host}/.s.PGSQL.{port}")
            return protocol
        _, protocol = await self.loop.create_connection(make_protocol, host, port)
        return protocol

    async def _open_tls(self, make_protocol: Callable[[], asyncio.Protocol]) -> asyncio.Protocol:
        answer: asyncio.Future[bytes] = self.loop.create_future()
        host, port = self.upstream.host, self.upstream.port
        transport, _ = await self.loop.create_connection(lambda: _SslNegotiation(answer), host, port)
        said = b""
        try:
            said = await answer
            if said == b"S":
                return await self._encrypt(transport, make_protocol)
        finally:
            if said not in (b"N", b"S"):
                transport.abort()
        if said != b"N":
            raise self._outage("the server answered an SSLRequest with something else", "is it PostgreSQL?")
        if self.upstream.ssl_mode is not SslMode.PREFER:
            transport.abort()
            raise self._outage(
                "the server does not support TLS, but sslmode demands it", "check sslmode in upstream.url"
            )
        protocol = make_protocol()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        transport.resume_reading()
        return protocol

    async def _encrypt(
        self, transport: asyncio.Transport, make_protocol: Callable[[], asyncio.Protocol]
    ) -> asyncio.Protocol:
        context, name = self.upstream.ssl_context, self.upstream.server_name
        assert context is not None, "a sslmode that wants TLS comes with a context"
        protocol = make_protocol()
        try:
            encrypted = await self.loop.start_tls(transport, protocol, context, server_hostname=name)
        except BaseException:
            transport.abort()
            raise
        assert encrypted is not None, "start_tls returns the new transport"
        protocol.connection_made(encrypted)
        return protocol
