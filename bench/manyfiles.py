"""A million small files, asked for at random: what a server costs that can keep few of them in memory.

The files are of 1 KiB, no two alike, a thousand in a directory; wrk asks for them over 50 connections that
stay open. nginx has no open_file_cache; c1m and nginx look for encoded forms beside each file, or do not: c1m
for .zst, .br and .gz, nginx for .gz alone. The kernel has every file in memory: what is measured is not the
disk.

    python bench/manyfiles.py                           # takes 4 GB of disk
    python bench/manyfiles.py --files 200000
    python bench/manyfiles.py --profile perf.data       # also records where c1m spends its time, with perf
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import harness
from harness import Server

CONNECTIONS = 50
SIZE = 1024                      # bytes of a file
SERVE = """if True:
    import sys, c1m
    c1m.Server(c1m.Root(sys.argv[1], sidecars=sys.argv[3] == "True"), int(sys.argv[2])).run()
"""
NGINX = """
daemon off; master_process off; worker_processes 1;
pid {place}/nginx.pid; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{
    access_log off; sendfile on; open_file_cache off; gzip_static {gzip_static};
    keepalive_requests 1000000000;
    types {{ text/html html; }}
    server {{ listen 127.0.0.1:{port}; root {place}/www; }}
}}
"""
RANDOM = """
function init() math.randomseed(os.time()) end
function request()
    local i = math.random(0, %d - 1)
    local path = string.format("/%%03d/%%03d/%%03d.html", i / 1000000, i / 1000 %% 1000, i %% 1000)
    return wrk.format("GET", path)
end
"""


def fill(www: Path, count: int) -> None:
    for first in range(0, count, 1000):
        directory = www / f"{first // 1_000_000:03}" / f"{first // 1000 % 1000:03}"
        directory.mkdir(parents=True)
        for i in range(first, min(first + 1000, count)):
            (directory / f"{i % 1000:03}.html").write_bytes(f"{i:016}".encode() * (SIZE // 16))


def c1m(place: Path, name: str, sidecars: bool) -> Server:
    # -P: this directory has an http.py, which must not stand in for the standard library's.
    script: harness.Command = [sys.executable, "-P", "-c", SERVE, place / "www"]
    return Server(name, lambda port: [*script, str(port), str(sidecars)])


def nginx(place: Path, name: str, gzip_static: str) -> Server:
    binary = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if binary is None:
        sys.exit("nginx is not installed: apt install nginx")

    def command(port: int) -> harness.Command:
        config = place / "nginx.conf"
        config.write_text(NGINX.format(place=place, port=port, gzip_static=gzip_static))
        return [binary, "-e", "/dev/null", "-p", place, "-c", config]

    return Server(name, command)


def wrk(server: Server, script: Path, seconds: int) -> str:
    url = f"http://127.0.0.1:{server.port}"
    return harness.load(["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}", "-s", script, url])


def measured(server: Server, script: Path, seconds: int) -> tuple[float, float, float, float, int]:
    """CPU per request in microseconds, requests per second, memory in MiB before and after, errors."""
    with server:
        memory, cpu = server.memory(), server.cpu()
        out = wrk(server, script, seconds)
        requests = int(re.search(r"(\d+) requests in", out)[1])
        cpu_us = 1e6 * (server.cpu() - cpu) / max(requests, 1)
        errors = sum(map(int, re.findall(r"(?:connect|read|write|timeout|responses:) (\d+)", out)))
        return cpu_us, requests / seconds, memory / 2**20, server.memory() / 2**20, errors


def profile(server: Server, script: Path, seconds: int, to: str) -> None:
    with server:
        perf = subprocess.Popen(["perf", "record", "-g", "-q", "-o", to, "-p", str(server.process.pid)])
        wrk(server, script, seconds)
    perf.wait()


def main() -> None:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=shape)
    parser.add_argument("--files", type=int, default=1_000_000, help="that there are (default 1,000,000)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median counts (default 3)")
    parser.add_argument("--seconds", type=int, default=5, help="that each round lasts (default 5)")
    parser.add_argument("--profile", metavar="FILE", help="record c1m there, for `perf report -i FILE`")
    args = parser.parse_args()
    if not shutil.which("wrk"):
        sys.exit("wrk is not installed: apt install wrk")
    with tempfile.TemporaryDirectory(prefix="c1m-bench-") as name:
        place = Path(name)
        place.chmod(0o755)
        fill(place / "www", args.files)
        script = place / "random.lua"
        script.write_text(RANDOM % args.files)
        servers = [
            nginx(place, "nginx", "off"),
            c1m(place, "c1m, sidecars=False", False),
            nginx(place, "nginx, gzip_static", "on"),
            c1m(place, "c1m", True),
        ]
        runs = defaultdict(list)
        for _ in range(args.rounds):
            for server in servers:
                runs[server.name].append(measured(server, script, args.seconds))
        print(harness.machine())
        print(f"{args.files:,} files, median of {args.rounds} rounds of {args.seconds} s\n")
        heads = f"{'CPU us each':>12}{'to nginx':>10}{'per second':>12}{'MiB at first':>14}"
        print(f"{'':22}{heads}{'after':>8}{'errors':>8}")
        of_nginx = statistics.median(run[0] for run in runs["nginx"])
        for server in servers:
            columns = zip(*runs[server.name], strict=True)
            cpu_us, rate, before, after, _ = (statistics.median(column) for column in columns)
            errors = sum(run[-1] for run in runs[server.name])
            print(f"{server.name:22}{cpu_us:12.2f}{cpu_us / of_nginx:10.2f}{rate:12,.0f}"
                  f"{before:14.1f}{after:8.1f}{errors:8}")  # fmt: skip
        if args.profile:
            profile(servers[-1], script, args.seconds, args.profile)
    sys.exit(any(run[-1] for each in runs.values() for run in each))


if __name__ == "__main__":
    main()
