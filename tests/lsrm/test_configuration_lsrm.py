import math

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError

from sr_transformers import LSRMConfig, LSRMForCausalLM
from sr_transformers.lsrm.configuration_lsrm import LSRM_SIZES, RELEASED_CODE_DROPOUT, layer_rates
from sr_transformers.training.finish import count_parameters

# The paper's table of sizes.
EXACT_N = {"98k": 98_304, "786k": 786_432, "1.5m": 1_572_864, "9m": 9_437_184, "75m": 75_497_472, "800m": 829_440_000}


@pytest.mark.parametrize("size", LSRM_SIZES)
def test_every_size_has_the_papers_n(size):
    assert LSRMConfig.from_size(size).num_non_embedding_parameters == EXACT_N[size]


@pytest.mark.parametrize("size", LSRM_SIZES)
def test_n_counts_the_matrices_of_the_real_model(size):
    with torch.device("meta"):
        model = LSRMForCausalLM(LSRMConfig.from_size(size, vocab_size=1000))
    groups = count_parameters(model)
    assert groups["blocks"] == EXACT_N[size]
    assert groups["item_embedding"] == 1000 * model.config.hidden_size
    assert sum(groups.values()) == model.num_parameters()


def test_the_largest_size_has_heads_of_width_50():
    config = LSRMConfig.from_size("800m")
    assert config.hidden_size // config.num_attention_heads == 50


def test_overrides_win_over_the_size():
    assert LSRMConfig.from_size("98k", max_position_embeddings=200).max_position_embeddings == 200


def test_an_unknown_size_is_refused_by_name():
    with pytest.raises(ValueError, match=r"unknown size '1b'.*98k"):
        LSRMConfig.from_size("1b")


def test_dropout_is_linear_in_depth():
    config = LSRMConfig(num_hidden_layers=5, residual_dropout=(0.5, 0.1), attention_dropout=0.2)
    assert config.layer_dropout("residual_dropout") == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1])
    assert config.layer_dropout("attention_dropout") == [0.2] * 5
    assert layer_rates((0.3, 0.1), 1) == [0.3]


def test_the_default_drops_more_at_the_bottom():
    rates = LSRMConfig(num_hidden_layers=4).layer_dropout("residual_dropout")
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > rates[-1]


def test_the_released_codes_dropout_reaches_the_layers():
    model = LSRMForCausalLM(LSRMConfig(num_hidden_layers=3, vocab_size=20, **RELEASED_CODE_DROPOUT))
    layers = model.model.layers
    assert [layer.residual_dropout.p for layer in layers] == pytest.approx([0.1, 0.15, 0.2])
    assert [layer.self_attn.attention_dropout for layer in layers] == pytest.approx([0.1] * 3)
    assert model.model.embedding_dropout.p == 0.1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hidden_size": 65}, "hidden_size 65 is not a multiple of num_attention_heads 2"),
        ({"intermediate_size": 0}, "intermediate_size is 0"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0; it must be at least 1"),
        ({"residual_dropout": (0.1, 1.0)}, r"residual_dropout is \(0.1, 1.0\); dropout rates lie in \[0, 1\)"),
        ({"embedding_dropout": -0.1}, "embedding_dropout is -0.1"),
        ({"attention_dropout": [0.1, 0.2, 0.3]}, "one rate or a pair"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps is nan; it must be a number, 0 or more"),
        ({"layer_norm_eps": -1e-9}, "layer_norm_eps is -1e-09"),
        ({"residual_dropout": (0.1, math.nan)}, "dropout rates lie in"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; it must be at least 1 and at most 4096"),
        ({"hidden_size": 10**9}, "hidden_size is 1000000000"),
        ({"vocab_size": 10**12}, "vocab_size is 1000000000000"),
        ({"max_position_embeddings": 10**8}, "max_position_embeddings is 100000000"),
        ({"initializer_range": math.nan}, "initializer_range is nan; it must be a number, 0 or more"),
        ({"initializer_range": -0.02}, "initializer_range is -0.02"),
        ({"layer_norm_eps": math.inf}, "layer_norm_eps is inf"),
        ({"hidden_act": "x"}, "hidden_act is 'x'; choose from .*gelu.*swiglu"),
        ({"position": "x"}, "position is 'x'; choose from learned, rotary, relative"),
        ({"attention": "x"}, "attention is 'x'; choose from softmax, pointwise"),
        ({"norm": "x"}, "norm is 'x'; choose from layer, rms"),
        ({"residual": "x"}, "residual is 'x'; choose from plain, gated"),
        ({"head": "x"}, "head is 'x'; choose from plain, scaled, normalised"),
        ({"position": "rotary", "hidden_size": 6}, "rotary positions turn pairs of numbers, and heads are 3 wide"),
        ({"pad_token_id": 10**9}, "pad_token_id is 1000000000; only tokens 0 and 1 are special"),
        ({"unk_token_id": -1}, "unk_token_id is -1"),
    ],
)
def test_what_cannot_be_built_is_refused_with_values(wrong, message):
    with pytest.raises(StrictDataclassClassValidationError, match=message):
        LSRMConfig(**wrong)


def test_a_config_survives_saving(tmp_path):
    config = LSRMConfig(vocab_size=77, residual_dropout=(0.3, 0.1))
    config.save_pretrained(tmp_path)
    again = LSRMConfig.from_pretrained(tmp_path)
    assert again.layer_dropout("residual_dropout") == config.layer_dropout("residual_dropout")
    assert again.num_non_embedding_parameters == config.num_non_embedding_parameters
    assert again.tie_word_embeddings is True
