"""The network layer. See reactor.pyx."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from c1m.address cimport Address
from c1m.buf cimport Block
from c1m.linux cimport CLOCK_MONOTONIC, clock_gettime, epoll_event, sockaddr, timespec

cdef enum:                       # Conn.protocol: what an entry of the table is
    FREE
    LISTENER
    WAKER                        # the eventfd by which other threads wake the reactor
    ATTENDED                     # a descriptor of Python's: while it is readable reactor_run returns, to have it read
    FIRST_PROTOCOL               # this and up: a connection, which speaks what protocol_add was given
    MAX_PROTOCOL_NUMBER = 16

cdef enum ConnFlag:              # Conn.flags; the upper byte is the protocol's own
    CLOSED = 0x01                # to be freed at the end of this iteration; nothing more happens to it
    FINISHING = 0x02             # closes when all output has been sent; is read no more
    LINGER = 0x04                # and then discards what still comes, lest a reset overtake our last response
    LINGERING = 0x08             # doing so
    CLIENT_DONE = 0x10           # the client has sent all it will
    READ_PAUSED = 0x20           # not read until most of its output has been sent
    WATCHING_OUT = 0x40          # EPOLLOUT is in its set
    READY = 0x80                 # in the ready queue
    HANGING_UP = 0x100           # the end of its stream has had its edge: read until it comes
    APP_PAUSED = 0x200           # not read until the application resumes it
    RESUMED = 0x400              # the input kept aside is to be looked at although none came
    UNFLUSHED = 0x800            # in the flush queue
    NOTIFY_DRAIN = 0x1000        # on.drained is wanted, though output may never have been blocked
    WRITE_BLOCKED = 0x2000       # the kernel would not take all of its output: its deadline is the write timeout's
    NO_BACKPRESSURE = 0x4000     # read however much output waits: the application bounds that itself
    BATCHED = 0x8000             # its events come after the others' of an iteration: see Callbacks.release
    CONNECTING = 0x10000         # ours to another server, not there yet
    COUNTED = 0x20000            # the application counts it: Callbacks.uncount is called when it closes
    COUNTED_BY_ADDRESS = 0x40000  # and for its address, which only the application tells from other COUNTED ones
    OWN_FLAG = 0x1000000         # the protocol's first; seven more follow

cdef enum Sharing:               # of a listener, with other processes that have it open: among the flags of its entry
    ALONE = 0
    SHARED = 0x1000000           # it is not shut down when it is closed here
    TAKING_TURNS = 0x3000000     # nor do all wake up for each connection (EPOLLEXCLUSIVE in epoll_ctl(2))

cdef struct Segment:             # some bytes of a block, waiting to be sent
    Segment *next
    Block *block
    int64_t at                   # where they begin, in block.data or in block.fd's file
    size_t left                  # bytes still to be sent, at least 1
    uint32_t tag                 # the application's: what kind of output it is; 0 is never dropped
    bint begun                   # some of it was sent, or tried to be: the rest must follow

cdef struct SendQueue:           # 32 bytes: output the kernel would not take yet; by fd in Reactor.queues
    Segment *first
    Segment *last
    size_t bytes
    uint32_t segments
    int unacknowledged           # bytes that the kernel held besides, when the write timeout was last set

cdef struct Conn:                # 64 bytes, one cache line; its index in the table is its fd
    uint8_t protocol             # FREE to ATTENDED, or which of Reactor.protocols
    uint8_t timeout              # the timeout class of its deadline, 0 for none
    uint16_t route               # the protocol's own
    uint32_t flags               # ConnFlag
    uint32_t generation          # connections that had this fd before; a handle or event of another one is not ours
    int32_t prev, next           # neighbours in the list of its deadline, by fd
    uint32_t tick                # when the deadline is due
    uint64_t[2] parser           # the protocol's own: where its parser stands
    Block *input                 # bytes received that begin something not yet whole; NULL while idle
    SendQueue *output            # NULL while idle
    void *session                # the protocol's own: all that an idle connection does not need; NULL while idle

cdef struct TimeoutClass:        # connections whose deadline lies the same duration ahead, soonest first
    uint32_t ticks
    int32_t first, last          # fds, -1 for none

cdef struct FdQueue:             # a ring of fds, each in it once at most
    int32_t *fds
    uint32_t mask                # its capacity, a power of two, less 1
    uint32_t head
    uint32_t count

ctypedef size_t (*readable_t)(void *owner, Conn *c, uint8_t *bytes, size_t n) noexcept nogil
ctypedef void (*event_t)(void *owner, Conn *c) noexcept nogil
ctypedef void (*failed_t)(void *owner, Conn *c, int fault) noexcept nogil
ctypedef void (*note_t)(void *app, int what, int64_t number) noexcept nogil
ctypedef bint (*woken_t)(void *app) noexcept nogil
ctypedef bint (*admit_t)(void *app, Conn *c) noexcept nogil
ctypedef void (*call_t)(void *app) noexcept nogil

cdef enum Note:                  # what the reactor has to say for the log, with a number
    NOTE_FULL                    # no descriptors left: not accepting
    NOTE_NOT_FULL                # accepting again
    NOTE_UNREADABLE              # the rest of a file can't be read; its connection was closed; an errno
    NOTE_UNWATCHED               # epoll would not watch a new connection, which was closed; an errno

cdef struct Protocol:            # what a connection's events do; `owner` is the first argument of each
    void *owner
    event_t opened               # it was accepted, or is connected: set its first deadline
    readable_t readable          # bytes came, or output was sent (then n may be 0): returns how many were used up.
    # Of RECV_BUFFER bytes it must use some, or pause or finish the connection
    event_t drained              # blocked output was sent, or some of it where that is NOTIFY_DRAIN; readable follows
    event_t expired              # its deadline passed: close it, or set another
    event_t shutdown             # the server is about to stop: say goodbye, conn_finish what is idle
    bint spread                  # shutdown comes to its connections one after another, over the drain
    event_t closed               # free the session
    failed_t failed              # it could not be connected, for an errno, and will be closed; NULL where none connects
    bint reads_while_writing     # what readable leaves of its input is not whole yet, whatever output waits

cdef struct Callbacks:           # what the reactor calls of the application as a whole
    void *app
    note_t note
    woken_t woken                # another thread called wake: returns whether all that was asked for is done
    call_t alarm                 # the time that reactor_alarm set has come
    call_t ended                 # every connection is closed, and no iteration follows
    call_t release               # a stage of the iteration is over: let go of what was taken for it (the GIL)
    admit_t admit                # a connection was accepted; False: it speaks something else first. NULL: it may
    event_t uncount              # a COUNTED one closes; the first argument is `app`
    woken_t draining             # connections that are spread are about to be told of the shutdown: returns whether
    # they may be; if not, reactor_proceed says so later

cdef struct NetCounts:           # what it counts, in words that other threads and processes may read
    uint64_t connections         # now
    uint64_t full                # now: out of descriptors, and listeners are not watched
    uint64_t accepted, unwatched, received, sent, full_count, iterations
    uint64_t lent                # times that others' listeners were borrowed

cdef enum:
    MAX_TIMEOUT_CLASSES = 64
    TICK_SHIFT = 6               # a tick is 64 ms: what a deadline may be late by, and how often it can move
    WRITE_BUFFER = 256 << 10
    MAX_UNSENT = 256 << 10       # queued bytes above which a connection is read no further
    SEGMENT_COST = 96            # bytes of memory that a segment takes beside those it sends

cdef struct Reactor:
    int epoll
    int size                     # entries in the table: RLIMIT_NOFILE
    int top                      # no entry above this one was ever used
    int listeners_top            # nor for a listener above this one
    Conn *table
    SendQueue *queues            # by fd, too
    uint16_t *queues_used        # of each QUEUE_CHUNK of them; QUEUES_TOUCHED: none, but memory is to be given back
    Address *peers               # by fd, too: after a reset the kernel can't be asked any more; NULL: none is kept
    epoll_event *events
    int32_t *batched             # events of BATCHED connections, by index
    Protocol[MAX_PROTOCOL_NUMBER] protocols
    int protocols_n
    uint8_t *recv_buffer         # what the current connection has sent
    uint8_t *write_buffer        # what is to be sent to it when its dispatch ends
    size_t write_n
    Conn *current                # the connection being dispatched: whose responses the write buffer holds; or NULL
    uint64_t current_sent        # bytes that the kernel has taken since its dispatch began
    FdQueue ready                # connections to be dispatched although no event may come
    FdQueue flush                # connections whose send queue is to be sent at the end of the iteration
    bint iterating
    bint clock_stale             # the clock is to be read again: between iterations, and since Python was called
    bint nudged                  # the waker was written to because something waits for the next iteration
    int64_t until_ns             # when this iteration's files have had their time (CLOCK_MONOTONIC); 0: none came yet
    size_t share                 # bytes of queued output that each connection may send in this iteration
    unsigned long thread         # that runs the reactor, 0 for none (pthread_self(3))
    int32_t *closing             # fds to be closed at the end of the iteration
    int closing_n
    TimeoutClass[MAX_TIMEOUT_CLASSES] timeouts
    int timeouts_n
    bint deadlines_moved         # the next two are to be found anew
    bint deadlines               # there are some,
    uint32_t soonest             # and at this tick the first is due
    uint8_t write_timeout, linger_timeout
    int64_t now_ms               # CLOCK_MONOTONIC_COARSE, read once an iteration, and again where it may be stale
    int64_t unix_s               # CLOCK_REALTIME_COARSE, likewise
    uint32_t tick
    int64_t scan_ms              # the clock before the scan: one epoll_wait, or as many as it takes to hear of all that
    uint32_t scan_tick           # had come when the first was called
    int scan_events              # events that the scan has brought so far; 0: the next epoll_wait begins one
    uint64_t scans               # that were made to their end
    int64_t heard_ms             # what had come before this has been read, but for what READY connections left
    uint32_t heard_tick          # likewise
    bint overdue                 # a deadline before heard_tick may not have been dealt with
    uint32_t pass_left           # connections until the ready queue has been gone through once more
    uint32_t passes              # how often it has been, since READY_PASSES were counted last
    uint32_t pass_tick           # heard_tick when this count began
    uint32_t read_tick           # of what came before this, READY connections too have read all that a kernel may hold
    bint interrupted             # a signal came, or an ATTENDED is readable: run returns so that Python may look
    int fault                    # errno of an epoll_wait that failed: nothing can be served any more
    bint forked                  # this is the child of a fork, where everything was closed
    int forks                    # forks_seen when it was made: children of later forks may hold its descriptors
    uint32_t full_tick           # since when descriptors have run out: NetCounts.full
    uint32_t noted_tick          # when the log was last told
    bint noted
    int waker
    int asked                    # written by other threads before they wake us: Asked
    int64_t grace_ms, drain_ms   # likewise
    int64_t trim_ns, trim_cpu_ns  # when reactor_trim was last called, and the thread's processor time by then
    int64_t trim_from_ns         # before this, malloc's memory is not given back again
    bint shutting_down
    uint64_t shutdown_scan       # which `scans` must have reached before connections hear of it
    uint8_t shutdown_stage       # ShutdownStage
    int shutdown_fd              # the next to hear of it
    int64_t spread, spread_told  # connections over which the last stage is spread, and how many it has told
    int64_t spread_from_ms, spread_ms
    int64_t drain_by_ms          # when the last of them is to be told
    int64_t shutdown_by_ms       # when it ends, whatever is in flight
    Callbacks on
    NetCounts *counts            # its own, or where others want it to count
    NetCounts own_counts

cdef enum ShutdownStage:
    SHUTDOWN_TELLS               # connections whose protocol is not spread
    SHUTDOWN_WAITS               # for the application to say its goodbyes
    SHUTDOWN_SPREADS             # the others, evenly over the drain
    SHUTDOWN_TOLD                # all of them

cdef enum Asked:
    ASKED_SHUTDOWN = 1
    ASKED_STOP = 2

cdef int reactor_init(Reactor *r, int64_t write_timeout_ms, int waker) noexcept nogil
cdef void reactor_free(Reactor *r) noexcept nogil
cdef int reactor_attend(Reactor *r, int fd) noexcept nogil
cdef void reactor_unattend(Reactor *r, int fd) noexcept nogil
cdef int listener_add(Reactor *r, int fd, uint32_t sharing) noexcept nogil
cdef void listener_close(Reactor *r, int fd) noexcept nogil
cdef void listeners_rewatch(Reactor *r) noexcept nogil
cdef bint reactor_keep_peers(Reactor *r) noexcept nogil
cdef void reactor_iterate(Reactor *r, int wait_ms) noexcept nogil
cdef bint reactor_run(Reactor *r) noexcept nogil
cdef int poll_timeout(Reactor *r) noexcept nogil
cdef bint shutdown_done(const Reactor *r) noexcept nogil
cdef void reactor_proceed(Reactor *r) noexcept nogil
cdef void listeners_close(Reactor *r) noexcept nogil
cdef void listeners_leave(Reactor *r) noexcept nogil
cdef void reactor_forget(Reactor *r) noexcept nogil
cdef uint8_t protocol_add(Reactor *r, Protocol protocol) noexcept nogil
cdef uint8_t timeout_class(Reactor *r, int64_t ms) noexcept nogil
cdef void clock_read(Reactor *r) noexcept nogil
cdef Conn *conn_connect(
    Reactor *r, uint8_t protocol, const sockaddr *to, unsigned int to_n, const sockaddr *source, unsigned int source_n,
    int *fault,
) noexcept nogil
cdef void conn_deadline(Reactor *r, Conn *c, uint8_t timeout) noexcept nogil
cdef uint8_t *conn_reserve(Reactor *r, Conn *c, size_t n) noexcept nogil
cdef void conn_send(Reactor *r, Conn *c, Block *block, int64_t at, size_t n) noexcept nogil
cdef void conn_enqueue(Reactor *r, Conn *c, Block *block, int64_t at, size_t n, uint32_t tag) noexcept nogil
cdef void conn_try_flush(Reactor *r, Conn *c) noexcept nogil
cdef size_t conn_drop(Reactor *r, Conn *c, uint32_t tag, size_t down_to) noexcept nogil
cdef bint conn_behind(const Reactor *r, const Conn *c) noexcept nogil
cdef int64_t conn_taken(const Reactor *r, const Conn *c) noexcept nogil
cdef void conn_pause(Reactor *r, Conn *c, bint paused) noexcept nogil
cdef void conn_finish(Reactor *r, Conn *c, bint linger) noexcept nogil
cdef void conn_close(Reactor *r, Conn *c) noexcept nogil
cdef void reactor_wake(Reactor *r) noexcept nogil
cdef void reactor_alarm(Reactor *r, uint8_t timeout) noexcept nogil
cdef void reactor_close_all(Reactor *r) noexcept nogil
cdef void reactor_trim(Reactor *r) noexcept nogil
cdef bint reactor_is_here(const Reactor *r) noexcept nogil


cdef inline int64_t nanoseconds() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <int64_t>t.tv_sec * 1000000000 + t.tv_nsec

cdef inline int fd_of(const Reactor *r, const Conn *c) noexcept nogil:
    return <int>(c - r.table)

cdef inline uint64_t handle_of(const Reactor *r, const Conn *c) noexcept nogil:
    """Names a connection beyond this iteration; never 0. Reused after 2**32 connections of one fd, in a day or more."""
    return <uint64_t>c.generation << 32 | <uint32_t>fd_of(r, c)

cdef inline Address *conn_peer(const Reactor *r, const Conn *c) noexcept nogil:
    """Where a connection was accepted from; NULL where addresses are not kept."""
    return NULL if r.peers == NULL else &r.peers[fd_of(r, c)]

cdef inline Conn *conn_of(const Reactor *r, uint64_t handle) noexcept nogil:
    """The connection that handle_of once named; NULL if it has gone."""
    cdef Conn *c = &r.table[<uint32_t>handle]
    if c.generation == <uint32_t>(handle >> 32) and c.protocol >= FIRST_PROTOCOL and not c.flags & CLOSED:
        return c
    return NULL

cdef inline void conn_commit(Reactor *r, size_t n) noexcept nogil:
    """n bytes were written where conn_reserve said; they are sent when the dispatch ends."""
    r.write_n += n

cdef inline size_t conn_unsent(const Conn *c) noexcept nogil:
    """Bytes the kernel has not taken yet. Any thread may ask: at worst it is told an instant's intermediate value."""
    cdef const SendQueue *q = c.output
    return 0 if q == NULL else q.bytes

cdef inline size_t conn_queued(const Conn *c) noexcept nogil:
    """The same with the memory that it takes to keep them."""
    return 0 if c.output == NULL else c.output.bytes + SEGMENT_COST * c.output.segments

cdef inline bint conn_backpressured(const Conn *c) noexcept nogil:
    """Whether so much output waits that nothing more should be read that could bring more."""
    return conn_queued(c) > MAX_UNSENT and not c.flags & NO_BACKPRESSURE

cdef inline bint conn_ending(const Conn *c) noexcept nogil:
    """Whether nothing more may be read from it or sent to it."""
    return c.flags & (CLOSED | FINISHING) != 0
