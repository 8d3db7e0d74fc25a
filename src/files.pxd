"""Document roots: a path in, an open or cached file out. See files.pyx."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from c1m.buf cimport Block, Slice
from c1m.coding cimport Coding
from c1m.linux cimport timespec
from c1m.naming cimport MediaType, Rules, Types
from c1m.siphash cimport SipKey

cdef enum FindResult:
    FILE_FOUND
    FILE_DIRECTORY               # the path names a directory and lacks its slash
    FILE_NONE                    # nothing to be served under this name
    FILE_BUSY                    # out of descriptors or memory
    FILE_FAILED                  # it may be there, but can't be read: Files.fault says why

cdef enum:
    MAX_ETAG = 56                # two quotes, 32 hexadecimal digits, a dash, 16 of them, ".zst", NUL
    MAX_ROOTS = 256
    MAX_INDEX_NAMES = 8
    SPARES = 16                  # descriptors held in reserve

cdef struct File:                # what is known of a path that was found; valid until the next files_find
    File *chain                  # next in its bucket
    File *newer                  # by when it was last checked
    File *older
    Block *body                  # the contents, or the open file
    Block *head                  # the caller's, set by files_keep
    int64_t size, mtime          # bytes; Unix time in seconds
    int64_t modified             # mtime as clients are told: not after the last change (ctime); -1: it says nothing
    long mtime_ns
    timespec changed             # st_ctime, which cannot be set: tells of a change that kept size and mtime
    uint64_t device, inode
    int64_t checked_ms           # when it was last seen to be unchanged
    const MediaType *type
    Slice etag
    uint8_t[MAX_ETAG] etag_text
    int64_t sidecars_ms          # when they were last looked for, 0 for never
    uint8_t sidecars             # the sidecars that there are, a bit per Coding
    uint8_t coding               # not IDENTITY: this is a sidecar, in that Coding
    uint8_t encoding             # the Coding that a file which is no sidecar has by its root's rules
    uint8_t index                # for a directory: which index name was found; with clean_urls: 1 for path + ".html"
    uint16_t root
    uint64_t hash
    uint32_t path_n
    uint8_t[0] path              # path_n bytes

cdef struct Root:
    char *path                   # absolute
    int dir                      # O_PATH descriptor
    uint64_t device, inode
    int64_t checked_ms           # when the path was last resolved
    bint follow_symlinks         # even out of the root
    bint dotfiles                # serve names that begin with a dot, too
    bint clean_urls              # find name.html as name
    Rules encodings              # which files are encoded as they are, and how: a coding's name
    int index_n
    Slice[MAX_INDEX_NAMES] index      # files served for their directory: the first that exists

cdef struct FilesCounts:         # in words that other threads and processes may read
    uint64_t files               # in the cache now
    uint64_t bytes               # of memory that they take
    uint64_t hits, misses

cdef struct Files:
    Root[MAX_ROOTS] roots
    int roots_n
    bint no_openat2              # this kernel or sandbox lacks it
    int[SPARES] spares           # descriptors in reserve for when the process has no other left
    int spares_n
    Types types
    SipKey key                   # of the hash
    File **buckets
    uint32_t bucket_count        # a power of two
    int max_files                # files in the cache
    size_t max_bytes             # of memory for them, contents and heads included
    File *newest                 # least recently checked last
    File *oldest
    FilesCounts *counts
    int open_count               # files in the cache that are held open
    int fault                    # errno of what was FILE_FAILED last

cdef bint files_init(Files *f, FilesCounts *counts, int max_files, size_t max_bytes) noexcept nogil
cdef void files_free(Files *f) noexcept nogil
cdef int files_root(Files *f, const char *path, bint follow_symlinks) noexcept nogil
cdef bint files_index(Files *f, int root, Slice name) noexcept nogil
cdef FindResult files_find(
    Files *f, int root, Slice path, uint32_t codings, int64_t now_ms, File **found
) noexcept nogil
cdef bint files_broken(int fault) noexcept nogil
cdef Coding files_coding(Slice etag) noexcept nogil
cdef void files_path(const Files *f, const File *file, char *to) noexcept nogil
cdef void files_keep(Files *f, File *file, Block *head) noexcept nogil
cdef void files_forget(Files *f, int64_t now_ms) noexcept nogil
cdef int files_directory(Files *f, int root, Slice path) noexcept nogil


cdef inline Coding stored_in(const File *file) noexcept nogil:
    """What its contents are encoded in: a sidecar's coding, or that of its root's rules; no file has both."""
    return <Coding>(file.coding | file.encoding)
