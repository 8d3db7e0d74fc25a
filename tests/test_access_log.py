"""The access log: what a line says, that no client can forge one, that no reader holds up the server."""

import contextlib
import datetime
import gc
import json
import os
import re
import resource
import select
import signal
import subprocess
import sys
import threading

import pytest
from client import PATIENCE, Http, Process, WebSocket, descriptors, get, handshake, request, until
from hypothesis import given, settings
from hypothesis import strategies as st

import c1m
from c1m.logwriter import LogWriter, opened

COMBINED = re.compile(
    r'(?P<remote>\S+) - - \[(?P<time>\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000)\] '
    r'"(?P<request>[^"]*)" (?P<status>\d{3}) (?P<bytes>\d+) "(?P<referer>[^"]*)" "(?P<agent>[^"]*)"'
)
MAX_VALUE = 2048                # bytes of a value that are shown
BUFFER = 16 << 20                # bytes of lines that wait for their reader
LARGE = 16 << 20                 # bytes: more than the kernel takes for someone with a small receive buffer
SMALL_BUFFER = 65536


@contextlib.contextmanager
def serving(tmp_path, **settings):
    """A server with a log; when it has ended all of the log is there."""
    root = tmp_path / "root"
    root.mkdir(exist_ok=True)
    (root / "a.txt").write_text("a" * 10)
    (root / "dir").mkdir(exist_ok=True)
    server = c1m.Server(root, ports=[0], **{"access_log": tmp_path / "log"} | settings)
    server.websocket("/ws")
    with server:
        yield server


def combined(tmp_path):
    lines = (tmp_path / "log").read_text("ascii").splitlines()
    return [COMBINED.fullmatch(line).groupdict() for line in lines]


def as_json(tmp_path):
    return [json.loads(line) for line in (tmp_path / "log").read_text("ascii").splitlines()]


# ---- what a line says ----


def test_the_combined_format(tmp_path):
    begin = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    with serving(tmp_path) as server:
        get(server.ports[0], "/a.txt?q=1", "Referer: http://r.example/", "User-Agent: Mozilla/5.0 (X11)")
    [line] = (tmp_path / "log").read_text().splitlines()
    time = COMBINED.fullmatch(line)["time"]
    assert line == (
        f'127.0.0.1 - - [{time}] "GET /a.txt?q=1 HTTP/1.1" 200 10 "http://r.example/" "Mozilla/5.0 (X11)"'
    )
    # The kernel's coarse clock lags by up to a tick.
    then = datetime.datetime.strptime(time, "%d/%b/%Y:%H:%M:%S %z")
    assert begin - datetime.timedelta(seconds=1) <= then <= datetime.datetime.now(datetime.UTC)


def test_json_lines(tmp_path):
    with serving(tmp_path, access_log_format="json") as server:
        get(server.ports[0], "/a.txt", "Referer: r", "User-Agent: u", host="h.example:80")
    [line] = as_json(tmp_path)
    assert isinstance(line.pop("time"), int)
    assert line == {
        "remote": "127.0.0.1", "request": "GET /a.txt HTTP/1.1", "host": "h.example:80", "status": 200,
        "bytes": 10, "referer": "r", "agent": "u",
    }


def test_what_is_not_known_is_a_dash_or_empty(tmp_path):
    with serving(tmp_path) as server:
        get(server.ports[0], "/a.txt")
    [line] = combined(tmp_path)
    assert (line["referer"], line["agent"]) == ("-", "-")
    (tmp_path / "log").unlink()
    with serving(tmp_path, access_log_format="json") as server, Http(server.ports[0]) as http:
        http.send(b"\0")
        http.answer()
    [line] = as_json(tmp_path)
    assert (line["request"], line["host"], line["referer"], line["agent"]) == ("", "", "", "")


EVERY_KIND = {                   # what is sent, status and bytes of the body
    request("/a.txt"): (200, 10),
    request("/a.txt", method="HEAD"): (200, 0),
    request("/a.txt", "Range: bytes=1-3"): (206, 3),
    request("/a.txt", "If-None-Match: *"): (304, 0),
    request("/dir"): (301, len("301 Moved Permanently\n")),
    request("/missing"): (404, len("404 Not Found\n")),
    request("/missing", method="HEAD"): (404, 0),
    request("/a.txt", method="POST", body=b""): (405, len("405 Method Not Allowed\n")),
    request("/a.txt", method="OPTIONS"): (204, 0),
    request("/a.txt", 'If-Match: "x"'): (412, len("412 Precondition Failed\n")),
    request("/a.txt", "Range: bytes=10-"): (416, len("416 Range Not Satisfiable\n")),
    request("/ws"): (426, len("426 Upgrade Required\n")),
    b"GET / HTTP/2.0\r\n\r\n": (505, len("505 HTTP Version Not Supported\n")),
    b"GET /" + b"x" * 9000: (414, len("414 URI Too Long\n")),
}


def test_every_answer_has_its_line(tmp_path):
    with serving(tmp_path) as server:
        for sent, (status, _) in EVERY_KIND.items():
            with Http(server.ports[0]) as http:
                http.send(sent)
                http.half_close()
                assert http.rest().startswith(b"HTTP/1.1 %d " % status)
    lines = [(int(line["status"]), int(line["bytes"])) for line in combined(tmp_path)]
    assert lines == list(EVERY_KIND.values())


def test_several_ranges_are_logged_with_all_that_is_sent(tmp_path):
    with serving(tmp_path) as server:
        answer = get(server.ports[0], "/a.txt", "Range: bytes=0-0,2-2")
    [line] = combined(tmp_path)
    assert int(line["bytes"]) == len(answer.body) > 2


def test_a_request_that_cannot_be_read_has_a_line_and_nothing_of_another_client(tmp_path):
    with serving(tmp_path) as server:
        get(server.ports[0], "/a.txt", "Referer: mine", "User-Agent: secret")
        with Http(server.ports[0]) as http:
            http.send(b"GET / HTTP/1.1\nHost: a\r\n\r\n")
            assert http.answer().status == 400
    line = combined(tmp_path)[1]
    assert (line["status"], line["request"]) == ("400", "GET / HTTP/1.1")
    assert (line["referer"], line["agent"]) == ("-", "-")


@pytest.mark.parametrize(("sent", "shown"), [
    (b"GET /%zz HTTP/1.1\r\n", "GET /%zz HTTP/1.1"),
    (b'GET /" ${jndi:x}\xff HTTP/1.1\r\n', r"GET /\x22 ${jndi:x}\xFF HTTP/1.1"),
    (b"GET /\x1b[2J HTTP/1.1\r\n", "GET /"),
    (b"GET /\x7f HTTP/1.1\r\n", "GET /"),
    (b"\r\nGET /a\nb", "GET /a"),
    (b"GET /" + b"x" * 9000, "GET /" + "x" * (MAX_VALUE - 5)),
    (b"\xff" * 9000, r"\xFF" * MAX_VALUE),
    (b"\x16\x03\x01", "-"),
], ids=repr)
def test_what_there_was_of_a_request_line_that_is_refused_is_shown(tmp_path, sent, shown):
    with serving(tmp_path) as server:
        get(server.ports[0], "/a.txt?another", host="another")
        with Http(server.ports[0]) as http:
            http.send(sent)
            assert http.answer().status in (400, 414)
    assert combined(tmp_path)[1]["request"] == shown


def test_a_request_that_does_not_become_whole_has_a_line_and_nothing_of_another_client(tmp_path):
    with serving(tmp_path, head_timeout=0.1) as server, Http(server.ports[0]) as http:
        http.send(b"\r\nGET / HTTP/1.1\r\nReferer: his\r\nUser-")
        until(lambda: server.stats()["connections"] == 1, "the connection")
        get(server.ports[0], "/a.txt", "Referer: mine", "User-Agent: secret")
        assert http.answer().status == 408
    [line] = [line for line in combined(tmp_path) if line["status"] == "408"]
    assert (line["request"], line["referer"], line["agent"]) == ("GET / HTTP/1.1", "his", "-")


def test_a_websocket_is_logged_once_when_it_opens(tmp_path):
    with serving(tmp_path) as server, WebSocket(server.ports[0]) as ws:
        ws.echo(b"x" * 100)
    [line] = combined(tmp_path)
    assert (line["request"], line["status"], line["bytes"]) == ("GET /ws HTTP/1.1", "101", "0")


def test_pipelined_requests_have_their_lines_in_order(tmp_path):
    with serving(tmp_path) as server, Http(server.ports[0]) as http:
        http.send(b"".join(request(f"/a.txt?{i}") for i in range(1000)))
        for _ in range(1000):
            http.answer()
    lines = [line["request"] for line in combined(tmp_path)]
    assert lines == [f"GET /a.txt?{i} HTTP/1.1" for i in range(1000)]


@pytest.mark.parametrize(("host", "remote"), [("::1", "::1"), ("127.0.0.1", "127.0.0.1")])
def test_the_remote_address(tmp_path, host, remote):
    with serving(tmp_path, host=host) as server:
        get((host, server.ports[0]), "/a.txt")
    assert combined(tmp_path)[0]["remote"] == remote


def test_a_unix_socket_has_no_remote_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with serving(tmp_path, unix="s"):
        get("s", "/a.txt")
    assert combined(tmp_path)[0]["remote"] == "-"


@pytest.mark.parametrize("host", ["::1", "127.0.0.1"])
def test_a_client_that_resets_at_once_is_known_all_the_same(tmp_path, host):
    server = c1m.Server(tmp_path, ports=[0], host=host, access_log=tmp_path / "log")
    server.listen()
    for _ in range(3):
        http = Http((host, server.ports[0]))
        http.send(request("/a.txt"))
        http.reset()             # before anyone has looked at it
    with server:
        until(lambda: server.stats()["requests"] == 3, "the requests")
    assert [line["remote"] for line in combined(tmp_path)] == [host] * 3


# ---- bodies that a client does not take at once ----


def large(tmp_path):
    """A file of more than the kernel takes for a client with a small receive buffer."""
    (tmp_path / "root").mkdir()
    with (tmp_path / "root" / "large").open("wb") as file:
        file.truncate(LARGE)


@pytest.mark.parametrize("form", ["combined", "json"])
def test_a_body_that_was_waited_for_is_logged_when_it_has_left(tmp_path, form):
    large(tmp_path)
    with serving(tmp_path, access_log_format=form) as server, Http(server.ports[0], SMALL_BUFFER) as http:
        http.send(request("/large", "Referer: r", "User-Agent: u") + request("/a.txt?behind"))
        http.take(SMALL_BUFFER)
        get(server.ports[0], "/a.txt?meanwhile")
        until(lambda: "?meanwhile" in (tmp_path / "log").read_text(), "the other line")
        http.take(LARGE - SMALL_BUFFER)
        until(lambda: "?behind" in (tmp_path / "log").read_text(), "the last line")
    lines = combined(tmp_path) if form == "combined" else as_json(tmp_path)
    assert [(line["request"].split()[1], int(line["bytes"]), line["referer"].strip("-")) for line in lines] == [
        ("/a.txt?meanwhile", 10, ""), ("/large", LARGE, "r"), ("/a.txt?behind", 10, ""),
    ]
    assert lines[1]["agent"] == "u"


CUT_OFF = {                      # ways in which a body may end early
    "reset": ({}, lambda server, http: http.reset()),
    "closed": ({}, lambda server, http: http.close()),
    "stalled": ({"write_timeout": 0.2}, lambda server, http: None),
    "stopped": ({"shutdown_timeout": 0.1}, lambda server, http: server.stop()),
}


@pytest.mark.parametrize("fields", [(), ("Connection: close",), ("Range: bytes=20-,0-9",), ("Content-Length: 0",)])
@pytest.mark.parametrize("way", CUT_OFF)
def test_of_a_body_that_is_cut_off_what_was_sent_is_logged(tmp_path, way, fields):
    large(tmp_path)
    settings, cut = CUT_OFF[way]
    with serving(tmp_path, **settings) as server, Http(server.ports[0], SMALL_BUFFER) as http:
        http.send(request("/large", *fields))
        head = http.take_line(b"\r\n\r\n") + b"\r\n\r\n"
        http.take(SMALL_BUFFER)
        cut(server, http)
        until(lambda: server.stats()["connections"] == 0, "the end")
        sent = server.stats()["bytes_sent"] - len(head)
    [line] = combined(tmp_path)
    assert int(line["bytes"]) == sent
    assert SMALL_BUFFER <= sent < LARGE


def test_of_a_clients_many_answers_one_is_cut_off(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "page").write_bytes(bytes(32 << 10))    # which is sent from memory
    n = LARGE >> 15
    with serving(tmp_path) as server, Http(server.ports[0], SMALL_BUFFER) as http:
        http.send(request("/page") * n)
        head = http.take_line(b"\r\n\r\n") + b"\r\n\r\n"
        http.take(32 << 10)
        http.reset()
        until(lambda: server.stats()["connections"] == 0, "the end")
        sent = server.stats()["bytes_sent"]
    *whole, last = [int(line["bytes"]) for line in combined(tmp_path)]
    assert 0 < len(whole) < n - 1
    assert set(whole) == {32 << 10}
    assert last == max(sent - len(whole) * (len(head) + (32 << 10)) - len(head), 0)


def test_a_client_may_upgrade_when_a_body_has_left(tmp_path):
    large(tmp_path)
    with serving(tmp_path) as server, Http(server.ports[0], SMALL_BUFFER) as http:
        http.send(request("/large", method="HEAD") + request("/large") + handshake())
        http.answer(head=True)
        assert len(http.answer().body) == LARGE
        assert http.answer().status == 101
    lines = [(line["status"], int(line["bytes"])) for line in combined(tmp_path)]
    assert lines == [("200", 0), ("200", LARGE), ("101", 0)]


def test_nothing_is_sent_to_a_client_that_resets_at_once(tmp_path):
    large(tmp_path)
    server = c1m.Server(tmp_path / "root", ports=[0], access_log=tmp_path / "log")
    server.listen()
    http = Http(server.ports[0])
    http.send(request("/large"))
    http.reset()
    with server:
        until(lambda: server.stats()["requests"] == 1, "the request")
    assert [line["bytes"] for line in combined(tmp_path)] == ["0"]


# ---- what a client puts into it ----


@pytest.mark.parametrize(("sent", "shown"), [
    ('" 200 0 "-" "-"', r"\x22 200 0 \x22-\x22 \x22-\x22"),
    ("back\\slash", r"back\x5Cslash"),
    ("\\x22", r"\x5Cx22"),
    ("tab\there", r"tab\x09here"),
    ("\xff\x80", r"\xFF\x80"),
    ("ü".encode().decode("latin-1"), r"\xC3\xBC"),
    ("a" * 5000, "a" * MAX_VALUE),
    ('"' * 5000, r"\x22" * MAX_VALUE),
])
def test_no_value_ends_its_quotes_or_its_line(tmp_path, sent, shown):
    with serving(tmp_path) as server:
        get(server.ports[0], "/a.txt", f"Referer: {sent}", f"User-Agent: {sent}")
    [line] = combined(tmp_path)
    assert line["referer"] == line["agent"] == shown


def test_a_target_ends_neither_its_quotes_nor_its_line(tmp_path):
    with serving(tmp_path) as server:
        get(server.ports[0], '/a.txt?"\\%0a%22')
    assert combined(tmp_path)[0]["request"] == r"GET /a.txt?\x22\x5C%0a%22 HTTP/1.1"


values = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]) | st.just("\t"), max_size=60)


def test_json_survives_whatever_is_sent(tmp_path):
    log = tmp_path / "log"
    with serving(tmp_path, access_log_format="json") as server, Http(server.ports[0]) as http:

        @settings(max_examples=100)
        @given(values, values)
        def check(referer, agent):
            http.get("/a.txt", f"Referer:{referer}", f"User-Agent:{agent}")
            sent.append((referer.strip(" \t"), agent.strip(" \t")))

        sent = []
        check()
    assert [(line["referer"], line["agent"]) for line in as_json(tmp_path)] == sent
    assert log.read_bytes().isascii()


def test_the_longest_line_has_room(tmp_path):
    for form in ("combined", "json"):
        with serving(tmp_path, access_log_format=form) as server:
            fields = ["Referer: " + "\xff" * 7000, "User-Agent: " + "\xff" * 7000]
            get(server.ports[0], "/a.txt?" + '"' * 8000, *fields, host="h" * 2000)
    first, second = (tmp_path / "log").read_text("ascii").splitlines()
    assert COMBINED.fullmatch(first)["agent"] == r"\xFF" * MAX_VALUE
    line = json.loads(second)
    assert line["agent"] == "\xff" * MAX_VALUE
    assert len(line["request"]) == MAX_VALUE
    assert line["host"] == "h" * 2000


# ---- where it goes ----


def test_lines_are_there_soon_and_the_file_is_appended_to(tmp_path):
    log = tmp_path / "log"
    log.write_text("before\n")
    with serving(tmp_path) as server:
        get(server.ports[0], "/a.txt?one")
        until(lambda: "?one" in log.read_text(), "the line")
        get(server.ports[0], "/a.txt?two")
    lines = log.read_text().splitlines()
    assert lines[0] == "before"
    assert ["one" in lines[1], "two" in lines[2], len(lines)] == [True, True, 3]


def test_a_log_that_cannot_be_written_is_an_error_at_once(tmp_path):
    for path, error in [(tmp_path / "none" / "log", FileNotFoundError), (tmp_path, IsADirectoryError)]:
        with pytest.raises(error, match="access_log: "), serving(tmp_path, access_log=path):
            pass


def test_a_full_disk_costs_lines_which_are_counted_and_nothing_else(tmp_path):
    with serving(tmp_path, access_log="/dev/full") as server:
        for n in range(1, 4):
            assert get(server.ports[0], "/a.txt").status == 200
            until(lambda n=n: server.stats()["log_lines_dropped"] == n, "the line to be lost")
        assert get(server.ports[0], "/a.txt").status == 200
    assert server.stats()["log_lines_dropped"] == 4


def limited(process, n):
    """Lets a process write files of up to so many bytes, None for any: what is beyond fails as on a full disk."""
    most = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most if n is None else n, most))


def test_a_line_of_which_half_was_written_is_made_whole(tmp_path):
    log = tmp_path / "log"
    with Process(tmp_path, access_log=str(log)) as process, Http(process.port) as http:
        http.get("/first")
        size = until(lambda: log.stat().st_size, "a line")
        limited(process, 2 * size + size // 2)
        http.send(b"".join(request(f"/{i:05}") for i in range(4)))
        for _ in range(4):
            http.answer()
        until(lambda: log.stat().st_size == 2 * size + size // 2, "the disk to be full")
        process.until(lambda stats: stats["log_lines_dropped"] == 2, "the lines to be counted")
        limited(process, None)
        until(lambda: log.stat().st_size == 3 * size, "the rest of the line")
        http.get("/after")
        assert process.stats()["log_lines_dropped"] == 2
        process.end()
    targets = [line["request"].split()[1] for line in combined(tmp_path)]
    assert targets == ["/first", "/00000", "/00001", "/after"]


def test_a_line_that_stays_torn_is_lost(tmp_path):
    log, rotated = tmp_path / "log", tmp_path / "log.1"
    with Process(tmp_path, access_log=str(log)) as process, Http(process.port) as http:
        limited(process, 10)
        http.get("/first")
        until(lambda: log.stat().st_size == 10, "the disk to be full")
        assert process.stats()["log_lines_dropped"] == 0         # it may still become whole
        log.rename(rotated)
        process.ask("reopen_log")
        process.until(lambda stats: stats["log_lines_dropped"] == 1, "the line to be counted")
        limited(process, None)
        http.get("/after")
        process.end()
    assert rotated.stat().st_size == 10
    assert [line["request"].split()[1] for line in combined(tmp_path)] == ["/after"]


def test_without_a_log_nothing_is_written(tmp_path):
    with serving(tmp_path, access_log=None) as server:
        get(server.ports[0], "/a.txt")
        assert server.stats()["log_lines_dropped"] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root"]


def test_no_thread_and_no_descriptor_stays(tmp_path):
    def once():
        with serving(tmp_path) as server:
            get(server.ports[0], "/a.txt")

    once()
    gc.collect()
    before = threading.active_count(), descriptors()
    for _ in range(3):
        once()
    gc.collect()
    assert (threading.active_count(), descriptors()) == before
    assert len(combined(tmp_path)) == 4


# ---- in a process of its own ----


@contextlib.contextmanager
def command(tmp_path, *options, **popen):
    """The c1m command, and the port it serves on."""
    root = tmp_path / "root"
    root.mkdir(exist_ok=True)
    (root / "a.txt").write_text("a" * 10)
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "c1m", "serve", str(root), "--port", "0", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **popen,
    )
    try:
        while True:
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            if match := re.search(r"http://127\.0\.0\.1:(\d+)/", line):
                break
        until(lambda: serves(int(match[1])), "the server")
        yield process, int(match[1])
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=PATIENCE)


def serves(port):
    return get(port, "/a.txt?ready").status == 200


def test_sigusr1_opens_the_file_anew(tmp_path):
    log, old = tmp_path / "log", tmp_path / "log.1"
    with command(tmp_path, "--access-log", str(log)) as (process, port), Http(port) as http:
        for turn in range(3):
            http.get(f"/a.txt?{turn}")
            until(lambda turn=turn: log.exists() and f"?{turn}" in log.read_text(), "the line")
            log.rename(old)
            process.send_signal(signal.SIGUSR1)
            until(log.exists, "a new file")
            lines = old.read_text().splitlines()
            assert [f"?{turn} " in line for line in lines if "ready" not in line] == [True]
        http.get("/a.txt?last")
        process.terminate()
        process.wait(PATIENCE)
        assert process.returncode == 0
    assert [line["request"] for line in combined(tmp_path)] == ["GET /a.txt?last HTTP/1.1"]


def test_the_file_is_opened_anew_on_request(tmp_path):
    log, old = tmp_path / "log", tmp_path / "log.1"
    with serving(tmp_path) as server:
        server.reopen_log()      # before there is anything to it
        get(server.ports[0], "/a.txt?one")
        until(lambda: "?one" in log.read_text(), "the line")
        until(lambda: server.stats()["connections"] == 0, "the end of the connection")
        before = descriptors()
        log.rename(old)
        thread = threading.Thread(target=server.reopen_log)
        thread.start()
        thread.join()
        until(log.exists, "a new file")
        get(server.ports[0], "/a.txt?two")
        until(lambda: "?two" in log.read_text(), "the line")
        until(lambda: descriptors() == before, "the old file to be closed")
        log.rename(tmp_path / "log.2")           # which nobody asked to be followed
        get(server.ports[0], "/a.txt?three")
    server.reopen_log()          # and when nothing runs
    assert not log.exists()
    files = [old.read_text(), (tmp_path / "log.2").read_text()]
    assert [re.findall(r"\?(\w+)", text) for text in files] == [["one"], ["two", "three"]]


def test_no_line_is_lost_or_cut_while_the_file_is_rotated(tmp_path):
    log, n = tmp_path / "log", 0
    files = []
    with command(tmp_path, "--access-log", str(log)) as (process, port), Http(port) as http:
        for turn in range(5):
            for _ in range(100):
                http.get(f"/a.txt?{n}")
                n += 1
            files.append(tmp_path / f"log.{turn}")
            until(log.exists, "the file")
            log.rename(files[-1])
            process.send_signal(signal.SIGUSR1)
        until(log.exists, "the last file")
        process.terminate()
        process.wait(PATIENCE)
    lines = [COMBINED.fullmatch(line) for file in [*files, log] for line in file.read_text().splitlines()]
    requests = [line["request"] for line in lines if "ready" not in line["request"]]
    assert requests == [f"GET /a.txt?{i} HTTP/1.1" for i in range(n)]


def test_a_file_that_cannot_be_opened_anew_is_kept(tmp_path):
    directory = tmp_path / "logs"
    directory.mkdir()
    with serving(tmp_path, access_log=directory / "log") as server:
        moved = directory.rename(tmp_path / "moved") / "log"
        server.reopen_log()
        for target in ("?one", "?two"):      # the file is opened between the batches of these
            get(server.ports[0], f"/a.txt{target}")
            until(lambda target=target: target in moved.read_text(), "the line in the old file")


def test_a_dash_is_standard_output(tmp_path):
    with command(tmp_path, "--access-log", "-", "--access-log-format", "json") as (process, port):
        get(port, "/a.txt?one")
        lines = []
        while not any("?one" in line for line in lines):
            lines.append(process.stdout.readline())
            assert lines[-1]
        assert json.loads(lines[-1])["request"] == "GET /a.txt?one HTTP/1.1"
        process.send_signal(signal.SIGUSR1)
        get(port, "/a.txt?two")
        assert "?two" in process.stdout.readline()


def test_sigusr1_in_a_hurry_does_no_harm(tmp_path):
    with command(tmp_path, "--access-log", str(tmp_path / "log")) as (process, port):
        for _ in range(300):
            process.send_signal(signal.SIGUSR1)
        assert get(port, "/a.txt?after").status == 200
        process.terminate()
        assert process.wait(PATIENCE) == 0
    assert combined(tmp_path)[-1]["request"] == "GET /a.txt?after HTTP/1.1"


# ---- a reader that does not read ----


@pytest.fixture
def stuck(tmp_path):
    """A pipe that is full, as a path, and its reading end."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.close(writer)
    yield path, reader
    os.close(reader)


def test_a_stuck_pipe_holds_up_nobody_and_drops_lines(tmp_path, stuck):
    path, reader = stuck
    value = "\xff" * MAX_VALUE
    batch = request("/a.txt", f"Referer: {value}", f"User-Agent: {value}") * 20
    most = 3 * BUFFER // (2 * 4 * MAX_VALUE)                  # requests whose lines find room nowhere
    read = []
    thread = threading.Thread(target=lambda: read.extend(iter(lambda: os.read(reader, 1 << 20), b"")))
    with serving(tmp_path, access_log=path) as server, Http(server.ports[0]) as http:
        for _ in range(most // 20):
            http.send(batch)
            for _ in range(20):
                assert http.answer().status == 200
        dropped = server.stats()["log_lines_dropped"]
        assert 0 < dropped < most
        # And when somebody reads again the lines go on, whole.
        os.set_blocking(reader, True)
        thread.start()
        until(lambda: sum(map(len, read)) > BUFFER, "the lines that waited")
        http.get("/a.txt?again")
        until(lambda: any(b"?again" in part for part in read[-2:]), "the new line")
    thread.join()
    lines = b"".join(read).lstrip(b"x").decode("ascii").splitlines()
    assert all(map(COMBINED.fullmatch, lines))
    assert len(lines) == most // 20 * 20 - dropped + 1


def test_a_server_ends_though_its_log_is_stuck(tmp_path, stuck):
    path, _ = stuck

    def once():
        with serving(tmp_path, access_log=path) as server:
            get(server.ports[0], "/a.txt")

    thread = threading.Thread(target=once, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_reader_that_has_gone_costs_lines_which_are_counted_and_nothing_else(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with serving(tmp_path, access_log=path) as server:
        get(server.ports[0], "/a.txt")
        until(lambda: select.select([reader], [], [], 0)[0], "the line")
        os.close(reader)
        for _ in range(3):
            assert get(server.ports[0], "/a.txt").status == 200
        until(lambda: server.stats()["log_lines_dropped"] == 3, "the lines to be lost")
        with open(path, "rb") as reader:
            get(server.ports[0], "/a.txt?again")
            assert any(b"?again" in line for line in reader)
    assert server.stats()["log_lines_dropped"] == 3


def test_a_pipe_that_nobody_reads_is_an_error_at_once(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(OSError, match="access_log: nobody reads this pipe: ") as raised:
        c1m.Server(ports=[0], access_log=path).listen()
    assert raised.value.filename == str(path)


def test_a_pipe_that_nobody_reads_any_more_is_kept_when_the_file_is_opened_anew(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with serving(tmp_path, access_log=path) as server:
        os.close(reader)
        server.reopen_log()
        for n in (1, 2):         # the file is opened between the batches of these
            get(server.ports[0], "/a.txt")
            until(lambda n=n: server.stats()["log_lines_dropped"] == n, "the line to be lost")
        with path.open("rb") as reader:
            get(server.ports[0], "/a.txt?again")
            assert any(b"?again" in line for line in reader)


HIGH_DESCRIPTORS = """
import os, resource, sys
from c1m.logwriter import LogWriter, opened

resource.setrlimit(resource.RLIMIT_NOFILE, (1200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
taken = [os.dup(0) for _ in range(1100)]
os.set_blocking(1, False)
batches, lost = [b"0123456789abcde\\n" * 65536], []
writer = LogWriter(lambda: batches.pop() if batches else b"", lost.append, "-", opened("-"))
assert writer._fd > 1023
writer._closing = True
writer._thread.join()
assert sum(lost) == 0
"""


def test_a_reader_that_is_slow_is_waited_for_whatever_the_descriptor():
    """select(2) knows none over 1023."""
    done = subprocess.run([sys.executable, "-c", HIGH_DESCRIPTORS], capture_output=True, timeout=PATIENCE)
    assert done.stderr == b""
    assert done.stdout == b"0123456789abcde\n" * 65536


def test_a_writer_that_fails_says_so(tmp_path, caplog):
    def fail():
        raise ZeroDivisionError("in the writer")

    writer = LogWriter(fail, lambda n: None, str(tmp_path / "log"), opened(str(tmp_path / "log")))
    writer._thread.join(PATIENCE)
    [record] = caplog.records
    assert (record.name, record.levelname) == ("c1m", "ERROR")
    assert record.message.startswith(f"access_log: nothing more is written to {tmp_path / 'log'}")
    assert "in the writer" in caplog.text
    writer.close()
