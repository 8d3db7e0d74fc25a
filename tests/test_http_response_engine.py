"""The parser of responses without sockets: its strictness table line by line, and properties against two models."""

from __future__ import annotations

import re

import h11
import pytest
import vectors
from hypothesis import given
from hypothesis import strategies as st
from oracle import ResponseReader, pieces, read, read_every_way, response_events
from test_http_engine import LINE, bodies, cuts, edited, edits, field_lists, letters, thorough
from wire import chunked

from c1m import _probe_http, http

TABLE = http.__doc__.partition("Strictness of responses:\n")[2]
ROWS = {row: (clause, outcome) for row, clause, outcome in LINE.findall(TABLE)}


def reader_of(case):
    return lambda: ResponseReader(case.methods)


def test_every_row_of_the_strictness_table_has_its_vectors():
    assert set(ROWS) == set(vectors.RESPONSES)
    for row, (_, outcome) in ROWS.items():
        ends = {
            response_events(case.data, case.methods)[-1]
            for case in vectors.RESPONSES[row].values()
        }
        for why in ("malformed", "too long", "unsupported"):
            if re.search(rf"\b{why}\b", outcome):
                assert ("fail", why) in ends, row
        if outcome in ("malformed", "too long", "unsupported"):
            assert {end for end in ends if end[0] == "fail"} == {("fail", outcome)}


@pytest.mark.parametrize("case", [
    *(
        pytest.param(case, id=f"RFC {ROWS[row][0] if row in ROWS else ''} {row}: {name}")
        for row, cases in vectors.RESPONSES.items() for name, case in cases.items()
    ),
    *(pytest.param(case, id=name) for name, case in vectors.RESPONSES_NORMAL.items()),
])
def test_vector(case):
    events = read_every_way(reader_of(case), case.data)
    expected = [("fail", case.expected)] if isinstance(case.expected, str) else case.expected
    seen = [
        {key: event[1][key] for key in wanted} if event[0] == "response" and type(wanted) is dict else event
        for event, wanted in zip(events, expected, strict=False)
    ]
    assert seen + events[len(seen):] == expected
    assert events == response_events(case.data, case.methods)


def test_a_body_is_counted_in_64_bits():
    """To the byte: what lies beyond 4 GiB is not sent here, but counted down from."""
    for length in ((1 << 32) + 5, 10 ** 18 - 1):
        parser = _probe_http.ResponseParser()
        parser.feed(vectors.reply(b"Content-Length: %d" % length, body=b"Hello"))
        assert parser.to_come() == length - 5
        parser = _probe_http.ResponseParser()
        parser.feed(vectors.reply(vectors.CHUNKS, body=b"%x\r\nHello" % (length >> 2)))
        assert parser.to_come() == (length >> 2) - 5


# ---- responses at random ----

RESERVED = {b"connection", b"upgrade", b"content-length", b"transfer-encoding"}
statuses = st.sampled_from([200, 204, 206, 301, 304, 404, 500]) | st.integers(200, 599)
reasons = letters([*range(0x20, 0x7F), 9, *range(0x80, 0x100)], max_size=12).map(lambda reason: reason.strip(b" \t"))
interims = st.lists(st.sampled_from([100, 102, 103, 199]), max_size=2)
framings = st.sampled_from(["length", "chunked"])
extensions = st.sampled_from([b"", b";a=b", b';a="b;c"'])     # h11 takes no blanks before the semicolon


@st.composite
def responses(draw, last=False):
    """(method, bytes, (status, reason, fields, body))."""
    method = draw(st.sampled_from(["GET", "HEAD"]))
    status, reason, body = draw(statuses), draw(reasons), draw(bodies)
    fields = [field for field in draw(field_lists) if field[0].lower() not in RESERVED]
    none = method == "HEAD" or status in (204, 304)
    framing = draw(framings)
    if framing == "chunked" and not none:
        fields.append((b"Transfer-Encoding", b"chunked"))
        sent = chunked(body, draw(extensions), draw(field_lists))
    elif last and not none and draw(st.booleans()):
        sent = b"".join(body)
    else:
        sent = b"".join(body)
        fields.append((b"Content-Length", b"%d" % len(sent)))
    head = b"".join(b"HTTP/1.1 %d \r\nA: b\r\n\r\n" % code for code in draw(interims))
    head += b"HTTP/1.1 %d %s\r\n" % (status, reason)
    head += b"".join(b"%s: %s\r\n" % field for field in fields) + b"\r\n"
    return method, head if none else head + sent, (status, reason, fields, b"" if none else b"".join(body))


conversations = st.tuples(st.lists(responses(), max_size=3), responses(last=True)).map(lambda both: [*both[0], both[1]])


def told_by_h11(conversation):
    """(status, reason, fields, body) of each response, as h11's client reads them."""
    connection, told = h11.Connection(h11.CLIENT), []
    connection.receive_data(b"".join(sent for _, sent, _ in conversation))
    for method, _, _ in conversation:
        connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        connection.send(h11.EndOfMessage())
        body, ended = b"", False
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA and not ended:
                ended = True
                connection.receive_data(b"")
            elif isinstance(event, h11.Response):
                told.append([event.status_code, bytes(event.reason), event.headers.raw_items()])
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                assert isinstance(event, h11.InformationalResponse), event
        told[-1] = (*told[-1][:2], [(bytes(name), bytes(value)) for name, value in told[-1][2]], body)
        if ended:
            break
        connection.start_next_cycle()
    return told


@thorough
@given(conversations, cuts)
def test_valid_responses_are_read_as_h11_reads_them(conversation, cuts):
    data = b"".join(sent for _, sent, _ in conversation)
    methods = [method for method, _, _ in conversation]
    events = read(ResponseReader(methods), pieces(data, cuts))
    assert events == response_events(data, methods)
    assert events[-1] in (("close", "between"), ("close", "body"))
    told = []
    for kind, *rest in events:
        if kind == "response":
            told.append((rest[0]["status"], rest[0]["reason"], rest[0]["fields"], b""))
        elif kind == "body":
            told[-1] = (*told[-1][:3], rest[0])
    assert told == [expected for _, _, expected in conversation] == told_by_h11(conversation)


corpus = [
    (case.data, case.methods)
    for cases in [*vectors.RESPONSES.values(), vectors.RESPONSES_NORMAL] for case in cases.values()
]


@thorough
@given(st.sampled_from(corpus), st.lists(edits, min_size=1, max_size=4), cuts)
def test_damaged_responses_are_judged_alike_however_cut(case, changes, cuts):
    data, methods = edited(case[0], changes), case[1]
    assert read(ResponseReader(methods), [data]) == response_events(data, methods)
    assert read(ResponseReader(methods), pieces(data, cuts)) == response_events(data, methods)


@thorough
@given(st.binary() | letters(b"HTTP/1. 20\r\n:0", max_size=60), cuts)
def test_any_bytes_are_judged_alike_however_cut(data, cuts):
    assert read(ResponseReader(), [data]) == read(ResponseReader(), pieces(data, cuts)) == response_events(data)


