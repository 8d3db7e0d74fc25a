"""RFC 9112 request heads, RFC 9110 conditionals and ranges, response heads. See http.pyx."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from c1m.buf cimport Slice

cdef enum Method:
    GET
    HEAD
    OPTIONS
    CONNECT
    OTHER_METHOD                 # one that RFC 9110 or 5789 defines and no route here takes: 405
    UNKNOWN_METHOD               # 501; with HTTP_FAIL, also one that could not be read

cdef enum HttpKind:              # what http_next found
    HTTP_MORE                    # nothing whole: call again with the rest and more behind it
    HTTP_REQUEST                 # a whole request head
    HTTP_BODY                    # some of the body that the last head announced, in request.body
    HTTP_FAIL                    # what follows can't be trusted: answer request.status, if the request has no answer yet, and close

cdef enum FieldId:               # the fields that mean something to us
    HOST_FIELD
    CONNECTION
    UPGRADE
    CONTENT_LENGTH
    TRANSFER_ENCODING
    EXPECT
    ORIGIN
    ACCEPT
    ACCEPT_ENCODING
    RANGE
    IF_RANGE
    IF_MATCH
    IF_NONE_MATCH
    IF_MODIFIED_SINCE
    IF_UNMODIFIED_SINCE
    SEC_WEBSOCKET_KEY
    SEC_WEBSOCKET_VERSION
    SEC_WEBSOCKET_PROTOCOL
    SEC_WEBSOCKET_EXTENSIONS
    OTHER_FIELD

cdef enum RequestFlag:
    KEEP_ALIVE = 1               # the connection may serve another request (RFC 9112 section 9.3)
    WANTS_WEBSOCKET = 2          # Connection: upgrade and Upgrade: websocket, in HTTP/1.1
    CHUNKED = 4                  # the body is chunked (RFC 9112 section 7.1)
    EXPECT_CONTINUE = 8
    EXPECT_UNKNOWN = 16          # 417, whatever else is expected

cdef enum Coding:                # content codings, the one preferred among equals last
    IDENTITY
    GZIP
    BROTLI
    ZSTD
    CODINGS

cdef enum:
    MAX_BLANK_LINES = 4              # empty lines before a request, then 400
    MAX_REQUEST_LINE = 8192     # bytes, then 414 (nginx: large_client_header_buffers 8k)
    MAX_FIELD_BYTES = 16384          # bytes of all field lines, then 431
    MAX_FIELDS = 100       # then 431 (Apache: LimitRequestFields 100)
    MAX_BODY = 1 << 20          # bytes of body we read past to keep the connection, then 413 or the end
    MAX_CHUNK_LINE = 256        # bytes of a chunk's size and extensions, then the end
    MAX_RANGES = 16             # of one request that are answered one by one; with more it gets the whole
    DATE_SIZE = 29               # "Sun, 06 Nov 1994 08:49:37 GMT"
    DATE_AT = 23                 # where it stands in a head with status 200
    ACCEPTS_NAMED = 3            # see http_accepts
    MAX_HEAD = 1024             # bytes of any head made of the pieces below, Location aside

cdef enum Phase:                 # what the next byte belongs to
    AT_HEAD
    IN_BODY                      # Content-Length says where it ends
    AT_CHUNK                     # a chunk's size line
    IN_CHUNK
    AFTER_CHUNK                  # the CRLF behind its data
    AT_TRAILER                   # field lines behind the last chunk

cdef struct HttpParser:          # 16 bytes
    uint32_t body                # bytes of the body, or of this chunk, still to come
    uint32_t total               # bytes of a chunked body so far, with all that frames it
    uint32_t scanned             # bytes of this head that hold no line end we have not looked at; 0 until it begins
    uint16_t fields_at           # where its field lines begin, 0 while the request line is incomplete
    uint8_t phase                # Phase
    uint8_t blanks               # empty lines skipped before this head

cdef struct ByteRange:                # bytes first to last, both included
    int64_t first, last

cdef struct Field:
    FieldId id
    Slice name, value

cdef struct HttpRequest:             # slices point into the bytes given to http_next
    HttpKind kind
    uint16_t status              # HTTP_FAIL: what to answer
    Method method
    uint8_t minor                # HTTP/1.minor
    uint32_t flags
    Slice line                   # the request line as it came; where none is whole, what there is of it before a control character
    Slice path                   # still escaped; every escape is well-formed, none is NUL or a slash
    Slice query                  # without its question mark
    Slice host
    uint32_t content_length
    Slice body                   # HTTP_BODY: its data, of which there may be none
    uint32_t seen, again         # bit per FieldId: came once; came twice or more
    Slice[OTHER_FIELD] known     # first value by FieldId, where seen says so
    int count
    Field[MAX_FIELDS] fields

cdef size_t http_next(HttpParser *p, const uint8_t *bytes, size_t n, HttpRequest *r) noexcept nogil
cdef bint http_list_next(Slice *rest, Slice *item) noexcept nogil
cdef size_t http_unescape(Slice path, uint8_t *to) noexcept nogil
cdef uint8_t *http_escape(uint8_t *to, Slice path) noexcept nogil
cdef int http_precondition(const HttpRequest *r, Slice etag, int64_t mtime) noexcept nogil
cdef int http_ranges(const HttpRequest *r, Slice etag, int64_t mtime, int64_t size, ByteRange *spans) noexcept nogil
cdef Coding http_coding(const HttpRequest *r, uint32_t available) noexcept nogil
cdef int http_accepts(const HttpRequest *r, const char *type) noexcept nogil
cdef int64_t http_date_parse(Slice text) noexcept nogil
cdef void http_date(int64_t seconds, uint8_t *to) noexcept nogil
cdef const char *http_reason(int status) noexcept nogil
cdef uint8_t *http_head(uint8_t *to, int status, const uint8_t *date) noexcept nogil
cdef uint8_t *http_connection(uint8_t *to, uint8_t minor, bint keep) noexcept nogil
cdef uint8_t *http_validators(uint8_t *to, int64_t mtime, Slice etag) noexcept nogil
cdef uint8_t *http_length(uint8_t *to, uint64_t n) noexcept nogil
cdef size_t http_text_size(int status) noexcept nogil
cdef uint8_t *http_text(uint8_t *to, int status, bint with_body) noexcept nogil


cdef inline bint has(const HttpRequest *r, FieldId id) noexcept nogil:
    return r.seen >> id & 1

cdef inline bint twice(const HttpRequest *r, FieldId id) noexcept nogil:
    return r.again >> id & 1

cdef inline Slice value_of(const HttpRequest *r, FieldId id) noexcept nogil:
    """The first field's value; has() says whether there is one."""
    return r.known[<int>id]
