# The C types with which `gate.py` is compiled. What it does stands there.

cimport cython

from proxy.admission.controller cimport Controller


cdef class DecisionLoop:
    cdef public dict applicants
    cdef object _core
    cdef object _note
    cdef object _loop
    cdef object _undelivered
    cdef bint _delivering
    cdef object _timer
    cdef double _wakes_at


cdef class Gate:
    cdef readonly Controller controller
    cdef DecisionLoop _decisions
    cdef public object after_release
    cdef public object after_queued
    cdef object _measures
    cdef object _loop
    cpdef bint try_grant(self, client, str class_name, double now)
    cpdef release(self, client, double now)
