"""Task reports as Markdown: for the terminal, a README or a model card. Numbers come with their intervals."""

from collections.abc import Sequence
from typing import Any

from sr_transformers.evaluation.tasks.findings import POWER, judge
from sr_transformers.fingerprints import FINGERPRINT

TITLES = {
    "overall": "All targets",
    "long_tail": "Long-tail items",
    "cold_start": "Cold-start users",
    "multi_domain": "Multi-domain transfer",
    "robustness": "Robustness",
    "trajectory": "User trajectory prediction",
    "cold_items": "Cold-start items",
    "time_drift": "Time drift",
}
NONE = "–"


def markdown(report: dict[str, Any], metric: str | None = None) -> str:
    """All tasks of a report: a table of one metric per task, gains over the first model, exposure, and the findings.

    Args:
        metric: of the tables; None: the first headline metric of each task.
    """
    parts = [f"{protocol_line(report)} Protocol fingerprint {report['protocol'][FINGERPRINT]}."]
    for name, task in report["tasks"].items():
        parts.append(f"### {TITLES[name]}")
        parts.append(f"Not run: {task['not_run']}" if "not_run" in task else _task(report, task, metric))
    parts += _findings(report)
    return "\n\n".join(parts)


def protocol_line(report: dict[str, Any]) -> str:
    """The protocol in one sentence."""
    one = report["protocol"]
    seen = "removed" if one["filter_seen"] else "kept"
    return (
        f"{one['data']['name']}, split {one['split']}: full ranking over {one['num_items_ranked']:,} items, seen "
        f"items {seen}, ties against the model; {100 * one['confidence']:g} % intervals from {one['draws']:,} "
        f"bootstrap draws over users (seed {one['seed']})."
    )


def _task(report: dict[str, Any], task: dict[str, Any], metric: str | None) -> str:
    models = [one["name"] for one in report["models"]]
    rows = {(row["group"], row["model"]): row for row in task["results"]}
    parts = [task["protocol"]]
    standing = [headline(task, group["name"]) for group in task["groups"]]
    for one in [metric] if metric else [name for name in dict.fromkeys(standing) if name]:
        groups = [
            group for group in task["groups"] if one in rows.get((group["name"], models[0]), {"metrics": {}})["metrics"]
        ]
        if not groups:
            continue
        parts.append(
            _table(
                ["group", "users", *(f"{one}, {name}" for name in models)],
                [
                    [group["name"], f"{group['num_users']:,}"]
                    + [_number(rows[group["name"], name]["metrics"][one]) for name in models]
                    for group in groups
                ],
            )
        )
        for kind, title, over in (
            ("relative_gain", f"relative gain in {one} over {models[0]}", models[1:]),
            ("relative_change", f"relative change of {one} from the base group", models),
        ):
            lines = [
                [group["name"], *(_percent(rows[group["name"], name].get(kind, {}).get(one)) for name in over)]
                for group in groups
            ]
            told = [line for line in lines if set(line[1:]) != {NONE}]
            if over and told:
                parts.append(_table([title, *over], told))
    exposed = [group["name"] for group in task["groups"] if (group["name"], models[0]) in rows]
    lines = [[group, *(_exposure(rows[group, name]) for name in models)] for group in exposed]
    parts.append(_table(["coverage / Gini / mean training count of recommended items", *models], lines))
    return "\n\n".join(parts)


def headline(task: dict[str, Any], group: str) -> str | None:
    """The metric that stands for a group: the first headline that its results have; None if nobody is in it."""
    row = next((row for row in task["results"] if row["group"] == group), None)
    return None if row is None else next((name for name in task["headlines"] if name in row["metrics"]), None)


def _findings(report: dict[str, Any]) -> list[str]:
    found = judge(report)
    if not found:
        return []
    lines = [
        [one["statement"], one["group"], one["metric"], _percent(one, " points"), one["verdict"], detectable(one)]
        for one in found
    ]
    return [
        "### The paper's findings, for the largest model and the first",
        "A difference of relative gains, or of relative changes, in percentage points: a finding holds where the whole "
        f"interval is above 0. Of differences as large as the last column {POWER:.0%} would have been seen.",
        _table(["finding", "group", "metric", "difference", "verdict", "could have been seen"], lines),
    ]


def detectable(finding: dict[str, Any]) -> str:
    """The smallest difference that the test of a finding could have seen, in percentage points."""
    return NONE if finding["detectable"] is None else f"{100 * finding['detectable']:.1f}"


def _number(entry: dict[str, Any]) -> str:
    if entry["value"] is None:
        return NONE
    return f"{entry['value']:.4f}" + ("" if entry["low"] is None else f" [{entry['low']:.4f}, {entry['high']:.4f}]")


def _percent(entry: dict[str, Any] | None, unit: str = " %") -> str:
    if entry is None or entry["value"] is None:
        return NONE
    text = f"{100 * entry['value']:+.1f}{unit}"
    return text if entry["low"] is None else f"{text} [{100 * entry['low']:+.1f}, {100 * entry['high']:+.1f}]"


def _exposure(row: dict[str, Any]) -> str:
    coverage, gini = row["exposure"]["coverage"], row["exposure"]["gini"]
    popularity = next(
        (value["value"] for name, value in row["metrics"].items() if name.startswith("popularity@")), None
    )
    words = [f"{coverage:.3f}", NONE if gini is None else f"{gini:.3f}"]
    return " / ".join([*words, NONE if popularity is None else f"{popularity:,.0f}"])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])
