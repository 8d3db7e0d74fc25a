import os
from collections.abc import Callable, Iterable
from typing import Any

from c1m.shared import Shared
from c1m.websocket import Application, Handler

CODINGS: tuple[str, ...]
COMPRESSION: tuple[str | None, ...]
LIMITS: dict[str, int]
WHEN_SLOW: tuple[str, ...]

class Site(Application):
    def __init__(
        self,
        *,
        write_timeout_ms: int,
        head_timeout_ms: int,
        keep_alive_timeout_ms: int,
        cache_files: int,
        cache_bytes: int,
        mime_types: dict[bytes | None, tuple[bytes, bool]],
        listing: Callable[[int, int, bytes, bool, bool, int], tuple[bytes, bytes]],
        shared: Shared | None = None,
        seat: int = -1,
    ) -> None: ...
    def mount(
        self,
        host: bytes,
        prefix: bytes,
        path: str | os.PathLike[str],
        *,
        index: Iterable[str],
        cache: list[tuple[bytes, bytes]],
        headers: bytes,
        headers_for: list[tuple[bytes, bytes]],
        encodings: list[tuple[bytes, bytes]],
        charset: bytes,
        cors: list[bytes],
        cors_fields: bytes,
        listing: bool,
        spa: bool,
        clean_urls: bool,
        sidecars: bool,
        escaped_slashes: bool,
        dotfiles: bool,
        follow_symlinks: bool,
    ) -> None: ...
    def route(
        self,
        path: bytes,
        handler: Handler | None,
        *,
        max_message: int,
        idle_timeout_ms: int,
        ping_interval_ms: int,
        max_send_queue: int,
        when_slow: int,
        origins: list[bytes],
        subprotocols: list[bytes],
        compression: int,
        window_bits: int,
        memory_level: int,
    ) -> None: ...
    def run(self) -> None: ...
    def log_to_memory(self, as_json: bool) -> None: ...
    def log_take(self) -> bytes: ...
    def log_lost(self, lines: int) -> None: ...
    def counters(self) -> dict[str, Any]: ...
    def forget(self) -> None: ...
