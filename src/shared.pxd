"""What the processes of one server share. See shared.pyx."""

from libc.stdint cimport int32_t, uint64_t

from c1m.counts cimport Counts

cdef struct Seat:                # of one process
    uint64_t pid                 # 0: nobody sits here
    Counts counts                # what it counts, written by its reactor's thread

cdef struct Common:
    uint64_t moves               # of counts from a seat to the past; odd while one is under way
    Counts past                  # of the processes that have ended


cdef class Shared:
    cdef readonly int seats
    cdef readonly size_t ring_bytes
    cdef char *memory            # one mapping: Common, the seats
    cdef size_t bytes            # of it
    cdef int *wakers             # eventfds
    cdef Common *common(self) noexcept
    cdef Seat *seat(self, int seat) except NULL
    cdef Counts *sit(self, int seat) except NULL
