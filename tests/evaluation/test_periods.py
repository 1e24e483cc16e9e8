"""All that a user does in a period, from one ranking at its beginning."""

import json
import math

import numpy as np
import polars as pl
import pytest
import torch

from sr_transformers.cli import main
from sr_transformers.data.prepare import prepare
from sr_transformers.evaluation.baselines import Popularity
from sr_transformers.evaluation.evaluator import table
from sr_transformers.evaluation.periods import evaluate_periods, whole_periods

HISTORIES = {
    "anna": ("AB", "", "BCD"),  # training, validation, test
    "bert": ("AC", "D", "A"),  # in test only what he had
    "carl": ("", "", "AB"),  # no past
    "dora": ("D", "", "XC"),  # X is new to the log
    "emil": ("ABCD", "A", ""),
    "fred": ("", "", "A"),  # one interaction, and no past either
}


class Ranked:
    """Ranks A before B before C before D, and keeps what it was shown."""

    name, gives_log_probabilities = "ranked", False

    def __init__(self, data):
        tokens = data.tokenizer.convert_tokens_to_ids(list("ABCD"))
        self.scores = torch.zeros(data.vocab_size)
        self.scores[tokens] = torch.tensor([4.0, 3.0, 2.0, 1.0])
        self.shown = []

    def score(self, histories):
        self.shown += [len(one) for one in histories]
        return self.scores.repeat(len(histories), 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rows = [
        (user, item, 100 * period + place)
        for user, periods in HISTORIES.items()
        for period, items in enumerate(periods)
        for place, item in enumerate(items)
    ]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    folder = tmp_path_factory.mktemp("periods") / "data"
    return prepare(frame, folder, split="temporal", validation_from=100, test_from=200)


def test_the_rows_are_whole_periods_of_users_with_a_past(data):
    rows, without_past = whole_periods(data, "test")
    assert (rows.tolist(), without_past) == ([[0, 2, 5], [1, 3, 4], [3, 1, 3]], 2)
    assert whole_periods(data, "validation")[0].tolist() == [[1, 2, 3], [4, 4, 5]]


def test_seen_and_unknown_items_are_left_out_and_counted(data):
    scorer = Ranked(data)
    report = evaluate_periods(scorer, data, ks=(1, 2), filter_seen=True)
    # anna has seen A and B: of C and D, ranked 1 and 2; bert has nothing left; dora has seen D: C of A B C is third
    assert report["num_targets"] == 2
    assert report["num_items"] == {"all": 3, "repeated": 0, "new": 3}
    assert report["num_users_without_past"] == 2
    assert (report["num_items_outside_vocabulary"], report["num_items_seen_left_out"]) == (1, 2)
    assert report["metrics"]["hr@2"] == 0.5
    assert report["metrics"]["recall@1"] == 0.25
    assert report["metrics"]["recall@2"] == 0.5
    assert report["metrics"]["ndcg@2"] == pytest.approx(0.5)
    assert sorted(scorer.shown) == [1, 2, 3]  # nothing of the period
    assert report["protocol"]["target"] == "period"
    assert report["protocol"]["targets_outside_vocabulary"] == "left out of the targets"


def test_where_seen_items_are_ranked_they_are_targets(data):
    report = evaluate_periods(Ranked(data), data, ks=(1, 3), filter_seen=False)
    assert (report["num_targets"], report["num_items"]["all"], report["num_items_seen_left_out"]) == (3, 5, 0)
    assert report["metrics"]["hr@1"] == pytest.approx(1 / 3)  # bert's A
    assert report["metrics"]["repeated_recall@3"] == 1.0  # anna's B, bert's A
    gains = 1 / np.log2([3, 4])  # anna's B and C at ranks 2 and 3; dora's C at 3
    ideal = (1 / np.log2([2, 3, 4])).sum()
    assert report["metrics"]["ndcg@3"] == pytest.approx((gains.sum() / ideal + 1 + 1 / math.log2(4)) / 3)


def test_the_line_above_a_table_says_what_was_left_out(data):
    text = table([evaluate_periods(Ranked(data), data, ks=(1,), filter_seen=True)], ["hr@1"])
    assert (
        "all that 2 users did in the period, ranked once at its beginning: 3 items, 0 of them repeated and 3 new"
        in text
    )
    assert "(left out: 1 outside the vocabulary, 2 seen before)" in text


def test_a_period_of_nothing_but_newcomers_is_refused(tmp_path):
    rows = [("old", "A", 1), ("old", "B", 2), *(("new", item, 10 + place) for place, item in enumerate("AB"))]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    data = prepare(log, tmp_path / "data", split="temporal", validation_from=5, test_from=9)
    with pytest.raises(ValueError, match="no user with interactions in the period of test has one before it"):
        whole_periods(data, "test")


def test_other_splits_have_no_period(markov_prepared):
    with pytest.raises(ValueError, match="has the split leave_one_out, whose users have no period in common"):
        whole_periods(markov_prepared, "test")


def test_a_period_of_nothing_but_seen_items_is_refused(tmp_path):
    rows = [("anna", "A", 1), ("anna", "B", 2), ("anna", "A", 30)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    log = prepare(frame, tmp_path / "data", split="temporal", validation_from=10, test_from=20)
    with pytest.raises(ValueError, match=r"of no user's period \(test\) is any item in the vocabulary and new to the"):
        evaluate_periods(Popularity(log), log, filter_seen=True)


def test_evaluate_shows_periods_beside_items(data, tmp_path, capsys):
    command = ["evaluate", "--data", str(data.path), "--k", "3", "--json", str(tmp_path / "reports.json")]
    assert main([*command, "--target", "period"]) == 0
    assert "| model | hr@3 | recall@3 | ndcg@3 | repeated_hr@3 |" in capsys.readouterr().out
    reports = json.loads((tmp_path / "reports.json").read_text())
    assert {one["protocol"]["target"] for one in reports} == {"item", "period"}
    assert len({one["protocol"]["fingerprint"] for one in reports}) == 2
