# The C types with which `linked.py` is compiled. What it does stands there.

cimport cython

from proxy.session cimport clock
from proxy.session.client cimport ClientConnection
from proxy.session.examination cimport Examination
from proxy.session.holder cimport Holder
from proxy.session.holding cimport HoldWatch
from proxy.session.server cimport ServerConnection
from proxy.session.statements cimport ClientStatements


cdef class Link(Holder):
    cdef readonly ClientConnection client
    cdef readonly ServerConnection server
    cdef public bint unsynced
    cdef readonly bint may_be_skipped
    cdef public bint cancel_when_injected
    cdef bint _late_copy
    cdef bint _copied
    cdef bint _has_portal
    cdef public bint was_reset
    cdef readonly double unit_since
    cdef readonly double transaction_since

    cpdef received(self, bytes buffer, facts)
    cpdef bint must_hold(self)
    cpdef _unit_begins(self, HoldWatch watch, double now)

    @cython.locals(seen=Examination, server=ServerConnection, client=ClientConnection, block_at=Py_ssize_t)
    cpdef forward(self, bytes buffer, facts)

    @cython.locals(was_copying=bint, of_copy=bint, session_hold=bint, server=ServerConnection)
    cpdef send(self, bytes buffer, facts, Examination seen)

    @cython.locals(server=ServerConnection, client=ClientConnection)
    cpdef bytes _translated(self, bytes buffer, facts, Examination seen)

    @cython.locals(statements=ClientStatements)
    cpdef _note_unnamed(self, bytes buffer, Examination seen)

    @cython.locals(server=ServerConnection, client=ClientConnection)
    cpdef unit_may_be_over(self)
