import json
import logging
import os
import threading

import pytest
import torch
from made_mix import fill_mix
from safetensors.torch import save_file

from sr_transformers import LSRMConfig, LSRMForCausalLM
from sr_transformers.evaluation.weights import (
    in_words,
    read_json,
    refuse_no_numbers,
    some,
    tensor_names,
    without_report,
)

NOT_NUMBERS = [float("nan"), float("inf"), -float("inf")]


@pytest.fixture
def model():
    return LSRMForCausalLM(LSRMConfig(vocab_size=40, hidden_size=12, num_attention_heads=2, num_hidden_layers=1))


@pytest.mark.parametrize("value", NOT_NUMBERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_a_single_weight_that_is_no_number_is_found_wherever_it_stands(value, dtype, model):
    if dtype == torch.float8_e4m3fn:
        value = float("nan")  # it has no infinity
    model.to(dtype)
    refuse_no_numbers(model, "here")
    weight = model.model.layers[0].mlp.up_proj.weight.detach().view(-1)
    for place in range(0, len(weight), 37):
        before = weight[place].clone()
        weight[place] = torch.tensor(value).to(dtype)
        with pytest.raises(ValueError, match=r"here: model.layers.0.mlp.up_proj.weight holds NaN or infinite weights"):
            refuse_no_numbers(model, "here")
        weight[place] = before
    refuse_no_numbers(model, "here")


def test_the_largest_numbers_are_numbers(model):
    model.half()
    with torch.no_grad():
        model.model.embed_tokens.weight.fill_(torch.finfo(torch.float16).max)  # their sum is none
    refuse_no_numbers(model, "here")


def test_offloaded_weights_are_looked_at_too(model, tmp_path):
    accelerate = pytest.importorskip("accelerate")
    with torch.no_grad():
        model.model.norm.bias[3] = float("nan")
    model.tie_weights()
    accelerate.disk_offload(model, tmp_path)
    assert model.model.norm.bias.is_meta
    with pytest.raises(ValueError, match=r"here: model.norm.bias holds NaN"):
        refuse_no_numbers(model, "here")


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        *(
            (f"{kind}_{name}", place, value)
            for kind in ("recent", "successor")
            for name, place, value in (
                ("starts", 1, -1),
                ("starts", 1, 10**6),
                ("starts", -1, 0),  # below the start before it
                ("tokens", 1, -1),
                ("tokens", 1, 12),
                ("counts", 1, -1),
            )
        ),
        ("popularity", 1, -5),
    ],
)
def test_tables_of_a_mix_that_no_counting_gives_are_found(name, place, value):
    sizes = {"vocab_size": 12, "hidden_size": 8, "num_hidden_layers": 1}
    model = LSRMForCausalLM(LSRMConfig(**sizes, history=["baskets", "mix"]))
    refuse_no_numbers(model, "here")  # nothing was counted yet
    fill_mix(model, [3, 9])
    refuse_no_numbers(model, "here")
    getattr(model.history.mix, name).view(-1)[place] = value
    with pytest.raises(ValueError, match=f"here: history.mix.{name} holds numbers that no counting gives"):
        refuse_no_numbers(model, "here")


def test_names_come_from_the_heads_of_files(tmp_path):
    weights = {"a": torch.ones(2), "b.c": torch.ones(3, 1)}
    save_file(weights, tmp_path / "w.safetensors")
    torch.save(weights, tmp_path / "w.bin")
    assert tensor_names(tmp_path / "w.safetensors") == tensor_names(tmp_path / "w.bin") == {"a", "b.c"}


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin"])
@pytest.mark.parametrize("size", [0, 5, 200, -1])
def test_a_file_that_is_cut_is_named(name, size, tmp_path):
    path = tmp_path / name
    weights = {f"a{n}": torch.ones(9) for n in range(9)}
    save_file(weights, path) if name.endswith("safetensors") else torch.save(weights, path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=f"{path} is damaged"):
        tensor_names(path)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_a_pickle_that_would_run_code_stays_unread(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Evil()}, "w.bin")
    with pytest.raises(ValueError, match="holds more than weights and could run code: it stays unread") as caught:
        tensor_names(tmp_path / "w.bin")
    assert "weights_only" not in str(caught.value)  # torch advises to switch the check off
    assert not (tmp_path / "ran").exists()


def test_what_is_no_json_object_is_named(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"a": 1}))
    assert read_json(path) == {"a": 1}
    for content in (b"", b'{"a":', b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{path} is damaged or cut short"):
            read_json(path)
    path.write_text("[1]")
    with pytest.raises(ValueError, match=f"{path} is damaged: it holds no JSON object"):
        read_json(path)


def test_errors_of_libraries_are_one_line():
    with pytest.raises(Exception, match="vocab_size is 0") as caught:
        LSRMConfig(vocab_size=0)
    assert in_words(caught.value) == str(caught.value.__cause__)
    assert in_words(KeyError("x")) == "KeyError 'x'"
    assert in_words(OSError("a\n  b")) == "a b"


def test_long_lists_of_names_are_cut():
    assert some(["b", "a"]) == "a, b"
    assert some(f"n{n:02}" for n in range(20)) == "n00, n01, n02, n03, n04, n05 and 14 more"


def test_only_the_report_of_this_thread_is_kept_from_the_log():
    logger, handler = logging.getLogger("transformers.modeling_utils"), logging.StreamHandler()
    heard = []
    handler.emit = lambda record: heard.append(record.getMessage())
    logger.addHandler(handler)
    try:
        with without_report():
            logger.warning("x LOAD REPORT from: here")
            logger.warning("something else")
            other = threading.Thread(target=logger.warning, args=("x LOAD REPORT from: another thread",))
            other.start()
            other.join()
        logger.warning("x LOAD REPORT from: later")
    finally:
        logger.removeHandler(handler)
    assert heard == ["something else", "x LOAD REPORT from: another thread", "x LOAD REPORT from: later"]
