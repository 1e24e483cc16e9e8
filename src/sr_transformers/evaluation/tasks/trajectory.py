"""User trajectory prediction: the next items of a user, not only the next one.

The last 10 interactions from all before (arXiv 2311.11351), in two ways: autoregressively, where the model's first
choice joins the history before it chooses again, and, as in the released code, the best items of one pass. Lists of
the first 1 .. horizon choices are compared with as many true items as sets; step by step, the true item is ranked after
the model's own choices so far.
"""

import numpy as np

from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.vocabulary import NUM_SPECIAL
from sr_transformers.evaluation.baselines import Scorer
from sr_transformers.evaluation.evaluator import known_past, rank_histories
from sr_transformers.evaluation.ranking import rows_of_scores
from sr_transformers.evaluation.tasks.exposure import list_popularity
from sr_transformers.evaluation.tasks.task import Group, NotRun, Outcome, Pass, Plan, TaskOptions

OWN, ONE_PASS, STEP = "autoregressive", "one pass", "step"
KEY = "trajectory"


def plan(data: PreparedData, options: TaskOptions) -> Plan | NotRun:
    """Needs users with at least `horizon` interactions after their test target (split "paper", or "temporal"): these
    are the last ones of the user, and training never saw them."""
    rows = data.targets("test")
    horizon = options.horizon
    rows = rows[data.lengths[rows[:, 0]] - 1 - rows[:, 1] >= horizon]
    if not len(rows):
        return NotRun(
            f"no user has {horizon} interactions after the test target; prepare the log with --split paper, or pass a "
            "shorter horizon (--horizon)."
        )
    groups = [
        Group(f"{way} {n}", KEY, f"{way} {n}", None, None if n == 1 else f"{way} 1", {"length": n})
        for way in (OWN, ONE_PASS, STEP)
        for n in range(1, horizon + 1)
    ]
    return Plan(
        f"The {horizon} interactions after the test target from all before them. 'autoregressive n' and 'one pass n': "
        "n choices against the first n true items as sets; 'step n': the rank of the n-th true item after the model's "
        "own first n - 1 choices.",
        (Pass(KEY, lambda scorer: _run(scorer, data, rows, options)),),
        tuple(groups),
        ("recall", options.headlines[0]),
        {"users_too_short": data.num_targets("test") - len(rows)},
    )


def _run(scorer: Scorer, data: PreparedData, rows: np.ndarray, options: TaskOptions) -> dict[str, Outcome]:
    """Every outcome, from one autoregressive pass; its first step is the one pass."""
    horizon, filter_seen = options.horizon, data.filters_seen(options.filter_seen)
    shape = (len(rows), horizon)
    truth = np.zeros(shape, np.int64)
    own, one_pass = np.full(shape, -1, np.int32), np.full(shape, -1, np.int32)
    ranks, losses = np.zeros(shape, np.int32), np.full(shape, np.nan, np.float32)
    order = np.argsort(rows[:, 1], kind="stable")
    size = rows_of_scores(data.vocab_size)
    for start in range(0, len(rows), size):
        index = order[start : start + size]
        pasts = [known_past(scorer, data, user, position + 1) for user, position in rows[index].tolist()]
        for row, (user, position) in zip(index, rows[index].tolist(), strict=True):
            truth[row] = data.items(user, position + 1 + horizon, position + 1)
        for step in range(horizon):
            seen = [past.items for past in pasts] if filter_seen else None
            # One more than needed: the true item stays in the ranking even where it was seen.
            ranking, loss = rank_histories(scorer, pasts, truth[index, step], seen, (horizon + 1,))
            ranks[index, step] = ranking.ranks
            if loss is not None:
                losses[index, step] = loss
            lists = ranking.top if seen is None else unseen_first(ranking.top, seen)
            if step == 0:
                width = min(horizon, lists.shape[1])
                one_pass[index, :width] = lists[:, :width]
            own[index, step] = lists[:, 0]
            pasts = [
                past.and_then(choice) if choice >= 0 else past
                for past, choice in zip(pasts, own[index, step], strict=True)
            ]
    found = {}
    users = rows[:, 0]
    for way, lists in ((OWN, own), (ONE_PASS, one_pass)):
        for n in range(1, horizon + 1):
            values = set_values(lists[:, :n], truth[:, :n])
            values[f"popularity@{n}"] = list_popularity(lists[:, :n], data.item_counts)
            found[f"{way} {n}"] = Outcome(users, lists[:, :n], values)
    for n in range(horizon):
        values = {"loss": losses[:, n]} if scorer.gives_log_probabilities else {}
        found[f"{STEP} {n + 1}"] = Outcome(users, own[:, n : n + 1], values, ranks[:, n])
    return found


def unseen_first(top: np.ndarray, seen: list[np.ndarray]) -> np.ndarray:
    """Lists without the items of the history, in their order, filled up with -1.

    Rankings keep the target even where it was seen. Choosing it would use knowledge of the truth.

    >>> unseen_first(np.array([[7, 5, 6], [4, 3, -1]]), [np.array([7, 2]), np.array([9])]).tolist()
    [[5, 6, -1], [4, 3, -1]]
    """
    kept = np.full_like(top, -1)
    for row, (tokens, history) in enumerate(zip(top, seen, strict=True)):
        fresh = tokens[(tokens >= NUM_SPECIAL) & ~np.isin(tokens, history)]
        kept[row, : len(fresh)] = fresh
    return kept


def set_values(lists: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Per-user metrics of lists as sets, float32.

    Args:
        lists: `(M, n)` chosen tokens, -1 is none.
        truth: `(M, n)` true tokens; `UNK_ID` is never matched.

    Returns:
        `recall`: matched choices / n (so it is the precision too); an item that occurs twice is matched at most as
        often as it is true. `set_ndcg`: sum over matched places p of 1 / log2(p + 1), over its maximum.

    >>> values = set_values(np.array([[5, 4, 5]]), np.array([[4, 5, 6]]))
    >>> float(values["recall"][0]).__round__(4)
    0.6667
    """
    n = lists.shape[1]
    same = lists[:, :, None] == lists[:, None, :]
    occurrence = (same & np.tri(n, dtype=bool)).sum(2)  # the how-manieth of its kind each choice is
    available = ((lists[:, :, None] == truth[:, None, :]) & (lists >= NUM_SPECIAL)[:, :, None]).sum(2)
    matched = occurrence <= available
    gains = 1 / np.log2(np.arange(n) + 2)
    found = {"recall": matched.mean(1), "set_ndcg": matched @ gains / gains.sum()}
    return {name: value.astype(np.float32) for name, value in found.items()}
