"""What a server counts, in one piece that may lie in memory that processes share.

Owns: the layout of all counters, their sum, their names for Python.
Refuses to know: who counts, and when.

Each word has one writer, the thread of one reactor, which reaches it by a pointer; others read it at any time, for
words of 64 bits are whole on every supported machine. What they read is no snapshot of one instant. A route's counters
are found by its path, for processes of one server may have different routes, before a reload and after.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset, strcmp, strlen

from c1m.atomics cimport load_acquire, store_release
from c1m.buf cimport static_assert
from c1m.gate cimport REFUSALS, Refusal, refusal_name
from c1m.linux cimport MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, munmap


cdef Counts *counts_new() noexcept nogil:
    """Counters of this process's own, all 0. NULL: memory is out."""
    cdef void *at = mmap(
        NULL, sizeof(Counts), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    return NULL if at == MAP_FAILED else <Counts *>at


cdef void counts_free(Counts *c) noexcept nogil:
    if c != NULL:
        munmap(c, sizeof(Counts))


cdef RouteCounts *counts_route(Counts *c, const char *path) noexcept nogil:
    """The counters of the route at a path, a new one's if there is none yet; NULL if there is no room."""
    cdef size_t n = strlen(path) + 1
    cdef const char *known = c.paths
    cdef uint64_t i
    for i in range(c.routes_n):
        if strcmp(known, path) == 0:
            return &c.routes[i]
        known += strlen(known) + 1
    if c.routes_n == MAX_ROUTES or c.paths_n + n > MAX_PATHS:
        return NULL
    memcpy(c.paths + c.paths_n, path, n)
    c.paths_n += n
    store_release(&c.routes_n, c.routes_n + 1)      # last, for who reads meanwhile
    return &c.routes[c.routes_n - 1]


cdef void counts_add(Counts *to, const Counts *c) noexcept nogil:
    """Adds what has ended to the sums of the past: all but what is told of now. A route for which there is no room is
    left out."""
    cdef Totals ended = c.all
    cdef const char *path = &c.paths[0]
    cdef uint64_t *sums = <uint64_t *>&to.all
    cdef RouteCounts *route
    cdef uint64_t i
    ended.net.connections = ended.net.full = ended.ws.open = ended.files.files = ended.files.bytes = 0
    ended.topics = ended.limited_addresses = 0
    for i in range(sizeof(Totals) // sizeof(uint64_t)):
        sums[i] += (<uint64_t *>&ended)[i]
    for i in range(c.routes_n):
        route = counts_route(to, path)
        if route != NULL:
            route.no_subprotocol += c.routes[i].no_subprotocol
            route.dropped += c.routes[i].dropped
            route.closed_slow += c.routes[i].closed_slow
        path += strlen(path) + 1


cdef void counts_copy(Counts *to, const Counts *c) noexcept nogil:
    """Makes `to` what c is, without touching what that has not."""
    to.all = c.all
    to.routes_n, to.paths_n = c.routes_n, c.paths_n
    memcpy(to.routes, c.routes, c.routes_n * sizeof(RouteCounts))
    memcpy(to.paths, c.paths, c.paths_n)


cdef void counts_clear(Counts *c) noexcept nogil:
    """All zeroes again, without touching what is."""
    memset(c.routes, 0, c.routes_n * sizeof(RouteCounts))
    memset(c.paths, 0, c.paths_n)
    memset(&c.all, 0, sizeof(Totals))
    c.routes_n = c.paths_n = 0


cdef dict counts_told(const Counts *c):
    """Every counter by its name: sums since the start, but for connections, websockets, cached files and bytes, topics,
    and the addresses that the limits know of, which are now."""
    cdef const Totals *all = &c.all
    cdef const char *path = &c.paths[0]
    cdef uint64_t i
    routes, refused = {}, {}
    for i in range(<uint64_t>REFUSALS):
        refused[refusal_name(<Refusal>i).decode()] = all.refused[i]
    for i in range(load_acquire(&c.routes_n)):
        routes[path.decode()] = {
            "websockets": c.routes[i].open,
            "dropped": c.routes[i].dropped, "closed_slow": c.routes[i].closed_slow,
            "no_subprotocol": c.routes[i].no_subprotocol,
        }
        path += strlen(path) + 1
    return {
        "connections": all.net.connections,
        "accepted": all.net.accepted,
        "bytes_received": all.net.received,
        "bytes_sent": all.net.sent,
        "out_of_descriptors": all.net.full_count,
        "unwatched": all.net.unwatched,
        "iterations": all.net.iterations,
        "lent": all.net.lent,
        "requests": all.http.requests,
        "answers": {f"{i}xx": all.http.statuses[i] for i in range(1, 6)},
        "refused": refused,
        "limited_addresses": all.limited_addresses,
        "websockets": all.ws.open,
        "upgrades": all.ws.upgrades,
        "messages": all.ws.messages,
        "cached_files": all.files.files,
        "cached_bytes": all.files.bytes,
        "cache_hits": all.files.hits,
        "cache_misses": all.files.misses,
        "routes": routes,
        "topics": all.topics,
        "log_lines_dropped": all.log_lines_dropped,
        "publish_lost": all.publish_lost,
    }


static_assert(sizeof(Totals) % sizeof(uint64_t) == 0)
