"""What proxies say of a client, without sockets: the Strictness tables line by line, and properties against models."""

from __future__ import annotations

import re
import struct
from ipaddress import IPv6Address, ip_address, ip_network

import proxies
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxies import EXPORTED, FORWARDED, HEADERS, NETWORKS, PEER, client_of, header_event
from wire import HOST, request

from c1m import _probe_forwarded, forwarded, proxyproto
from c1m._probe_proxyproto import header

thorough = settings(max_examples=300)


def rows(module, line):
    table = module.__doc__.partition("Strictness:\n")[2].partition("\nTo stop")[0]
    return {row: (clause, answer) for row, clause, answer in re.findall(line, table, re.MULTILINE)}


HEADER_ROWS = rows(proxyproto, r"^  (\S.*?) {2,}(2|2\.[\d.]+|-) +(\S.*)$")
FORWARDED_ROWS = rows(forwarded, r"^  (\S.*?) +(\d{4} [\d.]+(?:, [\d.]+)?|-) +(\S.*)$")


def told(data):
    """What the engine says, but for why it fails."""
    event = header(data)
    return event[:1] if event[0] == "fail" else event


# ---- PROXY headers ----


def test_every_row_of_the_headers_table_has_its_vectors():
    assert set(HEADER_ROWS) == set(HEADERS)
    for row, (_, answer) in HEADER_ROWS.items():
        if "fail" in answer:
            assert proxies.FAIL in [event for _, event in HEADERS[row].values()], row


VECTORS = [
    pytest.param(*case, id=f"{row}: {name}")
    for row, cases in [*HEADERS.items(), ("", proxies.HEADERS_NORMAL)] for name, case in cases.items()
]


@pytest.mark.parametrize(("data", "expected"), VECTORS)
def test_header(data, expected):
    if expected != proxies.FAIL:
        expected = (*expected, len(data))
    assert told(data) == expected == header_event(data)
    assert told(data + b"GET / HTTP/1.1\r\n") in (expected, proxies.FAIL)
    if expected != proxies.FAIL:
        assert told(data + b"GET / HTTP/1.1\r\n") == expected


@pytest.mark.parametrize(("data", "expected"), VECTORS)
def test_header_in_pieces(data, expected):
    """Of each beginning it says that more is wanted, or already what it says of the whole."""
    said = told(data)
    places = range(len(data)) if len(data) < 1000 else [*range(100), *range(100, len(data), 4999), len(data) - 1]
    for at in places:
        assert told(data[:at]) == header_event(data[:at])
        assert told(data[:at]) in (("more",), said), f"the first {at} bytes"
        if expected != proxies.FAIL:
            assert told(data[:at]) == ("more",)


def test_why_a_header_fails_is_said_in_words():
    for cases in HEADERS.values():
        for data, expected in cases.values():
            if expected == proxies.FAIL:
                assert re.fullmatch(r"[a-zA-Z0-9'\- ]+", header(data)[1]), data


def test_a_checksum_by_the_book():
    """RFC 3720 appendix B.4."""
    assert proxies.crc32c(bytes(32)) == 0x8A9136AA
    assert proxies.crc32c(b"\xff" * 32) == 0x62A8AB43
    assert proxies.crc32c(bytes(range(32))) == 0x46DD794E


addresses = st.ip_addresses()
ports = st.integers(0, 65535)


@thorough
@given(addresses, ports, ports, st.binary(max_size=50))
def test_headers_round_trip(source, port, other, rest):
    to = ip_address(bytes(len(source.packed)))
    one = f"PROXY TCP{source.version} {source} {to} {port} {other}\r\n".encode()
    block = source.packed + to.packed + struct.pack("!HH", port, other)
    two = proxies.binary(proxies.TCP4 if source.version == 4 else proxies.TCP6, block)
    for data in (one, two, proxies.summed(two[:14] + struct.pack("!H", len(block) + 7) + block + proxies.MUST_SUM)):
        assert header(data + rest) == ("from", proxies.shown(source.packed), len(data))


corpus = [data for data, *_ in (each.values for each in VECTORS) if len(data) < 1000]
edits = st.tuples(st.integers(0, 250), st.integers(0, 4), st.binary(max_size=4))


@thorough
@given(st.sampled_from(corpus), st.lists(edits, min_size=1, max_size=4))
def test_damaged_headers_are_judged_as_the_model_does(data, changes):
    for at, length, new in changes:
        data = data[:at] + new + data[at + length:]
    for end in {0, 1, len(data) // 2, len(data) - 1, len(data)}:
        if end >= 0:
            assert told(data[:end]) == header_event(data[:end])


# ---- addresses and networks ----


@pytest.mark.parametrize(("text", "shown"), [
    ("192.0.2.1", "192.0.2.1"), ("2001:DB8::0:1", "2001:db8::1"), ("::ffff:192.0.2.1", "192.0.2.1"),
    ("::", "::"), ("192.0.2.01", None), ("192.0.2", None), ("", None), ("192.0.2.1\0", None), ("fe80::1%eth0", None),
    ("1" * 45, None), ("1" * 46, None), (":".join(["ffff"] * 8), ":".join(["ffff"] * 8)), (" 192.0.2.1", None),
])
def test_address(text, shown):
    assert _probe_forwarded.address(text) == shown


@thorough
@given(st.one_of(addresses.map(str), st.text("0123456789abcdef:.%[] ", max_size=50)))
def test_addresses_are_read_as_the_library_reads_them(text):
    try:
        wanted = None if "%" in text else proxies.shown(ip_address(text).packed)
    except ValueError:
        wanted = None
    assert _probe_forwarded.address(text) == wanted


@thorough
@given(st.lists(addresses.flatmap(lambda a: st.tuples(st.just(a), st.integers(0, a.max_prefixlen))), max_size=5),
       addresses, st.integers(0, 128))
def test_networks(pairs, address, flip):
    """Addresses near a network's edge: one of its own, with a bit flipped."""
    networks = [ip_network((first, bits), strict=False) for first, bits in pairs]
    trusted = _probe_forwarded.Trusted([(each.network_address.packed, each.prefixlen) for each in networks])
    near = [type(first)(int(first) ^ (1 << flip % first.max_prefixlen)) for first, _ in pairs]
    for each in [address, *near]:
        if isinstance(each, IPv6Address) and each.ipv4_mapped:
            continue
        assert (str(each) in trusted) == any(each in network for network in networks)


# ---- forwarded addresses ----

FIELDS = ["x-forwarded-for", "forwarded"]
TRUSTED = {field: _probe_forwarded.Trusted(EXPORTED, field == "forwarded") for field in FIELDS}


def client(field, values, spelled=None):
    fields = [((spelled or field).encode(), value.encode("latin-1")) for value in values]
    return TRUSTED[field].client(PEER, request(fields=[HOST, *fields]))


def test_every_row_of_the_table_of_forwarded_has_its_vectors():
    assert set(FORWARDED_ROWS) == set(FORWARDED)


@pytest.mark.parametrize(("field", "values", "expected"), [
    pytest.param(*case, id=f"{row}: {name}")
    for row, cases in [*FORWARDED.items(), ("", proxies.FORWARDED_NORMAL)] for name, case in cases.items()
])
def test_client(field, values, expected):
    assert client(field, values) == expected == client_of(field, values)
    assert client(field, values, field.title()) == expected
    other = {"forwarded": "x-forwarded-for", "x-forwarded-for": "forwarded"}[field]
    assert client(field, values, other) == PEER


nodes = st.one_of(
    addresses.map(str), addresses.map(lambda a: f"[{a}]:80"),
    st.sampled_from(["10.1.2.3", "192.168.1.17", "unknown", ""]), st.text("0123456789.:[]_\"\\,;= a", max_size=12),
)


@thorough
@given(st.sampled_from(FIELDS), st.lists(st.lists(nodes, max_size=5), max_size=3), st.data())
def test_clients_are_found_as_the_model_finds_them(field, lines, data):
    def element(node):
        shape = data.draw(st.sampled_from(["{}", 'for="{}"', "for={}", 'by=a;for="{}"', 'for="{}" ;proto=http']))
        return (shape if field == "forwarded" else "{}").format(node)

    values = [", ".join(map(element, each)).strip() for each in lines]
    assert client(field, values) == client_of(field, values)


@thorough
@given(st.sampled_from(FIELDS), st.text('0123456789.:[]_"\\,;=for a', max_size=60))
def test_a_client_cannot_hide_behind_what_it_sends(field, made_up):
    """The proxy adds the client's address at the end, and that is what counts."""
    added = {"x-forwarded-for": "203.0.113.1", "forwarded": 'for="203.0.113.1:4711"'}[field]
    assert client(field, [f"{made_up}, {added}"]) == "203.0.113.1"
    assert client(field, [made_up, added]) == "203.0.113.1"


def test_the_networks_of_the_vectors_are_what_is_trusted():
    assert all(str(ip_network(each).network_address) in TRUSTED["forwarded"] for each in NETWORKS)
