import numpy as np
import pytest

from sr_transformers.evaluation.tasks.summary import summarise
from sr_transformers.evaluation.tasks.task import Group, Outcome, Plan, TaskOptions

OPTIONS = TaskOptions(draws=400)
USERS = np.arange(8)
GROUPS = (
    Group("head", "p", "c", np.arange(4)),
    Group("tail", "p", "c", np.arange(4, 8), "head"),
    Group("nobody", "p", "c", np.arange(0), "head"),
)
PLAN = Plan("A test.", (), GROUPS, ("hr@10", "recall"), {"left_out": 3})


def outcome(values, **more):
    values = {"hr@10": np.asarray(values, float), **{name: np.asarray(one, float) for name, one in more.items()}}
    return {("p", "c"): Outcome(USERS, np.array([[2, 3]] * 4 + [[2, 4]] * 4, np.int32), values)}


@pytest.fixture(scope="module")
def report():
    small = [outcome([0.8, 0.4, 0.6, 0.2, 0.1, 0.3, 0.1, 0.3], loss=[1, 2, 3, np.nan] * 2)]
    # Two seeds, averaged: 0.6 everywhere.
    large = [outcome([0.8] * 4 + [0.7] * 4), outcome([0.4] * 4 + [0.5] * 4)]
    return summarise(PLAN, {"small": small, "large": large}, 6, OPTIONS)


def row(report, group, model):
    return next(one for one in report["results"] if (one["group"], one["model"]) == (group, model))


def test_groups_and_means_by_hand(report):
    assert [(one["name"], one["num_users"]) for one in report["groups"]] == [("head", 4), ("tail", 4), ("nobody", 0)]
    assert report["facts"] == {"left_out": 3}
    assert len(report["results"]) == 4  # nobody has no row
    assert row(report, "head", "small")["metrics"]["hr@10"]["value"] == pytest.approx(0.5)
    assert row(report, "head", "small")["metrics"]["loss"]["value"] == pytest.approx(2)
    assert row(report, "tail", "large")["metrics"]["hr@10"]["value"] == pytest.approx(0.6)
    assert row(report, "tail", "large")["exposure"]["coverage"] == pytest.approx(2 / 4)


def test_comparisons_by_hand(report):
    large = row(report, "tail", "large")
    assert large["difference"]["hr@10"]["value"] == pytest.approx(0.6 - 0.2)
    assert large["relative_gain"]["hr@10"]["value"] == pytest.approx(0.6 / 0.2 - 1)
    assert large["gain_over_base"]["hr@10"]["value"] == pytest.approx((0.6 / 0.2) - (0.6 / 0.5))
    assert large["relative_change"]["hr@10"]["value"] == pytest.approx(0.6 / 0.6 - 1)
    assert large["change_over_reference"]["hr@10"]["value"] == pytest.approx(0 - (0.2 / 0.5 - 1))
    assert large["difference"]["hr@10"]["p"] == pytest.approx(2 / 401)
    assert set(row(report, "head", "small")) == {"group", "model", "metrics", "exposure"}
    assert set(row(report, "tail", "small")) == {"group", "model", "metrics", "exposure", "relative_change"}
    assert set(row(report, "head", "large")) - set(row(report, "head", "small")) == {"difference", "relative_gain"}
    assert "recall" not in large["difference"]  # a headline that this outcome does not have


def test_intervals_hold_both_users_and_seeds(report):
    head = row(report, "head", "large")["metrics"]["hr@10"]
    assert (head["low"], head["high"]) == pytest.approx((0.4, 0.8))  # both draws the same seed: all users alike
    small = row(report, "head", "small")["metrics"]["hr@10"]
    assert 0.2 <= small["low"] < 0.5 < small["high"] <= 0.8


def test_a_model_beside_itself_gains_exactly_nothing():
    values = np.random.default_rng(0).random(8)
    report = summarise(PLAN, {"one": [outcome(values)], "same": [outcome(values)]}, 6, OPTIONS)
    same = row(report, "tail", "same")
    for kind in ("difference", "relative_gain", "gain_over_base", "change_over_reference"):
        entry = same[kind]["hr@10"]
        assert (entry["value"], entry["low"], entry["high"]) == pytest.approx((0, 0, 0), abs=1e-12)
    assert same["difference"]["hr@10"]["p"] == 1


def test_a_base_without_users_leaves_no_comparison_with_it():
    plan = Plan("A test.", (), (GROUPS[1], Group("head", "p", "c", np.arange(0))), ("hr@10",))
    report = summarise(plan, {"one": [outcome(USERS / 8)]}, 6, OPTIONS)
    assert [one["group"] for one in report["results"]] == ["tail"]
    assert "relative_change" not in report["results"][0]
