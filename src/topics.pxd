"""Publish and subscribe. See topics.pyx."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from c1m.buf cimport Slice

cdef struct Member:              # 8 bytes: a subscription as the topic keeps it
    uint32_t who                 # the subscriber's number
    uint32_t slot                # which of the subscriber's subscriptions this is

cdef struct Subscription:        # 8 bytes: a subscription as the subscriber keeps it
    uint32_t topic
    uint32_t place               # which of the topic's members this is

cdef struct Subscriber:          # all of one subscriber's subscriptions
    Subscription first           # most have one and no more
    Subscription *more
    uint32_t count, room         # room: of `more`

cdef struct Topic:
    Topic *chain                 # next in its bucket
    uint64_t hash
    uint32_t id                  # may have been another's before
    uint32_t serial              # 31 bits, its own: which of all the topics there ever were
    Member *members
    uint32_t count, room
    uint32_t name_n
    uint8_t[0] name

ctypedef Subscriber *(*subscriber_t)(void *context, uint32_t who) noexcept nogil

cdef struct Topics:
    Topic **buckets
    uint32_t bucket_count        # a power of two
    Topic **by_id                # NULL where the id is free
    uint32_t *free_ids           # the ids - count of them that are
    uint32_t ids, id_room
    uint64_t seed                # of the hash
    uint32_t count
    uint32_t made                # topics there ever were
    subscriber_t subscriber_of   # the subscriptions of a number
    void *context

cdef bint topics_init(Topics *t, subscriber_t subscriber_of, void *context) noexcept nogil
cdef void topics_free(Topics *t) noexcept nogil
cdef Topic *topics_find(const Topics *t, Slice name) noexcept nogil
cdef bint topics_subscribe(Topics *t, uint32_t who, Slice name) noexcept nogil
cdef void topics_unsubscribe(Topics *t, uint32_t who, Slice name) noexcept nogil
cdef void topics_leave(Topics *t, uint32_t who) noexcept nogil


cdef inline Subscription *subscription_at(Subscriber *s, uint32_t slot) noexcept nogil:
    return &s.more[slot - 1] if slot else &s.first
