"""HTTP answers. See answers.pyx."""

from libc.stdint cimport int64_t, uint8_t

from c1m.app cimport App, Mount
from c1m.buf cimport Slice
from c1m.reactor cimport Conn, conn_wrote
from c1m.response cimport response_length

cdef void mount_find(App *a, Slice path) noexcept nogil
cdef int route_at(const App *a, Slice path) noexcept nogil
cdef bint answer_path(App *a, Conn *c, Slice path) noexcept nogil
cdef void answer_absent(App *a, Conn *c, Slice path) noexcept nogil
cdef void answer_options(App *a, Conn *c) noexcept nogil
cdef void answer_status(App *a, Conn *c, int status, const char *fields) noexcept nogil
cdef void answer_not_allowed(App *a, Conn *c) noexcept nogil
cdef void answer_upgrade_required(App *a, Conn *c) noexcept nogil
cdef void answer_failure(App *a, Conn *c, int status) noexcept nogil
cdef void answer_log(App *a, Conn *c) noexcept nogil
cdef void answer_left(App *a, Conn *c) noexcept nogil
cdef uint8_t *head_begin(App *a, Conn *c, int status, size_t more) noexcept nogil


cdef inline Slice path_below(const Mount *m, Slice path) noexcept nogil:
    """What a path names below the prefix of its mount."""
    return Slice(path.at + m.prefix.n, path.n - m.prefix.n)

cdef inline uint8_t *put_length(App *a, uint8_t *to, int64_t n) noexcept nogil:
    """Content-Length and the head's end."""
    a.answer.length = n
    return response_length(to, n)

cdef inline void head_end(App *a, const uint8_t *end) noexcept nogil:
    """Ends what head_begin began."""
    conn_wrote(a.r, end - (a.r.outbox + a.r.outbox_n))
    a.answer.head_sent = a.r.sent + a.r.outbox_n
