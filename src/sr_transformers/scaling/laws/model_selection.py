"""Which form describes the points best: AICc, and the error on points that the fit has not seen.

AICc = 2 k + 2 P log(mean |r|) + 2 k (k + 1) / (P - k - 1), for residuals r of log L and k = Q + 1: the Huber loss with
its small delta is all but the likelihood of Laplace errors. The left-out error refits without
some groups of runs (a group: the seeds of one configuration) at a time, in 10 folds at most; `largest_error` leaves out
the largest N. Forms are compared on the same points only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sr_transformers.scaling.laws.fitting import fit
from sr_transformers.scaling.laws.forms import N, law_named
from sr_transformers.scaling.laws.points import Points


@dataclass
class Comparison:
    """One form on the points.

    Attributes:
        aicc: smaller is better, differences above about 4 count; nan where the points are too few.
        left_out_error: mean |log L - log loss| over groups left out, each once; nan if some refit was impossible.
        largest_error: the same at the largest N, fitted without it.
        note: why a number is missing.
    """

    law: str
    status: str
    objective: float
    aicc: float
    left_out_error: float
    largest_error: float
    note: str = ""


def compare(points: Points, laws: Sequence[str], starts: int = 4, seed: int = 0) -> list[Comparison]:
    """Fits every form to the same points; the best AICc first.

    A form that cannot be fitted is listed with the reason.

    Raises:
        ValueError: for the saturating form beside forms of the loss: they describe different columns.
    """
    if len({name == "saturating" for name in laws}) > 1:
        raise ValueError(
            f"the forms {', '.join(laws)} cannot be compared: saturating describes a metric, the others the loss."
        )
    found = []
    for name in laws:
        law = law_named(name)
        try:
            whole = fit(law, points, starts, seed)
        except ValueError as error:
            found.append(Comparison(name, "refused", np.nan, np.nan, np.nan, np.nan, str(error)))
            continue
        log_loss = np.log(points.values(law))
        mean = float(np.abs(law.bind(points.columns).log_loss(whole.theta)[0] - log_loss).mean())
        size, k = len(points), law.num_parameters + 1
        aicc, notes = np.nan, []
        if size - k - 1 < 1:
            notes.append(f"{size} points are too few for AICc with {k} parameters")
        else:
            aicc = 2 * k + 2 * size * np.log(max(mean, 1e-15)) + 2 * k * (k + 1) / (size - k - 1)
        left_out = [_error_without(points, fold, name, seed) for fold in _folds(points.groups, seed)]
        largest = np.nan
        if N in points.columns:
            largest = _error_without(points, points.columns[N] >= points.columns[N].max() * (1 - 1e-9), name, seed)
        if np.isnan(left_out).any():
            notes.append("without some groups the points are too few")
        found.append(
            Comparison(
                name, whole.status, whole.objective, float(aicc), float(np.mean(left_out)), largest, "; ".join(notes)
            )
        )
    return sorted(found, key=lambda one: (np.isnan(one.aicc), one.aicc))


def _folds(groups: np.ndarray, seed: int, most: int = 10) -> list[np.ndarray]:
    """Masks of the points left out together: whole groups, each in one fold."""
    names, index = np.unique(groups, return_inverse=True)
    fold = np.random.default_rng(seed).permutation(len(names)) % most
    return [fold[index] == one for one in range(min(most, len(names)))]


def _error_without(points: Points, left_out: np.ndarray, name: str, seed: int) -> float:
    law = law_named(name)
    try:
        rest = fit(law, points.take(~left_out), 2, seed)
    except ValueError:
        return float("nan")
    held = points.take(left_out)
    predicted = law.predict(rest.params, held.columns)
    values = 1.0 - predicted if name == "saturating" else predicted
    return float(np.abs(np.log(values) - np.log(held.values(law))).mean())
