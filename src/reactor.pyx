"""The network layer: one epoll set, one table of connections, one turn after another.

Owns: listeners, the connection table, inbox and outbox, output queues, deadlines, wake-ups, counters.
Refuses to know: HTTP, frames, paths, handlers. It calls upward through reactor.on and nowhere else.

A turn:

    epoll_wait -> event_ready -> conn_read: recv into the inbox -> on.readable -> conn_flush: one send
    then the visitors of the `again` list, then deadlines that have passed, then dirty_run: what was posted, one send
    for each who got any; then reap what was closed

Invariants a change must keep:
- The fd is the index. An entry is FREE or whole; only conn_open, conn_finish, conn_close and reap move it between.
- Between turns an idle visitor has input, output and cold NULL. The outbox is empty between visits.
- Edges are told once. Whoever leaves bytes unread or unsent without having seen EAGAIN (or a short count)
  puts the visitor on the `again` list, or marks it PAUSED with output queued.
- conn_close only marks. Entries are freed, and fds closed, in reap and nowhere else: so no fd is reused
  within a batch of events, and a pointer to a Conn is good until the turn ends.
- A visitor is STALLED from when the kernel would not take all until its queue is empty. So long its deadline is the
  stall timer's, and conn_deadline leaves it alone; on.drained then sets another.
- The outbox is of the visitor being visited. What others are sent meanwhile goes through conn_post.
- Every byte passes net_recv, net_send, net_sendv or net_sendfile.
"""

import os

from cpython.exc cimport PyErr_CheckSignals
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memmove, memset

from c1m.buf cimport block_copy, block_unref, block_ref
from c1m.linux cimport (
    AF_INET, AF_INET6, CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE, CLOCK_REALTIME_COARSE, EAGAIN, ECONNABORTED, EFD_CLOEXEC, EFD_NONBLOCK, EINTR, EMFILE, ENFILE,
    ENOBUFS, ENOMEM, EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT,
    EPOLLRDHUP, MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_PRIVATE, MSG_MORE, MSG_NOSIGNAL, PROT_READ, PROT_WRITE,
    RLIMIT_NOFILE, SHUT_WR, SIOCOUTQ, SOCK_CLOEXEC, SOCK_NONBLOCK, accept4, c_read, c_write, clock_gettime, close, epoll_create1,
    epoll_ctl, epoll_event, epoll_wait, errno, eventfd, getrlimit, ignore_sigpipe, inet_ntop, ioctl, iovec, keep_freed, mmap, msghdr, munmap, pthread_self, recv, rlimit_t, send,
    sendfile, sendmsg, setrlimit, shutdown, sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage, timespec, FIONREAD,
)

cdef extern from *:
    void prefetch "__builtin_prefetch"(const void *p) noexcept nogil

cdef enum:
    EVENTS = 512                 # taken from epoll at a time
    INBOX = 128 << 10            # one recv's worth; also all that is kept of a paused visitor's input
    ACCEPTS = 256                # per listener and turn
    TURN_NS = 4000000            # of a turn, that go to files, and again to visitors whom earlier ones put off
    RUNS = 256                   # pieces in one sendmsg
    TURN_SENDS = 16 << 20        # bytes of queued output in a turn, shared by those who are visited in it:
    MAX_SHARE = 1 << 20         # to each so many
    MIN_SHARE = 64 << 10
    LINGER_MS = 2000
    KEPT_BLOCK = 4 << 20         # malloc keeps the memory of freed blocks below this size
    KEPT_IDLE = 16 << 20         # up to so many bytes of it
    RETRY_TICKS = (1000 >> TICK_SHIFT) + 1    # between attempts to accept when descriptors have run out
    QUIET_TICKS = 60000 >> TICK_SHIFT         # between two lines in the log about it


# ---- the table ----

cdef inline int fd_of(const Reactor *r, const Conn *c) noexcept nogil:
    return <int>(c - r.table)


cdef uint64_t handle_of(const Reactor *r, const Conn *c) noexcept nogil:
    return <uint64_t>c.generation << 32 | <uint32_t>fd_of(r, c)


cdef Conn *conn_of(const Reactor *r, uint64_t handle) noexcept nogil:
    """The visitor that handle_of once named; NULL if it has gone."""
    cdef Conn *c = &r.table[<uint32_t>handle]
    return c if c.generation == <uint32_t>(handle >> 32) and c.kind == VISITOR and not c.flags & CLOSED else NULL


cdef bint entry_watch(Reactor *r, int fd, uint8_t kind, uint32_t events) noexcept nogil:
    """Makes fd an entry of that kind, and epoll watch it. False: it can't be, and the entry is FREE."""
    cdef Conn *c = &r.table[fd]
    cdef epoll_event event
    cdef uint32_t generation = c.generation or 1      # so that no handle is 0
    memset(c, 0, sizeof(Conn))
    c.generation = generation
    c.kind = kind
    event.events = events
    event.data.u64 = handle_of(r, c)
    if epoll_ctl(r.epoll, EPOLL_CTL_ADD, fd, &event) < 0:
        c.kind = FREE
        return False
    r.top = max(r.top, fd)
    if kind == LISTENER:
        r.listeners_top = max(r.listeners_top, fd)
    return True


cdef void conn_open(Reactor *r, int fd) noexcept nogil:
    """A visitor was accepted."""
    if fd >= r.size or not entry_watch(r, fd, VISITOR, EPOLLIN | EPOLLRDHUP | EPOLLET):
        close(fd)
        return
    r.live += 1
    r.accepted += 1
    r.on.opened(r.app, &r.table[fd])


cdef void conn_peer(const Reactor *r, const Conn *c, char *to) noexcept nogil:
    """Writes its numeric address, "-" where there is or was kept none, to MAX_PEER_TEXT bytes."""
    cdef const Peer *peer
    to[0], to[1] = c'-', 0
    if r.peers != NULL:
        peer = &r.peers[fd_of(r, c)]
        inet_ntop(peer.family, peer.address, to, MAX_PEER_TEXT)     # writes nothing for a Unix-domain socket


cdef void conn_close(Reactor *r, Conn *c) noexcept nogil:
    """Nothing more goes in or out; on.closed follows at the end of the turn."""
    if not c.flags & CLOSED:
        c.flags |= CLOSED
        r.doomed[r.doomed_n] = fd_of(r, c)
        r.doomed_n += 1


cdef void conn_finish(Reactor *r, Conn *c, bint linger) noexcept nogil:
    """Closes once all output has left. linger: the peer may still be sending what we will not read."""
    c.flags |= FINISHING | (LINGER if linger else 0)
    if r.visited != c and not c.flags & (CLOSED | DIRTY):
        conn_again(r, c)         # no visit's end will see to it


cdef void reap(Reactor *r) noexcept nogil:
    """Frees what was closed in this turn, and what on.closed closes meanwhile."""
    cdef int i = 0
    cdef Conn *c
    while i < r.doomed_n:
        c = &r.table[r.doomed[i]]
        r.on.closed(r.app, c)
        deadline_unlink(r, c)
        block_unref(c.input)
        queue_free(r, c)
        close(r.doomed[i])
        c.kind = FREE
        c.generation += 1
        r.live -= 1
        i += 1
    if r.full and r.doomed_n:
        listeners_watch(r, True)
    r.doomed_n = 0


# ---- listeners ----

cdef inline int visitor_accept(Reactor *r, int listener) noexcept nogil:
    """A new visitor's fd, its address noted if anyone wants to know; or -1 and errno."""
    cdef sockaddr_storage address
    cdef unsigned int n = sizeof(address)
    cdef int fd
    if r.peers == NULL:
        return accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
    fd = accept4(listener, <sockaddr *>&address, &n, SOCK_NONBLOCK | SOCK_CLOEXEC)
    if 0 <= fd < r.size:
        r.peers[fd].family = <uint8_t>address.ss_family
        if address.ss_family == AF_INET:
            memcpy(r.peers[fd].address, &(<sockaddr_in *>&address).sin_addr, 4)
        elif address.ss_family == AF_INET6:
            memcpy(r.peers[fd].address, &(<sockaddr_in6 *>&address).sin6_addr, 16)
    return fd


cdef void listener_ready(Reactor *r, int listener) noexcept nogil:
    cdef int i, fd
    if r.full:
        return                   # found out earlier in this batch
    for i in range(ACCEPTS):
        fd = visitor_accept(r, listener)
        if fd >= 0:
            conn_open(r, fd)
        elif errno == EMFILE or errno == ENFILE or errno == ENOBUFS or errno == ENOMEM:
            listeners_watch(r, False)
            return
        elif errno != ECONNABORTED and errno != EINTR:
            break                # EAGAIN, or an error of that one connection (accept(2)): epoll tells us of more
    if r.noted and <uint32_t>(r.tick - r.noted_tick) > QUIET_TICKS:
        r.noted = False
        r.on.note(r.app, NOTE_NOT_FULL)


cdef void listeners_watch(Reactor *r, bint on) noexcept nogil:
    """Stops or resumes watching the listeners: with no descriptor to be had, a watched one would spin."""
    cdef epoll_event event
    cdef int fd
    for fd in range(r.listeners_top + 1):
        if r.table[fd].kind == LISTENER:
            event.events = EPOLLIN if on else 0
            event.data.u64 = handle_of(r, &r.table[fd])
            epoll_ctl(r.epoll, EPOLL_CTL_MOD, fd, &event)
    r.full = not on
    if r.full:
        r.full_tick = r.tick
        r.full_count += 1
        if not r.noted:
            r.noted = True
            r.noted_tick = r.tick
            r.on.note(r.app, NOTE_FULL)


cdef void listeners_close(Reactor *r) noexcept nogil:
    cdef int fd
    for fd in range(r.listeners_top + 1):
        if r.table[fd].kind == LISTENER:
            r.table[fd].kind = FREE
            r.table[fd].generation += 1
            close(fd)


cdef inline int64_t nanoseconds() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <int64_t>t.tv_sec * 1000000000 + t.tv_nsec


# ---- the socket's edge ----

cdef inline ssize_t net_recv(Reactor *r, Conn *c, uint8_t *to, size_t n) noexcept nogil:
    """Bytes received; 0 at the peer's end; -1 for none now; -2 where the connection is lost."""
    cdef ssize_t got = recv(fd_of(r, c), to, n, 0)
    if got >= 0:
        r.received += got
        return got
    return -1 if errno == EAGAIN or errno == EINTR else -2


cdef inline ssize_t net_sent(Reactor *r, Conn *c, ssize_t sent) noexcept nogil:
    """What became of bytes to be sent: how many the kernel took, 0 for none now; -1 where the connection is lost, and then it is closed."""
    if sent >= 0:
        r.sent += sent
        return sent
    if errno == EAGAIN or errno == EINTR:
        return 0
    conn_close(r, c)
    return -1


cdef inline ssize_t net_send(Reactor *r, Conn *c, const void *bytes, size_t n, int flags) noexcept nogil:
    return net_sent(r, c, send(fd_of(r, c), bytes, n, MSG_NOSIGNAL | flags))


cdef inline ssize_t net_sendv(Reactor *r, Conn *c, iovec *runs, int n, int flags) noexcept nogil:
    """Any number of runs."""
    cdef msghdr message
    memset(&message, 0, sizeof(message))
    message.msg_iov, message.msg_iovlen = runs, n
    return net_sent(r, c, sendmsg(fd_of(r, c), &message, MSG_NOSIGNAL | flags))


cdef inline ssize_t net_sendfile(Reactor *r, Conn *c, int file, int64_t at, size_t n) noexcept nogil:
    """n bytes of a file. One that has become shorter loses the connection: its length was promised."""
    cdef ssize_t sent = sendfile(fd_of(r, c), file, &at, n)
    if sent == 0:
        conn_close(r, c)
        return -1
    return net_sent(r, c, sent)


# ---- input ----

cdef void conn_read(Reactor *r, Conn *c, bint resumed) noexcept nogil:
    """One recv and all that follows from it. resumed: bytes kept aside are to be looked at even if none come."""
    cdef size_t have = 0, used = 0
    cdef ssize_t got = 0
    cdef bint more = False       # whether the socket may hold bytes, or the stream's end, that no edge will announce
    if c.input != NULL:
        have = c.input.size
        memcpy(r.inbox, c.input.data, have)
    if have == INBOX:
        more = True
    elif not c.flags & PEER_DONE:
        got = net_recv(r, c, r.inbox + have, INBOX - have)
        if got == -2:
            conn_close(r, c)
            return
        if got == 0:
            c.flags |= PEER_DONE
        more = got == <ssize_t>(INBOX - have) or (got > 0 and (resumed or c.flags & ENDING))
        got = max(got, 0)
    if got or resumed:
        block_unref(c.input)
        c.input = NULL
        have += got
        r.visited = c
        used = r.on.readable(r.app, c, r.inbox, have)
        if used < have and not conn_ending(c):
            c.input = block_copy(r.inbox + used, have - used)
            if c.input == NULL:
                conn_close(r, c)
        conn_flush(r, c, 0)
        r.visited = NULL
    if conn_ending(c):
        conn_settle(r, c)
    elif c.flags & HELD:
        pass                     # conn_hold visits it again
    elif c.output != NULL and (conn_choked(c) or (used < have and not c.flags & DUPLEX)):
        c.flags |= PAUSED
    elif c.flags & PEER_DONE:
        conn_finish(r, c, False)
        conn_settle(r, c)
    elif more:
        conn_again(r, c)


cdef void conn_drop_input(Reactor *r, Conn *c) noexcept nogil:
    """Lingering: reads and forgets, until the peer closes or the deadline falls."""
    cdef ssize_t got = net_recv(r, c, r.inbox, INBOX)
    if got == 0 or got == -2:
        conn_close(r, c)
    elif got > 0:
        conn_again(r, c)


cdef void conn_again(Reactor *r, Conn *c) noexcept nogil:
    """There may be more to do for it, and no edge will tell: visit it next turn."""
    if not c.flags & AGAIN:
        if not r.in_turn:
            reactor_wake(r)
        c.flags |= AGAIN
        r.again[r.again_n] = handle_of(r, c)
        r.again_n += 1


# ---- output ----

cdef uint8_t *conn_room(Reactor *r, Conn *c, size_t n) noexcept nogil:
    """Where to write up to n (at most OUTBOX) bytes for this visitor; conn_wrote then says how many they were."""
    if r.outbox_n + n > OUTBOX:
        conn_flush(r, c, MSG_MORE)
    return r.outbox + r.outbox_n


cdef void conn_flush(Reactor *r, Conn *c, int flags) noexcept nogil:
    """Sends the outbox; what the kernel does not take is queued."""
    cdef size_t n = r.outbox_n
    cdef ssize_t sent = 0
    if n == 0:
        return
    if c.output != NULL or c.flags & CLOSED:
        outbox_queue(r, c)
        return
    r.outbox_n = 0
    sent = net_send(r, c, r.outbox, n, flags)
    if 0 <= sent < <ssize_t>n:
        queue_copy(r, c, r.outbox + sent, n - sent)
        stalled(r, c)


cdef void outbox_queue(Reactor *r, Conn *c) noexcept nogil:
    """Puts what the outbox holds at the end of the queue."""
    if r.outbox_n and not c.flags & CLOSED:
        queue_copy(r, c, r.outbox, r.outbox_n)
    r.outbox_n = 0


cdef void conn_send(Reactor *r, Conn *c, Block *block, int64_t at, size_t n) noexcept nogil:
    """Sends n bytes of a block from `at` on, after what the outbox holds. Holds the block for as long as it needs it."""
    cdef size_t head = r.outbox_n
    cdef iovec[2] runs
    cdef ssize_t sent
    if block.fd >= 0 or c.output != NULL or c.flags & CLOSED:
        conn_flush(r, c, MSG_MORE)
        if not c.flags & CLOSED:
            queue_add(r, c, block, at, n, 0)
            if block.fd >= 0 and c.output != NULL and c.output.first.next == NULL:
                if nanoseconds() < r.until_ns:
                    queue_send(r, c)
                else:
                    conn_again(r, c)        # files have had their time in this turn
        return
    r.outbox_n = 0
    runs[0].iov_base, runs[0].iov_len = r.outbox, head
    runs[1].iov_base, runs[1].iov_len = block.data + at, n
    sent = net_sendv(r, c, runs, 2, 0) if head else net_send(r, c, block.data + at, n, 0)
    if sent < 0 or <size_t>sent == head + n:
        return
    if <size_t>sent < head:
        queue_copy(r, c, r.outbox + sent, head - sent)
        sent = head
    queue_add(r, c, block, at + (sent - head), n - (sent - head), 0)
    stalled(r, c)


cdef void conn_post(Reactor *r, Conn *c, Block *block, int64_t at, size_t n, uint32_t tag) noexcept nogil:
    """Like conn_send, for any visitor at any time on the reactor's thread: all that is posted in a turn leaves at its end."""
    if conn_ending(c):
        return
    if r.visited == c:
        outbox_queue(r, c)       # what was written before goes before
    queue_add(r, c, block, at, n, tag)
    if c.flags & (DIRTY | CLOSED | STALLED):
        return
    c.flags |= DIRTY
    r.dirty[r.dirty_n] = fd_of(r, c)
    r.dirty_n += 1
    if not r.in_turn:
        reactor_wake(r)


cdef void conn_push(Reactor *r, Conn *c) noexcept nogil:
    """Sends now what was posted in this turn, unless the peer is known to be slow: what is left then has to wait for it.

    Whoever empties the queue so has to post something more: what follows at the turn's end would not, without output.
    """
    if c.output != NULL and not c.flags & (STALLED | CLOSED):
        queue_send(r, c)


cdef void dirty_run(Reactor *r) noexcept nogil:
    """Sends what was posted in this turn."""
    cdef int i = 0
    cdef Conn *c
    while i < r.dirty_n:
        c = &r.table[r.dirty[i]]
        i += 1
        c.flags &= ~DIRTY
        if c.flags & CLOSED or c.output == NULL or not drained(r, c, c.flags & (STALLED | WANTS_DRAIN) != 0):
            continue
        if c.flags & FINISHING:
            conn_settle(r, c)
        elif c.flags & PAUSED:
            c.flags = (c.flags & ~PAUSED) | RESUMED
            conn_again(r, c)
    r.dirty_n = 0


cdef size_t conn_drop(Reactor *r, Conn *c, uint32_t tag, size_t down_to) noexcept nogil:
    """Drops queued pieces of which nothing has left, oldest first, until the backlog is at most down_to.

    tag: only of this kind, or 0 for of any but 0. Returns how many pieces that were.
    """
    cdef Piece **link
    cdef Piece *piece
    cdef Piece *last = NULL
    cdef size_t dropped = 0
    if c.output == NULL:
        return 0
    link = &c.output.first
    while link[0] != NULL and conn_backlog(c) > down_to:
        piece = link[0]
        if piece.tag and (tag == 0 or piece.tag == tag) and not piece.begun:
            link[0] = piece.next
            c.output.bytes -= piece.left
            c.output.pieces -= 1
            block_unref(piece.block)
            free(piece)
            dropped += 1
        else:
            last = piece
            link = &piece.next
    if link[0] == NULL:
        c.output.last = last
    return dropped


cdef inline void queue_copy(Reactor *r, Conn *c, const uint8_t *bytes, size_t n) noexcept nogil:
    """Puts a copy of some bytes at the end of the queue."""
    cdef Block *copy = block_copy(bytes, n)
    queue_add(r, c, copy, 0, n, 0)
    block_unref(copy)


cdef void queue_add(Reactor *r, Conn *c, Block *block, int64_t at, size_t n, uint32_t tag) noexcept nogil:
    """Puts a piece of a block at the end of the queue. A NULL block means memory is out: the connection closes."""
    cdef Piece *piece = <Piece *>malloc(sizeof(Piece))
    if c.output == NULL and piece != NULL and block != NULL:
        c.output = queue_new(r)
    if c.output == NULL or piece == NULL or block == NULL:
        free(piece)
        conn_close(r, c)
        return
    piece.next = NULL
    piece.block = block_ref(block)
    piece.at = at
    piece.left = n
    piece.tag = tag
    piece.begun = False
    if c.output.last == NULL:
        c.output.first = piece
    else:
        c.output.last.next = piece
    c.output.last = piece
    c.output.bytes += n
    c.output.pieces += 1


cdef Queue *queue_new(Reactor *r) noexcept nogil:
    """An empty queue, one that was in use before if there is any. NULL: memory is out."""
    cdef Queue *q = r.spare_queues
    if q == NULL:
        return <Queue *>calloc(1, sizeof(Queue))
    r.spare_queues = q.next
    return q


cdef void queue_retire(Reactor *r, Conn *c) noexcept nogil:
    """The visitor's queue is empty, and no longer its own."""
    cdef Queue *q = c.output
    memset(q, 0, sizeof(Queue))
    q.next = r.spare_queues
    r.spare_queues = q
    c.output = NULL
    c.flags &= ~STALLED


cdef void queue_send(Reactor *r, Conn *c) noexcept nogil:
    """Sends what it can of the queue, up to a turn's share. When it is empty c.output is NULL again."""
    cdef Queue *q = c.output
    cdef iovec[RUNS] runs
    cdef Piece *piece
    cdef ssize_t sent
    cdef size_t share = r.share
    cdef int n
    while q.first != NULL and share:
        piece = q.first
        if piece.block.fd >= 0:
            sent = net_sendfile(r, c, piece.block.fd, piece.at, min(piece.left, share))
        else:
            n = 0
            while piece != NULL and piece.block.fd < 0 and n < RUNS:
                runs[n].iov_base, runs[n].iov_len = piece.block.data + piece.at, piece.left
                n += 1
                piece = piece.next
            sent = net_sendv(r, c, runs, n, MSG_MORE if piece != NULL else 0)
        if sent < 0:
            return
        if sent == 0:
            stalled(r, c)
            break
        share -= min(share, <size_t>sent)
        queue_took(q, sent)
    if q.first == NULL:
        queue_retire(r, c)
        return
    if share < r.share or not c.flags & STALLED:
        peer_reads(r, c)
        conn_deadline_set(r, c, r.stall_timer)
        c.flags |= STALLED
    if share == 0:
        conn_again(r, c)


cdef void queue_took(Queue *q, size_t n) noexcept nogil:
    """The kernel took the queue's first n bytes."""
    cdef Piece *piece
    cdef size_t step
    q.bytes -= n
    while n:
        piece = q.first
        step = min(n, piece.left)
        piece.at += step
        piece.left -= step
        piece.begun = True
        n -= step
        if piece.left == 0:
            q.first = piece.next
            q.pieces -= 1
            if q.first == NULL:
                q.last = NULL
            block_unref(piece.block)
            free(piece)


cdef bint peer_reads(Reactor *r, Conn *c) noexcept nogil:
    """Whether the peer has taken something since we last looked. EPOLLOUT does not say: a third of the kernel's buffer has to be free."""
    cdef int before = c.output.unacked
    ioctl(fd_of(r, c), SIOCOUTQ, &c.output.unacked)
    return c.output.unacked < before


cdef void queue_free(Reactor *r, Conn *c) noexcept nogil:
    cdef Piece *piece
    if c.output == NULL:
        return
    while c.output.first != NULL:
        piece = c.output.first
        c.output.first = piece.next
        block_unref(piece.block)
        free(piece)
    queue_retire(r, c)


cdef void stalled(Reactor *r, Conn *c) noexcept nogil:
    """The kernel's buffer is full: from now on we want to hear when it is not, and within the stall timer's time."""
    cdef epoll_event event
    if c.flags & CLOSED:
        return
    if not c.flags & STALLED:
        peer_reads(r, c)
        conn_deadline_set(r, c, r.stall_timer)
        c.flags |= STALLED
    if c.flags & WATCHING_OUT:
        return
    c.flags |= WATCHING_OUT
    event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET
    event.data.u64 = handle_of(r, c)
    epoll_ctl(r.epoll, EPOLL_CTL_MOD, fd_of(r, c), &event)


cdef bint drained(Reactor *r, Conn *c, bint told) noexcept nogil:
    """Sends what it can of the queue. told: the application is to hear of it. Whether nothing is left, and the visitor still there."""
    queue_send(r, c)
    if c.flags & CLOSED or (c.output != NULL and not c.flags & WANTS_DRAIN):
        return False
    if told and not c.flags & FINISHING:
        r.on.drained(r.app, c)
    return c.output == NULL and not c.flags & CLOSED


cdef void conn_drained(Reactor *r, Conn *c) noexcept nogil:
    """The kernel may take more."""
    cdef bint all
    r.visited = c
    all = drained(r, c, True)
    conn_flush(r, c, 0)
    r.visited = NULL
    if c.flags & (CLOSED | FINISHING):
        conn_settle(r, c)
        return
    if not all and (not c.flags & PAUSED or conn_backlog(c) > MAX_UNSENT // 2):
        return
    c.flags &= ~PAUSED
    if not c.flags & HELD:
        c.flags &= ~RESUMED
        conn_read(r, c, True)


cdef void conn_hold(Reactor *r, Conn *c, bint held) noexcept nogil:
    """Reads the visitor no further until it is let go again."""
    if held:
        c.flags |= HELD
    elif c.flags & HELD:
        c.flags = (c.flags & ~HELD) | RESUMED
        conn_again(r, c)


cdef void conn_settle(Reactor *r, Conn *c) noexcept nogil:
    """Ends a visit: sends the outbox, and where the visitor is FINISHING and nothing is left to send, closes it."""
    conn_flush(r, c, 0)
    if c.flags & CLOSED or not c.flags & FINISHING or c.output != NULL or c.flags & LINGERING:
        return
    if c.flags & PEER_DONE or not (c.flags & LINGER or unread(r, c)):
        conn_close(r, c)
        return
    c.flags |= LINGERING
    shutdown(fd_of(r, c), SHUT_WR)
    conn_deadline_set(r, c, r.linger_timer)
    conn_drop_input(r, c)


cdef bint unread(const Reactor *r, const Conn *c) noexcept nogil:
    """Whether the peer has sent what nobody has looked at: to close then resets the connection (RFC 9112 section 9.6)."""
    cdef int n = 0
    ioctl(fd_of(r, c), FIONREAD, &n)
    return n > 0 or c.input != NULL


# ---- deadlines ----

cdef uint8_t timer_for(Reactor *r, int64_t ms) noexcept nogil:
    """The list of deadlines that lie ms ahead, 1 and up; 0 where there are too many durations."""
    # One tick more, since the tick we are in is partly over.
    cdef uint32_t ticks = <uint32_t>((ms + (1 << TICK_SHIFT) - 1) >> TICK_SHIFT) + 1
    cdef int i
    for i in range(r.linger_timer + 1, r.timers_n):       # the reactor's own two are never shared
        if r.timers[i].ticks == ticks:
            return i
    if r.timers_n == TIMERS:
        return 0
    r.timers[r.timers_n] = Timer(ticks, -1, -1)
    r.timers_n += 1
    return r.timers_n - 1


cdef void conn_deadline(Reactor *r, Conn *c, uint8_t timer) noexcept nogil:
    """Sets the visitor's deadline anew, that timer's duration from now. While its output stalls, that counts instead."""
    if not c.flags & STALLED:
        conn_deadline_set(r, c, timer)


cdef inline void conn_deadline_set(Reactor *r, Conn *c, uint8_t timer) noexcept nogil:
    cdef Timer *list = &r.timers[timer]
    cdef uint32_t due
    if not r.in_turn:
        clock_read(r)            # the last turn may be long ago
    due = r.tick + list.ticks
    # Within a tick nothing moves, so a busy visitor touches its neighbours' lines only 16 times a second.
    if c.timer == timer and c.tick == due:
        return
    deadline_unlink(r, c)
    c.timer = timer
    c.tick = due
    c.next = -1
    c.prev = list.last
    if list.last < 0:
        list.first = fd_of(r, c)
    else:
        r.table[list.last].next = fd_of(r, c)
    list.last = fd_of(r, c)


cdef inline void deadline_unlink(Reactor *r, Conn *c) noexcept nogil:
    cdef Timer *list = &r.timers[c.timer]
    if c.timer == 0:
        return
    if c.prev < 0:
        list.first = c.next
    else:
        r.table[c.prev].next = c.next
    if c.next < 0:
        list.last = c.prev
    else:
        r.table[c.next].prev = c.prev
    c.timer = 0


cdef void deadlines_expire(Reactor *r) noexcept nogil:
    cdef int i
    cdef Conn *c
    for i in range(1, r.timers_n):
        while r.timers[i].first >= 0:
            c = &r.table[r.timers[i].first]
            if <int32_t>(r.tick - c.tick) < 0:
                break
            deadline_unlink(r, c)
            if c.flags & CLOSED:
                continue
            if c.kind == WAKER:
                r.on.alarm(r.app)
                continue
            if i == r.stall_timer and c.output != NULL and peer_reads(r, c):
                conn_deadline_set(r, c, r.stall_timer)
                continue
            if i == r.stall_timer or i == r.linger_timer:
                conn_close(r, c)
                continue
            r.visited = c
            r.on.expired(r.app, c)
            conn_settle(r, c)
            r.visited = NULL


cdef int patience(Reactor *r) noexcept nogil:
    """Milliseconds epoll may wait: 0 where a visitor waits, else until the next deadline, -1 for ever."""
    cdef int64_t wait = -1, due
    cdef int i
    if r.again_n:
        return 0
    for i in range(1, r.timers_n):
        if r.timers[i].first >= 0:
            due = <int64_t><int32_t>(r.table[r.timers[i].first].tick - r.tick) << TICK_SHIFT
            wait = due if wait < 0 or due < wait else wait
    if r.full and (wait < 0 or wait > 1000):
        wait = 1000
    if r.leaving and (wait < 0 or wait > r.leave_by_ms - r.now_ms):
        wait = max(r.leave_by_ms - r.now_ms, 0)
    return <int>min(wait, 1 << 30)


cdef void clock_read(Reactor *r) noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t)
    r.now_ms = <int64_t>t.tv_sec * 1000 + t.tv_nsec // 1000000
    r.tick = <uint32_t>(r.now_ms >> TICK_SHIFT)
    clock_gettime(CLOCK_REALTIME_COARSE, &t)
    r.unix_s = t.tv_sec


# ---- turns ----

cdef void reactor_turn(Reactor *r, int wait_ms) noexcept nogil:
    """Waits for something to happen, so long at the most, and deals with it."""
    cdef int i, n = epoll_wait(r.epoll, r.events, EVENTS, wait_ms)
    if n < 0:
        r.interrupted = errno == EINTR
        n = 0
    r.turns += 1
    r.in_turn = True
    r.until_ns = nanoseconds() + TURN_NS
    r.share = max(<size_t>MIN_SHARE, min(<size_t>MAX_SHARE, <size_t>TURN_SENDS // (n + r.again_n + 1)))
    clock_read(r)
    for i in range(n):
        if i + 1 < n:
            prefetch(&r.table[<uint32_t>r.events[i + 1].data.u64])
        event_ready(r, &r.events[i])
    again_run(r)
    deadlines_expire(r)
    if r.full and <uint32_t>(r.tick - r.full_tick) >= RETRY_TICKS:
        listeners_watch(r, True)
    dirty_run(r)
    r.in_turn = False            # what on.closed posts is for another turn
    reap(r)


cdef inline void event_ready(Reactor *r, const epoll_event *event) noexcept nogil:
    cdef int fd = <int><uint32_t>event.data.u64
    cdef Conn *c = &r.table[fd]
    if c.generation != <uint32_t>(event.data.u64 >> 32):
        return                   # of a former life of this fd
    if c.kind == VISITOR:
        conn_ready(r, c, event.events)
    elif c.kind == LISTENER:
        listener_ready(r, fd)
    elif c.kind == WAKER:
        woken(r)
    elif c.kind == SIGNALS:
        recv(fd, r.inbox, INBOX, 0)
        r.interrupted = True


cdef inline void conn_ready(Reactor *r, Conn *c, uint32_t events) noexcept nogil:
    """A visitor's edge."""
    if c.flags & CLOSED:
        return
    if events & (EPOLLERR | EPOLLHUP) and c.flags & (PAUSED | HELD | FINISHING):
        conn_close(r, c)         # both ways are shut: our answers have no one to go to
        return
    if events & (EPOLLRDHUP | EPOLLERR | EPOLLHUP):
        c.flags |= ENDING
    if events & EPOLLOUT and c.output != NULL:
        conn_drained(r, c)
    if not events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP) or c.flags & (CLOSED | PAUSED | HELD):
        return
    if c.flags & LINGERING:
        conn_drop_input(r, c)
        return
    if c.flags & FINISHING:
        return
    conn_read(r, c, False)


cdef void again_run(Reactor *r) noexcept nogil:
    """Visits those whom earlier turns put off, for a while, and puts who is put off once more behind the others.

    A visit may take long although it sends little: what goes to a peer with a tiny window the kernel cuts to pieces.
    """
    cdef uint64_t *list = r.again
    cdef int i = 0, n = r.again_n
    cdef int64_t until = nanoseconds() + TURN_NS if n > 1 else 0
    cdef Conn *c
    cdef bint resumed
    r.again, r.again_now = r.again_now, list
    r.again_n = 0
    # All of them where the list fills up, with visitors that have gone and come again.
    while i < n and (i == 0 or n > r.size or nanoseconds() < until):
        c = &r.table[<uint32_t>list[i]]
        i += 1
        if c.generation != <uint32_t>(list[i - 1] >> 32) or c.kind != VISITOR:
            continue
        c.flags &= ~AGAIN
        if c.flags & CLOSED:
            continue
        if c.output != NULL:
            conn_drained(r, c)
            if c.output == NULL or c.flags & (CLOSED | FINISHING | PAUSED):
                continue         # it was read just now, or is not to be
        if c.flags & LINGERING:
            conn_drop_input(r, c)
        elif c.flags & FINISHING:
            conn_settle(r, c)
        elif not c.flags & HELD:
            resumed = c.flags & RESUMED != 0
            c.flags &= ~RESUMED
            conn_read(r, c, resumed)
    if i < n:
        memmove(list, list + i, (n - i) * sizeof(uint64_t))
        memcpy(list + (n - i), r.again, r.again_n * sizeof(uint64_t))
        r.again, r.again_now = list, r.again
        r.again_n += n - i


cdef void woken(Reactor *r) noexcept nogil:
    """Another thread wants something: it wrote `asked` first."""
    cdef uint64_t count
    cdef int asked
    cdef bint done
    c_read(r.waker, &count, sizeof(count))
    asked = r.asked              # before on.woken, so that whatever was wanted earlier comes first
    done = r.on.woken(r.app)
    if not done:
        reactor_wake(r)
    if asked >= ASK_LEAVE and not r.leaving:
        if r.leave_by_ms == 0:
            r.leave_by_ms = r.now_ms + r.grace_ms
        if done or r.now_ms >= r.leave_by_ms or asked >= ASK_STOP:
            leave(r)
    if asked >= ASK_STOP:
        r.leave_by_ms = r.now_ms


cdef void leave(Reactor *r) noexcept nogil:
    """Accepts nobody any more, and has the application take its leave of everybody."""
    cdef int fd
    r.leaving = True
    listeners_close(r)
    for fd in range(r.top + 1):
        if r.table[fd].kind == VISITOR and not r.table[fd].flags & (CLOSED | LINGERING):
            r.visited = &r.table[fd]
            r.on.leaving(r.app, &r.table[fd])
            conn_settle(r, &r.table[fd])
            r.visited = NULL


cdef bint reactor_run(Reactor *r) noexcept nogil:
    """Turns until a signal came (False) or the server has left (True)."""
    r.thread = pthread_self()
    while True:
        reactor_turn(r, patience(r))
        if r.leaving and (r.live == 0 or r.now_ms >= r.leave_by_ms):
            return True
        if r.interrupted:
            r.interrupted = False
            return False


cdef bint reactor_is_here(const Reactor *r) noexcept nogil:
    """Whether the calling thread runs the reactor, and so may touch it."""
    return r.thread == pthread_self()


cdef void reactor_wake(Reactor *r) noexcept nogil:
    """Makes the reactor turn, and call on.woken. Any thread may."""
    cdef uint64_t one = 1
    c_write(r.waker, &one, sizeof(one))


cdef void reactor_alarm(Reactor *r, uint8_t timer) noexcept nogil:
    """Calls on.alarm once, that timer's duration from now. There is one alarm: it is the deadline of the waker's entry."""
    conn_deadline_set(r, &r.table[r.waker], timer)


cdef void reactor_close_all(Reactor *r) noexcept nogil:
    """Cuts every visitor off. on.closed may close others in its turn, but opens none."""
    cdef int fd
    for fd in range(r.top + 1 if r.table != NULL else 0):
        if r.table[fd].kind == VISITOR:
            conn_close(r, &r.table[fd])
    reap(r)
    r.thread = 0


# ---- the reactor as Python sees it ----

cdef void *reserved(size_t n) except NULL:
    """n bytes of zeroes that cost nothing until they are touched."""
    cdef void *at = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if at == MAP_FAILED:
        raise MemoryError(f"cannot reserve {n} bytes for the connection table")
    return at


cdef void release(void *at, size_t n) noexcept:
    if at != NULL:
        munmap(at, n)


cdef class Loop:
    """One reactor; an application derives from it and sets its upcalls.

    It belongs to the thread that runs it. leave(), stop() and counters() may be called from any.

    write_timeout_ms: how long queued output may wait for the peer to read, in milliseconds.
    Raises OSError where the kernel gives no epoll or eventfd, MemoryError.
    """

    def __cinit__(self, *, int64_t write_timeout_ms, **_):
        cdef Reactor *r = &self.r
        cdef rlimit_t limit
        memset(r, 0, sizeof(Reactor))
        r.epoll = r.waker = -1
        # The table is indexed by fd: raise the soft limit before its size is fixed (getrlimit(2)).
        getrlimit(RLIMIT_NOFILE, &limit)
        limit.rlim_cur = limit.rlim_max
        setrlimit(RLIMIT_NOFILE, &limit)
        getrlimit(RLIMIT_NOFILE, &limit)
        ignore_sigpipe()
        # A long message's buffer lives as long as the message. Left alone, glibc hands its pages back each time, and to
        # fault them in again costs more than all else that is done with them.
        keep_freed(KEPT_BLOCK, KEPT_IDLE)
        r.size = <int>min(limit.rlim_cur, <uint64_t>1 << 24)
        r.table = <Conn *>reserved(r.size * sizeof(Conn))
        r.again = <uint64_t *>reserved(2 * r.size * sizeof(uint64_t))
        r.again_now = <uint64_t *>reserved(2 * r.size * sizeof(uint64_t))
        r.doomed = <int32_t *>reserved(r.size * sizeof(int32_t))
        r.dirty = <int32_t *>reserved(r.size * sizeof(int32_t))
        r.inbox = <uint8_t *>reserved(INBOX)
        r.outbox = <uint8_t *>reserved(OUTBOX)
        r.events = <epoll_event *>reserved(EVENTS * sizeof(epoll_event))
        r.share = MAX_SHARE
        r.timers_n = 1           # 0 means none
        r.stall_timer = r.linger_timer = timer_for(r, write_timeout_ms)
        r.linger_timer = timer_for(r, LINGER_MS)
        clock_read(r)
        r.epoll = epoll_create1(EPOLL_CLOEXEC)
        if r.epoll >= 0:
            r.waker = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if r.waker < 0 or r.waker >= r.size or not entry_watch(r, r.waker, WAKER, EPOLLIN):
            raise OSError(errno, f"cannot start: {os.strerror(errno)}")

    def __dealloc__(self):
        cdef Reactor *r = &self.r
        cdef Queue *q
        if r.table != NULL:
            listeners_close(r)
        while r.spare_queues != NULL:
            q = r.spare_queues
            r.spare_queues = q.next
            free(q)
        if r.waker >= 0:
            close(r.waker)
        if r.epoll >= 0:
            close(r.epoll)
        release(r.table, r.size * sizeof(Conn))
        release(r.peers, r.size * sizeof(Peer))
        release(r.again, 2 * r.size * sizeof(uint64_t))
        release(r.again_now, 2 * r.size * sizeof(uint64_t))
        release(r.doomed, r.size * sizeof(int32_t))
        release(r.dirty, r.size * sizeof(int32_t))
        release(r.inbox, INBOX)
        release(r.outbox, OUTBOX)
        release(r.events, EVENTS * sizeof(epoll_event))

    cdef keep_peers(self):
        """Has conn_peer know who visitors are that come from now on. Raises MemoryError."""
        if self.r.peers == NULL:
            self.r.peers = <Peer *>reserved(self.r.size * sizeof(Peer))

    def listen(self, int fd):
        """Accepts visitors from a listening, non-blocking socket, whose fd is the reactor's from now on. Raises OSError."""
        self.watch(fd, LISTENER)

    def watch_signals(self, int fd):
        """A socket on which any byte makes run() see to Python's signal handlers (signal.set_wakeup_fd)."""
        self.watch(fd, SIGNALS)

    cdef watch(self, int fd, uint8_t kind):
        cdef int fault = EMFILE if fd >= self.r.size else 0 if entry_watch(&self.r, fd, kind, EPOLLIN) else errno
        if fault:
            raise OSError(fault, f"cannot watch a socket: {os.strerror(fault)}")

    def run(self):
        """Serves until leave() or stop(), without the GIL; whatever a Python signal handler raises ends it too."""
        cdef bint left = False
        if self.running:
            raise RuntimeError("this server is running already")
        self.running = True
        try:
            while not left:
                with nogil:
                    left = reactor_run(&self.r)
                PyErr_CheckSignals()
        finally:
            listeners_close(&self.r)
            reactor_close_all(&self.r)
            self.running = False

    def fileno(self):
        """A descriptor that is readable when turn() has something to do; for another event loop to watch."""
        return self.r.epoll

    def turn(self):
        """One turn without waiting, in place of run(). Returns after how many milliseconds the next is due, though the
        descriptor be silent (-1: never), or None when the server has left and everything is closed."""
        cdef Reactor *r = &self.r
        cdef bint left
        if r.in_turn:
            return 1             # a handler runs a loop within the loop
        with nogil:
            r.thread = pthread_self()
            reactor_turn(r, 0)
            left = r.leaving and (r.live == 0 or r.now_ms >= r.leave_by_ms)
            if left:
                reactor_close_all(r)
        return None if left else patience(r)

    def leave(self, int64_t grace_ms):
        """Stops accepting, lets what is in flight finish for up to grace_ms, then ends run()."""
        self.r.grace_ms = grace_ms
        self.r.asked = max(self.r.asked, <int>ASK_LEAVE)
        reactor_wake(&self.r)

    def stop(self):
        """Ends run() now; whatever is in flight is cut off."""
        self.r.asked = ASK_STOP
        reactor_wake(&self.r)

    def counters(self):
        """The network layer's counters, as a dict; sums since the start but for `connections`."""
        cdef Reactor *r = &self.r
        return {
            "connections": r.live,           # open now
            "accepted": r.accepted,
            "bytes_received": r.received,
            "bytes_sent": r.sent,
            "out_of_descriptors": r.full_count,
            "turns": r.turns,
        }


assert sizeof(Conn) == 64, "a connection is one cache line"
