"""Runs real programs against c1m and checks what they get: `python tests/programs.py`, or with the names of checks
behind it for these alone.

A line tells how each check went. What this machine lacks for one is named, and the check skipped; with CI=true that
fails. The exit status is 1 if anything did. For all of them:

    apt install nginx libnginx-mod-stream haproxy caddy curl wget wget2 rclone git aria2 zsync brotli dpkg-dev
    apt install nodejs npm chromium chromium-driver
    pip install selenium websockets 'zarr>=3' fsspec aiohttp pandas
    python3 -m venv zarr2 && zarr2/bin/pip install 'zarr<3' fsspec aiohttp

and `--zarr2 zarr2/bin/python`. One check takes five minutes, of which it sleeps all but a second; the others run
meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import filecmp
import gzip
import hashlib
import io
import json
import re
import shutil
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import frontends  # noqa: F401  # declares checks, too
import outside
from checks import PATIENCE, PYTHONS, check, curl, expect, laid, main, noise, run, same_trees, served, tree, until

import c1m

IDLE = 300                       # seconds that WebSockets behind nginx are silent
NAMES = [
    "plain.txt", "with space.txt", "hash#1.txt", "100% sure.txt", "50%25.txt", "ümläut.txt", "日本.txt", "a+b&c.txt",
    "semi;colon.txt", "co:lon.txt", "quo'te\".txt", "~tilde.txt", "[brackets].txt", "deep/er/file.txt",
    "dir with space/ü#%.txt", "empty.txt",
]  # fmt: skip


# ---- nginx ----

PROXY = """
daemon off; master_process off;
pid {place}/nginx.pid; error_log {place}/error.log;
events {{ }}
http {{
    access_log off;
    upstream servers {{ {servers} }}
    proxy_cache_path {place}/cache keys_zone=cached:1m;
    server {{
        listen 127.0.0.1:{port};
        location /app/ {{ proxy_pass http://servers/; {pass_on} }}
        location / {{ proxy_pass http://servers; {pass_on} }}
        location /cached/ {{
            proxy_pass http://servers/; proxy_http_version 1.1;
            proxy_cache cached; proxy_cache_revalidate on; add_header X-Cache $upstream_cache_status;
        }}
        location /sliced/ {{
            slice 1m; proxy_set_header Range $slice_range; proxy_cache_key $uri$slice_range; proxy_cache_valid 206 1h;
            proxy_pass http://servers/; proxy_http_version 1.1;
            proxy_cache cached; add_header X-Cache $upstream_cache_status;
        }}
    }}
}}
"""
PASS_ON = "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;"


@contextlib.contextmanager
def proxied(place: Path, *ports: int) -> Iterator[str]:
    """The URL of an nginx in front of servers, which takes a prefix /app away, and is as it comes in all else."""
    place.chmod(0o755)
    port = outside.free_port()
    servers = " ".join(f"server 127.0.0.1:{each};" for each in ports)
    with outside.nginx(place, PROXY.format(place=place, port=port, servers=servers, pass_on=PASS_ON), port):
        yield f"http://127.0.0.1:{port}"


@check("nginx: idle WebSockets", "nginx", "python:websockets")
def idle_websockets(place: Path) -> str:
    """A route that pings too late for nginx shows that nginx does drop the silent."""
    server = c1m.Server(None, ports=0)
    server.websocket("/echo")
    server.websocket("/late", idle_timeout=3 * IDLE, ping_interval=2 * IDLE)
    with server, proxied(place, server.ports[0]) as url:
        return asyncio.run(idle(url.replace("http", "ws")))


async def idle(url: str) -> str:
    import websockets

    async with contextlib.AsyncExitStack() as stack:

        async def opened(path: str) -> Any:
            return await stack.enter_async_context(websockets.connect(url + path, ping_interval=None))

        silent = [await opened(path) for path in ["/echo", "/app/echo"] * 50]
        late = await opened("/late")
        await asyncio.sleep(IDLE)
        for number, each in enumerate(silent):
            await each.send(f"still {number}")
            expect(await asyncio.wait_for(each.recv(), PATIENCE), f"still {number}", "an echo")
        expect(late.state.name, "CLOSED", "the state of a WebSocket that was not pinged")
    return f"{len(silent)} silent for {IDLE} s, each echoes; one without pings was dropped"


@check("nginx: files", "nginx", "curl", "wget")
def nginx_files(place: Path) -> str:
    files = {"docs/index.html": "the docs", "list/a b.txt": "a", "list/sub/c.txt": "c", "x.txt": "x"}
    root, got = laid(place / "root", files), laid(place / "got", {})
    with served(root, listing=True) as site, proxied(place, site.port) as url:
        expect(curl(f"{url}/app/x.txt"), "x", "a file")
        for path in ("/docs", "/app/docs"):
            led = curl("-L", "-w", " %{url_effective}", url + path)
            expect(led, f"the docs {url}{path}/", f"what {path} leads to")
        run("wget", "-q", "-r", "-np", "-nH", "--cut-dirs=2", "-R", "index.html*", f"{url}/app/list/", cwd=got)
    same_trees(got, root / "list")
    return "a file, a redirect below a prefix that it takes away, a listing"


@check("nginx: two servers", "nginx", "curl", "wget")
def two_servers(place: Path) -> str:
    """Both have the same files, copied by `cp -p`; nginx asks them in turn."""
    sizes = {"small": 1_000, "medium": 100_000, "large": 5_000_000}
    root = laid(place / "one", {name: noise(size) for name, size in sizes.items()})
    run("cp", "-rp", root, place / "two")
    with served(root) as one, served(place / "two") as two, proxied(place, one.port, two.port) as url:
        for name, size in sizes.items():
            whole = (root / name).read_bytes()
            tags = {etag(f"{site.url}/{name}") for site in (one, two)}
            expect(len(tags), 1, f"how many ETags {name} has")
            tag = tags.pop()
            for _ in range(2):
                status = curl("-w", "%{http_code}", "-H", f"If-None-Match: {tag}", f"{url}/{name}")
                expect(status, "304", f"the status of {name}, revalidated")
            for resume in (["curl", "-sSfO", "-C", "-", "-H", f"If-Range: {tag}"], ["wget", "-q", "-c"]):
                got = laid(place / f"{name} by {resume[0]}", {})
                curl("-r", f"0-{size // 3}", "-o", name, f"{url}/{name}", cwd=got)
                run(*resume, f"{url}/{name}", cwd=got)
                expect((got / name).read_bytes() == whole, True, f"{name} is whole, resumed by {resume[0]}")
    for site in (one, two):
        # The ETag, a revalidation, and of each of the two downloads a part: the one or the other.
        wanted = Counter({200: 1, 304: 1, 206: 2})
        for name in sizes:
            expect(site.statuses(f"/{name}"), wanted, f"one server's answers for {name}")
    return f"{', '.join(map(str, sizes.values()))} bytes: one ETag; revalidated and resumed at whichever"


def etag(url: str) -> str:
    return field("etag", curl("-I", url))


def field(name: str, head: str) -> str:
    return re.search(rf"(?mi)^{name}: (.*?)\s*$", head)[1]


@check("nginx: cache", "nginx", "curl")
def nginx_cache(place: Path) -> str:
    """It keeps each encoded form by itself (Vary), asks again by the ETag, and puts a file together out of slices."""
    text, large = "to be compressed " * 1000, noise(5_000_000)
    files = {"a.txt": text, "a.txt.gz": gzip.compress(text.encode()), "large": large}
    with served(laid(place / "root", files), cache={"*": "max-age=1"}) as site, proxied(place, site.port) as url:

        def cached(*options: str) -> tuple[str, str]:
            head = curl(*options, "-D", "-", "-o", place / "got", f"{url}/cached/a.txt")
            expect((place / "got").read_text(), text, "what the cache sends")
            return field("x-cache", head), field("content-length", head)

        for options, size in (([], len(text)), (["--compressed"], len(files["a.txt.gz"]))):
            expect(cached(*options), ("MISS", str(size)), f"the first answer to curl {options}")
            until(lambda options=options, size=size: cached(*options) == ("REVALIDATED", str(size)))
        part = curl("-D", "-", "-o", place / "part", "-r", "1000000-2000000", f"{url}/sliced/large")
        expect(field("content-range", part), f"bytes 1000000-2000000/{len(large)}", "a part of slices")
        curl("-o", place / "large", f"{url}/sliced/large")
    expect((place / "part").read_bytes() == large[1_000_000:2_000_001], True, "a part is right")
    expect((place / "large").read_bytes() == large, True, "the whole out of slices is right")
    expect(site.statuses("/large"), Counter({206: 5}), "answers for slices")
    return "two encoded forms, each revalidated; a file out of slices"


# ---- downloads ----


@check("rclone", "rclone")
def rclone(place: Path) -> str:
    root = laid(place / "root", {name: name * 3 for name in NAMES} | {"empty.txt": "", "large.bin": noise(1 << 20)})
    with served(root, listing=True) as site:
        both = ["--http-url", site.url, ":http:", place / "got"]
        run("rclone", "copy", *both)
        run("rclone", "check", "--download", *both)
        before = site.server.stats()["bytes_sent"]
        run("rclone", "copy", *both)
        expect(site.server.stats()["bytes_sent"] - before < 1 << 16, True, "a second copy fetches nothing")
    return f"{same_trees(place / 'got', root)} files, odd names among them; a second copy fetches nothing"


@check("wget -r and wget2 -r", "wget", "wget2")
def mirrors(place: Path) -> str:
    names = [name for name in NAMES if name.isascii() and "%2" not in name]  # which wget decodes twice
    root = laid(place / "root", {name: name for name in names})
    with served(root, listing=True) as site:
        for program, options in {"wget": ["-nH", "--restrict-file-names=nocontrol"], "wget2": ["-nH"]}.items():
            got = laid(place / program, {})
            run(program, "-q", "-r", *options, site.url, cwd=got)
            for listing in got.rglob("index.html"):
                listing.unlink()
            same_trees(got, root)
    return f"{len(names)} files by each"


@check("aria2c", "aria2c")
def aria2c(place: Path) -> str:
    root = laid(place / "root", {"large.bin": noise(16 << 20)})
    with served(root) as site:
        run("aria2c", "-q", "-x8", "-s8", "-k1M", "-d", place / "got", f"{site.url}/large.bin")
    same_trees(place / "got", root)
    expect(site.statuses()[206] >= 7, True, f"ranges asked for on 8 connections ({dict(site.statuses())})")
    return f"16 MiB in {site.statuses()[206] + 1} pieces"


@check("zsync", "zsync", "zsyncmake")
def zsync(place: Path) -> str:
    """What is at hand lacks every eighth of 32 KiB: more gaps than fit into one of its requests."""
    new = noise(8 << 20)
    root, old = laid(place / "root", {"file": new}), bytearray(new)
    for begin in range(0, len(old), 1 << 18):
        old[begin : begin + (1 << 15)] = noise(1 << 15, begin)
    laid(place, {"old": bytes(old)})
    run("zsyncmake", "-u", "file", "-o", root / "file.zsync", root / "file")
    with served(root) as site:
        run("zsync", "-q", "-i", place / "old", "-o", place / "got", f"{site.url}/file.zsync")
    expect(filecmp.cmp(place / "got", root / "file", shallow=False), True, "the files are the same")
    expect(set(site.statuses("/file")), {206}, "statuses of the file's answers")
    sent = sum(answer.size for answer in site.answers if answer.target == "/file")
    expect(sent < len(new) // 4, True, f"it takes less than a quarter of the file ({sent} bytes)")
    return f"32 gaps in 8 MiB closed by {sent} bytes, in {site.statuses('/file')[206]} requests"


@check("curl --compressed", "curl", "brotli")
def curl_compressed(place: Path) -> str:
    text = "to be compressed " * 1000
    root = laid(place / "root", {"gz.txt": text, "br.txt": text, "gz.txt.gz": gzip.compress(text.encode())})
    run("brotli", "-q", "5", root / "br.txt")
    with served(root) as site:
        for name in ("gz.txt", "br.txt"):
            expect(curl("--compressed", f"{site.url}/{name}"), text, name)
            expect(curl("--compressed", "-r", "6-9", f"{site.url}/{name}"), text[6:10], f"a range of {name}")
    sizes = [answer.size for answer in site.answers if answer.status == 200]
    expect(all(size < len(text) // 10 for size in sizes), True, f"sent was what is compressed ({sizes})")
    return "gzip and br, and a range of each"


@check("git clone", "git")
def git_clone(place: Path) -> str:
    """Git's protocol for plain files: packs, loose objects and refs."""
    work, bare = laid(place / "work", {"a.txt": "a"}), place / "root" / "repo.git"
    identity = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

    def commit(text: str) -> None:
        laid(work, {"a.txt": text, "sub/b.bin": noise(100_000, len(text))})
        run("git", "add", ".", cwd=work)
        run("git", "commit", "-q", "-m", text, cwd=work, **identity)

    run("git", "init", "-q", "-b", "main", work)
    commit("one")
    run("git", "clone", "-q", "--bare", work, bare)
    run("git", "repack", "-a", "-d", "-q", cwd=bare)
    run("git", "update-server-info", cwd=bare)
    with served(place / "root") as site:
        run("git", "clone", "-q", f"{site.url}/repo.git", place / "got")
        commit("three")
        run("git", "push", "-q", bare, "main", cwd=work)
        run("git", "update-server-info", cwd=bare)
        # A file that changes is seen within a second.
        until(lambda: run("git", "rev-parse", "main", cwd=work)[:40] in run("git", "ls-remote", f"{site.url}/repo.git"))
        run("git", "pull", "-q", cwd=place / "got")
    for each in (work, place / "got"):
        shutil.rmtree(each / ".git")
    return f"cloned and pulled, {same_trees(place / 'got', work)} files"


# ---- packages ----

SOURCES = {
    "flat": "deb [trusted=yes] {url}/flat/ ./",
    "ordinary": "deb [trusted=yes] {url}/debian stable main",
}
APT = """
Dir "{place}/apt"; Dir::State::status "{place}/apt/status"; Dir::Log "{place}/apt";
APT::Architecture "amd64"; APT::Sandbox::User "root"; Acquire::Languages "none"; Acquire::http::Proxy "DIRECT";
Acquire::Retries "0";
"""
STATE = [
    "status", "var/lib/apt/lists/partial/x", "var/cache/apt/archives/partial/x", "etc/apt/preferences.d/x",
    "etc/apt/trusted.gpg.d/x", "etc/apt/apt.conf.d/x",
]  # fmt: skip
CONTROL = """Package: c1m-{name}
Version: 1:1.0+a~b
Architecture: all
Maintainer: A <a@b>
Description: none
"""
RELEASE = """Suite: stable
Architectures: amd64
Components: main
Date: Sun, 06 Nov 2022 08:49:37 UTC
SHA256:
"""


@check("apt-get", "apt-get", "dpkg-deb", "dpkg-scanpackages")
def apt(place: Path) -> str:
    """A flat repository, whose every URL has `/./` in it and which has no Release file, and an ordinary one."""
    root = place / "root"
    repositories(root)
    with served(root) as site:
        for name, source in SOURCES.items():
            state = place / name
            laid(state / "apt", dict.fromkeys(STATE, "") | {"etc/apt/sources.list": f"{source.format(url=site.url)}\n"})
            laid(state, {"config": APT.format(place=state)})
            config = {"APT_CONFIG": str(state / "config")}
            run("apt-get", "update", **config)
            run("apt-get", "update", **config)
            run("apt-get", "download", f"c1m-{name}", cwd=state, **config)
            run("apt-get", "install", "-y", "--download-only", "--no-install-recommends", f"c1m-{name}", **config)
            [package] = state.glob("*.deb")
            [original] = root.rglob(f"c1m-{name}_*.deb")
            expect(filecmp.cmp(package, original, shallow=False), True, f"{package.name} is the same")
    for ending in ("/flat/./Packages.gz", "/debian/dists/stable/Release"):
        expect(site.statuses(ending), Counter({200: 1, 304: 1}), f"answers for {ending}")
    return "a flat and an ordinary repository; updated, again (304), downloaded"


def repositories(root: Path) -> None:
    pool = {"flat": root / "flat", "ordinary": root / "debian/pool/main/c"}
    for name, folder in pool.items():
        files = {"DEBIAN/control": CONTROL.format(name=name), "usr/share/doc/c1m/x": noise(50_000)}
        package = laid(root.parent / f"package-{name}", files)
        folder.mkdir(parents=True)
        run("dpkg-deb", "--root-owner-group", "-b", package, folder / f"c1m-{name}_1.0+a~b_all.deb")
    flat = run("dpkg-scanpackages", "--multiversion", ".", cwd=pool["flat"])
    ordinary = run("dpkg-scanpackages", "--multiversion", "pool", cwd=root / "debian")
    dists = root / "debian/dists/stable"
    for folder, text in ((root / "flat", flat), (dists / "main/binary-amd64", ordinary)):
        laid(folder, {"Packages": text, "Packages.gz": gzip.compress(text.encode())})
    sums = "".join(f" {hashlib.sha256(text).hexdigest()} {len(text)} {name}\n" for name, text in tree(dists).items())
    laid(dists, {"Release": RELEASE + sums})


WHEEL = {
    "c1m_sample.py": "ANSWER = 42\n",
    "c1m_sample-1.0+a.dist-info/METADATA": "Metadata-Version: 2.1\nName: c1m-sample\nVersion: 1.0+a\n",
    "c1m_sample-1.0+a.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "c1m_sample-1.0+a.dist-info/RECORD": "c1m_sample.py,,\n",
}


@check("pip")
def pip(place: Path) -> str:
    """A simple index made of directories: the listings are its pages."""
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as file:
        for name, text in WHEEL.items():
            file.writestr(name, text)
    root = laid(place / "root", {"simple/c1m-sample/c1m_sample-1.0+a-py3-none-any.whl": wheel.getvalue()})
    with served(root, listing=True) as site:
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-cache-dir", "--disable-pip-version-check"]
        run(*command, "--index-url", f"{site.url}/simple", "--target", place / "got", "c1m-sample")
    expect((place / "got/c1m_sample.py").read_text(), "ANSWER = 42\n", "the module")
    return "a wheel, found in a listing"


@check("npm", "npm")
def npm(place: Path) -> str:
    """A scoped package, which npm asks for with an escaped slash."""
    packed = io.BytesIO()
    package = json.dumps({"name": "@c1m/sample", "version": "1.0.0", "main": "x.js"}).encode()
    with tarfile.open(fileobj=packed, mode="w:gz") as file:
        for name, text in {"package/package.json": package, "package/x.js": b"module.exports = 42;"}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            file.addfile(entry, io.BytesIO(text))
    root = laid(place / "root", {"@c1m/sample/-/sample-1.0.0.tgz": packed.getvalue()})
    with served(root, escaped_slashes=True, index="index.json") as site:
        version = json.loads(package) | {"dist": {"tarball": f"{site.url}/@c1m/sample/-/sample-1.0.0.tgz"}}
        about = {"name": "@c1m/sample", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
        laid(root, {"@c1m/sample/index.json": json.dumps(about)})
        options = ["--registry", site.url, "--no-audit", "--no-fund", "--no-update-notifier"]
        run("npm", "install", *options, "--prefix", place / "got", "@c1m/sample@1")
    expect((place / "got/node_modules/@c1m/sample/x.js").read_text(), "module.exports = 42;", "the module")
    expect(site.statuses("/@c1m%2fsample"), Counter({301: 1}), "answers for /@c1m%2fsample")
    return "a scoped package, its page an index behind a redirect"


# ---- data ----

FSSPEC = """
import sys, fsspec, pandas
url = sys.argv[1]
fs = fsspec.filesystem("http")
def names(found):
    return sorted(each.removeprefix(url + "/t/") for each in found)
def same(got, wanted):
    assert got == wanted, (got, wanted)
csv, sub = ["a%20b.csv", "one.csv", "two.csv"], "sub/three.csv"
same(names(fs.ls(url + "/t/", detail=False)), sorted([*csv, "sub/"]))
same(names(fs.glob(url + "/t/*.csv")), csv)
same(names(fs.glob(url + "/t/**/*.csv")), sorted([*csv, sub]))
same(names(fs.find(url + "/t")), sorted([*csv, sub]))
whole = open(sys.argv[2], "rb").read()
with fs.open(url + "/large.bin", block_size=1 << 16) as file:
    same(file.size, len(whole))
    for at in (0, 999_999, 123_456, len(whole) - 10):
        file.seek(at)
        same(file.read(1000), whole[at:at + 1000])
same(fs.cat_file(url + "/large.bin", start=-5), whole[-5:])
begins = [0, 500_000, 77]
got = fs.cat_ranges([url + "/large.bin"] * 3, begins, [at + 9 for at in begins])
same(got, [whole[at:at + 9] for at in begins])
same([fs.exists(url + name) for name in ("/t/one.csv", "/t/none.csv")], [True, False])
same(fs.info(url + "/t/one.csv")["size"], 8)
with fsspec.open_files(url + "/t/*.csv") as files:
    rows = pandas.concat(map(pandas.read_csv, files))
same(sorted(rows.x), [1, 2, 3])
print("ls, glob, find, ranges, cat_ranges, pandas.read_csv")
"""


@check("fsspec", "zarr3:fsspec")
def fsspec(place: Path) -> str:
    """Its client takes gzip wherever it can have it: the sidecars must not spoil ranges and lengths."""
    names = ["t/one.csv", "t/two.csv", "t/a b.csv", "t/sub/three.csv"]
    tables = {name: f"x,y\n{i},0\n" for i, name in enumerate(names, 1)}
    large = noise(300_000) * 4
    root = laid(place / "root", {**tables, "large.bin": large, "large.bin.gz": gzip.compress(large)})
    with served(root, listing=True) as site:
        said = run(PYTHONS["zarr3"], "-c", FSSPEC, site.url, root / "large.bin")
    return said.strip()


# Both versions of Zarr have these. The array lacks chunks that are all fill value: they are asked for and missing.
ZARR = """
import functools, sys, fsspec, numpy, zarr
url, path = sys.argv[1:3]
v3 = zarr.__version__.startswith("3.")
wanted = numpy.arange(10_000, dtype="i4").reshape(100, 100)
wanted[:50, :50] = 7
for version in (2, 3) if v3 else (2,):
    options = {"zarr_format": version} if v3 else {}
    group = zarr.open_group(f"{path}/v{version}", mode="w", **options)
    create = group.create_array if v3 else functools.partial(group.create_dataset, write_empty_chunks=False)
    array = create("sub/a", shape=(100, 100), chunks=(25, 25), dtype="i4", fill_value=7)
    array[:] = wanted
    array.attrs["unit"] = "m"
    zarr.consolidate_metadata(group.store)
    for consolidated in (True, False):
        if v3:
            got = zarr.open_group(f"{url}/v{version}", mode="r", use_consolidated=consolidated, zarr_format=version)
        else:
            store = fsspec.get_mapper(f"{url}/v2")
            got = zarr.open_consolidated(store, mode="r") if consolidated else zarr.open_group(store, mode="r")
        assert (got["sub/a"][:] == wanted).all()
        assert dict(got["sub/a"].attrs) == {"unit": "m"}
print(f"zarr {zarr.__version__}, its formats and with consolidated metadata, some chunks missing")
"""


def zarr(place: Path, version: str) -> str:
    with served(laid(place / "root", {}), dotfiles=True) as site:
        said = run(PYTHONS[version], "-W", "ignore", "-c", ZARR, site.url, place / "root")
    expect(set(site.statuses()), {200, 404}, "statuses of answers")
    return said.strip()


@check("zarr 2", "zarr2:zarr")
def zarr_2(place: Path) -> str:
    return zarr(place, "zarr2")


@check("zarr 3", "zarr3:zarr")
def zarr_3(place: Path) -> str:
    return zarr(place, "zarr3")


# ---- pages in Chromium ----

# Each asks for its own address and then tells it in its title, as an application's router would.
APPLICATION = """<!doctype html><meta charset="utf-8"><title>waiting</title><div id="app"></div>
<script src="/assets/app.v1.2.js"></script>"""
ROUTER = """const show = () => { document.title = "at " + location.pathname; };
window.go = (to) => { history.pushState({}, "", to); show(); };
addEventListener("popstate", show); show();"""
PLACES = ["/rooms/7/edit", "/über/uns", "/user/a.b@example.org", "/docs/v1.2", "/@me/file.unknownkind"]
MISSING = ["/assets/app.v1.1.js", "/none.css", "/deep/er/none.png", "/none.json"]
FETCHED = """const [addresses, done] = arguments;
Promise.all(addresses.map(async (each) => (await fetch(each)).status)).then(done, (error) => done(String(error)));"""


@contextlib.contextmanager
def chromium(place: Path) -> Iterator[Any]:
    binary, driver = (shutil.which(name) for name in BROWSER[:2])
    with outside.chromium(binary, driver, place / "profile") as browser:
        yield browser


BROWSER = ("chromium", "chromedriver", "python:selenium")


@check("single-page application", *BROWSER)
def application(place: Path) -> str:
    """Its places are pages when they are gone to, reloaded and come back to; what is missing stays so."""
    root = laid(place / "root", {"index.html": APPLICATION, "assets/app.v1.2.js": ROUTER})
    with served(root, spa=True) as site, chromium(place) as browser:
        for path in PLACES:
            at = f"at {quote(path, safe='/@')}"
            for go in (lambda path=path: browser.get(site.url + path), browser.refresh):
                go()
                expect(browser.title, at, f"the title of {path}")
            browser.execute_script("go('/elsewhere/v2.0')")
            browser.refresh()
            expect(browser.title, "at /elsewhere/v2.0", "the title of where it went")
            browser.back()
            until(lambda at=at: browser.title == at)
        expect(browser.execute_async_script(FETCHED, MISSING), [404] * len(MISSING), "statuses of missing files")
    return f"{len(PLACES)} deep links, {len(MISSING)} missing files"


# What is compressed under its own name, and which option of Root says so.
ENCODINGS = {"encodings": {"*.br": "br", "*.gz": "gzip", "*.pbf": "gzip"}}
# The least WebAssembly module: it exports a function f that returns 42.
WASM = bytes.fromhex("0061736d010000000105016000017f03020100070501016600000a06010400412a0b")
# What a player of Unity's and a map's library do, and what they should see.
PLAYER = """<!doctype html><title>waiting</title><script src="Build/x.framework.js.br"></script>"""
ENCODED = {                      # path: its text, Content-Encoding, Content-Type
    "Build/x.wasm.br": (WASM, "br", "application/wasm"),
    "Build/x.data.gz": (b"data " * 1000, "gzip", "application/octet-stream"),
    "Build/x.framework.js.br": (b"window.framework = 'runs';" + b" " * 1000, "br", "text/javascript; charset=utf-8"),
    "tiles/0/0/0.pbf": (b"a tile " * 1000, "gzip", "application/octet-stream"),
}  # fmt: skip
READ = """const [address, done] = arguments;
fetch(address).then(async (answer) => {
    const digest = await crypto.subtle.digest("SHA-256", await answer.clone().arrayBuffer());
    done([answer.headers.get("Content-Encoding"), answer.headers.get("Content-Type"),
          Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("")]);
}).catch((error) => done(String(error)));"""
INSTANTIATED = """const done = arguments[0];
WebAssembly.instantiateStreaming(fetch("Build/x.wasm.br")).then(
    (made) => done(made.instance.exports.f()), (error) => done(String(error)));"""


@check("Unity and vector tiles", *BROWSER, "brotli")
def encoded(place: Path) -> str:
    root = laid(place / "root", {"index.html": PLAYER})
    for name, (text, coding, _) in ENCODED.items():
        laid(root, {name: gzip.compress(text) if coding == "gzip" else text})
        if coding == "br":
            plain = (root / name).rename(place / "plain")
            run("brotli", "-q", "5", "-o", root / name, plain)
    with served(root, **ENCODINGS) as site, chromium(place) as browser:
        browser.get(site.url)
        expect(browser.execute_script("return window.framework"), "runs", "the framework")
        expect(browser.execute_async_script(INSTANTIATED), 42, "what the module returns")
        for name, (text, coding, kind) in ENCODED.items():
            wanted = [coding, kind, hashlib.sha256(text).hexdigest()]
            expect(browser.execute_async_script(READ, f"/{name}"), wanted, name)
    return f"{len(ENCODED)} files, a module instantiated as it comes"


if __name__ == "__main__":
    sys.exit(main())
