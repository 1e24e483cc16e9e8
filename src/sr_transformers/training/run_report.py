"""What a finished run shows of itself: report.md and, where matplotlib is installed, pictures in figures/."""

import importlib.util
from pathlib import Path
from typing import Any

from sr_transformers.evaluation.evaluator import table
from sr_transformers.figures import COLOURS, new_figure, save
from sr_transformers.hub.card_tables import markdown
from sr_transformers.hub.curve import CURVE, draw_curve
from sr_transformers.records import RunRecord, write_whole

REPORT, FIGURES = "report.md", "figures"
BESIDE = "beside_baselines"
SHOWN = ("hr@10", "ndcg@10")


def write_report(record: RunRecord, folder: str | Path) -> Path:
    """Writes report.md into a run's folder, and the pictures that it shows; one page that the Hub renders.

    Args:
        record: of a run that was evaluated beside the baselines.
        folder: of the run. Pictures of an earlier report are written anew.

    Returns:
        The file.
    """
    folder = Path(folder)
    if importlib.util.find_spec("matplotlib") is not None:
        for old in (folder / FIGURES).glob(f"{CURVE}.*"):
            old.unlink()
        draw_curve(record, folder / FIGURES)
        save(_beside(record.reports), folder / FIGURES, BESIDE)
    log, chosen = record.data["source"]["name"], ", which validated best" if record.chosen_on_validation else ""
    parts = [
        f"# {record.name} on {log}",
        f"{record.num_non_embedding_parameters:,} parameters in the blocks, {record.num_train_interactions:,} training "
        f"interactions, seed {record.seed}, {record.epochs:.1f} epochs in {_minutes(record.seconds)}; the weights are "
        f"those of step {record.best_step:,} of {record.steps:,}{chosen}.",
        "## On the test targets",
        table(record.reports),
        *_picture(folder, BESIDE, "The model beside the baselines"),
        "## Training",
        *_picture(folder, CURVE, "Losses of training and validation"),
        markdown(("time", "minutes"), time_rows(record)),
        "## Command",
        f"```bash\n{record.command}\n```",
        "Everything else is in `run.json`.",
    ]
    write_whole(folder / REPORT, "\n\n".join(parts) + "\n")
    return folder / REPORT


def time_rows(record: RunRecord) -> list[tuple[str, str]]:
    """Where the wall time of a run went: (what, minutes)."""
    validation = sum(entry.get("eval_runtime", 0.0) for entry in record.history)
    model, *baselines = [report["seconds"] for report in record.reports]
    rows = [("training", record.seconds - validation), ("validation", validation)]
    rows += [("test targets", model), ("baselines on the test targets", sum(baselines))]
    return [(name, f"{seconds / 60:.2f}") for name, seconds in rows]


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"


def _picture(folder: Path, name: str, words: str) -> list[str]:
    path = f"{FIGURES}/{name}.png"
    return [f"![{words}]({path})"] if (folder / path).exists() else []


def _beside(reports: list[dict[str, Any]]) -> Any:
    """Bars: two metrics of every scorer, the model on top."""
    figure, axes = new_figure("test targets", "", "")
    height = 0.8 / len(SHOWN)
    for place, (metric, colour) in enumerate(zip(SHOWN, COLOURS, strict=False)):
        rows = [row + (place - (len(SHOWN) - 1) / 2) * height for row in range(len(reports))]
        values = [report["metrics"][metric] for report in reports]
        bars = axes.barh(rows, values, height, color=colour, label=metric.upper())
        axes.bar_label(bars, [f"{value:.3f}" for value in values], fontsize=7, padding=2)
    axes.set_yticks(range(len(reports)), [report["model"] for report in reports], fontsize=8)
    axes.invert_yaxis()
    axes.legend(frameon=False, fontsize=8)
    return figure
