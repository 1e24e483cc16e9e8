# Copyright 2026 The sr_transformers authors. Licensed under the Apache License, Version 2.0.
"""Configuration of LSRM, the decoder-only sequential recommender, and the six sizes of its paper.

Source: "Scaling Law of Large Sequential Recommendation Models", arXiv 2311.11351 (RecSys 2024), called *the paper*
below. Keys carry transformers' own names. This file travels to the Hub beside the weights: it imports nothing of ours.
"""

import math
from typing import TYPE_CHECKING

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

if TYPE_CHECKING:  # never imported here: transformers copies the files that it finds named so
    from .pipeline_lsrm import NextItemPipeline  # noqa: F401

# Tokens 0 and 1 are special: padding, and every item that the vocabulary lacks. Items follow.
NUM_SPECIAL = 2

# What config.json says of the code beside it. transformers would list only the class that is being saved.
AUTO_MAP = {
    "AutoConfig": "configuration_lsrm.LSRMConfig",
    "AutoModel": "modeling_lsrm.LSRMModel",
    "AutoModelForCausalLM": "modeling_lsrm.LSRMForCausalLM",
}
CUSTOM_PIPELINES = {
    "next-item": {"impl": "pipeline_lsrm.NextItemPipeline", "pt": ["AutoModelForCausalLM"], "type": "text"}
}

# name -> (layers, width, heads). N = 12 * layers * width**2 is exact for every row (the paper's table of sizes).
# 800m has heads of width 50, which is no multiple of 8: flash kernels pad such heads to 56 or 64.
LSRM_SIZES: dict[str, tuple[int, int, int]] = {
    "98k": (2, 64, 2),
    "786k": (4, 128, 4),
    "1.5m": (8, 128, 4),
    "9m": (12, 256, 8),
    "75m": (24, 512, 8),
    "800m": (48, 1200, 24),
}

# The dropout of the code that the paper's first author released (December 2023). It contradicts the paper: only the
# residual rate varies, and it *grows* with depth. The true rates per size were never published.
RELEASED_CODE_DROPOUT: dict[str, float | tuple[float, float]] = {
    "embedding_dropout": 0.1,
    "attention_dropout": (0.1, 0.1),
    "residual_dropout": (0.1, 0.2),
}


def layer_rates(bounds: tuple[float, float] | list[float], num_layers: int) -> list[float]:
    """Dropout rate of every layer, from the bottom up: linear in depth from `bounds[0]` to `bounds[1]`.

    A model of one layer gets the bottom rate.

    >>> layer_rates((0.3, 0.1), 3)
    [0.3, 0.2, 0.1]
    """
    bottom, top = bounds
    steps = max(num_layers - 1, 1)
    return [round(bottom + (top - bottom) * layer / steps, 12) for layer in range(num_layers)]


# What scores may have beside `h . w_v`, see `history_lsrm` and, for "mix", `mix_lsrm`; two need moments.
NEEDS_TIMES = ("baskets", "clock")
HISTORY_PARTS = ("recency", "bigrams", "items", *NEEDS_TIMES, "mix")
OWN_PARTS = ("recency", "bigrams", "items", "baskets", "mix")  # of the scores of a user's own items
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}  # of time, per second
LAGS = 3  # successors of the last item, of the one before, and of the one before that

# The blocks: what each key may be, the paper's model first (sources: docs/blocks.md).
_CHOICES = {
    "position": ("learned", "rotary", "relative"),
    "attention": ("softmax", "pointwise"),
    "norm": ("layer", "rms"),
    "residual": ("plain", "gated"),
    "head": ("plain", "scaled", "normalised"),
}
SWIGLU = "swiglu"

# Counts lie in [1, these]: beyond them a value is a mistake or an attack, and to build such a model takes for ever.
_LARGEST = {
    "vocab_size": 2**31 - 1,
    "hidden_size": 1 << 17,
    "num_hidden_layers": 1 << 12,
    "num_attention_heads": 1 << 17,
    "intermediate_size": 1 << 20,
    "max_position_embeddings": 1 << 20,
    "num_successors": 1 << 24,
    "successor_pairs": 2**31 - 1,
    "mix_window": 1 << 24,
    "mix_stretches": 1 << 24,
    "mix_pairs": 2**31 - 1,
}


@strict
class LSRMConfig(PreTrainedConfig):
    """Everything that fixes the architecture of an LSRM.

    Args:
        vocab_size: rows of the item table: item vocabulary, special tokens included (V), and rows that only fill it up.
        num_items: items, which are the tokens from 2 on; rows beyond them are no items, and neither they nor the
            special tokens have any probability. None: all rows but the special ones are items.
            `resize_token_embeddings` keeps it right.
        hidden_size: width d of the residual stream and of the item embeddings.
        num_hidden_layers: number of decoder blocks L.
        num_attention_heads: attention heads; must divide `hidden_size`.
        intermediate_size: inner width of the feed-forward; None means 4 * `hidden_size`, as in the paper. With swiglu
            see `inner_size`.
        max_position_embeddings: window, in items: the model reads at most this many of the most recent items (50 in
            the paper).
        hidden_act: activation of the feed-forward; "gelu" is the exact (erf) one. "swiglu": SiLU of one product times
            another, `inner_size` wide.
        position: "learned" vectors that are added to the items (the paper), "rotary" queries and keys, or "relative":
            a learned number for each head and class of distances, added before the softmax.
        attention: "softmax", or "pointwise": silu of the products, divided by the number of items seen.
        norm: "layer" or "rms" (with an epsilon of 1e-6).
        residual: "plain", or "gated": what is added to the residual stream x is multiplied by sigmoid(W x).
        attention_time: add, before the softmax, a learned number for each head and class of time between the two
            interactions; the model then reads moments.
        head: "plain", "scaled" (scores divided by a learned temperature) or "normalised" (cosines, divided likewise).
        layer_norm_eps: epsilon of all LayerNorms.
        initializer_range: standard deviation of the initial weights.
        embedding_dropout: dropout rate on the sum of item and position embeddings.
        attention_dropout: dropout rate on attention weights, see `residual_dropout`.
        residual_dropout: dropout rate on the output of attention and of the feed-forward, before they are added to
            the residual stream. Layer-wise adaptive: a pair (bottom, top), linear in depth; one number means the same
            rate in every layer. The paper drops more at the bottom.
        pad_token_id: padding, token 0 or 1 as `unk_token_id`; never ranked.
        unk_token_id: stands for an item outside the vocabulary, never ranked.
        tie_word_embeddings: score items with their input embeddings (the paper does).
        use_cache: whether `generate` keeps keys and values.
        history: parts of the scores that come from the user's own past (`history_lsrm`) and from counting (`mix_lsrm`),
            a selection of `HISTORY_PARTS`; none: the paper's model.
        num_successors: successors kept of every item at most, the most frequent ones, if "mix" is among them.
        successor_pairs: pairs of an item and a successor that are kept; set by training.
        mix_share: of "mix", how much counting has to say, from 0 (the model alone) to 1; fitted when training is over.
        mix_weights: what the probabilities of each expert that counts are multiplied by; fitted likewise.
        mix_window, mix_stretches, mix_pairs: what "mix" knows of popularity of late (`mix_lsrm`); set by training.
        query_time: tell the model the moment of the request, which is "now" then instead of that of the last
            interaction; in training and evaluation the target's own. It needs a part of `history` that reads moments.
        times_in: unit of the log's times, one of `UNITS`, for a request that is made now; None if it is not known; set
            by training.
        time_unit: usual time between two baskets of a user, in the log's unit of time; set by training.
        items_fingerprint: `identity_lsrm.items_fingerprint` of the items that the tokens stand for, set by training;
            None: a model built by hand, of which nobody knows.
        filter_seen: whether the model was validated and tested with the items of a user's own history taken out of the
            ranking; what recommends or evaluates does the same unless told otherwise. None: it was not evaluated.

    Raises:
        StrictDataclassClassValidationError: for a width that the heads do not divide, a size below 1 or absurdly large,
            more items than the table has rows for, a special token that is an item, a dropout rate, `layer_norm_eps`
            or `initializer_range` out of range, an unknown activation or choice of a block, or rotary positions for
            heads of odd width.

    Source: the architecture (pre-norm, final LayerNorm with epsilon 1e-12, biases, init 0.02) follows the released
    code of the paper; the paper itself states only the decoder, its sizes and the window.
    """

    model_type = "lsrm"
    keys_to_ignore_at_inference = ["past_key_values"]
    vocab_size: int = 26429
    num_items: int | None = None
    hidden_size: int = 64
    num_hidden_layers: int = 2
    num_attention_heads: int = 2
    intermediate_size: int | None = None
    max_position_embeddings: int = 50
    hidden_act: str = "gelu"
    position: str = "learned"
    attention: str = "softmax"
    norm: str = "layer"
    residual: str = "plain"
    attention_time: bool = False
    head: str = "plain"
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    embedding_dropout: float | int = 0.1
    attention_dropout: float | int | list[float | int] | tuple[float | int, ...] = (0.0, 0.0)
    residual_dropout: float | int | list[float | int] | tuple[float | int, ...] = (0.2, 0.1)
    pad_token_id: int | None = 0
    unk_token_id: int | None = 1
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    tie_word_embeddings: bool = True
    use_cache: bool = True
    history: list[str] | tuple[str, ...] = ()
    num_successors: int = 512
    successor_pairs: int = 1
    mix_share: float | int = 0.0
    mix_weights: dict[str, float | int] | None = None
    mix_window: int = 1
    mix_stretches: int = 1
    mix_pairs: int = 1
    query_time: bool = False
    times_in: str | None = None
    time_unit: float | int = 1.0
    items_fingerprint: str | None = None
    filter_seen: bool | None = None

    _auto_class = "AutoConfig"  # saving copies this file beside config.json

    def __post_init__(self, **kwargs):
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        if not __name__.startswith("transformers_modules."):
            # The installed package has its own pipeline; naming a remote one makes transformers ask for trust.
            kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        """Checks widths and rates; part of `@strict`, so it runs on construction and before saving."""
        for name, largest in _LARGEST.items():
            if not 1 <= getattr(self, name) <= largest:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1 and at most {largest}.")
        for name in ("layer_norm_eps", "initializer_range"):
            if not 0 <= getattr(self, name) < math.inf:  # NaN is in no range
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a number, 0 or more.")
        if self.num_items is not None and not 1 <= self.num_items <= self.vocab_size - NUM_SPECIAL:
            raise ValueError(
                f"num_items is {self.num_items}; a table of {self.vocab_size} rows holds {NUM_SPECIAL} special tokens "
                f"and from 1 to {self.vocab_size - NUM_SPECIAL} items."
            )
        for name in ("pad_token_id", "unk_token_id"):
            token = getattr(self, name)
            if token is not None and not 0 <= token < NUM_SPECIAL:
                raise ValueError(f"{name} is {token}; only tokens 0 and 1 are special, all others are items.")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}; "
                "choose a number of heads that divides the width."
            )
        for name in ("embedding_dropout", "attention_dropout", "residual_dropout"):
            value = getattr(self, name)
            rates = [value] if isinstance(value, int | float) else list(value)
            if len(rates) > 2 or not rates:
                raise ValueError(f"{name} is {value}; give one rate or a pair (bottom, top).")
            if any(not 0 <= rate < 1 for rate in rates):
                raise ValueError(f"{name} is {value}; dropout rates lie in [0, 1).")
        unknown = [part for part in self.history if part not in HISTORY_PARTS]
        if unknown or len(set(self.history)) < len(self.history):
            raise ValueError(f"history is {list(self.history)}; choose from {', '.join(HISTORY_PARTS)}, each once.")
        if self.query_time and not any(part in NEEDS_TIMES for part in self.history):
            raise ValueError(
                f"query_time is true, and no part of history reads moments; put {', '.join(NEEDS_TIMES[:-1])} or "
                f"{NEEDS_TIMES[-1]} into it."
            )
        if self.times_in not in (None, *UNITS):
            raise ValueError(f"times_in is {self.times_in!r}; choose from {', '.join(UNITS)}, or null.")
        if not 0 < self.time_unit < math.inf:
            raise ValueError(f"time_unit is {self.time_unit}; it must be a number above 0.")
        if self.hidden_act not in (*ACT2FN, SWIGLU):
            raise ValueError(f"hidden_act is {self.hidden_act!r}; choose from {', '.join(sorted([*ACT2FN, SWIGLU]))}.")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose from {', '.join(choices)}.")
        head_size = self.hidden_size // self.num_attention_heads
        if self.position == "rotary" and head_size % 2:
            raise ValueError(
                f"rotary positions turn pairs of numbers, and heads are {head_size} wide; choose other heads."
            )

    def layer_dropout(self, name: str) -> list[float]:
        """Rates of `"attention_dropout"` or `"residual_dropout"`, one per layer from the bottom up."""
        value = getattr(self, name)
        bounds = (value, value) if isinstance(value, int | float) else (value[0], value[-1])
        return layer_rates(bounds, self.num_hidden_layers)

    @property
    def inner_size(self) -> int:
        """Inner width of the feed-forward: `intermediate_size`; for swiglu, which has three matrices instead of two,
        two thirds of it, to the nearest multiple of 8, so that N stays within about one percent (8 d / 3 for 4 d)."""
        inner = self.intermediate_size or 4 * self.hidden_size
        return max(round(inner / 12), 1) * 8 if self.hidden_act == SWIGLU else inner

    @property
    def num_non_embedding_parameters(self) -> int:
        """N: weights in the matrices of the blocks, without biases, norms and embeddings (12 L d² for FFN 4d; gated
        residuals add 2 L d²)."""
        d = self.hidden_size
        feed_forward = (3 if self.hidden_act == SWIGLU else 2) * d * self.inner_size
        gates = 2 * d**2 if self.residual == "gated" else 0
        return self.num_hidden_layers * (4 * d**2 + feed_forward + gates)

    @property
    def needs_times(self) -> bool:
        """Whether the model reads the moments of the interactions."""
        return self.attention_time or any(part in NEEDS_TIMES for part in self.history)

    @property
    def reads_past(self) -> bool:
        """Whether the model reads more than the items of its window: `own_items_lsrm`."""
        return self.attention_time or bool(self.history)

    @property
    def past_inputs(self) -> tuple[str, ...]:
        """Which of `history`, `clock` and `moments` (`own_items_lsrm.Pasts.inputs`) the model takes beside items."""
        taken = {
            "history": any(part != "clock" for part in self.history),
            "clock": "clock" in self.history,
            "moments": self.attention_time,
        }
        return tuple(name for name, takes in taken.items() if takes)

    @property
    def keeps_counts(self) -> bool:
        """Whether the model keeps counts of its training data, whole in every process."""
        return "mix" in self.history

    @property
    def scoring_parts(self) -> tuple[str, ...]:
        """Parts of `history` that add scores to single items, of which sampled softmax knows nothing."""
        return tuple(part for part in self.history if part in OWN_PARTS and part != "mix")

    @property
    def biases_attention(self) -> bool:
        """Whether numbers are added before the softmax (`biases_lsrm`), which eager and sdpa attention alone take."""
        return self.attention_time or self.position == "relative"

    @property
    def base_model_tp_plan(self) -> dict[str, str]:  # type: ignore[override]
        """Which matrices tensor parallelism cuts, and how. Where attention is biased each process computes all heads of
        it: the bias is made for all of them."""
        names = ["up_proj", "gate_proj"] if self.hidden_act == SWIGLU else ["up_proj"]
        plan = {f"layers.*.mlp.{name}": "colwise" for name in names} | {"layers.*.mlp.down_proj": "rowwise"}
        if not self.biases_attention:
            plan |= {f"layers.*.self_attn.{name}_proj": "colwise" for name in "qkv"}
            plan["layers.*.self_attn.o_proj"] = "rowwise"
        return plan

    @property
    def base_model_pp_plan(self) -> dict[str, tuple[list[str], list[str]]]:  # type: ignore[override]
        """What goes from part to part in a pipeline."""
        plan = {"embed_tokens": (["input_ids"], ["inputs_embeds"])}
        if self.position == "learned":
            plan["embed_positions"] = (["position_ids"], ["position_embeds"])
        plan["layers"] = (["hidden_states", "attention_mask"], ["hidden_states"])
        return plan | {"norm": (["hidden_states"], ["hidden_states"])}

    @classmethod
    def from_size(cls, size: str, **overrides) -> "LSRMConfig":
        """The configuration of one of the paper's six sizes (`LSRM_SIZES`), with `overrides` on top.

        Raises:
            ValueError: if the size is unknown.

        >>> LSRMConfig.from_size("98k", vocab_size=3418).num_non_embedding_parameters
        98304
        """
        if size not in LSRM_SIZES:
            raise ValueError(f"unknown size {size!r}; the paper's sizes are {', '.join(LSRM_SIZES)}.")
        layers, width, heads = LSRM_SIZES[size]
        shape = {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads}
        return cls(**{**shape, **overrides})


__all__ = ["LSRM_SIZES", "NUM_SPECIAL", "RELEASED_CODE_DROPOUT", "LSRMConfig", "layer_rates"]
