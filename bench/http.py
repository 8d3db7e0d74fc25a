"""HTTP: wrk on c1m, on the floor, and on nginx and h2o where they are installed.

loads:
  small       50 connections, one request at a time, a page of 113 bytes
  304         the same by a browser that has it; the floor sends the page
  pipelined   small in batches of 16 requests
  10k 100k 1m 50 connections, files of that size
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
from pathlib import Path

import harness
from harness import Result, Row, Server

CONNECTIONS = 50
LOADS = {                        # bytes of the file, requests in a batch
    "small": (113, 1),
    "304": (113, 1),
    "pipelined": (113, 16),
    "10k": (10 << 10, 1),
    "100k": (100 << 10, 1),
    "1m": (1 << 20, 1),
}
NGINX = """
daemon off;
worker_processes 1;
user {user};
pid {place}/nginx.pid;
error_log /dev/null;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    open_file_cache max=100;
    keepalive_requests 1000000000;
    default_type application/octet-stream;
    server {{ listen 127.0.0.1:{port}; root {place}/www; }}
}}
"""
H2O = """
listen: {{ host: 127.0.0.1, port: {port} }}
num-threads: 1
user: {user}
error-log: /dev/null
hosts: {{ default: {{ paths: {{ /: {{ file.dir: {place}/www }} }} }} }}
"""
MTIME, SINCE = 784111777, "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT"
MICROSECONDS = {"us": 1.0, "ms": 1e3, "s": 1e6}


def peer(program: str, arguments: list[str], config: str, place: Path) -> Server:
    name = Path(program).name

    def command(port: int) -> harness.Command:
        file = place / f"{name}.conf"
        file.write_text(config.format(place=place, port=port, user=getpass.getuser()))
        return [program, *arguments, "-c", file]

    return Server(name, command)


def peers(place: Path) -> list[Server]:
    """Those that are installed."""
    known = [("nginx", ["-e", "/dev/null", "-p", str(place)], NGINX), ("h2o", [], H2O)]
    path = f"{os.environ['PATH']}:/usr/sbin"
    return [peer(program, *more, place) for name, *more in known if (program := shutil.which(name, path=path))]


def wrk(server: Server, path: str, depth: int, seconds: int, fields: list[str]) -> Result:
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}", "--latency"]
    for field in fields:
        command += ["-H", field]
    command.append(f"http://127.0.0.1:{server.port}{path}")
    if depth > 1:
        command += ["-s", harness.HERE / "pipeline.lua", "--", str(depth)]
    out = harness.load(command)
    p99, unit = re.search(r"99%\s+([\d.]+)(\w+)", out).groups()
    return Result(
        units=int(re.search(r"(\d+) requests in", out)[1]),
        rate=float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]),
        p99_us=float(p99) * MICROSECONDS[unit],
        errors=sum(map(int, re.findall(r"(?:connect|read|write|timeout|responses:) (\d+)", out))),
    )


def main() -> None:
    args = harness.arguments(__doc__, LOADS)
    if not shutil.which("wrk"):
        raise SystemExit("wrk is not installed: apt install wrk")
    with harness.workshop() as place:
        www = place / "www"
        www.mkdir()
        for size, _ in LOADS.values():
            (www / f"{size}.html").write_bytes(b"." * size)
            os.utime(www / f"{size}.html", (MTIME, MTIME))

        def measure(load: str) -> list[Row]:
            size, depth = LOADS[load]
            servers = [harness.floor(place, "http", str(size)), harness.c1m(www), *peers(place)]
            fields = [SINCE] if load == "304" else []

            def load_with(server: Server) -> Result:
                return wrk(server, f"/{size}.html", depth, args.seconds, fields)

            return harness.compare(servers, load_with, args.rounds)

        harness.report(args, measure)


if __name__ == "__main__":
    main()
