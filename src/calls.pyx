"""The one door into Python: handlers and whatever else C calls there.

Owns: the GIL. It is taken at the first call of a stage of an iteration, and let go of at the stage's end
(Callbacks.release): beside a busy thread it is the taking that takes long, 5 ms each time.
Refuses to know: epoll, byte layouts.

Every function here catches whatever is raised, logs it, and ends that connection with 1011; KeyboardInterrupt and
SystemExit end the server, and run() raises them.
"""

import logging
from inspect import isawaitable, iscoroutine

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport strerror

from c1m.address cimport MAX_ADDRESS_TEXT, Address, address_text
from c1m.buf cimport Block, Slice, block_copy, block_unref, put, put_text
from c1m.files cimport files_broken, files_directory
from c1m.gate cimport Refusal, refusal_name
from c1m.handlers import IN_A_LOOP, Closed, Reject
from c1m.http cimport GET, SEC_WEBSOCKET_PROTOCOL, HttpRequest, value_of
from c1m.linux cimport EMFILE, ENFILE, ENOMEM, close
from c1m.reactor cimport (
    NOTE_FULL, NOTE_NOT_FULL, NOTE_UNREADABLE, NOTIFY_DRAIN, Conn, clock_read, conn_send, handle_of,
)
from c1m.response cimport exchange_client, head_begin, head_end, put_length, respond_status
from c1m.semantics cimport http_accepts, http_precondition
from c1m.static cimport path_below
from c1m.websocket cimport Application, Handler, Request, Sent, WebSocket, lost_line
from c1m.ws cimport WS_TEXT
from c1m.wsconn cimport WS_CLOSING, WsConn, message_t, wsconn_of
from c1m.pubsub cimport hub_leave

cdef extern from "Python.h":
    ctypedef int PyGILState_STATE
    PyGILState_STATE PyGILState_Ensure() noexcept nogil
    void PyGILState_Release(PyGILState_STATE state) noexcept nogil

cdef enum:
    LISTING_ETAG = 34            # bytes of one: two quotes, 32 hexadecimal digits
    MAX_REJECT = 16384           # bytes of a Reject's fields and body, more than it takes itself


# ---- the GIL ----

cdef inline void gil_take(Calls *k) noexcept nogil:
    """Comes before each `with gil`, which then costs next to nothing."""
    if not k.held:
        k.ws.r.clock_stale = True        # Python takes what time it likes
        k.state = <int>PyGILState_Ensure()
        k.held = True


cdef void calls_release(Calls *k) noexcept nogil:
    """Lets go of the GIL, where it was taken here."""
    if k.held:
        k.held = False
        clock_read(k.ws.r)
        k.ws.r.clock_stale = not k.ws.r.iterating
        PyGILState_Release(<PyGILState_STATE>k.state)


# ---- the handshake ----

cdef Request request_new(Exchange *x):
    cdef const HttpRequest *r = x.request
    cdef Slice last = r.head.fields[r.head.count - 1].value
    cdef char[MAX_ADDRESS_TEXT] client
    cdef Address told
    cdef Request request = Request.__new__(Request)
    address_text(exchange_client(x, &told), client)
    request.remote = "" if client[0] == c'-' else client.decode()
    request.path = x.path.at[:x.path.n].decode("utf-8", "replace")
    request.query = "" if r.query.n == 0 else r.query.at[:r.query.n].decode("latin-1")
    request.head = r.head.fields[0].name.at[:last.at + last.n - r.head.fields[0].name.at]
    return request


cdef void *call_upgrade(void *owner, Exchange *x, WsRoute *route, Slice *protocol) noexcept nogil:
    """Asks the handler. A new WebSocket with a reference for the connection, or NULL: then a response is written.

    protocol: the subprotocol that was negotiated; what the handler chooses in its place.
    """
    cdef Calls *k = <Calls *>owner
    gil_take(k)
    with gil:
        try:
            return websocket_new(k, x, route, protocol)
        except BaseException as error:
            (<Application>k.app).report(error, "on_upgrade")
            respond_status(x, 500, b"")
            return NULL


cdef void *websocket_new(Calls *k, Exchange *x, WsRoute *route, Slice *protocol) except? NULL:
    cdef WebSocket ws = WebSocket.__new__(WebSocket, <Application>k.app, <Handler>route.handler)
    cdef Py_ssize_t n
    cdef const char *text
    ws.request = request_new(x)
    verdict = None if ws.handler.on_upgrade is None else ws.handler.on_upgrade(ws.request)
    if isinstance(verdict, Reject):
        respond_reject(x, verdict)
        return NULL
    if verdict is None:
        ws.subprotocol = protocol.at[:protocol.n].decode() if protocol.n else None
    elif isinstance(verdict, str) and verdict in offered(ws.request):
        ws.subprotocol = verdict
    else:
        raise TypeError(
            f"on_upgrade returned {verdict!r}: not None, c1m.Reject or a subprotocol that the client offers")
    if ws.subprotocol is not None:
        text = PyUnicode_AsUTF8AndSize(ws.subprotocol, &n)
        protocol[0] = Slice(<const uint8_t *>text, n)
    ws.route = route
    ws.handle = handle_of(x.out.r, x.c)
    ws.queued = ws.handler.queued
    Py_INCREF(ws)
    return <void *>ws


cdef offered(Request request):
    """The subprotocols that the client offers."""
    return request.headers.get("sec-websocket-protocol", "").replace(",", " ").split()


cdef respond_reject(Exchange *x, verdict):
    cdef bytes fields = verdict.fields, body = verdict.body
    cdef uint8_t *to
    if not 400 <= verdict.status <= 599 or len(fields) + len(body) > MAX_REJECT:
        raise ValueError("a Reject was changed after it was made")
    to = head_begin(x, verdict.status, len(fields) + len(body))
    to = put(to, <const uint8_t *>fields, len(fields))
    head_end(x, put(put_length(x, to, len(body)), <const uint8_t *>body, len(body)))


# ---- a WebSocket's life ----

cdef void call_opened(void *owner, Conn *c) noexcept nogil:
    """The handler's WebSocket is open; the reference that call_upgrade gave is the application's from now on."""
    cdef Calls *k = <Calls *>owner
    gil_take(k)
    with gil:
        ws = <WebSocket>wsconn_of(c).object
        try:
            (<Application>k.app).adopt(ws)
            Py_DECREF(ws)
            ws.opened = True
            if ws.handler.on_open is not None:
                call(ws, ws.handler.on_open, ())
        except BaseException as error:
            ws.fail(c, error)


cdef void call_abandoned(void *owner, void *object) noexcept nogil:
    gil_take(<Calls *>owner)
    with gil:
        (<WebSocket>object).handle = 0
        Py_DECREF(<WebSocket>object)


cdef void call_message(void *owner, Conn *c, uint8_t opcode, const uint8_t *bytes, size_t n) noexcept nogil:
    """A whole message for the handler: str for text, which is known to be UTF-8, bytes for binary."""
    gil_take(<Calls *>owner)
    # Messages come from the reactor's dispatch alone, never from within a `with nogil` of a handler's call: the GIL is
    # held, and to ask for it once more, as `with gil` would, is a tenth of what a short message costs.
    (<message_t><void *>message_held)(owner, c, opcode, bytes, n)


cdef void message_held(void *owner, Conn *c, uint8_t opcode, const uint8_t *bytes, size_t n) noexcept:
    """The same, with the GIL."""
    ws = <WebSocket>wsconn_of(c).object
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
            returned(ws, ws.handler.on_message(ws, message))
    except BaseException as error:
        ws.fail(c, error)


cdef void call_queue_halved(void *owner, Conn *c) noexcept nogil:
    """The send queue is at half of max_send_queue: wakes the coroutines that await send()."""
    gil_take(<Calls *>owner)
    with gil:
        ws = <WebSocket>wsconn_of(c).object
        c.flags &= ~NOTIFY_DRAIN
        ws.wake_waiters()


cdef void call_drained(void *owner, Conn *c) noexcept nogil:
    gil_take(<Calls *>owner)
    with gil:
        ws = <WebSocket>wsconn_of(c).object
        c.flags &= ~NOTIFY_DRAIN
        ws.wake_waiters()
        try:
            if ws.handler.on_drain is not None and not c.flags & WS_CLOSING:
                call(ws, ws.handler.on_drain, ())
        except BaseException as error:
            ws.fail(c, error)


cdef void call_closed(void *owner, Conn *c) noexcept nogil:
    """The connection is gone: the handler hears of it, and the application lets go of the WebSocket."""
    cdef Calls *k = <Calls *>owner
    cdef WsConn *s = wsconn_of(c)
    hub_leave(k.hub, c)
    gil_take(k)
    with gil:
        app, ws = <Application>k.app, <WebSocket>s.object
        ws.handle = 0
        ws.client_closed = s.client_closed
        if not ws.opened:        # to take it on has failed, and the reference is still call_upgrade's
            Py_DECREF(ws)
            return
        app.release(ws)
        ws.wake_waiters()
        try:
            if ws.queued:
                ws.handler.spawn(ws, ws.handler.on_close, (<int>s.code, reason_of(s)))
            elif ws.handler.on_close is not None:
                returned(ws, ws.handler.on_close(ws, <int>s.code, reason_of(s)))
        except Closed:
            pass                 # as in WebSocket.fail
        except BaseException as error:
            app.report(error, "on_close")


cdef void leave(void *owner, Conn *c) noexcept nogil:
    """All of call_closed that is not Python's."""
    hub_leave((<Calls *>owner).hub, c)


cdef WsEvents HANDLER_EVENTS = WsEvents(
    opened=call_opened, abandoned=call_abandoned, message=call_message, queue_halved=call_queue_halved,
    drained=call_drained, closed=call_closed,
)
cdef WsEvents SILENT_EVENTS = WsEvents(
    opened=NULL, abandoned=NULL, message=NULL, queue_halved=NULL, drained=NULL, closed=leave,
)


cdef const WsEvents *handler_events() noexcept nogil:
    """What calls a handler in Python, for WsRoute.on; WsServer.owner is a Calls."""
    return &HANDLER_EVENTS


cdef const WsEvents *silent_events() noexcept nogil:
    """The same for connections that are closed while the application is freed: their objects may be gone."""
    return &SILENT_EVENTS


cdef str reason_of(const WsConn *s):
    """The Close's reason, which is UTF-8."""
    return "" if s.reason == NULL else PyUnicode_DecodeUTF8(<const char *>s.reason.data, s.reason.size, NULL)


cdef call(WebSocket ws, function, tuple arguments):
    """Calls a handler's method."""
    if ws.queued:
        ws.handler.spawn(ws, function, arguments)
    else:
        returned(ws, function(ws, *arguments))


cdef inline returned(WebSocket ws, result):
    """A plain method returned something. An awaitable makes it, and all that follow, calls of coroutine functions."""
    if result is None or isinstance(result, Sent) or not isawaitable(result):
        return
    if ws.handler.spawn is None:
        if iscoroutine(result):
            result.close()
        raise TypeError(f"a handler returned {result!r}, which is awaited {IN_A_LOOP}")
    ws.queued = True
    ws.handler.spawn(ws, _returned, (result,))


def _returned(ws, result):
    return result


# ---- what else is Python's ----

cdef void call_note(Calls *k, int what, int number) noexcept nogil:
    """What the reactor has to say for the log."""
    gil_take(k)
    with gil:
        app = <Application>k.app
        if what == NOTE_FULL:
            app.log(logging.ERROR, "out of file descriptors: no new connections until one closes (raise `ulimit -n`)")
        elif what == NOTE_NOT_FULL:
            app.log(logging.INFO, "accepting new connections again")
        elif what == NOTE_UNREADABLE:
            reason = strerror(number).decode("utf-8", "replace")
            app.log(logging.ERROR, f"a file that was being sent can't be read, and its connection was closed: {reason}")
        else:
            reason = strerror(number).decode("utf-8", "replace")
            app.log(logging.ERROR, f"epoll can't watch a new connection, which was closed: {reason}")


cdef void call_refused(
    void *owner, int why, uint64_t times, const Address *client, const char *fault
) noexcept nogil:
    """The gate has turned clients away."""
    cdef char[MAX_ADDRESS_TEXT] text
    address_text(client, text)
    gil_take(<Calls *>owner)
    with gil:
        last = f"the last from {'a local client' if text[0] == c'-' else text.decode()}"
        said = f"{refusal_name(<Refusal>why).decode()}: {times} "
        said += f"refused, {last}" if fault == NULL else f"closed, {last}: {fault.decode()}"
        (<Application>(<Calls *>owner).app).log(logging.WARNING, said)


cdef bint call_draining(Calls *k) noexcept nogil:
    """The server is about to close WebSockets, and the application may say goodbye. Whether it has done so already."""
    gil_take(k)
    with gil:
        return (<Application>k.app).say_goodbye()


cdef void call_lost(Calls *k, uint64_t messages) noexcept nogil:
    """Messages did not get from one process of the server to another."""
    gil_take(k)
    with gil:
        (<Application>k.app).log(logging.ERROR, lost_line(messages))


cdef void call_unreadable(void *owner, Exchange *x, int fault) noexcept nogil:
    """A file or directory can't be read, for a reason that is the administrator's business."""
    gil_take(<Calls *>owner)
    with gil:
        path = x.path.at[:x.path.n].decode("utf-8", "replace")
        reason = strerror(fault).decode("utf-8", "replace")
        (<Application>(<Calls *>owner).app).log(logging.ERROR, f"{path!r} can't be read: {reason}")


cdef void call_unagreed(void *owner, const Exchange *x, const WsRoute *route) noexcept nogil:
    """Many clients fail such a connection, and here nothing would say why."""
    cdef Calls *k = <Calls *>owner
    cdef Slice first = value_of(x.request, SEC_WEBSOCKET_PROTOCOL)
    gil_take(k)
    with gil:
        path, offered = route.path.at[:route.path.n].decode(), first.at[:first.n].decode("latin-1")
        (<Application>k.app).log(
            logging.WARNING,
            f"{path}: a client offers the subprotocols {offered[:200]!r}, and none was agreed on: browsers and others"
            " end the connection then. See `subprotocols` of Server.websocket; this is logged once for each route")


cdef bint call_list(void *owner, Exchange *x, const Mount *m) noexcept nogil:
    """A directory without an index, as a page or as JSON. False: there is no such directory."""
    cdef Calls *k = <Calls *>owner
    cdef int directory = files_directory(&k.files.files, m.root, path_below(m, x.path))
    cdef bint json = http_accepts(x.request, b"application/json") > http_accepts(x.request, b"text/html")
    cdef uint8_t[LISTING_ETAG] etag
    cdef Block *page
    cdef uint8_t *to
    cdef int status = 500, condition
    x.vary = b"Accept"
    if directory < 0 and files_broken(-directory):
        respond_status(x, 500, b"")
        call_unreadable(owner, x, -directory)
        return True
    if directory == -EMFILE or directory == -ENFILE or directory == -ENOMEM:
        respond_status(x, 503, b"")
        return True
    if directory < 0:
        return False
    page = page_new(k, x, m, directory, json, &etag[0], &status)
    close(directory)
    if page == NULL:
        respond_status(x, status, b"")
        return True
    condition = http_precondition(x.request, Slice(&etag[0], LISTING_ETAG), -1)
    if condition == 412:
        respond_status(x, 412, b"")
        block_unref(page)
        return True
    to = put_text(head_begin(x, condition or 200, 0), b"ETag: ")
    to = put_text(put(to, &etag[0], LISTING_ETAG), b"\r\nCache-Control: no-cache\r\n")
    to = put(to, m.fields.at, m.fields.n)
    if condition == 304:
        head_end(x, put_text(to, b"\r\n"))
    else:
        to = put_text(to, b"Content-Type: ")
        to = put_text(to, b"application/json\r\n" if json else b"text/html; charset=utf-8\r\n")
        head_end(x, put_length(x, to, page.size))
        if x.request.method == GET:
            conn_send(x.out.r, x.c, page, 0, page.size)
    block_unref(page)
    return True


cdef Block *page_new(
    Calls *k, Exchange *x, const Mount *m, int directory, bint json, uint8_t *etag, int *status
) noexcept nogil:
    """The page that lists a directory, and its ETag. NULL: none could be made, and what status says so."""
    cdef int root = -1 if k.files.files.roots[m.root].follow_symlinks else k.files.files.roots[m.root].dir
    gil_take(k)
    with gil:
        try:
            text, tag = (<object>k.list)(
                directory, root, x.path.at[:x.path.n], bool(k.files.files.roots[m.root].dotfiles), json, x.out.r.now_ms)
            put(etag, <const uint8_t *><bytes>tag, LISTING_ETAG)
            return block_copy(<const uint8_t *><bytes>text, len(text))
        except BaseException as error:
            if isinstance(error, OSError) and error.errno in (EMFILE, ENFILE):
                status[0] = 503
            else:
                (<Application>k.app).report(error, "a directory's listing")
            return NULL
