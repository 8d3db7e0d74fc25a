"""HTTP responses: heads out, and what is noted of each.

Owns: status lines and the fields that every response may have, the date, the counters by status, the access log's part.
Refuses to know: files, WebSockets, Python.

A response is begun by head_begin, or by head_count and a conn_reserve of one's own, and ended by head_end; its body
goes by conn_send or the write buffer. exchange_log then writes the log's line, or keeps it as the connection's session
until the body has been sent: exchange_done writes it.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport strlen

from c1m.accesslog cimport Line, line_copy, log_line, log_write
from c1m.address cimport MAX_ADDRESS_TEXT, Address, address_text
from c1m.buf cimport Slice, put, put_number, put_text
from c1m.http cimport ASKS_KEEP_ALIVE, HEAD, head_other
from c1m.reactor cimport CLOSED, Conn, conn_finish, conn_reserve, conn_unsent
from c1m.semantics cimport DATE_SIZE, http_date

cdef const char *ALLOWED = b"Allow: GET, HEAD, OPTIONS\r\n"
cdef const char *UPGRADE_FIELDS = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"


# ---- pieces of a head: each returns where the next byte goes ----

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
    to = put_text(put_number(put_text(to, b"HTTP/1.1 "), status), b" ")
    to = put_text(put_text(to, response_reason(status)), b"\r\nDate: ")
    return put_text(put(to, date, DATE_SIZE), b"\r\n")


cdef inline uint8_t *response_connection(uint8_t *to, const HttpRequest *r, bint keep) noexcept nogil:
    """Connection, where it has to be said: HTTP/1.1 keeps by default, 1.0 does not, but some that ask for it do
    not know."""
    if not keep:
        return put_text(to, b"Connection: close\r\n")
    return put_text(to, b"Connection: keep-alive\r\n") if r.minor == 0 or r.head.options & ASKS_KEEP_ALIVE else to


cdef uint8_t *response_validators(uint8_t *to, int64_t mtime, Slice etag) noexcept nogil:
    """Last-Modified, unless mtime is below 0, and ETag: all that a 304 repeats of them."""
    if mtime >= 0:
        to = put_text(to, b"Last-Modified: ")
        http_date(mtime, to)
        to = put_text(to + DATE_SIZE, b"\r\n")
    to = put_text(to, b"ETag: ")
    return put_text(put(to, etag.at, etag.n), b"\r\n")


cdef uint8_t *response_length(uint8_t *to, uint64_t n) noexcept nogil:
    """Content-Length and the head's end."""
    return put_text(put_number(put_text(to, b"Content-Length: "), n), b"\r\n\r\n")


cdef void date_renew(Responder *out) noexcept nogil:
    out.date_s = out.r.unix_s
    http_date(out.date_s, out.date)


# ---- an exchange ----

cdef uint8_t *head_begin(Exchange *x, int status, size_t more) noexcept nogil:
    """Begins a head and counts the response; returns where its fields go. There is capacity for those that the mount
    adds, and `more` bytes."""
    cdef uint8_t *to = conn_reserve(x.out.r, x.c, MAX_HEAD + x.own_fields + more)
    to = response_head(to, status, response_date(x.out))
    head_count(x, status)
    if x.origin.n:
        to = put_text(put(put_text(to, b"Access-Control-Allow-Origin: "), x.origin.at, x.origin.n), b"\r\n")
        to = put(to, x.cors_fields.at, x.cors_fields.n)
    if x.by_origin:
        to = put_text(to, b"Vary: Origin\r\n")
    if x.vary != NULL:
        to = put_text(put_text(put_text(to, b"Vary: "), x.vary), b"\r\n")
    return response_connection(to, x.request, x.keep)


cdef uint8_t *put_text_body(Exchange *x, uint8_t *to, int status) noexcept nogil:
    """The rest of a head, and a body that names the status: "404 Not Found" as a line."""
    to = put_text(to, b"Content-Type: text/plain; charset=utf-8\r\n")
    to = put_length(x, to, 3 + 1 + strlen(response_reason(status)) + 1)
    if x.request.method == HEAD:
        return to
    to = put_text(put_number(to, status), b" ")
    return put_text(put_text(to, response_reason(status)), b"\n")


cdef void respond_status(Exchange *x, int status, const char *fields) noexcept nogil:
    """A response that says no more than its status; fields: whole lines to add."""
    cdef uint8_t *to = put_text(head_begin(x, status, 0), fields)
    head_end(x, put_text_body(x, to, status))


cdef void respond_options(Exchange *x) noexcept nogil:
    """204 with what is allowed (RFC 9110 section 9.3.7), also to a CORS preflight (Fetch section 3.2).

    The fields that a script wants to send mean nothing here, so any are allowed, by their names: "*" would not be
    Authorization, nor any at all where credentials are sent.
    """
    cdef Slice asked = head_other(&x.request.head, b"access-control-request-headers")
    cdef uint8_t *to = put_text(head_begin(x, 204, asked.n), ALLOWED)
    if x.origin.n:
        to = put_text(to, b"Access-Control-Allow-Methods: GET, HEAD, OPTIONS\r\nAccess-Control-Max-Age: 86400\r\n")
        if asked.n:
            to = put(put_text(to, b"Access-Control-Allow-Headers: "), asked.at, asked.n)
            to = put_text(to, b"\r\n")
    head_end(x, put_text(to, b"\r\n"))


cdef void respond_not_allowed(Exchange *x) noexcept nogil:
    """405, with what is allowed (RFC 9110 section 15.5.6)."""
    respond_status(x, 405, ALLOWED)


cdef void respond_upgrade_required(Exchange *x) noexcept nogil:
    """426, with the version that is spoken (RFC 9110 section 15.5.22, RFC 6455 section 4.2.2)."""
    respond_status(x, 426, UPGRADE_FIELDS)


cdef void respond_failure(Exchange *x, int status) noexcept nogil:
    """The last response on a connection whose requests can't be told apart any more."""
    respond_status(x, status, b"")
    if x.out.log != NULL:
        exchange_log(x)
    conn_finish(x.out.r, x.c, True)


# ---- the access log ----

cdef void exchange_log(Exchange *x) noexcept nogil:
    """Logs a response; one whose body the client does not take at once, when it was sent or the connection ends."""
    cdef char[MAX_ADDRESS_TEXT] client
    cdef Address told
    cdef Line line
    cdef int64_t unsent = 0
    address_text(exchange_client(x, &told), client)
    log_line(x.out.log, &line, client, x.request, x.status,
             0 if x.request.method == HEAD or x.status == 304 else x.length, x.out.r.unix_s)
    if line.length and x.c.flags & CLOSED:
        unsent = line.length - max(<int64_t>(x.out.r.current_sent - x.head_sent), 0)
    elif line.length and x.c.output != NULL:     # so it is no upgrade, which has use for the session itself
        x.c.session = line_copy(&line)
        if x.c.session != NULL:
            return
    log_write(x.out.log, &line, unsent)


cdef void exchange_done(Responder *out, Conn *c) noexcept nogil:
    """The connection's last response was sent or given up: writes its line in the log, if that is still to be done."""
    if c.session != NULL:
        log_write(out.log, <Line *>c.session, conn_unsent(c))
        free(c.session)
        c.session = NULL
