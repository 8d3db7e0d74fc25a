"""What thousands of connections cost the others: the length of an iteration, system calls, waits for the GIL."""

import asyncio
import contextlib
import os
import resource
import select
import signal
import time
from pathlib import Path

import pytest
from client import PATIENCE, Http, Program, WebSocket, handshake, request
from wire import BINARY, PING, TEXT, frame

import c1m

CROWD = 4000                     # connections: some tens of milliseconds' work for the server
SOME = 150                       # subscribers


# ---- the length of an iteration ----

SERVER = """
import c1m

class Subscribes:
    def on_open(self, ws):
        ws.subscribe("t")

class Publishes:
    def on_message(self, ws, message):
        server.publish("t", message)

server = c1m.Server(ports=[0], shutdown_timeout=30)
server.websocket("/subscribe", Subscribes())
server.websocket("/publish", Publishes())
server.websocket("/echo")
server.websocket("/pings", ping_interval=0.6)
with server:
    print(server.ports[0], flush=True)
    for line in sys.stdin:
        if line == "publish\\n":
            server.publish("t", "news")
        else:
            server.stop()
"""


class Crowd:
    """Thousands of WebSockets, and a look at which of them have something to read."""

    def __init__(self, port, target):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < CROWD + 1000:
            pytest.skip("too few descriptors for a crowd")
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.clients = {}
        self.epoll = select.epoll()
        for _ in range(CROWD):
            client = WebSocket(port, target)
            self.clients[client.socket.fileno()] = client
            self.epoll.register(client.socket, select.EPOLLIN)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.epoll.close()
        for client in self.clients.values():
            client.close()

    def first(self):
        """Waits until one of them has something to read."""
        assert self.epoll.poll(PATIENCE, 1)

    def served(self):
        """Those who have something to read."""
        return [self.clients[fd] for fd, _ in self.epoll.poll(0, CROWD)]


def late(served, of=CROWD):
    """Whether others had to wait until about all of a crowd were served."""
    return served > of * 3 // 4


@pytest.mark.parametrize("who", ["a handler", "another thread"])
def test_a_publish_to_thousands_leaves_others_their_turn(who):
    with Program(SERVER) as server:
        port = int(server.line())
        with (
            Crowd(port, "/subscribe") as crowd,
            WebSocket(port, "/publish") as speaker,
            WebSocket(port, "/echo") as other,
        ):
            for _ in range(5):       # while this machine is busy, the count may come late
                if who == "a handler":
                    speaker.send(frame(TEXT, b"news"))
                else:
                    server.say("publish")
                crowd.first()
                assert other.echo(b"x") == (BINARY, b"x")
                served = len(crowd.served())
                for client in crowd.clients.values():
                    assert client.message() == (TEXT, b"news")
                if not late(served):
                    break
            assert not late(served)


def test_leaving_thousands_leaves_others_their_turn():
    """A request that was begun is answered before all have been told that the server leaves."""
    for _ in range(3):
        with Program(SERVER) as server:
            port = int(server.line())
            with Crowd(port, "/echo") as crowd, Http(port) as http:
                data = request()
                http.send(data[:-1])
                last = crowd.clients[max(crowd.clients)]
                assert last.echo(b"x") == (BINARY, b"x")       # and so the half request has come
                server.say("stop")
                crowd.first()
                http.send(data[-1:])
                assert http.answer().status == 404
                served = len(crowd.served())
                for client in crowd.clients.values():
                    assert client.closing() == 1001
            assert server.ended()[0] == 0
        if not late(served):
            break
    assert not late(served)


def test_thousands_of_deadlines_at_once_leave_others_their_turn():
    for _ in range(3):
        with Program(SERVER) as server, contextlib.ExitStack() as stack:
            port = int(server.line())
            other = stack.enter_context(WebSocket(port, "/echo"))
            crowd = stack.enter_context(Crowd(port, "/pings"))
            os.kill(server.pid, signal.SIGSTOP)
            before = crowd.served()
            for client in before:
                assert client.frame()[1] == PING
            time.sleep(0.8)          # until all the deadlines have passed
            os.kill(server.pid, signal.SIGCONT)
            crowd.first()
            assert other.echo(b"x") == (BINARY, b"x")
            served = len(crowd.served())
            for client in set(crowd.clients.values()) - set(before):
                assert client.frame() == (True, PING, b"")
        if not late(served, CROWD - len(before)):
            break
    assert not late(served, CROWD - len(before))


# ---- system calls ----


def writes():
    """How many write(2)s this thread has done: none of them is to a socket."""
    for line in Path("/proc/thread-self/io").read_text().splitlines():
        if line.startswith("syscw: "):
            return int(line.split()[1])
    raise AssertionError("no syscw in /proc/thread-self/io")


class Counts:
    """Does something to all subscribers, and counts the writes."""

    def __init__(self, act):
        self.members, self.act, self.counted = [], act, []

    def on_open(self, ws):
        ws.subscribe("t")
        self.members.append(ws)

    def count(self):
        before = writes()
        {
            "publish": lambda: self.server.publish("t", "news"),
            "send": lambda: [ws.send("news") for ws in self.members],
            "close": lambda: [ws.close(4000) for ws in self.members],
        }[self.act]()
        self.counted.append(writes() - before)

    def check(self, clients):
        for client in clients:
            if self.act == "close":
                assert client.closing() == 4000
            else:
                assert client.message() == (TEXT, b"news")
        [counted] = self.counted
        assert counted <= 1


@pytest.mark.parametrize("act", ["publish", "send", "close"])
@pytest.mark.parametrize("where", ["coroutine", "loop"])
def test_a_message_to_many_wakes_the_server_once_in_asyncio(where, act):
    """From a coroutine, and from anything else on the loop's thread: with one write to the eventfd."""
    counts = Counts(act)

    class Speaks:
        async def on_message(self, ws, message):
            await asyncio.sleep(0)
            counts.count()

    async def main():
        server = counts.server = c1m.Server(ports=[0])
        server.websocket("/ws", counts)
        server.websocket("/speak", Speaks())
        async with server:
            with contextlib.ExitStack() as stack:
                port = server.ports[0]

                def connect():
                    return [stack.enter_context(WebSocket(port)) for _ in range(SOME)]

                clients = await asyncio.to_thread(connect)
                if where == "loop":
                    counts.count()
                else:
                    speaker = stack.enter_context(await asyncio.to_thread(WebSocket, port, "/speak"))
                    speaker.send(frame(TEXT, b"go"))
                await asyncio.to_thread(counts.check, clients)

    asyncio.run(asyncio.wait_for(main(), 2 * PATIENCE))


@pytest.mark.parametrize("act", ["publish", "send", "close"])
def test_a_message_to_many_wakes_the_server_once_in_on_close(act):
    counts = Counts(act)

    class Leaves:
        def on_close(self, ws, code, reason):
            counts.count()

    server = counts.server = c1m.Server(ports=[0])
    server.websocket("/ws", counts)
    server.websocket("/leave", Leaves())
    with server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(WebSocket(server.ports[0])) for _ in range(SOME)]
        with WebSocket(server.ports[0], "/leave") as leaves:
            leaves.reset()
        counts.check(clients)


# ---- the GIL ----

BUSY = """
import os, threading
import c1m

class Handler:
    def __init__(self):
        self.closed = 0
        self.monitor = None

    def on_open(self, ws):
        ws.subscribe("t")
        self.monitor = self.monitor or ws

    def on_message(self, ws, message):
        ws.send(message)

    def on_close(self, ws, code, reason):
        self.closed += 1
        if self.closed == many:
            self.monitor.send("all")

def spin():
    while True:
        pass

many = int(sys.argv[2])
server = c1m.Server(ports=[0])
server.websocket("/ws", Handler())
server.websocket("/zip", Handler(), compression="dedicated")
with server:
    print(server.ports[0], server._thread.native_id, flush=True)
    sys.stdin.readline()
    # On two processors, where there are two; and three of them, so that one is always ready to take the GIL.
    first, *_, last = [*os.sched_getaffinity(0)] * 2
    os.sched_setaffinity(server._thread.native_id, {first})
    for _ in range(3):
        spinner = threading.Thread(target=spin, daemon=True)
        spinner.start()
        os.sched_setaffinity(spinner.native_id, {last})
    print("spinning", flush=True)
    for line in sys.stdin:
        server.publish("t", "x" * 1000)
"""


@pytest.mark.parametrize("what", ["messages", "resets", "a publish"])
def test_beside_a_busy_thread_the_gil_is_waited_for_once_for_many(what):
    """Each wait takes the interpreter's switch interval, 5 ms, and has the server's thread sleep, too."""
    many = 400
    offer = handshake("/zip", "Sec-WebSocket-Extensions: permessage-deflate")
    opening = offer if what == "a publish" else None
    with Program(BUSY, many) as server, contextlib.ExitStack() as stack:
        port, thread = map(int, server.line().split())

        def sleeps():
            """How often the server's thread has slept so far."""
            for line in Path(f"/proc/{server.pid}/task/{thread}/status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches:"):
                    return int(line.split()[1])
            raise AssertionError("no voluntary_ctxt_switches in status")

        monitor, *clients = [stack.enter_context(WebSocket(port, opening=opening)) for _ in range(many + 1)]
        server.say("spin")
        assert server.line() == "spinning"
        before = sleeps()
        if what == "a publish":
            server.say("publish")
            for client in clients:
                first, n = client.take(2)
                assert first == 0xC1         # compressed
                client.take(n)
        else:
            os.kill(server.pid, signal.SIGSTOP)      # so that they all come together
            for client in clients:
                if what == "messages":
                    client.send(frame(TEXT, b"x"))
                else:
                    client.reset()
            os.kill(server.pid, signal.SIGCONT)
            for client in clients if what == "messages" else [monitor]:
                assert client.message()[1] == (b"x" if what == "messages" else b"all")
        slept = sleeps() - before
    assert slept < many // 5
