"""What the session layer is told: plain values, already checked by the service layer.

Owns: names and units of these settings.
Does not know: files, environment, how a value was validated.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase

from proxy.admission.holds import NO_BOUNDS, HoldBounds
from proxy.admission.lateness import LatenessSettings
from proxy.session.encryption import TlsOffer
from proxy.wire.passwords import StoredPassword
from proxy.wire.scram import DEFAULT_ITERATIONS
from proxy.wire.server_login import ChannelBinding


class PoolMode(Enum):
    """When a client gives its server connection back (PgBouncer's `pool_mode`)."""

    TRANSACTION = "transaction"
    SESSION = "session"
    STATEMENT = "statement"


class OnSessionState(Enum):
    """What becomes of a statement whose effect on the session cannot follow the client."""

    PIN = "pin"
    REJECT = "reject"
    IGNORE = "ignore"


class SslMode(Enum):
    """libpq's `sslmode`, as far as it changes what is dialled."""

    DISABLE = "disable"
    ALLOW = "allow"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"


class SessionAttrs(Enum):
    """libpq's `target_session_attrs`: which of several hosts are wanted."""

    ANY = "any"
    READ_WRITE = "read-write"
    READ_ONLY = "read-only"
    PRIMARY = "primary"
    STANDBY = "standby"
    PREFER_STANDBY = "prefer-standby"


@dataclass(frozen=True, slots=True)
class UpstreamHost:
    """One host of the upstream URL. `name` starting with "/" is the directory of a unix socket, "@" an abstract one.

    `address` (hostaddr) is dialled instead of the name, which is then for TLS alone.
    """

    name: str
    port: int
    address: str | None = None

    @property
    def is_unix_socket(self) -> bool:
        return self.name.startswith(("/", "@"))

    def __str__(self) -> str:
        return f"{self.name} port {self.port}"


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """How the server's leg is encrypted, where sslmode says that it is.

    `any_name` is a context that verifies as `context` does and compares no names: it serves to find out which names a
    refused certificate holds. `server_name` is what the certificate has to name instead of the host.
    """

    context: ssl.SSLContext | None = None
    any_name: ssl.SSLContext | None = None
    server_name: str | None = None
    sends_name: bool = True  # SNI
    is_direct: bool = False  # the handshake comes first, without an SSLRequest


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """Where PostgreSQL is, and as whom the proxy's own connections log in."""

    hosts: tuple[UpstreamHost, ...]
    user: str
    password: str | None = field(repr=False)
    database: str
    ssl_mode: SslMode = SslMode.PREFER
    tls: UpstreamTls = field(default_factory=UpstreamTls)
    wanted: SessionAttrs = SessionAttrs.ANY
    balances_load: bool = False  # dials go to a host drawn by chance, not to the first that suits
    check_seconds: float = 5.0  # between two looks at names and roles
    protocol_minor: int = 0  # of protocol 3: what server connections ask for
    channel_binding: ChannelBinding = ChannelBinding.PREFER
    name: str = "main"
    databases: tuple[str, ...] = ("*",)  # globs over what clients name
    database_there: str | None = None  # what their database is called on the server; None: as they call it
    replication_class: str | None = None  # None refuses clients that replicate

    def serves(self, database: str) -> bool:
        return any(pattern == "*" or fnmatchcase(database, pattern) for pattern in self.databases)


@dataclass(frozen=True, slots=True)
class ListenSettings:
    host: str | None
    port: int
    unix_socket_dir: str | None
    tls: TlsOffer | None
    tls_required: bool
    client_certificate_required: bool
    login_timeout_seconds: float
    max_client_connections: int


class TlsDemand(Enum):
    """Which connections a rule is for, as host, hostssl and hostnossl of pg_hba.conf tell them apart."""

    ANY = "any"
    REQUIRED = "required"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class AuthRule:
    """`method` is one of the wire's, or cert, or reject. A pattern that is None asks for nothing; see MatchEntry."""

    method: str
    tls: TlsDemand = TlsDemand.ANY
    address: str | None = None
    user: str | None = None
    database: str | None = None


@dataclass(frozen=True, slots=True)
class AuthCacheSettings:
    """How long an answer of the server about a user is believed, a no for less long, and how many are kept."""

    ttl_seconds: float = 30.0
    negative_ttl_seconds: float = 5.0
    max_users: int = 10_000


@dataclass(frozen=True, slots=True)
class AuthSettings:
    """Who is let in. `users` maps a name to what is stored of the password, `cert_users` a certificate's common name
    to the user it may be instead of the one of its own name."""

    rules: tuple[AuthRule, ...]
    users: Mapping[str, StoredPassword]
    auth_query: str | None = None
    cache: AuthCacheSettings = AuthCacheSettings()
    cert_users: Mapping[str, str] = field(default_factory=dict)
    passthrough_dials: int = 1
    failures: LatenessSettings = field(default_factory=LatenessSettings)  # how late failed logins are answered

    @property
    def mock_iterations(self) -> int:
        """SCRAM iterations that users nobody knows are shown: as many as those who are known."""
        stored = (one.verifier for one in self.users.values())
        return next((verifier.iterations for verifier in stored if verifier is not None), DEFAULT_ITERATIONS)


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """Server connections: lives in seconds, dials as a count of those under way at once."""

    server_lifetime_seconds: float = 3600.0
    server_idle_timeout_seconds: float = 600.0
    check_after_seconds: float = 30.0
    dial_timeout_seconds: float = 5.0
    max_dials: int = 2
    max_prepared_statements: int = 200
    gone_timeout_seconds: float = 10.0
    retry_min_seconds: float = 0.2
    retry_max_seconds: float = 5.0
    cancel_on_disconnect: bool = True
    listen_connections: int = 4


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """Bounds in bytes on what one client may make the proxy hold."""

    max_message_bytes: int = 1 << 30
    max_startup_bytes: int = 10_000
    max_inspected_bytes: int = 1 << 20
    max_waiting_bytes: int = 256 * 1024
    max_statement_bytes: int = 16 << 20
    max_notification_bytes: int = 256 * 1024


class TagsFollowed(Enum):
    """What is done about tags in comments: nothing, to follow those that lower a class, or all of them."""

    OFF = "off"
    LOWER = "lower"
    TRUST = "trust"


@dataclass(frozen=True, slots=True)
class TagSettings:
    """`key` is that of the tag; its value the name of a class, or what an application_name would say."""

    followed: TagsFollowed = TagsFollowed.OFF
    key: str = "class"
    names_application: bool = False


@dataclass(frozen=True, slots=True)
class ClassBehaviour:
    """What the session layer needs to know of a class; its numbers belong to the admission core."""

    pool_mode: PoolMode = PoolMode.TRANSACTION
    priority: int = 5
    queue_timeout_seconds: float = 20.0
    flow_key: str = "identity"
    on_session_state: OnSessionState = OnSessionState.PIN
    parameters: Mapping[str, str] = field(default_factory=dict)
    holds: HoldBounds = NO_BOUNDS


@dataclass(frozen=True, slots=True)
class SessionSettings:
    listen: ListenSettings
    auth: AuthSettings
    limits: LimitSettings
    classes: Mapping[str, ClassBehaviour]
    refusals: LatenessSettings  # how late those are answered who connect again after a refusal
    tags: TagSettings = TagSettings()
