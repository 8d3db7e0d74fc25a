"""Drives the built-in page, as c1m serves it, in a real browser."""

import re
from pathlib import Path

import pytest

import c1m

WAIT = 30

# What a keyboard reaches, in order, while a connection is open.
TAB_ORDER = [
    "url", "disconnect", "message", "send", "hex", "send-binary", "file", "send-file",
    "repeat-kind", "repeat-rate", "repeat", "reset", "clear", "log-view",
]


@pytest.fixture(scope="module")
def address():
    server = c1m.Server(root=c1m.PAGE, ports=[0])
    server.websocket("/ws")
    with server:
        yield f"127.0.0.1:{server.ports[0]}"


class Page:
    def __init__(self, browser):
        self.browser = browser

    def __getitem__(self, name):
        return self.browser.find_element("id", name)

    def until(self, condition, message=""):
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, WAIT, poll_frequency=0.02).until(lambda _: condition(), message)

    def connect(self):
        self["connect"].click()
        self.until(lambda: self["state"].text == "Connected", "no connection")

    def disconnect(self):
        self["disconnect"].click()
        self.until(lambda: self["state"].get_attribute("data-code"), "no close")

    def type(self, name, text):
        self[name].clear()
        self[name].send_keys(text)

    def choose(self, name, value):
        from selenium.webdriver.support.ui import Select

        Select(self[name]).select_by_value(value)

    def rows(self):
        """The log, as (direction, kind, payload)."""
        return [tuple(row) for row in self.browser.execute_script(
            "return Array.from(document.querySelectorAll('#log li'), (row) =>"
            " [row.dataset.direction, row.dataset.kind, row.querySelector('.payload')?.textContent])"
        )]

    def until_row(self, *row):
        self.until(lambda: row in self.rows(), f"no row {row}")

    def number(self, name):
        return int(self[name].text.replace(",", ""))

    def press(self, *keys, shift=False):
        from selenium.webdriver import ActionChains, Keys

        actions = ActionChains(self.browser)
        if shift:
            actions.key_down(Keys.SHIFT).send_keys(*keys).key_up(Keys.SHIFT).perform()
        else:
            actions.send_keys(*keys).perform()

    def focused(self):
        return self.browser.switch_to.active_element.get_attribute("id")

    def emulate(self, command, **parameters):
        self.browser.execute_cdp_cmd(f"Emulation.{command}", parameters)

    def overflow(self):
        """How many pixels the page is too wide for its window."""
        return self.browser.execute_script(
            "const { scrollWidth, clientWidth } = document.documentElement; return scrollWidth - clientWidth")

    def console(self):
        return [entry["message"] for entry in self.browser.get_log("browser")]


@pytest.fixture
def page(browser, address):
    page = Page(browser)
    page.emulate("setDeviceMetricsOverride", width=1280, height=800, deviceScaleFactor=1, mobile=False)
    page.emulate("setEmulatedMedia", features=[])
    browser.get(f"http://{address}/")
    yield page
    assert page.console() == []


def test_echo_of_text_and_binary_then_close(page, address):
    assert page["url"].get_attribute("value") == f"ws://{address}/ws"
    assert page["state"].text == "Not connected"
    assert not page["send"].is_enabled()

    page.connect()
    page.until_row("event", "open", f"ws://{address}/ws")

    page.type("message", "příliš žluťoučký kůň")
    page["send"].click()
    page.until_row("sent", "text", "příliš žluťoučký kůň")
    page.until_row("received", "text", "příliš žluťoučký kůň")

    page.type("hex", "00 7f:80, 0xFF")
    page["send-binary"].click()
    page.until_row("sent", "binary", "00 7f 80 ff")
    page.until_row("received", "binary", "00 7f 80 ff")

    page.until(lambda: (page.number("total-sent"), page.number("total-received")) == (2, 2))
    page.until(lambda: "ms" in page["rtt-median"].text)

    page.disconnect()
    assert page["state"].get_attribute("data-code") == "1000"
    assert page["state"].text == "Closed: code 1000 (normal closure)"
    page.until_row("event", "close", "code 1000 (normal closure)")
    assert page["connect"].is_enabled()


def test_reconnects(page):
    for _ in range(2):
        page.connect()
        page.disconnect()
    page.until(lambda: [row[1] for row in page.rows()] == ["open", "close", "open", "close"])


def test_refused_connection_is_told(page, address):
    page.type("url", f"ws://{address}/no-such-route")
    page["connect"].click()
    page.until(lambda: page["state"].get_attribute("data-code") == "1006")
    assert page["state"].text.startswith("Not connected: code 1006")
    # The browser itself reports the refusal, and nothing else may be wrong.
    refusal, = page.console()
    assert "/no-such-route' failed" in refusal

    page.type("url", "ftp://localhost/")
    page["connect"].click()
    page.until(lambda: "not a WebSocket address" in page["url-error"].text)


def test_payload_is_never_markup(page):
    markup = "<img src=x onerror=console.error(1)><b>bold</b>"
    page.connect()
    page.type("message", markup)
    page["send"].click()
    page.until_row("received", "text", markup)
    assert page.browser.find_elements("css selector", "#log img, #log b") == []


@pytest.mark.parametrize("typed, message", [
    ("c0 fg", "“g” is not a hex digit"),
    ("c0 f", "3 is an odd number"),
    (" ", "at least one byte"),
])
def test_bad_hex_is_told(page, typed, message):
    page.connect()
    page.type("hex", typed)
    page["send-binary"].click()
    page.until(lambda: message in page["hex-error"].text)
    assert page["hex"].get_attribute("aria-invalid") == "true"
    page.type("hex", "c0")
    assert page["hex-error"].text == ""
    assert page["hex"].get_attribute("aria-invalid") is None


def test_file_is_sent_as_binary(page, tmp_path):
    file = tmp_path / "forty-bytes"
    file.write_bytes(bytes(range(40)))
    page.connect()
    page["send-file"].click()
    page.until(lambda: page["file-error"].text == "Choose a file first.")
    page["file"].send_keys(str(file))
    page["send-file"].click()
    page.until_row("received", "binary", bytes(range(32)).hex(" ") + " … 8 more")


def test_keyboard_alone(page):
    from selenium.webdriver import Keys

    page.press(Keys.TAB)
    assert page.focused() == "url"
    page.press(Keys.TAB)
    assert page.focused() == "connect"
    page.press(Keys.ENTER)
    page.until(lambda: page["state"].text == "Connected")
    # Connect is disabled now, so the focus has gone where one types next.
    assert page.focused() == "message"

    page.press("one")
    page.press(Keys.ENTER, shift=True)
    page.press("two", Keys.ENTER)
    page.until_row("received", "text", "one\ntwo")

    page.press(Keys.TAB, Keys.TAB)
    assert page.focused() == "hex"
    page.press(Keys.ENTER)
    page.until_row("received", "binary", page["hex"].get_attribute("value"))

    page.browser.execute_script("arguments[0].focus()", page["url"])
    for name in TAB_ORDER:
        assert page.focused() == name
        outline = page.browser.execute_script(
            "const style = getComputedStyle(document.activeElement);"
            "return [style.outlineStyle, style.outlineWidth]")
        assert outline == ["solid", "2px"], f"focus does not show on #{name}"
        page.press(Keys.TAB)

    page.browser.execute_script("arguments[0].focus()", page["url"])
    page.press(Keys.TAB)
    assert page.focused() == "disconnect"
    page.press(Keys.ENTER)
    page.until(lambda: page["state"].get_attribute("data-code") == "1000")
    assert page.focused() == "url"
    page.press(Keys.ENTER)
    page.until(lambda: page["state"].text == "Connected")


def test_every_control_has_a_name(page):
    kinds = "input, textarea, select, button:not([hidden]), canvas, #log-view"
    controls = page.browser.find_elements("css selector", kinds)
    assert len(controls) > 10
    assert [control.get_attribute("id") for control in controls if not control.accessible_name] == []
    assert page["state"].aria_role == "status"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_a_phone(page, scheme):
    page.emulate("setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=False)
    page.emulate("setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    assert page.overflow() == 0
    page.connect()
    page.type("message", "unbroken" * 60)
    page["send"].click()
    page.until(lambda: any(row[0] == "received" for row in page.rows()))
    assert page.overflow() == 0
    # The log itself must not hide text at its side either.
    assert page.browser.execute_script("return arguments[0].scrollWidth <= arguments[0].clientWidth", page["log-view"])


def test_plot_follows_the_colour_scheme(page):
    page.connect()
    page["send"].click()
    pictures = set()
    for scheme in ("light", "dark"):
        page.emulate("setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        page.until(lambda: not page["plot-empty"].is_displayed())

        def drawn():
            picture = page.browser.execute_script("return arguments[0].toDataURL()", page["plot"])
            return picture if picture not in pictures else None

        pictures.add(page.until(drawn, f"the plot was not redrawn for {scheme}"))


@pytest.mark.parametrize("rate", ["1000", "echo", "pipeline"])
def test_repeat_keeps_the_page_alive(page, rate):
    page.connect()
    page.choose("repeat-rate", rate)
    page["repeat"].click()
    page.until(lambda: page.number("total-received") > 2000 and page.number("rate") > 0)
    page.until(lambda: "left out" in page["left-out"].text)
    page["repeat"].click()
    assert page["repeat"].text == "Start"
    page.until(lambda: page.number("total-sent") == page.number("total-received"), "not every message came back")
    page.until(lambda: page.number("rate") == 0)
    assert 0 < len(page.rows()) <= 500
    page["clear"].click()
    assert page.rows() == []


def test_log_stays_where_it_was_scrolled(page):
    script = page.browser.execute_script
    page.connect()
    page.choose("repeat-rate", "100")
    page["repeat"].click()
    page.until(lambda: len(page.rows()) > 60)
    page["repeat"].click()
    assert not page["newest"].is_displayed()

    script("arguments[0].scrollTop = 40", page["log-view"])
    page.until(lambda: page["newest"].is_displayed())
    page.type("message", "below the fold")
    page["send"].click()
    page.until_row("received", "text", "below the fold")
    assert script("return arguments[0].scrollTop", page["log-view"]) == 40

    page["newest"].click()
    page.until(lambda: not page["newest"].is_displayed())
    measure = "const log = arguments[0]; return log.scrollHeight - log.scrollTop - log.clientHeight"
    rest = script(measure, page["log-view"])
    assert rest < 12


def test_every_resource_is_served(page, address):
    resources = page.browser.execute_script(
        "return Array.from(document.querySelectorAll('[src], link[href]'), (element) => element.src || element.href)")
    assert {Path(url).name for url in resources} == {"favicon.svg", "style.css", "console.js"}
    for url in resources:
        assert url.startswith(f"http://{address}/")
        status = page.browser.execute_async_script(
            "fetch(arguments[0]).then((answer) => arguments[1](answer.status))", url)
        assert status == 200, url


def test_page_is_small_and_on_its_own():
    files = {file.name: file.read_text("utf-8") for file in Path(c1m.PAGE).iterdir() if file.is_file()}
    assert {"index.html", "style.css", "console.js", "favicon.svg"} <= files.keys()
    assert sum(len(text.encode()) for text in files.values()) < 40_000
    for name, text in files.items():
        text = text.replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"https?://|@import|url\(", text), f"{name} refers to another place"
    # A strict content security policy allows neither inline scripts nor inline styles.
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", files["index.html"])
