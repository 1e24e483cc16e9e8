"""Scorers that only count, beside which every model is reported: a model below them is broken.

A scorer maps histories to scores over the vocabulary: `score(histories) -> (B, V)` float32, each history an int array
of tokens, oldest first. The caller may overwrite the scores.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import scipy.sparse
import torch

from sr_transformers.data.logs.timestamps import UNITS
from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.splits import TEMPORAL
from sr_transformers.data.vocabulary import NUM_SPECIAL
from sr_transformers.evaluation.experts import HALF_LIVES, OwnItems
from sr_transformers.evaluation.log_counts import RecentCounts, popularity, transition_counts
from sr_transformers.evaluation.mix import Mix
from sr_transformers.evaluation.validation_choices import best_half_life, best_window, validation_targets


class Scorer(Protocol):
    """What can be evaluated. `gives_log_probabilities`: log-softmax of the scores is the model's distribution.

    A scorer may say four things more: `items_fingerprint`, which items its tokens stand for (a log of other items is
    refused), `filter_seen`, how it was ranked before (the default of `evaluate`), `needs_times`: `score` then takes
    `times`, the moments of the interactions of each history, in the log's unit; and `query_time`: that of the target
    follows them, which is another protocol.
    """

    name: str
    gives_log_probabilities: bool

    @property
    def score(self) -> Callable[..., torch.Tensor]: ...


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
        (counts,) = transition_counts(data, lags=1)
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


class RecentPopularity:
    """Scores items by their training count in a window before the user's last interaction (with query_time: before the
    target), then by their count in all.

    The window holds a share of the log's training interactions; it is tuned on validation targets
    (`validation_choices.best_window`). After a global time split it is the end of the training data, for everybody:
    what was popular in the last days before the cut; `fitted` then says how many days, if the unit of time is known.
    """

    name = "recent popularity"
    gives_log_probabilities = False
    needs_times = True

    def __init__(self, data: PreparedData, query_time: bool = False):
        self.query_time = query_time
        self.popularity, self.items_fingerprint = Popularity(data), data.items_fingerprint
        self._recent, self._vocab_size = RecentCounts(data), data.vocab_size
        self.window = best_window(self._recent, popularity(data), validation_targets(data, query_time))
        self.fitted = {"window": self.window / max(self._recent.stretches, 1), **_days(data, self._recent, self.window)}

    def score(self, histories: Sequence[np.ndarray], times: Sequence[np.ndarray]) -> torch.Tensor:
        scores = self.popularity.score(histories) / 2  # below one occurrence
        now = OwnItems(histories, times, self._vocab_size).now
        return scores.add_(torch.from_numpy(self._recent.table(self._recent.ended(now), self.window)))


class DecayedFrequency:
    """Scores items by how often the user had them, every interaction counted by half for each half-life of later ones.

    Items that the user never had stand below them, by popularity. The half-life, in interactions, is tuned on
    validation targets (`validation_choices.best_half_life`); an infinite one is the plain frequency, among equals of
    which popularity decides.

    Args:
        outside_basket: items in the current basket, the interactions at the moment of the last one, count as never
            had: few are bought twice at once.
    """

    gives_log_probabilities = False
    needs_times = True

    def __init__(self, data: PreparedData, outside_basket: bool = False, query_time: bool = False):
        self.query_time = query_time
        self.name = "decayed frequency" + ", basket left out" * outside_basket
        self.outside_basket, self.items_fingerprint = outside_basket, data.items_fingerprint
        self._popularity = popularity(data)
        known = validation_targets(data, query_time)
        self.half_life = best_half_life(HALF_LIVES, outside_basket, self._popularity, known)
        self.fitted = {"half_life": self.half_life if math.isfinite(self.half_life) else "none"}

    def score(self, histories: Sequence[np.ndarray], times: Sequence[np.ndarray]) -> torch.Tensor:
        scores = np.tile((self._popularity - 1).astype(np.float32), (len(histories), 1))  # below all that count
        own = OwnItems(histories, times, len(self._popularity)).frequencies([self.half_life], self.outside_basket)
        counted = own.values[:, 0] > 0
        rows, tokens, values = own.rows[counted], own.tokens[counted], own.values[counted, 0]
        if not math.isfinite(self.half_life):
            values = values + self._popularity[tokens] / 2
        scores[rows, tokens] = values
        return torch.from_numpy(scores)


def _days(data: PreparedData, recent: RecentCounts, window: int) -> dict[str, float]:
    """How long the window before the cut of a global time split is; nothing of other splits, or without a unit."""
    unit, counts = data.manifest["times"]["unit"], data.manifest["counts"]
    if data.manifest["split"] != TEMPORAL or unit not in UNITS:
        return {}
    began = recent.began(window)
    return {
        "days": (counts["validation_from"] - (counts["first"] if began is None else began)) / (86_400 * UNITS[unit])
    }


def baselines(data: PreparedData, filter_seen: bool | None = None, query_time: bool = False) -> list[Scorer]:
    """The scorers that stand in every report, `Mix` last.

    Args:
        filter_seen: whether rankings leave seen items out; None: as the log has it (`PreparedData.filters_seen`). Where
            they do, decayed frequencies are popularity again, as the plain one is, and are left out.
        query_time: beside a model that is told when the target happened: "now" is that moment for them too. Those that
            read no moments score as ever.
    """
    found: list[Any] = [Popularity(data), UserFrequency(data), Markov(data), RecentPopularity(data, query_time)]
    if not data.filters_seen(filter_seen):
        found += [DecayedFrequency(data, outside, query_time) for outside in (False, True)]
    for one in found:
        one.query_time = query_time
    return [*found, Mix(data, filter_seen, query_time)]
