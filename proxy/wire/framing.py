"""Where PostgreSQL messages begin and end in a byte stream.

Owns: the choice of cursor (compiled where it imports, else plain) and the type tables of the two directions.
Does not know: what messages mean, sockets, time.
Source: PostgreSQL manual, "Message Formats" (protocol-message-formats), version 18.

The contract of `Cursor(wanted, *, known, small, heads, max_message_bytes, max_held_bytes, max_small_message_bytes)`:

`feed(data)` returns `(bytes, facts)`. The bytes are those that may travel on now: everything but a header or a
*wanted* message that is still incomplete at the end, which is held and comes first in what a later feed returns. They
are `data` itself, uncopied, where nothing was held and nothing is to be held. What all feeds returned, joined, is what
was fed, less `held_bytes`. A fact is `(type, start, end)`, offsets into the returned bytes, payload
`returned[start + 5:end]`; there is one for each wanted message. Other types stream through, also in pieces.

A wanted message of more than `max_held_bytes` (its type byte counted) is never held: it streams, and its one fact comes
with its header and has `end == -1`. That depends on its length alone, never on how the network cut it.

Of wanted types that are also in `heads` only the beginning is needed: one is held until it is complete or `HEAD_BYTES`
of it are there. Its one fact comes then, with `end == -1` where the rest still streams.

`feed` raises ProtocolViolation for a type that is not in `known`, a length below 4 or above `max_message_bytes`, and
for types in `small` above `max_small_message_bytes` (all compared with the length on the wire, which does not count
the type byte). The cursor is of no use after that. The work is linear in the bytes fed, however they are cut.

`wanted` may be set between feeds; a message whose header has travelled on already is told no more, and one that is held
and wanted no more goes on with the next bytes. `at_boundary` is true where all bytes fed were whole messages.
"""

from typing import TYPE_CHECKING, Final

from proxy.wire import messages
from proxy.wire._types import DEFAULT_MAX_HELD_BYTES, DEFAULT_MAX_MESSAGE_BYTES, NO_FACTS, Fact

if TYPE_CHECKING:
    from proxy.wire._plain import Cursor, renamed
else:
    try:
        from proxy.wire._compiled import Cursor, renamed
    except ImportError:  # no compiler at install time
        from proxy.wire._plain import Cursor, renamed

__all__ = [
    "BACKEND_TYPES",
    "FRONTEND_TYPES",
    "NO_FACTS",
    "SMALL_FRONTEND_TYPES",
    "Cursor",
    "Fact",
    "client_cursor",
    "login_cursor",
    "renamed",
    "server_cursor",
]

FRONTEND_TYPES: Final = bytes(sorted(set(messages.FRONTEND_NAMES)))
BACKEND_TYPES: Final = bytes(sorted(set(messages.BACKEND_NAMES)))

# The types that SocketBackend() of the server's tcop/postgres.c reads with PQ_SMALL_MESSAGE_LIMIT.
SMALL_FRONTEND_TYPES: Final = bytes(
    (
        messages.CLOSE,
        messages.COPY_DONE,
        messages.COPY_FAIL,
        messages.DESCRIBE,
        messages.EXECUTE,
        messages.FLUSH,
        messages.SYNC,
        messages.TERMINATE,
    )
)
# Made once: every client has a cursor, and these would be new objects in each.
_KNOWN_OF_CLIENTS: Final = FRONTEND_TYPES.replace(bytes((messages.PASSWORD_MESSAGE,)), b"")
_HEADS_OF_CLIENTS: Final = bytes((messages.BIND,))


def client_cursor(
    wanted: bytes,
    *,
    max_held_bytes: int = DEFAULT_MAX_HELD_BYTES,
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
) -> Cursor:
    """A cursor over what a logged-in client sends, with the server's own bounds on small messages.

    Password messages are not among its types: after the login they are a violation, as they are to the server.
    """
    return Cursor(
        wanted,
        known=_KNOWN_OF_CLIENTS,
        small=SMALL_FRONTEND_TYPES,
        heads=_HEADS_OF_CLIENTS,
        max_held_bytes=max_held_bytes,
        max_message_bytes=max_message_bytes,
    )


def login_cursor(wanted: bytes = bytes((messages.PASSWORD_MESSAGE, messages.TERMINATE))) -> Cursor:
    """A cursor over what a client sends between its startup packet and AuthenticationOk: answers, or a goodbye.

    The bound is PG_MAX_AUTH_TOKEN_LENGTH of the server's libpq/auth.h.
    """
    return Cursor(wanted, known=wanted, max_message_bytes=65_535)


def server_cursor(wanted: bytes, *, max_held_bytes: int = DEFAULT_MAX_HELD_BYTES) -> Cursor:
    """A cursor over what a server sends."""
    return Cursor(wanted, known=BACKEND_TYPES, max_held_bytes=max_held_bytes)
