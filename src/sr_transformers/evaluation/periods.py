"""All that a user does in a period of a global time split, from one ranking made at its beginning.

The other usual question after a cut in time, beside the next item ("all" among the ways to choose targets in "Time to
Split", RecSys 2025, arXiv 2507.16289; the practice of RecTools and of the eSASRec benchmark): the items of the
period are looked for in one ranking, with the metrics of `baskets`. Users without an interaction before the period are
left out, and of the targets, items outside the vocabulary and, where rankings leave seen items out, seen ones; all of
them are counted.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sr_transformers.data import splits
from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.protocols import PERIOD
from sr_transformers.evaluation.baselines import Scorer
from sr_transformers.evaluation.baskets import evaluate_sets
from sr_transformers.evaluation.metrics import DEFAULT_KS


def whole_periods(data: PreparedData, split: str) -> tuple[np.ndarray, int]:
    """What users with a past do in a period.

    Args:
        split: "test" or "validation".

    Returns:
        `(M, 3)` int64 rows (history, position of the first interaction in the period, position after the last), and how
        many users with a target were left out because they have no interaction before the period.

    Raises:
        ValueError: if the split has no periods that are the same for all users.
    """
    if data.manifest["split"] != splits.TEMPORAL:
        raise ValueError(
            f"{data.path} has the split {data.manifest['split']}, whose users have no period in common; prepare the "
            "log with --split temporal, or leave out --target period."
        )
    counts = data.manifest["counts"]
    begins, ends = (counts["validation_from"], counts["test_from"]) if split == "validation" else (
        counts["test_from"], None)  # fmt: skip
    firsts = np.array([data.timestamps(history, 1)[0] for history in range(len(data))])
    without_past = int(((firsts >= begins) & (ends is None or firsts < ends)).sum())
    found = []
    for history, position in data.targets(split).tolist():
        if firsts[history] >= begins:
            continue
        times = data.timestamps(history, int(data.lengths[history]))
        after = len(times) if ends is None else int(np.searchsorted(times, ends, "left"))
        found.append((history, position, after))
    if not found:
        raise ValueError(
            f"{data.path}: no user with interactions in the period of {split} has one before it; let {split} "
            "begin later when you prepare the log."
        )
    return np.array(found, np.int64).reshape(-1, 3), without_past


def evaluate_periods(
    scorer: Scorer,
    data: PreparedData,
    split: str = "test",
    ks: Sequence[int] = DEFAULT_KS,
    filter_seen: bool | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Evaluates one scorer on whole periods.

    Args:
        split, ks, filter_seen, progress: as `evaluator.evaluate`.

    Returns:
        A report as `baskets.evaluate_baskets` makes it, with `num_items_seen_left_out` and `num_users_without_past`.
        `num_targets` are users that have a target left.

    Raises:
        ValueError: as `whole_periods` and `baskets.evaluate_sets`.
    """
    periods, without_past = whole_periods(data.verified(), split)
    found = evaluate_sets(scorer, data, split, PERIOD, periods, ks, filter_seen, progress)
    return {**found, "num_users_without_past": without_past}
