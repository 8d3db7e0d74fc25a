"""What each client may have at once, and how often it may ask. See limits.pyx."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from c1m.address cimport Address
from c1m.siphash cimport SipKey

cdef enum:
    NO_CLIENT = 0                # the index of none

cdef struct Client:              # 32 bytes: an address that has connections, or whose bucket is not full
    uint64_t prefix              # address_prefix
    int64_t full_ns              # when its bucket is full again
    uint32_t connections
    uint32_t chain               # the next of its hash; of a free one, the next that is free
    uint32_t fading              # the next in the list of those whose bucket alone keeps them
    uint8_t family
    uint8_t is_fading            # it is in that list

cdef struct Limits:              # zeroes: no limits, no table
    uint32_t connections         # for each address, 0 for any number
    int64_t interval_ns          # between two upgrades of one address, in the long run; 0 for no limit
    SipKey key
    Client *clients              # of which clients[NO_CLIENT] is not used
    uint32_t *buckets            # the first client of each hash
    uint32_t mask                # buckets less 1
    uint32_t capacity            # clients, NO_CLIENT included
    uint32_t top                 # the first that was never used
    uint32_t free                # the first of those that were
    uint32_t fading, fading_last
    uint64_t *count              # clients now; others read it

cdef bint limits_init(Limits *l, uint32_t connections, uint32_t upgrades, uint32_t most) noexcept nogil
cdef void limits_free(Limits *l) noexcept nogil
cdef bint limits_has_room(const Limits *l, const Address *a) noexcept nogil
cdef bint limits_connect(Limits *l, const Address *a, int64_t now_ns) noexcept nogil
cdef void limits_disconnect(Limits *l, const Address *a, int64_t now_ns) noexcept nogil
cdef bint limits_upgrade(Limits *l, const Address *a, int64_t now_ns) noexcept nogil
cdef void limits_forget(Limits *l, int64_t now_ns) noexcept nogil
