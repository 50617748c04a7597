"""One client's way from its startup packet to a yes or a no.

Owns: the order of the steps: the rule that is for it, what is stored of its user, the exchange, the server's judgement.
Does not know: the client's socket and timers (`client_login`), what happens after the yes, how late a no is said.

Nothing here takes a slot of a class: `auth_query` and `passthrough` go over slots of the class `internal`, few at once.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from proxy.session.settings import AuthRule
from proxy.session.user_lookup import LookupFailed
from proxy.wire.channel_binding import end_point_hash_or_none
from proxy.wire.login import ClientLogin, Credentials, LoginFailure, LoginState, wrong_password
from proxy.wire.messages import ErrorFields
from proxy.wire.passwords import StoredPassword

if TYPE_CHECKING:
    from proxy.session.identity import Identity
    from proxy.session.upstream import Upstream

_IN_CLEARTEXT: Final = frozenset(("cleartext", "passthrough"))
_BY_STORED_PASSWORD: Final = frozenset(("scram", "md5", "cleartext"))
# What is remembered of a user is asked for again after a wrong password, but not for each guess of a burst.
_ASK_AGAIN_AFTER_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class LoginRefusal:
    """A decided no: what the client reads, the name of the reason in metrics, and the reason in words for the log."""

    error: ErrorFields
    failure: LoginFailure
    reason: str


class LoggingIn(Protocol):
    """The client, as its authentication sees it."""

    def send(self, data: bytes) -> None: ...

    def accepted(self, credentials: Credentials, reply: bytes) -> None:
        """`reply` goes out ahead of AuthenticationOk."""

    def refused(self, refusal: LoginRefusal) -> None: ...

    def continue_soon(self, work: Callable[[], None]) -> None:
        """Run `work` in its turn, unless the client has gone by then."""


class Authentication:
    """`begin`, then `receive` for each message of the client, until `client` is told `accepted` or `refused`.

    While `is_asking` nothing may be received: the server is being asked about the client.
    """

    __slots__ = ("_client", "_desk", "_identity", "_login", "_upstream", "is_asking")

    def __init__(self, upstream: "Upstream", client: LoggingIn, identity: "Identity") -> None:
        self._desk = upstream.desk
        self._upstream = upstream
        self._client = client
        self._identity = identity
        self._login: ClientLogin | None = None
        self.is_asking = False

    def begin(self) -> None:
        identity = self._identity
        rule = self._desk.auth_rules.first_match_or_none(
            identity.user, identity.database, identity.address, is_encrypted=identity.tls is not None
        )
        refusal = self._refusal_by_rule(rule)
        if refusal is not None:
            self._client.refused(refusal)
            return
        assert rule is not None, "without a rule there is a refusal"
        self._begin_with(rule.method)

    def receive(self, kind: int, payload: bytes) -> None:
        """Raises ProtocolViolation for anything but an answer to what was asked."""
        assert self._login is not None, "nothing was asked yet"
        self._after(self._login, self._login.receive(kind, payload))

    # -- before anything is asked -------------------------------------------------------------------------------------

    def _refusal_by_rule(self, rule: AuthRule | None) -> LoginRefusal | None:
        identity = self._identity
        if rule is None or rule.method == "reject":
            why = "no entry of auth.rules is for it" if rule is None else "an entry of auth.rules rejects it"
            return LoginRefusal(self._not_allowed(), LoginFailure.NOT_ALLOWED, why)
        if rule.method in _IN_CLEARTEXT and identity.tls is None and identity.address is not None:
            error = ErrorFields("FATAL", "28000", "passwords are taken over TLS only", hint="use sslmode=require")
            return LoginRefusal(
                error, LoginFailure.NOT_ENCRYPTED, f"method {rule.method} takes passwords over TLS only"
            )
        return self._refusal_by_certificate() if rule.method == "cert" else None

    def _not_allowed(self) -> ErrorFields:
        """In the words of the server, which clients' users find when they search for them."""
        identity = self._identity
        where = f'host "{identity.address}"' if identity.address is not None else "the unix socket"
        leg = "SSL encryption" if identity.tls is not None else "no encryption"
        who = f'user "{identity.user}", database "{identity.database}", {leg}'
        return ErrorFields("FATAL", "28000", f"connections are not allowed for {where}, {who}", hint="see auth.rules")

    def _refusal_by_certificate(self) -> LoginRefusal | None:
        user, tls = self._identity.user, self._identity.tls
        if tls is None or not tls.is_verified:
            error = ErrorFields("FATAL", "28000", "connection requires a valid client certificate")
            return LoginRefusal(error, LoginFailure.CERTIFICATE, "no certificate that listen.tls.client_ca has signed")
        name = tls.common_name or ""
        allowed = self._desk.settings.auth.cert_users.get(name, name)
        if allowed == user:
            return None
        error = ErrorFields("FATAL", "28000", f'certificate authentication failed for user "{user}"')
        why = f'the certificate is that of "{name}", which is user "{allowed}"; see auth.cert_users'
        return LoginRefusal(error, LoginFailure.CERTIFICATE, why)

    def _begin_with(self, method: str) -> None:
        auth, user = self._desk.settings.auth, self._identity.user
        stored = auth.users.get(user)
        if stored is None and auth.auth_query is not None and method in _BY_STORED_PASSWORD:
            self._ask(self._look_up(method))
        else:
            self._exchange("trust" if method == "cert" else method, stored)

    async def _look_up(self, method: str) -> Callable[[], None]:
        try:
            stored = await self._upstream.user_lookup.find_or_none(self._identity.user)
        except LookupFailed as failure:
            return partial(self._client.refused, LoginRefusal(failure.fields, LoginFailure.UNAVAILABLE, str(failure)))
        return partial(self._exchange, method, stored)

    # -- the exchange -------------------------------------------------------------------------------------------------

    def _exchange(self, method: str, stored: StoredPassword | None) -> None:
        desk, tls = self._desk, self._identity.tls
        login = self._login = ClientLogin(
            self._identity.user,
            method,
            stored,
            mock_secret=desk.mock_secret,
            mock_iterations=desk.mock_iterations,
            binding=None if tls is None else end_point_hash_or_none(tls.certificate_der),
        )
        self._after(login, login.start())

    def _after(self, login: ClientLogin, reply: bytes) -> None:
        if login.state is LoginState.ACCEPTED:
            self._client.accepted(login.credentials, reply)
        elif login.state is LoginState.REFUSED:
            self._refused(login)
        elif login.state is LoginState.HANDED_ON:
            self._ask(self._try_at_server(login))
        else:
            self._client.send(reply)

    def _refused(self, login: ClientLogin) -> None:
        assert login.error is not None, "a refused login carries its error"
        assert login.failure is not None, "and its name"
        self._upstream.user_lookup.forget_if_older(self._identity.user, _ASK_AGAIN_AFTER_SECONDS)
        self._client.refused(LoginRefusal(login.error, login.failure, login.reason or ""))

    async def _try_at_server(self, login: ClientLogin) -> Callable[[], None]:
        identity, password = self._identity, login.credentials.password
        assert password is not None, "what was handed on is a password"
        error = await self._upstream.passthrough.error_or_none(identity, password)
        if error is None:
            login.server_accepted()
        elif error.code.startswith("28"):
            login.server_refused(wrong_password(identity.user), LoginFailure.SERVER_REFUSED, error.message)
        else:
            login.server_refused(error, LoginFailure.UNAVAILABLE, error.message)
        return partial(self._after, login, b"")

    def _ask(self, question: Coroutine[None, None, Callable[[], None]]) -> None:
        self.is_asking = True
        self._desk.tasks.spawn(self._until_answered(question), name=f"login of {self._identity.user}")

    async def _until_answered(self, question: Coroutine[None, None, Callable[[], None]]) -> None:
        self._client.continue_soon(partial(self._answered, await question))

    def _answered(self, go_on: Callable[[], None]) -> None:
        self.is_asking = False
        go_on()
