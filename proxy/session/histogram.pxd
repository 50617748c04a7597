# The C types with which `histogram.py` is compiled. What it does stands there.

cimport cython


cdef class Histogram:
    cdef public double sum
    cdef double _lowest
    cdef long long[::1] _counts
    cdef readonly tuple bounds

    @cython.locals(bucket=Py_ssize_t)
    cpdef observe(self, double value)
