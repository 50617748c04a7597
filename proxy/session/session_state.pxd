# The C types with which `session_state.py` is compiled. What it does stands there.

cdef class SessionState:
    cdef public frozenset pins
    cdef public frozenset unsure
    cdef public list asked
    cdef public object failure
    cdef bint _singly
    cdef public bint ignored
    cdef public bint was_discarded
    cdef object _own
    cdef object _clears
    cdef frozenset _reset
