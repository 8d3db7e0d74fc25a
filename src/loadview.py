"""What is shown of a load: while it runs, when it has ended, and as a chart."""

from __future__ import annotations

import contextlib
import math
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from typing import Any

from c1m.loadrun import LoadResult, Progress

WIDTH = 96                       # columns of a report
PLAIN_EVERY = 1.0                # seconds between two lines where there is no terminal
LOOPS = {
    "closed": "Closed loop: a connection sends its next message when an answer has come. A server that stalls is asked"
    " less meanwhile, so these percentiles show its stalls too seldom. --rate does not wait.",
    "open": "Open loop: latency counts from when a message was due by the schedule, whatever the server did.",
    "idle": "Idle: one echo on each connection, which then stayed open. Latency is that of the echoes.",
    "subscribe": "Subscribed: latency counts from when a message was due to be published to when it was received.",
}
HINTS = {
    "no free port": "--sources gives connections more addresses to come from",
    "no descriptor": "a higher limit of descriptors (ulimit -n) or more --processes",
    "no compression": "the server does not agree on permessage-deflate: leave out --compression",
    "wrong echo": "the server answered something else: --no-verify counts answers whatever they are",
}


def duration(seconds: float) -> str:
    """277 us, 3.56 ms, 1.2 s"""
    for unit, factor in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= factor:
            return f"{digits(seconds / factor)} {unit}"
    return f"{digits(seconds / 1e-6)} us"


def digits(value: float) -> str:
    """Three of them, or all before the point."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def amount(value: float) -> str:
    """12 B, 3.74 MB"""
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{value:.0f} B" if unit == "B" else f"{digits(value)} {unit}"


# ---- while it runs ----


def plain(progress: Progress) -> str:
    """One line."""
    known = "   ".join(f"{name} {duration(value)}" for name, value in list(progress.percentiles.items())[:3] if value)
    said = f"{progress.elapsed:6.1f} s" if progress.elapsed else f"{progress.phase:>8}"
    return (
        f"{said}   {progress.connected:,} connected   {progress.rate:,.0f}/s   {known or 'no latencies yet'}   "
        f"{sum(progress.errors.values()):,} errors"
    )


@contextlib.contextmanager
def watching(url: str) -> Iterator[Callable[[Progress], None]]:
    """What is to be called with a load's progress: a live view on a terminal, if rich is there; else lines."""
    try:
        if not sys.stderr.isatty():
            raise ImportError
        from rich.console import Console
        from rich.live import Live
    except ImportError:
        yield lines()
        return
    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
        yield lambda progress: live.update(screen(url, progress), refresh=True)


def lines() -> Callable[[Progress], None]:
    said = -math.inf

    def say(progress: Progress) -> None:
        nonlocal said
        if time.monotonic() - said >= PLAIN_EVERY:
            said = time.monotonic()
            print(plain(progress), file=sys.stderr, flush=True)

    return say


def screen(url: str, progress: Progress) -> Any:
    """The live view, for rich."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 3))
    table.add_row("connected", f"{progress.connected:,}", "elapsed", f"{progress.elapsed:.1f} s, {progress.phase}")
    table.add_row("rate", f"{progress.rate:,.0f}/s", "answers", f"{progress.answered:,}")
    table.add_row("latency", "   ".join(f"{name} {duration(value)}" for name, value in progress.percentiles.items()))
    for name, times in progress.errors.items():
        table.add_row(Text(name, style="red"), f"{times:,}")
    bar = ProgressBar(100, progress.share * 100 if progress.share is not None else 100, pulse=progress.share is None)
    return Group(Text(f"c1m load {url}", style="bold"), table, bar)


# ---- when it has ended ----


def report(result: LoadResult) -> str:
    """Some lines."""
    where = result.urls[0] + (f" and {len(result.urls) - 1} more" if len(result.urls) > 1 else "")
    what = "delivered" if result.loop == "subscribe" else "answered"
    count = result.delivered if result.loop == "subscribe" else result.answered
    per_second = 1 / result.seconds if result.seconds else 0.0
    said = [
        f"{where}, {result.seconds:.2f} s{', ended early' if result.interrupted else ''}",
        f"connections   {result.connections:,} opened, {result.still_open:,} open at the end",
    ]
    if result.loop == "idle":
        said.append(f"echoes        {result.answered:,}")
    else:
        said += [
            f"{what:<13} {count:,} of {result.sent:,} sent, {result.rate:,.0f} a second"
            if result.loop != "subscribe" else f"{what:<13} {count:,}, {result.rate:,.0f} a second",
            f"bytes         {amount(result.bytes_in * per_second)}/s in, {amount(result.bytes_out * per_second)}/s out",
        ]
    latency = result.latency
    if latency.count:
        said += [
            f"latency       mean {duration(latency.mean)}, least {duration(latency.least)}, most"
            f" {duration(latency.most)}",
            f"              {'  '.join(f'{name} {duration(each)}' for name, each in latency.percentiles.items())}",
        ]
    said.append("errors        " + ("none" if not result.errors else f"{sum(result.errors.values()):,}"))
    said += [f"{times:>13,}   {name}{hint(name)}" for name, times in sorted(result.errors.items())]
    said.append(LOOPS[result.loop])
    if result.client_was_the_limit:
        said.append(
            f"The load itself was the limit: a process of it took {max(result.busy):.0%} of a CPU. The server can"
            " answer more than this rate, and the latencies have its own delays in them. More --processes, or another"
            " machine, would tell."
        )
    return "\n".join(textwrap.fill(line, WIDTH, break_on_hyphens=False) if ": " in line else line for line in said)


def hint(name: str) -> str:
    return f": {HINTS[name]}" if name in HINTS else ""


def failure(result: LoadResult) -> str:
    """Why no connection was ever opened, in a line."""
    causes = ", ".join(f"{name}{hint(name)}" for name in result.errors) or "it was ended before"
    return f"{result.urls[0]}: no connection could be opened: {causes}"


# ---- as a chart ----


def plot(result: LoadResult, path: str) -> None:
    """Writes a chart of the latencies, by percentile, to a file whose name says of what kind it is.

    Raises ImportError without matplotlib, ValueError for a kind that it can't write, OSError.
    """
    from matplotlib.figure import Figure

    total, seen = result.latency.count, 0
    ranks, values = [1.0], [result.latency.least * 1e3]
    for value, times in result.latency.histogram:
        seen += times
        ranks.append(total / max(total - seen, 1))      # one in so many takes longer
        values.append(value * 1e3)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(ranks, values)
    axes.set_xscale("log")
    ticks = [each for each in (1, 2, 10, 100, 1000, 10_000, 100_000) if each <= max(ranks)]
    axes.set_xticks(ticks, ["0" if each == 1 else f"{100 - 100 / each:g} %" for each in ticks])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("share of the answers that took no longer")
    axes.set_ylabel("latency, ms")
    axes.set_title(f"{result.urls[0]}   {result.rate:,.0f} a second, {result.loop} loop", fontsize="medium")
    axes.grid(alpha=0.3)
    figure.savefig(path)
