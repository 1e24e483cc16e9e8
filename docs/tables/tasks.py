"""python docs/tables/tasks.py: writes the tables of the five tasks in results/README.md from the reports in
results/tasks/, and draws what size brings on ml-1m, the picture of the project's README.

A report is what `sr-transformers tasks ... --json recipes/results/tasks/NAME.json` wrote; each gets a table. What
counting does beside it may come from a report of the same protocol without models, in tasks/counting/: there are more
baselines than when the models were trained.
"""

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from sr_transformers.evaluation.tasks.findings import judge
from sr_transformers.evaluation.tasks.markdown import TITLES, detectable, headline, protocol_line
from sr_transformers.marks import put

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "recipes" / "results" / "tasks"
PAGE = RESULTS.parent / "README.md"
FIGURE = ROOT / "docs" / "images" / "size.png"
# What the tables show; the rest is in the reports.
SHOWN = {
    "long_tail": ("G1 head", "G4 tail"),
    "cold_start": ("last 50", "last 20", "last 5"),
    "multi_domain": ("mix", "diff"),
    "robustness": ("clean", "deleted", "padded"),
    "trajectory": ("autoregressive 10", "one pass 10", "step 1", "step 10"),
    "time_drift": (),  # the first and the last month that have enough users
}
ENOUGH = 50


def tables(folder: Path = RESULTS) -> str:
    """Markdown: per report a table of results, then the findings of all reports."""
    reports = {path.stem: read(path) for path in sorted(folder.glob("*.json"))}
    parts = []
    for name, report in reports.items():
        parts += [f"`{name}`: {protocol_line(report)}", _results(report)]
    return "\n\n".join([*parts, _findings(reports)])


def read(path: Path) -> dict[str, Any]:
    """A report, with the baselines of `counting/` beside it if there are any.

    Raises:
        ValueError: if these are of another protocol.
    """
    report, beside = json.loads(path.read_text()), path.parent / "counting" / path.name
    if not beside.exists():
        return report
    counting = json.loads(beside.read_text())
    for key in (report["protocol"].keys() & counting["protocol"].keys()) - {"command", "version", "commit", "data"}:
        if report["protocol"][key] != counting["protocol"][key]:
            raise ValueError(f"{beside}: its {key} is not that of {path}; run the tasks on the same prepared log.")
    for name, task in report["tasks"].items():  # the same rows in another file have another checksum
        if _groups(task) != _groups(counting["tasks"].get(name, {})):
            raise ValueError(f"{beside}: its users of {name} are not those of {path}; prepare the same log.")
    report["models"] = [one for one in report["models"] if one.get("num_non_embedding_parameters")] + counting["models"]
    for name, task in report["tasks"].items():
        if "not_run" not in task:
            others = counting["tasks"][name]["results"]
            baselines = {row["model"] for row in others}
            task["results"] = [row for row in task["results"] if row["model"] not in baselines] + others
    return report


def _groups(task: dict[str, Any]) -> dict[str, int]:
    return {one["name"]: one["num_users"] for one in task.get("groups", ())}


def _results(report: dict[str, Any]) -> str:
    models = [one["name"] for one in report["models"]]
    sized = [one for one in report["models"] if one.get("num_non_embedding_parameters")]
    largest = max(sized, key=lambda one: one["num_non_embedding_parameters"])["name"]
    heads = [
        f"{one['name']} ({one['num_checkpoints']} seed{'s' * (one['num_checkpoints'] > 1)})"
        if one in sized
        else one["name"]
        for one in report["models"]
    ]
    lines = [f"| task | group | users | metric | {' | '.join(heads)} | gain of {largest} over {models[0]} |"]
    lines.append("|---" * (len(models) + 5) + "|")
    for name, groups in SHOWN.items():
        task = report["tasks"].get(name)
        if task is None:
            continue  # the report was asked for other tasks
        if "not_run" in task:
            reason = task["not_run"].split(";")[0]  # the rest says what to do about it
            lines.append(f"| {TITLES[name]} | not run: {reason} |" + " |" * (len(models) + 3))
            continue
        rows = {(row["group"], row["model"]): row for row in task["results"]}
        users = {one["name"]: one["num_users"] for one in task["groups"]}
        enough = [group for group, number in users.items() if number >= ENOUGH]
        for group in groups or dict.fromkeys(enough[:1] + enough[-1:]):
            if not users.get(group):
                continue
            metric = headline(task, group)
            values = [f"{rows[group, model]['metrics'][metric]['value']:.3f}" for model in models]
            gain = _percent(rows[group, largest].get("relative_gain", {}).get(metric))
            lines.append(f"| {TITLES[name]} | {group} | {users[group]:,} | {metric} | {' | '.join(values)} | {gain} |")
    return "\n".join(lines)


def _findings(reports: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| finding | data | group | metric | percentage points | verdict | could have been seen |",
        "|---" * 7 + "|",
    ]
    for name, report in reports.items():
        for one in judge(report):
            where = [one["statement"], name, one["group"], one["metric"]]
            cells = [*where, _percent(one, ""), one["verdict"], detectable(one)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw_size(report: dict[str, Any], path: Path) -> None:
    """Draws loss and HR@10 of all targets against N, with their intervals over users and seeds."""
    sizes = {
        one["name"]: one["num_non_embedding_parameters"]
        for one in report["models"]
        if one.get("num_non_embedding_parameters")
    }
    rows = {row["model"]: row["metrics"] for row in report["tasks"]["overall"]["results"]}
    figure = Figure(figsize=(8, 3), layout="constrained")
    for axes, metric, title in zip(figure.subplots(1, 2), ("loss", "hr@10"), ("test loss, nats", "HR@10"), strict=True):
        found = [rows[name][metric] for name in sizes]
        values = [one["value"] for one in found]
        spread = [[one["value"] - one["low"] for one in found], [one["high"] - one["value"] for one in found]]
        axes.errorbar(list(sizes.values()), values, yerr=spread, marker="o", capsize=4, color="#3949ab")
        axes.set(xscale="log", xlabel="N, parameters in the blocks", title=title)
        axes.grid(alpha=0.3)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=150)


def _percent(entry: dict[str, Any] | None, unit: str = " %") -> str:
    if entry is None or entry["value"] is None:
        return "–"
    text = f"{100 * entry['value']:+.0f}{unit}"
    return text if entry["low"] is None else f"{text} [{100 * entry['low']:+.0f}, {100 * entry['high']:+.0f}]"


if __name__ == "__main__":
    put(PAGE, "tasks", tables())
    draw_size(read(RESULTS / "ml-1m.json"), FIGURE)
    print(tables())
