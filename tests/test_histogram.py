"""The load's histogram, held against PyPI's hdrhistogram."""

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from c1m._probe_histogram import Values

MOST = 2**47 - 1                 # the greatest value that has a bucket
values = st.integers(0, MOST) | st.integers(0, 5000) | st.integers(0, 47).map(lambda bits: min(2**bits, MOST))
counted = st.lists(st.tuples(values, st.integers(1, 5)), min_size=1, max_size=60)
shares = st.integers(1, 1024).map(lambda share: share / 1024)    # exact, so that both round the same number


def ours(pairs):
    made = Values()
    for value, times in pairs:
        made.add(value, times)
    return made


def theirs(pairs):
    made = HdrHistogram(1, MOST, 3)
    for value, times in pairs:
        assert made.record_value(value, times)
    return made


@given(counted, shares)
def test_percentiles_are_those_of_hdrhistogram(pairs, share):
    assert ours(pairs).at(share) == theirs(pairs).get_value_at_percentile(share * 100)


@given(counted)
def test_what_is_recorded_is_within_a_thousandth(pairs):
    made = ours(pairs)
    greatest = max(value for value, _ in pairs)
    assert greatest <= made.at(1.0) <= greatest + greatest // 1000
    assert made.summary() == (
        sum(times for _, times in pairs), sum(value * times for value, times in pairs),
        min(value for value, _ in pairs), greatest,
    )


@given(counted, counted, shares)
def test_merged_is_as_if_all_were_in_one(some, others, share):
    merged, whole = ours(some), ours(some + others)
    merged.merge(ours(others))
    assert merged.at(share) == whole.at(share)
    assert merged.summary() == whole.summary()


@pytest.mark.parametrize(("value", "counted_as"), [(-1, 0), (0, 0), (2047, 2047), (2048, 2049), (MOST, MOST),
                                                   (MOST + 1, MOST), (2**62, MOST)])
def test_both_sides_of_what_it_can_hold(value, counted_as):
    made = Values()
    made.add(value)
    assert made.at(0.5) == counted_as


def test_of_nothing_there_is_nothing():
    empty = Values()
    assert (empty.at(0.5), empty.summary()) == (0, (0, 0, 0, 0))
    empty.merge(Values())
    assert empty.summary() == (0, 0, 0, 0)
    empty.merge(ours([(7, 1)]))
    assert empty.summary() == (1, 7, 7, 7)
