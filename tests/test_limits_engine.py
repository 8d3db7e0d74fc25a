"""Limits of each address without sockets or clocks, against a model; what the table keeps, and for how long."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from c1m._probe_limits import Table

SECOND = 10**9
LEAST = 1 << 16


def v6(i):
    """The i-th of the /64s of a /32."""
    return str(IPv6Address((0x20010DB8 << 96) | i << 64 | 1))


def v4(i):
    return str(IPv4Address((10 << 24) + i))


def test_connections_of_an_address_are_counted():
    table = Table(2, 0)
    assert table.connect("192.0.2.1", 0)
    assert table.has_room("192.0.2.1")
    assert table.connect("192.0.2.1", 0)
    assert not table.has_room("192.0.2.1")
    assert not table.connect("192.0.2.1", 0)
    assert table.connect("192.0.2.2", 0)
    assert table.count == 2
    table.disconnect("192.0.2.1", 0)
    assert table.connect("192.0.2.1", 0)
    for address in ["192.0.2.1", "192.0.2.1", "192.0.2.2"]:
        table.disconnect(address, 0)
    assert table.count == 0


@pytest.mark.parametrize(("one", "other", "same"), [
    ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
    ("2001:db8::1", "2001:db8:0:1::1", False),
    ("192.0.2.1", "::ffff:192.0.2.1", True),
    ("192.0.2.1", "192.0.2.2", False),
    ("0.0.0.0", "::", False),
    ("192.0.2.1", "c000:201::", False),
    ("1.2.0.0", "0:0:0:0::", False),
])
def test_what_is_one_client(one, other, same):
    table = Table(1, 0)
    assert table.connect(one, 0)
    assert table.connect(other, 0) != same


@pytest.mark.parametrize("rate", [1, 2, 3, 7, 1000, 1_000_000])
def test_a_bucket_holds_what_comes_in_a_second(rate):
    table = Table(0, rate)
    assert sum(table.upgrade("192.0.2.1", 5) for _ in range(min(rate, 2000))) == min(rate, 2000)
    if rate <= 2000:
        assert not table.upgrade("192.0.2.1", 5)
        assert table.upgrade("192.0.2.2", 5)
        interval = SECOND // rate
        assert not table.upgrade("192.0.2.1", 5 + interval - (SECOND - interval * rate) - 1)
        assert table.upgrade("192.0.2.1", 5 + interval)
        assert not table.upgrade("192.0.2.1", 5 + interval)


def test_refusals_take_no_token():
    table = Table(0, 2)
    assert table.upgrade("192.0.2.1", 0)
    assert table.upgrade("192.0.2.1", 0)
    for _ in range(100):
        assert not table.upgrade("192.0.2.1", SECOND // 2 - 1)
    assert table.upgrade("192.0.2.1", SECOND // 2)


def test_an_entry_dies_when_its_bucket_is_full():
    table = Table(0, 10)
    for i in range(1000):
        assert table.upgrade(v6(i), 0)
    assert table.count == 1000
    table.forget(SECOND // 10 - 1)
    assert table.count == 1000
    table.forget(SECOND // 10)
    assert table.count == 0


def test_an_entry_with_a_connection_outlives_its_bucket():
    table = Table(1, 1)
    assert table.upgrade("192.0.2.1", 0)
    assert table.connect("192.0.2.1", 0)
    table.forget(2 * SECOND)
    assert table.count == 1
    table.disconnect("192.0.2.1", 2 * SECOND)
    assert table.count == 0


def test_the_table_does_not_grow_with_the_addresses_that_come():
    """A thousand /64s each second, for a hundred seconds: it knows those of about two seconds."""
    table = Table(0, 1)
    for i in range(100_000):
        assert table.upgrade(v6(i), i * SECOND // 1000)
    assert table.used <= 2500


def test_one_that_never_rests_keeps_no_other():
    """The first in the list upgrades all the time, and its bucket is never full; those behind it go all the same."""
    table = Table(0, 2)
    for i in range(100_000):
        table.upgrade("192.0.2.1", i * SECOND // 1000)
        table.upgrade(v6(i), i * SECOND // 1000)
    assert table.used <= 2500


def test_a_full_table_refuses():
    table = Table(1, 1, most=1)
    assert table.capacity == LEAST
    for i in range(LEAST - 1):
        assert table.connect(v4(i), 0)
    assert not table.connect(v4(LEAST), 0)
    assert not table.upgrade(v4(LEAST), 0)
    assert not table.has_room(v4(LEAST))
    assert not table.has_room(v4(0))
    table.disconnect(v4(7), 0)
    assert table.connect(v4(LEAST), 0)


def test_there_is_room_for_twice_the_connections_there_can_be():
    assert Table(1, 1, most=LEAST).capacity == 2 * LEAST
    assert Table(1, 1, most=LEAST + 1).capacity == 4 * LEAST


def test_addresses_are_spread_over_the_buckets():
    """Those of one /32 and of one /16, as an attacker has them."""
    table = Table(1, 0)
    for i in range(10_000):
        assert table.connect(v6(i), 0)
        assert table.connect(v4(i), 0)
    lengths = table.chain_lengths()
    assert sum(lengths) == table.count == 20_000
    assert max(lengths) <= 9


class Model(RuleBasedStateMachine):
    """Some addresses connect, upgrade and leave, while time passes."""

    ADDRESSES = st.sampled_from([v4(1), v4(2), v6(1), v6(2)])

    def __init__(self):
        super().__init__()
        self.table = Table(2, 3)
        self.now = 0
        self.connections = {}
        self.full = {}

    @rule(address=ADDRESSES)
    def connect(self, address):
        have = self.connections.get(address, 0)
        assert self.table.has_room(address) == (have < 2)
        assert self.table.connect(address, self.now) == (have < 2)
        self.connections[address] = min(have + 1, 2)

    @rule(address=ADDRESSES)
    def disconnect(self, address):
        if self.connections.get(address):
            self.connections[address] -= 1
            self.table.disconnect(address, self.now)

    @rule(address=ADDRESSES)
    def upgrade(self, address):
        full = max(self.full.get(address, 0), self.now) + SECOND // 3
        assert self.table.upgrade(address, self.now) == (full <= self.now + SECOND)
        if full <= self.now + SECOND:
            self.full[address] = full

    @rule(step=st.sampled_from([1, SECOND // 3 - 1, SECOND // 3, SECOND]))
    def pass_time(self, step):
        self.now += step

    @rule()
    def forget(self):
        self.table.forget(self.now)
        needed = [each for each, full in self.full.items() if full > self.now]
        assert self.table.count == len({*needed, *(each for each, n in self.connections.items() if n)})

    @invariant()
    def none_is_lost(self):
        assert self.table.count >= sum(1 for n in self.connections.values() if n)


Model.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestModel = Model.TestCase


@given(st.lists(st.integers(0, 300), min_size=1, max_size=200), st.integers(1, 5))
def test_no_address_gets_more_than_its_rate(steps, rate):
    """Whatever the times: in any second and a half no more than a bucket and what comes meanwhile."""
    table, now, taken = Table(0, rate), 0, []
    for step in steps:
        now += step * 10**6
        if table.upgrade("192.0.2.1", now):
            taken.append(now)
    for i, first in enumerate(taken):
        within = sum(1 for each in taken[i:] if each < first + 3 * SECOND // 2)
        assert within <= rate + -(-3 * rate // 2)
