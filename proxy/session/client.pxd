# The C types with which `client.py` is compiled. What it does stands there.

cimport cython

from proxy.session cimport clock, examination
from proxy.session.backlog cimport Backlog
from proxy.session.examination cimport Examination
from proxy.session.gate cimport Gate
from proxy.session.measures cimport ApplicationMeasures
from proxy.session.parameters cimport Settings
from proxy.session.pool cimport Pool
from proxy.session.server cimport Holder, ServerConnection
from proxy.session.session_state cimport SessionState
from proxy.session.statements cimport ClientStatements, Statement
from proxy.wire cimport prefilter
from proxy.wire._compiled cimport Cursor


cdef int _ENTERING
cdef int _IDLE
cdef int _WAITING
cdef int _DIALLING
cdef int _LINKED
cdef int _CLEANING
cdef int _GONE
cdef int _QUERY
cdef int _SYNC
cdef int _HEADER_BYTES


cdef class ClientConnection(Holder):
    cdef int _phase
    cdef bint _backslash_escapes
    cdef bint _is_clogged
    cdef bint _unsynced
    cdef bint _late_copy
    cdef bint _copied
    cdef bint _server_paused
    cdef bint _unbounded
    cdef bint _has_portal
    cdef bint _cancel_when_injected
    cdef bint _is_going_on
    cdef bint _one_statement
    cdef bint _may_be_skipped
    cdef public bint holds_slot
    cdef public bint session_hold
    cdef public ServerConnection server
    cdef public object id
    cdef public str class_name
    cdef public Settings settings
    cdef public Pool pool
    cdef SessionState _state
    cdef Backlog _backlog
    cdef object _local
    cdef Cursor _cursor
    cdef Gate _gate
    cdef ApplicationMeasures _measures
    cdef double _asked_at
    cdef double _granted_at
    cdef ClientStatements _statements
    cdef object _desk
    cdef object _closed
    cdef public object identity
    cdef public object process_id
    cdef object _dialect
    cdef object _lone_timer
    cdef public object listening

    cpdef data_received(self, bytes data)
    cpdef bint _may_be_usual(self)

    @cython.locals(name_at=Py_ssize_t, parse_end=Py_ssize_t)
    cpdef bint _sent_at_once(self, bytes data)

    @cython.locals(server=ServerConnection, now=double)
    cpdef bint _query_sent(self, bytes data)

    @cython.locals(
        server=ServerConnection, now=double, statements=ClientStatements, settings=Settings, statement=Statement,
        name=bytes, own_name=bytes)
    cpdef bint _bound_sent(self, bytes data, Py_ssize_t name_at)

    @cython.locals(server=ServerConnection, now=double, statements=ClientStatements, text_at=Py_ssize_t)
    cpdef bint _unnamed_sent(self, bytes data, Py_ssize_t parse_end)

    @cython.locals(server=ServerConnection, pool=Pool, settings=Settings)
    cpdef ServerConnection _link_at_once(self, bytes buffer, facts, double now)
    cpdef bint _must_hold(self)

    @cython.locals(server=ServerConnection, seen=Examination)
    cpdef _forward(self, bytes buffer, facts)

    @cython.locals(was_copying=bint, of_copy=bint)
    cpdef _send(self, ServerConnection server, bytes buffer, facts, Examination seen)
    cpdef bytes _translated(self, ServerConnection server, bytes buffer, facts, Examination seen)
    cpdef _note_unnamed(self, ServerConnection server, bytes buffer, Examination seen)

    @cython.locals(seen=Examination, server=ServerConnection, now=double)
    cpdef _begin(self, bytes buffer, facts)
    cpdef bint _is_pinned(self)

    @cython.locals(server=ServerConnection)
    cpdef unit_may_be_over(self)

    @cython.locals(now=double)
    cpdef _release_server(self, ServerConnection server)
    cpdef _give_slot_back(self, double now)
