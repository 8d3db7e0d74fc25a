"""The `c1m` command."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path

import click

import c1m


class Ports(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic since click 8.4
    """A port, or a range of ports: 8001 or 8002-8030."""

    name = "N|N-M"

    def convert(self, value: str | range, param: click.Parameter | None, ctx: click.Context | None) -> range:
        if isinstance(value, range):
            return value
        first, dash, last = value.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            self.fail(f"{value!r} is not a port such as 8001, or a range such as 8002-8030", param, ctx)
        ports = range(int(first), int(last or first) + 1)
        if not ports:
            self.fail(f"{value!r} is a range that ends before it begins", param, ctx)
        if ports[-1] > 65535:
            self.fail(f"{ports[-1]} is not a TCP port (0 to 65535)", param, ctx)
        return ports


@click.group()
@click.version_option(c1m.__version__, prog_name="c1m", message="%(prog)s %(version)s")
def main() -> None:
    """Static files and WebSockets from one Python package."""


@main.command()
@click.argument("root", required=False, type=click.Path(path_type=Path))
@click.option("--host", "hosts", multiple=True, default=["127.0.0.1"], show_default=True, metavar="HOST",
              help="Address or name to listen on; may be repeated.")
@click.option("--port", "ports", multiple=True, type=Ports(), default=["8001"], show_default=True,
              help="Port or range of ports to listen on; may be repeated. 0 lets the kernel choose.")
@click.option("--unix", "unix", multiple=True, type=click.Path(), metavar="PATH",
              help="Unix-domain socket to listen on as well; may be repeated.")
@click.option("--websocket", "websockets", multiple=True, metavar="PATH",
              help="URL path that echoes WebSocket messages; may be repeated. [default without ROOT: /ws]")
@click.option("--max-message", type=click.IntRange(1, (1 << 31) - 1), default=1 << 20, show_default=True,
              metavar="BYTES", help="Longest WebSocket message taken.")
@click.option("--listing", is_flag=True, help="List directories that have no index.html.")
@click.option("--spa", is_flag=True, help="Answer with index.html where a browser asks for a page that does not exist.")
@click.option("--access-log", metavar="FILE|-",
              help="Append a line for every answer to FILE, or print it. SIGUSR1 reopens FILE.")
@click.option("--access-log-format", type=click.Choice(["combined", "json"]), default="combined", show_default=True)
def serve(root: Path | None, hosts: tuple[str, ...], ports: tuple[range, ...], unix: tuple[str, ...],
          websockets: tuple[str, ...], max_message: int, listing: bool, spa: bool,
          access_log: str | None, access_log_format: str) -> None:
    """Serve the files below ROOT; without ROOT, a page with a live WebSocket console."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    if root is None:
        websockets = websockets or ("/ws",)
    try:
        server = c1m.Server(
            root=console() if root is None else c1m.Root(root, listing=listing, spa=spa),
            ports=[port for several in ports for port in several],
            host=hosts,
            unix=unix,
            access_log=access_log,
            access_log_format=access_log_format,
        )
        for path in websockets:
            server.websocket(path, max_message=max_message)
        server.listen()
        # The greeting promises that Ctrl-C stops it: so it must before run() has its own handlers, too.
        # So does closing its terminal, unless nohup(1) is to prevent that.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda *_: server.stop())
        signal.signal(signal.SIGUSR1, lambda *_: server.reopen_log())
        greet(server, root, hosts, unix, websockets)
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


def greet(server: c1m.Server, root: Path | None, hosts: tuple[str, ...], unix: tuple[str, ...],
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
