"""Errors of a server that speak of a prepared statement, whose name there is ours and means nothing to the client.

Owns: what the client is told instead, and what the proxy learns from such an error.
Does not know: where the error stands in the stream.
"""

from typing import Final

from proxy.session.statements import ServerStatements, Statement, StatementTable
from proxy.wire import messages

# The function of the server that raises "cached plan must not change result type", in the field R of the error.
_RESULT_CHANGED: Final = b"\0RRevalidateCachedQuery\0"
_NO_SUCH_STATEMENT: Final = b"\0C26000\0"


def told_instead(
    error: bytes, statement: Statement, own: bytes | None, name: bytes, known: ServerStatements, table: StatementTable
) -> bytes | None:
    """The use of `statement` has failed, which is `own` on the server and `name` to the client.

    None where the error speaks of nothing that the client does not know. Where the name stands in it the statement's
    Parse may have been ahead in the pipeline and failed.
    """
    if _RESULT_CHANGED in error:
        table.renew(statement)
    if own is None or own not in error:
        return None
    if _NO_SUCH_STATEMENT in error:  # deallocated unseen, as by a function
        known.was_not_parsed(statement, own)
    return messages.message(messages.ERROR_RESPONSE, error.replace(own, name))
