"""WebSockets as the `ws` package of Node has them: `npm install ws`, and C1M_NODE_MODULES names its node_modules."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from client import PATIENCE
from conftest import missing

import c1m

SCRIPT = Path(__file__).with_name("node.js")
TEXT = "příliš žluťoučký kůň \U0001f40e "
BYTES = list(range(256))


@pytest.fixture(scope="module")
def modules():
    if shutil.which("node") is None:
        missing("node", "from Node")
    found = os.environ.get("C1M_NODE_MODULES")
    if found is None or not Path(found, "ws").is_dir():
        missing("the ws package that C1M_NODE_MODULES should lead to", "from Node")
    return found


class Handler:
    def __init__(self):
        self.closed = []

    def on_upgrade(self, request):
        return c1m.Reject(403) if request.query == "reject" else None

    def on_message(self, ws, message):
        if message == "raise":
            raise RuntimeError("as it was asked to")
        if message == "bye":
            ws.close(4000, "bye, příteli")
        elif message == "ping":
            ws.ping("are you there?")
            ws.send("pinged")
        else:
            ws.send(message)

    def on_close(self, ws, code, reason):
        self.closed.append((code, reason))


@pytest.fixture(params=["echo", "handler"])
def play(request, modules):
    """Plays steps against the built-in echo or a handler, which `play.handler` is."""
    handler = Handler() if request.param == "handler" else None

    def play(*steps, compression=None, query="", options=None, **settings):
        server = c1m.Server(ports=[0])
        server.websocket("/ws", handler, compression=compression, **settings)
        with server:
            options = {"perMessageDeflate": compression is not None} | (options or {})
            given = json.dumps([f"ws://127.0.0.1:{server.ports[0]}/ws{query}", options, steps])
            ran = subprocess.run(["node", SCRIPT], input=given, env=os.environ | {"NODE_PATH": modules},
                                 capture_output=True, text=True, timeout=PATIENCE)  # fmt: skip
            assert ran.returncode == 0, ran.stderr
        play.stats = server.stats()
        return json.loads(ran.stdout)

    play.handler = handler
    return play


@pytest.mark.parametrize("compression", [None, "shared", "dedicated"])
def test_messages(play, compression):
    sent = [TEXT, BYTES, "", [], TEXT * 5000, BYTES * 500, TEXT * 5000, "x" * (1 << 20)]
    steps = [*(["send", each] for each in sent), ["close", 4001, "done"]]
    seen = play(*steps, compression=compression)
    assert seen["messages"] == sent
    assert seen["extensions"] == ("permessage-deflate" if compression else "")
    assert (seen["code"], seen["reason"], seen.get("error")) == (4001, "", None)
    if play.handler:
        assert play.handler.closed == [(4001, "done")]
    size = sum(len(each.encode() if isinstance(each, str) else each) for each in sent)
    for way in ("bytes_received", "bytes_sent"):
        assert (play.stats[way] < size / 10) == (compression is not None), way


@pytest.mark.parametrize("compression", [None, "shared", "dedicated"])
def test_fragments_and_pings(play, compression):
    parts = [["one ", "", TEXT * 1000, "end"], [BYTES * 10, BYTES, [7]]]
    seen = play(["ping", "first"], ["parts", *parts[0]], ["parts", *parts[1]], ["ping", ""], ["close", 1000],
                compression=compression)  # fmt: skip
    assert seen["messages"] == ["".join(parts[0]), [byte for part in parts[1] for byte in part]]
    assert seen["pongs"] == ["first", ""]
    assert (seen["code"], seen.get("error")) == (1000, None)


@pytest.mark.parametrize("options", [
    {"serverNoContextTakeover": True},
    {"clientNoContextTakeover": True},
    {"serverMaxWindowBits": 9, "clientMaxWindowBits": 9},
], ids=lambda options: next(iter(options)))
@pytest.mark.parametrize("compression", ["shared", "dedicated"])
def test_terms_of_compression(play, compression, options):
    sent = [TEXT * 500, BYTES * 50] * 3
    seen = play(*(["send", each] for each in sent), ["close", 1000], compression=compression,
                options={"perMessageDeflate": {"threshold": 0, **options}})  # fmt: skip
    assert seen["extensions"] == "permessage-deflate"
    assert (seen["messages"], seen["code"], seen.get("error")) == (sent, 1000, None)


@pytest.mark.parametrize("compression", [None, "shared", "dedicated"])
def test_1009(play, compression):
    seen = play(["send", "x" * 1000], ["send", "x" * 1001], compression=compression, max_message=1000)
    assert (seen["messages"], seen["code"]) == (["x" * 1000], 1009)


def test_a_subprotocol_by_the_servers_order(play):
    seen = play(["close"], subprotocols=["best", "good"], options={"protocols": ["good", "best"]})
    assert (seen["protocol"], seen["code"]) == ("best", 1005)


def test_origins(play):
    origins = ["https://example.org"]
    assert play(["close"], origins=origins, options={"origin": "https://example.com"})["status"] == 403
    assert play(["close"], origins=origins, options={"origin": "https://example.org"})["code"] == 1005


@pytest.mark.parametrize("play", ["handler"], indirect=True)
def test_what_a_handler_says(play):
    seen = play(["send", "ping"], ["send", "bye"])
    assert (seen["messages"], seen["pings"]) == (["pinged"], 1)
    assert (seen["code"], seen["reason"]) == (4000, "bye, příteli")
    assert play(["send", "raise"])["code"] == 1011
    assert play(query="?reject")["status"] == 403
    assert [code for code, _ in play.handler.closed] == [4000, 1011]
