import pytest
import torch
from torch import nn

from sr_transformers.lsrm.attention_lsrm import LONGEST_ROW, prefers_short_rows, short_row_attention
from sr_transformers.lsrm.configuration_lsrm import LSRMConfig
from sr_transformers.lsrm.modeling_lsrm import LSRMForCausalLM


def packed(length, starts):
    """`(1, 1, T, T)`: causal, and within each of the rows' users only."""
    user = torch.zeros(length, dtype=torch.long)
    user[starts] = 1
    user = user.cumsum(0)
    return (torch.ones(length, length, dtype=torch.bool).tril() & (user[:, None] == user[None, :]))[None, None]


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("starts", [None, [0], [0, 1, 5], list(range(9))])
def test_it_is_the_fused_kernels_attention_with_its_gradients(heads, starts):
    torch.manual_seed(0)
    states = [torch.randn(2, heads, 9, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    mask = None if starts is None else torch.cat([packed(9, starts), packed(9, [0, 4])])
    expected = nn.functional.scaled_dot_product_attention(*states, attn_mask=mask, is_causal=mask is None, scale=0.3)
    found = short_row_attention(nn.Module(), *states, mask, 0.3)[0].transpose(1, 2)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(expected)
    for one, other in zip(
        torch.autograd.grad(found, states, upstream), torch.autograd.grad(expected, states, upstream), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_dropout_is_of_the_weights():
    torch.manual_seed(0)
    query = torch.zeros(1, 1, 200, 200)  # all weights of a row are equal
    one = torch.eye(200)[None, None]
    found = short_row_attention(nn.Module(), query, query, one, None, 1.0, dropout=0.25)[0][0, :, 0]
    kept = found != 0
    counts = torch.arange(1, 201, dtype=torch.float32)
    assert kept.sum() / counts.sum() == pytest.approx(0.75, abs=0.01)
    expected = (1 / counts / 0.75)[:, None].expand(200, 200)
    torch.testing.assert_close(found[kept], expected[kept])


@pytest.mark.parametrize(
    ("dtype", "length", "keys", "mask", "preferred"),
    [
        (torch.bfloat16, LONGEST_ROW, LONGEST_ROW, None, True),
        (torch.bfloat16, 5, 5, torch.bool, True),
        (torch.bfloat16, 5, 5, torch.bfloat16, False),
        (torch.bfloat16, LONGEST_ROW + 1, LONGEST_ROW + 1, None, False),
        (torch.bfloat16, 1, 5, None, False),
        (torch.float32, 5, 5, None, False),
    ],
)
def test_it_is_preferred_where_it_was_measured_to_be_faster(dtype, length, keys, mask, preferred):
    query, key = (torch.zeros(1, 1, count, 2, dtype=dtype) for count in (length, keys))
    mask = None if mask is None else torch.ones(1, 1, length, keys, dtype=mask)
    assert prefers_short_rows(query, key, mask) is preferred


@pytest.mark.parametrize("training", [True, False])
def test_training_in_bf16_takes_it_and_nothing_else_does(training, monkeypatch):
    calls = []

    def spy(*args, **kwargs):
        calls.append(args)
        return short_row_attention(*args, **kwargs)

    monkeypatch.setattr("sr_transformers.lsrm.modeling_lsrm.short_row_attention", spy)
    torch.manual_seed(0)
    model = LSRMForCausalLM(LSRMConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2))
    ids = torch.randint(2, 50, (3, 8))
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 4]] * 3)
    losses = []
    for precise in (False, True):
        model.train(training)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            losses.append(model(ids, position_ids=positions, labels=ids).loss)
        assert len(calls) == (2 if training else 0)
    torch.testing.assert_close(losses[0], losses[1], rtol=2e-3, atol=0)
