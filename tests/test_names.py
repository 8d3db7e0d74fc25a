"""What the names of files say of them: clean URLs, files that are stored compressed, media types, fields by pattern;
and the fields that scripts of other origins get."""

import gzip
import os

import pytest
from client import Http, get
from test_files import Roots
from test_roots import NEW, OLD, no_date, serving, write

from c1m import Root

GZIPPED = gzip.compress(b"plain", mtime=0)


# ---- clean URLs ----


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """The port of a server that has the same files at / with clean URLs, at /spa with a single page besides, at /list
    with listings, and at /not without any."""
    root = write(tmp_path_factory.mktemp("clean"), [
        "index.html", "about.html", "about.html.gz", "exact", "exact.html", "blog.html", "blog/one.html",
        "docs/index.html", "v1.2.html", "both.html", "both/index.html", "empty/x.txt", ".secret.html", "a b.html",
    ])
    (root / "looped.html").symlink_to("looped.html")
    kinds = {"/": {"clean_urls": True}, "/spa": {"clean_urls": True, "spa": True}, "/not": {},
             "/list": {"clean_urls": True, "listing": True}, "/npm": {"clean_urls": True, "escaped_slashes": True}}
    with serving({prefix: Root(root, **kind) for prefix, kind in kinds.items()}) as port:
        yield port


@pytest.mark.parametrize(("target", "body"), [
    ("/about", b"about.html"),
    ("/about?q", b"about.html"),
    ("/about.html", b"about.html"),
    ("/exact", b"exact"),                    # a file of that name comes first
    ("/exact.html", b"exact.html"),
    ("/blog", b"blog.html"),                 # though there is a directory
    ("/both", b"both.html"),
    ("/both/", b"both/index.html"),
    ("/blog/one", b"blog/one.html"),
    ("/v1.2", b"v1.2.html"),
    ("/a%20b", b"a b.html"),
    ("/index", b"index.html"),
])
def test_a_page_is_found_without_its_extension(clean, target, body):
    for _ in range(2):
        answer = get(clean, target)
        assert (answer.status, answer.body) == (200, body)
        if target != "/exact":
            assert answer["Content-Type"] == "text/html; charset=utf-8"
    assert no_date(get(clean, target, method="HEAD")) == no_date(answer)
    assert get(clean, target, f"If-None-Match: {answer['ETag']}").status == 304
    assert get(clean, target, "Range: bytes=1-2").body == body[1:3]


@pytest.mark.parametrize(("target", "location"), [
    ("/docs", "docs/"),                      # its page's relative references need the slash
    ("/docs?q", "docs/?q"),
    ("/about/", "../about"),
    ("/about/?a=1", "../about?a=1"),
    ("/blog/", "../blog"),
    ("/blog/one/", "../one"),
    ("/x/../about/", "../about"),
    ("//about/", "../about"),
    ("/a%20b/", "../a%20b"),
    ("/empty", "empty/"),
])
def test_the_other_form_leads_to_the_one_that_there_is(clean, target, location):
    answer = get(clean, target)
    assert (answer.status, answer["Location"]) == (301, location)
    assert answer["Cache-Control"] == "no-cache"         # or a browser would keep it when the other form comes: a loop


@pytest.mark.parametrize("target", [
    "/missing", "/missing/", "/about//", "/about/.", "/about/./", "/about/%2e/", "/about/x/../", "/.secret",
    "/docs/about", "/empty/", "/looped", "/not/about", "/not/about/", "/.html", "/x.html/",
    "/npm/about/%2F/", "/npm/about/x%2F../",
])
def test_what_is_no_page(clean, target):
    assert get(clean, target).status == 404


def test_a_clean_page_has_its_encoded_form(clean):
    answer = get(clean, "/about", "Accept-Encoding: gzip")
    assert (answer.body, answer["Content-Encoding"]) == (b"about.html.gz", "gzip")
    assert answer["Content-Type"] == "text/html; charset=utf-8"


def test_clean_urls_beside_a_single_page_and_listings(clean):
    assert get(clean, "/spa/about").body == b"about.html"
    assert get(clean, "/spa/about/")["Location"] == "../about"
    assert get(clean, "/spa/other").body == b"index.html"
    assert get(clean, "/list/blog").body == b"blog.html"
    assert get(clean, "/list/blog/", "Accept: application/json")["Content-Type"] == "application/json"
    assert get(clean, "/list/about/")["Location"] == "../about"


def test_what_comes_and_goes_beside_a_clean_page(tmp_path):
    write(tmp_path, ["page.html"])
    roots = Roots([tmp_path], {".html": "text/html"}, clean_urls=True)

    def contents(now):
        found = roots.find(0, b"/page", now)
        return found["contents"] if isinstance(found, dict) else found

    assert contents(0) == b"page.html"
    write(tmp_path, {"page.html": "changed"}, NEW)
    assert (contents(999), contents(1000)) == (b"page.html", b"changed")
    write(tmp_path, ["page"])
    assert contents(2000) == b"page"
    (tmp_path / "page").unlink()
    assert contents(3000) == b"changed"
    (tmp_path / "page").mkdir()
    assert contents(4000) == b"changed"
    (tmp_path / "page.html").unlink()
    assert contents(5000) == "directory"


def test_a_clean_name_may_be_as_long_as_a_path(tmp_path):
    name = "a" * 250
    write(tmp_path, [f"{name}.html"])
    roots = Roots([tmp_path], {}, clean_urls=True)
    assert roots.find(0, f"/{name}".encode())["contents"] == f"{name}.html".encode()
    for n in (4080, 4090, 4091, 4095, 4096):
        assert roots.find(0, b"/" + b"a/" * (n // 2) + b"a") is None


# ---- files that are stored compressed ----


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    root = write(tmp_path_factory.mktemp("encoded"), {
        "Build/app.wasm.br": "br", "Build/app.framework.js.br": "br", "Build/app.data.gz": GZIPPED,
        "tiles/1.pbf": GZIPPED, "tiles/1.pbf.gz": "a sidecar", "backup.tar.gz": GZIPPED, "other/1.pbf": "plain",
        "x.zst": "zst", "Build/APP.WASM.BR": "br", "404.html": "404",
    })
    rules = {"/tiles/*.pbf": "gzip", "*.br": "br", "/Build/*.gz": "gzip", "*.zst": "zstd"}
    with serving(Root(root, encodings=rules), mime_types={"pbf": "application/x-protobuf"}) as port:
        yield port


@pytest.mark.parametrize(("target", "kind", "coding"), [
    ("/Build/app.wasm.br", "application/wasm", "br"),
    ("/Build/app.framework.js.br", "text/javascript; charset=utf-8", "br"),
    ("/Build/app.data.gz", "application/octet-stream", "gzip"),
    ("/tiles/1.pbf", "application/x-protobuf", "gzip"),
    ("/x.zst", "application/octet-stream", "zstd"),
    ("/other/1.pbf", "application/x-protobuf", None),
    ("/backup.tar.gz", "application/gzip", None),
    ("/Build/APP.WASM.BR", "application/octet-stream", None),        # patterns tell letters apart
])
@pytest.mark.parametrize("accepts", [[], ["Accept-Encoding: gzip, deflate, br, zstd"], ["Accept-Encoding: identity"]])
def test_what_is_stored_compressed_says_so(encoded, target, kind, coding, accepts):
    with Http(encoded) as http:
        for fields in ([], [], ["Range: bytes=0-0"], ["Origin: https://a.example"]):
            answer = http.get(target, *accepts, *fields)
            assert (answer["Content-Type"], answer.all("Content-Encoding")) == (kind, [coding] if coding else [])
        answer = http.get(target, f"If-None-Match: {answer['ETag']}")
        assert (answer.status, answer.all("Content-Encoding")) == (304, [coding] if coding else [])


def test_what_is_stored_compressed_has_no_other_form(encoded):
    asked = ["/tiles/1.pbf", "Accept-Encoding: gzip"]
    answer = get(encoded, *asked)
    assert gzip.decompress(answer.body) == b"plain"
    for more in ([], [f"If-Range: {answer['ETag']}"]):
        part = get(encoded, *asked, "Range: bytes=2-", *more)
        assert (part.status, part.body) == (206, GZIPPED[2:])


def test_who_has_it_from_before_its_coding_was_said_gets_it_anew(tmp_path):
    write(tmp_path, {"small.gz": GZIPPED, "large.gz": GZIPPED * 4000})
    tags = {}
    for rules in ({}, {"*.gz": "gzip"}):
        with serving(Root(tmp_path, encodings=rules)) as port:
            for name in ("small.gz", "large.gz"):
                assert get(port, f"/{name}", f"If-None-Match: {tags.get(name)}").status == 200
                tags[name] = get(port, f"/{name}")["ETag"]


def test_a_404_page_that_is_stored_compressed_says_so(tmp_path):
    write(tmp_path, {"404.html": GZIPPED, "index.html": GZIPPED})
    with serving(Root(tmp_path, encodings={"*.html": "gzip"})) as port:
        answer = get(port, "/missing")
        assert (answer.status, answer["Content-Encoding"], answer.body) == (404, "gzip", GZIPPED)
        assert get(port, "/")["Content-Encoding"] == "gzip"


@pytest.mark.parametrize("value", ["deflate", "GZIP", "x-gzip", "identity", "", None, 5])
def test_what_is_no_coding_is_refused(tmp_path, value):
    with pytest.raises(ValueError, match=r"^encodings: .*, for '\*\.x', is none of 'gzip', 'br', 'zstd'$"):
        Root(tmp_path, encodings={"*.x": value})


# ---- media types by name ----


@pytest.mark.parametrize(("target", "kind"), [
    ("/LICENSE", "text/plain; charset=utf-8"),
    ("/sub/license", "text/plain; charset=utf-8"),
    ("/a.license", "text/plain; charset=utf-8"),         # a word without a dot is an extension, too
    ("/apple-app-site-association", "application/json"),
    ("/feed.xml", "application/rss+xml"),
    ("/other.xml", "text/xml"),
    ("/own", "application/x-default"),                   # ".own" is an extension alone
    ("/a.own", "text/x-own; charset=utf-8"),
    ("/html", "application/x-default"),                  # no name is of those that are known already
    ("/a.unknown", "application/x-default"),
    ("/" + "n" * 63, "text/x-long; charset=utf-8"),
    ("/a." + "n" * 63, "application/x-default"),         # 64 bytes with its dot
    ("/" + "n" * 64, "application/x-default"),
])
def test_media_types_by_name_and_by_default(tmp_path, target, kind):
    write(tmp_path, [target[1:]])
    types = {"LICENSE": "text/plain", "apple-app-site-association": "application/json", ".own": "text/x-own",
             "feed.xml": "application/rss+xml", "n" * 63: "text/x-long"}
    with serving(tmp_path, mime_types=types, default_type="application/x-default") as port:
        assert get(port, target)["Content-Type"] == kind


def test_an_index_has_its_own_names_type(tmp_path):
    write(tmp_path, ["d/feed.xml"])
    with serving(Root(tmp_path, index="feed.xml"), mime_types={"feed.xml": "application/rss+xml"}) as port:
        assert get(port, "/d/")["Content-Type"] == "application/rss+xml"


def test_a_default_type_that_is_text_has_a_charset(tmp_path):
    write(tmp_path, ["README"])
    with serving(tmp_path, default_type="text/plain") as port:
        assert get(port, "/README")["Content-Type"] == "text/plain; charset=utf-8"


# ---- patterns that were meant otherwise ----


@pytest.mark.parametrize(("pattern", "says"), [
    ("assets/*", r"no file's name has a slash, as 'assets/\*' has: write '/assets/\*' for a path"),
    ("/assets/", r"'/assets/' fits directories, and no file: write '/assets/\*'"),
    ("/assets", r"'/assets' is a directory, and fits no file: write '/assets/\*'"),
    (".html", r"'.html' fits no file that is served: write '\*.html'"),
])
@pytest.mark.parametrize(("option", "value"), [("cache", "no-cache"), ("encodings", "br"), ("headers_for", {"A": "b"})])
def test_a_pattern_that_fits_no_file_is_refused(tmp_path, option, value, pattern, says):
    write(tmp_path, ["assets/a"])
    with pytest.raises(ValueError, match=f"^{option}: {says}$"):
        Root(tmp_path, **{option: {pattern: value}})
    for fine in ("*.html", "/assets/*", "/assets/a", "/other", "assets", ".*", "?html"):
        Root(tmp_path, **{option: {fine: value}})
    Root(tmp_path, dotfiles=True, **{option: {".html": value}})


# ---- header fields by pattern ----


def test_fields_by_pattern(tmp_path):
    write(tmp_path, ["a.txt", "a.wasm", "embed/a.html", "embed/b.txt", "page.html", "dir/index.html", "404.html"])
    rules = {
        "/embed/*": {"x-frame-options": None, "X-More": "embed"},
        "*.wasm": {"X-ALL": "2", "X-Content-Type-Options": None},
        "*.html": {"X-More": "html"},
    }
    headers = {"X-Frame-Options": "DENY", "X-All": "1"}

    def own(target, *fields, method="GET"):
        answer = get(port, target, *fields, method=method)
        return {name: value for name, value in answer.fields if name.startswith(("X-", "x-"))}

    base = {"X-Content-Type-Options": "nosniff", **headers}
    embedded = {"X-Content-Type-Options": "nosniff", "X-All": "1", "X-More": "embed"}
    with serving(Root(tmp_path, headers=headers, headers_for=rules, clean_urls=True, listing=True)) as port:
        for field in ("A:", "A:", "Range: bytes=0-0", "Range: bytes=0-0,2-2", "If-None-Match: *", "Connection: close"):
            assert own("/a.txt", field) == base
            assert own("/a.wasm", field) == {"X-Frame-Options": "DENY", "X-ALL": "2"}
            # The first pattern that fits, and no other.
            assert own("/embed/a.html", field) == own("/embed/b.txt", field) == embedded
            for target in ("/page", "/page.html", "/dir/"):
                assert own(target, field) == base | {"X-More": "html"}
        assert own("/a.wasm", method="HEAD") == {"X-Frame-Options": "DENY", "X-ALL": "2"}
        assert own("/missing") == base       # what a pattern says of files is not for what is missing
        assert own("/embed/") == base        # nor for a list of them


@pytest.mark.parametrize(("arguments", "error", "says"), [
    ({"headers_for": {"*.x": {"A": "x" * 4000}}, "headers": {"B": "x" * 4182}}, None, ""),
    ({"headers_for": {"*.x": {"A": "x" * 4000}}, "headers": {"B": "x" * 4183}}, ValueError,
     r"headers_for: those for '\*\.x' and of headers: more than 8192 bytes in all$"),
    ({"headers_for": {"*.x": {"A": "x" * 8000}}, "headers": {"A": "x" * 8000}}, None, ""),
    ({"headers_for": {"*.x": {"ETag": "x"}}}, ValueError, "headers_for: ETag is the server's to say$"),
    ({"headers_for": {"*.x": {"A": "\n"}}}, ValueError, r"headers_for: the value of A has '\\n' in it"),
    ({"headers_for": {"*.x": "A: b"}}, TypeError,
     r"headers_for: 'A: b', for '\*\.x', is no mapping of field names to values$"),
    ({"headers_for": {"": {"A": "b"}}}, ValueError, "headers_for: '' is not a pattern$"),
    ({"headers_for": {"*.x": {"cache-control": "no-store"}}}, ValueError,
     "headers_for: cache-control by pattern is what cache says$"),
    ({"headers_for": {"\ud800": {"A": "b"}}}, ValueError, r"headers_for: '\\ud800' is not a pattern$"),
    ({"headers_for": {"\udc80": {"A": "b"}}}, None, ""),         # of a name that is no UTF-8
    ({"headers_for": {"*.x": {"access-control-allow-credentials": "true"}}, "cors": "https://a.example",
      "cors_credentials": True}, ValueError, "headers_for: cors_credentials says access-control-allow-credentials"),
])
def test_what_is_wrong_with_fields_by_pattern_is_said(tmp_path, arguments, error, says):
    if error is None:
        Root(tmp_path, **arguments)
        return
    with pytest.raises(error, match=f"^{says}"):
        Root(tmp_path, **arguments)


def test_the_longest_fields_by_pattern_find_room(tmp_path):
    write(tmp_path, ["a.txt"], OLD)
    os.truncate(tmp_path / "a.txt", 100000)
    longest = {"B": "x" * (8192 - 5)}
    root = Root(tmp_path, headers_for={"*.txt": longest}, cors="https://" + "o" * 300)
    with serving(root) as port, Http(port) as http:
        for fields in ([], [], ["Range: bytes=0-0"], ["If-None-Match: *"], [f"Origin: https://{'o' * 300}"]):
            assert http.get("/a.txt", *fields)["B"] == longest["B"]


# ---- CORS with credentials (Fetch section 3.2) ----

ORIGIN = "https://app.example"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    root = write(tmp_path_factory.mktemp("cors"), ["a.txt"])
    with serving(Root(root, cors=[ORIGIN, "https://other.example"], cors_credentials=True, headers={"X-Own": "1"},
                      headers_for={"*.txt": {"X-Text": "1", "X-Content-Type-Options": None}})) as port:
        yield port


@pytest.mark.parametrize(("method", "target", "fields", "status"), [
    ("GET", "/a.txt", [], 200), ("HEAD", "/a.txt", [], 200), ("GET", "/a.txt", ["Range: bytes=0-0"], 206),
    ("GET", "/a.txt", ["If-None-Match: *"], 304), ("GET", "/a.txt", ["Range: bytes=99-"], 416),
    ("GET", "/missing", [], 404), ("POST", "/a.txt", [], 405),
    ("OPTIONS", "/a.txt", ["Access-Control-Request-Method: GET"], 204),
])
def test_credentials_are_allowed_to_the_origins_that_are_named(shared, method, target, fields, status):
    answer = get(shared, target, f"Origin: {ORIGIN}", *fields, method=method)
    assert answer.status == status
    assert answer["Access-Control-Allow-Origin"] == ORIGIN
    assert answer["Access-Control-Allow-Credentials"] == "true"
    assert answer["Access-Control-Expose-Headers"] == (
        "Accept-Ranges, Content-Encoding, Content-Range, Date, ETag, X-Own, X-Text"
    )
    other = get(shared, target, "Origin: https://evil.example", *fields, method=method)
    assert not [name for name, _ in other.fields if name.startswith("Access-Control-")]
    assert "Origin" in other.all("Vary")


def test_a_preflight_allows_the_fields_that_are_asked_for_by_name(shared):
    def allowed(*fields):
        return get(shared, "/a.txt", f"Origin: {ORIGIN}", *fields, method="OPTIONS").all("Access-Control-Allow-Headers")

    assert allowed("access-control-request-HEADERS: authorization,range") == ["authorization,range"]
    assert allowed("Access-Control-Request-Headers: " + "x" * 8000) == ["x" * 8000]
    assert allowed() == allowed("Access-Control-Request-Headers:") == []


@pytest.mark.parametrize("cors", [(), "*", ["https://a.example", "*"]])
def test_credentials_without_named_origins_are_refused(tmp_path, cors):
    with pytest.raises(ValueError, match=r"^cors_credentials: name the origins in cors"):
        Root(tmp_path, cors=cors, cors_credentials=True)
