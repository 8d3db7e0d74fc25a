"""The gate: who may come in, and from where they come.

Owns: the PROXY header in front of a connection, the counts of connections, and what is refused for being too many.
Refuses to know: HTTP, WebSocket, Python, how a refusal is put.

A connection is let in when it is accepted, or when its PROXY header has come. One too many is handed to the protocol
`refusing`, which responds to its first request: whoever asks learns why, in the way that every client understands, and
the access log has it. It waits no longer than any request may take, and of those that wait there are MAX_WAITING at
most: any beyond are closed at once, so what refusals cost is bounded, too. So are, beyond as many as there may be
connections, those whose PROXY header has not come.

A proxy's connections are many clients'. So those of trusted proxies count in all, but for no address, until one becomes
a WebSocket, which is one client's: from then on it is that client's connection.

Invariants: where there is a gate, a connection is COUNTED from when it is let in until it closes, COUNTED_BY_ADDRESS
where its address was counted, too, and that does not change from then on.
"""

from libc.stdint cimport int64_t, uint8_t

from c1m.address cimport Address, Networks, networks_have
from c1m.limits cimport limits_connect, limits_disconnect, limits_free, limits_has_room, limits_upgrade
from c1m.linux cimport AF_INET, AF_INET6, AF_UNSPEC
from c1m.proxyproto cimport PROXY_FAIL, PROXY_FROM, PROXY_MORE, PROXY_NOWHERE, ProxyHeader, proxy_next
from c1m.reactor cimport (
    CLOSED, COUNTED, COUNTED_BY_ADDRESS, FIRST_PROTOCOL, Conn, Protocol, Reactor, conn_close, conn_deadline,
    conn_ending, conn_finish, conn_peer, protocol_add,
)

cdef enum:
    MAX_WAITING = 1024           # connections that are to be refused and whose request has not come
    QUIET_MS = 1000              # between two lines in the log for the same reason


cdef const char *refusal_name(Refusal why) noexcept nogil:
    """The option that has it."""
    if why == OVER_CONNECTIONS:
        return b"max_connections"
    if why == OVER_ADDRESS:
        return b"max_connections_per_address"
    return b"max_upgrades_per_address" if why == OVER_UPGRADES else b"proxy_protocol"


cdef void gate_init(Gate *g, Reactor *r, const Networks *trusted) noexcept nogil:
    """Adds the protocol to a reactor, which keeps peers; g is all zeroes."""
    g.r, g.trusted = r, trusted
    g.proxy_protocol = protocol_add(r, Protocol(
        owner=g, opened=NULL, readable=header_readable, drained=header_ended, expired=header_expired,
        shutdown=header_ended, spread=False, closed=header_closed, failed=NULL,
        reads_while_writing=False,
    ))


cdef void gate_free(Gate *g) noexcept nogil:
    limits_free(&g.limits)


cdef inline int64_t now_ns(const Gate *g) noexcept nogil:
    return g.r.now_ms * 1000000


cdef inline bint has_address(const Address *a) noexcept nogil:
    return a.family == AF_INET or a.family == AF_INET6


# ---- connections ----

cdef bint gate_admit(Gate *g, Conn *c) noexcept nogil:
    """A connection was accepted. False: it speaks something else first, and has its deadline."""
    if networks_have(&g.proxies, conn_peer(g.r, c)):
        if g.most and g.awaited >= g.most:
            note(g, OVER_CONNECTIONS, conn_peer(g.r, c), NULL)
            conn_close(g.r, c)
            return False
        g.awaited += 1
        c.protocol = g.proxy_protocol
        conn_deadline(g.r, c, g.timeout)
        return False
    return let_in(g, c)


cdef bint let_in(Gate *g, Conn *c) noexcept nogil:
    """Counts a connection. False: it is to be refused."""
    cdef const Address *peer = conn_peer(g.r, c)
    if g.most and g.open >= g.most:
        turn_away(g, c, OVER_CONNECTIONS)
        return False
    if g.limits.connections and is_client(g, peer):
        if not limits_connect(&g.limits, peer, now_ns(g)):
            turn_away(g, c, OVER_ADDRESS)
            return False
        c.flags |= COUNTED_BY_ADDRESS
    g.open += 1
    c.flags |= COUNTED
    return True


cdef inline bint is_client(const Gate *g, const Address *peer) noexcept nogil:
    """Whether a connection from there is counted for its address."""
    return has_address(peer) and not networks_have(g.trusted, peer) and not networks_have(&g.proxies, peer)


cdef void gate_uncount(Gate *g, Conn *c) noexcept nogil:
    """A COUNTED connection closes."""
    g.open -= 1
    if c.flags & COUNTED_BY_ADDRESS:
        limits_disconnect(&g.limits, conn_peer(g.r, c), now_ns(g))


cdef void turn_away(Gate *g, Conn *c, Refusal why) noexcept nogil:
    """Has a connection refused."""
    note(g, why, conn_peer(g.r, c), NULL)
    if g.waiting >= MAX_WAITING:
        conn_close(g.r, c)
        return
    g.waiting += 1
    c.protocol = g.refusing
    conn_deadline(g.r, c, g.timeout)


cdef void note(Gate *g, Refusal why, const Address *client, const char *fault) noexcept nogil:
    """Counts, and tells the log, unless it has just been told."""
    g.counts[<int>why] += 1
    if g.told[<int>why] and g.r.now_ms - g.told_ms[<int>why] < QUIET_MS:
        return
    g.told_ms[<int>why] = g.r.now_ms
    g.refused(g.owner, why, g.counts[<int>why] - g.told[<int>why], client, fault)
    g.told[<int>why] = g.counts[<int>why]


# ---- WebSockets ----

cdef int gate_upgrade(Gate *g, Conn *c, const Address *client) noexcept nogil:
    """A client asks for a WebSocket: 101, or the status to refuse it with. gate_upgraded follows if it gets it."""
    if not has_address(client):
        return 101
    if g.limits.connections and not c.flags & COUNTED_BY_ADDRESS and not limits_has_room(&g.limits, client):
        note(g, OVER_ADDRESS, client, NULL)
        return 503
    if g.limits.interval_ns and not limits_upgrade(&g.limits, client, now_ns(g)):
        note(g, OVER_UPGRADES, client, NULL)
        return 429
    return 101


cdef void gate_upgraded(Gate *g, Conn *c, const Address *client) noexcept nogil:
    """It is that client's connection from now on, if it is a proxy's."""
    if (
        g.limits.connections and has_address(client) and c.flags & (COUNTED | COUNTED_BY_ADDRESS | CLOSED) == COUNTED
        and limits_connect(&g.limits, client, now_ns(g))
    ):
        c.flags |= COUNTED_BY_ADDRESS
        conn_peer(g.r, c)[0] = client[0]


# ---- the PROXY header ----

cdef size_t header_readable(void *owner, Conn *c, uint8_t *bytes, size_t n) noexcept nogil:
    """Takes the header off; what follows is the next protocol's to read."""
    cdef Gate *g = <Gate *>owner
    cdef ProxyHeader header
    cdef Protocol *protocol
    cdef size_t used = proxy_next(bytes, n, &header)
    if header.kind == PROXY_MORE:
        return 0
    if header.kind == PROXY_FAIL:
        note(g, BAD_PROXY, conn_peer(g.r, c), header.fault)
        conn_close(g.r, c)
        return n
    if header.kind == PROXY_FROM:
        conn_peer(g.r, c)[0] = header.source
    elif header.kind == PROXY_NOWHERE:
        conn_peer(g.r, c).family = <uint8_t>AF_UNSPEC
    g.awaited -= 1
    c.protocol = FIRST_PROTOCOL
    protocol = &g.r.protocols[FIRST_PROTOCOL]
    if let_in(g, c):
        protocol.opened(protocol.owner, c)
    if used == n or conn_ending(c):
        return used
    protocol = &g.r.protocols[c.protocol]
    return used + protocol.readable(protocol.owner, c, bytes + used, n - used)


cdef void header_expired(void *owner, Conn *c) noexcept nogil:
    cdef Gate *g = <Gate *>owner
    note(g, BAD_PROXY, conn_peer(g.r, c), b"none in time")
    conn_close(g.r, c)


cdef void header_ended(void *owner, Conn *c) noexcept nogil:
    conn_finish((<Gate *>owner).r, c, False)


cdef void header_closed(void *owner, Conn *c) noexcept nogil:
    (<Gate *>owner).awaited -= 1
