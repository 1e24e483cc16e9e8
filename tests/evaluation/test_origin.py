"""A model's numbers on a log mean nothing if its training has seen what the log holds out."""

import json

import polars as pl
import pytest

from sr_transformers import Recipe, prepare, train
from sr_transformers.cli import main
from sr_transformers.data.logs import synthetic
from sr_transformers.evaluation.loading import Checkpoint
from sr_transformers.evaluation.origin import check_origin, split_of
from sr_transformers.evaluation.significance import check_run


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """One log by two splits, and the log a little later, when it has more users."""
    folder = tmp_path_factory.mktemp("logs")
    rows = synthetic.generate(num_users=80, num_items=20, num_successors=3, mean_length=10)
    more = rows.with_columns(pl.col("user_id") + 1000)
    return {
        "last": prepare(rows, folder / "last"),
        "time": prepare(rows, folder / "time", split="temporal"),
        "grown": prepare(pl.concat([rows, more]), folder / "grown"),
    }


@pytest.fixture(scope="module")
def run(logs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    model = {"hidden_size": 8, "num_hidden_layers": 1, "max_position_embeddings": 6}
    train(Recipe("tiny", model, {"num_train_epochs": 1}), logs["last"], folder, with_baselines=False)
    return folder


def test_another_split_of_the_same_interactions_is_refused(logs, run, capsys):
    step = next(run.glob("checkpoint-*"))
    for path in (run, step):
        assert check_origin(Checkpoint(path), logs["last"]) is None
        with pytest.raises(ValueError, match=r"split leave_one_out of these interactions.*has temporal"):
            check_origin(Checkpoint(path), logs["time"])
        with pytest.raises(ValueError, match="tested by another protocol"):
            check_run(path, logs["time"], filter_seen=False)
    for command in ("evaluate", "compare"):
        models = ["--model", str(run)] if command == "evaluate" else [str(run), str(step)]
        assert main([command, *models, "--data", str(logs["time"].path)]) == 2
        assert "its training may have seen what is held out here" in capsys.readouterr().err


def test_the_same_moments_are_the_same_split_however_they_were_given(tmp_path):
    base, dates = 1_700_000_000, pl.from_epoch(pl.Series([1_700_000_000])).dt
    rows = pl.DataFrame({"user_id": [n % 9 for n in range(90)], "item_id": [n % 7 for n in range(90)],
                         "timestamp": [base + 86_400 * n for n in range(90)]})  # fmt: skip
    number, text = base + 86_400 * 80, dates.offset_by("80d").dt.strftime("%Y-%m-%dT%H:%M:%S")[0]
    folders = []
    for name, cut in (("number", number), ("text", text)):
        folders.append(prepare(rows, tmp_path / name, split="temporal", time_unit="s", test_from=cut,
                               validation_from=base + 86_400 * 60))  # fmt: skip
    one, other = (data.manifest for data in folders)
    assert one["split_parameters"] != other["split_parameters"]
    assert split_of(one) == split_of(other)
    assert split_of(one) != split_of({**other, "counts": {**other["counts"], "test_from": number + 1}})


def test_of_other_interactions_it_is_told(logs, run, tmp_path, capsys):
    assert (
        main(["evaluate", "--model", str(run), "--data", str(logs["grown"].path), "--json", str(tmp_path / "r")]) == 0
    )
    count = f"{logs['last'].manifest['counts']['interactions']:,} interactions"
    shown = capsys.readouterr().out
    assert f"was trained on another prepared log (frame, split leave_one_out, {count})" in shown
    report = json.loads((tmp_path / "r").read_text())[0]
    assert report["trained_on"]["split"] == "leave_one_out"
    assert main(["evaluate", "--model", str(run), "--data", str(logs["last"].path)]) == 0
    assert "another prepared log" not in capsys.readouterr().out


def test_without_a_record_nothing_is_said(logs, run):
    (run / "run.json").rename(run / "hidden")
    try:
        assert check_origin(Checkpoint(run), logs["time"]) is None
    finally:
        (run / "hidden").rename(run / "run.json")
