"""Who the client is: the half of a login in which the proxy is the server.

Owns: the order of authentication messages, and what is learnt on the way to log in to the server with.
Does not know: startup packets of clients, sockets, time, where passwords are stored, who may use which method.
Source: PostgreSQL manual, "Start-up" (protocol-flow), "SASL Authentication" (sasl-authentication), version 18.

    start -> ACCEPTED                                        (trust)
    start -> WAITING -> ACCEPTED | REFUSED
    start -> WAITING -> HANDED_ON -> ACCEPTED | REFUSED      (passthrough: the server is asked in between)
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from proxy.wire import messages
from proxy.wire.errors import ProtocolViolation
from proxy.wire.messages import ErrorFields
from proxy.wire.passwords import PasswordKind, StoredPassword
from proxy.wire.scram import (
    DEFAULT_ITERATIONS,
    MECHANISM,
    MECHANISM_PLUS,
    ScramKeys,
    ScramServer,
    ScramVerifier,
    make_mock_verifier,
    salt_of_user,
)


class LoginState(Enum):
    """Where a login is. A ClientLogin ends ACCEPTED or REFUSED, a ServerLogin DONE or FAILED."""

    WAITING = "waiting"
    HANDED_ON = "handed_on"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    DONE = "done"
    FAILED = "failed"


METHODS: Final = ("trust", "scram", "md5", "cleartext", "passthrough")


class LoginFailure(Enum):
    """Why a client was not let in; the values are those of the metric `login_failures_total{reason}`."""

    WRONG_PASSWORD = "wrong_password"  # noqa: S105 (a reason)
    UNKNOWN_USER = "unknown_user"
    UNUSABLE_SECRET = "unusable_secret"  # noqa: S105 (a reason)
    CHANNEL_BINDING = "channel_binding"
    CERTIFICATE = "certificate"
    NOT_ALLOWED = "not_allowed"
    UNKNOWN_DATABASE = "unknown_database"  # of no upstream
    NOT_ENCRYPTED = "not_encrypted"
    SERVER_REFUSED = "server_refused"
    UNAVAILABLE = "unavailable"  # whoever knows could not be asked


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
            return NO_CREDENTIALS
        if stored.kind is PasswordKind.MD5:
            return cls(md5_hash=stored.secret)
        return cls(password=stored.secret)


NO_CREDENTIALS: Final = Credentials()


class ClientLogin:
    """The proxy as the server: asks a client for the password of `user`.

    `stored` is None for a user nobody knows; the exchange then looks the same and fails at its end. `mock_secret` is
    random and the same for all logins of the process, so that unknown users always get the same salt;
    `mock_iterations` are those of the users who are known. `binding` is what the leg can be bound to by SCRAM.

    Send what `start` and `receive` return. AuthenticationOk is not among it: after ACCEPTED the caller sends that.
    After HANDED_ON the caller tries `credentials` at the server and tells `server_accepted` or `server_refused`.
    Where a user's md5 hash meets method "scram" no password can be accepted; `reason` says so, for the log only: the
    client must not learn who exists. Method "md5" asks for SCRAM where a SCRAM verifier is stored, as the server does.
    """

    __slots__ = (
        "_binding",
        "_expect",
        "_is_plus",
        "_method",
        "_mock_iterations",
        "_mock_secret",
        "_salt",
        "_scram",
        "_stored",
        "_user",
        "credentials",
        "error",
        "failure",
        "reason",
        "state",
    )

    def __init__(
        self,
        user: str,
        method: str,
        stored: StoredPassword | None,
        *,
        mock_secret: bytes = b"",
        mock_iterations: int = DEFAULT_ITERATIONS,
        binding: bytes | None = None,
    ) -> None:
        assert method in METHODS, f"unknown authentication method {method}"
        self._user = user
        self._method = method
        self._stored = stored
        self._mock_secret = mock_secret
        self._mock_iterations = mock_iterations
        self._binding = binding
        self._salt = b""
        self._is_plus = False
        # A function and no bound method, which would be a cycle for the collector to find.
        self._expect: Callable[[ClientLogin, bytes], bytes] = ClientLogin._password
        self._scram: ScramServer | None = None
        self.state = LoginState.WAITING
        self.error: ErrorFields | None = None
        self.failure: LoginFailure | None = None
        self.reason: str | None = None
        """Once REFUSED, why, in words for the log; nothing of it is for the client."""
        self.credentials = NO_CREDENTIALS

    def start(self) -> bytes:
        """What to send first: a request for a password, or nothing where the method is trust."""
        if self._method == "trust":
            return self._accept(Credentials.of_stored(self._stored))
        if self._method in ("cleartext", "passthrough"):
            self._expect = ClientLogin._password if self._method == "cleartext" else ClientLogin._hand_on
            return messages.authentication_cleartext()
        stored_for_scram = self._stored is not None and self._stored.kind is PasswordKind.SCRAM
        if self._method == "scram" or stored_for_scram:
            self._expect = ClientLogin._sasl_initial
            return messages.authentication_sasl(self._mechanisms())
        self._expect = ClientLogin._md5
        self._salt = secrets.token_bytes(4)
        return messages.authentication_md5(self._salt)

    def _mechanisms(self) -> list[str]:
        return [MECHANISM] if self._binding is None else [MECHANISM_PLUS, MECHANISM]

    def receive(self, kind: int, payload: bytes) -> bytes:
        """Take the client's next message; return what to send, and look at `state`.

        Raises ProtocolViolation for anything but an answer to what was asked. A Terminate is the caller's to see.
        """
        assert self.state is LoginState.WAITING, "a login that is over takes no messages"
        if kind != messages.PASSWORD_MESSAGE:
            got = messages.FRONTEND_NAMES.get(kind, f"type {kind}")
            raise ProtocolViolation(f"expected a password response, got {got}")
        return self._expect(self, payload)

    def server_accepted(self) -> None:
        """The server has let `credentials` in."""
        assert self.state is LoginState.HANDED_ON, "nothing was handed on"
        self.state = LoginState.ACCEPTED

    def server_refused(self, error: ErrorFields, failure: LoginFailure, reason: str) -> None:
        """It has not, or could not be asked. The client reads `error`."""
        assert self.state is LoginState.HANDED_ON, "nothing was handed on"
        self.credentials = Credentials()
        self.error, self.failure, self.reason = error, failure, reason
        self.state = LoginState.REFUSED

    def _password(self, payload: bytes) -> bytes:
        password = messages.parse_password(payload).decode("utf-8", "surrogateescape")
        if self._stored is None or not password or not self._stored.is_password(self._user, password):
            return self._refuse()
        return self._accept(Credentials(password=password))

    def _hand_on(self, payload: bytes) -> bytes:
        password = messages.parse_password(payload).decode("utf-8", "surrogateescape")
        if not password:  # as the server: an empty one is never right, and some servers' methods would take it
            return self._refuse()
        self.credentials = Credentials(password=password)
        self.state = LoginState.HANDED_ON
        return b""

    def _md5(self, payload: bytes) -> bytes:
        response = messages.parse_password(payload)
        if self._stored is None or not self._stored.is_md5_response(self._user, self._salt, response):
            return self._refuse()
        return self._accept(Credentials.of_stored(self._stored))

    def _sasl_initial(self, payload: bytes) -> bytes:
        mechanism, data = messages.parse_sasl_initial_response(payload)
        if mechanism not in self._mechanisms():
            raise ProtocolViolation("the client selected a SASL mechanism that was not offered")
        self._is_plus = mechanism == MECHANISM_PLUS
        self._expect = ClientLogin._sasl_first
        # Without data the client waits for an empty challenge, RFC 4422 says, and then sends it.
        return self._sasl_first(data) if data else messages.authentication_sasl_continue(b"")

    def _sasl_first(self, data: bytes) -> bytes:
        verifier = self._verifier_or_none() or make_mock_verifier(self._user, self._mock_secret, self._mock_iterations)
        self._scram = ScramServer(verifier, binding=self._binding)
        self._expect = ClientLogin._sasl_final
        return messages.authentication_sasl_continue(self._scram.first(data, plus=self._is_plus))

    def _verifier_or_none(self) -> ScramVerifier | None:
        if self._stored is None:
            return None
        return self._stored.verifier_or_none(salt_of_user(self._user, self._mock_secret), self._mock_iterations)

    def _sasl_final(self, data: bytes) -> bytes:
        assert self._scram is not None, "the first message of the exchange came before"
        server_final = self._scram.final(data)
        if self._scram.is_bound_elsewhere:
            return self._refuse_binding()
        if server_final is None or self._stored is None or self._stored.kind is PasswordKind.MD5:
            return self._refuse()
        credentials = Credentials.of_stored(self._stored)
        if self._stored.verifier is not None:
            credentials = Credentials(scram_keys=ScramKeys(self._stored.verifier, self._scram.client_key))
        return self._accept(credentials) + messages.authentication_sasl_final(server_final)

    def _accept(self, credentials: Credentials) -> bytes:
        self.credentials = credentials
        self.state = LoginState.ACCEPTED
        return b""

    def _refuse(self) -> bytes:
        """The same words whatever was wrong; the reason is for the log."""
        self.error = wrong_password(self._user)
        if self._stored is None and self._method != "passthrough":
            self.failure = LoginFailure.UNKNOWN_USER
            self.reason = f'no password is stored for user "{self._user}"'
        elif self._method == "scram" and self._stored is not None and self._stored.kind is PasswordKind.MD5:
            self.failure = LoginFailure.UNUSABLE_SECRET
            self.reason = (
                f'user "{self._user}" is stored with an md5 hash, which method "scram" cannot check: '
                'store a SCRAM-SHA-256 secret or the password, or set method "md5"'
            )
        else:
            self.failure = LoginFailure.WRONG_PASSWORD
            self.reason = f'the password does not match the one stored for user "{self._user}"'
        self.state = LoginState.REFUSED
        return b""

    def _refuse_binding(self) -> bytes:
        hint = "TLS must reach from the client to pgheadroom itself; else connect with channel_binding=disable"
        self.error = ErrorFields("FATAL", "28000", "SCRAM channel binding check failed", hint=hint)
        self.failure = LoginFailure.CHANNEL_BINDING
        self.reason = "the client was shown another certificate than listen.tls.cert: its TLS does not end here"
        self.state = LoginState.REFUSED
        return b""


def wrong_password(user: str) -> ErrorFields:
    """What everybody reads whose password is not taken, whether the user exists or not."""
    return ErrorFields("FATAL", "28P01", f'password authentication failed for user "{user}"')
