"""One dial along a route: TCP or unix socket, TLS as the route says, and what is wrong in words.

Owns: how a transport to the server comes about.
Does not know: which route is taken, logins, pools.
Source: PostgreSQL manual, "SSL Session Encryption" (protocol-flow), "SSL Support" (libpq-ssl).
"""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Protocol, TypeVar, cast

from proxy.session.encryption import names_in_certificate, tls_reason
from proxy.session.handshake import ALPN_PROTOCOL
from proxy.session.routes import DialFailed, Route
from proxy.session.settings import SslMode, UpstreamSettings
from proxy.session.transports import Receiver, as_stream
from proxy.wire.messages import ErrorFields
from proxy.wire.startup import encode_ssl_request

# Of X509_verify_cert(3).
_NAME_MISMATCHES: Final = (62, 64)
_UNKNOWN_ISSUERS: Final = (2, 18, 19, 20, 21)
# What an older server's answer to a handshake that came unasked is to OpenSSL.
_NO_TLS_AT_ALL: Final = ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", "RECORD_LAYER_FAILURE")


class Dialling(Receiver, Protocol):
    """What is to read a socket that is opened for it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...


P = TypeVar("P", bound=Dialling)
# Makes the reader of a connection; told whether that is encrypted.
Make = Callable[[bool], asyncio.Protocol]


class _Opened(asyncio.Protocol):
    """A connection on which nothing has been said yet."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = as_stream(transport)


class _SslNegotiation(asyncio.Protocol):
    """Waits for the one byte that answers an SSLRequest."""

    def __init__(self, answer: asyncio.Future[bytes]) -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = as_stream(transport)
        self.transport.write(encode_ssl_request())

    def data_received(self, data: bytes) -> None:
        if self._answer.done():
            return
        # More than one byte was not encrypted although it could have been: CVE-2021-23222.
        self.transport.pause_reading()
        self._answer.set_result(data if len(data) == 1 else b"?")

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._answer.done():
            self._answer.set_result(b"")


class Dialler:
    """Opens transports to the hosts of one upstream."""

    def __init__(self, upstream: UpstreamSettings, loop: asyncio.AbstractEventLoop) -> None:
        self.upstream = upstream
        self.loop = loop

    async def open(self, make_protocol: Callable[[bool], P], route: Route) -> P:
        """Connect, and return the protocol that now reads the socket. Raises DialFailed. The caller bounds the time."""
        make = cast("Make", make_protocol)
        try:
            return cast("P", await self._open(make, route))
        except ssl.SSLError as error:
            raise await self._tls_failed(route, error) from error
        except OSError as error:
            raise _outage(route, f"the server cannot be reached: {error.strerror or error}") from error

    async def _open(self, make: Make, route: Route) -> asyncio.Protocol:
        if not route.encrypts:
            return await self._connect(lambda: make(False), route)
        if self.upstream.tls.is_direct:
            return await self._open_direct(make, route)
        return await self._open_negotiated(make, route)

    async def _connect(self, make: Callable[[], asyncio.Protocol], route: Route) -> asyncio.Protocol:
        host, address = route.target.host, route.target.address
        if host.is_unix_socket:
            directory = "\0" + address[1:] if address.startswith("@") else address
            _, protocol = await self.loop.create_unix_connection(make, f"{directory}/.s.PGSQL.{host.port}")
            return protocol
        _, protocol = await self.loop.create_connection(make, address, host.port)
        return protocol

    # -- TLS ----------------------------------------------------------------------------------------------------------

    async def _open_direct(self, make: Make, route: Route) -> asyncio.Protocol:
        """The handshake comes first; servers know that from PostgreSQL 17 on."""
        opened = cast("_Opened", await self._connect(_Opened, route))
        return await self._encrypt(opened.transport, make, route)

    def _check_alpn(self, encrypted: asyncio.Transport, route: Route) -> None:
        """A server that does not name the protocol may speak another, and must not be told who wants to log in."""
        tls = cast("ssl.SSLObject", encrypted.get_extra_info("ssl_object"))
        if tls.selected_alpn_protocol() == ALPN_PROTOCOL:
            return
        encrypted.abort()
        raise _outage(
            route,
            "the server shook hands at once but did not say that it speaks PostgreSQL (ALPN)",
            "write sslnegotiation=postgres in upstream.url, or use PostgreSQL 17 or later",
        )

    async def _open_negotiated(self, make: Make, route: Route) -> asyncio.Protocol:
        answer: asyncio.Future[bytes] = self.loop.create_future()
        transport = cast("_SslNegotiation", await self._connect(lambda: _SslNegotiation(answer), route)).transport
        said = b""
        try:
            said = await answer
            if said == b"S":
                return await self._encrypt(transport, make, route)
        finally:
            if said not in (b"N", b"S"):
                transport.abort()
        if said != b"N":
            raise _outage(route, "the server answered an SSLRequest with something else", "is it PostgreSQL?")
        return self._go_on_in_plaintext(transport, make, route)

    def _go_on_in_plaintext(self, transport: asyncio.Transport, make: Make, route: Route) -> asyncio.Protocol:
        if self.upstream.ssl_mode not in (SslMode.ALLOW, SslMode.PREFER):
            transport.abort()
            text = f"the server does not support TLS, but sslmode={self.upstream.ssl_mode.value} demands it"
            raise _outage(route, text, "switch ssl on in the server, or write another sslmode in upstream.url")
        protocol = make(False)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        transport.resume_reading()
        return protocol

    async def _encrypt(self, transport: asyncio.Transport, make: Make, route: Route) -> asyncio.Protocol:
        protocol = make(True)
        try:
            encrypted = await self.loop.start_tls(
                transport, protocol, self._context(), server_hostname=self._shown_name(route)
            )
        except ConnectionError:
            encrypted = None
        except BaseException:
            transport.abort()
            raise
        if encrypted is None or encrypted.get_extra_info("ssl_object") is None:
            hint = self._hint("UNEXPECTED_EOF_WHILE_READING")
            raise _outage(route, "TLS with the server failed: it hung up", hint, is_tls_failure=True)
        if self.upstream.tls.is_direct:
            self._check_alpn(encrypted, route)
        protocol.connection_made(encrypted)
        return protocol

    def _context(self) -> ssl.SSLContext:
        assert self.upstream.tls.context is not None, "a route is encrypted where there is a context"
        return self.upstream.tls.context

    def _expected_name(self, route: Route) -> str:
        return self.upstream.tls.server_name or route.target.host.name

    def _shown_name(self, route: Route) -> str | None:
        """For SNI and for comparing names; of an address only the latter is done."""
        return self._expected_name(route) if self.upstream.tls.sends_name else None

    # -- what is wrong ------------------------------------------------------------------------------------------------

    async def _tls_failed(self, route: Route, error: ssl.SSLError) -> DialFailed:
        text, hint = await self._explained(route, error)
        return _outage(route, f"TLS with the server failed: {text}", hint, is_tls_failure=True)

    async def _explained(self, route: Route, error: ssl.SSLError) -> tuple[str, str]:
        if isinstance(error, ssl.SSLCertVerificationError):
            if error.verify_code in _NAME_MISMATCHES:
                return await self._name_mismatch(route)
            if error.verify_code in _UNKNOWN_ISSUERS:
                return f"its certificate is not trusted: {error.verify_message}", self._about_roots()
            return f"its certificate is not accepted: {error.verify_message}", "renew the server's certificate"
        return tls_reason(error), self._hint(error.reason or "")

    def _hint(self, reason: str) -> str:
        if self.upstream.tls.is_direct and reason in _NO_TLS_AT_ALL:
            return "sslnegotiation=direct needs PostgreSQL 17; write sslnegotiation=postgres in upstream.url"
        if "PROTOCOL_VERSION" in reason or "UNSUPPORTED_PROTOCOL" in reason:
            return "compare ssl_min_protocol_version and ssl_max_protocol_version in upstream.url with the server's"
        if "ALERT" in reason:
            return "the server refuses: check sslcert and sslkey in upstream.url"
        return "check upstream.url"

    def _about_roots(self) -> str:
        roots = "sslrootcert" if self.upstream.tls.server_name is None else "sslrootcert (upstream.server_name is set)"
        return f"set {roots} in upstream.url to the certificate of the CA that signed it, or to system"

    async def _name_mismatch(self, route: Route) -> tuple[str, str]:
        wanted = self._expected_name(route)
        names = ", ".join(await self._names_shown(route)) or "another"
        hint = "name that host in upstream.url, or set upstream.server_name to a name of the certificate"
        return f"the server's certificate names {names}, and not {wanted}", hint

    async def _names_shown(self, route: Route) -> list[str]:
        """Shake hands once more without comparing names, only to read them. Nothing is sent."""
        lenient = replace(self.upstream, tls=replace(self.upstream.tls, context=self.upstream.tls.any_name))
        try:
            holder = await Dialler(lenient, self.loop)._open(lambda _: _Looker(), route)
        except (OSError, DialFailed):
            return []
        return cast("_Looker", holder).names()


class _Looker(asyncio.Protocol):
    """Reads the names of a certificate, and hangs up."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = as_stream(transport)

    def names(self) -> list[str]:
        tls = cast("ssl.SSLObject", self._transport.get_extra_info("ssl_object"))
        self._transport.abort()
        return names_in_certificate(tls)


def _outage(route: Route, text: str, hint: str = "check upstream.url", *, is_tls_failure: bool = False) -> DialFailed:
    fields = ErrorFields("FATAL", "08006", text, str(route.target), hint)
    return DialFailed(fields, is_outage=True, is_tls_failure=is_tls_failure)
