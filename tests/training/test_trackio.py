"""`report_to: trackio` and its Space, by a stand-in: the package does not allow the pillow of the test set."""

import contextvars
import sys
import types

import pytest

from sr_transformers import LSRMConfig, LSRMForCausalLM, LSRMTrainer, LSRMTrainingArguments, Recipe


class Config(dict):
    def update(self, values, allow_val_change):
        super().update(values)


@pytest.fixture
def trackio(monkeypatch):
    """The package as far as transformers asks for it; `started` and `logged` are what it was told."""
    module = types.ModuleType("trackio")
    module.started, module.logged, module.config = [], [], Config()
    space = contextvars.ContextVar("space", default=None)
    module.context_vars = types.SimpleNamespace(current_space_id=space)

    def init(**options):
        module.started.append(options)
        space.set(options["space_id"])

    module.init = init
    module.log = module.logged.append
    module.finish = lambda: None
    monkeypatch.setitem(sys.modules, "trackio", module)
    monkeypatch.setattr("transformers.integrations.integration_utils.is_trackio_available", lambda: True)
    return module


def test_a_run_reports_to_its_space(trackio, markov_prepared, tmp_path):
    recipe = Recipe("tiny", {}, {"report_to": "trackio", "project": "events", "trackio_space_id": "org/runs"})
    arguments = recipe.arguments(
        tmp_path, max_steps=2, logging_steps=1, eval_strategy="steps", eval_steps=2, save_strategy="no",
        load_best_model_at_end=False, switch_optimizer=False, disable_tqdm=True, hub_model_id="org/name",
        hub_private_repo=True,
    )  # fmt: skip
    data = markov_prepared
    model = LSRMForCausalLM(LSRMConfig(vocab_size=data.vocab_size, hidden_size=16, num_hidden_layers=1))
    trainer = LSRMTrainer(
        model, arguments, train_dataset=data.train_dataset(), eval_dataset=data.eval_dataset("validation")
    )
    trainer.train()
    (started,) = trackio.started
    assert (started["project"], started["space_id"], started["private"]) == ("events", "org/runs", True)
    assert any("train/loss" in entry for entry in trackio.logged)
    assert any("eval/ndcg@10" in entry for entry in trackio.logged)


def test_a_space_without_trackio_is_refused(tmp_path):
    with pytest.raises(ValueError, match="trackio_space_id is 'org/runs', but nothing reads it: it needs trackio"):
        LSRMTrainingArguments(output_dir=str(tmp_path), trackio_space_id="org/runs")
