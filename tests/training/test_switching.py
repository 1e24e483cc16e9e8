"""A trainer that has changed to SGD, and is asked to train again."""

import pytest
import torch
from transformers import set_seed
from transformers.trainer_callback import TrainerCallback

from sr_transformers import LSRMConfig, LSRMForCausalLM, LSRMTrainer, LSRMTrainingArguments


class Watch(TrainerCallback):
    """Notes the optimizer and rate of every step, and interrupts training once, after the step `until`."""

    def __init__(self, until=None):
        self.until, self.steps = until, []

    def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
        while hasattr(optimizer, "optimizer"):  # accelerate's
            optimizer = optimizer.optimizer
        self.steps.append((type(optimizer).__name__, optimizer.param_groups[0]["lr"]))

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.until:
            self.until = None
            raise KeyboardInterrupt


ADAM, SGD = ("AdamW", 1e-2), ("SGD", 0.05)


def make(data, folder, watch):
    """hr@50 over 30 items is always 1: evaluations at 5 (best), 10 (stale: switch), 15 (stale: stop)."""
    set_seed(3)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "max_position_embeddings": 8}
    arguments = LSRMTrainingArguments(
        str(folder), metric_for_best_model="hr@50", patience=1, eval_strategy="steps", save_strategy="steps",
        eval_steps=5, save_steps=5, save_total_limit=None, learning_rate=1e-2, warmup_steps=0, sgd_learning_rate=0.05,
        per_device_train_batch_size=16, precision="fp32", disable_tqdm=True, seed=3,
    )  # fmt: skip
    model = LSRMForCausalLM(LSRMConfig(vocab_size=data.vocab_size, **sizes))
    return LSRMTrainer(
        model, arguments, train_dataset=data.train_dataset(), eval_dataset=data.eval_dataset("validation"),
        callbacks=[watch],
    )  # fmt: skip


def test_training_again_begins_with_adam(markov_prepared, tmp_path):
    watch = Watch()
    trainer = make(markov_prepared, tmp_path, watch)
    trainer.train()
    trainer.train()
    assert watch.steps == 2 * ([ADAM] * 10 + [SGD] * 5)
    assert len(trainer.accelerator._optimizers) == 1


def test_training_again_after_an_interrupt_begins_with_adam(markov_prepared, tmp_path):
    watch = Watch(until=12)
    trainer = make(markov_prepared, tmp_path, watch)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.train()
    assert watch.steps == [ADAM] * 10 + [SGD] * 2 + [ADAM] * 10 + [SGD] * 5


@pytest.mark.parametrize(("stopped_at", "step", "expected"), [(12, 5, [ADAM] * 5 + [SGD] * 5), (7, 10, [SGD] * 5)])
def test_a_trainer_goes_on_from_a_checkpoint_of_the_other_phase(markov_prepared, tmp_path, stopped_at, step, expected):
    """It stands in one phase, and the checkpoint is of the other: the bits are those of a run that never stopped."""
    whole = make(markov_prepared, tmp_path / "whole", Watch())
    whole.train()
    watch = Watch(until=stopped_at)
    trainer = make(markov_prepared, tmp_path / "other", watch)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    watch.steps.clear()
    trainer.train(str(tmp_path / "whole" / f"checkpoint-{step}"))
    assert watch.steps == expected
    found = trainer.model.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in whole.model.state_dict().items())
