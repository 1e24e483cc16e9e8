"""The whole next basket instead of the next item: what a user takes at one moment, from all before that moment.

A basket is all interactions of a user at one moment. Their order within it is an accident of the file, and to predict
its last item from the others is easy; so a scorer is shown nothing of the basket, ranks all items once, and the items
of the basket are looked for in that ranking:

    HR@k     = 1 if a basket item is among the first k, else 0
    recall@k = basket items among the first k / items of the basket
    NDCG@k   = sum over basket items at ranks r <= k of 1 / log2(r + 1), over that of the best possible ranking

each a mean over users. The same of the part of the basket that the user had before (`repeated_`) and of the part that
is new to the user (`new_`), over the users who have such items, apart: to repeat is far easier than to find.
Ties count against the scorer. Items outside the vocabulary are part of the basket and never found.
"""

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.protocols import BASKET, PERIOD
from sr_transformers.data.vocabulary import NUM_SPECIAL, UNK_ID
from sr_transformers.evaluation.baselines import Scorer
from sr_transformers.evaluation.evaluator import check_scorer, facts_of, known_past, scores_of
from sr_transformers.evaluation.metrics import DEFAULT_KS
from sr_transformers.evaluation.protocol import protocol_of, seen_choice
from sr_transformers.evaluation.ranking import pairs_of, rows_of_scores
from sr_transformers.lsrm.scoring_lsrm import refuse_diverged, top_k_items

PARTS = ("", "repeated_", "new_")
METRICS = ("hr", "recall", "ndcg")


def next_baskets(data: PreparedData, split: str) -> tuple[np.ndarray, int]:
    """The baskets that the targets of a split lie in.

    Args:
        split: "test" or "validation".

    Returns:
        `(M, 3)` int64 rows (history, position of the basket's first interaction, position after its last), and how many
        targets were left out because nothing lies before their basket.

    Raises:
        ValueError: if the training data hold a part of a basket, which a model that was trained on it knows; if no
            two interactions of a basket share a moment, so that there are no baskets.
    """
    found, without_past, known = [], 0, 0
    for history, position in data.targets(split).tolist():
        times = data.timestamps(history, int(data.lengths[history]))
        first, after = (int(np.searchsorted(times, times[position], side)) for side in ("left", "right"))
        known += first < data.train_lengths[history]
        if first:
            found.append((history, first, after))
        else:
            without_past += 1
    if known:
        raise ValueError(
            f"of {known:,} of the {data.num_targets(split):,} {split} baskets of {data.path} a part is training data "
            f"(split {data.manifest['split']}): models have seen what they are to predict. Prepare the log with "
            "--split last_basket or --split temporal, which hold out whole baskets."
        )
    baskets = np.array(found, np.int64).reshape(-1, 3)
    if len(baskets) and not (baskets[:, 2] - baskets[:, 1] > 1).any():
        raise ValueError(
            f"{data.path} has no baskets: no {split} target shares its moment with another interaction of its user, so "
            "that the whole next basket is the next item. Leave out --target basket."
        )
    return baskets, without_past


def evaluate_baskets(
    scorer: Scorer,
    data: PreparedData,
    split: str = "test",
    ks: Sequence[int] = DEFAULT_KS,
    filter_seen: bool | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Evaluates one scorer on whole next baskets.

    Args:
        split, ks, progress: as `evaluator.evaluate`.
        filter_seen: take items of the user's own history out of the ranking, those of the basket too: repeated ones are
            then never found. None: see `seen_choice`.

    Returns:
        A report as `evaluator.evaluate` makes it, of the metrics `hr@k`, `recall@k` and `ndcg@k`, plain and with
        `repeated_` and `new_` before their names (left out where no basket has such items). `num_targets` are baskets;
        `num_users` with items of each part ("all", "repeated", "new"), `num_items` likewise,
        `num_items_outside_vocabulary`, and `num_baskets_without_past`, which were left out.

    Raises:
        ValueError: as `next_baskets` and `evaluator.evaluate`; if no basket has anything before it.
    """
    baskets, without_past = next_baskets(data.verified(), split)
    if not len(baskets):
        raise ValueError(f"{data.path}: no {split} basket has an interaction of its user before it.")
    found = evaluate_sets(scorer, data, split, BASKET, baskets, ks, filter_seen, progress)
    return {**found, "num_baskets_without_past": without_past}


def evaluate_sets(
    scorer: Scorer,
    data: PreparedData,
    split: str,
    target: str,
    sets: np.ndarray,
    ks: Sequence[int],
    filter_seen: bool | None,
    progress: bool,
) -> dict[str, Any]:
    """Evaluates one scorer on sets of items, each looked for in one ranking made before the first of them.

    Args:
        target: `BASKET`: items that no ranking can hold count as missed; `PERIOD`: they are left out of the sets.
        sets: `(M, 3)` int64 rows (history, position of the first interaction, position after the last).

    Returns:
        The report of `evaluate_baskets` less `num_baskets_without_past`; of periods with `num_items_seen_left_out`.

    Raises:
        ValueError: as `evaluator.evaluate`; if no set has an item that a ranking can hold.
    """
    filter_seen = seen_choice(filter_seen, [getattr(scorer, "filter_seen", None)], data)
    check_scorer(scorer, data)
    start = time.perf_counter()
    totals = _Totals(ks, target == PERIOD)
    size = rows_of_scores(data.vocab_size)
    order = np.argsort(sets[:, 1], kind="stable")  # users of like length side by side: a model pads less
    bar = tqdm(total=len(sets), desc=f"{target}s {scorer.name}", disable=None if progress else True, leave=False)
    for first in range(0, len(sets), size):
        rows = sets[order[first : first + size]]
        _add_batch(totals, scorer, data, rows, filter_seen)
        bar.update(len(rows))
    bar.close()
    if not totals.num_users:
        raise ValueError(
            f"{data.path}: of no user's {target} ({split}) is any item in the vocabulary"
            f"{' and new to the user' if filter_seen else ''}: there is nothing to find."
        )
    found = {
        "model": scorer.name,
        "protocol": protocol_of(data, split, filter_seen, target, getattr(scorer, "query_time", False)),
        "num_targets": totals.num_users,
        **totals.counts(),
        **totals.means(),
        "seconds": time.perf_counter() - start,
    }
    return found | facts_of(scorer)


def _add_batch(totals: "_Totals", scorer: Scorer, data: PreparedData, rows: np.ndarray, filter_seen: bool) -> None:
    pasts = [known_past(scorer, data, history, first) for history, first, _ in rows.tolist()]
    scores = scores_of(scorer, pasts)
    refuse_diverged(scores.amax(1))
    if filter_seen:
        scores[pairs_of([past.items for past in pasts], scores.device)] = -torch.inf
    scores[:, :NUM_SPECIAL] = -torch.inf
    # One more than is asked for: an item has as many at its score or above as there are among these, or more than k.
    best = top_k_items(scores, min(max(totals.ks) + 1, scores.shape[1]))[0]
    for row, (history, first, after) in enumerate(rows.tolist()):
        items = data.items(history, after, first)
        known = np.unique(items[items != UNK_ID]).astype(np.int64)
        past = data.items(history, first)
        repeated, seen = np.isin(known, past), 0
        if totals.leave_out and filter_seen:
            known, repeated, seen = known[~repeated], repeated[~repeated], int(repeated.sum())
        of_items = scores[row, torch.from_numpy(known).to(scores.device)]
        ranks = (best[row] >= of_items[:, None]).sum(1).double()
        ranks[of_items == -torch.inf] = torch.inf
        outside = int((items == UNK_ID).sum())
        totals.add(ranks.cpu().numpy(), repeated, outside, seen)


class _Totals:
    """Sums over users of the metrics of every part of their sets.

    Args:
        leave_out: items outside the vocabulary, and seen ones where rankings lack them, are no part of the sets.
    """

    def __init__(self, ks: Sequence[int], leave_out: bool = False):
        self.ks, self.leave_out = tuple(dict.fromkeys(ks)), leave_out
        names = [f"{part}{metric}@{k}" for part in PARTS for k in self.ks for metric in METRICS]
        self._sums = {name: np.zeros(2) for name in names}  # of values and of their squares
        self._users, self._items = dict.fromkeys(PARTS, 0), dict.fromkeys(PARTS, 0)
        self._outside = self._seen = 0

    @property
    def num_users(self) -> int:
        """How many have a set with an item in it."""
        return self._users[""]

    def add(self, ranks: np.ndarray, repeated: np.ndarray, outside: int, seen: int) -> None:
        """Adds a set.

        Args:
            ranks: `(I,)` float64 of its known items.
            repeated: `(I,)` bool: which of them the user had before.
            outside: how many more interactions it has with items that the vocabulary lacks; they count as new.
            seen: how many items were left out because the ranking lacks them.
        """
        self._outside += outside
        self._seen += seen
        outside = 0 if self.leave_out else outside
        parts = zip(PARTS, (np.ones_like(repeated), repeated, ~repeated), (outside, 0, outside), strict=True)
        for part, inside, missed in parts:
            count = int(inside.sum()) + missed
            if not count:
                continue
            self._users[part] += 1
            self._items[part] += count
            for k in self.ks:
                found = ranks[inside & (ranks <= k)]
                ideal = (1 / np.log2(np.arange(min(count, k)) + 2)).sum()
                recall, ndcg = len(found) / count, (1 / np.log2(found + 1)).sum() / ideal
                self._sums[f"{part}hr@{k}"] += float(len(found) > 0)
                self._sums[f"{part}recall@{k}"] += recall, recall**2
                self._sums[f"{part}ndcg@{k}"] += ndcg, ndcg**2

    def counts(self) -> dict[str, Any]:
        """Users and items by part."""
        names = [part.rstrip("_") or "all" for part in PARTS]
        return {
            "num_users": dict(zip(names, self._users.values(), strict=True)),
            "num_items": dict(zip(names, self._items.values(), strict=True)),
            "num_items_outside_vocabulary": self._outside,
            **({"num_items_seen_left_out": self._seen} if self.leave_out else {}),
        }

    def means(self) -> dict[str, dict[str, float]]:
        """Means over users with their standard errors, nan for a single user."""
        means, errors = {}, {}
        for part in PARTS:
            count = self._users[part]
            for name in [f"{part}{metric}@{k}" for k in self.ks for metric in METRICS] if count else []:
                mean, square = self._sums[name] / count
                means[name] = float(mean)
                errors[name] = math.sqrt(max(square - mean**2, 0) / (count - 1)) if count > 1 else math.nan
        return {"metrics": means, "standard_errors": errors}
