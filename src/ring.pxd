"""What is published, for all processes at once. See ring.pyx."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from c1m.buf cimport Block, Slice
from c1m.interest cimport Interest, Want
from c1m.linux cimport pthread_mutex_t
from c1m.siphash cimport SipKey

cdef enum:
    MAX_SEATS = 4096
    SEAT_WORDS = MAX_SEATS // 64

cdef struct RingHead:            # in shared memory, and the data behind it
    uint64_t head                # bytes that were ever appended, and those that are being
    uint64_t[7] head_apart       # the readers', each of which has a cache line to itself
    pthread_mutex_t lock         # robust: of those who publish
    uint64_t serial              # how often it was taken
    uint64_t stuck               # the serial of one that has kept it too long
    uint64_t lost                # messages that did not get to a process, of a publisher that has no seat
    SipKey key                   # of the hashes of topics
    uint64_t[SEAT_WORDS] open    # a bit for each seat that reads

cdef struct RingSeat:            # in shared memory, one for each process
    uint64_t tail                # positions that were ever put into its index
    uint64_t told                # the nap that it was last woken from
    uint64_t given_up            # `read`, and 1, at which publishers have waited for it in vain
    uint64_t[5] readers_apart
    uint64_t read                # positions that were ever taken out of its index
    uint64_t naps                # how often it has found nothing more to read
    uint64_t[6] interest_apart
    Interest interest

cdef struct Ring:                # as each process has it: where all that lies
    RingHead *head
    uint8_t *data
    uint64_t size                # of the data, a multiple of 8
    RingSeat *first              # of the seats, one each `stride` bytes
    Want *first_wants            # likewise
    uint64_t *first_index
    uint64_t *first_lost         # messages that a seat has not got, or that were its own and others have not got
    size_t stride
    int seats
    uint64_t entries             # of each index, a power of two
    uint64_t most                # entries of each table of wants, a power of two
    const int *wakers            # eventfds, by seat

cdef struct Received:            # what ring_next has found
    Block *block                 # the bytes, and behind them, beyond its size, the topic
    Slice topic
    uint32_t number

cdef int ring_init(Ring *r) noexcept nogil
cdef void ring_open(Ring *r, int seat) noexcept nogil
cdef void ring_close(Ring *r, int seat) noexcept nogil
cdef void ring_wants(Ring *r, int seat, uint64_t hash, uint64_t before, uint64_t count) noexcept nogil
cdef uint64_t ring_count(const Ring *r, uint64_t hash, int but) noexcept nogil
cdef int ring_publish(Ring *r, int but, Slice topic, uint32_t number, Slice bytes) noexcept nogil
cdef bint ring_behind(const Ring *r, int but) noexcept nogil
cdef void ring_wait(Ring *r, int but) noexcept nogil
cdef bint ring_next(Ring *r, int seat, Received *to) noexcept nogil
cdef bint ring_rest(Ring *r, int seat) noexcept nogil
cdef void ring_wake_all(Ring *r) noexcept nogil


cdef inline RingSeat *ring_seat(const Ring *r, int seat) noexcept nogil:
    return <RingSeat *>(<char *>r.first + seat * r.stride)

cdef inline size_t ring_longest(const Ring *r) noexcept nogil:
    """How many bytes a message may have, its topic among them."""
    return r.size // 4
