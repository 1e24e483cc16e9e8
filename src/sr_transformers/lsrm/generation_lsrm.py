# Copyright 2026 The sr_transformers authors. Licensed under the Apache License, Version 2.0.
"""`generate` beyond the window: it slides, so the oldest item goes as a new one comes.

Positions are absolute, so with every item that goes all others move: keys and values that were kept are of no use then,
and each further item costs one pass over a whole window. Up to there the cache serves as everywhere. A model that reads
the past reads all that stands in `input_ids`, however long, and counts on with what is generated.
"""

import warnings
from typing import Any

import torch
from transformers.generation import (
    GenerationMixin,
    LogitsProcessor,
    LogitsProcessorList,
    MaxLengthCriteria,
    StoppingCriteriaList,
)

from .reading_lsrm import check_moments, past_so_far
from .scoring_lsrm import refuse_diverged


class RefuseDiverged(LogitsProcessor):
    """Lets scores pass unless they are NaN or infinite: the largest would be whatever stands first."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        refuse_diverged(scores.amax(-1))
        return scores


class SlidingGenerationMixin(GenerationMixin):
    """What transformers' mixin does, of the most recent `max_position_embeddings` items.

    A model that reads moments takes `times`, `(B, T)` int64 beside the prompt, and one that is told when it is asked
    `query_times`, `(B,)`: what is generated has the moment of the request, or that of the prompt's last item.

    Raises:
        ValueError: where several tokens at once are to be scored beyond the window (assisted generation), for moments
            that are missing or not read, and for a model that gives NaN.
    """

    def _prepare_model_inputs(self, inputs: Any, bos_token_id: Any, model_kwargs: dict[str, Any]) -> Any:
        found = super()._prepare_model_inputs(inputs, bos_token_id, model_kwargs)
        # An assistant is asked again with its cache and with more items, which have no moments of their own.
        prompt = found[0] if model_kwargs.get("past_key_values") is None else None
        check_moments(self.config, prompt, model_kwargs.get("times"), model_kwargs.get("query_times"))
        if prompt is not None and found[1] == "input_ids":
            _warn_of_unknown(prompt, self.config.unk_token_id, self.config.pad_token_id)
        return found

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        next_sequence_length: int | None = None,
        past_key_values: Any = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        is_first_iteration: bool | None = False,
        times: torch.Tensor | None = None,
        query_times: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        window, mask = self.config.max_position_embeddings, attention_mask
        if input_ids.shape[1] > window and inputs_embeds is None:
            if not is_first_iteration and (next_sequence_length or 1) > 1:
                raise ValueError(
                    f"the sequence grows beyond the model's window of {window} (max_position_embeddings), where "
                    "assisted generation cannot go on: generate without an assistant, or fewer items."
                )
            next_sequence_length, past_key_values = window, None
            kwargs = {**kwargs, "use_cache": False, "position_ids": None}
            attention_mask = attention_mask if attention_mask is None else attention_mask[:, -window:]
        inputs = super().prepare_inputs_for_generation(
            input_ids,
            next_sequence_length=next_sequence_length,
            past_key_values=past_key_values,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        if self.config.reads_past:
            given = [name for name in ("history", "clock", "moments") if kwargs.get(name) is not None]
            if given or inputs_embeds is not None:
                raise ValueError(
                    f"generate counts by itself: leave out {', '.join(given) or 'inputs_embeds'}, and give the whole "
                    "history as input_ids, which may be longer than the window (and its moments as times)."
                )
            width = inputs["input_ids"].shape[1]
            keys = width if inputs.get("past_key_values") is None else input_ids.shape[1]
            inputs |= past_so_far(self.config, self.half_lives, input_ids, mask, width, keys, times, query_times)
        return inputs

    def last_window(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        times: torch.Tensor | None = None,
        query_times: torch.Tensor | None = None,
    ) -> dict[str, Any]:
        """What `forward` takes of histories that may be longer than the window: their last windows, and what a model
        that reads the past counts in all of them.

        Args:
            input_ids: `(B, L)` int64, oldest first; attention_mask: `(B, L)`, 0 for padding on the left.
            times: `(B, L)` int64 moments, for a model that reads them; query_times: `(B,)`, for one with `query_time`.

        Returns:
            `input_ids`, `attention_mask`, and as far as the model takes them `history`, `clock` and `moments`.

        Raises:
            ValueError: for moments that are missing or not read.
        """
        check_moments(self.config, input_ids, times, query_times)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        width = min(input_ids.shape[1], self.config.max_position_embeddings)
        return {
            "input_ids": input_ids[:, -width:],
            "attention_mask": mask[:, -width:],
            **past_so_far(self.config, self.half_lives, input_ids, mask, width, width, times, query_times),
        }

    def _get_logits_processor(self, *args: Any, **kwargs: Any) -> LogitsProcessorList:
        return LogitsProcessorList([RefuseDiverged(), *super()._get_logits_processor(*args, **kwargs)])

    def _get_stopping_criteria(self, *args: Any, **kwargs: Any) -> StoppingCriteriaList:
        criteria = super()._get_stopping_criteria(*args, **kwargs)
        for one in criteria:
            if isinstance(one, MaxLengthCriteria):
                one.max_position_embeddings = None  # else it warns of what does not happen here
        return criteria


def _warn_of_unknown(prompt: torch.Tensor, unknown: int | None, padding: int | None) -> None:
    count = 0 if unknown in (None, padding) else int((prompt == unknown).sum())
    if count:
        warnings.warn(
            f"{count} of the ids to be continued are the unknown token, whose row has learned nothing: leave out items "
            "that the vocabulary lacks, or the answer is partly noise.",
            stacklevel=4,
        )


__all__ = ["RefuseDiverged", "SlidingGenerationMixin"]
