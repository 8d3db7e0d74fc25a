"""Checks of programs that stand in front of c1m, and of what it learns from them about clients; see programs.py.

    apt install haproxy nginx libnginx-mod-stream caddy curl

The clients have addresses of their own out of 127.0.0.0/8; the proxies connect from 127.0.0.1, or by a Unix socket.
docs/proxy.md shows the same configurations, without what only a test needs.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import outside
from checks import check, curl, expect, laid, until
from client import WebSocket, handshake
from wire import TEXT

import c1m

CLIENTS = ("127.0.0.5", "127.0.0.6")
MADE_UP = "X-Forwarded-For: 1.2.3.4"


class Remote:
    """A handler that says who it is spoken with."""

    def on_message(self, ws: c1m.WebSocket, message: str) -> None:
        ws.send(ws.remote)


class Behind:
    """A server behind a proxy and, once it has stopped, whose requests it has answered."""

    def __init__(self, server: c1m.Server) -> None:
        self.server = server
        self.port = server.ports[0]
        self.remotes: list[tuple[str, str, int]] = []      # the client, the path, the status


@contextlib.contextmanager
def behind(place: Path, **settings: Any) -> Iterator[Behind]:
    root = laid(place / "root", {"a.txt": "a file"})
    with tempfile.NamedTemporaryFile() as log:
        server = c1m.Server(root, ports=0, access_log=log.name, access_log_format="json", **settings)
        server.websocket("/remote", Remote())
        with server:
            made = Behind(server)
            yield made
        for line in Path(log.name).read_text().splitlines():
            said = json.loads(line)
            made.remotes.append((said["remote"], said["request"].split(" ")[1], said["status"]))


def visited(behind: Behind, ports: list[int], *fields: str) -> None:
    """Sees that files and WebSockets come through, each known to be its client's."""
    for port in ports:
        for client in CLIENTS:
            url = f"http://127.0.0.1:{port}/a.txt?{client}"
            options = [option for field in fields for option in ("-H", field)]
            expect(curl("--interface", client, *options, url), "a file", f"a file by {client}")
            with WebSocket(port, opening=handshake("/remote", *fields), source=client) as ws:
                expect(ws.echo(b"who?", TEXT), (TEXT, client.encode()), "who a handler speaks with")
    until(lambda: behind.server.stats()["websockets"] == 0)


def expect_remotes(behind: Behind, ports: int) -> None:
    """Each file's answer is logged for its client, by the address in the query; each WebSocket's as well."""
    files = [(remote, path) for remote, path, _ in behind.remotes if "?127." in path]
    expect(files, [(client, f"/a.txt?{client}") for client in CLIENTS] * ports, "the log of files")
    upgrades = [remote for remote, _, status in behind.remotes if status == 101]
    expect(upgrades, list(CLIENTS) * ports, "the log of WebSockets")


# ---- HAProxy ----

HAPROXY = """
global
    log stderr format raw local0 err
defaults
    timeout connect 5s
    timeout client 1m
    timeout server 1m
    timeout check 5s
"""
BY_CONNECTION = """
listen {name}
    mode tcp
    bind 127.0.0.1:{port}
    option httpchk GET /a.txt?check-{name}
    server c1m 127.0.0.1:{server} {options} check inter 100ms
"""
BY_REQUEST = """
frontend {name}
    mode http
    bind 127.0.0.1:{port}
    {field}
    default_backend {name}
backend {name}
    mode http
    timeout tunnel 1h
    server c1m 127.0.0.1:{server}
"""
SEND_PROXY = {
    "v1": "send-proxy",
    "v2": "send-proxy-v2",
    "v2-crc": "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority",
}


@contextlib.contextmanager
def haproxy(place: Path, config: str, port: int) -> Iterator[None]:
    file = place / "haproxy.cfg"
    file.write_text(HAPROXY + config)
    with outside.running("haproxy", ["-db", "-f", file], port, "haproxy"):
        yield


@check("haproxy: PROXY protocol", "haproxy", "curl")
def haproxy_proxy_protocol(place: Path) -> str:
    """Versions 1 and 2, with a checksum, too; and its checks, which are LOCAL and so its own."""
    with behind(place, proxy_protocol="127.0.0.1", max_connections_per_address=10) as site:
        ports = {name: outside.free_port() for name in SEND_PROXY}
        config = "".join(
            BY_CONNECTION.format(name=name, port=ports[name], server=site.port, options=options)
            for name, options in SEND_PROXY.items()
        )
        with haproxy(place, config, ports["v2-crc"]):
            visited(site, list(ports.values()))
            before = site.server.stats()["requests"]
            until(lambda: site.server.stats()["requests"] > before + 2 * len(ports))
        expect(sum(site.server.stats()["refused"].values()), 0, "what was refused")
    expect_remotes(site, len(ports))
    checks = [(remote, path) for remote, path, _ in site.remotes if "?check-" in path]
    expect({*checks}, {("127.0.0.1", f"/a.txt?check-{name}") for name in ports}, "checks of each kind")
    return f"versions 1 and 2, {len(checks)} checks"


@check("haproxy: forwarded", "haproxy", "curl")
def haproxy_forwarded(place: Path) -> str:
    """It passes on what clients have made up, too, and adds its own behind it."""
    fields = {"x-forwarded-for": "option forwardfor", "forwarded": "http-request add-header Forwarded for=%[src]"}
    for name, field in fields.items():
        with behind(place, trusted_proxies="127.0.0.1", forwarded=name) as site:
            port = outside.free_port()
            config = BY_REQUEST.format(name="site", port=port, server=site.port, field=field)
            with haproxy(place, config, port):
                visited(site, [port], MADE_UP, "Forwarded: for=1.2.3.4")
        expect_remotes(site, 1)
    return " and ".join(fields)


# ---- nginx ----

NGINX = """
daemon off; master_process off;
load_module modules/ngx_stream_module.so;
pid {place}/nginx.pid; error_log {place}/error.log;
events {{ }}
stream {{
    server {{
        listen 127.0.0.1:{stream};
        proxy_pass 127.0.0.1:{server};
        proxy_protocol on;
    }}
}}
http {{
    access_log off;
    map $http_upgrade $connection_upgrade {{ default upgrade; "" ""; }}
    upstream c1m {{ server unix:{socket}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://c1m;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
        }}
    }}
}}
"""
MODULES = Path("/usr/lib/nginx/modules")


@contextlib.contextmanager
def nginx(place: Path, site: Behind) -> Iterator[tuple[int, int]]:
    """nginx in front, and its ports: with PROXY headers, and with X-Forwarded-For over a Unix socket."""
    place.chmod(0o755)
    (place / "modules").symlink_to(MODULES)
    stream, port = outside.free_port(), outside.free_port()
    config = NGINX.format(place=place, socket=place / "socket", stream=stream, port=port, server=site.port)
    with outside.nginx(place, config, port):
        yield stream, port


@check("nginx: who the client is", "nginx", str(MODULES / "ngx_stream_module.so"), "curl")
def nginx_clients(place: Path) -> str:
    settings = {"proxy_protocol": "127.0.0.1", "trusted_proxies": "unix", "unix": place / "socket", "unix_mode": 0o666}
    with behind(place, **settings) as site, nginx(place, site) as ports:
        visited(site, list(ports), MADE_UP)
    expect_remotes(site, 2)
    return "PROXY headers, and X-Forwarded-For by a Unix socket"


@check("nginx: limits", "nginx", str(MODULES / "ngx_stream_module.so"), "curl")
def nginx_limits(place: Path) -> str:
    """A refusal comes through whole, in each of the two ways, and is one client's."""
    limits = {"max_connections_per_address": 1, "unix": place / "socket", "unix_mode": 0o666}
    with (
        behind(place, proxy_protocol="127.0.0.1", trusted_proxies="unix", **limits) as site,
        nginx(place, site) as (stream, port),
    ):
        for each in (stream, port):
            with contextlib.ExitStack() as stack:
                stack.enter_context(WebSocket(each, "/remote", source=CLIENTS[0]))
                with contextlib.suppress(AssertionError):
                    stack.enter_context(WebSocket(each, "/remote", source=CLIENTS[0]))
                    raise RuntimeError("a second WebSocket was let in")
                stack.enter_context(WebSocket(each, "/remote", source=CLIENTS[1]))
            until(lambda: site.server.stats()["limited_addresses"] == 0)
        expect(site.server.stats()["refused"]["max_connections_per_address"], 2, "refusals")
        with WebSocket(stream, "/remote", source=CLIENTS[0]):
            said = curl("-i", "--no-fail", "--interface", CLIENTS[0], f"http://127.0.0.1:{stream}/a.txt")
            expect(said.startswith("HTTP/1.1 503 ") and "Retry-After: 5" in said, True, f"503 in {said!r}")
    return "one WebSocket for each client, in both ways"


# ---- Caddy ----

CADDY = """{{
    admin off
    auto_https off
}}
http://:{port} {{
    bind 127.0.0.1
    reverse_proxy 127.0.0.1:{server}
}}
"""


@check("caddy: who the client is", "caddy", "curl")
def caddy(place: Path) -> str:
    with behind(place, trusted_proxies="127.0.0.1") as site:
        port, file = outside.free_port(), place / "Caddyfile"
        file.write_text(CADDY.format(port=port, server=site.port))
        command = ["run", "--config", file, "--adapter", "caddyfile"]
        with outside.running("caddy", command, port, "caddy", HOME=str(place), XDG_DATA_HOME=str(place)):
            visited(site, [port], MADE_UP)
    expect_remotes(site, 1)
    return "X-Forwarded-For"
