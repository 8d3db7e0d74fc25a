"""RFC 7692 permessage-deflate, without I/O. See deflate.pyx."""

from libc.stdint cimport uint8_t

from c1m.buf cimport Block, Slice

cdef extern from "zlib.h" nogil:
    ctypedef struct z_stream:
        uint8_t *next_in           # const, but for builds without ZLIB_CONST
        unsigned int avail_in
        uint8_t *next_out
        unsigned int avail_out
        int data_type

cdef enum:
    MAX_AGREED = 128             # bytes of the longest element that deflate_agree writes
    MIN_WINDOW_BITS = 8          # RFC 7692 section 7.1.2
    MAX_WINDOW_BITS = 15         # likewise, and the default
    MIN_DEFLATE_BITS = 9         # zlib deflates for no smaller window

cdef enum Agreement:             # what deflate_agree says of a header line
    DEFLATE_DECLINED             # no offer in it can be taken: try the next line, else do without compression
    DEFLATE_AGREED
    DEFLATE_MALFORMED            # not a list of extensions: fail the handshake (RFC 6455 section 9.1)

cdef enum InflateResult:         # what inflater_run returns; after all but INFLATE_OK the message is lost
    INFLATE_OK
    INFLATE_TOO_BIG              # for the WebSocket: fail with 1009,
    INFLATE_BAD                  # 1007,
    INFLATE_NO_MEMORY            # 1011

cdef struct DeflateSettings:     # what a route allows
    bint shared                  # no context takeover, either way: one pair of streams serves a whole worker
    bint droppable               # messages of ours may be dropped: none may build on another
    uint8_t window_bits          # 9 to 15, of either side at most
    uint8_t memory_level         # 1 to 9, as zlib counts
    uint8_t level                # 1 to 9

cdef struct DeflateTerms:        # 4 bytes: the negotiated parameters of a connection
    uint8_t server_bits          # 9 to 15: the window of its Deflater at most
    uint8_t client_bits          # 8 to 15: the window of its Inflater at least
    uint8_t server_no_takeover   # keep_context is False for its deflater_message,
    uint8_t client_no_takeover   # and for its inflater_run; such a connection needs no stream of its own

cdef struct Deflater:            # for what we send; zlib points into it, so it must not move
    z_stream z

cdef struct Inflater:            # for what we receive; likewise
    z_stream z
    bint inside                  # it has input of a message, or of a deflate stream's unfinished block

cdef Agreement deflate_agree(
    Slice offers, const DeflateSettings *s, DeflateTerms *terms, uint8_t *answer, size_t *answer_n
) noexcept nogil

cdef Deflater *deflater_new(uint8_t bits, uint8_t memory_level, uint8_t level) noexcept nogil
cdef void deflater_free(Deflater *d) noexcept nogil
cdef Block *deflater_message(
    Deflater *d, const uint8_t *bytes, size_t n, size_t headroom, bint keep_context
) noexcept nogil

cdef Inflater *inflater_new(uint8_t bits) noexcept nogil
cdef void inflater_free(Inflater *i) noexcept nogil
cdef InflateResult inflater_run(
    Inflater *i, const uint8_t *bytes, size_t n, bint last, bint keep_context, size_t most, Block **message
) noexcept nogil
