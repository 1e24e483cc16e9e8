"""The table against times that are known because they are slept, in forward, backward, input and optimizer."""

import json
import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import TrainerCallback

from sr_transformers import LSRMConfig, LSRMForCausalLM, LSRMTrainer, LSRMTrainingArguments
from sr_transformers.cli import main
from sr_transformers.training.profiling import PARTS, RECORD, TABLE, TRACE, StepProfiler

FORWARD, BACKWARD = 0.01, 0.02  # seconds


class Sleep(torch.autograd.Function):
    """The identity, slowly."""

    @staticmethod
    def forward(ctx, values):
        time.sleep(FORWARD)
        return values.clone()

    @staticmethod
    def backward(ctx, gradient):
        time.sleep(BACKWARD)
        return gradient


class Slow(nn.Module):
    """A module with a sleep after it."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *args, **kwargs):
        return Sleep.apply(self.inner(*args, **kwargs))


def trainer(data, folder, profiler, slow=(), **arguments):
    config = LSRMConfig(vocab_size=data.vocab_size, hidden_size=16, num_hidden_layers=2, max_position_embeddings=8)
    model = LSRMForCausalLM(config)
    base = model.model
    for name in slow:
        if name == "embedding":
            base.embedding_dropout = Slow(base.embedding_dropout)
        elif name == "attention":
            base.layers[0].self_attn.o_proj = Slow(base.layers[0].self_attn.o_proj)
        elif name == "feed-forward":
            base.layers[1].mlp.act_fn = Slow(base.layers[1].mlp.act_fn)
        elif name == "loss head":
            base.norm = Slow(base.norm)
    settings = {
        "max_steps": 9,
        "per_device_train_batch_size": 16,
        "precision": "fp32",
        "disable_tqdm": True,
        "eval_strategy": "no",
        "save_strategy": "no",
        "switch_optimizer": False,
        "load_best_model_at_end": False,
        "save_total_limit": None,
    }
    args = LSRMTrainingArguments(output_dir=str(folder / "run"), **{**settings, **arguments})
    return LSRMTrainer(
        model,
        args,
        train_dataset=data.train_dataset(),
        eval_dataset=data.eval_dataset("validation"),
        callbacks=[profiler],
    )


def read(folder):
    return json.loads((folder / RECORD).read_text())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_time_goes_where_it_is_spent(markov_prepared, tmp_path, checkpointing):
    names = ("embedding", "attention", "feed-forward", "loss head")
    profiler = StepProfiler(tmp_path / "profile", warm_up=4, steps=3)
    one = trainer(markov_prepared, tmp_path, profiler, names, gradient_checkpointing=checkpointing)
    collate = one.data_collator

    def slow_collate(rows):
        time.sleep(FORWARD)
        return collate(rows)

    one.data_collator = slow_collate
    optimizer = one.create_optimizer()
    optimizer.register_step_pre_hook(lambda *_: time.sleep(FORWARD))
    one.train()
    record = read(tmp_path / "profile")
    parts = record["milliseconds_per_step"]
    slept = dict.fromkeys(names, 1e3 * (FORWARD + BACKWARD))
    if checkpointing:  # blocks are computed a second time
        slept["attention"] = slept["feed-forward"] = 1e3 * (2 * FORWARD + BACKWARD)
    slept |= {"data wait": 1e3 * FORWARD, "optimizer": 1e3 * FORWARD}
    for name, expected in slept.items():
        assert parts[name] >= expected, name
    assert sum(parts.values()) == pytest.approx(record["step_milliseconds"])
    assert sum(record["share"].values()) == pytest.approx(1)
    assert record["profiled_steps"] == 3
    assert record["step_milliseconds_without_profiler"] >= sum(slept.values()) - 1
    assert record["whole_run"]["input_wait_seconds"] >= 9 * FORWARD
    assert json.loads((tmp_path / "profile" / TRACE).read_text())["traceEvents"]
    assert not one.model.model.embed_tokens._forward_pre_hooks


def test_an_evaluation_ends_profiling_early_and_is_in_the_table(markov_prepared, tmp_path):
    profiler = StepProfiler(tmp_path / "profile", warm_up=4, steps=50)
    trainer(markov_prepared, tmp_path, profiler, eval_strategy="steps", eval_steps=8).train()
    record = read(tmp_path / "profile")
    assert record["profiled_steps"] == 3  # 6, 7 and 8; step 5 is thrown away
    assert record["milliseconds_per_step"]["evaluation"] > 0
    assert record["whole_run"]["evaluation_seconds"] == pytest.approx(
        9e-3 * record["milliseconds_per_step"]["evaluation"]
    )


def test_a_run_that_is_too_short_says_so(markov_prepared, tmp_path):
    profiler = StepProfiler(tmp_path / "profile", warm_up=8, steps=2)
    with pytest.raises(ValueError, match="training ended after 9 steps, before 8 of warm-up"):
        trainer(markov_prepared, tmp_path, profiler).train()


def test_a_compiled_model_is_not_profiled(markov_prepared, tmp_path):
    profiler = StepProfiler(tmp_path / "profile")
    with pytest.raises(ValueError, match="profile without torch_compile"):
        trainer(markov_prepared, tmp_path, profiler, torch_compile=True).train()


def test_look_ups_in_a_divided_table_are_not_profiled(tmp_path):
    profiler = StepProfiler(tmp_path / "profile")
    arguments = SimpleNamespace(torch_compile=False, tp_size=2)
    with pytest.raises(ValueError, match="profile with tp_size 1"):
        profiler.on_train_begin(arguments, None, None)


def test_profiling_changes_no_bit(markov_prepared, tmp_path):
    weights = []
    for name, callback in (("a", TrainerCallback()), ("b", StepProfiler(tmp_path / "profile", warm_up=4, steps=2))):
        torch.manual_seed(0)
        one = trainer(markov_prepared, tmp_path / name, callback)
        one.train()
        weights.append(one.model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize(("warm_up", "steps"), [(3, 1), (4, 0)])
def test_nothing_to_profile_is_refused(tmp_path, warm_up, steps):
    with pytest.raises(ValueError, match="at least 4 and 1"):
        StepProfiler(tmp_path, warm_up, steps)


def test_a_profile_is_not_written_over(tmp_path):
    (tmp_path / RECORD).touch()
    with pytest.raises(FileExistsError, match="holds a profile already"):
        StepProfiler(tmp_path)


def test_the_command_writes_a_profile(markov_prepared, tmp_path):
    (tmp_path / "tiny.yaml").write_text(
        "model:\n  hidden_size: 16\n  num_hidden_layers: 1\n  max_position_embeddings: 8\n"
        "training:\n  max_steps: 28\n  per_device_train_batch_size: 4\n  disable_tqdm: true\n"
    )
    arguments = ["--data", str(markov_prepared.path), "--output", str(tmp_path / "run")]
    assert main(["train", str(tmp_path / "tiny.yaml"), *arguments, "--profile", str(tmp_path / "profile")]) == 0
    text = (tmp_path / "profile" / TABLE).read_text()
    for part in PARTS:
        assert part in text
    assert "waiting for input" in text
    assert str(tmp_path) not in (tmp_path / "profile" / TRACE).read_text()
