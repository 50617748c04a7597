# The C types with which `client.py` is compiled. What it does stands there.

cimport cython

from proxy.session cimport clock, examination
from proxy.session.backlog cimport Backlog
from proxy.session.examination cimport Examination
from proxy.session.gate cimport Gate
from proxy.session.holding cimport HoldWatch
from proxy.session.measures cimport ApplicationMeasures
from proxy.session.parameters cimport Settings
from proxy.session.pool cimport Pool
from proxy.session.server cimport ServerConnection
from proxy.session.session_state cimport SessionState
from proxy.session.statements cimport ClientStatements
from proxy.wire._compiled cimport Cursor


cdef int _ENTERING
cdef int _IDLE
cdef int _WAITING
cdef int _DIALLING
cdef int _LINKED
cdef int _CLEANING
cdef int _GONE


cdef class ClientConnection:
    cdef int _phase
    cdef object _entering
    cdef object _fitting
    cdef public object link  # a Link: `linked` knows this class, and not the other way round
    cdef public object local
    cdef public object listening
    cdef readonly bint holds_slot
    cdef public double asked_at
    cdef readonly double granted_at
    cdef public double idle_since
    cdef readonly HoldWatch watch  # None where its class has no bounds
    cdef public bint is_unbounded
    cdef readonly Cursor cursor
    cdef readonly Backlog backlog
    cdef bint _backlog_is_begun
    cdef bint _is_clogged
    cdef bint _server_paused
    cdef double _warned_until
    cdef public Settings settings
    cdef readonly object dialect
    cdef readonly bint backslash_escapes
    cdef public SessionState state
    cdef public ClientStatements statements
    cdef readonly object desk
    cdef readonly object upstream
    cdef readonly Gate gate
    cdef ApplicationMeasures _measures
    cdef readonly object id
    cdef readonly object identity
    cdef readonly object transport
    cdef readonly str class_name
    cdef readonly bint session_hold
    cdef readonly bint one_statement
    cdef readonly str own_class  # by its name; `class_name` may be that of a tag
    cdef readonly object tags
    cdef readonly Pool pool
    cdef public object process_id
    cdef public bytes secret_key

    cpdef data_received(self, bytes data)
    cpdef bint _may_be_usual(self)
    cpdef bint is_pinned(self)
    cpdef bint is_mid_message(self)
    cpdef keep(self, bytes buffer, facts)
    cpdef take_kept(self)

    @cython.locals(seen=Examination, now=double, block_at=Py_ssize_t)
    cpdef _begin(self, bytes buffer, facts)
    cpdef granted_at_once(self, double now)
    cpdef linked(self, link)
    cpdef ClientStatements own_statements(self)

    @cython.locals(now=double)
    cpdef give_back(self, ServerConnection server)
    cpdef unit_is_over(self)
    cpdef _give_slot_back(self, double now)
