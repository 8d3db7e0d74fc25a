"""c1m: static files and WebSockets from one Python package.

import c1m

server = c1m.Server(root="public", ports=range(8001, 8031))
server.websocket("/echo")
server.run()
"""

from importlib.metadata import version as _version
from pathlib import Path as _Path

from c1m.handlers import Closed, Reject
from c1m.loadrun import Latencies, LoadError, LoadResult, load
from c1m.machine import Diagnosis, Finding, doctor
from c1m.root import Root
from c1m.server import Server
from c1m.websocket import Request, WebSocket

__all__ = [
    "PAGE", "Closed", "Diagnosis", "Finding", "Latencies", "LoadError", "LoadResult", "Reject", "Request", "Root",
    "Server", "WebSocket", "__version__", "doctor", "load",
]

__version__: str = _version("c1m")

PAGE: _Path = _Path(__file__).parent / "page"
"""The document root of the built-in page, a WebSocket console that talks to an echo at ``/ws``."""
