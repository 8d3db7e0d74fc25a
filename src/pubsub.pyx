"""Publish and subscribe: which connections a message goes to.

Owns: the topics of a server's WebSockets, and delivery to their subscribers.
Refuses to know: what is published, how a slow reader is dealt with, Python.

Topics change on the reactor's thread only, so that thread reads them as it likes; it holds the lock while it changes
them, and other threads hold it while they read. A subscriber's number is its fd.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from c1m.buf cimport Slice
from c1m.linux cimport (
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
)
from c1m.mailbox cimport Command
from c1m.reactor cimport Conn, conn_close, conn_of, fd_of, handle_of
from c1m.topics cimport (
    Subscriber, Topic, topics_find, topics_free, topics_init, topics_leave, topics_subscribe, topics_unsubscribe,
)
from c1m.wsconn cimport TAG_TOPIC, Message, WsServer, message_begin, message_end, message_send, wsconn_of

cdef extern from *:
    void prefetch "__builtin_prefetch"(const void *p) noexcept nogil

cdef enum:
    PREFETCH_AHEAD = 4           # subscribers


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


cdef bint hub_subscribe(Hub *h, Conn *c, Slice topic) noexcept nogil:
    """Subscribes once; a second time changes nothing. False: memory is out, and nothing has changed."""
    cdef bint ok
    pthread_mutex_lock(&h.lock)
    ok = topics_subscribe(&h.topics, fd_of(h.ws.r, c), topic)
    h.topics_now[0] = h.topics.count
    pthread_mutex_unlock(&h.lock)
    return ok


cdef void hub_unsubscribe(Hub *h, Conn *c, Slice topic) noexcept nogil:
    pthread_mutex_lock(&h.lock)
    topics_unsubscribe(&h.topics, fd_of(h.ws.r, c), topic)
    h.topics_now[0] = h.topics.count
    pthread_mutex_unlock(&h.lock)


cdef void hub_leave(Hub *h, Conn *c) noexcept nogil:
    """Ends all subscriptions of a connection that is being closed."""
    if wsconn_of(c).subscriber.capacity == 0 and wsconn_of(c).subscriber.count == 0:
        return
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
