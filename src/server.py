"""The Python API: a server and its routes, how it starts, stops and meets signals. What its options may be is
`c1m.options`' to say, what they do `c1m.site`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import logging
import mimetypes
import os
import signal
import socket
import stat
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FrameType
from typing import Any, TypeVar

from c1m import systemd
from c1m.handlers import check_parameters, has_coroutines, methods_of
from c1m.listeners import addresses, check_free, handed_in, opened, place_of, port_of
from c1m.listing import Listings
from c1m.logwriter import LogWriter
from c1m.mediatypes import TYPES
from c1m.options import RouteOptions, ServerOptions, checked_durations, checked_route
from c1m.root import Root, made_root
from c1m.runner import Runner
from c1m.site import Site
from c1m.websocket import Handler

__all__ = ["Server"]

_H = TypeVar("_H")
_G = TypeVar("_G", bound=Callable[[], Any])
_Path = str | os.PathLike[str]


@ServerOptions.documents
class Server:
    """Serves document roots and WebSocket routes on any number of ports.

    Parameters:

    {ServerOptions}

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

    However it is stopped, it drains first: the listeners close; responses that are under way are finished, and no other
    begun on their connections; idle connections close; what `on_drain_start` has is called; then WebSockets are sent a
    Close with drain_code, one after another over up to `drain` seconds, and what is published meanwhile still reaches
    those whose turn has not come. shutdown_timeout seconds after the last of them whatever is left is cut off.

    listen(), which each of the three does first, changes the process, and nothing changes it back: the soft limit of
    open files (RLIMIT_NOFILE) becomes the hard one, so that descriptors may be over the 1023 that select(2) knows;
    glibc's malloc keeps large freed blocks for the next (mallopt); and SIGPIPE is ignored, as Python has it from the
    start, where its default would end the process. A server runs in the process that called listen(): a fork of it
    can't, and its end leaves the sockets and the log alone.
    """

    def __init__(
        self,
        root: _Path | Root | Mapping[str, _Path | Root] | None = None,
        ports: int | Iterable[int] | None = None,
        *,
        host: str | Iterable[str] = "127.0.0.1",
        unix: _Path | Iterable[_Path] = (),
        unix_mode: int | None = None,
        sockets: socket.socket | int | str | Iterable[socket.socket | int | str] = (),
        head_timeout: float = 10.0,
        keep_alive_timeout: float = 75.0,
        write_timeout: float = 60.0,
        shutdown_timeout: float = 3.0,
        drain: float = 10.0,
        drain_code: int = 1001,
        cache_files: int = 16384,
        cache_bytes: int = 64 << 20,
        mime_types: Mapping[str, str] | None = None,
        default_type: str = "application/octet-stream",
        access_log: _Path | None = None,
        access_log_format: str = "combined",
    ) -> None:
        self._options = ServerOptions(locals())
        places = list(root) if isinstance(root, Mapping) else []
        self._roots = [
            (host, prefix, made_root(given, f"root: {places[i]!r}" if len(places) > 1 else "root"))
            for i, (host, prefix, given) in enumerate(self._options.root or ())
        ]
        self._log: LogWriter | None = None
        self._routes: dict[str, dict[str, Any]] = {}
        self._handlers: list[Handler] = []
        self._runner: Runner | None = None
        self._site: Site | None = None
        self._thread: threading.Thread | None = None
        self._ports: list[int] = []
        self._handed_in: list[str] = []          # where sockets that were handed in are found
        times = self._options.export("shutdown_timeout", "drain")
        self._stop_ms: tuple[int, int] = times["shutdown_timeout_ms"], times["drain_ms"]
        self._goodbyes: list[Callable[[], Any]] = []
        self._owner = 0  # the process that listens: a fork of it must leave its sockets and its log alone
        self._listening = self._running = False

    @RouteOptions.takes_aliases
    @RouteOptions.documents
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
        max_send_queue: int = 1 << 20,
        when_slow: str = "close",
        compression: str | None = None,
        window_bits: int = 15,
        memory_level: int = 8,
        max_backlog: int | None = None,
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
        1006 if the connection broke; reason is the peer's, or ours, "" if none was given. A handler that raises is
        logged, and its connection closes with 1011; `Closed`, once that connection is closing, ends it quietly.

        Under ``async with server`` all but on_upgrade may be coroutine functions, or return what can be awaited. Each
        connection's calls then run one after another. While 16 wait, the client is not read from: with the one that
        runs, up to 17 times max_message are held for it. What came before the client's Close is still handled, for up
        to shutdown_timeout seconds. When the connection breaks or the server stops, the call that runs is cancelled
        and those that wait are dropped, as they are when the handler closes. on_close comes last. In a coroutine of
        the server's loop ``await ws.send(message)`` waits until at most half of max_send_queue is left to send; what
        ws.send() returns in another thread is done at once, so see ws.buffered there.

        path: the URL path, ``"/echo"``.
        {RouteOptions}

        Raises ValueError or TypeError for an argument that can't be right, RuntimeError if the server listens already.
        """
        self._check_stopped("add a route to")
        path = checked_route(path, self._routes)
        route: dict[str, Any] = {"handler": None, "options": RouteOptions(locals()).export()}
        checked_durations(route["options"], [each["options"] for each in self._routes.values()])
        if handler is not None:
            route["handler"] = methods_of(handler)
        self._routes[path] = route

        def decorate(handler: _H) -> _H:
            self._check_stopped("add a handler to")
            if route["handler"] is not None:
                raise ValueError(f"path: {path!r} has a handler already")
            route["handler"] = methods_of(handler)
            return handler

        return decorate

    def on_drain_start(self, goodbye: _G) -> _G:
        """Adds a function that is called, without arguments, when the server stops, so that clients can be told in the
        application's own words: once the listeners are closed, and before the first WebSocket is. Several are called in
        the order in which they were added. A decorator::

            @server.on_drain_start
            def goodbye():
                server.publish("all", '{"type": "restart", "back_in": 5}')

        What it publishes and sends arrives before the Close. Under ``async with server`` it may be a coroutine function
        or return what can be awaited: WebSockets are closed when all have ended, or after half of `drain`, a second at
        least, when they are cancelled. A plain function runs on the server's thread, and holds it up. What is raised is
        logged.

        Raises TypeError for what can't be called without arguments, RuntimeError if the server listens already.
        """
        self._check_stopped("add on_drain_start to")
        if not callable(goodbye):
            raise TypeError(f"on_drain_start: {goodbye!r} is no function")
        check_parameters("on_drain_start: the function", goodbye, ())
        self._goodbyes.append(goodbye)
        return goodbye

    def publish(self, topic: str, message: str | bytes | bytearray | memoryview) -> None:
        """Sends a message to every WebSocket that is subscribed to a topic. May be called from any thread; one that
        publishes faster than the server can send is slowed down.

        Raises RuntimeError if the server does not run, or not in this process; TypeError for what is no message.
        """
        self._running_site().publish(topic, message)

    def subscribers(self, topic: str) -> int:
        """How many WebSockets are subscribed to a topic. May be called from any thread."""
        return self._running_site().subscribers(topic)

    @property
    def ports(self) -> list[int]:
        """The TCP ports, in the order given; while the server listens, the real ones in place of 0, and then those of
        `sockets`."""
        return list(self._ports or self._options.ports)

    def listen(self) -> None:
        """Opens the ports, so that clients can connect and wait. run() and `with` do it themselves if it has not been
        done; do it first to learn the real ports, or to give up privileges before serving.

        Raises OSError where a port can't be had, ValueError for `sockets` that can't be listened on, RuntimeError if
        the server listens already, or its sockets were closed with a run before.
        """
        self._check_stopped("start")
        if self._handed_in:
            raise RuntimeError("the sockets that were handed in were closed at the end of the first run")
        site = self._made()
        with contextlib.ExitStack() as undo:
            options = self._options
            listeners, ports = opened(undo, options.host, options.ports, options.unix, options.unix_mode)
            given = handed_in(undo, _named(options.sockets))
            ports += [port for each in given for port in port_of(each)]
            handed = [place_of(each) for each in given]
            log = None
            if options.access_log is not None:
                log = _log_writer(site, options.access_log, options.access_log_format == "json")
                undo.callback(log.close)
            for listener in [*listeners, *given]:
                site.listen(listener.fileno(), listener in given)
                listener.detach()
            undo.pop_all()
        self._site, self._ports, self._listening, self._owner = site, ports, True, os.getpid()
        self._handed_in, self._log = handed, log

    def run(self) -> None:
        """Serves until SIGINT or SIGTERM, or until another thread calls stop().

        The first signal has the server drain; a second one cuts that short with KeyboardInterrupt. Outside the main
        thread, where Python has no signals, only stop() ends it.

        SIGUSR1 opens the access log's file anew; without a log it does nothing, unless it has a handler. A signal for
        which a program that embeds Python has a handler of its own, in C, is left to it.

        Raises OSError where a port can't be had, RuntimeError if the server runs already, or if this process is a fork
        of the one that called listen().
        """
        site = self._start()
        try:
            with self._signals(site):
                site.run()
        finally:
            self._close()

    def stop(self) -> None:
        """Ends run() as a first signal would. May be called from any thread, and when nothing runs."""
        if self._site is not None and self._owner == os.getpid():
            self._site.shutdown(*self._stop_ms)

    def reopen_log(self) -> None:
        """Opens the access log's file anew, as after a rename (logrotate), within a quarter of a second. If that fails
        the old one stays in use. May be called from any thread and from signal handlers, and when there is no log.
        """
        log = self._log
        if log is not None:
            log.reopen()

    def _pulse(self) -> int:
        """How many iterations its event loop has made; if it is alive, it makes another."""
        assert self._site is not None
        self._site.wake()
        return int(self._site.counters()["iterations"])

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
        self._runner = Runner(loop, self._start(coroutines=True), self._handlers, self._options.shutdown_timeout,
                              self._options.drain)
        self._runner.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._runner is not None
        self.stop()
        try:
            if self._owner == os.getpid():
                await self._runner.finish()
        finally:
            self._close()

    # -- starting and stopping --

    def _made(self) -> Site:
        """A site with all that was configured, and no listeners yet."""
        types = mimetypes.MimeTypes().types_map[True] | TYPES | (self._options.mime_types or {})
        by_name = ServerOptions.options["mime_types"].kind.export(types)
        site = Site(
            **self._options.export(
                "head_timeout", "keep_alive_timeout", "write_timeout", "cache_files", "cache_bytes"
            ),
            drain_code=self._options.drain_code,
            mime_types=by_name | {None: self._options.export("default_type")["default_type"]},
            listing=Listings().page,
        )
        for host, prefix, root in self._roots:
            root._mount(site, host, prefix)
        site.goodbyes = self._goodbyes
        self._handlers = []
        for path, route in self._routes.items():
            methods = route["handler"]
            handler = None
            if methods is not None:
                handler = Handler(**methods, queued=has_coroutines(methods))
                self._handlers.append(handler)
            site.route(path.encode(), handler, **route["options"])
        return site

    def _check(self) -> None:
        """What listen() would do, as far as that can be known without it. Raises OSError and ValueError like it."""
        for host in self._options.host:
            addresses(host, 0)
        for path in self._options.unix:
            _check_writable("unix", os.path.dirname(path) or ".")
            try:
                check_free(path)
            except OSError as error:
                raise OSError(error.errno, f"unix: {error.strerror}", path) from None
        log = self._options.access_log
        if log is not None and log != "-":
            _check_writable("access_log", log if os.path.exists(log) else os.path.dirname(log) or ".")
        self._made()

    def _has_coroutines(self) -> bool:
        return any(map(inspect.iscoroutinefunction, self._goodbyes)) or any(
            has_coroutines(route["handler"] or {}) for route in self._routes.values()
        )

    def _check_process(self) -> None:
        if self._listening and self._owner != os.getpid():
            raise RuntimeError(
                f"this server listens in process {self._owner}, of which this one is a fork: call listen() and run() in"
                " the same process; after os.fork(), make a Server in each"
            )

    def _check_stopped(self, verb: str) -> None:
        self._check_process()
        if self._listening:
            raise RuntimeError(f"cannot {verb} a server that is listening already")

    def _running_site(self) -> Site:
        self._check_process()
        ended = self._thread is not None and not self._thread.is_alive()
        if self._site is None or not self._running or ended:
            raise RuntimeError(
                "this server is not running: publish while run(), `with server` or `async with server` serves"
            )
        return self._site

    def _start(self, coroutines: bool = False) -> Site:
        self._check_process()
        if self._running:
            raise RuntimeError("this server is running already")
        if not coroutines:
            for path, route in self._routes.items():
                if has_coroutines(route["handler"] or {}):
                    raise RuntimeError(f"the handler of {path!r} has coroutine functions: use `async with server`")
            if any(map(inspect.iscoroutinefunction, self._goodbyes)):
                raise RuntimeError("on_drain_start has a coroutine function: use `async with server`")
        if not self._listening:
            self.listen()
        assert self._site is not None
        self._running = True
        return self._site

    def _close(self) -> None:
        self._ports, self._listening, self._running, self._runner = [], False, False, None
        log, self._log = self._log, None
        if self._owner != os.getpid():
            return
        if log is not None:
            log.close()
        for path in self._options.unix:
            with contextlib.suppress(OSError):
                os.unlink(path)

    @contextlib.contextmanager
    def _signals(self, site: Site) -> Iterator[None]:
        """SIGINT, SIGTERM and SIGUSR1 do as run() says; whatever was there before is put back, whatever fails."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        asked = False

        def stop(number: int, frame: FrameType | None) -> None:
            nonlocal asked
            if asked:
                raise KeyboardInterrupt
            asked = True
            site.shutdown(*self._stop_ms)

        with contextlib.ExitStack() as restore:

            def handle(number: int, handler: Callable[[int, FrameType | None], None]) -> None:
                before = signal.getsignal(number)
                if before is not None:  # or it is of C, by whoever embeds Python, and could not be put back
                    restore.callback(signal.signal, number, before)
                    signal.signal(number, handler)

            # Python runs signal handlers between bytecodes, and run() executes none: a byte on this pair calls it back.
            ours, pythons = (restore.enter_context(end) for end in socket.socketpair())
            ours.setblocking(False)
            pythons.setblocking(False)
            site.watch_signals(ours.fileno())
            restore.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False))
            handle(signal.SIGINT, stop)
            handle(signal.SIGTERM, stop)
            # Without a log, too: logrotate sends it to whatever runs, and its default is death.
            if self._log is not None or signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:
                handle(signal.SIGUSR1, lambda number, frame: self.reopen_log())
            yield


def _serve(site: Site) -> None:
    """What the thread of `with server` does."""
    try:
        site.run()
    except (KeyboardInterrupt, SystemExit):
        logging.getLogger("c1m").exception("a handler ended the server")


def _named(sockets: Iterable[socket.socket | int | str]) -> Iterator[tuple[socket.socket | int, str]]:
    """The sockets, with those of systemd in place of that word, and a name for errors or ""."""
    for each in sockets:
        if not isinstance(each, str):
            yield each, ""
            continue
        try:
            found = systemd.take_sockets()
        except ValueError as error:
            raise ValueError(f"sockets: {error}") from None
        yield from ((fd, f"{name or 'one'} of systemd (descriptor {fd})") for fd, name in found)


def _check_writable(name: str, path: str) -> None:
    if not os.access(path, os.W_OK):
        error = errno.EACCES if os.path.exists(path) else errno.ENOENT
        raise OSError(error, f"{name}: {os.strerror(error)}", path)


def _log_writer(site: Site, path: str, as_json: bool) -> LogWriter:
    # The thread may not keep alive a site that was dropped without its end.
    reference = weakref.ref(site)

    def take() -> bytes | None:
        site = reference()
        return None if site is None else site.log_take()

    def lost(lines: int) -> None:
        site = reference()
        if site is not None:
            site.log_lost(lines)

    site.log_to_memory(as_json)
    try:
        return LogWriter(take, lost, path)
    except OSError as error:
        unread = error.errno == errno.ENXIO and stat.S_ISFIFO(os.stat(path).st_mode)
        problem = "nobody reads this pipe" if unread else os.strerror(error.errno or 0)
        raise OSError(error.errno, f"access_log: {problem}", path) from None
