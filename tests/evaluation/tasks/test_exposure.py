import numpy as np
import pytest

from sr_transformers.evaluation.tasks.exposure import exposure, gini, list_popularity


def test_gini_by_hand():
    # Mean absolute difference over twice the mean: pairs of 1 2 5 differ by 1, 4, 3; (2 * 8 / 9) / (2 * 8 / 3).
    assert gini(np.array([5, 1, 2])) == pytest.approx((2 * 8 / 9) / (2 * 8 / 3))


def test_coverage_and_gini_of_lists_by_hand():
    lists = np.array([[2, 3], [2, 4], [2, -1]])  # of items 2 .. 6; 2 three times, 3 and 4 once
    assert exposure(lists, 7) == {
        "coverage": pytest.approx(3 / 5),
        "gini": pytest.approx(gini(np.array([3, 1, 1, 0, 0]))),
    }


def test_no_recommendation_has_no_gini():
    assert exposure(np.full((2, 3), -1), 7) == {"coverage": 0.0, "gini": None}


def test_popularity_of_lists_by_hand():
    counts = np.array([0, 0, 10, 4, 1])
    found = list_popularity(np.array([[2, 3], [4, -1], [-1, -1]]), counts)
    assert found[:2].tolist() == [7.0, 1.0]
    assert np.isnan(found[2])
