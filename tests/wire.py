"""What a client puts on the wire: requests (RFC 9112) and frames (RFC 6455), well-formed or deliberately not.

Written from the RFCs alone and on nothing of c1m, so that it can't share a mistake with the code under test.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MASK = bytes.fromhex("37fa213d")     # the one of the examples in RFC 6455 section 5.7
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="    # and the handshake key of section 1.3
HOST = (b"Host", b"example.org")


def request(
    target: bytes = b"/",
    fields: Iterable[tuple[bytes, bytes]] = (HOST,),
    body: bytes = b"",
    *,
    method: bytes = b"GET",
    version: bytes = b"HTTP/1.1",
) -> bytes:
    """A request; a body needs its Content-Length among the fields."""
    lines = [b"%s %s %s" % (method, target, version), *(b"%s: %s" % field for field in fields), b"", body]
    return b"\r\n".join(lines)


def chunked(
    chunks: Iterable[bytes], extension: bytes = b"", trailers: Iterable[tuple[bytes, bytes]] = ()
) -> bytes:
    """A chunked body (RFC 9112 section 7.1); an empty chunk would end it."""
    sent = [b"%x%s\r\n%s\r\n" % (len(chunk), extension, chunk) for chunk in chunks]
    return b"".join([*sent, b"0\r\n", *(b"%s: %s\r\n" % field for field in trailers), b"\r\n"])


def upgrade(target: bytes = b"/", fields: Iterable[tuple[bytes, bytes]] = (HOST,), key: bytes = KEY) -> bytes:
    """The opening handshake (RFC 6455 section 4.1)."""
    return request(target, [
        *fields,
        (b"Connection", b"Upgrade"),
        (b"Upgrade", b"websocket"),
        (b"Sec-WebSocket-Version", b"13"),
        (b"Sec-WebSocket-Key", key),
    ])


def masked(payload: bytes, key: bytes) -> bytes:
    """Masks, and unmasks (RFC 6455 section 5.3)."""
    n = len(payload)
    stream = (key * (n // 4 + 1))[:n]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")).to_bytes(n, "big")


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    mask: bytes | None = MASK,
    rsv: int = 0,
    form: int | None = None,
    length: int | None = None,
) -> bytes:
    """A frame (RFC 6455 section 5.2).

    form: bytes of extended length, 0, 2 or 8, if not the fewest; length: what to announce, if not the truth.
    """
    if length is None:
        length = len(payload)
    if form is None:
        form = 0 if length < 126 else 2 if length < 65536 else 8
    short = {0: length, 2: 126, 8: 127}[form]
    head = bytes([fin << 7 | rsv << 4 | opcode, (mask is not None) << 7 | short])
    if form:
        head += struct.pack("!H" if form == 2 else "!Q", length)
    return head + payload if mask is None else head + mask + masked(payload, mask)


def message(opcode: int, parts: Sequence[bytes], mask: bytes | None = MASK) -> Iterator[bytes]:
    """The frames of a message sent in these parts (RFC 6455 section 5.4)."""
    for i, part in enumerate(parts):
        yield frame(CONTINUATION if i else opcode, part, fin=i == len(parts) - 1, mask=mask)


def close(code: int, reason: bytes = b"", mask: bytes | None = MASK) -> bytes:
    """A close frame (RFC 6455 section 5.5.1)."""
    return frame(CLOSE, struct.pack("!H", code) + reason, mask=mask)
