"""Who the proxy is to the server: the half of a login in which it is the client.

Owns: the order of authentication messages, what may be sent over which leg, what is learnt of the server on the way.
Does not know: sockets, time, TLS (it is told what the server has shown), where the credentials come from.
Source: PostgreSQL manual, "Start-up" (protocol-flow), "SASL Authentication" (sasl-authentication), version 18; for
`channel_binding` "Database Connection Control Functions" (libpq-connect).

    start -> WAITING -> DONE (ReadyForQuery) | FAILED
"""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final

from proxy.wire import messages
from proxy.wire.channel_binding import end_point_hash_or_none
from proxy.wire.errors import ProtocolViolation
from proxy.wire.login import Credentials, LoginState
from proxy.wire.messages import AuthenticationKind, ErrorFields
from proxy.wire.passwords import md5_hash, md5_response
from proxy.wire.scram import MECHANISM, MECHANISM_PLUS, ScramClient, ScramKeysDoNotFit
from proxy.wire.startup import encode_startup


class ChannelBinding(Enum):
    """libpq's `channel_binding`: whether a login to the server is bound to its TLS leg."""

    DISABLE = "disable"
    PREFER = "prefer"
    REQUIRE = "require"


class ServerLogin:
    """The proxy as the client: logs in to a server as `user`.

    Tell what is known of the leg with `runs_on`, send what `start` and `receive` return. A password goes over the wire
    in cleartext only where the leg is encrypted, or a unix socket. `parameters` are further startup parameters. With
    `channel_binding` REQUIRE nothing but SCRAM-SHA-256-PLUS logs in. `minor` is the newest version of protocol 3 to be
    spoken; an older server says which it speaks instead, and nothing here depends on it.
    """

    def __init__(
        self,
        user: str,
        database: str,
        credentials: Credentials | None,
        parameters: Mapping[str, str],
        *,
        channel_binding: ChannelBinding = ChannelBinding.PREFER,
        minor: int = 0,
    ) -> None:
        self._user = user
        self._startup = {"user": user, "database": database, **parameters}
        self._credentials = credentials or Credentials()
        self._allow_cleartext = False
        self._channel_binding = channel_binding
        self._minor = minor
        self._is_encrypted = False
        self._binding: bytes | None = None
        self._is_bound = False
        self._scram: ScramClient | None = None
        self._authenticated = False
        self.state = LoginState.WAITING
        self.parameters: dict[str, str] = {}
        self.process_id = 0
        self.secret_key = b""
        self.error: ErrorFields | None = None

    def runs_on(self, certificate_der: bytes | None, *, is_local: bool = False) -> None:
        """The certificate the server has shown, None where the leg is not encrypted; whether it is a unix socket."""
        self._is_encrypted = certificate_der is not None
        self._allow_cleartext = self._is_encrypted or is_local
        if certificate_der is not None and self._channel_binding is not ChannelBinding.DISABLE:
            self._binding = end_point_hash_or_none(certificate_der)

    def start(self) -> bytes:
        """The StartupMessage."""
        return encode_startup(self._startup, self._minor)

    def receive(self, kind: int, payload: bytes) -> bytes:
        """Take the server's next message; return what to send, and look at `state`.

        Raises ProtocolViolation for what has no place in a login.
        """
        if self.state is not LoginState.WAITING:
            return b""
        handler = _SERVER_MESSAGES.get(kind)
        if handler is None:
            name = messages.BACKEND_NAMES.get(kind, f"type {kind}")
            raise ProtocolViolation(f"the server sent {name} during the login")
        return handler(self, payload)

    def _authentication(self, payload: bytes) -> bytes:
        request = messages.parse_authentication(payload)
        answer = _ANSWERS.get(request.kind)
        if answer is None:
            return self._fail(f"the server asks for {request.kind.name} authentication, which is not supported")
        if self._is_unbound_but_must_be(request.kind):
            asks = f"asks for {request.kind.name}" if request.kind is not AuthenticationKind.OK else "lets us in"
            return self._fail(f"channel_binding=require, and the server {asks} without it", _BINDING_HINT)
        return answer(self, request.data)

    def _is_unbound_but_must_be(self, kind: AuthenticationKind) -> bool:
        """A password must not even be hashed for a server that has not proved where its TLS ends."""
        is_sasl = kind in (AuthenticationKind.SASL, AuthenticationKind.SASL_CONTINUE, AuthenticationKind.SASL_FINAL)
        return self._channel_binding is ChannelBinding.REQUIRE and not self._is_bound and not is_sasl

    def _ok(self, _data: bytes) -> bytes:
        if self._scram is not None:
            return self._fail("the server ended the SCRAM exchange without proving that it knows the password")
        self._authenticated = True
        return b""

    def _cleartext(self, _data: bytes) -> bytes:
        if not self._allow_cleartext:
            return self._fail("the server asks for a cleartext password on a leg that is not encrypted")
        if self._credentials.password is None:
            return self._lack("the password itself")
        return messages.password_message(self._credentials.password)

    def _md5(self, salt: bytes) -> bytes:
        stored_hash = self._credentials.md5_hash
        if self._credentials.password is not None:
            stored_hash = md5_hash(self._user, self._credentials.password)
        if stored_hash is None:
            return self._lack("the password or its md5 hash")
        return messages.password_message(md5_response(stored_hash, salt))

    def _sasl(self, data: bytes) -> bytes:
        offered = messages.parse_mechanisms(data)
        if MECHANISM_PLUS in offered and not self._is_encrypted:
            return self._fail("the server offers channel binding on a leg that is not encrypted")
        is_plus = MECHANISM_PLUS in offered and self._binding is not None
        if not is_plus and self._channel_binding is ChannelBinding.REQUIRE:
            return self._fail(f"channel_binding=require, and {self._why_unbound()}", _BINDING_HINT)
        if not is_plus and MECHANISM not in offered:
            return self._fail(f"the server offers only {', '.join(offered)}, and {MECHANISM} is what is supported")
        secret = self._credentials.scram_keys if self._credentials.password is None else self._credentials.password
        if secret is None:
            return self._lack("the password or its SCRAM keys")
        self._scram = ScramClient(
            secret, binding=self._binding if is_plus else None, could_bind=self._binding is not None
        )
        self._is_bound = is_plus
        return messages.sasl_initial_response(MECHANISM_PLUS if is_plus else MECHANISM, self._scram.first())

    def _why_unbound(self) -> str:
        if not self._is_encrypted:
            return "the leg is not encrypted"
        if self._binding is None:
            return "the signature of the server's certificate names no hash function to bind with"
        return "the server does not offer it"

    def _sasl_continue(self, data: bytes) -> bytes:
        if self._scram is None:
            raise ProtocolViolation("the server continues a SASL exchange that it did not begin")
        try:
            return messages.sasl_response(self._scram.final(data))
        except ScramKeysDoNotFit:
            return self._fail(
                "the server keeps another SCRAM secret than the one the client was checked against",
                "copy the user's secret from pg_authid of this server, or store the password",
            )

    def _sasl_final(self, data: bytes) -> bytes:
        if self._scram is None:
            raise ProtocolViolation("the server ends a SASL exchange that it did not begin")
        if not self._scram.is_signed(data):
            return self._fail("the server is not the one it claims to be: its SCRAM signature is wrong")
        self._scram = None
        return b""

    def _parameter_status(self, payload: bytes) -> bytes:
        name, value = messages.parse_parameter_status(payload)
        self.parameters[name] = value
        return b""

    def _backend_key_data(self, payload: bytes) -> bytes:
        self.process_id, self.secret_key = messages.parse_backend_key_data(payload)
        return b""

    def _ready_for_query(self, payload: bytes) -> bytes:
        messages.parse_ready_for_query(payload)
        if not self._authenticated:
            raise ProtocolViolation("the server sent ReadyForQuery before AuthenticationOk")
        self.state = LoginState.DONE
        return b""

    def _error_response(self, payload: bytes) -> bytes:
        self.error = messages.parse_error_fields(payload)
        self.state = LoginState.FAILED
        return b""

    def _ignore(self, _payload: bytes) -> bytes:
        return b""

    def _lack(self, missing: str) -> bytes:
        return self._fail(f"what the server's request for a password needs is unknown here: {missing}")

    def _fail(self, sentence: str, hint: str | None = None) -> bytes:
        text = f'server login of user "{self._user}" failed: {sentence}'
        self.error = ErrorFields("FATAL", "28000", text, hint=hint)
        self.state = LoginState.FAILED
        return b""


_BINDING_HINT: Final = "see channel_binding and sslmode in upstream.url"
_Handler = Callable[[ServerLogin, bytes], bytes]

_SERVER_MESSAGES: Final[Mapping[int, _Handler]] = {
    messages.AUTHENTICATION: ServerLogin._authentication,
    messages.BACKEND_KEY_DATA: ServerLogin._backend_key_data,
    messages.ERROR_RESPONSE: ServerLogin._error_response,
    messages.NEGOTIATE_PROTOCOL_VERSION: ServerLogin._ignore,
    messages.NOTICE_RESPONSE: ServerLogin._ignore,
    messages.PARAMETER_STATUS: ServerLogin._parameter_status,
    messages.READY_FOR_QUERY: ServerLogin._ready_for_query,
}

_ANSWERS: Final[Mapping[AuthenticationKind, _Handler]] = {
    AuthenticationKind.OK: ServerLogin._ok,
    AuthenticationKind.CLEARTEXT_PASSWORD: ServerLogin._cleartext,
    AuthenticationKind.MD5_PASSWORD: ServerLogin._md5,
    AuthenticationKind.SASL: ServerLogin._sasl,
    AuthenticationKind.SASL_CONTINUE: ServerLogin._sasl_continue,
    AuthenticationKind.SASL_FINAL: ServerLogin._sasl_final,
}
