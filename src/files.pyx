"""Document roots: from a request's path to a file inside the root, its size, time, ETag and media type.

Owns: the walk below a root, and the cache of what it found.
Refuses to know: requests, sockets, clocks.

What is never served: anything outside the root, whatever links say, unless follow_symlinks; a name that begins
with a dot, which is also what keeps "." and ".." out, save .well-known in the root (RFC 8615); what is neither
file nor directory (a FIFO or device is opened without blocking and closed again).

The cache maps (root, path) to a File. Contents of up to MAX_SMALL bytes are held in memory, and up to MAX_WARM from
when they are asked for a second time; larger files are held open. A File is looked at again once a second, when it is asked for; if its inode, size or times have
changed it is loaded anew, and so are all when the root's path leads to another directory. It is bounded in files,
bytes and descriptors; the file longest unasked goes first, and in any case after a minute.

Invariants: a block in flight outlives its File (it is reference-counted). A File in a bucket is in the age list
and counted, and only file_add and file_drop change either.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset, strdup

from c1m.buf cimport block_unref, block_new, hashed, put, put_text
from c1m.linux cimport (
    EAGAIN, EMFILE, ENFILE, ENOENT, ENOMEM, ENOSYS, EPERM, EXDEV, F_DUPFD_CLOEXEC, O_CLOEXEC, O_DIRECTORY, O_NOCTTY, O_NONBLOCK,
    O_PATH, O_RDONLY, RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, S_ISDIR, S_ISREG, SYS_openat2, c_open, close, errno, fcntl,
    fstat, open_how, openat, pread, readlink, stat_t, syscall, timespec,
)

cdef enum:
    MAX_SMALL = 32 << 10        # bytes that are read into memory at once,
    MAX_WARM = 128 << 10        # and when asked for again; beyond, sendfile costs less than a copy
    MAX_OPEN = 256              # files held open
    TYPES = 4096                 # a power of two, with room to spare for some 1,500 extensions
    FRESH_MS = 1000
    IDLE_MS = 60000              # a file unasked for so long is forgotten: its disk space may be wanted


cdef bint files_init(Files *f, int files_most, size_t bytes_most) noexcept nogil:
    """An empty set of roots, and the bounds of its cache. False: memory is out."""
    memset(f, 0, sizeof(Files))
    f.files_most, f.bytes_most = files_most, bytes_most
    f.bucket_count = 64
    while f.bucket_count < <uint32_t>files_most:
        f.bucket_count *= 2
    f.buckets = <File **>calloc(f.bucket_count, sizeof(File *))
    f.types = <MediaType *>calloc(TYPES, sizeof(MediaType))
    return f.buckets != NULL and f.types != NULL


cdef void files_free(Files *f) noexcept nogil:
    cdef int i
    while f.oldest != NULL:
        file_drop(f, f.oldest)
    for i in range(f.roots_n):
        close(f.roots[i].dir)
        free(f.roots[i].path)
    while f.spares_n:
        f.spares_n -= 1
        close(f.spares[f.spares_n])
    free(f.buckets)
    free(f.types)
    memset(f, 0, sizeof(Files))


cdef int files_root(Files *f, const char *path, bint follow_symlinks) noexcept nogil:
    """Adds a directory by its absolute path, without index names; returns its number, or a negated errno."""
    cdef Root *root = &f.roots[f.roots_n]
    cdef int fault
    if f.roots_n == MAX_ROOTS:
        return -EMFILE
    memset(root, 0, sizeof(Root))
    root.dir = -1
    root.path = strdup(path)
    if root.path == NULL or not root_open(root):
        fault = errno
        free(root.path)
        return -fault
    root.follow_symlinks = follow_symlinks
    f.roots_n += 1
    spares_fill(f)               # now: by the first request visitors may have taken them all
    return f.roots_n - 1


cdef bint root_open(Root *root) noexcept nogil:
    """Opens what the path leads to now, if that is another directory than we have. False: we have it, or there is none."""
    cdef stat_t stat
    cdef int dir = c_open(root.path, O_PATH | O_DIRECTORY | O_CLOEXEC)
    if dir < 0:
        return False
    if fstat(dir, &stat) < 0 or (root.dir >= 0 and stat.st_ino == root.inode and stat.st_dev == root.device):
        close(dir)
        return False
    if root.dir >= 0:
        close(root.dir)
    root.dir, root.device, root.inode = dir, stat.st_dev, stat.st_ino
    return True


cdef void root_check(Files *f, int number, int64_t now_ms) noexcept nogil:
    """Once a second: where a release is put online by a link that is turned, what we know is of the one before."""
    cdef Root *root = &f.roots[number]
    cdef File *file = f.oldest
    cdef File *newer
    if now_ms - root.checked_ms < FRESH_MS:
        return
    root.checked_ms = now_ms
    if not root_open(root):
        return
    while file != NULL:
        newer = file.newer
        if file.root == number:
            file_drop(f, file)
        file = newer


cdef bint files_index(Files *f, int root, Slice name) noexcept nogil:
    """Adds a name that stands for its directory; the slice's bytes must outlive f. False: no room, or too long."""
    cdef Root *r = &f.roots[root]
    if r.index_n == MAX_INDEX_NAMES or name.n > 255:
        return False
    r.index[r.index_n] = name
    r.index_n += 1
    return True


# ---- media types ----

cdef bint files_type(Files *f, Slice extension, Slice name) noexcept nogil:
    """Says what files of an extension (lower case, no dot) are; the slices' bytes must outlive f. False: no room."""
    cdef uint8_t[16] key
    cdef MediaType *slot
    if not extension_key(extension, key):
        return True              # a longer extension is never looked up either
    slot = type_slot(f, key)
    if slot == NULL:
        return False
    memcpy(slot.extension, key, 16)
    slot.name = name
    return True


cdef inline bint extension_key(Slice extension, uint8_t *key) noexcept nogil:
    """The extension, lower-cased and padded. False: it is empty or too long to be one."""
    cdef size_t i
    cdef uint8_t c
    if extension.n == 0 or extension.n > 15:
        return False
    memset(key, 0, 16)
    for i in range(extension.n):
        c = extension.at[i]
        key[i] = c | 0x20 if c'A' <= c <= c'Z' else c
    return True


cdef MediaType *type_slot(Files *f, const uint8_t *key) noexcept nogil:
    """The slot that holds this extension or is free for it; NULL if the table is full."""
    cdef uint64_t at = hashed(key, 16, 0)
    cdef int i
    for i in range(TYPES):
        slot = &f.types[(at + i) & (TYPES - 1)]
        if slot.extension[0] == 0 or memcmp(slot.extension, key, 16) == 0:
            return slot
    return NULL


cdef Slice type_of(Files *f, Slice path) noexcept nogil:
    cdef uint8_t[16] key
    cdef MediaType *slot
    cdef size_t i = path.n
    while i > 0 and path.at[i - 1] != c'.' and path.at[i - 1] != c'/':
        i -= 1
    if i == 0 or path.at[i - 1] != c'.' or not extension_key(Slice(path.at + i, path.n - i), key):
        return f.default_type
    slot = type_slot(f, key)
    return f.default_type if slot == NULL or slot.extension[0] == 0 else slot.name


# ---- the walk below a root ----

cdef int open_beneath(Files *f, const Root *root, const char *name, int flags) noexcept nogil:
    """Opens a relative name without leaving the root. The descriptor, or a negated errno."""
    cdef open_how how
    cdef int fd = -1, tries
    if root.follow_symlinks:
        fd = openat(root.dir, name, flags)
        return fd if fd >= 0 else -errno
    if f.no_openat2:
        return open_checked(root.dir, name, flags)
    memset(&how, 0, sizeof(how))
    how.flags = flags
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS
    for tries in range(8):
        fd = <int>syscall(SYS_openat2, root.dir, name, &how, sizeof(how))
        if fd >= 0:
            return fd
        if errno == ENOSYS or errno == EPERM:       # a sandbox that does not know the call may say EPERM
            f.no_openat2 = True
            return open_checked(root.dir, name, flags)
        if errno == EXDEV:                          # a link that is absolute, or goes out and comes in again
            return open_checked(root.dir, name, flags)
        if errno != EAGAIN:                         # a rename elsewhere raced with the walk: openat2(2)
            break
    return -errno


cdef int open_checked(int root, const char *name, int flags) noexcept nogil:
    """Opens the bare inode, wherever links lead, and goes on only if it lies below the root. All that kernels before 5.6 have."""
    cdef char[4096] base, real
    cdef char[32] link
    cdef ssize_t base_n, real_n
    cdef int fd, reopened = -EXDEV
    fd = openat(root, name, O_PATH | O_CLOEXEC)
    if fd < 0:
        return -errno
    snprintf(link, sizeof(link), "/proc/self/fd/%d", root)
    base_n = readlink(link, base, sizeof(base))
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd)
    real_n = readlink(link, real, sizeof(real))
    if base_n == 1:
        base_n = 0               # the root is "/" itself
    if 0 <= base_n < real_n < <ssize_t>sizeof(real) and memcmp(base, real, base_n) == 0 and real[base_n] == c'/':
        if flags & O_PATH:
            return fd
        reopened = c_open(link, flags)
        if reopened < 0:
            reopened = -errno
    close(fd)
    return reopened


cdef void spares_fill(Files *f) noexcept nogil:
    """Holds back descriptors, as many of SPARES as can be had: also wherever one was closed, before a visitor takes it."""
    cdef int spare
    while f.spares_n < SPARES:
        spare = fcntl(f.roots[0].dir, F_DUPFD_CLOEXEC, 0)
        if spare < 0:
            break
        f.spares[f.spares_n] = spare
        f.spares_n += 1


cdef int open_sparing(Files *f, const Root *root, const char *name, int flags) noexcept nogil:
    """open_beneath, with a descriptor held back for when visitors have taken all the others."""
    cdef int fd
    spares_fill(f)
    fd = open_beneath(f, root, name, flags)
    while fd == -EMFILE and f.spares_n:
        f.spares_n -= 1
        close(f.spares[f.spares_n])
        fd = open_beneath(f, root, name, flags)
    return fd


# ---- finding ----

cdef FindResult files_find(Files *f, int root, Slice path, int64_t now_ms, File **found) noexcept nogil:
    """Finds what an unescaped path that begins with a slash names; with FILE_FOUND, found is set."""
    root_check(f, root, now_ms)
    return find(f, root, path, NO_SIDECAR, now_ms, found)


cdef FindResult files_sidecar(Files *f, const File *file, uint8_t sidecar, int64_t now_ms, File **found) noexcept nogil:
    """Finds an encoded form of a file. Its path and media type are the file's, its contents, time and ETag its own."""
    return find(f, file.root, Slice(&file.path[0], file.path_n), sidecar, now_ms, found)


cdef FindResult find(Files *f, int root, Slice path, uint8_t sidecar, int64_t now_ms, File **found) noexcept nogil:
    cdef uint64_t hash = hashed(path.at, path.n, <uint64_t>root << 8 | sidecar)
    cdef File *file = f.buckets[hash & (f.bucket_count - 1)]
    while file != NULL:
        if (file.hash == hash and file.root == root and file.sidecar == sidecar and
                file.path_n == path.n and memcmp(file.path, path.at, path.n) == 0):
            break
        file = file.chain
    if file != NULL and (now_ms - file.checked_ms < FRESH_MS or still_there(f, file, now_ms)):
        f.hits += 1
        if file.body.fd >= 0 and file.size <= MAX_WARM:
            file_warm(f, file)
        found[0] = file
        return FILE_FOUND
    if file != NULL:
        file_drop(f, file)
    f.misses += 1
    return file_load(f, root, path, sidecar, hash, now_ms, found)


cdef uint32_t files_sidecars(Files *f, File *file, int64_t now_ms) noexcept nogil:
    """Which encoded forms of a file there are, none older than the file: bit per Sidecar. Looked for once a second."""
    cdef char[MAX_PATH + 1] name
    cdef stat_t stat
    cdef uint32_t there = 0
    cdef uint8_t sidecar
    cdef int fd
    if file.sidecars_ms and now_ms - file.sidecars_ms < FRESH_MS:
        return file.sidecars
    for sidecar in range(1, SIDECARS):
        if not name_of(&f.roots[file.root], Slice(&file.path[0], file.path_n), file.index, sidecar, name):
            continue
        fd = open_sparing(f, &f.roots[file.root], name, O_PATH | O_CLOEXEC)
        if fd < 0:
            continue
        if fstat(fd, &stat) == 0 and S_ISREG(stat.st_mode) and not older(&stat.st_mtim, file):
            there |= 1 << sidecar
        close(fd)
        spares_fill(f)
    file.sidecars = there
    file.sidecars_ms = now_ms
    return there


cdef inline bint older(const timespec *time, const File *file) noexcept nogil:
    """Whether something of that time is older than the file. Archives and copies may keep whole seconds only."""
    if time.tv_sec != file.mtime:
        return time.tv_sec < file.mtime
    return time.tv_nsec and time.tv_nsec < file.mtime_ns


cdef int files_directory(Files *f, int root, Slice path) noexcept nogil:
    """Opens the directory that a path with a slash at its end names, for reading. The descriptor, or a negated errno."""
    cdef char[MAX_PATH + 1] name
    if path.n > MAX_PATH or hidden(path):
        return -ENOENT
    put_text(put(<uint8_t *>name, path.at + 1, path.n - 1), b".")[0] = 0
    return open_sparing(f, &f.roots[root], name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)


cdef bint hidden(Slice path) noexcept nogil:
    """Whether a name in the path begins with a dot. /.well-known/ alone may."""
    cdef size_t i
    for i in range(path.n - 1):
        if path.at[i] == c'/' and path.at[i + 1] == c'.':
            if i or path.n < 12 or memcmp(path.at, b"/.well-known", 12) != 0 or (path.n > 12 and path.at[12] != c'/'):
                return True
    return False


cdef inline const char *ending_of(uint8_t sidecar) noexcept nogil:
    if sidecar == SIDECAR_GZ:
        return b".gz"
    if sidecar == SIDECAR_BR:
        return b".br"
    return b".zst" if sidecar == SIDECAR_ZST else b""


cdef bint name_of(const Root *root, Slice path, int index, uint8_t sidecar, char *name) noexcept nogil:
    """The file name below its root, at most MAX_PATH and NUL-terminated. False: not to be served."""
    cdef Slice last = Slice(NULL, 0)
    cdef uint8_t *to = <uint8_t *>name
    if path.at[path.n - 1] == c'/':
        if index >= root.index_n:
            return False
        last = root.index[index]
    if path.n - 1 + last.n + (4 if sidecar else 0) > MAX_PATH or hidden(path):
        return False
    to = put(to, path.at + 1, path.n - 1)
    if last.n:
        to = put(to, last.at, last.n)
    put_text(to, ending_of(sidecar))[0] = 0
    return True


cdef bint still_there(Files *f, File *file, int64_t now_ms) noexcept nogil:
    """Whether the path still leads to the file that we know, unchanged."""
    cdef char[MAX_PATH + 1] name
    cdef stat_t now
    cdef bint same
    cdef int fd
    if file.index:
        return False             # an index name that comes before this one may have appeared
    name_of(&f.roots[file.root], Slice(&file.path[0], file.path_n), 0, file.sidecar, name)
    fd = open_sparing(f, &f.roots[file.root], name, O_PATH | O_CLOEXEC)
    if fd < 0:
        same = fd == -EMFILE or fd == -ENFILE or fd == -ENOMEM       # can't tell: better old than none
    else:
        same = (fstat(fd, &now) == 0 and now.st_ino == file.inode and now.st_dev == file.device and
                now.st_size == file.size and now.st_mtim.tv_sec == file.mtime and now.st_mtim.tv_nsec == file.mtime_ns and
                now.st_ctim.tv_sec == file.changed.tv_sec and now.st_ctim.tv_nsec == file.changed.tv_nsec)
        close(fd)
        spares_fill(f)
    if same:
        file.checked_ms = now_ms
        age_unlink(f, file)
        age_link(f, file)
    return same


cdef FindResult file_load(Files *f, int root, Slice path, uint8_t sidecar, uint64_t hash, int64_t now_ms, File **found) noexcept nogil:
    """Opens what the path names and adds it to the cache."""
    cdef char[MAX_PATH + 1] name
    cdef bint directory = path.at[path.n - 1] == c'/'
    cdef int index = 0, fd
    cdef stat_t stat
    while name_of(&f.roots[root], path, index, sidecar, name):
        fd = open_sparing(f, &f.roots[root], name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
        # Not for a sidecar: its path is that of an open file, which might be the one to go.
        while fd == -EMFILE and sidecar == NO_SIDECAR and open_file_drop(f):
            fd = open_sparing(f, &f.roots[root], name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
        if fd >= 0:
            if fstat(fd, &stat) == 0 and S_ISREG(stat.st_mode):
                found[0] = file_new(f, root, path, sidecar, fd, &stat)
                if found[0] == NULL:
                    return FILE_BUSY
                found[0].index = index
                found[0].type = type_of(f, f.roots[root].index[index] if directory else path)
                found[0].checked_ms = now_ms
                found[0].hash = hash
                file_add(f, found[0])
                spares_fill(f)
                return FILE_FOUND
            close(fd)
            if S_ISDIR(stat.st_mode) and not directory:
                return FILE_DIRECTORY
        elif fd == -EMFILE or fd == -ENFILE or fd == -ENOMEM:
            return FILE_BUSY
        if not directory:
            break
        index += 1
    return FILE_NONE


cdef File *file_new(Files *f, int root, Slice path, uint8_t sidecar, int fd, const stat_t *stat) noexcept nogil:
    """What is known of an open file, which it takes over. NULL: memory is out, and fd is closed."""
    cdef File *file = <File *>calloc(1, sizeof(File) + path.n)
    if file != NULL:
        file.body = body_of(fd, stat)
    if file == NULL or file.body == NULL:
        free(file)
        close(fd)
        return NULL
    file.size = stat.st_size if file.body.fd >= 0 else <int64_t>file.body.size
    file.mtime = stat.st_mtim.tv_sec
    file.mtime_ns = stat.st_mtim.tv_nsec
    # A time may be set to anything (utimensat(2)), but not the time at which that was done.
    file.modified = max(0, min(stat.st_mtim.tv_sec, stat.st_ctim.tv_sec))
    file.changed = stat.st_ctim
    file.device = stat.st_dev
    file.inode = stat.st_ino
    file.sidecar = sidecar
    etag_make(file, stat)
    file.root = root
    file.path_n = <uint32_t>path.n
    memcpy(file.path, path.at, path.n)
    return file


cdef void etag_make(File *file, const stat_t *stat) noexcept nogil:
    """Of a small file a hash of its contents; else of the times, too: size and mtime alone stay, where a build sets all times alike
    (RFC 9110 section 8.8.1). What is an encoded form of a file says so, for it may be as long and as old."""
    cdef uint64_t version
    if file.size <= MAX_SMALL:
        version = hashed(file.body.data, file.body.size, 0)
    else:
        version = hashed(<const uint8_t *>&stat.st_mtim, sizeof(timespec), 0) ^ hashed(<const uint8_t *>&stat.st_ctim, sizeof(timespec), 1)
    file.etag = Slice(&file.etag_text[0], snprintf(<char *>file.etag_text, MAX_ETAG, '"%llx-%llx%s"',
                      <unsigned long long>version, <unsigned long long>file.size, ending_of(file.sidecar)))


cdef void file_warm(Files *f, File *file) noexcept nogil:
    """Reads a file that is held open into memory. Where it has become shorter or memory is out, it stays as it is."""
    cdef Block *block = block_read(file.body.fd, file.size)
    if block == NULL or <int64_t>block.size < file.size:
        block_unref(block)
        return
    f.bytes -= memory_of(file)
    f.open_count -= 1
    block_unref(file.body)
    file.body = block
    f.bytes += memory_of(file)
    bounds_keep(f, file)


cdef Block *block_read(int fd, size_t n) noexcept nogil:
    """The first n bytes of a file, or as many as there are. NULL: memory is out."""
    cdef Block *block = block_new(n)
    cdef ssize_t got
    while block != NULL and block.size < n:
        got = pread(fd, block.data + block.size, n - block.size, block.size)
        if got <= 0:
            break
        block.size += got
    return block


cdef Block *body_of(int fd, const stat_t *stat) noexcept nogil:
    """A small file's contents, or a larger one's descriptor, which is then the block's to close. NULL: memory is out."""
    cdef Block *block
    if stat.st_size > MAX_SMALL:
        block = block_new(0)
        if block != NULL:
            block.fd = fd
        return block
    block = block_read(fd, stat.st_size)     # if it has become shorter since fstat, what is there is what it is
    if block != NULL:
        close(fd)
    return block


# ---- the cache's books ----

cdef void file_add(Files *f, File *file) noexcept nogil:
    cdef File **bucket = &f.buckets[file.hash & (f.bucket_count - 1)]
    file.chain = bucket[0]
    bucket[0] = file
    age_link(f, file)
    f.count += 1
    f.open_count += file.body.fd >= 0
    f.bytes += memory_of(file)
    bounds_keep(f, file)
    while f.open_count > MAX_OPEN:
        open_file_drop(f)


cdef inline size_t memory_of(const File *file) noexcept nogil:
    return sizeof(File) + file.path_n + file.body.size + (0 if file.head == NULL else file.head.capacity)


cdef void bounds_keep(Files *f, const File *asked) noexcept nogil:
    """Forgets the files longest unasked, but for the one at hand, until the cache is within its bounds."""
    while f.oldest != asked and (f.count > f.files_most or f.bytes > f.bytes_most):
        file_drop(f, f.oldest)


cdef void files_keep(Files *f, File *file, Block *head) noexcept nogil:
    """Keeps a block of the caller's with a file, which must be the one asked for last, in place of any other."""
    f.bytes -= memory_of(file)
    block_unref(file.head)
    file.head = head
    f.bytes += memory_of(file)
    bounds_keep(f, file)


cdef void files_forget(Files *f, int64_t now_ms) noexcept nogil:
    """Forgets files that nobody has asked for in a minute."""
    while f.oldest != NULL and now_ms - f.oldest.checked_ms >= IDLE_MS:
        file_drop(f, f.oldest)


cdef bint open_file_drop(Files *f) noexcept nogil:
    """Drops the file longest unasked of those held open; False if there is none."""
    cdef File *file = f.oldest
    while file != NULL and file.body.fd < 0:
        file = file.newer
    if file == NULL:
        return False
    file_drop(f, file)
    return True


cdef void file_drop(Files *f, File *file) noexcept nogil:
    cdef File **link = &f.buckets[file.hash & (f.bucket_count - 1)]
    while link[0] != file:
        link = &link[0].chain
    link[0] = file.chain
    age_unlink(f, file)
    f.count -= 1
    f.open_count -= file.body.fd >= 0
    f.bytes -= memory_of(file)
    block_unref(file.body)
    block_unref(file.head)
    free(file)


cdef inline void age_link(Files *f, File *file) noexcept nogil:
    file.older = f.newest
    file.newer = NULL
    if f.newest == NULL:
        f.oldest = file
    else:
        f.newest.newer = file
    f.newest = file


cdef inline void age_unlink(Files *f, File *file) noexcept nogil:
    if file.newer == NULL:
        f.newest = file.older
    else:
        file.newer.older = file.older
    if file.older == NULL:
        f.oldest = file.newer
    else:
        file.older.newer = file.newer
