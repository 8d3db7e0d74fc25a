"""Where c1m's CPU time goes for a request or a message: kernel by system call, user by module; sampled by perf.

The server is on one CPU, the load on another, and what the kernel does for a `send` over loopback includes all that the
receiving side costs up to its socket. perf may need root, or kernel.perf_event_paranoid at 1 or below.

Loads are those of run.py: small, pipelined and echo.
"""

from __future__ import annotations

import argparse
import collections
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import harness
import loads
from harness import Failed
from loads import Load, fill, rate_of
from servers import CONTENDERS, Lab

HERTZ = 4999
KERNEL = (                       # by what is on the stack, the first that fits
    (re.compile(r"sys_send.*softirq|softirq.*sys_send"), "send: the receiver's side"),
    (re.compile(r"sys_send"), "send: the sender's side"),
    (re.compile(r"sys_recv"), "recv"),
    (re.compile(r"epoll_wait"), "epoll_wait"),
    (re.compile(r""), "entry, exit, interrupts"),
)
FRAME = re.compile(r"^\s*[0-9a-f]+ (\S+) (?:.* )?\((.*)\)$", re.M)
LOADS = ("small", "pipelined", "echo")


def part(stack: str) -> str:
    """What a sample counts for."""
    frames = FRAME.findall(stack)
    symbol, file = frames[0]
    if "kernel" in file:
        names = " ".join(name for name, _ in frames)
        return "kernel, " + next(what for pattern, what in KERNEL if pattern.search(names))
    module = Path(file).name.partition(".")[0]
    return f"user, {module}" if module != "[unknown]" else f"user, {symbol}"


def measure(load: Load, lab: Lab, seconds: float) -> tuple[float, dict[str, float]]:
    """Microseconds for each unit, and the parts' shares of them. Raises Failed."""
    data = lab.place / "perf.data"
    ours = CONTENDERS["c1m"]
    with ours.server(lab, Path(sys.executable), load) as server:
        perf = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(HERTZ), "-g", "-o", data,
                "-p", str(server.process.pid)]
        recorder = subprocess.Popen(perf, stderr=subprocess.DEVNULL)
        try:
            each = rate_of(load, server, seconds)["cpu_us"]
        finally:
            recorder.send_signal(signal.SIGINT)
            recorder.wait()
    script = subprocess.run(["perf", "script", "-i", data, "-F", "ip,sym,dso"], capture_output=True, text=True).stdout
    parts = collections.Counter(part(stack) for stack in script.strip().split("\n\n") if FRAME.search(stack))
    if not parts:
        raise Failed("perf has recorded nothing")
    return each, {name: n / parts.total() for name, n in parts.most_common()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loads", nargs="*", metavar="LOAD", help="all unless given")
    parser.add_argument("--seconds", type=int, default=5, help="that each is loaded (default 5)")
    args = parser.parse_args()
    if not shutil.which("perf"):
        sys.exit("perf is not installed: apt install linux-perf")
    for load in args.loads:
        if load not in LOADS:
            parser.error(f"{load}: no such load; there are {', '.join(LOADS)}")
    print(harness.described())
    harness.stay_on_load_cpu()
    with tempfile.TemporaryDirectory(prefix="c1m-bench-") as place:
        lab = Lab(Path(place), None)
        fill(lab.place / "www")
        try:
            for load in args.loads or LOADS:
                show(load, *measure(loads.LOADS[load], lab, args.seconds))
        except Failed as error:
            sys.exit(str(error))


def show(load: str, each: float, shares: dict[str, float]) -> None:
    print(f"\n{load:36}{each:8.3f} us of CPU")
    for name, share in shares.items():
        if share >= 0.002:
            print(f"  {name:34}{share * each:8.3f}{share:8.1%}")


if __name__ == "__main__":
    main()
