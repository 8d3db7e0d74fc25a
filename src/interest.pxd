"""Which topics a process wants, as others see it. See interest.pyx."""

from libc.stdint cimport int64_t, uint64_t

cdef struct Want:
    uint64_t hash                # of the topic; 0: free
    uint64_t count               # of subscribers in that process

cdef struct Interest:            # all in shared memory; all zeroes at first
    uint64_t sequence            # odd while entries move
    uint64_t mask                # how many entries of the table are in use, less 1; 0: none yet
    uint64_t used                # entries that are taken
    uint64_t untold              # topics for which there was no room: others can't tell

cdef enum:
    CANT_TELL = -1               # of interest_of

cdef bint interest_set(
    Interest *i, Want *table, uint64_t most, uint64_t hash, uint64_t before, uint64_t count
) noexcept nogil
cdef int64_t interest_of(const Interest *i, const Want *table, uint64_t most, uint64_t hash) noexcept nogil
cdef uint64_t interest_count(const Interest *i, const Want *table, uint64_t most, uint64_t hash) noexcept nogil
cdef void interest_clear(Interest *i) noexcept nogil
