"""One piece of a client's stream, of which some messages are dropped or renamed and others are put in between.

Owns: which bytes come out, and the length of a message whose name has changed.
Does not know: what messages mean, why they are changed.
"""

from struct import Struct
from typing import Final

from proxy.wire.errors import ProtocolViolation

_length: Final = Struct(">I")
_HEADER_BYTES: Final = 5


class Rewriting:
    """Changes are told in the order of the stream; what nobody mentions stays as it is."""

    __slots__ = ("_at", "_buffer", "_pieces")

    def __init__(self, buffer: bytes) -> None:
        self._buffer = buffer
        self._pieces: list[bytes] = []
        self._at = 0  # what stands before is in `pieces`

    def insert(self, start: int, data: bytes) -> None:
        """Ahead of the message at `start`."""
        self._pieces.append(self._buffer[self._at : start])
        self._pieces.append(data)
        self._at = start

    def drop(self, start: int, end: int) -> None:
        self._pieces.append(self._buffer[self._at : start])
        self._at = end

    def rename(self, start: int, name_at: int, name_end: int, name: bytes) -> None:
        """Another name in the message at `start`, whose end may not be there yet."""
        buffer = self._buffer
        length = _length.unpack_from(buffer, start + 1)[0] + len(name) - (name_end - name_at)
        self._pieces.append(buffer[self._at : start + 1])
        self._pieces.append(_length.pack(length))
        self._pieces.append(buffer[start + _HEADER_BYTES : name_at])
        self._pieces.append(name)
        self._at = name_end

    def whole(self) -> bytes:
        self._pieces.append(self._buffer[self._at :])
        return b"".join(self._pieces)


def end_of_name(buffer: bytes, start: int, end: int) -> int:
    """Where the name at `start` ends, in a message that ends at `end`, or whose end is not there yet."""
    found = buffer.find(b"\0", start, end if end >= 0 else len(buffer))
    if found < 0:
        raise ProtocolViolation("the name of a statement or portal does not end")
    return found
