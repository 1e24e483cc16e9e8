# Copyright 2026 The sr_transformers authors. Licensed under the Apache License, Version 2.0.
"""Attention over one flat row of many sequences with torch's own variable-length kernel, for GPUs without flash-attn.

Importing this file makes transformers know it as `attn_implementation="torch_varlen"`. It is for training; what a model
is asked outside of it (ranking, generating, with padding or a cache) goes through "sdpa".

What it refuses: rows that nothing divides into sequences (`cu_seq_lens_q`), CPUs, float32, dropout of attention
weights, and heads wider than 256. The kernel has none of these.
"""

import copy
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig
from transformers.masking_utils import flash_attention_mask

TORCH_VARLEN = "torch_varlen"
DEVICES = ("cuda",)
DTYPES = (torch.bfloat16, torch.float16)
# The kernel takes heads whose width is a multiple of the one, and at most the other.
_STEP, _WIDEST = 8, 256
_LENGTHS = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")


def implementation_of(config: PreTrainedConfig, training: bool, kwargs: dict[str, Any]) -> str | None:
    """The attention that computes this call: that of the configuration, but "sdpa" instead of "torch_varlen" outside
    training, unless the call says where sequences begin."""
    asked = config._attn_implementation
    outside = asked == TORCH_VARLEN and not training and kwargs.get("cu_seq_lens_q") is None
    return "sdpa" if outside else asked


def masking_config(config: PreTrainedConfig, implementation: str | None) -> PreTrainedConfig:
    """The configuration by which transformers makes a mask for an attention that need not be the configuration's."""
    if config._attn_implementation == implementation:
        return config
    config = copy.copy(config)
    config._attn_implementation = implementation
    return config


def torch_varlen_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each sequence of a flat row. Called as transformers calls its attention functions.

    Args:
        module: the layer; not needed here.
        query, key, value: `(1, H, T, D)`, bf16 or fp16 (float32 under autocast is cast), D at most 256.
        attention_mask: None; what flash-attention's mask would be.
        scaling: of the products, before the softmax.
        dropout: 0.
        kwargs: `cu_seq_lens_q` and `cu_seq_lens_k`, `(S + 1,)` integers from 0 to T: where the S sequences begin, and
            the end of the last; `max_length_q` and `max_length_k`: the longest.

    Returns:
        `(1, T, H, D)`, and no weights.

    Raises:
        ValueError: for anything else.
    """
    missing = [name for name in _LENGTHS if kwargs.get(name) is None]
    if missing:
        raise ValueError(
            f"attention {TORCH_VARLEN} tells sequences apart by {', '.join(_LENGTHS)}, and {', '.join(missing)} "
            "did not come: use layout flat (transformers' own Trainer: DataCollatorWithFlattening with "
            "return_flash_attn_kwargs=True), or attention sdpa."
        )
    if dropout > 0:
        raise ValueError(f"attention {TORCH_VARLEN} has no dropout of attention weights; set attention_dropout to 0.")
    if query.shape[0] != 1 or query.shape != key.shape or attention_mask is not None:
        raise ValueError(
            f"attention {TORCH_VARLEN} takes one flat row without padding, mask or cache, not queries of the shape "
            f"{tuple(query.shape)} and keys of {tuple(key.shape)}; use layout flat, or attention sdpa."
        )
    if query.device.type not in DEVICES:
        raise ValueError(f"attention {TORCH_VARLEN} runs on CUDA GPUs, not on {query.device.type}; use sdpa.")
    device = query.device.type
    if torch.is_autocast_enabled(device):
        wanted = torch.get_autocast_dtype(device)
        query, key, value = query.to(wanted), key.to(wanted), value.to(wanted)
    if query.dtype not in DTYPES:
        raise ValueError(
            f"attention {TORCH_VARLEN} computes in bf16 or fp16, not in {query.dtype}; use precision bf16 (or "
            "torch.autocast), or attention sdpa."
        )
    width = query.shape[-1]
    if width > _WIDEST:
        raise ValueError(f"attention {TORCH_VARLEN} takes heads of width {_WIDEST} at most, not {width}; use sdpa.")
    # Imported here: a reader of the Hub whose torch has no such kernel can still use the other attentions.
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = (one[0].transpose(0, 1) for one in (query, key, value))
    if width % _STEP:  # zeros change no product
        query, key, value = (nn.functional.pad(one, (0, -width % _STEP)) for one in (query, key, value))
    output: Any = varlen_attn(  # without return_aux a tensor
        query,
        key,
        value,
        kwargs["cu_seq_lens_q"].to(torch.int32),
        kwargs["cu_seq_lens_k"].to(torch.int32),
        int(kwargs["max_length_q"]),
        int(kwargs["max_length_k"]),
        scale=scaling,
        window_size=(-1, 0),  # causal
    )
    return output[None, :, :, :width], None


AttentionInterface.register(TORCH_VARLEN, torch_varlen_attention)
AttentionMaskInterface.register(TORCH_VARLEN, flash_attention_mask)


__all__ = ["TORCH_VARLEN", "implementation_of", "masking_config", "torch_varlen_attention"]
