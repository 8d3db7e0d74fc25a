"""RFC 7692 permessage-deflate as tests see it."""

from libc.stdint cimport uint8_t
from libc.string cimport memset

from c1m.buf cimport Block, Slice, block_copy, block_new, block_unref
from c1m.deflate cimport (
    DEFLATE_DECLINED, DEFLATE_MALFORMED, INFLATE_BAD, INFLATE_NO_MEMORY, INFLATE_OK, INFLATE_TOO_BIG, MAX_AGREED,
    Deflater, DeflateSettings, DeflateTerms, Inflater, InflateResult, deflate_agree, deflater_free, deflater_message,
    deflater_new, inflater_free, inflater_new, inflater_run,
)


def agree(bytes offers, bint shared=False, uint8_t window_bits=15, bint droppable=False):
    """(terms, answer) for one value of Sec-WebSocket-Extensions; None: no offer fits. ValueError: it is malformed."""
    cdef DeflateSettings settings = DeflateSettings(shared, droppable, window_bits, 8, 6)
    cdef DeflateTerms terms
    cdef uint8_t answer[MAX_AGREED]
    cdef size_t n = 0
    # An allocation of just this size, so that a sanitizer sees a read past the end.
    cdef Block *copy = block_copy(<const uint8_t *>offers, len(offers))
    if copy == NULL:
        raise MemoryError
    said = deflate_agree(Slice(&copy.data[0], copy.size), &settings, &terms, answer, &n)
    block_unref(copy)
    if said == DEFLATE_MALFORMED:
        raise ValueError("not a list of extensions")
    if said == DEFLATE_DECLINED:
        return None
    assert n <= MAX_AGREED
    return {
        "server_bits": terms.server_bits, "client_bits": terms.client_bits,
        "server_no_takeover": bool(terms.server_no_takeover), "client_no_takeover": bool(terms.client_no_takeover),
    }, answer[:n]


cdef class Codec:
    """A Deflater and an Inflater as Python sees them."""

    cdef Deflater *deflater
    cdef Inflater *inflater

    def __cinit__(self, uint8_t bits=15, uint8_t memory_level=8, uint8_t level=6):
        self.deflater = deflater_new(bits, memory_level, level)
        self.inflater = inflater_new(bits)
        if self.deflater == NULL or self.inflater == NULL:
            raise MemoryError

    def __dealloc__(self):
        deflater_free(self.deflater)
        inflater_free(self.inflater)

    def compress(self, const uint8_t[::1] message, size_t headroom=0, bint keep_context=True):
        """The compressed payload, without the headroom in front of it."""
        cdef size_t n = message.shape[0]
        cdef Block *block = deflater_message(self.deflater, &message[0] if n else NULL, n, headroom, keep_context)
        if block == NULL:
            raise MemoryError
        payload = block.data[headroom:block.size]
        block_unref(block)
        return payload

    def decompress(self, runs, size_t limit=1 << 20, size_t headroom=0, bint keep_context=True):
        """The message that runs of compressed payload, at least one, come to. OverflowError: it is over the limit;
        ValueError: the runs are not deflate data."""
        cdef Block *message = block_new(headroom)
        cdef Block *copy
        cdef InflateResult said = INFLATE_OK
        cdef list all_runs = list(runs)
        cdef bytes run
        cdef size_t k = 0, count = len(all_runs)
        if message == NULL:
            raise MemoryError
        memset(message.data, 0x5a, headroom)
        message.size = headroom
        try:
            while k < count and said == INFLATE_OK:
                run = all_runs[k]
                k += 1
                copy = block_copy(<const uint8_t *>run, len(run))
                if copy == NULL:
                    raise MemoryError
                said = inflater_run(
                    self.inflater, copy.data, copy.size, k == count, keep_context, headroom + limit, &message
                )
                block_unref(copy)
                assert message.size <= headroom + limit and message.capacity <= headroom + limit
            if said == INFLATE_NO_MEMORY:
                raise MemoryError
            if said == INFLATE_TOO_BIG:
                raise OverflowError("over the limit")
            if said == INFLATE_BAD:
                raise ValueError("not deflate data")
            assert message.data[:headroom] == b"\x5a" * headroom
            return message.data[headroom:message.size]
        finally:
            block_unref(message)
