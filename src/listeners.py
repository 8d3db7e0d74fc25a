"""Listening sockets: TCP and Unix-domain, and the removal of Unix sockets that a killed server left behind."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterable, Iterator

BACKLOG = 4096
"""Connections that wait to be accepted, as listen(2) has it; the kernel bounds it by net.core.somaxconn."""


def opened(
    undo: contextlib.ExitStack, hosts: Iterable[str], ports: Iterable[int], unix: Iterable[str]
) -> tuple[list[socket.socket], list[int]]:
    """The listeners for all these places, and the real ports. `undo` closes and removes what was made."""
    listeners: list[socket.socket] = []
    real: list[int] = []
    for port in ports:
        for listener in tcp_listeners(hosts, port):
            listeners.append(undo.enter_context(listener))
            port = listener.getsockname()[1]
        real.append(port)
    for path in unix:
        listeners.append(undo.enter_context(unix_listener(path)))
        undo.callback(os.unlink, path)
    return listeners, real


def tcp_listeners(hosts: Iterable[str], port: int) -> Iterator[socket.socket]:
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
                listener.listen(BACKLOG)
            except OSError as error:
                listener.close()
                if error.errno == errno.EADDRNOTAVAIL and bound:
                    continue  # localhost resolves to ::1 on machines without IPv6, too
                where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
                raise OSError(error.errno, f"cannot listen on {where}: {os.strerror(error.errno or 0)}") from None
            bound = True
            port = listener.getsockname()[1]
            yield listener


def unix_listener(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        remove_stale(path)
        listener.bind(path)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {path}: {error.strerror or error}") from None
    return listener


def remove_stale(path: str) -> None:
    """Removes the socket that a killed server left behind; one that accepts, or another kind of file, stays."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)  # or a server that is stuck would have us wait
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
            except BlockingIOError:
                return
