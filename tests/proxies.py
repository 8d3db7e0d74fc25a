"""What proxies say of a client: PROXY headers and forwarded addresses, well-formed or not, and slow models of what they
mean.

Written from proxy-protocol.txt and RFC 7239. The vectors are keyed by the lines of the engines' Strictness tables, word
for word.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Event = tuple

# ---- PROXY headers ----

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
LOCAL, PROXY = 0x20, 0x21
UNSPEC, TCP4, UDP4, TCP6, UDP6, STREAM, DATAGRAM = 0x00, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32
CRC32C, NOOP = 3, 4


def line(protocol: str = "TCP4", source: str = "192.0.2.1", to: str = "192.0.2.2", ports: str = "56324 443") -> bytes:
    """A header of version 1."""
    return f"PROXY {protocol} {source} {to} {ports}\r\n".encode()


def binary(
    family: int = TCP4, addresses: bytes | None = None, tlvs: bytes = b"", *, command: int = PROXY,
    length: int | None = None,
) -> bytes:
    """A header of version 2; length: what to announce, if not the truth."""
    if addresses is None:
        addresses = {
            TCP4: inet("192.0.2.1", "192.0.2.2"), TCP6: inet("2001:db8::1", "2001:db8::2"), STREAM: bytes(216),
        }.get(family, b"")
    block = addresses + tlvs
    return SIGNATURE + struct.pack("!BBH", command, family, len(block) if length is None else length) + block


def inet(source: str, to: str) -> bytes:
    return ip_address(source).packed + ip_address(to).packed + struct.pack("!HH", 56324, 443)


def tlv(kind: int, value: bytes, length: int | None = None) -> bytes:
    return struct.pack("!BH", kind, len(value) if length is None else length) + value


def crc32c(data: bytes) -> int:
    """RFC 3720 appendix B.4, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def summed(header: bytes) -> bytes:
    """A header with the right checksum in its TLV of zeroes."""
    place = header.index(tlv(CRC32C, bytes(4))) + 3
    return header[:place] + struct.pack("!I", crc32c(header)) + header[place + 4:]


FROM, FROM6, OWN, NOWHERE, FAIL = ("from", "192.0.2.1"), ("from", "2001:db8::1"), ("own",), ("nowhere",), ("fail",)
LONGEST4 = line("TCP4", "255.255.255.255", "255.255.255.255", "65535 65535")
GROUPS = ":".join(["ffff"] * 8)
LONGEST = line("UNKNOWN", GROUPS, GROUPS, "65535 65535")         # 107 bytes
MUST_SUM = tlv(CRC32C, bytes(4))
SOME = tlv(1, b"h2") + tlv(2, b"example.org") + tlv(0x20, b"\1\0\0\0\0" + tlv(0x21, b"TLSv1.3")) + tlv(0xE0, b"")

HEADERS: dict[str, dict[str, tuple[bytes, Event]]] = {
    'neither "PROXY " nor the 12 bytes of version 2': {
        "a request": (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", FAIL),
        "a method that begins alike": (b"PROPFIND / HTTP/1.1\r\n", FAIL),
        "small letters": (line().replace(b"PROXY", b"proxy"), FAIL),
        "a tab": (line().replace(b" ", b"\t", 1), FAIL),
        "TLS": (b"\x16\x03\x01\0\0", FAIL),
        "the wrong last byte of the signature": (SIGNATURE[:-1] + b"\r" + binary()[12:], FAIL),
        "empty lines": (b"\r\n\r\n\r\n\r\n", FAIL),
        "zeroes": (bytes(20), FAIL),
    },
    "version 1: no line end within 107 bytes": {
        "at the limit": (LONGEST, OWN),
        "a byte more": (LONGEST.replace(b"65535 ", b"165535 "), FAIL),
        "without an end": (b"PROXY UNKNOWN " + b"a" * 93, FAIL),
        "CR is the last of them": (b"PROXY UNKNOWN " + b"a" * 92 + b"\r\n", FAIL),
    },
    "version 1: a lone CR or LF": {
        "LF alone": (line().replace(b"\r", b""), FAIL),
        "CR alone": (line().replace(b"\n", b" "), FAIL),
        "CR CR LF": (line().replace(b"\r", b"\r\r"), FAIL),
        "LF behind UNKNOWN": (b"PROXY UNKNOWN a\nb\r\n", FAIL),
    },
    "version 1: other than one space between fields, more or fewer fields": {
        "two spaces": (line(source=" 192.0.2.1"), FAIL),
        "a space at the end": (line(ports="1 2 "), FAIL),
        "one behind the first word": (line(" TCP4"), FAIL),
        "a field too few": (line(ports="1"), FAIL),
        "a field too many": (line(ports="1 2 3"), FAIL),
        "nothing but the word": (b"PROXY TCP4\r\n", FAIL),
        "nothing at all": (b"PROXY \r\n", FAIL),
    },
    "version 1: UNKNOWN, whatever follows it": {
        "short": (b"PROXY UNKNOWN\r\n", OWN),
        "with addresses": (line("UNKNOWN"), OWN),
        "with something else": (b"PROXY UNKNOWN \xff \t  x\r\n", OWN),
        "a longer word": (b"PROXY UNKNOWNS\r\n", FAIL),
    },
    "version 1: another word than TCP4, TCP6 or UNKNOWN": {
        "UDP4": (line("UDP4"), FAIL),
        "TCP5": (line("TCP5"), FAIL),
        "TCP": (line("TCP"), FAIL),
        "TCP44": (line("TCP44"), FAIL),
        "tcp4": (line("tcp4"), FAIL),
    },
    "version 1: an address that is not of its family, or with leading zeroes": {
        "IPv6 with TCP4": (line("TCP4", "::1"), FAIL),
        "IPv4 with TCP6": (line("TCP6", "1.2.3.4", "::1"), FAIL),
        "IPv4 to, with TCP6": (line("TCP6", "::1", "1.2.3.4"), FAIL),
        "leading zeroes": (line(source="192.0.02.1"), FAIL),
        "leading zeroes of the destination": (line(to="192.0.02.1"), FAIL),
        "three numbers": (line(source="192.0.2"), FAIL),
        "256": (line(source="192.0.2.256"), FAIL),
        "a name": (line(source="localhost"), FAIL),
        "a zone": (line("TCP6", "fe80::1%lo", "::1"), FAIL),
        "brackets": (line("TCP6", "[::1]", "::1"), FAIL),
        "a NUL behind it": (line(source="192.0.2.1\0"), FAIL),
    },
    "version 1: a port over 65535, with leading zeroes": {
        "0": (line(ports="0 0"), FROM),
        "65535": (line(ports="65535 65535"), FROM),
        "65536": (line(ports="65536 1"), FAIL),
        "65536 of the destination": (line(ports="1 65536"), FAIL),
        "six digits": (line(ports="100000 1"), FAIL),
        "leading zero": (line(ports="080 1"), FAIL),
        "two zeroes": (line(ports="00 1"), FAIL),
        "a sign": (line(ports="+1 1"), FAIL),
        "hexadecimal": (line(ports="1f 1"), FAIL),
    },
    "version 2: another version, or command": {
        "version 1": (binary(command=0x11), FAIL),
        "version 3": (binary(command=0x31), FAIL),
        "command 2": (binary(command=0x22), FAIL),
        "command 15": (binary(command=0x2F), FAIL),
    },
    "version 2: LOCAL": {
        "without anything": (binary(UNSPEC, command=LOCAL), OWN),
        "with addresses": (binary(command=LOCAL), OWN),
        "of no family": (binary(0xFF, b"", command=LOCAL), OWN),
        "with what is no TLV": (binary(UNSPEC, b"\x03\x00", command=LOCAL), OWN),
        "with less than its family's addresses": (binary(TCP6, bytes(3), command=LOCAL), OWN),
    },
    "version 2: family or protocol unspecified": {
        "both": (binary(UNSPEC), OWN),
        "both, with something": (binary(UNSPEC, bytes(36)), OWN),
        "the family": (binary(0x01, bytes(12)), OWN),
        "the protocol": (binary(0x10, bytes(12)), OWN),
    },
    "version 2: another family or protocol": {
        "family 4": (binary(0x41, bytes(12)), FAIL),
        "family 15": (binary(0xF0, b""), FAIL),
        "protocol 3": (binary(0x13, bytes(12)), FAIL),
        "protocol 15": (binary(0x0F, b""), FAIL),
    },
    "version 2: UNIX, stream or datagram": {
        "stream": (binary(STREAM), NOWHERE),
        "datagram": (binary(DATAGRAM, b"/run/x.sock".ljust(108, b"\0") * 2), NOWHERE),
        "with TLVs": (binary(STREAM, tlvs=SOME), NOWHERE),
    },
    "version 2: datagram over INET and INET6": {
        "INET": (binary(UDP4, inet("192.0.2.1", "192.0.2.2")), FROM),
        "INET6": (binary(UDP6, inet("2001:db8::1", "2001:db8::2")), FROM6),
    },
    "version 2: less than the family's addresses": {
        "INET": (binary(TCP4, bytes(11)), FAIL),
        "INET6": (binary(TCP6, bytes(35)), FAIL),
        "UNIX": (binary(STREAM, bytes(215)), FAIL),
        "none": (binary(TCP4, b""), FAIL),
    },
    "version 2: TLVs": {
        "some": (binary(tlvs=SOME), FROM),
        "of INET6": (binary(TCP6, tlvs=SOME), FROM6),
        "an empty one": (binary(tlvs=tlv(NOOP, b"")), FROM),
        "a byte": (binary(tlvs=b"\4"), FAIL),
        "two bytes": (binary(tlvs=b"\4\0"), FAIL),
        "cut off": (binary(tlvs=tlv(NOOP, b"abc", 4)), FAIL),
        "as long as can be": (binary(tlvs=tlv(NOOP, bytes(65535 - 12 - 3))), FROM),
    },
    "version 2: a CRC32C": {
        "right": (summed(binary(tlvs=MUST_SUM)), FROM),
        "right, among others": (summed(binary(TCP6, tlvs=tlv(NOOP, b"x") + MUST_SUM + SOME)), FROM6),
        "right, of UNIX": (summed(binary(STREAM, tlvs=MUST_SUM)), NOWHERE),
        "wrong": (binary(tlvs=MUST_SUM), FAIL),
        "of another header": (summed(binary(tlvs=MUST_SUM)).replace(b"\xc0\0\2\1", b"\xc0\0\2\3"), FAIL),
        "3 bytes": (binary(tlvs=tlv(CRC32C, bytes(3))), FAIL),
        "5 bytes": (binary(tlvs=tlv(CRC32C, bytes(5))), FAIL),
        "twice": (summed(binary(tlvs=MUST_SUM * 2)), FAIL),
    },
    "an IPv4 address mapped into IPv6": {
        "version 1": (line("TCP6", "::ffff:192.0.2.1", "::ffff:192.0.2.2"), FROM),
        "version 1, in hexadecimal": (line("TCP6", "::FFFF:C000:201", "::1"), FROM),
        "version 2": (binary(TCP6, inet("::ffff:192.0.2.1", "::1")), FROM),
    },
}
HEADERS_NORMAL: dict[str, tuple[bytes, Event]] = {
    "TCP4": (line(), FROM),
    "TCP4, the longest": (LONGEST4, ("from", "255.255.255.255")),
    "TCP6": (line("TCP6", "2001:DB8:0::1", "::"), FROM6),
    "TCP6, the longest": (line("TCP6", GROUPS, GROUPS, "65535 65535"), ("from", GROUPS)),
    "version 2, INET": (binary(), FROM),
    "version 2, INET6": (binary(TCP6), FROM6),
}
LINE = re.compile(rb"PROXY (?:(UNKNOWN)(?: [^\r\n]*)?|(TCP[46]) (\S+) (\S+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4}))\r\n")


def header_event(data: bytes) -> Event:
    """What proxy_next ought to say of data, but for why it fails."""
    if data[:1] == b"P":
        return line_event(data)
    if data[:12] != SIGNATURE[:len(data)]:
        return FAIL
    if len(data) < 16:
        return ("more",)
    command, family, length = struct.unpack("!BBH", data[12:16])
    if command not in (LOCAL, PROXY):
        return FAIL
    if command == PROXY and (family >> 4 > 3 or family & 15 > 2):
        return FAIL
    header, block = data[:16 + length], data[16:16 + length]
    if len(block) < length:
        return ("more",)
    if command == LOCAL or family & 15 == 0 or family >> 4 == 0:
        return "own", len(header)
    size = {1: 12, 2: 36, 3: 216}[family >> 4]
    if length < size or not tlvs_right(header, 16 + size):
        return FAIL
    return ("nowhere", len(header)) if size == 216 else ("from", shown(block[:{12: 4, 36: 16}[size]]), len(header))


def line_event(data: bytes) -> Event:
    if data[:6] != b"PROXY "[:len(data)]:
        return FAIL
    end = re.search(rb"[\r\n]", data[:107])
    if not end:
        return FAIL if len(data) >= 107 else ("more",)
    if end.start() == 106 or end[0] == b"\n":
        return FAIL
    whole = data[:end.start() + 2]
    if len(whole) == end.start() + 1:
        return ("more",)
    found = LINE.fullmatch(whole)
    if not found:
        return FAIL
    if found[1]:
        return "own", len(whole)
    family = IPv4Address if found[2] == b"TCP4" else IPv6Address
    try:
        source, _ = (family(found[i].decode("ascii")) for i in (3, 4))
    except ValueError:
        return FAIL
    if b"%" in found[3] + found[4] or int(found[5]) > 65535 or int(found[6]) > 65535:
        return FAIL
    return "from", shown(source.packed), len(whole)


def shown(packed: bytes) -> str:
    address = ip_address(packed)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return text_of(mapped or address)


def text_of(address: IPv4Address | IPv6Address) -> str:
    """As inet_ntop(3) writes it: IPv4-compatible addresses with dots (RFC 4291 section 2.5.5.1)."""
    if address.version == 6 and 0xFFFF < int(address) < 1 << 32:
        return f"::{IPv4Address(int(address))}"
    return str(address)


def tlvs_right(header: bytes, at: int) -> bool:
    sums = []
    while at < len(header):
        if len(header) - at < 3:
            return False
        kind, length = struct.unpack("!BH", header[at:at + 3])
        at += 3 + length
        if at > len(header):
            return False
        if kind == CRC32C:
            if length != 4:
                return False
            sums.append(at - 4)
    if len(sums) != 1:
        return not sums
    zeroed = header[:sums[0]] + bytes(4) + header[sums[0] + 4:]
    return crc32c(zeroed) == int.from_bytes(header[sums[0]:sums[0] + 4], "big")


# ---- forwarded addresses ----

NETWORKS = ["10.0.0.0/8", "192.168.1.16/28", "2001:db8:1::/48", "fd00::1"]
PEER = "10.0.0.1"
EXPORTED = [(ip_network(each).network_address.packed, ip_network(each).prefixlen) for each in NETWORKS]

# What is in the field, in each line, and the client that it names.
FORWARDED: dict[str, dict[str, tuple[str, Sequence[str], str]]] = {
    "several field lines of that name": {
        "the last first": ("x-forwarded-for", ["203.0.113.1", "203.0.113.2, 10.1.1.1"], "203.0.113.2"),
        "on to an earlier one": ("x-forwarded-for", ["203.0.113.1", "10.1.1.1", "10.1.1.2"], "203.0.113.1"),
        "Forwarded": ("forwarded", ["for=203.0.113.1", "for=10.1.1.1"], "203.0.113.1"),
    },
    "empty elements": {
        "between": ("x-forwarded-for", ["203.0.113.1,, ,10.1.1.1,"], "203.0.113.1"),
        "nothing else": ("x-forwarded-for", [",", ""], PEER),
        "Forwarded": ("forwarded", [", for=203.0.113.1 ,,"], "203.0.113.1"),
    },
    "an address with a port": {
        "IPv4": ("x-forwarded-for", ["203.0.113.1:4711"], "203.0.113.1"),
        "IPv6": ("x-forwarded-for", ["[2001:db8::1]:4711"], "2001:db8::1"),
        "Forwarded": ("forwarded", ['for="203.0.113.1:4711"'], "203.0.113.1"),
        "Forwarded, IPv6": ("forwarded", ['for="[2001:db8::1]:4711"'], "2001:db8::1"),
        "an obfuscated one": ("forwarded", ['for="203.0.113.1:_a.-1"'], "203.0.113.1"),
        "none behind the colon": ("x-forwarded-for", ["203.0.113.1:"], PEER),
        "six digits": ("x-forwarded-for", ["203.0.113.1:123456"], PEER),
        "no digits": ("x-forwarded-for", ["203.0.113.1:http"], PEER),
        "behind no brackets": ("x-forwarded-for", ["2001:db8::1:4711"], "2001:db8::1:4711"),
    },
    "IPv6 in brackets, or in X-Forwarded-For without them": {
        "in brackets": ("x-forwarded-for", ["[2001:db8::1]"], "2001:db8::1"),
        "without": ("x-forwarded-for", ["2001:DB8:0:0::1"], "2001:db8::1"),
        "Forwarded": ("forwarded", ['for="[2001:db8::1]"'], "2001:db8::1"),
        "a bracket alone": ("x-forwarded-for", ["[2001:db8::1"], PEER),
        "an IPv4 address mapped into it": ("x-forwarded-for", ["::ffff:203.0.113.1"], "203.0.113.1"),
        "a trusted one mapped into it": ("x-forwarded-for", ["203.0.113.1, ::ffff:10.0.0.2"], "203.0.113.1"),
    },
    "Forwarded: other parameters": {
        "before and behind": ("forwarded", ["by=203.0.113.43;For=192.0.2.60;proto=https"], "192.0.2.60"),
        "in quotes": ("forwarded", ['for=192.0.2.60;host="a,b;for=1.1.1.1"'], "192.0.2.60"),
        "with blanks": ("forwarded", ["proto=https ; for=192.0.2.60 , for=10.1.1.1"], "192.0.2.60"),
    },
    'Forwarded: no "for", or twice': {
        "none": ("forwarded", ["for=203.0.113.1, by=192.0.2.60"], PEER),
        "twice": ("forwarded", ["for=203.0.113.1;for=203.0.113.2"], PEER),
        "not alone": ("forwarded", ["for"], PEER),
        "empty": ("forwarded", ["for="], PEER),
        "X-Forwarded-For's form": ("forwarded", ["203.0.113.1"], PEER),
    },
    '"unknown", an obfuscated identifier (_x)': {
        "unknown": ("forwarded", ["for=203.0.113.1, for=unknown, for=10.1.1.1"], "10.1.1.1"),
        "obfuscated": ("forwarded", ["for=203.0.113.1, for=_SEVKISEK"], PEER),
        "in X-Forwarded-For": ("x-forwarded-for", ["203.0.113.1, unknown"], PEER),
    },
    "anything else, a zone (%eth0), a backslash": {
        "a name": ("x-forwarded-for", ["203.0.113.1, localhost"], PEER),
        "a zone": ("x-forwarded-for", ["fe80::1%eth0"], PEER),
        "a backslash": ("forwarded", ['for="203\\.0.113.1"'], PEER),
        "leading zeroes": ("x-forwarded-for", ["203.0.0113.1"], PEER),
        "a very long one": ("x-forwarded-for", ["1" * 5000], PEER),
        "trusted before it": ("x-forwarded-for", ["203.0.113.1, x, 10.1.1.1, 10.1.1.2"], "10.1.1.1"),
        "a quote that the client left open": ("forwarded", ['for="x, for=203.0.113.1'], "203.0.113.1"),
        "the same before one in quotes": ("forwarded", ['for="x, for="[2001:db8::1]"'], "2001:db8::1"),
        "a quote that a proxy left open": ("forwarded", ['for=203.0.113.1, for="10.1.1.1'], PEER),
    },
}
FORWARDED_NORMAL: dict[str, tuple[str, Sequence[str], str]] = {
    "none": ("x-forwarded-for", [], PEER),
    "one": ("x-forwarded-for", ["203.0.113.1"], "203.0.113.1"),
    "several proxies": ("x-forwarded-for", ["203.0.113.1, 2001:db8:1::7, 192.168.1.31"], "203.0.113.1"),
    "just outside a network": ("x-forwarded-for", ["203.0.113.1, 192.168.1.32"], "192.168.1.32"),
    "what the client has made up": ("x-forwarded-for", ["10.0.0.7, 1.2.3.4, 203.0.113.1"], "203.0.113.1"),
    "all trusted": ("x-forwarded-for", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
    "the other field": ("forwarded", [], PEER),
}


def client_of(field: str, values: Iterable[str]) -> str:
    """The client that these lines name to a server that trusts NETWORKS."""
    client = PEER
    trusted = [ip_network(each) for each in NETWORKS]
    for value in reversed(list(values)):
        for element in reversed(split(value, ",", field == "forwarded")):
            if not element:
                continue
            node = element if field == "x-forwarded-for" else for_of(element)
            address = None if node is None else address_of(node)
            if address is None:
                return client
            client = text_of(address)
            if not any(address in network for network in trusted if network.version == address.version):
                return client
    return client


def split(text: str, separator: str, quoted: bool) -> list[str]:
    """At what has an even number of quotes behind it."""
    places = [
        i for i, each in enumerate(text) if each == separator and not (quoted and text[i:].count('"') % 2)
    ]
    return [text[a + 1:b].strip(" \t") for a, b in zip([-1, *places], [*places, len(text)], strict=True)]


def for_of(element: str) -> str | None:
    pairs = [re.fullmatch(r'(?i:for)=(?:"(.*)"|(.*))', pair, re.DOTALL) for pair in split(element, ";", True)]
    found = [pair for pair in pairs if pair]
    return (found[0][1] if found[0][1] is not None else found[0][2]) if len(found) == 1 else None


def address_of(node: str) -> IPv4Address | IPv6Address | None:
    port = r"(?::(?:[0-9]{1,5}|_[!#$%&'*+\-.^_`|~0-9A-Za-z]*))?"
    found = re.fullmatch(rf"(?:\[([^\]]*)\]|([^:\[][^:]*)(?=:[^:]*\Z)){port}", node)
    text = node if not found else found[1] if found[1] is not None else found[2]
    if not re.fullmatch(r"[0-9A-Fa-f:.]*", text):
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
