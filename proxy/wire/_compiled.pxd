# The C types of `_compiled.pyx`, for the modules that call it.

cimport cython


@cython.final
@cython.no_gc  # holds bytes only, so it is part of no cycle
cdef class Cursor:
    cdef bytes _wanted
    cdef bytes _known
    cdef bytes _small
    cdef bytes _heads
    cdef bytes _flags
    cdef bytearray _held  # None while nothing is held: an idle connection pays for nothing
    cdef long long _max_message_bytes
    cdef long long _max_held_bytes
    cdef long long _max_small_message_bytes
    cdef long long _missing
    cdef long long _skip
    cpdef bint is_mid_message(self) noexcept
    cpdef bint is_one(self, bytes data, unsigned char kind) noexcept
    cpdef bint is_last(self, bytes data, unsigned char kind, long long size)
    cpdef Py_ssize_t bound_unit(self, bytes data) noexcept
    cpdef Py_ssize_t unnamed_unit(self, bytes data) noexcept
    cdef bint _runs_to_sync(self, const unsigned char *data, long long at, long long size) noexcept
    cdef unsigned char _flag(self, unsigned char kind)
    cdef tuple _scan(self, bytes data)
    cdef int _check_header(self, unsigned char kind, long long length, unsigned char flag) except -1
    cdef bytes _hold_tail(self, bytes data, Py_ssize_t position)


cpdef bytes renamed(bytes data, Py_ssize_t name_at, bytes name)
cpdef bint may_matter(bytes sql, bint backslash_escapes=*, Py_ssize_t start=*, Py_ssize_t end=*)
