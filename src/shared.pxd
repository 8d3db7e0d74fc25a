"""What the processes of one server share. See shared.pyx."""

from libc.stdint cimport uint64_t

from c1m.counts cimport Counts
from c1m.ring cimport Ring, RingHead, RingSeat

cdef struct Seat:                # of one process
    uint64_t pid                 # 0: nobody sits here
    uint64_t[7] apart
    RingSeat ring                # outlives the process
    Counts counts                # what it counts, written by its reactor's thread

cdef struct Common:
    uint64_t moves               # of counts from a seat to the past; odd while one is under way
    Counts past                  # of the processes that have ended
    RingHead ring


cdef class Shared:
    cdef readonly int seats
    cdef readonly size_t ring_bytes
    cdef char *first             # of the seats
    cdef char *memory            # one mapping: Common, the ring's data, for each seat a Seat, its index, its table
    cdef size_t bytes            # of it
    cdef Ring ring               # the same as a ring
    cdef uint64_t noted          # of the messages of a publisher without a seat that were lost, what the log knows
    cdef double noted_at
    cdef int *wakers             # eventfds
    cdef Common *common(self) noexcept
    cdef Seat *seat(self, int seat) except NULL
    cdef Counts *sit(self, int seat) except NULL
    cdef Ring *ring_of(self) noexcept
    cdef note_lost(self)
