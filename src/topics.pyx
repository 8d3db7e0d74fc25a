"""Topics: which subscriber is subscribed to what.

Owns: the members of each topic and the topics of each subscriber, two arrays that point at each other by index, so
that leaving a topic takes the same time however many members it has. Subscribing and unsubscribing scan the
subscriber's own subscriptions, of which 8 lie in a cache line. A subscription costs 16 bytes.
Refuses to know: what a subscriber is (a number), what is published, how it is sent.

Clients may choose the names, so they are hashed with a random key: nobody can make many share a bucket.

Invariants: by_id[s.topic].members[s.place] names the subscriber that holds s, and its slot is where s lies. A topic
without members does not exist.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memset

from c1m.buf cimport Slice, static_assert
from c1m.siphash cimport sip_key_new, siphash13

cdef enum:
    MIN_BUCKETS = 64             # a power of two


cdef bint topics_init(Topics *t, subscriber_t subscriber_of, void *context) noexcept nogil:
    """No topics yet. False: memory is out, or the kernel gives no random bytes."""
    memset(t, 0, sizeof(Topics))
    t.bucket_count = MIN_BUCKETS
    t.buckets = <Topic **>calloc(t.bucket_count, sizeof(Topic *))
    t.subscriber_of = subscriber_of
    t.context = context
    return t.buckets != NULL and sip_key_new(&t.key)


cdef void topics_free(Topics *t) noexcept nogil:
    """Frees all topics; the subscribers' lists are freed by topics_leave."""
    cdef uint32_t i
    for i in range(t.ids):
        if t.by_id[i] != NULL:
            free(t.by_id[i].members)
            free(t.by_id[i])
    free(t.by_id)
    free(t.free_ids)
    free(t.buckets)
    memset(t, 0, sizeof(Topics))


cdef Topic *topics_find(const Topics *t, Slice name) noexcept nogil:
    """The topic of that name, NULL if it has no members."""
    cdef uint64_t hash = siphash13(&t.key, name.at, name.n)
    cdef Topic *topic = t.buckets[hash & (t.bucket_count - 1)]
    while topic != NULL and (topic.hash != hash or topic.name_n != name.n or memcmp(topic.name, name.at, name.n) != 0):
        topic = topic.chain
    return topic


cdef bint topics_subscribe(Topics *t, uint32_t subscriber, Slice name) noexcept nogil:
    """Subscribes once; a second time changes nothing. False: memory is out, and nothing has changed."""
    cdef Subscriber *s = t.subscriber_of(t.context, subscriber)
    cdef Topic *topic = topics_find(t, name)
    if topic != NULL and subscription_to(t, s, topic) < s.count:
        return True
    if topic == NULL:
        topic = topic_new(t, name)
        if topic == NULL:
            return False
    if not subscriber_grow(s) or not topic_grow(topic):
        if topic.count == 0:
            topic_free(t, topic)
        return False
    topic.members[topic.count] = Member(subscriber, s.count)
    subscription_at(s, s.count)[0] = Subscription(topic.id, topic.count)
    topic.count += 1
    s.count += 1
    return True


cdef void topics_unsubscribe(Topics *t, uint32_t subscriber, Slice name) noexcept nogil:
    """Ends a subscription, if there is that one; a topic's last one ends the topic."""
    cdef Subscriber *s = t.subscriber_of(t.context, subscriber)
    cdef Topic *topic = topics_find(t, name)
    cdef uint32_t slot
    if topic == NULL:
        return
    slot = subscription_to(t, s, topic)
    if slot < s.count:
        subscription_drop(t, s, slot)


cdef void topics_leave(Topics *t, uint32_t subscriber) noexcept nogil:
    """Ends all of a subscriber's subscriptions and frees what is allocated for them."""
    cdef Subscriber *s = t.subscriber_of(t.context, subscriber)
    while s.count:
        subscription_drop(t, s, s.count - 1)
    free(s.more)
    s.more = NULL
    s.capacity = 0


cdef uint32_t subscription_to(const Topics *t, Subscriber *s, const Topic *topic) noexcept nogil:
    """Which of the subscriber's subscriptions is to that topic; s.count if none is."""
    cdef uint32_t slot = 0
    while slot < s.count and subscription_at(s, slot).topic != topic.id:
        slot += 1
    return slot


cdef void subscription_drop(Topics *t, Subscriber *s, uint32_t slot) noexcept nogil:
    """The last of each array takes the place of what is dropped."""
    cdef Subscription *dropped = subscription_at(s, slot)
    cdef Topic *topic = t.by_id[dropped.topic]
    cdef uint32_t place = dropped.place
    cdef Member moved
    topic.count -= 1
    if place != topic.count:
        moved = topic.members[topic.count]
        topic.members[place] = moved
        subscription_at(t.subscriber_of(t.context, moved.subscriber), moved.slot).place = place
    s.count -= 1
    if slot != s.count:
        dropped[0] = subscription_at(s, s.count)[0]
        t.by_id[dropped.topic].members[dropped.place].slot = slot
    if topic.count == 0:
        topic_free(t, topic)


cdef bint subscriber_grow(Subscriber *s) noexcept nogil:
    cdef Subscription *grown
    cdef uint32_t capacity = s.count + 2 + s.count // 4
    if s.count <= s.capacity:
        return True
    grown = <Subscription *>realloc(s.more, capacity * sizeof(Subscription))
    if grown != NULL:
        s.more = grown
        s.capacity = capacity
    return grown != NULL


cdef bint topic_grow(Topic *topic) noexcept nogil:
    cdef Member *grown
    cdef uint32_t capacity = topic.count + 2 + topic.count // 4
    if topic.count < topic.capacity:
        return True
    grown = <Member *>realloc(topic.members, capacity * sizeof(Member))
    if grown != NULL:
        topic.members = grown
        topic.capacity = capacity
    return grown != NULL


cdef uint32_t topics_serial(Topics *t) noexcept nogil:
    """A new serial number, of a topic that is kept here or elsewhere."""
    t.made += 1
    return t.made - 1 & 0x7fffffff


cdef Topic *topic_new(Topics *t, Slice name) noexcept nogil:
    """A topic without members, to be given one or freed. NULL: memory is out."""
    cdef Topic *topic
    cdef uint32_t id
    if t.count == t.id_capacity and not ids_grow(t):
        return NULL
    if t.count >= t.bucket_count:
        buckets_grow(t)
    topic = <Topic *>calloc(1, sizeof(Topic) + name.n)
    if topic == NULL:
        return NULL
    if t.count == t.ids:
        id = t.ids
        t.ids += 1
    else:
        id = t.free_ids[t.ids - t.count - 1]
    topic.id = id
    topic.serial = topics_serial(t)
    topic.hash = siphash13(&t.key, name.at, name.n)
    topic.name_n = <uint32_t>name.n
    memcpy(topic.name, name.at, name.n)
    topic.chain = t.buckets[topic.hash & (t.bucket_count - 1)]
    t.buckets[topic.hash & (t.bucket_count - 1)] = topic
    t.by_id[id] = topic
    t.count += 1
    return topic


cdef void topic_free(Topics *t, Topic *topic) noexcept nogil:
    cdef Topic **link = &t.buckets[topic.hash & (t.bucket_count - 1)]
    while link[0] != topic:
        link = &link[0].chain
    link[0] = topic.chain
    t.by_id[topic.id] = NULL
    t.count -= 1
    t.free_ids[t.ids - t.count - 1] = topic.id
    free(topic.members)
    free(topic)


cdef bint ids_grow(Topics *t) noexcept nogil:
    cdef uint32_t capacity = 2 * t.id_capacity + 64
    cdef Topic **grown = <Topic **>realloc(t.by_id, capacity * sizeof(Topic *))
    cdef uint32_t *spare
    if grown == NULL:
        return False
    t.by_id = grown
    spare = <uint32_t *>realloc(t.free_ids, capacity * sizeof(uint32_t))
    if spare == NULL:
        return False
    t.free_ids = spare
    t.id_capacity = capacity
    return True


cdef void buckets_grow(Topics *t) noexcept nogil:
    """Doubles the hash table; if memory is out, chains grow instead."""
    cdef Topic **grown = <Topic **>calloc(2 * t.bucket_count, sizeof(Topic *))
    cdef Topic **bucket
    cdef uint32_t i
    if grown == NULL:
        return
    t.bucket_count *= 2
    free(t.buckets)
    t.buckets = grown
    for i in range(t.ids):
        if t.by_id[i] != NULL:
            bucket = &grown[t.by_id[i].hash & (t.bucket_count - 1)]
            t.by_id[i].chain = bucket[0]
            bucket[0] = t.by_id[i]


static_assert(sizeof(Member) + sizeof(Subscription) == 16)
