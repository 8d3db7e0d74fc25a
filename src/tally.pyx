"""What the processes of a load count, and its sum.

Owns: the layout of the shared memory, names of faults. Refuses to know: sockets, who counts.

Each process writes its own Tally, and nothing else but Control is written by two: no lock is needed, and a count that
is read meanwhile is at worst a moment old.
"""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdlib cimport calloc, free
from libc.string cimport strlen

from c1m.histogram cimport Histogram, bucket_most, histogram_at, histogram_merge, BUCKETS

PHASES = ("starting", "opening", "ready", "running", "draining", "done")
FAULTS = (
    "", "refused", "unreachable", "no free port", "no descriptor", "reset", "timed out", "handshake refused",
    "no compression", "closed", "cut off", "wrong echo", "broken protocol", "status", "unanswered",
)


def shared_size(int processes):
    """Bytes of shared memory that so many processes need, zero at first."""
    return 64 + processes * sizeof(Tally)


cdef dict numbered(const uint32_t *counts, int n):
    """Those that are not 0, by their index."""
    return {i: counts[i] for i in range(n) if counts[i]}


cdef class Tallies:
    """The tallies of a load's processes, read by the one that started them.

    shared: a writable buffer of shared_size(processes) bytes.
    """

    cdef Py_buffer view
    cdef int processes

    def __cinit__(self, shared, int processes):
        PyObject_GetBuffer(shared, &self.view, PyBUF_WRITABLE)
        self.processes = processes

    def __dealloc__(self):
        PyBuffer_Release(&self.view)

    cdef Tally *tally(self, int i) noexcept:
        return tallies_in(self.view.buf) + i

    def go(self):
        """Lets them begin to measure."""
        (<Control *>self.view.buf).go = 1

    def stop(self):
        """Lets them end at once."""
        (<Control *>self.view.buf).stop = 1

    def phases(self):
        """Where each process is, one of PHASES."""
        return [PHASES[self.tally(i).phase] for i in range(self.processes)]

    def busy(self):
        """The share of a CPU that each process took while it measured, 0 to 1."""
        cdef Tally *t
        shares = []
        for i in range(self.processes):
            t = self.tally(i)
            shares.append(<double>t.cpu_ns / (t.ended_ns - t.begun_ns) if t.ended_ns > t.begun_ns else 0.0)
        return shares

    def counts(self):
        """The sum of all, as a dict of whole numbers: `connected`, `opened`, `failed`, `sent`, `answered`,
        `delivered`, `bytes_in`, `bytes_out`, and `begun_ns` and `ended_ns` of CLOCK_MONOTONIC, 0 before.
        """
        cdef Tally *t
        total = dict.fromkeys(
            ("connected", "opened", "failed", "sent", "answered", "delivered", "bytes_in", "bytes_out"), 0)
        begun, ended = [], []
        for i in range(self.processes):
            t = self.tally(i)
            total["connected"] += t.connected
            total["opened"] += t.opened
            total["failed"] += t.failed
            total["sent"] += t.sent
            total["answered"] += t.answered
            total["delivered"] += t.delivered
            total["bytes_in"] += t.bytes_in
            total["bytes_out"] += t.bytes_out
            begun += [t.begun_ns] if t.begun_ns else []
            ended += [t.ended_ns] if t.ended_ns else []
        return {**total, "begun_ns": min(begun, default=0), "ended_ns": max(ended, default=0)}

    def faults(self):
        """What went wrong, by one of FAULTS: how often, a dict; with what each knows more of as dicts and texts:
        `statuses` of responses and `refused` handshakes, `closes` by their code, `reason`, `fault`, an errno."""
        counts, statuses, refused, closes, reason, fault_said = {}, {}, {}, {}, "", 0
        for i in range(self.processes):
            t = self.tally(i)
            for fault in range(1, FAULTS_N):
                if t.faults[fault]:
                    counts[FAULTS[fault]] = counts.get(FAULTS[fault], 0) + t.faults[fault]
            for total, some in (
                (statuses, numbered(t.statuses, STATUSES)), (refused, numbered(t.refused, STATUSES)),
                (closes, numbered(t.closes, CLOSE_CODES)),
            ):
                for number, times in some.items():
                    total[number] = total.get(number, 0) + times
            reason = reason or t.reason[:strlen(t.reason)].decode()
            fault_said = fault_said or t.fault
        return {"counts": counts, "statuses": statuses, "refused": refused, "closes": closes, "reason": reason,
                "fault": fault_said}

    def latencies(self, shares, bint buckets=False):
        """The latencies so far in nanoseconds: how many, their sum, least, greatest, the value below or at which each
        of these shares (0 to 1) of them lie; and, if wanted, a list of (value, times) by ascending value, else None.
        """
        cdef Histogram *h = <Histogram *>calloc(1, sizeof(Histogram))
        cdef int i
        if h == NULL:
            raise MemoryError
        try:
            for i in range(self.processes):
                histogram_merge(h, &self.tally(i).latency)
            listed = [(bucket_most(i), h.counts[i]) for i in range(BUCKETS) if h.counts[i]] if buckets else None
            return h.total, h.sum, h.least, h.most, [histogram_at(h, share) for share in shares], listed
        finally:
            free(h)
