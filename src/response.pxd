"""HTTP responses: heads out, and what is noted of each. See response.pyx."""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memset

from c1m.accesslog cimport Log
from c1m.buf cimport Slice
from c1m.http cimport HttpRequest
from c1m.reactor cimport Conn, Reactor, conn_commit
from c1m.semantics cimport DATE_SIZE

cdef enum:
    DATE_AT = 23                 # where the date stands in a head with status 200
    MAX_HEAD = 1024              # bytes of any head made of the pieces below, Location and a mount's own fields aside

cdef struct HttpCounts:          # in words that other threads and processes may read
    uint64_t requests
    uint64_t[6] statuses         # by the status code's first digit

cdef struct Responder:           # what all responses of a server share
    Reactor *r
    Log *log                     # the access log, NULL for none
    int64_t date_s               # the second that `date` shows
    uint8_t[DATE_SIZE] date
    HttpCounts *counts

cdef struct Exchange:            # a request, and the response to it that is being written
    Responder *out
    Conn *c
    const HttpRequest *request
    Slice path                   # the request's, as http_resolve has it
    Slice origin                 # the one that may read the response, if any: the request's, or "*"
    Slice cors_fields            # whole header lines for that origin
    bint by_origin               # another Origin might have had another response,
    const char *vary             # and another value of these fields, if any
    bint keep                    # the connection will be kept
    size_t own_fields            # bytes of a head, beyond MAX_HEAD, that the mount's own fields may take
    int status
    int64_t length               # of the body, as announced
    uint64_t head_sent           # Reactor.current_sent when all before the body will have been sent

cdef const char *response_reason(int status) noexcept nogil
cdef uint8_t *response_head(uint8_t *to, int status, const uint8_t *date) noexcept nogil
cdef uint8_t *response_validators(uint8_t *to, int64_t mtime, Slice etag) noexcept nogil
cdef uint8_t *response_length(uint8_t *to, uint64_t n) noexcept nogil
cdef void date_renew(Responder *out) noexcept nogil
cdef uint8_t *head_begin(Exchange *x, int status, size_t more) noexcept nogil
cdef void respond_status(Exchange *x, int status, const char *fields) noexcept nogil
cdef void respond_failure(Exchange *x, int status) noexcept nogil
cdef void respond_options(Exchange *x) noexcept nogil
cdef void respond_not_allowed(Exchange *x) noexcept nogil
cdef void respond_upgrade_required(Exchange *x) noexcept nogil
cdef uint8_t *put_text_body(Exchange *x, uint8_t *to, int status) noexcept nogil
cdef void exchange_log(Exchange *x) noexcept nogil
cdef void exchange_done(Responder *out, Conn *c) noexcept nogil


cdef inline const uint8_t *response_date(Responder *out) noexcept nogil:
    """The DATE_SIZE bytes of the date as it is now."""
    if out.date_s != out.r.unix_s:
        date_renew(out)
    return out.date

cdef inline void exchange_begin(Exchange *x, Responder *out, Conn *c, const HttpRequest *request) noexcept nogil:
    """A request came; it is counted."""
    memset(x, 0, sizeof(Exchange))
    x.out, x.c, x.request = out, c, request
    out.counts.requests += 1

cdef inline uint8_t *put_length(Exchange *x, uint8_t *to, int64_t n) noexcept nogil:
    """Content-Length and the head's end."""
    x.length = n
    return response_length(to, n)

cdef inline void head_count(Exchange *x, int status) noexcept nogil:
    """A head with this status is being written."""
    x.status = status
    x.out.counts.statuses[status // 100] += 1

cdef inline void head_end(Exchange *x, const uint8_t *end) noexcept nogil:
    """Ends what head_begin or a conn_reserve of one's own began."""
    conn_commit(x.out.r, end - (x.out.r.write_buffer + x.out.r.write_n))
    x.head_sent = x.out.r.current_sent + x.out.r.write_n
