import dataclasses
import importlib.util
import re

import pytest

from sr_transformers import Recipe, train
from sr_transformers.evaluation.evaluator import table
from sr_transformers.training.run_report import time_rows, write_report

pytestmark = pytest.mark.usefixtures("drawn")
REPORTS = [
    {"model": "lsrm x", "seconds": 60.0, "metrics": {"hr@10": 0.31, "ndcg@10": 0.17, "loss": 5.5}},
    {"model": "popularity", "seconds": 30.0, "metrics": {"hr@10": 0.1, "ndcg@10": 0.05}},
    {"model": "mix", "seconds": 90.0, "metrics": {"hr@10": 0.2, "ndcg@10": 0.1, "loss": 6.1}},
]


@pytest.fixture(scope="module")
def trained(markov_prepared, tmp_path_factory):
    model = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 8}
    recipe = Recipe("tiny", model, {"max_steps": 1, "disable_tqdm": True, "precision": "fp32"})
    folder = tmp_path_factory.mktemp("run") / "run"
    return train(recipe, markov_prepared, folder), folder


@pytest.fixture
def record(trained):
    found = trained[0]
    reports = [{**found.reports[0], **one} for one in REPORTS]
    history = [{"step": n, "epoch": n, "loss": 6.0 - n, "eval_loss": 6.1 - n, "eval_runtime": 12.0} for n in (1, 2, 3)]
    return dataclasses.replace(found, reports=reports, history=history, seconds=636.0, steps=3, best_step=2, epochs=3.0)


def test_the_time_of_a_run_is_told_apart(record):
    assert time_rows(record) == [
        ("training", "10.00"),
        ("validation", "0.60"),
        ("test targets", "1.00"),
        ("baselines on the test targets", "2.00"),
    ]


def test_weights_that_nothing_chose_are_not_called_best(record, tmp_path):
    assert "which validated best" in write_report(record, tmp_path).read_text()
    last = dataclasses.replace(record, recipe={**record.recipe, "training": {"load_best_model_at_end": False}})
    for one in (last, dataclasses.replace(record, validation={})):
        assert "the weights are those of step 2 of 3.\n" in write_report(one, tmp_path).read_text()


def test_the_report_shows_results_pictures_and_the_command(record, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra figures")
    text = write_report(record, tmp_path).read_text()
    assert "| lsrm x | 0.3100 | 0.1700 |" in text
    assert record.command in text
    pictures = re.findall(r"!\[.*\]\((.*)\)", text)
    assert len(pictures) == 2
    assert all((tmp_path / picture).stat().st_size > 5_000 for picture in pictures)
    svg = (tmp_path / "figures" / "beside_baselines.svg").read_text()
    assert all(word in svg for word in ("lsrm x", "popularity", "mix", "0.310"))
    first = (tmp_path / "figures" / "learning_curve.svg").read_text()
    write_report(dataclasses.replace(record, history=[*record.history, {"step": 3, "eval_loss": 9.0}]), tmp_path)
    assert (tmp_path / "figures" / "learning_curve.svg").read_text() != first


def test_without_matplotlib_the_report_has_no_pictures(record, tmp_path, monkeypatch, recwarn):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else found(name))
    assert "![" not in write_report(record, tmp_path).read_text()
    assert not list((tmp_path / "figures").glob("*"))
    assert not recwarn.list


def test_a_training_writes_it(trained):
    record, folder = trained
    assert table(record.reports) in (folder / "report.md").read_text()
