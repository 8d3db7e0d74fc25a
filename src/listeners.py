"""Listening sockets: TCP and Unix-domain, one for each process that is to accept from a TCP port, and the removal of
Unix sockets that a killed server left behind.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterable, Iterator
from typing import Any

BACKLOG = 4096
"""Connections that wait to be accepted, as listen(2) has it; the kernel bounds it by net.core.somaxconn."""

CHOICES = 20
"""Of ports that the kernel is asked for, until one is free on all hosts."""


def opened(
    undo: contextlib.ExitStack,
    hosts: Iterable[str],
    ports: Iterable[int],
    unix: Iterable[str],
    unix_mode: int | None = None,
    slots: int = 1,
) -> tuple[list[list[socket.socket]], list[socket.socket], list[int]]:
    """The TCP listeners for all these places, so many of each, a list for each slot; those of Unix; and the real ports.
    `undo` closes and removes what was made.
    """
    tcp: list[list[socket.socket]] = [[] for _ in range(slots)]
    local: list[socket.socket] = []
    real: list[int] = []
    for port in ports:
        made = on_one_port(undo, hosts, port)
        tcp[0] += made
        for listener in made if slots > 1 else ():
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            for slot in tcp[1:]:
                slot.append(undo.enter_context(sibling(listener)))
        real.append(made[-1].getsockname()[1])
    for path in unix:
        local.append(undo.enter_context(unix_listener(path, unix_mode)))
        undo.callback(os.unlink, path)
    return tcp, local, real


def handed_in(
    undo: contextlib.ExitStack, given: Iterable[tuple[socket.socket | int, str]]
) -> list[socket.socket]:
    """Sockets that somebody else has opened, or their descriptors, each with a name for errors or "", made fit to be
    served on. `undo` leaves descriptors open. Raises ValueError for one that can't be.
    """
    taken: list[socket.socket] = []
    for each, name in given:
        if isinstance(each, socket.socket):
            what, listener = name or repr(each), each
        else:
            what = name or f"descriptor {each}"
            try:
                listener = socket.socket(fileno=each)
            except OSError as error:
                problem = "is no socket" if error.errno == errno.ENOTSOCK else "is not open"
                raise ValueError(f"sockets: {what} {problem}") from None
            undo.callback(listener.detach)
        if wrong := unfit(listener):
            raise ValueError(f"sockets: {what} {wrong}")
        if any(listener.fileno() == other.fileno() for other in taken):
            raise ValueError(f"sockets: {what} is given twice")
        listener.setblocking(False)
        listener.set_inheritable(False)
        if listener.family != socket.AF_UNIX:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        taken.append(listener)
    return taken


def unfit(listener: socket.socket) -> str | None:
    """Why it can't be listened on; None: it can be, and is."""
    if listener.fileno() < 0:
        return "is closed, or was detached: a socket is the server's from its first listen() on"
    if hasattr(listener, "do_handshake"):
        return "is a TLS socket: TLS is a proxy's to speak, see docs/proxy.md"
    if listener.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        return "is neither a TCP nor a Unix socket"
    if listener.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) != socket.SOCK_STREAM:
        return "is a datagram socket, and a stream socket is wanted"
    if listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return None
    with contextlib.suppress(OSError):
        listener.getpeername()
        return "is a connection, and a listening socket is wanted"
    address = listener.getsockname()
    if not (address if listener.family == socket.AF_UNIX else address[1]):
        return "is not bound to an address: bind() it first"
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        return f"cannot listen: {os.strerror(error.errno or 0)}"
    return None


def port_of(listener: socket.socket) -> list[int]:
    """Its port, if it has one."""
    return [] if listener.family == socket.AF_UNIX else [listener.getsockname()[1]]


def place_of(listener: socket.socket) -> str:
    """Where clients find it: a URL, or "unix:PATH"."""
    address = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        path = os.fsdecode(address)
        return f"unix:@{path[1:]}" if path.startswith("\0") else f"unix:{path}"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address[0], address[0])
    return f"http://[{host}]:{address[1]}/" if ":" in host else f"http://{host}:{address[1]}/"


def on_one_port(undo: contextlib.ExitStack, hosts: Iterable[str], port: int) -> list[socket.socket]:
    """Those of one port. One that the kernel chose for the first host may be taken on another: then it chooses anew."""
    choices = 1 if port else CHOICES
    while True:
        choices -= 1
        with contextlib.ExitStack() as tried:
            try:
                made = [tried.enter_context(listener) for listener in tcp_listeners(hosts, port)]
            except OSError as error:
                if error.errno != errno.EADDRINUSE or not choices:
                    raise
                continue
            undo.enter_context(tried.pop_all())
            return made


def tcp_listeners(hosts: Iterable[str], port: int) -> Iterator[socket.socket]:
    """A listener for each address of each host; port 0 becomes the same real port on all of them."""
    for host in hosts:
        bound = False
        for family, kind, protocol, _, address in addresses(host, port):
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
                mend = " (give another port, or 0 for a free one)" if error.errno == errno.EADDRINUSE else ""
                said = f"cannot listen on {where}: {os.strerror(error.errno or 0)}{mend}"
                raise OSError(error.errno, said) from None
            bound = True
            port = listener.getsockname()[1]
            yield listener


def sibling(first: socket.socket) -> socket.socket:
    """Another listener at the address of one, which shares its connections with it (SO_REUSEPORT in socket(7)).

    The first has listened without that: so nobody else was there, and none of another user can join. The kernel has the
    first in the group as soon as another one joins that is there with the same option.
    """
    listener = socket.socket(first.family, first.type | socket.SOCK_NONBLOCK, first.proto)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if first.family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(first.getsockname())
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        host, port, *_ = first.getsockname()
        said = f"cannot listen on {host}:{port} once more: {os.strerror(error.errno or 0)}"
        raise OSError(error.errno, said) from None
    return listener


def addresses(host: str, port: int) -> list[tuple[Any, ...]]:
    """What getaddrinfo() says of a host, each once."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise OSError(error.errno, f"host: {host!r} is not known ({error.strerror})") from None
    except ValueError:  # UnicodeError, or a NUL
        raise ValueError(f"host: {host!r} is not a host name") from None
    return list(dict.fromkeys(found))


def unix_listener(path: str, mode: int | None = None) -> socket.socket:
    """A listener at a path, with these permissions or those that the umask leaves."""
    bound = False
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        remove_stale(path)
        if mode is not None:
            os.fchmod(listener.fileno(), mode)  # bind() gives these to the path, less what the umask forbids
        listener.bind(path)
        bound = True
        if mode is not None:
            set_mode(path, mode)
        listener.listen(BACKLOG)  # before this nobody can connect, whatever the permissions
    except OSError as error:
        listener.close()
        if bound:
            with contextlib.suppress(OSError):
                os.unlink(path)
        raise OSError(error.errno, f"cannot listen on {path}: {error.strerror or error}") from None
    return listener


def set_mode(path: str, mode: int) -> None:
    """chmod() of a socket; of nothing else that somebody may have put in its place."""
    found = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        now = os.fstat(found).st_mode
        if not stat.S_ISSOCK(now):
            raise OSError(errno.ENOTSOCK, "it was replaced by something else")
        if stat.S_IMODE(now) != mode:
            os.chmod(f"/proc/self/fd/{found}", mode)
    finally:
        os.close(found)


def check_free(path: str) -> None:
    """Raises OSError where there is something that is no socket."""
    with contextlib.suppress(FileNotFoundError):
        mode = os.stat(path).st_mode
        if not stat.S_ISSOCK(mode):
            what = "a directory" if stat.S_ISDIR(mode) else "a file that is no socket"
            raise OSError(errno.EADDRINUSE, f"{what} is in the way (remove it, or give another path)")


def remove_stale(path: str) -> None:
    """Removes the socket that a killed server left behind; one that accepts stays. Raises OSError for another file."""
    with contextlib.suppress(FileNotFoundError):
        check_free(path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)  # or a server that is stuck would have us wait
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
            except BlockingIOError:
                return
