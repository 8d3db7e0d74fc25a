"""Files as a real browser uses them: sought in, encoded, and as a single-page application."""

import gzip
import subprocess
import wave

import client
import pytest
from selenium.webdriver.support.ui import WebDriverWait

import c1m

SECONDS = 600
PAGE = """<!doctype html><meta charset="utf-8"><title>waiting</title><link rel="stylesheet" href="/style.css">
<script src="/app.js"></script><audio src="/long.wav" preload="metadata"></audio>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    root = tmp_path_factory.mktemp("site")
    (root / "index.html").write_text(PAGE)
    (root / "app.js").write_text("document.title = location.pathname;")
    (root / "style.css").write_text("/* never sent: its sidecar is */")
    (root / "style.css.gz").write_bytes(gzip.compress(b"body { width: 123px }"))
    with wave.open(str(root / "long.wav"), "wb") as sound:
        sound.setparams((1, 1, 48_000, 0, "NONE", ""))
        sound.writeframes(bytes(48_000 * SECONDS))
    with c1m.Server(root=c1m.Root(root, spa=True), ports=[0], access_log=root / "log") as server:
        yield f"http://127.0.0.1:{server.ports[0]}", root


def until(browser, script):
    return WebDriverWait(browser, 30, poll_frequency=0.02).until(lambda _: browser.execute_script(script))


def test_a_deep_link_of_a_single_page_application(browser, site):
    browser.get(site[0] + "/rooms/7/edit")
    until(browser, "return document.title == '/rooms/7/edit'")


def test_a_sidecar_is_decoded(browser, site):
    browser.get(site[0])
    until(browser, "return getComputedStyle(document.body).width == '123px'")


def test_a_recording_is_sought_in_by_range(browser, site):
    """Near its end after a jump, the browser must not have fetched what lies between."""
    browser.get(site[0])
    until(browser, "const a = document.querySelector('audio'); return a.readyState >= 1 && a.duration")
    browser.execute_script(f"document.querySelector('audio').currentTime = {SECONDS - 10}")
    until(browser, f"const a = document.querySelector('audio'); return !a.seeking && a.currentTime == {SECONDS - 10}")
    statuses = [line.split()[8] for line in until_logged(site[1]).splitlines() if "/long.wav" in line]
    assert "206" in statuses
    assert "200" not in statuses             # which would be all of it; 304 is for what another test has cached


def until_logged(root):
    """The access log, once it tells of the jump."""
    log = root / "log"
    client.until(lambda: log.read_text().count("/long.wav") > 1, "two requests in the log")
    return log.read_text()


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


def test_a_download_is_resumed(site, tmp_path):
    address, root = site
    whole = (root / "long.wav").read_bytes()
    (tmp_path / "part").write_bytes(whole[:1_234_567])
    subprocess.run(["curl", "-s", "-C", "-", "-o", tmp_path / "part", address + "/long.wav"], check=True)
    assert (tmp_path / "part").read_bytes() == whole
