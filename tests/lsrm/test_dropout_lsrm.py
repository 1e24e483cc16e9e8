import pytest
import torch

from sr_transformers.lsrm.dropout_lsrm import LSRMDropout


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(rate, dtype):
    torch.manual_seed(0)
    dropout = LSRMDropout(rate)
    ones = torch.ones(500, 1001, dtype=dtype, requires_grad=True)  # not a multiple of four
    dropped = dropout(ones)
    kept = dropped != 0
    assert (~kept).float().mean().item() == pytest.approx(rate, abs=0.004)
    # every column and row alike: no bit of the random words is stuck
    assert (~kept).float().mean(0).sub(rate).abs().max() < 6 * (rate * (1 - rate) / 500) ** 0.5
    assert (~kept).float().mean(1).sub(rate).abs().max() < 6 * (rate * (1 - rate) / 1001) ** 0.5
    torch.testing.assert_close(dropped[kept].float().mean().item(), 1 / (1 - rate), rtol=0.01, atol=0)
    dropped.sum().backward()
    assert torch.equal(ones.grad, dropped)
    assert dropout.eval()(ones) is ones


def test_dropout_follows_the_seed():
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(LSRMDropout(0.3)(torch.ones(64)))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
