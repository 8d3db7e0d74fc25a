"""Heads of responses. See response.pyx."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from c1m.buf cimport Slice

cdef enum:
    DATE_AT = 23                 # where the date is in a head with status 200
    MAX_HEAD = 1024              # bytes of any head made of the pieces below, Location aside

cdef const char *response_reason(int status) noexcept nogil
cdef uint8_t *response_head(uint8_t *to, int status, const uint8_t *date) noexcept nogil
cdef uint8_t *response_connection(uint8_t *to, uint8_t minor, bint keep) noexcept nogil
cdef uint8_t *response_validators(uint8_t *to, int64_t mtime, Slice etag) noexcept nogil
cdef uint8_t *response_length(uint8_t *to, uint64_t n) noexcept nogil
cdef uint8_t *response_text(uint8_t *to, int status, bint with_body) noexcept nogil
cdef size_t response_text_size(int status) noexcept nogil
