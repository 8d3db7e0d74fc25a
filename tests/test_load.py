"""A load: what it counts of servers that behave, and what it says of those that do not."""

import base64
import contextlib
import hashlib
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest
from client import PATIENCE, Process, Program, until
from wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close, frame, masked

import c1m
from c1m.loadoptions import LoadOptions
from c1m.loadrun import Run

COMMAND = [sys.executable, "-m", "c1m", "load"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("www")
    (root / "a.txt").write_text("a")
    (root / "b.txt").write_text("b" * 100)
    (root / "long.bin").write_bytes(os.urandom(1 << 20))
    unix = str(tmp_path_factory.mktemp("socket") / "socket")
    routes = {"/ws": {}, "/shared": {"compression": "shared"}, "/own": {"compression": "dedicated"},
              "/pings": {"ping_interval": 0.1, "idle_timeout": 0.3}}
    with Process(root, routes, unix=unix) as process:
        process.unix = unix
        yield process


def ws(server, path="/ws"):
    return f"ws://127.0.0.1:{server.port}{path}"


def http(server, path="/a.txt"):
    return f"http://127.0.0.1:{server.port}{path}"


def loaded(url, **options):
    """The result of a load that must have gone well."""
    result = c1m.load(url, **{"connections": 4, "messages": 100, **options})
    assert result.errors == {}
    return result


# ---- servers of a script ----


class Scripted:
    """Listens, and runs a script for each connection in a thread of its own. What a script raises is raised here."""

    def __init__(self, script, backlog=64):
        self.script, self.wrong, self.threads = script, [], []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.accept)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join(PATIENCE)
        self.listener.close()
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        assert not self.wrong

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                thread = threading.Thread(target=self.serve, args=[self.listener.accept()[0]])
                self.threads.append(thread)
                thread.start()

    def serve(self, connection):
        connection.settimeout(PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, contextlib.suppress(ConnectionError):
            try:
                self.script(connection)
            except ConnectionError:
                raise
            except BaseException as error:
                self.wrong.append(error)
                raise

    @property
    def ws(self):
        return f"ws://127.0.0.1:{self.port}/"

    @property
    def http(self):
        return f"http://127.0.0.1:{self.port}/"


def take(connection, n):
    got = b""
    while len(got) < n:
        some = connection.recv(n - len(got))
        if not some:
            raise ConnectionError
        got += some
    return got


def head(connection):
    got = b""
    while not got.endswith(b"\r\n\r\n"):
        got += take(connection, 1)
    return got


def upgraded(connection, more=b""):
    """Shakes hands; returns the request."""
    asked = head(connection)
    key = re.search(rb"Sec-WebSocket-Key: (\S+)", asked)[1]
    assert len(base64.b64decode(key)) == 16
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n" + more + b"\r\n")
    return asked


def taken(connection):
    """The next frame, which must be a short one and masked: its opcode and payload."""
    first, second = take(connection, 2)
    assert second & 0x80
    assert second & 0x7f < 126
    key = take(connection, 4)
    return first & 0x0f, masked(take(connection, second & 0x7f), key)


def echoed(connection, times):
    for _ in range(times):
        opcode, payload = taken(connection)
        connection.sendall(frame(opcode, payload, mask=None))


def after_an_echo(answer):
    """A WebSocket server that echoes one message, and answers the next one so."""
    def script(connection):
        upgraded(connection)
        echoed(connection, 1)
        taken(connection)
        answer(connection)
        with contextlib.suppress(ConnectionError):
            take(connection, 1 << 20)
    return script


# ---- servers that behave ----


@pytest.mark.parametrize("options", [
    {}, {"depth": 16}, {"depth": 3}, {"size": 0}, {"size": 125}, {"size": 126}, {"size": 65535}, {"size": 65536},
    {"size": 1 << 20, "connections": 2, "messages": 12}, {"size": 300_000, "depth": 4, "messages": 40},
    {"text": True}, {"text": True, "size": 5000}, {"message": b"\x00\xff" * 100}, {"verify": False}, {"new": True},
    {"processes": 2}, {"processes": 2, "depth": 5}, {"connections": 1}, {"sources": 3}, {"rate": 2000},
    {"rate": 2000, "new": True}, {"rate": 2000, "depth": 1}, {"rate": 2000, "processes": 2}, {"ramp": 0.05},
    {"headers": {"Authorization": "Basic 1"}}, {"connections": 200, "depth": 2, "messages": 1000},
], ids=str)
def test_echoes(server, options):
    result = loaded(ws(server), **options)
    assert result.answered == result.sent == options.get("messages", 100)
    assert result.latency.count == result.answered
    assert sum(times for _, times in result.latency.histogram) == result.answered
    assert 0 < result.latency.least <= result.latency.percentiles["p50"] <= result.latency.percentiles["p99.99"]
    assert result.loop == ("open" if "rate" in options else "closed")


@pytest.mark.parametrize("options", [
    {}, {"pipeline": 16}, {"pipeline": 7}, {"new": True}, {"processes": 2}, {"rate": 2000}, {"ramp": 0.05},
    {"rate": 2000, "pipeline": 4}, {"rate": 2000, "new": True}, {"method": "HEAD"}, {"random": True},
], ids=str)
@pytest.mark.parametrize("paths", [["/a.txt"], ["/a.txt", "/b.txt"], ["/long.bin"]], ids=str)
def test_requests(server, options, paths):
    result = loaded([http(server, path) for path in paths], **options)
    assert result.answered == result.sent == 100
    assert result.statuses == {200: 100}


def test_bodies_and_methods():
    asked = []

    def script(connection):
        while True:
            asked.append((head(connection), take(connection, 3)))
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n")

    with Scripted(script) as scripted:
        loaded(scripted.http + "x?y", method="POST", body=b"abc", headers={"X-A": "b"}, connections=1, messages=5)
    assert len(asked) == 5
    for lines, body in asked:
        assert lines.startswith(b"POST /x?y HTTP/1.1\r\n")
        assert b"\r\nX-A: b\r\n" in lines
        assert b"\r\nContent-Length: 3\r\n" in lines
        assert b"\r\nHost: 127.0.0.1:%d\r\n" % scripted.port in lines
        assert body == b"abc"


def test_urls_are_taken_in_turn():
    asked = []

    def script(connection):
        while True:
            asked.append(head(connection).split()[1])
            connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    with Scripted(script) as scripted:
        loaded([scripted.http + name for name in "abc"], connections=1, messages=9)
    assert asked == [b"/a", b"/b", b"/c"] * 3


def test_a_time_ends_it(server):
    for url in (ws(server), http(server)):
        result = loaded(url, messages=None, duration=0.2)
        assert result.answered > 0
        assert 0 < result.sent - result.answered <= 4        # what was in flight
        assert result.seconds == pytest.approx(0.2)
        assert result.rate == pytest.approx(result.answered / 0.2)


@pytest.mark.parametrize("path", ["/shared", "/own"])
@pytest.mark.parametrize("options", [{}, {"text": True, "size": 3000}, {"depth": 8, "size": 500}, {"size": 100_000}])
def test_compression(server, path, options):
    assert loaded(ws(server, path), compression=True, **options).answered == 100


def test_unix_sockets(server):
    assert loaded(f"unix:{server.unix}:/b.txt").statuses == {200: 100}
    assert loaded(f"unix:ws:{server.unix}:/ws", depth=2).answered == 100
    assert loaded(f"unix:{server.unix}:/b.txt", new=True, connections=300, messages=600).answered == 600


def test_idle_connections_stay_and_answer_pings(server):
    result = loaded(ws(server, "/pings"), idle=True, messages=None, connections=40, processes=2, duration=1.0)
    assert (result.loop, result.answered, result.connections, result.still_open) == ("idle", 40, 40, 40)


FAN = """
import c1m
class Fan:
    def on_open(self, ws): ws.subscribe("all")
    def on_message(self, ws, message): ws.server.publish("all", b"from someone: " + bytes(message))
server = c1m.Server(ports=[0])
server.websocket("/", Fan())
with server:
    print(server.ports[0], flush=True)
    input()
"""


@pytest.mark.parametrize("options", [{}, {"size": 500}, {"processes": 2, "size": 20}])
def test_a_fan_out(options):
    with Program(FAN.replace("ws.server", "server")) as fan:
        result = c1m.load(f"ws://127.0.0.1:{fan.line()}/", connections=10, subscribe=True, publish=100, duration=0.5,
                          **options)
    assert (result.loop, result.errors) == ("subscribe", {})
    assert result.sent == 50
    assert result.delivered == result.latency.count == 500
    assert result.latency.least > 0


FAN_AND_ECHO = """
import c1m
class Fan:
    def on_open(self, ws): ws.subscribe("all")
    def on_message(self, ws, message):
        if message.startswith(b"c1m:"):
            server.publish("all", message)
        else:
            ws.send(message)
server = c1m.Server(ports=[0])
server.websocket("/", Fan())
with server:
    print(server.ports[0], flush=True)
    input()
"""


def test_idle_connections_that_subscribe_have_their_echo_and_then_what_is_published():
    with Program(FAN_AND_ECHO) as fan:
        result = loaded(f"ws://127.0.0.1:{fan.line()}/", connections=20, processes=2, idle=True, subscribe=True,
                        publish=50, messages=None, duration=0.5)
    assert (result.loop, result.answered, result.sent, result.still_open) == ("subscribe", 20, 20 + 25, 21)
    assert result.delivered == result.latency.count == 20 * 25


def test_an_echo_in_pieces_is_an_echo():
    def script(connection):
        upgraded(connection)
        while True:
            opcode, payload = taken(connection)
            connection.sendall(frame(PING, b"still there?", mask=None))
            connection.sendall(frame(opcode, payload[:7], fin=False, mask=None) + frame(PONG, b"", mask=None))
            connection.sendall(frame(CONTINUATION, b"", fin=False, mask=None))
            for byte in frame(CONTINUATION, payload[7:], mask=None):
                connection.sendall(bytes([byte]))
            assert taken(connection) == (PONG, b"still there?")

    with Scripted(script) as scripted:
        assert loaded(scripted.ws, connections=1, messages=3).answered == 3


def test_a_server_that_ends_connections_between_responses():
    """It says so, or not; in neither case is it a fault."""
    def script(connection):
        for last in (False, False, True):
            head(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n%s\r\nok" % (b"Connection: close\r\n" * last))

    with Scripted(script) as scripted:
        result = loaded(scripted.http, connections=2, messages=12)
        assert result.answered == 12
        assert result.connections in (4, 5, 6)               # the last ones may still have been opened


def test_a_response_that_ends_with_its_connection():
    def script(connection):
        head(connection)
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nto the end")

    with Scripted(script) as scripted:
        assert loaded(scripted.http, connections=1, messages=3).answered == 3


# ---- servers that do not ----


def refused_port():
    with socket.socket() as taken_port:
        taken_port.bind(("127.0.0.1", 0))
        return taken_port.getsockname()[1]


def test_what_connect_says_otherwise_is_told(tmp_path):
    result = c1m.load(f"unix:{tmp_path}/nothing", connections=3)
    assert result.errors == {"unreachable (No such file or directory)": 3}


def test_what_a_watcher_raises_comes_through_and_ends_the_load(server):
    class Enough(Exception):
        pass

    def watch(progress):
        raise Enough

    load, before = Run([http(server)], LoadOptions({"duration": 3600})), children_of(os.getpid())
    with pytest.raises(Enough):
        load.run(watch)
    assert children_of(os.getpid()) == before


def test_a_refused_port():
    for scheme in ("ws", "http"):
        result = c1m.load(f"{scheme}://127.0.0.1:{refused_port()}/", connections=3)
        assert result.errors == {"refused": 3}
        assert result.connections == result.sent == 0


@pytest.mark.parametrize(("answer", "error"), [
    (frame(BINARY, bytes(20), mask=None), "wrong echo"),
    (frame(BINARY, b"short", mask=None), "wrong echo"),
    (frame(BINARY, bytes(21), mask=None), "wrong echo"),
    (frame(TEXT, b"x" * 20, mask=None), "wrong echo"),
    (frame(BINARY, bytes(20)), "broken protocol (masked frame)"),
    (frame(3, b"", mask=None), "broken protocol (unknown opcode)"),
    (frame(BINARY, b"", rsv=4, mask=None), "broken protocol (reserved bit set)"),
    (close(1001, mask=None), "closed with 1001"),
    (close(4999, b"go away", mask=None), "closed with 4999"),
    (frame(CLOSE, b"", mask=None), "closed with 1005"),
    (frame(CLOSE, b"x", mask=None), "broken protocol (its Close frame has no right code or reason)"),
], ids=str)
def test_a_wrong_answer(answer, error):
    with Scripted(after_an_echo(lambda connection: connection.sendall(answer))) as scripted:
        result = c1m.load(scripted.ws, connections=1, messages=10, duration=PATIENCE)
    assert result.answered >= 1
    assert list(result.errors) == [error]


def test_a_message_too_many():
    def script(connection):
        upgraded(connection)
        while True:
            opcode, payload = taken(connection)
            connection.sendall(2 * frame(opcode, payload, mask=None))

    with Scripted(script) as scripted:
        assert list(c1m.load(scripted.ws, connections=1, messages=10).errors) == ["wrong echo"]


@pytest.mark.parametrize(("end", "error"), [("cut", "cut off"), ("reset", "reset")])
def test_a_connection_that_ends(end, error):
    def answer(connection):
        if end == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    def script(connection):
        upgraded(connection)
        echoed(connection, 1)
        taken(connection)
        answer(connection)

    def half(connection):
        head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        answer(connection)

    with Scripted(script) as scripted:
        assert list(c1m.load(scripted.ws, connections=1, messages=10).errors) == [error]
    with Scripted(half) as scripted:
        result = c1m.load(scripted.http, connections=1, messages=10)
        assert list(result.errors) == [error]
        assert result.answered == 0


@pytest.mark.parametrize("answer", [b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"\x00\xff"])
def test_garbage(answer):
    def script(connection):
        head(connection)
        connection.sendall(answer)
        with contextlib.suppress(ConnectionError):
            take(connection, 1)

    with Scripted(script) as scripted:
        [error] = c1m.load(scripted.http, connections=1, messages=10).errors
        assert error == "broken protocol (a response that is not HTTP/1.1)"
        result = c1m.load(scripted.ws, connections=2)
        assert result.errors == {"broken protocol (what answers the handshake is not HTTP)": 2}


def test_a_response_to_no_request():
    def script(connection):
        head(connection)
        connection.sendall(2 * b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            take(connection, 1 << 20)

    with Scripted(script) as scripted:
        [error] = c1m.load(scripted.http, connections=1, messages=2).errors
        assert error == "broken protocol (a response to no request)"


def test_a_handshake_refused(server):
    assert c1m.load(ws(server, "/nowhere"), connections=3).errors == {"handshake refused with status 404": 3}


def test_a_handshake_that_answers_another_key():
    def script(connection):
        head(connection)
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                           b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            take(connection, 1)

    with Scripted(script) as scripted:
        [error] = c1m.load(scripted.ws, connections=1).errors
        assert error == "broken protocol (Sec-WebSocket-Accept does not answer our key)"


def test_compression_that_is_not_agreed_on(server):
    assert c1m.load(ws(server), connections=2, compression=True).errors == {"no compression": 2}


def test_statuses_that_are_errors(server):
    result = c1m.load([http(server), http(server, "/nowhere")], connections=1, messages=10)
    assert (result.statuses, result.errors) == ({200: 5, 404: 5}, {"status 404": 5})


def test_a_server_that_does_not_answer():
    def script(connection):
        with contextlib.suppress(ConnectionError):
            take(connection, 1 << 20)

    with Scripted(script) as scripted:
        assert c1m.load(scripted.ws, connections=2, timeout=0.1).errors == {"timed out": 2}
        result = c1m.load(scripted.http, connections=1, timeout=0.1, duration=PATIENCE)
        assert list(result.errors) == ["timed out"]
        result = c1m.load(scripted.http, connections=1, timeout=0.3, duration=0.05, rate=100)
        assert result.errors.keys() <= {"timed out", "unanswered"}
        assert result.errors["unanswered"] == 5


# ---- a server that freezes ----

STALLED = 40                     # messages of TOTAL that an open loop has sent meanwhile
TOTAL = 400


def freezing(stall):
    """A server that echoes, and once, after 50 messages, does nothing for a while."""
    def script(connection):
        upgraded(connection)
        echoed(connection, 50)
        stall(connection)
        echoed(connection, TOTAL - 50)
        take(connection, 1)

    return Scripted(script)


def unread(connection):
    return len(connection.recv(1 << 16, socket.MSG_PEEK))


def test_the_open_loop_shows_a_freeze_and_the_closed_loop_hides_it():
    """It lasts for a tenth of the messages that are due. By then the first of these has waited for their whole time."""
    rate = 400
    with freezing(lambda connection: until(lambda: unread(connection) >= STALLED * 26, "the load to go on")) as server:
        result = c1m.load(server.ws, connections=1, messages=TOTAL, rate=rate)
    assert result.answered == TOTAL
    wait = (STALLED - TOTAL // 100 - 1) / rate
    assert result.latency.percentiles["p99"] >= wait
    assert result.client_was_the_limit is False

    with freezing(lambda connection: time.sleep(2 * wait)) as server:
        result = c1m.load(server.ws, connections=1, messages=TOTAL)
    assert result.answered == TOTAL
    assert result.latency.most >= 2 * wait
    assert result.latency.percentiles["p99"] < wait


# ---- Python ----


def test_what_results(server):
    result = loaded(ws(server), messages=None, duration=0.1)
    said = json.loads(result.to_json())
    assert said["urls"] == [ws(server)]
    assert said["answered"] == result.answered
    assert said["client_was_the_limit"] is result.client_was_the_limit
    assert said["latency"]["percentiles"]["p99"] == result.latency.percentiles["p99"]
    assert [tuple(each) for each in said["latency"]["histogram"]] == result.latency.histogram
    assert len(result.busy) == 1
    assert 0 < result.busy[0] <= 1.1


@pytest.mark.parametrize(("busy", "limit"), [([0.94, 0.1], False), ([0.1, 0.95], True), ([], False)])
def test_when_the_load_was_the_limit(busy, limit):
    result = c1m.LoadResult([], "closed", 1.0, 1, 1, 1, 1, 0, 1.0, 1, 1, c1m.Latencies(), {}, {}, busy)
    assert result.client_was_the_limit is limit


@pytest.mark.parametrize(("url", "told"), [
    ("localhost", "'localhost' is not a URL"), ("ftp://localhost/", "is not a URL"), ("ws://", "is not a URL"),
    ("ws://localhost:port/", "is not a URL"), ("ws://localhost:70000/", "is not a URL"),
    ("wss://localhost/", "no TLS yet: use ws://"), ("https://localhost/", "no TLS yet: use http://"),
    ("http://me:secret@localhost/", "user name"), ("http://localhost/a b", "escaped"),
    ("http://localhost/ü", "escaped"), ("unix:", "is not unix:PATH"), ("unix:" + "x" * 108, "is not unix:PATH"),
    ([], "none given"), (["ws://127.0.0.1/", "http://127.0.0.1/"], "WebSocket and HTTP in one load"),
])
def test_what_is_no_url(url, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        c1m.load(url)


@pytest.mark.parametrize(("options", "told"), [
    ({"connections": 0}, "connections: 0 is not between"), ({"rate": 0}, "rate: 0 is not above 0"),
    ({"duration": 0}, "duration: 0"), ({"depth": 0}, "depth: 0"), ({"depth": 65537}, "depth: 65537"),
    ({"processes": 0}, "0 is not between"), ({"processes": "all"}, "processes: 'all'"),
    ({"headers": {"Host": "x"}}, "headers: Host is said by the load itself"),
    ({"headers": {"X": "a\r\nb"}}, "headers: the value of X"), ({"headers": {"X Y": "a"}}, "not a field name"),
    ({"pipeline": 2}, "pipeline: for HTTP only, and this is ws://"), ({"method": "CONNECT"}, "method: CONNECT"),
    ({"publish": 1}, "publish: nobody receives"), ({"subscribe": True, "rate": 1}, "subscribe: not together with rate"),
    ({"subscribe": True, "publish": 1, "size": 19}, "size: "), ({"idle": True, "new": True}, "idle: not together"),
    ({"new": True, "depth": 2}, "new: "), ({"text": True, "message": b"\xff"}, "message: text that is not UTF-8"),
])
def test_wrong_options(options, told):
    with pytest.raises((ValueError, TypeError), match=re.escape(told)):
        c1m.load("ws://127.0.0.1:1/", **options)


@pytest.mark.parametrize("options", [{"size": 30}, {"depth": 2}, {"text": True}, {"idle": True}, {"subscribe": True}])
def test_what_http_has_not(options):
    with pytest.raises(ValueError, match=r"WebSocket only, and this is http://"):
        c1m.load("http://127.0.0.1:1/", **options)


def test_a_host_that_is_none():
    with pytest.raises(c1m.LoadError, match=r"nowhere\.invalid"):
        c1m.load("ws://nowhere.invalid/")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        c1m.load("ws://127.0.0.1:1/", message=tmp_path / "nowhere")


def test_more_connections_than_a_process_can_have():
    script = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
import c1m
try:
    c1m.load(sys.argv[2], connections=400, processes=1)
except c1m.LoadError as error:
    print(error)
result = c1m.load(sys.argv[2], connections=400, messages=400)
print(len(result.busy), result.connections, result.errors)
"""
    with Process(websockets={"/ws": {}}) as server, Program(script, ws(server)) as made:
        assert "192 connections" in made.line()
        assert made.line() == "3 400 {}"


# ---- the command ----


def ended(*arguments):
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE)
    return done.stdout, done.stderr, done.returncode


def test_a_report(server, tmp_path):
    chart, result = tmp_path / "chart.svg", tmp_path / "result.json"
    out, errors, status = ended(
        ws(server), "--connections", 3, "--messages", 50, "--json", result, "--plot", chart,
    )
    assert status == 0, errors
    assert out.startswith(f"{ws(server)}, ")
    for said in ("50 of 50 sent", "3 opened", "p99.99", "errors        none", "Closed loop: "):
        assert said in out
    assert max(map(len, out.splitlines())) <= 100
    assert json.loads(result.read_text())["answered"] == 50
    assert "<svg" in chart.read_text()


def test_errors_in_the_load_are_named_and_change_the_status(server):
    out, _, status = ended(http(server, "/nowhere"), "--connections", 1, "--messages", 7, "--quiet")
    assert status == 1
    assert "7   status 404\n" in out


def test_json_alone_on_standard_output(server):
    out, errors, status = ended(http(server), "--messages", 9, "--json", "-", "--quiet")
    assert (json.loads(out)["statuses"], errors, status) == ({"200": 9}, "", 0)


@pytest.mark.parametrize(("arguments", "told", "status"), [
    ([], "url: none given", 2), (["nonsense"], "'nonsense' is not a URL", 2), (["wss://x/"], "no TLS yet", 2),
    (["ws://127.0.0.1:1/", "--rate", "fast"], "--rate: 'fast'", 2),
    (["ws://127.0.0.1:1/", "--nonsense"], "nonsense", 2),
    (["ws://127.0.0.1:1/", "--plot", "chart.pdf"], "--plot: 'chart.pdf' is neither .svg nor .png", 2),
    (["ws://127.0.0.1:1/", "--message", "/nowhere/at/all"], "--message: No such file", 2),
    (["ws://127.0.0.1:1/", "--urls", "/nowhere/at/all"], "/nowhere/at/all", 2),
    (["ws://nowhere.invalid/"], "nowhere.invalid", 1),
])
def test_a_mistake_is_told_in_a_line(arguments, told, status):
    out, errors, actual = ended(*arguments)
    assert (out, actual) == ("", status)
    [error] = [line for line in errors.splitlines() if line.startswith("Error: ")]
    assert told in error
    assert errors.endswith(error + "\n")
    assert "Traceback" not in errors


def test_a_refused_port_is_told_in_a_line():
    url = f"http://127.0.0.1:{refused_port()}/"
    told = f"Error: {url}: no connection could be opened: refused\n"
    assert ended(url, "--duration", 1, "--quiet") == ("", told, 1)


def test_urls_of_a_file(server, tmp_path):
    listed = tmp_path / "urls"
    listed.write_text(f"# two\n{http(server)}\n\n{http(server, '/b.txt')}\n")
    out, errors, status = ended("--urls", listed, "--messages", 10)
    assert status == 0, errors
    assert "and 1 more" in out


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(each) for each in file.read().split()]


def gone(pid):
    """Whether it has ended, though perhaps nobody has asked for its status yet."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@contextlib.contextmanager
def running(*arguments):
    """A command that loads, and answers have come."""
    with subprocess.Popen([*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as process:
        try:
            while not re.search(r" s   .* connected   [1-9]", line := process.stderr.readline()):
                assert line, "it has ended"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_what_there_is(server, number):
    with running(ws(server), "--duration", "1h", "--processes", 2) as process:
        children = children_of(process.pid)
        assert len(children) == 2
        process.send_signal(number)
        out, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
    assert "ended early" in out
    assert "errors        none" in out
    until(lambda: all(map(gone, children)), "its processes to end")


def test_nothing_is_left_when_it_is_killed(server):
    with running(ws(server), "--duration", "1h", "--processes", 2) as process:
        children = children_of(process.pid)
        process.kill()
        until(lambda: all(map(gone, children)), "its processes to end")


def test_a_process_that_dies_is_told(server):
    with running(ws(server), "--duration", "1h") as process:
        os.kill(children_of(process.pid)[0], signal.SIGKILL)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "Error: a process of the load has failed" in errors
    assert "Traceback" not in errors


def test_a_live_view_on_a_terminal(server):
    ours, theirs = os.openpty()
    with subprocess.Popen([*COMMAND, ws(server), "--duration", "0.8"], stdout=subprocess.PIPE, stderr=theirs,
                          text=True, env={**os.environ, "TERM": "xterm"}) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):
            while select.select([ours], [], [], PATIENCE)[0] and (some := os.read(ours, 1 << 16)):
                shown += some
        os.close(ours)
        out = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 0
    assert b"connected" in shown
    assert b"p99.9" in shown
    assert "p99.9" in out
