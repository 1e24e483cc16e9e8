"""User i has the items i0, i1, ...: what is left of a history can be read off its tokens (item n is token n + 2)."""

import numpy as np
import pytest

from sr_transformers.data.batches import WindowDataset
from sr_transformers.data.fractions import FRACTIONS, FractionOfData
from sr_transformers.data.vocabulary import item_counts


def trained_on(data):
    return {
        history: data.train_items(history, int(length)).tolist()
        for history, length in enumerate(data.train_lengths)
        if length
    }


@pytest.mark.parametrize("of", FRACTIONS)
def test_the_whole_is_the_whole(prepared, of):
    part = FractionOfData(prepared, of, 1.0)
    assert trained_on(part) == trained_on(prepared)
    assert part.num_train_interactions == prepared.num_train_interactions
    assert part.window(50) == 50
    assert part.item_counts.tolist() == prepared.item_counts.tolist()


def test_a_fraction_of_users_keeps_whole_histories(prepared):
    part = FractionOfData(prepared, "users", 0.5)
    kept, whole = trained_on(part), trained_on(prepared)
    assert len(kept) == round(0.5 * len(whole))
    assert all(kept[user] == whole[user] for user in kept)
    assert part.num_train_interactions == sum(map(len, kept.values())) < prepared.num_train_interactions


def test_smaller_fractions_are_parts_of_larger_ones(prepared):
    small, large = (set(trained_on(FractionOfData(prepared, "users", f, seed=3))) for f in (0.3, 0.6))
    assert small < large
    assert set(trained_on(FractionOfData(prepared, "users", 0.3, seed=4))) != small


def test_a_fraction_of_interactions_keeps_the_most_recent_ones(prepared):
    part = FractionOfData(prepared, "interactions", 0.5)
    # User 11 has 12 interactions, of which 10 are training: i5 .. i9 are left.
    assert trained_on(part)[11] == [7, 8, 9, 10, 11]
    # User 5 has 6, of which 4 are training: i2, i3 are left; a shorter history keeps two, or all it has.
    assert trained_on(part)[5] == [4, 5]
    assert all(len(items) >= min(2, int(prepared.train_lengths[user])) for user, items in trained_on(part).items())


def test_training_reads_only_what_is_left(prepared):
    part = FractionOfData(prepared, "interactions", 0.5)
    _, (items,), _ = WindowDataset(part, 1)[np.array([[11, 0, 4]])]
    assert items.tolist() == [7, 8, 9, 10, 11]


def test_a_fraction_of_the_context_keeps_every_interaction(prepared):
    part = FractionOfData(prepared, "context", 0.1)
    assert trained_on(part) == trained_on(prepared)
    assert [part.window(50), part.window(3)] == [5, 1]


@pytest.mark.parametrize("of", FRACTIONS)
def test_what_is_evaluated_stays(prepared, of):
    part = FractionOfData(prepared, of, 0.2)
    for split in ("validation", "test"):
        assert part.targets(split).tolist() == prepared.targets(split).tolist()
    assert part.vocab_size == prepared.vocab_size
    assert part.items(11, 11).tolist() == prepared.items(11, 11).tolist()


def test_counts_follow_what_is_left(prepared):
    part = FractionOfData(prepared, "interactions", 0.5)
    assert part.item_counts.sum() == part.num_train_interactions
    # i0 is the oldest item of everybody: only histories too short to be cut still have it.
    assert part.item_counts[2] == sum(2 in items for items in trained_on(part).values())
    assert FractionOfData(prepared, "users", 0.3).item_counts.sum() < prepared.item_counts.sum()


def test_validation_can_be_a_sample(prepared):
    part = FractionOfData(prepared, "users", 1.0, validation_targets=3)
    rows, every = part.targets("validation").tolist(), prepared.targets("validation").tolist()
    assert len(rows) == part.num_targets("validation") == 3
    assert all(row in every for row in rows)
    assert part.num_targets("test") == prepared.num_targets("test")
    assert FractionOfData(prepared, "users", 1.0, validation_targets=3).targets("validation").tolist() == rows


def test_the_manifest_says_what_was_done(prepared):
    part = FractionOfData(prepared, "users", 0.5, seed=2, validation_targets=4)
    note = part.manifest["fraction"]
    assert note == {
        "of": "users",
        "fraction": 0.5,
        "seed": 2,
        "users": int((part.train_lengths > 0).sum()),
        "train_interactions": part.num_train_interactions,
        "validation_targets": 4,
    }
    assert "fraction" not in prepared.manifest


def test_a_fraction_of_a_fraction_is_refused(prepared):
    with pytest.raises(ValueError, match="a fraction of FractionOfData is not known"):
        FractionOfData(FractionOfData(prepared, "users", 0.5), "interactions", 0.5)


def test_examples_of_a_shorter_context_are_as_short(prepared):
    part = FractionOfData(prepared, "context", 0.4)
    assert max(len(one["input_ids"]) for one in part.train_dataset(5)) == 2
    assert max(len(one["input_ids"]) for one in part.eval_dataset("test", 5)) == 2
    whole = prepared.train_dataset(5)
    assert max(len(one["input_ids"]) for one in whole) > 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("items", 0.5), "a fraction of 'items' is not known; choose from users, interactions, context"),
        (("users", 0.0), r"the fraction of users is 0.0; it must lie in \(0, 1\]"),
        (("users", 10), r"the fraction of users is 10"),
        (("users", 0.5, 0, 0), "validation_targets is 0"),
    ],
)
def test_mistakes_are_named(prepared, arguments, message):
    with pytest.raises(ValueError, match=message):
        FractionOfData(prepared, *arguments)


@pytest.mark.parametrize("of", FRACTIONS)
def test_its_vocabulary_keeps_the_counts_that_are_left(prepared, of):
    part = FractionOfData(prepared, of, 0.4)
    assert item_counts(part.tokenizer).tolist() == part.item_counts[2:].tolist()
    assert item_counts(prepared.tokenizer).tolist() == prepared.item_counts[2:].tolist()
    assert part.items_fingerprint == prepared.items_fingerprint
