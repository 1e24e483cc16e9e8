"""The model under `torch.compile`, as `torch_compile: true` trains it."""

import copy
import shutil

import pytest
import torch

from sr_transformers import LSRMConfig, LSRMForCausalLM
from sr_transformers.lsrm.dropout_lsrm import LSRMDropout

pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")


# With None it is compiled for one number of rows, and then once more for any; with True for any at once.
BLOCKS = [
    ({}, None),
    ({"position": "rotary", "norm": "rms", "hidden_act": "swiglu", "residual": "gated", "attention_time": True,
      "head": "normalised"}, True),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("blocks", "dynamic"), BLOCKS, ids=["paper", "all others"])
def test_a_compiled_model_learns_the_same(blocks, dynamic):
    torch.manual_seed(0)
    config = LSRMConfig(vocab_size=60, hidden_size=16, num_hidden_layers=2, max_position_embeddings=16, **blocks)
    config.embedding_dropout = config.residual_dropout = 0.0
    plain = LSRMForCausalLM(config).train()
    other = copy.deepcopy(plain)
    compiled = torch.compile(other, dynamic=dynamic)
    positions = torch.cat([torch.arange(9), torch.arange(7)]).repeat(5, 1)  # two users in every row
    torch._dynamo.utils.counters.clear()
    for batch in (5, 3, 4):
        ids = torch.randint(2, 60, (batch, 17), generator=torch.Generator().manual_seed(batch))
        labels = ids[:, 1:].clone()
        labels[0, 8] = -100
        inputs = {"input_ids": ids[:, :-1], "position_ids": positions[:batch], "shift_labels": labels}
        if config.attention_time:
            inputs["moments"] = ids[:, :-1].cumsum(1)
        expected, found = plain(**inputs).loss, compiled(**inputs).loss
        assert found.item() == pytest.approx(expected.item(), rel=1e-6)
        expected.backward()
        found.backward()
        for (name, one), two in zip(plain.named_parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(two.grad, one.grad, rtol=1e-4, atol=1e-6, msg=name)
    # The layers are one graph: nothing but the loss is left to Python.
    assert len(torch._dynamo.utils.counters["graph_break"]) == 1


@pytest.mark.slow
def test_compiled_dropout_drops_anew_at_its_rate():
    torch.manual_seed(0)
    first, second = LSRMDropout(0.2), LSRMDropout(0.5)

    @torch.compile
    def both(input):
        return first(input), second(input)

    ones = torch.ones(500, 1001, requires_grad=True)
    (one, two), (again, _) = both(ones), both(ones)
    kept = [(dropped != 0).double() for dropped in (one, two, again)]
    assert [mask.mean().item() for mask in kept] == pytest.approx([0.8, 0.5, 0.8], abs=0.004)
    assert (kept[0].mean(0) - 0.8).abs().max() < 6 * (0.8 * 0.2 / 500) ** 0.5
    assert (kept[0] * kept[1]).mean().item() == pytest.approx(0.8 * 0.5, abs=0.004)
    assert (kept[0] * kept[2]).mean().item() == pytest.approx(0.8 * 0.8, abs=0.004)
    one.sum().backward()
    assert torch.equal(ones.grad, one)
