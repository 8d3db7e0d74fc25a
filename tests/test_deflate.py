"""The permessage-deflate engine: its Strictness table line by line, and messages against Python's zlib."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import zlib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import c1m.deflate
from c1m import _probe_deflate as deflate

TABLE = c1m.deflate.__doc__.partition("Strictness:\n")[2]
ROWS = set(re.findall(r"^  (\S.*?)  +\d{4} [\d.]+  +\S", TABLE, re.MULTILINE))
SANITIZED = "asan" in os.environ.get("LD_PRELOAD", "")       # ASan keeps what is freed, for a while
TAIL = b"\x00\x00\xff\xff"
P = b"permessage-deflate"
S, C = b"; server_no_context_takeover", b"; client_no_context_takeover"
SB, CB = b"; server_max_window_bits=", b"; client_max_window_bits="

thorough = settings(max_examples=100)


# ---- negotiation ----

MALFORMED = ValueError
SHARED, SMALL = {"shared": True}, {"window_bits": 12}

# offers and settings, and the answer: an element, None where all is declined, or MALFORMED
OFFERS = {
    "not a list of extensions": [
        (case, {}, MALFORMED)
        for case in (
            b";", b"=", b"(", b"a/b", b"\x00", b"\xff", b'"a"', b'"' + P + b'"', P + b" x", P + b", (",
            P + b"\r\n", P + b";", P + b"; ", P + b";, " + P, P + b"; ;" + S, P + b"; =1", P + b"=1",
            P + S + b"=", P + SB, P + SB + b", " + P, b"x; y=, " + P, P + b"; a=b=c", P + b"; a=b c",
            P + b"; a=\xe9", P + b"; a=\\b", P + SB + b"10\\", P + b'; "a"', P + b'; a="', P + b'; a="b',
            P + b'; a=b"', P + b'; a="b"c', P + b'; a="b\\',
        )
    ],
    "quoted value that is no token once unescaped": [
        (P + b"; a=" + value, {}, MALFORMED)
        for value in (
            b'""', b'" "', b'"\t"', b'"a b"', b'"a,b"', b'"a;b"', b'"\\""', b'"\\\\"', b'"a\\ b"',
            b'"\xc3\xa9"',
        )
    ],
    "empty list elements, spaces around separators": [
        (b"", {}, None), (b" ", {}, None), (b",", {}, None), (b" ,\t, ", {}, None),
        (b"," + P, {}, P), (P + b",", {}, P), (b" \t" + P + b"\t ", {}, P), (b"a ,, , " + P, {}, P),
        (P + b" ;server_no_context_takeover\t;\tclient_max_window_bits = 10 ", {}, P + S + CB + b"10"),
        (P + b';client_max_window_bits="10"', {}, P + CB + b"10"),
        (P + b';client_max_window_bits="1\\0"', {}, P + CB + b"10"),
        (P + b';client_max_window_bits="\\1\\0" , x', {}, P + CB + b"10"),
    ],
    "other extensions": [
        (b"x-webkit-deflate-frame", {}, None), (P + b"2", {}, None), (P[:-1], {}, None),
        (b"permessage-bzip2; client_max_window_bits", {}, None), (b"server_no_context_takeover", {}, None),
        (b'a; b="c"; d, ' + P + b", e", {}, P), (b'a; b="x"; ' + P + b'=y', {}, None),
    ],
    "several offers": [
        (P + b"; x, " + P + S + b", " + P, {}, P + S),
        (P + SB + b"8, " + P, {}, P),
        (P + SB + b"8, foo, " + P + SB + b"7, " + P + SB + b"9," + P, {}, P + SB + b"9"),
        (P + SB + b"10; client_max_window_bits, " + P + b"; client_max_window_bits", {}, P + SB + b"10"),
    ],
    "name in other letter case": [
        (P.title(), {}, None), (P.upper() + b"," + P + S, {}, P + S),
        (P + S.upper(), {}, None), (P + SB.title() + b"9", {}, None),
    ],
    "unknown parameter": [
        (P + b"; x", {}, None), (P + b"; x=1", {}, None), (P + S + b"; x" + C, {}, None),
        (P + b"; server_max_window_bit=10", {}, None), (P + b"; permessage-deflate", {}, None),
        (P + b"; max_window_bits=10", {}, None),
    ],
    "parameter given twice": [
        (P + S + S, {}, None), (P + C + S + C, {}, None), (P + SB + b"10" + SB + b"10", {}, None),
        (P + CB + b"10; client_max_window_bits", {}, None), (P + CB + b"10" + CB + b"11", {}, None),
        (P + b"; client_max_window_bits; client_max_window_bits", {}, None),
    ],
    "value where none belongs, none where one does": [
        (P + S + b"=1", {}, None), (P + C + b"=true", {}, None),
        (P + S + b'="10"', {}, None), (P + C + b"=8", {}, None),
        (P + b"; server_max_window_bits", {}, None), (P + b"; server_max_window_bits" + C, {}, None),
    ],
    "bits not 8 to 15, or with leading zeros": [
        (P + name + value, {}, None)
        for name in (SB, CB)
        for value in (
            b"0", b"00", b"1", b"7", b"16", b"99", b"100", b"1000", b"271", b"08", b"010", b"015", b'"16"',
            b'"0\\9"', b"x", b"1x", b"+9", b"-9", b"9.0", b"0x9", b"1e1", b"4294967305",
            b"18446744073709551625", b"1" * 100,
        )
    ],
    "server_no_context_takeover": [
        (P, {}, P), (P + S, {}, P + S), (P + S + C, {}, P + S + C),
        (P, SHARED, P + S + C), (P + S, SHARED, P + S + C),
    ],
    "client_no_context_takeover": [
        (P + C, {}, P + C), (P + C, SHARED, P + S + C), (P + C + S, {}, P + S + C),
    ],
    "server_max_window_bits of 9 to 15": [
        *((P + SB + b"%d" % bits, {}, P + SB + b"%d" % bits) for bits in range(9, 16)),
        (P + SB + b"15; client_max_window_bits", SMALL, P + SB + b"12" + CB + b"12"),
        (P + SB + b"10; client_max_window_bits", SMALL, P + SB + b"10" + CB + b"12"),
        (P + b"; client_max_window_bits", SMALL, P + SB + b"12" + CB + b"12"),
        (P + SB + b"10", SHARED, P + S + C + SB + b"10"),
    ],
    "server_max_window_bits of 8": [
        (P + SB + b"8", {}, None), (P + SB + b"8", {"window_bits": 9}, None), (P + SB + b"8", SHARED, None),
    ],
    "client_max_window_bits, with or without a value": [
        (P + b"; client_max_window_bits", {}, P), (P + CB + b"15", {}, P),
        *((P + CB + b"%d" % bits, {}, P + CB + b"%d" % bits) for bits in range(8, 15)),
        (P + CB + b"15", SMALL, P + SB + b"12" + CB + b"12"),
        (P + CB + b"9", SMALL, P + SB + b"12" + CB + b"9"),
        (P + CB + b"9", {"shared": True, "window_bits": 10}, P + S + C + SB + b"10" + CB + b"9"),
    ],
    "client_max_window_bits not offered": [
        (P, {}, P), (P, SMALL, P + C + SB + b"12"), (P + SB + b"9", SMALL, P + C + SB + b"9"),
    ],
}


@pytest.mark.parametrize(
    ("offers", "settings", "answer"),
    [
        pytest.param(*case, id=f"{row}: {case[0].decode('latin-1')!r}")
        for row, cases in OFFERS.items() for case in cases
    ],
)
def test_offer(offers, settings, answer):
    if answer is MALFORMED:
        with pytest.raises(ValueError, match="not a list of extensions"):
            deflate.agree(offers, **settings)
        return
    agreed = deflate.agree(offers, **settings)
    assert (agreed and agreed[1]) == answer
    if agreed:
        terms, _ = agreed
        parameters = (p.strip().partition(b"=") for p in answer.split(b";")[1:])
        named = {name: int(value or 1) for name, _, value in parameters}
        assert terms == {
            "server_bits": named.get(b"server_max_window_bits", 15),
            "client_bits": named.get(b"client_max_window_bits", 15),
            "server_no_takeover": b"server_no_context_takeover" in named,
            "client_no_takeover": b"client_no_context_takeover" in named,
        }


def test_the_examples_of_rfc_7692_section_7_1_3():
    answers = {
        b"permessage-deflate": b"permessage-deflate",
        b"permessage-deflate; client_max_window_bits; server_max_window_bits=10":
            b"permessage-deflate; server_max_window_bits=10",
        b"permessage-deflate; client_max_window_bits; server_max_window_bits=10, "
        b"permessage-deflate; client_max_window_bits": b"permessage-deflate; server_max_window_bits=10",
    }
    for offers, answer in answers.items():
        assert deflate.agree(offers)[1] == answer


def test_the_longest_answer():
    offers = P + S + C + SB + b"10" + CB + b"10"
    assert deflate.agree(offers)[1] == offers and len(offers) == 128


@thorough
@given(st.lists(st.sampled_from([
    P, b"foo", b",", b", ", b";", b"=", b" ", b"\t", b'"', b"\\", b"0", b"8", b"9", b"10", b"15", b"16", b"a",
    b"\x00", b"\xff", S, S[2:], C, C[2:], SB + b"11", SB[2:-1], CB + b"11", CB[2:-1],
    b"; client_max_window_bits",
]), max_size=14))
def test_any_value_gets_the_answer_of_a_slow_model(parts):
    offers = b"".join(parts)
    for settings_ in ({}, SHARED, SMALL):
        try:
            said = deflate.agree(offers, **settings_)
        except ValueError:
            said = MALFORMED
        assert said == model_of_agree(offers, **settings_)


TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
VALUE = rb'(?:%b+|"(?:\\?%b)+")' % (TOKEN, TOKEN)
PARAMETER = rb"%b+[ \t]*(?:=[ \t]*%b[ \t]*)?" % (TOKEN, VALUE)
EXTENSION = rb"%b+[ \t]*(?:;[ \t]*%b)*" % (TOKEN, PARAMETER)
LIST = re.compile(rb"[ \t]*(?:%b)?(?:,[ \t]*(?:%b)?)*" % (EXTENSION, EXTENSION))


def model_of_agree(offers, shared=False, window_bits=15):
    if not LIST.fullmatch(offers):
        return MALFORMED
    for element in offers.split(b","):
        name, *parameters = (part.strip(b" \t") for part in element.split(b";"))
        pairs = [[side.strip(b" \t") for side in p.split(b"=")] for p in parameters]
        pairs = [(p[0], re.sub(rb'["\\]', b"", p[1]) if len(p) == 2 else None) for p in pairs]
        given = dict(pairs)
        bits = {b"%d" % n: n for n in range(8, 16)}
        allowed = {
            b"server_no_context_takeover": [None], b"client_no_context_takeover": [None],
            b"server_max_window_bits": list(bits)[1:], b"client_max_window_bits": [None, *bits],
        }
        if name != P or len(given) < len(pairs) or any(v not in allowed.get(k, []) for k, v in pairs):
            continue
        server_bits = min(bits.get(given.get(b"server_max_window_bits"), 15), window_bits)
        client_bits = 15
        if b"client_max_window_bits" in given:
            client_bits = min(bits.get(given[b"client_max_window_bits"], 15), window_bits)
        no = [shared or b"server_no_context_takeover" in given,
              shared or b"client_no_context_takeover" in given or client_bits > window_bits]
        answer = P + S * no[0] + C * no[1]
        if b"server_max_window_bits" in given or server_bits < 15:
            answer += SB + b"%d" % server_bits
        if client_bits < 15:
            answer += CB + b"%d" % client_bits
        return {"server_bits": server_bits, "client_bits": client_bits,
                "server_no_takeover": no[0], "client_no_takeover": no[1]}, answer
    return None


# ---- messages ----

class Peer:
    """The other side, by Python's zlib."""

    def __init__(self, bits=15, level=6):
        self.bits, self.level = bits, level
        self.reset()

    def reset(self):
        self.deflater = zlib.compressobj(self.level, zlib.DEFLATED, -self.bits)
        self.inflater = zlib.decompressobj(-self.bits)

    def compress(self, message, keep_context=True):
        payload = self.deflater.compress(message) + self.deflater.flush(zlib.Z_SYNC_FLUSH)
        if not keep_context:
            self.reset()
        return payload.removesuffix(TAIL) or b"\0"

    def decompress(self, payload, keep_context=True):
        message = self.inflater.decompress(payload + TAIL)
        assert not self.inflater.unused_data
        if not keep_context:
            self.reset()
        return message


def cut(payload, places):
    places = sorted({min(place, len(payload)) for place in places} | {0, len(payload)})
    return [payload[a:b] for a, b in pairwise(places)] or [payload]


def every_cut(payload):
    yield [payload]
    yield [payload[i:i + 1] for i in range(len(payload))] + [b""]
    yield from ([payload[:i], payload[i:]] for i in range(len(payload) + 1))


pieces = st.sampled_from([b"", b"Hello", b'{"a": 1}', b"\0" * 300, bytes(range(256)), b"ab" * 40])
noise = st.integers(1000, 70_000).map(lambda n: random.Random(n).randbytes(n))
messages = st.one_of(st.lists(pieces, max_size=6).map(b"".join), st.binary(max_size=600), noise)
conversation = st.lists(messages, min_size=1, max_size=6)
cuts = st.lists(st.integers(0, 700), max_size=6)
window, levels = st.integers(9, 15), st.integers(1, 9)

HELLO = {                        # RFC 7692 section 7.2.3
    "7.2.3.1 a message in one block": "f2 48 cd c9 c9 07 00",
    "7.2.3.3 a block without compression": "00 05 00 fa ff 48 65 6c 6c 6f 00",
    "7.2.3.4 BFINAL": "f3 48 cd c9 c9 07 00 00",
    "7.2.3.5 two blocks in a message": "f2 48 05 00 00 00 ff ff ca c9 c9 07 00",
}
FINAL = bytes.fromhex("f3 48 cd c9 c9 07 00")


@pytest.mark.parametrize("payload", [*map(bytes.fromhex, HELLO.values())], ids=HELLO)
@pytest.mark.parametrize("keep_context", [True, False])
def test_the_examples_of_rfc_7692_section_7_2_3(payload, keep_context):
    codec = deflate.Codec()
    for runs in every_cut(payload):
        assert codec.decompress(runs, keep_context=keep_context) == b"Hello"


def test_the_second_example_of_7_2_3_2_builds_on_the_first():
    first, again = bytes.fromhex("f2 48 cd c9 c9 07 00"), bytes.fromhex("f2 00 11 00 00")
    codec = deflate.Codec()
    assert [codec.compress(b"Hello") for _ in range(2)] == [first, again]
    assert [codec.compress(b"Hello", keep_context=False) for _ in range(3)][1:] == [first, first]
    assert codec.decompress([first]) == b"Hello"
    for runs in every_cut(again):
        assert codec.decompress(runs) == b"Hello"
    assert codec.decompress([first], keep_context=False) == b"Hello"
    with pytest.raises(ValueError, match="not deflate data"):
        codec.decompress([again])


def test_empty_messages_of_7_2_3_6():
    codec, peer = deflate.Codec(), Peer()
    for message in (b"", b"", b"Hello", b"", b"", b"Hello", b""):
        payload = codec.compress(message)
        assert message or payload == b"\0"
        assert peer.decompress(payload) == message
        for keep_context in (True, False):
            assert deflate.Codec().decompress([peer.compress(b"")], keep_context=keep_context) == b""
    for runs in ([b""], [b"", b""], [b"\0"], [b"", b"\0", b""], [b"\3\0\0"], [b"\3\0"]):
        assert codec.decompress(runs) == b""
        assert codec.decompress([b"\xf2\x48\xcd\xc9\xc9\x07\0"]) == b"Hello"


def test_a_message_may_end_with_a_final_block_and_nothing_behind_it():
    codec = deflate.Codec()
    for runs in every_cut(FINAL):
        assert codec.decompress(runs) == b"Hello"
        assert codec.decompress([bytes.fromhex("f2 48 cd c9 c9 07 00")]) == b"Hello"


def test_after_a_final_block_the_context_begins_anew():
    again = bytes.fromhex("f2 00 11 00 00")
    for payload in (FINAL, FINAL + b"\0"):
        codec = deflate.Codec()
        assert codec.decompress([payload]) == b"Hello"
        with pytest.raises(ValueError, match="not deflate data"):
            codec.decompress([again])
    for runs in every_cut(FINAL * 3 + bytes.fromhex("f2 48 cd c9 c9 07 00")):
        assert codec.decompress(runs) == b"Hello" * 4
        assert codec.decompress([again]) == b"Hello"


def test_many_final_blocks():
    assert deflate.Codec().decompress([b"\3\0" * 100_000 + b"\0"], limit=0) == b""
    assert deflate.Codec().decompress([FINAL * 1000], limit=5000) == b"Hello" * 1000


@thorough
@given(conversation, window, levels, levels, st.booleans(), st.integers(0, 20))
def test_what_we_send_zlib_reads(conversation, bits, memory_level, level, keep_context, headroom):
    codec, peer = deflate.Codec(bits, memory_level, level), Peer(bits)
    for message in conversation:
        payload = codec.compress(message, headroom, keep_context)
        assert not payload.endswith(TAIL)
        assert peer.decompress(payload, keep_context) == message


@thorough
@given(conversation, window, levels, st.booleans(), st.integers(0, 20), cuts)
def test_what_zlib_sends_we_read(conversation, bits, level, keep_context, headroom, places):
    codec, peer = deflate.Codec(bits), Peer(bits, level)
    for message in conversation:
        runs = cut(peer.compress(message, keep_context), places)
        assert codec.decompress(runs, len(message), headroom, keep_context) == message


def test_a_conversation_cut_at_every_place():
    message = b"".join(b"%d, " % n for n in range(60)) + os.urandom(30)
    peer = Peer()
    first, second = peer.compress(message), peer.compress(message[::-1] + message)
    for one, two in zip(every_cut(first), every_cut(second), strict=False):
        codec = deflate.Codec()
        assert codec.decompress(one) == message
        assert codec.decompress(two) == message[::-1] + message
    for runs in every_cut(second):
        codec = deflate.Codec()
        assert codec.decompress([first]) == message
        assert codec.decompress(runs) == message[::-1] + message


@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 4095, 4096, 16_384, 16_385, 65_536, 1 << 20, 5_000_000])
@pytest.mark.parametrize("make", [os.urandom, bytes, lambda n: (b"spam and eggs, " * (n // 15 + 1))[:n]])
def test_sizes(n, make):
    message = make(n)
    codec, peer = deflate.Codec(15, 9, 1), Peer(level=1)
    for _ in range(2):
        payload = codec.compress(message, headroom=10)
        assert len(payload) <= n + n // 1000 + 16
        assert peer.decompress(payload) == message
        assert codec.decompress([peer.compress(message)], limit=n, headroom=10) == message


def test_a_window_reads_what_is_made_for_it_or_a_smaller_one():
    message = os.urandom(5000) * 3
    for bits in range(9, 16):
        payload = deflate.Codec(bits).compress(message)
        for wider in range(bits, 16):
            assert deflate.Codec(wider).decompress([payload]) == message
    payload = deflate.Codec(15).compress(message)
    assert fault(deflate.Codec(9), cut(payload, range(len(payload)))) is ValueError


@pytest.mark.parametrize("arguments", [(8,), (16,), (0,), (15, 0), (15, 10), (15, 8, 10)])
def test_streams_out_of_range_are_not_made(arguments):
    with pytest.raises(MemoryError):
        deflate.Codec(*arguments)


# ---- faults ----

def fault(codec, runs, **how):
    try:
        codec.decompress(runs, **how)
    except (ValueError, OverflowError) as e:
        return type(e)
    return None


BAD = {
    "a block of the reserved type": "07",
    "a block of the reserved type, in the tail's reach": "f2 48 cd c9 c9 07 06",
    "lengths that do not agree": "00 05 00 fb ff 48 65 6c 6c 6f 00",
    "a distance to before the stream": "f2 00 11 00 00",
    "too many codes": "fc ff ff ff ff",
    "a message cut off inside a block": "f2 48 cd c9",
    "a message cut off inside a stored block": "00 05 00 fa ff 48",
    "a message cut off farther inside a stored block": "00 09 00 f6 ff 48 65 6c 6c 6f",
    "a header cut off": "00 05",
    "the tail sent after all": "f2 48 cd c9 c9 07 00 00 00 ff ff 02",
}


@pytest.mark.parametrize("payload", [*map(bytes.fromhex, BAD.values())], ids=BAD)
def test_bad(payload):
    codec = deflate.Codec()
    for runs in every_cut(payload):
        for keep_context in (True, False):
            assert fault(codec, runs, keep_context=keep_context) is ValueError
            assert codec.decompress([bytes.fromhex("f2 48 cd c9 c9 07 00")], keep_context=False) == b"Hello"


def test_after_a_fault_nothing_of_what_came_before_can_be_reached():
    again = bytes.fromhex("f2 00 11 00 00")
    codec = deflate.Codec()
    for runs, how in (([b"\7"], {}), ([FINAL[:3], b""], {}), ([Peer().compress(b"x" * 999)], {"limit": 10})):
        assert codec.decompress([bytes.fromhex("f2 48 cd c9 c9 07 00")]) == b"Hello"
        assert codec.decompress([again]) == b"Hello"
        assert fault(codec, runs, **how)
        assert fault(codec, [again]) is ValueError


def model_of_decompress(payload):
    """The message in a payload, or None, by Python's zlib: each stream and the tail for itself."""
    stream, message = zlib.decompressobj(-15), b""
    try:
        while payload:
            message += stream.decompress(payload)
            payload = stream.unused_data
            if not stream.eof:
                if stream.decompress(TAIL):
                    return None
                # Is it between blocks? Then it takes another one, of no bytes.
                if not stream.eof and (stream.decompress(b"\1\0\0\xff\xff") or not stream.eof):
                    return None
                return None if stream.unused_data else message
            stream = zlib.decompressobj(-15)
    except zlib.error:
        return None
    return message


payloads = messages.map(lambda message: Peer().compress(message))
garbage = st.one_of(
    st.binary(max_size=80),
    payloads.map(lambda payload: payload[:-2]),
    st.builds(lambda payload, more: payload + more, payloads, st.binary(max_size=9)),
    st.lists(st.sampled_from([FINAL, b"\0", TAIL, b"\0" + TAIL, b"\3\0", b"\7"]), max_size=7).map(b"".join),
)


@thorough
@given(st.lists(garbage, max_size=4), cuts, st.integers(0, 2000))
def test_garbage(payloads, places, limit):
    codec = deflate.Codec()
    for payload in payloads:
        whole = fault(codec, [payload], limit=limit, keep_context=False)
        assert fault(codec, cut(payload, places), limit=limit, keep_context=False) is whole
        assert_as_the_model(codec, cut(payload, places))
        assert codec.decompress([Peer().compress(b"Hello")], keep_context=False) == b"Hello"


@thorough
@given(messages, st.integers(0, 1 << 24))
def test_a_flipped_bit(message, bit):
    payload = bytearray(Peer().compress(message))
    payload[(bit >> 3) % len(payload)] ^= 1 << (bit & 7)
    assert_as_the_model(deflate.Codec(), [bytes(payload)])


def assert_as_the_model(codec, runs):
    try:
        message = codec.decompress(runs, limit=1 << 28, keep_context=False)
    except ValueError:
        message = None
    assert message == model_of_decompress(b"".join(runs))


# ---- the limit ----

@pytest.mark.parametrize("headroom", [0, 1, 14, 5000])
@pytest.mark.parametrize("n", [0, 1, 2, 5, 257, 258, 259, 4096, 4097, 32_768, 100_000])
def test_at_the_limit_and_one_past(n, headroom):
    for message in (bytes(n), os.urandom(n), b"ab" * (n // 2) + b"c" * (n % 2)):
        for payload in (Peer().compress(message), Peer(level=0).compress(message)):
            fifty = range(0, len(payload), 1 + len(payload) // 50)
            for runs in ([payload], [payload[:-1], payload[-1:]], cut(payload, fifty)):
                codec = deflate.Codec()
                assert codec.decompress(runs, n, headroom) == message
                if n:
                    assert fault(codec, runs, limit=n - 1, headroom=headroom) is OverflowError
                    assert codec.decompress(runs, n, headroom) == message


def test_what_follows_a_full_message_and_adds_nothing_is_read_over():
    payload = Peer().compress(b"Hello") + b"\0\0\xff\xff" + b"\0\0\0\xff\xff" * 5 + b"\3\0" * 5 + b"\0"
    for runs in every_cut(payload):
        assert deflate.Codec().decompress(runs, limit=5) == b"Hello"
    payload = Peer().compress(b"Hello") + b"\0\0\xff\xff" + b"\0\0\0\xff\xff" * 5 + FINAL
    for runs in every_cut(payload):
        assert fault(deflate.Codec(), runs, limit=9) is OverflowError
        assert deflate.Codec().decompress(runs, limit=10) == b"Hello" * 2


def resident():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def bomb(megabytes):
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    once = deflater.compress(bytes(1 << 20)) + deflater.flush(zlib.Z_FULL_FLUSH)
    return once * megabytes


def test_a_bomb():
    payload = bomb(1024)
    assert len(payload) < 2 << 20
    codec = deflate.Codec()
    before = resident()
    for runs in ([payload], [payload[:1000], payload[1000:]], cut(payload, range(0, len(payload), 1000))):
        assert fault(codec, runs, limit=1 << 20) is OverflowError
    assert resident() - before < (64 if SANITIZED else 8) << 20
    assert codec.decompress([bomb(1).removesuffix(TAIL)], limit=1 << 20) == bytes(1 << 20)


NO_MEMORY = """
import random, resource, zlib
from c1m import _probe_deflate as deflate
codec = deflate.Codec(15, 8, 1)
hello = codec.compress(b"Hello", keep_context=False)
noise = random.Random(1).randbytes(20 << 20)
payload = codec.compress(bytes(64 << 20), keep_context=False)
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (8 << 20), -1))
for _ in range(3):
    for act in (lambda: codec.compress(noise), lambda: codec.decompress([payload], limit=1 << 30)):
        try:
            act()
        except MemoryError:
            pass
        else:
            raise SystemExit("memory did not run out")
    assert zlib.decompressobj(-15).decompress(codec.compress(b"Hello") + bytes([0, 0, 255, 255])) == b"Hello"
    assert codec.decompress([hello]) == b"Hello"
"""


@pytest.mark.skipif(SANITIZED, reason="ASan's shadow is address space too")
def test_after_memory_ran_out_both_directions_go_on():
    subprocess.run([sys.executable, "-c", NO_MEMORY], check=True, timeout=60)


# ---- one pair for many ----

@thorough
@given(st.lists(st.tuples(messages, st.sampled_from(["ours", "theirs", "bad", "big"])), max_size=6))
def test_a_shared_pair_leaves_nothing_behind(turns):
    shared = deflate.Codec()
    for message, kind in turns:
        if kind == "ours":
            payload = shared.compress(message, keep_context=False)
            assert payload == deflate.Codec().compress(message)
            assert Peer().decompress(payload) == message
        elif kind == "theirs":
            assert shared.decompress([Peer().compress(message)], keep_context=False) == message
        elif kind == "bad":
            runs = [Peer().compress(b"x" * 99 + message)[:-4] + b"\x07\x07"]
            assert fault(shared, runs, keep_context=False) == fault(deflate.Codec(), runs)
        elif message:
            runs = [Peer().compress(message)]
            assert fault(shared, runs, limit=len(message) - 1, keep_context=False) is OverflowError


# ---- the table ----

MESSAGE_ROWS = {
    "not deflate data": test_bad,
    "message that ends inside a block": test_bad,
    "distance to before the context began": test_after_a_fault_nothing_of_what_came_before_can_be_reached,
    "block with BFINAL set": test_after_a_final_block_the_context_begins_anew,
    "distance past the agreed window": test_a_window_reads_what_is_made_for_it_or_a_smaller_one,
    "message that ends with such a block": test_a_message_may_end_with_a_final_block_and_nothing_behind_it,
    "message of no bytes": test_empty_messages_of_7_2_3_6,
    "message over the limit": test_at_the_limit_and_one_past,
}


def test_every_row_of_the_strictness_table_has_its_test():
    assert {*OFFERS, *MESSAGE_ROWS} == ROWS
