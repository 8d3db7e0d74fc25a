"""Where c1m's CPU time goes for a request or a message: kernel by system call, user by module; sampled by perf.

The server is on one CPU, the load on another, and what the kernel does for a `send` over loopback includes all that the
receiving side costs up to its socket. perf may need root, or kernel.perf_event_paranoid at 1 or below.

loads:
  get        50 connections, a GET of a page of 113 bytes
  pipelined  the same in batches of 16
  echo       50 WebSockets, a message of 20 bytes at a time
"""

from __future__ import annotations

import argparse
import collections
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import harness

HERTZ = 4999
CONNECTIONS = "50"
KERNEL = (                       # by what is on the stack, the first that fits
    (re.compile(r"sys_send.*softirq|softirq.*sys_send"), "send: the receiver's side"),
    (re.compile(r"sys_send"), "send: the sender's side"),
    (re.compile(r"sys_recv"), "recv"),
    (re.compile(r"epoll_wait"), "epoll_wait"),
    (re.compile(r""), "entry, exit, interrupts"),
)
FRAME = re.compile(r"^\s*[0-9a-f]+ (\S+) (?:.* )?\((.*)\)$", re.M)
LOADS = {
    "get": ["wrk", "-t1", "-c", CONNECTIONS],
    "pipelined": ["wrk", "-t1", "-c", CONNECTIONS, "-s", harness.HERE / "pipeline.lua"],
    "echo": ["wsload", "-c", CONNECTIONS, "-d", "1", "-s", "20"],
}


def command(load: str, place: Path, port: int, seconds: int) -> harness.Command:
    tool, *arguments = LOADS[load]
    if tool == "wsload":
        return [place / "wsload", *arguments, "-t", str(seconds), str(port), "/"]
    depth = ["--", "16"] if load == "pipelined" else []
    return [tool, *arguments, f"-d{seconds}", f"http://127.0.0.1:{port}/page.html", *depth]


def units(printed: str) -> int:
    found = re.search(r"(\d+) requests in", printed)
    return int(found[1]) if found else int(json.loads(printed)["messages"])


def part(stack: str) -> str:
    """What a sample counts for."""
    frames = FRAME.findall(stack)
    symbol, file = frames[0]
    if "kernel" in file:
        names = " ".join(name for name, _ in frames)
        return "kernel, " + next(what for pattern, what in KERNEL if pattern.search(names))
    module = Path(file).name.partition(".")[0]
    return f"user, {module}" if module != "[unknown]" else f"user, {symbol}"


def measure(load: str, place: Path, seconds: int) -> tuple[float, dict[str, float]]:
    """Microseconds for each unit, and the parts' shares of them."""
    data = place / "perf.data"
    with harness.c1m(place) as server:
        perf = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(HERTZ), "-g", "-o", data,
                "-p", str(server.process.pid)]
        recorder = subprocess.Popen([*perf, "--", "sleep", str(seconds + 1)], stderr=subprocess.DEVNULL)
        before = server.cpu()
        count = units(harness.load(command(load, place, server.port, seconds)))
        spent = server.cpu() - before
        recorder.wait()
    script = subprocess.run(["perf", "script", "-i", data, "-F", "ip,sym,dso"], capture_output=True, text=True).stdout
    parts = collections.Counter(part(stack) for stack in script.strip().split("\n\n") if FRAME.search(stack))
    if not parts:
        raise SystemExit("perf has recorded nothing")
    return 1e6 * spent / count, {name: n / parts.total() for name, n in parts.most_common()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loads", nargs="*", metavar="LOAD", help="all unless given")
    parser.add_argument("--seconds", type=int, default=5, help="that each is loaded (default 5)")
    args = parser.parse_args()
    for tool in ("perf", "wrk"):
        if not shutil.which(tool):
            sys.exit(f"{tool} is not installed: apt install {'linux-perf' if tool == 'perf' else tool}")
    for load in args.loads:
        if load not in LOADS:
            parser.error(f"{load}: no such load; there are {', '.join(LOADS)}")
    print(harness.machine())
    with harness.workshop() as place:
        (place / "page.html").write_bytes(b"." * 113)
        for load in args.loads or LOADS:
            each, shares = measure(load, place, args.seconds)
            print(f"\n{load:36}{each:8.3f} us of CPU")
            for name, share in shares.items():
                if share >= 0.002:
                    print(f"  {name:34}{share * each:8.3f}{share:8.1%}")


if __name__ == "__main__":
    main()
