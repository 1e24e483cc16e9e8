import dataclasses

import numpy as np
import polars as pl
import pytest

from sr_transformers.data.prepare import prepare
from sr_transformers.evaluation.tasks import time_drift
from sr_transformers.evaluation.tasks.runner import Contestant, run_tasks
from sr_transformers.evaluation.tasks.task import NotRun, TaskOptions, month_length


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """All have A B A B at the times 0 .. 3; validation from 4, test from 6: targets at the times 6, 6, 8, 13."""
    rows = [(user, item, n) for user in range(4) for n, item in enumerate("ABAB")]
    rows += [(0, "A", 6), (1, "B", 6), (2, "A", 8), (2, "B", 9), (3, "A", 13)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    folder = tmp_path_factory.mktemp("drift") / "data"
    return prepare(frame, folder, split="temporal", validation_from=4, test_from=6)


def test_months_and_metrics_by_hand(log, lookup, options, means_of):
    options = dataclasses.replace(options, month=3)
    scorer = lookup(log, {"": {"A": 0.6, "B": 0.4}})
    report = run_tasks([Contestant("lookup", [lambda: scorer])], log, ["time_drift"], options)
    task = report["tasks"]["time_drift"]
    assert [(one["name"], one["num_users"], one["base"]) for one in task["groups"]] == [
        ("month 1", 3, None),
        ("month 3", 1, "month 1"),
    ]
    assert means_of(report, "time_drift", "hr@1") == pytest.approx({"month 1": 2 / 3, "month 3": 1})
    assert task["facts"] == {"month": 3}


def test_why_it_is_not_run(log, prepared):
    found = time_drift.plan(prepared, TaskOptions())
    assert isinstance(found, NotRun)
    assert "leave_one_out has no moment" in found.reason
    found = time_drift.plan(log, TaskOptions())
    assert isinstance(found, NotRun)
    assert "(0 to 13) are not in seconds since 1970" in found.reason


@pytest.mark.parametrize("power", [0, 3, 6, 9])
def test_a_month_in_the_unit_of_the_log(power):
    moments = np.array([956703932, 1046454590]) * 10**power
    assert month_length(moments.tolist(), None) == 2629800 * 10**power
    assert month_length(moments.tolist(), 7) == 7


def test_a_known_unit_is_believed():
    """Microseconds of 1970 look like milliseconds of later years."""
    assert month_length([10**13, 4 * 10**13], None, "us") == 2629800 * 10**6
    assert month_length([0, 13], None, "s") == 2629800
