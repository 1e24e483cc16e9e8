import json
import os
import subprocess
import sys

import pytest

from sr_transformers.cli import main
from sr_transformers.data.logs import synthetic


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """The whole path by command line, on a small log with columns of other names."""
    folder = tmp_path_factory.mktemp("walk")
    log = synthetic.generate(num_users=120, num_items=20, num_successors=2, mean_length=10)
    log.rename({"user_id": "who", "item_id": "what", "timestamp": "when"}).write_csv(folder / "log.csv")
    columns = ["--user-column", "who", "--item-column", "what", "--timestamp-column", "when"]
    assert main(["prepare", str(folder / "log.csv"), "--output", str(folder / "data"), *columns]) == 0
    (folder / "tiny.yaml").write_text(
        "model:\n  hidden_size: 16\n  num_hidden_layers: 1\n  max_position_embeddings: 8\n"
        "training:\n  num_train_epochs: 9\n  disable_tqdm: true\n"
    )
    arguments = ["--data", str(folder / "data"), "--output", str(folder / "run"), "--num-train-epochs", "1", "--seed=5"]
    assert main(["train", str(folder / "tiny.yaml"), *arguments]) == 0
    return folder


def test_train_takes_overrides(walked):
    record = json.loads((walked / "run" / "run.json").read_text())
    assert record["epochs"] == 1
    assert record["seed"] == 5


def test_prepare_tells_what_it_found(walked, capsys):
    columns = ["--user-column", "who", "--item-column", "what", "--timestamp-column", "when"]
    arguments = ["--output", str(walked / "again"), *columns, "--split", "temporal", "--min-interactions", "2"]
    assert main(["prepare", str(walked / "log.csv"), *arguments]) == 0
    out = capsys.readouterr().out
    assert "temporal" in out
    assert "test targets outside vocabulary" in out


def test_evaluate_hands_precision_and_compilation_to_the_scorer(walked, monkeypatch, capsys):
    from sr_transformers.evaluation import translation

    asked, plain = [], translation.ModelScorer

    def spy(model, **options):
        asked.append({name: options.pop(name) for name in ("bf16", "compile")})
        return plain(model, **options)

    monkeypatch.setattr(translation, "ModelScorer", spy)
    arguments = ["evaluate", "--model", str(walked / "run"), "--data", str(walked / "data"), "--k", "5"]
    assert main(arguments) == 0
    assert main([*arguments, "--bf16", "--compile"]) == 0
    assert asked == [{"bf16": False, "compile": False}, {"bf16": True, "compile": True}]
    capsys.readouterr()


def test_evaluate_prints_the_protocol_and_all_models(walked, capsys):
    arguments = ["--model", str(walked / "run"), "--data", str(walked / "data"), "--json", str(walked / "reports.json")]
    assert main(["evaluate", *arguments, "--k", "5", "--seen", "remove"]) == 0
    out = capsys.readouterr().out
    assert "full ranking over 20 items, seen items removed, ties against the model, 120 targets" in out
    for model in ("run", "popularity", "user frequency", "markov", "recent popularity", "mix"):
        assert model in out
    reports = json.loads((walked / "reports.json").read_text())
    assert [len(reports), "hr@5" in reports[0]["metrics"]] == [6, True]
    assert "run less mix, paired, ± standard error over users: hr@10 " in out
    assert [one["model"] for one in reports if "against_mix" in one] == ["run"]


def test_recommend_prints_items(walked, capsys):
    assert main(["recommend", "--model", str(walked / "run"), "--history", "3", "4", "-k", "2"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 2
    assert lines[0].split()[0] == "1"


def test_finetune_carries_a_checkpoint_over(walked, capsys):
    log = synthetic.generate(num_users=80, num_items=20, num_successors=2, mean_length=10, seed=2)
    log.with_columns(log["item_id"] + 5).write_csv(walked / "later.csv")  # items 5 .. 24, so 15 known and 5 new
    assert main(["prepare", str(walked / "later.csv"), "--output", str(walked / "later")]) == 0
    arguments = ["--model", str(walked / "run"), "--data", str(walked / "later"), "--output", str(walked / "finetuned")]
    options = ["--freeze", "body", "--init", "mean", "--num-train-epochs", "1"]
    assert main(["finetune", str(walked / "tiny.yaml"), *arguments, *options]) == 0
    out = capsys.readouterr().out
    assert "items: 15 known, 5 new, 5 dropped" in out
    assert "| lsrm tiny |" in out
    origin = json.loads((walked / "finetuned" / "run.json").read_text())["recipe"]["origin"]
    assert (origin["freeze"], origin["init"], origin["old_items"]) == ("body", "mean", "drop")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "nowhere.csv", "--output", "x"], "nowhere.csv: no such file"),
        (["train", "nowhere.yaml", "--data", "x", "--output", "y"], "nowhere.yaml: no such recipe"),
        (["evaluate", "--data", "nowhere"], "nowhere is not a prepared folder"),
    ],
)
def test_mistakes_are_one_line_and_code_2(arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


def test_recipe_options_must_be_pairs(walked, capsys):
    assert main(["train", str(walked / "tiny.yaml"), "--data", "x", "--output", "y", "--seed"]) == 2
    assert "--key value" in capsys.readouterr().err


def test_other_commands_refuse_unknown_options(capsys):
    with pytest.raises(SystemExit):
        main(["recommend", "--model", "x", "--history", "1", "--colour", "red"])
    assert "--colour" in capsys.readouterr().err


def test_a_model_of_none_of_the_items_is_refused(walked, prepared, capsys):
    assert main(["evaluate", "--model", str(walked / "run"), "--data", str(prepared.path)]) == 2
    assert "knows none of the 10 items of" in capsys.readouterr().err


def test_it_is_installed_as_a_command():
    command = os.path.join(os.path.dirname(sys.executable), "sr-transformers")
    result = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=60)
    assert result.stdout.startswith("sr-transformers ")
