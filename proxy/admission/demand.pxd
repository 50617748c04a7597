# The C types with which `demand.py` is compiled. What it does stands there.

cdef class DemandMemory:
    cdef double _half_life_seconds
    cdef double _level_since
    cdef double _level_until
    cdef double _noted_at
    cdef double _peak
    cdef long _level
    cpdef note(self, long demand, double now)
    cpdef long level(self, double now)
    cpdef double drops_at(self, double now)
    cdef double _remembered(self, double now)
