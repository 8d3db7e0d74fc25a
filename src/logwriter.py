"""Moves the access log from the site's memory to a file, on a thread of its own."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import select
import signal
import stat
import threading
from collections.abc import Callable, Iterator

log = logging.getLogger("c1m")

_EVERY = 0.25
"""Seconds between two batches."""


_MOST = 1 << 20
"""Bytes of one write."""


def opened(path: str) -> int:
    """A descriptor that appends to a file, or to standard output for ``"-"``. Raises OSError if it can't be opened,
    which a pipe that nobody reads can't.
    """
    if path == "-":
        return os.dup(1)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    try:
        fd = os.open(path, flags | os.O_NONBLOCK, 0o644)  # or a pipe would have us wait for its reader
    except OSError as error:
        unread = error.errno == errno.ENXIO and stat.S_ISFIFO(os.stat(path).st_mode)
        problem = "nobody reads this pipe" if unread else os.strerror(error.errno or 0)
        raise OSError(error.errno, f"access_log: {problem}", path) from None
    os.set_blocking(fd, True)
    return fd


class LogWriter:
    """Writes what `take` returns to `fd`, which is its own from then on, in batches until close(), or until that
    returns None. `lost` is told how many lines could not be written. reopen() opens `path`.

    turn: a file's descriptor, by whose lock the processes that write to the same pipe or terminal take turns. In a
    file, each write of one that appends is whole (write(2)).

    A reader that stalls stalls this thread and nobody else.
    """

    def __init__(
        self, take: Callable[[], bytes | None], lost: Callable[[int], None], path: str, fd: int, turn: int | None = None
    ) -> None:
        self._take = take
        self._lost = lost
        self._torn = b""  # the rest of a line that is written in part
        self._path = path
        self._fd = fd
        self._turn = turn
        self._wake = threading.Event()
        self._closing = self._reopening = False
        self._thread = threading.Thread(target=self._run, name="c1m access log", daemon=True)
        self._thread.start()

    def reopen(self) -> None:
        """Opens the file anew, as after a rename (logrotate). May be called from a signal handler."""
        self._reopening = True   # and no more: to wake the thread takes a lock, which may be what was interrupted

    def close(self) -> None:
        """Writes the last lines and closes the file; lines that nobody takes off a pipe for two seconds are lost."""
        self._closing = True
        self._wake.set()
        self._thread.join(2)

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})  # for a pipe whose reader has gone
        try:
            self._move()
        except Exception:
            log.exception("access_log: nothing more is written to %s until the server starts anew", self._path)
        finally:
            os.close(self._fd)
            self._give_up()

    def _move(self) -> None:
        """Takes lines and writes them until close(), or until there is nothing to take them from."""
        closing = False
        while not closing:
            self._wake.wait(_EVERY)
            self._wake.clear()
            closing = self._closing
            lines = self._take()
            if lines is None:
                return
            if lines or self._torn:
                with self._in_turn():
                    self._write(lines)
            if self._reopening:
                self._reopening = False
                try:
                    fresh = opened(self._path)
                except OSError:
                    continue  # better in the old file than nowhere
                os.close(self._fd)
                self._fd = fresh
                self._give_up()

    def _write(self, lines: bytes) -> None:
        lines = self._torn + lines
        torn, written = self._torn != b"", 0
        while written < len(lines):
            try:
                whole = lines.rfind(b"\n", written, written + _MOST) + 1 or written + _MOST
                written += os.write(self._fd, memoryview(lines)[written:whole])
                torn = lines[written - 1] != ord("\n")
            except BlockingIOError:
                self._wait()
            except OSError:
                break  # the disk is full or the reader has gone: these lines are lost, the next may not be
        end = lines.index(b"\n", written) + 1 if torn else written
        self._torn = lines[written:end]  # goes before the next, so that the file has whole lines
        self._lost(lines.count(b"\n", end))

    @contextlib.contextmanager
    def _in_turn(self) -> Iterator[None]:
        if self._turn is None or stat.S_ISREG(os.fstat(self._fd).st_mode):
            yield
            return
        fcntl.lockf(self._turn, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._turn, fcntl.LOCK_UN)

    def _wait(self) -> None:
        """Returns when the file takes more, or has failed. By poll(2), for select(2) knows no descriptor over 1023."""
        writable = select.poll()
        writable.register(self._fd, select.POLLOUT)
        writable.poll()

    def _give_up(self) -> None:
        """Where the rest of a line belongs nothing more will be written."""
        self._lost(self._torn.count(b"\n"))
        self._torn = b""
