# The C types with which `awaited.py` is compiled. What it does stands there.

cdef int _NOTHING


cdef class Awaited:
    cdef readonly int first
    cdef object _rest
    cpdef bint is_one(self)
    cpdef push(self, int kind)
    cpdef pop(self)
