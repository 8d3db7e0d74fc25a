"""HTTP/1.1 for a server: request heads in, response heads out, and the arithmetic of conditionals and ranges.

Owns: the request grammar (RFC 9112), body framing, preconditions, ranges and dates (RFC 9110).
Refuses to know: sockets, files, clocks, Python objects. Everything arrives as an argument.

Drive it so:

    used = http_next(parser, bytes, n, &request)
    HTTP_MORE      keep bytes[used:] and come back with more behind them
    HTTP_REQUEST   answer it; its slices point into bytes
    HTTP_BODY      some of the body of the last request, in request.body; ignore it or keep it
    HTTP_FAIL      answer request.status unless the request was answered before its body came (parser.phase tells),
                   and close; not one byte more is read as a request

Invariants: an HttpParser is 16 bytes. A line is judged when it is whole, except that a control character or a
line too long is judged at once; so a head gives the same event however it was cut.

Strictness:
  bare LF, bare CR, NUL, other controls      9112 2.2, 9110 5.5   400
  empty lines before the request line        9112 2.2    up to 4 skipped, then 400
  request line over 8 KiB                    9112 3      414
  two spaces, tab, trailing space in it      9112 3      400
  method not a token                         9110 9.1    400
  target not visible ASCII, or with #        9112 3.2    400
  %-escape malformed, of NUL or of a slash   3986 2.1    400 (in the path)
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
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memset, strlen

from c1m.buf cimport CLASS, DIGIT, HEX, HOST, TARGET, TOKEN, Block, Slice, block_copy, block_unref, block_new, find_control, hex_value, put, put_number, put_text, same_letters

cdef enum:
    CR = 13
    LF = 10
    SP = 32
    TAB = 9
    LINE_OPEN = 1                # in place of a status: the line is not whole yet
    SAW_CLOSE = 1 << 8           # Request.flags while its fields are read: options named by Connection,
    SAW_KEEP_ALIVE = 1 << 9
    SAW_UPGRADE = 1 << 10
    SAW_WEBSOCKET = 1 << 11      # and websocket by Upgrade


# ---- requests in ----

cdef size_t http_next(HttpParser *p, const uint8_t *bytes, size_t n, HttpRequest *r) noexcept nogil:
    """Finds the next event in bytes[:n]; returns how many bytes it used up, which with HTTP_MORE are blank lines."""
    cdef size_t blank = 0, used
    if p.phase != AT_HEAD:
        return body_next(p, bytes, n, r)
    if p.scanned == 0:
        while p.blanks < MAX_BLANK_LINES and n - blank >= 2 and bytes[blank] == CR and bytes[blank + 1] == LF:
            blank += 2
            p.blanks += 1
    r.kind = HTTP_MORE
    if blank == n or nothing_new(p, bytes + blank, n - blank):
        return blank
    used = head_parse(p, bytes + blank, bytes + n, r)
    if r.kind == HTTP_REQUEST:
        p.body = r.content_length
        p.total = 0
        p.phase = AT_CHUNK if r.flags & CHUNKED else IN_BODY if p.body else AT_HEAD
    if r.kind != HTTP_MORE:
        p.scanned = p.fields_at = p.blanks = 0
    return blank + used


cdef inline bint nothing_new(HttpParser *p, const uint8_t *bytes, size_t n) noexcept nogil:
    """Whether the bytes past those already scanned end no line and break no limit: then there is nothing to parse.

    It keeps a head that comes byte by byte from being parsed anew for each byte.
    """
    if p.scanned == 0 or n > <size_t>(p.fields_at + (MAX_FIELD_BYTES if p.fields_at else MAX_REQUEST_LINE)):
        return False
    if find_control(bytes + p.scanned, bytes + n) != bytes + n:
        return False
    p.scanned = <uint32_t>n
    return True


cdef size_t head_parse(HttpParser *p, const uint8_t *start, const uint8_t *end, HttpRequest *r) noexcept nogil:
    """Parses a head from its first byte. Sets r.kind; returns its length if it is whole, else 0."""
    cdef const uint8_t *at = start
    cdef const uint8_t *stop
    cdef const uint8_t *most
    cdef int status, fault
    r.flags = r.count = 0
    r.host.n = 0
    r.seen = r.again = 0
    r.content_length = 0
    r.method = UNKNOWN_METHOD
    stop = find_control(at, end)
    r.line = Slice(at, stop - at)
    status = 414 if stop - at > MAX_REQUEST_LINE else line_state(stop, end)
    if status != LINE_OPEN:
        fault = request_line(at, stop, r)       # called for its method, too: who is refused a HEAD expects no body
        status = status if status else fault
    if status == 0:
        p.fields_at = <uint16_t>(stop + 2 - start)
        at = stop + 2
        most = at + MAX_FIELD_BYTES
    while status == 0:
        stop = find_control(at, end)
        if stop > most:
            return fail(r, 431)
        status = line_state(stop, end)
        if status == 0:
            if stop == at:
                status = head_finish(r)
                if status == 0:
                    r.kind = HTTP_REQUEST
                    return stop + 2 - start
            else:
                status = field_line(at, stop, r)
            at = stop + 2
    if status != LINE_OPEN:
        return fail(r, status)
    # A last CR may be half of a line end: look at it again.
    p.scanned = <uint32_t>(stop - start)
    r.kind = HTTP_MORE
    return 0


cdef inline int line_state(const uint8_t *stop, const uint8_t *end) noexcept nogil:
    """Of the first control character after a line's text: 0 if it is CRLF, LINE_OPEN if that may still come, 400."""
    if stop == end:
        return LINE_OPEN
    if stop[0] != CR:
        return 400
    if stop + 1 == end:
        return LINE_OPEN
    return 0 if stop[1] == LF else 400


cdef inline size_t fail(HttpRequest *r, int status) noexcept nogil:
    r.kind = HTTP_FAIL
    r.status = status
    return 0


cdef size_t body_next(HttpParser *p, const uint8_t *bytes, size_t n, HttpRequest *r) noexcept nogil:
    """The next run of a body's data, past what frames it. Returns the bytes used, which with HTTP_FAIL mean nothing."""
    cdef const uint8_t *at = bytes
    cdef const uint8_t *end = bytes + n
    cdef const uint8_t *stop
    cdef int status
    r.body.n = 0
    while p.phase != AT_HEAD:
        if p.phase == IN_BODY or p.phase == IN_CHUNK:
            r.body = Slice(at, min(<size_t>(end - at), p.body))
            at += r.body.n
            p.body -= <uint32_t>r.body.n
            if p.body == 0:
                p.phase = AT_HEAD if p.phase == IN_BODY else AFTER_CHUNK
            break
        stop = at if p.phase == AFTER_CHUNK else find_control(at, end)
        if stop - at > (MAX_FIELD_BYTES if p.phase == AT_TRAILER else MAX_CHUNK_LINE):
            return fail(r, 431 if p.phase == AT_TRAILER else 400)
        status = line_state(stop, end)
        if status == LINE_OPEN:
            break
        if status == 0:
            status = chunk_line(p, at, stop, r)
        if status:
            return fail(r, status)
        at = stop + 2
    r.kind = HTTP_BODY if at > bytes else HTTP_MORE
    return at - bytes


cdef inline int chunk_line(HttpParser *p, const uint8_t *at, const uint8_t *stop, HttpRequest *r) noexcept nogil:
    """A line of chunked framing (RFC 9112 section 7.1). 0 or the status to fail with."""
    cdef uint64_t size = 0
    cdef const uint8_t *from_ = at
    p.total += <uint32_t>(stop + 2 - at)
    if p.phase == AFTER_CHUNK:
        p.phase = AT_CHUNK
    elif p.phase == AT_TRAILER:
        if at == stop:
            p.phase = AT_HEAD
            return 0
        r.count = 0
        return 413 if p.total > MAX_BODY else field_line(at, stop, r)
    else:
        while at < stop and CLASS[at[0]] & HEX:
            size = min(size << 4 | <uint64_t>hex_value(at[0]), <uint64_t>MAX_BODY + 1)
            at += 1
        if at == from_ or not extensions_ok(at, stop):
            return 400
        p.total += <uint32_t>size
        p.body = <uint32_t>size
        p.phase = IN_CHUNK if size else AT_TRAILER
    return 413 if p.total > MAX_BODY else 0


cdef bint extensions_ok(const uint8_t *at, const uint8_t *stop) noexcept nogil:
    """*( BWS ";" BWS token [ BWS "=" BWS ( token / quoted-string ) ] ) (RFC 9112 section 7.1.1)."""
    cdef const uint8_t *from_
    while at < stop:
        at = trimmed(at, stop).at
        if at == stop or at[0] != c';':
            return False
        from_ = trimmed(at + 1, stop).at
        at = token_end(from_, stop)
        if at == from_:
            return False
        from_ = trimmed(at, stop).at
        if from_ == stop or from_[0] != c'=':
            continue
        from_ = trimmed(from_ + 1, stop).at
        at = quoted_end(from_, stop) if from_ < stop and from_[0] == c'"' else token_end(from_, stop)
        if at == from_:
            return False
    return True


cdef inline const uint8_t *token_end(const uint8_t *at, const uint8_t *stop) noexcept nogil:
    while at < stop and CLASS[at[0]] & TOKEN:
        at += 1
    return at


cdef inline const uint8_t *quoted_end(const uint8_t *from_, const uint8_t *stop) noexcept nogil:
    """Behind the quoted-string (RFC 9110 section 5.6.4) whose first quote is at from_; from_ itself if it has no second."""
    cdef const uint8_t *at = from_ + 1
    while at < stop and at[0] != c'"':
        at += 2 if at[0] == c'\\' else 1
    return at + 1 if at < stop else from_


cdef inline int request_line(const uint8_t *at, const uint8_t *stop, HttpRequest *r) noexcept nogil:
    """method SP target SP version (RFC 9112 section 3). 0 or the status to fail with."""
    cdef const uint8_t *from_ = at
    at = token_end(at, stop)
    if at == from_ or at == stop or at[0] != SP:
        return 400
    r.method = method_of(from_, at - from_)
    at += 1
    from_ = at
    while at < stop and CLASS[at[0]] & TARGET | (at[0] == c'%'):
        at += 1
    if at == from_ or at == stop or at[0] != SP or stop - at != 9 or memcmp(at + 1, b"HTTP/", 5) != 0:
        return 400
    if not (CLASS[at[6]] & DIGIT and at[7] == c'.' and CLASS[at[8]] & DIGIT):
        return 400
    if at[6] != c'1':
        return 505
    r.minor = at[8] - c'0'
    return target_parse(from_, at, r)


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
    return UNKNOWN_METHOD


cdef inline int target_parse(const uint8_t *at, const uint8_t *stop, HttpRequest *r) noexcept nogil:
    """The four forms of a request target (RFC 9112 section 3.2). 0 or the status to fail with."""
    cdef const uint8_t *from_ = at
    r.host.n = 0
    r.query.n = 0
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
    while at < stop and at[0] != c'?':
        if at[0] == c'%':
            if not escape_ok(at, stop):
                return 400
            if (at[1] == c'0' and at[2] == c'0') or (at[1] == c'2' and at[2] | 0x20 == c'f'):
                return 400
        at += 1
    if at > from_:
        r.path = Slice(from_, at - from_)
    if at < stop:
        r.query = Slice(at + 1, stop - at - 1)
    return 0


cdef bint host_ok(Slice host) noexcept nogil:
    """uri-host [ ":" port ] (RFC 9110 section 7.2); empty is allowed, a port alone and user information are not."""
    cdef const uint8_t *at = host.at
    cdef const uint8_t *end = at + host.n
    if at < end and at[0] == c'[':
        while at < end and at[0] != c']':
            at += 1
        if at == end or not literal_ok(host.at + 1, at):
            return False
        at += 1
    else:
        while at < end and (CLASS[at[0]] & HOST or escape_ok(at, end)):
            at += 1
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
    """IPv6address / "v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" ): what brackets hold (RFC 3986 section 3.2.2)."""
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


cdef inline int field_line(const uint8_t *at, const uint8_t *stop, HttpRequest *r) noexcept nogil:
    """name ":" OWS value OWS (RFC 9112 section 5). 0 or the status to fail with."""
    cdef Field *field = &r.fields[r.count]
    cdef uint32_t bit
    if r.count == MAX_FIELDS:
        return 431
    field.name.at = at
    at = token_end(at, stop)
    field.name.n = at - field.name.at
    if field.name.n == 0 or at == stop or at[0] != c':':
        return 400
    field.value = trimmed(at + 1, stop)
    field.id = field_id(field.name.at, field.name.n)
    r.count += 1
    if field.id == OTHER_FIELD:
        return 0
    bit = 1 << field.id
    if r.seen & bit:
        r.again |= bit
    else:
        r.seen |= bit
        r.known[<int>field.id] = field.value
    if field.id == CONNECTION or field.id == UPGRADE or field.id == EXPECT:
        options_read(r, field)
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
        return IF_RANGE if same_letters(name, b"if-range", n) else IF_MATCH if same_letters(name, b"if-match", n) else OTHER_FIELD
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


cdef inline void options_read(HttpRequest *r, const Field *field) noexcept nogil:
    """Notes what we know of a Connection, Upgrade or Expect field's list."""
    cdef Slice rest = field.value, item
    while list_next(&rest, &item):
        if field.id == UPGRADE:
            if is_word(item, b"websocket"):
                r.flags |= SAW_WEBSOCKET
        elif field.id == EXPECT:
            if r.minor >= 1:
                r.flags |= EXPECT_CONTINUE if is_word(item, b"100-continue") else EXPECT_UNKNOWN
        elif is_word(item, b"close"):
            r.flags |= SAW_CLOSE
        elif is_word(item, b"keep-alive"):
            r.flags |= SAW_KEEP_ALIVE
        elif is_word(item, b"upgrade"):
            r.flags |= SAW_UPGRADE


cdef inline int head_finish(HttpRequest *r) noexcept nogil:
    """What can be judged only with all fields read. 0 or the status to fail with."""
    cdef int status
    cdef uint64_t length
    if twice(r, HOST_FIELD) or (r.minor >= 1 and not has(r, HOST_FIELD)):
        return 400
    if has(r, HOST_FIELD):
        if not host_ok(value_of(r, HOST_FIELD)):
            return 400
        if r.host.n == 0:
            r.host = value_of(r, HOST_FIELD)
    if r.minor >= 1:
        if not r.flags & SAW_CLOSE:
            r.flags |= KEEP_ALIVE
        if r.flags & SAW_UPGRADE and r.flags & SAW_WEBSOCKET:
            r.flags |= WANTS_WEBSOCKET
    elif r.flags & SAW_KEEP_ALIVE and not r.flags & SAW_CLOSE:
        r.flags |= KEEP_ALIVE
    if has(r, TRANSFER_ENCODING):
        status = transfer_encoding(r)
        if status:
            return status
        r.flags |= CHUNKED
    elif has(r, CONTENT_LENGTH):
        if twice(r, CONTENT_LENGTH) or not number(value_of(r, CONTENT_LENGTH), &length):
            return 400
        if length > MAX_BODY:
            return 413
        r.content_length = <uint32_t>length
    return 0


cdef int transfer_encoding(const HttpRequest *r) noexcept nogil:
    """0 where the coding is chunked alone, else the status to fail with (RFC 9112 sections 6.1 and 6.3)."""
    cdef Slice rest = value_of(r, TRANSFER_ENCODING), item
    cdef int items = 0, chunked = 0
    cdef bint last = False
    if r.minor == 0 or has(r, CONTENT_LENGTH) or twice(r, TRANSFER_ENCODING):
        return 400
    while list_next(&rest, &item):
        items += 1
        last = is_word(item, b"chunked")
        chunked += last
    if not last or chunked > 1:
        return 400
    return 0 if items == 1 else 501


# ---- pieces of a field value ----

cdef inline Slice trimmed(const uint8_t *at, const uint8_t *end) noexcept nogil:
    """[at, end) without the spaces and tabs around it."""
    while at < end and (at[0] == SP or at[0] == TAB):
        at += 1
    while at < end and ((end - 1)[0] == SP or (end - 1)[0] == TAB):
        end -= 1
    return Slice(at, end - at)


cdef inline bint list_next(Slice *rest, Slice *item) noexcept nogil:
    """Takes the next element off a comma-separated list, empty ones skipped (RFC 9110 section 5.6.1). False at its end."""
    cdef const uint8_t *at = rest.at
    cdef const uint8_t *end = at + rest.n
    cdef const uint8_t *from_
    while at < end and (at[0] == SP or at[0] == TAB or at[0] == c','):
        at += 1
    from_ = at
    while at < end and at[0] != c',':
        at += 1
    item[0] = trimmed(from_, at)
    rest[0] = Slice(at, end - at)
    return item.n != 0


cdef bint http_list_next(Slice *rest, Slice *item) noexcept nogil:
    """list_next, for others."""
    return list_next(rest, item)


cdef inline bint is_word(Slice item, const char *lower) noexcept nogil:
    return item.n == strlen(lower) and same_letters(item.at, lower, item.n)


cdef inline bint number(Slice digits, uint64_t *out) noexcept nogil:
    """1 to 18 decimal digits and nothing else."""
    cdef size_t i
    if digits.n == 0 or digits.n > 18:
        return False
    out[0] = 0
    for i in range(digits.n):
        if not CLASS[digits.at[i]] & DIGIT:
            return False
        out[0] = out[0] * 10 + (digits.at[i] - c'0')
    return True


cdef size_t http_unescape(Slice path, uint8_t *to) noexcept nogil:
    """Writes a request's path with its escapes decoded and runs of slashes made one; returns its length, at most path.n."""
    cdef size_t i = 0, n = 0
    cdef uint8_t c
    while i < path.n:
        c = path.at[i]
        if c == c'%':
            c = <uint8_t>(hex_value(path.at[i + 1]) << 4 | hex_value(path.at[i + 2]))
            i += 2
        elif c == c'/' and n and to[n - 1] == c'/':
            i += 1
            continue
        to[n] = c
        n += 1
        i += 1
    return n


cdef uint8_t *http_escape(uint8_t *to, Slice path) noexcept nogil:
    """Writes an unescaped path as a URL may hold it (RFC 3986 section 3.3), at most three times as long."""
    cdef const char *digits = b"0123456789ABCDEF"
    cdef size_t i
    cdef uint8_t c
    for i in range(path.n):
        c = path.at[i]
        if CLASS[c] & HOST or c == c'/' or c == c':' or c == c'@':
            to[0] = c
            to += 1
        else:
            to[0], to[1], to[2] = c'%', digits[c >> 4], digits[c & 15]
            to += 3
    return to


# ---- conditionals and ranges (RFC 9110 sections 13 and 14) ----

cdef int http_precondition(const HttpRequest *r, Slice etag, int64_t mtime) noexcept nogil:
    """For a GET or HEAD of what has this ETag and time: 0 to go on, 304 or 412 (RFC 9110 section 13.2.2)."""
    cdef int64_t since
    if has(r, IF_MATCH):
        if not etag_listed(r, IF_MATCH, etag, False):
            return 412
    elif has(r, IF_UNMODIFIED_SINCE):
        since = http_date_parse(value_of(r, IF_UNMODIFIED_SINCE))
        if since >= 0 and mtime > since and not twice(r, IF_UNMODIFIED_SINCE):
            return 412
    if has(r, IF_NONE_MATCH):
        return 304 if etag_listed(r, IF_NONE_MATCH, etag, True) else 0
    if has(r, IF_MODIFIED_SINCE) and not twice(r, IF_MODIFIED_SINCE):
        since = http_date_parse(value_of(r, IF_MODIFIED_SINCE))
        if since >= 0 and mtime <= since:
            return 304
    return 0


cdef bint etag_listed(const HttpRequest *r, FieldId id, Slice etag, bint weakly) noexcept nogil:
    """Whether the lists of all fields of that name hold "*" or the (strong) etag (RFC 9110 section 8.8.3.2)."""
    cdef Slice rest, item
    cdef bint weak
    cdef int i
    for i in range(r.count):
        if r.fields[i].id != id:
            continue
        rest = r.fields[i].value
        if rest.n == 1 and rest.at[0] == c'*':
            return True
        while etag_next(&rest, &item, &weak):
            if (weakly or not weak) and item.n == etag.n and memcmp(item.at, etag.at, etag.n) == 0:
                return True
    return False


cdef bint etag_next(Slice *rest, Slice *tag, bint *weak) noexcept nogil:
    """Takes the next entity tag off a list: its quoted part, and whether W/ stood before it. False at the end or at a fault."""
    cdef const uint8_t *at = rest.at
    cdef const uint8_t *end = at + rest.n
    cdef const uint8_t *from_
    while at < end and (at[0] == SP or at[0] == TAB or at[0] == c','):
        at += 1
    weak[0] = end - at >= 2 and at[0] == c'W' and at[1] == c'/'
    if weak[0]:
        at += 2
    if at == end or at[0] != c'"':
        return False
    from_ = at
    at += 1
    while at < end and at[0] != c'"':
        at += 1
    if at == end:
        return False
    at += 1
    tag[0] = Slice(from_, at - from_)
    rest[0] = Slice(at, end - at)
    return True


cdef int http_ranges(const HttpRequest *r, Slice etag, int64_t mtime, int64_t size, ByteRange *spans) noexcept nogil:
    """What a GET's Range and If-Range select of size bytes: how many spans (at most MAX_RANGES), in the order asked for.

    0: send it all, for there is no Range, or it is malformed or in another unit, or If-Range does not hold, or the
    spans are more than MAX_RANGES or together longer than the whole (RFC 9110 section 17.15).
    -1: none of it can be satisfied, 416.
    """
    cdef Slice rest, item
    cdef int count = 0, kind, refused = 0
    cdef int64_t total = 0
    if not has(r, RANGE) or twice(r, RANGE):
        return 0
    if has(r, IF_RANGE) and not if_range_holds(r, etag, mtime):
        return 0
    rest = value_of(r, RANGE)
    if rest.n < 7 or not same_letters(rest.at, b"bytes", 5) or rest.at[5] != c'=':
        return 0
    rest = Slice(rest.at + 6, rest.n - 6)
    while list_next(&rest, &item):
        if count == MAX_RANGES:
            return 0
        kind = span_parse(item, size, &spans[count])
        if kind < 0:
            return 0
        if kind == 0:
            refused += 1
            continue
        total += spans[count].last - spans[count].first + 1
        count += 1
    if count == 0:
        return -1 if refused else 0
    return 0 if count > 1 and total > size else count


cdef bint if_range_holds(const HttpRequest *r, Slice etag, int64_t mtime) noexcept nogil:
    """Whether If-Range is one strong entity tag, or date, and that of what is there (RFC 9110 section 13.1.5)."""
    cdef Slice value = value_of(r, IF_RANGE)
    cdef int64_t date
    if twice(r, IF_RANGE):
        return False
    if memchr(value.at, c'"', min(value.n, <size_t>3)) != NULL:
        return etag.at[0] == c'"' and value.n == etag.n and memcmp(value.at, etag.at, etag.n) == 0
    date = http_date_parse(value)
    return date >= 0 and date == mtime


cdef int span_parse(Slice spec, int64_t size, ByteRange *span) noexcept nogil:
    """first-last, first- or -suffix (RFC 9110 section 14.1.2): 1, or 0 if size bytes have none of it, -1 if malformed."""
    cdef const uint8_t *at = spec.at
    cdef const uint8_t *end = at + spec.n
    cdef uint64_t a = 0, b = <uint64_t>size
    while at < end and at[0] != c'-':
        at += 1
    if at == end:
        return -1
    if at == spec.at:
        if not position(Slice(at + 1, end - at - 1), &b):
            return -1
        span.first = size - <int64_t>b if b < <uint64_t>size else 0
        span.last = size - 1
        return b != 0 and size != 0
    if not position(Slice(spec.at, at - spec.at), &a):
        return -1
    if at + 1 < end and (not position(Slice(at + 1, end - at - 1), &b) or b < a):
        return -1
    span.first = <int64_t>a
    span.last = min(<int64_t>b, size - 1)
    return a < <uint64_t>size


cdef inline bint position(Slice digits, uint64_t *out) noexcept nogil:
    """Like number, but of any length (RFC 9110 section 14.1.1 sets no bound): past the end of any file, far is far enough."""
    cdef uint64_t far = <uint64_t>1 << 60
    cdef size_t i
    out[0] = 0
    for i in range(digits.n):
        if not CLASS[digits.at[i]] & DIGIT:
            return False
        out[0] = min(out[0] * 10 + (digits.at[i] - c'0'), far)
    return digits.n != 0


# ---- what a client accepts (RFC 9110 section 12.5) ----

cdef Coding http_coding(const HttpRequest *r, uint32_t available) noexcept nogil:
    """The best of the available codings (bit per Coding; identity always is) by Accept-Encoding and, among equals, ours.

    Where the client refuses all of them, identity (section 12.5.3).
    """
    cdef int[<int>CODINGS] q
    cdef int i, star = -1, best = IDENTITY
    cdef Slice rest, item, name
    if not available or not has(r, ACCEPT_ENCODING):
        return IDENTITY
    for i in range(<int>CODINGS):
        q[i] = -1
    for i in range(r.count):
        if r.fields[i].id != ACCEPT_ENCODING:
            continue
        rest = r.fields[i].value
        while list_next(&rest, &item):
            name = before_parameters(item)
            if is_word(name, b"gzip") or is_word(name, b"x-gzip"):
                q[<int>GZIP] = quality(item)
            elif is_word(name, b"br"):
                q[<int>BROTLI] = quality(item)
            elif is_word(name, b"zstd"):
                q[<int>ZSTD] = quality(item)
            elif is_word(name, b"identity"):
                q[<int>IDENTITY] = quality(item)
            elif name.n == 1 and name.at[0] == c'*':
                star = quality(item)
    for i in range(<int>CODINGS):
        if q[i] < 0:
            q[i] = star
    if q[<int>IDENTITY] < 0:
        q[<int>IDENTITY] = 0             # allowed, yet anything that was named comes first
    for i in range(<int>GZIP, <int>CODINGS):
        if available >> i & 1 and q[i] > 0 and q[i] >= q[best]:
            best = i
    return <Coding>best


cdef int http_accepts(const HttpRequest *r, const char *type) noexcept nogil:
    """How gladly a client takes a media type: four times its weight in thousandths, and ACCEPTS_NAMED, or 2 or 1 if it is
    named only by "type/*" or "*/*", the closest of which counts (RFC 9110 section 12.5.1). 0: not at all.
    """
    cdef Slice rest, item
    cdef int i, named, best = 0, weight = 0
    for i in range(r.count):
        if r.fields[i].id != ACCEPT:
            continue
        rest = r.fields[i].value
        while list_next(&rest, &item):
            named = named_by(before_parameters(item), type)
            if named > best:
                best, weight = named, quality(item)
    return 4 * weight + best if weight else 0


cdef int named_by(Slice range, const char *type) noexcept nogil:
    """How closely a media range names a media type, as http_accepts has it; 0 for not at all."""
    if is_word(range, type):
        return ACCEPTS_NAMED
    if range.n < 3 or range.at[range.n - 1] != c'*' or range.at[range.n - 2] != c'/':
        return 0
    if range.n == 3 and range.at[0] == c'*':
        return 1
    return 2 if range.n - 1 < strlen(type) and same_letters(range.at, type, range.n - 1) else 0


cdef inline Slice before_parameters(Slice item) noexcept nogil:
    cdef const uint8_t *at = item.at
    while at < item.at + item.n and at[0] != c';':
        at += 1
    return trimmed(item.at, at)


cdef int quality(Slice item) noexcept nogil:
    """An element's weight in thousandths, 1000 if it names none, 0 if it is malformed (RFC 9110 section 12.4.2)."""
    cdef const uint8_t *at = item.at
    cdef const uint8_t *end = at + item.n
    cdef int value, unit = 100
    while at < end:
        while at < end and at[0] != c';':
            at += 1
        at = trimmed(at + 1, end).at if at < end else end
        if end - at >= 2 and at[0] | 0x20 == c'q' and at[1] == c'=':
            at += 2
            if at == end or (at[0] != c'0' and at[0] != c'1'):
                return 0
            value = 1000 * (at[0] - c'0')
            at += 1
            if at < end and at[0] == c'.':
                at += 1
                while at < end and CLASS[at[0]] & DIGIT:
                    value += unit * (at[0] - c'0')
                    unit //= 10
                    at += 1
            return value if value <= 1000 and (at == end or at[0] == c';' or at[0] == SP or at[0] == TAB) else 0
    return 1000


# ---- dates (RFC 9110 section 5.6.7) ----

cdef const char *DAYS = b"SunMonTueWedThuFriSat"
cdef const char *MONTHS = b"JanFebMarAprMayJunJulAugSepOctNovDec"


cdef inline int64_t days_from_civil(int64_t year, int64_t month, int64_t day) noexcept nogil:
    """Days since 1970-01-01. Years are counted from March, so that a leap day is the last of its year."""
    if month < 3:
        year -= 1
        month += 12
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5 + day - 719469


cdef void http_date(int64_t seconds, uint8_t *to) noexcept nogil:
    """Writes the DATE_SIZE characters of an IMF-fixdate: "Sun, 06 Nov 1994 08:49:37 GMT".

    seconds: of Unix time. What lies before 1970 or after 9999, as a file's time may, becomes their first or last second.
    """
    cdef int64_t days, left, year, month, of_year
    seconds = max(0, min(seconds, <int64_t>253402300799)) # 31 Dec 9999 23:59:59
    days, left = seconds // 86400, seconds % 86400
    year = 1970 + days // 366                             # at or a little before the right one
    while days_from_civil(year + 1, 1, 1) <= days:
        year += 1
    of_year = days - days_from_civil(year, 1, 1)
    month = 1 + of_year // 31                             # likewise
    while month < 12 and days_from_civil(year, month + 1, 1) <= days:
        month += 1
    to = put(to, DAYS + 3 * ((days + 4) % 7), 3)
    to = put(to, b", ", 2)
    to = put_two(to, days - days_from_civil(year, month, 1) + 1)
    to = put(to, b" ", 1)
    to = put(to, MONTHS + 3 * (month - 1), 3)
    to = put(to, b" ", 1)
    to = put_two(put_two(to, year // 100), year % 100)
    to = put(to, b" ", 1)
    to = put(put_two(to, left // 3600), b":", 1)
    to = put(put_two(to, left // 60 % 60), b":", 1)
    put(put_two(to, left % 60), b" GMT", 4)


cdef inline uint8_t *put_two(uint8_t *to, int64_t v) noexcept nogil:
    to[0] = <uint8_t>(c'0' + v // 10)
    to[1] = <uint8_t>(c'0' + v % 10)
    return to + 2


cdef int64_t http_date_parse(Slice text) noexcept nogil:
    """Unix time of any of the three forms, 0 for what lies before it; -1 if it is none of them.

    Sun, 06 Nov 1994 08:49:37 GMT     IMF-fixdate
    Sunday, 06-Nov-94 08:49:37 GMT    RFC 850
    Sun Nov  6 08:49:37 1994          asctime

    Two digits are a year from 1970, before which no file's time lies, to 2069. As no clock stands before 2019 any
    more, none of these is over 50 years ahead of it, which is all that section 5.6.7 asks for.
    """
    cdef const uint8_t *at = text.at
    cdef const uint8_t *clock
    cdef size_t i
    cdef int64_t year, month, day, days, h, m, s
    if text.n == 29 and at[3] == c',' and at[4] == SP and at[7] == SP and at[11] == SP and at[16] == SP:
        day, month = two(at + 5), month_of(at + 8)
        year = two(at + 12) * 100 + two(at + 14) if two(at + 12) >= 0 and two(at + 14) >= 0 else -1
        clock = at + 17
    elif text.n == 24 and at[3] == SP and at[7] == SP and at[10] == SP and at[19] == SP:
        day, month = two(at + 8) if at[8] != SP else one(at + 9), month_of(at + 4)
        year = two(at + 20) * 100 + two(at + 22) if two(at + 20) >= 0 and two(at + 22) >= 0 else -1
        clock = at + 11
    else:
        i = 0
        while i < text.n and at[i] != c',':
            i += 1
        if i < 6 or i > 9 or text.n != i + 24 or at[i + 1] != SP or at[i + 4] != c'-' or at[i + 8] != c'-' or at[i + 11] != SP:
            return -1
        day, month, year = two(at + i + 2), month_of(at + i + 5), two(at + i + 9)
        if year >= 0:
            year += 2000 if year < 70 else 1900
        clock = at + i + 12
    if text.n != 24 and memcmp(clock + 8, b" GMT", 4) != 0:
        return -1
    h, m, s = two(clock), two(clock + 3), two(clock + 6)
    if clock[2] != c':' or clock[5] != c':' or h < 0 or h > 23 or m < 0 or m > 59 or s < 0 or s > 60:
        return -1
    if year < 1 or month < 1 or day < 1 or day > 31:
        return -1
    days = days_from_civil(year, month, day)
    if month < 12 and days >= days_from_civil(year, month + 1, 1):
        return -1                                       # 31 April
    return max(0, days * 86400 + h * 3600 + m * 60 + s)


cdef inline int one(const uint8_t *at) noexcept nogil:
    return at[0] - c'0' if CLASS[at[0]] & DIGIT else -1


cdef inline int two(const uint8_t *at) noexcept nogil:
    """Two digits' value, or -1."""
    return one(at) * 10 + one(at + 1) if CLASS[at[0]] & CLASS[at[1]] & DIGIT else -1


cdef inline int month_of(const uint8_t *at) noexcept nogil:
    cdef int i
    for i in range(12):
        if memcmp(at, MONTHS + 3 * i, 3) == 0:
            return i + 1
    return -1


# ---- responses out: each returns where the next byte goes ----

cdef const char *http_reason(int status) noexcept nogil:
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


cdef uint8_t *http_head(uint8_t *to, int status, const uint8_t *date) noexcept nogil:
    """Status line and Date. With status 200 the date stands at DATE_AT."""
    to = put_text(to, b"HTTP/1.1 ")
    to = put_number(to, status)
    to = put_text(to, b" ")
    to = put_text(to, http_reason(status))
    to = put_text(to, b"\r\nDate: ")
    to = put(to, date, DATE_SIZE)
    return put_text(to, b"\r\n")


cdef uint8_t *http_connection(uint8_t *to, uint8_t minor, bint keep) noexcept nogil:
    """Connection, where it has to be said: HTTP/1.1 keeps by default, 1.0 does not."""
    if not keep:
        return put_text(to, b"Connection: close\r\n")
    return put_text(to, b"Connection: keep-alive\r\n") if minor == 0 else to


cdef uint8_t *http_validators(uint8_t *to, int64_t mtime, Slice etag) noexcept nogil:
    """Last-Modified and ETag: all that a 304 repeats of them."""
    to = put_text(to, b"Last-Modified: ")
    http_date(mtime, to)
    to = put_text(to + DATE_SIZE, b"\r\nETag: ")
    to = put(to, etag.at, etag.n)
    return put_text(to, b"\r\n")


cdef uint8_t *http_length(uint8_t *to, uint64_t n) noexcept nogil:
    """Content-Length and the head's end."""
    to = put_text(to, b"Content-Length: ")
    return put_text(put_number(to, n), b"\r\n\r\n")


cdef uint8_t *http_text(uint8_t *to, int status, bint with_body) noexcept nogil:
    """The rest of an answer that is only a status: its fields, the head's end and "404 Not Found" as a line."""
    to = put_text(to, b"Content-Type: text/plain; charset=utf-8\r\n")
    to = http_length(to, http_text_size(status))
    if not with_body:
        return to
    to = put_text(put_number(to, status), b" ")
    return put_text(put_text(to, http_reason(status)), b"\n")


cdef size_t http_text_size(int status) noexcept nogil:
    """Bytes of that body."""
    return 3 + 1 + strlen(http_reason(status)) + 1


# ---- a window for tests and fuzzers ----

cdef bytes taken(Slice s):
    return s.at[:s.n] if s.n else b""


cdef class Parser:
    """The parser as Python sees it: feed(bytes) returns the events they complete."""

    cdef HttpParser state
    cdef HttpRequest request
    cdef bytes kept
    cdef bint failed

    def __cinit__(self):
        memset(&self.state, 0, sizeof(HttpParser))
        self.kept = b""
        self.failed = False

    def feed(self, bytes data):
        """A list of ("request", {...}), ("body", data) and ("fail", status); after a failure, nothing more."""
        cdef size_t used = 0, step, n
        cdef Block *copy
        cdef list events = []
        if self.failed:
            return events
        data = self.kept + data
        n = len(data)
        # An allocation of just this size, so that a sanitizer sees a read past the end.
        copy = block_copy(<const uint8_t *>data, n)
        if copy == NULL:
            raise MemoryError
        while True:
            step = http_next(&self.state, copy.data + used, n - used, &self.request)
            used += step
            assert used <= n
            if self.request.kind == HTTP_MORE:
                break
            if self.request.kind == HTTP_FAIL:
                events.append(("fail", self.request.status))
                self.failed = True
                break
            if self.request.kind == HTTP_BODY:
                events.append(("body", taken(self.request.body)))
            else:
                events.append(("request", self.described()))
        self.kept = data[used:]
        block_unref(copy)
        return events

    cdef dict described(self):
        cdef HttpRequest *r = &self.request
        cdef int i
        cdef Block *path = block_new(r.path.n + 1)
        if path == NULL:
            raise MemoryError
        path.size = http_unescape(r.path, path.data)
        unescaped = path.data[:path.size]
        block_unref(path)
        return {
            "method": ["GET", "HEAD", "OPTIONS", "CONNECT", "other", "unknown"][<int>r.method],
            "path": taken(r.path), "unescaped": unescaped, "query": taken(r.query), "host": taken(r.host),
            "minor": r.minor, "length": r.content_length,
            "flags": {name for name, bit in (("keep-alive", KEEP_ALIVE), ("websocket", WANTS_WEBSOCKET), ("chunked", CHUNKED),
                      ("continue", EXPECT_CONTINUE), ("expectation", EXPECT_UNKNOWN)) if r.flags & bit},
            "fields": [(taken(r.fields[i].name), taken(r.fields[i].value)) for i in range(r.count)],
        }


def judge(bytes head, bytes etag, int64_t mtime, int64_t size):
    """For a whole request head: its precondition (0, 304 or 412), and the ranges it gets: [] for all, None for 416."""
    cdef HttpParser state
    cdef HttpRequest request
    cdef ByteRange[MAX_RANGES] spans
    cdef int i, count
    memset(&state, 0, sizeof(HttpParser))
    http_next(&state, head, len(head), &request)
    if request.kind != HTTP_REQUEST:
        raise ValueError("not a whole request head")
    count = http_ranges(&request, Slice(etag, len(etag)), mtime, size, spans)
    selected = None if count < 0 else [(spans[i].first, spans[i].last) for i in range(count)]
    return http_precondition(&request, Slice(etag, len(etag)), mtime), selected


def choose(bytes head, codings):
    """Which of the codings ("gzip", "br", "zstd") a whole request head gets, or "identity"."""
    cdef HttpParser state
    cdef HttpRequest request
    names = ["identity", "gzip", "br", "zstd"]
    memset(&state, 0, sizeof(HttpParser))
    http_next(&state, head, len(head), &request)
    if request.kind != HTTP_REQUEST:
        raise ValueError("not a whole request head")
    return names[<int>http_coding(&request, sum(1 << names.index(coding) for coding in codings))]


def parse_date(bytes text):
    """Unix time of an HTTP date, -1 if it is none."""
    return http_date_parse(Slice(text, len(text)))


def format_date(int64_t seconds):
    """Unix time, 0 to the year 9999, as an HTTP date."""
    cdef uint8_t to[DATE_SIZE]
    http_date(seconds, to)
    return to[:DATE_SIZE]


def bench(str what, bytes data, long rounds):
    """Rounds of one thing, for bench/engines.py. The answer is of no use, but keeps the compiler from leaving it out."""
    cdef int kind = ["head", "precondition", "ranges", "coding", "date in", "date out"].index(what)
    cdef HttpParser state
    cdef HttpRequest request
    cdef ByteRange[MAX_RANGES] spans
    cdef uint8_t[DATE_SIZE] date
    cdef Slice text = Slice(data, len(data))
    cdef int64_t i, sum = 0
    for i in range(rounds):
        if kind == 0 or i == 0:
            memset(&state, 0, sizeof(HttpParser))
            sum += http_next(&state, text.at, text.n, &request)
        if kind == 1:
            sum += http_precondition(&request, Slice(b'"abc"', 5), i)
        elif kind == 2:
            sum += http_ranges(&request, Slice(b'"abc"', 5), 0, i + 1000, spans)
        elif kind == 3:
            sum += <int>http_coding(&request, 1 << <int>GZIP | i)
        elif kind == 4:
            sum += http_date_parse(Slice(text.at, text.n - (sum == -1)))
        elif kind == 5:
            http_date(i, date)
            sum += date[24]
    return sum


assert sizeof(HttpParser) == 16
