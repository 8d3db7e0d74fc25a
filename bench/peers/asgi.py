"""The least ASGI application that serves the loads: `asgi.py SERVER PORT`.

Pages come from memory: those of the directory C1M_BENCH_ROOT. SERVER is uvicorn, granian, fastpysgi or freastal, each
with one worker, without an access log, and with what makes it fast.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

HTML = (b"content-type", b"text/html; charset=utf-8")
PAGES = {f"/{file.name}": file.read_bytes() for file in Path(os.environ["C1M_BENCH_ROOT"]).iterdir()}


async def app(scope, receive, send):
    await {"http": http, "websocket": websocket, "lifespan": lifespan}[scope["type"]](scope, receive, send)


async def http(scope, receive, send):
    page = PAGES.get(scope["path"])
    status, body = (404, b"") if page is None else (200, page)
    headers = [HTML, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def websocket(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        if event.get("bytes") is not None:
            await send({"type": "websocket.send", "bytes": event["bytes"]})
        else:
            await send({"type": "websocket.send", "text": event["text"]})


async def lifespan(scope, receive, send):
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})


def main(server, port):
    if server == "uvicorn":
        import uvicorn

        uvicorn.run(app, port=port, loop="uvloop", http="httptools", log_level="warning", access_log=False,
                    ws_max_size=1 << 30, ws_per_message_deflate=False, backlog=4096)
    elif server == "granian":
        from granian import Granian

        Granian("asgi:app", port=port, interface="asgi", log_access=False, log_enabled=False, backlog=4096).serve()
    elif server == "fastpysgi":
        import fastpysgi

        fastpysgi.run(app, host="127.0.0.1", port=port, loglevel=0)
    else:
        import freastal

        freastal.serve_asgi(app, host="127.0.0.1", port=port)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))           # for granian's worker, which imports it by name
    main(sys.argv[1], int(sys.argv[2]))
