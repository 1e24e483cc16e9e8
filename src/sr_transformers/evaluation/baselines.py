"""Scorers that need no training, beside which every model is reported: a model below them is broken.

A scorer maps histories to scores over the vocabulary: `score(histories) -> (B, V)` float32, each history an int array
of tokens, oldest first. The caller may overwrite the scores.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import scipy.sparse
import torch

from sr_transformers.data.histories import PreparedData
from sr_transformers.data.vocabulary import NUM_SPECIAL


class Scorer(Protocol):
    """What can be evaluated. `gives_log_probabilities`: log-softmax of the scores is the model's distribution.

    A scorer may say three things more: `items_fingerprint`, which items its tokens stand for (a log of other items is
    refused), `filter_seen`, how it was ranked before (the default of `evaluate`), and `needs_times`: `score` then takes
    `times`, the moments of the interactions of each history, in the log's unit.
    """

    name: str
    gives_log_probabilities: bool

    def score(self, histories: Sequence[np.ndarray]) -> torch.Tensor: ...


class Popularity:
    """Scores items by their training count, the same for everybody."""

    name = "popularity"
    gives_log_probabilities = False

    def __init__(self, data: PreparedData):
        self.items_fingerprint = data.items_fingerprint
        counts = data.item_counts.astype(np.float64)
        self.share = torch.from_numpy((counts / max(counts.sum(), 1)).astype(np.float32))

    def score(self, histories: Sequence[np.ndarray]) -> torch.Tensor:
        return self.share.repeat(len(histories), 1)


class UserFrequency:
    """Scores items by how often the user had them; popularity decides among equals."""

    name = "user frequency"
    gives_log_probabilities = False

    def __init__(self, data: PreparedData):
        self.popularity, self.items_fingerprint = Popularity(data), data.items_fingerprint

    def score(self, histories: Sequence[np.ndarray]) -> torch.Tensor:
        scores = self.popularity.score(histories) / 2  # below one occurrence
        for row, history in enumerate(histories):
            tokens, counts = np.unique(history, return_counts=True)
            scores[row, torch.from_numpy(tokens).long()] += torch.from_numpy(counts).float()
        return scores


class Markov:
    """Back-off Markov chain over the last `order` items.

    score(v) = sum over j = 1..order of weight**(j-1) * P(v follows the j-th last item), then popularity: an item that
    never followed any of them is ranked by its count, below all that did.
    """

    name = "markov"
    gives_log_probabilities = False

    def __init__(self, data: PreparedData, order: int = 3, weight: float = 0.5):
        self.order, self.weight = order, weight
        self.popularity, self.items_fingerprint = Popularity(data), data.items_fingerprint
        counts = _transition_counts(data)
        total = np.asarray(counts.sum(axis=1)).ravel()
        self.transitions = scipy.sparse.diags_array(1.0 / np.maximum(total, 1)).tocsr() @ counts
        # Smaller than any probability above: it decides among items with none.
        self.tie_break = 1e-6

    def score(self, histories: Sequence[np.ndarray]) -> torch.Tensor:
        scores = self.popularity.score(histories) * self.tie_break
        for back in range(1, self.order + 1):
            rows = [row for row, history in enumerate(histories) if len(history) >= back]
            if not rows:
                break
            tokens = [int(histories[row][-back]) for row in rows]
            scores[rows] += torch.from_numpy(self.transitions[tokens].toarray()).float() * self.weight ** (back - 1)
        scores[:, :NUM_SPECIAL] = 0.0
        return scores


def _transition_counts(data: PreparedData, block: int = 1 << 12) -> scipy.sparse.csr_array:
    """`(V, V)` how often one item follows another in the training histories, added up a block of users at a time."""
    size = data.vocab_size
    counts = scipy.sparse.csr_array((size, size), dtype=np.float32)
    lengths = data.train_lengths
    for start in range(0, len(lengths), block):
        histories = [
            data.train_items(history, int(lengths[history]))
            for history in range(start, min(start + block, len(lengths)))
        ]
        current = np.concatenate([items[:-1] for items in histories])
        following = np.concatenate([items[1:] for items in histories])
        pairs = (np.ones(len(current), np.float32), (current, following))
        counts = counts + scipy.sparse.coo_array(pairs, shape=(size, size)).tocsr()
    return counts


def baselines(data: PreparedData) -> list[Scorer]:
    """The scorers that stand in every report."""
    return [Popularity(data), UserFrequency(data), Markov(data)]
