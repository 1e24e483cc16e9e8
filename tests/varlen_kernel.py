"""A stand-in on the CPU for torch's variable-length attention, which runs on GPUs only."""

import itertools

import torch
from torch import nn


def stand_in(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size, causal=True):
    """`(T, H, D)` attention within each sequence, one after the other; `causal=False` is a kernel that looks ahead."""
    parts = []
    for start, stop in itertools.pairwise(cu_seq_q.tolist()):
        one = [states[start:stop].transpose(0, 1)[None] for states in (query, key, value)]
        attended = nn.functional.scaled_dot_product_attention(*one, is_causal=causal, scale=scale)
        parts.append(attended[0].transpose(0, 1))
    return torch.cat(parts)
