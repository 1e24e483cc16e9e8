"""Evaluates scorers on a prepared log by full ranking, in batches: memory does not grow with the number of users."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from sr_transformers.data.histories import PreparedData
from sr_transformers.data.vocabulary import NUM_SPECIAL, UNK_ID
from sr_transformers.evaluation.baselines import Scorer
from sr_transformers.evaluation.metrics import DEFAULT_KS, RankingTotals
from sr_transformers.evaluation.ranking import (
    Ranking,
    log_partition,
    pairs_of,
    rank_targets,
    refuse_diverged,
    rows_of_scores,
)

_BLOCK = 1 << 16  # targets looked at a time


def add_users(
    totals: RankingTotals,
    scorer: Scorer,
    data: PreparedData,
    split: str,
    filter_seen: bool,
    shard: tuple[int, int] = (0, 1),
    progress: bool = False,
) -> None:
    """Ranks the targets of a split and adds them to `totals`.

    Items outside the vocabulary are left out of the histories that the scorer sees: no scorer knows them.

    Args:
        split: "test" or "validation".
        filter_seen: take the items of a user's own history out of the ranking.
        shard: (i, n): only every n-th target, from the i-th on; for n processes that share the work.
    """
    batch_size = rows_of_scores(data.vocab_size)
    index, count = shard
    bar = tqdm(total=data.num_targets(split), desc=f"rank {scorer.name}", disable=not progress, leave=False)
    for start in range(0, data.num_targets(split), _BLOCK):
        block = data.targets(split, start, start + _BLOCK)[index::count]
        # Users of like length side by side: a model pads less.
        block = block[np.argsort(block[:, 1], kind="stable")]
        for first in range(0, len(block), batch_size):
            rows = block[first : first + batch_size]
            _add_batch(totals, scorer, data, rows, filter_seen)
            bar.update(len(rows) * count)
    bar.close()


def _add_batch(totals: RankingTotals, scorer: Scorer, data: PreparedData, rows: np.ndarray, filter_seen: bool) -> None:
    known = [known_items(data, history, position) for history, position in rows.tolist()]
    ranking, losses = rank_histories(
        scorer, known, target_tokens(data, rows), known if filter_seen else None, totals.ks
    )
    totals.add(ranking.ranks, None if losses is None else losses[~np.isnan(losses)], ranking.top)


def known_items(data: PreparedData, history: int, stop: int, start: int = 0) -> np.ndarray:
    """Tokens `start .. stop - 1` of a history that are in the vocabulary, oldest first."""
    items = data.items(history, stop, start)
    return items[items != UNK_ID]


def target_tokens(data: PreparedData, rows: np.ndarray) -> np.ndarray:
    """`(M,)` int64 tokens at the rows (history, position); `UNK_ID` for those outside the vocabulary."""
    return np.array([data.items(history, position + 1, position)[0] for history, position in rows.tolist()], np.int64)


def rank_histories(
    scorer: Scorer,
    shown: Sequence[np.ndarray],
    targets: np.ndarray,
    seen: Sequence[np.ndarray] | None,
    ks: Sequence[int],
) -> tuple[Ranking, np.ndarray | None]:
    """Ranks one batch of B targets; the only way from a scorer to ranks.

    Args:
        shown: tokens that the scorer reads, per user.
        targets: `(B,)` int64 tokens.
        seen: tokens to take out of each user's ranking, or None.
        ks: cut-offs; the largest says how many tokens `Ranking.top` lists.

    Returns:
        The ranking, and `(B,)` float64 losses in nats, NaN for targets outside the vocabulary; None for a scorer
        without probabilities.

    Raises:
        ValueError: if a score is NaN.
    """
    scores = scorer.score(shown)
    target = torch.from_numpy(targets).to(scores.device)
    losses = None
    summaries = log_partition(scores) if scorer.gives_log_probabilities else scores.amax(1)
    refuse_diverged(summaries)
    if scorer.gives_log_probabilities:
        losses = (summaries - scores.gather(1, target[:, None])[:, 0]).double().cpu().numpy()
        losses[targets == UNK_ID] = np.nan
    pairs = None if seen is None else pairs_of(seen, scores.device)
    return rank_targets(scores, target, pairs, max(ks)), losses


def evaluate(
    scorer: Scorer,
    data: PreparedData,
    split: str = "test",
    ks: Sequence[int] = DEFAULT_KS,
    filter_seen: bool | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Evaluates one scorer.

    Args:
        split: "test" or "validation".
        ks: cut-offs.
        filter_seen: take items of the user's own history out of the ranking; None: see `PreparedData.filters_seen`.

    Returns:
        A report: `model`, `protocol` (all that is needed to repeat or compare), `metrics` (`hr@k`, `ndcg@k`, `mrr`,
        `coverage@k`, and `loss` in nats for models), `standard_errors` over users, `num_targets`,
        `num_targets_outside_vocabulary` (they count as missed and have no loss), `seconds`.

    Raises:
        ValueError: if a score is NaN, or a file of the data is not what was made (`PreparedData.verified`).
    """
    filter_seen = data.verified().filters_seen(filter_seen)
    totals = RankingTotals(ks, data.vocab_size)
    start = time.perf_counter()
    add_users(totals, scorer, data, split, filter_seen, progress=progress)
    return report(scorer.name, data, split, filter_seen, totals, time.perf_counter() - start)


def report(
    name: str, data: PreparedData, split: str, filter_seen: bool, totals: RankingTotals, seconds: float
) -> dict[str, Any]:
    """The report of `evaluate` from finished totals."""
    num_items = data.vocab_size - NUM_SPECIAL
    return {
        "model": name,
        "protocol": {
            "data": data.manifest["source"]["name"],
            "split": data.manifest["split"],
            "min_interactions": data.manifest["min_interactions"],
            "part": split,
            "ranking": "full",
            "num_items_ranked": num_items,
            "filter_seen": filter_seen,
            "ties": "against the model",
            "targets_outside_vocabulary": "counted as missed",
        },
        "num_targets": totals.count,
        "num_targets_outside_vocabulary": int(data.manifest["counts"][f"{split}_targets_outside_vocabulary"]),
        "metrics": totals.metrics(num_items),
        "standard_errors": totals.standard_errors(),
        "seconds": seconds,
    }


def protocol_line(report: dict[str, Any]) -> str:
    """The protocol of a report in one sentence."""
    protocol = report["protocol"]
    seen = "seen items removed" if protocol["filter_seen"] else "seen items kept"
    core = f"{protocol['min_interactions']}-core, " if protocol["min_interactions"] > 1 else ""
    return (
        f"{protocol['data']}, {core}{protocol['split']}, {protocol['part']}: full ranking over "
        f"{protocol['num_items_ranked']:,} items, {seen}, ties against the model, {report['num_targets']:,} targets "
        f"({report['num_targets_outside_vocabulary']:,} outside the vocabulary, counted as missed)"
    )


def table(
    reports: Sequence[dict[str, Any]], metrics: Sequence[str] = ("hr@10", "ndcg@10", "mrr", "coverage@10", "loss")
) -> str:
    """Reports of one protocol as a Markdown table under a line that states the protocol.

    Raises:
        ValueError: if the reports do not share one protocol: their numbers must not stand in one table.
    """
    if any(other["protocol"] != reports[0]["protocol"] for other in reports):
        raise ValueError("these reports have different protocols; make a table of each.")
    lines = [protocol_line(reports[0]), "", "| model | " + " | ".join(metrics) + " |"]
    lines.append("|---|" + "---|" * len(metrics))
    for one in reports:
        cells = [f"{one['metrics'][name]:.4f}" if name in one["metrics"] else "–" for name in metrics]
        lines.append(f"| {one['model']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
