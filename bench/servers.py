"""What is measured: the floor, c1m, and the peers that are found; how each is started, and how one gets it."""

from __future__ import annotations

import functools
import getpass
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import harness
from harness import HERE, Command, Server
from loads import ECHOES, FILES, LOADS, PAGES, SOCKETS, Load

PEERS = HERE / "peers"
NGINX = """
daemon off;
user {user};
worker_processes 1;
pid {place}/nginx.pid;
error_log /dev/null;
events {{ worker_connections 16000; multi_accept on; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    open_file_cache max=1000 inactive=60s;
    open_file_cache_min_uses 1;
    keepalive_requests 1000000000;
    types {{ text/html html; }}
    server {{ listen 127.0.0.1:{port} backlog=4096; root {place}/www; }}
}}
"""
H2O = """
listen: {{ host: 127.0.0.1, port: {port} }}
num-threads: 1
max-connections: 16000
user: {user}
error-log: /dev/null
hosts: {{ default: {{ paths: {{ /: {{ file.dir: {place}/www }} }} }} }}
"""


@dataclass(frozen=True)
class Lab:
    """Where it is measured: a temporary directory with the floor and the pages, and where peers are looked for."""

    place: Path
    peers: Path | None           # a virtual environment, with Bun in its node_modules

    @property
    def python(self) -> str | Path:
        return self.peers / "bin" / "python" if self.peers else sys.executable

    @functools.cached_property
    def packages(self) -> dict[str, str]:
        """Python packages that are installed there, and their versions."""
        script = "import importlib.metadata as m, json; print(json.dumps({d.name.lower(): d.version for d in" \
                 " m.distributions()}))"
        found: dict[str, str] = json.loads(subprocess.check_output([self.python, "-c", script]))
        return found


@dataclass(frozen=True)
class Contender:
    """A server that may be measured.

    find: its program and its version, or None where it is not installed. command(lab, program, load, port): how it is
    started. get: how one gets it.
    """

    name: str
    loads: set[str]
    find: Callable[[Lab], tuple[Path, str] | None]
    command: Callable[[Lab, Path, Load, int], Command]
    get: str = ""
    from_memory: bool = False    # pages come from memory, not from files

    def server(self, lab: Lab, program: Path, load: Load) -> Server:
        return Server(self.name, lambda port: self.command(lab, program, load, port),
                      {"C1M_BENCH_ROOT": str(lab.place / "www")})


# ---- ours ----


def floor() -> Contender:
    def find(lab: Lab) -> tuple[Path, str]:
        return lab.place / "floor", "by gcc " + harness.version("gcc", "-dumpfullversion")

    return Contender("floor", set(LOADS), find,
                     lambda lab, program, load, port: [program, str(port), *load.floor])


def c1m(way: str, loads: set[str]) -> Contender:
    def command(lab: Lab, program: Path, load: Load, port: int) -> Command:
        return [program, HERE / "serve.py", way, str(port), lab.place / "www"]

    return Contender(way, loads, lambda lab: (Path(sys.executable), harness.c1m_version()), command)


# ---- peers ----


def packaged(name: str, flag: str, config: str, *arguments: str) -> Contender:
    """A server of the distribution's, which reads a configuration file."""

    def find(lab: Lab) -> tuple[Path, str] | None:
        program = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
        return (Path(program), harness.version(program, flag)) if program else None

    def command(lab: Lab, program: Path, load: Load, port: int) -> Command:
        file = lab.place / f"{name}.conf"
        file.write_text(config.format(place=lab.place, port=port, user=getpass.getuser()))
        return [program, *(each.format(place=lab.place) for each in arguments), "-c", file]

    return Contender(name, PAGES | FILES | {"304"}, find, command, f"apt install {name}")


def of_pip(name: str, loads: set[str], script: str, *arguments: str, needs: tuple[str, ...] = ()) -> Contender:
    """One that a script in peers/ runs; arguments before the port."""
    packages = needs or (name,)

    def find(lab: Lab) -> tuple[Path, str] | None:
        if not all(each in lab.packages for each in packages):
            return None
        return Path(lab.python), lab.packages[packages[0]]

    def command(lab: Lab, program: Path, load: Load, port: int) -> Command:
        return [program, PEERS / script, *arguments, str(port), lab.place / "www"]

    return Contender(name, loads, find, command, f"pip install {' '.join(packages)}", from_memory=True)


def bun() -> Contender:
    def find(lab: Lab) -> tuple[Path, str] | None:
        inside = lab.peers / "node_modules/.bin" if lab.peers else Path("node_modules/.bin")
        program = shutil.which("bun", path=f"{inside.resolve()}:{os.environ['PATH']}")
        return (Path(program), harness.version(program, "--version")) if program else None

    def command(lab: Lab, program: Path, load: Load, port: int) -> Command:
        return [program, PEERS / "bun.js", str(port), lab.place / "www"]

    return Contender("bun", PAGES | FILES | SOCKETS, find, command, "npm install bun", from_memory=True)


CONTENDERS = {each.name: each for each in (
    floor(),
    c1m("c1m", set(LOADS)),
    c1m("c1m-handler", SOCKETS - {"echo-1m", "publish"}),
    c1m("c1m-asyncio", {"echo", "echo-16"}),
    c1m("c1m-coroutine", {"echo", "echo-16"}),
    packaged("nginx", "-v", NGINX, "-e", "/dev/null", "-p", "{place}"),
    packaged("h2o", "--version", H2O),
    bun(),
    of_pip("socketify", PAGES | SOCKETS, "socketify_app.py"),
    of_pip("picows", ECHOES | {"publish"}, "picows_core.py", needs=("picows", "uvloop")),
    of_pip("picows-websockets", ECHOES | {"publish"}, "websockets_echo.py", "picows.websockets",
           needs=("picows", "uvloop")),
    of_pip("websockets", SOCKETS, "websockets_echo.py", "websockets", needs=("websockets", "uvloop")),
    of_pip("granian", PAGES | ECHOES, "asgi.py", "granian"),
    of_pip("uvicorn", PAGES | ECHOES, "asgi.py", "uvicorn", needs=("uvicorn", "uvloop", "httptools", "websockets")),
    of_pip("fastpysgi", PAGES, "asgi.py", "fastpysgi"),
    of_pip("freastal", PAGES, "asgi.py", "freastal"),
)}
OURS = {name for name in CONTENDERS if name == "floor" or name.startswith("c1m")}
