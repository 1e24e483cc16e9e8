import numpy as np
import pytest

from sr_transformers.evaluation.tasks.findings import FINDINGS, POWER, judge

SMALL, LARGE = (
    {"name": "small", "num_non_embedding_parameters": 10},
    {"name": "large", "num_non_embedding_parameters": 99},
)


def entry(value, low, high):
    return {"value": value, "low": low, "high": high}


def report_of(tasks, models=(SMALL, LARGE, {"name": "popularity"})):
    return {"models": list(models), "tasks": tasks, "protocol": {"confidence": 0.95}}


def task_of(groups, kind, numbers, metric="hr@10"):
    return {
        "groups": [{"name": name} for name in groups],
        "results": [
            {"group": name, "model": "large", kind: {metric: one}} for name, one in zip(groups, numbers, strict=True)
        ],
    }


@pytest.mark.parametrize(
    ("numbers", "verdict"),
    [
        ((0.2, 0.1, 0.3), "holds"),
        ((-0.2, -0.3, -0.1), "reversed"),
        ((0.1, -0.1, 0.3), "open"),
        ((0.1, None, None), "open"),
    ],
)
def test_the_interval_decides(numbers, verdict):
    tail = task_of(["G1 head", "G2 tail"], "gain_over_base", [entry(0, 0, 0), entry(*numbers)])
    found = judge(report_of({"long_tail": tail}))
    assert [(one["task"], one["group"], one["verdict"]) for one in found] == [("long_tail", "G2 tail", verdict)]
    assert found[0]["value"] == numbers[0]


def test_a_difference_that_could_have_been_seen_is_seen_as_often_as_said():
    error, draws = 0.05, np.random.default_rng(0).normal(size=20_000)
    tail = task_of(["G1 head", "G2 tail"], "gain_over_base", [entry(0, 0, 0), entry(0, -1.96 * error, 1.96 * error)])
    smallest = judge(report_of({"long_tail": tail}))[0]["detectable"]
    seen = np.abs(smallest + error * draws) > 1.96 * error
    assert seen.mean() == pytest.approx(POWER, abs=0.01)


def test_without_an_interval_nobody_knows_what_could_have_been_seen():
    tail = task_of(["G1 head", "G2 tail"], "gain_over_base", [entry(0, 0, 0), entry(0.1, None, None)])
    assert judge(report_of({"long_tail": tail}))[0]["detectable"] is None


def test_every_finding_is_read_at_its_group():
    one = entry(0.2, 0.1, 0.3)
    tasks = {
        "long_tail": task_of(["G1 head", "G4 tail"], "gain_over_base", [one] * 2),
        "cold_start": task_of(["last 50", "last 5", "last 50, own users"], "gain_over_base", [one] * 3),
        "multi_domain": task_of(["mix", "diff", "mix, food", "diff, food"], "gain_over_base", [one] * 4),
        "robustness": task_of(["clean", "deleted", "padded"], "change_over_reference", [one] * 3),
        "trajectory": task_of(["autoregressive 10", "step 1", "step 10"], "change_over_reference", [one] * 3),
    }
    found = judge(report_of(tasks))
    assert [one["group"] for one in found] == ["G4 tail", "last 5", "diff", "deleted", "padded", "step 10"]
    assert len(found) == len(FINDINGS)
    assert judge(report_of(tasks), "small") == []


def test_tasks_that_were_not_run_have_no_finding():
    assert judge(report_of({"multi_domain": {"not_run": "no domains"}})) == []


def test_one_model_has_no_finding():
    assert judge(report_of({}, [SMALL])) == []
    assert judge(report_of({}, [{"name": "popularity"}])) == []
