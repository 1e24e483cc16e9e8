"""Ranking metrics for one target per user, from the rank of the target. Plain numpy; nothing of the size of users.

    HR@k = [rank <= k]        NDCG@k = [rank <= k] / log2(rank + 1)        MRR = 1 / rank

With one target per user HR@k is Recall@k, and the ideal DCG is 1.

A rank is an integer from 1 (the best) on. A target that nothing could name (outside the vocabulary) has no rank: it is
`MISSED`, which no k reaches, and counts as 0 in every metric.
"""

import math
from collections.abc import Sequence

import numpy as np

DEFAULT_KS = (1, 5, 10, 20, 50)
MISSED = -1  # in place of a rank


def hit_rate(ranks: np.ndarray, k: int) -> np.ndarray:
    """`(M,)` float64, 1 where the target is among the first k.

    >>> hit_rate(np.array([1, 10, 11, MISSED]), 10).tolist()
    [1.0, 1.0, 0.0, 0.0]
    """
    return (_checked(ranks, k) <= k).astype(np.float64)


def ndcg(ranks: np.ndarray, k: int) -> np.ndarray:
    """`(M,)` float64 in [0, 1].

    >>> ndcg(np.array([1, 3, 11, MISSED]), 10).tolist()
    [1.0, 0.5, 0.0, 0.0]
    """
    ranks = _checked(ranks, k)
    return np.where(ranks <= k, 1.0 / np.log2(ranks + 1.0), 0.0)


def reciprocal_rank(ranks: np.ndarray) -> np.ndarray:
    """`(M,)` float64 in [0, 1]; 0 for a target without a rank.

    >>> reciprocal_rank(np.array([1, 4, MISSED])).tolist()
    [1.0, 0.25, 0.0]
    """
    return 1.0 / _checked(ranks, 1)


def coverage(recommended: np.ndarray, num_items: int, k: int) -> float:
    """Fraction of the items that stand among the first k of anybody.

    Args:
        recommended: `(B, >= k)` distinct items per user, best first; -1 is none.

    >>> coverage(np.array([[1, 2, 3], [1, 4, 2]]), num_items=10, k=2)
    0.3
    """
    if k < 1 or num_items < 1:
        raise ValueError(f"k is {k} and num_items is {num_items}; both must be at least 1.")
    first = np.asarray(recommended)[:, :k]
    return len(np.unique(first[first >= 0])) / num_items


def cross_entropy(log_probabilities: np.ndarray) -> float:
    """Mean negative log-probability of the targets, in nats.

    Raises:
        ValueError: if a value is no log-probability (above 0, or NaN).

    >>> cross_entropy(np.log([0.5, 0.5])).__round__(4)
    0.6931
    """
    values = np.asarray(log_probabilities, dtype=np.float64)
    if not np.all(values <= 0):
        raise ValueError("log-probabilities are at most 0; pass natural logarithms of the targets' probabilities.")
    return float(-values.mean())


def _checked(ranks: np.ndarray, k: int) -> np.ndarray:
    """Ranks as float64, infinite for a target that is missed: no k reaches it, and 1 / rank is 0."""
    ranks = np.asarray(ranks)
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1.")
    missed = ranks == MISSED
    if ranks.size and not (np.issubdtype(ranks.dtype, np.integer) and np.all(missed | (ranks >= 1))):
        raise ValueError(f"ranks are integers from 1 (the best) on, or {MISSED} for a target that nothing could name.")
    return np.where(missed, np.inf, ranks)


class RankingTotals:
    """Sums over users from which every metric and its standard error follow; memory does not grow with users.

    `count` targets were added, `num_missed` of them without a rank.

    `vector()` and `load_vector()` carry the sums between processes, where they simply add up.

    Args:
        ks: cut-offs of HR and NDCG.
        vocab_size: V, for coverage@k: which items were recommended to anybody within the first k.
    """

    def __init__(self, ks: Sequence[int], vocab_size: int):
        self.ks = tuple(ks)
        self.names = [f"{metric}@{k}" for k in self.ks for metric in ("hr", "ndcg")] + ["mrr"]
        self.count = self.num_missed = 0
        self.sums = np.zeros(len(self.names))
        self.squares = np.zeros(len(self.names))
        self.loss_count, self.loss_sum, self.loss_square = 0, 0.0, 0.0
        self.recommended = np.zeros((len(self.ks), vocab_size), dtype=bool)

    def add(self, ranks: np.ndarray, losses: np.ndarray | None = None, recommended: np.ndarray | None = None) -> None:
        """Adds a batch.

        Args:
            ranks: `(B,)` int, `MISSED` for targets that have none.
            losses: `(M,)` nats, of the targets that have one.
            recommended: `(B, max(ks))` tokens, best first; -1 is none.
        """
        columns = [metric(ranks, k) for k in self.ks for metric in (hit_rate, ndcg)] + [reciprocal_rank(ranks)]
        values = np.stack(columns)
        self.count += len(ranks)
        self.num_missed += int((np.asarray(ranks) == MISSED).sum())
        self.sums += values.sum(1)
        self.squares += (values**2).sum(1)
        if losses is not None:
            self.loss_count += len(losses)
            self.loss_sum += float(losses.sum())
            self.loss_square += float((losses**2).sum())
        if recommended is not None:
            for row, k in enumerate(self.ks):
                first = recommended[:, :k]
                self.recommended[row, first[first >= 0]] = True

    def vector(self) -> np.ndarray:
        """All sums as one float64 vector."""
        heads = [self.count, self.num_missed, self.loss_count, self.loss_sum, self.loss_square]
        return np.concatenate([heads, self.sums, self.squares, self.recommended.ravel()])

    def load_vector(self, vector: np.ndarray) -> None:
        """Takes over sums added up over processes."""
        n = len(self.names)
        self.count, self.num_missed, self.loss_count = (int(value) for value in vector[:3])
        self.loss_sum, self.loss_square = float(vector[3]), float(vector[4])
        self.sums, self.squares = vector[5 : 5 + n].copy(), vector[5 + n : 5 + 2 * n].copy()
        self.recommended = (vector[5 + 2 * n :] > 0).reshape(self.recommended.shape)

    def metrics(self, num_items: int) -> dict[str, float]:
        """Means; `loss` in nats only where losses were added; `coverage@k` as a fraction of `num_items`."""
        if not self.count:
            raise ValueError("no target was evaluated.")
        result = {name: float(value) for name, value in zip(self.names, self.sums / self.count, strict=True)}
        for k, recommended in zip(self.ks, self.recommended, strict=True):
            result[f"coverage@{k}"] = float(recommended.sum()) / num_items
        if self.loss_count:
            result["loss"] = self.loss_sum / self.loss_count
        return result

    def standard_errors(self) -> dict[str, float]:
        """Standard error of every mean over users; nan for a single one."""

        def error(total: float, square: float, count: int) -> float:
            if count < 2:
                return math.nan
            return math.sqrt(max(square / count - (total / count) ** 2, 0.0) / (count - 1))

        rows = zip(self.names, self.sums, self.squares, strict=True)
        result = {name: error(total, square, self.count) for name, total, square in rows}
        if self.loss_count:
            result["loss"] = error(self.loss_sum, self.loss_square, self.loss_count)
        return result
