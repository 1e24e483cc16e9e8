import math

import pytest
import torch
from torch.nn import functional as F

from sr_transformers.lsrm.loss_lsrm import full_softmax_loss, next_item_loss, sampled_softmax_loss


def states(n=37, v=101, d=8, dtype=torch.float64, scale=1.0, seed=0):
    torch.manual_seed(seed)
    hidden = (torch.randn(n, d, dtype=torch.float64) * scale).to(dtype).requires_grad_()
    weight = (torch.randn(v, d, dtype=torch.float64) * scale).to(dtype).requires_grad_()
    return hidden, weight, torch.randint(0, v, (n,))


def reference(hidden, weight, targets):
    """Plain float64 cross-entropy with its gradients."""
    h, w = hidden.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    loss = F.cross_entropy(h @ w.t(), targets, reduction="sum")
    loss.backward()
    return loss.detach(), h.grad, w.grad


@pytest.mark.parametrize("block", [1, 10, 100, 101, None])
@pytest.mark.parametrize("chunk", [1, 5, 36, 37, 1000, None])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_chunks_and_blocks_change_nothing(chunk, block, scale):
    hidden, weight, targets = states(scale=scale)
    loss = full_softmax_loss(hidden, weight, targets, chunk, block)
    (3 * loss).backward()
    expected, grad_hidden, grad_weight = reference(hidden, weight, targets)
    torch.testing.assert_close(loss.detach(), expected)
    torch.testing.assert_close(hidden.grad, 3 * grad_hidden)
    torch.testing.assert_close(weight.grad, 3 * grad_weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_of_very_different_height_overflow_nowhere(dtype):
    """Logits from -300 to 300, the highest in the first, a middle or the last block: exp(600) would be inf."""
    for highest in (0, 50, 99):
        weight = torch.full((100, 1), -300.0)
        weight[highest], weight[10] = 300.0, 299.0
        weight.requires_grad_()
        hidden = torch.ones(2, 1, dtype=dtype, requires_grad=True)
        targets = torch.tensor([highest, 10])
        loss = full_softmax_loss(hidden, weight, targets, block_items=7)
        loss.backward()
        expected, grad_hidden, grad_weight = reference(hidden, weight.to(dtype), targets)
        torch.testing.assert_close(loss.detach().double(), expected, rtol=0.02, atol=0.02)
        torch.testing.assert_close(weight.grad.double(), grad_weight, rtol=0.02, atol=0.02)
        torch.testing.assert_close(hidden.grad.double(), grad_hidden, rtol=0.02, atol=2.0)


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_float32_is_exact_to_float32(scale):
    hidden, weight, targets = states(dtype=torch.float32, scale=scale)
    loss = full_softmax_loss(hidden, weight, targets)
    loss.backward()
    expected, grad_hidden, grad_weight = reference(hidden, weight, targets)
    torch.testing.assert_close(loss.detach().double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(hidden.grad.double(), grad_hidden, rtol=1e-4, atol=1e-4 * scale)
    torch.testing.assert_close(weight.grad.double(), grad_weight, rtol=1e-4, atol=1e-4 * scale)


def test_bf16_states_lose_no_more_than_bf16_logits_do():
    """A large vocabulary, where torch's own chunked bf16 loss was seen to be wrong by more than a nat."""
    hidden, weight, targets = states(n=64, v=20_000, d=64, dtype=torch.float32, scale=0.5)
    expected, _, grad_weight = reference(hidden, weight, targets)
    loss = full_softmax_loss(hidden.bfloat16(), weight, targets)
    assert loss.dtype == torch.float32
    assert abs(loss.item() - expected.item()) / 64 < 0.02  # nats per target
    loss.backward()
    assert weight.grad.dtype == torch.float32
    cosine = F.cosine_similarity(weight.grad.double().flatten(), grad_weight.flatten(), dim=0)
    assert cosine > 0.999


def test_autocast_reaches_the_head():
    hidden, weight, targets = states(dtype=torch.float32)
    head = torch.nn.Linear(8, 101, bias=False)
    head.weight.data = weight.detach()
    exact = next_item_loss(hidden[None], head, targets[None])
    with torch.autocast("cpu", torch.bfloat16):
        rounded = next_item_loss(hidden[None], head, targets[None])
    expected = full_softmax_loss(hidden.bfloat16(), weight, targets) / len(targets)
    assert torch.equal(rounded, expected)
    assert rounded != exact
    torch.testing.assert_close(rounded, exact, rtol=0.01, atol=0)


def test_very_unlikely_targets_keep_their_loss():
    hidden = torch.tensor([[1.0]])
    weight = torch.tensor([[200.0], [0.0]])
    # softmax of the target underflows in float32; its loss is 200 all the same
    assert full_softmax_loss(hidden, weight, torch.tensor([1])).item() == pytest.approx(200.0)


def test_only_wanted_gradients_are_made():
    hidden, weight, targets = states()
    weight = weight.detach()
    full_softmax_loss(hidden, weight, targets).backward()
    assert weight.grad is None
    torch.testing.assert_close(hidden.grad, reference(hidden, weight, targets)[1])


def test_no_targets_give_a_zero_that_can_be_differentiated():
    hidden, weight, _ = states(n=0)
    loss = full_softmax_loss(hidden, weight, torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert weight.grad.abs().sum() == 0


def test_the_logits_of_all_targets_never_exist(monkeypatch):
    """No tensor of N x V numbers is made: 9,000 targets over 5,000 items would be 45 million."""
    largest = 0
    original = torch.empty

    def watched(*size, **kwargs):
        nonlocal largest
        result = original(*size, **kwargs)
        largest = max(largest, result.numel())
        return result

    hidden, weight, targets = states(n=9000, v=5000, d=4, dtype=torch.float32)
    monkeypatch.setattr(torch, "empty", watched)
    full_softmax_loss(hidden, weight, targets)
    assert 0 < largest <= 1024 * 5000


def test_next_item_loss_is_the_mean_over_positions_with_a_target():
    hidden, weight, _ = states(n=12)
    head = torch.nn.Linear(8, 101, bias=False, dtype=torch.float64)
    head.weight.data = weight.detach()
    labels = torch.randint(0, 101, (3, 4))
    labels[0, 2:] = -100
    expected = F.cross_entropy(hidden @ weight.t(), labels.flatten(), ignore_index=-100)
    loss = next_item_loss(hidden.view(3, 4, 8), head, labels)
    torch.testing.assert_close(loss, expected)
    # the divisor of the whole batch replaces the number of targets here
    torch.testing.assert_close(next_item_loss(hidden.view(3, 4, 8), head, labels, 5), expected * 10 / 5)


def test_the_sampled_denominator_is_unbiased():
    """exp(target) + the corrected sum over negatives has the softmax's denominator as its mean."""
    hidden, weight, targets = states(n=3, v=20, d=4)
    q = torch.rand(20, dtype=torch.float64) + 0.1
    q /= q.sum()
    generator = torch.Generator().manual_seed(1)
    logits = (hidden @ weight.t()).detach()
    target_logits = logits.gather(1, targets[:, None])[:, 0]
    denominators = []
    for _ in range(4000):
        negatives = torch.multinomial(q, 16, replacement=True, generator=generator)
        losses = [
            sampled_softmax_loss(hidden[[i]], weight, targets[[i]], negatives, q[negatives].log()) for i in range(3)
        ]
        denominators.append((torch.stack(losses).detach() + target_logits).exp())
    mean = torch.stack(denominators).mean(0)
    torch.testing.assert_close(mean, logits.exp().sum(1), rtol=0.03, atol=0)


def test_every_item_once_as_uniform_negative_is_the_full_softmax():
    hidden, weight, targets = states(n=9, v=50)
    everything = torch.arange(50)
    loss = sampled_softmax_loss(hidden, weight, targets, everything, torch.full((50,), -math.log(50.0)))
    torch.testing.assert_close(loss, F.cross_entropy(hidden @ weight.t(), targets, reduction="sum"))


def test_half_of_what_sampling_needs_is_refused():
    head, hidden = torch.nn.Linear(4, 9, bias=False), torch.randn(1, 3, 4)
    labels = torch.tensor([[1, 2, 3]])
    with pytest.raises(ValueError, match="needs both negative_ids and negative_log_q"):
        next_item_loss(hidden, head, labels, negative_ids=torch.tensor([4, 5]))
