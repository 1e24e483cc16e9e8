"""A causal language model over item tokens as a scorer: the last position's logits."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from sr_transformers.data.vocabulary import PAD_ID


def load_model(name_or_path: str | Path, **kwargs: Any) -> PreTrainedModel:
    """`AutoModelForCausalLM.from_pretrained`, on the accelerator if there is one and `device_map` says nothing else."""
    model = AutoModelForCausalLM.from_pretrained(name_or_path, **kwargs)
    if torch.accelerator.is_available() and "device_map" not in kwargs:
        model.to(torch.accelerator.current_accelerator())  # type: ignore[arg-type]
    return model


class ModelScorer:
    """Scores with any `AutoModelForCausalLM` whose tokens are items.

    Args:
        model: put into evaluation mode for the time of scoring.
        window: most recent items read; None: the model's `max_position_embeddings`.
        name: what reports call it.
    """

    gives_log_probabilities = True

    def __init__(self, model: PreTrainedModel, window: int | None = None, name: str = "model"):
        self.model, self.name = model, name
        self.window = window or model.config.max_position_embeddings

    @torch.no_grad()
    def score(self, histories: Sequence[np.ndarray]) -> torch.Tensor:
        """`(B, V)` float32 logits of the next item.

        Histories shorter than the longest one are padded on the left and masked. An empty history is read as one
        padding token: the model's answer without any evidence.
        """
        windows = [history[-self.window :] for history in histories]
        width = max(max((len(window) for window in windows), default=1), 1)
        input_ids = np.full((len(windows), width), PAD_ID, np.int64)
        mask = np.zeros((len(windows), width), np.int64)
        for row, window in enumerate(windows):
            start = width - max(len(window), 1)
            mask[row, start:] = 1
            input_ids[row, width - len(window) :] = window
        device = self.model.device
        was_training = self.model.training
        self.model.eval()
        try:
            attention_mask = torch.from_numpy(mask).to(device)
            output = self.model(
                input_ids=torch.from_numpy(input_ids).to(device),
                attention_mask=attention_mask,
                position_ids=(attention_mask.cumsum(1) - 1).clamp(min=0),
                use_cache=False,
                logits_to_keep=1,
            )
        finally:
            self.model.train(was_training)
        return output.logits[:, -1].float()
