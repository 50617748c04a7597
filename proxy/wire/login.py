"""Who the client is, and who the proxy is to the server: the two halves of a login.

Owns: the order of authentication messages in both directions, and what is learnt on the way.
Does not know: startup packets of clients, sockets, time, where passwords are stored, whether a leg is under TLS.
Source: PostgreSQL manual, "Start-up" (protocol-flow), "SASL Authentication" (sasl-authentication), version 18.

    ClientLogin                                       ServerLogin
    start -> ACCEPTED                    (trust)      start -> WAITING
    start -> WAITING -> ACCEPTED | REFUSED            WAITING -> DONE (ReadyForQuery) | FAILED
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from proxy.wire import messages
from proxy.wire.errors import ProtocolViolation
from proxy.wire.messages import AuthenticationKind, ErrorFields
from proxy.wire.passwords import PasswordKind, StoredPassword, md5_hash, md5_response
from proxy.wire.scram import MECHANISM, ScramClient, ScramKeys, ScramKeysDoNotFit, ScramServer, make_mock_verifier
from proxy.wire.startup import encode_startup


class LoginState(Enum):
    """Where a login is. A ClientLogin ends ACCEPTED or REFUSED, a ServerLogin DONE or FAILED."""

    WAITING = "waiting"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    DONE = "done"
    FAILED = "failed"


METHODS: Final = ("trust", "scram", "md5", "cleartext")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What is known to log in to a server with: nothing, or one of these. Never shown."""

    password: str | None = field(default=None, repr=False)
    md5_hash: str | None = field(default=None, repr=False)
    scram_keys: ScramKeys | None = field(default=None, repr=False)

    @classmethod
    def of_stored(cls, stored: StoredPassword | None) -> "Credentials":
        """What a stored password gives by itself: a SCRAM verifier gives nothing."""
        if stored is None or stored.kind is PasswordKind.SCRAM:
            return cls()
        if stored.kind is PasswordKind.MD5:
            return cls(md5_hash=stored.secret)
        return cls(password=stored.secret)


class ClientLogin:
    """The proxy as the server: asks a client for the password of `user`.

    `stored` is None for a user nobody knows; the exchange then looks the same and fails at its end. `mock_secret` is
    random and the same for all logins of the process, so that unknown users always get the same salt.

    Send what `start` and `receive` return. AuthenticationOk is not among it: after ACCEPTED the caller sends that.
    Where a user's md5 hash meets method "scram" no password can be accepted; `reason` says so, for the log only: the
    client must not learn who exists. Method "md5" asks for SCRAM where a SCRAM verifier is stored, as the server does.
    """

    def __init__(self, user: str, method: str, stored: StoredPassword | None, *, mock_secret: bytes = b"") -> None:
        assert method in METHODS, f"unknown authentication method {method}"
        self._user = user
        self._method = method
        self._stored = stored
        self._mock_secret = mock_secret
        self._salt = b""
        self._expect: Callable[[bytes], bytes] = self._password
        self._scram: ScramServer | None = None
        self.state = LoginState.WAITING
        self.error: ErrorFields | None = None
        self.reason: str | None = None
        """Once REFUSED, why, in words for the log; nothing of it is for the client."""
        self.credentials = Credentials()

    def start(self) -> bytes:
        """What to send first: a request for a password, or nothing where the method is trust."""
        if self._method == "trust":
            return self._accept(Credentials.of_stored(self._stored))
        if self._method == "cleartext":
            return messages.authentication_cleartext()
        stored_for_scram = self._stored is not None and self._stored.kind is PasswordKind.SCRAM
        if self._method == "scram" or stored_for_scram:
            self._expect = self._sasl_initial
            return messages.authentication_sasl([MECHANISM])
        self._expect = self._md5
        self._salt = secrets.token_bytes(4)
        return messages.authentication_md5(self._salt)

    def receive(self, kind: int, payload: bytes) -> bytes:
        """Take the client's next message; return what to send, and look at `state`.

        Raises ProtocolViolation for anything but an answer to what was asked. A Terminate is the caller's to see.
        """
        assert self.state is LoginState.WAITING, "a login that is over takes no messages"
        if kind != messages.PASSWORD_MESSAGE:
            got = messages.FRONTEND_NAMES.get(kind, f"type {kind}")
            raise ProtocolViolation(f"expected a password response, got {got}")
        return self._expect(payload)

    def _password(self, payload: bytes) -> bytes:
        password = messages.parse_password(payload).decode("utf-8", "surrogateescape")
        if self._stored is None or not password or not self._stored.is_password(self._user, password):
            return self._refuse()
        return self._accept(Credentials(password=password))

    def _md5(self, payload: bytes) -> bytes:
        response = messages.parse_password(payload)
        if self._stored is None or not self._stored.is_md5_response(self._user, self._salt, response):
            return self._refuse()
        return self._accept(Credentials.of_stored(self._stored))

    def _sasl_initial(self, payload: bytes) -> bytes:
        mechanism, data = messages.parse_sasl_initial_response(payload)
        if mechanism != MECHANISM:
            raise ProtocolViolation("the client selected a SASL mechanism that was not offered")
        self._expect = self._sasl_first
        # Without data the client waits for an empty challenge, RFC 4422 says, and then sends it.
        return self._sasl_first(data) if data else messages.authentication_sasl_continue(b"")

    def _sasl_first(self, data: bytes) -> bytes:
        verifier = self._stored.verifier if self._stored is not None else None
        self._scram = ScramServer(verifier or make_mock_verifier(self._user, self._mock_secret))
        self._expect = self._sasl_final
        return messages.authentication_sasl_continue(self._scram.first(data))

    def _sasl_final(self, data: bytes) -> bytes:
        assert self._scram is not None, "the first message of the exchange came before"
        server_final = self._scram.final(data)
        if server_final is None or self._stored is None or self._stored.verifier is None:
            return self._refuse()
        credentials = Credentials.of_stored(self._stored)
        if self._stored.kind is PasswordKind.SCRAM:
            credentials = Credentials(scram_keys=ScramKeys(self._stored.verifier, self._scram.client_key))
        return self._accept(credentials) + messages.authentication_sasl_final(server_final)

    def _accept(self, credentials: Credentials) -> bytes:
        self.credentials = credentials
        self.state = LoginState.ACCEPTED
        return b""

    def _refuse(self) -> bytes:
        """The same words whatever was wrong; the reason is for the log."""
        self.error = ErrorFields("FATAL", "28P01", f'password authentication failed for user "{self._user}"')
        if self._stored is None:
            self.reason = f'no password is stored for user "{self._user}"'
        elif self._method == "scram" and self._stored.kind is PasswordKind.MD5:
            self.reason = (
                f'user "{self._user}" is stored with an md5 hash, which method "scram" cannot check: '
                'store a SCRAM-SHA-256 secret or the password, or set method "md5"'
            )
        else:
            self.reason = f'the password does not match the one stored for user "{self._user}"'
        self.state = LoginState.REFUSED
        return b""


class ServerLogin:
    """The proxy as the client: logs in to a server as `user`.

    Send what `start` and `receive` return. A password goes over the wire in cleartext only where `allow_cleartext`
    says that the leg is encrypted. `parameters` are further startup parameters. `minor` is the newest version of
    protocol 3 to be spoken; an older server says which it speaks instead, and nothing here depends on it.
    """

    def __init__(
        self,
        user: str,
        database: str,
        credentials: Credentials | None,
        parameters: Mapping[str, str],
        *,
        allow_cleartext: bool = False,
        minor: int = 0,
    ) -> None:
        self._user = user
        self._startup = {"user": user, "database": database, **parameters}
        self._credentials = credentials or Credentials()
        self._allow_cleartext = allow_cleartext
        self._minor = minor
        self._scram: ScramClient | None = None
        self._authenticated = False
        self.state = LoginState.WAITING
        self.parameters: dict[str, str] = {}
        self.process_id = 0
        self.secret_key = b""
        self.error: ErrorFields | None = None
        self.raw_error = b""
        """The payload of the server's own ErrorResponse, where that is why the login failed."""

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
        return answer(self, request.data)

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
        if MECHANISM not in offered:
            return self._fail(f"the server offers only {', '.join(offered)}, and {MECHANISM} is what is supported")
        secret = self._credentials.scram_keys if self._credentials.password is None else self._credentials.password
        if secret is None:
            return self._lack("the password or its SCRAM keys")
        self._scram = ScramClient(secret)
        return messages.sasl_initial_response(MECHANISM, self._scram.first())

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
        self.raw_error = payload
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
