import math

import numpy as np
import polars as pl
import pytest
import torch

from sr_transformers import LSRMConfig, LSRMForCausalLM, ModelScorer
from sr_transformers.data.prepare import prepare
from sr_transformers.data.vocabulary import UNK_ID
from sr_transformers.evaluation import evaluator, ranking
from sr_transformers.evaluation.baselines import Markov, Popularity, UserFrequency
from sr_transformers.evaluation.evaluator import add_users, evaluate, num_batches, table
from sr_transformers.evaluation.metrics import RankingTotals
from sr_transformers.evaluation.protocol import protocol_line, protocol_of, seen_choice

A, B, C, D = 2, 3, 4, 5
PROBABILITIES = {A: 0.4, B: 0.3, C: 0.2, D: 0.1}


class Lookup:
    """The same log-probabilities for everybody; remembers what it was shown."""

    name = "lookup"
    gives_log_probabilities = True

    def __init__(self):
        self.shown: list[list[int]] = []

    def score(self, histories):
        self.shown += [history.tolist() for history in histories]
        row = torch.full((6,), -torch.inf)
        row[list(PROBABILITIES)] = torch.tensor(list(PROBABILITIES.values())).log()
        return row.repeat(len(histories), 1)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Trained on A B, A B C, A C D, A B; test targets A, B, D and one that nobody trained on."""
    rows = [(0, "ABxA"), (1, "ABCCB"), (2, "ACDBD"), (3, "ABAy")]
    rows = [(user, item, n) for user, items in rows for n, item in enumerate(items)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    data = prepare(frame, tmp_path_factory.mktemp("evaluator") / "data")
    assert data.item_counts.tolist() == [0, 0, 4, 3, 2, 1]
    return data


def test_all_items_ranked_by_hand(log):
    report = evaluate(Lookup(), log, ks=(1, 2), filter_seen=False)
    # Ranks 1 (A), 2 (B), 4 (D), none (unknown).
    assert report["metrics"] == pytest.approx(
        {
            "hr@1": 1 / 4,
            "ndcg@1": 1 / 4,
            "hr@2": 2 / 4,
            "ndcg@2": (1 + 1 / math.log2(3)) / 4,
            "mrr": (1 + 1 / 2 + 1 / 4 + 0) / 4,
            "coverage@1": 1 / 4,
            "coverage@2": 2 / 4,
            "loss": -(math.log(0.4) + math.log(0.3) + math.log(0.1)) / 3,  # the unknown target has none
        },
        abs=1e-6,
    )
    assert report["standard_errors"]["hr@1"] == pytest.approx(np.std([1, 0, 0, 0], ddof=1) / 2)
    assert (report["num_targets"], report["num_targets_outside_vocabulary"]) == (4, 1)
    assert report["model"] == "lookup"
    assert report["seconds"] > 0


def test_seen_items_removed_by_hand(log):
    report = evaluate(Lookup(), log, ks=(1,), filter_seen=True)
    # User 0 saw A B: A (the target) stays, 1. User 1 saw A B C: B stays, 1. User 2 saw A B C D: D stays, 1. Then none.
    assert report["metrics"]["hr@1"] == pytest.approx(3 / 4)
    assert report["metrics"]["mrr"] == pytest.approx((1 + 1 + 1 + 0) / 4)
    # The loss is the model's own, seen items or not.
    assert report["metrics"]["loss"] == pytest.approx(-(math.log(0.4) + math.log(0.3) + math.log(0.1)) / 3)


def test_a_target_that_nothing_can_name_is_missed_at_every_k(tmp_path):
    rows = [(u, f"i{(u + k) % 4}", k) for u in range(8) for k in range(4)] + [(u, f"new{u}", 9) for u in range(8)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    data = prepare(frame, tmp_path / "data")
    report = evaluate(Popularity(data), data, ks=(1, 5, 6, 100))
    assert report["num_targets"] == report["num_targets_outside_vocabulary"] == 8
    assert {name: value for name, value in report["metrics"].items() if "coverage" not in name} == {
        "hr@1": 0, "ndcg@1": 0, "hr@5": 0, "ndcg@5": 0, "hr@6": 0, "ndcg@6": 0, "hr@100": 0, "ndcg@100": 0, "mrr": 0
    }  # fmt: skip


def test_a_scorer_of_other_items_is_refused(markov_prepared, tmp_path):
    same_size = pl.DataFrame(
        [(user, f"x{(user + n) % 30}", n) for user in range(60) for n in range(8)],
        schema=["user_id", "item_id", "timestamp"],
        orient="row",
    )
    other = prepare(same_size, tmp_path / "data")
    assert other.vocab_size == markov_prepared.vocab_size
    for kind in (Popularity, Markov, UserFrequency):
        with pytest.raises(ValueError, match=f"{kind.name} was made of other items than those of"):
            evaluate(kind(markov_prepared), other)


@pytest.mark.parametrize("more", [-50, -1, 1, 300])
def test_a_model_of_more_or_fewer_tokens_than_the_log_has_is_refused(markov_prepared, more):
    """Built by hand, so that nothing says which items it has."""
    tokens = markov_prepared.vocab_size + max(more, 3 - markov_prepared.vocab_size)
    scorer = ModelScorer(LSRMForCausalLM(LSRMConfig(vocab_size=tokens, hidden_size=8, num_hidden_layers=1)))
    with pytest.raises(ValueError, match=f"model scores {tokens} tokens and .* has {markov_prepared.vocab_size}: "):
        evaluate(scorer, markov_prepared)
    if more > 0:
        scorer.model.config.num_items = markov_prepared.vocab_size - 2
        assert evaluate(ModelScorer(scorer.model), markov_prepared)["num_targets"]


def test_rankings_are_as_chosen_else_as_the_models_were_trained_else_as_the_log_suggests(prepared, markov_prepared):
    assert seen_choice(None, [], prepared) is True
    assert seen_choice(None, [None], markov_prepared) is False  # users of this log come back to items
    assert seen_choice(None, [True, None, True], markov_prepared) is True
    assert seen_choice(False, [True], markov_prepared) is False
    assert seen_choice(True, [True, False], markov_prepared) is True
    with pytest.raises(ValueError, match="some with them kept; say which it is to be"):
        seen_choice(None, [True, False], markov_prepared)
    for wrong in ("no", 0):
        with pytest.raises(ValueError, match=f"filter_seen is {wrong!r}; it must be True, False or None"):
            seen_choice(wrong, [], prepared)


def test_a_scorer_is_ranked_as_it_was_before(log):
    scorer = Lookup()
    scorer.filter_seen = False
    assert evaluate(Lookup(), log, ks=(1,))["protocol"]["filter_seen"] is False  # a log with repeats
    scorer.filter_seen = True
    assert evaluate(scorer, log, ks=(1,))["protocol"]["filter_seen"] is True
    assert evaluate(scorer, log, ks=(1,), filter_seen=False)["protocol"]["filter_seen"] is False


def test_seen_items_are_not_covered(log):
    totals = RankingTotals((1, 3), log.vocab_size)
    add_users(totals, Lookup(), log, "test", filter_seen=True, shard=(1, 4))
    # of A B C D seen are A B C, B is the target
    assert [np.nonzero(row)[0].tolist() for row in totals.recommended] == [[B], [B, D]]


def test_a_scorer_sees_what_came_before_the_target_and_the_vocabulary_knows(log):
    scorer = Lookup()
    evaluate(scorer, log)
    assert sorted(scorer.shown) == sorted([[A, B], [A, B, C, C], [A, C, D, B], [A, B, A]])
    scorer = Lookup()
    evaluate(scorer, log, "validation")
    assert sorted(scorer.shown) == sorted([[A, B], [A, B, C], [A, C, D], [A, B]])
    assert not any(UNK_ID in history for history in scorer.shown)


def test_a_scorer_of_no_probabilities_has_no_loss(log):
    report = evaluate(Popularity(log), log)
    assert "loss" not in report["metrics"]
    assert "hr@50" in report["metrics"]


def test_the_batch_size_changes_nothing(markov_prepared, monkeypatch):
    scorer = Markov(markov_prepared)
    monkeypatch.setattr(scorer, "gives_log_probabilities", True)
    reports = []
    for scores_held, block in ((1, 1 << 16), (32 * 40, 70), (1 << 24, 1 << 16)):
        monkeypatch.setattr(evaluator, "_BLOCK", block)
        monkeypatch.setattr(ranking, "_SCORES", scores_held)
        reports.append(evaluate(scorer, markov_prepared))
    for other in reports[1:]:
        assert other["metrics"] == pytest.approx(reports[0]["metrics"], rel=1e-9)
        assert other["standard_errors"] == pytest.approx(reports[0]["standard_errors"], rel=1e-9)


def test_batches_are_counted_before_they_are_scored(markov_prepared, monkeypatch):
    monkeypatch.setattr(evaluator, "rows_of_scores", lambda vocab_size: 5)
    monkeypatch.setattr(evaluator, "_BLOCK", 71)
    scorer, totals = Popularity(markov_prepared), RankingTotals((1,), markov_prepared.vocab_size)
    score, calls = scorer.score, []
    monkeypatch.setattr(scorer, "score", lambda histories: calls.append(len(histories)) or score(histories))
    counts = []
    for shard in ((0, 1), (0, 3), (1, 3), (2, 3)):
        calls.clear()
        add_users(totals, scorer, markov_prepared, "test", False, shard)
        assert num_batches(markov_prepared, "test", shard) == len(calls)
        counts.append(len(calls))
    assert counts[1] == max(counts[1:]) > min(counts[1:])  # the first process has the most


def test_shards_add_up(markov_prepared):
    scorer = Popularity(markov_prepared)
    whole, parts = (RankingTotals((1, 10), markov_prepared.vocab_size) for _ in range(2))
    add_users(whole, scorer, markov_prepared, "test", False)
    for part in range(3):
        add_users(parts, scorer, markov_prepared, "test", False, shard=(part, 3))
    assert parts.vector() == pytest.approx(whole.vector())


def test_markov_beats_popularity_on_a_markov_chain_and_is_near_its_limit(markov_prepared):
    # The best possible: p = 9/19, 6/19, 4/19 of the three successors.
    markov = evaluate(Markov(markov_prepared, order=1), markov_prepared, ks=(1, 3))["metrics"]
    assert markov["hr@3"] > 0.95
    assert markov["hr@1"] == pytest.approx(9 / 19, abs=0.08)
    assert evaluate(Popularity(markov_prepared), markov_prepared, ks=(1, 3))["metrics"]["hr@3"] < 0.3


def test_seen_items_are_removed_unless_users_come_back_to_items(prepared, markov_prepared):
    assert evaluate(Popularity(prepared), prepared)["protocol"]["filter_seen"] is True
    assert evaluate(Popularity(markov_prepared), markov_prepared)["protocol"]["filter_seen"] is False
    assert evaluate(Popularity(prepared), prepared, filter_seen=False)["protocol"]["filter_seen"] is False


def test_an_unknown_part_is_refused(log):
    with pytest.raises(ValueError, match="split 'train' has no targets"):
        evaluate(Popularity(log), log, "train")


def test_the_protocol_in_one_sentence(log):
    assert protocol_line(evaluate(Lookup(), log, filter_seen=True)) == (
        "frame, leave_one_out, test: full ranking over 4 items, seen items removed, ties against the model, "
        "4 targets (1 outside the vocabulary, counted as missed); fingerprint "
        + protocol_of(log, "test", True)["fingerprint"]
    )


def test_reports_of_one_protocol_make_a_table(log):
    reports = [evaluate(scorer, log, ks=(1,), filter_seen=False) for scorer in (Lookup(), Popularity(log))]
    lines = table(reports, ("hr@1", "loss")).splitlines()
    assert lines[0] == protocol_line(reports[0])
    assert lines[1:] == [
        "",
        "| model | hr@1 | loss |",
        "|---|---|---|",
        "| lookup | 0.2500 | 1.4743 |",
        "| popularity | 0.2500 | – |",
    ]


def test_reports_of_different_protocols_make_no_table(log):
    reports = [evaluate(Popularity(log), log, part) for part in ("test", "validation")]
    with pytest.raises(ValueError, match="different protocols"):
        table(reports)
    with pytest.raises(ValueError, match="different protocols"):
        table([evaluate(Popularity(log), log, filter_seen=seen) for seen in (True, False)])


def test_a_part_without_targets_is_named(tmp_path):
    rows = [(user, f"i{(user + n) % 9}", n if n < 10 else 100 + n) for user in range(20) for n in range(12)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    data = prepare(frame, tmp_path / "log", split="temporal", validation_from="50", test_from="100")
    with pytest.raises(ValueError, match="log has no validation targets; evaluate on another part, or prepare"):
        evaluate(Popularity(data), data, "validation")
