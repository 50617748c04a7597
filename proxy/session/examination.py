"""What a piece of a client's stream asks for, seen before any of it is forwarded.

Owns: reading the messages on which the session layer decides: which are answered by ReadyForQuery, which leave session
state that forbids sharing, which name prepared statements, where the client says goodbye.
Does not know: whether a slot is free, what is done about a pin.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from proxy.session.awaited import SYNC_BEHIND_COPY
from proxy.session.statements import ClientStatements
from proxy.wire import messages
from proxy.wire.errors import ProtocolViolation
from proxy.wire.framing import Fact
from proxy.wire.sql import FOLLOWED_PARAMETERS, PLAIN, PinReason, SqlFacts, inspect_sql, transaction_effect

# Held until whole: a decision hangs on them. Of Bind the beginning is enough. CopyData streams through.
WANTED: Final = bytes(
    (
        messages.QUERY,
        messages.PARSE,
        messages.BIND,
        messages.DESCRIBE,
        messages.EXECUTE,
        messages.CLOSE,
        messages.FLUSH,
        messages.SYNC,
        messages.FUNCTION_CALL,
        messages.TERMINATE,
        messages.COPY_DONE,
        messages.COPY_FAIL,
    )
)
# The same by names of our own, which are C numbers in the compiled module.
_QUERY: Final = messages.QUERY
_PARSE: Final = messages.PARSE
_BIND: Final = messages.BIND
_DESCRIBE: Final = messages.DESCRIBE
_EXECUTE: Final = messages.EXECUTE
_SYNC: Final = messages.SYNC
_TERMINATE: Final = messages.TERMINATE
_FUNCTION_CALL: Final = messages.FUNCTION_CALL
_CLOSE: Final = messages.CLOSE
_FLUSH: Final = messages.FLUSH
_COPY_DONE: Final = messages.COPY_DONE
_COPY_FAIL: Final = messages.COPY_FAIL
_HEADER_BYTES: Final = 5
_WITH_TEXT: Final = frozenset((messages.QUERY, messages.PARSE))
# The first word of a text, where it may end a transaction; a comment or an empty statement may stand before it.
_END_OR_COMMENT: Final = re.compile(rb"\s*(?:commit|rollback|end|abort|prepare|--|/\*|;)", re.IGNORECASE)
_TOO_LONG: Final = SqlFacts(pin=PinReason.UNKNOWN)
_STATEMENT: Final = 0x53  # "S" of Describe and Close
_SHORTEST_NAMING_BYTES: Final = 2  # of their bodies: the kind, and the end of an empty name


class Dialect(NamedTuple):
    """How this client's SQL reads: which parameters the server reports, and what a backslash in a string means."""

    followed: frozenset[str] = FOLLOWED_PARAMETERS
    backslash_escapes: bool = False


class Examination:
    """What one piece of the stream asks for.

    `awaited` are the types answered by a ReadyForQuery, in order. `whole` tells that it ends where a unit of work ends.
    `pins` are all reasons found; `clearing` is what the last statement clears or resets, PLAIN without one.
    `names_statements`: a name has to be translated, or the unnamed statement of before is used, or a query stands where
    an error would skip it. `is_extended`: there is a message of the extended protocol that a server completes.
    `has_portal`: one is bound. `parses_unnamed` is where the last Parse of the unnamed statement stands, `unnamed_end`
    where it ends. `sets_parameters`: behind this piece the settings may not be what they were; `sets` are those which
    the server does not report.
    """

    __slots__ = (
        "awaited",
        "changes_parameters",
        "clearing",
        "ends_copy",
        "has_portal",
        "has_query",
        "is_extended",
        "leaves_at",
        "names_statements",
        "only_ends_copy",
        "parses_listen",
        "parses_unnamed",
        "pins",
        "sets",
        "sets_parameters",
        "unnamed_end",
        "whole",
    )

    def __init__(self) -> None:
        self.awaited: list[int] = []
        self.pins: frozenset[PinReason] = frozenset()
        self.sets: frozenset[str] = frozenset()
        self.clearing: SqlFacts = PLAIN
        self.changes_parameters = False
        self.ends_copy = False
        self.only_ends_copy = False  # CopyDone or CopyFail is the one message with a decision, and ends the piece
        self.leaves_at = -1
        self.has_portal = False
        self.has_query = False
        self.is_extended = False
        self.names_statements = False
        self.parses_listen = False  # as a named statement, and so not among the pins before it is bound
        self.parses_unnamed = -1
        self.unnamed_end = -1
        self.sets_parameters = False
        self.whole = False

    def is_plain(self) -> bool:
        return not (self.pins or self.changes_parameters or self.sets) and self.clearing is PLAIN

    def skip_to_sync(self) -> None:
        """What stands before the first Sync is not looked at by the server, which has met an error."""
        while self.awaited and self.awaited[0] not in (_SYNC, SYNC_BEHIND_COPY):
            del self.awaited[0]
        self.whole = self.whole and bool(self.awaited)

    def found(self, facts: SqlFacts, runs: bool = True) -> None:
        """`runs`: the text is executed in this very piece, so that its success is that of the next ReadyForQuery."""
        if facts is not PLAIN:
            self.pins |= facts.pins
            self.changes_parameters = self.changes_parameters or facts.changes_parameters
            self.sets |= facts.sets
            self.sets_parameters = self.sets_parameters or facts.sets_parameters
            if PinReason.PREPARE in facts.clears or facts.deallocates is not None:
                self.names_statements = True
            if runs and (facts.clears or facts.changes_parameters or facts.unlistens):
                self.clearing = facts
            elif facts.pins:
                self.clearing = PLAIN  # it may set again what an earlier text of this piece clears


def examine(  # noqa: PLR0912 (a branch for each type, on the hot path)
    buffer: bytes,
    facts: Sequence[Fact],
    dialect: Dialect,
    copying_in: bool = False,
    statements: ClientStatements | None = None,
    behind_copy: bool = False,
) -> Examination:
    """Look at every message of `facts` in `buffer`. While `copying_in` the server ignores Sync.

    `statements` are those that the client has prepared before. `behind_copy`: the end of copy data was sent for which
    the server has not asked yet.
    """
    seen = Examination()
    parsed: dict[bytes, SqlFacts] | None = None
    awaits_sync = executes = False
    for kind, start, end in facts:
        if kind == _SYNC:
            awaits_sync = False
        elif kind in (_QUERY, _FUNCTION_CALL):
            seen.names_statements = seen.names_statements or awaits_sync
        elif kind != _FLUSH:
            awaits_sync = True
        if kind == _QUERY:
            seen.found(inspect_sql(buffer[start + _HEADER_BYTES : end - 1], *dialect) if end >= 0 else _TOO_LONG)
            seen.has_query = True
            seen.parses_unnamed = -1
        elif kind == _SYNC:
            if copying_in:
                continue
            if behind_copy:
                behind_copy, kind = False, SYNC_BEHIND_COPY  # noqa: PLW2901 (the same message, awaited as another)
        elif kind in (_EXECUTE, _FLUSH):
            if kind == _EXECUTE:
                seen.is_extended = executes = True
            elif not awaits_sync and seen.awaited:
                seen.whole = end == len(buffer)  # libpq flushes behind the Sync of a pipeline: nothing is open then
            continue
        elif kind == _PARSE:
            parsed = _look_into_parse(seen, buffer, start, end, dialect, parsed)
            continue
        elif kind in (_BIND, _DESCRIBE):
            _expect_name(kind, start, end)
            _look_into_use(seen, buffer, kind, start, dialect, parsed, statements)
            continue
        elif kind == _CLOSE:
            _expect_name(kind, start, end)
            seen.is_extended = True
            seen.names_statements = seen.names_statements or buffer[start + _HEADER_BYTES] == _STATEMENT
            continue
        elif kind == _TERMINATE:
            seen.leaves_at = start
            break
        elif kind in (_COPY_DONE, _COPY_FAIL):
            seen.ends_copy = True
            seen.only_ends_copy = len(facts) == 1 and end == len(buffer)
            behind_copy, copying_in = not copying_in, False
            continue
        seen.awaited.append(kind)
        seen.whole = end == len(buffer) or end < 0
    if seen.clearing is not PLAIN and not (executes or seen.has_query):
        seen.clearing = PLAIN  # bound only: its success is that of nothing
    return seen


def _look_into_parse(
    seen: Examination,
    buffer: bytes,
    start: int,
    end: int,
    dialect: Dialect,
    parsed: dict[bytes, SqlFacts] | None,
) -> dict[bytes, SqlFacts] | None:
    """Returns `parsed`, the named statements of this piece and what they mean, with the one of this Parse."""
    seen.is_extended = True
    name_at = start + _HEADER_BYTES
    if end < 0:
        # Whether it has a name may not have come yet. One that is too long is not translated either way.
        seen.parses_unnamed, seen.unnamed_end = start, end
        seen.found(_TOO_LONG)
        return parsed
    name_end = buffer.find(0, name_at, end)
    sql_end = buffer.find(0, name_end + 1, end)
    if name_end < 0 or sql_end < 0:
        raise ProtocolViolation("Parse without the ends of its strings")
    facts = inspect_sql(buffer[name_end + 1 : sql_end], *dialect)
    if name_end == name_at:
        seen.parses_unnamed, seen.unnamed_end = start, end
        seen.found(facts, runs=facts is not PLAIN and _is_executed(buffer, start, end))
        return parsed
    seen.names_statements = True
    if parsed is None:
        parsed = {}
    parsed[buffer[name_at:name_end]] = facts
    if facts is not PLAIN and PinReason.LISTEN in facts.pins:
        seen.parses_listen = True
    return parsed


def _expect_name(kind: int, start: int, end: int) -> None:
    """Describe and Close say what they name, and end its name: nothing behind this looks past their end."""
    if kind != _BIND and 0 <= end < start + _HEADER_BYTES + _SHORTEST_NAMING_BYTES:
        raise ProtocolViolation(f"{chr(kind)} without a name")


def _look_into_use(
    seen: Examination,
    buffer: bytes,
    kind: int,
    start: int,
    dialect: Dialect,
    parsed: dict[bytes, SqlFacts] | None,
    statements: ClientStatements | None,
) -> None:
    """A Bind or Describe. What its statement means for the session counts as soon as it is bound."""
    seen.is_extended = True
    name_at = start + _HEADER_BYTES
    if kind == _BIND:
        seen.has_portal = True
        name_at = buffer.find(0, name_at) + 1
    elif buffer[name_at] != _STATEMENT:
        return
    else:
        name_at += 1
    name = buffer[name_at : buffer.find(0, name_at)]
    if not name and seen.parses_unnamed >= 0:
        return  # parsed and looked at in this very piece
    seen.names_statements = True
    if kind != _BIND:
        return
    if not name:
        if statements is not None and statements.can_replay_unnamed:
            seen.found(inspect_unnamed(statements.unnamed, dialect))
    elif parsed is not None and name in parsed:
        seen.found(parsed[name])
    elif statements is not None and name in statements.named:
        seen.found(statements.named[name].facts)


def _is_executed(buffer: bytes, start: int, end: int) -> bool:
    """Whether the unnamed statement of the Parse at `start` is bound and executed behind it, in this piece."""
    is_bound = False
    at = end
    while buffer[start + _HEADER_BYTES] == 0 and at + _HEADER_BYTES <= len(buffer):
        kind = buffer[at]
        if kind == _BIND:
            statement_at = buffer.find(b"\0", at + _HEADER_BYTES) + 1
            is_bound = 0 < statement_at < len(buffer) and buffer[statement_at] == 0
        elif kind in (_PARSE, _SYNC):
            return False
        elif kind == _EXECUTE and is_bound:
            return True
        at += 1 + int.from_bytes(buffer[at + 1 : at + _HEADER_BYTES], "big")
    return False


def inspect_unnamed(parse: bytes, dialect: Dialect) -> SqlFacts:
    """What a kept Parse of the unnamed statement means."""
    sql_at = _HEADER_BYTES + 1
    return inspect_sql(parse[sql_at : parse.find(0, sql_at)], *dialect)


def may_end_transaction(buffer: bytes, facts: Sequence[Fact], statements: ClientStatements | None) -> bool:
    """One of these messages runs also in a failed transaction: it ends it, and lets what stands behind it run."""
    return any(
        (kind in _WITH_TEXT and _may_begin_with_an_end(buffer, kind, start, end))
        or (kind == _BIND and statements is not None and _binds_an_end(buffer, start, statements))
        for kind, start, end in facts
    )


def _binds_an_end(buffer: bytes, start: int, statements: ClientStatements) -> bool:
    name_at = buffer.find(0, start + _HEADER_BYTES) + 1
    sql = statements.text_or_none(buffer[name_at : buffer.find(0, name_at)])
    return sql is not None and _END_OR_COMMENT.match(sql) is not None and transaction_effect(sql).first_ends


def _may_begin_with_an_end(buffer: bytes, kind: int, start: int, end: int) -> bool:
    if end < 0:
        return True
    text_at = start + _HEADER_BYTES
    if kind == messages.PARSE:
        text_at = buffer.find(0, text_at) + 1
    sql = buffer[text_at : buffer.find(0, text_at)]
    return _END_OR_COMMENT.match(sql) is not None and transaction_effect(sql).first_ends
