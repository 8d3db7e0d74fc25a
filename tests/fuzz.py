"""Fuzzes the engines against their models, on nothing but the built package.

    python tests/fuzz.py http --seconds 600 --seed 1
    python tests/fuzz.py http --input "(b'GET / HTTP/1.1', [3])"

Inputs are the test vectors, and what turned out to be of a new kind, mutated. Each is read whole, cut at
random places, and up to the first of them, and must give the model's events every time. This goes on in a
child process, with the input in shared memory while it is tried: so it can be shown even after a crash.
"""

from __future__ import annotations

import argparse
import ast
import atexit
import mmap
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Hashable
from email.utils import formatdate
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import oracle
import proxies
import vectors
from oracle import (
    Event,
    HttpReader,
    Reader,
    ResponseReader,
    WsReader,
    http_events,
    pieces,
    read,
    response_events,
    utf8_fault,
    ws_events,
)
from wire import BINARY, CLOSE, CONTINUATION, HOST, MASK, PING, PONG, TEXT, frame, message, request

from c1m import _probe_files as files
from c1m import _probe_forwarded, _probe_http, _probe_proxyproto

LONGEST = 50_000                     # bytes of an input: past every limit
SHORT = 300                          # bytes of an input that is often used
MOST = 5_000                         # inputs kept


class Disagreement(Exception):
    """args: who says so, what they say, what the model says."""


class Target(NamedTuple):
    """What to fuzz: check raises Disagreement, and returns what kind of input it was."""

    check: Callable[[bytes, list[int]], Hashable]
    corpus: list[bytes]
    scraps: list[bytes]              # what mutation puts in
    make: Callable[[random.Random], bytes] | None = None


def agree(who: str, said: object, model: object) -> None:
    if said != model:
        raise Disagreement(who, said, model)


Model = Callable[[bytes], list[Event]]


def agree_every_way(make: Callable[[], Reader], model: Model, data: bytes, cuts: list[int]) -> list[Event]:
    events = model(data)
    agree("whole", read(make(), [data]), events)
    parts = pieces(data, cuts)
    agree("cut", read(make(), parts), events)
    agree("up to the first cut", read(make(), parts[:1]), model(parts[0]))
    return events


# ---- http ----

def check_http(data: bytes, cuts: list[int]) -> Hashable:
    events = agree_every_way(HttpReader, http_events, data, cuts)
    requests = [event[1] for event in events[:4] if event[0] == "request"]
    kinds = [(request["method"], request["minor"], *sorted(request["flags"])) for request in requests]
    return (*kinds, len(events), *(event for event in events if event[0] == "fail"))


HTTP = Target(
    check_http,
    [data for table in [*vectors.HTTP.values(), vectors.HTTP_NORMAL] for data, _ in table.values()],
    [
        b"\r\n", b"\r\n\r\n", b"\r", b"\n", b" ", b"\t", b"\0", b"\x7f", b"\x80", b":", b"/", b"//", b"?",
        b"#", b"%", b"%2e", b"%2F", b"%00", b"*", b"@", b"[", b"]", b",", b", ", b"http://", b"HTTPS://",
        b"GET ", b"OPTIONS ", b"CONNECT ", b"/ HTTP/1.1\r\n", b"HTTP/1.0", b"HTTP/2.0",
        b"Host: a\r\n", b"\r\nHost: ", b"\r\nExpect: 100-continue",
        b"\r\nContent-Length: 5", b"\r\nContent-Length:", b"1048576", b"999999999999999999",
        b"\r\nTransfer-Encoding: chunked", b"chunked", b"gzip",
        b"0\r\n\r\n", b"5\r\nHello\r\n", b";a=b", b"ffff9\r\n",
        b"\r\nConnection: close", b"\r\nConnection: keep-alive", b"upgrade", b"\r\nUpgrade: websocket",
        b"\r\n A: folded", b"\r\nA: b" * 20, b"x" * 1000, vectors.GET,
    ],
)


# ---- response: the first byte chooses the method of each request ----

METHODS_ASKED = ["GET", "HEAD", "CONNECT", "UPGRADE"]


def check_response(data: bytes, cuts: list[int]) -> Hashable:
    options, data = (data[0], data[1:]) if data else (0, b"")
    methods = [METHODS_ASKED[options >> shift & 3] for shift in (0, 2, 4)]
    events = agree_every_way(partial(ResponseReader, methods), partial(response_events, methods=methods), data, cuts)
    heads = [event[1] for event in events[:5] if event[0] in ("response", "interim")]
    kinds = [(head["status"] // 100, head["minor"], *sorted(head["flags"])) for head in heads]
    return (*kinds, len(events), events[-1])


def asked(methods: tuple[str, ...]) -> bytes:
    """The byte that stands for these methods."""
    return bytes([sum(METHODS_ASKED.index(method) << 2 * i for i, method in enumerate(methods))])


RESPONSE = Target(
    check_response,
    [
        asked(case.methods) + case.data
        for table in [*vectors.RESPONSES.values(), vectors.RESPONSES_NORMAL] for case in table.values()
    ],
    [
        b"\r\n", b"\r\n\r\n", b"\r", b"\n", b" ", b"\t", b"\0", b"\x7f", b"\x80", b":", b",", b";",
        b"HTTP/1.1 ", b"HTTP/1.0 ", b"HTTP/2.0 ", b"200", b"100", b"101", b"204", b"304", b"599", b"999",
        b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 \r\n\r\n", b"HTTP/1.1 204 \r\n\r\n",
        b"\r\nContent-Length: 5", b"\r\nContent-Length:", b"4294967296", b"999999999999999999",
        b"\r\nTransfer-Encoding: chunked", b"chunked", b"gzip", b"Hello",
        b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n", b"5\r\nHello\r\n", b";a=b", b"800000000000000", b"ffff9\r\n",
        b"\r\nConnection: close", b"\r\nConnection: keep-alive", b"upgrade", b"\r\nUpgrade: websocket",
        b"\r\n A: folded", b"\r\nA: b" * 20, b"x" * 1000,
    ],
)


# ---- ws: the first byte chooses role and limit ----

LIMITS = [1 << 20, 0, 20, (1 << 31) - 1]
TEXTS = [
    b"", b"a", b"Hello, world", b"x" * 117, b"\x80", b"\xc3", b"\xa9", b"\xc3\xa9", b"\xe2\x82",
    b"\xe2\x82\xac", b"\xed\xa0\x80", b"\xed\x9f\xbf", b"\xf0\x9f\x98\x80", b"\xf0\x90", b"\xf4\x90", b"\xff",
    b"\x03\xe8", b"\x03\xed",
]


def check_ws(data: bytes, cuts: list[int]) -> Hashable:
    options, data = (data[0], data[1:]) if data else (0, b"")
    role = {"limit": LIMITS[options >> 1 & 3], "client": bool(options & 1), "deflate": bool(options & 8)}
    events = agree_every_way(partial(WsReader, **role), partial(ws_events, **role), data, cuts)
    return (options & 15, *(event[0] if event[0] == "close" else event[:2] for event in events[:5]))


def make_ws(rng: random.Random) -> bytes:
    """A conversation, most of it by the rules."""
    options, inside, frames = rng.randrange(16), False, []
    for _ in range(rng.randrange(1, 8)):
        payload = b"".join(rng.choices(TEXTS, k=rng.randrange(5)))
        mask = None if options & 1 else rng.choice((MASK, bytes(4), b"\x80\0\xff\1"))
        how = {"fin": rng.random() < 0.6, "mask": mask}
        opcode = CONTINUATION if inside else rng.choice((TEXT, TEXT, BINARY))
        if rng.random() < 0.25:
            opcode, how["fin"] = rng.choice((PING, PONG, CLOSE)), True
        else:
            inside = not how["fin"]
            if options & 8 and opcode and rng.random() < 0.3:
                how["rsv"] = 4
        if rng.random() < 0.1:
            opcode, how = rng.choice((
                (rng.randrange(16), how),
                (opcode, how | {"fin": not how["fin"]}),
                (opcode, how | {"mask": MASK if options & 1 else None}),
                (opcode, how | {"rsv": rng.randrange(8)}),
                (opcode, how | {"form": rng.choice((2, 8))}),
                (opcode, how | {"form": 8, "length": rng.choice((0, 125, 65535, 65536, 1 << 31, 1 << 63))}),
            ))
        frames.append(frame(opcode, payload, **how))
    return bytes([options]) + b"".join(frames)


def options_of(case: vectors.Vector) -> bytes:
    limit = LIMITS.index(case.limit) if case.limit in LIMITS else 2
    return bytes([case.client | limit << 1 | case.deflate << 3])


WS = Target(
    check_ws,
    [
        options_of(case) + case.data
        for table in [*vectors.WS.values(), vectors.WS_NORMAL] for each in table.values()
        for case in (each, vectors.other_role(each))
    ],
    [
        *(bytes([a, b]) + MASK for a in (0, 1, 2, 0x80, 0x81, 0x88, 0x89) for b in (0x80, 0x81, 0x85, 0xFD)),
        b"\x81\xfe\x00\x7e", b"\x82\xff\0\0\0\0\0\1\0\0", b"\xff\x80\0\0\0\0\0\0\0", b"\x7e\x00\x7d",
        *TEXTS,
    ],
    make_ws,
)


# ---- utf8: the payload of a text message ----

def check_utf8(data: bytes, cuts: list[int]) -> Hashable:
    fault = utf8_fault(data)
    events = [("fail", 1007)] if fault is not None else [("message", TEXT, data)]
    agree("in one frame", read(WsReader(), [frame(TEXT, data)]), events)
    frames = list(message(TEXT, pieces(data, cuts)))
    agree("in parts", read(WsReader(), frames), events)
    if fault is None or fault == len(data):
        return fault is None, len(data) % 16
    whole = frame(TEXT, data, length=LONGEST)
    until = len(whole) - len(data) + fault
    agree("up to the fault", read(WsReader(), [whole[:until]]), [("partial", TEXT, data[:fault])])
    agree("up to the fault and with it", read(WsReader(), [whole[:until + 1]]), events)
    return data[fault] >> 4, fault % 8


UTF8 = Target(
    check_utf8,
    [b"", vectors.EDGES.encode(), b"x" * 40],
    [
        *TEXTS, b"\0", b"\x7f", b"\xc0\x80", b"\xc1\xbf", b"\xe0\x9f", b"\xe0\xa0\x80", b"\xee\x80\x80",
        b"\xf0\x8f", b"\xf4\x8f\xbf\xbf", b"\xf5", b"1234567", b"12345678", b"123456789",
    ],
)


# ---- range, condition and coding: field lines ----

RESOURCES = [(b'"abc"', 784111777, 1000), (b'W/"x"', 0, 0), (b'""', 1, 1), (b'"a,b"', 951782400, 1 << 40)]


def check_judge(data: bytes, cuts: list[int]) -> Hashable:
    head = vectors.head(data)
    events = http_events(head)
    kinds = []
    for etag, mtime, size in RESOURCES:
        model = None
        if events and events[0][0] == "request":
            fields = events[0][1]["fields"]
            model = oracle.precondition(fields, etag, mtime), oracle.selected(fields, etag, mtime, size)
        try:
            judgement = _probe_http.judge(head, etag, mtime, size)
        except ValueError:
            judgement = None
        agree("judge", judgement, model)
        kinds.append(judgement and (judgement[0], judgement[1] is not None and len(judgement[1])))
    return tuple(kinds)


def check_coding(data: bytes, cuts: list[int]) -> Hashable:
    head = vectors.head(data)
    events = http_events(head)
    kinds = []
    for available in (["gzip"], ["br", "zstd"], ["gzip", "br", "zstd"]):
        whole = events and events[0][0] == "request"
        model = oracle.coding(events[0][1]["fields"], set(available)) if whole else None
        try:
            chosen = _probe_http.choose(head, available)
        except ValueError:
            chosen = None
        agree("choose", chosen, model)
        kinds.append(chosen)
    return tuple(kinds)


DATES = [b"Sun, 06 Nov 1994 08:49:37 GMT", b"Sunday, 06-Nov-94 08:49:37 GMT", b"Sun Nov  6 08:49:37 1994"]
VALUES = [
    b'"abc"', b'"', b'""', b'"x"', b'"a,b"', b"W/", b",", b" ", b"\t", b"*", b"-", b"=", b"bytes=",
    b"0", b"1", b"9", b"1000", b"1099511627775", b"1152921504606846976", b"18446744073709551616",
    *DATES, b"Thu, 01 Jan 1970 00:00:00 GMT", b"Tue, 29 Feb 2000 00:00:00 GMT",
]
CODING = Target(
    check_coding,
    [b"Accept-Encoding: gzip, deflate, br, zstd", b"Accept-Encoding: br;q=1.0, gzip;q=0.8, *;q=0.1"],
    [
        b"gzip", b"x-gzip", b"br", b"zstd", b"identity", b"*", b";q=", b";Q=", b"; q=0", b"0", b"1", b"9",
        b"1.000", b"0.5", b".", b",", b";", b"=", b" ", b"\t", b"x", b";a=b", b"\r\nAccept-Encoding: ",
    ],
)
RANGE = Target(
    check_judge,
    [
        b"Range: bytes=0-4", b"Range: bytes=-5", b"Range: bytes=990-", b'If-Range: "abc"\r\nRange: bytes=1-2',
        *(b"Range: bytes=1-2\r\nIf-Range: " + date for date in DATES),
    ],
    [*VALUES, b"0-0,", b"5-,", b",-7", b"1000-", b"\r\nRange: bytes=", b"\r\nIf-Range: "],
)
CONDITION = Target(
    check_judge,
    [
        b'If-Match: "abc"', b'If-None-Match: W/"abc", "x"', b"If-Match: *",
        *(b"If-Modified-Since: " + date for date in DATES),
        *(b"If-Unmodified-Since: " + date for date in DATES),
    ],
    [
        *VALUES, b"\r\nIf-Match: ", b"\r\nIf-None-Match: ",
        b"\r\nIf-Modified-Since: ", b"\r\nIf-Unmodified-Since: ",
    ],
)


# ---- date ----

def check_date(data: bytes, cuts: list[int]) -> Hashable:
    seconds = _probe_http.parse_date(data)
    agree("parse_date", seconds, oracle.date(data))
    if seconds < 0:
        return len(data)
    agree("format_date", _probe_http.format_date(seconds), formatdate(seconds, usegmt=True).encode())
    return len(data), seconds // (86400 * 3650)


def make_date(rng: random.Random) -> bytes:
    day, month = rng.randrange(33), rng.choice(oracle.MONTHS)
    year = rng.choice((1900, 1970, 2000, 2100, rng.randrange(10_000)))
    clock = b"%02d:%02d:%02d" % (rng.randrange(25), rng.choice((0, 59, 60)), rng.choice((0, 59, 60, 61)))
    return rng.choice((
        b"Sun, %02d %s %04d %s GMT" % (day, month, year, clock),
        b"%s, %02d-%s-%02d %s GMT" % (rng.choice((b"Sunday", b"Wednesday")), day, month, year % 100, clock),
        b"Sun %s %2d %s %04d" % (month, day, clock, year),
    ))


DATE = Target(
    check_date,
    DATES,
    [*(bytes([c]) for c in b"0123456789 ,-:\0"), b"Feb", b"feb", b"GMT", b"UTC", b"Monday"],
    make_date,
)

# ---- proxy: a PROXY header, and each of its beginnings ----

def check_proxy(data: bytes, cuts: list[int]) -> Hashable:
    said = [_probe_proxyproto.header(data[:end]) for end in (*cuts, len(data))]
    for event, end in zip(said, (*cuts, len(data)), strict=True):
        agree(f"the first {end} bytes", event[:1] if event[0] == "fail" else event, proxies.header_event(data[:end]))
    return said[-1], len({event[0] for event in said})


PROXY = Target(
    check_proxy,
    [data for table in [*proxies.HEADERS.values(), proxies.HEADERS_NORMAL] for data, _ in table.values()],
    [
        proxies.SIGNATURE, b"PROXY ", b"TCP4 ", b"TCP6 ", b"UNKNOWN", b" ", b"\r\n", b"\r", b"\n", b"\0", b":", b".",
        b"192.0.2.1", b"2001:db8::1", b"::ffff:1.2.3.4", b"65535", b"65536", b"0",
        b"\x20\x00", b"\x21\x11", b"\x21\x21", b"\x21\x31", b"\x00\x0c", b"\x00\x24", b"\x00\xd8",
        proxies.MUST_SUM, proxies.tlv(proxies.NOOP, b""), proxies.SOME, bytes(216), b"\xff\xff", b"x" * 93,
    ],
)

# ---- forwarded: lines of the field that the first byte chooses ----

FIELDS = ["x-forwarded-for", "forwarded"]
TRUSTED = {name: _probe_forwarded.Trusted(proxies.EXPORTED, name == "forwarded") for name in FIELDS}


def check_forwarded(data: bytes, cuts: list[int]) -> Hashable:
    field = FIELDS[data[:1] > b"\x7f"]
    text = bytes(c if 0x20 <= c < 0x7F or c in b"\t\n" else 0x2E for c in data[1:8000])
    values = [line.strip(b" \t") for line in text.split(b"\n")[:90]]
    head = request(fields=[HOST, *((field.encode(), value) for value in values)])
    said = TRUSTED[field].client(proxies.PEER, head)
    agree("the client", said, proxies.client_of(field, [value.decode() for value in values]))
    return field, len(said), said == proxies.PEER, len(values), text.count(b'"') % 3


FORWARDED = Target(
    check_forwarded,
    [
        b"\0\xff"[FIELDS.index(field):][:1] + "\n".join(values).encode()
        for table in [*proxies.FORWARDED.values(), proxies.FORWARDED_NORMAL] for field, values, _ in table.values()
    ],
    [
        b",", b", ", b";", b"=", b'"', b"\\", b"[", b"]", b":", b"\n", b" ", b"\t", b"for=", b"For=\"", b"by=",
        b"proto=https",
        b"10.1.1.1", b"192.168.1.17", b"203.0.113.1", b"2001:db8:1::1", b"[2001:db8::1]:80", b"::ffff:10.0.0.1", b":80",
        b":_x", b"unknown", b"_x", b"%eth0", b"256", b"a" * 60,
    ],
)

# ---- path: from a document root nobody gets at what lies beside it ----

CANARY = b"nobody may read this"


@cache
def roots() -> list[files.Roots]:
    """A root with links of every kind, and a canary beside it; with openat2(2), and without."""
    place = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, place, True)
    root = place / "root"
    for directory in ("root/a/b", "root/.git", "root/.well-known", "outside"):
        (place / directory).mkdir(parents=True)
    for name in ("outside/canary", "canary", "root-canary", "root/.git/canary", "root/a/.hidden"):
        (place / name).write_bytes(CANARY)
    for name in ("index.html", "a/b/index.html", "a/file.txt", "a/file.txt.gz", ".well-known/file.txt", "a/%2e%2e"):
        (root / name).write_bytes(b"public")
    for name, to in {
        "up": "..", "out": "../outside", "far": place / "outside", "leaf": "../canary", "self": "self", "in": "a/b",
        "a/b/up": "../../..", "a/b/down": "../file.txt", "proc": "/proc/self/root",
        "round": root / "a", "a/again": "../../root/a/file.txt",
    }.items():
        (root / name).symlink_to(to)
    return [files.Roots([root], {"txt": "text/plain"}, openat2) for openat2 in (True, False)]


def check_path(data: bytes, cuts: list[int]) -> Hashable:
    path = b"/" + data.replace(b"\0", b"").lstrip(b"/")
    answers = [
        [
            found["contents"] if isinstance(found, dict) else found
            for found in (each.find(0, path, encoded=forms) for forms in ([], ["gz"]))
        ]
        for each in roots()
    ]
    agree("openat2 and its stand-in", *answers)
    for found in (*answers[0], *answers[1]):
        agree("the canary", isinstance(found, bytes) and CANARY in found, False)
    return str(answers[0])[:40], path.count(b"/")


PATH = Target(
    check_path,
    [b"", b"a/file.txt", b"a/b/", b"in/index.html", b"out/canary", b"a/b/up/canary", b".well-known/file.txt"],
    [
        b"/", b"..", b".", b"../", b"/./", b"//", b"up/", b"out/", b"far/", b"leaf", b"self", b"in/", b"proc/",
        b"round/", b"again", b"canary", b"a/", b"b/", b".git/", b".well-known/", b"%2e%2e",
        b"\\", b"\xff", b"a" * 255, b"a/" * 2048,
    ],
)

TARGETS = {
    "path": PATH, "http": HTTP, "response": RESPONSE, "ws": WS, "utf8": UTF8, "date": DATE,
    "range": RANGE, "condition": CONDITION, "coding": CODING, "proxy": PROXY, "forwarded": FORWARDED,
}


# ---- the machine ----

def mutated(rng: random.Random, data: bytes, target: Target, corpus: list[bytes]) -> bytes:
    new = bytearray(data)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3, 5))):
        at = rng.randrange(len(new) + 1)
        end = at + rng.choice((1, 1, 2, 4, 9))
        kind = rng.randrange(8)
        if kind == 0:
            new[at:at] = rng.choice(target.scraps)
        elif kind == 1:
            new[at:end] = rng.choice(target.scraps)
        elif kind == 2:
            new[at:end] = b""
        elif kind == 3:
            new[at:at + 1] = bytes([rng.randrange(256)])
        elif kind == 4 and at < len(new):
            new[at] ^= 1 << rng.randrange(8)
        elif kind == 5:
            new[at:at] = new[at:end] * rng.choice((1, 1, 1, 2, 9, 2000))
        elif kind == 6:
            other = rng.choice(corpus)
            new[at:] = other[rng.randrange(len(other) + 1):]
        elif kind == 7:
            new[at:] = b""
    return bytes(new[:LONGEST])


def fuzz(name: str, target: Target, seconds: float, seed: int, shared: mmap.mmap) -> None:
    """Tries inputs for so long; shared always holds the one that is being tried."""
    rng = random.Random(seed)
    corpus, kinds, tried = list(target.corpus), set(), 0
    short = [data for data in corpus if len(data) <= SHORT]
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        for _ in range(100):
            # Long inputs are slow: one in fifty is enough of them.
            data = rng.choice(corpus if rng.random() < 0.02 else short)
            if target.make and rng.random() < 0.5:
                data = target.make(rng)
            data = mutated(rng, data, target, short)
            cuts = [rng.randrange(len(data) + 1) for _ in range(rng.choice((1, 1, 2, 3, 8)))]
            text = repr((data, cuts)).encode()
            shared.seek(0)
            shared.write(b"%d:%s" % (len(text), text))
            kind = target.check(data, cuts)
            tried += 1
            if kind not in kinds and len(kinds) < MOST:
                kinds.add(kind)
                corpus.append(data)
                if len(data) <= SHORT:
                    short.append(data)
    took = time.monotonic() - start
    speed = f"{tried} execs in {took:.0f} s ({tried / took:.0f}/s)"
    print(f"{name}: {speed}, {len(kinds)} kinds of input, seed {seed}", flush=True)


def in_child(work: Callable[[], None]) -> int:
    """The exit status of a child that does the work."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzzes an engine; prints the input that it fails on.")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, help="to repeat a run; by default each is another")
    parser.add_argument("--input", type=ast.literal_eval, help="try just this, (bytes, cuts)")
    options = parser.parse_args()
    target = TARGETS[options.target]
    if options.input:
        print(target.check(*options.input))
        return 0
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    shared = mmap.mmap(-1, 20 * LONGEST)
    status = in_child(lambda: fuzz(options.target, target, options.seconds, seed, shared))
    if status:
        size, _, text = shared[:].partition(b":")
        print(f"{options.target}: exit status {status}, seed {seed}, input:\n{text[:int(size)].decode()}")
    return 1 if status else 0


if __name__ == "__main__":
    sys.exit(main())
