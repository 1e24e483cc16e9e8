"""Fits as JSON: what `scaling fit` writes and `scaling predict` reads. Never a NaN in it: what is missing is null."""

import json
import math
from pathlib import Path
from typing import Any

from sr_transformers.scaling.laws.bootstrap import LEVEL, Bootstrap
from sr_transformers.scaling.laws.fitting import Fit
from sr_transformers.scaling.laws.forms import law_named
from sr_transformers.scaling.laws.model_selection import Comparison
from sr_transformers.scaling.laws.points import Points


def describe_fit(
    fitted: Fit, points: Points, refits: Bootstrap, comparison: list[Comparison] | None = None, level: float = LEVEL
) -> dict[str, Any]:
    """A fit with everything needed to judge it.

    Returns:
        law, quantity (loss, or the metric), formula, params, intervals (by parameter: [low, high] or null),
        no_intervals (the reason, or null), objective, status, reason, num_points, num_parameters, fixed, tied,
        log_rmse, starts, starts_agreeing, bootstrap, warnings, dropped, ranges (smallest and largest of every
        variable), comparison.
    """
    law = law_named(fitted.law)
    columns = {name: [float(points.columns[name].min()), float(points.columns[name].max())] for name in law.variables}
    document = {
        "law": fitted.law,
        "quantity": points.quantity(law),
        "formula": law.formula,
        "params": fitted.params,
        "intervals": refits.intervals(level),
        "no_intervals": refits.reason or None,
        "level": level,
        "objective": fitted.objective,
        "status": fitted.status,
        "reason": fitted.reason,
        "num_points": fitted.num_points,
        "num_parameters": fitted.num_parameters,
        "fixed": dict(fitted.constraints.fixed),
        "tied": [list(pair) for pair in fitted.constraints.tied],
        "log_rmse": fitted.log_rmse,
        "starts": fitted.starts,
        "starts_agreeing": fitted.starts_agreeing,
        "bootstrap": {"draws": refits.draws, "seed": refits.seed},
        "warnings": points.warnings,
        "dropped": points.dropped,
        "ranges": columns,
        "comparison": [vars(one) for one in comparison or []],
    }
    return plain(document)


def read_fit(path: str | Path) -> dict[str, Any]:
    """A fit that `describe_fit` described.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no fit.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; `sr-transformers scaling fit POINTS --json {path}` writes one.")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # broken JSON, or no text at all
        raise ValueError(f"{path} is no fit as JSON ({error}); `sr-transformers scaling fit` writes one.") from error
    if not isinstance(document, dict) or not {"law", "params", "status"} <= set(document):
        raise ValueError(f"{path} is no fit: it lacks law, params or status; `sr-transformers scaling fit` writes one.")
    law = law_named(document["law"])
    params = document["params"]
    if not isinstance(params, dict) or set(params) != set(law.names):
        raise ValueError(f"{path}: law {law.name} has the parameters {', '.join(law.names)}.")
    for name, value in params.items():
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise ValueError(f"{path}: {name} is {value!r}; it must be a finite number above 0.")
    return document


def plain(value: Any) -> Any:
    """The same for JSON: tuples as lists, NaN and infinities as null."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def fit_text(document: dict[str, Any]) -> str:
    """A fit for people."""
    lines = [f"{document['law']}, {document['quantity']}: {document['formula']}", ""]
    for name, value in document["params"].items():
        if name in document["fixed"]:
            lines.append(f"  {name:6} {value:.6g}  fixed")
            continue
        bounds = document["intervals"][name]
        shown = f"  {document['level']:.0%} [{bounds[0]:.6g}, {bounds[1]:.6g}]" if bounds else ""
        lines.append(f"  {name:6} {value:.6g}{shown}")
    lines += [
        "",
        f"{document['num_points']} points, objective {document['objective']:.9g}, residuals {document['log_rmse']:.2%}",
        f"status: {document['status'].replace('_', ' ')}: {document['reason']} "
        f"({document['starts_agreeing']} of {document['starts']} starts)",
    ]
    if document["no_intervals"]:
        lines.append(f"no intervals: {document['no_intervals']}")
    lines += [f"dropped: {count} ({reason})" for reason, count in document["dropped"].items()]
    lines += [f"warning: {warning}" for warning in document["warnings"]]
    for one in document["comparison"]:
        numbers = [f"{one[key]:.4g}" if one[key] is not None else "–" for key in ("aicc", "left_out_error")]
        lines.append(f"  {one['law']:10} AICc {numbers[0]:>8}  left-out error {numbers[1]:>8}  {one['note']}")
    return "\n".join(lines)
