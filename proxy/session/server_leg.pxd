# The C types with which `server_leg.py` is compiled. What it does stands there.

from proxy.session.holder cimport Holder


cdef int _LOGIN
cdef int _IDLE
cdef int _LINKED
cdef int _CLOSING
cdef int _GONE


cdef class ServerLeg:
    cdef public object transport
    cdef public Holder client
    cdef int _state
    cdef public int cancels_under_way
    cdef public bint is_full
    cdef public double idle_since
    cdef public double retire_at
    cdef public object pool
    cdef public object loop
    cdef public object process_id
    cdef public object secret_key
    cdef public object on_gone
    cdef public object route
    cdef readonly object login
    cpdef link(self, Holder client)
    cpdef unlink(self, double now)
    cpdef logged_in(self, process_id, secret_key)
