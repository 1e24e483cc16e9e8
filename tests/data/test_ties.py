from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from sr_transformers.data.batches import EpochBatchSampler, PackingCollator, WindowDataset
from sr_transformers.data.logs import synthetic
from sr_transformers.data.packing import ALL_POSITIONS
from sr_transformers.data.past_inputs import PastInputs
from sr_transformers.data.prepare import prepare
from sr_transformers.data.ties import ShuffledBaskets


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Baskets of 5 items, all different within a user."""
    rows = [(user, f"i{place:02}", place // 5) for user in range(4) for place in range(33)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return prepare(frame, tmp_path_factory.mktemp("ties") / "data")


def whole(shuffled, user=0):
    return shuffled.train_items(user, int(shuffled.train_lengths[user]))


def test_items_keep_to_their_basket(log):
    shuffled = ShuffledBaskets(log, seed=3)
    for user in range(4):
        found, true = whole(shuffled, user), log.train_items(user, 31)
        assert not np.array_equal(found, true)
        for first in range(0, 31, 5):
            assert sorted(found[first : first + 5]) == sorted(true[first : first + 5])
    assert np.array_equal(shuffled.train_times(0, 20, 7), log.timestamps(0, 20, 7))


def test_every_epoch_user_and_seed_has_an_order_of_its_own(log):
    shuffled = ShuffledBaskets(log, seed=3)
    first = whole(shuffled)
    assert not np.array_equal(first, whole(shuffled, 1))
    assert not np.array_equal(first, whole(ShuffledBaskets(log, seed=4)))
    shuffled.set_epoch(1)
    assert not np.array_equal(first, whole(shuffled))
    shuffled.set_epoch(0)
    assert np.array_equal(first, whole(shuffled))


def test_windows_fit_together_wherever_they_are_cut(log):
    shuffled = ShuffledBaskets(log, seed=0)
    shuffled.set_epoch(2)
    found = whole(shuffled)
    for start in range(31):
        for stop in range(start, 32):
            assert np.array_equal(shuffled.train_items(0, stop, start), found[start:stop])


def test_all_orders_of_a_basket_are_as_likely(log):
    shuffled = ShuffledBaskets(log, seed=0)
    places = np.zeros((5, 5))
    for epoch in range(600):
        shuffled.set_epoch(epoch)
        places[np.arange(5), np.argsort(shuffled.train_items(0, 15, 10))] += 1
    assert places.min() > 80  # 120 expected, standard deviation 10


def test_a_log_without_ties_stays_as_it_is(prepared):
    shuffled = ShuffledBaskets(prepared, seed=0)
    for user in np.flatnonzero(prepared.train_lengths).tolist():
        assert np.array_equal(whole(shuffled, user), prepared.train_items(user, int(prepared.train_lengths[user])))


def test_packed_rows_hold_every_target_once_and_their_windows_lie_in_one_order(tmp_path):
    frame = synthetic.generate(num_users=50, num_items=30, num_successors=3, mean_length=20)
    data = prepare(frame.with_columns(pl.col("timestamp") // 3), tmp_path / "data")
    shuffled = ShuffledBaskets(data, seed=1)
    sampler = EpochBatchSampler(data.train_lengths, 7, 16, 4, 1, ALL_POSITIONS, shuffled=shuffled)
    dataset, collator = WindowDataset(shuffled, sampler.num_rows), PackingCollator(16)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        orders = [whole(shuffled, user) for user in range(len(data))]
        pairs, wanted = [], []
        for rows in sampler:
            batch = collator([dataset[row] for row in rows])
            there = batch["shift_labels"] != -100
            pairs += zip(batch["input_ids"][there].tolist(), batch["shift_labels"][there].tolist(), strict=True)
        for order in orders:
            wanted += zip(order[:-1].tolist(), order[1:].tolist(), strict=True)
        assert sorted(pairs) == sorted(wanted)


def test_the_past_of_a_window_lies_in_the_order_of_its_items(log):
    shuffled = ShuffledBaskets(log, seed=2)
    config = SimpleNamespace(history=("counts",), needs_times=True, attention_time=False, query_time=False)
    dataset = WindowDataset(shuffled, 1, PastInputs(config))
    _, (items,), (past,) = dataset[np.array([[1, 8, 12]])]
    assert np.array_equal(items[:-1], past.items[8:])
    assert np.array_equal(past.times, log.timestamps(1, 20))
