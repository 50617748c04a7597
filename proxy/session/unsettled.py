"""Messages whose meaning hangs on answers that are still to come.

Owns: which statement a message names, and which names units change that are sent and not answered yet.
Does not know: what is held back for how long, what names stand for, sockets.

Where a unit defines or closes a statement and fails, the rest of it is skipped. So what a later message that names the
same statement means is known only once that unit is answered.
"""

from collections.abc import Sequence
from typing import Final

from proxy.session.examination import Dialect
from proxy.session.statements import NONE, ClientStatements
from proxy.wire import messages
from proxy.wire.framing import Fact
from proxy.wire.sql import PinReason, inspect_sql

_HEADER_BYTES: Final = 5
_STATEMENT: Final = 0x53  # "S" of Describe and Close
_UNNAMED: Final = frozenset((b"",))
_MAX_UNSETTLED: Final = 1000  # names kept of a pipeline that never comes to rest
_EVERY_NAME: Final = b"\0"  # no name of the protocol's: DEALLOCATE ALL was sent


def held_from(
    buffer: bytes, facts: Sequence[Fact], statements: ClientStatements, dialect: Dialect, awaits_sync: bool
) -> int:
    """Where the first message stands whose meaning hangs on the outcome of an earlier unit; -1 without one.

    That unit defines or closes the statement which the message names, and an error in it would have skipped that. Where
    the answer is -1 the names that these units change are noted, for the pieces behind this one. `awaits_sync`: the
    piece goes on with a unit that was begun.
    """
    unsettled, in_open_unit = statements.unsettled, statements.in_open_unit
    for kind, start, end in facts:
        names, changes = _named(buffer, kind, start, end, dialect)
        if not unsettled.isdisjoint(names) or (unsettled and names and _EVERY_NAME in (unsettled | names)):
            return start
        if changes:
            in_open_unit |= names
        if kind == messages.QUERY and awaits_sync:
            in_open_unit |= _UNNAMED  # it destroys that, unless an error before it skips it
        awaits_sync = kind != messages.SYNC and (awaits_sync or kind not in (messages.FLUSH, messages.QUERY))
        if not awaits_sync:
            unsettled |= in_open_unit
            in_open_unit = NONE
            if len(unsettled) > _MAX_UNSETTLED:
                unsettled = frozenset((_EVERY_NAME,))  # whatever is named next waits until all is answered
    statements.unsettled, statements.in_open_unit = unsettled, in_open_unit
    return -1


def _named(buffer: bytes, kind: int, start: int, end: int, dialect: Dialect) -> tuple[frozenset[bytes], bool]:
    """The statement that a message names, and whether it changes what that name stands for."""
    at = start + _HEADER_BYTES
    name: bytes | None = None
    if kind == messages.QUERY and end >= 0:
        facts = inspect_sql(buffer[at : end - 1], *dialect)
        name = _EVERY_NAME if PinReason.PREPARE in facts.clears else facts.deallocates
    elif kind == messages.BIND:
        at = buffer.find(0, at) + 1
        name = buffer[at : buffer.find(0, at)]
    elif kind == messages.PARSE and end >= 0:
        name = buffer[at : buffer.find(0, at)]
    elif kind in (messages.DESCRIBE, messages.CLOSE) and buffer[at] == _STATEMENT:
        name = buffer[at + 1 : buffer.find(0, at + 1)]
    is_use = kind in (messages.BIND, messages.DESCRIBE)
    return frozenset((name,)) if name or (is_use and name is not None) else NONE, not is_use
