"""What the processes of one server share: counters, wakers, what is published; the ring by itself, then real forks."""

import contextlib
import itertools
import json
import os
import random
import re
import select
import signal
import sys
import threading

import pytest
from client import PATIENCE, Program, WebSocket, program, until
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from wire import BINARY, TEXT, frame

from c1m._probe_ring import Board, Table
from c1m.shared import Shared

# ---- tables of wants, against a dict ----

HASH = st.one_of(
    st.integers(0, 40),                                        # neighbours, so that runs are long
    st.integers(0, 6).map(lambda i: (i << 32) + 15),           # all at one place, the last of a small table
    st.integers(0, (1 << 63)),
)


class Wants(RuleBasedStateMachine):
    """Every change of a Table of 16 entries, 12 of them to be taken, and of a dict."""

    def __init__(self):
        super().__init__()
        self.table, self.model, self.kept_out = Table(16), {}, set()

    @rule(hash=HASH, count=st.integers(0, 3))
    def set(self, hash, count):
        name = hash or 1                                       # 0 is what a free entry has
        inside = {each for each, count in self.model.items() if count} - self.kept_out - {name}
        told = self.table.set(hash, self.model.get(name, 0), count)
        assert told == (count == 0 or len(inside) < 12)
        self.kept_out.discard(name)
        if not told:
            self.kept_out.add(name)
        self.model[name] = count

    @invariant()
    def agree(self):
        assert self.table.untold() == len(self.kept_out)
        for hash in (*self.model, (1 << 63) + 1000):
            count = 0 if hash in self.kept_out else self.model.get(hash, 0)
            assert self.table.count(hash) == count
            assert self.table.of(hash) == (count or (-1 if self.kept_out else 0))


Wants.TestCase.settings = settings(max_examples=40, stateful_step_count=60, deadline=None)
TestWants = Wants.TestCase


def test_a_table_grows_from_a_page_to_its_most():
    dice = random.Random(1)
    table, hashes = Table(4096), [dice.getrandbits(64) for _ in range(3073)]
    assert table.size() == 0
    for i, hash in enumerate(hashes[:3072]):
        assert table.set(hash, 0, i + 1)
        assert 4 * (i + 1) <= 3 * table.size()                 # and no larger than it has to be
        assert table.size() == 256 or 4 * (i + 1) > 3 * table.size() // 2
    assert table.size() == 4096
    assert not table.set(hashes[3072], 0, 1)
    assert (table.untold(), table.of(hashes[3072]), table.count(hashes[3072])) == (1, -1, 0)
    assert [table.count(hash) for hash in hashes[:3072]] == list(range(1, 3073))
    assert table.set(hashes[0], 1, 0)
    assert table.of(5) == -1                                   # the topic that was too many is still there
    assert table.set(hashes[3072], 1, 2)                       # and has room now
    assert (table.untold(), table.of(hashes[3072]), table.of(5)) == (0, 2, 0)


def test_a_table_whose_writer_stands_still_cannot_tell():
    table = Table(256)
    table.set(7, 0, 1)
    table.move()
    assert (table.of(7), table.of(8), table.count(7)) == (-1, -1, 0)
    table.clear()
    assert (table.of(7), table.of(8)) == (0, 0)
    table.set(8, 0, 2)
    assert (table.of(7), table.of(8)) == (0, 2)


# ---- the ring by itself ----


def woken(board, seat):
    """Whether a seat's eventfd was written to, which is taken back."""
    try:
        return os.eventfd_read(board.wakers[seat]) > 0
    except BlockingIOError:
        return False


def board_of(seats, topic=b"t", **sizes):
    """A ring all of whose seats want a topic."""
    board = Board(seats, **sizes)
    for seat in range(seats):
        board.open(seat)
        board.wants(seat, topic, 0, 1)
        assert board.rest(seat)
    return board


def test_a_message_comes_to_those_that_want_it_and_to_no_other():
    board = Board(4)
    for seat in range(3):
        board.open(seat)
    board.wants(0, b"news", 0, 2)
    board.wants(1, b"news", 0, 1)
    board.wants(2, b"sport", 0, 1)
    board.wants(3, b"news", 0, 9)                              # nobody reads there
    assert board.publish(b"news", b"hello", but=1, number=2) == 1
    assert [board.all(seat) for seat in range(4)] == [[(b"news", b"hello", 2)], [], [], []]
    assert board.publish(b"news", b"", but=-1) == 2
    assert [board.all(seat) for seat in range(4)] == [[(b"news", b"", 1)], [(b"news", b"", 1)], [], []]
    assert board.publish(b"none", b"x") == 0
    assert (board.count(b"news"), board.count(b"news", but=0), board.count(b"none")) == (3, 1, 0)
    board.close(0)
    assert (board.publish(b"news", b"x"), board.count(b"news")) == (1, 1)


@pytest.mark.parametrize("size", [64, 72, 96, 128])
def test_records_wrap_around_at_each_offset(size):
    for offset in range(0, 2 * size, 8):
        board = board_of(1, size=size)
        board.begin((1 << 32) // size * size + offset)
        for n in range(board.longest()):
            message = os.urandom(n)
            assert board.publish(b"t", message) == 1
            assert board.all(0) == [(b"t", message, 1)], (offset, n)
        assert board.lost(0) == 0


@settings(max_examples=200, deadline=None)
@given(
    size=st.integers(8, 64).map(lambda n: 8 * n), entries=st.sampled_from([1, 2, 8, 64]), begin=st.integers(0, 1 << 40),
    steps=st.lists(st.one_of(st.integers(0, 200), st.none(), st.just("read")), max_size=80),
)
def test_what_is_not_read_in_time_is_lost_and_counted_and_the_rest_is_whole(size, entries, begin, steps):
    """Against a model: the messages with the length that each takes; None reads all, "read" one."""
    board = board_of(1, size=size, entries=entries)
    board.begin(8 * begin)
    waiting, head, lost, number = [], 8 * begin, 0, 0
    got, expected = [], []

    def read():
        nonlocal lost
        while waiting:
            position, message = waiting.pop(0)
            if head - position <= size:
                expected.append(message)
                return True
            lost += 1
        return False

    for step in [*steps, None]:
        if step is None:
            got += [message for _, message, _ in board.all(0)]
            while read():
                pass
        elif step == "read":
            got += [message[1] for message in [board.next(0)] if message]
            read()
        else:
            number += 1
            message = bytes([number & 255]) * min(step, board.longest() - 1)
            assert board.publish(b"t", message) == 1
            if len(waiting) == entries:
                lost += 1
            else:
                waiting.append((head, message))
            head += (16 + len(message) + 1 + 7) // 8 * 8
        assert got == expected
    assert board.lost(0) == lost


def test_a_reader_is_woken_once_for_each_nap():
    board = board_of(2)
    for _ in range(3):
        for seat in range(2):
            assert board.publish(b"t", b"1", but=1 - seat) == board.publish(b"t", b"2", but=1 - seat) == 1
            assert woken(board, seat)
            assert board.publish(b"t", b"3", but=1 - seat) == 1
            assert not woken(board, seat)                      # it is awake, for all that anyone knows
            assert len(board.all(seat)) == 3
            assert not woken(board, 1 - seat)
            assert board.rest(seat)
    assert board.publish(b"t", b"4", but=1) == 1
    assert not board.rest(0)                                   # there is something: it may not sleep
    board.wake_all()
    assert woken(board, 0)
    assert woken(board, 1)


def test_a_reader_that_has_fallen_behind_is_waited_for_in_vain_once():
    board = board_of(1, entries=4)
    assert [board.publish(b"t", b"x") and board.behind() for _ in range(3)] == [False, False, True]
    assert not board.behind(but=0)
    board.wait()
    assert not board.behind()
    board.publish(b"t", b"x")
    assert not board.behind()
    assert board.next(0)
    assert board.behind()                                      # it moves: there is hope
    board.all(0)
    assert not board.behind()
    large = board_of(1, size=1024)
    assert [large.publish(b"t", bytes(200)) and large.behind() for _ in range(3)] == [False, False, True]


def test_who_waits_goes_on_when_the_reader_has_caught_up():
    board = board_of(1, entries=4)
    for _ in range(3):
        board.publish(b"t", b"x")
    waiting = threading.Thread(target=board.wait)
    waiting.start()
    assert len(board.all(0)) == 3
    waiting.join()
    assert board.publish(b"t", b"y") == 1


def test_a_lock_that_is_kept_is_waited_for_once():
    """As if a publisher were stopped within it."""
    board = board_of(2)
    holder = threading.Thread(target=board.lock)
    holder.start()
    holder.join()                # it has ended with the lock: whoever comes next has it, like after a kill -9
    assert board.publish(b"t", b"1", but=0) == 1
    board.lock()
    other = []
    for _ in range(5000):        # at 0.1 s each this would take minutes
        other.append(board.publish(b"t", b"2", but=0))
    assert set(other) == {-1}
    assert (board.lost(0), board.lost(1), board.lost()) == (5000, 0, 0)
    assert board.publish(b"t", b"3") == -2
    assert board.lost() == 2
    board.unlock()
    assert board.publish(b"t", b"4", but=0) == 1
    assert [message for _, message, _ in board.all(1)] == [b"1", b"4"]


def test_a_seat_with_more_topics_than_its_table_holds_gets_all_until_they_are_fewer():
    board = board_of(2, most=4)
    for topic in (b"a", b"b", b"c"):                           # with t, one more than 3/4 of the entries
        board.wants(0, topic, 0, 1)
    assert board.publish(b"none", b"x", but=1) == board.publish(b"c", b"x", but=1) == 1
    assert (board.publish(b"none", b"x", but=0), board.count(b"c"), board.count(b"b")) == (0, 0, 1)
    board.wants(0, b"c", 1, 0)
    assert (board.publish(b"none", b"x", but=1), board.publish(b"c", b"x", but=1)) == (0, 0)
    assert board.publish(b"a", b"x", but=1) == 1


def test_a_seat_is_taken_over_without_what_waited_for_it():
    board = board_of(2)
    board.publish(b"t", b"old")
    board.move(1)
    assert board.publish(b"none", b"x") == 1                   # who can't tell gets it
    board.close(1)
    board.open(1)
    assert board.all(1) == []
    board.publish(b"t", b"new")
    assert [message for _, message, _ in board.all(1)] == [b"new"]


# ---- with forks, each in a process of its own, for pytest's has threads ----


def forked(work):
    """Runs work() in a fork; returns its process ID."""
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
        os._exit(0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(1)


def await_message(board, seat):
    """Sleeps as a reactor does, until its seat is woken."""
    if board.rest(seat):
        assert select.select([board.wakers[seat]], [], [], PATIENCE)[0]
        woken(board, seat)


def publishers_that_are_killed_leave_nothing_locked_or_broken():
    board = board_of(2, size=1 << 16, entries=1024)
    dice = random.Random(2)
    last = dict.fromkeys(range(15), -1)

    def publish_for_ever(who):
        for number in range(1 << 40):
            board.publish(b"t", b"%d %d" % (who, number) + b"." * (number % 500), but=0)

    for who in last:
        pid = forked(lambda who=who: publish_for_ever(who))
        enough = dice.randrange(1, 300)
        while last[who] < enough:
            await_message(board, 1)
            for topic, message, _ in board.all(1):
                sender, number = map(int, message.rstrip(b".").split())
                assert topic == b"t"
                assert number > last[sender]                   # some may be lost, but none comes twice or late
                assert len(message) == len(b"%d %d" % (sender, number)) + number % 500
                last[sender] = number
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    os.waitpid(forked(lambda: board.lock() or os.kill(os.getpid(), signal.SIGKILL)), 0)
    board.all(1)                 # its index may be full
    assert board.publish(b"t", b"40 0", but=0) == 1
    assert board.all(1) == [(b"t", b"40 0", 1)]


def many_publish_and_each_reader_gets_each_ones_messages_in_order():
    processes, threads, messages = 4, 3, 300
    board = board_of(processes, size=1 << 20, entries=1 << 14)

    def work(seat):
        def publish(thread):
            for number in range(messages):
                board.publish(b"t", b"%d %d %d" % (seat, thread, number), but=seat)

        running = [threading.Thread(target=publish, args=(thread,)) for thread in range(threads)]
        for each in running:
            each.start()
        got = []
        while len(got) < (processes - 1) * threads * messages:
            await_message(board, seat)
            got += board.all(seat)
        for each in running:
            each.join()
        by_sender = {}
        for _, message, _ in got:
            who, thread, number = map(int, message.split())
            by_sender.setdefault((who, thread), []).append(number)
        assert sorted(by_sender) == [(i, j) for i in range(processes) if i != seat for j in range(threads)]
        assert all(numbers == list(range(messages)) for numbers in by_sender.values())
        assert board.lost(seat) == 0

    pids = [forked(lambda seat=seat: work(seat)) for seat in range(processes)]
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * processes


def what_is_wanted_is_found_while_entries_move():
    board = board_of(1, most=256)

    def subscribe_and_leave():
        dice, there = random.Random(3), set()
        while True:
            topic = dice.randrange(380)                        # half of them at a time: the table is full at times
            board.wants(0, b"%d" % topic, topic in there, topic not in there)
            there ^= {topic}

    pid = forked(subscribe_and_leave)
    try:
        assert {board.publish(b"t", b"x") for _ in range(100_000)} == {1}
        for _ in range(100):                                   # 0: entries moved all the time
            assert until(lambda: board.count(b"t"), "a moment in which nothing moves") == 1
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def a_copy_that_is_overwritten_meanwhile_is_never_delivered():
    """A reader in the way of two publishers who go around all the time."""
    board = board_of(1, size=2048, entries=64)

    def publish_for_ever(who):
        for number in range(1 << 40):
            board.publish(b"t", bytes([who, number & 127]) * (number % 200))

    pids = [forked(lambda who=who: publish_for_ever(who)) for who in (0x80, 0x90)]
    try:
        whole = 0
        while whole < 300:
            for topic, message, _ in board.all(0):
                assert topic == b"t"
                assert message == message[:2] * (len(message) // 2)
                whole += 1
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@pytest.mark.parametrize("what", [
    publishers_that_are_killed_leave_nothing_locked_or_broken,
    many_publish_and_each_reader_gets_each_ones_messages_in_order,
    a_copy_that_is_overwritten_meanwhile_is_never_delivered,
    what_is_wanted_is_found_while_entries_move,
])
def test_in_processes(what):
    program(f"import test_shared; test_shared.{what.__name__}()")


# ---- servers that share ----

SERVERS = """
import functools, json, logging, os, signal, sys, threading
import c1m
from c1m.shared import Shared

logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
workers, buffer = map(int, sys.argv[2:])
shared = Shared(workers + 1, buffer)

class Handler:
    def on_message(self, ws, message):
        order, topic, *more = message.split()
        if order == "+":
            ws.subscribe(topic)
        elif order == "-":
            ws.unsubscribe(topic)
        elif order == "count":
            return ws.send(str(server.subscribers(topic)))
        elif order == "size":
            try:
                ws.publish(topic, b"x" * int(more[0]))
            except ValueError as error:
                return ws.send(str(error))
        elif order == "publish":     # by this connection, from within its handler
            for number in range(int(more[1])):
                ws.publish(topic, f"{more[0]} {number}")
        elif order == "threads":     # by the server, from threads of its own
            size = int(more[3]) if len(more) > 3 else 0
            for i in range(int(more[1])):
                threading.Thread(target=publish, args=(topic, f"{more[0]}.{i}", int(more[2]), size)).start()
        elif order == "fork":
            threading.Thread(target=publish, args=(topic, "forker", 2000, 0)).start()
            for _ in range(20):
                if not (child := os.fork()):
                    try:
                        server.publish(topic, "child")
                    except RuntimeError:
                        os._exit(7)
                    os._exit(1)
                if os.waitpid(child, 0)[1] != 7 << 8:
                    return ws.send("a child has published")
        ws.send("ok")

def publish(topic, who, messages, size):
    for number in range(messages):
        server.publish(topic, f"{who} {number}" + "." * size)

def publish_until_told(topic):
    number = 0
    while not enough.is_set():
        shared.publish(topic, f"s {number}")
        number += 1

def start(seat):
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            server._made = functools.partial(server._made, shared, seat)
            server.listen()
            os.write(write, str(server.ports[0]).encode())
            server.run()
        finally:
            logging.shutdown()
            os._exit(0)
    os.close(write)
    port = int(os.read(read, 10) or 0)
    os.close(read)
    return pid, port

enough = threading.Event()
server = c1m.Server(ports=[0])
server.websocket("/ws", Handler())
print(json.dumps([start(seat) for seat in range(workers)]), flush=True)
for line in sys.stdin:
    order, *more = line.split()
    answer = None
    if order == "start":
        answer = start(int(more[0]))
    elif order == "publish":
        for number in range(int(more[2])):
            shared.publish(more[0], f"{more[1]} {number}")
    elif order == "background":
        threading.Thread(target=publish_until_told, args=(more[0],)).start()
    elif order == "enough":
        enough.set()
    elif order == "size":
        try:
            shared.publish(more[0], b"x" * int(more[1]))
        except ValueError as error:
            answer = str(error)
    elif order == "count":
        answer = shared.subscribers(more[0])
    elif order == "stats":
        answer = shared.stats()
    elif order == "counters":
        answer = shared.counters()
    elif order == "pulse":
        answer = shared.pulse(int(more[0]))
    elif order == "wake":
        os.eventfd_write(shared.waker(int(more[0])), 1)
    elif order == "stop":
        os.kill(int(more[0]), signal.SIGTERM)
    elif order == "reap":
        os.waitpid(int(more[0]), 0)
        shared.release(int(more[1]))
    print(json.dumps(answer), flush=True)
for each in shared.counters():
    if each:
        os.kill(each["pid"], signal.SIGKILL)
"""


class Servers(Program):
    """Processes of one server, each with a port of its own, and the one that has started them."""

    def __init__(self, workers=4, buffer=1 << 20):
        super().__init__(SERVERS, workers, buffer)
        try:
            self.pids, self.ports = zip(*json.loads(self.line()), strict=True)
        except BaseException:
            super().__exit__()
            raise

    def __exit__(self, *exc):
        self.process.stdin.close()
        self._watchdog.cancel()
        self.process.wait(PATIENCE)
        super().__exit__(*exc)

    def ask(self, order):
        self.say(order)
        return json.loads(self.line())

    def kill(self, seat):
        """Kills a process, and has its seat released."""
        os.kill(self.pids[seat], signal.SIGKILL)
        self.ask(f"reap {self.pids[seat]} {seat}")

    def restart(self, seat):
        pid, port = self.ask(f"start {seat}")
        self.pids = (*self.pids[:seat], pid, *self.pids[seat + 1:])
        self.ports = (*self.ports[:seat], port, *self.ports[seat + 1:])


def told(client, order):
    """What a handler answers to an order; the messages that come before it are not wanted."""
    client.send(frame(TEXT, order.encode()))
    return client.message()[1].decode()


def joined(stack, port, topic):
    """A new client that is subscribed to a topic."""
    client = stack.enter_context(WebSocket(port))
    assert told(client, f"+ {topic}") == "ok"
    return client


def until_end(client):
    """The messages that come to a client before "end 0"."""
    return list(iter(lambda: client.message()[1].decode(), "end 0"))


def until_caught_up(client):
    """The messages that come to a client whose process was stopped until it has read all that was published: after
    what it was woken for, for the second answer is of another iteration than the first."""
    got = []
    for _ in range(2):
        client.send(frame(TEXT, b"count none"))
        got += iter(lambda: client.message()[1].decode(), "0")
    return got


def by_sender(messages):
    found = {}
    for message in messages:
        who, number = message.rstrip(".").split()
        found.setdefault(who, []).append(int(number))
    return found


def test_everyone_reaches_all_in_order_exactly_once():
    workers, each, threads = 4, 200, 2
    with contextlib.ExitStack() as stack:
        servers = stack.enter_context(Servers(workers))
        clients = [[joined(stack, port, "news") for _ in range(2)] for port in servers.ports]
        others = [joined(stack, port, "sport") for port in servers.ports]
        assert servers.ask("count news") == 2 * workers == int(told(others[0], "count news"))
        assert servers.ask("count sport") == workers
        senders = [stack.enter_context(WebSocket(port)) for port in servers.ports]
        for i, sender in enumerate(senders):
            sender.send(frame(TEXT, b"threads news w%d %d %d" % (i, threads, each)))
            sender.send(frame(TEXT, b"publish news h%d %d" % (i, each)))
        servers.ask(f"publish news s {each}")
        expected = {"s": list(range(each))}
        for i in range(workers):
            expected |= {who: list(range(each)) for who in (f"h{i}", *(f"w{i}.{j}" for j in range(threads)))}
        count = sum(map(len, expected.values()))
        for client in itertools.chain(*clients):
            assert by_sender(client.message()[1].decode() for _ in range(count)) == expected
        servers.ask("publish sport end 1")
        for other in others:
            assert until_end(other) == []
        stats = servers.ask("stats")
        assert stats["publish_lost"] == 0
        assert stats["topics"] == 2 * workers
        assert stats["websockets"] == 4 * workers


def test_a_connection_that_publishes_gets_its_own_not_and_all_others_do():
    with contextlib.ExitStack() as stack:
        servers = stack.enter_context(Servers(2))
        sender, near, far = (joined(stack, servers.ports[i], "t") for i in (0, 0, 1))
        assert told(sender, "publish t me 1") == "ok"
        assert near.message() == far.message() == (TEXT, b"me 0")
        assert told(far, "publish t far 1") == "ok"
        assert sender.message()[1] == near.message()[1] == b"far 0"


def test_who_leaves_is_no_longer_counted_and_a_topic_without_subscribers_costs_nothing():
    with contextlib.ExitStack() as stack:
        servers = stack.enter_context(Servers(2))
        here, there = (joined(stack, port, "t") for port in servers.ports)
        assert servers.ask("count t") == int(told(here, "count t")) == 2
        assert told(there, "- t") == "ok"
        assert servers.ask("count t") == int(told(there, "count t")) == 1
        here.close()
        until(lambda: servers.ask("count t") == 0, "the end of a connection")
        servers.ask("publish t s 5")
        assert told(there, "count t") == "0"


def test_one_that_is_stopped_loses_what_does_not_fit_and_the_others_go_on():
    with contextlib.ExitStack() as stack:
        servers = stack.enter_context(Servers(4, 64 << 10))
        *clients, client = (joined(stack, port, "t") for port in servers.ports)
        os.kill(servers.pids[3], signal.SIGSTOP)
        for i, each in enumerate(clients):
            each.send(frame(TEXT, b"threads t w%d 2 500 100" % i))      # 3 x 2 x 500 messages of over 100 bytes
        for i, each in enumerate(clients):
            own = 0
            while own < 1000:        # so they have all been published
                own += each.message()[1].startswith(b"w%d." % i)
        os.kill(servers.pids[3], signal.SIGCONT)
        got = until_caught_up(client)
        assert all(numbers == sorted(set(numbers)) for numbers in by_sender(got).values())
        lost = servers.ask("counters")[3]["publish_lost"]
        assert len(got) + lost == 3000
        assert lost > 2000
        assert servers.ask("stats")["publish_lost"] >= lost
        servers.ask("publish t new 1")
        assert client.message()[1] == b"new 0"


def test_what_is_lost_is_logged():
    with contextlib.ExitStack() as stack:
        servers = stack.enter_context(Servers(2, 64 << 10))
        clients = [joined(stack, port, "t") for port in servers.ports]
        os.kill(servers.pids[1], signal.SIGSTOP)
        assert told(clients[0], "- t") == "ok"
        assert told(clients[0], "publish t w 3000") == "ok"
        os.kill(servers.pids[1], signal.SIGCONT)
        assert len(until_caught_up(clients[1])) < 2000
        servers.process.stdin.close()
        errors = servers.process.stderr.read()
        [lost] = re.findall(r"ERROR (\d+) published messages were lost on their way from one process to an", errors)
        assert int(lost) > 1000


def test_a_seat_is_released_and_taken_again_and_no_sum_goes_back():
    with contextlib.ExitStack() as stack:
        servers = stack.enter_context(Servers(3))
        for _ in range(3):
            client, killed = joined(stack, servers.ports[0], "t"), joined(stack, servers.ports[2], "t")
            before = servers.ask("stats")
            killed.send(frame(TEXT, b"publish t w 100000"))
            for _ in range(50):
                client.message()
            servers.kill(2)
            assert servers.ask("count t") == 1
            after = servers.ask("stats")
            assert [each["pid"] for each in after["workers"]] == list(servers.pids[:2])
            for name in ("accepted", "bytes_received", "bytes_sent", "iterations", "messages", "requests", "upgrades"):
                assert after[name] >= before[name] > 0
            assert after["routes"]["/ws"] == {"websockets": 1, "dropped": 0, "closed_slow": 0, "no_subprotocol": 0}
            servers.restart(2)
            successor = joined(stack, servers.ports[2], "t")
            servers.ask("publish t end 1")
            assert until_end(successor) == []
            numbers = by_sender(until_end(client)).get("w", [])
            assert numbers == sorted(set(numbers))             # with gaps, where it was too slow
            assert servers.ask("stats")["connections"] == 2
            client.close()
            successor.close()
            until(lambda: servers.ask("count t") == 0, "the end of both")


def test_stats_are_the_sums_of_all_and_a_pulse_is_one_process_alone():
    with contextlib.ExitStack() as stack:
        servers = stack.enter_context(Servers(3))
        for i, port in enumerate(servers.ports):
            for _ in range(i):
                joined(stack, port, "t")
        stats = servers.ask("stats")
        assert [each["pid"] for each in stats["workers"]] == list(servers.pids)
        assert [each["websockets"] for each in stats["workers"]] == [0, 1, 2]
        for name, value in stats.items():
            if isinstance(value, int):
                assert value == sum(each[name] for each in stats["workers"]), name
        assert stats["answers"]["1xx"] == 3
        assert [each and each["pid"] for each in servers.ask("counters")] == [*servers.pids, None]
        before, full = servers.ask("pulse 0")
        assert not full
        servers.ask("wake 0")
        until(lambda: servers.ask("pulse 0")[0] > before, "an iteration of a reactor that was woken")


def test_a_message_that_is_too_long_is_refused_by_name():
    with contextlib.ExitStack() as stack:
        servers = stack.enter_context(Servers(2, 64 << 10))
        sender, far = (joined(stack, port, "topic") for port in servers.ports)
        most = (64 << 10) // 4 - 10 - 5                        # a frame's header has room, and the topic
        assert told(sender, f"size topic {most}") == "ok"
        assert far.message() == (BINARY, b"x" * most)
        for refusal in (told(sender, f"size topic {most + 1}"), servers.ask(f"size topic {most + 1}")):
            assert re.fullmatch(r"message: 16385 bytes, .* than the 16384 .*publish_buffer: make that larger", refusal)
        servers.ask("publish topic s 1")
        assert sender.message()[1] == far.message()[1] == b"s 0"


def test_a_fork_while_a_thread_publishes_hangs_nowhere():
    with contextlib.ExitStack() as stack:
        servers = stack.enter_context(Servers(2))
        sender, far = (joined(stack, port, "t") for port in servers.ports)
        sender.send(frame(TEXT, b"fork t"))
        got = []
        while "ok" not in got or len(got) < 2001:
            got.append(sender.message()[1].decode())
        assert by_sender(each for each in got if each != "ok") == {"forker": list(range(2000))}
        assert by_sender(far.message()[1].decode() for _ in range(2000)) == {"forker": list(range(2000))}


def test_processes_that_are_started_while_a_thread_publishes_are_published_to():
    with contextlib.ExitStack() as stack:
        servers = stack.enter_context(Servers(2))
        servers.ask("background t")
        for _ in range(5):
            servers.kill(1)
            servers.restart(1)
            client = joined(stack, servers.ports[1], "t")
            numbers = [int(client.message()[1].split()[1]) for _ in range(100)]
            assert numbers == sorted(set(numbers))
        servers.ask("enough")
        servers.ask("publish t end 1")
        until_end(client)


# ---- what is shared, by itself ----


def test_bounds_of_what_is_shared():
    for seats, ring_bytes in ((0, 4096), (-1, 4096), (4097, 4096), (1, 4095), (1, (1 << 40) + 1)):
        with pytest.raises(ValueError, match=r"^(seats|ring_bytes): "):
            Shared(seats, ring_bytes)
    shared = Shared(2, 4096)
    assert (shared.seats, shared.ring_bytes) == (2, 4096)
    for seat in (-1, 2):
        for ask in (shared.waker, shared.pulse, shared.release):
            with pytest.raises(ValueError, match=r"^seat: "):
                ask(seat)
    assert shared.counters() == [None, None]
    shared.release(1)            # nobody has it
    assert shared.stats()["workers"] == []
    with pytest.raises(TypeError, match="topic"):
        shared.subscribers(b"t")
    with pytest.raises(TypeError, match="neither str nor bytes-like"):
        shared.publish("t", 7)
    shared.publish("t", "nobody")


def test_a_seat_is_one_processs_alone():
    out, _ = program("""
import functools, os
import c1m
from c1m.shared import Shared
server = c1m.Server(ports=[0])
shared = Shared(1, 4096)
server._made = functools.partial(server._made, shared, 0)
for _ in range(2):
    with server:
        pass
print(len(shared.stats()["workers"]), shared.stats()["iterations"] > 1, flush=True)
if os.fork():
    os.wait()
else:
    try:
        server.listen()
    except ValueError as error:
        print(str(error).replace(str(os.getppid()), "PARENT"))
""")
    assert out == "1 True\nseat: process PARENT has 0\n"


def test_what_is_shared_outlives_a_server_that_is_forgotten_while_clients_are_subscribed():
    """It is in a circle, which the garbage collector takes apart in any order."""
    program("""
import functools, gc
from c1m.shared import Shared
from test_lifetimes import Handler, left_behind

def sharing(server):
    server._made = functools.partial(server._made, Shared(2, 4096), 0)
    return Handler(server)

for _ in range(5):
    handler, client = left_behind(sharing)
    gc.collect()
    assert handler() is None
    assert client.rest() is not None
""")


def test_memory_or_descriptors_that_cannot_be_had_are_said():
    out, _ = program("""
import os, resource
from c1m.shared import Shared
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, -1))
try:
    Shared(4000, 1 << 20)
except MemoryError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
try:
    Shared(100, 1 << 20)
except OSError as error:
    print(error)
os.fstat(0)                      # what was not opened is not closed either
os.fstat(2)
""")
    assert re.fullmatch(
        r"no memory for 4000 processes to share: \d+ MiB of address space\n"
        r"\[Errno 24\] no eventfd for each of 100 processes: Too many open files\n", out)
