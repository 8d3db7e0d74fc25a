"""What the benchmarks share: C tools, servers on one CPU and load on another, CPU time and memory, tables.

The figure to trust is the server's CPU time per request or message, as a ratio to the floor's in the same
run: the floor (floor.c) is the least that a server can do on this kernel. Rates say as much of the load tool
as of the server, and times drift from one run to the next.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
CPUS = sorted(os.sched_getaffinity(0))
SERVER_CPU, LOAD_CPU = CPUS[0], CPUS[-1]

Command = list[str | Path]
Row = dict[str, Any]


class Result(NamedTuple):
    units: int                   # requests or messages
    rate: float                  # of them per second
    p99_us: float
    errors: int


class Server:
    """A process and its children, on SERVER_CPU while the `with` block runs; command(port) starts it."""

    def __init__(self, name: str, command: Callable[[int], Command]) -> None:
        self.name, self.command = name, command

    def __enter__(self) -> Server:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.process = subprocess.Popen(on_cpu(SERVER_CPU, self.command(self.port)), start_new_session=True)
        while self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                time.sleep(0.2)  # for what servers do after they began to listen
                return self
            time.sleep(0.01)
        raise SystemExit(f"{self.name} ended with status {self.process.returncode}")

    def __exit__(self, *exc: object) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def cpu(self) -> float:
        """Seconds of CPU time, user and system, so far."""
        ticks = 0
        for pid in _tree(self.process.pid):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        """Bytes of memory, those it shares with other processes by their share."""
        rollups = (Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in _tree(self.process.pid))
        return sum(1024 * int(re.search(r"^Pss:\s+(\d+)", text, re.M)[1]) for text in rollups)


def floor(place: Path, *mode: str) -> Server:
    return Server("floor", lambda port: [place / "floor", str(port), *mode])


def c1m(root: Path) -> Server:
    script = """if True:
        import sys, c1m
        server = c1m.Server(sys.argv[1], int(sys.argv[2]))
        server.websocket("/", max_message=1 << 30, idle_timeout=86400)
        server.run()
    """
    # -P: this directory has an http.py, which must not stand in for the standard library's.
    return Server("c1m", lambda port: [sys.executable, "-P", "-c", script, root, str(port)])


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from _tree(int(child))


def on_cpu(cpu: int, command: Command) -> Command:
    return ["taskset", "-c", str(cpu), *command]


def load(command: Command) -> str:
    """Runs a load tool; returns what it printed. What it prints counts, not its exit status."""
    run = subprocess.run(on_cpu(LOAD_CPU, command), capture_output=True, text=True, check=False)
    return run.stdout or sys.exit(run.stderr)


def raise_fd_limit(wanted: int) -> int:
    """Lets this process and its children open so many files; returns how many it could get."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if limit < wanted:
        with contextlib.suppress(ValueError, OSError):  # only root may
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
    return min(wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[1])


@contextlib.contextmanager
def workshop() -> Iterator[Path]:
    """A temporary directory with the C tools, compiled."""
    with tempfile.TemporaryDirectory(prefix="c1m-bench-") as name:
        for tool in ("floor", "wsload"):
            subprocess.run(["gcc", "-O3", "-o", Path(name, tool), HERE / f"{tool}.c"], check=True)
        yield Path(name)


def machine() -> str:
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    cpu = model[1] if model else platform.machine()
    cores = f"{len(CPUS)} CPUs" if len(CPUS) > 1 else "1 CPU, which server and load share"
    return f"{cpu}, {cores}, {platform.system()} {platform.release()}, Python {platform.python_version()}"


def arguments(doc: str, loads: Collection[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loads", nargs="*", metavar="LOAD",
                        help=f"of {', '.join(loads)}; all unless given")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median counts (default 3)")
    parser.add_argument("--seconds", type=int, default=3, help="that each round lasts (default 3)")
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")
    args = parser.parse_args()
    args.loads = args.loads or list(loads)
    for load in args.loads:
        if load not in loads:
            parser.error(f"{load}: no such load; there are {', '.join(loads)}")
    return args


def compare(servers: list[Server], load: Callable[[Server], Result], rounds: int) -> list[Row]:
    """Puts the same load on each server in turn, round by round; the ratios are to the first server."""
    runs: dict[str, list[tuple[float, ...]]] = {server.name: [] for server in servers}
    for _ in range(rounds):
        for server in servers:
            with server:
                before = server.cpu()
                result = load(server)
                cpu_us = 1e6 * (server.cpu() - before) / max(result.units, 1)
            runs[server.name].append((cpu_us, result.rate, result.p99_us, result.errors))
    rows = []
    for name, figures in runs.items():
        cpu_us, rate, p99_us = (statistics.median(column) for column in list(zip(*figures, strict=True))[:3])
        rows.append({"server": name, "cpu_us": cpu_us, "rate": rate, "p99_us": p99_us,
                     "errors": sum(run[3] for run in figures)})
    for row in rows:
        row["cpu_ratio"] = row["cpu_us"] / rows[0]["cpu_us"]
    return rows


def report(args: argparse.Namespace, measure: Callable[[str], list[Row]]) -> None:
    """Measures each load and prints what was found. The exit status is 1 if there was an error."""
    errors, found = 0, {}
    if not args.json:
        print(f"{machine()}\nmedian of {args.rounds} rounds of {args.seconds} s")
    for load in args.loads:
        rows = found[load] = measure(load)
        errors += sum(row["errors"] for row in rows)
        if args.json:
            continue
        print(f"\n{load:20}{'CPU us each':>12}{'to floor':>10}{'per second':>13}{'p99 us':>10}{'errors':>8}")
        for row in rows:
            line = "  {server:18}{cpu_us:12.2f}{cpu_ratio:10.2f}{rate:13,.0f}{p99_us:10,.0f}{errors:8}"
            print(line.format(**row), flush=True)
    if args.json:
        settings = {"machine": machine(), "rounds": args.rounds, "seconds": args.seconds}
        print(json.dumps(settings | {"loads": found}))
    sys.exit(errors > 0)
