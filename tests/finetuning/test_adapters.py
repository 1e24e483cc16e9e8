import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from sr_transformers import LSRMConfig, LSRMForCausalLM

peft = pytest.importorskip("peft", reason="adapters need the extra lora")
from sr_transformers.finetuning.adapters import adapt  # noqa: E402


@pytest.fixture
def adapted():
    """A model with adapters that do something, and what merges them."""
    torch.manual_seed(0)
    model = LSRMForCausalLM(LSRMConfig(vocab_size=40, hidden_size=12, max_position_embeddings=6, initializer_range=0.3))
    merge = adapt(model.eval(), 2)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    return model, merge


def scores(model):
    with torch.no_grad():
        return model(torch.tensor([[3, 4, 5]])).logits


def test_what_is_saved_in_between_loads_like_any_model(adapted, tmp_path):
    model, _ = adapted
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(scores(AutoModelForCausalLM.from_pretrained(tmp_path)), scores(model))


def test_training_goes_on_from_it_bit_for_bit(adapted, tmp_path):
    model, _ = adapted
    model.save_pretrained(tmp_path)
    saved = {name: value.clone() for name, value in model.named_parameters()}
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1)
    found = model.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=False)
    assert found.unexpected_keys == []
    assert set(found.missing_keys) <= {"lm_head.weight"}  # tied
    assert all(torch.equal(saved[name], value) for name, value in model.named_parameters())


def test_merged_it_is_an_ordinary_model(adapted, tmp_path):
    model, merge = adapted
    before = scores(model)
    merge.on_train_end(None, None, None)
    torch.testing.assert_close(scores(model), before)
    model.save_pretrained(tmp_path)
    names = set(load_file(tmp_path / "model.safetensors"))
    assert names == set(LSRMForCausalLM(model.config).state_dict()) - {"lm_head.weight"}
    assert "lora" not in json.dumps(sorted(names))


def test_every_matrix_of_the_body_has_one():
    config = LSRMConfig(vocab_size=20, hidden_size=8, num_hidden_layers=2, hidden_act="swiglu", residual="gated")
    model = LSRMForCausalLM(config)
    matrices = {name for name, p in model.named_parameters() if ".layers." in name and p.ndim == 2}
    adapt(model, 2)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad and p.ndim == 2}
    assert len(matrices) == 2 * 9
    assert {name.replace("base_layer.", "") for name in frozen if "base_layer" in name} == matrices
