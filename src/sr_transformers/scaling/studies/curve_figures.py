"""Figures of whole runs: learning curves of all sizes in one picture, and loss against compute with its envelope."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sr_transformers.figures import COLOURS, MARKERS, new_figure
from sr_transformers.scaling.laws.figures import short
from sr_transformers.scaling.studies.analysis import StudyRun

_LINES = ("-", "--", "-.", ":")


def curve_of(run: StudyRun) -> np.ndarray:
    """`(evaluations, 3)`: epochs, training FLOPs (blocks and head) and validation loss in nats."""
    record = run.record
    flops = (record.training_flops + record.head_flops) / record.steps
    rows = [
        (entry["step"] * record.epochs / record.steps, entry["step"] * flops, entry["eval_loss"])
        for entry in record.history
        if "eval_loss" in entry
    ]
    return np.array(rows).reshape(-1, 3)


def envelope(curves: Sequence[np.ndarray]) -> np.ndarray:
    """`(points, 2)`: the lowest loss that any run had reached by each amount of compute; falls, never rises."""
    points = np.concatenate([curve[:, 1:] for curve in curves])
    points = points[np.argsort(points[:, 0], kind="stable")]
    best = np.minimum.accumulate(points[:, 1])
    return np.stack([points[:, 0], best], axis=1)[np.concatenate([[True], np.diff(best) < 0])]


def learning_curves_figure(runs: Sequence[StudyRun], title: str) -> Any:
    """Validation loss against epochs, a line for every size (its first seed)."""
    figure, axes = new_figure(title, "epochs", "validation loss, nats")
    for index, run in enumerate(_one_a_size(runs)):
        epochs, _, loss = curve_of(run).T
        axes.plot(epochs, loss, **_style(index), label=f"N = {short(run.record.num_non_embedding_parameters)}")
    _show_the_end(axes, runs)
    axes.set_xscale("log")
    axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def compute_figure(runs: Sequence[StudyRun], title: str) -> Any:
    """Validation loss against training FLOPs, a line for every size, and the lowest loss at every compute."""
    figure, axes = new_figure(title, "training FLOPs, blocks and head", "validation loss, nats")
    chosen = _one_a_size(runs)
    for index, run in enumerate(chosen):
        _, flops, loss = curve_of(run).T
        axes.plot(flops, loss, **_style(index), label=f"N = {short(run.record.num_non_embedding_parameters)}")
    best = envelope([curve_of(run) for run in chosen])
    axes.step(best[:, 0], best[:, 1], where="post", color="black", lw=2.2, alpha=0.6, label="lowest by this compute")
    _show_the_end(axes, runs)
    axes.set_xscale("log")
    axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _one_a_size(runs: Sequence[StudyRun]) -> list[StudyRun]:
    """Of every N the run of the lowest seed that has a curve, the smallest N first."""
    found: dict[int, StudyRun] = {}
    for run in sorted(runs, key=lambda run: (run.record.num_non_embedding_parameters, run.plan["seed"])):
        if len(curve_of(run)) > 1:
            found.setdefault(run.record.num_non_embedding_parameters, run)
    return list(found.values())


def _style(index: int) -> dict[str, Any]:
    """Colour, line and marker, so that no two of 28 lines look alike, in grey neither."""
    place, turn = index % len(COLOURS), index // len(COLOURS)
    return {
        "color": COLOURS[place],
        "ls": _LINES[turn % len(_LINES)],
        "marker": MARKERS[(place + turn) % len(MARKERS)],
        "ms": 3,
        "lw": 1,
    }


def _show_the_end(axes: Any, runs: Sequence[StudyRun]) -> None:
    """Leaves the fall of the first epochs out of view, where all curves lie on each other."""
    losses = np.concatenate([curve_of(run)[:, 2] for run in _one_a_size(runs)])
    axes.set_ylim(losses.min() - 0.03 * np.ptp(losses), np.quantile(losses, 0.9))
