"""Which class a client belongs to, by what it says and by where it comes from.

Owns: the rules in order, and a bounded memory of recent answers.
Does not know: what a class may do, whether a client may lie about its name.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

# Names and addresses come from clients, so their number is not ours to trust.
REMEMBERED_ANSWERS = 4096

# What a client of the unix socket has for an address; pg_hba.conf calls such connections so.
LOCAL = "local"

Matches = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class MatchEntry:
    """One alternative of a class's `match`: all keys that are given must match.

    Values are globs (`*`, `?`, `[...]`), case-sensitive. An address is a network (`10.0.0.0/8`, `fd00::/8`), one
    address, or a glob over its text; clients of the unix socket have the address `local`.
    """

    application_name: str | None = None
    user: str | None = None
    database: str | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Classification:
    """`matched` is False where no rule applied and the default class was taken."""

    class_name: str
    matched: bool


class Classifier:
    """First matching rule wins. Raises ValueError for an address that looks like a network and is none."""

    def __init__(self, rules: Sequence[tuple[str, Iterable[MatchEntry]]], default_class: str) -> None:
        self._default = Classification(default_class, matched=False)
        entries = [(Classification(name, matched=True), entry) for name, one in rules for entry in one]
        self._rules = [(answer, _compile(entry)) for answer, entry in entries]
        self._looks_at_addresses = any(entry.address is not None for _, entry in entries)
        self._remembered = lru_cache(REMEMBERED_ANSWERS)(self._find)

    @property
    def default_class(self) -> str:
        return self._default.class_name

    def classify(self, application_name: str, user: str, database: str, address: str | None) -> Classification:
        """`address` is the text of an IP address, or None for a client of the unix socket."""
        # Where no rule asks for the address, clients from many hosts share one remembered answer.
        where = (LOCAL if address is None else address) if self._looks_at_addresses else ""
        return self._remembered(application_name, user, database, where)

    def _find(self, *facts: str) -> Classification:
        for answer, matchers in self._rules:
            if all(matches is None or matches(fact) for matches, fact in zip(matchers, facts, strict=True)):
                return answer
        return self._default


def _compile(entry: MatchEntry) -> tuple[Matches | None, ...]:
    """One matcher for each fact, in the order of `classify`; None asks for nothing."""
    names = (entry.application_name, entry.user, entry.database)
    by_name = [None if pattern is None else _glob(pattern) for pattern in names]
    return (*by_name, None if entry.address is None else _address(entry.address))


def _glob(pattern: str) -> Matches:
    match = re.compile(translate(pattern)).match
    return lambda text: match(text) is not None


def _address(pattern: str) -> Matches:
    if "/" in pattern or _is_address(pattern):
        return _network(pattern)
    return _glob(pattern)


def _network(pattern: str) -> Matches:
    network = ip_network(pattern, strict=False)

    def matches(text: str) -> bool:
        if not _is_address(text):
            return False
        address = _plain(ip_address(text))
        return address.version == network.version and address in network

    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
        raise ValueError(f'the address "{pattern}" is an IPv4 address written as IPv6: write it as IPv4')
    return matches


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """A dual-stack socket shows IPv4 clients as ::ffff:a.b.c.d; nobody writes rules that way."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
