"""Document roots: from a request's path to a file inside the root, its size, time, ETag and media type.

Owns: the walk below a root, and the cache of what it found.
Refuses to know: requests, sockets, clocks.

Never served: anything outside the root, whatever links say, unless follow_symlinks; "." and ".."; another name that
begins with a dot, but for /.well-known (RFC 8615), unless dotfiles; what is neither file nor directory (a FIFO or
device is opened without blocking and closed again).

A sidecar is a precompressed form of a file, beside it: name.gz, name.br or name.zst.

The cache maps (root, path, coding) to a File. Contents of up to MAX_SMALL bytes are held in memory, and of up to
MAX_WARM from the second request on; larger files are held open. A request for a File that was last checked a second ago
or more checks it again: if its inode, size or times have changed, it is loaded anew, and so are all files of a root
whose path leads to another directory. The cache is bounded in files, bytes and descriptors; the least recently checked
file goes first, and in any case after a minute.

Clients choose the paths, so they are hashed with a random key: nobody can make many share a bucket.

Invariants: a block that is being sent outlives its File (it is reference-counted). A File in a bucket is in the age
list and counted, and only file_add and file_drop change either.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset, strdup, strlen

from c1m.buf cimport block_new, block_unref, load_be64, put, put_text
from c1m.coding cimport CODINGS, IDENTITY, Coding
from c1m.linux cimport (
    EAGAIN, EINTR, EIO, EMFILE, ENFILE, ENOENT, ENOMEM, ENOSYS, ENOTCONN, EPERM, EREMOTEIO, ESTALE, ETIMEDOUT,
    EUCLEAN, EXDEV, F_DUPFD_CLOEXEC, O_CLOEXEC, O_DIRECTORY, O_NOCTTY, O_NONBLOCK, O_PATH, O_RDONLY, RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS, S_ISDIR, S_ISREG, SYS_openat2, c_open, close, errno, fcntl, fstat, open_how, openat, pread,
    readlink, stat_t, syscall, timespec,
)
from c1m.naming cimport (
    MAX_NAME, MAX_PATH, Rule, coding_ending, coding_named, rules_find, types_find, types_free, types_init,
)
from c1m.siphash cimport SipKey, sip_key_new, siphash13

cdef extern from "openssl/sha.h" nogil:
    enum:
        SHA256_DIGEST_LENGTH
    unsigned char *SHA256(const unsigned char *bytes, size_t n, unsigned char *out) noexcept nogil

cdef enum:
    MAX_SMALL = 32 << 10         # bytes that are read into memory at once,
    MAX_WARM = 64 << 10          # and from the second request on; what is larger goes by sendfile(2)
    HASHED_END = 4096            # bytes at each end of a larger file that its ETag is of
    MAX_OPEN = 256               # files held open
    MAX_OPEN_TRIES = 8           # of openat2(2), while renames elsewhere make it fail
    MAX_PROC_LINK = 32           # "/proc/self/fd/", ten digits, NUL
    MIN_BUCKETS = 64             # a power of two
    FRESH_MS = 1000              # for so long after a check a file is taken to be unchanged
    IDLE_MS = 60000              # a file not asked for in so long is dropped: its disk space may be wanted

cdef struct Wanted:              # what is looked up in the cache
    Slice path
    int root
    Coding coding
    int index                    # of a sidecar: the index name that its file has
    uint64_t hash


cdef bint files_init(Files *f, FilesCounts *counts, int max_files, size_t max_bytes) noexcept nogil:
    """An empty set of roots, and the bounds of its cache. False: memory is out, or the kernel gives no random bytes."""
    memset(f, 0, sizeof(Files))
    f.counts, f.max_files, f.max_bytes = counts, max_files, max_bytes
    f.bucket_count = MIN_BUCKETS
    while f.bucket_count < <uint32_t>max_files:
        f.bucket_count *= 2
    f.buckets = <File **>calloc(f.bucket_count, sizeof(File *))
    return f.buckets != NULL and sip_key_new(&f.key) and types_init(&f.types, &f.key)


cdef void files_free(Files *f) noexcept nogil:
    """Frees all that was known and closes what was open."""
    cdef int i
    while f.oldest != NULL:
        file_drop(f, f.oldest)
    for i in range(f.roots_n):
        close(f.roots[i].dir)
        free(f.roots[i].path)
        free(f.roots[i].encodings.rules)
    while f.spares_n:
        f.spares_n -= 1
        close(f.spares[f.spares_n])
    free(f.buckets)
    types_free(&f.types)
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
    spares_fill(f)               # by the first request connections may have taken all descriptors
    return f.roots_n - 1


cdef bint root_open(Root *root) noexcept nogil:
    """Opens the directory that the path leads to, if it is not the one that is open. False: it is, or there is none."""
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


cdef void root_refresh(Files *f, int number, int64_t now_ms) noexcept nogil:
    """At most once a second: if the root's path leads elsewhere now (a deploy that switches a symlink), drops the
    root's cached files."""
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
    """Adds an index name, to be tried after those added before. The slice's bytes must outlive f. False: there are
    MAX_INDEX_NAMES, or the name is longer than MAX_NAME."""
    cdef Root *r = &f.roots[root]
    if r.index_n == MAX_INDEX_NAMES or name.n > MAX_NAME:
        return False
    r.index[r.index_n] = name
    r.index_n += 1
    return True


# ---- the walk below a root ----

cdef int open_beneath(Files *f, const Root *root, const char *name, int flags) noexcept nogil:
    """Opens a relative name without leaving the root. The descriptor, or a negated errno."""
    cdef open_how how
    cdef int fd = -1
    if root.follow_symlinks:
        fd = openat(root.dir, name, flags)
        return fd if fd >= 0 else -errno
    if f.no_openat2:
        return open_checked(root.dir, name, flags)
    memset(&how, 0, sizeof(how))
    how.flags = flags
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS
    for _ in range(MAX_OPEN_TRIES):
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
    """open_beneath without openat2(2), which came with Linux 5.6: opens the inode alone, wherever links lead, and only
    if it lies below the root, the file. The descriptor, or a negated errno."""
    cdef char[MAX_PATH + 1] base, real
    cdef char[MAX_PROC_LINK] link
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
    """Fills the reserve of descriptors, as far as the process has any. To be called after one was closed, before a new
    connection takes it."""
    cdef int spare
    while f.spares_n < SPARES:
        spare = fcntl(f.roots[0].dir, F_DUPFD_CLOEXEC, 0)
        if spare < 0:
            break
        f.spares[f.spares_n] = spare
        f.spares_n += 1


cdef int open_sparing(Files *f, const Root *root, const char *name, int flags) noexcept nogil:
    """open_beneath, with a descriptor from the reserve if there is no other."""
    cdef int fd
    spares_fill(f)
    fd = open_beneath(f, root, name, flags)
    while fd == -EMFILE and f.spares_n:
        f.spares_n -= 1
        close(f.spares[f.spares_n])
        fd = open_beneath(f, root, name, flags)
    return fd


# ---- finding ----

cdef FindResult files_find(
    Files *f, int root, Slice path, uint32_t codings, int64_t now_ms, File **found
) noexcept nogil:
    """Finds what an unescaped path that begins with a slash names; with FILE_FOUND, found is set.

    codings: those that the client prefers to the file as it is, best first, 2 bits for each Coding from the low end; 0
    ends them. The first that there is a sidecar for, not older than the file, is found in its place: its path and media
    type are the file's, its contents, time and ETag its own. Sidecars are looked for once a second at most.
    """
    cdef Wanted wanted
    cdef FindResult result
    cdef File *file
    wanted.path = path
    wanted.root = root
    wanted.coding = IDENTITY
    wanted.index = 0
    root_refresh(f, root, now_ms)
    result = find(f, &wanted, now_ms, found)
    if result != FILE_FOUND or codings == 0 or found[0].encoding:
        return result
    file = found[0]
    sidecars_refresh(f, file, now_ms)
    wanted.index = file.index
    while codings & 3:
        wanted.coding = <Coding>(codings & 3)
        # Unless a sidecar is found, nothing is added to the cache: the file stays in it.
        if file.sidecars >> wanted.coding & 1 and find(f, &wanted, now_ms, found) == FILE_FOUND:
            return FILE_FOUND
        codings >>= 2
    found[0] = file
    return FILE_FOUND


cdef FindResult find(Files *f, Wanted *w, int64_t now_ms, File **found) noexcept nogil:
    """Finds one form of a file, in the cache or below the root."""
    cdef SipKey key = SipKey(f.key.k0, f.key.k1 ^ (<uint64_t>w.root << 8 | <uint64_t>w.coding))
    cdef File *file
    w.hash = siphash13(&key, w.path.at, w.path.n)
    file = f.buckets[w.hash & (f.bucket_count - 1)]
    while file != NULL and not is_wanted(file, w):
        file = file.chain
    if file != NULL and (w.coding == IDENTITY or file.index == w.index):
        if now_ms - file.checked_ms < FRESH_MS or still_there(f, file, now_ms):
            f.counts.hits += 1
            if file.body.fd >= 0 and file.size <= MAX_WARM:
                file_warm(f, file)
            found[0] = file
            return FILE_FOUND
    if file != NULL:
        file_drop(f, file)
    f.counts.misses += 1
    return file_load(f, w, now_ms, found)


cdef inline bint is_wanted(const File *file, const Wanted *w) noexcept nogil:
    return (file.hash == w.hash and file.root == w.root and file.coding == w.coding and
            file.path_n == w.path.n and memcmp(file.path, w.path.at, w.path.n) == 0)


cdef void sidecars_refresh(Files *f, File *file, int64_t now_ms) noexcept nogil:
    """Looks which sidecars a file has, none older than it by a second, unless that was done within the last second."""
    cdef char[MAX_PATH + 1] name
    cdef stat_t stat
    cdef int coding, fd
    if file.sidecars_ms and now_ms - file.sidecars_ms < FRESH_MS:
        return
    file.sidecars = 0
    file.sidecars_ms = now_ms
    for coding in range(<int>IDENTITY + 1, <int>CODINGS):
        if not name_of(&f.roots[file.root], path_of(file), file.index, <Coding>coding, name):
            continue
        fd = open_sparing(f, &f.roots[file.root], name, O_PATH | O_CLOEXEC)
        if fd < 0:
            continue
        if fstat(fd, &stat) == 0 and S_ISREG(stat.st_mode) and not older(&stat.st_mtim, file):
            file.sidecars |= 1 << coding
        close(fd)
        spares_fill(f)


cdef inline Slice path_of(const File *file) noexcept nogil:
    return Slice(&file.path[0], file.path_n)


cdef inline bint older(const timespec *time, const File *file) noexcept nogil:
    """Whether that time is before the file's by a second or more: copies and archives may have lost the fraction."""
    cdef int64_t seconds = file.mtime - time.tv_sec
    return seconds > 1 or (seconds == 1 and time.tv_nsec <= file.mtime_ns)


cdef int files_directory(Files *f, int root, Slice path) noexcept nogil:
    """Opens for reading the directory named by a path that ends with a slash. The descriptor, or a negated errno."""
    cdef char[MAX_PATH + 1] name
    if path.n > MAX_PATH or hidden(&f.roots[root], path):
        return -ENOENT
    put_text(put(<uint8_t *>name, path.at + 1, path.n - 1), b".")[0] = 0
    return open_sparing(f, &f.roots[root], name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)


cdef bint hidden(const Root *root, Slice path) noexcept nogil:
    """Whether a name in the path is not to be served because it begins with a dot. /.well-known/ alone may, or, with
    dotfiles, any but "." and ".."."""
    cdef size_t i
    for i in range(path.n - 1):
        if path.at[i] == c'/' and path.at[i + 1] == c'.':
            if root.dotfiles:
                if is_dots(Slice(path.at + i + 1, path.n - i - 1)):
                    return True
            elif i or path.n < 12 or memcmp(path.at, b"/.well-known", 12) != 0 or (path.n > 12 and path.at[12] != c'/'):
                return True
    return False


cdef inline bint is_dots(Slice names) noexcept nogil:
    """Whether the first of these names, which begins with a dot, is "." or ".."."""
    cdef size_t n = 2 if names.n > 1 and names.at[1] == c'.' else 1
    return names.n == n or names.at[n] == c'/'


cdef bint name_of(const Root *root, Slice path, int index, Coding coding, char *name) noexcept nogil:
    """The file name below its root, at most MAX_PATH and NUL-terminated. False: not to be served."""
    cdef Slice last
    cdef const char *ending = coding_ending(coding)
    if index >= (root.index_n if path.at[path.n - 1] == c'/' else 1 + <int>root.clean_urls):
        return False
    last = completion(root, path, index)
    if path.n - 1 + last.n + strlen(ending) > MAX_PATH or hidden(root, path):
        return False
    put_text(put(put(<uint8_t *>name, path.at + 1, path.n - 1), last.at, last.n), ending)[0] = 0
    return True


cdef inline Slice completion(const Root *root, Slice path, int index) noexcept nogil:
    """What a file's name has behind the path that was asked for: an index name, or, with clean_urls, ".html"."""
    if path.at[path.n - 1] == c'/':
        return root.index[index]
    return Slice(b".html", 5 if index else 0)


cdef void files_path(const Files *f, const File *file, char *to) noexcept nogil:
    """Writes the path of a file below its root, from the first slash on, NUL-terminated: at most MAX_PATH + 2 bytes. Of
    a sidecar it is that of the file beside it."""
    cdef Slice last = completion(&f.roots[file.root], path_of(file), file.index)
    put(put(<uint8_t *>to, file.path, file.path_n), last.at, last.n)[0] = 0


cdef bint still_there(Files *f, File *file, int64_t now_ms) noexcept nogil:
    """Whether the path still leads to the file that we know, unchanged."""
    cdef char[MAX_PATH + 1] name
    cdef stat_t now
    cdef bint same
    cdef int fd
    if file.index:
        return False             # an index name that comes before this one may have appeared
    name_of(&f.roots[file.root], path_of(file), 0, <Coding>file.coding, name)
    fd = open_sparing(f, &f.roots[file.root], name, O_PATH | O_CLOEXEC)
    if fd < 0:
        same = fd == -EMFILE or fd == -ENFILE or fd == -ENOMEM       # unknown: better stale than none
    else:
        same = (fstat(fd, &now) == 0 and now.st_ino == file.inode and now.st_dev == file.device and
                now.st_size == file.size and now.st_mtim.tv_sec == file.mtime and
                now.st_mtim.tv_nsec == file.mtime_ns and now.st_ctim.tv_sec == file.changed.tv_sec and
                now.st_ctim.tv_nsec == file.changed.tv_nsec)
        close(fd)
        spares_fill(f)
    if same:
        file.checked_ms = now_ms
        age_unlink(f, file)
        age_link(f, file)
    return same


cdef FindResult file_load(Files *f, const Wanted *w, int64_t now_ms, File **found) noexcept nogil:
    """Opens what the path names and adds it to the cache."""
    cdef char[MAX_PATH + 1] name
    cdef const Root *root = &f.roots[w.root]
    cdef FindResult absent = FILE_NONE
    cdef int index = w.index, fd
    cdef stat_t stat
    f.fault = 0
    while name_of(root, w.path, index, w.coding, name):
        fd = open_sparing(f, root, name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
        # Not for a sidecar: its file may be open, and the one to go.
        while fd == -EMFILE and w.coding == IDENTITY and open_file_drop(f):
            fd = open_sparing(f, root, name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
        if fd >= 0:
            if fstat(fd, &stat) < 0:
                f.fault = errno
                close(fd)
                return FILE_FAILED
            if S_ISREG(stat.st_mode):
                f.fault = file_new(f, w, index, fd, &stat, found)
                if f.fault:
                    return FILE_BUSY if f.fault == ENOMEM else FILE_FAILED
                found[0].checked_ms = now_ms
                file_add(f, found[0])
                spares_fill(f)
                return FILE_FOUND
            close(fd)
            if S_ISDIR(stat.st_mode) and w.path.at[w.path.n - 1] != c'/' and index == 0:
                absent = FILE_DIRECTORY
        elif fd == -EMFILE or fd == -ENFILE or fd == -ENOMEM:
            return FILE_BUSY
        elif files_broken(-fd):
            f.fault = -fd
            return FILE_FAILED
        if w.coding != IDENTITY:
            break
        index += 1
    return absent


cdef void file_describe(Files *f, File *file) noexcept nogil:
    """Notes what the file's name says of it."""
    cdef char[MAX_PATH + 2] path
    cdef const Rule *rule
    files_path(f, file, path)
    rule = rules_find(&f.roots[file.root].encodings, path)
    if rule != NULL:
        file.encoding = coding_named(rule.value)
    file.type = types_find(&f.types, path, <Coding>file.encoding)


cdef bint files_broken(int fault) noexcept nogil:
    """Whether a file that open(2) refuses with this errno may be there all the same: it is the disk, or the network."""
    return (fault == EIO or fault == ESTALE or fault == ETIMEDOUT or fault == EREMOTEIO or fault == ENOTCONN or
            fault == EUCLEAN)


cdef int file_new(Files *f, const Wanted *w, int index, int fd, const stat_t *stat, File **made) noexcept nogil:
    """What is known of an open file, which it takes over. 0, or an errno, and then fd is closed."""
    cdef File *file = <File *>calloc(1, sizeof(File) + w.path.n)
    cdef int fault = ENOMEM if file == NULL else body_of(fd, stat, &file.body)
    if fault:
        free(file)
        close(fd)
        return fault
    file.size = stat.st_size if file.body.fd >= 0 else <int64_t>file.body.size
    file.mtime = stat.st_mtim.tv_sec
    file.mtime_ns = stat.st_mtim.tv_nsec
    # A time may be set to anything (utimensat(2)), but not the time at which that was done. Nix and reproducible images
    # set all of them to 0 or 1, so these tell nothing of a change.
    file.modified = min(stat.st_mtim.tv_sec, stat.st_ctim.tv_sec) if stat.st_mtim.tv_sec > 1 else -1
    file.changed = stat.st_ctim
    file.device = stat.st_dev
    file.inode = stat.st_ino
    file.coding = w.coding
    file.index = index
    file.root = w.root
    file.hash = w.hash
    file.path_n = <uint32_t>w.path.n
    memcpy(file.path, w.path.at, w.path.n)
    file_describe(f, file)
    fault = etag_make(file, stat)
    if fault:
        block_unref(file.body)
        free(file)
        return fault
    made[0] = file
    return 0


cdef int etag_make(File *file, const stat_t *stat) noexcept nogil:
    """Makes a strong validator (RFC 9110 section 8.8.1): 128 bits of SHA-256, the size, and the coding's ending: a
    browser that has the bytes without their Content-Encoding would not take it from a 304.

    The same bytes with the same mtime have the same, whichever machine they are on. What is hashed are a small file's
    contents: whoever writes them cannot make two that share an ETag. Of a larger file it is its mtime to the
    nanosecond, for it may be written twice in a second, and its ends: builds that set every mtime alike would leave
    only the size to tell versions apart, and at an end most formats have a checksum, an index or a build's name.
    0, or an errno.
    """
    cdef uint8_t[SHA256_DIGEST_LENGTH] digest
    cdef uint8_t[16 + 2 * HASHED_END] said
    cdef int64_t[2] time
    cdef unsigned char *hashed
    if file.size <= MAX_SMALL:
        hashed = SHA256(file.body.data, file.body.size, digest)
    else:
        time[0], time[1] = stat.st_mtim.tv_sec, stat.st_mtim.tv_nsec
        memset(said, 0, sizeof(said))            # a file that is cut meanwhile
        memcpy(said, time, sizeof(time))
        if (read_at(file.body.fd, said + 16, HASHED_END, 0) < 0 or
                read_at(file.body.fd, said + 16 + HASHED_END, HASHED_END, file.size - HASHED_END) < 0):
            return errno
        hashed = SHA256(said, sizeof(said), digest)
    if hashed == NULL:
        return ENOMEM            # libcrypto's
    file.etag = Slice(&file.etag_text[0], snprintf(
        <char *>file.etag_text, MAX_ETAG, '"%016llx%016llx-%llx%s"', <unsigned long long>load_be64(digest),
        <unsigned long long>load_be64(digest + 8), <unsigned long long>file.size,
        coding_ending(stored_in(file))))
    return 0


cdef Coding files_coding(Slice etag) noexcept nogil:
    """The coding of the form that an ETag, with its quotes, is of; IDENTITY also for what is none of ours."""
    cdef int coding
    cdef size_t n
    for coding in range(<int>IDENTITY + 1, <int>CODINGS):
        n = strlen(coding_ending(<Coding>coding))
        if etag.n > n + 2 and memcmp(etag.at + etag.n - 1 - n, coding_ending(<Coding>coding), n) == 0:
            return <Coding>coding
    return IDENTITY


cdef void file_warm(Files *f, File *file) noexcept nogil:
    """Reads a file that is held open into memory. If it has become shorter, or can't be read, it stays as it is."""
    cdef Block *block
    if block_read(file.body.fd, file.size, &block):
        return
    if <int64_t>block.size < file.size:
        block_unref(block)
        return
    f.counts.bytes -= memory_of(file)
    f.open_count -= 1
    block_unref(file.body)
    file.body = block
    f.counts.bytes += memory_of(file)
    bounds_keep(f, file)


cdef inline ssize_t read_at(int fd, uint8_t *to, size_t n, int64_t at) noexcept nogil:
    """pread(2), whatever signals come."""
    cdef ssize_t got = pread(fd, to, n, at)
    while got < 0 and errno == EINTR:
        got = pread(fd, to, n, at)
    return got


cdef int block_read(int fd, size_t n, Block **made) noexcept nogil:
    """The first n bytes of a file, or as many as there are. 0, or an errno."""
    cdef Block *block = block_new(n)
    cdef ssize_t got
    cdef int fault
    if block == NULL:
        return ENOMEM
    while block.size < n:
        got = read_at(fd, block.data + block.size, n - block.size, block.size)
        if got < 0:
            fault = errno
            block_unref(block)
            return fault
        if got == 0:
            break
        block.size += got
    made[0] = block
    return 0


cdef int body_of(int fd, const stat_t *stat, Block **made) noexcept nogil:
    """A small file's contents, or a larger one's descriptor, which the block then closes. 0, or an errno."""
    cdef int fault
    if stat.st_size > MAX_SMALL:
        made[0] = block_new(0)
        if made[0] == NULL:
            return ENOMEM
        made[0].fd = fd
        return 0
    fault = block_read(fd, stat.st_size, made)           # shorter than stat says, if it was cut since
    if fault == 0:
        close(fd)
    return fault


# ---- the cache: buckets, ages and bounds ----

cdef void file_add(Files *f, File *file) noexcept nogil:
    cdef File **bucket = &f.buckets[file.hash & (f.bucket_count - 1)]
    file.chain = bucket[0]
    bucket[0] = file
    age_link(f, file)
    f.counts.files += 1
    f.open_count += file.body.fd >= 0
    f.counts.bytes += memory_of(file)
    bounds_keep(f, file)
    while f.open_count > MAX_OPEN:
        open_file_drop(f)


cdef inline size_t memory_of(const File *file) noexcept nogil:
    """Bytes that a file takes, its contents and head included."""
    return sizeof(File) + file.path_n + file.body.size + (0 if file.head == NULL else file.head.capacity)


cdef void bounds_keep(Files *f, const File *current) noexcept nogil:
    """Drops the least recently checked files, but not the current one, until the cache is within its bounds."""
    while f.oldest != current and (f.counts.files > <uint64_t>f.max_files or f.counts.bytes > f.max_bytes):
        file_drop(f, f.oldest)


cdef void files_keep(Files *f, File *file, Block *head) noexcept nogil:
    """Keeps a block of the caller's with the file found last, in place of any other; takes over the reference."""
    f.counts.bytes -= memory_of(file)
    block_unref(file.head)
    file.head = head
    f.counts.bytes += memory_of(file)
    bounds_keep(f, file)


cdef void files_forget(Files *f, int64_t now_ms) noexcept nogil:
    """Drops files that were not asked for within a minute."""
    while f.oldest != NULL and now_ms - f.oldest.checked_ms >= IDLE_MS:
        file_drop(f, f.oldest)


cdef bint open_file_drop(Files *f) noexcept nogil:
    """Drops the least recently checked of the files held open; False if there is none."""
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
    f.counts.files -= 1
    f.open_count -= file.body.fd >= 0
    f.counts.bytes -= memory_of(file)
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
