import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from sr_transformers.data.vocabulary import build_tokenizer, item_list
from sr_transformers.hub.check_run import NEEDED, check_run


@pytest.fixture
def run(finished_run, tmp_path):
    """A copy to spoil."""
    shutil.copytree(finished_run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint-*"))
    return tmp_path / "run"


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def change_weights(run, change):
    weights = load_file(run / "model.safetensors")
    change(weights)
    save_file(weights, run / "model.safetensors", {"format": "pt"})


def test_a_finished_run_passes(run):
    finished = check_run(run)
    assert len(finished.tokenizer) == finished.model.config.vocab_size
    assert finished.record.reports[0]["metrics"]["hr@10"] >= 0


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        check_run(tmp_path / "nowhere")


def test_no_metrics(run):
    edit(run / "run.json", lambda record: record["reports"][0]["metrics"].clear())
    with pytest.raises(ValueError, match="holds no metrics on test targets"):
        check_run(run)
    edit(run / "run.json", lambda record: record["reports"].clear())
    with pytest.raises(ValueError, match="holds no metrics on test targets"):
        check_run(run)
    (run / "run.json").unlink()
    with pytest.raises(ValueError, match=r"has no run\.json, so there are no metrics to publish"):
        check_run(run)


def test_a_diverged_metric(run):
    edit(run / "run.json", lambda record: record["reports"][0]["metrics"].update(loss=float("nan")))
    with pytest.raises(ValueError, match="loss of lsrm tiny is nan; the run diverged"):
        check_run(run)


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_file(run, name):
    (run / name).unlink()
    with pytest.raises(ValueError, match=f"has no {name}"):
        check_run(run)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(run, value):
    def spoil(weights):
        weights["model.layers.1.mlp.up_proj.bias"][3] = value

    change_weights(run, spoil)
    with pytest.raises(ValueError, match=r"model.layers.1.mlp.up_proj.bias holds NaN or infinite weights"):
        check_run(run)


def test_missing_weights(run):
    change_weights(run, lambda weights: weights.pop("model.norm.weight"))
    with pytest.raises(
        ValueError, match=r"model.safetensors lacks weights that .*config.json asks for: model.norm.weight"
    ):
        check_run(run)
    (run / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="run has no weights"):
        check_run(run)


def test_weights_of_another_shape(run):
    def shrink(weights):
        weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:-1].clone()

    change_weights(run, shrink)
    with pytest.raises(ValueError, match=r"model.embed_tokens.weight \[31, 16\] instead of \[32, 16\]"):
        check_run(run)


def test_a_vocabulary_that_does_not_match_the_embedding(run):
    size = len(AutoTokenizer.from_pretrained(run))
    build_tokenizer([f"{item}" for item in range(size)]).save_pretrained(run)
    with pytest.raises(ValueError, match=f"the vocabulary has {size + 2} tokens, the model {size}"):
        check_run(run)


def test_a_vocabulary_of_as_many_other_items(run):
    items = item_list(AutoTokenizer.from_pretrained(run))
    build_tokenizer(items[::-1]).save_pretrained(run)
    with pytest.raises(ValueError, match="the model's items are not those of its vocabulary"):
        check_run(run)


def test_metrics_of_another_model(run):
    edit(run / "run.json", lambda record: record["reports"][0]["protocol"].update(num_items_ranked=7))
    with pytest.raises(ValueError, match="metrics are of a model with 7 items"):
        check_run(run)


def test_a_record_of_another_model(run):
    edit(run / "run.json", lambda record: record["parameters"].update(blocks=7))
    with pytest.raises(ValueError, match="they are of different models"):
        check_run(run)


def test_the_check_changes_no_weights(run):
    before = load_file(run / "model.safetensors")
    check_run(run)
    after = load_file(run / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
