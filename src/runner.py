"""Runs the reactor inside an asyncio loop, and the coroutines of handlers beside it."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable
from typing import Any

from c1m.site import Handler, Site, WebSocket

_WAITING_MOST = 16
"""Calls that wait for one connection's handler before its input is paused."""

_Call = tuple[Callable[..., Any], tuple[Any, ...]]


class Runner:
    """One reactor in the running loop. The loop watches the reactor's epoll descriptor, which is readable when a turn
    has something to do, and is woken for the reactor's deadlines.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, site: Site, handlers: list[tuple[str, Handler]]
    ) -> None:
        self._site = site
        self._loop = loop
        self._left = self._loop.create_future()
        self._timer: asyncio.Handle | None = None
        self._due = 0.0
        self._calls: dict[WebSocket, deque[_Call]] = {}
        self._tasks: dict[WebSocket, asyncio.Task[None]] = {}
        self._endings: set[asyncio.Task[None]] = set()
        for _, handler in handlers:
            handler.spawn = self._spawn
            handler.waiter = self._loop.create_future

    def start(self) -> None:
        self._loop.add_reader(self._site.fileno(), self._turn)
        self._turn()

    async def finish(self) -> None:
        """Returns when the server has left, and every handler's coroutines have ended."""
        try:
            await asyncio.wait([self._left])
        finally:
            while not self._left.done():  # cancelled meanwhile: whoever is still connected is cut off
                self._site.stop()
                self._turn()
        while self._tasks or self._endings:
            await asyncio.wait([*self._tasks.values(), *self._endings])

    def _turn(self) -> None:
        wait = self._site.turn()
        if wait is None:
            self._loop.remove_reader(self._site.fileno())
            if self._timer is not None:
                self._timer.cancel()
            if not self._left.done():
                self._left.set_result(None)
        elif wait >= 0:
            self._turn_in(wait / 1000)
        self._site.reraise()  # SystemExit and KeyboardInterrupt end the loop, as a callback's own would

    def _turn_in(self, seconds: float) -> None:
        """Sees to it that a turn comes by then; one that comes sooner sets the next."""
        due = self._loop.time() + seconds
        if self._timer is not None and not self._timer.cancelled() and self._loop.time() < self._due <= due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self._loop.call_later(seconds, self._turn) if seconds else self._loop.call_soon(self._turn)

    # -- coroutines: each connection's calls run one after another --

    def _spawn(self, ws: WebSocket, function: Callable[..., Any] | None, arguments: tuple[Any, ...]) -> None:
        if ws.closed:
            self._end(ws, function, arguments)
            return
        assert function is not None
        calls = self._calls.setdefault(ws, deque())
        calls.append((function, arguments))
        if len(calls) >= _WAITING_MOST:
            ws._hold(True)
        if ws not in self._tasks:
            self._tasks[ws] = self._loop.create_task(self._run(ws, calls))

    async def _run(self, ws: WebSocket, calls: deque[_Call]) -> None:
        try:
            while calls:
                function, arguments = calls.popleft()
                if len(calls) == _WAITING_MOST // 2:
                    ws._hold(False)
                result = function(ws, *arguments)
                if inspect.isawaitable(result):
                    await result
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            calls.clear()
            ws._fail(error)
        finally:
            self._tasks.pop(ws, None)
            self._calls.pop(ws, None)

    def _end(self, ws: WebSocket, function: Callable[..., Any] | None, arguments: tuple[Any, ...]) -> None:
        """The connection has gone: what its handler is about is cancelled and awaited; then on_close is called."""
        running = self._tasks.pop(ws, None)
        self._calls.pop(ws, None)  # a task that is cancelled before it begins never gets to do so itself

        async def end() -> None:
            if running is not None:
                running.cancel()
                await asyncio.wait([running])
            if function is not None:
                try:
                    result = function(ws, *arguments)
                    if inspect.isawaitable(result):
                        await result
                except asyncio.CancelledError:
                    raise
                except BaseException as error:
                    ws._fail(error)

        task = self._loop.create_task(end())
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)
