"""The opening handshake of a WebSocket. See handshake.pyx."""

from libc.stdint cimport uint8_t

from c1m.buf cimport Slice
from c1m.deflate cimport MAX_AGREED, DeflateTerms
from c1m.http cimport HttpRequest
from c1m.wsconn cimport WsRoute

cdef struct Handshake:           # what is agreed on
    Slice key
    bint offered                 # the client offers subprotocols
    Slice protocol               # the one that is agreed on, empty for none
    bint compressed
    DeflateTerms terms           # where it is
    uint8_t[MAX_AGREED] extension         # to answer with
    size_t extension_n           # 0 for none

cdef int handshake_check(const HttpRequest *r, const WsRoute *route, Handshake *h) noexcept nogil
cdef uint8_t *handshake_head(uint8_t *to, const Handshake *h) noexcept nogil
