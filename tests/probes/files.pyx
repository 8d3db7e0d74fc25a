"""Document roots as tests see them."""

import os

from libc.stdint cimport int64_t

from c1m.buf cimport Slice
from c1m.files cimport (
    FILE_BUSY, FILE_DIRECTORY, FILE_FOUND, FILE_NONE, File, Files, FindResult, SIDECARS, files_find, files_forget, files_free,
    files_index, files_init, files_root, files_sidecar, files_sidecars, files_type,
)


cdef class Roots:
    """Document roots as Python sees them.

    paths: directories; types: media types by extension without its dot; index: names that stand for their directory;
    openat2: False to do without that call; files_most and bytes_most: the bounds of the cache.
    """

    cdef Files f
    cdef list types, index

    def __cinit__(self, paths, types, bint openat2=True, index=("index.html",), bint follow_symlinks=False,
                  int files_most=16384, size_t bytes_most=67108864):
        if not files_init(&self.f, files_most, bytes_most):
            raise MemoryError
        self.f.no_openat2 = not openat2
        self.types = [(extension.encode(), name.encode()) for extension, name in types.items()]
        self.f.default_type = Slice(b"application/octet-stream", 24)
        for extension, name in self.types:
            files_type(&self.f, Slice(extension, len(extension)), Slice(name, len(name)))
        self.index = [os.fsencode(name) for name in index]
        for path in paths:
            root = files_root(&self.f, os.fsencode(path), follow_symlinks)
            if root < 0:
                raise OSError(-root, os.strerror(-root), path)
            for name in self.index:
                files_index(&self.f, root, Slice(name, len(name)))

    def __dealloc__(self):
        files_free(&self.f)

    def find(self, int root, bytes path, int64_t now_ms=0, str encoded=None):
        """A dict that describes the file (or its "gz", "br" or "zst" sidecar), "directory", None, or "busy"."""
        cdef File *file
        cdef FindResult kind = files_find(&self.f, root, Slice(path, len(path)), now_ms, &file)
        if kind == FILE_DIRECTORY:
            return "directory"
        if kind == FILE_NONE:
            return None
        if kind == FILE_BUSY:
            return "busy"
        endings = [None, "gz", "br", "zst"]
        there = files_sidecars(&self.f, file, now_ms)
        if encoded is not None and (not there >> endings.index(encoded) & 1 or
                                    files_sidecar(&self.f, file, endings.index(encoded), now_ms, &file) != FILE_FOUND):
            return None
        if file.body.fd >= 0:
            contents = os.pread(file.body.fd, file.size, 0)
        else:
            contents = file.body.data[:file.body.size]
        return {
            "size": file.size, "mtime": file.mtime, "type": file.type.at[:file.type.n], "etag": file.etag.at[:file.etag.n],
            "in_memory": file.body.fd < 0, "contents": contents,
            "sidecars": [endings[i] for i in range(1, SIDECARS) if there >> i & 1],
        }

    def forget(self, int64_t now_ms):
        files_forget(&self.f, now_ms)

    def counters(self):
        return {"files": self.f.count, "open": self.f.open_count, "bytes": self.f.bytes, "hits": self.f.hits, "misses": self.f.misses}
