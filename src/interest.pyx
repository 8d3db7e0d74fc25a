"""Which topics a process wants, in memory that other processes read while it changes.

Owns: a hash table from a topic's hash to its subscribers there, and how it is read without a lock.
Refuses to know: topics' names, what is published, whose table it is.

One thread writes it; any thread of any process reads it. Open addressing with linear probing: an entry that goes is
filled by those behind it that may stand there, so there are no tombstones. The table begins with one page and doubles
in place, so few topics touch few pages, up to `most` entries, of which 3/4 are taken; for topics beyond those readers
are told that they can't tell, until as many have gone.

Entries move under a sequence lock: `sequence` is odd meanwhile, and a reader that finds it so, or changed when it has
read, tries again, a bounded number of times. A count that changes moves nothing, and takes one store.

Two topics of the same 64-bit hash count as one. The key of the hash is random, so nobody can look for them.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from c1m.atomics cimport fence, load_acquire, store_release

cdef enum:
    FIRST_ENTRIES = 256          # 4 KiB
    READS = 64                   # attempts


cdef inline uint64_t name_of(uint64_t hash) noexcept nogil:
    """A hash that is not 0."""
    return hash or 1


cdef inline uint64_t place_of(const Want *table, uint64_t mask, uint64_t hash) noexcept nogil:
    """Where an entry is or would be: there is always a free one. Bounded, for a reader may see any mixture."""
    cdef uint64_t at = hash & mask, _
    for _ in range(mask):
        if table[at].hash == hash or table[at].hash == 0:
            break
        at = at + 1 & mask
    return at


cdef inline void moving(Interest *i) noexcept nogil:
    """Entries are about to move, or have moved."""
    fence()
    store_release(&i.sequence, i.sequence + 1)
    fence()


cdef bint room_for_one(Interest *i, Want *table, uint64_t most) noexcept nogil:
    """Whether there is room for one more entry, for which the table grows. Called while entries may move."""
    cdef uint64_t old = i.mask + 1, at
    cdef Want *kept
    if i.mask == 0:
        i.mask = min(<uint64_t>FIRST_ENTRIES, most) - 1
        return True
    if 4 * (i.used + 1) <= 3 * old:
        return True
    if old == most:
        return False
    kept = <Want *>malloc(old * sizeof(Want))
    if kept == NULL:
        return False
    memcpy(kept, table, old * sizeof(Want))
    memset(table, 0, old * sizeof(Want))
    i.mask = 2 * old - 1
    for at in range(old):
        if kept[at].hash:
            table[place_of(table, i.mask, kept[at].hash)] = kept[at]
    free(kept)
    return True


cdef void entry_drop(Interest *i, Want *table, uint64_t at) noexcept nogil:
    """Frees an entry; what stood behind it and may stand there moves up (Knuth, volume 3, algorithm 6.4R)."""
    cdef uint64_t behind = at
    i.used -= 1
    while True:
        table[at].hash = table[at].count = 0
        while True:
            behind = behind + 1 & i.mask
            if table[behind].hash == 0:
                return
            # It may not move before where its hash would have it.
            if (behind - table[behind].hash & i.mask) >= (behind - at & i.mask):
                break
        table[at] = table[behind]
        at = behind


cdef bint interest_set(
    Interest *i, Want *table, uint64_t most, uint64_t hash, uint64_t before, uint64_t count
) noexcept nogil:
    """A topic has now so many subscribers, after `before`. most: entries that there is memory for, a power of two from
    4 on. False: there is no room for it."""
    cdef uint64_t at
    hash = name_of(hash)
    at = place_of(table, i.mask, hash)
    if i.mask and table[at].hash == hash:
        if count:
            store_release(&table[at].count, count)
            return True
        moving(i)
        entry_drop(i, table, at)
        moving(i)
        return True
    if before:
        i.untold -= 1            # it is not in the table although it has subscribers
    if count == 0:
        return True
    moving(i)
    if room_for_one(i, table, most):
        table[place_of(table, i.mask, hash)] = Want(hash, count)
        i.used += 1
        moving(i)
        return True
    i.untold += 1
    moving(i)
    return False


cdef inline int64_t looked_up(const Interest *i, const Want *table, uint64_t most, uint64_t hash) noexcept nogil:
    """The count of a topic, 0 for none; CANT_TELL: entries moved all the time."""
    cdef uint64_t sequence, mask, at, count
    cdef int _
    hash = name_of(hash)
    for _ in range(READS):
        sequence = load_acquire(&i.sequence)
        if sequence & 1:
            continue
        mask = min(i.mask, most - 1)
        count = 0
        if mask:
            at = place_of(table, mask, hash)
            count = load_acquire(&table[at].count) if table[at].hash == hash else 0
        fence()
        if load_acquire(&i.sequence) == sequence:
            return <int64_t>count
    return CANT_TELL


cdef int64_t interest_of(const Interest *i, const Want *table, uint64_t most, uint64_t hash) noexcept nogil:
    """How many subscribers a topic has there; CANT_TELL: perhaps some. Any thread and process may ask."""
    cdef int64_t count = looked_up(i, table, most, hash)
    return CANT_TELL if count == 0 and load_acquire(&i.untold) else count


cdef uint64_t interest_count(const Interest *i, const Want *table, uint64_t most, uint64_t hash) noexcept nogil:
    """How many subscribers of a topic are known of; 0 where nobody can tell. Any thread and process may ask."""
    return <uint64_t>max(looked_up(i, table, most, hash), <int64_t>0)


cdef void interest_clear(Interest *i) noexcept nogil:
    """The process is no more, and its table, whatever became of it, is all zeroes again: nothing is wanted."""
    i.mask = i.used = i.untold = 0
    store_release(&i.sequence, i.sequence + 1 & ~<uint64_t>1)
