"""WebSocket as a load speaks it. See loadws.pyx."""

from libc.stdint cimport int64_t

from c1m.loadconn cimport Load

cdef enum:
    STAMP = 20                   # bytes of a message that says when it was published: "c1m:" and 16 hexadecimal digits

cdef void loadws_add(Load *load) noexcept nogil
cdef void loadws_publish(Load *load, int64_t due) noexcept nogil
cdef void loadws_goodbye(Load *load) noexcept nogil
