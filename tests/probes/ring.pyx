"""The ring and the tables of wants as tests see them, in memory that forked processes share."""

import mmap
import os

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free

from c1m.buf cimport Slice, block_unref
from c1m.interest cimport Interest, Want, interest_clear, interest_count, interest_of, interest_set
from c1m.linux cimport pthread_mutex_lock, pthread_mutex_unlock
from c1m.ring cimport (
    Received, Ring, RingHead, RingSeat, ring_behind, ring_close, ring_count, ring_init, ring_longest, ring_next,
    ring_open, ring_publish, ring_rest, ring_seat, ring_wait, ring_wake_all, ring_wants,
)
from c1m.siphash cimport siphash13


cdef class Board:
    """A ring for a number of seats: `size` bytes of data, indexes of `entries`, tables of `most`."""

    cdef Ring r
    cdef Py_buffer view
    cdef int *fds
    cdef readonly list wakers

    def __cinit__(self, int seats, size_t size=4096, uint64_t entries=64, uint64_t most=64):
        cdef size_t head = (sizeof(RingHead) + 63) // 64 * 64
        cdef size_t index = (sizeof(RingSeat) + 8 + 63) // 64 * 64, wants = index + entries * 8
        cdef char *memory
        cdef int seat
        assert size % 8 == 0
        self.r.stride = (wants + most * sizeof(Want) + 63) // 64 * 64
        PyObject_GetBuffer(mmap.mmap(-1, head + size + seats * self.r.stride + 64), &self.view, PyBUF_WRITABLE)
        memory = <char *>self.view.buf
        self.r.head, self.r.data, self.r.size = <RingHead *>memory, <uint8_t *>memory + head, size
        memory += (head + size + 63) // 64 * 64
        self.r.first, self.r.first_lost = <RingSeat *>memory, <uint64_t *>(memory + sizeof(RingSeat))
        self.r.first_index, self.r.first_wants = <uint64_t *>(memory + index), <Want *>(memory + wants)
        self.r.seats, self.r.entries, self.r.most = seats, entries, most
        self.wakers = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(seats)]
        self.fds = <int *>calloc(seats, sizeof(int))
        for seat in range(seats):
            self.fds[seat] = self.wakers[seat]
        self.r.wakers = self.fds
        assert ring_init(&self.r) == 0

    def __dealloc__(self):
        for fd in self.wakers:
            os.close(fd)
        free(self.fds)
        PyBuffer_Release(&self.view)

    def begin(self, uint64_t position):
        """As if so many bytes had been published."""
        self.r.head.head = position

    def open(self, int seat):
        ring_open(&self.r, seat)

    def close(self, int seat):
        ring_close(&self.r, seat)

    cdef uint64_t hash(self, bytes topic):
        return siphash13(&self.r.head.key, topic, len(topic))

    def wants(self, int seat, bytes topic, uint64_t before, uint64_t count):
        ring_wants(&self.r, seat, self.hash(topic), before, count)

    def count(self, bytes topic, int but=-1):
        return ring_count(&self.r, self.hash(topic), but)

    def longest(self):
        return ring_longest(&self.r)

    def publish(self, bytes topic, bytes message, int but=-1, int number=1):
        cdef Slice name = Slice(topic, len(topic)), text = Slice(message, len(message))
        cdef int sent
        with nogil:
            sent = ring_publish(&self.r, but, name, number, text)
        return sent

    def next(self, int seat):
        """(topic, message, number), or None."""
        cdef Received received
        if not ring_next(&self.r, seat, &received):
            return None
        found = (received.topic.at[:received.topic.n], received.block.data[:received.block.size], received.number)
        block_unref(received.block)
        return found

    def all(self, int seat):
        """The messages that wait for a seat, until none does."""
        found = []
        while (each := self.next(seat)) is not None:
            found.append(each)
        return found

    def rest(self, int seat):
        return ring_rest(&self.r, seat)

    def behind(self, int but=-1):
        return ring_behind(&self.r, but)

    def wait(self, int but=-1):
        with nogil:
            ring_wait(&self.r, but)

    def wake_all(self):
        ring_wake_all(&self.r)

    def lost(self, int seat=-1):
        return self.r.head.lost if seat < 0 else (<uint64_t *>(<char *>self.r.first_lost + seat * self.r.stride))[0]

    def lock(self):
        """Takes the lock, and does not give it back."""
        with nogil:
            pthread_mutex_lock(&self.r.head.lock)

    def unlock(self):
        pthread_mutex_unlock(&self.r.head.lock)

    def move(self, int seat):
        """As if a seat's process had died while the entries of its table moved."""
        ring_seat(&self.r, seat).interest.sequence += 1


cdef class Table:
    """One table of wants, of `most` entries."""

    cdef Interest i
    cdef Want *table
    cdef uint64_t most

    def __cinit__(self, uint64_t most):
        self.most = most
        self.table = <Want *>calloc(most, sizeof(Want))

    def __dealloc__(self):
        free(self.table)

    def set(self, uint64_t hash, uint64_t before, uint64_t count):
        return interest_set(&self.i, self.table, self.most, hash, before, count)

    def of(self, uint64_t hash):
        return interest_of(&self.i, self.table, self.most, hash)

    def count(self, uint64_t hash):
        return interest_count(&self.i, self.table, self.most, hash)

    def size(self):
        """Entries in use."""
        return self.i.mask + 1 if self.i.mask else 0

    def untold(self):
        return self.i.untold

    def move(self):
        """As if its writer had stopped while entries moved."""
        self.i.sequence += 1

    def clear(self):
        """What happens to it when its process has died."""
        free(self.table)
        self.table = <Want *>calloc(self.most, sizeof(Want))
        interest_clear(&self.i)
