"""RFC 7692, permessage-deflate: negotiation, messages deflated and inflated. No I/O.

Owns: the grammar of Sec-WebSocket-Extensions (RFC 6455 section 9.1), which offer is taken and with which parameters,
zlib's streams.
Refuses to know: frames (RSV1, fragments, masks), HTTP, sockets, connections.

Drive it so:

    deflate_agree(line, settings, &terms, answer, &n)    for each header line, until one is AGREED
    deflater_message(d, bytes, n, headroom, not terms.server_no_takeover)
    inflater_run(i, bytes, n, last, not terms.client_no_takeover, headroom + limit, &message)

A connection without context takeover has no state between messages, so one stream serves all such connections of a
worker: an Inflater of MAX_WINDOW_BITS bits inflates whatever a client sends, a Deflater serves any server_bits from its
own up (keep one for each server_bits in use: seven at most). But a shared Inflater cannot stop in the middle of a
message: collect the whole compressed message, then call inflater_run once, with last.

Invariants: after a message's last run, and after any result but INFLATE_OK, an Inflater expects a new message; without
context, or after an error, nothing of earlier messages can be reached. The same holds for a Deflater that ran out of
memory: its next message does not build on the one that was lost. No block becomes longer than `most`. A stream is never
moved, and belongs to one thread.

Memory of a stream, by window bits w and memory level m, as zlib 1.2.13 asks for it:
  Deflater   (1 << (w + 2)) + (1 << (m + 9)) + 5952    w=15 m=8: 262 KiB   w=12 m=5: 38 KiB   w=9 m=1: 9 KiB
  Inflater   (1 << w) + 7160                           w=15: 39 KiB        w=12: 11 KiB       w=9: 7.5 KiB
A Deflater is allocated at once, an Inflater's window with the first message. Less is resident until the windows have
filled: of a pair with w=15 m=8, 95 KiB after a short message each way, 257 KiB after a hundred thousand bytes.

Strictness:
  not a list of extensions                          6455 9.1      DEFLATE_MALFORMED: fail the handshake
  quoted value that is no token once unescaped      6455 9.1      DEFLATE_MALFORMED
  empty list elements, spaces around separators     6455 9.1      skipped
  other extensions                                  6455 9.1      skipped
  several offers                                    7692 5        the first that can be taken
  name in other letter case                         7692 7        unknown
  unknown parameter                                 7692 7        that offer is declined
  parameter given twice                             7692 7        declined, even with equal values
  value where none belongs, none where one does     7692 7.1      declined
  bits not 8 to 15, or with leading zeros           7692 7.1.2    declined
  server_no_context_takeover                        7692 7.1.1.1  done and answered; also unasked, if streams are shared
                                                                  or messages may be dropped
  client_no_context_takeover                        7692 7.1.1.2  answered: the client may as well be held to it
  server_max_window_bits of 9 to 15                 7692 7.1.2.1  answered with the lesser of it and ours; also unasked,
                                                                  if ours is below 15
  server_max_window_bits of 8                       7692 7.1.2.1  declined: zlib does not deflate for so small a window
  client_max_window_bits, with or without a value   7692 7.1.2.2  answered with the lesser of it and ours, if below 15
  client_max_window_bits not offered                7692 7.1.2.2  client_no_context_takeover instead, if ours < 15
  not deflate data                                  7692 7.2.2    INFLATE_BAD
  message that ends inside a block                  7692 7.2.2    INFLATE_BAD
  distance to before the context began              7692 7.2.2    INFLATE_BAD
  distance past the agreed window                   7692 7.1.2    INFLATE_BAD, if what lies there is no longer kept
  block with BFINAL set                             7692 7.2.3.4  the next block begins anew, without context
  message that ends with such a block               7692 7.2.3.4  whole, although 0x00 should follow
  message of no bytes                               7692 7.2.3.6  empty, although it should be 0x00
  message over the limit                            6455 10.4     INFLATE_TOO_BIG, at the first byte past it
"""

from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memset, strlen

from c1m.buf cimport (
    CLASS, DIGIT, TOKEN, Block, Slice, block_grown, block_new, block_unref, put_number, put_text, static_assert,
)

cdef extern from "zlib.h" nogil:
    enum:
        Z_OK, Z_STREAM_END, Z_BUF_ERROR, Z_MEM_ERROR
        Z_NO_FLUSH, Z_SYNC_FLUSH
        Z_DEFLATED, Z_DEFAULT_STRATEGY
    int deflateInit2(z_stream *z, int level, int method, int bits, int memory_level, int strategy) noexcept
    int deflate(z_stream *z, int flush) noexcept
    int deflateReset(z_stream *z) noexcept
    int deflateEnd(z_stream *z) noexcept
    int inflateInit2(z_stream *z, int bits) noexcept
    int inflate(z_stream *z, int flush) noexcept
    int inflateReset(z_stream *z) noexcept
    int inflateEnd(z_stream *z) noexcept

cdef extern from *:
    """
    /* What ends a flush, and is not sent: RFC 7692 section 7.2.1. */
    static const unsigned char c1m_tail[4] = { 0x00, 0x00, 0xff, 0xff };
    """
    const uint8_t[4] TAIL "c1m_tail"

cdef enum:
    NO_VALUE = 0                 # of a parameter, else its window bits
    OTHER_VALUE = 1              # a value that is no number of window bits
    OVERFLOW = 99                # a number too large to be window bits; with another digit it stays too large
    MAX_RUN = 1 << 30            # bytes given to zlib at once: it counts in unsigned int
    SLACK = 64                   # bytes of output space that deflate has at least: above 6, or it may end a flush twice
    TRIM = 4096                  # unused bytes at a block's end that are worth giving back
    TAIL_SIZE = 4
    AT_BLOCK = 128               # z_stream.data_type of a raw stream between two blocks, with no bits pending

cdef struct Offer:               # an extension in a client's header
    bint ours                    # it is permessage-deflate
    bint sound                   # its parameters are known, valid, and there once
    bint server_no_takeover, client_no_takeover
    uint8_t server_bits          # 0: not offered
    uint8_t client_bits          # likewise; MAX_WINDOW_BITS if offered without a value


# ---- what to agree on ----

cdef Agreement deflate_agree(
    Slice offers, const DeflateSettings *s, DeflateTerms *terms, uint8_t *answer, size_t *answer_n
) noexcept nogil:
    """Chooses from one value of Sec-WebSocket-Extensions. DEFLATE_AGREED: terms are set, and answer[:answer_n], of at
    most MAX_AGREED bytes, is the element to answer with. Otherwise both are undefined."""
    cdef const uint8_t *end = offers.at + offers.n
    cdef const uint8_t *at = after_spaces(offers.at, end)
    cdef Agreement result = DEFLATE_DECLINED
    cdef Offer offer
    while at < end:
        if at[0] == c',':
            at = after_spaces(at + 1, end)
            continue
        at = offer_next(at, end, &offer)
        if at == NULL:
            return DEFLATE_MALFORMED
        if result == DEFLATE_DECLINED and offer.ours and offer.sound and offer_accept(&offer, s, terms):
            answer_n[0] = answer_write(&offer, terms, answer) - answer
            result = DEFLATE_AGREED
    return result


cdef inline bint offer_accept(const Offer *o, const DeflateSettings *s, DeflateTerms *t) noexcept nogil:
    """Sets the parameters that this offer and our settings lead to. False: it asks for a window that we cannot use."""
    if o.server_bits == MIN_WINDOW_BITS:
        return False
    t.server_bits = min(o.server_bits, s.window_bits) if o.server_bits else s.window_bits
    t.client_bits = min(o.client_bits, s.window_bits) if o.client_bits else <uint8_t>MAX_WINDOW_BITS
    t.server_no_takeover = s.shared or s.droppable or o.server_no_takeover
    t.client_no_takeover = s.shared or o.client_no_takeover or t.client_bits > s.window_bits
    return True


cdef inline uint8_t *answer_write(const Offer *o, const DeflateTerms *t, uint8_t *to) noexcept nogil:
    """The element that accepts the offer on these terms (RFC 7692 section 7.1); MAX_WINDOW_BITS need not be named."""
    to = put_text(to, b"permessage-deflate")
    if t.server_no_takeover:
        to = put_text(to, b"; server_no_context_takeover")
    if t.client_no_takeover:
        to = put_text(to, b"; client_no_context_takeover")
    if o.server_bits or t.server_bits < MAX_WINDOW_BITS:
        to = put_number(put_text(to, b"; server_max_window_bits="), t.server_bits)
    if t.client_bits < MAX_WINDOW_BITS:
        to = put_number(put_text(to, b"; client_max_window_bits="), t.client_bits)
    return to


cdef const uint8_t *offer_next(const uint8_t *at, const uint8_t *end, Offer *o) noexcept nogil:
    """Parses token *( ";" parameter ). Returns where the list goes on, a comma or the end; NULL: it is malformed."""
    cdef const uint8_t *stop = after_token(at, end)
    if stop == at:
        return NULL
    memset(o, 0, sizeof(Offer))
    o.ours = is_name(at, stop, b"permessage-deflate")
    o.sound = True
    at = after_spaces(stop, end)
    while at < end and at[0] == c';':
        at = parameter_next(after_spaces(at + 1, end), end, o)
        if at == NULL:
            return NULL
    return at if at == end or at[0] == c',' else NULL


cdef const uint8_t *parameter_next(const uint8_t *at, const uint8_t *end, Offer *o) noexcept nogil:
    """Parses token [ "=" ( token / quoted-string ) ] into the offer. Returns what follows it; NULL: it is malformed."""
    cdef uint8_t value = NO_VALUE
    cdef const uint8_t *name = at
    cdef const uint8_t *stop = after_token(at, end)
    if stop == name:
        return NULL
    at = after_spaces(stop, end)
    if at < end and at[0] == c'=':
        at = value_next(after_spaces(at + 1, end), end, &value)
        if at == NULL:
            return NULL
        at = after_spaces(at, end)
    o.sound &= parameter_note(name, stop, value, o)
    return at


cdef inline bint parameter_note(const uint8_t *name, const uint8_t *stop, uint8_t value, Offer *o) noexcept nogil:
    """Notes a parameter. False: it is unknown, its value is not allowed, or it was there before."""
    cdef bint again
    if is_name(name, stop, b"server_no_context_takeover"):
        again, o.server_no_takeover = o.server_no_takeover, True
        return value == NO_VALUE and not again
    if is_name(name, stop, b"client_no_context_takeover"):
        again, o.client_no_takeover = o.client_no_takeover, True
        return value == NO_VALUE and not again
    if is_name(name, stop, b"server_max_window_bits"):
        again, o.server_bits = o.server_bits != 0, value
        return value >= MIN_WINDOW_BITS and not again
    if is_name(name, stop, b"client_max_window_bits"):
        again, o.client_bits = o.client_bits != 0, <uint8_t>MAX_WINDOW_BITS if value == NO_VALUE else value
        return value != OTHER_VALUE and not again
    return False


cdef const uint8_t *value_next(const uint8_t *at, const uint8_t *end, uint8_t *value) noexcept nogil:
    """Parses a token, or a quoted string that holds one. Sets value to its window bits, else OTHER_VALUE. Returns what
    follows it; NULL: it is neither."""
    cdef bint quoted = at < end and at[0] == c'"'
    cdef bint escaped
    cdef unsigned int number = 0
    cdef size_t count = 0
    at += quoted
    while at < end:
        escaped = quoted and at[0] == c'\\'
        at += escaped
        if at == end or not CLASS[at[0]] & TOKEN:
            if escaped:
                return NULL
            break
        if CLASS[at[0]] & DIGIT and (number or not count):
            number = min(number * 10 + at[0] - c'0', <unsigned int>OVERFLOW)
        else:
            number = OVERFLOW
        count += 1
        at += 1
    if count == 0 or (quoted and (at == end or at[0] != c'"')):
        return NULL
    value[0] = <uint8_t>number if MIN_WINDOW_BITS <= number <= MAX_WINDOW_BITS else <uint8_t>OTHER_VALUE
    return at + quoted


cdef inline const uint8_t *after_spaces(const uint8_t *at, const uint8_t *end) noexcept nogil:
    while at < end and (at[0] == c' ' or at[0] == c'\t'):
        at += 1
    return at


cdef inline const uint8_t *after_token(const uint8_t *at, const uint8_t *end) noexcept nogil:
    while at < end and CLASS[at[0]] & TOKEN:
        at += 1
    return at


cdef inline bint is_name(const uint8_t *at, const uint8_t *stop, const char *name) noexcept nogil:
    return <size_t>(stop - at) == strlen(name) and memcmp(at, name, stop - at) == 0


# ---- messages out ----

cdef Deflater *deflater_new(uint8_t bits, uint8_t memory_level, uint8_t level) noexcept nogil:
    """A compressor with a window of 9 to 15 bits. NULL: memory is out, or an argument out of range."""
    cdef Deflater *d = <Deflater *>calloc(1, sizeof(Deflater))
    if d != NULL and deflateInit2(&d.z, level, Z_DEFLATED, -<int>bits, memory_level, Z_DEFAULT_STRATEGY) != Z_OK:
        free(d)
        return NULL
    return d


cdef void deflater_free(Deflater *d) noexcept nogil:
    """NULL is fine."""
    if d != NULL:
        deflateEnd(&d.z)
        free(d)


cdef Block *deflater_message(
    Deflater *d, const uint8_t *bytes, size_t n, size_t headroom, bint keep_context
) noexcept nogil:
    """A message's compressed payload (RFC 7692 section 7.2.1) in a block of the caller's, behind `headroom` bytes that
    are the caller's to fill; block.size counts them. NULL: memory is out. Without keep_context the next message does
    not build on this one."""
    # A short message grows by a few bytes at worst; of a long one most often little is left.
    cdef Block *block = block_new(headroom + SLACK + (n if n <= 4 * TRIM else n // 4))
    if block == NULL:
        return NULL
    block.size = headroom
    if n == 0:
        block.data[headroom] = 0             # section 7.2.3.6; zlib does not flush twice in a row
        block.size += 1
        return block
    if not deflater_feed(d, bytes, n, &block):
        block_unref(block)
        deflateReset(&d.z)
        return NULL
    block.size -= TAIL_SIZE
    if not keep_context:
        deflateReset(&d.z)
    return block_trimmed(block)


cdef bint deflater_feed(Deflater *d, const uint8_t *bytes, size_t n, Block **block) noexcept nogil:
    """Appends all of bytes, deflated and flushed, to the block, which may move. False: memory is out."""
    cdef z_stream *z = &d.z
    cdef size_t left = n, space
    z.next_in = <uint8_t *>bytes
    z.avail_in = 0
    while True:
        if block[0].capacity - block[0].size < SLACK and not block_widen(block, 2 * block[0].capacity):
            return False
        if z.avail_in == 0:
            z.avail_in = <unsigned int>min(left, <size_t>MAX_RUN)
            left -= z.avail_in
        space = min(block[0].capacity - block[0].size, <size_t>MAX_RUN)
        z.next_out = block[0].data + block[0].size
        z.avail_out = <unsigned int>space
        deflate(z, Z_NO_FLUSH if left else Z_SYNC_FLUSH)
        block[0].size += space - z.avail_out
        if left == 0 and z.avail_out:
            return True


cdef inline bint block_widen(Block **block, size_t capacity) noexcept nogil:
    """Gives the block that capacity; it may move. False: memory is out."""
    cdef Block *wider = block_grown(block[0], capacity)
    if wider != NULL:
        block[0] = wider
    return wider != NULL


cdef inline Block *block_trimmed(Block *block) noexcept nogil:
    """The block without its unused capacity, if that is much; it may move."""
    cdef Block *trimmed = NULL
    if block.capacity - block.size > TRIM:
        trimmed = block_grown(block, block.size)
    return block if trimmed == NULL else trimmed


# ---- messages in ----

cdef Inflater *inflater_new(uint8_t bits) noexcept nogil:
    """A decompressor for a window of 8 to 15 bits. NULL: memory is out, or bits out of range."""
    cdef Inflater *i = <Inflater *>calloc(1, sizeof(Inflater))
    # Some compressors use 9 bits where 8 were agreed on: zlib's, for one.
    if i != NULL and inflateInit2(&i.z, -max(<int>bits, <int>MIN_DEFLATE_BITS)) != Z_OK:
        free(i)
        return NULL
    return i


cdef void inflater_free(Inflater *i) noexcept nogil:
    """NULL is fine."""
    if i != NULL:
        inflateEnd(&i.z)
        free(i)


cdef InflateResult inflater_run(
    Inflater *i, const uint8_t *bytes, size_t n, bint last, bint keep_context, size_t most, Block **message
) noexcept nogil:
    """Appends a run of a message's payload, unmasked, inflated to *message, whose refcount is 1 and which may move.

    most: the message's limit plus message.size before its first run. keep_context matters with `last` only.
    Whatever the result, the block stays the caller's.
    """
    cdef InflateResult result = inflater_feed(i, bytes, n, most, message)
    if result == INFLATE_OK and not last:
        return INFLATE_OK
    if result == INFLATE_OK and i.inside:
        # The tail is the length of an empty block. If zlib takes it for anything else, the message ended within one.
        result = inflater_feed(i, TAIL, TAIL_SIZE, message[0].size, message)
        if result == INFLATE_TOO_BIG or (result == INFLATE_OK and i.inside and i.z.data_type != AT_BLOCK):
            result = INFLATE_BAD
    i.inside = False
    if result != INFLATE_OK or not keep_context:
        inflateReset(&i.z)
    if result == INFLATE_OK:
        message[0] = block_trimmed(message[0])
    return result


cdef InflateResult inflater_feed(
    Inflater *i, const uint8_t *bytes, size_t n, size_t most, Block **message
) noexcept nogil:
    """Inflates all of bytes. INFLATE_OK: they were consumed, and their output is in the message."""
    cdef z_stream *z = &i.z
    cdef uint8_t past[1]                     # takes a byte over the limit
    cdef size_t left = n, size, space
    cdef bint full = False                   # zlib filled all the space, and may have more output
    cdef int status
    z.next_in = <uint8_t *>bytes
    z.avail_in = 0
    while left or z.avail_in or full:
        if z.avail_in == 0:
            z.avail_in = <unsigned int>min(left, <size_t>MAX_RUN)
            left -= z.avail_in
        if z.avail_in:
            i.inside = True
        size = message[0].size
        space = min(message[0].capacity, most)
        if space <= size and size < most:
            if not block_widen(message, min(most, max(2 * space, size + 4 * <size_t>z.avail_in + SLACK))):
                return INFLATE_NO_MEMORY
            space = message[0].capacity
        if size < most:
            space = min(space - size, <size_t>MAX_RUN)
            z.next_out = message[0].data + size
        else:
            space = 1
            z.next_out = past
        z.avail_out = <unsigned int>space
        status = inflate(z, Z_NO_FLUSH)
        full = z.avail_out == 0
        if size < most:
            message[0].size = size + space - z.avail_out
        elif full:
            return INFLATE_TOO_BIG
        if status == Z_STREAM_END:
            inflateReset(z)
            i.inside = full = False
        elif status == Z_MEM_ERROR:
            return INFLATE_NO_MEMORY
        elif status != Z_OK and status != Z_BUF_ERROR:
            return INFLATE_BAD
    return INFLATE_OK


static_assert(sizeof(DeflateTerms) == 4)
