"""What the engines cost by themselves, without a socket or a line of Python in the loop.

    python bench/engines.py [--seconds 0.2] [--json]

Each figure is the best of five runs of that many seconds, on one core: noise only ever makes a run slower.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from c1m import _probe_http
from c1m import _probe_ws as ws

RUNS = 5
TEXT, BINARY = 1, 2
MASK = bytes.fromhex("37fa213d")

WRK = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n"
BROWSER = b"\r\n".join([
    b"GET /assets/app.4f2c1b.js?v=20240601 HTTP/1.1",
    b"Host: www.example.org",
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537 (KHTML, like Gecko) Chrome/126 Safari/537",
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    b"Accept-Language: en-GB,en;q=0.9,de;q=0.8",
    b"Accept-Encoding: gzip, deflate, br, zstd",
    b"Connection: keep-alive",
    b"Referer: https://www.example.org/articles/2024/06/index.html",
    b"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; consent=yes",
    b"Sec-Fetch-Dest: script",
    b"Sec-Fetch-Mode: no-cors",
    b"Sec-Fetch-Site: same-origin",
    b'If-None-Match: W/"5f1a2b-18ffab12", "5f1a2b-18ffab13"',
    b"If-Modified-Since: Sat, 01 Jun 2024 12:00:00 GMT",
    b"Range: bytes=1000-1999",
    b"",
    b"",
])
RESPONSE = b"\r\n".join([
    b"HTTP/1.1 200 OK",
    b"Date: Sat, 01 Jun 2024 12:00:00 GMT",
    b"Content-Type: text/html; charset=utf-8",
    b"Last-Modified: Sat, 01 Jun 2024 12:00:00 GMT",
    b'ETag: "5f1a2b-18ffab12"',
    b"Accept-Ranges: bytes",
    b"Content-Length: 13",
    b"",
    b"",
])
MIB = 1 << 20


def frame(opcode: int, payload: bytes) -> bytes:
    """A final masked frame (RFC 6455 section 5.2)."""
    n = len(payload)
    short = n if n < 126 else 126 if n < 65536 else 127
    extended = b"" if n < 126 else n.to_bytes(2 if n < 65536 else 8, "big")
    stream = MASK * (n // 4 + 1)
    masked = bytes(a ^ b for a, b in zip(payload, stream, strict=False))
    return bytes([0x80 | opcode, 0x80 | short]) + extended + MASK + masked


def text_of(characters: str, size: int) -> bytes:
    """UTF-8 of about that size; at random, for a branch predictor would learn a pattern."""
    each = len(characters.encode()) / len(characters)
    return "".join(random.Random(1).choices(characters, k=int(size / each))).encode()


# name, unit, what runs so many rounds, and what a round counts for: calls, or bytes where the unit is GB/s
CASES: list[tuple[str, str, Callable[[int], int], int]] = [
    (f"http: parse wrk's request, {len(WRK)} bytes", "ns", partial(_probe_http.bench, "head", WRK), 1),
    (f"http: parse a browser's request, {len(BROWSER)} bytes", "ns", partial(_probe_http.bench, "head", BROWSER), 1),
    (f"http: parse a response, {len(RESPONSE)} bytes", "ns", partial(_probe_http.bench, "response", RESPONSE), 1),
    ("http: precondition, If-None-Match of two", "ns", partial(_probe_http.bench, "precondition", BROWSER), 1),
    ("http: range, one", "ns", partial(_probe_http.bench, "ranges", BROWSER), 1),
    ("http: content coding, four accepted", "ns", partial(_probe_http.bench, "coding", BROWSER), 1),
    ("http: date in", "ns", partial(_probe_http.bench, "date in", b"Sun, 06 Nov 1994 08:49:37 GMT"), 1),
    ("http: date out", "ns", partial(_probe_http.bench, "date out", b""), 1),
    *(
        (f"ws: next and take, binary of {n} bytes, 16 in a batch", "ns",
         partial(ws.bench, frame(BINARY, b"x" * n) * 16), 16)
        for n in (0, 16, 64, 125, 1024)
    ),
    ("ws: next and take, text of 16 bytes, 16 in a batch", "ns",
     partial(ws.bench, frame(TEXT, b"x" * 16) * 16), 16),
    ("ws: unmask 64 KiB", "GB/s", partial(ws.bench, frame(BINARY, bytes(65536))), 65536),
    ("ws: unmask 1 MiB", "GB/s", partial(ws.bench, frame(BINARY, bytes(MIB))), MIB),
    *(
        (f"ws: unmask and check 64 KiB of {name}", "GB/s", partial(ws.bench, frame(TEXT, text)), len(text))
        for name, text in (
            ("ASCII", text_of("abcdefgh ", 65536)),
            ("German", text_of("abcdefghijklmnoprstuvwz     äöü", 65536)),
            ("Greek", text_of("αβγδεζηθικλμνξοπρστυφχψω ", 65536)),
            ("Chinese", text_of("天地玄黄宇宙洪荒日月盈昃", 65536)),
            ("emoji", text_of("😀🎉🚀🌍🐍", 65536)),
        )
    ),
]


def best(run: Callable[[int], int], seconds: float) -> float:
    """Seconds that a round takes."""
    rounds = 1
    while (took := timed(run, rounds)) < seconds / 10:
        rounds *= 4
    rounds = max(1, int(rounds * seconds / took))
    return min(timed(run, rounds) for _ in range(RUNS)) / rounds


def timed(run: Callable[[int], int], rounds: int) -> float:
    start = time.perf_counter()
    run(rounds)
    return time.perf_counter() - start


def machine() -> dict[str, str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.machine()
    return {"cpu": model, "kernel": platform.release(), "python": platform.python_version()}


def main() -> int:
    parser = argparse.ArgumentParser(description="Times the engines without sockets.")
    parser.add_argument("--seconds", type=float, default=0.2, help="of each run (0.2)")
    parser.add_argument("--json", action="store_true", help="for machines")
    options = parser.parse_args()
    host = machine()
    results = []
    for name, unit, run, count in CASES:
        took = best(run, options.seconds)
        value = took / count * 1e9 if unit == "ns" else count / took / 1e9
        results.append({"name": name, "value": value, "unit": unit})
    if options.json:
        print(json.dumps({"machine": host, "results": results}, indent=1))
        return 0
    print(f"{host['cpu']}, Linux {host['kernel']}, Python {host['python']}, one core\n")
    for result in results:
        print(f"{result['name']:<60} {result['value']:8.1f} {result['unit']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
