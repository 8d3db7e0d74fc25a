"""Servers of several processes: that nobody notices what becomes of one of them."""

import contextlib
import json
import os
import re
import resource
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from client import PATIENCE, Http, WebSocket, connected, get, request, until
from test_forks import gone
from wire import TEXT, frame

import c1m
from c1m.workers import cpus

SERVER = """
import asyncio, json, logging, os, signal, sys, threading, time
import c1m

logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
given = json.loads(sys.argv[1])
path = given.pop("unix", ())
server = c1m.Server(**{"ports": [0], "shutdown_timeout": 20, **given}, unix=path)
server.websocket("/echo")

def who(ws, message):
    ws.send(str(os.getpid()))

server.websocket("/who", who)

class Rooms:
    def on_open(self, ws):
        ws.subscribe("room")
    def on_message(self, ws, message):
        server.publish("room", message)

server.websocket("/room", Rooms())
"""
RUN = """
server.listen()
print(json.dumps(server.ports), flush=True)
threading.Thread(target=asked, daemon=True).start()
server.run()
"""
ASKED = """
def asked():
    for line in sys.stdin:
        try:
            print(json.dumps(eval(line)), flush=True)
        except Exception as error:
            print(json.dumps(repr(error)), flush=True)
"""


class Server:
    """A server whose supervisor evaluates what it is asked."""

    def __init__(self, more="", workers=3, environment=None, **options):
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER + more + ASKED + RUN, json.dumps({"workers": workers, **options})],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )
        self.pid = self.process.pid
        self.log = []
        self._news = threading.Condition()
        threading.Thread(target=self._read_log, daemon=True).start()
        line = self.process.stdout.readline()
        assert line, "\n".join(self.log)
        self.ports = json.loads(line)
        self.port = self.ports[0] if self.ports else None

    def _read_log(self):
        for line in self.process.stderr:
            with self._news:
                self.log.append(line.rstrip("\n"))
                self._news.notify_all()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for pid in [*self.workers(), self.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def says(self, pattern):
        """Waits until a line of the log fits, and returns it."""
        def found():
            return next((line for line in self.log if re.search(pattern, line)), None)
        with self._news:
            assert self._news.wait_for(found, PATIENCE), f"{pattern!r} is not in {self.log}"
            return found()

    def ask(self, expression):
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def stats(self):
        return self.ask("server.stats()")

    def workers(self):
        """Process IDs of those there are."""
        with contextlib.suppress(FileNotFoundError):
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
            return [int(pid) for pid in children if not gone(int(pid))]
        return []

    def serving(self, n=3):
        """Waits until so many serve, and nobody else is there; their process IDs."""
        def all_there():
            serve = self.ask("[each.pid for each in server._supervisor._workers if each.serves and not each.leaving]")
            return serve if len(serve) == n and set(serve) == set(self.workers()) else None
        return sorted(until(all_there, f"{n} workers"))

    def ended(self, number=None):
        """Sends a signal and waits for the end; the exit status."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE)


def fails_where(path):
    """A hook that lets no worker start while there is such a file."""
    return f"""
@server.on_start
def begin():
    if os.path.exists({str(path)!r}):
        raise ValueError("no database\\nhere")
"""


def echoes(client, text=b"x"):
    return client.echo(text, TEXT) == (TEXT, text)


def who(address):
    with WebSocket(address, "/who") as ws:
        return int(ws.echo(b"?", TEXT)[1])


@contextlib.contextmanager
def stopped(pid):
    os.kill(pid, signal.SIGSTOP)
    until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "the worker to stop")
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


class Load:
    """Clients that ask on a new connection each time, until the end, and remember what has failed."""

    def __init__(self, port, clients=4):
        self.answered, self.failed, self._ending = 0, [], False
        self._threads = [threading.Thread(target=self._run, args=(port,)) for _ in range(clients)]

    def _run(self, port):
        while not self._ending:
            try:
                assert get(port, "/nothing").status == 404
                self.answered += 1
            except Exception as error:
                self.failed.append(repr(error))

    def more(self, n=50):
        """Waits for so many more answers."""
        wanted = self.answered + n
        until(lambda: self.answered >= wanted, "answers")

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc):
        self._ending = True
        for thread in self._threads:
            thread.join()


# ---- what all do together ----


def test_every_worker_serves_and_their_counters_are_one_servers():
    with Server() as served:
        workers = served.serving()
        until(lambda: {who(served.port) for _ in range(10)} == set(workers), "all to be met")
        before = served.stats()["accepted"]
        for _ in range(20):
            assert get(served.port).status == 404
        stats = served.stats()
        assert stats["accepted"] == before + 20
        assert sum(each["accepted"] for each in stats["workers"]) == stats["accepted"]
        assert sorted(each["pid"] for each in stats["workers"]) == workers


def test_what_is_published_anywhere_reaches_all():
    with Server() as served, contextlib.ExitStack() as stack:
        served.serving()
        clients = [stack.enter_context(WebSocket(served.port, "/room")) for _ in range(24)]
        until(lambda: served.ask("server.subscribers('room')") == 24, "all to be subscribed")
        clients[0].send(frame(TEXT, b"from a worker"))
        for client in clients:
            assert client.message() == (TEXT, b"from a worker")
        assert served.ask("server.publish('room', 'from the supervisor')") is None
        for client in clients:
            assert client.message() == (TEXT, b"from the supervisor")


ASYNC = """
@server.on_start
async def begin():
    global waited
    waited = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(waited.set_result, type(asyncio.get_running_loop()).__module__)

@server.on_stop
async def end():
    logging.info("stopped %d in its loop, %s", os.getpid(), asyncio.get_running_loop().is_running())

@server.websocket("/loop")
async def loop(ws, message):
    ws.send(await waited)

@server.websocket("/publish")
async def publish(ws, message):
    server.publish("room", message)
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_coroutines_access_log_topics_unix_socket_and_several_ports_together(tmp_path, loop):
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    path, log = tmp_path / "socket", tmp_path / "log"
    with (
        Server(ASYNC, loop=loop, ports=[0, 0], unix=str(path), access_log=str(log)) as served,
        contextlib.ExitStack() as stack,
    ):
        workers = served.serving()
        places = [*served.ports, str(path)]
        members = [stack.enter_context(WebSocket(place, "/room")) for place in places * 4]
        until(lambda: served.ask("server.subscribers('room')") == 12, "all to be subscribed")
        for place in places:
            with WebSocket(place, "/loop") as ws:
                assert loop.encode() in ws.echo(b"?", TEXT)[1]
            with WebSocket(place, "/publish") as ws:
                ws.send(frame(TEXT, b"x" * 200))
                for member in members:
                    assert member.message() == (TEXT, b"x" * 200)
            for _ in range(40):
                assert get(place, "/" + "long" * 100).status == 404
        def lines():
            return log.read_text().splitlines() if log.exists() else []
        until(lambda: len(lines()) >= 126, "the log's lines")
        assert all(re.fullmatch(r'\S+ - - \[.*\] "GET /\S* HTTP/1.1" \d+ .*', line) for line in lines())
        renamed = log.rename(tmp_path / "old")
        served.process.send_signal(signal.SIGUSR1)
        until(lambda: get(places[0]).status == 404 and len(lines()) > 0, "the log to be opened anew")
        assert renamed.exists()
        for member in members:
            member.close()
        assert served.ended(signal.SIGTERM) == 0
        for pid in workers:
            served.says(f"stopped {pid} in its loop, True")
        assert not path.exists()


def test_lines_of_a_log_into_a_pipe_are_whole(tmp_path):
    """Though each batch is longer than what a pipe takes at once (PIPE_BUF in pipe(7))."""
    with Server(access_log="-", workers=3) as served:
        served.serving()
        with Load(served.port) as load:
            load.more(400)
        assert served.ended(signal.SIGTERM) == 0
        out = served.process.stdout.read().splitlines()
        assert not load.failed
        assert len(out) == load.answered
        assert all(re.fullmatch(r'127.0.0.1 - - \[.*\] "GET /nothing HTTP/1.1" 404 .*', line) for line in out)


HOOKS = """
@server.on_start
def begin():
    logging.info("begins %d", os.getpid())

@server.on_stop
def end():
    logging.info("ends %d", os.getpid())
"""


@pytest.mark.parametrize("workers", [1, 3])
def test_hooks_run_in_each_process_that_serves(workers):
    with Server(HOOKS, workers=workers) as served:
        pids = [served.pid] if workers == 1 else served.serving()
        for pid in pids:
            served.says(f"^INFO begins {pid}$")
        assert get(served.port).status == 404
        assert not any("ends" in line for line in served.log)
        assert served.ended(signal.SIGTERM) == 0
        for pid in pids:
            served.says(f"^INFO ends {pid}$")


def test_a_worker_keeps_to_its_cpu():
    with Server(pin=True) as served:
        usable = sorted(os.sched_getaffinity(0))
        served.serving()
        pinned = [os.sched_getaffinity(pid) for pid in served.workers()]
        assert pinned == [{usable[i % len(usable)]} for i in range(3)]


# ---- deaths ----


def test_kills_lose_no_connection_that_waits_and_siblings_clients_see_nothing():
    with Server() as served:
        order = served.serving()
        for i in range(10):          # each in its turn, or its successor would come later each time
            killed, *spared = order
            with contextlib.ExitStack() as stack:
                clients = {}
                while set(spared) - set(clients):
                    client = stack.enter_context(WebSocket(served.port, "/who"))
                    clients[int(client.echo(b"?", TEXT)[1])] = client
                with stopped(killed):    # so that it accepts nothing more: what comes now waits, for it or another
                    waiting = [stack.enter_context(Http(served.port)) for _ in range(20)]
                    for client in waiting:
                        client.send(request("/nothing"))
                    os.kill(killed, signal.SIGKILL)
                for client in waiting:
                    assert client.answer().status == 404
                for pid in spared:
                    assert clients[pid].echo(b"%d" % i, TEXT) == (TEXT, b"%d" % pid)
            served.says(rf"worker \d \(pid {killed}\) died of SIGKILL: replaced")
            order = [*spared, *set(served.serving()).difference(spared)]


def test_two_hundred_that_wait_at_a_worker_that_is_killed_are_all_answered():
    with Server(workers=2) as served, contextlib.ExitStack() as stack:
        workers = served.serving(2)
        with stopped(workers[0]), stopped(workers[1]):
            waiting = [stack.enter_context(Http(served.port)) for _ in range(400)]
            for client in waiting:
                client.send(request("/nothing"))
            os.kill(workers[0], signal.SIGKILL)
            served.says(rf"pid {workers[0]}\) died of SIGKILL")
        for client in waiting:
            assert client.answer().status == 404


def test_one_that_dies_again_and_again_is_put_off_and_others_serve(tmp_path):
    doomed = tmp_path / "doomed"
    with Server(fails_where(doomed), workers=2) as served:
        first, second = served.serving(2)
        doomed.touch()
        os.kill(first, signal.SIGKILL)
        served.says("died of SIGKILL: replaced$")
        line = served.says(r"can't start: .* replaced in 0\.\d s$")
        assert re.fullmatch(
            r"ERROR worker \d \(pid \d+\) can't start: on_start raised ValueError: no database here, in <string>, line "
            r"\d+: replaced in 0\.1 s", line,
        )
        served.says(r"replaced in 0\.2 s$")
        for _ in range(20):
            assert get(served.port).status == 404
        assert second in served.workers()
        assert served.stats()["lent"] > 0
        doomed.unlink()
        served.serving(2)
        assert not any("Traceback" in line for line in served.log)
        assert served.ended(signal.SIGTERM) == 0


def test_workers_end_when_their_supervisor_is_killed():
    with Server() as served:
        workers = served.serving()
        os.kill(served.pid, signal.SIGKILL)
        for pid in workers:
            until(lambda pid=pid: gone(pid), "a worker to end")
            served.says(f"the supervisor has gone: worker {pid} ends")
        with pytest.raises(ConnectionRefusedError):
            connected(served.port)


# ---- signals ----


def test_reloads_under_load_fail_nobody():
    with Server() as served:
        before = served.serving()
        with Load(served.port) as load:
            for _ in range(3):
                served.process.send_signal(signal.SIGHUP)
                def all_new(before=before):
                    now = {each["pid"] for each in served.stats()["workers"]}
                    return now if len(now) == 3 and not now & set(before) else None
                before = until(all_new, "new workers")
                load.more()
        assert load.failed == []
        assert load.answered > 150


def test_a_successor_that_can_not_start_leaves_its_predecessor(tmp_path):
    doomed = tmp_path / "doomed"
    with Server(fails_where(doomed)) as served:
        before = served.serving()
        doomed.touch()
        served.process.send_signal(signal.SIGHUP)
        served.says("can't start: .*: its predecessor stays, and nobody else is replaced")
        assert served.serving() == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_has_all_finish(number):
    with Server() as served, contextlib.ExitStack() as stack:
        served.serving()
        clients = [stack.enter_context(WebSocket(served.port, "/echo")) for _ in range(12)]
        assert all(map(echoes, clients))
        served.process.send_signal(number)
        for client in clients:
            assert client.closing() == 1001
        def refused():
            with contextlib.suppress(ConnectionResetError):
                try:
                    connected(served.port).close()
                except ConnectionRefusedError:
                    return True
            return False
        until(refused, "the port to be closed")
        for client in clients:
            client.close()
        assert served.ended() == 0
        assert served.log == []


def test_goodbyes_of_each_worker_are_for_its_own_clients():
    more = """
@server.on_drain_start
def goodbye():
    server.publish("room", f"bye from {os.getpid()}", here=True)
"""
    with Server(more) as served, contextlib.ExitStack() as stack:
        workers = {f"bye from {pid}".encode() for pid in served.serving()}
        clients = [stack.enter_context(WebSocket(served.port, "/room")) for _ in range(12)]
        until(lambda: served.ask("server.subscribers('room')") == 12, "all to be subscribed")
        served.process.send_signal(signal.SIGTERM)
        for client in clients:
            assert client.message()[1] in workers
            assert client.closing() == 1001
            client.close()
        assert served.ended() == 0


def test_one_that_is_told_to_end_is_replaced_before_it_has_drained():
    with Server(workers=2, drain=0, shutdown_timeout=10 * PATIENCE) as served, contextlib.ExitStack() as stack:
        before = served.serving(2)
        clients = [stack.enter_context(WebSocket(served.port, "/echo")) for _ in range(12)]
        assert all(map(echoes, clients))
        os.kill(before[0], signal.SIGTERM)       # and its clients do not answer the Close
        served.says("ends by itself: replaced")
        for _ in range(12):
            assert get(served.port, "/").status == 404
        assert until(lambda: len(served.workers()) == 3, "a successor")


def test_to_stop_what_does_not_run_yet_has_it_end_at_once():
    server = c1m.Server(ports=[0], workers=2)
    server.listen()
    server.stop()
    server.run()
    server.stop()
    assert server.ports == [0]


def test_pinned_workers_divide_the_limits_as_all_do():
    more = """
@server.on_start
def begin():
    os.write(2, f"{server.workers} {server._shares()['max_connections']}\\n".encode())     # whole, whoever writes, too
"""
    with Server(more, workers="auto", pin=True, max_connections=100) as served:
        n = cpus()
        served.says(f"^{n} {-(-100 // n)}$")


def test_a_signal_to_the_whole_group_replaces_nobody():
    with Server() as served:
        for pid in [served.pid, *served.serving()]:      # as systemd does it, by default
            os.kill(pid, signal.SIGTERM)
        assert served.ended() == 0
        assert served.log == []


def test_a_second_signal_cuts_short():
    with Server() as served, WebSocket(served.port, "/echo") as client:
        assert echoes(client)
        served.process.send_signal(signal.SIGINT)
        assert client.closing() == 1001
        served.process.send_signal(signal.SIGINT)
        assert served.ended() != 0
        assert served.says("KeyboardInterrupt")
        assert client.rest() == b""


def test_sigquit_ends_at_once(tmp_path):
    path = tmp_path / "socket"
    with Server(unix=str(path)) as served, WebSocket(served.port, "/echo") as client:
        workers = served.serving()
        assert echoes(client)
        assert served.ended(signal.SIGQUIT) == 128 + signal.SIGQUIT
        assert all(map(gone, workers))
        assert not path.exists()
        with contextlib.suppress(ConnectionResetError):
            assert client.rest() == b""


def test_stop_of_another_thread_ends_all():
    with Server() as served:
        served.serving()
        assert served.ask("server.stop()") is None
        assert served.ended() == 0
        assert served.log == []


# ---- workers that stand still ----


def test_for_one_that_stands_still_others_accept_until_it_goes_on():
    with Server(workers=2) as served:
        workers = served.serving(2)
        with stopped(workers[0]):
            for _ in range(20):
                assert who(served.port) == workers[1]
            served.says(r"worker \d \(pid \d+\) stands still: worker \d \(pid \d+\) accepts for it")
        served.says("goes on")
        until(lambda: {who(served.port) for _ in range(10)} == set(workers), "both to accept")
        assert served.stats()["lent"] == 1


def test_one_whose_handler_blocks_is_helped_as_well(tmp_path):
    blocked, calm = tmp_path / "blocked", tmp_path / "calm"
    blocked.touch()
    calm.touch()
    more = """
@server.websocket("/block")
def block(ws, message):
    os.unlink(message + "/calm")
    while os.path.exists(message + "/blocked"):
        time.sleep(0.01)
    ws.send("goes on")
"""
    with Server(more, workers=2) as served, contextlib.ExitStack() as stack:
        served.serving(2)
        client = stack.enter_context(WebSocket(served.port, "/block"))
        client.send(frame(TEXT, str(tmp_path).encode()))
        until(lambda: not calm.exists(), "the handler to block")
        for _ in range(20):
            assert get(served.port).status == 404
        assert served.stats()["lent"] == 1
        blocked.unlink()
        assert client.message() == (TEXT, b"goes on")


def test_one_that_is_out_of_descriptors_is_helped():
    with Server(workers=2) as served, contextlib.ExitStack() as stack:
        first, second = served.serving(2)
        table = len(os.listdir(f"/proc/{first}/fd")) + 3
        limits = resource.prlimit(first, resource.RLIMIT_NOFILE)
        resource.prlimit(first, resource.RLIMIT_NOFILE, (table, limits[1]))
        clients = [stack.enter_context(WebSocket(served.port, "/who")) for _ in range(40)]
        there = [int(client.echo(b"?", TEXT)[1]) for client in clients]
        assert there.count(second) > there.count(first)
        served.says("is out of descriptors: worker")
        assert served.stats()["lent"] >= 1


def test_a_unix_socket_is_served_though_one_stands_still(tmp_path):
    path = tmp_path / "socket"
    with Server(workers=2, ports=[], unix=str(path)) as served:
        workers = served.serving(2)
        with stopped(workers[0]):
            for _ in range(20):
                assert who(str(path)) == workers[1]


# ---- ports ----


def test_a_port_that_another_server_with_workers_has_is_taken():
    with Server() as served:
        served.serving()
        for workers in (1, 2):
            with pytest.raises(AssertionError, match="Address already in use"):
                Server(workers=workers, ports=[served.port]).__exit__()


def test_who_comes_between_listen_and_run_waits():
    more = """
first = asked_first = None
server.listen()
print(json.dumps(server.ports), flush=True)
sys.stdin.readline()
server.listen = lambda: None
"""
    with Server(more, workers=2) as served, contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(Http(served.port)) for _ in range(50)]
        for client in waiting:
            client.send(request("/nothing"))
        assert not select.select([client.socket for client in waiting], [], [], 0)[0]
        served.process.stdin.write("\n")
        served.process.stdin.flush()
        served.process.stdout.readline()
        for client in waiting:
            assert client.answer().status == 404


# ---- how many, and what can't be ----


@pytest.mark.parametrize(("files", "quota"), [
    ({}, None),
    ({"proc": "0::/a/b\n", "fs/a/b/cpu.max": "max 100000\n"}, None),
    ({"proc": "0::/a/b\n", "fs/a/cpu.max": "100000 100000\n", "fs/a/b/cpu.max": "max 100000\n"}, 1),
    ({"proc": "0::/a\n", "fs/a/cpu.max": "50000 100000\n"}, 1),
    ({"proc": "0::/\n", "fs/cpu.max": "900000000 100000\n"}, None),
    ({"proc": "4:cpu,cpuacct:/a\n", "fs/cpu/a/cpu.cfs_quota_us": "100000", "fs/cpu/a/cpu.cfs_period_us": "100000"}, 1),
    ({"proc": "4:cpu,cpuacct:/a\n", "fs/cpu/a/cpu.cfs_quota_us": "-1", "fs/cpu/a/cpu.cfs_period_us": "100000"}, None),
    ({"proc": "4:memory:/a\n", "fs/a/cpu.max": "100000 100000\n"}, None),
    ({"proc": "0::/a\n", "fs/a/cpu.max": "nonsense\n"}, None),
])
def test_auto_is_what_affinity_and_quota_leave(tmp_path, files, quota):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert cpus(tmp_path / "fs", tmp_path / "proc") == (quota or len(os.sched_getaffinity(0)))


@pytest.mark.parametrize("way", ["with", "async with"])
@pytest.mark.parametrize("workers", [2, '"auto"'])
def test_with_has_one_worker(way, workers):
    script = f"""
import asyncio
import c1m
server = c1m.Server(ports=[0], workers={workers})
async def main():
    async with server:
        pass
if {way!r} == "with":
    with server:
        pass
else:
    asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE)
    assert re.fullmatch(
        rf"RuntimeError: workers: .* are asked for, but `{way} server` serves in this process alone: use run\(\), or "
        "workers=1", done.stderr.splitlines()[-1],
    )


@pytest.mark.parametrize("way", ["run", "with", "async with"])
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_what_on_start_raises_comes_from_whoever_starts_one_worker(way, kind):
    script = f"""
import asyncio
import c1m
server = c1m.Server(ports=[0])
@server.on_start
{kind} begin():
    raise LookupError("no database")
server.listen()
port = server.ports[0]
async def main():
    async with server:
        pass
try:
    if {way!r} == "run":
        server.run()
    elif {way!r} == "with":
        with server:
            pass
    else:
        asyncio.run(main())
except (LookupError, RuntimeError) as error:
    print(repr(error))
    server = None
import socket
with socket.socket() as taken:
    taken.bind(("127.0.0.1", port))
    taken.listen()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE)
    assert done.stderr == ""
    if (way, kind) == ("with", "async def"):
        assert "RuntimeError('on_start has a coroutine function: use run() or `async with" in done.stdout
    else:
        assert done.stdout == "LookupError('no database')\n"


def cli(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "c1m", "serve", *arguments], capture_output=True, text=True, timeout=PATIENCE,
    )
    return done.returncode, done.stderr.splitlines()[-1]


@pytest.mark.parametrize(("arguments", "told"), [
    (["--workers", "0"], "--workers: 0 is not between 1 and 1024"),
    (["--workers", "many"], "'many' is neither a whole number nor auto"),
    (["--loop", "trio"], "trio"),
])
def test_a_wrong_argument(arguments, told):
    status, error = cli(*arguments)
    assert status == 2
    assert told in error
    assert error.startswith("Error: ")


def test_uvloop_that_is_not_installed():
    script = "import importlib.util as u; found = u.find_spec\n" \
        "u.find_spec = lambda name: None if name == 'uvloop' else found(name)\n" \
        "import c1m\nc1m.Server(loop='uvloop')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE)
    assert done.stderr.splitlines()[-1] == "ValueError: loop: uvloop is not installed (pip install uvloop)"


@pytest.mark.parametrize("asked", ["3", "auto"])
def test_the_command_greets_once_and_says_how_many(serving, tmp_path, asked):
    process = serving(tmp_path, "--port", 0, "--workers", asked)
    n = cpus() if asked == "auto" else 3
    assert process.greeting[0].endswith(f" serves {tmp_path} with {n} workers" if n > 1 else f" serves {tmp_path}")
    for _ in range(10):
        assert get(process.port, "/").status == 404
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=PATIENCE) == ("", "")
    assert process.returncode == 0


def test_a_hangup_does_not_end_the_command_with_workers(serving, tmp_path):
    process = serving(tmp_path, "--port", 0, "--workers", 2)
    assert get(process.port, "/").status == 404
    process.send_signal(signal.SIGHUP)
    for _ in range(20):
        assert get(process.port, "/").status == 404
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=PATIENCE) == ("", "")
    assert process.returncode == 0
