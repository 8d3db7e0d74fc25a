"""RFC 7692, permessage-deflate: what to agree on, messages deflated and inflated. No I/O.

Owns: the grammar of Sec-WebSocket-Extensions (RFC 6455 section 9.1), which offer is taken and on what terms, zlib's streams.
Refuses to know: frames (RSV1, fragments, masks), HTTP, sockets, who a stream belongs to.

Drive it so:

    deflate_agree(line, settings, &terms, answer, &n)    for each header line, until one is AGREED
    deflater_message(d, bytes, n, headroom, not terms.server_no_takeover)
    inflater_run(i, bytes, n, last, not terms.client_no_takeover, headroom + limit, &message)

A connection whose terms say no takeover has nothing to remember between messages, so a worker's own stream does
for it: an Inflater of MAX_WINDOW_BITS bits inflates whatever a client sends, a Deflater serves terms of its own bits and
more (keep one per server_bits asked for: seven at most). But a shared Inflater does not stop halfway through a
message: gather the compressed message whole, then call inflater_run once, with last.

Invariants: after a message's last run, and after any answer but INFLATE_OK, an Inflater stands before a message; without
context, or after an error, nothing of what it saw can be reached. The same holds for a Deflater that ran out of memory:
what it sends next does not build on the message that was lost. No block becomes longer than `most`. A stream is never
moved, and belongs to one thread.

Memory of a stream, by window bits w and memory level m, as zlib 1.2.13 asks for it:
  Deflater   (1 << (w + 2)) + (1 << (m + 9)) + 5952    w=15 m=8: 262 KiB   w=12 m=5: 38 KiB   w=9 m=1: 9 KiB
  Inflater   (1 << w) + 7160                           w=15: 39 KiB        w=12: 11 KiB       w=9: 7.5 KiB
All of a Deflater comes at once, the window of an Inflater with the first message. Less is resident until the windows
have filled: of a pair with w=15 m=8, 95 KiB after a short message each way, 257 KiB after a hundred thousand bytes.

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
  server_no_context_takeover                        7692 7.1.1.1  done and answered; also unasked, if contexts are shared
                                                                  or messages may be dropped
  client_no_context_takeover                        7692 7.1.1.2  answered: the client may as well be held to it
  server_max_window_bits of 9 to 15                 7692 7.1.2.1  answered with the smaller of it and ours; ours also unasked
  server_max_window_bits of 8                       7692 7.1.2.1  declined: zlib does not deflate for so small a window
  client_max_window_bits, with or without a value   7692 7.1.2.2  answered with the smaller of it and ours, if below 15
  client_max_window_bits not offered                7692 7.1.2.2  client_no_context_takeover instead, where ours is below 15
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

from c1m.buf cimport CLASS, DIGIT, TOKEN, Block, Slice, block_unref, block_grown, block_new, put_number, put_text, static_assert

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
    NO_VALUE = 0                 # of a parameter, where it has no bits
    OTHER_VALUE = 1              # neither nothing nor 8 to 15
    MAX_RUN = 1 << 30           # what zlib is given at once: it counts in unsigned int
    SLACK = 64                   # room that deflate is given at least: above 6, or it may mark one flush twice
    TRIM = 4096                  # unused bytes at a block's end that are worth giving back
    TAIL_SIZE = 4
    AT_BLOCK = 128               # z_stream.data_type of a raw stream that stands between two blocks, no bits pending

cdef struct Offer:               # an extension, as a client's header lists it
    bint ours                    # it is permessage-deflate
    bint sound                   # its parameters are known, valid, and there once
    bint server_no_takeover, client_no_takeover
    uint8_t server_bits          # 0: not offered
    uint8_t client_bits          # likewise; offered without value it means the most, 15


# ---- what to agree on ----

cdef Agreement deflate_agree(
    Slice offers, const DeflateSettings *s, DeflateTerms *terms, uint8_t *answer, size_t *answer_n
) noexcept nogil:
    """Looks through one value of Sec-WebSocket-Extensions. With DEFLATE_AGREED, terms are set and the element to answer
    with is in answer[:answer_n], which has room for MAX_AGREED; otherwise they mean nothing."""
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
    """What this offer and our settings come to. False: it asks for what we have not got."""
    if o.server_bits == 8:
        return False
    t.server_bits = min(o.server_bits, s.window_bits) if o.server_bits else s.window_bits
    t.client_bits = min(o.client_bits, s.window_bits) if o.client_bits else <uint8_t>MAX_WINDOW_BITS
    t.server_no_takeover = s.shared or s.droppable or o.server_no_takeover
    t.client_no_takeover = s.shared or o.client_no_takeover or t.client_bits > s.window_bits
    return True


cdef inline uint8_t *answer_write(const Offer *o, const DeflateTerms *t, uint8_t *to) noexcept nogil:
    """The element that accepts the offer on these terms (RFC 7692 section 7.1); a window not named is of 15 bits."""
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
    """token *( ";" parameter ). Returns where the list goes on, a comma or the end, or NULL where it breaks the grammar."""
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
    """token [ "=" ( token / quoted-string ) ], noted in the offer. Returns what follows it, or NULL."""
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
    """Whether a parameter may stand in an offer, and was not in this one before."""
    cdef bint again
    if is_name(name, stop, b"server_no_context_takeover"):
        again, o.server_no_takeover = o.server_no_takeover, True
        return value == NO_VALUE and not again
    if is_name(name, stop, b"client_no_context_takeover"):
        again, o.client_no_takeover = o.client_no_takeover, True
        return value == NO_VALUE and not again
    if is_name(name, stop, b"server_max_window_bits"):
        again, o.server_bits = o.server_bits != 0, value
        return value >= 8 and not again
    if is_name(name, stop, b"client_max_window_bits"):
        again, o.client_bits = o.client_bits != 0, <uint8_t>MAX_WINDOW_BITS if value == NO_VALUE else value
        return value != OTHER_VALUE and not again
    return False


cdef const uint8_t *value_next(const uint8_t *at, const uint8_t *end, uint8_t *value) noexcept nogil:
    """A token, or a quoted string that comes to one. Sets value to a number from 8 to 15, or OTHER_VALUE. NULL: neither."""
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
        # Past 15, and so with anything but a digit, it stays past 15.
        number = min(number * 10 + at[0] - c'0', <unsigned int>99) if CLASS[at[0]] & DIGIT and (number or not count) else 99
        count += 1
        at += 1
    if count == 0 or (quoted and (at == end or at[0] != c'"')):
        return NULL
    value[0] = <uint8_t>number if 8 <= number <= 15 else <uint8_t>OTHER_VALUE
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


cdef Block *deflater_message(Deflater *d, const uint8_t *bytes, size_t n, size_t headroom, bint keep_context) noexcept nogil:
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
    """Deflates all of bytes and flushes, to the end of the block. False: memory is out, the block is still the caller's."""
    cdef z_stream *z = &d.z
    cdef size_t left = n, room
    z.next_in = <uint8_t *>bytes
    z.avail_in = 0
    while True:
        if block[0].capacity - block[0].size < SLACK and not block_widen(block, 2 * block[0].capacity):
            return False
        if z.avail_in == 0:
            z.avail_in = <unsigned int>min(left, <size_t>MAX_RUN)
            left -= z.avail_in
        room = min(block[0].capacity - block[0].size, <size_t>MAX_RUN)
        z.next_out = block[0].data + block[0].size
        z.avail_out = <unsigned int>room
        deflate(z, Z_NO_FLUSH if left else Z_SYNC_FLUSH)
        block[0].size += room - z.avail_out
        if left == 0 and z.avail_out:
            return True


cdef inline bint block_widen(Block **block, size_t room) noexcept nogil:
    cdef Block *wider = block_grown(block[0], room)
    if wider != NULL:
        block[0] = wider
    return wider != NULL


cdef inline Block *block_trimmed(Block *block) noexcept nogil:
    """The block without the room it came to have and does not need, if that is much."""
    cdef Block *trimmed = NULL
    if block.capacity - block.size > TRIM:
        trimmed = block_grown(block, block.size)
    return block if trimmed == NULL else trimmed


# ---- messages in ----

cdef Inflater *inflater_new(uint8_t bits) noexcept nogil:
    """A decompressor for a window of 8 to 15 bits. NULL: memory is out, or bits out of range."""
    cdef Inflater *i = <Inflater *>calloc(1, sizeof(Inflater))
    # There are compressors that take 9 bits where 8 were agreed on: zlib's own, for one.
    if i != NULL and inflateInit2(&i.z, -max(<int>bits, 9)) != Z_OK:
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
    """Inflates a run of a message's payload, unmasked, to the end of *message, which has this one holder and may move.

    most: the message's limit and whatever message.size was before its first run. keep_context counts with `last`.
    Whatever the answer, the block stays the caller's.
    """
    cdef InflateResult result = inflater_feed(i, bytes, n, most, message)
    if result == INFLATE_OK and not last:
        return INFLATE_OK
    if result == INFLATE_OK and i.inside:
        # The tail is the length of an empty block. Where it is anything else, the message broke off inside one.
        result = inflater_feed(i, TAIL, TAIL_SIZE, message[0].size, message)
        if result == INFLATE_TOO_BIG or (result == INFLATE_OK and i.inside and i.z.data_type != AT_BLOCK):
            result = INFLATE_BAD
    i.inside = False
    if result != INFLATE_OK or not keep_context:
        inflateReset(&i.z)
    if result == INFLATE_OK:
        message[0] = block_trimmed(message[0])
    return result


cdef InflateResult inflater_feed(Inflater *i, const uint8_t *bytes, size_t n, size_t most, Block **message) noexcept nogil:
    """Inflates all of bytes. INFLATE_OK: they were taken, and all that they say is in the message."""
    cdef z_stream *z = &i.z
    cdef uint8_t past[1]                     # where a byte over the limit would land
    cdef size_t left = n, size, room
    cdef bint full = False                   # zlib took all the room, and may hold more than that
    cdef int said
    z.next_in = <uint8_t *>bytes
    z.avail_in = 0
    while left or z.avail_in or full:
        if z.avail_in == 0:
            z.avail_in = <unsigned int>min(left, <size_t>MAX_RUN)
            left -= z.avail_in
        if z.avail_in:
            i.inside = True
        size = message[0].size
        room = min(message[0].capacity, most)
        if room <= size and size < most:
            if not block_widen(message, min(most, max(2 * room, size + 4 * <size_t>z.avail_in + SLACK))):
                return INFLATE_NO_MEMORY
            room = message[0].capacity
        if size < most:
            room = min(room - size, <size_t>MAX_RUN)
            z.next_out = message[0].data + size
        else:
            room = 1
            z.next_out = past
        z.avail_out = <unsigned int>room
        said = inflate(z, Z_NO_FLUSH)
        full = z.avail_out == 0
        if size < most:
            message[0].size = size + room - z.avail_out
        elif full:
            return INFLATE_TOO_BIG
        if said == Z_STREAM_END:
            inflateReset(z)
            i.inside = full = False
        elif said == Z_MEM_ERROR:
            return INFLATE_NO_MEMORY
        elif said != Z_OK and said != Z_BUF_ERROR:
            return INFLATE_BAD
    return INFLATE_OK


static_assert(sizeof(DeflateTerms) == 4)
