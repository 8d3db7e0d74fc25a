"""One process of a load: its connections are opened, it waits for the word, runs for its time, and ends.

Owns: the phases, the clock of the open loop, tapes and their memory. Refuses to know: what a frame or a response means,
other processes.

It has one Python class, which makes what a load is from bytes and numbers, and then runs it without the GIL.
"""

import os

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from c1m.buf cimport Block, block_new, block_unref
from c1m.deflate cimport Deflater, deflater_free, deflater_message, deflater_new, inflater_free, inflater_new
from c1m.linux cimport (
    CLOCK_PROCESS_CPUTIME_ID, PR_SET_PDEATHSIG, PR_SET_TIMERSLACK, POLLIN, SIGKILL, clock_gettime, getrandom, pollfd,
    ppoll, prctl, timespec,
)
from c1m.loadconn cimport (
    NO_LIMIT, OPEN, Client, Load, Tape, Target, client_due, client_go, client_queue, clients_dial, conn_at, due_at,
)
from c1m.loadhttp cimport loadhttp_add
from c1m.loadws cimport loadws_add, loadws_goodbye, loadws_publish
from c1m.loop cimport Loop
from c1m.reactor cimport (
    Callbacks, conn_try_flush, nanoseconds, poll_timeout, reactor_close_all, reactor_iterate, timeout_class,
)
from c1m.tally cimport (
    DONE, DRAINING, OPENING, READY, RUNNING, UNANSWERED, Control, tallies_in,
)
from c1m.ws cimport WS_MAX_HEADER_MASKED, WS_RSV1, ws_header, ws_header_masked, ws_mask

cdef enum:
    WAIT_MS = 20                 # until the word of the others is looked for again
    SECOND = 1000000000
    SLACK_NS = 1                 # that the kernel may wake us late by, beside what it can't help
    PRECOMPRESSED = 15           # window bits
    QUIET_NS = 200000000         # without a delivery, after which a subscriber takes it that none is on its way


cdef void ignore_note(void *app, int what, int64_t number) noexcept nogil:
    """The reactor accepts nothing here."""


cdef void ignore(void *app) noexcept nogil:
    """Nothing is taken for a stage, and nobody waits for an alarm or the end."""


cdef bint ignore_waking(void *app) noexcept nogil:
    """Nobody wakes us but ourselves."""
    return True


# ---- phases ----

cdef void work(Load *load) noexcept nogil:
    """All of it."""
    load.begun_ns = nanoseconds()   # of opening, so far
    load.tally.phase = OPENING
    while load.tally.phase != DONE and not load.r.fault:
        if load.queued:
            clients_dial(load, dialable(load))
        iterate(load)
        advance(load, nanoseconds())
    load.tally.ended_ns = min(nanoseconds(), max(load.until_ns, load.tally.ended_ns)) if load.tally.begun_ns else 0
    load.tally.cpu_ns = cpu_ns() - load.tally.cpu_ns
    load.ended = True
    if load.websocket:
        loadws_goodbye(load)
    reactor_close_all(load.r)


cdef uint32_t dialable(const Load *load) noexcept nogil:
    """How many more connections the ramp lets begin now."""
    cdef double share
    cdef uint32_t begun = load.count + 1 - load.queued
    if load.tally.phase != OPENING or load.ramp_ns <= 0:
        return NO_LIMIT
    share = <double>(nanoseconds() - load.begun_ns) / load.ramp_ns
    return <uint32_t>max(min(share, 1.0) * (load.count + 1) - begun, 0.0)


cdef void iterate(Load *load) noexcept nogil:
    """One iteration of the reactor, which waits until something comes, or until the next message is due."""
    cdef int wait = poll_timeout(load.r)
    wait = WAIT_MS if wait < 0 else min(wait, <int>WAIT_MS)
    if load.queued:
        wait = min(wait, 1)
    if load.tally.phase == RUNNING and (load.scheduled or load.published_ns):
        schedule_run(load, nanoseconds())
        doze(load)
        wait = 0
    elif load.tally.phase == RUNNING:
        wait = <int>min(<int64_t>wait, max((load.until_ns - nanoseconds()) // 1000000 + 1, <int64_t>0))
    reactor_iterate(load.r, wait)


cdef void doze(Load *load) noexcept nogil:
    """Waits for an event or the next message's time; epoll_wait(2) itself counts in milliseconds."""
    cdef int64_t left = min(next_due(load), load.until_ns) - nanoseconds()
    cdef pollfd watched
    cdef timespec wait
    left = min(left, <int64_t>WAIT_MS * 1000000)
    if left <= 0 or load.r.flush.count or load.r.ready.count or load.r.closing_n:
        return
    watched.fd, watched.events = load.r.epoll, POLLIN
    wait.tv_sec, wait.tv_nsec = 0, left
    ppoll(&watched, 1, &wait, NULL)


cdef int64_t next_due(const Load *load) noexcept nogil:
    cdef int64_t due = load.until_ns
    if load.scheduled and load.due != load.due_most:
        due = min(due, due_at(load, load.due))
    if load.published_ns:
        due = min(due, load.published_ns)
    return due


cdef void schedule_run(Load *load, int64_t now) noexcept nogil:
    """Sends what is due."""
    cdef int64_t due
    load.r.iterating = True         # an iteration follows at once: nothing has to bring one about
    while load.scheduled and load.due != load.due_most:
        due = due_at(load, load.due)
        if due > now or due >= load.until_ns:
            break
        client_due(load, &load.clients[load.due % load.count], now)
    while load.published_ns and load.published_ns <= now and load.published_ns < load.until_ns:
        loadws_publish(load, load.published_ns)
        load.published += 1
        load.published_ns = load.begun_ns + <int64_t>(<double>load.published * load.publish_interval_ns)
    load.r.iterating = False


cdef void advance(Load *load, int64_t now) noexcept nogil:
    """From one phase to the next."""
    if load.control.stop:
        load.tally.faults[<int>UNANSWERED] += load.owed + load.flying if load.scheduled else 0
        load.until_ns = min(load.until_ns, now)
        load.tally.phase = DONE
    elif load.tally.phase == OPENING:
        if load.gone >= load.count:
            load.tally.phase = DONE
        elif load.fresh or (load.queued + load.dialing == 0 and
                            (not load.idle or load.settled + load.gone >= load.count)):
            load.tally.phase = READY
    elif load.tally.phase == READY and load.control.go:
        begin(load, now)
    elif load.tally.phase == RUNNING and now >= load.until_ns:
        schedule_run(load, now)     # what was due before the end is sent, however late we are
        load.tally.ended_ns = load.until_ns
        load.tally.phase = DRAINING if load.scheduled or load.subscribe else DONE
    elif load.tally.phase == RUNNING and exhausted(load):
        load.until_ns = load.tally.ended_ns = now
        load.tally.phase = DONE
    elif load.tally.phase == DRAINING:
        drain(load, now)


cdef void begin(Load *load, int64_t now) noexcept nogil:
    """The word has come."""
    cdef uint32_t i
    load.begun_ns = load.tally.begun_ns = now
    load.until_ns += now
    load.tally.cpu_ns = cpu_ns()
    load.tally.phase = RUNNING
    if load.publish_interval_ns > 0:
        load.published_ns = now
    if load.scheduled:
        return
    load.r.iterating = True
    for i in range(load.count):
        client_go(load, &load.clients[i], nanoseconds())
        if load.clients[i].phase == OPEN:
            conn_try_flush(load.r, conn_at(load, &load.clients[i]))     # now, as its latency counts from now
    load.r.iterating = False


cdef bint exhausted(const Load *load) noexcept nogil:
    """Whether nothing more will happen, though there is time."""
    if load.gone >= load.count:
        return True
    if load.scheduled:
        return load.due == load.due_most and load.flying == 0 and load.owed == 0
    if load.subscribe or load.idle or load.flying:
        return False
    return load.left == 0 or (load.queued + load.dialing == 0 and (not load.fresh or load.open == 0))


cdef void drain(Load *load, int64_t now) noexcept nogil:
    """What was sent in time is waited for; what does not come was not answered."""
    if load.subscribe:
        if load.heard != load.tally.delivered:
            load.heard, load.heard_ns = load.tally.delivered, now
        if now >= max(load.heard_ns, load.until_ns) + QUIET_NS:
            load.tally.phase = DONE
    elif load.flying == 0 and load.owed == 0:
        load.tally.phase = DONE
    elif now >= load.until_ns + load.patience_ns:
        load.tally.faults[<int>UNANSWERED] += load.owed + load.flying
        load.tally.phase = DONE


cdef int64_t cpu_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t)
    return <int64_t>t.tv_sec * SECOND + t.tv_nsec


# ---- a load as Python makes it ----

cdef int tape_make(Tape *t, list pieces, uint32_t head) except -1:
    """A tape of these messages. head: bytes before each one's payload."""
    cdef size_t size = sum(map(len, pieces)), at = 0
    cdef int i
    t.block = block_new(size)
    t.at = <size_t *>calloc(len(pieces) + 1, sizeof(size_t))
    if t.block == NULL or t.at == NULL:
        raise MemoryError
    for i, piece in enumerate(pieces):
        t.at[i] = at
        memcpy(t.block.data + at, <const uint8_t *>(<bytes>piece), len(piece))
        at += len(piece)
    t.at[len(pieces)] = at
    t.block.size = at
    t.count, t.head = len(pieces), head
    return 0


cdef void tape_free(Tape *t) noexcept:
    block_unref(t.block)
    free(t.at)


cdef bytes framed(uint8_t opcode, bytes payload):
    """An unmasked frame."""
    cdef uint8_t[WS_MAX_HEADER_MASKED] head
    cdef size_t n = ws_header(head, opcode, len(payload))
    return head[:n] + payload


cdef bytes framed_masked(uint8_t opcode, bytes payload):
    """A frame masked with a key that nobody can predict."""
    cdef uint8_t[WS_MAX_HEADER_MASKED] head
    cdef uint32_t key
    cdef size_t n
    cdef bytearray masked = bytearray(payload)
    getrandom(&key, sizeof(key), 0)
    n = ws_header_masked(head, opcode, len(payload), key)
    ws_mask(<uint8_t *>masked, <uint8_t *>masked, len(masked), key)
    return head[:n] + bytes(masked)


cdef bytes compressed(Deflater *d, bytes payload):
    cdef Block *block = deflater_message(d, <const uint8_t *>payload, len(payload), 0, False)
    if block == NULL:
        raise MemoryError
    try:
        return block.data[:block.size]
    finally:
        block_unref(block)


cdef class Worker(Loop):
    """One process's part of a load.

    memory: of c1m.tally, writable, in which this is process `process` of `processes`. targets: a list of
    (sockaddr as bytes, whether it is in 127.0.0.0/8, the opening handshake or None, the requests or None, as lists of
    bytes). payloads: of the messages, for WebSocket. count: connections of this process; first: the number of its first
    one among all. seconds: how long it runs, or None; messages: how many it sends, or None; patience_ms: the longest
    wait for a connection or an answer. rate, publish: messages a second of all processes together, or None.
    Raises MemoryError, OSError.
    """

    cdef Load *load
    cdef Py_buffer view
    cdef list kept

    def __cinit__(self, *, memory, process, processes, list targets, list payloads, count, first, opcode, depth,
                  seconds, messages, rate, publish, ramp, sources, key, patience_ms, message_size, fresh, idle,
                  subscribe, verify, compress, for_head, write_timeout_ms):
        cdef Load *load = <Load *>calloc(1, sizeof(Load))
        self.load = load
        if load == NULL:
            raise MemoryError
        PyObject_GetBuffer(memory, &self.view, PyBUF_WRITABLE)
        load.control = <Control *>self.view.buf
        load.tally = tallies_in(self.view.buf) + <int>process
        load.r = &self.r
        load.r.on = Callbacks(app=load, note=ignore_note, woken=ignore_waking, alarm=ignore, ended=ignore,
                              release=ignore, draining=ignore_waking, admit=NULL, uncount=NULL)
        self.kept = [key]
        load.key = <const uint8_t *>(<bytes>key)
        load.count, load.first, load.process, load.processes = count, first, process, processes
        load.websocket, load.fresh, load.idle, load.subscribe = targets[0][2] is not None, fresh, idle, subscribe
        load.verify, load.compress, load.expect, load.opcode = verify, compress, for_head, opcode
        load.sources, load.message_size = sources, message_size
        load.scheduled = rate is not None
        load.interval_ns = SECOND / rate if rate else 0
        load.publish_interval_ns = SECOND / publish if publish and process == 0 else 0
        load.depth = NO_LIMIT if depth is None else depth
        load.left = -1 if messages is None else messages
        load.due_most = <uint64_t>-1 if messages is None else messages
        load.until_ns = <int64_t>((seconds if seconds is not None else 365 * 86400.0) * SECOND)
        load.patience_ns = <int64_t>patience_ms * 1000000
        load.ramp_ns = ramp * SECOND
        load.timeout = timeout_class(load.r, patience_ms)
        getrandom(&load.mask, sizeof(load.mask), 0)
        self.allocate()
        self.aim(targets)
        self.record(targets, payloads)
        for i in range(count + (publish is not None and process == 0)):
            load.clients[i].target = (first + i) % len(targets)
            load.clients[i].next = (first + i) % load.targets[load.clients[i].target].tape.count
            if i == count:
                load.clients[i].publisher = True
            if not fresh:
                client_queue(load, &load.clients[i])
        if load.websocket:
            loadws_add(load)
        else:
            loadhttp_add(load)

    cdef allocate(self):
        """Memory for clients."""
        cdef Load *load = self.load
        cdef uint32_t ring = 1
        while not load.scheduled and ring < load.depth:
            ring *= 2
        load.times_mask = ring - 1
        load.clients = <Client *>calloc(load.count + 1, sizeof(Client))
        load.queue = <uint32_t *>calloc(load.count + 1, sizeof(uint32_t))
        load.times = <int64_t *>calloc(<size_t>(load.count + 1) * ring, sizeof(int64_t))
        if load.clients == NULL or load.queue == NULL or load.times == NULL:
            raise MemoryError
        for i in range(load.count + 1):
            load.clients[i].fd = -1

    cdef aim(self, list targets):
        """The addresses, and what opens a connection to each."""
        cdef Load *load = self.load
        cdef Target *target
        load.targets = <Target *>calloc(len(targets), sizeof(Target))
        if load.targets == NULL:
            raise MemoryError
        load.targets_n = len(targets)
        for i, (address, loopback, hello, _) in enumerate(targets):
            target = &load.targets[i]
            memcpy(&target.address, <const uint8_t *>(<bytes>address),
                   min(<size_t>len(address), sizeof(target.address)))
            target.address_n = len(address)
            target.loopback = loopback
            if hello is not None:
                target.hello = block_new(len(hello))
                if target.hello == NULL:
                    raise MemoryError
                memcpy(target.hello.data, <const uint8_t *>(<bytes>hello), len(hello))
                target.hello.size = len(hello)

    cdef record(self, list targets, list payloads):
        """The tapes: for HTTP one for each target, for WebSocket one for all and one of echoes."""
        cdef Load *load = self.load
        cdef Tape *out = NULL
        cdef list sent = self.squeezed(payloads) if load.compress else payloads
        cdef uint8_t opcode = load.opcode | (WS_RSV1 if load.compress else 0)
        for i, (_, _, _, requests) in enumerate(targets):
            if out == NULL or not load.websocket:
                out = load.targets[i].tape = <Tape *>calloc(1, sizeof(Tape))
                if out == NULL:
                    raise MemoryError
                if load.websocket:
                    tape_make(out, [framed_masked(opcode, each) for each in sent], 0)
                else:
                    tape_make(out, requests, 0)
            load.targets[i].tape = out
        if load.compress:
            tape_make(&load.back, payloads, 0)
        elif load.websocket:
            tape_make(&load.back, [framed(opcode, each) for each in payloads],
                      len(framed(opcode, payloads[0])) - len(payloads[0]))

    cdef list squeezed(self, list payloads):
        """The payloads, compressed each by itself."""
        cdef Deflater *d = deflater_new(PRECOMPRESSED, 8, 1)
        self.load.inflater = inflater_new(PRECOMPRESSED)
        if d == NULL or self.load.inflater == NULL:
            raise MemoryError
        try:
            return [compressed(d, each) for each in payloads]
        finally:
            deflater_free(d)

    def __dealloc__(self):
        cdef Load *load = self.load
        cdef uint32_t i
        if load == NULL:
            return
        for i in range(load.targets_n):
            block_unref(load.targets[i].hello)
            if i == 0 or not load.websocket:
                tape_free(load.targets[i].tape)
                free(load.targets[i].tape)
        tape_free(&load.back)
        inflater_free(load.inflater)
        free(load.targets)
        free(load.clients)
        free(load.queue)
        free(load.times)
        free(load)
        PyBuffer_Release(&self.view)

    def work(self, int parent):
        """Runs the load to its end, or to that of its parent process."""
        cdef Load *load = self.load
        prctl(PR_SET_PDEATHSIG, SIGKILL)
        if os.getppid() != parent:
            return               # which has ended before we could ask for that
        prctl(PR_SET_TIMERSLACK, SLACK_NS)
        with nogil:
            work(load)
        self.check_fault()
