"""A causal language model over item tokens as a scorer: the last position's logits.

A scorer may be asked by many threads at once: what a request writes belongs to that request, or with `reuse_memory` to
its thread, and nothing of it is sent along when a scorer is pickled.
"""

import contextlib
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils.generic import maybe_autocast

from sr_transformers.data.past_inputs import Past, pasts_of
from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.vocabulary import PAD_ID
from sr_transformers.lsrm.configuration_lsrm import OWN_PARTS
from sr_transformers.lsrm.head_lsrm import item_vectors
from sr_transformers.lsrm.identity_lsrm import check_same_items
from sr_transformers.lsrm.modeling_lsrm import LSRMForCausalLM
from sr_transformers.lsrm.own_items_lsrm import Pasts, without_own
from sr_transformers.lsrm.scoring_lsrm import input_device, is_plain, item_range, only_items, reads_weight
from sr_transformers.lsrm.varlen_lsrm import implementation_of

_BLOCK = 4096  # items whose scores are computed at a time: the embeddings of a block stay in cache
_LINE = 16  # float32 numbers of a cache line: products are a third slower on rows that begin in the middle of one
_USERS = 128  # users encoded at a time on CPUs: what goes from layer to layer stays in cache
_MODES = threading.Lock()
_COMPILED = threading.Lock()  # translating changes torch's state for all threads, and so what is asked of it meanwhile
_IN_USE: weakref.WeakKeyDictionary[nn.Module, int] = weakref.WeakKeyDictionary()  # requests to models in training


def check_vocabulary(name: str, config: PreTrainedConfig, data: PreparedData) -> None:
    """Refuses a model whose tokens are not those of the log.

    Raises:
        ValueError: if the two have different numbers of tokens (`scoring_lsrm.item_range`), or the model was trained on
            other items, or on the same in another order.
    """
    tokens = item_range(config)[1]
    if tokens != data.vocab_size:
        raise ValueError(
            f"{name} has {tokens} tokens, {data.path} has {data.vocab_size}: the model was trained on another "
            "vocabulary."
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


def _after_fork() -> None:
    """A child has none of its parent's other threads, which may have held a lock at the fork."""
    global _MODES, _COMPILED
    _MODES, _COMPILED = threading.Lock(), threading.Lock()
    _IN_USE.clear()


os.register_at_fork(after_in_child=_after_fork)


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """A model without dropout; one in training goes back to it when the last of the requests that overlap is done."""
    with _MODES:
        borrowed = model.training or model in _IN_USE
        if borrowed:
            _IN_USE[model] = _IN_USE.get(model, 0) + 1
        if model.training:  # a walk over all modules: a quarter of the time of one user's request
            model.eval()
    try:
        yield
    finally:
        if borrowed:
            with _MODES:
                _IN_USE[model] -= 1
                if not _IN_USE[model]:
                    del _IN_USE[model]
                    model.train()


def _placed(pasts: Sequence[Past], window: int, width: int, device: torch.device) -> Pasts:
    """Pasts, each in a row of its own, of which up to `window` interactions have places, at the right of `width`."""
    shown = np.minimum([len(past.items) for past in pasts], window)
    return pasts_of(pasts, shown, np.arange(len(pasts)), width - shown, device)


def _columns(pasts: Sequence[Past], width: int, device: torch.device, own_past: bool) -> dict[str, torch.Tensor]:
    """What the model reads to score what follows the last interaction of each past."""
    columns = _placed(pasts, 1, width, device).columns(len(pasts), width)
    return columns if own_past else without_own(columns)


class ScoreMemory:
    """Room for the scores of one request, or of one thread: written again by every call that it is given to."""

    def __init__(self) -> None:
        self._room: torch.Tensor | None = None

    def room(self, rows: int, items: int, device: torch.device) -> torch.Tensor:
        """`(rows, items)` float32 with whatever was there."""
        if self._room is None or len(self._room) < rows:
            self._room = _room(rows, items, device)
        return self._room[:rows]


def _room(rows: int, items: int, device: torch.device) -> torch.Tensor:
    if rows == 1:
        return torch.empty(1, items, device=device)
    return torch.empty(rows, -(-items // _LINE) * _LINE, device=device)[:, :items]


class ModelScorer:
    """Scores with any `AutoModelForCausalLM` whose tokens are items.

    Args:
        model: put into evaluation mode for the time of scoring.
        window: most recent items read; None: the model's `max_position_embeddings`.
        name: what reports call it.
        reuse_memory: scores are overwritten by the next call of the same thread; faster, for callers that are done with
            them by then.
        bf16: compute the layers in bfloat16; our own model's scores of items stay float32, as rounded ones would tie.
            A user alone and among others is then rounded in different ways, other than by a model in that type.
        compile: translate the layers by `torch.compile`; they then run for one thread at a time. The first request of
            one user, and the first of several, take about ten seconds more each; needs a C++ compiler on CPUs. New
            weights count; modules, hooks and settings of our own model are taken as they are at that request.
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
        self.model, self.name, self.reuse_memory, self.bf16, self.compile = model, name, reuse_memory, bf16, compile
        self.window = window or model.config.max_position_embeddings
        # Which items it was trained on and how it was ranked then; None for a model that was built by hand.
        self.items_fingerprint: str | None = getattr(model.config, "items_fingerprint", None)
        self.filter_seen: bool | None = getattr(model.config, "filter_seen", None)
        self.reads_past = bool(getattr(model.config, "reads_past", False))
        self.needs_times = bool(getattr(model.config, "needs_times", False))
        self.scores_own_past = bool(set(getattr(model.config, "history", ())) & set(OWN_PARTS))
        self._begin()

    def _begin(self) -> None:
        """Makes what stays in this process."""
        self._of_thread = threading.local()
        if self.compile:
            # Apart from other models' translations: `_checked` would not tell them from this one's.
            options = {"guard_filter_fn": _checked} if self._reads_states() else {}
            self._translated = torch.compile(  # type: ignore[call-overload]  # torch's own stubs lack isolate_recompiles
                self._last, dynamic=True, isolate_recompiles=True, options=options
            )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_of_thread", "_translated")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()

    def _reads_states(self) -> bool:
        """Whether our own model's states can be multiplied with the item table here: if nothing has been put around
        the model or its head (hooks, adapters, quantization, offloading, weights spread over processes).
        """
        model = self.model
        return (
            isinstance(model, LSRMForCausalLM)
            and type(model).forward is LSRMForCausalLM.forward
            and is_plain(model)
            and reads_weight(model.lm_head)
        )

    @torch.no_grad()
    def score(
        self,
        histories: Sequence[np.ndarray],
        memory: ScoreMemory | None = None,
        times: Sequence[np.ndarray] | None = None,
        own_past: bool = True,
    ) -> torch.Tensor:
        """`(B, V)` float32 logits of the next item over the tokens of the vocabulary, lowest for special ones; rows
        that only fill up the model's table (`scoring_lsrm.item_range`) are left out.

        Histories shorter than the longest one are padded on the left and masked. An empty history is read as one
        padding token: the model's answer without any evidence.

        Args:
            histories: int tokens, oldest first; the last `window` of them are read, and of the others what the model
                keeps of the past (`history` of its configuration).
            memory: where to write, for a request of several calls whose scores are not needed together.
            times: moments of all these interactions, for a model that `needs_times`.
            own_past: False: without what a model that `scores_own_past` adds for the items of a user's own past.

        Raises:
            ValueError: for such a model without times.
        """
        if torch.is_inference_mode_enabled():  # what is made in it could not be used outside of it
            with torch.inference_mode(False):
                return self.score(histories, memory, times, own_past)
        pasts = self._pasts(histories, times) if self.reads_past else []
        reads_states = self._reads_states()
        # To look for the device of a whole model takes as long as many an operation.
        device = self.model.lm_head.weight.device if reads_states else input_device(self.model)
        with evaluation_mode(self.model), self.autocast(device):
            states = self._last_of(histories, pasts, reads_states, device, own_past)
            if not reads_states:
                return self.item_scores(states)
            scores = self._score_states(states, memory)
            if pasts and self.model.history is not None:
                columns = _columns(pasts, 1, device, own_past)
                history: Any = self.model.history
                for rows, tokens, values in history(states[:, None], columns):
                    scores.index_put_((rows.long(), tokens.long()), values, accumulate=True)
            return scores

    def _last_of(
        self,
        histories: Sequence[np.ndarray],
        pasts: Sequence[Past],
        reads_states: bool,
        device: torch.device,
        own_past: bool = True,
    ) -> torch.Tensor:
        """`_last` of these histories, some users at a time."""
        windows = [history[-self.window :] for history in histories]
        users = max(len(windows), 1)
        step = _USERS if device.type == "cpu" and reads_states else users
        parts = []
        for first in range(0, users, step):
            inputs = self._inputs(windows[first : first + step], device)
            past = self._past_inputs(pasts[first : first + step], inputs[0], not reads_states, own_past)
            parts.append(self._ask(*inputs, reads_states, past))
        return torch.cat(parts)

    def check_vectors(self) -> None:
        """Refuses a model whose scores are no inner products of states and item vectors.

        Raises:
            ValueError: with the reason.
        """
        if not self._reads_states():
            raise ValueError(
                f"{self.name} has no vectors: its scores are more than a product with its item table (another model, "
                "adapters that were not merged, a quantized or offloaded head)."
            )
        if self.model.history is not None:
            parts = ", ".join(part for part in self.model.config.history if part != "clock")
            raise ValueError(
                f"{self.name} has no vectors: it adds to the scores of single items ({parts} of its history). Train a "
                "model without, or rank with the model itself."
            )

    def states(self, histories: Sequence[np.ndarray], times: Sequence[np.ndarray] | None = None) -> torch.Tensor:
        """`(B, d)` states after the last item: their products with the rows of the item table are the scores.

        Args:
            histories, times: as `score`.

        Raises:
            ValueError: if they are not (`check_vectors`).
        """
        self.check_vectors()
        pasts = self._pasts(histories, times) if self.reads_past else []
        device = self.model.lm_head.weight.device
        with torch.inference_mode(False), torch.no_grad(), evaluation_mode(self.model), self.autocast(device):
            return self._last_of(histories, pasts, True, device)

    def item_scores(self, logits: torch.Tensor) -> torch.Tensor:
        """What `score` gives, from `(B, V)` logits of any model."""
        items = item_range(self.model.config)
        return only_items(logits.float(), items)[:, : items[1]]

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager:
        """The precision of the layers."""
        return torch.autocast(device.type, torch.bfloat16) if self.bf16 else contextlib.nullcontext()

    def _ask(self, *inputs: Any) -> torch.Tensor:
        """`_last`, as it is or translated."""
        if not self.compile:
            return self._last(*inputs)
        with _COMPILED:
            return self._translated(*inputs)

    def _last(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        position_ids: torch.Tensor | None,
        states: bool,
        past: dict[str, Any],
    ) -> torch.Tensor:
        """After the last item: `(B, d)` states of our own model, or `(B, V)` logits of any."""
        inputs = {"attention_mask": attention_mask, "position_ids": position_ids, "use_cache": False, **past}
        if not states:
            return self.model(input_ids, **inputs, logits_to_keep=1).logits[:, -1]
        # What ranking does not need is left out.
        implementation = implementation_of(self.model.config, False, {})
        leave_out = {"last_only": True} if implementation in ("eager", "sdpa") else {}
        return self.model.model(input_ids, **inputs, **leave_out).last_hidden_state[:, -1]

    def _pasts(self, histories: Sequence[np.ndarray], times: Sequence[np.ndarray] | None) -> list[Past]:
        if not self.needs_times:
            return [Past(history) for history in histories]
        if times is None:
            raise ValueError(
                f"{self.name} reads when interactions happened (history, attention_time): give their times too."
            )
        return [Past(history, moments) for history, moments in zip(histories, times, strict=True)]

    def _past_inputs(
        self, pasts: Sequence[Past], input_ids: torch.Tensor, scores: bool, own_past: bool
    ) -> dict[str, Any]:
        """Further inputs of the model for these users; `scores`: the model adds the scores of single items itself."""
        if not pasts:
            return {}
        (batch, width), device = input_ids.shape, input_ids.device
        found: dict[str, Any] = {"history": _columns(pasts, width, device, own_past)} if scores else {}
        if "clock" in self.model.config.history:
            found["clock"] = _placed(pasts, width, width, device).clock(batch, width)
        if self.model.config.attention_time:  # of what a cache holds, too
            keys = max(width, max(min(len(past.items), self.window) for past in pasts))
            found["moments"] = _placed(pasts, keys, keys, device).moments(batch, keys)
        return found

    def _inputs(
        self, windows: Sequence[np.ndarray], device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Tokens, mask and positions, each `(B, longest)`; without padding no mask is needed, and attention takes its
        faster way.
        """
        if len({len(window) for window in windows}) == 1 and len(windows[0]):
            return torch.from_numpy(np.stack(windows).astype(np.int64, copy=False)).to(device), None, None
        lengths = np.array([len(window) for window in windows], np.int64)[:, None]
        from_right = np.arange(lengths.max(initial=1), 0, -1)
        ids = np.full((len(windows), len(from_right)), PAD_ID, np.int64)
        ids[from_right <= lengths] = np.concatenate([np.zeros(0, np.int64), *windows])
        mask = torch.from_numpy((from_right <= np.maximum(lengths, 1)).astype(np.int64)).to(device)
        return torch.from_numpy(ids).to(device), mask, (mask.cumsum(1) - 1).clamp(min=0)

    def _score_states(self, states: torch.Tensor, memory: ScoreMemory | None) -> torch.Tensor:
        """`scoring_lsrm.score_items` without the rows that are left out, a block of items at a time."""
        weight = item_vectors(self.model.lm_head)
        first_item, last = item_range(self.model.config)
        if memory is None and self.reuse_memory:
            memory = self._memory_of_thread()
        rows, device = len(states), states.device
        scores = _room(rows, last, device) if memory is None else memory.room(rows, last, device)
        step = _BLOCK if rows >= 32 else last  # a few users read the embeddings once in any case
        with maybe_autocast(device.type, enabled=False):
            for first in range(0, last, step):
                block = slice(first, min(first + step, last))
                torch.mm(states.float(), weight[block].float().t(), out=scores[:, block])
        scores[:, :first_item] = torch.finfo(scores.dtype).min
        return scores

    def _memory_of_thread(self) -> ScoreMemory:
        if not hasattr(self._of_thread, "memory"):
            self._of_thread.memory = ScoreMemory()
        return self._of_thread.memory
