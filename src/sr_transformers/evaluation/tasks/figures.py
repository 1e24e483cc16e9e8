"""Figures of a task report: the metric by group and model, and what the task is about, with intervals.

Models differ in colour and marker (`figures`). Needs matplotlib.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sr_transformers.evaluation.tasks.markdown import TITLES, headline, protocol_line
from sr_transformers.figures import COLOURS, MARKERS, blank, save

_AXES = {
    "long_tail": "items by popularity in training",
    "cold_start": "most recent interactions shown",
    "multi_domain": "domain of the target in the history",
    "robustness": "history",
    "trajectory": "items foreseen",
    "cold_items": "training interactions of the item",
    "time_drift": "time since the split",
}
_UNORDERED = {"multi_domain", "robustness"}


@dataclass
class Panel:
    """One pair of axes.

    Attributes:
        series: model, what to call it, line style, and per group {value, low, high} or None.
        percent: values are fractions to be shown in per cent, around a line at 0.
        joined: points of a model are joined by lines.
    """

    title: str
    x_label: str
    y_label: str
    ticks: list[str]
    series: list[tuple[int, str, str, list[dict[str, Any] | None]]]
    percent: bool = False
    joined: bool = True


def draw(report: dict[str, Any], folder: str | Path) -> list[Path]:
    """Draws a PNG and an SVG for every task that was run and has more than one group.

    Returns:
        The files.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    blank(1, 1)  # without matplotlib say so before the folder is made
    Path(folder).mkdir(parents=True, exist_ok=True)
    paths = []
    for name, task in report["tasks"].items():
        if "not_run" in task or len(task["groups"]) < 2:
            continue
        panels = _panels(report, name, task)
        figure = blank(5.6 * len(panels), 4.8)
        figure.get_layout_engine().set(w_pad=0.15)
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _draw_panel(axes, panel)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=min(len(labels), 3 * len(panels)), frameon=False
        )
        figure.suptitle(f"{TITLES[name]}. {protocol_line(report)}", fontsize=8.5, wrap=True)
        paths += save(figure, folder, name)
    return paths


def _panels(report: dict[str, Any], name: str, task: dict[str, Any]) -> list[Panel]:
    models = [one["name"] for one in report["models"]]
    groups = [one["name"] for one in task["groups"] if one["num_users"] and not one["name"].endswith("own users")]
    sized = [one["name"] for one in report["models"] if one.get("num_non_embedding_parameters")]
    joined = name not in _UNORDERED
    if name == "trajectory":
        own = [group for group in groups if group.startswith("autoregressive")]
        once = [group for group in groups if group.startswith("one pass")]
        steps = [group for group in groups if group.startswith("step")]
        first = _panel(task, name, own, models, models, "metrics")
        first.title = "solid: one choice after the other, dashed: one pass"
        first.series += _panel(task, name, once, models, models, "metrics", "--").series
        ranked = [_panel(task, name, steps, models, sized or models, kind) for kind in ("metrics", "relative_change")]
        for panel in ranked:
            panel.x_label = "step: rank of the n-th item after the model's own choices"
        return [first, *ranked]
    panels = [_panel(task, name, groups, models, models, "metrics", joined=joined)]
    if name == "robustness":
        panels.append(_panel(task, name, groups[1:], models, models, "relative_change", joined=joined))
    elif len(sized) > 1:
        panels.append(_panel(task, name, groups, models, sized[1:], "relative_gain", joined=joined))
    return panels


def _panel(
    task: dict[str, Any],
    name: str,
    groups: list[str],
    models: Sequence[str],
    shown: Sequence[str],
    kind: str,
    style: str = "-",
    joined: bool = True,
) -> Panel:
    rows = {(row["group"], row["model"]): row for row in task["results"]}
    metric = next((one for one in (headline(task, group) for group in groups) if one), "")
    numbers = [[rows.get((group, model), {}).get(kind, {}).get(metric) for group in groups] for model in shown]
    label = {
        "metrics": _said(metric),
        "relative_gain": f"{_said(metric)}: gain over {models[0]}, %",
        "relative_change": f"{_said(metric)}: change from {groups[0] if joined else task['groups'][0]['name']}, %",
    }[kind]
    prefixes = ("autoregressive ", "one pass ", "step ", "last ")
    ticks = [next((group.removeprefix(one) for one in prefixes if group.startswith(one)), group) for group in groups]
    users = {one["name"]: one["num_users"] for one in task["groups"]}
    if len({users[group] for group in groups}) > 1:
        ticks = [f"{tick}\n{users[group]:,} users" for tick, group in zip(ticks, groups, strict=True)]
    else:
        label += f" ({users[groups[0]]:,} users)"
    series = [
        (models.index(model), "" if style != "-" else model, style, values)
        for model, values in zip(shown, numbers, strict=True)
    ]
    return Panel("", _AXES.get(name, ""), label, ticks, series, kind != "metrics", joined)


def _said(metric: str) -> str:
    kind, _, k = metric.partition("@")
    return f"{kind.upper()}@{k}" if k else metric


def _draw_panel(axes: Any, panel: Panel) -> None:
    scale = 100.0 if panel.percent else 1.0
    for place, label, style, values in panel.series:
        # A number without an interval is a ratio to a metric that can be 0: it would look certain.
        points = [(x, one) for x, one in enumerate(values) if one is not None and one["low"] is not None]
        shift = (place - 2) * 0.06  # side by side, so that intervals do not hide each other
        xs = [x + shift for x, _ in points]
        ys = [scale * one["value"] for _, one in points]
        spans = [[scale * abs(one["value"] - one[end]) for _, one in points] for end in ("low", "high")]
        colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
        axes.errorbar(
            xs, ys, yerr=spans, color=colour, marker=marker, markersize=5, linewidth=1.3, capsize=2,
            linestyle=style if panel.joined else "none", label=label or "_", alpha=1.0 if style == "-" else 0.7,
        )  # fmt: skip
    if panel.percent:
        axes.axhline(0, color="#666666", linewidth=0.8)
    else:
        axes.set_ylim(bottom=0)
    axes.set_xticks(range(len(panel.ticks)), panel.ticks, fontsize=8)
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    if panel.title:
        axes.set_title(panel.title, fontsize=9)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
