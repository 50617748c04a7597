# The C types with which `holding.py` is compiled. What it does stands there.


cdef class HoldWatch:
    cdef readonly double soonest
    cdef readonly double looks_at
    cdef readonly object bounds
    cdef object _client
    cdef object _holds
    cdef object _timer
    cdef double _cancelled_query
    cdef double _cancelled_at
    cdef double _unread_since
    cdef long long _unread_bytes
    cpdef begins(self, double now)
