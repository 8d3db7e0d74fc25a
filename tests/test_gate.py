"""Limits of connections and WebSockets, PROXY headers and forwarded addresses, on real sockets."""

import contextlib
import json
import logging
import re
import socket
from collections import Counter

import proxies
import pytest
from client import Http, WebSocket, connected, get, handshake, request, until
from proxies import LOCAL, STREAM, TCP6, UNSPEC, binary, line
from wire import BINARY, CLOSE, TEXT, frame

import c1m

WAITING = 1024                   # connections that wait to be refused
XFF, STANDARD = "X-Forwarded-For: ", "Forwarded: "


class Remote:
    """Says who it is spoken with, and refuses those who ask for it."""

    def on_upgrade(self, request):
        return c1m.Reject() if request.query == "no" else None

    def on_message(self, ws, message):
        ws.send(f"{ws.remote} {ws.request.remote}")


class Served:
    """A server with an access log, and what it has logged."""

    def __init__(self, place, caplog, **settings):
        self.log, self.caplog = place / "log", caplog
        self.server = c1m.Server(None, **{"ports": 0, "access_log": self.log, "access_log_format": "json"} | settings)
        self.server.websocket("/ws")
        self.server.websocket("/remote", Remote())

    @property
    def port(self):
        return self.server.ports[0]

    def __getitem__(self, name):
        return self.server.stats()[name]

    def until(self, **wanted):
        until(lambda: {name: self[name] for name in wanted} == wanted, f"{wanted}, not {self.server.stats()}")

    def refused(self):
        return {name: n for name, n in self["refused"].items() if n}

    def said(self):
        return [record.message for record in self.caplog.records if record.name == "c1m"]

    def answers(self):
        """(address, status) of each, once the server has ended."""
        return [(each["remote"], each["status"]) for each in map(json.loads, self.log.read_text().splitlines())]


@pytest.fixture
def serving(tmp_path, caplog):
    caplog.set_level(logging.INFO, "c1m")
    with contextlib.ExitStack() as stack:
        def start(**settings):
            made = Served(tmp_path, caplog, **settings)
            stack.enter_context(made.server)
            made.stop = stack.close
            return made

        yield start


@pytest.fixture
def clients():
    with contextlib.ExitStack() as stack:
        yield stack.enter_context


def status(address, opening, source=None):
    """The status that an opening handshake gets on a connection of its own."""
    with Http(address, source=source) as http:
        http.send(opening)
        return int(http.take_line().split()[1])


# ---- connections ----


def test_a_connection_too_many_is_refused_at_its_first_request(serving, clients):
    served = serving(max_connections=2)
    first, second = (clients(Http(served.port)) for _ in range(2))
    assert first.get().status == second.get().status == 404
    third = clients(Http(served.port))
    answer = third.get()
    assert (answer.status, answer["Connection"], answer["Retry-After"]) == (503, "close", "5")
    assert third.rest() == b""
    third.close()
    assert first.get().status == 404
    assert served.refused() == {"max_connections": 1}
    served.until(connections=2)
    assert served.said() == ["max_connections: 1 refused, the last from 127.0.0.1"]
    second.close()
    served.until(connections=1)
    assert get(served.port).status == 404
    served.stop()
    assert served.answers() == [("127.0.0.1", each) for each in (404, 404, 503, 404, 404)]


@pytest.mark.parametrize(("sent", "status"), [
    (request(method="HEAD"), 503),
    (request("/", "Content-Length: 1000000", method="POST"), 503),
    (handshake(), 503),
    (request() * 3, 503),
    (b"\r\n" + request(), 503),
    (b"nonsense\r\n\r\n", 400),
    (request(method="X" * 9000), 414),
])
def test_what_is_refused_may_be_anything(serving, clients, sent, status):
    served = serving(max_connections=1)
    assert clients(Http(served.port)).get().status == 404
    with Http(served.port) as http:
        http.send(sent)
        said = http.rest()
    assert re.findall(rb"HTTP/1.1 (\d+)", said) == [b"%d" % status]
    assert said.endswith(b"\r\n\r\n") == sent.startswith(b"HEAD")


def test_a_request_that_is_refused_may_come_byte_by_byte(serving, clients):
    served = serving(max_connections=1)
    assert clients(Http(served.port)).get().status == 404
    http = clients(Http(served.port))
    for at in range(len(request())):
        http.send(request()[at:at + 1])
    assert http.answer().status == 503


def test_who_is_refused_and_asks_nothing_is_closed_in_time(serving, clients):
    served = serving(max_connections=1, head_timeout=0.1)
    ws = clients(WebSocket(served.port))
    assert clients(Http(served.port)).rest() == b""
    assert ws.echo(b"x") == (BINARY, b"x")


def test_so_many_wait_to_be_refused_and_no_more(serving, clients):
    """Those beyond are closed at once, and who is served is served on."""
    served = serving(max_connections=1)
    http = clients(Http(served.port))
    assert http.get().status == 404
    waiting = [clients(Http(served.port)) for _ in range(WAITING)]
    served.until(connections=1 + WAITING)
    for _ in range(5):
        assert clients(Http(served.port)).drained() == 0
    assert http.get().status == 404
    assert waiting[0].get().status == waiting[-1].get().status == 503
    for each in waiting:
        each.close()
    served.until(connections=1)
    assert get(served.port).status == 503
    http.close()
    served.until(connections=0)
    assert get(served.port).status == 404


def test_a_server_stops_though_some_wait_to_be_refused(serving, clients):
    served = serving(max_connections=1, shutdown_timeout=60)
    http, refused = (clients(Http(served.port)) for _ in range(2))
    assert http.get().status == 404
    served.until(connections=2)
    served.stop()
    assert refused.rest() == b""


def test_connections_are_counted_for_each_address(serving, clients):
    served = serving(max_connections_per_address=2)
    kept = [clients(Http(served.port, source=f"127.0.0.{i}")) for i in (2, 2, 3, 3, 4)]
    assert [http.get().status for http in kept] == [404] * 5
    with Http(served.port, source="127.0.0.2") as http:
        assert http.get().status == 503
    assert served["limited_addresses"] == 3
    assert get(served.port).status == 404
    kept[0].close()
    served.until(connections=4)
    ws = clients(WebSocket(served.port, source="127.0.0.2"))
    assert status(served.port, handshake(), "127.0.0.2") == 503
    ws.send(frame(CLOSE, b"\x03\xe8"))
    assert ws.closing() == 1000
    for http in kept:
        http.close()
    served.until(connections=0, limited_addresses=0)
    assert served.refused() == {"max_connections_per_address": 2}
    assert served.said()[0] == "max_connections_per_address: 1 refused, the last from 127.0.0.2"


def test_ipv6_counts_by_its_network(serving, clients):
    """And ::1 is not 0.0.0.1, nor 127.0.0.1."""
    with contextlib.suppress(OSError):
        served = serving(host=["127.0.0.1", "::1"], max_connections_per_address=1)
    if not socket.has_ipv6 or "served" not in locals():
        pytest.skip("no IPv6")
    assert clients(Http(("::1", served.port))).get().status == 404
    assert clients(Http(served.port)).get().status == 404
    assert clients(Http(("::1", served.port))).get().status == 503


def test_unix_sockets_have_no_address(serving, clients, tmp_path):
    path = tmp_path / "socket"
    served = serving(unix=path, max_connections_per_address=1, max_upgrades_per_address=1)
    for _ in range(5):
        assert clients(WebSocket(path)).echo(b"x") == (BINARY, b"x")
    assert served["limited_addresses"] == 0
    assert served.refused() == {}


def test_the_log_is_told_once_a_second(serving, clients):
    served = serving(max_connections=1)
    assert clients(Http(served.port)).get().status == 404
    for _ in range(200):
        assert get(served.port).status == 503
    told = [int(each.split()[1]) for each in served.said()]
    assert told[0] == 1
    assert len(told) < 100
    assert sum(told) <= 200 == served["refused"]["max_connections"]


# ---- WebSockets ----


def test_upgrades_of_an_address_have_a_rate(serving, clients):
    served = serving(max_upgrades_per_address=2)
    seen = []

    def once_more(wanted):
        seen.append(status(served.port, handshake()))
        return seen[-1] == wanted

    until(lambda: once_more(429), "a refusal")
    assert seen[:2] == [101, 101]
    assert clients(WebSocket(served.port, source="127.0.0.2")).echo(b"x") == (BINARY, b"x")
    until(lambda: once_more(101), "another token")
    assert served.refused() == {"max_upgrades_per_address": seen.count(429)}
    assert served.said()[0] == "max_upgrades_per_address: 1 refused, the last from 127.0.0.1"


def test_who_may_not_upgrade_yet_may_ask_for_other_things(serving):
    served = serving(max_upgrades_per_address=1)

    def refused():
        with Http(served.port) as http:
            http.send(handshake())
            answer = http.answer()
            if answer.status == 429:
                assert answer["Retry-After"] == "1"
                assert "Connection" not in answer
                assert http.get().status == 404
            return answer.status == 429

    until(refused, "a refusal")


def test_what_is_no_handshake_takes_no_token(serving, clients):
    """Nor does a path where WebSocket is not spoken."""
    served = serving(max_upgrades_per_address=1)
    for _ in range(5):
        assert status(served.port, handshake(protocol="12")) == 426
        assert status(served.port, handshake(key="short")) == 400
        assert status(served.port, handshake("/none")) == 404
    assert served["limited_addresses"] == 0
    assert clients(WebSocket(served.port)).echo(b"x") == (BINARY, b"x")


# ---- the PROXY protocol ----


@pytest.mark.parametrize(("header", "remote"), [
    (line(), "192.0.2.1"),
    (line("TCP6", "2001:db8::1", "::1"), "2001:db8::1"),
    (line("UNKNOWN"), "127.0.0.1"),
    (binary(), "192.0.2.1"),
    (binary(TCP6), "2001:db8::1"),
    (binary(STREAM), ""),
    (binary(UNSPEC), "127.0.0.1"),
    (binary(UNSPEC, command=LOCAL), "127.0.0.1"),
    (proxies.summed(binary(tlvs=proxies.MUST_SUM + proxies.SOME)), "192.0.2.1"),
    (proxies.HEADERS["version 2: TLVs"]["as long as can be"][0], "192.0.2.1"),
], ids=["TCP4", "TCP6", "UNKNOWN", "2 INET", "2 INET6", "2 UNIX", "2 UNSPEC", "2 LOCAL", "2 TLVs", "2 longest"])
@pytest.mark.parametrize("cut", [1 << 20, 100, 1, 0])
def test_a_proxy_says_who_is_behind_it(serving, clients, header, remote, cut):
    """Together with what follows, in pieces of so many bytes, or before it."""
    served = serving(proxy_protocol="127.0.0.0/8")
    http = clients(Http(served.port))
    data = header + request("/a") + handshake("/remote")
    step = cut if len(data) < 1000 else max(cut, 1000)
    for at in range(0, len(data), step) if cut else ():
        http.send(data[at:at + step])
    if not cut:
        http.send(header)
        until(lambda: served["bytes_received"] == len(header), "the header")
        http.send(data[len(header):])
    assert http.answer().status == 404
    assert http.take_line(b"\r\n\r\n").startswith(b"HTTP/1.1 101")
    http.send(frame(TEXT, b"who?"))
    assert http.take(2) == bytes([0x81, 2 * len(remote) + 1])
    assert http.take(2 * len(remote) + 1).decode() == f"{remote} {remote}"
    http.close()
    served.until(connections=0)
    served.stop()
    assert served.answers() == [(remote or "-", 404), (remote or "-", 101)]
    assert served.said() == []


@pytest.mark.parametrize("data", [
    *(data for cases in proxies.HEADERS.values() for data, said in cases.values() if said == proxies.FAIL),
    handshake(), b"\xff", bytes(100_000),
], ids=lambda data: f"{len(data)} bytes")
def test_what_is_no_header_is_closed(serving, clients, data):
    served = serving(proxy_protocol="127.0.0.2")
    other = clients(WebSocket(served.port))
    with Http(served.port, source="127.0.0.2") as http, contextlib.suppress(ConnectionError):
        http.send(data)
        assert http.drained() == 0
    served.until(connections=1)
    assert served.refused() == {"proxy_protocol": 1}
    [said] = served.said()
    assert re.fullmatch(r"proxy_protocol: 1 closed, the last from 127\.0\.0\.2: [a-zA-Z0-9'\- ]+", said)
    assert other.echo(b"x") == (BINARY, b"x")
    assert served["requests"] == 1


def test_a_header_must_come_in_time(serving, clients):
    served = serving(proxy_protocol="127.0.0.1", head_timeout=0.1)
    http, silent = (clients(Http(served.port)) for _ in range(2))
    http.send(line()[:-1])
    assert http.drained() == silent.drained() == 0
    assert served.refused() == {"proxy_protocol": 2}
    assert served.said()[0] == "proxy_protocol: 1 closed, the last from 127.0.0.1: none in time"


@pytest.mark.parametrize("data", [b"", line()[:10], binary()[:20], line(), binary(UNSPEC, command=LOCAL)])
def test_a_check_that_only_connects_is_none_of_our_business(serving, clients, data):
    served = serving(proxy_protocol="127.0.0.1")
    http = clients(Http(served.port))
    http.send(data)
    http.half_close()
    assert http.rest() == b""
    served.until(connections=0, accepted=1)
    assert served.refused() == {}
    assert served.said() == []


def test_a_header_of_one_who_is_no_proxy_is_a_bad_request(serving):
    """And without it he is served as himself."""
    served = serving(proxy_protocol=["127.0.0.2", "2001:db8::/32"])
    for header in (line(), binary()):
        with Http(served.port) as http:
            http.send(header + request())
            assert http.answer().status == 400
    assert get(served.port).status == 404
    served.stop()
    assert {remote for remote, _ in served.answers()} == {"127.0.0.1"}


def test_a_proxy_on_a_unix_socket(serving, clients, tmp_path):
    path = tmp_path / "socket"
    served = serving(unix=path, proxy_protocol="unix")
    http = clients(Http(path))
    http.send(line() + request())
    assert http.answer().status == 404
    assert get(served.port).status == 404
    served.stop()
    assert served.answers() == [("192.0.2.1", 404), ("127.0.0.1", 404)]


def test_clients_behind_a_proxy_are_counted_each_for_itself(serving, clients):
    served = serving(proxy_protocol="127.0.0.1", max_connections_per_address=1, max_connections=4)

    def asked(header):
        http = clients(Http(served.port))
        http.send(header + request())
        return http, http.answer().status

    (one, *first), (_, *second) = asked(line()), asked(line(source="192.0.2.7"))
    assert first + second == [404, 404]
    assert asked(binary())[1] == 503
    assert served.refused() == {"max_connections_per_address": 1}
    assert [asked(binary(UNSPEC, command=LOCAL))[1] for _ in range(3)] == [404, 404, 503]      # the proxy's own
    assert served.refused() == {"max_connections_per_address": 1, "max_connections": 1}
    one.close()
    until(lambda: asked(line())[1] == 404, "the first to have gone")
    assert served["limited_addresses"] == 2


def test_so_many_headers_are_awaited_and_no_more(serving, clients):
    """As many as there may be connections; whose has come waits no more."""
    served = serving(proxy_protocol="127.0.0.1", max_connections=2)
    first, second = (clients(Http(served.port)) for _ in range(2))
    served.until(connections=2)
    assert clients(Http(served.port)).drained() == 0
    assert served.refused() == {"max_connections": 1}
    first.send(line() + request())
    assert first.answer().status == 404
    third = clients(Http(served.port))
    served.until(connections=3)
    second.close()
    served.until(connections=2)
    third.send(line() + request())
    assert third.answer().status == 404


def test_a_server_stops_though_headers_are_awaited(serving, clients):
    served = serving(proxy_protocol="127.0.0.1", shutdown_timeout=60)
    http = clients(Http(served.port))
    served.until(connections=1)
    served.stop()
    assert http.rest() == b""


# ---- trusted proxies ----


@pytest.mark.parametrize(("trusted", "option", "fields", "remote"), [
    ("127.0.0.1", None, [XFF + "1.2.3.4, 203.0.113.1"], "203.0.113.1"),
    (["127.0.0.0/8", "203.0.113.0/24"], None, [XFF + "1.2.3.4, 203.0.113.1"], "1.2.3.4"),
    ("127.0.0.1", None, [XFF + "2001:db8::1"], "2001:db8::1"),
    ("127.0.0.1", None, [XFF + "nobody"], "127.0.0.1"),
    ("127.0.0.1", None, [], "127.0.0.1"),
    ("127.0.0.1", None, [STANDARD + "for=203.0.113.1"], "127.0.0.1"),
    ("127.0.0.1", "forwarded", [STANDARD + 'for="[2001:db8::1]:4711";proto=https', XFF + "1.2.3.4"], "2001:db8::1"),
    ("127.0.0.2", None, [XFF + "203.0.113.1"], "127.0.0.1"),
    ([], None, [XFF + "203.0.113.1"], "127.0.0.1"),
])
def test_a_trusted_proxy_names_its_client(serving, clients, trusted, option, fields, remote):
    served = serving(trusted_proxies=trusted, **({"forwarded": option} if option else {}))
    assert get(served.port, "/a", *fields).status == 404
    with WebSocket(served.port, opening=handshake("/remote", *fields)) as ws:
        assert ws.echo(b"who?") == (TEXT, f"{remote} {remote}".encode())
    served.stop()
    assert served.answers() == [(remote, 404), (remote, 101)]


def test_each_request_of_a_proxys_connection_names_its_own_client(serving, clients):
    served = serving(trusted_proxies="127.0.0.1")
    http = clients(Http(served.port))
    for remote in ("203.0.113.1", "203.0.113.2"):
        http.get("/a", XFF + remote)
    http.get("/a")
    served.stop()
    assert [remote for remote, _ in served.answers()] == ["203.0.113.1", "203.0.113.2", "127.0.0.1"]


def test_nothing_is_believed_of_a_request_that_cannot_be_read(serving):
    served = serving(trusted_proxies="127.0.0.1")
    assert get(served.port, "/a", XFF + "203.0.113.1", "Bad Field: x").status == 400
    served.stop()
    assert served.answers() == [("127.0.0.1", 400)]


def test_a_trusted_proxy_on_a_unix_socket(serving, tmp_path):
    path = tmp_path / "socket"
    served = serving(unix=path, trusted_proxies="unix")
    get(path, "/a", XFF + "203.0.113.1")
    get(path, "/a")
    get(served.port, "/a", XFF + "203.0.113.1")
    served.stop()
    assert [remote for remote, _ in served.answers()] == ["203.0.113.1", "-", "127.0.0.1"]


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_ipv4_clients_of_a_socket_for_both_are_such(serving, clients):
    """A listener that was handed in may take IPv4 as IPv6 has it, as those of systemd do."""
    handed = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    served = serving(ports=(), sockets=[handed], trusted_proxies="127.0.0.1", max_connections_per_address=1)
    clients(connected(served.port, source="127.0.0.77"))
    served.until(connections=1)
    assert get(served.port, "/", XFF + "203.0.113.9").status == 404
    served.stop()
    assert ("203.0.113.9", 404) in served.answers()


def test_a_proxy_before_a_proxy(serving, clients):
    """The PROXY header names a proxy, which names the client in turn; of another source nothing is believed."""
    served = serving(proxy_protocol="127.0.0.1", trusted_proxies="192.0.2.1")
    for header in (line(), line(source="192.0.2.2")):
        clients(Http(served.port)).send(header + request("/a", XFF + "203.0.113.1"))
    served.until(requests=2)
    served.stop()
    assert {remote for remote, _ in served.answers()} == {"203.0.113.1", "192.0.2.2"}


def test_websockets_through_a_proxy_are_counted_for_their_clients(serving, clients):
    served = serving(trusted_proxies="127.0.0.1", max_connections_per_address=1, shutdown_timeout=0.1)

    def opening(remote, target="/remote"):
        return handshake(target, XFF + remote)

    for _ in range(5):                   # a proxy's connections, and those of nobody yet
        assert clients(Http(served.port)).get("/a", XFF + "203.0.113.1").status == 404
    assert served["limited_addresses"] == 0
    ws = clients(WebSocket(served.port, opening=opening("203.0.113.1")))
    clients(WebSocket(served.port, opening=opening("203.0.113.2")))
    assert served["limited_addresses"] == 2
    http = clients(Http(served.port))
    http.send(opening("203.0.113.1"))
    answer = http.answer()
    assert (answer.status, answer["Retry-After"]) == (503, "5")
    assert http.get("/a").status == 404
    assert served.refused() == {"max_connections_per_address": 1}
    ws.close()
    until(lambda: served["limited_addresses"] == 1, "it to have gone")
    assert status(served.port, opening("203.0.113.1", "/remote?no")) == 403
    assert served["limited_addresses"] == 1
    ws = clients(WebSocket(served.port, opening=opening("203.0.113.1")))
    assert ws.echo(b"who?") == (TEXT, b"203.0.113.1 203.0.113.1")
    assert status(served.port, handshake("/ws")) == 101      # of the proxy itself, which names nobody
    served.stop()
    assert Counter(remote for remote, each in served.answers() if each == 101) == {
        "203.0.113.1": 2, "203.0.113.2": 1, "127.0.0.1": 1,
    }


def test_upgrades_through_a_proxy_take_their_clients_tokens(serving, clients):
    served = serving(trusted_proxies="127.0.0.1", max_upgrades_per_address=1)
    until(lambda: status(served.port, handshake("/ws", XFF + "203.0.113.1")) == 429, "a refusal")
    assert status(served.port, handshake("/ws", XFF + "203.0.113.2")) == 101
    assert served.said() == ["max_upgrades_per_address: 1 refused, the last from 203.0.113.1"]


def test_without_limits_nothing_is_counted(serving, clients):
    served = serving(trusted_proxies="127.0.0.1")
    assert clients(WebSocket(served.port)).echo(b"x") == (BINARY, b"x")
    assert served["limited_addresses"] == 0
    assert served.refused() == {}


# ---- options ----


@pytest.mark.parametrize("name", ["proxy_protocol", "trusted_proxies"])
@pytest.mark.parametrize(("given", "said"), [
    ("localhost", '\'localhost\' is not an address, a network such as "10.0.0.0/8" or "2001:db8::/32", or "unix"'),
    ("10.0.0.1/8", "'10.0.0.1/8' has more bits in it than count: write '10.0.0.0/8'"),
    ("10.0.0.0/33", "is not an address"),
    ("fe80::1%eth0", "has a zone in it"),
    (["127.0.0.1", ""], "'' is not an address"),
    ([f"10.0.{i // 256}.{i % 256}" for i in range(1025)], "1025 are more than 1024"),
])
def test_what_is_no_network(name, given, said):
    with pytest.raises(ValueError, match=rf"^{name}: ") as raised:
        c1m.Server(None, **{name: given})
    assert said in str(raised.value)


@pytest.mark.parametrize("given", ["::ffff:127.0.0.1", "::ffff:127.0.0.0/104", "0.0.0.0/0", ["unix", "127.0.0.1/32"]])
def test_networks_may_be_written_in_several_ways(serving, given):
    served = serving(trusted_proxies=given)
    get(served.port, "/a", XFF + "203.0.113.1")
    served.stop()
    assert served.answers()[0][0] == "203.0.113.1"


@pytest.mark.parametrize("name", ["max_connections", "max_connections_per_address", "max_upgrades_per_address"])
def test_limits_are_numbers(name):
    for wrong in (0, -1, 1 << 25):
        with pytest.raises(ValueError, match=rf"^{name}: {wrong} is not between 1 and "):
            c1m.Server(None, **{name: wrong})


def test_connected_can_choose_its_source():
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        connected(listener.getsockname()[1], source="127.0.0.5") as made,
    ):
        assert made.getsockname()[0] == "127.0.0.5"
        assert listener.accept()[0].getpeername() == made.getsockname()
