# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The hot parts of the wire layer, compiled: the framing cursor and the prefilter of `sql`.

Owns: the same behaviour as `_plain.Cursor` and `_prefilter.may_matter`; the same tests run over both.
Does not know: anything they do not.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr, memcpy

cdef extern from *:
    """
    #include <stddef.h>
    /* The first place of `needle` in `text`. memmem() is no part of ISO C, and this is called for dollar quotes only. */
    static const unsigned char *find_bytes(
        const unsigned char *text, Py_ssize_t length, const unsigned char *needle, Py_ssize_t needle_length
    ) {
        const unsigned char *last = text + (length - needle_length);
        for (; length >= needle_length && text <= last; text++)
            if (*text == *needle && memcmp(text, needle, needle_length) == 0)
                return text;
        return NULL;
    }
    """
    const unsigned char *find_bytes(
        const unsigned char *text, Py_ssize_t length, const unsigned char *needle, Py_ssize_t needle_length
    ) noexcept nogil

from proxy.wire._types import (
    DEFAULT_MAX_HELD_BYTES,
    DEFAULT_MAX_MESSAGE_BYTES,
    DEFAULT_MAX_SMALL_MESSAGE_BYTES,
    HEAD_BYTES as _HEAD_BYTES,
    NO_FACTS,
    flag_table,
    unknown_type,
    wrong_header,
)

cdef enum:
    KNOWN = 1
    WANTED = 2
    SMALL = 4
    HEAD = 8
    HEADER_BYTES = 5

cdef long long HEAD_BYTES = _HEAD_BYTES

cdef tuple _NO_FACTS = NO_FACTS


cdef inline long long _length_at(const unsigned char *at) noexcept nogil:
    """The signed length in the header at `at`."""
    return <int>((<unsigned int>at[1] << 24) | (<unsigned int>at[2] << 16) | (<unsigned int>at[3] << 8) | at[4])


cdef class Cursor:
    """Cuts a byte stream at message boundaries, but only as far as somebody asks. See `framing` for the contract."""

    def __init__(
        self,
        bytes wanted not None,
        *,
        bytes known not None,
        bytes small not None=b"",
        bytes heads not None=b"",
        long long max_message_bytes=DEFAULT_MAX_MESSAGE_BYTES,
        long long max_held_bytes=DEFAULT_MAX_HELD_BYTES,
        long long max_small_message_bytes=DEFAULT_MAX_SMALL_MESSAGE_BYTES,
    ):
        self._wanted = wanted
        self._known = known
        self._small = small
        self._heads = heads
        self._flags = flag_table(known, wanted, small, heads)
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
        self._flags = flag_table(self._known, wanted, self._small, self._heads)
        if self._held is not None and len(self._held) >= HEADER_BYTES and not self._flag(self._held[0]) & WANTED:
            self._missing = 1  # what is held is wanted no more: the next bytes take it along

    @property
    def at_boundary(self):
        """Whether all bytes fed so far are whole messages."""
        return self._skip == 0 and self._held is None

    cpdef bint is_mid_message(self) noexcept:
        """A message has begun to travel and its rest is still to come."""
        return self._skip != 0

    cpdef bint is_one(self, bytes data, unsigned char kind) noexcept:
        """`data` is one whole message of the wanted type `kind`: feeding it would return it and that one fact."""
        cdef long long size = PyBytes_GET_SIZE(data)
        cdef const unsigned char *at = <const unsigned char *>PyBytes_AS_STRING(data)
        return (
            self._skip == 0
            and self._held is None
            and size >= HEADER_BYTES
            and at[0] == kind
            and _length_at(at) == size - 1
            and size <= self._max_held_bytes
            and size <= self._max_message_bytes
        )

    cpdef bint is_last(self, bytes data, unsigned char kind, long long size):
        """`data` is whole messages, and only the last is wanted: one of type `kind` with `size` bytes in all.

        Feeding it would return it and that one fact. Where the answer is no, or `data` is wrong, it is to be fed.
        """
        cdef long long last = PyBytes_GET_SIZE(data) - size
        cdef const unsigned char *flags = <const unsigned char *>PyBytes_AS_STRING(self._flags)
        cdef const unsigned char *at = <const unsigned char *>PyBytes_AS_STRING(data)
        cdef long long position = self._skip
        cdef long long length
        if self._held is not None or last < position or size > min(self._max_held_bytes, self._max_message_bytes):
            return False
        if at[last] != kind or _length_at(at + last) != size - 1:
            return False
        while position < last:
            if position + HEADER_BYTES > last or flags[at[position]] != KNOWN:
                return False
            length = _length_at(at + position)
            if length < 4 or length > self._max_message_bytes:
                return False
            position += length + 1
        if position != last:
            return False
        self._skip = 0
        return True

    cpdef Py_ssize_t bound_unit(self, bytes data) noexcept:
        """Where the name of the statement begins in a Bind, behind which portals are used up to a Sync.

        -1 where `data` is anything else, or not all of it: feeding it would return it whole.
        """
        cdef long long size = PyBytes_GET_SIZE(data)
        cdef const unsigned char *at = <const unsigned char *>PyBytes_AS_STRING(data)
        cdef const unsigned char *name
        cdef long long behind
        if self._skip != 0 or self._held is not None or size < HEADER_BYTES or at[0] != c"B":
            return -1
        if size > self._max_message_bytes:
            return -1
        behind = _length_at(at) + 1
        if behind <= HEADER_BYTES or behind > size or not self._runs_to_sync(at, behind, size):
            return -1
        name = <const unsigned char *>memchr(at + HEADER_BYTES, 0, behind - HEADER_BYTES)
        if name == NULL or memchr(name + 1, 0, behind - (name + 1 - at)) == NULL:
            return -1
        return name + 1 - at

    cpdef Py_ssize_t unnamed_unit(self, bytes data) noexcept:
        """Where the Parse of the unnamed statement ends, behind which that is bound and goes on as in `bound_unit`.

        -1 where `data` is anything else.
        """
        cdef long long size = PyBytes_GET_SIZE(data)
        cdef const unsigned char *at = <const unsigned char *>PyBytes_AS_STRING(data)
        cdef long long behind, bind_end
        if self._skip != 0 or self._held is not None or size <= HEADER_BYTES or at[0] != c"P" or at[HEADER_BYTES] != 0:
            return -1
        behind = _length_at(at) + 1
        if behind <= HEADER_BYTES + 1 or behind > self._max_held_bytes or size - behind < HEADER_BYTES + 2:
            return -1
        if size > self._max_message_bytes:
            return -1
        if at[behind] != c"B" or at[behind + HEADER_BYTES] != 0 or at[behind + HEADER_BYTES + 1] != 0:
            return -1
        if memchr(at + HEADER_BYTES + 1, 0, behind - HEADER_BYTES - 1) == NULL:
            return -1
        bind_end = behind + _length_at(at + behind) + 1
        if bind_end <= behind + HEADER_BYTES + 1 or not self._runs_to_sync(at, bind_end, size):
            return -1
        return behind

    cdef bint _runs_to_sync(self, const unsigned char *data, long long at, long long size) noexcept:
        """What stands from `at` on describes and executes portals, and ends with the one Sync."""
        cdef long long length
        while at <= size - HEADER_BYTES:
            length = _length_at(data + at)
            if data[at] == c"S":
                return length == HEADER_BYTES - 1 and at + HEADER_BYTES == size
            if length < HEADER_BYTES or length > self._max_small_message_bytes or at + HEADER_BYTES >= size:
                return False
            if data[at] != c"E" and (data[at] != c"D" or data[at + HEADER_BYTES] != c"P"):
                return False
            at += length + 1
        return False

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

    cdef unsigned char _flag(self, unsigned char kind):
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
                    if flag & HEAD:
                        held = position + length < end
                        if not held and end - position < HEAD_BYTES:
                            break
                    elif held and position + length >= end:
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
            if self._flag(at[0]) & HEAD:
                self._missing = min(self._missing, HEAD_BYTES - size)
        self._held = bytearray(data[position:])
        return data[:position]


cpdef bytes renamed(bytes data, Py_ssize_t name_at, bytes name):
    """`data`, whose first message has a name at `name_at`, with another one in its place."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
    cdef Py_ssize_t name_size = PyBytes_GET_SIZE(name)
    cdef const unsigned char *at = <const unsigned char *>PyBytes_AS_STRING(data)
    cdef const unsigned char *behind
    if not HEADER_BYTES <= name_at < size:
        raise ValueError("the name does not stand in the message")
    behind = <const unsigned char *>memchr(at + name_at, 0, size - name_at)
    if behind == NULL:
        raise ValueError("the name does not end")
    cdef Py_ssize_t name_end = behind - at
    cdef bytes result = PyBytes_FromStringAndSize(NULL, size + name_size - (name_end - name_at))
    cdef unsigned char *to = <unsigned char *>PyBytes_AS_STRING(result)
    cdef unsigned int length = <unsigned int>(_length_at(at) + name_size - (name_end - name_at))
    to[0] = at[0]
    to[1], to[2], to[3], to[4] = length >> 24, length >> 16 & 255, length >> 8 & 255, length & 255
    memcpy(to + HEADER_BYTES, at + HEADER_BYTES, name_at - HEADER_BYTES)
    memcpy(to + name_at, PyBytes_AS_STRING(name), name_size)
    memcpy(to + name_at + name_size, behind, size - name_end)
    return result


# -- the prefilter of `sql` ---------------------------------------------------------------------------------------------
# A lexer of the same language as `sql_tokens`, which keeps nothing. Where that one would have to look closer, as at a
# string that may go on after a newline, this one says that the text may matter. So it errs to one side only.

cdef enum:
    BLANK = 1
    BEGINS_WORD = 2
    IN_WORD = 4
    DIGIT = 8

cdef unsigned char _class_of[256]
cdef unsigned char _lower[256]


cdef void _fill_tables() noexcept:
    cdef int byte
    for byte in range(256):
        _lower[byte] = byte + 32 if 65 <= byte <= 90 else byte
        _class_of[byte] = 0
        if byte == 32 or 9 <= byte <= 13:
            _class_of[byte] = BLANK
        elif 97 <= _lower[byte] <= 122 or byte == 95 or byte >= 128:
            _class_of[byte] = BEGINS_WORD | IN_WORD
        elif 48 <= byte <= 57:
            _class_of[byte] = DIGIT | IN_WORD
        elif byte == 36:  # $
            _class_of[byte] = IN_WORD


_fill_tables()


cdef inline bint _is(const unsigned char *word, const char *expected, Py_ssize_t length) noexcept nogil:
    cdef Py_ssize_t index
    for index in range(length):
        if _lower[word[index]] != <unsigned char>expected[index]:
            return False
    return True


cdef bint _word_matters(const unsigned char *word, Py_ssize_t length, bint begins_statement) noexcept nogil:
    """Whether a word can name a session function, a temporary object, or a statement that changes the session."""
    cdef unsigned char first = _lower[word[0]]
    if first == c"p":
        if length >= 3 and _is(word, b"pg_", 3):
            return True
        return begins_statement and length == 7 and _is(word, b"prepare", 7)
    if first == c"t":
        return (length == 4 and _is(word, b"temp", 4)) or (length == 9 and _is(word, b"temporary", 9))
    if first == c"s":
        if length == 10 and _is(word, b"set_config", 10):
            return True
        return begins_statement and length == 3 and _is(word, b"set", 3)
    if first == c"d" and length >= 14 and _is(word, b"dblink_connect", 14):
        return True
    if not begins_statement:
        return False
    if first == c"c":
        return length == 5 and _is(word, b"close", 5)
    if first == c"d":
        return (
            (length == 7 and (_is(word, b"declare", 7) or _is(word, b"discard", 7)))
            or (length == 10 and _is(word, b"deallocate", 10))
        )
    if first == c"l":
        return (length == 4 and _is(word, b"load", 4)) or (length == 6 and _is(word, b"listen", 6))
    if first == c"r":
        return length == 5 and _is(word, b"reset", 5)
    return first == c"u" and length == 8 and _is(word, b"unlisten", 8)


cdef Py_ssize_t _behind_quoted(const unsigned char *sql, Py_ssize_t at, Py_ssize_t end, unsigned char quote) noexcept nogil:
    """The offset behind the closing quote of what begins at `at`, where a doubled quote stands for one; -1 without."""
    while at < end:
        if sql[at] == quote:
            if at + 1 >= end or sql[at + 1] != quote:
                return at + 1
            at += 1
        at += 1
    return -1


cdef Py_ssize_t _behind_escaped(const unsigned char *sql, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    """The same for a string with backslash escapes; -1 also where it may go on in a further piece."""
    while at < end:
        if sql[at] == c"\\":
            at += 1
        elif sql[at] == c"'":
            if at + 1 >= end or sql[at + 1] != c"'":
                break
            at += 1
        at += 1
    else:
        return -1
    at += 1
    cdef Py_ssize_t ahead = at
    while ahead < end and _class_of[sql[ahead]] == BLANK:
        ahead += 1
    if ahead < end and (sql[ahead] == c"'" or sql[ahead] == c"-"):
        return -1
    return at


cdef Py_ssize_t _behind_comment(const unsigned char *sql, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    """The offset behind a comment whose opening ends at `at`; they nest; -1 where it does not end."""
    cdef Py_ssize_t depth = 1
    while at + 1 < end:
        if sql[at] == c"/" and sql[at + 1] == c"*":
            depth += 1
            at += 2
        elif sql[at] == c"*" and sql[at + 1] == c"/":
            depth -= 1
            at += 2
            if depth == 0:
                return at
        else:
            at += 1
    return -1


cdef Py_ssize_t _behind_dollar(const unsigned char *sql, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    """The offset behind a dollar-quoted string, or behind the dollar at `at` where none begins; -1 without an end."""
    cdef Py_ssize_t tag_end = at + 1
    if tag_end < end and _class_of[sql[tag_end]] & BEGINS_WORD:
        while tag_end < end and sql[tag_end] != c"$" and _class_of[sql[tag_end]] & IN_WORD:
            tag_end += 1
    if tag_end >= end or sql[tag_end] != c"$":
        return at + 1
    cdef Py_ssize_t tag_length = tag_end + 1 - at
    cdef const unsigned char *closing = find_bytes(sql + tag_end + 1, end - tag_end - 1, sql + at, tag_length)
    return -1 if closing == NULL else (closing - sql) + tag_length


cdef bint _text_matters(const unsigned char *sql, Py_ssize_t end, bint backslash_escapes) noexcept nogil:
    cdef Py_ssize_t at = 0, word_end
    cdef unsigned char byte, class_of
    cdef bint begins_statement = True
    while at < end:
        byte = sql[at]
        class_of = _class_of[byte]
        if class_of == BLANK:
            at += 1
            continue
        if class_of & BEGINS_WORD:
            word_end = at + 1
            while word_end < end and _class_of[sql[word_end]] & IN_WORD:
                word_end += 1
            if word_end == at + 1 and word_end < end:
                if sql[word_end] == c"'" and _lower[byte] == c"e":
                    at = _behind_escaped(sql, word_end + 1, end)
                    if at < 0:
                        return True
                    begins_statement = False
                    continue
                if sql[word_end] == c"&" and _lower[byte] == c"u":
                    return True
            if _word_matters(sql + at, word_end - at, begins_statement):
                return True
            at = word_end
            begins_statement = False
            continue
        if byte == c"-" and at + 1 < end and sql[at + 1] == c"-":
            while at < end and sql[at] != c"\n" and sql[at] != c"\r":
                at += 1
            continue
        if byte == c"/" and at + 1 < end and sql[at + 1] == c"*":
            at = _behind_comment(sql, at + 2, end)
            if at < 0:
                return True
            continue
        begins_statement = byte == c";"
        if byte == c"'":
            at = _behind_escaped(sql, at + 1, end) if backslash_escapes else _behind_quoted(sql, at + 1, end, byte)
        elif byte == c'"':
            if _quoted_matters(sql + at + 1, end - at - 1):
                return True
            at = _behind_quoted(sql, at + 1, end, byte)
        elif byte == c"$":
            at = _behind_dollar(sql, at, end)
        else:
            at += 1
        if at < 0:
            return True
    return False


cdef bint _quoted_matters(const unsigned char *content, Py_ssize_t length) noexcept nogil:
    """A quoted identifier matters as a function or as the temporary schema, by how it begins."""
    return (
        (length >= 3 and _is(content, b"pg_", 3))
        or (length >= 10 and _is(content, b"set_config", 10))
        or (length >= 14 and _is(content, b"dblink_connect", 14))
    )


cpdef bint may_matter(bytes sql, bint backslash_escapes=False, Py_ssize_t start=0, Py_ssize_t end=-1):
    """False: no statement in `sql[start:end]` changes session state that `sql.inspect_sql` knows of.

    `end` counts from the beginning; -1 stands for the end of the text.
    """
    cdef Py_ssize_t size = PyBytes_GET_SIZE(sql)
    if end < 0 or end > size:
        end = size
    if start < 0 or start > end:
        start = end
    return _text_matters(<const unsigned char *>PyBytes_AS_STRING(sql) + start, end - start, backslash_escapes)
