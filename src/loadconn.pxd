"""The connections of a load: what they send, what they wait for, what is counted of it. See loadconn.pyx."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from c1m.buf cimport Block
from c1m.deflate cimport Inflater
from c1m.http cimport HttpResponse
from c1m.linux cimport sockaddr_storage
from c1m.reactor cimport Conn, Reactor
from c1m.tally cimport DRAINING, RUNNING, Control, Fault, Tally

cdef enum:
    HANDSHAKES = 256             # connections being opened at a time: fewer than any server's backlog
    MAX_STRIKES = 3              # failures in a row after which a connection is not opened again
    MEMO = 1024                  # bytes of a response's head that is remembered
    COPIED = 4096                # bytes of output up to which it is copied into the write buffer
    NO_LIMIT = 0xffffffff

cdef enum ClientPhase:
    IDLE                         # it has no connection now
    QUEUED                       # it waits to be connected
    DIALING                      # it is being connected, or shakes hands
    OPEN
    GONE                         # for good

cdef struct Tape:                # messages as they go over the wire, end to end
    Block *block
    size_t *at                   # where in the block each begins, and, one more, where the last ends
    uint32_t count
    uint32_t head                # bytes of each before its payload

cdef struct Target:              # where connections go
    sockaddr_storage address
    unsigned int address_n
    bint loopback                # 127.0.0.0/8: source addresses can be chosen
    Block *hello                 # the opening handshake; NULL where HTTP is spoken
    Tape *tape                   # what is sent there

cdef struct Client:              # one line of the cache and a half
    int32_t fd                   # -1: it has none
    uint8_t phase                # ClientPhase
    uint8_t fault                # Fault of this connection
    uint8_t strikes              # connections that failed since the last answer
    bint closing                 # this connection is to end, by our will or the server's announcement
    bint publisher               # it sends what others receive, and counts nothing that it is sent
    bint settled                 # --idle: its echo has come
    uint16_t target
    uint32_t next                # the tape's message that it sends next
    uint32_t flight              # messages sent and not yet answered
    uint32_t owed                # due by the schedule, and not sent yet
    uint64_t sent, answered      # messages
    size_t compared              # bytes of the echo's payload that have come
    int64_t dialed_ns            # when its connection was begun
    Inflater *inflater           # its own; NULL: none, or the one that all share
    bint takeover                # the server's compressed messages build on those before
    Block *message               # a compressed one so far, inflated; NULL between messages

cdef struct Memo:                # the last response's head: the same bytes mean the same
    uint8_t[MEMO] head
    size_t n                     # 0: nothing is remembered
    size_t total                 # bytes of the whole response
    uint16_t status

cdef struct Load:
    Reactor *r
    Control *control
    Tally *tally
    Target *targets
    Client *clients
    uint32_t targets_n
    uint32_t count               # clients, without a publisher
    uint32_t first               # the number of the first among those of all processes
    uint32_t process, processes  # which process this is, of how many
    uint32_t sources             # loopback addresses that connections come from; 0: as the kernel chooses
    uint32_t dialing, open, gone    # clients in these phases
    uint32_t settled             # that have settled
    uint32_t *queue              # a ring of those that are QUEUED
    uint32_t queue_head, queued
    uint8_t protocol             # the reactor's number
    uint8_t timeout              # timeout class: to connect, and to answer
    bint websocket
    bint scheduled               # open loop
    bint fresh                   # a connection for each message
    bint idle                    # one message for each connection
    bint subscribe               # only receives
    bint verify                  # compares echoes
    bint compress                # permessage-deflate was offered
    Inflater *inflater           # of those that have none of their own
    bint ended                   # what closes now is no fault
    uint32_t depth               # messages in flight on a connection at most
    uint8_t opcode               # of messages: WS_TEXT or WS_BINARY
    uint32_t mask                # the masking key of frames that are on no tape
    uint32_t expect              # HttpExpect of each request
    int64_t left                 # messages that may still be sent; below 0: any number
    uint64_t flying, owed        # messages in flight, and owed, on all connections
    double interval_ns           # between messages of all processes together
    uint64_t due, due_most       # messages of this process that were due so far, and will be at most
    int64_t begun_ns, until_ns, patience_ns
    double ramp_ns               # over which connections are opened
    int64_t *times               # when each message in flight was sent: times_mask + 1 for each client
    uint32_t times_mask
    Tape back                    # what echoes look like; with compression, their payloads
    const uint8_t *key           # Sec-WebSocket-Key of every handshake
    uint32_t message_size        # payload of what is published
    uint64_t heard               # deliveries counted when some were last seen to have come,
    int64_t heard_ns             # which was then
    uint64_t published           # messages so far
    int64_t published_ns         # when the next one is due; 0: none is
    double publish_interval_ns   # between two; 0: nothing is published
    Memo memo
    HttpResponse response

cdef void client_queue(Load *load, Client *cl) noexcept nogil
cdef void clients_dial(Load *load, uint32_t allowed) noexcept nogil
cdef void client_opened(Load *load, Conn *c, Client *cl) noexcept nogil
cdef void client_failed(void *owner, Conn *c, int fault) noexcept nogil
cdef void client_expired(void *owner, Conn *c) noexcept nogil
cdef void client_closed(Load *load, Conn *c, Fault fault) noexcept nogil
cdef void client_fail(Load *load, Conn *c, Fault fault) noexcept nogil
cdef void client_broken(Load *load, Conn *c, const char *reason) noexcept nogil
cdef void client_ask(Load *load, Conn *c, Client *cl, uint32_t n, int64_t now) noexcept nogil
cdef void client_answered(Load *load, Conn *c, Client *cl, uint32_t n, int64_t now) noexcept nogil
cdef void client_go(Load *load, Client *cl, int64_t now) noexcept nogil
cdef void client_due(Load *load, Client *cl, int64_t now) noexcept nogil
cdef int64_t due_at(const Load *load, uint64_t k) noexcept nogil
cdef void nothing(void *owner, Conn *c) noexcept nogil


cdef inline uint32_t number_of(const Load *load, const Client *cl) noexcept nogil:
    return <uint32_t>(cl - load.clients)

cdef inline Conn *conn_at(const Load *load, const Client *cl) noexcept nogil:
    return &load.r.table[cl.fd]

cdef inline Client *client_of(const Conn *c) noexcept nogil:
    return <Client *>c.session

cdef inline bint counting(const Load *load) noexcept nogil:
    """Whether what comes is part of the load."""
    return load.tally.phase == RUNNING or load.tally.phase == DRAINING
