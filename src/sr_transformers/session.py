"""A visit of one user: items come one at a time, and only what is new is computed.

Keys and values of the items so far are kept. Once the history is longer than the model's window every position shifts
with each new item, so then the window is encoded anew each time; the answers are those of `Recommender.recommend` all
along.
"""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from sr_transformers.evaluation.model_scorer import evaluation_mode
from sr_transformers.lsrm.scoring_lsrm import input_device
from sr_transformers.recommender import ItemId, Recommendation, Recommender


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
        self._tokens = self._times = np.zeros(0, np.int64)
        self._begin()
        self._append(history, times)

    def _begin(self) -> None:
        """Makes what stays in this process."""
        self._lock = threading.Lock()
        self._num_cached = 0
        self._cache: DynamicCache | None = None
        self._scores: torch.Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            return {name: getattr(self, name) for name in ("recommender", "history", "_tokens", "_times")}

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
        known = self.recommender.encode(items)
        moments = self.recommender.known_times([items], [() if times is None else times])
        with self._lock:
            if moments is not None and len(moments[0]):
                if len(self._times) and moments[0][0] < self._times[-1]:
                    raise ValueError(f"the moment {moments[0][0]} is before {self._times[-1]}, the last one.")
                self._times = np.concatenate([self._times, moments[0]])
            self.history += items
            if len(known):
                self._tokens, self._scores = np.concatenate([self._tokens, known]), None
        return len(known)

    def recommend(
        self,
        k: int = 10,
        exclude_seen: bool | None = None,
        candidates: Sequence[ItemId] | None = None,
        exclude: Sequence[ItemId] = (),
    ) -> list[Recommendation]:
        """The k items that most likely come next, best first; see `Recommender.recommend_batch`.

        Raises:
            ValueError: if no item of the history is known yet, k < 1, or the vocabulary knows none of the candidates.
        """
        if k < 1:
            raise ValueError(f"k is {k}; it must be at least 1.")
        allowed, excluded = self.recommender.allowed(candidates), self.recommender.encode(exclude)
        with self._lock:
            tokens = self._tokens
            if not len(tokens):
                raise ValueError(f"the history has no item that the model knows ({self.history[:5]!r}); add one first.")
            if self._scores is None:
                self._scores = self._score()
            scores = self._scores.clone()
        return self.recommender.best(scores, [tokens], k, exclude_seen, allowed, [excluded])[0]

    @torch.inference_mode(False)  # what is kept must be of use outside of the caller's inference mode
    @torch.no_grad()
    def _score(self) -> torch.Tensor:
        """`(1, V)` scores of the next item."""
        scorer, model, length = self.recommender.scorer, self.recommender.model, len(self._tokens)
        times = [self._times] if scorer.needs_times else None
        if length > scorer.window:
            self._cache = None
            return scorer.score([self._tokens], times=times)
        if self._cache is None:
            self._cache, self._num_cached = DynamicCache(config=model.config), 0
        device = input_device(model)
        positions = torch.arange(self._num_cached, length, device=device)[None]
        new = torch.from_numpy(self._tokens[None, self._num_cached :]).to(device)
        past = scorer.past_inputs([self._tokens], times, new)
        with evaluation_mode(model), scorer.autocast(device):
            output = model(
                input_ids=new,
                position_ids=positions,
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
                **past,
            )
        self._num_cached = length
        return scorer.item_scores(output.logits[:, -1])
