"""A chat: `python examples/chat.py [PORT]`, then open the page it names in two browsers."""

import itertools
import sys
import tempfile
from pathlib import Path

import c1m

PAGE = """<!doctype html><meta charset="utf-8"><title>Chat</title>
<ul id="log"></ul><form><input id="say" autofocus autocomplete="off"></form>
<script>
const ws = new WebSocket(`ws://${location.host}/chat`);
const say = document.querySelector("#say"), log = document.querySelector("#log");
const show = (text) => { log.append(Object.assign(document.createElement("li"), {textContent: text})); };
ws.onmessage = (event) => show(event.data);
ws.onclose = (event) => show(`closed: ${event.code}`);
document.forms[0].onsubmit = (event) => { event.preventDefault(); ws.send(say.value); say.value = ""; };
</script>"""


class Chat:
    def __init__(self):
        self.guests = itertools.count(1)

    def on_open(self, ws):
        ws.data = f"guest {next(self.guests)}"
        ws.subscribe("lobby")
        ws.send(f"welcome, {ws.data}")
        ws.publish("lobby", f"{ws.data} comes in")

    def on_message(self, ws, message):
        server.publish("lobby", f"{ws.data}: {message}")

    def on_close(self, ws, code, reason):
        server.publish("lobby", f"{ws.data} leaves")


with tempfile.TemporaryDirectory() as directory:
    Path(directory, "index.html").write_text(PAGE)
    server = c1m.Server(root=directory, ports=int(sys.argv[1]) if sys.argv[1:] else 8001)
    server.websocket("/chat", Chat(), max_message=4096)
    server.listen()
    print(f"http://127.0.0.1:{server.ports[0]}/", flush=True)
    server.run()
