# Copyright 2026 The sr_transformers authors. Licensed under the Apache License, Version 2.0.
"""The blocks of LSRM: attention, feed-forward, and the residual stream around them."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs

from .attention_lsrm import (
    eager_attention_forward,
    exact_attention,
    needs_exact_attention,
    pointwise_attention,
    prefers_short_rows,
    short_row_attention,
)
from .configuration_lsrm import SWIGLU, LSRMConfig
from .dropout_lsrm import LSRMDropout
from .rotary_lsrm import Rotation, rotate
from .varlen_lsrm import implementation_of

# As usual. ONNX's optimizer takes 1e-12 for 0, and the vector of padding, which is 0, would then have no norm.
_RMS_EPS = 1e-6


def make_norm(config: LSRMConfig) -> nn.Module:
    """A norm over the width, of the configuration's kind."""
    if config.norm == "rms":
        return nn.RMSNorm(config.hidden_size, eps=_RMS_EPS)
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


class LSRMAttention(nn.Module):
    """Causal multi-head self-attention with biases."""

    def __init__(self, config: LSRMConfig, layer_idx: int):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.num_key_value_groups = 1
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.layer_dropout("attention_dropout")[layer_idx]
        self.is_causal = True
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        last_only: bool = False,
        rotation: Rotation | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        asking = hidden_states[:, -1:] if last_only else hidden_states
        input_shape = asking.shape[:-1]
        hidden_shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        query = self.q_proj(asking).view(*input_shape, -1, self.head_dim)
        key = self.k_proj(hidden_states).view(hidden_shape)
        value = self.v_proj(hidden_states).view(hidden_shape)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        dropout = self.attention_dropout if self.training else 0.0
        implementation = implementation_of(self.config, self.training, kwargs)
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        if self.config.attention == "pointwise":
            if implementation not in ("eager", "sdpa"):
                raise ValueError(f"attention pointwise works with eager and sdpa, not {implementation}.")
            attention = pointwise_attention
        elif implementation == "sdpa" and prefers_short_rows(query, key, attention_mask, self.training):
            attention = short_row_attention
        if needs_exact_attention(query, implementation, self.training):
            attention = partial(exact_attention, attention)
        output, weights = attention(
            self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, **kwargs
        )
        return self.o_proj(output.reshape(*input_shape, -1).contiguous()), weights


class LSRMMLP(nn.Module):
    """Feed-forward: width d to `inner_size` and back."""

    def __init__(self, config: LSRMConfig):
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, config.inner_size)
        self.down_proj = nn.Linear(config.inner_size, config.hidden_size)
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act_fn(self.up_proj(hidden_states)))


class LSRMSwiGLU(nn.Module):
    """Feed-forward with a gate: silu(A x) times (B x), `inner_size` wide, and back."""

    def __init__(self, config: LSRMConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.inner_size)
        self.up_proj = nn.Linear(config.hidden_size, config.inner_size)
        self.down_proj = nn.Linear(config.inner_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.down_proj(nn.functional.silu(self.gate_proj(hidden_states)) * self.up_proj(hidden_states))


class LSRMDecoderLayer(GradientCheckpointingLayer):
    """Pre-norm block; its residual dropout rate depends on its depth."""

    def __init__(self, config: LSRMConfig, layer_idx: int):
        super().__init__()
        self.self_attn = LSRMAttention(config, layer_idx)
        self.mlp = LSRMSwiGLU(config) if config.hidden_act == SWIGLU else LSRMMLP(config)
        self.input_layernorm = make_norm(config)
        self.post_attention_layernorm = make_norm(config)
        gated = config.residual == "gated"
        self.attention_gate = nn.Linear(config.hidden_size, config.hidden_size) if gated else None
        self.mlp_gate = nn.Linear(config.hidden_size, config.hidden_size) if gated else None
        self.residual_dropout = LSRMDropout(config.layer_dropout("residual_dropout")[layer_idx])

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = False,
        last_only: bool = False,
        rotation: Rotation | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        attended, _ = self.self_attn(
            self.input_layernorm(hidden_states),
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            last_only=last_only,
            rotation=rotation,
            **kwargs,
        )
        if last_only:
            hidden_states = hidden_states[:, -1:]
        hidden_states = self._add(hidden_states, attended, self.attention_gate)
        transformed = self.mlp(self.post_attention_layernorm(hidden_states))
        return self._add(hidden_states, transformed, self.mlp_gate)

    def _add(self, hidden_states: torch.Tensor, found: torch.Tensor, gate: nn.Module | None) -> torch.Tensor:
        found = self.residual_dropout(found)
        if gate is not None:
            found = torch.sigmoid(gate(hidden_states)) * found
        return hidden_states + found


__all__ = ["LSRMMLP", "LSRMAttention", "LSRMDecoderLayer", "LSRMSwiGLU", "make_norm"]
