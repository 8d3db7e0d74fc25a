"""What the engines decide: for each line of their Strictness tables what comes under it, and normal traffic.

Keyed by the table's line, word for word. To be run whole, cut at each place and byte by byte (oracle.py), and
to be mutated by the fuzzer.
"""

from __future__ import annotations

from typing import NamedTuple

from wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    MASK,
    PING,
    PONG,
    TEXT,
    chunked,
    close,
    frame,
    masked,
    message,
    request,
    upgrade,
)


def head(*fields: bytes, line: bytes = b"GET / HTTP/1.1") -> bytes:
    return b"\r\n".join([line, b"Host: a", *fields, b"", b""])


def fields_of(size: int) -> bytes:
    """A head whose field lines come to size bytes."""
    lines = b"Host: a\r\n" + (b"X: %s\r\n" % (b"x" * 195)) * 80
    return b"GET / HTTP/1.1\r\n%sY: %s\r\n\r\n" % (lines, b"y" * (size - len(lines) - 5))


def to_host(value: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % value


# What brackets may hold in a host, and what they may not (RFC 3986 section 3.2.2).
LITERALS = """
    :: ::1 1:: 1::8 2001:DB8::a 0001:0002:0003:0004:0005:0006:0007:0008 1:2:3:4:5:6:7:8 1:2:3:4:5:6:7::
    ::2:3:4:5:6:7:8 ::1.2.3.4 ::ffff:0.0.0.0 64:ff9b::255.249.199.10 1:2:3:4:5:6:1.2.3.4 1:2:3:4:5::1.2.3.4
    v1.x V1f.a:b~(!) vA.:
"""
NO_LITERALS = """
    : ::: :::: 1: :1 1 abc localhost .... 0..0 1.2.3.4 1:2:3:4:5:6:7 1:2:3:4:5:6:7:8:9 1:2:3:4:5:6:7:8:
    :1:2:3:4:5:6:7 1:2:3:4:5:6:7::8 ::1:2:3:4:5:6:7:8 1::2::3 :::1 1::: 1:::2 00001:: ::12345 ::g ::-1
    ::1%25eth0 ::1%eth0 1.2.3.4:: 1.2.3.4::1 ::1.2.3.4:5 1:2:3:4:5:6:7:1.2.3.4 1:2:3:4:5:6::1.2.3.4
    1:2:3:4:5:1.2.3.4 ::1.2.3 ::1.2.3. ::1.2.3.4. ::1.2.3.4.5 ::.1.2.3 ::1..2.3 ::256.2.3.4 ::1.2.3.0256
    ::01.2.3.4 ::1.2.3.00 ::a.2.3.4 ::1.2.3.a ::1.2.3.4a v v1 v1. v.x vg.x v1:x v1.% v1.%41 v1.[ x1.x [::1
"""


# As HttpReader has it; but a dict is a request with these values among others, and a status is a failure.
Expected = int | list[tuple | dict]
def old(*fields: bytes) -> bytes:
    return head(*fields, line=b"GET / HTTP/1.0")


GET, OLD, CHUNKED = head(), old(), head(b"Transfer-Encoding: chunked")
OK: Expected = [{"method": "GET", "path": b"/", "host": b"a", "flags": {"keep-alive"}, "length": 0}]

HTTP: dict[str, dict[str, tuple[bytes, Expected]]] = {
    "bare LF, bare CR, NUL, other controls": {
        "LF ends the request line": (GET.replace(b"\r\n", b"\n", 1), 400),
        "LF ends a field line": (head(b"A: b\nC: d"), 400),
        "LF ends the head": (GET[:-2] + b"\n", 400),
        "LF before the request line": (b"\n" + GET, 400),
        "CR in the request line": (GET.replace(b" ", b"\r", 1), 400),
        "CR in a field value": (head(b"A: b\rc"), 400),
        "CR CR LF": (head(b"A: b\r"), 400),
        "CR before the request line": (b"\r" + GET, 400),
        "NUL in the request line": (GET.replace(b"/", b"/\0", 1), 400),
        "NUL in a field value": (head(b"A: b\0"), 400),
        "NUL in a field name": (head(b"A\0: b"), 400),
        "BEL in a field value": (head(b"A: \a"), 400),
        "DEL in a field value": (head(b"A: \x7f"), 400),
        "control in a line that is not whole": (b"GET / HTTP/1.1\r\nA: b\x01", 400),
        "tab and obs-text in a field value are none": (head(b"A: \tb\t\xff\t"), OK),
    },
    "empty lines before the request line": {
        "one": (b"\r\n" + GET, OK),
        "four": (b"\r\n" * 4 + GET, OK),
        "five": (b"\r\n" * 5 + GET, 400),
        "five and no more": (b"\r\n" * 5, 400),
        "four, and LF": (b"\r\n" * 4 + b"\n", 400),
        "four before each request": ((b"\r\n" * 4 + GET) * 3, OK * 3),
        "four before each request, the first of which has a body": (
            b"\r\n" * 4 + CHUNKED + b"1\r\na\r\n0\r\n\r\n" + b"\r\n" * 4 + GET, [{}, ("body", b"a"), *OK]),
        "five after a request": (GET + b"\r\n" * 5 + GET, [*OK, ("fail", 400)]),
        "between requests": (GET + b"\r\n" + GET, OK + OK),
        "after a body": (head(b"Content-Length: 2") + b"ab\r\n" + GET, [{}, ("body", b"ab"), *OK]),
        "nothing else": (b"\r\n\r\n", []),
        "a line with a space is not empty": (b" \r\n" + GET, 400),
    },
    "request line over 8 KiB": {
        "exactly": (head(line=b"GET /%s HTTP/1.1" % (b"x" * 8178)), [{"path": b"/" + b"x" * 8178}]),
        "one more": (head(line=b"GET /%s HTTP/1.1" % (b"x" * 8179)), 414),
        "not whole": (b"x" * 8193, 414),
        "not whole, exactly": (b"x" * 8192, []),
        "CR at the limit": (b"x" * 8192 + b"\r", []),
        "in the query": (head(line=b"GET /?%s HTTP/1.1" % (b"x" * 8178)), 414),
        "malformed as well": (b" " * 8193 + b"\r\n", 414),
    },
    "two spaces, tab, trailing space in it": {
        "two spaces before the target": (head(line=b"GET  / HTTP/1.1"), 400),
        "two spaces before the version": (head(line=b"GET /  HTTP/1.1"), 400),
        "tab for a space": (head(line=b"GET\t/ HTTP/1.1"), 400),
        "tab for the other space": (head(line=b"GET /\tHTTP/1.1"), 400),
        "trailing space": (head(line=b"GET / HTTP/1.1 "), 400),
        "leading space": (head(line=b" GET / HTTP/1.1"), 400),
        "space in the target": (head(line=b"GET /a b HTTP/1.1"), 400),
        "no target": (head(line=b"GET HTTP/1.1"), 400),
        "no version": (head(line=b"GET /"), 400),
        "empty target": (head(line=b"GET  HTTP/1.1"), 400),
        "version in small letters": (head(line=b"GET / http/1.1"), 400),
        "version without minor": (head(line=b"GET / HTTP/1"), 400),
        "version of two digits": (head(line=b"GET / HTTP/1.10"), 400),
        "version with a letter": (head(line=b"GET / HTTP/1.x"), 400),
        "version with a comma": (head(line=b"GET / HTTP/1,1"), 400),
        "junk after the version": (head(line=b"GET / HTTP/1.1x"), 400),
    },
    "method not a token": {
        "separator": (head(line=b"G(T / HTTP/1.1"), 400),
        "obs-text": (head(line=b"G\xc9T / HTTP/1.1"), 400),
        "none": (head(line=b" / HTTP/1.1"), 400),
        "TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        "any token is a method": (head(line=b"M-SEARCH!#$%&'*+.^_`|~ / HTTP/1.1"), [{"method": "unknown"}]),
        "small letters are another method": (head(line=b"get / HTTP/1.1"), [{"method": "unknown"}]),
    },
    "target not visible ASCII, or with #": {
        "fragment": (head(line=b"GET /a#b HTTP/1.1"), 400),
        "fragment in the query": (head(line=b"GET /?a#b HTTP/1.1"), 400),
        "UTF-8": (head(line="GET /é HTTP/1.1".encode()), 400),
        "DEL": (head(line=b"GET /\x7f HTTP/1.1"), 400),
        "what browsers leave raw": (
            head(line=b"GET /[a]|^`{}\"<>\\?{\"q\":1} HTTP/1.1"),
            [{"path": b"/[a]|^`{}\"<>\\", "query": b"{\"q\":1}"}]),
    },
    "%-escape malformed, of NUL or of a slash": {
        "cut short": (head(line=b"GET /%2 HTTP/1.1"), 400),
        "percent alone": (head(line=b"GET /% HTTP/1.1"), 400),
        "cut short by the query": (head(line=b"GET /%2?0 HTTP/1.1"), 400),
        "not hexadecimal": (head(line=b"GET /%2g HTTP/1.1"), 400),
        "not hexadecimal either": (head(line=b"GET /%g2 HTTP/1.1"), 400),
        "NUL": (head(line=b"GET /a%00b HTTP/1.1"), 400),
        "slash": (head(line=b"GET /a%2Fb HTTP/1.1"), 400),
        "slash in small letters": (head(line=b"GET /a%2fb HTTP/1.1"), 400),
        "in absolute-form": (head(line=b"GET http://a/%zz HTTP/1.1"), 400),
        "any other": (head(line=b"GET /%41%c3%A9%2e%25%5C HTTP/1.1"), [{"resolved": "/Aé.%\\".encode()}]),
        "anything in the query": (head(line=b"GET /?%00%2f%zz% HTTP/1.1"), [{"query": b"%00%2f%zz%"}]),
    },
    "absolute-form": {
        "with a path": (
            head(line=b"GET http://b:81/c?d HTTP/1.1"), [{"host": b"b:81", "path": b"/c", "query": b"d"}]),
        "without a path": (head(line=b"GET http://b HTTP/1.1"), [{"host": b"b", "path": b"/", "query": b""}]),
        "with a query only": (
            head(line=b"GET http://b?c HTTP/1.1"), [{"host": b"b", "path": b"/", "query": b"c"}]),
        "https in capitals": (head(line=b"GET HTTPS://[::1]/ HTTP/1.1"), [{"host": b"[::1]", "path": b"/"}]),
        "Host is needed all the same": (b"GET http://b/ HTTP/1.1\r\n\r\n", 400),
        "in HTTP/1.0": (b"GET http://b/ HTTP/1.0\r\n\r\n", [{"host": b"b"}]),
        "user information": (head(line=b"GET http://me@b/ HTTP/1.1"), 400),
        "no authority": (head(line=b"GET http:///c HTTP/1.1"), 400),
        "nothing at all": (head(line=b"GET http:// HTTP/1.1"), 400),
        "nothing at all, https": (head(line=b"GET https:// HTTP/1.1"), 400),
        "no host but a port, 9110 4.2.1": (head(line=b"GET http://:80/ HTTP/1.1"), 400),
        "malformed port": (head(line=b"GET http://b:x/ HTTP/1.1"), 400),
        "another scheme": (head(line=b"GET ftp://b/ HTTP/1.1"), 400),
        "one slash": (head(line=b"GET http:/b HTTP/1.1"), 400),
        "no scheme": (head(line=b"GET b/c HTTP/1.1"), 400),
    },
    "asterisk-form": {
        "OPTIONS": (head(line=b"OPTIONS * HTTP/1.1"), [{"method": "OPTIONS", "path": b"*", "host": b"a"}]),
        "GET": (head(line=b"GET * HTTP/1.1"), 400),
        "two of them": (head(line=b"OPTIONS ** HTTP/1.1"), 400),
    },
    "authority-form": {
        "CONNECT": (
            head(line=b"CONNECT b:443 HTTP/1.1"), [{"method": "CONNECT", "path": b"", "host": b"b:443"}]),
        "CONNECT with a path": (head(line=b"CONNECT /b HTTP/1.1"), 400),
        "CONNECT with a URI": (head(line=b"CONNECT http://b/ HTTP/1.1"), 400),
        "CONNECT with a malformed host": (head(line=b"CONNECT b]:443 HTTP/1.1"), 400),
        "CONNECT to an IPv6 address": (head(line=b"CONNECT [::1]:443 HTTP/1.1"), [{"host": b"[::1]:443"}]),
        "CONNECT without a port": (head(line=b"CONNECT b HTTP/1.1"), 400),
        "CONNECT without a port, IPv6": (head(line=b"CONNECT [::1] HTTP/1.1"), 400),
        "CONNECT without a port, a number": (head(line=b"CONNECT 443 HTTP/1.1"), 400),
        "CONNECT with an empty port": (head(line=b"CONNECT b: HTTP/1.1"), 400),
        "CONNECT without a host": (head(line=b"CONNECT :443 HTTP/1.1"), 400),
        "GET": (head(line=b"GET b:443 HTTP/1.1"), 400),
    },
    "HTTP/0.x, 2.x and up, the HTTP/2 preface": {
        "0.9": (head(line=b"GET / HTTP/0.9"), 505),
        "2.0": (head(line=b"GET / HTTP/2.0"), 505),
        "9.9": (head(line=b"GET / HTTP/9.9"), 505),
        "preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        "1.0 is served, and closed": (OLD, [{"minor": 0, "host": b"a", "flags": set()}]),
        "1.0 with keep-alive is kept": (old(b"Connection: Keep-Alive"), [{"flags": {"keep-alive"}}]),
        "1.0 with close as well is not": (old(b"Connection: close, keep-alive"), [{"flags": set()}]),
    },
    "HTTP/1.2 and up": {
        "1.2": (head(line=b"GET / HTTP/1.2"), [{"minor": 2, "flags": {"keep-alive"}}]),
        "1.9": (head(b"Connection: close", line=b"GET / HTTP/1.9"), [{"minor": 9, "flags": set()}]),
        "needs Host": (b"GET / HTTP/1.2\r\n\r\n", 400),
    },
    "line folding": {
        "with a space": (head(b"A: b\r\n c"), 400),
        "with a tab": (head(b"A: b\r\n\tc"), 400),
        "of nothing": (head(b"A: b\r\n "), 400),
        "before the first field": (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    },
    "space before the colon, empty field name": {
        "space": (head(b"Content-Length : 5"), 400),
        "tab": (head(b"A\t: b"), 400),
        "empty": (head(b": b"), 400),
        "no colon": (head(b"A"), 400),
        "name not a token": (head(b"A(: b"), 400),
        "name in obs-text": (head(b"\xc4: b"), 400),
        "none before the value": (head(b"A:b"), [{"fields": [(b"Host", b"a"), (b"A", b"b")]}]),
        "much around the value": (head(b"A: \t b: c\t "), [{"fields": [(b"Host", b"a"), (b"A", b"b: c")]}]),
        "empty value": (head(b"A:", b"B: "), [{"fields": [(b"Host", b"a"), (b"A", b""), (b"B", b"")]}]),
    },
    "fields over 16 KiB or 100": {
        "exactly 16 KiB": (fields_of(16384), [{}]),
        "a byte more": (fields_of(16385), 431),
        "in one line, not whole": (b"GET / HTTP/1.1\r\n" + b"x" * 16385, 431),
        "in one line, not whole, exactly": (b"GET / HTTP/1.1\r\n" + b"x" * 16384, []),
        "exactly 100": (head(*[b"A: b"] * 99), [{"fields": [(b"Host", b"a"), *[(b"A", b"b")] * 99]}]),
        "one more": (head(*[b"A: b"] * 100), 431),
        "one more and malformed": (head(*[b"A: b"] * 99, b"A"), 431),
        "each request has as many": (head(*[b"A: b"] * 99) * 2, [{}, {}]),
    },
    "Host missing in 1.1, twice, malformed": {
        "missing": (b"GET / HTTP/1.1\r\n\r\n", 400),
        "missing in 1.0": (b"GET / HTTP/1.0\r\n\r\n", [{"minor": 0, "host": b""}]),
        "twice": (head(b"Host: a"), 400),
        "twice in 1.0": (old(b"host: b"), 400),
        "path": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        "user": (b"GET / HTTP/1.1\r\nHost: me@a\r\n\r\n", 400),
        "space": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        "list": (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
        "obs-text": (b"GET / HTTP/1.1\r\nHost: \xe4\r\n\r\n", 400),
        "port not a number": (b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
        "two ports": (b"GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n", 400),
        "bracket left open": (b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
        "junk after the brackets": (b"GET / HTTP/1.1\r\nHost: [::1]a\r\n\r\n", 400),
        "brackets around nothing": (to_host(b"[]"), 400),
        **{
            f"brackets around {text}": (to_host(b"[%s]" % text.encode()), 400) for text in NO_LITERALS.split()
        },
        **{
            f"{text} in brackets": (to_host(b"[%s]" % text.encode()), [{"host": b"[%s]" % text.encode()}])
            for text in LITERALS.split()
        },
        "port alone": (to_host(b":80"), 400),
        "colon alone": (to_host(b":"), 400),
        "%-escape": (to_host(b"%41%2e:80"), [{"host": b"%41%2e:80"}]),
        "%-escape cut short": (to_host(b"a%2"), 400),
        "%-escape not hexadecimal": (to_host(b"a%zz"), 400),
        "percent alone": (to_host(b"%"), 400),
        "percent before the port": (to_host(b"a%:80"), 400),
        "empty port": (to_host(b"a:"), [{"host": b"a:"}]),
        "empty, for a target without authority": (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", [{"host": b""}]),
        "name and port": (b"GET / HTTP/1.1\r\nHOST: a-b.c:8080\r\n\r\n", [{"host": b"a-b.c:8080"}]),
        "IPv6": (b"GET / HTTP/1.1\r\nhost: [fe80::1.2.3.4]:80\r\n\r\n", [{"host": b"[fe80::1.2.3.4]:80"}]),
    },
    "Content-Length not digits, twice, a list, over 18 digits": {
        "sign": (head(b"Content-Length: +5"), 400),
        "negative": (head(b"Content-Length: -5"), 400),
        "hexadecimal": (head(b"Content-Length: 0x5"), 400),
        "fraction": (head(b"Content-Length: 5.0"), 400),
        "empty": (head(b"Content-Length:"), 400),
        "space inside": (head(b"Content-Length: 5 5"), 400),
        "twice, different": (head(b"Content-Length: 5", b"Content-Length: 6"), 400),
        "twice, the same": (head(b"Content-Length: 5", b"content-length: 5"), 400),
        "list": (head(b"Content-Length: 5, 5"), 400),
        "19 digits": (head(b"Content-Length: 0000000000000000005"), 400),
        "2**64 + 5": (head(b"Content-Length: 18446744073709551621"), 400),
        "18 digits": (
            head(b"Content-Length: 000000000000000001") + b"a" + GET, [{"length": 1}, ("body", b"a"), *OK]),
        "zero": (head(b"Content-Length: 0") + GET, [{"length": 0}, *OK]),
        "less than there is": (head(b"Content-Length: 3") + b"bodyGET", [{"length": 3}, ("body", b"bod")]),
        "more than there is": (head(b"Content-Length: 30") + b"body", [{"length": 30}, ("body", b"body")]),
        "body that looks like a request": (
            head(b"Content-Length: %d" % len(GET)) + GET * 2, [{}, ("body", GET), *OK]),
    },
    "Transfer-Encoding with Content-Length": {
        "after it": (head(b"Content-Length: 5", b"Transfer-Encoding: chunked"), 400),
        "before it": (head(b"Transfer-Encoding: chunked", b"Content-Length: 5"), 400),
        "of zero": (head(b"Content-Length: 0", b"Transfer-Encoding: chunked"), 400),
        "malformed": (head(b"Content-Length: x", b"Transfer-Encoding: chunked"), 400),
    },
    "Transfer-Encoding in HTTP/1.0": {
        "chunked": (old(b"Transfer-Encoding: chunked"), 400),
    },
    "Transfer-Encoding not ending in chunked, chunked twice": {
        "gzip": (head(b"Transfer-Encoding: gzip"), 400),
        "identity": (head(b"Transfer-Encoding: identity"), 400),
        "chunked, then gzip": (head(b"Transfer-Encoding: chunked, gzip"), 400),
        "chunked, chunked": (head(b"Transfer-Encoding: chunked, chunked"), 400),
        "two fields": (head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 400),
        "two fields, one good": (head(b"Transfer-Encoding: x", b"Transfer-Encoding: chunked"), 400),
        "empty": (head(b"Transfer-Encoding:"), 400),
        "commas": (head(b"Transfer-Encoding: ,,"), 400),
        "with a parameter": (head(b"Transfer-Encoding: chunked;a=b"), 400),
        "xchunked": (head(b"Transfer-Encoding: xchunked"), 400),
        "vertical tab": (head(b"Transfer-Encoding: \x0bchunked"), 400),
        "in quotes": (head(b'Transfer-Encoding: "chunked"'), 400),
        "chunked once": (
            head(b"Transfer-Encoding: chunked"), [{"flags": {"keep-alive", "chunked"}, "length": 0}]),
        "chunked once, in capitals and among empty elements": (
            head(b"Transfer-Encoding: , Chunked ,"), [{"flags": {"keep-alive", "chunked"}}]),
    },
    "another coding before chunked": {
        "gzip": (head(b"Transfer-Encoding: gzip, chunked"), 501),
        "one unheard of": (head(b"Transfer-Encoding: x;y=z,chunked"), 501),
    },
    "Content-Length over 1 MiB": {
        "exactly": (head(b"Content-Length: 1048576") + b"body", [{"length": 1 << 20}, ("body", b"body")]),
        "one more": (head(b"Content-Length: 1048577"), 413),
        "much more": (head(b"Content-Length: 999999999999999999"), 413),
    },
    "chunked body over 1 MiB with its framing": {
        "by a byte": (CHUNKED + b"ffffa\r\n", [{}, ("fail", 413)]),
        "exactly": (CHUNKED + b"ffff9\r\nab", [{}, ("body", b"ab")]),
        "by 2**64": (CHUNKED + b"10000000000000000\r\n", [{}, ("fail", 413)]),
        "by 2**1000": (CHUNKED + b"1" + b"0" * 250 + b"\r\n", [{}, ("fail", 413)]),
        "leading zeros are not over it": (CHUNKED + b"0" * 250 + b"2\r\nab", [{}, ("body", b"ab")]),
        "in the second chunk": (CHUNKED + b"1\r\na\r\nffff9\r\n", [{}, ("body", b"a"), ("fail", 413)]),
    },
    "chunk size not hexadecimal, none, blanks behind it": {
        "not hexadecimal": (CHUNKED + b"g\r\n", [{}, ("fail", 400)]),
        "0x": (CHUNKED + b"0x1\r\na\r\n", [{}, ("fail", 400)]),
        "sign": (CHUNKED + b"+1\r\na\r\n", [{}, ("fail", 400)]),
        "negative": (CHUNKED + b"-1\r\na\r\n", [{}, ("fail", 400)]),
        "leading space": (CHUNKED + b" 1\r\na\r\n", [{}, ("fail", 400)]),
        "two": (CHUNKED + b"1 1\r\na\r\n", [{}, ("fail", 400)]),
        "space behind": (CHUNKED + b"1 \r\na\r\n", [{}, ("fail", 400)]),
        "tab behind": (CHUNKED + b"1\t\r\na\r\n", [{}, ("fail", 400)]),
        "space behind the last": (CHUNKED + b"0 \r\n\r\n", [{}, ("fail", 400)]),
        "none": (CHUNKED + b"\r\n", [{}, ("fail", 400)]),
        "none but an extension": (CHUNKED + b";a=b\r\n", [{}, ("fail", 400)]),
        "in the second chunk": (CHUNKED + b"1\r\na\r\n\r\n", [{}, ("body", b"a"), ("fail", 400)]),
        "in capitals and small letters": (
            CHUNKED + b"A\r\n0123456789\r\na\r\n0123456789\r\n", [{}, ("body", b"0123456789" * 2)]),
    },
    "chunk extensions": {
        "one": (CHUNKED + b"1;a=b\r\na\r\n0;c\r\n\r\n" + GET, [{}, ("body", b"a"), *OK]),
        "in quotes, after a space": (CHUNKED + b'1 \t; a="b;c"\r\na\r\n', [{}, ("body", b"a")]),
        **{
            f"good, {text!r}": (CHUNKED + b"1%s\r\na\r\n" % text, [{}, ("body", b"a")])
            for text in (
                b";a", b";a;b=c;d", b" \t;\t a\t = \tb ; c", b';a=""', b';a="";b', b';a="\xff\t;="',
                b';a="\\"\\\\";b', b";!#$%&'*+-.^_`|~0Z=1",
            )
        },
        **{
            f"malformed, {text!r}": (CHUNKED + b"1%s\r\na\r\n" % text, [{}, ("fail", 400)])
            for text in (
                b";", b"; ", b";;a", b"; ;;", b";a;", b";a ", b";a b", b";a=", b";a= ;b", b";a=b ", b";=", b";=b",
                b';"', b';"a"', b';a="', b';a="b', b';a="\\"', b';a="b\\', b';a="b"c', b';a="b" ', b';a=b"c"',
                b";a=b=c", b";a(", b";\xff", b";a=\xff", b",a", b"a=b",
            )
        },
        "256 bytes": (CHUNKED + b"1;" + b"x" * 254 + b"\r\na", [{}, ("body", b"a")]),
        "257 bytes": (CHUNKED + b"1;" + b"x" * 255 + b"\r\na", [{}, ("fail", 400)]),
        "257 bytes, not whole": (CHUNKED + b"1;" + b"x" * 255, [{}, ("fail", 400)]),
    },
    "bare LF or CR in chunk framing, data not followed by CRLF": {
        "LF after the size": (CHUNKED + b"1\na\r\n", [{}, ("fail", 400)]),
        "LF in an extension": (CHUNKED + b"1;a\nb\r\na\r\n", [{}, ("fail", 400)]),
        "CR after the size": (CHUNKED + b"1\ra\r\n", [{}, ("fail", 400)]),
        "NUL in an extension": (CHUNKED + b"1;\0\r\na\r\n", [{}, ("fail", 400)]),
        "LF after the data": (CHUNKED + b"1\r\na\n0\r\n\r\n", [{}, ("body", b"a"), ("fail", 400)]),
        "CR after the data": (CHUNKED + b"1\r\na\r0\r\n\r\n", [{}, ("body", b"a"), ("fail", 400)]),
        "more data than announced": (CHUNKED + b"1\r\nab\r\n", [{}, ("body", b"a"), ("fail", 400)]),
        "less data than announced": (CHUNKED + b"3\r\na\r\n0\r\n", [{}, ("body", b"a\r\n"), ("fail", 400)]),
        "LF after the last chunk": (CHUNKED + b"0\r\n\n", [{}, ("fail", 400)]),
        "CR and LF in the data are data": (CHUNKED + b"3\r\n\r\n\n\r\n", [{}, ("body", b"\r\n\n")]),
    },
    "trailers": {
        "none": (CHUNKED + b"0\r\n\r\n" + GET, [{}, *OK]),
        "two": (CHUNKED + b"2\r\nab\r\n0\r\nA: b\r\nC:\r\n\r\n" + GET, [{}, ("body", b"ab"), *OK]),
        "they mean nothing": (
            CHUNKED + b"0\r\nHost: b\r\nContent-Length: 9\r\nConnection: close\r\n\r\n" + GET, [{}, *OK]),
        "more than 100": (CHUNKED + b"0\r\n" + b"A: b\r\n" * 200 + b"\r\n" + GET, [{}, *OK]),
        "folded": (CHUNKED + b"0\r\nA: b\r\n c\r\n\r\n", [{}, ("fail", 400)]),
        "space before the colon": (CHUNKED + b"0\r\nA : b\r\n\r\n", [{}, ("fail", 400)]),
        "no colon": (CHUNKED + b"0\r\nGET / HTTP/1.1\r\n\r\n", [{}, ("fail", 400)]),
        "NUL": (CHUNKED + b"0\r\nA: \0\r\n\r\n", [{}, ("fail", 400)]),
        "LF": (CHUNKED + b"0\r\nA: b\n\r\n", [{}, ("fail", 400)]),
        "a line of 16 KiB": (CHUNKED + b"0\r\nA: " + b"x" * 16381 + b"\r\n\r\n" + GET, [{}, *OK]),
        "a line of one more": (CHUNKED + b"0\r\nA: " + b"x" * 16382, [{}, ("fail", 431)]),
    },
    "Expect with anything but 100-continue": {
        "other": (head(b"Expect: 200-maybe"), [{"flags": {"keep-alive", "expectation"}}]),
        "a list": (head(b"Expect: 100-continue, x"), [{"flags": {"keep-alive", "continue", "expectation"}}]),
        "a list, the other way round": (
            head(b"Expect: x,100-continue"), [{"flags": {"keep-alive", "continue", "expectation"}}]),
        "in a second field": (
            head(b"Expect: 100-continue", b"Expect: x"), [{"flags": {"keep-alive", "continue", "expectation"}}]),
        "with a parameter": (head(b"Expect: 100-continue;q=1"), [{"flags": {"keep-alive", "expectation"}}]),
        "100-continue twice": (
            head(b"Expect: 100-continue, 100-continue", b"Expect: 100-continue"),
            [{"flags": {"keep-alive", "continue"}}]),
        "a list of nothing": (head(b"Expect: ,"), OK),
        "100-continue": (head(b"Expect: 100-Continue"), [{"flags": {"keep-alive", "continue"}}]),
        "in HTTP/1.0 it is passed over": (old(b"Expect: 100-continue, x"), [{"flags": set()}]),
    },
}

HTTP_NORMAL: dict[str, tuple[bytes, Expected]] = {
    "nothing": (b"", []),
    "the shortest": (b"GET / HTTP/1.0\r\n\r\n", [{"method": "GET", "path": b"/", "fields": []}]),
    "by a browser": (
        request(b"/app/main.css?v=3", [
            (b"Host", b"localhost:8080"),
            (b"Connection", b"keep-alive"),
            (b"User-Agent", b"Mozilla/5.0 (X11)"),
            (b"Accept", b"text/css,*/*;q=0.1"),
            (b"Accept-Encoding", b"gzip, br"),
            (b"Cookie", b'a="b, c"; d=\xc3'),
        ]),
        [{"path": b"/app/main.css", "query": b"v=3", "host": b"localhost:8080", "minor": 1}],
    ),
    "three in a row": (
        request(b"/a", method=b"HEAD") + request(b"/b") + request(b"/c", method=b"OPTIONS"),
        [{"method": "HEAD", "path": b"/a"}, {"path": b"/b"}, {"method": "OPTIONS", "path": b"/c"}],
    ),
    "a body, then a request": (
        head(b"Content-Length: 4", line=b"POST /form HTTP/1.1") + b"a=\r\nGET / HTTP/1.1\r\n\r\n",
        [{"method": "other", "length": 4}, ("body", b"a=\r\n"), ("fail", 400)],
    ),
    "a chunked body, then a request": (
        CHUNKED + chunked([b"Hello", b", ", b"world" * 4]) + GET,
        [{"flags": {"keep-alive", "chunked"}}, ("body", b"Hello, " + b"world" * 4), *OK],
    ),
    "two chunked bodies": (
        (CHUNKED + chunked([b"GET / HTTP/1.1\r\n\r\n"], b";x", [(b"A", b"b")])) * 2,
        [{}, ("body", b"GET / HTTP/1.1\r\n\r\n")] * 2,
    ),
    "the methods that have a meaning": (
        b"".join(head(line=name + b" / HTTP/1.1") for name in b"PUT POST PATCH TRACE DELETE MOVE move".split()),
        [{"method": "other"}] * 6 + [{"method": "unknown"}],
    ),
    "opening handshake": (upgrade(b"/chat"), [{"path": b"/chat", "flags": {"keep-alive", "websocket"}}]),
    "opening handshake as Firefox writes it": (
        head(b"connection: keep-alive, Upgrade", b"UPGRADE: WebSocket"),
        [{"flags": {"keep-alive", "websocket"}}],
    ),
    "two Connection fields are one list": (
        head(b"Connection: upgrade", b"Upgrade: x, websocket", b"Connection: close"),
        [{"flags": {"websocket"}}],
    ),
    "no upgrade without Connection": (head(b"Upgrade: websocket"), OK),
    "no upgrade in HTTP/1.0": (old(b"Connection: upgrade", b"Upgrade: websocket"), [{"flags": set()}]),
    "no upgrade to another protocol": (head(b"Connection: upgrade", b"Upgrade: h2c"), OK),
    "slashes and dots": (
        head(line=b"GET //a///./b/../%2e%2E/c// HTTP/1.1"),
        [{"path": b"//a///./b/../%2e%2E/c//", "resolved": b"/c/"}],
    ),
    "a path above the root": (
        head(line=b"GET /a/../%2e%2E/a HTTP/1.1"),
        [{"path": b"/a/../%2e%2E/a", "resolved": b"/.."}],
    ),
    "question marks in the query": (head(line=b"GET /a?b?/c HTTP/1.1"), [{"path": b"/a", "query": b"b?/c"}]),
    "an empty query": (head(line=b"GET /a? HTTP/1.1"), [{"path": b"/a", "query": b""}]),
    "nothing after a failure": (b"\0" + GET, 400),
}


class Vector(NamedTuple):
    data: bytes
    expected: int | list[tuple]      # as WsReader has it, or a close code for [("fail", code)]
    limit: int = 1 << 20
    client: bool = False
    deflate: bool = False


# ---- HTTP responses: data, methods of the requests as ResponseReader has them, events or why it fails ----

class ResponseVector(NamedTuple):
    data: bytes
    expected: str | list[tuple | dict]           # a dict: a response with these values among others
    methods: tuple[str, ...] = ()


def reply(*fields: bytes, line: bytes = b"HTTP/1.1 200 OK", body: bytes = b"") -> bytes:
    return b"\r\n".join([line, *fields, b"", body])


def reply_fields(size: int) -> bytes:
    """A head whose field lines come to size bytes."""
    lines = b"Content-Length: 0\r\n" + (b"X: %s\r\n" % (b"x" * 195)) * 80
    return b"HTTP/1.1 200 OK\r\n%sY: %s\r\n\r\n" % (lines, b"y" * (size - len(lines) - 5))


EMPTY = b"Content-Length: 0"
CHUNKS = b"Transfer-Encoding: chunked"
WHOLE: list[tuple | dict] = [{"status": 200}, ("end",), ("close", "between")]
HELLO: list[tuple | dict] = [{"status": 200}, ("body", b"Hello"), ("end",), ("close", "between")]
SWITCH = reply(b"Connection: Upgrade", b"Upgrade: websocket", line=b"HTTP/1.1 101 ", body=b"\x81\x00")


def bad_reply(*parts: bytes, **options: bytes) -> ResponseVector:
    return ResponseVector(reply(*parts, **options), "malformed")


def chunk_reply(data: bytes, expected: list[tuple | dict]) -> ResponseVector:
    return ResponseVector(reply(CHUNKS, body=data), expected)


def failed(why: str, *before: tuple) -> list[tuple | dict]:
    return [{"status": 200}, *before, ("fail", why)]


RESPONSES: dict[str, dict[str, ResponseVector]] = {
    "bare LF, bare CR, NUL, other controls": {
        "LF behind the status line": ResponseVector(b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", "malformed"),
        "LF behind a field": ResponseVector(b"HTTP/1.1 200 OK\r\nA: b\n\r\n", "malformed"),
        "CR in the reason": bad_reply(line=b"HTTP/1.1 200 O\rK"),
        "NUL in the reason": bad_reply(line=b"HTTP/1.1 200 O\0K"),
        "DEL in a value": bad_reply(b"A: \x7f"),
        "ESC in a value": bad_reply(b"A: \x1b[31m"),
    },
    "empty lines before the status line": {
        "one": ResponseVector(b"\r\n" + reply(EMPTY), "malformed"),
        "behind a body": ResponseVector(
            reply(b"Content-Length: 5", body=b"Hello\r\n"), [*HELLO[:-1], ("fail", "malformed")]),
    },
    "status line over 8 KiB": {
        "8192 bytes": ResponseVector(reply(EMPTY, line=b"HTTP/1.1 200 " + b"x" * 8179), WHOLE),
        "8193 bytes": ResponseVector(reply(EMPTY, line=b"HTTP/1.1 200 " + b"x" * 8180), "too long"),
        "without end": ResponseVector(b"H" * 8193, "too long"),
    },
    "two spaces, tab, another code than three digits, one below 100": {
        "two spaces": bad_reply(EMPTY, line=b"HTTP/1.1  200 OK"),
        "tab": bad_reply(EMPTY, line=b"HTTP/1.1\t200 OK"),
        "tab behind the code": bad_reply(EMPTY, line=b"HTTP/1.1 200\tOK"),
        "space first": bad_reply(EMPTY, line=b" HTTP/1.1 200 OK"),
        "two digits": bad_reply(EMPTY, line=b"HTTP/1.1 20 OK"),
        "four digits": bad_reply(EMPTY, line=b"HTTP/1.1 2000 OK"),
        "letters": bad_reply(EMPTY, line=b"HTTP/1.1 2xx OK"),
        "no code": bad_reply(EMPTY, line=b"HTTP/1.1"),
        "below 100": bad_reply(EMPTY, line=b"HTTP/1.1 099 OK"),
        "another protocol": bad_reply(EMPTY, line=b"ICY 200 OK is not it"),
        "in small letters": bad_reply(EMPTY, line=b"http/1.1 200 OK"),
        "a request": bad_reply(EMPTY, line=b"GET / HTTP/1.1"),
    },
    "no space behind the status code": {
        "none": ResponseVector(reply(EMPTY, line=b"HTTP/1.1 200"), [{"status": 200, "reason": b""}, *WHOLE[1:]]),
        "space": ResponseVector(reply(EMPTY, line=b"HTTP/1.1 200 "), [{"status": 200, "reason": b""}, *WHOLE[1:]]),
    },
    "status codes from 600 to 999": {
        "600": ResponseVector(reply(EMPTY, line=b"HTTP/1.1 600 "), [{"status": 600}, *WHOLE[1:]]),
        "999": ResponseVector(reply(EMPTY, line=b"HTTP/1.1 999 Go away"), [
            {"status": 999, "reason": b"Go away"}, *WHOLE[1:]]),
    },
    "HTTP/0.x, 2.x and up": {
        "0.9": ResponseVector(reply(line=b"HTTP/0.9 200 OK"), "unsupported"),
        "2.0": ResponseVector(reply(line=b"HTTP/2.0 200 OK"), "unsupported"),
    },
    "HTTP/1.2 and up": {
        "1.2": ResponseVector(reply(EMPTY, line=b"HTTP/1.2 200 OK"), [
            {"minor": 2, "flags": {"keep-alive"}}, *WHOLE[1:]]),
    },
    "line folding": {
        "space": bad_reply(b"A: b", b" c"),
        "tab": bad_reply(b"A: b", b"\tc"),
        "before the first field": bad_reply(b" A: b"),
    },
    "space before the colon, empty field name": {
        "space": bad_reply(b"A : b"),
        "tab": bad_reply(b"A\t: b"),
        "no name": bad_reply(b": b"),
        "no colon": bad_reply(b"A"),
        "not a token": bad_reply(b"A(: b"),
    },
    "fields over 16 KiB or 100": {
        "16384 bytes": ResponseVector(reply_fields(16384), WHOLE),
        "16385 bytes": ResponseVector(reply_fields(16385), "too long"),
        "100": ResponseVector(reply(EMPTY, *[b"A: b"] * 99), WHOLE),
        "101": ResponseVector(reply(EMPTY, *[b"A: b"] * 100), "too long"),
    },
    "1xx besides 101": {
        "100": ResponseVector(b"HTTP/1.1 100 Continue\r\n\r\n" + reply(EMPTY), [("interim", {
            "status": 100, "minor": 1, "reason": b"Continue", "length": 0, "flags": {"keep-alive"}, "fields": [],
        }), *WHOLE]),
        "ten of them": ResponseVector(
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 10 + reply(EMPTY), [*[("interim", {
                "status": 103, "minor": 1, "reason": b"Early Hints", "length": 0, "flags": {"keep-alive"},
                "fields": [(b"Link", b"</a>")],
            })] * 10, *WHOLE]),
        "and no final one": ResponseVector(b"HTTP/1.1 199 \r\n\r\n", [("interim", {
            "status": 199, "minor": 1, "reason": b"", "length": 0, "flags": {"keep-alive"}, "fields": [],
        }), ("close", "between")]),
    },
    "101 where no Upgrade was sent": {
        "GET": ResponseVector(SWITCH, "malformed"),
        "CONNECT": ResponseVector(SWITCH, "malformed", ("CONNECT",)),
    },
    "101, 2xx to CONNECT": {
        "101": ResponseVector(SWITCH, [
            {"status": 101, "flags": {"websocket", "switched"}}, ("close", "between")], ("UPGRADE",)),
        "another response to an upgrade": ResponseVector(reply(EMPTY) * 2, WHOLE[:-1] * 2 + WHOLE[-1:], ("UPGRADE",)),
        "200": ResponseVector(reply(body=b"\x16\x03"), [
            {"status": 200, "flags": {"switched"}}, ("close", "between")], ("CONNECT",)),
        "299 with a length": ResponseVector(reply(b"Content-Length: 5", line=b"HTTP/1.1 299 "), [
            {"status": 299, "flags": {"switched"}}, ("close", "between")], ("CONNECT",)),
        "407": ResponseVector(reply(b"Content-Length: 5", line=b"HTTP/1.1 407 ", body=b"Hello"), [
            {"status": 407}, *HELLO[1:]], ("CONNECT",)),
    },
    "1xx, 204, 304, any response to HEAD": {
        "100 with a length": ResponseVector(b"HTTP/1.1 100 \r\nContent-Length: 5\r\n\r\n" + reply(EMPTY), [("interim", {
            "status": 100, "minor": 1, "reason": b"", "length": 5, "flags": {"keep-alive"},
            "fields": [(b"Content-Length", b"5")],
        }), *WHOLE]),
        "204": ResponseVector(reply(line=b"HTTP/1.1 204 ") + reply(EMPTY), [{"status": 204}, ("end",), *WHOLE]),
        "204 with a length": ResponseVector(reply(b"Content-Length: 5", line=b"HTTP/1.1 204 ") + reply(EMPTY), [
            {"status": 204, "length": 5}, ("end",), *WHOLE]),
        "204, chunked": ResponseVector(reply(CHUNKS, line=b"HTTP/1.1 204 ") + reply(EMPTY), [
            {"status": 204, "flags": {"keep-alive"}}, ("end",), *WHOLE]),
        "304 with a length": ResponseVector(reply(b"Content-Length: 5", line=b"HTTP/1.1 304 ") + reply(EMPTY), [
            {"status": 304, "length": 5}, ("end",), *WHOLE]),
        "HEAD": ResponseVector(reply() + reply(b"Content-Length: 5", body=b"Hello"), [
            {"status": 200, "flags": {"keep-alive"}}, ("end",), *HELLO], ("HEAD",)),
        "HEAD with a length": ResponseVector(reply(b"Content-Length: 99999999999") * 2, [
            *[{"status": 200, "length": 99999999999}, ("end",)] * 2, ("close", "between")], ("HEAD", "HEAD")),
        "HEAD, chunked": ResponseVector(reply(CHUNKS) + reply(EMPTY), [
            {"status": 200, "flags": {"keep-alive"}}, ("end",), *WHOLE], ("HEAD", "GET")),
    },
    "Content-Length not digits, twice, a list, over 18 digits": {
        "sign": bad_reply(b"Content-Length: +5"),
        "hexadecimal": bad_reply(b"Content-Length: 0x5"),
        "empty": bad_reply(b"Content-Length: "),
        "twice": bad_reply(b"Content-Length: 5", b"Content-Length: 5"),
        "a list": bad_reply(b"Content-Length: 5, 5"),
        "19 digits": bad_reply(b"Content-Length: 0000000000000000005"),
        "to HEAD": ResponseVector(reply(b"Content-Length: x"), "malformed", ("HEAD",)),
        "of a 304": bad_reply(b"Content-Length: x", line=b"HTTP/1.1 304 "),
    },
    "Transfer-Encoding with Content-Length": {
        "in this order": bad_reply(CHUNKS, b"Content-Length: 5"),
        "in the other": bad_reply(b"Content-Length: 5", CHUNKS),
    },
    "Transfer-Encoding in HTTP/1.0": {
        "chunked": bad_reply(CHUNKS, line=b"HTTP/1.0 200 OK"),
    },
    "Transfer-Encoding not ending in chunked, chunked twice": {
        "gzip": bad_reply(b"Transfer-Encoding: gzip"),
        "identity": bad_reply(b"Transfer-Encoding: identity"),
        "chunked first": bad_reply(b"Transfer-Encoding: chunked, gzip"),
        "chunked, chunked": bad_reply(b"Transfer-Encoding: chunked, chunked"),
        "in two fields": bad_reply(CHUNKS, CHUNKS),
        "empty": bad_reply(b"Transfer-Encoding: "),
    },
    "another coding before chunked": {
        "gzip": ResponseVector(reply(b"Transfer-Encoding: gzip, chunked"), "unsupported"),
    },
    "neither of them": {
        "a body": ResponseVector(reply(body=b"Hello"), [
            {"status": 200, "flags": {"until close"}}, ("body", b"Hello"), ("close", "body")]),
        "none": ResponseVector(reply(), [{"status": 200, "flags": {"until close"}}, ("close", "body")]),
        "HTTP/1.0, keep-alive": ResponseVector(
            reply(b"Connection: keep-alive", line=b"HTTP/1.0 404 Not Found", body=b"x"), [
                {"status": 404, "minor": 0, "flags": {"until close"}}, ("body", b"x"), ("close", "body")]),
        "what looks like another response": ResponseVector(reply() + reply(EMPTY), [
            {"status": 200}, ("body", reply(EMPTY)), ("close", "body")]),
    },
    "body over 4 GiB": {
        "by its length": ResponseVector(reply(b"Content-Length: 999999999999999999", body=b"Hello"), [
            {"length": 999999999999999999}, ("body", b"Hello"), ("close", "cut")]),
        "by a chunk": chunk_reply(b"100000005\r\nHello", [{"status": 200}, ("body", b"Hello"), ("close", "cut")]),
    },
    "chunk over 2**59 bytes": {
        "2**59": chunk_reply(b"800000000000000\r\n", [{"status": 200}, ("close", "cut")]),
        "2**59 + 1": chunk_reply(b"800000000000001\r\n", failed("too long")),
        "2**64": chunk_reply(b"10000000000000000\r\n", failed("too long")),
        "2**200": chunk_reply(b"1" + b"0" * 50 + b"\r\n", failed("too long")),
    },
    "chunk size not hexadecimal, none, blanks behind it": {
        "not hexadecimal": chunk_reply(b"g\r\n", failed("malformed")),
        "0x": chunk_reply(b"0x5\r\n", failed("malformed")),
        "none": chunk_reply(b"\r\n", failed("malformed")),
        "a blank behind it": chunk_reply(b"5 \r\n", failed("malformed")),
    },
    "chunk extensions": {
        "skipped": chunk_reply(b'5;a=b;c="d;e"\r\nHello\r\n0;f\r\n\r\n', HELLO),
        "malformed": chunk_reply(b"5;\r\n", failed("malformed")),
        "256 bytes with the size": chunk_reply(b"5;" + b"a" * 254 + b"\r\nHello\r\n0\r\n\r\n", HELLO),
        "257 bytes with the size": chunk_reply(b"5;" + b"a" * 255 + b"\r\n", failed("malformed")),
    },
    "bare LF or CR in chunk framing, data not followed by CRLF": {
        "LF behind the size": chunk_reply(b"5\nHello\r\n", failed("malformed")),
        "CR behind the size": chunk_reply(b"5\rHello\r\n", failed("malformed")),
        "LF behind the data": chunk_reply(b"5\r\nHello\n", failed("malformed", ("body", b"Hello"))),
        "more data": chunk_reply(b"5\r\nHello!\r\n", failed("malformed", ("body", b"Hello"))),
        "LF behind a trailer": chunk_reply(b"0\r\nA: b\n", failed("malformed")),
    },
    "trailers": {
        "skipped": chunk_reply(b"5\r\nHello\r\n0\r\nContent-Length: 9\r\nConnection: close\r\n\r\n", HELLO),
        "malformed": chunk_reply(b"0\r\nA b\r\n", failed("malformed")),
        "folded": chunk_reply(b"0\r\nA: b\r\n c\r\n", failed("malformed")),
        "16384 bytes": chunk_reply(
            b"5\r\nHello\r\n0\r\nA: %s\r\nB: %s\r\n\r\n" % (b"x" * 9000, b"x" * 7374), HELLO),
        "16385 bytes": chunk_reply(b"0\r\nA: %s\r\nB: %s\r\n" % (b"x" * 9000, b"x" * 7375), failed("too long")),
        "one line of 16385": chunk_reply(b"0\r\nA: " + b"x" * 16382, failed("too long")),
    },
    "an end of the connection inside a response": {
        "status line": ResponseVector(b"HTTP/1.1 200 OK", [("close", "cut")]),
        "head": ResponseVector(reply(EMPTY)[:-2], [("close", "cut")]),
        "body": ResponseVector(reply(b"Content-Length: 6", body=b"Hello"), [
            {"status": 200}, ("body", b"Hello"), ("close", "cut")]),
        "chunk": chunk_reply(b"6\r\nHello", [{"status": 200}, ("body", b"Hello"), ("close", "cut")]),
        "last chunk": chunk_reply(b"5\r\nHello\r\n0\r\n", [{"status": 200}, ("body", b"Hello"), ("close", "cut")]),
        "before any": ResponseVector(b"", [("close", "between")]),
        "behind one": ResponseVector(reply(EMPTY) + b"H", [*WHOLE[:-1], ("close", "cut")]),
    },
}

RESPONSES_NORMAL: dict[str, ResponseVector] = {
    "with a body": ResponseVector(reply(b"Content-Length: 5", body=b"Hello"), [{
        "status": 200, "minor": 1, "reason": b"OK", "length": 5, "flags": {"keep-alive"},
        "fields": [(b"Content-Length", b"5")],
    }, *HELLO[1:]]),
    "chunked": chunk_reply(b"5\r\nHello\r\n7\r\n, world\r\n0\r\n\r\n", [
        {"status": 200, "flags": {"keep-alive", "chunked"}}, ("body", b"Hello, world"), *WHOLE[1:]]),
    "that closes": ResponseVector(reply(EMPTY, b"Connection: close"), [{"status": 200, "flags": set()}, *WHOLE[1:]]),
    "HTTP/1.0": ResponseVector(reply(EMPTY, line=b"HTTP/1.0 200 OK"), [
        {"minor": 0, "flags": set()}, *WHOLE[1:]]),
    "HTTP/1.0, keep-alive": ResponseVector(reply(EMPTY, b"Connection: Keep-Alive", line=b"HTTP/1.0 200 OK"), [
        {"minor": 0, "flags": {"keep-alive"}}, *WHOLE[1:]]),
    "reason in UTF-8 with a tab": ResponseVector(reply(EMPTY, line=b"HTTP/1.1 200 gut\t\xc3\xb6"), [
        {"reason": b"gut\t\xc3\xb6"}, *WHOLE[1:]]),
    "three in a row": ResponseVector(
        reply(b"Content-Length: 5", body=b"Hello") + reply(CHUNKS, body=b"5\r\nHello\r\n0\r\n\r\n") + reply(EMPTY),
        [*HELLO[:-1], *HELLO[:-1], *WHOLE]),
}


def sent(opcode: int, *parts: bytes) -> bytes:
    return b"".join(message(opcode, parts))


def begun(payload: bytes = b"", opcode: int = TEXT) -> bytes:
    return frame(opcode, payload, fin=False)


def more(payload: bytes = b"", fin: bool = True) -> bytes:
    return frame(CONTINUATION, payload, fin=fin)


def squeezed(payload: bytes, fin: bool = True) -> bytes:
    """A text message, or its first part, that says it is compressed (RFC 7692 section 6)."""
    return frame(TEXT, payload, fin=fin, rsv=4)


def text(payload: str) -> tuple:
    return ("message", TEXT, payload.encode())


def binary(payload: bytes) -> tuple:
    return ("message", BINARY, payload)


def bad_text(*parts: bytes) -> Vector:
    return Vector(sent(TEXT, *parts), 1007)


HELLO, HELLO_EVENT = frame(TEXT, b"Hello"), text("Hello")
ASK, ASK_EVENT = frame(PING, b"?"), ("control", PING, b"?")
FAULT = ("fail", 1002)
HUGE = (1 << 31) - 1                 # the highest limit there is
CODES_BAD = (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
CODES_GOOD = (1000, 1001, 1002, 1003, 1007, 1009, 1011, 1014, 3000, 3999, 4000, 4999)
EDGES = "\x7f\u0080\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff"

WS: dict[str, dict[str, Vector]] = {
    "RSV1-3 set": {
        "RSV1": Vector(frame(TEXT, b"a", rsv=4), 1002),
        "RSV2": Vector(frame(BINARY, b"a", rsv=2), 1002),
        "RSV3": Vector(frame(TEXT, b"a", rsv=1), 1002),
        "in a control frame": Vector(frame(PING, rsv=4), 1002),
        "in a continuation": Vector(begun(b"a") + frame(CONTINUATION, rsv=4), 1002),
        "after a message": Vector(HELLO + frame(TEXT, rsv=7) + HELLO, [HELLO_EVENT, FAULT]),
        "RSV1, deflate": Vector(squeezed(b"\xff") + HELLO, [("message", TEXT, b"\xff"), HELLO_EVENT], deflate=True),
        "RSV1, deflate, to a client": Vector(
            frame(BINARY, b"a", rsv=4, mask=None), [binary(b"a")], client=True, deflate=True),
        "RSV1, deflate, in parts": Vector(
            squeezed(b"\xff", fin=False) + ASK + more(b"\xfe"),
            [ASK_EVENT, ("message", TEXT, b"\xff\xfe")], deflate=True),
        "RSV1, deflate, then not": Vector(
            squeezed(b"\xff") + frame(TEXT, b"\xff"), [("message", TEXT, b"\xff"), ("fail", 1007)], deflate=True),
        "RSV1, deflate, in a control frame": Vector(frame(PING, rsv=4), 1002, deflate=True),
        "RSV1, deflate, in a close frame": Vector(frame(CLOSE, rsv=4), 1002, deflate=True),
        "RSV1, deflate, in a continuation": Vector(
            squeezed(b"a", fin=False) + frame(CONTINUATION, rsv=4), 1002, deflate=True),
        "RSV1, deflate, with a reserved opcode": Vector(frame(3, rsv=4), 1002, deflate=True),
        "RSV2, deflate": Vector(frame(TEXT, b"a", rsv=2), 1002, deflate=True),
        "RSV3, deflate": Vector(frame(TEXT, b"a", rsv=1), 1002, deflate=True),
        "RSV1 and RSV2, deflate": Vector(frame(TEXT, b"a", rsv=6), 1002, deflate=True),
    },
    "opcode 3-7, B-F": {f"{n:X}": Vector(frame(n, b"a"), 1002) for n in [*range(3, 8), *range(11, 16)]},
    "client frame not masked": {
        "text": Vector(frame(TEXT, b"a", mask=None), 1002),
        "empty": Vector(frame(BINARY, mask=None), 1002),
        "ping": Vector(frame(PING, mask=None), 1002),
        "masked with zeros is masked": Vector(frame(TEXT, b"a", mask=bytes(4)), [text("a")]),
    },
    "server frame masked": {
        "text": Vector(frame(TEXT, b"a"), 1002, client=True),
        "ping": Vector(frame(PING), 1002, client=True),
        "not masked": Vector(frame(TEXT, b"a", mask=None), [text("a")], client=True),
        "ping not masked": Vector(frame(PING, b"?", mask=None), [ASK_EVENT], client=True),
        "126 bytes not masked": Vector(frame(TEXT, b"a" * 126, mask=None), [text("a" * 126)], client=True),
    },
    "control frame over 125 bytes": {
        "ping of 126": Vector(frame(PING, b"a" * 126), 1002),
        "pong of 65536": Vector(frame(PONG, length=65536), 1002),
        "close of 126": Vector(close(1000, b"a" * 124), 1002),
        "ping of 125": Vector(frame(PING, b"a" * 125), [("control", PING, b"a" * 125)]),
        "close of 125": Vector(close(1000, b"a" * 123), [("close", 1000, b"a" * 123)]),
        "ping of 5 in the long form": Vector(frame(PING, b"Hello", form=2), 1002),
    },
    "control frame without FIN": {
        "ping": Vector(frame(PING, fin=False), 1002),
        "pong": Vector(frame(PONG, fin=False), 1002),
        "close": Vector(frame(CLOSE, fin=False), 1002),
    },
    "control frame amid a message": {
        "ping": Vector(begun(b"Hel") + ASK + more(b"lo"), [ASK_EVENT, HELLO_EVENT]),
        "ping inside a character": Vector(begun(b"\xc3") + ASK + more(b"\xa9"), [ASK_EVENT, text("é")]),
        "ping of what is not UTF-8": Vector(
            begun(b"a") + frame(PING, b"\xff") + more(b"b"), [("control", PING, b"\xff"), text("ab")]),
        "close": Vector(begun(b"a") + close(1001), [("close", 1001, b""), ("partial", TEXT, b"a")]),
        "three": Vector(
            begun(b"a", BINARY) + frame(PONG) + more(fin=False) + ASK + ASK + more(b"b"),
            [("control", PONG, b""), ASK_EVENT, ASK_EVENT, binary(b"ab")]),
    },
    "continuation with nothing to continue": {
        "at once": Vector(more(b"a"), 1002),
        "without FIN": Vector(more(b"a", fin=False), 1002),
        "after a message": Vector(HELLO + more(b"a"), [HELLO_EVENT, FAULT]),
        "after a message in parts": Vector(sent(TEXT, b"a", b"b") + more(), [text("ab"), FAULT]),
        "after a ping": Vector(ASK + more(), [ASK_EVENT, FAULT]),
    },
    "new message inside a message": {
        "text in text": Vector(begun(b"a") + frame(TEXT, b"b"), 1002),
        "binary in text": Vector(begun(b"a") + frame(BINARY, b"b"), 1002),
        "after an empty part": Vector(begun(b"", BINARY) + frame(TEXT), 1002),
    },
    "length longer than it need be": {
        "0 in 16 bits": Vector(frame(TEXT, form=2), 1002),
        "125 in 16 bits": Vector(frame(BINARY, b"a" * 125, form=2), 1002),
        "126 in 16 bits": Vector(frame(BINARY, b"a" * 126, form=2), [binary(b"a" * 126)]),
        "65535 in 16 bits": Vector(frame(BINARY, b"a" * 65535, form=2), [binary(b"a" * 65535)]),
        "0 in 64 bits": Vector(frame(TEXT, form=8), 1002),
        "126 in 64 bits": Vector(frame(TEXT, b"a" * 126, form=8), 1002),
        "65535 in 64 bits": Vector(frame(BINARY, form=8, length=65535), 1002),
        "65536 in 64 bits": Vector(frame(BINARY, b"a" * 65536, form=8), [binary(b"a" * 65536)]),
    },
    "length with its top bit set": {
        "2**63": Vector(frame(BINARY, length=1 << 63), 1002),
        "2**64 - 1": Vector(frame(TEXT, length=(1 << 64) - 1), 1002),
    },
    "message over the limit": {
        "exactly": Vector(frame(BINARY, b"a" * 10), [binary(b"a" * 10)], limit=10),
        "one more": Vector(frame(BINARY, b"a" * 11)[:2], 1009, limit=10),
        "exactly, in parts": Vector(sent(TEXT, b"abcd", b"", b"efghij", b""), [text("abcdefghij")], limit=10),
        "one more, in parts": Vector(sent(TEXT, b"abcd", b"efghijk"), 1009, limit=10),
        "each message anew": Vector(HELLO * 3, [HELLO_EVENT] * 3, limit=5),
        "each message in parts anew": Vector(sent(TEXT, b"Hel", b"lo") * 2, [HELLO_EVENT] * 2, limit=5),
        "control frames are not counted": Vector(
            begun(b"Hel") + ASK + more(b"lo"), [ASK_EVENT, HELLO_EVENT], limit=5),
        "a ping longer than the limit": Vector(ASK, [ASK_EVENT], limit=0),
        "none but empty ones": Vector(frame(TEXT) + frame(TEXT, b"a"), [text(""), ("fail", 1009)], limit=0),
        "compressed, exactly": Vector(
            squeezed(b"a" * 2114), [("message", TEXT, b"a" * 2114)], limit=2048, deflate=True),
        "compressed, one more": Vector(squeezed(b"a" * 2115)[:4], 1009, limit=2048, deflate=True),
        "compressed, exactly, in parts": Vector(
            squeezed(b"a", fin=False) + more(b"a" * 64), [("message", TEXT, b"a" * 65)], limit=1, deflate=True),
        "compressed, one more, in parts": Vector(
            squeezed(b"a", fin=False) + more(b"a" * 65), 1009, limit=1, deflate=True),
        "not compressed, deflate, one more": Vector(frame(TEXT, b"ab"), 1009, limit=1, deflate=True),
        "2**32": Vector(frame(BINARY, length=1 << 32)[:10], 1009, limit=HUGE),
        "2**32 in parts": Vector(begun(b"abcd") + frame(CONTINUATION, length=1 << 32), 1009, limit=HUGE),
        "2**63 - 1": Vector(frame(BINARY, length=(1 << 63) - 1)[:10], 1009, limit=HUGE),
    },
    "text that is not UTF-8": {
        "continuation byte": bad_text(b"a\x80"),
        "lead byte twice": bad_text(b"\xc3\xc3\xa9"),
        "overlong NUL": bad_text(b"\xc0\x80"),
        "overlong slash": bad_text(b"a\xc1\xaf"),
        "overlong in three": bad_text(b"\xe0\x9f\xbf"),
        "overlong in four": bad_text(b"\xf0\x8f\xbf\xbf"),
        "surrogate": bad_text(b"a\xe2\x82\xac\xed\xa0\x80"),
        "past U+10FFFF": bad_text(b"\xf4\x90\x80\x80"),
        "F5": bad_text(b"\xf5\x80\x80\x80"),
        "FE and FF": bad_text(b"\xfe\xff"),
        "Latin-1": bad_text(b"caf\xe9 au lait"),
        "after eight good ones": bad_text(b"12345678\xff"),
        "in the second part": bad_text(b"12345678", b"9\xff"),
        "character broken across parts": bad_text(b"\xe2\x82", b"", b"a"),
        "surrogate broken across parts": bad_text(b"\xed", b"\xa0"),
        "before the frame is whole": Vector(frame(TEXT, b"abc\xff", length=100), 1007),
        "each form's first and last characters": Vector(sent(TEXT, EDGES.encode()), [text(EDGES)]),
        "characters broken across parts": Vector(
            sent(TEXT, *(bytes([c]) for c in EDGES.encode())), [text(EDGES)]),
        "binary may be anything": Vector(frame(BINARY, bytes(range(256))), [binary(bytes(range(256)))]),
    },
    "text that ends inside a character": {
        "of two": bad_text(b"a\xc3"),
        "of three": bad_text(b"\xe2\x82"),
        "of four": bad_text(b"\xf0\x9f\x98"),
        "in an empty last part": bad_text(b"\xe2\x82", b""),
        "the next message does not end it": Vector(frame(TEXT, b"\xc3") + frame(TEXT, b"\xa9"), 1007),
    },
    "close payload of one byte": {
        "0": Vector(frame(CLOSE, b"\0"), 1002),
        "3": Vector(frame(CLOSE, b"\x03"), 1002),
        "none": Vector(frame(CLOSE), [("close", 1005, b"")]),
        "two": Vector(close(1000), [("close", 1000, b"")]),
    },
    "close code 1004-1006, 1015, 0-999, 1016-2999, 5000 and up": {
        **{str(code): Vector(close(code), 1002) for code in CODES_BAD},
        **{f"{code} is none of them": Vector(close(code), [("close", code, b"")]) for code in CODES_GOOD},
        "with a reason": Vector(close(1005, b"reason"), 1002),
    },
    "close reason that is not UTF-8": {
        "bad byte": Vector(close(1000, b"\xff"), 1007),
        "cut short": Vector(close(1000, b"caf\xc3"), 1007),
        "after eight good ones": Vector(close(4000, b"12345678\xed\xa0\x80"), 1007),
        "code and reason both bad": Vector(close(1006, b"\xff"), 1002),
        "good": Vector(close(1000, "café".encode()), [("close", 1000, "café".encode())]),
    },
}


def other_role(case: Vector) -> Vector:
    """The same conversation with the other side: unmasked where it is masked, and masked where it is not."""
    data, out, at = case.data, b"", 0
    while at < len(data):
        first, *second = data[at:at + 2]
        if not second:
            out += data[at:]
            break
        n = second[0] & 127
        extended = {126: 2, 127: 8}.get(n, 0)
        length = int.from_bytes(data[at + 2:at + 2 + extended], "big") if extended else n
        header = bytes([first, second[0] ^ 128]) + data[at + 2:at + 2 + extended]
        at += 2 + extended
        if second[0] & 128:
            mask = data[at:at + 4]
            at += 4
            # A header that ends inside its mask must not become a whole one.
            out += header if len(mask) in (0, 4) else header[:-1]
            out += masked(data[at:at + length], mask) if len(mask) == 4 else b""
        else:
            out += header + (MASK + masked(data[at:at + length], MASK) if at <= len(data) else b"")
        at += length
    return case._replace(data=out, client=not case.client)


WS_NORMAL: dict[str, Vector] = {
    "nothing": Vector(b"", []),
    # The examples of RFC 6455 section 5.7, byte for byte.
    "5.7 masked text": Vector(bytes.fromhex("818537fa213d7f9f4d5158"), [HELLO_EVENT]),
    "5.7 unmasked text": Vector(bytes.fromhex("810548656c6c6f"), [HELLO_EVENT], client=True),
    "5.7 unmasked text in parts": Vector(bytes.fromhex("010348656c80026c6f"), [HELLO_EVENT], client=True),
    "5.7 unmasked ping": Vector(bytes.fromhex("890548656c6c6f"), [("control", PING, b"Hello")], client=True),
    "5.7 masked pong": Vector(bytes.fromhex("8a8537fa213d7f9f4d5158"), [("control", PONG, b"Hello")]),
    "5.7 256 bytes": Vector(bytes.fromhex("827e0100") + b"a" * 256, [binary(b"a" * 256)], client=True),
    "5.7 64 KiB": Vector(
        bytes.fromhex("827f0000000000010000") + b"a" * 65536, [binary(b"a" * 65536)], client=True),
    "empty messages": Vector(frame(TEXT) + frame(BINARY), [text(""), binary(b"")]),
    "empty parts": Vector(sent(TEXT, b"", b"", b"a", b""), [text("a")]),
    "every length up to 40": Vector(
        b"".join(frame(BINARY, bytes(range(n))) for n in range(41)),
        [binary(bytes(range(n))) for n in range(41)]),
    "every frame with a mask of its own": Vector(
        b"".join(frame(TEXT, b"Hello", mask=mask) for mask in (MASK, bytes(4), b"\xff" * 4, b"\0\0\0\1")),
        [HELLO_EVENT] * 4),
    "a message in parts, then another": Vector(sent(TEXT, b"Hel", b"lo") + HELLO, [HELLO_EVENT] * 2),
    "a header that is not whole": Vector(frame(TEXT, b"a" * 200)[:7], []),
    "a message that is not whole": Vector(HELLO[:9], [("partial", TEXT, b"Hel")]),
    "a ping that is not whole": Vector(frame(PING, b"Hello")[:9], []),
    "ping, close": Vector(ASK + close(1000, b"bye"), [ASK_EVENT, ("close", 1000, b"bye")]),
}
