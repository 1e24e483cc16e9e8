"""A model with `mix` in its history: what is counted for it before training, and what is fitted when that is over."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from sr_transformers.data.past_inputs import Past, last_columns
from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.transitions import successor_table
from sr_transformers.data.vocabulary import NUM_SPECIAL
from sr_transformers.evaluation.evaluator import check_scorer, scores_of
from sr_transformers.evaluation.log_counts import RecentCounts, counts_of_items, popularity
from sr_transformers.evaluation.metrics import RankingTotals
from sr_transformers.evaluation.model_scorer import ModelScorer
from sr_transformers.evaluation.ranking import pairs_of, rank_targets
from sr_transformers.evaluation.validation_choices import best_window, maximise_likelihood, validation_targets
from sr_transformers.lsrm.mix_lsrm import HALF_LIVES, expert_names, mixed_scores
from sr_transformers.lsrm.scoring_lsrm import item_range
from sr_transformers.training.arguments import EVALUATION_KS

SHARES = tuple(number / 10 for number in range(11))  # of what was counted


def mix_counts(data: PreparedData, config: Any) -> tuple[dict[str, np.ndarray], int]:
    """What `LSRMMix.set_counts` takes: counts of the training data, and the window of recent popularity in stretches,
    chosen on validation targets.

    Args:
        config: of the model. If it reads no moments, there is no recent popularity.
    """
    tables = {"popularity": counts_of_items(data).astype(np.int32), **successor_table(data, config.num_successors)}
    if not config.needs_times:
        return tables, 1
    recent = RecentCounts(data)
    starts, tokens, of_tokens = recent.pairs()
    rest = np.zeros(0 if len(tokens) else 1, np.int32)  # an empty table cannot be saved
    tables |= {
        "recent_ends": recent.ends(),
        "recent_starts": starts.astype(np.int64),
        "recent_tokens": np.concatenate([tokens, rest]).astype(np.int32),
        "recent_counts": np.concatenate([of_tokens, rest]).astype(np.int32),
    }
    return tables, best_window(recent, popularity(data), validation_targets(data, config.query_time))


class _Asked(NamedTuple):
    """Some validation targets, and what is read of their users."""

    pasts: list[Past]
    targets: torch.Tensor
    columns: dict[str, torch.Tensor]


@torch.no_grad()
def fit_mix(model: Any, data: PreparedData, metric: str = "loss") -> dict[str, Any] | None:
    """Fits a trained model's mix to at most 20,000 validation targets; it speaks from now on.

    Args:
        model: with "mix" in its history.
        data: the log that it was trained on.
        metric: of validation, by which the share is chosen among `SHARES`, for example "ndcg@10".

    Returns:
        What was fitted: `share`, the experts' `weights`, `window` of recent popularity as a share of the log, and
        `validation_targets`. None without targets: the model goes on speaking alone.

    Raises:
        ValueError: if the model's items are not the log's.
    """
    config, mix, device = model.config, model.history.mix, model.device
    config.mix_share, config.mix_weights = 0.0, None
    scorer, place = ModelScorer(model), torch.zeros(1, dtype=torch.int64, device=device)
    check_scorer(scorer, data)
    found = [mix.probabilities(one.columns, place, one.targets) for one in _asked(model, data, place)]
    if not found:
        return None
    shares, speak = (torch.cat(columns).cpu().numpy() for columns in zip(*found, strict=True))
    weights, _ = maximise_likelihood(shares, speak)
    config.mix_weights = dict(zip(expert_names(config.needs_times), weights.tolist(), strict=True))
    config.mix_share = _best_share(scorer, data, place, metric)
    return {
        "share": config.mix_share,
        "weights": config.mix_weights,
        "window": config.mix_window / config.mix_stretches if config.needs_times else None,
        "validation_targets": len(shares),
    }


def _asked(model: Any, data: PreparedData, place: torch.Tensor) -> Iterator[_Asked]:
    for part in validation_targets(data, model.config.query_time):
        timed = part.times if model.config.needs_times else [None] * len(part.targets)
        pasts = [Past(items, times) for items, times in zip(part.histories, timed, strict=True)]
        columns = last_columns(pasts, 1, place.device, half_lives=HALF_LIVES)
        targets = torch.from_numpy(part.targets).to(place.device)
        yield _Asked(pasts, targets, columns)


def _best_share(scorer: ModelScorer, data: PreparedData, place: torch.Tensor, metric: str) -> float:
    """The share with which the targets are ranked best."""
    model: Any = scorer.model
    items, filter_seen = item_range(model.config), data.filters_seen(model.config.filter_seen)
    totals = {share: RankingTotals(EVALUATION_KS, data.vocab_size) for share in SHARES}
    for one in _asked(model, data, place):
        scores, histories = scores_of(scorer, one.pasts), [past.items for past in one.pasts]
        counted = model.history.mix.counted(scores, one.columns, place)
        seen = pairs_of(histories, scores.device) if filter_seen else None
        for share, of_share in totals.items():
            together = mixed_scores(scores, counted, share, items)
            losses = -together.gather(1, one.targets[:, None])[:, 0].double().cpu().numpy()
            ranking = rank_targets(together, one.targets, seen, max(EVALUATION_KS))
            of_share.add(ranking.ranks, losses, ranking.top)
    sign = -1 if metric == "loss" else 1
    return max(SHARES, key=lambda share: sign * totals[share].metrics(data.vocab_size - NUM_SPECIAL)[metric])
