"""What followed what in the training data: the successors of every item."""

import numpy as np

from sr_transformers.data.prepared import PreparedData
from sr_transformers.lsrm.configuration_lsrm import LAGS, NUM_SPECIAL

_BLOCK = 1 << 22  # interactions counted at a time


def successor_table(data: PreparedData, num_successors: int) -> dict[str, np.ndarray]:
    """The most frequent successors of every item in the training data.

    Args:
        num_successors: successors kept of every item at most; of equally frequent ones those of the smaller tokens.

    Returns:
        `successor_tokens` and `successor_counts`, `(P,)` int32: items that came `1 + lag` interactions after an item,
        and how often, by lag, item and successor; `successor_starts`, `(LAGS, V + 1)` int64: those of an item stand
        from its start to before the next one's. P is at least 1, since an empty table cannot be saved.
    """
    vocab_size = data.vocab_size
    starts = np.zeros((LAGS, vocab_size + 1), np.int64)
    tokens, counts, before = [], [], 0
    for lag in range(LAGS):
        keys, number = _transitions(data, lag)
        item, successor = keys // vocab_size, keys % vocab_size
        order = np.lexsort((successor, -number, item))
        place = np.arange(len(item)) - np.searchsorted(item, item)
        kept = np.sort(order[place < num_successors])  # keys rise, so the pairs kept do too
        starts[lag, 1:] = np.bincount(item[kept], minlength=vocab_size).cumsum()
        starts[lag] += before
        before += len(kept)
        tokens.append(successor[kept])
        counts.append(number[kept])
    rest = np.zeros(0 if before else 1, np.int64)
    return {
        "successor_starts": starts,
        "successor_tokens": np.concatenate([*tokens, rest]).astype(np.int32),
        "successor_counts": np.concatenate([*counts, rest]).astype(np.int32),
    }


def _transitions(data: PreparedData, lag: int) -> tuple[np.ndarray, np.ndarray]:
    """`item * V + successor` of all transitions of a lag, each once, and how often."""
    keys, number = np.zeros(0, np.int64), np.zeros(0, np.int64)
    block: list[np.ndarray] = []
    waiting = 0
    histories = np.flatnonzero(data.train_lengths > lag + 1).tolist()
    for index, history in enumerate(histories):
        items = data.train_items(history, int(data.train_lengths[history])).astype(np.int64)
        item, successor = items[: -lag - 1], items[lag + 1 :]
        known = (item >= NUM_SPECIAL) & (successor >= NUM_SPECIAL)
        block.append((item * data.vocab_size + successor)[known])
        waiting += len(item)
        if waiting >= _BLOCK or index == len(histories) - 1:
            new, of_new = np.unique(np.concatenate(block), return_counts=True)
            keys, inverse = np.unique(np.concatenate([keys, new]), return_inverse=True)
            number = np.bincount(inverse, np.concatenate([number, of_new]), len(keys)).astype(np.int64)
            block, waiting = [], 0
    return keys, number
