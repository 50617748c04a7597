# The C types with which `pool.py` is compiled. What it does stands there.

cimport cython

from proxy.session.idle cimport IdleConnections
from proxy.session.parameters cimport Settings
from proxy.session.server cimport ServerConnection


cdef class Registry:
    cdef public long total
    cdef public long dialling
    cdef public bint is_over_total
    cdef public set connections
    cdef public list waiting_for_room
    cdef public object idle_kept_from
    cdef public object connector
    cdef public object settings
    cdef public object measures
    cdef public object tasks
    cdef public object loop
    cdef public dict pools
    cdef public object on_unresponsive
    cdef public set evicting
    cdef object _sweep
    cdef object _emptied
    cpdef bint has_room(self)


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
