"""WebSockets as Python sees them. See websocket.pyx."""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from c1m.buf cimport Block
from c1m.mailbox cimport Mailbox, command_t
from c1m.pubsub cimport Hub
from c1m.loop cimport Loop
from c1m.reactor cimport Conn
from c1m.wsconn cimport WsRoute, WsServer


cdef str lost_line(uint64_t messages)
cdef tuple published(topic, message, size_t longest)


cdef class Application(Loop):    # what WebSockets need of the site that they belong to
    cdef WsServer ws
    cdef Hub hub
    cdef Mailbox mailbox
    cdef list open               # WebSockets whose connection is there; this is the reference that it has to them
    cdef public list goodbyes    # functions to be called before WebSockets are closed because the server stops
    cdef public object gather    # (awaitables): awaits what these returned, then calls proceed(); None outside asyncio
    cdef object raised           # what a handler raised to end it all: KeyboardInterrupt or SystemExit
    cdef adopt(self, WebSocket ws)
    cdef release(self, WebSocket ws)
    cdef ask(self, command_t run, void *owner, uint64_t handle, Block *topic, Block *block, uint32_t number)
    cdef publish_from(self, topic, message, uint64_t sender, bint here=*)
    cdef bint say_goodbye(self) noexcept
    cdef publish_to_others(self, Block *name, uint8_t opcode, Block *block, bint on_reactor)
    cdef report(self, error, where)
    cdef log(self, int level, message, error=*)


cdef class Request:
    cdef readonly str path, query, remote
    cdef bytes head              # the field lines, as they came
    cdef dict fields             # made of them when first asked for


cdef class Handler:
    cdef object on_upgrade, on_open, on_message, on_drain, on_close
    cdef uint8_t paused_by       # PausedBy
    cdef uint32_t pause_serial   # see wsconn_pause
    cdef bint queued             # some of them are coroutine functions
    cdef public object spawn     # (ws, function, arguments): calls a coroutine function; None outside asyncio
    cdef public object waiter    # makes a future for send() to return; likewise


cdef class Sent:
    pass


@cython.final
cdef class WebSocket:
    cdef Application app
    cdef Handler handler
    cdef WsRoute *route
    cdef uint64_t handle         # of the connection; 0 once it has gone
    cdef Py_ssize_t place        # in app.open
    cdef readonly Request request
    cdef readonly str subprotocol
    cdef object __weakref__
    cdef public object data
    cdef uint8_t paused_by       # PausedBy
    cdef uint32_t pause_serial   # see wsconn_pause
    cdef bint queued             # the handler is called by its spawn
    cdef bint opened             # on_open was called, so on_close will be
    cdef bint client_closed      # once the connection has gone: as WsConn had it
    cdef object waiters          # futures that sends have returned and someone awaits: a WeakSet, or None
    cdef Conn *conn(self) except NULL
    cdef Conn *conn_if_open(self) noexcept
    cdef bint is_gone(self) noexcept
    cdef check_open(self)
    cdef bint send_now(self, message) except -1
    cdef subscription(self, bint wanted, topic)
    cdef pause_by(self, uint8_t by, bint paused)
    cdef fail(self, Conn *c, error)
    cdef wake_waiters(self)
