"""HTTP/1.1 messages in: requests for a server, responses for a client (RFC 9112).

Owns: the grammar of heads and the framing of bodies.
Refuses to know: sockets, files, clocks, Python objects, what fields mean besides framing. Everything arrives as an
argument; nothing is allocated, and no pointer is held between calls.

A server drives it so:

    used = http_next(parser, bytes, n, &request)
    HTTP_MORE      keep bytes[used:] and come back with more behind them
    HTTP_REQUEST   respond to it; its slices point into bytes
    HTTP_BODY      some of the body of the last request, in request.body; ignore it or keep it
    HTTP_FAIL      respond with request.status unless the request was responded to before its body came (parser.phase
                   tells), and close; not one byte more is read as a request

And a client, where expect (HttpExpect) tells of the request that the response is for:

    used = http_response_next(parser, expect, bytes, n, &response)
    HTTP_MORE      as above
    HTTP_INTERIM   a 1xx; the final response is still to come
    HTTP_RESPONSE  the head of the final response
    HTTP_BODY      some of its body, in response.body
    HTTP_FAIL      close; response.fault says why

A message is complete, and the parser ready for the next one, where parser.phase is AT_HEAD after an event. When the
server has closed the connection, http_response_end says what that means.

Fields that survive: HTTP_BODY changes kind and body alone. Whatever else HTTP_REQUEST or HTTP_RESPONSE has set stays as
it is until the next head is parsed, through the trailers too. HTTP_FAIL inside a body changes kind, body and status, or
fault. The slices of the head point into the bytes that it was parsed from: to use them later, copy the head.

Invariants: an HttpParser is 16 bytes. A line is judged when it is whole, except that a control character or a
line too long is judged at once; so a head gives the same event however it was cut. Of a body that is cut differently
only the number of HTTP_BODY events and the length of each differ. There is no limit to the number of interim
responses, nor to the length of a response's body: a client bounds both in time.

Strictness of requests:
  bare LF, bare CR, NUL, other controls      9112 2.2, 9110 5.5   400
  empty lines before the request line        9112 2.2    up to 4 skipped, then 400
  request line over 8 KiB                    9112 3      414
  two spaces, tab, trailing space in it      9112 3      400
  method not a token                         9110 9.1    400
  target not visible ASCII, or with #        9112 3.2    400
  %-escape malformed or of NUL               3986 2.1    400 (in the path)
  %-escape of a slash                        3986 2.2    read; http_has_escaped_slash tells, and httpconn has 400
  absolute-form                              9112 3.2.2  served; its authority stands in for Host
  asterisk-form                              9112 3.2.4  OPTIONS only, else 400
  authority-form                             9112 3.2.3  CONNECT only, else 400
  HTTP/0.x, 2.x and up, the HTTP/2 preface   9110 2.5    505
  HTTP/1.2 and up                            9110 6.2    read as 1.1
  line folding                               9112 5.2    400
  space before the colon, empty field name   9112 5.1    400
  fields over 16 KiB or 100                  6585 5      431
  Host missing in 1.1, twice, malformed      9112 3.2    400
  Content-Length not digits, twice, a list, over 18 digits  9112 6.3  400
  Transfer-Encoding with Content-Length      9112 6.1    400
  Transfer-Encoding in HTTP/1.0              9112 6.1    400
  Transfer-Encoding not ending in chunked, chunked twice  9112 6.3  400
  another coding before chunked              9112 6.1    501
  Content-Length over 1 MiB                  9110 15.5.14 413
  chunked body over 1 MiB with its framing   9110 15.5.14 413
  chunk size not hexadecimal, none, blanks behind it  9112 7.1  400
  chunk extensions                           9112 7.1.1  skipped; malformed or, with the size, over 256 bytes 400
  bare LF or CR in chunk framing, data not followed by CRLF  9112 7.1  400
  trailers                                   9112 7.1.2  checked as field lines are, and skipped
  Expect with anything but 100-continue      9110 10.1.1 417 (a flag: the framing is sound)

Strictness of responses:
  bare LF, bare CR, NUL, other controls      9112 2.2, 9110 5.5   malformed
  empty lines before the status line         9112 2.2    malformed
  status line over 8 KiB                     9112 4      too long
  two spaces, tab, another code than three digits, one below 100  9112 4  malformed
  no space behind the status code            9112 4      taken for an empty reason
  status codes from 600 to 999               9110 15     taken as they are
  HTTP/0.x, 2.x and up                       9110 2.5    unsupported
  HTTP/1.2 and up                            9110 6.2    read as 1.1
  line folding                               9112 5.2    malformed (the RFC has a user agent join the lines)
  space before the colon, empty field name   9112 5.1    malformed
  fields over 16 KiB or 100                  9110 5.4    too long
  1xx besides 101                            9110 15.2   events of their own, of any number
  101 where no Upgrade was sent              9110 15.2.2 malformed
  101, 2xx to CONNECT                        9112 6.3    no body; what follows is not read
  1xx, 204, 304, any response to HEAD        9112 6.3    no body, whatever Content-Length and Transfer-Encoding say
  Content-Length not digits, twice, a list, over 18 digits  9112 6.3  malformed, also of what has no body
  Transfer-Encoding with Content-Length      9112 6.3    malformed
  Transfer-Encoding in HTTP/1.0              9112 6.1    malformed
  Transfer-Encoding not ending in chunked, chunked twice  9112 6.3  malformed (the RFC has the first read until close)
  another coding before chunked              9112 6.1    unsupported
  neither of them                            9112 6.3    a body until close
  body over 4 GiB                            9112 6.2    read
  chunk over 2**59 bytes                     9112 7.1    too long
  chunk size not hexadecimal, none, blanks behind it  9112 7.1  malformed
  chunk extensions                           9112 7.1.1  skipped; malformed or, with the size, over 256 bytes malformed
  bare LF or CR in chunk framing, data not followed by CRLF  9112 7.1  malformed
  trailers                                   9112 7.1.2  checked as field lines are, and skipped; over 16 KiB too long
  an end of the connection inside a response 9112 8      cut
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, strchr

from c1m.buf cimport (
    CLASS, DIGIT, HEX, HOST, TARGET, TOKEN, Slice, find_control, hex_value, put_text, same_letters,
    static_assert,
)

cdef enum:
    LINE_OPEN = 1                # in place of a status: the line is not whole yet
    SAW_CLOSE = 1 << 8           # HttpHead.options: named by Connection
    SAW_UPGRADE = 1 << 10        # likewise
    SAW_WEBSOCKET = 1 << 11      # named by Upgrade

static_assert(sizeof(HttpParser) == 16)

# https://www.iana.org/assignments/http-methods, but for those of method_of; each with a space behind it.
cdef const char *REGISTERED = (
    b"ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT COPY LABEL LINK LOCK MERGE MKACTIVITY MKCALENDAR MKCOL MKREDIRECTREF "
    b"MKWORKSPACE MOVE ORDERPATCH PROPFIND PROPPATCH QUERY REBIND REPORT SEARCH UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE "
    b"UPDATEREDIRECTREF VERSION-CONTROL "
)


# ---- requests ----

cdef size_t http_next(HttpParser *p, const uint8_t *bytes, size_t n, HttpRequest *r) noexcept nogil:
    """Finds the next event in bytes[:n]; returns how many bytes it used up, which with HTTP_MORE are blank lines."""
    cdef size_t blank = 0, used
    cdef int status
    if p.phase != AT_HEAD:
        used = body_next(p, bytes, n, True, &r.body, &status)
        if status:
            return fail(r, status)
        r.kind = HTTP_BODY if used else HTTP_MORE
        return used
    if p.scanned == 0:
        while p.blanks < MAX_BLANK_LINES and n - blank >= 2 and bytes[blank] == CR and bytes[blank + 1] == LF:
            blank += 2
            p.blanks += 1
    r.kind = HTTP_MORE
    if blank == n or nothing_new(p, bytes + blank, n - blank, MAX_REQUEST_LINE):
        return blank
    used = request_parse(p, bytes + blank, bytes + n, r)
    if r.kind == HTTP_REQUEST:
        p.body = r.content_length
        p.phase = AT_CHUNK if r.flags & CHUNKED else IN_BODY if p.body else AT_HEAD
    if r.kind != HTTP_MORE:
        p.scanned = p.fields_at = p.blanks = 0
    return blank + used


cdef size_t request_parse(HttpParser *p, const uint8_t *start, const uint8_t *end, HttpRequest *r) noexcept nogil:
    """Parses a head from its first byte. Sets r.kind; returns its length if it is whole, else 0."""
    cdef const uint8_t *stop = find_control(start, end)
    cdef int status, fault
    r.flags = 0
    r.host.n = 0
    r.content_length = 0
    r.method = UNKNOWN_METHOD
    r.line = Slice(start, stop - start)
    head_clear(&r.head)
    status = 414 if stop - start > MAX_REQUEST_LINE else line_state(stop, end)
    if status != LINE_OPEN:
        # Parsed even if it is too long: for HEAD the error response has no body.
        fault = request_line(start, stop, r)
        status = status if status else fault
    if status == 0:
        p.fields_at = <uint16_t>(stop + 2 - start)
        status = fields_parse(stop + 2, end, &r.head, &stop)
    if status == 0:
        status = request_finish(r)
        if status == 0:
            r.kind = HTTP_REQUEST
            return stop + 2 - start
    if status != LINE_OPEN:
        return fail(r, status)
    # A last CR may be half of a line end: look at it again.
    p.scanned = <uint32_t>(stop - start)
    r.kind = HTTP_MORE
    return 0


cdef inline size_t fail(HttpRequest *r, int status) noexcept nogil:
    r.kind = HTTP_FAIL
    r.status = status
    return 0


cdef inline int request_finish(HttpRequest *r) noexcept nogil:
    """What can be judged only with all fields read. 0 or the status to fail with."""
    cdef uint64_t length
    cdef int status
    if twice(r, HOST_FIELD) or (r.minor >= 1 and not has(r, HOST_FIELD)):
        return 400
    if has(r, HOST_FIELD):
        if not host_ok(value_of(r, HOST_FIELD)):
            return 400
        if r.host.n == 0:
            r.host = value_of(r, HOST_FIELD)
    r.flags = connection_flags(&r.head, r.minor)
    if r.minor >= 1:
        r.flags |= r.head.options & (EXPECT_CONTINUE | EXPECT_UNKNOWN)
    status = framing(&r.head, r.minor, &length)
    if status:
        return status
    if has(r, TRANSFER_ENCODING):
        r.flags |= CHUNKED
    if length > MAX_BODY:
        return 413
    r.content_length = <uint32_t>length
    return 0


cdef inline int request_line(const uint8_t *at, const uint8_t *stop, HttpRequest *r) noexcept nogil:
    """method SP target SP version (RFC 9112 section 3). 0 or the status to fail with."""
    cdef const uint8_t *from_ = at
    cdef int status
    at = token_end(at, stop)
    if at == from_ or at == stop or at[0] != SP:
        return 400
    r.method = method_of(from_, at - from_)
    at += 1
    from_ = at
    while at < stop and CLASS[at[0]] & TARGET:
        at += 1
    if at == from_ or at == stop or at[0] != SP or stop - at != 9:
        return 400
    status = version_parse(at + 1, &r.minor)
    return status if status else target_parse(from_, at, r)


cdef inline Method method_of(const uint8_t *at, size_t n) noexcept nogil:
    if n == 3 and memcmp(at, b"GET", 3) == 0:
        return GET
    if n == 4 and memcmp(at, b"HEAD", 4) == 0:
        return HEAD
    if n == 7 and memcmp(at, b"OPTIONS", 7) == 0:
        return OPTIONS
    if n == 7 and memcmp(at, b"CONNECT", 7) == 0:
        return CONNECT
    if (n == 3 and memcmp(at, b"PUT", 3) == 0) or (n == 4 and memcmp(at, b"POST", 4) == 0):
        return OTHER_METHOD
    if n == 5 and (memcmp(at, b"PATCH", 5) == 0 or memcmp(at, b"TRACE", 5) == 0):
        return OTHER_METHOD
    if n == 6 and memcmp(at, b"DELETE", 6) == 0:
        return OTHER_METHOD
    return OTHER_METHOD if is_registered(at, n) else UNKNOWN_METHOD


cdef bint is_registered(const uint8_t *at, size_t n) noexcept nogil:
    """Whether IANA's registry of methods has it. "PRI" stands there lest anybody use it (RFC 9113 section 3.4)."""
    cdef const char *name = REGISTERED
    cdef const char *end
    while name[0]:
        end = strchr(name, c' ')
        if <size_t>(end - name) == n and memcmp(name, at, n) == 0:
            return True
        name = end + 1
    return False


cdef inline int target_parse(const uint8_t *at, const uint8_t *stop, HttpRequest *r) noexcept nogil:
    """The four forms of a request target (RFC 9112 section 3.2), at whose end, stop, is a space. 0 or the status to
    fail with."""
    cdef const uint8_t *from_ = at
    r.host.n = 0
    r.query.n = 0
    r.plain_path = True
    if at[0] != c'/':
        if r.method == CONNECT:
            r.host = Slice(at, stop - at)
            r.path.n = 0
            return 0 if host_ok(r.host) and port_named(r.host) else 400
        if r.method == OPTIONS and stop - at == 1 and at[0] == c'*':
            r.path = Slice(at, 1)
            return 0
        if stop - at > 7 and same_letters(at, b"http", 4) and memcmp(at + 4, b"://", 3) == 0:
            at += 7
        elif stop - at > 8 and same_letters(at, b"https", 5) and memcmp(at + 5, b"://", 3) == 0:
            at += 8
        else:
            return 400
        from_ = at
        while at < stop and at[0] != c'/' and at[0] != c'?':
            at += 1
        r.host = Slice(from_, at - from_)
        if at == from_ or not host_ok(r.host):
            return 400
        from_ = at
        r.path = Slice(b"/", 1)
    elif r.method == CONNECT:
        return 400
    else:
        r.plain_path = at[1] & 0xFE != c'.'                   # as below
        at += 1
    while at[0] != c'?':
        if at[0] <= c'/':        # punctuation, of which three kinds matter: few bytes of a path need a closer look
            if at[0] == SP:
                break            # at stop
            if at[0] == c'%':
                if not escape_ok(at, stop):
                    return 400
                if at[1] == c'0' and at[2] == c'0':
                    return 400
                r.plain_path = False
            elif at[0] == c'/' and at[1] & 0xFE == c'.':      # a dot or a slash follows; stop can be read
                r.plain_path = False
        at += 1
    if at > from_:
        r.path = Slice(from_, at - from_)
    if at < stop:
        r.query = Slice(at + 1, stop - at - 1)
    return 0


cdef bint host_ok(Slice host) noexcept nogil:
    """uri-host [ ":" port ] (RFC 9110 section 7.2); empty is allowed, a port alone and user information are not.

    Behind it, in the message, stands what no host has in it: the end of a line, a blank, a slash or a question mark.
    """
    cdef const uint8_t *at = host.at
    cdef const uint8_t *end = at + host.n
    if at < end and at[0] == c'[':
        while at < end and at[0] != c']':
            at += 1
        if at == end or not literal_ok(host.at + 1, at):
            return False
        at += 1
    else:
        while True:
            while CLASS[at[0]] & HOST:
                at += 1
            if not escape_ok(at, end):
                break
            at += 3
        if at == host.at:
            return host.n == 0
    if at < end:
        if at[0] != c':':
            return False
        at += 1
        while at < end and CLASS[at[0]] & DIGIT:
            at += 1
    return at == end


cdef bint port_named(Slice host) noexcept nogil:
    """Whether a host that is ok ends with a port, and not just its colon (RFC 9110 section 9.3.6)."""
    cdef size_t n = host.n
    while n and CLASS[host.at[n - 1]] & DIGIT:
        n -= 1
    return n and n < host.n and host.at[n - 1] == c':'


cdef inline bint escape_ok(const uint8_t *at, const uint8_t *end) noexcept nogil:
    """Whether "%" HEXDIG HEXDIG (RFC 3986 section 2.1) is there."""
    return end - at > 2 and at[0] == c'%' and CLASS[at[1]] & CLASS[at[2]] & HEX


cdef bint literal_ok(const uint8_t *at, const uint8_t *end) noexcept nogil:
    """IPv6address / "v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" ), within brackets (RFC 3986 section 3.2.2)."""
    cdef const uint8_t *from_ = at + 1
    if at == end or at[0] | 0x20 != c'v':
        return ipv6_ok(at, end)
    at = from_
    while at < end and CLASS[at[0]] & HEX:
        at += 1
    if at == from_ or at == end or at[0] != c'.':
        return False
    from_ = at + 1
    at = from_
    while at < end and (CLASS[at[0]] & HOST or at[0] == c':'):
        at += 1
    return at == end and at > from_


cdef bint ipv6_ok(const uint8_t *at, const uint8_t *end) noexcept nogil:
    """Eight groups of one to four hexadecimal digits; "::" once, for one or more; an IPv4 address for the last two."""
    cdef const uint8_t *from_ = at
    cdef int groups = 0
    cdef bint gap = False
    while at < end:
        if end - at > 1 and at[0] == c':' and at[1] == c':':
            if gap:
                return False
            gap = True
            at += 2
            if at == end:
                break
        elif at > from_:
            if at[0] != c':':
                return False
            at += 1
        from_ = at
        while at < end and CLASS[at[0]] & HEX:
            at += 1
        if at < end and at[0] == c'.':
            if not ipv4_ok(from_, end):
                return False
            groups += 1
            at = end
        elif at == from_ or at - from_ > 4:
            return False
        groups += 1
    return groups < 8 if gap else groups == 8


cdef bint ipv4_ok(const uint8_t *at, const uint8_t *end) noexcept nogil:
    """Four numbers up to 255 without leading zeros, and dots between them."""
    cdef const uint8_t *from_
    cdef int i, value
    for i in range(4):
        if i:
            if at == end or at[0] != c'.':
                return False
            at += 1
        from_ = at
        value = 0
        while at < end and CLASS[at[0]] & DIGIT and at - from_ < 3:
            value = 10 * value + (at[0] - c'0')
            at += 1
        if at == from_ or value > 255 or (from_[0] == c'0' and at - from_ > 1):
            return False
    return at == end


# ---- responses ----

cdef size_t http_response_next(
    HttpParser *p, uint32_t expect, const uint8_t *bytes, size_t n, HttpResponse *r,
) noexcept nogil:
    """Finds the next event in bytes[:n]; returns how many bytes it used up, with HTTP_MORE none.

    expect: HttpExpect, of the request that this response is for; used for a head only. After a response with SWITCHED
    every call returns 0 with HTTP_MORE.
    """
    cdef size_t used = 0
    cdef int status = 0
    r.kind = HTTP_MORE
    if p.phase == AT_HEAD:
        if n and not nothing_new(p, bytes, n, MAX_STATUS_LINE):
            used = response_parse(p, expect, bytes, bytes + n, r, &status)
            if status != LINE_OPEN:
                p.scanned = p.fields_at = 0
    elif p.phase == UNTIL_END:
        r.body = Slice(bytes, n)
        used = n
    elif p.phase != AFTER_SWITCH:
        used = body_next(p, bytes, n, False, &r.body, &status)
    if status and status != LINE_OPEN:
        r.kind = HTTP_FAIL
        r.fault = HTTP_MALFORMED if status == 400 else HTTP_TOO_LONG if status < 500 else HTTP_UNSUPPORTED
        return 0
    if used and r.kind == HTTP_MORE:
        r.kind = HTTP_BODY
    return used


cdef HttpEnd http_response_end(const HttpParser *p, size_t n) noexcept nogil:
    """What it means that the connection has ended here, where n bytes are left that http_response_next has not used."""
    if p.phase == UNTIL_END:
        return END_OF_BODY
    return END_BETWEEN if p.phase == AFTER_SWITCH or (p.phase == AT_HEAD and n == 0) else END_CUT


cdef size_t response_parse(
    HttpParser *p, uint32_t expect, const uint8_t *start, const uint8_t *end, HttpResponse *r, int *failed,
) noexcept nogil:
    """Parses a head from its first byte. If it is whole, sets r.kind and p.phase and returns its length.

    Else returns 0; failed is LINE_OPEN, or the status that a request would fail with.
    """
    cdef const uint8_t *stop = find_control(start, end)
    cdef int status
    r.flags = r.status = 0
    r.content_length = 0
    r.line = Slice(start, stop - start)
    r.reason.n = 0
    head_clear(&r.head)
    status = 414 if stop - start > MAX_STATUS_LINE else line_state(stop, end)
    if status == 0:
        status = status_line(start, stop, r)
    if status == 0:
        p.fields_at = <uint16_t>(stop + 2 - start)
        status = fields_parse(stop + 2, end, &r.head, &stop)
    if status == 0:
        status = response_finish(p, expect, r)
    failed[0] = status
    if status == LINE_OPEN:
        p.scanned = <uint32_t>(stop - start)
    return 0 if status else stop + 2 - start


cdef inline int status_line(const uint8_t *at, const uint8_t *stop, HttpResponse *r) noexcept nogil:
    """version SP code [ SP [ reason ] ] (RFC 9112 section 4). 0 or the status to fail with."""
    cdef int status
    if stop - at < 12:
        return 400
    status = version_parse(at, &r.minor)
    if status:
        return status
    if at[8] != SP or not CLASS[at[9]] & CLASS[at[10]] & CLASS[at[11]] & DIGIT or at[9] == c'0':
        return 400
    r.status = 100 * (at[9] - c'0') + 10 * (at[10] - c'0') + (at[11] - c'0')
    if stop - at > 12:
        if at[12] != SP:
            return 400
        r.reason = Slice(at + 13, stop - at - 13)
    return 0


cdef inline int response_finish(HttpParser *p, uint32_t expect, HttpResponse *r) noexcept nogil:
    """Sets the event and what follows it (RFC 9112 section 6.3). 0 or the status to fail with."""
    cdef int status = framing(&r.head, r.minor, &r.content_length)
    if status:
        return status
    r.kind = HTTP_RESPONSE
    r.flags = connection_flags(&r.head, r.minor)
    if r.status == 101 or (expect & FOR_CONNECT and 200 <= r.status <= 299):
        if r.status == 101 and not expect & FOR_UPGRADE:
            return 400
        r.flags = r.flags & ~<uint32_t>KEEP_ALIVE | SWITCHED
        p.phase = AFTER_SWITCH
    elif r.status < 200:
        r.kind = HTTP_INTERIM
    elif expect & FOR_HEAD or r.status == 204 or r.status == 304:
        pass
    elif head_has(&r.head, TRANSFER_ENCODING):
        r.flags |= CHUNKED
        p.phase = AT_CHUNK
    elif head_has(&r.head, CONTENT_LENGTH):
        p.body = r.content_length
        p.phase = IN_BODY if p.body else AT_HEAD
    else:
        r.flags = r.flags & ~<uint32_t>KEEP_ALIVE | UNTIL_CLOSE
        p.phase = UNTIL_END
    return 0


# ---- lines and fields, of either ----

cdef inline bint nothing_new(HttpParser *p, const uint8_t *bytes, size_t n, size_t most) noexcept nogil:
    """Whether the bytes past those already scanned end no line and break no limit: then there is nothing to parse.

    It keeps a head that comes byte by byte from being parsed anew for each byte. most: bytes of its first line.
    """
    if p.scanned == 0 or n > p.fields_at + (<size_t>MAX_FIELD_BYTES if p.fields_at else most):
        return False
    if find_control(bytes + p.scanned, bytes + n) != bytes + n:
        return False
    p.scanned = <uint32_t>n
    return True


cdef inline int line_state(const uint8_t *stop, const uint8_t *end) noexcept nogil:
    """Of the first control character after a line's text: 0 if it is CRLF, LINE_OPEN if that may still come, 400."""
    if stop == end:
        return LINE_OPEN
    if stop[0] != CR:
        return 400
    if stop + 1 == end:
        return LINE_OPEN
    return 0 if stop[1] == LF else 400


cdef inline int version_parse(const uint8_t *at, uint8_t *minor) noexcept nogil:
    """The eight characters of a version (RFC 9112 section 2.3). 0 or the status to fail with."""
    if memcmp(at, b"HTTP/", 5) != 0 or not (CLASS[at[5]] & DIGIT and at[6] == c'.' and CLASS[at[7]] & DIGIT):
        return 400
    minor[0] = at[7] - c'0'
    return 0 if at[5] == c'1' else 505


cdef inline void head_clear(HttpHead *h) noexcept nogil:
    h.seen = h.again = h.options = 0
    h.count = 0


cdef inline int fields_parse(
    const uint8_t *at, const uint8_t *end, HttpHead *h, const uint8_t **stopped,
) noexcept nogil:
    """Parses field lines from at on, to the empty line behind them. 0, LINE_OPEN or the status to fail with.

    stopped: where the last line's text ends, or as much of it as there is.
    """
    cdef const uint8_t *most = at + MAX_FIELD_BYTES
    cdef const uint8_t *stop
    cdef int status
    while True:
        stop = find_control(at, end)
        if stop > most:
            status = 431
            break
        status = line_state(stop, end)
        if status or stop == at:
            break
        status = field_line(at, stop, h)
        if status:
            break
        at = stop + 2
    stopped[0] = stop
    return status


cdef inline const uint8_t *name_end(const uint8_t *at, const uint8_t *stop) noexcept nogil:
    """Where the colon behind a field's name stands; NULL: there is no name or no colon behind it. stop: the CR that
    ends the line."""
    cdef const uint8_t *from_ = at
    while CLASS[at[0]] & TOKEN:
        at += 1
    if at == from_ or at[0] != c':':
        return NULL
    return at


cdef inline int field_line(const uint8_t *at, const uint8_t *stop, HttpHead *h) noexcept nogil:
    """name ":" OWS value OWS (RFC 9112 section 5). 0 or the status to fail with."""
    cdef Field *field = &h.fields[h.count]
    cdef uint32_t bit
    if h.count == MAX_FIELDS:
        return 431
    field.name.at = at
    at = name_end(at, stop)
    if at == NULL:
        return 400
    field.name.n = at - field.name.at
    field.value = http_trimmed(at + 1, stop)
    field.id = field_id(field.name.at, field.name.n)
    h.count += 1
    if field.id == OTHER_FIELD:
        return 0
    bit = 1 << field.id
    if h.seen & bit:
        h.again |= bit
    else:
        h.seen |= bit
        h.known[<int>field.id] = field.value
    if field.id == CONNECTION or field.id == UPGRADE or field.id == EXPECT:
        options_read(h, field)
    return 0


cdef inline FieldId field_id(const uint8_t *name, size_t n) noexcept nogil:
    if n == 4:
        return HOST_FIELD if same_letters(name, b"host", n) else OTHER_FIELD
    if n == 5:
        return RANGE if same_letters(name, b"range", n) else OTHER_FIELD
    if n == 6:
        if same_letters(name, b"expect", n):
            return EXPECT
        if same_letters(name, b"origin", n):
            return ORIGIN
        return ACCEPT if same_letters(name, b"accept", n) else OTHER_FIELD
    if n == 7:
        return UPGRADE if same_letters(name, b"upgrade", n) else OTHER_FIELD
    if n == 8:
        if same_letters(name, b"if-range", n):
            return IF_RANGE
        return IF_MATCH if same_letters(name, b"if-match", n) else OTHER_FIELD
    if n == 10:
        return CONNECTION if same_letters(name, b"connection", n) else OTHER_FIELD
    if n == 13:
        return IF_NONE_MATCH if same_letters(name, b"if-none-match", n) else OTHER_FIELD
    if n == 14:
        return CONTENT_LENGTH if same_letters(name, b"content-length", n) else OTHER_FIELD
    if n == 15:
        return ACCEPT_ENCODING if same_letters(name, b"accept-encoding", n) else OTHER_FIELD
    if n == 17:
        if same_letters(name, b"if-modified-since", n):
            return IF_MODIFIED_SINCE
        if same_letters(name, b"sec-websocket-key", n):
            return SEC_WEBSOCKET_KEY
        return TRANSFER_ENCODING if same_letters(name, b"transfer-encoding", n) else OTHER_FIELD
    if n == 19:
        return IF_UNMODIFIED_SINCE if same_letters(name, b"if-unmodified-since", n) else OTHER_FIELD
    if n == 21:
        return SEC_WEBSOCKET_VERSION if same_letters(name, b"sec-websocket-version", n) else OTHER_FIELD
    if n == 22:
        return SEC_WEBSOCKET_PROTOCOL if same_letters(name, b"sec-websocket-protocol", n) else OTHER_FIELD
    if n == 24:
        return SEC_WEBSOCKET_EXTENSIONS if same_letters(name, b"sec-websocket-extensions", n) else OTHER_FIELD
    return OTHER_FIELD


cdef inline void options_read(HttpHead *h, const Field *field) noexcept nogil:
    """Notes what we know of a Connection, Upgrade or Expect field's list."""
    cdef Slice rest = field.value, item
    while http_list_next(&rest, &item):
        if field.id == UPGRADE:
            if http_is_word(item, b"websocket"):
                h.options |= SAW_WEBSOCKET
        elif field.id == EXPECT:
            h.options |= EXPECT_CONTINUE if http_is_word(item, b"100-continue") else EXPECT_UNKNOWN
        elif http_is_word(item, b"close"):
            h.options |= SAW_CLOSE
        elif http_is_word(item, b"keep-alive"):
            h.options |= ASKS_KEEP_ALIVE
        elif http_is_word(item, b"upgrade"):
            h.options |= SAW_UPGRADE


cdef inline uint32_t connection_flags(const HttpHead *h, uint8_t minor) noexcept nogil:
    """KEEP_ALIVE and WANTS_WEBSOCKET, by Connection and Upgrade (RFC 9112 section 9.3, RFC 9110 section 7.8)."""
    cdef uint32_t flags = 0
    if not h.options & SAW_CLOSE and (minor >= 1 or h.options & ASKS_KEEP_ALIVE):
        flags = KEEP_ALIVE
    if minor >= 1 and h.options & SAW_UPGRADE and h.options & SAW_WEBSOCKET:
        flags |= WANTS_WEBSOCKET
    return flags


cdef inline int framing(const HttpHead *h, uint8_t minor, uint64_t *length) noexcept nogil:
    """Judges Transfer-Encoding and Content-Length (RFC 9112 section 6). 0 or the status to fail with.

    With 0, a Transfer-Encoding that is there is chunked, and length is what Content-Length says, 0 where it is absent.
    """
    length[0] = 0
    if head_has(h, TRANSFER_ENCODING):
        return transfer_encoding(h, minor)
    if head_has(h, CONTENT_LENGTH):
        if h.again >> CONTENT_LENGTH & 1 or not number(h.known[<int>CONTENT_LENGTH], length):
            return 400
    return 0


cdef int transfer_encoding(const HttpHead *h, uint8_t minor) noexcept nogil:
    """0 where the coding is chunked alone, else the status to fail with (RFC 9112 sections 6.1 and 6.3)."""
    cdef Slice rest = h.known[<int>TRANSFER_ENCODING], item
    cdef int items = 0, chunked = 0
    cdef bint last = False
    if minor == 0 or head_has(h, CONTENT_LENGTH) or h.again >> TRANSFER_ENCODING & 1:
        return 400
    while http_list_next(&rest, &item):
        items += 1
        last = http_is_word(item, b"chunked")
        chunked += last
    if not last or chunked > 1:
        return 400
    return 0 if items == 1 else 501


cdef inline bint number(Slice digits, uint64_t *out) noexcept nogil:
    """1 to MAX_LENGTH_DIGITS decimal digits and nothing else."""
    cdef size_t i
    if digits.n == 0 or digits.n > MAX_LENGTH_DIGITS:
        return False
    out[0] = 0
    for i in range(digits.n):
        if not CLASS[digits.at[i]] & DIGIT:
            return False
        out[0] = out[0] * 10 + (digits.at[i] - c'0')
    return True


cdef inline const uint8_t *token_end(const uint8_t *at, const uint8_t *stop) noexcept nogil:
    while at < stop and CLASS[at[0]] & TOKEN:
        at += 1
    return at


cdef inline const uint8_t *quoted_end(const uint8_t *from_, const uint8_t *stop) noexcept nogil:
    """The end of the quoted-string (RFC 9110 section 5.6.4) that begins at from_; from_ if it is not closed."""
    cdef const uint8_t *at = from_ + 1
    while at < stop and at[0] != c'"':
        at += 2 if at[0] == c'\\' else 1
    return at + 1 if at < stop else from_


# ---- bodies, of either ----

cdef size_t body_next(
    HttpParser *p, const uint8_t *bytes, size_t n, bint bounded, Slice *body, int *failed,
) noexcept nogil:
    """Sets body to the next run of a body's data; returns how many bytes it took, with what frames it.

    bounded: it is a request's, of MAX_BODY bytes at most. failed: 0, or the status to fail with; then it returns 0.
    """
    cdef const uint8_t *at = bytes
    cdef const uint8_t *end = bytes + n
    cdef const uint8_t *stop
    cdef int status = 0
    body.n = 0
    while p.phase != AT_HEAD:
        if p.phase == IN_BODY or p.phase == IN_CHUNK:
            body[0] = Slice(at, <size_t>min(<uint64_t>(end - at), p.body))
            at += body.n
            p.body -= body.n
            if p.body == 0:
                p.phase = AT_HEAD if p.phase == IN_BODY else AFTER_CHUNK
            break
        stop = at if p.phase == AFTER_CHUNK else find_control(at, end)
        if stop - at > (MAX_FIELD_BYTES if p.phase == AT_TRAILER else MAX_CHUNK_LINE):
            status = 431 if p.phase == AT_TRAILER else 400
        else:
            status = line_state(stop, end)
        if status == 0:
            status = chunk_line(p, at, stop, bounded)
        if status:
            break
        at = stop + 2
    failed[0] = 0 if status == LINE_OPEN else status
    return 0 if failed[0] else at - bytes


cdef inline int chunk_line(HttpParser *p, const uint8_t *at, const uint8_t *stop, bint bounded) noexcept nogil:
    """A line of chunked framing (RFC 9112 section 7.1). 0 or the status to fail with."""
    cdef uint32_t total = MAX_BODY if bounded else MAX_FIELD_BYTES
    cdef uint64_t size = 0, most = MAX_BODY if bounded else MAX_CHUNK
    cdef const uint8_t *from_ = at
    p.scanned += <uint32_t>(stop + 2 - at)
    if p.phase == AFTER_CHUNK:
        p.phase = AT_CHUNK
    elif p.phase == AT_TRAILER:
        if at == stop:
            p.phase = AT_HEAD
            p.scanned = 0
            return 0
        if p.scanned <= total and name_end(at, stop) == NULL:
            return 400
    else:
        while at < stop and CLASS[at[0]] & HEX:
            size = min(size << 4 | <uint64_t>hex_value(at[0]), most + 1)
            at += 1
        if at == from_ or not extensions_ok(at, stop):
            return 400
        if size > most:
            return 413
        p.scanned = p.scanned + <uint32_t>size if bounded else 0
        p.body = size
        p.phase = IN_CHUNK if size else AT_TRAILER
    return 413 if p.scanned > total else 0


cdef bint extensions_ok(const uint8_t *at, const uint8_t *stop) noexcept nogil:
    """*( BWS ";" BWS token [ BWS "=" BWS ( token / quoted-string ) ] ) (RFC 9112 section 7.1.1)."""
    cdef const uint8_t *from_
    while at < stop:
        at = http_trimmed(at, stop).at
        if at == stop or at[0] != c';':
            return False
        from_ = http_trimmed(at + 1, stop).at
        at = token_end(from_, stop)
        if at == from_:
            return False
        from_ = http_trimmed(at, stop).at
        if from_ == stop or from_[0] != c'=':
            continue
        from_ = http_trimmed(from_ + 1, stop).at
        at = quoted_end(from_, stop) if from_ < stop and from_[0] == c'"' else token_end(from_, stop)
        if at == from_:
            return False
    return True


# ---- paths ----

cdef size_t http_resolve(Slice path, uint8_t *to) noexcept nogil:
    """Writes a request's path as it is looked up; returns its length, path.n or less.

    Its escapes are decoded, runs of slashes made one, and then "." and ".." resolved (RFC 3986 section 5.2.4). What
    leads above the root becomes "/..", which names nothing.
    """
    cdef size_t i = 0, n = 0, name = 0           # name: where the name that is being written begins
    cdef uint8_t c
    while True:
        c = path.at[i] if i < path.n else c'/'   # the end ends a name, too
        if c == c'%':
            c = <uint8_t>(hex_value(path.at[i + 1]) << 4 | hex_value(path.at[i + 2]))
            i += 2
        if c != c'/':
            to[n] = c
            n += 1
            i += 1
            continue
        if n - name == 1 and to[name] == c'.':
            n = name
        elif n - name == 2 and to[name] == c'.' and to[name + 1] == c'.':
            if name < 2:
                return put_text(to, b"/..") - to
            n = name - 1
            while to[n - 1] != c'/':
                n -= 1
        if i >= path.n:
            return n
        if n == 0 or to[n - 1] != c'/':
            to[n] = c
            n += 1
        name = n
        i += 1


cdef bint http_has_escaped_slash(Slice path) noexcept nogil:
    """Whether a request's path has a slash in it that is written as "%2F", and that http_resolve takes for one."""
    cdef size_t i
    for i in range(path.n):
        if path.at[i] == c'%' and path.at[i + 1] == c'2' and path.at[i + 2] | 0x20 == c'f':
            return True
    return False


cdef Slice head_other(const HttpHead *h, const char *lower) noexcept nogil:
    """The value of the first field of that lower-case name, which has no FieldId; empty if there is none."""
    cdef int i
    for i in range(h.count):
        if h.fields[i].id == OTHER_FIELD and http_is_word(h.fields[i].name, lower):
            return h.fields[i].value
    return Slice(NULL, 0)


cdef uint8_t *http_escape(uint8_t *to, Slice path) noexcept nogil:
    """Writes a request's path, or some of it, as a URL may hold it (RFC 3986 section 3.3): what it may not and is not
    escaped yet is. At most three times as long."""
    cdef const char *digits = b"0123456789ABCDEF"
    cdef size_t i
    cdef uint8_t c
    for i in range(path.n):
        c = path.at[i]
        if CLASS[c] & HOST or c == c'/' or c == c':' or c == c'@' or c == c'%':
            to[0] = c
            to += 1
        else:
            to[0], to[1], to[2] = c'%', digits[c >> 4], digits[c & 15]
            to += 3
    return to
