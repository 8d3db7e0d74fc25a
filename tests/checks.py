"""What checks of real programs (tests/programs.py) are made of: how they are declared, run and told about, servers and
files for them.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import c1m

PATIENCE = 120                   # seconds that a program may take


class Wrong(Exception):
    """What a program got is not what it should have got."""


class Check(NamedTuple):
    name: str
    needs: tuple[str, ...]       # programs, paths of files, and keys of MODULES
    run: Callable[[Path], str]


CHECKS: list[Check] = []
PYTHONS = {"python": sys.executable, "zarr2": sys.executable, "zarr3": sys.executable}
"""Interpreters by name: versions 2 and 3 of Zarr exclude each other."""
MODULES = {
    "python:selenium": "import selenium",
    "python:websockets": "import websockets",
    "zarr2:zarr": "import aiohttp, fsspec, zarr; assert zarr.__version__.startswith('2.')",
    "zarr3:zarr": "import aiohttp, fsspec, zarr; assert zarr.__version__.startswith('3.')",
    "zarr3:fsspec": "import aiohttp, fsspec, pandas",
}


def check(name: str, *needs: str) -> Callable[[Callable[[Path], str]], Callable[[Path], str]]:
    """Declares a check: it is called with an empty directory and returns what it found, in a few words."""

    def declare(run: Callable[[Path], str]) -> Callable[[Path], str]:
        CHECKS.append(Check(name, needs, run))
        return run

    return declare


# ---- means ----


def expect(got: Any, wanted: Any, what: str) -> None:
    if got != wanted:
        raise Wrong(f"{what}: got {got!r:.300}, wanted {wanted!r:.300}")


def run(*command: str | Path, cwd: Path | None = None, **environment: str) -> str:
    """What a program prints. It has an environment of its own, so that nothing here is configured for it."""
    with tempfile.TemporaryDirectory() as home:
        own = {"PATH": f"{os.environ['PATH']}:/usr/sbin", "HOME": home, "LANG": "C.UTF-8"} | environment
        done = subprocess.run(command, cwd=cwd, env=own, capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode:
        said = (done.stderr + done.stdout).strip()[-1500:]
        raise Wrong(f"{Path(command[0]).name} ended with status {done.returncode}: {said}")
    return done.stdout


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > end:
            raise Wrong("waited in vain")
        time.sleep(0.1)


def curl(*arguments: str | Path, cwd: Path | None = None) -> str:
    return run("curl", "-sSf", *arguments, cwd=cwd)


class Answer(NamedTuple):
    target: str
    status: int
    size: int                    # bytes of the body that were sent


class Site:
    """A server and, once it has stopped, its answers."""

    def __init__(self, server: c1m.Server) -> None:
        self.server = server
        self.port = server.ports[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self.answers: list[Answer] = []

    def statuses(self, ending: str = "") -> Counter[int]:
        """How many answers of each status there were for targets with this ending."""
        return Counter(answer.status for answer in self.answers if answer.target.endswith(ending))


@contextlib.contextmanager
def served(root: Path, **options: Any) -> Iterator[Site]:
    with tempfile.NamedTemporaryFile() as log:
        with c1m.Server(c1m.Root(root, **options), ports=0, access_log=log.name, access_log_format="json") as server:
            site = Site(server)
            yield site
        for line in Path(log.name).read_text().splitlines():
            said = json.loads(line)
            site.answers.append(Answer(said["request"].split(" ")[1], said["status"], said["bytes"]))


def laid(root: Path, files: dict[str, bytes | str]) -> Path:
    """Writes files below a directory, which is made."""
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def same_trees(got: Path, wanted: Path) -> int:
    """How many files there are in both."""
    files, others = tree(wanted), tree(got)
    expect(sorted(others), sorted(files), "names")
    for name, text in files.items():
        expect(others[name], text, name)
    return len(files)


# ---- running them ----


def missing(need: str) -> str | None:
    """What this machine lacks of what a check needs."""
    if need in MODULES:
        interpreter, _, module = need.partition(":")
        done = subprocess.run([PYTHONS[interpreter], "-c", MODULES[need]], capture_output=True)
        return f"{module} for {interpreter}" if done.returncode else None
    there = os.path.exists(need) if need.startswith("/") else shutil.which(need, path=f"{os.environ['PATH']}:/usr/sbin")
    return None if there else need


def made(each: Check) -> str:
    """Makes a check, prints a line about it and returns its first word."""
    result, said = "right", ""
    lacks = list(filter(None, map(missing, each.needs)))
    if lacks:
        result, said = "skipped", f"{', '.join(lacks)} is not installed"
    else:
        try:
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
                said = each.run(Path(place))
        except (Exception, SystemExit) as error:
            result, said = "WRONG", f"{type(error).__name__}: {error}"
    print(f"{result:8} {each.name:24} {said}", flush=True)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs real programs against c1m and checks what they get.")
    parser.add_argument("--zarr2", metavar="PYTHON", default=sys.executable, help="an interpreter with zarr<3")
    parser.add_argument("--zarr3", metavar="PYTHON", default=sys.executable, help="one with zarr>=3 and pandas")
    parser.add_argument("name", nargs="*", help="what the names of checks begin with; all without one")
    given = parser.parse_args()
    PYTHONS.update(zarr2=given.zarr2, zarr3=given.zarr3)
    chosen = [each for each in CHECKS if not given.name or each.name.startswith(tuple(given.name))]
    if not chosen:
        parser.error(f"no check begins so: there are {', '.join(each.name for each in CHECKS)}")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = Counter(pool.map(made, chosen))
    print(f"{results['right']} right, {results['WRONG']} wrong, {results['skipped']} skipped")
    return 1 if results["WRONG"] or (results["skipped"] and os.environ.get("CI") == "true") else 0
