"""The load's histogram as tests see it."""

from libc.stdlib cimport calloc, free

from c1m.histogram cimport Histogram, histogram_add, histogram_at, histogram_merge


cdef class Values:
    """A histogram of values that were added one by one, or with their number."""

    cdef Histogram *h

    def __cinit__(self):
        self.h = <Histogram *>calloc(1, sizeof(Histogram))
        if self.h == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.h)

    def add(self, value, times=1):
        histogram_add(self.h, value, times)

    def merge(self, Values other):
        histogram_merge(self.h, other.h)

    def at(self, share):
        return histogram_at(self.h, share)

    def summary(self):
        return self.h.total, self.h.sum, self.h.least, self.h.most
