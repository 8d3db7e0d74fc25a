"""The opening handshake of a WebSocket (RFC 6455 section 4), of the server's side.

Owns: what a request must have to become a WebSocket, what is agreed on, and the head that says so.
Refuses to know: connections, Python. A request and a route go in, a status comes out.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memcmp, strlen

from c1m.buf cimport CLASS, TOKEN, Slice, put, put_text, same_letters
from c1m.deflate cimport DEFLATE_AGREED, DEFLATE_DECLINED, DEFLATE_MALFORMED, deflate_agree
from c1m.http cimport (
    CHUNKED, ORIGIN, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    HttpRequest, has, http_list_next, twice, value_of,
)
from c1m.ws cimport ws_accept, ws_key_ok
from c1m.wsconn cimport WsRoute

cdef enum:
    MAX_OFFERED = 64             # subprotocols, above which an offer is refused
    ACCEPT_SIZE = 28             # characters of Sec-WebSocket-Accept


cdef int handshake_check(const HttpRequest *r, const WsRoute *route, Handshake *h) noexcept nogil:
    """101, and what is agreed on, or the status to refuse a GET that wants WebSocket with."""
    h.extension_n = 0
    if (not has(r, SEC_WEBSOCKET_VERSION) or twice(r, SEC_WEBSOCKET_VERSION) or
            not is_13(value_of(r, SEC_WEBSOCKET_VERSION))):
        return 426
    h.key = value_of(r, SEC_WEBSOCKET_KEY)
    if (not has(r, SEC_WEBSOCKET_KEY) or twice(r, SEC_WEBSOCKET_KEY) or not ws_key_ok(h.key.at, h.key.n) or
            r.content_length or r.flags & CHUNKED):
        return 400
    if not origin_allowed(r, route):
        return 403
    if not extensions_agree(r, route, h) or not protocols_ok(r, h):
        return 400
    h.protocol = protocol_chosen(r, route)
    return 101


cdef uint8_t *handshake_head(uint8_t *to, const Handshake *h) noexcept nogil:
    """Writes the head of the 101; returns its end. It takes less than MAX_HEAD bytes and the subprotocol's."""
    to = put_text(to, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
    to = put_text(to, b"Sec-WebSocket-Accept: ")
    ws_accept(h.key.at, to)
    to = put_text(to + ACCEPT_SIZE, b"\r\n")
    if h.protocol.n:
        to = put_text(put(put_text(to, b"Sec-WebSocket-Protocol: "), h.protocol.at, h.protocol.n), b"\r\n")
    if h.extension_n:
        to = put_text(put(put_text(to, b"Sec-WebSocket-Extensions: "), h.extension, h.extension_n), b"\r\n")
    return put_text(to, b"\r\n")


cdef bint extensions_agree(const HttpRequest *r, const WsRoute *route, Handshake *h) noexcept nogil:
    """Takes the first offer of compression that can be taken, if any. False: the field is no list of extensions."""
    cdef int i, result = DEFLATE_DECLINED
    for i in range(r.head.count):
        if r.head.fields[i].id == SEC_WEBSOCKET_EXTENSIONS and result != DEFLATE_AGREED:
            result = deflate_agree(r.head.fields[i].value, &route.deflate, &h.terms, h.extension, &h.extension_n)
            if result == DEFLATE_MALFORMED:
                return False
    h.compressed = result == DEFLATE_AGREED and route.compression
    if not h.compressed:
        h.extension_n = 0
    return True


cdef bint protocols_ok(const HttpRequest *r, Handshake *h) noexcept nogil:
    """Whether the subprotocols on offer, if any, are tokens, each there once (RFC 6455 section 4.1, item 10). An
    empty list is no offer (RFC 9110 section 5.6.1): some clients send it."""
    cdef Slice[MAX_OFFERED] items
    cdef Slice rest
    cdef int i, j, count = 0
    for i in range(r.head.count if has(r, SEC_WEBSOCKET_PROTOCOL) else 0):
        if r.head.fields[i].id != SEC_WEBSOCKET_PROTOCOL:
            continue
        rest = r.head.fields[i].value
        while count < MAX_OFFERED and http_list_next(&rest, &items[count]):
            if not is_token(items[count]):
                return False
            for j in range(count):
                if same(items[j], items[count]):
                    return False
            count += 1
    h.offered = count > 0
    return count < MAX_OFFERED


cdef bint is_token(Slice item) noexcept nogil:
    cdef size_t i
    for i in range(item.n):
        if not CLASS[item.at[i]] & TOKEN:
            return False
    return True


cdef inline bint same(Slice a, Slice b) noexcept nogil:
    return a.n == b.n and memcmp(a.at, b.at, a.n) == 0


cdef bint origin_allowed(const HttpRequest *r, const WsRoute *route) noexcept nogil:
    """Whether the route lets scripts of the request's origin in. Clients that are no browsers name none, or the one of
    the server itself (RFC 6455 section 10.2)."""
    cdef int i
    if route.origins_n == 0 or not has(r, ORIGIN):
        return True
    if twice(r, ORIGIN):
        return False
    for i in range(route.origins_n):
        if same(route.origins[i], value_of(r, ORIGIN)):
            return True
    return is_own(value_of(r, ORIGIN), r.host)


cdef bint is_own(Slice origin, Slice host) noexcept nogil:
    """Whether an origin's authority is the one that the request is for, where none is named the scheme's port."""
    if begins(origin, b"http://"):
        return same_authority(Slice(origin.at + 7, origin.n - 7), host, b":80")
    return begins(origin, b"https://") and same_authority(Slice(origin.at + 8, origin.n - 8), host, b":443")


cdef inline bint begins(Slice origin, const char *scheme) noexcept nogil:
    return origin.n > strlen(scheme) and same_letters(origin.at, scheme, strlen(scheme))


cdef bint same_authority(Slice a, Slice b, const char *port) noexcept nogil:
    cdef size_t i
    a, b = without(a, port), without(b, port)
    if a.n != b.n or a.n == 0:
        return False
    for i in range(a.n):
        if a.at[i] | 0x20 != b.at[i] | 0x20:     # of what may stand in a host, this changes letters only
            return False
    return True


cdef inline Slice without(Slice authority, const char *port) noexcept nogil:
    cdef size_t n = strlen(port)
    if authority.n > n and memcmp(authority.at + authority.n - n, port, n) == 0:
        authority.n -= n
    return authority


cdef Slice protocol_chosen(const HttpRequest *r, const WsRoute *route) noexcept nogil:
    """The first of the route's subprotocols that the client offers too, empty for none."""
    cdef Slice rest, item
    cdef int i, j
    for i in range(route.protocols_n):
        for j in range(r.head.count):
            if r.head.fields[j].id != SEC_WEBSOCKET_PROTOCOL:
                continue
            rest = r.head.fields[j].value
            while http_list_next(&rest, &item):
                if same(item, route.protocols[i]):
                    return route.protocols[i]
    return Slice(NULL, 0)


cdef inline bint is_13(Slice version) noexcept nogil:
    return version.n == 2 and version.at[0] == c'1' and version.at[1] == c'3'
