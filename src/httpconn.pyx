"""An HTTP/1.1 connection of a server: requests in, responses out, one after another.

Owns: pipelining, keep-alive and its deadlines, which methods are allowed, and whom a request is passed to.
Refuses to know: how a file or a WebSocket is served, Python.

No request is taken up while an earlier response is still queued: the reactor then reads the connection no further until
its output has been sent.

Invariants: only `upgrade` leads out of HTTP. Conn.session is NULL, but while a body that is to be logged is being sent:
then it is the log's Line.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memcmp

from c1m.buf cimport Slice
from c1m.handshake cimport Handshake, handshake_check, handshake_head
from c1m.http cimport (
    AT_HEAD, CHUNKED, EXPECT_CONTINUE, EXPECT_UNKNOWN, GET, HEAD, HTTP_BODY, HTTP_FAIL, HTTP_MORE, KEEP_ALIVE, OPTIONS,
    UNKNOWN_METHOD, WANTS_WEBSOCKET, HttpParser, HttpRequest, http_has_escaped_slash, http_next,
    http_resolve,
)
from c1m.reactor cimport (
    Conn, Protocol, Reactor, conn_deadline, conn_ending, conn_finish, conn_reserve, protocol_add,
)
from c1m.response cimport (
    MAX_HEAD, Exchange, exchange_begin, exchange_done, exchange_log, head_count, head_end, respond_failure,
    respond_not_allowed, respond_options, respond_status, respond_upgrade_required,
)
from c1m.static cimport (
    STATIC_ABSENT, STATIC_LISTING, Mount, Static, StaticResult, mount_find, static_absent, static_respond,
)
from c1m.wsconn cimport WsServer, wsconn_open, wsconn_readable, wsconn_shutdown


cdef void http_server_init(
    HttpServer *h, Reactor *r, HttpCounts *counts, Static *files, WsServer *ws
) noexcept nogil:
    """Adds the protocol to a reactor; h is all zeroes."""
    h.r = h.out.r = r
    h.out.counts, h.files, h.ws = counts, files, ws
    protocol_add(r, Protocol(
        owner=h, opened=httpconn_opened, readable=httpconn_readable, drained=httpconn_drained,
        expired=httpconn_expired, shutdown=httpconn_shutdown, closed=httpconn_closed, failed=NULL,
        reads_while_writing=False,
    ))


cdef inline HttpParser *parser_of(Conn *c) noexcept nogil:
    return <HttpParser *>c.parser


cdef inline bint is_idle(Conn *c) noexcept nogil:
    """Whether no byte of a request has come that is not dealt with."""
    return parser_of(c).scanned == 0 and parser_of(c).phase == AT_HEAD


# ---- a connection's life ----

cdef void httpconn_opened(void *owner, Conn *c) noexcept nogil:
    cdef HttpServer *h = <HttpServer *>owner
    conn_deadline(h.r, c, h.head_timeout)


cdef size_t httpconn_readable(void *owner, Conn *c, uint8_t *bytes, size_t n) noexcept nogil:
    """Responds to the requests in bytes[:n]; returns how many bytes they were."""
    cdef HttpServer *h = <HttpServer *>owner
    cdef HttpParser *parser = parser_of(c)
    cdef bint begun = not is_idle(c)
    cdef bint moved = begun      # whether there was more than empty lines
    cdef size_t used = 0
    while c.output == NULL:
        used += http_next(parser, bytes + used, n - used, &h.request)
        if h.request.kind == HTTP_MORE:
            break
        if h.request.kind == HTTP_BODY:
            continue             # no route here takes one
        if h.request.kind == HTTP_FAIL:
            if parser.phase == AT_HEAD:
                fail(h, c, h.request.status)
            else:
                conn_finish(h.r, c, True)       # the request whose body this is has its response
            return n
        begun = False
        moved = True
        respond(h, c)
        if conn_ending(c):
            if used < n:
                conn_finish(h.r, c, True)       # more came behind the last request, and more of it may be on its way
            return n
        if c.protocol == h.ws.protocol:
            return used + wsconn_readable(h.ws, c, bytes + used, n - used)
    if c.output != NULL:
        return used
    if not is_idle(c):
        # Set once a request: the clock runs from its first byte to its last, however they trickle in.
        if not begun or c.timeout != h.head_timeout:
            conn_deadline(h.r, c, h.head_timeout)
    elif h.r.shutting_down:
        conn_finish(h.r, c, False)
    elif moved:
        conn_deadline(h.r, c, h.keep_alive_timeout)
    return used


cdef void httpconn_drained(void *owner, Conn *c) noexcept nogil:
    cdef HttpServer *h = <HttpServer *>owner
    exchange_done(&h.out, c)
    conn_deadline(h.r, c, h.keep_alive_timeout)  # unless httpconn_readable, which follows, finds a request begun


cdef void httpconn_expired(void *owner, Conn *c) noexcept nogil:
    cdef HttpServer *h = <HttpServer *>owner
    if parser_of(c).phase != AT_HEAD:
        conn_finish(h.r, c, True)               # the rest of a body whose request has its response
    elif c.input == NULL:
        conn_finish(h.r, c, False)              # between requests no response is due
    else:
        parser_of(c).scanned = 0                # read once more, for h.request is another connection's
        http_next(parser_of(c), c.input.data, c.input.size, &h.request)
        fail(h, c, 408)


cdef void httpconn_shutdown(void *owner, Conn *c) noexcept nogil:
    if c.input == NULL and c.output == NULL and parser_of(c).phase == AT_HEAD:
        conn_finish((<HttpServer *>owner).r, c, False)


cdef void httpconn_closed(void *owner, Conn *c) noexcept nogil:
    exchange_done(&(<HttpServer *>owner).out, c)


# ---- a request ----

cdef void respond(HttpServer *h, Conn *c) noexcept nogil:
    """Responds to h.request, or upgrades."""
    cdef const HttpRequest *r = &h.request
    cdef Exchange x
    exchange_begin(&x, &h.out, c, r)
    x.keep = r.flags & KEEP_ALIVE and not h.r.shutting_down
    if r.flags & EXPECT_CONTINUE and (r.content_length or r.flags & CHUNKED):
        x.keep = False           # no route takes a body, and the client may or may not send this one now
    if r.plain_path:
        x.path = r.path
    else:
        x.path = Slice(&h.path[0], http_resolve(r.path, h.path))
        if http_has_escaped_slash(r.path) and not takes_escaped_slashes(h, &x):
            x.keep = False
            respond_failure(&x, 400)
            return
    if (r.method == GET or r.method == HEAD) and not r.flags & (EXPECT_UNKNOWN | WANTS_WEBSOCKET):
        respond_get(h, &x)
    else:
        respond_other(h, &x)
    if h.out.log != NULL:
        exchange_log(&x)
    if not x.keep and c.protocol != h.ws.protocol:
        # A client that has not said that it closes may be sending more.
        conn_finish(h.r, c, r.content_length or r.flags & (CHUNKED | KEEP_ALIVE))


cdef bint takes_escaped_slashes(HttpServer *h, Exchange *x) noexcept nogil:
    """Whether a slash in the path may be written as "%2F", which is not the same (RFC 3986 section 2.2): a proxy's
    rules for paths may not have seen it."""
    cdef const Mount *m = mount_find(h.files, x)
    return m != NULL and m.escaped_slashes


cdef inline void respond_get(HttpServer *h, Exchange *x) noexcept nogil:
    """A GET or HEAD: of a file, a listing, or nothing."""
    cdef StaticResult result = static_respond(h.files, x)
    if result == STATIC_LISTING:
        if h.list(h.owner, x, mount_find(h.files, x)):
            return
        result = STATIC_ABSENT
    if result == STATIC_ABSENT:
        if route_at(h.ws, x.path) >= 0:         # WebSocket is spoken here, and nothing else (RFC 9110 section 15.5.22)
            respond_upgrade_required(x)
        else:
            static_absent(h.files, x)


cdef void respond_other(HttpServer *h, Exchange *x) noexcept nogil:
    """Any other request."""
    cdef const HttpRequest *r = x.request
    cdef int route
    mount_find(h.files, x)
    if r.flags & EXPECT_UNKNOWN:
        respond_status(x, 417, b"")
    elif r.method == UNKNOWN_METHOD:
        respond_status(x, 501, b"")
    elif r.method == GET or r.method == HEAD:
        route = route_at(h.ws, x.path) if r.method == GET else -1
        if route >= 0:
            upgrade(h, x, route)
        else:
            respond_get(h, x)
    elif r.method == OPTIONS:
        respond_options(x)
    else:
        respond_not_allowed(x)


cdef void fail(HttpServer *h, Conn *c, int status) noexcept nogil:
    """The last response, to what is no request or does not become one in time."""
    cdef Exchange x
    exchange_begin(&x, &h.out, c, &h.request)
    respond_failure(&x, status)


cdef int route_at(const WsServer *w, Slice path) noexcept nogil:
    """The WebSocket route of this path, or -1."""
    cdef int i
    for i in range(w.routes_n):
        if w.routes[i].path.n == path.n and memcmp(w.routes[i].path.at, path.at, path.n) == 0:
            return i
    return -1


cdef void upgrade(HttpServer *h, Exchange *x, int route) noexcept nogil:
    """The opening handshake: 101, and the connection is a WebSocket; or a response that refuses it."""
    cdef Handshake agreed
    cdef void *object = NULL
    cdef uint8_t *to
    cdef int status = handshake_check(x.request, h.ws.routes[route], &agreed)
    if status == 426:
        respond_upgrade_required(x)
        return
    if status != 101:
        respond_status(x, status, b"")
        return
    if h.ws.routes[route].handler != NULL:
        object = h.upgrade(h.owner, x, h.ws.routes[route], &agreed.protocol)
        if object == NULL:
            return
    if agreed.offered and agreed.protocol.n == 0:
        h.ws.routes[route].counts.no_subprotocol += 1
        if h.ws.routes[route].counts.no_subprotocol == 1:
            h.unagreed(h.owner, x, h.ws.routes[route])
    to = conn_reserve(h.r, x.c, MAX_HEAD + agreed.protocol.n)
    to = handshake_head(to, &agreed)
    head_count(x, 101)
    head_end(x, to)
    wsconn_open(h.ws, x.c, route, &agreed.terms if agreed.compressed else NULL, object)
    if h.r.shutting_down:
        wsconn_shutdown(h.ws, x.c)
