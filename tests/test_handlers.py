"""WebSocket handlers in Python, on real sockets."""

import array
import asyncio
import collections
import contextlib
import functools
import json
import logging
import os
import queue
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import aiohttp
import pytest
import websockets.exceptions
import websockets.sync.client
from client import PATIENCE, Http, WebSocket, handshake, program, until
from wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close, frame, message

import c1m

MIB = 1 << 20


class Recorder:
    """Keeps what its methods are called with, in order; `closed` gets the last of each connection."""

    def __init__(self):
        self.events = queue.SimpleQueue()

    def on_open(self, ws):
        self.events.put(("open", ws))

    def on_message(self, ws, message):
        self.events.put(("message", message))

    def on_close(self, ws, code, reason):
        self.events.put(("close", code, reason))

    def next(self, kind):
        """The next call, which must be of that kind: its arguments but the WebSocket."""
        event = self.events.get(timeout=PATIENCE)
        assert event[0] == kind, event
        return event[1:] if len(event) > 2 else event[1]


@contextlib.contextmanager
def serving(handler=None, path="/ws", **settings):
    """A running server with a handler at a path."""
    server = c1m.Server(ports=[0])
    server.websocket(path, handler, **settings)
    with server:
        server.port = server.ports[0]
        yield server


@contextlib.contextmanager
def open_pair(handler=None, receive_buffer=None, **settings):
    """A server with a Recorder, a client, and what the handler has of it: (server, recorder, client, ws)."""
    recorder = handler or Recorder()
    with (
        serving(recorder, **settings) as server,
        WebSocket(server.port, receive_buffer=receive_buffer) as client,
    ):
        yield server, recorder, client, recorder.next("open")


def echo(ws, message):
    ws.send(message)


def text_of(n):
    """n bytes of UTF-8 with characters of every length."""
    whole = "a\u00f1\u20ac\U0001f600".encode()
    return whole * (n // 10) + b"x" * (n % 10)


# ---- messages ----


def test_a_function_gets_str_for_text_and_bytes_for_binary():
    got = queue.SimpleQueue()
    server = c1m.Server(ports=[0])

    @server.websocket("/upper")
    def upper(ws, message):
        got.put(message)
        ws.send(message.upper())

    assert callable(upper)  # a decorator gives back what it was given
    with server, WebSocket(server.ports[0], "/upper") as ws:
        assert ws.echo("h\u00e9llo".encode(), TEXT) == (TEXT, "H\u00c9LLO".encode())
        assert ws.echo(b"bytes", BINARY) == (BINARY, b"BYTES")
        assert ws.echo(b"", TEXT) == (TEXT, b"")
        assert ws.echo(b"", BINARY) == (BINARY, b"")
        ws.send(b"".join(message(TEXT, [b"h\xc3", b"", b"\xa9llo"])))
        assert ws.message() == (TEXT, "H\u00c9LLO".encode())
    assert [got.get(timeout=PATIENCE) for _ in range(5)] == ["h\u00e9llo", b"bytes", "", b"", "h\u00e9llo"]


def test_a_function_given_directly():
    with serving(echo) as server, WebSocket(server.port) as ws:
        assert ws.echo(b"one", TEXT) == (TEXT, b"one")


def test_an_object_is_told_of_everything_in_order():
    with open_pair() as (server, recorder, client, ws):
        assert isinstance(ws, c1m.WebSocket)
        client.send(frame(TEXT, b"one") + frame(BINARY, b"two") + close(4001, "b\u00fae".encode()))
        assert recorder.next("message") == "one"
        assert recorder.next("message") == b"two"
        assert recorder.next("close") == (4001, "b\u00fae")
        assert client.closing() == 4001
        assert client.rest() == b""
        assert server.stats()["messages"] == 2
        until(lambda: server.stats()["websockets"] == 0, "it to be gone")


@pytest.mark.parametrize("methods", [["on_open"], ["on_close"], ["on_upgrade"], ["on_drain"]])
def test_an_object_with_one_method_only(methods):
    called = queue.SimpleQueue()
    Some = type("Some", (), {name: lambda self, *arguments: called.put(arguments) for name in methods})
    with serving(Some()) as server, WebSocket(server.port) as ws:
        ws.send(frame(TEXT, b"to nobody") + frame(PING, b"x"))
        assert ws.frame() == (True, PONG, b"x")
        ws.send(close(1000))
        assert ws.closing() == 1000
        assert ws.rest() == b""
    if methods != ["on_drain"]:
        called.get(timeout=PATIENCE)
    assert called.empty()


def test_many_messages_in_one_segment_are_answered_in_order():
    generator = random.Random(5)
    sent = [
        (generator.choice((TEXT, BINARY, PING)), text_of(generator.choice((0, 5, 120)))) for _ in range(2000)
    ]
    with serving(echo) as server, WebSocket(server.port) as ws:
        ws.send(b"".join(frame(opcode, payload) for opcode, payload in sent))
        for opcode, payload in sent:
            assert ws.frame() == (True, PONG if opcode == PING else opcode, payload)
        assert ws.silent()


def test_messages_that_come_in_one_segment_are_answered_in_one():
    with serving(echo) as server, WebSocket(server.port) as ws:
        ws.send(b"".join(frame(TEXT, b"%d" % i) for i in range(100)))
        want = b"".join(frame(TEXT, b"%d" % i, mask=None) for i in range(100))
        assert ws.socket.recv(1 << 20) == want


@pytest.mark.parametrize("seed", range(4))
def test_fragments_with_pings_in_between(seed):
    generator = random.Random(seed)
    with serving(echo) as server, WebSocket(server.port) as ws:
        for _ in range(5):
            size = generator.choice((0, 1, 125, 1000, 70_000, 300_000))
            opcode = generator.choice((TEXT, BINARY))
            payload = text_of(size) if opcode == TEXT else generator.randbytes(size)
            cuts = sorted(generator.randint(0, size) for _ in range(generator.choice((0, 1, 5, 50))))
            parts = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, size], strict=True)]
            for part in message(opcode, parts, mask=generator.randbytes(4)):
                ws.send(frame(PING, b"between") + part)
                assert ws.frame() == (True, PONG, b"between")
            assert ws.message() == (opcode, payload)


@pytest.mark.parametrize("size", [125, 126, 65535, 65536, 128 << 10, (128 << 10) + 1, MIB, 8 * MIB])
def test_big_messages(size):
    with serving(echo, max_message=8 * MIB, max_send_queue=64 * MIB) as server, WebSocket(server.port) as ws:
        for opcode, payload in ((TEXT, text_of(size)), (BINARY, random.Random(size).randbytes(size))):
            for _ in range(2):
                assert ws.echo(payload, opcode) == (opcode, payload)


def test_anything_like_bytes_can_be_sent():
    def on_message(ws, message):
        for sent in (b"bytes", bytearray(b"array"), memoryview(b"a view")[2:], "text"):
            ws.send(sent)
        for wrong in (1, None, ["x"], memoryview(b"strided")[::2]):
            with pytest.raises(TypeError, match=r"(is neither str nor bytes-like|that is not contiguous)"):
                ws.send(wrong)
        with pytest.raises(UnicodeEncodeError):
            ws.send("\ud800")
        ws.send("done")

    with serving(on_message) as server, WebSocket(server.port) as ws:
        ws.send(frame(TEXT))
        got = [ws.message() for _ in range(5)]
        assert got == [
            (BINARY, b"bytes"),
            (BINARY, b"array"),
            (BINARY, b"view"),
            (TEXT, b"text"),
            (TEXT, b"done"),
        ]


def test_what_is_sent_big_and_small_keeps_its_order():
    sizes = [random.Random(6).choice((1, 100, 5000, 200_000, 400_000)) for _ in range(60)]

    def on_message(ws, message):
        for i, size in enumerate(sizes):
            ws.send(bytes([i]) * size)
            if i % 7 == 0:
                ws.ping(b"%d" % i)

    with (
        serving(on_message, max_send_queue=64 * MIB) as server,
        WebSocket(server.port, receive_buffer=8192) as ws,
    ):
        ws.send(frame(TEXT))
        for i, size in enumerate(sizes):
            assert ws.message() == (BINARY, bytes([i]) * size)
            if i % 7 == 0:
                assert ws.frame() == (True, PING, b"%d" % i)


# ---- on_upgrade ----


class Upgrades:
    """Returns, or raises, what it is given."""

    def __init__(self, verdict):
        self.verdict, self.requests, self.calls = verdict, queue.SimpleQueue(), []

    def on_upgrade(self, request):
        self.requests.put(request)
        if isinstance(self.verdict, BaseException):
            raise self.verdict
        return self.verdict

    def on_open(self, ws):
        self.calls.append("open")
        ws.send(f"{ws.subprotocol}")

    def on_close(self, ws, code, reason):
        self.calls.append("close")


def test_the_request():
    upgrades = Upgrades(None)
    with serving(upgrades, path="/a b/\u00fc") as server:
        opening = handshake(
            "/a%20b/%C3%BC?x=1&y=%20",
            'Cookie: a=1; b="two"; c; a=3',
            "X-Twice: one",
            "X-Twice: two ",
            "X-Empty:",
        )
        with WebSocket(server.port, opening=opening) as ws:
            assert ws.message() == (TEXT, b"None")
    request = upgrades.requests.get(timeout=PATIENCE)
    assert isinstance(request, c1m.Request)
    assert request.path == "/a b/\u00fc"
    assert request.query == "x=1&y=%20"
    assert request.remote == "127.0.0.1"
    assert request.headers["host"] == "test"
    assert request.headers["x-twice"] == "one, two"
    assert request.headers["x-empty"] == ""
    assert request.headers["sec-websocket-version"] == "13"
    assert "x-none" not in request.headers
    assert request.cookies == {"a": "1", "b": "two"}


def test_lines_of_one_name_are_joined_by_commas_and_cookies_by_semicolons():
    upgrades = Upgrades(None)
    with serving(upgrades) as server, Http(server.port) as http:
        http.send(handshake("/ws", "Cookie: a=1", "X-A: 1", "cookie: b=2; c=3", "X-A: 2", "Cookie: a=4"))
        assert http.answer().status == 101
    request = upgrades.requests.get(timeout=PATIENCE)
    assert request.headers["cookie"] == "a=1; b=2; c=3; a=4"
    assert request.headers["x-a"] == "1, 2"
    assert request.cookies == {"a": "1", "b": "2", "c": "3"}


def test_a_websocket_knows_its_request(tmp_path):
    recorder = Recorder()
    server = c1m.Server(ports=[0], unix=tmp_path / "socket")
    server.websocket("/ws", recorder)
    with server, WebSocket(server.ports[0], "/ws?q") as a, WebSocket(tmp_path / "socket") as b:
        ws = recorder.next("open")
        assert (ws.path, ws.query, ws.remote, ws.subprotocol) == ("/ws", "q", "127.0.0.1", None)
        assert ws.headers is ws.request.headers
        assert ws.headers["upgrade"] == "websocket"
        assert recorder.next("open").remote == ""
        assert a.silent()
        assert b.silent()


def test_a_client_that_resets_at_once_is_known_all_the_same():
    upgrades = Upgrades(None)
    server = c1m.Server(ports=[0])
    server.websocket("/ws", upgrades)
    server.listen()
    client = Http(server.ports[0])
    client.send(handshake())
    client.reset()               # before anyone has looked at it
    with server:
        assert upgrades.requests.get(timeout=PATIENCE).remote == "127.0.0.1"


@pytest.mark.parametrize("status", [400, 403, 404, 429, 503, 599])
def test_reject(status):
    upgrades = Upgrades(c1m.Reject(status, "because \u20ac", {"Retry-After": "7", "X-More": "a, b"}))
    with serving(upgrades) as server, Http(server.port) as http:
        for _ in range(2):  # and the connection lives on
            http.send(handshake())
            answer = http.answer()
            assert answer.status == status
            assert answer.body == "because \u20ac".encode()
            assert answer["Retry-After"] == "7"
            assert answer["X-More"] == "a, b"
            assert answer["Content-Type"] == "text/plain; charset=utf-8"
        assert server.stats()["upgrades"] == 0
    assert upgrades.calls == []


def test_reject_by_default_is_403_and_as_long_as_it_may_be():
    for reject, length in ((c1m.Reject(), 0), (c1m.Reject(500, "x" * 8192), 8192)):
        with serving(Upgrades(reject)) as server, Http(server.port) as http:
            http.send(handshake())
            answer = http.answer()
            assert (answer.status, len(answer.body)) == (reject.status, length)


@pytest.mark.parametrize(
    "verdict",
    [
        RuntimeError("on purpose"),
        True,
        False,
        403,
        "",
        "never offered",
        b"chat",
        (403, "no"),
        c1m.Reject,
    ],
    ids=repr,
)
def test_an_on_upgrade_that_raises_or_returns_nonsense_is_500(caplog, verdict):
    upgrades = Upgrades(verdict)
    with serving(upgrades) as server, Http(server.port) as http:
        http.send(handshake("/ws", "Sec-WebSocket-Protocol: chat"))
        answer = http.answer()
        assert answer.status == 500
        assert b"purpose" not in answer.head + answer.body
        upgrades.verdict = None  # it is not the worse for it
        http.send(handshake())
        assert http.answer().status == 101
    [record] = [
        record for record in caplog.records if record.name == "c1m" and record.levelno == logging.ERROR
    ]
    assert record.exc_info[1] is verdict or isinstance(record.exc_info[1], TypeError)
    assert upgrades.calls == ["open", "close"]


def test_on_upgrade_chooses_a_subprotocol():
    with serving(Upgrades("soap"), subprotocols=["chat"]) as server:
        opening = handshake("/ws", "Sec-WebSocket-Protocol: chat, mqtt", "Sec-WebSocket-Protocol: soap")
        with WebSocket(server.port, opening=opening) as ws:
            assert ws.opening["Sec-WebSocket-Protocol"] == "soap"
            assert ws.message() == (TEXT, b"soap")


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [
        (["a"], "a"),
        (["a, b"], "b"),
        (["a", "b"], "b"),
        (["c,a"], "a"),
        (["c"], None),
        (["B"], None),
        ([], None),
    ],
)
def test_subprotocols_by_the_servers_order(offered, agreed):
    with serving(Upgrades(None), subprotocols=["b", "a"]) as server:
        opening = handshake("/ws", *(f"Sec-WebSocket-Protocol: {value}" for value in offered))
        with WebSocket(server.port, opening=opening) as ws:
            assert ws.opening.all("Sec-WebSocket-Protocol") == ([agreed] if agreed else [])
            assert ws.message() == (TEXT, str(agreed).encode())


@pytest.mark.parametrize("handler", [None, echo])
def test_clients_that_offer_subprotocols_in_vain_are_counted_and_the_first_is_logged(caplog, handler):
    offer = "Sec-WebSocket-Protocol: graphql-ws, chat"
    server = c1m.Server(ports=[0])
    server.websocket("/ws", handler, subprotocols="mqtt")
    server.websocket("/other", handler)
    with caplog.at_level(logging.WARNING), server:
        for target, *fields in (
            ("/ws",), ("/ws", "Sec-WebSocket-Protocol:"), ("/ws", "Sec-WebSocket-Protocol: mqtt, chat"),
            ("/ws", offer), ("/ws", offer), ("/other", offer),
        ):
            with Http(server.ports[0]) as http:
                http.send(handshake(target, *fields))
                assert http.answer().status == 101
        routes = server.stats()["routes"]
    assert (routes["/ws"]["no_subprotocol"], routes["/other"]["no_subprotocol"]) == (2, 1)
    logged = [record.getMessage() for record in caplog.records]
    assert [message.split(":")[0] for message in logged] == ["/ws", "/other"]
    assert all("'graphql-ws, chat'" in message for message in logged)


def test_origins():
    upgrades = Upgrades(None)
    with serving(upgrades, origins=["https://example.org", "http://localhost:8080"]) as server:
        for fields, status in (
            ([], 101),
            (["Origin: https://example.org"], 101),
            (["Origin: http://localhost:8080"], 101),
            (["Origin: http://example.org"], 403),
            (["Origin: https://example.org.evil.example"], 403),
            (["Origin: https://example.or"], 403),
            (["Origin: null"], 403),
            (["Origin:"], 403),
            (["Origin: https://example.org", "Origin: https://evil.example"], 403),
        ):
            with Http(server.port) as http:
                http.send(handshake("/ws", *fields))
                assert http.answer().status == status, fields
    assert upgrades.requests.qsize() == 3  # those who may not come in are not announced


# ---- on_open and on_close ----


@pytest.mark.parametrize(("host", "origin", "status"), [
    ("127.0.0.1:8001", "http://127.0.0.1:8001", 101),
    ("example.net", "http://example.net", 101),
    ("example.net", "https://example.net", 101),           # behind a proxy that does TLS
    ("Example.NET", "http://example.net", 101),
    ("example.net:80", "http://example.net", 101),
    ("example.net", "http://example.net:80", 101),
    ("example.net:443", "https://example.net", 101),
    ("example.net", "https://example.net:443", 101),
    ("[::1]:8001", "http://[::1]:8001", 101),
    ("example.net:443", "http://example.net", 403),
    ("example.net", "http://example.net:8080", 403),
    ("example.net:8080", "http://example.net", 403),
    ("example.net", "https://example.net:80", 403),
    ("example.net", "http://example.ne", 403),
    ("example.net", "http://example.net.evil.example", 403),
    ("example.net", "http://evil.example", 403),
    ("example.net", "example.net", 403),
    ("example.net", "ftp://example.net", 403),
    ("example.net", "http://", 403),
    ("", "http://", 403),
    ("", "http://:80", 403),
    (":80", "http://:80", 400),                            # which is no Host
    ("example.net", "http://user@example.net", 403),
    ("example.net", "http://example.net/", 403),
    ("example.net", "null", 403),
])
def test_the_servers_own_origin_is_let_in(host, origin, status):
    """As clients that are no browsers name it: websocket-client, paho-mqtt."""
    with serving(Upgrades(None), origins=["https://example.org"]) as server, Http(server.port) as http:
        http.send(handshake("/ws", f"Origin: {origin}", host=host))
        assert http.answer().status == status


def test_an_origin_that_comes_twice_is_not_let_in():
    with serving(Upgrades(None), origins=["https://example.org"]) as server, Http(server.port) as http:
        http.send(handshake("/ws", "Origin: http://test", "Origin: http://test"))
        assert http.answer().status == 403


def test_on_open_sends_before_anything():
    class Greets:
        def on_open(self, ws):
            ws.send("first")
            ws.send(bytes(300_000))

        def on_message(self, ws, message):
            ws.send(message)

    with (
        serving(Greets()) as server,
        WebSocket(server.port, opening=handshake() + frame(TEXT, b"early")) as ws,
    ):
        assert ws.message() == (TEXT, b"first")
        assert ws.message() == (BINARY, bytes(300_000))
        assert ws.message() == (TEXT, b"early")


def test_on_open_may_close():
    class Leaves(Recorder):
        def on_open(self, ws):
            ws.close(4000, "not today")

    leaves = Leaves()
    with serving(leaves) as server, WebSocket(server.port, opening=handshake() + frame(TEXT, b"early")) as ws:
        assert ws.frame() == (True, CLOSE, struct.pack("!H", 4000) + b"not today")
        ws.send(close(4000))
        assert ws.rest() == b""
        assert leaves.next("close") == (4000, "")


@pytest.mark.parametrize(
    ("sent", "code", "reason"),
    [
        (close(1000), 1000, ""),
        (close(4321, b"why not"), 4321, "why not"),
        (frame(CLOSE), 1005, ""),
        (frame(TEXT, b"\xff"), 1007, "text is not UTF-8"),
        (frame(TEXT, b"x" * 1001), 1009, "message over the limit"),
        (frame(BINARY, b"x" * 600, fin=False) + frame(CONTINUATION, b"x" * 600), 1009, "message over the limit"),
        (frame(3, b""), 1002, "unknown opcode"),
        (frame(CLOSE, b"\x03"), 1002, "close frame of one byte"),
        (close(1000, b"\xff"), 1007, "close reason is not UTF-8"),
    ],
)
def test_the_code_that_on_close_gets(sent, code, reason):
    with open_pair(max_message=1000) as (_, recorder, client, _):
        client.send(sent)
        assert client.closing() == (None if code == 1005 else code)
        assert client.rest() == b""
        client.close()
        assert recorder.next("close") == (code, reason)


def test_on_close_gets_1006_when_the_connection_breaks():
    for way in ("reset", "close", "half_close"):
        with open_pair() as (_, recorder, client, ws):
            getattr(client, way)()
            assert recorder.next("close") == (1006, "")
            assert ws.closed


def test_on_close_gets_our_code_when_the_server_leaves():
    with open_pair() as (server, recorder, client, _):
        server.stop()
        assert client.closing() == 1001
        client.send(close(1001))
        assert client.rest() == b""
        assert recorder.next("close")[0] == 1001


def test_on_close_is_called_for_those_the_server_cuts_off():
    recorder = Recorder()
    server = c1m.Server(ports=[0], shutdown_timeout=0.05)
    server.websocket("/ws", recorder)
    with server, WebSocket(server.ports[0]):
        recorder.next("open")
    recorder.next("close")


def test_a_silent_client_is_pinged_and_then_closed():
    with open_pair(idle_timeout=0.3) as (_, recorder, client, _):
        assert client.frame() == (True, PING, b"")
        client.send(frame(PONG))
        assert client.frame() == (True, PING, b"")
        assert client.closing() == 1011
        client.close()
        assert recorder.next("close") == (1011, "ping not answered")


# ---- handlers that raise ----


def test_a_client_is_told_why_it_is_closed():
    class Raises(Recorder):
        def on_message(self, ws, message):
            raise ValueError

    with open_pair(Raises()) as (_, recorder, client, _):
        client.send(frame(TEXT, b"x"))
        assert client.frame() == (True, CLOSE, struct.pack("!H", 1011) + b"handler failed")
        assert recorder.next("close") == (1011, "handler failed")


def test_a_handler_that_raises_is_logged_and_harms_no_other(caplog):
    closed = queue.SimpleQueue()

    class Fragile:
        def on_message(self, ws, message):
            ws.send(f"got {message}")
            if message == "raise":
                raise ZeroDivisionError("on purpose")

        def on_close(self, ws, code, reason):
            closed.put(code)

    with serving(Fragile()) as server, WebSocket(server.port) as bad, WebSocket(server.port) as good:
        bad.send(frame(TEXT, b"before") + frame(TEXT, b"raise") + frame(TEXT, b"after"))
        assert bad.message() == (TEXT, b"got before")
        assert bad.message() == (TEXT, b"got raise")
        assert bad.closing() == 1011
        assert bad.rest() == b""
        bad.close()
        assert closed.get(timeout=PATIENCE) == 1011
        assert good.echo(b"fine", TEXT) == (TEXT, b"got fine")
    [record] = [record for record in caplog.records if record.name == "c1m"]
    assert "ZeroDivisionError: on purpose" in caplog.text
    assert "in on_message" in caplog.text  # the traceback says where
    assert record.levelno == logging.ERROR


@pytest.mark.parametrize("method", ["on_open", "on_message", "on_close"])
def test_any_method_may_raise(caplog, method):
    def fail(self, *arguments):
        raise LookupError(method)

    with serving(type("Fails", (), {method: fail})()) as server:
        with WebSocket(server.port) as ws:
            ws.send(frame(TEXT, b"x") + close(1000))
            assert ws.closing() == (1000 if method == "on_close" else 1011)
            assert ws.rest() == b""
        until(lambda: server.stats()["websockets"] == 0, "it to be gone")
        assert f"LookupError: {method}" in caplog.text


@pytest.mark.parametrize("method", ["on_upgrade", "on_open", "on_message", "on_close"])
@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt()], ids=["SystemExit", "KeyboardInterrupt"]
)
def test_what_ends_a_program_ends_run(caplog, method, error):
    def fail(self, *arguments):
        raise error

    def client():
        with Http(server.ports[0]) as http:
            http.send(handshake() + frame(TEXT, b"x") + close(1000))
            http.drained()

    server = c1m.Server(ports=[0], shutdown_timeout=60)
    server.websocket("/ws", type("Ends", (), {method: fail})())
    server.listen()
    thread = threading.Thread(target=client)
    thread.start()
    with pytest.raises(type(error)) as raised:
        server.run()
    thread.join()
    assert raised.value is error
    assert not caplog.records


@contextlib.contextmanager
def a_log_that_raises(error):
    class Raises(logging.Handler):
        def emit(self, record):
            raise error

    log, raises = logging.getLogger("c1m"), Raises()
    log.addHandler(raises)
    try:
        yield
    finally:
        log.removeHandler(raises)


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt()], ids=["SystemExit", "KeyboardInterrupt"]
)
@pytest.mark.parametrize("method", ["on_upgrade", "on_message", "on_close"])
def test_what_ends_a_program_ends_run_where_it_comes_while_an_error_is_logged(method, error):
    """As a second Ctrl-C may, which finds a log handler at work."""
    def fail(self, *arguments):
        raise LookupError("on purpose")

    def client():
        with Http(server.ports[0]) as http:
            http.send(handshake() + frame(TEXT, b"x") + close(1000))
            with contextlib.suppress(OSError):   # it may have ended already
                http.half_close()
            http.drained()
        server.stop()

    server = c1m.Server(ports=[0], shutdown_timeout=0.5)
    server.websocket("/ws", type("Fails", (), {method: fail})())
    server.listen()
    thread = threading.Thread(target=client)
    thread.start()
    with a_log_that_raises(error), pytest.raises(type(error)) as raised:
        server.run()
    thread.join()
    assert raised.value is error


def test_a_log_that_fails_does_not_stop_the_server():
    def on_message(ws, message):
        if message == "fail":
            raise LookupError("on purpose")
        ws.send(message)

    with a_log_that_raises(ValueError("of the log")), serving(on_message) as server:
        for _ in range(2):
            with WebSocket(server.port) as ws:
                assert ws.echo(b"x", TEXT) == (TEXT, b"x")
                ws.send(frame(TEXT, b"fail"))
                assert ws.closing() == 1011


@pytest.mark.parametrize("method", ["on_open", "on_message", "on_close"])
def test_what_would_have_to_be_awaited_is_an_error_outside_asyncio(caplog, method):
    async def coroutine():
        pass

    methods = {method: lambda *_: coroutine()}
    with (
        warnings.catch_warnings(record=True, action="always") as warned,  # of one that is never awaited
        serving(type("Lazy", (), methods)()) as server,
    ):
        with WebSocket(server.port) as ws:
            ws.send(frame(TEXT, b"x") + close(1000))
            assert ws.closing() == (1000 if method == "on_close" else 1011)
        until(lambda: server.stats()["websockets"] == 0, "it to be gone")
    assert not warned
    assert "TypeError: a handler returned <coroutine object" in caplog.text
    said = "awaited in an event loop only: use run() and Server(loop=\"asyncio\"), or `async with server`"
    assert said in caplog.text


def test_what_send_returns_may_be_returned():
    with serving(lambda ws, message: ws.send(message)) as server, WebSocket(server.port) as ws:
        assert ws.echo(b"x", TEXT) == (TEXT, b"x")


@pytest.mark.parametrize("method", ["on_open", "on_message", "on_close"])
def test_closed_raised_by_a_connection_that_closes_is_a_quiet_end(caplog, method):
    def send(self, ws, *arguments):
        ws.close(4000)
        ws.send("too late")

    with serving(type("Late", (), {method: send})()) as server, WebSocket(server.port) as ws:
        ws.send(frame(TEXT))
        if method != "on_close":
            assert ws.closing() == 4000
        ws.send(close(4000))
        ws.drained()
        until(lambda: server.stats()["websockets"] == 0, "it to be gone")
    assert not caplog.records


def test_closed_raised_by_another_connection_is_an_error(caplog):
    closed = []

    class Handler:
        def on_open(self, ws):
            if closed:
                closed[0].send("too late")

        def on_close(self, ws, code, reason):
            closed.append(ws)

    with serving(Handler()) as server:
        with WebSocket(server.port):
            pass
        until(lambda: closed, "the first to be gone")
        with WebSocket(server.port) as ws:
            assert ws.closing() == 1011
    assert "c1m.handlers.Closed" in caplog.text


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt()], ids=["SystemExit", "KeyboardInterrupt"]
)
def test_what_ends_a_program_ends_the_thread_and_is_logged(caplog, error):
    def fail(ws, message):
        raise error

    with serving(fail) as server, WebSocket(server.port) as ws:
        ws.send(frame(TEXT))
        ws.drained()
        until(lambda: not server._thread.is_alive(), "the thread to end")
        for call in (lambda: server.publish("topic", "x"), lambda: server.subscribers("topic")):
            with pytest.raises(RuntimeError, match=r"^this server is not running: publish while run\(\), `with "):
                call()
    [record] = caplog.records
    assert record.message == "a handler ended the server"
    assert record.exc_info[1] is error


# ---- what a WebSocket can do ----


def test_data_is_the_handlers():
    class Counts:
        def on_open(self, ws):
            assert ws.data is None
            ws.data = 0

        def on_message(self, ws, message):
            ws.data += 1
            ws.send(str(ws.data))

    with serving(Counts()) as server, WebSocket(server.port) as a, WebSocket(server.port) as b:
        assert a.echo(b"", TEXT) == (TEXT, b"1")
        assert a.echo(b"", TEXT) == (TEXT, b"2")
        assert b.echo(b"", TEXT) == (TEXT, b"1")


def test_close_says_its_code_and_reason_and_nothing_after():
    def on_message(ws, message):
        ws.send("last")
        ws.close(3999, "r\u00e9ason")
        ws.close(1000, "once only")
        for call in (lambda: ws.send("x"), ws.ping):
            with pytest.raises(c1m.Closed, match=r"^this WebSocket is closed$"):
                call()

    with serving(on_message) as server, WebSocket(server.port) as ws:
        ws.send(frame(TEXT, b"1") + frame(TEXT, b"ignored") + frame(PING))
        assert ws.message() == (TEXT, b"last")
        assert ws.frame() == (True, CLOSE, struct.pack("!H", 3999) + "r\u00e9ason".encode())
        ws.send(close(3999))
        assert ws.rest() == b""


def test_a_reason_may_have_123_bytes():
    with open_pair() as (_, _, client, ws):
        ws.close(1000, "x" * 123)
        assert client.frame() == (True, CLOSE, struct.pack("!H", 1000) + b"x" * 123)


def test_close_refuses_what_may_not_be_sent():
    with open_pair() as (_, _, client, ws):
        for code in (-1, 0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65536 + 1000):
            with pytest.raises(ValueError, match=rf"^code: {code} is not a close code that may be sent"):
                ws.close(code)
        with pytest.raises(ValueError, match=r"^reason: 124 bytes are more than the 123"):
            ws.close(1000, "\u20ac" * 41 + "x")
        for wrong in (("1000",), (1000, b"bytes"), (1000, None)):
            with pytest.raises(TypeError):
                ws.close(*wrong)
        with pytest.raises(UnicodeEncodeError):
            ws.close(1000, "\ud800")
        assert not ws.closed
        ws.close()
        assert client.closing() == 1000


def test_after_the_end_everything_but_close_raises_closed():
    with open_pair() as (_, recorder, client, ws):
        client.reset()
        recorder.next("close")
        until(lambda: ws.closed, "it to be gone")
        for call in (lambda: ws.send("x"), lambda: ws.publish("t", "x"), ws.ping, lambda: ws.subscribe("t")):
            with pytest.raises(c1m.Closed):
                call()
        ws.close()
        ws.pause()
        ws.resume()
        assert ws.buffered == 0
        assert ws.path == "/ws"  # what it was stays known


def test_what_cannot_be_had_of_a_connection_that_broke_a_moment_ago_raises_closed():
    """In the very call of the handler that finds it broken, before on_close."""
    seen = queue.SimpleQueue()

    class Handler:
        def on_message(self, ws, message):
            name = client.socket.getsockname()
            [server_side] = [fd for fd in map(int, os.listdir("/proc/self/fd")) if peer_of(fd) == name]
            with socket.socket(fileno=os.dup(server_side)) as own:
                own.shutdown(socket.SHUT_RDWR)
            with pytest.raises(c1m.Closed):
                while True:
                    ws.send(bytes(10_000))
            for call in (
                lambda: ws.send("x"), ws.ping, lambda: ws.subscribe("t"), lambda: ws.unsubscribe("t"),
                lambda: ws.publish("t", "x"),
            ):
                try:
                    call()
                except c1m.Closed:
                    seen.put("Closed")
                else:
                    seen.put("no effect")
            seen.put(server.subscribers("t"))

    def peer_of(fd):
        try:
            with socket.socket(fileno=os.dup(fd)) as copy:
                return copy.getpeername()
        except OSError:
            return None

    with serving(Handler()) as server, WebSocket(server.port) as client:
        client.send(frame(TEXT, b"x"))
        assert [seen.get(timeout=PATIENCE) for _ in range(6)] == ["Closed"] * 5 + [0]


def test_in_on_close_it_is_closed_already():
    seen = queue.SimpleQueue()

    class Handler:
        def on_close(self, ws, code, reason):
            try:
                ws.send("too late")
            except c1m.Closed as error:
                seen.put((ws.closed, error))

    with serving(Handler()) as server, WebSocket(server.port) as ws:
        ws.send(close(1000))
        assert seen.get(timeout=PATIENCE)[0] is True


def test_ping():
    with open_pair() as (_, _, client, ws):
        ws.ping()
        ws.ping(b"payload")
        ws.ping("text")
        ws.ping(bytes(125))
        for payload in (b"", b"payload", b"text", bytes(125)):
            assert client.frame() == (True, PING, payload)
        for wrong in (bytes(126), "\u20ac" * 42, array.array("H", range(63))):
            with pytest.raises(ValueError, match=r"^data: 126 bytes are more than the 125"):
                ws.ping(wrong)
        with pytest.raises(TypeError):
            ws.ping(5)
        client.send(frame(PONG, b"payload") + frame(TEXT, b"alive"))


def test_a_websocket_is_made_by_the_server():
    with pytest.raises(TypeError, match=r"^a WebSocket is made by the server$"):
        c1m.WebSocket()


# ---- pause and resume ----


class Pauses(Recorder):
    def on_message(self, ws, message):
        super().on_message(ws, message)
        if message == "pause":
            ws.pause()
        if message == "echo":
            ws.send(message)


def round_trips(port):
    """So that the server has had a few turns since."""
    with WebSocket(port) as ws:
        for _ in range(3):
            assert ws.echo(b"echo", TEXT) == (TEXT, b"echo")


def test_nothing_is_delivered_while_paused_and_everything_after():
    with open_pair(Pauses()) as (server, pauses, client, ws):
        client.send(frame(TEXT, b"pause") + frame(TEXT, b"1") + frame(TEXT, b"2"))
        client.send(frame(TEXT, b"3"))
        assert pauses.next("message") == "pause"
        pauses_before = pauses.events.qsize()
        client.send(frame(TEXT, b"4") + close(4000))
        round_trips(server.port)
        assert pauses_before == 0
        others = collections.Counter(pauses.events.get(timeout=PATIENCE)[0] for _ in range(4))
        assert others == {"open": 1, "message": 3}  # the other connection's
        until(lambda: server.stats()["websockets"] == 1, "the other to be gone")
        assert pauses.next("close")[0] == 1006  # likewise
        assert pauses.events.empty()
        ws.resume()
        assert [pauses.next("message") for _ in range(4)] == ["1", "2", "3", "4"]
        assert pauses.next("close") == (4000, "")
        assert client.closing() == 4000


def test_a_paused_client_waits_and_nothing_is_lost():
    count, size = 400, 100_000
    with open_pair(Pauses()) as (_, pauses, client, ws):
        ws.pause()

        def send():
            for i in range(count):
                client.send(frame(BINARY, i.to_bytes(4, "big") * (size // 4)))
            client.send(close(1000))

        thread = threading.Thread(target=send)
        thread.start()
        for i in range(count):
            if i % 50 == 0:
                ws.resume()
            got = pauses.next("message")
            assert got == i.to_bytes(4, "big") * (size // 4)
            if i % 50 == 40:
                ws.pause()
                ws.resume()
        thread.join()
        assert pauses.next("close") == (1000, "")


def test_pausing_oneself_on_every_message():
    """Resumed by another thread, again and again, in the midst of a segment."""

    class Steps(Recorder):
        def on_message(self, ws, message):
            ws.pause()
            super().on_message(ws, message)

    with open_pair(Steps()) as (_, steps, client, ws):
        client.send(b"".join(frame(TEXT, b"%d" % i) for i in range(300)))
        for i in range(300):
            assert steps.next("message") == str(i)
            assert steps.events.empty()
            ws.resume()


def test_one_may_be_sent_to_while_paused():
    with open_pair() as (_, _, client, ws):
        ws.pause()
        for i in range(100):
            ws.send(str(i))
        ws.close(4000)
        for i in range(100):
            assert client.message() == (TEXT, b"%d" % i)
        assert client.closing() == 4000


def test_a_paused_one_that_breaks_is_let_go():
    with open_pair() as (server, recorder, client, ws):
        ws.pause()
        client.send(frame(TEXT, b"unread"))
        client.reset()
        assert recorder.next("close") == (1006, "")
        assert server.stats()["websockets"] == 0


def test_closing_ends_a_pause():
    """What the client answers is seen, or it would be waited for in vain."""
    with open_pair(Pauses()) as (_, pauses, client, ws):
        ws.pause()
        client.send(frame(TEXT, b"never delivered"))
        ws.close(4000)
        ws.pause()
        assert client.closing() == 4000
        client.send(close(4000))
        assert client.rest() == b""
        assert pauses.next("close") == (4000, "")


def test_a_paused_one_need_not_answer_pings():
    with open_pair(Pauses(), idle_timeout=0.2) as (_, pauses, client, ws):
        assert client.frame() == (True, PING, b"")
        ws.pause()
        client.send(frame(PONG) + frame(TEXT, b"unread"))
        with WebSocket(client.socket.getpeername()) as other:  # three times as long as its idle time
            assert pauses.next("open") is not None
            for _ in range(6):
                assert other.frame() == (True, PING, b"")
                other.send(frame(PONG))
        assert pauses.next("close") == (1006, "")
        ws.resume()
        assert pauses.next("message") == "unread"


# ---- other threads ----


def in_threads(n, work):
    """Runs work(i) in n threads; raises what one of them raised."""
    errors = []

    def run(i):
        try:
            work(i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("how", ["send", "publish", "server.publish"])
def test_eight_threads_at_once(how):
    each = 1500
    with open_pair(max_send_queue=64 * MIB) as (server, recorder, client, ws), WebSocket(server.port) as other:
        ws2 = recorder.next("open")
        ws.subscribe("all")
        ws2.subscribe("all")
        until(lambda: server.subscribers("all") == 2, "the subscriptions")

        def work(t):
            for i in range(each):
                if how == "send":
                    ws.send(f"{t} {i}")
                elif how == "publish":
                    ws2.publish("all", f"{t} {i}")
                else:
                    server.publish("all", f"{t} {i}")

        in_threads(8, work)
        for reader in [client] if how != "server.publish" else [client, other]:
            seen = [0] * 8
            for _ in range(8 * each):
                t, i = map(int, reader.message()[1].split())
                assert i == seen[t]
                seen[t] += 1
            assert seen == [each] * 8
        assert other.silent()


def test_threads_that_subscribe_send_pause_and_close_while_clients_come_and_go():
    with open_pair(max_send_queue=64 * MIB) as (server, recorder, _, _):
        clients = [WebSocket(server.port) for _ in range(16)]
        opened = [recorder.next("open") for _ in clients]

        def work(t):
            generator = random.Random(t)
            for i in range(300):
                ws = generator.choice(opened)
                with contextlib.suppress(c1m.Closed):
                    ws.subscribe(f"topic {i % 20}")
                    ws.send("x" * generator.choice((1, 10_000)))
                    ws.pause()
                    ws.publish(f"topic {i % 7}", "y")
                    ws.resume()
                    ws.unsubscribe(f"topic {(i + 10) % 20}")
                server.publish(f"topic {i % 5}", b"z")
                assert server.subscribers("topic 1") <= 16
                if i == 150:
                    opened[t].close(4000 + t)
                if i == 200:
                    clients[8 + t].reset()

        in_threads(8, work)
        for t in range(8):
            while (got := clients[t].frame())[1] != CLOSE:
                assert got[2].strip(b"xyz") == b""
            assert got[2] == struct.pack("!H", 4000 + t)
            clients[t].close()
        until(lambda: server.stats()["websockets"] == 1, "them to be gone")
        assert server.stats()["topics"] == 0


# ---- clients that do not read ----

FLOOD, SIZE = 240, 1 << 16


def numbered(i):
    return i.to_bytes(4, "big") * (SIZE // 4)


def flooded(when_slow, topic=None):
    """Floods a client that reads only afterwards. What it got, control frames, counters."""
    recorder = Recorder()
    with open_pair(recorder, 4096, when_slow=when_slow, max_send_queue=8 * SIZE) as (server, _, client, ws):
        ws.subscribe("even")
        ws.subscribe("odd")
        for i in range(FLOOD):
            if i == FLOOD // 2:
                client.send(frame(PING, b"mine"))
            if topic:
                server.publish(("even", "odd")[i % 2], numbered(i))
            else:
                ws.send(numbered(i))
        with contextlib.suppress(c1m.Closed):
            ws.ping(b"yours")
        # What threads ask for is done in order: once this is back, all of the above is.
        with WebSocket(server.port) as probe:
            recorder_probe = recorder.events.get(timeout=PATIENCE)
            while recorder_probe[0] != "open":
                recorder_probe = recorder.events.get(timeout=PATIENCE)
            recorder_probe[1].send("done")
            assert probe.message() == (TEXT, b"done")
        stats = server.stats()["routes"]["/ws"]
        got, control = [], []
        while True:
            fin, opcode, payload = client.frame()
            assert fin
            if opcode == BINARY:
                number = int.from_bytes(payload[:4], "big")
                assert payload == numbered(number)
                got.append(number)
            else:
                control.append((opcode, payload))
            if opcode == CLOSE or len(control) == 2:
                break
        client.close()
        return got, control, stats


@pytest.mark.parametrize("topic", [False, True], ids=["sent", "published"])
@pytest.mark.parametrize("when_slow", ["drop-newest", "drop-oldest", "latest"])
def test_when_slow_messages_are_dropped_and_counted(when_slow, topic):
    got, control, stats = flooded(when_slow, topic)
    assert got == sorted(set(got))  # each once, in order
    assert got[0] == 0
    assert stats["dropped"] > 0
    assert len(got) + stats["dropped"] == FLOOD
    assert stats["closed_slow"] == 0
    assert sorted(control) == [(PING, b"yours"), (PONG, b"mine")]
    if when_slow != "drop-newest":
        assert got[-1] == FLOOD - 1  # the newest is among them
    if when_slow == "latest" and topic:
        assert got[-2:] == [FLOOD - 2, FLOOD - 1]


@pytest.mark.parametrize("topic", [False, True], ids=["sent", "published"])
def test_when_slow_closes_with_1013(topic):
    got, control, stats = flooded("close", topic)
    assert control[-1] == (CLOSE, struct.pack("!H", 1013) + b"client reads too slowly")
    assert got == list(range(len(got)))
    assert 0 < len(got) < FLOOD
    assert stats["closed_slow"] == 1
    assert stats["dropped"] > 0


def test_on_close_gets_1013_when_too_slow():
    with open_pair(None, 4096, when_slow="close", max_send_queue=8 * SIZE) as (server, recorder, client, ws):
        for i in range(FLOOD):
            ws.send(numbered(i))
        until(lambda: server.stats()["routes"]["/ws"]["closed_slow"] == 1, "it to be given up")
        client.drained()
        client.close()
        assert recorder.next("close") == (1013, "client reads too slowly")


def test_one_slow_subscriber_does_not_hold_up_the_others():
    class Joins(Recorder):
        def on_open(self, ws):
            ws.subscribe("all")
            super().on_open(ws)

    with open_pair(Joins(), 4096, when_slow="drop-oldest", max_send_queue=8 * SIZE) as (server, _, slow, _):
        with WebSocket(server.port) as fast:
            until(lambda: server.subscribers("all") == 2, "the other")
            for i in range(FLOOD):
                server.publish("all", numbered(i))
                assert fast.message() == (BINARY, numbered(i))
        assert slow.message() == (BINARY, numbered(0))


def test_buffered_and_on_drain():
    drained = queue.SimpleQueue()

    class Drains(Recorder):
        def on_drain(self, ws):
            drained.put(ws.buffered)

    with open_pair(Drains(), 4096, max_send_queue=64 * MIB) as (_, _, client, ws):
        assert ws.buffered == 0
        for i in range(FLOOD):
            ws.send(numbered(i))
        until(lambda: ws.buffered > 0, "output to pile up")
        for i in range(FLOOD):
            assert client.message() == (BINARY, numbered(i))
        assert drained.get(timeout=PATIENCE) == 0
        assert ws.buffered == 0


def test_on_drain_is_not_called_once_it_is_closing():
    class Handler(Recorder):
        def on_message(self, ws, message):
            ws.send(bytes(4 * MIB))
            ws.close(4000)

        def on_drain(self, ws):
            self.events.put(("drain", ws))

    with open_pair(Handler(), receive_buffer=4096) as (_, recorder, client, _ws):
        client.send(frame(TEXT))
        assert client.message() == (BINARY, bytes(4 * MIB))
        assert client.closing() == 4000
        client.send(close(4000))
        assert recorder.next("close") == (4000, "")


def test_a_message_longer_than_the_backlog_may_be_sent_to_who_reads():
    with serving(lambda ws, message: ws.send(bytes(10 * MIB)), max_send_queue=1000) as server:
        with WebSocket(server.port) as ws:
            for _ in range(2):
                assert ws.echo(b"") == (BINARY, bytes(10 * MIB))
        assert server.stats()["routes"]["/ws"] == {"dropped": 0, "closed_slow": 0, "no_subprotocol": 0}


def test_one_who_catches_up_in_the_turn_that_found_it_slow_gets_what_comes_later():
    """It reads while the handler still runs, so that at the end of the turn all that waits can be sent."""
    taken, caught_up, size = queue.SimpleQueue(), threading.Event(), 1000

    class Burst(Recorder):
        def on_message(self, other, message):
            sent = 0
            while server.stats()["routes"]["/ws"]["dropped"] == 0:
                ws.send(bytes(size))
                sent += size + 4
            taken.put((sent - size - 4, ws.buffered))
            caught_up.wait(PATIENCE)

    with (
        open_pair(Burst(), 4096, when_slow="drop-newest", max_send_queue=20 * size) as (server, _, client, ws),
        WebSocket(server.port) as other,
    ):
        other.send(frame(TEXT, b"now"))
        sent, buffered = taken.get(timeout=PATIENCE)
        client.take(sent - buffered)
        caught_up.set()
        client.take(buffered)
        ws.send("last")
        assert client.message() == (TEXT, b"last")


@pytest.mark.parametrize("when_slow", ["drop-newest", "drop-oldest", "latest"])
def test_what_is_dropped_is_missed_by_no_context(when_slow):
    """With a context of its own, a message may be compressed as a reference to an earlier one, which must have come."""
    generator = random.Random(3)
    base = generator.randbytes(2000)
    sent = [i.to_bytes(4, "big") + generator.randbytes(i % 1000) + base for i in range(6000)]
    opening = handshake("/ws", "Sec-WebSocket-Extensions: permessage-deflate")
    recorder = Recorder()
    with (
        serving(recorder, compression="dedicated", when_slow=when_slow, max_send_queue=100_000) as server,
        WebSocket(server.port, opening=opening, receive_buffer=4096) as client,
    ):
        ws = recorder.next("open")
        ws.subscribe("topic")
        for message in sent:
            server.publish("topic", message)
        until(lambda: server.stats()["routes"]["/ws"]["dropped"] > 0, "it to be too slow")
        ws.ping(b"end")
        inflate, got = zlib.decompressobj(-15), []
        while True:
            first, n = client.take(2)
            payload = client.take(int.from_bytes(client.take(2), "big") if n == 126 else n)
            if first & 15 == PING:
                break
            assert first == 0xC2
            got.append(inflate.decompress(payload + b"\0\0\xff\xff"))
        numbers = [int.from_bytes(each[:4], "big") for each in got]
        assert numbers == sorted(set(numbers))
        assert got == [sent[number] for number in numbers]
        assert len(got) + server.stats()["routes"]["/ws"]["dropped"] == len(sent)


def test_a_burst_in_one_turn_makes_nobody_slow():
    """More than max_send_queue at once, to clients that read: what waits for the turn's end does not count."""

    def on_message(ws, message):
        for i in range(100):
            ws.send(bytes([i]) * 5000)

    with serving(on_message, max_send_queue=20_000) as server, WebSocket(server.port) as ws:
        ws.send(frame(TEXT, b"go"))
        for i in range(100):
            assert ws.message() == (BINARY, bytes([i]) * 5000)
        assert server.stats()["routes"]["/ws"] == {"dropped": 0, "closed_slow": 0, "no_subprotocol": 0}


def test_a_burst_of_published_messages_makes_nobody_slow():
    def on_message(ws, message):
        ws.subscribe("all")
        for i in range(100):
            server.publish("all", bytes([i]) * 5000)

    with serving(on_message, max_send_queue=20_000) as server, WebSocket(server.port) as ws:
        ws.send(frame(TEXT, b"go"))
        for i in range(100):
            assert ws.message() == (BINARY, bytes([i]) * 5000)
        assert server.stats()["routes"]["/ws"] == {"dropped": 0, "closed_slow": 0, "no_subprotocol": 0}


# ---- compression ----

TEXTS = ["", "short", "hello " * 1000, json.dumps(list(range(20_000))), "\u20ac" * 100_000]


@pytest.mark.parametrize("handler", [None, echo], ids=["built-in", "handler"])
@pytest.mark.parametrize("compression", ["shared", "dedicated"])
@pytest.mark.parametrize("settings", [{}, {"window_bits": 9, "memory_level": 1}], ids=["default", "small"])
def test_compressed_round_trips(handler, compression, settings):
    incompressible = random.Random(7).randbytes(100_000)
    with serving(handler, compression=compression, **settings) as server:
        with websockets.sync.client.connect(f"ws://127.0.0.1:{server.port}/ws", max_size=None) as ws:
            assert [extension.name for extension in ws.protocol.extensions] == ["permessage-deflate"]
            for _ in range(2):
                for sent in (*TEXTS, incompressible):
                    ws.send(sent)
                    assert ws.recv(PATIENCE) == sent
            ws.send(["frag", "ments ", "x" * 1000])
            assert ws.recv(PATIENCE) == "fragments " + "x" * 1000
        assert server.stats()["bytes_sent"] < 6 * len(incompressible)


@pytest.mark.parametrize("compression", ["shared", "dedicated"])
def test_the_built_in_echo_sends_a_message_as_it_came(compression):
    """Compressed if it was, however short; plain if it was, however long."""
    opening = handshake("/ws", "Sec-WebSocket-Extensions: permessage-deflate")
    with serving(None, compression=compression) as server, WebSocket(server.port, opening=opening) as ws:
        inflate = zlib.decompressobj(-15)
        for text in (b"", b"hi", b"hello " * 10):
            deflate = zlib.compressobj(6, wbits=-15)
            packed = (deflate.compress(text) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
            for frames in (
                frame(TEXT, packed, rsv=4),
                frame(TEXT, packed[:1], rsv=4, fin=False) + frame(CONTINUATION, packed[1:]),
            ):
                ws.send(frames)
                first, n = ws.take(2)
                assert first == 0xC1
                assert inflate.decompress(ws.take(n) + b"\0\0\xff\xff") == text
        for size in (1000, 100_000):
            assert ws.echo(b"x" * size, TEXT) == (TEXT, b"x" * size)
            ws.send(frame(BINARY, b"y" * size, fin=False) + frame(CONTINUATION, b"z"))
            assert ws.message() == (BINARY, b"y" * size + b"z")


def test_aiohttp_compressed():
    async def main(port):
        async with aiohttp.ClientSession() as session:  # noqa: SIM117
            async with session.ws_connect(f"http://127.0.0.1:{port}/ws", compress=15) as ws:
                assert ws.compress
                for text in TEXTS:
                    await ws.send_str(text)
                    assert await ws.receive_str() == text
                await ws.send_bytes(bytes(100_000))
                assert await ws.receive_bytes() == bytes(100_000)

    with serving(echo, compression="shared") as server:
        asyncio.run(main(server.port))


def test_no_compression_unless_asked_for_by_both():
    offer = handshake("/ws", "Sec-WebSocket-Extensions: permessage-deflate")
    with serving(echo) as server, WebSocket(server.port, opening=offer) as ws:
        assert "Sec-WebSocket-Extensions" not in ws.opening
        ws.send(frame(TEXT, b"x", rsv=4))
        assert ws.closing() == 1002
    with serving(echo, compression="shared") as server, WebSocket(server.port) as ws:
        assert "Sec-WebSocket-Extensions" not in ws.opening
        assert ws.echo(b"x" * 1000, TEXT) == (TEXT, b"x" * 1000)


@pytest.mark.parametrize("compression", ["shared", "dedicated"])
@pytest.mark.parametrize("fragments", [1, 10])
def test_a_bomb_is_1009(compression, fragments):
    deflate = zlib.compressobj(1, wbits=-15)
    bomb = deflate.compress(bytes(20 * MIB)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    bomb = bomb[:-4]
    step = len(bomb) // fragments + 1
    parts = [bomb[i : i + step] for i in range(0, len(bomb), step)]
    frames = [
        frame(CONTINUATION if i else BINARY, part, fin=i == len(parts) - 1, rsv=0 if i else 4)
        for i, part in enumerate(parts)
    ]
    recorder = Recorder()
    opening = handshake("/ws", "Sec-WebSocket-Extensions: permessage-deflate")
    with serving(recorder, compression=compression) as server, WebSocket(server.port, opening=opening) as ws:
        recorder.next("open")
        ws.send(b"".join(frames))
        assert ws.closing() == 1009
        assert ws.rest() == b""
        ws.close()
        assert recorder.next("close") == (1009, "message over the limit")


def test_what_is_no_deflate_data_or_inflates_to_no_utf8_is_1007():
    deflate = zlib.compressobj(9, wbits=-15)
    no_text = (deflate.compress(b"\xff" * 100) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
    opening = handshake("/ws", "Sec-WebSocket-Extensions: permessage-deflate")
    with serving(echo, compression="dedicated") as server:
        for payload in (b"\xff\xff\xff", no_text):
            with WebSocket(server.port, opening=opening) as ws:
                ws.send(frame(TEXT, payload, rsv=4))
                assert ws.closing() == 1007
                assert ws.rest() == b""


@pytest.mark.parametrize("compression", ["shared", "dedicated"])
def test_publishing_to_compressed_and_plain_subscribers_together(compression):
    class Joins(Recorder):
        def on_open(self, ws):
            ws.subscribe("all")

    uri = "ws://127.0.0.1:{}/ws"
    with serving(Joins(), compression=compression) as server, contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(
                websockets.sync.client.connect(
                    uri.format(server.port), max_size=None, compression="deflate" if i % 2 else None
                )
            )
            for i in range(8)
        ]
        plain = stack.enter_context(WebSocket(server.port))
        bits = stack.enter_context(
            WebSocket(
                server.port,
                opening=handshake(
                    "/ws", "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9"
                ),
            )
        )
        assert "server_max_window_bits=9" in bits.opening["Sec-WebSocket-Extensions"]
        until(lambda: server.subscribers("all") == 10, "the subscriptions")
        for text in TEXTS * 2:
            server.publish("all", text)
        server.publish("all", bytes(100_000))
        for text in TEXTS * 2:
            assert [ws.recv(PATIENCE) for ws in clients] == [text] * 8
            assert plain.message() == (TEXT, text.encode())
        assert [ws.recv(PATIENCE) for ws in clients] == [bytes(100_000)] * 8
        assert plain.message() == (BINARY, bytes(100_000))


# ---- arguments ----


def add(path="/ws", handler=None, **settings):
    return lambda: c1m.Server(ports=[0]).websocket(path, handler, **settings)


class Nothing:
    pass


class Misspelt:
    def on_open(self, ws):
        pass

    def on_mesage(self, ws, message):
        pass


def twice():
    decorate = c1m.Server(ports=[0]).websocket("/ws")
    decorate(echo)
    decorate(echo)


async def generates(ws, message):
    yield message


def with_method(name, method):
    """A handler whose on_open is right, with one method more."""
    return type("Some", (), {"on_open": lambda self, ws: None, name: method})()


async def unknown_to_pythons_annotations(ws: "Nowhere", message: "Nothing.there"):      # noqa: F821
    pass


def wraps(ws, message):
    return only_message(message)


def only_message(message: str) -> None:
    pass


functools.update_wrapper(wraps, only_message)


def yields(ws, message):
    yield message


class AsyncUpgrade:
    async def on_upgrade(self, request):
        pass


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (add("ws"), ValueError, "path: 'ws' does not start with '/'"),
        (add(b"/ws"), TypeError, "path: b'/ws' is not a str"),
        (add(handler=5), TypeError, "handler: 5 is no function"),
        (
            add(handler=Nothing()),
            TypeError,
            "handler: .* is no function and has none of the methods on_upgrade, ",
        ),
        (add(handler=Recorder), TypeError, "handler: Recorder is a class; pass an object of it"),
        (add(handler=Misspelt()), TypeError, "handler: on_mesage is no event; on_message is"),
        (twice, ValueError, "path: '/ws' has a handler already"),
        (add(handler=AsyncUpgrade()), TypeError, "handler: on_upgrade can't be a coroutine function"),
        (add(handler=generates), TypeError, "handler: on_message can't be an asynchronous generator "),
        *((add(handler=with_method(name, lambda self, *_: None)), TypeError,
           f"handler: {name} is no event; these are: on_upgrade, on_open, on_message, on_drain, on_close$")
          for name in ("on_msg", "on_connect", "on_disconnect", "on_error")),
        (add(handler=yields), TypeError, r"handler: on_message can't be a generator function: ws.send\(\) sends"),
        *((add(handler=handler), TypeError, rf"handler: {name} takes {takes}; it is called with \({given}\)$")
          for handler, name, takes, given in [
            (only_message, "on_message", r"\(message\)", "ws, message"),
            (lambda ws, message, code: None, "on_message", r"\(ws, message, code\)", "ws, message"),
            (lambda ws, message, *, code: None, "on_message", r"\(ws, message, \*, code\)", "ws, message"),
            (with_method("on_message", only_message), "on_message", r"\(\)", "ws, message"),
            (with_method("on_close", lambda self, ws: None), "on_close", r"\(ws\)", "ws, code, reason"),
            (with_method("on_upgrade", lambda self: None), "on_upgrade", r"\(\)", "request"),
            (with_method("on_drain", lambda self, ws, n: None), "on_drain", r"\(ws, n\)", "ws"),
            (with_method("on_open", lambda ws=1: None), "on_open", r"\(\)", "ws"),
          ]),
        (add(max_message=0), ValueError, "max_message: 0 is not between 1 and 2147483647"),
        (add(max_message=1 << 31), ValueError, "max_message: 2147483648 is not between"),
        (add(max_message="1"), TypeError, "max_message: '1' is not an int"),
        (add(max_send_queue=0), ValueError, "max_send_queue: 0 is not between"),
        (add(max_send_queue=1.5), TypeError, "max_send_queue: 1.5 is not an int"),
        (add(idle_timeout=0), ValueError, "idle_timeout: 0 is not above 0 seconds"),
        (add(idle_timeout=None), TypeError, "idle_timeout: None is not a number of seconds"),
        (add(ping_interval=-1), ValueError, "ping_interval: -1 is not above 0 seconds"),
        (add(ping_interval=120), ValueError, "ping_interval: 120 is not less than the idle_timeout, 120.0"),
        (add(when_slow="drop"), ValueError, "when_slow: 'drop' is none of 'close', 'drop-newest', "),
        (add(compression="gzip"), ValueError, "compression: 'gzip' is none of None, 'shared', 'dedicated'"),
        (add(window_bits=8), ValueError, "window_bits: 8 is not between 9 and 15"),
        (add(window_bits=16), ValueError, "window_bits: 16 is not between 9 and 15"),
        (add(memory_level=0), ValueError, "memory_level: 0 is not between 1 and 9"),
        (add(subprotocols="two words"), ValueError, "subprotocols: 'two words' is not a token"),
        (add(subprotocols=["a", "b,c"]), ValueError, "subprotocols: 'b,c' is not a token"),
        (add(origins="example.org"), ValueError, "origins: 'example.org' is not an origin such as"),
        (
            add(origins=["https://example.org/"]),
            ValueError,
            "origins: 'https://example.org/' is not an origin",
        ),
        (add(window_bits=9.0), TypeError, "window_bits: 9.0 is not an int"),
        (add(memory_level=None), TypeError, "memory_level: None is not an int"),
        (add(subprotocols=[1]), TypeError, "subprotocols: 1 is not a str"),
        (add(subprotocols=5), TypeError, "subprotocols: 5 is not a str or several"),
        (add(subprotocols=list(map(str, range(17)))), ValueError, "subprotocols: 17 are more than 16"),
        (add(subprotocols="x" * 256), ValueError, "subprotocols: 'x"),
        (add(origins=[None]), TypeError, "origins: None is not a str"),
        (add(origins=b"https://example.org"), TypeError, "origins: "),
        (add(origins=None), TypeError, "origins: None is not a str or several"),
        (add(origins=[f"https://{i}.example" for i in range(33)]), ValueError, "origins: 33 are more than 32"),
        *((add(path), ValueError, f"path: {re.escape(repr(path))} ")
          for path in ("/a?b", "/a#b", "/a%20b", "//a", "/a//b", "/a/../b", "/.hidden", "/a\0b", "/\udc80")),
        (lambda: c1m.Reject("403"), TypeError, "status: '403' is not an int"),
        (lambda: c1m.Reject(403.5), TypeError, "status: 403.5 is not an int"),
        (lambda: c1m.Reject(403, None), TypeError, "reason: None is not a str"),
        (lambda: c1m.Reject(403, b"x"), TypeError, "reason: b'x' is not a str"),
        (lambda: c1m.Reject(403, "x", [("a", "b")]), TypeError, r"headers: \[\('a', 'b'\)\] is no mapping"),
        (lambda: c1m.Reject(headers={"Content-Length": "0"}), ValueError, "headers: Content-Length is the"),
        (lambda: c1m.Reject(headers={"transfer-encoding": "chunked"}), ValueError, "headers: transfer-encoding is the"),
        (lambda: c1m.Reject(200), ValueError, "status: 200 is not between 400 and 599"),
        (lambda: c1m.Reject(600), ValueError, "status: 600 is not between 400 and 599"),
        (lambda: c1m.Reject(headers={"a b": "x"}), ValueError, "headers: 'a b: x' is not a header field"),
        (lambda: c1m.Reject(headers={"a": "x\r\ny"}), ValueError, "headers: .* is not a header field"),
        (
            lambda: c1m.Reject(reason="x" * 8193),
            ValueError,
            "reason and headers: more than 8192 bytes in all",
        ),
    ],
)
def test_an_argument_that_cannot_be_right_is_refused_in_one_line(call, error, says):
    with pytest.raises(error, match=rf"^{says}") as raised:
        call()
    assert type(raised.value) is error
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("handler", [
    print, queue.SimpleQueue().put, wraps, unknown_to_pythons_annotations, lambda *arguments: None,
    lambda ws, message, code=1000: None, functools.partial(lambda greeting, ws, message: None, "hello"),
    with_method("message", lambda self, message: None),
    with_method("on_air", True),
    with_method("on_fire", property(lambda self: 1 / 0)),
    with_method("on_close", lambda self, *arguments: None),
    with_method("on_close", staticmethod(lambda ws, code, reason: None)),
])
def test_a_handler_of_another_kind_is_taken(handler):
    c1m.Server(ports=[0]).websocket("/ws", handler)


def test_a_path_is_routed_once():
    server = c1m.Server(ports=[0])
    server.websocket("/ws", echo)
    with pytest.raises(ValueError, match=r"^path: '/ws' is a WebSocket route already$"):
        server.websocket("/ws", echo)


def test_a_running_server_gets_no_more_routes_or_handlers():
    server = c1m.Server(ports=[0])
    decorate = server.websocket("/ws")
    with server:
        for call in (lambda: server.websocket("/other"), lambda: decorate(echo)):
            with pytest.raises(
                RuntimeError, match=r"^cannot add a (route|handler) to a server that is listening"
            ):
                call()


def test_a_server_with_handlers_serves_again():
    recorder = Recorder()
    server = c1m.Server(ports=[0])
    server.websocket("/ws", recorder)
    for _ in range(3):
        with server, WebSocket(server.ports[0]) as ws:
            recorder.next("open")
            ws.send(frame(TEXT, b"x") + close(1000))
            assert recorder.next("message") == "x"
            assert recorder.next("close") == (1000, "")


# ---- clients that others have written ----


def test_websockets_sync():
    with serving(Recorder()) as server:  # noqa: SIM117
        with websockets.sync.client.connect(f"ws://127.0.0.1:{server.port}/ws") as ws:
            assert ws.ping(b"are you there").wait(PATIENCE)
            ws.close(4000, "done")
            assert ws.protocol.close_rcvd.code == 4000
    with serving(Upgrades(c1m.Reject(401, "who are you", {"WWW-Authenticate": "Basic"}))) as server:
        with pytest.raises(websockets.exceptions.InvalidStatus) as error:
            websockets.sync.client.connect(f"ws://127.0.0.1:{server.port}/ws")
        assert error.value.response.status_code == 401
        assert error.value.response.body == b"who are you"
        assert error.value.response.headers["WWW-Authenticate"] == "Basic"
    with (
        serving(Upgrades(None), subprotocols=["b", "a"]) as server,
        websockets.sync.client.connect(f"ws://127.0.0.1:{server.port}/ws", subprotocols=["a", "b"]) as ws,
    ):
        assert ws.subprotocol == "b"
        assert ws.recv(PATIENCE) == "b"


def test_aiohttp():
    async def main(port):
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{port}/ws"
            async with session.ws_connect(url, protocols=["a"], headers={"Cookie": "k=v"}) as ws:
                assert await ws.receive_str() == "v"
                await ws.send_bytes(bytes(100_000))
                assert await ws.receive_bytes() == bytes(100_000)
                await ws.send_str("close")
                closing = await ws.receive()
                assert (closing.type, closing.data, closing.extra) == (aiohttp.WSMsgType.CLOSE, 4002, "bye")

    class Handler:
        def on_open(self, ws):
            ws.send(ws.request.cookies["k"])

        def on_message(self, ws, message):
            if message == "close":
                ws.close(4002, "bye")
            else:
                ws.send(message)

    with serving(Handler()) as server:
        asyncio.run(main(server.port))


# ---- what it costs ----

_MANY = """
import gc, os, sys
sys.path.insert(0, sys.argv[1])
import c1m
from client import WebSocket, descriptors, handshake, memory, until
from wire import TEXT, frame

class Handler:
    def on_open(self, ws):
        ws.data = self
        ws.subscribe("all")
        ws.subscribe(f"own {id(ws)}")
    def on_message(self, ws, message):
        ws.send(message)
    def on_close(self, ws, code, reason):
        pass

server = c1m.Server(ports=[0])
server.websocket("/plain", Handler())
server.websocket("/dedicated", Handler(), compression="dedicated", window_bits=9, memory_level=1)

def round():
    clients = []
    for i in range(2000):
        path = "/dedicated" if i % 4 == 0 else "/plain"
        opening = handshake(path, "Sec-WebSocket-Extensions: permessage-deflate")
        clients.append(WebSocket(server.ports[0], opening=opening))
    assert server.stats()["websockets"] == 2000
    for ws in clients:
        ws.send(frame(TEXT, b"whole") + frame(TEXT, b"half" * 100, fin=False))
        assert ws.message() == (TEXT, b"whole")
    server.publish("all", "x" * 100)
    for i, ws in enumerate(clients):
        ws.reset() if i % 2 else ws.close()
    until(lambda: server.stats()["connections"] == 0, "them to be gone")
    assert server.stats()["topics"] == 0
    del clients, ws
    gc.collect()
    return memory(), descriptors()

with server:
    round()
    before, fds = round()
    for _ in range(2):
        after, now = round()
    assert now == fds, (now, fds)
    assert after - before < 2_000_000, (before, after)
"""


def test_two_thousand_that_come_and_go_leave_nothing_behind():
    done = subprocess.run(
        [sys.executable, "-c", _MANY, str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


# ---- a loop within the loop ----


@pytest.mark.parametrize("way", ["with", "async with"])
@pytest.mark.parametrize(
    "method", ["on_upgrade", "on_open", "on_message", "on_drain", "on_close", "on_close at the end"]
)
def test_a_turn_within_a_turn_does_nothing(method, way):
    """As it comes about where a handler runs its event loop anew, which nest_asyncio makes possible."""
    out, _ = program("""
import asyncio
import c1m
from client import WebSocket
from wire import TEXT, close, frame

method, way = sys.argv[2:]
got = []

def enters(self, *arguments):
    got.append(server._site.iterate())

methods = {method.split()[0]: enters}
if method == "on_drain":
    methods["on_message"] = lambda self, ws, message: ws.send(bytes(16 << 20))
server = c1m.Server(ports=[0], shutdown_timeout=0.2)
server.websocket("/ws", type("Enters", (), methods)(), max_send_queue=64 << 20)
server.websocket("/echo")

def visit():
    with WebSocket(server.ports[0], "/echo") as other, WebSocket(server.ports[0]) as client:
        client.send(frame(TEXT, b"x"))
        if method == "on_drain":
            client.take(16 << 20)
        client.send(close(1000))
        client.drained()
        assert other.echo(b"x") == (2, b"x")

def stay():
    global client
    client = WebSocket(server.ports[0])

visits = stay if "at the end" in method else visit

async def main():
    async with server:
        await asyncio.to_thread(visits)

if way == "with":
    with server:
        visits()
else:
    asyncio.run(main())
print(got)
""", method, way)
    assert out == "[1]\n"
