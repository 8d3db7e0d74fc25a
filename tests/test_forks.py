"""What a fork leaves of a server: in the parent all of it, in the child nothing."""

import contextlib
import os
import re
import signal
from pathlib import Path

import pytest
from client import Program, WebSocket, program, until
from wire import TEXT, close, frame

SERVER = """
import asyncio, os, threading
import c1m

way, child_does = sys.argv[2:]

class Handler:
    def on_message(self, ws, message):
        if message == "end":
            end()
        elif message != "fork":
            ws.send(message)
        elif child := os.fork():
            ws.send(str(child))
        elif child_does == "os._exit":
            os._exit(0)
        elif child_does == "sys.exit":
            sys.exit()

server = c1m.Server(ports=[0], shutdown_timeout=20)
server.websocket("/ws", Handler())

def serving():
    print(server.ports[0], flush=True)

async def main():
    global end
    ended = asyncio.Event()
    end = ended.set
    async with server:
        serving()
        await ended.wait()

if way == "run":
    end = server.stop
    server.listen()
    serving()
    server.run()
elif way == "with":
    ended = threading.Event()
    end = ended.set
    with server:
        serving()
        ended.wait()
else:
    asyncio.run(main())
"""


def gone(pid):
    """Whether a process has ended, though its parent may not have asked for its status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def tcp_sockets(pid):
    """The inodes of a process's TCP sockets."""
    known = {line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]}
    found = set()
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(link).removeprefix("socket:[").removesuffix("]"))
    return found & known


@contextlib.contextmanager
def killed(pid):
    """At the end, whatever it has come to."""
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("child_does", ["os._exit", "sys.exit", "return"])
@pytest.mark.parametrize("way", ["run", "with", "async with"])
def test_a_fork_in_a_handler_is_not_noticed_by_any_client(way, child_does):
    """Neither by those who are there nor by those who come; and the child serves nobody and ends."""
    with Program(SERVER, way, child_does) as served:
        port = int(served.line())
        with WebSocket(port) as a, WebSocket(port) as b:
            a.send(frame(TEXT, b"fork"))
            child = int(a.message()[1])
            with killed(child):
                if (way, child_does) == ("async with", "return"):      # then there still is asyncio's loop
                    until(lambda: not tcp_sockets(child), "the child to be no server any more")
                else:
                    until(lambda: gone(child), "the child to end")
                for i in range(20):
                    for client in (a, b):
                        assert client.echo(b"%d" % i, TEXT) == (TEXT, b"%d" % i)
                    with WebSocket(port) as another:
                        assert another.echo(b"new", TEXT) == (TEXT, b"new")
            a.send(frame(TEXT, b"end"))
            for client in (a, b):
                assert client.closing() == 1001
                client.send(close(1001))
                assert client.rest() == b""
        assert served.ended()[0] == 0


@pytest.mark.parametrize("way", ["run", "with", "async with"])
def test_while_the_child_is_busy_the_parent_serves_on(way):
    """And whatever the child calls of what it knows from before has no effect."""
    script = SERVER.replace("os._exit(0)", """
            for call in (
                lambda: ws.send("from the child"), lambda: ws.send(bytes(1 << 20)),
                lambda: ws.send(bytes(1 << 20)), ws.ping, lambda: ws.subscribe("t"),
                lambda: ws.publish("t", "x"), ws.pause, ws.resume,
                lambda: server.publish("t", "x"), lambda: server.subscribers("t"), server.stop, server.stats,
                lambda: ws.buffered, lambda: ws.close(4000), lambda: print(ws, file=sys.stderr),
            ):
                try:
                    call()
                except Exception as error:
                    print(repr(error), file=sys.stderr)
            os.write(1, b"done\\n")
            import signal
            signal.pause()
""")
    with Program(script, way, "os._exit") as served:
        port = int(served.line())
        with WebSocket(port) as a, WebSocket(port) as b:
            a.send(frame(TEXT, b"fork"))
            child = int(a.message()[1])
            with killed(child):
                assert served.line() == "done"
                for i in range(20):
                    for client in (a, b):
                        assert client.echo(b"%d" % i, TEXT) == (TEXT, b"%d" % i)
                    with WebSocket(port) as another:
                        assert another.echo(b"new", TEXT) == (TEXT, b"new")
                until(lambda: not tcp_sockets(child), "the child to close them")
            b.send(frame(TEXT, b"end"))
            for client in (a, b):
                assert client.closing() == 1001


@pytest.mark.parametrize("how", ["os.fork", "Process", "ProcessPoolExecutor"])
def test_a_connection_that_the_parent_closes_ends_though_a_child_lives(how):
    script = """
import concurrent.futures, multiprocessing, os, signal
import c1m

how = sys.argv[2]
context = multiprocessing.get_context("fork")
server = c1m.Server(ports=[0], shutdown_timeout=0.1)
server.websocket("/echo")
server.websocket("/ws", lambda ws, message: ws.send(message))
with server:
    print(server.ports[0], flush=True)
    sys.stdin.readline()
    if how == "os.fork":
        if (child := os.fork()) == 0:
            signal.pause()
    elif how == "Process":
        process = context.Process(target=signal.pause, daemon=True)
        process.start()
        child = process.pid
    else:
        pool = concurrent.futures.ProcessPoolExecutor(1, context)
        child = pool.submit(os.getpid).result()
    print(child, flush=True)
    sys.stdin.readline()
print("ended", flush=True)
sys.stdin.readline()
"""
    with Program(script, how) as served:
        port = int(served.line())
        with (
            WebSocket(port, "/echo") as a, WebSocket(port) as b,
            WebSocket(port, "/echo") as c, WebSocket(port) as d,
        ):
            served.say("fork")
            child = int(served.line())
            with killed(child):
                until(lambda: not tcp_sockets(child), "the child to close them")
                for client in (a, b, c, d):
                    assert client.echo(b"x", TEXT) == (TEXT, b"x")
                for client in (a, b):
                    client.send(close(1000))
                    assert client.closing() == 1000
                    assert client.rest() == b""
                served.say("end")
                assert served.line() == "ended"
                for client in (c, d):      # which do not answer
                    assert client.closing() == 1001
                    assert client.rest() == b""
                assert not gone(child)


def test_a_child_that_leaves_with_takes_nothing_from_the_parent(tmp_path):
    """As one does that exits: neither the Unix-domain socket nor the thread."""
    program("""
import os
import c1m
from client import WebSocket, get

path = sys.argv[2]
server = c1m.Server(ports=[0], unix=path)
server.websocket("/ws")
with server, WebSocket(path) as client:
    child = os.fork()
    if child == 0:
        sys.exit()
    assert os.waitpid(child, 0)[1] == 0
    assert client.echo(b"x") == (2, b"x")
    assert get(path).status == 404
    assert get(server.ports[0]).status == 404
assert not os.path.exists(path)
""", tmp_path / "socket")


@pytest.mark.parametrize("way", ["server.run()", "enter(server)", "asyncio.run(aenter(server))"])
def test_who_listens_and_forks_is_told_to_listen_and_run_in_one_process(way):
    out, _ = program("""
import asyncio, os, signal
import c1m
from client import get

def enter(server):
    with server:
        pass

async def aenter(server):
    async with server:
        pass

server = c1m.Server(ports=[0])
server.listen()
if (child := os.fork()) == 0:
    signal.alarm(5)              # of one that serves
    try:
        """ + way + """
    except RuntimeError as error:
        print(error, flush=True)
        os._exit(0)
    os._exit(1)
assert os.waitpid(child, 0)[1] == 0
with server:
    assert get(server.ports[0]).status == 404
""")
    assert re.search("listen.*(process|child)", out)


@pytest.mark.parametrize("call", [
    "publish('t', 'x')", "subscribers('t')", "listen()", "websocket('/late')", "run()",
])
def test_what_the_child_of_a_server_cannot_do_is_said_to_be_for_the_fork(call):
    out, _ = program("""
import os
import c1m

server = c1m.Server(ports=[0])
with server:
    if (child := os.fork()) == 0:
        try:
            server.""" + call + """
        except RuntimeError as error:
            print(error, flush=True)
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    print(os.getpid(), flush=True)
""")
    told, parent = out.splitlines()
    assert told.startswith(f"this server listens in process {parent}, of which this one is a fork: ")


def test_a_server_that_was_made_before_a_fork_may_listen_and_run_after_it():
    program("""
import os
import c1m
from client import WebSocket

server = c1m.Server(ports=[0])
server.websocket("/ws", lambda ws, message: ws.send(message))
child = os.fork()
with server, WebSocket(server.ports[0]) as client:
    assert client.echo(b"x", 1) == (1, b"x")
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
""")


@pytest.mark.parametrize("who_forks", ["the handler", "another thread"])
def test_the_child_of_a_running_server_may_run_one_of_its_own(who_forks):
    program("""
import os, threading
import c1m
from client import WebSocket

def echo(ws, message):
    ws.send(message)

def forks(ws, message):
    fork()
    ws.send(message)

def fork():
    if (child := os.fork()) == 0:
        other = c1m.Server(ports=[0])
        other.websocket("/ws", echo)
        with other, WebSocket(other.ports[0]) as client:
            assert client.echo(b"child", 1) == (1, b"child")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

server = c1m.Server(ports=[0])
server.websocket("/ws", forks if sys.argv[2] == "the handler" else echo)
with server, WebSocket(server.ports[0]) as client:
    for _ in range(2):
        if sys.argv[2] != "the handler":
            fork()
        assert client.echo(b"parent", 1) == (1, b"parent")
""", who_forks)


FORKS_IN = """
import os, threading
import c1m
from client import WebSocket

def forked():
    global files
    if os.fork() == 0:
        files = [open("/etc/passwd") for _ in range(8)]
    else:
        os.wait()

class Handler:
    def on_upgrade(self, request):
        sys.argv[2] == "on_upgrade" and forked()
    def on_open(self, ws):
        print("open" if files is None else "open in the child", flush=True)
    def on_close(self, ws, code, reason):
        sys.argv[2] == "on_close" and forked()

files = None
server = c1m.Server(ports=[0])
server.websocket("/ws", Handler())
server.listen()

def client():
    WebSocket(server.ports[0]).close()
    server.stop()

threading.Thread(target=client, daemon=True).start()
server.run()
if files is not None:
    for file in files:
        os.fstat(file.fileno())
    print("whole")
"""


@pytest.mark.parametrize("where", ["on_upgrade", "on_close"])
def test_a_child_that_returns_from_a_handler_keeps_its_own_files(where):
    out, _ = program(FORKS_IN, where)
    assert sorted(out.splitlines()) == ["open", "whole"]


def test_a_server_that_has_ended_closes_nothing_in_children():
    """Not even what has the number of a descriptor that it once had."""
    out, _ = program("""
import os, threading
import c1m
server = c1m.Server(ports=[0])
server.listen()
threading.Timer(0.1, server.stop).start()
server.run()
files = [open("/etc/passwd") for _ in range(20)]
if os.fork() == 0:
    for file in files:
        os.fstat(file.fileno())
    print("whole", flush=True)
    os._exit(0)
os.wait()
""")
    assert out == "whole\n"


def test_a_connection_that_the_parent_closes_ends_though_a_child_lives_that_python_has_not_seen():
    """One that was forked in C; a listener's port, too, and no processor is kept busy by what the child holds."""
    script = """
import ctypes, os, signal
import c1m

libc = ctypes.PyDLL(None)
server = c1m.Server(ports=[0], shutdown_timeout=0.5)
server.websocket("/echo")
server.websocket("/ws", lambda ws, message: ws.send(message))
with server:
    print(server.ports[0], flush=True)
    sys.stdin.readline()
    if (child := libc.fork()) == 0:
        libc.pause()
    print(child, flush=True)
    sys.stdin.readline()
print("ended", flush=True)
sys.stdin.readline()
"""
    with Program(script) as served:
        port = int(served.line())
        with (
            WebSocket(port, "/echo") as a, WebSocket(port) as b,
            WebSocket(port, "/echo") as c, WebSocket(port) as d,
        ):
            served.say("fork")
            child = int(served.line())
            with killed(child):
                for client in (a, b, c, d):
                    assert client.echo(b"x", TEXT) == (TEXT, b"x")
                for client in (a, b):
                    client.send(close(1000))
                    assert client.closing() == 1000
                    assert client.rest() == b""
                served.say("end")
                assert served.line() == "ended"
                for client in (c, d):
                    assert client.closing() == 1001
                    assert client.rest() == b""
                with pytest.raises(ConnectionRefusedError):
                    WebSocket(port)
                assert not gone(child)
