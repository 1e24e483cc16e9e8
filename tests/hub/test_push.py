"""`push_to_hub` of the Trainer: by the recipe at the end of a run, and by hand."""

import pytest
from huggingface_hub import ModelCard
from transformers import TrainingArguments

from sr_transformers import LSRMConfig, LSRMForCausalLM, LSRMTrainer, LSRMTrainingArguments, Recipe, RunRecord
from sr_transformers.hub.upload import HubError
from sr_transformers.training.train import train

MODEL = {"hidden_size": 16, "num_hidden_layers": 1, "max_position_embeddings": 8}


def trainer_for(data, output, **more):
    model = LSRMForCausalLM(LSRMConfig(vocab_size=data.vocab_size, **MODEL))
    arguments = LSRMTrainingArguments(
        output_dir=str(output), max_steps=2, eval_strategy="no", save_strategy="no", load_best_model_at_end=False,
        disable_tqdm=True, **more,
    )  # fmt: skip
    return LSRMTrainer(
        model, arguments, train_dataset=data.train_dataset(), eval_dataset=data.eval_dataset("validation")
    )


def test_a_recipe_that_pushes(hub, prepared, tmp_path):
    (tmp_path / "tiny.yaml").write_text(
        f"model: {MODEL}\ntraining: {{max_steps: 2, disable_tqdm: true, push_to_hub: true, hub_model_id: org/auto, "
        "hub_private_repo: true}\n"
    )
    train(Recipe.load(tmp_path / "tiny.yaml"), prepared, tmp_path / "run")
    repo = hub.model("org/auto")
    assert repo.private
    assert {"model.safetensors", "README.md", "run.json", "modeling_lsrm.py", "tokenizer.json"} <= set(repo.files())
    assert len(repo.commits) == 2
    assert not any(name.startswith("checkpoint") or name.endswith(".bin") for name in repo.files())


def test_by_hand_the_run_is_finished_first(hub, prepared, tmp_path):
    trainer = trainer_for(prepared, tmp_path / "run", hub_model_id="org/byhand")
    trainer.train()
    url = trainer.push_to_hub(revision="v1")
    repo = hub.model("org/byhand")
    assert url.endswith(repo.refs["v1"])
    assert {"README.md", "run.json", "configuration_lsrm.py"} <= set(repo.files("v1"))
    record = RunRecord.load(tmp_path / "run")
    assert [record.steps, record.name, len(record.reports)] == [2, "custom", 6]
    assert "auto_map" not in record.recipe["model"]
    assert trainer.push_to_hub(revision="v1") == url


def test_who_may_not_write_hears_of_it_before_the_training(hub, prepared, tmp_path):
    with pytest.raises(HubError, match="your token may not write to other/sr"):
        trainer_for(prepared, tmp_path / "one", push_to_hub=True, hub_model_id="other/sr")
    with pytest.raises(ValueError, match="push_to_hub needs hub_model_id"):
        trainer_for(prepared, tmp_path / "two", push_to_hub=True)


def test_a_hub_that_never_answers_ends_the_training_before_it_begins(hub, prepared, tmp_path, monkeypatch):
    monkeypatch.setattr("sr_transformers.hub.upload.TIME_LIMIT", 0.5)
    hub.fail("POST", "/api/repos/create", times=1000, hang=True)
    with pytest.raises(HubError, match=r"no answer within 0\.5 seconds"):
        trainer_for(prepared, tmp_path / "one", push_to_hub=True, hub_model_id="org/sr")


def test_it_says_what_is_missing(hub, prepared, tmp_path):
    with pytest.raises(ValueError, match="hub_model_id is not set"):
        trainer_for(prepared, tmp_path / "one").push_to_hub()
    with pytest.raises(ValueError, match="call train\\(\\) first"):
        trainer_for(prepared, tmp_path / "two", hub_model_id="org/sr").push_to_hub()
    assert not hub.repos


def test_on_a_prepared_log_the_card_takes_no_words_of_transformers(hub, prepared, tmp_path):
    trainer = trainer_for(prepared, tmp_path, hub_model_id="org/sr")
    with pytest.raises(TypeError, match=r"run\.json, without tasks, tags"):
        trainer.push_to_hub(tasks="next-item", tags=["small"])
    assert not hub.repos


@pytest.mark.parametrize("private", [True, False, None])
def test_without_a_prepared_log_it_is_transformers_own(hub, tmp_path, private):
    """What a caller says of the repository and its card gets there: `private` above all."""
    model = LSRMForCausalLM(LSRMConfig(vocab_size=12, **MODEL))
    arguments = TrainingArguments(str(tmp_path / "run"), hub_model_id="org/plain", report_to=[], use_cpu=True)
    LSRMTrainer(model, arguments).push_to_hub(private=private, tags=["small"], model_name="Plain")
    repo = hub.model("org/plain")
    assert repo.private is bool(private)
    assert repo.messages[-1] == "End of training"
    card = ModelCard(repo.files()["README.md"].decode())
    assert "small" in card.data.tags
    assert "# Plain" in card.text
