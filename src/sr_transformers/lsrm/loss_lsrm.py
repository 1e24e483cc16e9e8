# Copyright 2026 The sr_transformers authors. Licensed under the Apache License, Version 2.0.
"""Cross-entropy over a large item vocabulary that never holds all logits.

    loss = sum_i [ logsumexp_v(h_i . w_v) - h_i . w_{t_i} ]

The logits of N targets over V items are N x V numbers; here they exist a few rows at a time, in two buffers that are
used again for every chunk (fresh memory of that size costs more in page faults than the arithmetic on it). Gradients
are computed in the same pass and stored, N x d and V x d, so that backward only scales them.

What it refuses: a second derivative, and logits bias or temperature (the head of LSRM has none).
"""

import math

import torch
from torch import nn
from torch.distributed.tensor import DTensor

# Numbers per logits buffer. On a CPU a chunk should stay in the cache of one core's neighbourhood; on an accelerator
# it should be large enough to fill the device.
_CPU_BUFFER = 1 << 20
_ACCELERATOR_BUFFER = 1 << 26


def _wide(dtype: torch.dtype) -> torch.dtype:
    """Softmax and sums are taken in this: float32, or float64 for float64 input."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _chunk_rows(num_items: int, device: torch.device) -> int:
    buffer = _CPU_BUFFER if device.type == "cpu" else _ACCELERATOR_BUFFER
    return max(32, buffer // max(num_items, 1))


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, targets, chunk_rows):
        num_targets, num_items = hidden.shape[0], weight.shape[0]
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        compute = hidden.dtype
        table = weight.to(compute)  # once per call: bf16 and fp16 multiply on their own units
        wide = _wide(compute)
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=wide) if needs_weight else None
        rows = min(chunk_rows, num_targets)
        logits_buffer = torch.empty(rows, num_items, dtype=compute, device=hidden.device)
        softmax_buffer = torch.empty(rows, num_items, dtype=wide, device=hidden.device)
        total = torch.zeros((), dtype=wide, device=hidden.device)
        for start in range(0, num_targets, rows):
            h = hidden[start : start + rows]
            target = targets[start : start + rows, None]
            logits = torch.mm(h, table.t(), out=logits_buffer[: h.shape[0]])
            softmax = softmax_buffer[: h.shape[0]]
            if compute != wide:
                logits = softmax.copy_(logits)
            target_logit = logits.gather(1, target)
            top = logits.amax(1, keepdim=True)
            # logsumexp = max - log(softmax at the max): the largest probability is at least 1/V, so its logarithm is
            # exact, and no second pass of exponentials is needed.
            probabilities = torch.softmax(logits, 1, out=softmax)
            log_z = top - probabilities.amax(1, keepdim=True).log()
            total += (log_z - target_logit).sum()
            if needs_hidden or needs_weight:
                residual = probabilities.scatter_add_(1, target, probabilities.new_full(target.shape, -1.0))
                if compute != wide:
                    residual = logits_buffer[: h.shape[0]].copy_(residual)
                if grad_hidden is not None:
                    torch.mm(residual, table, out=grad_hidden[start : start + rows])
                if grad_weight is not None:
                    if compute == wide:
                        grad_weight.addmm_(residual.t(), h)
                    else:
                        grad_weight += residual.t() @ h
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_output):
        grad_hidden, grad_weight = ctx.saved_tensors
        if grad_hidden is not None:
            grad_hidden = grad_hidden * grad_output.to(grad_hidden.dtype)
        if grad_weight is not None:
            grad_weight = (grad_weight * grad_output).to(ctx.weight_dtype)
        return grad_hidden, grad_weight, None, None


def full_softmax_loss(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, chunk_rows: int | None = None
) -> torch.Tensor:
    """Sum over targets of the exact cross-entropy over all items, in nats.

    Args:
        hidden: `(N, d)` states that predict; may be bf16 or fp16, the softmax is then still taken in float32.
        weight: `(V, d)` item embeddings.
        targets: `(N,)` int64 in `[0, V)`.
        chunk_rows: rows of logits held at a time; None chooses by V and device.

    Returns:
        A scalar in float32 (float64 for float64 input). Zero targets give 0.

    Memory: two buffers of `chunk_rows * V` numbers and the two gradients; nothing of size N x V.
    """
    if targets.numel() == 0:
        return hidden.sum() * 0.0 + weight.sum() * 0.0
    if chunk_rows is None:
        chunk_rows = _chunk_rows(weight.shape[0], hidden.device)
    return _ChunkedCrossEntropy.apply(hidden.contiguous(), weight, targets, chunk_rows)


def sampled_softmax_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    negative_ids: torch.Tensor,
    negative_log_q: torch.Tensor,
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

    Returns:
        A scalar in float32 (float64 for float64 input). Its expectation is below the exact loss (logarithm of an
        unbiased estimate), by less the more negatives there are: report the exact loss, never this one.
    """
    wide = _wide(hidden.dtype)
    # One gather for both, so that backward makes one gradient of the table's size and not two.
    rows = weight[torch.cat([targets, negative_ids])].to(hidden.dtype)
    positive = (hidden * rows[: len(targets)]).sum(-1).to(wide)
    negative = (hidden @ rows[len(targets) :].t()).to(wide)
    negative = negative - negative_log_q.to(wide) - math.log(negative_ids.numel())
    negative = negative.masked_fill(targets[:, None] == negative_ids[None, :], float("-inf"))
    log_z = torch.logsumexp(torch.cat([positive[:, None], negative], dim=1), dim=1)
    return (log_z - positive).sum()


def next_item_loss(
    hidden: torch.Tensor,
    head: nn.Linear,
    shift_labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    negative_ids: torch.Tensor | None = None,
    negative_log_q: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean next-item cross-entropy in nats over the positions that have a target.

    Args:
        hidden: `(B, T, d)` last hidden states.
        head: the output projection, `(V, d)` weight without bias.
        shift_labels: `(B, T)` int64, the target of each position, -100 where there is none.
        num_items_in_batch: divide the sum by this instead of by the number of targets here (gradient accumulation and
            several processes: the mean must be over all of them).
        negative_ids, negative_log_q: switch to `sampled_softmax_loss`.

    Raises:
        ValueError: if only one of the two is given; a sampled loss needs both.
    """
    if (negative_ids is None) != (negative_log_q is None):
        raise ValueError("sampled softmax needs both negative_ids and negative_log_q; only one of them was given.")
    wanted = shift_labels.reshape(-1) != -100
    hidden = hidden.reshape(-1, hidden.shape[-1])
    targets = shift_labels.reshape(-1)
    if not bool(wanted.all()):
        hidden, targets = hidden[wanted], targets[wanted]
    # Tensor parallelism shards the table by items; the softmax is over all of them.
    weight = head.weight.full_tensor() if isinstance(head.weight, DTensor) else head.weight
    device = hidden.device.type
    if torch.is_autocast_enabled(device):  # the last norm leaves float32 behind; the head is where most of the work is
        hidden = hidden.to(torch.get_autocast_dtype(device))
    if negative_ids is not None and negative_log_q is not None:
        total = sampled_softmax_loss(hidden, weight, targets, negative_ids, negative_log_q)
    else:
        total = full_softmax_loss(hidden, weight, targets)
    count = targets.numel() if num_items_in_batch is None else num_items_in_batch
    # A step can be without targets (fewer rows than processes): its loss is 0, not 0 / 0.
    return total / (count.clamp(min=1) if isinstance(count, torch.Tensor) else max(count, 1))


__all__ = ["full_softmax_loss", "next_item_loss", "sampled_softmax_loss"]
