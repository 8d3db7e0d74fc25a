"""The access log: one line per answer, into memory here, to a file by somebody else's thread.

Owns: the line's format and the buffer. Refuses to know: files, sites.

log_write never waits for a reader: a line that finds no room is dropped and counted. The lock is held for a
copy in memory and no longer, by the reactor's thread and by the one that takes the lines away.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, strlen

from c1m.buf cimport Slice, put, put_number, put_text, same_letters
from c1m.http cimport HttpRequest
from c1m.linux cimport (
    MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, munmap,
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
)
from c1m.semantics cimport DATE_SIZE, http_date

cdef enum:
    BUFFER = 16 << 20            # bytes; touched only as far as lines pile up between two takings
    MAX_NUMBER = 20             # digits


cdef Log *log_new(bint as_json, uint64_t *dropped) noexcept nogil:
    """An empty log, which counts lines that are lost in `dropped`; NULL when memory is out."""
    cdef Log *log = <Log *>calloc(1, sizeof(Log))
    if log == NULL:
        return NULL
    log.buffer = <uint8_t *>mmap(
        NULL, 2 * BUFFER, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if <void *>log.buffer == MAP_FAILED:
        free(log)
        return NULL
    log.other = log.buffer + BUFFER
    pthread_mutex_init(&log.lock, NULL)
    log.as_json = as_json
    log.dropped = dropped
    return log


cdef void log_free(Log *log) noexcept nogil:
    if log != NULL:
        munmap(min(log.buffer, log.other), 2 * BUFFER)
        pthread_mutex_destroy(&log.lock)
        free(log)


cdef void log_line(
    const Log *log, Line *line, const char *peer, const HttpRequest *r, int status, int64_t length, int64_t unix_s
) noexcept nogil:
    """Makes a line. length: bytes of the body as announced, 0 for none."""
    line.length = length
    if log.as_json:
        put_json(line, peer, r, status, unix_s)
    else:
        put_combined(line, peer, r, status, unix_s)


cdef Line *line_copy(const Line *line) noexcept nogil:
    """A line for later, to be freed; NULL when memory is out."""
    cdef size_t n = sizeof(Line) - MAX_LINE + line.n
    cdef Line *copy = <Line *>malloc(n)
    if copy != NULL:
        memcpy(copy, line, n)
    return copy


cdef void log_write(Log *log, const Line *line, size_t unsent) noexcept nogil:
    """Adds a line. unsent: bytes of head and body that never left."""
    cdef uint8_t[MAX_NUMBER] number
    cdef size_t digits = put_number(number, line.length - min(<int64_t>unsent, line.length)) - number
    cdef uint8_t *to
    pthread_mutex_lock(&log.lock)
    if log.n + line.n + digits <= BUFFER:
        to = put(put(log.buffer + log.n, line.text, line.split), number, digits)
        put(to, line.text + line.split, line.n - line.split)
        log.n += line.n + digits
    else:
        log.dropped[0] += 1
    pthread_mutex_unlock(&log.lock)


cdef void log_lost(Log *log, uint64_t lines) noexcept nogil:
    """Counts lines that were taken away and could not be written."""
    pthread_mutex_lock(&log.lock)
    log.dropped[0] += lines
    pthread_mutex_unlock(&log.lock)


cdef bytes log_take(Log *log):
    """Takes away what has been written so far. One thread at a time may."""
    cdef uint8_t *lines
    cdef size_t n
    pthread_mutex_lock(&log.lock)      # for two stores: a lock that is held while Python allocates may wait for the GIL
    lines, n = log.buffer, log.n
    log.buffer, log.other, log.n = log.other, lines, 0
    pthread_mutex_unlock(&log.lock)
    return lines[:n]


cdef void put_combined(Line *line, const char *peer, const HttpRequest *r, int status, int64_t unix_s) noexcept nogil:
    """Apache's "combined" format, as nginx writes it: other bytes than printable ASCII, and quotes, as \\xHH."""
    cdef uint8_t[DATE_SIZE] date
    cdef uint8_t *to = put_text(put_text(line.text, peer), b" - - [")
    http_date(unix_s, date)                        # Sun, 06 Nov 1994 08:49:37 GMT
    to = put(put_text(put(to, date + 5, 2), b"/"), date + 8, 3)
    to = put(put_text(to, b"/"), date + 12, 4)
    to = put(put_text(to, b":"), date + 17, 8)
    to = put_value(put_text(to, b" +0000] \""), or_dash(r.line), b"\\x")
    to = put_text(put_number(put_text(to, b"\" "), status), b" ")
    line.split = to - line.text
    to = put_value(put_text(to, b" \""), or_dash(field_named(r, b"referer")), b"\\x")
    to = put_value(put_text(to, b"\" \""), or_dash(field_named(r, b"user-agent")), b"\\x")
    line.n = put_text(to, b"\"\n") - line.text


cdef void put_json(Line *line, const char *peer, const HttpRequest *r, int status, int64_t unix_s) noexcept nogil:
    """A JSON object on a line; bytes that are not ASCII stand as the characters of Latin-1."""
    cdef uint8_t *to = put_number(put_text(line.text, b"{\"time\": "), unix_s)
    to = put_text(put_text(to, b", \"remote\": \""), peer)
    to = put_value(put_text(to, b"\", \"request\": \""), r.line, b"\\u00")
    to = put_value(put_text(to, b"\", \"host\": \""), r.host, b"\\u00")
    to = put_number(put_text(to, b"\", \"status\": "), status)
    to = put_text(to, b", \"bytes\": ")
    line.split = to - line.text
    to = put_value(put_text(to, b", \"referer\": \""), field_named(r, b"referer"), b"\\u00")
    to = put_value(put_text(to, b"\", \"agent\": \""), field_named(r, b"user-agent"), b"\\u00")
    line.n = put_text(to, b"\"}\n") - line.text


cdef uint8_t *put_value(uint8_t *to, Slice value, const char *escape) noexcept nogil:
    """Up to MAX_VALUE bytes; what could end the string or the line as escape and two hexadecimal digits."""
    cdef const char *digits = b"0123456789ABCDEF"
    cdef size_t i
    cdef uint8_t c
    for i in range(min(value.n, <size_t>MAX_VALUE)):
        c = value.at[i]
        if c >= 0x20 and c < 0x7f and c != c'"' and c != c'\\':
            to[0] = c
            to += 1
        else:
            to = put_text(to, escape)
            to[0], to[1] = digits[c >> 4], digits[c & 15]
            to += 2
    return to


cdef inline Slice or_dash(Slice value) noexcept nogil:
    return value if value.n else Slice(b"-", 1)


cdef Slice field_named(const HttpRequest *r, const char *lower) noexcept nogil:
    """The first field of that name, or an empty slice."""
    cdef Slice name
    cdef int i
    for i in range(r.head.count):
        name = r.head.fields[i].name
        if name.n == strlen(lower) and same_letters(name.at, lower, name.n):
            return r.head.fields[i].value
    return Slice(NULL, 0)
