"""WebSocket echo: wsload on c1m and on the floor, every byte that comes back checked.

c1m echoes by itself, by a handler in Python, and both inside an asyncio loop, there also by a coroutine function.

loads:
  small       50 connections, a message of 20 bytes, the next when its echo is back
  pipelined   the same with 16 messages under way on each connection
  16k         50 connections, a message of 16 KiB
  text        the same as text, in which the server has to check the UTF-8
  1m          10 connections, a message of 1 MiB
  many        5000 connections, a message of 20 bytes
"""

from __future__ import annotations

import json
import sys

import harness
from harness import Result, Row, Server

SERVE = """if True:
    import asyncio, sys, c1m

    def handler(ws, message):
        ws.send(message)

    async def coroutine(ws, message):
        await ws.send(message)

    async def serve():
        async with server:
            await asyncio.Event().wait()

    how = sys.argv[2]
    function = {"handler": handler, "coroutine": coroutine}.get(how.split()[-1])
    server = c1m.Server(ports=int(sys.argv[1]))
    server.websocket("/", function, max_message=1 << 30, idle_timeout=86400)
    asyncio.run(serve()) if how.startswith("asyncio") else server.run()
"""
WAYS = ["built-in", "handler", "asyncio built-in", "asyncio handler", "asyncio coroutine"]

LOADS = {
    "small": ["-c50", "-s20"],
    "pipelined": ["-c50", "-s20", "-d16"],
    "16k": ["-c50", "-s16384"],
    "text": ["-c50", "-s16384", "-u"],
    "1m": ["-c10", "-s1048576"],
    "many": ["-c5000", "-s20"],
}


def echo(how: str) -> Server:
    return Server(f"c1m {how}", lambda port: [sys.executable, "-P", "-c", SERVE, str(port), how])


def main() -> None:
    args = harness.arguments(__doc__, LOADS)
    with harness.workshop() as place:

        def measure(load: str) -> list[Row]:
            def wsload(server: Server) -> Result:
                command = [place / "wsload", *LOADS[load], f"-t{args.seconds}", str(server.port), "/"]
                found = json.loads(harness.load(command))
                return Result(found["messages"], found["rate"], found["p99_us"], found["errors"])

            servers = [harness.floor(place, "ws"), *map(echo, WAYS)]
            return harness.compare(servers, wsload, args.rounds)

        harness.report(args, measure)


if __name__ == "__main__":
    main()
