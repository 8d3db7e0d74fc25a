"""What the benchmarks share: servers on one CPU and load on another, CPU time and memory, what they were measured on.

The figure to trust is the server's CPU time per request or message, as a ratio to the floor's in the same round: the
floor (floor.c) is the least that a server can do on this kernel. Rates say as much of the load as of the server, and
times drift from one run to the next.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

HERE = Path(__file__).resolve().parent
CPUS = sorted(os.sched_getaffinity(0))
SERVER_CPU, LOAD_CPU = CPUS[0], CPUS[-1]
START_S, STOP_S = 15, 5                  # that a server may take to begin to listen, and to end

Command = list[str | Path]
signals: list[int] = []                  # that have come


class Failed(Exception):
    """A server that can't be measured: what it says is the whole explanation."""


class Server:
    """A process and its children, on SERVER_CPU, or on any if it is not pinned, while the `with` block runs;
    command(port) starts it.

    Raises Failed where it does not begin to listen.
    """

    def __init__(
        self, name: str, command: Callable[[int], Command], environment: dict[str, str] | None = None,
        pinned: bool = True,
    ) -> None:
        self.name, self.command, self.environment = name, command, environment
        self.on_cpu: Command = ["taskset", "-c", str(SERVER_CPU)] if pinned else []

    def __enter__(self) -> Server:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.said = tempfile.TemporaryFile()     # a pipe that nobody reads would stop it
        self.process = subprocess.Popen(
            [*self.on_cpu, *self.command(self.port)], start_new_session=True,
            stdout=self.said, stderr=self.said, env=os.environ | (self.environment or {}),
        )
        try:
            self.wait_for_it()
        except BaseException:
            self.__exit__()
            raise
        return self

    def wait_for_it(self) -> None:
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            self.check()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.01)
        raise Failed(f"it does not listen after {START_S} s{self.last_words()}")

    def check(self) -> None:
        """Raises Failed if it has ended."""
        if self.process.poll() is not None:
            raise Failed(f"it ended with status {self.process.returncode}{self.last_words()}")

    def last_words(self) -> str:
        self.said.seek(0)
        lines = self.said.read().decode(errors="replace").split("\n")
        return next((f": {line.strip()}" for line in reversed(lines) if line.strip()), "")

    def __exit__(self, *exc: object) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):      # the second for children that outlive it
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_S)
        self.said.close()

    def cpu(self) -> float:
        """Seconds of CPU time, user and system, of it and its children so far. Raises Failed if it has ended."""
        try:
            return cpu_of(self.process.pid)
        except OSError:
            raise self.gone() from None

    def memory(self) -> int:
        """Bytes of memory, those it shares with other processes by their share. Raises Failed if it has ended."""
        try:
            return memory_of(self.process.pid)
        except OSError:
            raise self.gone() from None

    def gone(self) -> Failed:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_S)
        return Failed(f"it ended with status {self.process.returncode}{self.last_words()}")


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from _tree(int(child))


def cpu_of(pid: int) -> float:
    """Seconds of CPU time, user and system, of a process and its children so far. Raises OSError if one has ended."""
    # The clock of another process: clock_getcpuclockid(3), which Python does not have.
    return sum(time.clock_gettime(~each << 3 | 2) for each in _tree(pid))


def memory_of(pid: int) -> int:
    """Bytes of memory of a process and its children, what is shared by its share. Raises OSError if one has ended."""
    rollups = [Path(f"/proc/{each}/smaps_rollup").read_text() for each in _tree(pid)]
    return sum(1024 * int(size) for text in rollups for size in re.findall(r"^Pss:\s+(\d+)", text, re.M))


def stay_on_load_cpu() -> None:
    """Pins this process, and the processes of the loads that it will start."""
    os.sched_setaffinity(0, {LOAD_CPU})


def end_on_signals() -> None:
    """SIGTERM, too, raises KeyboardInterrupt, and SIGINT where a shell has had it ignored: servers end with us."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    signals.append(number)
    raise KeyboardInterrupt


def check_signals() -> None:
    """Raises KeyboardInterrupt where one was lost: what is raised while a destructor runs goes no further."""
    if signals:
        raise KeyboardInterrupt


def raise_fd_limit(wanted: int) -> None:
    """Lets this process and its children open so many files at least. Raises Failed where that can't be."""
    soft, hard = (float("inf") if limit == resource.RLIM_INFINITY else limit
                  for limit in resource.getrlimit(resource.RLIMIT_NOFILE))
    if soft >= wanted:
        return
    try:                                         # above the hard limit only root may
        new = resource.RLIM_INFINITY if hard == float("inf") else int(max(hard, wanted))
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, new))
    except (ValueError, OSError):
        raise Failed(f"it would have to open {wanted} files, and may open {hard}: see ulimit -Hn") from None


def compile_floor(place: Path) -> Path:
    """The floor, compiled. Raises Failed where it can't be."""
    if not shutil.which("gcc"):
        raise Failed("gcc is not installed: apt install gcc libssl-dev")
    floor = place / "floor"
    command: Command = ["gcc", "-O3", "-o", floor, HERE / "floor.c", "-lcrypto"]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        raise Failed("floor.c does not compile: apt install libssl-dev")
    return floor


def machine() -> dict[str, str | int]:
    """What anything measured here depends on, besides the programs."""
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    return {
        "cpu": model[1].strip() if model else platform.machine(),
        "cpus": len(CPUS),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def described() -> str:
    here = machine()
    cpus = f"{here['cpus']} CPUs" if len(CPUS) > 1 else "1 CPU, which server and load share"
    return f"{here['cpu']}, {cpus}, {here['kernel']}, Python {here['python']}"


def version(*command: str | Path) -> str:
    """What a program says of itself, up to the end of its first version number."""
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"\d+(\.\d+)+\w*", said.stdout + said.stderr)
    return found[0] if found else "unknown"


def commit(root: Path = HERE.parent) -> str:
    """The commit of a checkout, with + if it has changes in what is built; "unknown" outside of git."""

    def git(*arguments: str) -> str:
        return subprocess.check_output(["git", "-C", root, *arguments], text=True, stderr=subprocess.DEVNULL).strip()

    try:
        return git("rev-parse", "--short=10", "HEAD") + ("+" if git("status", "--porcelain", "src", "setup.py") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def c1m_version(python: str | Path = sys.executable) -> str:
    return version(python, "-c", "import c1m; print(c1m.__version__)")
