"""A causal language model over item tokens as a scorer: the last position's logits."""

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.distributed.tensor import DTensor
from transformers import PreTrainedConfig, PreTrainedModel

from sr_transformers.data.histories import PreparedData
from sr_transformers.data.vocabulary import PAD_ID
from sr_transformers.lsrm.identity_lsrm import check_same_items
from sr_transformers.lsrm.modeling_lsrm import LSRMForCausalLM

_BLOCK = 4096  # items whose scores are computed at a time: the embeddings of a block stay in cache
_LINE = 16  # float32 numbers of a cache line: products are a third slower on rows that begin in the middle of one
_USERS = 128  # users encoded at a time on CPUs: what goes from layer to layer stays in cache


def check_vocabulary(name: str, config: PreTrainedConfig, data: PreparedData) -> None:
    """Refuses a model whose tokens are not those of the log.

    Raises:
        ValueError: if the two have different numbers of tokens, or the model was trained on other items, or on the same
            in another order.
    """
    if config.vocab_size != data.vocab_size:
        raise ValueError(
            f"{name} has {config.vocab_size} tokens, {data.path} has {data.vocab_size}: the model was trained on "
            "another vocabulary."
        )
    try:
        check_same_items(config, data.items_fingerprint, str(data.path))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _checked(guards: Sequence[Any]) -> list[bool]:
    """Which conditions of a translation are looked at in every call: torch's state, the arguments and the weights.

    Hundreds more ask whether modules still have their classes, settings and hooks, and functions their code: a sixth of
    the time of one user's request.
    """
    return [
        guard.guard_type == "TENSOR_MATCH" or not (guard.is_global or "self" in guard.name or "func" in guard.name)
        for guard in guards
    ]


class ModelScorer:
    """Scores with any `AutoModelForCausalLM` whose tokens are items.

    Args:
        model: put into evaluation mode for the time of scoring.
        window: most recent items read; None: the model's `max_position_embeddings`.
        name: what reports call it.
        reuse_memory: scores are overwritten by the next call; faster, for callers that are done with them by then.
        bf16: compute the layers in bfloat16; our own model's scores of items stay float32, as rounded ones would tie.
        compile: translate the layers by `torch.compile`. The first request of one user, and the first of several, take
            about ten seconds more each; needs a C++ compiler on CPUs. New weights count; modules, hooks and settings of
            our own model are taken as they are at that request.
    """

    gives_log_probabilities = True

    def __init__(
        self,
        model: PreTrainedModel,
        window: int | None = None,
        name: str = "model",
        reuse_memory: bool = False,
        bf16: bool = False,
        compile: bool = False,
    ):
        self.model, self.name, self.reuse_memory, self.bf16 = model, name, reuse_memory, bf16
        self.window = window or model.config.max_position_embeddings
        # Which items it was trained on and how it was ranked then; None for a model that was built by hand.
        self.items_fingerprint: str | None = getattr(model.config, "items_fingerprint", None)
        self.filter_seen: bool | None = getattr(model.config, "filter_seen", None)
        # Our own model can leave out what ranking does not need, unless its weights are spread over processes.
        self._is_ours = isinstance(model, LSRMForCausalLM) and not isinstance(model.lm_head.weight, DTensor)
        self._last_only = self._is_ours and model.config._attn_implementation in ("eager", "sdpa")
        self._answer = self._last
        if compile:
            # Apart from other models' translations: `_checked` would not tell them from this one's.
            options = {"guard_filter_fn": _checked} if self._is_ours else {}
            self._answer = torch.compile(  # type: ignore[call-overload]  # torch's own stubs lack isolate_recompiles
                self._last, dynamic=True, isolate_recompiles=True, options=options
            )
        self._scores: torch.Tensor | None = None

    @torch.no_grad()
    def score(self, histories: Sequence[np.ndarray]) -> torch.Tensor:
        """`(B, V)` float32 logits of the next item.

        Histories shorter than the longest one are padded on the left and masked. An empty history is read as one
        padding token: the model's answer without any evidence.
        """
        windows = [history[-self.window :] for history in histories]
        was_training = self.model.training
        if was_training:  # a walk over all modules: a quarter of the time of one user's request
            self.model.eval()
        try:
            with self.autocast():
                if not self._is_ours:
                    return self._answer(*self._inputs(windows)).float()
                users = max(len(windows), 1)
                step = _USERS if self.model.device.type == "cpu" else users
                parts = [self._inputs(windows[first : first + step]) for first in range(0, users, step)]
                return self._score_items(torch.cat([self._answer(*part) for part in parts]))
        finally:
            if was_training:
                self.model.train()

    def autocast(self) -> contextlib.AbstractContextManager:
        """The precision of the layers."""
        device = self.model.device.type
        return torch.autocast(device, torch.bfloat16) if self.bf16 else contextlib.nullcontext()

    def _last(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, position_ids: torch.Tensor | None
    ) -> torch.Tensor:
        """After the last item: `(B, d)` states of our own model, `(B, V)` logits of another."""
        inputs = {"attention_mask": attention_mask, "position_ids": position_ids, "use_cache": False}
        if not self._is_ours:
            return self.model(input_ids, **inputs, logits_to_keep=1).logits[:, -1]
        leave_out = {"last_only": True} if self._last_only else {}
        return self.model.model(input_ids, **inputs, **leave_out).last_hidden_state[:, -1]

    def _inputs(self, windows: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Tokens, mask and positions, each `(B, longest)`; without padding no mask is needed, and attention takes its
        faster way.
        """
        device = self.model.device
        if len({len(window) for window in windows}) == 1 and len(windows[0]):
            return torch.from_numpy(np.stack(windows).astype(np.int64, copy=False)).to(device), None, None
        lengths = np.array([len(window) for window in windows], np.int64)[:, None]
        from_right = np.arange(lengths.max(initial=1), 0, -1)
        ids = np.full((len(windows), len(from_right)), PAD_ID, np.int64)
        ids[from_right <= lengths] = np.concatenate([np.zeros(0, np.int64), *windows])
        mask = torch.from_numpy((from_right <= np.maximum(lengths, 1)).astype(np.int64)).to(device)
        return torch.from_numpy(ids).to(device), mask, (mask.cumsum(1) - 1).clamp(min=0)

    def _score_items(self, states: torch.Tensor) -> torch.Tensor:
        """`LSRMForCausalLM.score_items` in float32 whatever the model's type, a block of items at a time."""
        weight: torch.Tensor = self.model.lm_head.weight  # type: ignore[assignment]
        scores = self._scores
        if scores is None or len(scores) < len(states):
            width = -(-weight.shape[0] // _LINE) * _LINE
            scores = torch.empty(len(states), width, device=weight.device)[:, : weight.shape[0]]
            self._scores = scores if self.reuse_memory else None
        scores = scores[: len(states)]
        step = _BLOCK if len(states) >= 32 else weight.shape[0]  # a few users read the embeddings once in any case
        with torch.autocast(weight.device.type, enabled=False):
            for first in range(0, weight.shape[0], step):
                block = slice(first, first + step)
                torch.mm(states.float(), weight[block].float().t(), out=scores[:, block])
        return scores
