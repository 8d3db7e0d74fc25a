"""Under systemd: sockets that it hands in, and what it is told. Its part is played by sockets and environments of our
own, and, where it is installed, by its own programs."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from client import PATIENCE, WebSocket, connected, get, until
from wire import TEXT, close, frame

import c1m
from c1m import systemd


class Manager:
    """What systemd is to a service: a datagram socket. Abstract, or at a path."""

    def __init__(self, path=None):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(PATIENCE)
        self.socket.bind(str(path) if path else b"")
        bound = self.socket.getsockname()
        self.address = f"@{bound[1:].decode()}" if isinstance(bound, bytes) else bound

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.socket.close()

    def told(self):
        """The next message."""
        return self.socket.recv(4096).decode().split("\n")

    def all_told(self):
        """What waits."""
        self.socket.setblocking(False)
        said = []
        with contextlib.suppress(BlockingIOError):
            while True:
                said.append(self.socket.recv(4096).decode())
        self.socket.settimeout(PATIENCE)
        return said


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    with Manager(tmp_path / "notify" if request.param == "path" else None) as made:
        yield made


# ---- notifications ----


def test_each_message_is_as_sd_notify_has_it(manager, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    before = time.monotonic_ns() // 1000
    assert systemd.ready("serves 3 roots")
    assert systemd.reloading()
    assert systemd.stopping(12.5)
    assert systemd.status("draining")
    assert systemd.notify("X=é")
    assert manager.told() == ["READY=1", "STATUS=serves 3 roots"]
    reloading, since = manager.told()
    assert reloading == "RELOADING=1"
    assert before <= int(since.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    assert manager.told() == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=12500000"]
    assert manager.told() == ["STATUS=draining"]
    assert manager.told() == ["X=é"]


def test_without_systemd_nothing_is_said(monkeypatch, caplog):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not systemd.notify("READY=1")
    assert caplog.records == []


@pytest.mark.parametrize("address", ["/nowhere/at/all", "@nobody-listens-here", "relative", "vsock:2:1234"])
def test_what_cannot_be_told_is_logged_and_no_more(address, monkeypatch, caplog):
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not systemd.ready("x")
    [record] = caplog.records
    assert record.message.startswith("NOTIFY_SOCKET: systemd was not told READY=1: ")


@pytest.mark.parametrize(("microseconds", "pid", "seconds"), [
    ("30000000", None, 15.0),
    ("30000000", "self", 15.0),
    ("30000000", "1", None),
    ("0", None, None),
    ("", None, None),
    ("soon", None, None),
    ("-5", None, None),
])
def test_the_watchdog_is_for_the_process_that_it_names(microseconds, pid, seconds, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "self" else pid)
    assert systemd.watchdog_interval() == seconds


def test_a_loop_that_stands_still_sends_no_signs_of_life(manager, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    monkeypatch.setenv("WATCHDOG_USEC", "2000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    asked, turns = threading.Semaphore(0), [0]

    def pulse():
        asked.release()
        return turns[0]

    with systemd.watchdog(pulse):
        assert manager.told() == ["WATCHDOG=1"]
        for _ in range(20):
            assert asked.acquire(timeout=PATIENCE)
        assert manager.all_told() == []
        turns[0] += 1
        assert manager.told() == ["WATCHDOG=1"]
    assert not [thread for thread in threading.enumerate() if thread.name == "c1m watchdog"]


def test_a_handler_that_blocks_stops_the_pulse():
    blocked, go = threading.Event(), threading.Event()

    def blocks(ws, message):
        blocked.set()
        go.wait(PATIENCE)

    server = c1m.Server(ports=[0])
    server.websocket("/ws", blocks)
    with server, WebSocket(server.ports[0]) as client:
        before = server._pulse()
        until(lambda: server._pulse() > before, "an iteration, although nothing happens")
        client.send(frame(TEXT, b"x"))
        assert blocked.wait(PATIENCE)
        assert {server._pulse() for _ in range(100)} == {server._pulse()}
        still = server._pulse()
        go.set()
        until(lambda: server._pulse() > still, "it to go on")


# ---- the command ----


@pytest.mark.parametrize("workers", [1, 3])
def test_the_command_tells_how_it_is(workers, serving, manager):
    environment = os.environ | {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "20000"}
    environment.pop("WATCHDOG_PID", None)
    process = serving("--port", 0, "--drain", "2s", "--shutdown-timeout", "1m", "--workers", workers, env=environment)
    assert manager.told() == ["READY=1", "STATUS=serves its console"]
    for _ in range(5):                           # although nobody visits it
        assert manager.told() == ["WATCHDOG=1"]
    with WebSocket(process.port) as ws:
        process.send_signal(signal.SIGTERM)
        while (said := manager.told()) == ["WATCHDOG=1"]:
            pass
        assert said == ["STOPPING=1", f"EXTEND_TIMEOUT_USEC={63 if workers == 1 else 73}000000"]
        assert ws.closing() == 1001
        while (said := manager.told()) == ["WATCHDOG=1"]:      # as long as this one does not answer
            pass
        assert said == ["STATUS=draining: 1 WebSocket left"]
        assert process.stdout.readline() == "draining: 1 WebSocket left\n"
        ws.send(close(1001))
        assert ws.rest() == b""
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


def test_a_reload_of_the_workers_is_told(serving, manager):
    process = serving("--port", 0, "--workers", 3, env=os.environ | {"NOTIFY_SOCKET": manager.address})
    assert manager.told() == ["READY=1", "STATUS=serves its console"]
    for _ in range(2):
        process.send_signal(signal.SIGHUP)
        said, moment = manager.told()
        assert said == "RELOADING=1"
        assert re.fullmatch(r"MONOTONIC_USEC=[0-9]+", moment)
        assert manager.told() == ["READY=1", "STATUS=serves its console"]
    process.send_signal(signal.SIGTERM)
    assert manager.told()[0] == "STOPPING=1"
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


def test_a_drain_is_told_in_asyncio_too(serving, tmp_path):
    (tmp_path / "handlers.py").write_text("async def later(ws, message):\n    pass\n")
    (tmp_path / "c1m.toml").write_text('ports = 0\n[websocket."/ws"]\nhandler = "handlers:later"\n')
    process = serving("--config", tmp_path / "c1m.toml", "--shutdown-timeout", "1m")
    with WebSocket(process.port) as ws, connected(process.port) as other:
        other.sendall(b"GET / HTTP")
        ws.send(frame(TEXT, b"x"))
        process.send_signal(signal.SIGTERM)
        assert ws.closing() == 1001
        assert process.stdout.readline() == "draining: 1 WebSocket left\n"
        ws.send(close(1001))
        assert ws.rest() == b""
        assert process.stdout.readline() == "draining: 1 connection left\n"
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


# ---- socket activation ----


def activated(serving, listeners, *arguments, names="", pid="$$", **options):
    """`c1m serve` as systemd starts it: sockets from descriptor 3 on, and an environment that says so."""
    fds = [listener.fileno() for listener in listeners]
    # Out of the way first, for one may lie where another is to be.
    moves = "".join(f"exec {20 + i}<&{fd}; " for i, fd in enumerate(fds))
    moves += "".join(f"exec {3 + i}<&{20 + i} {20 + i}<&-; " for i in range(len(fds)))
    script = f'{moves}LISTEN_PID={pid} LISTEN_FDS={len(fds)} LISTEN_FDNAMES={names} exec "$0" "$@"'
    return serving(*arguments, command=("bash", "-c", script, sys.executable, "-m", "c1m"), pass_fds=fds, **options)


@pytest.fixture
def listeners(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "socket"))
        unix.listen()
        yield tcp, unix


def test_what_systemd_hands_in_is_served_on(serving, tmp_path, listeners):
    (tmp_path / "a.txt").write_text("a")
    process = activated(serving, listeners, tmp_path, names="web:local")
    port = listeners[0].getsockname()[1]
    assert process.greeting[1:3] == [f"  http://127.0.0.1:{port}/", f"  unix:{tmp_path}/socket"]
    for address in (port, tmp_path / "socket"):
        assert get(address, "/a.txt").body == b"a"
    environment = Path(f"/proc/{process.pid}/environ").read_bytes()
    assert b"LISTEN_FDS=2" in environment        # as it was started
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
    assert (tmp_path / "socket").exists()        # and who connects now waits for the next start
    with connected(port) as client:
        client.sendall(b"GET /a.txt HTTP/1.0\r\n\r\n")
        activated(serving, listeners, tmp_path)
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_ports_that_were_asked_for_come_first(serving, tmp_path, listeners):
    process = activated(serving, listeners, tmp_path, "--port", 0)
    assert process.port != listeners[0].getsockname()[1]
    assert len(process.greeting) == 3
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert "systemd's sockets are not used, because of --port: --socket systemd adds them" in errors


def test_ports_and_systemds_sockets(serving, tmp_path, listeners):
    process = activated(serving, listeners, tmp_path, "--port", 0, "--socket", "systemd")
    assert process.port != listeners[0].getsockname()[1]
    assert [get(address).status for address in (process.port, listeners[0].getsockname()[1])] == [404] * 2


def test_those_of_another_process_are_not_ours(serving, tmp_path, listeners):
    process = activated(serving, listeners, tmp_path, "--port", 0, pid="1")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=PATIENCE)[1] == ""


def test_systemd_by_name_and_nothing_there():
    done = subprocess.run(
        [sys.executable, "-m", "c1m", "serve", "--socket", "systemd"], capture_output=True, text=True, timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"Error: sockets: systemd has handed in no sockets \(LISTEN_FDS [^\n]+\n", done.stderr)


@pytest.fixture
def handed(monkeypatch):
    """Says that there are descriptors, in this process."""
    def say(count, names=None):
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", count)
        if names is None:
            monkeypatch.delenv("LISTEN_FDNAMES", raising=False)
        else:
            monkeypatch.setenv("LISTEN_FDNAMES", names)

    return say


def test_names_are_with_the_descriptors_and_both_are_told_once(handed, monkeypatch):
    monkeypatch.setattr(systemd, "FIRST", 1000000)       # where there are none: these need not be open
    handed("3", "web:admin")
    assert systemd.has_sockets()
    assert systemd.take_sockets() == [(1000000, "web"), (1000001, "admin"), (1000002, "")]
    assert not systemd.has_sockets()
    assert not {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} & os.environ.keys()
    with pytest.raises(ValueError, match=r"^systemd has handed in no sockets"):
        systemd.take_sockets()


@pytest.mark.parametrize("count", ["-1", "many", "9999999999", "1e3", "²"])
def test_a_number_of_sockets_that_is_none_is_refused(count, handed):
    handed(count)
    with pytest.raises(ValueError, match=f"^LISTEN_FDS is {count!r}, which is no number of sockets$"):
        systemd.take_sockets()


def test_one_that_cannot_be_listened_on_is_named(handed, monkeypatch):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        monkeypatch.setattr(systemd, "FIRST", datagram.fileno())
        handed("1", "web")
        with pytest.raises(ValueError, match=rf"^sockets: web of systemd \(descriptor {datagram.fileno()}\) is a data"):
            c1m.Server(sockets="systemd").listen()


# ---- systemd's own programs ----


@pytest.mark.parametrize("where", ["path", "port"])
def test_systemd_socket_activate(where, tmp_path):
    activate = shutil.which("systemd-socket-activate") or pytest.skip("systemd-socket-activate is not installed")
    (tmp_path / "a.txt").write_text("a")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = tmp_path / "socket" if where == "path" else port
    listen = str(address) if where == "path" else f"127.0.0.1:{port}"
    process = subprocess.Popen(
        [activate, "-l", listen, "--fdname=web", sys.executable, "-m", "c1m", "serve", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    try:
        assert "Listening on" in process.stderr.readline()
        assert get(address, "/a.txt").body == b"a"           # which starts it, in the place of systemd-socket-activate
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        assert f"  {'unix:' if where == 'path' else 'http://'}{listen}{'' if where == 'path' else '/'}\n" in out
        assert "Traceback" not in errors
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
