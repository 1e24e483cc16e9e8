import math

import numpy as np
import polars as pl
import pytest
import torch

from sr_transformers.data.prepare import prepare
from sr_transformers.data.vocabulary import NUM_SPECIAL
from sr_transformers.evaluation.baselines import (
    DecayedFrequency,
    Markov,
    Popularity,
    RecentPopularity,
    UserFrequency,
    baselines,
)
from sr_transformers.evaluation.evaluator import evaluate
from sr_transformers.evaluation.log_counts import popularity

A, B, C = 2, 3, 4
NOBODY = np.zeros(0, np.int32)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Trained on: A B A C and A B. The two held-out items of each user must move nothing."""
    rows = [(user, item, n) for user, items in ((0, "ABACCC"), (1, "ABCC")) for n, item in enumerate(items, 8 * user)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    data = prepare(frame, tmp_path_factory.mktemp("baselines") / "data")
    assert data.item_counts.tolist() == [0, 0, 3, 2, 1]
    return data


def histories(*items: list[int]) -> list[np.ndarray]:
    return [np.array(history, np.int32) for history in items]


def test_popularity_is_the_share_of_training_interactions(log):
    scores = Popularity(log).score(histories([A], []))
    assert scores.dtype == torch.float32
    assert scores.numpy() == pytest.approx(np.array([[0, 0, 3 / 6, 2 / 6, 1 / 6]] * 2))


def test_scores_may_be_overwritten(log):
    for scorer in (Popularity(log), UserFrequency(log), Markov(log)):
        first = scorer.score(histories([A, B], [C]))
        kept = first.clone()
        first.fill_(7)
        assert torch.equal(scorer.score(histories([A, B], [C])), kept)


def test_user_frequency_counts_first_and_popularity_decides_among_equals(log):
    scores = UserFrequency(log).score(histories([C, B, C], []))
    # Half the popularity, 3/12, 2/12, 1/12, on top of the counts 0, 1, 2.
    assert scores.tolist()[0] == pytest.approx([0, 0, 3 / 12, 1 + 2 / 12, 2 + 1 / 12])
    assert scores.tolist()[1] == pytest.approx([0, 0, 3 / 12, 2 / 12, 1 / 12])


def test_markov_by_hand(log):
    # After A: B twice, C once. After B: A once. After C: nothing.
    scores = Markov(log, order=2, weight=0.5).score(histories([C, A], [A, B], [B, A, B], [B], [A, C]))
    expected = [
        [0, 0, 0, 2 / 3, 1 / 3],  # A
        [0, 0, 1, 0.5 * 2 / 3, 0.5 * 1 / 3],  # B, then half of A
        [0, 0, 1, 0.5 * 2 / 3, 0.5 * 1 / 3],  # the third last is not looked at
        [0, 0, 1, 0, 0],  # one item of history
        [0, 0, 0, 0.5 * 2 / 3, 0.5 * 1 / 3],  # nothing follows C; half of A
    ]
    for row, wanted in zip(scores.tolist(), expected, strict=True):
        assert row == pytest.approx(wanted, abs=2e-6)  # popularity adds less than 1e-6


def test_markov_ranks_by_popularity_what_never_followed(log):
    scores = Markov(log).score([*histories([C], [B]), NOBODY])[:, NUM_SPECIAL:]
    assert scores.argsort(1, descending=True).tolist() == [[0, 1, 2], [0, 1, 2], [0, 1, 2]]
    assert (scores[1, 1] > scores[1, 2]) & (scores[1, 0] > 0.9)
    assert (scores > 0).all()


def test_a_batch_of_newcomers_is_ranked_by_popularity(log):
    assert Markov(log).score([NOBODY, NOBODY])[:, NUM_SPECIAL:].argmax(1).tolist() == [0, 0]


def test_users_without_training_interactions_teach_nothing(tmp_path):
    rows = [(0, "A", 1), (0, "B", 2), (0, "A", 30), (1, "B", 31), (1, "A", 32)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    data = prepare(frame, tmp_path / "data", split="temporal", validation_from=10, test_from=20)
    assert data.train_lengths.tolist() == [2, 0]
    assert Markov(data).score(histories([2], [3])).tolist()[0] == pytest.approx([0, 0, 0, 1], abs=2e-6)


@pytest.fixture(scope="module")
def baskets(tmp_path_factory):
    """A basket of A and B, then C, then a basket of A and D; two interactions more are held out."""
    rows = [(0, "A", 1), (0, "B", 1), (0, "C", 2), (0, "A", 3), (0, "D", 3), (0, "D", 4), (0, "D", 4)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return prepare(frame, tmp_path_factory.mktemp("baskets") / "data")


def past_of(data, length):
    return [data.items(0, length)], [data.timestamps(0, length)]


def test_decayed_frequencies_stand_above_popularity(baskets):
    scorer = DecayedFrequency(baskets)
    scorer.half_life = 1.0
    (found,) = scorer.score(*past_of(baskets, 4))  # A B C A; D never, more popular than nothing
    names = dict(zip("ABCD", baskets.tokenizer.convert_tokens_to_ids(list("ABCD")), strict=True))
    assert [found[names[name]].item() for name in "ABC"] == pytest.approx([1 + 0.125, 0.25, 0.5])
    assert found[names["D"]] == pytest.approx(popularity(baskets)[names["D"]] - 1)


def test_the_current_basket_counts_as_never_had(baskets):
    scorer = DecayedFrequency(baskets, outside_basket=True)
    scorer.half_life = math.inf
    names = dict(zip("ABCD", baskets.tokenizer.convert_tokens_to_ids(list("ABCD")), strict=True))
    (found,) = scorer.score(*past_of(baskets, 5))
    share = popularity(baskets)
    assert found[[names[name] for name in "ABCD"]].tolist() == pytest.approx(
        [share[names["A"]] - 1, 1 + share[names["B"]] / 2, 1 + share[names["C"]] / 2, share[names["D"]] - 1]
    )


def test_plain_frequency_is_the_frequency_that_never_decays(markov_prepared):
    decayed = DecayedFrequency(markov_prepared)
    decayed.half_life = math.inf
    options = {"filter_seen": False, "ks": (1, 3)}
    found, plain = (evaluate(one, markov_prepared, **options) for one in (decayed, UserFrequency(markov_prepared)))
    assert found["metrics"] == plain["metrics"]
    assert found["fitted"] == decayed.fitted


def test_recent_popularity_counts_the_window_first(log):
    scorer = RecentPopularity(log)
    scorer.window = 1
    rows = [np.array([A], np.int32)] * 3
    found = scorer.score(rows, [np.array([moment]) for moment in (-5, 7, 8)])
    share = np.array([0, 0, 3, 2, 1]) / 12
    # C at 3 is the last interaction until 7, A at 8 until 8.
    window = np.array([[0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 1, 0, 0]])
    assert found.numpy() == pytest.approx(share + window)


def test_where_seen_items_go_decayed_frequencies_are_left_out(markov_prepared):
    kept, removed = ([one.name for one in baselines(markov_prepared, choice)] for choice in (False, True))
    assert removed == ["popularity", "user frequency", "markov", "recent popularity", "mix"]
    assert kept == [*removed[:-1], "decayed frequency", "decayed frequency, basket left out", "mix"]
    assert len(baselines(markov_prepared)) == (5 if markov_prepared.filters_seen() else 7)
