"""Document roots as tests see them."""

import os

from libc.stdint cimport int64_t, uint32_t

from c1m.buf cimport Slice
from c1m.coding cimport CODINGS
from c1m.files cimport (
    FILE_BUSY, FILE_DIRECTORY, FILE_NONE, File, Files, FilesCounts, FindResult, files_find, files_forget, files_free,
    files_index, files_init, files_root,
)
from c1m.naming cimport MediaType, types_set

ENDINGS = [None, "gz", "br", "zst"]      # of sidecars, by Coding
assert len(ENDINGS) == CODINGS


cdef class Roots:
    """Document roots as Python sees them.

    paths: directories; types: media types by extension, with its dot, or by name; index: names for a directory;
    openat2: False to do without that call; max_files and max_bytes: the bounds of the cache.
    """

    cdef Files f
    cdef FilesCounts counts
    cdef list types, index

    def __cinit__(self, paths, types, bint openat2=True, index=("index.html",), bint follow_symlinks=False,
                  bint dotfiles=False, bint clean_urls=False, int max_files=16384, size_t max_bytes=67108864):
        if not files_init(&self.f, &self.counts, max_files, max_bytes):
            raise MemoryError
        self.f.no_openat2 = not openat2
        self.types = [(extension.encode(), name.encode()) for extension, name in types.items()]
        self.f.types.default_type = MediaType(Slice(b"application/octet-stream", 24), False)
        for extension, name in self.types:
            types_set(&self.f.types, Slice(extension, len(extension)), MediaType(Slice(name, len(name)), False))
        self.index = [os.fsencode(name) for name in index]
        for path in paths:
            root = files_root(&self.f, os.fsencode(path), follow_symlinks)
            if root < 0:
                raise OSError(-root, os.strerror(-root), path)
            self.f.roots[root].dotfiles, self.f.roots[root].clean_urls = dotfiles, clean_urls
            for name in self.index:
                files_index(&self.f, root, Slice(name, len(name)))

    def __dealloc__(self):
        files_free(&self.f)

    def find(self, int root, bytes path, int64_t now_ms=0, encoded=()):
        """A dict that describes the file, "directory", None, or "busy".

        encoded: endings of the sidecars that the client prefers, best first; "encoded" in the dict tells which it is.
        """
        cdef File *file
        cdef uint32_t codings = 0
        cdef FindResult kind
        for i, ending in enumerate(encoded):
            codings |= <uint32_t>ENDINGS.index(ending) << 2 * <int>i
        kind = files_find(&self.f, root, Slice(path, len(path)), codings, now_ms, &file)
        if kind == FILE_DIRECTORY:
            return "directory"
        if kind == FILE_NONE:
            return None
        if kind == FILE_BUSY:
            return "busy"
        if file.body.fd >= 0:
            contents = os.pread(file.body.fd, file.size, 0)
        else:
            contents = file.body.data[:file.body.size]
        return {
            "size": file.size, "mtime": file.mtime, "type": file.type.name.at[:file.type.name.n],
            "etag": file.etag.at[:file.etag.n], "in_memory": file.body.fd < 0, "contents": contents,
            "encoded": ENDINGS[file.coding],
        }

    def forget(self, int64_t now_ms):
        files_forget(&self.f, now_ms)

    def counters(self):
        return {
            "files": self.counts.files, "open": self.f.open_count, "bytes": self.counts.bytes,
            "hits": self.counts.hits, "misses": self.counts.misses,
        }

    def chain_lengths(self):
        """How many files each bucket has."""
        cdef File *file
        cdef uint32_t i, length
        lengths = []
        for i in range(self.f.bucket_count):
            length = 0
            file = self.f.buckets[i]
            while file != NULL:
                length += 1
                file = file.chain
            lengths.append(length)
        return lengths
