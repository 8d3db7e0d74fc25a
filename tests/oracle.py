"""What the engines ought to say: readers that put their events into comparable form, and slow models of them.

The models are regular expressions and the standard library, straight from the RFCs' grammar; they see all the
bytes at once and know nothing of cuts. A disagreement means that the engine or the model has misread its RFC.
"""

from __future__ import annotations

import calendar
import datetime
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol
from urllib.parse import unquote_to_bytes

from wire import BINARY, CLOSE, CONTINUATION, PONG, TEXT, masked

from c1m import _probe_http
from c1m import _probe_ws as ws

Event = tuple
Fields = list[tuple[bytes, bytes]]


# ---- readers: an engine's events, however the bytes came ----

class Reader(Protocol):
    @property
    def events(self) -> list[Event]: ...

    def feed(self, data: bytes) -> None: ...


class HttpReader:
    """("request", {...}), ("body", all of it so far), if there is any, and ("fail", status)."""

    def __init__(self) -> None:
        self.parser = _probe_http.Parser()
        self.whole: list[Event] = []
        self.body = bytearray()

    @property
    def events(self) -> list[Event]:
        return [*self.whole, ("body", bytes(self.body))] if self.body else list(self.whole)

    def feed(self, data: bytes) -> None:
        for event in self.parser.feed(data):
            if event[0] == "body":
                self.body += event[1]
            else:
                self.whole = [*self.events, event]
                self.body.clear()


class ResponseReader:
    """("interim", {...}), ("response", {...}), ("body", all of it so far), if there is any, and ("end",).

    Last is ("fail", why), or ("close", what it would mean if the connection ended here).
    """

    def __init__(self, methods: Sequence[str] = ()) -> None:
        self.parser = _probe_http.ResponseParser(methods)
        self.whole: list[Event] = []
        self.body = bytearray()

    @property
    def events(self) -> list[Event]:
        body = [("body", bytes(self.body))] if self.body else []
        failed = self.whole and self.whole[-1][0] == "fail"
        return [*self.whole, *body, *([] if failed else [("close", self.parser.close())])]

    def feed(self, data: bytes) -> None:
        for event in self.parser.feed(data):
            if event[0] == "body":
                self.body += event[1]
            else:
                self.whole += [("body", bytes(self.body)), event] if self.body else [event]
                self.body.clear()


class WsReader:
    """("message", opcode, payload), ("control", opcode, payload), ("close", code, reason), ("fail", code).

    An unfinished message is last, as ("partial", opcode, payload so far), unless a failure has made it void.
    What is compressed stays so: inflating is for others.
    """

    def __init__(self, limit: int = 1 << 20, client: bool = False, deflate: bool = False) -> None:
        self.parser = ws.Parser(limit, client, deflate)
        self.whole: list[Event] = []
        self.opcode = 0
        self.payload = bytearray()

    @property
    def events(self) -> list[Event]:
        if self.opcode and not self.failed:
            return [*self.whole, ("partial", self.opcode, bytes(self.payload))]
        return list(self.whole)

    @property
    def failed(self) -> bool:
        return bool(self.whole) and self.whole[-1][0] == "fail"

    def feed(self, data: bytes) -> None:
        if self.failed:
            return
        for kind, *rest in self.parser.feed(data):
            if kind == "data":
                self.take(*rest)
            elif kind == "control" and rest[0] == CLOSE:
                self.whole.append(close_event(rest[1], ws.close_code(rest[1])))
            else:
                self.whole.append((kind, *rest))
            if self.failed:
                return

    def take(self, opcode: int, first: bool, last: bool, payload: bytes) -> None:
        assert first == (self.opcode == 0)
        assert opcode == (self.opcode or opcode)
        self.opcode = opcode
        self.payload += payload
        if last:
            self.whole.append(("message", opcode, bytes(self.payload)))
            self.opcode = 0
            self.payload.clear()


def close_event(payload: bytes, code: int) -> Event:
    return ("fail", -code) if code < 0 else ("close", code, payload[2:])


def pieces(data: bytes, places: Iterable[int]) -> list[bytes]:
    """data cut at these places."""
    ends = [0, *sorted(place for place in places if 0 < place < len(data)), len(data)]
    return [data[a:b] for a, b in pairwise(ends)]


def read(reader: Reader, parts: Iterable[bytes]) -> list[Event]:
    for part in parts:
        reader.feed(part)
    return reader.events


def read_every_way(make: Callable[[], Reader], data: bytes) -> list[Event]:
    """The events of data whole, seen to be the same byte by byte and cut at each place in two."""
    places = set(range(1, len(data)))
    if len(data) > 2000:             # amid something long here and there will do
        places = {place for place in places if min(place, len(data) - place) < 100 or place % 499 == 0}
    whole = read(make(), [data])
    slow = make()
    for at in range(len(data)):
        if at in places:
            reader = make()
            reader.feed(data[:at])
            assert reader.events == slow.events, f"the first {at} bytes, whole and byte by byte"
            reader.feed(data[at:])
            assert reader.events == whole, f"whole and cut at {at}"
        slow.feed(data[at:at + 1])
    assert slow.events == whole, "whole and byte by byte"
    return whole


# ---- HTTP requests ----

CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
REQUEST_LINE = re.compile(rb"(%s) ([!\"$-~]+) HTTP/(\d)\.(\d)" % TOKEN)
FIELD_LINE = re.compile(rb"(%s):(.*)" % TOKEN, re.DOTALL)
PLAIN = rb"[!$&'()*+,;=\-._~0-9A-Za-z]"                # unreserved / sub-delims
OCTET = rb"(?:\d|[1-9]\d|1\d\d|2[0-4]\d|25[0-5])"
H16 = rb"[0-9A-Fa-f]{1,4}"
LS32 = rb"(?:%s:%s|%s(?:\.%s){3})" % (H16, H16, OCTET, OCTET)
IPV6 = b"|".join(line % {b"h": H16, b"ls32": LS32} for line in (
    b"(?:%(h)s:){6}%(ls32)s",
    b"::(?:%(h)s:){5}%(ls32)s",
    b"(?:%(h)s)?::(?:%(h)s:){4}%(ls32)s",
    b"(?:(?:%(h)s:){,1}%(h)s)?::(?:%(h)s:){3}%(ls32)s",
    b"(?:(?:%(h)s:){,2}%(h)s)?::(?:%(h)s:){2}%(ls32)s",
    b"(?:(?:%(h)s:){,3}%(h)s)?::%(h)s:%(ls32)s",
    b"(?:(?:%(h)s:){,4}%(h)s)?::%(ls32)s",
    b"(?:(?:%(h)s:){,5}%(h)s)?::%(h)s",
    b"(?:(?:%(h)s:){,6}%(h)s)?::",
))
LITERAL = rb"\[(?:%s|[Vv][0-9A-Fa-f]+\.(?:%s|:)+)\]" % (IPV6, PLAIN)
HOST = re.compile(rb"(?:(?:%s|(?:%s|%%[0-9A-Fa-f]{2})+)(?::\d*)?)?" % (LITERAL, PLAIN))
HOST_AND_PORT = re.compile(rb"(.+):\d+")
ORIGIN = re.compile(rb"((?:[^%?]|%(?!00|2[Ff])[0-9A-Fa-f]{2})*)(?:\?(.*))?")
ABSOLUTE = re.compile(rb"(?:(?i:https?)://([^/?:][^/?]*))(.*)")
QUOTED = rb'"(?:[\t !\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
EXTENSION = rb"[ \t]*;[ \t]*%s(?:[ \t]*=[ \t]*(?:%s|%s))?" % (TOKEN, TOKEN, QUOTED)
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]+)(?:%s)*" % EXTENSION)
METHODS = {
    b"GET": "GET", b"HEAD": "HEAD", b"OPTIONS": "OPTIONS", b"CONNECT": "CONNECT",
    **dict.fromkeys(
        b"""POST PUT DELETE PATCH TRACE ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT COPY LABEL LINK LOCK MERGE MKACTIVITY
        MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE ORDERPATCH PROPFIND PROPPATCH QUERY REBIND REPORT SEARCH UNBIND
        UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL""".split(),
        "other",
    ),
}


class Failure(Exception):
    """args[0] is the status, or the close code."""


def http_events(data: bytes) -> list[Event]:
    """What HttpReader must make of data."""
    events: list[Event] = []
    at = 0
    try:
        while True:
            for _ in range(4):
                at += 2 * data.startswith(b"\r\n", at)
            head = http_head(data, at)
            if head is None:
                return events
            request, at = head
            events.append(("request", request))
            body = bytearray()
            try:
                chunked = "chunked" in request["flags"]
                at = chunked_body(data, at, body) if chunked else plain_body(data, at, request["length"], body)
            finally:
                if body:
                    events.append(("body", bytes(body)))
            if at is None:
                return events
    except Failure as failure:
        return [*events, ("fail", failure.args[0])]


def http_head(data: bytes, at: int) -> tuple[dict, int] | None:
    """The request that begins there and where it ends, None if it is not whole yet."""
    line = line_at(data, at, at + 8192, 414)
    if line is None:
        return None
    request = request_line(line)
    fields, end = fields_at(data, at + len(line) + 2)
    return None if end is None else (finished(request | {"fields": fields}), end)


def fields_at(data: bytes, at: int) -> tuple[Fields, int | None]:
    """The field lines that begin there and where they end, with the empty line; None if they do not yet."""
    fields: Fields = []
    most = at + 16384
    while line := line_at(data, at, most, 431):
        if len(fields) == 100:
            raise Failure(431)
        name, value = match(FIELD_LINE, line).groups()
        fields.append((name, value.strip(b" \t")))
        at += len(line) + 2
    return fields, None if line is None else at + 2


def line_at(data: bytes, at: int, most: int, status: int) -> bytes | None:
    """The line that begins there, None if it is not whole yet. Past most, it fails with the status."""
    control = CONTROL.search(data, at)
    stop = control.start() if control else len(data)
    if stop > most:
        raise Failure(status)
    end = data[stop:stop + 2]
    if end == b"\r\n":
        return data[at:stop]
    if b"\r\n".startswith(end):
        return None
    raise Failure(400)


def plain_body(data: bytes, at: int, length: int, body: bytearray) -> int | None:
    """Puts what is there into body; returns where it ends, None if it does not yet."""
    body += data[at:at + length]
    return at + len(body) if len(body) == length else None


def chunked_body(data: bytes, at: int, body: bytearray, most: int | None = 1 << 20) -> int | None:
    """The same (RFC 9112 section 7.1). most: bytes of it with all that frames it; None: it is a response's."""
    def bounded(size: int) -> None:
        if most is not None and size > most:
            raise Failure(413)

    start = at
    while (line := line_at(data, at, at + 256, 400)) is not None:
        size = int(match(CHUNK_LINE, line)[1], 16)
        at += len(line) + 2
        bounded(at + size - start)
        if size > 1 << 59:
            raise Failure(413)
        if size == 0:
            return trailers_end(data, at, 16384 if most is None else most - (at - start))
        body += data[at:at + size]
        at += size
        end = data[at:at + 2]
        if end != b"\r\n":
            if b"\r\n".startswith(end):
                return None
            raise Failure(400)
        at += 2
        bounded(at - start)
    return None


def trailers_end(data: bytes, at: int, most: int) -> int | None:
    start = at
    while line := line_at(data, at, at + 16384, 431):
        at += len(line) + 2
        if at - start > most:
            raise Failure(413)
        match(FIELD_LINE, line)
    return None if line is None else at + 2


def match(pattern: re.Pattern[bytes], text: bytes) -> re.Match[bytes]:
    found = pattern.fullmatch(text)
    if not found:
        raise Failure(400)
    return found


def request_line(line: bytes) -> dict:
    method, target, major, minor = match(REQUEST_LINE, line).groups()
    if major != b"1":
        raise Failure(505)
    host = path = query = b""
    if method == b"CONNECT":
        host = match(HOST, match(HOST_AND_PORT, target)[0])[0]
    elif (method, target) == (b"OPTIONS", b"*"):
        path = b"*"
    else:
        if not target.startswith(b"/"):
            host, target = match(ABSOLUTE, target).groups()
            match(HOST, host)
        path, query = match(ORIGIN, target).groups(b"")
        path = path or b"/"
    method = METHODS.get(method, "unknown")
    return {"method": method, "path": path, "query": query, "host": host, "minor": int(minor)}


def finished(request: dict) -> dict:
    """The request with what all its fields together mean."""
    fields, modern = request["fields"], request["minor"] >= 1
    hosts = values(fields, b"host")
    if len(hosts) > 1 or (modern and not hosts):
        raise Failure(400)
    if hosts:
        match(HOST, hosts[0])
        request["host"] = request["host"] or hosts[0]
    flags = connection_flags(fields, modern)
    if modern:
        expected = elements(fields, b"expect")
        flags |= {"continue" if item == b"100-continue" else "expectation" for item in expected}
    is_chunked, length = framing(fields, modern)
    if is_chunked:
        flags.add("chunked")
    elif length > 1 << 20:
        raise Failure(413)
    return request | {"flags": flags, "length": length, "resolved": resolved(request["path"])}


def connection_flags(fields: Fields, modern: bool) -> set[str]:
    options, protocols = elements(fields, b"connection"), elements(fields, b"upgrade")
    flags = set()
    if b"close" not in options and (modern or b"keep-alive" in options):
        flags.add("keep-alive")
    if modern and b"upgrade" in options and b"websocket" in protocols:
        flags.add("websocket")
    return flags


def framing(fields: Fields, modern: bool) -> tuple[bool, int]:
    """Whether the body is chunked, and what Content-Length says, 0 without one."""
    coded, codings = values(fields, b"transfer-encoding"), elements(fields, b"transfer-encoding")
    lengths = values(fields, b"content-length")
    if coded:
        if not modern or lengths or len(coded) > 1:
            raise Failure(400)
        if codings[-1:] != [b"chunked"] or codings.count(b"chunked") > 1:
            raise Failure(400)
        if len(codings) > 1:
            raise Failure(501)
        return True, 0
    if not lengths:
        return False, 0
    if len(lengths) > 1 or not re.fullmatch(rb"\d{1,18}", lengths[0]):
        raise Failure(400)
    return False, int(lengths[0])


# ---- HTTP responses ----

STATUS_LINE = re.compile(rb"HTTP/(\d)\.(\d) ([1-9]\d\d)(?: (.*))?", re.DOTALL)
VERSION = re.compile(rb"HTTP/\d\.\d.{4}", re.DOTALL)


def response_events(data: bytes, methods: Sequence[str] = ()) -> list[Event]:
    """What ResponseReader must make of data."""
    events: list[Event] = []
    try:
        closing = responses(data, list(methods), events)
        return [*events, ("close", closing)]
    except Failure as failure:
        why = {400: "malformed", 413: "too long", 414: "too long", 431: "too long"}.get(failure.args[0], "unsupported")
        return [*events, ("fail", why)]


def responses(data: bytes, methods: list[str], events: list[Event]) -> str:
    """Adds what there is to events; returns what it would mean if the connection ended here."""
    at = 0
    while True:
        line = line_at(data, at, at + 8192, 414)
        response = {} if line is None else status_line(line)
        fields, end = ([], None) if line is None else fields_at(data, at + len(line) + 2)
        if end is None:
            return "between" if at == len(data) else "cut"
        at = end
        method = methods[0] if methods else "GET"
        status, modern = response["status"], response["minor"] >= 1
        is_chunked, length = framing(fields, modern)
        flags = connection_flags(fields, modern)
        response |= {"fields": fields, "length": length, "flags": flags}
        if 100 <= status < 200 and status != 101:
            events.append(("interim", response))
            continue
        events.append(("response", response))
        methods[:1] = []
        if status == 101 or (method == "CONNECT" and 200 <= status < 300):
            if status == 101 and method != "UPGRADE":
                events.pop()
                raise Failure(400)
            response["flags"] = flags - {"keep-alive"} | {"switched"}
            return "between"
        if method == "HEAD" or status in (204, 304):
            events.append(("end",))
            continue
        if not is_chunked and not values(fields, b"content-length"):
            response["flags"] = flags - {"keep-alive"} | {"until close"}
            if data[at:]:
                events.append(("body", data[at:]))
            return "body"
        body = bytearray()
        try:
            if is_chunked:
                flags.add("chunked")
                end = chunked_body(data, at, body, None)
            else:
                end = plain_body(data, at, length, body)
        finally:
            if body:
                events.append(("body", bytes(body)))
        if end is None:
            return "cut"
        at = end
        events.append(("end",))


def status_line(line: bytes) -> dict:
    # A version that we don't speak is told from a line that is none first.
    if match(VERSION, line[:12])[0][5:6] != b"1":
        raise Failure(505)
    _, minor, status, reason = match(STATUS_LINE, line).groups(b"")
    return {"status": int(status), "minor": int(minor), "reason": reason}


# ---- fields ----

def values(fields: Fields, name: bytes) -> list[bytes]:
    return [value for name_, value in fields if name_.lower() == name]


def elements(fields: Fields, name: bytes) -> list[bytes]:
    """What the lists of all fields of that name hold, in small letters."""
    return [item.lower() for value in values(fields, name) for item in listed(value)]


def listed(value: bytes) -> list[bytes]:
    """The elements of a comma-separated list (RFC 9110 section 5.6.1)."""
    return [item for item in (item.strip(b" \t") for item in value.split(b",")) if item]


def resolved(path: bytes) -> bytes:
    """A path without escapes, empty names and dot segments (RFC 3986 section 5.2.4); "/.." if it leads too far up."""
    if not path.startswith(b"/"):
        return unquote_to_bytes(path)
    every, names = [unquote_to_bytes(name) for name in path.split(b"/")], []
    for name in every:
        if name == b"..":
            if not names:
                return b"/.."
            names.pop()
        elif name not in (b"", b"."):
            names.append(name)
    return b"/" + b"/".join(names) + (b"/" if names and every[-1] in (b"", b".", b"..") else b"")


# ---- conditionals, ranges and dates ----

FAR = 1 << 60                        # past the end of any file all positions are alike
TAG = re.compile(rb'[ \t,]*(W/)?("[^"]*")')
RANGE = re.compile(rb"(?i:bytes)=(.+)", re.DOTALL)
SPAN = re.compile(rb"(\d+)-(\d*)|-(\d+)")
WEIGHT = re.compile(rb"[Qq]=([01])(?:\.(\d*))?(?:[ \t].*)?", re.DOTALL)
MONTHS = [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"]
MONTH, CLOCK = b"(?P<month>%s)" % b"|".join(MONTHS), rb"(?P<h>\d\d):(?P<m>\d\d):(?P<s>\d\d)"
DATES = [re.compile(form, re.DOTALL) for form in (
    rb"..., (?P<day>\d\d) %s (?P<year>\d{4}) %s GMT" % (MONTH, CLOCK),
    rb"[^,]{6,9}, (?P<day>\d\d)-%s-(?P<year>\d\d) %s GMT" % (MONTH, CLOCK),
    rb"... %s (?P<day>[ \d]\d) %s (?P<year>\d{4})" % (MONTH, CLOCK),
)]


def date(text: bytes) -> int:
    """Unix time of an HTTP date (RFC 9110 section 5.6.7), 0 if earlier, -1 if it is none. Any day's name will do."""
    for form in DATES:
        found = form.fullmatch(text)
        if found:
            break
    else:
        return -1
    year, day, h, m, s = (int(found[name]) for name in ("year", "day", "h", "m", "s"))
    if len(found["year"]) == 2:
        year += 2000 if year < 70 else 1900
    try:
        datetime.datetime(year, MONTHS.index(found["month"]) + 1, day, h, m)
    except ValueError:
        return -1
    if s > 60:
        return -1
    return max(calendar.timegm((year, MONTHS.index(found["month"]) + 1, day, h, m, 0)) + s, 0)


def tags(value: bytes) -> list[tuple[bool, bytes]]:
    """(weak, quoted tag) of each entity tag up to the first that is malformed (RFC 9110 section 8.8.3)."""
    found, at = [], 0
    while tag := TAG.match(value, at):
        found.append((bool(tag[1]), tag[2]))
        at = tag.end()
    return found


def precondition(fields: Fields, etag: bytes, mtime: int) -> int:
    """RFC 9110 section 13.2.2 for a GET, in its numbered steps."""
    def matched(name: bytes, weakly: bool) -> bool:
        return any(value == b"*" or any(tag == etag and weak <= weakly for weak, tag in tags(value))
                   for value in values(fields, name))

    def since(name: bytes) -> int:
        dates = values(fields, name)
        return date(dates[0]) if len(dates) == 1 else -1

    if values(fields, b"if-match"):
        if not matched(b"if-match", False):
            return 412
    elif 0 <= since(b"if-unmodified-since") < mtime:
        return 412
    if values(fields, b"if-none-match"):
        return 304 if matched(b"if-none-match", True) else 0
    return 304 if since(b"if-modified-since") >= mtime >= 0 else 0


def selected(fields: Fields, etag: bytes, mtime: int, size: int) -> list[tuple[int, int]] | None:
    """What Range and If-Range select (RFC 9110 sections 13.1.5, 14.1.2, 14.2): [] is all, None is a 416."""
    ranges, conditions = values(fields, b"range"), values(fields, b"if-range")
    found = RANGE.fullmatch(ranges[0]) if len(ranges) == 1 else None
    if not found or size == 0:
        return []
    if conditions:
        condition, strong = conditions[0], not etag.startswith(b"W/")
        same = condition == etag and strong if b'"' in condition[:3] else 0 <= date(condition) == mtime
        if len(conditions) > 1 or not same:
            return []
    spans: list[tuple[int, int]] = []
    items = listed(found[1])
    for item in items:
        if len(spans) == 32:
            return []
        span = SPAN.fullmatch(item)
        if not span:
            return []
        first, last, suffix = (position(digits) for digits in span.groups())
        if suffix is not None:
            first, last = max(size - suffix, 0) if suffix else size, FAR
        elif last is None:
            last = FAR
        elif last < first:
            return []
        if first < size:
            spans.append((first, min(last, size - 1)))
    if items and not spans:
        return None
    wasteful = len(spans) > 1 and sum(last - first + 1 for first, last in spans) > size
    return [] if wasteful else spans


def position(digits: bytes | None) -> int | None:
    if not digits:
        return None
    digits = digits.lstrip(b"0")
    return FAR if len(digits) > 20 else min(int(digits or b"0"), FAR)


def coding(fields: Fields, available: set[str]) -> str:
    """The content coding to choose (RFC 9110 section 12.5.3): the heaviest, then zstd, br, gzip."""
    weights = {}
    for element in elements(fields, b"accept-encoding"):
        name, *parameters = (part.strip(b" \t") for part in element.split(b";"))
        weights[name.removeprefix(b"x-") if name == b"x-gzip" else name] = weight(parameters)
    star = weights.get(b"*")
    best, most = "identity", weights.get(b"identity", star or 0)
    for name in ("gzip", "br", "zstd"):
        its = weights.get(name.encode(), star or 0)
        if name in available and its and its >= most:
            best, most = name, its
    return best


def weight(parameters: list[bytes]) -> int:
    """In thousandths (RFC 9110 section 12.4.2)."""
    for parameter in parameters:
        if parameter[:2].lower() == b"q=":
            found = WEIGHT.fullmatch(parameter)
            thousandths = int(found[1] + (found[2] or b"")[:3].ljust(3, b"0")) if found else 0
            return thousandths if thousandths <= 1000 else 0
    return 1000


# ---- WebSocket frames ----

class Role(NamedTuple):
    limit: int
    client: bool
    deflate: bool


class Head(NamedTuple):
    fin: bool
    compressed: bool
    opcode: int
    mask: bytes
    length: int
    end: int


def ws_events(data: bytes, limit: int = 1 << 20, client: bool = False, deflate: bool = False) -> list[Event]:
    """What WsReader must make of data."""
    role = Role(limit, client, deflate)
    events: list[Event] = []
    at, opcode, compressed, payload = 0, 0, False, b""
    try:
        while head := ws_head(data, at, role, bool(opcode), compressed, len(payload)):
            run = masked(data[head.end:head.end + head.length], head.mask)
            complete = len(run) == head.length
            at = head.end + head.length
            if head.opcode >= CLOSE:
                if not complete:
                    break
                closing = head.opcode == CLOSE
                events.append(close_event(run, close_code(run)) if closing else ("control", head.opcode, run))
                if events[-1][0] == "fail":
                    return events
                continue
            if head.opcode != CONTINUATION:
                opcode, compressed = head.opcode, head.compressed
            payload += run
            fault = utf8_fault(payload) if opcode == TEXT and not compressed else None
            if fault is not None and (fault < len(payload) or (head.fin and complete)):
                raise Failure(1007)
            if not complete:
                break
            if head.fin:
                events.append(("message", opcode, payload))
                opcode, compressed, payload = 0, False, b""
    except Failure as failure:
        return [*events, ("fail", failure.args[0])]
    return [*events, ("partial", opcode, payload)] if opcode else events


def ws_head(data: bytes, at: int, role: Role, inside: bool, compressed: bool, size: int) -> Head | None:
    """A frame's header, None if it is not whole yet; inside a message, compressed or not, of size bytes so far."""
    head = data[at:at + 14]
    if not head:
        return None
    fin, rsv, opcode = bool(head[0] & 0x80), head[0] & 0x70, head[0] & 15
    control = opcode >= CLOSE
    if BINARY < opcode < CLOSE or opcode > PONG or (control and not fin):
        raise Failure(1002)
    if rsv and not (rsv == 0x40 and role.deflate and opcode in (TEXT, BINARY)):
        raise Failure(1002)
    if not control and (opcode == CONTINUATION) != inside:
        raise Failure(1002)
    if len(head) < 2:
        return None
    length = head[1] & 0x7F
    if bool(head[1] & 0x80) == role.client or (control and length > 125):
        raise Failure(1002)
    extended = {126: 2, 127: 8}.get(length, 0)
    end = 2 + extended
    if len(head) < end:
        return None
    if extended:
        length = int.from_bytes(head[2:end], "big")
        if length < (126 if extended == 2 else 65536) or length >> 63:
            raise Failure(1002)
    # What can't be compressed grows: RFC 1951 section 3.2.4 has 5 bytes for each stored block.
    most = role.limit + (role.limit // 1024 + 64 if rsv or compressed else 0)
    if not control and size + length > most:
        raise Failure(1009)
    if role.client:
        return Head(fin, rsv != 0, opcode, bytes(4), length, at + end)
    if len(head) < end + 4:
        return None
    return Head(fin, rsv != 0, opcode, head[end:end + 4], length, at + end + 4)


def close_code(payload: bytes) -> int:
    """The code of a close frame's payload; negated, the code to fail with (RFC 6455 sections 5.5.1, 7.4)."""
    if not payload:
        return 1005
    code = int.from_bytes(payload[:2], "big")
    defined = {*range(1000, 1015)} - {1004, 1005, 1006}
    if len(payload) < 2 or not (code in defined or 3000 <= code < 5000):
        return -1002
    return code if utf8_fault(payload[2:]) is None else -1007


def utf8_fault(data: bytes) -> int | None:
    """Where the first byte stands that can't be right whatever follows; the end, if only the rest is missing.

    The codec reports the longest part of a character that was well so far, as Unicode's chapter 3.9 has it.
    Its incremental decoder takes a surrogate for unfinished, and so finds that fault a byte late.
    """
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start if error.reason == "invalid start byte" else error.end
    return None
