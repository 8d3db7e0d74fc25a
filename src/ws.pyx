"""RFC 6455, the WebSocket protocol, as server and client: frames in, frames out, the handshake's key. No I/O.

Owns: the frame grammar, masking, fragmentation, message size, UTF-8, close codes, Sec-WebSocket-Key and -Accept.
Refuses to know: HTTP, sockets, timers, handlers, where random bytes come from.

Drive it so:

    used = ws_next(parser, limit, bytes, n, &event)
    WS_MORE      keep bytes[used:] and call again with more behind them
    WS_DATA      ws_take(parser, &event, to): writes the run's payload, unmasked and, if text, checked, to `to`
    WS_CONTROL   the same; ws_close_code then judges a close frame's payload
    WS_FAIL      send a close frame with event.code and event.reason, and parse no more

A server sends ws_header and the payload. A client sends ws_header_masked with a new key for each frame, and the payload
as ws_mask writes it.

Invariants: a WsParser is 16 bytes. Every WS_DATA and WS_CONTROL event is taken before the next call of ws_next. Runs
depend on how the bytes were cut; what they add up to, and where a fault is found, does not.

Each row of the table holds in both roles, a client's frames being masked and a server's not.

Strictness:
  RSV1-3 set                           5.2   1002, but RSV1 with WS_DEFLATE at the head of a data message
                                             (RFC 7692 6.1)
  opcode 3-7, B-F                      5.2   1002
  client frame not masked              5.1   1002
  server frame masked                  5.1   1002 (in the client role)
  control frame over 125 bytes         5.5   1002
  control frame without FIN            5.5   1002
  control frame amid a message         5.4   delivered at once
  continuation with nothing to continue 5.4  1002
  new message inside a message         5.4   1002
  length longer than it need be        5.2   1002
  length with its top bit set          5.2   1002
  message over the limit               7.4.1 1009, at the header that announces it
  text that is not UTF-8               8.1   1007, at the first byte that cannot be right
  text that ends inside a character    8.1   1007
  close payload of one byte            5.5.1 1002
  close code 1004-1006, 1015, 0-999, 1016-2999, 5000 and up  7.4  1002
  close reason that is not UTF-8       5.5.1 1007
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from c1m.buf cimport ALNUM, CLASS, TOP_BITS, load32, load64, load_be16, load_be64, static_assert, store64

cdef extern from "openssl/sha.h" nogil:
    unsigned char *SHA1(const unsigned char *bytes, size_t n, unsigned char *out) noexcept nogil

cdef extern from *:
    """
    /* UTF-8 (RFC 3629 section 4) as an automaton. A state says what may come next, and is numbered by where
       its successor stands in a byte's row: next = row[byte] >> state & 63. The states after E0, ED, F0 and F4
       are apart because their second byte is confined to a part of 80..BF. */
    enum { U_START = 0, U_BAD = 6, U_ONE = 12, U_TWO = 18, U_THREE = 24, U_E0 = 30, U_ED = 36, U_F0 = 42, U_F4 = 48 };
    #define U_ROW(start, one, two, three, e0, ed, f0, f4) ( \
        (unsigned long long)(start) << U_START | (unsigned long long)U_BAD << U_BAD | \
        (unsigned long long)(one) << U_ONE | (unsigned long long)(two) << U_TWO | \
        (unsigned long long)(three) << U_THREE | (unsigned long long)(e0) << U_E0 | \
        (unsigned long long)(ed) << U_ED | (unsigned long long)(f0) << U_F0 | (unsigned long long)(f4) << U_F4)
    #define U_LEAD(next) U_ROW(next, U_BAD, U_BAD, U_BAD, U_BAD, U_BAD, U_BAD, U_BAD)
    static const unsigned long long c1m_utf8[256] = {
        [0x00 ... 0x7F] = U_LEAD(U_START),
        [0x80 ... 0x8F] = U_ROW(U_BAD, U_START, U_ONE, U_TWO, U_BAD, U_ONE, U_BAD, U_TWO),
        [0x90 ... 0x9F] = U_ROW(U_BAD, U_START, U_ONE, U_TWO, U_BAD, U_ONE, U_TWO, U_BAD),
        [0xA0 ... 0xBF] = U_ROW(U_BAD, U_START, U_ONE, U_TWO, U_ONE, U_BAD, U_TWO, U_BAD),
        [0xC0 ... 0xC1] = U_LEAD(U_BAD), [0xC2 ... 0xDF] = U_LEAD(U_ONE),
        [0xE0] = U_LEAD(U_E0), [0xE1 ... 0xEC] = U_LEAD(U_TWO), [0xED] = U_LEAD(U_ED), [0xEE ... 0xEF] = U_LEAD(U_TWO),
        [0xF0] = U_LEAD(U_F0), [0xF1 ... 0xF3] = U_LEAD(U_THREE), [0xF4] = U_LEAD(U_F4),
        [0xF5 ... 0xFF] = U_LEAD(U_BAD),
    };

    /* The same for sixteen bytes at a time, which the compiler makes SSE2 or NEON of. Each byte is compared with the
       three before it: it must continue a character just where one of those wants it to, and be what they allow. */
    typedef unsigned char c1m_bytes __attribute__((vector_size(16)));
    typedef signed char c1m_flags __attribute__((vector_size(16)));

    static inline c1m_bytes c1m_load(const unsigned char *at) {
        c1m_bytes v;
        memcpy(&v, at, 16);
        return v;
    }

    /* Whether the 16 bytes go on well where the 3 before them, which are whole or begin a character, left off. */
    static inline int c1m_utf8_sixteen(const unsigned char *at) {
        c1m_bytes b = c1m_load(at), one = c1m_load(at - 1), two = c1m_load(at - 2), three = c1m_load(at - 3);
        c1m_flags continues = (c1m_flags)b < -64, past_8f = (c1m_flags)b >= -112, past_9f = (c1m_flags)b >= -96;
        c1m_flags wrong = continues ^ (((one & 0xC0) == 0xC0) | ((two & 0xE0) == 0xE0) | ((three & 0xF0) == 0xF0));
        wrong |= ((b & 0xFE) == 0xC0) | (b >= 0xF5);
        wrong |= ((one == 0xE0) & ~past_9f) | ((one == 0xED) & past_9f);
        wrong |= ((one == 0xF0) & ~past_8f) | ((one == 0xF4) & past_8f);
        unsigned long long half[2];
        memcpy(half, &wrong, 16);
        return !(half[0] | half[1]);
    }
    """
    bint utf8_sixteen "c1m_utf8_sixteen"(const uint8_t *at) noexcept nogil
    enum:
        U_START, U_BAD
    const uint64_t[256] UTF8_ROW "c1m_utf8"

cdef enum:
    FIN = 0x80                   # first byte of a header, RFC 6455 section 5.2
    RSV = 0x70
    MASK = 0x80                  # second byte
    ROLE = <int>WS_CLIENT | <int>WS_DEFLATE      # WsParser.flags: what lasts, and
    FINAL = 0x01                 # FIN of the current frame


# ---- frames in ----

cdef void ws_start(WsParser *p, uint8_t role) noexcept nogil:
    """Ready for the first byte after the handshake. role: WS_SERVER or WS_CLIENT, with WS_DEFLATE if that is agreed."""
    memset(p, 0, sizeof(WsParser))
    p.flags = role


cdef size_t ws_next(WsParser *p, size_t limit, uint8_t *bytes, size_t n, WsEvent *event) noexcept nogil:
    """Finds the next event in bytes[:n] and returns how many bytes it took up (0 with WS_MORE and WS_FAIL).

    limit: the longest message allowed, in bytes, below 2**31.
    """
    cdef size_t head = 0
    event.first = False
    if p.left == 0:              # between frames
        head = frame_begin(p, limit, bytes, n, event)
        if head == 0 or event.kind == WS_CONTROL:
            return head
    elif n == 0:
        event.kind = WS_MORE
        return 0
    event.kind = WS_DATA
    event.opcode = p.message & 0x0f
    event.compressed = p.message & WS_RSV1 != 0
    event.at = bytes + head
    event.n = min(n - head, <size_t>p.left)
    event.key = p.key
    event.total = p.size
    event.last = False
    p.left -= <uint32_t>event.n
    if p.left:
        p.key = key_rotated(p.key, event.n)
        return head + event.n
    if p.flags & FINAL:
        event.last = True
        p.message = 0
        p.size = 0
    return head + event.n


cdef size_t frame_begin(WsParser *p, size_t limit, uint8_t *bytes, size_t n, WsEvent *event) noexcept nogil:
    """Reads a frame's header; a control frame with its payload. Returns the bytes taken, 0 for WS_MORE and WS_FAIL."""
    cdef uint8_t opcode
    cdef uint64_t length
    cdef size_t head = 2
    event.kind = WS_MORE
    if n == 0:
        return 0
    opcode = bytes[0] & 0x0f
    if bytes[0] & RSV:
        if bytes[0] & RSV != WS_RSV1 or not p.flags & WS_DEFLATE or opcode == WS_CONTINUATION or opcode >= WS_CLOSE:
            return fail(event, WS_PROTOCOL_ERROR, b"reserved bit set")
    if opcode > WS_PONG or WS_BINARY < opcode < WS_CLOSE:
        return fail(event, WS_PROTOCOL_ERROR, b"unknown opcode")
    if opcode >= WS_CLOSE:
        if not bytes[0] & FIN:
            return fail(event, WS_PROTOCOL_ERROR, b"fragmented control frame")
    elif (opcode == WS_CONTINUATION) != (p.message != 0):
        return fail(event, WS_PROTOCOL_ERROR, b"message inside a message" if opcode else b"continuation of no message")
    if n < 2:
        return 0
    if not (bytes[1] ^ p.flags) & MASK:          # WS_CLIENT is the same bit
        return fail(event, WS_PROTOCOL_ERROR, b"masked frame" if p.flags & WS_CLIENT else b"frame not masked")
    length = bytes[1] & 0x7f
    if opcode >= WS_CLOSE and length > WS_MAX_CONTROL:
        return fail(event, WS_PROTOCOL_ERROR, b"control frame over 125 bytes")
    if length == 126:
        head = 4
        if n < head:
            return 0
        length = load_be16(bytes + 2)
        if length < 126:
            return fail(event, WS_PROTOCOL_ERROR, b"length not in its shortest form")
    elif length == 127:
        head = 10
        if n < head:
            return 0
        length = load_be64(bytes + 2)
        if length < 65536 or length >> 63:
            return fail(event, WS_PROTOCOL_ERROR, b"length not in its shortest form, or over 2**63 - 1")
    if (bytes[0] | p.message) & WS_RSV1:
        limit += (limit >> 10) + 64      # what does not compress grows a little: deflate's stored blocks
    if opcode < WS_CLOSE and length > limit - p.size:
        return fail(event, WS_TOO_BIG, WS_LONG_MESSAGE)
    event.key = 0
    if not p.flags & WS_CLIENT:
        if n < head + 4:
            return 0
        event.key = load32(bytes + head)
        head += 4
    if opcode >= WS_CLOSE:
        if n < head + length:
            return 0
        event.kind = WS_CONTROL
        event.opcode = opcode
        event.at = bytes + head
        event.n = length
        return head + length
    if opcode != WS_CONTINUATION:
        event.first = True
        p.message = opcode | (bytes[0] & WS_RSV1)
        p.utf8 = U_START
    p.size += <uint32_t>length
    p.left = <uint32_t>length
    p.key = event.key
    p.flags = (p.flags & ROLE) | bytes[0] >> 7
    return head


cdef inline size_t fail(WsEvent *event, uint16_t code, const char *reason) noexcept nogil:
    event.kind = WS_FAIL
    event.code = code
    event.reason = reason
    return 0


cdef inline uint32_t key_rotated(uint32_t key, size_t n) noexcept nogil:
    """The key for what lies n bytes further on."""
    cdef uint8_t[8] twice
    memcpy(twice, &key, 4)
    memcpy(twice + 4, &key, 4)
    return load32(twice + (n & 3))


cdef bint ws_take(WsParser *p, const WsEvent *event, uint8_t *to) noexcept nogil:
    """Unmasks the event's payload to `to` (which may be event.at). False: it is text and not UTF-8, fail with 1007."""
    cdef uint64_t seen = unmask(event.at, event.n, event.key, to)
    if event.kind != WS_DATA or event.opcode != WS_TEXT or event.compressed:
        return True
    if p.utf8 != U_START or seen & TOP_BITS:
        p.utf8 = utf8_run(p.utf8, to, event.n)
    return p.utf8 != U_BAD and (p.utf8 == U_START or not event.last)


cdef inline uint64_t unmask(const uint8_t *at, size_t n, uint32_t key, uint8_t *to) noexcept nogil:
    """XORs n bytes with the key, word by word. Returns all of the result's bytes, or-ed together."""
    cdef uint64_t mask = key | <uint64_t>key << 32, v, last, seen = 0
    cdef size_t i = 0
    if n < 8:
        for i in range(n):
            to[i] = at[i] ^ (<uint8_t *>&mask)[i]
            seen |= to[i]
        return seen
    # The last eight bytes, some of which the word before may have, too: loaded before that is stored.
    last = key_rotated(key, n)
    last = load64(at + n - 8) ^ (last | last << 32)
    while i < n - 7:
        v = load64(at + i) ^ mask
        store64(to + i, v)
        seen |= v
        i += 8
    store64(to + n - 8, last)
    return seen | last


cdef void ws_mask(uint8_t *to, const uint8_t *bytes, size_t n, uint32_t key) noexcept nogil:
    """Writes a frame's whole payload masked (RFC 6455 section 5.3) to `to`, which may be where the payload is."""
    unmask(bytes, n, key, to)


cdef uint8_t utf8_run(uint8_t state, const uint8_t *p, size_t n) noexcept nogil:
    """The state after n more bytes; U_BAD is for good."""
    cdef const uint8_t *start = p
    cdef const uint8_t *end = p + n
    cdef uint64_t row = state
    while p < end:
        if row == U_START:
            while end - p >= 8 and not load64(p) & TOP_BITS:
                p += 8
            if end - p >= 16 and p - start >= 3:
                while end - p >= 16 and utf8_sixteen(p):
                    p += 16
                p -= begun(p)
            if p == end:
                break
        row = UTF8_ROW[p[0]] >> row & 63
        p += 1
    return <uint8_t>row


cdef inline int begun(const uint8_t *p) noexcept nogil:
    """How many bytes of a character that is not whole lie before p."""
    return 1 if (p - 1)[0] >= 0xC0 else 2 if (p - 2)[0] >= 0xE0 else 3 if (p - 3)[0] >= 0xF0 else 0


cdef bint ws_text_ok(const uint8_t *bytes, size_t n) noexcept nogil:
    """Whether n bytes are UTF-8."""
    return utf8_run(U_START, bytes, n) == U_START


cdef int ws_close_code(const uint8_t *payload, size_t n) noexcept nogil:
    """The code of a close frame's unmasked payload, WS_NO_STATUS if it has none; negated, the code to fail with."""
    cdef int code
    if n == 0:
        return WS_NO_STATUS
    if n == 1:
        return -WS_PROTOCOL_ERROR
    code = load_be16(payload)
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        return -WS_PROTOCOL_ERROR
    if utf8_run(U_START, payload + 2, n - 2) != U_START:
        return -WS_INVALID_PAYLOAD
    return code


cdef const char *ws_close_fault(int code, size_t n) noexcept nogil:
    """Why ws_close_code has refused a close frame's payload of n bytes, with this code."""
    if code == WS_INVALID_PAYLOAD:
        return b"close reason is not UTF-8"
    return b"close frame of one byte" if n == 1 else b"close code not allowed"


# ---- the handshake: key and accept ----

cdef bint ws_key_ok(const uint8_t *key, size_t n) noexcept nogil:
    """Whether a Sec-WebSocket-Key is the base64 of 16 bytes (RFC 6455 section 4.1)."""
    cdef size_t i
    if n != WS_KEY_SIZE or key[22] != c'=' or key[23] != c'=':
        return False
    for i in range(22):
        if not (CLASS[key[i]] & ALNUM or key[i] == c'+' or key[i] == c'/'):
            return False
    return True


cdef void ws_accept(const uint8_t *key, uint8_t *to) noexcept nogil:
    """Writes the WS_ACCEPT_SIZE characters of Sec-WebSocket-Accept for a key that is ok (RFC 6455 section 4.2.2)."""
    cdef uint8_t text[60]
    cdef uint8_t digest[21]
    cdef const char *letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    cdef uint32_t three
    cdef int i, j
    memcpy(text, key, 24)
    memcpy(text + 24, b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36)
    SHA1(text, 60, digest)
    digest[20] = 0
    for i in range(7):
        three = <uint32_t>digest[3 * i] << 16 | <uint32_t>digest[3 * i + 1] << 8 | digest[3 * i + 2]
        for j in range(4):
            to[4 * i + j] = letters[three >> (18 - 6 * j) & 63]
    to[27] = c'='


cdef bint ws_accept_ok(const uint8_t *key, const uint8_t *accept, size_t n) noexcept nogil:
    """Whether a server's Sec-WebSocket-Accept answers the key that we sent (RFC 6455 section 4.1)."""
    cdef uint8_t[WS_ACCEPT_SIZE] expected
    ws_accept(key, expected)
    return n == WS_ACCEPT_SIZE and memcmp(accept, expected, WS_ACCEPT_SIZE) == 0


static_assert(sizeof(WsParser) == 16)
