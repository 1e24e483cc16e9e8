"""Passes that end in a ranking of one target per user; tasks differ in what the scorer is shown."""

from collections.abc import Callable

import numpy as np

from sr_transformers.data.past_inputs import Past
from sr_transformers.data.prepared import PreparedData
from sr_transformers.evaluation.baselines import Scorer
from sr_transformers.evaluation.evaluator import known_past, rank_histories, target_tokens
from sr_transformers.evaluation.ranking import rows_of_scores
from sr_transformers.evaluation.tasks.exposure import list_popularity
from sr_transformers.evaluation.tasks.task import Outcome, Pass, TaskOptions

TEST = "test"

# From (row of the user, known past before the target) to what the scorer reads.
Shown = Callable[[int, Past], Past]


def test_pass(data: PreparedData, options: TaskOptions) -> Pass:
    """The plain ranking of all test targets. Overall, long-tail, cold-items, multi-domain and time-drift results are
    cuts of this one pass, and robustness compares with it."""
    return ranking_pass(TEST, data, data.targets("test"), options)


def ranking_pass(
    key: str, data: PreparedData, rows: np.ndarray, options: TaskOptions, shown: Shown | None = None
) -> Pass:
    """A pass with one condition, named like the pass.

    Args:
        rows: `(M, 2)` (row of the user, position of the target), each user once.
        shown: what the scorer reads instead of the whole history. Whatever it reads, the items removed from the
            ranking (`filter_seen`) are those of the true history: the candidates are the same under every condition.
    """
    return Pass(key, lambda scorer: {key: _rank(scorer, data, rows, options, shown)})


def _rank(scorer: Scorer, data: PreparedData, rows: np.ndarray, options: TaskOptions, shown: Shown | None) -> Outcome:
    cut_offs = (options.list_length,)
    filter_seen = data.filters_seen(options.filter_seen)
    targets = target_tokens(data, rows)
    ranks = np.zeros(len(rows), np.int32)
    values = {"loss": np.full(len(rows), np.nan, np.float32)} if scorer.gives_log_probabilities else {}
    top = np.full((len(rows), options.list_length), -1, np.int32)
    order = np.argsort(rows[:, 1], kind="stable")  # users of like length side by side: a model pads less
    size = rows_of_scores(data.vocab_size)
    for start in range(0, len(rows), size):
        index = order[start : start + size]
        read = known = [known_past(scorer, data, user, position) for user, position in rows[index].tolist()]
        if shown is not None:
            read = [shown(user, past) for user, past in zip(rows[index, 0].tolist(), known, strict=True)]
        seen = [past.items for past in known] if filter_seen else None
        ranking, loss = rank_histories(scorer, read, targets[index], seen, cut_offs)
        ranks[index] = ranking.ranks
        top[index, : ranking.top.shape[1]] = ranking.top
        if loss is not None:
            values["loss"][index] = loss
    values[f"popularity@{options.list_length}"] = list_popularity(top, data.item_counts)
    return Outcome(rows[:, 0], top, values, ranks)
