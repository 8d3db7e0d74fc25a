"""The application layer: what one visitor gets.

Owns: routes, the upgrade to WebSocket, the echo, messages to visitors, what a deadline means, and every call into
Python. What a request is answered is c1m.answers'.
Refuses to know: epoll, byte layouts.

The reactor calls site_opened, site_readable, site_expired, site_leaving and site_closed. site_readable drives
the engine that conn.state names over the bytes it is handed, writes answers with conn_room and conn_send, and
returns how many bytes it used. It takes up no request while an earlier answer is still queued, and no frame
while more than MAX_UNSENT is: the reactor then reads that visitor no further until its output has drained.

Invariants: only `upgrade` leaves HTTP. conn.cold is NULL for whoever speaks HTTP, but while a body that is to be
logged waits to be sent. Every answer passes head_begin, which counts it, and head_end.
"""

import logging
import os
from inspect import isawaitable, iscoroutine
from weakref import WeakSet

from c1m.handlers import Closed, Reject

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memmove, memset

from c1m.accesslog cimport log_free, log_lost, log_new, log_take
from c1m.answers cimport (
    answer_absent, answer_failure, answer_left, answer_log, answer_not_allowed, answer_options, answer_path,
    answer_status, answer_upgrade_required, head_begin, head_end, mount_find, path_below, put_length, route_at,
)
from c1m.app cimport (
    COMMAND_CLOSE, COMMAND_HOLD, COMMAND_PING, COMMAND_PUBLISH, COMMAND_PYTHON, COMMAND_SEND, COMMAND_SUBSCRIBE,
    COMMAND_UNSUBSCRIBE, DEDICATED_COMPRESSION, HTTP, MAX_MOUNTS, MAX_ORIGINS, MAX_PROTOCOLS, MAX_ROUTES,
    MAX_CACHE_RULES, SHARED_COMPRESSION, SLOW_CLOSE, SLOW_DROP_NEWEST, SLOW_LATEST, TAG_MESSAGE, TAG_TOPIC, WEBSOCKET,
    WEBSOCKET_CLOSING, WEBSOCKET_PINGED, Answer, App, CacheRule, Codec, Command, CommandKind, Mount, Route,
)
from c1m.buf cimport (
    CLASS, TOKEN, Block, Slice, block_copy, block_unref, block_grown, block_ref, block_new, load_be16, put,
    put_text, store_be16,
)
from c1m.deflate cimport (
    MAX_AGREED, DEFLATE_AGREED, DEFLATE_DECLINED, DEFLATE_MALFORMED, INFLATE_NO_MEMORY, INFLATE_OK,
    INFLATE_TOO_BIG, MAX_WINDOW_BITS, DeflateSettings, DeflateTerms, Deflater, InflateResult, deflate_agree, deflater_free,
    deflater_message, deflater_new, inflater_free, inflater_new, inflater_run,
)
from c1m.files cimport files_directory, files_forget, files_free, files_index, files_init, files_root, files_type
from c1m.http cimport (
    AT_HEAD, CHUNKED, EXPECT_CONTINUE, EXPECT_UNKNOWN, GET, HEAD, MAX_HEAD, HTTP_BODY, HTTP_FAIL, HTTP_MORE,
    KEEP_ALIVE, OPTIONS, ORIGIN, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UNKNOWN_METHOD, WANTS_WEBSOCKET, HttpParser, has, http_accepts, http_list_next,
    http_next, http_unescape, twice, value_of,
)
from c1m.http cimport HttpRequest
from c1m.linux cimport (
    EMFILE, ENFILE, ENOMEM, close, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock,
    pthread_mutex_unlock, usleep,
)
from c1m.reactor cimport (
    MAX_UNSENT, CLOSED, DUPLEX, ENDING, HELD, NOTE_FULL, OUTBOX, MAX_PEER_TEXT, STALLED, UNGATED, WANTS_DRAIN, Conn, Loop,
    Reactor, Upcalls, conn_backlog, conn_choked, conn_close, conn_deadline, conn_drop, conn_ending, conn_finish,
    conn_hold, conn_of, conn_peer, conn_post, conn_push, conn_room, conn_send, conn_unsent, conn_wrote, handle_of,
    reactor_alarm, reactor_close_all, reactor_is_here, reactor_wake, timer_for,
)
from c1m.topics cimport (
    Subscriber, Topic, topics_find, topics_free, topics_init, topics_leave, topics_subscribe, topics_unsubscribe,
)
from c1m.ws cimport (
    WS_ABNORMAL, WS_BINARY, WS_CLOSE, WS_CONTROL, WS_MAX_CONTROL, WS_DEFLATE, WS_FAIL, WS_GOING_AWAY, WS_MAX_HEADER,
    WS_INTERNAL_ERROR, WS_INVALID_PAYLOAD, WS_MORE, WS_NO_STATUS, WS_PING, WS_PONG, WS_RSV1, WS_SERVER, WS_TEXT,
    WS_TOO_BIG, WS_TRY_AGAIN_LATER, WsEvent, WsParser, ws_accept, ws_close_code, ws_head, ws_head_size,
    ws_key_ok, ws_next, ws_start, ws_take, ws_text_ok,
)

cdef extern from *:
    void prefetch "__builtin_prefetch"(const void *p) noexcept nogil

cdef enum:
    DEFLATE_LEVEL = 6            # zlib's default
    MIN_COMPRESSED = 64              # bytes of a message below which compression gains nothing
    OWN_STREAMS = 0x80           # Conn.extra
    FORGET_MS = 10000            # between looks at what the files' cache may forget
    COMMANDS_A_TURN = 4096       # of other threads', and messages that they bring, before others have their turn
    MAX_COMMAND_BYTES = 4 << 20 # of commands that wait, above which their threads are slowed down
    MAX_WAIT_MS = 100             # milliseconds that each of them then waits
    MAX_OFFERED = 64            # subprotocols, above which an offer is refused
    CLOSE_MS = 10000             # that the peer has for its Close after ours
    ROOM_AHEAD = 16              # times what has come of a message, see room_for
    MAX_REJECT = 16384          # bytes of a Reject's fields and body, more than it takes itself

log = logging.getLogger("c1m")


# ---- what the reactor calls ----

cdef inline Route *route_of(const App *a, const Conn *c) noexcept nogil:
    return a.routes[c.route]


cdef inline HttpParser *http_of(Conn *c) noexcept nogil:
    return <HttpParser *>c.engine

cdef void site_opened(void *app, Conn *c) noexcept nogil:
    cdef App *a = <App *>app
    conn_deadline(a.r, c, a.head_timer)


cdef size_t site_readable(void *app, Conn *c, uint8_t *bytes, size_t n) noexcept nogil:
    if c.state == HTTP:
        return http_readable(<App *>app, c, bytes, n)
    return ws_readable(<App *>app, c, bytes, n)


cdef void site_expired(void *app, Conn *c) noexcept nogil:
    cdef App *a = <App *>app
    if c.state == HTTP:
        if http_of(c).phase != AT_HEAD:
            conn_finish(a.r, c, True)           # the rest of a body whose request has its answer
        elif c.input == NULL:
            conn_finish(a.r, c, False)          # between requests, nobody waits for a word
        else:
            http_of(c).scanned = 0              # read once more, for what a.request holds is another visitor's
            http_next(http_of(c), c.input.data, c.input.size, &a.request)
            answer_failure(a, c, 408)
    elif c.state == WEBSOCKET_CLOSING or (c.flags & HELD and c.flags & ENDING):
        conn_close(a.r, c)       # whoever was to say something more has not, or has gone while nobody listened
    elif c.state == WEBSOCKET or c.flags & HELD:
        # Who is held has its pong unread; but where the peer is no more, the ping finds out.
        c.state = WEBSOCKET if c.flags & HELD else WEBSOCKET_PINGED
        conn_wrote(a.r, ws_head(conn_room(a.r, c, WS_MAX_HEADER), WS_PING, 0))
        conn_deadline(a.r, c, route_of(a, c).ping_timer if c.flags & HELD else route_of(a, c).pong_timer)
    else:
        ws_fail(a, c, WS_INTERNAL_ERROR)


cdef void site_leaving(void *app, Conn *c) noexcept nogil:
    cdef App *a = <App *>app
    if c.state == HTTP:
        if c.input == NULL and c.output == NULL and http_of(c).phase == AT_HEAD:
            conn_finish(a.r, c, False)
    elif c.state != WEBSOCKET_CLOSING and not conn_ending(c):
        ws_close(a, c, WS_GOING_AWAY)


cdef void site_closed(void *app, Conn *c) noexcept nogil:
    cdef App *a = <App *>app
    if c.state == HTTP:
        answer_left(a, c)
        return
    if route_of(a, c).handler != NULL:
        py_closed(a, c)
    elif c.extra & OWN_STREAMS:
        codec_free(<Codec *>c.cold)
    else:
        block_unref(<Block *>c.cold)
    c.cold = NULL
    a.websockets -= 1            # last: who reads the counters meanwhile must not find it gone but still subscribed


cdef void site_drained(void *app, Conn *c) noexcept nogil:
    cdef App *a = <App *>app
    if c.state == HTTP:
        answer_left(a, c)
        conn_deadline(a.r, c, a.keep_timer)          # unless site_readable, which follows, finds a request begun
        return
    if c.output != NULL:
        if conn_backlog(c) <= route_of(a, c).max_backlog // 2:
            py_waited(c)
        return
    conn_deadline(a.r, c, a.close_timer if c.state == WEBSOCKET_CLOSING else route_of(a, c).ping_timer)
    if route_of(a, c).handler != NULL:
        py_drained(a, c)


cdef bint site_alarm(void *app) noexcept nogil:
    """Once in a while, whatever comes or does not."""
    cdef App *a = <App *>app
    files_forget(&a.files, a.r.now_ms)
    reactor_alarm(a.r, a.forget_timer)
    return True


cdef bint site_woken(void *app) noexcept nogil:
    """Carries out what other threads have asked for, as much as is good for a turn. Whether that was all."""
    cdef App *a = <App *>app
    cdef Command *command
    cdef Command *rest
    cdef Command *last
    cdef int64_t budget = COMMANDS_A_TURN
    pthread_mutex_lock(&a.lock)
    command = a.first_command
    last = a.last_command
    a.first_command = a.last_command = NULL
    pthread_mutex_unlock(&a.lock)
    rest = commands_run(a, command, &budget)
    if rest == NULL:
        return True
    pthread_mutex_lock(&a.lock)
    last.next = a.first_command
    if a.first_command == NULL:
        a.last_command = last
    a.first_command = rest
    pthread_mutex_unlock(&a.lock)
    return False


# ---- HTTP ----

cdef size_t http_readable(App *a, Conn *c, uint8_t *bytes, size_t n) noexcept nogil:
    """Answers the requests in bytes[:n]; returns how many bytes they were."""
    cdef HttpParser *parser = http_of(c)
    cdef bint begun = parser.scanned != 0 or parser.phase != AT_HEAD
    cdef bint moved = begun      # whether there was more than empty lines
    cdef size_t used = 0
    while c.output == NULL:
        used += http_next(parser, bytes + used, n - used, &a.request)
        if a.request.kind == HTTP_MORE:
            break
        if a.request.kind == HTTP_BODY:
            continue             # no route here takes one
        if a.request.kind == HTTP_FAIL:
            if parser.phase == AT_HEAD:
                answer_failure(a, c, a.request.status)
            else:
                conn_finish(a.r, c, True)       # the request whose body this is has its answer
            return n
        begun = False
        moved = True
        answer(a, c)
        if conn_ending(c):
            if used < n:
                conn_finish(a.r, c, True)       # more came behind the last request, and more of it may be on its way
            return n
        if c.state != HTTP:
            return used + ws_readable(a, c, bytes + used, n - used)
    if c.output != NULL:
        return used
    if parser.scanned != 0 or parser.phase != AT_HEAD:
        # Set once a request: the clock runs from its first byte to its last, however they trickle in.
        if not begun or c.timer != a.head_timer:
            conn_deadline(a.r, c, a.head_timer)
    elif a.r.leaving:
        conn_finish(a.r, c, False)
    elif moved:
        conn_deadline(a.r, c, a.keep_timer)
    return used


cdef void answer(App *a, Conn *c) noexcept nogil:
    """Answers a.request, or upgrades."""
    cdef HttpRequest *r = &a.request
    cdef Slice path
    cdef int route
    a.requests += 1
    memset(&a.answer, 0, sizeof(Answer))
    a.answer.keep = r.flags & KEEP_ALIVE and not a.r.leaving
    if r.flags & EXPECT_CONTINUE and (r.content_length or r.flags & CHUNKED):
        a.answer.keep = False    # no route takes a body, and the client may or may not send this one now
    path = Slice(&a.path[0], http_unescape(r.path, a.path))
    mount_find(a, path)
    if r.flags & EXPECT_UNKNOWN:
        answer_status(a, c, 417, b"")
    elif r.method == UNKNOWN_METHOD:
        answer_status(a, c, 501, b"")
    elif r.method == GET or r.method == HEAD:
        route = route_at(a, path) if r.flags & WANTS_WEBSOCKET and r.method == GET else -1
        if route >= 0:
            upgrade(a, c, route)
        elif not answer_path(a, c, path):
            answer_listing(a, c, path)
    elif r.method == OPTIONS:
        answer_options(a, c)
    else:
        answer_not_allowed(a, c)
    if a.log != NULL:
        answer_log(a, c)
    if not a.answer.keep and c.state == HTTP:
        # Who has not said that it closes may be sending more.
        conn_finish(a.r, c, r.content_length or r.flags & (CHUNKED | KEEP_ALIVE))


# ---- WebSocket ----

cdef void upgrade(App *a, Conn *c, int index) noexcept nogil:
    """The opening handshake (RFC 6455 section 4.2)."""
    cdef HttpRequest *r = &a.request
    cdef Route *route = a.routes[index]
    cdef Slice key = value_of(r, SEC_WEBSOCKET_KEY), protocol = Slice(NULL, 0)
    cdef uint8_t[MAX_AGREED] agreed
    cdef size_t agreed_n = 0
    cdef DeflateTerms terms
    cdef Codec *codec = NULL
    cdef uint8_t *to
    cdef void *ws = NULL
    if not has(r, SEC_WEBSOCKET_VERSION) or twice(r, SEC_WEBSOCKET_VERSION) or not is_13(value_of(r, SEC_WEBSOCKET_VERSION)):
        answer_upgrade_required(a, c)
        return
    if (not has(r, SEC_WEBSOCKET_KEY) or twice(r, SEC_WEBSOCKET_KEY) or not ws_key_ok(key.at, key.n) or
            r.content_length or r.flags & CHUNKED):
        answer_status(a, c, 400, b"")
        return
    if not origin_allowed(r, route):
        answer_status(a, c, 403, b"")
        return
    if not extensions_agree(r, route, &terms, agreed, &agreed_n) or not protocols_ok(r):
        answer_status(a, c, 400, b"")
        return
    protocol = protocol_chosen(r, route)
    if route.handler != NULL:
        ws = py_upgrade(a, c, route, &protocol)
        if ws == NULL:
            return               # it has answered
    a.answers[1] += 1
    a.answer.status = 101
    to = conn_room(a.r, c, MAX_HEAD + protocol.n)
    to = put_text(to, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ")
    ws_accept(key.at, to)
    to = put_text(to + 28, b"\r\n")
    if protocol.n:
        to = put_text(put(put_text(to, b"Sec-WebSocket-Protocol: "), protocol.at, protocol.n), b"\r\n")
    if agreed_n:
        to = put_text(put(put_text(to, b"Sec-WebSocket-Extensions: "), agreed, agreed_n), b"\r\n")
        c.extra = terms.server_bits
        if route.compression == DEDICATED_COMPRESSION:
            codec = codec_new(route, &terms)
            if codec == NULL:
                conn_close(a.r, c)
            else:
                c.extra |= OWN_STREAMS
    head_end(a, put_text(to, b"\r\n"))
    c.state = WEBSOCKET
    c.route = index
    c.cold = ws if ws != NULL else codec
    ws_start(<WsParser *>c.engine, WS_SERVER | (WS_DEFLATE if agreed_n else 0))
    c.flags |= DUPLEX
    if route.when_slow != SLOW_CLOSE:
        c.flags |= UNGATED       # its backlog is bounded by dropping: to read on brings no more
    conn_deadline(a.r, c, route.ping_timer)
    a.websockets += 1
    a.upgrades += 1
    if ws != NULL:
        py_opened(a, c, codec)
    if a.r.leaving:
        site_leaving(a, c)


cdef bint extensions_agree(const HttpRequest *r, const Route *route, DeflateTerms *terms, uint8_t *answer, size_t *n) noexcept nogil:
    """Takes the first offer of compression that can be taken, if any. False: what is offered is no list of extensions."""
    cdef int i, said = DEFLATE_DECLINED
    for i in range(r.count):
        if r.fields[i].id == SEC_WEBSOCKET_EXTENSIONS and said != DEFLATE_AGREED:
            said = deflate_agree(r.fields[i].value, &route.deflate, terms, answer, n)
            if said == DEFLATE_MALFORMED:
                return False
    if said != DEFLATE_AGREED or not route.compression:
        n[0] = 0
    return True


cdef bint protocols_ok(const HttpRequest *r) noexcept nogil:
    """Whether the subprotocols on offer, if any, are tokens, each there once (RFC 6455 section 4.1, item 10)."""
    cdef Slice[MAX_OFFERED] items
    cdef Slice rest
    cdef int i, j, count = 0
    for i in range(r.count):
        if r.fields[i].id != SEC_WEBSOCKET_PROTOCOL:
            continue
        rest = r.fields[i].value
        while count < MAX_OFFERED and http_list_next(&rest, &items[count]):
            if not is_token(items[count]):
                return False
            for j in range(count):
                if items[j].n == items[count].n and memcmp(items[j].at, items[count].at, items[j].n) == 0:
                    return False
            count += 1
    return count < MAX_OFFERED and (count > 0 or not has(r, SEC_WEBSOCKET_PROTOCOL))


cdef bint is_token(Slice item) noexcept nogil:
    cdef size_t i
    for i in range(item.n):
        if not CLASS[item.at[i]] & TOKEN:
            return False
    return True


cdef bint origin_allowed(const HttpRequest *r, const Route *route) noexcept nogil:
    """Whether the route lets scripts of the request's origin in; who is no browser names none (RFC 6455 section 10.2)."""
    cdef Slice origin = value_of(r, ORIGIN)
    cdef int i
    if route.origins_n == 0 or not has(r, ORIGIN):
        return True
    for i in range(route.origins_n):
        if route.origins[i].n == origin.n and memcmp(route.origins[i].at, origin.at, origin.n) == 0:
            return not twice(r, ORIGIN)
    return False


cdef Slice protocol_chosen(const HttpRequest *r, const Route *route) noexcept nogil:
    """The first of the route's subprotocols that the client offers too, empty for none."""
    cdef Slice rest, item
    cdef int i, j
    for i in range(route.protocols_n):
        for j in range(r.count):
            if r.fields[j].id != SEC_WEBSOCKET_PROTOCOL:
                continue
            rest = r.fields[j].value
            while http_list_next(&rest, &item):
                if item.n == route.protocols[i].n and memcmp(item.at, route.protocols[i].at, item.n) == 0:
                    return route.protocols[i]
    return Slice(NULL, 0)


cdef inline bint is_13(Slice version) noexcept nogil:
    return version.n == 2 and version.at[0] == c'1' and version.at[1] == c'3'


cdef size_t ws_readable(App *a, Conn *c, uint8_t *bytes, size_t n) noexcept nogil:
    """Deals with the frames in bytes[:n]; returns how many bytes they were."""
    if route_of(a, c).handler == NULL:
        return frames_run(a, c, bytes, n)
    # The GIL is taken once for all of these frames; py_message's own taking it again costs next to nothing.
    with gil:
        return frames_run(a, c, bytes, n)


cdef size_t frames_run(App *a, Conn *c, uint8_t *bytes, size_t n) noexcept nogil:
    cdef WsParser *parser = <WsParser *>c.engine
    cdef Route *route = route_of(a, c)
    cdef size_t limit = route.max_message, used = 0
    cdef WsEvent event
    while not conn_choked(c) and not c.flags & HELD:
        used += ws_next(parser, limit, bytes + used, n - used, &event)
        if event.kind == WS_MORE:
            break
        if event.kind == WS_FAIL:
            ws_fail(a, c, event.code)
        elif event.kind == WS_CONTROL:
            ws_control(a, c, parser, &event)
        elif c.state == WEBSOCKET_CLOSING:
            pass                 # RFC 6455 section 5.5.1: we have said all that we will
        elif route.handler == NULL:
            ws_echo(a, c, parser, &event)
        else:
            ws_deliver(a, c, parser, &event)
        if conn_ending(c):
            return n
    # Also where n is 0: the peer has just read the last of what was queued, under another deadline.
    if c.state != WEBSOCKET_CLOSING:
        c.state = WEBSOCKET
        conn_deadline(a.r, c, route.ping_timer)
    return used


cdef inline void ws_echo(App *a, Conn *c, WsParser *parser, const WsEvent *event) noexcept nogil:
    """A run of a message: back it goes when it is whole, unmasked straight to where it is sent from."""
    cdef uint8_t *to
    cdef size_t head
    cdef Block **slot
    cdef Block *message
    if event.compressed:
        packed_run(a, c, parser, event)
        return
    if event.first and event.last:
        to = conn_room(a.r, c, WS_MAX_HEADER + event.n)
        head = ws_head(to, event.opcode, event.n)
        if not ws_take(parser, event, to + head):
            ws_fail(a, c, WS_INVALID_PAYLOAD)
            return
        conn_wrote(a.r, head + event.n)
        a.messages += 1
        return
    slot = message_of(a, c)
    if not message_add(slot, parser, event):
        ws_fail(a, c, WS_INVALID_PAYLOAD if slot[0] != NULL else WS_INTERNAL_ERROR)
    elif event.last:
        message = slot[0]
        slot[0] = NULL
        head = ws_head_size(message.size - WS_MAX_HEADER)
        ws_head(message.data + WS_MAX_HEADER - head, event.opcode, message.size - WS_MAX_HEADER)
        conn_send(a.r, c, message, WS_MAX_HEADER - head, message.size - WS_MAX_HEADER + head)
        block_unref(message)
        a.messages += 1


cdef inline void ws_deliver(App *a, Conn *c, WsParser *parser, const WsEvent *event) noexcept nogil:
    """A run of a message for a handler, which gets it when it is whole."""
    cdef Block **message
    if event.compressed:
        packed_run(a, c, parser, event)
        return
    if event.first and event.last:
        if ws_take(parser, event, event.at):
            py_message(a, c, event.opcode, event.at, event.n)
        else:
            ws_fail(a, c, WS_INVALID_PAYLOAD)
        return
    message = message_of(a, c)
    if not message_add(message, parser, event):
        ws_fail(a, c, WS_INVALID_PAYLOAD if message[0] != NULL else WS_INTERNAL_ERROR)
    elif event.last:
        py_message(a, c, event.opcode, message[0].data + WS_MAX_HEADER, message[0].size - WS_MAX_HEADER)
        block_unref(message[0])
        message[0] = NULL


cdef void packed_run(App *a, Conn *c, WsParser *parser, const WsEvent *event) noexcept nogil:
    """A run of a compressed message: inflated when whole, and delivered, or sent back as it came, compressed."""
    cdef Block **slot = message_of(a, c)
    cdef Block *plain = NULL
    cdef Block *packed
    cdef uint8_t *bytes = NULL
    cdef size_t n = 0
    cdef int code
    if not message_add(slot, parser, event):
        ws_fail(a, c, WS_INTERNAL_ERROR)
        return
    if not event.last:
        return
    code = unpack(a, c, slot[0], &plain)
    block_unref(slot[0])
    slot[0] = NULL
    if code == 0:
        bytes, n = plain.data + WS_MAX_HEADER, plain.size - WS_MAX_HEADER
        if event.opcode == WS_TEXT and not ws_text_ok(bytes, n):
            code = WS_INVALID_PAYLOAD
    if code:
        ws_fail(a, c, code)
    elif route_of(a, c).handler != NULL:
        py_message(a, c, event.opcode, bytes, n)
    else:
        a.messages += 1
        packed = packed_new(a, c, event.opcode, bytes, n)
        if packed == NULL:
            conn_close(a.r, c)
        else:
            conn_post(a.r, c, packed, 0, packed.size, TAG_MESSAGE)
        block_unref(packed)
    block_unref(plain)


cdef int unpack(App *a, Conn *c, const Block *message, Block **plain) noexcept nogil:
    """Inflates a message into a new block, behind room for a header. 0 or the code to fail with."""
    cdef Codec *codec = codec_of(a, c)
    cdef InflateResult said
    if codec == NULL and a.inflater == NULL:
        a.inflater = inflater_new(MAX_WINDOW_BITS)
    plain[0] = block_new(WS_MAX_HEADER + min(2 * message.size, <size_t>route_of(a, c).max_message))
    if plain[0] == NULL or (codec == NULL and a.inflater == NULL):
        return WS_INTERNAL_ERROR
    plain[0].size = WS_MAX_HEADER
    said = inflater_run(a.inflater if codec == NULL else codec.inflater, message.data + WS_MAX_HEADER, message.size - WS_MAX_HEADER, True,
                        codec != NULL and not codec.terms.client_no_takeover, WS_MAX_HEADER + <size_t>route_of(a, c).max_message, plain)
    if said == INFLATE_OK:
        return 0
    return WS_TOO_BIG if said == INFLATE_TOO_BIG else WS_INTERNAL_ERROR if said == INFLATE_NO_MEMORY else WS_INVALID_PAYLOAD


cdef Block *pack(App *a, Conn *c, Block *frame) noexcept nogil:
    """The frame as this visitor gets it, with a reference of the caller's own: compressed where that was agreed on and is
    worth it. For visitors without streams of their own that is done once. NULL: memory is out.
    """
    cdef size_t head = 2 if frame.data[1] < 126 else 4 if frame.data[1] == 126 else 10
    cdef uint8_t bits = c.extra & ~OWN_STREAMS
    cdef bint shared = a.packing == frame and not c.extra & OWN_STREAMS
    cdef Block *packed
    if bits == 0 or frame.size - head < MIN_COMPRESSED:
        return block_ref(frame)
    if shared and a.packed[bits] != NULL:
        return block_ref(a.packed[bits])
    packed = packed_new(a, c, frame.data[0] & 0x0f, frame.data + head, frame.size - head)
    if shared and packed != NULL:
        a.packed[bits] = block_ref(packed)
    return packed


cdef Block *packed_new(App *a, Conn *c, uint8_t opcode, const uint8_t *bytes, size_t n) noexcept nogil:
    """A compressed frame for this visitor. NULL: memory is out."""
    cdef Route *route = route_of(a, c)
    cdef Codec *codec = codec_of(a, c)
    cdef uint8_t bits = c.extra & ~OWN_STREAMS
    cdef Deflater *deflater
    cdef Block *packed
    cdef size_t head
    if codec == NULL and route.deflaters[bits] == NULL:
        route.deflaters[bits] = deflater_new(bits, route.deflate.memory_level, route.deflate.level)
    deflater = route.deflaters[bits] if codec == NULL else codec.deflater
    if deflater == NULL:
        return NULL
    packed = deflater_message(deflater, bytes, n, WS_MAX_HEADER, codec != NULL and not codec.terms.server_no_takeover)
    if packed == NULL:
        return NULL
    # The header is as long as the payload has it: the payload moves up to it.
    n = packed.size - WS_MAX_HEADER
    head = ws_head(packed.data, opcode | WS_RSV1, n)
    memmove(packed.data + head, packed.data + WS_MAX_HEADER, n)
    packed.size = head + n
    return packed


cdef Codec *codec_new(const Route *route, const DeflateTerms *terms) noexcept nogil:
    """Streams for a connection of its own. NULL: memory is out."""
    cdef Codec *codec = <Codec *>calloc(1, sizeof(Codec))
    if codec == NULL:
        return NULL
    codec.terms = terms[0]
    codec.deflater = deflater_new(terms.server_bits, route.deflate.memory_level, route.deflate.level)
    codec.inflater = inflater_new(terms.client_bits)
    if codec.deflater == NULL or codec.inflater == NULL:
        codec_free(codec)
        return NULL
    return codec


cdef void codec_free(Codec *codec) noexcept nogil:
    if codec == NULL:
        return
    if codec.deflater != NULL:
        deflater_free(codec.deflater)
    if codec.inflater != NULL:
        inflater_free(codec.inflater)
    block_unref(codec.message)
    free(codec)


cdef bint message_add(Block **slot, WsParser *parser, const WsEvent *event) noexcept nogil:
    """Adds a run to the message in a slot, behind room for a header.

    False: it is not UTF-8, or, if the slot is NULL then, memory is out.
    """
    cdef Block *message = slot[0]
    cdef Block *grown
    cdef size_t need
    if message == NULL:
        message = block_new(WS_MAX_HEADER + room_for(event.n, event))
        if message == NULL:
            return False
        message.size = WS_MAX_HEADER
    need = message.size + event.n
    if need > message.capacity:
        grown = block_grown(message, WS_MAX_HEADER + room_for(need - WS_MAX_HEADER, event))
        if grown == NULL:
            block_unref(message)
            slot[0] = NULL
            return False
        message = grown
    slot[0] = message
    if not ws_take(parser, event, message.data + message.size):
        return False
    message.size = need
    return True


cdef inline size_t room_for(size_t n, const WsEvent *event) noexcept nogil:
    """What to reserve for a message of which n bytes have come: much more, but no more than its frames announce. Memory
    follows what has come, not what a header claims, for pages that nothing was written to cost nothing."""
    return max(n, min(ROOM_AHEAD * n, <size_t>event.total))


cdef void ws_control(App *a, Conn *c, WsParser *parser, const WsEvent *event) noexcept nogil:
    """Ping, pong or close (RFC 6455 section 5.5)."""
    cdef uint8_t[WS_MAX_CONTROL] payload
    cdef uint8_t *to
    cdef size_t head
    cdef int code
    if event.opcode == WS_PONG:
        return
    ws_take(parser, event, payload)
    if event.opcode == WS_PING:
        # Not each must be answered (section 5.5.3), and who has so many answers to read gets no more of them.
        if c.state != WEBSOCKET_CLOSING and conn_backlog(c) <= route_of(a, c).max_backlog + MAX_UNSENT:
            to = conn_room(a.r, c, WS_MAX_HEADER + event.n)
            head = ws_head(to, WS_PONG, event.n)
            memcpy(to + head, payload, event.n)
            conn_wrote(a.r, head + event.n)
        return
    code = ws_close_code(payload, event.n)
    if code < 0:
        ws_fail(a, c, -code)
        return
    if route_of(a, c).handler != NULL:
        py_close_came(c, code, payload, event.n)
    if c.state != WEBSOCKET_CLOSING:
        ws_close(a, c, code)
    conn_finish(a.r, c, False)


cdef void ws_close(App *a, Conn *c, int code) noexcept nogil:
    """Sends a Close frame in the visitor's visit; WS_NO_STATUS: an empty one. The peer's is awaited from now on."""
    cdef uint8_t *to = conn_room(a.r, c, WS_MAX_HEADER + 2)
    cdef size_t n = 0 if code == WS_NO_STATUS else 2
    py_closing(a, c, code, NULL, 0)
    conn_wrote(a.r, ws_head(to, WS_CLOSE, n) + n)
    if n:
        store_be16(to + 2, code)
    closing(a, c)


cdef void closing(App *a, Conn *c) noexcept nogil:
    """Our Close is on its way: nothing is sent after it, and of what comes only the peer's Close counts."""
    c.state = WEBSOCKET_CLOSING
    conn_hold(a.r, c, False)
    conn_deadline(a.r, c, a.close_timer)


cdef void ws_fail(App *a, Conn *c, int code) noexcept nogil:
    """Fails the connection (RFC 6455 section 7.1.7): our Close, unless one is on its way already, and the end."""
    if c.state != WEBSOCKET_CLOSING:
        ws_close(a, c, code)
    conn_finish(a.r, c, True)


# ---- messages to visitors ----

cdef Block *frame_new(uint8_t opcode, const void *bytes, size_t n) noexcept nogil:
    """A whole frame, to be shared by all who get it; NULL: memory is out."""
    cdef Block *frame = block_new(WS_MAX_HEADER + n)
    if frame != NULL:
        frame.size = ws_head(frame.data, opcode, n)
        memcpy(frame.data + frame.size, bytes, n)
        frame.size += n
    return frame


cdef void frame_send(App *a, Conn *c, Block *frame, uint32_t tag) noexcept nogil:
    """Sends a data frame to a visitor, unless its backlog is full and the route has it otherwise. NULL: memory was out."""
    cdef Route *route = route_of(a, c)
    cdef Block *packed
    if c.state == WEBSOCKET_CLOSING or conn_ending(c):
        return
    packed = frame if c.extra == 0 or frame == NULL else pack(a, c, frame)
    if packed == NULL:
        conn_close(a.r, c)
        return
    if room_made(a, c, route, packed.size, tag):
        conn_post(a.r, c, packed, 0, packed.size, tag)
    if c.extra:
        block_unref(packed)       # pack's reference


cdef inline bint room_made(App *a, Conn *c, Route *route, size_t n, uint32_t tag) noexcept nogil:
    """Whether a frame of n bytes may be sent, which is up to the route where the backlog is full (its when_slow)."""
    if conn_backlog(c) == 0:
        return True
    if conn_backlog(c) + n > route.max_backlog:
        conn_push(a.r, c)        # all of it may be of this very turn, and nobody slow
        if c.flags & CLOSED:
            return False
    if conn_backlog(c) == 0 or conn_backlog(c) + n <= route.max_backlog:
        if route.when_slow == SLOW_LATEST and tag >= TAG_TOPIC and c.flags & STALLED:
            route.dropped += conn_drop(a.r, c, tag, 0)
        return True
    if route.when_slow == SLOW_DROP_NEWEST:
        route.dropped += 1
        return False
    if route.when_slow == SLOW_CLOSE:
        route.closed_slow += 1
        route.dropped += 1 + conn_drop(a.r, c, 0, 0)
        close_post(a, c, WS_TRY_AGAIN_LATER, NULL, 0)
        conn_finish(a.r, c, True)
        return False
    route.dropped += conn_drop(a.r, c, 0, route.max_backlog - min(n, route.max_backlog))
    return True


cdef void close_post(App *a, Conn *c, int code, const uint8_t *reason, size_t n) noexcept nogil:
    """ws_close at any time, with a reason of up to 123 bytes of UTF-8."""
    cdef uint8_t[WS_MAX_CONTROL] payload
    cdef Block *frame
    if c.state == WEBSOCKET_CLOSING or conn_ending(c):
        return
    py_closing(a, c, code, reason, n)
    store_be16(payload, code)
    if n:
        memcpy(payload + 2, reason, n)
    frame = frame_new(WS_CLOSE, payload, 2 + n)
    if frame == NULL:
        conn_close(a.r, c)
        return
    conn_post(a.r, c, frame, 0, frame.size, 0)
    block_unref(frame)
    closing(a, c)


cdef uint32_t publish(App *a, Slice name, Block *frame, uint64_t sender) noexcept nogil:
    """Sends a frame to all who are subscribed, but for the sender; returns how many are."""
    cdef Topic *topic = topics_find(&a.topics, name)
    cdef uint32_t i
    cdef Conn *c
    if topic == NULL:
        return 0
    a.packing = frame
    for i in range(topic.count):
        if i + 4 < topic.count:
            prefetch(&a.r.table[topic.members[i + 4].who])
        c = &a.r.table[topic.members[i].who]
        if sender and handle_of(a.r, c) == sender:
            continue
        frame_send(a, c, frame, TAG_TOPIC + topic.serial)
    a.packing = NULL
    for i in range(MAX_WINDOW_BITS + 1):
        block_unref(a.packed[i])
        a.packed[i] = NULL
    return topic.count


cdef Command *commands_run(App *a, Command *command, int64_t *budget) noexcept nogil:
    """Carries out a list of commands, and frees them, until the budget is used up: returns those that are left."""
    while command != NULL and budget[0] > 0:
        if command.kind < COMMAND_PYTHON:
            command = command_run(a, command, budget)
            continue
        with gil:                # once for all of them that come together
            while command != NULL and command.kind >= COMMAND_PYTHON and budget[0] > 0:
                command = command_run(a, command, budget)
    return command


cdef Command *command_run(App *a, Command *command, int64_t *budget) noexcept nogil:
    """Does what another thread asked for, if its visitor is still there, and frees it. Returns the next."""
    cdef Command *next = command.next
    cdef Conn *c = conn_of(a.r, command.handle) if command.handle else NULL
    cdef Slice topic = Slice(NULL, 0)
    budget[0] -= 1
    if command.topic != NULL:
        topic = Slice(&command.topic.data[0], command.topic.size)
    if command.kind == COMMAND_PUBLISH:
        budget[0] -= publish(a, topic, command.frame, command.handle)
    elif c == NULL:
        pass
    elif command.kind == COMMAND_SEND:
        frame_send(a, c, command.frame, TAG_MESSAGE)
    elif command.kind == COMMAND_CLOSE:
        close_post(a, c, load_be16(command.frame.data), command.frame.data + 2, command.frame.size - 2)
    elif command.kind == COMMAND_PING:
        if c.state != WEBSOCKET_CLOSING:
            conn_post(a.r, c, command.frame, 0, command.frame.size, 0)
    elif command.kind == COMMAND_HOLD:
        py_hold(a, c)
    elif command.kind == COMMAND_SUBSCRIBE:
        topics_subscribe(&a.topics, <uint32_t>command.handle, topic)
    else:
        topics_unsubscribe(&a.topics, <uint32_t>command.handle, topic)
    command_free(a, command)
    return next


cdef size_t memory_of(const Command *command) noexcept nogil:
    return (sizeof(Command) + (0 if command.topic == NULL else command.topic.capacity) +
            (0 if command.frame == NULL else command.frame.capacity))


cdef void command_free(App *a, Command *command) noexcept nogil:
    pthread_mutex_lock(&a.lock)
    a.command_bytes -= memory_of(command)
    pthread_mutex_unlock(&a.lock)
    block_unref(command.frame)
    block_unref(command.topic)
    free(command)


cdef bint command_add(App *a, CommandKind kind, uint64_t handle, Block *topic, Block *frame) noexcept nogil:
    """Asks the reactor's thread to do something, and takes the blocks over. False: memory is out."""
    cdef Command *command = <Command *>malloc(sizeof(Command))
    cdef bint first
    if command == NULL:
        block_unref(topic)
        block_unref(frame)
        return False
    command.next = NULL
    command.kind, command.handle, command.topic, command.frame = kind, handle, topic, frame
    pthread_mutex_lock(&a.lock)
    first = a.first_command == NULL
    if first:
        a.first_command = command
    else:
        a.last_command.next = command
    a.last_command = command
    a.command_bytes += memory_of(command)
    pthread_mutex_unlock(&a.lock)
    if first:
        reactor_wake(a.r)
    return True


cdef void commands_wait(App *a) noexcept nogil:
    """Slows down a thread that asks for more than the reactor can do. Not for ever, lest the reactor's thread in turn wait
    for what this one holds."""
    cdef int i
    for i in range(MAX_WAIT_MS):
        if a.command_bytes <= MAX_COMMAND_BYTES:
            return
        usleep(1000)


# ---- into Python: the GIL is taken here and nowhere above but in ws_readable and command_run ----

cdef class Request:
    """What a client asked for when it wanted to open a WebSocket.

    path (str): of the URL, unescaped. query (str): what follows its question mark, as it came. headers (dict of str to
    str): names in lower case; the values of a name that came twice are joined by commas. cookies (dict of str to str).
    remote (str): the peer's address, "" for a Unix-domain socket.
    """

    @property
    def headers(self):
        if self.fields is None:
            self.fields = {}
            for line in self.head.split(b"\r\n"):
                name, _, value = line.decode("latin-1").partition(":")
                name, value = name.lower(), value.strip(" \t")
                self.fields[name] = f"{self.fields[name]}, {value}" if name in self.fields else value
        return self.fields

    @property
    def cookies(self):
        found = {}
        for pair in self.headers.get("cookie", "").split(";"):
            name, equals, value = pair.strip().partition("=")
            if equals:
                found.setdefault(name, value.strip('"'))
        return found


cdef Request request_new(App *a, const Conn *c):
    cdef HttpRequest *r = &a.request
    cdef Slice last = r.fields[r.count - 1].value
    cdef char[MAX_PEER_TEXT] peer
    cdef Request request = Request.__new__(Request)
    conn_peer(a.r, c, peer)
    request.remote = "" if peer[0] == c'-' else peer.decode()
    request.path = a.path[:http_unescape(r.path, a.path)].decode("utf-8", "replace")
    request.query = "" if r.query.n == 0 else r.query.at[:r.query.n].decode("latin-1")
    request.head = r.fields[0].name.at[:last.at + last.n - r.fields[0].name.at]
    return request


cdef void *py_upgrade(App *a, Conn *c, Route *route, Slice *protocol) noexcept nogil:
    """Asks the handler. A new WebSocket with a reference for the connection, or NULL: then an answer is written.

    protocol: the subprotocol that was negotiated; what the handler chooses in its place.
    """
    with gil:
        try:
            return websocket_new(a, c, route, protocol)
        except BaseException as error:
            py_raised(a, error, "on_upgrade")
            answer_status(a, c, 500, b"")
            return NULL


cdef void *websocket_new(App *a, Conn *c, Route *route, Slice *protocol) except? NULL:
    cdef WebSocket ws = WebSocket.__new__(WebSocket, <Site>a.site, <Handler>route.handler)
    cdef Py_ssize_t n
    cdef const char *text
    ws.request = request_new(a, c)
    verdict = None if ws.handler.on_upgrade is None else ws.handler.on_upgrade(ws.request)
    if isinstance(verdict, Reject):
        py_reject(a, c, verdict)
        return NULL
    if verdict is None:
        ws.subprotocol = protocol.at[:protocol.n].decode() if protocol.n else None
    elif isinstance(verdict, str) and verdict in ws.request.headers.get("sec-websocket-protocol", "").replace(",", " ").split():
        ws.subprotocol = verdict
    else:
        raise TypeError(f"on_upgrade returned {verdict!r}: not None, c1m.Reject or a subprotocol that the client offers")
    if ws.subprotocol is not None:
        text = PyUnicode_AsUTF8AndSize(ws.subprotocol, &n)
        protocol[0] = Slice(<const uint8_t *>text, n)
    ws.route = route
    ws.handle = handle_of(a.r, c)
    ws.code = WS_ABNORMAL
    ws.queued = ws.handler.queued
    Py_INCREF(ws)
    return <void *>ws


cdef py_reject(App *a, Conn *c, verdict):
    cdef bytes fields = verdict.fields, body = verdict.body
    cdef uint8_t *to
    if not 400 <= verdict.status <= 599 or len(fields) + len(body) > MAX_REJECT:
        raise ValueError("a Reject was changed after it was made")
    to = head_begin(a, c, verdict.status, len(fields) + len(body))
    to = put(to, <const uint8_t *>fields, len(fields))
    head_end(a, put(put_length(a, to, len(body)), <const uint8_t *>body, len(body)))


cdef void py_opened(App *a, Conn *c, Codec *codec) noexcept nogil:
    with gil:
        ws = <WebSocket>c.cold
        ws.codec = codec
        ws.open = True
        if ws.handler.on_open is not None:
            py_call(a, c, ws, ws.handler.on_open, ())


cdef void py_message(App *a, Conn *c, uint8_t opcode, const uint8_t *bytes, size_t n) noexcept nogil:
    """A whole message for the handler: str for text, which is known to be UTF-8, bytes for binary."""
    with gil:
        ws = <WebSocket>c.cold
        a.messages += 1
        if ws.handler.on_message is None:
            return
        try:
            if opcode == WS_TEXT:
                message = PyUnicode_DecodeUTF8(<const char *>bytes, n, NULL)
            else:
                message = PyBytes_FromStringAndSize(<const char *>bytes, n)
            if ws.queued:
                ws.handler.spawn(ws, ws.handler.on_message, (message,))
            else:
                py_returned(ws, ws.handler.on_message(ws, message))
        except BaseException as error:
            py_failed(a, c, ws, error)


cdef void py_waited(Conn *c) noexcept nogil:
    """Few enough of its messages wait for whoever awaited send()."""
    with gil:
        c.flags &= ~WANTS_DRAIN
        waiters_wake(<WebSocket>c.cold)


cdef void py_hold(App *a, Conn *c) noexcept nogil:
    with gil:
        conn_hold(a.r, c, (<WebSocket>c.cold).holds and c.state != WEBSOCKET_CLOSING)


cdef void py_drained(App *a, Conn *c) noexcept nogil:
    with gil:
        ws = <WebSocket>c.cold
        c.flags &= ~WANTS_DRAIN
        waiters_wake(ws)
        if ws.handler.on_drain is not None and c.state != WEBSOCKET_CLOSING:
            py_call(a, c, ws, ws.handler.on_drain, ())


cdef void py_close_came(Conn *c, uint16_t code, const uint8_t *payload, size_t n) noexcept nogil:
    """Notes what the peer's Close says."""
    with gil:
        ws = <WebSocket>c.cold
        ws.clean = c.state != WEBSOCKET_CLOSING
        try:
            ws.code = code
            ws.reason = payload[2:n].decode() if n > 2 else ""
        except BaseException:
            ws.reason = ""


cdef void py_closing(App *a, Conn *c, int code, const uint8_t *reason, size_t n) noexcept nogil:
    """Notes what our Close says, for on_close; the peer's, where one comes, counts more."""
    if route_of(a, c).handler == NULL:
        return
    with gil:
        ws = <WebSocket>c.cold
        if ws.code == WS_ABNORMAL:
            ws.code = code
            ws.reason = PyUnicode_DecodeUTF8(<const char *>reason, n, NULL) if n else ""


cdef void py_closed(App *a, Conn *c) noexcept nogil:
    """The connection is gone: the handler hears of it, and the WebSocket is nobody's but the user's."""
    with gil:
        ws = <WebSocket>c.cold
        topics_leave(&a.topics, <uint32_t>ws.handle)
        c.cold = NULL
        ws.handle = 0
        block_unref(ws.message)
        codec_free(ws.codec)
        ws.message, ws.codec = NULL, NULL
        waiters_wake(ws)
        if ws.open and (ws.handler.on_close is not None or ws.queued):
            try:
                if ws.queued:
                    ws.handler.spawn(ws, ws.handler.on_close, (<int>ws.code, ws.reason or ""))
                else:
                    py_returned(ws, ws.handler.on_close(ws, <int>ws.code, ws.reason or ""))
            except Closed:
                pass             # as in py_failed
            except BaseException as error:
                py_raised(a, error, "on_close")
        Py_DECREF(ws)


cdef py_call(App *a, Conn *c, WebSocket ws, function, tuple arguments):
    """Calls a handler's method."""
    try:
        if ws.queued:
            ws.handler.spawn(ws, function, arguments)
        else:
            py_returned(ws, function(ws, *arguments))
    except BaseException as error:
        py_failed(a, c, ws, error)


cdef inline py_returned(WebSocket ws, result):
    """A plain method returned something. An awaitable makes it, and all that follow, calls of coroutine functions."""
    if result is None or result is SENT or not isawaitable(result):
        return
    if ws.handler.spawn is None:
        if iscoroutine(result):
            result.close()
        raise TypeError(f"a handler returned {result!r}, which is awaited under `async with server` only")
    ws.queued = True
    ws.handler.spawn(ws, _returned, (result,))


def _returned(ws, result):
    return result


cdef py_failed(App *a, Conn *c, WebSocket ws, error):
    """A handler raised: its connection closes with 1011, and no other."""
    if isinstance(error, Closed) and (c == NULL or c.state == WEBSOCKET_CLOSING or conn_ending(c)):
        return                   # it need not know that its connection has ended: this tells it to end, too
    ws.clean = False
    py_raised(a, error, "WebSocket handler")
    if c == NULL:
        return
    close_post(a, c, WS_INTERNAL_ERROR, NULL, 0)
    conn_finish(a.r, c, True)


cdef py_raised(App *a, error, where):
    """Logs what a handler raised; what is meant to end the program ends the server, and run() raises it."""
    site = <Site>a.site
    if isinstance(error, (KeyboardInterrupt, SystemExit)):
        site.raised = error
        site.stop()
    else:
        py_log(logging.ERROR, f"{where} raised", error)


cdef py_log(int level, message, error=None):
    try:
        log.log(level, "%s", message, exc_info=error)
    except BaseException:
        pass                     # a log handler that fails must not stop the server


cdef waiters_wake(WebSocket ws):
    waiters, ws.waiters = ws.waiters, None
    for waiter in list(waiters or ()):
        if not waiter.done():
            waiter.set_result(None)


cdef Block **message_of(App *a, Conn *c) noexcept nogil:
    """Where the message that a visitor is sending is put together."""
    if route_of(a, c).handler == NULL:
        return &(<Codec *>c.cold).message if c.extra & OWN_STREAMS else <Block **>&c.cold
    with gil:                    # held already: see ws_readable
        return &(<WebSocket>c.cold).message


cdef Codec *codec_of(App *a, Conn *c) noexcept nogil:
    """A visitor's own streams, or NULL."""
    if not c.extra & OWN_STREAMS:
        return NULL
    if route_of(a, c).handler == NULL:
        return <Codec *>c.cold
    with gil:
        return (<WebSocket>c.cold).codec


cdef Subscriber *subscriber_of(void *context, uint32_t who) noexcept nogil:
    with gil:                    # likewise: topics change under the GIL only
        return &(<WebSocket>(<App *>context).r.table[who].cold).subscriber


cdef void site_note(void *app, int what) noexcept nogil:
    with gil:
        if what == NOTE_FULL:
            py_log(logging.ERROR, "out of file descriptors: no new connections until one closes (raise `ulimit -n`)")
        else:
            py_log(logging.INFO, "accepting new connections again")


cdef void answer_listing(App *a, Conn *c, Slice path) noexcept nogil:
    """A directory without an index, as a page or as JSON."""
    cdef int directory = files_directory(&a.files, a.answer.mount.root, path_below(a.answer.mount, path))
    cdef int root = -1 if a.files.roots[a.answer.mount.root].follow_symlinks else a.files.roots[a.answer.mount.root].dir
    cdef Block *page = NULL
    cdef uint8_t *to
    cdef int fault = 0
    cdef bint json = http_accepts(&a.request, b"application/json") > http_accepts(&a.request, b"text/html")
    a.answer.by_accept = True
    if directory >= 0:
        with gil:
            try:
                text = (<Site>a.site).listing(directory, root, path.at[:path.n], json, a.r.now_ms)
                page = block_copy(<const uint8_t *><bytes>text, len(text))
            except BaseException as error:
                fault = (error.errno or 0) if isinstance(error, OSError) else 0
                if fault != EMFILE and fault != ENFILE:
                    py_raised(a, error, "a directory's listing")
        close(directory)
        if page == NULL:
            answer_status(a, c, 503 if fault == EMFILE or fault == ENFILE else 500, b"")
            return
    elif directory == -EMFILE or directory == -ENFILE or directory == -ENOMEM:
        answer_status(a, c, 503, b"")
        return
    if page == NULL:
        answer_absent(a, c, path)
        return
    to = head_begin(a, c, 200, 0)
    to = put_text(to, b"Content-Type: application/json\r\n" if json else b"Content-Type: text/html; charset=utf-8\r\n")
    to = put_text(to, b"Cache-Control: no-cache\r\n")
    head_end(a, put_length(a, put(to, a.answer.mount.fields.at, a.answer.mount.fields.n), page.size))
    if a.request.method == GET:
        conn_send(a.r, c, page, 0, page.size)
    block_unref(page)


# ---- a WebSocket as its handler sees it ----

cdef class Sent:
    """What send() returns where there is nothing to wait for: awaiting it is done at once."""

    def __await__(self):
        return iter(())


cdef Sent SENT = Sent()


cdef Block *frame_of(uint8_t opcode, message) except NULL:
    """A frame that holds a str or any bytes-like object; opcode 0: text or binary, as the object has it."""
    cdef Py_buffer view
    cdef Py_ssize_t n
    cdef const char *text
    cdef Block *frame
    if isinstance(message, str):
        text = PyUnicode_AsUTF8AndSize(message, &n)
        frame = frame_new(opcode or <uint8_t>WS_TEXT, text, n)
    else:
        buffer_of(message, &view)
        frame = frame_new(opcode or <uint8_t>WS_BINARY, view.buf, view.len)
        PyBuffer_Release(&view)
    if frame == NULL:
        raise MemoryError
    return frame


cdef buffer_of(message, Py_buffer *view):
    try:
        PyObject_GetBuffer(message, view, PyBUF_SIMPLE)
    except TypeError:
        raise TypeError(f"message: {type(message).__name__} is neither str nor bytes-like") from None
    except BufferError:
        raise TypeError(f"message: a {type(message).__name__} that is not contiguous: send bytes(it)") from None


cdef Block *name_of(topic) except NULL:
    """A topic's name, as bytes of UTF-8."""
    cdef Block *name
    if not isinstance(topic, str):
        raise TypeError(f"topic: {topic!r} is not a str")
    encoded = topic.encode()
    name = block_copy(<const uint8_t *><bytes>encoded, len(encoded))
    if name == NULL:
        raise MemoryError
    return name


cdef class WebSocket:
    """A client's WebSocket, as handlers get it. send, ping, close, publish and the rest may be called from any thread.

    request (Request): what the client asked for. subprotocol (str or None): what was agreed on. data: yours.
    """

    def __cinit__(self, Site site=None, Handler handler=None):
        if site is None or handler is None:
            raise TypeError("a WebSocket is made by the server")
        self.site, self.handler = site, handler

    def __repr__(self):
        return f"<c1m.WebSocket {self.path} of {self.remote or 'a local client'}{', closed' if self.closed else ''}>"

    # -- sending --

    def send(self, message):
        """Sends a message: a str as text, anything bytes-like as binary. All that is sent in a turn leaves in one system call.

        Returns an awaitable that is done when at most half of max_backlog waits for the client to read it; only
        coroutines need to await it. Raises Closed, TypeError for what is no message, UnicodeEncodeError for a str with
        lone surrogates.
        """
        cdef Reactor *r = self.site.app.r
        cdef Conn *c
        cdef Block *frame
        cdef Py_buffer view
        cdef Py_ssize_t n
        cdef const char *text
        if not reactor_is_here(r):
            if self.handle == 0:
                raise Closed("this WebSocket is closed")
            self.ask(COMMAND_SEND, NULL, frame_of(0, message))
            return SENT
        c = self.conn()
        # In the visit whose input it answers, a message goes where the visit's other answers are.
        if r.visited == c and c.output == NULL and c.extra == 0:
            if isinstance(message, str):
                text = PyUnicode_AsUTF8AndSize(message, &n)
                if n <= OUTBOX // 2:
                    outbox_write(r, c, WS_TEXT, text, n)
                    return SENT
            else:
                buffer_of(message, &view)
                if view.len <= OUTBOX // 2:
                    outbox_write(r, c, WS_BINARY, view.buf, view.len)
                    PyBuffer_Release(&view)
                    return SENT
                PyBuffer_Release(&view)
        frame = frame_of(0, message)
        with nogil:
            frame_send(&self.site.app, c, frame, TAG_MESSAGE)
            block_unref(frame)
        if self.handler.waiter is None or conn_backlog(c) <= self.route.max_backlog // 2:
            return SENT
        waiter = self.handler.waiter()
        if self.waiters is None:
            self.waiters = WeakSet()
        self.waiters.add(waiter)
        c.flags |= WANTS_DRAIN
        return waiter

    def ping(self, data=b""):
        """Sends a ping with up to 125 bytes (RFC 6455 section 5.5.2); its pong is taken note of and no more. Raises Closed, ValueError."""
        cdef Block *frame
        cdef Conn *c
        if isinstance(data, str):
            data = data.encode()
        n = memoryview(data).nbytes         # len() counts the items of an array, whatever their size
        if n > WS_MAX_CONTROL:
            raise ValueError(f"data: {n} bytes are more than the {<int>WS_MAX_CONTROL} that a ping holds")
        if self.handle == 0:
            raise Closed("this WebSocket is closed")
        if not reactor_is_here(self.site.app.r):
            self.ask(COMMAND_PING, NULL, frame_of(WS_PING, data))
            return
        c = self.conn()
        frame = frame_of(WS_PING, data)
        conn_post(self.site.app.r, c, frame, 0, frame.size, 0)
        block_unref(frame)

    def close(self, int code=1000, str reason not None=""):
        """Sends a Close frame (RFC 6455 section 5.5.1), once; the client has 10 seconds to answer with its own.

        code: 1000 to 1003, 1007 to 1014, or 3000 to 4999. reason: up to 123 bytes of UTF-8. Raises ValueError.
        """
        cdef bytes text = reason.encode()
        cdef Block *payload
        cdef Conn *c
        if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
            raise ValueError(f"code: {code} is not a close code that may be sent (RFC 6455 section 7.4)")
        if len(text) > WS_MAX_CONTROL - 2:
            raise ValueError(f"reason: {len(text)} bytes are more than the {WS_MAX_CONTROL - 2} that a close frame holds")
        if self.handle == 0:
            return
        if reactor_is_here(self.site.app.r):
            c = conn_of(self.site.app.r, self.handle)
            if c != NULL:
                close_post(&self.site.app, c, code, <const uint8_t *>text, len(text))
            return
        payload = block_new(2 + len(text))
        if payload == NULL:
            raise MemoryError
        store_be16(payload.data, code)
        memcpy(payload.data + 2, <const uint8_t *>text, len(text))
        payload.size = 2 + len(text)
        self.ask(COMMAND_CLOSE, NULL, payload)

    # -- topics --

    def subscribe(self, topic):
        """From now on gets what is published to a topic (a str). Twice is once. Raises Closed, TypeError."""
        self.subscription(COMMAND_SUBSCRIBE, topic)

    def unsubscribe(self, topic):
        """Gets it no longer. Raises Closed, TypeError."""
        self.subscription(COMMAND_UNSUBSCRIBE, topic)

    def publish(self, topic, message):
        """Sends a message to all who are subscribed to a topic but this one. Raises Closed, TypeError."""
        if self.handle == 0:
            raise Closed("this WebSocket is closed")
        self.site.publish_from(topic, message, self.handle)

    # -- input --

    def pause(self):
        """Takes no more input from the client, until resume(). What it has sent waits, and then the client does."""
        self.hold(1, True)

    def resume(self):
        """Takes input again."""
        self.hold(1, False)

    def _hold(self, bint held):
        """pause() and resume() for whoever runs the handler's coroutines."""
        self.hold(2, held)

    def _fail(self, error):
        """A coroutine of the handler raised."""
        py_failed(&self.site.app, conn_of(self.site.app.r, self.handle) if self.handle else NULL, self, error)

    @property
    def _over(self):
        """Whether what waits for the handler is not to come to it any more."""
        cdef Conn *c = conn_of(self.site.app.r, self.handle) if self.handle else NULL
        return not self.clean and (c == NULL or c.state == WEBSOCKET_CLOSING or conn_ending(c))

    # -- about it --

    @property
    def path(self):
        return self.request.path

    @property
    def query(self):
        return self.request.query

    @property
    def headers(self):
        return self.request.headers

    @property
    def remote(self):
        return self.request.remote

    @property
    def closed(self):
        """Whether the connection has gone."""
        return self.handle == 0

    @property
    def buffered(self):
        """Bytes that wait for the client to read them, beside those the kernel holds."""
        cdef Conn *c = conn_of(self.site.app.r, self.handle) if self.handle else NULL
        return 0 if c == NULL else conn_unsent(c)

    # -- underneath --

    cdef Conn *conn(self) except NULL:
        """The connection, on the reactor's thread; Closed if nothing can be sent on it."""
        cdef Conn *c = conn_of(self.site.app.r, self.handle) if self.handle else NULL
        if c == NULL or c.state == WEBSOCKET_CLOSING or conn_ending(c):
            raise Closed("this WebSocket is closed")
        return c

    cdef ask(self, CommandKind kind, Block *topic, Block *frame):
        """Has the reactor's thread do it. The blocks are taken over."""
        if not command_add(&self.site.app, kind, self.handle, topic, frame):
            raise MemoryError
        if self.site.app.command_bytes > MAX_COMMAND_BYTES:
            with nogil:
                commands_wait(&self.site.app)

    cdef subscription(self, CommandKind kind, topic):
        cdef Block *name
        cdef Slice slice
        cdef bint ok = True
        if self.handle == 0:
            raise Closed("this WebSocket is closed")
        name = name_of(topic)
        if not reactor_is_here(self.site.app.r):
            self.ask(kind, name, NULL)
            return
        slice = Slice(&name.data[0], name.size)
        if conn_of(self.site.app.r, self.handle) != NULL:
            if kind == COMMAND_SUBSCRIBE:
                ok = topics_subscribe(&self.site.app.topics, <uint32_t>self.handle, slice)
            else:
                topics_unsubscribe(&self.site.app.topics, <uint32_t>self.handle, slice)
        block_unref(name)
        if not ok:
            raise MemoryError

    cdef hold(self, uint8_t who, bint held):
        """Reads no further while anyone wants it so."""
        cdef uint8_t before = self.holds
        cdef Conn *c
        self.holds = before | who if held else before & ~who
        if (before == 0) == (self.holds == 0) or self.handle == 0:
            return
        if not reactor_is_here(self.site.app.r):
            self.ask(COMMAND_HOLD, NULL, NULL)
            return
        c = conn_of(self.site.app.r, self.handle)
        if c != NULL:
            conn_hold(self.site.app.r, c, held and c.state != WEBSOCKET_CLOSING)


cdef inline void outbox_write(Reactor *r, Conn *c, uint8_t opcode, const void *bytes, size_t n) noexcept:
    """A frame among the answers of the visit."""
    cdef uint8_t *to = conn_room(r, c, WS_MAX_HEADER + n)
    cdef size_t head = ws_head(to, opcode, n)
    memcpy(to + head, bytes, n)
    conn_wrote(r, head + n)


cdef class Handler:

    def __init__(self, *, on_upgrade=None, on_open=None, on_message=None, on_drain=None, on_close=None, bint queued=False):
        self.on_upgrade, self.on_open, self.on_message, self.on_drain, self.on_close = on_upgrade, on_open, on_message, on_drain, on_close
        self.queued = queued


# ---- the site as Python sees it ----

cdef class Site(Loop):
    """Document roots and WebSocket routes on a reactor.

    write_timeout_ms, head_timeout_ms, keep_alive_timeout_ms: how long, in milliseconds, queued output may stall, a
    request may take to come whole, a connection may idle between requests. cache_files, cache_bytes: bounds of the
    cache. mime_types: media types by extension without its dot, as bytes.
    listing: makes the page that lists a directory, as c1m.listing.Listings.page does.
    Raises MemoryError, OSError.
    """

    def __cinit__(self, *, int64_t write_timeout_ms, int64_t head_timeout_ms, int64_t keep_alive_timeout_ms,
                  int cache_files, size_t cache_bytes, dict mime_types, listing):
        cdef App *a = &self.app
        self.kept = []
        self.listing = listing
        memset(a, 0, sizeof(App))
        a.r = &self.r
        a.site = <void *>self
        if not files_init(&a.files, cache_files, cache_bytes):
            raise MemoryError
        a.files.default_type = Slice(b"application/octet-stream", 24)
        for extension, name in mime_types.items():
            self.kept.append((extension, name))
            if not files_type(&a.files, Slice(<bytes>extension, len(extension)), Slice(<bytes>name, len(name))):
                raise ValueError("too many media types")
        a.head_timer = timer_for(a.r, head_timeout_ms)
        a.keep_timer = timer_for(a.r, keep_alive_timeout_ms)
        a.close_timer = timer_for(a.r, CLOSE_MS)
        a.forget_timer = timer_for(a.r, FORGET_MS)
        pthread_mutex_init(&a.lock, NULL)
        if not topics_init(&a.topics, subscriber_of, a):
            raise MemoryError
        a.r.app = a
        a.r.on = Upcalls(site_opened, site_readable, site_drained, site_expired, site_leaving, site_closed, site_note, site_woken, site_alarm)

    def log_to_memory(self, bint as_json):
        """Keeps an access log from now on, for log_take() to take away. Raises MemoryError."""
        self.keep_peers()
        if self.app.log == NULL:
            self.app.log = log_new(as_json)
        if self.app.log == NULL:
            raise MemoryError

    def log_take(self):
        """The lines of the access log since the last call, as bytes. Any thread may call it."""
        return b"" if self.app.log == NULL else log_take(self.app.log)

    def log_lost(self, uint64_t lines):
        """Counts lines that log_take() has given and nobody will see. Any thread may call it."""
        if self.app.log != NULL:
            log_lost(self.app.log, lines)

    def __dealloc__(self):
        cdef int i, bits
        cdef Command *command
        reactor_close_all(&self.r)
        files_free(&self.app.files)
        for i in range(self.app.mounts_n):
            free(self.app.mounts[i])
        for i in range(self.app.routes_n):
            for bits in range(MAX_WINDOW_BITS + 1):
                if self.app.routes[i].deflaters[bits] != NULL:
                    deflater_free(self.app.routes[i].deflaters[bits])
            free(self.app.routes[i])
        if self.app.inflater != NULL:
            inflater_free(self.app.inflater)
        topics_free(&self.app.topics)
        while self.app.first_command != NULL:
            command = self.app.first_command
            self.app.first_command = command.next
            command_free(&self.app, command)
        pthread_mutex_destroy(&self.app.lock)
        log_free(self.app.log)

    def mount(self, bytes host, bytes prefix, path, *, index, cache, headers, cors,
              bint listing, bint spa, bint sidecars, bint follow_symlinks):
        """Serves a directory below a URL prefix ("" or "/assets"), on a host or, if that is empty, on any.

        index: names that stand for their directory. cache: (pattern, value of Cache-Control) pairs. headers: whole
        header lines. cors: origins that may read the answers, b"*" for any. The rest as c1m.Root has it. Raises OSError, ValueError.
        """
        cdef App *a = &self.app
        cdef Mount *m
        cdef int at, root
        if a.mounts_n == MAX_MOUNTS or len(cache) > MAX_CACHE_RULES or len(cors) > MAX_ORIGINS:
            raise ValueError(f"more than {MAX_MOUNTS} roots, {MAX_CACHE_RULES} cache patterns or {MAX_ORIGINS} origins")
        root = files_root(&a.files, os.fsencode(path), follow_symlinks)
        if root < 0:
            raise OSError(-root, os.strerror(-root), str(path))
        index = [os.fsencode(name) for name in index]
        for name in index:
            if not files_index(&a.files, root, Slice(<bytes>name, len(name))):
                raise ValueError("too many index names, or one that is too long")
        self.kept.append((host, prefix, index, cache, headers, cors))
        reactor_alarm(a.r, a.forget_timer)
        m = <Mount *>calloc(1, sizeof(Mount))
        if m == NULL:
            raise MemoryError
        m.host = Slice(host, len(host))
        m.prefix = Slice(prefix, len(prefix))
        m.root = root
        m.listing, m.single_page, m.sidecars = listing, spa, sidecars
        m.fields = Slice(<bytes>headers, len(headers))
        m.room = m.fields.n + max([len(value) for _, value in cache], default=0) + max(map(len, cors), default=0)
        for pattern, value in cache:
            m.rules[m.rules_n] = CacheRule(<bytes>pattern, Slice(<bytes>value, len(value)))
            m.rules_n += 1
        m.any_origin = b"*" in cors
        for origin in [] if m.any_origin else cors:
            m.origins[m.origins_n] = Slice(<bytes>origin, len(origin))
            m.origins_n += 1
        at = a.mounts_n
        while at > 0 and (a.mounts[at - 1].host.n != 0, a.mounts[at - 1].prefix.n) < (m.host.n != 0, m.prefix.n):
            a.mounts[at] = a.mounts[at - 1]
            at -= 1
        a.mounts[at] = m
        a.mounts_n += 1

    def route(self, bytes path, Handler handler, *, uint32_t max_message, int64_t idle_timeout_ms,
              int64_t ping_interval_ms, size_t max_send_queue, int when_slow, origins, subprotocols, int compression, int window_bits, int memory_level):
        """Speaks WebSocket at a path, for a handler, or, where that is None, sending every message back.

        ping_interval_ms of silence bring a ping, idle_timeout_ms the end. when_slow: a Slow. compression: a Compression. Raises ValueError.
        """
        cdef App *a = &self.app
        cdef uint8_t[28] accepted
        cdef uint8_t ping = timer_for(a.r, ping_interval_ms)
        cdef uint8_t pong = timer_for(a.r, idle_timeout_ms - ping_interval_ms)
        cdef Route *route
        if a.routes_n == MAX_ROUTES or len(origins) > MAX_ORIGINS or len(subprotocols) > MAX_PROTOCOLS:
            raise ValueError(f"more than {MAX_ROUTES} WebSocket routes, {MAX_ORIGINS} origins or {MAX_PROTOCOLS} subprotocols")
        if not ping or not pong:
            raise ValueError("too many different timeouts")
        if handler is not None:
            self.keep_peers()
        route = <Route *>calloc(1, sizeof(Route))
        if route == NULL:
            raise MemoryError
        # OpenSSL loads and sets up some 2 MB at its first hash: not while a visitor waits.
        ws_accept(b"dGhlIHNhbXBsZSBub25jZQ==", accepted)
        self.kept.append((path, handler, origins, subprotocols))
        route.path = Slice(path, len(path))
        route.handler = NULL if handler is None else <void *>handler
        route.max_message, route.ping_timer, route.pong_timer = max_message, ping, pong
        route.max_backlog, route.when_slow = max_send_queue, when_slow
        route.compression = compression
        route.deflate = DeflateSettings(compression == SHARED_COMPRESSION, when_slow != SLOW_CLOSE, window_bits, memory_level, DEFLATE_LEVEL)
        for origin in origins:
            route.origins[route.origins_n] = Slice(<bytes>origin, len(origin))
            route.origins_n += 1
        for protocol in subprotocols:
            route.protocols[route.protocols_n] = Slice(<bytes>protocol, len(protocol))
            route.protocols_n += 1
        a.routes[a.routes_n] = route
        a.routes_n += 1

    def publish(self, topic, message):
        """Sends a message to all who are subscribed to a topic. Any thread may."""
        self.publish_from(topic, message, 0)

    cdef publish_from(self, topic, message, uint64_t sender):
        cdef Block *name = name_of(topic)
        cdef Block *frame
        try:
            frame = frame_of(0, message)
        except BaseException:
            block_unref(name)
            raise
        if reactor_is_here(self.app.r):
            with nogil:
                publish(&self.app, Slice(&name.data[0], name.size), frame, sender)
                block_unref(name)
                block_unref(frame)
        elif not command_add(&self.app, COMMAND_PUBLISH, sender, name, frame):
            raise MemoryError
        elif self.app.command_bytes > MAX_COMMAND_BYTES:
            with nogil:
                commands_wait(&self.app)

    def subscribers(self, topic):
        """How many are subscribed to a topic. Any thread may ask."""
        cdef Block *name = name_of(topic)
        cdef Topic *found = topics_find(&self.app.topics, Slice(&name.data[0], name.size))
        block_unref(name)
        return 0 if found == NULL else found.count

    def run(self):
        super().run()
        self.reraise()

    def reraise(self):
        """Raises what a handler raised to end it all, once."""
        raised, self.raised = self.raised, None
        if raised is not None:
            raise raised

    def counters(self):
        """Every counter, as a dict; sums since the start but for `connections` and `websockets`, which are now."""
        cdef App *a = &self.app
        return super().counters() | {
            "requests": a.requests,
            "answers": {f"{i}xx": a.answers[i] for i in range(1, 6)},
            "websockets": a.websockets,
            "upgrades": a.upgrades,
            "messages": a.messages,
            "cached_files": a.files.count,
            "cached_bytes": a.files.bytes,
            "cache_hits": a.files.hits,
            "cache_misses": a.files.misses,
            "routes": {
                a.routes[i].path.at[:a.routes[i].path.n].decode(): {
                    "dropped": a.routes[i].dropped, "closed_slow": a.routes[i].closed_slow,
                }
                for i in range(a.routes_n)
            },
            "topics": a.topics.count,
            "log_lines_dropped": 0 if a.log == NULL else a.log.dropped,
        }
