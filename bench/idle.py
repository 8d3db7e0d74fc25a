"""Idle WebSockets: what a server's memory grows by for each connection that is open and silent.

Opens so many connections, echoes one message on each, and compares the server's memory (proportional
set size) with what it was before. The kernel's own for a loopback connection, some 9 KB for both ends,
comes on top.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

import harness

SPARE_FDS = 100                  # that client and server need beside the connections


def hold(place: Path, server: harness.Server, count: int) -> harness.Row:
    with server:
        memory, cpu = server.memory(), server.cpu()
        command = [place / "wsload", "-i", f"-c{count}", str(server.port), "/"]
        pinned = harness.on_cpu(harness.LOAD_CPU, command)
        load = subprocess.Popen(pinned, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        opened = json.loads(load.stdout.readline())
        row = {
            "server": server.name,
            "bytes_each": (server.memory() - memory) / count,
            "cpu_us": 1e6 * (server.cpu() - cpu) / count,
            "seconds": opened["seconds"],
        }
        dropped = json.loads(load.communicate()[0])["dropped"]
        return row | {"errors": opened["errors"] + dropped}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("connections", nargs="?", type=int, default=10_000, help="default 10000")
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    args = parser.parse_args()
    count = min(args.connections, harness.raise_fd_limit(args.connections + SPARE_FDS) - SPARE_FDS)
    with harness.workshop() as place:
        rows = [hold(place, server, count) for server in (harness.floor(place, "ws"), harness.c1m(place))]
    if args.json:
        print(json.dumps({"machine": harness.machine(), "connections": count, "servers": rows}))
    else:
        limited = ", as many as `ulimit -n` allows" if count < args.connections else ""
        print(f"{harness.machine()}\n\n{count} connections{limited}")
        print(f"  {'':12}{'bytes each':>12}{'CPU us to open':>16}{'seconds':>9}{'errors':>8}")
        for row in rows:
            print("  {server:12}{bytes_each:12.0f}{cpu_us:16.2f}{seconds:9.2f}{errors:8}".format(**row))
    raise SystemExit(any(row["errors"] for row in rows))


if __name__ == "__main__":
    main()
