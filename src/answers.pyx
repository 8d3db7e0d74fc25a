"""HTTP answers: which mount a request is below, which file it gets there, and what the head says.

Owns: the choice among a root's files, every status and field of an answer, and the access log's part of it.
Refuses to know: WebSockets, Python, what a request's bytes looked like.

mount_find comes first: the answer's mount and who may read it count for every answer, whatever its status. A head is
begun by head_begin, which counts it, and ended by head_end. What is written goes by conn_room and conn_send.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy, memset

from c1m.accesslog cimport Line, line_copy, log_line, log_write
from c1m.app cimport Answer, App, Mount
from c1m.buf cimport Block, Slice, block_copy, put, put_number, put_text
from c1m.files cimport FILE_BUSY, FILE_DIRECTORY, FILE_FOUND, MAX_NAME, MAX_PATH, File, FindResult, files_find, files_keep
from c1m.http cimport (
    ACCEPTS_NAMED, ACCEPT_ENCODING, BROTLI, DATE_AT, DATE_SIZE, GET, GZIP, HEAD, MAX_HEAD, IDENTITY, ZSTD,
    IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE, ORIGIN, RANGE, MAX_RANGES, Coding, ByteRange, has, http_accepts, http_coding, http_connection, http_date, http_escape,
    http_head, http_length, http_precondition, http_ranges, http_text, http_text_size, http_validators, twice,
    value_of,
)
from c1m.http cimport HttpRequest
from c1m.linux cimport fnmatch
from c1m.reactor cimport (
    CLOSED, MAX_PEER_TEXT, Conn, conn_close, conn_finish, conn_peer, conn_room, conn_send, conn_unsent, conn_wrote,
)

cdef enum:
    MAX_COPY = 4096             # bytes of a cached file that are copied behind their head; more are sent from where they lie
    CONDITIONS = 1 << <int>IF_MATCH | 1 << <int>IF_NONE_MATCH | 1 << <int>IF_MODIFIED_SINCE | 1 << <int>IF_UNMODIFIED_SINCE | 1 << <int>RANGE
    MAX_PART_HEAD = 512         # bytes before each part of a multipart answer

cdef const char *ALLOWED = b"Allow: GET, HEAD, OPTIONS\r\n"
cdef const char *UPGRADE_FIELDS = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"


cdef void mount_find(App *a, Slice path) noexcept nogil:
    """Sets the answer's mount, NULL if the path is below none, and origin."""
    cdef const Mount *m
    cdef Slice origin
    cdef int i
    for i in range(a.mounts_n):
        m = a.mounts[i]
        if (path.n >= m.prefix.n and memcmp(path.at, m.prefix.at, m.prefix.n) == 0 and
                (path.n == m.prefix.n or path.at[m.prefix.n] == c'/') and (m.host.n == 0 or host_is(a.request.host, m.host))):
            break
    else:
        return
    a.answer.mount = m
    a.answer.by_origin = m.origins_n != 0
    if m.any_origin:
        a.answer.origin = Slice(b"*", 1)
    elif m.origins_n and has(&a.request, ORIGIN) and not twice(&a.request, ORIGIN):
        origin = value_of(&a.request, ORIGIN)
        for i in range(m.origins_n):
            if m.origins[i].n == origin.n and memcmp(m.origins[i].at, origin.at, origin.n) == 0:
                a.answer.origin = origin


cdef bint host_is(Slice host, Slice lower) noexcept nogil:
    """Whether a Host field's value names that host, whatever its port, and with or without the dot that ends a whole name."""
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


cdef int route_at(const App *a, Slice path) noexcept nogil:
    """The WebSocket route of this path, or -1."""
    cdef int i
    for i in range(a.routes_n):
        if a.routes[i].path.n == path.n and memcmp(a.routes[i].path.at, path.at, path.n) == 0:
            return i
    return -1


cdef bint answer_path(App *a, Conn *c, Slice path) noexcept nogil:
    """Answers with what the mount's document root has under this path. False: with a listing, which is for others to make."""
    cdef const Mount *m = a.answer.mount
    cdef File *file = NULL
    cdef Slice below
    cdef FindResult found
    if m == NULL:
        answer_absent(a, c, path)
        return True
    below = path_below(m, path)
    if below.n == 0:
        answer_redirect(a, c, path)
        return True
    found = files_find(&a.files, m.root, below, codings_of(a), a.r.now_ms, &file)
    if found == FILE_FOUND:
        answer_file(a, c, file)
    elif found == FILE_DIRECTORY:
        answer_redirect(a, c, path)
    elif found == FILE_BUSY:
        answer_status(a, c, 503, b"")
    elif m.listing and below.at[below.n - 1] == c'/':
        return False
    else:
        answer_absent(a, c, path)
    return True


cdef inline uint32_t codings_of(const App *a) noexcept nogil:
    """What the client prefers to the file as it is, best first, as files_find takes it."""
    cdef uint32_t codings = 0, available = 1 << <int>GZIP | 1 << <int>BROTLI | 1 << <int>ZSTD
    cdef Coding best
    cdef int shift = 0
    if not a.answer.mount.sidecars or not has(&a.request, ACCEPT_ENCODING):
        return 0
    while available:
        best = http_coding(&a.request, available)
        if best == IDENTITY:
            break
        codings |= <uint32_t>best << shift
        available &= ~(<uint32_t>1 << <int>best)
        shift += 2
    return codings


# ---- answers with a file ----

cdef void answer_file(App *a, Conn *c, File *file) noexcept nogil:
    """200, 206, 304, 412 or 416, as the request's conditions have it (RFC 9110 section 13.2.2)."""
    cdef HttpRequest *r = &a.request
    cdef ByteRange[MAX_RANGES] spans
    cdef int status, count = 0
    if r.seen & CONDITIONS:
        status = http_precondition(r, file.etag, file.modified)
        if status == 304:
            answer_unchanged(a, c, file)
            return
        if status:
            answer_status(a, c, status, b"")
            return
        if r.method == GET:
            count = http_ranges(r, file.etag, file.modified, file.size, spans)
        if count < 0:
            answer_unsatisfiable(a, c, file)
            return
        if count > 1:
            answer_parts(a, c, file, spans, count)
            return
        if count == 1:
            head_of_part(a, c, file, &spans[0])
            send_span(a, c, file, spans[0])
            return
    head_of_whole(a, c, file)
    if r.method == GET:
        send_span(a, c, file, ByteRange(0, file.size - 1))


cdef inline void send_span(App *a, Conn *c, File *file, ByteRange span) noexcept nogil:
    """Sends those bytes of a file, of which there may be none."""
    cdef size_t n = span.last - span.first + 1
    if file.body.fd < 0 and n <= MAX_COPY:
        memcpy(conn_room(a.r, c, n), file.body.data + span.first, n)
        conn_wrote(a.r, n)
    else:
        conn_send(a.r, c, file.body, span.first, n)


cdef void head_of_whole(App *a, Conn *c, File *file) noexcept nogil:
    """The head of a 200. It is kept with the file, all but the date."""
    cdef uint8_t *to
    cdef Block *head = file.head
    cdef size_t line = DATE_AT + DATE_SIZE + 2                  # status line and Date
    if head == NULL:
        to = conn_room(a.r, c, MAX_HEAD + a.answer.mount.room)
        head = block_copy(to, http_length(put_file_fields(a, put_type(http_head(to, 200, date_now(a)), file), file), file.size) - to)
        if head == NULL:
            conn_close(a.r, c)
            return
        files_keep(&a.files, file, head)
    a.answer.length = file.size
    if a.answer.keep and a.request.minor and a.answer.origin.n == 0 and not (a.answer.by_origin or a.answer.by_accept):
        a.answer.status = 200
        a.answers[2] += 1
        to = conn_room(a.r, c, head.size)
        memcpy(to, head.data, head.size)
        memcpy(to + DATE_AT, date_now(a), DATE_SIZE)
        head_end(a, to + head.size)
        return
    to = head_begin(a, c, 200, head.size)
    head_end(a, put(to, head.data + line, head.size - line))


cdef void head_of_part(App *a, Conn *c, const File *file, const ByteRange *span) noexcept nogil:
    """The head of a 206 with one part (RFC 9110 section 15.3.7.1)."""
    cdef uint8_t *to = head_begin(a, c, 206, 0)
    to = put_file_fields(a, put_type(to, file), file)
    to = put_content_range(to, span, file.size)
    head_end(a, put_length(a, to, span.last - span.first + 1))


cdef void answer_parts(App *a, Conn *c, File *file, const ByteRange *spans, int count) noexcept nogil:
    """206 with several parts (RFC 9110 section 14.6). The boundary can't occur in a file by chance worth counting."""
    cdef uint8_t[MAX_PART_HEAD] part
    cdef uint8_t *to
    cdef size_t n, total = 0
    cdef int i
    for i in range(count + 1):
        total += put_boundary(part, a, file, &spans[i] if i < count else NULL) - part
        if i < count:
            total += spans[i].last - spans[i].first + 1
    to = head_begin(a, c, 206, 0)
    to = put_text(put_boundary_name(put_text(to, b"Content-Type: multipart/byteranges; boundary="), file), b"\r\n")
    head_end(a, put_length(a, put_file_fields(a, to, file), total))
    for i in range(count + 1):
        n = put_boundary(part, a, file, &spans[i] if i < count else NULL) - part
        memcpy(conn_room(a.r, c, n), part, n)
        conn_wrote(a.r, n)
        if i < count:
            send_span(a, c, file, spans[i])


cdef uint8_t *put_boundary(uint8_t *to, App *a, const File *file, const ByteRange *span) noexcept nogil:
    """What stands before a part, or, with a NULL span, after the last; less than MAX_PART_HEAD bytes."""
    to = put_boundary_name(put_text(to, b"\r\n--"), file)
    if span == NULL:
        return put_text(to, b"--\r\n")
    to = put_type(put_text(to, b"\r\n"), file)
    return put_text(put_content_range(to, span, file.size), b"\r\n")


cdef inline uint8_t *put_boundary_name(uint8_t *to, const File *file) noexcept nogil:
    """The ETag without its quotes, and a constant: the same for the same file, so that answers can be cached."""
    return put_text(put(to, file.etag.at + 1, file.etag.n - 2), b"-6f9b2d41c0e7")


cdef inline uint8_t *put_type(uint8_t *to, const File *file) noexcept nogil:
    return put_text(put(put_text(to, b"Content-Type: "), file.type.at, file.type.n), b"\r\n")


cdef inline uint8_t *put_content_range(uint8_t *to, const ByteRange *span, int64_t size) noexcept nogil:
    to = put_number(put_text(to, b"Content-Range: bytes "), span.first)
    to = put_number(put_text(to, b"-"), span.last)
    return put_text(put_number(put_text(to, b"/"), size), b"\r\n")


cdef uint8_t *put_file_fields(const App *a, uint8_t *to, const File *file) noexcept nogil:
    """What is said of a file in a 200, 206 and 304 alike, but for its type and length."""
    cdef const Mount *m = a.answer.mount
    cdef int i
    if file.coding:
        to = put_text(to, b"Content-Encoding: ")
        to = put_text(to, b"gzip\r\n" if file.coding == GZIP else b"br\r\n" if file.coding == BROTLI else b"zstd\r\n")
    if m.sidecars:               # even where none are: they may come, and no answer may hang on what others have asked for
        to = put_text(to, b"Vary: Accept-Encoding\r\n")
    # A file may be of tomorrow, an answer may not say so (RFC 9110 section 8.8.2.1).
    to = put_text(http_validators(to, min(file.modified, a.r.unix_s), file.etag), b"Accept-Ranges: bytes\r\n")
    for i in range(m.rules_n):
        if matches(m.rules[i].pattern, file, a.files.roots[file.root].index[file.index]):
            to = put_text(to, b"Cache-Control: ")
            to = put_text(put(to, m.rules[i].value.at, m.rules[i].value.n), b"\r\n")
            break
    return put(to, m.fields.at, m.fields.n)


cdef bint matches(const char *pattern, const File *file, Slice index) noexcept nogil:
    """Whether a file's path below its root fits a pattern: as a whole if the pattern begins with a slash, else its last name."""
    cdef char[MAX_PATH + 1 + MAX_NAME] path
    cdef char *name = path
    cdef uint8_t *end = put(<uint8_t *>path, file.path, file.path_n)
    cdef size_t i
    if (end - 1)[0] == c'/':
        end = put(end, index.at, index.n)
    end[0] = 0
    if pattern[0] != c'/':
        for i in range(file.path_n):
            if path[i] == c'/':
                name = path + i + 1
    return fnmatch(pattern, name, 0) == 0


cdef void answer_unchanged(App *a, Conn *c, const File *file) noexcept nogil:
    """304: what a 200 would say of caching, and no body (RFC 9110 section 15.4.5)."""
    cdef uint8_t *to = head_begin(a, c, 304, 0)
    head_end(a, put_text(put_file_fields(a, to, file), b"\r\n"))


cdef void answer_unsatisfiable(App *a, Conn *c, const File *file) noexcept nogil:
    """416, with the length that there is (RFC 9110 section 15.5.17)."""
    cdef uint8_t[64] field
    cdef uint8_t *to = put_number(put_text(field, b"Content-Range: bytes */"), file.size)
    put_text(to, b"\r\n")[0] = 0
    answer_status(a, c, 416, <char *>field)


# ---- answers without one ----

cdef void answer_options(App *a, Conn *c) noexcept nogil:
    """204 with what is allowed (RFC 9110 section 9.3.7), also to a CORS preflight (Fetch section 3.2)."""
    cdef uint8_t *to = put_text(head_begin(a, c, 204, 0), ALLOWED)
    if a.answer.origin.n:
        to = put_text(to, b"Access-Control-Allow-Methods: GET, HEAD, OPTIONS\r\nAccess-Control-Allow-Headers: *\r\nAccess-Control-Max-Age: 86400\r\n")
    head_end(a, put_text(to, b"\r\n"))


cdef void answer_redirect(App *a, Conn *c, Slice path) noexcept nogil:
    """301 to the same path with a slash behind it. The path has no run of slashes, so it can't name another host."""
    cdef Slice query = a.request.query
    cdef uint8_t *to = head_begin(a, c, 301, 3 * path.n + query.n)
    to = put_text(http_escape(put_text(to, b"Location: "), path), b"/")
    if query.n:
        to = put(put_text(to, b"?"), query.at, query.n)
    head_end(a, put_text_body(a, put_text(to, b"\r\n"), 301))


cdef void answer_absent(App *a, Conn *c, Slice path) noexcept nogil:
    """426 where WebSockets are spoken and nothing else (RFC 9110 section 15.5.22); else the single page or 404."""
    cdef const Mount *m = a.answer.mount
    cdef File *file = NULL
    if route_at(a, path) >= 0:
        answer_upgrade_required(a, c)
        return
    a.answer.by_accept = m != NULL and m.single_page and not names_file(path)
    if a.answer.by_accept and http_accepts(&a.request, b"text/html") & 3 == ACCEPTS_NAMED:
        if files_find(&a.files, m.root, Slice(b"/", 1), codings_of(a), a.r.now_ms, &file) == FILE_FOUND:
            answer_file(a, c, file)
            return
    if m != NULL and files_find(&a.files, m.root, Slice(b"/404.html", 9), 0, a.r.now_ms, &file) == FILE_FOUND:
        head_end(a, put_length(a, put(put_type(head_begin(a, c, 404, 0), file), m.fields.at, m.fields.n), file.size))
        if a.request.method == GET:
            send_span(a, c, file, ByteRange(0, file.size - 1))
        return
    answer_status(a, c, 404, b"")


cdef bint names_file(Slice path) noexcept nogil:
    """Whether a path's last name has a dot in it, as an asset's name does and a place in a single-page application's does not."""
    cdef size_t i = path.n
    while i > 0 and path.at[i - 1] != c'/':
        i -= 1
        if path.at[i] == c'.':
            return True
    return False


cdef void answer_status(App *a, Conn *c, int status, const char *fields) noexcept nogil:
    """An answer that says no more than its status; fields: whole lines to add."""
    cdef uint8_t *to = put_text(head_begin(a, c, status, 0), fields)
    head_end(a, put_text_body(a, to, status))


cdef void answer_not_allowed(App *a, Conn *c) noexcept nogil:
    """405, with what is allowed (RFC 9110 section 15.5.6)."""
    answer_status(a, c, 405, ALLOWED)


cdef void answer_upgrade_required(App *a, Conn *c) noexcept nogil:
    """426, with the version that is spoken (RFC 9110 section 15.5.22, RFC 6455 section 4.2.2)."""
    answer_status(a, c, 426, UPGRADE_FIELDS)


cdef void answer_failure(App *a, Conn *c, int status) noexcept nogil:
    """The last answer on a connection whose requests can't be told apart any more."""
    a.requests += 1
    memset(&a.answer, 0, sizeof(Answer))
    answer_status(a, c, status, b"")
    if a.log != NULL:
        answer_log(a, c)
    conn_finish(a.r, c, True)


cdef void answer_log(App *a, Conn *c) noexcept nogil:
    """Logs an answer; one whose body the client does not take at once, when it has left or the connection ends."""
    cdef char[MAX_PEER_TEXT] peer
    cdef Line line
    cdef int64_t unsent = 0
    conn_peer(a.r, c, peer)
    log_line(a.log, &line, peer, &a.request, a.answer.status,
             0 if a.request.method == HEAD or a.answer.status == 304 else a.answer.length, a.r.unix_s)
    if line.length and c.flags & CLOSED:
        unsent = line.length - max(<int64_t>(a.r.sent - a.answer.head_sent), 0)
    elif line.length and c.output != NULL:       # so it is no upgrade, which has use for conn.cold itself
        c.cold = line_copy(&line)
        if c.cold != NULL:
            return
    log_write(a.log, &line, unsent)


cdef void answer_left(App *a, Conn *c) noexcept nogil:
    """Nothing more of the visitor's last answer will leave."""
    if c.cold != NULL:
        log_write(a.log, <Line *>c.cold, conn_unsent(c))
        free(c.cold)
        c.cold = NULL


cdef uint8_t *head_begin(App *a, Conn *c, int status, size_t more) noexcept nogil:
    """Begins a head and counts the answer; returns where its fields go. Room there is for those of the mount, and `more` bytes."""
    cdef uint8_t *to
    if a.answer.mount != NULL:
        more += a.answer.mount.room
    to = http_head(conn_room(a.r, c, MAX_HEAD + more), status, date_now(a))
    a.answers[status // 100] += 1
    a.answer.status = status
    if a.answer.origin.n:
        to = put_text(to, b"Access-Control-Allow-Origin: ")
        # "*" is every field to requests without credentials, and those with are not allowed (Fetch section 3.2).
        to = put_text(put(to, a.answer.origin.at, a.answer.origin.n), b"\r\nAccess-Control-Expose-Headers: *\r\n")
    if a.answer.by_origin:
        to = put_text(to, b"Vary: Origin\r\n")
    if a.answer.by_accept:
        to = put_text(to, b"Vary: Accept\r\n")
    return http_connection(to, a.request.minor, a.answer.keep)


cdef inline uint8_t *put_text_body(App *a, uint8_t *to, int status) noexcept nogil:
    """The rest of a head, and a body that names the status."""
    a.answer.length = http_text_size(status)
    return http_text(to, status, a.request.method != HEAD)


cdef inline const uint8_t *date_now(App *a) noexcept nogil:
    if a.date_s != a.r.unix_s:
        a.date_s = a.r.unix_s
        http_date(a.date_s, a.date)
    return a.date
