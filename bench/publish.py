"""What a publish costs for each of its subscribers: c1m, and the floor, which sends to all that are connected.

Opens so many WebSockets, which are all subscribed to one topic, and has one of them ask for a message to all, the next
when all have it. The ratio is of the server's CPU time per delivery.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import statistics
import sys
from pathlib import Path

import harness
from harness import Server

SPARE_FDS = 100                  # that this process needs beside the connections
MASK = b"\x37\xfa\x21\x3d"
HANDSHAKE = (
    b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SERVE = """if True:
    import sys, c1m

    class Handler:
        def on_open(self, ws):
            ws.subscribe("all")

        def on_message(self, ws, message):
            server.publish("all", message)

    server = c1m.Server(ports=int(sys.argv[1]))
    server.websocket("/", Handler(), idle_timeout=86400)
    server.run()
"""


def joined(port: int, path: bytes = b"/") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(HANDSHAKE % path)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += client.recv(4096) or sys.exit(f"no handshake: {answer!r}")
    return client


def frame(payload: bytes, mask: bytes = b"") -> bytes:
    """A binary frame of less than 64 KiB, as a client sends it or, without a mask, a server."""
    n, bit = len(payload), 0x80 if mask else 0
    head = bytes([0x82, bit | n]) if n < 126 else bytes([0x82, bit | 126]) + n.to_bytes(2, "big")
    stream = mask * (n // 4 + 1) if mask else bytes(n)
    return head + mask + bytes(a ^ b for a, b in zip(payload, stream, strict=False))


def measure(server: Server, count: int, size: int, publishes: int) -> float:
    """Microseconds of the server's CPU time per delivery."""
    payload = bytes(i % 251 for i in range(size))
    asked, expected = frame(payload, MASK), frame(payload)
    with server:
        clients = {client.fileno(): client for client in (joined(server.port) for _ in range(count))}
        poll = select.epoll()
        for fd in clients:
            poll.register(fd, select.EPOLLIN)
        before = server.cpu()
        for _ in range(publishes):
            next(iter(clients.values())).sendall(asked)
            missing = dict.fromkeys(clients, len(expected))
            while missing:
                for fd, _ in poll.poll():
                    got = clients[fd].recv(1 << 20)
                    at = len(expected) - missing[fd]
                    if not got or expected[at : at + len(got)] != got:
                        sys.exit(f"{server.name} sent {got[:40]!r} in place of the message")
                    missing[fd] -= len(got)
                    if not missing[fd]:
                        del missing[fd]
        spent = server.cpu() - before
        poll.close()
        for client in clients.values():
            client.close()
    return 1e6 * spent / (count * publishes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subscribers", nargs="?", type=int, default=15_000, help="default 15000")
    parser.add_argument("--bytes", type=int, default=20, help="of each message (default 20)")
    parser.add_argument("--publishes", type=int, default=20, help="in a round (default 20)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median counts (default 3)")
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    args = parser.parse_args()
    count = min(args.subscribers, harness.raise_fd_limit(args.subscribers + SPARE_FDS) - SPARE_FDS)
    with harness.workshop() as place:

        def c1m(port: int) -> harness.Command:
            return [Path(sys.executable), "-P", "-c", SERVE, str(port)]

        servers = [harness.floor(place, "fan"), Server("c1m", c1m)]
        runs: dict[str, list[float]] = {server.name: [] for server in servers}
        for _ in range(args.rounds):
            for server in servers:
                runs[server.name].append(measure(server, count, args.bytes, args.publishes))
    found = {name: statistics.median(figures) for name, figures in runs.items()}
    if args.json:
        print(json.dumps({"machine": harness.machine(), "subscribers": count, "cpu_us": found}))
        return
    print(f"{harness.machine()}\n\n{count} subscribers, {args.bytes} bytes, median of {args.rounds} rounds")
    for name, cpu_us in found.items():
        print(f"  {name:12}{cpu_us:8.2f} us of CPU a delivery{cpu_us / found['floor']:8.2f} to the floor")


if __name__ == "__main__":
    main()
