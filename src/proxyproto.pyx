"""The PROXY protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt): who is behind a proxy's connection.

Owns: the grammar of the header that a proxy sends before anything else.
Refuses to know: sockets, clocks, who may send one. Nothing is allocated or kept between calls.

    used = proxy_next(bytes, n, &header)
    PROXY_MORE     keep the bytes and come back with more behind them; used is 0
    PROXY_FAIL     close: not one byte may be taken for anything else
    anything else  the header is bytes[:used], and what it precedes begins behind it

Invariants: the same bytes give the same event in one piece or one at a time, for a header is judged when it is whole,
but for what can't become one: a wrong byte in the signature, a line that grows too long, a lone CR or LF in it, a fixed
part of version 2 that means nothing.

Strictness:
  neither "PROXY " nor the 12 bytes of version 2          2      fail, at the first byte that differs
  version 1: no line end within 107 bytes                 2.1    fail
  version 1: a lone CR or LF                              2.1    fail
  version 1: other than one space between fields, more or fewer fields  2.1  fail
  version 1: UNKNOWN, whatever follows it                 2.1    the proxy's own
  version 1: another word than TCP4, TCP6 or UNKNOWN      2.1    fail
  version 1: an address that is not of its family, or with leading zeroes  2.1  fail (of the destination, too)
  version 1: a port over 65535, with leading zeroes       2.1    fail
  version 2: another version, or command                  2.2    fail
  version 2: LOCAL                                        2.2    the proxy's own, whatever family and length say
  version 2: family or protocol unspecified               2.2    the proxy's own
  version 2: another family or protocol                   2.2    fail
  version 2: UNIX, stream or datagram                     2.2    no address
  version 2: datagram over INET and INET6                 2.2    as stream
  version 2: less than the family's addresses             2.2    fail
  version 2: TLVs                                         2.2    skipped; cut off by the header's end: fail
  version 2: a CRC32C                                     2.2.3  checked; wrong, not 4 bytes or there twice: fail
  an IPv4 address mapped into IPv6                        -      is an IPv4 address
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp, memcpy, memset

from c1m.address cimport Address, address_parse, address_unmap
from c1m.buf cimport CLASS, DIGIT, Slice, load_be16
from c1m.linux cimport AF_INET, AF_INET6

cdef enum:
    WORD = 6                     # "PROXY "
    SIGNATURE = 12
    FIXED = 16                   # bytes of version 2 in front of the addresses
    VERSION = 0x20
    LOCAL = 0
    PROXY = 1
    UNSPEC = 0
    INET = 1
    INET6 = 2
    UNIX = 3
    DGRAM = 2
    TLV_HEAD = 3
    TLV_CRC32C = 3
    CR = 13
    LF = 10

cdef const uint8_t *BINARY = b"\r\n\r\n\0\r\nQUIT\n"
# Of RFC 3720 appendix B.4, four bits at a time: the reflected polynomial 0x82F63B78.
cdef uint32_t[16] CRC = [
    0x00000000, 0x105EC76F, 0x20BD8EDE, 0x30E349B1, 0x417B1DBC, 0x5125DAD3, 0x61C69362, 0x7198540D,
    0x82F63B78, 0x92A8FC17, 0xA24BB5A6, 0xB21572C9, 0xC38D26C4, 0xD3D3E1AB, 0xE330A81A, 0xF36E6F75,
]


cdef size_t proxy_next(const uint8_t *bytes, size_t n, ProxyHeader *header) noexcept nogil:
    """Finds the header at the start of bytes[:n]; returns its length, which is 0 with PROXY_MORE and PROXY_FAIL."""
    memset(header, 0, sizeof(ProxyHeader))
    if n == 0:
        return 0
    if bytes[0] == c'P':
        return line_next(bytes, n, header)
    return binary_next(bytes, n, header)


cdef inline size_t fail(ProxyHeader *header, const char *fault) noexcept nogil:
    header.kind = PROXY_FAIL
    header.fault = fault
    return 0


# ---- version 1 ----

cdef size_t line_next(const uint8_t *bytes, size_t n, ProxyHeader *header) noexcept nogil:
    cdef size_t i
    cdef Slice rest
    if memcmp(bytes, b"PROXY ", min(n, <size_t>WORD)) != 0:
        return fail(header, b"no PROXY header")
    for i in range(min(n, <size_t>MAX_PROXY_LINE)):
        if bytes[i] == LF:
            return fail(header, b"a line end without CR")
        if bytes[i] == CR:
            break
    else:
        return 0 if n < MAX_PROXY_LINE else fail(header, b"a line over 107 bytes")
    if i + 1 == MAX_PROXY_LINE:
        return fail(header, b"a line over 107 bytes")
    if i + 1 == n:
        return 0
    if bytes[i + 1] != LF:
        return fail(header, b"a CR inside the line")
    rest = Slice(bytes + WORD, i - WORD)
    if not line_parse(rest, header):
        return fail(header, b"a malformed line")
    return i + 2


cdef bint line_parse(Slice rest, ProxyHeader *header) noexcept nogil:
    """What stands between "PROXY " and the line end."""
    cdef Slice[5] fields
    cdef Address destination
    cdef int i, family
    if rest.n >= 7 and memcmp(rest.at, b"UNKNOWN", 7) == 0 and (rest.n == 7 or rest.at[7] == c' '):
        header.kind = PROXY_OWN
        return True
    for i in range(5):
        fields[i].at = rest.at
        while rest.n and rest.at[0] != c' ':
            rest = Slice(rest.at + 1, rest.n - 1)
        fields[i].n = rest.at - fields[i].at
        if fields[i].n == 0 or (rest.n == 0) != (i == 4):
            return False
        if i < 4:
            rest = Slice(rest.at + 1, rest.n - 1)
    if fields[0].n != 4 or memcmp(fields[0].at, b"TCP", 3) != 0:
        return False
    family = AF_INET if fields[0].at[3] == c'4' else AF_INET6 if fields[0].at[3] == c'6' else -1
    header.kind = PROXY_FROM
    return (is_of(family, fields[1], &header.source) and is_of(family, fields[2], &destination)
            and is_port(fields[3]) and is_port(fields[4]))


cdef bint is_of(int family, Slice text, Address *to) noexcept nogil:
    """Reads an address, which must be written as one of that family."""
    cdef size_t i
    cdef bint colon = False
    for i in range(text.n):
        colon |= text.at[i] == c':'
    return (family == AF_INET6 if colon else family == AF_INET) and address_parse(text, to)


cdef bint is_port(Slice text) noexcept nogil:
    cdef uint32_t port = 0
    cdef size_t i
    if text.n > 5 or (text.n > 1 and text.at[0] == c'0'):
        return False
    for i in range(text.n):
        if not CLASS[text.at[i]] & DIGIT:
            return False
        port = port * 10 + (text.at[i] - c'0')
    return port <= 65535


# ---- version 2 ----

cdef size_t binary_next(const uint8_t *bytes, size_t n, ProxyHeader *header) noexcept nogil:
    cdef int command, family, protocol
    cdef size_t whole
    if memcmp(bytes, BINARY, min(n, <size_t>SIGNATURE)) != 0:
        return fail(header, b"no PROXY header")
    if n < FIXED:
        return 0
    command, family, protocol = bytes[12] & 15, bytes[13] >> 4, bytes[13] & 15
    if bytes[12] & 0xf0 != VERSION:
        return fail(header, b"another version than 1 and 2")
    if command > PROXY:
        return fail(header, b"an unknown command")
    if command == PROXY and (family > UNIX or protocol > DGRAM):
        return fail(header, b"an unknown family or protocol")
    whole = FIXED + load_be16(bytes + 14)
    if n < whole:
        return 0
    header.kind = PROXY_OWN
    if command == LOCAL or family == UNSPEC or protocol == UNSPEC:
        return whole
    return addresses_parse(bytes, whole, family, header)


cdef size_t addresses_parse(const uint8_t *bytes, size_t whole, int family, ProxyHeader *header) noexcept nogil:
    """The addresses of a whole header, and the TLVs behind them."""
    cdef size_t size = 2 * 4 + 4 if family == INET else 2 * 16 + 4 if family == INET6 else 2 * 108
    if whole - FIXED < size:
        return fail(header, b"less than the family's addresses")
    if not tlvs_check(bytes, FIXED + size, whole, header):
        return 0
    if family == UNIX:
        header.kind = PROXY_NOWHERE
        return whole
    header.kind = PROXY_FROM
    header.source.family = <uint8_t>(AF_INET if family == INET else AF_INET6)
    memcpy(header.source.bytes, bytes + FIXED, 4 if family == INET else 16)
    address_unmap(&header.source)
    return whole


cdef bint tlvs_check(const uint8_t *bytes, size_t at, size_t whole, ProxyHeader *header) noexcept nogil:
    """Whether the TLVs end where the header does, and the checksum, if there is one, is right."""
    cdef size_t n, checksum = 0
    while at < whole:
        n = load_be16(bytes + at + 1) if whole - at >= TLV_HEAD else 0
        if whole - at < TLV_HEAD + n:
            fail(header, b"a TLV that is cut off")
            return False
        if bytes[at] == TLV_CRC32C:
            if n != 4 or checksum:
                fail(header, b"a malformed checksum")
                return False
            checksum = at + TLV_HEAD
        at += TLV_HEAD + n
    if checksum and not checksum_right(bytes, whole, checksum):
        fail(header, b"a wrong checksum")
        return False
    return True


cdef bint checksum_right(const uint8_t *bytes, size_t whole, size_t at) noexcept nogil:
    """Whether the CRC32C at that place is the header's, its own four bytes taken for zeroes."""
    cdef uint32_t crc = ~<uint32_t>0, said
    cdef size_t i
    for i in range(whole):
        crc ^= 0 if at <= i < at + 4 else bytes[i]
        crc = crc >> 4 ^ CRC[crc & 15]
        crc = crc >> 4 ^ CRC[crc & 15]
    said = <uint32_t>load_be16(bytes + at) << 16 | load_be16(bytes + at + 2)
    return <uint32_t>~crc == said
