"""The learning curve of a run as a picture of its repository. Needs matplotlib; a repository goes without it."""

import importlib.util
import warnings
from pathlib import Path
from typing import Any

from sr_transformers.figures import COLOURS, new_figure, save
from sr_transformers.records import RunRecord

CURVE = "learning_curve"


def draw_curve(record: RunRecord, folder: Path) -> None:
    """Writes `learning_curve.png` and `.svg` into a folder, unless a picture of that name lies there.

    Nothing is written for a run that logged fewer than two losses of a kind, nor (with a warning) without matplotlib.
    """
    lines = {name: _points(record, key) for name, key in (("training", "loss"), ("validation", "eval_loss"))}
    if not any(len(points) > 1 for points in lines.values()) or any(folder.glob(f"{CURVE}.*")):
        return
    if importlib.util.find_spec("matplotlib") is None:
        warnings.warn(
            "the repository gets no learning curve, because matplotlib is not installed: "
            "pip install 'sr-transformers[figures]'.",
            stacklevel=2,
        )
        return
    save(_figure(record, lines), folder, CURVE)


def _points(record: RunRecord, key: str) -> list[tuple[float, float]]:
    """(epochs, nats) of every loss of a kind."""
    per_step = record.epochs / record.steps
    return [(entry["step"] * per_step, entry[key]) for entry in record.history if key in entry]


def _figure(record: RunRecord, lines: dict[str, list[tuple[float, float]]]) -> Any:
    figure, axes = new_figure(f"{record.name}, seed {record.seed}", "epochs", "loss, nats per target")
    for (name, points), colour in zip(lines.items(), COLOURS, strict=False):
        if len(points) > 1:
            marker = "o" if name == "validation" else None
            axes.plot(*zip(*points, strict=True), color=colour, label=name, marker=marker, ms=3, lw=1.2)
    per_step = record.epochs / record.steps
    if record.best_step is not None and lines["validation"]:
        axes.axvline(record.best_step * per_step, color="black", ls=":", lw=1, label="weights kept")
    if record.switched_at is not None:
        axes.axvline(record.switched_at * per_step, color="grey", ls="--", lw=1, label="Adam to SGD")
    axes.legend(frameon=False, fontsize=8)
    return figure
