"""The framing cursor in plain Python: the fallback of `_compiled.pyx`, and the text to read first.

Owns: where messages begin and end in one direction of one connection, and what of them is held back.
Does not know: what messages mean, sockets, time.
Source: PostgreSQL manual, "Message Formats" (protocol-message-formats): type byte, then a signed 32-bit length that
counts itself.
"""

from collections.abc import Sequence
from struct import Struct

from proxy.wire._types import (
    DEFAULT_MAX_HELD_BYTES,
    DEFAULT_MAX_MESSAGE_BYTES,
    DEFAULT_MAX_SMALL_MESSAGE_BYTES,
    HEAD,
    HEAD_BYTES,
    HEADER_BYTES,
    KNOWN,
    NO_FACTS,
    SMALL,
    WANTED,
    Fact,
    flag_table,
    unknown_type,
    wrong_header,
)

_unpack_header = Struct(">Bi").unpack_from
_BIND = ord("B")
_DESCRIBE = ord("D")
_EXECUTE = ord("E")
_PARSE = ord("P")
_SYNC = ord("S")


def renamed(data: bytes, name_at: int, name: bytes) -> bytes:
    """`data`, whose first message has a name at `name_at`, with another one in its place."""
    name_end = data.index(0, name_at)
    length = _unpack_header(data)[1] + len(name) - (name_end - name_at)
    return b"".join((data[:1], length.to_bytes(4, "big"), data[HEADER_BYTES:name_at], name, data[name_end:]))


class Cursor:
    """Cuts a byte stream at message boundaries, but only as far as somebody asks. See `framing` for the contract."""

    __slots__ = (
        "_flags",
        "_heads",
        "_held",
        "_known",
        "_max_held_bytes",
        "_max_message_bytes",
        "_max_small_message_bytes",
        "_missing",
        "_skip",
        "_small",
        "_wanted",
    )

    def __init__(
        self,
        wanted: bytes,
        *,
        known: bytes,
        small: bytes = b"",
        heads: bytes = b"",
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
        max_held_bytes: int = DEFAULT_MAX_HELD_BYTES,
        max_small_message_bytes: int = DEFAULT_MAX_SMALL_MESSAGE_BYTES,
    ) -> None:
        self._wanted = wanted
        self._known = known
        self._small = small
        self._heads = heads
        self._flags = flag_table(known, wanted, small, heads)
        self._max_message_bytes = max_message_bytes
        self._max_held_bytes = max_held_bytes
        self._max_small_message_bytes = max_small_message_bytes
        self._held = bytearray()
        self._missing = 0
        self._skip = 0

    @property
    def wanted(self) -> bytes:
        """The types reported as facts, and held back until they are complete."""
        return self._wanted

    @wanted.setter
    def wanted(self, wanted: bytes) -> None:
        self._wanted = wanted
        self._flags = flag_table(self._known, wanted, self._small, self._heads)
        if len(self._held) >= HEADER_BYTES and not self._flags[self._held[0]] & WANTED:
            self._missing = 1  # what is held is wanted no more: the next bytes take it along

    @property
    def at_boundary(self) -> bool:
        """Whether all bytes fed so far are whole messages."""
        return not self._skip and not self._held

    @property
    def held_bytes(self) -> int:
        """Bytes fed that no feed has returned yet."""
        return len(self._held)

    def is_mid_message(self) -> bool:
        """A message has begun to travel and its rest is still to come."""
        return self._skip != 0

    def is_one(self, data: bytes, kind: int) -> bool:
        """`data` is one whole message of the wanted type `kind`: feeding it would return it and that one fact."""
        size = len(data)
        return (
            not self._skip
            and not self._held
            and HEADER_BYTES <= size <= min(self._max_held_bytes, self._max_message_bytes)
            and _unpack_header(data) == (kind, size - 1)
        )

    def is_last(self, data: bytes, kind: int, size: int) -> bool:
        """`data` is whole messages, and only the last is wanted: one of type `kind` with `size` bytes in all.

        Feeding it would return it and that one fact. Where the answer is no, or `data` is wrong, it is to be fed.
        """
        last = len(data) - size
        position = self._skip
        if self._held or last < position or size > min(self._max_held_bytes, self._max_message_bytes):
            return False
        if _unpack_header(data, last) != (kind, size - 1):
            return False
        flags, longest = self._flags, self._max_message_bytes
        while position + HEADER_BYTES <= last:
            flag_of, length = _unpack_header(data, position)
            if flags[flag_of] != KNOWN or not 4 <= length <= longest:
                return False
            position += length + 1
        if position != last:
            return False
        self._skip = 0
        return True

    def bound_unit(self, data: bytes) -> int:
        """Where the name of the statement begins in a Bind, behind which portals are used up to a Sync.

        -1 where `data` is anything else, or not all of it: feeding it would return it whole.
        """
        if self._skip or self._held or not HEADER_BYTES <= len(data) <= self._max_message_bytes or data[0] != _BIND:
            return -1
        behind = 1 + _unpack_header(data)[1]
        portal_end = data.find(0, HEADER_BYTES, behind)
        if portal_end < 0 or data.find(0, portal_end + 1, behind) < 0 or not self._runs_to_sync(data, behind):
            return -1
        return portal_end + 1

    def unnamed_unit(self, data: bytes) -> int:
        """Where the Parse of the unnamed statement ends, behind which that is bound and goes on as in `bound_unit`.

        -1 where `data` is anything else.
        """
        is_parse = len(data) > HEADER_BYTES and data[0] == _PARSE and not data[HEADER_BYTES]
        if self._skip or self._held or not is_parse or len(data) > self._max_message_bytes:
            return -1
        behind = 1 + _unpack_header(data)[1]
        if not HEADER_BYTES + 1 < behind <= len(data) - HEADER_BYTES or data[behind] != _BIND:
            return -1
        bind_end = behind + 1 + _unpack_header(data, behind)[1]
        names = data[behind + HEADER_BYTES : behind + HEADER_BYTES + 2]
        if names != b"\0\0" or data.find(0, HEADER_BYTES + 1, behind) < 0 or behind > self._max_held_bytes:
            return -1
        return behind if bind_end > behind + HEADER_BYTES + 1 and self._runs_to_sync(data, bind_end) else -1

    def _runs_to_sync(self, data: bytes, at: int) -> bool:
        """What stands from `at` on describes and executes portals, and ends with the one Sync."""
        while HEADER_BYTES <= at <= len(data) - HEADER_BYTES:
            kind, length = _unpack_header(data, at)
            if kind == _SYNC:
                return length == HEADER_BYTES - 1 and at + HEADER_BYTES == len(data)
            is_of_portal = kind == _EXECUTE or (kind == _DESCRIBE and data[at + HEADER_BYTES : at + 6] == b"P")
            if not is_of_portal or not HEADER_BYTES <= length <= self._max_small_message_bytes:
                return False
            at += length + 1
        return False

    def feed(self, data: bytes) -> tuple[bytes, Sequence[Fact]]:
        """Take received bytes; return the bytes that may travel on, and the facts in them."""
        if self._skip >= len(data):
            self._skip -= len(data)
            return data, NO_FACTS
        if self._held:
            if len(data) < self._missing:
                self._held += data
                self._missing -= len(data)
                return b"", NO_FACTS
            data = b"".join((self._held, data))
            self._held.clear()
        return self._scan(data)

    def _scan(self, data: bytes) -> tuple[bytes, Sequence[Fact]]:
        """Walk the headers in `data`, which begins with `_skip` bytes of a message that travels unread."""
        flags, longest, end = self._flags, self._max_message_bytes, len(data)
        position, last_header = self._skip, end - HEADER_BYTES
        facts: list[Fact] = []
        while position <= last_header:
            kind, length = _unpack_header(data, position)
            flag = flags[kind]
            if flag != KNOWN or not 4 <= length <= longest:
                self._check_header(kind, length, flag)
                if flag & WANTED:
                    held = length < self._max_held_bytes  # the type byte is not counted by `length`
                    if flag & HEAD:
                        held = position + length < end
                        if not held and end - position < HEAD_BYTES:
                            break
                    elif held and position + length >= end:
                        break
                    facts.append((kind, position, position + length + 1 if held else -1))
            position += length + 1
        return self._release(data, position), facts or NO_FACTS

    def _check_header(self, kind: int, length: int, flag: int) -> None:
        limit = self._max_small_message_bytes if flag & SMALL else self._max_message_bytes
        if not flag & KNOWN or not 4 <= length <= limit:
            raise wrong_header(kind, length, limit if flag & KNOWN else 0)

    def _release(self, data: bytes, position: int) -> bytes:
        """Settle what follows `data`: bytes to skip where `position` lies beyond it, a tail to hold where within."""
        if position >= len(data):
            self._skip = position - len(data)
            return data
        self._skip = 0
        tail = data[position:]
        if len(tail) < HEADER_BYTES:
            if not self._flags[tail[0]] & KNOWN:  # said at once: four more bytes may never come
                raise unknown_type(tail[0])
            self._missing = HEADER_BYTES - len(tail)
        else:
            kind, length = _unpack_header(tail)
            enough = min(length + 1, HEAD_BYTES) if self._flags[kind] & HEAD else length + 1
            self._missing = enough - len(tail)
        self._held += tail
        return data[:position]
