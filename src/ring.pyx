"""The ring: what is published goes into it once, for all processes that share it.

Owns: the data, each process's index of what is there for it, the lock of those who publish, who is woken, what is lost.
Refuses to know: what is published, WebSockets, how processes come and go.

A publisher, under the lock, appends a record to the data and its position to the index of each seat that wants the
topic, of which the seat's table tells (interest). A reader takes positions out of its index, copies what lies there,
and then looks whether it was overwritten meanwhile: `head` moves before the first byte is written, and positions never
start over, so what lies further back than the data are long is gone. Publishers never wait for a reader within the
lock: an index that is full is left out. What a seat does not get is counted there.

The lock is robust (pthread_mutexattr_setrobust(3)): a publisher may be killed in it. What it was writing nobody has a
position of yet, or all is written. One that is stopped in it delays each other thread by LOCK_MS, once: `stuck` says
that there is nothing to wait for.

A reader with nothing to read begins a nap, by a number of its own, and then looks once more. A publisher that has put
something into its index wakes it, unless `told` says that it was woken from this nap. That is written after the
waking, so whoever is killed or stopped in between leaves a reader that the next publisher wakes.

`head`, `tail`, `read`, `naps` only grow, whoever has the seat.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from c1m.atomics cimport atomic_add, atomic_and, atomic_or, fence, load_acquire, store_release
from c1m.buf cimport Block, Slice, block_new, block_unref, ctz64, static_assert
from c1m.interest cimport Want, interest_count, interest_of, interest_set
from c1m.linux cimport (
    EBUSY, EOWNERDEAD, ETIMEDOUT, c_write, lock_for, pthread_mutex_consistent, pthread_mutex_trylock,
    pthread_mutex_unlock, shared_lock_init, usleep,
)
from c1m.siphash cimport sip_key_new, siphash13

cdef enum:
    LOCK_MS = 100                # that another may keep the lock
    WAIT_US = 1000               # between looks at a reader that is behind,
    WAITS = 100                  # and how many

cdef uint64_t NEVER = <uint64_t>-1     # of `read`

cdef struct Record:              # then the bytes, then the topic
    uint32_t n, topic_n
    uint32_t number
    uint32_t unused


cdef inline Want *wants_of(const Ring *r, int seat) noexcept nogil:
    return <Want *>(<char *>r.first_wants + seat * r.stride)


cdef inline uint64_t *index_of(const Ring *r, int seat) noexcept nogil:
    return <uint64_t *>(<char *>r.first_index + seat * r.stride)


cdef inline uint64_t *lost_of(const Ring *r, int seat) noexcept nogil:
    return <uint64_t *>(<char *>r.first_lost + seat * r.stride)


cdef inline int seat_after(const Ring *r, const uint64_t *some, int seat) noexcept nogil:
    """The next of some seats, a bit for each, behind one, or -1 at first; -1: there is none."""
    cdef uint64_t left
    seat += 1
    while seat < r.seats:
        left = load_acquire(&some[seat // 64]) >> (seat & 63)
        if left:
            return seat + ctz64(left)
        seat = (seat // 64 + 1) * 64
    return -1


cdef int ring_init(Ring *r) noexcept nogil:
    """A ring in memory that is all zeroes, once r says where; 0 or an errno."""
    r.head.serial = 1
    if not sip_key_new(&r.head.key):
        return EBUSY
    return shared_lock_init(&r.head.lock)


# ---- seats ----

cdef void ring_open(Ring *r, int seat) noexcept nogil:
    """A process begins to read there: what is published from now on."""
    cdef RingSeat *s = ring_seat(r, seat)
    store_release(&s.read, load_acquire(&s.tail))
    store_release(&s.naps, s.naps + 1)
    atomic_or(&r.head.open[seat // 64], <uint64_t>1 << (seat & 63))


cdef void ring_close(Ring *r, int seat) noexcept nogil:
    """Nobody reads there any more."""
    atomic_and(&r.head.open[seat // 64], ~(<uint64_t>1 << (seat & 63)))


cdef inline bint seat_is_open(const Ring *r, int seat) noexcept nogil:
    return load_acquire(&r.head.open[seat // 64]) >> (seat & 63) & 1


cdef void ring_wants(Ring *r, int seat, uint64_t hash, uint64_t before, uint64_t count) noexcept nogil:
    """A topic has so many subscribers at a seat now, after `before`. On the one thread that reads there."""
    interest_set(&ring_seat(r, seat).interest, wants_of(r, seat), r.most, hash, before, count)


cdef uint64_t ring_count(const Ring *r, uint64_t hash, int but) noexcept nogil:
    """How many subscribers a topic has at all seats but one."""
    cdef uint64_t count = 0
    cdef int seat = seat_after(r, r.head.open, -1)
    while seat >= 0:
        if seat != but:
            count += interest_count(&ring_seat(r, seat).interest, wants_of(r, seat), r.most, hash)
        seat = seat_after(r, r.head.open, seat)
    return count


# ---- the lock ----

cdef bint ring_lock(Ring *r) noexcept nogil:
    """Takes the lock of those who publish. False: whoever has it has kept it for too long."""
    cdef RingHead *h = r.head
    cdef uint64_t serial
    cdef int fault = pthread_mutex_trylock(&h.lock)
    if fault == EBUSY:
        serial = load_acquire(&h.serial)
        if serial == load_acquire(&h.stuck):
            return False
        fault = lock_for(&h.lock, LOCK_MS)
        if fault == ETIMEDOUT and serial == load_acquire(&h.serial):
            store_release(&h.stuck, serial)
    if fault == EOWNERDEAD:
        fault = pthread_mutex_consistent(&h.lock)
    if fault:
        return False
    store_release(&h.serial, h.serial + 1)
    return True


# ---- publishing ----

cdef inline void data_put(Ring *r, uint64_t position, const void *bytes, size_t n) noexcept nogil:
    cdef size_t at = position % r.size
    cdef size_t first = min(n, r.size - at)
    memcpy(r.data + at, bytes, first)
    memcpy(r.data, <const uint8_t *>bytes + first, n - first)


cdef inline void data_get(const Ring *r, uint64_t position, void *to, size_t n) noexcept nogil:
    cdef size_t at = position % r.size
    cdef size_t first = min(n, r.size - at)
    memcpy(to, r.data + at, first)
    memcpy(<uint8_t *>to + first, r.data, n - first)


cdef inline uint64_t data_append(Ring *r, Slice topic, uint32_t number, Slice bytes) noexcept nogil:
    """Appends a record, under the lock; returns its position."""
    cdef Record record = Record(<uint32_t>bytes.n, <uint32_t>topic.n, number, 0)
    cdef uint64_t position = r.head.head
    store_release(&r.head.head, position + ((sizeof(Record) + bytes.n + topic.n + 7) & ~<size_t>7))
    fence()                      # before the first byte: a reader that may have seen it sees that, too
    data_put(r, position, &record, sizeof(Record))
    data_put(r, position + sizeof(Record), bytes.at, bytes.n)
    data_put(r, position + sizeof(Record) + bytes.n, topic.at, topic.n)
    return position


cdef inline void index_put(Ring *r, int seat, uint64_t position) noexcept nogil:
    """Puts a position into a seat's index, under the lock."""
    cdef RingSeat *s = ring_seat(r, seat)
    if s.tail - load_acquire(&s.read) >= r.entries:
        atomic_add(lost_of(r, seat), 1)
        return
    index_of(r, seat)[s.tail & (r.entries - 1)] = position
    store_release(&s.tail, s.tail + 1)


cdef inline void seat_wake(Ring *r, int seat) noexcept nogil:
    cdef RingSeat *s = ring_seat(r, seat)
    cdef uint64_t nap = load_acquire(&s.naps), one = 1
    if nap != load_acquire(&s.told):
        c_write(r.wakers[seat], &one, sizeof(one))
        store_release(&s.told, nap)


cdef int ring_publish(Ring *r, int but, Slice topic, uint32_t number, Slice bytes) noexcept nogil:
    """Publishes bytes of a topic, together ring_longest at most, to all who want it but one seat, the publisher's own
    or -1. Any thread of any process may. Returns how many seats that is, or, below 0, how many have lost it."""
    cdef uint64_t[SEAT_WORDS] wanted
    cdef uint64_t hash = siphash13(&r.head.key, topic.at, topic.n), position
    cdef int n = 0, seat = seat_after(r, r.head.open, -1)
    memset(wanted, 0, (r.seats + 63) // 64 * sizeof(uint64_t))
    while seat >= 0:
        if seat != but and interest_of(&ring_seat(r, seat).interest, wants_of(r, seat), r.most, hash):
            wanted[seat // 64] |= <uint64_t>1 << (seat & 63)
            n += 1
        seat = seat_after(r, r.head.open, seat)
    if n == 0:
        return 0
    if not ring_lock(r):
        atomic_add(lost_of(r, but) if but >= 0 else &r.head.lost, n)
        return -n
    position = data_append(r, topic, number, bytes)
    seat = seat_after(r, wanted, -1)
    while seat >= 0:
        index_put(r, seat, position)
        seat = seat_after(r, wanted, seat)
    pthread_mutex_unlock(&r.head.lock)
    fence()                      # what is in an index is there before its reader's nap is looked at
    seat = seat_after(r, wanted, -1)
    while seat >= 0:
        seat_wake(r, seat)
        seat = seat_after(r, wanted, seat)
    return n


cdef void ring_wake_all(Ring *r) noexcept nogil:
    """Wakes all readers: a publisher may have died between what it has put into their indexes and their waking."""
    cdef uint64_t one = 1
    cdef int seat = seat_after(r, r.head.open, -1)
    while seat >= 0:
        c_write(r.wakers[seat], &one, sizeof(one))
        seat = seat_after(r, r.head.open, seat)


# ---- readers that are behind ----

cdef inline bint seat_behind(const Ring *r, int seat) noexcept nogil:
    """Whether half of its index, or of the data, waits for a reader, and it is not one that was waited for in vain."""
    cdef const RingSeat *s = ring_seat(r, seat)
    cdef uint64_t read = load_acquire(&s.read), waiting = load_acquire(&s.tail) - read
    if waiting == 0 or load_acquire(&s.given_up) == read + 1:
        return False
    return (2 * waiting > r.entries or
            2 * (load_acquire(&r.head.head) - index_of(r, seat)[read & (r.entries - 1)]) > r.size)


cdef bint ring_behind(const Ring *r, int but) noexcept nogil:
    """Whether a thread that may wait should do so before it publishes: ring_wait. But one seat is that of its own
    process."""
    cdef int seat = seat_after(r, r.head.open, -1)
    while seat >= 0:
        if seat != but and seat_behind(r, seat):
            return True
        seat = seat_after(r, r.head.open, seat)
    return False


cdef void ring_wait(Ring *r, int but) noexcept nogil:
    """Waits until every reader has caught up, a tenth of a second at most. One that has not moved in that time is not
    waited for again until it does."""
    cdef uint64_t[MAX_SEATS] before
    cdef int seat, _
    for seat in range(r.seats):
        before[seat] = load_acquire(&ring_seat(r, seat).read) if seat_is_open(r, seat) else NEVER
    for _ in range(WAITS):
        usleep(WAIT_US)
        if not ring_behind(r, but):
            return
    for seat in range(r.seats):
        if seat_is_open(r, seat) and seat_behind(r, seat) and load_acquire(&ring_seat(r, seat).read) == before[seat]:
            store_release(&ring_seat(r, seat).given_up, before[seat] + 1)


# ---- reading ----

cdef inline bint overwritten(const Ring *r, uint64_t position) noexcept nogil:
    """Whether what was just copied from there may be something else's."""
    fence()
    return load_acquire(&r.head.head) - position > r.size


cdef Block *record_copy(const Ring *r, uint64_t position, Received *to) noexcept nogil:
    """What lies at a position; NULL if it is gone, or memory is out."""
    cdef Record record
    cdef Block *block
    data_get(r, position, &record, sizeof(Record))
    if overwritten(r, position):
        return NULL
    block = block_new(<size_t>record.n + record.topic_n)
    if block == NULL:
        return NULL
    data_get(r, position + sizeof(Record), block.data, <size_t>record.n + record.topic_n)
    if overwritten(r, position):
        block_unref(block)
        return NULL
    block.size = record.n
    to.block, to.topic, to.number = block, Slice(&block.data[record.n], record.topic_n), record.number
    return block


cdef bint ring_next(Ring *r, int seat, Received *to) noexcept nogil:
    """The next message for a seat, whose block becomes the caller's. False: there is none. On the one thread that reads
    there."""
    cdef RingSeat *s = ring_seat(r, seat)
    cdef Block *block
    while s.read != load_acquire(&s.tail):
        block = record_copy(r, index_of(r, seat)[s.read & (r.entries - 1)], to)
        store_release(&s.read, s.read + 1)
        if block != NULL:
            return True
        atomic_add(lost_of(r, seat), 1)
    return False


cdef bint ring_rest(Ring *r, int seat) noexcept nogil:
    """There is no next one: the seat's eventfd is written to when there is. False: there is one already."""
    cdef RingSeat *s = ring_seat(r, seat)
    store_release(&s.naps, s.naps + 1)
    fence()                      # the nap has begun before the index is looked at
    return s.read == load_acquire(&s.tail)


static_assert(sizeof(RingSeat) == 128 + sizeof(Interest))
static_assert(sizeof(Record) == 16)
