"""RFC 6455 frames and handshake key, without I/O. See ws.pyx."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from c1m.buf cimport store_be16, store_be64

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
    WS_TRY_AGAIN_LATER = 1013

cdef enum WsKind:                # what ws_next found
    WS_MORE                      # nothing whole: call again with these bytes and more behind them
    WS_DATA                      # a run of payload of a data message
    WS_CONTROL                   # a whole ping, pong or close frame
    WS_FAIL                      # the peer broke the protocol: close with event.code

cdef enum:
    WS_MAX_HEADER = 10            # longest header of a frame we send as a server (no mask)
    WS_MAX_CONTROL = 125        # longest payload of a control frame, RFC 6455 section 5.5
    WS_SERVER = 0                # roles: a server takes masked frames only,
    WS_CLIENT = 1                # a client unmasked ones only (section 5.1)
    WS_DEFLATE = 2               # with either: RSV1 may mark a message as compressed (RFC 7692 section 6)
    WS_RSV1 = 0x40

cdef struct WsParser:            # 16 bytes, all that a connection between two bytes has to remember
    uint32_t left                # payload bytes of the current frame that are still to come
    uint32_t key                 # its masking key, turned so that the next byte meets key's first
    uint32_t size                # payload of the current message so far, this frame's whole length included
    uint8_t frame                # IN_FRAME, and the FIN bit of the current frame
    uint8_t message              # opcode of the message being received, with WS_RSV1 if compressed; 0 between messages
    uint8_t utf8                 # where in a character a text message stands
    uint8_t role

cdef struct WsEvent:
    WsKind kind
    uint8_t opcode               # WS_TEXT or WS_BINARY for data, else the control frame's
    bint first                   # this run begins a message
    bint last                    # this run ends it
    bint compressed              # it is to be inflated when it is whole, and its text checked then
    uint8_t *at                  # the payload, still masked, in the caller's buffer
    size_t n
    uint32_t key                 # what unmasks it
    uint32_t total               # payload of the message that frame headers have announced so far
    uint16_t code                # WS_FAIL: close code to send

cdef void ws_start(WsParser *p, uint8_t role) noexcept nogil
cdef size_t ws_next(WsParser *p, size_t limit, uint8_t *bytes, size_t n, WsEvent *event) noexcept nogil
cdef bint ws_take(WsParser *p, const WsEvent *event, uint8_t *to) noexcept nogil
cdef bint ws_text_ok(const uint8_t *bytes, size_t n) noexcept nogil
cdef int ws_close_code(const uint8_t *payload, size_t n) noexcept nogil
cdef bint ws_key_ok(const uint8_t *key, size_t n) noexcept nogil
cdef void ws_accept(const uint8_t *key, uint8_t *to) noexcept nogil


cdef inline size_t ws_head_size(uint64_t n) noexcept nogil:
    """Bytes of header before n bytes of unmasked payload."""
    return 2 if n < 126 else 4 if n < 65536 else 10

cdef inline size_t ws_head(uint8_t *to, uint8_t opcode, uint64_t n) noexcept nogil:
    """Writes the header of a final, unmasked frame; returns its length (RFC 6455 section 5.2)."""
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
