"""Instructions that c1m executes for a request, a message, a publish: counted by valgrind, so the same in every run.

Counts what c1m's own compiled modules execute, and how often they call out of them: into libc, which picks its
variants by the CPU, into libpython and into the kernel, whose own instructions are left out. So the counts are the
same on any x86-64; they change with the sources and, a little, with gcc and Cython. A server process is loaded by one
client that waits for each answer, on a clock that stands still: else deadlines and budgets of time would be met
sooner or later as the machine is slower or faster.

counts.json is what they should be. --check fails where one has grown by more than 3 % of it.

loads, and what is counted of each:
  get        a GET of a page of 113 bytes with no field but Host
  browser    the same with the fields of a browser
  pipelined  16 of the first, sent together
  echo       a message of 20 bytes to the echo in C
  handler    the same to a handler in Python
  publish    a message of 20 bytes to a handler, which publishes it to 100 subscribers
  visit      a connection: the opening handshake, an echo, the closing handshake
"""

from __future__ import annotations

import argparse
import collections
import importlib.util
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
from harness import Failed

FILE = harness.HERE / "counts.json"
TOLERANCE = 1.03
UNITS = 25                       # a load is put on the server so often, and then SPAN times more often:
SPAN = 5                         # the difference leaves out what comes once, as the dump itself
SUBSCRIBERS = 100
PATIENCE_S = 60
NAMED = 3                        # functions, of those that grew most
MTIME = 784111777
CLOCK = """
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *to) {
    static struct timespec stopped[16];
    if (stopped[clock & 15].tv_sec == 0)
        syscall(SYS_clock_gettime, clock, &stopped[clock & 15]);
    *to = stopped[clock & 15];
    return 0;
}
"""
SERVE = """if True:
    import sys, c1m

    class Echo:
        def on_message(self, ws, message):
            ws.send(message)

    class Publisher:
        def on_open(self, ws):
            ws.subscribe("all")

        def on_message(self, ws, message):
            server.publish("all", message)

    server = c1m.Server(sys.argv[1], int(sys.argv[2]))
    server.websocket("/echo")
    server.websocket("/handler", Echo())
    server.websocket("/publish", Publisher())
    server.run()
"""
MASK = b"\x37\xfa\x21\x3d"
HANDSHAKE = (
    b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
GET = b"GET /page.html HTTP/1.1\r\nHost: localhost\r\n\r\n"
BROWSER = (
    b"GET /page.html HTTP/1.1\r\nHost: localhost:8001\r\nConnection: keep-alive\r\n"
    b'sec-ch-ua: "Chromium";v="136", "Not.A/Brand";v="99"\r\nsec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: "Linux"\r\n'
    b"Upgrade-Insecure-Requests: 1\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/136.0.0.0 "
    b"Safari/537.36\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8\r\n"
    b"Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-User: ?1\r\nSec-Fetch-Dest: document\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9\r\n\r\n"
)
PAYLOAD = b"twenty bytes of text"


def frame(first: int, payload: bytes) -> bytes:
    """A masked frame of less than 126 bytes, as a client sends it."""
    masked = bytes(each ^ MASK[i % 4] for i, each in enumerate(payload))
    return bytes([first, 0x80 | len(payload)]) + MASK + masked


MESSAGE, ECHOED = frame(0x82, PAYLOAD), bytes([0x82, len(PAYLOAD)]) + PAYLOAD
CLOSE, CLOSED = frame(0x88, b"\x03\xe8"), b"\x88\x02\x03\xe8"

PACKAGE = Path(importlib.util.find_spec("c1m").origin).resolve().parent

PAGE = b"." * 113

Counts = dict[str, Any]          # instructions; calls; functions, and the instructions of each


# ---- the server ----

class Counted(harness.Server):
    """c1m under callgrind, which writes what it counted when vgdb tells it to."""

    def __init__(self, place: Path) -> None:
        source, clock = place / "clock.c", place / "clock.so"
        source.write_text(CLOCK)
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", clock, source], check=True)
        (place / "page.html").write_bytes(PAGE)
        os.utime(place / "page.html", (MTIME, MTIME))
        self.place, self.dumps = place, 0
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--log-file={place}/log",
                    f"--callgrind-out-file={place}/out", "--compress-strings=no", "--compress-pos=no",
                    f"--vgdb-prefix={place}/vgdb"]
        super().__init__("c1m", lambda port: [
            "env", f"LD_PRELOAD={clock}", *valgrind, sys.executable, "-c", SERVE, place, str(port)])

    def tell(self, *command: str) -> None:
        subprocess.run(["vgdb", f"--vgdb-prefix={self.place}/vgdb", f"--pid={self.process.pid}", *command],
                       check=True, capture_output=True)

    def fds(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def rest(self, fds: int) -> None:
        """Waits until the server has so many descriptors open and sleeps in epoll_wait."""
        stat = Path(f"/proc/{self.process.pid}/stat")
        until = time.monotonic() + PATIENCE_S
        while self.fds() != fds or stat.read_text().rpartition(") ")[2][0] != "S":
            if time.monotonic() > until:
                raise SystemExit(f"the server has {self.fds()} descriptors, not {fds}, or does not rest")
            time.sleep(0.001)

    def __enter__(self) -> Counted:
        super().__enter__()
        self.tell("instrumentation", "on")
        with connected(self.port) as client:     # behind __enter__'s own
            for _ in range(2):                   # by the second that one is certainly closed
                answered(client, GET, PAGE)
            self.idle_fds = self.fds() - 1
        return self

    def counted(self) -> Counts:
        """What has been executed since the last call."""
        self.rest(self.fds())
        self.tell("dump")
        self.dumps += 1
        return parsed((self.place / f"out.{self.dumps}").read_text())


def parsed(dump: str) -> Counts:
    """What a profile (valgrind's cl-format) says of c1m's modules."""
    functions: collections.Counter[str] = collections.Counter()
    calls = 0
    ours = inclusive = False
    file = name = callee = ""
    for line in dump.splitlines():
        key, _, value = line.partition("=")
        if key == "ob":
            file, ours = value, is_ours(value)
        elif key == "fn":
            name = name_of(file, value)
        elif key == "cob":
            callee = value
        elif key == "calls":
            calls += int(value.split()[0]) if ours and callee and not is_ours(callee) else 0
            callee, inclusive = "", True         # the next line has what the callee cost
        elif line[:1].isdigit():
            functions[name] += int(line.split()[1]) if ours and not inclusive else 0
            inclusive = False
    return {"instructions": sum(functions.values()), "calls": calls, "functions": functions}


def is_ours(file: str) -> bool:
    return Path(file).parent == PACKAGE


def name_of(file: str, symbol: str) -> str:
    """A function as its module's source has it, without what Cython and gcc put around the name."""
    plain = re.sub(r"^__pyx_\w+?_3c1m_\d+[a-z]+_|\.(constprop|isra|part|cold)\b.*", "", symbol)
    plain = re.sub(r"\b\d+|_\d+(?=[a-z])", lambda number: number[0].rstrip("0123456789"), plain)
    return f"{Path(file).name.partition('.')[0]}.{plain}"


# ---- the loads ----

Load = Callable[[Counted], Callable[[], None]]           # connects; what it returns puts one unit on the server


def answered(client: socket.socket, sent: bytes, expected: bytes, times: int = 1) -> None:
    """Sends something, and receives until what is expected has come so often."""
    client.sendall(sent)
    got = b""
    while got.count(expected) < times:
        got += client.recv(1 << 16) or sys.exit(f"the server closed the connection after {got!r}")


def on_one(connected: Callable[[int], socket.socket], sent: bytes, expected: bytes, times: int = 1) -> Load:
    """The same bytes on one connection, again and again."""

    def prepare(server: Counted) -> Callable[[], None]:
        client = connected(server.port)
        return lambda: answered(client, sent, expected, times)

    return prepare


def publish(server: Counted) -> Callable[[], None]:
    clients = [joined(server.port, b"/publish") for _ in range(SUBSCRIBERS)]

    def unit() -> None:
        clients[0].sendall(MESSAGE)
        for client in clients:
            answered(client, b"", ECHOED)

    return unit


def visit(server: Counted) -> Callable[[], None]:
    def unit() -> None:
        with connected(server.port) as client:
            server.rest(server.idle_fds + 1)     # else the handshake would come with the connection, or behind it
            answered(client, HANDSHAKE % b"/echo", b"\r\n\r\n")
            answered(client, MESSAGE, ECHOED)
            answered(client, CLOSE, CLOSED)
        server.rest(server.idle_fds)

    return unit


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), PATIENCE_S)


def joined(port: int, path: bytes) -> socket.socket:
    client = connected(port)
    answered(client, HANDSHAKE % path, b"\r\n\r\n")
    return client


LOADS: dict[str, Load] = {
    "get": on_one(connected, GET, PAGE),
    "browser": on_one(connected, BROWSER, PAGE),
    "pipelined": on_one(connected, 16 * GET, PAGE, 16),
    "echo": on_one(lambda port: joined(port, b"/echo"), MESSAGE, ECHOED),
    "handler": on_one(lambda port: joined(port, b"/handler"), MESSAGE, ECHOED),
    "publish": publish,
    "visit": visit,
}


# ---- counting and judging ----

def count(server: Counted, load: Load) -> Counts:
    """What a unit of the load costs."""
    server.rest(server.idle_fds)
    unit = load(server)
    unit()                       # whatever is done for the first
    server.counted()
    some = counted_units(server, unit, UNITS)
    more = counted_units(server, unit, SPAN * UNITS)
    units = (SPAN - 1) * UNITS
    if not more["functions"]:
        raise SystemExit(f"nothing was counted in {PACKAGE}")

    def each(a: int, b: int) -> float:
        return round((b - a) / units, 1)

    functions = {name: each(some["functions"][name], n) for name, n in sorted(more["functions"].items())}
    return {
        "instructions": each(some["instructions"], more["instructions"]),
        "calls": each(some["calls"], more["calls"]),
        "functions": {name: n for name, n in functions.items() if n >= 1},
    }


def counted_units(server: Counted, unit: Callable[[], None], n: int) -> Counts:
    for _ in range(n):
        unit()
    return server.counted()


def count_all(loads: list[str]) -> dict[str, Counts]:
    found = {}
    with tempfile.TemporaryDirectory(prefix="c1m-counts-") as place, Counted(Path(place)) as server:
        for name in loads:
            found[name] = count(server, LOADS[name])
    return found


def made_with() -> dict[str, str]:
    """What the counts depend on besides the sources, as the compiled module says."""
    module = next(PACKAGE.glob("reactor.*.so")).read_bytes()
    return {
        "machine": platform.machine(),
        "gcc": re.search(rb"GCC: \(.*?\) ([\d.]+)", module)[1].decode(),
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


def grown(load: str, was: Counts, now: Counts) -> str | None:
    """A line on what has grown too much, or None."""
    for what in ("instructions", "calls"):
        if now[what] > TOLERANCE * was[what]:
            break
    else:
        return None
    more = {name: n - was["functions"].get(name, 0) for name, n in now["functions"].items()}
    most = sorted((name for name in more if more[name] >= 1), key=lambda name: -more[name])[:NAMED]
    line = f"{load}: {was[what]:,.0f} {what} have become {now[what]:,.0f} ({now[what] / was[what] - 1:+.1%})"
    return f"{line}; grown most: " + ", ".join(f"{name} by {more[name]:,.0f}" for name in most)


def check(found: dict[str, Counts]) -> int:
    """The exit status: 1 if something has grown."""
    kept, here = json.loads(FILE.read_text()), made_with()
    lines = [line for load, now in found.items() if (line := grown(load, kept["loads"][load], now))]
    if not lines:
        print(f"{', '.join(found)}: none has grown by more than {TOLERANCE - 1:.0%}")
        return 0
    print(*lines, sep="\n")
    if here != kept["made_with"]:
        print(f"{FILE.name} is of {kept['made_with']}, this of {here}")
    print(f"If it is worth it, commit the new {FILE.name} with the change: python bench/counts.py --write")
    return 1


def show(found: dict[str, Counts]) -> None:
    for load, counts in found.items():
        print(f"\n{load:34}{counts['instructions']:10,.0f} instructions{counts['calls']:7,.0f} calls out")
        for name, n in sorted(counts["functions"].items(), key=lambda item: -item[1]):
            print(f"  {name:32}{n:10,.0f}{n / counts['instructions']:8.1%}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loads", nargs="*", metavar="LOAD", help="all unless given")
    doing = parser.add_mutually_exclusive_group()
    doing.add_argument("--check", action="store_true", help="fail if one has grown by more than 3 % of counts.json")
    doing.add_argument("--write", action="store_true", help="write counts.json")
    doing.add_argument("--json", action="store_true", help="print what counts.json would hold")
    args = parser.parse_args()
    for load in args.loads:
        if load not in LOADS:
            parser.error(f"{load}: no such load; there are {', '.join(LOADS)}")
    if not shutil.which("valgrind"):
        raise SystemExit("valgrind is not installed: apt install valgrind")
    try:
        found = count_all(args.loads or list(LOADS))
    except Failed as error:
        raise SystemExit(f"c1m under valgrind: {error}") from None
    if args.check:
        return check(found)
    if args.write:
        kept = json.loads(FILE.read_text())["loads"] if FILE.exists() else {}
        FILE.write_text(json.dumps({"made_with": made_with(), "loads": kept | found}, indent=1) + "\n")
    if args.json:
        print(json.dumps({"made_with": made_with(), "loads": found}))
    else:
        show(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
