"""`pool_mode: statement`: nothing outlives its statement, so no transaction block may be opened.

Owns: finding the unit of work that would open one.
Does not know: how a unit is refused, what is done with those before it.

A text that opens and ends its block is no matter, nor are the implicit transactions of one query with several
statements and of one batch up to its Sync: each of them ends with its own ReadyForQuery.
"""

import re
from collections.abc import Sequence
from typing import Final

from proxy.wire import messages
from proxy.wire.framing import Fact
from proxy.wire.sql import transaction_effect

_HEADER_BYTES: Final = 5
_UNIT_ENDS: Final = frozenset((messages.SYNC, messages.FUNCTION_CALL, messages.QUERY))
# Without one of these words no text opens a block, and nearly every text is without.
_MAY_OPEN: Final = re.compile(rb"begin|start|chain", re.IGNORECASE)


def block_opens_at(buffer: bytes, facts: Sequence[Fact], backslash_escapes: bool) -> int:
    """Where the first unit of work begins that would leave a transaction block open; -1 where none does.

    `buffer` begins with a unit. A text too long to be looked at might open one, and counts as if it did.
    """
    unit_at = 0
    for kind, start, end in facts:
        if kind == messages.QUERY and _opens(buffer, start + _HEADER_BYTES, end, backslash_escapes):
            return start
        if kind == messages.PARSE and _parse_opens(buffer, start, end, backslash_escapes):
            return unit_at
        if kind in _UNIT_ENDS:
            unit_at = end
    return -1


def _parse_opens(buffer: bytes, start: int, end: int, backslash_escapes: bool) -> bool:
    return _opens(buffer, buffer.find(0, start + _HEADER_BYTES) + 1, end, backslash_escapes)


def _opens(buffer: bytes, sql_at: int, end: int, backslash_escapes: bool) -> bool:
    if end < 0:
        return True
    sql = buffer[sql_at : buffer.find(0, sql_at, end)]
    return _MAY_OPEN.search(sql) is not None and transaction_effect(sql, backslash_escapes).opens
