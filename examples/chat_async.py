"""A chat that remembers, in asyncio: `python examples/chat_async.py [PORT]`. Its handler awaits a database."""

import asyncio
import contextlib
import sqlite3
import sys

import c1m


class Chat:
    def __init__(self, server):
        self.server = server
        self.database = sqlite3.connect(":memory:", check_same_thread=False)
        self.database.execute("CREATE TABLE said (who TEXT, what TEXT)")

    async def on_open(self, ws):
        ws.subscribe("lobby")
        last = await asyncio.to_thread(self.query, "SELECT * FROM said ORDER BY rowid DESC LIMIT 20")
        for who, what in reversed(last):         # the oldest first
            await ws.send(f"{who}: {what}")

    async def on_message(self, ws, message):
        await asyncio.to_thread(self.query, "INSERT INTO said VALUES (?, ?)", ws.remote, message)
        self.server.publish("lobby", f"{ws.remote}: {message}")

    def query(self, statement, *values):
        with self.database:
            return self.database.execute(statement, values).fetchall()


async def main():
    server = c1m.Server(root=c1m.PAGE, ports=int(sys.argv[1]) if sys.argv[1:] else 8001)
    server.websocket("/ws", Chat(server))
    async with server:
        print(f"http://127.0.0.1:{server.ports[0]}/", flush=True)
        await asyncio.Event().wait()


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main())
