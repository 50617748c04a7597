# The C types with which `examination.py` is compiled. What it does stands there.

cimport cython

cdef int _QUERY
cdef int _PARSE
cdef int _BIND
cdef int _DESCRIBE
cdef int _EXECUTE
cdef int _SYNC
cdef int _TERMINATE
cdef int _FUNCTION_CALL
cdef int _CLOSE
cdef int _FLUSH
cdef int _COPY_DONE
cdef int _COPY_FAIL
cdef int _HEADER_BYTES
cdef int _STATEMENT
cdef int _SHORTEST_NAMING_BYTES


cdef class Examination:
    cdef readonly list awaited
    cdef public frozenset pins
    cdef public frozenset sets
    cdef public object clearing
    cdef public int leaves_at
    cdef public Py_ssize_t parses_unnamed
    cdef public Py_ssize_t unnamed_end
    cdef public bint changes_parameters
    cdef public bint ends_copy
    cdef public bint has_portal
    cdef public bint has_query
    cdef public bint is_extended
    cdef public bint names_statements
    cdef public bint only_ends_copy
    cdef public bint parses_listen
    cdef public bint sets_parameters
    cdef public bint whole
    cpdef bint is_plain(self)
    cpdef found(self, facts, bint runs=*)


@cython.locals(seen=Examination, kind=int, start=Py_ssize_t, end=Py_ssize_t, awaits_sync=bint)
cpdef Examination examine(bytes buffer, facts, dialect, bint copying_in=*, statements=*, bint behind_copy=*)

@cython.locals(name_at=Py_ssize_t, name_end=Py_ssize_t, sql_end=Py_ssize_t)
cpdef dict _look_into_parse(Examination seen, bytes buffer, Py_ssize_t start, Py_ssize_t end, dialect, dict parsed)

cpdef _expect_name(int kind, Py_ssize_t start, Py_ssize_t end)

@cython.locals(name_at=Py_ssize_t)
cpdef _look_into_use(Examination seen, bytes buffer, int kind, Py_ssize_t start, dialect, dict parsed, statements)
