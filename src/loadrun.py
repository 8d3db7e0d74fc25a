"""A load as Python sees it: what it is made of, the processes that make it, and its result.

Each process is one of its own, `python -m c1m.loadwork`, so that a load can be run from any program, whatever threads
it has. They get their part over standard input, and count into memory that they share with the one that started them.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import ipaddress
import json
import math
import mmap
import os
import pickle
import random
import resource
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

from c1m.loadoptions import LoadOptions
from c1m.tally import PHASES, Tallies, shared_size

# Connections from one loopback address to one port. There are 28,000 ports (ip(7)), but Linux looks for a free one
# among every other first, and once those are taken each connect(2) looks at all of them before it tries the rest.
PER_SOURCE = 14_000
SPARE_DESCRIPTORS = 64           # of a process, for what is no connection
TAPE_BYTES = 1 << 20             # of different messages, and no more of them than
TAPE_MESSAGES = 64
BUSY = 0.95                      # of a CPU, from which on a process was the limit
REFRESH = 0.25                   # seconds between two looks at the counts,
POLL = 0.01                      # and at how far each process is, before all are ready
SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "p99.99": 0.9999}
SCHEMES = {"ws": 80, "http": 80}
NOT_YET = {"wss": "ws", "https": "http"}

_Path = str | os.PathLike[str]


class LoadError(Exception):
    """The load could not be made: what it says is the whole explanation."""


@dataclass(frozen=True)
class Latencies:
    """Latencies in seconds, to 3 significant digits."""

    count: int = 0
    mean: float = 0.0
    least: float = 0.0
    most: float = 0.0
    percentiles: dict[str, float] = field(default_factory=dict)
    """By name: p50, p90, p99, p99.9, p99.99."""
    histogram: list[tuple[float, int]] = field(default_factory=list, repr=False)
    """(latency, how many were as long) by ascending latency."""


@dataclass(frozen=True)
class LoadResult:
    """What came of a load.

    loop: "closed", "open", "idle" or "subscribe". seconds: that it was measured for. connections: that were opened in
    all, reopened ones included. sent, answered: messages or requests. delivered: published messages that came.
    rate: answered a second, or delivered where it subscribes. errors: how often each happened, by name; statuses: of
    HTTP responses. busy: the share of a CPU that each of its processes took, 0 to 1. interrupted: it was ended early.
    """

    urls: list[str]
    loop: str
    seconds: float
    connections: int
    still_open: int
    sent: int
    answered: int
    delivered: int
    rate: float
    bytes_in: int
    bytes_out: int
    latency: Latencies
    errors: dict[str, int]
    statuses: dict[int, int]
    busy: list[float]
    interrupted: bool = False

    @property
    def client_was_the_limit(self) -> bool:
        """Whether a process of the load had no CPU time left: then it could not have asked for more, and latencies
        include its own delays.
        """
        return any(share >= BUSY for share in self.busy)

    def to_json(self, indent: int | None = None) -> str:
        """All of it as a JSON object, with `client_was_the_limit`."""
        return json.dumps(
            {**dataclasses.asdict(self), "client_was_the_limit": self.client_was_the_limit}, indent=indent
        )


@dataclass
class Progress:
    """A load that is under way."""

    phase: str                   # "opening", "running" or "draining"
    elapsed: float               # seconds since it began to run
    share: float | None          # of the load that is done; None: it has no end of its own
    connected: int
    answered: int                # or delivered
    rate: float                  # since the last look
    errors: dict[str, int]
    percentiles: dict[str, float]    # in seconds


# ---- where to ----


@dataclass(frozen=True)
class Place:
    """A URL, taken apart."""

    url: str
    websocket: bool
    host: str                    # for the Host field
    path: str                    # with its query
    sockaddr: bytes
    loopback: bool


def place_of(url: str) -> Place:
    """Raises ValueError where it is none, LoadError where its host has no address."""
    if url.startswith("unix:"):
        return unix_place(url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{url!r} is not a URL: {error}") from None
    if parts.scheme in NOT_YET:
        raise ValueError(f"{url!r}: there is no TLS yet: use {NOT_YET[parts.scheme]}://")
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise ValueError(f"{url!r} is not a URL such as ws://127.0.0.1:8001/ws or http://127.0.0.1:8001/")
    if parts.username is not None:
        raise ValueError(f"{url!r} has a user name in it: give --header Authorization=...")
    sockaddr, loopback = resolved(parts.hostname, SCHEMES[parts.scheme] if port is None else port)
    return Place(url, parts.scheme == "ws", parts.netloc, path_of(parts), sockaddr, loopback)


def unix_place(url: str) -> Place:
    """unix:PATH speaks HTTP, unix:ws:PATH WebSocket; behind another colon there may be a URL's path."""
    rest = url.removeprefix("unix:")
    websocket = rest.startswith("ws:")
    path, colon, target = rest.removeprefix("ws:").partition(":")
    address = os.fsencode(path)
    if not 0 < len(address) <= 107 or b"\0" in address:
        raise ValueError(f"{url!r} is not unix:PATH, unix:PATH:/path, unix:ws:PATH or unix:ws:PATH:/path")
    parts = urlsplit(target if target.startswith("/") or not colon else f"/{target}")
    return Place(url, websocket, "localhost", path_of(parts), struct.pack("=H", socket.AF_UNIX) + address + b"\0",
                 False)


def path_of(parts: SplitResult) -> str:
    path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    if any(not "!" <= each <= "~" for each in path):
        raise ValueError(f"{path!r} has a character in it that has to be escaped, as in %20")
    return path


def resolved(host: str, port: int) -> tuple[bytes, bool]:
    """The first address of a host as a sockaddr, and whether it is in 127.0.0.0/8."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise LoadError(f"{host}: {getattr(error, 'strerror', None) or error}") from None
    packed = ipaddress.ip_address(str(address[0]).partition("%")[0]).packed
    if family == socket.AF_INET:
        return struct.pack("=H", family) + struct.pack("!H", port) + packed + bytes(8), packed[0] == 127
    scope = address[3] if len(address) > 3 else 0
    return struct.pack("=H", family) + struct.pack("!HI", port, 0) + packed + struct.pack("=I", scope), False


# ---- what is sent ----


def fields_of(options: LoadOptions) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in (options.headers or {}).items())


def hello_of(place: Place, options: LoadOptions, key: bytes) -> bytes:
    """The opening handshake (RFC 6455 section 4.1)."""
    more = fields_of(options)
    if options.subprotocol:
        more += f"Sec-WebSocket-Protocol: {', '.join(options.subprotocol)}\r\n"
    if options.compression:
        more += "Sec-WebSocket-Extensions: permessage-deflate\r\n"
    return (
        f"GET {place.path} HTTP/1.1\r\nHost: {place.host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key.decode()}\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    ).encode()


def request_of(place: Place, options: LoadOptions) -> bytes:
    body = b"" if options.body is None else options.body
    more = fields_of(options) + ("Connection: close\r\n" if options.new else "")
    if body or options.method not in ("GET", "HEAD", "OPTIONS", "DELETE"):
        more += f"Content-Length: {len(body)}\r\n"
    return f"{options.method} {place.path} HTTP/1.1\r\nHost: {place.host}\r\n{more}\r\n".encode() + body


def payloads_of(options: LoadOptions) -> list[bytes]:
    """Different messages, so that an echo of another one does not pass for the right one."""
    if options.message is not None:
        return [options.message]
    count = max(2, min(TAPE_MESSAGES, TAPE_BYTES // max(options.size, 1)))
    if not options.text:
        return [os.urandom(options.size) for _ in range(count)]
    printable = bytes(0x20 + each % 95 for each in range(256))
    return [os.urandom(options.size).translate(printable) for _ in range(count)]


def targets_of(places: Sequence[Place], options: LoadOptions, key: bytes) -> list[tuple[Any, ...]]:
    """What a Worker takes. WebSocket URLs are each a target; of HTTP those with the same address are one, whose
    connections take its URLs in turn.
    """
    if places[0].websocket:
        targets: list[tuple[Any, ...]] = [
            (each.sockaddr, each.loopback, hello_of(each, options, key), None) for each in places
        ]
        if options.random:
            random.shuffle(targets)
        return targets
    requests: dict[bytes, list[bytes]] = {}
    for each in places:
        requests.setdefault(each.sockaddr, []).append(request_of(each, options))
    return [
        (place.sockaddr, place.loopback, None, shuffled(requests[place.sockaddr], options.random))
        for place in {each.sockaddr: each for each in places}.values()
    ]


def shuffled(requests: list[bytes], at_random: bool) -> list[bytes]:
    """At least some hundred in a row, at random or in turn."""
    size = sum(map(len, requests))
    times = max(1, min(TAPE_BYTES // size, 256 // len(requests)))
    return random.choices(requests, k=times * len(requests)) if at_random else requests * times


# ---- processes ----


def processes_for(options: LoadOptions) -> int:
    """How many the descriptor limit makes necessary, or are asked for."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    each = max(hard - SPARE_DESCRIPTORS, 1) if hard != resource.RLIM_INFINITY else 1 << 20
    needed = math.ceil(options.connections / each)
    if options.processes == "auto":
        needed = max(needed, len(os.sched_getaffinity(0)))
    elif options.processes is not None:
        if int(options.processes) < needed:
            raise LoadError(
                f"processes: a process can have {each} connections here (ulimit -Hn), so {options.connections} take"
                f" {needed} processes"
            )
        needed = int(options.processes)
    return min(needed, options.connections)


def sources_for(places: Sequence[Place], options: LoadOptions) -> int:
    if options.sources is not None:
        return options.sources
    needed = math.ceil(options.connections / len({each.sockaddr for each in places}) / PER_SOURCE)
    return needed if needed > 1 else 0


def part(total: int, index: int, of: int) -> int:
    """The share of process `index` when a total is divided."""
    return total // of + (index < total % of)


def parts_of(places: Sequence[Place], options: LoadOptions, processes: int) -> Iterator[dict[str, Any]]:
    """What each Worker is given beside the shared memory."""
    key = base64.b64encode(os.urandom(16))
    websocket = places[0].websocket
    targets, payloads = targets_of(places, options, key), payloads_of(options) if websocket else []
    depth = options.depth if websocket else options.pipeline
    if depth is None and not (websocket and options.rate is not None):
        depth = 1
    first = 0
    for i in range(processes):
        count = part(options.connections, i, processes)
        yield {
            "process": i, "processes": processes, "targets": targets, "payloads": payloads, "count": count,
            "first": first, "opcode": 1 if options.text else 2, "depth": 1 if options.new else depth,
            "seconds": options.duration, "rate": options.rate, "publish": options.publish,
            "messages": None if options.messages is None else part(options.messages, i, processes),
            "ramp": options.ramp or 0.0, "sources": sources_for(places, options), "key": key,
            "patience_ms": round(options.timeout * 1000), "write_timeout_ms": round(options.timeout * 1000),
            "message_size": options.size, "fresh": options.new, "idle": options.idle,
            "subscribe": options.subscribe, "verify": options.verify, "compress": options.compression,
            "for_head": options.method == "HEAD",
        }
        first += count


class Processes:
    """The processes of a load, which end with this object's context, whatever happens."""

    def __init__(self, parts: Sequence[dict[str, Any]]) -> None:
        self.parts = parts
        self.started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Processes:
        self.memory = os.memfd_create("c1m load")
        os.ftruncate(self.memory, shared_size(len(self.parts)))
        self.shared = mmap.mmap(self.memory, 0)
        self.tallies = Tallies(self.shared, len(self.parts))
        try:
            for each in self.parts:
                self.start(each)
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self, given: dict[str, Any]) -> None:
        # In a group of its own: Ctrl-C is for us, who then ask it to end.
        process = subprocess.Popen(
            [sys.executable, "-m", "c1m.loadwork", str(self.memory), str(os.getpid())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[self.memory],
            process_group=0,
        )
        self.started.append(process)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin:
            pickle.dump(given, process.stdin)

    def wait(self, seconds: float) -> None:
        """Until one of those that run ends, so long at the most. It takes next to nothing of the CPU they may share."""
        select.select([each.stdout for each in self.started if each.stdout and each.poll() is None], [], [], seconds)

    def running(self) -> bool:
        """Whether any is. Raises RuntimeError for one that has failed."""
        statuses = [process.poll() for process in self.started]
        for process, status in zip(self.started, statuses, strict=True):
            if status:
                assert process.stderr is not None
                said = process.stderr.read().decode(errors="replace").splitlines() or [f"it ended with status {status}"]
                raise RuntimeError(f"a process of the load has failed: {said[-1]}")
        return None in statuses

    def __exit__(self, *exc: object) -> None:
        for process in self.started:
            process.kill()
        for process in self.started:
            process.wait()
            for pipe in (process.stdout, process.stderr):
                assert pipe is not None
                pipe.close()
        os.close(self.memory)    # what is shared goes with this object, and with whoever looks at the tallies still


# ---- a load ----


class Run:
    """A load: made of checked options, run once."""

    def __init__(self, urls: Sequence[str], options: LoadOptions) -> None:
        if not urls:
            raise ValueError("url: none given")
        self.places = [place_of(url) for url in urls]
        self.options = options
        if len({each.websocket for each in self.places}) > 1:
            raise ValueError("url: WebSocket and HTTP in one load")
        options.check_for(self.places[0].websocket)
        self.parts = list(parts_of(self.places, options, processes_for(options)))
        self.ended = self.interrupted = False

    def end(self) -> None:
        """Ends it early, with what there is; a signal handler may call this."""
        self.ended = self.interrupted = True

    @property
    def loop(self) -> str:
        """What kind of load it is."""
        if self.options.subscribe or self.options.idle:
            return "subscribe" if self.options.subscribe else "idle"
        return "open" if self.options.rate is not None else "closed"

    def run(self, watch: Callable[[Progress], None] | None = None) -> LoadResult:
        """Makes the load. watch is called a few times a second. Raises LoadError, RuntimeError."""
        with Processes(self.parts) as processes:
            last, gone = (time.monotonic(), 0), False
            while processes.running():
                phases = processes.tallies.phases()
                if self.ended:
                    processes.tallies.stop()
                elif not gone and all(each in ("ready", "done") for each in phases):
                    gone = True
                    processes.tallies.go()
                if watch is not None and time.monotonic() - last[0] >= REFRESH and set(phases) != {"done"}:
                    last = self.look(processes.tallies, phases, last, watch)
                processes.wait(REFRESH if gone and not self.ended else POLL)
            return self.result(processes.tallies)

    def look(
        self, tallies: Tallies, phases: list[str], last: tuple[float, int], watch: Callable[[Progress], None]
    ) -> tuple[float, int]:
        counts, now = tallies.counts(), time.monotonic()
        done = counts["delivered"] if self.options.subscribe else counts["answered"]
        elapsed = now - counts["begun_ns"] / 1e9 if counts["begun_ns"] else 0.0
        _, _, _, _, values, _ = tallies.latencies(list(SHARES.values()))
        watch(Progress(
            min(phases, key=PHASES.index), elapsed,
            self.share(elapsed, done), counts["connected"], done, (done - last[1]) / (now - last[0]),
            named_errors(tallies.faults()), {name: value / 1e9 for name, value in zip(SHARES, values, strict=True)},
        ))
        return now, done

    def share(self, elapsed: float, done: int) -> float | None:
        shares = []
        if self.options.duration is not None:
            shares.append(elapsed / self.options.duration)
        if self.options.messages is not None:
            shares.append(done / self.options.messages)
        return min(max(shares), 1.0) if shares else None

    def result(self, tallies: Tallies) -> LoadResult:
        counts, faults = tallies.counts(), tallies.faults()
        seconds = (counts["ended_ns"] - counts["begun_ns"]) / 1e9 if counts["begun_ns"] else 0.0
        total, summed, least, most, values, buckets = tallies.latencies(list(SHARES.values()), True)
        done = counts["delivered"] if self.options.subscribe else counts["answered"]
        return LoadResult(
            urls=[each.url for each in self.places], loop=self.loop, seconds=seconds, connections=counts["opened"],
            still_open=counts["connected"], sent=counts["sent"], answered=counts["answered"],
            delivered=counts["delivered"], rate=done / seconds if seconds else 0.0, bytes_in=counts["bytes_in"],
            bytes_out=counts["bytes_out"], errors=named_errors(faults), statuses=faults["statuses"],
            busy=tallies.busy(), interrupted=self.interrupted,
            latency=Latencies(
                total, summed / total / 1e9 if total else 0.0, least / 1e9, most / 1e9,
                {name: value / 1e9 for name, value in zip(SHARES, values, strict=True)},
                [(value / 1e9, times) for value, times in buckets or ()],
            ),
        )


def named_errors(faults: dict[str, Any]) -> dict[str, int]:
    """How often each error happened, by a name that says all that is known of it."""
    counts = dict(faults["counts"])
    named: dict[str, int] = {}
    for fault, numbers in (("handshake refused", "refused"), ("closed", "closes")):
        if counts.pop(fault, 0):
            said = "with" if fault == "closed" else "with status"
            named.update({f"{fault} {said} {number}": times for number, times in sorted(faults[numbers].items())})
    if counts.pop("status", 0):
        named.update(
            {f"status {status}": times for status, times in sorted(faults["statuses"].items()) if status >= 400}
        )
    if times := counts.pop("broken protocol", 0):
        named[f"broken protocol ({faults['reason']})"] = times
    if times := counts.pop("unreachable", 0):
        named[f"unreachable ({os.strerror(faults['fault'])})"] = times
    return {**counts, **named}


@LoadOptions.documents
def load(
    url: str | Iterable[str],
    *,
    connections: int = 50,
    duration: float | None = None,
    messages: int | None = None,
    rate: float | None = None,
    ramp: float | None = None,
    new: bool = False,
    idle: bool = False,
    timeout: float = 10.0,
    sources: int | None = None,
    processes: int | str | None = None,
    random: bool = False,
    headers: Mapping[str, str] | None = None,
    size: int = 20,
    message: bytes | _Path | None = None,
    text: bool = False,
    depth: int | None = None,
    verify: bool = True,
    compression: bool = False,
    subprotocol: str | Iterable[str] = (),
    subscribe: bool = False,
    publish: float | None = None,
    pipeline: int = 1,
    method: str = "GET",
    body: bytes | _Path | None = None,
) -> LoadResult:
    """Loads a server and returns what came of it, as `c1m load` does. Blocks until then; processes of its own do it.

    url: ws://..., http://..., unix:PATH, unix:PATH:/path, or unix:ws:PATH:/path for WebSocket over a Unix-domain
        socket; or several of the same protocol, which are taken in turn.
    {LoadOptions}

    Errors of the load are counted in the result and raise nothing. Raises ValueError or TypeError for an argument that
    is wrong, OSError for a file that can't be read, LoadError where the load can't be made.
    """
    given = {name: value for name, value in locals().items() if name in LoadOptions.options}
    return Run([url] if isinstance(url, str) else list(url), LoadOptions(given)).run()
