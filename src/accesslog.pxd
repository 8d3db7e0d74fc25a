"""The access log. See accesslog.pyx."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from c1m.http cimport Request
from c1m.linux cimport pthread_mutex_t

cdef struct Log:
    pthread_mutex_t lock         # over buffer's contents, n and dropped
    uint8_t *buffer
    size_t n
    uint64_t dropped             # lines for which there was no room, or that were lost on their way
    bint as_json

cdef Log *log_new(bint as_json) noexcept nogil
cdef void log_free(Log *log) noexcept nogil
cdef void log_request(Log *log, const char *peer, const Request *r, int status, int64_t length, int64_t unix_s) noexcept nogil
cdef void log_lost(Log *log, uint64_t lines) noexcept nogil
cdef bytes log_take(Log *log)
