"""HTTP/1.1 messages in (RFC 9112): requests for a server, responses for a client. See http.pyx."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport strlen

from c1m.buf cimport Slice, same_letters

cdef extern from *:
    uint64_t MAX_CHUNK "(UINT64_C(1) << 59)"     # bytes of a response's chunk, then HTTP_TOO_LONG

cdef enum:
    MAX_BLANK_LINES = 4          # empty lines before a request, then 400
    MAX_REQUEST_LINE = 8192      # bytes, then 414 (nginx: large_client_header_buffers 8k)
    MAX_STATUS_LINE = 8192       # bytes, then HTTP_TOO_LONG
    MAX_FIELD_BYTES = 16384      # bytes of all field lines of a message, then 431 or HTTP_TOO_LONG
    MAX_FIELDS = 100             # then 431 or HTTP_TOO_LONG (Apache: LimitRequestFields 100)
    MAX_LENGTH_DIGITS = 18       # of a Content-Length, then 400 or HTTP_MALFORMED
    MAX_BODY = 1 << 20           # bytes of a request's body, then 413
    MAX_CHUNK_LINE = 256         # bytes of a chunk's size and extensions, then 400 or HTTP_MALFORMED

cdef enum:
    LF = 10
    CR = 13
    SP = 32
    TAB = 9

cdef enum Method:
    GET
    HEAD
    OPTIONS
    CONNECT
    OTHER_METHOD                 # another of IANA's registry: 405
    UNKNOWN_METHOD               # 501; with HTTP_FAIL, also one that could not be read

cdef enum HttpKind:              # what http_next or http_response_next found
    HTTP_MORE                    # nothing whole: call again with the rest and more behind it
    HTTP_REQUEST                 # a whole request head
    HTTP_RESPONSE                # a whole head of a final response
    HTTP_INTERIM                 # a whole 1xx response other than 101; another response follows
    HTTP_BODY                    # some of the body that the last head announced
    HTTP_FAIL                    # the rest can't be parsed: see HttpRequest.status or HttpResponse.fault

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

cdef enum:
    KNOWN_FIELDS = <int>OTHER_FIELD       # Cython 3.1 takes no named enumeration for an array's length

cdef enum HttpFlag:              # bits
    KEEP_ALIVE = 1               # the connection may carry another message (RFC 9112 section 9.3)
    WANTS_WEBSOCKET = 2          # Connection: upgrade and Upgrade: websocket, in HTTP/1.1
    CHUNKED = 4                  # the body is chunked (RFC 9112 section 7.1)
    EXPECT_CONTINUE = 8          # requests
    EXPECT_UNKNOWN = 16          # requests: 417, whatever else is expected
    UNTIL_CLOSE = 32             # responses: the body ends with the connection
    SWITCHED = 64                # responses: what follows is no HTTP, but the protocol or tunnel that was asked for

cdef enum:
    ASKS_KEEP_ALIVE = 1 << 9     # HttpHead.options: Connection says keep-alive

cdef enum HttpExpect:            # bits, of the request that a response is for
    FOR_HEAD = 1                 # its method was HEAD
    FOR_CONNECT = 2              # CONNECT
    FOR_UPGRADE = 4              # it had an Upgrade field, so that 101 may come

cdef enum HttpFault:             # why a response can't be used
    HTTP_NO_FAULT
    HTTP_MALFORMED
    HTTP_TOO_LONG                # over one of the limits above
    HTTP_UNSUPPORTED             # another version of HTTP, or a transfer coding besides chunked

cdef enum HttpEnd:               # what it means that the server has closed the connection
    END_BETWEEN                  # no response has begun: well between responses, a failure where one is awaited
    END_OF_BODY                  # the body that lasts until then is whole
    END_CUT                      # a response is incomplete (RFC 9112 section 8)

cdef enum Phase:                 # what the next byte belongs to
    AT_HEAD
    IN_BODY                      # Content-Length says where it ends
    AT_CHUNK                     # a chunk's size line
    IN_CHUNK
    AFTER_CHUNK                  # the CRLF behind its data
    AT_TRAILER                   # field lines behind the last chunk
    UNTIL_END                    # a response's body that ends with the connection
    AFTER_SWITCH                 # no HTTP: see SWITCHED

cdef struct HttpParser:          # 16 bytes, zero at first
    uint64_t body                # bytes of the body, or of this chunk, still to come
    # AT_HEAD: bytes of this head that are known to end no further line; 0 until it begins. In a chunked body: bytes
    # so far, with all that frames them; for a response, those since the last chunk's size.
    uint32_t scanned
    uint16_t fields_at           # where the head's field lines begin, 0 while its first line is incomplete
    uint8_t phase                # Phase
    uint8_t blanks               # empty lines skipped before a request

cdef struct Field:
    FieldId id
    Slice name, value

cdef struct HttpHead:            # the field lines of a message
    uint32_t seen, again         # bit per FieldId: came once; came twice or more
    uint32_t options             # HttpFlag and more, as Connection, Upgrade and Expect have it; for http.pyx
    int count
    Slice[KNOWN_FIELDS] known    # first value by FieldId, where seen says so
    Field[MAX_FIELDS] fields

cdef struct HttpRequest:         # slices point into the bytes given to http_next
    HttpKind kind
    uint16_t status              # HTTP_FAIL: what to respond with
    Method method
    uint8_t minor                # HTTP/1.minor
    uint32_t flags               # HttpFlag
    Slice line                   # the request line as it came; if incomplete, what precedes a control character
    Slice path                   # still escaped; every escape is well-formed, none is NUL
    bint plain_path              # it has no escape, no "//" and no "/.": http_resolve would not change it
    Slice query                  # without its question mark
    Slice host
    uint32_t content_length
    Slice body                   # HTTP_BODY: its data, of which there may be none
    HttpHead head

cdef struct HttpResponse:        # slices point into the bytes given to http_response_next
    HttpKind kind
    HttpFault fault              # HTTP_FAIL: why
    uint16_t status              # 100 to 999; 600 and up are to be taken for 5xx (RFC 9110 section 15)
    uint8_t minor                # HTTP/1.minor
    uint32_t flags               # HttpFlag
    Slice line                   # the status line as it came, as HttpRequest.line
    Slice reason
    uint64_t content_length      # what Content-Length says, or 0; also of a response that has no body
    Slice body                   # HTTP_BODY: its data, of which there may be none
    HttpHead head

cdef size_t http_next(HttpParser *p, const uint8_t *bytes, size_t n, HttpRequest *r) noexcept nogil
cdef size_t http_response_next(
    HttpParser *p, uint32_t expect, const uint8_t *bytes, size_t n, HttpResponse *r,
) noexcept nogil
cdef HttpEnd http_response_end(const HttpParser *p, size_t n) noexcept nogil
cdef size_t http_resolve(Slice path, uint8_t *to) noexcept nogil
cdef bint http_has_escaped_slash(Slice path) noexcept nogil
cdef uint8_t *http_escape(uint8_t *to, Slice path) noexcept nogil
cdef Slice head_other(const HttpHead *h, const char *lower) noexcept nogil


# ---- fields of a head; those of a request by themselves ----

cdef inline bint head_has(const HttpHead *h, FieldId id) noexcept nogil:
    return h.seen >> id & 1

cdef inline bint has(const HttpRequest *r, FieldId id) noexcept nogil:
    return r.head.seen >> id & 1

cdef inline bint twice(const HttpRequest *r, FieldId id) noexcept nogil:
    return r.head.again >> id & 1

cdef inline Slice value_of(const HttpRequest *r, FieldId id) noexcept nogil:
    """The first field's value; has() says whether there is one."""
    return r.head.known[<int>id]


# ---- pieces of a field's value ----

cdef inline Slice http_trimmed(const uint8_t *at, const uint8_t *end) noexcept nogil:
    """[at, end) without the spaces and tabs around it."""
    while at < end and (at[0] == SP or at[0] == TAB):
        at += 1
    while at < end and ((end - 1)[0] == SP or (end - 1)[0] == TAB):
        end -= 1
    return Slice(at, end - at)

cdef inline bint http_list_next(Slice *rest, Slice *item) noexcept nogil:
    """Takes the next element off a comma-separated list, empty ones skipped (RFC 9110 section 5.6.1). False: none."""
    cdef const uint8_t *at = rest.at
    cdef const uint8_t *end = at + rest.n
    cdef const uint8_t *from_
    while at < end and (at[0] == SP or at[0] == TAB or at[0] == c','):
        at += 1
    from_ = at
    while at < end and at[0] != c',':
        at += 1
    item[0] = http_trimmed(from_, at)
    rest[0] = Slice(at, end - at)
    return item.n != 0

cdef inline bint http_is_word(Slice item, const char *lower) noexcept nogil:
    """Whether a token is this lower-case one, letter case aside."""
    return item.n == strlen(lower) and same_letters(item.at, lower, item.n)
