"""What a WebSocket handler raises, and what it returns to refuse a client."""

from __future__ import annotations

import re
from collections.abc import Mapping

_FIELD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: [\t\x20-\x7e]*")
_MOST = 8192
# The server's to say: they frame the answer, or speak of the connection.
_OURS = {"connection", "content-length", "date", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}


class Closed(ConnectionError):
    """The WebSocket is closed, or closing: nothing can be sent on it any more."""


class Reject:
    """What on_upgrade returns to refuse a WebSocket.

    status: an HTTP status from 400 to 599. Default 403.
    reason: the text of the answer's body. Default none.
    headers: fields to add to the answer; where they name no Content-Type, it is ``text/plain; charset=utf-8``. Default
        none.

    Raises ValueError or TypeError for what no HTTP answer can hold.
    """

    def __init__(self, status: int = 403, reason: str = "", headers: Mapping[str, str] | None = None) -> None:
        if not isinstance(status, int):
            raise TypeError(f"status: {status!r} is not an int")
        if not 400 <= status <= 599:
            raise ValueError(f"status: {status} is not between 400 and 599")
        if not isinstance(reason, str):
            raise TypeError(f"reason: {reason!r} is not a str")
        if headers is not None and not isinstance(headers, Mapping):
            raise TypeError(f"headers: {headers!r} is no mapping of names to values")
        fields = dict(headers or {})
        for name, value in fields.items():
            if not _FIELD.fullmatch(f"{name}: {value}"):
                raise ValueError(f"headers: {f'{name}: {value}'!r} is not a header field")
            if name.lower() in _OURS or name.lower().startswith("sec-websocket-"):
                raise ValueError(f"headers: {name} is the server's to say")
        if sum(len(f"{name}: {value}\r\n") for name, value in fields.items()) + len(reason.encode()) > _MOST:
            raise ValueError(f"reason and headers: more than {_MOST} bytes in all")
        if not any(name.lower() == "content-type" for name in fields):
            fields["Content-Type"] = "text/plain; charset=utf-8"
        self.status = status
        self.body = reason.encode()
        self.fields = "".join(f"{name}: {value}\r\n" for name, value in fields.items()).encode()
