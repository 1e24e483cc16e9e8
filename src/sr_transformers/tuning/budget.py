"""What a budget of time buys on this machine: a probe measures a few steps, and everything else follows from it.

If the budget buys at least `FULL_TRIALS` trainings of the setting that the search begins with, every trial trains in
full on all users, and the best one is the model. If not, trials train on a part of the users, and the time for one
training in full is kept back for the best setting. Validation always ranks the same targets.
"""

import dataclasses
import math
import shutil
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from sr_transformers.data.fractions import USERS, FractionOfData
from sr_transformers.data.prepared import PreparedData
from sr_transformers.training.recipe import Recipe
from sr_transformers.training.train import fitted

# More targets than these tell settings no better apart than other seeds do: NDCG@10 of 10,000 users has a standard
# error of about .003, less between settings, which are compared on the same users.
MOST_TARGETS = 10_000
# Fewer than these do not tell anything apart: the standard error is .03.
FEWEST_TARGETS = 100
FULL_TRIALS = 3
_PART_TRIALS = 6  # worth of trainings on a part of the users that a budget should buy beside the one in full
_LEAST_FRACTION = 0.05
_STEPS, _SECONDS = 8, 3.0  # a probe takes at least so many steps, and more of them until so much time is over
_MOST_STEPS = 500
SPARE = 1.15  # machines are not always as fast as in a probe
_SCORERS = 8  # the model and the baselines, of which `mix` is fitted too
_REPORT = 8.0  # seconds for pages and pictures


@dataclass(frozen=True)
class Probe:
    """Seconds of this machine with the setting that the search begins with, on all users.

    Attributes:
        step: of one training step, the median.
        steps: of an epoch.
        validation: ranking of the validation targets of a trial.
        start: building model and trainer.
        end: evaluation of model and baselines on the test targets, estimated.
        flops: per target, of blocks and head.
        epochs: of the setting.
    """

    step: float
    steps: int
    validation: float
    start: float
    end: float
    flops: float
    epochs: float

    @property
    def full(self) -> float:
        """One training of the setting, to its last epoch."""
        return self.start + self.epochs * (self.steps * self.step + self.validation)

    def seconds(self, recipe: Recipe, vocab_size: int, fraction: float = 1.0) -> float:
        """Of a training, roughly: half of a step of the probe is taken to be the same for all sizes."""
        scale = 0.5 + 0.5 * flops_of(recipe, vocab_size) / self.flops
        epoch = fraction * self.steps * self.step * scale + self.validation * scale
        return self.start + float(recipe.training["num_train_epochs"]) * epoch


@dataclass(frozen=True)
class Plan:
    """How a budget is spent.

    Attributes:
        fraction: of the users that trials train on; 1: the best trial is the model.
        targets: validation targets that a trial ranks.
        final: seconds kept back for a training in full; 0 if the best trial is one.
    """

    fraction: float
    targets: int
    final: float

    def data(self, data: PreparedData) -> PreparedData:
        """The log as trials see it."""
        return self._view(data, self.fraction)

    def whole(self, data: PreparedData) -> PreparedData:
        """The log as the final training sees it: all users, the same validation targets."""
        return self._view(data, 1.0)

    def _view(self, data: PreparedData, fraction: float) -> PreparedData:
        if fraction == 1.0 and self.targets == data.num_targets("validation"):
            return data
        return FractionOfData(data, USERS, fraction, validation_targets=self.targets)


def check_targets(data: PreparedData) -> int:
    """Validation targets that a trial of a search on this log ranks.

    Raises:
        ValueError: if they are too few to tell settings apart.
    """
    targets = data.num_targets("validation")
    if targets < FEWEST_TARGETS:
        raise ValueError(
            f"{data.path} has {targets:,} validation targets, and a search compares settings by them: below "
            f"{FEWEST_TARGETS} chance decides (NDCG@10 then has a standard error of about 0.03 and more). Train the "
            "setting for this kind of log instead: `sr-transformers train auto`."
        )
    return min(targets, MOST_TARGETS)


def probe(recipe: Recipe, data: PreparedData, targets: int, folder: Path) -> Probe:
    """Times a few steps and one validation.

    Args:
        targets: validation targets that a trial ranks.
        folder: for the short run; removed afterwards.
    """
    few = {
        "max_steps": _MOST_STEPS, "eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False,
        "disable_tqdm": True, "log_level": "error",
    }  # fmt: skip
    short = Recipe(recipe.name, recipe.model, {**recipe.training, **few})
    view, clock = Plan(1.0, targets, 0.0).whole(data), _StepClock()
    begin = time.perf_counter()
    shutil.rmtree(folder, ignore_errors=True)  # of a probe that was interrupted
    try:
        with fitted(short, view, folder, callbacks=[clock]) as run:
            start = clock.at[0] - begin
            ranked = time.perf_counter()
            run.trainer.rank(view.eval_dataset("validation"))
            validation = time.perf_counter() - ranked
            steps = run.trainer.sampler.num_steps  # type: ignore[union-attr]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    taken = [later - sooner for sooner, later in zip(clock.at, clock.at[1:], strict=False)]
    step = statistics.median(taken[1:] or taken)  # the first one warms up
    end = validation * data.num_targets("test") / targets * _SCORERS + _REPORT
    epochs = float(recipe.training["num_train_epochs"])
    return Probe(step, steps, validation, start, end, flops_of(recipe, data.vocab_size), epochs)


def plan(budget: float, jobs: int, probed: Probe, targets: int) -> Plan:
    """How a budget of so many seconds is spent.

    Raises:
        ValueError: if it is too short; the message says what the smallest sensible one is.
    """
    search = budget - probed.end
    if search * jobs >= FULL_TRIALS * probed.full:
        return Plan(1.0, targets, 0.0)
    final = SPARE * probed.full
    fraction = (search - final) * jobs / (_PART_TRIALS * probed.full)
    if fraction < _LEAST_FRACTION:
        least = probed.end + final + _LEAST_FRACTION * _PART_TRIALS * probed.full / jobs
        least = min(least, probed.end + FULL_TRIALS * probed.full / jobs)
        raise ValueError(
            f"the budget of {in_words(budget)} is too short for this log: by a probe one training of the setting that "
            f"the search begins with takes about {in_words(probed.full)} on this machine, the evaluation at the end "
            f"{in_words(probed.end)}. The smallest sensible budget is about {in_words(60 * math.ceil(least / 60))}; "
            "without a search there is `sr-transformers train auto`."
        )
    return Plan(round(min(fraction, 1.0), 3), targets, final)


def flops_of(recipe: Recipe, vocab_size: int) -> float:
    """Forward and backward FLOPs per target, of the blocks and of the head."""
    config = recipe.config(vocab_size)
    scored = int(recipe.training.get("num_negatives", 0)) or vocab_size
    return 6.0 * (config.num_non_embedding_parameters + scored * config.hidden_size)


def in_words(seconds: float) -> str:
    """A time as one types it.

    >>> in_words(42), in_words(600), in_words(5400), in_words(7200)
    ('42s', '10m', '1h30m', '2h')
    """
    if seconds < 90:
        return f"{seconds:.0f}s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes or not hours else "")


def as_dict(one: Probe | Plan) -> dict[str, Any]:
    """For a file of JSON."""
    return dataclasses.asdict(one)


class _StepClock(TrainerCallback):
    """When training began and each step ended; ends it when enough has been seen."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.at.append(time.perf_counter())

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.at.append(time.perf_counter())
        if len(self.at) > _STEPS and self.at[-1] - self.at[0] > _SECONDS:
            control.should_training_stop = True
