"""What other threads ask of the reactor's. See mailbox.pyx."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from c1m.buf cimport Block
from c1m.linux cimport pthread_cond_t, pthread_mutex_t
from c1m.reactor cimport Reactor

cdef enum:
    MAX_COMMAND_BYTES = 4 << 20  # of commands that wait, above which their threads are slowed down

ctypedef int64_t (*command_t)(void *owner, const Command *command) noexcept nogil

cdef struct Command:
    Command *next
    command_t run                # does it, on the reactor's thread; returns how many messages that meant, 0 and up
    void *owner                  # its first argument
    uint64_t handle              # of a connection, or 0
    Block *topic                 # a name, or NULL
    Block *block                 # a message, a payload, or NULL
    uint32_t number              # an opcode, a close code, a flag

cdef struct Mailbox:
    Reactor *r
    pthread_mutex_t lock         # over all below
    pthread_cond_t less          # the commands that wait take no more than MAX_COMMAND_BYTES
    Command *first
    Command *last
    size_t bytes                 # of memory that the commands take
    int waiting                  # threads that wait for less
    bint closed                  # nobody runs commands any more: they are dropped

cdef void mailbox_init(Mailbox *m, Reactor *r) noexcept nogil
cdef void mailbox_free(Mailbox *m) noexcept nogil
cdef void mailbox_close(Mailbox *m) noexcept nogil
cdef bint mailbox_add(Mailbox *m, Command command) noexcept nogil
cdef void mailbox_wait(Mailbox *m) noexcept nogil
cdef bint mailbox_run(Mailbox *m) noexcept nogil


cdef inline bint mailbox_full(const Mailbox *m) noexcept nogil:
    """Whether a thread that asks for more should wait; a guess, made without the lock."""
    return m.bytes > MAX_COMMAND_BYTES
