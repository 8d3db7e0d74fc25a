"""A million WebSockets, or more, on this machine: one `c1m serve --workers`, and `c1m load --idle` against it.

Every connection echoes one message and stays. Then one message is published to all of them, then all are pinged once a
minute for some minutes, and then the server drains. Server and clients share the machine, so all that is said of time
is what it takes with both ends of every connection here; CPU time and memory are told apart.

First `c1m doctor` is asked whether the machine can do it; what falls short is said, and nothing is begun.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import harness
from counts import frame, joined

import c1m
from c1m.loadoptions import LoadOptions
from c1m.loadrun import LoadResult, Progress, Run

TOPIC = "all"
PING_S = 60                      # between two pings of a connection
PUBLISH_S = 60                   # that the publish may take to reach the last
PORTS = 8                        # for one, the kernel would have to search long for a free port of a client's address
CLOSES = 10_000                  # a second, which two CPUs can do at both ends
PER_WORKER = 18_500              # connections of one process where descriptors are limited to 20,000
WARM = 40                        # connections for each worker, before its base is looked at
SETTLE_S = 3                     # after all are open, before memory is looked at
CONFIG = """
ports = {ports}
workers = {workers}
drain = {drain}

[websocket."/ws"]
topics = ["{topic}"]
ping_interval = {ping}
idle_timeout = {timeout}

[websocket."/publish"]
handler = "million:Publisher"
"""


class Publisher:
    """Passes on what it gets, for whoever loads this file as a module of handlers."""

    def on_message(self, ws: c1m.WebSocket, message: str | bytes) -> None:
        ws.publish(TOPIC, message)


# ---- the server ----


class Served(harness.Server):
    """One `c1m serve` with its workers, on all CPUs, while the `with` block runs."""

    def __init__(self, place: Path, workers: int, drain: int) -> None:
        def command(port: int) -> harness.Command:
            with contextlib.ExitStack() as stack:
                probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(PORTS - 1)]
                self.ports = [port, *(probe.getsockname()[1] for probe in probes)]
            config = place / "million.toml"
            config.write_text(CONFIG.format(
                ports=self.ports, workers=workers, drain=drain, topic=TOPIC, ping=PING_S, timeout=2 * PING_S))
            return [sys.executable, "-P", "-m", "c1m", "serve", "--config", config]

        super().__init__("c1m", command, {"PYTHONPATH": str(harness.HERE)}, pinned=False)


def publish(port: int) -> None:
    """One message to all, which says when it was sent as `c1m load` wants it."""
    with joined(port, b"/publish") as client:
        client.sendall(frame(0x82, b"c1m:%016x" % time.monotonic_ns()))


# ---- the clients ----


class Clients(threading.Thread):
    """The load, on a thread of its own, and what it told of its progress."""

    def __init__(self, ports: list[int], connections: int) -> None:
        super().__init__(daemon=True)
        options = LoadOptions({
            "connections": connections, "idle": True, "subscribe": True, "duration": 365 * 86400.0, "timeout": 60.0,
        })
        self.load = Run([f"ws://127.0.0.1:{port}/ws" for port in ports], options)
        self.processes = len(self.load.parts)
        self.progress = Progress("starting", 0.0, None, 0, 0, 0.0, {}, {})
        self.result: LoadResult | None = None
        self.fault: BaseException | None = None

    def run(self) -> None:
        try:
            self.result = self.load.run(self.watch)
        except BaseException as fault:
            self.fault = fault

    def watch(self, progress: Progress) -> None:
        self.progress = progress


def warm_up(served: Served, workers: int) -> None:
    """A worker's base is what it takes once it has served: its buffers, and what Python and libraries do but once."""
    count = WARM * workers
    c1m.load(f"ws://127.0.0.1:{served.ports[0]}/ws", connections=count, messages=2 * count, processes=1)
    publish(served.ports[0])


# ---- what is seen ----


class Watch(threading.Thread):
    """Looks at connections and the server's CPU twice a second."""

    def __init__(self, served: Served, clients: Clients) -> None:
        super().__init__(daemon=True)
        self.served, self.clients = served, clients
        self.begun, self.ended = time.monotonic(), threading.Event()
        self.samples: list[tuple[float, int, float]] = []      # seconds, connections, the server's CPU seconds so far

    def run(self) -> None:
        while not self.ended.wait(0.5):
            with contextlib.suppress(harness.Failed):          # it has just ended
                self.samples.append((self.now(), self.clients.progress.connected, self.served.cpu()))

    def now(self) -> float:
        return time.monotonic() - self.begun

    def cpu_between(self, begin: float, end: float) -> list[float]:
        """The share of a CPU in each two looks of a time."""
        some = [sample for sample in self.samples if begin <= sample[0] <= end]
        return shares(some)


def shares(samples: list[Any]) -> list[float]:
    """The share of a CPU in each two."""
    return [(b[2] - a[2]) / (b[0] - a[0]) for a, b in itertools.pairwise(samples)]


def available() -> int:
    """Bytes of memory that the machine could still give."""
    found = re.search(r"^MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text(), re.M)
    return 1024 * int(found[1]) if found else 0


@contextlib.contextmanager
def step(label: str, of: int = 0) -> Iterator[Any]:
    """Says what is being done, with a bar where that is a terminal."""
    if not of or not sys.stderr.isatty():
        click.echo(label, err=True)
        yield lambda done: None
        return
    with click.progressbar(length=of, label=label, file=sys.stderr) as bar:
        yield lambda done: bar.update(done - bar.pos)


def until(clients: Clients, seconds: float, done: Any, show: Any = None) -> None:
    """Waits until done() or the load has ended or so many seconds have gone by."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit and clients.is_alive() and not done():
        if show:
            show(clients.progress.connected)
        time.sleep(0.1)


# ---- all of it ----


def measure(args: argparse.Namespace, place: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"machine": harness.machine(), "c1m": c1m.__version__, "commit": harness.commit(),
                             "connections": args.connections, "workers": args.workers}
    with Served(place, args.workers, args.drain) as served:
        warm_up(served, args.workers)
        base, before, cpu_base = served.memory(), available(), served.cpu()
        clients = Clients(served.ports, args.connections)
        watch = Watch(served, clients)
        found["processes_of_the_load"] = clients.processes
        clients.start()
        watch.start()
        with step(f"opening {args.connections:,} connections", args.connections) as show:
            until(clients, args.patience, lambda: clients.progress.phase == "running", show)
        opened = watch.now()
        begun = max((at for at, connected, _ in watch.samples if not connected), default=0.0)
        cpu_open = served.cpu() - cpu_base
        found["open"] = {
            "connected": clients.progress.connected, "seconds": round(opened - begun, 2),
            "a_second": round(clients.progress.connected / max(opened - begun, 1e-9)),
            "server_cpu_us_each": round(1e6 * cpu_open / max(clients.progress.connected, 1), 2),
            "errors": clients.progress.errors,
        }
        if not clients.is_alive() or clients.progress.connected < args.connections:
            clients.load.end()
            clients.join(60)
            raise SystemExit(f"not all connections opened: {clients.progress.errors or clients.fault}")
        time.sleep(SETTLE_S)
        here, server = clients.progress.connected, served.memory()
        own = harness.memory_of(os.getpid())
        found["memory"] = {
            "server_base": base, "server_bytes_each": round((server - base) / here, 1),
            "kernel_bytes_each": round((before - available() - (server - base) - own) / here),
            "clients": own,
        }
        with step("publishing one message to all"):
            cpu = served.cpu()
            publish(served.ports[0])
            until(clients, PUBLISH_S, lambda: clients.progress.answered >= here)
            found["publish"] = {"delivered": clients.progress.answered,
                                "server_cpu_us_each": round(1e6 * (served.cpu() - cpu) / here, 2)}
        quiet = watch.now()
        with step(f"pings for {args.minutes:g} minutes", int(args.minutes * 60)) as show:
            until(clients, args.minutes * 60, lambda: show(int(watch.now() - quiet)))
        busy = watch.cpu_between(quiet, watch.now())
        found["pings"] = {
            "minutes": args.minutes, "still_open": clients.progress.connected, "errors": clients.progress.errors,
            "cpu_mean": round(sum(busy) / max(len(busy), 1), 3), "cpu_least": round(min(busy, default=0), 3),
            "cpu_most": round(max(busy, default=0), 3),
        }
        with step("draining"):
            begin = watch.now()
            served.process.send_signal(signal.SIGTERM)
            until(clients, args.drain + 120, lambda: clients.progress.connected == 0)
            gone = watch.now()
            with contextlib.suppress(subprocess.TimeoutExpired):
                served.process.wait(60)
        watch.ended.set()
        clients.load.end()
        clients.join(60)
        if clients.result is None:
            raise SystemExit(f"the load has failed: {clients.fault}")
        latency = clients.result.latency
        found["publish"] |= {"first_s": latency.least, "median_s": latency.percentiles["p50"], "last_s": latency.most}
        found["open"]["echoed"] = clients.result.answered
        found["drain"] = {"seconds": round(gone - begin, 2), "ended_with": clients.result.errors,
                          "exit_status": served.process.returncode}
        found["samples"] = [[round(at, 2), connected, round(cpu, 2)] for at, connected, cpu in watch.samples]
    return found


def told(found: dict[str, Any]) -> str:
    opened, memory, publish, pings, drain = (found[each] for each in ("open", "memory", "publish", "pings", "drain"))
    return "\n".join([
        f"{harness.described()}, c1m {found['c1m']}",
        f"{opened['connected']:,} connections in {opened['seconds']:.1f} s, {opened['a_second']:,} a second;"
        f" {opened['echoed']:,} echoed; errors: {opened['errors'] or 'none'}",
        f"{found['workers']} workers, their base {memory['server_base'] / 1e6:.0f} MB;"
        f" {found['processes_of_the_load']} processes of the load, {memory['clients'] / 1e6:.0f} MB",
        f"each connection: {memory['server_bytes_each']:.0f} bytes of the server's own,"
        f" {memory['kernel_bytes_each'] / 1e3:.1f} KB of the kernel's for both ends,"
        f" {opened['server_cpu_us_each']:.1f} us of CPU to connect, upgrade and echo",
        f"a publish reached {publish['delivered']:,}: the first after {publish['first_s']:.2f} s, half after"
        f" {publish['median_s']:.2f} s, the last after {publish['last_s']:.2f} s;"
        f" {publish['server_cpu_us_each']:.2f} us of CPU each",
        f"pinged once a minute for {pings['minutes']:g} minutes: {pings['still_open']:,} still open, errors:"
        f" {pings['errors'] or 'none'}; CPU {pings['cpu_mean']:.0%} of one, from {pings['cpu_least']:.0%} to"
        f" {pings['cpu_most']:.0%}",
        f"drained in {drain['seconds']:.1f} s: {', '.join(f'{n:,} {name}' for name, n in drain['ended_with'].items())};"
        f" exit status {drain['exit_status']}",
    ])


def plot(found: dict[str, Any], path: Path) -> None:
    """Connections and the server's CPU over time."""
    from matplotlib.figure import Figure

    at = [sample[0] for sample in found["samples"]]
    cpu = shares(found["samples"])
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    above.fill_between(at, [sample[1] / 1e6 for sample in found["samples"]], alpha=0.4, linewidth=0)
    above.set_ylabel("connections, millions")
    below.plot(at[1:], cpu, linewidth=0.8)
    below.set_ylabel("CPUs, the server's")
    below.set_xlabel("seconds")
    for axes in (above, below):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    figure.savefig(path, transparent=True)


def refused(args: argparse.Namespace) -> list[str]:
    """What doctor says falls short here, for both ends of all connections, in twice as many processes."""
    diagnosis = c1m.doctor(2 * args.connections, 2 * args.workers)
    return [f"{each.name}: {each.text}" + f" ({each.mend})" * bool(each.mend)
            for each in diagnosis.findings if each.state == "short"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=1_000_000, help="default 1,000,000")
    parser.add_argument("--workers", type=int, help="as many as the limit of descriptors makes necessary, unless given")
    parser.add_argument("--minutes", type=float, default=5.0, help="of pings (default 5)")
    parser.add_argument("--drain", type=int, help="seconds over which the server closes them (default 10, or more where"
                        f" those are more than {CLOSES:,} a second)")
    parser.add_argument("--patience", type=float, default=600.0, help="seconds that opening may take (default 600)")
    parser.add_argument("--name", type=Path, help="write NAME.json and NAME.svg")
    args = parser.parse_args()
    args.drain = args.drain or max(10, args.connections // CLOSES)
    if args.workers is None:
        args.workers = max(len(os.sched_getaffinity(0)), -(-args.connections // PER_WORKER))
    if short := refused(args):
        raise SystemExit("\n".join(["this machine can't do it:", *short]))
    try:
        with tempfile.TemporaryDirectory(prefix="c1m-million-") as place:
            found = measure(args, Path(place))
    except harness.Failed as error:
        raise SystemExit(f"c1m serve: {error}") from None
    print(told(found))
    if args.name:
        args.name.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
        plot(found, args.name.with_suffix(".svg"))


if __name__ == "__main__":
    main()
