"""A visit of one user: items come one at a time, and only what is new is computed.

Keys and values of the items so far are kept. Once the history is longer than the model's window every position shifts
with each new item, so then the window is encoded anew each time, and so it is for a model that is told when it is asked
(`query_time`). What a model with `history` counts is kept too: an
item changes the counts of that item, however long the history is. The answers are those of `Recommender.recommend` all
along.
"""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from sr_transformers.data.growing_past import GrowingPast
from sr_transformers.lsrm.requests_lsrm import check_request, moment_of_request
from sr_transformers.lsrm.scoring_lsrm import input_device
from sr_transformers.serving.recommendation import ItemId, Recommendation
from sr_transformers.serving.recommender import Recommender


class Session:
    """Recommends to one user who goes on choosing. Requests of several threads are answered one after the other; a
    pickled session leaves its keys and values behind.

    Args:
        recommender: a model with its vocabulary.
        history: raw item ids so far, oldest first; unknown ones are skipped.
        times: their moments, for a model that reads them (`Recommender.recommend_batch`).

    Attributes:
        history: all raw ids, unknown ones included.
    """

    def __init__(self, recommender: Recommender, history: Sequence[ItemId] = (), times: Sequence[int] | None = None):
        self.recommender = recommender
        self.history: list[ItemId] = []
        self._past = GrowingPast(recommender.scorer.window)
        self._begin()
        self._append(history, times)

    def _begin(self) -> None:
        """Makes what stays in this process."""
        self._lock = threading.Lock()
        self._num_cached = 0
        self._cache: DynamicCache | None = None
        self._scores: torch.Tensor | None = None
        self._asked: int | None = None  # when, by those scores

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            return {name: getattr(self, name) for name in ("recommender", "history", "_past")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()

    def add(self, *items: ItemId, times: Sequence[int] | None = None) -> int:
        """Appends items, oldest first, with their moments for a model that reads them; returns how many of them the
        model knows.

        Raises:
            ValueError: for missing moments, or one before the last.
        """
        return self._append(items, times)

    def _append(self, items: Sequence[ItemId], times: Sequence[int] | None) -> int:
        known = self.recommender.encode(items).tolist()
        moments = self.recommender.known_times([items], [() if times is None else times], request=False)
        of_items: list[Any] = [None] * len(known) if moments is None else moments[0].tolist()
        with self._lock:
            for token, moment in zip(known, of_items, strict=True):
                self._past.add(token, moment)  # refuses a first one that is too early; later ones are in order
            self.history += items
            if known:
                self._scores = None
        return len(known)

    def recommend(
        self,
        k: int = 10,
        exclude_seen: bool | None = None,
        candidates: Sequence[ItemId] | None = None,
        exclude: Sequence[ItemId] = (),
        query_time: int | None = None,
    ) -> list[Recommendation]:
        """The k items that most likely come next, best first; see `Recommender.recommend_batch`.

        Raises:
            ValueError: if no item of the history is known yet, k < 1, the vocabulary knows none of the candidates, or
                as `requests_lsrm.moment_of_request`.
        """
        check_request(k, exclude_seen)
        allowed, excluded = self.recommender.allowed(candidates), self.recommender.excluded(exclude)
        with self._lock:
            if not self._past.length:
                raise ValueError(f"the history has no item that the model knows ({self.history[:5]!r}); add one first.")
            asked = moment_of_request(query_time, [self._past.last_moment], self.recommender.model.config)
            if self._scores is None or asked != self._asked:
                self._scores, self._asked = self._score(asked), asked
            scores, seen = self._scores.clone(), self._past.items()
        return self.recommender.best(scores, [seen], k, exclude_seen, allowed, excluded)[0]

    @torch.inference_mode(False)  # what is kept must be of use outside of the caller's inference mode
    @torch.no_grad()
    def _score(self, asked: int | None) -> torch.Tensor:
        """`(1, V)` scores of the next item, see `ModelScorer.score_here`; asked: when, for a model that is told."""
        model: Any = self.recommender.model
        scorer, length = self.recommender.scorer, self._past.length
        window = list(self._past.recent)[-scorer.window :]
        # What is told of the last place changes with the next item, and so would its keys and values.
        if length <= scorer.window and asked is None:
            if self._cache is None:
                self._cache, self._num_cached = DynamicCache(config=model.config), 0
        else:
            self._cache, self._num_cached = None, 0
            if not scorer.reads_past:
                return scorer.score_here([np.array(window)])
        device = input_device(model)
        new = torch.tensor([window[self._num_cached :]], device=device)
        width = new.shape[1]
        past: dict[str, Any] = {}
        if scorer.reads_past and model.history is not None:
            past["history"] = self._past.columns(width, scorer.needs_times, model.history.mixes, device, asked)
        if scorer.reads_past and "clock" in model.config.history:
            past["clock"] = self._past.clock(width, device, asked)
        if getattr(model.config, "attention_time", False):
            past["moments"] = self._past.moments(device)
        positions = torch.arange(self._num_cached, len(window), device=device)[None]
        try:
            scores = scorer.score_next(new, positions, self._cache, past)
        except BaseException:  # some layers may have cached the new items already, and would read them twice
            self._cache, self._num_cached = None, 0
            raise
        self._num_cached = length
        return scores
