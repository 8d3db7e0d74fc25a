"""The loads, each declared once, and how one of them is measured on one server."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import harness
from harness import Failed, Server

from c1m.loadoptions import LoadOptions
from c1m.loadrun import LoadError, LoadResult, Progress, Run

WARM_UP_S = 0.25                 # of each load, which count for nothing; so connections are opened before, too
AROUND_S = 0.7                   # that starting and stopping a server and a load take, roughly
OPENED_A_SECOND = 4000           # connections, by slower servers
SPARE_FDS = 200                  # that a server or a load needs beside its connections
SHOWN_ERRORS = 2
PUBLISHES_A_SECOND = 10          # few enough that each is delivered before the next
MTIME, SINCE = 784111777, "Sun, 06 Nov 1994 08:49:37 GMT"
SMALL, KIB, MIB = 113, 1 << 10, 1 << 20

Round = dict[str, Any]           # a load on a server, once: cpu_us, rate, p99_us, limited; or bytes_each; or error


@dataclass(frozen=True)
class Load:
    """options: those of c1m.load. floor: how the floor is to answer. unit: what it is counted in, or "" for memory."""

    title: str
    unit: str
    path: str
    options: dict[str, Any] = field(default_factory=dict)
    floor: tuple[str, ...] = ("ws",)

    @property
    def websocket(self) -> bool:
        return self.path in ("/ws", "/publish")

    @property
    def connections(self) -> int:
        return int(self.options.get("connections", 50))


def page(title: str, size: int = SMALL, floor: str = "http", **options: Any) -> Load:
    return Load(title, "request", f"/{size}.html", options, (floor, str(size)))


def echo(title: str, **options: Any) -> Load:
    return Load(title, "message", "/ws", options)


LOADS = {
    "small": page("page of 113 bytes, 50 connections"),
    "304": page("page of 113 bytes, 304 Not Modified", headers={"If-Modified-Since": SINCE}),
    "pipelined": page("page of 113 bytes, 16 requests pipelined", pipeline=16),
    "many": page("page of 113 bytes, 5,000 connections", connections=5000),
    "new": page("page of 113 bytes, a new connection for each", floor="once", new=True),
    "10k": page("page of 10 KiB", 10 * KIB),
    "64k": page("page of 64 KiB", 64 * KIB),
    "100k": page("page of 100 KiB", 100 * KIB),
    "1m": page("page of 1 MiB", MIB),
    "echo": echo("echo of 20 bytes, 50 connections"),
    "echo-16": echo("echo of 20 bytes, 16 in flight on each", depth=16),
    "echo-many": echo("echo of 20 bytes, 5,000 connections", connections=5000),
    "echo-16k": echo("echo of 16 KiB", size=16 * KIB),
    "echo-text": echo("echo of 16 KiB of text, its UTF-8 checked", size=16 * KIB, text=True),
    "echo-1m": echo("echo of 1 MiB, 10 connections", size=MIB, connections=10),
    "connect": Load("connect, upgrade, echo, close", "connection", "/ws", {"new": True}),
    "publish": Load("publish to 10,000, for each of them", "delivery", "/publish",
                    {"connections": 10_000, "subscribe": True, "publish": PUBLISHES_A_SECOND}, ("fan",)),
    "idle": Load("10,000 idle WebSockets, memory for each", "", "/ws", {"connections": 10_000, "idle": True}),
}
PAGES = {"small", "pipelined", "many", "new"}
FILES = {"10k", "64k", "100k", "1m"}
ECHOES = {"echo", "echo-16", "echo-many", "echo-16k", "echo-1m", "connect", "idle"}
SOCKETS = ECHOES | {"echo-text", "publish"}


def fill(www: Path) -> None:
    """Writes the pages that the loads ask for."""
    www.mkdir()
    for name in {load.path for load in LOADS.values() if not load.websocket}:
        (www / name[1:]).write_bytes(b"." * int(name[1:].partition(".")[0]))
        os.utime(www / name[1:], (MTIME, MTIME))


def estimate_s(load: Load, seconds: float) -> float:
    """How long it takes on one server, about."""
    return AROUND_S + load.connections / OPENED_A_SECOND + (WARM_UP_S + seconds if load.unit else 2 * WARM_UP_S)


def measure(load: Load, server: Server, seconds: float) -> Round:
    """A load on a server, once. What went wrong is an error in what it returns: then there is no figure."""
    try:
        harness.raise_fd_limit(load.connections + SPARE_FDS)
        with server:
            return rate_of(load, server, seconds) if load.unit else memory_of(load, server)
    except (Failed, LoadError, RuntimeError) as error:
        return {"error": str(error)}


def run_of(load: Load, server: Server, **options: Any) -> Run:
    scheme = "ws" if load.websocket else "http"
    return Run([f"{scheme}://127.0.0.1:{server.port}{load.path}"], LoadOptions(load.options | options))


def rate_of(load: Load, server: Server, seconds: float) -> Round:
    """What a unit costs, from the first look behind the warm-up to the last."""
    looks: list[tuple[float, int, float]] = []

    def look(progress: Progress) -> None:
        if progress.phase == "running" and progress.elapsed >= WARM_UP_S:
            looks.append((time.monotonic(), progress.answered, server.cpu()))

    result = run_of(load, server, duration=WARM_UP_S + seconds).run(look)
    server.check()
    fail_for_errors(result)
    if len(looks) < 2 or looks[0][1] == looks[-1][1]:
        raise Failed("it has answered nothing")
    took, units, spent = (last - first for first, last in zip(looks[0], looks[-1], strict=True))
    return {
        "cpu_us": 1e6 * spent / units, "rate": units / took, "p99_us": 1e6 * result.latency.percentiles["p99"],
        "limited": result.client_was_the_limit,
    }


def memory_of(load: Load, server: Server) -> Round:
    """What the server's own memory grows by for each connection. A first one shows what comes once."""
    fail_for_errors(run_of(load, server, connections=1, idle=False, messages=100).run())
    before, after = server.memory(), 0
    run = run_of(load, server)

    def look(progress: Progress) -> None:
        nonlocal after
        if progress.phase == "running" and progress.elapsed >= WARM_UP_S and not after:
            after = server.memory()
            run.end()

    result = run.run(look)
    fail_for_errors(result)
    if result.still_open != load.connections:
        raise Failed(f"{result.still_open} of {load.connections} connections were open at the end")
    return {"bytes_each": (after - before) / load.connections}


def fail_for_errors(result: LoadResult) -> None:
    if result.errors:
        most = sorted(result.errors.items(), key=lambda item: -item[1])[:SHOWN_ERRORS]
        raise Failed(", ".join(f"{times} times {name}" for name, times in most))
