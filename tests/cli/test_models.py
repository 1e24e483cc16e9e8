"""Models that are not whole, by command: one line that names the file, exit code 2, and nothing is left behind."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from sr_transformers import Recipe, train
from sr_transformers.cli import main


@pytest.fixture(scope="module")
def run(markov_prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "run"
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "max_position_embeddings": 8}
    train(Recipe("tiny", shape, {"max_steps": 2, "precision": "fp32", "disable_tqdm": True}), markov_prepared, folder)
    return folder


def change_weights(folder, change):
    found = load_file(folder / "model.safetensors")
    change(found)
    save_file(found, folder / "model.safetensors", {"format": "pt"})


def lack_a_layer(folder):
    change_weights(folder, lambda found: [found.pop(name) for name in list(found) if "layers.0" in name])


def diverge(folder):
    change_weights(folder, lambda found: found["model.norm.weight"].fill_(float("nan")))


def cut(folder):
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])


class Evil:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def pickle_code(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"a": Evil()}, folder / "pytorch_model.bin")


def grow(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_attention_heads": 0}))


def cut_vocabulary(folder):
    (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text()[:700])


DAMAGE = {
    "a layer is gone": (lack_a_layer, "m/model.safetensors lacks weights that"),
    "NaN": (diverge, "m/model.safetensors: model.norm.weight holds NaN or infinite weights"),
    "cut": (cut, "m/model.safetensors is damaged or cut short"),
    "code": (pickle_code, "m/pytorch_model.bin is damaged, or holds more than weights"),
    "no heads": (grow, "m/config.json does not load: num_attention_heads is 0"),
    "vocabulary cut": (cut_vocabulary, "m/tokenizer.json is damaged or cut short"),
}
COMMANDS = {
    "recommend": ["--model", "m", "--history", "3", "4"],
    "evaluate": ["--data", "DATA", "--model", "m"],
    "tasks": ["--data", "DATA", "--model", "m", "--task", "overall"],
    "finetune": ["tiny.yaml", "--model", "m", "--data", "DATA", "--output", "o", "--max_steps", "2"],
    "export": ["--model", "m", "--output", "o", "-k", "5"],
    "publish": ["m", "a/b", "--dry-run", "--output", "o"],
    "demo": ["m"],
}
NEEDS = {"export": "onnxruntime", "demo": "gradio"}
READS_NO_VOCABULARY = ("evaluate", "tasks")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("what", DAMAGE)
def test_a_model_that_is_not_whole(what, command, run, markov_prepared, tmp_path, monkeypatch, capsys):
    if command in NEEDS:
        package = pytest.importorskip(NEEDS[command], reason=f"{command} needs an extra")
        if command == "demo":  # a page that is shown all the same would be shown for ever
            monkeypatch.setattr(package.Blocks, "launch", lambda *_, **__: None)
    if what == "vocabulary cut" and command in READS_NO_VOCABULARY:
        pytest.skip(f"{command} reads no vocabulary beside a model")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, "m", ignore=shutil.ignore_patterns("checkpoint-*"))
    (tmp_path / "tiny.yaml").write_text("model: {hidden_size: 16, num_hidden_layers: 2, max_position_embeddings: 8}\n")
    spoil, message = DAMAGE[what]
    spoil(tmp_path / "m")
    before = set(tmp_path.rglob("*"))
    words = [str(markov_prepared.path) if word == "DATA" else word for word in COMMANDS[command]]
    assert main([command, *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    lines = [line for line in said.err.splitlines() if line.strip() and "%|" not in line]  # without bars
    assert len(lines) == 1, said.err
    assert lines[0].startswith(f"sr-transformers {command}: ")
    assert message in lines[0]
    assert "Traceback" not in said.err
    assert set(tmp_path.rglob("*")) == before
