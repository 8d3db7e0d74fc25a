"""What a request's fields mean (RFC 9110): preconditions, ranges, what a client accepts, and dates.

Owns: sections 5.6.7, 12.5, 13 and 14. Refuses to know: how a message is framed, sockets, files, clocks.

A precondition or a range is judged against an ETag, with its quotes, and a time of last modification in Unix seconds,
below 0 where it is not known: then what names a date is ignored, and no If-Range that does holds.
Fields that are malformed are ignored, as the RFC has it.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, strlen

from c1m.buf cimport CLASS, DIGIT, Slice, put, same_letters
from c1m.coding cimport BROTLI, CODINGS, GZIP, IDENTITY, ZSTD
from c1m.http cimport (
    ACCEPT, ACCEPT_ENCODING, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE, SP, TAB,
    FieldId, HttpRequest, has, http_is_word, http_list_next, http_trimmed, twice, value_of,
)

cdef extern from *:
    uint64_t MAX_POSITION "(UINT64_C(1) << 60)"      # in a range; past the end of any file


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
        if since >= 0 and 0 <= mtime <= since:
            return 304
    return 0


cdef bint etag_listed(const HttpRequest *r, FieldId id, Slice etag, bint weakly) noexcept nogil:
    """Whether the lists of all fields of that name hold "*" or the (strong) etag (RFC 9110 section 8.8.3.2)."""
    cdef Slice rest, item
    cdef bint weak
    cdef int i
    for i in range(r.head.count):
        if r.head.fields[i].id != id:
            continue
        rest = r.head.fields[i].value
        if rest.n == 1 and rest.at[0] == c'*':
            return True
        while etag_next(&rest, &item, &weak):
            if (weakly or not weak) and item.n == etag.n and memcmp(item.at, etag.at, etag.n) == 0:
                return True
    return False


cdef bint etag_next(Slice *rest, Slice *tag, bint *weak) noexcept nogil:
    """Takes the next entity tag off a list: its quoted part, and whether it is weak. False at the end or a fault."""
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


cdef int http_ranges(const HttpRequest *r, Slice etag, int64_t mtime, int64_t size, ByteRange *ranges) noexcept nogil:
    """The ranges of size bytes that a GET's Range and If-Range select; returns how many, 1 to MAX_RANGES.

    They are in the order asked for.
    0: send it all, for there is no Range, or it is malformed or in another unit, or If-Range does not hold, or the
    ranges are more than MAX_RANGES or together longer than the whole (RFC 9110 section 17.15), or that is empty: who
    asks for it "from 0 on" has all of it, and is not refused.
    -1: none of it can be satisfied, 416.
    """
    cdef Slice rest, item
    cdef int count = 0, kind, refused = 0
    cdef int64_t total = 0
    if not has(r, RANGE) or twice(r, RANGE) or size == 0:
        return 0
    if has(r, IF_RANGE) and not if_range_holds(r, etag, mtime):
        return 0
    rest = value_of(r, RANGE)
    if rest.n < 7 or not same_letters(rest.at, b"bytes", 5) or rest.at[5] != c'=':
        return 0
    rest = Slice(rest.at + 6, rest.n - 6)
    while http_list_next(&rest, &item):
        if count == MAX_RANGES:
            return 0
        kind = range_parse(item, size, &ranges[count])
        if kind < 0:
            return 0
        if kind == 0:
            refused += 1
            continue
        total += ranges[count].last - ranges[count].first + 1
        count += 1
    if count == 0:
        return -1 if refused else 0
    return 0 if count > 1 and total > size else count


cdef bint if_range_holds(const HttpRequest *r, Slice etag, int64_t mtime) noexcept nogil:
    """Whether If-Range is this strong entity tag, or exactly this time (RFC 9110 section 13.1.5)."""
    cdef Slice value = value_of(r, IF_RANGE)
    cdef int64_t date
    if twice(r, IF_RANGE):
        return False
    if memchr(value.at, c'"', min(value.n, <size_t>3)) != NULL:
        return etag.at[0] == c'"' and value.n == etag.n and memcmp(value.at, etag.at, etag.n) == 0
    date = http_date_parse(value)
    return date >= 0 and date == mtime


cdef int range_parse(Slice spec, int64_t size, ByteRange *range) noexcept nogil:
    """first-last, first- or -suffix (RFC 9110 section 14.1.2): 1, 0 if size bytes have none of it, -1 if malformed."""
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
        range.first = size - <int64_t>b if b < <uint64_t>size else 0
        range.last = size - 1
        return b != 0 and size != 0
    if not position(Slice(spec.at, at - spec.at), &a):
        return -1
    if at + 1 < end and (not position(Slice(at + 1, end - at - 1), &b) or b < a):
        return -1
    range.first = <int64_t>a
    range.last = min(<int64_t>b, size - 1)
    return a < <uint64_t>size


cdef inline bint position(Slice digits, uint64_t *out) noexcept nogil:
    """1 or more decimal digits and nothing else; at most MAX_POSITION, for section 14.1.1 sets no bound."""
    cdef size_t i
    out[0] = 0
    for i in range(digits.n):
        if not CLASS[digits.at[i]] & DIGIT:
            return False
        out[0] = min(out[0] * 10 + (digits.at[i] - c'0'), MAX_POSITION)
    return digits.n != 0


# ---- what a client accepts (RFC 9110 section 12.5) ----

cdef uint32_t http_codings(const HttpRequest *r) noexcept nogil:
    """The content codings that the client prefers to identity, by Accept-Encoding (RFC 9110 section 12.5.3).

    Best first, each a Coding in 2 bits, from the low end on; 0: no more. Among those of equal weight the later Coding
    comes first; none is there twice. The first of them that is available is the one to use; where none is, identity is,
    though the client may have refused it.
    """
    cdef int[<int>CODINGS] q
    cdef int i, best, star = -1
    cdef uint32_t codings = 0
    cdef int shift = 0
    cdef Slice rest, item, name
    if not has(r, ACCEPT_ENCODING):
        return 0
    rest = value_of(r, ACCEPT_ENCODING)
    if not twice(r, ACCEPT_ENCODING):
        # What browsers send, the last where the connection is not secure: there is nothing to weigh.
        if rest.n == 23 and memcmp(rest.at, b"gzip, deflate, br, zstd", 23) == 0:
            return <uint32_t>ZSTD | <uint32_t>BROTLI << 2 | <uint32_t>GZIP << 4
        if rest.n == 17 and memcmp(rest.at, b"gzip, deflate, br", 17) == 0:
            return <uint32_t>BROTLI | <uint32_t>GZIP << 2
        if rest.n == 13 and memcmp(rest.at, b"gzip, deflate", 13) == 0:
            return <uint32_t>GZIP
    for i in range(<int>CODINGS):
        q[i] = -1
    for i in range(r.head.count):
        if r.head.fields[i].id != ACCEPT_ENCODING:
            continue
        rest = r.head.fields[i].value
        while http_list_next(&rest, &item):
            name = before_parameters(item)
            if http_is_word(name, b"gzip") or http_is_word(name, b"x-gzip"):
                q[<int>GZIP] = quality(item)
            elif http_is_word(name, b"br"):
                q[<int>BROTLI] = quality(item)
            elif http_is_word(name, b"zstd"):
                q[<int>ZSTD] = quality(item)
            elif http_is_word(name, b"identity"):
                q[<int>IDENTITY] = quality(item)
            elif name.n == 1 and name.at[0] == c'*':
                star = quality(item)
    for i in range(<int>CODINGS):
        if q[i] < 0:
            q[i] = star
    if q[<int>IDENTITY] < 0:
        q[<int>IDENTITY] = 0             # allowed, yet anything that was named comes first
    while True:
        best = IDENTITY
        for i in range(<int>GZIP, <int>CODINGS):
            if q[i] > 0 and q[i] >= q[best]:
                best = i
        if best == IDENTITY:
            return codings
        codings |= <uint32_t>best << shift
        shift += 2
        q[best] = -1


cdef int http_accepts(const HttpRequest *r, const char *type) noexcept nogil:
    """How far Accept prefers a media type (RFC 9110 section 12.5.1): 0 if not acceptable, else 4 * weight + closeness.

    The weight is in thousandths, that of the closest media range; closeness is ACCEPTS_NAMED for the type itself, 2 for
    "type/*", 1 for "*/*".
    """
    cdef Slice rest, item
    cdef int i, named, best = 0, weight = 0
    for i in range(r.head.count):
        if r.head.fields[i].id != ACCEPT:
            continue
        rest = r.head.fields[i].value
        while http_list_next(&rest, &item):
            named = named_by(before_parameters(item), type)
            if named > best:
                best, weight = named, quality(item)
    return 4 * weight + best if weight else 0


cdef int named_by(Slice range, const char *type) noexcept nogil:
    """The closeness of http_accepts with which a media range names a media type; 0 if it does not."""
    if http_is_word(range, type):
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
    return http_trimmed(item.at, at)


cdef int quality(Slice item) noexcept nogil:
    """An element's weight in thousandths, 1000 if it names none, 0 if it is malformed (RFC 9110 section 12.4.2)."""
    cdef const uint8_t *at = item.at
    cdef const uint8_t *end = at + item.n
    cdef int value, unit = 100
    while at < end:
        while at < end and at[0] != c';':
            at += 1
        at = http_trimmed(at + 1, end).at if at < end else end
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

    seconds: Unix time. A time before 1970 or after 9999 becomes the first or last second of that span.
    """
    cdef int64_t days, left, year, month, of_year
    seconds = max(0, min(seconds, <int64_t>253402300799))  # 31 Dec 9999 23:59:59
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
        if i < 6 or i > 9 or text.n != i + 24:
            return -1
        if at[i + 1] != SP or at[i + 4] != c'-' or at[i + 8] != c'-' or at[i + 11] != SP:
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
