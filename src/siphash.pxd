"""SipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012), inline only.

For hash tables whose keys clients choose: without the SipKey nobody can tell which names share a bucket. One round for
each 8 bytes and three at the end, as CPython and Rust use it for the same purpose.
"""

from libc.stdint cimport uint8_t, uint64_t

from c1m.buf cimport load_le64
from c1m.linux cimport getrandom

cdef struct SipKey:
    uint64_t k0, k1

cdef struct SipState:
    uint64_t v0, v1, v2, v3


cdef inline bint sip_key_new(SipKey *key) noexcept nogil:
    """A random key (getrandom(2)). False: the kernel gave none."""
    return getrandom(key, sizeof(SipKey), 0) == sizeof(SipKey)


cdef inline uint64_t rotated(uint64_t v, int n) noexcept nogil:
    return v << n | v >> (64 - n)


cdef inline void sip_round(SipState *s) noexcept nogil:
    s.v0 += s.v1
    s.v2 += s.v3
    s.v1 = rotated(s.v1, 13) ^ s.v0
    s.v3 = rotated(s.v3, 16) ^ s.v2
    s.v0 = rotated(s.v0, 32) + s.v3
    s.v2 += s.v1
    s.v3 = rotated(s.v3, 21) ^ s.v0
    s.v1 = rotated(s.v1, 17) ^ s.v2
    s.v2 = rotated(s.v2, 32)


cdef inline uint64_t siphash13(const SipKey *key, const uint8_t *p, size_t n) noexcept nogil:
    """The hash of n bytes. Any of its bits will do to choose a bucket."""
    cdef SipState s
    cdef uint64_t last = <uint64_t>n << 56, word
    cdef bint whole = n >= 8
    cdef int i
    s.v0 = key.k0 ^ <uint64_t>0x736f6d6570736575
    s.v1 = key.k1 ^ <uint64_t>0x646f72616e646f6d
    s.v2 = key.k0 ^ <uint64_t>0x6c7967656e657261
    s.v3 = key.k1 ^ <uint64_t>0x7465646279746573
    while n >= 8:
        word = load_le64(p)
        s.v3 ^= word
        sip_round(&s)
        s.v0 ^= word
        p += 8
        n -= 8
    if n and whole:
        last |= load_le64(p + n - 8) >> 8 * (8 - n)      # with bytes of the word before, which are shifted out
    else:
        for i in range(<int>n):
            last |= <uint64_t>p[i] << 8 * i
    s.v3 ^= last
    sip_round(&s)
    s.v0 ^= last
    s.v2 ^= 0xff
    sip_round(&s)
    sip_round(&s)
    sip_round(&s)
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3
