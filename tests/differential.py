"""Sends the same requests to c1m and to nginx and compares what comes back: `apt install nginx`, then

    python tests/differential.py            # differences by kind, and how many there are of each
    python tests/differential.py --all      # every one of them
    python tests/differential.py --markdown # the table that docs/http.md has

Both serve the same files with settings that mean the same. Differences that are meant are listed in DEFENDED,
each with what speaks for c1m's way. The exit status is 1 if there is another, or if a line of DEFENDED is
about nothing.

A request is sent on a connection of its own and a plain GET behind it, so that it can be seen where a server
believes that the request ends. Compared are how many answers come, whether the GET behind is among them, and
of each other answer the status, the fields below and the body.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import email
import os
import re
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import outside
import vectors

import c1m

WAIT = 2                         # seconds that both wait for the rest of a request
SENTINEL = b"GET /sentinel HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
FIELDS = [
    "accept-ranges", "allow", "cache-control", "content-encoding", "content-length", "content-range",
    "content-type", "etag", "last-modified", "location", "transfer-encoding", "vary",
    "x-content-type-options",
]  # fmt: skip
OF_SUCCESS = {"content-length", "content-type"}  # what an error's page looks like is a matter of taste

# ---- what both serve ----

MTIME, DATE = 784111777, "Sun, 06 Nov 1994 08:49:37 GMT"
LATER, EARLIER = "Sun, 06 Nov 1994 08:49:38 GMT", "Sun, 06 Nov 1994 08:49:36 GMT"
FILES = {
    "index.html": "<p>index", "a.txt": "a" * 1000, "empty.txt": "", "large.bin": "l" * 300_000,
    "sentinel": "the sentinel", "page.html": "page " * 50, "page.html.gz": "gz of page",
    "dir/index.html": "dir", "dir/b.txt": "b", "bare/c.txt": "c", "noextension": "n", "a.b.c.css": "c",
    "sp ace.txt": "s", "100%.txt": "%", "plus+.txt": "+", "q?mark.txt": "?", "semi;colon.txt": ";",
    "co:lon.txt": ":", "ümlaut.txt": "ü", "UPPER.TXT": "upper", "~tilde": "~",
    ".hidden": "h", ".git/config": "g", ".well-known/acme": "w", "dir/.secret": "s",
}  # fmt: skip
EXTENSIONS = """
    html htm css js mjs json xml txt md svg png jpg gif webp avif ico woff woff2 ttf otf eot mp4 webm mov mp3
    ogg wav pdf zip gz 7z tar wasm webmanifest map csv doc docx odt rtf bin exe iso xhtml rss atom jar m3u8 ts
    3gp 3gpp ai asf asx avi bmp cco crt deb der dll dmg ear eps flv hqx htc img jad jardiff jng jnlp jpeg kar kml kmz
    m4a m4v mid midi mml mng mpeg mpg msi msm msp odg odp ods pdb pem pl pm ppt pptx prc ps ra rar rpm run sea shtml
    sit svgz swf tcl tif tiff tk war wbmp webm wml wmlc wmv xls xlsx xpi xspf
"""
NGINX = """
daemon off; master_process off; worker_processes 1;
pid {place}/nginx.pid; error_log {place}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off; server_tokens off; sendfile on; max_ranges 32; absolute_redirect off;
    include /etc/nginx/mime.types; default_type application/octet-stream;
    charset utf-8;
    charset_types text/css text/plain text/markdown text/mathml text/vnd.sun.j2me.app-descriptor
        text/vnd.wap.wml text/x-component application/javascript;
    gzip_static on; gzip_vary on; gzip_http_version 1.0;
    large_client_header_buffers 4 8k; client_max_body_size 1m;
    client_header_timeout {wait}s; client_body_timeout {wait}s;
    keepalive_timeout {wait}s; lingering_timeout {wait}s;
    server {{
        listen 127.0.0.1:{port}; root {place}/root; index index.html;
        add_header X-Content-Type-Options nosniff;
        location ~ /\\.(?!well-known(/|$)) {{ return 404; }}
    }}
}}
"""

# ---- requests ----


class Case(NamedTuple):
    name: str
    data: bytes


def get(
    target: str = "/a.txt", *fields: str, method: str = "GET", version: str = "1.1", host: str = "a"
) -> bytes:
    lines = [f"{method} {target} HTTP/{version}", f"Host: {host}", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def cases() -> Iterator[Case]:
    for kind in (framing, targets, methods, ranges, conditions, codings, types, connections, bodies):
        for name, data in kind():
            yield Case(f"{kind.__name__}: {name}", data)


Cases = Iterator[tuple[str, bytes]]
TARGETS = """
    / /? /?a=b /a.txt? /a.txt?a=/../b /dir?a=1
    // //a.txt ///a.txt /dir//b.txt //dir //example.org/..
    /. /./ /./a.txt /.. /../ /../a.txt /dir/.. /dir/../ /dir/../a.txt /dir/../../a.txt /dir/./b.txt /dir/.
    /...
    /%2e/a.txt /%2e%2e/a.txt /dir/%2e%2e/a.txt /%2E%2E/%2E%2E/etc/passwd /..%2f..%2fetc/passwd /..%5c
    /%252e%252e/
    /dir%2fb.txt /dir%5cb.txt /dir\\b.txt /a.txt%00 /%00 /a.txt%20 /a.txt%0a /%61.txt /%25 /% /%2 /%zz /a.txt%
    /%c0%af /%ff /sp+ace.txt /A.TXT /plus+.txt /semi;colon.txt /co:lon.txt /~tilde /a.txt;x=y
    /<> /{} /| /^ /` /" /[] /a.txt#x /ümlaut.txt
    http://a/a.txt http://b/a.txt HTTP://a/a.txt https://a/a.txt http://a http://a?x http://a:80/a.txt
    http://u@a/a.txt http:///a.txt http:/a.txt ftp://a/a.txt a.txt * ?
    /.well-known/ /.well-known /%2egit/config /dir/.secret /.git/ /dir/%2esecret
"""
METHODS = """
    HEAD POST PUT DELETE PATCH OPTIONS TRACE CONNECT
    PROPFIND MKCOL LOCK get Get X GETX G A-B A_B PRI
"""
RANGES = """
    0-0 0-999 0- 999- 1000- -1 -0 -1000 -5000 5-4 5 - a-b 0-0,2-2 0-499,500-999 0-500,400-999 0-,0- 5-6,1-2
    0-0,5000- 5000-,6000- 5000-,0-1 0-0,x 0x1-0x2 +0-1 ,0-1 0-1, --1 0--1
    0-18446744073709551616 18446744073709551616- -18446744073709551616
"""
CODINGS = """
    gzip GZIP x-gzip xgzip gzipx br identity * gzip, ,gzip gzip;a=b gzip;a=b;q=0 identity;q=0 *;q=0
    gzip;q=1 gzip;q=0 gzip;q=0.0 gzip;q=0.5 gzip;q=0.001 gzip;q=1.5 gzip;q=x gzip;q= gzip;q
"""


def framing() -> Cases:
    for row, named in [*vectors.HTTP.items(), ("normal", vectors.HTTP_NORMAL)]:
        for name, (data, _) in named.items():
            yield f"{row}: {name}", data


def targets() -> Cases:
    missing = ["missing", "a.txt/", "a.txt/b", "dir", "dir/", "dir/missing", "bare", "bare/", "bare/missing"]
    for name in [*FILES, *missing]:
        yield f"/{name}", get(f"/{quote(name)}")
        yield f"HEAD /{name}", get(f"/{quote(name)}", method="HEAD")
    yield "HEAD /ümlaut.txt as it is", get("/ümlaut.txt", method="HEAD")
    for target in TARGETS.split():
        yield target, get(target)
    for size in (255, 256, 5000):
        yield f"name of {size}", get("/" + "x" * size)
    yield "2000 deep", get("/" + "x/" * 2000)


def methods() -> Cases:
    for method in [*METHODS.split(), "M" * 40]:
        for target in ("/a.txt", "/", "/missing", "/bare"):
            yield f"{method[:9]} {target}", get(target, method=method)
    yield "OPTIONS *", get("*", method="OPTIONS")
    yield "CONNECT a:80", get("a:80", method="CONNECT")


def ranges() -> Cases:
    for value in [
        *RANGES.split(), "", " 0-1", "0 - 1", "0-1 ", "0-0, 2-2",
        ",".join(["0-0"] * 16), ",".join(["0-0"] * 17), ",".join(f"{i}-{i}" for i in range(0, 32, 2)),
    ]:  # fmt: skip
        yield f"bytes={value[:30]}", get("/a.txt", f"Range: bytes={value}")
    for value in ["bytes", "BYTES=0-1", "lines=0-1", "bytes 0-1", "bytes= 0-1", "bytes =0-1"]:
        yield value, get("/a.txt", f"Range: {value}")
    yield "two fields", get("/a.txt", "Range: bytes=0-1", "Range: bytes=2-3")
    for value in ["0-99", "-100", "0-1,299998-", "300000-"]:
        yield f"large file, {value}", get("/large.bin", f"Range: bytes={value}")
    for value in ("0-", "0-0", "-1", "-0"):
        yield f"empty file, {value}", get("/empty.txt", f"Range: bytes={value}")
    yield "HEAD", get("/a.txt", "Range: bytes=0-1", method="HEAD")
    yield "HEAD, unsatisfiable", get("/a.txt", "Range: bytes=5000-", method="HEAD")
    yield "directory", get("/dir/", "Range: bytes=0-0")
    yield "missing", get("/missing", "Range: bytes=0-0")


def conditions() -> Cases:
    values = {
        "If-Modified-Since": {
            "same": DATE, "later": LATER, "earlier": EARLIER, "RFC 850": "Sunday, 06-Nov-94 08:49:37 GMT",
            "asctime": "Sun Nov  6 08:49:37 1994", "nonsense": "yesterday", "empty": "",
            "future": "Fri, 01 Jan 2100 00:00:00 GMT", "past": "Fri, 31 Dec 1920 00:00:00 GMT",
            "another zone": "Sun, 06 Nov 1994 08:49:37 UTC",
            "no zone": "Sun, 06 Nov 1994 08:49:37", "wrong day": f"Mon{DATE[3:]}",
            "31 February": "Sun, 31 Feb 1994 08:49:37 GMT", "with length": f"{DATE}; length=1000",
        },
        "If-Unmodified-Since": {
            "same": DATE, "later": LATER, "earlier": EARLIER, "past": "Fri, 31 Dec 1920 00:00:00 GMT",
            "nonsense": "yesterday",
        },
        "If-None-Match": {
            "same": "{etag}", "weak": "W/{etag}", "any": "*", "other": '"x"', "list": '"x", {etag}',
            "list without spaces": '"x",{etag}', "unquoted": "x", "empty": "", "junk behind": "{etag}x",
        },
        "If-Match": {
            "same": "{etag}", "weak": "W/{etag}", "any": "*", "other": '"x"', "list": '"x", {etag}',
            "empty": "",
        },
    }  # fmt: skip
    several = {
        "If-None-Match twice": ['If-None-Match: "x"', "If-None-Match: {etag}"],
        "If-Match twice": ['If-Match: "x"', "If-Match: {etag}"],
        "If-Modified-Since twice": [f"If-Modified-Since: {DATE}"] * 2,
        "If-Unmodified-Since twice": [f"If-Unmodified-Since: {EARLIER}"] * 2,
        "INM other, IMS same": ['If-None-Match: "x"', f"If-Modified-Since: {DATE}"],
        "INM same, IMS earlier": ["If-None-Match: {etag}", f"If-Modified-Since: {EARLIER}"],
        "IM same, IUS earlier": ["If-Match: {etag}", f"If-Unmodified-Since: {EARLIER}"],
        "IM other, INM same": ['If-Match: "x"', "If-None-Match: {etag}"],
        "IM same, INM same": ["If-Match: {etag}", "If-None-Match: {etag}"],
        "INM same, range": ["If-None-Match: {etag}", "Range: bytes=0-0"],
        "IM other, range": ['If-Match: "x"', "Range: bytes=0-0"],
        "IM other, range unsatisfiable": ['If-Match: "x"', "Range: bytes=5000-"],
    }
    single = {
        f"{field} {name}": [f"{field}: {value}"]
        for field, named in values.items()
        for name, value in named.items()
    }
    for name, fields in (single | several).items():
        yield name, get("/a.txt", *fields)
        yield f"HEAD, {name}", get("/a.txt", *fields, method="HEAD")
    for name, value in {
        "same": "{etag}", "weak": "W/{etag}", "other": '"x"', "date": DATE, "later": LATER,
        "earlier": EARLIER, "nonsense": "x", "junk behind": "{etag}x", "list": '{etag}, "x"',
    }.items():  # fmt: skip
        yield f"If-Range {name}", get("/a.txt", "Range: bytes=0-0", f"If-Range: {value}")
    yield "If-Range twice", get("/a.txt", "Range: bytes=0-0", *["If-Range: {etag}"] * 2)
    yield "If-Range without Range", get("/a.txt", "If-Range: {etag}")
    yield "If-Match any, missing", get("/missing", "If-Match: *")
    yield "If-None-Match any, missing", get("/missing", "If-None-Match: *")
    yield "If-None-Match any, POST", get("/a.txt", "If-None-Match: *", method="POST")


def codings() -> Cases:
    for value in [
        *CODINGS.split(), "", "gzip ; q=0.5", "gzip; q=0", "gzip, deflate, br, zstd", "deflate, gzip",
        "identity;q=0, gzip", "gzip;q=0.5, identity", "gzip;q=0.5, identity;q=0.6", "*;q=0, gzip",
        "gzip;q=0, *", "br;q=1, gzip;q=0.1", "not-gzip, gzip;q=0",
    ]:  # fmt: skip
        yield value, get("/page.html", f"Accept-Encoding: {value}")
    accepts = "Accept-Encoding: gzip"
    yield "two fields", get("/page.html", "Accept-Encoding: br", accepts)
    yield "HEAD", get("/page.html", accepts, method="HEAD")
    yield "range", get("/page.html", accepts, "Range: bytes=0-1")
    yield "no gzip there", get("/a.txt", accepts)
    yield "304 by date", get("/page.html", accepts, f"If-Modified-Since: {DATE}")
    yield "HTTP/1.0", get("/page.html", accepts, version="1.0")
    yield "no Accept-Encoding", get("/page.html")


def types() -> Cases:
    for ending in EXTENSIONS.split():
        yield ending, get(f"/types/f.{ending}")


def connections() -> Cases:
    for fields in [
        [], ["Connection: close"], ["Connection: keep-alive"], ["Connection: Close"], ["Connection:"],
        ["Connection: close, keep-alive"], ["Connection: x, close"],
        ["Connection: keep-alive", "Connection: close"], ["Connection: upgrade", "Upgrade: h2c"],
        ["Connection: upgrade", "Upgrade: websocket"],
        ["Keep-Alive: 300"], ["Proxy-Connection: close"],
    ]:  # fmt: skip
        for version in ("1.1", "1.0"):
            for target in ("/a.txt", "/missing"):
                yield f"HTTP/{version} {target} {' / '.join(fields)}", get(target, *fields, version=version)


def bodies() -> Cases:
    for name, fields, body in [
        ("none", [], b""),
        ("empty", ["Content-Length: 0"], b""),
        ("5 bytes", ["Content-Length: 5"], b"Hello"),
        ("one byte missing", ["Content-Length: 5"], b"Hell"),
        ("chunked", ["Transfer-Encoding: chunked"], b"5\r\nHello\r\n0\r\n\r\n"),
        ("200 KB", ["Content-Length: 200000"], b"x" * 200_000),
        ("over 1 MiB", ["Content-Length: 1048577"], b"x"),
        ("Expect", ["Expect: 100-continue", "Content-Length: 5"], b"Hello"),
        ("Expect, none", ["Expect: 100-continue"], b""),
        ("another Expect", ["Expect: x", "Content-Length: 5"], b"Hello"),
    ]:
        for method in ("GET", "POST"):
            yield f"{method}, {name}", get("/a.txt", *fields, method=method) + body


# ---- what is meant ----


class Defence(NamedTuple):
    """A difference that is meant: a pattern found in all of str(Difference), and the words of the table."""

    pattern: str
    request: str
    nginx: str
    c1m: str
    why: str


# The first whose pattern is found counts.
DEFENDED = [
    # -- framing --
    Defence(
        r"^framing: (bare LF, bare CR.*: (LF|CR) |empty lines .*: four, and LF)",
        "a line that ends with LF alone, or has a CR elsewhere", "served", "400, closed",
        "Who sees line ends elsewhere sees other requests: smuggling. RFC 9112 §2.2 forbids to take a bare "
        "CR and only permits to take a bare LF",
    ),
    Defence(
        r"^framing: bare LF, bare CR.*: (BEL|DEL|control)",
        "a control character in a field's value", "served", "400, closed",
        "No value has one, by RFC 9110 §5.5; what one recipient cuts off there another may not",
    ),
    Defence(
        r"^framing: empty lines .*: five",
        "a fifth empty line before a request", "served", "400, closed",
        "RFC 9112 §2.2 asks to pass over one at least; a connection is not for sending nothing",
    ),
    Defence(
        r"^framing: two spaces.*: (two spaces|trailing)",
        "two spaces in the request line, or one behind it", "served", "400, closed",
        "RFC 9112 §3 has single spaces, and warns that leniency lets recipients disagree on what was asked "
        "for",
    ),
    Defence(
        r"^framing: two spaces.*: no version",
        "`GET /` without a version (HTTP/0.9)", "the file without a head", "400, closed",
        "RFC 9112 has no such answer: it would let a file's contents pass for an answer's head",
    ),
    Defence(
        r"^framing: two spaces.*: version of two digits",
        "`HTTP/1.10`", "served", "400, closed",
        "A version is one digit, a dot, one digit: RFC 9112 §2.3",
    ),
    Defence(
        r"^framing: target not visible ASCII|ümlaut|#x",
        "a fragment (`#x`) or bytes that are not ASCII in the target", "served", "400, closed",
        "RFC 9112 §3.2 has neither in a target and asks for 400; proxies differ in what they make of them",
    ),
    Defence(
        r"^framing: %-escape of a slash|%2f",
        "`%2F` in the path", "taken for a slash", "400, closed, unless the root has `escaped_slashes`",
        "RFC 3986 §2.2: it is not the same as a slash, so a proxy's rules for paths do not see it as one",
    ),
    Defence(
        r"another scheme|ftp:",
        "`ftp://…` as the target", "served", "400, closed",
        "It names what no HTTP server is asked for: RFC 9110 §7.4",
    ),
    Defence(
        r"^framing: HTTP/0\.x.*: (0\.9|preface)",
        "`HTTP/0.9`, the HTTP/2 preface", "400", "505, closed",
        "It is the version that is not supported: RFC 9110 §15.6.6",
    ),
    Defence(
        r"^framing: space before the colon",
        "a field line without a colon, or whose name is no token", "skipped", "400, closed",
        "RFC 9112 §5: it is no field line. What one recipient skips another may take for Transfer-Encoding",
    ),
    Defence(
        r"^framing: request line over 8 KiB: exactly",
        "a request line of exactly 8 KiB", "414", "served",
        "The same limit, which nginx holds against the line with its CRLF; RFC 9112 §3 asks for 8000 bytes "
        "at least",
    ),
    Defence(
        r"^framing: request line over 8 KiB: (not whole|malformed)",
        "a request line too long that never ends, or is malformed", "400", "414, closed",
        "What is certain is that it is too long: RFC 9110 §15.5.15",
    ),
    Defence(
        r"^framing: fields over 16 KiB or 100: (a byte|one) more",
        "over 16 KiB or 100 lines of fields", "served up to 32 KiB", "431, closed",
        "RFC 6585 §5; browsers stay far below, and a client's memory has a bound",
    ),
    Defence(
        r"^framing: fields over 16 KiB or 100: in one line",
        "a field line too long that never ends", "400", "431, closed",
        "It says what is wrong: RFC 6585 §5",
    ),
    Defence(
        r"^framing: Host .*: empty",
        "`Host:` without a value", "400", "served",
        "Valid, and right where the target has no authority: RFC 9112 §3.2",
    ),
    Defence(
        r"^framing: Host ",
        "a Host with a user, two ports, a port that is no number, a port alone, a malformed escape, anything "
        "but an IP address in brackets, odd bytes",
        "served", "400, closed",
        "RFC 9112 §3.2: 400 MUST be the answer to an invalid one; RFC 3986 §3.2.2 says what is valid",
    ),
    Defence(
        r"^framing: Content-Length .*: 19 digits",
        "a Content-Length of 19 digits", "read, zeros in front", "400, closed",
        "RFC 9110 §8.6 warns of overflow; 18 digits are safe in any recipient's 64 bits",
    ),
    Defence(
        r"^framing: Transfer-Encoding not.*: 501 closed -> 400",
        "a Transfer-Encoding that does not end with `chunked`", "501", "400, closed",
        "RFC 9112 §6.3: where the body ends can't be told, and 400 MUST be the answer",
    ),
    Defence(
        r"^framing: Transfer-Encoding not.*: 501 closed -> 200",
        "`Transfer-Encoding: , Chunked ,`", "501", "served",
        "RFC 9110 §5.6.1: empty elements of a list MUST be passed over",
    ),
    Defence(
        r"^framing: (chunk|bare LF or CR in chunk|Transfer-Encoding not).*: 400 closed -> 200 closed$",
        "GET with a chunked body that breaks off, is malformed or too large", "400", "served, closed",
        "No file depends on a body, so no answer waits for one; nothing behind the break is read as a "
        "request (RFC 9112 §6.3)",
    ),
    Defence(
        r"^framing: (bare LF or CR in chunk|chunk size .* blanks|trailers).*: 200 next -> 200 closed$",
        "LF alone in chunked framing, blanks behind a chunk's size, malformed trailers",
        "skipped, next request served", "served, closed",
        "RFC 9112 §7.1: chunked framing has CRLF only, trailers are field lines; leniency here is a known "
        "way to smuggle",
    ),
    # -- bodies --
    Defence(
        r"^framing: Expect with.*: 400 closed -> ",
        "Expect in two fields", "400", "read as one list",
        "RFC 9110 §5.3: it is the same",
    ),
    Defence(
        r"^(framing: Expect with|bodies: .*another Expect)",
        "`Expect:` with anything but `100-continue`", "passed over", "417",
        "The expectation can't be met: RFC 9110 §10.1.1",
    ),
    Defence(
        r"^bodies: .*, Expect: answers: (200|405) next -> \1 closed$",
        "`Expect: 100-continue` with a body to come", "kept open", "answered without 100, closed",
        "RFC 9110 §10.1.1: the client may now send the body or not, so what comes next can't be told from it",
    ),
    # -- targets --
    Defence(
        r"^(targets: |framing: normal: a path above the root).*: 400 closed -> 404 next$",
        "`/../` above the root, also as `%2e`", "400, closed", "404",
        "The request is well-formed, and names nothing: RFC 3986 §5.2.4",
    ),
    Defence(
        r": location: /(?:[^?]*/)?([^/?]+/(?:\?.*)?) -> \1$",
        "a directory without its slash", "Location with the whole path", "its last name alone",
        "It is relative to what was asked for (RFC 9110 §10.2.2), so a prefix that a proxy has taken off stays",
    ),
    Defence(
        r"^targets: .*: 403 next -> 404 next$",
        "a directory without an index", "403", "404",
        "RFC 9110 §15.5.4 allows it; it does not tell what is there",
    ),
    # -- methods --
    Defence(
        r"-> (404 404 )?204 next$",
        "OPTIONS, of a path or of `*`", "405, 400", "204 with Allow",
        "RFC 9110 §9.3.7",
    ),
    Defence(
        r"^methods: CONNECT a:80|^framing: authority-form: CONNECT(:| to) ",
        "`CONNECT a:80`", "400", "405 with Allow",
        "Well-formed (RFC 9112 §3.2.3), but no method here: RFC 9110 §15.5.6",
    ),
    Defence(
        r"^methods: CONNECT /|^framing: authority-form: CONNECT with",
        "CONNECT with a path or URI", "405", "400, closed",
        "RFC 9112 §3.2.3: its target has to be a host and port",
    ),
    Defence(
        r": allow: none -> GET, HEAD, OPTIONS$",
        "405", "without Allow", "with Allow",
        "RFC 9110 §15.5.6: it MUST be there",
    ),
    Defence(
        r"^methods: POST /|^framing: normal: a body",
        "POST where nothing is", "404, 301", "405",
        "The method is refused whatever the path: RFC 9110 §15.5.6",
    ),
    Defence(
        r"^methods: TRACE .*next$|^framing: normal: the methods",
        "TRACE", "405, closed", "405, kept open",
        "The framing is sound: RFC 9112 §9.3",
    ),
    Defence(
        r": answers: ([0-9]+ )*(400 closed|405 next|405 closed) -> (200 |405 )?501 (next|closed)$",
        "an unknown method; `get` is one", "405, or 400 for small letters, `-` and digits", "501",
        "RFC 9110 §9.1: 501 where the method is not recognised, 405 where it is and may not be used; case "
        "counts",
    ),
    # -- ranges --
    Defence(
        r"^ranges: bytes=(,0-1|0-1,): ",
        "`bytes=,0-1`", "416", "206",
        "RFC 9110 §5.6.1: empty elements of a list MUST be passed over",
    ),
    Defence(
        r"^ranges: bytes=(0|)-18446744073709551616: ",
        "a range to 2⁶⁴", "416", "206",
        "RFC 9110 §14.1.2: an end beyond the file's means the file's",
    ),
    Defence(
        r"^ranges: (bytes=.*: (416|206) next -> 200 next$|two fields)",
        "a malformed Range, spaces within, two of them", "416; the first", "200, whole",
        "RFC 9110 §14.2: an invalid one may be ignored, and the client has all that it wanted",
    ),
    Defence(
        r"^ranges: HEAD",
        "HEAD with Range", "206, 416", "200",
        "RFC 9110 §14.2: Range MUST be ignored but with GET",
    ),
    # -- conditions --
    Defence(
        r"^conditions: .*If-Modified-Since (later|future)",
        "If-Modified-Since later than the file", "200", "304",
        "RFC 9110 §13.1.3: not modified since",
    ),
    Defence(
        r"^conditions: .*(If-Modified-Since (another|no|with|twice)|If-Unmodified-Since (nonsense|twice))",
        "If-(Un)modified-Since that is no date by RFC 9110 §5.6.7, or two of them", "guessed; 412; 400",
        "ignored",
        "RFC 9110 §13.1.3, §13.1.4: it MUST be",
    ),
    Defence(
        r"^conditions: .*INM same, IMS earlier",
        "If-None-Match fits, If-Modified-Since does not", "200", "304",
        "RFC 9110 §13.1.3: If-Modified-Since MUST be ignored beside If-None-Match",
    ),
    Defence(
        r"^conditions: .*IM same, IUS earlier",
        "If-Match fits, If-Unmodified-Since does not", "412", "200",
        "RFC 9110 §13.1.4: If-Unmodified-Since MUST be ignored beside If-Match",
    ),
    Defence(
        r"^conditions: .*If-(None-)?Match twice",
        "If-Match or If-None-Match in two fields", "400", "read as one list",
        "RFC 9110 §5.3: it is the same",
    ),
    Defence(
        r"^conditions: If-Range twice",
        "If-Range in two fields", "400", "200, whole",
        "It is no list, so neither holds, and the client has all that it wanted: RFC 9110 §13.1.5",
    ),
    Defence(
        r"^conditions: .*If-None-Match junk",
        '`If-None-Match: "tag"x`', "200", "304",
        "The client has that tag, whatever comes behind (RFC 9110 §13.1.2)",
    ),
    Defence(
        r": 412 closed -> 412 next$",
        "412", "closed", "kept open",
        "The framing is sound: RFC 9112 §9.3",
    ),
    # -- encodings and types --
    Defence(
        r"^codings: x-gzip: [^a]",
        "`Accept-Encoding: x-gzip`", "identity", "gzip",
        "RFC 9110 §8.4.1.3: the same as gzip",
    ),
    Defence(
        r"^codings: \*: [^a]",
        "`Accept-Encoding: *`", "identity", "gzip",
        "RFC 9110 §12.5.3: any coding that is not named",
    ),
    Defence(
        r"^codings: gzip;(a=b|q): [^a]",
        "`gzip;a=b`, `gzip;q`", "identity", "gzip",
        "gzip is named, and no weight speaks against it: RFC 9110 §12.4.2",
    ),
    Defence(
        r"^codings: gzip;q=0.5, identity(;q=0.6)?: ",
        "`gzip;q=0.5, identity`", "gzip", "identity",
        "RFC 9110 §12.4.2: the greater weight is preferred",
    ),
    Defence(
        r"^codings: two fields: [^a]",
        "Accept-Encoding in two fields", "the first", "read as one list",
        "RFC 9110 §5.3: it is the same",
    ),
    Defence(
        r"^codings: range: ",
        "Range, and there is a sidecar", "200, the whole sidecar", "206, of the file",
        "Programs that read by ranges accept gzip by default, and none can decode a piece of it: RFC 9110 §14.2 leaves "
        "it to the server which form is selected",
    ),
    Defence(
        r"^codings: 304 by date: content-encoding: none -> gzip",
        "304 for a sidecar", "without Content-Encoding", "with",
        "RFC 9110 §15.4.5 lets a 304 have what guides a cache: it says which of the stored answers is meant",
    ),
    Defence(
        r": vary: none -> Accept-Encoding$",
        "a file without sidecars", "without Vary", "with `Vary: Accept-Encoding`",
        "One may come: RFC 9110 §12.5.5 has a cache told what the answer was chosen by, and each answer says "
        "the same",
    ),
    Defence(
        r"^types: m?js: ",
        "`.js`, `.mjs`", "application/javascript, application/octet-stream", "text/javascript",
        "RFC 9239 §6; modules run with a JavaScript type only",
    ),
    Defence(
        r"content-type: application/octet-stream -> ",
        "`.md` `.ttf` `.otf` `.wav` `.gz` `.tar` `.webmanifest` `.map` `.csv`", "application/octet-stream",
        "its type",
        "RFC 9110 §8.3: it says what it is, so that browsers show or use it",
    ),
    Defence(
        r"^types: (bmp|ico|m4[av]|mml|pdb|prc|rar): ",
        "`.bmp` `.ico` `.m4a` `.m4v` `.mml` `.pdb` `.prc` `.rar`", "image/x-icon and the like",
        "image/vnd.microsoft.icon and so on",
        "The type that is registered (RFC 6838 §3.4: no `x-`)",
    ),
    Defence(
        r"^types: svgz: ",
        "`.svgz`", "image/svg+xml", "application/octet-stream",
        "It is compressed, which no field says: no browser shows it. `name.svg.gz` beside `name.svg` does that",
    ),
    # -- fields --
    Defence(
        r": accept-ranges: none -> bytes$",
        "206 and 304", "without Accept-Ranges", "with",
        "RFC 9110 §14.3: true of each answer for the file",
    ),
    Defence(
        r": cache-control: none -> no-cache$",
        "301", "without Cache-Control", "with `Cache-Control: no-cache`",
        "RFC 9111 §4.2.2: browsers keep one for good; where a file has come in place of a directory it would be wrong",
    ),
    Defence(
        r": x-content-type-options: nosniff -> none$",
        "301 and 416", "with the fields set for files", "without",
        "They are of files: the body is c1m's own line of text (RFC 9110 §15.4, §15.5.17 ask for none)",
    ),
]  # fmt: skip


# ---- answers ----


class Answer(NamedTuple):
    status: int
    fields: dict[str, str]
    body: bytes


class Difference(NamedTuple):
    case: str
    what: str                    # "answers", a field's name or "body"
    nginx: str
    c1m: str

    def __str__(self) -> str:
        return f"{self.case}: {self.what}: {self.nginx} -> {self.c1m}"


def exchanged(port: int, data: bytes) -> bytes:
    """Everything that comes back until the server closes."""
    parts = []
    # A reset may come once the server has said what it had to: what came before it counts.
    with socket.create_connection(("127.0.0.1", port)) as s, contextlib.suppress(ConnectionError):
        s.settimeout(30)
        s.sendall(data)
        while part := s.recv(1 << 20):
            parts.append(part)
    return b"".join(parts)


def answers(data: bytes, to_head: bool) -> list[Answer]:
    """The answers in a stream, the first perhaps to HEAD; what is none has status 0. 100s do not count."""
    found: list[Answer] = []
    while data:
        top, end, rest = data.partition(b"\r\n\r\n")
        if not end or not top.startswith(b"HTTP/1."):
            return [*found, Answer(0, {}, data)]
        line, *lines = top.decode("latin-1").split("\r\n")
        status = int(line.split(" ")[1])
        fields: dict[str, str] = {}
        for field in lines:
            name, _, value = field.partition(":")
            name = name.lower()
            fields[name] = f"{fields[name]}, {value.strip()}" if name in fields else value.strip()
        if status == 100:
            data = rest
            continue
        bodiless = (to_head and not found) or status in (204, 304)
        size = 0 if bodiless else int(fields.get("content-length", len(rest)))
        found.append(Answer(status, fields, rest[:size]))
        data = rest[size:]
    return found


def parts_of(answer: Answer) -> list[tuple[str | None, str | None, bytes]]:
    """A multipart answer's parts without its boundary, which is each server's own."""
    head = f"Content-Type: {answer.fields['content-type']}\r\n\r\n"
    message = email.message_from_bytes(head.encode() + answer.body)
    parts = message.get_payload()
    return [(part["Content-Type"], part["Content-Range"], part.get_payload(decode=True)) for part in parts]


def compared(answer: Answer) -> dict[str, str]:
    """What is compared of an answer, by what it is."""
    said = {}
    multipart = answer.fields.get("content-type", "").startswith("multipart/")
    for name in FIELDS:
        value = answer.fields.get(name, "none")
        if name == "etag" and value != "none":
            value = "weak" if value.startswith("W/") else "strong"
        if multipart and name in OF_SUCCESS:
            value = "multipart"
        if name not in OF_SUCCESS or answer.status < 300:
            said[name] = value
    if answer.status < 300:
        said["body"] = str(parts_of(answer)) if multipart else repr(answer.body[:50])
    return said


def differences(case: Case, ports: tuple[int, int], etags: tuple[str, str]) -> list[Difference]:
    to_head = case.data.startswith(b"HEAD ")
    found, outcomes = [], []
    for port, etag in zip(ports, etags, strict=True):
        data = case.data.replace(b"{etag}", etag.encode()) + SENTINEL
        every = answers(exchanged(port, data), to_head)
        found.append([a for a in every if b"the sentinel" not in a.body])
        end = "closed" if len(found[-1]) == len(every) else "next"
        outcomes.append(" ".join([*(str(a.status) for a in found[-1]), end]))
    unlike = [Difference(case.name, "answers", *outcomes)] if outcomes[0] != outcomes[1] else []
    if [a.status for a in found[0]] != [a.status for a in found[1]]:
        return unlike
    for one, two in zip(*found, strict=True):
        a, b = compared(one), compared(two)
        unlike += [Difference(case.name, what, a[what], b[what]) for what in a if a[what] != b[what]]
    return unlike


# ---- servers ----


@contextlib.contextmanager
def servers() -> Iterator[tuple[int, int]]:
    """nginx and c1m on the same files: their ports."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        files = FILES | {f"types/f.{ending}": "x" for ending in EXTENSIONS.split()}
        for file, text in files.items():
            path = place / "root" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            os.utime(path, (MTIME, MTIME))
        port = outside.free_port()
        with (
            outside.nginx(place, NGINX.format(place=place, port=port, wait=WAIT), port),
            c1m.Server(place / "root", ports=0, head_timeout=WAIT, keep_alive_timeout=WAIT) as server,
        ):
            yield port, server.ports[0]


def main() -> int:
    parser = argparse.ArgumentParser(description="Compares c1m's answers with nginx's.")
    parser.add_argument("--all", action="store_true", help="print every difference, meant or not")
    parser.add_argument("--markdown", action="store_true", help="print the table of those that are meant")
    options = parser.parse_args()
    if options.markdown:
        print("| request | nginx | c1m | why |\n|---|---|---|---|")
        for d in DEFENDED:
            print(f"| {d.request} | {d.nginx} | {d.c1m} | {d.why} |")
        return 0
    every = list(cases())
    with servers() as ports, concurrent.futures.ThreadPoolExecutor(32) as pool:
        known = get("/a.txt", "Connection: close")
        etags = tuple(answers(exchanged(port, known), False)[0].fields["etag"] for port in ports)
        found = [d for ds in pool.map(lambda case: differences(case, ports, etags), every) for d in ds]
    groups: dict[Defence | None, list[Difference]] = {defence: [] for defence in [*DEFENDED, None]}
    for difference in found:
        groups[next((d for d in DEFENDED if re.search(d.pattern, str(difference))), None)].append(difference)
    new, idle = groups.pop(None), [defence for defence in DEFENDED if not groups[defence]]
    for defence, ones in groups.items():
        print(f"{len(ones):4}  {defence.request}: {defence.nginx} -> {defence.c1m}")
        if options.all:
            print("".join(f"          {difference}\n" for difference in ones), end="")
    print("".join(f"NEW   {difference}\n" for difference in new), end="")
    print("".join(f"NOT SEEN   {defence.request}\n" for defence in idle), end="")
    print(f"{len(every)} requests, {len(found)} differences, {len(new)} of them not meant")
    return 1 if new or idle else 0


if __name__ == "__main__":
    sys.exit(main())
