"""A deadline falls only when what had come before it has been read, however long the server was kept from reading."""

import contextlib
import os
import queue
import resource
import signal
import time

import pytest
from client import PATIENCE, Http, Program, WebSocket, connected, get, handshake, request, until
from wire import BINARY, PING, PONG, TEXT, frame

import c1m

CROWD = 1500                     # clients: some times as many as the server asks the kernel for at once
SERVER = """
import time
import c1m

class Late:
    def on_upgrade(self, request):
        time.sleep(1.0)

def block(ws, message):
    time.sleep(float(message))
    ws.send(message)

server = c1m.Server(ports=[0], head_timeout=1.5, keep_alive_timeout=0.5, shutdown_timeout=0.5)
server.websocket("/block", block, idle_timeout=60)
server.websocket("/late", Late(), idle_timeout=60)
server.websocket("/echo", idle_timeout=60)
server.websocket("/pings", idle_timeout=3, ping_interval=1.5)
with server:
    print(server.ports[0], flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def served():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < CROWD + 1000:
        pytest.skip("too few descriptors for a crowd")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with Program(SERVER) as made:
        made.port = int(made.line())
        yield made


@contextlib.contextmanager
def stopped(served, seconds):
    """The process does nothing meanwhile, and then for so long."""
    os.kill(served.pid, signal.SIGSTOP)
    try:
        yield
        time.sleep(seconds)
    finally:
        os.kill(served.pid, signal.SIGCONT)


@pytest.mark.parametrize("how", ["stopped", "blocked"])
def test_requests_that_came_before_their_deadline_are_answered(served, how):
    with contextlib.ExitStack() as stack:
        blocker = stack.enter_context(WebSocket(served.port, "/block"))
        crowd = [stack.enter_context(Http(served.port)) for _ in range(CROWD)]
        stack.enter_context(Http(served.port)).get("/")          # by now all are accepted
        if how == "stopped":
            with stopped(served, 2):
                for http in crowd:
                    http.send(request())
        else:
            blocker.send(frame(TEXT, b"2.5"))
            for http in crowd:
                http.send(request())
        assert [http.answer().status for http in crowd] == [404] * CROWD


def test_pongs_that_came_before_their_deadline_count(served):
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(WebSocket(served.port, "/pings")) for _ in range(CROWD)]
        for ws in crowd:
            assert ws.frame()[1] == PING
        with stopped(served, 2):
            for ws in crowd:
                ws.send(frame(PONG))
        for ws in crowd:
            assert ws.frame()[1] == PING


def test_who_did_not_answer_before_the_deadline_is_given_up_all_the_same(served):
    with WebSocket(served.port, "/pings") as ws, WebSocket(served.port, "/pings") as other:
        assert ws.frame()[1] == other.frame()[1] == PING
        with stopped(served, 2):
            other.send(frame(PONG))
        assert ws.closing() == 1011
        assert other.frame()[1] == PING


def test_a_deadline_runs_from_when_it_is_set_though_a_handler_blocked_just_before(served):
    """The handshake comes first, the other's request in the same look at the kernel."""
    with Http(served.port) as late, Http(served.port) as other:
        assert late.get("/").status == other.get("/").status == 404
        with stopped(served, 0):
            late.send(handshake("/late"))
            other.send(request())
        assert other.answer().status == 404
        assert get(served.port).status == 404        # and so it looks at its clock
        assert other.get("/").status == 404


def test_requests_that_came_before_the_end_are_answered(served):
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(Http(served.port)) for _ in range(CROWD)]
        stack.enter_context(Http(served.port)).get("/")
        with stopped(served, 0.3):
            for http in crowd:
                http.send(request())
            served.say("stop")
        assert [http.answer().status for http in crowd] == [404] * CROWD
        for http in crowd:
            assert http.rest() == b""
        assert served.ended()[0] == 0


def test_requests_of_clients_that_were_not_accepted_before_the_end_are_answered(served):
    with contextlib.ExitStack() as stack:
        with stopped(served, 0.1):
            served.say("stop")
            crowd = [stack.enter_context(Http(served.port)) for _ in range(50)]
            for http in crowd:
                http.send(request())
        assert [http.answer().status for http in crowd] == [404] * 50
        assert served.ended()[0] == 0


def test_the_end_comes_when_its_time_is_up_though_a_handler_blocks(served):
    """And what had come by then is dealt with."""
    with WebSocket(served.port, "/block") as blocker, WebSocket(served.port, "/echo") as other:
        assert other.echo(b"x") == (BINARY, b"x")
        blocker.send(frame(TEXT, b"1.5"))
        served.say("stop")
        other.send(frame(BINARY, b"y"))
        assert other.message() == (BINARY, b"y")
        assert other.closing() == 1001
        assert served.ended()[0] == 0


@pytest.mark.parametrize("data", [b"", request("/", "Content-Length: 1000000", method="POST")])
def test_who_never_stops_sending_is_cut_off_when_its_time_is_up(served, data):
    """However much of it always waits to be read."""
    with connected(served.port) as flood, contextlib.suppress(ConnectionError):
        flood.sendall(data or request(method="X" * 9000))
        while True:
            flood.sendall(bytes(1 << 16))


# ---- who is alive ----


class Sends:
    """Sends a message of so many bytes, in pieces of which no queue is left once the kernel has room."""

    def on_message(self, ws, message):
        ws.send(bytes(int(message)))


def slowly(ws, n, seconds):
    """Reads n bytes, evenly spread over so many seconds."""
    begun, got = time.monotonic(), 0
    while got < n:
        due = int(n * min((time.monotonic() - begun) / seconds, 1))
        if got < due:
            got += len(ws.socket.recv(due - got))
        time.sleep(0.01)


@pytest.mark.parametrize("handler", ["a handler", "the echo"])
@pytest.mark.parametrize("unix", [False, True], ids=["TCP", "Unix"])
def test_a_slow_but_steady_reader_is_alive_though_our_ping_lies_behind_data(tmp_path, handler, unix):
    path = tmp_path / "socket"
    server = c1m.Server(ports=[0], unix=path)
    settings = {"idle_timeout": 1.2, "max_message": 4 << 20, "max_send_queue": 4 << 20}
    server.websocket("/ws", Sends() if handler == "a handler" else None, **settings)
    with server, WebSocket(path if unix else server.ports[0], receive_buffer=1 << 15) as ws:
        n = (150 << 10) if unix else (3 << 20)       # what the kernel takes at once
        ws.send(frame(TEXT, b"%d" % n) if handler == "a handler" else frame(BINARY, bytes(n)))
        slowly(ws, 10 + n, 1.8 if unix else 4)
        assert ws.frame()[1] == PING
        ws.send(frame(PONG))
        assert ws.frame()[1] == PING


def test_who_has_stopped_reading_is_given_up():
    server = c1m.Server(ports=[0])
    server.websocket("/ws", Sends(), idle_timeout=1.2)
    with server, WebSocket(server.ports[0], receive_buffer=1 << 15) as ws:
        ws.send(frame(TEXT, b"300000"))
        until(lambda: server.stats()["websockets"] == 0, "it to be given up")
        ws.drained()


def test_a_steady_reader_of_a_stream_is_alive_though_as_much_is_always_on_its_way():
    """What the kernel holds does not become less, only other bytes."""
    opened = queue.SimpleQueue()

    class Streams:
        def on_open(self, ws):
            opened.put(ws)

    server = c1m.Server(ports=[0])
    server.websocket("/ws", Streams(), idle_timeout=1.2, max_send_queue=8 << 20)
    with server, WebSocket(server.ports[0], receive_buffer=1 << 15) as client:
        ws = opened.get(timeout=PATIENCE)
        ws.send(bytes(1 << 20))
        end = time.monotonic() + 4
        while time.monotonic() < end:
            ws.send(bytes(10_000))
            assert client.socket.recv(10_000)
            time.sleep(0.02)
        assert not ws.closed
