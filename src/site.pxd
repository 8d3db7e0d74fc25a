"""The site: everything put together. See site.pyx."""

from libc.stdint cimport uint8_t

from c1m.calls cimport Calls
from c1m.counts cimport Counts
from c1m.httpconn cimport HttpServer
from c1m.mailbox cimport Mailbox
from c1m.reactor cimport Reactor
from c1m.static cimport Static
from c1m.websocket cimport Application

cdef struct Parts:               # what the reactor's callbacks reach, with no object of Python's between
    Reactor *r
    Mailbox *mailbox
    Counts *counts               # its own, or those of its seat
    Static files
    HttpServer http
    Calls calls
    uint8_t alarm_timeout


cdef class Site(Application):
    cdef Parts parts
    cdef list kept               # Python objects that C points into
    cdef Counts *own_counts
    cdef uint8_t timeout(self, ms) except 0
    cdef keep_peers(self)
    cdef count_in(self, Counts *counts)
