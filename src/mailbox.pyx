"""The mailbox: commands of other threads for the reactor's.

Owns: the list of commands, its bound, and the threads that are made to wait for it.
Refuses to know: what a command does.

A command owns its blocks: no reference is ever counted by two threads at once.
"""

from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc

from c1m.buf cimport block_unref
from c1m.linux cimport (
    CLOCK_MONOTONIC, clock_gettime, pthread_cond_broadcast, pthread_cond_destroy, pthread_cond_init,
    pthread_cond_timedwait, pthread_condattr_destroy, pthread_condattr_init, pthread_condattr_setclock,
    pthread_condattr_t, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
    timespec,
)
from c1m.reactor cimport reactor_wake

cdef enum:
    MAX_COMMANDS = 4096          # and messages that they bring, in an iteration, before other connections have theirs
    MAX_WAIT_NS = 100000000      # of a thread that is slowed down, lest the reactor's in turn wait for what it holds
    SECOND_NS = 1000000000


cdef void mailbox_init(Mailbox *m, Reactor *r) noexcept nogil:
    """An empty mailbox, in memory that is all zeroes."""
    cdef pthread_condattr_t attributes
    m.r = r
    pthread_mutex_init(&m.lock, NULL)
    pthread_condattr_init(&attributes)
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    pthread_cond_init(&m.less, &attributes)
    pthread_condattr_destroy(&attributes)


cdef void mailbox_free(Mailbox *m) noexcept nogil:
    """Frees the commands that nobody will run. Nobody may wait any more."""
    while m.first != NULL:
        command_free(m)
    pthread_cond_destroy(&m.less)
    pthread_mutex_destroy(&m.lock)


cdef void mailbox_close(Mailbox *m) noexcept nogil:
    """The reactor has stopped: drops the commands that wait and all that come, and lets waiting threads go on."""
    cdef Mailbox mine
    pthread_mutex_lock(&m.lock)
    mine.first = m.first
    m.first = m.last = NULL
    m.bytes = 0
    m.closed = True
    pthread_cond_broadcast(&m.less)
    pthread_mutex_unlock(&m.lock)
    while mine.first != NULL:
        command_free(&mine)


cdef inline size_t command_bytes(const Command *command) noexcept nogil:
    return (sizeof(Command) + (0 if command.topic == NULL else command.topic.capacity) +
            (0 if command.block == NULL else command.block.capacity))


cdef inline size_t command_free(Mailbox *m) noexcept nogil:
    """Frees the first command of a list that no other thread sees; returns the bytes that it took."""
    cdef Command *command = m.first
    cdef size_t bytes = command_bytes(command)
    m.first = command.next
    block_unref(command.block)
    block_unref(command.topic)
    free(command)
    return bytes


cdef bint mailbox_add(Mailbox *m, Command command) noexcept nogil:
    """Asks the reactor's thread for something, and takes the command's blocks over; once that has
    stopped it is dropped. False: memory is out.

    A thread that may wait calls mailbox_wait afterwards where mailbox_full says so.
    """
    cdef Command *copy = <Command *>malloc(sizeof(Command))
    cdef bint first
    if copy == NULL:
        block_unref(command.topic)
        block_unref(command.block)
        return False
    copy[0] = command
    copy.next = NULL
    pthread_mutex_lock(&m.lock)
    if m.closed:
        pthread_mutex_unlock(&m.lock)
        block_unref(command.topic)
        block_unref(command.block)
        free(copy)
        return True
    first = m.first == NULL
    if first:
        m.first = copy
    else:
        m.last.next = copy
    m.last = copy
    m.bytes += command_bytes(copy)
    if first:
        reactor_wake(m.r)
    pthread_mutex_unlock(&m.lock)
    return True


cdef void mailbox_wait(Mailbox *m) noexcept nogil:
    """Waits until the reactor has caught up with what other threads ask for, a tenth of a second at most."""
    cdef timespec until
    clock_gettime(CLOCK_MONOTONIC, &until)
    until.tv_nsec += MAX_WAIT_NS
    if until.tv_nsec >= SECOND_NS:
        until.tv_sec += 1
        until.tv_nsec -= SECOND_NS
    pthread_mutex_lock(&m.lock)
    m.waiting += 1
    while m.bytes > MAX_COMMAND_BYTES and pthread_cond_timedwait(&m.less, &m.lock, &until) == 0:
        pass
    m.waiting -= 1
    pthread_mutex_unlock(&m.lock)


cdef bint mailbox_run(Mailbox *m) noexcept nogil:
    """Runs commands, MAX_COMMANDS at most. Returns True when none is left."""
    cdef Mailbox mine
    cdef int64_t budget = MAX_COMMANDS
    cdef size_t freed = 0
    pthread_mutex_lock(&m.lock)
    mine.first, mine.last = m.first, m.last
    m.first = m.last = NULL
    pthread_mutex_unlock(&m.lock)
    while mine.first != NULL and budget > 0:
        budget -= 1 + mine.first.run(mine.first.owner, mine.first)
        freed += command_free(&mine)
    pthread_mutex_lock(&m.lock)
    m.bytes -= freed
    if mine.first != NULL:       # back to where they were: before what came meanwhile
        mine.last.next = m.first
        if m.first == NULL:
            m.last = mine.last
        m.first = mine.first
    if m.waiting and m.bytes <= MAX_COMMAND_BYTES:
        pthread_cond_broadcast(&m.less)
    pthread_mutex_unlock(&m.lock)
    return mine.first == NULL
