"""Runs the reactor inside an asyncio loop, and the coroutines of handlers beside it."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Any

from c1m.site import Site
from c1m.websocket import Handler, WebSocket

log = logging.getLogger("c1m")

_WAITING_MOST = 16
"""Calls that wait for one connection's handler before its input is paused."""
_MOMENT = 1.0
"""Seconds that coroutines have to end when the server has stopped, and again once cancelled for it."""

_Call = tuple[Callable[..., Any] | None, tuple[Any, ...]]


class _Queue:
    """One connection's calls: a task makes them one after another, on_close last, until none waits."""

    def __init__(self) -> None:
        self.calls: deque[_Call] = deque()
        self.last: _Call | None = None
        self.on_close: _Call | None = None  # where that is the first call
        self.begun = False      # the task has had its first step: a task that is cancelled before never calls anything
        self.cancelled = False  # by us
        self.task: asyncio.Task[None]

    def next(self, ws: WebSocket) -> _Call | None:
        if ws._over:
            self.calls.clear()
        if not self.calls:
            last, self.last = self.last, None
            return last
        call = self.calls.popleft()
        if len(self.calls) == _WAITING_MOST // 2:
            ws._set_paused(False)
        return call

    def cut(self) -> None:
        """Nothing but on_close is of use any more; if that has not begun, it comes now."""
        if not self.begun and not self.task.done():
            asyncio.get_running_loop().call_soon(self.cut)
            return
        self.calls.clear()
        if self.last is not None:
            self.cancel()

    def cancel(self) -> None:
        self.cancelled = True
        self.task.cancel()


class Runner:
    """One reactor in the running loop. The loop watches the reactor's epoll descriptor, which is readable when an
    iteration has something to do, and is woken for the reactor's deadlines.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, site: Site, handlers: list[Handler], grace: float
    ) -> None:
        self._loop = loop
        self._site = site
        self._grace = grace
        self._fd = site.fileno()
        self._fault: OSError | None = None
        self._stopped = self._loop.create_future()
        self._by: float | None = None     # when coroutines have had their time (time.monotonic())
        self._timer: asyncio.Handle | None = None
        self._due = 0.0
        self._queues: dict[WebSocket, _Queue] = {}
        for handler in handlers:
            handler.spawn = self._spawn
            handler.waiter = self._loop.create_future

    def start(self) -> None:
        self._loop.add_reader(self._fd, self._iterate)
        self._iterate()

    def shutdown(self, grace_ms: int) -> None:
        """Stops the server, as Site.shutdown() does. Any thread may."""
        if self._by is None:
            self._by = time.monotonic() + self._grace
        self._site.shutdown(grace_ms)

    async def finish(self) -> None:
        """Returns when the server has stopped, and every handler's coroutines have ended or had their time. Raises
        OSError if epoll has failed."""
        try:
            await asyncio.wait([self._stopped])
        finally:
            while not self._stopped.done():  # cancelled meanwhile: connections that are still open are cut off
                self._site.stop()
                self._iterate()
        await self._ended(max((self._by or 0.0) - time.monotonic(), _MOMENT))
        for queue in self._queues.values():
            queue.calls.clear()
            queue.cancel()
        await self._ended(_MOMENT)
        await self._ended(_MOMENT)  # on_close of those whose call had not begun
        for path, n in Counter(ws.path for ws in self._queues).items():
            log.error("%s: %d coroutines of its handler do not end, though cancelled", path, n)
        if self._fault is not None:
            raise self._fault

    async def _ended(self, seconds: float) -> None:
        """Returns when all coroutines have ended, or so many seconds have gone by."""
        tasks = [queue.task for queue in self._queues.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    def _iterate(self) -> None:
        try:
            wait = self._site.iterate()
        except OSError as error:  # epoll has failed, and everything is closed
            self._fault, wait = error, None
        if wait is None:
            self._loop.remove_reader(self._fd)
            if self._timer is not None:
                self._timer.cancel()
            if not self._stopped.done():
                self._stopped.set_result(None)
        elif wait >= 0:
            self._iterate_in(wait / 1000)
        self._site.reraise()  # SystemExit and KeyboardInterrupt end the loop, as a callback's own would

    def _iterate_in(self, seconds: float) -> None:
        """Sees to it that an iteration comes by then; one that comes sooner sets the next."""
        due = self._loop.time() + seconds
        if self._timer is not None and not self._timer.cancelled() and self._loop.time() < self._due <= due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self._loop.call_later(seconds, self._iterate) if seconds else self._loop.call_soon(self._iterate)

    # -- coroutines: each connection's calls run one after another --

    def _spawn(self, ws: WebSocket, function: Callable[..., Any] | None, arguments: tuple[Any, ...]) -> None:
        queue = self._queues.get(ws)
        if queue is not None and queue.task.done():
            self._revive(ws, queue)
            queue = self._queues.get(ws)
        if queue is None:
            queue = _Queue()
            queue.on_close = (function, arguments) if ws.closed else None
            queue.task = self._loop.create_task(self._run(ws, queue, (function, arguments)))
            if not queue.task.done():  # as one that begins at once may be (asyncio.eager_task_factory)
                self._queues[ws] = queue
                queue.task.add_done_callback(partial(self._ended_early, ws, queue))
        elif ws.closed:
            queue.last = function, arguments
            self._loop.call_later(0 if ws._over else self._grace, queue.cut)
        else:
            queue.calls.append((function, arguments))
            if len(queue.calls) >= _WAITING_MOST:
                ws._set_paused(True)

    def _ended_early(self, ws: WebSocket, queue: _Queue, task: asyncio.Task[None]) -> None:
        if self._queues.get(ws) is queue and not queue.begun:
            self._revive(ws, queue)

    def _revive(self, ws: WebSocket, queue: _Queue) -> None:
        """The task was cancelled before its first step: that fails the connection. on_close is called all the same."""
        del self._queues[ws]
        if queue.on_close is None and not queue.cancelled:
            ws._fail(asyncio.CancelledError())
        for call in (queue.on_close, *queue.calls, queue.last):
            if call is not None:
                self._spawn(ws, *call)

    async def _run(self, ws: WebSocket, queue: _Queue, call: _Call | None) -> None:
        queue.begun = True
        while call is not None:
            function, arguments = call
            try:
                result = None if function is None else function(ws, *arguments)
                if inspect.isawaitable(result):
                    await result
            except GeneratorExit:
                raise  # this coroutine is thrown away, with its loop: nothing more may be called
            except BaseException as error:
                if not (queue.cancelled and isinstance(error, asyncio.CancelledError)):
                    ws._fail(error)
            if queue.cancelled:
                queue.cancelled = False
                queue.task.uncancel()
            call = queue.next(ws)
        self._queues.pop(ws, None)
