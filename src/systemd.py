"""What a service and systemd say to each other: the sockets that it hands in (sd_listen_fds(3)), and how the service is
(sd_notify(3)). Where systemd does not run it, nothing here does anything.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

log = logging.getLogger("c1m")

FIRST = 3
"""The first descriptor that is handed in (SD_LISTEN_FDS_START)."""
_PATIENCE = 1.0
"""Seconds that a message may wait for systemd to read others."""


# ---- socket activation ----


def has_sockets() -> bool:
    """Whether systemd has handed sockets to this very process, and nobody has taken them yet."""
    return os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS", "0") != "0"


def take_sockets() -> list[tuple[int, str]]:
    """The descriptors that systemd has handed in, with their names (FileDescriptorName=), "" where there is none.

    They are the caller's from then on: processes that it starts do not get them, and a second call finds none. Raises
    ValueError where there are none, or what the environment says of them can't be right.
    """
    if not has_sockets():
        raise ValueError(
            "systemd has handed in no sockets (LISTEN_FDS and LISTEN_PID): start the service by a .socket unit of its"
            " name, or under systemd-socket-activate"
        )
    count, names = os.environ["LISTEN_FDS"], os.environ.get("LISTEN_FDNAMES", "").split(":")
    for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(variable, None)
    if not count.isascii() or not count.isdecimal() or int(count) > os.sysconf("SC_OPEN_MAX"):
        raise ValueError(f"LISTEN_FDS is {count!r}, which is no number of sockets")
    for fd in range(FIRST, FIRST + int(count)):
        with contextlib.suppress(OSError):   # whoever uses it finds out that it is closed
            os.set_inheritable(fd, False)
    names += [""] * int(count)
    return [(FIRST + i, names[i]) for i in range(int(count))]


# ---- notifications ----


def notify(*assignments: str) -> bool:
    """Sends systemd a message of lines such as "READY=1", for units with Type=notify.

    Returns whether there was anyone to send it to: False where NOTIFY_SOCKET is not set, or it can't be sent, which is
    logged.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    try:
        if not address.startswith(("/", "@")):
            raise OSError(f"{address!r} is neither a path nor an abstract address")
        to = f"\0{address[1:]}" if address.startswith("@") else address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(_PATIENCE)
            sender.sendto("\n".join(assignments).encode(), to)
    except OSError as error:
        log.warning("NOTIFY_SOCKET: systemd was not told %s: %s", assignments[0], error)
        return False
    return True


def ready(status: str) -> bool:
    """The service has started, or its configuration was loaded anew."""
    return notify("READY=1", f"STATUS={status}")


def reloading() -> bool:
    """The configuration is being loaded anew: ready() follows. For units with Type=notify-reload, too."""
    return notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def stopping(seconds: float) -> bool:
    """The service is about to stop, which may take so many seconds, however many TimeoutStopSec allows."""
    return notify("STOPPING=1", f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")


def status(text: str) -> bool:
    """A line for `systemctl status`."""
    return notify(f"STATUS={text}")


def watchdog_interval() -> float | None:
    """Seconds from one sign of life to the next, half of WatchdogSec; None where none is wanted of this process."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    if not microseconds.isascii() or not microseconds.isdecimal() or int(microseconds) == 0:
        return None
    return int(microseconds) / 2e6


@contextlib.contextmanager
def watchdog(pulse: Callable[[], int]) -> Iterator[None]:
    """Sends signs of life from a thread of its own, if WatchdogSec wants them, while pulse() gives another number each
    time: how many iterations an event loop has made, say, which it is asked for then. One that stands still for
    WatchdogSec has systemd end the service, and start it anew by Restart=."""
    interval, over = watchdog_interval(), threading.Event()
    if interval is None:
        yield
        return

    def watch(interval: float) -> None:
        before = -1
        while True:
            now = pulse()
            if now != before:
                notify("WATCHDOG=1")
            before = now
            if over.wait(interval):
                return

    thread = threading.Thread(target=watch, args=(interval,), name="c1m watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
