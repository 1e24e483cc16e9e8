"""The five findings of arXiv 2311.11351 about large models, put to the test on a report of one's own.

Each is a statement about two models, the reference and a larger one, as one number that the paper says is positive.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import norm

POWER = 0.8
GAIN, CHANGE = "gain_over_base", "change_over_reference"


@dataclass(frozen=True)
class Finding:
    """One statement. `kind` is a comparison of `summary.summarise`, read at the `group`-th group of the task."""

    task: str
    statement: str
    kind: str
    group: str


FINDINGS = (
    Finding("long_tail", "the relative gain is larger on tail items than on head items", GAIN, "tail"),
    Finding("cold_start", "the relative gain is larger for the shortest history than for the longest", GAIN, "last"),
    Finding("multi_domain", "the relative gain is larger where the domain is new to the user", GAIN, "diff"),
    Finding(
        "robustness", "the larger model loses fewer per cent when items are replaced or deleted", CHANGE, "deleted"
    ),
    Finding("robustness", "the same with padding in place of deleted items", CHANGE, "padded"),
    Finding("trajectory", "the larger model loses fewer per cent from the first step to the last", CHANGE, "step"),
)


def judge(report: dict[str, Any], model: str | None = None) -> list[dict[str, Any]]:
    """Compares a model with the reference (the report's first).

    Args:
        model: name; None: the largest.

    Returns:
        For each finding whose task was run: `task`, `statement`, `group`, `metric`, {value, low, high} (a difference of
        relative numbers: 0.1 is ten percentage points), `verdict`: "holds" or "reversed" if the interval excludes 0,
        else "open", and `detectable`: the smallest true difference that such an interval would exclude 0 for in
        `POWER` of all repetitions, None without an interval. Empty if there is no second model with a known size.
    """
    sizes = {one["name"]: one.get("num_non_embedding_parameters") for one in report["models"]}
    if model is None:
        known = {name: size for name, size in sizes.items() if size is not None}
        model = max(known, key=lambda name: known[name]) if known else None
    if model is None or model == report["models"][0]["name"]:
        return []
    found = []
    for finding in FINDINGS:
        task = report["tasks"].get(finding.task, {"not_run": ""})
        if "not_run" in task:
            continue
        group = _group(finding, task["groups"])
        rows = [row for row in task["results"] if row["group"] == group and row["model"] == model]
        for metric, entry in (rows[0].get(finding.kind, {}) if rows else {}).items():
            found.append(
                {
                    "task": finding.task,
                    "statement": finding.statement,
                    "group": group,
                    "metric": metric,
                    **entry,
                    "verdict": _verdict(entry),
                    "detectable": _detectable(entry, report["protocol"]["confidence"]),
                }
            )
    return found


def _group(finding: Finding, groups: Sequence[dict[str, Any]]) -> str:
    names = [one["name"] for one in groups]
    if finding.group == "tail":
        return names[-1]
    if finding.group == "last":
        return [name for name in names if not name.endswith("own users")][-1]
    if finding.group == "step":
        return [name for name in names if name.startswith("step")][-1]
    return finding.group


def _verdict(entry: dict[str, Any]) -> str:
    if entry["low"] is None:
        return "open"
    return "holds" if entry["low"] > 0 else "reversed" if entry["high"] < 0 else "open"


def _detectable(entry: dict[str, Any], confidence: float) -> float | None:
    """From the width of the interval, as if the difference were normal: (z of the test + z of the power) errors."""
    if entry["low"] is None:
        return None
    z = float(norm.ppf((1 + confidence) / 2))
    return (entry["high"] - entry["low"]) / (2 * z) * (z + float(norm.ppf(POWER)))
