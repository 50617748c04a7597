# The C types with which `measures.py` is compiled. What it does stands there.

from proxy.session.histogram cimport Histogram


cdef class ApplicationMeasures:
    cdef readonly object owner
    cdef readonly str name
    cdef long long _at_once
    cdef Histogram _unqueued
    cdef Histogram _queued_hold
    cdef Histogram _queued_transaction
    cdef Histogram _total_hold
    cpdef granted_at_once(self)
    cpdef held(self, double hold_seconds, double transaction_seconds)


cdef class ClassMeasures:
    cdef Histogram _hold
    cdef Histogram _transaction
    cdef Histogram _wait_granted
    cdef readonly dict applications
    cdef readonly Histogram wait_refused
    cdef readonly Histogram wait_left
