# The C types with which `backlog.py` is compiled. What it does stands there.

cdef class Backlog:
    cdef readonly Py_ssize_t size
    cdef list _pieces
    cdef Unread _unread


cdef class Unread:
    cdef readonly object transport
    cdef object _loop
    cdef object _probe
