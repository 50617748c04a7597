# The C types with which `statements.py` is compiled. What it does stands there.

cdef class Statement:
    cdef object __weakref__
    cdef readonly bytes tail
    cdef readonly object folding
    cdef readonly object facts
    cdef public bint is_stale


cdef class ServerStatements:
    cdef public int max_statements
    cdef public list to_close
    cdef public bint has_private
    cdef dict _known
    cdef set _private
    cdef dict _unsettled
    cdef long _unit
    cdef long _made
    cpdef bytes name_or_none(self, Statement statement)


cdef class ClientStatements:
    cdef readonly dict named
    cdef public bytes unnamed
    cdef public long changes
    cdef public frozenset unsettled
    cdef public frozenset in_open_unit
    cdef readonly long size
    cpdef keep_unnamed(self, bytes buffer, Py_ssize_t start, Py_ssize_t end)
