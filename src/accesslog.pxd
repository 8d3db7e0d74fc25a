"""The access log. See accesslog.pyx."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from c1m.http cimport HttpRequest
from c1m.linux cimport pthread_mutex_t

cdef enum:
    MAX_VALUE = 2048            # bytes of a field that are shown
    MAX_LINE = 6 * (4 * MAX_VALUE) + 512      # an escape is six bytes at most

cdef struct Line:                # whole but for the number of bytes that were sent
    int64_t length               # of the body, as announced
    size_t split                 # where in the text that number goes
    size_t n
    uint8_t[MAX_LINE] text      # line_copy has no more than n of it

cdef struct Log:
    pthread_mutex_t lock         # over all below but as_json
    uint8_t *buffer              # where lines go
    uint8_t *other               # what was taken last, or nothing
    size_t n
    uint64_t *dropped            # lines for which there was no room, or that were lost on their way
    bint as_json

cdef Log *log_new(bint as_json, uint64_t *dropped) noexcept nogil
cdef void log_free(Log *log) noexcept nogil
cdef void log_line(
    const Log *log, Line *line, const char *peer, const HttpRequest *r, int status, int64_t length, int64_t unix_s
) noexcept nogil
cdef Line *line_copy(const Line *line) noexcept nogil
cdef void log_write(Log *log, const Line *line, size_t unsent) noexcept nogil
cdef void log_lost(Log *log, uint64_t lines) noexcept nogil
cdef bytes log_take(Log *log)
