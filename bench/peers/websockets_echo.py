"""An echo by websockets, or by picows' copy of its interface, on uvloop: `websockets_echo.py MODULE PORT`.

MODULE is websockets or picows.websockets. At /publish, what anybody sends goes to all.
"""

from __future__ import annotations

import importlib
import sys

import uvloop

module, port = importlib.import_module(f"{sys.argv[1]}.asyncio.server"), int(sys.argv[2])
subscribers = set()              # connections


async def echo(ws):
    if ws.request.path == "/publish":
        await publish(ws)
    async for message in ws:
        await ws.send(message)


async def publish(ws):
    subscribers.add(ws)
    try:
        async for message in ws:
            module.broadcast(subscribers, message)
    finally:
        subscribers.discard(ws)


async def main():
    options = {"compression": None, "max_size": 1 << 30, "ping_interval": None, "backlog": 4096}
    async with module.serve(echo, "127.0.0.1", port, **options) as server:
        await server.serve_forever()


uvloop.run(main())
