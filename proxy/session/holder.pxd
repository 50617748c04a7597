# The C types with which `holder.py` is compiled. What it does stands there.

cdef class Holder:
    cdef public object transport
    cpdef unit_may_be_over(self)
