# Copyright 2026 The sr_transformers authors. Licensed under the Apache License, Version 2.0.
"""Which position of a batch has which target; what it refuses: labels of padding that a trainer has counted already."""

import torch
from torch import nn


def targets_after(
    labels: torch.Tensor | None,
    shift_labels: torch.Tensor | None,
    attention_mask: torch.Tensor | None,
    num_items_in_batch: torch.Tensor | int | None,
) -> tuple[torch.Tensor, torch.Tensor | int | None]:
    """The target of every position, and how many there are in the batch; padding neither predicts nor is predicted.

    Args:
        labels: `(B, T)` int64, the item at each position; or else shift_labels: the item after it; -100 for none.
        attention_mask: `(B, T)` or longer (a cache stands before), 0 for padding; another form says nothing of padding.
        num_items_in_batch: the labels that a trainer has counted, without looking at the mask.

    Returns:
        `(B, T)` int64 targets, -100 for none, and `num_items_in_batch` without the labels left out.

    Raises:
        ValueError: for labels left out of one of several micro-batches: the trainer's number is then of no use.
    """
    given = shift_labels
    if given is None:
        assert labels is not None
        given = nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
    if not isinstance(attention_mask, torch.Tensor) or attention_mask.ndim != 2:
        return given, num_items_in_batch
    padding = attention_mask[:, -given.shape[1] :] == 0
    left_out = padding if shift_labels is not None else padding | nn.functional.pad(padding[:, 1:], (0, 1))
    targets = given.masked_fill(left_out, -100)
    if num_items_in_batch is not None:
        num_items_in_batch = _recounted(num_items_in_batch, given, targets)
    return targets, num_items_in_batch


@torch.compiler.disable  # it looks at values
def _recounted(number: torch.Tensor | int, given: torch.Tensor, targets: torch.Tensor) -> torch.Tensor | int:
    """A trainer's number of the labels `given`, without those that are no targets."""
    counted, kept = int((given != -100).sum()), int((targets != -100).sum())
    if kept == counted:
        return number
    if number != counted:
        raise ValueError(
            f"{counted - kept} labels of this micro-batch are padding or stand right after padding: nothing predicts "
            "them, but they are counted in num_items_in_batch. Set the label of every history's first item and of "
            "padding to -100 (or pad on the right), or do without gradient accumulation."
        )
    return kept


__all__ = ["targets_after"]
