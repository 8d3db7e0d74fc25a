"""The Python API: ports, document roots and WebSocket routes, checked here and carried out by `c1m.site`."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import errno
import inspect
import logging
import mimetypes
import os
import re
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, TypeVar

from c1m.listing import Listings
from c1m.logwriter import LogWriter
from c1m.mediatypes import TYPES
from c1m.runner import Runner
from c1m.site import Handler, Site

__all__ = ["Root", "Server"]

_BACKLOG = 4096
_MESSAGE_MOST = (1 << 31) - 1
_MAX_FIELD_BYTES = 8192
_CACHE_CONTROL_MOST = 1024
_MAX_PROTOCOLS = 16
_MAX_ORIGINS = 32
_CACHE_FILES_MOST = 1 << 22
_CACHE_BYTES_MOST = 1 << 40
_TIMEOUT_MOST = 365 * 86400.0

_SLOW = ("close", "drop-newest", "drop-oldest", "latest")
_COMPRESSION = (None, "shared", "dedicated")
_EVENTS = ("on_upgrade", "on_open", "on_message", "on_drain", "on_close")
_H = TypeVar("_H")
_Path = str | os.PathLike[str]
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HOST = re.compile(r"([a-z0-9\-]+\.)*[a-z0-9\-]+\.?|\[[0-9a-f:.]+\]")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
# Fields that say how an answer is framed or what it is; to override one would make the others lies.
_OURS = {
    "accept-ranges", "access-control-allow-origin", "connection", "content-encoding", "content-length", "content-range",
    "content-type", "date", "etag", "keep-alive", "last-modified", "location", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade", "vary",
}  # fmt: skip


@dataclass(frozen=True)
class Root:
    """A directory to serve, and how.

    path: the directory.
    index: names that stand for their directory, the first that exists. Default ``("index.html",)``.
    listing: list directories that have no index, as a page or, to clients that prefer it, as JSON: 3,000 entries of
        each, no more than a second old. Default False.
    spa: answer with the root's index page, status 200, where a browser asks for a page that does not exist: for
        single-page applications whose script reads the path. Default False.
    sidecars: send ``name.zst``, ``name.br`` or ``name.gz`` in place of ``name`` to clients that accept it, where such
        a file lies beside it and is not older. Default True.
    cache: values of Cache-Control by pattern, the first that fits; a pattern with a slash in front is held against
        the file's path below the directory, any other against its name: ``/docs/index.html`` is the file for
        ``/docs/``. ``*`` fits any characters, slashes too, and ``?`` one; all others mean themselves. Default none.
        ``{"*.html": "no-cache", "/assets/*": "public, max-age=31536000, immutable"}``
    headers: header fields for every file sent from here, up to 8192 bytes, beside ``X-Content-Type-Options: nosniff``,
        which None takes away. Default none.
    cors: origins whose scripts may read the answers and all their fields (CORS), such as ``"https://example.org"``, or
        ``"*"`` for any. Default none.
    follow_symlinks: follow symbolic links out of the directory, too. Default False.

    A file ``404.html`` in the directory is the body of its 404 answers, which have the fields of ``headers`` but no
    Cache-Control by pattern: what a pattern says of files, such as to keep them for a year, is not for what is missing.
    Names that begin with a dot are not served, but for those below ``/.well-known/``.

    Raises OSError if path is no directory, ValueError or TypeError for another argument that can't be right.
    """

    path: _Path
    index: Iterable[str] = ("index.html",)
    listing: bool = False
    spa: bool = False
    sidecars: bool = True
    cache: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str | None] = field(default_factory=dict)
    cors: str | Iterable[str] = ()
    follow_symlinks: bool = False

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "path", _directory(self.path))
        put(self, "index", tuple([self.index] if isinstance(self.index, str) else self.index))
        origins = _strings("cors", self.cors, _MAX_ORIGINS)
        put(self, "cors", tuple(origin if origin == "*" else _origin("cors", origin) for origin in origins))
        for name in self.index:
            if not name or "/" in name or "\0" in name or name.startswith("."):
                raise ValueError(f"index: {name!r} is not a file name that can be served")
        for pattern, value in self.cache.items():
            if "\0" in pattern or not pattern:
                raise ValueError(f"cache: {pattern!r} is not a pattern")
            _check_value(f"cache: the value for {pattern!r}", value)
            if len(value) > _CACHE_CONTROL_MOST:
                raise ValueError(f"cache: the value for {pattern!r} is longer than {_CACHE_CONTROL_MOST} bytes")
        for name, value in self.headers.items():  # type: ignore[assignment]
            if not _TOKEN.fullmatch(name):
                raise ValueError(f"headers: {name!r} is not a field name")
            if name.lower() in _OURS or name.lower().startswith("sec-websocket-"):
                raise ValueError(f"headers: {name} is the server's to say")
            if value is None:
                continue
            _check_value(f"headers: the value of {name}", value)
            if name.lower() == "cache-control" and (self.cache or self.listing):
                raise ValueError(f'headers: cache or listing says {name}, too: use cache={{"*": ...}} alone')
        if sum(len(name) + len(value) + 4 for name, value in self.headers.items() if value) > _MAX_FIELD_BYTES:
            raise ValueError(f"headers: more than {_MAX_FIELD_BYTES} bytes in all")

    def _mount(self, site: Site, host: str, prefix: str) -> None:
        headers: dict[str, tuple[str, str | None]] = {"x-content-type-options": ("X-Content-Type-Options", "nosniff")}
        headers |= {name.lower(): (name, value) for name, value in self.headers.items()}
        site.mount(
            host.encode(),
            prefix.encode(),
            self.path,
            index=self.index,
            cache=[(_glob(pattern), value.encode()) for pattern, value in self.cache.items()],
            fields="".join(f"{name}: {value}\r\n" for name, value in headers.values() if value is not None).encode(),
            origins=[origin.encode() for origin in self.cors],
            listing=self.listing,
            single_page=self.spa,
            sidecars=self.sidecars,
            follow_symlinks=self.follow_symlinks,
        )


class Server:
    """Serves document roots and WebSocket routes on any number of ports.

    Parameters:

    root: a directory served at ``/``; or a mapping of URL prefixes to directories, such as
        ``{"/": "public", "/assets": "build/assets", "static.example.org/": "static"}``, of which the longest that
        fits a request's path counts, one that begins with the request's host before one that does not; or None for
        no files. Prefixes are paths, written unescaped. In place of a directory a `Root` says more about how it is
        served. Default None.
    ports: one TCP port or several, 0 for one that the kernel chooses. Default 8001.
    host: a host name or address, or several: ``"127.0.0.1"``, ``"0.0.0.0"``, ``"::"``. Default ``"127.0.0.1"``.
    unix: the path of a Unix-domain socket to listen on as well, or several. Default none.
    head_timeout: seconds that a request may take from its first byte to its last. Default 10.
    keep_alive_timeout: seconds that a connection may idle between requests. Default 75.
    write_timeout: seconds that a client may leave what we send unread. Default 60.
    shutdown_timeout: seconds that a stopping server waits for what is in flight. Default 3.
    cache_files: how many files are remembered, the most recently asked for. Default 16384.
    cache_bytes: memory that they may take. The contents of those up to 32 KiB are in it, and up to 128 KiB once they
        are asked for again; stats() tells how much there is, and how often it served. Default 64 MiB.
    mime_types: media types by file extension, such as ``{"geojson": "application/geo+json"}``, beside those that
        are known already. Text gets ``charset=utf-8``. Default none.
    access_log: a file to which a line is appended for every answer, or ``"-"`` for standard output. Lines are written
        four times a second by a thread of their own; reopen_log(), or SIGUSR1 while run() serves, opens the file
        anew. Lines that can't be written, or not as fast as they come, are dropped and counted. A pipe needs a reader
        from the start. Default None: no log.
    access_log_format: ``"combined"``, as Apache and nginx have it, or ``"json"``, an object a line; the bytes are those
        of the body that the kernel has taken. Default ``"combined"``.

    Raises ValueError or TypeError for an argument that can't be right, OSError for a root that is no directory.

    Use it in one of three ways::

        server.run()                     # serves until SIGINT or SIGTERM

        with server:                     # serves on a thread of its own beside the caller
            print(server.ports)

        async with server:               # serves inside the running asyncio loop
            await asyncio.Event().wait()

    Under ``async with`` signals are the caller's to handle: asyncio.run() makes SIGINT cancel the main task, and
    SIGTERM ends the process. At its end coroutines have what is left of shutdown_timeout, or a second; then they are
    cancelled, and after another second given up.
    """

    def __init__(
        self,
        root: _Path | Root | Mapping[str, _Path | Root] | None = None,
        ports: int | Iterable[int] = 8001,
        *,
        host: str | Iterable[str] = "127.0.0.1",
        unix: _Path | Iterable[_Path] = (),
        head_timeout: float = 10.0,
        keep_alive_timeout: float = 75.0,
        write_timeout: float = 60.0,
        shutdown_timeout: float = 3.0,
        cache_files: int = 16384,
        cache_bytes: int = 64 << 20,
        mime_types: Mapping[str, str] | None = None,
        access_log: _Path | None = None,
        access_log_format: str = "combined",
    ) -> None:
        if root is None:
            root = {}
        elif not isinstance(root, Mapping):
            root = {"/": root}
        self._roots = [
            (*_place(place), path if isinstance(path, Root) else Root(path)) for place, path in root.items()
        ]
        places = [place[:2] for place in self._roots]
        if len(set(places)) < len(places):
            raise ValueError(f"root: a URL prefix is given twice, with and without its last slash, in {list(root)}")
        self._types = {_extension(name): _media_type(kind) for name, kind in (mime_types or {}).items()}
        self._asked_ports = [_port(port) for port in _several("ports", ports, int)]
        self._hosts = [_host(each) for each in _several("host", host, str)]
        self._unix = [_path("unix", path) for path in _several("unix", unix, (str, bytes, os.PathLike))]
        if not self._asked_ports and not self._unix:
            raise ValueError("ports: none given, and no unix socket either")
        if self._asked_ports and not self._hosts:
            raise ValueError("host: none given")
        self._head_ms = _milliseconds("head_timeout", head_timeout)
        self._keep_ms = _milliseconds("keep_alive_timeout", keep_alive_timeout)
        self._stall_ms = _milliseconds("write_timeout", write_timeout)
        self._grace_ms = _milliseconds("shutdown_timeout", shutdown_timeout)
        self._cache_files = _amount("cache_files", cache_files, _CACHE_FILES_MOST)
        self._cache_bytes = _amount("cache_bytes", cache_bytes, _CACHE_BYTES_MOST)
        if access_log_format not in ("combined", "json"):
            raise ValueError(f"access_log_format: {access_log_format!r} is neither 'combined' nor 'json'")
        self._log_path = None if access_log is None else _path("access_log", access_log)
        self._log_json = access_log_format == "json"
        self._log: LogWriter | None = None
        self._routes: dict[str, dict[str, Any]] = {}
        self._handlers: list[Handler] = []
        self._runner: Runner | None = None
        self._site: Site | None = None
        self._thread: threading.Thread | None = None
        self._ports: list[int] = []
        self._listening = self._running = False

    def websocket(
        self,
        path: str,
        handler: Any = None,
        *,
        max_message: int = 1 << 20,
        idle_timeout: float = 120.0,
        ping_interval: float | None = None,
        origins: str | Iterable[str] = (),
        subprotocols: str | Iterable[str] = (),
        max_backlog: int = 1 << 20,
        when_slow: str = "close",
        compression: str | None = None,
        window_bits: int = 15,
        memory_level: int = 8,
    ) -> Callable[[_H], _H]:
        """Speaks WebSocket (RFC 6455) at a path.

        Without a handler every message is sent back: the echo runs in C, without the GIL. A handler is a function
        called with a `WebSocket` and a message, str for text and bytes for binary; or an object with any of the
        methods ``on_upgrade(request)``, ``on_open(ws)``, ``on_message(ws, message)``, ``on_drain(ws)`` and
        ``on_close(ws, code, reason)``. It may be given here, or by using the result as a decorator::

            @server.websocket("/upper")
            def upper(ws, message):
                ws.send(message.upper())

        on_upgrade returns None to accept, a subprotocol that the client offers, or `Reject`. on_drain is called when
        output that had piled up has left. code is the peer's close code, 1005 if it named none, ours if we ended it,
        1006 if the connection broke. A handler that raises is logged, and its connection closes with 1011; `Closed`,
        once that connection is closing, ends it quietly.

        Under ``async with server`` all but on_upgrade may be coroutine functions, or return what can be awaited. Each
        connection's calls then run one after another. While 16 wait, the client is not read from: with the one that
        runs, up to 17 times max_message are held for it. What came before the client's Close is still handled, for up
        to shutdown_timeout seconds. When the connection breaks or the server stops, the call that runs is cancelled
        and those that wait are dropped, as they are when the handler closes. on_close comes last.

        path: the URL path, ``"/echo"``.
        max_message: the longest message taken, in bytes, at most 2**31 - 1; a longer one ends the connection with
            close code 1009. Default 1 MiB.
        idle_timeout: seconds of silence after which a connection is given up. Default 120.
        ping_interval: seconds of silence after which a ping is sent, so that a client that lives stays connected.
            Default: half of idle_timeout.
        origins: the origins whose scripts may connect, such as ``"https://example.org"``; others get 403. ``"null"`` is
            that of a page from a file, but also of any that is sandboxed. Clients that are no browsers name none, and
            are let in. Default: any.
        subprotocols: of those the client offers, the first in this order is agreed on. Default none.
        max_backlog: bytes that may wait for one connection to read them; each message counts with some 100 more, which
            it takes to keep. Default 1 MiB.
        when_slow: what becomes of a message for a connection whose backlog is full: ``"close"`` ends the connection
            with 1013, ``"drop-newest"`` drops the message, ``"drop-oldest"`` the oldest that wait, ``"latest"``
            lets only the newest message of each topic wait. stats()["routes"] counts them. Control frames are never
            dropped. Default ``"close"``.
        compression: permessage-deflate (RFC 7692) with clients that offer it. ``"shared"``: each message by itself,
            with streams that all connections share, so that none needs memory of its own. ``"dedicated"``: each
            connection remembers what went before and compresses better, for (1 << (window_bits + 2)) +
            (1 << (memory_level + 9)) + (1 << window_bits) bytes and some 13 KiB, 301 KiB by default. Messages below
            64 bytes are sent as they are; where when_slow drops messages, none that we send builds on another. Default
            None: it costs more CPU than most networks are worth.
        window_bits: 9 to 15. Default 15.
        memory_level: 1 to 9, as zlib counts. Default 8.

        Raises ValueError or TypeError for an argument that can't be right, RuntimeError if the server listens already.
        """
        self._check_stopped("add a route to")
        if not isinstance(path, str):
            raise TypeError(f"path: {path!r} is not a str")
        if not path.startswith("/"):
            raise ValueError(f"path: {path!r} does not start with '/'")
        if wrong := _not_a_prefix(path.removesuffix("/")):
            raise ValueError(f"path: {path!r} {wrong}")
        if path in self._routes:
            raise ValueError(f"path: {path!r} is a WebSocket route already")
        idle_ms = _milliseconds("idle_timeout", idle_timeout)
        ping_ms = idle_ms // 2 if ping_interval is None else _milliseconds("ping_interval", ping_interval)
        if ping_ms >= idle_ms:
            raise ValueError(f"ping_interval: {ping_interval} is not less than the idle_timeout, {idle_timeout}")
        if when_slow not in _SLOW:
            raise ValueError(f"when_slow: {when_slow!r} is none of {', '.join(map(repr, _SLOW))}")
        if compression not in _COMPRESSION:
            raise ValueError(f"compression: {compression!r} is none of None, 'shared', 'dedicated'")
        subprotocols = _strings("subprotocols", subprotocols, _MAX_PROTOCOLS)
        for protocol in subprotocols:
            if not _TOKEN.fullmatch(protocol) or len(protocol) > 255:
                raise ValueError(f"subprotocols: {protocol!r} is not a token of up to 255 characters")
        route: dict[str, Any] = {
            "handler": None,
            "max_message": _amount("max_message", max_message, _MESSAGE_MOST),
            "idle_ms": idle_ms,
            "ping_ms": ping_ms,
            "max_backlog": _amount("max_backlog", max_backlog, _MESSAGE_MOST),
            "when_slow": _SLOW.index(when_slow),
            "origins": [
                (each if each == "null" else _origin("origins", each)).encode()
                for each in _strings("origins", origins, _MAX_ORIGINS)
            ],
            "subprotocols": [protocol.encode() for protocol in subprotocols],
            "compression": _COMPRESSION.index(compression),
            "window_bits": _amount("window_bits", window_bits, 15, 9),
            "memory_level": _amount("memory_level", memory_level, 9),
        }
        if handler is not None:
            route["handler"] = _handler(handler)
        self._routes[path] = route

        def decorate(handler: _H) -> _H:
            self._check_stopped("add a handler to")
            if route["handler"] is not None:
                raise ValueError(f"path: {path!r} has a handler already")
            route["handler"] = _handler(handler)
            return handler

        return decorate

    def publish(self, topic: str, message: str | bytes | bytearray | memoryview) -> None:
        """Sends a message to every WebSocket that is subscribed to a topic. May be called from any thread; one that
        publishes faster than the server can send is slowed down.

        Raises RuntimeError if the server does not run, TypeError for what is no message.
        """
        self._running_site().publish(topic, message)

    def subscribers(self, topic: str) -> int:
        """How many WebSockets are subscribed to a topic. May be called from any thread."""
        return self._running_site().subscribers(topic)

    @property
    def ports(self) -> list[int]:
        """The TCP ports, in the order given; while the server listens, the real ones in place of 0."""
        return list(self._ports or self._asked_ports)

    def listen(self) -> None:
        """Opens the ports, so that clients can connect and wait. run() and `with` do it themselves if it has not been
        done; do it first to learn the real ports, or to give up privileges before serving.

        Raises OSError where a port can't be had, RuntimeError if the server listens already.
        """
        self._check_stopped("start")
        types = {ext[1:]: kind for ext, kind in mimetypes.MimeTypes().types_map[True].items()} | TYPES | self._types
        site = Site(
            stall_ms=self._stall_ms,
            head_ms=self._head_ms,
            keep_ms=self._keep_ms,
            cache_files=self._cache_files,
            cache_bytes=self._cache_bytes,
            types={ext.encode(): _with_charset(kind).encode() for ext, kind in types.items()},
            listing=Listings().page,
        )
        for host, prefix, root in self._roots:
            root._mount(site, host, prefix)
        self._handlers = []
        for path, options in self._routes.items():
            methods = options["handler"]
            handler = None
            if methods is not None:
                handler = Handler(**methods, queued=_has_coroutines(methods))
                self._handlers.append(handler)
            site.route(path.encode(), handler, **{name: value for name, value in options.items() if name != "handler"})
        with contextlib.ExitStack() as undo:
            listeners, ports = [], []
            for port in self._asked_ports:
                for listener in _tcp_listeners(self._hosts, port):
                    listeners.append(undo.enter_context(listener))
                    port = listener.getsockname()[1]
                ports.append(port)
            for name in self._unix:
                listeners.append(undo.enter_context(_unix_listener(name)))
                undo.callback(os.unlink, name)
            for listener in listeners:
                site.listen(listener.fileno())
                listener.detach()
            if self._log_path is not None:
                self._log = _log_writer(site, self._log_path, self._log_json)
            undo.pop_all()
        self._site, self._ports, self._listening = site, ports, True

    def run(self) -> None:
        """Serves until SIGINT or SIGTERM, or until another thread calls stop().

        The first signal closes the listeners, lets what is in flight finish for up to `shutdown_timeout` seconds,
        and sends WebSockets close code 1001; a second one cuts that short with KeyboardInterrupt. Outside the main
        thread, where Python has no signals, only stop() ends it.

        SIGUSR1 opens the access log's file anew; without a log it does nothing, unless it has a handler.

        Raises OSError where a port can't be had, RuntimeError if the server runs already.
        """
        site = self._start()
        try:
            with self._signals(site):
                site.run()
        finally:
            self._close()

    def stop(self) -> None:
        """Ends run() as a first signal would. May be called from any thread, and when nothing runs."""
        if self._site is not None:
            self._site.leave(self._grace_ms)

    def reopen_log(self) -> None:
        """Opens the access log's file anew, for whoever has renamed it, within a quarter of a second. If that fails the
        old one stays in use. May be called from any thread and from signal handlers, and when there is no log.
        """
        log = self._log
        if log is not None:
            log.reopen()

    def stats(self) -> dict[str, Any]:
        """The counters of the server that runs, or ran last: connections, requests, bytes, cached files and so on.

        Raises RuntimeError if it has never run.
        """
        if self._site is None:
            raise RuntimeError("this server has not run yet")
        return self._site.counters()

    def __enter__(self) -> Server:
        site = self._start()
        self._thread = threading.Thread(target=_serve, args=(site,), name="c1m", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._close()

    async def __aenter__(self) -> Server:
        """Serves inside the running asyncio loop, which watches the reactor's descriptor."""
        loop = asyncio.get_running_loop()  # raises, where there is none, before anything is opened
        self._runner = Runner(loop, self._start(coroutines=True), self._handlers, self._grace_ms / 1000)
        self._runner.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._runner is not None
        self.stop()
        try:
            await self._runner.finish()
        finally:
            self._close()

    # -- starting and stopping --

    def _check_stopped(self, verb: str) -> None:
        if self._listening:
            raise RuntimeError(f"cannot {verb} a server that is listening already")

    def _running_site(self) -> Site:
        ended = self._thread is not None and not self._thread.is_alive()
        if self._site is None or not self._running or ended:
            raise RuntimeError("this server is not running")
        return self._site

    def _start(self, coroutines: bool = False) -> Site:
        if self._running:
            raise RuntimeError("this server is running already")
        if not coroutines:
            for path, options in self._routes.items():
                if _has_coroutines(options["handler"] or {}):
                    raise RuntimeError(f"the handler of {path!r} has coroutine functions: use `async with server`")
        if not self._listening:
            self.listen()
        assert self._site is not None
        self._running = True
        return self._site

    def _close(self) -> None:
        self._ports, self._listening, self._running, self._runner = [], False, False, None
        if self._log is not None:
            self._log.close()
            self._log = None
        for path in self._unix:
            with contextlib.suppress(OSError):
                os.unlink(path)

    @contextlib.contextmanager
    def _signals(self, site: Site) -> Iterator[None]:
        """SIGINT, SIGTERM and SIGUSR1 do as run() says; whatever was there before is put back."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        asked = False

        def stop(number: int, frame: FrameType | None) -> None:
            nonlocal asked
            if asked:
                raise KeyboardInterrupt
            asked = True
            site.leave(self._grace_ms)

        # Python runs signal handlers between bytecodes, and run() executes none: a byte on this pair calls it back.
        ours, pythons = socket.socketpair()
        with ours, pythons:
            ours.setblocking(False)
            pythons.setblocking(False)
            site.watch_signals(ours.fileno())
            wakeup = signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)
            handlers = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
            # Without a log, too: logrotate sends it to whatever runs, and its default is death.
            if self._log is not None or signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:
                handlers[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, lambda number, frame: self.reopen_log())
            try:
                yield
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
                signal.set_wakeup_fd(wakeup)


def _serve(site: Site) -> None:
    """What the thread of `with server` does."""
    try:
        site.run()
    except (KeyboardInterrupt, SystemExit):
        logging.getLogger("c1m").exception("a handler ended the server")


# ---- arguments ----


def _place(place: str) -> tuple[str, str]:
    """A host, "" for any, and a URL prefix without its last slash: of "/assets" or "static.example.org/"."""
    if not isinstance(place, str):
        raise TypeError(f"root: the URL prefix {place!r} is not a str")
    host, slash, prefix = place.partition("/")
    if not slash:
        raise ValueError(f"root: the URL prefix {place!r} has no '/'")
    if host and not _HOST.fullmatch(host.lower()):
        raise ValueError(f"root: {host!r} is not a host name without its port")
    prefix = f"/{prefix}".removesuffix("/")
    if wrong := _not_a_prefix(prefix):
        raise ValueError(f"root: the URL prefix {place!r} {wrong}")
    return host.lower().removesuffix("."), prefix


def _not_a_prefix(prefix: str) -> str | None:
    """Why no request's path, unescaped and with no two slashes in a row, begins so, or none that should be served."""
    if re.search(r"[?#]|%[0-9A-Fa-f]{2}", prefix):
        return "has a query, fragment or escape in it: it is a path, written unescaped"
    if re.search(r"[\0\ud800-\udfff]", prefix):
        return "has a character in it that no URL has"
    if "//" in f"{prefix}/":
        return "has an empty name in it, between two slashes"
    if re.search(r"(?!^/\.well-known(/|$))/\.", prefix):
        return "has a name in it that begins with a dot: only /.well-known is served"
    return None


def _glob(pattern: str) -> bytes:
    """For fnmatch(3), to which brackets and backslashes would mean something, too."""
    return os.fsencode(re.sub(r"[\[\\]", r"\\\g<0>", pattern))


def _check_value(what: str, value: str) -> None:
    """Raises ValueError for what is no field value by RFC 9110 section 5.5, or is one that few would understand."""
    if wrong := re.search(r"[^\t\x20-\x7e]", value):
        raise ValueError(f"{what} has {wrong[0]!r} in it: control characters and what is not ASCII can't be sent")
    if not value:
        raise ValueError(f"{what} is empty")


def _extension(name: str) -> str:
    name = name.removeprefix(".").lower()
    if not re.fullmatch(r"[a-z0-9_+\-]{1,15}", name):
        raise ValueError(f"mime_types: {name!r} is not a file extension")
    return name


def _media_type(kind: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9!#$&^_.+\-]+/[A-Za-z0-9!#$&^_.+\-]+(; ?[\x20-\x7e]+)?", kind) or len(kind) > 128:
        raise ValueError(f"mime_types: {kind!r} is not a media type")
    return kind


def _several(name: str, given: Any, one: type | tuple[type, ...]) -> list[Any]:
    """A list of what was given, be it one or several."""
    if isinstance(given, one):
        return [given]
    if not isinstance(given, Iterable):
        raise TypeError(f"{name}: {given!r} is neither one nor several")
    return list(given)


def _path(name: str, path: _Path) -> str:
    try:
        return os.fsdecode(path)
    except TypeError:
        raise TypeError(f"{name}: {path!r} is not a path") from None


def _host(host: str) -> str:
    if not isinstance(host, str):
        raise TypeError(f"host: {host!r} is not a str")
    return host


def _directory(path: _Path) -> str:
    name = _path("root", path)
    if not os.path.exists(name):
        raise FileNotFoundError(errno.ENOENT, "root: no such directory", name)
    if not os.path.isdir(name):
        raise NotADirectoryError(errno.ENOTDIR, "root: not a directory", name)
    return os.path.abspath(name)


def _port(port: int) -> int:
    if not isinstance(port, int):
        raise TypeError(f"ports: {port!r} is not an int")
    if not 0 <= port <= 65535:
        raise ValueError(f"ports: {port} is not a TCP port (0 to 65535)")
    return port


def _milliseconds(name: str, seconds: float) -> int:
    if not isinstance(seconds, (int, float)):
        raise TypeError(f"{name}: {seconds!r} is not a number of seconds")
    if not 0 < seconds <= _TIMEOUT_MOST:
        raise ValueError(f"{name}: {seconds} is not above 0 seconds and at most a year")
    return max(1, round(seconds * 1000))


def _origin(name: str, origin: str) -> str:
    """As a browser would send it: small letters and no default port in those of the web."""
    found = re.fullmatch(r"(([A-Za-z][A-Za-z0-9+.\-]*)://((?![/?#@])[!-~]){1,300})([/?#][!-~]*)?", origin)
    if not found:
        raise ValueError(f"{name}: {origin!r} is not an origin such as 'https://example.org'")
    bare, scheme = found[1], found[2].lower()
    if scheme in _DEFAULT_PORTS:
        bare = bare.lower().removesuffix(_DEFAULT_PORTS[scheme])
    if found[4]:
        raise ValueError(f"{name}: {origin!r} is not an origin but has {found[4]!r} behind it: write {bare!r}")
    return bare


def _amount(name: str, n: int, most: int, least: int = 1) -> int:
    if not isinstance(n, int):
        raise TypeError(f"{name}: {n!r} is not an int")
    if not least <= n <= most:
        raise ValueError(f"{name}: {n} is not between {least} and {most}")
    return n


def _strings(name: str, given: str | Iterable[str], most: int) -> list[str]:
    """One str or several, in the order given, each once."""
    strings = list(dict.fromkeys(_several(name, given, str)))
    for each in strings:
        if not isinstance(each, str):
            raise TypeError(f"{name}: {each!r} is not a str")
    if len(strings) > most:
        raise ValueError(f"{name}: {len(strings)} are more than {most}")
    return strings


def _handler(handler: Any) -> dict[str, Any]:
    """The methods of a handler, by name."""
    if inspect.isclass(handler):
        raise TypeError(f"handler: {handler.__name__} is a class; pass an object of it")
    methods = {name: getattr(handler, name) for name in _EVENTS if callable(getattr(handler, name, None))}
    for name in {name for name in dir(handler) if name.startswith("on_")}.difference(_EVENTS):
        if meant := difflib.get_close_matches(name, _EVENTS, 1, 0.8):
            raise TypeError(f"handler: {name} is no event; {meant[0]} is")
    if not methods:
        if not callable(handler):
            raise TypeError(f"handler: {handler!r} is no function and has none of the methods {', '.join(_EVENTS)}")
        methods = {"on_message": handler if inspect.isroutine(handler) else handler.__call__}
    for name, method in methods.items():
        if inspect.isasyncgenfunction(method):
            raise TypeError(f"handler: {name} can't be an asynchronous generator function")
    if inspect.iscoroutinefunction(methods.get("on_upgrade")):
        raise TypeError("handler: on_upgrade can't be a coroutine function")
    return methods


def _has_coroutines(methods: dict[str, Any]) -> bool:
    return any(map(inspect.iscoroutinefunction, methods.values()))


def _with_charset(kind: str) -> str:
    return f"{kind}; charset=utf-8" if kind.startswith("text/") and ";" not in kind else kind


def _log_writer(site: Site, path: str, as_json: bool) -> LogWriter:
    site.log_to_memory(as_json)
    try:
        return LogWriter(site.log_take, site.log_lost, path)
    except OSError as error:
        unread = error.errno == errno.ENXIO and stat.S_ISFIFO(os.stat(path).st_mode)
        problem = "nobody reads this pipe" if unread else os.strerror(error.errno or 0)
        raise OSError(error.errno, f"access_log: {problem}", path) from None


# ---- listening sockets ----


def _tcp_listeners(hosts: Iterable[str], port: int) -> Iterator[socket.socket]:
    """A listener for each address of each host; port 0 becomes the same real port on all of them."""
    for host in hosts:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except socket.gaierror as error:
            raise OSError(error.errno, f"host: {host!r} is not known ({error.strerror})") from None
        except UnicodeError:
            raise ValueError(f"host: {host!r} is not a host name") from None
        bound = False
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listener = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # 0.0.0.0 may stand beside ::
                listener.bind((address[0], port, *address[2:]))
                listener.listen(_BACKLOG)
            except OSError as error:
                listener.close()
                if error.errno == errno.EADDRNOTAVAIL and bound:
                    continue  # localhost resolves to ::1 on machines without IPv6, too
                where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
                raise OSError(error.errno, f"cannot listen on {where}: {os.strerror(error.errno or 0)}") from None
            bound = True
            port = listener.getsockname()[1]
            yield listener


def _unix_listener(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        _remove_stale(path)
        listener.bind(path)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {path}: {error.strerror or error}") from None
    return listener


def _remove_stale(path: str) -> None:
    """Removes the socket that a server left when it was killed; one that answers, or another kind of file, stays."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)      # of one that is alive but stuck
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
            except BlockingIOError:
                return
