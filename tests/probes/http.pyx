"""HTTP as tests see it: messages in, and what a request's fields mean."""

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memset

from c1m.buf cimport Block, Slice, block_copy, block_new, block_unref, find_control
from c1m.coding cimport CODINGS
from c1m.http cimport (
    AT_HEAD, CHUNKED, END_BETWEEN, END_OF_BODY, EXPECT_CONTINUE, EXPECT_UNKNOWN, FOR_CONNECT, FOR_HEAD, FOR_UPGRADE,
    HTTP_BODY, HTTP_FAIL, HTTP_INTERIM, HTTP_MALFORMED, HTTP_MORE, HTTP_REQUEST, HTTP_RESPONSE, HTTP_TOO_LONG,
    KEEP_ALIVE, SWITCHED, UNTIL_CLOSE, WANTS_WEBSOCKET, HttpEnd, HttpHead, HttpParser, HttpRequest, HttpResponse,
    http_next, http_response_end, http_response_next, http_resolve,
)
from c1m.semantics cimport (
    DATE_SIZE, MAX_RANGES, ByteRange, http_codings, http_date, http_date_parse, http_precondition,
    http_ranges,
)


cdef bytes taken(Slice s):
    return s.at[:s.n] if s.n else b""


cdef list fields_of(const HttpHead *h):
    cdef int i
    return [(taken(h.fields[i].name), taken(h.fields[i].value)) for i in range(h.count)]


cdef class Incremental:
    """What both parsers have in common: feed(bytes) returns the events that they complete."""

    cdef HttpParser state
    cdef bytes kept
    cdef bint failed

    def __cinit__(self):
        memset(&self.state, 0, sizeof(HttpParser))
        self.kept = b""
        self.failed = False

    def feed(self, bytes data):
        """A list of events, of which ("fail", why) is the last one for good."""
        cdef size_t used = 0, step, n
        cdef Block *copy
        cdef list events = []
        cdef tuple event
        if self.failed:
            return events
        data = self.kept + data
        n = len(data)
        # An allocation of just this size, so that a sanitizer sees a read past the end.
        copy = block_copy(<const uint8_t *>data, n)
        if copy == NULL:
            raise MemoryError
        while not self.failed:
            step, event = self.next(copy.data + used, n - used)
            used += step
            assert used <= n
            if event is None:
                break
            events.append(event)
            self.failed = event[0] == "fail"
        self.kept = data[used:]
        block_unref(copy)
        return events

    cdef tuple next(self, const uint8_t *bytes, size_t n):
        """How many bytes were used, and the event; None if there is none."""
        raise NotImplementedError


cdef class Parser(Incremental):
    """The parser of requests. Events: ("request", {...}), ("body", data) and ("fail", status)."""

    cdef HttpRequest request

    cdef tuple next(self, const uint8_t *bytes, size_t n):
        cdef size_t used = http_next(&self.state, bytes, n, &self.request)
        if self.request.kind == HTTP_MORE:
            return used, None
        if self.request.kind == HTTP_FAIL:
            return used, ("fail", self.request.status)
        if self.request.kind == HTTP_BODY:
            return used, ("body", taken(self.request.body))
        return used, ("request", self.described())

    def again(self):
        """The last request as it is now, but for its slices, whose bytes are gone."""
        cdef const HttpRequest *r = &self.request
        return {
            "method": r.method, "minor": r.minor, "length": r.content_length, "flags": r.flags, "seen": r.head.seen,
            "again": r.head.again, "fields": [r.head.fields[i].id for i in range(r.head.count)],
        }

    cdef dict described(self):
        cdef HttpRequest *r = &self.request
        cdef Block *path = block_new(r.path.n + 1)
        if path == NULL:
            raise MemoryError
        path.size = http_resolve(r.path, path.data)
        resolved = path.data[:path.size]
        block_unref(path)
        return {
            "method": ["GET", "HEAD", "OPTIONS", "CONNECT", "other", "unknown"][<int>r.method],
            "path": taken(r.path), "resolved": resolved, "query": taken(r.query), "host": taken(r.host),
            "minor": r.minor, "length": r.content_length,
            "flags": flags_of(r.flags), "fields": fields_of(&r.head),
        }


cdef class ResponseParser(Incremental):
    """The parser of responses: ("interim", {...}), ("response", {...}), ("body", data), ("end",) and ("fail", why).

    methods: of the requests, in their order, then GET for ever. "UPGRADE" is a GET that had an Upgrade field.
    ("end",) follows a complete response.
    """

    cdef HttpResponse response
    cdef list methods
    cdef bint under_way          # a final head was parsed, and ("end",) has not followed yet

    def __cinit__(self, methods=()):
        self.methods = list(methods)
        self.under_way = False

    cdef tuple next(self, const uint8_t *bytes, size_t n):
        cdef HttpResponse *r = &self.response
        cdef size_t used
        if self.under_way and self.state.phase == AT_HEAD:
            self.under_way = False
            return 0, ("end",)
        method = self.methods[0] if self.methods else "GET"
        expect = {"HEAD": FOR_HEAD, "CONNECT": FOR_CONNECT, "UPGRADE": FOR_UPGRADE}.get(method, 0)
        used = http_response_next(&self.state, expect, bytes, n, r)
        if r.kind == HTTP_MORE:
            return used, None
        if r.kind == HTTP_FAIL:
            return used, ("fail", {HTTP_MALFORMED: "malformed", HTTP_TOO_LONG: "too long"}.get(r.fault, "unsupported"))
        if r.kind == HTTP_BODY:
            return used, ("body", taken(r.body))
        if r.kind == HTTP_RESPONSE:
            self.under_way = True
            del self.methods[:1]
        return used, ("interim" if r.kind == HTTP_INTERIM else "response", {
            "status": r.status, "minor": r.minor, "reason": taken(r.reason), "length": r.content_length,
            "flags": flags_of(r.flags), "fields": fields_of(&r.head),
        })

    def close(self):
        """What the connection's end means now: "between", "body" for the end of one, or "cut"."""
        cdef HttpEnd end = http_response_end(&self.state, len(self.kept))
        return "between" if end == END_BETWEEN else "body" if end == END_OF_BODY else "cut"

    def to_come(self):
        """Bytes of the body, or of its chunk, that are to come."""
        return self.state.body


cdef set flags_of(uint32_t flags):
    return {
        name for name, bit in (
            ("keep-alive", KEEP_ALIVE), ("websocket", WANTS_WEBSOCKET), ("chunked", CHUNKED),
            ("continue", EXPECT_CONTINUE), ("expectation", EXPECT_UNKNOWN), ("until close", UNTIL_CLOSE),
            ("switched", SWITCHED),
        ) if flags & bit
    }


def control_at(bytes data):
    """Where the first control character is, or the end."""
    cdef const uint8_t *at = data
    return find_control(at, at + len(data)) - at


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
    accepted = http_codings(&request)
    preferred = [accepted >> shift & 3 for shift in range(0, 32, 2)]
    best = preferred[:preferred.index(0)]
    assert not any(preferred[len(best):]) and len(set(best)) == len(best) < CODINGS
    return next((names[coding] for coding in best if names[coding] in codings), "identity")


def parse_date(bytes text):
    """Unix time of an HTTP date, -1 if it is none."""
    return http_date_parse(Slice(text, len(text)))


def format_date(int64_t seconds):
    """Unix time, 0 to the year 9999, as an HTTP date."""
    cdef uint8_t to[DATE_SIZE]
    http_date(seconds, to)
    return to[:DATE_SIZE]


def bench(str what, bytes data, long rounds):
    """Rounds of one thing, for bench/engines.py. The result only keeps the compiler from leaving the work out."""
    cdef int kind = ["head", "precondition", "ranges", "coding", "date in", "date out", "response"].index(what)
    cdef HttpParser state
    cdef HttpRequest request
    cdef HttpResponse response
    cdef ByteRange[MAX_RANGES] spans
    cdef uint8_t[DATE_SIZE] date
    cdef Slice text = Slice(data, len(data))
    cdef int64_t i, sum = 0
    for i in range(rounds):
        if kind == 6:
            memset(&state, 0, sizeof(HttpParser))
            sum += http_response_next(&state, 0, text.at, text.n, &response)
        elif kind == 0 or i == 0:
            memset(&state, 0, sizeof(HttpParser))
            sum += http_next(&state, text.at, text.n, &request)
        if kind == 1:
            sum += http_precondition(&request, Slice(b'"abc"', 5), i)
        elif kind == 2:
            sum += http_ranges(&request, Slice(b'"abc"', 5), 0, i + 1000, spans)
        elif kind == 3:
            sum += http_codings(&request)
        elif kind == 4:
            sum += http_date_parse(Slice(text.at, text.n - (sum == -1)))
        elif kind == 5:
            http_date(i, date)
            sum += date[24]
    return sum
