"""Files as a real browser uses them: sought in, downloaded, encoded, and as a single-page application."""

import gzip
import hashlib
import subprocess
import wave

import client
import pytest
from selenium.webdriver.support.ui import WebDriverWait

import c1m

SECONDS = 600
RATE = 48_000                    # bytes of sound a second
PAGE = """<!doctype html><meta charset="utf-8"><title>waiting</title><link rel="stylesheet" href="/style.css">
<link rel="stylesheet" href="/both.css"><script src="/app.js"></script>
<audio src="/long.wav" preload="metadata"></audio><a href="/same.wav" download="saved.wav">save</a>"""
# Brotli has no encoder in the standard library: this is "p { width: 456px }".
BROTLI = bytes.fromhex("8b088070207b2077696474683a203435367078207d03")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    root = tmp_path_factory.mktemp("site")
    (root / "index.html").write_text(PAGE)
    (root / "app.js").write_text("document.title = location.pathname;")
    (root / "style.css").write_text("/* never sent: its sidecar is */")
    (root / "style.css.gz").write_bytes(gzip.compress(b"body { width: 123px }"))
    (root / "both.css").write_text("/* nor is this */")
    (root / "both.css.gz").write_bytes(gzip.compress(b"html { width: 789px }"))
    (root / "both.css.br").write_bytes(BROTLI)
    with wave.open(str(root / "long.wav"), "wb") as sound:
        sound.setparams((1, 1, RATE, 0, "NONE", ""))
        # No two seconds are the same, so that none can stand for another.
        sound.writeframes(b"".join(second.to_bytes(2, "big") * (RATE // 2) for second in range(SECONDS)))
    # What is downloaded has a name of its own, so that the log tells what was played.
    (root / "same.wav").hardlink_to(root / "long.wav")
    with c1m.Server(root=c1m.Root(root, spa=True), ports=[0], access_log=root / "log") as server:
        yield f"http://127.0.0.1:{server.ports[0]}", root


def until(browser, script):
    wait = WebDriverWait(browser, client.PATIENCE, poll_frequency=0.02)
    return wait.until(lambda _: browser.execute_script(script), f"waited in vain for {script}")


def logged(root, target):
    """What the access log tells of a target so far: status and bytes of each answer."""
    lines = [line.split() for line in (root / "log").read_text().splitlines()]
    return [(int(line[8]), int(line[9].replace("-", "0"))) for line in lines if line[6] == target]


def test_a_deep_link_of_a_single_page_application(browser, site):
    browser.get(site[0] + "/rooms/7/edit")
    until(browser, "return document.title == '/rooms/7/edit'")
    client.until(lambda: logged(site[1], "/rooms/7/edit") == [(200, len(PAGE))], "the deep link in the log")


@pytest.mark.parametrize("name, coding, text", [
    ("style.css", "gzip", "body { width: 123px }"),
    ("both.css", "br", "p { width: 456px }"),
])
def test_a_sidecar_is_decoded(browser, site, name, coding, text):
    browser.get(site[0])
    until(browser, "return getComputedStyle(document.body).width == '123px'")
    got = browser.execute_async_script("""const [name, done] = arguments; fetch(name, {cache: "no-store"}).then(
        async (answer) => done([answer.headers.get("Content-Encoding"), await answer.text()]))""", f"/{name}")
    assert got == [coding, text]


def test_a_recording_is_sought_in_by_range(browser, site):
    """Near its end after a jump, the browser must not have fetched what lies between."""
    browser.get(site[0])
    until(browser, "const a = document.querySelector('audio'); return a.readyState >= 1 && a.duration")
    browser.execute_script(f"document.querySelector('audio').currentTime = {SECONDS - 10}")
    until(browser, f"const a = document.querySelector('audio'); return !a.seeking && a.currentTime == {SECONDS - 10}")
    has = browser.execute_script("""const {buffered} = document.querySelector('audio');
        return Array.from(buffered, (_, i) => [buffered.start(i), buffered.end(i)]);""")
    assert next(begin for begin, end in has if begin <= SECONDS - 10 <= end) > SECONDS / 2
    # The beginning of it and the end; a cache may have had the former.
    client.until(lambda: 206 in dict(logged(site[1], "/long.wav")), "a range in the log")
    assert 200 not in dict(logged(site[1], "/long.wav"))


def test_scripts_of_other_origins_read_every_field(browser, site):
    names = ["content-range", "accept-ranges", "content-length", "etag", "x-own"]
    root = c1m.Root(site[1], cors=site[0], headers={"X-Own": "1"})
    with c1m.Server(root, ports=[0]) as other:
        browser.get(site[0])
        values = browser.execute_async_script(
            "const [url, names, done] = arguments;"
            "fetch(url, {headers: {Range: 'bytes=0-9'}}).then(a => done(names.map(n => a.headers.get(n))), done)",
            f"http://127.0.0.1:{other.ports[0]}/app.js", names,
        )
    assert values[:3] == ["bytes 0-9/35", "bytes", "10"]
    assert values[3].startswith('"')
    assert values[4] == "1"


def test_a_download_is_saved(browser, site, tmp_path):
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    browser.get(site[0])
    browser.find_element("tag name", "a").click()
    # Until it is whole it has another name.
    client.until((tmp_path / "saved.wav").exists, "the download")
    assert (tmp_path / "saved.wav").read_bytes() == (site[1] / "long.wav").read_bytes()


def test_a_download_is_resumed_by_a_page(browser, site):
    """Broken off on its way, then continued from there, if the file is still the same."""
    browser.get(site[0])
    status, begun, digest = browser.execute_async_script("""
        const done = arguments[0];
        const broken = new AbortController(), parts = [];
        fetch("/same.wav", {signal: broken.signal, cache: "no-store"}).then(async (first) => {
            const reader = first.body.getReader();
            let begun = 0;
            while (begun < 1234567) {
                parts.push((await reader.read()).value);
                begun += parts.at(-1).length;
            }
            broken.abort();
            const headers = {"Range": `bytes=${begun}-`, "If-Range": first.headers.get("ETag")};
            const second = await fetch("/same.wav", {headers, cache: "no-store"});
            parts.push(await second.arrayBuffer());
            const digest = await crypto.subtle.digest("SHA-256", await new Blob(parts).arrayBuffer());
            done([second.status, begun, Array.from(new Uint8Array(digest))]);
        }).catch((error) => done([String(error), 0, []]));""")
    whole = (site[1] / "long.wav").read_bytes()
    assert status == 206
    assert begun < len(whole)
    assert bytes(digest) == hashlib.sha256(whole).digest()
    client.until(lambda: (206, len(whole) - begun) in logged(site[1], "/same.wav"), "the rest in the log")


def test_a_download_is_resumed_by_curl(site, tmp_path):
    address, root = site
    whole = (root / "long.wav").read_bytes()
    (tmp_path / "part").write_bytes(whole[:1_234_567])
    subprocess.run(["curl", "-s", "-C", "-", "-o", tmp_path / "part", address + "/same.wav"], check=True)
    assert (tmp_path / "part").read_bytes() == whole
