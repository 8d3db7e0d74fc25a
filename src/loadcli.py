"""`c1m load`."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import sys
from types import FrameType
from typing import Any

import click

from c1m.flags import NOT_GIVEN, GroupedCommand, GroupedOption, Mistake, flags, sentence
from c1m.loadoptions import LoadOptions, urls_in
from c1m.loadrun import LoadError, LoadResult, Run
from c1m.loadview import failure, plot, report, watching

CHARTS = (".svg", ".png")


@click.command(
    cls=GroupedCommand,
    epilog="URL is ws://HOST:PORT/PATH, http://HOST:PORT/PATH, or unix:PATH:/PATH (unix:ws:PATH:/PATH for WebSocket)."
    " Exit status: 0, 1 for errors in the load, 2 for a usage that can't be right.",
)
@click.argument("urls", nargs=-1, metavar="URL...")
@flags(LoadOptions)
@click.option("--urls", "urls_file", metavar="FILE", cls=GroupedOption, group="Load",
              help="File with more URLs, one a line.")
@click.option("--json", "json_file", metavar="FILE|-", cls=GroupedOption, group="Report",
              help="Write the result as JSON, with the whole histogram; - for standard output.")
@click.option("--plot", "plot_file", metavar="FILE", cls=GroupedOption, group="Report",
              help="Draw the latencies, as FILE.svg or FILE.png. It takes matplotlib: pip install 'c1m[plot]'.")
@click.option("--quiet", is_flag=True, cls=GroupedOption, group="Report", help="Show nothing while it runs.")
def load(
    urls: tuple[str, ...], urls_file: str | None, json_file: str | None, plot_file: str | None, quiet: bool,
    **values: Any,
) -> None:
    """Load a server with WebSocket messages or HTTP requests, and say how it bore it.

    Without --rate each connection waits for its answer before it asks again (a closed loop).
    """
    check_plot(plot_file)
    run = planned(urls, urls_file, values)
    result = ran(run, quiet)
    if json_file is not None:
        written(json_file, result)
    if plot_file is not None and result.latency.count:
        with saying("--plot"):
            plot(result, plot_file)
    if not result.connections and not result.interrupted:
        raise click.ClickException(failure(result))
    if json_file != "-":
        click.echo(report(result))
    sys.exit(1 if result.errors else 0)


def planned(urls: tuple[str, ...], urls_file: str | None, values: dict[str, Any]) -> Run:
    """The load that is asked for. Raises Mistake, or ClickException for what is no mistake in the command."""
    given = {
        name: declared.default if values.get(name, NOT_GIVEN) is NOT_GIVEN else values[name]
        for name, declared in LoadOptions.options.items()
    }
    try:
        if urls_file is not None:
            urls += tuple(urls_in(urls_file))
        return Run(urls, LoadOptions(given))
    except LoadError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise Mistake(sentence(error)) from None
    except ValueError as error:
        raise Mistake(str(error)) from None


def ran(run: Run, quiet: bool) -> LoadResult:
    """The result of a load that a signal ends early, and a second one at once."""

    def end(number: int, frame: FrameType | None) -> None:
        if run.ended:
            raise KeyboardInterrupt
        run.end()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    with contextlib.nullcontext() if quiet else watching(run.places[0].url) as watch:
        try:
            return run.run(watch)
        except KeyboardInterrupt:
            sys.exit(130)
        except (OSError, RuntimeError) as error:
            raise click.ClickException(sentence(error) if isinstance(error, OSError) else str(error)) from None


def check_plot(path: str | None) -> None:
    """Before the load and not after it."""
    if path is None:
        return
    if os.path.splitext(path)[1] not in CHARTS:
        raise Mistake(f"--plot: {path!r} is neither .svg nor .png")
    if importlib.util.find_spec("matplotlib") is None:
        raise Mistake("--plot: matplotlib is not installed: pip install 'c1m[plot]'")


def written(path: str, result: LoadResult) -> None:
    if path == "-":
        click.echo(result.to_json(indent=2))
        return
    with saying("--json"), open(path, "w", encoding="utf-8") as file:
        file.write(result.to_json(indent=2) + "\n")


@contextlib.contextmanager
def saying(flag: str) -> Any:
    """What the system will not do is said in a line that begins with the flag."""
    try:
        yield
    except OSError as error:
        raise click.ClickException(f"{flag}: {sentence(error)}") from None
