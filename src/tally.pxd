"""What the processes of a load count, in memory that they share with the one that started them. See tally.pyx."""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from c1m.histogram cimport Histogram

cdef enum LoadPhase:             # Tally.phase, of a process
    STARTING
    OPENING                      # its connections
    READY                        # they are open, or have failed: it waits for the word
    RUNNING
    DRAINING                     # sends no more, and waits for the answers to what it has sent
    DONE

cdef enum Fault:                 # what becomes of a connection or a message, besides an answer; FAULTS has the names
    NO_FAULT
    REFUSED
    UNREACHABLE                  # connect(2) has failed with another errno
    NO_PORT                      # of our own left, at this source address
    NO_DESCRIPTOR
    RESET
    TIMED_OUT
    NOT_UPGRADED                 # the handshake got another status than 101: Tally.refused
    NOT_COMPRESSED               # compression was asked for, and not agreed on
    CLOSED_BY_PEER               # with a Close frame: Tally.closes
    CUT                          # the end of the stream where more had to come
    WRONG_ECHO
    BROKEN                       # the protocol: Tally.reason
    BAD_STATUS                   # a response of 400 and up: Tally.statuses
    UNANSWERED                   # due by the schedule, and not answered when the load ended

cdef enum:
    FAULTS_N = <int>UNANSWERED + 1       # Cython 3.1 takes no named enumeration for an array's length
    STATUSES = 1000              # of HTTP
    CLOSE_CODES = 5000
    REASON = 128                 # bytes of text with its zero

cdef struct Control:             # written by the process that started the others
    int32_t go                   # begin to measure
    int32_t stop                 # end at once

cdef struct Tally:               # written by one process
    int32_t phase                # LoadPhase
    int32_t fault                # of the first UNREACHABLE
    int64_t connected            # now
    uint64_t opened, failed      # connections, over all
    uint64_t sent, answered      # messages or requests, while it was RUNNING or DRAINING
    uint64_t delivered           # messages that nobody asked for, likewise
    uint64_t bytes_in, bytes_out    # likewise
    uint64_t[FAULTS_N] faults
    uint32_t[STATUSES] statuses, refused
    uint32_t[CLOSE_CODES] closes
    char[REASON] reason          # of the first BROKEN
    int64_t begun_ns, ended_ns   # CLOCK_MONOTONIC
    int64_t cpu_ns               # that it took in this time
    Histogram latency            # ns


cdef inline Tally *tallies_in(void *shared) noexcept nogil:
    """The first; the others follow."""
    return <Tally *>(<char *>shared + 64)
