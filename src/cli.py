"""The `c1m` command."""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import Any

import click

import c1m
from c1m.config import Plan, Wrong, read
from c1m.doctorcli import examine
from c1m.flags import NOT_GIVEN, GroupedCommand, GroupedOption, Mistake, flag_of, flags, sentence
from c1m.loadcli import load
from c1m.options import Options, RootOptions, RouteOptions, ServerOptions
from c1m.service import Service
from c1m.workers import reason

DECLARED: tuple[type[Options], ...] = (RootOptions, RouteOptions, ServerOptions)


class Commands(click.Group):
    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None and os.path.exists(args[0]):
            ctx.fail(f"There is no command {args[0]!r}. It is served by: c1m serve {args[0]}")
        return super().resolve_command(ctx, args)


@click.group(cls=Commands)
@click.version_option(c1m.__version__, prog_name="c1m", message="%(prog)s %(version)s")
def main() -> None:
    """Static files and WebSockets from one Python package."""


main.add_command(load)
main.add_command(examine)


@main.command(
    cls=GroupedCommand,
    epilog="SECONDS are above 0, or 0 for --drain, and at most a year: a number, or one with a unit, such as 500ms, 2m,"
    " 1h, 1d. BYTES may have one, too: 64KiB, 1MiB.",
)
@click.argument("root", required=False)
@click.option("--websocket", "websockets", multiple=True, metavar="PATH", cls=GroupedOption, group="WebSocket",
              help="URL path that echoes WebSocket messages.", notes="default without ROOT: /ws; repeatable")
@flags(*DECLARED)
@click.option("--config", metavar="FILE", cls=GroupedOption, group="Command",
              help="TOML file that says what to serve: several roots, WebSocket handlers and any option. Flags override"
              " it, for all its roots and routes.")
@click.option("--check", is_flag=True, cls=GroupedOption, group="Command",
              help="Check all that can be checked without listening, say what would be served, and exit.")
def serve(root: str | None, config: str | None, check: bool, **values: Any) -> None:
    """Serve the files below ROOT; without ROOT, a page with a live WebSocket console."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    try:
        plan = planned(root, config, **values)
        plan.take_sockets()
        server = plan.made()
        if check:
            server._check()
            greet(server, plan, "would serve")
            return
        with Service(server) as service:
            server.listen()
            run(server, plan, service)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        failure = Mistake if check else click.ClickException
        raise failure(sentence(error)) from None
    except ValueError as error:
        raise Mistake(str(error)) from None


def planned(root: str | None, config: str | None, websockets: tuple[str, ...], **values: Any) -> Plan:
    """What flags and configuration file say together. Raises Wrong."""
    try:
        plan = Plan() if config is None else read(config)
    except OSError as error:
        raise Wrong(f"--config: {sentence(error)}") from None
    if root is not None and root.endswith(".toml") and os.path.isfile(root):
        raise Wrong(f"ROOT: {root} is no directory: a configuration file is given by --config {root}")
    if root is not None:
        plan.override_root(root)
    plan.console = config is None and root is None
    for path in websockets or (("/ws",) if plan.console else ()):
        plan.add_route(path, "--websocket")
    for declaration in DECLARED:
        for name, option in declaration.options.items():
            if values.get(name, NOT_GIVEN) is not NOT_GIVEN:
                plan.override(declaration, name, values[name], flag_of(name, option))
    if not (plan.console or plan.roots or plan.routes):
        raise Wrong(f'{config}: nothing is served: write root = "DIRECTORY", or [websocket."/PATH"]')
    return plan


def run(server: c1m.Server, plan: Plan, service: Service) -> None:
    """Serves until a signal."""
    # The greeting promises that Ctrl-C stops it: so it must before run() has its own handlers, too.
    for number in _ends(server):
        signal.signal(number, lambda *_: server.stop())
    signal.signal(signal.SIGUSR1, lambda *_: server.reopen_log())
    service.listens(greet(server, plan))
    try:
        server.run()
    except Exception as error:           # a hook's, most likely: no mistake in what was asked for
        raise click.ClickException(reason(error)) from None


def _ends(server: c1m.Server) -> list[signal.Signals]:
    """The signals that end it: closing its terminal, too, unless nohup(1) is to prevent that, or it replaces workers.
    """
    stays = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN or server.workers > 1
    return [signal.SIGINT, signal.SIGTERM, *([] if stays else [signal.SIGHUP])]


def greet(server: c1m.Server, plan: Plan, verb: str = "serves") -> str:
    """Says what is served, and where to point the browser; the former is returned."""
    options = server._options
    place = ""
    if options.ports:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(options.host[0], options.host[0])
        place = f"[{host}]:{server.ports[0]}" if ":" in host else f"{host}:{server.ports[0]}"
    alone = list(plan.roots) == ["/"]
    what = "its console" if plan.console else server._roots[0][2].path if alone else f"what {plan.source} says"
    many = f" with {server.workers} workers" if server.workers > 1 else ""
    click.echo(f"c1m {c1m.__version__} {verb} {what}{many}")
    ports = server.ports[:len(options.ports)]        # the others are of sockets that were handed in
    listed = {(host, prefix): root.path for host, prefix, root in ([] if alone or plan.console else server._roots)}
    if place:
        here, more = listed.pop(("", ""), ""), _ranges(ports[1:])
        click.echo(f"  http://{place}/" + f"   {here}" * bool(here) + f"   and on ports {more}" * bool(more))
    for (host, prefix), path in listed.items():
        at = f"{host}:{ports[0]}" if host and place else host or place
        click.echo(f"  {'http://' if place else ''}{at}{prefix}/   {path}")
    for path in plan.routes:
        click.echo(f"  {'ws://' if place else ''}{place}{path}   {plan.handlers.get(path, 'echo')}")
    for path in options.unix:
        click.echo(f"  unix:{path}")
    for found in server._handed_in:
        click.echo(f"  {found}")
    if verb == "serves":
        click.echo("Ctrl-C stops it.")
    return f"{verb} {what}"


def _ranges(ports: list[int]) -> str:
    """8002-8030, 9000"""
    runs: list[list[int]] = []
    for port in ports:
        if runs and port == runs[-1][-1] + 1:
            runs[-1][1:] = [port]
        else:
            runs.append([port])
    return ", ".join("-".join(map(str, run)) for run in runs)
