"""Moves the access log from the site's memory to a file, on a thread of its own."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable

_EVERY = 0.25
"""Seconds between two batches."""


class LogWriter:
    """Writes what `take` returns to a file, or to standard output for ``"-"``, in batches until close().

    A reader that stalls stalls this thread and nobody else. Raises OSError if the file can't be opened.
    """

    def __init__(self, take: Callable[[], bytes], path: str) -> None:
        self._take = take
        self._path = path
        self._fd = self._open()
        self._wake = threading.Event()
        self._closing = self._reopening = False
        self._thread = threading.Thread(target=self._run, name="c1m access log", daemon=True)
        self._thread.start()

    def reopen(self) -> None:
        """Opens the file anew, for whoever has renamed it (logrotate). May be called from a signal handler."""
        self._reopening = True   # and no more: to wake the thread takes a lock, which may be what was interrupted

    def close(self) -> None:
        """Writes the last lines and closes the file; lines that nobody takes off a pipe for two seconds are lost."""
        self._closing = True
        self._wake.set()
        self._thread.join(2)

    def _open(self) -> int:
        if self._path == "-":
            return os.dup(1)
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def _run(self) -> None:
        closing = False
        while not closing:
            self._wake.wait(_EVERY)
            self._wake.clear()
            closing = self._closing
            self._write(self._take())
            if self._reopening:
                self._reopening = False
                try:
                    fresh = self._open()
                except OSError:
                    continue  # better in the old file than nowhere
                os.close(self._fd)
                self._fd = fresh
        os.close(self._fd)

    def _write(self, lines: bytes) -> None:
        rest = memoryview(lines)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest[: 1 << 20]) :]
            except BlockingIOError:
                select.select((), (self._fd,), ())
            except OSError:
                return  # the disk is full or the reader has gone: these lines are lost, the next may not be
