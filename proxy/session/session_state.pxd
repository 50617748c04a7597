cdef class SessionState:
    cdef public frozenset pins
    cdef object _own
    cdef object _clears
    cdef frozenset _reset
