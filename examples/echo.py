"""A directory and a WebSocket echo on thirty ports: `python examples/echo.py [ROOT [FIRST_PORT]]`. Without ROOT it
is the built-in page, on which /echo can be connected to.
"""

import sys

import c1m

root = sys.argv[1] if len(sys.argv) > 1 else c1m.PAGE
first = int(sys.argv[2]) if len(sys.argv) > 2 else 8001

server = c1m.Server(root=root, ports=range(first, first + 30))
server.websocket("/echo")
server.run()
