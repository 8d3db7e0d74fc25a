"""How a document root is served: what Root and Server say of it, and HTTP's rules that touch it."""

import asyncio
import contextlib
import email
import errno
import html.parser
import json
import logging
import os
import random
import socket
import urllib.parse

import aiohttp
import pytest
from client import Http, get, handshake, request, until

import c1m
from c1m import Root, Server
from c1m.listing import MOST, Listings, _time, page

OLD, NEW = 1_600_000_000, 1_700_000_000      # times of change


@contextlib.contextmanager
def serving(root=None, **settings):
    """The port of a server."""
    websocket = settings.pop("websocket", None)
    server = Server(root, ports=[0], **settings)
    if websocket:
        server.websocket(websocket)
    with server:
        yield server.ports[0]


def write(root, files, time=OLD):
    """Writes files below a directory; their contents are given, or their names will do."""
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = files[name] if isinstance(files, dict) else name
        path.write_bytes(data if isinstance(data, bytes) else os.fsencode(data))
        os.utime(path, (time, time))
    return root


def no_date(answer):
    return [field for field in answer.fields if field[0] != "Date"]


# ---- encoded forms (RFC 9110 section 12.5.3) ----

FORMS = {
    "page.html": b"<p>" + b"page " * 100,
    "page.html.gz": b"gz" * 40, "page.html.br": b"br" * 30, "page.html.zst": b"zst" * 20,
    "one.js": b"script " * 10, "one.js.gz": b"gz of one.js",
    "plain.txt": b"nothing beside it",
    "index.html": b"index", "index.html.br": b"br of index.html",
    "big.txt": b"big " * 50_000, "big.txt.gz": random.Random(1).randbytes(100_000),
}
CODED = {"gzip": ".gz", "br": ".br", "zstd": ".zst", None: ""}


@pytest.fixture(scope="module")
def coded(tmp_path_factory):
    root = write(tmp_path_factory.mktemp("coded"), FORMS)
    with serving(root) as port:
        yield port


@pytest.mark.parametrize(("accept", "coding"), [
    (None, None),
    ("", None),
    ("gzip", "gzip"),
    ("x-gzip", "gzip"),
    ("GZip", "gzip"),
    ("br", "br"),
    ("zstd", "zstd"),
    ("gzip, deflate, br, zstd", "zstd"),
    ("gzip, deflate, br", "br"),
    ("gzip;q=1.0, br;q=0.9, zstd;q=0.8", "gzip"),
    ("gzip;q=0.5, br;q=0.501", "br"),
    ("deflate, compress", None),
    ("identity", None),
    ("identity;q=0.5, gzip;q=0.4", None),
    ("identity;q=0, gzip;q=0.001", "gzip"),
    ("identity;q=0", None),                  # section 12.5.3 lets us send it all the same
    ("gzip;q=0", None),
    ("gzip;q=0, *", "zstd"),
    ("*", "zstd"),
    ("*;q=0", None),
    ("gzip;q=nonsense", None),
    ("gzip;q=1.5, br;q=0.1", "br"),
])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_client_has_the_choice_of_encoded_forms(coded, accept, coding, method):
    fields = [] if accept is None else [f"Accept-Encoding: {accept}"]
    answer = get(coded, "/page.html", *fields, method=method)
    data = FORMS["page.html" + CODED[coding]]
    assert answer.status == 200
    assert answer.all("Content-Encoding") == ([coding] if coding else [])
    assert answer["Content-Length"] == str(len(data))
    assert answer["Content-Type"] == "text/html; charset=utf-8"
    assert answer["Vary"] == "Accept-Encoding"
    assert answer.body == (data if method == "GET" else b"")


def test_accept_encoding_in_two_fields_is_one_list(coded):
    answer = get(coded, "/page.html", "Accept-Encoding: gzip;q=0.5", "Accept-Encoding: br;q=0.6")
    assert answer["Content-Encoding"] == "br"


def test_only_forms_that_are_there_are_sent(coded):
    assert get(coded, "/one.js", "Accept-Encoding: zstd, br, gzip;q=0.1")["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in get(coded, "/one.js", "Accept-Encoding: zstd, br")
    plain = get(coded, "/plain.txt", "Accept-Encoding: gzip")
    assert plain.body == FORMS["plain.txt"]


@pytest.mark.parametrize("fields", [[], ["Range: bytes=0-1"], ["Range: bytes=0-0,2-2"], ["If-None-Match: *"]])
@pytest.mark.parametrize("target", ["/page.html", "/plain.txt", "/big.txt", "/"])
def test_rfc9110_12_5_5_answers_vary_by_encoding_whatever_was_asked_before(coded, target, fields):
    for accepts in ([], ["Accept-Encoding: gzip"], []):
        answers = [get(coded, target, *accepts, *fields, method=method) for method in ("GET", "HEAD")]
        assert [answer["Vary"] for answer in answers] == ["Accept-Encoding"] * 2


def test_a_directory_has_the_encoded_forms_of_its_index(coded):
    answer = get(coded, "/", "Accept-Encoding: br")
    assert (answer["Content-Encoding"], answer.body) == ("br", FORMS["index.html.br"])
    assert answer["Content-Type"] == "text/html; charset=utf-8"


def test_an_encoded_form_under_its_own_name_is_a_file_like_others(coded):
    answer = get(coded, "/page.html.gz")
    assert answer.body == FORMS["page.html.gz"]
    assert "Content-Encoding" not in answer


def test_rfc9110_8_8_3_each_form_has_an_etag_of_its_own(tmp_path):
    # Of the same size and time, which tells them apart no better than their name does.
    write(tmp_path, {"a.txt" + end: b"%-9b" % end.encode() for end in CODED.values()})
    with serving(tmp_path) as port:
        tags = {get(port, "/a.txt", f"Accept-Encoding: {coding or ''}")["ETag"] for coding in CODED}
    assert len(tags) == 4


@pytest.mark.parametrize("coding", CODED)
def test_rfc9110_13_1_2_a_form_is_unchanged_by_its_own_etag_alone(coded, coding):
    with Http(coded) as http:
        tags = {other: http.get("/page.html", f"Accept-Encoding: {other or ''}")["ETag"] for other in CODED}
        for other, tag in tags.items():
            fields = [f"Accept-Encoding: {coding or ''}", f"If-None-Match: {tag}"]
            answer = http.get("/page.html", *fields)
            assert answer.status == (304 if other == coding else 200)
            assert answer["ETag"] == tags[coding]
            assert answer["Vary"] == "Accept-Encoding"


@pytest.mark.parametrize("accept", ["gzip", "gzip, deflate", "gzip, deflate, br, zstd", "*"])
@pytest.mark.parametrize("name", ["page.html", "big.txt"])
def test_rfc9110_14_2_a_range_is_of_the_file_itself(coded, name, accept):
    data = FORMS[name]
    for _ in range(2):
        answer = get(coded, f"/{name}", f"Accept-Encoding: {accept}", "Range: bytes=2-40")
        assert (answer.status, answer.body) == (206, data[2:41])
        assert "Content-Encoding" not in answer
        assert answer["Content-Range"] == f"bytes 2-40/{len(data)}"
        assert answer["ETag"] == get(coded, f"/{name}")["ETag"]
        assert answer["Vary"] == "Accept-Encoding"
    missed = get(coded, f"/{name}", f"Accept-Encoding: {accept}", f"Range: bytes={len(data)}-")
    assert (missed.status, missed["Content-Range"]) == (416, f"bytes */{len(data)}")


def test_a_head_ignores_range_and_is_of_the_encoded_form(coded):
    answer = get(coded, "/page.html", "Accept-Encoding: gzip", "Range: bytes=2-40", method="HEAD")
    assert (answer.status, answer["Content-Encoding"]) == (200, "gzip")
    assert answer["Content-Length"] == str(len(FORMS["page.html.gz"]))


@pytest.mark.parametrize("field", ["If-Range", "If-Match"])
@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
@pytest.mark.parametrize("accept", ["gzip, deflate, br, zstd", "zstd;q=0.1, br;q=0.2, gzip;q=0.3"])
def test_rfc9110_13_1_5_a_range_is_of_the_form_whose_tag_it_names(coded, coding, accept, field):
    data = FORMS["page.html" + CODED[coding]]
    mine = get(coded, "/page.html", f"Accept-Encoding: {coding}")["ETag"]
    answer = get(coded, "/page.html", f"Accept-Encoding: {accept}", "Range: bytes=2-9", f"{field}: {mine}")
    assert (answer.status, answer["Content-Encoding"], answer.body) == (206, coding, data[2:10])
    assert answer["ETag"] == mine


def test_rfc9110_13_1_5_if_range_holds_for_the_form_it_names(coded):
    plain, packed = (get(coded, "/page.html", *more)["ETag"] for more in ([], ["Accept-Encoding: gzip"]))
    fields = ["Accept-Encoding: gzip", "Range: bytes=0-1"]
    modified = get(coded, "/page.html")["Last-Modified"]
    for condition, more, status, coding in [
        (f"If-Range: {packed}", fields, 206, "gzip"), (f"If-Range: {plain}", fields, 206, None),
        (f"If-Range: {modified}", fields, 206, None), (f"If-Match: {plain}", fields, 206, None),
        (f"If-Match: {packed}", fields, 206, "gzip"), ("If-Match: *", fields, 206, None),
        (f"If-Range: W/{packed}", fields, 200, "gzip"), ('If-Range: "another.gz"', fields, 200, "gzip"),
        ('If-Range: "another"', fields, 200, None), ("If-Range: .gz", fields, 200, None),
        (f"If-Range: {packed}", fields[1:], 200, None),
        (f"If-Range: {packed}", ["Accept-Encoding: br", fields[1]], 200, None),
        (f"If-Range: {packed}", ["Accept-Encoding: gzip;q=0", fields[1]], 200, None),
        (f"If-Range: {packed}", fields[:1], 200, "gzip"), (f"If-Range: {plain}", fields[:1], 200, "gzip"),
    ]:
        answer = get(coded, "/page.html", condition, *more)
        expected = (status, [coding] if coding else [])
        assert (answer.status, answer.all("Content-Encoding")) == expected, (condition, more)


@pytest.mark.parametrize("size", [10, 32 << 10, (32 << 10) + 1, 64 << 10, (64 << 10) + 1, 1 << 20])
def test_two_servers_with_the_same_files_agree_on_their_etags(tmp_path, size):
    data = random.Random(size).randbytes(size)
    answers = []
    for server in ("one", "other"):
        write(tmp_path / server, {"a.bin": data, "a.bin.gz": data})
        with serving(tmp_path / server) as port:
            answers += [get(port, "/a.bin", "Accept-Encoding: gzip"), get(port, "/a.bin")]
            known = answers[1]["ETag"]
            assert get(port, "/a.bin", f"If-None-Match: {known}").status == 304
            assert get(port, "/a.bin", f"If-Range: {known}", "Range: bytes=5-8").body == data[5:9]
    assert no_date(answers[0]) == no_date(answers[2])
    assert no_date(answers[1]) == no_date(answers[3])


@pytest.mark.parametrize(("time", "used"), [(OLD - 1, False), (OLD, True), (OLD + 1, True)])
def test_an_encoded_form_older_than_the_file_is_not_sent(tmp_path, time, used):
    write(tmp_path, {"a.txt": "now"})
    write(tmp_path, {"a.txt.gz": "then"}, time)
    with serving(tmp_path) as port:
        answer = get(port, "/a.txt", "Accept-Encoding: gzip")
    assert ("Content-Encoding" in answer) == used
    assert answer.body == (b"then" if used else b"now")


@pytest.mark.parametrize("copied", [
    lambda status: {"times": (status.st_atime, status.st_mtime)},
    lambda status: {"ns": (0, status.st_mtime_ns // 10**6 * 10**6)},
    lambda status: {"ns": (0, status.st_mtime_ns // 10**9 * 10**9)},
], ids=["as a float", "in milliseconds", "in seconds"])
def test_an_encoded_form_whose_time_was_copied_less_exactly_is_sent(tmp_path, copied):
    times = [OLD * 10**9 + fraction for fraction in (1, 123_456_789, 357_913_941, 999_999_999)]
    for number, ns in enumerate(times):
        write(tmp_path, [f"{number}.txt", f"{number}.txt.gz"])
        os.utime(tmp_path / f"{number}.txt", ns=(0, ns))
        os.utime(tmp_path / f"{number}.txt.gz", **copied((tmp_path / f"{number}.txt").stat()))
    with serving(tmp_path) as port:
        for number in range(len(times)):
            assert get(port, f"/{number}.txt", "Accept-Encoding: gzip")["Content-Encoding"] == "gzip"


def test_encoded_forms_come_and_go_while_the_file_is_served(tmp_path):
    write(tmp_path, {"a.txt": "plain"})
    with serving(tmp_path) as port, Http(port) as http:
        def body():
            return http.get("/a.txt", "Accept-Encoding: gzip").body

        assert body() == b"plain"
        write(tmp_path, {"a.txt.gz": "first"})
        until(lambda: body() == b"first", "the new form")
        write(tmp_path, {"new.gz": "second, replaced"}, NEW)
        (tmp_path / "new.gz").rename(tmp_path / "a.txt.gz")
        until(lambda: body() == b"second, replaced", "the replaced form")
        (tmp_path / "a.txt.gz").unlink()
        until(lambda: body() == b"plain", "the plain form")
        write(tmp_path, {"a.txt.gz": "third"}, NEW)
        until(lambda: body() == b"third", "the form that came back")
        write(tmp_path, {"a.txt": "changed"}, NEW + 1)
        until(lambda: body() == b"changed", "the form to be too old")


def test_what_is_no_file_within_the_root_is_no_encoded_form(tmp_path):
    root = write(tmp_path / "root", ["a.txt", "b.txt", "c.txt", "real"])
    write(tmp_path, ["outside"], NEW)
    (root / "a.txt.gz").mkdir()
    (root / "b.txt.gz").symlink_to("../outside")
    (root / "c.txt.gz").symlink_to("real")
    with serving(root) as port:
        bodies = [get(port, f"/{name}.txt", "Accept-Encoding: gzip").body for name in "abc"]
    assert bodies == [b"a.txt", b"b.txt", b"real"]


def test_sidecars_false_sends_files_as_they_are(tmp_path):
    write(tmp_path, ["a.txt", "a.txt.gz"])
    with serving(Root(tmp_path, sidecars=False)) as port:
        answer = get(port, "/a.txt", "Accept-Encoding: gzip")
    assert answer.body == b"a.txt"
    assert "Vary" not in answer


# ---- several ranges (RFC 9110 section 14.6) ----

SMALL, LARGE = random.Random(2).randbytes(2000), random.Random(3).randbytes(3 << 20)


@pytest.fixture(scope="module")
def ranged(tmp_path_factory):
    root = write(tmp_path_factory.mktemp("ranged"), {"small.txt": SMALL, "large.txt": LARGE})
    with serving(root) as port:
        yield port


def parts_of(answer):
    """[(Content-Range, Content-Type, bytes)], as the email module reads them."""
    assert answer.status == 206
    assert "Content-Range" not in answer
    assert int(answer["Content-Length"]) == len(answer.body)
    top = b"Content-Type: %s\r\n\r\n" % answer["Content-Type"].encode()
    message = email.message_from_bytes(top + answer.body)
    assert message.get_content_type() == "multipart/byteranges"
    assert not message.defects
    parts = message.get_payload()
    return [(part["Content-Range"], part["Content-Type"], part.get_payload(decode=True)) for part in parts]


@pytest.mark.parametrize("asked", [
    [(0, 0), (5, 9)],
    [(5, 9), (0, 0)],                        # in the order asked for
    [(0, 99), (50, 149)],                    # overlapping
    [(10, 19), (10, 19)],
    [(0, 999), (1000, 1999)],                # all of the small one
    [(1, 1)] * 32,
])
@pytest.mark.parametrize(("name", "data"), [("small", SMALL), ("large", LARGE)])
def test_rfc9110_15_3_7_2_several_ranges(ranged, name, data, asked):
    with Http(ranged) as http:
        answer = http.get(f"/{name}.txt", "Range: bytes=" + ", ".join(f"{a}-{b}" for a, b in asked))
        assert http.get("/small.txt").body == SMALL
    assert parts_of(answer) == [
        (f"bytes {a}-{b}/{len(data)}", "text/plain; charset=utf-8", data[a:b + 1]) for a, b in asked
    ]
    assert answer["ETag"] == get(ranged, f"/{name}.txt")["ETag"]


def test_large_parts_arrive_whole(ranged):
    asked = [(0, 1 << 20), (1 << 19, 2 << 20), ((3 << 20) - 5, None)]
    value = ",".join(f"{a}-{'' if b is None else b}" for a, b in asked)
    answer = get(ranged, "/large.txt", f"Range: bytes={value}")
    assert [data for _, _, data in parts_of(answer)] == [LARGE[a:b and b + 1] for a, b in asked]


def test_rfc9110_14_2_what_cannot_be_satisfied_is_left_out(ranged):
    answer = get(ranged, "/small.txt", "Range: bytes=5000-,0-1,-0,-2")
    assert [data for _, _, data in parts_of(answer)] == [SMALL[:2], SMALL[-2:]]
    single = get(ranged, "/small.txt", "Range: bytes=5000-,0-1")
    assert (single.status, single["Content-Range"], single.body) == (206, "bytes 0-1/2000", SMALL[:2])
    none = get(ranged, "/small.txt", "Range: bytes=5000-,6000-")
    assert (none.status, none["Content-Range"]) == (416, "bytes */2000")


@pytest.mark.parametrize("value", ["0-,0-", "0-1999,0-0", ",".join(["0-0"] * 33), "-2000,-1"])
def test_rfc9110_17_15_ranges_that_are_an_attack_get_the_whole(ranged, value):
    answer = get(ranged, "/small.txt", f"Range: bytes={value}")
    assert (answer.status, answer.body) == (200, SMALL)


def test_several_ranges_of_an_encoded_form(coded):
    fields = ["Accept-Encoding: gzip", "Range: bytes=0-1,4-5"]
    assert [data for _, _, data in parts_of(get(coded, "/page.html", *fields))] == [b"<p", b"ag"]
    packed = get(coded, "/page.html", fields[0])["ETag"]
    answer = get(coded, "/page.html", *fields, f"If-Range: {packed}")
    assert answer["Content-Encoding"] == "gzip"
    assert [data for _, _, data in parts_of(answer)] == [b"gz", b"gz"]


# ---- index names ----


@pytest.mark.parametrize(("index", "served"), [
    (("index.html",), b"d/index.html"),
    ("home.htm", b"d/home.htm"),
    (["none.html", "home.htm", "index.html"], b"d/home.htm"),
    (("directory", "index.html"), b"d/index.html"),
    ((), None),
    ("none.html", None),
])
def test_index(tmp_path, index, served):
    write(tmp_path, ["d/index.html", "d/home.htm", "d/directory/a"])
    with serving(Root(tmp_path, index=index)) as port:
        assert get(port, "/d").status == 301
        answer = get(port, "/d/")
    assert (answer.status, answer.body) == ((200, served) if served else (404, b"404 Not Found\n"))


def test_an_index_name_that_comes_first_takes_over_when_it_appears(tmp_path):
    write(tmp_path, ["second.html"])
    with serving(Root(tmp_path, index=("first.html", "second.html"))) as port:
        assert get(port, "/").body == b"second.html"
        write(tmp_path, ["first.html"])
        until(lambda: get(port, "/").body == b"first.html", "the first name")
        (tmp_path / "first.html").unlink()
        until(lambda: get(port, "/").body == b"second.html", "the second name")


# ---- listings ----

ODD = [
    "a:b", "%41", "<script>", "&amp;", "'quoted\"", "sp ace", "javascript:alert(1)", "que?ry", "ha#sh",
    "back\\slash",
    "ümlaut", "new\nline", "~tilde", "-dash", os.fsdecode(b"not-utf8-\xff\xfe"),
]


class Links(html.parser.HTMLParser):
    """What a page links to, and the text there."""

    def __init__(self, page):
        super().__init__()
        self.links, self.tags = [], []
        self.feed(page.decode())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "a":
            self.links.append([dict(attributes)["href"], ""])

    def handle_data(self, data):
        if self.links and self.get_starttag_text().startswith("<a"):
            self.links[-1][1] += data


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    top = tmp_path_factory.mktemp("listed")
    root = write(top / "root", [*(f"odd/{name}" for name in ODD), "with/index.html"])
    write(root, {"mixed/b.txt": b"x" * 1536, "mixed/a.txt": b"", "mixed/sub/c.txt": b""})
    write(root, ["mixed/.hidden"])
    write(top, ["outside/secret.txt"], NEW)
    for name, target in [
        ("link", "a.txt"), ("link-dir", "sub"), ("dangling", "nowhere"), ("loop", "loop"),
        ("out", "../../outside/secret.txt"), ("out-dir", "../../outside"), ("out-absolute", "/etc/passwd"),
    ]:
        (root / "mixed" / name).symlink_to(target)
    os.mkfifo(root / "mixed" / "fifo")
    (root / "<i>&").mkdir()
    free = Root(root, listing=True, follow_symlinks=True)
    with serving({"/": Root(root, listing=True), "/free": free}) as port:
        yield port


def listing(port, target):
    answer = get(port, target, "Accept: application/json")
    assert answer.status == 200
    assert answer["Content-Type"] == "application/json"
    return json.loads(answer.body)


def test_listings_are_off_unless_asked_for(tmp_path):
    write(tmp_path, ["a.txt"])
    with serving(tmp_path) as port:
        assert get(port, "/", "Accept: application/json").status == 404


def test_a_listing_leads_to_every_file_whatever_its_name(listed):
    page = get(listed, "/odd/")
    assert page["Content-Type"] == "text/html; charset=utf-8"
    found = Links(page.body)
    assert "script" not in found.tags
    assert found.links[0] == ["../", "../"]
    names = []
    for href, text in found.links[1:]:
        target = urllib.parse.urljoin(f"http://{listed}/odd/", href)
        assert target.startswith(f"http://{listed}/odd/")
        answer = get(listed, target.removeprefix(f"http://{listed}"))
        assert answer.status == 200
        assert answer.body.decode(errors="replace") == f"odd/{text}"
        names.append(text)
    shown = [os.fsencode(name).decode(errors="replace") for name in sorted(ODD)]
    assert names == shown == [entry["name"] for entry in listing(listed, "/odd/")]


def test_rfc3986_4_2_a_link_is_a_name_escaped_and_nothing_before_it(listed):
    links = [href for href, _ in Links(get(listed, "/odd/").body).links[1:]]
    assert links == [urllib.parse.quote(os.fsencode(name)) for name in sorted(ODD)]
    assert not any(link.startswith(("./", "/")) or ":" in link for link in links)
    assert "sub/" in [href for href, _ in Links(get(listed, "/mixed/").body).links]


def test_a_listing_shows_what_is_served_and_nothing_else(listed):
    assert [(entry["name"], entry["type"], entry.get("size")) for entry in listing(listed, "/mixed/")] == [
        ("link-dir", "directory", None), ("sub", "directory", None),
        ("a.txt", "file", 0), ("b.txt", "file", 1536), ("link", "file", 0),
    ]
    for href, _ in Links(get(listed, "/mixed/").body).links[1:]:
        assert get(listed, urllib.parse.urljoin("/mixed/", href)).status == 200


def test_a_listing_follows_links_out_of_the_root_where_they_are_followed(listed):
    names = {entry["name"]: entry["type"] for entry in listing(listed, "/free/mixed/")}
    assert names["out"] == names["out-absolute"] == "file"
    assert names["out-dir"] == "directory"
    assert "dangling" not in names
    assert "loop" not in names


def test_a_listing_shows_sizes_and_times(listed):
    [entry] = [entry for entry in listing(listed, "/mixed/") if entry["name"] == "b.txt"]
    assert entry["modified"] == "2020-09-13T12:26:40Z"
    page = get(listed, "/mixed/").body
    assert b"<td>1.5 KiB</td><td>2020-09-13 12:26</td>" in page


@pytest.mark.parametrize(("seconds", "shown"), [
    (-1, "1970-01-01T00:00:00Z"), (0, "1970-01-01T00:00:00Z"), (253402300799, "9999-12-31T23:59:59Z"),
    (253402300800, "9999-12-31T23:59:59Z"), (10**12, "9999-12-31T23:59:59Z"), (-10**11, "1970-01-01T00:00:00Z"),
])
def test_a_listing_has_a_date_for_every_time(seconds, shown):
    assert _time(seconds) == shown           # few file systems can store them all


def test_a_listing_names_its_directory_and_does_not_let_it_speak(listed):
    page = get(listed, "/%3Ci%3E&/").body
    assert b"<title>/&lt;i&gt;&amp;/</title>" in page
    assert b"<i>" not in page


def test_the_root_has_no_way_up(listed):
    assert "../" not in [href for href, _ in Links(get(listed, "/").body).links]


def test_a_listing_ends_at_an_index_and_begins_at_a_slash(listed):
    assert get(listed, "/with/").body == b"with/index.html"
    assert get(listed, "/mixed")["Location"] == "mixed/"
    assert get(listed, "/none/").status == 404
    assert get(listed, "/mixed/a.txt/").status == 404
    assert get(listed, "/mixed/out-dir/").status == 404


@pytest.mark.parametrize(("accept", "kind"), [
    ("application/json", "application/json"),
    ("text/plain, Application/JSON;q=0.5", "application/json"),
    ("application/json, text/plain, */*", "application/json"),                # axios
    ("application/json, text/javascript, */*; q=0.01", "application/json"),   # jQuery
    ("application/*, */*;q=0.9", "application/json"),
    ("application/*, */*", "application/json"),
    ("text/html;q=0.5, application/json", "application/json"),
    ("text/html;q=0, */*", "application/json"),
    ("text/*;q=0.1, application/json;q=0.2", "application/json"),
    ("application/json;q=0", "text/html; charset=utf-8"),
    ("application/json;q=0, */*", "text/html; charset=utf-8"),
    ("text/html, application/json;q=0.1", "text/html; charset=utf-8"),
    ("application/json, text/html", "text/html; charset=utf-8"),
    ("application/json;q=0.5, text/*", "text/html; charset=utf-8"),
    ("application/*;q=0.5, application/json;q=0.1, text/html;q=0.2", "text/html; charset=utf-8"),
    ("application/json;q=0.5, */*", "text/html; charset=utf-8"),
    ("application/jso, application/jsonx, applicatio/*, a/*, /*, *", "text/html; charset=utf-8"),
    ("*/*", "text/html; charset=utf-8"),                                      # curl
    ("", "text/html; charset=utf-8"),
    ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html; charset=utf-8"),
])
def test_rfc9110_12_5_1_a_listing_is_json_to_those_who_ask(listed, accept, kind):
    answer = get(listed, "/mixed/", f"Accept: {accept}")
    assert answer["Content-Type"] == kind
    assert answer["Vary"] == "Accept"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Cache-Control"] == "no-cache"


def test_rfc9110_5_3_accept_in_two_fields_is_one_list(listed):
    answer = get(listed, "/mixed/", "Accept: text/html;q=0.5", "Accept: application/json;q=0.6")
    assert answer["Content-Type"] == "application/json"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_rfc9110_13_1_2_a_listing_that_has_not_changed_is_304(tmp_path, method):
    write(tmp_path, ["d/a.txt"])
    tags = set()
    with serving(Root(tmp_path, listing=True, headers={"A": "b"}, cors="*")) as port, Http(port) as http:
        for accept in ("text/html", "application/json"):
            fields = ["Origin: https://a.example", f"Accept: {accept}"]
            answer = http.get("/d/", *fields, method=method)
            tag = answer["ETag"]
            assert not tag.startswith("W/")
            assert "Last-Modified" not in answer
            tags.add(tag)
            for condition in (f"If-None-Match: {tag}", f"If-None-Match: W/{tag}", "If-None-Match: *"):
                again = http.get("/d/", *fields, condition, method=method)
                assert (again.status, again.body) == (304, b"")
                kept = [field for field in no_date(answer) if field[0] not in ("Content-Type", "Content-Length")]
                assert no_date(again) == kept
            assert http.get("/d/", *fields, 'If-None-Match: "x"', method=method).status == 200
            assert http.get("/d/", *fields, 'If-Match: "x"', method=method).status == 412
            assert http.get("/d/", *fields, f"If-Match: {tag}", method=method).status == 200
            since = "If-Modified-Since: Sun, 06 Nov 2094 08:49:37 GMT"
            assert http.get("/d/", *fields, since, method=method).status == 200
        assert len(tags) == 2
        write(tmp_path, ["d/b.txt"])
        until(lambda: http.get("/d/", f"If-None-Match: {tag}", "Accept: application/json", method=method).status == 200,
              "the change to be seen")


def test_a_listing_is_as_fresh_as_a_file(tmp_path):
    with serving(Root(tmp_path, listing=True)) as port:
        assert listing(port, "/") == []
        write(tmp_path, ["a.txt"])
        until(lambda: [entry["name"] for entry in listing(port, "/")] == ["a.txt"], "the file in the listing")


@contextlib.contextmanager
def opened(*directories):
    fds = [os.open(directory, os.O_RDONLY) for directory in directories]
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


def test_a_listing_is_made_once_a_second_for_each_way_to_see_it(tmp_path):
    write(tmp_path, ["one/a", "two/a"])
    listings = Listings()
    with opened(tmp_path / "one", tmp_path / "two", tmp_path) as (one, two, top):
        ways = [(one, -1, b"/", False, False), (one, -1, b"/", False, True), (one, -1, b"/x/", False, False),
                (one, top, b"/", False, False), (two, -1, b"/", False, False), (one, -1, b"/", True, False)]
        before = [listings.page(*way, 5000) for way in ways]
        write(tmp_path, ["one/new", "two/new"])
        assert [listings.page(*way, 5999) for way in ways] == before
        after = [listings.page(*way, 6000)[0] for way in ways]
        assert all(b"new" in text for text in after)
        assert after == [page(*way) for way in ways]


def test_few_listings_are_remembered(tmp_path):
    listings = Listings()
    with opened(tmp_path) as (top,):
        for i in range(17):
            listings.page(top, -1, b"/%d/" % i, False, False, 5000)
        write(tmp_path, ["new"])
        assert b"new" not in listings.page(top, -1, b"/1/", False, False, 5000)[0]
        assert b"new" in listings.page(top, -1, b"/0/", False, False, 5000)[0]


@pytest.mark.parametrize(("entries", "shown"), [(MOST, MOST), (MOST + 1, MOST)])
def test_a_listing_of_very_many_says_that_it_is_not_whole(tmp_path, entries, shown):
    for i in range(entries):
        (tmp_path / str(i)).touch()
    with serving(Root(tmp_path, listing=True)) as port:
        text = get(port, "/").body
        assert len(Links(text).links) == len(listing(port, "/")) == shown
    assert (b"more than 3,000 entries; the others are not shown" in text) == (shown < entries)


# ---- single pages and pages not found ----

BROWSER = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.fixture(scope="module")
def spa(tmp_path_factory):
    root = write(tmp_path_factory.mktemp("spa"), ["index.html", "index.html.gz", "app.js", "empty/a.txt"])
    with serving(Root(root, spa=True), websocket="/ws", mime_types={"own": "text/x-own"}) as port:
        yield port


@pytest.mark.parametrize(("target", "accept", "status"), [
    ("/", BROWSER, 200),
    ("/users/7", BROWSER, 200),
    ("/users/7?tab=1", BROWSER, 200),
    ("/users/", BROWSER, 200),
    ("/empty/", BROWSER, 200),               # a directory without an index is no page of its own
    ("/v1.2/users", BROWSER, 200),
    ("/users/7", "Accept: */*", 200),
    ("/users/7", "Accept: application/json", 404),
    ("/users/7", "X: y", 200),               # RFC 9110 section 12.5.1: anything will do
    ("/users/7", "Accept: text/html;q=0", 404),
    ("/users/7", "Accept: text/*", 200),
    ("/users/7", "Accept: */*, text/html;q=0.001", 200),
    ("/missing.js", BROWSER, 404),           # better a 404 than HTML that is run as a script
    ("/static/missing.png", BROWSER, 404),
    ("/missing.JS", BROWSER, 404),
    ("/missing.own", BROWSER, 404),          # mime_types has it
    ("/v1.2", BROWSER, 200),
    ("/users/a.b", BROWSER, 200),
    ("/users/a.b/edit", BROWSER, 200),
    ("/user/a.b@example.org", BROWSER, 200),
    ("/user/a.b%40example.pl", BROWSER, 200),        # .pl is Perl's, and Poland's
    ("/script.pl", BROWSER, 404),
    ("/logo@2x.png", BROWSER, 404),
    ("/vue@3.js", BROWSER, 404),
    ("/.hidden", BROWSER, 200),
    # RFC 8615; Chromium asks for the last to learn whether the others can be believed ("change-password", W3C).
    *[(f"/.well-known/{name}", BROWSER, 404) for name in (
        "change-password", "resource-that-should-not-exist-whose-status-code-should-not-be-200"
    )],
    ("/.well-known", BROWSER, 200),
    ("/ws", BROWSER, 426),
    *[("/users/7", f"Sec-Fetch-Dest: {dest}", 200) for dest in ("document", "iframe", "frame", "fencedframe")],
    *[("/users/7", f"Sec-Fetch-Dest: {dest}", 404) for dest in ("empty", "script", "image", "manifest", "x")],
])
def test_spa(spa, target, accept, status):
    answer = get(spa, target, accept)
    assert answer.status == status
    assert (answer.body == b"index.html") == (status == 200)
    assert no_date(get(spa, target, accept, method="HEAD")) == no_date(answer)


def test_a_single_page_has_its_own_validators_and_forms(spa):
    page = get(spa, "/users/7", BROWSER)
    assert page["ETag"] == get(spa, "/index.html")["ETag"]
    assert get(spa, "/users/8", BROWSER, f"If-None-Match: {page['ETag']}").status == 304
    assert get(spa, "/users/8", BROWSER, "Accept-Encoding: gzip").body == b"index.html.gz"


def test_rfc9110_12_5_5_what_depends_on_accept_says_so(spa):
    for answer in (
        get(spa, "/users/7", BROWSER), get(spa, "/users/7", BROWSER, "If-None-Match: *"),
        get(spa, "/users/7", BROWSER, "Accept-Encoding: gzip"), get(spa, "/users/7"),
    ):
        assert "Accept, Sec-Fetch-Dest" in answer.all("Vary")
    for target in ("/", "/app.js", "/missing.js"):
        assert "Accept, Sec-Fetch-Dest" not in get(spa, target, BROWSER).all("Vary")


def test_spa_without_an_index_is_a_404(tmp_path):
    with serving(Root(tmp_path, spa=True)) as port:
        assert get(port, "/users", BROWSER).status == 404


def test_404_html(tmp_path):
    write(tmp_path, ["one/404.html", "two/a.txt"])
    one = Root(tmp_path / "one", cache={"*": "max-age=31536000, immutable"})
    with serving({"/": one, "/two": tmp_path / "two"}) as port, Http(port) as http:
        for target in ("/missing", "/missing/", "/.hidden"):
            answer = http.get(target)
            assert (answer.status, answer.reason, answer.body) == (404, "Not Found", b"one/404.html")
            assert answer["Content-Type"] == "text/html; charset=utf-8"
            assert answer["X-Content-Type-Options"] == "nosniff"
            assert "ETag" not in answer                       # they are of another resource
            assert "Last-Modified" not in answer
            assert "Cache-Control" not in answer              # a name that comes to be has to be found
            assert no_date(http.get(target, method="HEAD")) == no_date(answer)
            conditional = http.get(target, "If-None-Match: *", "Range: bytes=0-0")
            assert (conditional.status, conditional.body) == (404, b"one/404.html")
        assert http.get("/404.html").status == 200
        assert http.get("/two/missing").body == b"404 Not Found\n"


def test_a_large_404_html(tmp_path):
    write(tmp_path, {"404.html": LARGE})
    with serving(tmp_path) as port, Http(port) as http:
        assert http.get("/missing").body == LARGE
        assert http.get("/404.html").status == 200


# ---- Cache-Control ----


@pytest.mark.parametrize(("target", "expected"), [
    ("/", ["no-cache"]),
    ("/index.html", ["no-cache"]),
    ("/docs/a.html", ["no-cache"]),
    ("/docs/", ["no-cache"]),
    ("/assets/a.html", ["no-cache"]),        # the first that fits
    ("/assets/app.js", ["public, max-age=31536000, immutable"]),
    ("/assets/deep/er/font.woff2", ["public, max-age=31536000, immutable"]),
    ("/v1/file.bin", ["max-age=1"]),
    ("/plain.txt", []),
    ("/home/", ["no-store"]),
])
def test_cache_by_pattern(tmp_path, target, expected):
    files = [
        "index.html", "docs/a.html", "docs/index.html", "assets/a.html", "assets/app.js",
        "assets/deep/er/font.woff2", "v1/file.bin", "plain.txt", "home/home.htm",
    ]
    write(tmp_path, [*files, "assets/app.js.gz"])
    cache = {
        "*.html": "no-cache", "/assets/*": "public, max-age=31536000, immutable", "/v?/*": "max-age=1",
        "*.htm": "no-store",
    }
    with serving(Root(tmp_path, cache=cache, index=("index.html", "home.htm"))) as port:
        answer = get(port, target)
        assert answer.status == 200
        assert answer.all("Cache-Control") == expected
        for more in ("Range: bytes=0-0", "Range: bytes=0-0,1-1", "If-None-Match: *", "Accept-Encoding: gzip"):
            assert get(port, target, more).all("Cache-Control") == expected


@pytest.mark.parametrize(("pattern", "fits"), [
    ("/index.html", {"/", "/index.html"}),
    ("/docs/*.html", {"/docs/", "/docs/index.html"}),
    ("/docs/*", {"/docs/", "/docs/index.html", "/docs/[id].js"}),
    ("/*.html", {"/", "/index.html", "/docs/", "/docs/index.html"}),
    ("[id].js", {"/docs/[id].js"}),
    ("/docs/[id].js", {"/docs/[id].js"}),
    ("[id]*", {"/docs/[id].js"}),
    ("[i]*", set()),
    ("i", set()),
    ("?.txt", {"/i.txt"}),
    ("back\\slash", {"/back%5Cslash"}),
    ("back\\*", {"/back%5Cslash"}),
    ("\\i.txt", set()),
    ("*\\", set()),
    ("*]*", {"/docs/[id].js"}),
])
def test_star_and_question_mark_alone_are_wild_and_an_index_has_its_name(tmp_path, pattern, fits):
    write(tmp_path, ["index.html", "docs/index.html", "docs/[id].js", "i.txt", "back\\slash"])
    targets = ["/", "/index.html", "/docs/", "/docs/index.html", "/docs/[id].js", "/i.txt", "/back%5Cslash"]
    with serving(Root(tmp_path, cache={pattern: "no-cache"})) as port:
        assert {target for target in targets if "Cache-Control" in get(port, target)} == fits


def test_patterns_are_of_one_root(tmp_path):
    write(tmp_path, ["a.txt"])
    with serving({"/": tmp_path, "/kept": Root(tmp_path, cache={"*": "max-age=9"})}) as port:
        assert "Cache-Control" not in get(port, "/a.txt")
        assert get(port, "/kept/a.txt")["Cache-Control"] == "max-age=9"


MAX_HEAD = 1024                 # bytes, as http.pxd has it


def test_the_longest_settings_find_room(tmp_path):
    write(tmp_path, ["a.txt.gz", "dir/b", "404.html"], NEW)
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(1 << 40)
    os.utime(tmp_path / "a.txt", (OLD, OLD))
    origin = "https://" + "o" * 300
    fields = {"Content-Security-Policy": "c" * 4000, "X-More": "m" * (8192 - 23 - 4 - 4000 - 6 - 4)}
    root = Root(tmp_path, cache={"*": "c" * 1024}, cors=[origin, OTHER], headers=fields, listing=True, spa=True,
                charset="c" * 40)
    said = 8192 + len("X-Content-Type-Options: nosniff\r\n") + 1024 + len(origin)
    with serving(root, mime_types={"txt": "text/" + "t" * 123}) as port, Http(port) as http:
        for target, more in [
            ("/a.txt", ["Accept-Encoding: gzip"]), ("/a.txt", ["Accept-Encoding: gzip", "Range: bytes=1-9"]),
            ("/a.txt", ["Range: bytes=1099511627775-"]), ("/a.txt", ["Range: bytes=0-0,1-1,2-2"]),
            ("/a.txt", ["If-None-Match: *"]), ("/missing", []), ("/dir/", []), ("/missing.txt", []),
        ]:
            answer = http.get(target, f"Origin: {origin}", *more, "Connection: keep-alive", version="1.0")
            head = "HTTP/1.1 206 Partial Content\r\n\r\n" + "".join(f"{n}: {v}\r\n" for n, v in answer.fields)
            assert len(head) <= MAX_HEAD + said
            assert answer["Access-Control-Allow-Origin"] == origin
            assert {name: answer[name] for name in fields} == fields
            if target == "/a.txt":
                assert answer["Cache-Control"] == "c" * 1024
        answer = http.get("/dir?" + "q" * 8000, f"Origin: {origin}")
        assert answer["Location"] == "dir/?" + "q" * 8000


@pytest.mark.parametrize(("arguments", "says"), [
    ({"headers": {"A": "x" * 8187, "B": None}}, None),
    ({"headers": {"A": "x" * 8188}}, "headers: more than 8192 bytes in all"),
    ({"headers": {"A": "x" * 8183, "B": ""}}, "headers: the value of B is empty"),
    ({"headers": {"A": "x" * 2000 + "\n"}}, r"headers: the value of A has '\\n' in it: control characters"),
    ({"headers": {"A": "caf\u00e9"}}, "headers: the value of A has 'é' in it: .* what is not ASCII can't"),
    ({"cache": {"*.x": "x" * 1024}}, None),
    ({"cache": {"*.x": "x" * 1025}}, r"cache: the value for '\*.x' is longer than 1024 bytes"),
    ({"headers": {"cache-control": "no-store"}}, None),
    ({"headers": {"cache-control": None}, "cache": {"*.x": "no-cache"}}, None),
    ({"headers": {"cache-control": "no-store"}, "cache": {"*.x": "no-cache"}}, r'headers: .*: use cache=\{"\*": ...\}'),
    ({"headers": {"cache-control": "no-store"}, "listing": True}, r'headers: .*: use cache=\{"\*": ...\}'),
])
def test_what_is_wrong_with_a_field_is_said(tmp_path, arguments, says):
    if says is None:
        Root(tmp_path, **arguments)
        return
    with pytest.raises(ValueError, match=f"^{says}"):
        Root(tmp_path, **arguments)


# ---- more header fields ----


@pytest.mark.parametrize(("headers", "expected"), [
    ({}, {"X-Content-Type-Options": ["nosniff"]}),
    ({"X-Content-Type-Options": None}, {"X-Content-Type-Options": []}),
    ({"x-content-type-options": None}, {"X-Content-Type-Options": []}),
    ({"x-content-type-options": "other"}, {"X-Content-Type-Options": ["other"]}),
    ({"Referrer-Policy": "same-origin"},
     {"Referrer-Policy": ["same-origin"], "X-Content-Type-Options": ["nosniff"]}),
    ({"X-A": "1", "x-a": "2"}, {"X-A": ["2"]}),
    ({"X-Absent": None}, {"X-Absent": []}),
    ({"Content-Security-Policy": "default-src 'self'; img-src *"},
     {"Content-Security-Policy": ["default-src 'self'; img-src *"]}),
])
def test_headers(tmp_path, headers, expected):
    write(tmp_path, ["a.txt", "404.html"])
    with serving(Root(tmp_path, headers=headers, listing=True)) as port:
        for target, more in [
            ("/a.txt", []), ("/a.txt", ["Range: bytes=0-0"]), ("/a.txt", ["If-None-Match: *"]),
            ("/missing", []), ("/", []),
        ]:
            answer = get(port, target, *more)
            assert {name: answer.all(name) for name in expected} == expected


# ---- CORS (Fetch section 3.2) ----

ORIGIN, OTHER = "https://example.org", "https://evil.example"
KINDS = [                                    # (target, fields): one for each way to answer
    ("/a.txt", []), ("/a.txt", ["Range: bytes=0-0"]), ("/a.txt", ["If-None-Match: *"]), ("/dir", []),
    ("/missing", []),
    ("/a.txt", ['If-Match: "x"']), ("/a.txt", ["Range: bytes=99-"]), ("/dir/", []),
    ("/a.txt", ["Range: bytes=0-0,1-1"]),
]


@pytest.fixture(scope="module", params=["without-404.html", "with-404.html"])
def shared(request, tmp_path_factory):
    root = write(tmp_path_factory.mktemp("cors"), ["a.txt", "a.txt.gz", "dir/a.txt"])
    if request.param == "with-404.html":
        write(root, ["404.html"])
    roots = {
        "/": Root(root, listing=True),
        "/some": Root(root, listing=True, cors=["http://localhost:3000", ORIGIN]),
        "/any": Root(root, listing=True, cors="*"),
    }
    with serving(roots) as port:
        yield port


def permission(answer):
    return answer.all("Access-Control-Allow-Origin")


@pytest.mark.parametrize(("target", "fields"), KINDS)
def test_cors_of_some_origins(shared, target, fields):
    with Http(shared) as http:
        for origin in (ORIGIN, "http://localhost:3000"):
            answer = http.get("/some" + target, f"Origin: {origin}", *fields)
            assert permission(answer) == [origin]
            assert answer["Access-Control-Expose-Headers"] == "*"
            assert "Origin" in answer.all("Vary")
        for more in (
            [], [f"Origin: {OTHER}"], ["Origin: null"], [f"Origin: {ORIGIN}.evil.example"],
            [f"Origin: {ORIGIN}", f"Origin: {OTHER}"], [f"Origin: {ORIGIN}"] * 2,
        ):
            answer = http.get("/some" + target, *more, *fields)
            assert permission(answer) == []
            assert "Access-Control-Expose-Headers" not in answer
            assert "Origin" in answer.all("Vary")             # or a cache would hand this out to the others


@pytest.mark.parametrize(("target", "fields"), KINDS)
def test_cors_of_any_origin(shared, target, fields):
    for more in ([], [f"Origin: {OTHER}"]):
        answer = get(shared, "/any" + target, *more, *fields)
        assert permission(answer) == ["*"]
        assert "Origin" not in answer.all("Vary")


@pytest.mark.parametrize(("target", "fields"), KINDS)
def test_no_cors_unless_asked_for(shared, target, fields):
    answer = get(shared, target, f"Origin: {ORIGIN}", *fields)
    assert permission(answer) == []
    assert "Origin" not in answer.all("Vary")


@pytest.mark.parametrize(("method", "fields", "status"), [
    ("POST", [], 405), ("BREW", [], 501), ("GET", ["Expect: miracles"], 417),
])
def test_cors_of_answers_that_are_only_a_status(shared, method, fields, status):
    for prefix, origin, allowed in [("/some", ORIGIN, ORIGIN), ("/some", OTHER, None), ("/any", OTHER, "*")]:
        answer = get(shared, prefix + "/a.txt", f"Origin: {origin}", *fields, method=method)
        assert answer.status == status
        assert permission(answer) == ([allowed] if allowed else [])
        assert ("Origin" in answer.all("Vary")) == (prefix == "/some")


@pytest.mark.parametrize(("given", "sent"), [
    ("https://Example.ORG", "https://example.org"), ("HTTPS://x.org", "https://x.org"),
    ("https://x.org:443", "https://x.org"), ("http://x:80", "http://x"), ("HTTP://X:80", "http://x"),
    ("http://x:443", "http://x:443"), ("https://x:80", "https://x:80"), ("http://x:8080", "http://x:8080"),
    ("http://[::1]:80", "http://[::1]"), ("http://[::80]", "http://[::80]"),
    ("app://Some:80", "app://Some:80"),
])
def test_an_origin_is_allowed_as_browsers_send_it(tmp_path, given, sent):
    write(tmp_path, ["a.txt"])
    server = Server(Root(tmp_path, cors=given), ports=[0])
    server.websocket("/ws", origins=given)
    with server:
        assert permission(get(server.ports[0], "/a.txt", f"Origin: {sent}")) == [sent]
        with Http(server.ports[0]) as http:
            http.send(handshake("/ws", f"Origin: {sent}"))
            assert http.take_line() == b"HTTP/1.1 101 Switching Protocols"


@pytest.mark.parametrize(("given", "mended"), [
    ("https://Example.org/", "https://example.org"), ("https://x.org:443/", "https://x.org"),
    ("https://x.org/app/", "https://x.org"), ("https://x.org?a=b/", "https://x.org"), ("app://x/", "app://x"),
])
def test_an_origin_with_a_path_is_refused_and_mended(tmp_path, given, mended):
    for refused, name in [
        (lambda: Root(tmp_path, cors=given), "cors"),
        (lambda: Server(tmp_path).websocket("/ws", origins=given), "origins"),
    ]:
        with pytest.raises(ValueError, match=f"^{name}: .* is not an origin .*: write {mended!r}$"):
            refused()


@pytest.mark.parametrize(("prefix", "origin", "allowed"), [
    ("/some", ORIGIN, ORIGIN), ("/some", OTHER, None), ("/any", OTHER, "*"), ("", ORIGIN, None),
])
def test_cors_preflight(shared, prefix, origin, allowed):
    answer = get(
        shared, prefix + "/a.txt", f"Origin: {origin}", "Access-Control-Request-Method: GET",
        "Access-Control-Request-Headers: range", method="OPTIONS",
    )
    assert answer.status == 204
    assert permission(answer) == ([allowed] if allowed else [])
    assert ("Access-Control-Allow-Methods" in answer) == (allowed is not None)
    assert answer.all("Access-Control-Allow-Headers") == (["range"] if allowed else [])
    assert ("Origin" in answer.all("Vary")) == (prefix == "/some")


# ---- names that are hidden, links that lead out ----


def test_rfc8615_well_known_is_served_and_other_dot_names_are_not(tmp_path):
    write(tmp_path, [".well-known/acme/token", ".well-known/.secret", "d/.well-known/a", ".env", ".git/a"])
    with serving(Root(tmp_path, listing=True)) as port:
        assert get(port, "/.well-known/acme/token").body == b".well-known/acme/token"
        assert [entry["name"] for entry in listing(port, "/.well-known/")] == ["acme"]
        for target in (
            "/.well-known/.secret", "/d/.well-known/a", "/.env", "/.git/config", "/.git/",
            "/.well-known/../.env",
            "/%2eenv", "/.well-known/%2e%2e/.env", "/d/../.env", "/.well-known/./.secret", "/d/../.git/a",
        ):
            assert get(port, target).status == 404, target
        assert get(port, "/.git/../.well-known/acme/token").body == b".well-known/acme/token"
        assert [entry["name"] for entry in listing(port, "/.well-known/%2e%2e/d/")] == []


@pytest.mark.parametrize("more", [{}, {"follow_symlinks": True}])
def test_dotfiles(tmp_path, more):
    root = write(tmp_path / "root", [".zgroup", ".zgroup.gz", "a/.zarray", ".d/b", "a/.well-known/x", "...", "..x",
                                     ".404"])
    write(tmp_path, ["canary.txt"], NEW)
    roots = {"/": Root(root, dotfiles=True, listing=True, **more), "/plain": Root(root, listing=True, **more)}
    with serving(roots) as port, Http(port) as http:
        for name in (".zgroup", "a/.zarray", ".d/b", "a/.well-known/x", "...", "..x"):
            assert http.get(f"/{name}").body == name.encode()
            assert http.get(f"/plain/{name}").status == 404
        assert http.get("/.zgroup", "Accept-Encoding: gzip").body == b".zgroup.gz"
        assert http.get("/.d")["Location"] == ".d/"
        assert [entry["name"] for entry in listing(port, "/.d/")] == ["b"]
        names = [entry["name"] for entry in listing(port, "/")]
        assert names == [".d", "a", "...", "..x", ".404", ".zgroup", ".zgroup.gz"]
        assert [entry["name"] for entry in listing(port, "/plain/")] == ["a"]
        for target in ("/../canary.txt", "/%2e%2e/canary.txt", "/a/../../canary.txt", "/.d/../../canary.txt", "/.."):
            answer = http.get(target)
            assert (answer.status, answer.body) == (404, b"404 Not Found\n")


def test_escaped_slashes(tmp_path):
    write(tmp_path, {"@scope/name/index.html": "package", "@scope/name/a.txt": "a", "secret.txt": "s"})
    roots = {"/": tmp_path, "/npm": Root(tmp_path, escaped_slashes=True)}
    with serving(roots, websocket="/ws/x") as port:
        for target, status, body in [
            ("/npm/@scope%2fname/", 200, b"package"), ("/npm/@scope%2Fname%2fa.txt", 200, b"a"),
            ("/npm/%40scope%2f%2Fname//a.txt", 200, b"a"), ("/npm%2f@scope/name/a.txt", 200, b"a"),
            ("/npm/@scope%2fname%2f..%2f%2e%2e%2fsecret.txt", 200, b"s"), ("/npm/%2f..%2f..%2f..%2fx", 400, None),
            ("/npm/x%2F.hidden", 404, None), ("/npm/..%2fsecret.txt", 400, None),    # it is the other root's
            ("/@scope%2fname/", 400, None), ("/@scope%2Fname/a.txt", 400, None), ("/x%2fy", 400, None),
            ("/npm/%252f", 404, None), ("/@scope%252fname/a.txt", 404, None), ("/ws%2fx", 400, None),
            ("http://test/@scope%2fname/", 400, None),
        ]:
            with Http(port) as http:
                answer = http.get(target)
                assert (answer.status, answer.body) == (status, answer.body if body is None else body), target
                if status == 400:
                    assert answer["Connection"] == "close"
                    assert http.drained() == 0
                else:
                    assert http.get("/secret.txt").body == b"s"
        redirect = get(port, "/npm/@scope%2fname?q")
        assert (redirect.status, redirect["Location"]) == (301, "@scope%2fname/?q")
        url = urllib.parse.urljoin("/npm/@scope%2fname?q", redirect["Location"])
        assert get(port, url).body == b"package"
        with Http(port) as http:
            http.send(request("/@scope%2fname/") + request("/secret.txt"))
            assert http.rest().count(b"HTTP/1.1 ") == 1


def test_follow_symlinks(tmp_path):
    root = write(tmp_path / "root", ["a.txt"])
    write(tmp_path, ["outside/b.txt"])
    for name, target in [
        ("in", "a.txt"), ("out", "../outside/b.txt"), ("dir", "../outside"),
        ("absolute", tmp_path / "outside"),
    ]:
        (root / name).symlink_to(target)
    with serving({"/": root, "/free": Root(root, follow_symlinks=True)}) as port:
        assert get(port, "/in").body == get(port, "/free/in").body == b"a.txt"
        for target in ("/out", "/dir/b.txt", "/absolute/b.txt"):
            assert get(port, target).status == 404
            assert get(port, f"/free{target}").body == b"outside/b.txt"
        for target in ("/..", "/../outside/b.txt", "/dir/%2e%2e/b.txt", "/%2e%2e/outside/b.txt"):
            assert get(port, f"/free{target}").status == 404, target


# ---- several roots ----


@pytest.mark.parametrize(("host", "target", "served"), [
    ("other.example", "/a.txt", b"any"),
    ("other.example", "/assets/a.txt", b"any-assets"),
    ("other.example", "/assets/deep/a.txt", b"deep"),
    ("other.example", "/assetsx/a.txt", None),
    ("other.example", "/%61ssets/a.txt", b"any-assets"),
    ("static.example.org", "/a.txt", b"static"),
    ("STATIC.Example.ORG:8080", "/a.txt", b"static"),
    ("static.example.org", "/assets/a.txt", None),            # this host's roots come before any host's
    ("static.example.org.", "/a.txt", b"static"),             # RFC 3986 section 3.2.2
    ("Static.example.org.:80", "/a.txt", b"static"),
    ("static.example.org..", "/a.txt", b"any"),
    ("static.example.org.:", "/a.txt", b"static"),
    ("dotted.example", "/a.txt", b"dotted"),
    ("dotted.example.", "/a.txt", b"dotted"),
    ("other.example", "/.well-known/acme/a.txt", b"acme"),
    ("other.example", "/a%20b/a.txt", b"spaced"),
    ("xstatic.example.org", "/a.txt", b"any"),
    ("static.example.org.evil.example", "/a.txt", b"any"),
    ("static.example.org", "/sub/a.txt", b"static-sub"),
    ("intranet", "/a.txt", b"intranet"),
    ("intranet.:80", "/a.txt", b"intranet"),
    ("localhost:8001", "/a.txt", b"local"),
    ("[::1]", "/a.txt", b"six"),
    ("[::1]:80", "/a.txt", b"six"),
    ("[::2]", "/a.txt", b"any"),
    ("other.example", "http://static.example.org/a.txt", b"static"),      # RFC 9112 section 3.2.2
    ("static.example.org", "http://other.example/a.txt", b"any"),
])
def test_roots_by_prefix_and_host(tmp_path, host, target, served):
    places = {
        "/": "any", "/assets": "any-assets", "/assets/deep/": "deep", "static.example.org/": "static",
        "Static.example.org/sub": "static-sub", "[::1]/": "six", "dotted.example./": "dotted",
        "intranet./": "intranet", "Localhost/": "local",
        "/.well-known/acme": "acme", "/a b": "spaced", "/100%": "percent",
    }
    roots = {place: write(tmp_path / name, {"a.txt": name}) for place, name in places.items()}
    with serving(roots) as port:
        answer = get(port, target, host=host)
    assert (answer.status, answer.body) == ((200, served) if served else (404, b"404 Not Found\n"))


def test_the_same_directory_may_be_served_in_two_ways(tmp_path):
    write(tmp_path, ["a.txt", "a.txt.gz"])
    roots = {"/": Root(tmp_path, cache={"*": "no-cache"}), "/raw": Root(tmp_path, sidecars=False)}
    with serving(roots) as port, Http(port) as http:
        for _ in range(2):
            packed, raw = (http.get(f"{prefix}/a.txt", "Accept-Encoding: gzip") for prefix in ("", "/raw"))
            assert (packed.body, raw.body) == (b"a.txt.gz", b"a.txt")
            assert packed["Cache-Control"] == "no-cache"
            assert "Cache-Control" not in raw


def test_a_prefix_without_its_slash_is_redirected(tmp_path):
    write(tmp_path, ["index.html"])
    with serving({"/app": tmp_path}) as port:
        answer = get(port, "/app?x=1")
        assert (answer.status, answer["Location"]) == (301, "app/?x=1")
        assert get(port, "/app/").body == b"index.html"
        assert get(port, "/").status == 404


# ---- media types ----


@pytest.mark.parametrize(("name", "kind"), [
    ("a.html", "text/html; charset=utf-8"),
    ("a.js", "text/javascript; charset=utf-8"),
    ("a.mjs", "text/javascript; charset=utf-8"),
    ("a.css", "text/css; charset=utf-8"),
    ("a.json", "application/json"),
    ("a.wasm", "application/wasm"),
    ("a.avif", "image/avif"),
    ("a.webp", "image/webp"),
    ("a.svg", "image/svg+xml"),
    ("a.webmanifest", "application/manifest+json"),
    ("a.woff2", "font/woff2"),
    ("a.mp4", "video/mp4"),
    ("a.webm", "video/webm"),
    ("a.pdf", "application/pdf"),
    ("a.zip", "application/zip"),
    ("a.gz", "application/gzip"),
    ("a.tar.gz", "application/gzip"),
    ("a.xml", "text/xml"),                   # RFC 7303 section 3: it says so itself
    ("a.xsl", "application/xml"),
    ("a.foo-xml", "text/x-own+xml"),
    ("a.apng", "image/apng"),
    ("a.jfif", "image/jpeg"),
    ("a.jp2", "image/jp2"),
    ("a.m4b", "audio/mp4"),
    ("a.mka", "audio/x-matroska"),
    ("a.kar", "audio/midi"),
    ("a.asx", "video/x-ms-asf"),
    ("a.svgz", "application/octet-stream"),  # it would have to say that it is compressed
    ("a.pmtiles", "application/vnd.pmtiles"),
    ("a.deb", "application/vnd.debian.binary-package"),
    ("a.fgb", "application/vnd.flatgeobuf"),
    ("a-1.0-py3-none-any.whl", "application/zip"),
    ("a.ttl", "text/turtle; charset=utf-8"),
    ("a.xslt", "application/xslt+xml"),
    ("a.ttml", "application/ttml+xml"),
    ("a.ktx2", "image/ktx2"),
    ("a.arrow", "application/vnd.apache.arrow.file"),
    ("a.mvt", "application/vnd.mapbox-vector-tile"),
    ("a.pkpass", "application/vnd.apple.pkpass"),
    ("a.plist", "application/x-plist"),
    ("a.wgsl", "text/wgsl; charset=utf-8"),
    ("a.obj", "model/obj"),
    ("a.mtl", "model/mtl"),
    ("a.m4s", "video/iso.segment"),
    ("a.vcf", "text/vcard; charset=utf-8"),
    ("a.unheard-of", "application/octet-stream"),
    ("A.HTML", "text/html; charset=utf-8"),
    ("a.geojson", "application/geo+json"),   # from here on by mime_types
    ("a.TXT", "text/x-own; charset=utf-8"),
    ("a.foo", "text/plain; charset=latin-1"),
])
def test_mime_types(tmp_path, name, kind):
    write(tmp_path, [name])
    mine = {"foo-xml": "text/x-own+xml"}
    mine |= {"geojson": "application/geo+json", ".TXT": "text/x-own", "foo": "text/plain; charset=latin-1"}
    with serving(tmp_path, mime_types=mine) as port:
        assert get(port, f"/{name}")["Content-Type"] == kind


@pytest.mark.parametrize(("charset", "said"), [
    ({}, "; charset=utf-8"), ({"charset": None}, ""), ({"charset": "Windows-1252"}, "; charset=Windows-1252"),
])
def test_charset(tmp_path, charset, said):
    write(tmp_path, ["a.html", "a.txt", "a.xml", "a.svg", "a.json", "a.own", "a.latin", "404.html"])
    mine = {"own": "TEXT/x-own", "latin": "text/plain; charset=latin-1"}
    with serving(Root(tmp_path, **charset), mime_types=mine) as port, Http(port) as http:
        for name, kind in {
            "a.html": "text/html" + said, "a.txt": "text/plain" + said, "a.own": "TEXT/x-own" + said,
            "a.latin": "text/plain; charset=latin-1", "missing": "text/html" + said,
            "a.xml": "text/xml", "a.svg": "image/svg+xml", "a.json": "application/json",
        }.items():
            for fields in ([], [], ["Range: bytes=0-0"], ["Origin: https://a.example"]):
                assert http.get(f"/{name}", *fields)["Content-Type"] == kind
        parts = http.get("/a.txt", "Range: bytes=0-0,2-2").body
        assert parts.count(f"Content-Type: text/plain{said}\r\n".encode()) == 2


@pytest.mark.parametrize("charset", ["", "utf 8", "utf-8;x", "x" * 41, "é"])
def test_what_is_no_charset_is_refused(tmp_path, charset):
    with pytest.raises(ValueError, match=r"^charset: .* is not the name of a character encoding, or \"none\"$"):
        Root(tmp_path, charset=charset)
    Root(tmp_path, charset="x" * 40)


# ---- methods ----


@pytest.mark.parametrize("target", ["/a.txt", "/missing", "/dir", "*", "/ws"])
def test_rfc9110_9_3_7_options(tmp_path, target):
    write(tmp_path, ["a.txt", "dir/b.txt"])
    with serving(tmp_path, websocket="/ws") as port, Http(port) as http:
        http.send(request(target, method="OPTIONS") + request("/a.txt"))
        answer = http.answer(head=True)
        assert (answer.status, answer.reason) == (204, "No Content")
        assert answer["Allow"] == "GET, HEAD, OPTIONS"
        assert "Content-Length" not in answer                 # section 8.6
        assert http.answer().body == b"a.txt"


@pytest.mark.parametrize("method", [
    "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK",
    "ACL", "QUERY", "REPORT", "SEARCH", "VERSION-CONTROL", "BASELINE-CONTROL", "UPDATEREDIRECTREF",
])
@pytest.mark.parametrize("target", ["/a.txt", "/missing", "/dir/"])
def test_rfc9110_15_5_6_405_says_what_is_allowed(tmp_path, method, target):
    write(tmp_path, ["a.txt"])
    with serving(tmp_path) as port:
        answer = get(port, target, method=method)
    assert answer.status == 405
    assert answer["Allow"] == "GET, HEAD, OPTIONS"


def test_rfc9110_9_1_methods_have_their_case_and_others_are_not_implemented(tmp_path):
    with serving(tmp_path) as port, Http(port) as http:
        for method in ("get", "Get", "propfind", "PROPFINDX", "PROPFIN", "X", "GETX", "PRI"):
            assert http.get("/", method=method).status == 501


# ---- bodies on routes that take none ----


def test_rfc9110_10_1_1_no_100_is_sent_where_the_answer_is_final(tmp_path):
    with serving(tmp_path) as port, Http(port) as http:
        http.send(request("/", "Expect: 100-continue", "Content-Length: 5", method="POST"))
        answer = http.answer()
        assert answer.status == 405
        assert answer["Connection"] == "close"                # the body may come now, or may not
        http.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert http.rest() == b""


def test_an_expectation_without_a_body_keeps_the_connection(tmp_path):
    write(tmp_path, ["a.txt"])
    with serving(tmp_path) as port, Http(port) as http:
        for fields in (["Expect: 100-continue"], ["Expect: 100-continue", "Content-Length: 0"]):
            answer = http.get("/a.txt", *fields)
            assert (answer.status, answer.all("Connection")) == (200, [])


def test_aiohttp_uploads_with_and_without_an_expectation_get_their_405(tmp_path):
    write(tmp_path, ["a.txt"])

    async def main(port):
        async def pieces():
            for _ in range(3):
                yield b"x" * 10_000

        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            statuses = []
            for how in ({"data": b"x" * 100_000}, {"data": b"x", "expect100": True}, {"data": pieces()}):
                async with session.post("/a.txt", **how) as answer:
                    statuses.append(answer.status)
                async with session.get("/a.txt") as answer:
                    statuses.append(await answer.text())
            return statuses

    with serving(tmp_path) as port:
        assert asyncio.run(main(port)) == [405, "a.txt"] * 3


CHUNKED_BODY = b"5;name=value\r\nGET /\r\n0\r\nTrailer: x\r\n\r\n"


@pytest.mark.parametrize(("method", "fields", "body", "status"), [
    ("POST", ["Transfer-Encoding: chunked"], CHUNKED_BODY, 405),
    ("GET", ["Transfer-Encoding: chunked"], CHUNKED_BODY, 200),
    ("HEAD", ["Transfer-Encoding: chunked"], CHUNKED_BODY, 200),
    ("OPTIONS", ["Transfer-Encoding: chunked"], CHUNKED_BODY, 204),
    ("PROPFIND", ["Transfer-Encoding: chunked"], CHUNKED_BODY, 405),
    ("POST", ["Content-Length: 18"], b"GET / HTTP/1.1\r\n\r\n", 405),
    ("GET", ["Content-Length: 18"], b"GET / HTTP/1.1\r\n\r\n", 200),
    ("POST", ["Transfer-Encoding: chunked"], b"fff00\r\n" + b"x" * 0xFFF00 + b"\r\n0\r\n\r\n", 405),
    ("POST", ["Content-Length: 1048576"], b"x" * 1048576, 405),
])
def test_rfc9112_9_3_a_body_is_passed_over_and_the_next_request_read(tmp_path, method, fields, body, status):
    write(tmp_path, ["a.txt", "b.txt"])
    with serving(tmp_path) as port, Http(port) as http:
        http.send(request("/a.txt", *fields, method=method, body=body) + request("/b.txt"))
        assert http.answer(head=method in ("HEAD", "OPTIONS")).status == status
        assert http.answer().body == b"b.txt"
        assert http.silent()


@pytest.mark.parametrize(("fields", "body", "status"), [
    (["Content-Length: 1048577"], b"x" * 1048577, 413),
    (["Content-Length: 999999999999999999"], b"x" * 1000, 413),
    (["Transfer-Encoding: chunked"], b"100000\r\n" + b"x" * (1 << 20), 405),      # the request had its answer
    (["Transfer-Encoding: chunked"], b"1\r\nx\r\n" * 200_000, 405),
])
def test_rfc9110_15_5_14_a_body_over_1_mib_ends_the_connection(tmp_path, fields, body, status):
    write(tmp_path, ["a.txt"])
    with serving(tmp_path) as port, Http(port) as http:
        with contextlib.suppress(ConnectionError):
            http.send(request("/a.txt", *fields, method="POST", body=body) + request("/a.txt"))
        assert http.answer().status == status
        with contextlib.suppress(ConnectionError):
            assert http.rest() == b""


# ---- HEAD, and what the connection is good for afterwards ----

UPGRADE = ["Connection: Upgrade", "Upgrade: websocket"]
EVERY_KIND = {
    "200": ("/a.txt", [], "GET"), "200 encoded": ("/a.txt", ["Accept-Encoding: gzip"], "GET"),
    "200 index": ("/", [], "GET"),
    "200 listing": ("/dir/", [], "GET"),
    "200 listing as JSON": ("/dir/", ["Accept: application/json"], "GET"),
    "200 single page": ("/page", [BROWSER], "GET"), "200 large": ("/large.bin", [], "GET"),
    "200 empty": ("/empty", [], "GET"),
    "301": ("/dir?x", [], "GET"), "304": ("/a.txt", ["If-None-Match: *"], "GET"),
    "304 by date": ("/a.txt", ["If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT"], "GET"),
    "404": ("/missing.txt", [], "GET"), "404 page": ("/bare/missing.txt", [], "GET"),
    "405": ("/a.txt", [], "POST"),
    "412": ("/a.txt", ['If-Match: "other"'], "GET"), "416": ("/a.txt", ["Range: bytes=99-"], "GET"),
    "417": ("/a.txt", ["Expect: miracles"], "GET"), "426": ("/ws", [], "GET"), "501": ("/a.txt", [], "BREW"),
    "204": ("/a.txt", [], "OPTIONS"), "206": ("/a.txt", ["Range: bytes=0-0"], "GET"),
    "206 of two": ("/large.bin", ["Range: bytes=0-0,9-9"], "GET"),
    "426 another version": ("/ws", [*UPGRADE, "Sec-WebSocket-Version: 12"], "GET"),
    "400 handshake": ("/ws", [*UPGRADE, "Sec-WebSocket-Version: 13"], "GET"),
}
RANGES_AND_HANDSHAKES = ("206", "416", "426 another", "400")      # which HEAD does not do


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory):
    root = write(tmp_path_factory.mktemp("kinds"), {
        "a.txt": "a", "a.txt.gz": "gz", "index.html": "index", "dir/b.txt": "b", "large.bin": LARGE,
        "empty": b"",
        "bare/404.html": "page", "bare/a.txt": "a",
    })
    roots = {
        "/": Root(root, listing=True, spa=True, cors=ORIGIN, cache={"*": "no-cache"}, headers={"X-Own": "1"}),
        "/bare": root / "bare",
    }
    with serving(roots, websocket="/ws") as port:
        yield port


@pytest.mark.parametrize("kind", [
    kind for kind, (_, _, method) in EVERY_KIND.items()
    if method == "GET" and not kind.startswith(RANGES_AND_HANDSHAKES)
])
@pytest.mark.parametrize("more", [[], [f"Origin: {ORIGIN}"], ["Connection: close"]])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_rfc9110_9_3_2_a_head_says_all_that_a_get_does(every_kind, kind, more, version):
    target, fields, _ = EVERY_KIND[kind]
    with Http(every_kind) as http, Http(every_kind) as other:
        whole = http.get(target, *fields, *more, version=version)
        if kind != "417" or version != "1.0":
            assert whole.status == int(kind[:3])
        other.send(request(target, *fields, *more, "Connection: close", version=version, method="HEAD"))
        bare = other.rest()
        assert bare.endswith(b"\r\n\r\n")
        assert bare.count(b"\r\n\r\n") == 1                   # not a byte of a body
        http.close()
    assert no_date(get(every_kind, target, *fields, *more, version=version, method="HEAD")) == no_date(whole)


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_rfc9112_9_3_the_connection_is_kept_whatever_the_answer(every_kind, kind):
    target, fields, method = EVERY_KIND[kind]
    with Http(every_kind) as http:
        for _ in range(2):
            http.send(request(target, *fields, method=method) + request("/a.txt"))
            answer = http.answer(head=method == "OPTIONS")
            assert answer.status == int(kind[:3])
            assert "close" not in answer.all("Connection")
            assert http.answer().body == b"a"
        assert http.silent()


@pytest.mark.parametrize("kind", [kind for kind in EVERY_KIND if not kind.startswith("204")])
def test_every_answer_ends_where_it_says(every_kind, kind):
    target, fields, method = EVERY_KIND[kind]
    with Http(every_kind) as http:
        answer = http.get(target, *fields, "Connection: close", method=method)
        assert answer.all("Connection")[0] == "close"
        assert http.rest() == b""


# ---- smuggling (RFC 9112 section 11.2) ----

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


def post(*lines, body=SMUGGLED, version=b"1.1"):
    return b"\r\n".join([b"POST /a.txt HTTP/" + version, b"Host: a", *lines, b"", body])


CHUNKED = b"Transfer-Encoding: chunked"
AMBIGUOUS = {
    "CL.TE": post(b"Content-Length: 4", CHUNKED, body=b"0\r\n\r\n" + SMUGGLED),
    "TE.CL": post(CHUNKED, b"Content-Length: 4", body=b"0\r\n\r\n" + SMUGGLED),
    "CL.0 and TE": post(b"Content-Length: 0", CHUNKED),
    "CL.CL, unequal": post(b"Content-Length: 0", b"Content-Length: 40"),
    "CL.CL, equal": post(b"Content-Length: 0", b"Content-Length: 0"),
    "CL as a list": post(b"Content-Length: 0, 40"),
    "CL as a list of equals": post(b"Content-Length: 0, 0"),
    "CL with a sign": post(b"Content-Length: +0"),
    "CL negative": post(b"Content-Length: -1"),
    "CL in hexadecimal": post(b"Content-Length: 0x0"),
    "CL with a space inside": post(b"Content-Length: 0 0"),
    "CL empty": post(b"Content-Length: "),
    "CL with an underscore": post(b"Content-Length: 1_0"),
    "CL in other digits": post("Content-Length: \u0660".encode()),
    "CL over 2**64": post(b"Content-Length: 18446744073709551616"),
    "CL with NUL": post(b"Content-Length: 0\x00"),
    "space before the colon, CL": post(b"Content-Length : 0"),
    "space before the colon, TE": post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n" + SMUGGLED),
    "tab before the colon": post(b"Transfer-Encoding\t: chunked", body=b"0\r\n\r\n" + SMUGGLED),
    "folded TE": post(b"Transfer-Encoding:", b" chunked", body=b"0\r\n\r\n" + SMUGGLED),
    "folded CL": post(b"Content-Length:", b"\t0"),
    "first line folded": b"POST /a.txt HTTP/1.1\r\n Content-Length: 0\r\nHost: a\r\n\r\n" + SMUGGLED,
    "TE twice": post(CHUNKED, CHUNKED, body=b"0\r\n\r\n" + SMUGGLED),
    "TE of chunked twice": post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n" + SMUGGLED),
    "TE of identity": post(b"Transfer-Encoding: identity"),
    "TE of chunked and identity": post(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n" + SMUGGLED),
    "TE of gzip and chunked": post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n" + SMUGGLED),
    "TE with VT": post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n" + SMUGGLED),
    "TE in quotes": post(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n" + SMUGGLED),
    "TE with a parameter": post(b"Transfer-Encoding: chunked;x", body=b"0\r\n\r\n" + SMUGGLED),
    "TE of xchunked": post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n" + SMUGGLED),
    "TE empty": post(b"Transfer-Encoding:", body=b"0\r\n\r\n" + SMUGGLED),
    "TE with NEL": post(b"Transfer-Encoding: chunked\x85", body=b"0\r\n\r\n" + SMUGGLED),
    "TE in HTTP/1.0": post(CHUNKED, version=b"1.0", body=b"0\r\n\r\n" + SMUGGLED),
    "LF ends a line": post(b"X: y\nContent-Length: 0"),
    "CR ends a line": post(b"X: y\rContent-Length: 0"),
    "LF LF ends the head": b"POST /a.txt HTTP/1.1\nHost: a\n\n" + SMUGGLED,
    "CR CR LF": post(b"X: y\r"),
    "NUL in a field name": post(b"Content\x00-Length: 0"),
    "space in a field name": post(b"Content Length: 0"),
    "no colon": post(b"Content-Length 0"),
    "empty field name": post(b": 0"),
    "two Hosts": post(b"Host: b"),
    "Host with a path": b"GET /a.txt HTTP/1.1\r\nHost: a/b\r\n\r\n" + SMUGGLED,
    "Host with a space": b"GET /a.txt HTTP/1.1\r\nHost: a b\r\n\r\n" + SMUGGLED,
    "Host with user information": b"GET /a.txt HTTP/1.1\r\nHost: u@a\r\n\r\n" + SMUGGLED,
    "space in the target": b"GET /a.txt x HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED,
    "tab in the request line": b"GET\t/a.txt HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED,
    "HTTP/0.9": b"GET /a.txt\r\n\r\n" + SMUGGLED,
    "HTTP/1.10": b"GET /a.txt HTTP/1.10\r\nHost: a\r\n\r\n" + SMUGGLED,
    "http in small letters": b"GET /a.txt http/1.1\r\nHost: a\r\n\r\n" + SMUGGLED,
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED,
    "fields without end": post(*[b"X: y"] * 101),
    "a field without end": post(b"X: " + b"y" * 17000),
    "a target without end": b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * 9000) + SMUGGLED,
    "chunk size with a sign": post(CHUNKED, body=b"+0\r\n\r\n" + SMUGGLED),
    "chunk size with 0x": post(CHUNKED, body=b"0x0\r\n\r\n" + SMUGGLED),
    "chunk size of none": post(CHUNKED, body=b"\r\n\r\n" + SMUGGLED),
    "chunk size with a space before it": post(CHUNKED, body=b" 0\r\n\r\n" + SMUGGLED),
    "chunk size with an underscore": post(CHUNKED, body=b"1_0\r\n\r\n" + SMUGGLED),
    "chunk size over 2**64": post(CHUNKED, body=b"10000000000000000\r\n" + SMUGGLED),
    "LF after a chunk size": post(CHUNKED, body=b"0\n\r\n" + SMUGGLED),
    "LF in a chunk extension": post(CHUNKED, body=b"0;x\n\r\n\r\n" + SMUGGLED),
    "CR in a chunk extension": post(CHUNKED, body=b"0;\rx\r\n\r\n" + SMUGGLED),
    "chunk extension without end": post(CHUNKED, body=b"0;" + b"x" * 300 + b"\r\n\r\n" + SMUGGLED),
    "chunk data not ended": post(CHUNKED, body=b"3\r\nabcXX0\r\n\r\n" + SMUGGLED),
    "chunk data ended by LF": post(CHUNKED, body=b"3\r\nabc\n0\r\n\r\n" + SMUGGLED),
    "chunk longer than it says": post(CHUNKED, body=b"1\r\nabc\r\n0\r\n\r\n" + SMUGGLED),
    "LF after the last chunk": post(CHUNKED, body=b"0\r\n\n" + SMUGGLED),
    "a request for a trailer": post(CHUNKED, body=b"0\r\n" + SMUGGLED),
    "a folded trailer": post(CHUNKED, body=b"0\r\nX: y\r\n z\r\n\r\n" + SMUGGLED),
    "NUL before a request": b"\0GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED,
    "LF before a request": b"\nGET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED,
    "Expect and a body that does not come": post(b"Expect: 100-continue", b"Content-Length: 5"),
}


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    with serving(write(tmp_path_factory.mktemp("target"), {"a.txt": "a", "smuggled": "SMUGGLED"})) as port:
        yield port


@pytest.mark.parametrize("name", AMBIGUOUS)
@pytest.mark.parametrize("pipelined", [False, True], ids=["first", "pipelined"])
def test_ambiguous_framing_gets_one_answer_and_the_connection_closes(target, name, pipelined):
    with Http(target) as http:
        http.send((request("/a.txt") if pipelined else b"") + AMBIGUOUS[name])
        if pipelined:
            assert http.answer().body == b"a"
        answer = http.answer()
        assert answer.status in (400, 405, 413, 414, 431, 501, 505)
        assert http.rest() == b""


@pytest.mark.parametrize("name", ["CL.TE", "LF ends a line", "chunk size with 0x", "a request for a trailer"])
def test_what_comes_after_an_ambiguity_is_read_as_no_request_however_late(target, name):
    with Http(target) as http:
        http.send(AMBIGUOUS[name].removesuffix(SMUGGLED))
        http.answer()
        with contextlib.suppress(ConnectionError):
            for _ in range(20):
                http.send(SMUGGLED)
        with contextlib.suppress(ConnectionError):
            assert http.rest() == b""


# ---- arguments ----


@pytest.mark.parametrize("arguments", [
    {"index": ""}, {"index": "a/b"}, {"index": ".hidden"}, {"index": ("index.html", "")}, {"index": "a\0b"},
    {"index": ".."},
    {"cache": {"": "no-cache"}}, {"cache": {"a\0": "no-cache"}}, {"cache": {"*": ""}},
    {"cache": {"*": "a\r\nb: c"}},
    {"cache": {"*": "ü"}}, {"cache": {"*": "x" * 1025}},
    {"headers": {"": "x"}}, {"headers": {"a b": "x"}}, {"headers": {"a:": "x"}}, {"headers": {"ä": "x"}},
    {"headers": {"A": "x\r\nB: y"}}, {"headers": {"A": "x\n"}}, {"headers": {"A": ""}},
    {"headers": {"A": "x" * 8188}},
    {"headers": {"A": "ü"}}, {"headers": {"A\n": "x"}},
    {"headers": {"Content-Length": "5"}}, {"headers": {"content-type": "text/html"}},
    {"headers": {"ETag": None}},
    {"headers": {"Date": "x"}}, {"headers": {"Vary": "Cookie"}}, {"headers": {"Connection": "close"}},
    {"headers": {"Keep-Alive": "timeout=5"}}, {"headers": {"TE": "trailers"}}, {"headers": {"Trailer": "A"}},
    {"headers": {"proxy-connection": "close"}}, {"headers": {"Sec-WebSocket-Accept": "x"}},
    {"headers": {"Transfer-Encoding": "chunked"}}, {"headers": {"Access-Control-Allow-Origin": "*"}},
    {"headers": {f"X-{i}": "x" * 1000 for i in range(9)}},
    {"cors": "example.org"}, {"cors": "https://example.org/"}, {"cors": ""}, {"cors": "https://a b"},
    {"cors": "https://user@a"}, {"cors": "https://"}, {"cors": "null"},
    {"cors": ["*", "x"]},
    {"cors": "https://" + "a" * 1000}, {"cors": "https://a\0b"}, {"cors": "https://ä.example"},
])
def test_root_refuses_what_cannot_be_right_in_a_line(tmp_path, arguments):
    with pytest.raises(ValueError, match=f"^{next(iter(arguments))}: ") as error:
        Root(tmp_path, **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("arguments", [
    {"index": 5}, {"index": (5,)}, {"cache": {"*": 5}}, {"cache": {5: "x"}}, {"headers": {"A": 5}},
    {"headers": {5: "x"}},
    {"cors": 5}, {"cors": (5,)}, {"path": 5},
])
def test_root_refuses_what_is_of_the_wrong_type(tmp_path, arguments):
    with pytest.raises(TypeError):
        Root(**{"path": tmp_path} | arguments)


def test_root_refuses_what_is_no_directory(tmp_path):
    write(tmp_path, ["a.txt"])
    with pytest.raises(FileNotFoundError, match="path: no such directory"):
        Root(tmp_path / "none")
    with pytest.raises(NotADirectoryError, match="path: not a directory"):
        Root(tmp_path / "a.txt")
    with pytest.raises(TypeError, match=r"^path: 3 is not a path$"):
        Root(3)


@pytest.mark.parametrize(("places", "names"), [
    (None, "root"), (["/"], "root"), (["/files"], "root"), (["/", "/files"], "root: '/files'"),
    (["/", "a.example/", "a.example/x/"], "root: 'a.example/x/'"),
])
@pytest.mark.parametrize(("given", "error", "says"), [
    ("none", FileNotFoundError, "no such directory: 'none'"), ("a.txt", NotADirectoryError, "not a directory: 'a.txt'"),
    (3, TypeError, "3 is not a path"),
])
def test_of_several_roots_the_wrong_one_is_named(tmp_path, monkeypatch, places, names, given, error, says):
    write(tmp_path, ["a.txt"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as raised:
        Server(given if places is None else {place: given if place == places[-1] else "." for place in places})
    assert str(raised.value).removeprefix(f"[Errno {getattr(raised.value, 'errno', None)}] ") == f"{names}: {says}"


def test_a_root_is_remembered_by_where_it_is_and_not_changed(tmp_path, monkeypatch):
    write(tmp_path, ["d/a.txt"])
    monkeypatch.chdir(tmp_path)
    root = Root("d")
    monkeypatch.chdir("/")
    with serving(root) as port:
        assert get(port, "/a.txt").status == 200
    with pytest.raises(AttributeError):
        root.spa = True


@pytest.mark.parametrize(("arguments", "says"), [
    ({"root": {"assets": "."}}, "root: the URL prefix 'assets' has no '/'"),
    ({"root": {"": "."}}, "root: "),
    ({"root": {"ho st/": "."}}, "root: 'ho st' is not a host name"),
    ({"root": {"example.org:80/": "."}}, "root: 'example.org:80' is not a host name without its port"),
    ({"root": {"./public": "."}}, "root: '.' is not a host name"),
    ({"root": {"../public": "."}}, "root: '..' is not a host name"),
    ({"root": {"a..b/": "."}}, "root: 'a..b' is not a host name"),
    ({"root": {"files/": "."}}, "root: the URL prefix 'files/' begins with no slash: write '/files/', or, if 'files' is"
                                " a host, 'files./'"),
    ({"root": {"a/b": "."}}, "root: the URL prefix 'a/b' begins with no slash: write '/a/b', or, if 'a' is a host, "),
    *(({"root": {place: "."}}, f"root: the URL prefix {place!r} has {what}") for place, what in [
        ("//", "an empty name"), ("//x", "an empty name"), ("/a//b", "an empty name"), ("/a//", "an empty name"),
        ("example.org//x", "an empty name"),
        ("/a/./b", "a name in it that begins with a dot"), ("/a/../b", "a name in it that begins with a dot"),
        ("/..", "a name in it that begins with a dot"), ("/.hidden", "a name in it that begins with a dot"),
        ("/a/.well-known", "a name in it that begins with a dot"),
        ("/.well-knownx", "a name in it that begins with a dot"),
        ("/.well-known/.x", "a name in it that begins with a dot"),
        ("/x?y", "a query, fragment or escape in it: it is a path, written unescaped"),
        ("/x#y", "a query, fragment or escape"), ("/a%20b", "a query, fragment or escape"),
    ]),
    *(({"mime_types": {key: "text/plain"}}, f"mime_types: {key!r} is neither a file extension nor a file name")
      for key in ("", ".", "a/b", "a b", "\u00e4", "a" * 64)),
    *(({"mime_types": {key: "text/plain"}}, f"mime_types: {key!r} is a pattern or several") for key in ("*.x", "a,b")),
    ({"default_type": "text"}, "default_type: 'text' is not a media type"),
    ({"mime_types": {"a": "text"}}, "mime_types: 'text' is not a media type"),
    ({"mime_types": {"a": "text/plain\r\nX: y"}}, "mime_types: "),
    ({"mime_types": {"a": "text/" + "x" * 200}}, "mime_types: "),
    ({"access_log_format": "common"}, "access_log_format: 'common' is neither 'combined' nor 'json'"),
])
def test_server_refuses_what_cannot_be_right_in_a_line(arguments, says):
    with pytest.raises(ValueError) as error:
        Server(**arguments)
    assert str(error.value).startswith(says)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("arguments", [
    {"root": {5: "."}}, {"root": 5}, {"mime_types": {"a": 5}}, {"access_log": 5},
])
def test_server_refuses_what_is_of_the_wrong_type(arguments):
    with pytest.raises(TypeError):
        Server(**arguments)


def test_two_roots_at_one_place_are_refused(tmp_path):
    with pytest.raises(ValueError, match="root: "):
        Server({"/a": tmp_path, "/a/": tmp_path})


@pytest.mark.parametrize("root", [
    {"index": [f"{i}.html" for i in range(9)]}, {"index": ["x" * 256]},
    {"cache": {f"*.{i}": "no-cache" for i in range(33)}},
    {"cors": [f"https://{i}.example" for i in range(33)]},
])
def test_more_than_there_is_room_for_is_refused(tmp_path, root):
    with pytest.raises(ValueError), serving(Root(tmp_path, **root)):
        pass


def test_the_most_there_is_room_for_is_not(tmp_path):
    write(tmp_path, ["7.html"])
    root = Root(
        tmp_path, index=[f"{i}.html" for i in range(8)],
        cache={f"*.{i}": "no-cache" for i in range(31)} | {"7.*": "max-age=7"},
        cors=[f"https://{i}.example" for i in range(32)],
    )
    with serving(root) as port:
        answer = get(port, "/", "Origin: https://31.example")
    assert answer.body == b"7.html"
    assert answer["Cache-Control"] == "max-age=7"
    assert permission(answer) == ["https://31.example"]


def test_a_handshake_with_a_body_is_refused(every_kind):
    # Its bytes would be read as frames, or the frames as its bytes.
    with Http(every_kind) as http:
        http.send(handshake("/ws", "Content-Length: 5") + b"12345" + request("/a.txt"))
        assert http.answer().status == 400
        assert http.answer().body == b"a"


def test_a_websocket_route_is_found_by_the_resolved_path(tmp_path):
    with serving(write(tmp_path, ["a.txt"]), websocket="/ws") as port:
        for target, status in (("/x/../ws", 101), ("/./%77s", 101), ("/../ws", 404), ("/ws/..", 404)):
            with Http(port) as http:
                http.send(handshake(target))
                assert http.answer(head=status == 101).status == status, target


def test_the_package_serves_what_it_says(tmp_path):
    # A socket left open or a thread left running is a warning, and warnings are errors.
    server = Server(Root(c1m.PAGE, listing=True), ports=[0])
    for _ in range(2):
        with server:
            assert get(server.ports[0], "/").status == 200
    with socket.socket() as probe:
        assert server.ports == [0]
        assert probe.fileno() >= 0


def test_a_listing_that_fails_is_500_and_costs_no_more(tmp_path, monkeypatch):
    class Fails(logging.Handler):
        def emit(self, record):
            raise RuntimeError("a log handler that fails")

    def failing(*_):
        raise faults.pop()

    (tmp_path / "d").mkdir()
    (tmp_path / "a.txt").write_text("a")
    monkeypatch.setattr(Listings, "page", failing)
    handler = Fails()
    logging.getLogger("c1m").addHandler(handler)
    try:
        with serving(c1m.Root(tmp_path, listing=True)) as port, Http(port) as http:
            http.get("/a.txt")
            descriptors = len(os.listdir("/proc/self/fd"))
            faults = [OSError(errno.EMFILE, "no descriptors"), OSError("broken"), ValueError("broken")]
            for status in (500, 500, 503):
                http.send(request("/d/") + request("/a.txt"))
                assert http.answer().status == status
                assert http.answer().body == b"a"
            assert len(os.listdir("/proc/self/fd")) == descriptors
    finally:
        logging.getLogger("c1m").removeHandler(handler)
