"""What a file's name says of it. See naming.pyx."""

from libc.stdint cimport uint8_t

from c1m.buf cimport Slice
from c1m.coding cimport Coding
from c1m.siphash cimport SipKey

cdef enum:
    MAX_PATH = 4095              # bytes of a path below a root: PATH_MAX less its NUL
    MAX_NAME = 255               # bytes of one name in it: NAME_MAX
    MAX_TYPED = 63               # bytes of an extension with its dot, or of a whole name, that has a media type

cdef struct MediaType:
    Slice name
    bint takes_charset           # its mount may say one of it

cdef struct TypeSlot:
    uint8_t[MAX_TYPED + 1] key   # lower case, NUL-padded; empty slots begin with NUL
    MediaType type

cdef struct Types:
    TypeSlot *slots              # hash table
    SipKey key                   # of the hash
    MediaType default_type

cdef struct Rule:
    const char *pattern          # for fnmatch(3)
    Slice value                  # what is said of files that fit it

cdef struct Rules:               # the first that fits counts
    Rule *rules
    int n

cdef bint types_init(Types *t, const SipKey *key) noexcept nogil
cdef void types_free(Types *t) noexcept nogil
cdef bint types_set(Types *t, Slice key, MediaType type) noexcept nogil
cdef const MediaType *types_find(Types *t, const char *path, Coding encoding) noexcept nogil
cdef const MediaType *types_extension(Types *t, Slice path) noexcept nogil
cdef const Rule *rules_find(const Rules *rules, const char *path) noexcept nogil
cdef const char *coding_name(Coding coding) noexcept nogil
cdef const char *coding_ending(Coding coding) noexcept nogil
cdef Coding coding_named(Slice name) noexcept nogil


cdef inline Slice last_name(Slice path) noexcept nogil:
    """What follows a path's last slash."""
    cdef size_t i = path.n
    while i > 0 and path.at[i - 1] != c'/':
        i -= 1
    return Slice(path.at + i, path.n - i)
