"""A prepared log as data sets of examples, in transformers' own form: dictionaries of `input_ids` and `labels`.

transformers' Trainer, TRL and plain loops read them one by one; a collator pads them (`DataCollatorForSeq2Seq`, which
pads labels too). `LSRMTrainer` takes the same two objects, reads the log behind them, and packs and ranks by itself.
"""

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Dataset

from sr_transformers.data.vocabulary import UNK_ID

if TYPE_CHECKING:
    from sr_transformers.data.prepared import PreparedData

IGNORE = -100  # transformers' label for "no target here"


class TrainDataset(Dataset):
    """The training part of a prepared log: every (item, next item) pair of every history in exactly one example.

    An example is a list `input_ids` of at most `window` items, oldest first, and `labels`: the same without the first,
    which nothing predicts. A history longer than the window is cut; an example begins with the item that ends the one
    before, because that item is still to be read though it is predicted no more.

    Args:
        window: most items of an example, at least 2; None: whole histories.

    Raises:
        ValueError: if the window holds no pair.
    """

    def __init__(self, data: "PreparedData", window: int | None = None):
        if window is not None and window < 2:
            raise ValueError(f"window is {window}; it must be at least 2: an item and the next one.")
        self.data, self.window = data, window

    @cached_property
    def _first(self) -> np.ndarray:
        """`(U + 1,)` int64: number of examples before every history."""
        pairs = np.maximum(self.data.train_lengths - 1, 0)
        counts = (pairs > 0).astype(np.int64) if self.window is None else -(-pairs // (self.window - 1))
        return np.concatenate([[0], np.cumsum(counts)])

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        index = _checked(index, len(self))
        history = int(np.searchsorted(self._first, index, side="right")) - 1
        length = int(self.data.train_lengths[history])
        start = 0 if self.window is None else (index - int(self._first[history])) * (self.window - 1)
        stop = length if self.window is None else min(start + self.window, length)
        items = self.data.train_items(history, stop, start).tolist()
        return {"input_ids": items, "labels": [IGNORE, *items[1:]]}


class EvalDataset(Dataset):
    """The held-out targets of a prepared log.

    An example is a history up to its target, the target included, at most `window` items: `input_ids`, and `labels`
    that are -100 everywhere but at the target. Items outside the vocabulary are left out of histories. Targets outside
    it, and those with nothing before them, have no loss and so no example; `LSRMTrainer` counts them as missed.

    Args:
        split: "validation" or "test".
        window: most items of an example, at least 2; None: whole histories.

    Raises:
        ValueError: for another split, or a window that holds no pair.
    """

    def __init__(self, data: "PreparedData", split: str, window: int | None = None):
        if window is not None and window < 2:
            raise ValueError(f"window is {window}; it must be at least 2: an item and the target.")
        self.data, self.split, self.window = data, split, window
        self.num_targets = data.num_targets(split)

    @cached_property
    def _rows(self) -> np.ndarray:
        """`(M', 2)` int64 rows (history, position) of the targets that have an example."""
        rows = self.data.targets(self.split)
        return rows[[len(self._known(*row)) > 1 and self._target(*row) != UNK_ID for row in rows.tolist()]]

    def _target(self, history: int, position: int) -> int:
        return int(self.data.items(history, position + 1, position)[0])

    def _known(self, history: int, position: int) -> list[int]:
        """Items up to the target that the vocabulary has."""
        items = self.data.items(history, position + 1)
        return items[items != UNK_ID].tolist()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        history, position = self._rows[_checked(index, len(self))].tolist()
        items = self._known(history, position)
        items = items if self.window is None else items[-self.window :]
        return {"input_ids": items, "labels": [IGNORE] * (len(items) - 1) + items[-1:]}


def _checked(index: Any, length: int) -> int:
    if not -length <= index < length:
        raise IndexError(f"example {index} of {length:,}.")
    return int(index) % length
