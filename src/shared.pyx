"""What the processes of one server share, all in one mapping that the supervisor makes before it forks them.

Owns: the mapping and its layout, whose each seat is, the eventfds by which any process wakes any reactor, sums over all
processes, ended ones too, and publishing for a process that serves nobody.
Refuses to know: how processes are started and watched, sockets, how a message gets through the ring.

A seat is the shared state of one process: it sits down (Site, in the process itself), and when it has died the
supervisor releases the seat for another. What it counted goes to the past, so that no sum ever goes back.

Pages that nobody has touched cost nothing, so a seat may be large.
"""

import logging
import os
import time

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from c1m.atomics cimport fence, load_acquire, store_release
from c1m.buf cimport Slice
from c1m.counts cimport Counts, counts_add, counts_clear, counts_told
from c1m.interest cimport Want, interest_clear
from c1m.linux cimport (
    EFD_CLOEXEC, EFD_NONBLOCK, MADV_REMOVE, MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_SHARED, PROT_READ, PROT_WRITE,
    close, errno, eventfd, madvise, mmap, munmap,
)
from c1m.ring cimport (
    MAX_SEATS, Ring, ring_behind, ring_close, ring_count, ring_init, ring_longest, ring_publish, ring_wait,
    ring_wake_all,
)
from c1m.siphash cimport siphash13
from c1m.websocket cimport lost_line, published

cdef enum:
    PAGE = 65536                 # a multiple of the system's, on every machine
    MIN_RING = 4096              # bytes
    MAX_ENTRIES = 32768          # of an index: messages of which a seat may be behind,
    MIN_ENTRIES = 16
    MEAN_RECORD = 512            # or as many of this size as the data hold
    MAX_WANTS = 1 << 17          # topics of a seat that others can tell apart, and a third more
    QUIET_S = 1                  # between two lines in the log
    READS = 1000                 # attempts at sums of one instant; each fails only while a seat is being released


logger = logging.getLogger("c1m")


cdef inline size_t pages(size_t n) noexcept nogil:
    """n bytes, in whole pages."""
    return (n + PAGE - 1) // PAGE * PAGE


cdef class Shared:
    """Memory that the processes of one server share, and the descriptors that go with it.

    To be made before they are forked, and given to the Site of each with a seat of its own. It belongs to no process:
    each may read all of it, and publish.

    seats: how many processes there may be at a time. ring_bytes: of what is published and not yet read by all; a
    message may take a quarter of them.
    Raises MemoryError, OSError where the kernel gives no eventfd, ValueError.
    """

    def __cinit__(self, int seats, size_t ring_bytes):
        cdef Ring *r = &self.ring
        cdef size_t index_at, wants_at, seats_at
        cdef int i, fault
        if not 0 < seats <= MAX_SEATS:
            raise ValueError(f"seats: {seats} is not from 1 to {<int>MAX_SEATS}")
        if not MIN_RING <= ring_bytes <= <size_t>1 << 40:
            raise ValueError(f"ring_bytes: {ring_bytes} is not from {<int>MIN_RING} to {1 << 40}")
        self.seats, self.ring_bytes = seats, ring_bytes
        r.size = (ring_bytes + 7) & ~<size_t>7
        r.entries = MIN_ENTRIES
        while r.entries < MAX_ENTRIES and r.entries * MEAN_RECORD < r.size:
            r.entries *= 2
        r.most = MAX_WANTS
        index_at = pages(sizeof(Seat))
        wants_at = index_at + pages(r.entries * sizeof(uint64_t))
        r.stride = wants_at + pages(r.most * sizeof(Want))
        seats_at = pages(sizeof(Common)) + pages(r.size)
        self.bytes = seats_at + seats * r.stride
        self.wakers = <int *>malloc(seats * sizeof(int))
        for i in range(seats if self.wakers != NULL else 0):
            self.wakers[i] = -1
        self.memory = <char *>mmap(
            NULL, self.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        if <void *>self.memory == MAP_FAILED:
            self.memory = NULL
        if self.memory == NULL or self.wakers == NULL:
            raise MemoryError(f"no memory for {seats} processes to share: {self.bytes >> 20} MiB of address space")
        r.head, r.data = &self.common().ring, <uint8_t *>self.memory + pages(sizeof(Common))
        self.first = self.memory + seats_at
        r.first, r.first_lost = &(<Seat *>self.first).ring, &(<Seat *>self.first).counts.all.publish_lost
        r.first_index, r.first_wants = <uint64_t *>(self.first + index_at), <Want *>(self.first + wants_at)
        r.seats, r.wakers = seats, self.wakers
        fault = ring_init(r)
        if fault:
            raise OSError(fault, f"no lock that processes can share: {os.strerror(fault)}")
        for i in range(seats):
            self.wakers[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
            if self.wakers[i] < 0:
                raise OSError(errno, f"no eventfd for each of {seats} processes: {os.strerror(errno)}")

    def __dealloc__(self):
        cdef int i
        for i in range(self.seats if self.wakers != NULL else 0):
            if self.wakers[i] >= 0:
                close(self.wakers[i])
        free(self.wakers)
        if self.memory != NULL:
            munmap(self.memory, self.bytes)

    cdef Common *common(self) noexcept:
        return <Common *>self.memory

    cdef Seat *seat(self, int seat) except NULL:
        if not 0 <= seat < self.seats:
            raise ValueError(f"seat: {seat} is not from 0 to {self.seats - 1}")
        return <Seat *>(self.first + seat * self.ring.stride)

    cdef Counts *sit(self, int seat) except NULL:
        """This process takes a seat, or goes on in its own. Raises ValueError if another has it."""
        cdef Seat *s = self.seat(seat)
        if s.pid and s.pid != <uint64_t>os.getpid():
            raise ValueError(f"seat: process {s.pid} has {seat}")
        s.pid = os.getpid()
        return &s.counts

    cdef Ring *ring_of(self) noexcept:
        return &self.ring

    def publish(self, topic, message, int but=-1):
        """Sends a message, str or bytes-like, to all WebSockets of all processes, but those of one seat, that are
        subscribed to a topic. Any thread of any process may; where a process reads too slowly it waits, a tenth of a
        second at most.

        Raises TypeError for what is no message, ValueError for one that is longer than a quarter of the ring.
        """
        cdef Slice name, bytes_of
        cdef uint32_t number
        cdef int sent
        if but >= 0:
            self.seat(but)
        topic, opcode, frame = published(topic, message, ring_longest(&self.ring))
        name, bytes_of, number = Slice(<bytes>topic, len(topic)), Slice(<bytes>frame, len(frame)), opcode
        with nogil:
            if ring_behind(&self.ring, but):
                ring_wait(&self.ring, but)
            sent = ring_publish(&self.ring, but, name, number, bytes_of)
        if sent < 0:
            self.note_lost()

    cdef note_lost(self):
        """A message of a publisher without a seat was lost: the log is told, once in a while."""
        cdef uint64_t lost = load_acquire(&self.ring.head.lost)
        if lost > self.noted and time.monotonic() - self.noted_at >= QUIET_S:
            logger.error("%s", lost_line(lost - self.noted))
            self.noted, self.noted_at = lost, time.monotonic()

    def subscribers(self, topic):
        """How many WebSockets of all processes are subscribed to a topic. A process with more than 98,304 topics can't
        tell of those that were too many, and one that was killed just as its topics changed of none, until its seat is
        released. Raises TypeError."""
        if not isinstance(topic, str):
            raise TypeError(f"topic: {topic!r} is not a str")
        name = topic.encode()
        return ring_count(&self.ring, siphash13(&self.ring.head.key, <bytes>name, len(name)), -1)

    def waker(self, int seat):
        """The eventfd (int) that wakes the reactor of a seat's process."""
        self.seat(seat)
        return self.wakers[seat]

    def release(self, int seat):
        """Frees the seat of a process that has died. What it counted is of the past, what waits for it goes.

        For one process and thread: the one that has started it. On a free seat it does nothing.
        """
        cdef Common *common = self.common()
        cdef Seat *s = self.seat(seat)
        cdef char *wants
        cdef size_t bytes_n
        if not s.pid:
            return
        ring_close(&self.ring, seat)
        wants, bytes_n = <char *>self.ring.first_wants + seat * self.ring.stride, self.ring.most * sizeof(Want)
        if madvise(wants, bytes_n, MADV_REMOVE) < 0:
            memset(wants, 0, bytes_n)
        interest_clear(&s.ring.interest)
        store_release(&common.moves, common.moves + 1)
        fence()
        counts_add(&common.past, &s.counts)
        counts_clear(&s.counts)
        s.pid = 0
        store_release(&common.moves, common.moves + 1)
        ring_wake_all(&self.ring)

    def pulse(self, int seat):
        """How many iterations (int) the event loop of a seat's process has made, and whether (bool) it is out of
        descriptors. It makes none while nothing happens and nobody wakes it."""
        cdef Seat *s = self.seat(seat)
        return s.counts.all.net.iterations, s.counts.all.net.full != 0

    def counters(self):
        """What each seat's process counts (a list of dicts, None for a free seat), as Site.counters() has it, with its
        process ID as `pid`."""
        cdef Seat *s
        cdef int i
        told = []
        for i in range(self.seats):
            s = self.seat(i)
            told.append({"pid": s.pid, **counts_told(&s.counts)} if s.pid else None)
        return told

    def past(self):
        """What the processes have counted whose seats were released (a dict), but for what is told of now, which is 0.
        """
        told = counts_told(&self.common().past)
        told["publish_lost"] += self.ring.head.lost
        return told

    def stats(self):
        """The sums of all processes, ended ones too (a dict), with each living one's in a list as `workers`."""
        cdef Common *common = self.common()
        cdef uint64_t moves
        cdef int _
        for _ in range(READS):
            moves = load_acquire(&common.moves)
            past, workers = self.past(), [each for each in self.counters() if each is not None]
            fence()
            if moves % 2 == 0 and load_acquire(&common.moves) == moves:
                break
        for each in workers:
            add(past, each)
        return {**past, "workers": workers}


cdef add(dict to, dict counted):
    """Adds the numbers of a dict of numbers and such dicts to those of another."""
    for name, value in counted.items():
        if isinstance(value, dict):
            add(to.setdefault(name, {}), value)
        elif name != "pid":
            to[name] = to.get(name, 0) + value
