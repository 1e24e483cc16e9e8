"""The loss with scores of single items, of a table in parts, and of logits that are there, against float64."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from made_losses import reference, states
from torch.nn import functional as F

from sr_transformers.lsrm import loss_lsrm
from sr_transformers.lsrm.divided_lsrm import Division
from sr_transformers.lsrm.head_lsrm import CosineHead
from sr_transformers.lsrm.item_scores_lsrm import ItemScores
from sr_transformers.lsrm.loss_lsrm import full_softmax_loss, loss_of_logits, next_item_loss, sampled_softmax_loss


def scattered(n, targets, v=101, seed=0):
    """Numbers for some items of some rows, every fourth target among them."""
    torch.manual_seed(seed)
    asked = torch.rand(n, v) < 0.1
    asked[::4].scatter_(1, targets[::4, None], True)
    rows, tokens = asked.nonzero().int().unbind(1)
    order = torch.randperm(len(rows))
    values = torch.randn(len(rows), dtype=torch.float64).mul_(2)
    return ItemScores(rows[order], tokens[order], values.requires_grad_())


def reference_with(hidden, weight, targets, scores):
    """Loss and all gradients from dense float64 logits."""
    h, w, values = (one.detach().double().requires_grad_() for one in (hidden, weight, scores.values))
    logits = (h @ w.t()).index_put((scores.rows.long(), scores.tokens.long()), values, accumulate=True)
    loss = F.cross_entropy(logits, targets, reduction="sum")
    loss.backward()
    return loss.detach(), [h.grad, w.grad, values.grad]


@pytest.mark.parametrize(("chunk", "block"), [(5, 7), (36, 101), (37, 10), (None, None), (1, 1)])
def test_scores_of_single_items_are_added_to_the_logits(chunk, block):
    hidden, weight, targets = states()
    scores = scattered(len(targets), targets)
    expected, gradients = reference_with(hidden, weight, targets, scores)
    loss = full_softmax_loss(hidden, weight, targets, chunk, block, extra=scores)
    torch.testing.assert_close(loss.detach(), expected)
    (3 * loss).backward()
    for one, other in zip([hidden, weight, scores.values], gradients, strict=True):
        torch.testing.assert_close(one.grad, 3 * other)
    with torch.no_grad():
        torch.testing.assert_close(full_softmax_loss(hidden, weight, targets, chunk, block, extra=scores), expected)


@pytest.mark.parametrize("wanted", [(True, False, False), (False, True, False), (False, False, True)])
def test_scores_of_single_items_whichever_gradient_is_asked_for(wanted):
    hidden, weight, targets = states()
    scores = scattered(len(targets), targets)
    expected, gradients = reference_with(hidden, weight, targets, scores)
    asked = [hidden, weight, scores.values]
    for one, needed in zip(asked, wanted, strict=True):
        one.requires_grad_(needed)
    loss = full_softmax_loss(hidden, weight, targets, 10, 30, extra=scores)
    torch.testing.assert_close(loss.detach(), expected)
    loss.backward()
    for one, other in zip(asked, gradients, strict=True):
        assert one.grad is None if not one.requires_grad else torch.allclose(one.grad, other)


def test_scores_of_single_items_in_bf16():
    hidden, weight, targets = states(dtype=torch.bfloat16)
    scores = scattered(37, targets)
    scores = scores._replace(values=scores.values.detach().float().requires_grad_())
    expected, gradients = reference_with(hidden, weight, targets, scores)
    loss = full_softmax_loss(hidden, weight, targets, 10, 30, extra=scores)
    loss.backward()
    torch.testing.assert_close(loss.detach().double(), expected, rtol=0.01, atol=0.0)
    for one, other in zip([hidden, weight, scores.values], gradients, strict=True):
        torch.testing.assert_close(one.grad.double(), other, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("n", [37, 2500])
def test_a_head_that_is_called_takes_them_in_too(n):
    """2,500 targets are three chunks, each with its own numbers."""
    hidden, weight, targets = states(n=n)
    head = torch.nn.Linear(8, 101, bias=False, dtype=torch.float64)
    head.weight = torch.nn.Parameter(weight.detach().clone())
    head.register_forward_hook(lambda module, inputs, output: output * 1.0)
    scores = scattered(n, targets)
    expected, gradients = reference_with(hidden, weight, targets, scores)
    loss = next_item_loss(hidden[None], head, targets[None], extra=scores)
    torch.testing.assert_close(loss.detach(), expected / n)
    loss.backward()
    for one, other in zip([hidden, head.weight, scores.values], gradients, strict=True):
        torch.testing.assert_close(one.grad, other / n)


def test_without_targets_all_gradients_are_zero():
    hidden, weight, targets = states()
    scores = scattered(37, targets)
    loss = full_softmax_loss(hidden[:0], weight, targets[:0], extra=scores)
    loss.backward()
    assert loss == 0
    assert not any(one.grad.any() for one in (hidden, weight, scores.values))


def test_chunks_of_added_scores_are_larger_while_the_catalogue_is_small():
    cpu, accelerator = torch.device("cpu"), torch.device("cuda")
    found = [loss_lsrm.chunk_sizes(v, cpu, True) for v in (10, 4096, 4097, 65_536, 1 << 21)]
    assert found == [(8192, 4096), (8192, 4096), (8192, 2048), (1024, 2048), (32, 2048)]
    assert loss_lsrm.chunk_sizes(1 << 20, accelerator, True) == (128, 1 << 18)


@pytest.mark.parametrize(("given", "seen"), [(True, (101, True)), (False, (101, False))])
def test_what_is_asked_for_says_how_large_chunks_are(monkeypatch, given, seen):
    hidden, weight, targets = states()
    asked, sizes = [], loss_lsrm.chunk_sizes
    monkeypatch.setattr(
        loss_lsrm, "chunk_sizes", lambda n, device, more: (asked.append((n, more)), sizes(n, device))[1]
    )
    full_softmax_loss(hidden, weight, targets, extra=scattered(37, targets) if given else None)
    assert asked == [seen]


@pytest.mark.parametrize("learning", [True, False])
@pytest.mark.parametrize(("chunk", "block"), [(5, 7), (None, None)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_parts_of_a_divided_table_have_the_loss_of_the_whole(monkeypatch, learning, chunk, block, dtype):
    """Two processes, here threads, which meet where sums go over both."""
    hidden, weight, targets = states(dtype=dtype)
    targets[:4] = torch.tensor([0, 39, 40, 100])
    expected, grad_hidden, grad_weight = reference(hidden, weight, targets)
    ends, meeting, told = (0, 40, 101), Barrier(2, timeout=30), {}

    def over_both(group, top, z, target_logit):
        told[group] = (top, z, target_logit)
        meeting.wait()
        tops, sums, logits = zip(told[0], told[1], strict=True)
        highest = torch.maximum(*tops)
        found = highest, sum(z * torch.exp2(t - highest) for t, z in zip(tops, sums, strict=True)), sum(logits)
        meeting.wait()
        return found

    monkeypatch.setattr(loss_lsrm, "softmax_over", over_both)
    parts = [
        (hidden.detach().clone().requires_grad_(learning), weight.detach()[first:last].clone().requires_grad_(learning))
        for first, last in itertools.pairwise(ends)
    ]

    def ask(index):
        part = Division(ends[index], ends[index + 1], 61, index)
        loss = full_softmax_loss(*parts[index], targets - ends[index], chunk, block, part=part)
        if learning:
            loss.backward()
        return loss.detach()

    with ThreadPoolExecutor(2) as pool:
        losses = list(pool.map(ask, range(2)))
    close = {} if dtype == torch.float64 else {"rtol": 0.03, "atol": 0.05}
    assert torch.equal(*losses)
    torch.testing.assert_close(losses[0].double(), expected, **close)
    if learning:
        torch.testing.assert_close(sum(h.grad.double() for h, _ in parts), grad_hidden, **close)
        torch.testing.assert_close(torch.cat([w.grad.double() for _, w in parts]), grad_weight, **close)


def test_the_loss_of_logits_is_that_of_states():
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 20, bias=False)
    states, labels = torch.randn(2, 5, 8), torch.randint(2, 20, (2, 5))
    labels[0, 3] = labels[1, 0] = -100
    logits = head(states)
    logits[..., :2] = torch.finfo(logits.dtype).min
    for count in (None, 4, torch.tensor(4)):
        expected = next_item_loss(states, head, labels, count, items=(2, 20))
        torch.testing.assert_close(loss_of_logits(logits, labels, count, (2, 20)), expected)
    with pytest.raises(ValueError, match="a label is 1, which is no item: items are the tokens from 2 to 19"):
        loss_of_logits(logits, torch.ones_like(labels), None, (2, 20))
    nothing = loss_of_logits(logits, torch.full_like(labels, -100), None, (2, 20))
    assert nothing == 0
    nothing.backward()
    assert not head.weight.grad.any()


def test_sampling_from_a_head_of_cosines_reads_the_vectors_and_not_the_rows():
    hidden, weight, targets = states()
    head = CosineHead(8, 101, bias=False, dtype=torch.float64)
    head.weight = torch.nn.Parameter(weight.detach().clone())
    negatives = torch.arange(101), torch.full((101,), 1 / 101, dtype=torch.float64).log()
    found = next_item_loss(hidden[None], head, targets[None], None, *negatives)
    rows = weight.detach() / weight.detach().norm(dim=1, keepdim=True)
    torch.testing.assert_close(found, sampled_softmax_loss(hidden, rows, targets, *negatives) / 37)
    torch.testing.assert_close(found, F.cross_entropy(hidden @ rows.T, targets))
