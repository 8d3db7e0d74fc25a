"""Files over HTTP, on real sockets."""

import asyncio
import contextlib
import email.utils
import errno
import os
import random
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from types import SimpleNamespace

import aiohttp
import pytest
from client import PATIENCE, SANITIZED, Http, get, memory, request, until
from hypothesis import example, given, settings
from hypothesis import strategies as st

import c1m
from c1m.listeners import CHOICES, tcp_listeners

CANARY = b"this is nobody's to read"
SIZES = {
    "index.html": 300, "a.txt": 10, "empty.txt": 0, "one.bin": 1, "4096.bin": 4096, "4097.bin": 4097,
    "32k.bin": 32 << 10, "over32k.bin": (32 << 10) + 1, "3m.bin": 3 << 20,
    "dir/index.html": 30, "dir/sub/b.css": 40, "noindex/c.js": 50, ".hidden": 60,
    "sp ace.txt": 70, "100%.txt": 71, "ümlaut.txt": 72, "data.json": 73, "image.svg": 74, "noextension": 75,
}
MTIME = 1700000000               # Tue, 14 Nov 2023 22:13:20 GMT
MTIME_TEXT = "Tue, 14 Nov 2023 22:13:20 GMT"


def bytes_of(name, size):
    return random.Random(name).randbytes(size)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A server and its files."""
    top = tmp_path_factory.mktemp("http")
    root = top / "root"
    files = {name: bytes_of(name, size) for name, size in SIZES.items()}
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
        os.utime(root / name, (MTIME, MTIME))
    (root / "evil.com").mkdir()
    (root / "http:").mkdir()
    (top / "canary.txt").write_bytes(CANARY)
    (root / "out").symlink_to("../canary.txt")
    (root / "outside").symlink_to("..")
    server = c1m.Server(root, ports=[0], unix=top / "socket")
    with server:
        [port] = server.ports
        yield SimpleNamespace(server=server, root=root, files=files, port=port, unix=top / "socket")


@pytest.fixture
def http(site):
    with Http(site.port) as made:
        yield made


# ---- answers ----


@pytest.mark.parametrize("name", [name for name in SIZES if not name.startswith(".")])
def test_200(site, http, name):
    for _ in ("read", "remembered"):
        answer = http.get("/" + urllib.request.quote(name))
        assert answer.status == 200
        assert answer.reason == "OK"
        assert answer.body == site.files[name]
        assert answer["Content-Length"] == str(len(site.files[name]))
        assert answer["Last-Modified"] == MTIME_TEXT
        assert answer["Accept-Ranges"] == "bytes"
        assert answer["ETag"].startswith('"')
        assert "Connection" not in answer
    assert http.silent()


@pytest.mark.parametrize(("target", "fields"), [
    ("/a.txt", []),
    ("/empty.txt", []),
    ("/32k.bin", []),
    ("/3m.bin", []),
    ("/dir/", []),
    ("/dir?q", []),
    ("/missing", []),
    ("/a.txt", ["If-None-Match: *"]),
    ("/a.txt", ["If-Match: \"other\""]),
    ("/a.txt", ["Connection: close"]),
    ("/a.txt", ["Expect: the-unexpected"]),
])
def test_the_head_of_a_head_is_that_of_a_get_but_for_the_date(site, target, fields):
    def heads(method):
        answer = get(site.port, target, *fields, method=method)
        return answer.status, [field for field in answer.fields if field[0] != "Date"]

    assert heads("HEAD") == heads("GET")


def test_a_head_has_no_body(site, http):
    for target in ("/a.txt", "/3m.bin", "/missing", "/dir", "/a.txt"):
        http.get(target, method="HEAD")
        assert http.silent()
    assert http.get("/a.txt").body == site.files["a.txt"]


def test_range_is_for_get_alone(http):
    answer = http.get("/a.txt", "Range: bytes=0-0", method="HEAD")
    assert (answer.status, answer["Content-Length"]) == (200, "10")


@pytest.mark.parametrize(("name", "expected"), [
    ("index.html", "text/html; charset=utf-8"),
    ("a.txt", "text/plain; charset=utf-8"),
    ("dir/sub/b.css", "text/css; charset=utf-8"),
    ("noindex/c.js", "text/javascript; charset=utf-8"),
    ("data.json", "application/json"),
    ("image.svg", "image/svg+xml"),
    ("noextension", "application/octet-stream"),
    ("dir/", "text/html; charset=utf-8"),
])
def test_content_type(http, name, expected):
    assert http.get(f"/{name}")["Content-Type"] == expected


def test_an_error_is_plain_text(http):
    answer = http.get("/missing")
    assert answer["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.body == b"404 Not Found\n"


def test_the_date_is_right_and_does_not_stand_still(http):
    def date():
        now = int(time.time())
        given = email.utils.parsedate_to_datetime(http.get("/a.txt")["Date"]).timestamp()
        assert now - 1 <= given <= time.time() + 1
        return given

    first = date()
    until(lambda: date() > first, "another date")


@pytest.mark.parametrize("mtime", [2, 10**11, 253402300800, 10**15])
def test_last_modified_is_a_date_and_none_to_come(tmp_path, mtime):
    # RFC 9110 section 8.8.2.1: not later than the message itself
    (tmp_path / "a.txt").write_text("a")
    try:
        os.utime(tmp_path / "a.txt", (mtime, mtime))
    except OSError:
        pytest.skip("this file system cannot store such a time")
    with c1m.Server(tmp_path, ports=[0]) as server:
        answer = get(server.ports[0], "/a.txt")
        modified = email.utils.parsedate_to_datetime(answer["Last-Modified"])
        assert modified.timestamp() >= 0
        assert modified <= email.utils.parsedate_to_datetime(answer["Date"])
        again = get(server.ports[0], "/a.txt", f"If-None-Match: {answer['ETag']}")
        assert again.status == 304
        assert again["Last-Modified"] == answer["Last-Modified"]


@pytest.mark.parametrize("mtime", [0, 1, -1, -10**9])
def test_rfc9110_8_8_2_a_time_that_says_nothing_is_not_told(tmp_path, mtime):
    for name, size in (("small", 4), ("large", 200_000)):
        (tmp_path / name).write_bytes(b"a" * size)
        try:
            os.utime(tmp_path / name, (mtime, mtime))
        except OSError:
            pytest.skip("this file system cannot store such a time")
    with c1m.Server(tmp_path, ports=[0]) as server, Http(server.ports[0]) as http:
        for name in ("small", "large"):
            answer = http.get(f"/{name}")
            assert "Last-Modified" not in answer
            for date in ("Thu, 01 Jan 1970 00:00:01 GMT", MTIME_TEXT):
                # sections 13.1.3 and 13.1.4: to be ignored where there is no date
                assert http.get(f"/{name}", f"If-Modified-Since: {date}").status == 200
                assert http.get(f"/{name}", f"If-Unmodified-Since: {date}").status == 200
                assert http.get(f"/{name}", f"If-Range: {date}", "Range: bytes=0-0").status == 200
            assert http.get(f"/{name}", f"If-None-Match: {answer['ETag']}").status == 304
            assert http.get(f"/{name}", f"If-Range: {answer['ETag']}", "Range: bytes=0-0").status == 206
        (tmp_path / "small").write_bytes(b"b" * 4)
        os.utime(tmp_path / "small", (mtime, mtime))
        changed = until(lambda: (got := http.get("/small", "If-Modified-Since: " + MTIME_TEXT)).body == b"bbbb" and got,
                        "the change")
        assert changed.status == 200


# ---- ranges (RFC 9110 section 14) ----


@pytest.mark.parametrize(("asked", "first", "last"), [
    ("0-0", 0, 0),
    ("0-9", 0, 9),
    ("5-", 5, None),
    ("-5", -5, None),
    ("-999999999", 0, None),
    ("100-99999999999999999999", 100, None),
    ("31-4127", 31, 4127),
])
@pytest.mark.parametrize("name", ["4097.bin", "32k.bin", "3m.bin"])
def test_206(site, http, name, asked, first, last):
    whole = site.files[name]
    answer = http.get(f"/{name}", f"Range: bytes={asked}")
    assert answer.status == 206
    assert answer.reason == "Partial Content"
    assert answer.body == whole[first:last if last is None else last + 1]
    at = first % len(whole)
    assert answer["Content-Range"] == f"bytes {at}-{at + len(answer.body) - 1}/{len(whole)}"
    assert answer["Last-Modified"] == MTIME_TEXT
    assert answer["ETag"] == http.get(f"/{name}", method="HEAD")["ETag"]


@pytest.mark.parametrize("asked", ["10-", "10-20", "99999999999999999999-", "-0"])
def test_416(http, asked):
    answer = http.get("/a.txt", f"Range: bytes={asked}")
    assert answer.status == 416
    assert answer["Content-Range"] == "bytes */10"
    assert http.get("/a.txt").status == 200


@pytest.mark.parametrize("asked", ["0-", "-1", "0-0", "5-", "0-,0-0"])
def test_a_range_of_an_empty_file_is_all_of_it(http, asked):
    # ffmpeg, mpv and axel always begin so; RFC 9110 section 14.2 lets Range be ignored
    answer = http.get("/empty.txt", f"Range: bytes={asked}")
    assert (answer.status, answer["Content-Length"]) == (200, "0")
    assert http.get("/a.txt").status == 200


@pytest.mark.parametrize("value", [
    "bytes", "bytes=", "bytes=-", "bytes=5", "bytes=5-4", "bytes=a-b", "bytes=0x1-2", "bytes=1--2",
    "bytes 0-1", "lines=1-2",
])
def test_a_range_that_makes_no_sense_is_ignored(site, http, value):
    answer = http.get("/a.txt", f"Range: {value}")
    assert (answer.status, answer.body) == (200, site.files["a.txt"])


def validators(http, name="a.txt"):
    answer = http.get(f"/{name}")
    return {"etag": answer["ETag"], "weak": "W/" + answer["ETag"], "date": answer["Last-Modified"]}


@pytest.mark.parametrize(("condition", "status"), [
    ("{etag}", 206),
    ("{date}", 206),
    ("{weak}", 200),             # only a strong comparison will do
    ('"other"', 200),
    ("Tue, 14 Nov 2023 22:13:21 GMT", 200),
    ("Tue, 14 Nov 2023 22:13:19 GMT", 200),
    ("nonsense", 200),
])
def test_if_range(http, condition, status):
    value = condition.format(**validators(http))
    assert http.get("/a.txt", "Range: bytes=0-0", f"If-Range: {value}").status == status
    unsatisfiable = http.get("/a.txt", "Range: bytes=99-", f"If-Range: {value}").status
    assert unsatisfiable == (416 if status == 206 else 200)


# ---- conditions (RFC 9110 section 13) ----

EARLIER, LATER = "Tue, 14 Nov 2023 22:13:19 GMT", "Tue, 14 Nov 2023 22:13:21 GMT"


@pytest.mark.parametrize(("fields", "status"), [
    (["If-None-Match: {etag}"], 304),
    (["If-None-Match: {weak}"], 304),
    (["If-None-Match: *"], 304),
    (['If-None-Match: "other", {etag}'], 304),
    (['If-None-Match: "other"', "If-None-Match: {etag}"], 304),
    (['If-None-Match: "other"'], 200),
    (["If-Modified-Since: {date}"], 304),
    (["If-Modified-Since: " + LATER], 304),
    (["If-Modified-Since: " + EARLIER], 200),
    (["If-Modified-Since: Tuesday, 14-Nov-23 22:13:20 GMT"], 304),
    (["If-Modified-Since: Tue Nov 14 22:13:20 2023"], 304),
    (["If-Modified-Since: yesterday"], 200),
    (['If-None-Match: "other"', "If-Modified-Since: {date}"], 200),      # the ETag has the say
    (["If-None-Match: {etag}", "If-Modified-Since: " + EARLIER], 304),
    (["If-Match: {etag}"], 200),
    (["If-Match: *"], 200),
    (["If-Match: {weak}"], 412),
    (['If-Match: "other"'], 412),
    (["If-Unmodified-Since: {date}"], 200),
    (["If-Unmodified-Since: " + EARLIER], 412),
    (["If-Match: {etag}", "If-Unmodified-Since: " + EARLIER], 200),
    (['If-Match: "other"', "If-None-Match: {etag}"], 412),
    (["If-Match: {etag}", "If-None-Match: {etag}"], 304),
    (["If-None-Match: {etag}", "Range: bytes=0-0"], 304),
    (["If-Match: {etag}", "Range: bytes=0-0"], 206),
    (['If-Match: "other"', "Range: bytes=99-"], 412),
])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_condition(http, fields, status, method):
    known = validators(http)
    answer = http.get("/a.txt", *(field.format(**known) for field in fields), method=method)
    assert answer.status == (200 if (method, status) == ("HEAD", 206) else status)
    if status == 304:
        assert answer.body == b""
        assert answer["ETag"] == known["etag"]
        assert answer["Last-Modified"] == MTIME_TEXT
        assert "Date" in answer
        assert "Content-Length" not in answer
    assert http.get("/a.txt").status == 200


# ---- directories, and where a path may lead ----


@pytest.mark.parametrize(("target", "location"), [
    ("/dir", "dir/"),
    ("/dir?", "dir/"),
    ("/dir?a=1&b=%20/?", "dir/?a=1&b=%20/?"),
    ("/dir?//evil.com:80/x", "dir/?//evil.com:80/x"),
    ("/dir/sub", "sub/"),
    ("/%64ir", "%64ir/"),
    ("//dir", "dir/"),
    ("/dir//sub", "sub/"),
    ("//evil.com", "evil.com/"),
    ("///evil.com", "evil.com/"),
    ("//evil.com?//evil.com", "evil.com/?//evil.com"),
    ("http://evil.com/dir", "dir/"),
    ("http://evil.com//evil.com", "evil.com/"),
    ("/http:", "./http:/"),                  # RFC 3986 section 4.2: "http:/" would be another scheme
    ("/http%3a", "http%3a/"),
    ("/http:?a:b", "./http:/?a:b"),
])
def test_rfc9110_10_2_2_301_is_relative_to_the_path_that_was_asked_for(http, target, location):
    answer = http.get(target)
    assert answer.status == 301
    assert answer["Location"] == location
    url = urllib.parse.urljoin(f"http://test{target}" if target.startswith("/") else target, location)
    assert url.startswith("http://evil.com/" if target.startswith("http") else "http://test/")
    assert http.get(url.removeprefix("http://test")).status in (200, 404)


@pytest.mark.parametrize("prefix", ["", "/app", "/deep/er"])
@pytest.mark.parametrize("target", ["/dir", "/dir/sub?q", "/http:"])
def test_a_redirect_keeps_the_prefix_that_a_proxy_has_taken_off(http, prefix, target):
    location = http.get(target)["Location"]
    path, _, query = target.partition("?")
    assert urllib.parse.urljoin(f"http://proxy{prefix}{target}", location) == (
        f"http://proxy{prefix}{path}/" + ("?" + query if query else "")
    )


@pytest.mark.parametrize("target", [
    "/%5Cevil.com", "/\\evil.com", "//\\evil.com", "/%5C%5Cevil.com", "/%09/evil.com", "//evil.com/%2e%2e",
    "/evil.com/..//evil.com", "/.//evil.com", "/;//evil.com", "/%0d%0aLocation:%20//evil.com",
])
def test_nothing_redirects_elsewhere(http, target):
    answer = http.get(target)
    assert answer.status != 301 or not answer["Location"].startswith(("/", "\\", "http:"))
    assert b"\r\nLocation: //" not in answer.head


def test_a_location_is_escaped(site):
    for name in (
        "sp ace", 'quo"te', "per%cent", "que?ry", "ha#sh", "back\\slash", "new\r\nline", "ümlaut", "a:b@c",
        "<b>",
    ):
        (site.root / name).mkdir(exist_ok=True)
        answer = get(site.port, "/" + urllib.request.quote(name))
        assert answer.status == 301, name
        location = answer["Location"]
        assert location.isascii()
        assert not set(location) & set(' "?#\\\r\n<>')
        assert urllib.request.unquote(location) == f"{'./' if ':' in location else ''}{name}/"
        assert get(site.port, urllib.parse.urljoin("/", location)).status == 404      # it has no index


@pytest.mark.parametrize("target", [
    "/../", "/./..", "/dir/../../a.txt", "/dir/%2e%2e/%2E./a.txt", "/dir/../..//", "/./.hidden", "/dir/../.hidden",
    "/missing", "/a.txt/", "/dir/missing", "/noindex/", "/a.txt%20", "/A.TXT", "/.hidden", "/%2ehidden",
    "/..", "/../a.txt", "/%2e%2e/canary.txt", "/dir/../../canary.txt", "/out", "/outside/canary.txt",
    "/outside/", "/" + "x" * 300, "/" + "y/" * 2000 + "z", "/%ff%fe",
])
def test_404(http, target):
    answer = http.get(target)
    assert answer.status == 404
    assert http.get("/a.txt").status == 200


@pytest.mark.parametrize(("target", "name"), [
    ("/./a.txt", "a.txt"), ("/dir/../a.txt", "a.txt"), ("/dir/./index.html", "dir/index.html"),
    ("/dir/sub/../../a.txt", "a.txt"), ("/dir/sub/..", "dir/index.html"), ("/dir/.", "dir/index.html"),
    ("/dir/sub/.././", "dir/index.html"), ("/%2e/a.txt", "a.txt"), ("/dir/%2e%2E/a.txt", "a.txt"),
    ("/dir/.%2e/a.txt", "a.txt"), ("/nothing/../a.txt", "a.txt"), ("/.hidden/../a.txt", "a.txt"),
    ("/dir//../a.txt", "a.txt"), ("//dir/..//a.txt", "a.txt"), ("/outside/../a.txt", "a.txt"),
    ("http://test/dir/../a.txt", "a.txt"), ("/.", "index.html"), ("/./", "index.html"), ("/dir/..", "index.html"),
])
def test_rfc3986_5_2_4_dot_segments_are_resolved_within_the_root(site, http, target, name):
    assert http.get(target).body == site.files[name]


def test_an_apt_repository_that_is_flat(tmp_path):
    (tmp_path / "InRelease").write_bytes(b"signed")
    with c1m.Server({"/debian": tmp_path}, ports=[0]) as server:
        assert get(server.ports[0], "/debian/./InRelease").body == b"signed"


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([
    "..", ".", "/", "//", "%2e", "%2E", "%2f", "%5c", "\\", "%00", "%", "%c0%ae", "%252e", ";", "?", "#",
    "out", "outside", "canary.txt", "dir", "root", "http://x", ":", "@", "*", "\x7f", "\t", "é",
]) | st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=3), max_size=12))
@example(["..", "/", "canary.txt"])
@example(["outside", "/", "canary.txt"])
@example(["%2e%2e", "/", "canary.txt"])
def test_no_target_leads_out_of_the_root(site, parts):
    with Http(site.port) as http:
        http.send(request("/" + "".join(parts)))
        answer = http.answer()
        assert CANARY not in answer.head + answer.body
        assert answer.status in (200, 301, 400, 404)


@pytest.mark.parametrize("target", [
    "http://test/a.txt", "HTTP://test:80/a.txt", "https://[::1]/a.txt", "//a.txt", "/%61.txt?q",
])
def test_other_forms_of_a_target(site, http, target):
    assert http.get(target).body == site.files["a.txt"]


# ---- what is refused ----


def refused(site, data):
    """The answer to data, which must be the last on its connection."""
    with Http(site.port) as http:
        http.send(data)
        answer = http.answer()
        assert answer["Connection"] == "close"
        assert http.rest() == b""
        return answer.status


@pytest.mark.parametrize(("data", "status"), [
    (b"nonsense\r\n\r\n", 400),
    (b"GET /\r\n\r\n", 400),
    (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET / HTTP/1.1\nHost: x\n\n", 400),
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n", 400),
    (b"GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /%2f HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /#a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET a.txt HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),              # a TLS ClientHello
    (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n", 413),
    (b"GET /" + b"x" * 8192 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 16384 + b"\r\n\r\n", 431),
    (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: x\r\n" * 100 + b"\r\n", 431),
    (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
    (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    (b"GET / HTTP/0.9\r\n\r\n", 505),
])
def test_a_request_that_cannot_be_read_is_refused_and_the_connection_closed(site, data, status):
    assert refused(site, data) == status


@pytest.mark.parametrize(("data", "status"), [
    (b"HEAD / HTTP/1.1\r\n\r\n", 400),
    (b"HEAD  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"HEAD /%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"HEAD / HTTP/1.1\nHost: x\n\n", 400),
    (b"HEAD / HTTP/1.1\r\nHost: x\r\nA: \0", 400),
    (b"HEAD / HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n", 413),
    (b"HEAD /" + b"x" * 8192, 414),
    (b"HEAD / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 16384, 431),
    (b"HEAD / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
    (b"HEAD / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
])
@pytest.mark.parametrize("at", [0, 1, 5, 17])
def test_a_refused_head_has_no_body(site, data, status, at):
    received = site.server.stats()["bytes_received"]
    with Http(site.port) as http:
        http.send(data[:at])
        until(lambda: site.server.stats()["bytes_received"] >= received + at, "the first part to arrive")
        http.send(data[at:])
        answer = http.answer(head=True)
        assert (answer.status, answer["Connection"]) == (status, "close")
        assert int(answer["Content-Length"]) > 0
        assert http.rest() == b""


@pytest.mark.parametrize("data", [b"nonsense\r\n\r\n", b"HEAD\r\n\r\n", b"HEADS / HTTP/1.1\r\n\r\n", b"\0"])
def test_whether_a_refusal_has_a_body_is_no_matter_of_the_client_before(site, http, data):
    assert http.get("/a.txt", method="HEAD").status == 200
    assert refused(site, data) == 400


def test_what_follows_a_refused_request_is_not_answered(site):
    assert refused(site, b"nonsense\r\n\r\n" + request("/a.txt")) == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE"])
def test_405(http, method):
    answer = http.get("/a.txt", method=method)
    assert answer.status == 405
    assert {"GET", "HEAD"} <= set(answer["Allow"].split(", "))
    assert http.get("/a.txt").status == 200


def test_405_for_connect(http):
    assert http.get("test:80", method="CONNECT").status == 405


def test_501_for_a_method_nobody_knows(http):
    for method in ("BREW", "get", "GETS"):
        assert http.get("/a.txt", method=method).status == 501
    assert http.get("/a.txt").status == 200


def test_417(http):
    assert http.get("/a.txt", "Expect: the-unexpected").status == 417
    assert http.get("/a.txt", "Expect: 100-continue", "Expect: the-unexpected").status == 417
    assert http.get("/a.txt", "Expect: 100-continue, the-unexpected").status == 417
    assert http.get("/a.txt").status == 200


def test_408_when_a_request_does_not_become_whole(tmp_path):
    with c1m.Server(tmp_path, ports=[0], head_timeout=0.1) as server, Http(server.ports[0]) as http:
        http.send(b"GET / HTTP/1.1\r\nHost: ")
        answer = http.answer()
        assert answer.status == 408
        assert answer["Connection"] == "close"
        assert http.rest() == b""


def test_408_for_head_has_no_body_and_is_no_matter_of_another_client(tmp_path):
    with c1m.Server(tmp_path, ports=[0], head_timeout=1) as server:
        [port] = server.ports
        with Http(port) as other:
            other.get("/")
            with Http(port) as http, Http(port) as head:
                http.send(b"GET / HTTP/1.1\r\nHost: ")
                head.send(b"HEAD / HTTP/1.1\r\nHost: ")
                other.get("/", method="HEAD")
                assert http.answer().body == b"408 Request Timeout\n"
                assert head.answer(head=True).status == 408
                assert http.rest() == head.rest() == b""


def test_an_idle_connection_is_closed_without_a_word(tmp_path):
    with c1m.Server(tmp_path, ports=[0], head_timeout=1, keep_alive_timeout=0.1) as server:
        with Http(server.ports[0]) as fresh:
            assert fresh.rest() == b""
        with Http(server.ports[0]) as used:
            assert used.get("/").status == 404
            assert used.rest() == b""


@pytest.mark.parametrize("used", [False, True])
def test_empty_lines_do_not_prolong_the_wait_for_a_request(tmp_path, used):
    timeouts = {"head_timeout": 60, "keep_alive_timeout": 1} if used else {"head_timeout": 1}
    server = c1m.Server(tmp_path, ports=[0], **timeouts)
    with server, Http(server.ports[0]) as http, Http(server.ports[0]) as silent:
        if used:
            assert http.get("/").status == silent.get("/").status == 404
        for part in (b"\r\n", b"\r", b"\n"):
            time.sleep(0.25)
            with contextlib.suppress(ConnectionError):
                http.send(part)
        assert silent.rest() == b""
        assert not http.silent()                 # it has ended before the one that came after it
        assert http.drained() == 0


def test_a_connection_is_idle_from_the_end_of_an_answer_that_had_to_wait(tmp_path):
    (tmp_path / "large.bin").write_bytes(bytes(8 << 20))
    server = c1m.Server(tmp_path, ports=[0], keep_alive_timeout=0.1, write_timeout=1000)
    with server, Http(server.ports[0], receive_buffer=8192) as http:
        assert len(http.get("/large.bin").body) == 8 << 20
        assert http.rest() == b""


def test_the_clock_of_a_request_starts_with_it(tmp_path):
    """Someone who is always halfway through a request, but none of them for long, is not cut off."""
    (tmp_path / "a.txt").write_text("a")
    head_timeout = 2
    with c1m.Server(tmp_path, ports=[0], head_timeout=head_timeout) as server, Http(server.ports[0]) as http:
        whole = request("/a.txt")
        http.send(whole[:20])
        end = time.monotonic() + head_timeout * 1.5
        while time.monotonic() < end:
            http.send(whole[20:] + whole[:20])
            assert http.answer().body == b"a"
            time.sleep(0.05)


def test_the_clock_of_a_request_is_not_that_of_the_pause_before_it(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    server = c1m.Server(tmp_path, ports=[0], head_timeout=3, keep_alive_timeout=3)
    with server, Http(server.ports[0]) as http:
        http.get("/a.txt")
        time.sleep(1.8)
        http.send(request("/a.txt")[:20])
        time.sleep(1.5)          # more than three seconds after the last answer, but not into this request
        http.send(request("/a.txt")[20:])
        assert http.answer().body == b"a"


# ---- one connection, many requests ----


def test_pipelined_requests_are_answered_in_order(site, http):
    names = [name for name in site.files if not name.startswith(".")]
    order = random.Random(1).choices(names, k=200)
    http.send(b"".join(request("/" + urllib.request.quote(name)) for name in order))
    for name in order:
        assert http.answer().body == site.files[name]
    assert http.silent()


def test_pipelined_requests_of_every_kind(site, http):
    kinds = [
        (request("/a.txt"), 200),
        (b"\r\n\r\n" + request("/a.txt"), 200),
        (request("/over32k.bin"), 200),
        (request("/3m.bin", method="HEAD"), 200),
        (request("/3m.bin", "Range: bytes=-99"), 206),
        (request("/a.txt", "If-None-Match: *"), 304),
        (request("/dir"), 301),
        (request("/missing"), 404),
        (request("/x", method="POST"), 405),
        (request("/x", "Content-Length: 5", method="PUT", body=b"GET /"), 405),
    ]
    order = random.Random(2).choices(kinds, k=150)
    http.send(b"".join(data for data, _ in order))
    for data, status in order:
        assert http.answer(head=b"HEAD" in data[:8]).status == status
    assert http.silent()


def test_a_thousand_requests_in_a_segment_to_a_reader_who_takes_his_time(site):
    with Http(site.port, receive_buffer=8192) as http:
        http.send(request("/4097.bin") * 1000 + request("/a.txt", "Connection: close"))
        for _ in range(1000):
            assert http.answer().body == site.files["4097.bin"]
        assert http.answer().body == site.files["a.txt"]
        assert http.rest() == b""


def test_a_request_may_be_split_anywhere(site, http):
    whole = request("/a.txt", "If-None-Match: \"x\"", "Accept: */*")
    for at in range(1, len(whole)):
        received = site.server.stats()["bytes_received"]
        http.send(whole[:at])
        until(lambda: site.server.stats()["bytes_received"] >= received + at, "the first part to arrive")  # noqa: B023
        http.send(whole[at:])
        assert http.answer().body == site.files["a.txt"]


def test_a_request_may_come_byte_by_byte(site, http):
    for i in range(len(request("/a.txt"))):
        http.send(request("/a.txt")[i:i + 1])
    assert http.answer().body == site.files["a.txt"]


@pytest.mark.parametrize(("version", "fields", "kept"), [
    ("1.1", [], True),
    ("1.1", ["Connection: keep-alive"], True),
    ("1.1", ["Connection: close"], False),
    ("1.1", ["Connection: Close, x"], False),
    ("1.1", ["Connection: keep-alive", "Connection: close"], False),
    ("1.0", [], False),
    ("1.0", ["Connection: keep-alive"], True),
    ("1.0", ["Connection: keep-alive, close"], False),
    ("1.2", [], True),
])
@pytest.mark.parametrize("target", ["/a.txt", "/32k.bin", "/over32k.bin", "/missing", "/dir"])
def test_keep_alive(http, version, fields, kept, target):
    answer = http.get(target, *fields, version=version)
    if kept:
        assert answer.all("Connection") == (["keep-alive"] if fields else [])
        assert http.get("/a.txt").status == 200
    else:
        assert answer["Connection"] == "close"
        assert http.rest() == b""


@pytest.mark.parametrize("target", ["/a.txt", "/3m.bin", "/missing", "/dir"])
@pytest.mark.parametrize(("field", "said"), [
    ("Connection: keep-alive", ["keep-alive"]), ("Connection: Keep-Alive, x", ["keep-alive"]), ("A: keep-alive", []),
    ("Connection: keep-alive, close", ["close"]), ("Connection: x", []),
])
def test_rfc9112_9_3_who_asks_to_be_kept_is_told(site, target, field, said):
    for _ in range(2):
        with Http(site.port) as http:
            for more in ([], ["Range: bytes=0-1"], ["If-None-Match: *"])[:1 if said == ["close"] else 3]:
                assert http.get(target, field, *more).all("Connection") == said
            if said != ["close"]:
                assert http.get("/a.txt").all("Connection") == []


def test_http_1_0_needs_no_host(http):
    assert http.get("/a.txt", version="1.0", host=None).status == 200


def test_nothing_is_answered_after_connection_close(site, http):
    http.send(request("/a.txt", "Connection: close") + request("/a.txt"))
    assert http.answer().body == site.files["a.txt"]
    assert http.rest() == b""


@pytest.mark.parametrize("size", [1, 5, 1000, 200_000, 1 << 20])
@pytest.mark.parametrize(("method", "target", "status"), [
    ("GET", "/a.txt", 200), ("POST", "/a.txt", 405), ("GET", "/3m.bin", 200), ("BREW", "/", 501),
])
def test_a_body_is_skipped(site, http, method, target, status, size):
    body = (request("/missing") * (size // 20 + 1))[:size]
    http.send(request(target, f"Content-Length: {size}", method=method, body=body))
    assert http.answer().status == status
    assert http.get("/a.txt").body == site.files["a.txt"]


def test_a_chunked_body_is_never_read_as_requests(site, http):
    smuggled = request("/a.txt")
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(smuggled), smuggled)
    http.send(request("/x", "Transfer-Encoding: chunked", "Connection: close", method="POST", body=body))
    assert http.answer().status == 405
    assert http.rest() == b""


@pytest.mark.parametrize("target", ["/a.txt", "/3m.bin", "/missing"])
def test_a_half_closed_connection_still_gets_its_answers(site, http, target):
    http.send(request("/a.txt") + request(target))
    http.half_close()
    assert http.answer().body == site.files["a.txt"]
    assert http.answer().status in (200, 404)
    assert http.rest() == b""


def test_half_a_request_before_the_end_is_not_answered(http):
    http.send(request("/a.txt")[:-1])
    http.half_close()
    assert http.rest() == b""


@pytest.mark.parametrize("head", [
    request("/x", "Content-Length: 9000000", method="POST"),
    request("/x", "Content-Length: 9000000", "Content-Length: 1", method="POST"),
    b"nonsense\r\n\r\n",
    request("/x", "Content-Length: 1000000", "Expect: 100-continue", method="POST"),
    request("/x", "Content-Length: 1000000", "Connection: close", method="POST"),
])
@pytest.mark.parametrize("half_close", [False, True])
def test_an_early_answer_reaches_a_client_that_is_still_sending(site, head, half_close):
    with Http(site.port) as http:
        http.send(head)
        http.send(bytes(1_000_000))
        if half_close:
            http.half_close()
        answer = http.answer()
        assert answer.status >= 400
        assert answer["Connection"] == "close"
        assert http.rest() == b""


@pytest.mark.parametrize("last", [
    request("/32k.bin", "Connection: close"),
    request("/32k.bin", version="1.0"),
    request("/3m.bin", "Connection: close"),
], ids=["close", "1.0", "long"])
def test_what_comes_behind_the_last_request_does_not_take_back_its_answer(site, last):
    """It is more than one recv takes: closing with the rest of it unread would send a reset in place of an end."""
    with Http(site.port) as http:
        http.send(last + request("/a.txt") * 15_000)
        assert http.answer().body == site.files[last.split()[1].decode()[1:]]
        assert http.rest() == b""


# ---- large files ----


@pytest.fixture(scope="module")
def huge(site):
    """5 GB, nearly all of it a hole."""
    size = 5 << 30
    with (site.root / "huge.bin").open("wb") as file:
        file.truncate(size)
        file.seek(size - 10)
        file.write(b"0123456789")
    return size


def test_a_file_of_more_than_4_gb(huge, http):
    answer = http.get("/huge.bin", method="HEAD")
    assert answer["Content-Length"] == str(huge)
    answer = http.get("/huge.bin", "Range: bytes=-5")
    assert answer.body == b"56789"
    assert answer["Content-Range"] == f"bytes {huge - 5}-{huge - 1}/{huge}"
    answer = http.get("/huge.bin", f"Range: bytes={1 << 32}-{(1 << 32) + 4}")
    assert answer.body == bytes(5)
    assert http.get("/huge.bin", f"Range: bytes={huge}-").status == 416


def test_a_large_file_passes_through_no_memory(huge, http):
    http.send(request("/huge.bin"))
    head = http.take_line(b"\r\n\r\n")
    assert b"Content-Length: %d" % huge in head
    before = memory()
    buffer = bytearray(1 << 20)
    left = 100 << 20
    while left > 0:
        left -= http.socket.recv_into(buffer)
    assert memory() - before < 8 << 20 or SANITIZED


@pytest.mark.parametrize("to", [0, 100_000])
def test_a_file_that_shrinks_on_its_way_ends_the_connection(site, to):
    file = site.root / f"shrinks-{to}.bin"
    file.write_bytes(bytes(32 << 20))
    with Http(site.port, receive_buffer=65536) as http:
        http.send(request(f"/shrinks-{to}.bin") + request("/a.txt"))
        assert b"Content-Length: %d" % (32 << 20) in http.take_line(b"\r\n\r\n")
        with file.open("r+b") as out:
            out.truncate(to)
        assert http.drained() < 32 << 20
    until(
        lambda: get(site.port, f"/shrinks-{to}.bin", method="HEAD")["Content-Length"] == str(to),
        "the new size",
    )
    assert get(site.port, f"/shrinks-{to}.bin").body == bytes(to)


def test_a_file_replaced_on_its_way_arrives_as_it_was(site):
    file = site.root / "replaced.bin"
    before = random.Random(3).randbytes(16 << 20)
    file.write_bytes(before)
    with Http(site.port, receive_buffer=65536) as http:
        http.send(request("/replaced.bin"))
        http.take_line(b"\r\n\r\n")
        file.unlink()
        file.write_bytes(b"another")
        assert http.take(len(before)) == before


def test_a_changed_file_is_served_anew(site, http):
    file = site.root / "changing.txt"
    file.write_text("before")
    first = http.get("/changing.txt")
    assert first.body == b"before"
    file.write_text("after it")
    until(lambda: http.get("/changing.txt").body == b"after it", "the new contents")
    assert http.get("/changing.txt", f"If-None-Match: {first['ETag']}").status == 200
    file.unlink()
    until(lambda: http.get("/changing.txt").status == 404, "it to be gone")


# ---- several roots ----


def test_the_longest_prefix_wins_and_ends_at_a_slash(tmp_path):
    places = {"/": "top", "/a": "a", "/a/b": "b", "/ünï": "u"}
    for name in places.values():
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "who.txt").write_text(name)
        (tmp_path / name / "index.html").write_text(name)
    (tmp_path / "top" / "ab").mkdir()
    (tmp_path / "top" / "ab" / "who.txt").write_text("top/ab")
    server = c1m.Server({prefix: tmp_path / name for prefix, name in places.items()}, ports=[0])
    with server, Http(server.ports[0]) as http:
        for target, body in {
            "/": b"top", "/a/": b"a",
            "/who.txt": b"top", "/a/who.txt": b"a", "/a/b/who.txt": b"b", "/ab/who.txt": b"top/ab",
            "//a//b//who.txt": b"b", "/%61/who.txt": b"a", "/%C3%BCn%C3%AF/who.txt": b"u",
        }.items():
            assert http.get(target).body == body, target
        for target, location in {
            "/a": "a/", "/a/b": "b/", "/a/b?q": "b/?q", "/a/sub": "sub/", "/%C3%BCn%C3%AF": "%C3%BCn%C3%AF/",
        }.items():
            assert http.get(target)["Location"] == location, target
        for target, body in {
            "/a/../who.txt": b"top", "/a/./b/who.txt": b"b", "/a/b/../who.txt": b"a", "/a/..": b"top",
            "/a/b/%2e%2e": b"a", "/ab/../a/who.txt": b"a", "/./a/b/./who.txt": b"b", "/a/%2E%2e/ab/who.txt": b"top/ab",
        }.items():
            assert http.get(target).body == body, target
        assert http.get("/a/./b/../sub")["Location"] == "sub/"
        for target in ("/a/../../who.txt", "/a/top/who.txt", "/..", "/b/who.txt", "/abc/who.txt", "/a/b/../../../a/"):
            assert http.get(target).status == 404, target


def test_outside_every_root_there_is_nothing(tmp_path):
    (tmp_path / "index.html").write_text("here")
    with c1m.Server({"/only/": tmp_path}, ports=[0]) as server, Http(server.ports[0]) as http:
        assert http.get("/only/").body == b"here"
        for target in ("/", "/onl", "/onlyx/", "/other"):
            assert http.get(target).status == 404


# ---- where it listens ----


def test_ipv6(tmp_path):
    (tmp_path / "a.txt").write_text("six")
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    with c1m.Server(tmp_path, ports=[0], host="::1") as server:
        assert get(("::1", server.ports[0]), "/a.txt").body == b"six"


def test_every_address_of_the_machine(tmp_path):
    (tmp_path / "a.txt").write_text("any")
    with c1m.Server(tmp_path, ports=[0], host="0.0.0.0") as server:
        assert get(server.ports[0], "/a.txt").body == b"any"


@pytest.mark.parametrize("refusals", [1, CHOICES - 1, CHOICES])
def test_a_port_that_is_taken_on_one_host_is_chosen_anew(monkeypatch, refusals):
    """The kernel chooses for the first host, and knows nothing of the second."""
    calls = []

    def listeners(hosts, port):
        calls.append(port)
        for host in hosts:
            if host == "127.0.0.2" and len(calls) <= refusals:
                raise OSError(errno.EADDRINUSE, "taken")
            yield from tcp_listeners([host], port)

    monkeypatch.setattr("c1m.listeners.tcp_listeners", listeners)
    server = c1m.Server(ports=[0], host=["127.0.0.1", "127.0.0.2"])
    with pytest.raises(OSError, match="taken") if refusals == CHOICES else contextlib.nullcontext(), server:
        pass
    assert calls == [0] * min(refusals + 1, CHOICES)


def test_several_hosts_share_each_port(tmp_path):
    (tmp_path / "a.txt").write_text("any")
    with c1m.Server(tmp_path, ports=[0, 0], host=["127.0.0.1", "127.0.0.2"]) as server:
        assert len(server.ports) == 2
        for port in server.ports:
            for host in ("127.0.0.1", "127.0.0.2"):
                assert get((host, port), "/a.txt").body == b"any"


def test_unix_socket(site):
    answer = get(site.unix, "/3m.bin")
    assert answer.body == site.files["3m.bin"]
    with Http(site.unix) as http:
        http.send(request("/a.txt") * 50)
        for _ in range(50):
            assert http.answer().body == site.files["a.txt"]
        http.half_close()
        assert http.rest() == b""


def test_unix_socket_alone(tmp_path):
    with c1m.Server(tmp_path, ports=[], unix=[tmp_path / "one", str(tmp_path / "two")]):
        assert get(tmp_path / "one", "/").status == get(tmp_path / "two", "/").status == 404


def test_thirty_ports(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    with c1m.Server(tmp_path, ports=[0] * 30) as server, contextlib.ExitStack() as stack:
        assert len(set(server.ports)) == 30
        clients = [stack.enter_context(Http(port)) for port in server.ports]
        for http in clients:
            http.send(request("/a.txt") * 2)
        for http in clients:
            assert http.answer().body == http.answer().body == b"a"


# ---- clients that others have written ----


def test_urllib(site):
    base = f"http://127.0.0.1:{site.port}"
    with urllib.request.urlopen(f"{base}/3m.bin") as response:
        assert response.read() == site.files["3m.bin"]
    with urllib.request.urlopen(f"{base}/dir") as response:          # follows the redirect
        assert response.url == f"{base}/dir/"
        assert response.read() == site.files["dir/index.html"]
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(f"{base}/missing")
    with error.value:
        assert error.value.code == 404


def test_aiohttp(site):
    names = [name for name in site.files if not name.startswith(".")] * 20

    async def fetch(session, name):
        async with session.get("/" + urllib.request.quote(name)) as response:
            assert await response.read() == site.files[name]

    async def main():
        connector = aiohttp.TCPConnector(limit=20)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{site.port}", connector=connector) as session:
            await asyncio.gather(*(fetch(session, name) for name in names))
            async with session.post("/a.txt", data=b"x" * 100_000) as response:
                assert response.status == 405
            async with session.get("/a.txt", headers={"Range": "bytes=2-4"}) as response:
                assert (response.status, await response.read()) == (206, site.files["a.txt"][2:5])

    asyncio.run(main())


@pytest.fixture(scope="module")
def curl():
    """Runs curl, and returns what it prints."""
    path = shutil.which("curl")
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("curl is not installed")
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}    # a sanitizer's

    def run(*arguments):
        return subprocess.run(
            [path, "--silent", "--show-error", "--fail", "--max-time", str(PATIENCE), *arguments],
            check=True, capture_output=True, env=environment, timeout=2 * PATIENCE,
        )

    return run


def test_curl(site, curl, tmp_path):
    base = f"http://127.0.0.1:{site.port}"
    assert curl(f"{base}/3m.bin").stdout == site.files["3m.bin"]
    assert curl("--http1.0", f"{base}/3m.bin").stdout == site.files["3m.bin"]
    assert curl("--location", f"{base}/dir").stdout == site.files["dir/index.html"]
    assert curl("--range", "100-199", f"{base}/3m.bin").stdout == site.files["3m.bin"][100:200]
    assert curl("--head", f"{base}/a.txt").stdout.startswith(b"HTTP/1.1 200 OK\r\n")
    assert curl("--unix-socket", str(site.unix), "http://test/a.txt").stdout == site.files["a.txt"]
    two = curl("--verbose", f"{base}/a.txt", f"{base}/3m.bin")
    assert two.stdout == site.files["a.txt"] + site.files["3m.bin"]
    assert b"Re-using existing" in two.stderr
    part = tmp_path / "part"
    part.write_bytes(site.files["3m.bin"][:1_000_000])
    curl("--continue-at", "-", "--output", str(part), f"{base}/3m.bin")
    assert part.read_bytes() == site.files["3m.bin"]
    kept = tmp_path / "kept"
    curl("--remote-time", "--output", str(kept), f"{base}/a.txt")
    again = curl("--time-cond", str(kept), "--write-out", "%{http_code}", f"{base}/a.txt")
    assert again.stdout == b"304"


def test_curl_uploads_are_refused_and_the_connection_goes_on(site, curl):
    base = f"http://127.0.0.1:{site.port}"
    with pytest.raises(subprocess.CalledProcessError) as error:
        curl("--data-binary", "@" + str(site.root / "3m.bin"), f"{base}/a.txt")
    assert error.value.returncode == 22          # an HTTP error: not one of the connection
