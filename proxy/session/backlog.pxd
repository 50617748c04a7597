cdef class Backlog:
    cdef readonly Py_ssize_t size
    cdef list _pieces
    cdef object _transport
    cdef object _loop
    cdef object _probe
