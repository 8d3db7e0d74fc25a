"""A WebSocket connection: frames become messages, messages become frames.

Owns: what a route allows, the messages that are being received, pings and pongs, the closing handshake, compression,
and what becomes of messages for a slow reader.
Refuses to know: HTTP, Python, what topics are, how other threads' commands come.

A message that is kept lies in a block behind WS_MAX_HEADER bytes; its header ends where it begins (message_new,
frame_at). The echo unmasks a whole message from the receive buffer straight into the write buffer.

Invariants: Conn.flags say how far the closing handshake is; nothing is sent after our Close, and of what comes only the
client's counts. Conn.session is a WsConn; an echo has none while it is idle, unless contexts are its own or it is
behind in reading. An object has
its `closed` exactly once.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset, strlen

from c1m.buf cimport Block, block_copy, block_grown, block_new, block_ref, block_unref, put, store_be16
from c1m.deflate cimport (
    INFLATE_NO_MEMORY, INFLATE_OK, INFLATE_TOO_BIG, MAX_WINDOW_BITS, Deflater, DeflateTerms, InflateResult,
    deflater_free, deflater_message, deflater_new, inflater_free, inflater_new, inflater_run,
)
from c1m.mailbox cimport Command
from c1m.reactor cimport (
    APP_PAUSED, BATCHED, CLOSED, HANGING_UP, MAX_UNSENT, NO_BACKPRESSURE, WRITE_BLOCKED, Conn, Protocol, Reactor,
    conn_backpressured, conn_behind, conn_close, conn_commit, conn_deadline, conn_drop, conn_ending, conn_enqueue,
    conn_finish, conn_of, conn_pause, conn_queued, conn_reserve, conn_send, conn_taken, conn_try_flush, protocol_add,
)
from c1m.ws cimport (
    WS_ABNORMAL, WS_BAD_TEXT, WS_CLOSE, WS_CONTROL, WS_DEFLATE, WS_FAIL, WS_GOING_AWAY, WS_INTERNAL_ERROR,
    WS_INVALID_PAYLOAD, WS_LONG_MESSAGE, WS_MAX_CONTROL, WS_MAX_HEADER, WS_MORE, WS_NO_STATUS, WS_PING, WS_PONG,
    WS_RSV1, WS_SERVER, WS_TEXT, WS_TOO_BIG, WS_TRY_AGAIN_LATER, WsEvent, WsParser, ws_close_code, ws_close_fault,
    ws_header, ws_next, ws_start, ws_take, ws_text_ok,
)

cdef const char *OUT_OF_MEMORY = b"out of memory"

cdef enum:
    MIN_COMPRESSED = 64          # bytes of a message below which compression gains nothing
    ROOM_AHEAD = 16              # times what has come of a message, see capacity_for


# ---- the server's part ----

cdef void ws_server_init(
    WsServer *w, Reactor *r, WsCounts *counts, void *owner, uint8_t close_timeout
) noexcept nogil:
    """Adds the protocol to a reactor; w is all zeroes. Nothing is accepted as a WebSocket: see wsconn_open."""
    w.r, w.counts, w.owner, w.close_timeout = r, counts, owner, close_timeout
    w.protocol = protocol_add(r, Protocol(
        owner=w, opened=NULL, readable=wsconn_readable, drained=wsconn_drained, expired=wsconn_expired,
        shutdown=wsconn_shutdown, closed=wsconn_closed, failed=NULL, reads_while_writing=True,
    ))


cdef void ws_server_free(WsServer *w) noexcept nogil:
    cdef int i, bits
    for i in range(w.routes_n):
        for bits in range(MAX_WINDOW_BITS + 1):
            if w.routes[i].deflaters[bits] != NULL:
                deflater_free(w.routes[i].deflaters[bits])
        free(w.routes[i])
    if w.inflater != NULL:
        inflater_free(w.inflater)


# ---- a connection's life ----

cdef bint wsconn_open(WsServer *w, Conn *c, uint16_t route, const DeflateTerms *terms, void *object) noexcept nogil:
    """The opening handshake is done: the connection speaks WebSocket from here on.

    terms: of compression, or NULL. object: of a route with a handler. False: there is no memory, and the connection
    closes, or it is not this process's any more.
    """
    cdef WsRoute *place = w.routes[route]
    if w.r.forked:               # in the handshake, by the handler: the connection is the parent's
        if object != NULL:
            place.on.abandoned(w.owner, object)
        return False
    c.session = NULL
    if object != NULL or (terms != NULL and place.compression == DEDICATED_COMPRESSION):
        c.session = wsconn_new(place, terms, object)
        if c.session == NULL:
            conn_close(w.r, c)
            if object != NULL:
                place.on.abandoned(w.owner, object)
            return False
    c.protocol = w.protocol
    c.route = route
    ws_start(parser_of(c), WS_SERVER | (WS_DEFLATE if terms != NULL else 0))
    parser_of(c).window_bits = 0 if terms == NULL else terms.server_bits
    if place.on != NULL and place.when_slow != SLOW_CLOSE:
        c.flags |= NO_BACKPRESSURE      # its queue is bounded by dropping: to read on brings no more
    conn_deadline(w.r, c, place.ping_timeout)
    w.counts.open += 1
    w.counts.upgrades += 1
    if place.on != NULL:
        c.flags |= BATCHED
        place.on.opened(w.owner, c)
    return True


cdef WsConn *wsconn_new(const WsRoute *route, const DeflateTerms *terms, void *object) noexcept nogil:
    """NULL: memory is out."""
    cdef WsConn *s = <WsConn *>calloc(1, sizeof(WsConn))
    if s == NULL:
        return NULL
    s.object = object
    s.code = WS_ABNORMAL
    if terms != NULL and route.compression == DEDICATED_COMPRESSION:
        s.codec = codec_new(route, terms)
        if s.codec == NULL:
            free(s)
            return NULL
    return s


cdef void wsconn_free(Conn *c) noexcept nogil:
    cdef WsConn *s = wsconn_of(c)
    if s == NULL:
        return
    codec_free(s.codec)
    block_unref(s.message)
    block_unref(s.reason)
    free(s)
    c.session = NULL


cdef size_t wsconn_readable(void *owner, Conn *c, uint8_t *bytes, size_t n) noexcept nogil:
    """Deals with the frames in bytes[:n]; returns how many bytes they were."""
    cdef WsServer *w = <WsServer *>owner
    cdef WsParser *parser = parser_of(c)
    cdef WsRoute *route = route_of(w, c)
    cdef size_t limit = route.max_message, used = 0
    cdef WsEvent event
    while not conn_backpressured(c) and not c.flags & APP_PAUSED:
        used += ws_next(parser, limit, bytes + used, n - used, &event)
        if event.kind == WS_MORE:
            break
        if event.kind == WS_FAIL:
            wsconn_fail(w, c, event.code, event.reason)
        elif event.kind == WS_CONTROL:
            control_received(w, c, &event)
        elif c.flags & WS_CLOSING:
            pass                 # RFC 6455 section 5.5.1: nothing of it can be responded to any more
        elif route.on == NULL:
            echo(w, c, &event)
        else:
            deliver(w, c, route, &event)
        if conn_ending(c):
            return n
    # Also where n is 0: the client has just read the last of what was queued, under another deadline.
    if not c.flags & WS_CLOSING:
        c.flags &= ~WS_PINGED
        conn_deadline(w.r, c, route.ping_timeout)
    return used


cdef void wsconn_drained(void *owner, Conn *c) noexcept nogil:
    cdef WsServer *w = <WsServer *>owner
    cdef WsRoute *route = route_of(w, c)
    if c.output != NULL:
        if conn_queued(c) <= route.max_send_queue // 2:
            route.on.queue_halved(w.owner, c)
        return
    c.flags &= ~WS_PINGED        # it has read what was queued since
    conn_deadline(w.r, c, w.close_timeout if c.flags & WS_CLOSING else route.ping_timeout)
    if route.on != NULL:
        route.on.drained(w.owner, c)


cdef void wsconn_expired(void *owner, Conn *c) noexcept nogil:
    cdef WsServer *w = <WsServer *>owner
    cdef WsRoute *route = route_of(w, c)
    if c.flags & WS_CLOSING or (c.flags & APP_PAUSED and c.flags & HANGING_UP):
        conn_close(w.r, c)       # the client did not answer our Close in time, or closed while its input was paused
    elif c.flags & APP_PAUSED or not c.flags & WS_PINGED:
        # While input is paused a pong can't be seen: only ping. If the client is dead, sending fails.
        c.flags = c.flags & ~WS_PINGED if c.flags & APP_PAUSED else c.flags | WS_PINGED
        reading_noted(w, c)
        conn_commit(w.r, ws_header(conn_reserve(w.r, c, WS_MAX_HEADER), WS_PING, 0))
        conn_deadline(w.r, c, route.ping_timeout if c.flags & APP_PAUSED else route.pong_timeout)
    elif reads(w, c):
        conn_deadline(w.r, c, route.pong_timeout)
    else:
        wsconn_fail(w, c, WS_INTERNAL_ERROR, b"ping not answered")


cdef void reading_noted(WsServer *w, Conn *c) noexcept nogil:
    """A ping is about to be sent: notes whether something lies before it that the client has yet to take."""
    cdef WsConn *s = wsconn_of(c)
    cdef bint behind = conn_behind(w.r, c)
    if s == NULL and behind:
        c.session = s = wsconn_new(route_of(w, c), NULL, NULL)
    if s == NULL:
        return
    s.behind = behind
    if behind:
        s.taken = conn_taken(w.r, c)
    elif s.message == NULL and s.codec == NULL and s.object == NULL:
        wsconn_free(c)           # an echo's that was behind at an earlier ping


cdef bint reads(WsServer *w, Conn *c) noexcept nogil:
    """Whether the client, which has not answered our ping, has taken some of what lies before it: it is slow."""
    cdef WsConn *s = wsconn_of(c)
    cdef int64_t taken
    if s == NULL or not s.behind:
        return False
    taken = conn_taken(w.r, c)
    if taken <= s.taken:
        return False
    s.taken = taken
    s.behind = conn_behind(w.r, c)
    return True


cdef void wsconn_shutdown(void *owner, Conn *c) noexcept nogil:
    if not wsconn_closing(c):
        close_write(<WsServer *>owner, c, WS_GOING_AWAY, b"server stopping")


cdef void wsconn_closed(void *owner, Conn *c) noexcept nogil:
    cdef WsServer *w = <WsServer *>owner
    if route_of(w, c).on != NULL:
        route_of(w, c).on.closed(w.owner, c)
    wsconn_free(c)
    w.counts.open -= 1           # last: another thread must not count it as closed while it still has subscriptions


# ---- messages in ----

cdef inline void echo(WsServer *w, Conn *c, const WsEvent *event) noexcept nogil:
    """A run of a message, which goes back when it is whole."""
    cdef uint8_t *to
    cdef size_t header
    cdef Block *message
    if not (event.first and event.last) or event.compressed:
        message = message_received(w, c, event)
        if message != NULL:
            if event.compressed:
                conn_enqueue(w.r, c, message, frame_at(message), message.size - frame_at(message), TAG_MESSAGE)
            else:
                ws_header(message.data + frame_at(message), event.opcode, message.size - WS_MAX_HEADER)
                conn_send(w.r, c, message, frame_at(message), message.size - frame_at(message))
            block_unref(message)
            w.counts.messages += 1
        return
    to = conn_reserve(w.r, c, WS_MAX_HEADER + event.n)
    header = ws_header(to, event.opcode, event.n)
    if not ws_take(parser_of(c), event, to + header):
        wsconn_fail(w, c, WS_INVALID_PAYLOAD, WS_BAD_TEXT)
        return
    conn_commit(w.r, header + event.n)
    w.counts.messages += 1


cdef inline void deliver(WsServer *w, Conn *c, const WsRoute *route, const WsEvent *event) noexcept nogil:
    """A run of a message for a handler, which gets it when it is whole."""
    cdef Block *message
    if event.first and event.last and not event.compressed:
        if not ws_take(parser_of(c), event, event.at):
            wsconn_fail(w, c, WS_INVALID_PAYLOAD, WS_BAD_TEXT)
            return
        w.counts.messages += 1
        route.on.message(w.owner, c, event.opcode, event.at, event.n)
        return
    message = message_received(w, c, event)
    if message != NULL:
        w.counts.messages += 1
        route.on.message(w.owner, c, event.opcode, message.data + WS_MAX_HEADER, message.size - WS_MAX_HEADER)
        block_unref(message)


cdef Block *message_received(WsServer *w, Conn *c, const WsEvent *event) noexcept nogil:
    """Adds a run to the message that is being received. Once that is whole, returns it as a block of the caller's:
    without its header, or, where a compressed message is to be sent back, the compressed frame, header and all.
    NULL: not yet, or the connection fails."""
    cdef WsConn *s = wsconn_of(c)
    cdef Block *whole
    cdef bint ok
    if s == NULL:
        s = wsconn_new(route_of(w, c), NULL, NULL)
        c.session = s
    ok = s != NULL and message_add(&s.message, parser_of(c), event)
    if not ok:
        if s == NULL or s.message == NULL:
            wsconn_fail(w, c, WS_INTERNAL_ERROR, OUT_OF_MEMORY)
        else:
            wsconn_fail(w, c, WS_INVALID_PAYLOAD, WS_BAD_TEXT)
        return NULL
    if not event.last:
        return NULL
    whole = s.message
    s.message = NULL
    if event.compressed:
        whole = message_inflated(w, c, event.opcode, whole)
    if route_of(w, c).on == NULL and s.codec == NULL:
        wsconn_free(c)           # an idle echo has none
    return whole


cdef Block *message_inflated(WsServer *w, Conn *c, uint8_t opcode, Block *compressed) noexcept nogil:
    """What message_received returns for a compressed message, whose block it drops. NULL: the connection fails."""
    cdef Block *plain = NULL
    cdef Block *again
    cdef const char *reason = WS_BAD_TEXT
    cdef int code = inflate(w, c, compressed, &plain, &reason)
    block_unref(compressed)
    if code == 0 and opcode == WS_TEXT and not ws_text_ok(plain.data + WS_MAX_HEADER, plain.size - WS_MAX_HEADER):
        code = WS_INVALID_PAYLOAD
    if code:
        block_unref(plain)
        wsconn_fail(w, c, code, reason)
        return NULL
    if route_of(w, c).on != NULL:
        return plain
    again = deflate(w, c, opcode, plain)
    block_unref(plain)
    if again == NULL:
        conn_close(w.r, c)
    return again


cdef bint message_add(Block **slot, WsParser *parser, const WsEvent *event) noexcept nogil:
    """Adds a run to the message in a slot, behind room for a header.

    False: it is not UTF-8, or, if the slot is NULL then, memory is out.
    """
    cdef Block *message = slot[0]
    cdef Block *grown
    cdef size_t size
    if message == NULL:
        message = block_new(WS_MAX_HEADER + capacity_for(event.n, event))
        if message == NULL:
            return False
        message.size = WS_MAX_HEADER
    size = message.size + event.n
    if size > message.capacity:
        # Twice as much each time: to grow by a byte may be to copy all that has come.
        grown = block_grown(message, max(WS_MAX_HEADER + capacity_for(size - WS_MAX_HEADER, event), 2 * message.size))
        if grown == NULL:
            block_unref(message)
            slot[0] = NULL
            return False
        message = grown
    slot[0] = message
    if not ws_take(parser, event, message.data + message.size):
        return False
    message.size = size
    return True


cdef inline size_t capacity_for(size_t n, const WsEvent *event) noexcept nogil:
    """What to allocate for a message of which n bytes have come: much more, but no more than its frames announce.

    Memory follows what has come, not what a header claims, for pages that nothing was written to cost nothing.
    """
    return max(n, min(ROOM_AHEAD * n, <size_t>event.total))


cdef void control_received(WsServer *w, Conn *c, const WsEvent *event) noexcept nogil:
    """Ping, pong or close (RFC 6455 section 5.5)."""
    cdef uint8_t[WS_MAX_CONTROL] payload
    cdef uint8_t *to
    cdef size_t header
    cdef int code
    if event.opcode == WS_PONG:
        return
    ws_take(parser_of(c), event, payload)
    if event.opcode == WS_PING:
        # A ping may stay unanswered (section 5.5.3): no pong while so much waits for this client.
        if not c.flags & WS_CLOSING and conn_queued(c) <= route_of(w, c).max_send_queue + MAX_UNSENT:
            to = conn_reserve(w.r, c, WS_MAX_HEADER + event.n)
            header = ws_header(to, WS_PONG, event.n)
            put(to + header, payload, event.n)
            conn_commit(w.r, header + event.n)
        return
    code = ws_close_code(payload, event.n)
    if code < 0:
        wsconn_fail(w, c, -code, ws_close_fault(-code, event.n))
        return
    if wsconn_of(c) != NULL:
        wsconn_of(c).client_closed = not c.flags & WS_CLOSING
        close_note(c, code, block_copy(payload + 2, event.n - 2) if event.n > 2 else NULL)
    if not c.flags & WS_CLOSING:
        close_write(w, c, code, NULL)
    conn_finish(w.r, c, False)


# ---- the closing handshake (RFC 6455 section 7) ----

cdef inline void close_note(Conn *c, uint16_t code, Block *reason) noexcept nogil:
    """Keeps what a Close says for the handler; takes the reason over."""
    block_unref(wsconn_of(c).reason)
    wsconn_of(c).reason = reason
    wsconn_of(c).code = code


cdef void close_begun(WsServer *w, Conn *c, int code, Block *reason) noexcept nogil:
    """Our Close is on its way: nothing is sent after it, and of what comes only the client's Close counts."""
    if wsconn_of(c) != NULL and wsconn_of(c).code == WS_ABNORMAL:
        close_note(c, code, reason)
    else:
        block_unref(reason)
    c.flags = (c.flags & ~WS_PINGED) | WS_CLOSING
    conn_pause(w.r, c, False)
    conn_deadline(w.r, c, w.close_timeout)


cdef void close_write(WsServer *w, Conn *c, int code, const char *reason) noexcept nogil:
    """Sends a Close frame in the connection's own dispatch; WS_NO_STATUS: an empty one. reason: a constant, or NULL."""
    cdef size_t said = 0 if reason == NULL else strlen(reason)
    cdef size_t n = 0 if code == WS_NO_STATUS else 2 + said
    cdef uint8_t *to = conn_reserve(w.r, c, WS_MAX_HEADER + n)
    cdef size_t header = ws_header(to, WS_CLOSE, n)
    conn_commit(w.r, header + n)
    if n:
        store_be16(to + header, code)
        if said:
            memcpy(to + header + 2, reason, said)
    close_begun(w, c, code, reason_new(c, reason))


cdef Block *reason_new(const Conn *c, const char *reason) noexcept nogil:
    """A constant reason for the handler, if there is one; NULL: there is none, or memory is out."""
    if reason == NULL or wsconn_of(c) == NULL or wsconn_of(c).object == NULL:
        return NULL
    return block_copy(<const uint8_t *>reason, strlen(reason))


cdef void wsconn_close(WsServer *w, Conn *c, int code, Block *reason) noexcept nogil:
    """Sends a Close frame at any time, with a reason of up to 123 bytes of UTF-8, which it takes over, or NULL."""
    if reason == NULL:
        close_enqueue(w, c, code, NULL, 0, NULL)
    else:
        close_enqueue(w, c, code, reason.data, reason.size, reason)


cdef void close_enqueue(
    WsServer *w, Conn *c, int code, const uint8_t *text, size_t n, Block *reason
) noexcept nogil:
    """The same with the reason's text, and what the handler is to hear of it."""
    cdef Block *frame
    if wsconn_closing(c):
        block_unref(reason)
        return
    frame = block_new(WS_MAX_HEADER + 2 + n)
    if frame == NULL:
        block_unref(reason)
        conn_close(w.r, c)
        return
    frame.size = WS_MAX_HEADER + 2 + n
    ws_header(frame.data + frame_at(frame), WS_CLOSE, 2 + n)
    store_be16(frame.data + WS_MAX_HEADER, code)
    if n:
        memcpy(frame.data + WS_MAX_HEADER + 2, text, n)
    conn_enqueue(w.r, c, frame, frame_at(frame), frame.size - frame_at(frame), 0)
    block_unref(frame)
    close_begun(w, c, code, reason)


cdef void wsconn_fail(WsServer *w, Conn *c, int code, const char *reason) noexcept nogil:
    """Fails the connection (RFC 6455 section 7.1.7): our Close, unless one is on its way already, and the end.

    In its own dispatch the Close goes behind what was written there. reason: a constant of up to 123 characters.
    """
    if not c.flags & WS_CLOSING:
        if w.r.current == c:
            close_write(w, c, code, reason)
        else:
            close_enqueue(w, c, code, <const uint8_t *>reason, strlen(reason), reason_new(c, reason))
    conn_finish(w.r, c, True)


# ---- messages out ----

cdef Block *message_new(uint8_t opcode, const void *bytes, size_t n) noexcept nogil:
    """A message, or a control frame's payload, as a block: its frame lies from frame_at on. NULL: memory is out."""
    cdef Block *block = block_new(WS_MAX_HEADER + n)
    if block != NULL:
        block.size = WS_MAX_HEADER + n
        ws_header(block.data + frame_at(block), opcode, n)
        memcpy(block.data + WS_MAX_HEADER, bytes, n)
    return block


cdef void message_begin(Message *message, uint8_t opcode, Block *block) noexcept nogil:
    """A message that is to be sent; the block stays the caller's, and must outlive it."""
    memset(message, 0, sizeof(Message))
    message.opcode = opcode
    message.block = block


cdef void message_end(Message *message) noexcept nogil:
    """Drops what was made of a message for those it was sent to."""
    cdef int bits
    for bits in range(MAX_WINDOW_BITS + 1):
        block_unref(message.compressed[bits])


cdef void message_write(WsServer *w, Conn *c, uint8_t opcode, const void *bytes, size_t n) noexcept nogil:
    """Sends a message, of at most half a WRITE_BUFFER, uncompressed with what else the current dispatch writes."""
    cdef uint8_t *to = conn_reserve(w.r, c, WS_MAX_HEADER + n)
    cdef size_t header = ws_header(to, opcode, n)
    memcpy(to + header, bytes, n)
    conn_commit(w.r, header + n)


cdef void message_send(WsServer *w, Conn *c, Message *message, uint32_t tag) noexcept nogil:
    """Sends a message to a connection, compressed where that was agreed on and is worth it.

    What becomes of it where the send queue is full, its route says. Connections without a codec, of one route, share
    what is compressed.
    """
    cdef WsRoute *route = route_of(w, c)
    cdef uint8_t bits = parser_of(c).window_bits
    cdef Block *block = message.block
    cdef Block *own = NULL
    if wsconn_closing(c):
        return
    if bits and block.size >= WS_MAX_HEADER + MIN_COMPRESSED:
        if wsconn_of(c) != NULL and wsconn_of(c).codec != NULL:
            block = own = deflate(w, c, message.opcode, block)
        else:
            if message.compressed[bits] == NULL:
                message.compressed[bits] = deflate(w, c, message.opcode, block)
            block = message.compressed[bits]
        if block == NULL:
            conn_close(w.r, c)
            return
    if queue_has_room(w, c, route, block.size, tag):
        conn_enqueue(w.r, c, block, frame_at(block), block.size - frame_at(block), tag)
    block_unref(own)


cdef inline bint queue_has_room(WsServer *w, Conn *c, WsRoute *route, size_t n, uint32_t tag) noexcept nogil:
    """Whether a frame of n bytes may be queued, which is up to the route where the queue is full (its when_slow)."""
    if conn_queued(c) == 0:
        return True
    if conn_queued(c) + n > route.max_send_queue:
        conn_try_flush(w.r, c)   # the queue may be from this iteration only: try before the client counts as slow
        if c.flags & CLOSED:
            return False
    if conn_queued(c) == 0 or conn_queued(c) + n <= route.max_send_queue:
        if route.when_slow == SLOW_LATEST and tag >= TAG_TOPIC and c.flags & WRITE_BLOCKED:
            route.counts.dropped += conn_drop(w.r, c, tag, 0)
        return True
    if route.when_slow == SLOW_DROP_NEWEST:
        route.counts.dropped += 1
        return False
    if route.when_slow == SLOW_CLOSE:
        route.counts.closed_slow += 1
        route.counts.dropped += 1 + conn_drop(w.r, c, 0, 0)
        wsconn_fail(w, c, WS_TRY_AGAIN_LATER, b"client reads too slowly")
        return False
    route.counts.dropped += conn_drop(w.r, c, 0, route.max_send_queue - min(n, route.max_send_queue))
    return True


cdef void wsconn_ping(WsServer *w, Conn *c, Block *block) noexcept nogil:
    """Sends a ping, a block of message_new."""
    if not wsconn_closing(c):
        conn_enqueue(w.r, c, block, frame_at(block), block.size - frame_at(block), 0)


cdef void wsconn_pause(WsServer *w, Conn *c, uint32_t serial, bint paused) noexcept nogil:
    """Reads no further, or goes on; not once it is closing, for then the client's Close is awaited.

    serial: 31 bits, one more with each call that is made, by whatever thread: what arrives behind a later one is void.
    """
    cdef WsConn *s = wsconn_of(c)
    if <int32_t>(serial - s.pause_serial << 1) > 0:
        s.pause_serial = serial
        conn_pause(w.r, c, paused and not c.flags & WS_CLOSING)


# ---- commands of other threads: each finds its connection, or that it has gone ----

cdef int64_t run_send(void *owner, const Command *command) noexcept nogil:
    cdef WsServer *w = <WsServer *>owner
    cdef Conn *c = conn_of(w.r, command.handle)
    cdef Message message
    if c != NULL:
        message_begin(&message, <uint8_t>command.number, command.block)
        message_send(w, c, &message, TAG_MESSAGE)
        message_end(&message)
    return 0


cdef int64_t run_close(void *owner, const Command *command) noexcept nogil:
    cdef WsServer *w = <WsServer *>owner
    cdef Conn *c = conn_of(w.r, command.handle)
    if c != NULL:
        wsconn_close(w, c, <int>command.number, NULL if command.block == NULL else block_ref(command.block))
    return 0


cdef int64_t run_ping(void *owner, const Command *command) noexcept nogil:
    cdef WsServer *w = <WsServer *>owner
    cdef Conn *c = conn_of(w.r, command.handle)
    if c != NULL:
        wsconn_ping(w, c, command.block)
    return 0


cdef int64_t run_pause(void *owner, const Command *command) noexcept nogil:
    cdef WsServer *w = <WsServer *>owner
    cdef Conn *c = conn_of(w.r, command.handle)
    if c != NULL:
        wsconn_pause(w, c, command.number >> 1, command.number & 1)
    return 0


# ---- compression ----

cdef WsCodec *codec_new(const WsRoute *route, const DeflateTerms *terms) noexcept nogil:
    """Streams for a connection of its own. NULL: memory is out."""
    cdef WsCodec *codec = <WsCodec *>calloc(1, sizeof(WsCodec))
    if codec == NULL:
        return NULL
    codec.terms = terms[0]
    codec.deflater = deflater_new(terms.server_bits, route.deflate.memory_level, route.deflate.level)
    codec.inflater = inflater_new(terms.client_bits)
    if codec.deflater == NULL or codec.inflater == NULL:
        codec_free(codec)
        return NULL
    return codec


cdef void codec_free(WsCodec *codec) noexcept nogil:
    if codec == NULL:
        return
    if codec.deflater != NULL:
        deflater_free(codec.deflater)
    if codec.inflater != NULL:
        inflater_free(codec.inflater)
    free(codec)


cdef inline WsCodec *codec_of(const Conn *c) noexcept nogil:
    return NULL if c.session == NULL else wsconn_of(c).codec


cdef int inflate(
    WsServer *w, Conn *c, const Block *compressed, Block **plain, const char **reason
) noexcept nogil:
    """Inflates a message into a new block, behind room for a header. 0, or the code and reason to fail with."""
    cdef WsCodec *codec = codec_of(c)
    cdef size_t most = route_of(w, c).max_message
    cdef InflateResult result
    if codec == NULL and w.inflater == NULL:
        w.inflater = inflater_new(MAX_WINDOW_BITS)
    plain[0] = block_new(WS_MAX_HEADER + min(2 * compressed.size, most))
    if plain[0] == NULL or (codec == NULL and w.inflater == NULL):
        reason[0] = OUT_OF_MEMORY
        return WS_INTERNAL_ERROR
    plain[0].size = WS_MAX_HEADER
    result = inflater_run(
        w.inflater if codec == NULL else codec.inflater,
        compressed.data + WS_MAX_HEADER, compressed.size - WS_MAX_HEADER, True,
        codec != NULL and not codec.terms.client_no_takeover, WS_MAX_HEADER + most, plain)
    if result == INFLATE_OK:
        return 0
    if result == INFLATE_TOO_BIG:
        reason[0] = WS_LONG_MESSAGE
        return WS_TOO_BIG
    if result == INFLATE_NO_MEMORY:
        reason[0] = OUT_OF_MEMORY
        return WS_INTERNAL_ERROR
    reason[0] = b"not what deflate makes"
    return WS_INVALID_PAYLOAD


cdef Block *deflate(WsServer *w, Conn *c, uint8_t opcode, const Block *plain) noexcept nogil:
    """The compressed frame of a message for this connection, as message_new has it. NULL: memory is out."""
    cdef WsRoute *route = route_of(w, c)
    cdef WsCodec *codec = codec_of(c)
    cdef uint8_t bits = parser_of(c).window_bits
    cdef Deflater *deflater
    cdef Block *frame
    if codec == NULL and route.deflaters[bits] == NULL:
        route.deflaters[bits] = deflater_new(bits, route.deflate.memory_level, route.deflate.level)
    deflater = route.deflaters[bits] if codec == NULL else codec.deflater
    if deflater == NULL:
        return NULL
    frame = deflater_message(deflater, plain.data + WS_MAX_HEADER, plain.size - WS_MAX_HEADER, WS_MAX_HEADER,
                             codec != NULL and not codec.terms.server_no_takeover)
    if frame != NULL:
        ws_header(frame.data + frame_at(frame), opcode | WS_RSV1, frame.size - WS_MAX_HEADER)
    return frame
