"""The `c1m` command."""

import contextlib
import importlib.metadata
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from client import PATIENCE, WebSocket, get
from wire import TEXT

PYTHON_M = [sys.executable, "-m", "c1m"]


def script():
    """The installed command, beside the interpreter or elsewhere."""
    beside = Path(sys.executable).with_name("c1m")
    found = str(beside) if beside.exists() else shutil.which("c1m")
    assert found, "the c1m command is not installed"
    return [found]


def ended(*arguments, command=PYTHON_M):
    """Runs the command to its end: its standard output, standard error and exit status."""
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE)
    return done.stdout, done.stderr, done.returncode


@pytest.fixture
def free_ports():
    """Thirty ports in a row that nobody listens on."""
    for first in range(20_000 + os.getpid() % 10_000, 60_000, 37):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + 30):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            break
    else:
        pytest.fail("no thirty ports in a row are free")
    return range(first, first + 30)


def interrupted(process, number=signal.SIGINT):
    process.send_signal(number)
    out, errors = process.communicate(timeout=PATIENCE)
    return out, errors, process.returncode


# ---- serving ----


@pytest.mark.parametrize("command", [PYTHON_M, None], ids=["python -m c1m", "c1m"])
def test_files_are_served_and_the_greeting_says_where(serving, tmp_path, command):
    (tmp_path / "a.txt").write_text("a")
    process = serving(tmp_path, "--port", 0, command=command or script())
    assert get(process.port, "/a.txt").body == b"a"
    version = importlib.metadata.version("c1m")
    assert process.greeting[0] == f"c1m {version} serves {tmp_path}"
    assert f"http://127.0.0.1:{process.port}/" in process.greeting[1]
    assert not any("ws://" in line for line in process.greeting)
    assert get(process.port, "/ws").status == 404
    assert interrupted(process) == ("", "", 0)


def test_without_a_root_the_page_and_an_echo_are_served(serving):
    process = serving("--port", 0)
    assert f"ws://127.0.0.1:{process.port}/ws" in "\n".join(process.greeting)
    assert b"<!doctype html>" in get(process.port).body.lower()
    for name in ("console.js", "style.css", "favicon.svg"):
        assert get(process.port, f"/{name}").status == 200
    with WebSocket(process.port) as ws:
        assert ws.echo(b"hello", TEXT) == (TEXT, b"hello")
        assert interrupted_with(process, ws) == ("", "", 0)


def interrupted_with(process, ws):
    """Ctrl-C while someone is connected, who is told and goes."""
    process.send_signal(signal.SIGINT)
    assert ws.closing() == 1001
    ws.close()
    out, errors = process.communicate(timeout=PATIENCE)
    return out, errors, process.returncode


def test_ranges_of_ports(serving, tmp_path, free_ports):
    first, last = free_ports[0], free_ports[-1]
    process = serving(tmp_path, "--port", first, "--port", f"{first + 1}-{last - 1}", "--port", f"{last}")
    assert f"http://127.0.0.1:{first}/" in process.greeting[1]
    assert f"{first + 1}-{last}" in process.greeting[1]
    assert [get(port, "/").status for port in free_ports] == [404] * 30
    assert interrupted(process)[2] == 0


def test_ports_apart_are_named_apart(serving, tmp_path, free_ports):
    chosen = [free_ports[i] for i in (0, 2, 3, 4, 9)]
    process = serving(tmp_path, *(word for port in chosen for word in ("--port", port)))
    assert process.greeting[1].endswith(f"and on ports {chosen[1]}-{chosen[3]}, {chosen[4]}")


def test_several_hosts_and_unix_sockets(serving, tmp_path):
    (tmp_path / "a.txt").write_text(str(tmp_path))
    path = tmp_path / "socket"
    process = serving(tmp_path, "--port", 0, "--host", "127.0.0.2", "--host", "127.0.0.3", "--unix", path)
    assert f"http://127.0.0.2:{process.port}/" in process.greeting[1]
    assert any(str(path) in line for line in process.greeting)
    for address in (("127.0.0.2", process.port), ("127.0.0.3", process.port), path):
        assert get(address, "/a.txt").body == str(tmp_path).encode()
    with contextlib.suppress(OSError):           # whoever else has that port at this address, it is not this one
        assert get(process.port, "/a.txt").body != str(tmp_path).encode()
    assert interrupted(process)[2] == 0
    assert not path.exists()


def test_the_greeting_names_an_address_that_a_browser_can_open(serving, tmp_path):
    process = serving(tmp_path, "--port", 0, "--host", "0.0.0.0")
    assert f"http://127.0.0.1:{process.port}/" in process.greeting[1]


def test_ipv6(serving, tmp_path):
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    process = serving(tmp_path, "--port", 0, "--host", "::1")
    assert f"http://[::1]:{process.port}/" in process.greeting[1]
    assert get(("::1", process.port), "/").status == 404


def test_websocket_routes_beside_files(serving, tmp_path):
    routes = ["--websocket", "/one", "--websocket", "/two", "--max-message", "10"]
    process = serving(tmp_path, "--port", 0, *routes)
    for path in ("/one", "/two"):
        assert any(f"ws://127.0.0.1:{process.port}{path} " in line for line in process.greeting)
        with WebSocket(process.port, path) as ws:
            assert ws.echo(b"0123456789", TEXT) == (TEXT, b"0123456789")
            ws.send(b"\x82\x8b" + bytes(15))         # eleven bytes
            assert ws.closing() == 1009


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_well(serving, tmp_path, number):
    process = serving(tmp_path, "--port", 0, "--websocket", "/ws")
    with WebSocket(process.port) as ws:
        process.send_signal(number)
        assert ws.closing() == 1001
    out, errors = process.communicate(timeout=PATIENCE)
    assert (out, errors, process.returncode) == ("", "", 0)


@pytest.mark.parametrize(("ignored", "number"), [(None, signal.SIGUSR1), (signal.SIGHUP, signal.SIGHUP)])
def test_a_signal_that_does_no_harm(serving, tmp_path, ignored, number):
    """logrotate sends one whether there is a log or not; nohup(1) has the other ignored."""
    ignore = ignored and (lambda: signal.signal(ignored, signal.SIG_IGN))
    process = serving(tmp_path, "--port", 0, preexec_fn=ignore)
    for _ in range(3):
        process.send_signal(number)
        assert get(process.port, "/").status == 404
    assert interrupted(process) == ("", "", 0)


def test_a_second_ctrl_c_does_not_wait(serving, tmp_path):
    process = serving("--port", 0)
    with WebSocket(process.port) as ws:
        process.send_signal(signal.SIGINT)
        assert ws.closing() == 1001
        assert interrupted(process) == ("", "", 130)


def test_a_relative_root(serving, tmp_path):
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "a.txt").write_text("a")
    process = serving("public", "--port", 0, cwd=tmp_path)
    assert process.greeting[0].endswith(f" serves {tmp_path}/public")
    assert get(process.port, "/a.txt").body == b"a"


# ---- what goes wrong is said in one line ----


@pytest.mark.parametrize(("arguments", "told"), [
    (["--port", "http"], "'http'"),
    (["--port", "-1"], "'-1'"),
    (["--port", "1-"], "'1-'"),
    (["--port", "8030-8001"], "8030-8001"),
    (["--port", "65536"], "65536"),
    (["--port", "8001-70000"], "70000"),
    (["--port", "8001.5"], "8001.5"),
    (["--max-message", "0"], "0"),
    (["--max-message", "many"], "many"),
    ([".", "--header", "X-A: b=c"], "'X-A: b' is not a field name: write NAME=VALUE, without a colon"),
    ([".", "--header-for", "*.pdf=X-A"], "'*.pdf=X-A' has no second '=': write PATTERN=NAME=VALUE"),
    ([".", "--cors", "https://a.org,https://b.org"], "is not an origin, but several: give each by itself"),
    ([".", "--mime-type", "*.foo=text/plain"], "'*.foo' is a pattern or several: give each extension or name by "),
    (["--websocket", "ws"], "'ws'"),
    (["--websocket", "/a", "--websocket", "/a"], "'/a'"),
    (["--nonsense"], "--nonsense"),
    (["one", "two"], "two"),
])
def test_a_wrong_argument(arguments, told):
    out, errors, status = ended("serve", *arguments)
    assert status == 2
    assert out == ""
    [error] = [line for line in errors.splitlines() if line.startswith("Error: ")]
    assert told in error
    assert errors.endswith(error + "\n")
    assert "Traceback" not in errors


def test_a_wrong_command():
    _, errors, status = ended("sevre")
    assert status == 2
    assert "sevre" in errors.splitlines()[-1]


def test_a_directory_in_place_of_a_command(tmp_path):
    _, errors, status = ended(tmp_path)
    assert status == 2
    assert errors.endswith(f"Error: There is no command '{tmp_path}'. It is served by: c1m serve {tmp_path}\n")


def test_a_configuration_file_in_place_of_a_directory(tmp_path):
    path = tmp_path / "c1m.toml"
    path.write_text("")
    assert ended("serve", path) == (
        "", f"Error: ROOT: {path} is no directory: a configuration file is given by --config {path}\n", 2,
    )


def test_a_root_that_is_not_there(tmp_path):
    assert ended("serve", tmp_path / "nowhere") == (
        "", f"Error: root: no such directory: {tmp_path / 'nowhere'}\n", 1,
    )


def test_a_root_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    told = f"Error: root: not a directory: {tmp_path / 'file'}\n"
    assert ended("serve", tmp_path / "file") == ("", told, 1)


def test_a_port_in_use(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert ended("serve", tmp_path, "--port", port) == (
            "", f"Error: cannot listen on 127.0.0.1:{port}: Address already in use (give another port, or 0 for a free "
            "one)\n", 1,
        )


def test_a_unix_socket_where_none_can_be(tmp_path):
    path = tmp_path / "nowhere" / "socket"
    assert ended("serve", tmp_path, "--port", 0, "--unix", path) == (
        "", f"Error: cannot listen on {path}: No such file or directory\n", 1,
    )


def test_a_log_into_a_pipe_that_nobody_reads(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    told = f"Error: access_log: nobody reads this pipe: {path}\n"
    assert ended("serve", tmp_path, "--port", 0, "--access-log", path) == ("", told, 1)


# ---- help ----


@pytest.mark.parametrize("command", [PYTHON_M, None], ids=["python -m c1m", "c1m"])
def test_version(command):
    version = importlib.metadata.version("c1m")
    assert ended("--version", command=command or script()) == (f"c1m {version}\n", "", 0)


def test_help_names_the_commands_and_options():
    out, errors, status = ended("--help")
    assert (errors, status) == ("", 0)
    assert "serve" in out
    out, errors, status = ended("serve", "--help")
    assert (errors, status) == ("", 0)
    for option in ("--port", "--host", "--unix", "--websocket", "--max-message"):
        assert option in out


def test_a_command_is_asked_for():
    out, errors, status = ended()
    assert "serve" in out + errors
    assert status in (0, 2)      # as click has it
