"""The network layer. See reactor.pyx."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from c1m.buf cimport Block
from c1m.linux cimport epoll_event

cdef enum ConnKind:              # what an entry of the table is
    FREE
    VISITOR
    LISTENER
    WAKER                        # the eventfd by which other threads get our attention
    SIGNALS                      # the socket that Python's signal handler writes to

cdef enum ConnFlag:
    CLOSED = 0x01                # to be freed at the end of this turn; nothing more happens to it
    FINISHING = 0x02             # closes when all output has left; reads no more
    LINGER = 0x04                # and then reads the peer's rest away, lest a reset overtake our last answer
    LINGERING = 0x08             # doing so
    PEER_DONE = 0x10             # the peer has sent all it will
    PAUSED = 0x20                # not read until most of its output has drained
    WATCHING_OUT = 0x40          # EPOLLOUT is in its set
    AGAIN = 0x80                 # on the list for the next turn
    ENDING = 0x100               # the end of its stream has had its edge: read until it comes
    HELD = 0x200                 # not read until the application lets go
    RESUMED = 0x400              # bytes kept aside are to be looked at although none came
    DIRTY = 0x800                # on the list of those whose queue is sent at the end of this turn
    WANTS_DRAIN = 0x1000         # on.drained is wanted, though output may never have stalled
    STALLED = 0x2000             # the kernel would not take all of its output: its deadline is the stall timer's
    UNGATED = 0x4000             # read however much output waits: the application bounds that itself
    DUPLEX = 0x8000              # input goes on while output waits: what the application left of it is not whole yet

cdef struct Piece:               # some bytes of a block, waiting to be sent
    Piece *next
    Block *block
    int64_t at                   # where they begin, in block.data or in block.fd's file
    size_t left
    uint32_t tag                 # the application's: what kind of output it is; 0 is never dropped
    bint begun                   # some of it has left: the rest must follow

cdef struct Queue:               # output the kernel would not take yet, first to last
    Piece *first
    Piece *last
    size_t bytes
    uint32_t pieces
    int unacked                  # bytes that the kernel held besides, when the stall timer was last set
    Queue *next                  # among those that are in nobody's use

cdef struct Conn:                # 64 bytes, one cache line; its index in the table is its fd
    uint8_t kind                 # ConnKind
    uint8_t state                # the application's: what this visitor speaks
    uint16_t flags               # ConnFlag
    uint32_t generation          # lives of this fd before this one; an event of another life is not ours
    int32_t prev, next           # neighbours in the list of its deadline, by fd
    uint32_t tick                # when the deadline falls
    uint8_t timer                # which list that is, 0 for none
    uint8_t extra                # the application's
    uint16_t route               # the application's: which of its routes this visitor is on
    uint64_t[2] engine           # the application's: where its parser stands
    Block *input                 # bytes received that begin something not yet whole; NULL while idle
    Queue *output                # NULL while idle
    void *cold                   # the application's: all that an idle visitor does not need

cdef struct Peer:                # who a visitor is: once it has reset the connection the kernel can't be asked any more
    uint8_t family               # AF_INET or AF_INET6; of any other there is no address
    uint8_t[16] address

cdef struct Timer:               # visitors whose deadline lies the same duration ahead, soonest first
    uint32_t ticks
    int32_t first, last          # fds, -1 for none

ctypedef size_t (*readable_t)(void *app, Conn *c, uint8_t *bytes, size_t n) noexcept nogil
ctypedef void (*event_t)(void *app, Conn *c) noexcept nogil
ctypedef void (*note_t)(void *app, int what) noexcept nogil
ctypedef bint (*call_t)(void *app) noexcept nogil

cdef enum Note:                  # what the reactor has to say for the log
    NOTE_FULL                    # no descriptors left: not accepting
    NOTE_NOT_FULL                # accepting again

cdef struct Upcalls:             # all that the reactor calls above it
    event_t opened               # a visitor came: set its first deadline
    readable_t readable          # bytes came, or output has drained (then n may be 0): returns how many were used up
    event_t drained              # output that had stalled has left, or some of it where that is WANTS_DRAIN; readable follows
    event_t expired              # its deadline passed: close it, or set another
    event_t leaving              # the server is about to stop: say goodbye, conn_finish what is idle
    event_t closed               # free what hangs on conn.cold
    note_t note
    call_t woken                 # another thread called wake: returns whether all that was asked for is done
    call_t alarm                 # the time that reactor_alarm set has come; the answer does not count

cdef enum:
    TIMERS = 64
    TICK_SHIFT = 6               # a tick is 64 ms: what a deadline may be late by, and how often it can move
    OUTBOX = 256 << 10
    MAX_UNSENT = 256 << 10     # backlog above which a visitor is read no further
    PIECE_COST = 96              # bytes of memory that a piece takes beside those it sends
    MAX_PEER_TEXT = 46               # an address as text, with its final zero (INET6_ADDRSTRLEN)

cdef struct Reactor:
    int epoll
    int size                     # entries in the table: RLIMIT_NOFILE
    int top                      # no entry above this one was ever used
    int listeners_top            # nor for a listener above this one
    Conn *table
    Peer *peers                  # by fd, too; NULL while nobody wants to know
    epoll_event *events
    uint8_t *inbox               # what the visitor at hand has sent
    uint8_t *outbox              # what is to be sent to it when its visit ends
    size_t outbox_n
    uint64_t *again              # visitors to be visited next turn: generation << 32 | fd
    uint64_t *again_now
    int again_n
    Conn *visited                # whose answers the outbox holds; NULL between visits
    int32_t *dirty               # fds with output that conn_post queued, to be sent at the end of the turn
    int dirty_n
    bint in_turn
    int64_t until_ns             # when those who come in this turn have had their time (CLOCK_MONOTONIC)
    size_t share                 # bytes of queued output that each visitor may send in this turn
    unsigned long thread         # that runs the reactor, 0 for none (pthread_self(3))
    Queue *spare_queues          # never freed while the reactor lives: see conn_unsent
    int32_t *doomed              # fds to be closed at the end of the turn
    int doomed_n
    Timer[TIMERS] timers
    int timers_n
    uint8_t stall_timer, linger_timer
    int64_t now_ms               # CLOCK_MONOTONIC_COARSE, read once a turn
    int64_t unix_s               # CLOCK_REALTIME_COARSE, likewise
    uint32_t tick
    bint interrupted             # a signal came: run returns so that Python may look
    bint full                    # out of descriptors: listeners are not watched
    uint32_t full_tick           # since when
    uint32_t noted_tick          # when the log was last told
    bint noted
    int waker
    int asked                    # written by other threads before they wake us: Ask
    bint leaving
    int64_t leave_by_ms
    int64_t grace_ms
    Upcalls on
    void *app
    int64_t live                 # visitors now
    uint64_t accepted, received, sent, full_count, turns

cdef enum Ask:
    ASK_LEAVE = 1
    ASK_STOP = 2

cdef uint8_t timer_for(Reactor *r, int64_t ms) noexcept nogil
cdef void conn_deadline(Reactor *r, Conn *c, uint8_t timer) noexcept nogil
cdef uint8_t *conn_room(Reactor *r, Conn *c, size_t n) noexcept nogil
cdef void conn_send(Reactor *r, Conn *c, Block *block, int64_t at, size_t n) noexcept nogil
cdef void conn_post(Reactor *r, Conn *c, Block *block, int64_t at, size_t n, uint32_t tag) noexcept nogil
cdef void conn_push(Reactor *r, Conn *c) noexcept nogil
cdef size_t conn_drop(Reactor *r, Conn *c, uint32_t tag, size_t down_to) noexcept nogil
cdef void conn_hold(Reactor *r, Conn *c, bint held) noexcept nogil
cdef void conn_peer(const Reactor *r, const Conn *c, char *to) noexcept nogil
cdef Conn *conn_of(const Reactor *r, uint64_t handle) noexcept nogil
cdef uint64_t handle_of(const Reactor *r, const Conn *c) noexcept nogil
cdef bint reactor_is_here(const Reactor *r) noexcept nogil
cdef void reactor_wake(Reactor *r) noexcept nogil
cdef void reactor_alarm(Reactor *r, uint8_t timer) noexcept nogil
cdef void conn_finish(Reactor *r, Conn *c, bint linger) noexcept nogil
cdef void conn_close(Reactor *r, Conn *c) noexcept nogil


cdef inline void conn_wrote(Reactor *r, size_t n) noexcept nogil:
    """n bytes were written where conn_room said; they leave when the visit ends."""
    r.outbox_n += n

cdef inline size_t conn_unsent(const Conn *c) noexcept nogil:
    """Bytes the kernel has not taken yet. Any thread may ask: at worst it is told of another visitor's queue."""
    cdef const Queue *q = c.output
    return 0 if q == NULL else q.bytes

cdef inline size_t conn_backlog(const Conn *c) noexcept nogil:
    """The same with the memory that it takes to keep them."""
    return 0 if c.output == NULL else c.output.bytes + PIECE_COST * c.output.pieces

cdef inline bint conn_choked(const Conn *c) noexcept nogil:
    """Whether so much output waits that nothing more should be read that could bring more."""
    return conn_backlog(c) > MAX_UNSENT and not c.flags & UNGATED

cdef inline bint conn_ending(const Conn *c) noexcept nogil:
    """Whether nothing more may be read from or answered to it."""
    return c.flags & (CLOSED | FINISHING) != 0


cdef void reactor_close_all(Reactor *r) noexcept nogil


cdef class Loop:
    cdef Reactor r
    cdef bint running
    cdef watch(self, int fd, uint8_t kind)
    cdef keep_peers(self)
