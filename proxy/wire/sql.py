"""What a text of SQL means for sharing server connections and for transactions.

Owns: the way in, fast for the many texts that mean nothing to sharing.
Does not know: the tables of what pins and what clears (`sql_session`), what opens and ends transactions
(`sql_transactions`), what functions do inside: state that is set within them cannot be seen.

Nothing here proves that a statement is valid or that it succeeds: a pin is noted before, a clearing after success.
"""

from functools import lru_cache
from typing import Final

from proxy.wire import prefilter
from proxy.wire.sql_session import FOLLOWED_PARAMETERS, NEVER_CLEARED, PLAIN, Inspection, PinReason, SqlFacts
from proxy.wire.sql_tokens import Unterminated, statements
from proxy.wire.sql_transactions import TransactionEffect, transaction_effect

__all__ = [
    "FOLLOWED_PARAMETERS",
    "NEVER_CLEARED",
    "PLAIN",
    "PinReason",
    "SqlFacts",
    "TransactionEffect",
    "inspect_sql",
    "transaction_effect",
]


def inspect_sql(
    sql: bytes, followed: frozenset[str] = FOLLOWED_PARAMETERS, backslash_escapes: bool = False
) -> SqlFacts:
    """What `sql`, one statement or several, leaves in a session. PLAIN itself where it leaves nothing.

    `followed` are the parameters, in lower case, whose changes the server reports; from version 18 on search_path is
    one. `backslash_escapes` is to be true while the client's standard_conforming_strings is off. A text that cannot be
    read to its end pins as UNKNOWN.
    """
    if not prefilter.may_matter(sql, backslash_escapes):
        return PLAIN
    if len(sql) <= _MAX_REMEMBERED_BYTES:
        return _look_closely_once(sql, followed, backslash_escapes)
    return look_closely(sql, followed, backslash_escapes)


def look_closely(sql: bytes, followed: frozenset[str], backslash_escapes: bool) -> SqlFacts:
    """What `inspect_sql` says, without its fast way out. Tens of microseconds for a short text."""
    seen = Inspection(followed)
    try:
        for statement in statements(sql, backslash_escapes):
            seen.take(statement)
    except Unterminated:
        seen.pin(PinReason.UNKNOWN)
    return seen.facts()


# Drivers and frameworks say the same few SETs again and again; the bounds make this 1 MB at most.
_MAX_REMEMBERED_BYTES: Final = 512
_look_closely_once = lru_cache(maxsize=1024)(look_closely)
