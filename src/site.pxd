"""The application layer. See site.pyx."""

from libc.stdint cimport uint8_t, uint16_t, uint64_t

from c1m.app cimport App, Codec, CommandKind, Route
from c1m.buf cimport Block
from c1m.reactor cimport Conn, Loop
from c1m.topics cimport Subscriber

cdef class Site(Loop)


cdef class Request:
    cdef readonly str path, query, remote
    cdef bytes head              # the field lines, as they came
    cdef dict fields             # made of them when first asked for


cdef class Handler:
    cdef object on_upgrade, on_open, on_message, on_drain, on_close
    cdef bint queued             # some of them are coroutine functions
    cdef public object spawn     # (ws, function, arguments): calls what may be a coroutine function; None outside asyncio
    cdef public object waiter    # makes a future for send() to return; likewise


cdef class WebSocket:
    cdef Site site
    cdef Handler handler
    cdef Route *route
    cdef uint64_t handle         # of the connection; 0 once it has gone
    cdef Subscriber subscriber
    cdef Block *message          # the one being put together, or NULL
    cdef Codec *codec            # or NULL
    cdef readonly Request request
    cdef readonly str subprotocol
    cdef object __weakref__
    cdef public object data
    cdef object reason           # of the peer's Close
    cdef uint16_t code           # likewise, or 1006
    cdef uint8_t holds           # who wants no input: bit 0 the handler, bit 1 the queue of its coroutines
    cdef uint8_t queued          # whether the handler is called by its spawn
    cdef bint clean              # the peer closed, and first: what came before is the handler's still
    cdef object waiters          # futures that sends have returned and someone awaits: a WeakSet, or None
    cdef Conn *conn(self) except NULL
    cdef ask(self, CommandKind kind, Block *topic, Block *frame)
    cdef subscription(self, CommandKind kind, topic)
    cdef hold(self, uint8_t who, bint held)
    cdef bint open               # on_open was called, so on_close will be


cdef class Site(Loop):
    cdef App app
    cdef publish_from(self, topic, message, uint64_t sender)
    cdef object raised           # what a handler raised to end it all: KeyboardInterrupt or SystemExit
    cdef object __weakref__
    cdef list kept               # Python bytes that slices above point into
    cdef object listing          # c1m.listing.Listings.page, of a Listings of its own
