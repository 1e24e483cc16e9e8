"""What a folder holds is loaded whole or refused by name. Revisions and the Hub: tests/hub/test_revisions.py."""

import json
import logging
import os
import pickle
import shutil

import pytest
import torch
from made_mix import fill_mix
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, pipeline

from sr_transformers import LSRMConfig, LSRMForCausalLM, Recommender
from sr_transformers.data.vocabulary import build_tokenizer
from sr_transformers.evaluation.loading import Checkpoint

ITEMS = [f"i{n}" for n in range(20)]
WEIGHTS, CONFIG = "model.safetensors", "config.json"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    torch.manual_seed(0)
    config = LSRMConfig(
        vocab_size=len(ITEMS) + 2, hidden_size=8, num_hidden_layers=2, max_position_embeddings=6, initializer_range=0.5
    )
    LSRMForCausalLM(config).save_pretrained(folder)
    build_tokenizer(ITEMS).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(saved, tmp_path / "m")


def recommend(folder):
    return Recommender.from_pretrained(folder).recommend(["i3", "i4"], 5)


def same(found, expected):
    assert [one.item for one in found] == [one.item for one in expected]
    assert [one.probability for one in found] == pytest.approx([one.probability for one in expected], rel=1e-5)


# Names


@pytest.mark.parametrize("what", ["", "deeper"])
def test_a_folder_without_a_model_is_named(what, tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path / what} holds no model \(config.json is missing\)"):
        Checkpoint(tmp_path, subfolder=what)


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "no such/place", "/runs/missing"])
def test_what_is_neither_a_folder_nor_a_name_on_the_hub_never_reaches_it(name, monkeypatch):
    monkeypatch.setattr("sr_transformers.evaluation.loading.hf_hub_download", None)
    with pytest.raises(FileNotFoundError, match=f"{name}: there is no such folder"):
        Checkpoint(name)


def test_what_the_hub_does_not_give_is_named():
    with pytest.raises(OSError, match="org/absent: there is no such folder, and the Hub did not give it"):
        Checkpoint("org/absent")  # the tests have no Hub


def test_a_folder_is_loaded(saved):
    one = Checkpoint(saved)
    assert one.config().vocab_size == one.model().config.vocab_size == len(one.tokenizer()) == len(ITEMS) + 2
    assert (one.name, one.commit, one.file("nothing"), one.file(CONFIG)) == (str(saved), None, None, saved / CONFIG)
    assert one.model(dtype=torch.bfloat16).dtype == torch.bfloat16


def test_several_files_and_pickles_are_the_same_model(saved, folder):
    expected = recommend(saved)
    model = Checkpoint(folder).model()
    (folder / WEIGHTS).unlink()
    model.save_pretrained(folder, max_shard_size="2KB")
    assert (folder / "model.safetensors.index.json").exists()
    same(recommend(folder), expected)
    shutil.rmtree(folder)
    shutil.copytree(saved, folder)
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    same(recommend(folder), expected)


def test_another_architecture_loads_as_well(folder):
    config = LlamaConfig(
        vocab_size=len(ITEMS) + 2, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=6, pad_token_id=0, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    for name in (CONFIG, WEIGHTS, "generation_config.json"):
        (folder / name).unlink()
    LlamaForCausalLM(config).save_pretrained(folder)
    assert len(recommend(folder)) == 5
    weights(lambda found: found.pop("model.layers.0.mlp.gate_proj.weight"))(folder)
    with pytest.raises(ValueError, match=r"lacks weights .* model.layers.0.mlp.gate_proj.weight"):
        recommend(folder)


def test_the_base_model_alone_is_enough_for_a_tied_head(folder):
    expected = recommend(folder)
    Checkpoint(folder).model().model.save_pretrained(folder)
    assert "embed_tokens.weight" in load_file(folder / WEIGHTS)
    same(recommend(folder), expected)


# Damage


def cut(name, part=0.5):
    def spoil(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * part)])

    return spoil


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def remove(name):
    return lambda folder: (folder / name).unlink()


def weights(change):
    def spoil(folder):
        found = load_file(folder / WEIGHTS)
        change(found)
        save_file(found, folder / WEIGHTS, {"format": "pt"})

    return spoil


def without(part):
    def change(found):
        for name in [name for name in found if part in name]:
            del found[name]

    return weights(change)


def config(name=CONFIG, **changes):
    def spoil(folder):
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | changes))

    return spoil


def in_parts(change):
    """The weights in several files, and then something happens to one of them."""

    def spoil(folder):
        model = Checkpoint(folder).model()
        (folder / WEIGHTS).unlink()
        model.save_pretrained(folder, max_shard_size="2KB")
        change(folder)

    return spoil


def as_pickle(content=None):
    def spoil(folder):
        torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
        (folder / WEIGHTS).unlink()
        if content is not None:
            (folder / "pytorch_model.bin").write_bytes(content)

    return spoil


class Evil:
    def __reduce__(self):
        return os.mkdir, ("ran",)


PART = "model-00002-of-00006.safetensors"
LACKS = r"m/model.safetensors lacks weights that \S+m/config.json asks for: "
DAMAGE = {
    # id: (what happens to the folder, what the message says)
    "a layer is gone": (without("layers.0"), LACKS + r"model.layers.0.input_layernorm.bias, .* and 10 more"),
    "a bias is gone": (without("layers.1.mlp.up_proj.bias"), LACKS + r"model.layers.1.mlp.up_proj.bias\. "),
    "the table is gone": (without("embed_tokens"), LACKS + r".*model.embed_tokens.weight"),
    "no layer is left": (weights(lambda found: [found.pop(name) for name in list(found)[1:]]), "num_hidden_layers 2"),
    "a weight too many": (weights(lambda found: found.update(x=torch.ones(1))), r"weights that .* does not know: x\."),
    "NaN": (weights(lambda found: found["model.norm.bias"].fill_(float("nan"))),
            r"m/model.safetensors: model.norm.bias holds NaN or infinite weights"),
    "infinity": (weights(lambda found: found["model.norm.bias"].fill_(-float("inf"))), "holds NaN or infinite weights"),
    "weights cut": (cut(WEIGHTS), r"m/model.safetensors is damaged or cut short"),
    "weights almost whole": (cut(WEIGHTS, 0.999), r"m/model.safetensors is damaged or cut short"),
    "weights empty": (write(WEIGHTS, b""), r"m/model.safetensors is damaged or cut short"),
    "weights of noise": (write(WEIGHTS, bytes(range(256)) * 9), r"m/model.safetensors is damaged or cut short"),
    "weights gone": (remove(WEIGHTS), r"m has no weights \(model.safetensors or pytorch_model.bin is missing\)"),
    "a part gone": (in_parts(remove(PART)), rf"model.safetensors.index.json names files that are missing: {PART}"),
    "a part cut": (in_parts(cut(PART)), rf"m/{PART} is damaged or cut short"),
    "index cut": (in_parts(cut("model.safetensors.index.json")), r"m/model.safetensors.index.json is damaged"),
    "index empty": (in_parts(write("model.safetensors.index.json", b"{}")), r"safetensors.index.json does not say"),
    "pickle with code": (as_pickle(pickle.dumps(Evil())), r"m/pytorch_model.bin is damaged, or holds more"),
    "pickle cut": (as_pickle(b"PK\x03\x04 and no more"), r"m/pytorch_model.bin is damaged or cut short"),
    "pickle empty": (as_pickle(b""), r"m/pytorch_model.bin is damaged or cut short"),
    "one layer less": (config(num_hidden_layers=1), r"does not know: model.layers.1.*different models"),
    "one layer more": (config(num_hidden_layers=3), LACKS + "model.layers.2"),
    "4,000 layers": (config(num_hidden_layers=4000), r"m/config.json says num_hidden_layers 4,000, but .* 36 tensors"),
    "10 million layers": (config(num_hidden_layers=10**7), r"m/config.json .* not load: num_hidden_layers is 10000000"),
    "untied": (config(tie_word_embeddings=False), LACKS + r"lm_head.weight"),
    "more items": (config(vocab_size=500), r"shapes .* model.embed_tokens.weight \[22, 8\] instead of \[500, 8\]"),
    "a billion items": (config(vocab_size=10**9), r"model.embed_tokens.weight .* instead of \[1000000000, 8\]"),
    "wider": (config(hidden_size=1 << 17), r"model.safetensors has other shapes than .*config.json asks for"),
    "window": (config(max_position_embeddings=9), r"model.embed_positions.weight \[6, 8\] instead of \[9, 8\]"),
    "negative items": (config(vocab_size=-1), r"m/config.json does not load: vocab_size is -1; it must be at least 1"),
    "no heads": (config(num_attention_heads=0), r"m/config.json does not load: num_attention_heads is 0"),
    "words for numbers": (config(num_hidden_layers="x"), r"m/config.json does not load: .*_layers' expected int"),
    "NaN as epsilon": (config(layer_norm_eps=float("nan")), r"m/config.json does not load: layer_norm_eps is nan"),
    "negative epsilon": (config(layer_norm_eps=-1.0), r"m/config.json does not load: layer_norm_eps is -1.0"),
    "no such activation": (config(hidden_act="nope"), r"m/config.json does not load: hidden_act is 'nope'"),
    "no such type": (config(dtype="zz"), r"m/config.json does not load: AttributeError"),
    "padding outside": (config(pad_token_id=10**6), r"m/config.json does not load: pad_token_id is 1000000"),
    "auto_map of no use": (config(auto_map=5), r"m/config.json does not load"),
    "unknown architecture": (config(model_type="zzz"), r"m/config.json does not load: .*custom code"),
    "config cut": (cut(CONFIG), r"m/config.json is damaged or cut short"),
    "config a list": (write(CONFIG, b"[1]"), r"m/config.json is damaged: it holds no JSON object"),
    "config of noise": (write(CONFIG, bytes(range(256))), r"m/config.json is damaged or cut short"),
    "generation cut": (cut("generation_config.json"), r"m/generation_config.json is damaged or cut short"),
    "generation a list": (write("generation_config.json", b"[]"), r"m/generation_config.json is damaged"),
    "vocabulary cut": (cut("tokenizer.json"), r"m/tokenizer.json is damaged or cut short"),
    "vocabulary empty": (write("tokenizer.json", b""), r"m/tokenizer.json is damaged or cut short"),
    "vocabulary of nothing": (write("tokenizer.json", b"{}"), r"m/tokenizer.json does not load"),
    "vocabulary gone": (remove("tokenizer.json"), r"m has no tokenizer.json, so no item vocabulary"),
    # without it integer ids would come back as text
    "vocabulary's settings gone": (remove("tokenizer_config.json"), r"m has no tokenizer_config.json"),
    "vocabulary's settings cut": (cut("tokenizer_config.json"), r"m/tokenizer_config.json is damaged or cut short"),
    "vocabulary's settings a list": (write("tokenizer_config.json", b"[]"), r"m/tokenizer_config.json is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_not_whole_is_refused_by_name(what, folder, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)  # or caplog hears nothing of it
    spoil, message = DAMAGE[what]
    spoil(folder)
    monkeypatch.chdir(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        recommend(folder)
    assert not (folder / "ran").exists()
    assert "LOAD REPORT" not in caplog.text


def test_no_memory_is_not_called_damage(folder, monkeypatch):
    def fail(*_, **__):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", fail)
    with pytest.raises(torch.OutOfMemoryError):
        Checkpoint(folder).model()


def test_sizes_that_differ_are_refused_though_one_asks_for_them(folder):
    config(vocab_size=30)(folder)
    with pytest.raises(ValueError, match="other shapes"):
        Checkpoint(folder).model(ignore_mismatched_sizes=True)


# Adapters


@pytest.fixture(scope="module")
def adapted(saved, tmp_path_factory):
    """Folder of an adapter, and what it recommends."""
    peft = pytest.importorskip("peft", reason="adapters need the extra lora")
    folder = tmp_path_factory.mktemp("adapted") / "adapter"
    torch.manual_seed(1)
    settings = peft.LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    opened = Checkpoint(saved)
    model = peft.get_peft_model(opened.model(), settings)
    model.save_pretrained(folder)
    expected = Recommender(model.base_model.model, opened.tokenizer()).recommend(["i3", "i4"], 5)
    assert expected != recommend(saved)
    return folder, expected


@pytest.fixture
def adapter(adapted, tmp_path):
    return shutil.copytree(adapted[0], tmp_path / "a")


def test_an_adapter_takes_model_and_vocabulary_from_where_it_belongs(adapted, adapter):
    same(recommend(adapter), adapted[1])
    assert Checkpoint(adapter).config().vocab_size == len(ITEMS) + 2


def adapter_weights(change):
    def spoil(folder):
        found = load_file(folder / "adapter_model.safetensors")
        change(found)
        save_file(found, folder / "adapter_model.safetensors", {"format": "pt"})

    return spoil


ADAPTER_DAMAGE = {
    "a matrix is gone": (adapter_weights(lambda found: found.pop(next(iter(found)))),
                         r"a/adapter_model.safetensors lacks weights that \S+a/adapter_config.json asks for: .*lora_A"),
    "NaN": (adapter_weights(lambda found: found[next(iter(found))].fill_(float("nan"))),
            r"a/adapter_model.safetensors: .*lora_A.* holds NaN"),
    "a matrix too many": (adapter_weights(lambda found: found.update(x=torch.ones(1))), r"does not know: x\."),
    "cut": (cut("adapter_model.safetensors"), r"a/adapter_model.safetensors is damaged or cut short"),
    "gone": (remove("adapter_model.safetensors"), r"a has no weights \(adapter_model.safetensors or"),
    "another rank": (config("adapter_config.json", r=3), r"a/adapter_config.json and .*safetensors do not load"),
    "more matrices": (config("adapter_config.json", target_modules=["q_proj", "up_proj", "k_proj"]), r"k_proj.lora_A"),
    "settings cut": (cut("adapter_config.json"), r"a/adapter_config.json is damaged or cut short"),
    "of no model": (config("adapter_config.json", base_model_name_or_path=None), r"a/adapter_config.json does not say"),
    "of a model that is gone": (config("adapter_config.json", base_model_name_or_path="nowhere"),
                                r"a/adapter_config.json: the model that .* belongs to does not load. nowhere:"),
    "of a revision of a folder": (config("adapter_config.json", revision="v1"), r"which has no revision v1"),
}  # fmt: skip


@pytest.mark.parametrize("what", ADAPTER_DAMAGE)
def test_an_adapter_that_is_not_whole_is_refused_by_name(what, adapter):
    spoil, message = ADAPTER_DAMAGE[what]
    spoil(adapter)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        recommend(adapter)


def test_an_adapter_of_an_adapter_ends(adapter):
    config("adapter_config.json", base_model_name_or_path=str(adapter))(adapter)
    with pytest.raises(ValueError, match="which is an adapter itself; merge that one first"):
        recommend(adapter)


def test_the_model_below_an_adapter_is_whole_too(folder, adapter):
    """transformers tells of the adapter's weights only."""
    config("adapter_config.json", base_model_name_or_path=str(folder))(adapter)
    recommend(adapter)
    without("layers.0")(folder)
    with pytest.raises(ValueError, match=LACKS + "model.layers.0"):
        recommend(adapter)


def test_an_adapter_is_not_left_out_where_peft_is_missing(adapter, monkeypatch):
    monkeypatch.setattr("sr_transformers.evaluation.loading.is_peft_available", lambda: False)
    with pytest.raises(ValueError, match=r"a is an adapter, which needs peft: pip install"):
        recommend(adapter)


def test_a_model_and_an_adapter_in_one_folder_are_refused(folder, adapter):
    for file in adapter.iterdir():
        shutil.copy(file, folder)
    with pytest.raises(ValueError, match=r"m holds both a whole model \(config.json\) and an adapter"):
        recommend(folder)


def test_adapters_that_were_never_merged_are_refused(saved, folder):
    """As a run leaves them that trains somebody's own adapters; on the head nothing is missing, as it is tied."""
    peft = pytest.importorskip("peft", reason="adapters need the extra lora")
    for targets in (["q_proj"], ["lm_head"]):
        model = Checkpoint(saved).model()
        peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=targets))
        state = {name: value.clone() for name, value in model.state_dict().items()}
        save_file(state, folder / WEIGHTS, {"format": "pt"})
        with pytest.raises(ValueError, match="It holds adapters that were never merged: load the finished run"):
            recommend(folder)


# What everybody else calls: transformers


@pytest.mark.parametrize("part", ["layers.1.", "embed_positions", "norm.weight"])
def test_transformers_loads_our_models_whole_or_not_at_all(saved, folder, part):
    ways = (
        LSRMForCausalLM.from_pretrained,
        AutoModelForCausalLM.from_pretrained,
        lambda where: pipeline("next-item", model=str(where), device="cpu"),
        AutoModel.from_pretrained,
    )
    for load in ways:
        load(saved)
    weights = load_file(folder / WEIGHTS)
    save_file({name: one for name, one in weights.items() if part not in name}, folder / WEIGHTS, {"format": "pt"})
    for load in ways:
        with pytest.raises(ValueError, match=rf"lacks weights of LSRM\w+: .*{part}"):
            load(folder)
    _, found = LSRMForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert all(part in name for name in found["missing_keys"])


def test_counts_that_no_counting_gives_are_refused(tmp_path):
    model = LSRMForCausalLM(LSRMConfig(vocab_size=12, hidden_size=8, num_hidden_layers=1, history=["mix"]))
    fill_mix(model, [])
    model.history.mix.successor_tokens[3] = -7
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path / WEIGHTS}: history.mix.successor_tokens holds numbers that no"):
        Checkpoint(tmp_path).model()
