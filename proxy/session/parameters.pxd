# The C types with which `parameters.py` is compiled. What it does stands there.

cdef class Settings:
    cdef object __weakref__
    cdef readonly object values
    cdef readonly object folding
    cdef public list idle
