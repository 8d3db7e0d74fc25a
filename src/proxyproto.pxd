"""The PROXY protocol, versions 1 and 2. See proxyproto.pyx."""

from libc.stdint cimport uint8_t

from c1m.address cimport Address

cdef enum:
    MAX_PROXY_LINE = 107         # bytes of a header of version 1, with its line end (section 2.1)
    MAX_PROXY_HEADER = 16 + 65535         # bytes of one of version 2 (section 2.2)

cdef enum ProxyKind:             # what proxy_next found
    PROXY_MORE                   # nothing whole: call again with the rest and more behind it
    PROXY_FROM                   # a connection from `source`
    PROXY_NOWHERE                # from a Unix-domain socket of the proxy's: its client has no address
    PROXY_OWN                    # the proxy's own, or of one who can't be told: the connection's own end counts
    PROXY_FAIL                   # no header, for the reason `fault`

cdef struct ProxyHeader:
    ProxyKind kind
    Address source
    const char *fault            # a few words

cdef size_t proxy_next(const uint8_t *bytes, size_t n, ProxyHeader *header) noexcept nogil
