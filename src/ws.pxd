"""RFC 6455 frames and the handshake's key, for servers and clients, without I/O. See ws.pyx."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from c1m.buf cimport store32, store_be16, store_be64

cdef extern from *:
    """
    #define C1M_LONG_MESSAGE "message over the limit"
    #define C1M_BAD_TEXT "text is not UTF-8"
    """
    const char *WS_LONG_MESSAGE "C1M_LONG_MESSAGE"      # reasons for a close frame; others stand where they are used
    const char *WS_BAD_TEXT "C1M_BAD_TEXT"

cdef enum Opcode:                # RFC 6455 section 5.2
    WS_CONTINUATION = 0x0
    WS_TEXT = 0x1
    WS_BINARY = 0x2
    WS_CLOSE = 0x8
    WS_PING = 0x9
    WS_PONG = 0xA

cdef enum CloseCode:             # RFC 6455 section 7.4.1; the names are the IANA registry's
    WS_NORMAL = 1000
    WS_GOING_AWAY = 1001
    WS_PROTOCOL_ERROR = 1002
    WS_NO_STATUS = 1005          # never on the wire: "the Close frame named no code"
    WS_ABNORMAL = 1006           # never on the wire: "no Close frame came"
    WS_INVALID_PAYLOAD = 1007
    WS_TOO_BIG = 1009
    WS_INTERNAL_ERROR = 1011
    WS_SERVICE_RESTART = 1012
    WS_TRY_AGAIN_LATER = 1013

cdef enum WsKind:                # what ws_next found
    WS_MORE                      # nothing whole: call again with these bytes and more behind them
    WS_DATA                      # a run of payload of a data message
    WS_CONTROL                   # a whole ping, pong or close frame
    WS_FAIL                      # the peer broke the protocol: fail the connection with event.code

cdef enum:
    WS_MAX_HEADER = 10           # bytes of the longest header that a server sends
    WS_MAX_HEADER_MASKED = 14    # and a client
    WS_MAX_CONTROL = 125         # bytes of the longest payload of a control frame, RFC 6455 section 5.5
    WS_KEY_SIZE = 24             # characters of a Sec-WebSocket-Key,
    WS_ACCEPT_SIZE = 28          # and of a Sec-WebSocket-Accept
    WS_RSV1 = 0x40               # with an opcode: the message is compressed

cdef enum:                       # roles, for ws_start
    WS_SERVER = 0                # frames must be masked (RFC 6455 section 5.1)
    WS_CLIENT = 0x80             # frames must not be masked
    WS_DEFLATE = 0x40            # with either: RSV1 may mark a message as compressed (RFC 7692 section 6)

cdef struct WsParser:            # 16 bytes: the state of a connection from one read to the next
    uint32_t left                # payload bytes of the current frame that are still to come, 0 between frames
    uint32_t key                 # its masking key, rotated so that its first byte is the next one's
    uint32_t size                # payload of the current message so far, this frame's whole length included
    uint8_t flags                # the role, and the FIN bit of the current frame
    uint8_t message              # opcode of the message being received, with WS_RSV1 if compressed; 0 between messages
    uint8_t utf8                 # state of the UTF-8 decoder in a text message
    uint8_t window_bits          # the caller's: the window that it compresses with, 0 for none; ws does not look at it

# WS_DATA sets all but code and reason; WS_CONTROL kind, opcode, first, at, n and key; WS_FAIL kind, code and reason;
# WS_MORE kind.
cdef struct WsEvent:
    WsKind kind
    uint8_t opcode               # WS_DATA: WS_TEXT or WS_BINARY; WS_CONTROL: WS_CLOSE, WS_PING or WS_PONG
    bint first                   # this run begins a message; False for WS_CONTROL
    bint last                    # this run ends it
    bint compressed              # inflate the message when it is whole, and check its text then
    uint8_t *at                  # the run's payload, or all of a control frame's, still masked, in the caller's buffer
    size_t n
    uint32_t key                 # unmasks it; 0 for a client
    uint32_t total               # payload of the message that frame headers have announced so far
    uint16_t code                # close code to send
    const char *reason           # and why, in ASCII: a constant that fits a close frame

cdef void ws_start(WsParser *p, uint8_t role) noexcept nogil
cdef size_t ws_next(WsParser *p, size_t limit, uint8_t *bytes, size_t n, WsEvent *event) noexcept nogil
cdef bint ws_take(WsParser *p, const WsEvent *event, uint8_t *to) noexcept nogil
cdef void ws_mask(uint8_t *to, const uint8_t *bytes, size_t n, uint32_t key) noexcept nogil
cdef bint ws_text_ok(const uint8_t *bytes, size_t n) noexcept nogil
cdef int ws_close_code(const uint8_t *payload, size_t n) noexcept nogil
cdef const char *ws_close_fault(int code, size_t n) noexcept nogil
cdef bint ws_key_ok(const uint8_t *key, size_t n) noexcept nogil
cdef void ws_accept(const uint8_t *key, uint8_t *to) noexcept nogil
cdef bint ws_accept_ok(const uint8_t *key, const uint8_t *accept, size_t n) noexcept nogil


cdef inline size_t ws_header_size(uint64_t n) noexcept nogil:
    """The length of ws_header's header before n bytes of payload."""
    return 2 if n < 126 else 4 if n < 65536 else 10

cdef inline size_t ws_header(uint8_t *to, uint8_t opcode, uint64_t n) noexcept nogil:
    """Writes the header of a final, unmasked frame (RFC 6455 section 5.2); returns its length, at most WS_MAX_HEADER.

    opcode: with WS_RSV1 for a compressed message.
    """
    to[0] = 0x80 | opcode
    if n < 126:
        to[1] = <uint8_t>n
        return 2
    if n < 65536:
        to[1] = 126
        store_be16(to + 2, <uint16_t>n)
        return 4
    to[1] = 127
    store_be64(to + 2, n)
    return 10

cdef inline size_t ws_header_masked(uint8_t *to, uint8_t opcode, uint64_t n, uint32_t key) noexcept nogil:
    """The same of a masked frame; at most WS_MAX_HEADER_MASKED. ws_mask writes the payload.

    key: four bytes as they lie in memory, which nobody may be able to predict (section 5.3).
    """
    cdef size_t size = ws_header(to, opcode, n)
    to[1] |= 0x80
    store32(to + size, key)
    return size + 4
