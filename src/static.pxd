"""Document roots as responses. See static.pyx."""

from c1m.buf cimport Slice
from c1m.files cimport Files
from c1m.naming cimport Rules
from c1m.response cimport Exchange

cdef enum:
    MAX_MOUNTS = 256
    MAX_RULES = 32               # of each kind, in a mount
    MAX_CORS = 32

cdef enum StaticResult:
    STATIC_SENT                  # a response is written
    STATIC_ABSENT                # there is nothing: static_absent responds, unless something else is there
    STATIC_LISTING               # a directory without an index, which is to be listed

cdef struct Mount:               # a document root's place in the URL space, and how it responds there
    Slice host                   # lower case; empty for any
    Slice prefix                 # without its last slash: "" or "/assets"
    int root
    bint listing                 # list directories that have no index
    bint single_page             # send the root's index where nothing is found
    bint escaped_slashes         # take "%2F" for a slash; else it is refused
    bint sidecars                # look for name.zst, name.br, name.gz
    Slice charset                # a parameter of text's media type, with what precedes it; empty for none
    Slice fields                 # whole header lines for every file
    Rules fields_for             # and those for files that fit a pattern, in place of them
    Rules cache                  # values of Cache-Control
    size_t own_fields            # bytes of a head, beyond MAX_HEAD, that what is said here may take
    Slice[MAX_CORS] origins      # that may read our responses from scripts of theirs
    int origins_n
    bint any_origin              # all of them may
    Slice cors_fields            # whole header lines for the origins that may

# What can't be read was asked for, and has its response; fault: an errno.
ctypedef void (*unreadable_t)(void *owner, Exchange *x, int fault) noexcept nogil

cdef struct Static:
    Files files
    unreadable_t unreadable
    void *owner                  # its first argument
    Mount *mounts[MAX_MOUNTS]    # the first that fits a request is its: by host, then any host, longest prefix first
    int mounts_n

cdef const Mount *mount_find(const Static *s, Exchange *x) noexcept nogil
cdef void mount_add(Static *s, Mount *m) noexcept nogil
cdef StaticResult static_respond(Static *s, Exchange *x) noexcept nogil
cdef void static_absent(Static *s, Exchange *x) noexcept nogil


cdef inline Slice path_below(const Mount *m, Slice path) noexcept nogil:
    """What a path names below the prefix of its mount."""
    return Slice(path.at + m.prefix.n, path.n - m.prefix.n)
