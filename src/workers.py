"""The processes of a server that has several: workers, and the supervisor that forks, watches and replaces them.

Owns: which worker accepts from which listeners, the line between the supervisor and each, signals, what a death means.
Refuses to know: what a worker serves, what is published.

A *slot* is a set of TCP listeners; the supervisor has the sockets of all and keeps them, so that what waits at one
waits for the slot's next worker, whatever became of the last one. Unix-domain sockets, and those that were handed in,
of which there is one for all, are accepted from in turns. A *seat* is a process's place in what all share
(`c1m.shared`).
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

from c1m.shared import Shared
from c1m.site import Site

__all__ = ["Post", "Supervisor", "cpus", "reason"]

log = logging.getLogger("c1m")

LOOK_EVERY = 0.25
"""Seconds between two looks at the listeners: who waits there at two of them, waits for a worker that stands still."""
AT_ONCE = 5.0
"""Seconds that a worker has lived whose death tells nothing of its successor's chances."""
FIRST_DELAY, LAST_DELAY = 0.1, 10.0
"""Seconds until a worker is replaced that lived shorter, and so did the one before it; doubled each time."""
PATIENCE = 10.0
"""Seconds beyond shutdown_timeout after which a worker that was to end is killed."""
FIRST_WORDS = 1.0
"""Seconds that a worker whose successor serves has for who has connected just now, and not said yet what for."""
CUT_SHORT = 1.0
"""And after a second signal."""
PROVED = 4
"""Workers that are woken at a time, to see which of them are well."""
MOST_FDS = 200
"""Descriptors in one message; the kernel takes 253 (SCM_MAX_FD in unix(7))."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)
STOP = 0
"""Among signals: stop() was called."""


def cpus(cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """How many CPUs this process may use: those of its affinity mask (sched_setaffinity(2)), or fewer where the quota
    of its cgroup, or of one above it, is less (cpu.max of cgroup v2, cpu.cfs_quota_us of v1). At least 1.
    """
    most = float(len(os.sched_getaffinity(0)))
    with contextlib.suppress(OSError):
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            top = cgroups / "cpu" if controllers else cgroups
            place = top / path.lstrip("/")
            for each in [place, *(above for above in place.parents if above.is_relative_to(top))]:
                most = min(most, _quota(each))
    return max(1, int(most))


def _quota(cgroup: Path) -> float:
    """CPUs that a cgroup may use; infinite where it does not say."""
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (cgroup / "cpu.max").read_text().split()
        return float("inf") if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota_us = int((cgroup / "cpu.cfs_quota_us").read_text())
        return quota_us / int((cgroup / "cpu.cfs_period_us").read_text()) if quota_us > 0 else float("inf")
    return float("inf")


def reason(error: BaseException) -> str:
    """An exception in one line: what it is, what it says and where it was raised."""
    said = " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    where = f", in {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{': ' if said else ''}{said}{where}"


# ---- in a worker ----


class Post:
    """A worker's end of the line to its supervisor, and the listeners that it was given."""

    def __init__(self, line: socket.socket, seat: int, tcp: list[socket.socket], for_all: list[socket.socket]) -> None:
        self._line = line
        self.seat = seat
        self._tcp, self._for_all = tcp, for_all
        self._borrowed: dict[bytes, list[int]] = {}    # descriptors, by the slot they are of
        self.failed = False      # to start, which the supervisor knows
        self._site: Site

    def attend(self, site: Site, stop: Callable[[], None], reopen: Callable[[], None]) -> None:
        """Has a site accept from the worker's listeners, and from now on do what the supervisor says: among it stop(),
        and reopen(), which opens the access log anew."""
        self._site, self._stop, self._reopen = site, stop, reopen
        for listener in self._tcp:
            site.listen(listener.fileno(), shared=True)
            listener.detach()
        for listener in self._for_all:
            site.listen(listener.fileno(), shared=True, turns=True)
            listener.detach()
        site.attend(self._line.fileno(), self._hear)
        self.say("serves")

    def say(self, words: str) -> None:
        """Tells the supervisor; one that has gone is not told."""
        with contextlib.suppress(OSError):
            self._line.send(words.encode()[: 1 << 12])

    def _hear(self) -> None:
        while True:
            try:
                said, fds, _, _ = socket.recv_fds(self._line, 64, MOST_FDS, socket.MSG_CMSG_CLOEXEC)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:      # ECONNRESET: what we said last was not read
                said, fds = b"", []
            word, _, slot = said.partition(b" ")
            if word == b"lend":
                self._site.borrow(fds)
                self._borrowed.setdefault(slot, []).extend(fds)
            elif word == b"back":
                self._site.give_back(self._borrowed.pop(slot, []))
            elif word == b"leave":
                self._site.leave()
                self.say("left")
            elif word == b"look":
                self._site.look_again()
            elif word == b"reopen":
                self._reopen()
            elif word == b"end":
                self._site.stop()
            else:
                if not said:
                    self._site.unattend(self._line.fileno())
                    log.warning("the supervisor has gone: worker %d ends", os.getpid())
                self._site.leave()
                self.say("left")
                self._stop()
                if not said:
                    return


# ---- in the supervisor ----


class _Worker:
    """A process that serves."""

    def __init__(self, slot: _Slot, seat: int, pid: int, line: socket.socket) -> None:
        self.slot, self.seat, self.pid, self.line = slot, seat, pid, line
        self.ended = os.pidfd_open(pid)
        self.born = time.monotonic()
        self.serves = False                  # it accepts connections
        self.left = False                    # and does no longer
        self.leaving = False                 # it was told to end
        self.drain_at: float | None = None   # when it is to finish what it does
        self.kill_at: float | None = None    # unless it has ended by then
        self.failure = ""                    # why it could not start
        self.pulse = (0, False)
        self.moved = False                   # its loop has, between the last two looks

    def __str__(self) -> str:
        return f"worker {self.slot.number} (pid {self.pid})"

    def tell(self, words: str, fds: list[int] | None = None) -> None:
        """One that does not listen is found out by its pulse, or its end."""
        with contextlib.suppress(OSError):
            socket.send_fds(self.line, [words.encode()], fds or [])

    def kill(self) -> None:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self.ended, signal.SIGKILL)


class _Slot:
    """A worker's place: its listeners, and who accepts from them."""

    def __init__(self, number: int, listeners: list[socket.socket]) -> None:
        self.number, self.listeners = number, listeners
        self.worker: _Worker | None = None
        self.successor: _Worker | None = None    # which is to serve before the other one ends
        self.due: float | None = None            # when it gets a worker
        self.failures = 0                        # workers, one after another, that have not lived long
        self.waiting = False                     # at the last look someone waited at its listeners
        self.borrowers: list[_Worker] = []       # accept from them while its own does not


class Supervisor:
    """Runs a server's workers, and in each of them `work`, which returns the process's exit status.

    tcp: the listeners of each slot, of which there are as many as workers. for_all: those that all have, Unix-domain
    sockets and what was handed in, of which `not_ours` may be open elsewhere. grace: seconds that a worker has to end.
    pin: each keeps to a CPU. reopen: opens the supervisor's own access log. told: hears "serving" once all
    do, "reloading", "serving" again when all are replaced, and "draining".
    """

    def __init__(
        self,
        tcp: list[list[socket.socket]],
        for_all: list[socket.socket],
        shared: Shared,
        work: Callable[[Post], int],
        *,
        not_ours: list[socket.socket],
        grace: float,
        pin: bool,
        reopen: Callable[[], None],
        told: Callable[[str], None],
    ) -> None:
        self._slots = [_Slot(i + 1, listeners) for i, listeners in enumerate(tcp)]
        self._for_all, self._not_ours = for_all, not_ours
        self._shared = shared
        self._work, self._grace, self._pin, self._reopen, self._told = work, grace, pin, reopen, told
        self._seats = list(range(shared.seats))
        self._workers: list[_Worker] = []
        self._to_replace: deque[_Slot] = deque()
        self._asked: deque[int] = deque()
        self._ready = self._stopping = self._interrupted = self._quit = self._reloading = False
        self._all_waiting = False
        self._rounds = 0
        self._proved = 0
        self._turns = os.memfd_create("c1m turns")
        self._wake, self._woken = socket.socketpair()
        for end in (self._wake, self._woken):
            end.setblocking(False)
        self._heard: dict[int, Callable[[], None]] = {}
        self._poll = select.poll()
        self._listeners = select.poll()
        for listener in self._all_listeners():
            self._listeners.register(listener, select.POLLIN)
        self._hear(self._woken.fileno(), self._empty)

    @property
    def turns(self) -> int:
        """A descriptor that all workers have, by whose lock they may take turns."""
        return self._turns

    def pulse(self) -> int:
        """How often it has looked at what happens; alive, it looks once more. Any thread may call it."""
        with contextlib.suppress(OSError):
            self._wake.send(b"\0")
        return self._rounds

    def stop(self) -> None:
        """Ends run() as a first SIGTERM does. Any thread may call it."""
        self._ask(STOP)

    def reopen_logs(self) -> None:
        """Does what SIGUSR1 does. Any thread may call it."""
        self._ask(signal.SIGUSR1)

    def run(self) -> None:
        """Supervises until SIGINT, SIGTERM, SIGQUIT or stop(), and all workers have ended.

        Raises KeyboardInterrupt where a second signal cut that short, SystemExit after SIGQUIT.
        """
        gc.collect()
        gc.freeze()              # what a collection marks in a worker it copies, page by page
        try:
            with self._signals():
                for slot in self._slots:
                    slot.due = time.monotonic()
                look_at = time.monotonic() + LOOK_EVERY
                while self._workers or not self._stopping:
                    self._rounds += 1
                    self._begin()
                    self._wait(look_at)
                    now = time.monotonic()
                    for worker in self._workers:
                        if worker.drain_at is not None and worker.drain_at <= now:
                            worker.drain_at, worker.kill_at = None, now + self._grace + PATIENCE
                            worker.tell("drain")
                        if worker.kill_at is not None and worker.kill_at <= now:
                            log.warning("%s does not end: killed", worker)
                            worker.kill_at = None
                            worker.kill()
                    if now >= look_at:
                        look_at = now + LOOK_EVERY
                        if not self._stopping:
                            self._look()
        finally:
            self._end()
            gc.unfreeze()
        if self._quit:
            raise SystemExit(128 + signal.SIGQUIT)
        if self._interrupted:
            raise KeyboardInterrupt

    def _ask(self, number: int) -> None:
        self._asked.append(number)
        with contextlib.suppress(OSError):
            self._wake.send(b"\0")

    # -- events --

    def _hear(self, fd: int, call: Callable[[], None]) -> None:
        self._heard[fd] = call
        self._poll.register(fd, select.POLLIN)

    def _unhear(self, fd: int) -> None:
        del self._heard[fd]
        self._poll.unregister(fd)

    def _wait(self, look_at: float) -> None:
        """Deals with what happens until something is due."""
        due = [look_at, *(slot.due for slot in self._slots if slot.due is not None and self._seats)]
        due += [at for worker in self._workers for at in (worker.drain_at, worker.kill_at) if at is not None]
        events = self._poll.poll(max(0, min(due) - time.monotonic()) * 1000)
        while self._asked:       # first: a signal to the whole group ends workers, too, which nobody is to replace
            self._obey(self._asked.popleft())
        for fd, _ in events:
            if fd in self._heard:
                self._heard[fd]()

    def _empty(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._woken.recv(4096):
                pass

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Signals are obeyed between two events; what was there before is put back."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        with contextlib.ExitStack() as restore:
            before = signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
            restore.callback(signal.set_wakeup_fd, before)

            def ask(number: int, frame: FrameType | None) -> None:
                self._asked.append(number)

            for number in SIGNALS:
                handler = signal.getsignal(number)
                if handler is not None:      # or it is of C, and could not be put back
                    restore.callback(signal.signal, number, handler)
                    signal.signal(number, ask)
            yield

    def _obey(self, number: int) -> None:
        if number == signal.SIGUSR1:
            self._reopen()
            for worker in self._workers:
                worker.tell("reopen")
        elif number == signal.SIGHUP:
            if not self._stopping:
                self._to_replace += [slot for slot in self._slots if slot not in self._to_replace]
                self._reloading = True
                self._told("reloading")
                self._replace_next()
        elif number == signal.SIGQUIT:
            self._quit = self._stopping = True
            for worker in self._workers:
                worker.leaving = True
                worker.kill()
        elif not self._stopping:
            self._stopping = True
            self._told("draining")
            for slot in self._slots:
                slot.due = None
            for worker in self._workers:
                self._dismiss(worker, time.monotonic())
        elif number != STOP:
            self._interrupted = True
            for worker in self._workers:
                worker.tell("end")
                worker.kill_at = time.monotonic() + CUT_SHORT

    def _dismiss(self, worker: _Worker, drain_at: float) -> None:
        """Has a worker accept nobody any more, and at a time finish what it does and end."""
        self._return_from(worker)
        worker.leaving = True
        if worker.kill_at is None:           # else it finishes already
            worker.drain_at = drain_at
            worker.tell("leave")

    def _said(self, worker: _Worker) -> None:
        """A worker has something to say."""
        with contextlib.suppress(OSError):
            while said := worker.line.recv(1 << 12).decode(errors="replace"):
                word, _, rest = said.partition(" ")
                if word == "fails":
                    worker.failure = rest
                elif word == "left":
                    worker.left = True
                    if not (self._stopping or worker.leaving):
                        self._leaves(worker)
                    self._close_if_left()
                elif word == "serves":
                    worker.serves = True
                    self._serves(worker)
            if worker.line.fileno() in self._heard:    # it has ended; so is to follow _ended()
                self._unhear(worker.line.fileno())

    def _leaves(self, worker: _Worker) -> None:
        """A worker ends by its own will, and accepts nobody any more: another one does at once."""
        slot = worker.slot
        self._return_from(worker)
        worker.leaving = True
        worker.kill_at = time.monotonic() + self._grace + PATIENCE
        if slot.worker is worker:
            log.warning("%s ends by itself: replaced", worker)
            slot.worker = None
            if slot.successor is None:
                slot.due = time.monotonic()

    def _serves(self, worker: _Worker) -> None:
        slot = worker.slot
        self._nudge(worker)      # whoever accepts for this slot meanwhile is to see that it does itself now
        if slot.successor is worker:
            before, slot.worker, slot.successor = slot.worker, worker, None
            if before is not None:
                self._dismiss(before, time.monotonic() + FIRST_WORDS)
            self._replace_next()
        elif not self._ready and all(each.worker is not None and each.worker.serves for each in self._slots):
            self._ready = True
            self._told("serving")

    def _close_if_left(self) -> None:
        """Once nobody accepts any more, nobody may wait."""
        if self._stopping and all(worker.left for worker in self._workers):
            for listener in self._all_listeners():
                if listener.fileno() >= 0:
                    if listener not in self._not_ours:
                        with contextlib.suppress(OSError):
                            listener.shutdown(socket.SHUT_RDWR)      # some child of a worker may have it as well
                    listener.close()

    # -- workers --

    def _all_listeners(self) -> list[socket.socket]:
        return [*(listener for slot in self._slots for listener in slot.listeners), *self._for_all]

    def _begin(self) -> None:
        """Starts the workers that are due."""
        now = time.monotonic()
        for slot in self._slots:
            if slot.due is not None and slot.due <= now and self._seats:
                slot.due = None
                slot.worker = self._forked(slot)
                if slot.worker is None:
                    self._put_off(slot)

    def _replace_next(self) -> None:
        """Starts the next successor, if none is on its way."""
        if not self._seats or self._stopping or any(slot.successor for slot in self._slots):
            return
        while self._to_replace:
            slot = self._to_replace.popleft()
            if slot.worker is not None:      # else it gets a new one anyway
                slot.successor = self._forked(slot)
                if slot.successor is not None:
                    return
                self._to_replace.clear()
        if self._reloading:
            self._reloading = False
            self._told("serving")

    def _forked(self, slot: _Slot) -> _Worker | None:
        """A new worker; None where there can be none now, and then there will be later."""
        seat = self._seats.pop(0)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setblocking(False)
        with contextlib.suppress(Exception):
            sys.stdout.flush()               # or a child would write it, too
            sys.stderr.flush()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())    # the child has our handlers at first
        try:
            with warnings.catch_warnings():  # of other threads, which are the application's to know of
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
            if pid == 0:
                ours.close()                 # by the end of its line a worker knows that the supervisor has gone
                self._be_worker(slot, seat, theirs, mask)
            theirs.close()
            worker = _Worker(slot, seat, pid, ours)
        except OSError as error:
            ours.close()
            self._seats.append(seat)
            log.error("worker %d can't be forked: %s", slot.number, error.strerror)
            return None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._workers.append(worker)
        self._hear(ours.fileno(), lambda: self._said(worker))
        self._hear(worker.ended, lambda: self._ended(worker))
        return worker

    def _be_worker(self, slot: _Slot, seat: int, line: socket.socket, mask: set[int]) -> NoReturn:
        """What a worker does, from its fork to its end."""
        status = 1
        try:
            if threading.current_thread() is threading.main_thread():
                signal.set_wakeup_fd(-1)
            for number in SIGNALS:           # a terminal sends them to all, but they are the supervisor's to obey
                if signal.getsignal(number) is not None:
                    signal.signal(number, lambda number, frame: None)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            for end in (self._wake, self._woken, *(worker.line for worker in self._workers)):
                end.close()
            for worker in self._workers:
                os.close(worker.ended)
            for other in self._slots:
                for listener in other.listeners if other is not slot else ():
                    listener.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            if self._pin:
                usable = sorted(os.sched_getaffinity(0))
                os.sched_setaffinity(0, {usable[(slot.number - 1) % len(usable)]})
            status = self._work(Post(line, seat, slot.listeners, self._for_all))
        except BaseException as error:
            log.error("worker %d (pid %d): %s", slot.number, os.getpid(), reason(error))
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def _ended(self, worker: _Worker) -> None:
        """A worker has died."""
        slot = worker.slot
        self._said(worker)
        try:
            status = os.waitstatus_to_exitcode(os.waitpid(worker.pid, 0)[1])
        except ChildProcessError:            # SIGCHLD is ignored, or someone else has waited
            status = 0
        if worker.line.fileno() in self._heard:
            self._unhear(worker.line.fileno())
        self._unhear(worker.ended)
        worker.line.close()
        os.close(worker.ended)
        self._workers.remove(worker)
        self._return_from(worker)
        self._shared.release(worker.seat)
        self._seats.append(worker.seat)
        died = f"{worker} {f'died of {_signal_name(-status)}' if status < 0 else f'ended with status {status}'}"
        if worker.failure:
            died = f"{worker} can't start: {worker.failure}"
        if slot.successor is worker:
            slot.successor = None
            self._to_replace.clear()
            if not self._stopping:
                log.error("%s: its predecessor stays, and nobody else is replaced", died)
                if slot.worker is None:
                    self._put_off(slot)
        elif slot.worker is worker:
            slot.worker = None
            if time.monotonic() - worker.born >= AT_ONCE:
                slot.failures = 0
            if not self._stopping and slot.successor is None:
                self._put_off(slot)
                delay = (slot.due or 0.0) - time.monotonic()
                log.error("%s: replaced%s", died, f" in {delay:.1f} s" if delay > 0 else "")
        self._replace_next()
        self._close_if_left()

    def _put_off(self, slot: _Slot) -> None:
        """A slot gets its next worker at once, or after a while if workers fail one after another."""
        delay = min(FIRST_DELAY * 2 ** (slot.failures - 1), LAST_DELAY) if slot.failures else 0.0
        slot.failures += 1
        slot.due = time.monotonic() + delay

    def _end(self) -> None:
        """Whatever has happened, no worker stays behind, and nothing of the supervisor's."""
        for worker in self._workers:
            worker.kill()
        for worker in list(self._workers):
            self._stopping = True
            self._ended(worker)
        for listener in self._all_listeners():
            listener.close()
        for end in (self._wake, self._woken):
            end.close()
        os.close(self._turns)

    # -- workers that stand still --

    def _look(self) -> None:
        """Has others accept for a worker that stands still or is out of descriptors, and no longer once it goes on."""
        ready = {fd for fd, _ in self._listeners.poll(0)}
        for worker in self._workers:
            pulse = self._shared.pulse(worker.seat)
            worker.moved, worker.pulse = pulse[0] != worker.pulse[0], pulse
        prove = False
        for slot in self._slots:
            own = slot.worker
            well = own is not None and own.serves and own.moved and not own.pulse[1]
            waited, slot.waiting = slot.waiting, any(listener.fileno() in ready for listener in slot.listeners)
            if slot.borrowers and well:
                for borrower in slot.borrowers:
                    borrower.tell(f"back {slot.number}")
                slot.borrowers.clear()
                log.info("%s goes on", own)
            elif waited and slot.waiting and not well and not any(each.moved for each in slot.borrowers):
                self._lend(slot)
            prove = prove or slot.waiting
        all_waited = self._all_waiting
        self._all_waiting = any(listener.fileno() in ready for listener in self._for_all)
        if self._all_waiting:
            prove = True
            if all_waited and (helper := self._helper()) is not None:
                helper.tell("look")
        if prove:
            self._prove()

    def _helper(self, slot: _Slot | None = None) -> _Worker | None:
        """Whoever is well, but a slot's own: the one with the least to do for others."""
        able = [
            worker for worker in self._workers
            if worker.serves and worker.moved and not (worker.leaving or worker.pulse[1] or worker.slot is slot)
        ]
        lent = [borrower for each in self._slots for borrower in each.borrowers]
        return min(able, key=lent.count, default=None)

    def _prove(self) -> None:
        """Wakes some, others each time: at the next look the loops of those that are well have moved."""
        able = [worker for worker in self._workers if worker.serves and not worker.leaving]
        self._proved = (self._proved + PROVED) % max(1, len(able))
        for worker in (able[self._proved :] + able[: self._proved])[:PROVED]:
            self._nudge(worker)

    def _nudge(self, worker: _Worker) -> None:
        """Has a worker's loop move."""
        with contextlib.suppress(OSError):
            os.eventfd_write(self._shared.waker(worker.seat), 1)

    def _lend(self, slot: _Slot) -> None:
        helper = self._helper(slot)
        if helper is None or helper in slot.borrowers:
            return
        if not slot.borrowers:
            trouble = "has no worker now"
            if slot.worker is not None:
                trouble = "is out of descriptors" if slot.worker.pulse[1] else "stands still"
            log.warning("%s %s: %s accepts for it", slot.worker or f"slot {slot.number}", trouble, helper)
        slot.borrowers.append(helper)
        fds = [listener.fileno() for listener in slot.listeners]
        for i in range(0, len(fds), MOST_FDS):
            helper.tell(f"lend {slot.number}", fds[i : i + MOST_FDS])

    def _return_from(self, worker: _Worker) -> None:
        """A worker accepts for others no longer: it ends."""
        for slot in self._slots:
            if worker in slot.borrowers:
                slot.borrowers.remove(worker)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:           # a real-time signal
        return f"signal {number}"
