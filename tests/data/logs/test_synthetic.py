import math

import numpy as np
import polars as pl
import pytest

from sr_transformers.data.logs.synthetic import conditional_entropy, generate, successor_probabilities


def transition_counts(log: pl.DataFrame, num_items: int) -> np.ndarray:
    pairs = log.select("item_id", next=pl.col("item_id").shift(-1).over("user_id")).drop_nulls()
    counts = np.zeros((num_items, num_items))
    np.add.at(counts, (pairs["item_id"].to_numpy(), pairs["next"].to_numpy()), 1)
    return counts


def test_conditional_entropy_of_two_successors_by_hand():
    # p = (1, 2/3) / (5/3) = (0.6, 0.4)
    assert successor_probabilities(2) == pytest.approx([0.6, 0.4])
    assert conditional_entropy(2) == pytest.approx(-0.6 * math.log(0.6) - 0.4 * math.log(0.4))


def test_every_item_is_followed_by_a_permutation_of_p_with_the_stated_entropy():
    counts = transition_counts(generate(num_users=3000, num_items=6, num_successors=3, mean_length=40), 6)
    rows = counts / counts.sum(1, keepdims=True)
    assert ((rows > 0).sum(1) == 3).all()
    assert np.sort(rows, 1)[:, 3:] == pytest.approx(np.tile(np.sort(successor_probabilities(3)), (6, 1)), abs=0.02)
    joint = counts / counts.sum()
    empirical = -(joint[counts > 0] * np.log(rows[counts > 0])).sum()
    assert empirical == pytest.approx(conditional_entropy(3), abs=0.005)


def test_items_are_equally_frequent():
    shares = generate(num_users=3000, num_items=6, num_successors=3)["item_id"].value_counts(normalize=True)
    assert shares["proportion"].to_numpy() == pytest.approx(np.full(6, 1 / 6), abs=0.01)


def test_lengths_times_and_seed():
    log = generate(num_users=200, num_items=9, num_successors=2, mean_length=5)
    users = log.group_by("user_id", maintain_order=True).agg(pl.len(), pl.col("timestamp"))
    assert users["user_id"].to_list() == list(range(200))
    assert set(users["len"]) == {2, 3, 4, 5, 6, 7}
    assert all(times == list(range(len(times))) for times in users["timestamp"].to_list())
    assert log.equals(generate(num_users=200, num_items=9, num_successors=2, mean_length=5))
    assert not log.equals(generate(num_users=200, num_items=9, num_successors=2, mean_length=5, seed=1))


@pytest.mark.parametrize("num_successors", [0, 4])
def test_successors_must_fit_the_items(num_successors):
    with pytest.raises(ValueError, match=rf"num_successors {num_successors} must lie in 1..num_items \(3\)"):
        generate(num_users=1, num_items=3, num_successors=num_successors)


def test_a_user_needs_a_next_item():
    with pytest.raises(ValueError, match="mean_length 1 must be at least 2"):
        generate(num_users=1, mean_length=1)
