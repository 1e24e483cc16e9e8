# Copyright 2026 The sr_transformers authors. Licensed under the Apache License, Version 2.0.
"""`generate` beyond the window: it slides, so the oldest item goes as a new one comes.

Positions are absolute, so with every item that goes all others move: keys and values that were kept are of no use then,
and each further item costs one pass over a whole window. Up to there the cache serves as everywhere.
"""

from typing import Any

import torch
from transformers.generation import (
    GenerationMixin,
    LogitsProcessor,
    LogitsProcessorList,
    MaxLengthCriteria,
    StoppingCriteriaList,
)

from .scoring_lsrm import refuse_diverged


class RefuseDiverged(LogitsProcessor):
    """Lets scores pass unless they are NaN or infinite: the largest would be whatever stands first."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        refuse_diverged(scores.amax(-1))
        return scores


class SlidingGenerationMixin(GenerationMixin):
    """What transformers' mixin does, of the most recent `max_position_embeddings` items.

    Raises:
        ValueError: where several tokens at once are to be scored beyond the window (assisted generation), and for a
            model that gives NaN.
    """

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        next_sequence_length: int | None = None,
        past_key_values: Any = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        window = self.config.max_position_embeddings
        if input_ids.shape[1] > window and inputs_embeds is None:
            if not is_first_iteration and (next_sequence_length or 1) > 1:
                raise ValueError(
                    f"the sequence grows beyond the model's window of {window} (max_position_embeddings), where "
                    "assisted generation cannot go on: generate without an assistant, or fewer items."
                )
            next_sequence_length, past_key_values = window, None
            kwargs = {**kwargs, "use_cache": False, "position_ids": None}
            attention_mask = attention_mask if attention_mask is None else attention_mask[:, -window:]
        return super().prepare_inputs_for_generation(
            input_ids,
            next_sequence_length=next_sequence_length,
            past_key_values=past_key_values,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )

    def _get_logits_processor(self, *args: Any, **kwargs: Any) -> LogitsProcessorList:
        return LogitsProcessorList([RefuseDiverged(), *super()._get_logits_processor(*args, **kwargs)])

    def _get_stopping_criteria(self, *args: Any, **kwargs: Any) -> StoppingCriteriaList:
        criteria = super()._get_stopping_criteria(*args, **kwargs)
        for one in criteria:
            if isinstance(one, MaxLengthCriteria):
                one.max_position_embeddings = None  # else it warns of what does not happen here
        return criteria


__all__ = ["RefuseDiverged", "SlidingGenerationMixin"]
