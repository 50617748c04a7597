# The C types with which `ledger.py` is compiled. What it does stands there.

cimport cython

from proxy.admission.demand cimport DemandMemory
from proxy.admission.queue_pace cimport QueuePace
from proxy.admission.queues cimport ClassQueue, Waiter


cdef class Account:
    cdef public long used
    cdef public long reserved
    cdef public long limit
    cdef public long ceiling
    cdef public long floor
    cdef public bint running
    cdef public bint retired
    cdef public bint takes_headroom
    cdef public long debt
    cdef public long pinned
    cdef public long own_at_once
    cdef public long borrowed_at_once
    cdef public long own_queued
    cdef public long borrowed_queued
    cdef public long released
    cdef public ClassQueue queue
    cdef public DemandMemory memory
    cdef public QueuePace pace
    cdef public long priority
    cdef public double weight
    cdef public str name
    cdef public object adaptive_limit
    cdef public dict refusals
    cdef public object ramp
    cdef public object trial
    cdef public object release_rate
    cdef public object settings
    cdef public object state
    cpdef count_admission(self, bint borrowed, bint queued)
    cpdef long pinned_limit(self)
    cpdef bint counts_its_waiters(self)

    @cython.locals(waiting=long)
    cpdef long demand(self)

    cpdef remember_demand(self, double now)


cdef class Ledger:
    cdef public long total
    cdef public long in_use
    cdef public long most_committed
    cdef public long headroom
    cdef public dict accounts
    cdef public dict holders
    cdef public dict waiters
    cdef public set pinned
    cpdef Account account(self, str class_name)
    cpdef take(self, client, Account account)

    @cython.locals(account=Account)
    cpdef Account give_back(self, client, double now)

    cpdef unpin(self, client, Account account)
    cpdef expect_new(self, client)
