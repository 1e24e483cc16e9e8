"""A prepared log as examples: every pair once, the target alone labelled in evaluation."""

import itertools

import polars as pl
import pytest

from sr_transformers.columns import ITEM, TIMESTAMP, USER
from sr_transformers.data.examples import EvalDataset, TrainDataset
from sr_transformers.data.prepare import prepare


def tokens(*items):
    return [item + 2 for item in items]


def test_whole_histories(prepared):
    """All but the last two of each; a user with one item left has no pair."""
    dataset = prepared.train_dataset()
    assert isinstance(dataset, TrainDataset)
    assert len(dataset) == sum(length > 1 for length in prepared.train_lengths)
    lengths = [length for length in prepared.train_lengths if length > 1]
    assert [dataset[index]["input_ids"] for index in range(len(dataset))] == [tokens(*range(n)) for n in lengths]
    assert dataset[-1] == {"input_ids": tokens(*range(lengths[-1])), "labels": [-100, *tokens(*range(1, lengths[-1]))]}
    assert max(len(dataset[index]["input_ids"]) for index in range(len(dataset))) == prepared.train_lengths.max()


@pytest.mark.parametrize("window", [2, 3, 4, 5, 20])
def test_every_pair_stands_in_one_window(prepared, window):
    dataset = prepared.train_dataset(window)
    found = []
    for index in range(len(dataset)):
        example = dataset[index]
        items = example["input_ids"]
        assert 2 <= len(items) <= window
        assert example["labels"] == [-100, *items[1:]]
        found += itertools.pairwise(items)
    expected = [(token, token + 1) for length in prepared.train_lengths for token in tokens(*range(length - 1))]
    assert sorted(found) == sorted(expected)


def test_a_target_is_the_only_label(prepared):
    dataset = prepared.eval_dataset("test", 4)
    assert isinstance(dataset, EvalDataset)
    assert dataset[0] == {"input_ids": tokens(0, 1, 2), "labels": [-100, -100, *tokens(2)]}
    assert dataset[2] == {"input_ids": tokens(1, 2, 3, 4), "labels": [-100, -100, -100, *tokens(4)]}
    assert prepared.eval_dataset("test")[2]["input_ids"] == tokens(0, 1, 2, 3, 4)


def test_targets_outside_the_vocabulary_have_no_example(prepared):
    """The targets i10 and i11 are unknown."""
    dataset = prepared.eval_dataset("test")
    assert dataset.num_targets == prepared.num_targets("test") == len(dataset) + 2
    assert max(dataset[index]["labels"][-1] for index in range(len(dataset))) == tokens(9)[0]


def test_unknown_items_are_left_out_of_histories_and_a_target_alone_is_none(tmp_path):
    rows = [("a", f"i{n}", n) for n in range(4)] + [("b", f"i{n}", n) for n in range(4)]
    rows += [("b", "new", 4), ("b", "i1", 5), ("c", "newer", 0), ("c", "newest", 1), ("c", "i0", 2)]
    data = prepare(pl.DataFrame(rows, schema=[USER, ITEM, TIMESTAMP], orient="row"), tmp_path / "data")
    dataset = data.eval_dataset("test")
    examples = [dataset[index]["input_ids"] for index in range(len(dataset))]
    by_id = [data.tokenizer.convert_ids_to_tokens(one) for one in examples]
    assert all("[UNK]" not in one for one in by_id)
    assert all(len(one) > 1 for one in by_id)
    assert ["i0", "i1", "i2", "i3", "i1"] in by_id


@pytest.mark.parametrize("window", [-1, 0, 1])
def test_a_window_without_a_pair_is_refused(prepared, window):
    with pytest.raises(ValueError, match=f"window is {window}; it must be at least 2: an item and the next one"):
        prepared.train_dataset(window)
    with pytest.raises(ValueError, match=f"window is {window}; it must be at least 2: an item and the target"):
        prepared.eval_dataset("test", window)


def test_places_and_splits_that_are_none_are_refused(prepared):
    dataset = prepared.train_dataset()
    with pytest.raises(IndexError, match=f"example {len(dataset)} of {len(dataset)}"):
        dataset[len(dataset)]
    with pytest.raises(ValueError, match="split 'train' has no targets"):
        prepared.eval_dataset("train")
