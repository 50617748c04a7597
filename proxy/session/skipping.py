"""A Query or FunctionCall behind messages of the extended protocol, without a Sync between them.

Owns: finding one.
Does not know: what came of the messages before it.

If one of those fails the server skips everything up to a Sync, this Query with it, and does not answer: where the
answers are not followed one by one nobody can tell how many are still to come. No driver does so, but whoever does must
not keep a slot by it.
Source: PostgreSQL manual, "Extended Query" (protocol-flow): "reads and discards messages until a Sync is reached".
"""

from collections.abc import Sequence
from typing import Final

from proxy.wire import messages
from proxy.wire.framing import Fact

_ANSWERED_BY_THEMSELVES: Final = (messages.QUERY, messages.FUNCTION_CALL)
_UNIT_ENDS: Final = (*_ANSWERED_BY_THEMSELVES, messages.SYNC)


def may_be_skipped(facts: Sequence[Fact], is_unsynced: bool) -> bool:
    """`is_unsynced`: extended messages without a Sync stand in front of this piece already."""
    unit_at = -1 if is_unsynced else 0
    for kind, start, end in facts:
        if kind in _ANSWERED_BY_THEMSELVES and start != unit_at:
            return True
        if kind in _UNIT_ENDS:
            unit_at = end
    return False
