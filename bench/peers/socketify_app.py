"""Pages from memory and an echo by socketify: `socketify_app.py PORT ROOT`. At /publish, a message goes to all."""

from __future__ import annotations

import sys
from pathlib import Path

from socketify import App, CompressOptions

FOREVER_S = 960                  # the longest there is
OPTIONS = {"compression": CompressOptions.DISABLED, "max_payload_length": 1 << 30, "idle_timeout": FOREVER_S}


def page(body):
    def respond(response, request):
        response.write_header("Content-Type", "text/html; charset=utf-8")
        response.end(body)

    return respond


app = App()
for file in Path(sys.argv[2]).iterdir():
    app.get(f"/{file.name}", page(file.read_bytes()))
app.ws("/ws", {**OPTIONS, "message": lambda ws, message, opcode: ws.send(message, opcode)})
app.ws("/publish", {
    **OPTIONS,
    "open": lambda ws: ws.subscribe("all"),
    "message": lambda ws, message, opcode: app.publish("all", message, opcode),
})
app.listen(int(sys.argv[1]), lambda config: None)
app.run()
