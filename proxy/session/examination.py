"""What a piece of a client's stream asks for, seen before any of it is forwarded.

Owns: reading the messages on which the session layer decides: which are answered by ReadyForQuery, which leave session
state that forbids sharing, which parse or use the unnamed statement, where the client says goodbye.
Does not know: whether a slot is free, what is done about a pin.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from proxy.wire import messages
from proxy.wire.errors import ProtocolViolation
from proxy.wire.framing import Fact
from proxy.wire.sql import FOLLOWED_PARAMETERS, PLAIN, PinReason, SqlFacts, inspect_sql, transaction_effect

# Held until whole: a decision hangs on them. Bind, Execute and CopyData stream through.
WANTED: Final = bytes(
    (
        messages.QUERY,
        messages.PARSE,
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
_COPY_DONE: Final = messages.COPY_DONE
_COPY_FAIL: Final = messages.COPY_FAIL
_HEADER_BYTES: Final = 5
_WITH_TEXT: Final = frozenset((messages.QUERY, messages.PARSE))
# The first word of a text, where it may end a transaction; a comment or an empty statement may stand before it.
_END_OR_COMMENT: Final = re.compile(rb"\s*(?:commit|rollback|end|abort|prepare|--|/\*|;)", re.IGNORECASE)
_TOO_LONG: Final = SqlFacts(pin=PinReason.UNKNOWN)
NOTHING_KEPT: Final = b""
_MAX_KEPT_PARSE_BYTES: Final = 16 * 1024  # a longer unnamed statement is not replayed, and its later use is an error


class Dialect(NamedTuple):
    """How this client's SQL reads: which parameters the server reports, and what a backslash in a string means."""

    followed: frozenset[str] = FOLLOWED_PARAMETERS
    backslash_escapes: bool = False


class Examination:
    """What one piece of the stream asks for.

    `awaited` are the types answered by a ReadyForQuery, in order. `whole` tells that it ends where a unit of work ends.
    `pins` are all reasons found; `clearing` is what the last statement clears or resets, PLAIN without one.
    `unnamed_parse` is the last Parse of the unnamed statement, NOTHING_KEPT where it is gone or too long, None where
    nothing was said of it.
    """

    __slots__ = (
        "awaited",
        "changes_parameters",
        "clearing",
        "ends_copy",
        "leaves_at",
        "only_ends_copy",
        "pins",
        "unnamed_parse",
        "whole",
    )

    def __init__(self) -> None:
        self.awaited: list[int] = []
        self.pins: frozenset[PinReason] = frozenset()
        self.clearing: SqlFacts = PLAIN
        self.changes_parameters = False
        self.ends_copy = False
        self.only_ends_copy = False  # CopyDone or CopyFail is the one message with a decision, and ends the piece
        self.leaves_at = -1
        self.unnamed_parse: bytes | None = None
        self.whole = False

    def is_plain(self) -> bool:
        return not self.pins and self.clearing is PLAIN and not self.changes_parameters

    def found(self, facts: SqlFacts, runs: bool = True) -> None:
        """`runs`: the text is executed in this very piece, so that its success is that of the next ReadyForQuery."""
        if facts is not PLAIN:
            self.pins |= facts.pins
            self.changes_parameters = self.changes_parameters or facts.changes_parameters
            if runs and (facts.clears or facts.changes_parameters):
                self.clearing = facts
            elif facts.pins:
                self.clearing = PLAIN  # it may set again what an earlier text of this piece clears


def examine(buffer: bytes, facts: Sequence[Fact], dialect: Dialect, copying_in: bool = False) -> Examination:
    """Look at every message of `facts` in `buffer`. While `copying_in` the server ignores Sync."""
    seen = Examination()
    for kind, start, end in facts:
        if kind == _QUERY:
            seen.found(inspect_sql(buffer[start + _HEADER_BYTES : end - 1], *dialect) if end >= 0 else _TOO_LONG)
            seen.unnamed_parse = NOTHING_KEPT  # a simple query destroys the unnamed statement
        elif kind == _PARSE:
            facts_of_it = _look_into_parse(seen, buffer, start, end, dialect)
            seen.found(facts_of_it, runs=facts_of_it is not PLAIN and _is_executed(buffer, start, end))
            continue
        elif kind == _TERMINATE:
            seen.leaves_at = start
            break
        elif kind in (_COPY_DONE, _COPY_FAIL):
            seen.ends_copy = True
            seen.only_ends_copy = len(facts) == 1 and end == len(buffer)
            copying_in = False
            continue
        elif kind == _SYNC and copying_in:
            continue
        seen.awaited.append(kind)
        seen.whole = end == len(buffer) or end < 0
    return seen


def _look_into_parse(seen: Examination, buffer: bytes, start: int, end: int, dialect: Dialect) -> SqlFacts:
    if end < 0:
        seen.unnamed_parse = NOTHING_KEPT
        return _TOO_LONG
    name_at = start + _HEADER_BYTES
    name_end = buffer.find(0, name_at, end)
    sql_end = buffer.find(0, name_end + 1, end)
    if name_end < 0 or sql_end < 0:
        raise ProtocolViolation("Parse without the ends of its strings")
    facts = inspect_sql(buffer[name_end + 1 : sql_end], *dialect)
    if name_end > name_at:
        return replace(facts, pin=PinReason.PREPARE, further_pins=facts.pins, clears=frozenset())
    seen.unnamed_parse = buffer[start:end] if end - start <= _MAX_KEPT_PARSE_BYTES else NOTHING_KEPT
    return facts


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


def is_cut_before_its_statement(buffer: bytes) -> bool:
    """A Bind or Describe whose statement name has not arrived whole."""
    if buffer[0] == _BIND:
        portal_end = buffer.find(b"\0", _HEADER_BYTES)
        end = 1 + int.from_bytes(buffer[1:_HEADER_BYTES], "big")
        return len(buffer) < end and (portal_end < 0 or portal_end + 1 >= len(buffer))
    return buffer[0] == _DESCRIBE and len(buffer) < _HEADER_BYTES + 2


def may_end_transaction(buffer: bytes, facts: Sequence[Fact]) -> bool:
    """One of these messages runs also in a failed transaction: it ends it, and lets what stands behind it run."""
    return any(kind in _WITH_TEXT and _may_begin_with_an_end(buffer, kind, start, end) for kind, start, end in facts)


def _may_begin_with_an_end(buffer: bytes, kind: int, start: int, end: int) -> bool:
    if end < 0:
        return True
    text_at = start + _HEADER_BYTES
    if kind == messages.PARSE:
        text_at = buffer.find(0, text_at) + 1
    sql = buffer[text_at : buffer.find(0, text_at)]
    return _END_OR_COMMENT.match(sql) is not None and transaction_effect(sql).first_ends


def uses_unnamed_statement_of_before(buffer: bytes) -> bool:
    """The unit begins with a Bind or Describe of the unnamed statement: it was parsed in an earlier unit."""
    kind = buffer[0]
    if kind == _BIND:
        statement_at = buffer.find(b"\0", _HEADER_BYTES) + 1
        return 0 < statement_at < len(buffer) and buffer[statement_at] == 0
    return kind == _DESCRIBE and buffer[_HEADER_BYTES : _HEADER_BYTES + 2] == b"S\0"
