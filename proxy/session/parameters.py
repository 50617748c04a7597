"""The session parameters of clients and server connections, and the SQL that makes one like the other.

Owns: which parameters are followed, interned sets of their values, what a server is known to accept, safe quoting.
Does not know: sockets, when something is sent, slots.
Source: PostgreSQL manual, "ParameterStatus" (protocol-flow, Asynchronous Operations) and "SET" (sql-set).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias
from weakref import WeakValueDictionary

from proxy.wire import messages
from proxy.wire.sql import FOLLOWED_PARAMETERS

if TYPE_CHECKING:
    from proxy.session.server import ServerConnection

# Reported by the server and settable by anyone: a ParameterStatus tells every change, whoever caused it.
# search_path is reported from version 18 on; where the server does not report it, a change of it by SET pins.
REPORTED_SETTABLE: Final = FOLLOWED_PARAMETERS | {"search_path"}

# Startup parameters that are not settings of the session.
NOT_SETTINGS: Final = frozenset({"user", "database", "options", "replication"})

# set_config() reads these values as the lists they are; SET name = 'a, b' would take one element with a comma in it.
_LISTS: Final = frozenset(
    {
        "createrole_self_grant",
        "log_destination",
        "restrict_nonsystem_relation_kind",
        "search_path",
        "temp_tablespaces",
        "session_preload_libraries",
        "local_preload_libraries",
        "unix_socket_directories",
    }
)
# Of no consequence for what a statement means or returns. All others may be folded into what the server has parsed.
_NOT_FOLDED: Final = frozenset(
    {
        "application_name",
        "client_min_messages",
        "default_transaction_deferrable",
        "default_transaction_isolation",
        "default_transaction_read_only",
        "idle_in_transaction_session_timeout",
        "idle_session_timeout",
        "lock_timeout",
        "scram_iterations",
        "statement_timeout",
        "transaction_timeout",
    }
)
_PLAIN_NAME: Final = re.compile(r"[a-z_][a-z0-9_]*\Z")
# The server rewrites any other application_name (it masks bytes and cuts at 63), so only its answer tells the value.
_UNCHANGED_APPLICATION_NAME: Final = re.compile(r"[\x20-\x7e]{0,63}\Z")
_MAX_BEGINNINGS: Final = 64  # a few hundred bytes each, per pool
_MAX_ACCEPTED: Final = 10_000  # (name, value) pairs remembered per pool; a client that invents values pays, not memory


class Folding:
    """The values that a server folds into a statement when it parses it: the same object for the same values."""

    __slots__ = ("__weakref__",)


class Settings:
    """An interned set of parameter values: two are equal exactly when they are the same object.

    `values` maps lower-case names to values as the server reported them (or, where it does not report, as asked for).
    `idle` are the idle server connections that have them, and belongs to `idle.IdleConnections`. Statements are shared
    among settings of one `folding`.
    """

    __slots__ = ("__weakref__", "folding", "idle", "values")

    def __init__(self, values: Mapping[str, str], folding: Folding) -> None:
        self.values = values
        self.folding = folding
        self.idle: list[ServerConnection] = []


Wanted: TypeAlias = tuple[tuple[str, str], ...]
"""Startup parameters, by lower-case name."""


class SettingsTable:
    """The settings of one pool (database and user): neutral values, interning, and what the server accepted before."""

    def __init__(self) -> None:
        self._interned: WeakValueDictionary[tuple[tuple[str, str], ...], Settings] = WeakValueDictionary()
        self._foldings: WeakValueDictionary[tuple[tuple[str, str], ...], Folding] = WeakValueDictionary()
        self._accepted: dict[tuple[str, str], str] = {}
        self.reported: dict[str, str] = {}  # every ParameterStatus of the latest server login, names as reported
        self._statuses: list[bytes] = []  # these as messages, and where each parameter is among them
        self._places: dict[str, tuple[int, str]] = {}
        self._beginnings: dict[Wanted, tuple[Settings, bytes]] = {}
        self.neutral = self.intern({})

    @property
    def is_known(self) -> bool:
        """A server login has told the parameters."""
        return bool(self.reported)

    def learn_login(self, reported: Mapping[str, str]) -> Settings:
        """Take the ParameterStatus values of a server login; return the settings that connection now has."""
        if reported != self.reported:
            self._report(dict(reported))
        values = {name.lower(): value for name, value in reported.items() if name.lower() in REPORTED_SETTABLE}
        for name, value in values.items():
            self._accepted[name, value] = value
        self.neutral = self.intern(values)
        return self.neutral

    def _report(self, reported: dict[str, str]) -> None:
        self.reported = reported
        self._statuses = [messages.parameter_status(name, value) for name, value in reported.items()]
        self._places = {name.lower(): (at, name) for at, name in enumerate(reported)}
        self._beginnings.clear()

    def beginning_or_none(self, wanted: Wanted) -> tuple[Settings, bytes] | None:
        """What `settings_or_none` and `statuses` say for a client that starts up with `wanted`.

        Remembered, for a fleet asks for one thing a thousand times.
        """
        known = self._beginnings.get(wanted)
        if known is None:
            settings = self.settings_or_none(dict(wanted))
            if settings is None:
                return None
            if len(self._beginnings) >= _MAX_BEGINNINGS:
                self._beginnings.clear()
            known = self._beginnings[wanted] = (settings, self.statuses(settings))
        return known

    def statuses(self, settings: Settings) -> bytes:
        """The ParameterStatus messages for a client that begins with `settings`."""
        told, neutral = self._statuses.copy(), self.neutral.values
        for name, value in settings.values.items():
            if neutral.get(name) != value and name in self._places:
                at, as_reported = self._places[name]
                told[at] = messages.parameter_status(as_reported, value)
        return b"".join(told)

    def intern(self, values: Mapping[str, str]) -> Settings:
        key = tuple(sorted(values.items()))
        settings = self._interned.get(key)
        if settings is None:
            settings = self._interned[key] = Settings(dict(key), self._folding(key))
        return settings

    def _folding(self, key: tuple[tuple[str, str], ...]) -> Folding:
        folded = tuple(item for item in key if item[0] not in _NOT_FOLDED)
        folding = self._foldings.get(folded)
        if folding is None:
            folding = self._foldings[folded] = Folding()
        return folding

    def is_reported(self, name: str) -> bool:
        return name in self.neutral.values

    def accept(self, name: str, asked: str, now_reported: str) -> None:
        """The server took `asked` for `name` and reports it as `now_reported`."""
        if len(self._accepted) >= _MAX_ACCEPTED:
            self._accepted.pop(next(iter(self._accepted)))
        if self._accepted.get((name, asked)) != now_reported:
            self._beginnings.clear()
        self._accepted[name, asked] = now_reported
        self._accepted[name, now_reported] = now_reported

    def is_accepted(self, name: str, value: str) -> bool:
        return (name, value) in self._accepted or _needs_no_proof(name, value)

    def are_accepted(self, changes: Iterable[tuple[str, str | None]]) -> bool:
        return all(value is None or self.is_accepted(name, value) for name, value in changes)

    def settings_or_none(self, wanted: Mapping[str, str]) -> Settings | None:
        """The settings of a client that starts up with `wanted`, or None where the server must be asked first."""
        values = dict(self.neutral.values)
        for name, value in wanted.items():
            if not self.is_accepted(name, value):
                return None
            values[name] = self._accepted.get((name, value), value)
        return self.intern(values)


def _needs_no_proof(name: str, value: str) -> bool:
    return name == "application_name" and _UNCHANGED_APPLICATION_NAME.match(value) is not None


def difference(have: Settings, want: Settings) -> list[tuple[str, str | None]]:
    """What must be set on a connection with `have` to make it `want`; None stands for RESET."""
    changes: list[tuple[str, str | None]] = [
        (name, value) for name, value in want.values.items() if have.values.get(name) != value
    ]
    changes.extend((name, None) for name in have.values if name not in want.values)
    return changes


def apply_sql(changes: list[tuple[str, str | None]], *, in_block: bool = False) -> str:
    """One simple query that applies `changes` or leaves the connection in a failed transaction.

    A failed transaction refuses whatever the client sent behind it, so nothing of the client's runs under settings
    that are not its own. `in_block`: a transaction of the client's is open and goes on.
    """
    statements = [_set_statement(name, value) for name, value in changes]
    return ";".join(statements if in_block else ["BEGIN", *statements, "COMMIT"])


def question(names: Sequence[str]) -> str:
    """One simple query with two rows of text: what the parameters are now, and what they are by default.

    A transaction is opened and rolled back. It fails where one of them may not be read or set.
    """
    columns = ",".join(f"pg_catalog.current_setting({_literal(name)}, true)" for name in names)
    defaults = ";".join(f"SET LOCAL {_identifier(name)} TO DEFAULT" for name in names)
    return f"BEGIN;SELECT {columns};{defaults};SELECT {columns};ROLLBACK"


def _set_statement(name: str, value: str | None) -> str:
    if value is None:
        return f"RESET {_identifier(name)}"
    if name in _LISTS or not _PLAIN_NAME.match(name):
        return f"SELECT pg_catalog.set_config({_literal(name)}, {_literal(value)}, false)"
    return f"SET {_identifier(name)} = {_literal(value)}"


def _identifier(name: str) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split("."))


def _literal(value: str) -> str:
    """A string constant that reads the same whatever standard_conforming_strings is."""
    quoted = value.replace("'", "''")
    if "\\" in quoted:
        return "E'" + quoted.replace("\\", "\\\\") + "'"
    return f"'{quoted}'"
