"""Runs slowhttptest's attacks on c1m: `apt install slowhttptest`, then `python tests/slow_clients.py`.

While thousands send heads or bodies a little at a time, or hardly read what they asked for, an ordinary
client connects, gets a page and hangs up, a hundred times a second. Printed is how long that takes it, beside
what it takes it in peace. The exit status is 0 if each of its requests was answered in full.
"""

from __future__ import annotations

import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

CONNECTIONS = 2000               # of each attack
SECONDS = 15                     # of each: longer than c1m takes to cut off the first of them
PAUSE = 0.01                     # seconds between two requests of the ordinary client
PAGE, LARGE = b"<p>ordinary", 1_000_000
ATTACKS = {
    "slow heads": ["-H", "-i2"],
    "slow bodies": ["-B", "-i2"],
    "slow reading": ["-X", "-n2", "-w512", "-y1024", "-z32"],
}
SERVE = """if True:
    import sys, c1m
    with c1m.Server(sys.argv[1], ports=0) as server:
        print(server.ports[0], flush=True)
        sys.stdin.read()
        print(server.stats())
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


def under(attacks: Iterable[str], port: int) -> bool:
    """Puts the server under attack and prints how the ordinary client fares: True if well."""
    attacks = list(attacks)
    url = f"http://127.0.0.1:{port}/large.bin"
    shape = [f"-c{CONNECTIONS}", f"-r{CONNECTIONS // 2}", f"-l{SECONDS}", "-u", url]
    running = [
        subprocess.Popen(["slowhttptest", *ATTACKS[name], *shape], stdout=subprocess.PIPE, text=True)
        for name in attacks
    ]
    found, end = [], time.monotonic() + SECONDS
    while time.monotonic() < end:
        found.append(ordinary(port))
        time.sleep(PAUSE)
    said = [process.communicate()[0] for process in running]
    counts = [re.findall(r"connected:\W.*?(\d+)\s*$", text, re.M) for text in said]
    most = sum(max(map(int, each), default=0) for each in counts)
    times = [each for each in found if each is not None]
    centiles = statistics.quantiles(times, n=100, method="inclusive")
    name = " + ".join(attacks) or "peace"
    print(f"{name:42}{most:12}{len(found):10}{len(found) - len(times):8}"
          f"{centiles[49]:8.2f}{centiles[98]:8.2f}{max(times):8.2f}", flush=True)  # fmt: skip
    return len(times) == len(found)


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
            print(f"{'':42}{'connections':>12}{'requests':>10}{'failed':>8}"
                  f"{'p50 ms':>8}{'p99 ms':>8}{'most':>8}")  # fmt: skip
            good = [under(attacks, port) for attacks in ([], *([name] for name in ATTACKS), ATTACKS)]
            print(server.communicate("")[0], end="")
    sys.exit(not all(good) or server.returncode)


if __name__ == "__main__":
    main()
