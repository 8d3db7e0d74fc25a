"""SipHash-1-3 as tests see it."""

from libc.stdint cimport uint8_t, uint64_t

from c1m.buf cimport Block, block_copy, block_unref, load_le64
from c1m.siphash cimport SipKey, sip_key_new, siphash13


def hashed(bytes data, bytes key):
    """The hash of data under a key of 16 bytes."""
    cdef const uint8_t *k = key
    cdef SipKey sip_key = SipKey(load_le64(k), load_le64(k + 8))
    # An allocation of just this size, so that a sanitizer sees a read past the end.
    cdef Block *copy = block_copy(<const uint8_t *>data, len(data))
    cdef uint64_t result
    if copy == NULL:
        raise MemoryError
    result = siphash13(&sip_key, copy.data, copy.size)
    block_unref(copy)
    return result


def random_key():
    cdef SipKey key
    assert sip_key_new(&key)
    return key.k0, key.k1


def bench(bytes data, long rounds):
    """Rounds of hashing data."""
    cdef SipKey key = SipKey(1, 2)
    cdef const uint8_t *p = data
    cdef size_t n = len(data)
    cdef uint64_t sum = 0
    for _ in range(rounds):
        key.k0 = sum
        sum += siphash13(&key, p, n)
    return sum
