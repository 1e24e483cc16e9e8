import json
import math

import numpy as np
import polars as pl
import pytest
import torch

from sr_transformers.cli import main
from sr_transformers.data.prepare import prepare
from sr_transformers.evaluation import ranking
from sr_transformers.evaluation.baselines import baselines
from sr_transformers.evaluation.baskets import evaluate_baskets, evaluate_sets, next_baskets
from sr_transformers.evaluation.evaluator import evaluate, table
from sr_transformers.hub.card_tables import results_table


def log_of(baskets, path, **settings):
    """A history is a string of baskets: "AB C AD" at the moments 10, 20, 30."""
    rows = [
        (user, item, 10 * place)
        for user, history in baskets.items()
        for place, basket in enumerate(history.split(), 1)
        for item in basket
    ]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return prepare(frame, path / "data", **settings)


@pytest.fixture
def shop(tmp_path):
    """Vocabulary A .. F; the last basket of each user is test, Z is outside the vocabulary."""
    histories = {"anna": "AB CD A ACE", "bert": "EF B B BZD", "carl": "AF D", "dora": "BC C D F"}
    return log_of(histories, tmp_path, split="last_basket")


class Ranked:
    """Gives everybody the same scores, by letter, or those of a user's number of items; remembers what it saw."""

    name = "ranked"
    gives_log_probabilities = False

    def __init__(self, data, scores):
        tokens = data.tokenizer.convert_tokens_to_ids(list(scores))
        self.row = torch.full((data.vocab_size,), -5.0)
        self.row[tokens] = torch.tensor(list(scores.values()), dtype=torch.float32)
        self.letter = dict(zip(tokens, scores, strict=True))
        self.shown = []

    def score(self, histories):
        self.shown += ["".join(self.letter[int(token)] for token in history) for history in histories]
        return self.row.repeat(len(histories), 1)


SCORES = {"A": 6.0, "B": 5, "C": 4, "D": 3, "E": 2, "F": 1}


def gain(*ranks):
    return sum(1 / math.log2(rank + 1) for rank in ranks)


def test_metrics_by_hand_and_nothing_of_the_basket_is_shown(shop):
    scorer = Ranked(shop, SCORES)
    report = evaluate_baskets(scorer, shop, ks=(2, 4), filter_seen=False)
    # Before the last baskets; carl has two moments only and is training data.
    assert sorted(scorer.shown) == ["ABCDA", "BCCD", "EFBB"]
    # anna: A (rank 1), C (3), E (5), all had but E; bert: B (2) had, D (4) new, Z outside; dora: F (6), new.
    metrics = report["metrics"]
    assert metrics["recall@2"] == pytest.approx(np.mean([1 / 3, 1 / 3, 0]))
    assert metrics["recall@4"] == pytest.approx(np.mean([2 / 3, 2 / 3, 0]))
    assert metrics["ndcg@2"] == pytest.approx(np.mean([gain(1) / gain(1, 2), gain(2) / gain(1, 2), 0]))
    assert metrics["ndcg@4"] == pytest.approx(np.mean([gain(1, 3) / gain(1, 2, 3), gain(2, 4) / gain(1, 2, 3), 0]))
    assert metrics["repeated_recall@2"] == pytest.approx(np.mean([1 / 2, 1]))
    assert metrics["repeated_ndcg@2"] == pytest.approx(np.mean([gain(1) / gain(1, 2), gain(2) / gain(1)]))
    assert metrics["new_recall@4"] == pytest.approx(np.mean([0, 1 / 2, 0]))
    assert report["num_users"] == {"all": 3, "repeated": 2, "new": 3}
    assert report["num_items"] == {"all": 7, "repeated": 3, "new": 4}
    assert (report["num_targets"], report["num_items_outside_vocabulary"]) == (3, 1)
    values = np.array([1 / 3, 1 / 3, 0])
    assert report["standard_errors"]["recall@2"] == pytest.approx(values.std(ddof=1) / math.sqrt(3))


def test_a_cut_off_that_is_given_twice_counts_once(shop):
    once, twice = (evaluate_baskets(Ranked(shop, SCORES), shop, ks=ks) for ks in ((2,), (2, 2)))
    assert once["metrics"] == twice["metrics"]
    assert once["standard_errors"] == twice["standard_errors"]


def test_ties_count_against_the_scorer(shop):
    """Where all tie everybody has the last rank: 6."""
    scorer = Ranked(shop, dict.fromkeys(SCORES, 1.0))
    metrics = evaluate_baskets(scorer, shop, ks=(1, 5, 6), filter_seen=False)["metrics"]
    assert [metrics["recall@1"], metrics["recall@5"]] == [0, 0]
    assert metrics["recall@6"] == pytest.approx(np.mean([1, 2 / 3, 1]))


def test_where_seen_items_go_the_repeated_ones_are_never_found(shop):
    metrics = evaluate_baskets(Ranked(shop, SCORES), shop, ks=(2, 50), filter_seen=True)["metrics"]
    assert metrics["repeated_recall@50"] == 0
    # anna: E is the best but F; bert: A C D are left; dora: A E F.
    assert metrics["new_recall@2"] == pytest.approx(np.mean([1, 0, 0]))
    assert metrics["new_recall@50"] == pytest.approx(np.mean([1, 1 / 2, 1]))


def test_an_item_bought_twice_at_once_is_one_item(tmp_path):
    data = log_of({"anna": "AB CD A AAB", "bert": "A B C D"}, tmp_path, split="last_basket")
    report = evaluate_baskets(Ranked(data, dict(zip("ABCD", (4.0, 3, 2, 1), strict=True))), data, ks=(1,))
    assert report["num_items"]["all"] == 3
    assert report["metrics"]["recall@1"] == pytest.approx(np.mean([1 / 2, 0]))


def test_a_diverged_model_has_no_ranking(shop):
    with pytest.raises(ValueError, match="the model has diverged"):
        evaluate_baskets(Ranked(shop, {**SCORES, "A": math.nan}), shop)


def test_with_one_item_a_basket_it_is_the_next_item(tmp_path, monkeypatch):
    """Each moment once: recall of the basket is HR of the item; in batches of some rows too."""
    rng = np.random.default_rng(0)
    rows = [(user, int(rng.integers(15)), time) for user in range(60) for time in range(int(rng.integers(3, 12)))]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    data = prepare(frame, tmp_path / "data")
    monkeypatch.setattr(ranking, "_SCORES", 17 * 7)
    targets = data.targets("test")
    baskets = np.concatenate([targets, targets[:, 1:] + 1], axis=1)
    for scorer in baselines(data, filter_seen=False):
        item = evaluate(scorer, data, ks=(1, 5), filter_seen=False)
        basket = evaluate_sets(scorer, data, "test", "basket", baskets, (1, 5), False, False)
        for k in (1, 5):
            assert basket["metrics"][f"recall@{k}"] == pytest.approx(item["metrics"][f"hr@{k}"])
            assert basket["metrics"][f"hr@{k}"] == pytest.approx(item["metrics"][f"hr@{k}"])
            assert basket["metrics"][f"ndcg@{k}"] == pytest.approx(item["metrics"][f"ndcg@{k}"])
            assert basket["standard_errors"][f"recall@{k}"] == pytest.approx(item["standard_errors"][f"hr@{k}"])
    with pytest.raises(ValueError, match="has no baskets: no test target shares its moment with another interaction"):
        next_baskets(data, "test")


def test_baskets_of_which_training_holds_a_part_are_refused(tmp_path):
    data = log_of({"anna": "AB CD ABC", "bert": "A B C D"}, tmp_path)
    with pytest.raises(ValueError, match=r"of 1 of the 2 test baskets .* \(split leave_one_out\).*--split last_basket"):
        evaluate_baskets(Ranked(data, SCORES), data)


def test_a_time_split_holds_out_whole_baskets_and_newcomers_without_past_are_left_out(tmp_path):
    histories = {"anna": "AB C D AB", "bert": "A B", "carl": ". . . AC"}
    rows = [
        (user, item, 10 * place)
        for user, history in histories.items()
        for place, basket in enumerate(history.split(), 1)
        for item in basket.replace(".", "")
    ]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    data = prepare(frame, tmp_path / "data", split="temporal", validation_from=30, test_from=40)
    rows, without_past = next_baskets(data, "test")
    assert (rows.tolist(), without_past) == ([[0, 4, 6]], 1)
    report = evaluate_baskets(Ranked(data, SCORES), data)
    assert (report["num_targets"], report["num_baskets_without_past"]) == (1, 1)


def test_a_split_without_any_such_basket_is_refused(tmp_path):
    rows = [("anna", "A", 10), ("anna", "B", 10), ("anna", "A", 20), ("carl", "A", 40), ("carl", "B", 40)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    data = prepare(frame, tmp_path / "data", split="temporal", validation_from=30, test_from=40)
    with pytest.raises(ValueError, match="no test basket has an interaction of its user before it"):
        evaluate_baskets(Ranked(data, {"A": 1.0, "B": 0.0}), data)


def test_reports_stand_in_tables_that_say_what_they_are(shop):
    reports = [evaluate_baskets(one, shop, ks=(10,)) for one in baselines(shop)]
    assert table(reports, ["recall@10"]).startswith(
        "frame, last_basket, test: full ranking over 6 items, seen items kept, ties against the model, the next "
        "baskets of 3 users, nothing of them shown: 7 items, 3 of them repeated and 4 new to the user (1 outside the "
    )
    assert "| repeated_recall@10 | " in results_table(reports)
    with pytest.raises(ValueError, match="different protocols"):
        table([*reports, evaluate(baselines(shop)[0], shop)])


def test_evaluate_shows_baskets_beside_items(shop, tmp_path, capsys):
    command = ["evaluate", "--data", str(shop.path), "--k", "3", "--json", str(tmp_path / "reports.json")]
    assert main([*command, "--target", "basket"]) == 0
    out = capsys.readouterr().out
    assert "| model | hr@3 |" in out
    assert "| model | hr@3 | recall@3 | ndcg@3 | repeated_hr@3 |" in out
    reports = json.loads((tmp_path / "reports.json").read_text())
    assert [one["protocol"]["target"] for one in reports] == ["item"] * 7 + ["basket"] * 7
