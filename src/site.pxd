"""The site: everything put together. See site.pyx."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from c1m.calls cimport Calls
from c1m.counts cimport Counts
from c1m.forwarded cimport Forwarding
from c1m.gate cimport Gate
from c1m.httpconn cimport HttpServer
from c1m.mailbox cimport Mailbox
from c1m.pubsub cimport Hub
from c1m.reactor cimport Reactor
from c1m.static cimport Static
from c1m.websocket cimport Application

cdef struct Parts:               # what the reactor's callbacks reach, with no object of Python's between
    Reactor *r
    Mailbox *mailbox
    Counts *counts               # its own, or those of its seat
    Static files
    HttpServer http
    Forwarding forwarding
    Gate gate
    Calls calls
    Hub *hub
    uint64_t lost_noted          # of what was lost of others' messages, how much the log has been told of
    int64_t lost_noted_ms        # and when
    uint8_t alarm_timeout


cdef class Site(Application):
    cdef Parts parts
    cdef list kept               # Python objects that C points into
    cdef Counts *own_counts
    cdef void *shared            # a Shared, or NULL. A reference, which the garbage collector must not clear before us
    cdef uint8_t timeout(self, ms) except 0
    cdef keep_peers(self)
    cdef count_in(self, Counts *counts)
