import dataclasses

import pytest

from sr_transformers.evaluation.tasks import cold_items
from sr_transformers.evaluation.tasks.runner import Contestant, run_tasks

# Trained on A 4 times, B and D twice, C once. Test targets: A, B, D, and z, which nobody trained on.
HISTORIES = {"anna": "AABAA", "ben": "ABCAB", "cleo": "ADAD", "dan": "Dyz"}
NAMES = ["never", "1", "2", "3 to 5", "more than 5"]


@pytest.fixture
def options(options):
    return dataclasses.replace(options, cold_item_edges=(1, 2, 5))


def test_buckets_and_metrics_by_hand(log_of, lookup, options, means_of):
    log = log_of(HISTORIES)
    scorer = lookup(log, {"": {"A": 0.4, "B": 0.3, "C": 0.2, "D": 0.1}})
    report = run_tasks([Contestant("lookup", [lambda: scorer])], log, ["cold_items"], options)
    groups = report["tasks"]["cold_items"]["groups"]
    assert [one["name"] for one in groups] == NAMES
    assert [one["num_users"] for one in groups] == [1, 0, 2, 1, 0]
    assert [one["num_items"] for one in groups] == [0, 1, 2, 1, 0]
    # z has no rank; B and D have 2 and 4; A has 1.
    assert means_of(report, "cold_items", "mrr") == pytest.approx({"never": 0, "2": 3 / 8, "3 to 5": 1})
    assert means_of(report, "cold_items", "hr@2") == pytest.approx({"never": 0, "2": 1 / 2, "3 to 5": 1})
    assert "never" not in means_of(report, "cold_items", "loss")


def test_buckets_never_learn_from_test_counts(log_of, options):
    log = log_of({user: items[:-1] + "C" for user, items in HISTORIES.items()})
    groups = cold_items.plan(log, options).groups
    assert [one.facts["num_items"] for one in groups] == [0, 1, 2, 1, 0]
    assert {one.name: len(one.rows) for one in groups if len(one.rows)} == {"1": 4}


def test_the_most_popular_bucket_is_the_base(log_of, options):
    assert [one.base for one in cold_items.plan(log_of(HISTORIES), options).groups] == ["more than 5"] * 4 + [None]
