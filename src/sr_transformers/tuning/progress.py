"""What a search says while it goes on: a line for each trial that is over, and the seconds it has used so far."""

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sr_transformers.records import read_json, write_whole
from sr_transformers.tuning import storage
from sr_transformers.tuning.space import GROUPS

PROGRESS = "progress.json"
_KEPT_EVERY = 5.0  # seconds
_HEAD = ("trial", "NDCG@10", "best", "epochs", "minutes", "left", "ended", "setting")
_WIDTHS = (5, 8, 8, 7, 8, 6, 10, 0)
# How the report and the lines call the keys of a recipe.
SHORT = {
    "num_hidden_layers": "layers",
    "hidden_size": "width",
    "num_attention_heads": "heads",
    "max_position_embeddings": "window",
    "embedding_dropout": "embedding dropout",
    "residual_dropout": "residual dropout",
    "attention_dropout": "attention dropout",
    "learning_rate": "lr",
    "table_lr_multiplier": "table lr x",
    "per_device_train_batch_size": "rows",
    "num_train_epochs": "epochs",
    "num_negatives": "negatives",
    "num_successors": "successors",
}


class Progress:
    """`progress.json`: what a search that goes on must know of itself.

    Args:
        folder: of the search.
        since: moment (`time.time`) at which this start began.

    Attributes:
        begun: moment at which the search would have begun, had it never been stopped.
        content: `spent` (seconds), `probe` and `plan` once they are known, `final` (number of the trial whose training
            is the model), and `parts`, seconds by what they were spent on beside trials.
    """

    def __init__(self, folder: Path, since: float):
        self._path = folder / PROGRESS
        self.content: dict[str, Any] = {"spent": 0.0, "parts": {}}
        if self._path.exists():
            self.content.update(read_json(self._path))
        self.begun = since - float(self.content["spent"])
        self._kept = time.time()

    def spent(self) -> float:
        """Seconds, those of earlier starts included."""
        return time.time() - self.begun

    def keep(self, **more: Any) -> None:
        """Writes it, with further content."""
        self.content.update(more, spent=self.spent())
        self._kept = time.time()
        write_whole(self._path, json.dumps(self.content, indent=2) + "\n")

    def tick(self) -> None:
        """Writes it now and then."""
        if time.time() - self._kept > _KEPT_EVERY:
            self.keep()

    def count(self, part: str, seconds: float) -> None:
        """Notes seconds spent on a part of the search."""
        parts = self.content["parts"]
        self.keep(parts={**parts, part: parts.get(part, 0.0) + seconds})


class Lines:
    """A line for each trial that is over, below a head; trials that were over before are told first.

    Args:
        say: where lines go.
        left: seconds until the search is over.
    """

    def __init__(self, say: Callable[[str], None], left: Callable[[], float]):
        self._say, self._left = say, left
        self._told: set[int] = set()
        self._best: float | None = None

    def tell(self, trials: Iterable[Any]) -> None:
        """Says what is new among trials that are over; those that were refused for their time are passed over."""
        for trial in trials:
            if trial.number in self._told or trial.user_attrs["ended"] == storage.TOO_LONG:
                continue
            if not self._told:
                self._say(_row(_HEAD))
            self._told.add(trial.number)
            if trial.state == storage.State.COMPLETE:
                self._best = max(trial.value, self._best if self._best is not None else trial.value)
            of_trial = trial.user_attrs
            reached = value_of(trial)
            self._say(
                _row(
                    (
                        str(trial.number),
                        "–" if reached is None else f"{reached:.4f}",
                        "–" if self._best is None else f"{self._best:.4f}",
                        f"{of_trial['epochs']:.4g}",
                        f"{of_trial['seconds'] / 60:.1f}",
                        f"{max(self._left(), 0) / 60:.1f}",
                        of_trial["ended"],
                        setting(trial),
                    )
                )
            )


def value_of(trial: Any) -> float | None:
    """The best validation of a trial, None if it was never validated."""
    if trial.state == storage.State.COMPLETE:
        return float(trial.value)
    return max(trial.intermediate_values.values(), default=None)


def setting(trial: Any) -> str:
    """A trial's setting in a line."""
    name = trial.user_attrs.get("name")
    if trial.user_attrs.get("error"):
        return str(trial.user_attrs["error"])
    return f"{name}: {in_line(trial.params)}" if name else in_line(trial.params)


def in_line(parameters: dict[str, Any]) -> str:
    """Parameters in a line, the size first.

    >>> in_line({"learning_rate": 0.00123456, "hidden_size": 64, "history": "none"})
    'width 64, lr 0.001235, history none'
    """
    order = [*GROUPS["size"], *GROUPS["dropout"], *GROUPS["training"]]
    keys = sorted(parameters, key=lambda key: order.index(key) if key in order else len(order))
    return ", ".join(f"{SHORT.get(key, key)} {_number(parameters[key])}" for key in keys)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _row(cells: Iterable[str]) -> str:
    return "  ".join(
        cell if not width else f"{cell:<{width}}" if width == 10 else f"{cell:>{width}}"
        for cell, width in zip(cells, _WIDTHS, strict=True)
    )
