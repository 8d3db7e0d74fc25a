"""WebSockets as Python sees them: requests, handlers, and the methods that any thread may call.

Owns: what handlers get and hold, and what a method does on the reactor's thread or asks of it from another.
Refuses to know: when a handler is called (c1m.calls), files, HTTP responses.

A WebSocket holds its Application, and that holds it for as long as its connection is there: the garbage collector sees
both. What C has of a WebSocket is borrowed from there.
"""

import logging
from inspect import isawaitable, iscoroutine
from weakref import WeakSet

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from c1m.buf cimport Block, block_copy, block_unref
from c1m.handlers import IN_A_LOOP, Closed
from c1m.loop cimport Loop
from c1m.mailbox cimport Command, command_t, mailbox_add, mailbox_full, mailbox_wait
from c1m.pubsub cimport (
    hub_count, hub_deliver, hub_reach, hub_subscribe, hub_unsubscribe, name_of, run_publish, run_subscribe,
    run_unsubscribe,
)
from c1m.reactor cimport (
    NOTIFY_DRAIN, WRITE_BUFFER, Conn, conn_of, conn_queued, conn_unsent, reactor_is_here,
)
from c1m.ring cimport ring_behind, ring_count, ring_longest, ring_publish, ring_wait
from c1m.siphash cimport siphash13
from c1m.topics cimport Topic
from c1m.ws cimport WS_BINARY, WS_INTERNAL_ERROR, WS_MAX_CONTROL, WS_PING, WS_TEXT
from c1m.wsconn cimport (
    TAG_MESSAGE, Message, message_begin, message_end, message_new,
    message_send, message_write, parser_of, run_close, run_pause, run_ping, run_send, wsconn_close, wsconn_closing,
    wsconn_fail, wsconn_of, wsconn_pause, wsconn_ping,
)

cdef enum:
    FEW = 64                     # subscribers, for whom the GIL is kept: beside a busy thread to get it back takes long

cdef enum PausedBy:
    PAUSED_BY_HANDLER = 1
    PAUSED_BY_QUEUE = 2          # too many calls of its coroutine functions wait

logger = logging.getLogger("c1m")


# ---- what comes in from Python ----

cdef Block *topic_new(topic) except NULL:
    """A topic's name, as bytes of UTF-8."""
    cdef Block *name
    if not isinstance(topic, str):
        raise TypeError(f"topic: {topic!r} is not a str")
    encoded = topic.encode()
    name = block_copy(<const uint8_t *><bytes>encoded, len(encoded))
    if name == NULL:
        raise MemoryError
    return name


cdef Block *block_of(message, uint8_t *opcode) except NULL:
    """A block of message_new that holds a str or any bytes-like object. opcode: 0 for text or binary, as that is."""
    cdef Py_buffer view
    cdef Py_ssize_t n
    cdef const char *bytes = bytes_of(message, &n, opcode)
    cdef Block *block
    if bytes != NULL:
        block = message_new(opcode[0], bytes, n)
    else:
        buffer_get(message, &view)
        block = message_new(opcode[0], view.buf, view.len)
        PyBuffer_Release(&view)
    if block == NULL:
        raise MemoryError
    return block


cdef inline const char *bytes_of(message, Py_ssize_t *n, uint8_t *opcode) except? NULL:
    """The bytes of a str, in UTF-8, or of bytes, as nearly all messages are; NULL: of anything else. Sets an opcode
    that is 0."""
    if isinstance(message, str):
        opcode[0] = opcode[0] or <uint8_t>WS_TEXT
        return PyUnicode_AsUTF8AndSize(message, n)
    opcode[0] = opcode[0] or <uint8_t>WS_BINARY
    if not isinstance(message, bytes):
        return NULL
    n[0] = len(<bytes>message)
    return PyBytes_AS_STRING(message)


cdef check_length(size_t n, size_t longest):
    if n > longest:
        raise ValueError(
            f"message: {n} bytes, its topic among them, are more than the {longest} that may be published to several"
            " processes, a quarter of publish_buffer: make that larger")


cdef str lost_line(uint64_t messages):
    """What the log says of messages that did not get to other processes."""
    return (f"{messages} published messages were lost on their way from one process to another, which reads too slowly"
            " or stands still: see `publish_buffer` of Server, and stats()['publish_lost']")


cdef tuple published(topic, message, size_t longest):
    """What goes to other processes: a topic's name, an opcode, a block of message_new (bytes). Raises TypeError,
    ValueError for what is longer than it may be, UnicodeEncodeError."""
    cdef uint8_t opcode = 0
    cdef Block *name = topic_new(topic)
    cdef Block *block = NULL
    try:
        block = block_of(message, &opcode)
        check_length(name.size + block.size, longest)
        return name.data[:name.size], opcode, block.data[:block.size]
    finally:
        block_unref(name)
        block_unref(block)


cdef buffer_get(message, Py_buffer *view):
    try:
        PyObject_GetBuffer(message, view, PyBUF_SIMPLE)
    except TypeError:
        raise TypeError(f"message: {type(message).__name__} is neither str nor bytes-like") from None
    except BufferError:
        raise TypeError(f"message: a {type(message).__name__} that is not contiguous: send bytes(it)") from None


# ---- the site, as far as WebSockets need it ----

cdef class Application(Loop):
    """A reactor with WebSockets: who is connected, and what other threads may ask."""

    cdef adopt(self, WebSocket ws):
        """Holds a WebSocket while its connection is there."""
        ws.place = len(self.open)
        self.open.append(ws)

    cdef release(self, WebSocket ws):
        """Holds it no longer; the last one takes its place."""
        cdef WebSocket last = self.open.pop()
        if last is not ws:
            last.place = ws.place
            self.open[ws.place] = last

    def forget(self):
        """See Loop; no WebSocket of the parent's has a connection here."""
        self.hub.ring = NULL
        super().forget()
        for ws in self.open:
            (<WebSocket>ws).handle = 0

    cdef ask(self, command_t run, void *owner, uint64_t handle, Block *topic, Block *block, uint32_t number):
        """Has the reactor's thread do it, and takes the blocks over. Slows down a thread that asks for more than can be
        done."""
        if not mailbox_add(&self.mailbox, Command(NULL, run, owner, handle, topic, block, number)):
            raise MemoryError
        if mailbox_full(&self.mailbox):
            with nogil:
                mailbox_wait(&self.mailbox)

    cdef publish_from(self, topic, message, uint64_t sender, bint here=False):
        cdef uint8_t opcode = 0
        cdef Block *name
        cdef Block *block
        cdef Message one
        cdef Topic *found
        cdef uint64_t reach
        self.check_forked()
        name = topic_new(topic)
        try:
            block = block_of(message, &opcode)
        except BaseException:
            block_unref(name)
            raise
        if self.hub.ring != NULL and not here:
            self.publish_to_others(name, opcode, block, reactor_is_here(&self.r))
        if not reactor_is_here(&self.r):
            self.ask(run_publish, &self.hub, sender, name, block, opcode)
            return
        reach = hub_reach(&self.hub, name_of(name), &found)
        if reach:
            message_begin(&one, opcode, block)
            if reach > FEW:
                with nogil:
                    hub_deliver(&self.hub, name_of(name), found, &one, sender)
            else:
                hub_deliver(&self.hub, name_of(name), found, &one, sender)
            message_end(&one)
        block_unref(name)
        block_unref(block)

    cdef publish_to_others(self, Block *name, uint8_t opcode, Block *block, bint on_reactor):
        """Publishes to the other processes of this server. The reactor's own thread never waits for them. Frees the
        blocks where it raises ValueError."""
        try:
            check_length(name.size + block.size, ring_longest(self.hub.ring))
        except ValueError:
            block_unref(name)
            block_unref(block)
            raise
        if on_reactor:
            ring_publish(self.hub.ring, self.hub.seat, name_of(name), opcode, name_of(block))
            return
        with nogil:
            if ring_behind(self.hub.ring, self.hub.seat):
                ring_wait(self.hub.ring, self.hub.seat)
            ring_publish(self.hub.ring, self.hub.seat, name_of(name), opcode, name_of(block))

    def publish(self, topic, message, bint here=False):
        """Sends a message to all who are subscribed to a topic. here: in this process. Any thread may."""
        self.publish_from(topic, message, 0, here)

    def subscribers(self, topic):
        """How many are subscribed to a topic. Any thread may ask."""
        cdef Block *name
        cdef uint64_t count, hash
        self.check_forked()
        name = topic_new(topic)
        count = hub_count(&self.hub, name_of(name))
        if self.hub.ring != NULL:
            hash = siphash13(&self.hub.ring.head.key, name.data, name.size)
            count += ring_count(self.hub.ring, hash, self.hub.seat)
        block_unref(name)
        return count

    cdef bint say_goodbye(self) noexcept:
        """Calls each of `goodbyes`. False: some return what is awaited, and proceed() will be called."""
        waited = []
        for goodbye in self.goodbyes or ():
            try:
                result = goodbye()
                if isawaitable(result):
                    waited.append(result)
            except BaseException as error:
                self.report(error, "on_drain_start")
        try:
            if waited and self.gather is None:
                for each in waited:
                    if iscoroutine(each):
                        each.close()
                raise TypeError(f"it returned what is awaited {IN_A_LOOP}")
            if waited:
                self.gather(waited)
                return False
        except BaseException as error:
            self.report(error, "on_drain_start")
        return True

    cdef report(self, error, where):
        """Logs what was raised in a handler; what is meant to end the program ends the server, and run() raises it."""
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            self.raised = error
            self.stop()
        else:
            self.log(logging.ERROR, f"{where} raised", error)

    cdef log(self, int level, message, error=None):
        try:
            logger.log(level, "%s", message, exc_info=error)
        except (KeyboardInterrupt, SystemExit) as end:
            self.raised = end
            self.stop()
        except BaseException:
            pass                 # a log handler that fails must not stop the server

    def reraise(self):
        """Raises what a handler raised to end it all, once."""
        raised, self.raised = self.raised, None
        if raised is not None:
            raise raised


# ---- what handlers get ----

cdef class Request:
    """What a client asked for when it wanted to open a WebSocket.

    path (str): of the URL, unescaped. query (str): what follows its question mark, as it came. headers (dict of str to
    str): names in lower case; the values of a name that came twice are joined by commas, those of Cookie by semicolons.
    cookies (dict of str to str). remote (str): the client's address, "" for a Unix-domain socket; where a proxy stands
    between, what that says, if Server's proxy_protocol or trusted_proxies has it.
    """

    @property
    def headers(self):
        if self.fields is None:
            self.fields = {}
            for line in self.head.split(b"\r\n"):
                name, _, value = line.decode("latin-1").partition(":")
                name, value = name.lower(), value.strip(" \t")
                if name in self.fields:      # RFC 9110 section 5.3; RFC 9113 section 8.2.3: proxies take cookies apart
                    value = f"{self.fields[name]}{'; ' if name == 'cookie' else ', '}{value}"
                self.fields[name] = value
        return self.fields

    @property
    def cookies(self):
        found = {}
        for pair in self.headers.get("cookie", "").split(";"):
            name, equals, value = pair.strip().partition("=")
            if equals:
                found.setdefault(name, value.strip('"'))
        return found


cdef class Handler:
    """The methods of a handler, None or called as Server.websocket has it. queued: some are coroutine functions."""

    def __init__(self, *, on_upgrade=None, on_open=None, on_message=None, on_drain=None, on_close=None,
                 bint queued=False):
        self.on_upgrade, self.on_open, self.on_message = on_upgrade, on_open, on_message
        self.on_drain, self.on_close = on_drain, on_close
        self.queued = queued


cdef class Sent:
    """What send() returns where there is nothing to wait for: awaiting it is done at once."""

    def __await__(self):
        return iter(())


cdef Sent SENT = Sent()


@cython.final
cdef class WebSocket:
    """A client's WebSocket, as handlers get it. send, ping, close, publish and the rest may be called from any thread.

    request (Request): what the client asked for. subprotocol (str or None): what was agreed on. data: yours.
    """

    def __cinit__(self, Application app=None, Handler handler=None):
        if app is None or handler is None:
            raise TypeError("a WebSocket is made by the server")
        self.app, self.handler = app, handler

    def __repr__(self):
        return f"<c1m.WebSocket {self.path} of {self.remote or 'a local client'}{', closed' if self.closed else ''}>"

    # -- sending --

    def send(self, message):
        """Sends a message: a str as text, anything bytes-like as binary. All that is sent in an iteration of the event
        loop leaves in one system call.

        Returns an awaitable that is done when at most half of max_send_queue waits for the client to read it; only
        coroutines need to await it. From another thread it is done at once: there send() itself slows the caller down
        when the server can't keep up, and buffered tells how much waits. Raises Closed, TypeError for what is no
        message, UnicodeEncodeError for a str with lone surrogates.
        """
        cdef uint8_t opcode = 0
        cdef Block *block
        cdef Message one
        cdef Conn *c
        self.check_open()
        if not reactor_is_here(&self.app.r):
            block = block_of(message, &opcode)
            self.app.ask(run_send, &self.app.ws, self.handle, NULL, block, opcode)
            return SENT
        c = self.conn()
        # In the dispatch whose input it answers, a message goes where what else that writes is.
        if self.app.r.current == c and c.output == NULL and parser_of(c).window_bits == 0 and self.send_now(message):
            return SENT
        block = block_of(message, &opcode)
        message_begin(&one, opcode, block)
        if parser_of(c).window_bits:
            with nogil:          # for compression takes its time
                message_send(&self.app.ws, c, &one, TAG_MESSAGE)
        else:
            message_send(&self.app.ws, c, &one, TAG_MESSAGE)
        message_end(&one)
        block_unref(block)
        if self.handler.waiter is None or conn_queued(c) <= self.route.max_send_queue // 2:
            return SENT
        waiter = self.handler.waiter()
        if self.waiters is None:
            self.waiters = WeakSet()
        self.waiters.add(waiter)
        c.flags |= NOTIFY_DRAIN
        return waiter

    def ping(self, data=b""):
        """Sends a ping with up to 125 bytes (RFC 6455 section 5.5.2); its pong is taken note of and no more.
        Raises Closed, ValueError."""
        cdef uint8_t opcode = WS_PING
        cdef Block *block
        cdef Conn *c
        if isinstance(data, str):
            data = data.encode()
        n = memoryview(data).nbytes         # len() counts the items of an array, whatever their size
        if n > WS_MAX_CONTROL:
            raise ValueError(f"data: {n} bytes are more than the {<int>WS_MAX_CONTROL} that a ping holds")
        self.check_open()
        if not reactor_is_here(&self.app.r):
            self.app.ask(run_ping, &self.app.ws, self.handle, NULL, block_of(data, &opcode), 0)
            return
        c = self.conn()
        block = block_of(data, &opcode)
        wsconn_ping(&self.app.ws, c, block)
        block_unref(block)

    def close(self, int code=1000, str reason not None=""):
        """Sends a Close frame (RFC 6455 section 5.5.1), once; the client has 10 seconds to answer with its own.

        code: 1000 to 1003, 1007 to 1014, or 3000 to 4999. reason: up to 123 bytes of UTF-8. Raises ValueError.
        """
        cdef bytes text = reason.encode()
        cdef Block *block = NULL
        cdef Conn *c
        if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
            raise ValueError(f"code: {code} is not a close code that may be sent (RFC 6455 section 7.4)")
        if len(text) > WS_MAX_CONTROL - 2:
            raise ValueError(
                f"reason: {len(text)} bytes are more than the {WS_MAX_CONTROL - 2} that a close frame holds")
        if self.is_gone():
            return
        if text:
            block = block_copy(<const uint8_t *>text, len(text))
            if block == NULL:
                raise MemoryError
        if not reactor_is_here(&self.app.r):
            self.app.ask(run_close, &self.app.ws, self.handle, NULL, block, code)
            return
        c = self.conn_if_open()
        if c == NULL:
            block_unref(block)
        else:
            wsconn_close(&self.app.ws, c, code, block)

    # -- topics --

    def subscribe(self, topic):
        """From now on gets what is published to a topic (a str). Twice is once. Raises Closed, TypeError."""
        self.subscription(True, topic)

    def unsubscribe(self, topic):
        """Gets it no longer. Raises Closed, TypeError."""
        self.subscription(False, topic)

    def publish(self, topic, message):
        """Sends a message to all who are subscribed to a topic but this one. Raises Closed, TypeError."""
        self.check_open()
        if reactor_is_here(&self.app.r) and self.conn_if_open() == NULL:
            raise Closed("this WebSocket is closed")
        self.app.publish_from(topic, message, self.handle)

    # -- input --

    def pause(self):
        """Takes no more input from the client, until resume(). What it has sent waits, and then the client does."""
        self.pause_by(PAUSED_BY_HANDLER, True)

    def resume(self):
        """Takes input again."""
        self.pause_by(PAUSED_BY_HANDLER, False)

    def _set_paused(self, bint paused):
        """pause() and resume() for what runs the handler's coroutines."""
        self.pause_by(PAUSED_BY_QUEUE, paused)

    def _fail(self, error):
        """A coroutine of the handler raised."""
        self.fail(self.conn_if_open(), error)

    @property
    def _over(self):
        """Whether what waits for the handler is not to come to it any more."""
        cdef Conn *c = self.conn_if_open()
        return not self.client_closed if c == NULL else not wsconn_of(c).client_closed and wsconn_closing(c)

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
        cdef Conn *c = self.conn_if_open()
        return 0 if c == NULL else conn_unsent(c)

    # -- underneath --

    cdef bint is_gone(self) noexcept:
        """Whether the connection has gone, or the garbage collector has begun to take the server apart."""
        return self.handle == 0 or self.app is None

    cdef check_open(self):
        if self.is_gone():
            raise Closed("this WebSocket is closed")

    cdef Conn *conn_if_open(self) noexcept:
        """The connection, or NULL once it has gone."""
        return NULL if self.is_gone() else conn_of(&self.app.r, self.handle)

    cdef Conn *conn(self) except NULL:
        """The connection, on the reactor's thread; Closed if nothing can be sent on it."""
        cdef Conn *c = self.conn_if_open()
        if c == NULL or wsconn_closing(c):
            raise Closed("this WebSocket is closed")
        return c

    cdef bint send_now(self, message) except -1:
        """Writes a message among what else the current dispatch does. False: it is too long for that."""
        cdef uint8_t opcode = 0
        cdef Py_buffer view
        cdef Py_ssize_t n
        cdef const char *bytes = bytes_of(message, &n, &opcode)
        cdef bint fits
        if bytes != NULL:
            fits = n <= WRITE_BUFFER // 2
            if fits:
                message_write(&self.app.ws, self.app.r.current, opcode, bytes, n)
            return fits
        buffer_get(message, &view)
        fits = view.len <= WRITE_BUFFER // 2
        if fits:
            message_write(&self.app.ws, self.app.r.current, opcode, view.buf, view.len)
        PyBuffer_Release(&view)
        return fits

    cdef subscription(self, bint wanted, topic):
        cdef Block *name
        cdef Conn *c
        cdef bint ok = True
        self.check_open()
        name = topic_new(topic)
        if not reactor_is_here(&self.app.r):
            self.app.ask(run_subscribe if wanted else run_unsubscribe, &self.app.hub, self.handle, name, NULL, 0)
            return
        c = self.conn_if_open()
        if c != NULL and wanted:
            ok = hub_subscribe(&self.app.hub, c, name_of(name))
        elif c != NULL:
            hub_unsubscribe(&self.app.hub, c, name_of(name))
        block_unref(name)
        if c == NULL:
            raise Closed("this WebSocket is closed")
        if not ok:
            raise MemoryError

    cdef pause_by(self, uint8_t by, bint paused):
        """Reads no further while anyone wants it so. The last call counts, whatever thread it came from."""
        cdef bint before = self.paused_by != 0
        cdef Conn *c
        self.paused_by = self.paused_by | by if paused else self.paused_by & ~<int>by
        if before == (self.paused_by != 0) or self.is_gone():
            return
        self.pause_serial = self.pause_serial + 1 & 0x7fffffff
        if not reactor_is_here(&self.app.r):
            state = self.pause_serial << 1 | (self.paused_by != 0)
            self.app.ask(run_pause, &self.app.ws, self.handle, NULL, NULL, state)
            return
        c = self.conn_if_open()
        if c != NULL:
            wsconn_pause(&self.app.ws, c, self.pause_serial, self.paused_by != 0)

    cdef fail(self, Conn *c, error):
        """The handler raised: its connection closes with 1011, and no other. c: NULL once that has gone."""
        if isinstance(error, Closed) and (c == NULL or wsconn_closing(c)):
            return               # it need not know that its connection has ended: this tells it to end, too
        if self.app is None:
            return
        self.client_closed = False
        if c != NULL:
            wsconn_of(c).client_closed = False
        self.app.report(error, "WebSocket handler")
        if c != NULL:
            wsconn_fail(&self.app.ws, c, WS_INTERNAL_ERROR, b"handler failed")

    cdef wake_waiters(self):
        """Few enough bytes wait, or the connection has gone: coroutines that await send() go on. Raises nothing."""
        waiters, self.waiters = self.waiters, None
        try:
            for waiter in list(waiters or ()):
                if not waiter.done():
                    waiter.set_result(None)
        except BaseException as error:      # their loop is closed
            self.app.report(error, "waking a coroutine that awaits send()")
