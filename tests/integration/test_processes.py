"""What only whole processes can show: a run killed at any moment, and a run on two processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sr_transformers import LSRMConfig, LSRMForCausalLM, Recipe, RunRecord, train

ROOT = Path(__file__).parents[2]
RECIPE = """
model: {hidden_size: 16, num_hidden_layers: 1, max_position_embeddings: 8, embedding_dropout: %s, residual_dropout: %s,
        history: [items, baskets, clock, mix]}
training: {num_train_epochs: 6, per_device_train_batch_size: %d, learning_rate: 1e-2, precision: fp32,
           disable_tqdm: true, logging_steps: 1, metric_for_best_model: hr@50, patience: 2}
"""
pytestmark = pytest.mark.slow


def launched(arguments):
    """What two processes print."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def assert_same_end(one, other):
    """The last weights of two runs (not those kept: the best may be from before the runs could differ), bit by bit."""
    steps = RunRecord.load(one).steps
    assert RunRecord.load(other).steps == steps
    first, second = (load_file(folder / f"checkpoint-{steps}" / "model.safetensors") for folder in (one, other))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert losses(one) == losses(other)


def losses(output):
    return [entry["loss"] for entry in RunRecord.load(output).history if "loss" in entry]


def recipe(folder, name, dropout, rows):
    path = folder / f"{name}.yaml"
    path.write_text(RECIPE % (dropout, dropout, rows))
    return path


def test_killed_at_any_moment_a_run_ends_with_the_same_weights(markov_prepared, tmp_path, warm):
    command = ["train", str(recipe(tmp_path, "one", 0.1, 8)), "--data", str(markov_prepared.path), "--output"]
    code, _, err = warm.run([*command, "whole"], tmp_path)
    assert code == 0, err
    # Kill as soon as some file of the run appears, three times further and further on: while the first checkpoint is
    # written, between checkpoints, and after the switch of optimizers.
    for sign in ("checkpoint-*/model.safetensors", "checkpoint-*/COMPLETE", "checkpoint-*/trainer_state.json"):
        code, _, err = warm.run([*command, "part"], tmp_path, until=f"part/{sign}")
        assert code == -signal.SIGKILL, err
    assert not (tmp_path / "part" / "run.json").exists(), "the run was over before it was killed"
    code, _, err = warm.run([*command, "part"], tmp_path)
    assert code == 0, err
    assert_same_end(tmp_path / "whole", tmp_path / "part")


TWO_PROCESSES = ("-m", "accelerate.commands.launch", "--config_file", str(ROOT / "recipes/accelerate/cpu.yaml"),
                 "--main_process_port", "0")  # fmt: skip


def train_on_two(data, folder, recipes, *program):
    """Trains recipes one after the other, each into the folder of its name, and then runs a program."""
    jobs = [{"recipe": str(path), "output": str(folder / path.stem)} for path in recipes]
    (folder / "jobs.json").write_text(json.dumps({"data": str(data.path), "jobs": jobs}))
    said = launched([*TWO_PROCESSES, Path(__file__).with_name("several_trainings.py"), folder / "jobs.json", *program])
    notes = [json.loads((folder / f"jobs.{process}.json").read_text()) for process in range(2)]
    assert [note["error"] for one in notes for note in one.values()] == [None] * 2 * len(recipes)
    return said


@pytest.fixture(scope="module")
def two(markov_prepared, tmp_path_factory):
    """Runs of two processes: one without dropout, and one with, that is gone on with in another test."""
    folder = tmp_path_factory.mktemp("two")
    recipes = [recipe(folder, "smooth", 0.0, 8), recipe(folder, "whole", 0.1, 8)]
    train_on_two(markov_prepared, folder, recipes)
    return folder


def test_two_processes_give_the_loss_curve_of_one(two, markov_prepared, tmp_path):
    train(Recipe.load(recipe(tmp_path, "one", 0.0, 16)), markov_prepared, tmp_path / "one", with_baselines=False)
    record, alone = RunRecord.load(two / "smooth"), RunRecord.load(tmp_path / "one")
    assert record.hardware["processes"] == 2
    assert losses(two / "smooth") == pytest.approx(losses(tmp_path / "one"), abs=2e-3)
    first, second = ([h["eval_loss"] for h in one.history if "eval_loss" in h] for one in (alone, record))
    assert first == pytest.approx(second, abs=2e-3)
    assert record.num_interactions_seen == alone.num_interactions_seen


def test_two_processes_resume_exactly_and_exchange_the_rows_that_they_touch(two, markov_prepared, tmp_path):
    record = RunRecord.load(two / "whole")
    assert record.switched_at is not None
    # What is left of a run that died right after its switch to SGD.
    part = tmp_path / "part"
    part.mkdir()
    shutil.copy(two / "whole" / "settings.json", part)
    for folder in (two / "whole").glob("checkpoint-*"):
        state = json.loads((folder / "trainer_state.json").read_text())
        if state["global_step"] <= record.switched_at:
            shutil.copytree(folder, part / folder.name)
    rows = (Path(__file__).with_name("row_updates.py"), markov_prepared.path, tmp_path / "rows")
    said = train_on_two(markov_prepared, tmp_path, [recipe(tmp_path, "part", 0.1, 8)], *rows)
    assert_same_end(two / "whole", part)
    assert said.count("agrees") == 2


BLOCKS = (
    {},
    {"position": "rotary", "norm": "rms", "hidden_act": "swiglu", "residual": "gated", "head": "scaled"},
    {"position": "relative", "hidden_act": "swiglu", "head": "normalised"},
)


def test_two_processes_share_a_model_by_its_tensor_parallel_plan(tmp_path):
    folders = [tmp_path / str(n) for n in range(len(BLOCKS))]
    for folder, blocks in zip(folders, BLOCKS, strict=True):
        config = LSRMConfig(vocab_size=20, hidden_size=16, num_hidden_layers=2, **blocks)
        LSRMForCausalLM(config).save_pretrained(folder)
    script = Path(__file__).with_name("tensor_parallel.py")
    said = launched(["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2, script, *folders])
    assert [said.count(f"agrees on {folder}") for folder in folders] == [2, 2, 2]


STUDY = """
name: two
data: %s
settings: {max_position_embeddings: 8, row_width: 8, per_device_train_batch_size: 8, switch_optimizer: false}
sizes: {s: [1, 8, 1], m: [1, 16, 1]}
blocks:
  main: {sizes: [s, m], fractions: [{users: 0.5}], epochs: [1], seeds: [1]}
"""


def test_a_study_on_two_processes_does_every_run_once_with_both(markov_prepared, tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY % markov_prepared.path)
    script = ROOT / "recipes" / "scaling.py"
    said = launched([*TWO_PROCESSES, script, tmp_path / "study.yaml", "--output", tmp_path / "out"])
    lines = [line for line in said.splitlines() if "ndcg@10" in line]
    assert [line.split()[0] for line in lines] == ["1/2", "2/2"]  # said by one of the two processes
    for record in sorted((tmp_path / "out" / "runs").glob("*/run.json")):
        assert json.loads(record.read_text())["hardware"]["processes"] == 2
