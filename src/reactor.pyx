"""The network layer: one epoll set, one table of connections, one iteration of the event loop after another.

Owns: listeners, the connection table, the receive and write buffers, send queues, deadlines, wake-ups, counters.
Refuses to know: HTTP, frames, paths, handlers. It calls upward through Reactor.protocols and Reactor.on only.

An iteration:

    epoll_wait -> event_ready -> conn_read: recv into the receive buffer -> readable -> conn_flush: one send
    then the ready queue, then deadlines that have passed, then a part of a shutdown, then the flush queue: one send for
    each connection that something was enqueued for; then reclaim what was closed

Each of these stages but the last has a budget of time; what is left over comes first in the next iteration.

A deadline falls only when all that had come before it has been read, however long a handler kept the thread. An
epoll_wait that returns fewer than EVENTS events has told of all that had come when it was called; else it takes some
more, together a scan. What counts for deadlines is heard_tick, the clock before the last whole scan.

Invariants a change must keep:
- The fd is the index. An entry is FREE or whole; only conn_open, conn_finish, conn_close and reclaim move it between.
- Between iterations an idle connection has input, output and session NULL. Between dispatches write_n is 0.
- A listener that other processes have, too, is never shut down. It is watched no longer before its last connections are
  accepted: whoever of the others is woken for the next, it is not us.
- Edges are told once. A connection that is left with bytes unread or unsent without having seen EAGAIN (or a short
  count) goes into the ready queue, or is READ_PAUSED with output queued.
- conn_close only marks. Entries are freed, and fds closed, in reclaim and nowhere else: so no fd is reused within a
  batch of events, and a pointer to a Conn is good until the iteration ends.
- A connection is WRITE_BLOCKED from when the kernel would not take all until its queue is empty. So long its deadline
  is the write timeout's, and conn_deadline leaves it alone; `drained` then sets another.
- The write buffer is the current connection's. What others are sent meanwhile goes through conn_enqueue.
- A deadline falls by heard_tick, never by tick, and not while its connection is READY or its reading waits for the
  flush queue, until the ready queue has been gone through READY_PASSES times.
- Whoever calls Python within an iteration sets clock_stale first, and clears it when the clock has been read after.
- READY and UNFLUSHED say that an fd is in that queue, and outlive its connection: the queue has each fd once.
- Every byte passes transport's net_recv, net_send, net_sendv or net_sendfile.
"""

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from c1m.address cimport Address, address_unmap
from c1m.buf cimport block_copy, block_ref, block_unref, static_assert
from c1m.linux cimport (
    AF_INET, AF_INET6, AF_UNIX, CLOCK_MONOTONIC_COARSE, CLOCK_REALTIME_COARSE, CLOCK_THREAD_CPUTIME_ID,
    ECONNABORTED, EFD_CLOEXEC, EFD_NONBLOCK, EINPROGRESS, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPOLL_CLOEXEC,
    EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLERR, EPOLLET, EPOLLEXCLUSIVE, EPOLLHUP, EPOLLIN, EPOLLOUT,
    EPOLLRDHUP, IP_BIND_ADDRESS_NO_PORT, IPPROTO_IP, IPPROTO_TCP, MADV_DONTNEED, MAP_ANONYMOUS,
    MAP_FAILED, MAP_NORESERVE,
    MAP_PRIVATE, PROT_READ, PROT_WRITE, RLIMIT_NOFILE, SHUT_RDWR, SO_ERROR, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM,
    SOL_SOCKET, TCP_NODELAY, accept4, c_bind, c_connect, c_read, c_write, clock_gettime, close, epoll_create1,
    epoll_ctl, epoll_event, epoll_wait, errno, eventfd, forks_seen, free_bytes, getrlimit, getsockopt, give_back,
    ignore_sigpipe, iovec, keep_freed, madvise, mmap, munmap, pthread_self, rlimit_t, setrlimit, setsockopt,
    shutdown, sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage, socket, timespec, watch_forks,
)
from c1m.transport cimport (
    NET_LOST, NET_UNREADABLE, net_end, net_recv, net_send, net_sendfile, net_sendv, net_taken, net_unacknowledged,
    net_unread,
)

cdef extern from *:
    void prefetch "__builtin_prefetch"(const void *p) noexcept nogil

cdef enum:
    EVENTS = 512                 # taken from epoll at a time
    RECV_BUFFER = 128 << 10      # one recv's worth; also all that is kept of a paused connection's input
    ACCEPTS = 256                # per listener and iteration
    FILES_NS = 4000000           # of an iteration that go to files,
    READY_NS = 4000000           # to the ready queue,
    EXPIRED_NS = 4000000         # to deadlines that have passed,
    SHUTDOWN_NS = 4000000        # to telling connections of a shutdown,
    SPREAD_EACH_MS = 1           # of the drain for each connection, at the most: a thousand come back in a second
    GOODBYE_MS = 2000            # that the application has for its goodbyes, before the drain is over whatever it says
    SPREAD_STEP_MS = 10          # between two looks at who is to be told next
    FLUSH_NS = 100000            # and to the flush queue: what is published to many is the longest work of all
    READY_PASSES = 64            # visits in which a READY connection has read what came before its deadline: a kernel's
    # buffer of 8 MiB, above what Linux allows by default (tcp_rmem)
    CLOCK_EVERY = 8              # connections between two looks at the clock in such a stage
    MAX_RUNS = 256               # segments in one sendmsg
    ITERATION_SENDS = 16 << 20   # bytes of queued output in an iteration, shared by the connections dispatched in it:
    MAX_SHARE = 1 << 20          # to each so many
    MIN_SHARE = 64 << 10
    LINGER_MS = 2000
    KEPT_BLOCK = 4 << 20         # malloc keeps the memory of freed blocks below this size
    KEPT_IDLE = 16 << 20         # up to so many bytes of it
    WORTH_TRIMMING = 32 << 20    # bytes that malloc holds unused; to give back a MiB takes about 0.1 ms,
    TRIM_SHARE = 100             # and all of it no more than a hundredth of the time
    RETRY_TICKS = (1000 >> TICK_SHIFT) + 1    # between attempts to accept when descriptors have run out
    QUIET_TICKS = 60000 >> TICK_SHIFT         # between two lines in the log about it
    QUEUE_CHUNK = 2048           # send queues whose memory is given back together: 64 KiB, whole pages everywhere
    QUEUES_TOUCHED = 0x8000      # in Reactor.queues_used
    MAX_TABLE = 1 << 24          # entries, whatever RLIMIT_NOFILE is
    MAX_WAIT_MS = 1 << 30        # of one epoll_wait
    NEVER = 0x7fffffff           # ticks
    LONG_AGO_MS = 1              # of CLOCK_MONOTONIC


# ---- the table ----

cdef bint entry_watch(Reactor *r, int fd, uint8_t protocol, uint32_t events) noexcept nogil:
    """Makes fd an entry of that kind, and epoll watch it. False and errno: it can't be, and the entry is FREE."""
    cdef Conn *c = &r.table[fd]
    cdef epoll_event event
    cdef uint32_t generation = c.generation or 1      # so that no handle is 0
    cdef uint32_t flags = c.flags & (READY | UNFLUSHED)
    memset(c, 0, sizeof(Conn))
    c.generation = generation
    c.flags = flags
    c.protocol = protocol
    event.events = events
    event.data.u64 = handle_of(r, c)
    if epoll_ctl(r.epoll, EPOLL_CTL_ADD, fd, &event) < 0:
        c.protocol = FREE
        return False
    r.top = max(r.top, fd)
    return True


cdef void entry_free(Reactor *r, int fd) noexcept nogil:
    """Watches what is no connection no longer."""
    cdef epoll_event unused
    r.table[fd].protocol = FREE
    r.table[fd].generation += 1
    epoll_ctl(r.epoll, EPOLL_CTL_DEL, fd, &unused)


cdef int reactor_attend(Reactor *r, int fd) noexcept nogil:
    """Makes an open fd ATTENDED, until reactor_unattend or the reactor's end; 0 or an errno."""
    if fd >= r.size:
        return EMFILE
    return 0 if entry_watch(r, fd, ATTENDED, EPOLLIN) else errno


cdef void reactor_unattend(Reactor *r, int fd) noexcept nogil:
    if r.table[fd].protocol == ATTENDED:
        entry_free(r, fd)


cdef inline Protocol *protocol_of(Reactor *r, const Conn *c) noexcept nogil:
    return &r.protocols[c.protocol]


cdef uint8_t protocol_add(Reactor *r, Protocol protocol) noexcept nogil:
    """Adds to what connections may speak, and returns its number; the first that is added is what accepted ones do."""
    r.protocols[r.protocols_n] = protocol
    r.protocols_n += 1
    return r.protocols_n - 1


cdef void conn_open(Reactor *r, int fd) noexcept nogil:
    """A connection was accepted."""
    cdef int fault = EMFILE
    if fd < r.size:
        if entry_watch(r, fd, FIRST_PROTOCOL, EPOLLIN | EPOLLRDHUP | EPOLLET):
            r.counts.connections += 1
            r.counts.accepted += 1
            if r.on.admit == NULL or r.on.admit(r.on.app, &r.table[fd]):
                protocol_of(r, &r.table[fd]).opened(protocol_of(r, &r.table[fd]).owner, &r.table[fd])
            return
        fault = errno
    close(fd)
    r.counts.unwatched += 1
    if r.counts.unwatched == 1 or <uint32_t>(r.tick - r.noted_tick) > QUIET_TICKS:
        r.noted_tick = r.tick
        r.on.note(r.on.app, NOTE_UNWATCHED, fault)


cdef void conn_close(Reactor *r, Conn *c) noexcept nogil:
    """Nothing more goes in or out; `closed` follows at the end of the iteration."""
    if not c.flags & CLOSED:
        c.flags |= CLOSED
        if c.flags & COUNTED:
            r.on.uncount(r.on.app, c)
        r.closing[r.closing_n] = fd_of(r, c)
        r.closing_n += 1
        nudge(r)


cdef void conn_finish(Reactor *r, Conn *c, bint linger) noexcept nogil:
    """Closes once all output has been sent. linger: the client may still be sending what will not be read."""
    c.flags |= FINISHING | (LINGER if linger else 0)
    if r.current != c and not c.flags & (CLOSED | UNFLUSHED):
        ready_add(r, c)          # no end of a dispatch will see to it


cdef inline void fd_close(Reactor *r, int fd) noexcept nogil:
    """Closes a socket for good. A child that was forked, in C and unseen by us, may hold it as well: then neither the
    connection nor epoll's interest in it would end."""
    cdef epoll_event unused
    if forks_seen != r.forks:
        epoll_ctl(r.epoll, EPOLL_CTL_DEL, fd, &unused)
        shutdown(fd, SHUT_RDWR)
    close(fd)


cdef void reclaim(Reactor *r) noexcept nogil:
    """Frees what was closed in this iteration, and what `closed` closes meanwhile."""
    cdef int i = 0
    cdef Conn *c
    while i < r.closing_n:
        c = &r.table[r.closing[i]]
        protocol_of(r, c).closed(protocol_of(r, c).owner, c)
        if r.forked:
            return               # by `closed`, and this is the child: reactor_forget has closed everything
        deadline_unlink(r, c)
        block_unref(c.input)
        queue_free(r, c)
        c.protocol = FREE        # before its fd is closed, for a fork may come between
        c.generation += 1
        fd_close(r, r.closing[i])
        r.counts.connections -= 1
        i += 1
    if r.counts.full and r.closing_n:
        listeners_watch(r, True)
    r.closing_n = 0


# ---- connecting ----

cdef Conn *conn_connect(
    Reactor *r, uint8_t protocol, const sockaddr *to, unsigned int to_n, const sockaddr *source, unsigned int source_n,
    int *fault,
) noexcept nogil:
    """Begins to connect to an address, from a source address without a port if that is not NULL. `opened` or `failed`
    will tell, and a deadline set by the caller bounds how long that takes. NULL and an errno: it can't even begin;
    EAGAIN: a Unix-domain listener's backlog is full."""
    cdef int fd = socket(to.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    cdef int on = 1
    fault[0] = EMFILE if fd >= 0 else errno
    if fd < 0:
        return NULL
    if to.sa_family != AF_UNIX:
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))
    if source != NULL:           # the port is chosen when the other end is known: each pair has all ports to itself
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on))
    if fd < r.size:
        if (
            (source == NULL or c_bind(fd, source, source_n) == 0)
            and (c_connect(fd, to, to_n) == 0 or errno == EINPROGRESS)
            and entry_watch(r, fd, protocol, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)
        ):
            r.table[fd].flags |= CONNECTING | WATCHING_OUT
            r.counts.connections += 1
            return &r.table[fd]
        fault[0] = errno
    close(fd)
    return NULL


cdef void conn_connected(Reactor *r, Conn *c) noexcept nogil:
    """The kernel has an answer: it is connected, or it can't be (connect(2), EINPROGRESS)."""
    cdef int fault = 0
    cdef unsigned int n = sizeof(fault)
    getsockopt(fd_of(r, c), SOL_SOCKET, SO_ERROR, &fault, &n)
    if fault:
        protocol_of(r, c).failed(protocol_of(r, c).owner, c, fault)
        conn_close(r, c)
        return
    c.flags &= ~CONNECTING
    r.current = c
    r.current_sent = 0
    protocol_of(r, c).opened(protocol_of(r, c).owner, c)
    conn_settle(r, c)
    r.current = NULL


# ---- listeners ----

cdef inline uint32_t listener_events(const Conn *c) noexcept nogil:
    return EPOLLIN | (EPOLLEXCLUSIVE if c.flags & TAKING_TURNS == TAKING_TURNS else 0)


cdef int listener_add(Reactor *r, int fd, uint32_t sharing) noexcept nogil:
    """Accepts from a listening, non-blocking socket, which is the reactor's from then on; 0 or an errno."""
    if fd >= r.size:
        return EMFILE
    if not entry_watch(r, fd, LISTENER, EPOLLIN | (EPOLLEXCLUSIVE if sharing == TAKING_TURNS else 0)):
        return errno
    r.table[fd].flags |= sharing
    r.listeners_top = max(r.listeners_top, fd)
    return 0


cdef inline void listener_watch(Reactor *r, int fd, bint on) noexcept nogil:
    cdef epoll_event event
    event.events = listener_events(&r.table[fd])
    event.data.u64 = handle_of(r, &r.table[fd])
    epoll_ctl(r.epoll, EPOLL_CTL_ADD if on else EPOLL_CTL_DEL, fd, &event)


cdef void listener_close(Reactor *r, int fd) noexcept nogil:
    cdef bint shared = r.table[fd].flags & SHARED != 0
    if r.table[fd].protocol != LISTENER:
        return
    entry_free(r, fd)
    if shared:
        close(fd)
    else:
        fd_close(r, fd)


cdef void listeners_rewatch(Reactor *r) noexcept nogil:
    """Has epoll look anew at the listeners that processes take turns at: one that was woken may not have come to it."""
    cdef int fd
    for fd in range(r.listeners_top + 1):
        if r.table[fd].protocol == LISTENER and r.table[fd].flags & TAKING_TURNS == TAKING_TURNS and not r.counts.full:
            listener_watch(r, fd, False)
            listener_watch(r, fd, True)


cdef inline int conn_accept(Reactor *r, int listener) noexcept nogil:
    """A new connection's fd, its address noted if anyone wants to know; or -1 and errno."""
    cdef sockaddr_storage address
    cdef unsigned int n = sizeof(address)
    cdef int fd
    if r.peers == NULL:
        return accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
    fd = accept4(listener, <sockaddr *>&address, &n, SOCK_NONBLOCK | SOCK_CLOEXEC)
    if 0 <= fd < r.size:
        r.peers[fd].family = <uint8_t>address.ss_family
        if address.ss_family == AF_INET:
            memcpy(r.peers[fd].bytes, &(<sockaddr_in *>&address).sin_addr, 4)
        elif address.ss_family == AF_INET6:
            memcpy(r.peers[fd].bytes, &(<sockaddr_in6 *>&address).sin6_addr, 16)
            address_unmap(&r.peers[fd])      # a socket that was handed in may take IPv4, too
    return fd


cdef void listener_ready(Reactor *r, int listener) noexcept nogil:
    cdef int fd, _
    if r.counts.full:
        return                   # found out earlier in this batch
    for _ in range(ACCEPTS):
        fd = conn_accept(r, listener)
        if fd >= 0:
            conn_open(r, fd)
        elif errno == EMFILE or errno == ENFILE or errno == ENOBUFS or errno == ENOMEM:
            listeners_watch(r, False)
            return
        elif errno != ECONNABORTED and errno != EINTR:
            break                # EAGAIN, or an error of that one connection (accept(2)): epoll tells us of more
    if r.noted and <uint32_t>(r.tick - r.noted_tick) > QUIET_TICKS:
        r.noted = False
        r.on.note(r.on.app, NOTE_NOT_FULL, 0)


cdef void listeners_watch(Reactor *r, bint on) noexcept nogil:
    """Stops or resumes watching the listeners: with no descriptor to be had, a watched one would spin."""
    cdef int fd
    for fd in range(r.listeners_top + 1):
        if r.table[fd].protocol == LISTENER:
            listener_watch(r, fd, on)
    r.counts.full = not on
    if r.counts.full:
        r.full_tick = r.tick
        r.counts.full_count += 1
        if not r.noted:
            r.noted = True
            r.noted_tick = r.tick
            r.on.note(r.on.app, NOTE_FULL, 0)


cdef void listeners_drain(Reactor *r) noexcept nogil:
    """Watches no listener any more, and accepts all who wait: to close it would cut them off, and for those who came
    before, another process may not be woken."""
    cdef int fd
    cdef uint64_t before
    for fd in range(r.listeners_top + 1):
        if r.table[fd].protocol == LISTENER:
            listener_watch(r, fd, False)
            before = r.counts.accepted - 1
            while before != r.counts.accepted and not r.counts.full:
                before = r.counts.accepted
                listener_ready(r, fd)


cdef void listeners_close(Reactor *r) noexcept nogil:
    cdef int fd
    for fd in range(r.listeners_top + 1):
        listener_close(r, fd)


cdef void listeners_leave(Reactor *r) noexcept nogil:
    """Accepts all who wait, and closes the listeners. Between iterations."""
    clock_read(r)
    r.iterating = True
    listeners_drain(r)
    listeners_close(r)
    r.on.release(r.on.app)
    r.iterating = False


cdef inline int64_t cpu_nanoseconds() noexcept nogil:
    """Processor time of this thread."""
    cdef timespec t
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t)
    return <int64_t>t.tv_sec * 1000000000 + t.tv_nsec


# ---- the ready queue and the flush queue ----

cdef inline void fds_add(FdQueue *q, int fd) noexcept nogil:
    q.fds[q.head + q.count & q.mask] = fd
    q.count += 1


cdef inline int fds_take(FdQueue *q) noexcept nogil:
    cdef int fd = q.fds[q.head]
    q.head = q.head + 1 & q.mask
    q.count -= 1
    return fd


cdef void ready_add(Reactor *r, Conn *c) noexcept nogil:
    """There may be more to do for it, and no edge will tell: it is dispatched in the next iteration."""
    if not c.flags & READY:
        c.flags |= READY
        fds_add(&r.ready, fd_of(r, c))
        nudge(r)


cdef inline void nudge(Reactor *r) noexcept nogil:
    """Something waits for the next iteration: sees to it that one comes. However much it is, with one write."""
    if not r.iterating and not r.nudged:
        r.nudged = True
        reactor_wake(r)


# ---- input ----

cdef void conn_read(Reactor *r, Conn *c, bint resumed) noexcept nogil:
    """One recv and all that follows from it. resumed: input kept aside is to be looked at even if none comes."""
    cdef size_t have = 0, used = 0
    cdef ssize_t got = 0
    cdef bint more = False       # whether the socket may hold bytes, or the stream's end, that no edge will announce
    if c.input != NULL:
        have = c.input.size
        memcpy(r.recv_buffer, c.input.data, have)
    if have == RECV_BUFFER:
        more = True
    elif not c.flags & CLIENT_DONE:
        got = net_recv(fd_of(r, c), r.recv_buffer + have, RECV_BUFFER - have)
        if got == NET_LOST:
            conn_close(r, c)
            return
        if got == 0:
            c.flags |= CLIENT_DONE
        more = got == <ssize_t>(RECV_BUFFER - have) or (got > 0 and (resumed or c.flags & HANGING_UP))
        got = max(got, 0)
        r.counts.received += got
    if got or resumed:
        block_unref(c.input)
        c.input = NULL
        have += got
        r.current = c
        r.current_sent = 0
        used = protocol_of(r, c).readable(protocol_of(r, c).owner, c, r.recv_buffer, have)
        if used < have and not conn_ending(c):
            c.input = block_copy(r.recv_buffer + used, have - used)
            if c.input == NULL:
                conn_close(r, c)
        conn_flush(r, c, False)
        r.current = NULL
    if conn_ending(c):
        conn_settle(r, c)
    elif c.flags & APP_PAUSED:
        pass                     # conn_pause has it dispatched again
    elif c.output != NULL and (conn_backpressured(c) or (used < have and not protocol_of(r, c).reads_while_writing)):
        c.flags |= READ_PAUSED
    elif c.flags & CLIENT_DONE:
        conn_finish(r, c, False)
        conn_settle(r, c)
    elif more:
        ready_add(r, c)


cdef void conn_discard(Reactor *r, Conn *c) noexcept nogil:
    """Lingering: reads and forgets, until the client closes or the deadline falls."""
    cdef ssize_t got = net_recv(fd_of(r, c), r.recv_buffer, RECV_BUFFER)
    if got == 0 or got == NET_LOST:
        conn_close(r, c)
    elif got > 0:
        r.counts.received += got
        ready_add(r, c)


# ---- output ----

cdef inline ssize_t conn_sent(Reactor *r, Conn *c, ssize_t sent) noexcept nogil:
    """Counts what net_send and the like took: how much that is, or NET_LOST, and then the connection is closed."""
    if sent == NET_LOST:
        conn_close(r, c)
        return NET_LOST
    sent = max(sent, 0)
    r.counts.sent += sent
    r.current_sent += sent
    return sent


cdef uint8_t *conn_reserve(Reactor *r, Conn *c, size_t n) noexcept nogil:
    """Where to write up to n bytes, at most WRITE_BUFFER, for the current connection; conn_commit says how many."""
    if r.write_n + n > WRITE_BUFFER:
        conn_flush(r, c, True)
    return r.write_buffer + r.write_n


cdef void conn_flush(Reactor *r, Conn *c, bint more) noexcept nogil:
    """Sends the write buffer; what the kernel does not take is queued. more: other output follows at once."""
    cdef size_t n = r.write_n
    cdef ssize_t sent
    if n == 0:
        return
    if c.output != NULL or c.flags & CLOSED:
        write_buffer_queue(r, c)
        return
    r.write_n = 0
    sent = conn_sent(r, c, net_send(fd_of(r, c), r.write_buffer, n, more))
    if 0 <= sent < <ssize_t>n:
        queue_copy(r, c, r.write_buffer + sent, n - sent)
        write_blocked(r, c)


cdef void write_buffer_queue(Reactor *r, Conn *c) noexcept nogil:
    """Puts what the write buffer holds at the end of the queue."""
    if r.write_n and not c.flags & CLOSED:
        queue_copy(r, c, r.write_buffer, r.write_n)
    r.write_n = 0


cdef void conn_send(Reactor *r, Conn *c, Block *block, int64_t at, size_t n) noexcept nogil:
    """Sends n bytes of a block from `at` on to the current connection, after what the write buffer holds; n may be 0.
    Refers to the block for as long as it needs it."""
    cdef size_t head = r.write_n
    cdef iovec[2] runs
    cdef ssize_t sent
    if n == 0:
        return
    if block.fd >= 0 or c.output != NULL or c.flags & CLOSED:
        conn_flush(r, c, True)
        if not c.flags & CLOSED:
            queue_add(r, c, block, at, n, 0)
            if block.fd >= 0 and c.output != NULL and c.output.first.next == NULL:
                if r.until_ns == 0:
                    r.until_ns = nanoseconds() + FILES_NS
                if nanoseconds() < r.until_ns:
                    queue_send(r, c)
                else:
                    ready_add(r, c)         # files have had their time in this iteration
        return
    r.write_n = 0
    runs[0].iov_base, runs[0].iov_len = r.write_buffer, head
    runs[1].iov_base, runs[1].iov_len = block.data + at, n
    if head:
        sent = conn_sent(r, c, net_sendv(fd_of(r, c), runs, 2, False))
    else:
        sent = conn_sent(r, c, net_send(fd_of(r, c), block.data + at, n, False))
    if sent < 0 or <size_t>sent == head + n:
        return
    if <size_t>sent < head:
        queue_copy(r, c, r.write_buffer + sent, head - sent)
        sent = head
    queue_add(r, c, block, at + (sent - head), n - (sent - head), 0)
    write_blocked(r, c)


cdef void conn_enqueue(Reactor *r, Conn *c, Block *block, int64_t at, size_t n, uint32_t tag) noexcept nogil:
    """Like conn_send, for any connection at any time on the reactor's thread: what is enqueued in an iteration is sent
    at its end, all together."""
    if conn_ending(c) or n == 0:
        return
    if r.current == c:
        write_buffer_queue(r, c)  # what was written before goes before
    queue_add(r, c, block, at, n, tag)
    if c.flags & (UNFLUSHED | CLOSED | WRITE_BLOCKED):
        return
    c.flags |= UNFLUSHED
    fds_add(&r.flush, fd_of(r, c))
    nudge(r)


cdef void conn_try_flush(Reactor *r, Conn *c) noexcept nogil:
    """Sends now what was enqueued in this iteration, unless the client is known to be slow."""
    if c.output != NULL and not c.flags & (WRITE_BLOCKED | CLOSED):
        queue_send(r, c)


cdef void flush_run(Reactor *r) noexcept nogil:
    """Sends what was enqueued, for a while; what is left comes first in the next iteration."""
    cdef uint32_t i = 0, n = r.flush.count
    cdef int64_t until = nanoseconds() + FLUSH_NS if n > CLOCK_EVERY else 0
    cdef Conn *c
    cdef bint notify
    while i < n and (i & (CLOCK_EVERY - 1) or i == 0 or nanoseconds() < until):
        c = &r.table[fds_take(&r.flush)]
        i += 1
        if i + 2 < n:
            prefetch(&r.table[r.flush.fds[r.flush.head + 1 & r.flush.mask]])
        c.flags &= ~UNFLUSHED
        if c.protocol < FIRST_PROTOCOL or c.flags & CLOSED:
            continue
        # A response to a request is always waited for; other output only where it was blocked.
        notify = c.flags & (WRITE_BLOCKED | NOTIFY_DRAIN) != 0 or not protocol_of(r, c).reads_while_writing
        if c.output != NULL and not drained(r, c, notify):
            continue
        if c.flags & FINISHING:
            conn_settle(r, c)
        elif c.flags & READ_PAUSED:
            c.flags = (c.flags & ~READ_PAUSED) | RESUMED
            ready_add(r, c)


cdef size_t conn_drop(Reactor *r, Conn *c, uint32_t tag, size_t down_to) noexcept nogil:
    """Drops queued segments of which nothing was sent, oldest first, until conn_queued is at most down_to.

    tag: only of this kind, or 0 for of any but 0. Returns how many segments that were.
    """
    cdef Segment **link
    cdef Segment *segment
    cdef Segment *last = NULL
    cdef size_t dropped = 0
    if c.output == NULL:
        return 0
    link = &c.output.first
    while link[0] != NULL and conn_queued(c) > down_to:
        segment = link[0]
        if segment.tag and (tag == 0 or segment.tag == tag) and not segment.begun:
            link[0] = segment.next
            c.output.bytes -= segment.left
            c.output.segments -= 1
            block_unref(segment.block)
            free(segment)
            dropped += 1
        else:
            last = segment
            link = &segment.next
    if link[0] == NULL:
        c.output.last = last
    return dropped


cdef inline void queue_copy(Reactor *r, Conn *c, const uint8_t *bytes, size_t n) noexcept nogil:
    """Puts a copy of some bytes at the end of the queue."""
    cdef Block *copy = block_copy(bytes, n)
    queue_add(r, c, copy, 0, n, 0)
    block_unref(copy)


cdef void queue_add(Reactor *r, Conn *c, Block *block, int64_t at, size_t n, uint32_t tag) noexcept nogil:
    """Puts a segment of a block, of at least a byte, at the end of the queue. NULL: memory is out, and the connection
    closes, as it does where there is none for the segment."""
    cdef Segment *segment = NULL if block == NULL else <Segment *>malloc(sizeof(Segment))
    if segment == NULL:
        conn_close(r, c)
        return
    if c.output == NULL:
        queue_take(r, c)
    segment.next = NULL
    segment.block = block_ref(block)
    segment.at = at
    segment.left = n
    segment.tag = tag
    segment.begun = False
    if c.output.last == NULL:
        c.output.first = segment
    else:
        c.output.last.next = segment
    c.output.last = segment
    c.output.bytes += n
    c.output.segments += 1


cdef inline void queue_take(Reactor *r, Conn *c) noexcept nogil:
    """The connection begins to use its queue, which is empty."""
    cdef uint16_t *used = &r.queues_used[<uint32_t>fd_of(r, c) // QUEUE_CHUNK]
    used[0] = (used[0] & ~<int>QUEUES_TOUCHED) + 1
    c.output = &r.queues[fd_of(r, c)]


cdef inline void queue_release(Reactor *r, Conn *c) noexcept nogil:
    """The connection's queue is empty, and no longer in use."""
    cdef uint16_t *used = &r.queues_used[<uint32_t>fd_of(r, c) // QUEUE_CHUNK]
    used[0] = used[0] - 1 or <uint16_t>QUEUES_TOUCHED
    memset(c.output, 0, sizeof(SendQueue))
    c.output = NULL
    c.flags &= ~WRITE_BLOCKED


cdef void reactor_trim(Reactor *r) noexcept nogil:
    """Gives back memory: of send queues that were in use, and what malloc holds. Another thread that reads a queue
    meanwhile finds zeroes."""
    cdef int chunk
    heap_trim(r)
    for chunk in range(r.top // QUEUE_CHUNK + 1):
        if r.queues_used[chunk] == QUEUES_TOUCHED:
            r.queues_used[chunk] = 0
            madvise(r.queues + chunk * QUEUE_CHUNK, QUEUE_CHUNK * sizeof(SendQueue), MADV_DONTNEED)


cdef void heap_trim(Reactor *r) noexcept nogil:
    """Gives back what malloc holds unused, if that is a lot and this thread was idle for half of the time. What
    compressed connections, or slow readers' queues, leave lies between what is still in use, and free(3) keeps it."""
    cdef int64_t now = nanoseconds(), cpu = cpu_nanoseconds()
    cdef bint busy = 2 * (cpu - r.trim_cpu_ns) > now - r.trim_ns
    r.trim_ns, r.trim_cpu_ns = now, cpu
    if busy or now < r.trim_from_ns or free_bytes() < WORTH_TRIMMING:
        return
    give_back(KEPT_IDLE)
    r.trim_from_ns = now + TRIM_SHARE * (nanoseconds() - now)


cdef void queue_send(Reactor *r, Conn *c) noexcept nogil:
    """Sends what it can of the queue, up to an iteration's share. When it is empty c.output is NULL again."""
    cdef SendQueue *q = c.output
    cdef iovec[MAX_RUNS] runs
    cdef Segment *segment
    cdef ssize_t sent
    cdef size_t share = r.share, asked
    cdef int n
    while q.first != NULL and share:
        segment = q.first
        segment.begun = True     # whatever comes of the attempt: a transport may have to be given the same bytes again
        if segment.block.fd >= 0:
            asked = 0            # a short count says nothing of the kernel's buffer
            sent = net_sendfile(fd_of(r, c), segment.block.fd, segment.at, min(segment.left, share))
            if sent == NET_UNREADABLE:
                r.on.note(r.on.app, NOTE_UNREADABLE, errno)
                sent = NET_LOST
            if sent == 0:        # it has become shorter, but its length was promised
                sent = NET_LOST
        else:
            n = 0
            asked = 0
            while segment != NULL and segment.block.fd < 0 and n < MAX_RUNS:
                runs[n].iov_base, runs[n].iov_len = segment.block.data + segment.at, segment.left
                asked += segment.left
                n += 1
                segment = segment.next
            if n == 1:
                sent = net_send(fd_of(r, c), runs[0].iov_base, asked, segment != NULL)
            else:
                sent = net_sendv(fd_of(r, c), runs, n, segment != NULL)
        sent = conn_sent(r, c, sent)
        if sent < 0:
            return
        if sent == 0:
            write_blocked(r, c)
            break
        share -= min(share, <size_t>sent)
        queue_consume(q, sent)
        if <size_t>sent < asked:
            write_blocked(r, c)
            break
    if q.first == NULL:
        queue_release(r, c)
        return
    if share < r.share or not c.flags & WRITE_BLOCKED:
        client_reads(r, c)
        deadline_set(r, c, r.write_timeout)
        c.flags |= WRITE_BLOCKED
    if share == 0:
        ready_add(r, c)


cdef void queue_consume(SendQueue *q, size_t n) noexcept nogil:
    """The kernel took the queue's first n bytes."""
    cdef Segment *segment
    cdef size_t step
    q.bytes -= n
    while n:
        segment = q.first
        step = min(n, segment.left)
        segment.at += step
        segment.left -= step
        segment.begun = True
        n -= step
        if segment.left == 0:
            q.first = segment.next
            q.segments -= 1
            if q.first == NULL:
                q.last = NULL
            block_unref(segment.block)
            free(segment)


cdef bint client_reads(Reactor *r, Conn *c) noexcept nogil:
    """Whether the client has taken something since we last looked. EPOLLOUT does not say: a third of the kernel's
    buffer has to be free for that."""
    cdef int before = c.output.unacknowledged
    c.output.unacknowledged = net_unacknowledged(fd_of(r, c))
    return c.output.unacknowledged < before


cdef bint conn_behind(const Reactor *r, const Conn *c) noexcept nogil:
    """Whether there is output that the client has not taken, be it that the kernel alone holds it."""
    return c.output != NULL or net_unacknowledged(fd_of(r, c)) > 0


cdef int64_t conn_taken(const Reactor *r, const Conn *c) noexcept nogil:
    """A number that grows whenever the client takes some of what the kernel holds for it."""
    return net_taken(fd_of(r, c))


cdef void queue_free(Reactor *r, Conn *c) noexcept nogil:
    cdef Segment *segment
    if c.output == NULL:
        return
    while c.output.first != NULL:
        segment = c.output.first
        c.output.first = segment.next
        block_unref(segment.block)
        free(segment)
    queue_release(r, c)


cdef void write_blocked(Reactor *r, Conn *c) noexcept nogil:
    """The kernel's buffer is full: from now on epoll tells when it is not, and the write timeout runs."""
    cdef epoll_event event
    if c.flags & CLOSED:
        return
    if not c.flags & WRITE_BLOCKED:
        client_reads(r, c)
        deadline_set(r, c, r.write_timeout)
        c.flags |= WRITE_BLOCKED
    if c.flags & WATCHING_OUT:
        return
    c.flags |= WATCHING_OUT
    event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET
    event.data.u64 = handle_of(r, c)
    epoll_ctl(r.epoll, EPOLL_CTL_MOD, fd_of(r, c), &event)


cdef bint drained(Reactor *r, Conn *c, bint notify) noexcept nogil:
    """Sends what it can of the queue. notify: on.drained is to be called. Returns whether nothing is left, and the
    connection still open."""
    queue_send(r, c)
    if c.flags & CLOSED or (c.output != NULL and not c.flags & NOTIFY_DRAIN):
        return False
    if notify and not c.flags & FINISHING:
        protocol_of(r, c).drained(protocol_of(r, c).owner, c)
    return c.output == NULL and not c.flags & CLOSED


cdef bint conn_writable(Reactor *r, Conn *c) noexcept nogil:
    """The kernel may take more. Returns whether the connection was read as well."""
    cdef bint all
    r.current = c
    r.current_sent = 0
    all = drained(r, c, True)
    conn_flush(r, c, False)
    r.current = NULL
    if c.flags & (CLOSED | FINISHING):
        conn_settle(r, c)
        return False
    if not all and (not c.flags & READ_PAUSED or conn_queued(c) > MAX_UNSENT // 2):
        return False
    c.flags &= ~READ_PAUSED
    if c.flags & APP_PAUSED:
        return False
    c.flags &= ~RESUMED
    conn_read(r, c, True)
    return True


cdef void conn_pause(Reactor *r, Conn *c, bint paused) noexcept nogil:
    """Reads the connection no further until it is resumed."""
    if paused:
        c.flags |= APP_PAUSED
    elif c.flags & APP_PAUSED:
        c.flags = (c.flags & ~APP_PAUSED) | RESUMED
        ready_add(r, c)


cdef void conn_settle(Reactor *r, Conn *c) noexcept nogil:
    """Ends a dispatch: sends the write buffer; a FINISHING connection with nothing left to send is closed."""
    conn_flush(r, c, False)
    if c.flags & CLOSED or not c.flags & FINISHING or c.output != NULL or c.flags & LINGERING:
        return
    # To close while input waits resets the connection, and may lose what we sent last (RFC 9112 section 9.6).
    if c.flags & CLIENT_DONE or not (c.flags & LINGER or c.input != NULL or net_unread(fd_of(r, c)) > 0):
        conn_close(r, c)
        return
    c.flags |= LINGERING
    net_end(fd_of(r, c))
    deadline_set(r, c, r.linger_timeout)
    conn_discard(r, c)


# ---- deadlines ----

cdef uint8_t timeout_new(Reactor *r, int64_t ms) noexcept nogil:
    """A timeout class of ms, 1 and up; 0 where there are too many."""
    if r.timeouts_n == MAX_TIMEOUT_CLASSES:
        return 0
    # One tick more, since the tick we are in is partly over.
    r.timeouts[r.timeouts_n] = TimeoutClass(<uint32_t>((ms + (1 << TICK_SHIFT) - 1) >> TICK_SHIFT) + 1, -1, -1)
    r.timeouts_n += 1
    return r.timeouts_n - 1


cdef uint8_t timeout_class(Reactor *r, int64_t ms) noexcept nogil:
    """The timeout class of ms, 1 and up, which others may share; 0 where there are too many."""
    cdef uint32_t ticks = <uint32_t>((ms + (1 << TICK_SHIFT) - 1) >> TICK_SHIFT) + 1
    cdef int i
    for i in range(1, r.timeouts_n):
        if r.timeouts[i].ticks == ticks and i != r.write_timeout and i != r.linger_timeout:
            return i
    return timeout_new(r, ms)


cdef void conn_deadline(Reactor *r, Conn *c, uint8_t timeout) noexcept nogil:
    """Sets the connection's deadline anew, that class's duration from now. While its output is blocked, that counts."""
    if not c.flags & WRITE_BLOCKED:
        deadline_set(r, c, timeout)


cdef inline void deadline_set(Reactor *r, Conn *c, uint8_t timeout) noexcept nogil:
    cdef TimeoutClass *list = &r.timeouts[timeout]
    cdef uint32_t due
    if r.clock_stale:
        clock_read(r)
    due = r.tick + list.ticks
    # Within a tick nothing moves, so a busy connection touches its neighbours' lines only 16 times a second.
    if c.timeout == timeout and c.tick == due:
        return
    deadline_unlink(r, c)
    c.timeout = timeout
    c.tick = due
    c.next = -1
    c.prev = list.last
    if list.last < 0:
        list.first = fd_of(r, c)
    else:
        r.table[list.last].next = fd_of(r, c)
    list.last = fd_of(r, c)
    r.deadlines_moved = True


cdef inline void deadline_unlink(Reactor *r, Conn *c) noexcept nogil:
    cdef TimeoutClass *list = &r.timeouts[c.timeout]
    if c.timeout == 0:
        return
    if c.prev < 0:
        list.first = c.next
    else:
        r.table[c.prev].next = c.next
    if c.next < 0:
        list.last = c.prev
    else:
        r.table[c.next].prev = c.prev
    c.timeout = 0
    r.deadlines_moved = True


cdef void deadlines_expire(Reactor *r) noexcept nogil:
    """Deals with deadlines that have passed, for a while; those that are left are overdue in the next iteration."""
    cdef uint32_t n = 0
    cdef int64_t until = 0
    cdef int i, fd, timeout
    cdef bint left = False
    cdef Conn *c
    for i in range(1, r.timeouts_n):
        fd = r.timeouts[i].first
        while fd >= 0:
            c = &r.table[fd]
            if <int32_t>(r.heard_tick - c.tick) < 0:
                break
            fd = c.next
            if unread(r, c):
                left = True
                continue
            if n == CLOCK_EVERY:
                until = nanoseconds() + EXPIRED_NS
            elif n > CLOCK_EVERY and n & (CLOCK_EVERY - 1) == 0 and nanoseconds() >= until:
                return
            n += 1
            timeout = c.timeout
            deadline_unlink(r, c)
            if not c.flags & CLOSED:
                deadline_expire(r, c, timeout)
    r.overdue = left


cdef inline bint unread(const Reactor *r, const Conn *c) noexcept nogil:
    """Whether some of what came before a connection's deadline may be unread, for no fault of the client's."""
    return ((c.flags & READY or c.flags & (READ_PAUSED | UNFLUSHED) == READ_PAUSED | UNFLUSHED) and
            not c.flags & (LINGERING | CLOSED) and <int32_t>(r.read_tick - c.tick) < 0)


cdef inline void passed(Reactor *r, uint32_t n) noexcept nogil:
    """n connections of the ready queue were visited."""
    if n < r.pass_left:
        r.pass_left -= n
        return
    r.pass_left = r.ready.count
    r.passes += 1
    if r.passes >= READY_PASSES:
        r.read_tick = r.pass_tick
        r.pass_tick = r.heard_tick
        r.passes = 0


cdef inline void deadline_expire(Reactor *r, Conn *c, int timeout) noexcept nogil:
    if c.protocol == WAKER:
        r.on.alarm(r.on.app)
    elif timeout == r.write_timeout and c.output != NULL and client_reads(r, c):
        deadline_set(r, c, r.write_timeout)
    elif timeout == r.write_timeout or timeout == r.linger_timeout:
        conn_close(r, c)
    else:
        r.current = c
        r.current_sent = 0
        protocol_of(r, c).expired(protocol_of(r, c).owner, c)
        conn_settle(r, c)
        r.current = NULL


cdef void soonest_find(Reactor *r) noexcept nogil:
    """Notes when the first of all deadlines is due, if there is any."""
    cdef int32_t ticks, soonest = NEVER
    cdef int i
    for i in range(1, r.timeouts_n):
        if r.timeouts[i].first >= 0:
            ticks = <int32_t>(r.table[r.timeouts[i].first].tick - r.tick)
            soonest = ticks if ticks < soonest else soonest
    r.soonest = r.tick + <uint32_t>soonest
    r.deadlines = soonest != NEVER
    r.deadlines_moved = False


cdef inline int64_t soonest_of(int64_t wait, int64_t other) noexcept nogil:
    """The shorter of two times to wait, of which the first may be -1, for ever."""
    return other if wait < 0 else min(wait, other)


cdef int poll_timeout(Reactor *r) noexcept nogil:
    """Milliseconds epoll may wait: 0 where work is left over, else until the next deadline, -1 for ever."""
    cdef int64_t wait = -1
    if r.ready.count or r.flush.count or r.closing_n:
        return 0
    if r.shutting_down and r.shutdown_stage != SHUTDOWN_TOLD:
        wait = shutdown_wait(r)
        if wait == 0:
            return 0
    if r.deadlines_moved:
        soonest_find(r)
    if r.deadlines:
        wait = soonest_of(wait, <int64_t>max(<int32_t>(r.soonest - r.tick), 0) << TICK_SHIFT)
    if r.counts.full:
        wait = soonest_of(wait, 1000)
    if r.shutting_down:
        wait = soonest_of(wait, max(r.shutdown_by_ms - r.now_ms, 0))
    return <int>min(wait, <int64_t>MAX_WAIT_MS)


cdef void clock_read(Reactor *r) noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t)
    r.now_ms = <int64_t>t.tv_sec * 1000 + t.tv_nsec // 1000000
    r.tick = <uint32_t>(r.now_ms >> TICK_SHIFT)
    clock_gettime(CLOCK_REALTIME_COARSE, &t)
    r.unix_s = t.tv_sec


# ---- iterations ----

cdef void reactor_iterate(Reactor *r, int wait_ms) noexcept nogil:
    """Waits for something to happen, so long at the most, and deals with it."""
    cdef int i, n, later = 0
    cdef bint heard = False
    if r.scan_events == 0:
        r.scan_ms, r.scan_tick = r.now_ms, r.tick    # of the last iteration: early enough
    n = epoll_wait(r.epoll, r.events, EVENTS, wait_ms)
    if n >= 0:
        # epoll tells first of what came first: with as many events as there are descriptors, it has told of all.
        heard = n < EVENTS or r.scan_events > r.top
        r.scan_events = 0 if heard else r.scan_events + n
    else:
        r.interrupted = errno == EINTR
        r.fault = 0 if errno == EINTR else errno
        n = 0
    r.counts.iterations += 1
    r.iterating = True
    r.nudged = False
    r.share = max(<size_t>MIN_SHARE, min(<size_t>MAX_SHARE, <size_t>ITERATION_SENDS // (n + r.ready.count + 1)))
    r.until_ns = 0
    clock_read(r)
    r.clock_stale = False
    for i in range(n):
        if i + 1 < n:
            prefetch(&r.table[<uint32_t>r.events[i + 1].data.u64])
        if r.table[<uint32_t>r.events[i].data.u64].flags & BATCHED:
            r.batched[later] = i
            later += 1
        else:
            event_ready(r, &r.events[i])
    for i in range(later):
        event_ready(r, &r.events[r.batched[i]])
    r.on.release(r.on.app)
    if r.ready.count:
        ready_run(r)
        r.on.release(r.on.app)
    if heard:
        r.scans += 1
        if r.heard_tick != r.scan_tick:
            r.heard_tick = r.scan_tick
            r.overdue = True
        r.heard_ms = r.scan_ms
    if r.overdue:
        deadlines_expire(r)
    if r.shutting_down and r.scans >= r.shutdown_scan:
        shutdown_run(r)
    if r.counts.full and <uint32_t>(r.tick - r.full_tick) >= RETRY_TICKS:
        listeners_watch(r, True)
    if r.flush.count:
        r.on.release(r.on.app)   # of what deadlines took; sending to many does without
        flush_run(r)
    if r.closing_n:
        reclaim(r)
    r.on.release(r.on.app)
    r.iterating = False
    r.clock_stale = True         # the next may be long ahead


cdef inline void event_ready(Reactor *r, const epoll_event *event) noexcept nogil:
    cdef int fd = <int><uint32_t>event.data.u64
    cdef Conn *c = &r.table[fd]
    if c.generation != <uint32_t>(event.data.u64 >> 32):
        return                   # of a connection that had this fd before
    if c.protocol >= FIRST_PROTOCOL:
        conn_ready(r, c, event.events)
    elif c.protocol == LISTENER:
        listener_ready(r, fd)
    elif c.protocol == WAKER:
        woken(r)
    elif c.protocol == ATTENDED:
        r.interrupted = True


cdef inline void conn_ready(Reactor *r, Conn *c, uint32_t events) noexcept nogil:
    """A connection's edge."""
    if c.flags & CLOSED:
        return
    if events & (EPOLLERR | EPOLLHUP) and c.flags & (READ_PAUSED | APP_PAUSED | FINISHING):
        conn_close(r, c)         # both ways are shut: our responses have nowhere to go
        return
    if events & (EPOLLRDHUP | EPOLLERR | EPOLLHUP):
        c.flags |= HANGING_UP
    if events & EPOLLOUT:
        if c.flags & CONNECTING:
            conn_connected(r, c)
        elif c.output != NULL and conn_writable(r, c):
            return
    if (not events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP) or
            c.flags & (CLOSED | READ_PAUSED | APP_PAUSED)):
        return
    if c.flags & LINGERING:
        conn_discard(r, c)
    elif not c.flags & FINISHING:
        conn_read(r, c, False)


cdef void ready_run(Reactor *r) noexcept nogil:
    """Dispatches what earlier iterations put off, for a while; what is put off once more goes behind the others.

    A dispatch may take long although it sends little: what goes to a client with a tiny window the kernel cuts up.
    """
    cdef uint32_t i = 0, n = r.ready.count
    cdef int64_t until = nanoseconds() + READY_NS if n > 1 else 0
    cdef Conn *c
    while i < n and (i == 0 or nanoseconds() < until):
        c = &r.table[fds_take(&r.ready)]
        i += 1
        c.flags &= ~READY
        if c.protocol >= FIRST_PROTOCOL and not c.flags & CLOSED:
            conn_resume(r, c)
    passed(r, i)


cdef inline void conn_resume(Reactor *r, Conn *c) noexcept nogil:
    """A connection's turn in the ready queue."""
    cdef bint resumed
    if c.output != NULL:
        if conn_writable(r, c) or c.output == NULL or c.flags & (CLOSED | FINISHING | READ_PAUSED):
            return               # it was read just now, or is not to be
    if c.flags & LINGERING:
        conn_discard(r, c)
    elif c.flags & FINISHING:
        conn_settle(r, c)
    elif not c.flags & APP_PAUSED:
        resumed = c.flags & RESUMED != 0
        c.flags &= ~RESUMED
        conn_read(r, c, resumed)


cdef void woken(Reactor *r) noexcept nogil:
    """Another thread wants something: it wrote `asked` first."""
    cdef uint64_t count
    cdef int asked
    cdef bint done
    c_read(r.waker, &count, sizeof(count))
    asked = r.asked              # before on.woken, so that whatever was wanted earlier comes first
    r.on.release(r.on.app)
    done = r.on.woken(r.on.app)
    if not done:
        reactor_wake(r)
    if asked >= ASKED_SHUTDOWN and not r.shutting_down:
        if r.shutdown_by_ms == 0:
            r.shutdown_by_ms = r.now_ms + r.grace_ms
        if done or r.now_ms >= r.shutdown_by_ms or asked >= ASKED_STOP:
            if asked < ASKED_STOP:
                listeners_drain(r)
            r.shutting_down = True
            r.shutdown_scan = r.scans + 2       # the scan under way may have begun before
            listeners_close(r)
    if asked >= ASKED_STOP:
        r.shutdown_by_ms = LONG_AGO_MS


cdef void shutdown_run(Reactor *r) noexcept nogil:
    """Tells connections that the server is about to stop, for a while. None comes once the listeners are closed, and
    what they had sent by then has been read.

    First those whose work ends soon. The others, who will all come back, are told one after another: evenly over the
    drain, or over SPREAD_EACH_MS for each where that is less. The application has its say between.
    """
    if r.shutdown_stage == SHUTDOWN_TELLS:
        if shutdown_walk(r, False, r.size):
            r.shutdown_stage = SHUTDOWN_WAITS
            r.drain_by_ms = r.now_ms + r.drain_ms
            shutdown_by(r, r.now_ms + max(r.drain_ms, <int64_t>GOODBYE_MS) + r.grace_ms)
            if r.on.draining(r.on.app):
                reactor_proceed(r)
    elif r.shutdown_stage == SHUTDOWN_SPREADS:
        if shutdown_walk(r, True, spread_due(r)):
            r.shutdown_stage = SHUTDOWN_TOLD
            shutdown_by(r, r.now_ms + r.grace_ms)    # all have the same, however late the last was, or early


cdef bint shutdown_walk(Reactor *r, bint spread, int64_t due) noexcept nogil:
    """Goes on through the table, for a while, and tells connections that are spread, or not. Those that are, until so
    many have been told; else they are counted. Returns whether the end was reached."""
    cdef int n = 0
    cdef int64_t until = nanoseconds() + SHUTDOWN_NS
    cdef Conn *c
    while r.shutdown_fd <= r.top:
        if n & (CLOCK_EVERY - 1) == CLOCK_EVERY - 1 and nanoseconds() >= until:
            return False
        n += 1
        c = &r.table[r.shutdown_fd]
        if c.protocol >= FIRST_PROTOCOL and not c.flags & (CLOSED | LINGERING):
            if protocol_of(r, c).spread != spread:
                r.spread += not spread
            elif spread and r.spread_told >= due:
                return False
            else:
                r.spread_told += spread
                r.current = c
                r.current_sent = 0
                protocol_of(r, c).shutdown(protocol_of(r, c).owner, c)
                conn_settle(r, c)
                r.current = NULL
        r.shutdown_fd += 1
    return True


cdef void reactor_proceed(Reactor *r) noexcept nogil:
    """The application has said its goodbyes: connections that are spread are told of the shutdown from now on. However
    long that took, half of the drain is left for them."""
    if r.shutdown_stage != SHUTDOWN_WAITS:
        return
    if r.clock_stale:
        clock_read(r)
    r.shutdown_stage = SHUTDOWN_SPREADS
    r.shutdown_fd = 0
    r.spread_from_ms = r.now_ms
    r.spread_ms = min(max(r.drain_by_ms - r.now_ms, r.drain_ms // 2), r.spread * SPREAD_EACH_MS)
    shutdown_by(r, r.now_ms + r.spread_ms + r.grace_ms)
    nudge(r)


cdef inline void shutdown_by(Reactor *r, int64_t ms) noexcept nogil:
    """Sets when the shutdown ends, unless that was to be at once."""
    if r.shutdown_by_ms != LONG_AGO_MS:
        r.shutdown_by_ms = ms


cdef inline int64_t spread_due(const Reactor *r) noexcept nogil:
    """How many of the connections that are spread are to have been told by now."""
    cdef int64_t passed_ms = r.now_ms - r.spread_from_ms
    return r.size if passed_ms >= r.spread_ms else r.spread * passed_ms // r.spread_ms


cdef inline int64_t shutdown_wait(const Reactor *r) noexcept nogil:
    """Milliseconds until there is someone to be told; -1: reactor_proceed will say when."""
    if r.shutdown_stage == SHUTDOWN_WAITS:
        return -1
    return SPREAD_STEP_MS if r.shutdown_stage == SHUTDOWN_SPREADS and r.spread_told >= spread_due(r) else 0


cdef bint shutdown_done(const Reactor *r) noexcept nogil:
    """Whether there is nothing left to serve, or no more time."""
    return r.shutting_down and (
        (r.counts.connections == 0 and r.shutdown_stage > SHUTDOWN_WAITS) or r.heard_ms >= r.shutdown_by_ms)


cdef bint reactor_run(Reactor *r) noexcept nogil:
    """Iterates until a signal came or an ATTENDED is readable (False), or the server has stopped or can't go on (True).
    """
    r.thread = pthread_self()
    while True:
        reactor_iterate(r, poll_timeout(r))
        if shutdown_done(r) or r.fault or r.forked:
            return True
        if r.interrupted:
            r.interrupted = False
            return False


cdef bint reactor_is_here(const Reactor *r) noexcept nogil:
    """Whether the calling thread runs the reactor, and so may touch it."""
    return r.thread == pthread_self()


cdef void reactor_wake(Reactor *r) noexcept nogil:
    """Makes the reactor iterate, and call on.woken. Any thread may."""
    cdef uint64_t one = 1
    if r.waker >= 0:
        c_write(r.waker, &one, sizeof(one))


cdef void reactor_alarm(Reactor *r, uint8_t timeout) noexcept nogil:
    """Calls on.alarm once, that timeout class's duration from now. There is one: the deadline of the waker's entry."""
    deadline_set(r, &r.table[r.waker], timeout)


cdef void reactor_close_all(Reactor *r) noexcept nogil:
    """Cuts every connection off. `closed` may close others in its turn, but opens none."""
    cdef int fd
    cdef bint iterating = r.iterating
    r.iterating = True
    for fd in range(r.top + 1 if r.table != NULL else 0):
        if r.table[fd].protocol >= FIRST_PROTOCOL:
            conn_close(r, &r.table[fd])
    reclaim(r)
    if r.on.app != NULL and not r.forked:
        r.on.ended(r.on.app)
        r.on.release(r.on.app)
    r.iterating = iterating
    r.clock_stale = True
    r.thread = 0


cdef void reactor_forget(Reactor *r) noexcept nogil:
    """In the child of a fork: closes every descriptor, and so leaves the parent's epoll set and connections alone.

    Nothing is sent, no callback made and nothing freed: a dispatch may be under way further up the stack. It finds its
    connection CLOSED, and every other entry FREE.
    """
    cdef int fd, i
    for fd in range(r.top + 1):
        if r.table[fd].protocol != FREE:
            if r.table[fd].protocol != ATTENDED:
                close(fd)        # that one is Python's to close
            r.table[fd].protocol = FREE
            r.table[fd].generation += 1
            r.table[fd].flags |= CLOSED
    close(r.epoll)
    r.epoll = r.waker = -1
    r.forked = True
    r.thread = 0
    r.counts.connections = 0
    r.closing_n = 0
    r.write_n = 0
    r.shutdown_stage = SHUTDOWN_TOLD
    r.ready.count = r.flush.count = 0
    for i in range(r.timeouts_n):
        r.timeouts[i].first = r.timeouts[i].last = -1
    r.deadlines_moved = True


# ---- a reactor's memory and descriptors ----

cdef void *reserved(size_t n) noexcept nogil:
    """n bytes of zeroes that cost nothing until they are touched, or NULL."""
    cdef void *at = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    return NULL if at == MAP_FAILED else at


cdef void release(void *at, size_t n) noexcept nogil:
    if at != NULL:
        munmap(at, n)


cdef int reactor_init(Reactor *r, int64_t write_timeout_ms, int waker) noexcept nogil:
    """A reactor with no protocols, listeners or callbacks yet; 0 or an errno. Whatever that is, reactor_free frees it.

    waker: an eventfd, the reactor's from now on, or -1: it makes one.

    It raises the process's soft limit on descriptors to the hard one, for the table is indexed by fd and its size is
    fixed here (getrlimit(2)); ignores SIGPIPE, unless there is a handler; and has malloc keep more of what is freed.
    """
    cdef rlimit_t limit
    cdef size_t ring = 1
    memset(r, 0, sizeof(Reactor))
    r.epoll, r.waker = -1, waker
    r.counts = &r.own_counts
    getrlimit(RLIMIT_NOFILE, &limit)
    limit.rlim_cur = limit.rlim_max
    setrlimit(RLIMIT_NOFILE, &limit)
    getrlimit(RLIMIT_NOFILE, &limit)
    ignore_sigpipe()
    # A long message's buffer lives as long as the message. Left alone, glibc hands its pages back each time, and
    # faulting them in again costs more than all the work that is done with them.
    keep_freed(KEPT_BLOCK, KEPT_IDLE)
    r.trim_ns, r.trim_cpu_ns = nanoseconds(), cpu_nanoseconds()
    r.size = <int>min(limit.rlim_cur, <uint64_t>MAX_TABLE)
    while ring < <size_t>r.size:
        ring *= 2
    r.ready.mask = r.flush.mask = <uint32_t>(ring - 1)
    r.share = MAX_SHARE
    r.forks = forks_seen
    r.protocols_n = FIRST_PROTOCOL
    r.timeouts_n = 1             # 0 means none
    r.write_timeout = timeout_new(r, write_timeout_ms)
    r.linger_timeout = timeout_new(r, LINGER_MS)
    clock_read(r)
    return 0 if memory_reserve(r) and descriptors_open(r) else errno


cdef bint memory_reserve(Reactor *r) noexcept nogil:
    r.table = <Conn *>reserved(r.size * sizeof(Conn))
    r.queues = <SendQueue *>reserved((r.size + QUEUE_CHUNK) * sizeof(SendQueue))
    r.queues_used = <uint16_t *>reserved((r.size // QUEUE_CHUNK + 1) * sizeof(uint16_t))
    r.ready.fds = <int32_t *>reserved((<size_t>r.ready.mask + 1) * sizeof(int32_t))
    r.flush.fds = <int32_t *>reserved((<size_t>r.flush.mask + 1) * sizeof(int32_t))
    r.closing = <int32_t *>reserved(r.size * sizeof(int32_t))
    r.recv_buffer = <uint8_t *>reserved(RECV_BUFFER)
    r.write_buffer = <uint8_t *>reserved(WRITE_BUFFER)
    r.events = <epoll_event *>reserved(EVENTS * sizeof(epoll_event))
    r.batched = <int32_t *>reserved(EVENTS * sizeof(int32_t))
    return (r.table != NULL and r.queues != NULL and r.queues_used != NULL and r.ready.fds != NULL and
            r.flush.fds != NULL and r.closing != NULL and r.recv_buffer != NULL and r.write_buffer != NULL and
            r.events != NULL and r.batched != NULL)


cdef bint descriptors_open(Reactor *r) noexcept nogil:
    r.epoll = epoll_create1(EPOLL_CLOEXEC)
    if r.epoll < 0:
        return False
    if r.waker < 0:
        r.waker = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    return r.waker >= 0 and entry_watch(r, r.waker, WAKER, EPOLLIN)


cdef bint reactor_keep_peers(Reactor *r) noexcept nogil:
    """Has conn_peer know the addresses of connections that come from now on. False: memory is out."""
    if r.peers == NULL:
        r.peers = <Address *>reserved(r.size * sizeof(Address))
    return r.peers != NULL


cdef void reactor_free(Reactor *r) noexcept nogil:
    """Frees a reactor all of whose connections are closed."""
    if r.table != NULL:
        listeners_close(r)
    if r.waker >= 0:
        close(r.waker)
    if r.epoll >= 0:
        close(r.epoll)
    release(r.table, r.size * sizeof(Conn))
    release(r.queues, (r.size + QUEUE_CHUNK) * sizeof(SendQueue))
    release(r.queues_used, (r.size // QUEUE_CHUNK + 1) * sizeof(uint16_t))
    release(r.peers, r.size * sizeof(Address))
    release(r.ready.fds, (<size_t>r.ready.mask + 1) * sizeof(int32_t))
    release(r.flush.fds, (<size_t>r.flush.mask + 1) * sizeof(int32_t))
    release(r.closing, r.size * sizeof(int32_t))
    release(r.recv_buffer, RECV_BUFFER)
    release(r.write_buffer, WRITE_BUFFER)
    release(r.events, EVENTS * sizeof(epoll_event))
    release(r.batched, EVENTS * sizeof(int32_t))


watch_forks()
static_assert(sizeof(Conn) == 64)
static_assert(sizeof(SendQueue) == 32)
