"""Topics as tests see them."""

from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free

from c1m.buf cimport Slice
from c1m.topics cimport (
    Subscriber, Subscription, Topic, Topics, subscription_at, topics_find, topics_free, topics_init, topics_leave,
    topics_subscribe, topics_unsubscribe,
)


cdef Subscriber *window_subscriber(void *context, uint32_t subscriber) noexcept nogil:
    return &(<Subscriber *>context)[subscriber]


cdef class Board:
    """Topics as Python sees them, for subscribers 0 to count - 1."""

    cdef Topics t
    cdef Subscriber *subscribers
    cdef uint32_t count

    def __cinit__(self, uint32_t count):
        self.count = count
        self.subscribers = <Subscriber *>calloc(max(count, 1), sizeof(Subscriber))
        if self.subscribers == NULL or not topics_init(&self.t, window_subscriber, self.subscribers):
            raise MemoryError

    def __dealloc__(self):
        cdef uint32_t who
        for who in range(self.count):
            topics_leave(&self.t, who)
        topics_free(&self.t)
        free(self.subscribers)

    def subscribe(self, uint32_t who, bytes name):
        if not topics_subscribe(&self.t, who, Slice(name, len(name))):
            raise MemoryError

    def unsubscribe(self, uint32_t who, bytes name):
        topics_unsubscribe(&self.t, who, Slice(name, len(name)))

    def leave(self, uint32_t subscriber):
        topics_leave(&self.t, subscriber)

    def members(self, bytes name):
        """The numbers of a topic's subscribers, sorted; each is checked to point back."""
        cdef Topic *topic = topics_find(&self.t, Slice(name, len(name)))
        cdef Subscription *s
        cdef uint32_t i
        if topic == NULL:
            return []
        for i in range(topic.count):
            s = subscription_at(&self.subscribers[topic.members[i].subscriber], topic.members[i].slot)
            assert s.topic == topic.id and s.place == i
        return sorted(topic.members[i].subscriber for i in range(topic.count))

    def topic_count(self):
        return self.t.count

    def chain_lengths(self):
        """How many topics each bucket has."""
        cdef Topic *topic
        cdef uint32_t i, length
        lengths = []
        for i in range(self.t.bucket_count):
            length = 0
            topic = self.t.buckets[i]
            while topic != NULL:
                length += 1
                topic = topic.chain
            lengths.append(length)
        return lengths
