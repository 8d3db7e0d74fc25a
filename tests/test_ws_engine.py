"""The WebSocket engine without sockets: its Strictness table line by line, properties against slow models."""

from __future__ import annotations

import base64
import binascii
import hashlib
import itertools
import re
import string
import struct

import oracle
import pytest
import vectors
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import WsReader, pieces, read, read_every_way, utf8_fault, ws_events
from wire import BINARY, CLOSE, KEY, MASK, PING, PONG, TEXT, close, frame, message

import c1m.ws
from c1m import _probe_ws as ws

TABLE = c1m.ws.__doc__.partition("Strictness:\n")[2]
LINE = re.compile(r"^  (\S.*?) +(\d(?:\.\d)+) +(\S.*)$", re.MULTILINE)
ROWS = {row: (clause, answer) for row, clause, answer in LINE.findall(TABLE)}

thorough = settings(max_examples=300)


def vector(row, name, case):
    return pytest.param(case, id=f"RFC 6455 {ROWS[row][0]} {row}: {name}" if row in ROWS else name)


def test_every_row_of_the_strictness_table_has_its_vectors():
    assert set(ROWS) == set(vectors.WS)
    for row, (_, answer) in ROWS.items():
        code = re.search(r"\b1\d{3}\b", answer)
        if code:
            assert int(code[0]) in [case.expected for case in vectors.WS[row].values()], row


@pytest.mark.parametrize("case", [
    *(vector(row, name, case) for row, cases in vectors.WS.items() for name, case in cases.items()),
    *(vector("", name, case) for name, case in vectors.WS_NORMAL.items()),
])
@pytest.mark.parametrize("seen_by", [lambda case: case, vectors.other_role], ids=["", "by the other role"])
def test_vector(case, seen_by):
    data, expected, *role = seen_by(case)
    events = read_every_way(lambda: WsReader(*role), data)
    assert events == ([("fail", expected)] if isinstance(expected, int) else expected)
    assert events == ws_events(data, *role)


# ---- frames at random ----

masks = st.binary(min_size=4, max_size=4)
cuts = st.lists(st.integers(0, 700), max_size=8)
controls = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125))


@st.composite
def conversations(draw, client):
    """(frames, events): messages in parts with control frames between them."""
    frames, events = [], []

    def mask():
        return None if client else draw(masks)

    for _ in range(draw(st.integers(0, 4))):
        opcode = draw(st.sampled_from([TEXT, BINARY]))
        payload = draw(st.text(max_size=150)).encode() if opcode == TEXT else draw(st.binary(max_size=300))
        parts = pieces(payload, draw(st.lists(st.integers(0, 300), max_size=3)))
        for part in message(opcode, parts, mask()):
            for kind, data in draw(st.lists(controls, max_size=1)):
                frames.append(frame(kind, data, mask=mask()))
                events.append(("control", kind, data))
            frames.append(part)
        events.append(("message", opcode, payload))
    if draw(st.booleans()):
        reason = draw(st.text(max_size=30)).encode()
        frames.append(close(1000, reason, mask=mask()))
        events.append(("close", 1000, reason))
    return b"".join(frames), events


@thorough
@given(conversations(client=False), cuts)
def test_valid_frames_round_trip(conversation, cuts):
    data, events = conversation
    assert read(WsReader(), pieces(data, cuts)) == events == ws_events(data)


@thorough
@given(conversations(client=True), cuts)
def test_valid_frames_round_trip_to_a_client(conversation, cuts):
    data, events = conversation
    assert read(WsReader(client=True), pieces(data, cuts)) == events == ws_events(data, client=True)


corpus = [case for cases in [*vectors.WS.values(), vectors.WS_NORMAL] for case in cases.values()]
corpus = [case for case in corpus if len(case.data) < 1000]
edits = st.tuples(st.integers(0, 200), st.integers(0, 4), st.binary(max_size=4))


@thorough
@given(st.sampled_from(corpus), st.lists(edits, min_size=1, max_size=4), cuts)
def test_damaged_frames_are_judged_alike_however_cut(case, changes, cuts):
    data, _, *role = case
    for at, length, new in changes:
        data = data[:at] + new + data[at + length:]
    expected = ws_events(data, *role)
    assert read(WsReader(*role), [data]) == expected
    assert read(WsReader(*role), pieces(data, cuts)) == expected


# Random bytes die in the first header; these have one that may pass.
openings = st.tuples(
    st.sampled_from([0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x41, 0xC1]),
    st.sampled_from([0x80, 0x85, 0xFE, 0xFF, 0x00, 0x05, 0x7E]),
).map(bytes)
junk = st.lists(openings | st.binary(max_size=20), max_size=6).map(b"".join)


@thorough
@given(junk, cuts, st.tuples(st.sampled_from([0, 100, 1 << 20]), st.booleans(), st.booleans()))
def test_any_bytes_are_judged_alike_however_cut(data, cuts, role):
    expected = ws_events(data, *role)
    assert read(WsReader(*role), [data]) == expected
    assert read(WsReader(*role), pieces(data, cuts)) == expected


@thorough
@given(st.binary(max_size=80), masks, st.integers(0, 80))
def test_unmasking_goes_on_where_it_stopped(payload, mask, cut):
    parts = pieces(frame(BINARY, payload, mask=mask), [6 + cut])
    assert read(WsReader(), parts) == [("message", BINARY, payload)]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 70000])
def test_header_out(size):
    """RFC 6455 section 5.2: the fewest bytes that hold the length, no mask."""
    for opcode in (TEXT, BINARY, CLOSE, PING, PONG):
        assert ws.header(opcode, size) == frame(opcode, mask=None, length=size)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 70000])
def test_masked_header_out(size):
    for opcode in (TEXT, BINARY, CLOSE, PING, PONG):
        assert ws.header(opcode, size, MASK) == frame(opcode, mask=MASK, length=size)


sizes = st.integers(0, 300) | st.sampled_from([65534, 65535, 65536, 65537, 70000])
opcodes = st.sampled_from([TEXT, BINARY])


@thorough
@given(opcodes, sizes, masks, st.integers(32, 127), st.booleans(), cuts)
def test_what_our_client_sends_our_server_reads(opcode, size, key, character, in_place, cuts):
    payload = (bytes([character, 48]) * size)[:size]
    data = ws.header(opcode, size, key) + ws.masked(payload, key, in_place)
    assert data == frame(opcode, payload, mask=key)
    assert read(WsReader(), pieces(data, cuts)) == [("message", opcode, payload)]
    assert read(WsReader(client=True), [data]) == [("fail", 1002)]


@thorough
@given(opcodes, sizes, st.integers(32, 127), cuts)
def test_what_our_server_sends_our_client_reads(opcode, size, character, cuts):
    payload = (bytes([character, 48]) * size)[:size]
    data = ws.header(opcode, size) + payload
    assert read(WsReader(client=True), pieces(data, cuts)) == [("message", opcode, payload)]
    assert read(WsReader(), [data]) == [("fail", 1002)]


@pytest.mark.parametrize("client", [False, True])
def test_both_roles_with_compression(client):
    key = None if client else MASK
    data = ws.header(TEXT | 0x40, 3, key) + (b"abc" if client else ws.masked(b"abc", MASK))
    assert read(WsReader(client=client, deflate=True), [data]) == [("message", TEXT, b"abc")]
    assert read(WsReader(client=client), [data]) == [("fail", 1002)]


# ---- UTF-8 (RFC 3629; RFC 6455 section 8.1) ----

def check_text(payload):
    """The engine accepts what Python decodes, and takes fault at the byte where Python does."""
    fault = utf8_fault(payload)
    data = frame(TEXT, payload)
    head = len(data) - len(payload)
    if fault is None:
        assert read(WsReader(), [data]) == [("message", TEXT, payload)]
        return
    assert read(WsReader(), [data]) == [("fail", 1007)]
    if fault < len(payload):
        assert read(WsReader(), [data[:head + fault]]) == [("partial", TEXT, payload[:fault])]
        assert read(WsReader(), [data[:head + fault + 1]]) == [("fail", 1007)]


def test_every_character():
    payload = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)])).encode()
    assert read(WsReader(len(payload)), [frame(TEXT, payload)]) == [("message", TEXT, payload)]


def test_every_pair_of_bytes_after_the_leads():
    """All first and second bytes; thirds and fourths from the edges of the ranges in RFC 3629 section 4."""
    for first in range(256):
        check_text(bytes([first]))
    edges = b"\x00\x7f\x80\x8f\x90\x9f\xa0\xbf\xc0\xff"
    for first, second in itertools.product(range(0xC0, 256), range(256)):
        check_text(bytes([first, second]))
    for rest in itertools.product(b"\xc2\xe0\xe1\xed\xee\xf0\xf1\xf4", edges, edges, edges):
        check_text(bytes(rest))


@pytest.mark.parametrize("around", ["x", "\u00e9", "\u20ac", "\U0001f600"])
def test_every_sequence_wherever_it_lies_among_sixteen_bytes(around):
    """Long text is checked sixteen bytes at a time: all that can go wrong, in each place."""
    edges = b"x\x7f\x80\x8f\x90\x9f\xa0\xbf\xc1\xc2\xdf\xe0\xed\xf0\xf4\xf5"
    before, after = (around * 6).encode(), (around * 120).encode()
    for lead, *rest in itertools.product(b"x\xc2\xe0\xe1\xed\xf0\xf1\xf4", edges, edges, b"x\x80\xbf\xc2"):
        sequence = bytes([lead, *rest])
        fine = utf8_fault(sequence + after) is None
        for shift in range(0, 16, 1 if fine else 5):
            payload = before + b"-" * shift + sequence + after
            head = b"\x81\xfe" + len(payload).to_bytes(2, "big") + bytes(4)
            assert (ws.Parser().feed(head + payload)[0][0] == "data") == fine, payload


bits_of_text = st.text(max_size=12).map(str.encode)
odd_bytes = st.sampled_from([
    b"\x80", b"\xc0\xaf", b"\xc3", b"\xe0\x9f", b"\xe2\x82", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\xf4\x90",
    b"\xff",
])


@thorough
@given(st.lists(bits_of_text | odd_bytes | st.binary(max_size=4), max_size=8).map(b"".join))
def test_text_is_what_python_decodes(payload):
    check_text(payload)


@thorough
@given(st.lists(bits_of_text | odd_bytes, max_size=6).map(b"".join), st.lists(st.integers(0, 60)), cuts)
def test_text_in_parts_is_what_python_decodes(payload, ends, cuts):
    data = b"".join(message(TEXT, pieces(payload, ends)))
    assert read(WsReader(), pieces(data, cuts)) == ws_events(data)


# ---- close codes (RFC 6455 sections 5.5.1 and 7.4) ----

def test_every_close_code():
    for code in range(65536):
        payload = struct.pack("!H", code)
        assert ws.close_code(payload) == oracle.close_code(payload), code


codes = st.integers(990, 1020).map(lambda code: struct.pack("!H", code))


@thorough
@given(st.binary(max_size=125) | st.tuples(codes, bits_of_text | odd_bytes).map(b"".join))
def test_close_payloads_are_judged_as_the_model_judges_them(payload):
    assert ws.close_code(payload) == oracle.close_code(payload)


# ---- the handshake's key (RFC 6455 sections 4.1 and 4.2.2) ----

def accept_of(key):
    return base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())


def test_accept_of_the_example():
    assert ws.accept_key(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@thorough
@given(st.binary(min_size=16, max_size=16).map(base64.b64encode))
def test_accept_is_that_of_hashlib(key):
    assert ws.accept_key(key) == accept_of(key)


alphabet = st.sampled_from((string.ascii_letters + string.digits + "+/=").encode())
keys = st.one_of(
    st.binary(max_size=30),
    st.lists(alphabet, min_size=20, max_size=26).map(bytes),
    st.binary(min_size=14, max_size=18).map(base64.b64encode),
)


@thorough
@given(keys)
def test_a_key_is_base64_of_sixteen_bytes(key):
    try:
        sound = len(key) == 24 and len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        sound = False
    assert ws.accept_key(key) == (accept_of(key) if sound else None)


@thorough
@given(st.binary(min_size=16, max_size=16).map(base64.b64encode))
def test_a_client_takes_the_accept_of_its_own_key_only(key):
    accept = accept_of(key)
    assert ws.accept_ok(key, accept)
    for other in (
        b"", accept[:-1], accept + b"=", accept + b" ", b" " + accept, accept_of(KEY), key, accept.swapcase(),
        accept.replace(b"=", b"A"),
    ):
        assert not ws.accept_ok(key, other)
    for i in range(len(accept)):
        assert not ws.accept_ok(key, accept[:i] + bytes([accept[i] ^ 1]) + accept[i + 1:])
