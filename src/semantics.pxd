"""What a request's fields mean (RFC 9110). See semantics.pyx."""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from c1m.buf cimport Slice
from c1m.http cimport HttpRequest

cdef enum:
    MAX_RANGES = 32              # of one request that are served one by one; with more it gets the whole
    DATE_SIZE = 29               # "Sun, 06 Nov 1994 08:49:37 GMT"
    ACCEPTS_NAMED = 3            # see http_accepts

cdef struct ByteRange:           # bytes first to last, both included
    int64_t first, last

cdef int http_precondition(const HttpRequest *r, Slice etag, int64_t mtime) noexcept nogil
cdef int http_ranges(const HttpRequest *r, Slice etag, int64_t mtime, int64_t size, ByteRange *ranges) noexcept nogil
cdef uint32_t http_codings(const HttpRequest *r) noexcept nogil
cdef int http_accepts(const HttpRequest *r, const char *type) noexcept nogil
cdef int64_t http_date_parse(Slice text) noexcept nogil
cdef void http_date(int64_t seconds, uint8_t *to) noexcept nogil
