"""How a server ends that is not ended as it should be: its loop was closed, or its descriptors."""

import asyncio
import contextlib
import gc
import threading
import weakref

import pytest
from client import PATIENCE, WebSocket, descriptors, program
from wire import TEXT

import c1m

# ---- a server whose loop is closed, and which is forgotten ----


class Handler:

    def __init__(self, server=None):
        self.server, self.last = server, None

    def on_open(self, ws):
        ws.subscribe("t")
        self.last = ws

    def on_message(self, ws, message):
        ws.send(message)


def left_behind(make):
    """A server is forgotten, its loop closed: what refers weakly to its handler, and a client."""
    loop = asyncio.new_event_loop()
    server = c1m.Server(ports=[0])
    handler = make(server)
    server.websocket("/ws", handler)
    loop.run_until_complete(server.__aenter__())
    client = loop.run_until_complete(asyncio.to_thread(WebSocket, server.ports[0]))
    echoed = loop.run_until_complete(asyncio.to_thread(client.echo, b"x", TEXT))
    assert echoed == (TEXT, b"x")
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    return weakref.ref(handler), client


def of_an_object(server):
    return Handler()


def of_an_object_with_the_server(server):
    return Handler(server)


def of_a_closure(server):
    def on_message(ws, message):
        assert server.stats()["websockets"] == 1
        ws.send(message)

    return on_message


@pytest.mark.parametrize("make", [of_an_object, of_an_object_with_the_server, of_a_closure])
@pytest.mark.parametrize("times", [1, 3])
def test_a_server_whose_loop_is_closed_goes_with_its_descriptors_and_its_clients_see_the_end(make, times):
    gc.collect()
    before = descriptors()
    for _ in range(times):
        handler, client = left_behind(make)
        gc.collect()
        assert handler() is None
        with client:
            assert client.drained() <= 4         # at most a Close
    assert descriptors() <= before


def test_a_websocket_that_outlives_its_server_is_closed():
    """Whatever is called of it raises Closed or has no effect."""
    kept = []

    class Keeps(Handler):
        def on_open(self, ws):
            super().on_open(ws)
            kept.append(ws)

    handler, client = left_behind(lambda server: Keeps())
    gc.collect()
    with client:
        [ws] = kept
        for call in (
            lambda: ws.send("x"), lambda: ws.ping(), lambda: ws.subscribe("t"), lambda: ws.unsubscribe("t"),
            lambda: ws.publish("t", "x"), ws.pause, ws.resume, ws.close,
        ):
            with contextlib.suppress(c1m.Closed):
                call()
        assert ws.buffered < 100
        assert (ws.path, ws.remote) == ("/ws", "127.0.0.1")
        repr(ws)
        ws = call = None
        kept.clear()
        gc.collect()
        assert handler() is None
        assert client.drained() <= 4


def test_a_server_that_is_forgotten_at_the_end_of_the_program_does_no_harm():
    out, errors = program("""
import asyncio
import c1m
from client import WebSocket

kept = []

class Handler:
    def on_open(self, ws):
        kept.append(ws)

    async def on_message(self, ws, message):
        await ws.send(message)
        await asyncio.sleep(0)

    def on_close(self, ws, code, reason):
        pass

async def main():
    global server, client
    server = c1m.Server(ports=[0])
    server.websocket("/ws", Handler())
    await server.__aenter__()
    client = await asyncio.to_thread(WebSocket, server.ports[0])
    assert await asyncio.to_thread(client.echo, b"x", 1) == (1, b"x")

asyncio.run(main())
assert client.socket.fileno() >= 0
print("done")
""")
    assert out == "done\n"
    assert "Exception ignored" not in errors
    assert "Traceback" not in errors


# ---- coroutines that wait to send when their loop is closed ----

SENDING = """
import asyncio, gc, os, weakref
import c1m
from client import WebSocket

calls = []

class Handler:
    def on_open(self, ws):
        calls.append(ws)

    def on_drain(self, ws):
        calls.append("drain")

    def on_close(self, ws, code, reason):
        calls.append((code, reason))

async def send(ws):
    await ws.send(bytes(16 << 20))

async def begin():
    global server, client, task
    server = c1m.Server(ports=[0])
    server.websocket("/ws", Handler(), max_send_queue=20 << 20)
    await server.__aenter__()
    client = await asyncio.to_thread(WebSocket, server.ports[0], receive_buffer=4096)
    while not calls:
        await asyncio.sleep(0)
    task = asyncio.ensure_future(send(calls[0]))
    task._log_destroy_pending = False
    while not 0 < calls[0].buffered < 16 << 20:
        await asyncio.sleep(0)

loop = asyncio.new_event_loop()
loop.run_until_complete(begin())
loop.run_until_complete(loop.shutdown_default_executor())
loop.close()
[ws] = calls
"""


def test_on_close_is_called_though_the_loop_of_one_who_waits_to_send_is_closed():
    _, errors = program(SENDING + """
server._site.stop()
assert server._site.iterate() is None
assert calls[1:] == [(1006, "")] or calls[1:] == [(1001, "")], calls
assert ws.closed
gone = weakref.ref(ws)
calls.clear()
del ws, task
gc.collect()
assert gone() is None
""")
    assert "Exception ignored" not in errors


def test_on_drain_is_called_though_the_loop_of_one_who_waits_to_send_is_closed():
    _, errors = program(SENDING + """
client.socket.setblocking(False)
while calls == [ws]:
    server._site.iterate()
    try:
        client.socket.recv(1 << 20)
    except BlockingIOError:
        pass
assert calls == [ws, "drain"]
server._site.stop()
assert server._site.iterate() is None
assert len(calls) == 3
assert ws.closed
""")
    assert "Exception ignored" not in errors


def test_no_further_call_begins_where_a_coroutine_is_collected_that_has_not_ended():
    out, errors = program("""
import asyncio, gc
import c1m
from client import WebSocket
from wire import TEXT, frame

seen = []

async def on_message(ws, message):
    seen.append(message)
    await asyncio.get_running_loop().create_future()

async def begin():
    server = c1m.Server(ports=[0])
    server.websocket("/ws", on_message)
    await server.__aenter__()
    client = await asyncio.to_thread(WebSocket, server.ports[0])
    client.send(b"".join(frame(TEXT, b"%d" % i) for i in range(3)))
    while server.stats()["messages"] < 3 or not seen:
        await asyncio.sleep(0)
    return client

loop = asyncio.new_event_loop()
client = loop.run_until_complete(begin())
loop.run_until_complete(loop.shutdown_default_executor())
loop.close()
del loop
gc.collect()
gc.collect()
print(seen)
""")
    assert out == "['0']\n"
    assert "GeneratorExit" not in errors
    assert "Exception ignored" not in errors


# ---- descriptors that someone has closed ----

CLOSED_EPOLL = """
import asyncio, os, threading
import c1m
from client import WebSocket
from wire import TEXT, frame

class Handler:
    def on_message(self, ws, message):
        os.close(server._site.fileno())

server = c1m.Server(ports=[0], shutdown_timeout=1)
server.websocket("/ws", Handler())
"""


def test_run_ends_with_an_error_that_names_epoll_wait_where_it_fails():
    out, _ = program(CLOSED_EPOLL + """
server.listen()

def visit():
    with WebSocket(server.ports[0]) as client:
        client.send(frame(TEXT, b"x"))
        client.drained()

thread = threading.Thread(target=visit)
thread.start()
try:
    server.run()
except OSError as error:
    print(error)
thread.join()
""")
    assert "epoll_wait" in out
    assert "Bad file descriptor" in out


def test_with_ends_where_epoll_wait_fails():
    """What the thread of `with server` met is logged, and the clients see the end."""
    out, errors = program(CLOSED_EPOLL + """
with server, WebSocket(server.ports[0]) as client:
    client.send(frame(TEXT, b"x"))
    client.drained()
    server._thread.join()
    try:
        server.publish("t", "x")
    except RuntimeError as error:
        print(error)
""")
    assert out.startswith("this server is not running: ")
    assert "epoll_wait" in errors


def test_turn_raises_where_epoll_wait_fails_and_async_with_ends():
    out, errors = program(CLOSED_EPOLL + """
def closed(fd):
    try:
        os.fstat(fd)
    except OSError:
        return True

async def main():
    async with server:
        epoll = server._site.fileno()
        with await asyncio.to_thread(WebSocket, server.ports[0]) as client:
            client.send(frame(TEXT, b"x"))
            while not closed(epoll):
                await asyncio.sleep(0)
            try:
                server._site.iterate()
            except OSError as error:
                print(error)

try:
    asyncio.run(main())
except OSError as error:
    print(error)
print("ended")
""")
    assert "epoll_wait" in out + errors
    assert out.endswith("ended\n")


@pytest.mark.parametrize("data", [lambda ws: ws, lambda ws: ws.send, lambda ws: (ws, 1), lambda ws: {"ws": ws}])
def test_a_websocket_that_refers_to_itself_is_freed(data):
    left = []

    class Refers:
        def on_open(self, ws):
            ws.data = data(ws)
            left.append(weakref.ref(ws))

        def on_close(self, ws, code, reason):
            closed.set()

    closed = threading.Event()
    server = c1m.Server(ports=[0])
    server.websocket("/ws", Refers())
    with server:
        WebSocket(server.ports[0]).close()
        assert closed.wait(PATIENCE)
    gc.collect()
    assert left[0]() is None


def test_a_server_with_a_log_that_was_dropped_is_freed():
    out, _ = program("""
import gc, os, tempfile, threading, time, weakref
import c1m
log = tempfile.NamedTemporaryFile()
for _ in range(10):
    server = c1m.Server(ports=[0], access_log=log.name)
    server.listen()
    site = weakref.ref(server._site)
    server = None
    gc.collect()
while threading.active_count() > 1:
    time.sleep(0.01)
print(site() is None)
""")
    assert out == "True\n"
