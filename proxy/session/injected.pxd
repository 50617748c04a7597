# The C types with which `injected.py` is compiled. What it does stands there.

from proxy.session.parameters cimport Settings


cdef class Injected:
    cdef public list rows
    cdef Settings _want
    cdef object _error
    cpdef begins(self, Settings want)
    cpdef take_error(self)
    cpdef Py_ssize_t ends_at(self, server, bytes buffer, facts) except -2
    cpdef settle(self, server)
