"""Who a request's client is, and addresses and networks, as tests see them."""

from libc.stdint cimport uint8_t
from libc.string cimport memset

from c1m.address cimport (
    MAX_ADDRESS_TEXT, Address, address_parse, address_text, networks_add, networks_free, networks_have,
    networks_init,
)
from c1m.buf cimport Block, Slice, block_copy, block_unref
from c1m.forwarded cimport Forwarding, forwarded_client
from c1m.http cimport HTTP_REQUEST, HttpParser, HttpRequest, http_next


cdef bint parsed(str text, Address *to) except -1:
    cdef bytes encoded = text.encode()
    # An allocation of just this size, so that a sanitizer sees a read past the end.
    cdef Block *copy = block_copy(<const uint8_t *>encoded, len(encoded))
    cdef bint good
    if copy == NULL:
        raise MemoryError
    good = address_parse(Slice(&copy.data[0], copy.size), to)
    block_unref(copy)
    return good


def address(str text):
    """A numeric address in its one form; None: it is none."""
    cdef Address found
    cdef char[MAX_ADDRESS_TEXT] shown
    if not parsed(text, &found):
        return None
    address_text(&found, shown)
    return shown.decode()


cdef class Trusted:
    """Networks, as options export them."""

    cdef Forwarding f

    def __cinit__(self, networks, bint standard=False):
        memset(&self.f, 0, sizeof(Forwarding))
        self.f.standard = standard
        if not networks_init(&self.f.trusted, len(networks)):
            raise MemoryError
        for address, bits in networks:
            networks_add(&self.f.trusted, Slice(<bytes>address, len(address)), bits)

    def __dealloc__(self):
        networks_free(&self.f.trusted)

    def __contains__(self, str address):
        cdef Address found
        assert parsed(address, &found)
        return networks_have(&self.f.trusted, &found)

    def client(self, str peer, bytes head):
        """The client of a request, given whole, that came from a trusted peer."""
        cdef HttpParser parser
        cdef HttpRequest request
        cdef Address told
        cdef char[MAX_ADDRESS_TEXT] text
        cdef Block *copy = block_copy(<const uint8_t *>head, len(head))
        if copy == NULL:
            raise MemoryError
        assert parsed(peer, &told)
        memset(&parser, 0, sizeof(parser))
        http_next(&parser, copy.data, copy.size, &request)
        whole = request.kind == HTTP_REQUEST
        if whole:
            forwarded_client(&self.f, &request.head, &told)
        block_unref(copy)
        assert whole, "no whole request"
        address_text(&told, text)
        return text.decode()
