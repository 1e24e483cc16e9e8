"""`mix`: the best that counting does, the floor under every model.

    p(v) = sum over experts e of w_e p_e(v) / sum over the experts that have something to say of w_e

The experts are frequencies in the user's own past (`experts.HALF_LIVES`, each with and without the items of the current
basket), what followed the last item in the user's own past, Markov chains of lags 1 to 3, popularity and recent
popularity. The weights are those of the greatest likelihood of the validation targets, found by EM; they are the same
for all users. Nothing else is learned, and no test target is looked at.

Where rankings leave seen items out, the own-history experts have nothing to say, and the others spread their
probability over the items that the user has not seen. Popularity over all items stays beside them, for targets that
come back all the same.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sr_transformers.data.prepared import PreparedData
from sr_transformers.evaluation.experts import HALF_LIVES, Masses, OwnItems, followers
from sr_transformers.evaluation.log_counts import RecentCounts, last_items, popularity, transition_counts
from sr_transformers.evaluation.validation_choices import Known, best_window, maximise_likelihood, validation_targets
from sr_transformers.lsrm.configuration_lsrm import LAGS

_NOTHING = 1e-9  # of a mass of 1: rounding leaves as much
_SILENT = 1e-200  # the sum of masses that have decayed to nothing


class Mix:
    """The mix of a log.

    Args:
        data: the log; its validation targets fit the weights.
        filter_seen: whether rankings leave seen items out; None: as the log has it (`PreparedData.filters_seen`).
        query_time: "now" is when the target happened.

    Attributes:
        filter_seen: whether rankings leave seen items out: how it was fitted, and how it is to be evaluated.
        experts: their names.
        weights: `(K,)` float64, sum to 1.
        fitted: for reports: `weights` by name, `window` of recent popularity as a share of the log's training
            interactions, `validation_targets` that it was fitted on and their mean `validation_loss` in nats.
    """

    name = "mix"
    gives_log_probabilities = True
    needs_times = True

    def __init__(self, data: PreparedData, filter_seen: bool | None = None, query_time: bool = False):
        self.query_time = query_time
        self.items_fingerprint = data.items_fingerprint
        self._vocab_size, self.filter_seen = data.vocab_size, data.filters_seen(filter_seen)
        self._transitions = transition_counts(data, LAGS)
        self._popularity = popularity(data)
        self._recent = RecentCounts(data)
        own = [f"{kind}, half-life {life:g}" for kind in ("own", "own outside the basket") for life in HALF_LIVES]
        chains = [f"markov, lag {lag}" for lag in range(1, LAGS + 1)]
        everybody = ["recent popularity", "popularity"]
        if self.filter_seen:
            self.experts = [*chains, *everybody, "popularity, seen items too"]
        else:
            self.experts = [*own, "own successors", *chains, *everybody]
        known = validation_targets(data, query_time)
        self.window = best_window(self._recent, self._popularity, known)
        self._fit(known)

    def _fit(self, known: Sequence[Known]) -> None:
        parts = [self._probabilities(part) for part in known]
        count = len(self.experts)
        none = (np.zeros((0, count)), np.zeros((0, count), bool))
        found = [np.concatenate(columns) for columns in zip(none, *parts, strict=True)]
        self.weights, loss = maximise_likelihood(*found)
        self.fitted: dict[str, Any] = {
            "weights": dict(zip(self.experts, self.weights.tolist(), strict=True)),
            "window": self.window / max(self._recent.stretches, 1),
            "validation_targets": len(found[0]),
            "validation_loss": loss,
        }

    def _sparse(self, own: OwnItems, histories: Sequence[np.ndarray]) -> tuple[list[Masses], np.ndarray | None]:
        """Experts that know some items, in order, and the seen items if those are left out."""
        chains = [followers(counts, last_items(histories, lag)) for lag, counts in enumerate(self._transitions, 1)]
        if not self.filter_seen:
            frequencies = [own.frequencies(HALF_LIVES, outside) for outside in (False, True)]
            return [*frequencies, own.successors(), *chains], None
        seen = np.zeros((own.size, self._vocab_size), bool)
        seen[own.rows, own.tokens] = True
        return [chain.without(seen) for chain in chains], seen

    def _dense_totals(self, own: OwnItems, ended: np.ndarray) -> np.ndarray:
        """`(B, 2 or 3)`: the sums of the masses of the experts that know every item."""
        recent, popular = self._recent.totals(ended, self.window).astype(np.float64), np.ones(own.size)
        if not self.filter_seen:
            return np.stack([recent, popular], axis=1)
        of_own = self._recent.at(ended[own.rows], self.window, own.tokens)
        unseen = recent - np.bincount(own.rows, of_own, own.size)
        left = popular - np.bincount(own.rows, self._popularity[own.tokens], own.size)
        return np.stack([unseen, np.where(left > _NOTHING, left, 0), popular], axis=1)

    def _probabilities(self, part: Known) -> tuple[np.ndarray, np.ndarray]:
        """`(B, K)` probabilities that the experts give to the targets, and whether they have anything to say."""
        own, targets = OwnItems(part.histories, part.times, self._vocab_size), part.targets
        sparse, seen = self._sparse(own, part.histories)
        ended = self._recent.ended(own.now)
        recent, popular = self._recent.at(ended, self.window, targets), self._popularity[targets]
        dense = np.stack([recent, popular], axis=1).astype(np.float64)
        if seen is not None:
            new = ~seen[np.arange(own.size), targets]
            dense = np.concatenate([dense * new[:, None], popular[:, None]], axis=1)
        masses = np.concatenate([*(one.at(targets) for one in sparse), dense], axis=1)
        totals = np.concatenate([*(one.totals for one in sparse), self._dense_totals(own, ended)], axis=1)
        speaks = totals > _SILENT
        return np.divide(masses, totals, out=np.zeros_like(masses), where=speaks), speaks

    def score(self, histories: Sequence[np.ndarray], times: Sequence[np.ndarray]) -> torch.Tensor:
        """`(B, V)` float32 logarithms of the probabilities; minus infinity for special tokens."""
        own = OwnItems(histories, times, self._vocab_size)
        sparse, seen = self._sparse(own, histories)
        ended = self._recent.ended(own.now)
        totals = np.concatenate([*(one.totals for one in sparse), self._dense_totals(own, ended)], axis=1)
        speaks = totals > _SILENT
        weights = np.where(speaks, self.weights, 0.0)
        weights /= weights.sum(1, keepdims=True)
        factors = np.divide(weights, totals, out=np.zeros_like(weights), where=speaks)
        first = sum(one.values.shape[1] for one in sparse)  # of the experts that know every item
        dense, popular = factors[:, first:].astype(np.float32), self._popularity.astype(np.float32)
        scores = self._recent.table(ended, self.window).astype(np.float32) * dense[:, :1]
        scores += popular * dense[:, 1:2]
        if seen is not None:
            scores[own.rows, own.tokens] = 0.0
            scores += popular * dense[:, 2:]
        place = 0
        for one in sparse:
            width = one.values.shape[1]
            one.add_to(scores, factors[:, place : place + width])
            place += width
        return torch.from_numpy(scores).log_()
