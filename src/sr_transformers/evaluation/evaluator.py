"""Evaluates scorers on a prepared log by full ranking, in batches: memory does not grow with the number of users."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from sr_transformers.data.past_inputs import Past
from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.protocols import ITEM
from sr_transformers.data.vocabulary import NUM_SPECIAL, UNK_ID
from sr_transformers.evaluation.baselines import Scorer
from sr_transformers.evaluation.divided import log_partition_of, rank_targets_of, scores_at
from sr_transformers.evaluation.metrics import DEFAULT_KS, MISSED, RankingTotals
from sr_transformers.evaluation.protocol import protocol_line, protocol_of, seen_choice
from sr_transformers.evaluation.ranking import Ranking, pairs_of, rank_targets, rows_of_scores
from sr_transformers.fingerprints import refuse_mixed
from sr_transformers.lsrm.scoring_lsrm import refuse_diverged

_BLOCK = 1 << 16  # targets looked at a time


class Kept:
    """What became of each target.

    Args:
        num_targets: M.

    Attributes:
        ranks: `(M,)` int64, `metrics.MISSED` for a target without one.
        losses: `(M,)` float64 in nats, NaN for a target without a rank and for a scorer without probabilities.
    """

    def __init__(self, num_targets: int):
        self.ranks, self.losses = np.zeros(num_targets, np.int64), np.full(num_targets, np.nan)


def add_users(
    totals: RankingTotals,
    scorer: Scorer,
    data: PreparedData,
    split: str,
    filter_seen: bool,
    shard: tuple[int, int] = (0, 1),
    progress: bool = False,
    kept: Kept | None = None,
) -> None:
    """Ranks the targets of a split and adds them to `totals`.

    Items outside the vocabulary are left out of the histories that the scorer sees: no scorer knows them.

    Args:
        split: "test" or "validation".
        filter_seen: take the items of a user's own history out of the ranking.
        shard: (i, n): only every n-th target, from the i-th on; for n processes that share the work.
        kept: filled in for every target that is ranked here; None: nothing is kept.

    Raises:
        ValueError: as `check_scorer`, and for a split without targets.
    """
    check_scorer(scorer, data)
    if not data.num_targets(split):
        raise ValueError(
            f"{data.path} has no {split} targets; evaluate on another part, or prepare the log with another split."
        )
    batch_size = rows_of_scores(data.vocab_size)
    index, count = shard
    bar = tqdm(
        total=data.num_targets(split), desc=f"rank {scorer.name}", disable=None if progress else True, leave=False
    )
    for start in range(0, data.num_targets(split), _BLOCK):
        block = data.targets(split, start, start + _BLOCK)[index::count]
        # Users of like length side by side: a model pads less.
        order = np.argsort(block[:, 1], kind="stable")
        for first in range(0, len(block), batch_size):
            places = order[first : first + batch_size]
            rows = block[places]
            ranks, losses = _add_batch(totals, scorer, data, rows, filter_seen)
            if kept is not None:
                where = start + index + count * places
                kept.ranks[where], kept.losses[where] = ranks, np.nan if losses is None else losses
            bar.update(len(rows) * count)
    bar.close()


def num_batches(data: PreparedData, split: str, shard: tuple[int, int]) -> int:
    """How many batches `add_users` has the scorer score: for the first of n processes never fewer than for another."""
    (index, count), total = shard, data.num_targets(split)
    blocks = (len(range(start + index, min(start + _BLOCK, total), count)) for start in range(0, total, _BLOCK))
    return sum(-(-block // rows_of_scores(data.vocab_size)) for block in blocks)


def check_scorer(scorer: Scorer, data: PreparedData) -> None:
    """Refuses a scorer whose tokens stand for other items than the log's.

    Raises:
        ValueError: if it says so (`items_fingerprint`), or has scores of more or fewer tokens (`num_tokens`); one that
            says nothing passes.
    """
    known = getattr(scorer, "items_fingerprint", None)
    if known is not None and known != data.items_fingerprint:
        raise ValueError(
            f"{scorer.name} was made of other items than those of {data.path}, or of the same in another order: its "
            "scores would be read as those of other items. Use the log it was made of; `evaluation.translation` opens "
            "a checkpoint so that it is read by raw id."
        )
    tokens = getattr(scorer, "num_tokens", data.vocab_size)
    if tokens != data.vocab_size:
        raise ValueError(
            f"{scorer.name} scores {tokens:,} tokens and {data.path} has {data.vocab_size:,}: build the model with "
            f"vocab_size {data.vocab_size} for this log; where its table has more rows only to fill it up, set "
            f"num_items to {data.vocab_size - NUM_SPECIAL} in its configuration."
        )


def _add_batch(
    totals: RankingTotals, scorer: Scorer, data: PreparedData, rows: np.ndarray, filter_seen: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    known = [known_past(scorer, data, history, position) for history, position in rows.tolist()]
    seen = [past.items for past in known] if filter_seen else None
    ranking, losses = rank_histories(scorer, known, target_tokens(data, rows), seen, totals.ks)
    totals.add(ranking.ranks, None if losses is None else losses[~np.isnan(losses)], ranking.top)
    return ranking.ranks, losses


def known_past(scorer: Scorer, data: PreparedData, history: int, stop: int) -> Past:
    """The first `stop` interactions of a history, less those with items outside the vocabulary; with their moments for
    a scorer that reads them, and that of the target for one that is told when it is asked (`query_time`)."""
    items = data.items(history, stop)
    known = items != UNK_ID
    if not getattr(scorer, "needs_times", False):
        return Past(items[known])
    asked = int(getattr(scorer, "query_time", False))
    times = data.timestamps(history, stop + asked)
    return Past(items[known], times[np.concatenate([known, np.ones(asked, bool)])])


def target_tokens(data: PreparedData, rows: np.ndarray) -> np.ndarray:
    """`(M,)` int64 tokens at the rows (history, position); `UNK_ID` for those outside the vocabulary."""
    return np.array([data.items(history, position + 1, position)[0] for history, position in rows.tolist()], np.int64)


def scores_of(scorer: Scorer, shown: Sequence[Past], here: bool = False) -> torch.Tensor:
    """`(B, V)` scores of what is shown, with moments for a scorer that reads them; here: those that are here alone,
    of a model whose item table is divided (`ModelScorer.part`)."""
    times = {}
    if getattr(scorer, "needs_times", False):
        times = {"times": [past.times for past in shown]}
    score = getattr(scorer, "score_here", scorer.score) if here else scorer.score
    return score([past.items for past in shown], **times)


def rank_histories(
    scorer: Scorer,
    shown: Sequence[Past],
    targets: np.ndarray,
    seen: Sequence[np.ndarray] | None,
    ks: Sequence[int],
) -> tuple[Ranking, np.ndarray | None]:
    """Ranks one batch of B targets; the only way from a scorer to ranks.

    Args:
        shown: what the scorer reads of each user.
        targets: `(B,)` int64 tokens.
        seen: tokens to take out of each user's ranking, or None.
        ks: cut-offs; the largest says how many tokens `Ranking.top` lists.

    Returns:
        The ranking, and `(B,)` float64 losses in nats, NaN for targets that are missed; None for a scorer without
        probabilities.

    Raises:
        ValueError: if a score is NaN.
    """
    part = getattr(scorer, "part", None)
    scores = scores_of(scorer, shown, here=True)
    target = torch.from_numpy(targets).to(scores.device)
    losses = None
    summaries = log_partition_of(scores, part) if scorer.gives_log_probabilities else scores.amax(1)
    refuse_diverged(summaries)
    if scorer.gives_log_probabilities:
        losses = (summaries - scores_at(scores, target[:, None], part)[:, 0]).double().cpu().numpy()
    pairs = None if seen is None else pairs_of(seen, scores.device)
    if part is None:
        ranking = rank_targets(scores, target, pairs, max(ks))
    else:
        ranking = rank_targets_of(scores, target, pairs, max(ks), part)
    if losses is not None:
        losses[ranking.ranks == MISSED] = np.nan
    return ranking, losses


def evaluate(
    scorer: Scorer,
    data: PreparedData,
    split: str = "test",
    ks: Sequence[int] = DEFAULT_KS,
    filter_seen: bool | None = None,
    progress: bool = False,
    kept: Kept | None = None,
) -> dict[str, Any]:
    """Evaluates one scorer.

    Args:
        split: "test" or "validation".
        ks: cut-offs.
        filter_seen: take items of the user's own history out of the ranking; None: see `seen_choice`.
        kept: filled in, see `add_users`.

    Returns:
        A report: `model`, `protocol` (all that is needed to repeat or compare), `metrics` (`hr@k`, `ndcg@k`, `mrr`,
        `coverage@k`, and `loss` in nats for scorers with probabilities), `standard_errors` over users, `num_targets`,
        `num_targets_outside_vocabulary` (they count as missed and have no loss), `seconds`; for a baseline with
        settings of its own also `fitted`, what they are; for a model of other items (`translation.TranslatedScorer`)
        also `translated`.

    Raises:
        ValueError: if a score is NaN, a file of the data is not what was made (`PreparedData.verified`), or as
            `check_scorer`.
    """
    filter_seen = seen_choice(filter_seen, [getattr(scorer, "filter_seen", None)], data.verified())
    totals = RankingTotals(ks, data.vocab_size)
    start = time.perf_counter()
    add_users(totals, scorer, data, split, filter_seen, progress=progress, kept=kept)
    query_time = getattr(scorer, "query_time", False)
    found = report(scorer.name, data, split, filter_seen, totals, time.perf_counter() - start, query_time)
    return found | facts_of(scorer)


def report(
    name: str,
    data: PreparedData,
    split: str,
    filter_seen: bool,
    totals: RankingTotals,
    seconds: float,
    query_time: bool = False,
) -> dict[str, Any]:
    """The report of `evaluate` from finished totals; query_time: see `protocol_of`."""
    num_items = data.vocab_size - NUM_SPECIAL
    return {
        "model": name,
        "protocol": protocol_of(data, split, filter_seen, query_time=query_time),
        "num_targets": totals.count,
        "num_targets_outside_vocabulary": totals.num_missed,
        "metrics": totals.metrics(num_items),
        "standard_errors": totals.standard_errors(),
        "seconds": seconds,
    }


def facts_of(scorer: Scorer) -> dict[str, Any]:
    """What a scorer says of itself for its reports: how it was translated, on what else it was trained, what was
    fitted."""
    return {name: getattr(scorer, name) for name in ("translated", "trained_on", "fitted") if hasattr(scorer, name)}


def table(
    reports: Sequence[dict[str, Any]], metrics: Sequence[str] = ("hr@10", "ndcg@10", "mrr", "coverage@10", "loss")
) -> str:
    """Reports of one protocol as a Markdown table under a line that states the protocol.

    Raises:
        ValueError: if the reports do not share one protocol, naming what differs.
    """
    refuse_mixed((one["model"], one["protocol"]) for one in reports)
    of_the_log = next((one for one in reports if "translated" not in one), reports[0])
    lines = [protocol_line(of_the_log), "", "| model | " + " | ".join(metrics) + " |"]
    lines.append("|---|" + "---|" * len(metrics))
    for one in reports:
        cells = [f"{one['metrics'][name]:.4f}" if name in one["metrics"] else "–" for name in metrics]
        lines.append(f"| {one['model']} | " + " | ".join(cells) + " |")
    lines += ["\n" + against_mix(one) for one in reports if "against_mix" in one]
    lines += [_translation(one) for one in reports if "translated" in one]
    lines += [_trained_on(one) for one in reports if "trained_on" in one]
    return "\n".join(lines)


def against_mix(report: dict[str, Any]) -> str:
    """A model less the best that counting does, user by user, in one sentence; of a report that has `against_mix`."""
    found = [
        f"{metric} {one['difference']:+.4f} ± {one['standard_error']:.4f}"
        for metric, one in report["against_mix"].items()
    ]
    return f"{report['model']} less mix, paired, ± standard error over users: {', '.join(found)}."


def _trained_on(report: dict[str, Any]) -> str:
    """What a reader must know of a model that was trained on other interactions."""
    there = report["trained_on"]
    return (
        f"\n{report['model']} was trained on another prepared log ({there['data']}, split {there['split']}, "
        f"{there['interactions']:,} interactions). If these hold what is a target here, its numbers say nothing."
    )


def _translation(report: dict[str, Any]) -> str:
    """What a reader must know of a model with another list of items."""
    known = report["translated"]
    text = (
        f"\n{report['model']} has another list of items and is read by raw id: it knows {known['items_known']:,} of "
        f"the {known['items']:,} items; "
    )
    if report["protocol"]["target"] != ITEM:
        return text + "the others among the targets are missed."
    return (
        f"{text}{report['num_targets_outside_vocabulary']:,} of {report['num_targets']:,} targets are outside its "
        "vocabulary or the log's: missed, and without loss."
    )
