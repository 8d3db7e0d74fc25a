"""Measures c1m, the floor and the peers that are installed, under each load; see bench/README.md.

    python bench/run.py                                  # all that there is
    python bench/run.py small echo --servers c1m,nginx   # two loads, c1m and nginx; the floor is always measured
    python bench/run.py --list                           # the loads and the servers, and how one gets those
    python bench/run.py --render NAME                    # tables and charts of results/NAME.json, once more

Results go into bench/results/NAME.json; loads that were there and are not measured now stay.
"""

from __future__ import annotations

import argparse
import datetime
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import charts
import harness
import loads
import results
from harness import Failed
from loads import LOADS, Round
from servers import CONTENDERS, OURS, Contender, Lab

Found = dict[str, tuple[Path, str]]              # servers that are there: their programs and versions
Measured = dict[str, dict[str, list[Round]]]     # loads, their servers, the rounds of these


def find(lab: Lab, names: list[str]) -> Found:
    """Those that are installed, and a line for each that is not."""
    found: Found = {}
    for name in names:
        there = CONTENDERS[name].find(lab)
        if there:
            found[name] = there
        else:
            print(f"{name} is not installed: {CONTENDERS[name].get}")
    return found


def show_all(lab: Lab) -> None:
    print("loads:")
    for name, load in LOADS.items():
        print(f"  {name:18} {load.title}")
    print("servers:")
    for name, contender in CONTENDERS.items():
        there = contender.find(lab)
        print(f"  {name:18} {there[1] if there else f'not installed: {contender.get}'}")
        print(f"  {'':18} {', '.join(load for load in LOADS if load in contender.loads)}")


def taking_part(load: str, found: Found) -> list[Contender]:
    return [CONTENDERS[name] for name in found if load in CONTENDERS[name].loads]


def measure(lab: Lab, args: argparse.Namespace, found: Found) -> Measured:
    """Each load on each server in turn, round by round. Ctrl-C ends it with the rounds that are whole."""
    measured: Measured = {}
    total = sum(args.rounds * len(taking_part(name, found)) for name in args.loads)
    done = 0
    try:
        for name in args.loads:
            contenders = taking_part(name, found)
            rounds: dict[str, list[Round]] = {each.name: [] for each in contenders}
            i = 0
            for i in range(args.rounds):
                for contender in contenders:
                    done += 1
                    progress(f"{done} of {total}: {name}, {contender.name}, round {i + 1}")
                    if results.error_of(rounds[contender.name]):
                        continue                 # it would fail again
                    server = contender.server(lab, found[contender.name][0], LOADS[name])
                    rounds[contender.name].append(loads.measure(LOADS[name], server, args.seconds))
                    harness.check_signals()
            measured[name] = rounds
            progress("")
            print(f"\n{results.text_table(name, rounds)}", flush=True)
    except KeyboardInterrupt:
        progress("")
        print("\ninterrupted: the rounds that are whole are kept", file=sys.stderr)
        if i and name not in measured:
            measured[name] = {server: those[:i] for server, those in rounds.items()}
    return measured


def progress(line: str) -> None:
    """What goes on now, in the terminal's last line, or in a line of its own."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
    elif line:
        print(line, file=sys.stderr, flush=True)


def estimate_s(args: argparse.Namespace, found: Found) -> float:
    each = (len(taking_part(name, found)) * loads.estimate_s(LOADS[name], args.seconds) for name in args.loads)
    return float(args.rounds * sum(each))


def keep(args: argparse.Namespace, run: dict[str, Any], measured: Measured) -> None:
    """Writes what was measured and renders it."""
    file = args.to / f"{args.name}.json"
    now = results.merged(results.read(file), run, measured)
    results.write(file, now)
    print(f"\n{file} is written")
    render(args.to, args.name, everywhere=results.shown_in(results.README) == args.name)


def render(to: Path, name: str, everywhere: bool) -> None:
    """Charts beside the results, and where it is to be everywhere, the README's table."""
    found = results.read(to / f"{name}.json")
    if found is None:
        raise Failed(f"there is no {to / name}.json")
    for protocol, websocket in (("http", False), ("websocket", True)):
        drawn = charts.chart(found, websocket)
        if drawn:
            (to / f"{name}-{protocol}.svg").write_text(drawn)
    if everywhere and to == results.RESULTS:
        results.show_in(results.README, name, found)


def name_of_machine() -> str:
    return re.sub(r"[^a-z0-9]+", "-", str(harness.machine()["cpu"]).lower()).strip("-") or "unnamed"


def count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 and up")
    return int(text)


def duration(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 1 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, 1 to 3600")
    return value


def several(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in CONTENDERS:
            raise argparse.ArgumentTypeError(f"no such server: {name}; there are {', '.join(CONTENDERS)}")
    return [name for name in CONTENDERS if name in names or name == "floor"]


def plain_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name of letters, digits and - _ .")
    return text


def directory(text: str) -> Path:
    path = Path(text).resolve()
    if not (path / "bin" / "python").exists():
        raise argparse.ArgumentTypeError(f"{text} is no virtual environment: python3 -m venv {text}")
    return path


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loads", nargs="*", metavar="LOAD", help="all unless given; see --list")
    parser.add_argument("--servers", type=several, metavar="A,B", default=list(CONTENDERS),
                        help="only these, and the floor")
    parser.add_argument("--rounds", type=count, default=3, help="of which the median counts (default 3)")
    parser.add_argument("--seconds", type=duration, default=2.0, help="that each round lasts (default 2)")
    parser.add_argument("--name", type=plain_name, default=name_of_machine(),
                        help="of the results (default %(default)s, the CPU's)")
    parser.add_argument("--peers", type=directory, metavar="DIR",
                        help="virtual environment where peers are looked for, and Bun in its node_modules"
                        " (default: that of this Python)")
    parser.add_argument("--to", type=lambda text: Path(text).resolve(), metavar="DIR", default=results.RESULTS,
                        help="where results are written (default bench/results)")
    doing = parser.add_mutually_exclusive_group()
    doing.add_argument("--list", action="store_true", help="show loads and servers")
    doing.add_argument("--render", type=plain_name, metavar="NAME",
                       help="render results, and have the README show them")
    args = parser.parse_args()
    for load in args.loads:
        if load not in LOADS:
            parser.error(f"{load}: no such load; there are {', '.join(LOADS)}")
    args.loads = [name for name in LOADS if name in args.loads or not args.loads]
    return args


def run(args: argparse.Namespace) -> int:
    """The exit status: 1 if nothing was measured, or ours failed."""
    began = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    results.read(args.to / f"{args.name}.json")          # if it is not ours, it is better said now
    with tempfile.TemporaryDirectory(prefix="c1m-bench-") as name:
        lab = Lab(Path(name), args.peers)
        lab.place.chmod(0o755)                           # for servers that change their user
        if args.list:
            show_all(lab)
            return 0
        harness.compile_floor(lab.place)
        loads.fill(lab.place / "www")
        found = find(lab, args.servers)
        print(f"{harness.described()}\nserver on CPU {harness.SERVER_CPU}, load on CPU {harness.LOAD_CPU}; "
              f"{args.rounds} rounds of {args.seconds:g} s; about {estimate_s(args, found) / 60:.0f} min", flush=True)
        harness.stay_on_load_cpu()
        measured = measure(lab, args, found)
    if not measured:
        return 1
    keep(args, {
        "began": began, "machine": harness.machine(), "commit": harness.commit(), "rounds": args.rounds,
        "seconds": args.seconds, "arguments": sys.argv[1:],
        "versions": {name: version for name, (_, version) in found.items()},
    }, measured)
    ours = [rounds for load in measured.values() for name, rounds in load.items() if name in OURS]
    return int(any(results.error_of(rounds) for rounds in ours))


def main() -> int:
    args = arguments()
    harness.end_on_signals()
    try:
        if args.render:
            render(args.to, args.render, everywhere=True)
            return 0
        return run(args)
    except Failed as error:
        print(f"bench/run.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
