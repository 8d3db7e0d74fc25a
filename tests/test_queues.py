"""What waits for slow readers, and what other threads ask for: order, bounds, and who is woken."""

import contextlib
import itertools
import os
import random
import resource
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest
import websockets.sync.client
from client import PATIENCE, WebSocket, connected, handshake, losses, until
from test_handlers import MIB, Recorder, open_pair, serving
from wire import BINARY, CLOSE, PING, PONG, TEXT, close, frame

import c1m

OFFER = "Sec-WebSocket-Extensions: permessage-deflate"
SMALL_BUFFER = 4096


def stuffed(ws, n=16 * MIB):
    """Sends so much that the kernel can't hold it, and waits until some is left to be sent."""
    ws.send(bytes(n))
    until(lambda: 0 < ws.buffered < n, "the kernel to take what it can")


class Subscribed(Recorder):
    def on_open(self, ws):
        ws.subscribe("t")
        super().on_open(ws)


class Pauses(Recorder):
    """Takes one message at a time: paused before the test hears of it, and so before it can resume."""

    def on_message(self, ws, message):
        ws.pause()
        super().on_message(ws, message)


# ---- what other threads ask for ----


def test_a_server_may_go_while_publishes_wait():
    for _ in range(50):
        server = c1m.Server(ports=[0])
        with server:
            for _ in range(300):
                server.publish("t", "x")
        del server


def test_what_was_published_before_the_end_arrives_before_1001():
    for _ in range(40):
        recorder = Subscribed()
        server = c1m.Server(ports=[0], shutdown_timeout=0.05)
        server.websocket("/ws", recorder)
        with server:
            client = WebSocket(server.ports[0])
            recorder.next("open")
            for i in range(30):
                server.publish("t", str(i))
        with client:
            got = [client.frame() for _ in range(31)]
        assert [payload for _, _, payload in got[:30]] == [b"%d" % i for i in range(30)]
        assert got[30][1:] == (CLOSE, (1001).to_bytes(2, "big") + b"server stopping")


def test_a_thread_that_asks_for_more_than_can_be_done_is_slowed_down_but_not_stopped():
    """Here the reactor's thread waits for the very thread that is to be slowed down."""
    published = threading.Event()

    class Waits(Subscribed):
        def on_message(self, ws, message):
            assert published.wait(PATIENCE)

    recorder = Waits()
    with serving(recorder, max_send_queue=16 * MIB) as server, WebSocket(server.port) as client:
        recorder.next("open")
        client.send(frame(TEXT, b"block"))
        for i in range(40):
            server.publish("t", i.to_bytes(1, "big") * 110_000)
        published.set()
        for i in range(40):
            assert client.message() == (BINARY, i.to_bytes(1, "big") * 110_000)


def test_a_flood_of_publishes_leaves_others_their_turn():
    stop = threading.Event()

    def flood():
        with contextlib.suppress(RuntimeError):
            while not stop.is_set():
                server.publish("t", "x" * 100)

    recorder = Subscribed()
    server = c1m.Server(ports=[0], shutdown_timeout=0.1)
    server.websocket("/ws", recorder, when_slow="drop-newest", max_send_queue=10_000)
    server.websocket("/echo")
    with server:
        clients = [WebSocket(server.ports[0]) for _ in range(50)]
        for _ in clients:
            recorder.next("open")
        thread = threading.Thread(target=flood)
        thread.start()
        try:
            with WebSocket(server.ports[0], "/echo") as other:
                for _ in range(5):
                    assert other.echo(b"still there") == (BINARY, b"still there")
        finally:
            stop.set()
            thread.join()
        for client in clients:
            client.close()


def test_the_last_of_pause_and_resume_counts_whatever_thread_it_came_from():
    def on_message(ws, message):
        thread = threading.Thread(target=ws.pause)
        thread.start()
        thread.join()
        ws.resume()
        ws.send(message)

    with serving(on_message) as server, WebSocket(server.port) as client:
        for _ in range(3):
            assert client.echo(b"again") == (BINARY, b"again")


def test_a_thread_that_publishes_faster_than_can_be_sent_loses_nothing():
    recorder = Subscribed()
    with serving(recorder, max_send_queue=1 << 30) as server, WebSocket(server.port) as client:
        recorder.next("open")
        thread = threading.Thread(
            target=lambda: [server.publish("t", i.to_bytes(2, "big") * 50_000) for i in range(400)],
        )
        thread.start()
        for i in range(400):
            assert client.message() == (BINARY, i.to_bytes(2, "big") * 50_000)
        thread.join(PATIENCE)
        assert not thread.is_alive()


class Blocks(Subscribed):
    """Whose on_message keeps the server's thread until it is released."""

    def __init__(self):
        super().__init__()
        self.released = threading.Event()

    def on_message(self, ws, message):
        super().on_message(ws, message)
        assert self.released.wait(PATIENCE)


def overwhelmed(server, recorder, client):
    """Blocks the server's thread, and asks for more than may wait."""
    recorder.next("open")
    client.send(frame(TEXT, b"block"))
    recorder.next("message")
    for _ in range(42):          # 4 MiB, and a little more
        server.publish("t", bytes(100_000))


def test_a_thread_that_is_slowed_down_sleeps():
    """It does not look again and again whether it may go on."""
    recorder = Blocks()
    with serving(recorder, max_send_queue=1 << 30) as server, WebSocket(server.port) as client:
        try:
            overwhelmed(server, recorder, client)
            before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
            server.publish("t", "x")
            assert resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before < 20
        finally:
            recorder.released.set()


def test_the_server_may_stop_while_threads_are_slowed_down():
    def publish():
        with pytest.raises(RuntimeError, match=r"^this server is not running: publish while run\(\), `with "):
            while True:
                server.publish("t", bytes(100_000))

    recorder = Blocks()
    threads = [threading.Thread(target=publish) for _ in range(3)]
    server = c1m.Server(ports=[0], shutdown_timeout=0.1)
    server.websocket("/ws", recorder)
    with server, WebSocket(server.ports[0]) as client:
        try:
            overwhelmed(server, recorder, client)
            for thread in threads:
                thread.start()
            server.stop()
        finally:
            recorder.released.set()
        client.drained()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


# ---- who reads, and who does not ----


def test_a_reader_who_was_behind_once_gets_what_comes_later():
    """Output that stalls and leaves within the same turn must not count as stalled from then on."""
    release = threading.Event()

    class Publisher:
        def on_message(self, ws, message):
            for _ in range(600):
                ws.publish("t", b"x" * 17_000)
            release.wait(PATIENCE)

    recorder = Subscribed()
    server = c1m.Server(ports=[0])
    server.websocket("/ws", recorder, when_slow="drop-oldest")
    server.websocket("/publish", Publisher())
    with server, WebSocket(server.ports[0]) as reader, WebSocket(server.ports[0], "/publish") as publisher:
        recorder.next("open")
        publisher.send(frame(TEXT, b"go"))
        for _ in range(100):      # that have left while the turn goes on
            assert reader.message() == (BINARY, b"x" * 17_000)
        release.set()
        for later in (b"one", b"two"):
            server.publish("t", later)
            while reader.message()[1] != later:
                pass


@pytest.mark.parametrize("when_slow", ["drop-oldest", "drop-newest", "latest"])
def test_a_slow_readers_own_messages_are_heard(when_slow):
    settings = {"when_slow": when_slow, "max_send_queue": 64 * MIB}
    with open_pair(Subscribed(), SMALL_BUFFER, **settings) as (_, recorder, client, ws):
        stuffed(ws)
        client.send(frame(TEXT, b"one") + frame(TEXT, b"two"))
        assert [recorder.next("message") for _ in range(2)] == ["one", "two"]
        client.send(close(4000))
        assert client.message() == (BINARY, bytes(16 * MIB))
        assert client.closing() == 4000
        assert recorder.next("close") == (4000, "")


@pytest.mark.parametrize("when_slow", ["close", "drop-oldest", "drop-newest", "latest"])
def test_an_empty_message_waits_for_a_slow_reader_like_any_other(when_slow):
    settings = {"when_slow": when_slow, "max_send_queue": 64 * MIB}
    with open_pair(Subscribed(), SMALL_BUFFER, **settings) as (server, _, client, ws):
        stuffed(ws)
        for empty in ("", b""):
            ws.send(empty)
            server.publish("t", empty)
        assert client.message() == (BINARY, bytes(16 * MIB))
        sent = [(TEXT, b""), (TEXT, b""), (BINARY, b""), (BINARY, b"")]
        if when_slow == "latest":
            del sent[1]          # of which the topic's next takes the place
        assert [client.message() for _ in sent] == sent
        assert client.silent()
        assert losses(server) == {"dropped": 4 - len(sent), "closed_slow": 0, "no_subprotocol": 0}


def test_a_header_that_comes_in_two_is_read_while_output_waits():
    settings = {"when_slow": "drop-newest", "max_send_queue": 64 * MIB}
    with open_pair(Subscribed(), SMALL_BUFFER, **settings) as (server, recorder, client, ws):
        stuffed(ws)
        for message in (b"one", b"two"):
            first, *rest = frame(TEXT, message)
            received = server.stats()["bytes_received"]
            client.send(bytes([first]))
            until(lambda received=received: server.stats()["bytes_received"] == received + 1, "half a header")
            client.send(bytes(rest))
            assert recorder.next("message") == message.decode()


def test_resume_is_heard_while_output_waits():
    settings = {"when_slow": "drop-newest", "max_send_queue": 64 * MIB}
    with open_pair(Pauses(), SMALL_BUFFER, **settings) as (_, recorder, client, ws):
        stuffed(ws)
        client.send(frame(TEXT, b"one") + frame(TEXT, b"two") + frame(TEXT, b"three"))
        for expected in ("one", "two", "three"):
            assert recorder.next("message") == expected
            ws.resume()


def test_reading_goes_on_before_the_client_has_read_all():
    """Where a full backlog closes, nothing is read while much of it waits; but not all of it must have left."""
    with open_pair(Recorder(), SMALL_BUFFER, max_send_queue=64 * MIB) as (_, recorder, client, ws):
        stuffed(ws)
        client.send(frame(TEXT, b"heard"))
        while ws.buffered > 100_000:
            client.take(10_000)
        assert recorder.next("message") == "heard"


def test_a_client_that_goes_while_it_is_paused_is_noticed():
    with open_pair(Pauses(), idle_timeout=0.4) as (_, recorder, client, _):
        client.send(frame(TEXT, b"x") + frame(TEXT, b"never heard"))
        recorder.next("message")
        client.close()
        assert recorder.next("close") == (1006, "")


def test_a_client_that_stays_while_it_is_paused_is_pinged_and_kept():
    with open_pair(Pauses(), idle_timeout=0.4) as (_, recorder, client, ws):
        client.send(frame(TEXT, b"x"))
        recorder.next("message")
        for _ in range(3):
            assert client.frame() == (True, PING, b"")
        client.send(frame(TEXT, b"y"))
        ws.resume()
        assert recorder.next("message") == "y"


def test_many_small_messages_weigh_what_they_take():
    """Memory is what a backlog is about: a message of one byte takes a hundred."""
    with open_pair(None, SMALL_BUFFER, when_slow="drop-newest", max_send_queue=8 * MIB) as (server, _, _, ws):
        stuffed(ws, 5 * MIB)
        before = ws.buffered
        for _ in range(200_000):
            ws.send("x")
        until(lambda: server.stats()["routes"]["/ws"]["dropped"] > 0, "the backlog to be full")
        with WebSocket(server.port) as last:       # what was asked for before is done before
            last.send(frame(PING, b"x"))
            assert last.frame() == (True, PONG, b"x")
        assert ws.buffered < before + 300_000


def test_a_backlog_counts_compressed():
    recorder = Recorder()
    with (
        serving(recorder, compression="shared", max_send_queue=24 * MIB) as server,
        WebSocket(server.port, receive_buffer=SMALL_BUFFER, opening=handshake("/ws", OFFER)),
    ):
        ws = recorder.next("open")
        ws.send(random.Random(1).randbytes(16 * MIB))
        until(lambda: ws.buffered, "some of it to wait")
        for _ in range(20):
            ws.send(bytes(2 * MIB))                # 2 KB on the wire
        with WebSocket(server.port) as last:
            last.send(frame(PING, b"x"))
            assert last.frame() == (True, PONG, b"x")
        assert losses(server) == {"dropped": 0, "closed_slow": 0, "no_subprotocol": 0}


@pytest.mark.parametrize("compression", ["shared", "dedicated"])
@pytest.mark.parametrize("when_slow", ["drop-newest", "drop-oldest", "latest"])
def test_what_is_dropped_takes_nothing_with_it(when_slow, compression):
    """No message that arrives may build on one that was dropped."""
    words = ["".join(random.Random(i).choices("abcdefghij", k=9)) for i in range(3000)]
    generator = random.Random(2)
    recorder = Subscribed()
    with serving(recorder, when_slow=when_slow, compression=compression, max_send_queue=50_000) as server:
        client = websockets.sync.client.connect(
            f"ws://127.0.0.1:{server.port}/ws", sock=connected(("127.0.0.1", server.port), SMALL_BUFFER), max_queue=1,
            ping_interval=None, max_size=None,
        )
        ws = recorder.next("open")
        with client:
            sent = set()
            for i in itertools.count():
                text = f"{i} " + " ".join(generator.choices(words, k=300))
                sent.add(text)
                server.publish("t", text)
                if server.stats()["routes"]["/ws"]["dropped"] > 200:
                    break
            got = 0
            while ws.buffered:
                assert client.recv(PATIENCE) in sent
                got += 1
            server.publish("t", "end")
            while (text := client.recv(PATIENCE)) != "end":
                assert text in sent
                got += 1
            assert got > 5


def test_latest_keeps_what_waits_of_a_topic_that_is_no_more():
    recorder = Recorder()
    with open_pair(recorder, SMALL_BUFFER, when_slow="latest", max_send_queue=64 * MIB) as (server, _, client, ws):
        stuffed(ws)
        for topic in "AB":
            ws.subscribe(topic)
            until(lambda topic=topic: server.subscribers(topic) == 1, "the subscription")
            server.publish(topic, f"the only message of {topic}")
            ws.unsubscribe(topic)
            until(lambda topic=topic: server.subscribers(topic) == 0, "its end")
        client.message()
        assert [client.message()[1] for _ in range(2)] == [b"the only message of A", b"the only message of B"]
        assert server.stats()["routes"]["/ws"]["dropped"] == 0


# ---- one system call ----


@pytest.mark.parametrize("what", ["plain", "ping", "big", "publish", "close", "zip"])
def test_all_that_a_message_makes_a_handler_send_leaves_together(what):
    """In one segment, then, as far as a segment goes: the client gets it whole by its first recv."""
    class Handler:
        def on_open(self, ws):
            ws.subscribe("t")

        def on_message(self, ws, message):
            ws.send("a" * 200)
            if what == "ping":
                ws.ping()
            elif what == "big":
                ws.send(bytes(20_000))
            elif what == "publish":
                server.publish("t", "p")
            elif what == "close":
                ws.close(4000)
                return
            for _ in range(100):
                ws.send("b")

    with serving(Handler(), compression="shared") as server:
        opening = handshake("/ws", OFFER) if what == "zip" else None
        with WebSocket(server.port, opening=opening) as client:
            client.send(frame(TEXT, b"go"))
            client.socket.recv(1)
            rest = len(client.socket.recv(1 << 20))
            client.socket.setblocking(False)
            with pytest.raises(BlockingIOError):
                client.socket.recv(1)
            assert rest > (100 if what == "zip" else 200)


# ---- how it ended ----


@pytest.mark.parametrize("how", ["reset", "closed"])
def test_on_close_tells_our_code_where_the_client_names_none(how):
    with open_pair() as (_, recorder, client, ws):
        ws.close(4000, "bye")
        assert client.frame()[1] == CLOSE
        client.reset() if how == "reset" else client.close()
        assert recorder.next("close") == (4000, "bye")


def test_on_close_tells_the_clients_code_where_it_names_another():
    with open_pair() as (_, recorder, client, ws):
        ws.close(4000, "bye")
        assert client.frame()[1] == CLOSE
        client.send(close(3001, b"theirs"))
        assert recorder.next("close") == (3001, "theirs")


def test_on_close_tells_1001_where_the_server_left_and_the_client_did_not_answer():
    recorder = Recorder()
    server = c1m.Server(ports=[0], shutdown_timeout=0.1)
    server.websocket("/ws", recorder)
    with server:
        client = WebSocket(server.ports[0])
        recorder.next("open")
    assert recorder.next("close") == (1001, "server stopping")
    client.close()


# ---- the WebSocket as an object ----


def test_a_websocket_is_made_by_the_server_only():
    for make in (c1m.WebSocket, lambda: c1m.WebSocket.__new__(c1m.WebSocket)):
        with pytest.raises(TypeError, match=r"^a WebSocket is made by the server$"):
            make()


def test_a_websocket_can_be_referred_to_weakly_and_told_apart():
    with open_pair() as (server, _, _, ws):
        assert ws in weakref.WeakSet([ws])
        assert repr(ws) == "<c1m.WebSocket /ws of 127.0.0.1>"
        assert server.stats()["websockets"] == 1


def test_a_reject_that_was_changed_to_what_cannot_be_sent_is_500(caplog):
    class Handler:
        def on_upgrade(self, request):
            reject = c1m.Reject(403, "no")
            reject.body = bytes(8 * MIB)
            return reject

    with serving(Handler()) as server, connected(("127.0.0.1", server.port)) as client:
        client.sendall(handshake("/ws"))
        assert client.recv(12) == b"HTTP/1.1 500"
    assert "a Reject was changed" in caplog.text


# ---- a process in which things are not as they should be ----

_PRELUDE = "import sys; sys.path.insert(0, sys.argv[1])\n"


@pytest.mark.parametrize("script", [
    pytest.param("""
import signal, socket, struct, tempfile, time, c1m
from client import connected, request
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
with tempfile.TemporaryDirectory() as root:
    with open(root + "/big", "wb") as file:
        file.truncate(200 << 20)
    with c1m.Server(root, ports=[0]) as server:
        for _ in range(10):
            with connected(("127.0.0.1", server.ports[0])) as client:
                client.sendall(request("/big"))
                for _ in range(5):
                    client.recv(1 << 20)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
""", id="SIGPIPE is at its default"),
    pytest.param("""
import os, socket, c1m
from client import handshake
from wire import TEXT, frame

class Handler:
    def on_message(self, ws, message):
        ws.subscribe("t")
        ws.send(repr(ws.closed))

server = c1m.Server(ports=[0])
server.websocket("/ws", Handler())
with server:
    client = socket.socket()
    port = server.ports[0]
    os.close(0)                  # what is accepted next gets the descriptor
    client.connect(("127.0.0.1", port))
    client.sendall(handshake("/ws") + frame(TEXT, b"x"))
    got = b""
    while not got.endswith(b"False"):
        got += client.recv(1000) or sys.exit(got)
""", id="a client has descriptor 0"),
    pytest.param("""
import resource, c1m
server = c1m.Server(ports=[0])
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 20), size + (1 << 20)))
try:
    server.listen()
except MemoryError:
    sys.exit()
sys.exit("no MemoryError")
""", id="memory is out at the start"),
])
def test_a_process_that_is_odd(script):
    done = subprocess.run(
        [sys.executable, "-c", _PRELUDE + script, str(Path(__file__).parent)],
        capture_output=True, text=True, timeout=120,
    )
    assert done.returncode == 0, (done.returncode, done.stderr)


@pytest.mark.parametrize(("when_slow", "compression"), [("close", None), ("drop-newest", None), ("latest", "shared")])
def test_an_echo_takes_no_more_from_a_client_that_does_not_read(when_slow, compression):
    """What comes back is not dropped, so only back-pressure bounds it."""
    server = c1m.Server(ports=[0])
    server.websocket("/ws", when_slow=when_slow, compression=compression)
    chunk = frame(BINARY, os.urandom(60_000)) * 8
    with server, WebSocket(server.ports[0]) as client:
        client.socket.settimeout(0.5)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 64 * MIB:
                sent += client.socket.send(chunk[sent % len(chunk):])
        assert sent < 64 * MIB
