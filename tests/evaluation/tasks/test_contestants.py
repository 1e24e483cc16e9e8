"""Any causal language model over item tokens takes part: ours, and tiny Llama and Qwen3 models."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

from sr_transformers.evaluation.evaluator import evaluate
from sr_transformers.evaluation.loading import Checkpoint
from sr_transformers.evaluation.model_scorer import ModelScorer
from sr_transformers.evaluation.tasks.contestants import count_block_parameters, model_contestant
from sr_transformers.evaluation.tasks.runner import run_tasks
from sr_transformers.evaluation.tasks.task import TaskOptions
from sr_transformers.lsrm.configuration_lsrm import LSRMConfig
from sr_transformers.lsrm.modeling_lsrm import LSRMForCausalLM
from sr_transformers.training.binding import bind
from sr_transformers.training.mixing import fit_mix

OPTIONS = TaskOptions(draws=20)
SHAPE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 8,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}
KINDS = {
    "lsrm": LSRMConfig,
    "llama": lambda **more: LlamaConfig(num_key_value_heads=2, bos_token_id=None, eos_token_id=None, **more),
    "qwen3": lambda **more: Qwen3Config(
        num_key_value_heads=1, head_dim=8, bos_token_id=None, eos_token_id=None, tie_word_embeddings=False, **more
    ),
}


@pytest.fixture(scope="module")
def saved(markov_prepared, tmp_path_factory):
    """A folder with a model of each kind, untrained."""
    folder = tmp_path_factory.mktemp("models")
    for name, kind in KINDS.items():
        torch.manual_seed(0)
        config = kind(vocab_size=markov_prepared.vocab_size, **SHAPE)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / name)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_any_causal_model_takes_part(kind, saved, markov_prepared):
    one = model_contestant(kind, [saved / kind], markov_prepared)
    report = run_tasks([one], markov_prepared, ["overall", "robustness"], OPTIONS)
    expected = evaluate(ModelScorer(Checkpoint(saved / kind).model()), markov_prepared)["metrics"]
    row = report["tasks"]["overall"]["results"][0]
    for metric in ("hr@10", "mrr", "loss"):
        assert row["metrics"][metric]["value"] == pytest.approx(expected[metric], rel=1e-5)
    assert report["models"][0]["checkpoints"] == [kind]


def test_a_model_that_reads_the_past_takes_part_in_every_task(log_of, letters, tmp_path):
    """History that is noisy, cut or rolled out is counted as the model counts any other, and mixed."""
    histories = {f"user {n}": (letters * 4)[n % 26 : n % 26 + 14 + n % 50] for n in range(60)}
    domains = {letter: "first" if letter < "N" else "second" for letter in letters}
    data = log_of(histories, domains, split="paper", unseen_share=0.3)
    torch.manual_seed(0)
    parts = ["bigrams", "items", "baskets", "clock", "mix"]
    model = LSRMForCausalLM(LSRMConfig(vocab_size=data.vocab_size, history=parts, **SHAPE))
    bind(model, data, None)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter)
    assert fit_mix(model.eval(), data)["share"] > 0
    model.save_pretrained(tmp_path / "past")
    one = model_contestant("past", [tmp_path / "past"], data)
    assert one.facts["num_non_embedding_parameters"] == model.config.num_non_embedding_parameters
    report = run_tasks([one], data, options=OPTIONS)
    assert [name for name, task in report["tasks"].items() if "not_run" in task] == ["time_drift"]
    expected = evaluate(ModelScorer(Checkpoint(tmp_path / "past").model()), data)["metrics"]
    row = report["tasks"]["overall"]["results"][0]
    for metric in ("hr@10", "mrr", "loss"):
        assert row["metrics"][metric]["value"] == pytest.approx(expected[metric], rel=1e-5)


def test_n_counts_the_matrices_of_the_blocks(markov_prepared):
    for more in ({}, {"history": ["recency", "items", "baskets", "clock"]}, {"position": "relative"}):
        model = LSRMForCausalLM(LSRMConfig(vocab_size=markov_prepared.vocab_size, **SHAPE, **more))
        assert count_block_parameters(model) == model.config.num_non_embedding_parameters
    llama = AutoModelForCausalLM.from_config(KINDS["llama"](vocab_size=markov_prepared.vocab_size, **SHAPE))
    assert count_block_parameters(llama) == 2 * (4 * 16 * 16 + 3 * 16 * 32)
    qwen = AutoModelForCausalLM.from_config(KINDS["qwen3"](vocab_size=markov_prepared.vocab_size, **SHAPE))
    assert count_block_parameters(qwen) == 2 * (2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 32)  # an untied head is none


def test_the_window_can_be_narrowed(saved, markov_prepared):
    scorer = model_contestant("x", [saved / "llama"], markov_prepared, window=3).checkpoints[0]()
    assert scorer.window == 3


def test_a_model_that_lacks_a_layer_is_refused_before_its_turn(saved, markov_prepared, tmp_path):
    folder = shutil.copytree(saved / "lsrm", tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    save_file({name: one for name, one in weights.items() if "layers.1" not in name}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"m/model.safetensors lacks weights that .* model.layers.1"):
        model_contestant("x", [folder], markov_prepared)


def test_another_vocabulary_is_refused(saved, prepared):
    with pytest.raises(
        ValueError, match=r"llama has 32 tokens, .* has 12: the model was trained on another vocabulary"
    ):
        model_contestant("x", [saved / "llama"], prepared)


def test_checkpoints_of_one_name_have_one_size(saved, markov_prepared):
    with pytest.raises(ValueError, match="x: its checkpoints are of different sizes"):
        model_contestant("x", [saved / "llama", saved / "qwen3"], markov_prepared)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        (None, "split", "temporal", "with split temporal, .* has leave_one_out"),
        ("counts", "train_interactions", 7, "with train_interactions 7"),
    ],
)
def test_a_model_that_was_trained_on_another_split_is_refused(
    section, key, value, message, saved, markov_prepared, tmp_path
):
    folder = tmp_path / "run"
    Checkpoint(saved / "lsrm").model().save_pretrained(folder)
    manifest = json.loads(json.dumps(markov_prepared.manifest))
    (folder / "run.json").write_text(json.dumps({"data": manifest, "command": "train", "seed": 7, "commit": None}))
    facts = model_contestant("x", [folder], markov_prepared).facts
    assert facts["training"] == [{"command": "train", "seed": 7, "commit": None}]
    (manifest[section] if section else manifest)[key] = value
    (folder / "run.json").write_text(json.dumps({"data": manifest}))
    with pytest.raises(ValueError, match=message):
        model_contestant("x", [folder], markov_prepared)


def test_a_run_json_of_somebody_else_is_none_of_ours(saved, markov_prepared, tmp_path):
    Checkpoint(saved / "lsrm").model().save_pretrained(tmp_path)
    (tmp_path / "run.json").write_text('{"steps": 3}')
    assert model_contestant("x", [tmp_path], markov_prepared).facts["training"] == []
