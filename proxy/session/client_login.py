"""A client until it is authenticated: startup packet, TLS, password, cancel requests.

Owns: this socket up to AuthenticationOk, the time a login may take, and how late a failed one is answered.
Does not know: what has to be proved and how (`authentication`), slots and pools; an authenticated client is handed over
to `client`.
Source: PostgreSQL manual, "Start-up", "Canceling Requests in Progress", "SSL Session Encryption" (protocol-flow).
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

from proxy.admission.classes import ClientId
from proxy.session import clock, refusals
from proxy.session.authentication import Authentication, LoginRefusal
from proxy.session.client import ClientConnection
from proxy.session.encryption import ClientTls, TlsOffer, client_tls, tls_reason
from proxy.session.frontdesk import Frontdesk
from proxy.session.handshake import ALPN_PROTOCOL, FIRST_BYTE_OF_TLS, accept_tls
from proxy.session.identity import NEWEST_MINOR_VERSION, Identity, Introduction, introduction, is_introduction
from proxy.session.replication import ReplicationConnection
from proxy.session.transports import as_protocol, bound_writes
from proxy.session.upstream import Upstream
from proxy.wire import messages
from proxy.wire.errors import ProtocolViolation
from proxy.wire.framing import Cursor, login_cursor
from proxy.wire.login import Credentials, LoginFailure
from proxy.wire.messages import ErrorFields
from proxy.wire.startup import (
    CancelRequest,
    GSSENCRequest,
    StartupReader,
    parse_startup_packet,
)

# These failures are mistakes of a configuration and prove nothing to a guesser. libpq dials again with or without TLS
# after the first, as its sslmode says, and would wait for nothing.
_ANSWERED_AT_ONCE: Final = (
    LoginFailure.NOT_ENCRYPTED,
    LoginFailure.NOT_ALLOWED,
    LoginFailure.UNKNOWN_DATABASE,
    LoginFailure.UNAVAILABLE,
)
_URGENCY_OF_NOBODY: Final = 1_000_000  # who can only be refused comes behind everybody
_AUTHENTICATION_OK: Final = messages.authentication_ok()


class ClientLoginProtocol(asyncio.Protocol):
    """The protocol object of a client that is not authenticated yet."""

    __slots__ = (
        "_address",
        "_authentication",
        "_client",
        "_cursor",
        "_desk",
        "_early",
        "_has_said_nothing",
        "_introduction",
        "_is_encrypted",
        "_is_in_handshake",
        "_is_local",
        "_is_lost",
        "_is_refused",
        "_reader",
        "_steps",
        "_tls",
        "_upstream",
        "transport",
        "urgency",
    )

    def __init__(self, desk: Frontdesk, is_local: bool) -> None:
        self._desk = desk
        self._is_local = is_local
        self._reader = StartupReader(desk.settings.limits.max_startup_bytes)
        self._introduction: Introduction | None = None
        self._authentication: Authentication | None = None
        self._cursor: Cursor | None = None
        self._early = b""  # what came while the server was asked about the client
        self._client: ClientConnection | ReplicationConnection | None = None
        self._has_said_nothing = True
        self._is_encrypted = False
        self._is_in_handshake = False
        self._is_lost = False
        self._is_refused = False
        self._steps: list[bytes | Callable[[], None]] = []  # what the client has sent, and what else is to be done
        self._address: str | None = None  # on a unix socket
        self._tls: ClientTls | None = None
        self.urgency = 0
        self._upstream: Upstream | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        desk = self._desk
        self.transport = bound_writes(transport)
        if self._is_encrypted:
            return  # the same client, its TLS handshake is done
        desk.connected += 1
        desk.login_times.begin(self)
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self._address = peer[0]
        elif not self._is_local:
            # Reset before it was accepted. Nothing is lost, and without an address it would pass for a local client.
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_lost:
            return
        self._is_lost = True
        self._authentication = None  # it knows this client: a cycle for the collector to find
        self._desk.login_times.over(self)
        self._desk.failed_logins.left(self)
        self._desk.connects.left(self)
        if self._client is not None:
            self._client.connection_lost(exc)
        else:
            self._desk.disconnected()

    def data_received(self, data: bytes) -> None:
        if self._has_said_nothing:
            self._has_said_nothing = False
            if data[0] == FIRST_BYTE_OF_TLS and self._begins_direct_tls(data):
                return
        self._queue_step(data)

    def _queue_step(self, step: bytes | Callable[[], None]) -> None:
        self._steps.append(step)
        self._desk.pacer.queue(self)

    def next_step(self) -> None:
        step = self._steps.pop(0)
        if self._is_lost or self.transport.is_closing():
            return
        try:
            if isinstance(step, bytes):
                self._take(step)
            else:
                step()
        except ProtocolViolation as violation:
            self._desk.measures.protocol_violations["startup"] += 1
            self._desk.log.info("client_broke_protocol", violation=str(violation), during="login")
            self._fail(refusals.protocol_violation(str(violation)))
        except Exception:  # ours, and nobody else's login may end with this one
            self._desk.measures.crashes += 1
            self._desk.log.exception("login_crashed")
            self.transport.abort()
        self._hand_over()

    def _hand_over(self) -> None:
        """The socket belongs to the client once nothing of it is queued here: its bytes must not change places."""
        if self._client is not None and not self._steps and not self.transport.is_closing():
            self.transport.set_protocol(as_protocol(self._client))
            self._authentication = None  # as where it is lost

    def _take(self, data: bytes) -> None:
        authentication = self._authentication
        if self._client is not None:
            self._client.data_received(data)
        elif authentication is None:
            self._startup_bytes(data)
        elif authentication.is_asking:
            self._early += data
            if len(self._early) > self._desk.settings.limits.max_startup_bytes:
                raise ProtocolViolation("the client sends on before it is asked")
        elif not self._is_refused:  # the answer waits, and nothing said now can change it
            self._login_bytes(authentication, data)

    def timed_out(self) -> None:
        self._desk.measures.login_timeouts += 1
        self._fail(refusals.login_timeout(self._desk.settings.listen.login_timeout_seconds))

    def _fail(self, error: ErrorFields) -> None:
        self._desk.login_times.over(self)
        if self._is_in_handshake:
            self.transport.abort()  # plaintext in the middle of it would say nothing
        elif not self.transport.is_closing():
            self.transport.write(messages.error_response(error))
            self.transport.close()

    # -- startup packets ----------------------------------------------------------------------------------------------

    def _startup_bytes(self, data: bytes) -> None:
        packet_bytes = self._reader.feed(data)
        if packet_bytes is None:
            return
        rest = self._reader.rest
        if is_introduction(packet_bytes):
            self._introduced(introduction(packet_bytes, self._address, self._tls), rest)
            return
        packet = parse_startup_packet(packet_bytes)
        self._reader = StartupReader(self._desk.settings.limits.max_startup_bytes)
        if isinstance(packet, CancelRequest):
            self._cancel(packet)
        elif rest or self._steps:
            raise ProtocolViolation("bytes follow a request for encryption before it was answered")
        elif isinstance(packet, GSSENCRequest):
            self.transport.write(b"N")
        else:
            self._answer_ssl_request()

    def _introduced(self, client: Introduction, rest: bytes) -> None:
        """Who it says it is tells how urgent it is: its further steps go ahead of those of a burst of workers."""
        desk, identity = self._desk, client.identity
        self._introduction = client
        upstream = self._upstream = desk.upstream_or_none(identity.database)
        if upstream is None:
            self.urgency = _URGENCY_OF_NOBODY
        else:
            self.urgency = desk.behaviour(upstream.classify(identity, identity.application_name)).priority
        if desk.pacer.has_others:
            self._steps.insert(0, partial(self._begin_login, client, rest))
            desk.pacer.queue(self)
        else:
            self._begin_login(client, rest)

    def _cancel(self, request: CancelRequest) -> None:
        desk = self._desk
        client = desk.keys.find_or_none(request)
        carrying = None
        if client is None:
            desk.measures.cancels_unknown += 1
        else:
            carrying = client.upstream.canceller.begun_by(client.cancel_requested)
        if carrying is None:
            self.transport.close()
        else:
            carrying.add_done_callback(lambda _: self.transport.close())

    def _answer_ssl_request(self) -> None:
        offer = self._desk.settings.listen.tls
        if offer is None or self._is_encrypted:
            self.transport.write(b"N")
            return
        # Nothing may be read before the handshake reads it: the ClientHello would be lost.
        self.transport.pause_reading()
        self.transport.write(b"S")
        self._desk.tasks.spawn(self._encrypt(offer), name="TLS handshake of a client")

    def _begins_direct_tls(self, data: bytes) -> bool:
        """The client opens with the handshake itself, as libpq 17 and later do with sslnegotiation=direct."""
        offer = self._desk.settings.listen.tls
        if offer is None or self._address is None:
            return False
        self.transport.pause_reading()  # the rest of it is for the handshake to read
        self._desk.tasks.spawn(self._encrypt(offer, data), name="TLS handshake of a client")
        return True

    async def _encrypt(self, offer: TlsOffer, received: bytes = b"") -> None:
        desk = self._desk
        self._is_encrypted = self._is_in_handshake = True
        seconds = desk.settings.listen.login_timeout_seconds
        try:
            transport = await accept_tls(self.transport, self, offer, timeout_seconds=seconds, received=received)
        except (OSError, TimeoutError) as error:
            self._handshake_failed(error)
            return
        self._is_in_handshake = False
        self._tls = client_tls(transport, offer)
        self.connection_made(transport)
        # Required as by the server: else a client of another protocol could be made to speak to this port.
        if received and self._tls.alpn_protocol != ALPN_PROTOCOL:
            desk.measures.protocol_violations["startup"] += 1
            self._fail(refusals.direct_tls_without_alpn())

    def _handshake_failed(self, error: Exception) -> None:
        self._desk.measures.client_tls_failures += 1
        self._desk.log.info("client_tls_failed", why=tls_reason(error), address=self._address or "unix")
        self.transport.abort()
        self.connection_lost(error)

    # -- authentication -----------------------------------------------------------------------------------------------

    def _begin_login(self, client: Introduction, rest: bytes) -> None:
        startup, identity, upstream = client.startup, client.identity, self._upstream
        refusal = self._refusal_before_login()
        if refusal is not None:
            self._fail(refusal)
            return
        if upstream is None:
            error = refusals.no_upstream(identity.database)
            self.refused(LoginRefusal(error, LoginFailure.UNKNOWN_DATABASE, "no upstream serves the database"))
            return
        authentication = self._authentication = Authentication(upstream, self, identity)
        if client.unsupported:
            minor = min(startup.minor, NEWEST_MINOR_VERSION)
            negotiate = messages.negotiate_protocol_version(minor, startup.unsupported_protocol_options)
            self.transport.write(negotiate)
        authentication.begin()
        if rest and not self.transport.is_closing():
            self._take(rest)  # what came in the same segment; by trust the client is logged in already

    def _refusal_before_login(self) -> ErrorFields | None:
        listen = self._desk.settings.listen
        if self._desk.draining:
            return refusals.shutting_down_new()
        if listen.tls_required and not self._is_encrypted and self._address is not None:
            return refusals.tls_required()
        if listen.client_certificate_required and not self._is_verified() and self._address is not None:
            return refusals.client_certificate_required()
        if self._desk.connected > listen.max_client_connections:
            return refusals.too_many_clients(listen.max_client_connections)
        return None

    def _is_verified(self) -> bool:
        return self._tls is not None and self._tls.is_verified

    def _login_bytes(self, authentication: Authentication, data: bytes) -> None:
        cursor = self._cursor = self._cursor or login_cursor()
        buffer, facts = cursor.feed(data)
        for kind, start, end in facts:
            if kind == messages.TERMINATE or self._client is not None or self._is_refused or authentication.is_asking:
                self.transport.close()  # a farewell, or more than one answer to one question
                return
            if end < 0:
                raise ProtocolViolation("password message too long")
            authentication.receive(kind, buffer[start + 5 : end])

    # -- what the authentication brings -------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        self.transport.write(data)

    def continue_soon(self, work: Callable[[], None]) -> None:
        self._queue_step(partial(self._continue, work))

    def _continue(self, work: Callable[[], None]) -> None:
        work()
        early, self._early = self._early, b""
        if early and not self.transport.is_closing():
            self._take(early)

    def refused(self, refusal: LoginRefusal) -> None:
        """The answer waits, longer with each failure; the socket is read on, so that a client that leaves is seen."""
        desk, client, failure = self._desk, self._introduction, refusal.failure
        assert client is not None, "set with the startup packet"
        who = client.identity
        desk.measures.login_failures[failure.value] += 1
        desk.log.info("login_refused", reason=failure.value, why=refusal.reason, **who.log_keys())
        self._is_refused = True
        desk.login_times.over(self)
        answer = partial(self._fail, refusal.error)
        seconds = 0.0
        if failure not in _ANSWERED_AT_ONCE and not desk.draining:
            seconds = desk.failed_logins.lateness.note((who.user, who.address), clock.now())
        desk.failed_logins.hold(self, seconds, answer)

    def accepted(self, credentials: Credentials, reply: bytes) -> None:
        """Authenticated: from here on `ClientConnection` has the socket."""
        introduction, upstream, desk = self._introduction, self._upstream, self._desk
        assert introduction is not None, "a login begins with a startup packet"
        assert upstream is not None, "found with the startup packet"
        identity, of_replication = introduction.identity, upstream.settings.replication_class
        if introduction.replicates and of_replication is None:
            self._fail(refusals.no_replication())
            return
        desk.login_times.over(self)
        ahead, client_id = reply + _AUTHENTICATION_OK, desk.next_client_id()
        found = upstream.classification(identity, identity.application_name)
        class_name = of_replication if introduction.replicates and of_replication is not None else found.class_name
        if self._connects_too_often(upstream, identity, client_id, class_name, ahead):
            return
        if introduction.replicates:
            self.transport.write(ahead)
            self._begin_replication(upstream, introduction, credentials, client_id)
            return
        upstream.pool_of(identity).learn(credentials)
        self._client = client = ClientConnection(upstream, identity, self.transport, client_id, found.class_name)
        desk.client_entered(client, is_matched=found.matched)
        client.enter(ahead)

    def _connects_too_often(
        self, upstream: Upstream, identity: Identity, client_id: ClientId, class_name: str, ahead: bytes
    ) -> bool:
        """Then it is refused, sooner or later, behind `ahead`; nothing it says until then matters."""
        desk = self._desk
        flow = desk.flow(identity, class_name)
        refusal = desk.connects.refusal_or_none(upstream, client_id, class_name, flow)
        if refusal is None:
            return False
        self._is_refused = True
        self.transport.write(ahead)
        answer = partial(self._fail, refusals.refused(refusal, "FATAL"))
        desk.connects.tell_late(self, class_name, flow, 0.0, answer)
        return True

    def _begin_replication(
        self, upstream: Upstream, introduction: Introduction, credentials: Credentials, client_id: ClientId
    ) -> None:
        desk, parameters = self._desk, introduction.startup.parameters
        self._client = client = ReplicationConnection(
            upstream, introduction.identity, parameters, credentials, self.transport, client_id
        )
        desk.replication_entered(client)
        client.enter()


def make_factory(desk: Frontdesk, *, is_local: bool) -> Callable[[], ClientLoginProtocol]:
    """What a listening socket calls for each new client. `is_local`: it is a unix socket."""
    return lambda: ClientLoginProtocol(desk, is_local)
