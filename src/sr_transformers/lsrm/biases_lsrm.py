# Copyright 2026 The sr_transformers authors. Licensed under the Apache License, Version 2.0.
"""Numbers that are added before the softmax of attention, learned for each head: by how many items ago the key was, and
by how long ago. All layers share them, and they begin at zero.

What they refuse: attention backends that take a mask of their own form instead of numbers (flash, flex).

Source: distances in classes as in T5 (arXiv 1910.10683, section 2.1); times as in HSTU (arXiv 2402.17152, relative
attention bias). Differs: "now" is the moment of the query's own interaction; HSTU looks at that of the target.
"""

import math

import torch
from torch import nn
from transformers.cache_utils import Cache

from .configuration_lsrm import LSRMConfig

# Classes of distances (from the second number on all are one), and of times (none at all, less than an eighth of the
# usual time between two baskets, and powers of 2 of it).
DISTANCES, _FURTHEST = 32, 128
TIMES = 24


def distance_class(distance: torch.Tensor) -> torch.Tensor:
    """Class of a distance in items, 0 or more: the first half of them have one each, then they widen."""
    exact = DISTANCES // 2
    wider = (distance.clamp(min=1).float() / exact).log() * (exact / math.log(_FURTHEST / exact))
    return torch.where(distance < exact, distance, (exact + wider.long()).clamp(max=DISTANCES - 1))


def time_class(time: torch.Tensor, unit: float) -> torch.Tensor:
    """Class of a time, int64 and 0 or more, in the log's unit; `unit`: the usual time between two baskets."""
    power = torch.frexp(time.float() * (16.0 / unit)).exponent.clamp(min=1, max=TIMES - 1)
    return power.long() * (time > 0)


class LSRMBiasTable(nn.Embedding):
    """A number for each class and head; begins as zero."""


class LSRMAttentionBias(nn.Module):
    """Makes the masks of attention into sums of them and the biases.

    Args:
        config: `position` "relative" and `attention_time` say what there is.
    """

    def __init__(self, config: LSRMConfig):
        super().__init__()
        self.config = config  # training sets its time_unit
        heads = config.num_attention_heads
        self.by_distance = LSRMBiasTable(DISTANCES, heads) if config.position == "relative" else None
        self.by_time = LSRMBiasTable(TIMES, heads) if config.attention_time else None

    def forward(
        self, mask: torch.Tensor | None, asking: int, cache: Cache | None, moments: torch.Tensor | None
    ) -> torch.Tensor:
        """`(B or 1, H, Q, K)` numbers to be added before the softmax.

        Args:
            mask: as attention takes it, `(B, 1, Q, K)`: true where a query may look, or numbers; None: at everything
                before it and itself.
            asking: Q.
            cache: holds the keys before the last Q, if there are any.
            moments: `(B, K)` int64, of all keys, those in the cache too.

        Raises:
            ValueError: for an attention backend that takes no numbers, and for missing moments or not as many as keys.
        """
        if self.config._attn_implementation not in ("eager", "sdpa"):
            name = "position relative" if self.by_distance is not None else "attention_time"
            raise ValueError(f"{name} works with eager and sdpa attention, not {self.config._attn_implementation}.")
        table = self.by_distance if self.by_distance is not None else self.by_time
        device = table.weight.device  # type: ignore[union-attr]
        past, length = 0, asking
        if cache is not None:
            past, (length, _) = cache.get_seq_length(), cache.get_mask_sizes(asking, 0)
        query = torch.arange(asking, device=device) + past
        distance = query[:, None] - torch.arange(length, device=device)
        bias: torch.Tensor | None = None
        if self.by_distance is not None:
            bias = self.by_distance(distance_class(distance.clamp(min=0)))[None]
        if self.by_time is not None:
            if moments is None or not asking <= moments.shape[1] <= length:
                raise ValueError(
                    "this model's attention reads the moments of the interactions (attention_time): pass moments, one "
                    "for each item that attention sees, those in the cache too."
                )
            keys = nn.functional.pad(moments, (0, length - moments.shape[1]))  # room that a static cache has left
            gap = (moments[:, -asking:, None] - keys[:, None]).clamp(min=0)
            by_time = self.by_time(time_class(gap, self.config.time_unit))
            bias = by_time if bias is None else bias + by_time
        assert bias is not None
        bias = bias.permute(0, 3, 1, 2)
        if mask is None:
            mask = (distance >= 0)[None, None]
        if mask.dtype == torch.bool:  # half of the lowest: a sum with it, or rounded to bf16, is a number still
            return bias.masked_fill(~mask, torch.finfo(bias.dtype).min / 2)
        return bias + mask


__all__ = ["DISTANCES", "TIMES", "LSRMAttentionBias", "LSRMBiasTable", "distance_class", "time_class"]
