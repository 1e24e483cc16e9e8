import math

import numpy as np
import pytest
import scipy.sparse

from sr_transformers.evaluation.experts import Masses, OwnItems, followers

V = 8


def dense(masses):
    found = np.zeros((len(masses.totals), V, masses.values.shape[1]))
    found[masses.rows, masses.tokens] = masses.values
    assert masses.totals == pytest.approx(found.sum(1))
    return found


def own(*histories):
    """Histories of (token, time)."""
    return OwnItems([np.array([t for t, _ in h], np.int32) for h in histories],
                    [np.array([time for _, time in h], np.int64) for h in histories], V)  # fmt: skip


def test_frequencies_by_hand():
    items = own([(2, 0), (3, 1), (2, 2), (4, 2)], [], [(5, 7)])
    plain, decayed = np.moveaxis(dense(items.frequencies([math.inf, 2.0])), 2, 0)
    assert plain.tolist() == [[0, 0, 2, 1, 1, 0, 0, 0], [0] * 8, [0, 0, 0, 0, 0, 1, 0, 0]]
    half = 0.5**0.5
    assert decayed[0] == pytest.approx([0, 0, half + half**3, half**2, 1, 0, 0, 0])


def test_the_current_basket_ties_with_the_last_interaction():
    items = own([(2, 0), (3, 1), (2, 2), (4, 2)], [(2, 5), (2, 5)])
    outside = dense(items.frequencies([math.inf], outside_basket=True))[:, :, 0]
    assert outside.tolist() == [[0, 0, 0, 1, 0, 0, 0, 0], [0] * 8]  # 2 was bought before too, but lies in the basket


def test_successors_are_those_of_the_users_own_past():
    items = own([(2, 0), (3, 1), (2, 2), (3, 3), (2, 4), (4, 5), (2, 6)], [(3, 0)], [(2, 0), (2, 1), (2, 2)])
    assert dense(items.successors())[:, :, 0].tolist() == [[0, 0, 0, 2, 1, 0, 0, 0], [0] * 8, [0, 0, 2, 0, 0, 0, 0, 0]]


def test_special_tokens_take_a_step_and_have_no_mass():
    items = own([(2, 0), (0, 1), (3, 2)], [(2, 0), (0, 1)], [(0, 0), (2, 1), (0, 2), (0, 3)])
    found = dense(items.frequencies([1.0]))[:, :, 0]
    assert found[0] == pytest.approx([0, 0, 0.25, 1, 0, 0, 0, 0])
    assert found[1] == pytest.approx([0, 0, 0.5, 0, 0, 0, 0, 0])
    assert not dense(items.successors()).any()


def test_now_is_the_last_moment_and_without_history_the_end_of_time():
    assert own([(2, 4), (3, 9)], []).now.tolist() == [9, np.iinfo(np.int64).max]


def test_followers_by_row():
    counts = np.zeros((V, V))
    counts[2, 3], counts[2, 4], counts[5, 6] = 3, 1, 2
    found = followers(scipy.sparse.csr_array(counts), np.array([5, 0, 2, 2]))
    assert np.array_equal(dense(found)[:, :, 0], counts[[5, 0, 2, 2]])


def test_masses_at_tokens_and_without_seen_items():
    masses = Masses.of(np.array([0, 0, 1]), np.array([2, 3, 3]), np.array([[1.0, 2], [3, 0], [5, 6]]), 3)
    assert masses.at(np.array([3, 2, 4])).tolist() == [[3, 0], [0, 0], [0, 0]]
    seen = np.zeros((3, V), bool)
    seen[0, 3] = seen[1, 2] = True
    left = masses.without(seen)
    assert left.totals.tolist() == [[1, 2], [5, 6], [0, 0]]
    scores = np.ones((3, V), np.float32)
    left.add_to(scores, np.array([[10.0, 1], [1, 0], [7, 7]]))
    assert [scores[0, 2], scores[1, 3], scores.sum()] == [13, 6, 24 + 12 + 5]
