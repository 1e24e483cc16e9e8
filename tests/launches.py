"""Trainings on several processes, for the tests of tests/integration: launched, killed, compared."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from sr_transformers import RunRecord

ROOT = Path(__file__).parents[1]
TRAININGS = str(ROOT / "tests/integration/several_trainings.py")


def recipe(folder, name, dropout=0.0, rows=12, model=None, **training):
    """A file. Every item is among the 50 best: the first epoch is the best, and the optimizer switches after three."""
    model = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "max_position_embeddings": 8,
        "residual_dropout": dropout,
        "embedding_dropout": dropout,
        **(model or {}),
    }
    settings = {
        "num_train_epochs": 6,
        "per_device_train_batch_size": rows,
        "learning_rate": 1e-2,
        "weight_decay": 0.01,
        "precision": "fp32",
        "disable_tqdm": True,
        "logging_steps": 1,
        "metric_for_best_model": "hr@50",
        "patience": 2,
        "save_total_limit": 9,
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps({"model": model, "training": {**settings, **training}}))
    return path


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def run(arguments):
    result = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=600, env=environment()
    )
    assert result.returncode == 0, result.stderr[-3000:]


def train_all(launch, folder, data, processes, jobs):
    """What each of the processes noted of every job, by the job's name.

    Args:
        jobs: (name, recipe, environment), and maybe ("model", a folder).
    """
    jobs = [
        {"output": str(folder / name), "recipe": str(path), "environment": env, **dict(more)}
        for name, path, env, *more in jobs
    ]
    (folder / "jobs.json").write_text(json.dumps({"data": str(data.path), "jobs": jobs}))
    run([*launch, TRAININGS, str(folder / "jobs.json")])
    notes = [json.loads((folder / f"jobs.{process}.json").read_text()) for process in range(processes)]
    return [{Path(output).name: note for output, note in one.items()} for one in notes]


def stored(checkpoint, what, folder):
    """What the parts of a checkpoint hold together."""
    dcp_to_torch_save(checkpoint / what, folder / "whole.pt")
    return torch.load(folder / "whole.pt", weights_only=False)


def assert_same_bits(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_same_bits(one[name], other[name])
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


def assert_same_end(one, other, folder, parts):
    """The last weights and optimizer states of two runs, in these folders of a checkpoint, and their curves."""
    steps = RunRecord.load(one).steps
    assert RunRecord.load(other).steps == steps
    for what in parts:
        first, second = (stored(run / f"checkpoint-{steps}", what, folder) for run in (one, other))
        assert_same_bits(first, second)
    first, second = curves(one), curves(other)
    for key in ("loss", "grad_norm"):
        assert first[key] == second[key]
    assert second["eval_loss"] == pytest.approx(first["eval_loss"], abs=1e-6)  # ranked in batches of another size


def curves(output):
    history = RunRecord.load(output).history
    return {key: [entry[key] for entry in history if key in entry] for key in ("loss", "grad_norm", "eval_loss")}


def assert_same_curves(one, other, tolerance=2e-3):
    first, second = curves(one), curves(other)
    for key, values in first.items():
        assert second[key] == pytest.approx(values, abs=tolerance)
    assert len(first["loss"]) > 80
    assert RunRecord.load(one).switched_at == RunRecord.load(other).switched_at == 51
    metrics = [RunRecord.load(run).reports[0]["metrics"] for run in (one, other)]
    # A user's rank may change by one where two scores are equal but for rounding: 1 of 201 users.
    assert metrics[1] == pytest.approx(metrics[0], abs=5e-3)


def until_killed(arguments, sign):
    """Starts a program and kills all of its processes as soon as a file or folder is there."""
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
    )
    deadline = time.monotonic() + 300
    while not sign.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
        one.kill()
    process.wait()


def left_at(whole, part, step):
    """What a run has left that died after some step."""
    part.mkdir()
    shutil.copy(whole / "settings.json", part)
    for folder in whole.glob("checkpoint-*"):
        if int(folder.name.split("-")[1]) <= step:
            shutil.copytree(folder, part / folder.name)
