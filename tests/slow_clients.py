"""Runs slowhttptest's attacks on c1m: `apt install slowhttptest`, then `python tests/slow_clients.py`.

While thousands send heads or bodies a little at a time, or hardly read what they asked for, an ordinary
client connects, gets a page and hangs up, a hundred times a second. Printed is how long that takes it, beside
what it takes it in peace, before and afterwards. The exit status is 0 if each attack had all its connections
accepted, each of the client's requests was answered in full, and no percentile of its waits has grown by more than
its factor: so much is no noise, the client starves. A request that waits long keeps others from being made, and these
are counted as if they had waited for the rest of its time.
"""

from __future__ import annotations

import json
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

CONNECTIONS = 2000               # of each attack
SECONDS = 15                     # of each: longer than c1m takes to cut off the first of them
PAUSE_MS = 10                    # between two requests of the ordinary client
# How many times in peace a percentile may be under attack, where attackers and kernel want the same two CPUs. Where
# slow readers were sent a megabyte each in one turn, these were 1, 1,100 and 2,000.
FACTORS = {50: 20, 90: 50, 99: 300}
PAGE, LARGE = b"<p>ordinary", 1_000_000
ATTACKS = {
    "slow heads": ["-H", "-i2"],
    "slow bodies": ["-B", "-i2"],
    "slow reading": ["-X", "-n2", "-w512", "-y1024", "-z32"],
}
SERVE = """if True:
    import json, sys, c1m
    with c1m.Server(sys.argv[1], ports=0) as server:
        print(server.ports[0], flush=True)
        for line in sys.stdin:
            print(json.dumps(server.stats()), flush=True)
"""


def ordinary(port: int) -> float | None:
    """Milliseconds that a request on a connection of its own takes; None without the right answer."""
    began = time.perf_counter()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
            s.sendall(b"GET /page.html HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: s.recv(65536), b""))
    except OSError:
        return None
    good = answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\n" + PAGE)
    return (time.perf_counter() - began) * 1000 if good else None


def under(attacks: Iterable[str], port: int, stats: Callable[[], dict[str, Any]]) -> tuple[bool, list[float]]:
    """Puts the server under attack and prints how the ordinary client fares: whether all was in order, and its
    percentiles.
    """
    attacks = list(attacks)
    url = f"http://127.0.0.1:{port}/large.bin"
    shape = [f"-c{CONNECTIONS}", f"-r{CONNECTIONS // 2}", f"-l{SECONDS}", "-u", url]
    before = stats()["accepted"]
    running = [subprocess.Popen(["slowhttptest", *ATTACKS[name], *shape], stdout=DEVNULL) for name in attacks]
    found, most, end = [], 0, time.monotonic() + SECONDS
    while time.monotonic() < end:
        found.append(ordinary(port))
        most = max(most, stats()["connections"])
        time.sleep(PAUSE_MS / 1000)
    for process in running:
        process.wait()
    accepted = stats()["accepted"] - before - len(found)
    times = [each for each in found if each is not None]
    waits = [wait for each in times for wait in (each, *range(int(each) - PAUSE_MS, 0, -PAUSE_MS))]
    hundredths = statistics.quantiles(waits, n=100, method="inclusive")
    centiles = [hundredths[each - 1] for each in FACTORS]
    print(f"{' + '.join(attacks) or 'peace':42}{accepted:9}{most:9}{len(found):9}{len(found) - len(times):9}"
          + "".join(f"{each:9.2f}" for each in (*centiles, max(times))), flush=True)  # fmt: skip
    return len(times) == len(found) and accepted >= CONNECTIONS * len(attacks), centiles


def main() -> None:
    if shutil.which("slowhttptest") is None:
        sys.exit("slowhttptest is not installed: apt install slowhttptest")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # the server and the attackers inherit it
    with tempfile.TemporaryDirectory() as root:
        Path(root, "page.html").write_bytes(PAGE)
        Path(root, "large.bin").write_bytes(b"." * LARGE)
        command = [sys.executable, "-c", SERVE, root]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            port = int(server.stdout.readline())

            def stats() -> dict[str, Any]:
                server.stdin.write("\n")
                server.stdin.flush()
                return json.loads(server.stdout.readline())

            titles = ["accepted", "at once", "requests", "failed", *(f"p{each} ms" for each in FACTORS), "most"]
            print(f"{'':42}" + "".join(f"{title:>9}" for title in titles))
            rounds = [[], *([name] for name in ATTACKS), list(ATTACKS), []]
            good, centiles = zip(*(under(attacks, port, stats) for attacks in rounds), strict=True)
            print(stats())
            server.communicate("")
    usual = list(map(max, centiles[0], centiles[-1]))
    starved = [
        f"{' + '.join(attacks)}: p{centile} is {now:.2f} ms, in peace {then:.2f} ms"
        for attacks, found in zip(rounds, centiles, strict=True)
        for centile, now, then in zip(FACTORS, found, usual, strict=True)
        if now > FACTORS[centile] * then
    ]
    print(*starved, sep="\n", end="\n" * bool(starved))
    sys.exit(bool(starved) or not all(good) or server.returncode != 0)


if __name__ == "__main__":
    main()
