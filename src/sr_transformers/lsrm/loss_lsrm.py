# Copyright 2026 The sr_transformers authors. Licensed under the Apache License, Version 2.0.
"""Cross-entropy over a large item vocabulary that never holds all logits.

    loss = sum_i [ logsumexp_v(h_i . w_v) - h_i . w_{t_i} ]        v: items, and nothing that is none

The logits of N targets over V items are N x V numbers; here they exist for a few hundred targets at a time, in buffers
that are used again for every chunk (fresh memory of that size costs more in page faults than the arithmetic on it).
Within a chunk the items come in blocks that stay in a core's cache while their exponentials are taken. A block keeps
its own maximum; what it has to be multiplied by once the sum over all items is known goes into the `rows x d` factors
of the gradients, so the `rows x V` exponentials are written once and never rescaled. Gradients are computed in the same
pass and stored, N x d and V x d; backward only scales them.

A head whose weight is not all that counts (`scoring_lsrm.reads_weight`: adapters, hooks, quantization, offloading) is
called instead, for a few hundred targets at a time, and once more in backward: slower, and exact.

What it refuses: a second derivative (of a head that is read), and targets that are no items.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from .divided_lsrm import Division, check_same_batch, head_division, rows_at, softmax_over, whole_gradient
from .head_lsrm import item_vectors
from .item_scores_lsrm import AddedScores, ItemScores, add_scores
from .scoring_lsrm import is_gathered, reads_weight, score_items, shares_weight, spread_weight, wide

_LOG2_E = math.log2(math.e)
# Numbers in the buffer of a chunk, most rows of a chunk, and items in a block. Measured: on CPUs more rows than that
# gain nothing, and blocks beyond the second-level cache lose; an accelerator wants few large kernels.
_CPU_SIZES = (1 << 26, 1024, 2048)
# Where scores are added to single items: to find those of a chunk, or of two blocks where one could be enough, costs
# more than the cache gains.
_MORE_ROWS, _MORE_ITEMS = 8, 2
_ACCELERATOR_SIZES = (1 << 27, 8192, 1 << 18)


def chunk_sizes(num_items: int, device: torch.device, more: bool = False) -> tuple[int, int]:
    """Rows of a chunk and items of a block; more: where scores are added to single items."""
    buffer, most_rows, block = _CPU_SIZES if device.type == "cpu" else _ACCELERATOR_SIZES
    rows = min(max(buffer // max(num_items, 1), 32), most_rows * (_MORE_ROWS if more else 1))
    return rows, block * (_MORE_ITEMS if more and num_items <= _MORE_ITEMS * block else 1)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """All logarithms here are to base 2: exp2 is more than twice as fast as exp on CPUs."""

    @staticmethod
    def forward(ctx, hidden, weight, targets, chunk_rows, block_items, items, part, *extra):
        begin, end = items
        num_targets, num_items = hidden.shape[0], end - begin
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        scores = ItemScores(*extra) if extra else None
        grad_scores = None if scores is None else torch.zeros_like(scores.values)
        compute, device = hidden.dtype, hidden.device
        full = wide(compute)
        table = weight.to(compute)  # once per call: bf16 and fp16 multiply on their own units
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=full) if needs_weight else None
        rows, block = min(chunk_rows, num_targets), max(min(block_items, num_items), 1)
        blocks = [(first, min(first + block, end)) for first in range(begin, end, block)]
        learns = any(ctx.needs_input_grad)
        keep = learns or scores is not None
        store = torch.empty(rows * (num_items if keep else block), dtype=compute, device=device)
        scratch = None if compute == full else torch.empty(rows * block, dtype=full, device=device)
        total = torch.zeros((), dtype=full, device=device)
        for start in range(0, num_targets, rows):
            h, target = hidden[start : start + rows], targets[start : start + rows]
            n = h.shape[0]
            exponentials, tops = [], []
            top = torch.full((n, 1), -torch.inf, dtype=full, device=device)
            z = torch.zeros((n, 1), dtype=full, device=device)
            for first, last in blocks:
                offset = n * (first - begin) if keep else 0
                stored = store[offset : offset + n * (last - first)].view(n, last - first)
                torch.addmm(stored, h, table[first:last].t(), beta=0, alpha=_LOG2_E, out=stored)
                values = stored if scratch is None else scratch[: stored.numel()].view_as(stored).copy_(stored)
                new_top = torch.maximum(top, values.amax(1, keepdim=True))
                z = z * torch.exp2(top - new_top) + values.sub_(new_top).exp2_().sum(1, keepdim=True)
                if keep and scratch is not None:
                    stored.copy_(values)
                top = new_top
                exponentials.append(stored)
                tops.append(top)
            added = None
            if scores is not None and blocks:
                added = AddedScores(scores, start, n, n == num_targets, target, blocks, store, tops, top)
                z = added.apply(z)
            # Where the table is divided, only the targets whose rows are here.
            mine: Any = slice(None) if part is None else ((target >= 0) & (target < len(table))).nonzero()[:, 0]
            wide_h, of_target = h.to(full), table[target[mine]].to(full)
            if part is not None:
                of_target = torch.zeros_like(h, dtype=full).index_copy_(0, mine, of_target)
            # Rounded as the logits were, so that target and sum agree where the target is nearly certain.
            target_logit = ((wide_h * of_target).sum(1, keepdim=True) * _LOG2_E).to(compute).to(full)
            if added is not None:
                target_logit = target_logit + added.of_targets
            if part is not None:
                top, z, target_logit = softmax_over(part.group, top, z, target_logit)
            log_z = top + z.log2()
            total += (log_z - target_logit).sum()
            if not learns:
                continue
            # d loss / d logit is p - 1 at the target: taken exactly, apart from the products over all other items.
            residual = torch.exp2(target_logit - log_z) - 1.0
            if added is not None:
                grad_scores = added.gradient(grad_scores, log_z, residual)
            sum_hidden = of_target * residual
            order = target.argsort()
            bounds = torch.tensor([first for first, _ in blocks] + [end], device=device)
            cuts = torch.searchsorted(target[order], bounds).tolist()
            for index, ((first, last), stored) in enumerate(zip(blocks, exponentials, strict=True)):
                row = order[cuts[index] : cuts[index + 1]]
                stored[row, target[row] - first] = 0.0
                factor = torch.exp2(tops[index] - log_z)
                if needs_hidden:
                    sum_hidden.addcmul_(torch.mm(stored, table[first:last]).to(full), factor)
                if grad_weight is not None:
                    scaled = (wide_h * factor).to(compute)
                    if compute == full:
                        grad_weight[first:last].addmm_(stored.t(), scaled)
                    else:
                        grad_weight[first:last] += stored.t() @ scaled
            if grad_hidden is not None:
                grad_hidden[start : start + n] = sum_hidden
            if grad_weight is not None:
                grad_weight.index_add_(0, target[mine], (wide_h * residual)[mine])
        ctx.save_for_backward(grad_hidden, grad_weight, grad_scores)
        ctx.weight_dtype = weight.dtype
        return total / _LOG2_E

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_output):
        grad_hidden, grad_weight, grad_scores = ctx.saved_tensors
        if grad_hidden is not None:
            grad_hidden = grad_hidden * grad_output.to(grad_hidden.dtype)
        if grad_weight is not None:
            grad_weight = (grad_weight * grad_output).to(ctx.weight_dtype)
        of_scores = [] if grad_scores is None else [None, None, grad_scores * grad_output.to(grad_scores.dtype)]
        return grad_hidden, grad_weight, None, None, None, None, None, *of_scores


def full_softmax_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    chunk_rows: int | None = None,
    block_items: int | None = None,
    items: tuple[int, int] | None = None,
    extra: ItemScores | None = None,
    part: Division | None = None,
) -> torch.Tensor:
    """Sum over targets of the exact cross-entropy over all items, in nats.

    Args:
        hidden: `(N, d)` states that predict; may be bf16 or fp16, the softmax is then still taken in float32.
        weight: `(V, d)` item embeddings.
        targets: `(N,)` int64, items.
        chunk_rows: rows of logits held at a time; None chooses by V and device.
        block_items: items whose logits are computed at a time; None chooses by device.
        items: first row of the table that is an item, and the one after the last; None: all rows.
        extra: scores to be added to single items, by row of `hidden`.
        part: `weight` is that part of a divided table, from whose first row targets, items and extra are counted.

    Returns:
        A scalar in float32 (float64 for float64 input). Zero targets give 0.

    Memory: a buffer of `chunk_rows * V` numbers and the two gradients; nothing of size N x V.
    """
    if targets.numel() == 0:
        return hidden.sum() * 0.0 + weight.sum() * 0.0 + (0.0 if extra is None else extra.values.sum() * 0.0)
    items = items or (0, weight.shape[0])
    # Chunks are alike in all parts: their processes wait for each other.
    rows, block = chunk_sizes(items[1] - items[0] if part is None else part.most, hidden.device, extra is not None)
    if not torch.is_grad_enabled():  # autograd would ask for gradients of all leaves that ever need them
        hidden, weight = hidden.detach(), weight.detach()
        extra = None if extra is None else extra._replace(values=extra.values.detach())
    return _ChunkedCrossEntropy.apply(
        hidden.contiguous(),
        weight,
        targets,
        chunk_rows or rows,
        block_items or block,
        items,
        part,
        *(extra or ()),
    )


def sampled_softmax_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    negative_ids: torch.Tensor,
    negative_log_q: torch.Tensor,
    head: Any = None,
    part: Division | None = None,
) -> torch.Tensor:
    """Sum over targets of a sampled estimate of the cross-entropy, for catalogues too large to be scored whole.

    The negatives are shared by all targets of the batch. Their logits are corrected by -log(S q), so that
    `exp(target logit) + sum over negatives` is an unbiased estimate of the softmax's denominator; a negative that
    equals the target is left out of that target's sum. The target itself was not drawn from q and is not corrected.

    Args:
        hidden: `(N, d)`.
        weight: `(V, d)`.
        targets: `(N,)` int64 in `[0, V)`.
        negative_ids: `(S,)` int64, drawn with replacement from q.
        negative_log_q: `(S,)` log-probability under q of every negative.
        head: whose weight this is, see `head_lsrm.item_vectors`; None: the rows are the item vectors. With `sparse`, as
            `nn.Embedding` has it, the weight gets a gradient of the rows that were read and of no others.
        part: `weight` is that part of a divided table; tokens are those of the whole one.

    Returns:
        A scalar in float32 (float64 for float64 input). Its expectation is below the exact loss (logarithm of an
        unbiased estimate), by less the more negatives there are: report the exact loss, never this one.
    """
    # One gather for both, so that backward makes one gradient of the table and not two.
    ids = torch.cat([targets, negative_ids])
    if part is None:
        rows = nn.functional.embedding(ids, weight, sparse=getattr(head, "sparse", False))
    else:
        rows = rows_at(weight, ids, part)
    rows = item_vectors(head, rows).to(hidden.dtype)
    positive = (hidden * rows[: len(targets)]).sum(-1)
    negative = hidden @ rows[len(targets) :].t()
    return _sampled(positive, negative, targets, negative_ids, negative_log_q)


def _sampled(
    positive: torch.Tensor,
    negative: torch.Tensor,
    targets: torch.Tensor,
    negative_ids: torch.Tensor,
    negative_log_q: torch.Tensor,
) -> torch.Tensor:
    """`sampled_softmax_loss` from `(N,)` logits of the targets and `(N, S)` of the negatives."""
    dtype = wide(negative.dtype)
    positive, negative = positive.to(dtype), negative.to(dtype)
    negative = negative - negative_log_q.to(dtype) - math.log(negative_ids.numel())
    negative = negative.masked_fill(targets[:, None] == negative_ids[None, :], float("-inf"))
    log_z = torch.logsumexp(torch.cat([positive[:, None], negative], dim=1), dim=1)
    return (log_z - positive).sum()


def _called_loss(
    hidden: torch.Tensor,
    head: nn.Module,
    targets: torch.Tensor,
    items: tuple[int, int],
    negative_ids: torch.Tensor | None,
    negative_log_q: torch.Tensor | None,
    extra: ItemScores | None,
) -> torch.Tensor:
    """The loss of a head that has to be called, summed over the targets: of a few hundred logits' rows at a time, which
    backward computes again."""

    def part(states: torch.Tensor, wanted: torch.Tensor, *added: torch.Tensor) -> torch.Tensor:
        logits = score_items(head, states, items)
        logits = add_scores(logits, ItemScores(*added)) if added else logits
        if negative_ids is None or negative_log_q is None:
            return nn.functional.cross_entropy(logits, wanted, reduction="sum")
        positive = logits.gather(1, wanted[:, None])[:, 0]
        return _sampled(positive, logits[:, negative_ids], wanted, negative_ids, negative_log_q)

    rows, _ = chunk_sizes(items[1], hidden.device)
    # At least once: a step without targets still has a gradient of zero for all weights.
    parts = [
        checkpoint(
            part,
            hidden[start : start + rows],
            targets[start : start + rows],
            *(() if extra is None else extra.between(start, start + rows)),
            use_reentrant=False,
        )
        for start in range(0, max(len(targets), 1), rows)
    ]
    return torch.stack(parts).sum()


@torch.compiler.disable  # its sizes depend on the targets: torch.compile would only give up in its midst
def next_item_loss(
    hidden: torch.Tensor,
    head: Any,
    shift_labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    negative_ids: torch.Tensor | None = None,
    negative_log_q: torch.Tensor | None = None,
    items: tuple[int, int] | None = None,
    extra: ItemScores | None = None,
) -> torch.Tensor:
    """Mean next-item cross-entropy in nats over the positions that have a target: that of the logits which
    `scoring_lsrm.score_items` gives (under autocast in training: rounded as its type is).

    Args:
        hidden: `(B, T, d)` last hidden states.
        head: the output projection from d to V.
        shift_labels: `(B, T)` int64, the target of each position, -100 where there is none.
        num_items_in_batch: divide the sum by this instead of by the number of targets here (gradient accumulation and
            several processes: the mean must be over all of them).
        negative_ids, negative_log_q: switch to `sampled_softmax_loss`.
        items: `scoring_lsrm.item_range`; None: all rows of the head's weight are items.
        extra: scores of single items (`history_lsrm`), by place of the flattened batch.

    Raises:
        ValueError: if only one of the two is given (a sampled loss needs both), for a target that is no item, or for
            `extra` beside sampled negatives.
    """
    if negative_ids is not None and extra is not None:
        raise ValueError(
            "sampled softmax (num_negatives) knows nothing of scores from the history; use the full softmax, "
            "num_negatives 0, or a model without history."
        )
    if (negative_ids is None) != (negative_log_q is None):
        raise ValueError("sampled softmax needs both negative_ids and negative_log_q; only one of them was given.")
    wanted = shift_labels.reshape(-1) != -100
    hidden = hidden.reshape(-1, hidden.shape[-1])
    targets = shift_labels.reshape(-1)
    if not bool(wanted.all()):
        hidden, targets, extra = hidden[wanted], targets[wanted], None if extra is None else extra.of(wanted)
    if items is None:
        items = (0, head.weight.shape[0])
    _check_items(targets, items)
    device = hidden.device.type
    # Under autocast the last norm leaves float32 behind; the head is where most of the work is. Otherwise, and where
    # nothing is learnt from it, the loss is that of the logits to the last digit.
    rounded = torch.is_autocast_enabled(device) and torch.is_grad_enabled()
    part = head_division(head)
    if part is not None:
        check_same_batch(part, hidden, targets, negative_ids)
        if negative_ids is None:
            hidden, extra = whole_gradient(hidden, part), None if extra is None else part.only(extra)
            targets, items = targets - part.first, part.inside(items)
    gathered = is_gathered(head)
    if gathered or reads_weight(head) or shares_weight(head):
        weight = spread_weight(head) if shares_weight(head) else head.weight
        # FSDP waits for a call of every module whose weight it has put together: one for no target, which is worth 0.
        nothing = head(hidden[:0].to(weight.dtype)).sum() if gathered else None
        hidden = hidden.to(torch.get_autocast_dtype(device) if rounded else wide(hidden.dtype))
        if negative_ids is not None and negative_log_q is not None:
            total = sampled_softmax_loss(hidden, weight, targets, negative_ids, negative_log_q, head, part)
        else:
            vectors = item_vectors(head, weight)
            total = full_softmax_loss(hidden, vectors, targets, items=items, extra=extra, part=part)
        total = total if nothing is None else total + nothing
    else:
        total = _called_loss(hidden, head, targets, items, negative_ids, negative_log_q, extra)
    return _mean(total, targets, num_items_in_batch)


def loss_of_logits(
    logits: torch.Tensor,
    shift_labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None,
    items: tuple[int, int],
) -> torch.Tensor:
    """`next_item_loss` of `(B, T, V)` logits that are more than a product with the head (`mix_lsrm`)."""
    wanted = shift_labels != -100
    targets = shift_labels[wanted]
    _check_items(targets, items)
    return _mean(nn.functional.cross_entropy(logits[wanted], targets, reduction="sum"), targets, num_items_in_batch)


def _check_items(targets: torch.Tensor, items: tuple[int, int]) -> None:
    if not targets.numel():
        return
    lowest, highest = torch.stack(targets.aminmax()).tolist()
    if lowest < items[0] or highest >= items[1]:
        wrong = lowest if lowest < items[0] else highest
        raise ValueError(
            f"a label is {wrong}, which is no item: items are the tokens from {items[0]} to {items[1] - 1}. "
            "Positions without a target, padding and unknown items have the label -100."
        )


def _mean(total: torch.Tensor, targets: torch.Tensor, count: torch.Tensor | int | None) -> torch.Tensor:
    """A sum over targets as a mean; a step can be without any (fewer rows than processes): its loss is 0, not 0 / 0."""
    if count is None:
        count = targets.numel()
    return total / (count.clamp(min=1) if isinstance(count, torch.Tensor) else max(count, 1))


__all__ = ["full_softmax_loss", "loss_of_logits", "next_item_loss", "sampled_softmax_loss"]
