"""What a WebSocket handler raises, and what it returns to refuse a client."""

from __future__ import annotations

import re
from collections.abc import Mapping

_FIELD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: [\t\x20-\x7e]*")
_MOST = 8192


class Closed(ConnectionError):
    """The WebSocket is closed, or closing: nothing can be sent on it any more."""


class Reject:
    """What on_upgrade returns to refuse a WebSocket.

    status: an HTTP status from 400 to 599. Default 403.
    reason: the text of the answer's body. Default none.
    headers: fields to add to the answer. Default none.

    Raises ValueError for what no HTTP answer can hold.
    """

    def __init__(self, status: int = 403, reason: str = "", headers: Mapping[str, str] | None = None) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"status: {status} is not between 400 and 599")
        lines = [f"{name}: {value}" for name, value in (headers or {}).items()]
        for line in lines:
            if not _FIELD.fullmatch(line):
                raise ValueError(f"headers: {line!r} is not a header field")
        self.status = status
        self.body = reason.encode()
        self.fields = "".join(f"{line}\r\n" for line in lines).encode()
        if len(self.fields) + len(self.body) > _MOST:
            raise ValueError(f"reason and headers: more than {_MOST} bytes in all")
