# The C types with which `pool.py` is compiled. What it does stands there.

cimport cython

from proxy.session.idle cimport IdleConnections
from proxy.session.parameters cimport Settings
from proxy.session.registry cimport Registry
from proxy.session.server cimport ServerConnection


cdef class Pool:
    cdef public Registry registry
    cdef public dict clients
    cdef IdleConnections _idle
    cdef public double check_after_seconds
    cdef long _asked
    cdef long _dialling
    cdef object _wanting
    cdef public object table
    cdef public object statements
    cdef public int max_statements
    cdef public object database
    cdef public object user
    cdef public object credentials
    cdef public bint tries_while_down
    cpdef ServerConnection take_idle_or_none(self, Settings settings, str class_name)
    cpdef bint needs_check(self, ServerConnection server, double now)
    cpdef bint _is_kept_from(self, str class_name)

    @cython.locals(registry=Registry, is_retired=bint)
    cpdef put_idle(self, ServerConnection server, bint is_new=*)
    cpdef bint _gave_to_the_next(self, ServerConnection server, bint is_new)
