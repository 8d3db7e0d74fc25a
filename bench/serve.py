"""c1m as the benchmarks serve it: `serve.py WAY PORT ROOT`.

WAY is how its WebSockets are served: c1m (the echo in C), c1m-handler (a function in Python), and inside an asyncio
loop c1m-asyncio (that function there) and c1m-coroutine (a coroutine function). The document root is the same in all.
"""

from __future__ import annotations

import asyncio
import sys

import c1m

FOREVER_S = 86400


def handler(ws, message):
    ws.send(message)


async def coroutine(ws, message):
    await ws.send(message)


class Publisher:
    """Who connects is subscribed; what anybody sends goes to all."""

    def __init__(self, server):
        self.server = server

    def on_open(self, ws):
        ws.subscribe("all")

    def on_message(self, ws, message):
        self.server.publish("all", message)


async def in_asyncio(server):
    async with server:
        await asyncio.Event().wait()


def main(way, port, root):
    server = c1m.Server(root, int(port))
    echo = {"c1m": None, "c1m-handler": handler, "c1m-asyncio": handler, "c1m-coroutine": coroutine}[way]
    server.websocket("/ws", echo, max_message=1 << 30, idle_timeout=FOREVER_S)
    server.websocket("/publish", Publisher(server), idle_timeout=FOREVER_S)
    if way in ("c1m-asyncio", "c1m-coroutine"):
        asyncio.run(in_asyncio(server))
    else:
        server.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
