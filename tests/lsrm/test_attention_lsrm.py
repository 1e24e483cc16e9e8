import pytest
import torch
from torch import nn

from sr_transformers.lsrm.attention_lsrm import (
    LONGEST_ROW,
    MOST_WEIGHTS,
    prefers_short_rows,
    short_row_attention,
)
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


@pytest.mark.parametrize("asking", [1, 4])
@pytest.mark.parametrize("starts", [None, [0, 5]])
def test_the_last_positions_get_the_same_when_they_ask_alone(asking, starts):
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 9, 4, dtype=torch.float64) for _ in range(3))
    mask = None if starts is None else torch.cat([packed(9, starts), packed(9, [0, 4])])
    expected = short_row_attention(nn.Module(), query, key, value, mask, 0.3)[0][:, -asking:]
    last = None if mask is None else mask[:, :, -asking:]
    found = short_row_attention(nn.Module(), query[:, :, -asking:], key, value, last, 0.3)[0]
    torch.testing.assert_close(found, expected)


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


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("dtype", "rows", "length", "keys", "mask", "preferred"),
    [
        (torch.bfloat16, 2, LONGEST_ROW, LONGEST_ROW, None, "always"),
        (torch.bfloat16, 2, 5, 5, torch.bool, "always"),
        (torch.bfloat16, 2, 5, 5, torch.bfloat16, "never"),
        (torch.bfloat16, 2, LONGEST_ROW + 1, LONGEST_ROW + 1, None, "never"),
        (torch.bfloat16, 2, 1, 5, None, "ranking"),
        (torch.bfloat16, 2, 1, LONGEST_ROW + 1, None, "never"),
        (torch.float32, 2, 1, 5, None, "never"),
        (torch.bfloat16, 2, 3, 5, None, "never"),
        (torch.bfloat16, 1, 5, 5, None, "training"),
        (torch.bfloat16, MOST_WEIGHTS // 200**2 + 1, 200, 200, None, "training"),
        (torch.float32, 2, 5, 5, None, "ranking"),
    ],
)
def test_it_is_preferred_where_it_was_measured_to_be_faster(training, dtype, rows, length, keys, mask, preferred):
    query, key = (torch.zeros(rows, 1, count, 2, dtype=dtype) for count in (length, keys))
    mask = None if mask is None else torch.ones(1, 1, length, keys, dtype=mask)
    expected = preferred in ("always", "training" if training else "ranking")
    assert prefers_short_rows(query, key, mask, training) is expected


def test_an_exported_model_does_not_choose_by_the_shapes_of_its_example():
    chosen = []

    class Choice(nn.Module):
        def forward(self, query):
            chosen.append(prefers_short_rows(query, query, None, False))
            return query + 1

    query = torch.zeros(2, 1, 5, 2)
    rows = torch.export.Dim("rows")
    torch.export.export(Choice(), (query,), dynamic_shapes=({0: rows},), strict=False)
    torch.jit.trace(Choice(), query, check_trace=False)
    assert set(chosen) == {False}


@pytest.mark.parametrize(("training", "precise", "takes"), [(True, False, 2), (True, True, 0), (False, True, 2)])
def test_the_model_takes_it(training, precise, takes, monkeypatch):
    calls = []

    def spy(*args, **kwargs):
        calls.append(args)
        return short_row_attention(*args, **kwargs)

    torch.manual_seed(0)
    model = LSRMForCausalLM(LSRMConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2))
    ids = torch.randint(2, 50, (3, 8))
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 4]] * 3)
    model.train(training)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0

    def loss():
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            return model(ids, position_ids=positions, labels=ids).loss

    expected = loss()
    monkeypatch.setattr("sr_transformers.lsrm.layers_lsrm.short_row_attention", spy)
    torch.testing.assert_close(loss(), expected)
    assert len(calls) == takes
    monkeypatch.setattr("sr_transformers.lsrm.layers_lsrm.prefers_short_rows", lambda *args: False)
    torch.testing.assert_close(loss(), expected, rtol=1e-5 if precise else 2e-3, atol=0)
