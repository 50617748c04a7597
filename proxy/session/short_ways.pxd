# The C types with which `short_ways.py` is compiled. What it does stands there.

cimport cython

from proxy.session cimport clock
from proxy.session.client cimport ClientConnection
from proxy.session.linked cimport Link
from proxy.session.parameters cimport Settings
from proxy.session.pool cimport Pool
from proxy.session.server cimport ServerConnection
from proxy.session.statements cimport ClientStatements, Statement
from proxy.wire cimport prefilter


cdef int _QUERY
cdef int _SYNC
cdef int _HEADER_BYTES


@cython.locals(name_at=Py_ssize_t, parse_end=Py_ssize_t)
cpdef bint sent(ClientConnection client, bytes data)

@cython.locals(link=Link, server=ServerConnection, now=double)
cdef bint _query_sent(ClientConnection client, bytes data)

@cython.locals(
    link=Link, server=ServerConnection, now=double, statements=ClientStatements, settings=Settings,
    statement=Statement, name=bytes, own_name=bytes)
cdef bint _bound_sent(ClientConnection client, bytes data, Py_ssize_t name_at)

@cython.locals(link=Link, server=ServerConnection, now=double, statements=ClientStatements, text_at=Py_ssize_t)
cdef bint _unnamed_sent(ClientConnection client, bytes data, Py_ssize_t parse_end)

@cython.locals(link=Link, server=ServerConnection, pool=Pool, settings=Settings)
cpdef Link link_at_once(ClientConnection client, bytes buffer, facts, double now)
