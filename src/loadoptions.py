"""The options of a load, each declared once, and the kinds of values that only they take."""

from __future__ import annotations

import os
from typing import Any

from c1m.kinds import (
    Amount,
    Kind,
    Mapped,
    Path,
    Seconds,
    Several,
    Switch,
    Token,
    check_field_name,
    check_field_value,
)
from c1m.options import Flag, Options, option

MAX_CONNECTIONS = 1 << 24
MAX_MESSAGES = 10**15
MAX_DEPTH = 1 << 16
MAX_SIZE = 1 << 30               # bytes
MAX_RATE = 1e9                   # a second
MAX_SOURCES = 1 << 16
MAX_PROCESSES = 1024
MIN_STAMPED = 20                 # bytes of a message that says when it was published
# What c1m says itself, of each request.
OWN_FIELDS = {
    "connection", "content-length", "host", "sec-websocket-extensions", "sec-websocket-key", "sec-websocket-protocol",
    "sec-websocket-version", "transfer-encoding", "upgrade",
}  # fmt: skip


class Rate(Kind):
    """So many a second."""

    takes, metavar, range, toml = "float", "PER_SECOND", "above 0, at most 1e9", "number"

    def check(self, name: str, value: Any) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise TypeError(f"{name}: {value!r} is not a number")
        if not 0 < value <= MAX_RATE:
            raise ValueError(f"{name}: {value} is not above 0 and at most {MAX_RATE:g} a second")
        return value

    def parse(self, text: str) -> float:
        try:
            return float(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a number, such as 10000 or 0.5") from None


class Contents(Kind):
    """Bytes; as text, and as a path, the contents of a file."""

    takes, metavar = "bytes | _Path", "FILE"

    def check(self, name: str, value: Any) -> bytes:
        if isinstance(value, bytes):
            return value
        with open(Path().check(name, value), "rb") as file:
            return file.read()


class Processes(Kind):
    """How many processes, or "auto"."""

    takes, metavar, range = "int | str", "N|auto", f"1 to {MAX_PROCESSES}, or auto"

    def check(self, name: str, value: Any) -> Any:
        return value if value == "auto" else Amount(1, MAX_PROCESSES).check(name, value)

    def parse(self, text: str) -> Any:
        return text if text == "auto" else Amount(1, MAX_PROCESSES).parse(text)


class RequestFields(Mapped):
    """Header fields of requests."""

    takes, metavar = "Mapping[str, str]", "NAME=VALUE"

    def pair(self, name: str, key: Any, value: Any) -> tuple[str, str]:
        check_field_name(name, key)
        if key.lower() in OWN_FIELDS:
            raise ValueError(f"{name}: {key} is said by the load itself")
        check_field_value(name, f"the value of {key}", value)
        return key, value


class LoadOptions(Options, group="Load"):
    connections: int = option(50, Amount(1, MAX_CONNECTIONS), "connections that are open at a time")
    duration: float | None = option(
        None, Seconds(), "seconds that it runs, counted from when all connections are open",
        flag=Flag("How long it runs, from when all connections are open."),
        shown=": 10 s, or without an end where messages is given",
    )
    messages: int | None = option(
        None, Amount(1, MAX_MESSAGES), "ends once so many messages or requests have been sent and answered",
        shown=" None: as many as there is time for",
    )
    rate: float | None = option(
        None,
        Rate(),
        """an open loop: so many messages or requests a second are due, on all connections together, whatever the
        server does, and latency counts from when each was due. Without it, a closed loop: the next one is sent when an
        answer has come, so that a server that stalls is asked less""",
        shown=" None: a closed loop",
        flag=Flag("Open loop: so many messages or requests a second are due, whatever the server does, and latency"
                  " counts from when each was due."),
    )
    ramp: float | None = option(
        None, Seconds(), "seconds over which the connections are opened, evenly", shown=" None: as fast as can be",
        flag=Flag("Time over which the connections are opened, evenly."),
    )
    new: bool = option(False, Switch(), "a new connection for each message or request, which pays for it")
    idle: bool = option(
        False, Switch(), "one echo on each connection, which then stays open for the duration and answers pings",
    )
    timeout: float = option(
        10.0, Seconds(), "the longest wait for a connection or an answer, in seconds",
        flag=Flag("Longest wait for a connection or an answer."),
    )
    sources: int | None = option(
        None,
        Amount(1, MAX_SOURCES),
        """loopback addresses that connections come from, 127.0.0.1 and up: each has 28,000 ports, of which the kernel
        finds half quickly""",
        shown=": as many as there have to be",
        flag=Flag("Loopback addresses that connections come from, each with 28,000 ports."),
    )
    processes: int | str | None = option(
        None,
        Processes(),
        """processes that make the load: a number, or ``"auto"`` for one for each CPU""",
        shown=": as many as the descriptor limit makes necessary",
        flag=Flag("Processes that make the load; auto is one for each CPU."),
    )
    random: bool = option(False, Switch(), "take several URLs at random, not in turn")
    headers: dict[str, str] | None = option(
        None, RequestFields(), "header fields of every request or handshake", shown=" None",
        flag=Flag("Header field of every request or handshake.", "--header"),
    )
    size: int = option(20, Amount(0, MAX_SIZE, "bytes"), "bytes of a message", group="WebSocket",
                       flag=Flag("Size of a message."))
    message: bytes | None = option(
        None, Contents(), "the message, as bytes or as the path of a file, in place of random ones", group="WebSocket",
        shown=" None", flag=Flag("File that is the message, in place of random ones."),
    )
    text: bool = option(False, Switch(), "text messages, not binary ones", group="WebSocket",
                        flag=Flag(name="--text/--binary"))
    depth: int | None = option(
        None, Amount(1, MAX_DEPTH), "messages in flight on each connection at most", group="WebSocket",
        shown=": 1, or any number in an open loop",
    )
    verify: bool = option(True, Switch(), "compare each echo byte for byte", group="WebSocket")
    compression: bool = option(False, Switch(), "offer permessage-deflate, and send compressed", group="WebSocket")
    subprotocol: tuple[str, ...] = option(
        (), Several(Token()), "subprotocols to offer, the favourite first", group="WebSocket",
        flag=Flag("Subprotocol to offer."),
    )
    subscribe: bool = option(
        False,
        Switch(),
        """only receive, and measure the delivery of messages that say when they were published, as those of publish
        do; with idle, after the echo""",
        group="WebSocket",
        flag=Flag("Only receive, and measure the delivery of messages that say when they were published."),
    )
    publish: float | None = option(
        None, Rate(), "one more connection, which sends so many messages a second that say when they were published",
        group="WebSocket", shown=" None",
    )
    pipeline: int = option(1, Amount(1, MAX_DEPTH), "requests in flight on each connection at most", group="HTTP")
    method: str = option("GET", Token(), "the method of requests", group="HTTP", flag=Flag("Method of requests."))
    body: bytes | None = option(
        None, Contents(), "the body of requests, as bytes or as the path of a file", group="HTTP", shown=" None",
        flag=Flag("File that is the body of requests."),
    )

    def check_together(self) -> None:
        if self.duration is None and self.messages is None:
            self.duration = 10.0
        if self.publish is not None and not self.subscribe:
            raise ValueError("publish: nobody receives: give subscribe, too")
        for one, others in (
            ("subscribe", ("new", "rate", "messages", "compression")),
            ("idle", ("new", "rate", "messages")),
            ("message", ("publish",)),
        ):
            for other in others:
                if getattr(self, one) and getattr(self, other):
                    raise ValueError(f"{one}: not together with {other}")
        if self.new and max(self.depth or 1, self.pipeline) > 1:
            raise ValueError("new: a connection for each message has one in flight: leave out depth and pipeline")
        if self.publish is not None and self.size < MIN_STAMPED:
            raise ValueError(f"size: a message that says when it was published has at least {MIN_STAMPED} bytes")
        if self.message is not None and len(self.message) > MAX_SIZE:
            raise ValueError(f"message: longer than {MAX_SIZE} bytes")
        if self.text and self.message is not None:
            try:
                self.message.decode()
            except UnicodeDecodeError:
                raise ValueError("message: text that is not UTF-8") from None
        if self.method == "CONNECT":
            raise ValueError("method: CONNECT asks for a tunnel, which is no load")

    def check_for(self, websocket: bool) -> None:
        """Refuses what only the other protocol has."""
        for name, declared in self.options.items():
            if declared.group == ("HTTP" if websocket else "WebSocket") and getattr(self, name) != declared.default:
                raise ValueError(f"{name}: for {declared.group} only, and this is {'ws' if websocket else 'http'}://")
        if self.idle and not websocket:
            raise ValueError("idle: for WebSocket only, and this is http://")


def urls_in(path: str) -> list[str]:
    """The URLs in a file, one a line; empty lines and those that begin with # are skipped. Raises OSError."""
    with open(os.fspath(path), encoding="utf-8", errors="surrogateescape") as file:
        lines = [line.strip() for line in file]
    return [line for line in lines if line and not line.startswith("#")]
