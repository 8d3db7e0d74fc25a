"""An HTTP connection: requests in, responses out. See httpconn.pyx."""

from libc.stdint cimport uint8_t

from c1m.buf cimport Slice
from c1m.http cimport MAX_REQUEST_LINE, HttpRequest
from c1m.reactor cimport Conn, Reactor
from c1m.response cimport Exchange, HttpCounts, Responder
from c1m.static cimport Mount, Static
from c1m.wsconn cimport WsRoute, WsServer

# Makes a WebSocket's object for a route's handler, which may refuse it: NULL, and then a response is written. It may
# put another subprotocol in place of the one that was agreed on.
ctypedef void *(*upgrade_t)(void *owner, Exchange *x, WsRoute *route, Slice *protocol) noexcept nogil
# A client that offers subprotocols is connected without one, the first on its route.
ctypedef void (*unagreed_t)(void *owner, const Exchange *x, const WsRoute *route) noexcept nogil
# Lists a directory. False: there is none.
ctypedef bint (*list_t)(void *owner, Exchange *x, const Mount *m) noexcept nogil

cdef struct HttpServer:          # what all HTTP connections of a server share
    Reactor *r
    Responder out
    Static *files
    WsServer *ws
    void *owner                  # first argument of these
    upgrade_t upgrade
    unagreed_t unagreed
    list_t list
    uint8_t head_timeout         # for a request's head and body to come whole
    uint8_t keep_alive_timeout   # for another request to begin
    HttpRequest request          # the one at hand; what its slices point to is good until the next
    uint8_t[MAX_REQUEST_LINE] path        # its path, resolved

cdef void http_server_init(
    HttpServer *h, Reactor *r, HttpCounts *counts, Static *files, WsServer *ws
) noexcept nogil
