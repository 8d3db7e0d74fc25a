"""How a server goes: in which order connections hear of it, how WebSockets are spread, and who may say goodbye."""

import asyncio
import contextlib
import inspect
import os
import resource
import select
import signal
import struct
import threading
import time

import pytest
from client import PATIENCE, Http, Process, Program, WebSocket, connected, handshake, request, until
from wire import CLOSE, TEXT, close, frame

import c1m

MANY = int(os.environ.get("C1M_DRAIN", 1500))      # WebSockets; .ci/run has 10,000 of them
EACH = 0.001                     # seconds of the drain for each connection, as c1m.reactor has it
COARSE = 0.02                    # what the kernel's coarse clock may be off by


class Room:
    """A handler whose clients all get what is published to "all"."""

    def __init__(self):
        self.closed = []

    def on_open(self, ws):
        ws.subscribe("all")

    def on_close(self, ws, code, reason):
        self.closed.append((code, reason))


def made(handler=None, **settings):
    server = c1m.Server(ports=[0], **{"shutdown_timeout": 60, **settings})
    server.websocket("/ws", handler)
    return server


@contextlib.contextmanager
def opened(server, n):
    """So many clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(WebSocket(server.ports[0])) for _ in range(n)]
        until(lambda: server.stats()["websockets"] == n, "all to be open")
        yield clients
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def refused(port):
    try:
        connected(port).close()
    except ConnectionRefusedError:
        return True
    return False


# ---- spread ----


@pytest.mark.parametrize(("n", "drain", "code", "reason"), [
    (3, 10, 1001, b"server stopping"),
    (MANY, 2, 1012, b"server restarting"),
    (MANY, 0.5, 1001, b"server stopping"),
])
def test_closes_are_spread_and_never_early(n, drain, code, reason):
    """By a clock that is read before it begins, the k-th of n comes after k/n of the drain, or later: that holds on any
    machine, however slow."""
    spread = min(drain, n * EACH)
    settings = {"shutdown_timeout": 60, "drain": drain, "drain_code": code}
    with Process(None, {"/ws": {}}, **settings) as server, opened(server, n) as clients, select.epoll() as waiting:
        by_fd = {client.socket.fileno(): client for client in clients}
        for fd in by_fd:
            waiting.register(fd, select.EPOLLIN)
        begun = time.monotonic()
        server.ask("stop")
        for told in range(n):
            [(fd, _)] = waiting.poll(PATIENCE, 1)
            assert told / n * spread <= time.monotonic() - begun + COARSE, f"the {told}th of {n} comes too early"
            client = by_fd.pop(fd)
            assert client.frame() == (True, CLOSE, struct.pack("!H", code) + reason)
            waiting.unregister(fd)
            client.send(close(code))
        assert not by_fd
        for client in clients:
            assert client.rest() == b""


def test_without_a_drain_all_are_closed_at_once():
    server = made(drain=0)
    with server, opened(server, 200) as clients:
        server.stop()
        for client in clients:
            assert client.closing() == 1001
            client.send(close(1001))


def test_clients_that_neither_answer_nor_read_do_not_hold_it_up():
    class Stuffs:
        def on_message(self, ws, message):
            ws.send(bytes(8 << 20))

    server = c1m.Server(ports=[0], shutdown_timeout=0.2)
    server.websocket("/ws", Stuffs(), max_send_queue=16 << 20)
    with server, WebSocket(server.ports[0]) as silent, WebSocket(server.ports[0], receive_buffer=4096) as unread:
        unread.send(frame(TEXT, b"x"))
        until(lambda: server.stats()["bytes_sent"] > 1000, "the kernel to take some")
        server.stop()
        assert silent.closing() == 1001
        assert silent.rest() == b""              # cut off, though it has not answered
        assert unread.drained() < 8 << 20
    assert server.stats()["websockets"] == 0


def test_what_is_published_meanwhile_reaches_those_who_have_not_been_told():
    """Each has all that was published up to some moment, in order, and then its Close; whose turn comes later has no
    less."""
    server = made(Room(), drain=60)
    stopped = threading.Event()

    def publish():
        for i in range(100_000):
            try:
                server.publish("all", str(i))
            except RuntimeError:
                return
            if stopped.wait(0.001):
                return

    with server, opened(server, 300) as clients:
        thread = threading.Thread(target=publish)
        thread.start()
        assert clients[0].message() == (TEXT, b"0")
        clients[0].unread = frame(TEXT, b"0", mask=None) + clients[0].unread
        server.stop()
        counts = []
        for client in clients:
            n = 0
            while True:
                _, opcode, payload = client.frame()
                if opcode == CLOSE:
                    break
                assert payload == str(n).encode()
                n += 1
            counts.append(n)
            client.send(close(1001))
        stopped.set()
        thread.join()
    assert counts[0] > 0
    assert counts == sorted(counts)


# ---- HTTP beside it ----


def test_idle_connections_close_and_a_request_that_is_under_way_is_answered_as_the_last():
    server = made()
    with server, Http(server.ports[0]) as idle, Http(server.ports[0]) as busy:
        idle.get("/")
        busy.get("/")
        whole = request("/") * 2
        busy.send(whole[:20])
        until(lambda: server.stats()["bytes_received"] == 2 * len(request("/")) + 20, "the first bytes")
        server.stop()
        assert idle.rest() == b""
        busy.send(whole[20:])
        assert busy.answer()["Connection"] == "close"
        assert busy.rest() == b""


# ---- on_drain_start ----


def test_the_application_says_goodbye_before_the_first_close():
    server, seen = made(Room(), drain=0), []

    @server.on_drain_start
    def goodbye():
        seen.append((server.stats()["websockets"], refused(server._site_port)))
        server.publish("all", "back in a minute")

    server.on_drain_start(lambda: server.publish("all", "or two"))
    with server, opened(server, 5) as clients, Http(server.ports[0]) as idle:
        idle.get("/")
        server._site_port = server.ports[0]
        server.stop()
        server.stop()
        for client in clients:
            assert client.message() == (TEXT, b"back in a minute")
            assert client.message() == (TEXT, b"or two")
            assert client.closing() == 1001
            client.send(close(1001))
        assert idle.rest() == b""
    assert seen == [(5, True)]


def test_it_is_called_where_nobody_is_connected_and_again_in_a_second_run():
    server, seen = made(), []
    server.on_drain_start(lambda: seen.append(server.stats()["connections"]))
    for _ in range(2):
        with server:
            pass
    assert seen == [0, 0]


def test_what_it_raises_is_logged_and_the_drain_goes_on(caplog):
    server = made(Room())

    @server.on_drain_start
    def fails():
        raise LookupError("nobody knows")

    server.on_drain_start(lambda: server.publish("all", "bye"))
    with server, opened(server, 1) as [client]:
        server.stop()
        assert client.message() == (TEXT, b"bye")
        assert client.closing() == 1001
        client.send(close(1001))
    [record] = caplog.records
    assert record.message == "on_drain_start raised"
    assert "nobody knows" in str(record.exc_info[1])


def test_an_awaitable_without_asyncio_is_logged(caplog):
    server = made()

    async def later():
        pass

    server.on_drain_start(lambda: later())
    with server, opened(server, 1) as [client]:
        server.stop()
        assert client.closing() == 1001
        client.send(close(1001))
    assert "async with server" in str(caplog.records[0].exc_info[1])


@pytest.mark.parametrize(("function", "says"), [
    (5, "on_drain_start: 5 is no function"),
    (lambda server: None, "on_drain_start: the function takes (server); it is called with ()"),
])
def test_what_cannot_be_called_is_refused(function, says):
    with pytest.raises(TypeError) as raised:
        made().on_drain_start(function)
    assert str(raised.value) == says


def test_a_coroutine_function_takes_asyncio_and_none_comes_too_late():
    server = made()

    @server.on_drain_start
    async def goodbye():
        pass

    assert inspect.iscoroutinefunction(goodbye)
    with pytest.raises(RuntimeError, match=r"^on_drain_start has a coroutine function: use run\(\) or `async with"):
        server.__enter__()
    server = made()
    with server, pytest.raises(RuntimeError, match=r"^cannot add on_drain_start to a server that is listening"):
        server.on_drain_start(print)


def test_run_within_a_loop_is_refused():
    async def main():
        made().run()

    with pytest.raises(RuntimeError, match=r"^run\(\) would hold up the event loop of this thread: use `async with"):
        asyncio.run(main())


# ---- under asyncio ----


async def patiently(condition):
    for _ in range(int(PATIENCE * 1000)):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("waited in vain")


def test_a_coroutine_says_goodbye_before_the_first_close():
    async def main():
        server = made(Room(), drain=PATIENCE * 2)
        asked, go = asyncio.Event(), asyncio.Event()

        @server.on_drain_start
        async def goodbye():
            asked.set()
            await go.wait()
            server.publish("all", "bye")

        async with server:
            with await asyncio.to_thread(WebSocket, server.ports[0]) as client:
                with await asyncio.to_thread(Http, server.ports[0]) as http:
                    http.send(request("/")[:10])
                    await patiently(lambda: server.stats()["bytes_received"] == len(handshake("/ws")) + 10)
                    server.stop()
                    await asked.wait()
                    http.send(request("/")[10:])                 # served, while it waits
                    assert (await asyncio.to_thread(http.answer))["Connection"] == "close"
                assert client.silent()
                server.publish("all", "still here")
                go.set()
                assert await asyncio.to_thread(client.message) == (TEXT, b"still here")
                assert await asyncio.to_thread(client.message) == (TEXT, b"bye")
                assert await asyncio.to_thread(client.closing) == 1001
                client.send(close(1001))

    asyncio.run(main())


def test_a_coroutine_that_does_not_end_is_cancelled_and_one_that_fails_is_logged(caplog):
    async def main():
        server, cancelled = made(drain=0.01), []

        @server.on_drain_start
        async def hangs():
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.append(True)

        @server.on_drain_start
        async def fails():
            raise LookupError("nobody knows")

        async with server:
            with await asyncio.to_thread(WebSocket, server.ports[0]) as client:
                server.stop()
                assert await asyncio.to_thread(client.closing) == 1001
                client.send(close(1001))
        assert cancelled == [True]

    asyncio.run(main())
    assert [record.message for record in caplog.records] == [
        "on_drain_start: 1 coroutines were cancelled after 1 seconds", "on_drain_start raised",
    ]


def test_a_coroutine_has_a_second_however_short_the_rest_is():
    async def main():
        server = made(Room(), drain=0, shutdown_timeout=0.05)

        @server.on_drain_start
        async def goodbye():
            await asyncio.sleep(0.3)             # longer than all that is left
            server.publish("all", "bye")

        async with server:
            with await asyncio.to_thread(WebSocket, server.ports[0]) as client:
                server.stop()
                assert await asyncio.to_thread(client.message) == (TEXT, b"bye")
                assert await asyncio.to_thread(client.closing) == 1001

    asyncio.run(main())


def test_a_cancellation_cuts_a_goodbye_short():
    async def main():
        server, asked = made(drain=1000), asyncio.Event()

        @server.on_drain_start
        async def hangs():
            asked.set()
            await asyncio.Event().wait()

        async def serve():
            async with server:
                await asyncio.Event().wait()

        task = asyncio.create_task(serve())
        await patiently(lambda: server.ports != [0])
        task.cancel()
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert server.ports == [0]

    asyncio.run(main())


def test_closes_are_spread_under_asyncio():
    async def main():
        server = made(drain=0.3)
        async with server:
            with contextlib.ExitStack() as stack:
                clients = [stack.enter_context(await asyncio.to_thread(WebSocket, server.ports[0])) for _ in range(400)]
                begun = time.monotonic()
                server.stop()
                for told, client in enumerate(clients):          # in the order of their descriptors, which they came in
                    assert await asyncio.to_thread(client.closing) == 1001
                    assert told / 400 * 0.3 <= time.monotonic() - begun + COARSE
                    client.send(close(1001))

    asyncio.run(main())


# ---- signals ----

RUN = """
import c1m

server = c1m.Server(ports=[0], shutdown_timeout=1000, drain=1000)
server.websocket("/ws")

@server.on_drain_start
def goodbye():
    print("goodbye", flush=True)

server.listen()
print(server.ports[0], flush=True)
try:
    server.run()
finally:
    print(server.stats()["websockets"], flush=True)
"""


def test_a_second_signal_cuts_the_drain_short():
    with Program(RUN) as process, contextlib.ExitStack() as stack:
        port = int(process.line())
        clients = [stack.enter_context(WebSocket(port)) for _ in range(50)]
        os.kill(process.pid, signal.SIGTERM)
        assert process.line() == "goodbye"
        assert clients[0].closing() == 1001
        os.kill(process.pid, signal.SIGTERM)
        status, out, errors = process.ended()
        assert (status, out) == (-signal.SIGINT, "0\n")
        assert errors.endswith("KeyboardInterrupt\n")
        for client in clients:
            client.drained()
