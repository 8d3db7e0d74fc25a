"""Document roots: what a path leads to, what none leads to, and for how long that is remembered."""

import contextlib
import gc
import hashlib
import itertools
import os
import random
import re
import socket
import struct
import subprocess
import sys

import pytest
from client import descriptors
from hypothesis import example, given, settings
from hypothesis import strategies as st
from shapes import COUNT, RANDOM, SHAPES, comparisons

from c1m._probe_files import Roots

TYPES = {".html": "text/html", ".txt": "text/plain", ".gz": "application/gzip"}
FORMS = ("gz", "br", "zst")
CANARY = b"this is nobody's to read"
MAX_SMALL = 32 << 10            # contents up to here are kept in memory
MAX_FILES, MAX_BYTES, MAX_OPEN = 16384, 64 << 20, 256
MAX_WARM = 128 << 10
OVERHEAD = 224                   # bytes that are known of a file beside its path and contents
OLD_TIME = (10**18, 10**18)      # in nanoseconds: of access and change


@pytest.fixture(scope="module", params=[True, False], ids=["openat2", "without-openat2"])
def openat2(request):
    return request.param


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A document root with all sorts in it, beside things that are nobody's to read."""
    top = tmp_path_factory.mktemp("tree")
    root = top / "root"
    for directory in (
        "root/dir/deeper", "root/empty", "root/.hidden", "root/index/index.html", "root-beside", "outside",
    ):
        (top / directory).mkdir(parents=True)
    for outside in ("canary.txt", "root-beside/canary.txt", "outside/canary.txt", "outside/index.html"):
        (top / outside).write_bytes(CANARY)
    for inside in (
        "index.html", "a.txt", "dir/index.html", "dir/b.txt", "dir/deeper/c.txt",
        ".secret", ".hidden/d.txt", "dir/.secret",
        "sp ace.txt", "100%.txt", "q?mark.txt", "back\\slash.txt", "umläut.txt", "new\nline.txt",
        "-dash", "~tilde", "a..txt", "dots...",
    ):
        (root / inside).write_bytes(inside.encode())
    (root / "latin-\udce9.txt").write_bytes(b"latin")
    (root / "large.txt").write_bytes(b"l" * (MAX_SMALL + 1))
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as bound, contextlib.chdir(root):
        bound.bind("socket")     # by its short name: a socket's path may have 107 bytes only
    for name, target in LINKS:
        (root / name).symlink_to(target.replace("TOP", str(top)))
    yield root
    (root / "fifo").unlink()


LINKS = [
    ("in", "a.txt"), ("in-dir", "dir"), ("dir/up", "../a.txt"), ("in-chain", "in"), ("to-hidden", ".secret"),
    ("out", "../canary.txt"), ("out-dir", "../outside"), ("out-beside", "../root-beside/canary.txt"),
    ("out-up", ".."), ("out-absolute", "TOP/canary.txt"), ("out-absolute-dir", "TOP/outside"),
    ("out-chain", "out"), ("out-chain-dir", "dir/../out-dir"), ("out-far", "/etc/passwd"), ("out-all", "/"),
    ("proc-root", "/proc/self/root"), ("proc-cwd", "/proc/self/cwd"), ("proc-fd", "/proc/self/fd/0"),
    ("loop", "loop"), ("dangling", "nowhere"), ("fifo-link", "fifo"),
    ("in-absolute", "TOP/root/a.txt"), ("out-and-in", "../root/a.txt"),
]


@pytest.fixture(scope="module")
def roots(tree, openat2):
    return Roots([tree], TYPES, openat2)


def contents(found):
    return found["contents"] if isinstance(found, dict) else found


def sidecars(roots, path, now_ms=0):
    """The encoded forms that a file is found in, each asked for by itself."""
    return [form for form in FORMS if roots.find(0, path, now_ms, [form])["encoded"] == form]


@pytest.mark.parametrize(("path", "expected"), [
    (b"/", b"index.html"),
    (b"/index.html", b"index.html"),
    (b"/a.txt", b"a.txt"),
    (b"/dir", "directory"),
    (b"/dir/", b"dir/index.html"),
    (b"/dir/b.txt", b"dir/b.txt"),
    (b"/dir/deeper/c.txt", b"dir/deeper/c.txt"),
    (b"/dir/deeper", "directory"),
    (b"/dir/deeper/", None),                     # it has no index.html, and is not listed
    (b"/empty", "directory"),
    (b"/empty/", None),
    (b"/index/", None),                          # its index.html is a directory
    (b"/index/index.html", "directory"),
    (b"/sp ace.txt", b"sp ace.txt"),
    (b"/100%.txt", b"100%.txt"),
    (b"/100%25.txt", None),                      # unescaping is not this module's
    (b"/q?mark.txt", b"q?mark.txt"),
    (b"/back\\slash.txt", b"back\\slash.txt"),
    (b"/..\\canary.txt", None),
    ("/umläut.txt".encode(), "umläut.txt".encode()),
    (b"/latin-\xe9.txt", b"latin"),
    (b"/new\nline.txt", b"new\nline.txt"),
    (b"/-dash", b"-dash"),
    (b"/~tilde", b"~tilde"),
    (b"/a..txt", b"a..txt"),
    (b"/dots...", b"dots..."),
    (b"/nothing", None),
    (b"/nothing/a.txt", None),
    (b"/A.TXT", None),
    (b"/a.txt/", None),                          # a file is no directory
    (b"/a.txt/b", None),
    (b"/.secret", None),
    (b"/.hidden", None),
    (b"/.hidden/", None),
    (b"/.hidden/d.txt", None),
    (b"/dir/.secret", None),
    (b"/.", None),
    (b"/./a.txt", None),
    (b"/dir/./b.txt", None),
    (b"/..", None),
    (b"/../", None),
    (b"/../root/a.txt", None),
    (b"/../canary.txt", None),
    (b"/dir/../../canary.txt", None),
    (b"/dir/..", None),
    (b"/dir/../a.txt", None),
    (b"/dir/deeper/../../../canary.txt", None),
    (b"/...", None),
    (b"/fifo", None),                            # would hang if it waited for a writer
    (b"/socket", None),
])
def test_path(roots, path, expected):
    for _ in ("found", "remembered"):
        assert contents(roots.find(0, path)) == expected


@pytest.mark.parametrize(("path", "expected"), [
    (b"/in", b"a.txt"),
    (b"/in-chain", b"a.txt"),
    (b"/in-dir", "directory"),
    (b"/in-dir/", b"dir/index.html"),
    (b"/in-dir/b.txt", b"dir/b.txt"),
    (b"/dir/up", b"a.txt"),
    (b"/in-absolute", b"a.txt"),                 # links that leave the root and come back, which openat2 refuses
    (b"/out-and-in", b"a.txt"),
    (b"/out-up/root/a.txt", b"a.txt"),
    (b"/to-hidden", b".secret"),                 # whoever links it means to show it
    (b"/out", None),
    (b"/out-dir", None),
    (b"/out-dir/", None),
    (b"/out-dir/canary.txt", None),
    (b"/out-beside", None),                      # its directory's name begins like the root's
    (b"/out-up", None),
    (b"/out-up/canary.txt", None),
    (b"/out-up/root-beside/canary.txt", None),
    (b"/out-absolute", None),
    (b"/out-absolute-dir", None),
    (b"/out-absolute-dir/", None),
    (b"/out-absolute-dir/canary.txt", None),
    (b"/out-chain", None),
    (b"/out-chain-dir/canary.txt", None),
    (b"/out-far", None),
    (b"/out-all", None),
    (b"/out-all/etc/passwd", None),
    (b"/proc-root/etc/passwd", None),
    (b"/proc-cwd", None),
    (b"/proc-fd", None),
    (b"/loop", None),
    (b"/dangling", None),
    (b"/fifo-link", None),
])
def test_link(roots, path, expected):
    for _ in ("found", "remembered"):
        assert contents(roots.find(0, path)) == expected


@pytest.mark.parametrize("path", [b"/null", b"/zero", b"/full", b"/random", b"/tty", b"/fd/0", b"/stdin"])
def test_a_device_is_not_served(openat2, path):
    assert Roots(["/dev"], {}, openat2).find(0, path) is None


def test_a_hard_link_is_a_file(tree, tmp_path, openat2):
    os.link(tree / "a.txt", tmp_path / "hard.txt")
    assert contents(Roots([tmp_path], {}, openat2).find(0, b"/hard.txt")) == b"a.txt"


@pytest.fixture
def nobody():
    """Takes root's powers away when called, for the rest of the test."""
    before = os.geteuid()
    yield lambda: before or os.seteuid(65534)
    os.seteuid(before)


def test_what_we_may_not_read_is_not_found(tmp_path, openat2, nobody):
    for name in ("locked.txt", "taken-away.txt", "taken-away.bin"):
        (tmp_path / name).write_bytes(b"x" * (1 if name.endswith(".txt") else MAX_SMALL + 1))
    (tmp_path / "locked.txt").chmod(0)
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / "a.txt").write_text("a")
    (tmp_path / "locked").chmod(0)
    tmp_path.chmod(0o755)
    roots = Roots([tmp_path], {}, openat2)
    before = os.geteuid()
    nobody()
    assert roots.find(0, b"/locked.txt") is None
    assert roots.find(0, b"/locked/a.txt") is None
    for name in ("taken-away.txt", "taken-away.bin"):
        path = os.fsencode("/" + name)
        assert roots.find(0, path) is not None
        os.seteuid(before)
        (tmp_path / name).chmod(0)
        nobody()
        assert roots.find(0, path, 1000) is None
    os.seteuid(before)
    (tmp_path / "locked").chmod(0o700)


def test_the_root_may_be_a_link_or_the_root_of_all(tree, tmp_path, openat2):
    (tmp_path / "link").symlink_to(tree)
    roots = Roots([tmp_path / "link", "/"], {}, openat2)
    assert contents(roots.find(0, b"/a.txt")) == b"a.txt"
    assert contents(roots.find(0, b"/out")) is None
    assert contents(roots.find(1, os.fsencode(tree / "a.txt"))) == b"a.txt"


def test_roots_are_kept_apart(tmp_path, openat2):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.txt").write_text(name)
        (tmp_path / name / f"only-{name}.txt").write_text(name)
    roots = Roots([tmp_path / "a", tmp_path / "b"], {}, openat2)
    for _ in ("found", "remembered"):
        assert [contents(roots.find(root, b"/same.txt")) for root in (0, 1)] == [b"a", b"b"]
    assert roots.find(0, b"/only-b.txt") is None
    assert roots.find(1, b"/only-a.txt") is None


def test_a_root_that_is_renamed_is_still_served_and_one_that_is_removed_is_empty(tmp_path, openat2):
    (tmp_path / "before").mkdir()
    (tmp_path / "before" / "a.txt").write_text("a")
    roots = Roots([tmp_path / "before"], {}, openat2)
    (tmp_path / "before").rename(tmp_path / "after")
    assert contents(roots.find(0, b"/a.txt")) == b"a"
    (tmp_path / "after" / "a.txt").unlink()
    (tmp_path / "after").rmdir()
    assert roots.find(0, b"/a.txt", 1000) is None
    assert roots.find(0, b"/", 1000) is None


def test_a_root_must_be_a_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError):
        Roots([tmp_path / "nothing"], {})
    with pytest.raises(NotADirectoryError):
        Roots([tmp_path / "file"], {})


def test_there_may_be_256_roots(tmp_path):
    assert Roots([tmp_path] * 256, {}).find(255, b"/") is None
    with pytest.raises(OSError):
        Roots([tmp_path] * 257, {})


# ---- long names ----


def deep_file(root, *sizes, name=None):
    """Makes a file below root, at a path with components of these many bytes, too long maybe for open(2).

    Returns the path; name: the file's, which is then not part of it.
    """
    *directories, last = ["d" * size for size in sizes] + ([] if name is None else [name])
    at = os.open(root, os.O_PATH)
    for directory in directories:
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, dir_fd=at)
        below = os.open(directory, os.O_PATH, dir_fd=at)
        os.close(at)
        at = below
    file = os.open(last, os.O_CREAT | os.O_WRONLY, dir_fd=at)
    os.write(file, b"deep")
    os.close(file)
    os.close(at)
    return "/".join(["", *directories, last if name is None else ""]).encode()


def test_the_longest_component_is_found_and_a_longer_one_is_not(tmp_path, openat2):
    path = deep_file(tmp_path, 255)
    roots = Roots([tmp_path], {}, openat2)
    assert contents(roots.find(0, path)) == b"deep"
    assert roots.find(0, path + b"d") is None
    assert roots.find(0, path + b"/") is None


def test_the_longest_path_is_found_and_a_longer_one_is_not(tmp_path):
    longest = deep_file(tmp_path, *[255] * 16)
    roots = Roots([tmp_path], {})
    assert len(longest) == 1 + 4095
    assert contents(roots.find(0, longest)) == b"deep"
    assert roots.find(0, b"/" + longest) is None
    assert roots.find(0, longest + b"d") is None
    assert roots.find(0, longest * 2) is None


def test_the_name_of_the_index_counts_towards_the_length(tmp_path):
    path = deep_file(tmp_path, *[255] * 15, 244, name="index.html")
    roots = Roots([tmp_path], {})
    assert len(path + b"index.html") == 1 + 4095
    assert contents(roots.find(0, path)) == b"deep"
    assert roots.find(0, b"/" + path) is None


def test_without_openat2_a_path_too_long_to_be_checked_is_not_found(tmp_path):
    unreachable = deep_file(tmp_path, *[255] * 15, 254)
    near = deep_file(tmp_path, *[255] * 8, 254)
    roots = Roots([tmp_path], {}, False)
    assert roots.find(0, unreachable) is None
    assert contents(roots.find(0, near)) == b"deep"


# ---- what is said of a file ----


@pytest.mark.parametrize(("name", "expected"), [
    ("page.html", b"text/html"),
    ("PAGE.HTML", b"text/html"),
    ("a.b.txt", b"text/plain"),
    ("archive.txt.gz", b"application/gzip"),
    ("html", b"application/octet-stream"),
    ("dot.", b"application/octet-stream"),
    ("x.unknown", b"application/octet-stream"),
    ("x.an-extension-longer-than-any", b"application/octet-stream"),
    ("dir.html/plain", b"application/octet-stream"),
])
def test_media_type(tmp_path, name, expected):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("")
    assert Roots([tmp_path], TYPES).find(0, f"/{name}".encode())["type"] == expected


def test_the_index_of_a_directory_is_html(tree):
    assert Roots([tree], TYPES).find(0, b"/dir/")["type"] == b"text/html"


@pytest.mark.parametrize("size", [0, 1, MAX_SMALL, MAX_SMALL + 1])
def test_size_time_and_contents(tmp_path, openat2, size):
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    os.utime(tmp_path / "file", ns=(0, 1234567890_987654321))
    found = Roots([tmp_path], {}, openat2).find(0, b"/file")
    assert found["contents"] == data
    assert found["size"] == size
    assert found["mtime"] == 1234567890
    assert found["in_memory"] == (size <= MAX_SMALL)


def test_a_small_files_etag_is_of_its_contents(tmp_path):
    file = tmp_path / "file"
    seen = []
    for data, ns in ((b"a", 1), (b"b", 1), (b"bb", 1), (b"bb", 2), (b"a", 3)):
        file.write_bytes(data)
        os.utime(file, ns=(0, 10**18 + ns))
        seen.append(Roots([tmp_path], {}).find(0, b"/file")["etag"])
    first, other, longer, later, again = seen
    assert len({first, other, longer}) == 3
    assert (later, again) == (longer, first)
    assert first == b'"%s-1"' % hashlib.sha256(b"a").hexdigest()[:32].encode()
    assert all(re.fullmatch(rb'"[0-9a-f]{32}-[0-9a-f]+"', etag) for etag in seen)


@pytest.mark.parametrize("size", [16, 24, MAX_SMALL])
def test_contents_made_to_collide_have_other_etags(tmp_path, size):
    """With hash = (hash ^ word) * odd and hash ^= hash >> 32 for each word, these differences cancel out."""
    start, words = os.urandom(size - 16), struct.unpack("<QQ", os.urandom(16))
    etags = set()
    for first, second in ((0, 0), (1 << 63, 1 << 63 | 1 << 31)):
        (tmp_path / "file").write_bytes(start + struct.pack("<QQ", words[0] ^ first, words[1] ^ second))
        etags.add(Roots([tmp_path], {}).find(0, b"/file")["etag"])
    assert len(etags) == 2


ENDS = 4096                      # bytes at each end of a large file that its ETag is of


def test_a_large_files_etag_is_of_its_mtime_its_size_and_its_ends(tmp_path):
    large, middle = MAX_SMALL + 2, b"m" * (MAX_SMALL + 2 - 2 * ENDS)
    first, last = b"f" * ENDS, b"l" * ENDS
    file = tmp_path / "file"
    seen = []
    for data, ns in (
        (first + middle + last, 1), (first + middle + last, 2), (first + middle + last, 10**9 + 1),
        (first + middle + b"m" + last, 1), (first[1:] + b"F" + middle + last, 1), (first + middle + b"L" + last[1:], 1),
    ):
        assert len(data) >= large
        file.write_bytes(data)
        os.utime(file, ns=(0, 10**18 + ns))
        roots = Roots([tmp_path], {})
        seen.append(roots.find(0, b"/file")["etag"])
        assert roots.find(0, b"/file")["etag"] == seen[-1]
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("size", [0, 1, MAX_SMALL, MAX_SMALL + 1, MAX_WARM, MAX_WARM + 1, 5 << 20])
@pytest.mark.parametrize("form", [None, "gz"])
def test_the_same_bytes_of_the_same_time_have_the_same_etag_wherever_they_are(tmp_path, openat2, size, form):
    data, etags = random.Random(size).randbytes(size), set()
    for server in ("one", "other"):
        (tmp_path / server).mkdir()
        for name in ("file", "file.gz"):
            (tmp_path / server / "copied").write_bytes(data)                 # the name is another, and the change later
            os.utime(tmp_path / server / "copied", ns=(0, 10**18 + 123456789))
            (tmp_path / server / "copied").rename(tmp_path / server / name)
        roots = Roots([tmp_path / server], {}, openat2)
        for now_ms in (0, 500, 5000):
            etags.add(roots.find(0, b"/file", now_ms, [form] if form else [])["etag"])
    assert len(etags) == 1


@pytest.mark.parametrize("size", [4, MAX_SMALL + 1])
def test_a_change_that_keeps_size_and_mtime_is_seen_within_a_second(tmp_path, openat2, size):
    """As where a build sets all times alike."""
    file = tmp_path / "file"
    roots = Roots([tmp_path], {}, openat2)
    etags = set()
    for i, letter in enumerate((b"a", b"b", b"c")):
        before = file.stat().st_ctime_ns if file.exists() else 0
        if letter == b"c":
            file.unlink()                        # the next may get the same inode
        file.write_bytes(letter * size)
        while True:
            os.utime(file, (10**9, 10**9))
            if file.stat().st_ctime_ns > before:
                break
        found = roots.find(0, b"/file", 1000 * i)
        assert found["contents"] == letter * size
        etags.add(found["etag"])
    assert len(etags) == 3


def test_a_root_that_is_replaced_is_seen_within_a_second(tmp_path, openat2):
    for release in "123":
        (tmp_path / release / "sub").mkdir(parents=True)
        (tmp_path / release / "sub" / "a.txt").write_text(release)
    (tmp_path / "current").symlink_to("1")
    roots = Roots([tmp_path / "current", tmp_path / "3"], {}, openat2)
    descriptors = len(os.listdir("/proc/self/fd"))
    assert contents(roots.find(0, b"/sub/a.txt", 0)) == b"1"
    assert contents(roots.find(1, b"/sub/a.txt", 0)) == b"3"
    (tmp_path / "new").symlink_to("2")
    (tmp_path / "new").rename(tmp_path / "current")
    assert contents(roots.find(0, b"/sub/a.txt", 999)) == b"1"
    assert contents(roots.find(0, b"/sub/a.txt", 1000)) == b"2"
    (tmp_path / "current").unlink()              # no longer leads anywhere: what there was is better than nothing
    assert contents(roots.find(0, b"/sub/a.txt", 2000)) == b"2"
    assert contents(roots.find(1, b"/sub/a.txt", 2000)) == b"3"
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_what_nobody_asks_for_is_forgotten_and_its_descriptor_closed(tmp_path):
    for name in ("large", "asked"):
        (tmp_path / name).write_bytes(bytes(MAX_WARM + 1))
    roots = Roots([tmp_path], {})
    for name in (b"/large", b"/asked"):
        roots.find(0, name, 0)
    roots.find(0, b"/asked", 30_000)
    roots.forget(59_999)
    assert roots.counters()["open"] == 2
    roots.forget(60_000)
    assert roots.counters()["open"] == roots.counters()["files"] == 1
    roots.forget(90_000)
    assert roots.counters() == {"files": 0, "open": 0, "bytes": 0, "hits": 1, "misses": 2}


# ---- what stands for a directory ----


def test_index_names_are_tried_in_turn(tmp_path, openat2):
    for directory, names in {"both": ["index.html", "index.txt"], "one": ["index.txt"], "no": ["x"]}.items():
        (tmp_path / directory).mkdir()
        for name in names:
            (tmp_path / directory / name).write_text(name)
    roots = Roots([tmp_path], TYPES, openat2, index=["index.html", "index.txt"])
    assert contents(roots.find(0, b"/both/")) == b"index.html"
    assert contents(roots.find(0, b"/one/")) == b"index.txt"
    assert roots.find(0, b"/one/")["type"] == b"text/plain"
    assert roots.find(0, b"/no/") is None
    assert Roots([tmp_path], TYPES, openat2, index=[]).find(0, b"/both/") is None


def test_an_index_that_comes_first_is_seen_within_a_second(tmp_path, openat2):
    (tmp_path / "index.txt").write_text("second")
    roots = Roots([tmp_path], TYPES, openat2, index=["index.html", "index.txt"])
    assert contents(roots.find(0, b"/", 5000)) == b"second"
    (tmp_path / "index.html").write_text("first")
    assert contents(roots.find(0, b"/", 6000)) == b"first"
    (tmp_path / "index.html").unlink()
    assert contents(roots.find(0, b"/", 7000)) == b"second"


def test_well_known_is_the_one_dotted_name_that_is_served(tmp_path, openat2):
    for directory in (".well-known", ".well-known/sub", ".well-knownx", "sub/.well-known"):
        (tmp_path / directory).mkdir(parents=True)
        for name in ("a.txt", ".secret"):
            (tmp_path / directory / name).write_text(directory)
    roots = Roots([tmp_path], TYPES, openat2)
    assert contents(roots.find(0, b"/.well-known/a.txt")) == b".well-known"
    assert contents(roots.find(0, b"/.well-known/sub/a.txt")) == b".well-known/sub"
    for path in (
        b"/.well-known/.secret", b"/.well-known/../a.txt", b"/.well-known/sub/../a.txt",
        b"/.well-known/./a.txt", b"/.well-knownx/a.txt", b"/sub/.well-known/a.txt", b"//.well-known/a.txt",
    ):
        assert roots.find(0, path) is None


@pytest.mark.parametrize("follow_symlinks", [False, True])
def test_with_dotfiles_no_path_leads_out_either(tmp_path, openat2, follow_symlinks):
    for name in ("root/.a", "root/d/.b", "root/...", "root/..c", "root/d/e", "canary"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    roots = Roots([tmp_path / "root"], TYPES, openat2, follow_symlinks=follow_symlinks, dotfiles=True)
    for path in (b"/.a", b"/d/.b", b"/...", b"/..c", b"/d/e"):
        assert contents(roots.find(0, path)) == b"root" + path
    for path in (b"/.", b"/..", b"/./", b"/../", b"/./.a", b"/../canary", b"/d/../.a", b"/d/./e", b"/d/..",
                 b"/d/../../canary", b"/.../../canary", b"/.a/../.."):
        assert roots.find(0, path) is None, path


# ---- encoded forms beside a file ----


@pytest.fixture
def encoded(tmp_path):
    """A file with three encoded forms beside it."""
    for name in ("a.txt", "a.txt.gz", "a.txt.br", "a.txt.zst"):
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, ns=OLD_TIME)
    return tmp_path


def test_encoded_forms_are_found_and_have_the_type_of_the_file(encoded, openat2):
    roots = Roots([encoded], TYPES, openat2)
    for form in FORMS:
        found = roots.find(0, b"/a.txt", encoded=[form])
        assert found["contents"] == f"a.txt.{form}".encode()
        assert found["type"] == b"text/plain"
    assert len({roots.find(0, b"/a.txt", encoded=forms)["etag"] for forms in ([], ["gz"], ["br"], ["zst"])}) == 4
    assert roots.find(0, b"/a.txt.gz")["type"] == b"application/gzip"


def test_an_encoded_form_that_is_older_than_the_file_or_no_file_does_not_count(encoded, openat2):
    os.utime(encoded / "a.txt.gz", ns=(0, OLD_TIME[1] - 10**9))
    (encoded / "a.txt.br").unlink()
    (encoded / "a.txt.br").mkdir()
    os.utime(encoded / "a.txt.zst", ns=(0, OLD_TIME[1] + 1))
    roots = Roots([encoded], TYPES, openat2)
    assert sidecars(roots, b"/a.txt") == ["zst"]
    assert roots.find(0, b"/a.txt", encoded=["gz"])["contents"] == b"a.txt"


@pytest.mark.parametrize("file", [0, 1, 500_000_000, 999_999_999])
@pytest.mark.parametrize(("earlier", "counts"), [
    (-1, True), (0, True), (1, True), (999_999, True), (999_999_999, True), (10**9, False), (10**9 + 1, False),
    (2 * 10**9 - 1, False), (2 * 10**9, False),
])
def test_an_encoded_form_is_older_if_it_is_so_by_a_second(encoded, openat2, file, earlier, counts):
    os.utime(encoded / "a.txt", ns=(0, OLD_TIME[1] + file))
    os.utime(encoded / "a.txt.gz", ns=(0, OLD_TIME[1] + file - earlier))
    found = Roots([encoded], TYPES, openat2).find(0, b"/a.txt", encoded=["gz"])
    assert found["contents"] == (b"a.txt.gz" if counts else b"a.txt")


@pytest.mark.parametrize("order", [*itertools.permutations(FORMS)])
def test_the_first_form_that_there_is_is_found(encoded, openat2, order):
    for gone in (None, *order):
        if gone:
            (encoded / f"a.txt.{gone}").unlink()
        roots = Roots([encoded], TYPES, openat2)
        left = [form for form in order if (encoded / f"a.txt.{form}").exists()]
        for n in range(4):
            first = ([form for form in order[:n] if form in left] or [None])[0]
            for _ in ("found", "remembered"):
                assert roots.find(0, b"/a.txt", encoded=order[:n])["encoded"] == first


def test_without_codings_no_sidecar_is_looked_for(encoded, openat2):
    """A look counts for a second, so what is found just after a request without codings shows that it did not look."""
    for form in FORMS:
        (encoded / f"a.txt.{form}").unlink()
    roots = Roots([encoded], TYPES, openat2)
    assert roots.find(0, b"/a.txt", 5000)["encoded"] is None
    (encoded / "a.txt.gz").write_text("gz")
    assert roots.find(0, b"/a.txt", 5001, ["gz"])["encoded"] == "gz"
    (encoded / "a.txt.br").write_text("br")
    assert roots.find(0, b"/a.txt", 5002, ["br", "gz"])["encoded"] == "gz"
    assert roots.find(0, b"/a.txt", 6001, ["br", "gz"])["encoded"] == "br"


def test_the_sidecar_of_another_index_name_is_not_the_indexs(encoded, openat2):
    (encoded / "index.html.gz").write_text("of a file that is not there")
    roots = Roots([encoded], TYPES, openat2, index=["index.html", "a.txt"])
    assert contents(roots.find(0, b"/", 5000, ["gz"])) == b"a.txt.gz"
    (encoded / "index.html").write_text("index.html")
    os.utime(encoded / "index.html", ns=OLD_TIME)
    assert contents(roots.find(0, b"/", 6000, ["gz"])) == b"of a file that is not there"
    (encoded / "index.html").unlink()
    assert contents(roots.find(0, b"/", 7000, ["gz"])) == b"a.txt.gz"


def test_an_encoded_form_outside_the_root_does_not_count(encoded, tmp_path_factory, openat2):
    outside = tmp_path_factory.mktemp("outside") / "canary"
    outside.write_bytes(CANARY)
    for form in ("gz", "br"):
        (encoded / f"a.txt.{form}").unlink()
    (encoded / "a.txt.gz").symlink_to(outside)
    (encoded / "a.txt.br").symlink_to("a.txt.zst")
    assert sidecars(Roots([encoded], TYPES, openat2), b"/a.txt") == ["br", "zst"]


def test_encoded_forms_that_come_change_and_go_are_seen_within_a_second(encoded, openat2):
    roots = Roots([encoded], TYPES, openat2)
    assert contents(roots.find(0, b"/a.txt", 5000, ["br"])) == b"a.txt.br"
    (encoded / "a.txt.br").write_text("changed")
    (encoded / "a.txt.zst").unlink()
    assert contents(roots.find(0, b"/a.txt", 6000, ["br"])) == b"changed"
    assert sidecars(roots, b"/a.txt", 6000) == ["gz", "br"]
    (encoded / "a.txt.zst").write_text("back")
    assert contents(roots.find(0, b"/a.txt", 7000, ["zst"])) == b"back"
    replaced(encoded / "a.txt", b"newer than they")
    os.utime(encoded / "a.txt", ns=(0, (encoded / "a.txt.zst").stat().st_mtime_ns + 10**9))
    assert sidecars(roots, b"/a.txt", 8000) == []


def test_the_index_may_have_encoded_forms(encoded, openat2):
    roots = Roots([encoded], TYPES, openat2, index=["index.html", "a.txt"])
    assert contents(roots.find(0, b"/", encoded=["br"])) == b"a.txt.br"
    assert roots.find(0, b"/", encoded=["br"])["type"] == b"text/plain"


# ---- links out, where they are wanted ----


def test_follow_symlinks_leads_out_of_the_root_but_dots_do_not(tree, openat2):
    roots = Roots([tree], TYPES, openat2, follow_symlinks=True)
    for path in (b"/out", b"/out-dir/canary.txt", b"/out-absolute", b"/out-chain", b"/out-beside"):
        assert contents(roots.find(0, path)) == CANARY, path
    assert contents(roots.find(0, b"/in-absolute")) == b"a.txt"
    for path in (b"/../canary.txt", b"/dir/../../canary.txt", b"/.secret", b"/fifo", b"/loop", b"/dangling"):
        assert roots.find(0, path) is None, path


# ---- the cache ----


def replaced(file, data):
    new = file.with_name("new")
    new.write_bytes(data)
    new.rename(file)


def overwritten(file, data):
    with file.open("r+b") as out:
        out.write(data)
        out.truncate()


@pytest.mark.parametrize("how", [replaced, overwritten])
@pytest.mark.parametrize("after", [0, 3, 100, MAX_SMALL, MAX_SMALL + 1, 100_000])
@pytest.mark.parametrize("before", [3, MAX_SMALL + 5])
def test_a_change_is_seen_within_a_second(tmp_path, openat2, before, after, how):
    file = tmp_path / "file"
    file.write_bytes(b"b" * before)
    os.utime(file, ns=OLD_TIME)
    roots = Roots([tmp_path], {}, openat2)
    old = roots.find(0, b"/file", 5000)
    how(file, b"a" * after)
    assert roots.find(0, b"/file", 5999)["etag"] == old["etag"]
    new = roots.find(0, b"/file", 6000)
    assert new["contents"] == b"a" * after
    assert new["size"] == after
    assert new["etag"] != old["etag"]


def test_within_the_second_the_old_contents_are_given(tmp_path, openat2):
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "large").write_bytes(b"o" * (MAX_SMALL + 1))
    roots = Roots([tmp_path], {}, openat2)
    for name in (b"/file", b"/large"):
        roots.find(0, name, 5000)
    replaced(tmp_path / "file", b"new")
    replaced(tmp_path / "large", b"n" * (MAX_SMALL + 1))
    assert contents(roots.find(0, b"/file", 5999)) == b"old"
    assert contents(roots.find(0, b"/large", 5999)) == b"o" * (MAX_SMALL + 1)


@pytest.mark.parametrize("size", [3, MAX_SMALL + 1])
def test_a_deletion_is_seen_within_a_second_and_a_return_at_once(tmp_path, openat2, size):
    file = tmp_path / "file"
    file.write_bytes(b"x" * size)
    roots = Roots([tmp_path], {}, openat2)
    assert roots.find(0, b"/file", 5000)
    file.unlink()
    assert roots.find(0, b"/file", 6000) is None
    assert roots.counters()["files"] == roots.counters()["open"] == 0
    file.write_bytes(b"y" * size)
    assert contents(roots.find(0, b"/file", 6000)) == b"y" * size


def test_a_change_to_something_else_is_seen_within_a_second(tmp_path, openat2):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "canary").write_bytes(CANARY)
    roots = Roots([root], {}, openat2)
    for number, (change, expected) in enumerate([
        (lambda: (root / "x").mkdir(), "directory"),
        (lambda: os.mkfifo(root / "x"), None),
        (lambda: (root / "x").symlink_to("../canary"), None),
        (lambda: (root / "x").symlink_to("y"), b"y"),
    ]):
        (root / "x").write_bytes(b"x")
        (root / "y").write_bytes(b"y")
        assert contents(roots.find(0, b"/x", 10_000 * number)) == b"x"
        (root / "x").unlink()
        change()
        assert contents(roots.find(0, b"/x", 10_000 * number + 1000)) == expected
        if (root / "x").is_dir():
            (root / "x").rmdir()
        else:
            (root / "x").unlink()


def test_what_was_not_found_is_looked_for_every_time(tmp_path, openat2):
    roots = Roots([tmp_path], {}, openat2)
    assert roots.find(0, b"/late", 5000) is None
    (tmp_path / "late").write_bytes(b"late")
    assert contents(roots.find(0, b"/late", 5000)) == b"late"


def test_hits_and_misses(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    roots = Roots([tmp_path], {})
    for now in (0, 1, 999, 1000, 2500):
        roots.find(0, b"/file", now)
    roots.find(0, b"/none", 0)
    assert roots.counters() == {"files": 1, "open": 0, "bytes": OVERHEAD + 6, "hits": 4, "misses": 2}


def links_to(file, n):
    """Makes n hard links to a file: names enough, without the contents."""
    for i in range(n):
        os.link(file, file.parent / str(i))


def test_files_are_bounded_and_the_longest_unasked_goes_first(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    links_to(tmp_path / "file", MAX_FILES + 10)
    roots = Roots([tmp_path], {})
    for i in range(MAX_FILES):
        roots.find(0, b"/%d" % i, 0)
    roots.find(0, b"/0", 1000)               # asked again: now 1 is the oldest
    for i in range(MAX_FILES, MAX_FILES + 10):
        roots.find(0, b"/%d" % i, 1000)
    assert roots.counters()["files"] == MAX_FILES
    misses = roots.counters()["misses"]
    for i in (0, 11, MAX_FILES - 1, MAX_FILES + 9):
        roots.find(0, b"/%d" % i, 1000)
    assert roots.counters()["misses"] == misses
    roots.find(0, b"/1", 1000)
    assert roots.counters()["misses"] == misses + 1


def chains(root, paths):
    """The chains' lengths once the files are known; each is a link to the one file in the root."""
    for path in paths:
        (root / path).parent.mkdir(exist_ok=True)
        os.link(root / "file", root / path)
    roots = Roots([root], {}, max_files=COUNT)
    for path in paths:
        assert roots.find(0, b"/" + path.encode())["size"] == 1
    return roots.chain_lengths()


@pytest.fixture(scope="module")
def random_chains(tmp_path_factory):
    root = tmp_path_factory.mktemp("random")
    (root / "file").write_bytes(b"x")
    return chains(root, [name.decode() for name in RANDOM])


@pytest.mark.parametrize("shape", [name for name, shape in SHAPES.items() if max(map(len, shape)) < 255])
def test_paths_that_are_alike_do_not_share_buckets(tmp_path, random_chains, shape):
    (tmp_path / "file").write_bytes(b"x")
    ours = chains(tmp_path, [name.decode().lstrip("/") for name in SHAPES[shape]])
    assert len(ours) == sum(ours) == COUNT
    assert comparisons(ours) <= 2 * comparisons(random_chains)
    assert max(ours) <= 2 * max(random_chains)


def test_roots_and_codings_do_not_share_buckets_either(tmp_path, random_chains):
    (tmp_path / "file").write_bytes(b"x")
    names = [f"{n}{ending}" for n in range(4) for ending in ("", ".gz", ".br", ".zst")]
    for name in names:
        os.link(tmp_path / "file", tmp_path / name)
    roots = Roots([tmp_path] * 256, {}, max_files=COUNT)
    for root, n, form in itertools.product(range(256), range(4), FORMS):
        assert roots.find(root, b"/%d" % n, encoded=[form])["encoded"] == form
    ours = roots.chain_lengths()
    assert len(ours) == sum(ours) == COUNT
    assert comparisons(ours) <= 2 * comparisons(random_chains)
    assert max(ours) <= 2 * max(random_chains)


def test_bytes_in_memory_are_bounded(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * MAX_SMALL)
    links_to(tmp_path / "file", MAX_BYTES // MAX_SMALL + 10)
    roots = Roots([tmp_path], {})
    for i in range(MAX_BYTES // MAX_SMALL + 10):
        assert roots.find(0, b"/%d" % i)["size"] == MAX_SMALL
        assert roots.counters()["bytes"] <= MAX_BYTES
    assert roots.counters()["bytes"] > MAX_BYTES - 2 * MAX_SMALL
    assert roots.counters()["files"] >= MAX_BYTES // (MAX_SMALL + OVERHEAD + len("/1000"))


@pytest.mark.parametrize(("size", "at_once", "again"), [
    (MAX_SMALL, True, True), (MAX_SMALL + 1, False, True), (MAX_WARM, False, True), (MAX_WARM + 1, False, False),
])
def test_what_is_asked_for_again_comes_into_memory_unless_it_is_large(tmp_path, openat2, size, at_once, again):
    contents = random.Random(size).randbytes(size)
    (tmp_path / "file").write_bytes(contents)
    roots = Roots([tmp_path], {}, openat2)
    first, second, third = (roots.find(0, b"/file", now) for now in (0, 500, 1500))
    assert (first["in_memory"], second["in_memory"], third["in_memory"]) == (at_once, again, again)
    assert first["contents"] == second["contents"] == third["contents"] == contents
    assert first["etag"] == second["etag"] == third["etag"]
    counters = roots.counters()
    assert counters["open"] == (not again)
    assert counters["bytes"] == OVERHEAD + len("/file") + (size if again else 0)


def test_a_file_that_has_become_shorter_is_not_taken_into_memory(tmp_path):
    (tmp_path / "file").write_bytes(bytes(MAX_WARM))
    roots = Roots([tmp_path], {})
    roots.find(0, b"/file", 0)
    os.truncate(tmp_path / "file", 10)
    assert not roots.find(0, b"/file", 500)["in_memory"]      # its length may have been promised
    assert roots.find(0, b"/file", 1500)["contents"] == bytes(10)


def test_the_bounds_are_settings(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 1000)
    links_to(tmp_path / "file", 100)
    few, small = Roots([tmp_path], {}, max_files=10), Roots([tmp_path], {}, max_bytes=5 * (OVERHEAD + 1010))
    many = Roots([tmp_path], {}, max_files=1 << 20)
    for i in range(100):
        for roots in (few, small, many):
            assert roots.find(0, b"/%d" % i)["size"] == 1000
    assert [roots.counters()["files"] for roots in (few, small, many)] == [10, 5, 100]


def test_open_files_are_bounded_and_closed_at_the_end(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * (MAX_SMALL + 1))
    (tmp_path / "small").write_bytes(b"x")
    links_to(tmp_path / "file", MAX_OPEN + 50)
    gc.collect()
    before = descriptors()
    roots = Roots([tmp_path], {})
    roots.find(0, b"/small")
    held_back = descriptors() - before
    for i in range(MAX_OPEN + 50):
        assert roots.find(0, b"/%d" % i)["size"] == MAX_SMALL + 1
        assert roots.counters()["open"] <= MAX_OPEN
    assert roots.counters()["open"] == MAX_OPEN
    assert descriptors() == before + held_back + MAX_OPEN
    misses = roots.counters()["misses"]
    roots.find(0, b"/small")                 # a file in memory does not make way for an open one
    roots.find(0, b"/%d" % (MAX_OPEN + 49))
    assert roots.counters()["misses"] == misses
    del roots
    assert descriptors() == before


def test_looking_for_what_is_not_served_leaves_no_descriptor_open(tree, openat2):
    roots = Roots([tree], {}, openat2)
    roots.find(0, b"/a.txt")
    before = descriptors()
    for path in (b"/dir", b"/fifo", b"/socket", b"/out", b"/nothing", b"/loop", b"/index/", b"/out-dir/x"):
        for now in (0, 1000, 2000):
            roots.find(0, path, now)
    assert descriptors() == before


# ---- nothing outside the root ----

PART = st.sampled_from([
    b"", b".", b"..", b"...", b"..%2f", b"%2e%2e", b"..\\", b"..;", b"~", b".\0.", b"\0", b"a.txt\0",
    b"a.txt", b"dir", b"deeper", b"b.txt", b"index.html", b"d" * 255, b"d" * 256,
    b"root", b"root-beside", b"outside", b"canary.txt", b"etc", b"passwd",
    b"in", b"in-dir", b"out", b"out-dir", b"out-up", b"out-absolute-dir", b"out-all",
    b"proc-root", b"proc-cwd", b"loop",
]) | st.binary(max_size=8)


@settings(max_examples=400, deadline=None)
@given(st.lists(PART, max_size=12))
@example([b"..", b"canary.txt"])
@example([b"dir", b"..", b"..", b"canary.txt"])
@example([b"in-dir", b"..", b"..", b"canary.txt"])
@example([b"out-up", b"outside", b""])
def test_no_path_leads_out(tree, openat2, parts):
    roots = Roots([tree], TYPES, openat2)
    found = roots.find(0, b"/" + b"/".join(parts))
    assert found in (None, "directory") or CANARY not in found["contents"]
    assert found in (None, "directory") or b"root:" not in found["contents"]


# ---- no descriptors left ----

CROWDED = """
import os, resource, sys
from c1m._probe_files import Roots

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
roots = Roots([sys.argv[1]], {}, sys.argv[2] == "True")
if sys.argv[3] == "warm":
    assert roots.find(0, b"/small-0", 0)["contents"] == b"0"
taken = []
try:
    while True:
        taken.append(os.dup(0))
except OSError:
    pass
for i in range(40):
    assert roots.find(0, b"/small-%d" % i, 0)["contents"] == b"%d" % i, i
for i in range(40):
    assert roots.find(0, b"/large-%d" % i, 0)["contents"][:2] == b"%02d" % i, i
for i in range(40):
    assert roots.find(0, b"/small-%d" % i, 5000)["contents"] == b"%d" % i, i
assert roots.find(0, b"/nothing", 0) is None
assert roots.counters()["open"] <= 16
for fd in taken:
    os.close(fd)
for i in range(20):
    assert roots.find(0, b"/large-%d" % i, 9000)["contents"][:2] == b"%02d" % i, i
print("done")
"""


@pytest.mark.parametrize("before", ["warm", "cold"])
def test_files_are_found_while_others_hold_every_descriptor(tmp_path, openat2, before):
    for i in range(40):
        (tmp_path / f"small-{i}").write_text(str(i))
        (tmp_path / f"large-{i}").write_text(f"{i:02}" * MAX_SMALL)
    done = subprocess.run(
        [sys.executable, "-c", CROWDED, tmp_path, str(openat2), before],
        capture_output=True, text=True, timeout=60,
    )
    assert done.stdout == "done\n", done.stderr
