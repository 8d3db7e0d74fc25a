"""SipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012), inline only.

For hash tables whose keys strangers choose: without the key nobody can tell which names share a bucket. One round for
each 8 bytes and three at the end, as CPython and Rust use it for the same purpose.
"""

from libc.stdint cimport uint8_t, uint64_t

from c1m.buf cimport load_le64
from c1m.linux cimport getrandom

cdef struct SipKey:
    uint64_t k0, k1

cdef extern from *:
    """
    #define C1M_ROTATE(v, n) ((v) << (n) | (v) >> (64 - (n)))
    #define C1M_SIP_ROUND(a, b, c, d) do { \\
        a += b; b = C1M_ROTATE(b, 13) ^ a; a = C1M_ROTATE(a, 32); \\
        c += d; d = C1M_ROTATE(d, 16) ^ c; \\
        a += d; d = C1M_ROTATE(d, 21) ^ a; \\
        c += b; b = C1M_ROTATE(b, 17) ^ c; c = C1M_ROTATE(c, 32); \\
    } while (0)
    """
    void sip_round "C1M_SIP_ROUND"(uint64_t a, uint64_t b, uint64_t c, uint64_t d) noexcept nogil


cdef inline bint sip_key_new(SipKey *key) noexcept nogil:
    """A random key (getrandom(2)). False: the kernel gave none."""
    return getrandom(key, sizeof(SipKey), 0) == sizeof(SipKey)


cdef inline uint64_t siphash13(const SipKey *key, const uint8_t *p, size_t n) noexcept nogil:
    """The hash of n bytes. All of its bits are good for a bucket."""
    cdef uint64_t a = key.k0 ^ <uint64_t>0x736f6d6570736575
    cdef uint64_t b = key.k1 ^ <uint64_t>0x646f72616e646f6d
    cdef uint64_t c = key.k0 ^ <uint64_t>0x6c7967656e657261
    cdef uint64_t d = key.k1 ^ <uint64_t>0x7465646279746573
    cdef uint64_t last = <uint64_t>n << 56, word
    cdef int i
    while n >= 8:
        word = load_le64(p)
        d ^= word
        sip_round(a, b, c, d)
        a ^= word
        p += 8
        n -= 8
    for i in range(<int>n):
        last |= <uint64_t>p[i] << 8 * i
    d ^= last
    sip_round(a, b, c, d)
    a ^= last
    c ^= 0xff
    sip_round(a, b, c, d)
    sip_round(a, b, c, d)
    sip_round(a, b, c, d)
    return a ^ b ^ c ^ d
