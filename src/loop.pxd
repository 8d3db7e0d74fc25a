"""The reactor as Python sees it. See loop.pyx."""

from libc.stdint cimport uint8_t

from c1m.reactor cimport Reactor


cdef class Loop:
    cdef Reactor r
    cdef bint running
    cdef object __weakref__
    cdef watch(self, int fd, uint8_t protocol)
