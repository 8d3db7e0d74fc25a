"""Measures two commits of c1m against each other, in turn, and says by how much each load differs.

    python bench/compare_commits.py main HEAD
    python bench/compare_commits.py v0.1 HEAD small echo --rounds 15
    python bench/compare_commits.py main HEAD echo --servers c1m-handler

Each commit is built once, into ~/.cache/c1m-bench (or XDG_CACHE_HOME); both are loaded by the c1m that runs this. For
each load: the median of B's CPU time, or memory, divided by A's of the same round, and an interval that holds it with
95 % confidence (bootstrap). Where that interval is on one side of 1, it ends with "faster" or "slower", or "less" or
"more". Where valgrind is installed, instructions are counted as well, which do not vary.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import harness
import loads
from harness import HERE, Failed, Server
from loads import LOADS, Load, Round
from run import count, duration, progress
from servers import CONTENDERS

SAMPLES = 4000                   # of the bootstrap
CONFIDENCE = 0.95
LEAST_ROUNDS = 5                 # of fewer there is no interval to speak of
WAYS = [name for name in CONTENDERS if name.startswith("c1m")]


def ratio_of(pairs: list[tuple[float, float]]) -> tuple[float, float, float]:
    """The median of b / a, and its interval: percentiles of the medians of as many ratios drawn with replacement."""
    ratios = [b / a for a, b in pairs]
    draw = random.Random(1)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(SAMPLES))
    tail = int(SAMPLES * (1 - CONFIDENCE) / 2)
    return statistics.median(ratios), medians[tail], medians[-1 - tail]


def verdict(low: float, high: float, memory: bool) -> str:
    less, more = ("less", "more") if memory else ("faster", "slower")
    return less if high < 1 else more if low > 1 else ""


# ---- building ----


def revision(name: str) -> str:
    """A commit's hash. Raises Failed for one that does not exist."""
    command: list[str | Path] = ["git", "-C", HERE, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        raise Failed(f"{name} is no commit of this repository")
    return str(found.stdout).strip()


def built(commit: str) -> Path:
    """Where a commit's package lies; it is built unless it has been. Raises Failed where it does not build."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "c1m-bench"
    # The package is of this Python, too.
    site = cache / f"{commit[:16]}-{sys.implementation.cache_tag}"
    if site.exists():
        return site
    cache.mkdir(parents=True, exist_ok=True)
    progress(f"building {commit[:10]}")
    with tempfile.TemporaryDirectory(dir=cache) as place:
        source, target = Path(place, "source"), Path(place, "site")
        source.mkdir()
        archive = subprocess.check_output(["git", "-C", HERE.parent, "archive", commit])
        subprocess.run(["tar", "-x", "-C", source], input=archive, check=True)
        pip = subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", target, source],
                             capture_output=True, text=True, check=False)
        if pip.returncode:
            lines = pip.stderr.strip().splitlines() or ["pip says nothing"]
            raise Failed(f"{commit[:10]} does not build: {lines[-1]}")
        target.rename(site)
    return site


# ---- measuring ----


def server_of(site: Path, way: str, place: Path) -> Server:
    return Server(way, lambda port: [sys.executable, HERE / "serve.py", way, str(port), place / "www"],
                  {"PYTHONPATH": str(site)})


def cost_of(found: Round) -> float:
    """A page more or less may make memory seem to be none: it counts as a byte, of which there are ratios."""
    if "error" in found:
        raise Failed(found["error"])
    return float(found["cpu_us"] if "cpu_us" in found else max(found["bytes_each"], 1))


def compared(load: Load, way: str, sites: tuple[Path, Path], place: Path, args: argparse.Namespace) -> str:
    """A line on one load. Which of both is first changes from round to round."""
    costs: tuple[list[float], list[float]] = ([], [])
    for i in range(args.rounds):
        for which in (0, 1) if i % 2 == 0 else (1, 0):
            progress(f"{load.title}, {way}: round {i + 1} of {args.rounds}, {'AB'[which]}")
            try:
                costs[which].append(cost_of(loads.measure(load, server_of(sites[which], way, place), args.seconds)))
            except Failed as error:
                return f"{'AB'[which]} failed: {error}"
    ratio, low, high = ratio_of(list(zip(*costs, strict=True)))
    a, b = map(statistics.median, costs)
    return f"{a:10.2f}{b:10.2f}{ratio:9.3f}{f'{low:.3f} to {high:.3f}':>17}  {verdict(low, high, not load.unit)}"


def counted(site: Path) -> dict[str, dict[str, float]]:
    """Instructions of each unit that counts.py has. Raises Failed."""
    run = subprocess.run([sys.executable, HERE / "counts.py", "--json"], capture_output=True, text=True, check=False,
                         env=os.environ | {"PYTHONPATH": str(site)})
    if run.returncode:
        raise Failed((run.stderr.strip().splitlines() or ["counts.py says nothing"])[-1])
    found: dict[str, dict[str, float]] = json.loads(run.stdout)["loads"]
    return found


def show_counts(sites: tuple[Path, Path]) -> None:
    if not shutil.which("valgrind"):
        print("\nno instruction counts, for valgrind is not installed: apt install valgrind")
        return
    progress("counting instructions")
    try:
        a, b = map(counted, sites)
    except Failed as error:
        print(f"\nno instruction counts: {error}")
        return
    print(f"\n{'instructions':30}{'A':>10}{'B':>10}{'B/A':>9}")
    for name in a:
        of_a, of_b = a[name]["instructions"], b[name]["instructions"]
        print(f"{name:30}{of_a:10,.0f}{of_b:10,.0f}{of_b / of_a:9.3f}")


# ---- the command ----


def ways(text: str) -> list[str]:
    for name in text.split(","):
        if name not in WAYS:
            raise argparse.ArgumentTypeError(f"no such server: {name}; there are {', '.join(WAYS)}")
    return text.split(",")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", metavar="A", help="a commit, as git names it")
    parser.add_argument("b", metavar="B", help="the one that is held against it")
    parser.add_argument("loads", nargs="*", metavar="LOAD", help=f"of {', '.join(LOADS)}; all unless given")
    parser.add_argument("--servers", type=ways, metavar="WAY,WAY", default=["c1m", "c1m-handler"],
                        help="how c1m serves, of " + ", ".join(WAYS) + " (default c1m,c1m-handler)")
    parser.add_argument("--rounds", type=count, default=9, help="that each load has (default 9)")
    parser.add_argument("--seconds", type=duration, default=2.0, help="that each round lasts (default 2)")
    args = parser.parse_args()
    for load in args.loads:
        if load not in LOADS:
            parser.error(f"{load}: no such load; there are {', '.join(LOADS)}")
    if args.rounds < LEAST_ROUNDS:
        parser.error(f"--rounds: at least {LEAST_ROUNDS}, or the intervals mean nothing")
    return args


def compare(args: argparse.Namespace) -> None:
    commits = revision(args.a), revision(args.b)
    sites = built(commits[0]), built(commits[1])
    pairs = [(name, way) for name in LOADS if not args.loads or name in args.loads for way in args.servers
             if name in CONTENDERS[way].loads]
    takes = 2 * args.rounds * sum(loads.estimate_s(LOADS[name], args.seconds) for name, _ in pairs)
    progress("")
    print(f"{harness.described()}\nA is {args.a} ({commits[0][:10]}), B is {args.b} ({commits[1][:10]}); "
          f"{args.rounds} rounds of {args.seconds:g} s; about {takes / 60:.0f} min\n\n"
          f"{'CPU us for each, or bytes':30}{'A':>10}{'B':>10}{'B/A':>9}{'95 %':>17}", flush=True)
    harness.stay_on_load_cpu()
    with tempfile.TemporaryDirectory(prefix="c1m-bench-") as name:
        place = Path(name)
        loads.fill(place / "www")
        for name, way in pairs:
            line = compared(LOADS[name], way, sites, place, args)
            progress("")
            print(f"{name + way.removeprefix('c1m').replace('-', ', '):30}{line}", flush=True)
    show_counts(sites)


def main() -> int:
    args = arguments()
    harness.end_on_signals()
    try:
        compare(args)
    except Failed as error:
        print(f"compare_commits.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        progress("")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
