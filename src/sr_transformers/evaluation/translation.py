"""A checkpoint of other items on a log: tokens are translated by raw id, and what only one side knows has no place.

A token is a place in a list of items. A model that was trained on another log, or on this one before it grew, has
another list; read as this log's tokens its scores would be numbers about other items. `open_scorer` compares the two
lists by their fingerprints and translates where they differ.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.vocabulary import NUM_SPECIAL, PAD_ID, item_list
from sr_transformers.evaluation.loading import Checkpoint
from sr_transformers.evaluation.model_scorer import ModelScorer
from sr_transformers.evaluation.origin import check_origin
from sr_transformers.evaluation.ranking import rows_of_scores
from sr_transformers.lsrm.identity_lsrm import check_same_items, tokenizer_fingerprint
from sr_transformers.lsrm.scoring_lsrm import check_tokenizer, item_range


def open_scorer(
    name_or_path: str | Path | Checkpoint, data: PreparedData, bf16: bool = False, compile: bool = False
) -> "ModelScorer | TranslatedScorer":
    """A checkpoint as a scorer of a log: as it is if its items are the log's, translated by raw id if they are not.

    Args:
        name_or_path: folder or Hub id; a `Checkpoint` for a revision of it.
        bf16, compile: see `ModelScorer`.

    Raises:
        ValueError: if the items differ and no vocabulary beside the model says which ones it has, if model and
            vocabulary do not belong together, or if the model knows no item of the log; as `check_origin`.
        FileNotFoundError, OSError, ValueError: as `Checkpoint`.
    """
    checkpoint = name_or_path if isinstance(name_or_path, Checkpoint) else Checkpoint(name_or_path)
    trained_on = check_origin(checkpoint, data)
    scorer = _of_items(checkpoint, data, bf16, compile)
    if trained_on is not None:
        scorer.trained_on = trained_on
    return scorer


def _of_items(
    checkpoint: Checkpoint, data: PreparedData, bf16: bool, compile: bool
) -> "ModelScorer | TranslatedScorer":
    """The scorer, translated if need be."""
    model = checkpoint.model()
    scorer = ModelScorer(model, name=checkpoint.name, reuse_memory=True, bf16=bf16, compile=compile)
    if scorer.items_fingerprint == data.items_fingerprint:
        return scorer
    try:
        tokenizer = checkpoint.tokenizer()
    except FileNotFoundError as error:
        if scorer.items_fingerprint is None and item_range(model.config)[1] == data.vocab_size:
            return scorer  # nothing says which items these are
        raise ValueError(
            f"{checkpoint.name} was not trained on the items of {data.path}, and no vocabulary beside it says which "
            "items it has; put its tokenizer.json and tokenizer_config.json there."
        ) from error
    own = tokenizer_fingerprint(tokenizer)
    check_same_items(model.config, own, f"the vocabulary beside {checkpoint.name}")
    check_tokenizer(len(tokenizer), model.config)
    return scorer if own == data.items_fingerprint else TranslatedScorer(scorer, item_list(tokenizer), data)


class TranslatedScorer:
    """A model of other items as a scorer of a log's tokens.

    Histories lose the items that the model does not know. Items of the log that it does not know get the score minus
    infinity: they are never recommended, and as targets they are missed. Probabilities stay the model's own, over all
    items that it can name: what it gives to items that the log lacks stands in the column of the padding token, which
    no ranking looks at.

    Args:
        scorer: of the model, in its own tokens.
        own_items: the model's raw ids, from its token 2 on.
        data: the log.

    Attributes:
        translated: `items` of the log and `items_known`, how many of them the model knows; part of every report.
        trained_on: what `check_origin` says, if the model was trained on other interactions; likewise.

    Raises:
        ValueError: if the model knows none of the log's items.
    """

    gives_log_probabilities = True
    trained_on: dict[str, Any]

    def __init__(self, scorer: ModelScorer, own_items: Sequence[str | int], data: PreparedData):
        self.scorer, self.name, self.filter_seen = scorer, scorer.name, scorer.filter_seen
        self.needs_times, self.query_time = scorer.needs_times, scorer.query_time
        self.items_fingerprint = data.items_fingerprint
        self._width, self._own_width = data.vocab_size, len(own_items) + NUM_SPECIAL
        token_of = {str(item): token for token, item in enumerate(own_items, NUM_SPECIAL)}
        own = [token_of.get(str(item), -1) for item in data.item_ids.to_pylist()]
        self._own = np.array([PAD_ID, -1, *own], np.int64)  # the model's token of every token of the log; -1: none
        here = np.flatnonzero(self._own[NUM_SPECIAL:] >= 0) + NUM_SPECIAL
        if not len(here):
            raise ValueError(f"{self.name} knows none of the {len(own):,} items of {data.path}: nothing to evaluate.")
        self.translated = {"items": len(own), "items_known": len(here)}
        elsewhere = np.ones(self._own_width, bool)
        elsewhere[self._own[here]] = False
        self._here, self._there = torch.from_numpy(here), torch.from_numpy(self._own[here])
        self._elsewhere = torch.from_numpy(np.flatnonzero(elsewhere))

    def score(self, histories: Sequence[np.ndarray], times: Sequence[np.ndarray] | None = None) -> torch.Tensor:
        """`(B, V)` float32 in the log's tokens."""
        read = [self._own[history] for history in histories]
        shown = [tokens[tokens >= 0] for tokens in read]
        if times is not None:
            # One more than items where the moment of the request stands behind them: that one always stays.
            times = [
                moments[np.append(tokens >= 0, np.ones(len(moments) - len(tokens), bool))]
                for moments, tokens in zip(times, read, strict=True)
            ]
        step = rows_of_scores(self._own_width)  # its list of items may be far longer than the log's
        parts = [slice(first, first + step) for first in range(0, max(len(shown), 1), step)]
        return torch.cat([self._score(shown[part], None if times is None else times[part]) for part in parts])

    def _score(self, shown: Sequence[np.ndarray], times: Sequence[np.ndarray] | None) -> torch.Tensor:
        scores = self.scorer.score(shown, times=times)
        here, there, elsewhere = (places.to(scores.device) for places in (self._here, self._there, self._elsewhere))
        found = torch.full((len(scores), self._width), -torch.inf, device=scores.device)
        found[:, here] = scores[:, there]
        found[:, PAD_ID] = scores[:, elsewhere].logsumexp(1)
        return found
