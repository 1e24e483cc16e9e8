# Copyright 2026 The sr_transformers authors. Licensed under the Apache License, Version 2.0.
"""Rotary positions: queries and keys are turned by angles that grow with the position, so that their products depend on
how far apart two items stand, and on nothing else of where they stand. Every attention backend takes them.

Source: "RoFormer: Enhanced Transformer with Rotary Position Embedding", arXiv 2104.09864.
"""

import torch

_BASE = 10_000.0  # of the wavelengths, which run from 2 pi items to 2 pi times this

Rotation = tuple[torch.Tensor, torch.Tensor]


def rotation_at(position_ids: torch.Tensor, head_size: int) -> Rotation:
    """Cosines and sines, each `(B, T, 1, head_size / 2)` float32, of `(B, T)` positions."""
    places = torch.arange(0, head_size, 2, device=position_ids.device)
    angles = position_ids[:, :, None, None].float() * _BASE ** (-places / head_size)
    return angles.cos(), angles.sin()


def rotate(states: torch.Tensor, rotation: Rotation) -> torch.Tensor:
    """`(B, T, H, D)` queries or keys, turned; of fewer positions than the rotation: of the last ones."""
    cosine, sine = (one[:, -states.shape[1] :] for one in rotation)
    wide = states if states.dtype == torch.float64 else states.float()
    first, second = wide.chunk(2, dim=-1)
    turned = torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
    return turned.to(states.dtype)


__all__ = ["Rotation", "rotate", "rotation_at"]
