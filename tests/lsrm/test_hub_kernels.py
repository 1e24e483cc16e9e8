"""The contract with kernels of the Hub, on a CPU: what transformers hands to `kernels-community/flash-attn2`.

The kernel itself needs a GPU. Here a stand-in has its two functions and computes them in torch, so that everything on
the way to it is real: the choice by name, users told apart by `cu_seq_lens`, padding taken out, dropout handed on.
"""

import types

import pytest
import torch
from transformers import set_seed

from sr_transformers import LSRMConfig, LSRMForCausalLM

NAME = "kernels-community/flash-attn2"


@pytest.fixture
def calls(monkeypatch):
    """What the stand-in was called with."""
    found = []

    def attend(q, k, v, scale, causal):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)

    def varlen(q, k, v, cu_seqlens_q, cu_seqlens_k, causal, softmax_scale, dropout_p=0.0, **kwargs):
        found.append({"bounds": cu_seqlens_q.tolist(), "dropout": dropout_p, "causal": causal})
        parts = []
        for start, stop in zip(cu_seqlens_q[:-1].tolist(), cu_seqlens_q[1:].tolist(), strict=True):
            one = [t[start:stop].transpose(0, 1)[None] for t in (q, k, v)]
            parts.append(attend(*one, softmax_scale, causal)[0].transpose(0, 1))
        return torch.cat(parts)

    def dense(q, k, v, causal, softmax_scale, dropout_p=0.0, **kwargs):
        found.append({"bounds": None, "dropout": dropout_p, "causal": causal})
        one = [t.transpose(1, 2) for t in (q, k, v)]
        return attend(*one, softmax_scale, causal and q.shape[1] > 1).transpose(1, 2)

    def get_kernel(repo, **kwargs):
        assert repo == NAME
        return types.SimpleNamespace(flash_attn_varlen_func=varlen, flash_attn_func=dense)

    monkeypatch.setattr("transformers.integrations.hub_kernels.get_kernel", get_kernel)
    for module in ("transformers.integrations.hub_kernels", "transformers.modeling_utils"):
        monkeypatch.setattr(f"{module}.is_kernels_available", lambda *args, **kwargs: True)
    # transformers keeps the functions that it has loaded; afterwards it must not go on with these.
    monkeypatch.setattr("transformers.modeling_flash_attention_utils._loaded_implementation", None)
    return found


def make(attention, **more):
    set_seed(0)
    config = LSRMConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, max_position_embeddings=12, initializer_range=0.3, **more
    )
    return LSRMForCausalLM._from_config(config, attn_implementation=attention)


IDS = torch.tensor([[7, 3, 9, 22, 31, 4, 8, 15, 16, 23]])


def test_users_in_a_flat_row_are_told_apart(calls):
    bounds = torch.tensor([0, 4, 10], dtype=torch.int32)
    places = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4, 5]])
    lengths = {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": 6, "max_length_k": 6}
    model = make(NAME).eval()
    assert model.config._attn_implementation == NAME
    found = model(IDS, position_ids=places, use_cache=False, **lengths).logits
    assert calls == 2 * [{"bounds": [0, 4, 10], "dropout": 0.0, "causal": True}]
    one_by_one = [make("eager").eval()(part).logits for part in (IDS[:, :4], IDS[:, 4:])]
    torch.testing.assert_close(found, torch.cat(one_by_one, 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_taken_out(calls, side):
    pad = torch.zeros(1, 3, dtype=torch.long)
    row = torch.cat([pad, IDS[:, :7]] if side == "left" else [IDS[:, :7], pad], 1)
    kept = slice(3, None) if side == "left" else slice(0, 7)
    found = make(NAME).eval()(torch.cat([row, IDS]), attention_mask=torch.cat([row, IDS]).ne(0).long()).logits
    assert calls[0]["bounds"] == [0, 7, 17]
    expected = make("eager").eval()
    torch.testing.assert_close(found[:1, kept], expected(IDS[:, :7]).logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[1:], expected(IDS).logits, rtol=1e-5, atol=1e-5)


def test_dropout_is_handed_on_in_training_alone(calls):
    model = make(NAME, attention_dropout=0.25)
    model.train()(IDS, labels=IDS).loss.backward()
    model.eval()(IDS)
    assert [call["dropout"] for call in calls] == [0.25, 0.25, 0.0, 0.0]


def test_use_kernels_finds_no_layer_to_replace(calls, monkeypatch, tmp_path):
    """Its kernels stand in for layers that are marked for one; those of this model are torch's own and its own."""
    replaced = []

    def kernelize(model, mode=None):
        replaced.append([name for name, one in model.named_modules() if hasattr(type(one), "kernel_layer_name")])

    monkeypatch.setattr("transformers.modeling_utils.kernelize", kernelize)
    monkeypatch.setattr(
        "transformers.integrations.hub_kernels.register_kernel_mapping_transformers", lambda: None, raising=False
    )
    make("sdpa").save_pretrained(tmp_path)
    model = LSRMForCausalLM.from_pretrained(tmp_path, use_kernels=True)
    assert replaced == [[]]
    torch.testing.assert_close(model(IDS).logits, make("sdpa").eval()(IDS).logits)
