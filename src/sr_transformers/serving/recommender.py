"""Recommending to a user: a raw history in, the next items out. The user need never have been seen in training."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sr_transformers.data.vocabulary import NUM_SPECIAL, decode_items, popular_first
from sr_transformers.evaluation.divided import best_of, held_tokens, log_partition_of, scores_at
from sr_transformers.evaluation.loading import Checkpoint
from sr_transformers.evaluation.model_scorer import ModelScorer
from sr_transformers.evaluation.ranking import pairs_of, rows_of_scores
from sr_transformers.evaluation.request_state import ScoreMemory
from sr_transformers.lsrm.head_lsrm import item_vectors
from sr_transformers.lsrm.identity_lsrm import check_same_items, items_fingerprint
from sr_transformers.lsrm.requests_lsrm import check_ids, check_order, check_request
from sr_transformers.lsrm.scoring_lsrm import check_tokenizer, excludes_seen, refuse_diverged
from sr_transformers.serving.ids import is_for_each, type_of_ids
from sr_transformers.serving.moments import moments_of_items, moments_of_requests
from sr_transformers.serving.recommendation import ExplainedRecommendation, ItemId, Recommendation, as_frame

FALLBACKS = ("error", "popularity")


class Recommender:
    """A model with its item vocabulary. Any number of threads may ask it at once, and it can be pickled.

    Args:
        model: a causal language model over item tokens.
        tokenizer: the vocabulary it was trained with.
        bf16: compute the layers in bfloat16 (see `ModelScorer`).
        compile: translate the layers by `torch.compile` (see `ModelScorer`).

    Attributes:
        exclude_seen: whether items of a user's own history are left out unless a request says otherwise: as the model
            was validated and tested (`filter_seen` of its configuration), True for one that was not.
        items_fingerprint: of its items in their order (`identity_lsrm.items_fingerprint`).
        popular: `(V - 2,)` int64 tokens of the items by falling training count; None if the vocabulary does not keep
            the counts.

    Raises:
        ValueError: if the two do not belong together.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        bf16: bool = False,
        compile: bool = False,
    ):
        check_tokenizer(len(tokenizer), model.config)
        self.model, self.tokenizer = model, tokenizer
        self.scorer = ModelScorer(model, bf16=bf16, compile=compile)
        self._item_of = decode_items(tokenizer, range(len(tokenizer)))
        self.items_fingerprint = items_fingerprint(self._item_of[NUM_SPECIAL:])
        check_same_items(model.config, self.items_fingerprint, "the vocabulary")
        self._id_type = type_of_ids(tokenizer, self._item_of[NUM_SPECIAL:])
        self.exclude_seen = excludes_seen(model.config)
        self.popular = popular_first(tokenizer)
        # By raw id as the log had it and as text: to ask the tokenizer takes a tenth of the time of a request.
        known = enumerate(self._item_of[NUM_SPECIAL:], NUM_SPECIAL)
        self._token_of = {name: token for token, item in known for name in (item, str(item))}

    def __repr__(self) -> str:
        seen = "left out" if self.exclude_seen else "recommended again"
        return (
            f"Recommender({type(self.model).__name__}, {len(self._item_of) - NUM_SPECIAL:,} items, window "
            f"{self.scorer.window}, seen items are {seen})"
        )

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        bf16: bool = False,
        compile: bool = False,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        subfolder: str = "",
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        **kwargs,
    ) -> "Recommender":
        """Loads a model and its vocabulary from one folder, or from one commit of one repository on the Hub.

        Args:
            revision, token, cache_dir, subfolder, local_files_only, trust_remote_code: as `Checkpoint`.
            kwargs: of `AutoModelForCausalLM.from_pretrained`.

        Raises:
            OSError, ValueError: as `Checkpoint`: if there is no such model, or it is not whole.
        """
        checkpoint = Checkpoint(
            name_or_path,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            subfolder=subfolder,
            local_files_only=local_files_only,
            trust_remote_code=trust_remote_code,
        )
        tokenizer = checkpoint.tokenizer()
        return cls(checkpoint.model(**kwargs), tokenizer, bf16, compile)

    def recommend(
        self,
        history: Sequence[ItemId],
        k: int = 10,
        exclude_seen: bool | None = None,
        candidates: Sequence[ItemId] | None = None,
        fallback: str = "error",
        times: Sequence[int] | None = None,
        exclude: Sequence[ItemId] | None = None,
        explain: bool = False,
        query_time: int | None = None,
    ) -> list[Recommendation]:
        """The k items that most likely come next, best first; `recommend_batch` tells the rest."""
        moments = None if times is None else [times]
        asked = k, exclude_seen, candidates, fallback, moments, exclude, explain, query_time
        return self.recommend_batch([history], *asked)[0]

    def recommend_batch(
        self,
        histories: Sequence[Sequence[ItemId]],
        k: int = 10,
        exclude_seen: bool | None = None,
        candidates: Sequence[ItemId] | Sequence[Sequence[ItemId] | None] | None = None,
        fallback: str = "error",
        times: Sequence[Sequence[int]] | None = None,
        exclude: Sequence[ItemId] | Sequence[Sequence[ItemId] | None] | None = None,
        explain: bool = False,
        query_time: int | Sequence[int | None] | None = None,
    ) -> list[list[Recommendation]]:
        """Recommends to several users.

        Args:
            histories: raw item ids of each user, oldest first. Unknown ids are skipped; of the rest the model reads
                the most recent `max_position_embeddings`, and of the others what it keeps of the past (`history` of
                its configuration).
            k: how many items; fewer come back if fewer are allowed.
            exclude_seen: never recommend an item of the user's own history; None: as the model was evaluated, see
                `Recommender.exclude_seen`.
            candidates: recommend only from these ids: one list for all histories, or a list of lists, one for each
                history (None: anything).
            fallback: for a history without any known item: "error", or "popularity": the items most frequent in
                training.
            times: moments of the interactions of each history, in the unit of the log that the model was trained on,
                for a model that reads them (`scorer.needs_times`); others do without.
            exclude: ids never to recommend, beside those seen: one list for all, or one for each history. Unknown ones
                are never recommended in any case.
            explain: give `ExplainedRecommendation`s, for a model that adds to the scores of a user's own items
                (`scorer.scores_own_past`). It takes twice the time.
            query_time: when it is asked what comes next, one moment for all or one for each history, for a model that
                is told (`scorer.query_time`); None: now.

        Raises:
            ValueError: for a model that reads moments without them, or with others than `requests_lsrm.check_times`
                and `moment_of_request` take; for explain with a model that has nothing to explain so; for such a
                history with fallback "error", or with "popularity" if the vocabulary keeps no training counts; for an
                id that is neither text nor an integer, k that is no number from 1 on, an unknown fallback, candidates
                of which the vocabulary knows none, lists of another number than histories, or a model that gives NaN.
            TypeError: for a history that is a single id or a set instead of a sequence of ids.
        """
        check_request(k, exclude_seen)
        if fallback not in FALLBACKS:
            raise ValueError(f"fallback {fallback!r} is not known; choose from {', '.join(FALLBACKS)}.")
        if explain and not self.scorer.scores_own_past:
            raise ValueError(
                "explain tells what a user's own past adds to the scores of items, and this model adds nothing "
                f"(history: {', '.join(getattr(self.model.config, 'history', ())) or 'none'}); leave explain out."
            )
        allowed = self.allowed(candidates, len(histories))
        excluded = self.excluded(exclude, len(histories))
        tokens = [self.encode(history) for history in histories]
        moments = self.known_times(histories, times, query_time)
        for index, known in enumerate(tokens):
            if not len(known) and (fallback == "error" or self.popular is None):
                raise ValueError(
                    f"history {index} has no item that the model knows ({list(histories[index])[:5]!r}); "
                    + (
                        "pass fallback='popularity' to recommend the most popular items instead."
                        if self.popular is not None
                        else "what is popular cannot stand in, as the vocabulary keeps no training counts "
                        "(`data.vocabulary.set_item_counts` puts them there)."
                    )
                )
        rows = rows_of_scores(len(self._item_of))
        memory = ScoreMemory() if len(tokens) > rows else None
        results = []
        for start in range(0, len(tokens), rows):
            part = tokens[start : start + rows]
            of_part = moments and moments[start : start + rows]
            scores = self.scorer.score_here(part, memory, of_part)
            without = self.scorer.score_here(part, None, of_part, own_past=False) if explain else None
            chosen = allowed[start : start + rows], excluded[start : start + rows]
            results += self.best(scores, part, k, exclude_seen, *chosen, without)
        return results

    def best(
        self,
        scores: torch.Tensor,
        tokens: Sequence[np.ndarray],
        k: int,
        exclude_seen: bool | None,
        allowed: Sequence[np.ndarray | None],
        excluded: Sequence[np.ndarray | None],
        without: torch.Tensor | None = None,
    ) -> list[list[Recommendation]]:
        """The k best items of every row of scores.

        Args:
            scores: `(B, V)`, of `scorer.score_here`; overwritten.
            tokens: what `encode` made of each history; for an empty one popularity (`popular`) stands in.
            exclude_seen: see `recommend_batch`.
            allowed, excluded: for each history the tokens that alone may be named, and those that may not; None: no
                limit.
            without: `(B, V)` scores without the users' own pasts, for `ExplainedRecommendation`s.

        Raises:
            ValueError: if scores are NaN or infinite.
        """
        part = self.scorer.part  # a divided item table: the scores are those of its items
        log_z = log_partition_of(scores, part)[:, None]
        refuse_diverged(log_z)
        for index, known in enumerate(tokens):
            if not len(known) and self.popular is not None:
                here = np.arange(len(self.popular)) if part is None else np.flatnonzero(part.held(self.popular))
                places = torch.from_numpy(held_tokens(self.popular, part)).to(scores.device)
                scores[index] = -torch.inf
                scores[index, places] = -torch.from_numpy(here).to(scores)
                log_z[index] = torch.nan
        if self.exclude_seen if exclude_seen is None else exclude_seen:
            scores[pairs_of([held_tokens(known, part) for known in tokens], scores.device)] = -torch.inf
        for row, (only, never) in enumerate(zip(allowed, excluded, strict=True)):
            if only is not None:
                kept = torch.from_numpy(held_tokens(only, part)).to(scores.device)
                values = scores[row, kept]
                scores[row] = -torch.inf
                scores[row, kept] = values
            if never is not None:
                scores[row, torch.from_numpy(held_tokens(never, part)).to(scores.device)] = -torch.inf
        best, tokens_found = best_of(scores, k, part)
        chosen = (best - log_z).exp()
        # looked up here: several times ten items a user add up
        item_of, nothing = self._item_of, torch.finfo(scores.dtype).min
        rows = best.tolist(), tokens_found.tolist(), chosen.tolist()
        if without is None:
            return [
                [Recommendation(item_of[index], p) for value, index, p in zip(*row, strict=True) if value > nothing]
                for row in zip(*rows, strict=True)
            ]
        factors = chosen / (scores_at(without, tokens_found, part) - log_partition_of(without, part)[:, None]).exp()
        return [
            [
                ExplainedRecommendation(item_of[index], p, factor, index in had)
                for value, index, p, factor in zip(*row, strict=True)
                if value > nothing
            ]
            for had, *row in zip((set(known.tolist()) for known in tokens), *rows, factors.tolist(), strict=True)
        ]

    def encode(self, history: Sequence[ItemId]) -> np.ndarray:
        """Tokens of the known items of a history, int64, oldest first."""
        if not isinstance(history, list | tuple):
            check_order(history)
        return self._tokens_of(history)

    def _tokens_of(self, history: Collection[ItemId]) -> np.ndarray:
        if not isinstance(history, list | tuple) or not set(map(type, history)) <= {str, int}:  # True is found as 1
            check_ids(history)
        token_of = self._token_of.get
        tokens = list(map(token_of, history))
        if None in tokens:  # unknown, or of another type than the log had
            check_ids(history)
            found = (token_of(item, token_of(str(item))) for item in history)
            tokens = [token for token in found if token is not None]
        return np.array(tokens, np.int64)

    def known_times(
        self, histories: Sequence[Sequence[ItemId]], times: Any, query_time: Any = None, request: bool = True
    ) -> list[np.ndarray] | None:
        """The moments that `ModelScorer.score` takes, of the items that `encode` keeps; None for a model
        that reads none. request: False: without that of the request. The other arguments are `recommend_batch`'s.

        Raises:
            ValueError: as `moments.moments_of_items` and `moments_of_requests`.
        """
        if not self.scorer.needs_times:
            moments_of_requests(query_time, [()] * len(histories), self.model.config)
            return None
        of_items = moments_of_items(histories, times)
        asked = moments_of_requests(query_time, of_items, self.model.config) if request else [None] * len(of_items)
        found = []
        for history, moments, when in zip(histories, of_items, asked, strict=True):
            known = (self._token_of.get(item, self._token_of.get(str(item))) is not None for item in history)
            kept = [moment for moment, is_known in zip(moments, known, strict=True) if is_known]
            found.append(np.array(kept if when is None else [*kept, when], np.int64))
        return found

    def allowed(self, candidates: Any, count: int = 1) -> list[np.ndarray | None]:
        """Tokens of the candidates of each of `count` histories, None where all items are.

        Raises:
            ValueError: if the vocabulary knows none of the candidates of a history.
        """
        tokens = self._of_each(candidates, count, "candidates")
        for index, known in enumerate(tokens):
            if known is not None and not len(known):
                raise ValueError(
                    f"the vocabulary knows none of the candidates of history {index}; pass raw item ids as they were "
                    "in the log."
                )
        return tokens

    def excluded(self, exclude: Any, count: int = 1) -> list[np.ndarray | None]:
        """Tokens that are not to be named for each of `count` histories, None where all may be."""
        return self._of_each(exclude, count, "exclude")

    def _of_each(self, given: Any, count: int, name: str) -> list[np.ndarray | None]:
        """Known tokens of one list of ids for all histories, or of one list for each."""
        if given is None:
            return [None] * count
        if not is_for_each(given, count):
            return [self._tokens_of(given)] * count
        if len(given) != count:
            raise ValueError(
                f"{name} has {len(given)} lists for {count} histories; give one for each, or one list of ids for all."
            )
        return [None if one is None else self._tokens_of(one) for one in given]

    def item_embeddings(self) -> tuple[list[ItemId], np.ndarray]:
        """Raw ids of all items, and their vectors `(items, d)` float32.

        The inner product of a user's vector (`user_embeddings`) with these is the score by which items are ranked; the
        cosine is not, as popular items have longer vectors.

        Raises:
            ValueError: if no vectors give the scores (`ModelScorer.check_vectors`).
        """
        self.scorer.check_vectors()
        vectors = item_vectors(self.model.lm_head).detach()[NUM_SPECIAL : len(self._item_of)].float().cpu().numpy()
        return list(self._item_of[NUM_SPECIAL:]), vectors.copy()

    def user_embeddings(
        self,
        histories: Sequence[Sequence[ItemId]],
        times: Sequence[Sequence[int]] | None = None,
        query_time: Any = None,
    ) -> np.ndarray:
        """`(B, d)` float32, the vector of each history, see `item_embeddings`.

        Args:
            histories, times, query_time: as `recommend_batch`.

        Raises:
            ValueError: as `item_embeddings`, and for a history without an item that the model knows.
        """
        self.scorer.check_vectors()
        tokens = [self.encode(history) for history in histories]
        moments = self.known_times(histories, times, query_time)
        for index, known in enumerate(tokens):
            if not len(known):
                raise ValueError(f"history {index} has no item that the model knows; leave it out.")
        if not tokens:
            return np.zeros((0, self.model.config.hidden_size), np.float32)
        rows = rows_of_scores(len(self._item_of))
        starts = range(0, len(tokens), rows)
        parts = [self.scorer.states(tokens[i : i + rows], moments and moments[i : i + rows]) for i in starts]
        return torch.cat(parts).float().cpu().numpy()

    def recommend_frame(
        self, users: Sequence[ItemId], histories: Sequence[Sequence[ItemId]], k: int = 10, **options: Any
    ) -> pl.DataFrame:
        """The recommendations of several users as a table.

        Args:
            users: their ids, distinct.
            histories, k: see `recommend_batch`.
            options: its other arguments.

        Returns:
            Columns user_id, item_id, rank (from 1 on) and score (the probability); a user's rows stand together.

        Raises:
            ValueError: as `recommend_batch`, and if there are not as many distinct users as histories.
        """
        if len(users) != len(histories) or len(set(users)) < len(users):
            raise ValueError(
                f"there are {len(set(users))} distinct users for {len(histories)} histories; give every history a user "
                "of its own."
            )
        found = self.recommend_batch(histories, k, **options)
        return as_frame(users, found, self._id_type)
