"""The Python API: a server and its routes, how it starts, stops and meets signals. What its options may be is
`c1m.options`' to say, what they do `c1m.site`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import importlib
import inspect
import logging
import mimetypes
import os
import signal
import socket
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
from c1m.logwriter import opened as log_opened
from c1m.mediatypes import TYPES
from c1m.options import RouteOptions, ServerOptions, checked_durations, checked_route
from c1m.root import Root, made_root
from c1m.runner import Runner
from c1m.shared import Shared
from c1m.site import Site
from c1m.websocket import Handler
from c1m.workers import Post, Supervisor, cpus, reason

__all__ = ["Server"]

_H = TypeVar("_H")
_Hook = TypeVar("_Hook", bound=Callable[[], Any])
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

    run() has as many processes as `workers` says, which it forks: docs/workers.md tells what they share.

    Under ``async with`` signals are the caller's to handle: asyncio.run() makes SIGINT cancel the main task, and
    SIGTERM ends the process. At the end coroutines have what is left of shutdown_timeout, or a second; then they are
    cancelled, and after another second given up.

    However it is stopped, it drains first: the listeners close; responses that are under way are finished, and no other
    begun on their connections; idle connections close; what `on_drain_start` has is called; then WebSockets are sent a
    Close with drain_code, one after another over up to `drain` seconds, and what is published meanwhile still reaches
    those whose turn has not come. shutdown_timeout seconds after the last of them whatever is left is cut off.

    listen(), which each of the three does first, changes the process, and nothing changes it back: the soft limit of
    open files (RLIMIT_NOFILE) becomes the hard one, so that descriptors may be over the 1023 that select(2) knows;
    glibc's malloc keeps large freed blocks for the next (mallopt); and SIGPIPE is ignored, as Python has it from the
    start, where its default would end the process. A server runs in the process that called listen(): a fork of it
    can't, and its end leaves the sockets and the log alone; the workers of run() are forks, too, but the server's own.
    """

    def __init__(
        self,
        root: _Path | Root | Mapping[str, _Path | Root] | None = None,
        ports: int | Iterable[int] | None = None,
        *,
        host: str | Iterable[str] = "127.0.0.1",
        unix: _Path | Iterable[_Path] = (),
        unix_mode: int | None = None,
        proxy_protocol: str | Iterable[str] = (),
        trusted_proxies: str | Iterable[str] = (),
        forwarded: str = "x-forwarded-for",
        max_connections: int | None = None,
        max_connections_per_address: int | None = None,
        max_upgrades_per_address: int | None = None,
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
        publish_buffer: int = 16 << 20,
        access_log: _Path | None = None,
        access_log_format: str = "combined",
        workers: int | str = 1,
        pin: bool = False,
        loop: str | None = None,
    ) -> None:
        self._options = ServerOptions(locals())
        places = list(root) if isinstance(root, Mapping) else []
        self._roots = [
            (host, prefix, made_root(given, f"root: {places[i]!r}" if len(places) > 1 else "root"))
            for i, (host, prefix, given) in enumerate(self._options.root or ())
        ]
        self._log: LogWriter | None = None
        self._log_fd = -1                    # which workers begin with; -1 where there are none, or no log
        self._on_start: list[Callable[[], Any]] = []
        self._on_stop: list[Callable[[], Any]] = []
        self._routes: dict[str, dict[str, Any]] = {}
        self._handlers: list[Handler] = []
        self._runner: Runner | None = None
        self._site: Site | None = None       # this process's: a supervisor has none
        self._shared: Shared | None = None
        self._supervisor: Supervisor | None = None
        self._tcp: list[list[socket.socket]] = []        # the listeners that a supervisor is to have
        self._for_all: list[socket.socket] = []          # and those from which all accept in turns,
        self._not_ours: list[socket.socket] = []         # some of which others may have
        self._told: Callable[[str], None] = lambda what: None    # what it does then, for `c1m serve`
        self._thread: threading.Thread | None = None
        self._ports: list[int] = []
        self._handed_in: list[str] = []          # where sockets that were handed in are found
        times = self._options.export("shutdown_timeout", "drain")
        self._stop_ms: tuple[int, int] = times["shutdown_timeout_ms"], times["drain_ms"]
        self._goodbyes: list[Callable[[], Any]] = []
        self._post: Post | None = None       # a worker's
        self._count = 0                      # of workers, while it listens
        self._stop_asked = False             # before there was anyone to stop
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
        topics: str | Iterable[str] = (),
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

        Under run() and ``async with server`` all but on_upgrade may be coroutine functions, or return what can be
        awaited; run() has an event loop where there is a coroutine function, or where the server's `loop` says so. Each
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

    def on_start(self, function: _Hook) -> _Hook:
        """A decorator: calls a function without arguments before this process accepts connections, in each worker by
        itself. Of several the first added is the first called. Coroutine functions run in the loop of handlers'
        coroutines, under run() and ``async with server``.

        What it raises ends that worker, which is logged, and tried anew. With one worker run() raises it, as `with`
        does.
        """
        return self._add_hook("on_start", self._on_start, function)

    def on_stop(self, function: _Hook) -> _Hook:
        """The same after the last connection has ended, be it by SystemExit or a second signal, if on_start has
        succeeded."""
        return self._add_hook("on_stop", self._on_stop, function)

    def on_drain_start(self, function: _Hook) -> _Hook:
        """Adds a function that is called, without arguments, when the server stops, so that clients can be told in the
        application's own words: once the listeners are closed, and before the first WebSocket is. Several are called in
        the order in which they were added. A decorator::

            @server.on_drain_start
            def goodbye():
                server.publish("all", '{"type": "restart", "back_in": 5}', here=True)

        What it publishes and sends arrives before the Close. In a loop, under run() and ``async with server``,
        it may be a coroutine function or return what can be awaited: WebSockets are closed when all have ended, or
        after half of `drain`, a second at least, when they are cancelled. A plain function runs on the server's thread,
        and holds it up. With several workers each calls it when it ends, at a reload, too: publish with `here`, or
        every client hears it from all of them. What is raised is logged.

        Raises TypeError for what can't be called without arguments, RuntimeError if the server listens already.
        """
        return self._add_hook("on_drain_start", self._goodbyes, function)

    def publish(self, topic: str, message: str | bytes | bytearray | memoryview, *, here: bool = False) -> None:
        """Sends a message to every WebSocket that is subscribed to a topic. May be called from any thread; one that
        publishes faster than the server can send is slowed down. Where several processes serve, those of all get it;
        what one process publishes comes in that order to each. With `here` only those of this process get it, as for a
        goodbye that each process says to its own clients; a supervisor has none.

        Raises RuntimeError if the server does not run, or not in this process; TypeError for what is no message; where
        several processes serve, ValueError for one that takes more than a quarter of publish_buffer.
        """
        everyone = self._everyone()
        if not here:
            everyone.publish(topic, message)
        elif self._site is not None:
            self._site.publish(topic, message, True)

    def subscribers(self, topic: str) -> int:
        """How many WebSockets are subscribed to a topic, in all processes that serve. May be called from any thread.

        A process with more than 98,304 topics can't tell the others of those that were too many.
        """
        return self._everyone().subscribers(topic)

    @property
    def ports(self) -> list[int]:
        """The TCP ports, in the order given; while the server listens, the real ones in place of 0, and then those of
        `sockets`."""
        return list(self._ports or self._options.ports)

    @property
    def workers(self) -> int:
        """How many processes serve under run()."""
        return self._count or (cpus() if self._options.workers == "auto" else int(self._options.workers))

    def listen(self) -> None:
        """Opens the ports, so that clients can connect and wait. run() and `with` do it themselves if it has not been
        done; do it first to learn the real ports, or to give up privileges before serving.

        Raises OSError where a port can't be had, ValueError for `sockets` that can't be listened on, RuntimeError if
        the server listens already, or its sockets were closed with a run before.
        """
        self._check_stopped("start")
        if self._handed_in:
            raise RuntimeError("the sockets that were handed in were closed at the end of the first run")
        options = self._options
        self._count, self._stop_asked = 0, False
        workers = self._count = self.workers             # from now on, whatever becomes of the CPUs
        site = self._made()                  # with several workers, for what it raises, and for what all then have
        with contextlib.ExitStack() as undo:
            tcp, unix, ports = opened(undo, options.host, options.ports, options.unix, options.unix_mode, workers)
            given = handed_in(undo, _named(options.sockets))
            ports += [port for each in given for port in port_of(each)]
            handed = [place_of(each) for each in given]
            log = -1 if options.access_log is None else log_opened(options.access_log)
            if log >= 0:
                undo.callback(os.close, log)
            if workers == 1:
                for listener in (*tcp[0], *unix, *given):
                    site.listen(listener.fileno(), shared=listener in given)
                    listener.detach()
                if log >= 0:
                    self._log = self._log_writer(site, log)
                self._site, self._shared = site, None
            else:
                # A predecessor and its successor have a seat each.
                self._site, self._shared = None, Shared(2 * workers + 2, options.publish_buffer)
                self._tcp, self._for_all, self._not_ours, self._log_fd = tcp, [*unix, *given], given, log
            undo.pop_all()
        self._ports, self._listening, self._owner = ports, True, os.getpid()
        self._handed_in = handed

    def run(self) -> None:
        """Serves until SIGINT or SIGTERM, or until another thread calls stop().

        With several workers this process becomes their supervisor, which serves nobody itself: it replaces those that
        die, at SIGHUP all, one after another, and ends all at once at SIGQUIT. See docs/workers.md.

        The first signal has the server drain; a second one cuts that short with KeyboardInterrupt. Outside the main
        thread, where Python has no signals, only stop() ends it.

        SIGUSR1 opens the access log's file anew; without a log it does nothing, unless it has a handler. A signal for
        which a program that embeds Python has a handler of its own, in C, is left to it.

        Raises OSError where a port can't be had, RuntimeError if the server runs already, or if this process is a fork
        of the one that called listen().
        """
        if asyncio._get_running_loop() is not None and not self._running:
            raise RuntimeError("run() would hold up the event loop of this thread: use `async with server`")
        self._start()
        try:
            if self._site is None:
                self._supervise()
            else:
                self._serve(self._site)
        finally:
            self._close()

    def stop(self) -> None:
        """Ends run() as a first signal would; in a worker, that worker. May be called from any thread, and when nothing
        runs."""
        if self._owner != os.getpid():
            return
        if self._site is not None:
            self._site.shutdown(*self._stop_ms)
            if self._post is not None:
                self._post.say("left")
        elif self._supervisor is not None:
            self._supervisor.stop()
        elif self._listening:
            self._stop_asked = True

    def reopen_log(self) -> None:
        """Opens the access log's file anew, as after a rename (logrotate), within a quarter of a second. If that fails
        the old one stays in use. May be called from any thread and from signal handlers, and when there is no log.
        """
        log = self._log
        if log is not None:
            log.reopen()
        elif self._supervisor is not None:
            self._supervisor.reopen_logs()

    def _pulse(self) -> int:
        """How many iterations its event loop, or its supervisor's, has made; if it is alive, it makes another."""
        supervisor, site = self._supervisor, self._site
        if supervisor is not None:
            return supervisor.pulse()
        if site is None:         # all workers have ended
            return 0
        site.wake()
        return int(site.counters()["iterations"])

    def stats(self) -> dict[str, Any]:
        """The counters of the server that runs, or ran last: connections, requests, bytes, cached files and so on.

        With workers, in each of them and in the process that called run(), the sums of all, those that have died
        included, and each living one's in a list as `workers`. Raises RuntimeError if it has never run.
        """
        if self._shared is not None:
            return self._shared.stats()
        if self._site is None:
            raise RuntimeError("this server has not run yet")
        return self._site.counters()

    def __enter__(self) -> Server:
        site = self._start_alone("with")
        try:
            for hook in self._on_start:
                hook()
        except BaseException as error:
            self._abandon(site, error)
            raise
        self._thread = threading.Thread(target=_serve, args=(site,), name="c1m", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        try:
            if self._owner == os.getpid():
                for hook in self._on_stop:
                    hook()
        finally:
            self._close()

    async def __aenter__(self) -> Server:
        """Serves inside the running asyncio loop, which watches the reactor's descriptor."""
        loop = asyncio.get_running_loop()  # raises, where there is none, before anything is opened
        site = self._start_alone("async with")
        self._runner = Runner(loop, site, self._handlers, self._options.shutdown_timeout, self._options.drain)
        try:
            await _called(self._on_start)
        except BaseException as error:
            self._abandon(site, error)
            raise
        self._runner.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._runner is not None
        self.stop()
        try:
            if self._owner == os.getpid():
                try:
                    await self._runner.finish()
                finally:
                    await _called(self._on_stop)
        finally:
            self._close()

    # -- the process that serves --

    def _serve(self, site: Site) -> None:
        """Serves in this thread until the end, alone or as a worker."""
        loop = self._options.loop or ("asyncio" if self._coroutines() else None)
        if loop is None:
            with self._signals(site):
                try:
                    for hook in self._on_start:
                        hook()
                except BaseException as error:
                    self._abandon(site, error)
                    raise
                try:
                    if self._post is not None:
                        self._post.attend(site, self.stop, self.reopen_log)
                    site.run()
                finally:
                    for hook in self._on_stop if self._owner == os.getpid() else ():     # or a handler has forked
                        hook()
            return
        cut: list[bool] = []
        with asyncio.Runner(loop_factory=importlib.import_module(loop).new_event_loop) as runner:
            try:
                runner.run(self._serve_in_loop(site, cut))
            except asyncio.CancelledError:
                if cut:
                    raise KeyboardInterrupt from None
                raise

    async def _serve_in_loop(self, site: Site, cut: list[bool]) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def cut_short() -> None:
            cut.append(True)
            loop.call_soon_threadsafe(task.cancel)

        self._runner = Runner(loop, site, self._handlers, self._options.shutdown_timeout, self._options.drain)
        with self._signals(site, cut_short):
            try:
                await _called(self._on_start)
            except BaseException as error:
                self._abandon(site, error)
                raise
            try:
                if self._post is not None:
                    self._post.attend(site, self.stop, self.reopen_log)
                self._runner.start()
                await self._runner.finish()
            finally:
                if self._owner == os.getpid():
                    await _called(self._on_stop)

    def _abandon(self, site: Site, error: BaseException) -> None:
        """on_start has raised: nobody is served."""
        if self._post is not None:
            self._post.say(f"fails on_start raised {reason(error)}")
            self._post.failed = True
        self._runner = None
        site.stop()
        while site.iterate() is not None:
            pass
        if self._post is None:
            self._close()

    # -- workers --

    def _supervise(self) -> None:
        assert self._shared is not None
        if self._options.loop or self._coroutines():
            importlib.import_module(self._options.loop or "asyncio")         # once for all
        self._supervisor = Supervisor(
            self._tcp, self._for_all, self._shared, self._work,
            grace=self._options.drain + self._options.shutdown_timeout, pin=self._options.pin,
            reopen=self._reopen_own_log, not_ours=self._not_ours, told=self._told,
        )
        if self._stop_asked:                 # since listen()
            self._supervisor.stop()
        try:
            self._supervisor.run()
        finally:
            if self._owner == os.getpid():
                self._supervisor = None

    def _work(self, post: Post) -> int:
        """What a worker does, from its fork to its end; returns its exit status."""
        supervisor, self._supervisor = self._supervisor, None
        assert supervisor is not None
        self._owner = os.getpid()
        self._post = post
        site = self._site = self._made(self._shared, post.seat)
        if self._log_fd >= 0:
            self._log = self._log_writer(site, os.dup(self._log_fd), supervisor.turns)
        try:
            self._serve(site)
        except SystemExit as error:
            return error.code if isinstance(error.code, int) else int(error.code is not None)
        except Exception:
            if not post.failed:
                raise
            return 1             # the supervisor says why
        finally:
            if self._log is not None:
                self._log.close()
        return 0

    def _reopen_own_log(self) -> None:
        """That which the next workers begin with. If it can't be opened the old one stays in use."""
        if self._log_fd >= 0 and self._options.access_log is not None:
            with contextlib.suppress(OSError):
                fresh = log_opened(self._options.access_log)
                os.close(self._log_fd)
                self._log_fd = fresh

    # -- starting and stopping --

    def _add_hook(self, name: str, hooks: list[Callable[[], Any]], function: _Hook) -> _Hook:
        self._check_stopped(f"add {name} to")
        if not callable(function):
            raise TypeError(f"{name}: {function!r} is no function")
        check_parameters(f"{name}: the function", function, ())
        hooks.append(function)
        return function

    def _made(self, shared: Shared | None = None, seat: int = -1) -> Site:
        """A site with all that was configured, and no listeners yet."""
        site = Site(
            **self._options.export(
                "head_timeout", "keep_alive_timeout", "write_timeout", "cache_files", "cache_bytes", "proxy_protocol",
                "trusted_proxies", "forwarded",
            ),
            **self._shares(),
            drain_code=self._options.drain_code,
            mime_types=self._media_types,
            listing=Listings().page,
            shared=shared,
            seat=seat,
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

    def _shares(self) -> dict[str, Any]:
        """Of the limits that count clients, what one of the processes lets in; together not less than was asked for."""
        limits = ("max_connections", "max_connections_per_address", "max_upgrades_per_address")
        workers = self.workers
        return {name: most and -(-most // workers) for name, most in self._options.export(*limits).items()}

    @functools.cached_property
    def _media_types(self) -> dict[bytes | None, tuple[bytes, bool]]:
        """As a site takes them. Once for all workers, for they take some room."""
        types = mimetypes.MimeTypes().types_map[True] | TYPES | (self._options.mime_types or {})
        by_name = ServerOptions.options["mime_types"].kind.export(types)
        return {**by_name, None: self._options.export("default_type")["default_type"]}

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

    def _coroutines(self) -> list[str]:
        """What has coroutine functions, in words."""
        hooks = {"on_start": self._on_start, "on_drain_start": self._goodbyes, "on_stop": self._on_stop}
        return [
            *(f"the handler of {path!r}" for path, each in self._routes.items()
              if has_coroutines(each["handler"] or {})),
            *(name for name, functions in hooks.items() if any(map(inspect.iscoroutinefunction, functions))),
        ]

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

    def _everyone(self) -> Site | Shared:
        """What reaches the subscribers in all processes: from one that serves, or from the one that has started those.
        """
        self._check_process()
        ended = self._thread is not None and not self._thread.is_alive()
        if self._supervisor is not None and self._shared is not None:
            return self._shared
        if self._site is None or not self._running or ended:
            raise RuntimeError(
                "this server is not running: publish while run(), `with server` or `async with server` serves"
            )
        return self._site

    def _start(self) -> None:
        self._check_process()
        if self._running:
            raise RuntimeError("this server is running already")
        if not self._listening:
            self.listen()
        self._running = True

    def _start_alone(self, statement: str) -> Site:
        """For `with` and `async with`."""
        if self._options.workers != 1:
            raise RuntimeError(
                f"workers: {self._options.workers!r} are asked for, but `{statement} server` serves in this process"
                " alone: use run(), or workers=1"
            )
        if statement == "with" and self._coroutines():
            raise RuntimeError(f"{self._coroutines()[0]} has a coroutine function: use run() or `async with server`")
        self._start()
        assert self._site is not None
        return self._site

    def _close(self) -> None:
        self._ports, self._listening, self._running, self._runner = [], False, False, None
        self._count, self._stop_asked = 0, False
        log, self._log = self._log, None
        if self._owner != os.getpid():
            return
        if log is not None:
            log.close()
        if self._log_fd >= 0:
            os.close(self._log_fd)
            self._log_fd = -1
        for path in self._options.unix:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def _log_writer(self, site: Site, fd: int, turn: int | None = None) -> LogWriter:
        # The thread may not keep alive a site that was dropped without its end.
        reference = weakref.ref(site)

        def take() -> bytes | None:
            site = reference()
            return None if site is None else site.log_take()

        def lost(lines: int) -> None:
            site = reference()
            if site is not None:
                site.log_lost(lines)

        site.log_to_memory(self._options.access_log_format == "json")
        return LogWriter(take, lost, self._options.access_log or "-", fd, turn)

    @contextlib.contextmanager
    def _signals(self, site: Site, cut_short: Callable[[], None] | None = None) -> Iterator[None]:
        """SIGINT, SIGTERM and SIGUSR1 do as run() says; whatever was there before is put back, whatever fails. In a
        worker SIGINT is the supervisor's. cut_short: what a second signal does, if that is not to raise
        KeyboardInterrupt.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        asked = False

        def stop(number: int, frame: FrameType | None) -> None:
            nonlocal asked
            if not asked:
                asked = True
                self.stop()
            elif cut_short is None:
                raise KeyboardInterrupt
            else:
                cut_short()

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
            site.attend(ours.fileno(), lambda: _emptied(ours))
            restore.callback(site.unattend, ours.fileno())
            restore.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False))
            if self._post is None:
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


def _emptied(signalled: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while signalled.recv(4096):
            pass


def _check_writable(name: str, path: str) -> None:
    if not os.access(path, os.W_OK):
        error = errno.EACCES if os.path.exists(path) else errno.ENOENT
        raise OSError(error, f"{name}: {os.strerror(error)}", path)


async def _called(hooks: Iterable[Callable[[], Any]]) -> None:
    for hook in hooks:
        result = hook()
        if inspect.isawaitable(result):
            await result
