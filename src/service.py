"""What `c1m serve` tells whoever runs it while it starts, serves and drains: systemd, and the terminal."""

from __future__ import annotations

import contextlib
import threading

import click

import c1m
from c1m import systemd
from c1m.workers import PATIENCE

_EVERY = 1.0
"""Seconds between two lines about a drain."""


class Service(contextlib.AbstractContextManager["Service"]):
    """A server that does not listen yet, and those who want to hear of it; as a context manager, while it runs."""

    def __init__(self, server: c1m.Server) -> None:
        self._server = server
        self._over = threading.Event()
        self._progress: threading.Thread | None = None
        self._undo = contextlib.ExitStack()
        self._what = ""
        self._watched = False
        if server.workers == 1:
            server.on_start(self._serves)        # behind the application's own
            server.on_drain_start(self._draining)
        else:
            server._told = self._hear

    def listens(self, what: str) -> None:
        """It listens, and is about to serve what."""
        self._what = what

    def _serves(self) -> None:
        systemd.ready(self._what)
        if not self._watched:
            self._watched = True
            self._undo.enter_context(systemd.watchdog(self._server._pulse))

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        if self._progress is not None:
            self._progress.join()
        self._undo.close()

    def _hear(self, word: str) -> None:
        """From the supervisor of several workers."""
        if word == "reloading":
            systemd.reloading()
        elif word == "serving":
            self._serves()
        else:
            self._draining()

    def _draining(self) -> None:
        options = self._server._options
        killed = PATIENCE if self._server.workers > 1 else 0.0   # workers that do not end, so much later
        systemd.stopping(options.drain + options.shutdown_timeout + killed + _EVERY)
        self._progress = threading.Thread(target=self._tell, name="c1m progress", daemon=True)
        self._progress.start()

    def _tell(self) -> None:
        """Says how many are left, once in a while, and nothing of a drain that is shorter."""
        while not self._over.wait(_EVERY):
            counters = self._server.stats()
            left, what = counters["websockets"], "WebSocket"
            if not left:
                left, what = counters["connections"], "connection"
            if not left:         # a worker takes a moment to end
                continue
            said = f"draining: {left:,} {what}{'s' * (left != 1)} left"
            systemd.status(said)
            click.echo(said)
