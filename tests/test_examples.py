"""Runs the examples as their readers would."""

import contextlib
import http.client
import inspect
import random
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from client import PATIENCE, until
from selenium.webdriver import Keys
from websockets.sync.client import connect, unix_connect

import c1m

EXAMPLES = Path(__file__).parent.parent / "examples"
THIRTY = 30


@contextlib.contextmanager
def example(name, *arguments):
    """The running example; it must end well when it is interrupted."""
    command = [sys.executable, EXAMPLES / name, *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            assert process.wait() == 0, process.stderr.read()


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()


def echoes(connection, message):
    with connection:
        connection.send(message)
        return connection.recv(PATIENCE) == message


def port_said(process):
    return int(re.search(r"http://127.0.0.1:(\d+)/", process.stdout.readline())[1])


def serves(process, port, content):
    """Waits until this port serves that content, True, or the process has ended, False."""
    while process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if get(port, "/") == (200, content):
                return True
    return False


def test_echo_on_thirty_ports(tmp_path):
    content = random.randbytes(16).hex().encode()
    (tmp_path / "index.html").write_bytes(content)
    while True:
        # Below the ports that the kernel gives to clients. Somebody else may have some of them all the same.
        first = random.randrange(10_000, 32_000)
        with example("echo.py", tmp_path, first) as process:
            if not serves(process, first + THIRTY - 1, content):
                assert "Address already in use" in process.stderr.read()
                continue
            for port in range(first, first + THIRTY):
                assert get(port, "/") == (200, content)
                assert echoes(connect(f"ws://127.0.0.1:{port}/echo"), f"to port {port}")
            with pytest.raises(ConnectionRefusedError):
                get(first + THIRTY, "/")
            return


def test_echo_without_arguments_has_something_to_serve(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["echo.py"])
    monkeypatch.setattr(c1m.Server, "run", lambda server: None)
    server = runpy.run_path(str(EXAMPLES / "echo.py"))["server"]
    assert server.ports == list(range(8001, 8031))
    assert server._roots[0][2].path == str(c1m.PAGE)


def test_the_first_lines_of_the_readme_work_where_there_is_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(c1m.Server, "run", lambda server: None)
    readme = (EXAMPLES.parent / "README.md").read_text().partition("## The API")[2]
    shell, python = (re.search(f"```{language}\n(.*?)```", readme, re.DOTALL)[1] for language in ("sh", "python"))
    subprocess.run(["sh", "-ec", shell], check=True)
    names = {}
    exec(python, names)
    assert names["server"]._roots[0][2].path == str(tmp_path / "public")
    assert (tmp_path / "public" / "index.html").read_text() == "Hello\n"


def test_every_option():
    with example("every_option.py", 0, 0) as process:
        said = process.stdout.readline()
        ports = [int(port) for port in re.search(r"\[(\d+), (\d+)\]", said).groups()]
        for port in ports:
            assert get(port, "/")[0] == 200
            assert get(port, "/examples/echo.py") == (200, (EXAMPLES / "echo.py").read_bytes())
            assert echoes(connect(f"ws://127.0.0.1:{port}/ws"), b"\0\xff")
        assert echoes(unix_connect(said.split()[-1], uri="ws://localhost/ws"), "through a file")


def test_chat():
    with example("chat.py", 0) as process:
        port = port_said(process)
        assert b"<title>Chat</title>" in get(port, "/")[1]
        url = f"ws://127.0.0.1:{port}/chat"
        with connect(url) as first:
            assert first.recv(PATIENCE) == "welcome, guest 1"
            with connect(url) as second:
                assert second.recv(PATIENCE) == "welcome, guest 2"
                assert first.recv(PATIENCE) == "guest 2 comes in"
                second.send("hello")
                assert first.recv(PATIENCE) == second.recv(PATIENCE) == "guest 2: hello"
            assert first.recv(PATIENCE) == "guest 2 leaves"


def test_chat_that_remembers():
    with example("chat_async.py", 0) as process:
        port = port_said(process)
        assert get(port, "/")[0] == 200
        url = f"ws://127.0.0.1:{port}/ws"
        with connect(url) as first:
            first.send("hello")
            said = first.recv(PATIENCE)
            assert said.endswith(": hello")
            first.send("again")
            again = first.recv(PATIENCE)
            assert again.endswith(": again")
            with connect(url) as second:         # the oldest first
                assert [second.recv(PATIENCE), second.recv(PATIENCE)] == [said, again]


@pytest.fixture
def tabs(browser):
    """Two tabs of the browser, as functions that do something there: find an element, run a script."""
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    second = browser.current_window_handle

    def tab(handle):
        def within(verb, *arguments):
            browser.switch_to.window(handle)
            return getattr(browser, verb)(*arguments)

        return within

    yield tab(first), tab(second)
    browser.switch_to.window(second)
    browser.close()
    browser.switch_to.window(first)


def texts(tab, selector):
    script = "return Array.from(document.querySelectorAll(arguments[0]), (element) => element.textContent)"
    return tab("execute_script", script, selector)


def test_chat_of_two_pages(tabs):
    def says(tab, text):
        tab("find_element", "id", "say").send_keys(text, Keys.ENTER)

    def shows(tab, *lines):
        until(lambda: texts(tab, "#log li") == list(lines), f"the page to show {lines}")

    with example("chat.py", 0) as process:
        address = f"http://127.0.0.1:{port_said(process)}/"
        first, second = tabs
        first("get", address)
        shows(first, "welcome, guest 1")
        second("get", address)
        shows(second, "welcome, guest 2")
        says(first, "příliš <b>žluťoučký</b> kůň")
        said = "guest 1: příliš <b>žluťoučký</b> kůň"
        shows(second, "welcome, guest 2", said)
        says(second, "good bye")
        shows(first, "welcome, guest 1", "guest 2 comes in", said, "guest 2: good bye")
        second("execute_script", "ws.close()")
        shows(first, "welcome, guest 1", "guest 2 comes in", said, "guest 2: good bye", "guest 2 leaves")
    shows(first, "welcome, guest 1", "guest 2 comes in", said, "guest 2: good bye", "guest 2 leaves", "closed: 1001")


def test_chat_that_remembers_of_two_pages(tabs):
    """It has the built-in page, on which one connects and then sends."""
    def enter(tab, address):
        tab("get", address)
        tab("find_element", "id", "connect").click()
        until(lambda: tab("find_element", "id", "state").text == "Connected", "a connection")

    def says(tab, text):
        message = tab("find_element", "id", "message")
        message.clear()
        message.send_keys(text, Keys.ENTER)

    def shows(tab, *endings):
        def shown():
            rows = texts(tab, "#log [data-direction=received] .payload")
            return len(rows) == len(endings) and all(map(str.endswith, rows, endings))

        until(shown, f"the page to show {endings}")

    with example("chat_async.py", 0) as process:
        address = f"http://127.0.0.1:{port_said(process)}/"
        first, second = tabs
        enter(first, address)
        says(first, "nobody hears this now")
        shows(first, ": nobody hears this now")
        enter(second, address)
        shows(second, ": nobody hears this now")
        says(second, "but it is remembered")
        shows(first, ": nobody hears this now", ": but it is remembered")
        enter(first, address)
        shows(first, ": nobody hears this now", ": but it is remembered")


@pytest.mark.parametrize("function", [c1m.Server, c1m.Root, c1m.Server.websocket])
def test_every_option_has_them_all(function):
    text = (EXAMPLES / "every_option.py").read_text()
    options = [name for name, parameter in inspect.signature(function).parameters.items()
               if parameter.default is not parameter.empty and name != "max_backlog"]   # max_send_queue's former name
    assert options
    assert [name for name in options if f" {name}=" not in text] == []
