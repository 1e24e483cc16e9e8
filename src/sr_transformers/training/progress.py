"""What a training run says while it runs: a bar on a terminal, plain lines elsewhere, and one line per validation."""

import logging
import sys
import time
from typing import Any

from huggingface_hub.utils import disable_progress_bars
from transformers import ProgressCallback, TrainerCallback
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

SHOWN = ("loss", "hr@10", "ndcg@10")
SECONDS = 30.0  # between two lines, where there is no bar


class TrainingProgress(ProgressCallback):
    """transformers' bar; training losses stand beside it, validations and the switch to SGD get a line each."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if not (state.is_world_process_zero and self.training_bar is not None and logs):
            return
        if "loss" in logs:
            self.training_bar.set_postfix_str(f"loss {logs['loss']:.3f}")
        for line in lines_of(args, state, logs):
            self.training_bar.write(line)


class TrainingLines(TrainerCallback):
    """Lines on standard error for nohup, SLURM, CI and `disable_tqdm`: every so many seconds where training stands, and
    every validation with the best one so far. With a `log_level` above warning it says nothing.

    Args:
        targets_per_step: mean number of next-item targets of a training step, of all processes.
    """

    def __init__(self, targets_per_step: float):
        self.targets_per_step = targets_per_step
        self._loss: float | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._start = self._last = time.monotonic()
        self._first_step = state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        now = time.monotonic()
        if now - self._last < SECONDS or not _speaks(args, state):
            return
        self._last = now
        per_second = (state.global_step - self._first_step) / (now - self._start)
        left = (state.max_steps - state.global_step) / per_second
        loss = "" if self._loss is None else f"loss {self._loss:.3f}, "
        _say(
            f"epoch {state.epoch:5.2f}  step {state.global_step:,} of {state.max_steps:,}: {loss}"
            f"{per_second * self.targets_per_step:,.0f} targets/s, at most {_duration(left)} left"
        )

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        logs = logs or {}
        self._loss = logs.get("loss", self._loss)
        if not _speaks(args, state):
            return
        for line in lines_of(args, state, logs):
            _say(line)


def lines_of(args: Any, state: Any, logs: dict[str, Any]) -> list[str]:
    """The lines that a validation or the switch of optimizers gets."""
    lines = []
    if "eval_loss" in logs:
        shown = ", ".join(f"{name} {logs[f'eval_{name}']:.4f}" for name in SHOWN)
        lines.append(f"epoch {state.epoch:5.2f}  validation: {shown}; {_best(args, state.log_history)}")
    if "switched_to_sgd_at" in logs:
        lines.append(f"validation stopped improving: SGD from step {state.global_step} on")
    return lines


def _best(args: Any, history: list[dict[str, Any]]) -> str:
    """Which validation was the best so far, by the metric that decides."""
    metric = args.metric_for_best_model.removeprefix("eval_")
    entries = [entry for entry in history if f"eval_{metric}" in entry]
    best = (max if args.greater_is_better else min)(entries, key=lambda entry: entry[f"eval_{metric}"])
    return f"best {metric} so far {best[f'eval_{metric}']:.4f} in epoch {best['epoch']:.2f}"


def _speaks(args: Any, state: Any) -> bool:
    return state.is_world_process_zero and args.get_process_log_level() <= logging.WARNING


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    """Hours, minutes or seconds, whole ones.

    >>> _duration(42.4), _duration(150), _duration(7300)
    ('42 s', '2 min', '2 h 1 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{rest} s"


def bars_on_terminals_only() -> None:
    """Turns transformers' bars ("Writing model shards") off where nobody sees them move; for scripts."""
    if not sys.stderr.isatty():
        disable_progress_bar()


def silence() -> None:
    """Turns the bars and reports of single models off: a study and a search have a line for each training."""
    set_verbosity_error()
    disable_progress_bar()
    disable_progress_bars()
