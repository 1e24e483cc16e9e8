"""What may be asked; how each place that answers says it: test_pipeline_lsrm.py and tests/serving."""

import numpy as np
import polars as pl
import pytest

from sr_transformers.lsrm.requests_lsrm import check_count, check_order, check_request, check_times


@pytest.mark.parametrize("times", [[1, 1, 5], (1, 1, 5), np.array([1, 1, 5], np.int32), pl.Series([1, 1, 5])])
def test_moments_come_back_as_integers(times):
    found = check_times(times, "abc", "times")
    assert found == [1, 1, 5]
    assert {type(one) for one in found} == {int}
    assert check_times([], [], "times") == []
    assert check_times([-(1 << 63), (1 << 63) - 1], "ab", "times") == [-(1 << 63), (1 << 63) - 1]


@pytest.mark.parametrize("bad", [-(1 << 63) - 1, 1 << 63, 2.0, np.float32(2), True, np.True_, "2", None, b"2"])
def test_what_is_no_moment_is_named_with_its_place(bad):
    with pytest.raises(ValueError, match=r"times: the moment at place 1 is .*; moments are integers of 64 bits"):
        check_times([1, bad, 3], "abc", "times")


@pytest.mark.parametrize("history", [["a"], ("a",), np.array(["a"]), pl.Series(["a"]), {"a": 1}.values()])
def test_sequences_have_an_order(history):
    check_order(history)


def test_counts_and_choices():
    for count in (1, 10**9, np.int64(3)):
        check_count("k", count)
        check_request(count, None)
    for count in (0, -1):
        with pytest.raises(ValueError, match=f"n is {count}; it must be at least 1"):
            check_request(count, True, "n")
    for count in (True, np.True_, 1.0, "1", None):
        with pytest.raises(ValueError, match=r"k is .*; it must be a whole number"):
            check_request(count, False)
    for choice in ("no", 0, 1, np.True_, []):
        with pytest.raises(ValueError, match=r"exclude_seen is .*; it must be True, False or None"):
            check_request(1, choice)
