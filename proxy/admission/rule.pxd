# The C types with which `rule.py` is compiled. What it does stands there.

cimport cython

from proxy.admission.ledger cimport Account, Ledger


cpdef long held_part(Account account, double now)
cpdef long floor_part(Account account)


cdef class Commitment:
    cdef public long slots
    cdef public long headroom_used


@cython.locals(slots=long, headroom_used=long, index=Py_ssize_t, account=Account, part=long, used=long)
cpdef Commitment commitment(list accounts, list parts, long headroom)
cpdef bint raises_commitment(Account account, long part, Commitment spoken_for, long headroom)
cpdef bint fits(Account account, long part, Commitment spoken_for, Ledger ledger)


cdef class Look:
    cdef public Ledger ledger
    cdef public double now
    cdef public Account asking
    cdef public list accounts
    cdef Commitment _held
    cdef Commitment _floors
    @cython.locals(one=Account)
    cpdef Commitment held(self)

    @cython.locals(one=Account)
    cpdef Commitment floors(self)

    cpdef long held_part(self, Account account)


cpdef bint is_running(Account account)
cpdef bint is_below_its_limit(Account account)
cpdef bint is_below_its_pinned_limit(Account account)
cpdef bint owes_a_slot(Account account)
cpdef bint budget_has_a_free_slot(Ledger ledger)
cpdef bint fits_what_is_held(Account account, Look look)
cpdef bint fits_the_floors(Account account, Look look)
cpdef bint may_take_a_slot(Account account, Look look, bint unbounded)
cpdef bint certainly_fits(Account account, Ledger ledger)
