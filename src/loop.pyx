"""The reactor as Python sees it: a class to derive an application from, and what a fork means for it.

Owns: running and ending, errors as exceptions. Refuses to know: what is served.
"""

import os
from weakref import WeakSet

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t

from c1m.linux cimport ENOMEM, pthread_self
from c1m.reactor cimport (
    ALONE, ASKED_SHUTDOWN, ASKED_STOP, SHARED, TAKING_TURNS, Reactor, listener_add, listener_close, listeners_close,
    listeners_leave, listeners_rewatch, poll_timeout, reactor_attend, reactor_close_all, reactor_forget,
    reactor_free, reactor_init, reactor_iterate, reactor_proceed, reactor_run, reactor_unattend, reactor_wake,
    shutdown_done,
)

LOOPS = WeakSet()                # all there are, for forks


def forget_all():
    """What a child does right after a fork."""
    for loop in list(LOOPS):
        (<Loop>loop).forget()


os.register_at_fork(after_in_child=forget_all)


cdef class Loop:
    """One reactor; an application derives from it and adds protocols and callbacks.

    It belongs to the thread that runs it. shutdown() and stop() may be called from any. In the child of a
    fork its descriptors are closed, and it can't be run any more.

    write_timeout_ms: how long queued output may wait for the client to read, in milliseconds. shared: a Shared, whose
    waker for `seat` wakes this reactor from other processes.
    Raises OSError where the kernel gives no epoll or eventfd, MemoryError.
    """

    def __cinit__(self, *, int64_t write_timeout_ms, shared=None, int seat=-1, **_):
        cdef int waker = -1 if shared is None else os.dup(shared.waker(seat))
        cdef int fault = reactor_init(&self.r, write_timeout_ms, waker)
        if fault == ENOMEM:
            raise MemoryError("no memory for a connection table")
        if fault:
            raise OSError(fault, f"cannot start: {os.strerror(fault)}")
        self.attended = {}
        LOOPS.add(self)

    def __dealloc__(self):
        reactor_free(&self.r)

    def listen(self, int fd, *, bint shared=False, bint turns=False):
        """Accepts connections from a listening, non-blocking socket, whose fd is the reactor's from now on.

        shared: other processes have it open, too; turns: and accept from it, so that not all are to wake up for each
        connection. Raises OSError.
        """
        check_watched(listener_add(&self.r, fd, TAKING_TURNS if turns else SHARED if shared else ALONE))

    def borrow(self, fds):
        """Accepts from another process's listeners as well, as listen() has it, until give_back(). Raises OSError."""
        for fd in fds:
            self.listen(fd, shared=True)
        self.r.counts.lent += len(fds) != 0

    def give_back(self, fds):
        """Accepts from some listeners no longer, and closes their fds. Between iterations."""
        for fd in fds:
            listener_close(&self.r, fd)

    def leave(self):
        """Accepts whoever waits at the listeners, and then nobody any more. Between iterations."""
        with nogil:
            listeners_leave(&self.r)

    def look_again(self):
        """Accepts what waits at the listeners that processes take turns at, whoever's turn it was."""
        listeners_rewatch(&self.r)

    def attend(self, int fd, call):
        """Calls call() between two iterations while an fd is readable, and whenever a signal came. The fd remains the
        caller's, who ends this by unattend() before it is closed. Raises OSError."""
        check_watched(reactor_attend(&self.r, fd))
        self.attended[fd] = call

    def unattend(self, int fd):
        """The end of attend()."""
        if self.attended.pop(fd, None) is not None and not self.r.forked:
            reactor_unattend(&self.r, fd)

    cdef see(self):
        """Python's part, where a signal came or an attended fd is readable. Raises whatever it raises."""
        self.r.interrupted = False
        PyErr_CheckSignals()
        for call in list(self.attended.values()):
            call()

    def run(self):
        """Serves until shutdown() or stop(), without the GIL; whatever a Python signal handler, or what attend() was
        given, raises ends it too.

        Raises RuntimeError if it runs already or was made before a fork, OSError if epoll fails.
        """
        cdef bint stopped = False
        if self.running or self.r.iterating:
            raise RuntimeError("this server is running already")
        self.check_forked()
        self.running = True
        try:
            while not stopped:
                with nogil:
                    stopped = reactor_run(&self.r)
                self.see()
        finally:
            listeners_close(&self.r)
            reactor_close_all(&self.r)
            self.running = False
        self.check_fault()

    def fileno(self):
        """A descriptor that is readable when iterate() has something to do; for another event loop to watch."""
        return self.r.epoll

    def iterate(self):
        """One iteration without waiting, in place of run(). Returns after how many milliseconds the next is due, though
        the descriptor be silent (-1: never), or None when the server has stopped and everything is closed.

        Raises OSError if epoll fails; then everything is closed.
        """
        cdef Reactor *r = &self.r
        cdef bint stopped
        if r.iterating:
            return 1             # a handler runs a loop within the loop
        if r.forked:
            return None
        with nogil:
            r.thread = pthread_self()
            reactor_iterate(r, 0)
            stopped = shutdown_done(r) or r.fault
            if stopped:
                listeners_close(r)
                reactor_close_all(r)
        self.check_fault()
        if r.interrupted:
            self.see()
        return None if stopped or r.forked else poll_timeout(r)

    def shutdown(self, int64_t grace_ms, int64_t drain_ms):
        """Stops accepting, tells the connections that are spread over up to drain_ms, lets what is in flight finish for
        up to grace_ms more, then ends run()."""
        self.r.grace_ms, self.r.drain_ms = grace_ms, drain_ms
        self.r.asked = max(self.r.asked, <int>ASKED_SHUTDOWN)
        reactor_wake(&self.r)

    def proceed(self):
        """Says, on the reactor's thread, that the application has said its goodbyes: see Callbacks.draining."""
        reactor_proceed(&self.r)

    def left_ms(self):
        """How many milliseconds a shutdown that is under way may still take."""
        return max(0, self.r.shutdown_by_ms - self.r.now_ms)

    def wake(self):
        """Has the reactor make an iteration, if it can; counters() tells. Any thread may call it."""
        reactor_wake(&self.r)

    def stop(self):
        """Ends run() now; whatever is in flight is cut off."""
        self.r.asked = ASKED_STOP
        reactor_wake(&self.r)

    def forget(self):
        """Closes every descriptor in the child of a fork, so that what the parent closes does end."""
        if self.r.epoll >= 0:
            reactor_forget(&self.r)

    def check_forked(self):
        """Raises RuntimeError in the child of a fork."""
        if self.r.forked:
            raise RuntimeError("this server listened before a fork, its sockets are the parent's: listen in the child")

    def check_fault(self):
        """Raises OSError if epoll has failed, which it can only if its descriptor was closed."""
        if self.r.fault:
            raise OSError(self.r.fault, f"epoll_wait: {os.strerror(self.r.fault)}")


cdef check_watched(int fault):
    """Raises OSError for an errno."""
    if fault:
        raise OSError(fault, f"cannot watch a socket: {os.strerror(fault)}")
