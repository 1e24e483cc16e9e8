"""What a scorer puts before its users as a whole: how much of the catalogue, how evenly, how popular.

coverage = share of the items recommended to anybody
Gini     = sum over items i in rising order of exposure of (2 i - n - 1) e_i / (n sum e); 0: every item equally
           often, towards 1: one item for everybody
"""

import numpy as np

from sr_transformers.data.vocabulary import NUM_SPECIAL


def list_popularity(top: np.ndarray, item_counts: np.ndarray) -> np.ndarray:
    """`(M,)` float32 mean training count of the items in each list; NaN for an empty list.

    Args:
        top: `(M, k)` int tokens, -1 is none.
        item_counts: `(V,)` training interactions of every token.
    """
    there = top >= 0
    counts = np.where(there, item_counts[top], 0).sum(1)
    return np.divide(counts, there.sum(1), out=np.full(len(top), np.nan, np.float32), where=there.any(1))


def exposure(top: np.ndarray, vocab_size: int) -> dict[str, float | None]:
    """`coverage` and `gini` over all items of the vocabulary, of `(M, k)` int lists (-1 is none).

    Both depend on how many lists there are: compare scorers on the same users only. Without a single recommendation
    the Gini index is None.
    """
    counts = np.bincount(top[top >= 0], minlength=vocab_size)[NUM_SPECIAL:]
    return {"coverage": float((counts > 0).mean()), "gini": gini(counts) if counts.any() else None}


def gini(counts: np.ndarray) -> float:
    """Gini index of `(n,)` non-negative numbers with a positive sum.

    >>> gini(np.array([3, 3, 3]))
    0.0
    >>> gini(np.array([0, 0, 0, 8]))
    0.75
    """
    ordered = np.sort(counts.astype(np.float64))
    n = len(ordered)
    return float(((2 * np.arange(1, n + 1) - n - 1) * ordered).sum() / (n * ordered.sum()))
