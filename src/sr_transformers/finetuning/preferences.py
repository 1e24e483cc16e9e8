"""A model and its vocabulary as TRL's SFTTrainer and DPOTrainer need them: histories as text, items and nothing else.

TRL is made for text. It ends every example with the tokenizer's end of sequence, and computes log-probabilities by
itself from the head's weight, over all rows of the table. A history has no end, and two rows and more are no items.
Here an example ends with the mark that separates two ids, which is no token at all, and the head has a constant bias
that gives what is no item no probability. Both are for the training only: model and vocabulary are saved as before.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sr_transformers.data.vocabulary import NUM_SPECIAL, encode_items
from sr_transformers.lsrm.scoring_lsrm import item_range
from sr_transformers.lsrm.tokenization_lsrm import LSRMTokenizer

_LOWEST = -1e4  # e to this is 0; finite, so that TRL's mean over logits stays a number


class HistoryTokenizer(LSRMTokenizer):
    """An item vocabulary whose end of sequence is the mark between two ids. Made by `trl_tokenizer`.

    Attributes:
        eos_token: the mark.
        eos_token_id: None, for the mark is no token; a Trainer copies this id into the model's configuration.
    """

    eos_token_id = None

    @property
    def eos_token(self) -> str:
        return self.separators[0]

    def save_pretrained(self, *args: Any, **kwargs: Any) -> Any:
        """Saves the vocabulary as it was."""
        kept = copy.copy(self)
        kept.__class__ = LSRMTokenizer  # type: ignore[assignment]
        return kept.save_pretrained(*args, **kwargs)


def trl_tokenizer(tokenizer: PreTrainedTokenizerBase) -> HistoryTokenizer:
    """The `processing_class` for a trainer of TRL.

    Raises:
        ValueError: if nothing separates ids in a text: give TRL `input_ids` then.
    """
    _mark(tokenizer)
    made = copy.copy(tokenizer)
    made.__class__ = HistoryTokenizer  # type: ignore[assignment]
    return made  # type: ignore[return-value]


def _mark(tokenizer: PreTrainedTokenizerBase) -> str:
    separators = getattr(tokenizer, "separators", "")
    if not separators:
        raise ValueError(
            "this vocabulary does not separate ids in a text (they hold every mark that could, or it is no item "
            "vocabulary), so a history cannot be written as one; give SFTTrainer a data set of input_ids instead."
        )
    return separators[0]


def trl_model(model: PreTrainedModel) -> PreTrainedModel:
    """The model, in place: what is no item has no probability in TRL's own arithmetic either.

    The reference model of DPO needs it as well. For a single next item it makes no difference there, because the sum
    over all rows is the same for both items.

    Raises:
        ValueError: if the head has a bias of its own, or has been made ready before, or if the model adds scores to
            those of its head (`history`), reads moments (`attention_time`) or has a `head` of cosines: TRL knows
            nothing of all that.
    """
    if getattr(model.config, "history", ()):
        raise ValueError(
            f"the model has history {list(model.config.history)}: it adds scores to those of its head, and TRL would "
            "train without them. Take a model without history, or LSRMTrainer."
        )
    for key, value in (("attention_time", True), ("head", "normalised")):
        if getattr(model.config, key, None) == value:
            raise ValueError(
                f"the model has {key} {value}, of which TRL knows nothing. Take one without, or LSRMTrainer."
            )
    head: Any = model.get_output_embeddings()
    if head.bias is not None:
        raise ValueError("the head has a bias already: this model was made ready before, or is of another kind.")
    first, last = item_range(model.config)
    bias = torch.zeros(head.weight.shape[0], dtype=head.weight.dtype, device=head.weight.device)
    bias[:first] = bias[last:] = _LOWEST
    del head._parameters["bias"]
    head.register_buffer("bias", bias, persistent=False)
    return model


def as_text(tokenizer: PreTrainedTokenizerBase, items: Sequence[str | int]) -> str:
    """A history as TRL's text, every id followed by the mark: `prompt + chosen` is then a history again.

    Raises:
        ValueError: for an item that the vocabulary does not have.
    """
    unknown = next(
        (i for i, token in zip(items, encode_items(tokenizer, items), strict=True) if token < NUM_SPECIAL), None
    )
    if unknown is not None:
        raise ValueError(f"item {unknown!r} is not in the vocabulary; leave it out.")
    mark = _mark(tokenizer)
    return "".join(f"{item}{mark}" for item in items)
