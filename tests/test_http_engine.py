"""The HTTP engine without sockets: its Strictness table line by line, and properties against slow models."""

from __future__ import annotations

import calendar
import itertools
import re
from email.utils import formatdate

import oracle
import pytest
import vectors
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracle import HttpReader, http_events, pieces, read, read_every_way
from wire import chunked, request

from c1m import _probe_http, http

TABLE = http.__doc__.partition("Strictness of requests:\n")[2].partition("\n\n")[0]
LINE = re.compile(r"^  (\S.*?) +((?:\d{4} \d[\d.]*(?:, )?)+) +(\S.*)$", re.MULTILINE)
ROWS = {row: (clause, answer) for row, clause, answer in LINE.findall(TABLE)}

thorough = settings(max_examples=300)


def vector(row, name, case):
    clause = ROWS[row][0] if row in ROWS else ""
    return pytest.param(*case, id=f"RFC {clause} {row}: {name}" if clause else name)


def check(events, expected):
    """Sees that these are the events; of a request only what is expected of it counts."""
    if isinstance(expected, int):
        expected = [("fail", expected)]
    seen = [
        {key: event[1][key] for key in wanted} if event[0] == "request" and type(wanted) is dict else event
        for event, wanted in zip(events, expected, strict=False)
    ]
    assert seen + events[len(seen):] == expected


def test_every_row_of_the_strictness_table_has_its_vectors():
    assert set(ROWS) == set(vectors.HTTP)
    for row, (_, answer) in ROWS.items():
        events = [event for data, _ in vectors.HTTP[row].values() for event in http_events(data)]
        status = re.match(r"\d{3}\b(?! \(a flag)", answer)
        if status:
            assert {event[1] for event in events if event[0] == "fail"} == {int(status[0])}, row


@pytest.mark.parametrize(("data", "expected"), [
    *(vector(row, name, case) for row, cases in vectors.HTTP.items() for name, case in cases.items()),
    *(vector("", name, case) for name, case in vectors.HTTP_NORMAL.items()),
])
def test_vector(data, expected):
    events = read_every_way(HttpReader, data)
    check(events, expected)
    assert events == http_events(data)


# ---- requests at random ----

def letters(allowed, **size):
    return st.text(bytes(allowed).decode("latin-1"), **size).map(lambda text: text.encode("latin-1"))


TOKEN = [c for c in range(128) if re.fullmatch(oracle.TOKEN, bytes([c]))]
VISIBLE = [c for c in range(0x21, 0x7F) if c not in b"#"]
VALUE = [*range(0x20, 0x7F), 9, *range(0x80, 0x100)]
KNOWN = {b"host", b"connection", b"upgrade", b"content-length", b"transfer-encoding", b"expect"}
tokens = letters(TOKEN, min_size=1, max_size=9)
methods = st.sampled_from(list(oracle.METHODS)) | tokens
escapes = st.integers(1, 255).filter(lambda c: c != 0x2F).map(lambda c: b"%%%02x" % c)
path_parts = letters([c for c in VISIBLE if c not in b"%?"], max_size=9) | escapes
paths = st.lists(path_parts, max_size=5).map(lambda parts: b"/" + b"".join(parts))
queries = st.none() | letters(VISIBLE, max_size=9)
names = tokens.filter(lambda name: name.lower() not in KNOWN)
contents = letters(VALUE, max_size=20).map(lambda value: value.strip(b" \t"))
field_lists = st.lists(st.tuples(names, contents), max_size=6)
bodies = st.lists(st.binary(min_size=1, max_size=40), max_size=4)     # of two or more: chunks
extensions = st.sampled_from([b"", b";a=b", b' ; a="b;c"'])
blanks = st.sampled_from([b"", b" ", b"\t", b"  \t "])
cuts = st.lists(st.integers(0, 400), max_size=8)


@st.composite
def requests(draw):
    """(bytes, what the parser must say of them)."""
    method = draw(methods.filter(lambda method: method != b"CONNECT"))
    path, query, fields, body = draw(paths), draw(queries), draw(field_lists), draw(bodies)
    sent = [(b"Host", b"example.org")]
    sent += [(name, draw(blanks) + value + draw(blanks)) for name, value in fields]
    fields = [(b"Host", b"example.org"), *fields]
    framing, written = [], b"".join(body)
    if len(body) > 1:
        framing = [(b"transfer-encoding", b"chunked")]
        written = chunked(body, draw(extensions), draw(field_lists))
    elif body:
        framing = [(b"content-length", b"%d" % len(written))]
    fields += framing
    data = request(path if query is None else path + b"?" + query, sent + framing, written, method=method)
    expected = {
        "method": oracle.METHODS.get(method, "unknown"), "path": path, "query": query or b"",
        "host": b"example.org", "fields": fields, "length": len(written) if len(body) == 1 else 0,
        "flags": {"keep-alive", "chunked"} if len(body) > 1 else {"keep-alive"},
    }
    return data, [expected, ("body", b"".join(body))] if body else [expected]


@thorough
@given(st.lists(requests(), max_size=4), cuts)
def test_valid_requests_round_trip(sent, cuts):
    data = b"".join(data for data, _ in sent)
    events = read(HttpReader(), pieces(data, cuts))
    check(events, [event for _, expected in sent for event in expected])
    assert events == http_events(data)


corpus = [data for cases in [*vectors.HTTP.values(), vectors.HTTP_NORMAL] for data, _ in cases.values()]
scraps = st.sampled_from([b"\r\n", b"\r", b"\n", b" ", b"\t", b"\0", b":", b",", b"/", b"%", b"?",
                          b"#", b"Host: a\r\n"])
edits = st.tuples(st.integers(0, 300), st.integers(0, 3), scraps | st.binary(max_size=3))


def edited(data, changes):
    for at, length, new in changes:
        data = data[:at] + new + data[at + length:]
    return data


@thorough
@given(st.sampled_from(corpus), st.lists(edits, min_size=1, max_size=4), cuts)
def test_damaged_requests_are_judged_alike_however_cut(data, changes, cuts):
    data = edited(data, changes)
    assert read(HttpReader(), [data]) == http_events(data)
    assert read(HttpReader(), pieces(data, cuts)) == http_events(data)


@thorough
@given(st.binary() | letters(b"G /\r\n:HTP1.0a\0", max_size=60), cuts)
def test_any_bytes_are_judged_alike_however_cut(data, cuts):
    assert read(HttpReader(), [data]) == read(HttpReader(), pieces(data, cuts)) == http_events(data)


def test_a_request_stays_as_it_is_while_its_body_comes():
    """Trailers are field lines, too, but not the request's."""
    head = request(b"/", [
        (b"Host", b"a"), (b"A", b"b"), (b"Accept", b"x"), (b"Accept", b"y"), (b"Connection", b"close"),
        (b"Transfer-Encoding", b"chunked"),
    ], method=b"POST")
    trailers = [(b"A", b"b"), (b"Host", b"c"), (b"Host", b"d"), (b"Connection", b"keep-alive"), (b"Expect", b"x")]
    parser = _probe_http.Parser()
    assert len(parser.feed(head)) == 1
    before = parser.again()
    assert len(before["fields"]) == 6
    body = chunked([b"Hello", b"world"], b";a", trailers)
    for at in range(len(body)):
        parser.feed(body[at:at + 1])
        assert parser.again() == before
    assert len(parser.feed(request())) == 1
    assert parser.again() != before


def test_a_request_stays_as_it_is_when_its_body_fails():
    parser = _probe_http.Parser()
    parser.feed(vectors.CHUNKED)
    before = parser.again()
    assert parser.feed(b"0\r\nHost: b\r\nA b\r\n")[-1] == ("fail", 400)
    assert parser.again() == before


@thorough
@given(st.lists(st.sampled_from([*b"\t \x1f\x00\x7f\x7e\x80\xff\x20\x21aa\r\n"]), max_size=40).map(bytes))
def test_the_first_control_character_is_found(data):
    found = oracle.CONTROL.search(data)
    assert _probe_http.control_at(data) == (found.start() if found else len(data))


def test_a_chunked_body_is_bounded_with_all_that_frames_it():
    for chunk in (b"ab", b"c" * 1000):
        most = (1 << 20) // len(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        data = vectors.CHUNKED + chunked([chunk] * (most + 1))
        events = read(HttpReader(), [data])
        assert events[1:] == [("body", chunk * most), ("fail", 413)]
        assert events == http_events(data) == read(HttpReader(), pieces(data, range(0, len(data), 4999)))
    trailers = vectors.CHUNKED + chunked([], trailers=[(b"A", b"x" * 16000)] * 66)
    assert read(HttpReader(), [trailers])[1:] == http_events(trailers)[1:] == [("fail", 413)]


@thorough
@given(paths)
@example(b"/a/%2e%2e/b")
@example(b"/a//../b")
@example(b"/../a")
def test_a_path_is_resolved_as_the_oracle_does(path):
    (_, event), = read(HttpReader(), [request(path)])
    assert event["resolved"] == oracle.resolved(path)


@pytest.mark.parametrize(("path", "resolved"), [
    (b"/.", b"/"), (b"/./", b"/"), (b"/./a", b"/a"), (b"/a/.", b"/a/"), (b"/a/./b", b"/a/b"), (b"/a/././b/", b"/a/b/"),
    (b"/a/..", b"/"), (b"/a/../", b"/"), (b"/a/../b", b"/b"), (b"/a/b/..", b"/a/"), (b"/a/b/../c", b"/a/c"),
    (b"/a/b/../../c", b"/c"), (b"/a/b/../..", b"/"), (b"/a/../b/../c/", b"/c/"), (b"/a/.././b", b"/b"),
    (b"/..", b"/.."), (b"/../", b"/.."), (b"/../a", b"/.."), (b"/a/../..", b"/.."), (b"/a/../../a", b"/.."),
    (b"/./..", b"/.."), (b"//..", b"/.."), (b"/a/../../../../b", b"/.."),
    (b"/%2e/a", b"/a"), (b"/a/%2E%2e/b", b"/b"), (b"/a/.%2e", b"/"), (b"/a/%2e./b", b"/b"), (b"/%2e%2e/a", b"/.."),
    (b"/%252e%252e/a", b"/%2e%2e/a"), (b"/a//../b", b"/b"), (b"/a/..//b", b"/b"), (b"//a//.//b//", b"/a/b/"),
    (b"/...", b"/..."), (b"/.a", b"/.a"), (b"/..a/..", b"/"), (b"/a/.b/../c", b"/a/c"), (b"/a./b../c", b"/a./b../c"),
    (b"/a/..;/b", b"/a/..;/b"), (b"/a/..\\b", b"/a/..\\b"), (b"http://h/a/../b", b"/b"), (b"http://h/../b", b"/.."),
])
def test_rfc3986_5_2_4_dot_segments(path, resolved):
    (_, event), = read(HttpReader(), [request(path)])
    assert event["resolved"] == resolved
    if path.startswith(b"/"):
        assert resolved == oracle.resolved(path)


# ---- conditionals (RFC 9110 section 13) ----

ETAG, MTIME, SIZE = b'"abc"', 784111777, 1000
THEN, BEFORE, AFTER = (_probe_http.format_date(MTIME + d) for d in (0, -1, 1))


def judge(*lines, size=SIZE):
    """_probe_http.judge of a request with these field lines, once the model agrees: (status, ranges)."""
    fields = [tuple(line.split(b": ", 1)) for line in lines]
    judgement = _probe_http.judge(request(fields=[(b"Host", b"a"), *fields]), ETAG, MTIME, size)
    model = oracle.precondition(fields, ETAG, MTIME), oracle.selected(fields, ETAG, MTIME, size)
    assert judgement == model
    return judgement


def cases(table):
    return pytest.mark.parametrize("case", table.values(), ids=[f"RFC 9110 {name}" for name in table])


def test_a_head_that_is_not_whole_is_not_judged():
    for data in (request()[:-1], vectors.head(*[b"A: b"] * 100)):
        with pytest.raises(ValueError, match="not a whole request head"):
            _probe_http.judge(data, ETAG, MTIME, SIZE)


@cases({
    "13.1.1 If-Match, matching": (0, b'If-Match: "abc"'),
    "13.1.1 If-Match, in a list": (0, b'If-Match: "x", "abc"'),
    "13.1.1 If-Match, in a second field": (0, b'If-Match: "x"', b'if-match: "abc"'),
    "13.1.1 If-Match, any": (0, b"If-Match: *"),
    "13.1.1 If-Match, another": (412, b'If-Match: "x"'),
    "13.1.1 If-Match compares strongly": (412, b'If-Match: W/"abc"'),
    "13.1.1 If-Match, none": (412, b"If-Match: "),
    "13.1.2 If-None-Match, matching": (304, b'If-None-Match: "abc"'),
    "13.1.2 If-None-Match compares weakly": (304, b'If-None-Match: W/"abc"'),
    "13.1.2 If-None-Match, any": (304, b"If-None-Match: *"),
    "13.1.2 If-None-Match, another": (0, b'If-None-Match: "x"'),
    "13.1.3 not modified": (304, b"If-Modified-Since: " + THEN),
    "13.1.3 not modified for longer": (304, b"If-Modified-Since: " + AFTER),
    "13.1.3 modified": (0, b"If-Modified-Since: " + BEFORE),
    "13.1.3 not a date": (0, b"If-Modified-Since: 0"),
    "13.1.3 a list of dates": (0, b"If-Modified-Since: " + THEN, b"If-Modified-Since: " + THEN),
    "13.1.4 unmodified": (0, b"If-Unmodified-Since: " + THEN),
    "13.1.4 modified": (412, b"If-Unmodified-Since: " + BEFORE),
    "13.1.4 not a date": (0, b"If-Unmodified-Since: yesterday"),
    "13.1.4 a list of dates": (0, b"If-Unmodified-Since: " + BEFORE, b"If-Unmodified-Since: " + BEFORE),
    "13.2.2 no precondition": (0,),
    "13.1.3 If-None-Match outweighs it": (0, b'If-None-Match: "x"', b"If-Modified-Since: " + THEN),
    "13.1.4 If-Match outweighs it": (0, b'If-Match: "abc"', b"If-Unmodified-Since: " + BEFORE),
    "13.2.2 If-Match comes before If-None-Match": (412, b'If-None-Match: "abc"', b'If-Match: "x"'),
    "5.6.7 RFC 850 date": (304, b"If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT"),
    "5.6.7 asctime date": (304, b"If-Modified-Since: Sun Nov  6 08:49:37 1994"),
    "13.1.3 modified since before 1970": (0, b"If-Modified-Since: Fri, 31 Dec 1920 00:00:00 GMT"),
    "13.1.4 modified since before 1970": (412, b"If-Unmodified-Since: Fri, 31 Dec 1920 00:00:00 GMT"),
    "8.8.3 a comma inside a tag": (304, b'If-None-Match: "x,y" , W/"abc"'),
    "8.8.3 a tag without its quotes is none": (412, b"If-Match: abc"),
    "8.8.3 a fault ends the list": (412, b'If-Match: "a,"abc"'),
})
def test_precondition(case):
    status, *lines = case
    assert judge(*lines) == (status, [])


def test_preconditions_in_every_combination():
    dates, tags = [None, BEFORE, THEN, AFTER, b"x"], [None, b"*", ETAG, b'W/"abc"', b'"x"']
    names = b"If-Match", b"If-Unmodified-Since", b"If-None-Match", b"If-Modified-Since"
    for values in itertools.product(tags, dates, tags, dates):
        judge(*(b"%s: %s" % field for field in zip(names, values, strict=True) if field[1] is not None))


tag_lists = st.lists(st.tuples(
    st.sampled_from([b"", b" ", b"\t", b", ", b",,", b"x"]),
    st.sampled_from([b"", b"W/", b"w/", b"W"]),
    st.sampled_from([ETAG, b'"abcd"', b'""', b'"a,b"', b'"', b"abc", b"*", b'"\xff"']),
), max_size=5).map(lambda parts: b",".join(a + b + c for a, b, c in parts).strip(b" \t"))


@thorough
@given(st.lists(st.tuples(st.sampled_from([b"If-Match", b"If-None-Match"]), tag_lists), max_size=3))
def test_entity_tag_lists_are_read_as_the_model_reads_them(fields):
    judge(*(b"%s: %s" % field for field in fields))


# ---- ranges (RFC 9110 section 14) ----

ALL: list = []                       # as _probe_http.judge has it
UNSATISFIABLE = None


@cases({
    "14.1.2 the first byte": (b"bytes=0-0", [(0, 0)]),
    "14.1.2 the first 500": (b"bytes=0-499", [(0, 499)]),
    "14.1.2 from the last on": (b"bytes=999-", [(999, 999)]),
    "14.1.2 from the middle on": (b"bytes=500-", [(500, 999)]),
    "14.1.2 past the end": (b"bytes=500-5000", [(500, 999)]),
    "14.1.2 the last one": (b"bytes=-1", [(999, 999)]),
    "14.1.2 the last 1000": (b"bytes=-1000", [(0, 999)]),
    "14.1.2 the last 1001 of 1000": (b"bytes=-1001", [(0, 999)]),
    "14.1.2 the last none": (b"bytes=-0", UNSATISFIABLE),
    "14.1.2 several, as asked for": (b"bytes=500-600, 0-0 ,,-1", [(500, 600), (0, 0), (999, 999)]),
    "14.1.2 the satisfiable of several": (b"bytes=1000-,1-2,-0", [(1, 2)]),
    "14.1 unit in capitals": (b"BYTES=1-2", [(1, 2)]),
    "14.1 space before the equals sign": (b"bytes =1-2", ALL),
    "14.1.1 leading zeros": (b"bytes=0000000000000000000001-0000000000000000000002", [(1, 2)]),
    "14.1.1 no bound on digits": (b"bytes=1-99999999999999999999999999", [(1, 999)]),
    "14.1.1 no bound on a suffix": (b"bytes=-99999999999999999999999999", [(0, 999)]),
    "14.1.1 backwards": (b"bytes=2-1", ALL),
    "14.1.1 neither end": (b"bytes=-", ALL),
    "14.1.1 nothing": (b"bytes=", ALL),
    "14.1.1 nothing but a comma": (b"bytes=,", ALL),
    "14.1.1 no dash": (b"bytes=5", ALL),
    "14.1.1 two dashes": (b"bytes=1--2", ALL),
    "14.1.1 not digits": (b"bytes=a-b", ALL),
    "14.1.1 junk behind": (b"bytes=1-2x", ALL),
    "14.1.1 one of several malformed": (b"bytes=1-2,x", ALL),
    "14.2 another unit": (b"lines=1-2", ALL),
    "14.2 empty": (b"", ALL),
    "15.5.17 from the end on": (b"bytes=1000-", UNSATISFIABLE),
    "15.5.17 from 2**64 on": (b"bytes=18446744073709551616-", UNSATISFIABLE),
    "15.5.17 several, none of them satisfiable": (b"bytes=1000-,2000-3000", UNSATISFIABLE),
    "17.15 as much as the whole": (b"bytes=0-499,500-999", [(0, 499), (500, 999)]),
    "17.15 more than the whole": (b"bytes=0-499,499-999", ALL),
    "17.15 32 of them": (b"bytes=" + b"0-0," * 32, [(0, 0)] * 32),
    "17.15 33 of them": (b"bytes=" + b"0-0," * 33, ALL),
})
def test_range(case):
    value, ranges = case
    assert judge(b"Range: " + value) == (0, ranges)


@cases({
    "13.1.5 the same tag": (ETAG, [(1, 2)]),
    "13.1.5 a weak tag": (b'W/"abc"', ALL),
    "13.1.5 another tag": (b'"x"', ALL),
    "13.1.5 the same date": (THEN, [(1, 2)]),
    "13.1.5 a later date is not the same": (AFTER, ALL),
    "13.1.5 an earlier date": (BEFORE, ALL),
    "13.1.5 neither tag nor date": (b"abc", ALL),
    "13.1.5 empty": (b"", ALL),
    "13.1.5 junk behind the tag": (ETAG + b"junk", ALL),
    "13.1.5 half a tag behind the tag": (ETAG + b'"', ALL),
    "13.1.5 a list": (ETAG + b', "x"', ALL),
    "13.1.5 a list that begins empty": (b",, " + ETAG, ALL),
    "13.1.5 a list that ends empty": (ETAG + b",", ALL),
    "13.1.5 any": (b"*", ALL),
    "13.1.5 a tag left open": (ETAG[:-1], ALL),
    "13.1.5 junk behind the date": (THEN + b",", ALL),
    "13.1.5 a tag with a date in it": (b'"x"nday, 06-Nov-94 08:49:37 GMT', ALL),
    "13.1.5 a weak tag with a date in it": (b'W/"day, 06-Nov-94 08:49:37 GMT', ALL),
})
def test_if_range(case):
    value, ranges = case
    assert judge(b"Range: bytes=1-2", b"If-Range: " + value) == (0, ranges)


def test_if_range_without_range_and_either_twice():
    assert judge(b"If-Range: " + ETAG) == (0, ALL)
    for value in (ETAG, THEN):
        assert judge(b"Range: bytes=1-2", b"If-Range: " + value, b"If-Range: " + value) == (0, ALL)
    assert judge(b"Range: bytes=1-2", b"Range: bytes=1-2") == (0, ALL)


@pytest.mark.parametrize("value", [b"bytes=0-", b"bytes=0-0", b"bytes=-1", b"bytes=-0"])
def test_a_range_of_an_empty_file_is_all_of_it(value):
    assert judge(b"Range: " + value, size=0) == (0, ALL)


positions = st.one_of(
    st.just(""), st.integers(0, 1200).map(str), st.integers(0, 10**26).map(str), st.just("0" * 30 + "7"))
sizes = st.sampled_from([0, 1, 2, 1000, 1 << 40]) | st.integers(0, 1200)
spans = st.tuples(
    st.sampled_from(["", " "]), positions, st.sampled_from(["-", "-", "-", "-", "-", "", "- "]), positions,
    st.sampled_from(["", "", " ", "x"]),
).map("".join)
units = st.sampled_from(["bytes=", "bytes=", "Bytes=", "bytes", "items="])
range_values = st.tuples(units, st.lists(spans, max_size=4).map(",".join)).map("".join).map(str.strip)


@thorough
@given(range_values, sizes)
def test_ranges_are_those_of_the_model(value, size):
    _, ranges = judge(b"Range: " + value.encode(), size=size)
    for first, last in ranges or []:
        assert 0 <= first <= last < size


# ---- content codings (RFC 9110 section 12.5.3) ----

CODINGS = ("gzip", "br", "zstd")


def choose(value, codings=CODINGS):
    """_probe_http.choose for an Accept-Encoding, once the model agrees."""
    fields = [(b"Accept-Encoding", value)]
    chosen = _probe_http.choose(request(fields=[(b"Host", b"a"), *fields]), codings)
    assert chosen == oracle.coding(fields, set(codings))
    return chosen


@cases({
    "12.5.3 all that browsers take": (b"gzip, deflate, br, zstd", "zstd"),
    "12.5.3 one of them": (b"gzip", "gzip"),
    "12.5.3 its old name": (b"x-gzip", "gzip"),
    "12.5.3 in capitals": (b"GZIP", "gzip"),
    "12.5.3 another": (b"deflate", "identity"),
    "12.5.3 the heaviest": (b"gzip;q=1, br;q=0.5, zstd;q=0.25", "gzip"),
    "12.5.3 identity is heavier": (b"gzip;q=0.5, identity", "identity"),
    "12.5.3 identity is as heavy": (b"gzip;q=0.5, identity;q=0.5", "gzip"),
    "12.5.3 any": (b"*", "zstd"),
    "12.5.3 any but one": (b"*, zstd;q=0", "br"),
    "12.5.3 none but one": (b"gzip, *;q=0", "gzip"),
    "12.5.3 none at all": (b"*;q=0", "identity"),
    "12.5.3 empty": (b"", "identity"),
    "12.4.2 weight 0": (b"gzip;q=0", "identity"),
    "12.4.2 weight 0.000": (b"gzip;q=0.000", "identity"),
    "12.4.2 weight 0.001": (b"gzip;q=0.001", "gzip"),
    "12.4.2 weight 1.000": (b"gzip;q=1.000, br;q=0.999", "gzip"),
    "12.4.2 weight over 1 is none": (b"gzip;q=1.001", "identity"),
    "12.4.2 weight that is no number": (b"gzip;q=x", "identity"),
    "12.4.2 weight that is negative": (b"gzip;q=-1", "identity"),
    "12.4.2 spaces and another parameter": (b"gzip ; a=b ;\tQ=0.5 , br;q=0.4", "gzip"),
})
def test_coding(case):
    value, chosen = case
    assert choose(value) == chosen


def test_only_what_is_there_is_chosen():
    assert choose(b"gzip, br, zstd", ["gzip"]) == "gzip"
    for browser in (b"gzip, deflate, br, zstd", b"gzip, deflate, br", b"gzip, deflate"):
        for there in itertools.chain.from_iterable(itertools.combinations(CODINGS, n) for n in range(4)):
            choose(browser, there)
    assert choose(b"br, zstd", ["gzip"]) == "identity"
    assert choose(b"*", []) == "identity"
    assert _probe_http.choose(request(), CODINGS) == "identity"
    with pytest.raises(ValueError, match="not a whole request head"):
        _probe_http.choose(request()[:-1], CODINGS)


weights = st.sampled_from(
    ["", ";q=0", ";q=1", "; q=0.5", ";Q=0.51", ";q=0.", ";q=2", ";q", ";q=", ";q=0.50x", ";q=.5", ";a;q=0.3"])
names_of_codings = st.sampled_from(["gzip", "x-gzip", "br", "zstd", "identity", "*", "GZIP", "x", ""])
accepted = st.lists(st.tuples(names_of_codings, weights).map("".join), max_size=6).map(", ".join)


@thorough
@given(accepted, st.lists(st.sampled_from(CODINGS), unique=True))
def test_codings_are_chosen_as_the_model_chooses_them(value, codings):
    choose(value.strip().encode(), codings)


# ---- dates (RFC 9110 section 5.6.7) ----

LAST = calendar.timegm((9999, 12, 31, 23, 59, 59))
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


@thorough
@given(st.integers(0, LAST))
def test_dates_round_trip(seconds):
    text = _probe_http.format_date(seconds)
    assert text == formatdate(seconds, usegmt=True).encode()
    assert _probe_http.parse_date(text) == seconds


def test_every_day_of_eight_hundred_years():
    for day in range(365 * 800):
        text = _probe_http.format_date(day * 86400)
        assert _probe_http.parse_date(text) == day * 86400, text
    assert text[:16] == formatdate(day * 86400, usegmt=True).encode()[:16]


@thorough
@given(st.integers(0, calendar.timegm((2069, 12, 31, 23, 59, 59))))
def test_obsolete_dates_are_read(seconds):
    day, month, year, clock, _ = formatdate(seconds, usegmt=True)[5:].split()
    name = DAYS[(seconds // 86400 + 3) % 7]
    assert _probe_http.parse_date(f"{name}, {day}-{month}-{year[2:]} {clock} GMT".encode()) == seconds
    assert _probe_http.parse_date(f"{name[:3]} {month} {int(day):2} {clock} {year}".encode()) == seconds


@pytest.mark.parametrize("text", [
    b"", b"0", b"-1", b"," * 29, b" " * 29, b"Sun, 06 Nov 1994 08:49:37", b"Sun, 06 Nov 1994 08:49:37 UTC",
    b"Sun, 06 nov 1994 08:49:37 GMT", b"Sun, 6 Nov 1994 08:49:37 GMT", b"Sun, 31 Apr 1994 08:49:37 GMT",
    b"Sun, 29 Feb 1900 08:49:37 GMT", b"Tue, 29 Feb 2100 08:49:37 GMT", b"Sun, 00 Nov 1994 08:49:37 GMT",
    b"Sun, 32 Dec 1994 08:49:37 GMT", b"Sun, 06 Nov 1994 24:00:00 GMT", b"Sun, 06 Nov 1994 08:60:37 GMT",
    b"Sun, 06 Nov 1994 08:49:61 GMT", b"Sat, 01 Jan 0000 00:00:00 GMT", b"Sun, 06 Nov 1994 08-49-37 GMT",
    b"Sun, 06 Nov 19x4 08:49:37 GMT", b"Sun, 06 Nov x994 08:49:37 GMT", b"Sun, +6 Nov 1994 08:49:37 GMT",
    b"Sunday, 06-Nov-1994 08:49:37 GMT", b"Sunday, 06 Nov 94 08:49:37 GMT", b"Su, 06-Nov-94 08:49:37 GMT",
    b"Sun Nov 006 08:49:37 1994", b"Sun Nov  x 08:49:37 1994", b"Sun Nov  0 08:49:37 1994",
], ids=repr)
def test_what_is_no_date(text):
    assert _probe_http.parse_date(text) == -1 == oracle.date(text)


@pytest.mark.parametrize("text", [
    b"Mon, 01 Jan 0001 00:00:00 GMT", b"Mon, 29 Feb 1904 00:00:00 GMT", b"Fri Dec 31 00:00:00 1920",
    b"Wed, 31 Dec 1969 23:59:60 GMT", b"Thu, 01 Jan 1970 00:00:00 GMT", b"Thursday, 01-Jan-70 00:00:00 GMT",
], ids=repr)
def test_what_lies_before_1970_is_a_date(text):
    assert _probe_http.parse_date(text) == 0 == oracle.date(text)


@pytest.mark.parametrize("year", [1, 4, 1900, 1999, 2000, 2004, 2100])
def test_every_day_that_is_none(year):
    for month, day in itertools.product(oracle.MONTHS, range(40)):
        text = b"Sun, %02d %s %04d 00:00:00 GMT" % (day, month, year)
        assert _probe_http.parse_date(text) == oracle.date(text), text


def test_a_time_that_no_date_can_say_becomes_the_nearest():
    """As a file's may be: it is 64 bits, and signed."""
    for seconds in (-1, -(1 << 63)):
        assert _probe_http.format_date(seconds) == _probe_http.format_date(0)
    for seconds in (LAST + 1, (1 << 63) - 1):
        assert _probe_http.format_date(seconds) == _probe_http.format_date(LAST) == b"Fri, 31 Dec 9999 23:59:59 GMT"


def test_a_leap_second_is_read():
    assert _probe_http.parse_date(b"Sat, 31 Dec 2016 23:59:60 GMT") == calendar.timegm((2017, 1, 1, 0, 0, 0))


shapes = st.sampled_from([THEN, b"Sunday, 06-Nov-94 08:49:37 GMT", b"Sun Nov  6 08:49:37 1994"])
typos = st.binary(max_size=1) | st.sampled_from([b"3", b"9", b" ", b",", b"Feb"])


@thorough
@given(shapes, st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3), typos), max_size=3))
def test_dates_are_judged_as_the_model_judges_them(text, changes):
    text = edited(text, changes)
    assert _probe_http.parse_date(text) == oracle.date(text)
