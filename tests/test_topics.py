"""Topics: the table by itself, against a model, and what is published, on real sockets."""

import contextlib
import queue
import random

import pytest
from client import PATIENCE, WebSocket, until
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from shapes import COUNT, RANDOM, SHAPES, comparisons
from wire import BINARY, TEXT, close, frame

import c1m
from c1m._probe_topics import Board

# ---- the table, against sets ----

WHO = st.integers(0, 11)
NAME = st.sampled_from([b"", b"a", b"b", b"ab", b"\0", b"n" * 300, *(b"topic %d" % i for i in range(8))])


class Topics(RuleBasedStateMachine):
    """Every operation on a Board and on a dict of sets; `members` checks the arrays' links."""

    def __init__(self):
        super().__init__()
        self.board = Board(12)
        self.model = {}

    @rule(who=WHO, name=NAME)
    def subscribe(self, who, name):
        self.board.subscribe(who, name)
        self.model.setdefault(name, set()).add(who)

    @rule(who=WHO, name=NAME)
    def unsubscribe(self, who, name):
        self.board.unsubscribe(who, name)
        self.model.get(name, set()).discard(who)

    @rule(who=WHO)
    def leave(self, who):
        self.board.leave(who)
        for members in self.model.values():
            members.discard(who)

    @rule(name=NAME)
    def everyone_subscribes(self, name):
        for who in range(12):
            self.board.subscribe(who, name)
        self.model[name] = set(range(12))

    @invariant()
    def agree(self):
        for name, members in self.model.items():
            assert self.board.members(name) == sorted(members)
        assert self.board.topic_count() == sum(map(bool, self.model.values()))


Topics.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestTopics = Topics.TestCase


def test_topics_by_the_thousand():
    generator = random.Random(1)
    board, model = Board(500), {}
    for _ in range(30_000):
        who, name = generator.randrange(500), b"topic %d" % int(generator.paretovariate(0.3) % 5000)
        if generator.random() < 0.6:
            board.subscribe(who, name)
            model.setdefault(name, set()).add(who)
        elif generator.random() < 0.98:
            board.unsubscribe(who, name)
            model.get(name, set()).discard(who)
        else:
            board.leave(who)
            for members in model.values():
                members.discard(who)
    assert board.topic_count() == sum(map(bool, model.values())) > 500
    for name, members in model.items():
        assert board.members(name) == sorted(members)
    for who in range(500):
        board.leave(who)
    assert board.topic_count() == 0


def test_names_that_are_prefixes_of_others_are_others():
    board = Board(1)
    board.subscribe(0, b"news")
    assert board.members(b"new") == board.members(b"news ") == board.members(b"News") == []
    assert board.members(b"news") == [0]


def chains(names):
    board = Board(1)
    for name in names:
        board.subscribe(0, name)
    return board.chain_lengths()


@pytest.mark.parametrize("shape", SHAPES)
def test_names_that_are_alike_do_not_share_buckets(shape):
    """Whatever they look like, a topic is found about as fast as among random ones, after 1.5 comparisons."""
    ours, randoms = chains(SHAPES[shape]), chains(RANDOM)
    assert len(ours) == sum(ours) == COUNT
    assert comparisons(ours) <= 2 * comparisons(randoms)
    assert max(ours) <= 2 * max(randoms)


def test_two_tables_spread_the_same_names_differently():
    assert chains(RANDOM) != chains(RANDOM)


# ---- on real sockets ----


class Rooms:
    """Does what its clients say: "+topic", "-topic", "topic:message"; and answers "ok" when it is done."""

    def __init__(self):
        self.opened = queue.SimpleQueue()

    def on_open(self, ws):
        self.opened.put(ws)

    def on_message(self, ws, message):
        if message[0] == "+":
            ws.subscribe(message[1:])
        elif message[0] == "-":
            ws.unsubscribe(message[1:])
        else:
            ws.publish(*message.split(":", 1))
        ws.send("ok")


@pytest.fixture
def rooms():
    return Rooms()


@pytest.fixture
def server(rooms):
    made = c1m.Server(ports=[0])
    made.websocket("/ws", rooms)
    with made:
        yield made


@pytest.fixture
def port(server):
    return server.ports[0]


def told(ws, *words):
    for word in words:
        ws.send(frame(TEXT, word.encode()))
        assert ws.message() == (TEXT, b"ok")


def test_a_message_reaches_all_subscribers_but_its_sender(port):
    with contextlib.ExitStack() as stack:
        a, b, c, d = (stack.enter_context(WebSocket(port)) for _ in range(4))
        for ws in (a, b, c):
            told(ws, "+lobby")
        told(d, "+elsewhere")
        told(a, "lobby:from a")
        told(d, "lobby:from d, who is no subscriber")
        assert a.message() == (TEXT, b"from d, who is no subscriber")
        for ws in (b, c):
            assert ws.message() == (TEXT, b"from a")
            assert ws.message() == (TEXT, b"from d, who is no subscriber")
        for ws in (a, b, c, d):  # and nothing else came before this
            told(ws, "-nothing")


def test_the_server_publishes_to_all(server, port):
    with WebSocket(port) as a, WebSocket(port) as b:
        told(a, "+lobby")
        told(b, "+lobby", "+other")
        server.publish("lobby", "text")
        server.publish("lobby", b"bytes")
        server.publish("other", memoryview(b"view"))
        server.publish("nobody", "is there")
        for ws in (a, b):
            assert ws.message() == (TEXT, b"text")
            assert ws.message() == (BINARY, b"bytes")
        assert b.message() == (BINARY, b"view")
        told(a, "-nothing")


def test_subscribing_twice_is_once_and_unsubscribing_ends_it(server, port):
    with WebSocket(port) as ws:
        told(ws, "+lobby", "+lobby")
        assert server.subscribers("lobby") == 1
        server.publish("lobby", "once")
        assert ws.message() == (TEXT, b"once")
        told(ws, "-lobby", "-lobby")
        assert server.subscribers("lobby") == 0
        server.publish("lobby", "never")
        told(ws, "+lobby")
        server.publish("lobby", "again")
        assert ws.message() == (TEXT, b"again")


def test_topics_are_counted_and_gone_without_subscribers(server, port):
    assert server.subscribers("lobby") == 0
    with WebSocket(port) as a, WebSocket(port) as b:
        told(a, "+lobby", "+only a")
        told(b, "+lobby", "+\u00fcber")
        assert (server.subscribers("lobby"), server.subscribers("only a")) == (2, 1)
        assert server.subscribers("\u00fcber") == 1
        assert server.stats()["topics"] == 3
        a.send(close(1000))
        assert a.closing() == 1000
        assert a.rest() == b""
        until(lambda: server.subscribers("lobby") == 1, "it to be unsubscribed")
        b.reset()
        until(lambda: server.stats()["topics"] == 0, "the other to be unsubscribed")


def test_one_that_has_left_gets_nothing_and_the_others_everything_in_order(server, port):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(WebSocket(port)) for _ in range(12)]
        for ws in clients:
            told(ws, "+lobby")
        for i in range(300):
            server.publish("lobby", str(i))
            if i % 30 == 0 and len(clients) > 4:
                clients.pop(i % len(clients)).reset()
        for ws in clients:
            assert [ws.message()[1] for _ in range(300)] == [b"%d" % i for i in range(300)]
        until(lambda: server.subscribers("lobby") == len(clients), "the ones that left to be gone")


def test_a_turns_messages_arrive_in_order_whether_sent_or_published():
    def on_message(ws, message):
        ws.subscribe("all")
        for i in range(100):
            ws.send(f"sent {i}")
            server.publish("all", f"published {i}")

    server = c1m.Server(ports=[0])
    server.websocket("/ws", on_message)
    with server, WebSocket(server.ports[0]) as ws:
        ws.send(frame(TEXT, b"go"))
        for i in range(100):
            assert ws.message() == (TEXT, b"sent %d" % i)
            assert ws.message() == (TEXT, b"published %d" % i)


def test_publishing_big_messages_to_many(server, port):
    generator = random.Random(4)
    sent = [generator.randbytes(200_000) for _ in range(4)]
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(WebSocket(port)) for _ in range(10)]
        for ws in clients:
            told(ws, "+lobby")
        for payload in sent:
            server.publish("lobby", payload)
        for ws in clients:
            assert [ws.message() for _ in sent] == [(BINARY, payload) for payload in sent]


def test_subscriptions_of_another_thread(rooms, server, port):
    with WebSocket(port) as client:
        ws = rooms.opened.get(timeout=PATIENCE)
        ws.subscribe("lobby")
        until(lambda: server.subscribers("lobby") == 1, "the subscription")
        server.publish("lobby", "one")
        ws.publish("lobby", "not to itself")
        ws.unsubscribe("lobby")
        server.publish("lobby", "too late")
        assert client.message() == (TEXT, b"one")
        until(lambda: server.subscribers("lobby") == 0, "its end")
        told(client, "-nothing")
    until(lambda: ws.closed, "it to be gone")
    for call in (ws.subscribe, ws.unsubscribe):
        with pytest.raises(c1m.Closed):
            call("lobby")
    with pytest.raises(c1m.Closed):
        ws.publish("lobby", "x")


@pytest.mark.parametrize("topic", [b"bytes", 1, None])
def test_a_topic_is_a_str(rooms, server, port, topic):
    with WebSocket(port):
        ws = rooms.opened.get(timeout=PATIENCE)
        for call in (ws.subscribe, ws.unsubscribe, server.subscribers):
            with pytest.raises(TypeError, match=r"^topic: .* is not a str$"):
                call(topic)
        for call in (ws.publish, server.publish):
            with pytest.raises(TypeError, match=r"^topic: .* is not a str$"):
                call(topic, "message")


@pytest.mark.parametrize("message", [1, None, ["text"]])
def test_a_message_is_a_str_or_bytes(rooms, server, port, message):
    with WebSocket(port):
        ws = rooms.opened.get(timeout=PATIENCE)
        for call in (lambda: ws.publish("lobby", message), lambda: server.publish("lobby", message)):
            with pytest.raises(TypeError, match=r"^message: \w+ is neither str nor bytes-like$"):
                call()
        with pytest.raises(UnicodeEncodeError):
            server.publish("lobby", "\ud800")


def test_only_a_running_server_publishes():
    server = c1m.Server(ports=[0])
    server.websocket("/ws", Rooms())
    for _ in range(2):
        for call in (lambda: server.publish("lobby", "x"), lambda: server.subscribers("lobby")):
            with pytest.raises(RuntimeError, match=r"^this server is not running: publish while run\(\), `with "):
                call()
        with server:
            server.publish("lobby", "x")
            assert server.subscribers("lobby") == 0


# ---- topics of a route ----


@pytest.fixture
def feed():
    """The server and its port; /feed has topics of its own, and so has /quiet one of these, with a handler."""
    server = c1m.Server(ports=[0])
    server.websocket("/feed", topics=["news", "weather"])
    server.websocket("/quiet", Rooms(), topics="news")
    server.websocket("/rooms", Rooms())
    with server:
        yield server, server.ports[0]


def test_a_routes_topics_reach_all_of_it_from_the_handshake_on(feed):
    server, port = feed
    with WebSocket(port, "/feed") as a, WebSocket(port, "/feed") as b, WebSocket(port, "/quiet") as c:
        server.publish("news", "one")
        server.publish("weather", b"two")
        for ws in (a, b):
            assert ws.message() == (TEXT, b"one")
            assert ws.message() == (BINARY, b"two")
            ws.send(frame(TEXT, b"still an echo"))
            assert ws.message() == (TEXT, b"still an echo")
        assert c.message() == (TEXT, b"one")
        told(c, "-nothing")


def test_a_routes_topics_and_subscriptions_count_together(feed):
    server, port = feed
    assert server.subscribers("news") == 0
    with WebSocket(port, "/feed") as a, WebSocket(port, "/quiet") as b, WebSocket(port, "/rooms") as c:
        told(c, "+news")
        until(lambda: server.subscribers("news") == 3, "all to be counted")
        assert server.subscribers("weather") == 1
        told(c, "news:from a subscriber")
        for ws in (a, b):
            assert ws.message() == (TEXT, b"from a subscriber")
        told(b, "news:from one whose route has it")
        for ws in (a, c):
            assert ws.message() == (TEXT, b"from one whose route has it")
        told(b, "-nothing")
        a.reset()
        until(lambda: server.subscribers("news") == 2, "one to be gone")
        assert server.subscribers("weather") == 0
        server.publish("news", "on")
        assert b.message() == c.message() == (TEXT, b"on")
        assert server.stats()["routes"]["/quiet"]["websockets"] == 1


def test_to_subscribe_to_a_routes_own_topic_changes_nothing(feed):
    server, port = feed
    with WebSocket(port, "/quiet") as ws:
        told(ws, "+news", "-news")
        assert server.subscribers("news") == 1
        assert server.stats()["topics"] == 0
        server.publish("news", "once")
        assert ws.message() == (TEXT, b"once")
        told(ws, "-nothing")


def test_latest_tells_a_routes_topics_apart():
    server = c1m.Server(ports=[0])
    server.websocket("/feed", topics=["a", "b"], when_slow="latest", max_send_queue=32 << 20)
    with server, WebSocket(server.ports[0], "/feed", receive_buffer=4096) as ws:
        server.publish("a", bytes(16 << 20))     # more than the kernel takes: the rest waits
        for i in range(50):
            server.publish("a", f"a{i}")
            server.publish("b", f"b{i}")
        until(lambda: server.stats()["routes"]["/feed"]["dropped"] >= 90, "all but the last of each to be dropped")
        assert ws.message()[1] == bytes(16 << 20)
        assert [ws.message()[1] for _ in range(2)] == [b"a49", b"b49"]


def test_hundreds_on_a_route_come_and_go(feed):
    server, port = feed
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(WebSocket(port, "/feed")) for _ in range(300)]
        until(lambda: server.subscribers("news") == 300, "all to be there")
        server.publish("news", "to all")
        for ws in clients:
            assert ws.message() == (TEXT, b"to all")
        for ws in clients[::2]:
            ws.reset()
        until(lambda: server.subscribers("news") == 150, "half to be gone")
        server.publish("news", "to half")
        for ws in clients[1::2]:
            assert ws.message() == (TEXT, b"to half")
