"""The Python API: what it takes, and how a server starts, stops and starts again."""

import contextlib
import errno
import gc
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading

import pytest
from client import PATIENCE, Http, WebSocket, connected, descriptors, get, handshake, request, until
from wire import BINARY, TEXT, close, frame

import c1m

LARGE = 16 << 20                 # bytes: more than the kernel takes for someone with a small receive buffer
SMALL_BUFFER = 65536


@pytest.fixture
def root(tmp_path):
    made = tmp_path / "root"
    made.mkdir()
    (made / "a.txt").write_text("a")
    (made / "file.bin").write_bytes(bytes(50_000))
    with (made / "large.bin").open("wb") as large:
        large.truncate(LARGE)
    return made


# ---- arguments ----


@pytest.mark.parametrize(("arguments", "error", "names"), [
    ({"root": "nowhere"}, FileNotFoundError, "root"),
    ({"root": __file__}, NotADirectoryError, "root"),
    ({"root": ""}, FileNotFoundError, "root"),
    ({"root": "a\0b"}, (ValueError, OSError), "root"),
    ({"root": 5}, TypeError, "root"),
    ({"root": {"/": 5}}, TypeError, "root"),
    ({"root": {"/": "nowhere"}}, FileNotFoundError, "root"),
    ({"root": {5: "."}}, TypeError, "root"),
    ({"root": {"": "."}}, ValueError, "root"),
    ({"root": {"assets": "."}}, ValueError, "root"),
    ({"root": {"/a": ".", "/a/": "."}}, ValueError, "root"),
    ({"ports": "8001"}, TypeError, "ports"),
    ({"ports": 8001.0}, TypeError, "ports"),
    ({"sockets": 3.0}, TypeError, "sockets"),
    ({"sockets": True}, TypeError, "sockets"),
    ({"sockets": ["systemd", None]}, TypeError, "sockets"),
    ({"sockets": -1}, ValueError, "sockets"),
    ({"sockets": "stdin"}, ValueError, "sockets"),
    ({"sockets": [], "ports": []}, ValueError, "ports"),
    ({"drain": -1}, ValueError, "drain"),
    ({"drain": "10"}, TypeError, "drain"),
    ({"drain_code": 1000}, ValueError, "drain_code"),
    ({"drain_code": "1001"}, TypeError, "drain_code"),
    ({"drain_code": None}, TypeError, "drain_code"),
    ({"ports": ["8001"]}, TypeError, "ports"),
    ({"ports": [8001, None]}, TypeError, "ports"),
    ({"ports": -1}, ValueError, "ports"),
    ({"ports": 65536}, ValueError, "ports"),
    ({"ports": range(65530, 65540)}, ValueError, "ports"),
    ({"ports": []}, ValueError, "ports"),
    ({"host": []}, ValueError, "host"),
    ({"host": 5}, TypeError, "host"),
    ({"host": None}, TypeError, "host"),
    ({"host": ["127.0.0.1", 5]}, TypeError, "host"),
    ({"unix": 5}, TypeError, "unix"),
    ({"unix": "a\0"}, ValueError, "unix"),
    ({"unix": ""}, ValueError, "unix"),
    ({"access_log": ""}, ValueError, "access_log"),
    ({"unix": ["a", 5]}, TypeError, "unix"),
    *(({name: value}, error, name)
      for name in ("head_timeout", "keep_alive_timeout", "write_timeout", "shutdown_timeout")
      for value, error in (("10", TypeError), (None, TypeError), (0, ValueError), (-1.5, ValueError),
                           (float("nan"), ValueError), (float("inf"), ValueError), (40_000_000, ValueError))),
    *(({name: value}, error, name)
      for name in ("cache_files", "cache_bytes")
      for value, error in (("10", TypeError), (None, TypeError), (1.5, TypeError), (0, ValueError),
                           (1 << 50, ValueError))),
    ({"mime_types": {"a/b": "text/plain"}}, ValueError, "mime_types"),
    ({"mime_types": {"a": "text"}}, ValueError, "mime_types"),
    ({"mime_types": {"a": "text/plain\r\nX: y"}}, ValueError, "mime_types"),
    ({"access_log": 5}, TypeError, "access_log"),
    ({"access_log_format": "xml"}, ValueError, "access_log_format"),
])
def test_a_wrong_argument_is_named_in_one_line(arguments, error, names):
    with pytest.raises(error) as raised:
        c1m.Server(**arguments)
    message = str(raised.value).removeprefix(f"[Errno {getattr(raised.value, 'errno', None)}] ")
    assert message.startswith(f"{names}: ")
    assert "\n" not in message


@pytest.mark.parametrize(("arguments", "error", "names"), [
    ({"path": 5}, TypeError, "path"),
    ({"path": b"/ws"}, TypeError, "path"),
    ({"path": "ws"}, ValueError, "path"),
    ({"path": ""}, ValueError, "path"),
    ({"path": "/taken"}, ValueError, "path"),
    ({"path": "/ws", "max_message": 0}, ValueError, "max_message"),
    ({"path": "/ws", "max_message": 1 << 31}, ValueError, "max_message"),
    ({"path": "/ws", "max_message": "1"}, TypeError, "max_message"),
    ({"path": "/ws", "max_message": 1.5}, TypeError, "max_message"),
    ({"path": "/ws", "idle_timeout": 0}, ValueError, "idle_timeout"),
    ({"path": "/ws", "idle_timeout": "1"}, TypeError, "idle_timeout"),
])
def test_a_wrong_argument_of_a_route_is_named_in_one_line(arguments, error, names):
    server = c1m.Server()
    server.websocket("/taken")
    with pytest.raises(error) as raised:
        server.websocket(**arguments)
    assert str(raised.value).startswith(f"{names}: ")
    assert "\n" not in str(raised.value)


def test_settings_are_given_by_name():
    with pytest.raises(TypeError):
        c1m.Server(None, 8001, "127.0.0.1")
    with pytest.raises(TypeError):
        c1m.Server().websocket("/ws", 1000)


def test_paths_of_every_kind(root, tmp_path):
    for given in (str(root), root, os.fsencode(root)):
        with c1m.Server(given, ports=[], unix=[tmp_path / "one", str(tmp_path / "two")]):
            assert get(tmp_path / "one", "/a.txt").body == get(tmp_path / "two", "/a.txt").body == b"a"


def test_a_relative_root_stays_where_it_was(root, monkeypatch):
    monkeypatch.chdir(root)
    server = c1m.Server(".", ports=[0])
    monkeypatch.chdir("/")
    with server:
        assert get(server.ports[0], "/a.txt").body == b"a"


# ---- ports ----


def test_ports_are_as_asked_before_and_as_given_while_listening(root):
    server = c1m.Server(root, ports=[0, 0])
    assert server.ports == [0, 0]
    with server:
        first, second = server.ports
        assert 0 not in (first, second)
        assert first != second
    assert server.ports == [0, 0]
    assert c1m.Server().ports == [8001]
    assert c1m.Server(ports=range(8001, 8004)).ports == [8001, 8002, 8003]


def test_a_port_in_use_is_named_and_nothing_stays_open(root):
    with socket.socket() as taken, socket.socket() as free:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        free.bind(("127.0.0.1", 0))
        free_port, taken_port = free.getsockname()[1], taken.getsockname()[1]
        free.close()
        server = c1m.Server(root, ports=[free_port, taken_port])
        gc.collect()             # the servers of other tests
        before = descriptors()
        for start in (server.listen, server.run, server.__enter__):
            with pytest.raises(OSError) as raised:
                start()
            assert raised.value.errno == errno.EADDRINUSE
            said = f"cannot listen on 127.0.0.1:{taken_port}: Address already in use (give another port"
            assert raised.value.strerror.startswith(said)
            with pytest.raises(ConnectionRefusedError):
                connected(free_port)
        del raised               # and the frames that its traceback holds
        gc.collect()
        assert descriptors() == before
        taken.close()
        with server:
            assert server.ports == [free_port, taken_port]
            assert get(taken_port, "/a.txt").body == b"a"


def test_an_address_of_another_machine_is_named():
    with pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.1:0: "):
        c1m.Server(ports=[0], host="192.0.2.1").listen()


def test_a_host_that_is_not_known_is_named(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(OSError, match="host: 'nowhere' is not known"):
        c1m.Server(ports=[0], host="nowhere").listen()


@pytest.mark.parametrize(("host", "says"), [
    ("127.0.0.1:8001", "'127.0.0.1:8001' has a port in it: ports go in ports"),
    ("[::1]:8001", "'[::1]:8001' has a port in it: ports go in ports"),
    (":8001", "':8001' has a port in it: ports go in ports"),
    (["::1", "localhost:0"], "'localhost:0' has a port in it: ports go in ports"),
    ("http://127.0.0.1:8001", "'http://127.0.0.1:8001' is a URL: give the host alone; ports go in ports"),
    ("http://example.org/", "'http://example.org/' is a URL: give the host alone; ports go in ports"),
])
def test_a_host_with_more_in_it_is_mended(host, says):
    with pytest.raises(ValueError) as raised:
        c1m.Server(host=host)
    assert str(raised.value) == f"host: {says}"


@pytest.mark.parametrize("host", ["::", "::1", "fe80::1%lo", "127.0.0.1", "localhost", "a.example"])
def test_a_host_is_a_name_or_an_address(host):
    c1m.Server(host=host)


def test_a_host_that_cannot_be_a_name_is_named():
    with pytest.raises((OSError, ValueError), match=r"host: 'a\.\.b'"):
        c1m.Server(ports=[0], host="a..b").listen()


# ---- Unix sockets ----


def test_a_unix_socket_is_removed_at_the_end_and_one_left_behind_is_replaced(root, tmp_path):
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    assert path.is_socket()
    with c1m.Server(root, ports=[], unix=path):
        assert get(path, "/a.txt").body == b"a"
    assert not path.exists()


def test_a_unix_socket_that_is_in_use_is_left_alone(root, tmp_path):
    path = tmp_path / "socket"
    with c1m.Server(root, ports=[], unix=path):
        with pytest.raises(OSError, match="Address already in use") as raised:
            c1m.Server(root, ports=[], unix=path).listen()
        assert str(path) in raised.value.strerror
        assert get(path, "/a.txt").body == b"a"


@pytest.mark.parametrize("name", ["file", "directory", "nowhere/socket", "x" * 200])
def test_what_is_no_place_for_a_unix_socket_is_named_and_left_alone(root, tmp_path, name):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "directory").mkdir()
    with pytest.raises(OSError) as raised:
        c1m.Server(root, ports=[0], unix=tmp_path / name).listen()
    assert f"cannot listen on {tmp_path / name}" in str(raised.value)
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize(("name", "says"), [
    ("file", "a file that is no socket is in the way (remove it, or give another path)"),
    ("directory", "a directory is in the way (remove it, or give another path)"),
])
def test_what_is_in_the_way_of_a_unix_socket_is_said(root, tmp_path, name, says):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "directory").mkdir()
    with pytest.raises(OSError) as raised:
        c1m.Server(root, ports=[0], unix=tmp_path / name).listen()
    assert raised.value.strerror == f"cannot listen on {tmp_path / name}: {says}"


@pytest.fixture
def umask():
    before = os.umask(0)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
@pytest.mark.parametrize("mode", [None, 0o600, 0o660, 0o666, 0o777])
def test_a_unix_socket_has_the_mode_that_was_asked_for(root, tmp_path, umask, mode, mask):
    umask(mask)
    path = tmp_path / "socket"
    with c1m.Server(root, ports=[], unix=path, unix_mode=mode):
        assert stat.S_IMODE(path.stat().st_mode) == (0o777 & ~mask if mode is None else mode)
        assert get(path, "/a.txt").body == b"a"


@pytest.mark.parametrize("mask", [0, 0o022])
def test_a_unix_socket_is_never_open_to_more(root, tmp_path, umask, mask, monkeypatch):
    """From bind() on it has no right that was not asked for, and until it has them all nobody can connect."""
    umask(mask)
    path, before = tmp_path / "socket", []

    def set_mode(path, mode, then=c1m.listeners.set_mode):
        before.append(stat.S_IMODE(os.stat(path).st_mode))
        with pytest.raises(ConnectionRefusedError), socket.socket(socket.AF_UNIX) as early:
            early.connect(path)
        then(path, mode)

    monkeypatch.setattr("c1m.listeners.set_mode", set_mode)
    with c1m.Server(root, ports=[], unix=path, unix_mode=0o660):
        assert before == [0o660 & ~mask]
        assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_what_replaces_a_unix_socket_keeps_its_mode(root, tmp_path, umask, monkeypatch):
    path, precious = tmp_path / "socket", tmp_path / "precious"
    precious.write_text("")
    precious.chmod(0o600)

    def set_mode(path, mode, then=c1m.listeners.set_mode):
        os.unlink(path)
        os.symlink(precious, path)
        then(path, mode)

    monkeypatch.setattr("c1m.listeners.set_mode", set_mode)
    with pytest.raises(OSError, match=r"cannot listen on .*: it was replaced by something else"):
        c1m.Server(root, ports=[], unix=path, unix_mode=0o666).listen()
    assert stat.S_IMODE(precious.stat().st_mode) == 0o600


# ---- starting and stopping ----


def test_with_serves_and_ends(root):
    server = c1m.Server(root, ports=[0])
    with server as entered:
        assert entered is server
        [port] = server.ports
        assert get(port, "/a.txt").body == b"a"
    with pytest.raises(ConnectionRefusedError):
        connected(port)


def test_an_error_within_with_is_passed_on_and_ends_the_server(root):
    with pytest.raises(ZeroDivisionError), c1m.Server(root, ports=[0]) as server:
        [port] = server.ports
        raise ZeroDivisionError
    with pytest.raises(ConnectionRefusedError):
        connected(port)


def test_the_same_server_runs_again_and_again(root, tmp_path):
    server = c1m.Server(root, ports=[0], unix=tmp_path / "socket")
    server.websocket("/ws")
    gc.collect()
    before = None
    for _ in range(10):
        with server:
            assert get(server.ports[0], "/a.txt").body == b"a"
            assert get(tmp_path / "socket", "/file.bin").body == bytes(50_000)
            with WebSocket(server.ports[0]) as ws:
                assert ws.echo(b"x") == (BINARY, b"x")
            until(lambda: server.stats()["requests"] == 3, "counters that began anew")
        before = before or descriptors()
        assert descriptors() == before


def test_routes_may_be_added_between_two_runs(root):
    server = c1m.Server(root, ports=[0])
    with server:
        assert get(server.ports[0], "/late").status == 404
    server.websocket("/late")
    with server, WebSocket(server.ports[0], "/late") as ws:
        assert ws.echo(b"x") == (BINARY, b"x")


def test_listen_lets_clients_wait(root):
    server = c1m.Server(root, ports=[0])
    server.listen()
    with Http(server.ports[0]) as http:
        http.send(request("/a.txt"))
        assert http.silent()
        with server:
            assert http.answer().body == b"a"


def test_what_cannot_be_done_while_listening_is_refused(root):
    server = c1m.Server(root, ports=[0])
    server.listen()
    for refused in (server.listen, lambda: server.websocket("/ws")):
        with pytest.raises(RuntimeError):
            refused()
    with server:
        for refused in (server.listen, server.run, server.__enter__, lambda: server.websocket("/ws")):
            with pytest.raises(RuntimeError):
                refused()
        assert get(server.ports[0], "/a.txt").body == b"a"


def test_run_in_a_thread_ends_with_stop_from_another(root):
    server = c1m.Server(root, ports=[0])
    server.listen()
    [port] = server.ports
    thread = threading.Thread(target=server.run)
    thread.start()
    assert get(port, "/a.txt").body == b"a"
    with pytest.raises(RuntimeError):
        server.run()
    assert get(port, "/a.txt").body == b"a"
    server.stop()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    with pytest.raises(ConnectionRefusedError):
        connected(port)


def test_stop_may_come_at_any_time_and_more_than_once(root):
    server = c1m.Server(root, ports=[0])
    server.stop()
    with server:
        assert get(server.ports[0], "/a.txt").body == b"a"
        stoppers = [threading.Thread(target=server.stop) for _ in range(10)]
        for thread in stoppers:
            thread.start()
        for thread in stoppers:
            thread.join()
        server.stop()
    server.stop()
    with server:
        assert get(server.ports[0], "/a.txt").body == b"a"


def test_stop_right_after_the_start_is_not_lost(root):
    server = c1m.Server(root, ports=[0])
    for _ in range(50):
        server.listen()
        thread = threading.Thread(target=server.run)
        thread.start()
        server.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_a_download_under_way_is_finished_and_an_idle_client_is_not_waited_for(root):
    server = c1m.Server(root, ports=[0], shutdown_timeout=60)
    with server, Http(server.ports[0], SMALL_BUFFER) as busy, Http(server.ports[0]) as idle:
        idle.get("/a.txt")
        busy.send(request("/large.bin") + request("/a.txt"))
        head = busy.take_line(b"\r\n\r\n")
        server.stop()
        assert idle.rest() == b""
        assert b"Content-Length: %d" % (LARGE) in head
        assert busy.take(LARGE) == bytes(LARGE)
        last = busy.answer()
        assert (last.body, last["Connection"]) == (b"a", "close")
        assert busy.rest() == b""


def test_whoever_holds_up_the_end_is_cut_off(root):
    server = c1m.Server(root, ports=[0], shutdown_timeout=0.1)
    with server, Http(server.ports[0], SMALL_BUFFER) as stalled:
        stalled.send(request("/large.bin"))
        stalled.take_line(b"\r\n\r\n")
        server.stop()
        until(lambda: server.stats()["connections"] == 0, "the client to be cut off")
        assert stalled.drained() < LARGE


def test_a_request_that_was_begun_is_still_answered(root):
    server = c1m.Server(root, ports=[0], shutdown_timeout=60)
    with server, Http(server.ports[0]) as http:
        http.send(request("/a.txt")[:10])
        until(lambda: server.stats()["bytes_received"] == 10, "the first bytes")
        server.stop()
        until(lambda: _refused(http.socket.getpeername()), "the listeners to be closed")
        http.send(request("/a.txt")[10:])
        answer = http.answer()
        assert (answer.body, answer["Connection"]) == (b"a", "close")
        assert http.rest() == b""


def _refused(address):
    try:
        connected(address).close()
    except ConnectionRefusedError:
        return True
    return False


def test_two_servers_in_two_threads_know_nothing_of_each_other(tmp_path):
    with contextlib.ExitStack() as stack:
        servers = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "who.txt").write_text(name)
            servers.append(c1m.Server(tmp_path / name, ports=[0]))
            servers[-1].websocket(f"/{name}")
            stack.enter_context(servers[-1])
        wrong = []

        def visit(server, name, other):
            with Http(server.ports[0]) as http, WebSocket(server.ports[0], f"/{name}") as ws:
                for i in range(500):
                    if http.get("/who.txt").body != name.encode():
                        wrong.append(i)
                    if ws.echo(b"%d" % i) != (BINARY, b"%d" % i):
                        wrong.append(i)
                if http.get(f"/{other}").status != 404:
                    wrong.append(other)

        names = ("one", "two")
        threads = [
            threading.Thread(target=visit, args=(servers[i % 2], names[i % 2], names[1 - i % 2]))
            for i in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert [server.stats()["requests"] for server in servers] == [4 * (500 + 2)] * 2


# ---- stats ----


def test_stats_count(root):
    server = c1m.Server(root, ports=[0])
    server.websocket("/ws")
    with pytest.raises(RuntimeError):
        server.stats()
    with server:
        with Http(server.ports[0]) as http, WebSocket(server.ports[0]) as ws:
            for target in ("/a.txt", "/a.txt", "/file.bin", "/nothing"):
                http.get(target)
            http.get("/a.txt", "If-None-Match: *")
            http.get("/a.txt", "Range: bytes=0-0")
            for _ in range(3):
                ws.echo(b"x")
            stats = server.stats()
            assert stats["connections"] == stats["accepted"] == 2
            assert stats["websockets"] == stats["upgrades"] == 1
            assert stats["messages"] == 3
            assert stats["requests"] == 7
            assert stats["answers"] == {"1xx": 1, "2xx": 4, "3xx": 1, "4xx": 1, "5xx": 0}
            assert stats["cached_files"] == 2
            assert 1 < stats["cached_bytes"] < 2000
            assert stats["bytes_sent"] > 50_000
            assert stats["out_of_descriptors"] == 0
            received = stats["bytes_received"]
            http.send(b"GET")
            until(lambda: server.stats()["bytes_received"] == received + 3, "three bytes")
        until(lambda: server.stats()["connections"] == 0, "them to be gone")
        assert server.stats()["websockets"] == 0
    assert server.stats()["requests"] == 7           # of the run that was last


def test_stats_may_be_asked_for_from_any_thread(root):
    with c1m.Server(root, ports=[0]) as server:
        asked = [threading.Thread(target=lambda: [server.stats() for _ in range(500)]) for _ in range(4)]
        for thread in asked:
            thread.start()
        with Http(server.ports[0]) as http:
            for _ in range(500):
                assert http.get("/a.txt").body == b"a"
        for thread in asked:
            thread.join()


# ---- forks ----

FORK = """
import os, signal, sys
import c1m

server = c1m.Server(sys.argv[1], ports=[], unix=sys.argv[2], access_log=sys.argv[3])


def child(does):
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)                 # ends one that serves all the same
        try:
            does()
        except RuntimeError as error:
            print(error, flush=True)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


async def serve():
    async with server:
        pass


def aside():
    import asyncio
    asyncio.run(serve())


server.listen()
for does in (server.run, server.__enter__, aside):
    child(does)
with server:
    child(lambda: server.__exit__(None, None, None))
    child(server.stop)
    print("serving", flush=True)
    sys.stdin.read()
"""


def test_a_fork_leaves_the_server_of_its_parent_alone(root, tmp_path):
    path, log = tmp_path / "socket", tmp_path / "log"
    pipe = subprocess.PIPE
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, root, path, log]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        for _ in range(3):
            assert process.stdout.readline() == (
                f"this server listens in process {process.pid}, of which this one is a fork: call listen() and run() in"
                " the same process; after os.fork(), make a Server in each\n"
            )
        assert process.stdout.readline() == "serving\n"
        assert get(path, "/a.txt").body == b"a"
        until(lambda: '"GET /a.txt HTTP/1.1" 200' in log.read_text(), "the line in the log")
        out, errors = process.communicate(timeout=PATIENCE)
        assert (out, errors, process.returncode) == ("", "", 0)
    assert not path.exists()


# ---- signals ----

RUN = """
import signal, sys
import c1m

server = c1m.Server(sys.argv[1], ports=[0], shutdown_timeout=60)
server.websocket("/ws")
server.listen()
exec(sys.argv[2])
numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
before = [signal.getsignal(number) for number in numbers]
print(server.ports[0], flush=True)
try:
    server.run()
finally:
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.set_wakeup_fd(-1) == -1
    assert server.ports == [0]
    print("run has returned", flush=True)
"""


@pytest.fixture
def running(root):
    """Starts run() in a process of its own."""
    with contextlib.ExitStack() as stack:
        def start(before=""):
            pipe = subprocess.PIPE
            process = subprocess.Popen(
                [sys.executable, "-c", RUN, root, before], stdout=pipe, stderr=pipe, text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            process.port = int(process.stdout.readline())
            return process

        yield start


def ended(process):
    """What a process that has come to its end has printed, on the two outputs; and its exit status."""
    out, errors = process.communicate(timeout=PATIENCE)
    return out, errors, process.returncode


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_run_when_all_that_is_under_way_is_done(running, number):
    process = running()
    port = process.port
    with Http(port, SMALL_BUFFER) as busy, Http(port) as idle, WebSocket(port) as ws:
        busy.send(request("/large.bin"))
        busy.take_line(b"\r\n\r\n")
        idle.get("/a.txt")
        ws.send(frame(TEXT, b"half", fin=False))
        process.send_signal(number)
        assert ws.closing() == 1001
        assert idle.rest() == b""
        assert _refused(("127.0.0.1", port))
        assert process.poll() is None
        ws.send(close(1001))
        assert ws.rest() == b""
        assert busy.take(LARGE) == bytes(LARGE)
        assert busy.rest() == b""
    assert ended(process) == ("run has returned\n", "", 0)


@pytest.mark.parametrize("numbers", [
    (signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT),
])
def test_a_second_signal_ends_run_at_once(running, numbers):
    process = running()
    with Http(process.port, SMALL_BUFFER) as busy, WebSocket(process.port) as ws:
        busy.send(request("/large.bin"))
        busy.take_line(b"\r\n\r\n")
        process.send_signal(numbers[0])
        assert ws.closing() == 1001
        assert process.poll() is None
        process.send_signal(numbers[1])
        assert busy.drained() < LARGE
    out, errors, status = ended(process)
    assert out == "run has returned\n"
    assert errors.endswith("KeyboardInterrupt\n")
    assert status == -signal.SIGINT


def test_other_signal_handlers_run_while_serving(running):
    process = running("signal.signal(signal.SIGUSR2, lambda *_: print('handled', flush=True))")
    with Http(process.port) as http:
        for _ in range(20):
            assert http.get("/a.txt").body == b"a"
            process.send_signal(signal.SIGUSR2)
            assert process.stdout.readline() == "handled\n"
        assert http.get("/a.txt").body == b"a"
    process.send_signal(signal.SIGINT)
    assert ended(process) == ("run has returned\n", "", 0)


def test_sigusr1_does_no_harm_without_a_log(running):
    process = running()
    with Http(process.port) as http:
        for _ in range(3):
            assert http.get("/a.txt").body == b"a"
            process.send_signal(signal.SIGUSR1)
        assert http.get("/a.txt").body == b"a"
    process.send_signal(signal.SIGINT)
    assert ended(process) == ("run has returned\n", "", 0)


def test_a_handler_of_sigusr1_is_left_alone_without_a_log(running):
    process = running("signal.signal(signal.SIGUSR1, lambda *_: print('handled', flush=True))")
    assert get(process.port, "/a.txt").body == b"a"
    process.send_signal(signal.SIGUSR1)
    assert process.stdout.readline() == "handled\n"
    process.send_signal(signal.SIGINT)
    assert ended(process) == ("run has returned\n", "", 0)


def test_what_another_signal_handler_raises_ends_run(running):
    process = running(
        "def fail(*_):\n    raise ZeroDivisionError('in the handler')\nsignal.signal(signal.SIGUSR2, fail)"
    )
    with WebSocket(process.port) as ws:
        process.send_signal(signal.SIGUSR2)
        assert ws.drained() == 0
    out, errors, status = ended(process)
    assert out == "run has returned\n"
    assert errors.endswith("ZeroDivisionError: in the handler\n")
    assert status == 1


def test_a_timer_of_pythons_runs_while_nobody_visits(running):
    process = running(
        "signal.signal(signal.SIGALRM, lambda *_: server.stop())\nsignal.setitimer(signal.ITIMER_REAL, 0.2)"
    )
    assert ended(process) == ("run has returned\n", "", 0)


def test_another_thread_may_stop_run_in_the_main_thread(running):
    process = running("import threading; threading.Timer(0.2, server.stop).start()")
    assert ended(process) == ("run has returned\n", "", 0)


def test_a_signal_before_run_begins_is_pythons(running):
    process = running("try:\n    signal.raise_signal(signal.SIGINT)\nexcept KeyboardInterrupt:\n    pass")
    assert get(process.port, "/a.txt").body == b"a"
    process.send_signal(signal.SIGTERM)
    assert ended(process) == ("run has returned\n", "", 0)


IN_C = """
#include <signal.h>
static void ignore(int number) { (void)number; }
__attribute__((constructor)) static void before_python(void) { signal(SIGTERM, ignore); }
"""
RUN_IN_C = """
import signal, sys, threading
import c1m

assert signal.getsignal(signal.SIGTERM) is None
before = signal.getsignal(signal.SIGINT)
server = c1m.Server(ports=[0])
for _ in range(2):
    threading.Timer(0.1, server.stop).start()
    server.run()
    assert signal.getsignal(signal.SIGTERM) is None
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.set_wakeup_fd(-1) == -1
signal.raise_signal(signal.SIGTERM)
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_a_signal_handler_of_the_program_that_embeds_python_stays(tmp_path):
    (tmp_path / "host.c").write_text(IN_C)
    host = tmp_path / "host.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", host, tmp_path / "host.c"], check=True)
    done = subprocess.run(
        [sys.executable, "-c", RUN_IN_C], env=os.environ | {"LD_PRELOAD": str(host)},
        capture_output=True, text=True, timeout=PATIENCE,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_signals_are_put_back_though_that_fails_for_one(monkeypatch):
    server, put_back = c1m.Server(ports=[0]), []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    real = signal.signal

    def fails_for_one(number, handler):
        if number == signal.SIGTERM and handler is before[number]:
            put_back.append(number)
            real(number, handler)
            raise ValueError("a signal that cannot be put back")
        return real(number, handler)

    server.listen()
    threading.Timer(0.1, server.stop).start()
    with monkeypatch.context() as patched, pytest.raises(ValueError, match="cannot be put back"):
        patched.setattr(signal, "signal", fails_for_one)
        server.run()
    assert put_back == [signal.SIGTERM]
    assert {number: signal.getsignal(number) for number in before} == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_client_who_upgrades_while_the_server_leaves_is_told(root):
    server = c1m.Server(root, ports=[0], shutdown_timeout=60)
    server.websocket("/ws")
    with server, Http(server.ports[0]) as http:
        http.send(handshake()[:10])
        until(lambda: server.stats()["bytes_received"] == 10, "the first bytes")
        server.stop()
        until(lambda: _refused(http.socket.getpeername()), "the listeners to be closed")
        http.send(handshake()[10:])
        assert http.answer().status == 101
        assert http.take(19) == b"\x88\x11\x03\xe9server stopping"      # Close, 1001
        http.send(close(1001))
        assert http.rest() == b""
