"""Less data, in three named ways: a prepared log of which training may use only a part.

    users         a random part of the users may be trained on, each with the whole training history
    interactions  of every user, the most recent part of the training history
    context       every target stays, but is predicted from a shorter window (the released code's "less data")

Vocabulary, validation and test targets and the histories behind them stay those of the whole log, so that losses of
different fractions are comparable. `PreparedData.manifest["fraction"]` records what was done; D
(`num_train_interactions`) counts what is left (for `context` that is everything: only context is removed).
"""

from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from sr_transformers.data.examples import EvalDataset, TrainDataset
from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.vocabulary import NUM_SPECIAL, set_item_counts

USERS, INTERACTIONS, CONTEXT = "users", "interactions", "context"
FRACTIONS = (USERS, INTERACTIONS, CONTEXT)


class FractionOfData(PreparedData):
    """A prepared log of which training uses a fraction.

    Args:
        data: the whole log.
        of: "users", "interactions" or "context".
        fraction: in (0, 1]. Counts are rounded to the nearest, and never to nothing.
        seed: draws the users, and the validation targets. Smaller fractions of one seed are parts of larger ones.
        validation_targets: validate on so many random targets at most, which saves time in every epoch; None: on all.

    Raises:
        ValueError: for an unknown way, a fraction outside (0, 1], a number of targets below 1, or of data that are
            a fraction already or are streamed.
    """

    def __init__(
        self, data: PreparedData, of: str, fraction: float, seed: int = 0, validation_targets: int | None = None
    ):
        if of not in FRACTIONS:
            raise ValueError(f"a fraction of {of!r} is not known; choose from {', '.join(FRACTIONS)}.")
        if not 0 < fraction <= 1:
            raise ValueError(f"the fraction of {of} is {fraction}; it must lie in (0, 1], 0.1 for a tenth.")
        if validation_targets is not None and validation_targets < 1:
            raise ValueError(f"validation_targets is {validation_targets}; it must be at least 1.")
        if type(data) is not PreparedData:
            raise ValueError(
                f"a fraction of {type(data).__name__} is not known: it is taken of a whole prepared log that lies here."
            )
        super().__init__(data.path)
        self.of, self.fraction = of, fraction
        whole = self.train_lengths
        self._first = np.zeros_like(whole)
        rng = np.random.default_rng(seed)
        if of == USERS:
            trained = np.nonzero(whole > 0)[0]
            kept = rng.permutation(trained)[: max(round(fraction * len(trained)), 1)]
            self.train_lengths = np.zeros_like(whole)
            self.train_lengths[kept] = whole[kept]
        elif of == INTERACTIONS:
            # At least two: one interaction alone predicts nothing.
            self.train_lengths = np.minimum(np.maximum(np.rint(fraction * whole).astype(np.int64), 2), whole)
            self._first = whole - self.train_lengths
        note: dict[str, Any] = {
            "of": of,
            "fraction": fraction,
            "seed": seed,
            "users": int((self.train_lengths > 0).sum()),
            "train_interactions": self.num_train_interactions,
        }
        if validation_targets is not None and validation_targets < self.num_targets("validation"):
            rows = np.random.default_rng([seed, 1]).permutation(self.num_targets("validation"))[:validation_targets]
            self._targets["validation"] = self._target_table("validation").take(pa.array(np.sort(rows)))
            note["validation_targets"] = validation_targets
        self.manifest = {**self.manifest, "fraction": note}

    def train_items(self, history: int, stop: int, start: int = 0) -> np.ndarray:
        first = int(self._first[history])
        return self.items(history, first + stop, first + start)

    def train_times(self, history: int, stop: int, start: int = 0) -> np.ndarray:
        first = int(self._first[history])
        return self.timestamps(history, first + stop, first + start)

    def window(self, window: int) -> int:
        """Items that a model of this window may read: fewer for a fraction of the context, at least 1."""
        return max(round(self.fraction * window), 1) if self.of == CONTEXT else window

    def train_dataset(self, window: int | None = None) -> TrainDataset:
        """As `PreparedData.train_dataset`, for a fraction of the context in as much smaller windows."""
        return super().train_dataset(window and self.window(window))

    def eval_dataset(self, split: str, window: int | None = None) -> EvalDataset:
        """As `PreparedData.eval_dataset`, likewise."""
        return super().eval_dataset(split, window and self.window(window))

    @cached_property
    def item_counts(self) -> np.ndarray:
        """`(V,)` int64, training interactions of every token that are left."""
        counts = np.zeros(self.vocab_size, np.int64)
        for history in np.nonzero(self.train_lengths)[0].tolist():
            np.add.at(counts, self.train_items(history, int(self.train_lengths[history])), 1)
        return counts

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The item vocabulary of the whole log, with the counts that are left."""
        tokenizer = super().tokenizer
        set_item_counts(tokenizer, self.item_counts[NUM_SPECIAL:])
        return tokenizer
