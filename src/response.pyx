"""Heads of responses: status line, fields, and the body that is only a status.

Owns: what is written on the wire. Refuses to know: requests, connections, files, clocks.

Each writer returns where the next byte goes. MAX_HEAD bytes are room enough for a head of one each of them.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport strlen

from c1m.buf cimport Slice, put, put_number, put_text
from c1m.semantics cimport DATE_SIZE, http_date


cdef const char *response_reason(int status) noexcept nogil:
    """The reason phrase of RFC 9110 section 15."""
    if status == 101:
        return b"Switching Protocols"
    elif status == 200:
        return b"OK"
    elif status == 204:
        return b"No Content"
    elif status == 206:
        return b"Partial Content"
    elif status == 301:
        return b"Moved Permanently"
    elif status == 304:
        return b"Not Modified"
    elif status == 400:
        return b"Bad Request"
    elif status == 401:
        return b"Unauthorized"
    elif status == 403:
        return b"Forbidden"
    elif status == 404:
        return b"Not Found"
    elif status == 405:
        return b"Method Not Allowed"
    elif status == 408:
        return b"Request Timeout"
    elif status == 412:
        return b"Precondition Failed"
    elif status == 413:
        return b"Content Too Large"
    elif status == 414:
        return b"URI Too Long"
    elif status == 416:
        return b"Range Not Satisfiable"
    elif status == 417:
        return b"Expectation Failed"
    elif status == 426:
        return b"Upgrade Required"
    elif status == 429:
        return b"Too Many Requests"
    elif status == 431:
        return b"Request Header Fields Too Large"
    elif status == 500:
        return b"Internal Server Error"
    elif status == 501:
        return b"Not Implemented"
    elif status == 503:
        return b"Service Unavailable"
    elif status == 505:
        return b"HTTP Version Not Supported"
    return b""                   # of a status that only a handler sends; RFC 9112 section 4 lets it be empty


cdef uint8_t *response_head(uint8_t *to, int status, const uint8_t *date) noexcept nogil:
    """Status line and Date. With status 200 the date stands at DATE_AT."""
    to = put_text(to, b"HTTP/1.1 ")
    to = put_number(to, status)
    to = put_text(to, b" ")
    to = put_text(to, response_reason(status))
    to = put_text(to, b"\r\nDate: ")
    to = put(to, date, DATE_SIZE)
    return put_text(to, b"\r\n")


cdef uint8_t *response_connection(uint8_t *to, uint8_t minor, bint keep) noexcept nogil:
    """Connection, where it has to be said: HTTP/1.1 keeps by default, 1.0 does not."""
    if not keep:
        return put_text(to, b"Connection: close\r\n")
    return put_text(to, b"Connection: keep-alive\r\n") if minor == 0 else to


cdef uint8_t *response_validators(uint8_t *to, int64_t mtime, Slice etag) noexcept nogil:
    """Last-Modified and ETag: all that a 304 repeats of them."""
    to = put_text(to, b"Last-Modified: ")
    http_date(mtime, to)
    to = put_text(to + DATE_SIZE, b"\r\nETag: ")
    to = put(to, etag.at, etag.n)
    return put_text(to, b"\r\n")


cdef uint8_t *response_length(uint8_t *to, uint64_t n) noexcept nogil:
    """Content-Length and the head's end."""
    to = put_text(to, b"Content-Length: ")
    return put_text(put_number(to, n), b"\r\n\r\n")


cdef uint8_t *response_text(uint8_t *to, int status, bint with_body) noexcept nogil:
    """The rest of a response that is only a status: its fields, the head's end and "404 Not Found" as a line."""
    to = put_text(to, b"Content-Type: text/plain; charset=utf-8\r\n")
    to = response_length(to, response_text_size(status))
    if not with_body:
        return to
    to = put_text(put_number(to, status), b" ")
    return put_text(put_text(to, response_reason(status)), b"\n")


cdef size_t response_text_size(int status) noexcept nogil:
    """Bytes of that body."""
    return 3 + 1 + strlen(response_reason(status)) + 1
