import math

import pytest
import torch
from made_losses import reference, states
from torch.nn import functional as F

from sr_transformers.lsrm import loss_lsrm
from sr_transformers.lsrm.loss_lsrm import full_softmax_loss, next_item_loss, sampled_softmax_loss


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


def test_chunks_fit_a_buffer_and_blocks_a_cache():
    cpu, accelerator = torch.device("cpu"), torch.device("cuda")
    assert [loss_lsrm.chunk_sizes(v, cpu) for v in (0, 10, 65_536, 100_000, 1 << 22)] == [
        (1024, 2048),
        (1024, 2048),
        (1024, 2048),
        (671, 2048),
        (32, 2048),
    ]
    assert [loss_lsrm.chunk_sizes(v, accelerator)[0] for v in (10, 16_384, 100_000, 1 << 24)] == [8192, 8192, 1342, 32]
    assert loss_lsrm.chunk_sizes(10, accelerator)[1] == 1 << 18


@pytest.mark.parametrize("block", [1, 7, None])
@pytest.mark.parametrize("items", [(0, 101), (2, 101), (2, 90), (40, 60)])
def test_rows_that_are_no_item_have_no_part_in_the_softmax(items, block):
    hidden, weight, targets = states()
    targets = items[0] + targets % (items[1] - items[0])
    loss = full_softmax_loss(hidden, weight, targets, 10, block, items)
    loss.backward()
    expected, grad_hidden, grad_rows = reference(hidden, weight[items[0] : items[1]], targets - items[0])
    torch.testing.assert_close(loss.detach(), expected)
    torch.testing.assert_close(hidden.grad, grad_hidden)
    torch.testing.assert_close(weight.grad[items[0] : items[1]], grad_rows)
    assert weight.grad[: items[0]].abs().sum() == weight.grad[items[1] :].abs().sum() == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("wanted", ["hidden", "weight", "neither", "no_grad"])
def test_a_loss_is_the_same_whichever_gradient_is_asked_for(wanted, dtype):
    hidden, weight, targets = states()
    with torch.no_grad():
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    hidden.requires_grad_(wanted in ("hidden", "no_grad"))
    weight.requires_grad_(wanted in ("weight", "no_grad"))
    with torch.set_grad_enabled(wanted != "no_grad"):
        loss = full_softmax_loss(hidden, weight, targets, 10, 7)
    expected, grad_hidden, grad_weight = reference(hidden, weight, targets)
    close = {"rtol": 0.02, "atol": 0.05} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(loss.detach().double(), expected, **close)
    assert loss.requires_grad == (wanted in ("hidden", "weight"))
    if loss.requires_grad:
        loss.backward()
        leaf, grad = (hidden, grad_hidden) if wanted == "hidden" else (weight, grad_weight)
        assert leaf.grad.dtype == dtype
        torch.testing.assert_close(leaf.grad.double(), grad, **close)
        assert (weight if wanted == "hidden" else hidden).grad is None


def test_a_second_derivative_is_refused():
    hidden, weight, targets = states()
    (grad,) = torch.autograd.grad(full_softmax_loss(hidden, weight, targets).square(), hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        grad.sum().backward()


def test_targets_that_occur_often_add_up():
    hidden, weight, _ = states()
    targets = torch.tensor([5] * 20 + [100] * 10 + [0] * 7)
    full_softmax_loss(hidden, weight, targets, 8, 9).backward()
    _, grad_hidden, grad_weight = reference(hidden, weight, targets)
    torch.testing.assert_close(hidden.grad, grad_hidden)
    torch.testing.assert_close(weight.grad, grad_weight)


def sampled_by_hand(hidden, weight, targets, negatives, log_q):
    """One target after the other: log(e^target + sum of e^(negative - log(S q))) - target, no negative the target."""
    total = 0.0
    for state, target in zip(hidden.detach().double(), targets.tolist(), strict=True):
        logits = weight.detach().double() @ state
        others = [
            math.exp(logits[n] - lq) / len(negatives)
            for n, lq in zip(negatives.tolist(), log_q.tolist(), strict=True)
            if n != target
        ]
        total += math.log(math.exp(logits[target]) + sum(others)) - float(logits[target])
    return total


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_sampled_loss_by_hand(dtype):
    hidden, weight, targets = states(n=6, v=12, d=4, dtype=dtype)
    negatives = torch.tensor([3, 3, int(targets[0]), 11, int(targets[4])])
    log_q = torch.log(torch.rand(5, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 0.05)
    loss = sampled_softmax_loss(hidden, weight, targets, negatives, log_q)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    tolerance = {torch.float64: 1e-9, torch.float32: 1e-5, torch.bfloat16: 0.02}[dtype]
    assert loss.item() == pytest.approx(sampled_by_hand(hidden, weight, targets, negatives, log_q), rel=tolerance)


class Called(torch.nn.Linear):
    """A head of another class than `nn.Linear`, whose weight is not all that counts: it doubles its logits."""

    def forward(self, states):
        return 2 * super().forward(states)


def called(v=101, d=8, weight=None):
    head = Called(d, v, bias=False, dtype=torch.float64)
    if weight is not None:
        head.weight.data = weight.detach().clone()
    return head


@pytest.mark.parametrize("items", [None, (2, 101), (2, 90)])
@pytest.mark.parametrize("n", [37, 2500])
def test_a_head_that_is_called_has_the_cross_entropy_of_its_logits(n, items):
    """2,500 targets are three chunks of at most 1,024."""
    hidden, weight, targets = states(n=n)
    first, last = items or (0, 101)
    targets = first + targets % (last - first)
    head = called(weight=weight)
    loss = next_item_loss(hidden[None], head, targets[None], items=items)
    loss.backward()
    expected, grad_hidden, grad_rows = reference(hidden, 2 * weight[first:last], targets - first)
    torch.testing.assert_close(loss.detach(), expected / n)
    torch.testing.assert_close(hidden.grad, grad_hidden / n)
    torch.testing.assert_close(head.weight.grad[first:last], 2 * grad_rows / n)
    assert head.weight.grad[:first].abs().sum() == head.weight.grad[last:].abs().sum() == 0


def test_no_more_logits_of_a_called_head_exist_than_a_chunk_has():
    heights = []
    hidden, weight, targets = states(n=2500)
    head = called(weight=weight)
    head.register_forward_hook(lambda module, inputs, output: heights.append(len(output)))
    next_item_loss(hidden[None], head, targets[None]).backward()
    assert heights[:3] == [1024, 1024, 452]
    assert sorted(heights[3:]) == [452, 1024, 1024]  # backward computes them again


def test_a_called_head_is_sampled_like_one_that_is_read():
    hidden, weight, targets = states(n=9, v=20, d=4)
    negatives, log_q = torch.tensor([3, 7, 7, 19]), torch.tensor([0.2, 0.1, 0.1, 0.3]).double().log()
    head = called(20, 4, weight)
    loss = next_item_loss(hidden[None], head, targets[None], negative_ids=negatives, negative_log_q=log_q)
    loss.backward()
    assert loss.item() == pytest.approx(sampled_by_hand(hidden, 2 * weight, targets, negatives, log_q) / 9)
    read = torch.nn.Linear(4, 20, bias=False, dtype=torch.float64)
    read.weight.data = 2 * weight.detach()
    states_again = hidden.detach().clone().requires_grad_()
    same = next_item_loss(states_again[None], read, targets[None], negative_ids=negatives, negative_log_q=log_q)
    same.backward()
    torch.testing.assert_close(loss, same)
    torch.testing.assert_close(hidden.grad, states_again.grad)
    torch.testing.assert_close(head.weight.grad, 2 * read.weight.grad)


@pytest.mark.parametrize("head", [called(), torch.nn.Linear(8, 101, bias=False, dtype=torch.float64)])
@pytest.mark.parametrize("count", [None, 0, 6, torch.tensor(0), torch.tensor(6)])
def test_a_step_without_targets_has_a_loss_and_gradients_of_zero(head, count):
    head.weight.grad = None
    hidden = torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True)
    loss = next_item_loss(hidden, head, torch.full((2, 3), -100), count)
    loss.backward()
    assert loss.item() == 0
    assert head.weight.grad.abs().sum() == hidden.grad.abs().sum() == 0


@pytest.mark.parametrize(("label", "items"), [(101, None), (-1, None), (1, (2, 90)), (90, (2, 90)), (-7, (2, 90))])
def test_a_label_that_is_no_item_is_named(label, items):
    hidden, weight, targets = states(n=6)
    targets = 2 + targets % 88
    first, last = items or (0, 101)
    targets[2], targets[3], targets[4] = first, label, last - 1
    with pytest.raises(ValueError, match=f"a label is {label}, .* tokens from {first} to {last - 1}"):
        next_item_loss(hidden[None], called(weight=weight), targets[None], items=items)
    targets[3] = -100
    assert next_item_loss(hidden[None], called(weight=weight), targets[None], items=items).item() > 0


@pytest.mark.parametrize("given", ["negative_ids", "negative_log_q"])
def test_either_half_of_what_sampling_needs_is_refused_alone(given):
    head, hidden = torch.nn.Linear(4, 9, bias=False), torch.randn(1, 3, 4)
    with pytest.raises(ValueError, match="only one of them was given"):
        next_item_loss(hidden, head, torch.tensor([[1, 2, 3]]), **{given: torch.tensor([4, 5])})


def test_a_head_that_is_read_is_over_the_items_only():
    hidden, weight, targets = states()
    targets = 2 + targets % 88
    head = torch.nn.Linear(8, 101, bias=False, dtype=torch.float64)
    head.weight.data = weight.detach()
    loss = next_item_loss(hidden[None], head, targets[None], items=(2, 90))
    torch.testing.assert_close(loss, F.cross_entropy(hidden @ weight[2:90].t(), targets - 2))


def test_a_divisor_may_be_a_number_or_a_tensor():
    hidden, weight, targets = states(n=6)
    head = called(weight=weight)
    total = next_item_loss(hidden[None], head, targets[None], 1)
    torch.testing.assert_close(next_item_loss(hidden[None], head, targets[None]), total / 6)
    torch.testing.assert_close(next_item_loss(hidden[None], head, targets[None], 9), total / 9)
    torch.testing.assert_close(next_item_loss(hidden[None], head, targets[None], torch.tensor(9)), total / 9)
    torch.testing.assert_close(next_item_loss(hidden[None], head, targets[None], torch.tensor(1)), total)


def test_autocast_rounds_only_where_something_is_learnt():
    hidden, weight, targets = states(dtype=torch.float32)
    head = torch.nn.Linear(8, 101, bias=False)
    head.weight.data = weight.detach()
    exact = next_item_loss(hidden[None], head, targets[None])
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert torch.equal(next_item_loss(hidden[None], head, targets[None]), exact)
    states_in_bf16 = hidden.detach().bfloat16()
    read = next_item_loss(states_in_bf16[None], head, targets[None])
    assert torch.equal(read, next_item_loss(states_in_bf16.float()[None], head, targets[None]))


def test_the_softmax_of_bf16_states_is_summed_in_float32():
    """Equal logits over V items: the loss is log V, and bf16 cannot count to 1,001."""
    for kind in (torch.bfloat16, torch.float16):
        hidden, weight = torch.ones(3, 4, dtype=kind, requires_grad=True), torch.zeros(3003, 4, requires_grad=True)
        loss = full_softmax_loss(hidden, weight, torch.tensor([0, 1500, 3002]), block_items=1001)
        assert loss.item() == pytest.approx(3 * math.log(3003), rel=1e-6)
        with torch.no_grad():
            assert full_softmax_loss(hidden[:1], weight, torch.tensor([7]), block_items=1001).item() == pytest.approx(
                math.log(3003), rel=1e-6
            )


def test_sampling_takes_states_of_another_type_than_the_table():
    hidden, weight, targets = states(n=6, v=12, d=4, dtype=torch.float32)
    negatives, log_q = torch.tensor([3, 7, 7]), torch.full((3,), -math.log(12.0))
    rounded = sampled_softmax_loss(hidden.bfloat16(), weight, targets, negatives, log_q)
    assert rounded.dtype == torch.float32
    exact = sampled_softmax_loss(hidden, weight, targets, negatives, log_q)
    torch.testing.assert_close(rounded, exact, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("learning", [True, False])
def test_the_buffer_is_of_a_chunk_and_without_gradients_of_a_block(monkeypatch, learning):
    """4,096 numbers are 51 rows of 80 items; where nothing is learnt a block of 16 items at a time will do."""
    made = []
    original = torch.empty

    def watched(*size, **kwargs):
        made.append(original(*size, **kwargs))
        return made[-1]

    hidden, weight, targets = states()
    monkeypatch.setattr(loss_lsrm, "_CPU_SIZES", (1 << 12, 1024, 16))
    monkeypatch.setattr(torch, "empty", watched)
    with torch.set_grad_enabled(learning):
        full_softmax_loss(hidden.repeat(3, 1), weight, 20 + targets.repeat(3) % 80, items=(20, 100))
    assert [buffer.numel() for buffer in made] == [51 * 80 if learning else 51 * 16]


def test_a_called_head_learns_from_states_that_do_not():
    """As where all but the head is frozen."""
    hidden, weight, targets = states()
    head = called(weight=weight)
    next_item_loss(hidden.detach()[None], head, targets[None]).backward()
    torch.testing.assert_close(head.weight.grad, 2 * reference(hidden, 2 * weight, targets)[2] / 37)
