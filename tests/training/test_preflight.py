import os
import subprocess
import sys
import warnings

import polars as pl
import pytest
import torch

from sr_transformers import LSRMConfig, LSRMForCausalLM, LSRMTrainer, LSRMTrainingArguments, Recipe, train
from sr_transformers.columns import ITEM, TIMESTAMP, USER
from sr_transformers.data.prepare import prepare
from sr_transformers.training import preflight
from sr_transformers.training.preflight import check_launch, check_memory, check_test, check_validation, free_memory

MODEL = {"hidden_size": 16, "num_hidden_layers": 1, "max_position_embeddings": 8}
WITHOUT = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False, "max_steps": 2}


def log(last, before="i0"):
    """Eight users with i0 to i3, then what they do before the last and at last."""
    rows = [(f"u{user}", f"i{n}", n) for user in range(8) for n in range(4)]
    rows += [(f"u{user}", before, 8) for user in range(8)] + [(f"u{user}", last, 9) for user in range(8)]
    return pl.DataFrame(rows, schema=[USER, ITEM, TIMESTAMP], orient="row")


@pytest.fixture
def all_unknown(tmp_path):
    return prepare(log("i1", before="new"), tmp_path / "unknown")


class NoTargets:
    path = "quiet"

    def num_targets(self, split):
        return 0


def recipe(**training):
    return Recipe("tiny", MODEL, {"disable_tqdm": True, "precision": "fp32", **training})


def test_validation_on_unknown_items_alone_is_refused_before_anything_is_written(all_unknown, tmp_path):
    with pytest.raises(
        ValueError, match=r"all 8 validation targets lie outside the item vocabulary.*--eval_strategy no"
    ):
        train(recipe(), all_unknown, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    record = train(recipe(**WITHOUT), all_unknown, tmp_path / "run")
    assert record.steps == 2


@pytest.mark.parametrize(("strategy", "delay", "said"), [("steps", 5, "4 steps"), ("epoch", 3, "2 epochs")])
def test_an_eval_delay_beyond_the_end_is_refused(prepared, tmp_path, strategy, delay, said):
    length = {"max_steps": 4} if strategy == "steps" else {"num_train_epochs": 2}
    rest = {"eval_strategy": strategy, "save_strategy": strategy, "eval_steps": 2, "save_steps": 2, "warmup_steps": 0}
    with pytest.raises(
        ValueError, match=rf"^eval_delay is {delay}, but the run has {said}, so it would never validate"
    ):
        train(recipe(**length, **rest, eval_delay=delay), prepared, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert train(recipe(**length, **rest, eval_delay=delay - 1), prepared, tmp_path / "run").validation


def test_a_run_that_ends_before_it_is_warm_is_told(prepared, tmp_path):
    words = "warmup_steps is 8, but the run has 2 steps: it never reaches the learning rate 0.001, only 25.0% of it"
    with pytest.warns(UserWarning, match=words):
        train(recipe(**WITHOUT, warmup_steps=8), prepared, tmp_path / "run")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for schedule, steps in (("constant", 8), ("constant_with_warmup", 2), ("linear", 0.5)):
            train(recipe(**WITHOUT, warmup_steps=steps, lr_scheduler_type=schedule), prepared, tmp_path / schedule)


def test_the_trainer_looks_too(all_unknown, tmp_path):
    arguments = LSRMTrainingArguments(output_dir=str(tmp_path / "run"), disable_tqdm=True)
    trainer = LSRMTrainer(
        LSRMForCausalLM(LSRMConfig(vocab_size=all_unknown.vocab_size, **MODEL)),
        arguments,
        train_dataset=all_unknown.train_dataset(),
        eval_dataset=all_unknown.eval_dataset("validation"),
    )
    with pytest.raises(ValueError, match="all 8 validation targets lie outside"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_some_known_targets_are_enough(prepared):
    check_validation(prepared)
    check_test(prepared)


def test_no_targets_at_all_are_refused():
    with pytest.raises(ValueError, match="quiet: no validation targets, so nothing would say which weights are best"):
        check_validation(NoTargets())
    with pytest.raises(ValueError, match="quiet: no test targets, so the trained model could not be evaluated"):
        check_test(NoTargets())


def test_a_log_whose_test_targets_are_all_unknown_is_refused_before_anything_is_written(tmp_path):
    """A run would end without a test loss, and whatever reads its record would miss it."""
    data = prepare(log("new"), tmp_path / "data")
    with pytest.raises(ValueError, match="all 8 test targets lie outside the item vocabulary, so the trained model"):
        train(recipe(**WITHOUT), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_model_beyond_the_machines_memory_is_refused_before_it_is_built(prepared, tmp_path):
    huge = Recipe("huge", {**MODEL, "hidden_size": 1 << 17, "num_hidden_layers": 4096})
    with pytest.raises(ValueError, match=r"4,096 layers x 131,072 .* needs at least .* GiB .* GiB free"):
        train(huge, prepared, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_memory_is_weights_and_gradients(monkeypatch):
    config = LSRMConfig(vocab_size=100, **MODEL)
    numbers = 12 * 16**2 + 100 * 16 + 8 * 16  # blocks, items, positions
    monkeypatch.setattr(preflight, "free_memory", lambda: 8 * numbers)
    check_memory(config)
    monkeypatch.setattr(preflight, "free_memory", lambda: 8 * numbers - 1)
    with pytest.raises(ValueError, match="1 layers x 16 over 100 tokens"):
        check_memory(config)
    monkeypatch.setattr(preflight, "free_memory", lambda: 8 * (numbers - 50 * 16))
    check_memory(config, tp_size=2)
    monkeypatch.setattr(preflight, "free_memory", lambda: 8 * (numbers - 50 * 16) - 1)
    with pytest.raises(ValueError, match="1 layers x 16 over 100 tokens"):
        check_memory(config, tp_size=2)
    with torch.device("meta"):
        whole = LSRMForCausalLM(config).num_parameters()
    assert numbers < whole < 1.2 * numbers  # biases and norms are left out


def test_free_memory_is_that_of_this_machine():
    assert 2**27 < free_memory() < 2**46


LAUNCHED = {"ACCELERATE_MIXED_PRECISION": "no", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("environment", "fine"),
    [
        ({}, True),
        (LAUNCHED, False),
        ({**LAUNCHED, "WORLD_SIZE": "2", "RANK": "0"}, True),
        ({**LAUNCHED, "OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"ACCELERATE_MIXED_PRECISION": "no"}, True),
        ({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}, True),
    ],
)
def test_one_process_where_several_were_asked_for_is_refused(environment, fine, monkeypatch):
    for name in (*LAUNCHED, *preflight._WORLD):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if fine:
        check_launch()
        return
    with pytest.raises(ValueError, match="was asked for several processes and has started one"):
        check_launch()


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "refused"), [(1, False), (2, True)])
def test_accelerate_leaves_what_it_is_known_by(processes, refused, tmp_path):
    (tmp_path / "script.py").write_text("from sr_transformers.training.preflight import check_launch\ncheck_launch()\n")
    words = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", str(processes)]
    environment = {name: value for name, value in os.environ.items() if name not in (*LAUNCHED, *preflight._WORLD)}
    run = subprocess.run(
        [*words, "script.py"],
        cwd=tmp_path, env={**environment, "HF_HOME": str(tmp_path)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (run.returncode != 0) == refused, run.stderr
    assert ("has started one" in run.stderr) == refused
