"""Where poolers and providers say things in other words than PostgreSQL.

Owns: these words.
Does not know: what follows from them.
"""

from typing import Final

from proxy.wire.messages import ErrorFields

# PgBouncer has one code, 08P01, for all of its own errors: max_client_conn, max_db_connections, max_user_connections.
_FULL: Final = ("no more connections allowed", "too many connections", "max clients reached", "max client connections")


def is_full_pooler(error: ErrorFields) -> bool:
    """A login refused because the pooler has as many clients as it takes, under another code than 53300.

    PgBouncer, Supavisor ("Max client connections reached", XX000) and PgCat.
    """
    text = error.message.lower()
    return error.code in ("08P01", "XX000", "58000") and any(words in text for words in _FULL)
