"""`c1m.doctor`: how many connections this machine allows, what falls short of so many, and how to mend it.

It reads /proc and /sys, changes nothing, and needs no rights.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

OWN_BYTES = 64
"""Of our memory, for an idle connection: its line in the table. With a handler in Python it is some 650."""
KERNEL_BYTES = 4100
"""And of the kernel's, for one end of it: the objects TCP (2,368 to 2,496 bytes), sock_inode_cache (832), filp (192 or
256), dentry (192) and eventpoll_epi (128) of /proc/slabinfo, and what their slabs leave unused. A client on the same
machine takes as much again, and bytes that wait to be sent or read come on top."""
FIRST_BYTES = 18 << 20
"""Of a process that runs `c1m serve` and nobody visits."""
WORKER_BYTES = 5 << 20
"""Of each worker that is forked from it: what it does not share."""
OWN_DESCRIPTORS = 128
"""Of each process: listeners, epoll, the logs, and some files that are being sent."""
MAX_TABLE = 1 << 24
"""Connections of one process, whatever its limits are: see c1m.reactor."""
CAP_SYS_ADMIN = 21
"""A bit of CapEff: see capabilities(7)."""
BACKLOG = 4096
"""What c1m asks listen(2) for: see c1m.listeners."""
UNLIMITED = 1 << 50
"""From here on a number means that there is no limit."""
NUMBER = re.compile("[0-9]{1,20}")
GOOD, POOR, SHORT, UNKNOWN = "good", "poor", "short", "unknown"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    name (str): what. state (str): "good"; "poor", it holds but is slower or riskier than need be; "short", the
    connections can't be held; "unknown", it can't be read. text (str): a sentence of what there is and what is needed.
    mend (str): the command that mends it, or "".
    """

    name: str
    state: str
    text: str
    mend: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """What c1m.doctor() found.

    connections (int): how many were asked for. workers (int): processes that are to hold them, as asked for, or as
    many as are necessary. own_bytes, kernel_bytes (int): memory that they take of ours and of the kernel's, idle.
    findings (tuple of Finding). possible (bool): whether nothing falls short.
    """

    connections: int
    workers: int
    own_bytes: int
    kernel_bytes: int
    findings: tuple[Finding, ...]

    @property
    def possible(self) -> bool:
        return all(finding.state != SHORT for finding in self.findings)

    def to_json(self, indent: int | None = None) -> str:
        """All of it, as a JSON object."""
        return json.dumps({**asdict(self), "possible": self.possible}, indent=indent)


def doctor(
    connections: int = 10_000, workers: int | None = None, *, root: str | os.PathLike[str] = "/"
) -> Diagnosis:
    """Looks at what this machine allows: descriptors, memory, the kernel's network settings, cgroups.

    connections: how many are to be held at a time. workers: processes that hold them; None: as many as are necessary.
    root: where proc and sys are found, if not at ``/``.

    Raises ValueError for numbers below 1, TypeError for what is no int.
    """
    for name, value in (("connections", connections), ("workers", 1 if workers is None else workers)):
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name}: {value!r} is not an int")
        if value < 1:
            raise ValueError(f"{name}: {value} is not above 0")
    machine = Machine(Path(root))
    each = per_process(machine)
    count = workers or (math.ceil(connections / each) if each > 0 else 1)
    own = FIRST_BYTES + (WORKER_BYTES * count if count > 1 else 0) + OWN_BYTES * connections
    case = Case(machine, connections, count, workers is not None, own, KERNEL_BYTES * connections)
    return Diagnosis(connections, count, own, case.kernel_bytes, tuple(case.findings()))


# ---- the machine ----


class Machine:
    """Numbers of /proc and /sys; None for one that is not there, can't be read, or is none."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def text(self, path: str) -> str | None:
        try:
            return (self.root / path).read_text(errors="replace")
        except OSError:
            return None

    def numbers(self, path: str, n: int = 1) -> list[int] | None:
        """The first n of a file."""
        words = (self.text(path) or "").split()[:n]
        return list(map(int, words)) if len(words) == n and all(map(NUMBER.fullmatch, words)) else None

    def number(self, path: str) -> int | None:
        found = self.numbers(path)
        return None if found is None else found[0]

    def sysctl(self, name: str) -> int | None:
        return self.number(f"proc/sys/{name.replace('.', '/')}")

    def field(self, path: str, name: str) -> int | None:
        """What stands behind a name at the beginning of a line."""
        found = re.search(rf"^{re.escape(name)}:?\s+(\d{{1,20}})\b", self.text(path) or "", re.MULTILINE)
        return None if found is None else int(found[1])

    def is_administrator(self) -> bool:
        """Whether this process has CAP_SYS_ADMIN, whom fs.file-max does not bind."""
        found = re.search(r"^CapEff:\s+([0-9a-f]{1,16})\b", self.text("proc/self/status") or "", re.MULTILINE)
        return found is not None and bool(int(found[1], 16) >> CAP_SYS_ADMIN & 1)

    def descriptors(self) -> tuple[int, int] | None:
        """RLIMIT_NOFILE, soft and hard."""
        found = re.search(r"^Max open files\s+(\d{1,20}|unlimited)\s+(\d{1,20}|unlimited)\b",
                          self.text("proc/self/limits") or "", re.MULTILINE)
        if found is None:
            return None
        soft, hard = (UNLIMITED if each == "unlimited" else int(each) for each in found.groups())
        return soft, hard

    def cpus(self) -> int | None:
        """Those that this process may use."""
        found = re.search(r"^Cpus_allowed_list:\s*(\S+)$", self.text("proc/self/status") or "", re.MULTILINE)
        runs = [re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", each) for each in found[1].split(",")] if found else []
        if not all(runs):
            return None
        return sum(int(run[2] or run[1]) - int(run[1]) + 1 for run in runs if run) or None

    # -- cgroups (cgroups(7)) --

    def groups(self, controller: str) -> Iterator[str]:
        """Directories of the cgroups, of version 2 and 1, that this process is in and that a controller may limit; the
        innermost first. In a container its own may be at the top, whatever /proc says."""
        for line in (self.text("proc/self/cgroup") or "").splitlines():
            number, _, rest = line.partition(":")
            names, _, path = rest.partition(":")
            if number == "0":
                tops = ["sys/fs/cgroup", "sys/fs/cgroup/unified"]
            elif controller in names.split(","):
                tops = [f"sys/fs/cgroup/{names}", f"sys/fs/cgroup/{controller}"]
            else:
                continue
            steps = path.strip("/").split("/")
            for top in tops:
                for n in range(len(steps), -1, -1):
                    yield "/".join([top, *filter(None, steps[:n])])

    def group_memory(self) -> tuple[int, str] | None:
        """Bytes that are left below the lowest limit, and where that is; the page cache is not counted as used."""
        found = []
        for group in dict.fromkeys(self.groups("memory")):
            for limit, used, cache in (
                ("memory.max", "memory.current", "inactive_file"),
                ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
            ):
                most, now = self.number(f"{group}/{limit}"), self.number(f"{group}/{used}")
                if most is not None and now is not None and most < UNLIMITED:
                    kept = self.field(f"{group}/memory.stat", cache) or 0
                    found.append((max(most - max(now - kept, 0), 0), f"/{group}/{limit}"))
        return min(found, default=None)

    def group_tasks(self) -> tuple[int, str] | None:
        """Processes and threads that may still be started, and where that is said."""
        found = []
        for group in dict.fromkeys(self.groups("pids")):
            most, now = self.number(f"{group}/pids.max"), self.number(f"{group}/pids.current")
            if most is not None and now is not None:
                found.append((max(most - now, 0), f"/{group}/pids.max"))
        return min(found, default=None)

    def group_cpus(self) -> tuple[float, str] | None:
        """How many CPUs' time there is."""
        found = []
        for group in dict.fromkeys(self.groups("cpu")):
            both = self.numbers(f"{group}/cpu.max", 2)
            quota, period = self.number(f"{group}/cpu.cfs_quota_us"), self.number(f"{group}/cpu.cfs_period_us")
            if both is None and quota is not None and period is not None:
                both = [quota, period]
            if both is not None and both[1]:
                name = "cpu.cfs_quota_us" if quota is not None else "cpu.max"
                found.append((both[0] / both[1], f"/{group}/{name}"))
        return min(found, default=None)


def per_process(machine: Machine) -> int:
    """Connections that one process can hold; it raises its soft limit to the hard one itself."""
    limits = machine.descriptors()
    return min(MAX_TABLE, UNLIMITED if limits is None else limits[1]) - OWN_DESCRIPTORS


# ---- the findings ----


@dataclass
class Case:
    """So many connections on a machine."""

    machine: Machine
    connections: int
    workers: int
    workers_given: bool
    own_bytes: int
    kernel_bytes: int

    def findings(self) -> Iterator[Finding]:
        yield self.descriptors()
        yield self.all_descriptors()
        yield self.memory()
        yield from self.group_memory()
        yield from self.tasks()
        yield self.processors()
        yield self.backlog()
        yield self.buffers()
        yield self.buffer()
        yield self.ports()
        yield self.tracking()

    def descriptors(self) -> Finding:
        name, limits, most = "descriptors", self.machine.descriptors(), self.machine.sysctl("fs.nr_open")
        if limits is None:
            return Finding(name, UNKNOWN, "/proc/self/limits can't be read")
        soft, hard = limits
        each = max(per_process(self.machine), 0)
        wanted = math.ceil(self.connections / self.workers) + OWN_DESCRIPTORS
        has = f"{amount(hard)} in each process (RLIMIT_NOFILE; c1m raises the soft limit, {amount(soft)}, to it)"
        if each * self.workers >= self.connections:
            are = "is" if self.workers == 1 else "are"
            how = "enough" if self.workers_given else "necessary"
            mend = f"c1m serve --workers {self.workers}" if self.workers > 1 else ""
            return Finding(name, GOOD, f"{has}: {counted(self.workers, 'worker')} {are} {how}", mend)
        text = f"{has}, and {wanted:,} are needed"
        if each and (wanted > MAX_TABLE or self.workers_given):
            return Finding(name, SHORT, text, f"c1m serve --workers {math.ceil(self.connections / each)}")
        mend = f"ulimit -Hn {wanted} as root, or LimitNOFILE={wanted} in a unit of systemd"
        if most is not None and wanted > most:
            mend = f"sysctl -w fs.nr_open={wanted}, then {mend}"
        return Finding(name, SHORT, text, mend)

    def all_descriptors(self) -> Finding:
        name, most, now = "file-max", self.machine.sysctl("fs.file-max"), self.machine.number("proc/sys/fs/file-nr")
        if most is None or now is None:
            return Finding(name, UNKNOWN, "fs.file-max or fs.file-nr can't be read")
        wanted = now + self.connections + OWN_DESCRIPTORS * self.workers
        if most >= wanted:
            return Finding(name, GOOD, f"fs.file-max is {amount(most)}, for all processes, of which {now:,} are open")
        text = f"fs.file-max is {most:,}, for all processes, and {wanted:,} are needed with the {now:,} that are open"
        mend = f"sysctl -w fs.file-max={wanted}"
        if self.machine.is_administrator():
            return Finding(name, POOR, f"{text}: who administers the system, as you do, gets them all the same", mend)
        return Finding(name, SHORT, text, mend)

    def memory(self) -> Finding:
        free = self.machine.field("proc/meminfo", "MemAvailable")
        if free is None:
            return Finding("memory", UNKNOWN, "MemAvailable of /proc/meminfo can't be read")
        return self.room("memory", free * 1024, "available", "give the machine more, or have it hold fewer connections")

    def group_memory(self) -> Iterator[Finding]:
        found = self.machine.group_memory()
        if found is not None:
            free, where = found
            wanted = self.own_bytes + self.kernel_bytes
            yield self.room("cgroup memory", free, f"left below {where}",
                            f"raise {where} by {size(wanted - free)} (MemoryMax= in a unit, --memory of a container)")

    def room(self, name: str, free: int, where: str, mend: str) -> Finding:
        wanted = self.own_bytes + self.kernel_bytes
        takes = f"{size(self.own_bytes)} of c1m's and {size(self.kernel_bytes)} of the kernel's are needed"
        if free < wanted:
            return Finding(name, SHORT, f"{size(free)} {where}, and {takes}, idle", mend)
        return Finding(name, GOOD, f"{size(free)} {where}: {takes}, idle")

    def tasks(self) -> Iterator[Finding]:
        found = self.machine.group_tasks()
        if found is None:
            return
        left, where = found
        wanted = 1 + 3 * self.workers            # beside its own, a log's and a watchdog's thread
        text = f"{where} leaves {left:,} processes and threads"
        if left >= wanted:
            yield Finding("cgroup tasks", GOOD, f"{text}: {counted(self.workers, 'worker')} need {wanted} at most")
        else:
            yield Finding("cgroup tasks", SHORT, f"{text}, and {counted(self.workers, 'worker')} need {wanted}",
                          f"raise {where} by {wanted - left} (TasksMax= in a unit, --pids-limit of a container)")

    def processors(self) -> Finding:
        cpus, group = self.machine.cpus(), self.machine.group_cpus()
        if cpus is None:
            return Finding("CPUs", UNKNOWN, "/proc/self/status can't be read")
        text = counted(cpus, "CPU")
        if group is not None and group[0] < cpus:
            text += f", and by {group[1]} the time of {group[0]:g}"
            cpus = max(1, math.floor(group[0]))
        if self.workers >= cpus:
            return Finding("CPUs", GOOD, text)
        return Finding("CPUs", GOOD, f"{text}: as many workers use all of them", f"c1m serve --workers {cpus}")

    def backlog(self) -> Finding:
        found = self.machine.sysctl("net.core.somaxconn")
        if found is None:
            return Finding("backlog", UNKNOWN, "net.core.somaxconn can't be read")
        if found >= BACKLOG:
            return Finding("backlog", GOOD, f"net.core.somaxconn lets {found:,} clients wait at each listener")
        text = f"net.core.somaxconn lets {found:,} clients wait at each listener: more at once are turned away"
        return Finding("backlog", POOR, text, f"sysctl -w net.core.somaxconn={BACKLOG}")

    def buffers(self) -> Finding:
        pages = self.machine.numbers("proc/sys/net/ipv4/tcp_mem", 3)
        if pages is None:
            return Finding("TCP memory", UNKNOWN, "net.ipv4.tcp_mem can't be read")
        page = os.sysconf("SC_PAGE_SIZE")
        text = (
            f"net.ipv4.tcp_mem has room for {size(pages[2] * page)} that wait to be sent or read,"
            f" {size(pages[2] * page // self.connections)} for each connection"
        )
        if pages[2] >= self.connections:
            return Finding("TCP memory", GOOD, text)
        wanted = self.connections
        mend = f"sysctl -w net.ipv4.tcp_mem='{wanted // 2} {wanted * 2 // 3} {wanted}'"
        return Finding("TCP memory", POOR, f"{text}: less than a page", mend)

    def buffer(self) -> Finding:
        read = self.machine.numbers("proc/sys/net/ipv4/tcp_rmem", 3)
        write = self.machine.numbers("proc/sys/net/ipv4/tcp_wmem", 3)
        if read is None or write is None:
            return Finding("TCP buffers", UNKNOWN, "net.ipv4.tcp_rmem or net.ipv4.tcp_wmem can't be read")
        return Finding(
            "TCP buffers", GOOD,
            f"one client may have {size(read[2])} wait to be read (net.ipv4.tcp_rmem) and {size(write[2])} to be sent"
            " (net.ipv4.tcp_wmem)",
        )

    def ports(self) -> Finding:
        found = self.machine.numbers("proc/sys/net/ipv4/ip_local_port_range", 2)
        if found is None:
            return Finding("source ports", UNKNOWN, "net.ipv4.ip_local_port_range can't be read")
        each = max(found[1] - found[0] + 1, 1)
        text = f"a proxy or load generator on this machine has {each:,} for each address and port that it connects to"
        if each >= self.connections:
            return Finding("source ports", GOOD, text)
        needed = math.ceil(self.connections / each)
        return Finding("source ports", GOOD, f"{text}; clients from elsewhere have their own",
                       f"c1m serve --port 8001-{8000 + needed}" if needed <= 50_000 else "")

    def tracking(self) -> Finding:
        name = "conntrack"
        most = self.machine.sysctl("net.netfilter.nf_conntrack_max")
        now = self.machine.sysctl("net.netfilter.nf_conntrack_count")
        if most is None or now is None:
            return Finding(name, GOOD, "connections are not tracked (nf_conntrack is not loaded)")
        if most == 0 or most - now >= self.connections:
            limit = "any number" if most == 0 else f"{most:,}"
            return Finding(name, GOOD, f"net.netfilter.nf_conntrack_max lets {limit} be tracked, of which {now:,} are")
        text = f"net.netfilter.nf_conntrack_max lets {most:,} be tracked, of which {now:,} are"
        mend = f"sysctl -w net.netfilter.nf_conntrack_max={now + self.connections}"
        if now == 0:             # no rule of this network namespace tracks any
            return Finding(name, POOR, f"{text}: too few if a firewall's rule should track them", mend)
        return Finding(name, SHORT, f"{text}, and {self.connections:,} more are needed", mend)


# ---- words ----


def amount(n: int) -> str:
    return "no limit" if n >= UNLIMITED else f"{n:,}"


def counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"


def size(n: int) -> str:
    """Bytes, to three digits."""
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if n >= 1 << shift:
            return f"{n / (1 << shift):.3g} {unit}" if n < 1000 << shift else f"{n / (1 << shift):,.0f} {unit}"
    return f"{n} bytes"
