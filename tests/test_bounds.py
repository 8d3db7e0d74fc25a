"""What hostile clients can make a server keep and do: bounds that are written down, and held.

A connection has at most twice max_message for the message that it is receiving, and twice that again while one that is
compressed is inflated; nothing grows with the number of frames. Memory is that of a server's own process. Work is
counted, never timed: an iteration of the event loop for each segment that comes, or for each 128 KiB if that is more.
"""

import contextlib
import zlib

import pytest
from client import SANITIZED, Process, WebSocket, handshake, until
from wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame, message

MIB = 1 << 20
LIMIT = MIB                      # max_message
OFFER = "Sec-WebSocket-Extensions: permessage-deflate"
SLACK = 2 * MIB                  # of what the allocator keeps, and the process uses for the first time
AT_ONCE = 128 << 10              # bytes that the server receives at once
RATIO = 1000                     # about what deflate makes of zeroes
COMPRESSED = pytest.mark.parametrize("compression", ["shared", "dedicated"])


@pytest.fixture(params=[None, "shared", "dedicated"])
def compression(request):
    return request.param


@pytest.fixture
def process(compression):
    with Process(None, {"/ws": {"max_message": LIMIT, "compression": compression}}) as made:
        with WebSocket(made.port, opening=handshake("/ws", OFFER)) as ws:
            ws.echo(bytes(LIMIT))        # what is set up once is set up now
        made.until(lambda stats: stats["websockets"] == 0, "it to have gone")
        yield made


def opened(process):
    return WebSocket(process.port, opening=handshake("/ws", OFFER))


class Watched:
    """What a server has used while this was entered."""

    def __init__(self, process):
        self.process = process

    def __enter__(self):
        pid = self.process.pid
        with open(f"/proc/{pid}/clear_refs", "w") as clear:
            clear.write("5")             # resets the peak (proc(5))
        self.before, self.stats = self.peak(), self.process.stats()
        return self

    def __exit__(self, *exc):
        after = self.process.stats()
        self.memory = self.peak() - self.before
        self.iterations = after["iterations"] - self.stats["iterations"]
        self.received = after["bytes_received"] - self.stats["bytes_received"]

    def peak(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            [line] = [line for line in status if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024

    def check(self, memory, segments):
        """memory: bytes at most. segments: in which the client has sent; each may wake the server, and each AT_ONCE."""
        assert self.memory <= memory + SLACK or SANITIZED
        assert self.iterations <= segments + 2 * self.received // AT_ONCE + 50


def in_segments(ws, data, size=AT_ONCE):
    """Sends so many bytes at a time, and returns how often."""
    for at in range(0, len(data), size):
        ws.send(data[at:at + size])
    return -(-len(data) // size)


def bomb(n):
    deflate = zlib.compressobj(9, wbits=-15)
    return (deflate.compress(bytes(n)) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]


def test_one_byte_fragments_up_to_the_limit(process):
    """Twice max_message, for the block that they are put together in grows by doubling."""
    data = b"".join(message(BINARY, [b"x"] * LIMIT))
    with opened(process) as ws:
        with Watched(process) as watched:
            segments = in_segments(ws, data)
            assert ws.message() == (BINARY, b"x" * LIMIT)
        watched.check(2 * LIMIT, segments)
        ws.send(b"".join(message(BINARY, [b"x"] * (LIMIT + 1))))
        assert ws.closing() == 1009


def test_endless_empty_continuations(process):
    """Nothing is kept of them."""
    with opened(process) as ws:
        ws.send(frame(TEXT, b"a", fin=False))
        with Watched(process) as watched:
            segments = in_segments(ws, frame(CONTINUATION, fin=False) * 1_000_000)
            ws.send(frame(CONTINUATION, b"b"))
            assert ws.message() == (TEXT, b"ab")
        watched.check(0, segments + 1)


def test_a_frame_that_trickles_in_a_byte_a_segment(process):
    """The server keeps what has come, not what is announced."""
    data = frame(BINARY, bytes(LIMIT))
    with opened(process) as ws:
        with Watched(process) as watched:
            segments = in_segments(ws, data[:3000], 1)
            process.until(lambda stats: stats["bytes_received"] - watched.stats["bytes_received"] == 3000, "them")
        watched.check(0, segments + 100)
        ws.send(data[3000:])
        assert ws.message() == (BINARY, bytes(LIMIT))


@pytest.mark.parametrize("compression", [None])
def test_rsv1_where_nothing_was_agreed_on_ends_at_the_first_byte(compression):
    with Process(None, {"/ws": {"max_message": LIMIT}}) as process, opened(process) as ws:
        assert "Sec-WebSocket-Extensions" not in ws.opening
        with Watched(process) as watched:
            ws.send(frame(BINARY, bomb(RATIO * LIMIT), rsv=4)[:1])
            assert ws.frame() == (True, CLOSE, b"\x03\xeareserved bit set")
        watched.check(0, 1)


@COMPRESSED
@pytest.mark.parametrize("fragments", [1, 1000])
def test_a_deflate_bomb(process, fragments):
    """It is inflated as far as max_message, into a block that grows by doubling; not to the 1,000 MiB it stands for."""
    packed = bomb(RATIO * LIMIT)
    assert len(packed) <= LIMIT + (LIMIT >> 10) + 64
    step = -(-len(packed) // fragments)
    parts = [packed[at:at + step] for at in range(0, len(packed), step)]
    data = b"".join(
        frame(CONTINUATION if i else BINARY, part, fin=i == len(parts) - 1, rsv=0 if i else 4)
        for i, part in enumerate(parts)
    )
    with opened(process) as ws:
        with Watched(process) as watched:
            segments = in_segments(ws, data)
            assert ws.closing() == 1009
        watched.check(2 * LIMIT, segments)


@COMPRESSED
def test_control_frames_between_compressed_fragments(process):
    """Each ping has its pong, and neither they nor the fragments are kept twice."""
    packed = bomb(LIMIT)
    data = b"".join(
        frame(CONTINUATION if at else BINARY, packed[at:at + 1], fin=at == len(packed) - 1, rsv=0 if at else 4)
        + frame(PING, b"%d" % at) + frame(PONG, bytes(125))
        for at in range(len(packed))
    )
    with opened(process) as ws:
        with Watched(process) as watched:
            segments = in_segments(ws, data)
            for at in range(len(packed) - 1):
                assert ws.frame() == (True, PONG, b"%d" % at)
            fin, opcode, echoed = frame_of(ws)
            assert (fin, opcode) == (True, BINARY)
            assert zlib.decompressobj(-15).decompress(echoed + b"\0\0\xff\xff") == bytes(LIMIT)
        watched.check(2 * LIMIT, segments)


def frame_of(ws):
    """The next frame, which may be compressed."""
    until(lambda: len(ws.unread) > 1 or ws.more(), "a frame")
    first = ws.unread[0]
    assert first & 0x70 == 0x40
    ws.unread = bytes([first & ~0x40]) + ws.unread[1:]
    return ws.frame()


def test_what_compressed_connections_leave_behind_goes_back_to_the_system():
    """Though some remain, whose memory lies between: within some 10 seconds."""
    if SANITIZED:
        pytest.skip("nothing that was freed is given back")
    with Process(None, {"/ws": {"compression": "dedicated"}}) as process, contextlib.ExitStack() as stack:
        before = process.memory()
        clients = [stack.enter_context(opened(process)) for _ in range(1000)]
        for ws in clients:
            ws.send(frame(TEXT, b"x" * 100))
        for ws in clients:
            assert ws.message() == (TEXT, b"x" * 100)
        used = process.memory() - before
        assert used > 64 * MIB
        for ws in clients[:-1]:
            ws.close()
        until(lambda: process.memory() - before < used // 4, "the memory")
