"""WebSockets to handlers as the script of a page in a real browser has them."""

import queue

import client
import pytest

import c1m

# Sends what it is given, closes with 4001 when so many messages have come, and tells all at the end.
TALK = """
const [url, protocols, send, awaited, done] = arguments;
const ws = new WebSocket(url, protocols);
const seen = {opened: false, received: []};
ws.binaryType = "arraybuffer";
ws.onopen = () => {
    Object.assign(seen, {opened: true, extensions: ws.extensions, protocol: ws.protocol});
    for (const message of send) ws.send(typeof message == "string" ? message : new Uint8Array(message));
};
ws.onmessage = ({data}) => {
    seen.received.push(typeof data == "string" ? data : Array.from(new Uint8Array(data)));
    if (seen.received.length == awaited) ws.close(4001, "seen");
};
ws.onclose = ({code, reason, wasClean}) => done({...seen, code, reason, clean: wasClean});
"""
TEXT = "příliš žluťoučký kůň \U0001f40e "
BYTES = list(range(256))


class Echo:
    def __init__(self):
        self.closed = queue.SimpleQueue()

    def on_message(self, ws, message):
        if message == "raise":
            raise RuntimeError("as it was asked to")
        if message == "bye":
            ws.close(4000, "bye")
        else:
            ws.send(message)

    def on_close(self, ws, code, reason):
        self.closed.put((code, reason))


class Door:
    def on_upgrade(self, request):
        return c1m.Reject(451, "not for you") if request.query == "reject" else None

    def on_message(self, ws, message):
        ws.send(message)


@pytest.fixture
def echo():
    return Echo()


@pytest.fixture
def server(tmp_path, echo):
    (tmp_path / "index.html").write_text("<!doctype html><title>empty</title><link rel=icon href='data:,'>")
    server = c1m.Server(root=tmp_path, ports=[0])
    server.websocket("/plain", echo)
    server.websocket("/shared", echo, compression="shared")
    server.websocket("/dedicated", echo, compression="dedicated")
    server.websocket("/small", echo, max_message=1000)
    server.websocket("/protocols", echo, subprotocols=["best", "good"])
    server.websocket("/door", Door())
    server.websocket("/foreign", echo, origins=["https://example.org"])
    with server:
        server.address = f"127.0.0.1:{server.ports[0]}"
        yield server


@pytest.fixture
def talk(browser, server):
    browser.get(f"http://{server.address}/")
    browser.get_log("browser")

    def talk(path, send=(), awaited=0, protocols=(), address=server.address):
        return browser.execute_async_script(TALK, f"ws://{address}{path}", protocols, send, awaited)

    return talk


def test_text_and_binary(talk, echo):
    sent = [TEXT, BYTES, "", [], TEXT * 5000, BYTES * 500]
    seen = talk("/plain", sent, len(sent))
    assert seen["received"] == sent
    assert (seen["extensions"], seen["protocol"]) == ("", "")
    assert (seen["code"], seen["reason"], seen["clean"]) == (4001, "", True)  # the answer to a Close has its code only
    assert echo.closed.get(timeout=client.PATIENCE) == (4001, "seen")


@pytest.mark.parametrize("path", ["/shared", "/dedicated"])
def test_compression(talk, server, echo, path):
    """Messages arrive whole both ways, and as fewer bytes than they have."""
    sent = [TEXT, BYTES, "", [], TEXT * 5000, BYTES * 500, TEXT * 5000, "short"]
    before = server.stats()
    seen = talk(path, sent, len(sent))
    after = server.stats()
    assert seen["received"] == sent
    assert seen["extensions"].split(";")[0] == "permessage-deflate"
    assert seen["code"] == 4001
    assert echo.closed.get(timeout=client.PATIENCE) == (4001, "seen")
    size = sum(len(each.encode() if isinstance(each, str) else each) for each in sent)
    for way in ("bytes_received", "bytes_sent"):
        assert after[way] - before[way] < size / 10, way


@pytest.mark.parametrize("offered, agreed", [(["good", "best"], "best"), (["none", "good"], "good")])
def test_a_subprotocol_by_the_servers_order(talk, echo, offered, agreed):
    seen = talk("/protocols", ["x"], 1, offered)
    assert (seen["protocol"], seen["received"]) == (agreed, ["x"])


def test_no_subprotocol_in_common(talk, echo):
    """A browser that is told of none ends the connection (WHATWG, Establish a WebSocket connection)."""
    seen = talk("/protocols", [], 0, ["none"])
    assert (seen["opened"], seen["code"]) == (False, 1006)


@pytest.mark.parametrize("path, last, code, reason", [
    ("/plain", "bye", 4000, "bye"),
    ("/small", "x" * 1001, 1009, "message over the limit"),
    ("/plain", "raise", 1011, "handler failed"),
])
def test_the_close_that_a_page_sees(talk, echo, path, last, code, reason):
    seen = talk(path, ["first", last])
    assert seen["received"] == ["first"]
    assert (seen["code"], seen["reason"], seen["clean"]) == (code, reason, True)
    assert echo.closed.get(timeout=client.PATIENCE)[0] == code


def test_a_message_of_the_limit(talk, echo):
    assert talk("/small", ["x" * 1000], 1)["received"] == ["x" * 1000]


def test_a_page_sees_1001_when_the_server_stops(browser, talk):
    closed = queue.SimpleQueue()

    class Last:
        def on_close(self, ws, code, reason):
            closed.put(code)

    other = c1m.Server(ports=[0])
    other.websocket("/last", Last())
    with other:
        browser.execute_script("""
            const ws = new WebSocket(arguments[0]);
            window.seen = new Promise((resolve) => { ws.onclose = ({code, wasClean}) => resolve([code, wasClean]); });
        """, f"ws://127.0.0.1:{other.ports[0]}/last")
        client.until(lambda: other.stats()["websockets"] == 1, "the page to connect")
    assert browser.execute_async_script("window.seen.then(arguments[0])") == [1001, True]
    assert closed.get(timeout=client.PATIENCE) == 1001


def test_origins(browser, server, talk):
    """A page of one server may connect to another where its origin is listed, and nowhere else."""
    assert talk("/foreign", ["x"], 1)["received"] == ["x"]       # the server's own

    other = c1m.Server(ports=[0])
    other.websocket("/friends", origins=[f"http://{server.address}"])
    other.websocket("/foreign", origins=["https://example.org"])
    with other:
        address = f"127.0.0.1:{other.ports[0]}"
        assert talk("/friends", ["x"], 1, address=address)["received"] == ["x"]
        refused = talk("/foreign", ["x"], 1, address=address)
        assert (refused["opened"], refused["code"], refused["received"]) == (False, 1006, [])
        assert other.stats()["upgrades"] == 1
    assert "403" in browser.get_log("browser")[-1]["message"]


def test_on_upgrade_rejects(browser, talk):
    refused = talk("/door?reject", ["x"], 1)
    assert (refused["opened"], refused["code"], refused["received"]) == (False, 1006, [])
    assert "451" in browser.get_log("browser")[-1]["message"]
    assert talk("/door?accept", ["x"], 1)["received"] == ["x"]
