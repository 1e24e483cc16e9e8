"""The Trainer's promises: exact resume, the same steps however they are cut, both optimizer phases."""

import shutil
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from transformers import Trainer, set_seed
from transformers.trainer_callback import TrainerCallback

from sr_transformers import LSRMConfig, LSRMForCausalLM, LSRMTrainer, LSRMTrainingArguments
from sr_transformers.data.logs import synthetic
from sr_transformers.data.prepare import prepare
from sr_transformers.evaluation.model_scorer import ModelScorer
from sr_transformers.training.checkpoints import best_beside, last_complete_checkpoint
from sr_transformers.training.trainer import _layout


def make(data, folder, *callbacks, dropout=0.1, **arguments):
    defaults = {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 16,
        "learning_rate": 1e-2,
        "warmup_steps": 0,
        "precision": "fp32",
        "disable_tqdm": True,
        "logging_steps": 1,
        "save_total_limit": None,
        "load_best_model_at_end": False,
        "seed": 3,
    }
    set_seed(3)
    config = LSRMConfig(
        vocab_size=data.vocab_size,
        hidden_size=16,
        num_hidden_layers=1,
        max_position_embeddings=8,
        embedding_dropout=dropout,
        residual_dropout=dropout,
        attention_dropout=dropout,
    )
    args = LSRMTrainingArguments(output_dir=str(folder), **{**defaults, **arguments})
    return LSRMTrainer(
        LSRMForCausalLM(config),
        args,
        train_dataset=data.train_dataset(),
        eval_dataset=data.eval_dataset("validation"),
        callbacks=list(callbacks),
    )


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def assert_same_bits(one, other):
    assert all(torch.equal(one[name], other[name]) for name in one)


# hr@50 over 30 items is always 1: validation never improves, so each phase ends after `patience` evaluations.
PLATEAU = {
    "metric_for_best_model": "hr@50",
    "patience": 2,
    "num_train_epochs": 6,
    "eval_strategy": "steps",
    "save_strategy": "steps",
    "eval_steps": 9,
    "save_steps": 9,
    "sgd_learning_rate": 0.05,
}


def test_adam_runs_to_the_plateau_then_sgd_to_the_next(markov_prepared, tmp_path):
    seen = []

    class Watch(TrainerCallback):
        def on_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
            seen.append(type(getattr(optimizer, "optimizer", optimizer)).__name__)

    trainer = make(markov_prepared, tmp_path, Watch(), **PLATEAU)
    trainer.train()
    # evaluations at 9 (best), 18, 27 (stale twice: switch), 36, 45 (stale twice: stop)
    assert trainer.phases.switched_at == 27
    assert trainer.state.global_step == 45
    assert seen == ["AdamW"] * 27 + ["SGD"] * 18
    assert len(trainer.accelerator._optimizers) == 1
    assert trainer.lr_scheduler.get_last_lr() == [0.05, 0.05]


def test_sgd_starts_from_the_weights_that_validated_best(markov_prepared, tmp_path):
    trainer = make(markov_prepared, tmp_path, **PLATEAU)
    trainer.train()
    best = LSRMForCausalLM.from_pretrained(tmp_path / "checkpoint-9").state_dict()
    at_switch = LSRMForCausalLM.from_pretrained(tmp_path / "checkpoint-27").state_dict()
    assert_same_bits(best, at_switch)
    assert not torch.equal(
        at_switch["model.norm.weight"],
        LSRMForCausalLM.from_pretrained(tmp_path / "checkpoint-18").state_dict()["model.norm.weight"],
    )


@pytest.fixture(scope="module")
def baskets(tmp_path_factory):
    """A log of baskets of up to 4 items."""
    log = synthetic.generate(num_users=200, num_items=30, num_successors=3, mean_length=12)
    log = log.with_columns(pl.col("timestamp") // 4)
    return prepare(log, tmp_path_factory.mktemp("baskets") / "data")


def test_shuffled_baskets_are_others_in_every_epoch_and_the_same_after_a_resume(baskets, tmp_path):
    """16 steps an epoch, a checkpoint after 5: the run goes on in the middle of an epoch. With loader processes too."""
    options = {"shuffle_baskets": True, "num_train_epochs": 3, "save_strategy": "steps", "eval_strategy": "steps"}
    options |= {
        "save_steps": 5,
        "eval_steps": 5,
        "logging_steps": 1,
        "save_total_limit": None,
        "switch_optimizer": False,
    }
    whole = make(baskets, tmp_path / "whole", **options)
    steps = whole.sampler.num_steps
    assert steps == 16
    whole.train()
    plain = make(baskets, tmp_path / "plain", **{**options, "shuffle_baskets": False})
    plain.train()
    assert losses(plain) != losses(whole)
    last = 20  # in the second epoch
    for kept in (5, last):
        shutil.copytree(tmp_path / "whole" / f"checkpoint-{kept}", tmp_path / "part" / f"checkpoint-{kept}")
    resumed = make(baskets, tmp_path / "part", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "part" / f"checkpoint-{last}"))
    assert resumed.state.global_step == whole.state.global_step == 3 * steps
    assert_same_bits(weights(resumed), weights(whole))
    workers = {"dataloader_num_workers": 2, "dataloader_persistent_workers": True}
    other = make(baskets, tmp_path / "workers", **options, **workers)
    other.train()
    assert_same_bits(weights(other), weights(whole))


@pytest.mark.parametrize(
    "step", [18, 27, 36, 45], ids=["before the switch", "at the switch", "after the switch", "at the end"]
)
def test_resuming_gives_the_same_bits(markov_prepared, tmp_path, step):
    whole = make(markov_prepared, tmp_path / "whole", **PLATEAU)
    whole.train()
    # What a killed run leaves: the checkpoints up to a step (9 is the best one).
    for kept in {9, step}:
        shutil.copytree(tmp_path / "whole" / f"checkpoint-{kept}", tmp_path / "part" / f"checkpoint-{kept}")
    resumed = make(markov_prepared, tmp_path / "part", **PLATEAU)
    resumed.train(resume_from_checkpoint=last_complete_checkpoint(tmp_path / "part"))
    assert resumed.state.global_step == whole.state.global_step
    assert resumed.phases.switched_at == 27
    assert_same_bits(weights(resumed), weights(whole))
    assert losses(resumed) == losses(whole)


@pytest.mark.parametrize("step", [18, 36], ids=["with Muon", "with SGD"])
def test_a_run_with_muon_goes_on_with_the_same_bits(markov_prepared, tmp_path, step):
    settings = {**PLATEAU, "optimizer": "muon", "table_lr_multiplier": 3.0}
    whole = make(markov_prepared, tmp_path / "whole", **settings)
    whole.train()
    for kept in {9, step}:  # 9 is the best one
        shutil.copytree(tmp_path / "whole" / f"checkpoint-{kept}", tmp_path / "part" / f"checkpoint-{kept}")
    resumed = make(markov_prepared, tmp_path / "part", **settings)
    resumed.train(resume_from_checkpoint=last_complete_checkpoint(tmp_path / "part"))
    assert resumed.state.global_step == whole.state.global_step
    assert whole.phases.switched_at == 27
    assert_same_bits(weights(resumed), weights(whole))
    assert losses(resumed) == losses(whole)


def test_groups_of_the_trainer(markov_prepared, tmp_path):
    trainer = make(markov_prepared, tmp_path, optimizer="muon", table_lr_multiplier=0.5, weight_decay=0.1)
    groups = trainer.create_optimizer().param_groups
    rates = {(group["lr"], group["weight_decay"], len(group["params"])) for group in groups}
    # Muon: 6 matrices; Adam: positions; biases and norms; the table.
    assert rates == {(1e-2, 0.1, 6), (1e-2, 0.1, 1), (1e-2, 0.0, 12), (5e-3, 0.1, 1)}


def test_the_same_seed_gives_the_same_bits_and_another_does_not(markov_prepared, tmp_path):
    trainers = []
    for name, data_seed in (("a", None), ("b", None), ("c", 4)):
        trainer = make(markov_prepared, tmp_path / name, eval_strategy="no", save_strategy="no", data_seed=data_seed)
        trainer.train()
        trainers.append(trainer)
    one, two, other = trainers
    assert_same_bits(weights(one), weights(two))
    assert losses(one) != losses(other)


@pytest.mark.parametrize("objective", ["all_positions", "last_position"])
def test_accumulation_changes_nothing(markov_prepared, tmp_path, objective):
    settings = {
        "dropout": 0.0,
        "eval_strategy": "no",
        "save_strategy": "no",
        "num_train_epochs": 1,
        "objective": objective,
    }
    one = make(markov_prepared, tmp_path / "a", per_device_train_batch_size=16, **settings)
    four = make(
        markov_prepared, tmp_path / "b", per_device_train_batch_size=4, gradient_accumulation_steps=4, **settings
    )
    one.train()
    four.train()
    assert losses(one) == pytest.approx(losses(four), abs=1e-4)
    # Not every weight: the gradient of a key's bias is zero but for rounding, and Adam blows that up.
    ids = torch.arange(2, 10)[None]
    torch.testing.assert_close(one.model.eval()(ids).logits, four.model.eval()(ids).logits, rtol=1e-3, atol=1e-3)


def test_validation_is_a_mean_over_targets_and_keeps_no_logits(markov_prepared, tmp_path):
    trainer = make(markov_prepared, tmp_path)
    metrics = trainer.evaluate()
    data, model = markov_prepared, trainer.model.eval()
    by_hand = []
    for history, position in data.targets("validation").tolist():
        ids = torch.tensor(data.items(history, position)[-8:].astype("int64"))[None]
        target = int(data.items(history, position + 1)[-1])
        by_hand.append(-model(ids).logits[0, -1].log_softmax(-1)[target].item())
    assert metrics["eval_loss"] == pytest.approx(sum(by_hand) / len(by_hand), abs=1e-5)
    assert trainer.evaluate(data.eval_dataset("test"), metric_key_prefix="test")["test_hr@50"] == 1.0


def test_training_learns(markov_prepared, tmp_path):
    trainer = make(markov_prepared, tmp_path, num_train_epochs=10, dropout=0.0)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before - 1.0


def test_bf16_learns_as_well_and_keeps_float32_weights(markov_prepared, tmp_path):
    losses_at_end = []
    for precision in ("fp32", "bf16"):
        trainer = make(markov_prepared, tmp_path / precision, num_train_epochs=10, dropout=0.0, precision=precision)
        trainer.train()
        losses_at_end.append(trainer.evaluate()["eval_loss"])
        assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    assert losses_at_end[1] == pytest.approx(losses_at_end[0], abs=0.05)


def test_sampled_softmax_learns_too(markov_prepared, tmp_path):
    trainer = make(markov_prepared, tmp_path, num_train_epochs=10, dropout=0.0, num_negatives=12)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before - 1.0


def test_evaluating_outside_training_moves_no_phase(markov_prepared, tmp_path):
    trainer = make(markov_prepared, tmp_path, **{**PLATEAU, "patience": 1, "num_train_epochs": 1})
    for _ in range(3):
        trainer.evaluate()
    trainer.train()
    switched_at = trainer.phases.switched_at
    for _ in range(3):
        trainer.evaluate()
    assert trainer.phases.switched_at == switched_at


def test_old_checkpoints_go_and_the_best_stays(markov_prepared, tmp_path):
    trainer = make(markov_prepared, tmp_path, **{**PLATEAU, "save_total_limit": 2})
    trainer.train()
    assert {folder.name for folder in tmp_path.glob("checkpoint-*")} == {
        "checkpoint-9",
        "checkpoint-36",
        "checkpoint-45",
    }


def test_every_checkpoint_that_stays_has_the_best_of_its_time(markov_prepared, tmp_path):
    """Else nothing could go on from the older of two once the newer one is damaged."""
    seen = []

    class Watch(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            for folder in tmp_path.glob("checkpoint-*"):
                seen.append(best_beside(folder))

    settings = {**PLATEAU, "save_total_limit": 2, "metric_for_best_model": "loss", "patience": 9, "num_train_epochs": 4}
    trainer = make(markov_prepared, tmp_path, **settings)
    trainer.add_callback(Watch())
    trainer.train()
    assert len(set(seen)) > 3
    assert None not in seen


def test_a_checkpoint_names_no_place_and_no_token(markov_prepared, tmp_path):
    trainer = make(markov_prepared, tmp_path / "run", **PLATEAU, hub_token="hf_dummySECRETtoken01234")
    trainer.train()
    trainer.save_model()
    assert trainer.args.hub_token == "hf_dummySECRETtoken01234"
    assert trainer.args.output_dir == str(tmp_path / "run")
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"hf_dummySECRETtoken01234" not in content, path
            assert str(tmp_path).encode() not in content, path


def test_a_run_that_was_moved_ends_with_its_best_weights(markov_prepared, tmp_path):
    trainer = make(markov_prepared, tmp_path / "run", **PLATEAU)
    trainer.train()
    best = trainer.model.state_dict()
    assert trainer.state.best_model_checkpoint == str(tmp_path / "run" / "checkpoint-9")
    (tmp_path / "run").rename(tmp_path / "moved")
    again = make(markov_prepared, tmp_path / "moved", **PLATEAU)
    again.train(resume_from_checkpoint=last_complete_checkpoint(tmp_path / "moved"))
    assert again.state.best_model_checkpoint == str(tmp_path / "moved" / "checkpoint-9")
    assert all(torch.equal(best[name], one) for name, one in again.model.state_dict().items())


@pytest.mark.parametrize("last_only", [True, False])
def test_ranks_are_not_decided_by_bf16_ties(markov_prepared, tmp_path, monkeypatch, last_only):
    """Neither where the model's own short way to scores is taken nor where the whole forward pass is."""
    trainer = make(markov_prepared, tmp_path, precision="bf16")
    seen = []

    class Watched(ModelScorer):
        def score_here(self, histories):
            self._last_only = last_only
            scores = super().score_here(histories)
            seen.append(scores.clone())
            return scores

    monkeypatch.setattr("sr_transformers.training.ranked.ModelScorer", Watched)
    trainer.accelerator.prepare_model(trainer.model, evaluation_mode=True)
    trainer.evaluate()
    assert seen
    assert all(logits.dtype == torch.float32 for logits in seen)
    assert any(not torch.equal(logits, logits.bfloat16().float()) for logits in seen)


def test_more_processes_than_rows_train_on(markov_prepared, tmp_path):
    """A step can come without targets; its loss is zero and the weights stay numbers."""
    trainer = make(markov_prepared, tmp_path, eval_strategy="no", save_strategy="no")
    batch = trainer.data_collator([(np.zeros((0, 3), np.int64), [], [])])
    output = trainer.model(**{**batch, "num_items_in_batch": torch.tensor(0)})
    output.loss.backward()
    assert output.loss.item() == 0
    assert all(torch.isfinite(p.grad).all() for p in trainer.model.parameters())


class FlashLike:
    """The little of a model that the choice of a layout looks at."""

    def __init__(self, attention, dropout=0.0):
        self.config = SimpleNamespace(_attn_implementation=attention)
        self.layers = [SimpleNamespace(attention_dropout=dropout)]

    def modules(self):
        return self.layers


@pytest.mark.parametrize(
    ("attention", "layout", "expected"),
    [
        ("sdpa", "auto", "rows"),
        ("eager", "flat", "flat"),
        ("flash_attention_2", "auto", "flat"),
        ("kernels-community/flash-attn2", "auto", "flat"),
        ("flex_attention", "auto", "flat"),
        ("flex_attention", "rows", "rows"),
    ],
)
def test_the_layout_follows_the_attention_backend(tmp_path, attention, layout, expected):
    args = LSRMTrainingArguments(output_dir=str(tmp_path), layout=layout, precision="bf16")
    assert _layout(args, FlashLike(attention)) == expected


@pytest.mark.parametrize(
    ("attention", "dropout", "settings", "message"),
    [
        ("flash_attention_2", 0.0, {"layout": "rows", "precision": "bf16"}, "flat layout only"),
        ("flash_attention_2", 0.0, {"precision": "fp32"}, "bf16 or fp16 only"),
        ("flex_attention", 0.1, {"precision": "fp32"}, "no dropout on attention weights"),
    ],
)
def test_what_a_backend_cannot_do_is_refused(tmp_path, attention, dropout, settings, message):
    args = LSRMTrainingArguments(output_dir=str(tmp_path), **settings)
    with pytest.raises(ValueError, match=message):
        _layout(args, FlashLike(attention, dropout))


def test_several_gpus_in_one_process_are_refused(markov_prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(LSRMTrainingArguments, "n_gpu", 2)
    with pytest.raises(ValueError, match="one process sees 2 GPUs"):
        make(markov_prepared, tmp_path)


def test_deepspeed_cannot_switch_optimizers(markov_prepared, tmp_path, monkeypatch):
    original = Trainer.create_accelerator_and_postprocess

    def with_deepspeed(self):
        original(self)
        self.is_deepspeed_enabled = True

    monkeypatch.setattr(Trainer, "create_accelerator_and_postprocess", with_deepspeed)
    with pytest.raises(ValueError, match="DeepSpeed cannot change its optimizer"):
        make(markov_prepared, tmp_path)


def test_a_foreign_vocabulary_is_refused(markov_prepared, prepared, tmp_path):
    trainer = make(markov_prepared, tmp_path)
    with pytest.raises(ValueError, match=r"the model has \d+ tokens, the prepared log \d+"):
        LSRMTrainer(
            trainer.model,
            trainer.args,
            train_dataset=prepared.train_dataset(),
            eval_dataset=prepared.eval_dataset("validation"),
        )


@pytest.mark.parametrize("name", ["pad_token_id", "unk_token_id"])
def test_a_special_token_of_the_model_that_is_an_item_of_the_log_is_refused(markov_prepared, tmp_path, name):
    trainer = make(markov_prepared, tmp_path)
    setattr(trainer.model.config, name, 7)
    with pytest.raises(ValueError, match=f"the model's {name} is 7, an item of the log, in which this token is"):
        LSRMTrainer(trainer.model, trainer.args, train_dataset=markov_prepared.train_dataset())
