"""What the processes of one server share: counters, wakers, what is published; the ring by itself, then real forks."""

import os
import random
import signal
import sys
import threading

import pytest
from client import until
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from c1m._probe_ring import Board, Table

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


Wants.TestCase.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
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


def test_publishers_that_are_killed_leave_nothing_locked_or_broken():
    board = board_of(2, size=1 << 16, entries=1024)
    dice = random.Random(2)
    last = dict.fromkeys(range(40), -1)

    def publish_for_ever(who):
        for number in range(1 << 40):
            board.publish(b"t", b"%d %d" % (who, number) + b"." * (number % 500), but=0)

    for who in range(40):
        pid = forked(lambda who=who: publish_for_ever(who))
        enough = dice.randrange(1, 3000)
        while last[who] < enough:
            until(lambda: not board.rest(1), "a message")
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


def test_many_publish_and_each_reader_gets_each_ones_messages_in_order():
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


def test_a_copy_that_is_overwritten_meanwhile_is_never_delivered():
    """A reader in the way of two publishers who go around all the time."""
    board = board_of(1, size=2048, entries=64)

    def publish_for_ever(who):
        for number in range(1 << 40):
            board.publish(b"t", bytes([who, number & 127]) * (number % 200))

    pids = [forked(lambda who=who: publish_for_ever(who)) for who in (0x80, 0x90)]
    try:
        whole = 0
        while whole < 20_000:
            for topic, message, _ in board.all(0):
                assert topic == b"t"
                assert message == message[:2] * (len(message) // 2)
                whole += 1
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
