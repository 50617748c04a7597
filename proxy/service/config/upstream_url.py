"""The upstream URL: a libpq connection URI, understood whole.

Owns: cutting the URI into keywords and values, libpq's precedence and defaults, one value object for the rest.
Does not know: sockets, TLS contexts. Whatever is wrong is said without showing a value, which may be a password.
Source: PostgreSQL manual, "Connection URIs" (libpq-connect), version 18, and its percent-encoding rules.
"""

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from proxy.service.config.errors import suggestion
from proxy.service.config.upstream_keywords import DRIVER_KEYS, KEYWORDS, PROTOCOL_MINORS, Keyword, Use

_SCHEMES: Final = ("postgresql://", "postgres://")
_DEFAULT_PORT: Final = 5432
_FORM: Final = "postgresql://user:password@host:5432/database?sslmode=verify-full"
_ENCODE: Final = "percent-encode @ : / ? and % in the user and password (@ is %40, / is %2F)"


class UpstreamUrlError(ValueError):
    """A sentence that can be shown: it holds no value of the URL that could be a secret."""


class UpstreamHost(NamedTuple):
    """`host` starting with "/" is the directory of a unix socket, with "@" an abstract one."""

    host: str
    port: int

    @property
    def is_unix_socket(self) -> bool:
        return self.host.startswith(("/", "@"))


@dataclass(frozen=True, slots=True)
class UpstreamUrl:
    """What the URI says, as far as it is used. What is None was not given; times carry their unit.

    `addresses` stands beside `hosts`: what to dial instead of the name (hostaddr), or None.
    """

    hosts: tuple[UpstreamHost, ...]
    addresses: tuple[str | None, ...]
    user: str
    password: str | None = field(repr=False)
    database: str
    sslmode: str = "prefer"
    sslrootcert: str | None = None
    sslcert: str | None = None
    sslkey: str | None = None
    sslpassword: str | None = field(default=None, repr=False)
    ssl_min_protocol_version: str = "TLSv1.2"
    ssl_max_protocol_version: str | None = None
    connect_timeout_seconds: int | None = None
    application_name: str | None = None
    options: str | None = None
    target_session_attrs: str = "any"
    protocol_minor: int = 0
    load_balance_hosts: str = "disable"
    sslnegotiation: str = "postgres"
    sslsni: bool = True
    channel_binding: str = "prefer"

    def shown(self) -> str:
        """The URI for people and logs: users, hosts and database, no password and no parameters."""
        hosts = ",".join(f"{_shown_host(host)}:{port}" for host, port in self.hosts)
        return f"postgresql://{quote(self.user, safe='')}@{hosts}/{quote(self.database, safe='')}"


def _shown_host(host: str) -> str:
    return f"[{host}]" if ":" in host else quote(host, safe="")


def parse_upstream_url(url: str, environ: Mapping[str, str] | None = None) -> UpstreamUrl:
    """Read a libpq URI. Where it is silent, libpq's PG... variables of `environ` speak, then libpq's defaults.

    Raises UpstreamUrlError with one sentence for the first thing wrong.
    """
    values = _keywords_of_uri(url)
    for name, value in values.items():
        _check_keyword(name, value)
    for name, keyword in KEYWORDS.items():
        inherited = (environ or {}).get(keyword.environment, "") if keyword.environment else ""
        if inherited and name not in values:
            _check_value(f"{keyword.environment} in the environment", inherited, keyword)
            values[name] = inherited
    return _built(values)


# Cutting


def _keywords_of_uri(url: str) -> dict[str, str]:
    scheme = next((scheme for scheme in _SCHEMES if url.startswith(scheme)), None)
    if scheme is None:
        raise UpstreamUrlError(f"not a connection URI; allowed: {_FORM}")
    rest = url[len(scheme) :]
    values: dict[str, str] = {}
    rest = _take_credentials(rest, values)
    rest = _take_hosts(rest, values)
    path, _, query = rest.partition("?")
    _store(values, "dbname", path.removeprefix("/"))
    for parameter in query.split("&") if query else ():
        _take_parameter(parameter, values)
    return values


def _take_credentials(rest: str, values: dict[str, str]) -> str:
    # As libpq: an "@" ahead of the first "/" ends the credentials, wherever else it stands.
    if "@" not in rest.partition("/")[0]:
        if "@" in rest.partition("?")[0]:
            raise UpstreamUrlError(f"a / stands before the @; {_ENCODE}")
        return rest
    credentials, _, rest = rest.partition("@")
    user, _, password = credentials.partition(":")
    _store(values, "user", user)
    _store(values, "password", password)
    if "@" in rest.partition("/")[0].partition("?")[0]:
        raise UpstreamUrlError(f"more than one @ before the host; {_ENCODE}")
    return rest


def _take_hosts(rest: str, values: dict[str, str]) -> str:
    end = min((position for position in (rest.find("/"), rest.find("?")) if position >= 0), default=len(rest))
    pairs = [_host_and_port(part) for part in rest[:end].split(",")]
    if any(host for host, _ in pairs):
        values["host"] = ",".join(host for host, _ in pairs)
    if any(port for _, port in pairs):
        values["port"] = ",".join(port for _, port in pairs)
    return rest[end:]


def _host_and_port(part: str) -> tuple[str, str]:
    if not part.startswith("["):
        host, _, port = part.partition(":")
        if ":" in port:
            raise UpstreamUrlError("a host with several colons; allowed: an IPv6 address in brackets, as [::1]:5432")
        return _decoded(host, "the host"), _decoded(port, "the port")
    host, closing, after = part[1:].partition("]")
    if not closing or not host or (after and not after.startswith(":")):
        raise UpstreamUrlError("a [ without its ]; allowed: an IPv6 address in brackets, as [::1]:5432")
    return _decoded(host, "the host"), _decoded(after[1:], "the port")


def _take_parameter(parameter: str, values: dict[str, str]) -> None:
    name, separator, value = parameter.partition("=")
    if not separator or not name:
        raise UpstreamUrlError("a parameter without a name or without =; allowed: name=value joined by &")
    name = _decoded(name, "the name of a parameter")
    if "=" in value:
        raise UpstreamUrlError(f"{name} holds a second =; percent-encode it as %3D")
    if name == "ssl" and value == "true":  # of JDBC; libpq takes it so
        name, value = "sslmode", "require"
    values[name] = _decoded(value, name)


def _store(values: dict[str, str], name: str, encoded: str) -> None:
    if encoded:
        values[name] = _decoded(encoded, f"the {name}")


def _decoded(encoded: str, what: str) -> str:
    for tail in encoded.split("%")[1:]:
        if len(tail) < 2 or not all(digit in "0123456789abcdefABCDEF" for digit in tail[:2]):
            raise UpstreamUrlError(f"a % without two hexadecimal digits in {what}; a literal % is written %25")
        if tail[:2] == "00":
            raise UpstreamUrlError(f"%00 in {what}; no value may hold a zero byte")
    try:
        return unquote_to_bytes(encoded).decode()
    except UnicodeDecodeError:
        raise UpstreamUrlError(f"{what} is not UTF-8 after percent-decoding") from None


# Judging


def _check_keyword(name: str, value: str) -> None:
    keyword = KEYWORDS.get(name)
    if keyword is not None:
        _check_value(name, value, keyword)
    elif name in DRIVER_KEYS:
        raise UpstreamUrlError(
            f'"{name}" belongs to {DRIVER_KEYS[name]} and is unknown to libpq; leave it in the application\'s own URL'
        )
    else:
        raise UpstreamUrlError(f'unknown parameter "{name}"{suggestion(name, list(KEYWORDS))}')


def _check_value(name: str, value: str, keyword: Keyword) -> None:
    if keyword.use is Use.REFUSED and value not in keyword.harmless:
        raise UpstreamUrlError(f"{name} is refused: {keyword.note}")
    if keyword.choices and value and value not in keyword.choices:
        raise UpstreamUrlError(f'{name}: read "{value}", allowed: {", ".join(keyword.choices)}')
    if keyword.whole_number and value and not _is_whole(value):
        raise UpstreamUrlError(f'{name}: read "{value}", allowed: a whole number')


def _is_whole(value: str) -> bool:
    return value.strip().removeprefix("-").isdecimal() and value.isascii()


# Building


def _built(values: Mapping[str, str]) -> UpstreamUrl:
    given = {name: value for name, value in values.items() if value}
    hosts, addresses = _hosts(given)
    user = given.get("user") or _operating_system_user()
    root = given.get("sslrootcert")
    built = UpstreamUrl(
        hosts=hosts,
        addresses=addresses,
        user=user,
        password=given.get("password"),
        database=given.get("dbname") or user,
        sslmode=given.get("sslmode") or ("verify-full" if root == "system" else "prefer"),
        sslrootcert=root,
        sslcert=given.get("sslcert") if given.get("sslcertmode") != "disable" else None,
        sslkey=given.get("sslkey"),
        sslpassword=given.get("sslpassword"),
        ssl_min_protocol_version=given.get("ssl_min_protocol_version", "TLSv1.2"),
        ssl_max_protocol_version=given.get("ssl_max_protocol_version"),
        connect_timeout_seconds=_positive(given, "connect_timeout"),
        application_name=given.get("application_name") or given.get("fallback_application_name"),
        options=given.get("options"),
        target_session_attrs=given.get("target_session_attrs", "any"),
        protocol_minor=PROTOCOL_MINORS[given.get("max_protocol_version", "3.0")],
        load_balance_hosts=given.get("load_balance_hosts", "disable"),
        sslnegotiation=given.get("sslnegotiation", "postgres"),
        sslsni=given.get("sslsni", "1") == "1",
        channel_binding=given.get("channel_binding", "prefer"),
    )
    _check_tls(built, given.get("sslcertmode", "allow"))
    return built


def _positive(given: Mapping[str, str], name: str) -> int | None:
    """libpq reads zero and less as "the system's own"."""
    number = int(given.get(name, "0"))
    return number if number > 0 else None


def _hosts(given: Mapping[str, str]) -> tuple[tuple[UpstreamHost, ...], tuple[str | None, ...]]:
    names = given["host"].split(",") if "host" in given else []
    dialled = given["hostaddr"].split(",") if "hostaddr" in given else []
    if names and dialled and len(names) != len(dialled):
        raise UpstreamUrlError(
            f"{len(names)} hosts and {len(dialled)} in hostaddr; allowed: as many of one as of the other"
        )
    count = len(names) or len(dialled)
    if not count:
        raise UpstreamUrlError(f"no host; allowed: {_FORM}, or postgresql:///database?host=/var/run/postgresql")
    addresses = tuple(address or None for address in dialled) or (None,) * count
    names = [name or address or "" for name, address in zip(names or [""] * count, addresses, strict=True)]
    if not all(names):
        raise UpstreamUrlError(
            "a host in the list is empty; allowed: names, addresses or socket directories joined by commas"
        )
    ports = _ports(given.get("port", ""), count)
    return tuple(UpstreamHost(name, port) for name, port in zip(names, ports, strict=True)), addresses


def _ports(text: str, count: int) -> list[int]:
    ports = [_port(part) for part in text.split(",")]
    if len(ports) == 1:
        return ports * count
    if len(ports) != count:
        raise UpstreamUrlError(f"{len(ports)} ports and {count} hosts; allowed: one port for all, or one for each host")
    return ports


def _port(text: str) -> int:
    if not text:
        return _DEFAULT_PORT
    # The text is not shown: a password with an unescaped : or / ends up here.
    if not (_is_whole(text) and 1 <= int(text) <= 65535):
        raise UpstreamUrlError(f"the port is not a number from 1 to 65535; where it is part of a password, {_ENCODE}")
    return int(text)


def _operating_system_user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise UpstreamUrlError(f"no user, and this process has no user name; allowed: {_FORM}") from None


def _check_tls(url: UpstreamUrl, certificate_mode: str) -> None:
    if url.sslrootcert == "system" and url.sslmode != "verify-full":
        raise UpstreamUrlError(
            f"sslrootcert=system with sslmode={url.sslmode} proves nothing; write sslmode=verify-full"
        )
    if url.sslnegotiation == "direct" and url.sslmode in {"disable", "allow", "prefer"}:
        raise UpstreamUrlError(
            f"sslnegotiation=direct with sslmode={url.sslmode} may end in plaintext; write sslmode=require or more"
        )
    if not url.sslsni and url.sslmode == "verify-full":
        raise UpstreamUrlError("sslsni=0 with sslmode=verify-full cannot be had here; leave sslsni out")
    if url.sslkey and not url.sslcert and certificate_mode != "disable":
        raise UpstreamUrlError("sslkey without sslcert; give both or neither")
    if certificate_mode == "require" and not url.sslcert:
        raise UpstreamUrlError("sslcertmode=require without sslcert; name the client certificate's file")
    if url.channel_binding == "require" and url.sslmode in {"disable", "allow"}:
        raise UpstreamUrlError(f"channel_binding=require with sslmode={url.sslmode}; write sslmode=require or higher")
    highest = url.ssl_max_protocol_version
    if highest is not None and highest < url.ssl_min_protocol_version:
        raise UpstreamUrlError("ssl_max_protocol_version is below ssl_min_protocol_version; swap or drop one")
