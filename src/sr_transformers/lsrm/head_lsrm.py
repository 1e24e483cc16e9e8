# Copyright 2026 The sr_transformers authors. Licensed under the Apache License, Version 2.0.
"""Heads other than the plain product of state and item: divided by a learned temperature, and of unit vectors.

The temperature is taken into the states, so that scores are products of states and item vectors for whoever reads them.

Source: learned temperature and cosines as in CLIP (arXiv 2103.00020, section 2.5).
"""

from typing import Any

import torch
from torch import nn

_COSINE_SCALE = 1 / 0.07  # of cosines, to begin with; the products of a plain head begin as they are


class LSRMTemperature(nn.Module):
    """Divides states by a learned temperature. Its logarithm is learned as a difference to the one at the start."""

    def __init__(self, normalised: bool):
        super().__init__()
        self.normalised = normalised
        self.log_scale = nn.Parameter(torch.zeros(1))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """`(..., d)` states; of unit length before, if the head is normalised."""
        if self.normalised:
            states = nn.functional.normalize(states, dim=-1) * _COSINE_SCALE
        return states * self.log_scale.exp()


class CosineHead(nn.Linear):
    """A head that multiplies with item vectors of unit length."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(states, nn.functional.normalize(self.weight, dim=-1))


def item_vectors(head: Any, weight: torch.Tensor | None = None) -> torch.Tensor:
    """`(V, d)` whose products with states are the scores of a linear head.

    Args:
        weight: of the head, put together from where it is spread; None: its own.
    """
    weight = head.weight if weight is None else weight
    return nn.functional.normalize(weight, dim=-1) if isinstance(head, CosineHead) else weight


__all__ = ["CosineHead", "LSRMTemperature", "item_vectors"]
