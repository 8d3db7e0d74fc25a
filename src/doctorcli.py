"""`c1m doctor`."""

from __future__ import annotations

import sys

import click

from c1m.machine import GOOD, POOR, SHORT, UNKNOWN, Diagnosis, Finding, counted, doctor, size

COLOURS = {GOOD: "green", POOR: "yellow", SHORT: "red", UNKNOWN: "yellow"}
MOST = 1 << 40


@click.command(
    "doctor",
    epilog="Exit status: 0, 1 where so many connections can't be held, 2 for a usage that can't be right.",
)
@click.option("--connections", type=click.IntRange(1, MOST), default=10_000, show_default=True, metavar="N",
              help="Connections that are to be held at a time.")
@click.option("--workers", type=click.IntRange(1, MOST), metavar="N",
              help="Processes that are to hold them.  [default: as many as are necessary]")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def examine(connections: int, workers: int | None, as_json: bool) -> None:
    """Say what this machine allows, what falls short of so many connections, and the command that mends it."""
    found = doctor(connections, workers)
    if as_json:
        click.echo(found.to_json(indent=2))
    else:
        for line in report(found):
            click.echo(line)
    sys.exit(0 if found.possible else 1)


def report(found: Diagnosis) -> list[str]:
    """A line for each finding, and one for all of them."""
    width = max(len(each.name) for each in found.findings)
    memory = size(found.own_bytes + found.kernel_bytes)
    can = "can" if found.possible else "can't"
    workers = counted(found.workers, "worker")
    return [
        *(line(each, width) for each in found.findings),
        f"{counted(found.connections, 'connection')} {can} be held, in {workers} and {memory} of memory, idle.",
    ]


def line(each: Finding, width: int) -> str:
    mend = f": {each.mend}" if each.mend else ""
    return f"{click.style(f'{each.state:7}', fg=COLOURS[each.state])} {each.name:{width}}  {each.text}{mend}"
