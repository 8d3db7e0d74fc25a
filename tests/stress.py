"""Clients that subscribe, publish, stall and vanish at random, and a check of every message.

    python tests/stress.py --clients 1000 --seconds 300

Whoever publishes a message numbers it within its topic and keeps a ledger: for which numbers each connection was
subscribed to the topic, and which of them it published itself. That is held against what each client received: all
that it was owed, once, in order, but for what its route counted as dropped. On the routes whose clients all take their
leave the two must be equal. At the end the server's memory is back to where it was.

The server is this process, so that a sanitizer can be loaded before it; the clients are a child without one.
"""

import argparse
import asyncio
import collections
import contextlib
import ctypes
import gc
import itertools
import json
import logging
import os
import queue
import random
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path

from client import PATIENCE, SANITIZED, descriptors, handshake, memory, until
from wire import BINARY, CLOSE, PING, PONG, TEXT, close, frame

THREADS = 2                      # that publish beside the reactor's
MASTERS = 1 + THREADS
NUMBER = struct.Struct("!Q")     # of a message within its topic
HEAD = struct.Struct("!HIQQ")    # its topic, size and publisher, and how many that one had published before
SIZES = [HEAD.size, 100, 130, 2000]
NOISE = random.Random(7).randbytes(1 << 17)
BACKLOG = 20_000
COMPRESSION = {"plain": None, "shared": "shared", "dedicated": "dedicated"}
READING = [f"/reads/{how}" for how in COMPRESSION]  # clients that never stall, and so miss nothing
CLOSING = [f"/close/{how}" for how in COMPRESSION]
# Of those who vanish, none can tell what they missed at the end.
DROPPING = [
    f"/{end}/{mode}/{how}" for end in ("leave", "vanish") for mode in ("drop-newest", "drop-oldest", "latest")
    for how in COMPRESSION
]


def master_of(topic):
    return (0, 0, 0, *range(1, MASTERS))[topic % (2 + MASTERS)]


def body(number, size):
    """What a client's message of that number has behind its head: half of them can be compressed."""
    return bytes([number & 255]) * size if number % 2 else NOISE[number % 50_000:][:size]


# ---- the server ----


class Master:
    """Numbers what is published to its topics. All that concerns one of them happens on one thread: so the order of the
    numbers is that of the messages, and who subscribes does so between two of them.
    """

    def __init__(self, name, publish, ledger):
        self.name, self.publish, self.ledger = name, publish, ledger
        self.last = collections.Counter()          # the number of each topic's last message
        self.owed = collections.defaultdict(dict)  # by connection and topic: the last number before, and its own

    def do(self, ws, message):
        connection = int(ws.query)
        if isinstance(message, bytes):
            topic = HEAD.unpack_from(message)[0]
            number = self.last[topic] + 1
            self.publish(ws, str(topic), NUMBER.pack(number) + message)
            self.last[topic] = number
            if self.name == 0 and topic in self.owed[connection]:
                self.owed[connection][topic][1].append(number)
        elif message[0] == ".":
            for topic in list(self.owed[connection]):
                ws.unsubscribe(str(topic))
                self.settle(connection, topic, self.last[topic])
            ws.ping(b"left")
        else:
            topic = int(message.split()[1])
            if message[0] == "+":
                ws.subscribe(str(topic))
                self.owed[connection].setdefault(topic, (self.last[topic], []))
            else:
                ws.unsubscribe(str(topic))
                if topic in self.owed[connection]:
                    self.settle(connection, topic, self.last[topic])
            ws.send(message)

    def settle(self, connection, topic, last):
        first, own = self.owed[connection].pop(topic)
        self.ledger.write(json.dumps([connection, topic, first, last, own]) + "\n")

    def gone(self, connection):
        for topic in list(self.owed[connection]):
            self.settle(connection, topic, None)
        del self.owed[connection]


class Hub:
    """Does what "+ topic n", "- topic n" and ". n" ask for and publishes what is binary, or has a thread do so."""

    def __init__(self, server, ledgers):
        self.masters = [
            Master(name, self.from_thread if name else self.from_handler, ledger)
            for name, ledger in enumerate(ledgers)
        ]
        self.server = server
        self.inboxes = [queue.SimpleQueue() for _ in range(THREADS)]
        self.threads = [
            threading.Thread(target=self.work, args=each, daemon=True)
            for each in zip(self.masters[1:], self.inboxes, strict=True)
        ]
        for thread in self.threads:
            thread.start()

    def from_handler(self, ws, topic, message):
        ws.publish(topic, message)

    def from_thread(self, ws, topic, message):
        self.server.publish(topic, message)

    def work(self, master, inbox):
        while (asked := inbox.get()) is not None:
            ws, message = asked
            if message is None:
                master.gone(ws)
            else:
                # It may have gone in the meantime. What is published to its topics must be published even so.
                with contextlib.suppress(sys.modules["c1m"].Closed):
                    master.do(ws, message)

    def end(self):
        for inbox, thread in zip(self.inboxes, self.threads, strict=True):
            inbox.put(None)
            thread.join()

    def on_open(self, ws):
        ws.data = 0

    def on_message(self, ws, message):
        if isinstance(message, bytes):
            topic, size, publisher, number = HEAD.unpack_from(message)
            assert (publisher, number) == (int(ws.query), ws.data), "a client's message is lost, or not its own"
            assert message[HEAD.size:] == body(number, size - HEAD.size), "a client's message is not as it was sent"
            ws.data += 1
            self.to(master_of(topic), ws, message)
        elif message[0] == ".":
            assert ws.data == int(message.split()[1]), "a client's message is lost"
            for name in range(MASTERS):
                self.to(name, ws, message)
        else:
            self.to(master_of(int(message.split()[1])), ws, message)

    def on_close(self, ws, code, reason):
        self.masters[0].gone(int(ws.query))
        for inbox in self.inboxes:
            inbox.put((int(ws.query), None))

    def to(self, name, ws, message):
        if name:
            self.inboxes[name - 1].put((ws, message))
        else:
            self.masters[0].do(ws, message)


def heap():
    """Bytes that are allocated: what a sanitizer says, or the C library."""
    library = ctypes.CDLL(None)
    if SANITIZED:
        library.__sanitizer_get_current_allocated_bytes.restype = ctypes.c_size_t
        return library.__sanitizer_get_current_allocated_bytes()

    class Info(ctypes.Structure):
        _fields_ = [(name, ctypes.c_size_t) for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )]  # fmt: skip

    library.mallinfo2.restype = Info
    info = library.mallinfo2()
    return info.uordblks + info.hblkhd


# ---- the clients ----


class Client(asyncio.Protocol):
    """A connection, and the numbers that it got of each topic, as runs from one to another."""

    numbers = itertools.count()

    def __init__(self, path, topics, first):
        self.number, self.path, self.topics = first + next(self.numbers), path, topics
        self.reads = path in READING
        self.leaves = path.startswith("/leave/") or (path not in DROPPING and random.random() < 0.5)
        self.unread, self.open, self.stalled = bytearray(), False, False
        self.got, self.publishers = collections.defaultdict(list), {}
        self.serials, self.asked = itertools.count(), [collections.deque() for _ in range(MASTERS)]
        self.sent = self.pings = self.pongs = self.left = self.delivered = self.unanswered = 0
        self.deflate = self.inflate = None
        self.code = self.error = None
        self.lost = False

    async def connect(self, port):
        to = socket.socket()
        if not self.reads:  # so that the kernel keeps little of what it does not read, here and at the server
            to.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            to.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        to.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(to, ("127.0.0.1", port))
        await loop.create_connection(lambda: self, sock=to)

    # -- what comes --

    def connection_made(self, transport):
        self.transport = transport
        offers = [] if random.random() < 0.2 else ["Sec-WebSocket-Extensions: permessage-deflate"]
        transport.write(handshake(f"{self.path}?{self.number}", *offers))

    def connection_lost(self, error):
        self.lost = True

    def data_received(self, data):
        if self.error is None:
            self.unread += data
            try:
                self.parse()
            except Exception as error:
                self.error = error
                self.transport.abort()

    def parse(self):
        unread, at = self.unread, 0
        if not self.open:
            end = unread.find(b"\r\n\r\n")
            if end < 0:
                return
            assert unread.startswith(b"HTTP/1.1 101 "), bytes(unread)
            self.agreed(bytes(unread[:end]))
            at, self.open = end + 4, True
        while len(unread) >= at + 2:
            first, n = unread[at], unread[at + 1]
            head = 2 if n < 126 else 4 if n == 126 else 10
            if len(unread) < at + head:
                break
            if head > 2:
                n = int.from_bytes(unread[at + 2:at + head], "big")
            if len(unread) < at + head + n:
                break
            self.frame(first, bytes(unread[at + head:at + head + n]))
            at += head + n
        del unread[:at]

    def agreed(self, head):
        if b"permessage-deflate" in head:
            assert not self.path.endswith("/plain")
            self.inflate = None if b"server_no_context_takeover" in head else zlib.decompressobj(-15)
            keeps = b"client_no_context_takeover" not in head
            kept = zlib.compressobj(wbits=-15)
            self.deflate = lambda: kept if keeps else zlib.compressobj(wbits=-15)

    def frame(self, first, payload):
        assert self.code is None, "a frame behind the Close"
        assert first & 0xB0 == 0x80, hex(first)
        opcode = first & 15
        if first & 0x40:
            assert self.deflate, "compressed, and was not asked for"
            payload = (self.inflate or zlib.decompressobj(-15)).decompress(payload + b"\0\0\xff\xff")
        if opcode == TEXT:
            self.answered(payload.decode())
        elif opcode == BINARY:
            self.published(payload)
        elif opcode == PONG:
            assert payload == b"%d" % self.pongs, (payload, self.pongs)
            self.pongs += 1
        elif opcode == PING:
            self.write(PONG, payload)
            self.left += payload == b"left"
        else:
            assert opcode == CLOSE, opcode
            self.code = int.from_bytes(payload[:2], "big")

    def answered(self, text):
        asked = self.asked[master_of(int(text.split()[1]))]
        assert text in asked, f"{text!r} was never asked, or is answered twice or out of order"
        while asked.popleft() != text:
            self.unanswered += 1

    def published(self, payload):
        [number] = NUMBER.unpack_from(payload)
        topic, size, publisher, count = HEAD.unpack_from(payload, NUMBER.size)
        assert payload[NUMBER.size + HEAD.size:] == body(count, size - HEAD.size), "not as it was sent"
        assert publisher != self.number or master_of(topic), "it came back to its sender"
        runs = self.got[topic]
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            assert not runs or number > runs[-1][1], f"{number} after {runs[-1][1]}: twice, or out of order"
            runs.append([number, number])
        assert count > self.publishers.get((topic, publisher), -1), "a publisher's messages are out of order"
        self.publishers[topic, publisher] = count
        self.delivered += 1

    # -- what it does --

    def write(self, opcode, payload):
        if self.lost:
            return
        if self.deflate and opcode in (TEXT, BINARY) and random.random() < 0.7:
            deflate = self.deflate()
            packed = deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH)
            self.transport.write(frame(opcode, packed.removesuffix(b"\0\0\xff\xff"), rsv=4))
        else:
            self.transport.write(frame(opcode, payload))

    def topic(self):
        return int(self.topics * random.random() ** 2)  # some are busy, most are not

    def ask(self, verb):
        topic = self.topic()
        text = f"{verb} {topic} {next(self.serials)}"
        self.asked[master_of(topic)].append(text)
        self.write(TEXT, text.encode())

    def act(self):
        """Something at random. A ping tells when it has been done, for who is far behind does nothing more."""
        dice = random.random()
        if not self.reads and dice < (0.1 if self.stalled else 0.3):
            self.stalled = not self.stalled
            (self.transport.pause_reading if self.stalled else self.transport.resume_reading)()
        if self.pings - self.pongs > 2:
            return
        if dice < 0.4:
            self.ask(random.choice("++-"))
        else:
            topic = self.topic()
            for _ in range(random.choice((1, 1, 2, 6))):
                size = random.choice(SIZES) if random.random() < 0.98 else 70_000
                self.write(BINARY, HEAD.pack(topic, size, self.number, self.sent) + body(self.sent, size - HEAD.size))
                self.sent += 1
        self.write(PING, b"%d" % self.pings)
        self.pings += 1

    async def live(self, pause, until):
        await self.until(lambda: self.open, "the opening handshake")
        for _ in range(3):
            self.ask("+")
        ends = min(until, time.monotonic() + random.expovariate(1 / (5 * pause)))
        while time.monotonic() < ends and not self.over():
            self.act()
            await asyncio.sleep(random.expovariate(1 / pause))
        if not self.over():
            await (self.leave() if self.leaves else self.vanish())
        if self.error is None and (self.code, self.leaves) not in ((1000, True), (None, False)):
            # Its Close is lost where what it had sent came to a closed socket.
            assert self.path in CLOSING and self.code in (1013, None), f"on {self.path}: closed with {self.code}"
            self.leaves = False
        self.transport.abort()
        await self.until(lambda: self.lost, "the end of the connection")
        if self.error:
            raise AssertionError(f"connection {self.number} on {self.path}") from self.error

    def over(self):
        return self.lost or self.code is not None or self.error is not None

    async def leave(self):
        """Lets all come that is still to come: nothing is owed when it closes."""
        if self.stalled:
            self.transport.resume_reading()
        self.write(TEXT, b". %d" % self.sent)
        await self.until(lambda: self.left == MASTERS or self.over(), "all that is owed")
        if not self.over():
            self.transport.write(close(1000))
            await self.until(self.over, "the answer to its Close")
        self.unanswered += sum(map(len, self.asked))

    async def vanish(self):
        if random.random() < 0.5:
            self.transport.write(frame(BINARY, bytes(100))[:random.randrange(1, 100)])
        if random.random() < 0.5:
            linger = struct.pack("ii", 1, 0)
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    async def until(self, condition, what):
        deadline = time.monotonic() + 4 * PATIENCE
        while not condition() and self.error is None:
            assert time.monotonic() < deadline, f"connection {self.number} on {self.path} waited in vain for {what}"
            await asyncio.sleep(0.05)

    def record(self):
        return json.dumps([self.number, self.path, self.leaves, self.unanswered, self.delivered, self.sent, self.got])


async def clients(asked):
    """Keeps so many clients alive, one for each that ends, and prints what each of them got."""
    end = time.monotonic() + asked.seconds
    topics, pause = max(10, asked.clients // 5), asked.clients / asked.rate

    async def one(i):
        await asyncio.sleep(random.random() * pause)
        paths = READING if i % 2 else CLOSING + DROPPING
        for life in itertools.count(i // 2):
            client = Client(paths[life % len(paths)], topics, asked.first)
            await client.connect(asked.port)
            await client.live(pause, end)
            print(client.record())
            if time.monotonic() >= end:
                break

    await asyncio.gather(*(one(i) for i in range(asked.clients)))


# ---- the check ----


def check(records, ledgers, routes):
    """Holds what each client got against what it was owed; returns the totals."""
    owed = collections.defaultdict(list)
    for connection, *entry in itertools.chain(*ledgers):
        owed[connection].append(entry)
    totals, missed = collections.Counter(), collections.Counter()
    for connection, path, left, unanswered, delivered, sent, got in records:
        got = {int(topic): {n for a, b in runs for n in range(a, b + 1)} for topic, runs in got.items()}
        due = collections.defaultdict(set)
        for topic, first, last, own in owed[connection]:
            newest = max(got.get(topic, ()), default=first)
            due[topic] |= set(range(first + 1, (newest if last is None else last) + 1)) - set(own)
        misses = unanswered if left or path in DROPPING else 0
        for topic in due | got:
            what = f"connection {connection} on {path}, topic {topic}"
            strange = got.get(topic, set()) - due[topic]
            assert not strange, f"{what}: {sorted(strange)} came and were not owed"
            lacks = due[topic] - got.get(topic, set())
            if not left:  # what came after the last that it got may have been on its way
                lacks = {n for n in lacks if n < max(got.get(topic, ()), default=0)}
            assert not lacks or path in DROPPING, f"{what}: {sorted(lacks)} are lost"
            misses += len(lacks)
        missed[path] += misses
        totals.update(connections=1, left=left, delivered=delivered, published=sent)
    for path, route in routes.items():
        if path.startswith("/leave/"):
            assert missed[path] == route["dropped"], f"{path}: {missed[path]} missed, {route['dropped']} were dropped"
        assert missed[path] <= route["dropped"], f"{path}: {missed[path]} missed, {route['dropped']} were dropped"
        assert not route["closed_slow"] or path in CLOSING, path
        totals.update(dropped=route["dropped"], missed=missed[path], closed_slow=route["closed_slow"])
    assert totals["delivered"], "nothing was delivered"
    return totals


def serve(asked, directory):
    import c1m

    ledgers = [open(directory / f"ledger{name}", "w") for name in range(MASTERS)]  # noqa: SIM115
    server = c1m.Server(ports=[0], write_timeout=3600)
    hub = Hub(server, ledgers)
    for path in READING + CLOSING + DROPPING:
        *_, mode, how = path.split("/")
        slow = {"max_send_queue": 1 << 30} if mode == "reads" else {"max_send_queue": BACKLOG, "when_slow": mode}
        server.websocket(path, hub, compression=COMPRESSION[how], memory_level=1, idle_timeout=3600, **slow)

    def state():
        """Memory, once all have gone and nothing is left of them."""
        until(lambda: server.stats()["connections"] == 0, "the connections to end")
        until(lambda: not any(master.owed for master in hub.masters), "the threads")
        assert server.stats()["topics"] == 0, "topics stay"
        gc.collect()
        left = sum(isinstance(each, c1m.WebSocket) for each in gc.get_objects())
        assert left == 0, f"{left} WebSockets stay"
        return heap(), memory(), descriptors()

    # The clients' own allocations are none of this process's, and are not to be slowed down by a sanitizer.
    environment = {name: value for name, value in os.environ.items() if name not in ("LD_PRELOAD", "PYTHONMALLOC")}
    first, states = 0, []
    with server, open(directory / "records", "w+") as records:
        for seconds in (min(20, asked.seconds / 2), asked.seconds):  # the first fills every pool
            child = [sys.executable, __file__, "--port", str(server.ports[0]), "--seconds", str(seconds), "--seed",
                     str(asked.seed + first), "--first", str(first), "--clients", str(asked.clients), "--rate",
                     str(asked.rate)]  # fmt: skip
            if subprocess.run(child, stdout=records, env=environment).returncode:
                sys.exit("a client failed")
            states.append(state())
            first = 1 << 32
        routes = server.stats()["routes"]
        hub.end()
        for ledger in ledgers:
            ledger.close()
        records.seek(0)
        lines = (map(json.loads, Path(ledger.name).read_text().splitlines()) for ledger in ledgers)
        totals = check(map(json.loads, records), lines, routes)
    (heap_before, memory_before, fds_before), (heap_after, memory_after, fds_after) = states
    print(json.dumps(totals))
    for path, route in routes.items():
        print(f"{path:32}{route['dropped']:10} dropped{route['closed_slow']:8} closed")
    print(f"heap {heap_before} -> {heap_after} bytes, memory {memory_before >> 10} -> {memory_after >> 10} KiB")
    assert fds_after == fds_before, f"{fds_after} descriptors are open, {fds_before} were"
    assert heap_after - heap_before < asked.heap << 10, f"{heap_after - heap_before} allocated bytes are left"
    if not SANITIZED:  # which keeps what was freed
        grown = memory_after - memory_before
        assert grown < asked.growth << 20, f"{grown} bytes of memory are left"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rate", type=float, default=150, help="what all clients do in a second, at most")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--heap", type=int, default=256, help="KiB that may stay allocated")
    parser.add_argument("--growth", type=int, default=20, help="MiB of memory that may be left, freed or not")
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    random.seed(asked.seed)
    if asked.port:
        return asyncio.run(clients(asked))
    exact = {"PYTHONMALLOC": "malloc", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
    if not exact.items() <= os.environ.items():  # the heap would not tell of Python's objects, nor all that is freed
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | exact)
    logging.basicConfig(level=logging.WARNING)
    print(f"seed {asked.seed}")
    with tempfile.TemporaryDirectory() as directory:
        return serve(asked, Path(directory))


if __name__ == "__main__":
    sys.exit(main())
