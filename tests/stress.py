"""Clients that subscribe, publish, stall and vanish at random, and a check of every message.

    python tests/stress.py --seconds 60

A client checks that of each publisher it gets every message in order, once: a gap must have been counted as
dropped, and clients that always read see none. At the end the server's memory is back to where it was.
"""

import argparse
import asyncio
import collections
import contextlib
import gc
import itertools
import json
import os
import random
import struct
import sys
import time

from client import descriptors, handshake, memory
from wire import BINARY, CLOSE, PING, PONG, TEXT, close, frame

import c1m

TOPICS = [f"topic {i}" for i in range(10)]
numbers = itertools.count()  # of publishers: no two connections ever share one


class Hub:
    """A text "+topic" subscribes, "-topic" unsubscribes, and both come back; what is binary is published."""

    def on_message(self, ws, message):
        if isinstance(message, bytes):
            ws.publish(TOPICS[message[0]], message)
        else:
            (ws.subscribe if message[0] == "+" else ws.unsubscribe)(message[1:])
            ws.send(message)


class Client:
    """A connection, what it is subscribed to, and the number of each publisher's last message per topic."""

    def __init__(self, reads):
        self.reads = reads  # never stalls, and so misses nothing
        self.number, self.sent = next(numbers), collections.Counter()
        self.last, self.since = {}, {}
        self.topics, self.asked = set(), collections.deque()
        self.pings, self.pongs, self.got, self.gaps = 0, 0, 0, 0
        self.stalled = asyncio.Event()
        self.stalled.set()

    async def connect(self, port, path):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
        self.writer.write(handshake(path))
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head

    async def frame(self):
        first, n = await self.reader.readexactly(2)
        assert first & 0xF0 == 0x80, hex(first)
        if n == 126:
            [n] = struct.unpack("!H", await self.reader.readexactly(2))
        elif n == 127:
            [n] = struct.unpack("!Q", await self.reader.readexactly(8))
        return first & 15, await self.reader.readexactly(n)

    async def read(self):
        """Reads and checks, until the Close."""
        while True:
            await self.stalled.wait()
            opcode, payload = await self.frame()
            if opcode == TEXT:
                self.answered(payload.decode())
            elif opcode == BINARY:
                self.published(payload)
            elif opcode == PONG:
                assert payload == b"%d" % self.pongs, (payload, self.pongs)
                self.pongs += 1
            elif opcode == PING:
                self.writer.write(frame(PONG, payload))
            else:
                assert opcode == CLOSE, opcode
                return payload

    def answered(self, text):
        if not self.reads:
            while self.asked and self.asked[0] != text:
                self.asked.popleft()  # the answer was dropped
        assert self.asked, f"{text!r} was never asked"
        assert self.asked.popleft() == text
        topic = TOPICS.index(text[1:])
        if text[0] == "-":
            self.topics.discard(topic)
        elif topic not in self.topics:
            self.topics.add(topic)
            for key in [key for key in self.last if key[0] == topic]:
                del self.last[key]  # what came between the two was for others

    def published(self, payload):
        topic, size, publisher, number = struct.unpack_from("!BIQQ", payload)
        assert len(payload) == size
        assert payload[21:] == bytes([number & 255]) * (size - 21)
        assert publisher != self.number, "it came back to its sender"
        if self.reads:
            assert topic in self.topics, "not subscribed"
        last = self.last.get((topic, publisher))
        if last is not None:
            assert number > last, f"{number} after {last}: twice, or out of order"
            self.gaps += number - last - 1
            assert number == last + 1 or not self.reads, f"{number} after {last}: lost"
        self.last[topic, publisher] = number
        self.got += 1

    def act(self):
        """Something at random."""
        dice = random.random()
        topic = random.randrange(len(TOPICS))
        if dice < 0.2:
            self.ask(random.choice("++-") + TOPICS[topic])
        elif dice < 0.8:
            for _ in range(random.choice((1, 1, 5, 20))):
                size = random.choice((21, 100, 130, 2000)) if random.random() < 0.98 else 70_000
                number = self.sent[topic]
                self.sent[topic] += 1
                head = struct.pack("!BIQQ", topic, size, self.number, number)
                self.writer.write(frame(BINARY, head + bytes([number & 255]) * (size - 21)))
        elif dice < 0.9:
            self.writer.write(frame(PING, b"%d" % self.pings))
            self.pings += 1
        elif not self.reads:
            self.stalled.clear() if random.random() < 0.5 else self.stalled.set()

    def ask(self, text):
        self.asked.append(text)
        self.writer.write(frame(TEXT, text.encode()))

    async def live(self, port, path, until):
        await self.connect(port, path)
        reading = asyncio.ensure_future(self.read())
        try:
            lives = random.expovariate(0.2)
            ends = min(until, time.monotonic() + lives)
            while time.monotonic() < ends and not reading.done():
                self.act()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.writer.drain(), 1 if not self.reads else None)
                await asyncio.sleep(random.expovariate(40))
            if reading.done():  # it was too slow
                assert reading.result()[:2] == struct.pack("!H", 1013) and not self.reads, reading.result()
            elif random.random() < 0.5:
                self.stalled.set()
                self.writer.write(close(1000))
                assert (await asyncio.wait_for(reading, 60))[:2] in (
                    struct.pack("!H", 1000),
                    struct.pack("!H", 1013),
                )
                assert self.pongs == self.pings or not self.reads
            else:
                reading.cancel()
                self.writer.transport.abort()
        except (ConnectionError, asyncio.IncompleteReadError):
            if self.reads:
                raise
            self.stalled.set()  # else it would never find out
            with contextlib.suppress(Exception):
                await reading  # an AssertionError of its own comes out below
        finally:
            if reading.done() and not reading.cancelled():
                error = reading.exception()
                if isinstance(error, AssertionError):
                    raise error
            reading.cancel()
            self.writer.close()


async def clients(ports, count, seconds, paths):
    """Keeps so many clients alive, one for each that ends."""
    totals = collections.Counter()
    until = time.monotonic() + seconds

    async def one(i):
        while time.monotonic() < until:
            client = Client(reads=i % 3 != 0)
            await client.live(ports[0], "/reads" if client.reads else random.choice(paths), until)
            totals.update(
                connections=1, delivered=client.got, gaps=client.gaps, published=client.sent.total()
            )

    await asyncio.gather(*(one(i) for i in range(count)))
    return totals


def serve(inbox, outbox):
    """The server, in a process of its own: its port, then its counters and memory whenever a byte asks."""
    server = c1m.Server(ports=[0])
    server.websocket("/reads", Hub(), max_backlog=1 << 30)
    for mode in ("close", "drop-newest", "drop-oldest", "latest"):
        server.websocket(f"/{mode}", Hub(), when_slow=mode, max_backlog=100_000)
    with server:
        outbox.write(json.dumps(server.ports) + "\n")
        outbox.flush()
        while inbox.readline():
            gc.collect()
            outbox.write(json.dumps([server.stats(), memory(), descriptors()]) + "\n")
            outbox.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument(
        "--growth", type=float, default=20, help="MiB of memory that may be left (ASan keeps much)"
    )
    asked = parser.parse_args()
    random.seed(asked.seed)
    (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours_out)
        os.close(ours_in)
        serve(os.fdopen(theirs_in), os.fdopen(theirs_out, "w"))
        os._exit(0)
    os.close(theirs_in)
    os.close(theirs_out)
    ask, answers = os.fdopen(ours_out, "w"), os.fdopen(ours_in)

    def state():
        ask.write("\n")
        ask.flush()
        return json.loads(answers.readline())

    def quiet():
        deadline = time.monotonic() + 90
        while (now := state())[0]["connections"]:
            assert time.monotonic() < deadline, "connections stay"
            time.sleep(0.05)
        assert now[0]["topics"] == 0, "topics stay"
        return now

    ports = json.loads(answers.readline())
    paths = ["/close", "/drop-newest", "/drop-oldest", "/latest"]
    asyncio.run(clients(ports, asked.clients, min(5, asked.seconds / 4), paths))  # fills every pool
    _, before, fds = quiet()
    totals = asyncio.run(clients(ports, asked.clients, asked.seconds, paths))
    stats, after, now = quiet()
    dropped = sum(route["dropped"] for route in stats["routes"].values())
    print(json.dumps({**totals, "dropped": dropped, "routes": stats["routes"], "memory": [before, after]}))
    assert totals["delivered"], "nothing was delivered"
    assert stats["routes"]["/reads"] == {"dropped": 0, "closed_slow": 0}
    assert totals["gaps"] <= dropped, "a slow client missed more than was counted as dropped"
    assert now == fds, f"{now} descriptors are open, {fds} were"
    assert after - before < asked.growth * (1 << 20), f"{after - before} bytes of memory are left"
    ask.close()
    assert os.waitpid(child, 0)[1] == 0, "the server ended badly"


if __name__ == "__main__":
    sys.exit(main())
