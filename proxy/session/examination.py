"""What a piece of a client's stream asks for, seen before any of it is forwarded.

Owns: reading the messages on which the session layer decides: which are answered by ReadyForQuery, which leave session
state that forbids sharing, which parse or use the unnamed statement, where the client says goodbye.
Does not know: whether a slot is free, what is done about a pin.
"""

from collections.abc import Sequence
from typing import Final

from proxy.wire import messages
from proxy.wire.framing import Fact
from proxy.wire.sql import PLAIN, PinReason, SqlFacts, inspect_sql

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
_ENDS_COPY: Final = frozenset((messages.COPY_DONE, messages.COPY_FAIL))
_HEADER_BYTES: Final = 5
_TOO_LONG: Final = SqlFacts(pin=PinReason.UNKNOWN, clears=frozenset(), resets_parameters=False)
_NAMED: Final = SqlFacts(pin=PinReason.PREPARE, clears=frozenset(), resets_parameters=False)
NOTHING_KEPT: Final = b""
_MAX_KEPT_PARSE_BYTES: Final = 16 * 1024  # a longer unnamed statement is not replayed, and its later use is an error


class Examination:
    """What one piece of the stream asks for.

    `awaited` are the types answered by a ReadyForQuery, in order. `whole` tells that it ends where a unit of work ends.
    `unnamed_parse` is the last Parse of the unnamed statement, NOTHING_KEPT where it is too long, None without one.
    """

    __slots__ = ("awaited", "ends_copy", "facts", "leaves_at", "unnamed_parse", "whole")

    def __init__(self) -> None:
        self.awaited: list[int] = []
        self.facts: SqlFacts = PLAIN
        self.ends_copy = False
        self.leaves_at = -1
        self.unnamed_parse: bytes | None = None
        self.whole = False


def examine(buffer: bytes, facts: Sequence[Fact], *, copying_in: bool = False) -> Examination:
    """Look at every message of `facts` in `buffer`. While `copying_in` the server ignores Sync."""
    seen = Examination()
    for kind, start, end in facts:
        if kind == messages.QUERY:
            _merge(seen, inspect_sql(buffer[start + _HEADER_BYTES : end - 1]) if end >= 0 else _TOO_LONG)
            seen.unnamed_parse = NOTHING_KEPT  # a simple query destroys the unnamed statement
        elif kind == messages.PARSE:
            _merge(seen, _parse(seen, buffer, start, end))
            continue
        elif kind == messages.TERMINATE:
            seen.leaves_at = start
            break
        elif kind in _ENDS_COPY:
            seen.ends_copy = True
            copying_in = False
            continue
        elif kind == messages.SYNC and copying_in:
            continue
        seen.awaited.append(kind)
        seen.whole = end == len(buffer) or end < 0
    return seen


def _parse(seen: Examination, buffer: bytes, start: int, end: int) -> SqlFacts:
    if end < 0:
        seen.unnamed_parse = NOTHING_KEPT
        return _TOO_LONG
    name_at = start + _HEADER_BYTES
    if buffer[name_at] != 0:
        return _NAMED
    seen.unnamed_parse = buffer[start:end] if end - start <= _MAX_KEPT_PARSE_BYTES else NOTHING_KEPT
    return inspect_sql(buffer[name_at + 1 : buffer.index(0, name_at + 1)])


def _merge(seen: Examination, facts: SqlFacts) -> None:
    """The first pin counts; what clears state counts only where it is the only statement that does anything."""
    if facts is PLAIN:
        return
    if seen.facts is PLAIN or (facts.pin is not None and seen.facts.pin is None):
        seen.facts = facts


def uses_unnamed_statement_of_before(buffer: bytes) -> bool:
    """The unit begins with a Bind or Describe of the unnamed statement: it was parsed in an earlier unit."""
    kind = buffer[0]
    if kind == messages.BIND:
        statement_at = buffer.find(b"\0", _HEADER_BYTES) + 1
        return 0 < statement_at < len(buffer) and buffer[statement_at] == 0
    return kind == messages.DESCRIBE and buffer[_HEADER_BYTES : _HEADER_BYTES + 2] == b"S\0"
