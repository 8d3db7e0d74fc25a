"""Document roots as responses: which mount a request is below, which file it gets there, and what the head says.

Owns: the choice among a root's files, and every status and field of a response with a file.
Refuses to know: WebSockets, Python, what a request's bytes looked like.

mount_find says which origin may read the response, whatever its status, so it comes before any is written.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memchr, memcmp, memcpy

from c1m.buf cimport Block, Slice, block_copy, put, put_any, put_number, put_text, same_letters
from c1m.coding cimport IDENTITY, Coding
from c1m.files cimport (
    FILE_BUSY, FILE_DIRECTORY, FILE_FAILED, FILE_FOUND, File, FindResult, files_coding, files_find, files_keep,
    files_path, stored_in,
)
from c1m.http cimport (
    ACCEPT, ACCEPT_ENCODING, ASKS_KEEP_ALIVE, GET, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, ORIGIN, RANGE, HttpRequest, has, head_other, http_escape, http_has_escaped_slash, http_is_word,
    twice, value_of,
)
from c1m.naming cimport MAX_PATH, Rule, coding_name, last_name, rules_find, types_extension
from c1m.reactor cimport conn_close, conn_commit, conn_reserve, conn_send
from c1m.response cimport (
    DATE_AT, MAX_HEAD, Exchange, head_begin, head_count, head_end, put_length, put_text_body, respond_status,
    response_date, response_head, response_length, response_validators,
)
from c1m.semantics cimport (
    DATE_SIZE, MAX_RANGES, ByteRange, http_accepts, http_codings, http_precondition, http_ranges,
)

cdef enum:
    MAX_COPY = 4096              # bytes of a cached file that are copied behind its head; more are sent from the cache
    MAX_PART_HEAD = 512          # bytes before each part of a multipart response
    MAX_CONTENT_RANGE = 64       # bytes of that field in a 416
    CONDITIONS = (1 << <int>IF_MATCH | 1 << <int>IF_NONE_MATCH | 1 << <int>IF_MODIFIED_SINCE |
                  1 << <int>IF_UNMODIFIED_SINCE | 1 << <int>RANGE)


# ---- mounts ----

cdef void mount_add(Static *s, Mount *m) noexcept nogil:
    """Takes a mount, of which there is room for one more, to its place among the others."""
    cdef int at = s.mounts_n
    while at > 0 and mount_before(m, s.mounts[at - 1]):
        s.mounts[at] = s.mounts[at - 1]
        at -= 1
    s.mounts[at] = m
    s.mounts_n += 1


cdef bint mount_before(const Mount *a, const Mount *b) noexcept nogil:
    """Whether a fits a request before b does: a host before none, then the longer prefix."""
    if (a.host.n != 0) != (b.host.n != 0):
        return a.host.n != 0
    return a.prefix.n > b.prefix.n


cdef const Mount *mount_find(const Static *s, Exchange *x) noexcept nogil:
    """The mount that the request's path is below, or NULL. Notes in the exchange which origin may read the response."""
    cdef const Mount *m
    cdef Slice path = x.path
    cdef int i
    for i in range(s.mounts_n):
        m = s.mounts[i]
        if (m.prefix.n == 0 or is_below(path, m.prefix)) and (m.host.n == 0 or host_is(x.request.host, m.host)):
            break
    else:
        return NULL
    x.own_fields = m.own_fields
    x.cors_fields = m.cors_fields
    if m.any_origin:
        x.origin = Slice(b"*", 1)
    elif m.origins_n:
        x.by_origin = True
        origin_find(m, x)
    return m


cdef inline bint is_below(Slice path, Slice prefix) noexcept nogil:
    return (path.n >= prefix.n and memcmp(path.at, prefix.at, prefix.n) == 0 and
            (path.n == prefix.n or path.at[prefix.n] == c'/'))


cdef void origin_find(const Mount *m, Exchange *x) noexcept nogil:
    cdef Slice origin = value_of(x.request, ORIGIN)
    cdef int i
    if not has(x.request, ORIGIN) or twice(x.request, ORIGIN):
        return
    for i in range(m.origins_n):
        if m.origins[i].n == origin.n and memcmp(m.origins[i].at, origin.at, origin.n) == 0:
            x.origin = origin


cdef bint host_is(Slice host, Slice lower) noexcept nogil:
    """Whether a Host field's value names that host, whatever its port, with or without the dot that ends a name."""
    cdef size_t i, end = lower.n
    cdef uint8_t c
    if host.n < lower.n:
        return False
    for i in range(lower.n):
        c = host.at[i]
        if (c | 0x20 if c'A' <= c <= c'Z' else c) != lower.at[i]:
            return False
    if end < host.n and host.at[end] == c'.':
        end += 1
    return end == host.n or host.at[end] == c':'


# ---- which response ----

cdef StaticResult static_respond(Static *s, Exchange *x) noexcept nogil:
    """Responds to a GET or HEAD with what the mount's document root has under its path."""
    cdef const Mount *m = mount_find(s, x)
    cdef File *file = NULL
    cdef Slice below
    cdef FindResult found
    if m == NULL:
        return STATIC_ABSENT
    below = path_below(m, x.path)
    if below.n == 0:
        respond_redirect(x)
        return STATIC_SENT
    found = files_find(&s.files, m.root, below, codings_of(m, x), x.out.r.now_ms, &file)
    if found == FILE_FOUND:
        respond_file(s, x, m, file)
    elif found == FILE_DIRECTORY:
        respond_redirect(x)
    elif not respond_unreadable(s, x, found):
        return STATIC_LISTING if m.listing and below.at[below.n - 1] == c'/' else STATIC_ABSENT
    return STATIC_SENT


cdef inline uint32_t codings_of(const Mount *m, const Exchange *x) noexcept nogil:
    """The codings that the client prefers, best first, where there may be files in them."""
    if not m.sidecars or not has(x.request, ACCEPT_ENCODING):
        return 0
    if has(x.request, RANGE) and x.request.method == GET:
        return coding_of_tag(x.request)
    return http_codings(x.request)


cdef uint32_t coding_of_tag(const HttpRequest *r) noexcept nogil:
    """The coding of the form that a GET's range is of: where the tag that it names says so, of an encoded one.

    Else it is of the file itself: a part of an encoded form is of use only to who has the rest, and programs that read
    by ranges accept codings without a thought of them.
    """
    cdef uint32_t codings = http_codings(r)
    cdef Coding coding = IDENTITY
    if has(r, IF_RANGE):
        coding = files_coding(value_of(r, IF_RANGE))
    elif has(r, IF_MATCH):
        coding = files_coding(value_of(r, IF_MATCH))
    while codings:
        if codings & 3 == <uint32_t>coding:
            return coding
        codings >>= 2
    return 0


cdef void static_absent(Static *s, Exchange *x) noexcept nogil:
    """The single page, the root's 404.html, or a plain 404."""
    cdef const Mount *m = mount_find(s, x)
    cdef File *file = NULL
    cdef FindResult found
    cdef uint8_t *to
    if m != NULL and s.files.roots[m.root].clean_urls and redirect_to_clean(s, x, m):
        return
    if m != NULL and m.single_page and not names_file(s, x.path):
        x.vary = b"Accept, Sec-Fetch-Dest"
    if x.vary != NULL and wants_page(x.request):
        found = files_find(&s.files, m.root, Slice(b"/", 1), codings_of(m, x), x.out.r.now_ms, &file)
        if found == FILE_FOUND:
            respond_file(s, x, m, file)
            return
        if respond_unreadable(s, x, found):
            return
    if m != NULL and files_find(&s.files, m.root, Slice(b"/404.html", 9), 0, x.out.r.now_ms, &file) == FILE_FOUND:
        to = put_encoding(put_type(head_begin(x, 404, 0), m, file), file)
        head_end(x, put_length(x, put(to, m.fields.at, m.fields.n), file.size))
        if x.request.method == GET:
            send_range(x, file, ByteRange(0, file.size - 1))
        return
    respond_status(x, 404, b"")


cdef bint respond_unreadable(Static *s, Exchange *x, FindResult found) noexcept nogil:
    """Responds if the file may be there all the same: 503 without descriptors or memory; 500, and a line in the log,
    where the disk or the network does not give it."""
    if found == FILE_BUSY:
        respond_status(x, 503, b"")
    elif found == FILE_FAILED:
        respond_status(x, 500, b"")
        s.unreadable(s.owner, x, s.files.fault)
    else:
        return False
    return True


cdef bint redirect_to_clean(Static *s, Exchange *x, const Mount *m) noexcept nogil:
    """Redirects a path that is a page's but for the slash behind it. False: it is none."""
    cdef Slice below = path_below(m, x.path)
    cdef Slice raw = x.request.path
    cdef File *file = NULL
    cdef FindResult found
    if below.n < 2 or below.at[below.n - 1] != c'/' or raw.at[raw.n - 1] != c'/':
        return False
    below.n -= 1
    raw.n -= 1
    raw = last_name(raw)
    # From "//", "./" or "../", however that is written, the relative reference would lead elsewhere.
    if (raw.n == 0 or raw.at[0] == c'.' or (raw.n > 2 and same_letters(raw.at, b"%2e", 3)) or
            http_has_escaped_slash(raw)):
        return False
    found = files_find(&s.files, m.root, below, 0, x.out.r.now_ms, &file)
    if found != FILE_FOUND:
        return respond_unreadable(s, x, found)
    respond_moved(x, b"../", raw, b"")
    return True


cdef bint names_file(Static *s, Slice path) noexcept nogil:
    """Whether a path is that of a file rather than a place in a single-page application: it is below /.well-known/,
    where clients ask what there is (RFC 8615), or its extension has a media type. But where the last name has an "@" in
    it, two letters at its end are a country's: it is a mail address."""
    cdef Slice name = last_name(path)
    if path.n > 12 and memcmp(path.at, b"/.well-known/", 13) == 0:
        return True
    if types_extension(&s.files.types, name) == NULL:
        return False
    return (memchr(name.at, c'@', name.n) == NULL or name.n < 3 or name.at[name.n - 3] != c'.' or
            same_letters(name.at + name.n - 2, b"js", 2))


cdef bint wants_page(const HttpRequest *r) noexcept nogil:
    """Whether a page will do: the client accepts it, and a browser shows it (Sec-Fetch-Dest, Fetch Metadata)."""
    cdef Slice dest
    if has(r, ACCEPT) and http_accepts(r, b"text/html") == 0:
        return False
    dest = head_other(&r.head, b"sec-fetch-dest")
    return (dest.n == 0 or http_is_word(dest, b"document") or http_is_word(dest, b"iframe") or
            http_is_word(dest, b"frame") or http_is_word(dest, b"fencedframe"))


cdef void respond_file(Static *s, Exchange *x, const Mount *m, File *file) noexcept nogil:
    """200, 206, 304, 412 or 416, as the request's conditions have it (RFC 9110 section 13.2.2)."""
    cdef const HttpRequest *r = x.request
    cdef ByteRange[MAX_RANGES] ranges
    cdef int status, count = 0
    if r.head.seen & CONDITIONS:
        status = http_precondition(r, file.etag, file.modified)
        if status == 304:
            respond_unchanged(s, x, m, file)
            return
        if status:
            respond_status(x, status, b"")
            return
        if r.method == GET:
            count = http_ranges(r, file.etag, file.modified, file.size, ranges)
    if count == 0:
        respond_whole(s, x, m, file)
    elif count == 1:
        respond_part(s, x, m, file, ranges[0])
    elif count > 1:
        respond_parts(s, x, m, file, ranges, count)
    else:
        respond_unsatisfiable(x, file)


# ---- responses with a file ----

cdef inline void send_range(Exchange *x, File *file, ByteRange range) noexcept nogil:
    """Sends those bytes of a file, of which there may be none."""
    cdef size_t n = range.last - range.first + 1
    if file.body.fd < 0 and n <= MAX_COPY:
        memcpy(conn_reserve(x.out.r, x.c, n), file.body.data + range.first, n)
        conn_commit(x.out.r, n)
    else:
        conn_send(x.out.r, x.c, file.body, range.first, n)


cdef void respond_whole(Static *s, Exchange *x, const Mount *m, File *file) noexcept nogil:
    """200. What every response with the file says is kept with it, head and all; a small body is copied behind it."""
    cdef size_t before = DATE_AT + DATE_SIZE + 2         # status line and Date
    cdef size_t body = file.size if x.request.method == GET else 0
    cdef size_t copied = body if file.body.fd < 0 and body <= MAX_COPY else 0
    cdef Block *head = file.head
    cdef uint8_t *to
    if head == NULL:
        head = head_new(s, x, m, file)
        if head == NULL:
            conn_close(x.out.r, x.c)
            return
    x.length = file.size
    if x.keep and x.request.minor and x.origin.n == 0 and not x.by_origin and x.vary == NULL:
        to = conn_reserve(x.out.r, x.c, head.size + 24 + copied)
        memcpy(to, head.data, head.size)
        memcpy(to + DATE_AT, response_date(x.out), DATE_SIZE)
        head_count(x, 200)
        to += head.size
        if x.request.head.options & ASKS_KEEP_ALIVE:
            to = put_text(to - 2, b"Connection: keep-alive\r\n\r\n")   # 24 bytes more
    else:
        to = head_begin(x, 200, head.size + copied)
        to = put(to, head.data + before, head.size - before)
    head_end(x, to)
    if copied:
        put_any(to, file.body.data, copied)
        conn_commit(x.out.r, copied)
    elif body:
        conn_send(x.out.r, x.c, file.body, 0, body)


cdef Block *head_new(Static *s, Exchange *x, const Mount *m, File *file) noexcept nogil:
    """Makes the head of a 200 and keeps it with the file. NULL: memory is out."""
    cdef uint8_t *begin = conn_reserve(x.out.r, x.c, MAX_HEAD + m.own_fields)
    cdef uint8_t *to = response_head(begin, 200, response_date(x.out))
    cdef Block *head
    to = put_type(to, m, file)
    to = put_file_fields(s, x, m, to, file)
    to = response_length(to, file.size)
    head = block_copy(begin, to - begin)
    if head != NULL:
        files_keep(&s.files, file, head)
    return head


cdef void respond_part(Static *s, Exchange *x, const Mount *m, File *file, ByteRange range) noexcept nogil:
    """206 with one part (RFC 9110 section 15.3.7.1)."""
    cdef uint8_t *to = put_type(head_begin(x, 206, 0), m, file)
    to = put_content_range(put_file_fields(s, x, m, to, file), range, file.size)
    head_end(x, put_length(x, to, range.last - range.first + 1))
    send_range(x, file, range)


cdef void respond_parts(
    Static *s, Exchange *x, const Mount *m, File *file, const ByteRange *ranges, int count
) noexcept nogil:
    """206 with several parts (RFC 9110 section 14.6). The boundary can't occur in a file by chance worth counting."""
    cdef uint8_t[MAX_PART_HEAD] part
    cdef uint8_t *to
    cdef size_t n
    cdef int64_t total = put_boundary_end(part, file) - part
    cdef int i
    for i in range(count):
        total += put_boundary(part, m, file, ranges[i]) - part
        total += ranges[i].last - ranges[i].first + 1
    to = put_text(head_begin(x, 206, 0), b"Content-Type: multipart/byteranges; boundary=")
    to = put_text(put_boundary_name(to, file), b"\r\n")
    head_end(x, put_length(x, put_file_fields(s, x, m, to, file), total))
    for i in range(count):
        n = put_boundary(part, m, file, ranges[i]) - part
        memcpy(conn_reserve(x.out.r, x.c, n), part, n)
        conn_commit(x.out.r, n)
        send_range(x, file, ranges[i])
    to = conn_reserve(x.out.r, x.c, MAX_PART_HEAD)
    conn_commit(x.out.r, put_boundary_end(to, file) - to)


cdef uint8_t *put_boundary(uint8_t *to, const Mount *m, const File *file, ByteRange range) noexcept nogil:
    """What stands before a part; less than MAX_PART_HEAD bytes."""
    to = put_text(put_boundary_name(put_text(to, b"\r\n--"), file), b"\r\n")
    return put_text(put_content_range(put_type(to, m, file), range, file.size), b"\r\n")


cdef uint8_t *put_boundary_end(uint8_t *to, const File *file) noexcept nogil:
    """What stands after the last part."""
    return put_text(put_boundary_name(put_text(to, b"\r\n--"), file), b"--\r\n")


cdef inline uint8_t *put_boundary_name(uint8_t *to, const File *file) noexcept nogil:
    """The ETag without its quotes, and a constant: the same for the same file, so that responses can be cached."""
    return put_text(put(to, file.etag.at + 1, file.etag.n - 2), b"-6f9b2d41c0e7")


cdef inline uint8_t *put_type(uint8_t *to, const Mount *m, const File *file) noexcept nogil:
    to = put(put_text(to, b"Content-Type: "), file.type.name.at, file.type.name.n)
    if file.type.takes_charset:
        to = put(to, m.charset.at, m.charset.n)
    return put_text(to, b"\r\n")


cdef inline uint8_t *put_content_range(uint8_t *to, ByteRange range, int64_t size) noexcept nogil:
    to = put_number(put_text(to, b"Content-Range: bytes "), range.first)
    to = put_number(put_text(to, b"-"), range.last)
    return put_text(put_number(put_text(to, b"/"), size), b"\r\n")


cdef uint8_t *put_file_fields(
    Static *s, const Exchange *x, const Mount *m, uint8_t *to, const File *file
) noexcept nogil:
    """What is said of a file in a 200, 206 and 304 alike, but for its type and length."""
    cdef char[MAX_PATH + 2] path
    cdef const Rule *rule = NULL
    if m.cache.n + m.fields_for.n:
        files_path(&s.files, file, path)
    to = put_encoding(to, file)
    if m.sidecars:               # even where there are none: they may come, and this head is kept
        to = put_text(to, b"Vary: Accept-Encoding\r\n")
    # A file may be of tomorrow, a response may not say so (RFC 9110 section 8.8.2.1).
    to = put_text(response_validators(to, min(file.modified, x.out.r.unix_s), file.etag), b"Accept-Ranges: bytes\r\n")
    rule = rules_find(&m.cache, path)
    if rule != NULL:
        to = put_text(put(put_text(to, b"Cache-Control: "), rule.value.at, rule.value.n), b"\r\n")
    rule = rules_find(&m.fields_for, path)
    return put(to, m.fields.at, m.fields.n) if rule == NULL else put(to, rule.value.at, rule.value.n)


cdef inline uint8_t *put_encoding(uint8_t *to, const File *file) noexcept nogil:
    cdef Coding coding = stored_in(file)
    if coding == IDENTITY:
        return to
    return put_text(put_text(put_text(to, b"Content-Encoding: "), coding_name(coding)), b"\r\n")


cdef void respond_unchanged(Static *s, Exchange *x, const Mount *m, const File *file) noexcept nogil:
    """304: what a 200 would say of caching, and no body (RFC 9110 section 15.4.5)."""
    cdef uint8_t *to = head_begin(x, 304, 0)
    head_end(x, put_text(put_file_fields(s, x, m, to, file), b"\r\n"))


cdef void respond_unsatisfiable(Exchange *x, const File *file) noexcept nogil:
    """416, with the length that there is (RFC 9110 section 15.5.17)."""
    cdef uint8_t[MAX_CONTENT_RANGE] field
    cdef uint8_t *to = put_number(put_text(field, b"Content-Range: bytes */"), file.size)
    put_text(to, b"\r\n")[0] = 0
    respond_status(x, 416, <char *>field)


cdef void respond_redirect(Exchange *x) noexcept nogil:
    """301 to the same path with a slash behind it."""
    respond_moved(x, b"", last_name(x.request.path), b"/")


cdef void respond_moved(Exchange *x, const char *before, Slice name, const char *after) noexcept nogil:
    """301 to a name beside or above the request's path, with its query.

    Location is relative to that path (RFC 9110 section 10.2.2), so that a prefix which a proxy has taken off stays in
    front of it, and it can name no other host. Browsers would keep a 301 for good, and where a file has come in place
    of a directory since, it and the new redirect would lead to each other.
    """
    cdef Slice query = x.request.query
    cdef uint8_t *to = put_text(head_begin(x, 301, 3 * name.n + query.n), b"Location: ")
    if before[0] == 0 and memchr(name.at, c':', name.n) != NULL:
        before = b"./"           # what stands before the colon would be a scheme (RFC 3986 section 4.2)
    to = put_text(http_escape(put_text(to, before), name), after)
    if query.n:
        to = put(put_text(to, b"?"), query.at, query.n)
    head_end(x, put_text_body(x, put_text(to, b"\r\nCache-Control: no-cache\r\n"), 301))
