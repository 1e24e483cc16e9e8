"""What a run was evaluated with is what everything serves: on a log whose users come back to items, from a cycle of
four, the next item has always been seen."""

import polars as pl
import pytest
from transformers import AutoConfig, pipeline

from sr_transformers import Recipe, Recommender, Session, prepare, train
from sr_transformers.cli import main
from sr_transformers.data.prepared import PreparedData
from sr_transformers.demo.answers import DemoSession
from sr_transformers.evaluation.evaluator import evaluate
from sr_transformers.evaluation.translation import open_scorer

HISTORY = ["i1", "i2", "i3", "i0", "i1"]  # then i2


@pytest.fixture(scope="module")
def cycle(tmp_path_factory) -> PreparedData:
    rows = [(f"u{user}", f"i{(user + n) % 4}", n) for user in range(60) for n in range(12)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return prepare(frame, tmp_path_factory.mktemp("cycle") / "data")


@pytest.fixture(scope="module")
def run(cycle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cycle") / "run"
    model = {"hidden_size": 16, "num_hidden_layers": 1, "max_position_embeddings": 8, "residual_dropout": 0.0}
    training = {"num_train_epochs": 12, "per_device_train_batch_size": 8, "learning_rate": 1e-2, "warmup_steps": 0}
    recipe = Recipe("tiny", model, {**training, "disable_tqdm": True, "precision": "fp32"})
    return folder, train(recipe, cycle, folder)


def test_what_is_evaluated_is_recommended(run, cycle, capsys):
    folder, record = run
    assert record.reports[0]["metrics"]["hr@1"] == 1.0
    assert AutoConfig.from_pretrained(folder).filter_seen is False
    recommender = Recommender.from_pretrained(folder)
    assert recommender.recommend(HISTORY)[0].item == "i2"
    assert Session(recommender, HISTORY).recommend()[0].item == "i2"
    assert pipeline("next-item", model=str(folder))(HISTORY)[0]["item_id"] == "i2"
    page = DemoSession.load(folder)
    assert page.next_items(HISTORY, 1, page.recommender.exclude_seen)[0].item == "i2"
    assert evaluate(open_scorer(folder, cycle), cycle)["metrics"]["hr@1"] == 1.0
    assert main(["recommend", "--model", str(folder), "--history", *HISTORY, "-k", "1"]) == 0
    assert capsys.readouterr().out.split()[1] == "i2"


def test_an_explicit_choice_wins(run, cycle, capsys):
    folder, _ = run
    recommender = Recommender.from_pretrained(folder)
    assert recommender.recommend(HISTORY, exclude_seen=True) == []
    assert Session(recommender, HISTORY).recommend(exclude_seen=True) == []
    assert pipeline("next-item", model=str(folder))(HISTORY, exclude_seen=True) == []
    assert evaluate(open_scorer(folder, cycle), cycle, filter_seen=True)["protocol"]["filter_seen"] is True
    assert main(["recommend", "--model", str(folder), "--history", *HISTORY, "--seen", "remove"]) == 0
    assert capsys.readouterr().out == ""


def test_evaluation_and_tasks_rank_as_the_run_did(run, cycle, tmp_path, capsys):
    """Also on a log of which one would not guess it."""
    folder, _ = run
    rows = [(f"u{user}", f"i{(user + n) % 4}", n) for user in range(9) for n in range(4)]
    quiet = prepare(pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row"), tmp_path / "quiet")
    assert quiet.filters_seen() is True
    scorer = open_scorer(folder, quiet)
    assert evaluate(scorer, quiet)["protocol"]["filter_seen"] is False
    assert main(["evaluate", "--model", str(folder), "--data", str(quiet.path), "--k", "1"]) == 0
    assert "seen items kept" in capsys.readouterr().out
    assert main(["evaluate", "--model", str(folder), "--data", str(quiet.path), "--k", "1", "--seen", "remove"]) == 0
    assert "seen items removed" in capsys.readouterr().out
    report = ["tasks", "--model", f"m={folder}", "--data", str(cycle.path), "--task", "overall", "--draws", "20"]
    assert main(report) == 0
    assert "user frequency" in capsys.readouterr().out  # the baseline of rankings that keep seen items


def test_a_log_of_other_items_is_refused(run, tmp_path, capsys):
    folder, _ = run
    rows = [(f"u{user}", f"other{(user + n) % 4}", n) for user in range(60) for n in range(12)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    other = prepare(frame, tmp_path / "other")
    assert main(["evaluate", "--model", str(folder), "--data", str(other.path)]) == 2
    assert "knows none of the 4 items" in capsys.readouterr().err
    assert main(["tasks", "--model", str(folder), "--data", str(other.path)]) == 2
    assert "the model's items are not those of" in capsys.readouterr().err
