"""Plain clients on real sockets, a server in a process of its own, and what a process shows of itself.

They do what they are told and nothing else: no header is added, no frame answered.
"""

import contextlib
import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

from wire import BINARY, CLOSE, KEY, TEXT, frame

PATIENCE = 30.0                  # seconds; only a failing test ever waits so long
# A sanitizer keeps what was freed, so that memory says nothing.
SANITIZED = "asan" in os.environ.get("LD_PRELOAD", "")
KEY_TEXT = KEY.decode()


def until(condition, what):
    """Waits until condition() is true, and returns its value."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.002)
    return value


def connected(address, receive_buffer=None, source=None):
    """A socket connected to a port of 127.0.0.1, a (host, port) pair, or the path of a Unix socket; from a source
    address.
    """
    if isinstance(address, (str, Path)):
        family, address = socket.AF_UNIX, str(address)
    else:
        address = ("127.0.0.1", address) if isinstance(address, int) else address
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.settimeout(PATIENCE)
    if family != socket.AF_UNIX:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if receive_buffer is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    try:
        if source is not None:
            made.bind((source, 0))
        made.connect(address)
    except BaseException:
        made.close()
        raise
    return made


# ---- connections ----


class Wire:
    """A connection, and what it has received and not yet handed out."""

    def __init__(self, address, receive_buffer=None, source=None):
        self.socket = connected(address, receive_buffer, source)
        self.unread = b""

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.socket.close()

    def close(self):
        self.socket.close()

    def reset(self):
        """Ends the connection with a TCP reset in place of an end of stream."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def half_close(self):
        self.socket.shutdown(socket.SHUT_WR)

    def more(self):
        """Receives once; False at the end of the stream."""
        got = self.socket.recv(1 << 18)
        self.unread += got
        return got != b""

    def take(self, n):
        """The next n bytes."""
        parts, have = [self.unread], len(self.unread)
        while have < n:
            got = self.socket.recv(1 << 20)
            assert got, f"the stream ended {n - have} bytes early, after {b''.join(parts)[:200]!r}"
            parts.append(got)
            have += len(got)
        data = b"".join(parts)
        self.unread = data[n:]
        return data[:n]

    def take_line(self, end=b"\r\n"):
        while end not in self.unread:
            assert self.more(), f"the stream ended within {self.unread[:200]!r}"
        line, self.unread = self.unread.split(end, 1)
        return line

    def rest(self):
        """Everything up to the end of the stream. A reset is none."""
        parts = [self.unread]
        while got := self.socket.recv(1 << 20):
            parts.append(got)
        self.unread = b""
        return b"".join(parts)

    def drained(self):
        """How many more bytes come before the end of the stream or a reset."""
        n, self.unread = len(self.unread), b""
        with contextlib.suppress(ConnectionResetError):
            while got := self.socket.recv(1 << 20):
                n += len(got)
        return n

    def silent(self):
        """Whether nothing is there to be read, not even an end of stream."""
        return not self.unread and not select.select([self.socket], [], [], 0)[0]


class Answer:
    """A response: status, reason, head (bytes, up to and with the empty line), fields and body."""

    def __init__(self, head, body):
        self.head, self.body = head, body
        line, *fields = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        version, status, self.reason = line.split(" ", 2)
        assert version == "HTTP/1.1", line
        self.status = int(status)
        self.fields = [tuple(field.split(": ", 1)) for field in fields]

    def __repr__(self):
        return f"<{self.status} {self.fields} {self.body[:100]!r}>"

    def all(self, name):
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def __contains__(self, name):
        return bool(self.all(name))

    def __getitem__(self, name):
        [value] = self.all(name)
        return value


def request(target="/", *fields, method="GET", version="1.1", host="test", body=b""):
    """A request's bytes; fields: "Name: value"."""
    lines = [f"{method} {target} HTTP/{version}"]
    if host is not None:
        lines.append(f"Host: {host}")
    return "\r\n".join([*lines, *fields, "", ""]).encode("latin-1") + body


class Http(Wire):
    def get(self, target="/", *fields, **more):
        """Sends a request and returns its answer."""
        self.send(request(target, *fields, **more))
        return self.answer(head=more.get("method") == "HEAD")

    def answer(self, head=False):
        """The next answer; head: it has no body, whatever its length says."""
        top = self.take_line(b"\r\n\r\n") + b"\r\n\r\n"
        answer = Answer(top, b"")
        if not head and answer.status >= 200 and answer.status not in (204, 304):
            answer.body = self.take(int(answer["Content-Length"]))
        return answer


def get(address, target="/", *fields, **more):
    """The answer to one request on a connection of its own."""
    with Http(address) as http:
        return http.get(target, *fields, **more)


def handshake(
    target="/ws", *fields, key=KEY_TEXT, protocol="13", upgrade="websocket", connection="Upgrade", **more,
):
    """An opening handshake's bytes; None leaves a field out."""
    mine = {
        "Upgrade": upgrade,
        "Connection": connection,
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Version": protocol,
    }
    lines = [f"{name}: {value}" for name, value in mine.items() if value is not None]
    return request(target, *lines, *fields, **more)


class WebSocket(Wire):
    """A client past its opening handshake."""

    def __init__(self, address, target="/ws", receive_buffer=None, opening=None, source=None):
        super().__init__(address, receive_buffer, source)
        try:
            self.send(opening or handshake(target))
            self.opening = Answer(self.take_line(b"\r\n\r\n") + b"\r\n\r\n", b"")
            assert self.opening.status == 101, self.opening
        except BaseException:
            self.close()
            raise

    def frame(self):
        """The next frame: (fin, opcode, payload). The server must not mask it."""
        first, n = self.take(2)
        assert not first & 0x70, "reserved bits are set"
        assert n < 128, "a server's frame is masked"
        if n == 126:
            [n] = struct.unpack("!H", self.take(2))
            assert n > 125, "not the shortest length"
        elif n == 127:
            [n] = struct.unpack("!Q", self.take(8))
            assert n > 65535, "not the shortest length"
        return bool(first & 0x80), first & 0x0F, self.take(n)

    def message(self):
        """The next frame, which must be a whole message: (opcode, payload)."""
        fin, opcode, payload = self.frame()
        assert fin
        assert opcode in (TEXT, BINARY), (opcode, payload)
        return opcode, payload

    def echo(self, payload, opcode=BINARY):
        """Sends a message and returns the next one."""
        self.send(frame(opcode, payload))
        return self.message()

    def closing(self):
        """The code of the Close frame that must come next; None if it names none."""
        fin, opcode, payload = self.frame()
        assert fin
        assert opcode == CLOSE, (opcode, payload[:100])
        return struct.unpack("!H", payload[:2])[0] if payload else None


# ---- a server in a process of its own ----

_CHILD = """
import json, logging, resource, sys
asked = json.loads(sys.argv[1])
logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
if asked["nofile"]:
    resource.setrlimit(resource.RLIMIT_NOFILE, (asked["nofile"],) * 2)
import c1m
server = c1m.Server(asked["root"], ports=asked["ports"], **asked["settings"])
for path, settings in asked["websockets"].items():
    server.websocket(path, **settings)
with server:
    print(json.dumps(server.ports), flush=True)
    for line in sys.stdin:
        print(json.dumps(getattr(server, line.strip())()), flush=True)
"""


class Process:
    """A server of its own process: so its memory, descriptors and log are its alone."""

    def __init__(self, root=None, websockets=None, ports=(0,), nofile=None, **settings):
        asked = {
            "root": root and str(root),
            "websockets": websockets or {},
            "ports": list(ports),
            "nofile": nofile,
            "settings": settings,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, json.dumps(asked)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        self.pid = self.process.pid
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self.process.communicate()[1])
        self.ports = json.loads(line)
        self.port = self.ports[0]

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.process.returncode is None:
            self.end()

    def end(self):
        """Stops the server; returns what it has logged."""
        _, log = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, log
        return log

    def ask(self, method):
        """Calls a method of the server."""
        self.process.stdin.write(f"{method}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def stats(self):
        return self.ask("stats")

    def until(self, condition, what):
        """Waits until condition(stats) is true."""
        return until(lambda: condition(self.stats()), what)

    def memory(self):
        return memory(self.pid)

    def descriptors(self):
        return descriptors(self.pid)

    def cpu(self):
        """Clock ticks of processor time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])


class Program:
    """A script in a process of its own, which may crash, hang or fork; it can import what tests share.

    Its arguments are sys.argv[2:]. It is killed at the end, or if it should take too long.
    """

    def __init__(self, script, *arguments):
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.path.insert(0, sys.argv[1])\n" + script,
             str(Path(__file__).parent), *map(str, arguments)],
            stdin=pipe, stdout=pipe, stderr=pipe, text=True,
        )
        self.pid = self.process.pid
        self._watchdog = threading.Timer(2 * PATIENCE, self.process.kill)
        self._watchdog.start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self._watchdog.cancel()
        self.process.kill()
        with self.process:
            pass

    def line(self):
        """The next line that it prints."""
        line = self.process.stdout.readline()
        if not line:
            self.process.kill()
            raise AssertionError(f"it ended: {self.process.communicate()[1]}")
        return line.removesuffix("\n")

    def say(self, line):
        """Gives it a line to read."""
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def ended(self):
        """Its exit status, and what else it has printed on the two outputs, once it has ended."""
        try:
            out, errors = self.process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"it does not end: {self.process.communicate()}") from None
        return self.process.returncode, out, errors


def program(script, *arguments):
    """Runs a script to its end, which must be a good one: what it has printed on the two outputs."""
    with Program(script, *arguments) as made:
        status, out, errors = made.ended()
    assert status == 0, (status, out, errors)
    return out, errors


def losses(server, path="/ws"):
    """What a route counts, but for those who are there."""
    return {name: n for name, n in server.stats()["routes"][path].items() if name != "websockets"}


def memory(pid="self"):
    """Bytes of memory that a process has to itself."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss_Anon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Pss_Anon in smaps_rollup")


def descriptors(pid="self"):
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))
