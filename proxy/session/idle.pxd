# The C types with which `idle.py` is compiled. What it does stands there.

from proxy.session.parameters cimport Settings
from proxy.session.server cimport ServerConnection


cdef class IdleConnections:
    cdef readonly Py_ssize_t count
    cdef Settings _newest
    cdef object _listed
    cpdef put(self, ServerConnection server)
    cpdef ServerConnection take(self, Settings settings)
