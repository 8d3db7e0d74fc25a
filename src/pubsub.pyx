"""Publish and subscribe: which connections a message goes to.

Owns: the topics of a server's WebSockets, delivery to their subscribers, also of what other processes publish.
Refuses to know: what is published, how a slow reader is dealt with, Python.

Topics change on the reactor's thread only, so that thread reads them as it likes; it holds the lock while it changes
them, and other threads hold it while they read. A subscriber's number is its fd.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from c1m.buf cimport Slice, block_unref
from c1m.linux cimport (
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
)
from c1m.mailbox cimport Command
from c1m.reactor cimport Conn, conn_close, conn_of, fd_of, handle_of
from c1m.ring cimport Received, Ring, ring_next, ring_open, ring_rest, ring_wants
from c1m.siphash cimport siphash13
from c1m.topics cimport (
    Subscriber, Topic, subscription_at, topics_find, topics_free, topics_init, topics_leave, topics_subscribe,
    topics_unsubscribe,
)
from c1m.wsconn cimport TAG_TOPIC, Message, WsServer, message_begin, message_end, message_send, wsconn_of

cdef extern from *:
    void prefetch "__builtin_prefetch"(const void *p) noexcept nogil

cdef enum:
    PREFETCH_AHEAD = 4           # subscribers
    MAX_RECEIVED = 4096          # messages, and deliveries of them, before other connections have their turn


cdef Subscriber *subscriber_of(void *context, uint32_t number) noexcept nogil:
    return &wsconn_of(&(<Hub *>context).ws.r.table[number]).subscriber


cdef bint hub_init(Hub *h, WsServer *ws, uint64_t *topics_now) noexcept nogil:
    """No topics yet. False: memory is out."""
    h.ws, h.topics_now = ws, topics_now
    pthread_mutex_init(&h.lock, NULL)
    return topics_init(&h.topics, subscriber_of, h)


cdef void hub_free(Hub *h) noexcept nogil:
    topics_free(&h.topics)
    pthread_mutex_destroy(&h.lock)


# ---- with other processes ----

cdef void hub_share(Hub *h, Ring *ring, int seat) noexcept nogil:
    """From now on what others publish comes here, too. There are no topics yet."""
    h.topics.key = ring.head.key         # so that a topic's hash is what the ring knows it by
    h.ring, h.seat = ring, seat
    ring_open(ring, seat)


cdef inline uint32_t subscribed(const Hub *h, Slice topic) noexcept nogil:
    """How many are subscribed to a topic, if others want to know."""
    cdef Topic *found = NULL if h.ring == NULL else topics_find(&h.topics, topic)
    return 0 if found == NULL else found.count


cdef inline void tell(Hub *h, Slice topic, uint32_t before) noexcept nogil:
    """Tells other processes how many are subscribed to a topic, where that has changed."""
    cdef uint32_t now = subscribed(h, topic)
    if now != before:
        ring_wants(h.ring, h.seat, siphash13(&h.topics.key, topic.at, topic.n), before, now)


cdef void tell_leaving(Hub *h, Subscriber *s) noexcept nogil:
    """Tells them that a subscriber is about to leave all of its topics."""
    cdef Topic *topic
    cdef uint32_t slot
    for slot in range(s.count):
        topic = h.topics.by_id[subscription_at(s, slot).topic]
        ring_wants(h.ring, h.seat, topic.hash, topic.count, topic.count - 1)


cdef bint hub_receive(Hub *h) noexcept nogil:
    """Delivers what other processes have published, for a while. Returns True when nothing is left."""
    cdef int64_t budget = MAX_RECEIVED
    cdef Received received
    cdef Message message
    cdef Topic *topic
    while budget > 0:
        if not ring_next(h.ring, h.seat, &received):
            return ring_rest(h.ring, h.seat)
        topic = topics_find(&h.topics, received.topic)
        if topic != NULL:
            message_begin(&message, <uint8_t>received.number, received.block)
            hub_deliver(h, topic, &message, 0)
            message_end(&message)
            budget -= topic.count
        block_unref(received.block)
        budget -= 1
    return False


# ---- subscriptions ----

cdef bint hub_subscribe(Hub *h, Conn *c, Slice topic) noexcept nogil:
    """Subscribes once; a second time changes nothing. False: memory is out, and nothing has changed."""
    cdef uint32_t before = subscribed(h, topic)
    cdef bint ok
    pthread_mutex_lock(&h.lock)
    ok = topics_subscribe(&h.topics, fd_of(h.ws.r, c), topic)
    h.topics_now[0] = h.topics.count
    pthread_mutex_unlock(&h.lock)
    tell(h, topic, before)
    return ok


cdef void hub_unsubscribe(Hub *h, Conn *c, Slice topic) noexcept nogil:
    cdef uint32_t before = subscribed(h, topic)
    pthread_mutex_lock(&h.lock)
    topics_unsubscribe(&h.topics, fd_of(h.ws.r, c), topic)
    h.topics_now[0] = h.topics.count
    pthread_mutex_unlock(&h.lock)
    tell(h, topic, before)


cdef void hub_leave(Hub *h, Conn *c) noexcept nogil:
    """Ends all subscriptions of a connection that is being closed."""
    if wsconn_of(c).subscriber.capacity == 0 and wsconn_of(c).subscriber.count == 0:
        return
    if h.ring != NULL:
        tell_leaving(h, &wsconn_of(c).subscriber)
    pthread_mutex_lock(&h.lock)
    topics_leave(&h.topics, fd_of(h.ws.r, c))
    h.topics_now[0] = h.topics.count
    pthread_mutex_unlock(&h.lock)


cdef Topic *hub_topic(const Hub *h, Slice topic) noexcept nogil:
    """The topic of that name, NULL if it has no subscribers; on the reactor's thread."""
    return topics_find(&h.topics, topic)


cdef void hub_deliver(Hub *h, const Topic *topic, Message *message, uint64_t sender) noexcept nogil:
    """Sends a message to all subscribers but the sender, a handle or 0."""
    cdef Conn *table = h.ws.r.table
    cdef uint32_t i
    cdef Conn *c
    for i in range(topic.count):
        if i + PREFETCH_AHEAD < topic.count:
            prefetch(&table[topic.members[i + PREFETCH_AHEAD].subscriber])
        c = &table[topic.members[i].subscriber]
        if not sender or handle_of(h.ws.r, c) != sender:
            message_send(h.ws, c, message, TAG_TOPIC + topic.serial)


cdef uint32_t hub_count(Hub *h, Slice topic) noexcept nogil:
    """How many are subscribed to a topic. Any thread may ask."""
    cdef Topic *found
    cdef uint32_t count
    pthread_mutex_lock(&h.lock)
    found = topics_find(&h.topics, topic)
    count = 0 if found == NULL else found.count
    pthread_mutex_unlock(&h.lock)
    return count


# ---- commands of other threads ----

cdef int64_t run_publish(void *owner, const Command *command) noexcept nogil:
    cdef Topic *topic = hub_topic(<Hub *>owner, name_of(command.topic))
    cdef Message message
    if topic == NULL:
        return 0
    message_begin(&message, <uint8_t>command.number, command.block)
    hub_deliver(<Hub *>owner, topic, &message, command.handle)
    message_end(&message)
    return topic.count


cdef int64_t run_subscribe(void *owner, const Command *command) noexcept nogil:
    cdef Hub *h = <Hub *>owner
    cdef Conn *c = conn_of(h.ws.r, command.handle)
    if c != NULL and not hub_subscribe(h, c, name_of(command.topic)):
        conn_close(h.ws.r, c)    # memory is out, and the caller has gone on: better closed than deaf
    return 0


cdef int64_t run_unsubscribe(void *owner, const Command *command) noexcept nogil:
    cdef Hub *h = <Hub *>owner
    cdef Conn *c = conn_of(h.ws.r, command.handle)
    if c != NULL:
        hub_unsubscribe(h, c, name_of(command.topic))
    return 0
