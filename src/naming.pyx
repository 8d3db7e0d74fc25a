"""What a file's name says of it: its media type, its content coding, and which patterns it fits.

Owns: the table of media types, patterns, the names of content codings and of sidecars.
Refuses to know: files, requests.

Media types are kept by extension, with its dot (".html"), and by whole name ("license", "index.xml"), which comes
first. The case of letters does not count.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset, strlen

from c1m.coding cimport BROTLI, CODINGS, GZIP, IDENTITY, ZSTD
from c1m.linux cimport fnmatch
from c1m.siphash cimport siphash13

cdef enum:
    TYPES = 4096                 # a power of two, with room to spare for some 2,500 extensions and names


# ---- media types ----

cdef bint types_init(Types *t, const SipKey *key) noexcept nogil:
    """An empty table. False: memory is out."""
    memset(t, 0, sizeof(Types))
    t.key = key[0]
    t.slots = <TypeSlot *>calloc(TYPES, sizeof(TypeSlot))
    return t.slots != NULL


cdef void types_free(Types *t) noexcept nogil:
    free(t.slots)
    t.slots = NULL


cdef bint types_set(Types *t, Slice key, MediaType type) noexcept nogil:
    """Sets the media type of an extension, with its dot, or of a name. The type's bytes must outlive t. False: the
    table is full."""
    cdef uint8_t[MAX_TYPED + 1] lower
    cdef TypeSlot *slot
    if not lowered(key, lower):
        return True              # a longer one is never looked up either
    slot = type_slot(t, lower)
    if slot == NULL:
        return False
    memcpy(slot.key, lower, MAX_TYPED + 1)
    slot.type = type
    return True


cdef inline bint lowered(Slice key, uint8_t *lower) noexcept nogil:
    """A key, lower-cased and padded. False: it is empty or too long to be one."""
    cdef size_t i
    cdef uint8_t c
    if key.n == 0 or key.n > MAX_TYPED:
        return False
    memset(lower, 0, MAX_TYPED + 1)
    for i in range(key.n):
        c = key.at[i]
        lower[i] = c | 0x20 if c'A' <= c <= c'Z' else c
    return True


cdef TypeSlot *type_slot(Types *t, const uint8_t *key) noexcept nogil:
    """The slot that holds this key or is free for it; NULL if the table is full."""
    cdef uint64_t at = siphash13(&t.key, key, MAX_TYPED + 1)
    cdef TypeSlot *slot
    cdef int i
    for i in range(TYPES):
        slot = &t.slots[(at + i) & (TYPES - 1)]
        if slot.key[0] == 0 or memcmp(slot.key, key, MAX_TYPED + 1) == 0:
            return slot
    return NULL


cdef const MediaType *type_at(Types *t, Slice key) noexcept nogil:
    cdef uint8_t[MAX_TYPED + 1] lower
    cdef TypeSlot *slot
    if not lowered(key, lower):
        return NULL
    slot = type_slot(t, lower)
    return NULL if slot == NULL or slot.key[0] == 0 else &slot.type


cdef const MediaType *types_extension(Types *t, Slice path) noexcept nogil:
    """The media type that goes with the extension of a path's last name, or NULL."""
    cdef Slice name = last_name(path)
    cdef size_t i = name.n
    while i > 0 and name.at[i - 1] != c'.':
        i -= 1
    if i == 0:
        return NULL
    return type_at(t, Slice(name.at + i - 1, name.n - i + 1))


cdef const MediaType *types_find(Types *t, const char *path, Coding encoding) noexcept nogil:
    """The media type of the file at a path: by its name, its extension or the default. If its contents have that
    content coding, and its last extension is the coding's, it is that of what they were before."""
    cdef Slice whole = Slice(<const uint8_t *>path, strlen(path))
    cdef const char *ending = coding_ending(encoding)
    cdef size_t n = strlen(ending)
    cdef const MediaType *found
    if n and whole.n > n and memcmp(whole.at + whole.n - n, ending, n) == 0:
        whole.n -= n
    found = type_at(t, last_name(whole))
    if found == NULL:
        found = types_extension(t, whole)
    if found == NULL:
        return &t.default_type
    return found


# ---- patterns ----

cdef const Rule *rules_find(const Rules *rules, const char *path) noexcept nogil:
    """The first rule whose pattern a path fits, or NULL: the whole path, if that begins with a slash, or its last
    name."""
    cdef const char *name = <const char *>last_name(Slice(<const uint8_t *>path, strlen(path))).at
    cdef const char *pattern
    cdef int i
    for i in range(rules.n):
        pattern = rules.rules[i].pattern
        if fnmatch(pattern, path if pattern[0] == c'/' else name, 0) == 0:
            return &rules.rules[i]
    return NULL


# ---- content codings ----

cdef const char *coding_name(Coding coding) noexcept nogil:
    """What Content-Encoding says (RFC 9110 section 8.4.1)."""
    if coding == GZIP:
        return b"gzip"
    if coding == BROTLI:
        return b"br"
    return b"zstd" if coding == ZSTD else b""


cdef const char *coding_ending(Coding coding) noexcept nogil:
    """What the name of a file in that coding ends with."""
    if coding == GZIP:
        return b".gz"
    if coding == BROTLI:
        return b".br"
    return b".zst" if coding == ZSTD else b""


cdef Coding coding_named(Slice name) noexcept nogil:
    """The coding of that name; IDENTITY for any other."""
    cdef const char *each
    cdef int coding
    for coding in range(<int>IDENTITY + 1, <int>CODINGS):
        each = coding_name(<Coding>coding)
        if name.n == strlen(each) and memcmp(name.at, each, name.n) == 0:
            return <Coding>coding
    return IDENTITY
