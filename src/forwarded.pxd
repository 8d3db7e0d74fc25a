"""What trusted proxies say of a client. See forwarded.pyx."""

from libc.stdint cimport uint8_t

from c1m.address cimport Address, Networks
from c1m.http cimport HttpHead

cdef struct Forwarding:
    Networks trusted             # whose word counts
    bint standard                # it is given by Forwarded (RFC 7239), not by X-Forwarded-For

cdef void forwarded_client(const Forwarding *f, const HttpHead *h, Address *client) noexcept nogil
