# The C types with which `server.py` is compiled. What it does stands there.

from proxy.session.awaited cimport Awaited
from proxy.session.parameters cimport Settings
from proxy.session.statements cimport ServerStatements, Statement
from proxy.wire._compiled cimport Cursor


cdef int _LOGIN
cdef int _IDLE
cdef int _LINKED
cdef int _CLOSING
cdef int _GONE
cdef int _READY_FOR_QUERY
cdef int _READY_BYTES
cdef int _IDLE_STATUS


cdef class Holder:
    cdef public object transport
    cpdef unit_may_be_over(self)


cdef class ServerConnection:
    cdef public object transport
    cdef public Holder client
    cdef readonly Awaited awaiting
    cdef public Cursor cursor
    cdef public Settings settings
    cdef int _state
    cdef public int last_status
    cdef public int cancels_under_way
    cdef public bint copying_in
    cdef public bint has_copy_end
    cdef public bint told_fatal
    cdef public bint tells_ready
    cdef public bint is_full
    cdef bint _swallowing
    cdef bint _failed
    cdef bint _is_late
    cdef public double idle_since
    cdef public double retire_at
    cdef public object pool
    cdef public ServerStatements statements
    cdef public bint has_sure_settings
    cdef public Statement bound
    cdef public bytes bound_name
    cdef public object replies
    cdef public bytes unnamed
    cdef public object loop
    cdef public object process_id
    cdef public object secret_key
    cdef public object on_gone
    cdef public object login_done
    cdef public object route
    cdef object _login
    cdef object _injected_want
    cdef object _injected_error
    cdef public object told_rows
    cpdef data_received(self, bytes data)
    cpdef bint _is_usual_answer(self, bytes data)
    cpdef bint is_cut(self)
    cpdef link(self, Holder client)
    cpdef unlink(self, double now)
    cpdef send_one(self, bytes data, int kind)
