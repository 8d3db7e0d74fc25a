"""Publish and subscribe. See topics.pyx."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from c1m.buf cimport Slice
from c1m.siphash cimport SipKey

cdef struct Member:              # 8 bytes: a subscription as the topic keeps it
    uint32_t subscriber          # its number
    uint32_t slot                # which of the subscriber's subscriptions this is

cdef struct Subscription:        # 8 bytes: a subscription as the subscriber keeps it
    uint32_t topic
    uint32_t place               # which of the topic's members this is

cdef struct Subscriber:          # all of one subscriber's subscriptions
    Subscription first           # most subscribers have just one
    Subscription *more           # the others
    uint32_t count, capacity     # capacity: of `more`

cdef struct Topic:
    Topic *chain                 # next in its bucket
    uint64_t hash
    uint32_t id                  # index in by_id; reused when the topic is freed
    uint32_t serial              # 31 bits: its place among all topics there ever were
    Member *members
    uint32_t count, capacity     # of members
    uint32_t name_n
    uint8_t[0] name

ctypedef Subscriber *(*subscriber_t)(void *context, uint32_t subscriber) noexcept nogil

cdef struct Topics:
    Topic **buckets
    uint32_t bucket_count        # a power of two
    Topic **by_id                # NULL where the id is free
    uint32_t *free_ids           # a stack of the free ids, `ids - count` of them
    uint32_t ids, id_capacity
    SipKey key                   # of the hash
    uint32_t count               # topics there are
    uint32_t made                # topics there ever were
    subscriber_t subscriber_of   # from a subscriber's number to its subscriptions
    void *context                # its first argument

cdef bint topics_init(Topics *t, subscriber_t subscriber_of, void *context) noexcept nogil
cdef void topics_free(Topics *t) noexcept nogil
cdef Topic *topics_find(const Topics *t, Slice name) noexcept nogil
cdef bint topics_subscribe(Topics *t, uint32_t subscriber, Slice name) noexcept nogil
cdef void topics_unsubscribe(Topics *t, uint32_t subscriber, Slice name) noexcept nogil
cdef uint32_t topics_serial(Topics *t) noexcept nogil
cdef void topics_leave(Topics *t, uint32_t subscriber) noexcept nogil


cdef inline Subscription *subscription_at(Subscriber *s, uint32_t slot) noexcept nogil:
    return &s.more[slot - 1] if slot else &s.first
