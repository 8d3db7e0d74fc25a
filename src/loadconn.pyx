"""The connections of a load: when they are opened, what is sent on them and when, what is counted.

Owns: clients, tapes, the schedule, the fate of connections. Refuses to know: frames, heads, processes, Python.

A message is asked for (`client_ask`) and answered (`client_answered`), whatever protocol carries it. In a closed loop
an answer brings the next question. In an open loop the clock does: the k-th message of all is due at a time that
nothing can move, goes to client k modulo their number, and its latency counts from there. So the due time of a
client's j-th answer is known without keeping it.

What is sent lies on a tape, ready for the wire: no message is made while the load runs.

Invariants a change must keep:
- load.flying and load.owed are the sums of each client's flight and owed.
- A client is in one of the five phases, and load.dialing, load.open, load.gone and load.queued count those in theirs.
- A connection has one fault, the first, and is counted when it is found.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, strlen

from c1m.buf cimport block_unref
from c1m.deflate cimport inflater_free
from c1m.histogram cimport histogram_add
from c1m.linux cimport (
    EADDRNOTAVAIL, EAGAIN, ECONNREFUSED, EMFILE, ENFILE, ETIMEDOUT, sockaddr, sockaddr_in,
)
from c1m.reactor cimport (
    CLOSED, NO_BACKPRESSURE, conn_close, conn_commit, conn_connect, conn_deadline, conn_enqueue,
    conn_reserve, conn_send, conn_try_flush, fd_of, nanoseconds,
)
from c1m.tally cimport (
    BROKEN, NO_DESCRIPTOR, NO_FAULT, NO_PORT, OPENING, REASON, REFUSED, RUNNING, TIMED_OUT, UNANSWERED,
    UNREACHABLE,
)

cdef extern from *:
    """
    /* 127.0.0.1 and up, without a port. */
    static inline void c1m_loopback(struct sockaddr_in *to, unsigned int i) {
        memset(to, 0, sizeof(*to));
        to->sin_family = AF_INET;
        to->sin_addr.s_addr = htonl(INADDR_LOOPBACK + i);
    }
    """
    void loopback "c1m_loopback"(sockaddr_in *to, unsigned int i) noexcept nogil


# ---- opening ----

cdef void client_queue(Load *load, Client *cl) noexcept nogil:
    """It is to be connected, after those that wait for it already."""
    cl.phase = QUEUED
    load.queue[(load.queue_head + load.queued) % (load.count + 1)] = number_of(load, cl)
    load.queued += 1


cdef void clients_dial(Load *load, uint32_t allowed) noexcept nogil:
    """Begins to connect queued clients, so many at the most."""
    cdef Client *cl
    while load.queued and allowed and load.dialing < HANDSHAKES:
        cl = &load.clients[load.queue[load.queue_head]]
        load.queue_head = (load.queue_head + 1) % (load.count + 1)
        load.queued -= 1
        allowed -= 1
        if not client_dial(load, cl):
            return


cdef bint client_dial(Load *load, Client *cl) noexcept nogil:
    """Begins to connect. False: the others had better wait, too."""
    cdef const Target *target = &load.targets[cl.target]
    cdef sockaddr_in source
    cdef bint chosen = load.sources != 0 and target.loopback
    cdef int fault
    cdef Conn *c
    # Divided by the number of targets, so that each target is reached from each source.
    loopback(&source, (load.first + number_of(load, cl)) // load.targets_n % max(load.sources, <uint32_t>1))
    cl.dialed_ns = nanoseconds()
    c = conn_connect(load.r, load.protocol, <const sockaddr *>&target.address, target.address_n,
                     <const sockaddr *>&source if chosen else NULL, sizeof(source), &fault)
    if c == NULL and fault == EAGAIN:
        client_queue(load, cl)      # a Unix-domain listener that is busy
        return False
    cl.fault = NO_FAULT
    cl.closing = False
    cl.compared = 0
    if c == NULL:
        fault_count(load, cl, fault_of(load, fault))
        client_ended(load, cl)
        return True
    cl.phase = DIALING
    cl.fd = fd_of(load.r, c)
    load.dialing += 1
    c.flags |= NO_BACKPRESSURE   # else both ends might wait for the other to read
    c.session = cl
    conn_deadline(load.r, c, load.timeout)
    return True


cdef void client_opened(Load *load, Conn *c, Client *cl) noexcept nogil:
    """Its connection is ready for messages."""
    load.dialing -= 1
    load.open += 1
    cl.phase = OPEN
    load.tally.opened += 1
    load.tally.connected += 1
    if load.tally.phase == OPENING:
        if load.idle and not cl.publisher:
            client_ask(load, c, cl, 1, nanoseconds())
    else:
        client_go(load, cl, nanoseconds())


# ---- ends ----

cdef Fault fault_of(Load *load, int fault) noexcept nogil:
    """What an errno of connect(2) or socket(2) is called."""
    if fault == ECONNREFUSED:
        return REFUSED
    if fault == ETIMEDOUT:
        return TIMED_OUT
    if fault == EADDRNOTAVAIL:
        return NO_PORT
    if fault == EMFILE or fault == ENFILE:
        return NO_DESCRIPTOR
    if load.tally.fault == 0:
        load.tally.fault = fault
    return UNREACHABLE


cdef inline void fault_count(Load *load, Client *cl, Fault fault) noexcept nogil:
    cl.fault = fault
    load.tally.faults[<int>fault] += 1


cdef void client_failed(void *owner, Conn *c, int fault) noexcept nogil:
    """It could not be connected; it is about to be closed."""
    fault_count(<Load *>owner, client_of(c), fault_of(<Load *>owner, fault))


cdef void client_expired(void *owner, Conn *c) noexcept nogil:
    """No answer has come for so long."""
    cdef Load *load = <Load *>owner
    cdef Client *cl = client_of(c)
    if cl.phase == DIALING or cl.flight or cl.closing:
        client_fail(load, c, TIMED_OUT)


cdef void client_fail(Load *load, Conn *c, Fault fault) noexcept nogil:
    """Closes a connection with which something is wrong."""
    if client_of(c).fault == NO_FAULT and not c.flags & CLOSED:
        fault_count(load, client_of(c), fault)
    conn_close(load.r, c)


cdef void client_broken(Load *load, Conn *c, const char *reason) noexcept nogil:
    """Its server broke the protocol, and how is said of the first."""
    if load.tally.reason[0] == 0:
        memcpy(load.tally.reason, reason, min(strlen(reason), <size_t>REASON - 1))
    client_fail(load, c, BROKEN)


cdef void client_closed(Load *load, Conn *c, Fault fault) noexcept nogil:
    """Its connection has ended. fault: what that is called, unless it has a fault already."""
    cdef Client *cl = client_of(c)
    if cl.phase == DIALING:
        load.dialing -= 1
    else:
        load.open -= 1
        load.tally.connected -= not load.ended
    cl.fd = -1
    inflater_free(cl.inflater)
    block_unref(cl.message)
    cl.inflater, cl.message = NULL, NULL
    if load.ended:
        cl.phase = GONE
        return
    if cl.fault == NO_FAULT and fault != NO_FAULT:
        fault_count(load, cl, fault)
    client_ended(load, cl)


cdef void client_ended(Load *load, Client *cl) noexcept nogil:
    """It has no connection any more: whether it gets another. What was in flight is still owed by the schedule."""
    cdef uint32_t count = load.targets[cl.target].tape.count
    cl.next = (cl.next + count - cl.flight % count) % count
    cl.sent -= cl.flight
    load.flying -= cl.flight
    if load.scheduled and not cl.publisher:
        cl.owed += cl.flight
        load.owed += cl.flight
    elif load.left >= 0:
        load.left += cl.flight
    cl.flight = 0
    if cl.fault != NO_FAULT:
        cl.strikes += 1
        load.tally.failed += 1
    if cl.strikes and (cl.strikes >= MAX_STRIKES or load.idle or load.tally.phase == OPENING):
        cl.phase = GONE
        load.gone += 1
        load.settled -= cl.settled
        load.owed -= cl.owed
        load.tally.faults[<int>UNANSWERED] += cl.owed
        cl.owed = 0
        return
    cl.phase = IDLE
    if load.fresh and load.tally.phase == RUNNING:
        client_go(load, cl, nanoseconds())
    elif not load.fresh or cl.owed:
        client_queue(load, cl)


cdef void nothing(void *owner, Conn *c) noexcept nogil:
    """An event of no interest."""


# ---- messages ----

cdef void client_go(Load *load, Client *cl, int64_t now) noexcept nogil:
    """Sends what may be sent now: by a closed loop as much as is not in flight, by an open one what is owed."""
    cdef uint32_t n
    if cl.publisher or load.subscribe or load.idle or not counting(load):
        return
    if load.scheduled:
        n = min(cl.owed, load.depth - cl.flight)
    else:
        n = load.depth - cl.flight if load.tally.phase == RUNNING else 0
    if n == 0 or (load.left == 0 and not load.scheduled):
        return
    if cl.phase == IDLE:
        client_queue(load, cl)
    elif cl.phase == OPEN and not cl.closing:
        if load.scheduled:
            cl.owed -= n
            load.owed -= n
        client_ask(load, conn_at(load, cl), cl, n, now)


cdef void client_due(Load *load, Client *cl, int64_t now) noexcept nogil:
    """The clock owes it a message."""
    load.due += 1
    if cl.phase == GONE:
        load.tally.faults[<int>UNANSWERED] += 1
        return
    cl.owed += 1
    load.owed += 1
    client_go(load, cl, now)
    if cl.phase == OPEN:
        conn_try_flush(load.r, conn_at(load, cl))


cdef int64_t due_at(const Load *load, uint64_t k) noexcept nogil:
    """When the k-th message of this process is due."""
    return load.begun_ns + <int64_t>(<double>(k * load.processes + load.process) * load.interval_ns)


cdef void client_ask(Load *load, Conn *c, Client *cl, uint32_t n, int64_t now) noexcept nogil:
    """Sends n messages, or as many as are left."""
    cdef int64_t *times
    cdef uint32_t i
    if load.left >= 0 and not load.scheduled:
        n = <uint32_t>min(<int64_t>n, load.left)
        load.left -= n
    if n == 0:
        return
    if cl.flight == 0:
        conn_deadline(load.r, c, load.timeout)
    if load.fresh:
        now = cl.dialed_ns       # what it costs to connect is the message's to pay
    if not load.scheduled:
        times = load.times + <size_t>number_of(load, cl) * (load.times_mask + 1)
        for i in range(n):
            times[(cl.sent + i) & load.times_mask] = now
    cl.sent += n
    cl.flight += n
    load.flying += n
    load.tally.sent += n
    tape_send(load, c, cl, n)


cdef void tape_send(Load *load, Conn *c, Client *cl, uint32_t n) noexcept nogil:
    """Sends the tape's next n messages; behind its last comes its first."""
    cdef const Tape *t = load.targets[cl.target].tape
    cdef uint32_t run
    cdef size_t at, size
    while n:
        run = min(n, t.count - cl.next)
        at = t.at[cl.next]
        size = t.at[cl.next + run] - at
        if load.r.current != c:
            conn_enqueue(load.r, c, t.block, at, size, 0)
        elif size <= COPIED:
            memcpy(conn_reserve(load.r, c, size), t.block.data + at, size)
            conn_commit(load.r, size)
        else:
            conn_send(load.r, c, t.block, at, size)
        load.tally.bytes_out += size
        cl.next = 0 if cl.next + run == t.count else cl.next + run
        n -= run


cdef void client_answered(Load *load, Conn *c, Client *cl, uint32_t n, int64_t now) noexcept nogil:
    """n answers came. Brings what follows from that."""
    cl.flight -= n
    load.flying -= n
    cl.strikes = 0
    if counting(load) or load.idle:
        load.tally.answered += n
        if load.scheduled:
            due_record(load, cl, n, now)
        elif not load.subscribe:
            sent_record(load, cl, n, now)
    cl.answered += n
    if cl.flight:
        conn_deadline(load.r, c, load.timeout)
    if load.idle and not cl.settled:
        cl.settled = True
        load.settled += 1
    if not load.fresh:
        client_go(load, cl, now)


cdef inline void sent_record(Load *load, Client *cl, uint32_t n, int64_t now) noexcept nogil:
    """Latencies of answers since their messages were sent; those sent together are counted together."""
    cdef const int64_t *times = load.times + <size_t>number_of(load, cl) * (load.times_mask + 1)
    cdef uint32_t i = 0, same
    cdef int64_t sent
    while i < n:
        sent = times[(cl.answered + i) & load.times_mask]
        same = 1
        while i + same < n and times[(cl.answered + i + same) & load.times_mask] == sent:
            same += 1
        histogram_add(&load.tally.latency, now - sent, same)
        i += same


cdef inline void due_record(Load *load, Client *cl, uint32_t n, int64_t now) noexcept nogil:
    """Latencies of answers since their messages were due."""
    cdef uint32_t i
    for i in range(n):
        histogram_add(&load.tally.latency, now - due_at(load, (cl.answered + i) * load.count + number_of(load, cl)), 1)
