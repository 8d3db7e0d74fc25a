"""Addresses of clients, and networks: numeric text in and out, and what lies in which network.

Owns: the one form in which an address is compared. Refuses to know: sockets, whom anyone trusts.

Invariant: an IPv4 address is AF_INET, also where it came as an IPv4-mapped IPv6 one (RFC 4291 section 2.5.5.2), so that
a client can't be two.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset, strlen

from c1m.buf cimport Slice, load32, load64
from c1m.linux cimport AF_INET, AF_INET6, AF_UNIX, inet_ntop, inet_pton


cdef bint address_parse(Slice text, Address *to) noexcept nogil:
    """Reads a numeric address without port, brackets and zone (inet_pton(3)). False: it is none."""
    cdef char[MAX_ADDRESS_TEXT] copy
    if text.n >= MAX_ADDRESS_TEXT:
        return False
    memcpy(copy, text.at, text.n)
    copy[text.n] = 0
    if strlen(copy) != text.n:
        return False             # a zero inside it
    if inet_pton(AF_INET, copy, to.bytes) == 1:
        to.family = <uint8_t>AF_INET
        return True
    if inet_pton(AF_INET6, copy, to.bytes) != 1:
        return False
    to.family = <uint8_t>AF_INET6
    address_unmap(to)
    return True


cdef void address_unmap(Address *a) noexcept nogil:
    """Makes an IPv4 address of one that is mapped into IPv6."""
    if a.family == AF_INET6 and memcmp(a.bytes, b"\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) == 0:
        a.family = <uint8_t>AF_INET
        memcpy(a.bytes, &a.bytes[12], 4)
        memset(&a.bytes[4], 0, 12)


cdef void address_text(const Address *a, char *to) noexcept nogil:
    """Writes it to MAX_ADDRESS_TEXT bytes: "-" where there is none, as for NULL."""
    to[0], to[1] = c'-', 0
    if a != NULL:
        inet_ntop(a.family, a.bytes, to, MAX_ADDRESS_TEXT)       # writes nothing for another family


cdef bint networks_init(Networks *n, size_t most) noexcept nogil:
    """Makes room for so many. False: memory is out."""
    n.list = <Network *>calloc(max(most, <size_t>1), sizeof(Network))
    return n.list != NULL


cdef void networks_add(Networks *n, Slice address, int bits) noexcept nogil:
    """Adds one by its address, of 4 or 16 bytes, of which so many bits count."""
    cdef Network *one = &n.list[n.count]
    one.address.family = <uint8_t>(AF_INET if address.n == 4 else AF_INET6)
    memcpy(one.address.bytes, address.at, address.n)
    one.bits = bits
    n.count += 1


cdef void networks_free(Networks *n) noexcept nogil:
    free(n.list)


cdef bint networks_have(const Networks *n, const Address *a) noexcept nogil:
    """Whether an address lies in one of them."""
    cdef const Network *one
    cdef int i, whole, rest
    if a.family == AF_UNIX:
        return n.local
    for i in range(n.count):
        one = &n.list[i]
        whole, rest = one.bits >> 3, one.bits & 7
        if (
            one.address.family == a.family and memcmp(one.address.bytes, a.bytes, whole) == 0
            and (rest == 0 or (one.address.bytes[whole] ^ a.bytes[whole]) >> (8 - rest) == 0)
        ):
            return True
    return False


cdef uint64_t address_prefix(const Address *a) noexcept nogil:
    """What one client has to itself, as a number: an IPv4 address, the first 64 bits of an IPv6 one (RFC 6177)."""
    return load32(a.bytes) if a.family == AF_INET else load64(a.bytes)
