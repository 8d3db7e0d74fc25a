"""What a WebSocket handler has to be, what it raises, and what it returns to refuse a client."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Mapping
from typing import Any

EVENTS = {
    "on_upgrade": ("request",),
    "on_open": ("ws",),
    "on_message": ("ws", "message"),
    "on_drain": ("ws",),
    "on_close": ("ws", "code", "reason"),
}
"""What a handler is told of, and what it is called with."""
IN_A_LOOP = 'in an event loop only: use run() and Server(loop="asyncio"), or `async with server`'
"""Where what handlers and hooks return is awaited."""
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


def methods_of(handler: Any) -> dict[str, Any]:
    """The methods of a handler, by name."""
    if inspect.isclass(handler):
        raise TypeError(f"handler: {handler.__name__} is a class; pass an object of it")
    methods = {name: getattr(handler, name) for name in EVENTS if callable(getattr(handler, name, None))}
    for name in sorted({name for name in dir(handler) if name.startswith("on_")}.difference(EVENTS)):
        if meant := difflib.get_close_matches(name, EVENTS, 1, 0.8):
            raise TypeError(f"handler: {name} is no event; {meant[0]} is")
        if callable(inspect.getattr_static(handler, name, None)):      # a property is not run for this
            raise TypeError(f"handler: {name} is no event; these are: {', '.join(EVENTS)}")
    if not methods:
        if not callable(handler):
            raise TypeError(f"handler: {handler!r} is no function and has none of the methods {', '.join(EVENTS)}")
        methods = {"on_message": handler if inspect.isroutine(handler) else handler.__call__}
    for name, method in methods.items():
        if inspect.isasyncgenfunction(method):
            raise TypeError(f"handler: {name} can't be an asynchronous generator function")
        if inspect.isgeneratorfunction(method):
            raise TypeError(f"handler: {name} can't be a generator function: ws.send() sends, yield does not")
        check_parameters(f"handler: {name}", method, EVENTS[name])
    if inspect.iscoroutinefunction(methods.get("on_upgrade")):
        raise TypeError("handler: on_upgrade can't be a coroutine function")
    return methods


def check_parameters(name: str, method: Any, given: tuple[str, ...]) -> None:
    """Raises TypeError for a function that can't be called with what is given."""
    try:
        # What a decorator wraps may take other parameters than the decorator's function.
        signature = inspect.signature(method, follow_wrapped=False)
    except Exception:            # what is built in need not have one, and an annotation may raise anything
        return
    try:
        signature.bind(*given)
    except TypeError:
        plain = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
        takes = signature.replace(parameters=plain, return_annotation=signature.empty)
        raise TypeError(f"{name} takes {takes}; it is called with ({', '.join(given)})") from None


def has_coroutines(methods: dict[str, Any]) -> bool:
    return any(map(inspect.iscoroutinefunction, methods.values()))
