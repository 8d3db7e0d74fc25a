"""What the processes of one server share, all in one mapping that the supervisor makes before it forks them.

Owns: the mapping and its layout, whose each seat is, the eventfds by which any process wakes any reactor, and sums over
all processes, ended ones too.
Refuses to know: how processes are started and watched, sockets.

A seat is the shared state of one process: it sits down (Site, in the process itself), and when it has died the
supervisor releases the seat for another. What it counted goes to the past, so that no sum ever goes back.

Pages that nobody has touched cost nothing, so a seat may be large.
"""

import os

from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from c1m.atomics cimport fence, load_acquire, store_release
from c1m.counts cimport Counts, counts_add, counts_told
from c1m.linux cimport (
    EFD_CLOEXEC, EFD_NONBLOCK, MADV_REMOVE, MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_SHARED, PROT_READ, PROT_WRITE,
    c_write, close, errno, eventfd, madvise, mmap, munmap,
)

cdef enum:
    PAGE = 65536                 # a multiple of the system's, on every machine
    MAX_SEATS = 4096
    READS = 1000                 # attempts at sums of one instant; each fails only while a seat is being released


cdef inline size_t pages(size_t n) noexcept nogil:
    """n bytes, in whole pages."""
    return (n + PAGE - 1) // PAGE * PAGE


cdef class Shared:
    """Memory that the processes of one server share, and the descriptors that go with it.

    To be made before they are forked, and given to the Site of each with a seat of its own. It belongs to no process:
    each may read all of it, and publish.

    seats: how many processes there may be at a time. ring_bytes: of what is published and not yet read by all.
    Raises MemoryError, OSError where the kernel gives no eventfd, ValueError.
    """

    def __cinit__(self, int seats, size_t ring_bytes):
        cdef int i
        if not 0 < seats <= MAX_SEATS:
            raise ValueError(f"seats: {seats} is not from 1 to {<int>MAX_SEATS}")
        self.seats, self.ring_bytes = seats, ring_bytes
        self.bytes = pages(sizeof(Common)) + seats * pages(sizeof(Seat))
        self.wakers = <int *>calloc(seats, sizeof(int))
        self.memory = <char *>mmap(
            NULL, self.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        if <void *>self.memory == MAP_FAILED:
            self.memory = NULL
        if self.memory == NULL or self.wakers == NULL:
            raise MemoryError(f"no memory for {seats} processes to share: {self.bytes >> 20} MiB of address space")
        for i in range(seats):
            self.wakers[i] = -1
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
        return <Seat *>(self.memory + pages(sizeof(Common)) + seat * pages(sizeof(Seat)))

    cdef Counts *sit(self, int seat) except NULL:
        """This process takes a seat. Raises ValueError if another has it."""
        cdef Seat *s = self.seat(seat)
        if s.pid:
            raise ValueError(f"seat: process {s.pid} has {seat}")
        s.pid = os.getpid()
        return &s.counts

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
        if not s.pid:
            return
        store_release(&common.moves, common.moves + 1)
        fence()
        counts_add(&common.past, &s.counts)
        if madvise(s, pages(sizeof(Seat)), MADV_REMOVE) < 0:
            memset(s, 0, sizeof(Seat))
        store_release(&common.moves, common.moves + 1)

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
        return counts_told(&self.common().past)

    def stats(self):
        """The sums of all processes, ended ones too (a dict), with each living one's in a list as `workers`."""
        cdef Common *common = self.common()
        cdef uint64_t moves
        cdef int i
        for i in range(READS):
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
