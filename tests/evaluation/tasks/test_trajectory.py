import dataclasses
import math

import numpy as np
import pytest

from sr_transformers.data.vocabulary import UNK_ID
from sr_transformers.evaluation import ranking
from sr_transformers.evaluation.baselines import Markov
from sr_transformers.evaluation.tasks import trajectory
from sr_transformers.evaluation.tasks.runner import Contestant, run_tasks
from sr_transformers.evaluation.tasks.task import NotRun
from sr_transformers.evaluation.tasks.trajectory import set_values, unseen_first


@pytest.fixture(scope="module")
def log(log_of, letters):
    """Users walk the alphabet, from A on, over Z to A again: 16 to 26 letters, all of them trained on."""
    histories = {f"user {n}": (letters * 3)[n : n + 16 + n % 11] for n in range(40)}
    data = log_of(histories, split="paper", unseen_share=0.1)
    assert data.vocab_size == 28
    return data


@pytest.fixture
def options(options):
    return dataclasses.replace(options, horizon=4)


def run(data, scorer, options):
    return run_tasks([Contestant(scorer.name, [lambda: scorer])], data, ["trajectory"], options)


def test_who_knows_the_way_is_always_right(log, successor, letters, options, means_of):
    report = run(log, successor(log, letters), options)
    recall = means_of(report, "trajectory", "recall")
    assert recall == {f"{way} {n}": 1.0 for way in ("autoregressive", "one pass") for n in range(1, 5)}
    assert means_of(report, "trajectory", "hr@1") == {f"step {n}": 1.0 for n in range(1, 5)}
    assert report["tasks"]["trajectory"]["groups"][0]["num_users"] == len(log.targets("test"))


def test_who_skips_an_item_by_hand(log, successor, letters, options, means_of):
    report = run(log, successor(log, letters, ahead=2), options)
    recall = means_of(report, "trajectory", "recall")
    # True: +1 +2 +3 +4. Chosen one after the other: +2 +4 +6 +8. The best of one pass: +2 +3 +4 +5.
    assert [recall[f"autoregressive {n}"] for n in range(1, 5)] == pytest.approx([0, 1 / 2, 1 / 3, 2 / 4])
    assert [recall[f"one pass {n}"] for n in range(1, 5)] == pytest.approx([0, 1 / 2, 2 / 3, 3 / 4])
    gains = 1 / np.log2(np.arange(4) + 2)
    quality = means_of(report, "trajectory", "set_ndcg")
    assert quality["autoregressive 4"] == pytest.approx((gains[0] + gains[1]) / gains.sum())
    assert quality["one pass 4"] == pytest.approx((gains[0] + gains[1] + gains[2]) / gains.sum())
    # Ranked are +2 +3 ... +26 = 0, +1 from the last item: the true one is +1, then, after own choices, +0, -1, -2.
    ranks = {name: 1 / value for name, value in means_of(report, "trajectory", "mrr").items()}
    assert ranks == pytest.approx({"step 1": 26, "step 2": 25, "step 3": 24, "step 4": 23})


def test_lengths_of_one_scorer_are_compared_with_the_first(log, successor, letters, options):
    report = run(log, successor(log, letters, ahead=2), options)
    rows = {row["group"]: row for row in report["tasks"]["trajectory"]["results"]}
    assert rows["autoregressive 4"]["relative_change"]["recall"]["value"] is None  # from 0
    rows = {row["group"]: row for row in run(log, successor(log, letters), options)["tasks"]["trajectory"]["results"]}
    assert rows["autoregressive 4"]["relative_change"]["recall"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_the_batch_size_changes_nothing(log, options, monkeypatch):
    one = trajectory.plan(log, options).passes[0]
    whole = one.run(Markov(log))
    monkeypatch.setattr(ranking, "_SCORES", 28 * 3)
    for condition, outcome in one.run(Markov(log)).items():
        assert np.array_equal(outcome.top, whole[condition].top)
        for metric, values in outcome.metrics((1, 10)).items():
            assert np.array_equal(values, whole[condition].metrics((1, 10))[metric])


def test_a_seen_item_is_never_chosen_because_it_is_true(log_of, lookup, options):
    # A is in every history and true again, and by far the likeliest; seen items are removed.
    log = log_of({f"user {n}": "ABCDEFABABABABABAB" for n in range(12)}, split="paper", unseen_share=0.3)
    options = dataclasses.replace(options, filter_seen=True, horizon=3)
    weights = {"A": 0.5, "F": 0.2, "E": 0.1, "D": 0.1, "C": 0.1, "B": 1e-3}
    outcomes = trajectory.plan(log, options).passes[0].run(lookup(log, {"": weights}))
    for way in ("autoregressive 3", "one pass 3"):
        assert (outcomes[way].top == -1).all()  # all six were seen
        assert (outcomes[way].values["recall"] == 0).all()


def test_choices_are_not_repeated_where_seen_items_are_removed(log, lookup, letters, options):
    options = dataclasses.replace(options, filter_seen=True)
    scorer = lookup(log, {"": {letter: 1 / (place + 1) for place, letter in enumerate(letters)}})
    lists = trajectory.plan(log, options).passes[0].run(scorer)["autoregressive 4"].top
    for row in lists:
        chosen = row[row >= 0]
        assert len(set(chosen.tolist())) == len(chosen)


def test_sets_by_hand():
    lists = np.array([[5, 6, 7], [5, 5, 6], [5, -1, -1], [9, 9, 9]])
    truth = np.array([[7, 5, 8], [5, 6, 5], [UNK_ID, 5, UNK_ID], [9, 8, 9]])
    values = set_values(lists, truth)
    assert values["recall"] == pytest.approx([2 / 3, 1, 1 / 3, 2 / 3])
    gains = [1, 1 / math.log2(3), 1 / 2]
    expected = [gains[0] + gains[2], sum(gains), gains[0], gains[0] + gains[1]]
    assert values["set_ndcg"] == pytest.approx(np.array(expected) / sum(gains))


def test_lists_without_seen_items():
    top = np.array([[4, 5, 6], [4, -1, -1]])
    assert unseen_first(top, [np.array([5]), np.array([4])]).tolist() == [[4, 6, -1], [-1, -1, -1]]


def test_why_it_is_not_run(prepared, log, options):
    found = trajectory.plan(prepared, options)
    assert isinstance(found, NotRun)
    assert "no user has 4 interactions after the test target" in found.reason
    assert isinstance(trajectory.plan(log, dataclasses.replace(options, horizon=11)), NotRun)
