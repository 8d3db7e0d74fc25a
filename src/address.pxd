"""Addresses of clients, and networks. See address.pyx."""

from libc.stdint cimport uint8_t, uint64_t

from c1m.buf cimport Slice

cdef enum:
    MAX_ADDRESS_TEXT = 46        # an address as text, with its final zero (INET6_ADDRSTRLEN)

cdef struct Address:
    uint8_t family               # AF_INET or AF_INET6; AF_UNIX: of this machine; AF_UNSPEC: not known
    uint8_t[16] bytes            # in network byte order, of AF_INET the first four; of the other two none

cdef struct Network:
    Address address
    int bits                     # of it that count

cdef struct Networks:            # zeroes: none
    Network *list
    int count
    bint local                   # and whoever connects to a Unix-domain socket

cdef bint address_parse(Slice text, Address *to) noexcept nogil
cdef void address_unmap(Address *a) noexcept nogil
cdef void address_text(const Address *a, char *to) noexcept nogil
cdef bint networks_init(Networks *n, size_t most) noexcept nogil
cdef void networks_add(Networks *n, Slice address, int bits) noexcept nogil
cdef void networks_free(Networks *n) noexcept nogil
cdef bint networks_have(const Networks *n, const Address *a) noexcept nogil
cdef uint64_t address_prefix(const Address *a) noexcept nogil
