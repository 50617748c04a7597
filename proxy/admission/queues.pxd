# The C types with which `queues.py` is compiled. What it does stands there.

cdef class Waiter:
    cdef public object client
    cdef public str class_name
    cdef public object flow
    cdef public double since
    cdef public bint unbounded
    cdef public double deadline
    cdef public object notify_at
    cdef public bint is_waiting
    cdef public long queued_ahead
    cdef public long departed_before

cdef class ClassQueue:
    cdef public object waiters
    cdef object _flows
    cdef long _departed
