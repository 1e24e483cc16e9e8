"""What the runs of a study say by themselves, without any law: means by size and data, and gains per doubling."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from sr_transformers.data.fractions import USERS
from sr_transformers.scaling.laws.records_table import schedule_of
from sr_transformers.scaling.studies.analysis import METRICS, StudyRun, losses_of


def means(runs: Sequence[StudyRun], epochs: float | None) -> list[dict[str, Any]]:
    """Means over seeds of the runs on fractions of the users for so many epochs (`schedule_of`), by fraction and size.

    Returns:
        A dictionary each: fraction, N, D, runs, loss, loss_standard_deviation (None for one run), and the metrics.
    """
    groups: dict[tuple[float, int], list[StudyRun]] = defaultdict(list)
    for run in runs:
        if run.plan["in_law"] and run.plan["of"] == USERS and schedule_of(run.plan) == epochs:
            groups[run.plan["fraction"], run.record.num_non_embedding_parameters].append(run)
    rows = []
    for (fraction, n), members in sorted(groups.items()):
        rows.append(
            {
                "fraction": fraction,
                "N": n,
                "D": float(np.mean([run.record.num_train_interactions for run in members])),
                "runs": len(members),
                **losses_of(members),
                **{name: float(np.mean([run.metric(name) for run in members])) for name in METRICS},
            }
        )
    return rows


def best_sizes(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For every fraction with several sizes, the most data first: the size of the lowest loss, and the sizes tried."""
    found = []
    for fraction in sorted({row["fraction"] for row in rows}, reverse=True):
        there = [row for row in rows if row["fraction"] == fraction]
        if len(there) > 1:
            best = min(there, key=lambda row: row["loss"])
            found.append({**best, "sizes": len(there), "smallest": there[0]["N"], "largest": there[-1]["N"]})
    return found


def per_doubling(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any] | None]:
    """Nats gained per doubling of the data and of the size, between the ends of what was measured.

    Data: at the best size of those measured on the most and the least data. Size: on the most data that several sizes
    were measured on. Each with the standard error that the spread of seeds gives it; None where nothing was varied.
    """
    spread = seed_spread(rows)
    least, most = min(row["fraction"] for row in rows), max(row["fraction"] for row in rows)
    ends = {
        n: [row for row in rows if row["N"] == n and row["fraction"] in (least, most)] for n in {r["N"] for r in rows}
    }
    whole = [pair for pair in ends.values() if len(pair) == 2]
    data = min(whole, key=lambda pair: pair[1]["loss"]) if whole else None
    best = best_sizes(rows)
    sizes = [row for row in rows if best and row["fraction"] == best[0]["fraction"]]
    return {
        "data": _gain(data[0], data[1], "D", spread) if data else None,
        "size": _gain(sizes[0], sizes[-1], "N", spread) if sizes else None,
    }


def seed_spread(rows: Sequence[dict[str, Any]]) -> float | None:
    """Standard deviation of the loss between seeds, pooled; None if nothing was repeated."""
    repeated = [row for row in rows if row["runs"] > 1]
    if not repeated:
        return None
    weights = [row["runs"] - 1 for row in repeated]
    return float(np.sqrt(np.average([row["loss_standard_deviation"] ** 2 for row in repeated], weights=weights)))


def difference(low: dict[str, Any], high: dict[str, Any], spread: float | None) -> tuple[float, float | None]:
    """Nats between two rows of `means`, and the standard error that the spread of seeds gives them."""
    error = None if spread is None else float(spread * np.sqrt(1 / low["runs"] + 1 / high["runs"]))
    return low["loss"] - high["loss"], error


def _gain(low: dict[str, Any], high: dict[str, Any], what: str, spread: float | None) -> dict[str, Any]:
    doublings = float(np.log2(high[what] / low[what]))
    nats, error = difference(low, high, spread)
    return {
        "nats": nats / doublings,
        "standard_error": None if error is None else error / doublings,
        "from": {name: low[name] for name in ("fraction", "N", "D", "loss")},
        "to": {name: high[name] for name in ("fraction", "N", "D", "loss")},
    }
