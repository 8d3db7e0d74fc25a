"""WebSockets, on real sockets."""

import asyncio
import contextlib
import random
import struct

import aiohttp
import pytest
import websockets.asyncio.client
import websockets.exceptions
import websockets.sync.client
from client import Http, WebSocket, handshake, request, until
from wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close, frame, message

import c1m

ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="                # RFC 6455 section 1.3
MIB = 1 << 20
IDLE = 1.6                       # seconds of silence; a client has half of it to answer a ping


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("websocket")
    (root / "a.txt").write_text("a")
    made = c1m.Server(root, ports=[0], unix=root / ".socket")
    made.websocket("/ws")
    made.websocket("/small", max_message=1000)
    made.websocket("/large", max_message=64 * MIB)
    made.websocket("/ünï")
    with made:
        yield made


@pytest.fixture
def port(server):
    return server.ports[0]


@pytest.fixture
def ws(port):
    with WebSocket(port) as made:
        yield made


def text_of(n):
    """n bytes of UTF-8 with characters of every length."""
    whole = "a\u00f1\u20ac\U0001f600".encode()
    return whole * (n // 10) + b"x" * (n % 10)


# ---- the opening handshake (RFC 6455 section 4) ----


@pytest.mark.parametrize("data", [
    handshake(),
    handshake(upgrade="WebSocket", connection="upgrade"),
    handshake(upgrade="h2c, websocket", connection="keep-alive, Upgrade"),
    handshake("/ws?query=1"),
    handshake("/%77s"),
    handshake("//ws"),
    handshake("http://test/ws"),
    handshake("/%C3%BCn%C3%AF"),
    handshake("/ws", "Origin: https://elsewhere.example"),
    handshake("/ws", "Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Extensions: permessage-deflate"),
    handshake("/ws", "Sec-WebSocket-Protocol: a, ,b", "Sec-WebSocket-Protocol: c"),
    handshake("/ws", "Sec-WebSocket-Protocol:"),
    handshake("/ws", "Sec-WebSocket-Protocol: , ,"),
    handshake("/ws", "Sec-WebSocket-Extensions: x-other; a=1, y"),
    handshake("/ws", "Content-Length: 0"),
    handshake(version="1.2"),
    handshake().replace(b"Sec-WebSocket", b"sec-websocket").replace(b"Upgrade:", b"UPGRADE:"),
])
def test_101(port, data):
    with WebSocket(port, opening=data) as ws:
        answer = ws.opening
        assert answer.status == 101
        assert answer["Sec-WebSocket-Accept"] == ACCEPT
        assert answer["Upgrade"].lower() == "websocket"
        assert answer["Connection"].lower() == "upgrade"
        for name in ("Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "Content-Length"):
            assert name not in answer
        assert ws.echo(b"hello") == (BINARY, b"hello")


@pytest.mark.parametrize(("data", "status"), [
    (handshake(key=None), 400),
    (handshake(key=""), 400),
    (handshake(key="short"), 400),
    (handshake(key="A" * 24), 400),
    (handshake(key="dGhlIHNhbXBsZSBub25jZQ"), 400),
    (handshake(key="dGhlIHNhbXBs*SBub25jZQ=="), 400),
    (handshake("/ws", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400),
    (handshake("/ws", "Content-Length: 5", body=b"hello"), 400),
    # RFC 6455 section 4.1, item 10: tokens, at least one, each there once
    *((handshake("/ws", *(f"Sec-WebSocket-Protocol: {value}" for value in values)), 400) for values in (
        ["a b"], ['"a"'], ["a;q=1"], ["a, b/c"], ["a, a"], ["a, b", "b"],
        [", ".join(map(str, range(100)))],
    )),
    # section 9.1: a list of extensions, whether we speak any or none
    *((handshake("/ws", f"Sec-WebSocket-Extensions: {value}"), 400)
      for value in ("@@@", "a b", "a;", "a; b=", 'a; b="c d"')),
    (handshake(protocol=None), 426),
    (handshake(protocol="8"), 426),
    (handshake(protocol="13, 8"), 426),
    (handshake(protocol="013"), 426),
    (handshake("/ws", "Sec-WebSocket-Version: 8"), 426),
    (handshake(upgrade=None), 426),                    # a plain GET, where only WebSocket is spoken
    (handshake(upgrade="h2c"), 426),
    (handshake(connection=None), 426),
    (handshake(connection="keep-alive"), 426),
    (request("/ws"), 426),
    (request("/ws", method="POST"), 405),
    (handshake(method="POST"), 405),
    (handshake("/nothing"), 404),
    (handshake("/ws/"), 404),
    (handshake("/wsx"), 404),
])
def test_a_bad_handshake_is_refused_and_the_connection_goes_on(port, data, status):
    with Http(port) as http:
        http.send(data)
        answer = http.answer()
        assert answer.status == status
        if status == 426:
            assert "websocket" in answer["Upgrade"]
            assert "Upgrade" in answer.all("Connection")
        http.send(handshake())
        assert http.answer().status == 101


def test_the_versions_we_speak_are_named(port):
    with Http(port) as http:
        http.send(handshake(protocol="8"))
        assert http.answer()["Sec-WebSocket-Version"] == "13"


def test_a_head_of_a_route_has_no_body(port):
    with Http(port) as http:
        assert http.get("/ws", method="HEAD").status == 426
        assert http.get("/a.txt").body == b"a"


def test_http_1_0_cannot_upgrade(port):
    with Http(port) as http:
        http.send(handshake(version="1.0"))
        assert http.answer().status == 426
        assert http.rest() == b""


def test_an_upgrade_where_there_are_only_files_is_not_taken(port):
    with Http(port) as http:
        http.send(handshake("/a.txt"))
        assert http.answer().body == b"a"


def test_requests_before_the_handshake_and_frames_behind_it_in_one_segment(port):
    frames = frame(TEXT, b"one") + frame(PING, b"two") + frame(TEXT, b"three")
    with Http(port) as http:
        http.send(request("/a.txt") * 3 + handshake() + frames)
        for _ in range(3):
            assert http.answer().body == b"a"
        assert http.answer().status == 101
        assert http.take(5) == b"\x81\x03one"
        assert http.take(5) == b"\x8a\x03two"
        assert http.take(7) == b"\x81\x05three"


def test_handshake_and_frames_may_be_split_anywhere(server, port):
    data = handshake() + frame(TEXT, b"hello") + frame(BINARY, bytes(200))
    for at in range(1, len(data)):
        received = server.stats()["bytes_received"]
        with Http(port) as http:
            http.send(data[:at])
            until(lambda: server.stats()["bytes_received"] >= received + at, "the first part to arrive")  # noqa: B023
            http.send(data[at:])
            assert http.answer().status == 101
            assert http.take(7) == b"\x81\x05hello"
            assert http.take(204) == b"\x82\x7e\x00\xc8" + bytes(200)


def test_over_a_unix_socket(server):
    with WebSocket(server._options.unix[0]) as ws:
        assert ws.echo(text_of(100_000), TEXT) == (TEXT, text_of(100_000))
        ws.send(close(1000))
        assert ws.closing() == 1000


# ---- messages ----


def test_frames_on_the_wire_are_the_ones_of_the_rfc(ws):
    # section 5.7: a single-frame masked text message, and its unmasked echo
    ws.send(bytes.fromhex("818537fa213d7f9f4d5158"))
    assert ws.take(7) == bytes.fromhex("810548656c6c6f")
    ws.send(struct.pack("!BB", 0x89, 0x85) + bytes.fromhex("37fa213d7f9f4d5158"))
    assert ws.take(7) == bytes.fromhex("8a0548656c6c6f")


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 4096, 65535, 65536, 131072, MIB])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_echo(ws, opcode, size):
    payload = text_of(size) if opcode == TEXT else random.Random(size).randbytes(size)
    for _ in range(2):
        assert ws.echo(payload, opcode) == (opcode, payload)


def test_echo_of_the_largest_message_allowed(port):
    payload = random.Random(1).randbytes(64 * MIB)
    with WebSocket(port, "/large") as ws:
        assert ws.echo(payload) == (BINARY, payload)
        assert ws.echo(b"and on") == (BINARY, b"and on")


def test_many_messages_in_one_segment_come_back_in_order(ws):
    generator = random.Random(2)
    opcodes, sizes = (generator.choices(among, k=2000) for among in ((TEXT, BINARY, PING), (0, 5, 120, 125)))
    sent = [(opcode, text_of(size)) for opcode, size in zip(opcodes, sizes, strict=True)]
    ws.send(b"".join(frame(opcode, payload) for opcode, payload in sent))
    for opcode, payload in sent:
        assert ws.frame() == (True, PONG if opcode == PING else opcode, payload)
    assert ws.silent()


@pytest.mark.parametrize("seed", range(12))
def test_fragments_with_pings_in_between(ws, seed):
    generator = random.Random(seed)
    for _ in range(5):
        size = generator.choice((0, 1, 10, 125, 1000, 70_000, 300_000))
        opcode = generator.choice((TEXT, BINARY))
        payload = text_of(size) if opcode == TEXT else generator.randbytes(size)
        cuts = sorted(generator.randint(0, size) for _ in range(generator.choice((0, 1, 5, 50))))
        parts = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, size], strict=True)]
        data, pongs = b"", []
        for part in message(opcode, parts, mask=generator.randbytes(4)):
            if generator.random() < 0.5:
                pongs.append(generator.randbytes(generator.randint(0, 125)))
                data += frame(PING, pongs[-1])
            data += part
        while data:              # in segments that have nothing to do with the frames
            n = generator.choice((1, 2, 7, 1000, len(data)))
            ws.send(data[:n])
            data = data[n:]
        for pong in pongs:
            assert ws.frame() == (True, PONG, pong)
        assert ws.message() == (opcode, payload)
    assert ws.silent()


def test_a_message_of_a_great_many_fragments(ws):
    payload = text_of(20_000)
    ws.send(b"".join(message(TEXT, [payload[i:i + 1] for i in range(len(payload))])))
    assert ws.message() == (TEXT, payload)


def test_empty_fragments(ws):
    ws.send(b"".join(message(TEXT, [b"", b"", b"a", b"", b"b", b""])))
    assert ws.message() == (TEXT, b"ab")
    ws.send(b"".join(message(BINARY, [b"", b""])))
    assert ws.message() == (BINARY, b"")


def test_byte_by_byte(ws):
    for payload in (b"", b"hello", bytes(130)):
        for byte in frame(BINARY, payload):
            ws.send(bytes([byte]))
        assert ws.message() == (BINARY, payload)


def test_messages_of_many_connections_are_not_mixed_up(port):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(WebSocket(port)) for _ in range(50)]
        halves = [list(message(TEXT, [b"client %d, " % i * 100, b"and still %d" % i])) for i in range(50)]
        for ws, (first, _) in zip(clients, halves, strict=True):
            ws.send(first)
        for ws, (_, second) in zip(clients, halves, strict=True):
            ws.send(second)
        for i, ws in enumerate(clients):
            assert ws.message() == (TEXT, b"client %d, " % i * 100 + b"and still %d" % i)


# ---- ping and pong (sections 5.5.2 and 5.5.3) ----


@pytest.mark.parametrize("payload", [b"", b"x", bytes(125)])
def test_a_ping_is_answered_with_its_payload(ws, payload):
    ws.send(frame(PING, payload))
    assert ws.frame() == (True, PONG, payload)


def test_a_pong_that_nobody_asked_for_is_not_answered(ws):
    ws.send(frame(PONG, b"unasked") + frame(TEXT, b"next"))
    assert ws.message() == (TEXT, b"next")


def test_a_silent_client_is_pinged_kept_when_it_answers_and_else_closed():
    server = c1m.Server(ports=[0])
    server.websocket("/ws", idle_timeout=IDLE)
    with server, WebSocket(server.ports[0]) as ws:
        for _ in range(3):
            assert ws.frame() == (True, PING, b"")
            ws.send(frame(PONG))
        assert ws.frame() == (True, PING, b"")
        assert ws.closing() == 1011
        assert ws.rest() == b""
        ws.close()
        until(lambda: server.stats()["websockets"] == 0, "it to be gone")


def test_any_frame_shows_life():
    server = c1m.Server(ports=[0])
    server.websocket("/ws", idle_timeout=IDLE)
    with server, WebSocket(server.ports[0]) as ws:
        for _ in range(2):
            assert ws.frame() == (True, PING, b"")
            assert ws.echo(b"here") == (BINARY, b"here")


# ---- failing (section 7.1.7) ----

FAILURES = {
    "RSV1": (frame(TEXT, b"x", rsv=4), 1002),
    "RSV2": (frame(TEXT, b"x", rsv=2), 1002),
    "RSV3": (frame(PING, b"x", rsv=1), 1002),
    "opcode 3": (frame(3, b"x"), 1002),
    "opcode 7": (frame(7, b"x"), 1002),
    "opcode 11": (frame(11, b"x"), 1002),
    "opcode 15": (frame(15, b"x"), 1002),
    "unmasked": (frame(TEXT, b"x", mask=None), 1002),
    "continuation of nothing": (frame(CONTINUATION, b"x"), 1002),
    "text within a message": (frame(TEXT, b"x", fin=False) + frame(TEXT, b"x"), 1002),
    "binary within a message": (frame(TEXT, b"x", fin=False) + frame(BINARY, b"x"), 1002),
    "long ping": (frame(PING, bytes(126)), 1002),
    "fragmented ping": (frame(PING, b"x", fin=False), 1002),
    "fragmented close": (frame(CLOSE, fin=False), 1002),
    "length in 2 bytes that fits in none": (frame(TEXT, bytes(125), form=2), 1002),
    "length in 8 bytes that fits in 2": (frame(TEXT, bytes(126), form=8), 1002),
    "length with its top bit set": (frame(TEXT, length=1 << 63, form=8), 1002),
    "close of one byte": (frame(CLOSE, b"\x03"), 1002),
    **{
        f"close with {code}": (close(code), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
    },
    "text that is no UTF-8": (frame(TEXT, b"a\xff"), 1007),
    "text in Latin-1": (frame(TEXT, "caf\u00e9".encode("latin-1")), 1007),
    "text with a surrogate": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "text beyond U+10FFFF": (frame(TEXT, b"\xf4\x90\x80\x80"), 1007),
    "text with an overlong form": (frame(TEXT, b"\xc0\xaf"), 1007),
    "text that ends within a character": (frame(TEXT, b"\xe2\x82"), 1007),
    "fragments that end within a character": (b"".join(message(TEXT, [b"\xe2", b"\x82"])), 1007),
    "fragment that is no UTF-8": (frame(TEXT, b"\xff", fin=False), 1007),
    "close reason that is no UTF-8": (close(1000, b"\xff"), 1007),
    "announced too long": (frame(TEXT, length=MIB + 1), 1009),
    "announced far too long": (frame(TEXT, length=(1 << 63) - 1), 1009),
    "fragments too long": (frame(BINARY, bytes(MIB), fin=False) + frame(CONTINUATION, b"x"), 1009),
}


@pytest.mark.parametrize(("data", "code"), FAILURES.values(), ids=list(FAILURES))
def test_a_fault_closes_with_its_code_after_what_came_before_is_answered(ws, data, code):
    ws.send(frame(TEXT, b"before") + frame(PING, b"it") + data + frame(TEXT, b"behind"))
    assert ws.message() == (TEXT, b"before")
    assert ws.frame() == (True, PONG, b"it")
    assert ws.closing() == code
    assert ws.rest() == b""


REASONS = {
    "RSV": "reserved bit set",
    "opcode": "unknown opcode",
    "unmasked": "frame not masked",
    "continuation of": "continuation of no message",
    "text within a m": "message inside a message",
    "binary within": "message inside a message",
    "long ping": "control frame over 125 bytes",
    "fragmented": "fragmented control frame",
    "length in 2": "length not in its shortest form",
    "length": "length not in its shortest form, or over 2**63 - 1",
    "close of one": "close frame of one byte",
    "close with": "close code not allowed",
    "close reason": "close reason is not UTF-8",
    "text": "text is not UTF-8",
    "fragments that": "text is not UTF-8",
    "fragment that": "text is not UTF-8",
    "announced": "message over the limit",
    "fragments too": "message over the limit",
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_fault_is_named(ws, name):
    data, code = FAILURES[name]
    ws.send(data)
    expected = next(reason for start, reason in REASONS.items() if name.startswith(start))
    assert ws.frame() == (True, CLOSE, struct.pack("!H", code) + expected.encode())


def test_who_is_silent_and_who_is_left_are_told_so():
    server = c1m.Server(ports=[0])
    server.websocket("/ws", idle_timeout=IDLE)
    server.websocket("/echo")
    with server, WebSocket(server.ports[0]) as silent, WebSocket(server.ports[0], "/echo") as other:
        assert silent.frame() == (True, PING, b"")
        assert silent.frame() == (True, CLOSE, struct.pack("!H", 1011) + b"ping not answered")
        server.stop()
        assert other.frame() == (True, CLOSE, struct.pack("!H", 1001) + b"server stopping")


def test_a_message_of_the_limit_is_taken_and_one_byte_more_is_not(port):
    with WebSocket(port, "/small") as ws:
        assert ws.echo(bytes(1000)) == (BINARY, bytes(1000))
        ws.send(b"".join(message(BINARY, [bytes(500), bytes(500)])))
        assert ws.message() == (BINARY, bytes(1000))
        ws.send(frame(BINARY, bytes(1001)))
        assert ws.closing() == 1009
        assert ws.rest() == b""


def test_a_fault_is_told_to_a_client_that_is_still_sending(port):
    with WebSocket(port, "/large") as ws:
        ws.send(frame(TEXT, b"\xff" + bytes(10_000_000)))
        assert ws.closing() == 1007
        assert ws.rest() == b""


# ---- closing (section 7) ----


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999])
def test_a_close_is_answered_with_its_code(ws, code):
    ws.send(close(code, "because \u20ac".encode()))
    assert ws.closing() == code
    assert ws.rest() == b""


def test_a_close_without_a_code_is_answered_without_one(ws):
    ws.send(frame(CLOSE))
    assert ws.closing() is None
    assert ws.rest() == b""


def test_nothing_is_answered_after_a_close(ws):
    ws.send(frame(TEXT, b"last") + close(1000) + frame(TEXT, b"too late") + frame(PING) + close(1001))
    assert ws.message() == (TEXT, b"last")
    assert ws.closing() == 1000
    assert ws.rest() == b""


def test_a_close_within_a_message_drops_it(ws):
    ws.send(frame(TEXT, b"never whole", fin=False) + close(1000))
    assert ws.closing() == 1000
    assert ws.rest() == b""


def test_all_echoes_arrive_before_the_close(port):
    with WebSocket(port, receive_buffer=8192) as ws:
        ws.send(frame(BINARY, bytes(100_000)) * 40 + close(1000))
        for _ in range(40):
            assert ws.message() == (BINARY, bytes(100_000))
        assert ws.closing() == 1000
        assert ws.rest() == b""


def test_a_client_that_goes_without_a_close_is_let_go(server, port):
    before = server.stats()["websockets"]
    with WebSocket(port) as ws:
        assert server.stats()["websockets"] == before + 1
        ws.half_close()
        assert ws.rest() == b""
    until(lambda: server.stats()["websockets"] == before, "it to be gone")


# ---- the server goes (close code 1001) ----


def test_shutdown_says_1001_to_everyone_and_waits_for_their_answers():
    server = c1m.Server(ports=[0], shutdown_timeout=60)
    server.websocket("/ws")
    with server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(WebSocket(server.ports[0])) for _ in range(20)]
        clients[0].send(frame(TEXT, b"half a ", fin=False))
        server.stop()
        for ws in clients:
            assert ws.closing() == 1001
            assert ws.silent()
            ws.send(close(1001))
            assert ws.rest() == b""


def test_shutdown_does_not_wait_for_ever():
    server = c1m.Server(ports=[0], shutdown_timeout=0.1)
    server.websocket("/ws")
    with server, WebSocket(server.ports[0]) as ws:
        server.stop()
        assert ws.closing() == 1001
        assert ws.drained() == 0


def test_what_was_asked_before_shutdown_arrives_before_1001():
    server = c1m.Server(ports=[0], shutdown_timeout=60)
    server.websocket("/ws")
    with server, WebSocket(server.ports[0], receive_buffer=8192) as ws:
        ws.send(frame(BINARY, bytes(100_000)) * 10)
        until(lambda: server.stats()["messages"] >= 10, "the messages to be read")
        server.stop()
        for _ in range(10):
            assert ws.message() == (BINARY, bytes(100_000))
        assert ws.closing() == 1001
        ws.send(frame(TEXT, b"ignored") + close(1001))
        assert ws.rest() == b""


# ---- clients that others have written ----


def test_websockets_sync(port, server):
    with websockets.sync.client.connect(f"ws://127.0.0.1:{port}/ws", max_size=None) as ws:
        for sent in ("", "h\u00e9llo", b"", b"bytes", "x" * 100_000, bytes(MIB)):
            ws.send(sent)
            assert ws.recv() == sent
        ws.send(["one, ", "two, ", "three"])           # as fragments
        assert ws.recv() == "one, two, three"
        assert ws.ping(b"are you there").wait(30)
        ws.close(4000, "done")
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            ws.recv()
        assert ws.protocol.close_rcvd.code == 4000
    with websockets.sync.client.unix_connect(server._options.unix[0], "ws://test/ws") as ws:
        ws.send("unix")
        assert ws.recv() == "unix"


def test_websockets_refused(port):
    with pytest.raises(websockets.exceptions.InvalidStatus) as error:
        websockets.sync.client.connect(f"ws://127.0.0.1:{port}/nothing")
    assert error.value.response.status_code == 404


def test_websockets_too_big(port):
    with websockets.sync.client.connect(f"ws://127.0.0.1:{port}/small") as ws:
        ws.send(bytes(1001))
        with pytest.raises(websockets.exceptions.ConnectionClosedError) as error:
            ws.recv()
        assert error.value.rcvd.code == 1009


def test_websockets_asyncio(port):
    async def talk(i):
        async with websockets.asyncio.client.connect(f"ws://127.0.0.1:{port}/ws") as ws:
            for j in range(20):
                await ws.send(f"{i} {j} " * j * 50)
            for j in range(20):
                assert await ws.recv() == f"{i} {j} " * j * 50

    async def main():
        await asyncio.gather(*(talk(i) for i in range(50)))

    asyncio.run(main())


def test_aiohttp(port):
    async def main():
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(f"http://127.0.0.1:{port}/ws") as ws:
                await ws.send_str("text")
                assert await ws.receive_str() == "text"
                await ws.send_bytes(bytes(100_000))
                assert await ws.receive_bytes() == bytes(100_000)
                await ws.ping(b"still there")
                await ws.close(code=3001)
                assert ws.close_code == 3001
            with pytest.raises(aiohttp.WSServerHandshakeError) as error:
                await session.ws_connect(f"http://127.0.0.1:{port}/nothing")
            assert error.value.status == 404

    asyncio.run(main())
