"""Beside the card: the learning curve, from the record and never over one that is there, and `.eval_results/`."""

import dataclasses
import importlib.util
import shutil

import pytest
import yaml
from huggingface_hub import parse_eval_result_entries

from sr_transformers import CardOptions, RunRecord, publish
from sr_transformers.hub.curve import _points, draw_curve
from sr_transformers.hub.eval_results import eval_results
from sr_transformers.hub.publish import build

pytestmark = pytest.mark.usefixtures("drawn")


@pytest.fixture
def record(finished_run):
    return RunRecord.load(finished_run)


def several(record):
    """As if it had been trained for three epochs."""
    history = [{"step": step, "eval_loss": 4.0 - step, "loss": 4.1 - step} for step in (1, 2, 3)]
    return dataclasses.replace(record, history=history, steps=3, epochs=6.0, best_step=3, switched_at=2)


def test_points_are_epochs_and_nats(record):
    assert _points(several(record), "eval_loss") == [(2.0, 3.0), (4.0, 2.0), (6.0, 1.0)]


def test_a_curve_is_drawn_once_and_the_same_twice(record, tmp_path):
    pytest.importorskip("matplotlib")
    for name in ("a", "b"):
        draw_curve(several(record), tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["learning_curve.png", "learning_curve.svg"]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    text = (tmp_path / "a" / "learning_curve.svg").read_text()
    assert all(word in text for word in ("training", "validation", "weights kept", "Adam to SGD", "nats"))
    (tmp_path / "a" / "learning_curve.png").unlink()
    (tmp_path / "a" / "learning_curve.svg").write_text("of the run")
    draw_curve(several(record), tmp_path / "a")
    assert (tmp_path / "a" / "learning_curve.svg").read_text() == "of the run"
    assert not (tmp_path / "a" / "learning_curve.png").exists()


def test_one_loss_is_no_curve(record, tmp_path):
    draw_curve(dataclasses.replace(record, history=[{"step": 1, "eval_loss": 1.0}]), tmp_path / "figures")
    assert not (tmp_path / "figures").exists()


def test_without_matplotlib_there_is_none_and_it_is_said(record, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else found(name))
    with pytest.warns(UserWarning, match=r"no learning curve, because matplotlib is not installed"):
        draw_curve(several(record), tmp_path / "figures")
    assert not (tmp_path / "figures").exists()


def test_the_repository_shows_it(record, finished_run, tmp_path):
    pytest.importorskip("matplotlib")
    run = shutil.copytree(finished_run, tmp_path / "run")
    several(record).save(run)
    folder = build(run, tmp_path / "out", "org/name")
    assert (folder / "figures" / "learning_curve.png").exists()
    card = (folder / "README.md").read_text()
    assert card.count("![learning curve](figures/learning_curve.png)") == 1
    assert card.index("## Training") < card.index("![learning curve]") < card.index("## Results")


def test_results_are_entries_that_the_client_reads(record, finished_run, tmp_path):
    report = record.reports[0]
    text = eval_results(record, "org/events")
    entries = parse_eval_result_entries(yaml.safe_load(text))
    assert {one.task_id.replace("_at_", "@"): one.value for one in entries} == {
        name: report["metrics"][name] for name in ("hr@10", "ndcg@10", "mrr", "coverage@10", "loss")
    }
    assert {one.dataset_id for one in entries} == {"org/events"}
    assert {one.date for one in entries} == {record.started}
    assert all("full ranking over" in one.notes for one in entries)
    folder = build(finished_run, tmp_path / "with", "org/name", CardOptions(dataset="org/events"))
    assert (folder / ".eval_results" / "next_item.yaml").read_text() == text


def test_a_data_set_that_is_not_on_the_hub_has_none(record, finished_run, tmp_path):
    assert eval_results(record, None) is None
    assert eval_results(record, "events") is None
    assert not (build(finished_run, tmp_path / "without", "org/name") / ".eval_results").exists()


def test_they_are_sent_and_go_when_they_are_no_more(finished_run, hub):
    publish(finished_run, "org/name", CardOptions(dataset="org/events"))
    assert ".eval_results/next_item.yaml" in hub.model("org/name").files()
    publish(finished_run, "org/name")
    assert ".eval_results/next_item.yaml" not in hub.model("org/name").files()
