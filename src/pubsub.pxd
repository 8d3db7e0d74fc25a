"""Delivery of what is published. See pubsub.pyx."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from c1m.buf cimport Block, Slice
from c1m.linux cimport pthread_mutex_t
from c1m.mailbox cimport Command
from c1m.reactor cimport Conn
from c1m.ring cimport Ring
from c1m.topics cimport Topic, Topics
from c1m.wsconn cimport Message, WsServer

cdef struct Hub:
    WsServer *ws
    Topics topics                # changed on the reactor's thread only, and under the lock
    pthread_mutex_t lock         # for other threads that read them
    uint64_t *topics_now         # how many there are, for whom may ask
    Ring *ring                   # to and from the other processes of this server; NULL where it is alone
    int seat                     # this one's there

cdef bint hub_init(Hub *h, WsServer *ws, uint64_t *topics_now) noexcept nogil
cdef void hub_free(Hub *h) noexcept nogil
cdef void hub_share(Hub *h, Ring *ring, int seat) noexcept nogil
cdef bint hub_receive(Hub *h) noexcept nogil
cdef bint hub_subscribe(Hub *h, Conn *c, Slice topic) noexcept nogil
cdef void hub_unsubscribe(Hub *h, Conn *c, Slice topic) noexcept nogil
cdef void hub_leave(Hub *h, Conn *c) noexcept nogil
cdef Topic *hub_topic(const Hub *h, Slice topic) noexcept nogil
cdef void hub_deliver(Hub *h, const Topic *topic, Message *message, uint64_t sender) noexcept nogil
cdef uint32_t hub_count(Hub *h, Slice topic) noexcept nogil

# Commands of other threads; owner is the Hub, topic the topic's name.
cdef int64_t run_publish(void *owner, const Command *command) noexcept nogil     # handle: the sender, 0 for none
cdef int64_t run_subscribe(void *owner, const Command *command) noexcept nogil
cdef int64_t run_unsubscribe(void *owner, const Command *command) noexcept nogil


cdef inline Slice name_of(const Block *topic) noexcept nogil:
    return Slice(&topic.data[0], topic.size)
