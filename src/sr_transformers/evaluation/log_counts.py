"""What a log's training data count: how often each item occurred, when, and what followed what. No user is kept."""

from collections.abc import Iterator, Sequence

import numpy as np
import scipy.sparse

from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.splits import TEMPORAL
from sr_transformers.data.vocabulary import NUM_SPECIAL

_BLOCK = 1 << 22  # interactions counted at a time
_MOMENTS = 1 << 20  # interactions that say where the stretches of time begin
_TABLE = 1 << 24  # numbers in the table of stretches and items
_STRETCHES = 256


def most_stretches(vocab_size: int) -> int:
    """Into how many stretches of time counts of so many items are divided, if a log has as many moments."""
    return int(np.clip(_TABLE // vocab_size, 8, _STRETCHES))


def training_blocks(
    data: PreparedData, histories: np.ndarray, times: bool = False
) -> Iterator[tuple[list[np.ndarray], list[np.ndarray]]]:
    """Training items of histories, and their moments if asked for, some histories at a time."""
    lengths = data.train_lengths[histories]
    cuts = np.flatnonzero(np.diff(np.cumsum(lengths) // _BLOCK)) + 1
    for block in np.split(histories, cuts):
        pairs = [(history, int(data.train_lengths[history])) for history in block.tolist()]
        moments = [data.train_times(*pair) for pair in pairs] if times else []
        yield [data.train_items(*pair) for pair in pairs], moments


def counts_of_items(data: PreparedData) -> np.ndarray:
    """`(V,)` int64 training interactions, 0 for special tokens. An item without any, which left the training data when
    the log grew, counts as one: nothing in the vocabulary is impossible."""
    counts = np.maximum(data.item_counts, 1).astype(np.int64)
    counts[:NUM_SPECIAL] = 0
    return counts


def popularity(data: PreparedData) -> np.ndarray:
    """`(V,)` float64 shares of the training interactions (`counts_of_items`)."""
    counts = counts_of_items(data)
    return counts / counts.sum()


def transition_counts(data: PreparedData, lags: int) -> list[scipy.sparse.csr_array]:
    """For every lag from 1 on `(V, V)` float32: how often the second item came so many interactions after the first.

    Special tokens take no part. The held-out interactions are not among the counts, so they say nothing of a target.
    """
    size = data.vocab_size
    counts = [scipy.sparse.csr_array((size, size), dtype=np.float32) for _ in range(lags)]
    for items, _ in training_blocks(data, np.flatnonzero(data.train_lengths > 1)):
        for lag in range(1, lags + 1):
            first = np.concatenate([one[:-lag] for one in items])
            second = np.concatenate([one[lag:] for one in items])
            known = (first >= NUM_SPECIAL) & (second >= NUM_SPECIAL)
            pairs = (np.ones(int(known.sum()), np.float32), (first[known], second[known]))
            counts[lag - 1] = counts[lag - 1] + scipy.sparse.coo_array(pairs, shape=(size, size)).tocsr()
    return counts


class RecentCounts:
    """Counts of items over stretches of time that hold equally many training interactions.

    A moment knows the stretches that had ended by then; a window is the last so many of these. After a global time
    split everybody knows all of them: whoever is ranked there is ranked after the last training interaction, however
    long ago the user was last seen.

    Attributes:
        stretches: how many there are, at most 256, fewer for a large vocabulary.
    """

    def __init__(self, data: PreparedData):
        users = np.flatnonzero(data.train_lengths > 0)
        step = max(int(data.train_lengths.sum()) // _MOMENTS, 1)
        some = [np.zeros(0, np.int64)]
        some += [moment for _, block in training_blocks(data, users[::step], times=True) for moment in block]
        wanted = most_stretches(data.vocab_size)
        moments = np.sort(np.concatenate(some))
        ends = moments[(np.arange(1, wanted + 1) * len(moments) // wanted) - 1] if len(moments) else moments
        self._ends = np.unique(ends)
        self._all_known = data.manifest["split"] == TEMPORAL
        self.stretches = len(self._ends)
        size, shape = data.vocab_size, (self.stretches + 1, data.vocab_size)
        table = np.zeros(shape, np.int32)
        for items, times in training_blocks(data, users, times=True):
            stretch = np.searchsorted(self._ends, np.concatenate(times), side="left") + 1
            known = stretch <= self.stretches  # the ends are those of some users: others may come later
            cells = stretch[known] * size + np.concatenate(items)[known]
            table += np.bincount(cells, minlength=table.size).reshape(shape).astype(np.int32)
        table[:, :NUM_SPECIAL] = 0
        self._before = np.cumsum(table, axis=0, dtype=np.int32)  # up to the end of every stretch
        self._totals = self._before.sum(1, dtype=np.int64)

    def ends(self) -> np.ndarray:
        """`(stretches,)` int64: after which moments a stretch is known to have ended (`ended`)."""
        return np.full_like(self._ends, np.iinfo(np.int64).min) if self._all_known else self._ends

    def pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The counts of the stretches: where each begins in the others, `(stretches + 1,)`; tokens, and how often."""
        of_stretches = np.diff(self._before, axis=0)
        stretch, token = np.nonzero(of_stretches)
        return np.searchsorted(stretch, np.arange(self.stretches + 1)), token, of_stretches[stretch, token]

    def ended(self, moments: np.ndarray) -> np.ndarray:
        """`(B,)` int64: how many stretches had ended when the users with these last moments are ranked."""
        if self._all_known:
            return np.full(len(moments), self.stretches)
        return np.searchsorted(self._ends, moments, side="right")

    def began(self, window: int) -> int | None:
        """After which moment the last `window` of all stretches begin; None: with the first interaction."""
        return int(self._ends[-window - 1]) if window < self.stretches else None

    def table(self, ended: np.ndarray, window: int) -> np.ndarray:
        """`(B, V)` int32: counts within the last `window` of the stretches that had ended."""
        return self._before[ended] - self._before[np.maximum(ended - window, 0)]

    def at(self, ended: np.ndarray, window: int, tokens: np.ndarray) -> np.ndarray:
        """`(B,)` int32: of `table` one token in each row."""
        return self._before[ended, tokens] - self._before[np.maximum(ended - window, 0), tokens]

    def totals(self, ended: np.ndarray, window: int) -> np.ndarray:
        """`(B,)` int64: sums of the rows of `table`."""
        return self._totals[ended] - self._totals[np.maximum(ended - window, 0)]


def last_items(histories: Sequence[np.ndarray], lag: int) -> np.ndarray:
    """`(B,)` int64: the `lag`-th last token of every history, 0 where there is none."""
    return np.array([history[-lag] if len(history) >= lag else 0 for history in histories], np.int64)
