"""Every checkpoint of every kind of run is the model that was evaluated when it was written, in every front end."""

import json
import re

import pytest
from transformers import AutoModelForCausalLM

from sr_transformers import ModelScorer, Recipe, Recommender, evaluate, finetune, train
from sr_transformers.cli import main
from sr_transformers.evaluation.loading import Checkpoint

SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "max_position_embeddings": 8}


def recipe(**training):
    settings = {
        "num_train_epochs": 3,
        "per_device_train_batch_size": 32,
        "learning_rate": 1e-2,
        "precision": "fp32",
        "save_total_limit": 9,
        "disable_tqdm": True,
    }
    return Recipe("tiny", SHAPE, {**settings, **training})


@pytest.fixture(scope="module")
def base(markov_prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "run"
    train(recipe(), markov_prepared, folder)
    return folder


def lora(base, data, folder, **options):
    pytest.importorskip("peft", reason="adapters need the extra lora")
    finetune(base, data, recipe(), folder, lora_rank=2, **options)


KINDS = {
    "plain": lambda base, data, folder: train(recipe(), data, folder),
    # Translated by nothing: what a compiled model is called inside is what its checkpoints could get wrong.
    "compiled": lambda base, data, folder: train(
        recipe(torch_compile=True, torch_compile_backend="aot_eager"), data, folder
    ),
    "frozen body": lambda base, data, folder: finetune(base, data, recipe(), folder, freeze="body"),
    "frozen table": lambda base, data, folder: finetune(base, data, recipe(), folder, freeze="table"),
    "adapters": lora,
    "adapters, frozen table": lambda *given: lora(*given, freeze="table"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_checkpoint_loads_with_its_recorded_loss(kind, base, markov_prepared, tmp_path, capsys):
    KINDS[kind](base, markov_prepared, tmp_path / "run")
    checkpoints = sorted((tmp_path / "run").glob("checkpoint-*"))
    assert len(checkpoints) == 3
    recorded = {}
    for folder in checkpoints:
        entries = json.loads((folder / "trainer_state.json").read_text())["log_history"]
        recorded[folder] = [one["eval_loss"] for one in entries if "eval_loss" in one][-1]
        for model in (Checkpoint(folder).model(), AutoModelForCausalLM.from_pretrained(folder)):
            loss = evaluate(ModelScorer(model), markov_prepared, "validation")["metrics"]["loss"]
            assert loss == pytest.approx(recorded[folder], abs=1e-4)
    assert max(recorded.values()) - min(recorded.values()) > 1e-3  # or any of them would do
    # The command prints the same, and the vocabulary lies there too.
    arguments = ["evaluate", "--model", str(folder), "--data", str(markov_prepared.path), "--part", "validation"]
    assert main(arguments) == 0
    assert re.search(rf"\| {recorded[folder]:.4f} \|", capsys.readouterr().out)
    assert len(Recommender.from_pretrained(folder).recommend([3, 4], 5)) == 5
