"""A histogram of durations: log-linear, 3 significant digits, of a fixed size. Inline only.

Up to 2048 each value has a bucket of its own; from there on each doubling has 1024 buckets, so that a bucket is never
wider than a thousandth of what is in it. These are HdrHistogram's buckets for 3 significant digits from 1 on, and a
test holds one against the other. Counting is one addition in memory that was there before; histograms are merged by
adding their counts.
"""

from libc.stdint cimport int64_t, uint64_t

cdef extern from *:
    int clz64 "__builtin_clzll"(uint64_t) noexcept nogil

cdef enum:
    HALF_BITS = 10               # each doubling has so many bits of buckets
    TOP_BITS_OF_VALUE = 47       # values below 2**47 ns: 39 hours
    BUCKETS = (TOP_BITS_OF_VALUE - HALF_BITS + 1) << HALF_BITS

cdef struct Histogram:
    uint64_t total               # values
    uint64_t sum                 # of the values; in ns it lasts for 584 years
    int64_t least, most          # what was recorded; 0 of nothing
    uint64_t[BUCKETS] counts


cdef inline int bucket_of(int64_t value) noexcept nogil:
    """The bucket's index for a value from 0 to 2**47 - 1."""
    cdef int shift = max(63 - clz64(<uint64_t>value | 1) - HALF_BITS, 0)
    return <int>((<uint64_t>shift << HALF_BITS) + (<uint64_t>value >> shift))

cdef inline int64_t bucket_most(int bucket) noexcept nogil:
    """The greatest value that the bucket counts."""
    cdef int shift = max((bucket >> HALF_BITS) - 1, 0)
    return ((<int64_t>bucket - (<int64_t>shift << HALF_BITS) + 1) << shift) - 1

cdef inline void histogram_add(Histogram *h, int64_t value, uint64_t times) noexcept nogil:
    """Records a value so many times; one out of range counts as the nearest in it."""
    value = min(max(value, <int64_t>0), (<int64_t>1 << TOP_BITS_OF_VALUE) - 1)
    h.counts[bucket_of(value)] += times
    h.least = value if h.total == 0 else min(h.least, value)
    h.most = max(h.most, value)
    h.total += times
    h.sum += <uint64_t>value * times

cdef inline void histogram_merge(Histogram *h, const Histogram *other) noexcept nogil:
    cdef int i
    if other.total == 0:
        return
    h.least = other.least if h.total == 0 else min(h.least, other.least)
    h.most = max(h.most, other.most)
    h.total += other.total
    h.sum += other.sum
    for i in range(BUCKETS):
        h.counts[i] += other.counts[i]

cdef inline int64_t histogram_at(const Histogram *h, double share) noexcept nogil:
    """The value that this share of the values, 0 to 1, does not exceed; to 3 digits, rounded up. 0 of nothing."""
    cdef uint64_t seen = 0, wanted = max(<uint64_t>(share * <double>h.total + 0.5), <uint64_t>1)
    cdef int i
    if h.total == 0:
        return 0
    for i in range(BUCKETS):
        seen += h.counts[i]
        if seen >= wanted:
            return bucket_most(i)
    return bucket_most(bucket_of(h.most))
