"""Every parameter keyword of libpq, and what becomes of it here.

Owns: the list of keywords, which values they take, which are used, which change nothing, which are refused and why.
Does not know: how a URI is cut into keywords.
Source: PostgreSQL manual, "Database Connection Control Functions" (libpq-connect), version 18; the list is that of
PQconndefaults() of libpq 18, compared in the tests with the libpq at hand.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Use(Enum):
    USED = "used"
    IGNORED = "accepted and ignored"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Keyword:
    """`note` says what it does here, why it changes nothing, or what to do instead.

    `choices` are the values allowed; `harmless` the values of a refused keyword that ask for nothing.
    """

    use: Use
    note: str
    environment: str = ""
    choices: tuple[str, ...] = ()
    harmless: tuple[str, ...] = ()
    whole_number: bool = False


def _used(note: str, environment: str = "", *choices: str) -> Keyword:
    return Keyword(Use.USED, note, environment, choices)


def _number(note: str, environment: str = "") -> Keyword:
    return Keyword(Use.USED, note, environment, whole_number=True)


def _ignored(note: str, *choices: str) -> Keyword:
    return Keyword(Use.IGNORED, note, choices=choices)


def _refused(note: str, *harmless: str) -> Keyword:
    return Keyword(Use.REFUSED, note, harmless=harmless)


SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
TLS_VERSIONS: Final = ("TLSv1.2", "TLSv1.3")
PROTOCOL_MINORS: Final = {"3.0": 0, "3.2": 2, "latest": 2}

KEYWORDS: Final[dict[str, Keyword]] = {
    "host": _used("name, address or socket directory; several by comma are tried in order until one suits", "PGHOST"),
    "hostaddr": _used("dialled instead of the name, which still serves TLS; as many as hosts", "PGHOSTADDR"),
    "port": _used("one for all hosts, or as many as hosts", "PGPORT"),
    "dbname": _used("database of the proxy's own connections", "PGDATABASE"),
    "user": _used("user of the proxy's own connections", "PGUSER"),
    "password": _used("password of the proxy's own connections", "PGPASSWORD"),
    "connect_timeout": _number("seconds for one dial; 0 is no bound of its own", "PGCONNECT_TIMEOUT"),
    "options": _ignored("clients bring their own; the proxy's own connections need none"),
    "application_name": _ignored("clients bring their own"),
    "fallback_application_name": _ignored("clients bring their own"),
    "keepalives": _ignored("TCP keepalive is always on, after 30 s", "0", "1"),
    "keepalives_idle": _ignored("always 30 s"),
    "keepalives_interval": _ignored("always 10 s"),
    "keepalives_count": _ignored("always 3"),
    "tcp_user_timeout": _ignored("the system's own"),
    "sslmode": _used("as in libpq", "PGSSLMODE", *SSL_MODES),
    "sslnegotiation": _used(
        "direct saves a round trip from PostgreSQL 17 on", "PGSSLNEGOTIATION", "postgres", "direct"
    ),
    "sslcert": _used("client certificate file", "PGSSLCERT"),
    "sslkey": _used("its key file", "PGSSLKEY"),
    "sslpassword": _used("the password of that key"),
    "sslcertmode": _used("disable: sslcert is not sent", "PGSSLCERTMODE", "disable", "allow", "require"),
    "sslrootcert": _used("CA file, or system", "PGSSLROOTCERT"),
    "sslsni": _used("0: the server's name is not sent; not with verify-full", "PGSSLSNI", "0", "1"),
    "ssl_min_protocol_version": _used("lowest TLS version", "PGSSLMINPROTOCOLVERSION", *TLS_VERSIONS),
    "ssl_max_protocol_version": _used("highest TLS version", "PGSSLMAXPROTOCOLVERSION", *TLS_VERSIONS),
    "target_session_attrs": _used(
        "which of the servers suits",
        "PGTARGETSESSIONATTRS",
        *("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    ),
    "load_balance_hosts": _used(
        "random: each dial goes to a host drawn by chance", "PGLOADBALANCEHOSTS", "disable", "random"
    ),
    "client_encoding": _ignored("every client's own encoding is followed"),
    "sslcompression": _ignored("TLS compression exists no more", "0", "1"),
    "gssencmode": _refused("GSSAPI encryption is not spoken here; use sslmode", "disable", "prefer"),
    "krbsrvname": _ignored("GSSAPI is not spoken here"),
    "gsslib": _ignored("GSSAPI is not spoken here"),
    "gssdelegation": _ignored("GSSAPI is not spoken here", "0", "1"),
    "min_protocol_version": _refused("older servers are spoken to as well; write max_protocol_version", "3.0"),
    "max_protocol_version": _used(
        "newest protocol asked of the server, 3.0 where not given; 3.2 brings longer cancel keys from PostgreSQL 18 on",
        "PGMAXPROTOCOLVERSION",
        *PROTOCOL_MINORS,
    ),
    "channel_binding": _used(
        "require: only a server that proves with SCRAM where its TLS ends is logged in to",
        "PGCHANNELBINDING",
        *("disable", "prefer", "require"),
    ),
    "require_auth": _refused(
        "the method the server asks for is followed; write sslmode=verify-full to be sure of the server"
    ),
    "requirepeer": _refused("the owner of a unix socket is not compared; protect the socket's directory instead"),
    "sslcrl": _refused("revocation lists are not read; leave it out knowingly"),
    "sslcrldir": _refused("revocation lists are not read; leave it out knowingly"),
    "sslkeylogfile": _refused("TLS keys are not written to files"),
    "passfile": _refused("password files are not read; write the password as ${VARIABLE} in the URL or set PGPASSWORD"),
    "service": _refused("service files are not read; write what it holds into the URL"),
    "servicefile": _refused("service files are not read; write what they hold into the URL"),
    "replication": _refused("the proxy's own connections are ordinary ones", "false", "off", "no", "0"),
    "scram_client_key": _refused("keys are learnt from clients or users_file; write the password"),
    "scram_server_key": _refused("keys are learnt from clients or users_file; write the password"),
    "oauth_issuer": _refused("OAuth is not spoken here"),
    "oauth_client_id": _refused("OAuth is not spoken here"),
    "oauth_client_secret": _refused("OAuth is not spoken here"),
    "oauth_scope": _refused("OAuth is not spoken here"),
}

# Keys that drivers keep in the same URL. libpq refuses them too; these are the ones people paste.
DRIVER_KEYS: Final[dict[str, str]] = {
    "pgbouncer": "Prisma",
    "connection_limit": "Prisma",
    "pool_timeout": "Prisma",
    "schema": "Prisma",
    "sslaccept": "Prisma",
    "sslidentity": "Prisma",
    "statement_cache_size": "Prisma and asyncpg",
    "socket_timeout": "Prisma",
    "uselibpqcompat": "node-postgres",
    "max": "postgres.js",
    "idle_timeout": "postgres.js",
    "prepareThreshold": "pgjdbc",
    "currentSchema": "pgjdbc",
    "ApplicationName": "pgjdbc",
    "default_query_exec_mode": "pgx",
    "pool_max_conns": "pgx",
    "supa": "Supabase",
}
