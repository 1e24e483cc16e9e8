import math

import numpy as np
import pytest

from sr_transformers.evaluation.tasks import long_tail
from sr_transformers.evaluation.tasks.long_tail import mass_groups
from sr_transformers.evaluation.tasks.runner import Contestant, run_tasks

# Trained on A 4 times, B and D twice, C once: groups of 9 / 4 interactions begin at 0, 2.25, 4.5 and 6.75, and before
# A, B, D, C stand 0, 4, 6 and 8 interactions. Test targets: A, B, D, and z, which nobody trained on.
HISTORIES = {"anna": "AABAA", "ben": "ABCAB", "cleo": "ADAD", "dan": "Dyz"}
PROBABILITIES = {"": {"A": 0.4, "B": 0.3, "C": 0.2, "D": 0.1}}


@pytest.fixture(scope="module")
def log(log_of):
    data = log_of(HISTORIES)
    assert data.item_counts.tolist() == [0, 0, 4, 2, 2, 1]
    return data


def test_groups_by_hand(log, options):
    plan = long_tail.plan(log, options)
    assert [one.name for one in plan.groups] == ["G1 head", "G2", "G3", "G4 tail"]
    assert [one.facts["num_items"] for one in plan.groups] == [1, 1, 1, 1]
    assert [one.facts["training_share"] for one in plan.groups] == pytest.approx([4 / 9, 2 / 9, 2 / 9, 1 / 9])
    assert [one.facts["largest_training_count"] for one in plan.groups] == [4, 2, 2, 1]
    assert [one.rows.tolist() for one in plan.groups] == [[0], [1], [2], []]
    assert [one.base for one in plan.groups] == [None, "G1 head", "G1 head", "G1 head"]
    assert plan.facts == {"targets_outside_vocabulary": 1}


def test_metrics_by_hand(log, lookup, options, means_of):
    scorer = lookup(log, PROBABILITIES)
    report = run_tasks([Contestant("lookup", [lambda: scorer])], log, ["long_tail"], options)
    # Ranks: A 1, B 2, D 4.
    assert means_of(report, "long_tail", "hr@1") == {"G1 head": 1, "G2": 0, "G3": 0}
    assert means_of(report, "long_tail", "ndcg@2") == pytest.approx({"G1 head": 1, "G2": 1 / math.log2(3), "G3": 0})
    assert means_of(report, "long_tail", "mrr") == pytest.approx({"G1 head": 1, "G2": 1 / 2, "G3": 1 / 4})
    expected = {"G1 head": -math.log(0.4), "G2": -math.log(0.3), "G3": -math.log(0.1)}
    assert means_of(report, "long_tail", "loss") == pytest.approx(expected)
    assert [one["num_users"] for one in report["tasks"]["long_tail"]["groups"]] == [1, 1, 1, 0]


def test_groups_never_learn_from_test_counts(log, log_of, options):
    # The same training data; the least popular item is now everybody's test target.
    held_out = {user: items[:-1] + "C" for user, items in HISTORIES.items()}
    other = log_of(held_out)
    assert np.array_equal(other.item_counts, log.item_counts)
    ours, theirs = (long_tail.plan(data, options) for data in (log, other))
    assert [one.facts for one in ours.groups] == [one.facts for one in theirs.groups]
    assert [len(one.rows) for one in theirs.groups] == [0, 0, 0, 4]


def test_mass_is_equal_where_items_are_small():
    counts = np.concatenate([[0, 0], np.sort(np.random.default_rng(0).zipf(1.5, 5000).clip(max=300))[::-1]])
    groups = mass_groups(counts, 4)
    shares = np.bincount(groups[2:], counts[2:]) / counts.sum()
    assert shares == pytest.approx([0.25] * 4, abs=300 / counts.sum())
    assert np.all(np.diff(groups[2:]) >= 0)
    assert groups[:2].tolist() == [-1, -1]
