# Copyright 2026 The sr_transformers authors. Licensed under the Apache License, Version 2.0.
"""Attention in plain operations: the reference of all backends, and for many short rows on CPUs, where torch's fused
kernel is slow, its backward in bfloat16 above all."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

# Most items in a row whose weights are all kept: beyond, they take more memory than the time they save is worth.
LONGEST_ROW = 256
# Most attention weights of a layer outside training: 16 MiB of float32.
MOST_WEIGHTS = 1 << 22


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain attention, the reference of all backends. Shapes `(B, H, T, D)`; returns `(B, T, H, D)` and the weights."""
    weights = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = nn.functional.softmax(weights, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    output = torch.matmul(weights, value).transpose(1, 2).contiguous()
    return output, weights


def pointwise_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention whose weights are no shares of a whole: the mean over all items that a query sees of silu(q . k) times
    the value. Called as `eager_attention_forward`, with truth values or numbers as its mask.

    Source: HSTU, arXiv 2402.17152. Differs: the sum is divided by the items seen, not by the length of the row, so that
    padding and other users in the row change nothing.
    """
    asking, dtype = query.shape[2], torch.promote_types(query.dtype, torch.float32)
    if attention_mask is None:
        if asking > 1:  # room that a static cache has left
            key, value = key[:, :, :asking], value[:, :, :asking]
        attention_mask = torch.ones(asking, key.shape[2], dtype=torch.bool, device=query.device)
        attention_mask = attention_mask.tril(key.shape[2] - asking)[None, None]
    if attention_mask.dtype == torch.bool:
        numbers = torch.zeros(attention_mask.shape, dtype=dtype, device=query.device)
        attention_mask = numbers.masked_fill_(~attention_mask, torch.finfo(dtype).min)
    seen = (attention_mask > torch.finfo(attention_mask.dtype).min / 4).sum(-1, keepdim=True).clamp(min=1)
    scores = torch.matmul(query, key.transpose(2, 3)).to(dtype) * scaling + attention_mask
    weights = (nn.functional.silu(scores) / seen).to(query.dtype)  # silu of the lowest number is 0
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


def exact_attention(
    attention: Callable,
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """An attention function computed in float32, its result rounded once: what a user is answered in bf16 or fp16 must
    not depend on which kernel the number of rows, a mask or a cache chooses, and each rounds on the way in its own."""
    if attention_mask is not None and attention_mask.is_floating_point():
        attention_mask = attention_mask.float()
    output, weights = attention(module, query.float(), key.float(), value.float(), attention_mask, **kwargs)
    return output.to(query.dtype), weights


def needs_exact_attention(query: torch.Tensor, implementation: str | None, training: bool) -> bool:
    """Whether `exact_attention` is to be used: outside training, for weights in bf16 or fp16, on CPUs. Under autocast
    speed was asked for, and there ranking would take a sixth more time."""
    rounds = query.dtype in (torch.bfloat16, torch.float16) and not training and query.device.type == "cpu"
    return rounds and implementation in ("eager", "sdpa") and not torch.is_autocast_enabled("cpu")


def short_row_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as batched matrix products: what `scaled_dot_product_attention` computes, all weights at once.

    Called as transformers calls its attention functions.

    Args:
        module: the layer; not needed here.
        query: `(B, H, Q, D)`, of the last Q positions.
        key, value: `(B, H, T, D)`.
        attention_mask: `(B, 1, Q, T)` bool, true where a query may look; None: at everything before it and itself; or
            `(B or 1, H, Q, T)` numbers to be added before the softmax.
        scaling: of the products, before the softmax.
        dropout: rate for the weights.

    Returns:
        `(B, Q, H, D)`, and no weights.
    """
    batch, heads, asking, size = query.shape
    length = key.shape[2]
    lowest = torch.finfo(query.dtype).min
    if attention_mask is None:
        bias = query.new_full((1, asking, length), lowest).triu_(1 + length - asking)
    else:
        bias = attention_mask.to(query.dtype)
        if attention_mask.dtype == torch.bool:
            bias = query.new_zeros(attention_mask.shape).masked_fill_(~attention_mask, lowest)
        bias = bias.expand(batch, heads, asking, length).reshape(-1, asking, length)
    query, key, value = (states.reshape(batch * heads, -1, size) for states in (query, key, value))
    with torch.autocast(query.device.type, enabled=False):
        weights = torch.baddbmm(bias, query, key.transpose(1, 2), alpha=scaling).softmax(-1)
        output = torch.bmm(nn.functional.dropout(weights, dropout), value)
    return output.view(batch, heads, asking, size).transpose(1, 2).contiguous(), None


def prefers_short_rows(
    query: torch.Tensor, key: torch.Tensor, attention_mask: torch.Tensor | None, training: bool
) -> bool:
    """Whether `short_row_attention` had better be used than "sdpa": on a CPU, for several rows that are not too long.

    Measured there at 50 items and 2 heads of 32. Training in bfloat16: 3 instead of 18 ms forward and backward; in
    float32 the two tie, but for biases (`biases_lsrm`), where it is a quarter faster. Ranking 128 users: 13 instead of
    20 us a user in bfloat16, 12 instead of 20 in float32. For the last item alone, in bfloat16, 2 instead of 4,
    compiled 1. It needs the weights of all rows at once, which in ranking must fit into the cache.
    """
    biased = attention_mask is not None and attention_mask.shape[1] > 1
    has_truth_values = attention_mask is None or attention_mask.dtype == torch.bool
    whole = query.shape == key.shape or (query.shape[2] == 1 and query.dtype == torch.bfloat16 and not training)
    fits = query.device.type == "cpu" and whole and key.shape[2] <= LONGEST_ROW
    if not ((has_truth_values or biased) and fits) or torch.jit.is_tracing() or torch.compiler.is_exporting():
        return False  # an exported model must not depend on the shapes of its example
    if training:
        return query.dtype == torch.bfloat16 or biased
    return query.shape[0] > 1 and query.shape[:3].numel() * key.shape[2] <= MOST_WEIGHTS


__all__ = [
    "LONGEST_ROW",
    "MOST_WEIGHTS",
    "eager_attention_forward",
    "exact_attention",
    "needs_exact_attention",
    "pointwise_attention",
    "prefers_short_rows",
    "short_row_attention",
]
