"""The `c1m` command."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import click

import c1m
from c1m.kinds import Amount, Choice, Kind, Several, Switch
from c1m.options import Flag, Option, Options, RootOptions, RouteOptions, ServerOptions

_F = TypeVar("_F", bound=Callable[..., Any])


class Parsed(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic since click 8.4
    """What a kind of option reads from text."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.name = kind.metavar

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self.kind.parse(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


def flags(declaration: type[Options]) -> Callable[[_F], _F]:
    """A decorator that gives a command the flags of those options that have one. Their values come by the options'
    names; a flag for an option of several values may be repeated.
    """

    def decorate(command: _F) -> _F:
        for name, option in reversed(declaration.options.items()):
            if option.flag is not None:
                command = flag(name, option, option.flag)(command)
        return command

    return decorate


def flag(name: str, option: Option, said: Flag) -> Callable[[_F], _F]:
    kind = option.kind
    settings: dict[str, Any] = {"help": said.help, "metavar": said.metavar or kind.metavar}
    if isinstance(kind, Switch):
        settings |= {"is_flag": True, "metavar": None}
    elif isinstance(kind, Choice):
        settings |= {"type": click.Choice([each for each in kind.values if each is not None]), "metavar": None}
    elif isinstance(kind, Amount):
        settings["type"] = click.IntRange(kind.least, kind.most)
    else:
        settings["type"] = Parsed(kind)
    if isinstance(kind, Several):
        settings |= {"multiple": True, "default": [str(each) for each in kind.check(name, option.default)]}
    else:
        settings["default"] = option.default
    return click.option(said.name or f"--{name.replace('_', '-')}", name, show_default=bool(option.default), **settings)


def given(declaration: type[Options], values: Mapping[str, Any]) -> dict[str, Any]:
    """What the flags of a declaration were given, by the options' names."""
    return {
        name: list(chain.from_iterable(values[name])) if isinstance(option.kind, Several) else values[name]
        for name, option in declaration.options.items()
        if option.flag is not None
    }


@click.group()
@click.version_option(c1m.__version__, prog_name="c1m", message="%(prog)s %(version)s")
def main() -> None:
    """Static files and WebSockets from one Python package."""


@main.command()
@click.argument("root", required=False, type=click.Path(path_type=Path))
@flags(ServerOptions)
@flags(RootOptions)
@click.option("--websocket", "websockets", multiple=True, metavar="PATH",
              help="URL path that echoes WebSocket messages; may be repeated. [default without ROOT: /ws]")
@flags(RouteOptions)
def serve(root: Path | None, websockets: tuple[str, ...], **values: Any) -> None:
    """Serve the files below ROOT; without ROOT, a page with a live WebSocket console."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    if root is None:
        websockets = websockets or ("/ws",)
    try:
        server = c1m.Server(
            console() if root is None else c1m.Root(root, **given(RootOptions, values)),
            **given(ServerOptions, values),
        )
        for path in websockets:
            server.websocket(path, **given(RouteOptions, values))
        server.listen()
        # The greeting promises that Ctrl-C stops it: so it must before run() has its own handlers, too.
        # So does closing its terminal, unless nohup(1) is to prevent that.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda *_: server.stop())
        signal.signal(signal.SIGUSR1, lambda *_: server.reopen_log())
        settings = given(ServerOptions, values)
        greet(server, root, settings["host"], settings["unix"], websockets)
        server.run()
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        raise click.ClickException(_sentence(error)) from None
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def console() -> c1m.Root:
    """The built-in page, which needs nothing from elsewhere; isolated, so that browsers let it time echoes finely."""
    policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src *"
    return c1m.Root(c1m.PAGE, headers={
        "Content-Security-Policy": policy,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Embedder-Policy": "require-corp",
    })


def greet(server: c1m.Server, root: Path | None, hosts: Sequence[str], unix: Sequence[str],
          websockets: tuple[str, ...]) -> None:
    """Says where to point the browser."""
    first, *more = server.ports
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(hosts[0], hosts[0])
    place = f"[{host}]:{first}" if ":" in host else f"{host}:{first}"
    click.echo(f"c1m {c1m.__version__} serves {'its console' if root is None else root.absolute()}")
    click.echo(f"  http://{place}/" + (f"   and on ports {_ranges(more)}" if more else ""))
    for path in websockets:
        click.echo(f"  ws://{place}{path}   echo")
    for path in unix:
        click.echo(f"  unix:{path}")
    click.echo("Ctrl-C stops it.")


def _ranges(ports: list[int]) -> str:
    """8002-8030, 9000"""
    runs: list[list[int]] = []
    for port in ports:
        if runs and port == runs[-1][-1] + 1:
            runs[-1][1:] = [port]
        else:
            runs.append([port])
    return ", ".join("-".join(map(str, run)) for run in runs)


def _sentence(error: OSError) -> str:
    """The error without its number: the reader needs none."""
    text = error.strerror or str(error)
    return f"{text}: {error.filename}" if error.filename else text
