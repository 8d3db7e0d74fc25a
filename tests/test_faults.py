"""Clients that break off, stall, trickle or crowd in; and that nobody else notices."""

import contextlib
import errno
import itertools
import os
import random
import select
import socket
import threading
import time
from pathlib import Path

import pytest
from client import (
    SANITIZED,
    Http,
    Process,
    Program,
    WebSocket,
    connected,
    descriptors,
    get,
    handshake,
    request,
    until,
)
from wire import BINARY, PING, TEXT, close, frame, message

import c1m

MIB = 1 << 20
IDLE = 1.6                       # seconds of silence; a client has half of it to answer a ping


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Files small and large, each of its own contents."""
    made = tmp_path_factory.mktemp("faults")
    for i in range(100):
        (made / f"small-{i}.txt").write_bytes(b"small %d" % i)
        (made / f"large-{i}.bin").write_bytes(b"large %2d" % i * 5000)
    with (made / "huge.bin").open("wb") as huge:
        huge.truncate(64 * MIB)
    return made


@pytest.fixture(scope="module")
def shared_process(root):
    with Process(root, {"/ws": {"max_message": 4 * MIB}}) as made:
        for i in range(100):     # what is set up once is set up now
            get(made.port, f"/small-{i}.txt")
        with WebSocket(made.port) as ws:
            ws.echo(b"x")
        yield made


@pytest.fixture
def process(shared_process):
    """A server in a process of its own, for looking at its memory and descriptors."""
    shared_process.until(lambda stats: stats["connections"] == 0, "everyone to be gone")
    return shared_process


@pytest.fixture
def server(root):
    made = c1m.Server(root, ports=[0])
    made.websocket("/ws", max_message=4 * MIB)
    with made:
        yield made


def alone(server):
    """Waits until nobody is connected."""
    until(lambda: server.stats()["connections"] == 0, "everyone to be gone")


# ---- breaking off ----

BROKEN_OFF = {
    "before a byte": b"",
    "within a request": request("/small-1.txt")[:30],
    "after a request": request("/small-1.txt"),
    "while a large file is on its way": request("/huge.bin"),
    "within a body": request("/x", "Content-Length: 1000", method="POST", body=b"half"),
    "within a handshake": handshake()[:60],
    "after a handshake": handshake(),
    "within a frame's header": handshake() + frame(TEXT, bytes(1000))[:3],
    "within a frame": handshake() + frame(BINARY, bytes(1000))[:500],
    "within a message": handshake() + frame(BINARY, bytes(1000), fin=False),
    "within a long message": handshake() + frame(BINARY, bytes(2 * MIB))[:MIB],
    "with echoes unread": handshake() + frame(BINARY, bytes(100_000)) * 5,
    "after a refused request": b"nonsense\r\n\r\n" + bytes(100_000),
    "after a fault": handshake() + frame(3) + bytes(100_000),
    "after a close": handshake() + close(1000),
}


@pytest.mark.parametrize("data", BROKEN_OFF.values(), ids=list(BROKEN_OFF))
@pytest.mark.parametrize("end", ["reset", "close", "half_close"])
def test_someone_breaks_off(server, data, end):
    before = descriptors()
    received = server.stats()["bytes_received"]
    with Http(server.ports[0]) as http:
        http.send(data)
        until(lambda: server.stats()["bytes_received"] >= received + min(len(data), 1), "something to arrive")
        getattr(http, end)()
        if end == "half_close":
            http.drained()       # the server ends its side
    alone(server)
    assert get(server.ports[0], "/small-2.txt").body == b"small 2"
    alone(server)
    assert server.stats()["websockets"] == 0
    # the large file may now be kept open, and nothing else
    assert descriptors() <= before + 1


@pytest.mark.parametrize("receive_buffer", [4096, None])
@pytest.mark.parametrize("data", [
    frame(BINARY, bytes(100_000)) * 30,
    frame(BINARY, bytes(3 * MIB))[:-1],
], ids=["echoed", "not echoed"])
def test_the_end_of_a_stream_is_found_behind_all_that_came_before_it(server, data, receive_buffer):
    """Its edge comes while there is still much to be read."""
    for _ in range(30):
        with WebSocket(server.ports[0], receive_buffer=receive_buffer) as ws:
            ws.send(data)
            ws.half_close()
            ws.drained()
    alone(server)


def test_everyone_breaks_off_at_once(process):
    before = process.descriptors()
    for end in ("close", "reset"):
        clients = [Http(process.port) for _ in range(1000)]
        for i, http in enumerate(clients):
            http.send(request("/small-1.txt")[:i % 40] if i % 2 else handshake())
        process.until(lambda stats: stats["connections"] == 1000, "everyone to be there")
        for http in clients:
            getattr(http, end)()
        process.until(lambda stats: stats["connections"] == stats["websockets"] == 0, "everyone to be gone")
        assert get(process.port, "/small-2.txt").body == b"small 2"
    process.until(lambda stats: stats["connections"] == 0, "everyone to be gone")
    assert process.descriptors() == before


def test_nothing_is_left_of_thousands_who_break_off_and_another_is_served_throughout(process):
    endings = [data for data in BROKEN_OFF.values() if len(data) < 10_000]

    def round_of(n):
        for data in itertools.islice(itertools.cycle(endings), n):
            with Http(process.port) as http:
                http.send(data)
                http.reset()

    with Http(process.port) as other, WebSocket(process.port) as echo:
        round_of(500)
        process.until(lambda stats: stats["connections"] == 2, "them to be gone")
        open_before, memory_before = process.descriptors(), process.memory()
        for i in range(30):
            round_of(100)
            assert other.get(f"/small-{i}.txt").body == b"small %d" % i
            assert echo.echo(b"%d" % i) == (BINARY, b"%d" % i)
        process.until(lambda stats: stats["connections"] == 2, "them to be gone")
        assert process.descriptors() <= open_before + 1
        assert process.memory() < memory_before + MIB or SANITIZED


def test_whoever_comes_in_place_of_another_gets_nothing_of_his(server):
    """Descriptors are used again at once: the answers must go to those who asked."""
    generator = random.Random(1)
    with contextlib.ExitStack() as stack:
        clients = {}
        for turn in range(15):
            for i in range(100):
                if i in clients and generator.random() < 0.7:
                    old = clients.pop(i)
                    old.send(request("/huge.bin") if generator.random() < 0.1 else request("/large-0.bin"))
                    (old.reset if generator.random() < 0.5 else old.close)()
                if i not in clients:
                    clients[i] = stack.enter_context(Http(server.ports[0]))
                clients[i].send(request(f"/small-{i}.txt") + request(f"/large-{(i + turn) % 100}.bin"))
            for i, http in clients.items():
                assert http.answer().body == b"small %d" % i
                assert http.answer().body == b"large %2d" % ((i + turn) % 100) * 5000


def test_a_listener_has_no_trouble_with_those_who_go_before_they_are_accepted(server):
    for _ in range(200):
        with connected(server.ports[0]) as made:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert get(server.ports[0], "/small-0.txt").body == b"small 0"


# ---- stalling ----


def send_until_blocked(made, data):
    """Sends data again and again until the other side takes no more; returns how many bytes that were."""
    made.socket.setblocking(False)
    total, view = 0, memoryview(data)
    while total < 512 * MIB:
        if not select.select([], [made.socket], [], 0.5)[1]:
            made.socket.settimeout(30)
            return total
        with contextlib.suppress(BlockingIOError):
            total += made.socket.send(view[total % len(data):])
    raise AssertionError("the server takes whatever comes and never stops")


@pytest.mark.parametrize(("opening", "data"), [
    (handshake(), frame(BINARY, bytes(100_000))),
    (handshake(), frame(TEXT, b"x" * 100) * 1000),
    (handshake(), frame(PING, bytes(125)) * 1000),
    (handshake(), b"".join(message(BINARY, [bytes(1000)] * 1000))),
    (b"", request("/large-1.bin")),
    (b"", request("/small-1.txt") * 100),
    (b"", request("/missing") * 100),
], ids=["long messages", "short messages", "pings", "fragments", "large files", "small files", "nothing"])
def test_whoever_sends_and_never_reads_is_read_no_further(process, opening, data):
    memory_before = process.memory()
    with Http(process.port, receive_buffer=65536) as http, Http(process.port) as other:
        if opening:
            http.send(opening)
            assert http.answer().status == 101
        send_until_blocked(http, data)
        received = process.stats()["bytes_received"]
        assert process.memory() < memory_before + 8 * MIB or SANITIZED
        assert other.get("/small-2.txt").body == b"small 2"
        # who reads again is read again
        received += len(request("/small-2.txt"))
        while process.stats()["bytes_received"] == received:
            assert http.socket.recv(MIB)
        http.reset()
    process.until(lambda stats: stats["connections"] == 0, "them to be gone")


def test_all_that_was_sent_by_someone_who_reads_late_comes_back_in_order(process):
    numbers = [b"%d " % i * 5000 for i in range(40)]
    data = b"".join(frame(TEXT, number) for number in numbers)
    with WebSocket(process.port, receive_buffer=65536) as ws:
        sent = send_until_blocked(ws, data)
        rest = threading.Thread(target=ws.send, args=(data[sent % len(data):],))
        rest.start()
        for _ in range(sent // len(data) + 1):
            for number in numbers:
                assert ws.message() == (TEXT, number)
        rest.join()
        assert ws.silent()


def test_whoever_does_not_read_a_large_file_is_cut_off(root):
    server = c1m.Server(root, ports=[0], write_timeout=0.3)
    with server, Http(server.ports[0], receive_buffer=65536) as http:
        http.send(request("/huge.bin"))
        until(lambda: server.stats()["accepted"] == 1, "the request")
        alone(server)
        assert 0 < http.drained() < 64 * MIB


def test_whoever_does_not_read_echoes_is_cut_off(root):
    server = c1m.Server(ports=[0], write_timeout=0.3)
    server.websocket("/ws")
    with server, WebSocket(server.ports[0], receive_buffer=65536) as ws:
        with contextlib.suppress(ConnectionError):
            send_until_blocked(ws, frame(BINARY, bytes(100_000)))
        alone(server)
        assert server.stats()["websockets"] == 0


def test_whoever_reads_slowly_but_steadily_is_not_cut_off(root):
    write_timeout = 1.5
    server = c1m.Server(root, ports=[0], write_timeout=write_timeout)
    with server, Http(server.ports[0], receive_buffer=4096) as http:
        http.send(request("/huge.bin"))
        # so slowly that the kernel does not ask for more before the timeout: but it is seen that he reads
        end = time.monotonic() + 2 * write_timeout
        while time.monotonic() < end:
            assert http.socket.recv(100_000)
            time.sleep(0.01)
        assert server.stats()["connections"] == 1


def test_one_who_stalls_does_not_hold_up_the_others(server):
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            stalled = stack.enter_context(Http(server.ports[0], receive_buffer=65536))
            stalled.send(request("/huge.bin") * 10)
        with Http(server.ports[0]) as http, WebSocket(server.ports[0]) as ws:
            for i in range(100):
                assert http.get(f"/small-{i}.txt").body == b"small %d" % i
                assert ws.echo(b"%d" % i) == (BINARY, b"%d" % i)


# ---- trickling ----


def test_hundreds_who_send_one_byte_at_a_time(server):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Http(server.ports[0])) for _ in range(200)]
        sent = [request(f"/small-{i % 100}.txt") for i in range(200)]
        for at in range(max(map(len, sent))):
            for http, data in zip(clients, sent, strict=True):
                http.send(data[at:at + 1])
        for i, http in enumerate(clients):
            assert http.answer().body == b"small %d" % (i % 100)


def test_a_body_that_trickles_in_does_not_hold_the_connection_for_ever(root):
    with c1m.Server(root, ports=[0], head_timeout=1) as server, Http(server.ports[0]) as http:
        http.send(request("/small-0.txt", "Content-Length: 1000000", method="POST"))
        assert http.answer().status == 405
        while http.silent():
            http.send(b"x")
            time.sleep(0.01)
        assert http.rest() == b""


# ---- no descriptors left ----


def test_when_descriptors_run_out_those_who_are_there_are_served_and_the_others_wait(root):
    with Process(root, {"/ws": {}}, nofile=96) as process, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Http(process.port)) for _ in range(200)]
        process.until(lambda stats: stats["out_of_descriptors"], "descriptors to run out")
        there = process.stats()["accepted"]
        assert 30 < there < 96
        # whoever came first was accepted first; files nobody has asked for before are found, large ones too
        for i, http in enumerate(clients[:there]):
            assert http.get(f"/small-{i}.txt").body == b"small %d" % i
            assert http.get(f"/large-{i}.bin").body == b"large %2d" % i * 5000
        clients[0].send(handshake())
        assert clients[0].answer().status == 101
        waiting = clients[there:]
        for http in waiting:
            http.send(request("/small-99.txt"))
        assert all(http.silent() for http in waiting[50:])
        # nobody turns in circles: it would be thousands of turns
        turns, cpu = process.stats()["iterations"], process.cpu()
        time.sleep(0.5)
        assert process.stats()["iterations"] - turns < 50
        assert process.cpu() - cpu < 0.25 * os.sysconf("SC_CLK_TCK")
        # one goes, one comes, in the order of their coming
        for i in range(5):
            clients[there - 1 - i].close()
            assert waiting[i].answer().body == b"small 99"
        for http in clients[:there]:
            http.close()
        for http in waiting[5:]:
            assert http.answer().body == b"small 99"
            http.close()
        process.until(lambda stats: stats["connections"] == 5, "all but five to be gone")
        log = process.end()
    assert log.count("out of file descriptors") == 1


def test_a_crowd_that_gets_nothing_does_not_hurt_a_websocket(root):
    with Process(root, {"/ws": {}}, nofile=64) as process, WebSocket(process.port) as ws:
        for _ in range(3):
            crowd = [Http(process.port) for _ in range(200)]
            process.until(lambda stats: stats["out_of_descriptors"], "descriptors to run out")
            for http in crowd[::2]:
                http.send(request("/small-1.txt"))
            assert ws.echo(bytes(1000)) == (BINARY, bytes(1000))
            for http in crowd:
                http.reset()
            process.until(lambda stats: stats["connections"] == 1, "the crowd to be gone")
        assert get(process.port, "/large-7.bin").body == b"large  7" * 5000


def test_whoever_has_caught_up_is_asked_for_a_sign_of_life_again(root):
    server = c1m.Server(ports=[0])
    server.websocket("/ws", max_message=16 * MIB, idle_timeout=IDLE)
    with server, WebSocket(server.ports[0], receive_buffer=65536) as ws:
        ws.send(frame(BINARY, bytes(16 * MIB)))      # of which the kernel can't take the echo at once
        until(lambda: server.stats()["messages"] == 1, "the message")
        opcode = PING
        while opcode == PING:    # if this machine is slow
            _, opcode, payload = ws.frame()
        assert (opcode, payload) == (BINARY, bytes(16 * MIB))
        assert ws.frame() == (True, PING, b"")
        assert ws.closing() == 1011


# ---- a kernel that refuses ----

REFUSING = """
import ctypes, errno, os, platform, struct

EPOLL_CTL = {"x86_64": 233, "aarch64": 21}
SENDFILE = {"x86_64": 40, "aarch64": 71}
PREAD = {"x86_64": 17, "aarch64": 67}

def refuse(call, fault, second=None):
    # Has a system call fail from now on, on this thread and those it starts; only with that second argument, if any.
    number = call.get(platform.machine())
    load, jump_unless_equal, result = 0x20, 0x15, 0x06
    rules = [
        (load, 0, 0, 0),                        # the system call
        (jump_unless_equal, 0, 1 if second is None else 3, number or 0),
        (load, 0, 0, 24),                       # its second argument
        (jump_unless_equal, 0, 1, second or 0),
        (result, 0, 0, 0x00050000 | fault),
        (result, 0, 0, 0x7fff0000),             # anything else is allowed
    ]
    if second is None:
        del rules[2:4]
    rules = b"".join(struct.pack("=HBBI", *rule) for rule in rules)
    kept = ctypes.create_string_buffer(rules)
    program = struct.pack("HxxxxxxP", len(rules) // 8, ctypes.addressof(kept))
    prctl = ctypes.CDLL(None).prctl
    return number and prctl(38, 1, 0, 0, 0) == 0 and prctl(22, 2, ctypes.c_char_p(program), 0, 0) == 0
"""
SERVING = REFUSING + """
import c1m

def on_message(ws, message):
    ws.send("refused" if eval(message) else "cannot")

server = c1m.Server(c1m.Root(sys.argv[2], spa=True), ports=[0], shutdown_timeout=1)
server.websocket("/refuse", on_message)
with server:
    print(server.ports[0], flush=True)
    sys.stdin.read()
"""


def refuse(port, refusals):
    """Has the server's kernel refuse some calls from now on."""
    with WebSocket(port, "/refuse") as ws:
        ws.send(frame(TEXT, refusals.encode()))
        if ws.message() != (TEXT, b"refused"):
            pytest.skip("system calls cannot be filtered here")


@contextlib.contextmanager
def refused(root, refusals):
    """A server of a directory whose kernel refuses some calls: its port and its process."""
    with Program(SERVING, root) as served:
        port = int(served.line())
        refuse(port, refusals)
        yield port, served


@pytest.mark.parametrize("fault", ["EINVAL", "ENOSYS", "EPERM", "EOPNOTSUPP"])
def test_where_sendfile_is_refused_files_are_read_and_sent(tmp_path, fault):
    data = random.Random(fault).randbytes(3 * MIB + 1)
    (tmp_path / "a.bin").write_bytes(data)
    with refused(tmp_path, f"refuse(SENDFILE, errno.{fault})") as (port, served):
        with Http(port) as http:
            for _ in range(2):
                assert http.get("/a.bin").body == data
            assert http.get("/a.bin", "Range: bytes=70000-270000").body == data[70000:270001]
        with Http(port, receive_buffer=4096) as http:         # who is slow has it in pieces
            http.send(request("/a.bin") + request("/a.bin", "Range: bytes=-5"))
            assert [http.answer().body, http.answer().body] == [data, data[-5:]]
        assert served.ended()[0] == 0


@pytest.mark.parametrize(("size", "name"), [(10, "a.txt"), (32 << 10, "a.txt"), (100_000, "a.txt"), (10, "index.html")])
@pytest.mark.parametrize("fault", ["EIO", "ESTALE", "EINVAL"])
def test_a_file_that_cannot_be_read_is_500_and_a_line_in_the_log(tmp_path, size, name, fault):
    (tmp_path / name).write_bytes(b"x" * size)
    target = "/" if name == "index.html" else f"/{name}"
    with refused(tmp_path, f"refuse(PREAD, errno.{fault})") as (port, served):
        with Http(port) as http:
            for method in ("GET", "HEAD"):
                answer = http.get(target, method=method)
                assert answer.status == 500
                assert not {"ETag", "Last-Modified", "Accept-Ranges"} & {field for field, _ in answer.fields}
            assert http.get("/missing.js").status == 404
            assert http.get(target, "Range: bytes=0-0").status == 500
        status, _, log = served.ended()
    assert status == 0
    assert log.count(f"'{target}' can't be read: {os.strerror(getattr(errno, fault))}") == 3, log


def test_a_single_page_that_cannot_be_read_is_500(tmp_path):
    (tmp_path / "index.html").write_bytes(b"page")
    with refused(tmp_path, "refuse(PREAD, errno.EIO)") as (port, served):
        assert get(port, "/place", "Accept: text/html").status == 500
        assert "'/place' can't be read: Input/output error" in served.ended()[2]


@pytest.mark.parametrize("name", ["speed", "duplex", "phys_port_id"])
def test_a_file_of_sysfs_that_cannot_be_read_is_500(name):
    path = Path("/sys/class/net/lo", name)
    try:
        path.read_bytes()
    except FileNotFoundError:
        pytest.skip("no sysfs")
    except OSError:
        pass
    else:
        pytest.skip("it can be read")
    with c1m.Server(path.parent.resolve(), ports=[0]) as server:
        assert get(server.ports[0], f"/{name}").status == 500


def test_a_file_that_cannot_be_read_to_its_end_ends_the_connection(tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(3 * MIB))
    with Program(SERVING, tmp_path) as served:
        port = int(served.line())
        assert get(port, "/a.bin").body == bytes(3 * MIB)
        refuse(port, "refuse(SENDFILE, errno.EIO) and refuse(PREAD, errno.EIO)")
        with Http(port) as http:
            http.send(request("/a.bin") + request("/a.bin"))
            assert http.drained() < MIB
        status, _, log = served.ended()
    assert status == 0
    assert "a file that was being sent can't be read, and its connection was closed: Input/output error" in log


def test_who_cannot_be_watched_is_let_go_counted_and_logged():
    """As happens at the limit of fs.epoll.max_user_watches, for which a filter of system calls stands here."""
    script = REFUSING + """
import c1m

def on_message(ws, message):
    if message == "refuse":
        ws.send("refused" if refuse(EPOLL_CTL, errno.ENOSPC, second=1) else "cannot")     # EPOLL_CTL_ADD
    else:
        ws.send(message)

server = c1m.Server(ports=[0], shutdown_timeout=1)
server.websocket("/ws", on_message)
with server:
    print(server.ports[0], flush=True)
    for line in sys.stdin:
        print(server.stats()["unwatched"], flush=True)
"""
    with Program(script) as served:
        port = int(served.line())
        with WebSocket(port) as ws:
            ws.send(frame(TEXT, b"refuse"))
            if ws.message() != (TEXT, b"refused"):
                pytest.skip("system calls cannot be filtered here")
            for _ in range(3):
                with Http(port) as http:
                    assert http.drained() == 0
            assert ws.echo(b"still there", TEXT) == (TEXT, b"still there")
            served.say("")
            assert served.line() == "3"
            ws.send(close(1000))
            ws.drained()
        status, _, log = served.ended()
    assert status == 0
    assert "No space left on device" in log


# ---- signals ----


def test_a_lost_connection_or_pipe_does_not_end_the_process_though_sigpipe_would(tmp_path):
    """A program that handles signals, in whatever way, may do so after the server has begun to listen."""
    (tmp_path / "huge.bin").write_bytes(bytes(8 << 20))
    os.mkfifo(tmp_path / "log")
    script = """
import signal
import c1m

server = c1m.Server(sys.argv[2], ports=[0], access_log=sys.argv[3])
with server:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    print(server.ports[0], flush=True)
    sys.stdin.readline()
"""
    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    with Program(script, tmp_path, tmp_path / "log") as served:
        port = int(served.line())
        os.close(reader)
        for _ in range(200):
            with Http(port) as http:
                http.send(request("/huge.bin"))
                http.half_close()
                assert http.socket.recv(1000)
        assert get(port, "/huge.bin", "Range: bytes=0-0").status == 206
        time.sleep(0.6)          # until the log has been written
        served.say("")
        assert served.ended()[0] == 0
