"""The page and the recipe say what the document holds."""

import re

import pytest
import yaml

from sr_transformers.tuning import storage
from sr_transformers.tuning.figures import draw
from sr_transformers.tuning.report import markdown, recipe_yaml
from sr_transformers.tuning.trials import OF_SEARCH

pytestmark = pytest.mark.usefixtures("drawn")


def trial(number, value, ended=storage.FULL, **changed):
    return {
        "number": number, "name": None, "parameters": {"hidden_size": 64, "learning_rate": 0.001}, "ended": ended,
        "value": value, "epochs": 3.0, "minutes": 2.0, "begun_minutes": 2.0 * number, "error": None,
        "validation": {"1": 0.1, "2": 0.2, "10": 0.3}, "losses": [[1.0, 7.0], [2.0, 6.5]], **changed,
    }  # fmt: skip


@pytest.fixture
def document():
    report = {"model": "lsrm tuned", "metrics": {"hr@10": 0.25, "ndcg@10": 0.125, "mrr": 0.1, "coverage@10": 0.5},
              "protocol": {"filter_seen": True, "split": "test"}}  # fmt: skip
    return {
        "budget": 3600.0, "spent": 3500.0, "best": 1, "kind": "It began with regimes/sparse, because so.",
        "data": {"counts": {"interactions": 1000, "users": 100, "items": 50}, "split": "leave_one_out",
                 "source": {"name": "log<b>.csv"}},
        "plan": {"fraction": 1.0, "targets": 100, "final": 0.0},
        "recipe": {"model": {"hidden_size": 64},
                   "training": {"learning_rate": 1e-5, **OF_SEARCH}},
        "trials": [trial(0, 0.2, name="sparse"), trial(1, 0.31), trial(2, 0.1, storage.PRUNED),
                   trial(3, None, storage.FAILED), trial(4, None, storage.TOO_LONG)],
        "importances": {"hidden_size": 0.75, "learning_rate": 0.25}, "minutes": {"probe": 0.0, "trials": 6.0},
        "reports": [report], "command": "sr-transformers tune log.csv", "version": "0.1.0",
    }  # fmt: skip


@pytest.fixture(autouse=True)
def plain_table(monkeypatch):
    monkeypatch.setattr("sr_transformers.tuning.report.table", lambda reports: f"TABLE OF {len(reports)}")


def test_the_page_counts_what_was_tried(document):
    text = markdown(document, ["score"])
    assert "In 58m of a budget of 1h 4 settings were tried, 1 of them ended early" in text
    assert "1 failed" in text
    assert "**The best is trial 1**, NDCG@10 0.3100 on 100 validation targets: width 64, lr 0.001" in text
    assert "HR@10 0.2500 and NDCG@10 0.1250" in text
    assert "TABLE OF 1" in text
    assert "![score](figures/score.png)" in text
    assert "log&lt;b&gt;.csv" in text
    assert [row[0] for row in re.findall(r"^\| (\d) \| (0\.\d{4})", text, re.MULTILINE)] == ["1", "0", "2"]


def test_a_page_of_many_trials_shows_the_best(document):
    document["trials"] += [trial(number, 0.01 * number) for number in range(5, 20)]
    text = markdown(document, [])
    assert len(re.findall(r"^\| \d+ \| 0\.", text, re.MULTILINE)) == 10
    assert "The best 10 of 18." in text


def test_a_part_of_the_users_is_said(document):
    document["plan"]["fraction"] = 0.25
    assert "Trials trained on 25% of the users, the best one on all of them." in markdown(document, [])


def test_the_recipe_is_without_what_belongs_to_the_search(document):
    text = recipe_yaml(document)
    assert text.startswith("# Trial 1 of a search of 58m: the best of 4 by NDCG@10 of validation (0.3100).\n")
    assert yaml.safe_load(text) == {"model": {"hidden_size": 64}, "training": {"learning_rate": 1e-5}}
    assert "to the end it may be better" not in text
    document["trials"][1]["ended"] = storage.TIME
    assert "# The time was over after 3 of its epochs; to the end it may be better." in recipe_yaml(document)


def test_pictures_are_of_what_there_is(document, tmp_path):
    pytest.importorskip("matplotlib")
    assert draw(document, tmp_path) == ["score", "importance", "learning", "time"]
    text = (tmp_path / "score.svg").read_text()
    for label in ("trained", "pruned", "of the portfolio", "best so far"):
        assert label in text
    assert "cut by the time" not in text
    assert "training loss, nats" in (tmp_path / "learning.svg").read_text()
    assert "width" in (tmp_path / "importance.svg").read_text()
    assert "probe" not in (tmp_path / "time.svg").read_text()
    assert len(list(tmp_path.iterdir())) == 8


def test_without_importances_there_is_no_picture_of_them(document, tmp_path):
    pytest.importorskip("matplotlib")
    document["importances"] = {}
    document["trials"][1]["losses"] = []
    assert draw(document, tmp_path) == ["score", "learning", "time"]
    assert "training loss" not in (tmp_path / "learning.svg").read_text()
