"""What programs read of studies: one entry per law and quantity, from which README, figures and cards are written."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sr_transformers.lsrm.configuration_lsrm import LSRM_SIZES
from sr_transformers.scaling.laws.fit_file import plain
from sr_transformers.scaling.laws.forms import D, N, law_named
from sr_transformers.scaling.studies.analysis import Analysis
from sr_transformers.scaling.studies.conclusions import Fitted
from sr_transformers.scaling.studies.study import Size


def summary(name: str, found: Analysis) -> list[dict[str, Any]]:
    """Entries of a study.

    Returns:
        A dictionary for each law that could be fitted: study, law ("n-with-table": N counts the item table too;
        "d-98k": of data, at the size of this name), quantity ("loss" or a metric), status, params (value, low and high
        of the 95 % interval by name; null where there is none), runs (fitted), runs_still_improving, reservations
        (reasons against calling the fit a law), misfit (residuals and spread of seeds where the form is wrong, or
        null), held_out (N, D of laws that know it, measured, predicted, low, high, inside of every run held out),
        predicted (size, N, value, low, high of one run of each of the paper's sizes beyond those measured, and how many
        times the largest of these it is), command and commit (of the runs).
    """
    entries = []
    improving = {name for one in found.document["reservations"] if one["kind"] == "improving" for name in one["names"]}
    for key, law in found.document["laws"].items():
        of = (N, D) if D in law_named(law["law"]).variables else (N,)
        members = found.members[key]
        held = found.document["held_out"].get(key, {"rows": []})
        entries.append(
            {
                "study": name,
                "law": law["law"] if law["quantity"] != "loss" else key,
                "quantity": law["quantity"],
                "status": law["status"],
                "params": {
                    parameter: _with_interval(value, law["intervals"][parameter])
                    for parameter, value in law["params"].items()
                },
                "runs": len(members),
                "runs_still_improving": sum(run.name in improving for run in members),
                "reservations": found.document["reservations"],
                "misfit": law["misfit"],
                "held_out": [
                    {key: row[key] for key in (*of, "measured", "predicted", "low", "high", "inside")}
                    for row in held["rows"]
                ],
                "predicted": _predicted(found.laws[key]) if key != "n-with-table" else [],
                "command": _all({run.record.command for run in members}),
                "commit": _all({run.record.commit or "unknown" for run in members}),
            }
        )
    return entries


def _predicted(one: Fitted) -> list[dict[str, Any]]:
    """What a law of size alone says of larger sizes."""
    law = law_named(one.fitted.law)
    if law.variables != (N,) or not one.fitted.usable:
        return []
    sizes = {name: float(Size(name, *shape).num_non_embedding_parameters) for name, shape in LSRM_SIZES.items()}
    largest = float(one.points.columns[N].max())
    beyond = {name: n for name, n in sizes.items() if n > largest}
    columns = {N: np.array(list(beyond.values()))}
    values, bounds = law.predict(one.fitted.params, columns), one.refits.of_new_run(columns)
    rows = zip(beyond.items(), values.tolist(), bounds.tolist(), strict=True)
    return plain([{"size": name, "N": n, "value": value, "low": low, "high": high, "times_largest": n / largest}
                  for (name, n), value, (low, high) in rows])  # fmt: skip


def _with_interval(value: float | None, bounds: Sequence[float] | None) -> dict[str, float | None]:
    low, high = bounds if bounds else (None, None)
    return {"value": value, "low": low, "high": high}


def _all(values: set[str]) -> str:
    return ", ".join(sorted(values))
