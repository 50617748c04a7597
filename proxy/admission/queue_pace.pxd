# The C types with which `queue_pace.py` is compiled. What it does stands there.

cimport cython


cdef class QueuePace:
    cdef object _windows
    cdef long _granted
    cdef double _granted_at
    cdef double _longest_gap
    cdef double _seconds
    cdef double _began_at
    cdef double _ended_at
    cpdef began(self, double now)
    cpdef ended(self, double now)

    @cython.locals(seconds=double)
    cpdef served(self, double now)
    cdef _begin_window(self)
    cdef double _waited_seconds(self, double now)
