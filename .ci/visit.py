"""Visits a server as its users would: `visit.py TEXT COMMAND...`.

Runs the command, reads the addresses that it prints, finds TEXT in the page, gets an echo from the WebSocket,
interrupts the server and waits for it to end with status 0. Needs curl and `websockets`.
"""

import re
import signal
import subprocess
import sys

from websockets.sync.client import connect

_, text, *command = sys.argv
with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
    try:
        found = {}
        while not {"http", "ws"} <= found.keys():
            line = server.stdout.readline() or sys.exit(f"{command} printed no address, and ended")
            print(line, end="")
            found |= {scheme: url for url, scheme in re.findall(r"((http|ws)://\S+)", line)}
        fetched = subprocess.run(["curl", "-fsS", found["http"]], check=True, capture_output=True, text=True)
        if text not in fetched.stdout:
            sys.exit(f"{found['http']} has no {text!r}")
        with connect(found["ws"]) as client:
            for message in ("an echo", b"\0\xff"):
                client.send(message)
                if client.recv() != message:
                    sys.exit(f"{found['ws']} does not echo {message!r}")
        server.send_signal(signal.SIGINT)
        if server.wait() != 0:
            sys.exit(f"interrupted, it ended with status {server.returncode}")
    finally:
        server.kill()
print(f"{' '.join(command)}: page, echo, exit 0")
