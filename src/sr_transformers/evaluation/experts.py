"""Experts that count: each gives every item a share of the probability of being next, for some histories at a time.

An own-history expert knows the items of the user's past, a Markov expert what followed a recent item in the training
data, the popularity experts know every item. What an expert counts for an item is its mass, and its probability the
mass over the sum of all masses. An expert whose masses are all 0 for a history has nothing to say of it.

"Now" is the moment of the last known interaction, and the current basket the interactions that tie with it: when the
target happened is not known. Only beside a model that is told (`query_time`), "now" is when the target happened.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse

from sr_transformers.data.vocabulary import NUM_SPECIAL
from sr_transformers.evaluation.log_counts import last_items
from sr_transformers.lsrm import mix_lsrm

HALF_LIVES = (*mix_lsrm.HALF_LIVES, math.inf)  # in interactions


@dataclass
class Masses:
    """Masses of K experts that know the same items.

    Attributes:
        rows, tokens: `(P,)` int64, each pair once.
        values: `(P, K)` float64.
        totals: `(B, K)` float64, their sums by row.
    """

    rows: np.ndarray
    tokens: np.ndarray
    values: np.ndarray
    totals: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, tokens: np.ndarray, values: np.ndarray, size: int) -> "Masses":
        """With their sums over B = `size` rows."""
        totals = [np.bincount(rows, column, size) for column in values.T]
        return cls(rows, tokens, values, np.stack(totals, axis=1) if totals else np.zeros((size, 0)))

    def without(self, seen: np.ndarray) -> "Masses":
        """Less the items that `(B, V)` bool `seen` marks."""
        kept = ~seen[self.rows, self.tokens]
        return Masses.of(self.rows[kept], self.tokens[kept], self.values[kept], len(self.totals))

    def at(self, targets: np.ndarray) -> np.ndarray:
        """`(B, K)`: mass of one token in each row."""
        hit = np.flatnonzero(self.tokens == targets[self.rows])
        found = np.zeros_like(self.totals)
        found[self.rows[hit]] = self.values[hit]
        return found

    def add_to(self, scores: np.ndarray, factors: np.ndarray) -> None:
        """Adds masses times `(B, K)` factors to `(B, V)` scores."""
        scores[self.rows, self.tokens] += (self.values * factors[self.rows]).sum(1).astype(scores.dtype)


class OwnItems:
    """The distinct items of B histories, to be counted in several ways.

    Args:
        histories: tokens, oldest first; special tokens take a step but have no mass.
        times: their moments; with one more each, the last one is that of the request, and "now".
        vocab_size: V.
    """

    def __init__(self, histories: Sequence[np.ndarray], times: Sequence[np.ndarray], vocab_size: int):
        self.size, self._vocab_size = len(histories), vocab_size
        lengths = np.array([len(history) for history in histories], np.int64)
        every = np.concatenate([np.zeros(0, np.int64), *histories]).astype(np.int64)
        row = np.repeat(np.arange(self.size), lengths)
        self.now = np.array([moment[-1] if len(moment) else np.iinfo(np.int64).max for moment in times], np.int64)
        of_items = [moment[: len(history)] for moment, history in zip(times, histories, strict=True)]
        moments = np.concatenate([np.zeros(0, np.int64), *of_items]).astype(np.int64)
        ends = np.cumsum(lengths)
        known = every >= NUM_SPECIAL
        self._age = (ends[row] - 1 - np.arange(len(every)))[known]
        pairs, self._pair = np.unique((row * vocab_size + every)[known], return_inverse=True)
        self.rows, self.tokens = pairs // vocab_size, pairs % vocab_size
        in_basket = (moments == self.now[row])[known]
        self.in_basket = np.bincount(self._pair, in_basket, len(pairs)) > 0
        # What came after earlier occurrences of the last item.
        last = last_items(histories, 1)
        again = np.flatnonzero((every[:-1] == last[row[:-1]]) & (row[:-1] == row[1:]) & known[:-1] & known[1:])
        self._followed = row[again] * vocab_size + every[again + 1]

    def frequencies(self, half_lives: Sequence[float], outside_basket: bool = False) -> Masses:
        """An expert per half-life: how often the user had each item, an interaction counted by half for every half-life
        of later interactions.

        Args:
            outside_basket: items that lie in the current basket have no mass.
        """
        counts = [
            np.bincount(self._pair, None if life == math.inf else np.exp2(-self._age / life), len(self.rows))
            for life in half_lives
        ]
        values = np.stack(counts, axis=1).astype(np.float64)
        if outside_basket:
            values[self.in_basket] = 0.0
        return Masses.of(self.rows, self.tokens, values, self.size)

    def successors(self) -> Masses:
        """How often each item came right after the user's last item in the user's own past."""
        pairs, counts = np.unique(self._followed, return_counts=True)
        values = counts[:, None].astype(np.float64)
        return Masses.of(pairs // self._vocab_size, pairs % self._vocab_size, values, self.size)


def followers(counts: scipy.sparse.csr_array, items: np.ndarray) -> Masses:
    """What followed an item of each row in the training data.

    Args:
        counts: `(V, V)`.
        items: `(B,)` int64; special tokens were followed by nothing.
    """
    found = counts[items]
    rows = np.repeat(np.arange(len(items)), np.diff(found.indptr))
    return Masses.of(rows, found.indices.astype(np.int64), found.data[:, None], len(items))
