"""Who may come in, and from where they come. See gate.pyx."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from c1m.address cimport Address, Networks
from c1m.limits cimport Limits
from c1m.reactor cimport Conn, Reactor

cdef enum Refusal:               # what the gate turns away for
    OVER_CONNECTIONS             # in all
    OVER_ADDRESS                 # of one address
    OVER_UPGRADES
    BAD_PROXY                    # no PROXY header where there must be one, or none in time
    REFUSALS

# So many were turned away since the last call for the same reason, the last from there; fault: what was wrong with a
# BAD_PROXY, else NULL.
ctypedef void (*refused_t)(void *owner, int why, uint64_t times, const Address *who, const char *fault) noexcept nogil

cdef struct Gate:
    Reactor *r
    void *owner                  # first argument of this
    refused_t refused
    Networks proxies             # who must send a PROXY header
    const Networks *trusted      # proxies of many clients, which are none themselves
    Limits limits
    uint64_t most                # connections in all, 0 for any number
    uint64_t open                # those that were let in and counted
    uint8_t timeout              # for a PROXY header, or a request that will be refused, to come whole
    uint8_t proxy_protocol       # what a connection speaks until its PROXY header has come,
    uint8_t refusing             # and what it speaks when it is to be refused; its owner lowers `waiting`
    uint64_t waiting             # connections that do
    uint64_t awaited             # those whose PROXY header has not come
    uint64_t *counts             # how many were turned away, by Refusal; others read them
    uint64_t[<int>REFUSALS] told          # of these, how many the log knows of
    int64_t[<int>REFUSALS] told_ms        # since when

cdef const char *refusal_name(Refusal why) noexcept nogil
cdef void gate_init(Gate *g, Reactor *r, const Networks *trusted) noexcept nogil
cdef void gate_free(Gate *g) noexcept nogil
cdef bint gate_admit(Gate *g, Conn *c) noexcept nogil
cdef void gate_uncount(Gate *g, Conn *c) noexcept nogil
cdef int gate_upgrade(Gate *g, Conn *c, const Address *client) noexcept nogil
cdef void gate_upgraded(Gate *g, Conn *c, const Address *client) noexcept nogil
