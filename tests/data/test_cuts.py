"""Where a log is cut in time, and walks over histories that lie one after the other."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sr_transformers.data.cuts import blocks, count_before, moments, quantile

DAY = 86_400


def test_by_default_90_and_95_percent_of_the_interactions_have_passed():
    assert moments(np.arange(100) * 10, {}, None) == (900, 950)


def test_shares_are_of_all_interactions():
    times = np.arange(1000)
    assert moments(times, {"test_share": 0.2}, None) == (750, 800)
    assert moments(times, {"test_share": 0.2, "validation_share": 0.3}, None) == (500, 800)
    assert moments(times, {"test_from": 600, "validation_share": 0.1}, None) == (500, 600)
    assert moments(times, {"test_from": 600}, None) == (550, 600)
    assert moments(times, {"validation_from": 3}, None) == (3, 950)


def test_days_are_whole_ones_to_the_day_of_the_last_interaction():
    noon = np.array([1, 3, 10]) * DAY + DAY // 2
    assert moments(noon, {"test_days": 1, "validation_days": 2}, "s") == (8 * DAY, 10 * DAY)
    assert moments(noon, {"test_days": 7, "validation_days": 3}, "s") == (1 * DAY, 4 * DAY)
    midnight = np.array([1, 10]) * DAY  # begins a day, which counts
    assert moments(midnight, {"test_days": 1, "validation_days": 1}, "s") == (9 * DAY, 10 * DAY)
    assert moments(noon * 1000, {"test_days": 1, "validation_days": 2}, "ms") == (8000 * DAY, 10_000 * DAY)
    assert moments(noon, {"test_days": 1, "validation_from": 5}, "s") == (5, 10 * DAY)


def test_moments_may_be_iso_or_numbers():
    times = np.array([1, 3, 10]) * DAY
    assert moments(times, {"validation_from": "1970-01-03", "test_from": 5}, "s") == (2 * DAY, 5)


def test_what_is_no_part_of_a_log_is_refused():
    times = np.arange(100)
    for share in (0, 1, math.nan):
        with pytest.raises(ValueError, match=r"test_share .* must lie between 0 and 1"):
            moments(times, {"test_share": share}, None)
    with pytest.raises(ValueError, match="validation_days 0 must be at least 1"):
        moments(times, {"validation_days": 0}, "s")
    with pytest.raises(ValueError, match="test_days 3: the log's times are numbers of no known unit; say time_unit"):
        moments(times, {"test_days": 3}, None)
    with pytest.raises(ValueError, match=r"3\.00% of the interactions lie before 3, .* leaves nothing to train on"):
        moments(times, {"test_from": 3}, None)


def test_what_lies_before_a_moment():
    assert count_before(np.array([3, 1]), np.array([1, 5, 9, 5]), 5).tolist() == [1, 0]
    assert count_before(np.array([3, 1]), np.array([1, 5, 9, 5]), 6).tolist() == [2, 1]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=60), st.floats(0, 1))
def test_quantiles_are_those_of_numpy_up_to_the_ends_of_int64(values, q):
    rank = math.ceil((len(values) - 1) * q)
    assert quantile(np.array(values), q) == sorted(values)[rank]


def test_quantiles_are_those_of_numpy():
    values = np.random.default_rng(0).integers(-1000, 10**9, 999)
    for q in (0.9, 0.95):
        assert quantile(values, q) == np.quantile(values, q, method="higher")


@given(st.lists(st.integers(1, 20), min_size=1, max_size=20), st.integers(1, 30))
def test_blocks_hold_whole_users_and_cover_all_rows(lengths, rows):
    found = list(blocks(np.array(lengths), rows))
    assert [user for first, last, _, _ in found for user in range(first, last)] == list(range(len(lengths)))
    for first, last, start, stop in found:
        assert stop - start == sum(lengths[first:last])
        assert stop - start <= rows or last == first + 1
    assert [row for _, _, start, stop in found for row in range(start, stop)] == list(range(sum(lengths)))


def test_quantiles_of_more_than_one_part_are_those_of_numpy():
    """The values are looked at 2**22 at a time; here the least and the largest lie in the second part."""
    values = np.random.default_rng(0).integers(0, 1000, (1 << 22) + 3)
    values[-3:] = [-(10**12), 5, 10**15]
    for q in (0.0, 0.37, 1.0):
        assert quantile(values, q) == np.quantile(values, q, method="higher")


def test_quantiles_are_found_where_no_two_values_are_near():
    values = np.array([-(2**63), -1, 0, 1, 2**16, 2**16 + 1, 2**32, 2**63 - 1])
    for rank, value in enumerate(values.tolist()):
        assert quantile(values, rank / 7) == value
    assert quantile(np.array([7]), 0.95) == 7


def test_a_block_has_4_million_rows_unless_a_user_has_more():
    lengths = np.array([1 << 21, 1 << 21, 1, 5_000_000, 3])
    assert list(blocks(lengths)) == [
        (0, 2, 0, 1 << 22),
        (2, 3, 1 << 22, (1 << 22) + 1),
        (3, 4, (1 << 22) + 1, (1 << 22) + 5_000_001),
        (4, 5, (1 << 22) + 5_000_001, (1 << 22) + 5_000_004),
    ]
    assert list(blocks(np.zeros(0, np.int64))) == []
