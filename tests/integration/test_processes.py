"""What only whole processes can show: a run killed at any moment, and a run on two processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sr_transformers import LSRMConfig, LSRMForCausalLM, RunRecord

ROOT = Path(__file__).parents[2]
TRAIN = ROOT / "recipes" / "train.py"
RECIPE = """
model: {hidden_size: 16, num_hidden_layers: 1, max_position_embeddings: 8, embedding_dropout: %s, residual_dropout: %s}
training: {num_train_epochs: 6, per_device_train_batch_size: %d, learning_rate: 1e-2, precision: fp32,
           disable_tqdm: true, logging_steps: 1, metric_for_best_model: hr@50, patience: 2}
"""
pytestmark = pytest.mark.slow


def command(data, output, recipe, launch=()):
    return [sys.executable, *launch, str(TRAIN), str(recipe), "--data", str(data.path), "--output", str(output)]


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def run(arguments):
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=300, env=environment())
    assert result.returncode == 0, result.stderr[-3000:]


def assert_same_end(one, other):
    """The last weights of two runs (not those kept: the best may be from before the runs could differ), bit by bit."""
    steps = RunRecord.load(one).steps
    assert RunRecord.load(other).steps == steps
    first, second = (load_file(folder / f"checkpoint-{steps}" / "model.safetensors") for folder in (one, other))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert losses(one) == losses(other)


def losses(output):
    return [entry["loss"] for entry in RunRecord.load(output).history if "loss" in entry]


def test_killed_at_any_moment_a_run_ends_with_the_same_weights(markov_prepared, tmp_path):
    recipe = tmp_path / "one.yaml"
    recipe.write_text(RECIPE % (0.1, 0.1, 8))
    run(command(markov_prepared, tmp_path / "whole", recipe))
    # Kill as soon as some file of the run appears, three times further and further on: while the first checkpoint is
    # written, between checkpoints, and after the switch of optimizers.
    for sign in ("checkpoint-*/model.safetensors", "checkpoint-*/COMPLETE", "checkpoint-*/trainer_state.json"):
        already = set((tmp_path / "part").glob(sign))
        process = subprocess.Popen(
            command(markov_prepared, tmp_path / "part", recipe),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )
        deadline = time.monotonic() + 120
        while set((tmp_path / "part").glob(sign)) <= already and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "part" / "run.json").exists(), "the run was over before it was killed"
    run(command(markov_prepared, tmp_path / "part", recipe))
    assert_same_end(tmp_path / "whole", tmp_path / "part")


TWO_PROCESSES = ("-m", "accelerate.commands.launch", "--config_file", str(ROOT / "recipes/accelerate/cpu.yaml"),
                 "--main_process_port", "0")  # fmt: skip


def test_two_processes_give_the_loss_curve_of_one(markov_prepared, tmp_path):
    for name, rows in (("one", 16), ("two", 8)):
        (tmp_path / f"{name}.yaml").write_text(RECIPE % (0.0, 0.0, rows))
    run(command(markov_prepared, tmp_path / "one", tmp_path / "one.yaml"))
    run(command(markov_prepared, tmp_path / "two", tmp_path / "two.yaml", TWO_PROCESSES))
    record = RunRecord.load(tmp_path / "two")
    assert record.hardware["processes"] == 2
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=2e-3)
    one, two = (
        [h["eval_loss"] for h in RunRecord.load(tmp_path / n).history if "eval_loss" in h] for n in ("one", "two")
    )
    assert one == pytest.approx(two, abs=2e-3)
    assert record.num_interactions_seen == RunRecord.load(tmp_path / "one").num_interactions_seen


def test_two_processes_resume_exactly(markov_prepared, tmp_path):
    recipe = tmp_path / "two.yaml"
    recipe.write_text(RECIPE % (0.1, 0.1, 8))
    run(command(markov_prepared, tmp_path / "whole", recipe, TWO_PROCESSES))
    record = RunRecord.load(tmp_path / "whole")
    assert record.switched_at is not None
    # What is left of a run that died right after its switch to SGD.
    part = tmp_path / "part"
    part.mkdir()
    (part / "settings.json").write_text((tmp_path / "whole" / "settings.json").read_text())
    for folder in (tmp_path / "whole").glob("checkpoint-*"):
        state = json.loads((folder / "trainer_state.json").read_text())
        if state["global_step"] <= record.switched_at:
            folder.rename(part / folder.name)
    run(command(markov_prepared, part, recipe, TWO_PROCESSES))
    assert_same_end(tmp_path / "whole", part)


def test_two_processes_exchange_the_rows_that_they_touch(markov_prepared, tmp_path):
    script = str(Path(__file__).with_name("row_updates.py"))
    arguments = [sys.executable, *TWO_PROCESSES, script, str(markov_prepared.path), str(tmp_path / "runs")]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=300, env=environment())
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("agrees") == 2


@pytest.mark.parametrize(
    "blocks",
    [
        {},
        {"position": "rotary", "norm": "rms", "hidden_act": "swiglu", "residual": "gated", "head": "scaled"},
        {"position": "relative", "hidden_act": "swiglu", "head": "normalised"},
    ],
    ids=["paper", "rotary with all", "relative"],
)
def test_two_processes_share_a_model_by_its_tensor_parallel_plan(blocks, tmp_path):
    config = LSRMConfig(vocab_size=20, hidden_size=16, num_hidden_layers=2, **blocks)
    LSRMForCausalLM(config).save_pretrained(tmp_path)
    script = str(Path(__file__).with_name("tensor_parallel.py"))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", script, str(tmp_path)]
    result = subprocess.run([sys.executable, *launch], capture_output=True, text=True, timeout=300, env=environment())
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("agrees") == 2


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
    script = [sys.executable, *TWO_PROCESSES, str(ROOT / "recipes" / "scaling.py"), str(tmp_path / "study.yaml")]
    result = subprocess.run(
        [*script, "--output", str(tmp_path / "out")], capture_output=True, text=True, timeout=300, env=environment()
    )
    assert result.returncode == 0, result.stderr[-3000:]
    lines = [line for line in result.stdout.splitlines() if "ndcg@10" in line]
    assert [line.split()[0] for line in lines] == ["1/2", "2/2"]  # said by one of the two processes
    for record in sorted((tmp_path / "out" / "runs").glob("*/run.json")):
        assert json.loads(record.read_text())["hardware"]["processes"] == 2
