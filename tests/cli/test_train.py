"""What `train` refuses: exit code 2, one line that names the key or file, and nothing left behind."""

import json
import re
import shutil

import pytest

from sr_transformers.cli import main

RECIPE = """
model: {hidden_size: 16, num_hidden_layers: 1, max_position_embeddings: 8}
training: {max_steps: 4, eval_strategy: steps, save_strategy: steps, eval_steps: 2, save_steps: 2, disable_tqdm: true,
           precision: fp32}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(RECIPE)
    return path


def command(recipe, data, output, *more):
    return ["train", str(recipe), "--data", str(data.path), "--output", str(output), *more]


REFUSED = [
    ("--num_train_epochs -1 --max_steps -1", "num_train_epochs is -1"),
    ("--num_train_epochs 0 --max_steps -1", "num_train_epochs is 0"),
    ("--per_device_train_batch_size 0", "per_device_train_batch_size is 0"),
    ("--learning_rate .nan", "learning_rate is nan"),
    ("--learning_rate -1.0", "learning_rate is -1.0"),
    ("--sgd_momentum -3", "sgd_momentum is -3"),
    ("--max_steps 0", "max_steps is 0"),
    ("--max_steps -7", "max_steps is -7"),
    ("--gradient_accumulation_steps 0", "gradient_accumulation_steps is 0"),
    ("--row_width 0", "row_width is 0"),
    ("--num_negatives 10000000000", "num_negatives is 10000000000, but the log has 30 items"),
    ("--num_negatives 10 --negative_power .nan", "negative_power is nan"),
    ("--hidden_size 100000000 --num_attention_heads 1", "hidden_size is 100000000"),
    ("--hidden_size 131072 --num_hidden_layers 1000", "GiB of memory"),
    ("--dataloader_num_workers -1", "dataloader_num_workers is -1"),
    ("--logging_steps -1", "logging_steps is -1"),
    ("--max_grad_norm .nan", "max_grad_norm is nan"),
    ("--weight_decay .nan", "weight_decay is nan"),
    ("--push_to_hub true", "push_to_hub needs hub_model_id"),
    ("--hidden_act x", "hidden_act is 'x'"),
    ("--initializer_range .nan", "initializer_range is nan"),
    ("--num_hidden_layers 1000000000", "num_hidden_layers is 1000000000"),
    ("--pad_token_id 7", "pad_token_id is 7"),
    ("--pad_token_id 1000000000", "pad_token_id is 1000000000"),
    ("--auto_find_batch_size true", "auto_find_batch_size is True, which is not supported"),
    ("--train_sampling_strategy group_by_length", "train_sampling_strategy is 'group_by_length'"),
    ("--resume_from_checkpoint nope", "resume_from_checkpoint is 'nope'.* goes on by itself"),
    ("--metric_for_best_model hr@7", "metric_for_best_model is 'hr@7'"),
    ("--seed 1 --seed 2", "--seed is given twice"),
    ("--learning-rate 1 --learning_rate 2", "--learning_rate is given twice"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[words for words, _ in REFUSED])
def test_a_wrong_value_is_one_line_and_leaves_nothing(recipe, markov_prepared, tmp_path, capsys, words, message):
    assert main(command(recipe, markov_prepared, tmp_path / "deep" / "run", *words.split())) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert re.search(f"^sr-transformers train: .*{message}", lines[0])
    assert list(tmp_path.iterdir()) == []


def test_a_warm_up_longer_than_the_run_is_told_in_one_line(recipe, markov_prepared, tmp_path, capsys):
    assert main(command(recipe, markov_prepared, tmp_path / "run", "--warmup_steps", "40")) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "warmup" in line]
    assert line.startswith("sr-transformers train: warmup_steps is 40, but the run has 4 steps: it never reaches")


def test_what_stands_in_the_file_may_be_read_by_nothing(recipe, markov_prepared, tmp_path):
    left = recipe.read_text().replace(
        "{max_steps", "{sgd_momentum: 0.5, adam_beta2: 0.9, negative_power: 1.0, max_steps"
    )
    (tmp_path / "left.yaml").write_text(left)
    words = ["--switch_optimizer", "false", "--optim", "sgd", "--lr_scheduler_type", "constant"]
    assert main(command(tmp_path / "left.yaml", markov_prepared, tmp_path / "run", *words)) == 0


def test_a_run_without_validation_is_a_run(recipe, markov_prepared, tmp_path):
    off = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": "false", "max_steps": "2"}
    words = [word for key, value in off.items() for word in (f"--{key}", value)]
    assert main(command(recipe, markov_prepared, tmp_path / "run", *words)) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["steps"], record["validation"]) == (2, {})


@pytest.fixture(scope="module")
def interrupted(recipe, markov_prepared, tmp_path_factory):
    """What a run leaves that is killed after its first checkpoint."""
    folder = tmp_path_factory.mktemp("interrupted") / "run"
    assert main(command(recipe, markov_prepared, folder)) == 0
    for path in [*folder.iterdir()]:
        if path.name not in ("checkpoint-2", "settings.json"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder


FILES = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "model.safetensors", "config.json")


@pytest.mark.parametrize("name", FILES)
def test_a_run_does_not_go_on_from_a_checkpoint_that_was_changed(
    interrupted, recipe, markov_prepared, tmp_path, capsys, name
):
    run = shutil.copytree(interrupted, tmp_path / "run")
    for damage in (lambda path: path.write_bytes(path.read_bytes()[:-1]), lambda path: path.unlink()):
        damage(run / "checkpoint-2" / name)
        assert main(command(recipe, markov_prepared, run)) == 2
        assert re.search(rf"checkpoint-2/{name} (is missing|was changed)", capsys.readouterr().err)
    assert not (run / "run.json").exists()
    shutil.rmtree(run / "checkpoint-2")  # as the message says: there is none before it, so the run begins anew
    assert main(command(recipe, markov_prepared, run)) == 0
    assert json.loads((run / "run.json").read_text())["steps"] == 4


@pytest.mark.parametrize("words", [["auto"], []], ids=["auto", "none"])
def test_without_a_recipe_the_log_decides_and_the_record_says_why(words, prepared, tmp_path, capsys):
    more = ["--max_steps", "1", "--hidden_size=16", "--disable_tqdm", "true"]
    assert main(["train", *words, *more, "--data", str(prepared.path), "--output", str(tmp_path / "run")]) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    because = capsys.readouterr().out.splitlines()[0]
    assert because.startswith("auto takes regimes/sparse, because histories are short, 6.3 interactions per user")
    assert (record["name"], record["recipe"]["chosen"]) == ("sparse", because)
    assert record["recipe"]["model"]["hidden_size"] == 16
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["chosen"] == because


def test_the_recipe_may_stand_anywhere(recipe, markov_prepared, tmp_path):
    words = ["train", "--max_steps=2", "--data", str(markov_prepared.path), str(recipe)]
    assert main([*words, "--output", str(tmp_path / "run"), "--seed", "3"]) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["name"], record["steps"], record["seed"]) == ("tiny", 2, 3)
    assert "chosen" not in record["recipe"]


def test_two_recipes_are_refused(recipe, markov_prepared, tmp_path, capsys):
    assert main(command(recipe, markov_prepared, tmp_path / "run", "sparse")) == 2
    assert "options of the recipe come as --key value; cannot read 'sparse'" in capsys.readouterr().err
