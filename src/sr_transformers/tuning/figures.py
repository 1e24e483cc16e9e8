"""The pictures of a search: what was tried, what mattered, the best one's training, where the time went."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sr_transformers.figures import COLOURS, MARKERS, new_figure, save
from sr_transformers.tuning.progress import SHORT

_KINDS = (  # how trials end, by their mark
    ("trained", ("all epochs", "plateau"), 0),
    ("cut by the time", ("time",), 4),
    ("pruned", ("pruned",), 1),
)


def draw(document: Mapping[str, Any], folder: Path) -> list[str]:
    """Draws what there is something to show of, as PNG and SVG; returns the names, in the report's order."""
    drawn = []
    for name, figure in (
        ("score", _score(document)),
        ("importance", _importance(document["importances"])),
        ("learning", _learning(document)),
        ("time", _time(document["minutes"])),
    ):
        if figure is not None:
            save(figure, folder, name)
            drawn.append(name)
    return drawn


def _score(document: Mapping[str, Any]) -> Any:
    """Best validation of every trial against the time at which it was over, and the best so far."""
    trials = [one for one in document["trials"] if one["value"] is not None]
    if not trials:
        return None
    figure, axes = new_figure("What was tried", "minutes since the search began", "NDCG@10 of validation")
    for label, ends, place in _KINDS:
        some = [one for one in trials if one["ended"] in ends]
        if some:
            axes.plot(*_points(some), MARKERS[place], color=COLOURS[place], ms=5, label=label)
    named = [one for one in trials if one["name"]]
    if named:
        axes.plot(*_points(named), "o", mfc="none", mec="black", ms=10, label="of the portfolio")
    counted = sorted((one for one in trials if one["ended"] != "pruned"), key=_end)
    if counted:
        best = np.maximum.accumulate([one["value"] for one in counted])
        axes.step([_end(one) for one in counted], best, where="post", color="black", lw=1.2, label="best so far")
    axes.legend(frameon=False, fontsize=8)
    return figure


def _importance(importances: Mapping[str, float]) -> Any:
    if not importances:
        return None
    figure, axes = new_figure("What mattered", "importance (PED-ANOVA), all together 1", "")
    names = list(importances)[::-1]
    axes.barh([SHORT.get(name, name) for name in names], [importances[name] for name in names], color=COLOURS[0])
    return figure


def _learning(document: Mapping[str, Any]) -> Any:
    """Validation and training loss of the best trial."""
    best = next(one for one in document["trials"] if one["number"] == document["best"])
    if not best["validation"]:
        return None
    figure, axes = new_figure(f"Trial {best['number']}, the best", "epochs", "NDCG@10 of validation")
    epochs, values = zip(*sorted((int(epoch), value) for epoch, value in best["validation"].items()), strict=True)
    axes.plot(epochs, values, "-o", ms=3, color=COLOURS[0], label="NDCG@10 of validation")
    handles = axes.get_lines()
    if len(best["losses"]) > 1:
        beside = axes.twinx()
        beside.plot(*zip(*best["losses"], strict=True), color=COLOURS[1], lw=1, ls="--", label="training loss, nats")
        beside.set_ylabel("training loss, nats")
        beside.spines["top"].set_visible(False)
        handles = [*handles, *beside.get_lines()]
    axes.legend(handles=handles, frameon=False, fontsize=8, loc="center right")
    return figure


def _time(minutes: Mapping[str, float]) -> Any:
    figure, axes = new_figure("Where the time went", "minutes of training and evaluation, all jobs together", "")
    names = [name for name, value in minutes.items() if value > 0][::-1]
    axes.barh(names, [minutes[name] for name in names], color=COLOURS[2])
    return figure


def _end(one: Mapping[str, Any]) -> float:
    return float(one["begun_minutes"] + one["minutes"])


def _points(trials: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    return [_end(one) for one in trials], [one["value"] for one in trials]
