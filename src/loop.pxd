"""The reactor as Python sees it. See loop.pyx."""

from c1m.reactor cimport Reactor


cdef class Loop:
    cdef Reactor r
    cdef bint running
    cdef object __weakref__
    cdef dict attended           # what is called while an fd is readable
    cdef see(self)
