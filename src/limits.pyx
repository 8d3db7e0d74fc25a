"""How many connections each address has, and how fast it asks for WebSockets.

Owns: the table of addresses, and when an entry of it dies.
Refuses to know: sockets, clocks, what comes of a refusal. Addresses and times go in, yes or no comes out.

An IPv4 address counts by itself, IPv6 by its first 64 bits (address_prefix): who has one of these has all.

A token bucket holds as many upgrades as it gets in a second. Of it no more is kept than when it is full again
(ITU-T I.371, the virtual scheduling algorithm): an upgrade puts that off by an interval, and where it would then lie
more than a second ahead there is no token left. So a bucket is full, and its entry may go, a second after the last one.

Invariants:
- An entry is there while it has connections or its bucket is not full: it dies with its last connection, or, where the
  bucket outlives that, in the list of the fading, which every call takes two steps along while it adds one at most. So
  beside those that are needed there are about as many that wait there to go.
- The table has room for a number that is fixed. Where there is none left the answer is no.
- Who can't know the key can't choose addresses that share a bucket (SipHash).
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from c1m.address cimport Address, address_prefix
from c1m.buf cimport static_assert
from c1m.linux cimport (
    MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, munmap,
)
from c1m.siphash cimport sip_key_new, siphash13

cdef enum:
    LEAST = 1 << 16              # clients that there is room for, however few connections there can be
    STEPS = 2                    # along the list of the fading, with each call: one entry comes, two may go

cdef extern from *:
    int64_t SECOND "INT64_C(1000000000)"     # in nanoseconds

static_assert(sizeof(Client) == 32)


cdef bint limits_init(Limits *l, uint32_t connections, uint32_t upgrades, uint32_t most) noexcept nogil:
    """Limits for each address: connections at once, and upgrades a second; 0 for none. most: connections that there can
    be in all. l.count is the caller's. False: memory is out. What is not touched of the table costs none."""
    cdef uint32_t buckets = LEAST
    l.connections = connections
    l.interval_ns = SECOND // upgrades if upgrades else 0
    while buckets < 2 * most:
        buckets *= 2
    l.mask = buckets - 1
    l.capacity = buckets
    l.top = NO_CLIENT + 1
    l.clients = <Client *>reserved(l.capacity * sizeof(Client))
    l.buckets = <uint32_t *>reserved(buckets * sizeof(uint32_t))
    return l.clients != NULL and l.buckets != NULL and sip_key_new(&l.key)


cdef void *reserved(size_t n) noexcept nogil:
    cdef void *at = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    return NULL if at == MAP_FAILED else at


cdef void limits_free(Limits *l) noexcept nogil:
    if l.clients != NULL:
        munmap(l.clients, l.capacity * sizeof(Client))
    if l.buckets != NULL:
        munmap(l.buckets, (<size_t>l.mask + 1) * sizeof(uint32_t))


# ---- what is asked ----

cdef bint limits_has_room(const Limits *l, const Address *a) noexcept nogil:
    """Whether limits_connect would count another connection of this address."""
    cdef uint32_t i = find(l, a)
    if i == NO_CLIENT:
        return l.free != NO_CLIENT or l.top < l.capacity
    return l.clients[i].connections < l.connections


cdef bint limits_connect(Limits *l, const Address *a, int64_t now_ns) noexcept nogil:
    """Counts a connection, unless the address has as many as it may."""
    cdef uint32_t i = find_or_add(l, a, now_ns)
    if i == NO_CLIENT or l.clients[i].connections >= l.connections:
        return False
    l.clients[i].connections += 1
    return True


cdef void limits_disconnect(Limits *l, const Address *a, int64_t now_ns) noexcept nogil:
    """A connection that limits_connect has counted is gone."""
    cdef uint32_t i = find(l, a)
    l.clients[i].connections -= 1
    settle(l, i, now_ns)
    fade(l, now_ns)


cdef bint limits_upgrade(Limits *l, const Address *a, int64_t now_ns) noexcept nogil:
    """Takes a token of the address's bucket. False: there is none; before a second is over there is."""
    cdef uint32_t i = find_or_add(l, a, now_ns)
    cdef int64_t full_ns
    cdef bint taken
    if i == NO_CLIENT:
        return False
    full_ns = max(l.clients[i].full_ns, now_ns) + l.interval_ns
    taken = full_ns - now_ns <= SECOND
    if taken:
        l.clients[i].full_ns = full_ns
    settle(l, i, now_ns)
    return taken


cdef void limits_forget(Limits *l, int64_t now_ns) noexcept nogil:
    """Removes every entry that has nothing to say any more."""
    cdef uint32_t _
    for _ in range(<uint32_t>l.count[0]):
        fade(l, now_ns)


# ---- the table ----

cdef inline uint32_t bucket_of(const Limits *l, uint64_t prefix, uint64_t family) noexcept nogil:
    cdef uint64_t[2] whole
    whole[0], whole[1] = prefix, family
    return <uint32_t>siphash13(&l.key, <const unsigned char *>whole, sizeof(whole)) & l.mask


cdef uint32_t find(const Limits *l, const Address *a) noexcept nogil:
    cdef uint64_t prefix = address_prefix(a)
    cdef uint32_t i = l.buckets[bucket_of(l, prefix, a.family)]
    while i != NO_CLIENT and (l.clients[i].prefix != prefix or l.clients[i].family != a.family):
        i = l.clients[i].chain
    return i


cdef uint32_t find_or_add(Limits *l, const Address *a, int64_t now_ns) noexcept nogil:
    """The address's entry; NO_CLIENT: there is none, nor room for one."""
    cdef uint64_t prefix = address_prefix(a)
    cdef uint32_t i, bucket
    fade(l, now_ns)
    i = find(l, a)
    if i != NO_CLIENT:
        return i
    i = l.free
    if i != NO_CLIENT:
        l.free = l.clients[i].chain
    elif l.top < l.capacity:
        i = l.top
        l.top += 1
    else:
        return NO_CLIENT
    bucket = bucket_of(l, prefix, a.family)
    l.clients[i] = Client(prefix, 0, 0, l.buckets[bucket], NO_CLIENT, a.family, False)
    l.buckets[bucket] = i
    l.count[0] += 1
    return i


cdef void remove(Limits *l, uint32_t i) noexcept nogil:
    cdef Client *c = &l.clients[i]
    cdef uint32_t *link = &l.buckets[bucket_of(l, c.prefix, c.family)]
    while link[0] != i:
        link = &l.clients[link[0]].chain
    link[0] = c.chain
    c.family = 0
    c.chain = l.free
    l.free = i
    l.count[0] -= 1


cdef void settle(Limits *l, uint32_t i, int64_t now_ns) noexcept nogil:
    """An entry without connections goes, or fades."""
    cdef Client *c = &l.clients[i]
    if c.connections or c.is_fading:
        return
    if c.full_ns <= now_ns:
        remove(l, i)
        return
    fading_add(l, i)


cdef inline void fading_add(Limits *l, uint32_t i) noexcept nogil:
    l.clients[i].is_fading = True
    l.clients[i].fading = NO_CLIENT
    if l.fading == NO_CLIENT:
        l.fading = i
    else:
        l.clients[l.fading_last].fading = i
    l.fading_last = i


cdef void fade(Limits *l, int64_t now_ns) noexcept nogil:
    """Takes some steps along the fading: removes whose bucket is full, puts behind the others whose is not, and leaves
    alone who has connections again."""
    cdef uint32_t i
    cdef int _
    for _ in range(STEPS):
        i = l.fading
        if i == NO_CLIENT:
            return
        l.fading = l.clients[i].fading
        l.clients[i].is_fading = False
        settle(l, i, now_ns)
