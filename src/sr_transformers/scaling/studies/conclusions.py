"""What follows from fitted laws: whether a form is that of the runs, the floor, where compute is best spent, when more
epochs stop paying."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sr_transformers.records import RunRecord, read_json
from sr_transformers.scaling.laws.bootstrap import Bootstrap, interval
from sr_transformers.scaling.laws.fitting import BOUND_HIT, Fit
from sr_transformers.scaling.laws.forms import UNIQUE, D, N, law_named
from sr_transformers.scaling.laws.points import Points
from sr_transformers.scaling.laws.prediction import bottleneck, compute_optimal, epochs_worth

_MISFIT = 3.0  # times what runs differ by whose seed alone differs: larger residuals are the form's fault
_SPARE = 3  # repeated runs, for that spread to mean something


@dataclass
class Fitted:
    """A law on some of the runs: points, fit, bootstrap."""

    points: Points
    fitted: Fit
    refits: Bootstrap


def is_endless(fitted: Fit, name: str) -> bool:
    """Whether a fit ended with this parameter at its upper bound, and no other at one."""
    return fitted.status == BOUND_HIT and fitted.reason.startswith(f"{name} at its upper bound.")


def misfit(one: Fitted) -> dict[str, float] | None:
    """Relative residuals of a law, and the spread of runs whose seed alone differs, where the first are so much larger
    that the form is wrong; None where they are not, or too few runs are repeated to tell."""
    law = law_named(one.fitted.law)
    logs, groups = np.log(one.points.values(law)), one.points.groups
    names, place, count = np.unique(groups, return_inverse=True, return_counts=True)
    spare = len(groups) - len(names)
    if spare < _SPARE:
        return None
    rest = logs - (np.bincount(place, logs) / count)[place]
    spread = float(np.sqrt((rest**2).sum() / spare))
    if one.fitted.log_rmse <= _MISFIT * spread:
        return None
    return {"residuals": one.fitted.log_rmse, "seeds": spread}


def best_spent(joint: Fitted | None, records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """N and D for the compute of the costliest of the law's runs, for ten and a hundred times it, with as many passes
    over the data as these runs made in the middle.

    With the intervals of both, and how many times the most data measured D is: the law is an extrapolation there.
    """
    if joint is None:
        return []
    most = max(record.training_flops + record.head_flops for record in records)
    vocabulary = int(records[0].recipe["model"]["vocab_size"])
    measured = float(joint.points.columns[D].max())
    passes = float(np.median([record.epochs for record in records]))
    rows = []
    for flops in (most, 10 * most, 100 * most):
        best, *draws = (
            compute_optimal(params, flops, vocabulary, law=joint.fitted.law, passes=passes)
            for params in (joint.fitted.params, *joint.refits.rows())
        )
        intervals = {
            f"{name}_interval": interval(np.array([one[name] for one in draws])) if draws else None for name in (N, D)
        }
        rows.append({"flops": flops, "passes": passes, **best, **intervals, "times_measured_D": best[D] / measured})
    return rows


def bottleneck_of(joint: Fitted, n: float, d: float) -> dict[str, Any]:
    """`bottleneck` of a law of both, and the part of the refits that name the same; None without intervals."""
    law = joint.fitted.law
    found: dict[str, Any] = {N: n, D: d, **bottleneck(joint.fitted.params, n, d, law=law)}
    names = [bottleneck(params, n, d, law=law)["bottleneck"] for params in joint.refits.rows()]
    found["agreeing_draws"] = float(np.mean([name == found["bottleneck"] for name in names])) if names else None
    return found


def bottleneck_at_most(joint: Fitted | None) -> dict[str, Any] | None:
    """At the largest size and all of the data: what would gain more, twice the size or twice the data."""
    if joint is None:
        return None
    n, d = (float(joint.points.columns[name].max()) for name in (N, D))
    return bottleneck_of(joint, n, d)


def floor_held(path: Path, laws: dict[str, Fitted], of: Sequence[str]) -> dict[str, Any] | None:
    """The loss that no model can go below, where it is known, and whether the intervals of E of these laws hold it.

    The loss has a standard error too: an interval holds it if it meets 1.96 of them on either side.
    """
    if not path.is_file():
        return None
    known = read_json(path)
    loss, error = known["last_loss"], known["last_loss_error"]
    bounds = {
        name: between for name in of if name in laws and (between := laws[name].refits.intervals().get("E")) is not None
    }
    held = {name: bool(low - 1.96 * error <= loss <= high + 1.96 * error) for name, (low, high) in bounds.items()}
    return {"loss": loss, "standard_error": error, "fitted": bounds, "held": held}


def when_epochs_stop_paying(repeated: Fitted | None) -> list[dict[str, float]]:
    """For every size on the largest amount of distinct data: from which epoch on doubling gains less than 0.01 nats."""
    if repeated is None:
        return []
    unique = float(repeated.points.columns[UNIQUE].max())
    return [
        {"N": n, "unique": unique, **epochs_worth(repeated.fitted.params, n, unique)}
        for n in np.unique(repeated.points.columns[N]).tolist()
    ]
