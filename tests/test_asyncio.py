"""`async with server`: inside asyncio's loop, and uvloop's."""

import asyncio
import collections
import contextlib
import functools
import gc
import logging
import sys
import threading
import time
import weakref

import pytest
import websockets.asyncio.client
from client import PATIENCE, WebSocket, get, handshake, losses
from wire import BINARY, PING, PONG, TEXT, close, frame

import c1m

try:
    import uvloop
except ImportError:
    uvloop = None

SIZE = 1 << 16


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    """Runs a coroutine in a loop of that kind, for as long as a test may take."""
    if request.param == "uvloop" and uvloop is None:
        pytest.skip("uvloop is not installed")
    factory = asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop

    def run(main):
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(asyncio.wait_for(main, 2 * PATIENCE))

    return run


def made(handler=None, root=None, path="/ws", **settings):
    server = c1m.Server(root, ports=[0])
    server.websocket(path, handler, **settings)
    return server


async def until(condition, what):
    """Lets the loop turn until condition() is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.002)


def aside(function, *arguments):
    """A blocking client, in a thread of its own: the loop goes on serving it."""
    return asyncio.to_thread(function, *arguments)


async def opened(server, **settings):
    return await aside(lambda: WebSocket(server.ports[0], **settings))


def plain(coroutine_function):
    """What a decorator that knows nothing of coroutines makes of it."""
    return lambda *arguments: coroutine_function(*arguments)


def logged(caplog):
    return [record.message for record in caplog.records if record.name == "c1m"]


@pytest.mark.parametrize("kind", ["built-in", "function", "coroutine function"])
def test_echo(run, kind):
    async def coroutine(ws, message):
        await asyncio.sleep(0)
        await ws.send(message)

    def function(ws, message):
        ws.send(message)

    async def talk(port, i):
        async with websockets.asyncio.client.connect(f"ws://127.0.0.1:{port}/ws") as ws:
            for j in range(10):
                await ws.send(f"{i} {j} " * 100)
                await ws.send(bytes(j))
            for j in range(10):
                assert await ws.recv() == f"{i} {j} " * 100
                assert await ws.recv() == bytes(j)

    async def main():
        server = made({"built-in": None, "function": function, "coroutine function": coroutine}[kind])
        async with server:
            await asyncio.gather(*(talk(server.ports[0], i) for i in range(20)))
            assert server.stats()["messages"] == 400

    run(main())


def test_files_are_served_too(run, tmp_path):
    (tmp_path / "a.txt").write_text("a" * 5_000_000)

    async def main():
        async with made(root=tmp_path) as server:
            for _ in range(3):
                answer = await aside(get, server.ports[0], "/a.txt")
                assert (answer.status, answer.body) == (200, b"a" * 5_000_000)
            assert (await aside(get, server.ports[0], "/b.txt")).status == 404

    run(main())


def test_a_connections_calls_run_one_after_another_and_those_of_many_at_once(run):
    running, most, seen = collections.Counter(), [0], collections.defaultdict(list)

    class Handler:
        async def on_open(self, ws):
            await self.step(ws, "open")

        async def on_message(self, ws, message):
            await self.step(ws, message)
            await ws.send(message)

        async def step(self, ws, what):
            running[ws] += 1
            assert running[ws] == 1
            most[0] = max(most[0], sum(running.values()))
            for _ in range(3):
                await asyncio.sleep(0)
            running[ws] -= 1
            seen[ws].append(what)

    async def talk(server, i):
        with await opened(server) as ws:
            await aside(ws.send, b"".join(frame(TEXT, b"%d" % j) for j in range(100)))
            for j in range(100):
                assert await aside(ws.message) == (TEXT, b"%d" % j)

    async def main():
        server = made(Handler())
        async with server:
            await asyncio.gather(*(talk(server, i) for i in range(6)))
        assert len(seen) == 6
        for calls in seen.values():
            assert calls == ["open", *map(str, range(100))]
        assert most[0] > 1

    run(main())


@pytest.mark.parametrize("kind", ["coroutine function", "its coroutine", "its task", "partial"])
def test_send_resolves_once_the_client_has_read(run, kind):
    sent, tasks, count = [], [], 200

    async def coroutine(ws, message):
        for i in range(count):
            await ws.send(i.to_bytes(4, "big") * (SIZE // 4))
            assert ws.buffered <= 4 * SIZE
            sent.append(i)

    async def main():
        on_message = {
            "coroutine function": coroutine,
            "its coroutine": lambda ws, message: coroutine(ws, message),
            "its task": lambda ws, message: tasks.append(asyncio.ensure_future(coroutine(ws, message))),
            "partial": functools.partial(coroutine),
        }[kind]
        server = made(on_message, max_send_queue=8 * SIZE)
        async with server:
            with await opened(server, receive_buffer=4096) as ws:
                ws.send(frame(TEXT))
                await until(lambda: server.stats()["bytes_sent"] > SIZE, "the first of it")
                before = -1
                while len(sent) != before:  # until it no longer comes on by itself
                    before = len(sent)
                    with await opened(server, opening=None) as other:
                        for _ in range(20):
                            await asyncio.sleep(0.001)
                        other.send(close(1000))
                        await aside(other.rest)
                assert 0 < len(sent) < count
                for i in range(count):
                    assert await aside(ws.message) == (BINARY, i.to_bytes(4, "big") * (SIZE // 4))
                await until(lambda: len(sent) == count, "the last of it")
                assert losses(server) == {"dropped": 0, "closed_slow": 0, "no_subprotocol": 0}

    run(main())


def test_send_resolves_once_half_of_the_backlog_has_left_and_keeps_nothing_that_nobody_awaits(run):
    opened_ws = []

    class Handler:
        async def on_open(self, ws):
            opened_ws.append(ws)

    async def main():
        server = made(Handler(), max_send_queue=64 << 20)
        async with server:
            with await opened(server, receive_buffer=4096) as client:
                await until(lambda: opened_ws, "it to open")
                [ws] = opened_ws
                waits = ws.send(bytes(60 << 20))
                kept = [weakref.ref(ws.send("x")) for _ in range(100)]
                gc.collect()
                assert not any(each() for each in kept)
                assert not waits.done()
                while not waits.done():
                    await aside(client.take, 1 << 20)
                assert 20 << 20 < ws.buffered <= 32 << 20
                client.reset()

    run(main())


def test_many_tasks_may_wait_to_send_on_one_connection(run):
    opened_ws = []

    class Handler:
        async def on_open(self, ws):
            opened_ws.append(ws)

    async def main():
        server = made(Handler(), max_send_queue=64 << 20)
        async with server:
            with await opened(server, receive_buffer=4096) as client:
                await until(lambda: opened_ws, "it to open")
                tasks = [asyncio.ensure_future(opened_ws[0].send(bytes(10 << 20))) for _ in range(6)]
                await asyncio.sleep(0)
                for _ in tasks:
                    assert await aside(client.message) == (BINARY, bytes(10 << 20))
                await asyncio.gather(*tasks)
                waits = opened_ws[0].send(bytes(60 << 20))
                client.reset()
                await waits  # nor does it wait for one that has gone
                await until(lambda: opened_ws[0].closed, "it to be gone")
                with pytest.raises(c1m.Closed):
                    await opened_ws[0].send("x")

    run(main())


@pytest.mark.parametrize("how", ["the connection breaks", "the server stops", "the client closes"])
def test_what_a_handler_awaits_is_cancelled_at_the_end(run, how):
    events = []

    class Handler:
        async def on_message(self, ws, message):
            try:
                events.append(message)
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0)
                events.append("cancelled")
                raise

        async def on_close(self, ws, code, reason):
            async with asyncio.timeout(PATIENCE):  # which the cancellation before does not touch
                await asyncio.sleep(0)
            events.append(code)

    async def main():
        server = c1m.Server(ports=[0], shutdown_timeout=0.1)
        server.websocket("/ws", Handler())
        async with server:
            with await opened(server) as ws:
                ws.send(frame(TEXT, b"message") + frame(TEXT, b"never begun"))
                await until(lambda: events, "the message")
                if how == "the server stops":
                    server.stop()
                    assert await aside(ws.closing) == 1001
                    ws.send(close(1001))
                elif how == "the client closes":
                    ws.send(close(4000))
                else:
                    ws.reset()
                await until(lambda: len(events) == 3, "the end")
        code = {"the connection breaks": 1006, "the server stops": 1001, "the client closes": 4000}[how]
        assert events == ["message", "cancelled", code]

    run(main())


@pytest.mark.parametrize("decorate", [lambda function: function, plain])
def test_what_came_before_the_clients_close_is_handled(run, decorate):
    events, gate = [], asyncio.Event()

    class Handler:
        @decorate
        async def on_open(self, ws):
            events.append("open")

        @decorate
        async def on_message(self, ws, message):
            await gate.wait()
            events.append(message)
            with pytest.raises(c1m.Closed):
                await ws.send(message)

        @decorate
        async def on_close(self, ws, code, reason):
            events.append((code, reason))

    async def main():
        async with made(Handler()) as server:
            with await opened(server) as ws:
                ws.send(b"".join(frame(TEXT, b"%d" % i) for i in range(5)) + close(4000, b"bye"))
                assert await aside(ws.closing) == 4000
                assert await aside(ws.rest) == b""
                await until(lambda: server.stats()["connections"] == 0, "it to be gone")
                assert events == ["open"]
                gate.set()
        assert events == ["open", *"01234", (4000, "bye")]

    run(main())


def test_nothing_that_waits_is_called_once_the_handler_has_closed(run):
    events = []

    class Handler:
        async def on_message(self, ws, message):
            events.append(message)
            ws.close(4000)
            await asyncio.sleep(0)

        async def on_close(self, ws, code, reason):
            events.append(code)

    async def main():
        async with made(Handler()) as server:
            with await opened(server) as ws:
                ws.send(b"".join(frame(TEXT, b"%d" % i) for i in range(5)))
                assert await aside(ws.closing) == 4000
                assert events == ["0"]
                ws.send(close(4001))
                await until(lambda: len(events) > 1, "on_close")
        assert events == ["0", 4001]

    run(main())


def test_the_server_does_not_leave_before_on_close_is_done(run):
    ended = []

    class Handler:
        async def on_close(self, ws, code, reason):
            for _ in range(20):
                await asyncio.sleep(0.001)
            ended.append(code)

    async def main():
        async with made(Handler()) as server:
            clients = [await opened(server) for _ in range(5)]
            for ws in clients[:4]:
                ws.reset()
            clients[4].send(close(1000))
        assert len(ended) == 5
        clients[4].close()

    run(main())


def test_a_connection_that_comes_and_goes_at_once_leaves_nothing_behind(run):
    import c1m.runner

    closed = []

    class Handler:
        async def on_open(self, ws):
            await asyncio.sleep(0)

        async def on_message(self, ws, message):
            await asyncio.sleep(0)

        async def on_close(self, ws, code, reason):
            closed.append(code)

    async def main():
        async with made(Handler()) as server:
            for _ in range(20):
                with await opened(server, opening=handshake() + frame(TEXT, b"x") + close(1000)) as ws:
                    await aside(ws.rest)
            await until(lambda: len(closed) == 20, "them to be gone")
            runner = server._runner
            assert isinstance(runner, c1m.runner.Runner)
            await until(lambda: not runner._queues, "their tasks to end")

    run(main())


@pytest.mark.parametrize("decorate", [lambda function: function, plain])
def test_input_is_paused_while_many_calls_wait(run, decorate):
    gate, got = asyncio.Event(), []

    class Handler:
        @decorate
        async def on_message(self, ws, message):
            await gate.wait()
            got.append(message)

    async def main():
        server = made(Handler())
        async with server:
            with await opened(server) as ws:
                ws.send(b"".join(frame(TEXT, b"%d" % i) for i in range(500)) + frame(PING, b"behind them"))
                await until(lambda: server.stats()["messages"] >= 16, "sixteen to wait")
                with await opened(server) as other:  # and a few turns later
                    other.send(frame(PING))
                    assert await aside(other.frame) == (True, PONG, b"")
                assert 16 <= server.stats()["messages"] <= 17  # one is begun
                assert ws.silent()
                gate.set()
                assert await aside(ws.frame) == (True, PONG, b"behind them")
                await until(lambda: len(got) == 500, "the rest")
        assert got == [str(i) for i in range(500)]

    run(main())


def test_a_coroutine_that_raises_is_logged_and_harms_no_other(run, caplog):
    closed = []

    class Handler:
        async def on_message(self, ws, message):
            await ws.send(message)
            if message == "raise":
                await asyncio.sleep(0)
                raise ZeroDivisionError("on purpose")

        async def on_close(self, ws, code, reason):
            closed.append(code)
            raise LookupError("in on_close")

    async def main():
        async with made(Handler()) as server:
            with await opened(server) as bad, await opened(server) as good:
                bad.send(frame(TEXT, b"raise") + frame(TEXT, b"after"))
                assert await aside(bad.message) == (TEXT, b"raise")
                assert await aside(bad.closing) == 1011
                assert await aside(bad.rest) == b""
                assert await aside(good.echo, b"fine", TEXT) == (TEXT, b"fine")
                bad.close()
                await until(lambda: closed, "the bad one to be gone")
                assert closed == [1011]

    run(main())
    assert "ZeroDivisionError: on purpose" in caplog.text
    assert "LookupError: in on_close" in caplog.text
    assert {record.levelno for record in caplog.records if record.name == "c1m"} == {logging.ERROR}


def test_a_stop_that_a_coroutine_meets_while_it_sends_is_no_error(run, caplog):
    async def on_message(ws, message):
        while True:
            await ws.send(message)
            await asyncio.sleep(0)

    async def main():
        async with made(on_message) as server:
            with await opened(server) as ws:
                ws.send(frame(TEXT, b"tick"))
                assert await aside(ws.message) == (TEXT, b"tick")
                server.stop()
                await until(lambda: not server._runner._queues, "its coroutine to end")

    run(main())
    assert logged(caplog) == []


@pytest.mark.parametrize("how", ["what it awaits", "itself", "from elsewhere"])
def test_a_cancellation_that_is_not_ours_fails_the_connection(run, caplog, how):
    tasks, closed = [], []

    class Handler:
        async def on_message(self, ws, message):
            tasks.append(asyncio.current_task())
            future = asyncio.get_running_loop().create_future()
            if how == "what it awaits":
                future.cancel()
            elif how == "itself":
                tasks[0].cancel()
            await future

        async def on_close(self, ws, code, reason):
            closed.append(code)

    async def main():
        async with made(Handler()) as server:
            with await opened(server) as ws:
                ws.send(b"".join(frame(TEXT, b"%d" % i) for i in range(30)))
                if how == "from elsewhere":
                    await until(lambda: tasks, "the first message")
                    tasks[0].cancel()
                assert await aside(ws.closing) == 1011
            await until(lambda: closed, "it to be gone")
        assert closed == [1011]
        assert len(tasks) == 1

    run(main())
    assert logged(caplog) == ["WebSocket handler raised"]


@pytest.mark.parametrize("how", ["waits for ever", "does not heed"])
@pytest.mark.parametrize("method", ["on_message", "on_close"])
def test_a_coroutine_that_does_not_end_is_cancelled_and_then_left(run, caplog, monkeypatch, how, method):
    monkeypatch.setattr("c1m.runner._MOMENT", 0.05)
    begun, release = [], asyncio.Event()

    async def endless(self, ws, *arguments):
        begun.append(asyncio.current_task())
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                if how == "waits for ever":
                    raise

    async def main():
        server = c1m.Server(ports=[0], shutdown_timeout=0.05)
        server.websocket("/ws", type("Endless", (), {method: endless})())
        async with server:
            with await opened(server) as ws:
                ws.send(frame(TEXT))
                if method == "on_message":
                    await until(lambda: begun, "the message")
        [task] = begun
        assert task.done() == (how == "waits for ever")
        release.set()
        await asyncio.wait([task])

    run(main())
    left = ["/ws: 1 coroutines of its handler do not end, though cancelled"]
    assert logged(caplog) == (left if how == "does not heed" else [])


def eager(loop, coroutine, **settings):
    """asyncio.eager_task_factory, or, before Python 3.12, what a handler that never waits sees of it."""
    settings.pop("eager_start", None)  # of uvloop's, which only Python 3.14 takes
    if sys.version_info >= (3, 12):
        return asyncio.eager_task_factory(loop, coroutine, **settings)
    if coroutine.__qualname__ != "Runner._run":
        return asyncio.Task(coroutine, loop=loop, **settings)
    with pytest.raises(StopIteration):
        coroutine.send(None)
    task = loop.create_future()
    task.set_result(None)
    return task


def test_tasks_may_begin_eagerly(run):
    async def on_message(ws, message):
        ws.send(message)

    async def main():
        asyncio.get_running_loop().set_task_factory(eager)
        async with made(on_message) as server:
            with await opened(server) as ws:
                for i in range(50):
                    assert await aside(ws.echo, b"%d" % i, TEXT) == (TEXT, b"%d" % i)

    run(main())


@pytest.mark.parametrize("kind", ["function", "coroutine function"])
@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt()], ids=["SystemExit", "KeyboardInterrupt"]
)
def test_what_ends_a_program_ends_the_loop(run, kind, error):
    def function(ws, message):
        raise error

    async def coroutine(ws, message):
        raise error

    async def main():
        async with made(function if kind == "function" else coroutine) as server:
            with await opened(server) as ws:
                ws.send(frame(TEXT))
                await asyncio.Event().wait()

    with pytest.raises(type(error)):
        run(main())


def test_deadlines_fall_though_nothing_else_happens(run):
    async def main():
        server = made(idle_timeout=0.2)
        async with server:
            with await opened(server) as ws:
                for _ in range(3):
                    assert await aside(ws.frame) == (True, PING, b"")
                    ws.send(frame(PONG))
                assert await aside(ws.frame) == (True, PING, b"")
                assert await aside(ws.closing) == 1011

    run(main())


def test_tasks_and_threads_may_send_and_publish_between_turns(run):
    clients = []

    class Handler:
        async def on_open(self, ws):
            ws.subscribe("all")
            clients.append(ws)

    async def main():
        server = made(Handler())
        async with server:
            with await opened(server) as a:
                await until(lambda: clients, "it to open")
                for i in range(50):
                    clients[0].send(f"sent {i}")
                    server.publish("all", f"published {i}")
                    await asyncio.sleep(0)
                thread = threading.Thread(target=lambda: [server.publish("all", str(i)) for i in range(50)])
                thread.start()
                for i in range(50):
                    assert await aside(a.message) == (TEXT, b"sent %d" % i)
                    assert await aside(a.message) == (TEXT, b"published %d" % i)
                for i in range(50):
                    assert await aside(a.message) == (TEXT, b"%d" % i)
                thread.join()
                clients[0].close(4000)
                assert await aside(a.closing) == 4000

    run(main())


def test_stop_from_a_task(run):
    async def main():
        server = made()
        async with server:
            with await opened(server) as ws:
                asyncio.get_running_loop().call_soon(server.stop)
                assert await aside(ws.closing) == 1001
                ws.send(close(1001))
                assert await aside(ws.rest) == b""
                await until(lambda: server.stats()["connections"] == 0, "it to leave")
        async with server:  # and again
            assert await aside(lambda: get(server.ports[0], "/").status) == 404

    run(main())


def test_a_body_that_raises_is_not_hidden(run):
    async def main():
        async with made() as server:
            with await opened(server) as ws:
                ws.send(frame(TEXT, b"x"))
                raise LookupError("of its own")

    with pytest.raises(LookupError, match="of its own"):
        run(main())


def test_a_second_cancellation_cuts_the_end_short(run):
    async def serve(server):
        async with server:
            await asyncio.Event().wait()

    async def main():
        server = c1m.Server(ports=[0], shutdown_timeout=60)
        server.websocket("/ws")
        task = asyncio.create_task(serve(server))
        await until(lambda: server.ports != [0], "it to listen")
        with await opened(server) as ws:
            task.cancel()
            assert await aside(ws.closing) == 1001  # which this client leaves unanswered
            assert not task.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await aside(ws.rest) == b""
        assert server.ports == [0]
        async with server:
            assert (await aside(get, server.ports[0], "/")).status == 404

    run(main())


def test_a_start_that_fails_leaves_the_server_as_it_was(run, tmp_path):
    async def main():
        server = c1m.Server(ports=[0], unix=tmp_path / "later" / "socket")
        with pytest.raises(OSError, match="cannot listen on"):
            await server.__aenter__()
        assert server.ports == [0]
        (tmp_path / "later").mkdir()
        async with server:
            assert server.ports != [0]

    server = made()
    with pytest.raises(RuntimeError, match=r"^no running event loop$"):
        server.__aenter__().send(None)
    assert server.ports == [0]
    with server:
        pass
    run(main())


def test_two_servers_in_one_loop(run):
    async def on_message(ws, message):
        await ws.send(message + "!")

    async def main():
        async with made(on_message) as a, made() as b:
            with await opened(a) as one, await opened(b) as other:
                assert await aside(one.echo, b"x", TEXT) == (TEXT, b"x!")
                assert await aside(other.echo, b"x", TEXT) == (TEXT, b"x")

    run(main())


def test_coroutine_functions_need_a_loop():
    async def on_message(ws, message):
        pass

    says = r"^the handler of '/ws' has a coroutine function: use run\(\) or `async with server`$"
    server = made(on_message)
    with pytest.raises(RuntimeError, match=says), server:
        pass
    assert server.ports == [0]


def test_it_runs_once_at_a_time(run):
    async def main():
        server = made()
        async with server:
            for again in (server.run, server.listen):
                with pytest.raises(RuntimeError, match="already"):
                    again()
            with contextlib.ExitStack() as stack, pytest.raises(RuntimeError, match="already"):
                stack.enter_context(server)

    run(main())


def test_a_coroutine_that_is_thrown_away_with_its_loop_is_no_error_and_nothing_more_is_called(caplog):
    called = []

    async def on_message(ws, message):
        called.append(message)
        await asyncio.get_running_loop().create_future()

    async def main():
        await server.__aenter__()
        client = await opened(server)
        for message in (b"1", b"2"):
            await aside(client.send, frame(BINARY, message))
        await until(lambda: server._runner._queues and len(next(iter(server._runner._queues.values())).calls), "a call")
        return client

    server, loop = made(on_message), asyncio.new_event_loop()
    client = loop.run_until_complete(main())
    [queue] = server._runner._queues.values()
    loop.close()
    queue.task.get_coro().close()                        # what the garbage collector does with it
    assert called == [b"1"]
    assert logged(caplog) == []
    client.close()


def test_on_close_comes_though_its_task_is_cancelled_before_its_first_step(run):
    """By something that cancels all tasks that there are."""
    closed = []

    class Handler:
        async def on_close(self, ws, code, reason):
            closed.append(code)

    async def main():
        server = made(Handler())
        async with server:
            spawn = server._handlers[0].spawn

            def cancelled(ws, function, arguments):
                spawn(ws, function, arguments)
                server._handlers[0].spawn = spawn
                server._runner._queues[ws].task.cancel()

            server._handlers[0].spawn = cancelled
            client = await asyncio.to_thread(WebSocket, server.ports[0])
            with client:
                client.send(close(1000))
                await until(lambda: closed, "on_close")
                await until(lambda: not server._runner._queues, "the queue to go")

    run(main())
    assert closed == [1000]


def test_the_loop_goes_on_when_the_server_has_ended_amid_publishes(run):
    """What on_close and other threads still publish is dropped at once."""
    async def main():
        server = made(Leaves())
        async with server:
            clients = [await asyncio.to_thread(WebSocket, server.ports[0]) for _ in range(50)]
            stop = threading.Event()
            threads = [threading.Thread(target=publish, args=(server, stop)) for _ in range(2)]
            for thread in threads:
                thread.start()
        stop.set()
        for thread in threads:
            thread.join()
        for client in clients:
            client.socket.close()

    class Leaves:
        def on_open(self, ws):
            ws.subscribe("lobby")

        async def on_close(self, ws, code, reason):
            with contextlib.suppress(RuntimeError):
                for _ in range(20):
                    ws_server[0].publish("lobby", "left")

    ws_server = []

    def publish(server, stop):
        ws_server.append(server)
        with contextlib.suppress(RuntimeError):
            while not stop.is_set():
                server.publish("lobby", "x" * 1000)

    run(main())
