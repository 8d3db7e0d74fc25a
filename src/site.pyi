import asyncio
import os
from collections.abc import Awaitable, Callable, Generator, Iterable
from typing import Any

from c1m.handlers import Reject
from c1m.reactor import Loop

Message = str | bytes | bytearray | memoryview

class Request:
    @property
    def path(self) -> str: ...
    @property
    def query(self) -> str: ...
    @property
    def remote(self) -> str: ...
    @property
    def headers(self) -> dict[str, str]: ...
    @property
    def cookies(self) -> dict[str, str]: ...

class WebSocket:
    data: Any
    @property
    def request(self) -> Request: ...
    @property
    def subprotocol(self) -> str | None: ...
    @property
    def path(self) -> str: ...
    @property
    def query(self) -> str: ...
    @property
    def headers(self) -> dict[str, str]: ...
    @property
    def remote(self) -> str: ...
    @property
    def closed(self) -> bool: ...
    @property
    def buffered(self) -> int: ...
    def send(self, message: Message) -> Awaitable[None]: ...
    def ping(self, data: Message = b"") -> None: ...
    def close(self, code: int = 1000, reason: str = "") -> None: ...
    def subscribe(self, topic: str) -> None: ...
    def unsubscribe(self, topic: str) -> None: ...
    def publish(self, topic: str, message: Message) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def _hold(self, held: bool) -> None: ...
    def _fail(self, error: BaseException) -> None: ...
    @property
    def _over(self) -> bool: ...

class Sent:
    def __await__(self) -> Generator[None]: ...

class Handler:
    spawn: Callable[[WebSocket, Callable[..., Any] | None, tuple[Any, ...]], None] | None
    waiter: Callable[[], asyncio.Future[None]] | None
    def __init__(
        self,
        *,
        on_upgrade: Callable[[Request], str | Reject | None] | None = None,
        on_open: Callable[[WebSocket], Any] | None = None,
        on_message: Callable[[WebSocket, str | bytes], Any] | None = None,
        on_drain: Callable[[WebSocket], Any] | None = None,
        on_close: Callable[[WebSocket, int, str], Any] | None = None,
        queued: bool = False,
    ) -> None: ...

class Site(Loop):
    def __init__(
        self,
        *,
        stall_ms: int,
        head_ms: int,
        keep_ms: int,
        cache_files: int,
        cache_bytes: int,
        types: dict[bytes, bytes],
        listing: Callable[[int, int, bytes, bool, int], bytes],
    ) -> None: ...
    def mount(
        self,
        host: bytes,
        prefix: bytes,
        path: str | os.PathLike[str],
        *,
        index: Iterable[str],
        cache: list[tuple[bytes, bytes]],
        fields: bytes,
        origins: list[bytes],
        listing: bool,
        single_page: bool,
        sidecars: bool,
        follow_symlinks: bool,
    ) -> None: ...
    def route(
        self,
        path: bytes,
        handler: Handler | None,
        *,
        max_message: int,
        idle_ms: int,
        ping_ms: int,
        max_backlog: int,
        when_slow: int,
        origins: list[bytes],
        subprotocols: list[bytes],
        compression: int,
        window_bits: int,
        memory_level: int,
    ) -> None: ...
    def publish(self, topic: str, message: Message) -> None: ...
    def subscribers(self, topic: str) -> int: ...
    def run(self) -> None: ...
    def reraise(self) -> None: ...
    def log_to_memory(self, as_json: bool) -> None: ...
    def log_take(self) -> bytes: ...
    def counters(self) -> dict[str, Any]: ...
