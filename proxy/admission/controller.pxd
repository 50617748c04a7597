# The C types with which `controller.py` is compiled. What it does stands there.

cimport cython

from proxy.admission cimport rule
from proxy.admission.ledger cimport Account, Ledger


cdef class Controller:
    cdef object _settings
    cdef object _draw
    cdef Ledger _ledger
    cdef object _timers
    cdef list _ramping
    cdef readonly dict warned
    cdef double _now

    @cython.locals(ledger=Ledger, account=Account, borrowed=bint)
    cpdef bint try_grant(self, client, str class_name, double now)

    @cython.locals(ledger=Ledger, account=Account)
    cpdef release(self, client, double now)

    @cython.locals(ledger=Ledger)
    cpdef bint _allows_at_once(self, Account account, double now)
