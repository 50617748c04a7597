cdef class Settings:
    cdef object __weakref__
    cdef readonly object values
    cdef public list idle
