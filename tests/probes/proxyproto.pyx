"""The PROXY protocol as tests see it."""

from libc.stdint cimport uint8_t

from c1m.address cimport MAX_ADDRESS_TEXT, address_text
from c1m.buf cimport Block, block_copy, block_unref
from c1m.proxyproto cimport (
    PROXY_FAIL, PROXY_FROM, PROXY_MORE, PROXY_NOWHERE, ProxyHeader, proxy_next,
)


def header(bytes data):
    """("more",), ("fail", why), or what it says with how many bytes it takes: ("from", address, n), ("nowhere", n) and
    ("own", n)."""
    cdef ProxyHeader found
    cdef char[MAX_ADDRESS_TEXT] text
    # An allocation of just this size, so that a sanitizer sees a read past the end.
    cdef Block *copy = block_copy(<const uint8_t *>data, len(data))
    cdef size_t used
    if copy == NULL:
        raise MemoryError
    used = proxy_next(copy.data, copy.size, &found)
    block_unref(copy)
    if found.kind == PROXY_MORE or found.kind == PROXY_FAIL:
        assert used == 0
        return ("more",) if found.kind == PROXY_MORE else ("fail", found.fault.decode())
    if found.kind == PROXY_FROM:
        address_text(&found.source, text)
        return "from", text.decode(), used
    return "nowhere" if found.kind == PROXY_NOWHERE else "own", used
