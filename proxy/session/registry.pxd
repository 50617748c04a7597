# The C types with which `registry.py` is compiled. What it does stands there.

cdef class Registry:
    cdef public long total
    cdef public long dialling
    cdef public long dials_refused
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
    cdef object _new_pool
    cdef readonly object _sweep
    cdef readonly dict _lives
    cdef object _emptied
    cpdef bint has_room(self)
