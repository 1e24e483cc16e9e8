"""What followed what in the training data: the successors of every item, and what a user must not know of them."""

from collections.abc import Sequence

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
        from its start to before the next one's; `successor_totals`, `(LAGS, V)` int32: all interactions that came so
        after the item, kept or not. P is at least 1, since an empty table cannot be saved.
    """
    vocab_size = data.vocab_size
    totals, starts = np.zeros((LAGS, vocab_size), np.int32), np.zeros((LAGS, vocab_size + 1), np.int64)
    tokens, counts, before = [], [], 0
    for lag in range(LAGS):
        keys, number = _transitions(data, lag)
        item, successor = keys // vocab_size, keys % vocab_size
        totals[lag] = np.bincount(item, number, vocab_size)
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
        "successor_totals": totals,
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


def later_transitions(
    histories: Sequence[np.ndarray], starts: np.ndarray, sizes: np.ndarray, rows: np.ndarray, lag: int
) -> tuple[np.ndarray, np.ndarray]:
    """Transitions that a user makes from a place's target on, which are in the counts of the training data and must not
    be known at that place.

    Args:
        histories: whole training histories, one for each window; starts, sizes: `(M,)`, what of it the window reads;
            each of these interactions predicts the next one.
        rows: `(M,)` place of the window's first interaction in the flattened batch.
        lag: 0 for what follows the last item, 1 for what comes one later after the one before, and so on.

    Returns:
        `(D,)` int64 each: the place, and the token that followed its item (the one `lag` interactions ago).
    """
    lengths = np.array([len(history) for history in histories], np.int64)
    window = np.repeat(np.arange(len(histories)), lengths)
    first = np.cumsum(lengths) - lengths
    tokens = np.concatenate([np.zeros(0, np.int64), *histories]).astype(np.int64)
    position = np.arange(len(tokens)) - first[window]
    order = np.argsort(window * (1 << 32) + tokens, kind="stable")
    key = window[order] * (1 << 32) + tokens[order]
    after = np.searchsorted(key, key, side="right")  # the end of the item's interactions, in `order`
    place = position[order] + lag - starts[window[order]]
    asking = (place >= 0) & (place < sizes[window[order]]) & (tokens[order] >= NUM_SPECIAL)
    asking = np.flatnonzero(asking)
    later = after[asking] - asking
    which = np.repeat(np.arange(len(asking)), later)
    begin = np.repeat(asking - (np.cumsum(later) - later), later)
    found = order[begin + np.arange(len(which))]
    known = position[found] + lag + 1 < lengths[window[found]]
    which, found = which[known], found[known]
    asked = asking[which]
    return rows[window[order[asked]]] + place[asked], tokens[found + lag + 1]
