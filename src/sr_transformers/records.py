"""What one run did, in numbers: `RunRecord` <-> run.json. Tables, cards and fits read these files and nothing else."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sr_transformers.public import html_table, shown_command

RUN_FILE = "run.json"


def write_whole(path: Path, text: str) -> None:
    """Writes a file so that whoever finds it finds all of it, even if the writer is killed or the disk is full.

    What is no file (/dev/stdout, a pipe) is written to as it is.

    Raises:
        OSError: if it cannot be written, naming the file; what was there before is still there then.
    """
    if path.is_relative_to("/dev") or (path.exists() and not path.is_file() and not path.is_dir()):
        path.write_text(text, encoding="utf-8")
        return
    target = Path(os.path.realpath(path))  # a link stays one
    part = target.with_name(f".{target.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink()
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is no JSON, naming the file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or nested without end
        raise ValueError(f"{path} is no JSON ({error}): it is damaged or was cut off; write it again.") from error


def command_line() -> str:
    """How this program was started, as one would type it; secrets and places are hidden (`public.shown_command`)."""
    program, *rest = sys.argv
    name = Path(program).name
    if name == "__main__.py":
        # By its place: a process that was spawned has the arguments of its parent, and another __main__.
        folder = Path(program).resolve().parent
        roots = [Path(one).resolve() for one in sys.path]
        inside = [".".join(folder.relative_to(one).parts) for one in roots if folder.is_relative_to(one)]
        name = f"python -m {min(filter(None, inside), key=len, default=folder.name)}"
    elif name.endswith(".py"):
        script, checkout = Path(program).resolve(), Path(__file__).resolve().parents[2]
        # One of the checkout from its top, another by its name alone: places are nobody's business.
        name = f"python {script.relative_to(checkout).as_posix() if script.is_relative_to(checkout) else name}"
    return f"{name} {shown_command(rest)}".rstrip()


def source_commit() -> str | None:
    """The git commit that this package runs from, "+changes" added if its files differ; None if installed otherwise."""
    here = Path(__file__).resolve().parent
    ask = ["git", "-C", str(here)]
    try:
        head = subprocess.run([*ask, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        # An installed copy can lie inside somebody else's checkout (a .venv): then that commit says nothing of us.
        subprocess.run([*ask, "ls-files", "--error-unmatch", __file__], capture_output=True, check=True)
        changed = subprocess.run([*ask, "status", "--porcelain", "--", str(here)], capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+changes" if changed.stdout.strip() else "")


@dataclass(repr=False)
class RunRecord:
    """One training run.

    Attributes:
        name: of the recipe.
        command: how it was started.
        started: UTC, ISO 8601.
        seed: of everything random.
        data: source, split, filters and counts of the prepared log.
        recipe: model and training settings as they were used, defaults included; `origin` too if the run started from
            given weights, `chosen` too if a rule took the recipe: why.
        versions: of the packages that move numbers.
        commit: of the sources that ran, with "+changes" if files differed from it; None outside a git checkout.
        hardware: device, cores, threads, processes, bytes of weights that each process holds between steps.
        num_non_embedding_parameters: N.
        parameters: all parameters by group (blocks, biases_and_norms, item_embedding, position_embedding, and history
            where the model has it); they sum to the model's total.
        num_train_interactions: D, distinct training interactions.
        num_interactions_seen: targets trained on, epochs included, padding not.
        training_flops: 6 * N * positions that held an item; one position per target with the objective
            all_positions, a whole prefix per target with last_position.
        head_flops: 6 * d * num_interactions_seen * (V, or negatives + 1 if sampled), not part of `training_flops`.
        steps, epochs: optimizer steps, and epochs they amount to.
        best_step: step of the weights that were kept; switched_at: step at which SGD began, None if it never did.
        seconds: wall time of training, validation included; of a resumed run, of all its parts.
        peak_memory_bytes: largest resident set of the (first) process, or memory allocated on the accelerator.
        history: one entry per log: step, epoch, and loss or eval_* values.
        validation: metrics of the kept weights on the validation targets.
        reports: reports on the test targets (`evaluation.evaluator.evaluate`): the model first, then baselines.
    """

    name: str
    command: str
    started: str
    seed: int
    data: dict[str, Any]
    recipe: dict[str, Any]
    versions: dict[str, str]
    commit: str | None
    hardware: dict[str, Any]
    num_non_embedding_parameters: int
    parameters: dict[str, int]
    num_train_interactions: int
    num_interactions_seen: int
    training_flops: float
    head_flops: float
    steps: int
    epochs: float
    best_step: int | None
    switched_at: int | None
    seconds: float
    peak_memory_bytes: int
    history: list[dict[str, Any]] = field(default_factory=list)
    validation: dict[str, float] = field(default_factory=dict)
    reports: list[dict[str, Any]] = field(default_factory=list)

    @property
    def chosen_on_validation(self) -> bool:
        """Whether the weights are those that validated best, and not those that the steps ended with."""
        return bool(self.validation and self.recipe["training"].get("load_best_model_at_end", True))

    def __repr__(self) -> str:
        best = "".join(f", test {name} {value:.4f}" for name, value in self._test_metrics().items())
        return (
            f"RunRecord({self.name}: N = {self.num_non_embedding_parameters:,}, D = {self.num_train_interactions:,}, "
            f"{self.epochs:g} epochs, seed {self.seed}{best})"
        )

    def _repr_html_(self) -> str:
        names = list(self._test_metrics())
        rows = [
            (
                report["model"],
                *(f"{report['metrics'][name]:.4f}" if name in report["metrics"] else "" for name in names),
            )
            for report in self.reports
        ]
        return html_table([(repr(self),)]) + (html_table(rows, ("model", *names)) if rows else "")

    def _test_metrics(self) -> dict[str, float]:
        """The model's metrics that a short line has room for."""
        metrics = self.reports[0]["metrics"] if self.reports else {}
        return {name: metrics[name] for name in ("hr@10", "ndcg@10", "mrr", "loss") if name in metrics}

    def save(self, folder: str | Path) -> Path:
        """Writes run.json into a folder."""
        path = Path(folder) / RUN_FILE
        write_whole(path, json.dumps(dataclasses.asdict(self), indent=2) + "\n")
        return path

    @classmethod
    def load(cls, path: str | Path) -> "RunRecord":
        """Reads a run.json, or the one in a folder.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it is no JSON, or keys are missing or unknown.
        """
        path = Path(path)
        path = path / RUN_FILE if path.is_dir() else path
        content = read_json(path)
        if not isinstance(content, dict):
            raise ValueError(f"{path} is no run record: it holds {type(content).__name__}, not keys and values.")
        names = {one.name for one in dataclasses.fields(cls)}
        if set(content) != names:
            raise ValueError(
                f"{path} is no run record of this version: missing {sorted(names - set(content))}, "
                f"unknown {sorted(set(content) - names)}."
            )
        return cls(**content)
