"""RFC 6455 frames and the handshake's key as tests and benchmarks see them."""

from libc.stdint cimport uint8_t, uint64_t

from c1m.buf cimport Block, block_copy, block_new, block_unref, load32
from c1m.ws cimport (
    WS_ACCEPT_SIZE, WS_CLIENT, WS_CONTROL, WS_DEFLATE, WS_FAIL, WS_INVALID_PAYLOAD, WS_MAX_HEADER, WS_MAX_HEADER_MASKED,
    WS_MORE, WS_SERVER, WsEvent, WsParser, ws_accept, ws_accept_ok, ws_close_code, ws_header, ws_header_masked,
    ws_header_size, ws_key_ok, ws_mask, ws_next, ws_start, ws_take,
)


cdef class Parser:
    """The parser as Python sees it: feed(bytes) returns the events they complete."""

    cdef WsParser state
    cdef size_t limit
    cdef bytes kept

    def __cinit__(self, size_t limit=1 << 20, bint client=False, bint deflate=False):
        ws_start(&self.state, (WS_CLIENT if client else WS_SERVER) | (WS_DEFLATE if deflate else 0))
        self.limit = limit
        self.kept = b""

    def feed(self, bytes data):
        """A list of ("data", opcode, first, last, payload), ("control", opcode, payload) and ("fail", code)."""
        cdef WsEvent event
        cdef size_t used = 0, n, step
        cdef uint8_t *bytes_in
        cdef Block *copy
        cdef bytes payload
        cdef list events = []
        data = self.kept + data
        n = len(data)
        # An allocation of just this size, so that a sanitizer sees a read past the end.
        copy = block_copy(<const uint8_t *>data, n)
        if copy == NULL:
            raise MemoryError
        bytes_in = copy.data
        while True:
            step = ws_next(&self.state, self.limit, bytes_in + used, n - used, &event)
            if event.kind == WS_MORE:
                break
            if event.kind == WS_FAIL:
                events.append(("fail", event.code))
                break
            used += step
            assert used <= n
            if not ws_take(&self.state, &event, event.at):
                events.append(("fail", <int>WS_INVALID_PAYLOAD))
                break
            payload = event.at[:event.n]
            if event.kind == WS_CONTROL:
                events.append(("control", event.opcode, payload))
            else:
                events.append(("data", event.opcode, event.first, event.last, payload))
        self.kept = data[used:]
        block_unref(copy)
        return events


def accept_key(bytes key):
    """Sec-WebSocket-Accept for a Sec-WebSocket-Key, or None if the key is not the base64 of 16 bytes."""
    cdef uint8_t to[WS_ACCEPT_SIZE]
    if not ws_key_ok(key, len(key)):
        return None
    ws_accept(key, to)
    return to[:WS_ACCEPT_SIZE]


def close_code(bytes payload):
    """The code in a close frame's payload; negative, the code with which to fail the connection."""
    return ws_close_code(payload, len(payload))


def accept_ok(bytes key, bytes accept):
    """Whether Sec-WebSocket-Accept answers a Sec-WebSocket-Key."""
    return ws_accept_ok(key, accept, len(accept))


def header(int opcode, uint64_t n, bytes key=None):
    """The header of a final frame, masked if there is a key of 4 bytes."""
    cdef uint8_t to[WS_MAX_HEADER_MASKED]
    cdef size_t size
    if key is not None:
        size = ws_header_masked(to, opcode, n, load32(<const uint8_t *>key))
        assert size <= WS_MAX_HEADER_MASKED
    else:
        size = ws_header(to, opcode, n)
        assert size == ws_header_size(n) and size <= WS_MAX_HEADER
    return to[:size]


def masked(bytes payload, bytes key, bint in_place=False):
    """The payload of a masked frame."""
    # Allocations of just this size, so that a sanitizer sees an access past the end.
    cdef Block *copy = block_copy(<const uint8_t *>payload, len(payload))
    cdef Block *to = block_new(len(payload))
    cdef uint8_t *written
    if copy == NULL or to == NULL:
        raise MemoryError
    written = &copy.data[0] if in_place else &to.data[0]
    ws_mask(written, copy.data, copy.size, load32(<const uint8_t *>key))
    result = written[:copy.size]
    block_unref(copy)
    block_unref(to)
    return result


def bench(bytes data, long rounds):
    """Rounds of parsing and taking the whole frames in data, for bench/engines.py. Returns how many there were."""
    cdef WsParser state
    cdef WsEvent event
    cdef size_t n = len(data), used
    cdef uint8_t *bytes_in = <uint8_t *>data
    cdef Block *to = block_new(n)
    cdef long frames = 0
    if to == NULL:
        raise MemoryError
    ws_start(&state, WS_SERVER)
    for _ in range(rounds):
        used = 0
        while used < n:
            used += ws_next(&state, n, bytes_in + used, n - used, &event)
            if event.kind == WS_MORE or event.kind == WS_FAIL or not ws_take(&state, &event, to.data):
                raise ValueError("not whole and well-formed frames")
            frames += 1
    block_unref(to)
    return frames
