"""Byte arithmetic: loads and stores, character classes, word-wide scans, and the block that bytes live in.

Inline only, so that every user compiles its own copy and no call is made. Knows nothing with a name:
no header, no frame, no connection.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, strlen

cdef extern from *:
    """
    #include <unistd.h>

    #define C1M_STATIC_ASSERT(condition) _Static_assert(condition, #condition)

    /* Character classes of RFC 9110 section 5.6.2 and RFC 3986, one bit each. */
    enum { C1M_TOKEN = 1, C1M_DIGIT = 2, C1M_HEX = 4, C1M_TARGET = 8, C1M_HOST = 16, C1M_ALNUM = 32 };
    #define C1M_NAME (C1M_TOKEN | C1M_TARGET | C1M_HOST)
    static const unsigned char c1m_class[256] = {
        ['0' ... '9'] = C1M_NAME | C1M_ALNUM | C1M_DIGIT | C1M_HEX,
        ['A' ... 'F'] = C1M_NAME | C1M_ALNUM | C1M_HEX, ['a' ... 'f'] = C1M_NAME | C1M_ALNUM | C1M_HEX,
        ['G' ... 'Z'] = C1M_NAME | C1M_ALNUM, ['g' ... 'z'] = C1M_NAME | C1M_ALNUM,
        /* in tokens, in targets, in hosts (sub-delims and unreserved) */
        ['!'] = C1M_NAME, ['$'] = C1M_NAME, ['&'] = C1M_NAME, ['\\''] = C1M_NAME,
        ['*'] = C1M_NAME, ['+'] = C1M_NAME, ['-'] = C1M_NAME, ['.'] = C1M_NAME, ['_'] = C1M_NAME,
        ['~'] = C1M_NAME, ['%'] = C1M_TOKEN | C1M_TARGET,
        ['('] = C1M_TARGET | C1M_HOST, [')'] = C1M_TARGET | C1M_HOST, [','] = C1M_TARGET | C1M_HOST,
        [';'] = C1M_TARGET | C1M_HOST, ['='] = C1M_TARGET | C1M_HOST,
        ['^'] = C1M_TOKEN | C1M_TARGET, ['`'] = C1M_TOKEN | C1M_TARGET, ['|'] = C1M_TOKEN | C1M_TARGET,
        ['#'] = C1M_TOKEN,
        /* browsers send these raw in queries, so a target may hold them although RFC 3986 has them escaped */
        ['/'] = C1M_TARGET, [':'] = C1M_TARGET, ['?'] = C1M_TARGET, ['@'] = C1M_TARGET,
        ['['] = C1M_TARGET, [']'] = C1M_TARGET, ['{'] = C1M_TARGET, ['}'] = C1M_TARGET,
        ['<'] = C1M_TARGET, ['>'] = C1M_TARGET, ['"'] = C1M_TARGET, ['\\\\'] = C1M_TARGET,
    };

    /* Reference-counted bytes: in memory, or in an open file (then fd >= 0 and data is empty). */
    typedef struct {
        uint32_t refcount;
        int fd;
        size_t size;          /* bytes in use */
        size_t capacity;      /* bytes allocated behind the header */
        unsigned char data[];
    } c1m_block;

    /* n, of which gcc then knows nothing. */
    static inline size_t c1m_forgotten(size_t n) { __asm__("" : "+r"(n)); return n; }

    /* A bit for each of 16 bytes that is a control character other than tab, where the CPU can tell in a few steps. */
    #ifdef __SSE2__
    #include <emmintrin.h>
    enum { C1M_SIXTEEN = 1 };
    static inline unsigned c1m_controls(const unsigned char *p) {
        __m128i v = _mm_loadu_si128((const __m128i *)p);
        __m128i below = _mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(0x1f)), v);
        below = _mm_andnot_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('\t')), below);
        return _mm_movemask_epi8(_mm_or_si128(below, _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f))));
    }
    #else
    enum { C1M_SIXTEEN = 0 };
    static inline unsigned c1m_controls(const unsigned char *p) { return 0; }
    #endif
    """
    enum:
        TOKEN "C1M_TOKEN"
        DIGIT "C1M_DIGIT"
        HEX "C1M_HEX"
        TARGET "C1M_TARGET"
        HOST "C1M_HOST"
        ALNUM "C1M_ALNUM"
    const uint8_t[256] CLASS "c1m_class"
    size_t forgotten "c1m_forgotten"(size_t n) noexcept nogil
    bint SIXTEEN "C1M_SIXTEEN"
    uint32_t controls "c1m_controls"(const uint8_t *p) noexcept nogil
    uint64_t TOP_BITS "0x8080808080808080ULL"
    uint64_t EACH_BYTE "0x0101010101010101ULL"    # times a byte: that byte eight times

    ctypedef struct Block "c1m_block":
        uint32_t refcount
        int fd
        size_t size
        size_t capacity
        uint8_t data[0]

    int close(int fd) noexcept nogil
    uint16_t bswap16 "__builtin_bswap16"(uint16_t) noexcept nogil
    uint64_t bswap64 "__builtin_bswap64"(uint64_t) noexcept nogil
    int ctz64 "__builtin_ctzll"(uint64_t) noexcept nogil
    int BIG_ENDIAN_HOST "(__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__)"
    void static_assert "C1M_STATIC_ASSERT"(bint condition) noexcept nogil    # judged by the C compiler


cdef struct Slice:           # bytes in somebody else's buffer
    const uint8_t *at
    size_t n


# ---- loads and stores ----

cdef inline uint64_t load64(const void *p) noexcept nogil:
    cdef uint64_t v
    memcpy(&v, p, 8)
    return v

cdef inline uint64_t load_le64(const void *p) noexcept nogil:
    cdef uint64_t v = load64(p)
    return bswap64(v) if BIG_ENDIAN_HOST else v

cdef inline void store64(void *p, uint64_t v) noexcept nogil:
    memcpy(p, &v, 8)

cdef inline uint32_t load32(const void *p) noexcept nogil:
    cdef uint32_t v
    memcpy(&v, p, 4)
    return v

cdef inline void store32(void *p, uint32_t v) noexcept nogil:
    memcpy(p, &v, 4)

cdef inline uint16_t load_be16(const void *p) noexcept nogil:
    cdef uint16_t v
    memcpy(&v, p, 2)
    return v if BIG_ENDIAN_HOST else bswap16(v)

cdef inline uint64_t load_be64(const void *p) noexcept nogil:
    cdef uint64_t v = load64(p)
    return v if BIG_ENDIAN_HOST else bswap64(v)

cdef inline void store_be16(void *p, uint16_t v) noexcept nogil:
    if not BIG_ENDIAN_HOST:
        v = bswap16(v)
    memcpy(p, &v, 2)

cdef inline void store_be64(void *p, uint64_t v) noexcept nogil:
    store64(p, v if BIG_ENDIAN_HOST else bswap64(v))


# ---- scans ----

cdef inline uint64_t bytes_below(uint64_t v, uint8_t limit) noexcept nogil:
    """The top bit of the lowest byte of v that is below limit, 1 to 128, or 0. Bits above it may be wrong."""
    return (v - EACH_BYTE * limit) & ~v & TOP_BITS

cdef inline const uint8_t *find_control(const uint8_t *p, const uint8_t *end) noexcept nogil:
    """The first control character (below 0x20 but for tab, or 0x7f) in [p, end), or end."""
    cdef uint64_t v, found
    while SIXTEEN and end - p >= 16:
        found = controls(p)
        if found:
            return p + ctz64(found)
        p += 16
    while end - p >= 8:
        v = load_le64(p)
        found = bytes_below(v, 0x20) | bytes_below(v ^ (EACH_BYTE * 0x7f), 1)
        if not found:
            p += 8
            continue
        p += ctz64(found) >> 3
        if p[0] != 0x09:
            return p
        p += 1
    while p < end and (p[0] >= 0x20 or p[0] == 0x09) and p[0] != 0x7f:
        p += 1
    return p

cdef inline bint same_letters(const uint8_t *p, const char *lower, size_t n) noexcept nogil:
    """Whether n token characters equal the given lower-case ones, letter case aside."""
    cdef size_t i
    for i in range(n):
        if (p[i] | 0x20) != <uint8_t>lower[i]:
            return False
    return True

cdef inline int hex_value(uint8_t c) noexcept nogil:
    """0 to 15, or -1."""
    if not CLASS[c] & HEX:
        return -1
    return c - c'0' if c <= c'9' else (c | 0x20) - c'a' + 10


# ---- blocks ----

cdef inline Block *block_new(size_t capacity) noexcept nogil:
    """An empty block with one reference; NULL when memory is out."""
    cdef Block *block = <Block *>malloc(sizeof(Block) + capacity)
    if block != NULL:
        block.refcount = 1
        block.fd = -1
        block.size = 0
        block.capacity = capacity
    return block

cdef inline Block *block_copy(const void *bytes, size_t n) noexcept nogil:
    cdef Block *block = block_new(n)
    if block != NULL:
        memcpy(block.data, bytes, n)
        block.size = n
    return block

cdef inline Block *block_grown(Block *block, size_t capacity) noexcept nogil:
    """The block with that capacity; it may move, and its refcount must be 1. NULL: memory is out, it is as it was."""
    cdef Block *grown = <Block *>realloc(block, sizeof(Block) + capacity)
    if grown != NULL:
        grown.capacity = capacity
    return grown

cdef inline Block *block_ref(Block *block) noexcept nogil:
    block.refcount += 1
    return block

cdef inline void block_unref(Block *block) noexcept nogil:
    """Drops a reference; with the last one the bytes are freed, or the file is closed. NULL is fine."""
    if block == NULL:
        return
    block.refcount -= 1
    if block.refcount == 0:
        if block.fd >= 0:
            close(block.fd)
        free(block)


# ---- text out: each returns where the next byte goes; the caller has checked the capacity ----

cdef inline uint8_t *put(uint8_t *to, const void *bytes, size_t n) noexcept nogil:
    memcpy(to, bytes, n)
    return to + n

cdef inline uint8_t *put_any(uint8_t *to, const void *bytes, size_t n) noexcept nogil:
    """put() of an n whose bound gcc knows: it would make a `rep movsq` of it, which takes longer to begin than libc."""
    return put(to, bytes, forgotten(n))

cdef inline uint8_t *put_text(uint8_t *to, const char *text) noexcept nogil:
    return put(to, text, strlen(text))

cdef inline uint8_t *put_number(uint8_t *to, uint64_t v) noexcept nogil:
    """Decimal digits, 20 at most."""
    cdef uint8_t[20] digits
    cdef int i = 20
    while True:
        i -= 1
        digits[i] = c'0' + <uint8_t>(v % 10)
        v //= 10
        if v == 0:
            return put(to, digits + i, 20 - i)
