# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The hot parts of the wire layer, compiled: the framing cursor and the prefilter of `sql`.

Owns: the same behaviour as `_plain.Cursor` and `_words.may_matter`; the same tests run over both.
Does not know: anything they do not.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from proxy.wire._types import (
    DEFAULT_MAX_HELD_BYTES,
    DEFAULT_MAX_MESSAGE_BYTES,
    DEFAULT_MAX_SMALL_MESSAGE_BYTES,
    NO_FACTS,
    flag_table,
    unknown_type,
    wrong_header,
)

cdef enum:
    KNOWN = 1
    WANTED = 2
    SMALL = 4
    HEADER_BYTES = 5

cdef tuple _NO_FACTS = NO_FACTS


cdef inline long long _length_at(const unsigned char *at) noexcept nogil:
    """The signed length in the header at `at`."""
    return <int>((<unsigned int>at[1] << 24) | (<unsigned int>at[2] << 16) | (<unsigned int>at[3] << 8) | at[4])


@cython.final
@cython.no_gc  # holds bytes only, so it is part of no cycle
cdef class Cursor:
    """Cuts a byte stream at message boundaries, but only as far as somebody asks. See `framing` for the contract."""

    cdef bytes _wanted
    cdef bytes _known
    cdef bytes _small
    cdef bytes _flags
    cdef bytearray _held  # None while nothing is held: an idle connection pays for nothing
    cdef long long _max_message_bytes
    cdef long long _max_held_bytes
    cdef long long _max_small_message_bytes
    cdef long long _missing
    cdef long long _skip

    def __init__(
        self,
        bytes wanted not None,
        *,
        bytes known not None,
        bytes small not None=b"",
        long long max_message_bytes=DEFAULT_MAX_MESSAGE_BYTES,
        long long max_held_bytes=DEFAULT_MAX_HELD_BYTES,
        long long max_small_message_bytes=DEFAULT_MAX_SMALL_MESSAGE_BYTES,
    ):
        self._wanted = wanted
        self._known = known
        self._small = small
        self._flags = flag_table(known, wanted, small)
        self._max_message_bytes = max_message_bytes
        self._max_held_bytes = max_held_bytes
        self._max_small_message_bytes = max_small_message_bytes
        self._held = None
        self._missing = 0
        self._skip = 0

    @property
    def wanted(self):
        """The types reported as facts, and held back until they are complete."""
        return self._wanted

    @wanted.setter
    def wanted(self, bytes wanted not None):
        self._wanted = wanted
        self._flags = flag_table(self._known, wanted, self._small)
        if self._held is not None and len(self._held) >= HEADER_BYTES and not self._flag(self._held[0]) & WANTED:
            self._missing = 1  # what is held is wanted no more: the next bytes take it along

    @property
    def at_boundary(self):
        """Whether all bytes fed so far are whole messages."""
        return self._skip == 0 and self._held is None

    @property
    def held_bytes(self):
        """Bytes fed that no feed has returned yet."""
        return 0 if self._held is None else len(self._held)

    def feed(self, bytes data not None):
        """Take received bytes; return the bytes that may travel on, and the facts in them."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        if self._skip >= size:
            self._skip -= size
            return data, _NO_FACTS
        if self._held is not None:
            if size < self._missing:
                self._held += data
                self._missing -= size
                return b"", _NO_FACTS
            data = b"".join((self._held, data))
            self._held = None
        return self._scan(data)

    cdef inline unsigned char _flag(self, unsigned char kind):
        return (<const unsigned char *>PyBytes_AS_STRING(self._flags))[kind]

    cdef tuple _scan(self, bytes data):
        """Walk the headers in `data`, which begins with `_skip` bytes of a message that travels unread."""
        cdef const unsigned char *flags = <const unsigned char *>PyBytes_AS_STRING(self._flags)
        cdef const unsigned char *at = <const unsigned char *>PyBytes_AS_STRING(data)
        cdef long long end = PyBytes_GET_SIZE(data)
        cdef long long position = self._skip
        cdef long long length
        cdef unsigned char flag
        cdef bint held
        cdef list facts = None
        while position + HEADER_BYTES <= end:
            flag = flags[at[position]]
            length = _length_at(at + position)
            if flag != KNOWN or length < 4 or length > self._max_message_bytes:
                self._check_header(at[position], length, flag)
                if flag & WANTED:
                    held = length < self._max_held_bytes  # the type byte is not counted by `length`
                    if held and position + length >= end:
                        break
                    if facts is None:
                        facts = []
                    facts.append((at[position], position, position + length + 1 if held else -1))
            position += length + 1
        if position >= end:
            self._skip = position - end
            return data, (_NO_FACTS if facts is None else facts)
        return self._hold_tail(data, position), (_NO_FACTS if facts is None else facts)

    cdef int _check_header(self, unsigned char kind, long long length, unsigned char flag) except -1:
        cdef long long limit = self._max_small_message_bytes if flag & SMALL else self._max_message_bytes
        if not flag & KNOWN:
            raise wrong_header(kind, length, 0)
        if length < 4 or length > limit:
            raise wrong_header(kind, length, limit)
        return 0

    cdef bytes _hold_tail(self, bytes data, Py_ssize_t position):
        """Keep what follows `position` for the next feed; return what precedes it."""
        cdef const unsigned char *at = <const unsigned char *>PyBytes_AS_STRING(data) + position
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data) - position
        self._skip = 0
        if size < HEADER_BYTES:
            if not self._flag(at[0]) & KNOWN:  # said at once: four more bytes may never come
                raise unknown_type(at[0])
            self._missing = HEADER_BYTES - size
        else:
            self._missing = _length_at(at) + 1 - size
        self._held = bytearray(data[position:])
        return data[:position]
