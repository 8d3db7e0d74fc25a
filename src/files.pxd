"""Document roots: a path in, an open or cached file out. See files.pyx."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from c1m.buf cimport Block, Slice
from c1m.linux cimport timespec

cdef enum FindResult:
    FILE_FOUND
    FILE_DIRECTORY               # the path names a directory and lacks its slash
    FILE_NONE                    # nothing to be served under this name
    FILE_BUSY                    # descriptors or memory have run out

cdef enum:
    MAX_PATH = 4095             # PATH_MAX less its NUL
    MAX_ETAG = 40               # two quotes, a dash, 16 + 16 hexadecimal digits, ".zst", NUL
    MAX_ROOTS = 256
    MAX_INDEX_NAMES = 8
    SPARES = 16

cdef struct File:                # what is known of a path that was found; good until the next files_find
    File *chain                  # next in its bucket
    File *newer
    File *older
    Block *body                  # the contents, or the open file
    Block *head                  # the caller's: whatever it wants to keep beside the file, by files_keep
    int64_t size, mtime          # bytes; Unix time in seconds
    int64_t modified             # the same for those who ask: neither before 1970 nor ever in the future
    long mtime_ns
    timespec changed             # st_ctime, which nobody can set: what was changed behind its mtime's back shows here
    uint64_t device, inode
    int64_t checked_ms           # when it was last seen to be unchanged
    Slice type                   # media type
    Slice etag
    uint8_t[MAX_ETAG] etag_text
    int64_t sidecars_ms          # when they were last looked for, 0 for never
    uint32_t sidecars            # bit per Sidecar: the encoded forms that lie beside it
    uint8_t sidecar              # which of them this is
    uint8_t index                # for a directory: which index name was found
    uint16_t root
    uint64_t hash
    uint32_t path_n
    uint8_t[0] path              # path_n bytes

cdef enum Sidecar:               # name.gz, name.br and name.zst beside a name; the caller knows what they mean
    NO_SIDECAR
    SIDECAR_GZ
    SIDECAR_BR
    SIDECAR_ZST
    SIDECARS

cdef struct Root:
    char *path                   # absolute
    int dir                      # O_PATH descriptor
    uint64_t device, inode
    int64_t checked_ms           # when the path was last seen to lead there
    bint follow_symlinks         # even out of the root
    int index_n
    Slice[MAX_INDEX_NAMES] index      # names that stand for their directory, the first that exists

cdef struct MediaType:
    uint8_t[16] extension        # lower case, NUL-padded; empty slots begin with NUL
    Slice name

cdef struct Files:
    Root[MAX_ROOTS] roots
    int roots_n
    bint no_openat2              # this kernel or sandbox lacks it
    int[SPARES] spares           # descriptors held back for the day there are none
    int spares_n
    MediaType *types             # hash table
    Slice default_type
    File **buckets
    uint32_t bucket_count        # a power of two
    int files_most               # files known
    size_t bytes_most            # of memory for all that is known of them, contents and heads included
    File *newest
    File *oldest
    int count, open_count        # files known; of them held open
    size_t bytes                 # of memory that they take
    uint64_t hits, misses

cdef bint files_init(Files *f, int files_most, size_t bytes_most) noexcept nogil
cdef void files_free(Files *f) noexcept nogil
cdef int files_root(Files *f, const char *path, bint follow_symlinks) noexcept nogil
cdef bint files_index(Files *f, int root, Slice name) noexcept nogil
cdef bint files_type(Files *f, Slice extension, Slice name) noexcept nogil
cdef FindResult files_find(Files *f, int root, Slice path, int64_t now_ms, File **found) noexcept nogil
cdef uint32_t files_sidecars(Files *f, File *file, int64_t now_ms) noexcept nogil
cdef FindResult files_sidecar(Files *f, const File *file, uint8_t sidecar, int64_t now_ms, File **found) noexcept nogil
cdef void files_keep(Files *f, File *file, Block *head) noexcept nogil
cdef void files_forget(Files *f, int64_t now_ms) noexcept nogil
cdef int files_directory(Files *f, int root, Slice path) noexcept nogil
