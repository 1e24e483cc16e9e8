import math
from collections import Counter
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sr_transformers.data.packing import (
    ALL_POSITIONS,
    LAST_POSITION,
    EpochPlan,
    cut_windows,
    list_prefixes,
    pack_rows,
)

LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=20).map(np.array)


def targets_of(plan: EpochPlan) -> Counter:
    """How often each (history, position of a target) is trained on with all positions."""
    windows = np.concatenate([plan.windows(row) for row in range(plan.num_rows)])
    return Counter((h, start + n) for h, start, size in windows.tolist() for n in range(1, size + 1))


@given(LENGTHS, st.integers(1, 12), st.integers(0, 9))
def test_windows_cover_each_item_and_its_next_exactly_once(lengths, width, seed):
    history, start, size = cut_windows(lengths, width, np.random.default_rng(seed))
    assert size.min(initial=1) >= 1
    assert size.max(initial=1) <= width
    pairs = [(h, s + n) for h, s, z in zip(history, start, size, strict=True) for n in range(z)]
    assert pairs == [(h, n) for h, length in enumerate(lengths) for n in range(length - 1)]
    # A history that fits is never cut.
    whole = np.nonzero((lengths > 1) & (lengths - 1 <= width))[0]
    assert [list(history).count(h) for h in whole] == [1] * len(whole)


def test_the_phase_of_a_long_history_is_drawn_from_all():
    heads = {int(cut_windows(np.array([9]), 4, np.random.default_rng(seed))[2][0]) for seed in range(40)}
    assert heads == {1, 2, 3, 4}  # 4: phase 0


def test_a_cut_by_eye():
    class Phase:
        def integers(self, low, high, size):
            return np.full(size, 2)

    history, start, size = cut_windows(np.array([1, 5, 8]), 4, Phase())
    # 4 pairs fit; 7 pairs at phase 2 are 2 + 4 + 1.
    assert history.tolist() == [1, 2, 2, 2]
    assert start.tolist() == [0, 0, 2, 6]
    assert size.tolist() == [4, 2, 4, 1]


def test_prefixes_by_eye():
    history, start, size = list_prefixes(np.array([1, 4, 2, 0]), 2)
    assert history.tolist() == [1, 1, 1, 2]
    assert start.tolist() == [0, 0, 1, 0]
    assert size.tolist() == [1, 2, 2, 1]


@given(st.lists(st.integers(1, 9), max_size=60).map(lambda sizes: np.array(sizes, int)), st.integers(9, 12))
def test_rows_are_never_overfull_and_numbered_by_their_first_window(sizes, width):
    rows = pack_rows(sizes, width)
    assert rows.shape == sizes.shape
    assert np.bincount(rows, sizes).max(initial=0) <= width
    seen = -1
    for row in rows:
        assert row <= seen + 1
        seen = max(seen, row)


@given(st.lists(st.integers(1, 9), max_size=40).map(lambda sizes: np.array(sizes, int)))
def test_each_window_goes_to_a_fullest_row_that_has_room(sizes):
    free: list[int] = []
    for size, row in zip(sizes.tolist(), pack_rows(sizes, 9).tolist(), strict=True):
        fitting = [room for room in free if room >= size]
        if row == len(free):
            assert not fitting
            free.append(9)
        else:
            assert free[row] == min(fitting)
        free[row] -= size


def test_random_sizes_fill_more_than_95_percent():
    sizes = np.random.default_rng(0).integers(1, 51, 2000)
    rows = pack_rows(sizes, 50)
    assert sizes.sum() / ((rows.max() + 1) * 50) > 0.95


def test_a_window_wider_than_a_row_is_refused():
    with pytest.raises(ValueError, match="a window of 7 items does not fit a row of 6"):
        pack_rows(np.array([3, 7]), 6)


@given(LENGTHS, st.integers(1, 8), st.integers(0, 8), st.integers(0, 3))
def test_every_epoch_trains_on_every_target_once(lengths, window, extra, epoch):
    plan = EpochPlan(lengths, window, window + extra, 0, ALL_POSITIONS, epoch)
    expected = {(h, n): 1 for h, length in enumerate(lengths) for n in range(1, length)}
    assert plan.num_targets == len(expected)
    if not expected:
        assert plan.num_rows == 0
        return
    assert targets_of(plan) == expected
    used = [int(plan.windows(row)[:, 2].sum()) for row in range(plan.num_rows)]
    assert max(used) <= window + extra
    assert min(used) > 0
    assert plan.fill == pytest.approx(sum(used) / (plan.num_rows * (window + extra)))


@given(LENGTHS, st.integers(1, 8))
def test_a_window_per_target_when_only_the_last_position_counts(lengths, window):
    plan = EpochPlan(lengths, window, window + 3, 0, LAST_POSITION, 0)
    expected = {(h, n): 1 for h, length in enumerate(lengths) for n in range(1, length)}
    windows = np.concatenate([plan.windows(row) for row in range(plan.num_rows)] or [np.zeros((0, 3), int)])
    assert Counter((h, start + size) for h, start, size in windows.tolist()) == expected
    assert plan.num_targets == len(expected)
    for _, start, size in windows.tolist():
        assert size == min(start + size, window)


def rows_of(plan: EpochPlan) -> list[list]:
    return [plan.windows(row).tolist() for row in range(plan.num_rows)]


def test_a_plan_depends_on_seed_and_epoch_alone():
    lengths = np.random.default_rng(1).integers(2, 30, 50)
    plans = {
        (seed, epoch): EpochPlan(lengths, 8, 16, seed, ALL_POSITIONS, epoch) for seed in (0, 1) for epoch in (0, 1)
    }
    rows = [str(rows_of(plan)) for plan in plans.values()]
    assert len(set(rows)) == 4
    assert len({plan.num_targets for plan in plans.values()}) == 1
    assert rows_of(EpochPlan(lengths, 8, 16, 1, ALL_POSITIONS, 1)) == rows_of(plans[1, 1])


@pytest.mark.parametrize("objective", [ALL_POSITIONS, LAST_POSITION])
@pytest.mark.parametrize("bounds", [[0, 60], [0, 25, 60], [0, 7, 30, 60]])
def test_an_epoch_goes_through_one_shard_after_the_other_in_an_order_of_its_own(bounds, objective):
    lengths = np.random.default_rng(2).integers(0, 25, 60)
    expected = {(h, n): 1 for h, length in enumerate(lengths) for n in range(1, length)}
    orders = set()
    for epoch in range(30):
        plan = EpochPlan(lengths, 8, 16, 0, objective, epoch, np.array(bounds))
        rows = rows_of(plan)
        if objective == ALL_POSITIONS:
            assert targets_of(plan) == expected
        else:
            assert Counter((h, start + size) for row in rows for h, start, size in row) == expected
        assert plan.num_targets == len(expected)
        assert plan.num_positions == sum(size for row in rows for _, _, size in row)
        assert plan.fill == pytest.approx(plan.num_positions / (16 * len(rows)))
        shards = [{int(np.searchsorted(bounds, h, side="right")) - 1 for h, _, _ in row} for row in rows]
        assert all(len(of_row) == 1 for of_row in shards)
        order = tuple(shard for (shard,), _ in groupby(shards))
        assert sorted(order) == list(range(len(bounds) - 1))
        orders.add(order)
    assert len(orders) == math.factorial(len(bounds) - 1)


def test_one_row_of_one_place_is_full():
    assert EpochPlan(np.array([2]), 1, 1, 0, ALL_POSITIONS, 0).fill == 1.0
    assert EpochPlan(np.array([1]), 1, 1, 0, ALL_POSITIONS, 0).fill == 0.0


def test_rows_narrower_than_the_window_are_refused():
    with pytest.raises(ValueError, match="rows of 4 places cannot hold windows of 5"):
        EpochPlan(np.array([9]), 5, 4, 0, ALL_POSITIONS, 0)


def test_an_unknown_objective_names_those_that_exist():
    with pytest.raises(ValueError, match="objective 'mask' is not known; choose from all_positions, last_position"):
        EpochPlan(np.array([9]), 5, 5, 0, "mask", 0)
