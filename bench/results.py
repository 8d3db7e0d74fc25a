"""What was measured, as a JSON file in results/: merged, summed up, and rendered as tables.

A file holds runs, by the time they began: the machine, the commit, versions and flags; and loads, each with the run it
is of and every round of every server. A load that is measured again replaces what was there. Everything that is shown
is computed from it: nothing is typed by hand.
"""

from __future__ import annotations

import json
import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import HERE, Failed
from loads import LOADS, Round
from servers import CONTENDERS, OURS

README = HERE.parent / "README.md"
RESULTS = HERE / "results"
FIGURES = re.compile(r"<!-- figures: (\S+) -->\n.*?<!-- /figures -->", re.S)
ROUND = re.compile(r"\{[^{}[\]]+\}(?=,?\s+[]{])")      # in a list, as JSON has it
FROM_MEMORY = "†"

Results = dict[str, Any]


@dataclass(frozen=True)
class Spread:
    """The median of the rounds, the least and the most."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Figure:
    """A load on a server, summed up.

    cost: microseconds of the server's CPU for each unit, or its bytes for each connection. ratio: to the floor's cost
    of the same round; None for memory, or where the floor failed.
    """

    cost: Spread
    ratio: Spread | None
    rate: float | None
    p99_us: float | None
    limited: bool                # whether the load was the limit of the rate in any round


def spread(values: list[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def error_of(rounds: list[Round]) -> str | None:
    """The first, if any: then the server has no figure in this load."""
    return next((each["error"] for each in rounds if "error" in each), None)


def figure_of(rounds: list[Round], of_floor: list[Round]) -> Figure | None:
    """None where there was an error or nothing was measured. Only rounds that both have are compared."""
    if error_of(rounds) or not rounds:
        return None
    if "bytes_each" in rounds[0]:
        return Figure(spread([each["bytes_each"] for each in rounds]), None, None, None, False)
    pairs = [] if error_of(of_floor) else list(zip(rounds, of_floor, strict=False))
    return Figure(
        spread([each["cpu_us"] for each in rounds]),
        spread([one["cpu_us"] / floor["cpu_us"] for one, floor in pairs]) if pairs else None,
        statistics.median(each["rate"] for each in rounds), statistics.median(each["p99_us"] for each in rounds),
        any(each["limited"] for each in rounds),
    )


def figures_of(servers: dict[str, list[Round]]) -> dict[str, Figure | None]:
    return {name: figure_of(rounds, servers.get("floor", [])) for name, rounds in servers.items()}


# ---- the file ----


def merged(kept: Results | None, run: dict[str, Any], loads: dict[str, dict[str, list[Round]]]) -> Results:
    """What is kept with a run's loads in place of those it had. Raises Failed for another machine's."""
    results: Results = kept or {"runs": {}, "loads": {}}
    for other in results["runs"].values():
        if other["machine"]["cpu"] != run["machine"]["cpu"]:
            raise Failed(f"it has results of another machine, {other['machine']['cpu']}: give another --name")
    fresh = {name: {"run": run["began"], "servers": servers} for name, servers in loads.items()}
    now = {**results["loads"], **fresh}
    now = {name: now[name] for name in LOADS if name in now}
    used = {load["run"] for load in now.values()}
    runs = {**results["runs"], run["began"]: run}
    return {"runs": {began: runs[began] for began in sorted(runs) if began in used}, "loads": now}


def read(file: Path) -> Results | None:
    """None if there is no such file. Raises Failed if it is not one of ours."""
    try:
        results = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        results = None
    if not isinstance(results, dict) or not all(isinstance(results.get(part), dict) for part in ("runs", "loads")):
        raise Failed(f"{file} is not what bench/run.py writes: move it away")
    return results


def write(file: Path, results: Results) -> None:
    """Rounds have a line each, so that a change of the file can be read."""
    text = ROUND.sub(lambda found: " ".join(found[0].split()), json.dumps(rounded(results), indent=1))
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(".new")
    beside.write_text(text + "\n")
    beside.replace(file)


def rounded(value: Any) -> Any:
    """To 5 digits, which is more than is known."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


# ---- tables ----


def short(value: float) -> str:
    """Three digits, as 0.98, 13.3 or 133."""
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"


def size(value: float) -> str:
    """Bytes."""
    return f"{max(value, 0):.0f} B" if value < 1000 else f"{value / 1000:.3g} KB"


def text_table(name: str, servers: dict[str, list[Round]]) -> str:
    """A load for a terminal."""
    unit = LOADS[name].unit
    cost = f"CPU us/{unit}" if unit else "bytes each"
    heads = f"{cost:>18}{'least to most':>20}{'to floor':>10}{'least to most':>15}{'per second':>13}{'p99 us':>10}"
    lines = [f"{name}: {LOADS[name].title}", f"  {'':18}{heads}"]
    for server, figure in figures_of(servers).items():
        if figure is None:
            lines.append(f"  {server:18}  {error_of(servers[server]) or 'not measured'}")
            continue
        digits = 2 if unit else 0
        line = f"  {server:18}{figure.cost.median:18,.{digits}f}"
        line += f"{f'{figure.cost.low:,.{digits}f} to {figure.cost.high:,.{digits}f}':>20}"
        if figure.ratio:
            line += f"{short(figure.ratio.median):>10}{f'{short(figure.ratio.low)} to {short(figure.ratio.high)}':>15}"
        elif unit:
            line += " " * 25
        if figure.rate is not None and figure.p99_us is not None:
            line += f"{('>' if figure.limited else '') + f'{figure.rate:,.0f}':>13}{figure.p99_us:10,.0f}"
        lines.append(line)
    return "\n".join(lines)


def markdown_table(results: Results) -> str:
    """All loads, for a page."""
    lines = ["| load | floor | c1m | others |", "|---|---|---|---|"]
    for name, load in results["loads"].items():
        figures = figures_of(load["servers"])
        costs = {server: told(figure, error_of(load["servers"][server])) for server, figure in figures.items()}
        floor = figures.get("floor")
        ours = [f"{server.removeprefix('c1m-')} {costs[server]}" if server != "c1m" else costs[server]
                for server in costs if server in OURS and server != "floor"]
        theirs = sorted((server for server in costs if server not in OURS), key=lambda server: rank(figures[server]))
        others = [f"{server}{mark(name, server)} {costs[server]}" for server in theirs]
        of_floor = "" if floor is None else cost_of(floor)
        lines.append(f"| {LOADS[name].title} | {of_floor} | {', '.join(ours)} | {', '.join(others)} |")
    return "\n".join(lines)


def told(figure: Figure | None, error: str | None) -> str:
    """In a cell: the ratio, or what is known in place of it."""
    if figure is None:
        return "failed" if error else "not measured"
    return short(figure.ratio.median) if figure.ratio else cost_of(figure)


def cost_of(figure: Figure) -> str:
    return size(figure.cost.median) if figure.rate is None else f"{short(figure.cost.median)} µs"


def rank(figure: Figure | None) -> float:
    """The cheapest first."""
    return (figure.ratio or figure.cost).median if figure else float("inf")


def mark(load: str, server: str) -> str:
    from_memory = server in CONTENDERS and CONTENDERS[server].from_memory and not LOADS[load].websocket
    return FROM_MEMORY if from_memory else ""


def circumstances(results: Results) -> str:
    """What was measured on, with which versions, and how."""
    runs = results["runs"].values()
    here = next(iter(runs))["machine"]
    versions: dict[str, set[str]] = {}
    for load in results["loads"].values():
        for server in load["servers"]:
            named = "floor" if server == "floor" else server if server not in OURS else "c1m"
            versions.setdefault(named, set()).add(results["runs"][load["run"]]["versions"][server])
    commits = sorted({run["commit"] for run in runs})
    rounds = {len(each) for load in results["loads"].values() for each in load["servers"].values()
              if not error_of(each)}
    return (
        f"{here['cpu']}, {here['cpus']} CPUs, {here['kernel']}, CPython {here['python']}, commit {', '.join(commits)}; "
        + ", ".join(f"{name} {' and '.join(sorted(those))}" for name, those in versions.items())
        + f". Medians of {' or '.join(map(str, sorted(rounds)))} rounds of "
        + f"{' or '.join(sorted({format(run['seconds'], 'g') for run in runs}))} s."
    )


def markdown(name: str, results: Results) -> str:
    """What stands between the marks in a page."""
    note = f"\n{FROM_MEMORY} pages from memory, not from files." if FROM_MEMORY in markdown_table(results) else ""
    return (f"<!-- figures: {name} -->\n{markdown_table(results)}\n\n"
            f"{circumstances(results)}{note}\n<!-- /figures -->")


def shown_in(page: Path) -> str | None:
    """The name of the results that a page shows."""
    found = FIGURES.search(page.read_text())
    return found[1] if found else None


def show_in(page: Path, name: str, results: Results) -> None:
    """Renders the results into a page. Raises Failed where it has no marks for them."""
    text = page.read_text()
    if not FIGURES.search(text):
        raise Failed(f"{page} has no <!-- figures: NAME --> and <!-- /figures --> to put them between")
    page.write_text(FIGURES.sub(lambda found: markdown(name, results), text, count=1))
