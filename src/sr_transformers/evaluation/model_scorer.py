"""A causal language model over item tokens as a scorer: the last position's logits.

A scorer may be asked by many threads at once: what a request writes belongs to that request, or with `reuse_memory` to
its thread, and nothing of it is sent along when a scorer is pickled.
"""

import contextlib
import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils.generic import maybe_autocast

from sr_transformers.data.past_inputs import Past, last_columns, pasts_with, placed
from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.vocabulary import PAD_ID
from sr_transformers.evaluation.request_state import ScoreMemory, evaluation_mode, room_for
from sr_transformers.lsrm.configuration_lsrm import OWN_PARTS
from sr_transformers.lsrm.divided_lsrm import Division, head_division, refuse_undivided, side_by_side
from sr_transformers.lsrm.head_lsrm import item_vectors
from sr_transformers.lsrm.identity_lsrm import check_same_items
from sr_transformers.lsrm.modeling_lsrm import LSRMForCausalLM
from sr_transformers.lsrm.scoring_lsrm import input_device, is_plain, item_range, only_items, reads_weight
from sr_transformers.lsrm.varlen_lsrm import implementation_of

_BLOCK = 4096  # items whose scores are computed at a time: the embeddings of a block stay in cache
_USERS = 128  # users encoded at a time on CPUs: what goes from layer to layer stays in cache
_COMPILED = threading.Lock()  # translating changes torch's state for all threads, and so what is asked of it meanwhile


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
    global _COMPILED
    _COMPILED = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


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
    trained_on: dict[str, Any]  # of a checkpoint that was trained on other interactions: `origin.check_origin`

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
        self.num_tokens = item_range(model.config)[1]
        # Which items it was trained on and how it was ranked then; None for a model that was built by hand.
        self.items_fingerprint: str | None = getattr(model.config, "items_fingerprint", None)
        self.filter_seen: bool | None = getattr(model.config, "filter_seen", None)
        self.reads_past = bool(getattr(model.config, "reads_past", False))
        self.needs_times = bool(getattr(model.config, "needs_times", False))
        self.query_time = bool(getattr(model.config, "query_time", False))
        self.scores_own_past = bool(set(getattr(model.config, "history", ())) & set(OWN_PARTS))
        if compile and self.part is not None:
            raise ValueError(f"{name} has its item table divided over processes: do without compile.")
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
            and (reads_weight(model.lm_head) or head_division(model.lm_head) is not None)
        )

    @property
    def part(self) -> Division | None:
        """Which items have their scores in this process, for a model whose item table is divided over several; all of
        them must then ask for the same."""
        part = head_division(getattr(self.model, "lm_head", None))
        return part if part is not None and self._reads_states() else None

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
            times: moments of all these interactions, for a model that `needs_times`; for one with `query_time` each
                history has one more, when what comes next is asked.
            own_past: False: without what a model that `scores_own_past` adds for the items of a user's own past.

        Raises:
            ValueError: for such a model without times.
        """
        scores, part = self.score_here(histories, memory, times, own_past), self.part
        return scores if part is None else side_by_side(scores, part, item_range(self.model.config)[1])

    @torch.no_grad()
    def score_here(
        self,
        histories: Sequence[np.ndarray],
        memory: ScoreMemory | None = None,
        times: Sequence[np.ndarray] | None = None,
        own_past: bool = True,
    ) -> torch.Tensor:
        """As `score`, but only the columns of this process if the item table is divided (`part`)."""
        if torch.is_inference_mode_enabled():  # what is made in it could not be used outside of it
            with torch.inference_mode(False):
                return self.score_here(histories, memory, times, own_past)
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
                return self._with_history(scores, states[:, None], self._columns(pasts, 1, device, own_past))
            return scores

    def _columns(
        self, pasts: Sequence[Past], width: int, device: torch.device, own_past: bool
    ) -> dict[str, torch.Tensor]:
        model: Any = self.model
        return last_columns(pasts, width, device, own_past, model.half_lives)

    def _with_history(
        self, scores: torch.Tensor, states: torch.Tensor, columns: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """What the model's history makes of `(B, V)` scores at the last of `(B, T, d)` states; overwrites them."""
        history: Any = self.model.history
        refuse_undivided(history.parts, self.model.lm_head)
        part, width = self.part, states.shape[1]
        own = history(states, columns)
        if own is not None:
            if width > 1:
                own = own.at(torch.tensor([width - 1], device=states.device), width)
            rows, tokens, values = own if part is None else part.only(own)
            scores.index_put_((rows.long(), tokens.long()), values, accumulate=True)
        if history.mixes:
            places = torch.tensor([width - 1], device=states.device)
            return history.mixed(scores, columns, places, item_range(self.model.config))
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
        if self.part is not None:
            raise ValueError(f"{self.name} has its item table divided over processes: load it whole for its vectors.")
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
        return pasts_with(histories, times, self.query_time, self.name)

    def _past_inputs(
        self, pasts: Sequence[Past], input_ids: torch.Tensor, scores: bool, own_past: bool
    ) -> dict[str, Any]:
        """Further inputs of the model for these users; `scores`: the model adds the scores of single items itself."""
        if not pasts:
            return {}
        (batch, width), device = input_ids.shape, input_ids.device
        found: dict[str, Any] = {"history": self._columns(pasts, width, device, own_past)} if scores else {}
        if "clock" in self.model.config.history:
            found["clock"] = placed(pasts, width, width, device).clock(batch, width)
        if self.model.config.attention_time:  # of what a cache holds, too
            keys = max(width, max(min(len(past.items), self.window) for past in pasts))
            found["moments"] = placed(pasts, keys, keys, device).moments(batch, keys)
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
        head: Any = self.model.lm_head
        part = self.part
        weight = item_vectors(head, None if part is None else head.weight.to_local())
        first_item, last = item_range(self.model.config)
        if part is not None:
            first_item, last = part.inside((first_item, last))
        if memory is None and self.reuse_memory:
            memory = self._memory_of_thread()
        rows, device = len(states), states.device
        scores = room_for(rows, last, device) if memory is None else memory.room(rows, last, device)
        step = _BLOCK if rows >= 32 else last  # a few users read the embeddings once in any case
        with maybe_autocast(device.type, enabled=False):
            for first in range(0, last, max(step, 1)):
                block = slice(first, min(first + step, last))
                torch.mm(states.float(), weight[block].float().t(), out=scores[:, block])
        scores[:, :first_item] = torch.finfo(scores.dtype).min
        return scores

    @torch.no_grad()
    def score_next(
        self, input_ids: torch.Tensor, position_ids: torch.Tensor, cache: Any, past: dict[str, Any]
    ) -> torch.Tensor:
        """`(B, V)` scores (`score_here`) of what follows `(B, T)` items, whose keys and values are put into a cache.

        Args:
            cache: of transformers, with what came before; None: nothing did, and nothing is kept.
            past: what the model reads of the past beside them.
        """
        inputs = {"position_ids": position_ids, "past_key_values": cache, "use_cache": cache is not None, **past}
        with evaluation_mode(self.model), self.autocast(input_ids.device):
            if self.part is None:
                return self.item_scores(self.model(input_ids, **inputs, logits_to_keep=1).logits[:, -1])
            columns = inputs.pop("history", None)
            states = self.model.model(input_ids, **inputs).last_hidden_state
            scores = self._score_states(states[:, -1], None)
            return scores if columns is None else self._with_history(scores, states, columns)

    def _memory_of_thread(self) -> ScoreMemory:
        if not hasattr(self._of_thread, "memory"):
            self._of_thread.memory = ScoreMemory()
        return self._of_thread.memory
