"""Who a request's client is, where it came through proxies: X-Forwarded-For, or Forwarded (RFC 7239).

Owns: the grammar of both, and whose word counts.
Refuses to know: connections. A head and the address of its connection go in, the client's comes out.

Each proxy adds the address that it was connected from at the end. So they are read from there on, for as long as each
is a trusted one: the first that is not is the client (nginx: real_ip_recursive). What stands before it the client may
have written itself, and it is not looked at; so nothing in it, such as a quote that is never closed, can hide the rest.
One field is read, never both: a proxy that adds to the one passes the other on as it came.

Strictness:
  several field lines of that name           9110 5.3   one list, in their order
  empty elements                             9110 5.6.1 skipped
  an address with a port                     7239 6     taken without it, whatever that is made of
  IPv6 in brackets, or in X-Forwarded-For without them  7239 6  taken
  Forwarded: other parameters                7239 4     skipped
  Forwarded: no "for", or twice              7239 4     stop
  "unknown", an obfuscated identifier (_x)   7239 6.2, 6.3  stop
  anything else, a zone (%eth0), a backslash -          stop
To stop is to take the last address that was good: of the proxy that did not tell where its request is from.
"""

from libc.stdint cimport uint8_t

from c1m.address cimport Address, address_parse, networks_have
from c1m.buf cimport CLASS, DIGIT, TOKEN, Slice
from c1m.http cimport OTHER_FIELD, HttpHead, http_is_word, http_trimmed


cdef void forwarded_client(const Forwarding *f, const HttpHead *h, Address *client) noexcept nogil:
    """Makes of a trusted proxy's address that of the client it has named."""
    cdef const char *name = b"forwarded" if f.standard else b"x-forwarded-for"
    cdef Slice rest, element
    cdef Address told
    cdef int i
    for i in range(h.count - 1, -1, -1):
        if h.fields[i].id != OTHER_FIELD or not http_is_word(h.fields[i].name, name):
            continue
        rest = h.fields[i].value
        while last_taken(&rest, &element, c',', f.standard):
            if element.n == 0:
                continue
            if f.standard and not node_of(element, &element):
                return
            if not node_parse(element, &told):
                return
            client[0] = told
            if not networks_have(&f.trusted, client):
                return


cdef bint last_taken(Slice *rest, Slice *item, uint8_t separator, bint quoted) noexcept nogil:
    """Takes what stands behind the last separator that is in no quotes off the end of a list. False: it was empty.

    quoted: there are quotes in it. Whether one opens or closes is told by their number from the end on.
    """
    cdef const uint8_t *end = rest.at + rest.n
    cdef const uint8_t *at = end
    cdef bint inside = False
    if rest.at == NULL:
        return False
    while at > rest.at and (inside or (at - 1)[0] != separator):
        at -= 1
        inside ^= quoted and at[0] == c'"'
    item[0] = http_trimmed(at, end)
    rest[0] = Slice(NULL, 0) if at == rest.at else Slice(rest.at, at - 1 - rest.at)
    return True


cdef bint node_of(Slice element, Slice *node) noexcept nogil:
    """What the element of a Forwarded says by "for", without quotes. False: nothing, or more than once."""
    cdef Slice pair, rest = element
    cdef int found = 0
    while last_taken(&rest, &pair, c';', True):
        if pair.n >= 4 and http_is_word(Slice(pair.at, 3), b"for") and pair.at[3] == c'=':
            node[0] = Slice(pair.at + 4, pair.n - 4)
            found += 1
    if node.n >= 2 and node.at[0] == c'"' and node.at[node.n - 1] == c'"':
        node[0] = Slice(node.at + 1, node.n - 2)
    return found == 1


cdef bint node_parse(Slice node, Address *to) noexcept nogil:
    """An address, with or without a port (RFC 7239 section 6)."""
    cdef size_t i = 0, colons = 0, colon = 0
    if node.n and node.at[0] == c'[':
        while i < node.n and node.at[i] != c']':
            i += 1
        if i == node.n or not is_port(Slice(node.at + i + 1, node.n - i - 1)):
            return False
        return address_parse(Slice(node.at + 1, i - 1), to)
    for i in range(node.n):
        if node.at[i] == c':':
            colons += 1
            colon = i
    if colons != 1:
        return address_parse(node, to)
    return is_port(Slice(node.at + colon, node.n - colon)) and address_parse(Slice(node.at, colon), to)


cdef bint is_port(Slice port) noexcept nogil:
    """Nothing, or a colon and a port: digits, or an obfuscated one (RFC 7239 section 6.3)."""
    cdef size_t i
    cdef int wanted = DIGIT
    if port.n == 0:
        return True
    if port.at[0] != c':' or port.n == 1:
        return False
    if port.at[1] == c'_':
        wanted = TOKEN
    for i in range(1, port.n):
        if not CLASS[port.at[i]] & wanted:
            return False
    return wanted == TOKEN or port.n <= 6
