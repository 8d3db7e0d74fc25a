"""What a server counts, in one piece. See counts.pyx."""

from libc.stdint cimport uint64_t

from c1m.files cimport FilesCounts
from c1m.reactor cimport NetCounts
from c1m.response cimport HttpCounts
from c1m.wsconn cimport MAX_ROUTES, RouteCounts, WsCounts

cdef enum:
    MAX_PATHS = 256 << 10        # bytes of the paths of all routes, a zero behind each

cdef struct Totals:              # words only
    NetCounts net
    HttpCounts http
    WsCounts ws
    FilesCounts files
    uint64_t topics              # now
    uint64_t log_lines_dropped
    uint64_t publish_lost        # see Ring.first_lost; this one any process writes

cdef struct Counts:              # all zeroes at first; what a server has no use for is never touched
    Totals all
    uint64_t routes_n
    uint64_t paths_n             # bytes of `paths` in use
    RouteCounts[MAX_ROUTES] routes
    char[MAX_PATHS] paths        # in the order of the routes

cdef Counts *counts_new() noexcept nogil
cdef void counts_free(Counts *c) noexcept nogil
cdef RouteCounts *counts_route(Counts *c, const char *path) noexcept nogil
cdef void counts_add(Counts *to, const Counts *c) noexcept nogil
cdef void counts_copy(Counts *to, const Counts *c) noexcept nogil
cdef void counts_clear(Counts *c) noexcept nogil
cdef dict counts_told(const Counts *c)
