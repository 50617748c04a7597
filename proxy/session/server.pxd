# The C types with which `server.py` is compiled. What it does stands there.

from proxy.session cimport clock
from proxy.session.awaited cimport Awaited
from proxy.session.holder cimport Holder
from proxy.session.injected cimport Injected
from proxy.session.parameters cimport Settings
from proxy.session.server_leg cimport ServerLeg
from proxy.session.statements cimport ServerStatements, Statement
from proxy.wire._compiled cimport Cursor


cdef int _READY_FOR_QUERY
cdef int _READY_BYTES
cdef int _IDLE_STATUS


cdef class ServerConnection(ServerLeg):
    cdef readonly Awaited awaiting
    cdef public Cursor cursor
    cdef public Settings settings
    cdef public int last_status
    cdef public bint copying_in
    cdef public bint has_copy_end
    cdef public bint told_fatal
    cdef public bint tells_ready
    cdef bint _swallowing
    cdef bint _failed
    cdef bint _is_late
    cdef public ServerStatements statements
    cdef public bint has_sure_settings
    cdef public Statement bound
    cdef public bytes bound_name
    cdef public object replies
    cdef public bytes unnamed
    cdef readonly Injected injected
    cpdef data_received(self, bytes data)
    cpdef bint _is_usual_answer(self, bytes data)
    cpdef bint is_cut(self)
    cpdef link(self, Holder client)
    cpdef unlink(self, double now)
    cpdef send_one(self, bytes data, int kind)
