"""A million small files, asked for at random: what a server costs that can keep few of them in memory.

The files are of 1 KiB, no two alike, a thousand in a directory; they are asked for over 50 connections that stay open.
nginx has no open_file_cache; c1m and nginx look for encoded forms beside each file, or do not: c1m
for .zst, .br and .gz, nginx for .gz alone. The kernel has every file in memory: what is measured is not the
disk.

    python bench/manyfiles.py                           # takes 4 GB of disk
    python bench/manyfiles.py --files 200000
    python bench/manyfiles.py --profile perf.data       # also records where c1m spends its time, with perf
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import harness
from harness import Failed, Server
from loads import fail_for_errors

from c1m.loadoptions import LoadOptions
from c1m.loadrun import Run

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

def fill(www: Path, count: int) -> None:
    for first in range(0, count, 1000):
        (www / path_of(first)).parent.mkdir(parents=True)
        for i in range(first, min(first + 1000, count)):
            (www / path_of(i)).write_bytes(f"{i:016}".encode() * (SIZE // 16))


def path_of(i: int) -> str:
    return f"{i // 1_000_000:03}/{i // 1000 % 1000:03}/{i % 1000:03}.html"


def c1m(place: Path, name: str, sidecars: bool) -> Server:
    script: harness.Command = [sys.executable, "-c", SERVE, place / "www"]
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


def run_of(server: Server, files: int, seconds: float) -> Run:
    """Making it takes a while, of which the server knows nothing."""
    urls = [f"http://127.0.0.1:{server.port}/{path_of(i)}" for i in range(files)]
    return Run(urls, LoadOptions({"duration": seconds, "random": True}))


def measured(server: Server, files: int, seconds: float) -> tuple[float, float, float, float]:
    """CPU per request in microseconds, requests per second, memory in MiB before and after. Raises Failed."""
    with server:
        run = run_of(server, files, seconds)
        memory, cpu = server.memory(), server.cpu()
        result = run.run()
        fail_for_errors(result)
        cpu_us = 1e6 * (server.cpu() - cpu) / max(result.answered, 1)
        return cpu_us, result.rate, memory / 2**20, server.memory() / 2**20


def profile(server: Server, files: int, seconds: float, to: str) -> None:
    with server:
        run = run_of(server, files, seconds)
        perf = subprocess.Popen(["perf", "record", "-g", "-q", "-o", to, "-p", str(server.process.pid)])
        run.run()
    perf.wait()


def main() -> None:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=shape)
    parser.add_argument("--files", type=int, default=1_000_000, help="that there are (default 1,000,000)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median counts (default 3)")
    parser.add_argument("--seconds", type=int, default=5, help="that each round lasts (default 5)")
    parser.add_argument("--profile", metavar="FILE", help="record c1m there, for `perf report -i FILE`")
    args = parser.parse_args()
    try:
        compare(args)
    except Failed as error:
        sys.exit(str(error))


def compare(args: argparse.Namespace) -> None:
    harness.stay_on_load_cpu()
    with tempfile.TemporaryDirectory(prefix="c1m-bench-") as name:
        place = Path(name)
        place.chmod(0o755)
        fill(place / "www", args.files)
        servers = [
            nginx(place, "nginx", "off"),
            c1m(place, "c1m, sidecars=False", False),
            nginx(place, "nginx, gzip_static", "on"),
            c1m(place, "c1m", True),
        ]
        runs = defaultdict(list)
        for _ in range(args.rounds):
            for server in servers:
                runs[server.name].append(measured(server, args.files, args.seconds))
        print(harness.described())
        print(f"{args.files:,} files, median of {args.rounds} rounds of {args.seconds} s\n")
        print(f"{'':22}{'CPU us each':>12}{'to nginx':>10}{'per second':>12}{'MiB at first':>14}{'after':>8}")
        of_nginx = statistics.median(run[0] for run in runs["nginx"])
        for server in servers:
            cpu_us, rate, before, after = map(statistics.median, zip(*runs[server.name], strict=True))
            print(f"{server.name:22}{cpu_us:12.2f}{cpu_us / of_nginx:10.2f}{rate:12,.0f}{before:14.1f}{after:8.1f}")
        if args.profile:
            profile(servers[-1], args.files, args.seconds, args.profile)


if __name__ == "__main__":
    main()
