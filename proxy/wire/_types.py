"""What a cursor knows of each message type, as one byte per type, and what it says when a header is wrong.

Owns: the table both cursors read, so that they cannot disagree, and the sentences of their refusals.
Does not know: positions in a stream, what messages mean.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, TypeAlias

from proxy.wire.errors import ProtocolViolation

Fact: TypeAlias = tuple[int, int, int]
"""(type, start, end): offsets into the bytes returned with it; the payload is `buffer[start + 5:end]`."""

NO_FACTS: Final[Sequence[Fact]] = ()

KNOWN: Final = 1
WANTED: Final = 2
SMALL: Final = 4
HEAD: Final = 8

HEADER_BYTES: Final = 5
DEFAULT_MAX_MESSAGE_BYTES: Final = 1 << 30
DEFAULT_MAX_HELD_BYTES: Final = 1 << 20
# PQ_SMALL_MESSAGE_LIMIT of the server's libpq/libpq.h: the bound on what has no business being long.
DEFAULT_MAX_SMALL_MESSAGE_BYTES: Final = 10_000
# Room for the two names at the beginning of a Bind: the server cuts identifiers at 63 bytes, though not these.
HEAD_BYTES: Final = 4096


@lru_cache(maxsize=256)
def flag_table(known: bytes, wanted: bytes, small: bytes, heads: bytes = b"") -> bytes:
    """One byte of flags for each of the 256 type bytes. Shared: a thousand cursors of one kind hold one table."""
    table = bytearray(256)
    for types, flag in ((known, KNOWN), (wanted, KNOWN | WANTED), (small, SMALL), (heads, HEAD)):
        for kind in types:
            table[kind] |= flag
    return bytes(table)


def unknown_type(kind: int) -> ProtocolViolation:
    """The refusal of a type byte that this direction does not have."""
    shown = f'"{chr(kind)}"' if 0x20 < kind < 0x7F else f"0x{kind:02x}"
    return ProtocolViolation(f"invalid message type {shown}")


def wrong_header(kind: int, length: int, limit: int) -> ProtocolViolation:
    """The refusal of a complete header that a cursor found wrong: by its type where `limit` is 0, else its length."""
    if limit == 0:
        return unknown_type(kind)
    if length < 4:
        return ProtocolViolation(f'invalid length {length} of a message of type "{chr(kind)}"')
    return ProtocolViolation(f'message of type "{chr(kind)}" is {length} bytes long; at most {limit} are accepted')
