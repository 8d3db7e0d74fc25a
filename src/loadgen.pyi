from typing import Any

from c1m.loop import Loop

class Worker(Loop):
    def __init__(
        self,
        *,
        memory: Any,
        process: int,
        processes: int,
        targets: list[tuple[bytes, bool, bytes | None, list[bytes] | None]],
        payloads: list[bytes],
        count: int,
        first: int,
        opcode: int,
        depth: int | None,
        seconds: float | None,
        messages: int | None,
        rate: float | None,
        publish: float | None,
        ramp: float,
        sources: int,
        key: bytes,
        patience_ms: int,
        message_size: int,
        fresh: bool,
        idle: bool,
        subscribe: bool,
        verify: bool,
        compress: bool,
        for_head: bool,
        write_timeout_ms: int,
    ) -> None: ...
    def work(self, parent: int) -> None: ...
