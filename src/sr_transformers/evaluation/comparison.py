"""Models beside baselines on the same targets, compared user by user: what all users have in common cancels out."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sr_transformers.data.prepared import PreparedData
from sr_transformers.evaluation.baselines import Scorer
from sr_transformers.evaluation.evaluator import Kept, evaluate
from sr_transformers.evaluation.metrics import DEFAULT_KS, hit_rate, ndcg
from sr_transformers.evaluation.mix import Mix

COMPARED_AT = 10


def paired_difference(ranks: np.ndarray, others: np.ndarray, k: int = COMPARED_AT) -> dict[str, dict[str, float]]:
    """Mean over users of a metric of one scorer less that of another, for HR@k and NDCG@k.

    Args:
        ranks, others: `(M,)` int, of the same targets in the same order; `metrics.MISSED` for one without rank.

    Returns:
        By metric `difference` and `standard_error`, which is nan for a single user.

    Raises:
        ValueError: if there are not as many of one as of the other.

    >>> paired_difference(np.array([1, 20, 3, 5]), np.array([11, 20, 30, 5]))["hr@10"]
    {'difference': 0.5, 'standard_error': 0.28867513459481287}
    """
    if len(ranks) != len(others):
        raise ValueError(f"{len(ranks):,} ranks beside {len(others):,}: they are not of the same targets.")
    found = {}
    for name, metric in (("hr", hit_rate), ("ndcg", ndcg)):
        gains = metric(ranks, k) - metric(others, k)
        found[f"{name}@{k}"] = {"difference": float(gains.mean()), "standard_error": standard_error(gains)}
    return found


def standard_error(differences: np.ndarray) -> float:
    """Of the mean over users of `(M,)` numbers; nan for a single user."""
    users = len(differences)
    return float(differences.std(ddof=1)) / math.sqrt(users) if users > 1 else math.nan


def evaluate_each(
    scorer: Scorer,
    data: PreparedData,
    split: str = "test",
    ks: Sequence[int] = DEFAULT_KS,
    filter_seen: bool | None = None,
    progress: bool = False,
) -> tuple[dict[str, Any], Kept]:
    """The report of `evaluate`, and what became of each target."""
    kept = Kept(data.num_targets(split))
    return evaluate(scorer, data, split, ks, filter_seen, progress, kept), kept


def evaluate_floors(
    floors: Sequence[Scorer],
    data: PreparedData,
    split: str = "test",
    ks: Sequence[int] = DEFAULT_KS,
    filter_seen: bool | None = None,
    progress: bool = False,
) -> tuple[list[dict[str, Any]], np.ndarray | None]:
    """Reports of baselines, as `evaluate`, and the ranks that `mix` gives, None if it is not among them."""
    reports, mix = [], None
    for scorer in floors:
        report, kept = evaluate_each(scorer, data, split, ks, filter_seen, progress)
        reports.append(report)
        mix = kept.ranks if isinstance(scorer, Mix) else mix
    return reports, mix


def evaluate_beside(
    models: Sequence[Scorer],
    floors: Sequence[Scorer],
    data: PreparedData,
    split: str = "test",
    ks: Sequence[int] = DEFAULT_KS,
    filter_seen: bool | None = None,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Evaluates models and baselines, and compares each model with `mix` if that is among the baselines.

    Args:
        models, floors: the two kinds.
        split, ks, filter_seen, progress: as `evaluate`.

    Returns:
        A report of each, as `evaluate`, models first; those of the models have `against_mix` (`paired_difference`).
    """
    below, mix = evaluate_floors(floors, data, split, ks, filter_seen, progress)
    reports = []
    for scorer in models:
        report, kept = evaluate_each(scorer, data, split, ks, filter_seen, progress)
        reports.append(report)
        if mix is not None:
            reports[-1]["against_mix"] = paired_difference(kept.ranks, mix)
    return reports + below
