"""Sockets that somebody else has opened: taken over, put right or refused, and left to whoever has them, too."""

import os
import signal
import socket
import ssl
import subprocess
import sys

import pytest
from client import PATIENCE, Program, WebSocket, connected, get, until
from wire import TEXT

import c1m


def listening(address=("127.0.0.1", 0)):
    return socket.create_server(address)


def bound(address=("127.0.0.1", 0), family=socket.AF_INET, kind=socket.SOCK_STREAM):
    made = socket.socket(family, kind)
    made.bind(address)
    return made


def served(server, address):
    with WebSocket(address) as ws:
        return ws.echo(b"x", TEXT) == (TEXT, b"x")


def made(*sockets, **settings):
    server = c1m.Server(sockets=sockets, **settings)
    server.websocket("/ws")
    return server


# ---- taken ----


def test_a_listening_socket_takes_the_place_of_ports():
    given = listening()
    port = given.getsockname()[1]
    server = made(given)
    assert server.ports == []
    with server:
        assert server.ports == [port]
        assert given.fileno() == -1              # it is the server's now
        assert served(server, port)
    with pytest.raises(ConnectionRefusedError):
        connected(port)


def test_one_socket_needs_no_list_and_may_be_beside_ports_and_paths(tmp_path):
    given = listening()
    port = given.getsockname()[1]
    server = c1m.Server(sockets=given, ports=[0], unix=tmp_path / "socket")
    server.websocket("/ws")
    with server:
        assert server.ports[1:] == [port]
        for address in (*server.ports, tmp_path / "socket"):
            assert served(server, address)


def test_a_descriptor():
    given = listening()
    port, fd = given.getsockname()[1], given.detach()
    os.set_inheritable(fd, True)
    with made(fd) as server:
        assert served(server, port)
        assert not os.get_inheritable(fd)
    with pytest.raises(OSError):
        os.fstat(fd)


def test_a_unix_socket_whose_path_stays(tmp_path):
    path = str(tmp_path / "socket")
    with made(bound(path, socket.AF_UNIX)) as server:
        assert server.ports == []
        assert served(server, path)
    assert os.path.exists(path)


def test_an_abstract_unix_socket():
    address = f"\0c1m-test-{os.getpid()}"
    with made(bound(address, socket.AF_UNIX)) as server, socket.socket(socket.AF_UNIX) as client:
        client.connect(address)
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 404 ")
        assert server._handed_in == [f"unix:@{address[1:]}"]


def test_one_that_is_only_bound_is_made_to_listen():
    given = bound()
    port = given.getsockname()[1]
    with made(given) as server:
        assert served(server, port)


def test_ipv6():
    try:
        given = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    port = given.getsockname()[1]
    with made(given) as server:
        assert served(server, ("::1", port))
        assert server._handed_in == [f"http://[::1]:{port}/"]


def test_who_waited_before_it_listened_is_served():
    given = listening()
    port = given.getsockname()[1]
    with connected(port) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with made(given):
            assert client.recv(100).startswith(b"HTTP/1.1 404 ")


# ---- whose it is ----


def test_a_duplicate_serves_one_server_after_the_other():
    given = listening()
    port = given.getsockname()[1]
    for _ in range(3):
        with made(given.dup()) as server:
            assert served(server, port)
    with connected(port) as client:
        peer, _ = given.accept()
        peer.close()
        assert client.recv(1) == b""


FORKED = """
import os, socket
import c1m
from client import connected, get

given = socket.create_server(("127.0.0.1", 0))
port = given.getsockname()[1]
os.waitpid(os.fork() or os._exit(0), 0)          # from now on sockets are shut down before they are closed
with c1m.Server(sockets=given.dup()):
    assert get(port).status == 404
with connected(port) as client:
    given.accept()[0].close()
    assert client.recv(1) == b""
"""


def test_it_is_not_shut_down_for_those_who_have_it_too():
    with Program(FORKED) as process:
        assert process.ended() == (0, "", "")


def test_a_second_run_needs_sockets_of_its_own():
    server = made(listening())
    with server:
        pass
    with pytest.raises(RuntimeError, match="were closed at the end of the first run"):
        server.listen()


def test_what_fails_leaves_them_to_the_caller(tmp_path):
    given, fd = listening(), listening().detach()
    port = given.getsockname()[1]
    with pytest.raises(ValueError, match="is not open"):
        made(given, fd, 1 << 30).listen()
    with pytest.raises(OSError, match="access_log"):
        made(given, fd, access_log=tmp_path).listen()
    os.close(fd)
    with made(given) as server:
        assert served(server, port)


# ---- refused ----


def pair():
    return socket.socketpair()[0]


def closed():
    made = listening()
    made.close()
    return made


def tls():
    return ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).wrap_socket(listening(), server_side=True)


def descriptor_of_a_file():
    return os.open("/dev/null", os.O_RDONLY)


@pytest.mark.parametrize(("make", "says"), [
    (lambda: bound(kind=socket.SOCK_DGRAM), "is a datagram socket, and a stream socket is wanted"),
    (lambda: socket.socket(), "is not bound to an address: bind() it first"),
    (lambda: socket.socket(socket.AF_UNIX), "is not bound to an address: bind() it first"),
    (lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW), "is neither a TCP nor a Unix socket"),
    (pair, "is a connection, and a listening socket is wanted"),
    (closed, "is closed, or was detached: a socket is the server's from its first listen() on"),
    (tls, "is a TLS socket: TLS is a proxy's to speak, see docs/proxy.md"),
    (descriptor_of_a_file, "is no socket"),
    (lambda: 1 << 20, "is not open"),
])
def test_what_cannot_be_listened_on_is_refused_in_a_line(make, says):
    given = make()
    with pytest.raises(ValueError) as raised:
        made(given).listen()
    what = f"descriptor {given}" if isinstance(given, int) else repr(given)
    assert str(raised.value) == f"sockets: {what} {says}"
    if not isinstance(given, int):
        given.close()


def test_one_that_is_given_twice_is_refused():
    with listening() as given, pytest.raises(ValueError, match=r"^sockets: descriptor \d+ is given twice$"):
        made(given, given.fileno()).listen()


# ---- the command ----


def test_by_flag_and_by_file(serving, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    for by in ("flag", "file"):
        with listening() as given:
            fd = given.fileno()
            if by == "file":
                (tmp_path / "c1m.toml").write_text(f'root = "."\nsockets = [{fd}]\n')
            arguments = [tmp_path, "--socket", fd] if by == "flag" else ["--config", tmp_path / "c1m.toml"]
            process = serving(*arguments, pass_fds=[fd])
        assert f"  http://127.0.0.1:{process.port}/" in process.greeting
        assert get(process.port, "/a.txt").body == b"a"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize(("fd", "says"), [
    ("0", "sockets: descriptor 0 is no socket"),
    ("99", "sockets: descriptor 99 is not open"),
    ("x", "--socket: 'x' is not a descriptor such as 3, or systemd"),
])
def test_a_wrong_one_is_told(fd, says):
    done = subprocess.run(
        [sys.executable, "-m", "c1m", "serve", "--socket", fd], capture_output=True, text=True,
        stdin=subprocess.DEVNULL, timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"Error: {says}\n")


def test_a_blocking_one_is_no_trouble(serving):
    """Whose descriptor is blocking, and whose connection goes before it is accepted, would hold up the server."""
    with listening() as given:
        assert given.getblocking()
        port = given.getsockname()[1]
        with made(given.dup()) as server:
            for _ in range(20):
                client = connected(port)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                client.close()
            assert served(server, port)
            until(lambda: server.stats()["connections"] == 0, "all to be gone")
