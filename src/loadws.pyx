"""WebSocket as a load speaks it: the opening handshake, echoes, published messages, pings, closing.

Owns: what a frame from the server means for its client. Refuses to know: when a message is sent, processes, Python.

An echo is known before it comes: the bytes that a server sends which echoes in one frame, uncompressed, lie on the tape
`Load.back`, and are compared with what came. Only what differs from them, or comes in pieces, is parsed; and then a
message in several frames is as good an echo.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from c1m.buf cimport Block, Slice, block_copy, block_new, block_unref, hex_value, load_be16, put_text
from c1m.deflate cimport INFLATE_OK, MAX_WINDOW_BITS, inflater_new, inflater_run
from c1m.http cimport (
    FOR_UPGRADE, HTTP_FAIL, HTTP_INTERIM, HTTP_MORE, SEC_WEBSOCKET_EXTENSIONS, HttpParser, head_has, head_other,
    http_response_next,
)
from c1m.loadconn cimport (
    DIALING, OPEN, Client, Load, Tape, client_answered, client_broken, client_closed, client_expired, client_fail,
    client_failed, client_of, client_opened, counting, conn_at, nothing,
)
from c1m.reactor cimport (
    CLIENT_DONE, Conn, Protocol, conn_commit, conn_deadline, conn_ending, conn_enqueue, conn_finish,
    conn_reserve, conn_try_flush, nanoseconds, protocol_add,
)
from c1m.histogram cimport histogram_add
from c1m.tally cimport (
    CLOSED_BY_PEER, CUT, NO_FAULT, NOT_COMPRESSED, NOT_UPGRADED, READY, RESET, WRONG_ECHO,
)
from c1m.ws cimport (
    WS_BAD_TEXT, WS_CLIENT, WS_CLOSE, WS_CONTROL, WS_DEFLATE, WS_FAIL, WS_MAX_HEADER_MASKED, WS_MORE, WS_NORMAL,
    WS_PING, WS_PONG, WsEvent, WsParser, ws_accept_ok, ws_close_code, ws_header_masked, ws_mask, ws_next, ws_start,
    ws_take,
)

cdef extern from *:
    void *memmem(const void *bytes, size_t n, const void *wanted, size_t wanted_n) noexcept nogil

cdef enum:
    LONGEST = 0x7fffffff         # message taken, in bytes
    STAMPED = 64                 # bytes of a message among which a stamp is looked for


cdef void loadws_add(Load *load) noexcept nogil:
    """Has the load's connections speak WebSocket."""
    load.protocol = protocol_add(load.r, Protocol(
        owner=load, opened=loadws_opened, readable=loadws_readable, drained=nothing, expired=client_expired,
        shutdown=nothing, spread=False, closed=loadws_closed, failed=client_failed,
        reads_while_writing=True,
    ))


cdef inline WsParser *parser_of(Conn *c) noexcept nogil:
    return <WsParser *>c.parser


# ---- opening ----

cdef void loadws_opened(void *owner, Conn *c) noexcept nogil:
    """It is connected: shakes hands."""
    cdef Load *load = <Load *>owner
    cdef const Block *hello = load.targets[client_of(c).target].hello
    memcpy(conn_reserve(load.r, c, hello.size), hello.data, hello.size)
    conn_commit(load.r, hello.size)


cdef size_t shake(Load *load, Conn *c, Client *cl, const uint8_t *bytes, size_t n) noexcept nogil:
    """The server's side of the handshake (RFC 6455 section 4.1). Returns the bytes taken up."""
    cdef size_t used = 0, step = 1
    while step:
        step = http_response_next(<HttpParser *>c.parser, FOR_UPGRADE, bytes + used, n - used, &load.response)
        used += step
        if load.response.kind != HTTP_INTERIM:
            break
    if load.response.kind == HTTP_FAIL:
        client_broken(load, c, b"what answers the handshake is not HTTP")
    elif load.response.kind != HTTP_MORE and load.response.status != 101:
        load.tally.refused[min(load.response.status, 999)] += 1
        client_fail(load, c, NOT_UPGRADED)
    elif load.response.kind != HTTP_MORE:
        shaken(load, c, cl)
    return used


cdef void shaken(Load *load, Conn *c, Client *cl) noexcept nogil:
    """101 came."""
    cdef bint compressed = head_has(&load.response.head, SEC_WEBSOCKET_EXTENSIONS)
    cdef Slice accept = head_other(&load.response.head, b"sec-websocket-accept")
    cdef Slice said = load.response.head.known[<int>SEC_WEBSOCKET_EXTENSIONS]
    if not ws_accept_ok(load.key, accept.at, accept.n):
        client_broken(load, c, b"Sec-WebSocket-Accept does not answer our key")
    elif compressed and not (load.compress and memmem(said.at, said.n, b"permessage-deflate", 18) != NULL):
        client_broken(load, c, b"Sec-WebSocket-Extensions has what was not offered")
    elif load.compress and not compressed:
        client_fail(load, c, NOT_COMPRESSED)
    else:
        cl.takeover = compressed and memmem(said.at, said.n, b"server_no_context_takeover", 26) == NULL
        if cl.takeover:
            cl.inflater = inflater_new(MAX_WINDOW_BITS)
        ws_start(parser_of(c), WS_CLIENT | (WS_DEFLATE if compressed else 0))
        client_opened(load, c, cl)


# ---- what comes ----

cdef size_t loadws_readable(void *owner, Conn *c, uint8_t *bytes, size_t n) noexcept nogil:
    cdef Load *load = <Load *>owner
    cdef Client *cl = client_of(c)
    cdef int64_t now = nanoseconds()
    cdef size_t used = 0, step
    cdef uint32_t whole = 0, some
    if cl.phase == DIALING:
        used = shake(load, c, cl, bytes, n)
        if cl.phase == DIALING:
            return used
    while used < n and not conn_ending(c):
        some = 0
        step = echoes(load, c, cl, cl.flight - whole, bytes + used, n - used, &some)
        if step == 0:
            step = frame(load, c, cl, cl.flight - whole, bytes + used, n - used, now, &some)
            if step == 0:
                break
        used += step
        whole += some
    if counting(load):
        load.tally.bytes_in += used
    if whole and not conn_ending(c):
        client_answered(load, c, cl, whole, now)
        if load.fresh:
            goodbye(load, c, cl)
    return used


cdef inline uint32_t expected(const Client *cl, uint32_t count, uint32_t flight) noexcept nogil:
    """Where on the tape the message lies whose echo comes next."""
    cdef uint32_t back = flight if flight < count else flight % count
    return cl.next - back if cl.next >= back else cl.next + count - back


cdef inline size_t echoes(
    Load *load, Conn *c, Client *cl, uint32_t flight, const uint8_t *bytes, size_t n, uint32_t *whole
) noexcept nogil:
    """Whole echoes, just as they are expected. Returns their bytes; 0: there are none, or something else."""
    cdef const Tape *t = &load.back
    cdef size_t size = t.at[1], used = 0, run_n
    cdef uint32_t at, run, left
    if n < size or flight == 0 or not load.verify or load.compress or parser_of(c).left or parser_of(c).message:
        return 0
    left = min(<uint32_t>(n // size), flight) if n < 2 * size or flight > 1 else 1
    whole[0] = left
    at = expected(cl, t.count, flight)
    while left:
        run = min(left, t.count - at)
        run_n = run * size
        if memcmp(bytes + used, t.block.data + t.at[at], run_n) != 0:
            whole[0] = 0
            return 0
        used += run_n
        left -= run
        at = 0
    return used


cdef size_t frame(
    Load *load, Conn *c, Client *cl, uint32_t flight, uint8_t *bytes, size_t n, int64_t now, uint32_t *whole
) noexcept nogil:
    """What comes next. Returns its bytes; 0: it is not whole yet, or the connection ends."""
    cdef WsEvent event
    cdef size_t used
    if load.subscribe and not stamp_whole(parser_of(c), bytes, n):
        return 0
    used = ws_next(parser_of(c), LONGEST, bytes, n, &event)
    if event.kind == WS_FAIL:
        client_broken(load, c, event.reason)
    elif event.kind != WS_MORE and not ws_take(parser_of(c), &event, event.at):
        client_broken(load, c, WS_BAD_TEXT)
    elif event.kind == WS_CONTROL:
        control(load, c, cl, &event)
    elif event.kind != WS_MORE and event.compressed:
        whole[0] = inflate(load, c, cl, flight, &event, now)
    elif event.kind != WS_MORE:
        whole[0] = message(load, c, cl, flight, &event, now)
    return used


cdef inline bint stamp_whole(const WsParser *p, const uint8_t *bytes, size_t n) noexcept nogil:
    """Whether the next frame, if one begins here, is there as far as a stamp may lie."""
    cdef size_t length, head = 2
    if p.left or n < 2:
        return p.left != 0
    length = bytes[1] & 0x7f
    if length >= 126:
        head = 4 if length == 126 else 10
        if n < head:
            return False
        length = load_be16(bytes + 2) if length == 126 else STAMPED
    return n >= head + min(length, <size_t>STAMPED)


cdef uint32_t message(
    Load *load, Conn *c, Client *cl, uint32_t flight, const WsEvent *event, int64_t now
) noexcept nogil:
    """A run of a message. Returns how many echoes are whole with it, 0 or 1."""
    if flight == 0:
        if not load.subscribe and load.verify:
            client_fail(load, c, WRONG_ECHO)
        else:
            delivered(load, cl, event, now)
        return 0
    if load.verify and not echo_right(load, cl, flight, event):
        client_fail(load, c, WRONG_ECHO)
        return 0
    cl.compared = 0 if event.last else cl.compared + event.n
    return event.last


cdef bint echo_right(const Load *load, const Client *cl, uint32_t flight, const WsEvent *event) noexcept nogil:
    """Whether a run of an echo's payload is what was sent."""
    cdef const Tape *t = &load.back
    cdef uint32_t at = expected(cl, t.count, flight)
    cdef size_t size = t.at[at + 1] - t.at[at] - t.head
    cdef const uint8_t *payload = t.block.data + t.at[at] + t.head
    if event.opcode != load.opcode or event.n > size - cl.compared or (event.last and event.n < size - cl.compared):
        return False
    return memcmp(event.at, payload + cl.compared, event.n) == 0


cdef uint32_t inflate(
    Load *load, Conn *c, Client *cl, uint32_t flight, const WsEvent *event, int64_t now
) noexcept nogil:
    """A run of a compressed message, which is looked at when it is whole."""
    cdef WsEvent whole
    cdef uint32_t some
    if cl.message == NULL:
        cl.message = block_new(4096)
    if cl.inflater == NULL and not event.last:
        cl.inflater = inflater_new(MAX_WINDOW_BITS)     # others' messages may come in between
    if cl.message == NULL or inflater_run(cl.inflater or load.inflater, event.at, event.n, event.last, cl.takeover,
                                          LONGEST, &cl.message) != INFLATE_OK:
        client_broken(load, c, b"not what deflate makes")
        return 0
    if not event.last:
        return 0
    whole = event[0]
    whole.first = True
    whole.at, whole.n = cl.message.data, cl.message.size
    some = message(load, c, cl, flight, &whole, now)
    block_unref(cl.message)
    cl.message = NULL
    return some


# ---- control frames ----

cdef void control(Load *load, Conn *c, Client *cl, const WsEvent *event) noexcept nogil:
    cdef int code
    if event.opcode == WS_PING:
        control_send(load, c, WS_PONG, event.at, event.n)
    elif event.opcode == WS_CLOSE:
        code = ws_close_code(event.at, event.n)
        if code < 0:
            client_broken(load, c, b"its Close frame has no right code or reason")
            return
        if not cl.closing:
            load.tally.faults[<int>CLOSED_BY_PEER] += 1
            load.tally.closes[code] += 1
            cl.fault = CLOSED_BY_PEER
            control_send(load, c, WS_CLOSE, event.at, min(event.n, <size_t>2))
        conn_finish(load.r, c, False)


cdef void control_send(Load *load, Conn *c, uint8_t opcode, const uint8_t *payload, size_t n) noexcept nogil:
    """Sends a control frame within the connection's dispatch."""
    cdef uint8_t *to = conn_reserve(load.r, c, WS_MAX_HEADER_MASKED + n)
    cdef size_t head = ws_header_masked(to, opcode, n, load.mask)
    ws_mask(to + head, payload, n, load.mask)
    conn_commit(load.r, head + n)


cdef void goodbye(Load *load, Conn *c, Client *cl) noexcept nogil:
    """Says that we close; the server then ends the connection."""
    cdef uint8_t[2] code
    code[0], code[1] = WS_NORMAL >> 8, WS_NORMAL & 0xff
    cl.closing = True
    conn_deadline(load.r, c, load.timeout)
    control_send(load, c, WS_CLOSE, code, 2)


cdef void loadws_goodbye(Load *load) noexcept nogil:
    """Says so on every open connection, outside of any dispatch."""
    cdef uint8_t[8] bytes
    cdef uint8_t[2] code
    cdef size_t head = ws_header_masked(bytes, WS_CLOSE, 2, load.mask)
    cdef Block *block
    cdef uint32_t i
    code[0], code[1] = WS_NORMAL >> 8, WS_NORMAL & 0xff
    ws_mask(bytes + head, code, 2, load.mask)
    block = block_copy(bytes, head + 2)
    for i in range(load.count + 1 if block != NULL else 0):
        if load.clients[i].phase == OPEN and not load.clients[i].closing:
            conn_enqueue(load.r, conn_at(load, &load.clients[i]), block, 0, block.size, 0)
            conn_try_flush(load.r, conn_at(load, &load.clients[i]))
    block_unref(block)


cdef void loadws_closed(void *owner, Conn *c) noexcept nogil:
    cdef Load *load = <Load *>owner
    client_closed(load, c, NO_FAULT if client_of(c).closing else CUT if c.flags & CLIENT_DONE else RESET)


# ---- publishing ----

cdef void loadws_publish(Load *load, int64_t due) noexcept nogil:
    """The publisher sends a message that says when it was due."""
    cdef Client *cl = &load.clients[load.count]
    cdef const char *digits = b"0123456789abcdef"
    cdef Block *block
    cdef size_t head
    cdef uint8_t *at
    cdef int i
    if cl.phase != OPEN:
        return
    block = block_new(WS_MAX_HEADER_MASKED + load.message_size)
    if block == NULL:
        return
    head = ws_header_masked(block.data, load.opcode, load.message_size, load.mask)
    at = put_text(block.data + head, b"c1m:")
    for i in range(16):
        at[i] = digits[<uint64_t>due >> (60 - 4 * i) & 15]
    at += 16
    while at < block.data + head + load.message_size:
        at[0] = c'.'
        at += 1
    ws_mask(block.data + head, block.data + head, load.message_size, load.mask)
    block.size = head + load.message_size
    conn_enqueue(load.r, conn_at(load, cl), block, 0, block.size, 0)
    conn_try_flush(load.r, conn_at(load, cl))
    load.tally.sent += 1
    load.tally.bytes_out += block.size
    block_unref(block)


cdef void delivered(Load *load, const Client *cl, const WsEvent *event, int64_t now) noexcept nogil:
    """A run of a message that nobody asked for."""
    cdef const uint8_t *stamp
    cdef int64_t due = 0
    cdef int i
    if not event.first or cl.publisher or load.tally.phase < READY:
        return                   # READY: another process, which publishes, may have heard the word before
    load.tally.delivered += 1
    stamp = <const uint8_t *>memmem(event.at, min(event.n, <size_t>STAMPED), b"c1m:", 4)
    if stamp == NULL or stamp + STAMP > event.at + event.n:
        return
    for i in range(4, STAMP):
        if hex_value(stamp[i]) < 0:
            return
        due = due << 4 | hex_value(stamp[i])
    histogram_add(&load.tally.latency, now - due, 1)
