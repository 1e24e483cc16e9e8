from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sr_transformers.data.batches import (
    EpochBatchSampler,
    EpochDataLoader,
    NegativeSampler,
    PackingCollator,
    WindowDataset,
)
from sr_transformers.data.packing import ALL_POSITIONS

# Users of the readable log; item i{n} is token n + 2.
FIRST_ROW = [[11, 0, 3], [10, 4, 2]]  # u11 reads i0 i1 i2, u10 reads i4 i5
SECOND_ROW = [[9, 7, 1]]  # u09 reads i7


def sampler_of(lengths, rows_per_step: int, accumulation: int = 1, world_size: int = 1, rank: int = 0):
    return EpochBatchSampler(lengths, 6, 8, rows_per_step, 0, ALL_POSITIONS, accumulation, world_size, rank)


def rows_by_step(lengths, rows_per_step: int, epoch: int, accumulation: int, world_size: int) -> list[list]:
    """Windows of every optimizer step in the order of the plan, put together from all processes."""
    steps: dict[int, list] = {}
    for rank in range(world_size):
        sampler = sampler_of(lengths, rows_per_step, accumulation, world_size, rank)
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        for index, batch in enumerate(batches):
            place = (index % accumulation) * world_size + rank
            steps.setdefault(index // accumulation, []).append((place, [row.tolist() for row in batch]))
    return [[row for _, batch in sorted(steps[step]) for row in batch if row] for step in sorted(steps)]


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=25).filter(lambda lengths: max(lengths) > 1).map(np.array),
    st.integers(1, 9),
    st.integers(0, 2),
    st.integers(1, 3),
    st.integers(1, 4),
)
def test_a_step_has_the_same_rows_on_any_number_of_processes(lengths, rows_per_step, epoch, accumulation, world_size):
    together = rows_by_step(lengths, rows_per_step, epoch, accumulation, world_size)
    assert together == rows_by_step(lengths, rows_per_step, epoch, 1, 1)
    targets = Counter((h, s + n) for step in together for row in step for h, s, z in row for n in range(1, z + 1))
    assert targets == {(h, n): 1 for h, length in enumerate(lengths) for n in range(1, length)}


def test_the_number_of_steps_does_not_depend_on_the_epoch_and_steps_are_even():
    lengths = np.random.default_rng(0).integers(2, 40, 60)
    sampler = sampler_of(lengths, rows_per_step=7, accumulation=2)
    numbers = []
    for epoch in range(6):
        sampler.set_epoch(epoch)
        sizes = [len(batch) for batch in sampler]
        numbers.append(sampler.plan.num_rows)
        assert len(sizes) == len(sampler) == 2 * -(-numbers[0] // 7)
        assert sum(sizes) == numbers[-1]
        assert max(sizes) - min(sizes) <= 1
    assert len(set(numbers)) > 1  # rows do differ between epochs


def test_more_processes_than_rows_get_rows_without_windows(prepared):
    lengths = np.array([3])
    batches = [next(iter(sampler_of(lengths, 4, world_size=4, rank=rank))) for rank in range(4)]
    assert [batch[0].tolist() for batch in batches] == [[], [], [], [[0, 0, 2]]]
    dataset = WindowDataset(prepared, 1)
    for layout in ("rows", "flat"):
        batch = PackingCollator(4, layout)([dataset[row] for row in batches[0]])
        assert batch["input_ids"].unique().tolist() == [0]
        assert batch["labels"].unique().tolist() == [-100]


def test_histories_without_a_next_item_are_refused():
    with pytest.raises(ValueError, match="no history has two training interactions"):
        sampler_of(np.array([1, 1, 0]), 4)


def test_the_loader_gives_the_epoch_to_its_sampler(prepared):
    sampler = sampler_of(prepared.train_lengths, 2)
    loader = EpochDataLoader(
        WindowDataset(prepared, sampler.num_rows), batch_sampler=sampler, collate_fn=PackingCollator(8)
    )
    first = [batch["input_ids"] for batch in loader]
    loader.set_epoch(1)
    second = [batch["input_ids"] for batch in loader]
    assert len(first) == len(second) == len(loader)
    assert not all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    loader.set_epoch(0)
    assert all(torch.equal(one, other) for one, other in zip(first, [b["input_ids"] for b in loader], strict=True))


def batch_of(prepared, *rows: list, **options) -> dict:
    dataset = WindowDataset(prepared, len(rows))
    return PackingCollator(**options)([dataset[np.array(row)] for row in rows])


def test_the_data_set_gives_what_a_window_reads_and_one_item_more(prepared):
    dataset = WindowDataset(prepared, 5)
    windows, items, pasts = dataset[np.array(FIRST_ROW)]
    assert pasts == []
    assert windows.tolist() == FIRST_ROW
    assert [part.tolist() for part in items] == [[2, 3, 4, 5], [6, 7, 8]]
    assert len(dataset) == 5


def test_rows_by_eye(prepared):
    batch = batch_of(prepared, FIRST_ROW, SECOND_ROW, width=6)
    assert batch["input_ids"].tolist() == [[2, 3, 4, 6, 7, 0], [9, 0, 0, 0, 0, 0]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0], [0, 0, 0, 0, 0, 0]]
    assert batch["shift_labels"].tolist() == [[3, 4, 5, 7, 8, -100], [10, -100, -100, -100, -100, -100]]
    assert batch["labels"] is batch["shift_labels"]
    assert set(batch) == {"input_ids", "position_ids", "shift_labels", "labels"}
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())


def test_flat_by_eye(prepared):
    batch = batch_of(prepared, FIRST_ROW, SECOND_ROW, width=6, layout="flat")
    assert batch["input_ids"].tolist() == [[2, 3, 4, 6, 7, 9]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0]]
    assert batch["shift_labels"].tolist() == [[3, 4, 5, 7, 8, 10]]
    assert batch["cu_seq_lens_q"].tolist() == batch["cu_seq_lens_k"].tolist() == [0, 3, 5, 6]
    assert batch["cu_seq_lens_q"].dtype == torch.int32
    assert batch["max_length_q"] == batch["max_length_k"] == 3


def test_last_only_keeps_one_target_a_window(prepared):
    rows = batch_of(prepared, FIRST_ROW, SECOND_ROW, width=6, last_only=True)
    assert rows["shift_labels"].tolist() == [[-100, -100, 5, -100, 8, -100], [10, -100, -100, -100, -100, -100]]
    assert rows["input_ids"].tolist() == [[2, 3, 4, 6, 7, 0], [9, 0, 0, 0, 0, 0]]
    flat = batch_of(prepared, FIRST_ROW, SECOND_ROW, width=6, last_only=True, layout="flat")
    assert flat["shift_labels"].tolist() == [[-100, -100, 5, -100, 8, 10]]


def test_an_unknown_layout_names_those_that_exist():
    with pytest.raises(ValueError, match="layout 'padded' is not known; choose rows or flat"):
        PackingCollator(4, "padded")


COUNTS = np.array([7, 7, 6, 3, 1, 0])  # special tokens' numbers are ignored; an item without count counts once


@pytest.mark.parametrize(("power", "q"), [(1, [6 / 11, 3 / 11, 1 / 11, 1 / 11]), (0, [1 / 4] * 4)])
def test_negatives_are_drawn_as_often_as_q_says(power, q):
    sampler = NegativeSampler(COUNTS, 40_000, power, seed=0)
    assert np.exp(sampler.log_q) == pytest.approx(q)
    drawn = sampler.draw([np.array([[0, 0, 1]])])
    shares = np.bincount(drawn["negative_ids"].numpy(), minlength=6) / 40_000
    assert shares == pytest.approx([0, 0, *q], abs=0.01)
    assert torch.equal(drawn["negative_log_q"], torch.from_numpy(sampler.log_q)[drawn["negative_ids"] - 2])


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30), st.floats(0, 1))
@settings(max_examples=30)
def test_log_q_sums_to_one_and_special_tokens_are_never_drawn(counts, power):
    sampler = NegativeSampler(np.array([0, 0, *counts]), 200, power, seed=3)
    assert np.exp(sampler.log_q.astype(np.float64)).sum() == pytest.approx(1, abs=1e-5)
    ids = sampler.draw([np.array([[0, 0, 1]])])["negative_ids"]
    assert ids.min() >= 2
    assert ids.max() < 2 + len(counts)


def test_the_windows_of_a_batch_and_the_seed_fix_its_negatives(prepared):
    def draw(row, seed=0):
        return batch_of(prepared, row, width=6, negatives=NegativeSampler(COUNTS, 50, 1.0, seed))["negative_ids"]

    assert torch.equal(draw(FIRST_ROW), draw(FIRST_ROW))
    assert not torch.equal(draw(FIRST_ROW), draw(SECOND_ROW))
    assert not torch.equal(draw(FIRST_ROW), draw(FIRST_ROW, seed=1))
    assert draw(FIRST_ROW).dtype == torch.int64
