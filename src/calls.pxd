"""The one door into Python. See calls.pyx."""

from libc.stdint cimport uint64_t

from c1m.buf cimport Slice
from c1m.pubsub cimport Hub
from c1m.reactor cimport Conn
from c1m.response cimport Exchange
from c1m.static cimport Mount, Static
from c1m.wsconn cimport WsEvents, WsRoute, WsServer

cdef struct Calls:               # the owner of what is called here
    void *app                    # the Application, borrowed
    void *list                   # Python: makes the page that lists a directory; borrowed
    WsServer *ws
    Hub *hub
    Static *files
    bint held                    # the GIL is, since `state` was got
    int state

cdef const WsEvents *handler_events() noexcept nogil
cdef const WsEvents *silent_events() noexcept nogil
cdef void *call_upgrade(void *owner, Exchange *x, WsRoute *route, Slice *protocol) noexcept nogil
cdef void call_unreadable(void *owner, Exchange *x, int fault) noexcept nogil
cdef void call_unagreed(void *owner, const Exchange *x, const WsRoute *route) noexcept nogil
cdef bint call_list(void *owner, Exchange *x, const Mount *m) noexcept nogil
cdef void call_note(Calls *k, int what, int number) noexcept nogil
cdef void call_lost(Calls *k, uint64_t messages) noexcept nogil
cdef void calls_release(Calls *k) noexcept nogil
