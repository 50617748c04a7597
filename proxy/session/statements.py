"""Prepared statements of the protocol: one text on the server, whoever prepared it.

Owns: what is unique about a statement, the names under which server connections know it, and the names of one client.
Does not know: messages, sockets, what is sent when.

A server folds constants when it parses: '2020-01-01' becomes a point of time by the TimeZone of that moment. So a
statement is its text, its parameter types *and* the values of whatever has a say in that (`parameters.Folding`).
"""

from collections.abc import Iterator
from typing import Final
from weakref import WeakValueDictionary

from proxy.session.parameters import Folding
from proxy.wire.sql import SqlFacts

NO_UNNAMED: Final = b""
NONE: Final[frozenset[bytes]] = frozenset()
_HEADER_BYTES: Final = 5
_MAX_KEPT_PARSE_BYTES: Final = 16 * 1024  # a longer unnamed statement is not replayed, and its later use is an error


class Statement:
    """A text with its parameter types, as parsed under one folding.

    `tail` is what stands behind the name in a Parse message. `facts` say what the text does to a session. `is_stale`:
    its result has changed on the server, and whoever prepared it before has to be told.
    """

    __slots__ = ("__weakref__", "facts", "folding", "is_stale", "tail")

    def __init__(self, tail: bytes, folding: Folding | None, facts: SqlFacts) -> None:
        self.tail = tail
        self.folding = folding
        self.facts = facts
        self.is_stale = False

    @property
    def sql(self) -> bytes:
        return self.tail[: self.tail.find(b"\0")]


class StatementTable:
    """The shared statements of one pool. Each lives as long as a client or a server connection knows it."""

    def __init__(self) -> None:
        self._statements: WeakValueDictionary[tuple[Folding, bytes], Statement] = WeakValueDictionary()

    def get(self, tail: bytes, folding: Folding, facts: SqlFacts) -> Statement:
        """The statement of this text. `facts` are what the text means, read under `folding`."""
        statement = self._statements.get((folding, tail))
        if statement is None:
            statement = self._statements[folding, tail] = Statement(tail, folding, facts)
        return statement

    def renew(self, statement: Statement) -> None:
        """Its result has changed: who prepares the text from now on gets another statement."""
        statement.is_stale = True
        if statement.folding is not None:
            self._statements.pop((statement.folding, statement.tail), None)

    def __iter__(self) -> Iterator[Statement]:
        return iter(list(self._statements.values()))


class ServerStatements:
    """What one server connection has parsed, the least recently used first.

    Names are used once: what is uncertain about an old one can never harm a new one. `to_close` are names that the
    server may still know and nobody uses.
    """

    __slots__ = ("_known", "_made", "_private", "_unit", "_unsettled", "has_private", "max_statements", "to_close")

    def __init__(self, max_statements: int) -> None:
        self.max_statements = max_statements
        self._known: dict[Statement, bytes] = {}
        self._private: set[Statement] = set()
        self._unsettled: dict[Statement, int] = {}  # parsed in which unit of those that are not answered yet
        self._unit = 0
        self.has_private = False
        self._made = 0
        self.to_close: list[bytes] = []

    def __len__(self) -> int:
        return len(self._known)

    def name_or_none(self, statement: Statement) -> bytes | None:
        """The name of `statement` here, which counts as a use of it."""
        known = self._known
        if self._unsettled and self._unsettled.get(statement, self._unit) != self._unit:
            self.forget(statement)  # an error may have skipped its Parse; another one is certain
        name = known.get(statement)
        if name is not None and len(known) > 1:
            del known[statement]
            known[statement] = name
        return name

    def add(self, statement: Statement) -> bytes:
        """A name for `statement`, which is about to be parsed. Makes room for it first."""
        while len(self._known) >= self.max_statements:
            self.forget(next(iter(self._known)))
        name = self._known[statement] = self.new_name()
        self._unsettled[statement] = self._unit
        if statement.folding is None:
            self._private.add(statement)
            self.has_private = True
        return name

    def new_name(self) -> bytes:
        self._made += 1
        return b"pgheadroom_%x" % self._made

    def forget(self, statement: Statement) -> None:
        """It is not used any more under the name it had, and to be closed when there is an occasion."""
        name = self._known.pop(statement, None)
        if name is not None:
            self.to_close.append(name)
        self.deallocated(statement)

    def was_not_parsed(self, statement: Statement, name: bytes) -> None:
        """The server has refused or skipped the Parse of that name."""
        if self._known.get(statement) == name:
            self.deallocated(statement)

    def deallocated(self, statement: Statement) -> None:
        """The server forgets it by a command of the client's."""
        self._known.pop(statement, None)
        self._unsettled.pop(statement, None)
        self._private.discard(statement)

    def all_deallocated(self) -> list[bytes]:
        """DEALLOCATE ALL or DISCARD ALL. Returns the names that were known."""
        names = [*self._known.values(), *self.to_close]
        self._known.clear()
        self._unsettled.clear()
        self._private.clear()
        self.to_close = []
        return names

    def forget_private(self) -> None:
        """What was parsed under settings that nobody can name is not for the next client."""
        for statement in list(self._private):
            self.forget(statement)
        self.has_private = False

    def sync_was_sent(self) -> None:
        """Behind it an error of before skips nothing more."""
        self._unit += 1

    def all_answered(self) -> None:
        """What was parsed until now is there, and was parsed under the settings it was said to be."""
        self._unsettled.clear()

    def settings_have_changed(self) -> None:
        """Unannounced, as by a function, and at an unknown moment behind the last answer."""
        for statement in list(self._unsettled):
            self.forget(statement)


class ClientStatements:
    """The names of one client, as a server of its own would have them.

    `unnamed` is the Parse message of the unnamed statement, NO_UNNAMED where there is none. Of one that is too long to
    be kept there is only the header, so that it can be told from others.
    """

    __slots__ = ("changes", "in_open_unit", "named", "size", "unnamed", "unsettled")

    def __init__(self) -> None:
        self.named: dict[bytes, Statement] = {}
        self.unnamed: bytes = NO_UNNAMED
        self.changes = 0  # of the unnamed one, where an error might take one back
        self.size = 0  # what the named ones may make the proxy hold
        # Names that units change which are sent and not answered yet, and those of the unit whose Sync is to come. Kept
        # by `unsettled.held_from`.
        self.unsettled = NONE
        self.in_open_unit = NONE

    def define(self, name: bytes, statement: Statement) -> None:
        self.named[name] = statement
        self.size += len(name) + len(statement.tail)

    def undefine(self, name: bytes, statement: Statement) -> None:
        """Take back that `name` is this statement, whatever it was under another folding since."""
        if self.named.pop(name, None) is not None:
            self.size -= len(name) + len(statement.tail)

    def forget_all(self) -> dict[bytes, Statement]:
        named, self.named = self.named, {}
        self.size = 0
        return named

    def bring_back(self, named: dict[bytes, Statement]) -> None:
        for name, statement in named.items():
            if name not in self.named:
                self.define(name, statement)

    def keep_unnamed(self, buffer: bytes, start: int, end: int) -> None:
        is_kept = 0 <= end <= start + _MAX_KEPT_PARSE_BYTES
        self.unnamed = buffer[start : end if is_kept else start + _HEADER_BYTES]

    @property
    def can_replay_unnamed(self) -> bool:
        return len(self.unnamed) > _HEADER_BYTES

    def text_or_none(self, name: bytes) -> bytes | None:
        """The SQL of a statement, None where there is none of that name or its text was not kept."""
        if name:
            statement = self.named.get(name)
            return None if statement is None else statement.sql
        if not self.can_replay_unnamed:
            return None
        sql_at = _HEADER_BYTES + 1
        return self.unnamed[sql_at : self.unnamed.find(0, sql_at)]
