"""Content codings (RFC 9110 section 8.4.1): one numbering for what a client accepts and what a file is stored in."""

cdef enum Coding:                # among those equally acceptable, the later one is preferred
    IDENTITY
    GZIP
    BROTLI
    ZSTD
    CODINGS
